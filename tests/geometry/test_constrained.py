"""The constrained optimum: closed form, a grid of brute force, multipliers, charts, bad input."""

import math
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry import (
    ConstrainedOptimum,
    FisherManifold,
    constrained_optimum,
    risk_adjusted_return,
)
from nfi_pyro.geometry.optimisers.ball import Ball
from nfi_pyro.geometry.optimisers.objective import moments
from nfi_pyro.geometry.optimisers.slsqp import maximum_under, multipliers
from tests.geometry.closed_laws import draws, log_normal_law, network_law, normal_law, tensor

SPREAD = 0.7
HOME = tensor(0.0, math.log(SPREAD))
LAW = network_law(2, 3)
CENTRE = tensor(0.2, -0.1)


def half_plane() -> FisherManifold:
    """The normal family, damped so little that its distances are the closed form's."""
    return FisherManifold(log_normal_law, 1e-8, precision=torch.eye(2, dtype=torch.float64))


def expected(
    law: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]] = LAW,
) -> Callable[[Tensor], Tensor]:
    return risk_adjusted_return(law, 0.0)


# ---- closed form ---------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.3, 1.0])
@pytest.mark.parametrize("part", [None, 0.8])
def test_the_normal_family(radius: float, part: float | None) -> None:
    """A ball of the half-plane is a disc: centre s cosh rho, radius s sinh rho."""
    cap = None if part is None else part * SPREAD**2
    found = constrained_optimum(
        expected(log_normal_law), half_plane(), HOME, max_distance=radius, max_variance=cap
    )
    rho = radius / math.sqrt(2.0)
    middle, reach = SPREAD * math.cosh(rho), SPREAD * math.sinh(rho)
    scale = middle if cap is None else min(middle, math.sqrt(cap))
    top = math.sqrt(2.0 * (reach**2 - (scale - middle) ** 2))
    assert bool(found.converged)
    torch.testing.assert_close(found.point, tensor(top, math.log(scale)), rtol=0, atol=2e-4)
    assert float(found.value) == pytest.approx(top, abs=1e-6)
    assert float(found.variance) == pytest.approx(scale**2, rel=1e-3)
    assert float(found.distance) <= radius * (1.0 + 1e-7)
    if scale == middle:
        assert float(found.distance_price) == pytest.approx(SPREAD * math.cosh(rho), rel=1e-5)
        assert float(found.variance_price) == 0.0
    else:
        rate = math.sqrt(2.0) * (middle - scale) / math.sqrt(reach**2 - (scale - middle) ** 2)
        assert float(found.variance_price) == pytest.approx(rate / (2.0 * scale), rel=1e-4)
    assert found.path.shape == (17, 2)
    torch.testing.assert_close(found.path[0], HOME)
    torch.testing.assert_close(found.path[-1], found.point)


def test_the_least_variance_in_the_ball_is_the_bound_of_caps() -> None:
    """``s exp(-rho)`` is the smallest standard deviation: just above is met, just below is not."""
    least = (SPREAD * math.exp(-0.3 / math.sqrt(2.0))) ** 2
    value, manifold = expected(log_normal_law), half_plane()
    found = constrained_optimum(
        value, manifold, HOME, max_distance=0.3, max_variance=1.001 * least, tolerance=1e-3
    )
    assert bool(found.converged)
    assert float(found.variance) <= 1.001 * least * (1.0 + 1e-6)
    with pytest.raises(SpecError, match=r"max_variance must be at least 0.32058\d*, .* at row 0"):
        constrained_optimum(value, manifold, HOME, max_distance=0.3, max_variance=0.999 * least)


# ---- brute force ---------------------------------------------------------------------------------


ANGLES, LENGTHS = 40, 9


@cache
def polar_grid(radius: float) -> Tensor:
    """Points of geodesics from the centre in all directions, (angle, length, factor)."""
    manifold = FisherManifold(LAW)
    angles = torch.linspace(0.0, 2.0 * math.pi, ANGLES + 1, dtype=torch.float64)[:-1]
    unit = torch.stack([angles.cos(), angles.sin()])
    speed = torch.linalg.solve_triangular(manifold.cholesky(CENTRE).mT, unit, upper=True).mT
    return manifold.geodesic(CENTRE.expand(ANGLES, 2), radius * speed, points=LENGTHS).path


def on_grid(radius: float, cap: float, aversion: float) -> tuple[float, float]:
    """Highest objective over a polar grid, and how much more there may be between its points."""
    mean, variance = moments(LAW, polar_grid(radius))
    value = torch.where(variance <= cap, mean - aversion * variance, -math.inf)
    apart = radius * max(1.0 / (LENGTHS - 1), 1.2 * math.pi / ANGLES)  # circles are a bit longer
    slope = float(variance.max().sqrt())  # Cramer and Rao: mean by distance
    return float(value.max()), slope * apart


