"""A covariance of many assets as low rank plus diagonal, never dense unless asked."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LowRankCovariance:
    """``loadings @ loadings.T + diag(specific_variance)`` of one date.

    Attributes
    ----------
    assets : ndarray, shape (asset,)
        Names, in the order of the other arrays; only assets with a forecast.
    loadings : ndarray, shape (asset, factor)
        Exposure times factor standard deviation, decimal return.
    specific_variance : ndarray, shape (asset,)
        Decimal return squared, > 0.
    """

    assets: np.ndarray
    loadings: np.ndarray
    specific_variance: np.ndarray

    def matvec(self, vector: np.ndarray) -> np.ndarray:
        """Return covariance times `vector`, shape (asset,), in O(asset x factor)."""
        return self.loadings @ (self.loadings.T @ vector) + self.specific_variance * vector

    def quadratic(self, vector: np.ndarray) -> float:
        """Return ``vector' covariance vector``: the variance of a portfolio of these weights."""
        factor = self.loadings.T @ vector
        return float(factor @ factor + self.specific_variance @ np.square(vector))

    def log_determinant(self) -> float:
        """Return the log determinant by the determinant lemma."""
        scaled = self.loadings / self.specific_variance[:, None]
        inner = np.eye(self.loadings.shape[1]) + self.loadings.T @ scaled
        return float(np.linalg.slogdet(inner)[1] + np.log(self.specific_variance).sum())

    def dense(self) -> np.ndarray:
        """Return the whole matrix, shape (asset, asset); for small universes."""
        return self.loadings @ self.loadings.T + np.diag(self.specific_variance)
