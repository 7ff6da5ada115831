"""Riemannian optimisers: torch with a flat metric, invariance, optima, searches, bad input."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry import (
    FisherManifold,
    RiemannianAdaGrad,
    RiemannianAdam,
    RiemannianGD,
    RiemannianRMSprop,
    best_of_starts,
    maximise,
    risk_adjusted_return,
)
from nfi_pyro.geometry.optimisers.moving import follow, transported
from nfi_pyro.geometry.optimisers.optim import RiemannianOptimizer
from tests.geometry.closed_laws import (
    Law,
    draws,
    half_plane_exp,
    log_normal_law,
    network_law,
    normal_law,
    tensor,
)

ROWS, FACTORS, STEPS = 5, 3, 25
CLASSES = [RiemannianGD, RiemannianAdam, RiemannianRMSprop, RiemannianAdaGrad]


def flat(beta: Tensor) -> Tensor:
    return torch.eye(beta.shape[-1], dtype=torch.float64).expand(*beta.shape, beta.shape[-1])


def wavy(beta: Tensor) -> Tensor:
    """A loss with slopes of different size by factor, (...)."""
    scale = 1.0 + 9.0 * torch.arange(beta.shape[-1], dtype=torch.float64)
    return (scale * (beta - 0.5).square() + torch.sin(3.0 * beta)).sum(-1)


def run(search: torch.optim.Optimizer, beta: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    for _ in range(STEPS):
        search.zero_grad()
        loss(beta).sum().backward()
        search.step()
    return beta.detach().clone()


# ---- flat ----------------------------------------------------------------------------------------

FLAT = [
    (RiemannianGD, torch.optim.SGD, {"lr": 0.01}, {"line_search": False}),
    (RiemannianGD, torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}, {"line_search": False}),
    (RiemannianAdam, torch.optim.Adam, {"lr": 0.03, "betas": (0.8, 0.95)}, {}),
    (RiemannianRMSprop, torch.optim.RMSprop, {"lr": 0.01}, {}),
    (RiemannianRMSprop, torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.9}, {}),
    (RiemannianAdaGrad, torch.optim.Adagrad, {"lr": 0.1, "lr_decay": 0.1}, {}),
]


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("n_factors", [1, FACTORS])
@pytest.mark.parametrize(("ours", "theirs", "options", "own"), FLAT)
def test_with_a_flat_metric_it_is_torch(
    ours: Any,
    theirs: Any,
    options: dict[str, Any],
    own: dict[str, Any],
    n_factors: int,
    maximize: bool,
) -> None:
    """With the second moment by row in one dimension, by coordinate in any."""
    if n_factors > 1 and ours is not RiemannianGD:
        own = {**own, "second_moment": "coordinate"}

    def loss(beta: Tensor) -> Tensor:
        return -wavy(beta) if maximize else wavy(beta)

    first, second = (draws(ROWS, n_factors, seed=1).requires_grad_() for _ in range(2))
    found = run(ours([first], flat, maximize=maximize, **options, **own), first, loss)
    want = run(theirs([second], maximize=maximize, **options), second, loss)
    torch.testing.assert_close(found, want, rtol=1e-13, atol=1e-14)
    assert float((want - draws(ROWS, n_factors, seed=1)).abs().max()) > 0.1


def test_a_scalar_second_moment_is_not_that_of_torch() -> None:
    first, second = (draws(ROWS, FACTORS, seed=1).requires_grad_() for _ in range(2))
    found = run(RiemannianAdam([first], flat), first, wavy)
    want = run(torch.optim.Adam([second], lr=0.03), second, wavy)
    assert float((found - want).abs().max()) > 1e-2


def test_schedulers_and_state_of_torch_work() -> None:
    """Half of the way, saved, loaded and gone on with is the whole way."""
    whole, half = (draws(ROWS, FACTORS, seed=1).requires_grad_() for _ in range(2))

    def schedule(search: RiemannianOptimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.ExponentialLR(search, 0.9)

    def advance(search: RiemannianOptimizer, clock: Any, beta: Tensor, steps: int) -> None:
        for _ in range(steps):
            search.zero_grad()
            wavy(beta).sum().backward()
            search.step()
            clock.step()

    search = RiemannianAdam([whole], flat)
    advance(search, schedule(search), whole, 10)
    early = RiemannianAdam([half], flat)
    clock = schedule(early)
    advance(early, clock, half, 5)
    late = RiemannianAdam([half], flat)
    resumed = schedule(late)
    late.load_state_dict(early.state_dict())
    resumed.load_state_dict(clock.state_dict())
    advance(late, resumed, half, 5)
    assert torch.equal(whole, half)
    assert search.param_groups[0]["lr"] == pytest.approx(0.03 * 0.9**10)


# ---- charts --------------------------------------------------------------------------------------

MILD = torch.tensor([[1.0, 0.4, 0.0], [0.0, 5.0, -0.5], [0.1, 0.0, 0.3]], dtype=torch.float64)
BAD = torch.tensor([[1.0, 0.4, 0.0], [0.0, 30.0, -2.0], [0.1, 0.0, 0.03]], dtype=torch.float64)


def in_chart(law: Law, chart: Tensor) -> Law:
    """The same law for exposures z with ``beta = chart z``."""
    return lambda z: law(z @ chart.T)


def both_charts(law: Law, chart: Tensor = MILD) -> tuple[FisherManifold, FisherManifold]:
    eye = torch.eye(FACTORS, dtype=torch.float64)
    moved = FisherManifold(in_chart(law, chart), precision=chart.T @ chart)
    return FisherManifold(law, precision=eye), moved


def to_chart(beta: Tensor, chart: Tensor = MILD) -> Tensor:
    return torch.linalg.solve(chart, beta.unsqueeze(-1)).squeeze(-1)


def test_the_natural_gradient_is_a_vector() -> None:
    law, beta = network_law(FACTORS, 2), draws(ROWS, FACTORS, seed=2)
    plain, moved = both_charts(law)
    want = plain.natural_gradient(risk_adjusted_return(law, 0.25), beta)
    found = moved.natural_gradient(risk_adjusted_return(moved.pricing, 0.25), to_chart(beta))
    torch.testing.assert_close(found @ MILD.T, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (RiemannianGD, {"line_search": False, "lr": 0.03, "momentum": 0.5}),
        (RiemannianAdam, {}),
        (RiemannianRMSprop, {"momentum": 0.5}),
        (RiemannianAdaGrad, {}),
    ],
)
def test_linear_charts_do_not_matter(kind: Any, options: dict[str, Any]) -> None:
    law, start = network_law(FACTORS, 2), 0.5 * draws(ROWS, FACTORS, seed=2)
    ends = []
    for manifold, first in zip(both_charts(law), (start, to_chart(start)), strict=True):
        value = risk_adjusted_return(manifold.pricing, 0.25)
        beta = first.clone().requires_grad_()
        search = kind([beta], manifold, maximize=True, **options)
        ends.append(run(search, beta, value))
    torch.testing.assert_close(ends[1] @ MILD.T, ends[0], rtol=0, atol=1e-12)
    assert float((ends[0] - start).abs().max()) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["projected", "parallel"])
def test_nor_along_geodesics(transport: str) -> None:
    law, start = network_law(FACTORS, 2), 0.5 * draws(1, FACTORS, seed=2)
    ends = []
    for manifold, first in zip(both_charts(law), (start, to_chart(start)), strict=True):
        value = risk_adjusted_return(manifold.pricing, 0.25)
        beta = first.clone().requires_grad_()
        search = RiemannianAdam(
            [beta], manifold, lr=0.01, retraction="exp", transport=transport, maximize=True
        )
        for _ in range(2):
            search.zero_grad()
            value(beta).sum().backward()
            search.step()
        ends.append(beta.detach())
    torch.testing.assert_close(ends[1] @ MILD.T, ends[0], rtol=0, atol=1e-12)


def test_in_a_curved_chart_additive_steps_agree_to_the_order_of_the_step() -> None:
    """beta = sinh(u): the same flow, so halving the step halves the gap (geometry.md section 5)."""
    manifold = FisherManifold(network_law(FACTORS, 2), eps=1 / 252)
    value = risk_adjusted_return(manifold.pricing, 0.25)
    start = 0.5 * draws(ROWS, FACTORS, seed=2)

    def curved(u: Tensor) -> Tensor:
        slope = u.cosh()
        return slope.unsqueeze(-1) * manifold.metric(u.sinh()) * slope.unsqueeze(-2)

    gaps = []
    for halvings in range(4):
        options: dict[str, Any] = {"lr": 0.04 / 2**halvings, "line_search": False}
        ends = []
        for metric, first, loss in (
            (manifold.metric, start, value),
            (curved, start.asinh(), lambda u: value(u.sinh())),
        ):
            place = first.clone().requires_grad_()
            search = RiemannianGD([place], metric, maximize=True, **options)
            for _ in range(5 * 2**halvings):
                search.zero_grad()
                loss(place).sum().backward()
                search.step()
            ends.append(place.detach())
        gaps.append(float((ends[0] - ends[1].sinh()).norm()))
    ratios = [coarse / fine for coarse, fine in pairwise(gaps)]
    assert gaps[0] > 1e-4
    assert all(1.7 < ratio < 2.4 for ratio in ratios), (gaps, ratios)


def test_a_second_moment_by_coordinate_depends_on_the_chart() -> None:
    law, start = network_law(FACTORS, 2), 0.5 * draws(ROWS, FACTORS, seed=2)
    ends = []
    for manifold, first in zip(both_charts(law), (start, to_chart(start)), strict=True):
        beta = first.clone().requires_grad_()
        search = RiemannianAdam([beta], manifold, second_moment="coordinate", maximize=True)
        ends.append(run(search, beta, risk_adjusted_return(manifold.pricing, 0.25)))
    assert float((ends[1] @ MILD.T - ends[0]).abs().max()) > 1e-2


@pytest.mark.slow
def test_adam_reaches_the_optimum_in_both_charts() -> None:
    """Torch's own does not in the bad one."""
    law, start = network_law(FACTORS, 2), 1.5 * draws(ROWS, FACTORS, seed=2)

    def hill(beta: Tensor) -> Tensor:
        return risk_adjusted_return(law, 0.25)(beta) - 0.5 * beta.square().sum(-1)

    best = maximise(hill, start, FisherManifold(law), max_steps=300, tolerance=1e-7)
    assert bool(best.converged.all())
    assert float(best.value.max() - best.value.min()) < 1e-9
    plain = to_chart(start, BAD).requires_grad_()
    search = torch.optim.Adam([plain], lr=0.03)
    for manifold, first, chart in zip(
        both_charts(law, BAD), (start, to_chart(start, BAD)), (None, BAD), strict=True
    ):

        def value(beta: Tensor, chart: Tensor | None = chart) -> Tensor:
            return hill(beta if chart is None else beta @ chart.T)

        found = maximise(
            value, first, manifold, optimiser=partial(RiemannianAdam, lr=0.1), max_steps=300
        )
        assert float((best.value - found.value).max()) < 1e-3
    for _ in range(300):
        search.zero_grad()
        (-hill(plain @ BAD.T)).sum().backward()
        search.step()
    assert float((best.value - hill(plain.detach() @ BAD.T)).max()) > 0.1


