r"""Crowding as a flow: whether exposures draw together or apart.

Capital of density q over exposures that flows along V obeys ``dq/dt = -div(q V)``: along the flow
``d log q / dt = -div V``. So divergence has the deck's sign: low, below 0, capital gathers; high,
above 0, it scatters. V is estimated by date as a linear, holdings-weighted regression of changes of
exposure on exposures, and div V is its trace, plus the flow along the volume's gradient on a
manifold that is not flat.

Exposures are estimates. An error of variance s^2 that is gone by the next date looks like a return
to the middle: in plain regression it adds ``-s^2 / (Var + s^2)`` per factor, a contraction that is
not there. Exposures of an earlier date as instruments, the default, have no such bias, as long as
their errors are not those of the start: an exposure estimated over a window of dates needs a lag
of that window.

Contraction is no proof that the cloud narrows. In a steady market every asset drifts back and is
thrown out again by what happens to it alone: divergence is below 0 and the spread does not change.
`log_volume_rate` says what the spread did; what stands out is a date below its own usual.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from nfi_pyro.dims import DATE, FACTOR
from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry.crowding.flow_panel import (
    FlowDate,
    check_counts,
    flows,
    read_exposures,
    read_weights,
)
from nfi_pyro.geometry.crowding.flow_regression import FlowFit, fit_flow, induced_permutations
from nfi_pyro.geometry.crowding.permutation_null import null_summary
from nfi_pyro.geometry.results.crowding import CrowdingFlow
from nfi_pyro.linear_factor.long_run import long_run_covariance

ALL_FACTORS = "all factors"
FACTOR_OTHER = "factor_other"
PLANE = "plane"
WEAK_F = 10.0
"""First-stage F below which instruments count as weak (Staiger and Stock, 1997)."""

_WHERE = "crowding_flow"
_NORMAL_975 = 1.959963984540054
VolumeGradient = Callable[[np.datetime64, np.ndarray], np.ndarray]


def crowding_flow(
    exposures: xr.DataArray,
    weights: xr.DataArray | None = None,
    *,
    instrument_lag: int | None = 1,
    horizon: int = 1,
    volume_gradient: VolumeGradient | None = None,
    min_assets: int = 30,
    n_permutations: int = 199,
    seed: int = 0,
) -> CrowdingFlow:
    """Return the divergence of the flow of exposures by date, in every plane and over all factors.

    A flow from one date to another takes assets that have exposures on both, on the instrument's
    date, and a weight; the others are counted by reason. Those that leave take their flow with
    them, and no estimate can see it. In a plane of two factors the regression knows these two
    alone: it is the flow of the density over the plane.

    Parameters
    ----------
    exposures : DataArray, shape (date, asset, factor)
        Known at the close of `date`; consecutive dates, any unit. NaN = absent.
    weights : DataArray, shape (date, asset), optional
        Holdings, >= 0, any scale; those at the start of a flow count. Default: equal.
    instrument_lag : int or None
        Dates from instrument to start, >= 1. None: plain regression, biased by noise in exposures.
    horizon : int
        Dates of a flow, >= 1; figures are per date. Longer ones overlap and see less noise.
    volume_gradient : callable, optional
        Date of the start and exposures (asset, factor) to the gradient of the log volume
        ``log sqrt det G`` there, (asset, factor). Enters `all factors` alone. Default: 0, flat.
    min_assets : int
        Fewest assets of a flow, at least factors + 2.
    n_permutations : int
        Of flows over assets, >= 19, the same on every date.
    seed : int
        >= 0. Global generators are not touched.

    Returns
    -------
    CrowdingFlow

    Raises
    ------
    ShapeError
        If dimensions or labels differ, or a volume gradient has another shape.
    SpecError
        If an option, an exposure, a weight or a volume gradient is out of range, dates do not
        increase or are too few.
    """
    table = read_exposures(exposures, _WHERE)
    n_dates, n_assets, n_factors = table.shape
    lag = 0 if instrument_lag is None else instrument_lag
    check_counts(
        _WHERE,
        instrument_lag=(1 if instrument_lag is None else lag, 1, math.inf),
        horizon=(horizon, 1, math.inf),
        min_assets=(min_assets, n_factors + 2, math.inf),
        n_permutations=(n_permutations, 19, math.inf),
        seed=(seed, 0, math.inf),
    )
    if n_dates < lag + horizon + 1:
        raise SpecError(
            f"exposures must have {lag + horizon + 1} dates for an instrument lag of {lag} and a "
            f"horizon of {horizon}; got {n_dates} at {_WHERE}. Give more dates, or pass "
            "instrument_lag=None and know its bias."
        )
    held = read_weights(weights, table, _WHERE)
    planes = [np.arange(n_factors)]
    planes += [np.array(pair) for pair in itertools.combinations(range(n_factors), 2)]
    rng = np.random.default_rng(seed)
    shuffles = np.stack([rng.permutation(n_assets) for _ in range(n_permutations)])
    dates = list(flows(table.to_numpy(), held, horizon, lag))
    starts = table[DATE].to_numpy()[lag : n_dates - horizon]
    fits: list[FlowFit | None] = []
    for start, date in zip(starts, dates, strict=True):
        if len(date.assets) < min_assets:
            fits.append(None)
            continue
        gradient = None if volume_gradient is None else _gradient(volume_gradient, start, date)
        order = induced_permutations(shuffles, date.assets)
        fits.append(fit_flow(date, planes, order, horizon, gradient))
    return _label(table, planes, dates, fits, starts, n_permutations, horizon)


def _gradient(function: VolumeGradient, start: np.datetime64, date: FlowDate) -> np.ndarray:
    """Return the volume's gradient (asset, factor) at the exposures of a date, after a look."""
    found = np.asarray(function(start, date.exposure), dtype=np.float64)
    if found.shape != date.exposure.shape:
        raise ShapeError(
            f"a volume gradient must have the shape of the exposures, {date.exposure.shape}; got "
            f"{found.shape} on {str(start)[:10]} at {_WHERE}. Return one row per asset."
        )
    if not np.isfinite(found).all():
        raise SpecError(
            f"a volume gradient must be finite; got others on {str(start)[:10]} at {_WHERE}. Damp "
            "the metric."
        )
    return found