@pytest.mark.parametrize(
    ("share", "aversion"),
    [
        pytest.param(9.0, 0.0, marks=pytest.mark.slow),
        (1.02, 0.0),
        (0.97, 0.0),
        pytest.param(9.0, 0.4, marks=pytest.mark.slow),
    ],
)
def test_it_agrees_with_brute_force(share: float, aversion: float) -> None:
    """Without a cap that binds, with one, from a benchmark above the cap, and with lambda."""
    manifold, radius = FisherManifold(LAW), 0.5
    cap = share * float(moments(LAW, CENTRE)[1])
    found = constrained_optimum(
        risk_adjusted_return(LAW, aversion),
        manifold,
        CENTRE,
        max_distance=radius,
        max_variance=cap,
    )
    best, missed = on_grid(radius, cap, aversion)
    assert bool(found.converged)
    assert -1e-6 < float(found.value) - best < missed
    assert float(found.variance) <= cap * (1.0 + 1e-6)
    true = manifold.log(CENTRE, found.point, polish=True)
    assert float(true.distance) == pytest.approx(float(found.distance), rel=1e-4)
    assert float(found.distance) <= radius * (1.0 + 1e-6)
    assert float(found.value) > float(found.benchmark_value)


# ---- invariants ----------------------------------------------------------------------------------


@cache
def solve(radius: float = 0.5, share: float = 1.02) -> ConstrainedOptimum:
    cap = share * float(moments(LAW, CENTRE)[1])
    return constrained_optimum(
        expected(), FisherManifold(LAW), CENTRE, max_distance=radius, max_variance=cap
    )


@pytest.mark.slow
def test_prices_are_what_a_wider_limit_brings() -> None:
    middle, far, wide = solve(), solve(radius=0.501), solve(share=1.021)
    by_distance = float(far.value - middle.value) / 0.001
    by_variance = float(wide.value - middle.value) / (0.001 * float(moments(LAW, CENTRE)[1]))
    assert float(middle.distance_price) == pytest.approx(by_distance, rel=2e-2)
    assert float(middle.variance_price) == pytest.approx(by_variance, rel=2e-2)


