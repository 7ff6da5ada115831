import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import binom, binomtest, chi2, norm
from scipy.stats import t as student

from nfi_pyro.diagnostics.var_backtest import (
    _binomial_p_values,
    backtest_value_at_risk,
    coverage_power,
)
from nfi_pyro.errors import ShapeError, SpecError


def _series(values: object) -> xr.DataArray:
    array = np.asarray(values, dtype=np.float64)
    dates = pd.bdate_range("2020-01-01", periods=len(array))
    return xr.DataArray(array, {"date": dates}, "date")


def _with_exceedances(hits: object) -> tuple[xr.DataArray, xr.DataArray]:
    """Return returns that exceed a value at risk of 2 percent on the dates that are 1."""
    flags = np.asarray(hits, dtype=bool)
    return _series(np.where(flags, -0.03, 0.01)), _series(np.full(len(flags), 0.02))


def test_kupiec_statistic_is_the_one_computed_by_hand() -> None:
    hits = np.zeros(250, dtype=int)
    hits[::25] = 1
    found = backtest_value_at_risk(*_with_exceedances(hits), level=0.99)
    # 10 of 250 at 1 percent: 2 (10 ln(.04 / .01) + 240 ln(.96 / .99)) = 12.9555
    by_hand = 2 * (10 * math.log(0.04 / 0.01) + 240 * math.log(0.96 / 0.99))
    assert by_hand == pytest.approx(12.9555, abs=1e-4)
    assert found.coverage.statistic == pytest.approx(by_hand, rel=1e-12)
    assert found.coverage.p_value == pytest.approx(chi2.sf(by_hand, 1), rel=1e-12)
    assert found.coverage.small_sample_p_value == pytest.approx(
        binomtest(10, 250, 0.01).pvalue, rel=1e-9
    )
    assert (found.n_exceedances, found.n_expected) == (10, pytest.approx(2.5))
    assert found.verdict.grade == "bad"
    assert "10 of 250" in found.verdict.text
    assert "too many" in found.verdict.text


def test_christoffersen_statistic_is_the_one_computed_by_hand() -> None:
    hits = [0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0]
    found = backtest_value_at_risk(*_with_exceedances(hits), level=0.8)
    # Pairs 00, 01, 10, 11: 6, 2, 2, 2. After none 2 of 8, after one 2 of 4, in all 4 of 12.
    apart = 2 * math.log(1 / 4) + 6 * math.log(3 / 4) + 4 * math.log(1 / 2)
    together = 4 * math.log(1 / 3) + 8 * math.log(2 / 3)
    assert found.independence.statistic == pytest.approx(2 * (apart - together), rel=1e-12)
    both = found.independence.statistic + found.coverage.statistic
    assert found.conditional_coverage.statistic == pytest.approx(both, rel=1e-12)
    assert found.conditional_coverage.p_value == pytest.approx(chi2.sf(both, 2), rel=1e-12)


def test_pairs_across_a_missing_date_do_not_count() -> None:
    returns, risk = _with_exceedances([0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0])
    returns[3] = np.nan  # the exceedances around it are no neighbours
    risk[13] = np.nan
    found = backtest_value_at_risk(returns, risk, level=0.8)
    assert (found.n_dates, found.n_dropped, found.n_exceedances) == (12, 2, 3)
    # Pairs 00, 01, 10, 11: 6, 2, 2, 0
    apart = 2 * math.log(2 / 8) + 6 * math.log(6 / 8)
    together = 2 * math.log(2 / 10) + 8 * math.log(8 / 10)
    assert found.independence.statistic == pytest.approx(2 * (apart - together), rel=1e-12)
    assert found.exceeded.sizes["date"] == 12
    assert int(found.exceeded.sum()) == 3


@pytest.mark.parametrize(("n", "probability"), [(7, 0.5), (120, 0.05), (250, 0.01), (61, 0.2)])
def test_exact_p_values_are_those_of_scipy(n: int, probability: float) -> None:
    oracle = [binomtest(k, n, probability).pvalue for k in range(n + 1)]
    np.testing.assert_allclose(_binomial_p_values(n, probability), oracle, rtol=1e-9, atol=1e-15)


