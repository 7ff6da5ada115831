"""The deck's pricing of returns as distributions: p(r | beta) on given exposures."""

from nfi_pyro.mixture_pricing.model import MixturePricing
from nfi_pyro.mixture_pricing.spec import MixturePricingSpec

__all__ = ["MixturePricing", "MixturePricingSpec"]
