"""What a figure shows of a long table: smoothing, thinning, monthly means, the largest rows.

Everything here is a pure function of results; NaN stays NaN and nothing is filled.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.diagnostics.results import Calibration, InformationCoefficient
from nfi_pyro.dims import ASSET, FACTOR

MOST_FACTORS = 8
MOST_ASSETS = 40
MOST_RISKS = 20
MOST_SOURCES = 16
MOST_KL_LINES = 6
MOST_POINTS = 300
Z_95 = 1.959963984540054  # two-sided 95 percent of the standard normal


def smoothed(values: np.ndarray) -> np.ndarray:
    """Return a centred moving average over about one fortieth of the series.

    Parameters
    ----------
    values : ndarray, shape (step,)
        NaN steps are left out of each average.
    """
    window = max(5, len(values) // 40)
    rolling = pd.Series(values, dtype=float).rolling(window, center=True, min_periods=1)
    return rolling.mean().to_numpy()


def stride(length: int) -> int:
    """Return k such that every k-th entry of `length` gives at most `MOST_POINTS` entries."""
    return max(1, -(-length // MOST_POINTS))


def axis_values(data: xr.Dataset | xr.DataArray, dim: str) -> np.ndarray:
    """Return the coordinate of `dim`, or 0, 1, 2, ... where it has none."""
    return data[dim].values


def nominal_levels(calibration: Calibration) -> np.ndarray:
    """Return the nominal coverage levels, shape (level,), in [0, 1]."""
    coverage = calibration.coverage
    return coverage["nominal" if "nominal" in coverage.variables else "level"].values.astype(float)


def cumulative_rank_ic(result: InformationCoefficient) -> pd.DataFrame:
    """Return the running sum of Rank IC by date with a pointwise 95 percent band.

    The band after n of N dates is the sum plus and minus 1.96 SE sqrt(n N), where SE is the
    standard error of the mean over all N dates. At the last date it is N times the interval of
    the mean, so it excludes zero there exactly when the interval does.

    Returns
    -------
    DataFrame indexed by date
        Columns total, lower, upper; only dates whose Rank IC is finite.
    """
    daily = result.rank_ic.to_series().dropna()
    total = daily.cumsum()
    n_so_far = np.arange(1, len(daily) + 1)
    half = Z_95 * result.standard_error * np.sqrt(n_so_far * max(len(daily), 1))
    return pd.DataFrame({"total": total, "lower": total - half, "upper": total + half})


def monthly_rank_ic(result: InformationCoefficient) -> pd.DataFrame:
    """Return the mean Rank IC by calendar month, shape (year, month 1 to 12), NaN if none."""
    daily = result.rank_ic.to_series().dropna()
    dates = pd.DatetimeIndex(daily.index)
    table = daily.groupby([dates.year.rename("year"), dates.month.rename("month")]).mean()
    return table.unstack("month").reindex(columns=range(1, 13))


def factor_movement(factors: xr.Dataset) -> pd.Series:
    """Return by factor how far the posterior mean moved from the prior mean, in prior sd.

    Root mean square over the dates where it is finite; NaN for a factor with none.
    """
    moved = (factors["posterior_loc"] - factors["prior_loc"]) / factors["prior_scale"]
    squared = (moved**2).transpose(..., FACTOR).to_pandas()
    return pd.DataFrame(squared).mean(axis=0) ** 0.5


def largest(values: pd.Series, most: int) -> list[int]:
    """Return the positions of the `most` largest values, in their original order.

    NaN counts as smallest; ties go to the earlier position.
    """
    ranked = np.argsort(-values.fillna(-np.inf).to_numpy(dtype=float), kind="stable")
    return sorted(int(position) for position in ranked[:most])


def shown_exposures(exposures: xr.DataArray) -> xr.DataArray:
    """Return at most `MOST_ASSETS` rows, those with the largest Euclidean norm, largest first.

    With that many assets or fewer the given order is kept. NaN betas count as 0 in the norm.
    """
    table = exposures.transpose(ASSET, FACTOR)
    if table.sizes[ASSET] <= MOST_ASSETS:
        return table
    norm = np.linalg.norm(np.nan_to_num(table.values), axis=1)
    return table.isel({ASSET: np.argsort(-norm, kind="stable")[:MOST_ASSETS]})


def shown_contributions(contribution: xr.DataArray) -> pd.Series:
    """Return contributions by source, the smallest ones summed into one row of the rest.

    Parameters
    ----------
    contribution : DataArray, shape (source,)
        Last entry is the specific part, which is always shown.
    """
    series = pd.Series(contribution.values, index=[str(s) for s in contribution["source"].values])
    if len(series) <= MOST_SOURCES:
        return series
    kept = largest(series.iloc[:-1].abs(), MOST_SOURCES - 2)
    rest = series.iloc[:-1].drop(series.index[kept])
    parts = [series.iloc[kept], pd.Series({f"{len(rest)} others": rest.sum()}), series.iloc[-1:]]
    return pd.concat(parts)


def at_level(values: xr.DataArray, level: float) -> float:
    """Return the value at a level, NaN when that level was not computed."""
    match: Any = np.isclose(values["level"].values.astype(float), level)
    return float(values.values[match][0]) if match.any() else float("nan")
