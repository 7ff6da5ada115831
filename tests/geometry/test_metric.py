"""The Fisher metric: closed forms, plain autodiff on the same nodes, invariances, rank."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import jacobian
from torch.func import jacfwd, jacrev

from nfi_pyro.distributions.law_jets import automatic_jets
from nfi_pyro.geometry import FisherManifold
from nfi_pyro.geometry.fisher.nodes import RULES, PanelRule, panel_nodes
from tests.geometry.closed_laws import (
    Law,
    draws,
    location_scale,
    log_normal_law,
    network_law,
    normal_law,
    pricing_law,
    simplex_law,
    single_component,
    tensor,
    without_jets,
)

FACTORS, ROWS = 3, 7


def log_prob(law: Law, beta: Tensor, value: Tensor) -> Tensor:
    logits, loc, log_scale = law(beta)
    standard = (value.unsqueeze(-1) - loc) * (-log_scale).exp()
    log_joint = torch.log_softmax(logits, -1) - log_scale - 0.5 * standard.square()
    return torch.logsumexp(log_joint, -1) - 0.9189385332046727


def naive_metric(law: Law, beta: Tensor, rule: PanelRule = RULES["c11n6"]) -> Tensor:
    """Autodiff of the log density at every node, one row (factor,)."""
    _, loc, log_scale = law(beta)
    nodes, weights = panel_nodes(loc, log_scale, rule)
    score = jacrev(lambda point: log_prob(law, point, nodes))(beta)
    mass = weights * log_prob(law, beta, nodes).exp()
    return torch.einsum("m,mi,mj->ij", mass, score, score)


@pytest.mark.parametrize(("nodes", "rtol"), [("c11n6", 1e-7), ("c15n10", 1e-12)])
def test_the_normal_family(nodes: str, rtol: float) -> None:
    found = FisherManifold(log_normal_law, 0.0, nodes=nodes).metric(tensor(0.3, 0.7).log())
    want = torch.diag(tensor(1.0 / 0.49, 2.0))
    torch.testing.assert_close(found, want, rtol=rtol, atol=1e-14)


def test_information_of_location_and_scale() -> None:
    found = FisherManifold(location_scale, 0.0, nodes="c15n10").metric(tensor(0.2, 0.0))
    torch.testing.assert_close(
        found.diagonal(), tensor(1.2981167560, 2.9816014917), rtol=1e-9, atol=0
    )
    assert float(found[0, 1].abs()) < 1e-12


def test_information_of_far_weights_is_multinomial() -> None:
    beta = tensor(0.4, -0.7)
    weight = torch.softmax(torch.cat([beta, tensor(0.0)]), -1)[:2]
    want = weight.diag() - torch.outer(weight, weight)
    found = FisherManifold(simplex_law(3), 0.0).metric(beta)
    torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("n_factors", "n_components"), [(2, 1), (3, 3), (13, 2)])
def test_it_is_plain_autodiff_on_the_same_nodes(n_factors: int, n_components: int) -> None:
    law, beta = network_law(n_factors, n_components), draws(ROWS, n_factors, seed=1)
    found = FisherManifold(law).metric(beta, damped=False)
    want = torch.stack([naive_metric(law, row) for row in beta])
    torch.testing.assert_close(found, want, rtol=1e-11, atol=1e-13)
    assert float(torch.linalg.eigvalsh(found).min()) > -1e-14 * float(found.abs().max())


def test_quadrature_errors_are_as_stated() -> None:
    """Nested scales 1 to 100, tiny weights, far and overlapping components."""
    bounds = {"c11n4": 6e-4, "c11n6": 9e-6, "c15n6": 4e-7, "c15n10": 2e-10}
    cases = [
        (tensor(0.0, 0.0), tensor(0.0, 6.0), tensor(0.0, 0.0)),
        (tensor(0.0, 0.0), tensor(0.0, 0.3), tensor(0.0, -4.6)),
        (tensor(0.0, -6.9), tensor(0.0, 0.5), tensor(0.0, -4.6)),
        (tensor(0.0, -10.0), tensor(0.0, 1.0), tensor(0.0, 0.5)),
        (tensor(0.0, 0.3, -1.0, 0.2), tensor(0.0, 0.1, -0.4, 2.0), tensor(0.0, -2.3, -4.6, -6.9)),
    ]
    fine = PanelRule(tuple(0.25 * place for place in range(-36, 37)), 10)

    def law(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, second, third = beta.unflatten(-1, (3, -1)).unbind(-2)
        return first, second, third

    for logits, loc, log_scale in cases:
        beta = torch.cat([logits, loc, log_scale])
        want = naive_metric(law, beta, fine)
        scale = want.diagonal().sqrt()
        for nodes, bound in bounds.items():
            found = FisherManifold(law, nodes=nodes).metric(beta, damped=False)
            error = (found - want).abs() / torch.outer(scale, scale)
            assert float(error.max()) < bound


@pytest.mark.parametrize("n_components", [1, 3])
def test_the_laws_own_jets_and_automatic_ones_agree(n_components: int) -> None:
    law = pricing_law(FACTORS, n_components)
    beta = law.beta[:ROWS]
    for order in (1, 2):
        own, auto = law.jets(beta, order), automatic_jets(without_jets(law), beta, order)
        for name in ("value", "first", "second")[: order + 1]:
            want = getattr(auto, name)
            torch.testing.assert_close(getattr(own, name), want, rtol=1e-10, atol=1e-12)
    with_jets = FisherManifold(law).metric(beta)
    precision = FisherManifold(law).precision
    plain = FisherManifold(without_jets(law), precision=precision).metric(beta)
    torch.testing.assert_close(with_jets, plain, rtol=1e-11, atol=1e-13)


def changed(law: Law, how: str) -> Law:
    """Return the same law of returns, or of returns in other units, told differently."""

    def other(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, loc, log_scale = law(beta)
        if how == "permuted":
            order = [2, 0, 1]
            return logits[..., order], loc[..., order], log_scale[..., order]
        if how == "shifted":
            return logits + 5.0 * beta[..., :1] - 2.0, loc, log_scale
        if how == "affine":
            return logits, -0.3 + 50.0 * loc, log_scale + tensor(50.0).log()
        doubled = torch.cat([logits, logits[..., :1]], -1)
        half = torch.cat([torch.full_like(logits[..., :1], 0.5).log(), 0 * logits[..., 1:]], -1)
        doubled = doubled + torch.cat([half, half[..., :1]], -1)
        return (
            doubled,
            torch.cat([loc, loc[..., :1]], -1),
            torch.cat([log_scale, log_scale[..., :1]], -1),
        )

    return other


@pytest.mark.parametrize("how", ["permuted", "shifted", "affine", "split"])
def test_what_does_not_change_the_law_does_not_change_the_geometry(how: str) -> None:
    law, beta = network_law(FACTORS, 3), draws(ROWS, FACTORS, seed=1)
    one, two = FisherManifold(law), FisherManifold(changed(law, how))
    torch.testing.assert_close(two.metric(beta), one.metric(beta), rtol=1e-13, atol=1e-14)
    x, y = beta[:3], beta[3:6]
    torch.testing.assert_close(two.distance(x, y), one.distance(x, y), rtol=1e-9, atol=0)
    want = one.scalar_curvature(beta).value
    torch.testing.assert_close(two.scalar_curvature(beta).value, want, rtol=1e-7, atol=1e-9)


def test_a_change_of_chart_changes_coordinates_alone() -> None:
    """With Lambda carried along; linear charts are the ones that keep it constant."""
    law, beta = network_law(FACTORS, 3), draws(ROWS, FACTORS, seed=1)
    chart = torch.eye(FACTORS, dtype=torch.float64) + 0.4 * draws(FACTORS, FACTORS, seed=9)
    back = torch.linalg.inv(chart)
    one = FisherManifold(law)
    two = FisherManifold(lambda point: law(point @ chart.mT), precision=chart.mT @ chart)
    there = beta @ back.mT
    want = chart.mT @ one.metric(beta) @ chart
    torch.testing.assert_close(two.metric(there), want, rtol=1e-12, atol=1e-13)
    x, y = slice(0, 3), slice(3, 6)
    torch.testing.assert_close(
        two.distance(there[x], there[y]), one.distance(beta[x], beta[y]), rtol=1e-9, atol=0
    )
    for flag in (False, True):
        want = one.scalar_curvature(beta, damped=flag).value
        found = two.scalar_curvature(there, damped=flag).value
        torch.testing.assert_close(found, want, rtol=1e-8, atol=1e-9)
    assert torch.equal(one.effective_rank(beta), two.effective_rank(there))


@pytest.mark.parametrize(
    ("law", "rank"),
    [(single_component(10), 2), (network_law(10, 2), 5)],
)
def test_the_rank_is_that_of_the_parameters(law: Law, rank: int) -> None:
    """At most 3 K - 1, whatever the number of factors."""
    beta = draws(ROWS, 10, seed=1)
    manifold = FisherManifold(law)
    values, vectors = manifold.spectrum(beta)
    assert (values[:, rank - 1] > 1e-9 * values[:, 0]).all()
    assert (values[:, rank].abs() < 1e-14 * values[:, 0]).all()
    assert (manifold.effective_rank(beta) <= rank).all()
    assert (manifold.condition(beta) > 1e12).all()
    assert vectors.shape == (ROWS, 10, 10)


def test_damping_is_the_precision_of_the_cloud() -> None:
    law = pricing_law(FACTORS, 2)
    manifold = FisherManifold(law)
    want = torch.linalg.inv(torch.cov(law.beta.mT))
    assert manifold.precision is not None
    torch.testing.assert_close(manifold.precision, want, rtol=1e-10, atol=1e-12)
    gap = manifold.metric(law.beta) - manifold.metric(law.beta, damped=False)
    torch.testing.assert_close(gap, (want / 252.0).expand_as(gap), rtol=1e-9, atol=1e-14)
    assert manifold.cloud is not None
    assert float(manifold.mahalanobis(law.beta).max()) == pytest.approx(manifold.cloud.reach)


def test_products_lengths_and_leading_axes() -> None:
    manifold = FisherManifold(network_law(FACTORS, 2))
    beta, u, v = draws(2, 5, FACTORS, seed=1), draws(FACTORS, seed=2), draws(5, FACTORS, seed=3)
    metric = manifold.metric(beta)
    assert metric.shape == (2, 5, FACTORS, FACTORS)
    want = torch.einsum("i,abij,bj->ab", u, metric, v)
    torch.testing.assert_close(manifold.inner(beta, u, v), want, rtol=1e-12, atol=1e-14)
    norm = manifold.norm(beta, u)
    torch.testing.assert_close(norm.square(), manifold.inner(beta, u, u), rtol=1e-12, atol=0)
    root = manifold.cholesky(beta)
    torch.testing.assert_close(root @ root.mT, metric, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        manifold.log_volume(beta), 0.5 * torch.linalg.slogdet(metric)[1], rtol=1e-12, atol=1e-13
    )
    one = manifold.metric(beta[1, 3])
    torch.testing.assert_close(one, metric[1, 3], rtol=1e-13, atol=1e-15)


def test_far_nodes_do_not_underflow_and_one_row_does_not_matter_to_another() -> None:
    manifold = FisherManifold(simplex_law(2, separation=1e4))
    beta = tensor(0.5, -0.5).unsqueeze(-1)
    found = manifold.metric(beta, damped=False)
    weight = torch.sigmoid(beta)
    torch.testing.assert_close(found[..., 0], weight * (1 - weight), rtol=1e-6, atol=0)


@pytest.mark.parametrize("transform", [jacrev, jacfwd, lambda f: partial(jacobian, f)])
def test_autograd_and_torch_func_differentiate_the_metric(transform: Callable[..., Any]) -> None:
    found = transform(FisherManifold(normal_law, 0.0).metric)(tensor(0.3, 0.8))
    want = torch.zeros(2, 2, 2, dtype=torch.float64)
    want[0, 0, 1], want[1, 1, 1] = -2.0 / 0.8**3, -4.0 / 0.8**3
    torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-6)
