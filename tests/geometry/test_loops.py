"""Curves, integrals along them, exactness, time-varying values, and the gauge plug-in."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.errors import PanelError, ShapeError, SpecError
from nfi_pyro.geometry import (
    FisherManifold,
    circle,
    dated_decomposition,
    exactness_check,
    gat_alpha,
    gat_holonomy,
    gradient_form,
    line_integral,
    loop_integral,
    polyline,
    rectangle,
    reversed_curve,
    time_decomposition,
)
from tests.geometry.closed_laws import draws, normal_law, pricing_law, tensor

CENTRE = tensor(0.2, -0.1, 0.3)
LOOPS = {
    "circle": circle(CENTRE, 0.8),
    "rectangle": rectangle(CENTRE, (1.0, 2.0), (0, 2)),
    "tilted circle": circle(CENTRE, 1.0, draws(2, 3, seed=5)),
    "polygon": CENTRE + draws(5, 3, seed=6),
}
DISC = circle(tensor(0.5, -0.5), 2.0)


def turning(beta: Tensor) -> Tensor:
    """A form of curl 2: it adds up to twice the area inside."""
    return torch.stack([-beta[..., 1], beta[..., 0]], -1)


def angle(beta: Tensor) -> Tensor:
    """The form of the angle around 0, closed but not exact."""
    return turning(beta) / beta.square().sum(-1, keepdim=True)


def mixed(beta: Tensor) -> Tensor:
    return torch.stack([beta[..., 1] * beta[..., 2], beta[..., 0] ** 2, beta[..., 1].exp()], -1)


# ---- curves --------------------------------------------------------------------------------------


def test_a_circle_stays_at_its_radius_in_its_plane() -> None:
    curve = circle(CENTRE, 0.7, (2, 0))
    assert not isinstance(curve, Tensor)
    points = torch.stack([curve(time) for time in torch.linspace(0, 1, 9, dtype=torch.float64)])
    torch.testing.assert_close((points - CENTRE).norm(dim=-1), torch.full((9,), 0.7).double())
    torch.testing.assert_close(points[0] - CENTRE, tensor(0.0, 0.0, 0.7))  # first direction first
    torch.testing.assert_close(points[2] - CENTRE, tensor(0.7, 0.0, 0.0))


def test_a_rectangle_turns_as_a_circle_does() -> None:
    corners = rectangle(tensor(1.0, 2.0), (4.0, 6.0))
    want = torch.tensor([[-1, -1], [3, -1], [3, 5], [-1, 5]], dtype=torch.float64)
    torch.testing.assert_close(corners, want)
    assert loop_integral(turning, corners).value == pytest.approx(48.0, abs=1e-12)
    assert loop_integral(turning, DISC).value == pytest.approx(8 * math.pi, abs=1e-12)


def test_directions_scale_a_figure() -> None:
    plane = torch.tensor([[2.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    ellipse = loop_integral(turning, circle(tensor(0.0, 0.0), 1.0, plane)).value
    assert ellipse == pytest.approx(12 * math.pi, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: circle(CENTRE, -1.0), SpecError, "radius must be positive"),
        (lambda: circle(CENTRE, math.nan), SpecError, "radius must be positive"),
        (lambda: circle(CENTRE[None], 1.0), ShapeError, "must be \\(factor,\\)"),
        (lambda: circle(CENTRE * math.nan, 1.0), SpecError, "must be finite"),
        (lambda: circle(CENTRE, 1.0, (1, 1)), SpecError, "two different factors"),
        (lambda: circle(CENTRE, 1.0, (0, 3)), SpecError, "two different factors"),
        (lambda: circle(CENTRE, 1.0, torch.ones(2, 3)), SpecError, "not parallel"),
        (lambda: rectangle(CENTRE, (1.0, 0.0)), SpecError, "sides must be positive"),
        (lambda: polyline(CENTRE), ShapeError, "2 points or more"),
        (lambda: polyline(CENTRE, CENTRE[:2]), ShapeError, "of one size"),
    ],
)
def test_curves_refuse(make: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


# ---- integrals -----------------------------------------------------------------------------------


def test_a_differential_adds_up_to_the_difference_of_the_ends() -> None:
    def function(beta: Tensor) -> Tensor:
        return (beta[..., 0] * beta[..., 1]).sin() + beta[..., 2].exp()

    path = polyline(*draws(4, 3, seed=2))
    found = line_integral(gradient_form(function), path)
    assert found.converged
    assert found.value == pytest.approx(float(function(path[-1]) - function(path[0])), abs=1e-12)


@pytest.mark.parametrize("loop", LOOPS.values(), ids=list(LOOPS))
def test_the_other_way_round_changes_the_sign(loop: Tensor) -> None:
    forth, back = loop_integral(mixed, loop), loop_integral(mixed, reversed_curve(loop))
    assert forth.value == pytest.approx(-back.value, abs=1e-12)
    assert abs(forth.value) > 1e-2  # there is something to change sign


def test_speed_and_starting_point_do_not_matter() -> None:
    plain = LOOPS["circle"]
    assert not isinstance(plain, Tensor)
    want = loop_integral(mixed, plain).value
    uneven = loop_integral(
        mixed, lambda time: plain(time + torch.sin(2 * math.pi * time) / 7)
    ).value
    square = loop_integral(mixed, lambda time: plain(time * time)).value
    later = loop_integral(mixed, lambda time: plain(time + 0.3)).value
    for value in (uneven, square, later):
        assert value == pytest.approx(want, abs=1e-8)
    polygon = LOOPS["polygon"]
    assert isinstance(polygon, Tensor)
    split = torch.cat([polygon[:1], 0.75 * polygon[:1] + 0.25 * polygon[1:2], polygon[1:]])
    assert loop_integral(mixed, split.roll(2, 0)).value == pytest.approx(
        loop_integral(mixed, polygon).value, abs=1e-12
    )


def test_loops_with_a_common_edge_add_up() -> None:
    corners = rectangle(CENTRE, (1.0, 1.0))
    halves = corners[[0, 1, 2]], corners[[2, 3, 0]]
    whole = loop_integral(mixed, corners).value
    assert sum(loop_integral(mixed, half).value for half in halves) == pytest.approx(
        whole, abs=1e-12
    )


def test_the_error_is_honest_and_shrinks() -> None:
    def steep(beta: Tensor) -> Tensor:
        return torch.stack([torch.atan(20 * beta[..., 1]), torch.zeros_like(beta[..., 0])], -1)

    loop = circle(tensor(0.0, 0.3), 1.0)
    exact = loop_integral(steep, loop, tolerance=1e-13).value
    last = math.inf
    for tolerance in (1e-2, 1e-5, 1e-8):
        found = loop_integral(steep, loop, tolerance=tolerance)
        assert found.converged
        assert found.error <= tolerance * found.variation
        assert abs(found.value - exact) <= found.error + 1e-13
        assert abs(found.value - exact) <= last
        last = abs(found.value - exact)


def test_a_jump_is_warned_of() -> None:
    def step(beta: Tensor) -> Tensor:
        return torch.stack([(beta[..., 1] > 0.1234).double(), 0 * beta[..., 0]], -1)

    with pytest.warns(UserWarning, match="kink or a jump"):
        found = loop_integral(step, circle(tensor(0.0, 0.0), 1.0))
    assert not found.converged
    assert found.value == pytest.approx(-2 * math.sqrt(1 - 0.1234**2), abs=1e-3)


@pytest.mark.parametrize(
    ("form", "curve", "tolerance", "error", "words"),
    [
        (lambda b: b.sum(-1), DISC, 1e-10, ShapeError, "one component by factor"),
        (lambda b: b / 0, DISC, 1e-10, SpecError, "must be finite along"),
        (turning, DISC, 0.0, SpecError, "tolerance must lie in"),
        (turning, torch.zeros(3), 1e-10, ShapeError, "vertices must be"),
        (turning, torch.tensor([[0.0, math.nan], [1, 1]]), 1e-10, SpecError, "finite"),
        (turning, lambda t: torch.stack([t, t * t]), 1e-10, SpecError, "end where it starts"),
        (turning, lambda t: t, 1e-10, ShapeError, "must end in|must return"),
    ],
)
def test_integrals_refuse(
    form: Callable[[Tensor], Tensor],
    curve: Tensor,
    tolerance: float,
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        loop_integral(form, curve, tolerance=tolerance)


# ---- exactness -----------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS.values(), ids=list(LOOPS))
def test_expected_return_of_a_law_is_exact(loop: Tensor) -> None:
    law = pricing_law(3, 2)
    automatic = exactness_check(lambda beta: law.marginal(beta).mean, loop)
    closed = exactness_check(lambda beta: law.marginal(beta).mean, loop, gradient=law.jacobian)
    for found in (automatic, closed):
        assert found.passed
        assert abs(found.integral.value) < 1e-12
        assert found.worst_gap < 1e-12
        assert found.integral.variation > 1e-3  # it did move on the way


def test_derivatives_of_another_function_are_found() -> None:
    law = pricing_law(3, 2)

    def wrong(beta: Tensor) -> Tensor:  # a common slip: the mean without its weights' slopes
        logits, _, _ = law(beta)
        return torch.softmax(logits, -1)[..., :1] * law.jacobian(beta)

    found = exactness_check(lambda b: law.marginal(b).mean, LOOPS["circle"], gradient=wrong)
    assert found.integral.converged
    assert not found.passed
    other = exactness_check(
        lambda b: law.marginal(b).mean, LOOPS["circle"], gradient=lambda b: 2.0 * law.jacobian(b)
    )
    assert abs(other.integral.value) < 1e-12  # exact, but of twice the mean
    assert not other.passed


def test_a_hard_switch_is_found_though_its_jumps_cancel() -> None:
    def switched(beta: Tensor) -> Tensor:
        return beta[..., 0] + (beta[..., 1] > 0.1).to(beta.dtype)

    found = exactness_check(switched, circle(tensor(0.0, 0.0), 1.0))
    assert abs(found.integral.value) < 1e-12
    assert found.worst_gap == pytest.approx(1.0, abs=1e-9)
    assert not found.passed


def test_a_value_that_grows_around_a_hole_is_found() -> None:
    def winding(beta: Tensor) -> Tensor:
        return torch.atan2(beta[..., 1], beta[..., 0])

    around = exactness_check(winding, circle(tensor(0.1, 0.2), 1.0))
    assert around.integral.value == pytest.approx(2 * math.pi, abs=1e-9)
    assert not around.passed
    assert exactness_check(winding, circle(tensor(3.0, 0.2), 1.0)).passed


def test_a_constant_passes() -> None:
    assert exactness_check(lambda beta: 0 * beta.sum(-1) + 3.0, DISC).passed


def test_a_function_needs_one_finite_value() -> None:
    with pytest.raises(ShapeError, match="one value at a point"):
        exactness_check(lambda beta: beta, DISC)
    with pytest.raises(ShapeError, match="one value at a point"):
        exactness_check(lambda beta: beta, DISC, gradient=turning)
    with pytest.raises(SpecError, match="finite along the loop"):
        exactness_check(lambda beta: beta.sum(-1) / 0, DISC, gradient=turning)


# ---- holonomy on the same loops ------------------------------------------------------------------


def test_holonomy_takes_the_same_loops() -> None:
    manifold = FisherManifold(normal_law, 0.0)
    box = manifold.holonomy(rectangle(tensor(0.5, 0.75), (1.0, 0.5)))
    assert float(box.angles) == pytest.approx(-math.sqrt(0.5), abs=1e-6)
    # A circle of the half-plane, (mean / sqrt 2, sd): of radius 1 in Fisher length about (0, 1).
    rho = 1 / math.sqrt(2)
    plane = torch.tensor([[math.sqrt(2), 0.0], [0.0, 1.0]], dtype=torch.float64)
    ring = circle(tensor(0.0, math.cosh(rho)), math.sinh(rho), plane)
    found = manifold.holonomy(ring, steps=256)
    assert float(found.angles) == pytest.approx(-1.6373467984, abs=1e-6)
    back = manifold.holonomy(reversed_curve(ring), steps=256)
    assert float(back.angles) == pytest.approx(1.6373467984, abs=1e-6)


# ---- values that change --------------------------------------------------------------------------


def seasonal(time: Tensor, beta: Tensor) -> Tensor:
    return torch.sin(3.0 * time) * beta[..., 0] + time * beta[..., 1] ** 2 + beta[..., 0].exp()


@pytest.mark.parametrize("path", [DISC, polyline(*draws(4, 2, seed=3))], ids=["loop", "polygon"])
def test_a_change_is_exposure_and_time(path: Tensor) -> None:
    found = time_decomposition(seasonal, path)
    assert found.converged
    assert found.error < 1e-11
    assert found.along_exposure + found.along_time == pytest.approx(found.change, abs=1e-11)


def test_timing_in_closed_form() -> None:
    """f_t = t beta_0 once around a circle of radius 2 about (.5, -.5), from its right."""
    found = time_decomposition(lambda time, beta: time * beta[..., 0], DISC)
    # along time: int beta_0 dt = .5; standing: 2.5; carry: int t (.5 + 2 cos 2 pi t) dt = .25.
    assert found.along_time == pytest.approx(0.5, abs=1e-12)
    assert found.standing == pytest.approx(2.5, abs=1e-12)
    assert found.change == pytest.approx(2.5, abs=1e-12)
    assert found.along_exposure == pytest.approx(2.0, abs=1e-12)
    assert found.carry == pytest.approx(0.25, abs=1e-12)
    assert found.along_exposure == pytest.approx(found.standing - found.along_time, abs=1e-12)


def test_prices_that_stand_still_leave_nothing() -> None:
    found = time_decomposition(lambda time, beta: beta.square().sum(-1) + 0 * time, DISC)
    assert abs(found.along_exposure) < 1e-12
    assert found.along_time == found.standing == 0.0


def test_dates_add_up_and_come_close_to_continuous_time() -> None:
    def law_at(time: float) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
        def law(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            loc = seasonal(tensor(time)[0], beta).unsqueeze(-1)
            return torch.zeros_like(loc), loc, torch.zeros_like(loc)

        return law

    assert not isinstance(DISC, Tensor)
    want = time_decomposition(seasonal, DISC)
    errors = []
    for n_dates in (51, 101):
        times = torch.linspace(0.0, 1.0, n_dates, dtype=torch.float64)
        path = torch.stack([DISC(time) for time in times])
        found = dated_decomposition([law_at(float(time)) for time in times], path)
        assert found.error < 1e-12
        assert found.change == pytest.approx(want.change, abs=1e-12)
        assert found.standing == pytest.approx(want.standing, abs=1e-12)
        assert found.carry / (n_dates - 1) == pytest.approx(want.carry, abs=0.2)
        errors.append(abs(found.along_exposure - want.along_exposure))
    assert errors[1] < 0.3 * errors[0]  # second order in the step


def test_dates_need_laws() -> None:
    law = pricing_law(3, 2)
    with pytest.raises(ShapeError, match="a law for each of 2 dates or more"):
        dated_decomposition([law], draws(2, 3, seed=0))
    with pytest.raises(SpecError, match="path must be finite"):
        dated_decomposition([law, law], math.nan * draws(2, 3, seed=0))

    def broken(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, loc, log_scale = law(beta)
        return logits, loc * math.nan, log_scale

    with pytest.raises(SpecError, match=r"finite means on the path.*date 1, 2"):
        dated_decomposition([law, broken, law], draws(3, 3, seed=0))


def test_a_kink_in_time_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="kink or a jump"):
        found = time_decomposition(lambda t, b: (t - 0.1234).clamp(min=0) * b[..., 0], DISC)
    assert not found.converged


# ---- the gauge plug-in ---------------------------------------------------------------------------


def returns_panel() -> xr.DataArray:
    values = np.random.default_rng(0).normal(0.0, 0.02, (7, 5))
    values[3, 2] = np.nan
    dates = np.arange("2024-01-01", "2024-01-08", dtype="datetime64[D]").astype("datetime64[ns]")
    return xr.DataArray(values, {"date": dates, "asset": list("ABCDE")}, ("date", "asset"))


def test_realised_holonomy_is_a_difference_of_total_returns() -> None:
    panel = returns_panel()
    rate = xr.DataArray([0.1, 0.2, 0.3, 0.4, 0.5], {"asset": list("ABCDE")}, ("asset",))
    found = gat_holonomy(panel, rate)
    assert found.dims == ("date", "asset", "asset_other")
    one = found.sel(asset="A", asset_other="D")
    want = panel.sel(asset="D") + 0.4 - panel.sel(asset="A") - 0.1
    np.testing.assert_allclose(one, want, atol=1e-15)
    swapped = found.transpose("date", "asset_other", "asset").values
    np.testing.assert_allclose(found.values, -swapped, atol=1e-15)
    chain = sum(found.sel(asset=a, asset_other=b) for a, b in pairwise("ABDA"))
    np.testing.assert_allclose(chain, 0.0, atol=1e-15)
    assert np.isnan(found.values[3, 2]).all()
    assert int(np.isnan(found).sum()) == 9
    np.testing.assert_array_equal(gat_holonomy(panel.T).values, gat_holonomy(panel).values)


def test_realised_holonomy_refuses() -> None:
    panel = returns_panel()
    with pytest.raises(PanelError, match="dimensions date and asset"):
        gat_holonomy(panel.rename(asset="stock"))
    with pytest.raises(PanelError, match="labels of log_return"):
        gat_holonomy(panel, panel.isel(asset=slice(0, 3)))
    with pytest.raises(PanelError, match="no dimensions but date and asset"):
        gat_holonomy(panel, xr.DataArray([0.0, 1.0], dims="draw"))


def test_growth_of_simple_returns_in_closed_form() -> None:
    """log(1 + r) of a narrow normal law by its series, to fourth order."""
    beta = draws(11, 2, seed=1)

    def law(at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loc = (0.01 * at[..., :1] + 0.002 * at[..., 1:] ** 2).double()
        return torch.zeros_like(loc), loc, torch.full_like(loc, 0.01).log()

    weights = torch.full((11,), 1 / 11, dtype=torch.float64)
    found = gat_alpha(law, beta, weights)
    gross, spread = 1 + law(beta)[1][:, 0], 0.01
    want = gross.log() - spread**2 / (2 * gross**2) - 3 * spread**4 / (4 * gross**4)
    torch.testing.assert_close(found.growth, want, rtol=0, atol=1e-10)
    assert abs(float(weights @ found.alpha)) < 1e-15
    gap = beta - beta.mean(0)
    assert float((gap.T @ found.alpha).abs().max()) < 1e-12  # nothing left that exposures explain


def test_growth_priced_by_exposure_leaves_no_alpha() -> None:
    def law(at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loc = 0.3 * at[..., :1] - 0.2 * at[..., 1:] + 0.05
        return torch.zeros_like(loc), loc, torch.zeros_like(loc)

    beta, weights = draws(7, 2, seed=1), torch.softmax(draws(7, seed=2), 0)
    found = gat_alpha(law, beta, weights, returns="log")
    torch.testing.assert_close(found.risk_price, tensor(0.3, -0.2))
    assert float(found.alpha.abs().max()) < 1e-14
    free = gat_alpha(law, beta, weights, returns="log", risk_price=tensor(0.0, 0.0))
    torch.testing.assert_close(free.alpha, weights @ free.growth - free.growth)


def test_alpha_refuses() -> None:
    law, equal = pricing_law(3, 2), torch.full((40,), 1 / 40, dtype=torch.float64)
    with pytest.raises(SpecError, match="add up to 1"):
        gat_alpha(law, law.beta, 2 * equal)
    with pytest.raises(ShapeError, match="\\(asset, factor\\) and \\(asset,\\)"):
        gat_alpha(law, law.beta, equal[:5])
    with pytest.raises(SpecError, match="'simple' or 'log'"):
        gat_alpha(law, law.beta, equal, returns="excess")
    with pytest.raises(SpecError, match="fill all 3 directions"):
        gat_alpha(law, law.beta[:, :1].expand(-1, 3), equal)
    with pytest.raises(ShapeError, match="risk_price must be"):
        gat_alpha(law, law.beta, equal, returns="log", risk_price=torch.zeros(2, 3))

    def wild(at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, loc, log_scale = law(at)
        return logits, loc, log_scale + 4.0

    with pytest.raises(SpecError, match="must lie above -1"):
        gat_alpha(wild, law.beta, equal)
