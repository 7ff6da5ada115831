"""Hyper-parameters of the joint model, checked and frozen."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from nfi_pyro.distributions.heads import HeadSpec
from nfi_pyro.nets.penalty import Penalty


class NFISpec(BaseModel):
    """What an `NFI` is made of.

    Attributes
    ----------
    n_features : int or None
        C. None means as many as the panel has; the `fit` command fills it in.
    lags : int
        T, dates in a window, the signal date included.
    projection_size, hidden_size : int
        Widths of the projection and of the GRU (H).
    n_factors : int
        K, learned exposures of an asset and latent factors of a date.
    n_portfolios : int
        M, portfolios of the encoder.
    prior_hidden_size : int
        Hidden width of the prior's distribution network.
    n_components : int
        Of the mixture noise.
    pricing_size, pricing_layers : int
        Width of the pricing network, and depth of alpha's part of it.
    activation : {"tanh", "silu", "softplus"}
        Of the pricing network; smooth, or there is no Hessian.
    negative_slope : float
        Of LeakyReLU in the extractor and the prior's network.
    scale_floor : float
        Smallest standard deviation of prior and guide, in units of the training return scale.
    noise_floor : float
        Smallest scale of a component, in the same units: a mixture likelihood is unbounded as a
        scale goes to 0.
    variant : {"posterior", "encoder"}
        What the guide is. ``posterior``: none is learned; z gets the Gaussian posterior of the
        model itself, full covariance, by coordinate ascent (see
        `nfi_pyro.distributions.mixture_posterior`). ``encoder``: FactorVAE's portfolios of
        returns, diagonal. The forecast path is the same.
    penalty : Penalty
        On alpha.
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
    prior_hidden_size: int = Field(default=64, ge=1)
    n_components: int = Field(default=3, ge=1)
    pricing_size: int = Field(default=32, ge=1)
    pricing_layers: int = Field(default=2, ge=1)
    activation: Literal["tanh", "silu", "softplus"] = "tanh"
    negative_slope: float = Field(default=0.01, ge=0.0, lt=1.0)
    scale_floor: float = Field(default=1e-3, gt=0.0, lt=1.0)
    noise_floor: float = Field(default=0.05, gt=0.0, lt=1.0)
    variant: Literal["posterior", "encoder"] = "posterior"
    penalty: Penalty = Penalty()
    heads: HeadSpec = HeadSpec()
