"""Results of minimum-variance hedges: what to sell, and what risk is left."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

REGIME, STATE = "regime", "state"
BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class FactorHedge:
    """Factor exposures to sell so that a book's variance is least, and what is left of it.

    Over one label horizon. With regimes, everything that depends on the factors' law has the
    dimension `regime` first: the book of each date under the law of each regime.

    Attributes
    ----------
    exposure : DataArray, shape (date, factor)
        Of the book, per unit of capital.
    hedge : DataArray, shape ([regime], date, factor)
        Exposure to sell; 0 for factors that are not `hedged`.
    variance : DataArray, shape ([regime], date, state, source)
        Decimal return squared, before and after, by factor and ``specific``; sums over source to
        the variance. Factor k gives ``x_k (F x)_k`` with x the exposure that is left, which is 0
        for a hedged factor after the hedge.
    standard_deviation : DataArray, shape ([regime], date, state)
        Decimal return.
    r_squared : DataArray, shape ([regime], date)
        Share of the variance that the hedge takes off, in [0, 1].
    factor_covariance : DataArray, shape (date or regime, factor, factor_other)
        F, decimal return squared.
    n_dates : DataArray of int, shape (regime,), or None
        Dates that each regime's law is mixed from.
    single_date : DataArray of bool, shape (regime,), or None
        Regimes of one date: their factors do not correlate, since there is nothing between dates.
    n_unlabelled : int
        Dates of the forecast that are in no regime; they are left out.
    hedged : tuple of str
        Factors that may be sold.
    """

    exposure: xr.DataArray
    hedge: xr.DataArray
    variance: xr.DataArray
    standard_deviation: xr.DataArray
    r_squared: xr.DataArray
    factor_covariance: xr.DataArray
    n_dates: xr.DataArray | None
    single_date: xr.DataArray | None
    n_unlabelled: int
    hedged: tuple[str, ...]


@dataclass(frozen=True)
class AssetHedge:
    """Trade in given assets so that a book's variance is least, its price, and what is left.

    Attributes
    ----------
    date : numpy.datetime64
    trade : DataArray, shape (asset,)
        Change of weight by instrument, fraction of capital; negative sells.
    variance : DataArray, shape (state, source)
        Decimal return squared, before and after, by factor (or column) and ``specific``.
    standard_deviation : DataArray, shape (state,)
        Decimal return.
    r_squared : float
        Share of the variance that the trade takes off, in [0, 1].
    gross_turnover, net_turnover : float
        ``sum |trade|`` and ``sum trade``: what it costs in turnover, and in capital.
    dependence : str
        ``factor``, or ``copula``: then variances are those of the first order, see `CopulaDraws`.
    """

    date: np.datetime64
    trade: xr.DataArray
    variance: xr.DataArray
    standard_deviation: xr.DataArray
    r_squared: float
    gross_turnover: float
    net_turnover: float
    dependence: str
