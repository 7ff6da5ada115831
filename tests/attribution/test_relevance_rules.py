"""Rules of relevance propagation: by hand, conservation, limits, and captum's rules."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from nfi_pyro.attribution.networks.relevance_rules import (
    RelevanceRule,
    Term,
    share_activation,
    share_affine,
    share_linear,
)

TINY = 1e-13


def draw(*shape: int, seed: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def tensor(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_each_rule_by_hand() -> None:
    """Contributions 2, -1 and bias 1 of z = 2; -3, 1 and bias 0 of z = -2."""
    inputs, weight, bias = tensor(1.0, -1.0), tensor([2.0, 1.0], [-3.0, -1.0]), tensor(1.0, 0.0)
    relevance = tensor(4.0, -6.0)
    expected = {
        "epsilon": (tensor(4.0 - 9.0, -2.0 + 3.0), tensor(2.0, 0.0)),
        # z = 2 + 3 and -2 - 3; what has the sign of z counts twice
        "gamma": (tensor(16 / 5 - 36 / 5, -4 / 5 + 6 / 5), tensor(8 / 5, 0.0)),
        "z_plus": (tensor(8 / 3 - 6.0, 0.0), tensor(4 / 3, 0.0)),
    }
    for kind, (want, want_bias) in expected.items():
        rule = RelevanceRule(kind=kind, epsilon=TINY, gamma=1.0)  # type: ignore[arg-type]
        (found,), own = share_affine(rule, (Term(inputs, weight),), bias, relevance)
        torch.testing.assert_close(found, want, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(own, want_bias, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ["epsilon", "gamma", "z_plus"])
def test_nothing_is_lost_with_gates_and_several_terms(kind: Any) -> None:
    rule = RelevanceRule(kind=kind, epsilon=TINY)
    gate = torch.sigmoid(draw(13, 5, seed=3))
    terms = (Term(draw(13, 7), draw(5, 7, seed=2)), Term(draw(13, 3, seed=4), draw(5, 3), gate))
    relevance = draw(13, 5, seed=6)
    parts, own = share_affine(rule, terms, draw(5, seed=7), relevance)
    total = sum(part.sum(-1) for part in parts) + own.sum(-1)
    torch.testing.assert_close(total, relevance.sum(-1), rtol=1e-9, atol=1e-9)
    # A gate is a constant: it is the same as a weight that has it in it, row by row.
    row = 4
    merged = (
        Term(terms[0].inputs[row], terms[0].weight),
        Term(terms[1].inputs[row], gate[row, :, None] * terms[1].weight),
    )
    alone, _ = share_affine(rule, merged, draw(5, seed=7), relevance[row])
    for one, two in zip(alone, parts, strict=True):
        torch.testing.assert_close(one, two[row], rtol=1e-8, atol=1e-9)


def test_what_the_stabiliser_absorbs_is_what_it_says() -> None:
    inputs, weight, relevance = draw(3), draw(5, 3, seed=2), draw(5, seed=3)
    output = weight @ inputs
    (found,), _ = share_affine(RelevanceRule(epsilon=0.1), (Term(inputs, weight),), None, relevance)
    level = 0.1 * output.abs().max()
    absorbed = (level / (output.abs() + level) * relevance).sum()
    torch.testing.assert_close(found.sum() + absorbed, relevance.sum(), rtol=1e-12, atol=1e-13)


def test_z_plus_is_gamma_without_bound() -> None:
    terms, relevance = (Term(draw(7, 3), draw(5, 3, seed=2)),), draw(7, 5, seed=3)
    bias = draw(5, seed=4)
    one = share_affine(RelevanceRule(kind="z_plus", epsilon=TINY), terms, bias, relevance)
    two = share_affine(RelevanceRule(kind="gamma", gamma=1e9, epsilon=TINY), terms, bias, relevance)
    torch.testing.assert_close(two[0][0], one[0][0], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(two[1], one[1], rtol=1e-6, atol=1e-7)


def test_a_layer_of_zeros_has_nothing_to_share() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    for kind in ("epsilon", "gamma", "z_plus"):
        rule = RelevanceRule(kind=kind)
        (found,), own = share_affine(rule, (Term(zero, draw(5, 3)),), None, torch.ones(5).double())
        assert float(found.abs().sum() + own.abs().sum()) == 0.0


def test_what_an_activation_makes_of_nothing_is_a_bias() -> None:
    before = draw(17)
    after, relevance = nn.functional.softplus(before), draw(17, seed=3)
    found, kept = share_activation(after, float(torch.log(tensor(2.0))), relevance)
    torch.testing.assert_close(found + kept, relevance, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(kept, relevance * 0.6931471805599453 / after, rtol=1e-12, atol=0)
    found, kept = share_activation(torch.tanh(before), 0.0, relevance)
    assert torch.equal(found, relevance)
    assert float(kept.abs().sum()) == 0.0


@pytest.mark.parametrize("kind", ["epsilon", "gamma", "z_plus"])
def test_captum_has_the_same_rules_behind_relu(kind: Any) -> None:
    """Without biases and with inputs and outputs above 0, where its rules are these."""
    captum = pytest.importorskip("captum.attr")
    rules = pytest.importorskip("captum.attr._utils.lrp_rules")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        sizes = ((7, 11), (11, 5), (5, 1))
        one, two, three = (nn.Linear(*size, bias=False).double() for size in sizes)
    with torch.no_grad():
        three.weight.abs_()
    inputs = draw(13, 7).abs().requires_grad_()
    made: dict[str, Any] = {
        "epsilon": lambda: rules.EpsilonRule(1e-12),
        "gamma": lambda: rules.GammaRule(gamma=0.25),
        "z_plus": rules.Alpha1_Beta0_Rule,
    }
    for layer in (one, two, three):
        layer.rule = made[kind]()
    net = nn.Sequential(one, nn.ReLU(), two, nn.ReLU(), three)
    expected = captum.LRP(net).attribute(inputs).detach()
    rule = RelevanceRule(kind=kind, epsilon=TINY, gamma=0.25)
    with torch.no_grad():
        first = torch.relu(one(inputs))
        second = torch.relu(two(first))
        back = _share(rule, second, three, three(second))
        found = _share(rule, inputs, one, _share(rule, first, two, back))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def _share(rule: RelevanceRule, inputs: Tensor, layer: nn.Linear, relevance: Tensor) -> Tensor:
    (found,), _ = share_affine(rule, (Term(inputs, layer.weight),), None, relevance)
    return found


def test_captum_has_the_same_epsilon_rule_with_biases_and_tanh() -> None:
    captum = pytest.importorskip("captum.attr")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = nn.Sequential(nn.Linear(7, 11), nn.Tanh(), nn.Linear(11, 1)).double()
    inputs = draw(13, 7).requires_grad_()
    expected = captum.LRP(net).attribute(inputs).detach()
    rule = RelevanceRule(epsilon=TINY)
    with torch.no_grad():
        hidden = net[1](net[0](inputs))
        back, last = share_linear(rule, hidden, net[2], net[2](hidden))  # type: ignore[arg-type]
        found, first = share_linear(rule, inputs, net[0], back)  # type: ignore[arg-type]
        total = found.sum(-1) + last.sum(-1) + first.sum(-1)
        torch.testing.assert_close(total, net(inputs).squeeze(-1), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_rules_out_of_range_are_refused() -> None:
    with pytest.raises(ValidationError, match="Input should be 'epsilon', 'gamma' or 'z_plus'"):
        RelevanceRule(kind="alpha_beta")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="greater than 0"):
        RelevanceRule(epsilon=0.0)
    with pytest.raises(ValidationError, match="greater than 0"):
        RelevanceRule(kind="gamma", gamma=-1.0)
    assert RelevanceRule(kind="gamma").describe() == (
        "gamma, gamma 0.25, stabiliser 1e-06 of the largest output"
    )
