"""Joint laws of a date: marginal laws kept, dependence as said, and how good the first term is."""

import math

import numpy as np
import pytest
import xarray as xr
from scipy.stats import kstest, norm

from nfi_pyro.distributions.scale_mixture import student_t_mixture
from nfi_pyro.posterior import ReturnForecast
from nfi_pyro.posterior.joint_draws import CopulaDraws, FactorDraws

ASSETS, COLUMNS = 5, 3
DATE = "2021-05-03"
SHAPES = {
    "student_t_4": (*(v.tolist() for v in student_t_mixture(4.0)), 8 * [0.0]),
    "core_and_tail": ([0.9, 0.1], [1.0, 3.0], [0.0, 0.0]),
    "skewed": ([0.8, 0.2], [0.7, 1.8], [0.25, -1.0]),
    "crash": ([0.9, 0.1], [0.7, 2.5], [0.3, -2.7]),
}


def copula_day(n_components: int = 1, *, shape: str | None = None) -> ReturnForecast:
    """Return a forecast of one date whose assets are joined by a copula."""
    rng = np.random.default_rng(31)
    size = 0.01 * np.exp(0.3 * rng.normal(size=(ASSETS, 1)))
    if shape is None:
        weight = rng.dirichlet(np.full(n_components, 3.0), size=ASSETS)
        loc = 0.5 * size * rng.normal(size=(ASSETS, n_components))
        scale = size * np.cumsum(rng.uniform(0.5, 1.5, (ASSETS, n_components)), axis=1)
    else:
        weight, scale, loc = (np.tile(v, (ASSETS, 1)) for v in SHAPES[shape])
        loc, scale = size * loc, size * scale
    raw = rng.normal(0.6, 0.5, (ASSETS, COLUMNS))
    loading = raw / np.sqrt(np.square(raw).sum(1, keepdims=True) + 0.8)
    parts = ("date", "asset", "component")
    return ReturnForecast(
        xr.Dataset(
            {
                "weight": (parts, weight[None]),
                "loc": (parts, loc[None]),
                "scale": (parts, scale[None]),
                "copula_loading": (("date", "asset", "column"), loading[None]),
                "entered": (("date", "asset"), np.ones((1, ASSETS), dtype=bool)),
            },
            {
                "date": np.array([DATE], "datetime64[ns]"),
                "asset": [f"A{k}" for k in range(ASSETS)],
                "column": ["market", "x0", "x1"],
            },
            {"unit": "return", "start_lag": 1, "horizon": 1, "dependence": "copula"},
        )
    )


def correlations(day: xr.Dataset) -> np.ndarray:
    """Return the correlations of the assets' normal scores."""
    loading = day["copula_loading"].values
    rho = loading @ loading.T
    np.fill_diagonal(rho, 1.0)
    return rho


def exact_covariance(day: xr.Dataset) -> np.ndarray:
    """Return ``sum_n c_n c_n' rho^n / n!`` from the quantile functions, 30 terms."""
    x = np.linspace(-7.5, 7.5, 3001)
    density = np.exp(-0.5 * x**2)
    density /= density.sum()
    weight, loc, scale = (day[name].values for name in ("weight", "loc", "scale"))
    quantile = np.empty((len(weight), len(x)))
    for k in range(len(weight)):  # by inverting the CDF on a fine grid
        grid = np.linspace(-40.0 * scale[k].max(), 40.0 * scale[k].max(), 100_001)
        cdf = np.zeros_like(grid)
        for part, centre, width in zip(weight[k], loc[k], scale[k], strict=True):
            cdf += part * norm.cdf(grid, centre, width)
        keep = np.concatenate([[True], np.diff(cdf) > 0.0])
        quantile[k] = np.interp(norm.cdf(x), cdf[keep], grid[keep])
    before, polynomial = np.zeros_like(x), np.ones_like(x)
    rho = correlations(day)
    covariance = np.zeros_like(rho)
    for order in range(1, 31):
        before, polynomial = polynomial, x * polynomial - (order - 1) * before
        c = quantile @ (density * polynomial) / math.sqrt(math.factorial(order))
        covariance = covariance + np.outer(c, c) * rho**order
    return covariance


# ---- covariance ---------------------------------------------------------------------------------


