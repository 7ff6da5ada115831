"""Does the forecast know where it is uncertain? Forecast spread against realised error."""

import math

import numpy as np
import xarray as xr

from nfi_pyro.diagnostics.block_bootstrap import draw_block_counts
from nfi_pyro.diagnostics.dim_checks import (
    require_dims,
    require_options,
    require_positive,
    require_same_labels,
)
from nfi_pyro.diagnostics.results.spread_skill import SpreadSkill
from nfi_pyro.diagnostics.results.verdict import Verdict
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import SpecError

_WHERE = "spread_against_skill"
_BOUNDS = (0.025, 0.975)
_DEFAULT_BLOCK = 10
_MIN_DATES = 20


def spread_against_skill(
    standard_deviation: xr.DataArray,
    error: xr.DataArray,
    n_bins: int = 10,
    *,
    n_resamples: int = 200,
    block: int | None = None,
    seed: int = 0,
) -> SpreadSkill:
    """Return realised errors of cells sorted by forecast standard deviation.

    Cells go to `n_bins` bins of equal size by forecast standard deviation; in a right forecast
    the root mean square error of each is its root mean square standard deviation. Bounds come
    from a moving-block bootstrap over dates, the bins held fixed.

    Parameters
    ----------
    standard_deviation : DataArray, shape (date, asset)
        Of the forecast, > 0; NaN = none.
    error : DataArray, shape (date, asset)
        Realised minus forecast mean, same unit; NaN = not observed. Same dates and assets.
    n_bins : int
        >= 1; fewer are used where forecasts tie.
    n_resamples : int
        >= 2.
    block : int, optional
        Dates per block, from 1 to the dates with observations. Default: 10, or a quarter of these
        dates when they are fewer than 40.
    seed : int
        >= 0. Global generators are not touched.

    Returns
    -------
    SpreadSkill

    Raises
    ------
    ShapeError
        If dimensions or labels differ.
    SpecError
        If a standard deviation is not positive, nothing is observed, the errors of a bin are all
        0, or an option is out of range.
    """
    spread = require_dims(standard_deviation, (DATE, ASSET), "standard_deviation", _WHERE)
    wrong = require_dims(error, (DATE, ASSET), "error", _WHERE)
    require_same_labels(wrong, spread, "error", _WHERE)
    require_positive(spread, "standard_deviation", _WHERE, "Set missing forecasts to NaN.")
    cells = (spread.notnull() & wrong.notnull()).to_numpy()
    rows = cells.any(axis=1)
    length = max(1, min(_DEFAULT_BLOCK, int(rows.sum()) // 4)) if block is None else block
    require_options(
        _WHERE,
        n_bins=(n_bins, 1, math.inf),
        n_resamples=(n_resamples, 2, math.inf),
        seed=(seed, 0, math.inf),
    )
    if not rows.any():
        raise SpecError(
            f"some cell must have a forecast and an error; got none at {_WHERE}. "
            "Pass dates with observed returns."
        )
    require_options(_WHERE, block=(length, 1, int(rows.sum())))
    sums = _sum_by_date(spread.to_numpy()[rows], wrong.to_numpy()[rows], cells[rows], n_bins)
    total = sums.sum(axis=0)
    if (total[2] == 0).any():
        raise SpecError(
            f"error must vary in every bin; got only 0 in bin {int(np.argmin(total[2]))} at "
            f"{_WHERE}. Mask cells without trade, or pass fewer bins."
        )
    rng = np.random.default_rng(seed)
    times = draw_block_counts(len(sums), length, n_resamples, rng)
    drawn = np.tensordot(times, sums, axes=1)
    ratio, slope = _ratio(total), _slope(total)
    ratio_interval = _interval(_ratio(drawn))
    slope_interval = _interval(_slope(drawn))
    return SpreadSkill(
        bins=_bins(total, drawn),
        ratio=float(ratio),
        ratio_interval=ratio_interval,
        slope=float(slope),
        slope_interval=slope_interval,
        n_observations=int(cells.sum()),
        verdict=_judge(float(ratio), ratio_interval, float(slope), slope_interval, len(sums)),
    )


def _sum_by_date(
    spread: np.ndarray, error: np.ndarray, cells: np.ndarray, n_bins: int
) -> np.ndarray:
    """Return counts, squared spreads and squared errors, shape (date, 3, bin)."""
    values = spread[cells]
    edges = np.unique(np.quantile(values, np.arange(1, n_bins) / n_bins))
    place = np.searchsorted(edges, values, side="right")
    used, place = np.unique(place, return_inverse=True)  # ties may leave a bin empty
    date = np.nonzero(cells)[0]
    flat, shape = date * len(used) + place, (len(spread), len(used))
    parts = [
        np.bincount(flat, weights=weight, minlength=shape[0] * shape[1]).reshape(shape)
        for weight in (np.ones_like(values), values**2, error[cells] ** 2)
    ]
    return np.stack(parts, axis=1)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """Return root mean square error over spread of (..., 3, bin) sums."""
    return np.sqrt(sums[..., 2, :].sum(axis=-1) / sums[..., 1, :].sum(axis=-1))


def _slope(sums: np.ndarray) -> np.ndarray:
    """Return the weighted slope of log error on log spread over bins; NaN for one bin."""
    weight = sums[..., 0, :]
    # A bin that a resample left empty, or drew without an error, has no weight in it.
    used = (weight > 0) & (sums[..., 2, :] > 0)
    weight = np.where(used, weight, 0.0)
    x, y = (
        0.5 * np.log(np.divide(sums[..., j, :], weight, out=np.ones_like(weight), where=used))
        for j in (1, 2)
    )
    total = weight.sum(axis=-1, keepdims=True)
    x = x - (weight * x).sum(axis=-1, keepdims=True) / total
    across = (weight * x * x).sum(axis=-1)
    along = (weight * x * y).sum(axis=-1)
    varies = across > 1e-12 * total[..., 0]
    return np.divide(along, across, out=np.full_like(along, np.nan), where=varies)


def _interval(draws: np.ndarray) -> tuple[float, float]:
    """Return the 95 percent interval of resampled values."""
    lower, upper = np.quantile(draws, _BOUNDS)
    return float(lower), float(upper)


def _bins(total: np.ndarray, drawn: np.ndarray) -> xr.Dataset:
    """Return the table of bins."""
    count = drawn[:, 0]
    mean = np.divide(drawn[:, 2], count, out=np.full_like(count, np.nan), where=count > 0)
    lower, upper = np.nanquantile(np.sqrt(mean), _BOUNDS, axis=0)
    return xr.Dataset(
        {
            "forecast": ("bin", np.sqrt(total[1] / total[0])),
            "realised": ("bin", np.sqrt(total[2] / total[0])),
            "lower": ("bin", lower),
            "upper": ("bin", upper),
            "n_cells": ("bin", total[0].astype(int)),
        },
        coords={"bin": np.arange(total.shape[1])},
    )


def _judge(
    ratio: float,
    ratio_interval: tuple[float, float],
    slope: float,
    slope_interval: tuple[float, float],
    n_dates: int,
) -> Verdict:
    """Return what the comparison says."""
    figure = (
        f"Errors are {ratio:.2f} times the forecast spread "
        f"({ratio_interval[0]:.2f} to {ratio_interval[1]:.2f})"
    )
    if n_dates < _MIN_DATES:
        return Verdict("unknown", f"{figure}, on {n_dates} dates: too few to judge.")
    faults = []
    if ratio_interval[0] > 1:
        faults.append("the forecast is too narrow: widen it, or recalibrate it on training dates")
    if ratio_interval[1] < 1:
        faults.append("the forecast is too wide: narrow it, or recalibrate it on training dates")
    if math.isnan(slope):
        faults.append("its spread is the same everywhere, so it tells nothing of where errors are")
    elif slope_interval[0] <= 0:
        faults.append(f"its differences in spread tell nothing of the errors (slope {slope:.2f})")
    elif slope_interval[1] < 1:
        faults.append(f"it exaggerates differences in spread (slope {slope:.2f}): shrink them")
    elif slope_interval[0] > 1:
        faults.append(f"it understates differences in spread (slope {slope:.2f})")
    if not faults:
        return Verdict("good", f"{figure} and grow with it (slope {slope:.2f}): both agree with 1.")
    sharp = ratio > 1.25 or ratio < 0.8 or not slope_interval[0] > 0
    return Verdict("bad" if sharp else "doubtful", f"{figure}; " + "; ".join(faults) + ".")
