"""Panels whose alpha and noise are known functions of the exposures."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from pydantic import ValidationError
from scipy.integrate import quad
from scipy.stats import kstest, norm

from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.data.simulation_pricing import TrueMechanism, tail_noise
from nfi_pyro.errors import PanelError, SpecError

SMALL = SimulationSpec(n_dates=53, n_assets=11, n_features=5, n_factors=3, missing_share=0.1)
OPTIONS: dict[str, Any] = {
    "alpha_form": "exposures",
    "alpha_scale": 0.5,
    "specific_form": "exposures",
    "tail_share": 0.2,
    "tail_offset": -0.7,
    "tail_form": "exposures",
}
PRICED = SMALL.model_copy(update=OPTIONS)


def _mechanism() -> tuple[TrueMechanism, np.ndarray]:
    """Return a mechanism of a constant and three varying exposures, and the latters' weights."""
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(4, 5)) * np.array([0.0, 0.4, 1.0, 2.0])[:, None]
    return TrueMechanism.draw(np.array([1.0, 0.9, 0.0, -0.3]), weight, rng), weight


def test_alpha_has_mean_0_variance_1_and_depends_on_exposures_that_vary() -> None:
    mechanism, weight = _mechanism()
    draws = 400_000
    x = np.random.default_rng(0).normal(size=(draws, 5))
    alpha = mechanism.alpha(mechanism.centre + x @ weight.T)
    assert alpha.mean() == pytest.approx(0.0, abs=4.5 / np.sqrt(draws))
    kurtosis = ((alpha - alpha.mean()) ** 4).mean() / alpha.var() ** 2
    assert alpha.var() == pytest.approx(1.0, abs=4.5 * np.sqrt((kurtosis - 1) / draws))
    moved = mechanism.centre + np.array([2.0, 0.0, 0.0, 0.0])
    assert mechanism.alpha(moved) == mechanism.alpha(mechanism.centre)
    linear = np.c_[np.ones(draws), x @ weight[1:].T]
    left = alpha - linear @ np.linalg.lstsq(linear, alpha, rcond=None)[0]
    assert 0.3 < left.var() < 0.8  # the rest is what a linear model cannot say


def test_gradient_of_alpha_is_that_of_finite_differences() -> None:
    mechanism, _ = _mechanism()
    beta, step = np.random.default_rng(1).normal(size=(7, 4)), 1e-5
    for k, move in enumerate(step * np.eye(4)):
        slope = (mechanism.alpha(beta + move) - mechanism.alpha(beta - move)) / (2 * step)
        np.testing.assert_allclose(mechanism.alpha_gradient(beta)[:, k], slope, atol=1e-8)


@pytest.mark.parametrize("offset", [0.0, -1.3])
def test_tail_noise_has_mean_0_and_variance_1(offset: float) -> None:
    share = np.array([0.02, 0.15, 0.5])
    weight, loc, scale = tail_noise(share, ratio=3.0, offset=offset)
    np.testing.assert_allclose(weight.sum(-1), 1.0, atol=1e-14)
    np.testing.assert_allclose((weight * loc).sum(-1), 0.0, atol=1e-14)
    np.testing.assert_allclose((weight * (loc**2 + scale**2)).sum(-1), 1.0, atol=1e-14)
    np.testing.assert_allclose(scale[:, 1] / scale[:, 0], 3.0, rtol=1e-14)
    np.testing.assert_allclose(loc[:, 1] - loc[:, 0], offset * scale[:, 0], atol=1e-14)


def test_pricing_options_leave_the_other_draws_alone() -> None:
    """Features, who is tradable, exposures and factors are those of the plain simulation."""
    plain, base = simulate_panel(SMALL, seed=13)
    priced, truth = simulate_panel(PRICED.model_copy(update={"with_exposures": True}), seed=13)
    for name in ("features", "tradable"):
        xr.testing.assert_identical(priced[name], plain[name])
    for name in ("beta", "z", "factor_loc", "factor_scale", "specific_weight"):
        xr.testing.assert_identical(truth.law[name], base.law[name])
    assert not truth.law["alpha"].equals(base.law["alpha"])
    again, _ = simulate_panel(PRICED.model_copy(update={"with_exposures": True}), seed=13)
    xr.testing.assert_identical(priced, again)
    moved = SMALL.model_copy(update={"factor_mean_level": 0.5})
    _, shifted = simulate_panel(moved, seed=13)
    np.testing.assert_allclose(shifted.law["factor_loc"] - base.law["factor_loc"], 0.01, rtol=1e-9)


def test_panel_carries_the_true_exposures_less_a_pure_market() -> None:
    given = PRICED.model_copy(update={"with_exposures": True})
    panel, truth = simulate_panel(given, seed=3)
    assert panel["exposures"].dims == ("date", "asset", "factor")
    assert panel["exposures"].dtype == np.float32
    np.testing.assert_allclose(panel["exposures"], truth.law["beta"], rtol=1e-6)
    assert "exposures" not in simulate_panel(PRICED, seed=3)[0]
    panel, truth = simulate_panel(given.model_copy(update={"market_intercept": 1.0}), seed=3)
    assert panel["exposures"]["factor"].values.tolist() == ["z1", "z2"]
    tradable = panel["tradable"].values
    np.testing.assert_array_equal(truth.law["beta"].values[tradable][:, 0], 1.0)
    np.testing.assert_array_equal(truth.law["alpha_gradient"].values[tradable][:, 0], 0.0)
    np.testing.assert_array_equal(np.isfinite(panel["exposures"].values).all(-1), tradable)