def _label(
    table: xr.DataArray,
    planes: Sequence[np.ndarray],
    dates: Sequence[FlowDate],
    fits: Sequence[FlowFit | None],
    starts: np.ndarray,
    n_permutations: int,
    horizon: int,
) -> CrowdingFlow:
    """Return the result with its labels."""
    factors = [str(name) for name in table[FACTOR].to_numpy()]
    n_factors, shape = len(factors), (len(fits), len(planes))
    columns = {
        name: np.full(shape, np.nan)
        for name in ("divergence", "standard_error", "first_stage_f", "log_volume_rate")
    }
    null = np.full((*shape, n_permutations), np.nan)
    drift = np.full((len(fits), n_factors), np.nan)
    gradient = np.full((len(fits), n_factors, n_factors), np.nan)
    for place, fit in enumerate(fits):
        if fit is not None:
            for name, column in columns.items():
                column[place] = getattr(fit, name)
            null[place], drift[place], gradient[place] = fit.null, fit.drift, fit.gradient
    identified = np.isfinite(columns["divergence"]) & (columns["first_stage_f"] >= WEAK_F)
    coords = {
        DATE: table[DATE].to_numpy()[len(table) - len(fits) :],
        PLANE: [ALL_FACTORS, *(f"{factors[a]} × {factors[b]}" for a, b in planes[1:])],
        "first": (PLANE, ["", *(factors[a] for a, _ in planes[1:])]),
        "second": (PLANE, ["", *(factors[b] for _, b in planes[1:])]),
    }
    rate = {"units": "per date"}
    values = columns | null_summary(columns["divergence"], null)
    units = {name: {"units": "1"} for name in ("first_stage_f", "p_value")}
    series = xr.Dataset(
        {name: ((DATE, PLANE), value, units.get(name, rate)) for name, value in values.items()}
        | {"identified": ((DATE, PLANE), identified), "start": (DATE, starts)}
        | {name: (DATE, [date.counts[name] for date in dates]) for name in dates[0].counts},
        coords,
    )
    n_lags = max(math.floor(4.0 * (len(fits) / 100.0) ** (2.0 / 9.0)), horizon)
    mean = _mean(columns["divergence"], null, identified, n_lags)
    own = {DATE: coords[DATE], FACTOR: factors, FACTOR_OTHER: factors}
    return CrowdingFlow(
        series=series,
        mean=xr.Dataset(
            {name: (PLANE, value) for name, value in mean.items()},
            {name: coords[name] for name in (PLANE, "first", "second")},
        ),
        drift=xr.DataArray(drift, {k: own[k] for k in (DATE, FACTOR)}, (DATE, FACTOR), attrs=rate),
        gradient=xr.DataArray(gradient, own, (DATE, FACTOR, FACTOR_OTHER), attrs=rate),
        n_lags=n_lags,
    )


def _mean(
    value: np.ndarray, null: np.ndarray, identified: np.ndarray, n_lags: int
) -> dict[str, np.ndarray]:
    """Return the mean over identified dates by plane, with its error and its null."""
    counts = identified.sum(axis=0)
    kept = np.where(identified, value, np.nan)
    mean, error = np.full(len(counts), np.nan), np.full(len(counts), np.nan)
    for plane in np.flatnonzero(counts):
        variance, centre = long_run_covariance(kept[:, [plane]], np.ones(len(kept)), n_lags)
        mean[plane] = centre[0]
        if counts[plane] > 1:
            error[plane] = math.sqrt(max(variance[0, 0], 0.0) / counts[plane])
    total = np.where(identified[..., None], null, 0.0).sum(axis=0)
    average = total / np.where(counts > 0, counts, np.nan)[:, None]
    return {
        "divergence": mean,
        "standard_error": error,
        "lower": mean - _NORMAL_975 * error,
        "upper": mean + _NORMAL_975 * error,
        **null_summary(mean, average),
        "n_dates": counts,
        "n_skipped": len(value) - counts,
    }
