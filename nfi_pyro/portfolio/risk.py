"""Predictive risk of a portfolio and where it comes from."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.errors import SpecError, WeightsError
from nfi_pyro.portfolio.results import PortfolioRisk
from nfi_pyro.posterior.portfolio_law import Weights
from nfi_pyro.posterior.return_forecast import Date, ReturnForecast

LEVELS = (0.95, 0.99)
_UNIT_REASONS = {
    "excess": "an excess return leaves out the benchmark's own risk, which a portfolio bears",
    "rank": "a rank has no unit of money",
}


def portfolio_risk(
    forecast: ReturnForecast,
    weights: Weights,
    *,
    date: Date | None = None,
    levels: Sequence[float] = LEVELS,
    draws: int = 100_000,
    seed: int = 0,
) -> PortfolioRisk:
    """Return mean, standard deviation, VaR, ES and Euler contributions of a portfolio.

    Closed form where every asset has one component; Monte Carlo over factors and specific parts
    otherwise, with its standard error. Contributions to the standard deviation add up to it
    exactly: asset i gives ``w_i (Sigma w)_i / sd``, factor k gives ``(b_k s_k)^2 / sd``. Under a
    copula the factors are its shared normals, to first order (see `CopulaDraws`), in its order:
    each is what its column adds to those before it.

    Parameters
    ----------
    forecast : ReturnForecast
    weights : mapping, Series or DataArray
        Asset to fraction of capital.
    date : date, optional
        Default: the forecast's last.
    levels : sequence of float
        Of VaR and ES.
    draws, seed : int
        For Monte Carlo.

    Raises
    ------
    WeightsError, SpecError
        See `ReturnForecast.portfolio`; also if the portfolio has no variance, or the forecast
        is not of returns: then there is no portfolio risk to give.
    """
    _require_returns(forecast)
    law = forecast.portfolio(weights, date)
    sd = law.standard_deviation
    if not sd > 0.0:
        raise WeightsError(
            "a portfolio must have a weight that is not zero; got none. Give at least one."
        )
    measures = law.tail_risks(levels, draws=draws, seed=seed)
    by_factor = np.square(law.exposure * law.factor_scale) / sd
    covariance_w = law.beta @ (np.square(law.factor_scale) * law.exposure)
    covariance_w = covariance_w + law.specific_variances * law.weights
    shared = "column" if forecast.data.attrs["dependence"] == "copula" else "factor"
    factors = [str(name) for name in forecast.data[shared].values]
    level_coord = {"level": list(levels)}
    return PortfolioRisk(
        date=law.date,
        weights=_over_assets(law.weights, law.assets),
        mean=law.mean,
        standard_deviation=sd,
        factor_variance=law.factor_variance,
        specific_variance=law.specific_variance,
        value_at_risk=xr.DataArray([m[0][0] for m in measures], level_coord, "level"),
        expected_shortfall=xr.DataArray([m[1][0] for m in measures], level_coord, "level"),
        standard_error=xr.DataArray(
            [[m[0][1] for m in measures], [m[1][1] for m in measures]],
            {"measure": ["value_at_risk", "expected_shortfall"], **level_coord},
            ("measure", "level"),
        ),
        asset_contribution=_over_assets(law.weights * covariance_w / sd, law.assets),
        factor_contribution=xr.DataArray(
            np.append(by_factor, law.specific_variance / sd),
            {"source": [*factors, "specific"]},
            "source",
        ),
        method="closed form" if law.is_gaussian else f"Monte Carlo, {draws:,} draws",
    )


def _require_returns(forecast: ReturnForecast) -> None:
    """Refuse forecasts whose unit is not a return, and say why."""
    unit = str(forecast.data.attrs.get("unit", "none"))
    if unit != "return":
        reason = _UNIT_REASONS.get(unit, "its unit is not known")
        raise SpecError(
            f"portfolio risk must come from forecasts of returns; got labels of unit {unit!r}: "
            f"{reason}. Build the panel with a label of kind raw (unit return), and fit again."
        )


def equal_weights(forecast: ReturnForecast, date: Date | None = None) -> pd.Series:
    """Return the equal-weight book of the assets that have a forecast on `date`."""
    day = forecast.on(date)
    assets = day["asset"].values[day["entered"].values]
    if not assets.size:
        raise WeightsError(
            f"a book must have at least one asset; got no forecast on "
            f"{str(day['date'].values)[:10]}. Choose another date."
        )
    return pd.Series(1.0 / assets.size, index=pd.Index(assets, name="asset"))


def _over_assets(values: np.ndarray, assets: np.ndarray) -> xr.DataArray:
    """Return values labelled by asset."""
    return xr.DataArray(values, {"asset": assets}, "asset")
