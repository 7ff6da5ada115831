"""How a model is trained: checked, frozen, stored with the run."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nfi_pyro.data.training.transform_chain import check_steps
from nfi_pyro.errors import SpecError

Objective = Literal["elbo", "marginal", "paper"]


class SVIConfig(BaseModel):
    """Settings of `fit_svi`.

    Attributes
    ----------
    objective : {"elbo", "marginal", "paper"}
        ``elbo``: expected log-likelihood by Gauss-Hermite quadrature minus the analytic KL, a
        bound on the evidence. ``marginal``: Eq. 12's per-asset likelihood minus the KL, good for
        single-asset forecasts, not a bound, understates specific risk. ``paper``: Eq. 17 as
        printed, the likelihood averaged over the assets of a date and the KL not, that is the
        KL weighted N times; tends to posterior collapse.
    kl_weight : float
        Multiplies the KL in the objective's own normalisation (gamma of Eq. 17 for ``paper``).
        1 is Bayes for ``elbo``.
    n_epochs : int
        Most passes over the training dates.
    block_size : int
        Consecutive dates in a step.
    learning_rate : float
        Peak of linear warm-up and cosine decay to zero.
    weight_decay : float
        AdamW's, on parameters with two or more dimensions.
    warmup_share : float
        Share of all steps in the warm-up, in [0, 1).
    clip_norm : float
        Largest global gradient norm.
    patience : int
        Epochs without a better validation log score before training stops.
    keep : {"best", "last"}
        Which weights the fit returns: those of the epoch with the best validation log score, or
        those after all `n_epochs`, without stopping early. The last ones are the maximum
        likelihood of a model with few parameters, which cannot overfit; a validation span of
        calmer or wilder markets would only pull them away from it.
    max_non_finite : int
        Non-finite steps that are skipped and counted; one more is fatal.
    transforms : tuple
        Of features, in order, each fitted on the training dates; a name, or a table of a name and
        its options: see `nfi_pyro.data.training.transforms.TRANSFORMS`.
    device : str
        ``auto`` is CUDA when there is one.
    progress : bool
        Show a progress bar on standard error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Objective = "elbo"
    kl_weight: float = Field(default=1.0, ge=0.0)
    n_epochs: int = Field(default=30, ge=1)
    block_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0.0)
    weight_decay: float = Field(default=1e-2, ge=0.0)
    warmup_share: float = Field(default=0.05, ge=0.0, lt=1.0)
    clip_norm: float = Field(default=5.0, gt=0.0)
    patience: int = Field(default=8, ge=1)
    keep: Literal["best", "last"] = "best"
    max_non_finite: int = Field(default=5, ge=0)
    transforms: tuple[str | dict[str, Any], ...] = ("robust_zscore",)
    device: str = "auto"
    progress: bool = True

    @field_validator("transforms")
    @classmethod
    def _known_steps(cls, steps: Any) -> Any:
        """Refuse steps that no transform goes by."""
        check_steps(steps)
        return steps


def check_seed(seed: int) -> int:
    """Return `seed`, if both torch and numpy take it.

    Raises
    ------
    SpecError
        If it is not in [0, 2**64).
    """
    if not 0 <= seed < 2**64:
        raise SpecError(f"seed must be in [0, 2**64); got {seed}. Choose another.")
    return seed