# ---- geodesics and transport ---------------------------------------------------------------------


def test_exponential_steps_follow_geodesics() -> None:
    """One step of plain descent from the half-plane's point is its geodesic in closed form."""
    manifold = FisherManifold(normal_law, allow_incomplete=True, eps=0.0, nodes="c15n10")
    beta = tensor(0.3, 0.8).requires_grad_()
    search = RiemannianGD(
        [beta], manifold, lr=0.2, line_search=False, retraction="exp", maximize=True
    )
    (beta[0] + 2.0 * beta[1]).backward()
    step = 0.2 * tensor(0.64, 0.32 * 2.0)  # G^-1 = sd^2 diag(1, 1/2)
    want = half_plane_exp(tensor(0.3, 0.8), step)
    search.step()
    torch.testing.assert_close(beta.detach(), want, rtol=0, atol=1e-7)


@pytest.mark.parametrize("exact", [False, True])
def test_parallel_momentum_keeps_its_length_and_is_the_manifolds_own(exact: bool) -> None:
    manifold = FisherManifold(normal_law, allow_incomplete=True, eps=0.0, nodes="c15n10")
    start, step = tensor(0.3, 0.8).expand(2, 2), torch.stack([tensor(0.1, 0.05), tensor(0.0, 0.2)])
    vector = torch.stack([tensor(1.0, 0.3), tensor(-0.4, 1.0)])
    curve = follow(manifold, start, step, exact=exact, whole=True)
    found = transported(manifold, start, step, curve, vector)
    end = curve.points[-1]
    torch.testing.assert_close(
        manifold.norm(end, found), manifold.norm(start, vector), rtol=1e-5, atol=0
    )
    for row in range(2):
        way = torch.stack([start[row], end[row]])
        if exact:
            way = manifold.geodesic(start[row], step[row], points=65).path
        want = manifold.parallel_transport(way, vector[row], steps=64 if not exact else 4)
        torch.testing.assert_close(found[row], want, rtol=0, atol=2e-5)


