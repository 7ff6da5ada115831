"""The pricing network: a layer by factor, zero-mean mixture noise, ordered and floored scales."""

import pytest
import torch
from torch import Tensor

from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.nets.jets import SMOOTH
from nfi_pyro.nets.pricing import LOGIT_BOUND, FactorLayer, MixtureHead, Perceptron, PricingNetwork

ROWS, FACTORS, HIDDEN = 11, 3, 5
FLOOR = 0.05


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def wild_head(n_components: int, size: float) -> MixtureHead:
    """Return a head whose weights are large enough to reach its bounds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = MixtureHead(HIDDEN, n_components, scale_floor=FLOOR).double()
    with torch.no_grad():
        for place, parameter in enumerate(head.parameters()):
            parameter.copy_(size * normal(*parameter.shape, seed=place))
    return head


def network(n_components: int = 3, *, linear: bool = False, n_layers: int = 2) -> PricingNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return PricingNetwork(
            FACTORS,
            hidden_size=HIDDEN,
            n_layers=n_layers,
            n_components=n_components,
            activation="tanh",
            scale_floor=FLOOR,
            linear=linear,
        ).double()


def test_tokens_sum_to_the_layer_and_each_is_one_factors(seeded) -> None:
    with seeded(0):
        layer = FactorLayer(FACTORS, HIDDEN).double()
    beta = normal(2, ROWS, FACTORS, seed=1)
    tokens = layer.tokens(beta)
    assert tokens.shape == (2, ROWS, FACTORS, HIDDEN)
    torch.testing.assert_close(tokens.sum(-2) + layer.bias, layer(beta), rtol=1e-13, atol=1e-14)
    linear = torch.nn.functional.linear(beta, layer.weight.T, layer.bias)
    torch.testing.assert_close(layer(beta), linear, rtol=1e-13, atol=1e-14)
    moved = beta.clone()
    moved[..., 1] += 1.0
    changed = (layer.tokens(moved) != tokens).any(-1)
    assert changed[..., 1].all()
    assert not changed[..., [0, 2]].any()


@pytest.mark.parametrize("size", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("n_components", [1, 2, 5])
def test_mixture_noise_keeps_its_promises(n_components: int, size: float) -> None:
    mean = normal(ROWS, seed=20)
    with torch.no_grad():
        law = wild_head(n_components, size)(normal(ROWS, HIDDEN, seed=21), mean)
    weight = torch.softmax(law.logits, -1)
    reach = float((law.loc - mean.unsqueeze(-1)).abs().max()) + 1.0
    shift = (weight * (law.loc - mean.unsqueeze(-1))).sum(-1)
    assert float(shift.abs().max()) <= 1e-13 * reach
    steps = law.scale[..., 1:] / law.scale[..., :-1]  # of 1 where rounding leaves no more
    assert (steps > 1.0).all() if size < 30.0 else (steps >= 1.0).all()
    assert (law.scale >= FLOOR).all()
    assert (law.logits.abs() <= LOGIT_BOUND).all()
    assert law.logits.shape == law.loc.shape == law.scale.shape == (ROWS, n_components)
    if size == 30.0 and n_components > 1:  # the bounds are reached, not only kept
        assert float(law.logits.abs().max()) > 0.999 * LOGIT_BOUND
        assert float((law.loc - mean.unsqueeze(-1)).abs().max()) > 1.0
    if size == 30.0:
        assert float(law.scale[..., 0].min()) < 1.0001 * FLOOR


def test_one_component_has_no_weights_and_no_offsets() -> None:
    head = wild_head(1, 1.0)
    assert {name for name, _ in head.named_parameters()} == {"raw_scale.weight", "raw_scale.bias"}
    hidden, mean = normal(ROWS, HIDDEN, seed=1), normal(ROWS, seed=2)
    law = head(hidden, mean)
    assert torch.equal(law.loc.squeeze(-1), mean)
    want = torch.nn.functional.softplus(head.raw_scale(hidden)) + FLOOR
    torch.testing.assert_close(law.scale, want, rtol=0, atol=0)


def test_a_new_network_starts_near_the_training_scale() -> None:
    for n_components in (1, 3):
        law = network(n_components)(normal(101, FACTORS, seed=5))
        sd = MixtureOfNormals(*law, validate_args=False).variance.sqrt().detach()
        assert 0.5 < float(sd.min()) < float(sd.max()) < 2.5


@pytest.mark.parametrize("linear", [False, True])
def test_the_mean_of_the_law_is_alpha(linear: bool) -> None:
    net = network(linear=linear)
    with torch.no_grad():
        net.noise.offset.weight.mul_(30.0)
    beta = normal(ROWS, FACTORS, seed=6)
    law = MixtureOfNormals(*net(beta), validate_args=False)
    torch.testing.assert_close(law.mean, net.alpha(beta), rtol=1e-12, atol=1e-13)
    assert float((law.loc - law.mean.unsqueeze(-1)).detach().abs().max()) > 0.1


def test_the_linear_term_is_nested() -> None:
    net = network(linear=True).alpha
    beta, slope = normal(ROWS, FACTORS, seed=7), normal(FACTORS, seed=8)
    before = net(beta)
    assert net.slope is not None
    with torch.no_grad():
        net.slope.copy_(slope)
    torch.testing.assert_close(net(beta), before + beta @ slope, rtol=1e-12, atol=1e-13)
    assert network(linear=False).alpha.slope is None


def test_factor_norms_see_all_by_which_a_factor_enters() -> None:
    net = network(linear=True).alpha
    assert net.slope is not None
    with torch.no_grad():
        net.slope.copy_(torch.tensor([2.0, 0.0, 1.0]))
        net.first.weight[0].fill_(0.0)
        net.first.weight[1].fill_(0.0)
    norms = net.factor_norms()
    third = torch.sqrt(net.first.weight[2].square().sum() + 1.0)
    want = torch.stack([torch.tensor(2.0, dtype=torch.float64), torch.zeros_like(third), third])
    torch.testing.assert_close(norms, want, rtol=1e-12, atol=1e-5)
    beta = normal(ROWS, FACTORS, seed=9)
    moved = beta + torch.tensor([0.0, 5.0, 0.0])
    assert torch.equal(net(beta), net(moved))  # a norm of 0: the factor is not used


@pytest.mark.parametrize("activation", sorted(SMOOTH))
def test_depth_and_width_are_the_specs(activation: str) -> None:
    with torch.random.fork_rng(devices=[]):
        net = Perceptron(FACTORS, HIDDEN, 3, activation, linear=False).double()
    assert [tuple(w.shape) for w in net.weights()] == [
        (FACTORS, HIDDEN),
        (HIDDEN, HIDDEN),
        (HIDDEN, HIDDEN),
        (1, HIDDEN),
    ]
    beta = normal(ROWS, FACTORS, seed=1)
    hidden = beta
    for layer in (net.first, *net.deeper):
        hidden = SMOOTH[activation](layer(hidden))[0]
    torch.testing.assert_close(net.trunk(beta), hidden, rtol=0, atol=0)
    torch.testing.assert_close(net(beta), net.readout(hidden).squeeze(-1), rtol=0, atol=0)
