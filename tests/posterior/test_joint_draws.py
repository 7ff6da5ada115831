"""Draws of a portfolio, which skip the assets' own, have the law of the draws of its assets."""

import numpy as np
import pytest
from scipy.stats import ks_2samp, norm

from nfi_pyro.posterior.joint_draws import CopulaDraws, FactorDraws, _quantile_table

N, ASSETS, FACTORS = 40_000, 5, 3
WEIGHTS = np.array([0.5, -0.3, 0.0, 0.6, 0.4])


@pytest.fixture(scope="module")
def factor_draws() -> FactorDraws:
    rng = np.random.default_rng(17)
    weight = np.tile([0.7, 0.25, 0.05], (ASSETS, 1))
    return FactorDraws(
        beta=rng.normal(size=(ASSETS, FACTORS)),
        factor_loc=np.array([0.01, -0.02, 0.0]),
        factor_scale=np.array([0.01, 0.02, 0.005]),
        weight=weight,
        specific_loc=0.01 * rng.normal(size=weight.shape),
        specific_scale=np.tile([0.01, 0.03, 0.1], (ASSETS, 1)),
    )


@pytest.fixture(scope="module")
def copula_draws() -> CopulaDraws:
    rng = np.random.default_rng(19)
    weight = np.tile([0.9, 0.1], (ASSETS, 1))
    loc, scale = 0.002 * rng.normal(size=weight.shape), np.tile([0.01, 0.04], (ASSETS, 1))
    mean = (weight * loc).sum(1)
    variance = (weight * (scale**2 + (loc - mean[:, None]) ** 2)).sum(1)
    loading = np.column_stack([np.full(ASSETS, 0.6), 0.3 * rng.normal(size=(ASSETS, 2))])
    return CopulaDraws(loading, _quantile_table(weight, loc, scale), mean, variance)


@pytest.mark.parametrize("kind", ["factor_draws", "copula_draws"])
def test_a_portfolios_draws_have_the_law_of_its_assets(
    request: pytest.FixtureRequest, kind: str
) -> None:
    sampler = request.getfixturevalue(kind)
    whole = sampler.draw(N, np.random.default_rng(1)) @ WEIGHTS
    short = sampler.draw_portfolio(WEIGHTS, N, np.random.default_rng(2))
    assert short.shape == (N,)
    # Two samples of one law differ by more than this once in 10 000 pairs of seeds.
    assert ks_2samp(whole, short).pvalue > 1e-4
    error = 4.0 * whole.std() * np.sqrt(2.0 / N)
    assert short.mean() == pytest.approx(whole.mean(), abs=error)
    assert short.std() == pytest.approx(whole.std(), rel=0.06)
    again = sampler.draw_portfolio(WEIGHTS, N, np.random.default_rng(2))
    np.testing.assert_array_equal(short, again)


def test_the_number_of_draws_need_not_fill_a_block(factor_draws: FactorDraws) -> None:
    for draws in (1, 511, 513):
        drawn = factor_draws.draw_portfolio(WEIGHTS, draws, np.random.default_rng(0))
        assert drawn.shape == (draws,)


def test_a_quantile_table_is_exact_for_normal_laws_of_any_number_of_assets() -> None:
    loc, scale = np.linspace(-1.0, 1.0, 37)[:, None], np.linspace(0.5, 2.0, 37)[:, None]
    weight = np.full((37, 2), 0.5)
    table = _quantile_table(weight, np.tile(loc, 2), np.tile(scale, 2))
    score = np.linspace(-6.0, 6.0, 769)
    np.testing.assert_allclose(table, loc + scale * score, rtol=0, atol=1e-7)
    assert norm.cdf(score[384]) == 0.5
