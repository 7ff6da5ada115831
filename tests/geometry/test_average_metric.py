"""The average metric along a shift that all exposures share."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import jacfwd

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry import AverageManifold, FisherManifold
from tests.geometry.closed_laws import (
    draws,
    log_normal_law,
    network_law,
    pricing_law,
    single_component,
    tensor,
)

ASSETS = 11
WEIGHTS = torch.softmax(draws(ASSETS, seed=8), 0)


def average(n_factors: int = 3, n_components: int = 2) -> AverageManifold:
    manifold = FisherManifold(network_law(n_factors, n_components))
    return AverageManifold(manifold, draws(ASSETS, n_factors, seed=4), WEIGHTS)


# ---- metric --------------------------------------------------------------------------------------


def test_one_normal_in_closed_form() -> None:
    """Mean and log sd: diag(E exp(-2 log sd), 2)."""
    beta = draws(ASSETS, 2, seed=1)
    manifold = FisherManifold(log_normal_law, 0.0, nodes="c15n10")
    found = AverageManifold(manifold, beta, WEIGHTS)
    shift = tensor(0.4, -0.3)
    want = torch.diag(torch.stack([WEIGHTS @ (-2 * (beta[:, 1] - 0.3)).exp(), tensor(2.0)[0]]))
    torch.testing.assert_close(found.metric(shift), want, rtol=1e-12, atol=1e-13)


def test_it_is_the_weighted_mean_of_the_assets() -> None:
    found, shifts = average(), 0.3 * draws(2, 5, 3, seed=2)
    metric = found.metric(shifts)
    assert metric.shape == (2, 5, 3, 3)
    moved = found.beta + shifts[1, 3]
    want = sum(w * g for w, g in zip(WEIGHTS, found.manifold.metric(moved), strict=True))
    torch.testing.assert_close(metric[1, 3], want)
    gap = found.metric(shifts) - found.metric(shifts, damped=False)
    torch.testing.assert_close(gap, (torch.eye(3).double() / 252).expand_as(gap))
    torch.testing.assert_close(found.metric(), found.metric(torch.zeros(3)))


def test_one_asset_is_the_manifold_itself() -> None:
    manifold = FisherManifold(network_law(3, 2))
    beta, shift = draws(1, 3, seed=4), draws(7, 3, seed=5)
    found = AverageManifold(manifold, beta)
    torch.testing.assert_close(found.metric(shift), manifold.metric(beta + shift))
    torch.testing.assert_close(found.christoffel(shift), manifold.christoffel(beta + shift, kind=1))
    torch.testing.assert_close(found.spectrum(shift)[0], manifold.spectrum(beta + shift)[0])


def test_the_order_of_assets_and_a_split_of_weight_do_not_matter() -> None:
    found = average()
    turned = AverageManifold(found.manifold, found.beta.flip(0), WEIGHTS.flip(0))
    torch.testing.assert_close(turned.metric(), found.metric())
    split = AverageManifold(
        found.manifold,
        torch.cat([found.beta, found.beta[:1]]),
        torch.cat([0.5 * WEIGHTS[:1], WEIGHTS[1:], 0.5 * WEIGHTS[:1]]),
    )
    torch.testing.assert_close(split.metric(), found.metric())
    zero = torch.cat([WEIGHTS, tensor(0.0)])
    more = AverageManifold(found.manifold, torch.cat([found.beta, 9 + found.beta[:1]]), zero)
    torch.testing.assert_close(more.metric(), found.metric())


def test_christoffel_symbols_are_those_of_the_metric() -> None:
    found, shift = average(), tensor(0.1, -0.2, 0.3)
    gamma = found.christoffel(shift)
    step = 1e-4
    moves = step * torch.eye(3, dtype=torch.float64)
    slope = (found.metric(shift + moves) - found.metric(shift - moves)) / (2 * step)  # (i, j, k)
    want = 0.5 * (slope.permute(1, 0, 2) + slope.permute(1, 2, 0) - slope)
    torch.testing.assert_close(gamma, want, rtol=1e-4, atol=2e-6)
    torch.testing.assert_close(gamma, gamma.mT)


def test_lengths_are_those_of_the_metric() -> None:
    found, shift, vector = average(), draws(5, 3, seed=1), draws(5, 3, seed=2)
    want = torch.einsum("ni,nij,nj->n", vector, found.metric(shift), vector)
    torch.testing.assert_close(found.norm(shift, vector).square(), want)
    torch.testing.assert_close(found.inner(shift, vector, vector), want)


def test_different_assets_see_different_directions() -> None:
    """One component tells two directions of five apart; eleven assets tell all."""
    manifold = FisherManifold(single_component(5), 1e-6)
    found = AverageManifold(manifold, draws(ASSETS, 5, seed=4))
    assert int(manifold.effective_rank(found.beta, floor=1e-9).max()) == 2
    assert int(found.effective_rank(floor=1e-9)) == 5
    assert float(found.condition()) < 1e6
    assert not float(manifold.condition(found.beta[0])) < 1e9


# ---- movement ------------------------------------------------------------------------------------


def test_movement_is_the_root_of_twice_the_divergence() -> None:
    found, line = average(), tensor(0.6, -0.3, 0.8)
    moved = found.movement(line[None])

    def divergence(size: Tensor) -> Tensor:
        """Mean over assets of the Kullback-Leibler divergence, by a fine sum."""
        grid = torch.linspace(-40.0, 40.0, 40_001, dtype=torch.float64)
        here, there = (_log_density(found, found.beta + s * line, grid) for s in (0.0, size))
        return WEIGHTS @ ((here.exp() * (here - there)).sum(-1) * (grid[1] - grid[0]))

    second = jacfwd(jacfwd(divergence))(torch.zeros((), dtype=torch.float64))
    want = float(second.sqrt())
    assert float(moved.by_direction["movement"][0]) == pytest.approx(want, rel=1e-6)


def _log_density(found: AverageManifold, beta: Tensor, grid: Tensor) -> Tensor:
    logits, loc, log_scale = found.manifold.pricing(beta)
    z = (grid[:, None, None] - loc) / log_scale.exp()
    log_joint = torch.log_softmax(logits, -1) - log_scale - 0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    return torch.logsumexp(log_joint, -1).T


def test_figures_by_direction_in_closed_form() -> None:
    """Two assets with log sd 0 and log 2, three quarters and one quarter of the weight."""
    beta = torch.stack([tensor(1.0, 0.0), tensor(3.0, math.log(2.0))])
    weights = tensor(0.75, 0.25)
    manifold = FisherManifold(log_normal_law, 1e-12, nodes="c15n10", precision=torch.eye(2))
    moved = AverageManifold(manifold, beta, weights).movement(names=("mean", "log sd"))
    row = moved.by_direction.sel(direction="mean")
    squared = 0.75 * 1.0 + 0.25 * 0.25
    spread = math.sqrt(0.75 * 0.25) * 2.0
    assert float(row["movement"]) == pytest.approx(math.sqrt(squared), rel=1e-10)
    assert float(row["own_movement"]) == pytest.approx(math.sqrt(squared), rel=1e-10)
    assert float(row["spread"]) == pytest.approx(spread, rel=1e-12)
    assert float(row["spread_movement"]) == pytest.approx(spread * math.sqrt(squared), rel=1e-10)
    carried = squared**2 / (0.75**2 + (0.25 * 0.25) ** 2)
    assert float(row["n_effective"]) == pytest.approx(carried, rel=1e-10)
    assert float(row["returns_needed"]) == pytest.approx(4 / (spread**2 * squared), rel=1e-10)
    np.testing.assert_allclose(moved.by_asset.sel(direction="mean"), [1.0, 0.5], rtol=1e-10)
    assert moved.effective_rank == 2


def test_a_direction_that_others_imitate_has_no_movement_of_its_own() -> None:
    """A law of beta_0 + beta_1 and beta_2: neither of the first two can be told alone."""

    def law(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return log_normal_law(torch.stack([beta[..., 0] + beta[..., 1], 0.3 * beta[..., 2]], -1))

    found = AverageManifold(FisherManifold(law, 1e-8), draws(ASSETS, 3, seed=4)).movement()
    table = found.by_direction
    assert bool((table["movement"] > 0.3).all())
    assert float(table["own_movement"][0]) < 1e-3
    assert float(table["own_movement"][2]) == pytest.approx(float(table["movement"][2]), rel=1e-6)
    assert found.effective_rank == 2


def test_own_movement_is_the_shortest_of_its_kind() -> None:
    found, line = average(), tensor(0.6, -0.3, 0.8)
    own = float(found.movement(line[None]).by_direction["own_movement"][0])
    across = draws(200, 3, seed=3)
    across = across - (across @ line).unsqueeze(-1) * line / line.square().sum()
    metric = found.metric(damped=False)
    tried = line + across
    assert float((tried @ metric * tried).sum(-1).sqrt().min()) >= own - 1e-12
    raised = torch.linalg.inv(metric) @ line
    best = raised * line.square().sum() / (line @ raised)
    assert float(best @ metric @ best) ** 0.5 == pytest.approx(own, rel=1e-10)
    assert own < float(found.movement(line[None]).by_direction["movement"][0])


def test_units_of_exposure_scale_out() -> None:
    found = average()
    twice = found.movement(2 * torch.eye(3).double()).by_direction
    once = found.movement().by_direction
    for name, power in (("movement", 2), ("own_movement", 2), ("spread", 0.5)):
        np.testing.assert_allclose(twice[name], power * once[name].values, rtol=1e-10)
    for name in ("spread_movement", "n_effective", "returns_needed"):
        np.testing.assert_allclose(twice[name], once[name].values, rtol=1e-10)


def test_a_law_that_nothing_moves() -> None:
    def law(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return log_normal_law(torch.stack([beta[..., 0], 0 * beta[..., 0]], -1))

    beta = draws(ASSETS, 2, seed=1)
    table = AverageManifold(FisherManifold(law), beta).movement().by_direction
    assert float(table["movement"][1]) == 0.0
    assert float(table["own_movement"][1]) == 0.0
    assert math.isnan(float(table["n_effective"][1]))
    assert math.isinf(float(table["returns_needed"][1]))


def test_a_date_has_its_own_assets_and_factors() -> None:
    law = pricing_law(3, 2)
    found = AverageManifold(FisherManifold(law))
    moved = found.movement()
    assert list(moved.by_asset["asset"].values) == list(law.assets)
    assert list(moved.by_direction["direction"].values) == list(law.factors)
    assert bool(np.isfinite(moved.by_direction.to_array()).all())
    root = np.sqrt((moved.by_asset**2).mean("asset"))
    np.testing.assert_allclose(root, moved.by_direction["movement"], rtol=1e-12)


# ---- what it refuses -----------------------------------------------------------------------------


def test_it_refuses() -> None:
    manifold, beta = FisherManifold(network_law(3, 2)), draws(ASSETS, 3, seed=4)
    with pytest.raises(SpecError, match="must be over exposures; got none"):
        AverageManifold(manifold)
    with pytest.raises(ShapeError, match="\\(asset, factor\\) with 1 asset"):
        AverageManifold(manifold, beta[0])
    with pytest.raises(ShapeError, match="\\(asset, factor\\) with 1 asset"):
        AverageManifold(manifold, beta[:0])
    with pytest.raises(SpecError, match=r"beta must be finite.*row 2"):
        AverageManifold(manifold, beta.index_fill(0, torch.tensor([2]), math.nan))
    with pytest.raises(ShapeError, match="one by asset"):
        AverageManifold(manifold, beta, WEIGHTS[:3])
    with pytest.raises(SpecError, match="add up to 1; got a sum of 2"):
        AverageManifold(manifold, beta, 2 * WEIGHTS)
    short = WEIGHTS.clone()
    short[0], short[1] = -0.1, WEIGHTS[0] + WEIGHTS[1] + 0.1
    with pytest.raises(SpecError, match=r"at least 0.*at 0"):
        AverageManifold(manifold, beta, short)
    with pytest.raises(SpecError, match=r"at least 0.*at 3"):
        AverageManifold(manifold, beta, WEIGHTS.index_fill(0, torch.tensor([3]), math.nan))
    found = AverageManifold(manifold, beta)
    with pytest.raises(ShapeError, match="shift must end in"):
        found.metric(torch.zeros(2))
    with pytest.raises(ShapeError, match="vectors must end in"):
        found.norm(torch.zeros(3), torch.zeros(2))
    with pytest.raises(SpecError, match="a direction must not be 0; got 0 at direction 1"):
        found.movement(torch.eye(3)[:2] * tensor(1.0, 0.0)[:, None])
    with pytest.raises(ShapeError, match="a name for each"):
        found.movement(names=("one", "two"))