def test_parallel_momentum_moves_otherwise_than_projected() -> None:
    law, ends = network_law(FACTORS, 2), []
    for transport in ("projected", "parallel"):
        beta = (0.5 * draws(2, FACTORS, seed=2)).requires_grad_()
        search = RiemannianAdam([beta], FisherManifold(law), transport=transport, lr=0.2)
        ends.append(run(search, beta, risk_adjusted_return(law, 0.25)))
    assert float((ends[0] - ends[1]).abs().max()) > 1e-4


# ---- Armijo --------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("maximize", [False, True])
def test_the_search_never_lets_the_loss_rise(maximize: bool, momentum: float) -> None:
    beta = (3.0 * draws(ROWS, FACTORS, seed=5)).requires_grad_()
    search = RiemannianGD([beta], flat, lr=10.0, maximize=maximize, momentum=momentum)
    sign = -1.0 if maximize else 1.0

    def closure() -> Tensor:
        search.zero_grad()
        loss = sign * wavy(beta)
        loss.sum().backward()
        return loss.detach()

    losses = torch.stack([search.step(closure) for _ in range(60)]) * sign  # type: ignore[misc]
    assert bool((losses.diff(dim=0) <= 1e-12).all())
    assert float((losses[0] - losses[-1]).min()) > 1.0
    slope = search.state[beta]["slope"]
    assert float(slope.max()) < (1e-4 if momentum == 0.0 else 1.0)


