r"""A linear flow of exposures from one cross-section, and its divergence in several subspaces.

``y_i = a + C' x_i + e_i`` with ``x`` exposures at the start, ``y`` their change per date, weights
``w`` of sum 1 and instruments ``z``, all about their weighted means:

    C = S_zx^{-1} S_zy,   S_zx = sum_i w_i z_i x_i'

In a subspace S of the factors x, y, z keep their columns of S: the flow of the marginal density
there, ``E[y_S | x_S]``, is what its continuity equation needs. The divergence on a manifold adds
the flow along ``g = grad log sqrt det G``, averaged over assets. Both are linear in y:

    D = sum_i w_i y_i . s_i,   s_i = (I + H)' S_zx^{-1} z_i + g_bar,   H = sum_i w_i x_i g_i'

so the error of D comes from its influences ``w_i e_i . s_i`` and a permutation of flows over
assets costs one product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nfi_pyro.geometry.crowding.flow_panel import FlowDate

_SINGULAR = 1e-10
"""Least eigenvalue of a correlation matrix, relative to its largest, that can be inverted."""


@dataclass(frozen=True)
class FlowFit:
    """The linear flow of one date in each subspace, NaN where it cannot be computed.

    Attributes
    ----------
    divergence, standard_error, first_stage_f, log_volume_rate : ndarray, shape (plane,)
        As in `CrowdingFlow`.
    null : ndarray, shape (plane, permutation)
        Divergence of permuted flows.
    drift : ndarray, shape (factor,)
        Weighted mean of the flow.
    gradient : ndarray, shape (factor, factor_other)
        Derivative of the flow of `factor` by the exposure to `factor_other`, all factors together.
    """

    divergence: np.ndarray
    standard_error: np.ndarray
    first_stage_f: np.ndarray
    log_volume_rate: np.ndarray
    null: np.ndarray
    drift: np.ndarray
    gradient: np.ndarray


def fit_flow(
    date: FlowDate,
    planes: Sequence[np.ndarray],
    permutations: np.ndarray,
    horizon: int,
    volume_gradient: np.ndarray | None,
) -> FlowFit:
    """Return the flow of a date.

    Parameters
    ----------
    date : FlowDate
    planes : sequence of ndarray of int
        Factors of each subspace; the first holds all of them.
    permutations : ndarray of int, shape (permutation, asset)
        Of the assets of the date.
    horizon : int
        Dates of the flow.
    volume_gradient : ndarray, shape (asset, factor), optional
        At the exposures of the date; enters the first subspace alone.
    """
    weight = date.weight[:, None]
    x, z = (_centre(part, weight) for part in (date.exposure, date.instrument))
    drift = (weight * date.flow).sum(0)
    y = date.flow - drift
    end, zw = x + horizon * y, weight * z
    spread, past, ended = x.T @ (weight * x), z.T @ zw, end.T @ (weight * end)
    cross, after = zw.T @ x, zw.T @ y
    shuffled = np.stack([zw.T @ y[order] for order in permutations])
    found = np.full((4, len(planes)), np.nan)
    null = np.full((len(planes), len(permutations)), np.nan)
    gradient = np.full((x.shape[1], x.shape[1]), np.nan)
    for place, plane in enumerate(planes):
        block = np.ix_(plane, plane)
        found[3, place] = _log_volume_change(spread[block], ended[block]) / horizon
        strength = _canonical_correlation(past[block], cross[block], spread[block])
        found[2, place] = _cragg_donald(strength, date.weight, len(plane))
        if not strength > _SINGULAR:
            continue
        inverse = np.linalg.inv(cross[block])
        fitted = inverse @ after[block]
        turn, push = np.eye(len(plane)), np.zeros(len(plane))
        if place == 0:
            gradient = fitted.T
            if volume_gradient is not None:
                turn = turn + x.T @ (weight * volume_gradient)
                push = (weight * volume_gradient).sum(0)
        linear = inverse.T @ turn
        residual = y[:, plane] - x[:, plane] @ fitted
        influence = date.weight * (residual * (z[:, plane] @ linear + push)).sum(1)
        degrees = len(x) - len(plane) - 1
        found[0, place] = (after[block] * linear).sum() + drift[plane] @ push
        found[1, place] = np.sqrt(np.square(influence).sum() * len(x) / degrees)
        pushed = np.einsum("i,pik,k->p", date.weight, y[permutations], push) if push.any() else 0.0
        along = np.einsum("pjk,jk->p", shuffled[:, plane[:, None], plane], linear)
        null[place] = along + drift[plane] @ push + pushed
    return FlowFit(found[0], found[1], found[2], found[3], null, drift, gradient)


def induced_permutations(permutations: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return what permutations of all assets do to those used, (permutation, used asset).

    Each asset goes along its cycle to the next one that is used. So flows of one asset go to the
    same other one on every date that has both, and the dependence of flows over dates stays.

    Parameters
    ----------
    permutations : ndarray of int, shape (permutation, asset)
    used : ndarray of int, shape (used asset,)
        Positions, ascending.
    """
    rank = np.full(permutations.shape[1], -1)
    rank[used] = np.arange(len(used))
    target = permutations[:, used]
    while (lost := rank[target] < 0).any():
        target = np.where(lost, np.take_along_axis(permutations, target, axis=1), target)
    return rank[target]


def _centre(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return values about their weighted mean; exactly 0 in a column that is constant."""
    centred = values - (weight * values).sum(0)
    constant = np.abs(centred).max(0) <= 1e-12 * np.abs(values).max(0)
    return np.where(constant, 0.0, centred)


def _canonical_correlation(past: np.ndarray, cross: np.ndarray, spread: np.ndarray) -> float:
    """Return the least canonical correlation of instruments and exposures; NaN if singular."""
    roots = []
    for matrix in (past, spread):
        scale = np.sqrt(np.diag(matrix))
        if not (scale > 0.0).all():
            return float("nan")
        values, axes = np.linalg.eigh(matrix / np.outer(scale, scale))
        if values[0] < _SINGULAR * values[-1]:
            return float("nan")
        roots.append((axes / np.sqrt(values)).T / scale)
    return float(np.linalg.svd(roots[0] @ cross @ roots[1].T, compute_uv=False)[-1])


def _cragg_donald(strength: float, weight: np.ndarray, n_factors: int) -> float:
    """Return the first-stage F of the weakest direction, with the weights' effective number."""
    effective = 1.0 / np.square(weight).sum()
    unexplained = 1.0 - min(strength**2, 1.0)
    if np.isnan(strength) or unexplained < 1e-12:  # the instruments are the exposures
        return float("nan") if np.isnan(strength) else float("inf")
    return float((effective - n_factors - 1) / n_factors * strength**2 / unexplained)


def _log_volume_change(before: np.ndarray, after: np.ndarray) -> float:
    """Return half the change of the log determinant; NaN where one of them vanishes."""
    sizes = [np.linalg.slogdet(matrix) for matrix in (after, before)]
    if any(size.sign <= 0 for size in sizes):
        return float("nan")
    return float(0.5 * (sizes[0].logabsdet - sizes[1].logabsdet))
