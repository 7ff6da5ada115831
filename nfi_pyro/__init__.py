"""Bayesian factor investing on Pyro: returns as distributions, posteriors in ArviZ."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfi_pyro.data import build_panel, check_panel, embedded_prices, read_prices
    from nfi_pyro.distributions import FactorMixture, HeadSpec, MixtureOfNormals
    from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
    from nfi_pyro.linear_factor import LinearFactor, LinearFactorSpec
    from nfi_pyro.mixture_pricing import MixturePricing, MixturePricingSpec
    from nfi_pyro.neural_factor import NeuralFactor, NeuralFactorSpec
    from nfi_pyro.nfi import NFI, NFISpec
    from nfi_pyro.posterior import (
        ForecastEnsemble,
        ReturnForecast,
        forecast,
        pricing_law,
        sample_posterior,
        to_inference_data,
    )
    from nfi_pyro.svi import SVIConfig, SVIFit, fit_restarts, fit_svi

try:
    __version__ = version("nfi-pyro")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_HOMES = {
    "build_panel": "nfi_pyro.data",
    "check_panel": "nfi_pyro.data",
    "embedded_prices": "nfi_pyro.data",
    "read_prices": "nfi_pyro.data",
    "FactorMixture": "nfi_pyro.distributions",
    "HeadSpec": "nfi_pyro.distributions",
    "MixtureOfNormals": "nfi_pyro.distributions",
    "FactorVAE": "nfi_pyro.factor_vae",
    "FactorVAESpec": "nfi_pyro.factor_vae",
    "LinearFactor": "nfi_pyro.linear_factor",
    "LinearFactorSpec": "nfi_pyro.linear_factor",
    "MixturePricing": "nfi_pyro.mixture_pricing",
    "MixturePricingSpec": "nfi_pyro.mixture_pricing",
    "NFI": "nfi_pyro.nfi",
    "NFISpec": "nfi_pyro.nfi",
    "NeuralFactor": "nfi_pyro.neural_factor",
    "NeuralFactorSpec": "nfi_pyro.neural_factor",
    "ForecastEnsemble": "nfi_pyro.posterior",
    "ReturnForecast": "nfi_pyro.posterior",
    "forecast": "nfi_pyro.posterior",
    "pricing_law": "nfi_pyro.posterior",
    "sample_posterior": "nfi_pyro.posterior",
    "to_inference_data": "nfi_pyro.posterior",
    "SVIConfig": "nfi_pyro.svi",
    "SVIFit": "nfi_pyro.svi",
    "fit_restarts": "nfi_pyro.svi",
    "fit_svi": "nfi_pyro.svi",
}

__all__ = [
    "NFI",
    "FactorMixture",
    "FactorVAE",
    "FactorVAESpec",
    "ForecastEnsemble",
    "HeadSpec",
    "LinearFactor",
    "LinearFactorSpec",
    "MixtureOfNormals",
    "MixturePricing",
    "MixturePricingSpec",
    "NFISpec",
    "NeuralFactor",
    "NeuralFactorSpec",
    "ReturnForecast",
    "SVIConfig",
    "SVIFit",
    "__version__",
    "build_panel",
    "check_panel",
    "embedded_prices",
    "fit_restarts",
    "fit_svi",
    "forecast",
    "pricing_law",
    "read_prices",
    "sample_posterior",
    "to_inference_data",
]


def __getattr__(name: str) -> object:
    """Import a public name from its home on first use, so that importing the package is cheap."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
