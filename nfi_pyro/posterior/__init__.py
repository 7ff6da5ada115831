"""Posterior draws, closed-form forecasts and the one bridge to ArviZ."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfi_pyro.posterior.arviz_bridge import read_inference_data, to_inference_data
    from nfi_pyro.posterior.covariance import LowRankCovariance
    from nfi_pyro.posterior.draws import Posterior, sample_posterior
    from nfi_pyro.posterior.exposure_pricing import PricingLaw, pricing_law, pricing_laws
    from nfi_pyro.posterior.forecasting import forecast
    from nfi_pyro.posterior.heterogeneity import law_heterogeneity, risk_price_heterogeneity
    from nfi_pyro.posterior.portfolio_law import PortfolioLaw
    from nfi_pyro.posterior.return_forecast import ReturnForecast

_HOMES = {
    "LowRankCovariance": "nfi_pyro.posterior.covariance",
    "PortfolioLaw": "nfi_pyro.posterior.portfolio_law",
    "Posterior": "nfi_pyro.posterior.draws",
    "ReturnForecast": "nfi_pyro.posterior.return_forecast",
    "PricingLaw": "nfi_pyro.posterior.exposure_pricing",
    "forecast": "nfi_pyro.posterior.forecasting",
    "law_heterogeneity": "nfi_pyro.posterior.heterogeneity",
    "pricing_law": "nfi_pyro.posterior.exposure_pricing",
    "pricing_laws": "nfi_pyro.posterior.exposure_pricing",
    "read_inference_data": "nfi_pyro.posterior.arviz_bridge",
    "risk_price_heterogeneity": "nfi_pyro.posterior.heterogeneity",
    "sample_posterior": "nfi_pyro.posterior.draws",
    "to_inference_data": "nfi_pyro.posterior.arviz_bridge",
}

__all__ = [
    "LowRankCovariance",
    "PortfolioLaw",
    "Posterior",
    "PricingLaw",
    "ReturnForecast",
    "forecast",
    "law_heterogeneity",
    "pricing_law",
    "pricing_laws",
    "read_inference_data",
    "risk_price_heterogeneity",
    "sample_posterior",
    "to_inference_data",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use: ArviZ is slow to import and not always needed."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
