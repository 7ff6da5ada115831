"""Exponential, logarithm and distance: the half-plane, the sphere, invariants, flags."""

import math
import warnings

import pytest
import torch

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry import FisherManifold
from nfi_pyro.geometry.paths import shooting
from tests.geometry.closed_laws import (
    draws,
    half_plane_distance,
    half_plane_exp,
    log_normal_law,
    network_law,
    normal_law,
    pricing_law,
    simplex_law,
    single_component,
    tensor,
)

FACTORS = 3


def half_plane_points(rows: int, seed: int) -> torch.Tensor:
    """Return mean and standard deviation, (row, 2)."""
    found = draws(rows, 2, seed=seed)
    return torch.stack([found[:, 0], (0.5 * found[:, 1]).exp()], dim=-1)


# ---- exp -----------------------------------------------------------------------------------------


def test_exp_is_that_of_the_half_plane() -> None:
    x, velocity = half_plane_points(11, 1), 0.4 * draws(11, 2, seed=2)
    found = FisherManifold(normal_law, 0.0, True).exp(x, velocity)
    assert found.ok.all()
    assert float(found.drift.max()) < 1e-6
    gap = half_plane_distance(found.point, half_plane_exp(x, velocity))
    assert float(gap.max()) < 2e-6


@pytest.mark.parametrize(
    ("steps", "bound"), [pytest.param(32, 2e-6, marks=pytest.mark.slow), (64, 3e-7)]
)
def test_exp_of_a_singular_metric_moves_the_law_along_the_half_plane(
    steps: int, bound: float
) -> None:
    """One component, ten factors, rank two: the acceleration is the one on the image."""
    law, beta, velocity = single_component(10), draws(5, 10, seed=1), 0.6 * draws(5, 10, seed=2)

    def image(point: torch.Tensor) -> torch.Tensor:
        _, loc, log_scale = law(point)
        return torch.cat([loc, log_scale.exp()], dim=-1)

    found = FisherManifold(law, 0.0, True).exp(beta, velocity, steps=steps)
    moved = torch.func.jvp(image, (beta,), (velocity,))[1]
    gap = half_plane_distance(image(found.point), half_plane_exp(image(beta), moved))
    assert float(gap.max()) < bound
    assert float(half_plane_distance(image(found.point), image(beta)).min()) > 0.05