def test_draws_follow_the_mixture_law() -> None:
    spec = PRICED.model_copy(update={"n_dates": 997, "n_assets": 7, "with_exposures": True})
    panel, truth = simulate_panel(spec, seed=19)
    law = truth.law
    noise = panel["forward_return"] - law["alpha"]
    noise = noise - (law["beta"] * law["z"]).sum("factor", skipna=False)
    gap = (noise - law["noise_loc"]) / law["noise_scale"]
    pit = (law["noise_weight"] * norm.cdf(gap)).sum("component", skipna=False).values
    kept = pit[np.isfinite(pit)]
    assert len(kept) > 5000
    assert kstest(kept, "uniform").pvalue > 0.001
    assert float(law["noise_weight"][..., 1].std()) > 0.03
    assert float(law["specific_scale"].std()) > 0.001


def test_density_and_distribution_of_a_mixture_agree_with_quadrature() -> None:
    panel, truth = simulate_panel(PRICED, seed=41)
    y = panel["forward_return"]
    density, pit = truth.log_density(y), truth.pit(y)
    for date, asset in np.argwhere(y.notnull().values)[::97]:
        cell = truth.law.isel(date=date, asset=asset)
        shared = float(np.sqrt(((cell["beta"] * cell["factor_scale"]) ** 2).sum()))
        residual = float(y[date, asset]) - float(truth.mean[date, asset])
        parts = [cell[f"noise_{name}"].values for name in ("weight", "loc", "scale")]

        def joint(u: float, function: Any, residual: float, shared: float, parts: Any) -> Any:
            weight, loc, scale = parts
            return (weight * function(residual - u, loc, scale)).sum() * norm.pdf(u, scale=shared)

        edge = 10 * shared
        found, below = (
            quad(joint, -edge, edge, (f, residual, shared, parts), epsabs=1e-12, limit=200)[0]
            for f in (norm.pdf, norm.cdf)
        )
        assert float(density[date, asset]) == pytest.approx(np.log(found), abs=1e-7)
        assert float(pit[date, asset]) == pytest.approx(below, abs=1e-8)


def test_mean_variance_and_covariance_agree_with_monte_carlo() -> None:
    _, truth = simulate_panel(PRICED, seed=23)
    law = truth.law.isel(date=29)
    rng, draws = np.random.default_rng(0), 200_000
    z = law["factor_loc"].values + law["factor_scale"].values * rng.normal(size=(draws, 3))
    wide = rng.random((draws, 11)) < law["noise_weight"].values[:, 1]
    loc, scale = (
        np.where(wide, law[name].values[:, 1], law[name].values[:, 0])
        for name in ("noise_loc", "noise_scale")
    )
    noise = loc + scale * rng.normal(size=wide.shape)
    y = law["alpha"].values + z @ law["beta"].values.T + noise
    kept = np.isfinite(truth.mean.isel(date=29).values)
    y = y[:, kept]
    total = truth.covariance(truth.law.indexes["date"][29])
    assert total["asset"].values.tolist() == law["asset"].values[kept].tolist()
    variance = np.diag(total)
    np.testing.assert_allclose(variance, truth.variance.isel(date=29).values[kept], rtol=1e-12)
    error = np.sqrt(variance / draws)
    assert np.all(np.abs(y.mean(0) - truth.mean.isel(date=29).values[kept]) < 4.5 * error)
    # Fourth moments are at most those of the noise alone, below 9 times the variance squared.
    bound = 4.5 * np.sqrt(9 * np.outer(variance, variance) / draws)
    assert np.all(np.abs(np.cov(y.T) - total.values) < bound)


def test_jacobian_is_the_slope_of_the_mean_in_exposures() -> None:
    _, truth = simulate_panel(PRICED, seed=29)
    expected = truth.law["alpha_gradient"] + truth.law["factor_loc"]
    np.testing.assert_allclose(truth.jacobian, expected, atol=1e-15)
    assert truth.jacobian.dims == ("date", "asset", "factor")
    _, plain = simulate_panel(SMALL, seed=29)
    with pytest.raises(SpecError, match="alpha must be a function of the exposures"):
        _ = plain.jacobian
    with pytest.raises(PanelError, match="date must be one of the simulated panel's; got 1999"):
        plain.covariance("1999-01-01")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tail_dof": 4.0, "tail_share": 0.1}, "tail_share must be 0 where tail_dof is given"),
        ({"market_intercept": 1.0, "n_factors": 1, "with_exposures": True}, "at least 2 beside"),
        ({"market_intercept": 1.0, "n_factors": 1, "tail_form": "exposures"}, "at least 2 beside"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        SimulationSpec(**options)
