"""What training and posteriors know of a model: this protocol and nothing else."""

from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.distributions.factor_mixture import FactorMixture


@runtime_checkable
class VariationalModel(Protocol):
    """A Pyro model and guide over a context that the networks make once per step.

    The class also takes ``(spec, *, seed)`` in its constructor, so that a fit can start from
    its own seed, and is a `torch.nn.Module`. ``spec`` has `n_features` and `lags`.
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
    """A variational model whose returns share factors in a closed-form law."""

    def law(self, context: Any) -> FactorMixture:
        """Return the law given shared z and its prior."""
