"""Results of portfolio risk: frozen tables and numbers."""

from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class PortfolioRisk:
    """Predictive risk of one portfolio on one date, in return units per label horizon.

    Attributes
    ----------
    date : numpy.datetime64
        The close at which the forecast is known.
    weights : DataArray, shape (asset,)
        Fraction of capital, as given; absent assets are 0.
    mean, standard_deviation : float
        Of the portfolio's return over the label's horizon, decimal.
    factor_variance, specific_variance : float
        The two parts of the variance; they add up to ``standard_deviation ** 2``.
    value_at_risk, expected_shortfall : DataArray, shape (level,)
        Positive numbers are losses, decimal.
    standard_error : DataArray, shape (measure, level)
        Monte Carlo standard error of `value_at_risk` and `expected_shortfall`; 0 where they
        are closed form.
    asset_contribution : DataArray, shape (asset,)
        Euler contributions to the standard deviation; they add up to it.
    factor_contribution : DataArray, shape (source,)
        The same split by factor and, last, ``specific``.
    method : str
        ``closed form`` or ``Monte Carlo, n draws``.
    """

    date: np.datetime64
    weights: xr.DataArray
    mean: float
    standard_deviation: float
    factor_variance: float
    specific_variance: float
    value_at_risk: xr.DataArray
    expected_shortfall: xr.DataArray
    standard_error: xr.DataArray
    asset_contribution: xr.DataArray
    factor_contribution: xr.DataArray
    method: str
