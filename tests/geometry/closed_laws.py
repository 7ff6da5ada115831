"""Pricing laws whose geometry is known in closed form, and small networks."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nfi_pyro.distributions.law_jets import LawJets
from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.nets.pricing import PricingNetwork
from nfi_pyro.posterior import PricingLaw

Law = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
ROOT2 = math.sqrt(2.0)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draws(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class NormalLaw:
    """The normal family, a hyperbolic half-plane: exposures are mean and (log) sd; own jets."""

    def __init__(self, *, log: bool) -> None:
        self.log = log

    def __call__(self, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_scale = beta[..., 1:] if self.log else beta[..., 1:].log()
        return torch.zeros_like(log_scale), beta[..., :1], log_scale

    def jets(self, beta: Tensor, order: int) -> LawJets:
        value = torch.stack(self(beta), dim=-2)
        first = beta.new_zeros(*value.shape, 2)
        first[..., 1, 0, 0] = 1.0
        first[..., 2, 0, 1] = 1.0 if self.log else 1.0 / beta[..., 1]
        if order == 1:
            return LawJets(value, first, None)
        second = beta.new_zeros(*value.shape, 2, 2)
        if not self.log:
            second[..., 2, 0, 1, 1] = -1.0 / beta[..., 1].square()
        return LawJets(value, first, second)


normal_law, log_normal_law = NormalLaw(log=False), NormalLaw(log=True)


def half_plane_distance(x: Tensor, y: Tensor) -> Tensor:
    """Fisher distance of normal laws (..., 2) given by mean and standard deviation."""
    gap = (x[..., 0] - y[..., 0]) ** 2 / 2.0 + (x[..., 1] - y[..., 1]) ** 2
    return ROOT2 * torch.acosh(1.0 + gap / (2.0 * x[..., 1] * y[..., 1]))


def half_plane_exp(x: Tensor, velocity: Tensor) -> Tensor:
    """End of the geodesic from (mean, sd) = x (..., 2), in the upper half-plane's own formula."""
    u, s = x[..., 0] / ROOT2, x[..., 1]
    du, ds = velocity[..., 0] / ROOT2, velocity[..., 1]
    speed = (du.square() + ds.square()).sqrt() / s
    angle = torch.atan2(ds, du)
    # From (0, 1): (sinh a cos, 1) / (cosh a - sinh a sin), a the hyperbolic length.
    below = torch.cosh(speed) - torch.sinh(speed) * torch.sin(angle)
    end = torch.stack([u + s * torch.sinh(speed) * torch.cos(angle) / below, s / below], dim=-1)
    return end * torch.tensor([ROOT2, 1.0], dtype=x.dtype)


def single_component(n_factors: int, seed: int = 0) -> Law:
    """A network of one component: its image is the half-plane whatever the number of factors."""
    first, second = draws(6, n_factors, seed=seed), draws(2, 6, seed=seed + 1)

    def law(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = torch.tanh(beta @ first.T / n_factors**0.5) @ second.T / 2.0
        return torch.zeros_like(out[..., :1]), out[..., :1], 0.5 * out[..., 1:]

    return law


def simplex_law(n_components: int, separation: float = 20.0) -> Law:
    """Far unit components whose weights move: a sphere of radius 2 in the limit."""
    loc = separation * torch.arange(n_components, dtype=torch.float64)

    def law(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = torch.cat([beta, torch.zeros_like(beta[..., :1])], dim=-1)
        return logits, loc.expand_as(logits), torch.zeros_like(logits)

    return law


def two_bells(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two far components of fixed weights; exposures are loc and log scale of each."""
    logits = tensor(0.3, 0.7).log().expand(*beta.shape[:-1], 2)
    return logits, torch.stack([beta[..., 0], 60.0 + beta[..., 2]], -1), beta[..., [1, 3]]


def two_locations(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The locations of two far components: flat."""
    logits = tensor(0.3, 0.7).log().expand(*beta.shape[:-1], 2)
    loc = torch.stack([beta[..., 0], 60.0 + beta[..., 1]], -1)
    return logits, loc, torch.zeros_like(loc)


def location_scale(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Location and log scale of one symmetric mixture."""
    unit_loc, unit_scale = tensor(-1.0, 0.0, 1.0), tensor(0.5, 1.5, 0.5)
    logits = tensor(0.3, 0.4, 0.3).log().expand(*beta.shape[:-1], 3)
    loc = beta[..., :1] + beta[..., 1:].exp() * unit_loc
    return logits, loc, beta[..., 1:] + unit_scale.log()


def network_law(n_factors: int, n_components: int, seed: int = 3) -> Law:
    """A smooth network of everything, in plain functions: no jets of its own."""
    first = draws(8, n_factors, seed=seed)
    second = draws(3 * n_components, 8, seed=seed + 1)

    def law(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = torch.tanh(0.5 * beta @ first.T / n_factors**0.5) @ second.T / 8**0.5
        logits, loc, log_scale = out.unflatten(-1, (3, n_components)).unbind(-2)
        return logits, loc, 0.4 * log_scale

    return law


def pricing_law(n_factors: int, n_components: int, rows: int = 40, seed: int = 3) -> PricingLaw:
    """The law of one date of a random nfi-like network, with jets and exposures of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = PricingNetwork(
            n_factors,
            hidden_size=8,
            n_layers=2,
            n_components=n_components,
            activation="tanh",
            scale_floor=0.05,
            linear=False,
        ).double()
        with torch.no_grad():
            for layer in (net.alpha.readout, *net.noise.children()):
                assert isinstance(layer, torch.nn.Linear)
                layer.weight.normal_(0.0, 0.3)
    net.requires_grad_(False)
    loc, scale = 0.2 * draws(n_factors, seed=1), 0.3 * draws(n_factors, seed=2).exp()
    function = PricingFunction(net, net.alpha.jet, loc, scale, "exposures", net.jets)
    assets = np.array([f"A{place}" for place in range(rows)])
    names = tuple(f"z{place}" for place in range(n_factors))
    beta = draws(rows, n_factors, seed=4)
    return PricingLaw(function, 0.02, beta, assets, names, np.datetime64("2024-01-02", "ns"))


def without_jets(law: PricingLaw) -> Law:
    """The same law as a plain function, differentiated by torch.func."""
    return lambda beta: law(beta)
