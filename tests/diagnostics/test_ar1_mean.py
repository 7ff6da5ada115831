from dataclasses import fields

import numpy as np
import pytest
from scipy.linalg import cho_factor, cho_solve, toeplitz
from scipy.stats import kstest, norm
from statsmodels.tsa.arima.model import ARIMA

from nfi_pyro.diagnostics.ar1_mean import FAST, SeriesSums, mean_posterior, sum_series

WIDE = (-0.99, 0.99)


def _series(n: int, phi: float, seed: int, *, mean: float = 0.0, scale: float = 0.1) -> np.ndarray:
    shock = np.random.default_rng(seed).normal(scale=scale, size=n)
    values = np.empty(n)
    values[0] = shock[0]
    for t in range(1, n):
        values[t] = phi * values[t - 1] + np.sqrt(1 - phi**2) * shock[t]
    return mean + values


def _dense_posterior(values: np.ndarray, prior_scale: float, n_nodes: int) -> dict[str, float]:
    """Return moments from a grid in mu, phi and log s with the covariance matrix of the dates."""
    place = np.flatnonzero(~np.isnan(values))
    x = values[place]
    mu = np.linspace(-6 * prior_scale, 6 * prior_scale, 301)
    node, node_weight = np.polynomial.legendre.leggauss(n_nodes)
    phi = WIDE[1] * node
    log_scale = np.log(x.std()) + np.linspace(-2.0, 4.0, 201)
    log_density = np.empty((len(phi), len(log_scale), len(mu)))
    for i, value in enumerate(phi):
        # Marginal covariance of the process, variance s^2 / (1 - phi^2), at the dates observed.
        full = toeplitz(value ** np.arange(len(values))) / (1 - value**2)
        factor = cho_factor(full[np.ix_(place, place)])
        log_det = 2 * np.log(np.diag(factor[0])).sum()
        rest = x[:, None] - mu
        quadratic = (rest * cho_solve(factor, rest)).sum(0)
        log_density[i] = (
            -len(x) * log_scale[:, None]
            - 0.5 * log_det
            - 0.5 * quadratic / np.exp(2 * log_scale[:, None])
            + norm.logpdf(mu, scale=prior_scale)
        )
    weight = np.exp(log_density - log_density.max()) * node_weight[:, None, None]
    weight /= weight.sum()
    by_mu = weight.sum((0, 1))
    mean = float(by_mu @ mu)
    return {
        "mean": mean,
        "sd": float(np.sqrt(by_mu @ (mu - mean) ** 2)),
        "positive": float(by_mu[mu > 0].sum() + 0.5 * by_mu[mu == 0].sum()),
        "phi": float(weight.sum((1, 2)) @ phi),
    }


@pytest.mark.parametrize("holes", [(), (2, 3, 7, 11)])
def test_quadrature_is_the_dense_gaussian_likelihood(holes: tuple[int, ...]) -> None:
    values = _series(17, 0.5, seed=1, mean=0.04)
    values[list(holes)] = np.nan
    found = mean_posterior(sum_series(values), 0.05, WIDE)
    oracle = _dense_posterior(values, 0.05, 101)
    mean = float((found.weight * found.loc).sum())
    square = (found.weight * (found.scale**2 + found.loc**2)).sum()
    assert mean == pytest.approx(oracle["mean"], abs=1e-6)
    assert np.sqrt(square - mean**2) == pytest.approx(oracle["sd"], rel=1e-4)
    assert found.probability_above(0.0)[0] == pytest.approx(oracle["positive"], abs=1e-4)
    assert (found.weight.sum(2) @ found.phi[0])[0] == pytest.approx(oracle["phi"], abs=1e-4)


