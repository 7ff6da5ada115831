"""Fama and MacBeth's summary of factor returns."""

import math

import numpy as np
import xarray as xr

from nfi_pyro.dims import DATE, FACTOR
from nfi_pyro.errors import SpecError
from nfi_pyro.linear_factor.cells import as_dims
from nfi_pyro.linear_factor.long_run import long_run_covariance
from nfi_pyro.linear_factor.results import FactorPremia


def fama_macbeth(factor_returns: xr.DataArray, *, n_lags: int | None = None) -> FactorPremia:
    """Return the mean of each factor's returns, its Newey-West error and t statistic.

    Bartlett kernel, no small-sample correction; a date without a return keeps its place in time.

    Parameters
    ----------
    factor_returns : DataArray, shape (date, factor)
        Consecutive trading dates; NaN = none on that date.
    n_lags : int, optional
        Autocovariances that enter, >= 0. Default: ``floor(4 (n / 100)^(2/9))`` of the dates with
        any factor return (Newey and West, 1994), and at least horizon - 1 where the attribute
        `horizon` says that labels overlap.

    Returns
    -------
    FactorPremia

    Raises
    ------
    ShapeError
        When the dimensions are not date and factor.
    SpecError
        When a return is infinite or `n_lags` is negative.
    """
    table = as_dims(factor_returns, (DATE, FACTOR), "factor_returns")
    values = table.to_numpy().astype(np.float64)
    if np.isinf(values).any():
        raise SpecError(
            "factor_returns must be finite or NaN; got an infinite one at fama_macbeth. Set NaN to "
            "leave it out."
        )
    if n_lags is None:
        n_any = int((~np.isnan(values)).any(axis=1).sum())
        rule = math.floor(4.0 * (n_any / 100.0) ** (2.0 / 9.0))
        n_lags = max(rule, int(table.attrs.get("horizon", 1)) - 1)
    if n_lags < 0:
        raise SpecError(f"n_lags must be >= 0; got {n_lags} at fama_macbeth. Pass fewer lags.")
    counts = (~np.isnan(values)).sum(axis=0)
    mean = np.full(len(counts), np.nan)
    error = np.full(len(counts), np.nan)
    for factor in np.flatnonzero(counts):
        column = values[:, [factor]]
        variance, centre = long_run_covariance(column, np.ones(len(column)), n_lags)
        mean[factor] = centre[0]
        if counts[factor] > 1:
            # The Bartlett sum is a non-negative quadratic form; below 0 it is rounding.
            error[factor] = math.sqrt(max(variance[0, 0], 0.0) / counts[factor])
    coords = {FACTOR: table[FACTOR]}
    ratio = mean / np.where(error > 0.0, error, np.nan)
    return FactorPremia(
        mean=xr.DataArray(mean, coords, FACTOR, "mean", attrs=table.attrs),
        standard_error=xr.DataArray(error, coords, FACTOR, "standard_error", attrs=table.attrs),
        t_statistic=xr.DataArray(ratio, coords, FACTOR, "t_statistic"),
        n_dates=xr.DataArray(counts, coords, FACTOR, "n_dates"),
        n_lags=n_lags,
    )
