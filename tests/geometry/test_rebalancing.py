"""Smallest trades and rebalancing: closed forms by hand, caps against SLSQP, bands, bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.optimize import minimize

from nfi_pyro.errors import ShapeError, SpecError, WeightsError
from nfi_pyro.geometry import (
    FisherManifold,
    Rebalancing,
    Trade,
    TradeRule,
    no_trade_band,
    rebalance,
    smallest_trade,
)
from nfi_pyro.posterior import PricingLaw
from nfi_pyro.posterior.covariance import LowRankCovariance
from tests.geometry.closed_laws import pricing_law

ASSETS, FACTORS = 11, 2


@pytest.fixture(scope="module")
def law() -> PricingLaw:
    return pricing_law(FACTORS, 1, rows=ASSETS)


@pytest.fixture(scope="module")
def manifold(law: PricingLaw) -> FisherManifold:
    return FisherManifold(law)


@pytest.fixture(scope="module")
def covariance(law: PricingLaw) -> LowRankCovariance:
    rng = np.random.default_rng(5)
    loadings = 0.01 * law.beta.numpy() @ np.diag([1.0, 0.5])
    order = rng.permutation(ASSETS)  # the covariance need not have the law's order
    specific = rng.uniform(1e-4, 4e-4, ASSETS)
    return LowRankCovariance(law.assets[order], loadings[order], specific)


@pytest.fixture(scope="module")
def current(law: PricingLaw) -> dict[str, float]:
    share = np.random.default_rng(6).dirichlet(np.ones(ASSETS))
    return dict(zip(law.assets, share, strict=True))


@pytest.fixture(scope="module")
def target(law: PricingLaw) -> np.ndarray:
    return np.array([0.4, -0.3]) + law.beta.numpy().mean(0)


def _dense(law: PricingLaw, covariance: LowRankCovariance) -> np.ndarray:
    place = [list(covariance.assets).index(name) for name in law.assets]
    return covariance.dense()[np.ix_(place, place)]


# ---- smallest trade ------------------------------------------------------------------------------


def test_one_factor_by_hand(law: PricingLaw) -> None:
    beta = torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64)
    small = replace(law, beta=beta, assets=np.array(["a", "b", "c"]), factors=("z0",))
    covariance = LowRankCovariance(small.assets, np.zeros((3, 1)), np.ones(3))
    free = smallest_trade(
        small,
        covariance,
        current={"a": 1.0},
        target=np.array([4.0]),
        rule=TradeRule(keep_sum=False),
    )
    np.testing.assert_allclose(free.trade, np.array([1.0, 2.0, -1.0]) * 3.0 / 6.0)
    assert free.size == pytest.approx(3.0 / np.sqrt(6.0))
    assert free.turnover == pytest.approx(1.0)
    kept = smallest_trade(small, covariance, current={"a": 1.0}, target=np.array([4.0]))
    centred = np.array([1.0, 2.0, -1.0]) - 2.0 / 3.0  # 1'd = 0: exposures about their mean
    np.testing.assert_allclose(kept.trade, centred * 3.0 / (centred @ centred), atol=1e-14)
    assert kept.multiplier == 0.0
    assert float(kept.weights.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("measure", ["norm", "variance", "costs"])
@pytest.mark.parametrize("keep_sum", [True, False])
def test_trade_is_the_projection_in_its_measure(
    law, covariance, current, target, measure, keep_sum
) -> None:
    costs = dict(zip(law.assets, np.linspace(0.5, 3.0, ASSETS), strict=True))
    matrix = {
        "norm": np.eye(ASSETS),
        "variance": _dense(law, covariance),
        "costs": np.diag(list(costs.values())),
    }[measure]
    rule = TradeRule(costs if measure == "costs" else measure, keep_sum=keep_sum)
    found = smallest_trade(law, covariance, current=current, target=target, rule=rule)
    columns = law.beta.numpy()
    start = np.array(list(current.values()))
    gap = target - columns.T @ start
    if keep_sum:
        columns, gap = np.column_stack([columns, np.ones(ASSETS)]), np.append(gap, 0.0)
    reach = np.linalg.solve(matrix, columns)
    oracle = reach @ np.linalg.solve(columns.T @ reach, gap)
    np.testing.assert_allclose(found.trade, oracle, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.exposure, target, rtol=1e-10)
    assert found.size == pytest.approx(np.sqrt(oracle @ matrix @ oracle))
    assert found.variance == pytest.approx(
        found.weights.to_numpy() @ _dense(law, covariance) @ found.weights.to_numpy()
    )


@pytest.mark.parametrize("measure", ["norm", "variance"])
def test_variance_cap_agrees_with_slsqp(law, covariance, current, target, measure) -> None:
    sigma, beta = _dense(law, covariance), law.beta.numpy()
    start = np.array(list(current.values()))

    def solve(cap: float | None) -> Trade:
        rule = TradeRule(measure, cap)
        return smallest_trade(law, covariance, current=current, target=target, rule=rule)

    free = solve(None)
    columns = np.column_stack([beta, np.ones(ASSETS)])
    reach = np.linalg.solve(sigma, columns)
    aim = np.append(target, start.sum())
    least = float(aim @ np.linalg.solve(columns.T @ reach, aim))
    cap = 0.6 * free.variance + 0.4 * least
    found = solve(cap)
    assert found.variance == pytest.approx(cap, rel=1e-9)
    assert found.multiplier > 0.0
    matrix = np.eye(ASSETS) if measure == "norm" else 1e4 * sigma

    oracle = minimize(
        lambda d: float(d @ matrix @ d),
        free.trade.to_numpy(),
        jac=lambda d: 2.0 * matrix @ d,
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
        constraints=[
            {
                "type": "eq",
                "fun": lambda d: columns.T @ (start + d) - aim,
                "jac": lambda _: columns.T,
            },
            {
                "type": "ineq",
                "fun": lambda d: 1e4 * (cap - (start + d) @ sigma @ (start + d)),
                "jac": lambda d: -2e4 * sigma @ (start + d),
            },
        ],
    )
    assert oracle.success
    np.testing.assert_allclose(found.trade, oracle.x, atol=2e-6)
    step = 1e-5 * cap  # the multiplier is the price of the cap
    slope = (solve(cap + step).size ** 2 - solve(cap - step).size ** 2) / (2.0 * step)
    assert found.multiplier == pytest.approx(-slope, rel=1e-4)
    tight = solve(least)  # exactly what is possible
    np.testing.assert_allclose(tight.weights, reach @ np.linalg.solve(columns.T @ reach, aim))
    with pytest.raises(
        SpecError, match=r"max_variance must leave room .* below the least variance"
    ):
        solve(0.99 * least)
    loose = solve(1.01 * free.variance)
    np.testing.assert_array_equal(loose.trade, free.trade)


def test_target_goes_by_its_names_and_the_order_of_assets_does_not_matter(
    law, covariance, current, target
) -> None:
    found = smallest_trade(law, covariance, current=current, target=target)
    named = xr.DataArray(target[::-1], {"factor": list(law.factors[::-1])}, "factor")
    order = np.random.default_rng(7).permutation(ASSETS)
    turned = replace(law, beta=law.beta[order], assets=law.assets[order])
    other = smallest_trade(turned, covariance, current=current, target=named)
    np.testing.assert_allclose(other.weights.sel(asset=law.assets), found.weights, atol=1e-12)


# ---- along the geodesic --------------------------------------------------------------------------


def _rebalance(manifold, covariance, current, target, **options) -> Rebalancing:
    return rebalance(manifold, covariance, current=current, target=target, **options)


def test_steps_are_equal_parts_of_the_geodesic(manifold, covariance, current, target) -> None:
    found = _rebalance(manifold, covariance, current, target, steps=5)
    law = manifold.pricing
    beta, path = law.beta.numpy(), torch.from_numpy(found.exposure.to_numpy())
    np.testing.assert_allclose(found.weights.to_numpy() @ beta, path, rtol=1e-9)
    np.testing.assert_array_equal(found.weights[0], list(current.values()))
    np.testing.assert_allclose(found.exposure[-1], target, rtol=1e-10)
    np.testing.assert_allclose(
        found.weights.diff("step"), found.trade.isel(step=slice(1, None)), atol=1e-15
    )
    parts = manifold.distance(path[:-1], path[1:])
    np.testing.assert_allclose(parts, found.decision.distance / 5, rtol=1e-3)
    np.testing.assert_allclose(
        found.steps["travelled"], np.linspace(0.0, found.decision.distance, 6)
    )
    turnover = 0.5 * np.abs(found.trade.to_numpy()).sum(axis=1)
    np.testing.assert_allclose(found.steps["turnover"], turnover)
    assert found.decision.distance <= found.decision.line_distance * (1.0 + 1e-6)
    assert found.traded
    assert found.date == law.date


def test_without_a_cap_the_end_does_not_know_the_path(
    manifold, covariance, current, target
) -> None:
    rule = TradeRule("variance")
    once = smallest_trade(manifold.pricing, covariance, current=current, target=target, rule=rule)
    found = _rebalance(manifold, covariance, current, target, rule=rule, steps=4)
    np.testing.assert_allclose(found.weights[-1], once.weights, atol=1e-11)


def test_every_step_keeps_the_cap_and_a_broken_one_names_its_step(
    manifold, covariance, current, target
) -> None:
    once = smallest_trade(manifold.pricing, covariance, current=current, target=target)
    cap = 0.97 * once.variance
    found = _rebalance(manifold, covariance, current, target, rule=TradeRule(max_variance=cap))
    assert (found.steps["variance"][1:] <= cap * (1.0 + 1e-9)).all()
    assert (found.steps["multiplier"] > 0.0).any()
    with pytest.raises(SpecError, match=r"max_variance must leave room .* at step \d of rebalance"):
        _rebalance(manifold, covariance, current, target, rule=TradeRule(max_variance=1e-9))


def test_band_is_a_geodesic_distance(manifold, covariance, current, target) -> None:
    law = manifold.pricing
    start = law.beta.numpy().T @ np.array(list(current.values()))
    ends = torch.from_numpy(start), torch.from_numpy(target)
    whole = float(manifold.distance(*ends))
    wide = no_trade_band(manifold, start, target, whole * 1.01)
    assert wide.inside
    np.testing.assert_array_equal(wide.edge, start)
    still = _rebalance(manifold, covariance, current, target, band=whole * 1.01)
    assert not still.traded
    assert still.steps.sizes["step"] == 1
    assert float(still.steps["turnover"].sum()) == 0.0
    np.testing.assert_array_equal(still.weights[0], list(current.values()))
    narrow = no_trade_band(manifold, start, target, 0.25 * whole)
    assert not narrow.inside
    assert narrow.distance == pytest.approx(whole, rel=1e-5)
    edge = torch.from_numpy(narrow.edge)
    assert float(manifold.distance(edge, ends[1])) == pytest.approx(0.25 * whole, rel=1e-4)
    assert float(manifold.distance(ends[0], edge)) == pytest.approx(0.75 * whole, rel=1e-4)
    # At the edge there is nothing left to do but what the band forgives.
    there = _rebalance(manifold, covariance, current, narrow.edge, steps=1)
    again = dict(zip(law.assets, there.weights[-1].to_numpy(), strict=True))
    assert not _rebalance(manifold, covariance, again, target, band=0.2501 * whole).traded
    same = no_trade_band(manifold, start, start, 0.0)
    assert same.inside
    assert same.distance == pytest.approx(0.0, abs=1e-12)
    assert not same.extrapolated
    away = target + np.array([6.0, 0.0])
    assert no_trade_band(manifold, start, away, 99.0).extrapolated


# ---- bad input -----------------------------------------------------------------------------------


def test_bad_portfolios_and_targets_are_refused_by_name(law, covariance, current, target) -> None:
    def trade(**changed: object) -> Trade:
        options = {"current": current, "target": target} | changed
        return smallest_trade(law, covariance, **options)

    with pytest.raises(WeightsError, match="got unknown B7"):
        trade(current={"B7": 0.5})
    with pytest.raises(WeightsError, match="weights must be finite numbers; got others at A3"):
        trade(current={"A3": np.nan})
    with pytest.raises(SpecError, match="target must be finite; got others for z1"):
        trade(target=np.array([0.0, np.inf]))
    with pytest.raises(ShapeError, match=r"target must be exposures of shape \(2,\); got \(3,\)"):
        trade(target=np.zeros(3))
    with pytest.raises(ShapeError, match="target must have the law's factors; got a, b"):
        trade(target=xr.DataArray(np.zeros(2), {"factor": ["a", "b"]}, "factor"))
    costs = dict.fromkeys(law.assets, 1.0) | {"A0": 0.0}
    del costs["A2"]
    with pytest.raises(WeightsError, match=r"costs must be > 0 .* A0, A2"):
        trade(rule=TradeRule(costs))
    with pytest.raises(SpecError, match="measure must be one of norm, variance"):
        trade(rule=TradeRule("cost"))
    with pytest.raises(SpecError, match="max_variance must be > 0 and finite; got -1"):
        trade(rule=TradeRule(max_variance=-1.0))


def test_unreachable_exposures_are_refused_by_name(law, covariance, target) -> None:
    twin = replace(law, beta=law.beta[:, [0, 0]])
    with pytest.raises(SpecError, match=r"target exposures must be reachable .* for z0, z1"):
        smallest_trade(twin, covariance, current={}, target=target)
    found = smallest_trade(twin, covariance, current={}, target=np.array([0.3, 0.3]))
    np.testing.assert_allclose(found.exposure, 0.3)
    few = replace(law, beta=law.beta[:2], assets=law.assets[:2])
    with pytest.raises(SpecError, match=r"reachable with the 2 assets .* same sum of weights"):
        smallest_trade(few, covariance, current={}, target=target)


def test_bad_covariances_manifolds_and_options_are_refused(
    law, manifold, covariance, current, target
) -> None:
    short = LowRankCovariance(
        covariance.assets[1:], covariance.loadings[1:], covariance.specific_variance[1:]
    )
    with pytest.raises(
        SpecError, match=f"every asset of the law; got none for {covariance.assets[0]}"
    ):
        smallest_trade(law, short, current=current, target=target)
    flat = replace(covariance, specific_variance=np.zeros(ASSETS))
    with pytest.raises(SpecError, match="covariance must be finite, with specific variances > 0"):
        smallest_trade(law, flat, current=current, target=target)
    with pytest.raises(SpecError, match="band must be >= 0"):
        no_trade_band(manifold, target, target, -0.1)
    with pytest.raises(SpecError, match="steps must be >= 1; got 0"):
        _rebalance(manifold, covariance, current, target, steps=0)
    bare = FisherManifold(lambda beta: law(beta), background=law.beta)
    with pytest.raises(SpecError, match="manifold must be of a PricingLaw"):
        _rebalance(bare, covariance, current, target)
