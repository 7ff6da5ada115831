"""The error of the expected log-likelihood as a function of the ratio that sets it."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from nfi_pyro.distributions import FactorMixture, FactorReturn
from nfi_pyro.distributions.quadrature import equal, hermite, node_count, resolution_ratio
from nfi_pyro.errors import SpecError

LAWS = 601
DENSE = 4001


def cases(gap: float = 1.0) -> tuple[FactorMixture, Tensor]:
    """Return laws whose narrowest scale is 1 and whose factor is one, and returns."""
    rng = np.random.default_rng(0)
    scale = np.exp(rng.uniform(0, np.log(6), (1, LAWS, 3)))
    scale /= scale.min(-1, keepdims=True)
    logits, loc = rng.normal(size=scale.shape), gap * rng.uniform(-1, 1, scale.shape)
    one = torch.ones(1, 1, dtype=torch.float64)
    weights, centre, own = (torch.from_numpy(a) for a in (logits, loc, scale))
    law = FactorMixture(weights, centre, own, one.expand(1, LAWS, 1), one, one)
    return law, torch.from_numpy(3.0 * rng.normal(size=(1, LAWS)))


def factors(ratio: float) -> Independent:
    loc = torch.zeros(1, 1, dtype=torch.float64)
    return Independent(Normal(loc, torch.full_like(loc, ratio)), 1)


def truth(law: FactorMixture, value: Tensor, ratio: float) -> Tensor:
    """Return the expectation by a rule far finer than any used, (1, law)."""
    nodes = torch.linspace(-9.0, 9.0, DENSE, dtype=torch.float64)
    weights = torch.softmax(-0.5 * nodes.square(), 0)
    given = [law.given(ratio * node.view(1, 1)).log_prob(value) for node in nodes]
    return torch.einsum("n,nda->da", weights, torch.stack(given))


def worst(law: FactorMixture, value: Tensor, ratio: float, n_nodes: int | str) -> float:
    got = law.expected_log_prob(value, factors(ratio), n_nodes)
    return float((got - truth(law, value, ratio)).abs().max())


@pytest.mark.parametrize(
    ("ratio", "seven", "sixty_three"),
    [(0.5, 2e-4, 1e-12), (2.0, 0.1, 3e-4), (5.0, 0.8, 0.03)],
)
def test_the_error_grows_with_the_ratio_and_automatic_nodes_hold_it(
    ratio: float, seven: float, sixty_three: float
) -> None:
    law, value = cases()
    exact = truth(law, value, ratio)
    errors = {
        n: float((law.expected_log_prob(value, factors(ratio), n) - exact).abs().max())
        for n in (7, 63, "auto")
    }
    assert 0.1 * seven < errors[7] < seven
    assert errors[63] < sixty_three
    assert errors["auto"] < 1e-4
    assert node_count(ratio) <= max(13, 20 * ratio + 1)


def test_components_far_apart_count_as_a_wider_ratio() -> None:
    law, value = cases(gap=5.0)
    deviation = torch.full((1, LAWS), 2.0, dtype=torch.float64)
    ratio = resolution_ratio(law.loc, law.scale, deviation)
    spread = (law.loc.amax(-1) - law.loc.amin(-1)) / 3.0
    torch.testing.assert_close(ratio, 2.0 * spread.clamp(min=1.0))
    assert worst(law, value, 2.0, "auto") < 1e-4
    assert worst(law, value, 2.0, 63) > 1e-3


def test_rules_integrate_what_they_should() -> None:
    for nodes, weights in (hermite(7), equal(13), equal(61)):
        assert weights.sum() == pytest.approx(1.0, abs=1e-14)
        assert (weights * nodes**2).sum() == pytest.approx(1.0, abs=2e-6)
        assert (weights * nodes**4).sum() == pytest.approx(3.0, abs=1e-4)
    assert node_count(0.1) == 13
    assert node_count(3.0) == 61


def test_the_site_passes_its_nodes_on() -> None:
    law, value = cases()
    q, z = factors(2.0), torch.zeros(1, 1, dtype=torch.float64)
    for n_nodes in (7, 21, "auto"):
        got = FactorReturn(law, z, n_nodes=n_nodes).expected_log_prob(value, q)
        assert torch.equal(got, law.expected_log_prob(value, q, n_nodes))
    assert torch.equal(
        FactorReturn(law, z).expected_log_prob(value, q), law.expected_log_prob(value, q, 7)
    )


@pytest.mark.parametrize("n_nodes", [0, -3, 182, 7.0, True, "many"])
def test_node_numbers_that_are_none_are_refused(n_nodes: object) -> None:
    law, value = cases()
    with pytest.raises(SpecError, match="n_nodes must be a whole number from 1 to 181 or 'auto'"):
        law.expected_log_prob(value, factors(1.0), n_nodes)  # type: ignore[arg-type]


def test_automatic_nodes_refuse_what_no_number_of_them_would_do() -> None:
    law, value = cases()
    with pytest.raises(SpecError, match="must be at most 2001; got 20001 for factors 1e"):
        law.expected_log_prob(value, factors(1000.0), "auto")
    law.scale = 0.0 * law.scale
    with pytest.raises(SpecError, match="ratio that sets the nodes must be finite; got inf"):
        law.expected_log_prob(value, factors(1.0), "auto")
