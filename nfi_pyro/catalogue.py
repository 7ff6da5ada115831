"""Names of the models that ship, and where their classes live."""

from dataclasses import dataclass
from importlib import import_module

from pydantic import BaseModel
from torch import nn

from nfi_pyro.errors import SpecError


@dataclass(frozen=True)
class ModelEntry:
    """Home of a model: package, model class and spec class."""

    package: str
    model: str
    spec: str

    def model_class(self) -> type[nn.Module]:
        """Return the model's class."""
        return getattr(import_module(self.package), self.model)

    def spec_class(self) -> type[BaseModel]:
        """Return the spec's class."""
        return getattr(import_module(self.package), self.spec)


MODELS = {
    "factor_vae": ModelEntry("nfi_pyro.factor_vae", "FactorVAE", "FactorVAESpec"),
    "linear_factor": ModelEntry("nfi_pyro.linear_factor", "LinearFactor", "LinearFactorSpec"),
    "mixture_pricing": ModelEntry(
        "nfi_pyro.mixture_pricing", "MixturePricing", "MixturePricingSpec"
    ),
    "neural_factor": ModelEntry("nfi_pyro.neural_factor", "NeuralFactor", "NeuralFactorSpec"),
    "nfi": ModelEntry("nfi_pyro.nfi", "NFI", "NFISpec"),
}


def find_model(name: str) -> ModelEntry:
    """Return the entry of a model's name.

    Raises
    ------
    SpecError
        If no model has that name.
    """
    if name not in MODELS:
        raise SpecError(
            f"a model's name must be one of {', '.join(sorted(MODELS))}; got {name!r}. "
            "Correct `model` in the spec file."
        )
    return MODELS[name]
