r"""The manifold of products of normals: one hyperbolic half-plane per factor, all in closed form.

Of ``prod_k N(m_k, s_k^2)`` the Fisher metric is ``ds^2 = sum_k (dm_k^2 + 2 ds_k^2) / s_k^2``: in
``(m_k / sqrt 2, s_k)`` twice the metric of Poincare's half-plane, so of curvature -1/2, and
factors do not mix. Two points are at

    d^2 = sum_k d_k^2,   d_k = 2 sqrt 2 asinh sqrt(((m - m')^2 / 2 + (s - s')^2) / (4 s s'))

(Atkinson and Mitchell, 1981; the asinh keeps digits where acosh of nearly 1 loses them). With
``rho = d_k / sqrt 2`` the geodesic is a straight line of the hyperboloid, and there ``1 / s`` and
``m / s`` are linear coordinates.

Arrays broadcast; factors are on the last axis; scales are standard deviations, > 0. Distances and
norms are dimensionless. Nothing is checked here.
"""

import numpy as np


def factor_distances(
    loc: np.ndarray, scale: np.ndarray, other_loc: np.ndarray, other_scale: np.ndarray
) -> np.ndarray:
    """Return the Fisher-Rao distance of each factor's law from its other one, (..., factor)."""
    gap = 0.5 * np.square(loc - other_loc) + np.square(scale - other_scale)
    return 2.0 * np.sqrt(2.0) * np.arcsinh(np.sqrt(gap / (4.0 * scale * other_scale)))


def state_distance(
    loc: np.ndarray, scale: np.ndarray, other_loc: np.ndarray, other_scale: np.ndarray
) -> np.ndarray:
    """Return the Fisher-Rao distance between two states, (...)."""
    return np.linalg.norm(factor_distances(loc, scale, other_loc, other_scale), axis=-1)


def state_norm(scale: np.ndarray, loc_rate: np.ndarray, scale_rate: np.ndarray) -> np.ndarray:
    """Return the Fisher norm (...) of a velocity of loc and scale at states of this scale."""
    return np.sqrt(((np.square(loc_rate) + 2.0 * np.square(scale_rate)) / scale**2).sum(axis=-1))


def state_geodesic(
    loc: np.ndarray,
    scale: np.ndarray,
    other_loc: np.ndarray,
    other_scale: np.ndarray,
    fraction: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return loc and scale at a fraction of the way, in [0, 1], at constant speed, (..., factor).

    ``1/s(u) = a/s + b/s'`` and ``m(u)/s(u) = a m/s + b m'/s'`` with ``a = sinh((1-u) rho) / sinh
    rho``, ``b = sinh(u rho) / sinh rho``. `fraction` broadcasts against the arrays.
    """
    rho = factor_distances(loc, scale, other_loc, other_scale) / np.sqrt(2.0)
    near = _sinh_ratio(1.0 - np.asarray(fraction), rho) / scale
    far = _sinh_ratio(np.asarray(fraction), rho) / other_scale
    return loc + (other_loc - loc) * (far / (near + far)), 1.0 / (near + far)


def state_log(
    loc: np.ndarray, scale: np.ndarray, other_loc: np.ndarray, other_scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the velocity of loc and scale that reaches the other state in unit time."""
    rho = factor_distances(loc, scale, other_loc, other_scale) / np.sqrt(2.0)
    slowness = 1.0 / _sinh_over(rho)
    loc_rate = slowness * (scale / other_scale) * (other_loc - loc)
    rise = 2.0 * np.square(np.sinh(0.5 * rho)) + (other_scale - scale) / other_scale
    return loc_rate, scale * slowness * rise


def state_exp(
    loc: np.ndarray, scale: np.ndarray, loc_rate: np.ndarray, scale_rate: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return loc and scale after unit time on the geodesic with this velocity, (..., factor)."""
    rho = np.sqrt(0.5 * np.square(loc_rate) + np.square(scale_rate)) / scale
    upward = np.divide(scale_rate / scale, rho, out=np.zeros_like(rho), where=rho > 0.0)
    sideways = np.divide(loc_rate / scale, rho, out=np.zeros_like(rho), where=rho > 0.0)
    # cosh - upward sinh, as a sum of positive terms: a difference would lose exp(2 rho) digits.
    short_of_up = 0.5 * np.square(sideways) / (1.0 + np.maximum(upward, 0.0))
    rising = np.exp(-rho) + short_of_up * np.sinh(rho)
    falling = np.cosh(rho) - upward * np.sinh(rho)
    shrink = np.where(upward > 0.0, rising, falling)
    return loc + loc_rate * _sinh_over(rho) / shrink, scale / shrink


def jeffreys_divergence(
    loc: np.ndarray, scale: np.ndarray, other_loc: np.ndarray, other_scale: np.ndarray
) -> np.ndarray:
    """Return ``KL(p, q) + KL(q, p)`` of two states, nats, (...).

    Its root agrees with the distance for near states and exceeds it otherwise.
    """
    moved = np.square(loc - other_loc)
    ratio = scale / other_scale
    parts = np.square(ratio - 1.0 / ratio) + moved / other_scale**2 + moved / scale**2
    return 0.5 * parts.sum(axis=-1)


def _sinh_over(rho: np.ndarray) -> np.ndarray:
    """Return ``sinh(rho) / rho``, 1 at 0."""
    return np.divide(np.sinh(rho), rho, out=np.ones_like(rho), where=rho > 0.0)


def _sinh_ratio(part: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Return ``sinh(part rho) / sinh(rho)`` for part in [0, 1], `part` where rho is 0."""
    part, rho = np.broadcast_arrays(part, rho)
    shape = np.divide(
        np.expm1(-2.0 * part * rho), np.expm1(-2.0 * rho), out=part.astype(float), where=rho > 0.0
    )
    return shape * np.exp((part - 1.0) * rho)
