import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pydantic import ValidationError
from scipy.integrate import quad
from scipy.stats import kstest, norm, t

from nfi_pyro.data.simulate import SimulationSpec, SimulationTruth, simulate_panel
from nfi_pyro.errors import PanelError, ShapeError, SpecError

SMALL = SimulationSpec(n_dates=53, n_assets=11, n_features=5, n_factors=3)
FULL: dict[str, Any] = {"missing_share": 0.0, "late_listing_share": 0.0, "unobserved_share": 0.0}


def _global_state() -> np.ndarray:
    return np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002


def _noise(panel: xr.Dataset, truth: SimulationTruth) -> xr.DataArray:
    law = truth.law
    priced = law["alpha"] + (law["beta"] * law["z"]).sum("factor", skipna=False)
    return (panel["forward_return"] - priced) / law["specific_scale"]


def test_panel_has_the_layout_and_the_flags_of_its_specification() -> None:
    spec = SMALL.model_copy(
        update={"missing_share": 0.1, "late_listing_share": 0.5, "unobserved_share": 0.2}
    )
    panel, _ = simulate_panel(spec, seed=3)
    tradable = panel["tradable"].to_numpy()
    finite = np.isfinite(panel["features"].to_numpy())
    np.testing.assert_array_equal(finite, np.broadcast_to(tradable[..., None], finite.shape))
    assert panel["features"].dtype == panel["forward_return"].dtype == np.float32
    assert panel["features"].dims == ("date", "asset", "feature")
    assert panel["forward_return"].attrs == {"start_lag": 1, "horizon": 1, "unit": "return"}
    observed = panel["forward_return"].notnull().to_numpy()
    assert not (observed & ~tradable).any()
    assert (tradable & ~observed).any()
    assert panel["asset"].values[1] == "A001"
    assert panel.indexes["date"][0] == pd.Timestamp("2010-01-04")
    assert bool((panel["date"].dt.dayofweek < 5).all())


def test_missing_late_and_unobserved_shares_are_as_asked() -> None:
    spec = SimulationSpec(
        n_dates=401, n_assets=53, missing_share=0.1, late_listing_share=0.2, unobserved_share=0.3
    )
    panel, _ = simulate_panel(spec, seed=4)
    tradable = panel["tradable"].to_numpy()
    first = tradable.argmax(axis=0)
    late = first > 25  # a hole of 25 dates from the start has probability 1e-25
    assert late.sum() == int(0.2 * 53)
    assert np.all(first[late] >= 0.1 * 400)
    held = tradable[:, ~late]
    assert held.mean() == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / held.size))
    observed = panel["forward_return"].notnull().to_numpy()[tradable]
    assert observed.mean() == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / observed.size))


def test_nothing_is_missing_when_no_share_is_asked() -> None:
    panel, truth = simulate_panel(SMALL.model_copy(update=FULL), seed=5)
    assert bool(panel["tradable"].all())
    assert bool(panel["forward_return"].notnull().all())
    assert bool(truth.mean.notnull().all())


@pytest.mark.draws
def test_same_seed_same_bits_and_global_generators_are_untouched() -> None:
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    state, other = _global_state(), random.getstate()
    one, truth = simulate_panel(SMALL, seed=7)
    two, again = simulate_panel(SMALL, seed=7)
    three, _ = simulate_panel(SMALL, seed=11)
    xr.testing.assert_identical(one, two)
    xr.testing.assert_identical(truth.law, again.law)
    assert not one["forward_return"].equals(three["forward_return"])
    np.testing.assert_array_equal(_global_state(), state)
    assert random.getstate() == other


def test_an_option_leaves_the_other_draws_alone() -> None:
    base, truth = simulate_panel(SMALL, seed=13)
    fewer, same = simulate_panel(SMALL.model_copy(update={"unobserved_share": 0.4}), seed=13)
    xr.testing.assert_identical(truth.law, same.law)
    kept = fewer["forward_return"].notnull()
    both = kept & base["forward_return"].notnull()
    np.testing.assert_array_equal(
        fewer["forward_return"].values[both], base["forward_return"].values[both]
    )


def test_features_are_standard_normal_series_with_the_asked_persistence() -> None:
    spec = SimulationSpec(n_dates=1501, n_assets=23, n_features=3, persistence=0.8, **FULL)
    panel, _ = simulate_panel(spec, seed=17)
    x = panel["features"].to_numpy().astype(np.float64)
    # Bartlett: n (1 - phi) / (1 + phi) independent values per series; the common tenth of the
    # variance makes the 23 assets count as 1 / (1/23 + 0.1^2) = 18.7 for second moments.
    effective = 3 * 1501 * (0.2 / 1.8) * 18.7
    assert (x**2).mean() == pytest.approx(1.0, abs=4 * math.sqrt(2 / effective))
    lag = (x[1:] * x[:-1]).mean() / (x**2).mean()
    assert lag == pytest.approx(0.8, abs=4 * math.sqrt((1 - 0.64) / (3 * 1500 * 18.7)))
    shared = x.mean(axis=1).var()
    assert shared == pytest.approx(0.1 + 0.9 / 23, rel=0.25)