def test_without_the_search_the_same_step_diverges() -> None:
    beta = draws(ROWS, FACTORS, seed=5).requires_grad_()
    search = RiemannianGD([beta], flat, lr=10.0, line_search=False)
    assert float(run(search, beta, wavy).abs().max()) > 1e10


def test_rows_search_on_their_own() -> None:
    """A row ends where it would alone."""
    start = 3.0 * draws(ROWS, FACTORS, seed=5)
    together = maximise(lambda beta: -wavy(beta), start, flat, max_steps=7)
    alone = maximise(lambda beta: -wavy(beta), start[2:3], flat, max_steps=7)
    torch.testing.assert_close(together.point[2:3], alone.point, rtol=1e-13, atol=0)


def test_one_loss_of_several_parameters_has_one_step() -> None:
    first, second = (draws(n, 2, seed=n).requires_grad_() for n in (2, 3))
    search = RiemannianGD([first, second], flat)

    def closure() -> Tensor:
        search.zero_grad()
        loss = wavy(first).sum() + 3.0 * wavy(second).sum()
        loss.backward()
        return loss.detach()

    losses = [float(search.step(closure) or 0.0) for _ in range(40)]
    assert max(after - before for before, after in pairwise(losses)) <= 1e-12
    assert losses[0] - losses[-1] > 5.0


