r"""Euler contributions of factors, specific parts and assets to a portfolio's risk.

A measure y that is homogeneous of degree one in the weights is ``sum_i w_i dy/dw_i``: no other
split of it is consistent with its slopes (Tasche, 1999). With returns
``r_i = alpha_i + sum_k beta_ik z_k + e_i`` the share of asset i splits further by source,

    w_i dy/dw_i = sum_k w_i beta_ik dy/db_k + the rest,     b_k = sum_i w_i beta_ik,

so one table (asset, source) has the contributions of assets, of factors and of the specific part
as its margins.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from nfi_pyro.attribution.results.contributions import (
    EXPECTED,
    MEASURE,
    PART,
    RISK,
    SOURCE,
    SPECIFIC,
    RiskContributions,
)
from nfi_pyro.attribution.risk.risk_slopes import (
    STANDARD_DEVIATION,
    TAILS,
    RiskSlopes,
    deviation_slopes,
    exact_slopes,
)
from nfi_pyro.attribution.risk.tail_contributions import TailWindow, tail_slopes
from nfi_pyro.dims import ASSET, FACTOR
from nfi_pyro.errors import SpecError, WeightsError, name_places
from nfi_pyro.linear_factor import LinearRiskModel
from nfi_pyro.portfolio import equal_weights
from nfi_pyro.posterior.portfolio_law import PortfolioLaw, Weights, align_weights
from nfi_pyro.posterior.return_forecast import Date, ReturnForecast

MEASURES = (STANDARD_DEVIATION, *TAILS)
_CLOSED = "closed form"
_DECIMAL = {"units": "decimal return"}


def risk_contributions(
    forecast: ReturnForecast,
    weights: Weights | None,
    *,
    date: Date | None = None,
    measures: Sequence[str] = MEASURES,
    level: float = 0.95,
    draws: int = 50_000,
    seed: int = 0,
) -> RiskContributions:
    """Return what assets, factors and specific parts contribute to measures of a portfolio's risk.

    The standard deviation splits in closed form, and so do value at risk and expected shortfall
    where every asset has one component. Otherwise these two and their parts are means over joint
    draws, see `sampled_tail_slopes`; at the draws and seed of `portfolio_risk` they are its values.

    Under a copula the sources are its shared normals: the standard deviation is that of the
    first-order covariance (see `CopulaDraws`), and in the tail the part of a normal is that of its
    first-order loading. What is left, the nonlinear part included, is specific.

    Parameters
    ----------
    forecast : ReturnForecast
        Of returns, with dependence ``factor`` or ``copula``.
    weights : mapping, Series or DataArray, or None for equal weights
        Asset to fraction of capital.
    date : date, optional
        Default: the forecast's last.
    measures : sequence of {"standard_deviation", "value_at_risk", "expected_shortfall"}
    level : float
        Of the last two, in (0, 1).
    draws, seed : int
        For Monte Carlo.

    Returns
    -------
    RiskContributions
        Never NaN.

    Raises
    ------
    WeightsError, SpecError
        See `ReturnForecast.portfolio`; also if the portfolio has no variance, a measure is unknown
        or an option out of range.

    Notes
    -----
    Deck A, lines 281-307, which leave the covariance open: here it is that of the joint law, see
    `ReturnForecast.covariance`. Market specification, rows 15 and 17.
    """
    names = _check_measures(measures)
    law = portfolio_with_variance(forecast, weights, date)
    found, window = {STANDARD_DEVIATION: deviation_slopes(law)}, None
    has_tails = bool(set(names) & set(TAILS))
    if has_tails:
        tails, window = tail_slopes(law, level, draws=draws, seed=seed)
        found |= tails
    expected = -expected_parts(law)
    tables = [
        np.stack([expected * (name in TAILS), _risk_parts(law.weights, law.beta, found[name])])
        for name in names
    ]
    coords: dict[str, Any] = {MEASURE: names, ASSET: law.assets, SOURCE: source_names(forecast)}
    return RiskContributions(
        date=law.date,
        **_label(law.weights, law.exposure, [found[name] for name in names], tables, coords),
        level=level if has_tails else None,
        dependence=str(forecast.data.attrs["dependence"]),
        methods={name: describe_method(name, window, draws) for name in names},
    )


def linear_risk_contributions(model: LinearRiskModel, weights: Weights) -> RiskContributions:
    """Return what assets, factors and specific parts contribute to a risk model's deviation.

    Factors may correlate: factor k gives ``b_k (F b)_k / sd``, and asset i through it
    ``w_i B_ik (F b)_k / sd``; the specific part of asset i gives ``w_i^2 D_i / sd``. A risk model
    has no means and no tails, so the standard deviation is the one measure.

    Parameters
    ----------
    model : LinearRiskModel
        Over one label period.
    weights : mapping, Series or DataArray
        Asset to fraction of capital.

    Raises
    ------
    WeightsError
        If an asset is not covered, a weight is not finite, or the portfolio has no variance.
    """
    variance = model.portfolio_variance(weights)
    if not variance.total > 0.0:
        raise WeightsError(_no_variance())
    deviation = float(np.sqrt(variance.total))
    assets = model.exposures[ASSET].to_numpy()
    own = align_weights(weights, assets, np.ones(len(assets), dtype=bool))
    exposure, beta = variance.exposure.to_numpy(), model.exposures.to_numpy()
    factor = model.factor_covariance.to_numpy() @ exposure / deviation
    asset = model.times(weights).to_numpy() / deviation
    slopes = exact_slopes(deviation, asset, factor)
    risk = _risk_parts(own, beta, slopes)
    names = [*(str(name) for name in model.exposures[FACTOR].to_numpy()), SPECIFIC]
    coords: dict[str, Any] = {MEASURE: (STANDARD_DEVIATION,), ASSET: assets, SOURCE: names}
    return RiskContributions(
        date=None,
        **_label(own, exposure, [slopes], [np.stack([np.zeros_like(risk), risk])], coords),
        level=None,
        dependence="risk model",
        methods={STANDARD_DEVIATION: _CLOSED},
    )


def portfolio_with_variance(
    forecast: ReturnForecast, weights: Weights | None, date: Date | None
) -> PortfolioLaw:
    """Return the law of a portfolio, equal weights for None, once it is known to have a variance.

    Raises
    ------
    WeightsError, SpecError
        See `ReturnForecast.portfolio`.
    """
    law = forecast.portfolio(equal_weights(forecast, date) if weights is None else weights, date)
    if not law.standard_deviation > 0.0:
        raise WeightsError(_no_variance())
    return law


def source_names(forecast: ReturnForecast) -> list[str]:
    """Return the names of what assets share, and of what they do not, as sources of risk."""
    shared = "column" if forecast.data.attrs["dependence"] == "copula" else FACTOR
    return [*(str(name) for name in forecast.data[shared].to_numpy()), SPECIFIC]


def expected_parts(law: PortfolioLaw) -> np.ndarray:
    """Return the expected return by asset and source, shape (asset, source)."""
    shared = law.weights[:, None] * law.beta * law.factor_loc
    return np.column_stack([shared, law.weights * law.specific_mean])


def describe_method(measure: str, window: TailWindow | None, draws: int) -> str:
    """Return how a measure was had, in words."""
    if window is None or measure not in TAILS:
        return _CLOSED
    if measure == TAILS[1]:
        return f"Monte Carlo, {draws:,} draws, {window.n_beyond:,} beyond the quantile"
    return (
        f"Monte Carlo, {draws:,} draws, a line through the {window.n_near:,} between levels "
        f"{window.low:.4f} and {window.high:.4f}"
    )


def _no_variance() -> str:
    return "a portfolio must have a weight that is not zero; got none. Give at least one."


def _check_measures(measures: Sequence[str]) -> tuple[str, ...]:
    """Return the measures, each once, in their order."""
    names = (measures,) if isinstance(measures, str) else tuple(dict.fromkeys(measures))
    unknown = [name for name in names if name not in MEASURES]
    if unknown or not names:
        raise SpecError(
            f"measures must be among {', '.join(MEASURES)}, at least one; got "
            f"{name_places(unknown) if unknown else 'none'}. Choose of these."
        )
    return names


def _risk_parts(weights: np.ndarray, beta: np.ndarray, slopes: RiskSlopes) -> np.ndarray:
    """Return the risk part of a measure by asset and source, shape (asset, source)."""
    shared = weights[:, None] * beta * slopes.factor
    return np.column_stack([shared, weights * slopes.asset - shared.sum(axis=1)])


def _label(
    weights: np.ndarray,
    exposure: np.ndarray,
    slopes: Sequence[RiskSlopes],
    tables: Sequence[np.ndarray],
    coords: Mapping[str, Any],
) -> dict[str, xr.DataArray]:
    """Return the arrays of `RiskContributions`."""
    places = {**coords, PART: [EXPECTED, RISK]}

    def array(values: Sequence[object], *dims: str) -> xr.DataArray:
        own = {dim: np.asarray(places[dim]) for dim in dims}
        return xr.DataArray(np.asarray(values, dtype=np.float64), own, dims, attrs=_DECIMAL)

    by_source = [
        np.append(np.abs(exposure) * slope.factor_error, slope.own_error) for slope in slopes
    ]
    return {
        "value": array([slope.value for slope in slopes], MEASURE),
        "value_error": array([slope.value_error for slope in slopes], MEASURE),
        "contribution": array(tables, MEASURE, PART, ASSET, SOURCE),
        "asset_error": array(
            [np.abs(weights) * slope.asset_error for slope in slopes], MEASURE, ASSET
        ),
        "source_error": array(by_source, MEASURE, SOURCE),
    }
