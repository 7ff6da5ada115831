"""Parallel transport and holonomy: the half-plane, Gauss-Bonnet, orthogonality."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry import FisherManifold
from tests.geometry.closed_laws import (
    ROOT2,
    draws,
    log_normal_law,
    network_law,
    normal_law,
    pricing_law,
    tensor,
)

TURN = 2.0 * math.pi


def circle(
    centre: Tensor, radius: float, frame: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """Return a loop around `centre` in the plane of two columns, counter-clockwise."""
    axes = torch.eye(len(centre), 2, dtype=torch.float64) if frame is None else frame

    def loop(time: Tensor) -> Tensor:
        turn = torch.stack([(TURN * time).cos(), (TURN * time).sin()], dim=-1)
        return centre + radius * turn @ axes.mT

    return loop


def test_holonomy_of_a_rectangle() -> None:
    corners = torch.tensor([[0.0, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0]]).double()
    found = FisherManifold(normal_law, 0.0).holonomy(corners, steps=20)
    assert float(found.angles) == pytest.approx(-0.7071067812, abs=3e-7)
    assert found.ok
    assert found.norm == pytest.approx(ROOT2 * 0.7071067812, abs=1e-6)
    back = FisherManifold(normal_law, 0.0).holonomy(corners.flip(0), steps=20)
    assert float(back.angles) == pytest.approx(0.7071067812, abs=3e-7)
    chart = torch.stack([corners[:, 0], corners[:, 1].log()], -1)
    other = FisherManifold(log_normal_law, 0.0).holonomy(chart, steps=20)
    torch.testing.assert_close(other.angles, found.angles, rtol=0, atol=3e-7)


def test_holonomy_of_a_circle() -> None:
    """Fisher radius 1 about (0, 1): a Euclidean circle of the half-plane (mean / sqrt 2, sd)."""
    height, radius = math.cosh(1.0 / ROOT2), math.sinh(1.0 / ROOT2)

    def loop(time: Tensor) -> Tensor:
        u, s = radius * (TURN * time).cos(), height + radius * (TURN * time).sin()
        return torch.stack([ROOT2 * u, s], dim=-1)

    found = FisherManifold(normal_law, 0.0).holonomy(loop, steps=80)
    assert float(found.angles) == pytest.approx(-1.6373467984, abs=2e-6)
    assert found.ok


def test_holonomy_is_the_curvature_inside() -> None:
    """Gauss-Bonnet on a network's surface, damped metric and damped curvature."""
    manifold, centre, radius = FisherManifold(network_law(2, 2)), tensor(0.3, -0.2), 0.5
    found = manifold.holonomy(circle(centre, radius), steps=40)
    unit = torch.linspace(0.0, 1.0, 41, dtype=torch.float64)
    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(8))
    lengths, weights = 0.5 * radius * (nodes + 1.0), 0.5 * radius * weights
    angle = TURN * unit[:-1]
    direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
    points = centre + lengths[:, None, None] * direction
    axes = torch.eye(2, dtype=torch.float64)
    curvature = manifold.sectional(points, axes[0], axes[1], damped=True)
    area = torch.linalg.slogdet(manifold.metric(points))[1].mul(0.5).exp()
    want = ((curvature * area).mean(-1) * TURN * lengths * weights).sum()
    assert float(found.angles) == pytest.approx(float(want), rel=1e-4)


def test_a_small_loop_sees_the_riemann_tensor() -> None:
    manifold, centre = FisherManifold(network_law(3, 3)), draws(3, seed=1)
    frame = torch.linalg.qr(draws(3, 2, seed=2)).Q
    radius = 0.02
    found = manifold.holonomy(circle(centre, radius, frame), steps=16)
    base = circle(centre, radius, frame)(tensor(0.0)[0])
    full = manifold.riemann(centre, damped=True)
    lowered = torch.einsum("ijkl,k,l->ij", full, frame[:, 0], frame[:, 1])
    raised = torch.linalg.inv(manifold.metric(base)) @ lowered
    want = -math.pi * radius**2 * raised
    gap = found.matrix - torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(gap, want, rtol=0, atol=0.05 * float(want.abs().max()))
    assert found.angles.shape == (1,)
    assert found.defect < 1e-6


def test_transport_keeps_products_and_goes_back() -> None:
    law = pricing_law(3, 2)
    manifold, path = FisherManifold(law), draws(3, 3, seed=1)
    u, v = draws(5, 3, seed=2), draws(3, seed=3)
    there_u = manifold.parallel_transport(path, u, steps=24)
    there_v = manifold.parallel_transport(path, v, steps=24)
    assert there_u.shape == (5, 3)
    torch.testing.assert_close(
        manifold.inner(path[-1], there_u, there_v),
        manifold.inner(path[0], u, v),
        rtol=1e-5,
        atol=1e-7,
    )
    again = manifold.parallel_transport(path.flip(0), there_u, steps=24)
    torch.testing.assert_close(again, u, rtol=1e-10, atol=1e-10)


def test_a_geodesic_transports_its_own_velocity() -> None:
    manifold = FisherManifold(normal_law, 0.0, True)
    x, velocity = tensor(0.3, 0.8), tensor(0.4, -0.3)
    path = manifold.geodesic(x, velocity, points=65).path
    end = manifold.exp(x, velocity)
    moved = manifold.parallel_transport(path, velocity, steps=1)
    torch.testing.assert_close(moved, end.velocity, rtol=1e-4, atol=1e-5)


def test_curves_are_checked() -> None:
    manifold = FisherManifold(normal_law)
    with pytest.raises(ShapeError, match="vertices must be"):
        manifold.holonomy(tensor(0.0, 1.0))
    with pytest.raises(SpecError, match=r"vertices must be finite.*row 1"):
        manifold.holonomy(torch.tensor([[0.0, 1.0], [float("nan"), 1.0]]).double())
    with pytest.raises(SpecError, match="must end where it starts"):
        manifold.holonomy(lambda time: torch.stack([time, 1.0 + 0 * time], dim=-1))