# ---- ascent and starts ---------------------------------------------------------------------------


def test_the_top_of_a_normal_law_in_closed_form() -> None:
    """``mu - lambda sd^2 - (mu^2 + log(sd)^2) / 2`` has its top where its gradient is 0."""
    aversion = 0.7
    value = risk_adjusted_return(log_normal_law, aversion)

    def hill(beta: Tensor) -> Tensor:
        return value(beta) - 0.5 * beta.square().sum(-1)

    start = torch.stack([tensor(0.0, 0.0), tensor(-1.0, 0.5), tensor(2.0, -1.0)])
    found = maximise(hill, start, FisherManifold(log_normal_law))
    log_sd = 0.0
    for _ in range(60):  # Newton on 2 lambda exp(2 x) + x = 0
        bend = 4.0 * aversion * math.exp(2.0 * log_sd) + 1.0
        log_sd -= (2.0 * aversion * math.exp(2.0 * log_sd) + log_sd) / bend
    assert bool(found.converged.all())
    torch.testing.assert_close(found.point, tensor(1.0, log_sd).expand(3, 2), rtol=0, atol=1e-6)
    assert found.path.shape == (len(found.path), 3, 2)
    assert torch.equal(found.path[0], start)
    assert torch.equal(found.path[-1], found.point)
    assert found.evaluations >= len(found.path)
    assert bool(found.mahalanobis.isnan().all())
    assert int(found.iterations.max()) == len(found.path) - 1


def test_a_row_that_has_not_arrived_says_so() -> None:
    start = torch.stack([tensor(0.5, 0.5), tensor(9.0, -9.0)])
    found = maximise(lambda beta: -(beta - 0.5).square().sum(-1), start, flat, max_steps=1)
    assert found.converged.tolist() == [True, False]
    assert float(found.slope[0]) == 0.0
    assert float(found.slope[1]) > 1.0


def two_hills(beta: Tensor) -> Tensor:
    """Tops near (-2, 0) and, higher, (2, 0)."""
    left, right = beta - tensor(-2.0, 0.0), beta - tensor(2.0, 0.0)
    return (-left.square().sum(-1)).exp() + 1.5 * (-right.square().sum(-1)).exp()


def test_starts_find_the_higher_of_two_hills() -> None:
    cloud = 1.5 * draws(40, 2, seed=7)
    manifold = FisherManifold(network_law(2, 2), background=cloud)
    low = maximise(two_hills, tensor(-1.5, 0.2), manifold)
    found = best_of_starts(two_hills, manifold, 12, seed=3, max_steps=200, tolerance=1e-6)
    assert float(low.value) < 1.1
    assert found.converged
    assert found.value == pytest.approx(1.5, abs=1e-3)
    torch.testing.assert_close(found.point, tensor(2.0, 0.0), rtol=0, atol=1e-3)
    ended = found.basin >= 0
    right = found.ascent.point[..., 0] > 0
    assert bool(((found.basin == 0) == (ended & right)).all())
    assert set(found.basin[ended].tolist()) == {0, 1}
    assert found.share == pytest.approx(float((found.basin == 0).double().mean()))
    assert bool(torch.isfinite(found.ascent.mahalanobis).all())