@pytest.mark.slow
def test_exp_is_complete_with_damping_and_flagged_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Saturated units make infinity a finite length away."""
    monkeypatch.setattr(shooting, "MOST_STEPS", 64)
    law, beta = network_law(2, 2), draws(7, 2, seed=1)
    damped, bare = FisherManifold(law, 0.1), FisherManifold(law, 0.0, True)
    velocity = draws(7, 2, seed=2)
    velocity = 1.5 * velocity / damped.norm(beta, velocity).unsqueeze(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found, wild = damped.exp(beta, velocity), bare.exp(beta, velocity)
    assert found.ok.all()
    assert torch.isfinite(found.point).all()
    bad = ~torch.isfinite(wild.point).all(-1) | ~(wild.drift <= 1e-4)
    assert bad.any()
    assert torch.equal(wild.ok, ~bad)
    assert not (wild.point[bad].abs() < 30.0).all()


def test_a_drifting_row_is_done_again_alone() -> None:
    manifold = FisherManifold(pricing_law(FACTORS, 2))
    beta = draws(5, FACTORS, seed=1)
    velocity = draws(5, FACTORS, seed=2) * tensor(0.1, 0.1, 1.0, 0.1, 0.0).unsqueeze(-1)
    found = manifold.exp(beta, velocity, steps=8)
    assert int(found.steps[2]) > int(found.steps[0]) == 8
    assert torch.equal(found.point[4], beta[4])
    assert float(found.drift[4]) == 0.0
    alone = manifold.exp(beta[2], velocity[2], steps=8)
    torch.testing.assert_close(alone.point, found.point[2], rtol=1e-10, atol=1e-12)


def test_acceleration_is_minus_the_connection() -> None:
    manifold = FisherManifold(network_law(FACTORS, 3))
    beta, velocity = draws(5, FACTORS, seed=1), draws(5, FACTORS, seed=2)
    gamma = manifold.christoffel(beta)
    want = -torch.einsum("nkij,ni,nj->nk", gamma, velocity, velocity)
    found = manifold.acceleration(beta, velocity)
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-12)


def test_a_geodesic_has_points_at_equal_lengths() -> None:
    manifold = FisherManifold(normal_law, 0.0, True)
    x, y = tensor(0.3, 0.8), tensor(-0.5, 1.6)
    found = manifold.geodesic(x, end=y, points=9)
    assert found.path.shape == (9, 2)
    steps = half_plane_distance(found.path[1:], found.path[:-1])
    torch.testing.assert_close(steps, torch.full_like(steps, 1.189380931 / 8), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.path[-1], y, rtol=1e-5, atol=1e-5)
    there = manifold.geodesic(x, manifold.log(x, y).velocity, points=9)
    torch.testing.assert_close(there.path, found.path, rtol=1e-10, atol=1e-12)
    with pytest.raises(SpecError, match="either a velocity or an end"):
        manifold.geodesic(x)


# ---- log and distance ----------------------------------------------------------------------------


def test_distance_of_two_normal_laws() -> None:
    x, y = tensor(0.3, 0.8), tensor(-0.5, 1.6)
    assert float(FisherManifold(normal_law, 0.0).distance(x, y)) == pytest.approx(
        1.189380931, rel=1e-5
    )


def test_distances_of_many_normal_laws() -> None:
    x, y = half_plane_points(32, 1), half_plane_points(32, 2)
    error = FisherManifold(normal_law, 0.0).distance(x, y) / half_plane_distance(x, y) - 1.0
    assert float(error.abs().median()) < 1e-6
    assert float(error.abs().max()) < 2e-5


@pytest.mark.parametrize("n_components", [3, 4])
def test_distance_of_weights_is_that_of_the_sphere(n_components: int) -> None:
    law = simplex_law(n_components)
    x, y = draws(5, n_components - 1, seed=1), draws(5, n_components - 1, seed=2)
    p, q = (torch.softmax(law(point)[0], -1) for point in (x, y))
    want = 2.0 * torch.arccos((p * q).sqrt().sum(-1))
    found = FisherManifold(law, 0.0).distance(x, y)
    torch.testing.assert_close(found, want, rtol=1e-7, atol=0)


def test_a_damped_distance_tends_to_the_half_planes() -> None:
    law, x, y = single_component(10), draws(5, 10, seed=1), draws(5, 10, seed=2)
    ends = [torch.cat([law(point)[1], law(point)[2].exp()], -1) for point in (x, y)]
    want = half_plane_distance(*ends)
    errors = [
        float((FisherManifold(law, eps).distance(x, y) / want - 1.0).abs().max())
        for eps in (1e-2, 1e-4, 1e-6)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3


def test_log_is_the_inverse_of_exp() -> None:
    manifold = FisherManifold(pricing_law(2, 2))
    x = draws(3, 2, seed=1)
    y = x + 0.3 * draws(3, 2, seed=2)
    found = manifold.log(x, y)
    assert found.converged.all()
    assert (found.residual <= 1e-5 * found.distance).all()
    arrived = manifold.exp(x, found.velocity)
    assert float(manifold.norm(y, arrived.point - y).max()) < 1e-5
    torch.testing.assert_close(manifold.norm(x, found.velocity), found.distance, rtol=1e-10, atol=0)
    torch.testing.assert_close(manifold.distance(x, y), found.distance, rtol=1e-4, atol=0)
    rough = manifold.log(x, y, polish=False)
    assert torch.isnan(rough.residual).all()
    torch.testing.assert_close(rough.velocity, found.velocity, rtol=2e-3, atol=1e-3)
    assert torch.equal(found.path[:, 0], x)
    assert torch.equal(found.path[:, -1], y)
    here = manifold.log(x[0], x[0])
    assert float(here.distance) == 0.0
    assert bool(here.converged)


@pytest.mark.slow
def test_distances_are_symmetric_and_keep_the_triangle() -> None:
    manifold = FisherManifold(pricing_law(FACTORS, 3))
    points = draws(6, FACTORS, seed=1)[[0, 1, 3, 4, 5]]
    table = manifold.distance(points.unsqueeze(1), points.unsqueeze(0), starts=3)
    straight = manifold.distance(points.unsqueeze(1), points.unsqueeze(0))
    assert (straight >= table).all()
    assert (straight > 1.005 * table).any()  # the straight line's valley is not always the lowest
    assert table.shape == (5, 5)
    torch.testing.assert_close(table, table.mT, rtol=1e-9, atol=1e-12)
    assert (table.diagonal() == 0).all()
    through = table[:, :, None] + table[None, :, :]  # (from, via, to)
    assert (table[:, None, :] <= through * (1 + 1e-5)).all()


def test_bounds_hold_and_the_line_is_the_upper_one() -> None:
    manifold = FisherManifold(network_law(FACTORS, 3))
    x, y = draws(23, FACTORS, seed=1), draws(23, FACTORS, seed=2)
    distance, bounds = manifold.distance(x, y), manifold.distance(x, y, "bounds")
    assert (bounds.lower <= distance * (1 + 1e-6)).all()
    assert (distance <= bounds.upper * (1 + 1e-5)).all()
    assert float((bounds.lower / distance).min()) > 0.5
    assert torch.equal(manifold.distance(x, y, "line"), bounds.upper)
    squared = manifold.distance(x, y, "bounds", squared=True)
    torch.testing.assert_close(squared.lower.sqrt(), bounds.lower, rtol=1e-12, atol=0)


def test_the_squared_distance_has_the_velocity_as_its_gradient() -> None:
    manifold = FisherManifold(pricing_law(FACTORS, 2))
    x, y = draws(2, FACTORS, seed=1), 0.5 * draws(2, FACTORS, seed=2)
    y = y.requires_grad_()
    manifold.distance(x, y, squared=True).sum().backward()
    assert y.grad is not None
    found = manifold.log(y.detach(), x)  # points back: 2 G v(1) = -2 G log_y(x)
    want = -2.0 * (manifold.metric(y.detach()) @ found.velocity.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(y.grad, want, rtol=1e-3, atol=1e-3)
    step = 1e-3 * torch.eye(FACTORS, dtype=torch.float64)
    for row, slope in zip(step, y.grad.mT, strict=True):
        ends = [manifold.distance(x, y.detach() + s * row, squared=True) for s in (1.0, -1.0)]
        torch.testing.assert_close((ends[0] - ends[1]) / 2e-3, slope, rtol=1e-4, atol=1e-5)
    same = x[0].clone().requires_grad_()
    manifold.distance(x[0], same).backward()
    assert same.grad is not None
    assert torch.equal(same.grad, torch.zeros_like(same))


def test_a_start_leads_into_its_own_valley() -> None:
    manifold = FisherManifold(log_normal_law, 0.0, True)
    x, y = tensor(0.3, -0.2), tensor(-0.5, 0.5)
    time = torch.linspace(0.0, 1.0, 9, dtype=torch.float64).unsqueeze(-1)
    bent = x + time * (y - x) + (torch.pi * time).sin() * tensor(0.3, -0.4)
    bent[-1] = y
    found = manifold.log(x, y, start=bent)
    want = half_plane_distance(tensor(0.3, math.exp(-0.2)), tensor(-0.5, math.exp(0.5)))
    torch.testing.assert_close(found.distance, want, rtol=1e-5, atol=0)
    with pytest.raises(ShapeError, match="polygons of 9 points"):
        manifold.log(x, y, start=bent[:-1])
    with pytest.raises(SpecError, match="begin at x and end at y"):
        manifold.log(x, y, start=bent + 1.0)


def test_a_pair_that_fails_is_flagged_and_leaves_the_others_alone() -> None:
    """A standard deviation that turns negative on the straight line leaves the numbers."""

    def broken(beta: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.zeros_like(beta[..., :1]), beta[..., :1], (beta[..., 1:].square() - 1.0).log()

    manifold = FisherManifold(broken, 1e-6)  # type: ignore[arg-type]
    x = tensor(0.0, 2.0).expand(2, 2)
    y = torch.stack([tensor(0.5, 3.0), tensor(0.5, -3.0)])
    with pytest.warns(UserWarning, match="no shortest geodesic was found at row 1"):
        found = manifold.log(x, y, polish=False)
    assert found.converged.tolist() == [True, False]
    good = manifold.log(x[0], y[0], polish=False)
    torch.testing.assert_close(found.distance[0], good.distance, rtol=1e-10, atol=0)
