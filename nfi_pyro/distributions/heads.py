"""Last layers as random variables: hierarchical priors, and a guide over all of them at once."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.distributions import (
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    register_kl,
)
from torch.func import functional_call

from nfi_pyro.errors import SpecError

SITE = "heads"
Group = Literal["alpha", "beta", "price", "noise"]
Groups = Mapping[Group, tuple[str, ...]]


class HeadSpec(BaseModel):
    r"""Which posterior the last layers get, and their priors.

    Every weight of a group is ``w = centre + tau_g u`` with ``u ~ N(0, 1)``, and the group's scale
    is random too: ``tau_g = scale_g exp(t)`` with ``t ~ N(0, 1)``, so that ``scale_g`` is its
    median. Returns are in units of the training standard deviation.

    Attributes
    ----------
    kind : {"point", "low_rank", "full"}
        ``point``: last layers are weights like any other, without a prior. ``low_rank``: a normal
        guide with `rank` directions plus a diagonal. ``full``: a normal guide with a whole
        covariance, for up to about 1,000 weights.
    rank : int
        Directions of ``low_rank``.
    alpha_scale, beta_scale, price_scale, noise_scale : float
        Median of the group's scale: the mean of the specific return, exposures, the factors'
        prior (price and amount of risk), and the specific scale and mixture. The noise group is
        centred at the layers' first values, the others at 0.
    start_scale : float
        Standard deviation of the guide at the start, in units of u.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["point", "low_rank", "full"] = "point"
    rank: int = Field(default=20, ge=1)
    alpha_scale: float = Field(default=0.1, gt=0.0)
    beta_scale: float = Field(default=0.3, gt=0.0)
    price_scale: float = Field(default=0.1, gt=0.0)
    noise_scale: float = Field(default=0.3, gt=0.0)
    start_scale: float = Field(default=0.02, gt=0.0, le=1.0)

    @property
    def bayesian(self) -> bool:
        """Whether last layers have a posterior."""
        return self.kind != "point"

    def scale_of(self, group: Group) -> float:
        """Return the median scale of a group."""
        return float(getattr(self, f"{group}_scale"))


class HeadPosterior(nn.Module):
    r"""Prior and guide of a model's last layers as one vector of standard normal coordinates.

    The vector holds u of every weight and then t of every group (see `HeadSpec`): its prior is
    N(0, I), non-centred, so that weights and scales are learned together and the KL is closed form.
    The guide is one multivariate normal over all of it: last-layer inputs are correlated, and a
    mean-field guide would halve the spread of alpha's weights.

    While a model trains, `sample` sites of its Pyro model and guide draw the vector. Between
    steps `settle` puts the weights at the guide's location into the layers themselves, where any
    consumer finds them; they are no parameters any more.

    Parameters
    ----------
    owner : nn.Module
        The model; its layers named below lose their gradient.
    groups : mapping of group to names
        Parameter names as in the owner's ``state_dict``.
    spec : HeadSpec
        With a `kind` other than ``point``.
    """

    centre: Tensor

    def __init__(self, owner: nn.Module, groups: Groups, spec: HeadSpec) -> None:
        super().__init__()
        self.spec = spec
        self.groups = tuple(groups)
        layers = dict(owner.named_parameters())
        self.names = [name for names in groups.values() for name in names]
        self.shapes = [layers[name].shape for name in self.names]
        self.group_of = [place for place, names in enumerate(groups.values()) for _ in names]
        start, centre = [], []
        for name, place in zip(self.names, self.group_of, strict=True):
            value = layers[name].detach().clone()
            layers[name].requires_grad_(False)
            noise = self.groups[place] == "noise"
            centre.append((value if noise else torch.zeros_like(value)).flatten())
            own = torch.zeros_like(value) if noise else value / spec.scale_of(self.groups[place])
            start.append(own.flatten())
        self.register_buffer("centre", torch.cat(centre))
        loc = torch.cat([*start, torch.zeros(len(self.groups))])
        self.loc = nn.Parameter(loc)
        size = loc.shape[0]
        raw = math.log(math.expm1(spec.start_scale))
        if spec.kind == "low_rank":
            rank = min(spec.rank, size)
            self.factor = nn.Parameter(0.1 * spec.start_scale * torch.randn(size, rank))
            self.raw_diagonal = nn.Parameter(torch.full((size,), raw))
        else:
            self.factor = nn.Parameter(torch.zeros(size, size))
            self.raw_diagonal = nn.Parameter(torch.full((size,), raw))

    @property
    def size(self) -> int:
        """Number of coordinates: weights and group scales."""
        return self.loc.shape[0]

    def prior(self) -> dist.TorchDistribution:
        """Return N(0, I) over the coordinates."""
        zero = torch.zeros_like(self.loc)
        return dist.Normal(zero, torch.ones_like(zero), validate_args=False).to_event(1)

    def guide(self) -> dist.TorchDistribution:
        """Return the guide over the coordinates."""
        deviation = nn.functional.softplus(self.raw_diagonal)
        if self.spec.kind == "low_rank":
            return dist.LowRankMultivariateNormal(
                self.loc, self.factor, deviation.square(), validate_args=False
            )
        # The strict lower triangle in units of the diagonal, so that all entries learn alike.
        tril = (self.factor.tril(-1) + torch.eye(self.size).to(self.factor)) * deviation[:, None]
        return dist.MultivariateNormal(self.loc, scale_tril=tril, validate_args=False)

    def scales(self, value: Tensor) -> Tensor:
        """Return tau of each group, (..., group), from coordinates (..., coordinate)."""
        medians = [self.spec.scale_of(group) for group in self.groups]
        return value[..., -len(self.groups) :].exp() * value.new_tensor(medians)

    def weights(self, value: Tensor) -> dict[str, Tensor]:
        """Return the layers' weights by name from coordinates (coordinate,)."""
        scales, found, start = self.scales(value), {}, 0
        for name, shape, place in zip(self.names, self.shapes, self.group_of, strict=True):
            stop = start + shape.numel()
            own = self.centre[start:stop] + scales[place] * value[start:stop]
            found[name] = own.reshape(shape)
            start = stop
        return found

    @torch.no_grad()
    def settle(self, owner: nn.Module) -> None:
        """Put the weights at the guide's location into the owner's layers."""
        layers = dict(owner.named_parameters())
        for name, value in self.weights(self.loc).items():
            layers[name].copy_(value)

    @torch.no_grad()
    def draw(self, draws: int, *, seed: int) -> Tensor:
        """Return draws from the guide, (draw, coordinate); torch's own generator is not touched."""
        return _draw(self.guide(), draws, seed)

    @torch.no_grad()
    def draw_prior(self, draws: int, *, seed: int) -> Tensor:
        """Return draws from the prior, (draw, coordinate)."""
        return _draw(self.prior(), draws, seed)