def test_drawn_starts_are_the_seeds() -> None:
    manifold = FisherManifold(network_law(2, 2), background=draws(40, 2, seed=7))
    before = torch.get_rng_state()
    runs = [
        best_of_starts(two_hills, manifold, 3, seed=seed, max_steps=1).ascent.path[0]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(torch.get_rng_state(), before)


# ---- bad input -----------------------------------------------------------------------------------


def singular(beta: Tensor) -> Tensor:
    return torch.ones(*beta.shape, beta.shape[-1], dtype=torch.float64)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_start_must_be_finite_exposures(kind: Any) -> None:
    with pytest.raises(SpecError, match=r"start must be finite; .* parameter 0 at row 1"):
        kind([tensor(1.0, math.nan).reshape(2, 1).requires_grad_()], flat)
    with pytest.raises(SpecError, match=r"float64"):
        kind([torch.zeros(2, requires_grad=True)], flat)
    with pytest.raises(SpecError, match=r"lr must be finite and > 0; got -1.0"):
        kind([tensor(1.0).requires_grad_()], flat, lr=-1.0)
    with pytest.raises(SpecError, match=r"retraction must be one of add, exp; got 'cut'"):
        kind([tensor(1.0).requires_grad_()], flat, retraction="cut")
    with pytest.raises(SpecError, match=r"must have a FisherManifold; got a metric alone"):
        kind([tensor(1.0).requires_grad_()], flat, transport="parallel")


def test_options_have_ranges() -> None:
    beta = tensor(1.0).requires_grad_()
    with pytest.raises(SpecError, match=r"momentum must be in"):
        RiemannianGD([beta], flat, momentum=1.0)
    with pytest.raises(SpecError, match=r"betas must lie in"):
        RiemannianAdam([beta], flat, betas=(0.9, 1.0))
    with pytest.raises(SpecError, match=r"options must be among .*; got weight_decay"):
        RiemannianAdam([beta], flat, weight_decay=0.1)
    with pytest.raises(SpecError, match=r"second_moment must be one of"):
        RiemannianAdaGrad([beta], flat, second_moment="matrix")


@pytest.mark.parametrize(
    "metric", [singular, FisherManifold(log_normal_law, 0.0, allow_incomplete=True)]
)
def test_a_singular_metric_is_refused(metric: Any) -> None:
    """An exact one, and one of two exposures that the law sees as one, to rounding."""
    if isinstance(metric, FisherManifold):
        metric = FisherManifold(
            lambda beta: log_normal_law(beta.sum(-1, keepdim=True) * tensor(0.3, 0.7)),
            0.0,
            allow_incomplete=True,
        )
    beta = draws(ROWS, 2, seed=1).requires_grad_()
    search = RiemannianAdam([beta], metric)
    wavy(beta).sum().backward()
    with pytest.raises(SpecError, match=r"metric must be positive definite; got a singular one"):
        search.step()


def test_a_metric_of_another_shape_or_a_bad_gradient_is_refused() -> None:
    beta = draws(ROWS, 2, seed=1).requires_grad_()
    wavy(beta).sum().backward()
    with pytest.raises(ShapeError, match=r"metric must have shape"):
        RiemannianAdam([beta], lambda point: point).step()
    assert beta.grad is not None
    beta.grad[3, 0] = math.inf
    with pytest.raises(SpecError, match=r"gradient must be finite; .* at row 3"):
        RiemannianAdam([beta], flat).step()


def test_the_search_needs_a_closure_with_a_fitting_loss() -> None:
    beta = draws(ROWS, 2, seed=1).requires_grad_()
    with pytest.raises(SpecError, match=r"line_search must have a closure"):
        RiemannianGD([beta], flat).step()

    def closure() -> Tensor:
        wavy(beta).sum().backward()
        return torch.zeros(2)

    with pytest.raises(SpecError, match=r"loss must be a scalar, or by row of a single parameter"):
        RiemannianGD([beta], flat).step(closure)


def test_ascent_refuses_what_it_cannot_use() -> None:
    with pytest.raises(SpecError, match=r"start must be finite"):
        maximise(two_hills, tensor(0.0, math.inf), flat)
    with pytest.raises(SpecError, match=r"max_steps must be at least 1"):
        maximise(two_hills, tensor(0.0, 0.0), flat, max_steps=0)
    with pytest.raises(SpecError, match=r"loss must be finite"):
        maximise(lambda beta: beta.sum(-1).log(), tensor(-1.0, 0.0), flat)
    manifold = FisherManifold(log_normal_law)
    with pytest.raises(SpecError, match=r"drawn from a cloud; got a manifold without a cloud"):
        best_of_starts(two_hills, manifold, 4)
    with pytest.raises(SpecError, match=r"starts must be exposures"):
        best_of_starts(two_hills, manifold, tensor(0.0, 0.0))
