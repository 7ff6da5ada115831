"""Posterior draws, closed-form forecasts and the one bridge to ArviZ."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfi_pyro.posterior.alignment import FactorAlignment, align_factors
    from nfi_pyro.posterior.arviz_bridge import (
        read_inference_data,
        to_inference_data,
        write_inference_data,
    )
    from nfi_pyro.posterior.books import portfolio_outcomes
    from nfi_pyro.posterior.covariance import LowRankCovariance
    from nfi_pyro.posterior.draws import Posterior, sample_posterior
    from nfi_pyro.posterior.ensemble import ForecastEnsemble
    from nfi_pyro.posterior.exposure_pricing import PricingLaw, pricing_law, pricing_laws
    from nfi_pyro.posterior.forecasting import forecast
    from nfi_pyro.posterior.head_draws import forecast_heads
    from nfi_pyro.posterior.head_prior import head_prior_predictive
    from nfi_pyro.posterior.heterogeneity import law_heterogeneity, risk_price_heterogeneity
    from nfi_pyro.posterior.importance import ImportanceWeights, importance_weights
    from nfi_pyro.posterior.members import draw_fits
    from nfi_pyro.posterior.portfolio_law import PortfolioLaw
    from nfi_pyro.posterior.portfolio_mixture import PortfolioMixture
    from nfi_pyro.posterior.return_forecast import ReturnForecast

_HOMES = {
    "FactorAlignment": "nfi_pyro.posterior.alignment",
    "ForecastEnsemble": "nfi_pyro.posterior.ensemble",
    "ImportanceWeights": "nfi_pyro.posterior.importance",
    "LowRankCovariance": "nfi_pyro.posterior.covariance",
    "PortfolioLaw": "nfi_pyro.posterior.portfolio_law",
    "PortfolioMixture": "nfi_pyro.posterior.portfolio_mixture",
    "Posterior": "nfi_pyro.posterior.draws",
    "ReturnForecast": "nfi_pyro.posterior.return_forecast",
    "PricingLaw": "nfi_pyro.posterior.exposure_pricing",
    "align_factors": "nfi_pyro.posterior.alignment",
    "draw_fits": "nfi_pyro.posterior.members",
    "forecast": "nfi_pyro.posterior.forecasting",
    "forecast_heads": "nfi_pyro.posterior.head_draws",
    "head_prior_predictive": "nfi_pyro.posterior.head_prior",
    "importance_weights": "nfi_pyro.posterior.importance",
    "law_heterogeneity": "nfi_pyro.posterior.heterogeneity",
    "portfolio_outcomes": "nfi_pyro.posterior.books",
    "pricing_law": "nfi_pyro.posterior.exposure_pricing",
    "pricing_laws": "nfi_pyro.posterior.exposure_pricing",
    "read_inference_data": "nfi_pyro.posterior.arviz_bridge",
    "risk_price_heterogeneity": "nfi_pyro.posterior.heterogeneity",
    "sample_posterior": "nfi_pyro.posterior.draws",
    "to_inference_data": "nfi_pyro.posterior.arviz_bridge",
    "write_inference_data": "nfi_pyro.posterior.arviz_bridge",
}

__all__ = [
    "FactorAlignment",
    "ForecastEnsemble",
    "ImportanceWeights",
    "LowRankCovariance",
    "PortfolioLaw",
    "PortfolioMixture",
    "Posterior",
    "PricingLaw",
    "ReturnForecast",
    "align_factors",
    "draw_fits",
    "forecast",
    "forecast_heads",
    "head_prior_predictive",
    "importance_weights",
    "law_heterogeneity",
    "portfolio_outcomes",
    "pricing_law",
    "pricing_laws",
    "read_inference_data",
    "risk_price_heterogeneity",
    "sample_posterior",
    "to_inference_data",
    "write_inference_data",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use: ArviZ is slow to import and not always needed."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
