"""Hyper-parameters of mixture pricing, checked and frozen."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nfi_pyro.distributions.heads import HeadSpec
from nfi_pyro.nets.penalty import Penalty


class MixturePricingSpec(BaseModel):
    """What a `MixturePricing` is made of.

    Attributes
    ----------
    n_exposures : int or None
        D. None means as many as the panel has; the `fit` command fills it in.
    n_components : int
        K; 1 is a normal law whose mean and scale depend on exposures.
    hidden_size, n_layers : int
        Width of both trunks and depth of alpha's.
    activation : {"tanh", "silu", "softplus"}
        Smooth: a ReLU has no Hessian.
    standardise : bool
        Whether exposures are standardised over the assets of each date. Off by default: without
        shared factors the level of exposures is all that tells one date's market from another's.
    linear : bool
        Whether alpha has a linear term beside the network.
    scale_floor : float
        Smallest scale, in units of the training return scale.
    penalty : Penalty
        On alpha.
    heads : HeadSpec
        Whether the last layers have a posterior, and their priors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_exposures: int | None = Field(default=None, ge=1)
    n_components: int = Field(default=3, ge=1)
    hidden_size: int = Field(default=32, ge=1)
    n_layers: int = Field(default=2, ge=1)
    activation: Literal["tanh", "silu", "softplus"] = "tanh"
    standardise: bool = False
    linear: bool = True
    scale_floor: float = Field(default=0.05, gt=0.0, lt=1.0)
    penalty: Penalty = Penalty()
    heads: HeadSpec = HeadSpec()

    @property
    def lags(self) -> int:
        """Dates in a window: exposures are those of the signal date."""
        return 1
