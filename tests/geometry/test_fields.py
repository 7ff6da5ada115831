"""Connection, divergence, Laplacian and natural gradient of fields of exposure."""

import pytest
import torch
from torch import Tensor

from nfi_pyro.errors import SpecError
from nfi_pyro.geometry import FisherManifold
from tests.geometry.closed_laws import (
    draws,
    log_normal_law,
    network_law,
    normal_law,
    pricing_law,
    single_component,
    tensor,
)

FACTORS, ROWS = 3, 5
AVERSION = 0.7


def reward(beta: Tensor) -> Tensor:
    """E - lambda Var in the chart (mean, sd)."""
    return beta[..., 0] - AVERSION * beta[..., 1].square()


def test_christoffel_symbols_of_the_normal_family() -> None:
    found = FisherManifold(normal_law, 0.0).christoffel(tensor(0.3, 0.8))
    want = torch.zeros(2, 2, 2, dtype=torch.float64)
    want[0, 0, 1] = want[0, 1, 0] = -1.25
    want[1, 0, 0], want[1, 1, 1] = 0.625, -1.25
    torch.testing.assert_close(found, want, rtol=0, atol=3e-7)
    low = FisherManifold(normal_law).christoffel(tensor(0.3, 0.8), kind=1)
    bare = FisherManifold(normal_law, 0.0).christoffel(tensor(0.3, 0.8), kind=1)
    assert torch.equal(low, bare)  # damping is constant
    with pytest.raises(SpecError, match="kind must be 1 or 2"):
        FisherManifold(normal_law).christoffel(tensor(0.3, 0.8), kind=3)  # type: ignore[arg-type]


def test_laplacian_of_a_reward_in_the_normal_family() -> None:
    manifold = FisherManifold(normal_law, 0.0)
    beta = torch.stack([draws(ROWS, seed=1), (0.5 * draws(ROWS, seed=2)).exp()], -1)
    want = -AVERSION * beta[:, 1].square()
    torch.testing.assert_close(manifold.laplacian(reward, beta), want, rtol=1e-6, atol=1e-6)
    mean = manifold.laplacian(lambda point: point[..., 0], beta)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-6)

    def gradient(point: Tensor) -> Tensor:
        variance = point[..., 1].square()
        return torch.stack([variance, -AVERSION * point[..., 1] * variance], dim=-1)

    torch.testing.assert_close(
        manifold.natural_gradient(reward, beta), gradient(beta), rtol=1e-6, atol=1e-7
    )
    torch.testing.assert_close(manifold.divergence(gradient, beta), want, rtol=1e-6, atol=1e-6)


def test_divergence_is_that_of_the_volume() -> None:
    """``div V = sum_i d_i(V^i sqrt g) / sqrt g``, the volume by differences."""
    law = pricing_law(FACTORS, 2)
    manifold, beta = FisherManifold(law, nodes="c15n10"), draws(ROWS, FACTORS, seed=1)
    matrix = draws(FACTORS, FACTORS, seed=2)

    def field(point: Tensor) -> Tensor:
        return torch.sin(point @ matrix.mT)

    step, want = 1e-4, torch.zeros(ROWS, dtype=torch.float64)
    here = manifold.log_volume(beta)
    for factor, move in enumerate(step * torch.eye(FACTORS, dtype=torch.float64)):
        up, down = (
            field(point)[:, factor] * (manifold.log_volume(point) - here).exp()
            for point in (beta + move, beta - move)
        )
        want += (up - down) / (2.0 * step)
    torch.testing.assert_close(manifold.divergence(field, beta), want, rtol=1e-5, atol=1e-6)


def test_a_laplacian_does_not_depend_on_the_chart() -> None:
    beta = torch.stack([draws(ROWS, seed=1), (0.5 * draws(ROWS, seed=2)).exp()], -1)
    one = FisherManifold(normal_law, 0.0, nodes="c15n10").laplacian(reward, beta)

    def in_logs(point: Tensor) -> Tensor:
        return reward(torch.stack([point[..., 0], point[..., 1].exp()], -1))

    chart = torch.stack([beta[:, 0], beta[:, 1].log()], -1)
    two = FisherManifold(log_normal_law, 0.0, nodes="c15n10").laplacian(in_logs, chart)
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-11)


def test_the_natural_gradient_is_a_vector_in_linear_charts() -> None:
    law, beta = network_law(FACTORS, 2), draws(ROWS, FACTORS, seed=1)
    chart = torch.eye(FACTORS, dtype=torch.float64) + 0.4 * draws(FACTORS, FACTORS, seed=9)

    def mean(point: Tensor) -> Tensor:
        logits, loc, _ = law(point)
        return (torch.softmax(logits, -1) * loc).sum(-1)

    one = FisherManifold(law).natural_gradient(mean, beta)
    other = FisherManifold(lambda p: law(p @ chart.mT), precision=chart.mT @ chart)
    two = other.natural_gradient(lambda p: mean(p @ chart.mT), beta @ torch.linalg.inv(chart).mT)
    torch.testing.assert_close(two @ chart.mT, one, rtol=1e-11, atol=1e-12)


def test_a_singular_metric_is_an_error_without_damping() -> None:
    manifold, beta = FisherManifold(single_component(4), 0.0), draws(ROWS, 4, seed=1)

    def mean(point: Tensor) -> Tensor:
        return point.sum(-1)

    for call in (
        lambda: manifold.natural_gradient(mean, beta),
        lambda: manifold.laplacian(mean, beta),
        lambda: manifold.christoffel(beta),
        lambda: manifold.cholesky(beta),
        lambda: manifold.log_volume(beta),
        lambda: manifold.acceleration(beta, beta),
    ):
        with pytest.raises(SpecError, match="full rank 4; got rank 2 at row 0, 1, 2, 3, 4"):
            call()
    image = FisherManifold(single_component(4), 0.0, allow_incomplete=True)
    assert torch.isfinite(image.natural_gradient(mean, beta)).all()
