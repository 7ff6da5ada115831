"""Hyper-parameters of the Bayesian linear factor model, checked and frozen."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LinearFactorSpec(BaseModel):
    """What a `LinearFactor` is made of.

    Attributes
    ----------
    n_exposures : int or None
        Given exposures, the intercept not counted. None means as many as the panel has; the `fit`
        command fills it in.
    noise : {"gaussian", "student_t"}
        Law of the specific return, of one scale for all assets and dates.
    degrees_of_freedom : float
        Of Student-t noise, > 2.
    standardise : bool
        Whether exposures are standardised over the assets of each date.
    scale_floor : float
        Smallest scale, in units of the training return scale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_exposures: int | None = Field(default=None, ge=1)
    noise: Literal["gaussian", "student_t"] = "gaussian"
    degrees_of_freedom: float = Field(default=4.0, gt=2.0, le=200.0)
    standardise: bool = True
    scale_floor: float = Field(default=1e-3, gt=0.0, lt=1.0)

    @property
    def lags(self) -> int:
        """Dates in a window: exposures are those of the signal date."""
        return 1