def price_at_location(owner: nn.Module, heads: HeadPosterior | None, inputs: Any) -> Any:
    """Return what a model's last layers say of `inputs`, random ones at the guide's location.

    Random layers learn through their draws alone (`price_at_draw`): here they have no gradient.
    """
    if heads is None:
        return owner(inputs)
    if owner.training:
        heads.settle(owner)
    with torch.no_grad():
        return owner(inputs)


def price_at_draw(owner: nn.Module, heads: HeadPosterior | None, draw: Tensor, inputs: Any) -> Any:
    """Return what a model's last layers say of `inputs` at a draw of them.

    Parameters
    ----------
    owner : nn.Module
        Its `forward` is everything from the last layers on.
    heads : HeadPosterior or None
    draw : Tensor, shape (coordinate,)
    inputs
        Of `forward`.

    Raises
    ------
    SpecError
        If the last layers are point estimates: no draw of them exists.
    """
    if heads is None:
        raise SpecError(
            "a draw of last layers must be of random ones; got point estimates. Leave the draw "
            'out, or set spec.heads.kind to "low_rank".'
        )
    return functional_call(owner, heads.weights(draw), (inputs,))


def _draw(law: dist.TorchDistribution, draws: int, seed: int) -> Tensor:
    """Return seeded draws of a law."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return law.sample(torch.Size([draws]))


def _require_standard(prior: Independent) -> None:
    """Refuse a prior for which the closed forms below are not."""
    if not isinstance(prior.base_dist, Normal) or prior.reinterpreted_batch_ndims != 1:
        raise NotImplementedError


@register_kl(LowRankMultivariateNormal, Independent)
def _low_rank_kl(guide: LowRankMultivariateNormal, prior: Independent) -> Tensor:
    """Return KL(low rank || independent normal) without a matrix of all coordinates."""
    _require_standard(prior)
    loc, scale = prior.base_dist.loc, prior.base_dist.scale
    factor = guide.cov_factor / scale.unsqueeze(-1)
    diagonal = guide.cov_diag / scale.square()
    squares = factor.square().sum((-1, -2)) + diagonal.sum(-1)
    surprise = ((guide.loc - loc) / scale).square().sum(-1)
    scaled = factor / diagonal.unsqueeze(-1)
    inner = torch.eye(factor.shape[-1]).to(factor) + factor.mT @ scaled
    log_determinant = torch.logdet(inner) + diagonal.log().sum(-1)
    return 0.5 * (squares + surprise - log_determinant - loc.shape[-1])


@register_kl(MultivariateNormal, Independent)
def _full_kl(guide: MultivariateNormal, prior: Independent) -> Tensor:
    """Return KL(normal || independent normal) from the guide's triangular root."""
    _require_standard(prior)
    loc, scale = prior.base_dist.loc, prior.base_dist.scale
    root = guide.scale_tril / scale.unsqueeze(-1)
    surprise = ((guide.loc - loc) / scale).square().sum(-1)
    log_determinant = 2.0 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (root.square().sum((-1, -2)) + surprise - log_determinant - loc.shape[-1])
