"""Closed-form derivatives of a pricing network's parameters against torch.func."""

import pytest
import torch
from torch import Tensor
from torch.func import jacrev, vmap

from nfi_pyro.nets.jets import SMOOTH
from nfi_pyro.nets.noise import ConstantNoise
from nfi_pyro.nets.pricing import Perceptron, PricingNetwork

ROWS, FACTORS, HIDDEN = 7, 3, 5


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def network(n_components: int, activation: str, *, linear: bool) -> PricingNetwork:
    """Return a network whose every parameter moves."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = PricingNetwork(
            FACTORS,
            hidden_size=HIDDEN,
            n_layers=2,
            n_components=n_components,
            activation=activation,
            scale_floor=0.05,
            linear=linear,
        ).double()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.normal_(0.0, 0.7)
    return net.requires_grad_(False)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("n_components", [1, 2, 4])
@pytest.mark.parametrize("activation", sorted(SMOOTH))
def test_jets_of_a_network(activation: str, n_components: int, linear: bool) -> None:
    net, beta = network(n_components, activation, linear=linear), normal(ROWS, FACTORS, seed=1)

    def stacked(point: Tensor) -> Tensor:
        logits, loc, scale = net(point)
        return torch.stack([logits, loc, scale.log()], dim=-2)

    value, first, second = net.jets(beta, 2)
    torch.testing.assert_close(value, stacked(beta), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(first, vmap(jacrev(stacked))(beta), rtol=1e-10, atol=1e-12)
    want = vmap(jacrev(jacrev(stacked)))(beta)
    torch.testing.assert_close(second, want, rtol=1e-9, atol=1e-11)
    assert second is not None
    torch.testing.assert_close(second, second.mT, rtol=1e-12, atol=1e-13)
    if n_components > 1:
        assert (second.flatten(2).abs().amax((0, 2)) > 1e-4).all()
    again, slope, none = net.jets(beta, 1)
    assert none is None
    torch.testing.assert_close(again, value, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(slope, first, rtol=1e-12, atol=1e-14)


def test_jets_of_constant_noise_are_those_of_its_mean() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean = Perceptron(FACTORS, HIDDEN, 2, "silu", linear=True).double()
    noise = ConstantNoise([0.3, 0.7], [2.0, 1.0], scale_floor=0.05).double()
    beta = normal(ROWS, FACTORS, seed=1)
    value, first, second = noise.jets(mean.vector_jet(beta, 2))
    logits, loc, scale = noise(mean(beta))
    torch.testing.assert_close(value, torch.stack([logits, loc, scale.log()], dim=-2))
    jet = mean.jet(beta)
    assert second is not None
    for component in range(2):
        torch.testing.assert_close(first[:, 1, component], jet.gradient, rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(second[:, 1, component], jet.hessian, rtol=1e-13, atol=1e-14)
    assert (first[:, [0, 2]] == 0).all()
    assert (second[:, [0, 2]] == 0).all()
