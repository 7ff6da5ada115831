"""How much of a portfolio's mean, risk or ratio each weight brings: slopes and their products."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from nfi_pyro.attribution.results.contributions import WeightAttribution
from nfi_pyro.attribution.risk.risk_contributions import describe_method, portfolio_with_variance
from nfi_pyro.attribution.risk.risk_slopes import (
    STANDARD_DEVIATION,
    TAILS,
    deviation_slopes,
    expected_returns,
)
from nfi_pyro.attribution.risk.sharpe_contributions import check_risk_free
from nfi_pyro.attribution.risk.tail_contributions import TailWindow, tail_slopes
from nfi_pyro.dims import ASSET
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.portfolio_law import PortfolioLaw, Weights
from nfi_pyro.posterior.return_forecast import Date, ReturnForecast

MEAN, VARIANCE, SHARPE = "mean", "variance", "sharpe"
TARGETS = (MEAN, VARIANCE, STANDARD_DEVIATION, SHARPE, *TAILS)
_DEGREE = {VARIANCE: 2, SHARPE: 0}
_UNITS = {VARIANCE: "decimal return squared", SHARPE: "1"}


class _Slopes(NamedTuple):
    """A target and its slopes by weight, with standard errors."""

    value: float
    value_error: float
    marginal: np.ndarray
    marginal_error: np.ndarray


def weight_attribution(
    forecast: ReturnForecast,
    weights: Weights | None,
    *,
    date: Date | None = None,
    target: str = STANDARD_DEVIATION,
    level: float = 0.95,
    risk_free: float = 0.0,
    draws: int = 50_000,
    seed: int = 0,
) -> WeightAttribution:
    """Return ``dy / dw_i`` of every asset with a forecast, and ``w_i dy / dw_i``.

    The products add up to y where it is homogeneous of degree one in the weights: mean, standard
    deviation, value at risk and expected shortfall. Those of the variance add up to twice, those
    of the Sharpe ratio to none of it (Euler). Slopes of assets without weight say what a first
    purchase would do. Closed form but for the tails of a law that is not normal, which are means
    over joint draws, see `sampled_tail_slopes`.

    Parameters
    ----------
    forecast, weights, date, level, draws, seed
        As in `risk_contributions`.
    target : {"mean", "variance", "standard_deviation", "sharpe", "value_at_risk", \
"expected_shortfall"}
        Under a copula the variance is that of the first order, see `CopulaDraws`.
    risk_free : float
        Of the Sharpe ratio, as in `sharpe_contributions`.

    Returns
    -------
    WeightAttribution
        Never NaN.

    Raises
    ------
    WeightsError, SpecError
        See `risk_contributions`; also if the target is unknown.

    Notes
    -----
    Deck A, line 321; market specification, row 19.
    """
    if target not in TARGETS:
        raise SpecError(f"target must be one of {', '.join(TARGETS)}; got {target!r}. Choose one.")
    check_risk_free(risk_free)
    law = portfolio_with_variance(forecast, weights, date)
    window: TailWindow | None = None
    if target in TAILS:
        found, window = tail_slopes(law, level, draws=draws, seed=seed)
        tail, mean = found[target], expected_returns(law)
        slopes = _Slopes(tail.value, tail.value_error, tail.asset - mean, tail.asset_error)
    else:
        slopes = _closed_form(law, target, risk_free)
    degree = _DEGREE.get(target, 1)
    contribution = law.weights * slopes.marginal
    units = {"units": _UNITS.get(target, "decimal return")}

    def by_asset(values: np.ndarray, name: str) -> xr.DataArray:
        return xr.DataArray(values, {ASSET: law.assets}, ASSET, name, units)

    return WeightAttribution(
        date=law.date,
        target=target,
        value=slopes.value,
        value_error=slopes.value_error,
        marginal=by_asset(slopes.marginal, "marginal"),
        marginal_error=by_asset(slopes.marginal_error, "marginal_error"),
        contribution=by_asset(contribution, "contribution"),
        degree=degree,
        remainder=float(contribution.sum() - degree * slopes.value),
        units=units["units"],
        method=describe_method(target, window, draws),
    )


def _closed_form(law: PortfolioLaw, target: str, risk_free: float) -> _Slopes:
    """Return a target that is a function of mean and deviation, and its slopes."""
    mean, deviation = expected_returns(law), deviation_slopes(law)
    sd = deviation.value
    if target == MEAN:
        value, marginal = law.mean, mean
    elif target == VARIANCE:
        value, marginal = sd**2, 2.0 * sd * deviation.asset
    elif target == SHARPE:
        value = (law.mean - risk_free) / sd
        marginal = (mean - value * deviation.asset) / sd
    else:
        value, marginal = sd, deviation.asset
    return _Slopes(value, 0.0, marginal, np.zeros_like(marginal))