def test_normal_marginals_are_a_multivariate_normal() -> None:
    forecast = copula_day(1)
    day = forecast.on(DATE)
    sd = day["scale"].values[:, 0]
    want = correlations(day) * np.outer(sd, sd)
    # The table of quantiles ends at six standard deviations: 1e-7 of a variance lies beyond.
    np.testing.assert_allclose(forecast.covariance(DATE).dense(), want, rtol=1e-6, atol=1e-12)
    weights = {"A0": 0.5, "A1": -0.3, "A2": 0.4, "A4": 0.4}
    w = np.array([weights.get(f"A{k}", 0.0) for k in range(ASSETS)])
    law = forecast.portfolio(weights, DATE)
    deviation, mean = np.sqrt(w @ want @ w), w @ day["loc"].values[:, 0]
    assert law.is_gaussian
    assert law.standard_deviation == pytest.approx(deviation, rel=1e-6)
    assert law.mean == pytest.approx(mean, rel=1e-12)
    var, error = law.value_at_risk(0.99)
    assert error == 0.0
    assert var == pytest.approx(-mean + deviation * norm.ppf(0.99), rel=1e-6)
    draws = forecast.sample(40_000, seed=1, date=DATE).values
    spread = np.cov(draws.T) / np.outer(sd, sd)
    # A sample covariance of two unit normals has a standard deviation of at most sqrt(2 / n).
    np.testing.assert_allclose(spread, correlations(day), rtol=0, atol=4.0 * (2 / 40_000) ** 0.5)


def test_independence_is_a_copula_without_loadings() -> None:
    forecast = copula_day(3)
    forecast.data["copula_loading"].values[:] = 0.0
    found = forecast.covariance(DATE).dense()
    want = np.diag(forecast.variance.values[0])
    np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize(
    ("shape", "rho", "short"),
    [
        ("student_t_4", 0.2, 0.002),
        ("student_t_4", 0.5, 0.014),
        ("core_and_tail", 0.2, 0.002),
        ("core_and_tail", 0.5, 0.014),
        ("skewed", 0.2, 0.011),
        ("skewed", 0.5, 0.032),
        ("crash", 0.2, 0.036),
        ("crash", 0.5, 0.098),
    ],
)
def test_the_first_term_falls_short_by_what_the_docstring_says(
    shape: str, rho: float, short: float
) -> None:
    """Against the whole Hermite series, with all scores correlated by rho."""
    forecast = copula_day(shape=shape)
    forecast.data["copula_loading"].values[:] = [rho**0.5, 0.0, 0.0]
    exact = exact_covariance(forecast.on(DATE))
    first = forecast.covariance(DATE).dense()
    apart = ~np.eye(ASSETS, dtype=bool)
    np.testing.assert_allclose(1.0 - (first / exact)[apart], short, rtol=0, atol=1e-3)
    # The diagonal is exact: the law's own variance.
    np.testing.assert_allclose(np.diag(first), forecast.variance.values[0], rtol=1e-12)
    np.testing.assert_allclose(np.diag(exact), np.diag(first), rtol=2e-3)


@pytest.mark.parametrize("shape", ["core_and_tail", "crash"])
def test_the_covariance_of_draws_is_the_whole_series(shape: str) -> None:
    forecast = copula_day(shape=shape)
    n = 60_000
    draws = forecast.sample(n, seed=2, date=DATE).values
    exact = exact_covariance(forecast.on(DATE))
    sd = np.sqrt(np.diag(exact))
    gap = (draws - draws.mean(0)) / sd
    products = gap[:, :, None] * gap[:, None, :]
    error = products.std(0) / n**0.5
    assert (np.abs(products.mean(0) - exact / np.outer(sd, sd)) < 4.0 * error).all()


@pytest.mark.parametrize("n_components", [1, 2])
def test_factor_draws_have_the_covariance_of_loadings(remake, n_components: int) -> None:
    forecast = remake(n_components)
    n = 60_000
    draws = forecast.sample(n, seed=5, date=DATE).values
    want = forecast.covariance(DATE).dense()
    day = forecast.on(DATE)
    beta, s = day["beta"].values, day["factor_scale"].values
    specific = np.diag(day["specific_variance"].values)
    np.testing.assert_allclose(want, (beta * s**2) @ beta.T + specific, rtol=1e-9)
    np.testing.assert_allclose(np.diag(want), forecast.variance.values[0], rtol=1e-9)
    gap = draws - forecast.mean.values[0]
    products = gap[:, :, None] * gap[:, None, :]
    assert (np.abs(products.mean(0) - want) < 4.5 * products.std(0) / n**0.5).all()


