"""Weighted variances over time that allow for serial correlation, with gaps."""

import numpy as np
import xarray as xr
from scipy.signal import lfilter

from nfi_pyro.errors import SpecError

BY = ("all", "date")


def decay(half_life: float | None) -> float:
    """Return the factor by which the weight of a date falls each date; 1 for equal weights."""
    return 1.0 if half_life is None else float(2.0 ** (-1.0 / half_life))


def check_options(half_life: float | None, n_lags: int, least: int, by: str) -> None:
    """Raise SpecError unless the options of a variance over time are in range."""
    if half_life is not None and not 0.0 < half_life < np.inf:
        raise SpecError(
            f"half_life must be > 0 and finite, in dates; got {half_life} at the risk of "
            "the linear factor model. None weighs all dates alike."
        )
    if n_lags < 0 or least < 2:
        raise SpecError(
            "newey_west_lags must be >= 0 and the fewest dates >= 2; got "
            f"{n_lags} and {least} at the risk of the linear factor model. Change them."
        )
    if by not in BY:
        raise SpecError(f"by must be one of {BY}; got {by!r}. Choose one.")


def label_reach(array: xr.DataArray) -> int:
    """Return after how many dates the value of a date is known, from start_lag and horizon.

    Raises
    ------
    SpecError
        When the attributes are missing or out of range: without them the timing is unknown.
    """
    lag, horizon = array.attrs.get("start_lag"), array.attrs.get("horizon")
    if lag is None or horizon is None or lag < 0 or horizon < 1:
        raise SpecError(
            "attributes start_lag >= 0 and horizon >= 1 must say when the values of a date are "
            f"known; got {lag} and {horizon} at by='date'. Take them from "
            "panel['forward_return'] with .assign_attrs(...)."
        )
    return int(lag) + int(horizon)


def long_run_covariance(
    values: np.ndarray, weights: np.ndarray, n_lags: int, *, centred: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the Newey-West covariance (column, column) and the mean (column,).

    ``S_ij = sum_l k_l sum_t sqrt(w_t w_{t-l}) (x_ti x_{t-l,j} + x_{t-l,i} x_tj) / sum_t w_t`` with
    Bartlett's ``k_l = 1 - l / (n_lags + 1)`` (half of it at l = 0) and the first sum over the dates
    known in both columns (Newey and West, 1987; gaps as in Parzen, 1963: a missing value keeps its
    place in time and counts for nothing). The root of both weights, and not the later weight,
    makes S positive semidefinite whatever the weights, as long as the columns are known on the
    same dates. No correction for the degree of freedom of the mean.

    Parameters
    ----------
    values : ndarray, shape (date, column)
        NaN = missing.
    weights : ndarray, shape (date,)
        > 0, any scale.
    n_lags : int
        Lags beyond the number of dates have nothing to add.
    centred : bool
        Whether to subtract the weighted mean; the mean returned is 0 otherwise.
    """
    known = ~np.isnan(values)
    mass = known * weights[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):  # a column without values becomes NaN
        mean = np.where(known, values, 0.0).T @ weights / mass.sum(axis=0)
        mean = mean if centred else np.zeros_like(mean)
        apart = np.where(known, values - mean, 0.0) * np.sqrt(weights)[:, None]
        total = apart.T @ apart
        for lag in range(1, min(n_lags, len(values) - 1) + 1):
            cross = apart[lag:].T @ apart[:-lag]
            total += (1.0 - lag / (n_lags + 1.0)) * (cross + cross.T)
        return total / (known.T @ mass), mean


def running_variance(
    values: np.ndarray, fade: float, n_lags: int, *, centred: bool = True
) -> np.ndarray:
    """Return the diagonal of `long_run_covariance` of the dates up to each date.

    The same sums by recursion over dates, each date once, with weight ``fade ** age``.

    Parameters
    ----------
    values : ndarray, shape (date, column)
        NaN = missing.
    fade : float
        See `decay`.
    n_lags : int
    centred : bool

    Returns
    -------
    ndarray, shape (date, column)
        NaN before the first value of a column.
    """
    known = (~np.isnan(values)).astype(np.float64)
    filled = np.where(known > 0.0, values, 0.0)

    def faded(terms: np.ndarray) -> np.ndarray:
        return np.asarray(lfilter([1.0], [1.0, -fade], terms, axis=0))

    mass = faded(known)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = faded(filled) / mass if centred else np.zeros_like(filled)
        total = faded(filled**2) - mean**2 * mass if centred else faded(filled**2)
        for lag in range(1, min(n_lags, len(values) - 1) + 1):
            both = known[lag:] * known[:-lag]
            terms = filled[lag:] * filled[:-lag]
            cross = faded(terms)
            if centred:
                ends = faded(filled[lag:] * known[:-lag] + known[lag:] * filled[:-lag])
                cross = cross - mean[lag:] * ends + mean[lag:] ** 2 * faded(both)
            kernel = 2.0 * (1.0 - lag / (n_lags + 1.0)) * fade ** (lag / 2.0)
            total[lag:] += kernel * cross
        # The sum is a non-negative quadratic form; below 0 it is rounding.
        return np.where(mass > 0.0, np.maximum(total, 0.0) / mass, np.nan)
