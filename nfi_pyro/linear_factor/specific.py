"""Specific risk of every asset from the residuals of the cross-sectional regression."""

import numpy as np
import xarray as xr

from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import SpecError, name_places
from nfi_pyro.linear_factor.cells import as_dims, day
from nfi_pyro.linear_factor.long_run import check_options, decay, label_reach, running_variance
from nfi_pyro.linear_factor.results import SpecificRisk


def specific_risk(
    specific_returns: xr.DataArray,
    *,
    half_life: float | None = None,
    newey_west_lags: int = 0,
    min_observations: int = 20,
    centred: bool = True,
    by: str = "all",
) -> SpecificRisk:
    """Return the specific variance of every asset over one label period.

    One asset at a time, the estimator of `factor_covariance`: it is never negative.

    Parameters
    ----------
    specific_returns : DataArray, shape (date, asset)
        Consecutive trading dates; NaN = not in the regression of that date, which keeps its place
        in time.
    half_life : float, optional
        In dates, > 0; None weighs all dates alike.
    newey_west_lags : int
        Autocovariances that enter, >= 0. Labels that overlap need at least horizon - 1.
    min_observations : int
        Fewest specific returns of an asset, >= 2; fewer give NaN and are counted.
    centred : bool
        Whether the weighted mean is subtracted.
    by : {"all", "date"}
        One variance from all dates, known once the last label is; or one for every date t from
        the dates whose labels are known at the close of t, s + start_lag + horizon <= t, by the
        attributes of `specific_returns`.

    Returns
    -------
    SpecificRisk

    Raises
    ------
    ShapeError
        When the dimensions are not date and asset.
    SpecError
        When a return is infinite, an option is out of range, or the timing is unknown (`by` date).
    """
    check_options(half_life, newey_west_lags, min_observations, by)
    table = as_dims(specific_returns, (DATE, ASSET), "specific_returns")
    values = table.to_numpy().astype(np.float64)
    wrong = np.argwhere(np.isinf(values))
    if len(wrong):
        places = (f"{table.indexes[ASSET][i]} on {day(table.indexes[DATE][t])}" for t, i in wrong)
        raise SpecError(
            "specific_returns must be finite or NaN; got an infinite one at "
            f"{name_places(places)}. Set NaN to leave it out."
        )
    variance = running_variance(values, decay(half_life), newey_west_lags, centred=centred)
    counts = (~np.isnan(values)).cumsum(axis=0)
    if by == "all":
        dims: tuple[str, ...] = (ASSET,)
        variance, counts = variance[-1], counts[-1]
    else:
        dims = (DATE, ASSET)
        reach = label_reach(table)
        variance = _later(variance, reach, np.nan)
        counts = _later(counts, reach, 0)
    variance = np.where(counts >= min_observations, variance, np.nan)
    coords = {dim: table.indexes[dim] for dim in dims}
    last = np.isnan(variance) if by == "all" else np.isnan(variance[-1])
    ledger = DropLedger().add(
        "assets with too few specific returns at the end",
        int(last.sum()),
        "NaN",
        table.indexes[ASSET][last],
    )
    return SpecificRisk(
        variance=xr.DataArray(variance, coords, dims, "specific_variance", attrs=table.attrs),
        n_observations=xr.DataArray(counts, coords, dims, "n_observations"),
        ledger=ledger,
    )


def _later(values: np.ndarray, n_dates: int, empty: float) -> np.ndarray:
    """Return the rows of `values` moved `n_dates` later."""
    moved = np.full_like(values, empty)
    moved[n_dates:] = values[: max(len(values) - n_dates, 0)]
    return moved
