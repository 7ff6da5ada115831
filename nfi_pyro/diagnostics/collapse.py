"""Do the factors carry anything? Posterior and prior collapse."""

import math

import numpy as np
import xarray as xr

from nfi_pyro.diagnostics.dim_checks import (
    require_dims,
    require_positive,
    require_probability,
    require_same_labels,
)
from nfi_pyro.diagnostics.results.collapse import Collapse
from nfi_pyro.diagnostics.results.verdict import Verdict
from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import SpecError, name_places

_WHERE = "judge_collapse"
_NARROW = 0.3  # prior ratio below which a prior has collapsed
_NAMES = ("prior_loc", "prior_scale", "posterior_loc", "posterior_scale")


def judge_collapse(
    moments: xr.Dataset,
    beta: xr.DataArray,
    *,
    specific_scale: xr.DataArray | None = None,
    threshold: float = 0.01,
) -> Collapse:
    """Return which factors the data speak through, and whether posterior or prior collapsed.

    A factor is active when its posterior mean moves with the data and it moves returns. The first
    is measured from the prior mean and in prior standard deviations: a prior mean that moves over
    dates, with a posterior that only follows it, is collapse all the same. The second catches a
    prior scale driven to 0, which the divergence cannot see, since the posterior follows it.

    Parameters
    ----------
    moments : Dataset
        Over (date, factor): `prior_loc`, `prior_scale`, `posterior_loc`, `posterior_scale`, in
        one unit, scales > 0, no NaN; optionally `posterior_covariance` (date, factor,
        factor_other).
    beta : DataArray, shape (date, asset, factor)
        Exposures; NaN = asset absent. Same dates and factors.
    specific_scale : DataArray, shape (date, asset), optional
        Specific standard deviation, same unit; without it, a collapse of all factors' variance
        cannot be seen.
    threshold : float
        Least activity and least variance share of an active factor, in (0, 1).

    Returns
    -------
    Collapse
        Dates without observed returns have their prior as posterior and lower all figures; leave
        them out first.

    Raises
    ------
    ShapeError
        If dimensions or labels differ.
    SpecError
        If a moment is missing, NaN or not positive where it must be, fewer than two dates are
        given, or no asset has exposures.
    """
    require_probability(_WHERE, threshold=threshold)
    parts = _check_moments(moments)
    exposure = require_dims(beta, (DATE, ASSET, FACTOR), "beta", _WHERE)
    require_same_labels(exposure, parts["prior_loc"], "beta", _WHERE)
    if not bool(exposure.notnull().any()):
        raise SpecError(f"beta must hold an asset; got only NaN at {_WHERE}. Pass exposures.")
    prior_loc, prior_scale, loc, scale = (parts[name].to_numpy() for name in _NAMES)
    shift = (loc - prior_loc) / prior_scale
    ratio = scale / prior_scale
    squares = _mean_squares(exposure.to_numpy(), prior_scale)
    systematic = np.diag(squares)
    total = float(systematic.sum())
    figures = {
        "kl": (0.5 * (ratio**2 + shift**2 - 1.0) - np.log(ratio)).mean(axis=0),
        "activity": shift.var(axis=0),
        "variance_share": systematic / total if total > 0 else np.zeros_like(systematic),
        "prior_ratio": np.sqrt(
            (prior_scale**2).mean(axis=0) / ((loc - prior_loc) ** 2 + scale**2).mean(axis=0)
        ),
    }
    active = (figures["activity"] > threshold) & (figures["variance_share"] > threshold)
    factors = xr.Dataset(
        {name: (FACTOR, values) for name, values in (figures | {"active": active}).items()},
        coords={FACTOR: parts["prior_loc"].get_index(FACTOR)},
    )
    share = _factor_share(exposure, parts["prior_scale"], specific_scale)
    spread = float((squares**2).sum())  # the sum of squared eigenvalues
    effective = total**2 / spread if spread > 0 else 0.0
    return Collapse(
        factors=factors,
        kl_joint=_joint_divergence(moments, parts),
        n_active=int(active.sum()),
        effective_factors=effective,
        factor_variance_share=share,
        verdict=_judge(factors, effective, share, threshold),
    )