def test_power_is_exact() -> None:
    rejected = [k for k in range(121) if binomtest(k, 120, 0.05).pvalue <= 0.05]
    exact = binom.pmf(rejected, 120, 0.1).sum()
    assert coverage_power(120, 0.05, 0.1) == pytest.approx(exact, rel=1e-9)
    assert coverage_power(120, 0.05, 0.05) <= 0.05
    returns, risk = _with_exceedances(np.arange(120) % 20 == 7)
    found = backtest_value_at_risk(returns, risk, level=0.95, alternative=2.0)
    assert found.power == pytest.approx(exact, rel=1e-9)
    assert coverage_power(2000, 0.05, 0.1) > 0.999


@pytest.mark.parametrize("hit", [0, 1])
def test_no_exceedance_and_all_of_them_enter_by_their_limits(hit: int) -> None:
    found = backtest_value_at_risk(*_with_exceedances(np.full(120, hit)), level=0.95)
    limit = -2 * 120 * math.log(0.05 if hit else 0.95)
    assert found.coverage.statistic == pytest.approx(limit, rel=1e-12)
    assert found.independence.statistic == 0.0
    assert found.independence.p_value == 1.0
    assert found.independence.small_sample_p_value == 1.0
    assert found.verdict.grade == "bad"
    assert ("too many" if hit else "too few") in found.verdict.text


def test_true_forecasts_are_rejected_as_often_as_the_size_says() -> None:
    rng = np.random.default_rng(0)
    n_series = 200
    rejected = np.zeros(4)
    law = student(5)
    q = law.ppf(0.1)
    # E[-x | x < q] of a t law, in closed form
    tail = law.pdf(q) * (5 + q**2) / 4 / 0.1
    for i in range(n_series):
        scale = 0.01 * np.exp(0.3 * rng.standard_normal(250))
        returns = _series(scale * law.rvs(250, random_state=rng))
        found = backtest_value_at_risk(
            returns,
            _series(-q * scale),
            level=0.9,
            expected_shortfall=_series(tail * scale),
            n_resamples=199,
            seed=i,
        )
        assert found.shortfall is not None
        rejected += [
            found.coverage.small_sample_p_value <= 0.05,
            found.independence.small_sample_p_value <= 0.05,
            found.conditional_coverage.small_sample_p_value <= 0.05,
            found.shortfall.p_value <= 0.05,
        ]
    bound = 0.05 + 4 * math.sqrt(0.05 * 0.95 / n_series)
    assert (rejected / n_series <= bound).all(), rejected / n_series
    assert (rejected / n_series > 0.005).all(), rejected / n_series