@pytest.mark.parametrize("tail_dof", [None, 5.0])
def test_draws_follow_the_law(tail_dof: float | None) -> None:
    spec = SimulationSpec(
        n_dates=997,
        n_assets=7,
        tail_dof=tail_dof,
        factor_mean_scale=1.0,
        specific_form="features",
        regime_switch=True,
    )
    panel, truth = simulate_panel(spec, seed=19)
    law = truth.law
    standard = ((law["z"] - law["factor_loc"]) / law["factor_scale"]).to_numpy().ravel()
    assert kstest(standard, norm.cdf).pvalue > 0.001
    noise = _noise(panel, truth).to_numpy()
    noise = noise[~np.isnan(noise)]
    scaled = noise if tail_dof is None else noise / math.sqrt((tail_dof - 2) / tail_dof)
    cdf = norm.cdf if tail_dof is None else t(tail_dof).cdf
    assert kstest(scaled, cdf).pvalue > 0.001
    assert law["regime"].values[0] == 0
    assert set(law["regime"].values) == {0, 1}


def test_mean_and_variance_agree_with_monte_carlo_of_the_law() -> None:
    spec = SMALL.model_copy(update={"tail_dof": 7.0})
    _, truth = simulate_panel(spec, seed=23)
    law = truth.law.isel(date=29)
    rng, draws = np.random.default_rng(0), 200_000
    z = law["factor_loc"].values + law["factor_scale"].values * rng.normal(size=(draws, 3))
    noise = rng.standard_t(7.0, size=(draws, 11)) * math.sqrt(5 / 7)
    y = law["alpha"].values + z @ law["beta"].values.T + law["specific_scale"].values * noise
    kept = truth.mean.isel(date=29).notnull().values
    assert kept.sum() >= 7
    mean, variance = truth.mean.isel(date=29).values, truth.variance.isel(date=29).values
    error = np.sqrt(variance / draws)
    assert np.all(np.abs(y.mean(axis=0) - mean)[kept] < 4.5 * error[kept])
    # Excess kurtosis of a t with 7 degrees of freedom is 2, so var(y^2) <= 4 var(y)^2.
    assert np.all(np.abs(y.var(axis=0) / variance - 1)[kept] < 4.5 * math.sqrt(4 / draws))


def test_law_is_a_function_of_the_visible_features() -> None:
    panel, truth = simulate_panel(SMALL.model_copy(update={"alpha_form": "tanh"}), seed=29)
    x, law = panel["features"].astype(np.float64), truth.law
    signal = (x * law["alpha_weight"]).sum("feature", skipna=False)
    beta = xr.dot(x, law["beta_weight"], dim="feature") + law["beta_intercept"]
    np.testing.assert_allclose(law["alpha"], 0.02 * 0.1 * np.tanh(signal), atol=1e-12)
    tradable = panel["tradable"]
    xr.testing.assert_allclose(law["beta"].where(tradable), beta.where(tradable), atol=1e-12)
    centre = x.mean("asset").isel(feature=0)
    count = tradable.sum("asset")
    centre = centre / np.sqrt(0.1 + 0.9 / count)
    np.testing.assert_allclose(
        law["factor_loc"].isel(factor=0), 0.02 * 0.1 * np.tanh(centre), atol=1e-12
    )


def test_regime_multiplies_the_factor_scales_and_nothing_else() -> None:
    _, calm = simulate_panel(SMALL, seed=31)
    spec = SMALL.model_copy(
        update={"regime_switch": True, "regime_ratio": 3.0, "regime_persistence": 0.8}
    )
    _, moved = simulate_panel(spec, seed=31)
    ratio = (moved.law["factor_scale"] / calm.law["factor_scale"]).transpose("date", "factor")
    expected = 3.0 ** moved.law["regime"].values[:, None] * np.ones(3)
    np.testing.assert_allclose(ratio.values, expected, rtol=1e-12)
    assert 0 < moved.law["regime"].values.mean() < 1
    xr.testing.assert_identical(moved.law["specific_scale"], calm.law["specific_scale"])


def test_gaussian_log_score_is_scipys_and_the_unit_moves_it_by_a_logarithm() -> None:
    panel, truth = simulate_panel(SMALL, seed=37)
    y = panel["forward_return"]
    expected = norm.logpdf(
        y.values.astype(np.float64), truth.mean.values, np.sqrt(truth.variance.values)
    )
    assert truth.log_score(y) == pytest.approx(np.nanmean(expected), abs=1e-12)
    assert truth.log_score(y, unit_scale=0.02) == pytest.approx(
        np.nanmean(expected) + math.log(0.02), abs=1e-12
    )
    part = truth.log_density(y.isel(date=slice(7, 20)))
    np.testing.assert_allclose(part, expected[7:20], atol=1e-12)


