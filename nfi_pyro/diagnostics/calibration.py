"""Calibration of forecast distributions: PIT histogram and coverage with bootstrap bounds."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from nfi_pyro.diagnostics.block_bootstrap import draw_block_counts
from nfi_pyro.diagnostics.results import Calibration
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import ShapeError, SpecError, name_places

_BOUNDS = (0.025, 0.975)
_DEFAULT_BLOCK = 10


def calibrate(
    pit: xr.DataArray,
    *,
    levels: Sequence[float] = (0.5, 0.8, 0.95),
    n_bins: int = 20,
    n_resamples: int = 200,
    block: int | None = None,
    seed: int = 0,
) -> Calibration:
    """Return the PIT histogram and the coverage of central intervals, with 95 percent bounds.

    Cells of one date depend on each other through the day's factors, and dates through
    volatility, so the bounds come from a moving-block bootstrap over dates (Kunsch, 1989), never
    from a test that takes cells as independent.

    Parameters
    ----------
    pit : DataArray, shape (date, asset)
        Forecast distribution function at the realised return, in [0, 1]; NaN = not observed.
    levels : sequence of float
        Nominal probabilities of the central intervals, in (0, 1): a cell is covered when its PIT
        is within ``level / 2`` of one half.
    n_bins : int
        Equal bins of the histogram, >= 2.
    n_resamples : int
        Bootstrap resamples, >= 2.
    block : int, optional
        Dates per block, from 1 to the number of dates with observations. Default: 10, or a
        quarter of these dates when they are fewer than 40, because a few long blocks would give
        bounds that are too tight.
    seed : int
        >= 0. Global generators are not touched.

    Returns
    -------
    Calibration
        Dates without observations are left out before blocks are drawn.

    Raises
    ------
    ShapeError
        If the dimensions are not date and asset.
    SpecError
        If a PIT is outside [0, 1], nothing is observed, or an option is out of range.
    """
    if set(pit.dims) != {DATE, ASSET}:
        raise ShapeError(
            f"pit must have the dimensions date and asset; got {tuple(pit.dims)} at calibrate. "
            "Reduce or name its dimensions."
        )
    pit = pit.transpose(DATE, ASSET)
    values = pit.to_numpy().astype(np.float64)
    values = values[(~np.isnan(values)).any(axis=1)]
    _check_pit(values)
    _check_options(levels, n_bins=n_bins, n_resamples=n_resamples, seed=seed)
    length = max(1, min(_DEFAULT_BLOCK, len(values) // 4)) if block is None else block
    if not 1 <= length <= len(values):
        raise SpecError(
            f"block must be from 1 to the {len(values)} dates with observations; got {length} at "
            "calibrate. Pass a shorter block."
        )
    counts = _count_by_date(values, np.asarray(levels, dtype=np.float64), n_bins)
    times = draw_block_counts(len(values), length, n_resamples, np.random.default_rng(seed))
    observed = _shares(counts.sum(axis=0, keepdims=True))[0]
    lower, upper = np.quantile(_shares(times @ counts), _BOUNDS, axis=0)
    centre = {"bin": (np.arange(n_bins) + 0.5) / n_bins}
    density = [
        xr.DataArray(n_bins * part[:n_bins], coords=centre, dims="bin", name="density")
        for part in (observed, lower, upper)
    ]
    coverage = xr.Dataset(
        {
            name: ("level", part[n_bins:])
            for name, part in (("observed", observed), ("lower", lower), ("upper", upper))
        },
        coords={"level": list(levels)},
    )
    return Calibration(
        pit=pit,
        histogram=density[0],
        histogram_lower=density[1],
        histogram_upper=density[2],
        coverage=coverage,
        n_observations=int((~np.isnan(values)).sum()),
    )


def _check_pit(values: np.ndarray) -> None:
    """Refuse an empty PIT and values outside [0, 1]."""
    if len(values) == 0:
        raise SpecError(
            "pit must hold an observed cell; got only NaN at calibrate. "
            "Pass dates with observed returns."
        )
    outside = values[(values < 0) | (values > 1)]
    if len(outside):
        raise SpecError(
            f"pit must be in [0, 1]; got {name_places(outside)} at calibrate. "
            "Pass the forecast distribution function at the realised return."
        )


def _check_options(levels: Sequence[float], *, n_bins: int, n_resamples: int, seed: int) -> None:
    """Refuse options out of range."""
    wrong = [level for level in levels if not 0 < level < 1]
    if wrong or len(levels) == 0:
        raise SpecError(
            f"levels must be probabilities in (0, 1), at least one; got {list(levels)} at "
            "calibrate. Pass for example (0.5, 0.8, 0.95)."
        )
    for name, value, least in (("n_bins", n_bins, 2), ("n_resamples", n_resamples, 2)):
        if value < least:
            raise SpecError(
                f"{name} must be >= {least}; got {value} at calibrate. Pass a larger number."
            )
    if seed < 0:
        raise SpecError(f"seed must be >= 0; got {seed} at calibrate. Pass a seed >= 0.")


def _count_by_date(values: np.ndarray, levels: np.ndarray, n_bins: int) -> np.ndarray:
    """Return counts by date: of each bin, of each interval, and of all observed cells."""
    n_dates = len(values)
    observed = ~np.isnan(values)
    row = np.nonzero(observed)[0]
    # The last bin is closed on the right, so that a PIT of exactly 1 has a bin.
    column = np.minimum((values[observed] * n_bins).astype(int), n_bins - 1)
    bins = np.bincount(row * n_bins + column, minlength=n_dates * n_bins).reshape(n_dates, n_bins)
    distance = np.abs(values - 0.5)
    covered = np.stack([(distance <= level / 2).sum(axis=1) for level in levels], axis=1)
    return np.concatenate([bins, covered, observed.sum(axis=1)[:, None]], axis=1).astype(float)


def _shares(counts: np.ndarray) -> np.ndarray:
    """Return the counts over the last column, which is the number of observed cells."""
    return counts[:, :-1] / counts[:, -1:]
