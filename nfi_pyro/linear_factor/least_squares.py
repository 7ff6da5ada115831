"""Weighted least squares of one date: triangular factor, rank, estimates and their errors."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

COLLINEAR_TOLERANCE = 1e-6  # float32 exposures repeat each other to 6e-8


@dataclass(frozen=True)
class Solution:
    """Coefficients of the independent columns of one date.

    Attributes
    ----------
    kept : ndarray of int, shape (kept,)
        Positions of the columns that are no combination of those before them.
    values : ndarray, shape (kept,)
    root : ndarray, shape (kept, kept)
        Inverse R^-1 of the triangular factor of the weighted columns: R^-1 R^-T = (X'WX)^-1.
    condition : float
        See `CrossSectionalRegression`.
    """

    kept: np.ndarray
    values: np.ndarray
    root: np.ndarray
    condition: float


def solve_weighted(design: np.ndarray, values: np.ndarray, weights: np.ndarray) -> Solution:
    """Return the weighted least-squares coefficients on the independent columns.

    A column is dependent when what is left of it, after the columns before it, is at most
    `COLLINEAR_TOLERANCE` of its weighted length. There is no ridge and no pseudo-inverse.

    Parameters
    ----------
    design : ndarray, shape (asset, column)
        Finite, with more assets than columns.
    values : ndarray, shape (asset,)
    weights : ndarray, shape (asset,)
        > 0.
    """
    root_weights = np.sqrt(weights)[:, None]
    together = np.column_stack([design, values]) * root_weights
    triangle = _triangle(together)
    kept = independent_columns(triangle[:, :-1])
    if len(kept) < design.shape[1]:
        triangle = _triangle(triangle[:, [*kept, design.shape[1]]])
    n = len(kept)
    upper, image = triangle[:n, :n], triangle[:n, n]
    root = solve_triangular(upper, np.eye(n))
    lengths = np.sqrt(np.square(upper).sum(axis=0))
    spread = np.linalg.svd(upper / lengths, compute_uv=False) if n else np.ones(1)
    return Solution(kept, root @ image, root, float(spread[0] / spread[-1]))


def independent_columns(triangle: np.ndarray) -> np.ndarray:
    """Return the positions of columns that are no linear combination of those before them.

    Parameters
    ----------
    triangle : ndarray, shape (row, column)
        Upper triangular factor of the columns.
    """
    lengths = np.sqrt(np.square(triangle).sum(axis=0))
    kept = np.flatnonzero(lengths > 0.0)
    current = triangle if len(kept) == len(lengths) else _triangle(triangle[:, kept])
    while len(kept):
        left = np.abs(np.diagonal(current)[: len(kept)])
        weak = np.flatnonzero(left <= COLLINEAR_TOLERANCE * lengths[kept])
        if not len(weak):
            break
        kept = np.delete(kept, weak[0])  # what follows a dependent column must be measured anew
        current = _triangle(triangle[:, kept])
    return kept


def gaussian_covariance(
    solution: Solution, design: np.ndarray, residual: np.ndarray, weights: np.ndarray, errors: str
) -> np.ndarray:
    """Return the covariance (kept, kept) of the estimates.

    Parameters
    ----------
    solution : Solution
    design : ndarray, shape (asset, column)
    residual, weights : ndarray, shape (asset,)
    errors : str
        ``"homoskedastic"`` (variance of the residual proportional to 1 / weight), or White's
        ``"hc0"`` and ``"hc1"`` of the weighted problem.
    """
    n, k = len(residual), len(solution.kept)
    bread: np.ndarray = solution.root @ solution.root.T
    if errors == "homoskedastic":
        return bread * float(weights @ np.square(residual)) / (n - k)
    scores = design[:, solution.kept] * (weights * residual)[:, None]
    covariance = bread @ (scores.T @ scores) @ bread
    return covariance * n / (n - k) if errors == "hc1" else covariance


def shares_explained(
    values: np.ndarray, residual: np.ndarray, weights: np.ndarray, n_columns: int, centred: bool
) -> tuple[float, float]:
    """Return the weighted R2 and its adjusted form; NaN where the values do not vary."""
    n = len(values)
    centre = float(weights @ values / weights.sum()) if centred else 0.0
    total = float(weights @ np.square(values - centre))
    scale = float(weights @ np.square(values))
    if total <= 1e-28 * scale or total == 0.0:  # rounding of a constant
        return np.nan, np.nan
    share = 1.0 - float(weights @ np.square(residual)) / total
    return share, 1.0 - (1.0 - share) * (n - centred) / (n - n_columns)


def _triangle(matrix: np.ndarray) -> np.ndarray:
    """Return the upper triangular factor R of a QR decomposition."""
    return np.asarray(np.linalg.qr(matrix, mode="r"))
