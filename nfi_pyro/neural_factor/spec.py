"""Hyper-parameters of the nonlinear factor model, checked and frozen."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nfi_pyro.distributions.heads import HeadSpec
from nfi_pyro.nets.penalty import Penalty


class NeuralFactorSpec(BaseModel):
    """What a `NeuralFactor` is made of.

    Attributes
    ----------
    n_exposures : int or None
        D. None means as many as the panel has; the `fit` command fills it in.
    hidden_size, n_layers : int
        Of the network.
    activation : {"tanh", "silu", "softplus"}
        Smooth: a ReLU has no Hessian.
    noise : {"gaussian", "student_t"}
        Law of the error, of one scale for all assets and dates.
    degrees_of_freedom : float
        Of Student-t noise, > 2.
    standardise : bool
        Whether exposures are standardised over the assets of each date.
    linear : bool
        Whether there is a linear term beside the network: the nested linear model.
    scale_floor : float
        Smallest scale, in units of the training return scale.
    penalty : Penalty
        On the network.
    heads : HeadSpec
        Whether the last layers have a posterior, and their priors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_exposures: int | None = Field(default=None, ge=1)
    hidden_size: int = Field(default=32, ge=1)
    n_layers: int = Field(default=2, ge=1)
    activation: Literal["tanh", "silu", "softplus"] = "tanh"
    noise: Literal["gaussian", "student_t"] = "gaussian"
    degrees_of_freedom: float = Field(default=4.0, gt=2.0, le=200.0)
    standardise: bool = True
    linear: bool = True
    scale_floor: float = Field(default=1e-3, gt=0.0, lt=1.0)
    penalty: Penalty = Penalty()
    heads: HeadSpec = HeadSpec()

    @property
    def lags(self) -> int:
        """Dates in a window: exposures are those of the signal date."""
        return 1
