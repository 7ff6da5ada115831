"""The linear Gaussian latent model on rows with missing entries: posterior, evidence, EM step."""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class LinearGaussian:
    """Parameters of ``x = W z + center + noise``, ``z ~ N(0, I)``, ``noise ~ N(0, s2 I)``.

    Attributes
    ----------
    loadings : ndarray, shape (feature, factor)
        W.
    center : ndarray, shape (feature,)
    noise_variance : float
        s2 > 0.
    """

    loadings: np.ndarray
    center: np.ndarray
    noise_variance: float

    def covariance(self) -> np.ndarray:
        """Return ``W W' + s2 I``, shape (feature, feature)."""
        eye = np.eye(len(self.center))
        return self.loadings @ self.loadings.T + self.noise_variance * eye


@dataclass(frozen=True)
class RowPosterior:
    """Posterior of z given the observed entries of each row.

    Attributes
    ----------
    mean : ndarray, shape (row, factor)
    covariance : ndarray, shape (row, factor, factor)
    log_likelihood : ndarray, shape (row,)
        Nats of the row's observed entries, z integrated out.
    """

    mean: np.ndarray
    covariance: np.ndarray
    log_likelihood: np.ndarray


def row_posterior(model: LinearGaussian, values: np.ndarray) -> RowPosterior:
    r"""Return posterior and evidence of rows, through factor x factor matrices only.

    With o the observed entries of a row, ``M = W_o'W_o + s2 I``: mean ``M^{-1} W_o'(x_o - mu_o)``,
    covariance ``s2 M^{-1}`` (Tipping and Bishop 1999, Eq. 12), and the evidence by the Woodbury
    identity and the determinant lemma.

    Parameters
    ----------
    model : LinearGaussian
    values : ndarray, shape (row, feature)
        NaN = missing.
    """
    present = ~np.isnan(values)
    n_factors = model.loadings.shape[1]
    noise = model.noise_variance
    residual = np.where(present, values - model.center, 0.0)
    inner = noise * np.eye(n_factors) + _gram(model.loadings, present)
    chol = np.linalg.cholesky(inner)
    projected = residual @ model.loadings
    inverse = np.linalg.inv(inner)  # W_o'W_o + s2 I is well away from singular
    mean = np.einsum("...k,...kl->...l", projected, inverse)
    n_seen = present.sum(axis=1)
    log_det = 2.0 * np.log(np.diagonal(chol, axis1=-2, axis2=-1)).sum(axis=-1)
    log_det = log_det + (n_seen - n_factors) * math.log(noise)
    quadratic = ((residual**2).sum(axis=1) - (projected * mean).sum(axis=1)) / noise
    evidence = -0.5 * (quadratic + log_det + n_seen * math.log(2.0 * math.pi))
    shape = (len(values), n_factors, n_factors)
    return RowPosterior(mean, np.broadcast_to(noise * inverse, shape), evidence)


def _gram(loadings: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return ``W_o'W_o`` by row, (row, factor, factor); one matrix where nothing is missing."""
    if present.all():
        return loadings.T @ loadings
    n_factors = loadings.shape[1]
    outer = (loadings[:, :, None] * loadings[:, None, :]).reshape(len(loadings), -1)
    return (present @ outer).reshape(-1, n_factors, n_factors)


@dataclass
class EMStatistics:
    """Expected sufficient statistics of all rows; filled by `add`, used by `update`.

    Attributes
    ----------
    n_features, n_factors : int
    log_likelihood : float
        Nats of the observed entries under the parameters that `add` was given.
    n_rows, n_entries : int
    """

    n_features: int
    n_factors: int
    log_likelihood: float = 0.0
    n_rows: int = 0
    n_entries: int = 0
    square: float = 0.0
    second: np.ndarray = field(init=False)  # by feature: sum of E[(z, 1)(z, 1)'] where observed
    cross: np.ndarray = field(init=False)  # by feature: sum of x E[(z, 1)] where observed
    latent: np.ndarray = field(init=False)  # over all rows: sum of E[(z, 1)(z, 1)']

    def __post_init__(self) -> None:
        """Start from nothing."""
        size = self.n_factors + 1
        self.second = np.zeros((self.n_features, size, size))
        self.cross = np.zeros((self.n_features, size))
        self.latent = np.zeros((size, size))

    def add(self, model: LinearGaussian, values: np.ndarray) -> None:
        """Take in rows (row, feature), NaN = missing; `model` is that of the whole pass."""
        if not len(values):
            return
        posterior = row_posterior(model, values)
        present = ~np.isnan(values)
        # Deviations from the current centre keep digits when features have large means.
        shifted = np.where(present, values - model.center, 0.0)
        first = np.concatenate([posterior.mean, np.ones((len(values), 1))], axis=1)
        moment = first[:, :, None] * first[:, None, :]
        moment[:, :-1, :-1] += posterior.covariance
        flat = moment.reshape(len(values), -1)
        self.second += (present.T.astype(float) @ flat).reshape(self.second.shape)
        self.cross += shifted.T @ first
        self.latent += moment.sum(axis=0)
        self.square += float((shifted**2).sum())
        self.log_likelihood += float(posterior.log_likelihood.sum())
        self.n_rows += len(values)
        self.n_entries += int(present.sum())

    def update(self, model: LinearGaussian) -> LinearGaussian:
        r"""Return the parameters that maximise the expected log-likelihood.

        Each feature is regressed on (z, 1) over the rows where it is observed, and s2 is the mean
        squared residual. Then z's own mean and covariance, which the model fixes at 0 and I, are
        absorbed into centre and loadings: the parameter expansion of Liu, Rubin and Wu (1998),
        which never lowers the likelihood and needs far fewer steps.
        """
        weights = np.linalg.solve(self.second, self.cross[..., None])[..., 0]
        fitted = 2.0 * (weights * self.cross).sum() - np.einsum(
            "jk,jkl,jl->", weights, self.second, weights
        )
        noise = (self.square - fitted) / self.n_entries
        mean = self.latent[:-1, -1] / self.n_rows
        spread = self.latent[:-1, :-1] / self.n_rows - np.outer(mean, mean)
        loadings = weights[:, :-1]
        return LinearGaussian(
            loadings @ np.linalg.cholesky(spread),
            model.center + weights[:, -1] + loadings @ mean,
            float(noise),
        )
