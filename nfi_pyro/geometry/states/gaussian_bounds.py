r"""How far apart two normal laws with full covariances are: bounds, exact in special cases.

The Fisher-Rao distance between normal laws of several variables has no closed form in general.
It does not change under an affine map, so the first law is taken to N(0, I) and the second to
N(delta, diag lambda). Then

- below: the distance of ``[[S + m m', m], [m', 1]]`` as positive definite matrices, ``sqrt(1/2
  sum log^2)`` of their relative eigenvalues, for normal laws are a submanifold of these (Calvo and
  Oller, 1990);
- above: the distance on the submanifold of products of normals (Strapasson, Porto and Costa,
  2015), with equal lambda turned so that delta has one component in each of their eigenspaces;
  and the two paths that move the mean first or the covariance first.

Where delta lies in a single eigenspace, equal means and equal or proportional covariances among
them, the products are totally geodesic there (they are what reflections leave fixed), and the
upper bound is the distance.
"""

import numpy as np

from nfi_pyro.geometry.states.half_planes import factor_distances

_SAME = 1e-9
"""Log eigenvalues closer than this are one; so are parts of delta smaller than this of it."""


def distance_bounds(
    loc: np.ndarray, covariance: np.ndarray, other_loc: np.ndarray, other_covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lower and upper bounds of the distance and whether the upper is exact, each (...).

    Parameters
    ----------
    loc, other_loc : ndarray, shape (..., factor)
    covariance, other_covariance : ndarray, shape (..., factor, factor)
        Symmetric and positive definite.
    """
    eigenvalues, delta = _reduce(loc, covariance, other_loc, other_covariance)
    delta, n_moved = _gather(eigenvalues, delta)
    lower = _embedded_distance(eigenvalues, delta)
    scale = np.sqrt(eigenvalues)
    product = np.linalg.norm(factor_distances(np.zeros(()), np.ones(()), delta, scale), axis=-1)
    reshape = np.sqrt(0.5 * np.square(np.log(eigenvalues)).sum(axis=-1))
    first = _same_covariance_distance(np.square(delta).sum(axis=-1))
    last = _same_covariance_distance((np.square(delta) / eigenvalues).sum(axis=-1))
    exact = n_moved <= 1
    upper = np.minimum(product, reshape + np.minimum(first, last))
    return np.minimum(lower, upper), upper, exact


def _reduce(
    loc: np.ndarray, covariance: np.ndarray, other_loc: np.ndarray, other_covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return lambda, ascending, and delta, (..., factor), in the frame where the first is I."""
    root = np.linalg.cholesky(covariance)
    half = np.linalg.solve(root, other_covariance)
    relative = np.linalg.solve(root, np.swapaxes(half, -1, -2))
    eigenvalues, axes = np.linalg.eigh(0.5 * (relative + np.swapaxes(relative, -1, -2)))
    white = np.linalg.solve(root, (other_loc - loc)[..., None])
    return eigenvalues, (np.swapaxes(axes, -1, -2) @ white)[..., 0]


def _gather(eigenvalues: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return delta with one component per eigenspace, and in how many of them it does not vanish.

    An eigenspace may be turned at will; so its part of delta is put on the first of its axes.
    """
    leaps = np.diff(np.log(eigenvalues), axis=-1) > _SAME
    space = np.concatenate([np.zeros_like(leaps[..., :1], int), leaps.cumsum(axis=-1)], axis=-1)
    member = space[..., :, None] == np.arange(delta.shape[-1])
    square = (np.square(delta)[..., None] * member).sum(axis=-2)
    total = square.sum(axis=-1, keepdims=True)
    n_moved = (square > _SAME**2 * total).sum(axis=-1)
    leads = np.concatenate([np.ones_like(leaps[..., :1]), leaps], axis=-1)
    gathered = np.take_along_axis(square, space, axis=-1) * leads
    return np.sqrt(gathered), n_moved


def _embedded_distance(eigenvalues: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Return the distance of the two laws among positive definite matrices of one size more."""
    n = delta.shape[-1]
    matrix = np.zeros((*delta.shape[:-1], n + 1, n + 1))
    matrix[..., :n, :n] = delta[..., :, None] * delta[..., None, :]
    matrix[..., np.arange(n), np.arange(n)] += eigenvalues
    matrix[..., :n, n] = matrix[..., n, :n] = delta
    matrix[..., n, n] = 1.0
    return np.sqrt(0.5 * np.square(np.log(np.linalg.eigvalsh(matrix))).sum(axis=-1))


def _same_covariance_distance(square: np.ndarray) -> np.ndarray:
    """Return the distance of two laws of one covariance from their squared Mahalanobis distance."""
    return 2.0 * np.sqrt(2.0) * np.arcsinh(np.sqrt(square / 8.0))