def test_units_and_linear_charts_do_not_matter() -> None:
    """Exposures in another chart, returns in percent."""
    chart = torch.tensor([[2.0, 0.3], [0.0, 0.05]], dtype=torch.float64)

    def percent(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, loc, log_scale = LAW(z @ chart.T)
        return logits, 100.0 * loc, log_scale + math.log(100.0)

    want = solve()
    cap = 1.02e4 * float(moments(LAW, CENTRE)[1])
    manifold = FisherManifold(percent, precision=chart.T @ chart)
    found = constrained_optimum(
        expected(percent),
        manifold,
        torch.linalg.solve(chart, CENTRE),
        max_distance=0.5,
        max_variance=cap,
    )
    torch.testing.assert_close(chart @ found.point, want.point, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.variance_price, want.variance_price / 100.0, rtol=1e-3, atol=0)


@pytest.mark.slow
def test_rows_keep_their_order_and_limits() -> None:
    manifold = FisherManifold(LAW, nodes="c11n4")
    rows = torch.stack([CENTRE, CENTRE + 0.3]).unsqueeze(0)
    reach = tensor(0.2, 0.4).unsqueeze(0)
    found = constrained_optimum(expected(), manifold, rows, max_distance=reach)
    assert found.point.shape == (1, 2, 2)
    assert found.value.shape == (1, 2)
    alone = constrained_optimum(expected(), manifold, rows[0, 1], max_distance=0.4)
    torch.testing.assert_close(found.point[0, 1], alone.point, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.distance, reach, rtol=1e-6, atol=0)
    assert bool((found.variance_price == 0).all())
    assert bool((found.evaluations > 0).all())


def test_a_start_from_the_optimum_costs_little() -> None:
    cold, manifold = solve(), FisherManifold(LAW)
    cap = 1.02 * float(moments(LAW, CENTRE)[1])
    again = constrained_optimum(
        expected(), manifold, CENTRE, max_distance=0.5, max_variance=cap, start=cold.point
    )
    assert int(again.distance_evaluations) <= 4
    torch.testing.assert_close(again.point, cold.point, rtol=0, atol=1e-5)
    assert int(cold.distance_evaluations) <= 15


def test_a_benchmark_at_the_top_stays() -> None:
    found = constrained_optimum(
        lambda beta: -(beta - HOME).square().sum(-1), half_plane(), HOME, max_distance=0.5
    )
    torch.testing.assert_close(found.point, HOME, rtol=0, atol=1e-7)
    assert bool(found.converged)
    assert float(found.distance_price) == 0.0


def test_the_slope_of_the_squared_distance_is_exact() -> None:
    ball = Ball(FisherManifold(LAW), CENTRE, 0.5, 10)
    for beta in draws(4, 2, seed=1):
        _, slope = ball.geodesic(beta)
        step = 1e-4
        for factor, move in enumerate(step * torch.eye(2, dtype=torch.float64)):
            ends = [ball.geodesic(beta + sign * move)[0].distance ** 2 for sign in (1.0, -1.0)]
            numeric = float(ends[0] - ends[1]) / (2.0 * step)
            assert float(slope[factor]) == pytest.approx(numeric, abs=2e-4)
    _, slope = ball.geodesic(CENTRE)
    assert float(slope.abs().max()) < 1e-10


# ---- the search ----------------------------------------------------------------------------------


def test_the_search_stops_at_a_vertex() -> None:
    """Two discs and a linear function: the corner, in few evaluations."""
    count = 0

    def right(point: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal count
        count += 1
        return float(point[0]), np.array([1.0, 0.0])

    def disc(centre: float) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        middle = np.array([0.0, centre])
        return lambda point: (float((point - middle) @ (point - middle)), 2.0 * (point - middle))

    found = maximum_under(right, [disc(0.5), disc(-0.5)], np.array([0.2, 0.1]), 100)
    np.testing.assert_allclose(found, [math.sqrt(0.75), 0.0], atol=1e-7)
    assert count < 20


def test_multipliers_are_positive_and_of_binding_limits() -> None:
    gradient = np.array([1.0, 2.0])
    rates = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    prices, left = multipliers(gradient, rates, [0.0, 0.0])
    np.testing.assert_allclose(prices, [1.0, 2.0])
    assert left == pytest.approx(0.0, abs=1e-14)
    prices, left = multipliers(gradient, rates, [0.0, -0.1])
    np.testing.assert_allclose(prices, [1.0, 0.0])
    assert left == pytest.approx(2.0)
    prices, left = multipliers(-gradient, rates, [0.0, 0.0])
    np.testing.assert_allclose(prices, [0.0, 0.0])
    assert left == pytest.approx(math.sqrt(5.0))


# ---- bad input -----------------------------------------------------------------------------------


def test_limits_must_be_positive() -> None:
    manifold = FisherManifold(LAW)
    with pytest.raises(SpecError, match=r"max_distance must be finite and > 0; got 0.0 at row 0"):
        constrained_optimum(expected(), manifold, CENTRE, max_distance=0.0)
    with pytest.raises(SpecError, match=r"max_distance must be finite and > 0; got -1.0 at row 1"):
        constrained_optimum(
            expected(), manifold, CENTRE.expand(2, 2), max_distance=tensor(1.0, -1.0)
        )
    with pytest.raises(SpecError, match=r"max_variance must be finite and > 0; got nan"):
        constrained_optimum(expected(), manifold, CENTRE, max_distance=1.0, max_variance=math.nan)
    with pytest.raises(ShapeError, match=r"max_variance must be a number or have the benchmark's"):
        constrained_optimum(
            expected(), manifold, CENTRE, max_distance=1.0, max_variance=tensor(1.0, 2.0)
        )
    with pytest.raises(SpecError, match=r"max_trials must be at least 1"):
        constrained_optimum(expected(), manifold, CENTRE, max_distance=1.0, max_trials=0)


def test_exposures_must_be_finite_and_fit() -> None:
    manifold = FisherManifold(LAW)
    with pytest.raises(SpecError, match=r"benchmark must be finite"):
        constrained_optimum(expected(), manifold, tensor(0.0, math.nan), max_distance=1.0)
    with pytest.raises(SpecError, match=r"start must be finite"):
        constrained_optimum(
            expected(), manifold, CENTRE, max_distance=1.0, start=tensor(0.0, math.inf)
        )
    with pytest.raises(ShapeError, match=r"start must end in"):
        constrained_optimum(expected(), manifold, CENTRE, max_distance=1.0, start=tensor(0.0))
    with pytest.raises(SpecError, match=r"objective must be finite at the benchmark"):
        constrained_optimum(
            lambda beta: beta.sum().mul(-1.0).sub(9.0).log(), manifold, CENTRE, max_distance=1.0
        )


def test_a_singular_metric_is_refused() -> None:
    def one_way(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return normal_law(torch.stack([beta.sum(-1), 1.0 + beta.sum(-1).square()], dim=-1))

    manifold = FisherManifold(one_way, 0.0, allow_incomplete=True)
    with pytest.raises(SpecError, match=r"full rank 2; got rank 1"):
        constrained_optimum(expected(one_way), manifold, CENTRE, max_distance=1.0)


def test_a_search_that_is_cut_short_says_so() -> None:
    cap = 1.02 * float(moments(LAW, CENTRE)[1])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = constrained_optimum(
            expected(),
            FisherManifold(LAW),
            CENTRE,
            max_distance=1.5,
            max_variance=cap,
            max_trials=1,
            tolerance=1e-9,
        )
    assert not bool(found.converged)
    assert float(found.kkt_residual) > 1e-9
    assert any("no constrained optimum was found at row 0" in str(one.message) for one in seen)