def _check_moments(moments: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the moments (date, factor), after checking them."""
    absent = [name for name in _NAMES if name not in moments]
    if absent:
        raise SpecError(
            f"moments must hold {', '.join(_NAMES)}; got none of {name_places(absent)} at "
            f"{_WHERE}. Pass Posterior.moments of a model with latent factors."
        )
    parts = {name: require_dims(moments[name], (DATE, FACTOR), name, _WHERE) for name in _NAMES}
    for name, array in parts.items():
        n_missing = int(array.isnull().sum())
        if n_missing or array.sizes[DATE] < 2:
            raise SpecError(
                f"{name} must hold two dates or more without NaN; got {array.sizes[DATE]} dates "
                f"and {n_missing} NaN at {_WHERE}. Select dates with a full window."
            )
        if name.endswith("scale"):
            require_positive(array, name, _WHERE, "Pass standard deviations.")
    return parts


def _mean_squares(beta: np.ndarray, prior_scale: np.ndarray) -> np.ndarray:
    """Return the mean over cells of ``S^1/2 beta beta' S^1/2``, shape (factor, factor)."""
    scaled = beta * prior_scale[:, None, :]
    cells = scaled[~np.isnan(scaled).any(axis=2)]
    return cells.T @ cells / len(cells)


def _factor_share(
    beta: xr.DataArray, prior_scale: xr.DataArray, specific_scale: xr.DataArray | None
) -> float:
    """Return the share of factor variance in all variance, NaN without specific scales."""
    if specific_scale is None:
        return math.nan
    specific = require_dims(specific_scale, (DATE, ASSET), "specific_scale", _WHERE)
    require_same_labels(specific, beta, "specific_scale", _WHERE)
    require_positive(specific, "specific_scale", _WHERE, "Set absent assets to NaN.")
    factor = ((beta * prior_scale) ** 2).sum(FACTOR, skipna=False)
    return float((factor / (factor + specific**2)).mean())


def _joint_divergence(moments: xr.Dataset, parts: dict[str, xr.DataArray]) -> float:
    """Return the mean divergence with the full covariance, NaN without it."""
    if "posterior_covariance" not in moments:
        return math.nan
    dims = (DATE, FACTOR, f"{FACTOR}_other")
    covariance = require_dims(moments["posterior_covariance"], dims, "posterior_covariance", _WHERE)
    prior_loc, prior_scale, loc, _ = (parts[name].to_numpy() for name in _NAMES)
    scaled = covariance.to_numpy() / (prior_scale[:, :, None] * prior_scale[:, None, :])
    sign, log_det = np.linalg.slogdet(scaled)
    if (sign <= 0).any():
        places = parts["prior_loc"].get_index(DATE)[sign <= 0]
        raise SpecError(
            f"posterior_covariance must be positive definite; got one that is not at "
            f"{name_places(places)}. Compute it in float64."
        )
    trace = np.trace(scaled, axis1=1, axis2=2)
    shift = ((loc - prior_loc) / prior_scale) ** 2
    return float(0.5 * (trace + shift.sum(axis=1) - scaled.shape[1] - log_det).mean())


def _judge(factors: xr.Dataset, effective: float, share: float, threshold: float) -> Verdict:
    """Return what the figures say."""
    n, n_active = factors.sizes[FACTOR], int(factors["active"].sum())
    head = (
        f"{n_active} of {n} factors are active, worth {effective:.1f} equal ones, with "
        f"{float(factors['kl'].sum()):.2f} nats of divergence per date"
    )
    moved = factors["activity"] > threshold
    narrow = factors["prior_ratio"] < _NARROW
    if share < threshold:
        return Verdict(
            "bad",
            f"{head}: prior collapse, factors make up {share:.2%} of the variance and the model "
            "is one of specific risk alone. Bound the prior scale from below.",
        )
    if not bool(moved.any()):
        return Verdict(
            "bad",
            f"{head}: posterior collapse, the returns move no factor from its prior. Lower the KL "
            "weight to that of the bound, or look at the encoder and at the prior scale.",
        )
    if bool(narrow.any()):
        names = name_places(factors[FACTOR].values[narrow.to_numpy()])
        return Verdict(
            "bad" if 2 * int(narrow.sum()) >= n else "doubtful",
            f"{head}: the prior scale of {names} is far below what the posterior shows, so that "
            "forecasts miss common risk. Bound the prior scale from below.",
        )
    if 2 * n_active < n:
        return Verdict(
            "doubtful", f"{head}: most factors are spare. Fit with fewer, or compare both scores."
        )
    return Verdict("good", f"{head}.")
