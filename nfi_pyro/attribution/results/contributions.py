"""Results of ex-ante attribution: what assets and factors give a portfolio's risk and ratio."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

MEASURE, PART, SOURCE = "measure", "part", "source"
EXPECTED, RISK = "expected", "risk"
SPECIFIC = "specific"


@dataclass(frozen=True)
class RiskContributions:
    """Euler contributions to risk measures of a portfolio, by asset and source; they add up.

    In decimal return over the label's horizon; a positive value at risk or shortfall is a loss.

    Attributes
    ----------
    date : numpy.datetime64 or None
        Close at which the forecast is known; None for a risk model without a date.
    value, value_error : DataArray, shape (measure,)
        The measures, and their standard errors: 0 in closed form.
    contribution : DataArray, shape (measure, part, asset, source)
        Sums over part, asset and source to `value`. Part `expected` is the mean that value at
        risk and expected shortfall contain, with its sign there, `risk` the rest. Sources are the
        factors, and `specific`: what is not linear in them. 0 for assets without weight.
    asset_error : DataArray, shape (measure, asset)
        Standard errors of `by_asset`, summed over parts; the expected part is exact.
    source_error : DataArray, shape (measure, source)
        Of `by_source`.
    level : float or None
        Of value at risk and expected shortfall; None without either.
    dependence : str
        ``factor``, ``copula`` (sources are the shared normals, to first order) or
        ``risk model``.
    methods : mapping of str to str
        How each measure was had, in words.
    """

    date: np.datetime64 | None
    value: xr.DataArray
    value_error: xr.DataArray
    contribution: xr.DataArray
    asset_error: xr.DataArray
    source_error: xr.DataArray
    level: float | None
    dependence: str
    methods: Mapping[str, str]

    @property
    def by_source(self) -> xr.DataArray:
        """Contributions of factors and of the specific part, (measure, part, source)."""
        return self.contribution.sum("asset", keep_attrs=True)

    @property
    def by_asset(self) -> xr.DataArray:
        """Contributions of assets, (measure, part, asset)."""
        return self.contribution.sum(SOURCE, keep_attrs=True)


@dataclass(frozen=True)
class SharpeContributions:
    """Parts of the ratio of expected excess return to standard deviation, and its slopes.

    Per label horizon, not annualised; dimensionless where nothing else is said.

    Attributes
    ----------
    date : numpy.datetime64
    ratio : float
        ``(E - risk_free) / standard_deviation``.
    expected_return, standard_deviation, risk_free : float
        Decimal return.
    by_asset : Dataset over (asset,)
        `contribution`, ``w_i E[r_i] / sd``; `marginal`, the slope of the ratio by weight, in its
        two terms `marginal_mean`, ``E[r_i] / sd``, and `marginal_risk`,
        ``-(E - risk_free) (d sd / d w_i) / sd^2``.
    by_source : Dataset over (source,)
        The same by factor, with the portfolio's `exposure` in place of the weight, and for the
        specific part, whose exposure is 1.
    risk_free_contribution : float
        ``-risk_free / sd``. With it the contributions, of assets or of sources, add up to
        `ratio`; marginals times weights, or exposures, add up to its negative.
    """

    date: np.datetime64
    ratio: float
    expected_return: float
    standard_deviation: float
    risk_free: float
    by_asset: xr.Dataset
    by_source: xr.Dataset
    risk_free_contribution: float


@dataclass(frozen=True)
class WeightAttribution:
    """How a portfolio's measure moves with each weight.

    Attributes
    ----------
    date : numpy.datetime64
    target : str
    value, value_error : float
        The measure, and its standard error: 0 in closed form.
    marginal : DataArray, shape (asset,)
        ``dy / dw_i``, of every asset with a forecast, held or not.
    marginal_error : DataArray, shape (asset,)
        Standard errors, 0 in closed form.
    contribution : DataArray, shape (asset,)
        ``w_i dy / dw_i``.
    degree : int
        Of homogeneity in the weights: 1 for mean, standard deviation, value at risk and expected
        shortfall, 2 for variance, 0 for the Sharpe ratio.
    remainder : float
        ``sum contribution - degree * value``: 0 but for rounding, or `risk_free` over the
        standard deviation for the Sharpe ratio.
    units : str
        Of `value`; a weight has none.
    method : str
    """

    date: np.datetime64
    target: str
    value: float
    value_error: float
    marginal: xr.DataArray
    marginal_error: xr.DataArray
    contribution: xr.DataArray
    degree: int
    remainder: float
    units: str
    method: str
