"""A variational autoencoder of feature rows: one Pyro model and guide, smooth throughout."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import pyro
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pyro import poutine
from pyro.distributions import Normal
from torch import Tensor, nn

from nfi_pyro.distributions.factor_mixture import independent_normal
from nfi_pyro.errors import SpecError

Activation = Literal["tanh", "silu", "softplus"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
}


class VAESpec(BaseModel):
    """What a `VAE` is made of.

    Attributes
    ----------
    n_features : int or None
        None means as many as the features have; `fit_vae` fills it in.
    n_factors : int
        Latents.
    hidden_sizes : tuple of int
        Widths of the encoder's hidden layers; the decoder has the same in reverse.
    activation : {"tanh", "silu", "softplus"}
        Smooth on purpose: exposures are differentiated later, and a ReLU has no second
        derivative.
    decoder : {"mlp", "linear"}
        ``linear`` with a fixed noise scale spans the subspace of probabilistic PCA.
    noise_scale : float or None
        Standard deviation of the noise of every feature, in its units; None learns one for each.
    scale_floor : float
        Smallest standard deviation of noise and posterior.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_features: int | None = Field(default=None, ge=1)
    n_factors: int = Field(default=8, ge=1)
    hidden_sizes: tuple[int, ...] = (64,)
    activation: Activation = "silu"
    decoder: Literal["mlp", "linear"] = "mlp"
    noise_scale: float | None = Field(default=None, gt=0.0)
    scale_floor: float = Field(default=1e-3, gt=0.0, lt=1.0)

    @field_validator("hidden_sizes")
    @classmethod
    def _positive(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"hidden_sizes must be positive and at least one; got {sizes}")
        return sizes


@dataclass(frozen=True)
class VAEContext:
    """Rows and what the encoder says about them.

    Attributes
    ----------
    values : Tensor, shape (row, feature)
        Finite everywhere; 0 where not observed.
    observed : Tensor of bool, shape (row, feature)
    loc, scale : Tensor, shape (row, factor)
        Of the guide's Gaussian.
    """

    values: Tensor
    observed: Tensor
    loc: Tensor
    scale: Tensor


class VAE(nn.Module):
    r"""``z ~ N(0, I)``, ``x ~ N(decoder(z), noise^2)``, and an amortised Gaussian guide.

    Encoder and decoder are a linear map plus a multilayer perceptron, so that probabilistic PCA
    is the special case in which the perceptrons vanish. Missing entries are masked in the
    likelihood; the encoder gets zeros there and, beside the values, which entries it has.

    Parameters
    ----------
    spec : VAESpec
        With `n_features` given.
    seed : int
        Of the initial weights; the global generator is left as it was.

    Raises
    ------
    SpecError
        If ``spec.n_features`` is None.

    References
    ----------
    .. [1] Kingma, Welling (2014). Auto-Encoding Variational Bayes. ICLR.
    """

    def __init__(self, spec: VAESpec, *, seed: int = 0) -> None:
        super().__init__()
        if spec.n_features is None:
            raise SpecError(
                "spec.n_features must be the number of features; got None. Set it, or let fit_vae "
                "fill it in."
            )
        self.spec = spec
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(spec, spec.n_features)

    def _build(self, spec: VAESpec, n_features: int) -> None:
        """Create the networks."""
        n_inputs, n_factors = 2 * n_features, spec.n_factors
        self.encoder_line = nn.Linear(n_inputs, n_factors)
        self.encoder_net = _perceptron(
            (n_inputs, *spec.hidden_sizes, 2 * n_factors), spec.activation
        )
        self.decoder_line = nn.Linear(n_factors, n_features)
        self.decoder_net: nn.Sequential | None = None
        if spec.decoder == "mlp":
            sizes = (n_factors, *reversed(spec.hidden_sizes), n_features)
            self.decoder_net = _perceptron(sizes, spec.activation)
        if spec.noise_scale is None:
            self.raw_noise = nn.Parameter(torch.zeros(n_features))

    @property
    def noise_scale(self) -> Tensor:
        """Standard deviation of the noise, shape (feature,)."""
        if self.spec.noise_scale is None:
            return nn.functional.softplus(self.raw_noise) + self.spec.scale_floor
        weight = self.decoder_line.weight
        return weight.new_full((weight.shape[0],), self.spec.noise_scale)

    def context(self, values: Tensor) -> VAEContext:
        """Return what the encoder says about rows (row, feature), NaN = missing; runs it once."""
        observed = ~values.isnan()
        finite = torch.where(observed, values, 0.0)
        inputs = torch.cat([finite, observed.to(finite.dtype)], dim=-1)
        shift, raw_scale = self.encoder_net(inputs).chunk(2, dim=-1)
        scale = nn.functional.softplus(raw_scale) + self.spec.scale_floor
        return VAEContext(finite, observed, self.encoder_line(inputs) + shift, scale)

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean of the features, (..., feature), from latents (..., factor)."""
        line = self.decoder_line(z)
        return line if self.decoder_net is None else line + self.decoder_net(z)

    def model(self, context: VAEContext) -> None:
        """Pyro model: sites ``z`` and ``features`` in plates ``row`` and ``feature``."""
        n_rows, n_features = context.values.shape
        prior_loc = torch.zeros_like(context.loc).unsqueeze(-2)
        with pyro.plate("row", n_rows, dim=-2):
            z = pyro.sample("z", independent_normal(prior_loc, torch.ones_like(prior_loc)))
            loc = self.decode(z).squeeze(-2)
            with pyro.plate("feature", n_features, dim=-1), poutine.mask(mask=context.observed):  # type: ignore[call-overload]
                pyro.sample("features", Normal(loc, self.noise_scale), obs=context.values)

    def guide(self, context: VAEContext) -> None:
        """Pyro guide: z from the encoder."""
        with pyro.plate("row", len(context.values), dim=-2):
            pyro.sample(
                "z", independent_normal(context.loc.unsqueeze(-2), context.scale.unsqueeze(-2))
            )

    def log_evidence(self, context: VAEContext, draws: int) -> Tensor:
        r"""Return the importance-weighted bound on ``log p(x)`` of each row, shape (row,).

        ``log (1/S) sum_s p(x|z_s) p(z_s) / q(z_s|x)`` with S draws from the guide (Burda, Grosse
        and Salakhutdinov 2016). Draws from torch's global generator.
        """
        noise = torch.randn((draws, *context.loc.shape), dtype=context.loc.dtype)
        z = context.loc + context.scale * noise  # (draw, row, factor)
        scale = self.noise_scale
        error = (context.values - self.decode(z)) / scale
        cells = -0.5 * error.square() - scale.log() - 0.5 * math.log(2.0 * math.pi)
        log_weight = torch.where(context.observed, cells, 0.0).sum(-1)
        log_weight = log_weight + (0.5 * (noise.square() - z.square())).sum(-1)
        log_weight = log_weight + context.scale.log().sum(-1)
        return torch.logsumexp(log_weight, dim=0) - math.log(draws)


def _perceptron(sizes: tuple[int, ...], activation: str) -> nn.Sequential:
    """Return linear layers of these widths with activations between; the last one starts at 0."""
    layers: list[nn.Module] = []
    for width, after in pairwise(sizes):
        layers += [nn.Linear(width, after), _ACTIVATIONS[activation]()]
    last = layers[-2]
    if isinstance(last, nn.Linear):
        nn.init.zeros_(last.weight)  # so that training starts at the linear map
        nn.init.zeros_(last.bias)
    return nn.Sequential(*layers[:-1])
