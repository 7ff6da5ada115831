"""Forms of exposure, their exterior derivatives, and Stokes' theorem."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry import (
    FisherManifold,
    carry_form,
    circle,
    exterior_derivative,
    gradient_form,
    loop_integral,
    premium_form,
    rectangle,
    reversed_curve,
    sharpe_form,
    stokes_check,
    surface_integral,
)
from tests.geometry.closed_laws import (
    draws,
    log_normal_law,
    network_law,
    normal_law,
    pricing_law,
    tensor,
)

CENTRE = tensor(0.2, -0.1, 0.3)
CIRCLE = circle(CENTRE, 0.8)
LOOPS = {"circle": CIRCLE, "polygon": CENTRE + draws(5, 3, seed=6)}


def mixed(beta: Tensor) -> Tensor:
    return torch.stack([beta[..., 1] * beta[..., 2], beta[..., 0] ** 2, beta[..., 1].exp()], -1)


# ---- exterior derivative -------------------------------------------------------------------------


def test_a_planted_curl_comes_back() -> None:
    beta = draws(7, 3, seed=1)
    found = exterior_derivative(mixed)(beta)
    want = torch.zeros(7, 3, 3, dtype=torch.float64)
    want[:, 0, 1] = 2 * beta[:, 0] - beta[:, 2]  # d_0 omega_1 - d_1 omega_0
    want[:, 0, 2] = -beta[:, 1]
    want[:, 1, 2] = beta[:, 1].exp()
    torch.testing.assert_close(found, want - want.mT, rtol=0, atol=1e-14)
    one = exterior_derivative(mixed)(beta[3])
    torch.testing.assert_close(one, found[3], rtol=0, atol=0)
    wide = exterior_derivative(mixed)(beta[:6].reshape(2, 3, 3))
    torch.testing.assert_close(wide.reshape(6, 3, 3), found[:6], rtol=0, atol=0)


def test_a_differential_has_no_curl() -> None:
    law = pricing_law(3, 2)
    form = gradient_form(lambda beta: law.marginal(beta).mean)
    torch.testing.assert_close(form(law.beta), law.jacobian(), rtol=1e-10, atol=1e-14)
    assert float(exterior_derivative(form)(law.beta).abs().max()) < 1e-15


def test_a_small_loop_is_curl_times_area() -> None:
    loop = circle(CENTRE, 1e-3, (2, 0))
    curl = exterior_derivative(mixed)(CENTRE)[2, 0]
    value = loop_integral(mixed, loop).value
    assert value == pytest.approx(float(curl) * math.pi * 1e-6, rel=1e-6)


# ---- Stokes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS.values(), ids=list(LOOPS))
def test_a_loop_is_its_curl_inside(loop: Tensor) -> None:
    found = stokes_check(mixed, loop, tolerance=1e-12)
    assert found.passed
    assert abs(found.gap) < 1e-12
    assert abs(found.loop.value) > 1e-2
    other = stokes_check(mixed, loop, apex=tensor(1.0, -1.0, 0.5), tolerance=1e-12)
    assert other.surface.value == pytest.approx(found.loop.value, abs=1e-12)  # any surface does


def test_a_constant_curl_measures_area() -> None:
    def constant(beta: Tensor) -> Tensor:
        turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=beta.dtype)
        return turn.expand(*beta.shape[:-1], 2, 2)

    corners = rectangle(tensor(3.0, -2.0), (4.0, 6.0))
    assert surface_integral(constant, corners).value == pytest.approx(24.0, abs=1e-12)
    back = surface_integral(constant, reversed_curve(corners)).value
    assert back == pytest.approx(-24.0, abs=1e-12)
    ring = surface_integral(constant, circle(tensor(3.0, -2.0), 2.0)).value
    assert ring == pytest.approx(4 * math.pi, abs=1e-12)


def test_a_hole_inside_the_loop_is_found() -> None:
    def angle(beta: Tensor) -> Tensor:
        turned = torch.stack([-beta[..., 1], beta[..., 0]], -1)
        return turned / beta.square().sum(-1, keepdim=True)

    found = stokes_check(angle, circle(tensor(0.0, 0.0), 1.0))
    assert found.loop.value == pytest.approx(2 * math.pi, abs=1e-10)
    assert abs(found.surface.value) < 1e-9
    assert not found.passed
    assert stokes_check(angle, circle(tensor(3.0, 0.0), 1.0)).passed


def test_an_exact_form_passes() -> None:
    found = stokes_check(gradient_form(lambda beta: 1e3 * beta.prod(-1).sin()), CIRCLE)
    assert found.passed
    assert abs(found.loop.value) < 1e-10


def test_stokes_refuses() -> None:
    with pytest.raises(ShapeError, match="one component by factor"):
        stokes_check(lambda beta: beta.sum(-1), CIRCLE)
    with pytest.raises(ShapeError, match="a two-form must return"):
        surface_integral(mixed, CIRCLE)
    with pytest.raises(ShapeError, match="apex must be one point"):
        stokes_check(mixed, CIRCLE, apex=draws(2, 3, seed=0))
    with pytest.raises(ShapeError, match="3 factors"):
        stokes_check(mixed, CIRCLE, apex=tensor(0.0, 0.0))
    with pytest.raises(SpecError, match="tolerance must lie in"):
        stokes_check(mixed, CIRCLE, tolerance=2.0)


# ---- return per unit of risk ---------------------------------------------------------------------


@pytest.mark.parametrize("law", [pricing_law(3, 2), network_law(3, 3)], ids=["nfi", "network"])
@pytest.mark.parametrize("loop", LOOPS.values(), ids=list(LOOPS))
def test_sharpe_around_a_loop_is_its_curl(law: Callable, loop: Tensor) -> None:
    found = stokes_check(sharpe_form(law), loop, tolerance=1e-11)
    assert found.passed
    assert abs(found.gap) < 1e-11 * found.loop.variation
    assert abs(found.loop.value) > 1e-3 * found.loop.variation  # not exact


def test_sharpe_has_the_curl_of_its_formula() -> None:
    law = pricing_law(3, 2)

    def sd(beta: Tensor) -> Tensor:
        return law.marginal(beta).stddev

    slope, risk_slope = law.jacobian(), vmap(grad(sd))(law.beta)
    outer = risk_slope.unsqueeze(-1) * slope.unsqueeze(-2)
    want = -(outer - outer.mT) / sd(law.beta).square()[:, None, None]
    found = exterior_derivative(sharpe_form(law))(law.beta)
    torch.testing.assert_close(found, want, rtol=1e-8, atol=1e-10)


def test_sharpe_of_one_normal_in_closed_form() -> None:
    """d mean / sd over a rectangle: width times the difference of 1 / sd."""
    loop = rectangle(tensor(0.5, 0.75), (1.0, 0.5))
    value = loop_integral(sharpe_form(normal_law), loop).value
    assert value == pytest.approx(1 / 0.5 - 1 / 1.0, abs=1e-12)


def test_sharpe_is_exact_where_mean_decides_risk() -> None:
    def law(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loc = torch.tanh(beta @ tensor(1.0, -2.0, 0.5)).unsqueeze(-1)
        return torch.zeros_like(loc), loc, 0.3 * loc.square()

    for loop in LOOPS.values():
        found = loop_integral(sharpe_form(law), loop)
        assert abs(found.value) < 1e-10 * found.variation


def test_forms_do_not_depend_on_the_chart() -> None:
    """The same loop of laws by (mean, sd) and (mean, log sd)."""
    loop = circle(tensor(0.1, 1.0), 0.5)
    assert not isinstance(loop, Tensor)

    def moved(time: Tensor) -> Tensor:
        point = loop(time)
        return torch.stack([point[0], point[1].log()])

    plain = loop_integral(sharpe_form(normal_law), loop).value
    other = loop_integral(sharpe_form(log_normal_law), moved).value
    assert plain == pytest.approx(other, abs=1e-10)


def test_the_flat_of_a_natural_gradient_is_the_differential() -> None:
    law = network_law(2, 2)
    manifold = FisherManifold(law)

    def mean(beta: Tensor) -> Tensor:
        logits, loc, _ = law(beta)
        return (torch.softmax(logits, -1) * loc).sum(-1)

    def flat(beta: Tensor) -> Tensor:
        raised = manifold.natural_gradient(mean, beta)
        return torch.einsum("...ij,...j->...i", manifold.metric(beta), raised)

    found = loop_integral(flat, circle(tensor(0.1, 0.2), 0.5))
    assert abs(found.value) < 1e-12


# ---- premia --------------------------------------------------------------------------------------


def test_premia_have_the_curl_of_their_slopes() -> None:
    level, slope = draws(3, seed=1), draws(3, 3, seed=2)
    form = premium_form(level, slope)
    beta = draws(7, 3, seed=3)
    want = level + torch.einsum("ji,ni->nj", slope, beta)
    torch.testing.assert_close(form(beta), want)
    curl = exterior_derivative(form)(beta)
    torch.testing.assert_close(curl, (slope.T - slope).expand(7, 3, 3))  # [i, j] is slope_ji first
    value = loop_integral(form, circle(CENTRE, 0.5)).value
    assert value == pytest.approx(float(slope[1, 0] - slope[0, 1]) * math.pi / 4, abs=1e-12)
    even = premium_form(level, slope + slope.T)
    assert abs(loop_integral(even, CIRCLE).value) < 1e-12  # premia of one quadratic return


def test_premia_refuse() -> None:
    with pytest.raises(ShapeError, match="level and slope must be"):
        premium_form(draws(3, seed=1), draws(3, 2, seed=2))
    with pytest.raises(ShapeError, match="level and slope must be"):
        premium_form(draws(2, 3, seed=1), draws(3, 3, seed=2))
    with pytest.raises(SpecError, match="must be finite"):
        premium_form(draws(3, seed=1) * math.nan, draws(3, 3, seed=2))


def value(time: Tensor, beta: Tensor) -> Tensor:
    return torch.sin(time) * beta[..., 0] + beta[..., 1] ** 2


def premium(time: Tensor, beta: Tensor) -> Tensor:
    return torch.stack([time**2 + beta[..., 1], time * beta[..., 0]], -1)


def test_waiting_and_moving_in_one_form() -> None:
    form = carry_form(value, premium)
    time, beta = tensor(0.7), tensor(0.3, -0.4)
    curl = exterior_derivative(form)(torch.cat([time, beta]))
    by_time = tensor(2 * 0.7, 0.3)  # d_t lambda
    by_exposure = torch.stack([time.sin()[0], 2 * beta[1]])  # d_j f
    torch.testing.assert_close(curl[0, 1:], by_time - by_exposure)
    assert float(curl[1, 2]) == pytest.approx(0.7 - 1.0)
    loop = circle(torch.cat([time, beta]), 0.5, (0, 1))
    found = stokes_check(form, loop, tolerance=1e-12)
    assert found.passed
    assert abs(found.loop.value) > 1e-2


def test_values_that_price_their_own_premia_are_exact() -> None:
    """f = d_t h and lambda = d_beta h of one h."""

    def potential(point: Tensor) -> Tensor:
        return (point[..., 0] * point[..., 1]).sin() + point[..., 2] ** 2 * point[..., 0]

    whole = gradient_form(potential)

    def joined(time: Tensor, beta: Tensor) -> Tensor:
        return whole(torch.cat([time.unsqueeze(-1), beta], -1))

    form = carry_form(lambda t, b: joined(t, b)[..., 0], lambda t, b: joined(t, b)[..., 1:])
    assert abs(loop_integral(form, CIRCLE).value) < 1e-12


def test_a_function_needs_one_value() -> None:
    with pytest.raises(ShapeError, match="one value at a point"):
        gradient_form(lambda beta: beta)(CENTRE)
