"""What training and posteriors know of a model: this protocol and nothing else."""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel
from torch import Tensor

from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.distributions.heads import HeadPosterior
from nfi_pyro.distributions.pricing import PricingFunction


@runtime_checkable
class VariationalModel(Protocol):
    """A Pyro model and guide over a context that the networks make once per step.

    The class also takes ``(spec, *, seed)`` in its constructor, so that a fit can start from
    its own seed, and is a `torch.nn.Module`. ``spec`` has `lags`.
    """

    name: str

    @property
    def spec(self) -> BaseModel:
        """Hyper-parameters; read only here, so that a model may promise its own spec class."""

    def context(self, batch: PanelBatch) -> Any:
        """Run every network once; no outcome can enter."""

    def model(self, context: Any, outcome: Outcome | None = None) -> None:
        """Pyro model with plates ``date`` (dim -2, subsampled) and ``asset`` (dim -1)."""

    def guide(self, context: Any, outcome: Outcome) -> None:
        """Pyro guide of the same sites."""


@runtime_checkable
class PricingModel(VariationalModel, Protocol):
    """A variational model with a closed-form law of returns, whose assets may share factors.

    ``spec`` has `n_features` or, where `uses_exposures`, `n_exposures`.
    """

    uses_exposures: bool
    """Whether the model prices given exposures (the panel's own, else its features)."""

    def law(self, context: Any) -> FactorMixture:
        """Return the law given shared z and its prior; without factors where none is shared."""


@runtime_checkable
class ExposurePricing(PricingModel, Protocol):
    """A pricing model whose law of a date is a function of exposure alone."""

    def pricing(self, context: Any, position: int) -> PricingFunction:
        """Return the law of the date at `position` of the context as a function of exposure."""

    def exposures(self, context: Any) -> Tensor:
        """Return the exposures that `pricing` takes, (date, asset, factor)."""


@runtime_checkable
class CanonicalModel(PricingModel, Protocol):
    """A pricing model with equivalent forms, one of which is reported."""

    def canonicalise(self, contexts: Iterable[Any]) -> None:
        """Fix the form from the contexts of the training dates; no law changes."""


@runtime_checkable
class BayesianHeads(PricingModel, Protocol):
    """A pricing model whose last layers may be random: a site ``heads`` in model and guide."""

    heads: HeadPosterior | None
    """Prior and guide of the last layers; None where they are point estimates."""

    def law(self, context: Any, heads: Tensor | None = None) -> FactorMixture:
        """Return the law at a draw of `heads`, or at the guide's location."""


def head_posterior(model: Any) -> HeadPosterior | None:
    """Return the posterior of a model's last layers, or None where they are point estimates."""
    return model.heads if isinstance(model, BayesianHeads) else None