def test_a_long_series_with_gaps_agrees_with_maximum_likelihood() -> None:
    values = _series(1500, 0.4, seed=3, mean=0.02)
    values[np.random.default_rng(0).random(1500) < 0.2] = np.nan
    fit = ARIMA(values, order=(1, 0, 0), trend="c").fit()
    names = list(fit.model.param_names)
    found = mean_posterior(sum_series(values), 10.0, WIDE)
    mean = float((found.weight * found.loc).sum())
    spread = np.sqrt((found.weight * (found.scale**2 + (found.loc - mean) ** 2)).sum())
    error = fit.bse[names.index("const")]
    assert mean == pytest.approx(fit.params[names.index("const")], abs=0.05 * error)
    assert spread == pytest.approx(error, rel=0.05)
    phi = float((found.weight.sum(2) @ found.phi[0])[0])
    assert phi == pytest.approx(
        fit.params[names.index("ar.L1")], abs=0.2 * fit.bse[names.index("ar.L1")]
    )


def test_probability_is_uniform_over_the_prior() -> None:
    rng = np.random.default_rng(5)
    n_series, n_dates = 2000, 29
    truth = rng.normal(scale=0.05, size=n_series)
    phi = rng.uniform(*WIDE, size=n_series)
    # log s uniform is improper: where s is far below or above the prior of the mean, its bounds
    # decide nothing, so draws over four decades stand for it.
    scale = np.exp(rng.uniform(np.log(1e-3), np.log(30.0), size=n_series))
    holes = rng.random(n_dates) < 0.3
    sums = []
    for i in range(n_series):
        values = _series(n_dates, phi[i], seed=100 + i, mean=truth[i], scale=scale[i])
        values[holes] = np.nan
        sums.append(sum_series(values))
    stacked = SeriesSums(
        step=sums[0].step,
        count=sums[0].count,
        **{
            field.name: np.concatenate([getattr(one, field.name) for one in sums])
            for field in fields(SeriesSums)
            if field.name not in {"step", "count"}
        },
    )
    below = 1 - mean_posterior(stacked, 0.05, WIDE, FAST).probability_above(truth)
    assert kstest(below, "uniform").pvalue > 0.001
    covered = ((below > 0.025) & (below < 0.975)).mean()
    assert covered == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / n_series))
    iid = mean_posterior(stacked, 0.05, (-1e-4, 1e-4), FAST).probability_above(truth)
    assert ((iid > 0.025) & (iid < 0.975)).mean() < 0.93  # dependence left out shows


@pytest.mark.parametrize("n", [6, 20, 250, 3001])
@pytest.mark.parametrize("phi", [-0.6, 0.0, 0.95])
def test_the_coarse_grid_agrees_with_the_fine_one(n: int, phi: float) -> None:
    sums = sum_series(_series(n, phi, seed=n, mean=0.01))
    fine = mean_posterior(sums, 0.05, WIDE).probability_above(0.0)
    fast = mean_posterior(sums, 0.05, WIDE, FAST).probability_above(0.0)
    np.testing.assert_allclose(fast, fine, atol=1e-3)


def test_a_mean_far_from_its_prior_keeps_both_explanations() -> None:
    values = 0.3 + _series(16, 0.0, seed=2, scale=0.1)
    found = mean_posterior(sum_series(values), 0.05, (-1e-4, 1e-4))
    # Given s the mean is conjugate: integrate that on a grid of s alone.
    log_scale = np.linspace(-4, 2, 20001)
    square = np.exp(2 * log_scale)
    variance = 0.05**2 + square / 16
    log_density = (
        -15 * log_scale
        - ((values - values.mean()) ** 2).sum() / (2 * square)
        + norm.logpdf(values.mean(), scale=np.sqrt(variance))
    )
    weight = np.exp(log_density - log_density.max())
    mean = (weight / weight.sum()) @ (values.mean() * 0.05**2 / variance)
    assert float((found.weight * found.loc).sum()) == pytest.approx(mean, rel=1e-4)


def test_sums_shift_with_the_series() -> None:
    values = _series(23, 0.3, seed=4)
    values[[5, 6, 13]] = np.nan
    moved, oracle = sum_series(values).shifted(0.07), sum_series(values + 0.07)
    for field in fields(SeriesSums):
        np.testing.assert_allclose(getattr(moved, field.name), getattr(oracle, field.name))
    assert oracle.n_dates == 20
    np.testing.assert_array_equal(oracle.step, [1, 2, 3])
    np.testing.assert_array_equal(oracle.count, [17, 1, 1])
