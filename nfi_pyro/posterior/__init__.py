"""Posterior draws, closed-form forecasts and the one bridge to ArviZ."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfi_pyro.posterior.arviz_bridge import read_inference_data, to_inference_data
    from nfi_pyro.posterior.covariance import LowRankCovariance
    from nfi_pyro.posterior.draws import Posterior, sample_posterior
    from nfi_pyro.posterior.forecasting import forecast
    from nfi_pyro.posterior.portfolio_law import PortfolioLaw
    from nfi_pyro.posterior.return_forecast import ReturnForecast

_HOMES = {
    "LowRankCovariance": "nfi_pyro.posterior.covariance",
    "PortfolioLaw": "nfi_pyro.posterior.portfolio_law",
    "Posterior": "nfi_pyro.posterior.draws",
    "ReturnForecast": "nfi_pyro.posterior.return_forecast",
    "forecast": "nfi_pyro.posterior.forecasting",
    "read_inference_data": "nfi_pyro.posterior.arviz_bridge",
    "sample_posterior": "nfi_pyro.posterior.draws",
    "to_inference_data": "nfi_pyro.posterior.arviz_bridge",
}

__all__ = [
    "LowRankCovariance",
    "PortfolioLaw",
    "Posterior",
    "ReturnForecast",
    "forecast",
    "read_inference_data",
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
