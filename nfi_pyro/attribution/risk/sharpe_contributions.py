"""Where a portfolio's ratio of expected excess return to standard deviation comes from."""

from typing import Any

import numpy as np
import xarray as xr

from nfi_pyro.attribution.results.contributions import SOURCE, SharpeContributions
from nfi_pyro.attribution.risk.risk_contributions import (
    expected_parts,
    portfolio_with_variance,
    source_names,
)
from nfi_pyro.attribution.risk.risk_slopes import deviation_slopes, expected_returns
from nfi_pyro.dims import ASSET
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.portfolio_law import Weights
from nfi_pyro.posterior.return_forecast import Date, ReturnForecast

_RATIO = {"units": "1"}


def sharpe_contributions(
    forecast: ReturnForecast,
    weights: Weights | None,
    *,
    date: Date | None = None,
    risk_free: float = 0.0,
) -> SharpeContributions:
    """Return the parts of a portfolio's Sharpe ratio, and its slopes by weight and exposure.

    With ``SR = (E - risk_free) / sd`` the slopes are ``dSR = dE / sd - (E - risk_free) dsd / sd^2``
    (deck A, line 307; market specification, row 17): an asset, or a factor, raises the ratio where
    what it adds to the mean is more than the ratio times what it adds to the deviation. Closed
    form; under a copula with the first-order deviation, see `CopulaDraws`.

    Parameters
    ----------
    forecast, weights, date
        As in `risk_contributions`.
    risk_free : float
        Decimal return over the label's horizon, taken off once, whatever the weights sum to; 0
        for a book that needs no capital.

    Raises
    ------
    WeightsError, SpecError
        See `risk_contributions`; also if `risk_free` is not finite.
    """
    check_risk_free(risk_free)
    law = portfolio_with_variance(forecast, weights, date)
    slopes = deviation_slopes(law)
    sd, excess = slopes.value, law.mean - risk_free
    parts = expected_parts(law)
    exposure = np.append(law.exposure, 1.0)
    own_deviation = law.specific_variance / sd
    deviation = np.append(slopes.factor, own_deviation)
    mean = np.append(law.factor_loc, law.weights @ law.specific_mean)
    ratio = {"ratio": excess / sd, "sd": sd}
    sources = {SOURCE: source_names(forecast)}
    by_asset = _terms(
        parts.sum(axis=1), expected_returns(law), slopes.asset, {ASSET: law.assets}, **ratio
    )
    by_source = _terms(parts.sum(axis=0), mean, deviation, sources, **ratio)
    return SharpeContributions(
        date=law.date,
        ratio=excess / sd,
        expected_return=law.mean,
        standard_deviation=sd,
        risk_free=risk_free,
        by_asset=by_asset,
        by_source=by_source.assign(exposure=(SOURCE, exposure, _RATIO)),
        risk_free_contribution=-risk_free / sd,
    )


def check_risk_free(risk_free: float) -> None:
    """Refuse a risk-free return that is no number.

    Raises
    ------
    SpecError
    """
    if not np.isfinite(risk_free):
        raise SpecError(
            f"risk_free must be finite, decimal per label horizon; got {risk_free}. Use 0.0 for "
            "none."
        )


def _terms(
    earned: np.ndarray,
    mean: np.ndarray,
    deviation: np.ndarray,
    coords: dict[str, Any],
    *,
    ratio: float,
    sd: float,
) -> xr.Dataset:
    """Return contributions and slopes of the ratio from those of the mean and of the deviation."""
    (dim,) = coords
    by_mean, by_risk = mean / sd, -ratio * deviation / sd
    found = {
        "contribution": earned / sd,
        "marginal": by_mean + by_risk,
        "marginal_mean": by_mean,
        "marginal_risk": by_risk,
    }
    return xr.Dataset({name: (dim, values, _RATIO) for name, values in found.items()}, coords)