def test_one_component_uses_the_specific_variance(remake) -> None:
    """Single precision would lose it in the difference of marginal and shared variance."""
    forecast = remake(1)
    forecast.data["scale"].values[:] *= 3.0
    found = FactorDraws.from_day(forecast.on(DATE))
    want = forecast.on(DATE)["specific_variance"].values
    np.testing.assert_allclose(found.specific_variances, want, rtol=1e-12)


# ---- marginal laws ------------------------------------------------------------------------------


def assert_marginals(forecast: ReturnForecast, seed: int) -> None:
    """PIT of the draws is uniform: Kolmogorov-Smirnov of 5 assets, p above 1e-4 each."""
    draws = forecast.sample(20_000, seed=seed, date=DATE).values
    day = forecast.on(DATE)
    weight, loc, scale = (day[name].values for name in ("weight", "loc", "scale"))
    for k in range(ASSETS):
        pit = (weight[k] * norm.cdf(draws[:, k, None], loc[k], scale[k])).sum(1)
        assert kstest(pit, "uniform").pvalue > 1e-4, k
        other = (weight[k] * norm.cdf(draws[:, k, None], loc[k], 1.1 * scale[k])).sum(1)
        assert kstest(other, "uniform").pvalue < 1e-4  # ten percent off is seen


@pytest.mark.parametrize("n_components", [1, 3])
def test_copula_draws_keep_every_marginal_law(n_components: int) -> None:
    assert_marginals(copula_day(n_components), seed=3)


@pytest.mark.parametrize("n_components", [1, 2])
def test_factor_draws_keep_every_marginal_law(remake, n_components: int) -> None:
    assert_marginals(remake(n_components), seed=4)


def test_scores_beyond_the_table_stay_on_a_line() -> None:
    """Nine standard deviations out the quantile goes on straight: no clamp, no jump."""
    sampler = CopulaDraws.from_day(copula_day(3).on(DATE))
    flat = CopulaDraws(np.zeros((ASSETS, COLUMNS)), sampler.table, sampler.mean, sampler.variance)

    class Fixed(np.random.Generator):
        def standard_normal(self, size):  # type: ignore[override]
            return np.full(size, 9.0)

    far = flat.draw(1, Fixed(np.random.PCG64(0)))[0]
    step = sampler.table[:, -1] - sampler.table[:, -2]
    np.testing.assert_allclose(far, sampler.table[:, -1] + 3.0 * 64.0 * step, rtol=1e-9)


def test_the_table_holds_quantiles() -> None:
    day = copula_day(3).on(DATE)
    table = CopulaDraws.from_day(day).table
    weight, loc, scale = (day[name].values for name in ("weight", "loc", "scale"))
    for score in (-6.0, -2.0, 0.0, 1.5, 6.0):
        own = table[:, round((score + 6.0) * 64), None]
        cdf = (weight * norm.cdf(own, loc, scale)).sum(1)
        np.testing.assert_allclose(cdf, norm.cdf(score), rtol=1e-6)


def test_an_asset_that_did_not_enter_has_no_draw() -> None:
    forecast = copula_day(2)
    forecast.data["entered"].values[0, 2] = False
    for name in ("weight", "loc", "scale", "copula_loading"):
        forecast.data[name].values[0, 2] = np.nan
    draws = forecast.sample(7, seed=6)
    assert np.isnan(draws.values[:, 2]).all()
    assert np.isfinite(np.delete(draws.values, 2, axis=1)).all()
    assert "A2" not in forecast.portfolio({"A0": 1.0}).assets


def test_same_seed_same_draws(remake) -> None:
    for forecast in (copula_day(2), remake(2)):
        one, two, three = (forecast.sample(7, seed=s).values for s in (1, 1, 2))
        assert np.array_equal(one, two)
        assert not np.array_equal(one, three)
