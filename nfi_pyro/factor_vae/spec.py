"""Hyper-parameters of FactorVAE, checked and frozen."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nfi_pyro.distributions.heads import HeadSpec

Variant = Literal["full", "prior", "port"]


class FactorVAESpec(BaseModel):
    """What a FactorVAE is made of. The paper publishes T = 20 and no width.

    Attributes
    ----------
    n_features : int or None
        C. None means as many as the panel has; the `fit` command fills it in.
    lags : int
        T, dates in a window, the signal date included.
    projection_size, hidden_size : int
        Widths of the projection and of the GRU (H).
    n_factors : int
        K.
    n_portfolios : int
        M, portfolios of the encoder.
    alpha_hidden_size, prior_hidden_size : int
        Hidden widths of the alpha layer and of the prior's distribution network.
    variant : {"full", "prior", "port"}
        ``full`` is the paper's model. ``prior`` (FactorVAE-prior) has no encoder and maximises
        the exact evidence under the prior factors. ``port`` (FactorVAE-port) replaces the
        portfolio layer by least squares on the hidden states.
    negative_slope : float
        Of LeakyReLU.
    scale_floor : float
        Smallest standard deviation of any site, in units of the training return scale.
    heads : HeadSpec
        Whether the last layers have a posterior, and their priors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_features: int | None = Field(default=None, ge=1)
    lags: int = Field(default=20, ge=1)
    projection_size: int = Field(default=64, ge=1)
    hidden_size: int = Field(default=64, ge=1)
    n_factors: int = Field(default=16, ge=1)
    n_portfolios: int = Field(default=64, ge=1)
    alpha_hidden_size: int = Field(default=64, ge=1)
    prior_hidden_size: int = Field(default=64, ge=1)
    variant: Variant = "full"
    negative_slope: float = Field(default=0.01, ge=0.0, lt=1.0)
    scale_floor: float = Field(default=1e-3, gt=0.0, lt=1.0)
    heads: HeadSpec = HeadSpec()