def test_verdicts_go_bad_on_forecasts_made_wrong() -> None:
    rng = np.random.default_rng(1)
    draws = rng.standard_normal(1000)
    q, tail = -norm.ppf(0.05), norm.pdf(norm.ppf(0.05)) / 0.05
    returns, scale = _series(0.01 * draws), _series(np.full(1000, 0.01))

    def judge(var: xr.DataArray, es: xr.DataArray, y: xr.DataArray = returns) -> tuple[str, str]:
        verdict = backtest_value_at_risk(y, var, level=0.95, expected_shortfall=es).verdict
        return verdict.grade, verdict.text

    right = judge(q * scale, tail * scale)
    assert right[0] == "good"
    assert "with probability 1.00" in right[1]
    halved = judge(0.5 * q * scale, 0.5 * tail * scale)
    assert halved[0] == "bad"
    assert "too many" in halved[1]
    doubled = judge(2 * q * scale, 2 * tail * scale)
    assert doubled[0] == "bad"
    assert "too few" in doubled[1]
    thin = judge(q * scale, 1.01 * q * scale)  # a shortfall as if nothing lay beyond the quantile
    assert thin[0] == "bad"
    assert "from the expected shortfall" in thin[1]
    # Ten wild weeks among a hundred calm ones, and a forecast that knows their mean alone.
    runs = _series(0.01 * np.where(np.arange(1000) // 20 % 10 == 3, 6.0, 1.0) * draws)
    level = float(-np.quantile(runs, 0.05))
    clustered = judge(xr.full_like(runs, level), xr.full_like(runs, 2 * level), runs)
    assert clustered[0] == "bad"
    assert "changes of volatility" in clustered[1]


def test_verdict_is_unknown_without_power_and_speaks_of_overlap() -> None:
    returns, risk = _with_exceedances(np.arange(60) % 30 == 7)
    few = backtest_value_at_risk(returns, risk, level=0.99)
    assert few.verdict.grade == "unknown"
    assert "twice" not in few.verdict.text
    assert f"{few.power:.2f}" in few.verdict.text
    overlapping = backtest_value_at_risk(returns, risk, level=0.95, horizon=5)
    assert overlapping.verdict.grade == "unknown"
    assert "not independent" in overlapping.verdict.text
    assert "every 5th date" in overlapping.verdict.text
    runs = _with_exceedances(np.arange(250) // 5 % 5 == 1)
    assert backtest_value_at_risk(*runs, level=0.95, horizon=5).verdict.grade == "doubtful"


def test_shortfall_figures_are_those_of_a_hand_made_example() -> None:
    returns, risk = _with_exceedances([0] * 15 + [1, 0, 0, 1, 0])
    found = backtest_value_at_risk(
        returns, risk, level=0.9, expected_shortfall=_series(np.full(20, 0.025))
    ).shortfall
    assert found is not None
    assert found.mean_residual == pytest.approx(0.03 / 0.025 - 1)
    assert found.acerbi_szekely == pytest.approx(1 - 2 * 1.2 / 2)
    assert math.isnan(found.p_value)  # two exceedances decide nothing
    none = backtest_value_at_risk(
        -abs(returns) * 0, risk, level=0.9, expected_shortfall=_series(np.full(20, 0.025))
    ).shortfall
    assert none is not None
    assert math.isnan(none.mean_residual)
    assert none.acerbi_szekely == 1.0


def test_seed_decides_the_resampled_p_values() -> None:
    returns, risk = _with_exceedances(np.random.default_rng(0).random(250) < 0.07)

    def p(seed: int) -> float:
        found = backtest_value_at_risk(returns, risk, level=0.95, n_resamples=499, seed=seed)
        return found.conditional_coverage.small_sample_p_value

    assert p(1) == p(1)
    assert len({p(seed) for seed in range(4)}) > 1


def test_a_few_dates_may_have_a_value_at_risk_below_zero() -> None:
    """A large forecast mean can leave no loss at a level; a wrong sign has none anywhere."""
    returns, risk = _with_exceedances([0, 1, 0, 0, 0])
    risk[0] = -0.001
    returns[0] = 0.0005
    found = backtest_value_at_risk(returns, risk, level=0.9, expected_shortfall=risk)
    assert found.exceeded.values.tolist() == [True, True, False, False, False]
    assert found.shortfall is not None
    assert np.isfinite(found.shortfall.acerbi_szekely)


def test_arguments_are_checked() -> None:
    returns, risk = _with_exceedances([0, 1, 0, 0, 0])
    with pytest.raises(ShapeError, match="returns must have the dimensions date"):
        backtest_value_at_risk(returns.expand_dims(portfolio=2), risk, level=0.9)
    with pytest.raises(ShapeError, match="value_at_risk must have the dates"):
        backtest_value_at_risk(returns, risk[:4], level=0.9)
    with pytest.raises(SpecError, match=r"positive for a loss; got -0.02 at 2020-01-01.*the sign"):
        backtest_value_at_risk(returns, -risk, level=0.9)
    with pytest.raises(SpecError, match="expected_shortfall must be at least the value at risk"):
        backtest_value_at_risk(returns, risk, level=0.9, expected_shortfall=0.9 * risk)
    with pytest.raises(SpecError, match=r"level must be in \(0, 1\); got 95"):
        backtest_value_at_risk(returns, risk, level=95)
    with pytest.raises(SpecError, match="alternative must be > 0 and, times 1 - level, below 1"):
        backtest_value_at_risk(returns, risk, level=0.9, alternative=12)
    with pytest.raises(SpecError, match="n_resamples must be from 99"):
        backtest_value_at_risk(returns, risk, level=0.9, n_resamples=10)
    with pytest.raises(SpecError, match="some date must have a return and a forecast"):
        backtest_value_at_risk(returns * np.nan, risk, level=0.9)
    with pytest.raises(SpecError, match="returns must be finite or NaN"):
        backtest_value_at_risk(returns / 0, risk, level=0.9)