def _over_factor(function: Callable[[float], float], residual: float, shared: float) -> float:
    """Integrate ``function(residual - u)`` over u ~ N(0, shared^2), piece by piece."""

    def inside(u: float) -> float:
        return function(residual - u) * norm.pdf(u, scale=shared)

    marks = [-12 * shared, *np.linspace(-8, 8, 17) * shared, 12 * shared]
    if abs(residual) < 12 * shared:
        marks = sorted([*marks, residual])
    return sum(
        quad(inside, low, high, epsabs=1e-13, epsrel=1e-11)[0]
        for low, high in itertools.pairwise(marks)
    )


@pytest.mark.parametrize(("dof", "factor_scale"), [(2.5, 0.6), (4.0, 5.0), (30.0, 0.05)])
def test_student_density_and_distribution_agree_with_quadrature(
    dof: float, factor_scale: float
) -> None:
    spec = SimulationSpec(
        n_dates=2, n_assets=2, tail_dof=dof, factor_scale=factor_scale, return_scale=1.0, **FULL
    )
    panel, truth = simulate_panel(spec, seed=41)
    y = panel["forward_return"].copy()
    y[0, 0] += 40.0  # far in the tail
    found, pit = truth.log_density(y).values, truth.pit(y).values
    for date, asset in np.ndindex(2, 2):
        cell = truth.law.isel(date=date, asset=asset)
        loc, total = float(truth.mean[date, asset]), float(truth.variance[date, asset])
        sigma = float(cell["specific_scale"])
        shared = math.sqrt(total - sigma**2)
        value = float(y[date, asset])
        law = t(dof, scale=sigma * math.sqrt((dof - 2) / dof))
        density = _over_factor(law.pdf, value - loc, shared)
        below = _over_factor(law.cdf, value - loc, shared)
        assert found[date, asset] == pytest.approx(math.log(density), abs=1e-8)
        assert pit[date, asset] == pytest.approx(below, abs=1e-8)


@pytest.mark.parametrize("tail_dof", [None, 3.5])
def test_pit_of_the_truth_is_uniform(tail_dof: float | None) -> None:
    spec = SimulationSpec(n_dates=1499, n_assets=3, tail_dof=tail_dof, regime_switch=True)
    panel, truth = simulate_panel(spec, seed=43)
    pit = truth.pit(panel["forward_return"])
    for asset in pit["asset"].values:  # dates are independent given the law, assets are not
        values = pit.sel(asset=asset).dropna("date").values
        assert kstest(values, "uniform").pvalue > 0.001


def test_true_law_scores_better_than_one_gaussian_for_all() -> None:
    panel, truth = simulate_panel(seed=47)
    y = panel["forward_return"]
    loc, scale = float(y.mean()), float(y.std())
    pooled = float(np.nanmean(norm.logpdf(y.values.astype(np.float64), loc, scale)))
    assert truth.log_score(y) > pooled + 0.01


def test_truth_refuses_what_it_has_no_law_for() -> None:
    panel, truth = simulate_panel(SMALL.model_copy(update={"missing_share": 0.3}), seed=53)
    y = panel["forward_return"]
    with pytest.raises(PanelError, match="must be NaN where the law has no features; got a number"):
        truth.log_score(y.fillna(0.0))
    with pytest.raises(PanelError, match="assets of the simulated panel; got unknown labels at Z"):
        truth.log_score(y.assign_coords(asset=[*y["asset"].values[:-1], "Z"]))
    with pytest.raises(PanelError, match="must hold an observed cell"):
        truth.log_score(xr.full_like(y, np.nan))
    with pytest.raises(ShapeError, match="dimensions date and asset"):
        truth.pit(y.isel(asset=0))
    with pytest.raises(SpecError, match="unit_scale must be a positive finite number; got 0"):
        truth.log_score(y, unit_scale=0.0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("n_dates", 1, "greater than or equal to 2"),
        ("persistence", 1.0, "less than 1"),
        ("tail_dof", 2.0, "greater than 2"),
        ("specific_scale", 0.0, "greater than 0"),
        ("return_scale", math.inf, "finite number"),
        ("alpha_form", "cubic", "'affine', 'tanh' or 'exposures'"),
        ("market_intercept", 1.5, "less than or equal to 1"),
        ("tail_share", 1.0, "less than 1"),
        ("sparsity", 0.5, "Extra inputs are not permitted"),
    ],
)
def test_specification_refuses_values_out_of_range(field: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SimulationSpec(**{field: value})  # type: ignore[arg-type]


def test_negative_seed_is_refused() -> None:
    with pytest.raises(SpecError, match="seed must be >= 0; got -1"):
        simulate_panel(SMALL, seed=-1)
