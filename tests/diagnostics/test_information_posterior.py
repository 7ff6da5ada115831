import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import t as student

from nfi_pyro.diagnostics.ar1_mean import sum_series
from nfi_pyro.diagnostics.information_posterior import (
    _simulate_sums,
    information_coefficient_power,
    posterior_information_coefficient,
)
from nfi_pyro.errors import ShapeError, SpecError


def _rank_ic(values: object) -> xr.DataArray:
    array = np.asarray(values, dtype=np.float64)
    dates = pd.bdate_range("2020-01-01", periods=len(array))
    return xr.DataArray(array, {"date": dates}, "date")


def _draw(n: int, mean: float, seed: int = 0) -> xr.DataArray:
    return _rank_ic(np.random.default_rng(seed).normal(mean, 0.1, n))


def test_independent_dates_under_a_flat_prior_give_the_t_interval() -> None:
    series = _draw(31, 0.02)
    found = posterior_information_coefficient(
        series, prior_scale=1e3, level=0.9, phi_range=(-1e-5, 1e-5)
    )
    error = float(series.std(ddof=1)) / math.sqrt(31)
    reach = student.ppf(0.95, 30) * error
    assert found.mean == pytest.approx(float(series.mean()), abs=1e-6)
    np.testing.assert_allclose(
        found.interval, (found.mean - reach, found.mean + reach), atol=1e-3 * error
    )
    assert found.standard_deviation == pytest.approx(error * math.sqrt(30 / 28), rel=1e-4)
    assert found.probability_positive == pytest.approx(
        student.cdf(found.mean / error, 30), abs=1e-5
    )
    assert found.effective_dates == pytest.approx(31, rel=1e-3)


def test_many_dates_with_known_dependence_give_the_conjugate_normal() -> None:
    phi, n, prior = 0.3, 5003, 0.002
    shock = np.random.default_rng(1).normal(0, 0.1, n)
    values = np.empty(n)
    values[0] = shock[0]
    for t in range(1, n):
        values[t] = phi * values[t - 1] + math.sqrt(1 - phi**2) * shock[t]
    values += 0.003
    found = posterior_information_coefficient(
        _rank_ic(values), prior_scale=prior, phi_range=(phi - 1e-6, phi + 1e-6)
    )
    innovation = values[1:] - phi * values[:-1]
    precision = n * (1 - phi) ** 2 / innovation.var()
    total = precision + prior**-2
    assert found.mean == pytest.approx(
        innovation.mean() / (1 - phi) * precision / total, abs=0.02 / math.sqrt(total)
    )
    assert found.standard_deviation == pytest.approx(total**-0.5, rel=3 / math.sqrt(2 * n))
    assert found.effective_dates == pytest.approx(1 + (n - 1) * (1 - phi) / (1 + phi), rel=1e-3)


def test_missing_dates_at_the_ends_change_nothing_and_are_counted() -> None:
    inner = _draw(40, 0.02)
    padded = inner.reindex(date=pd.bdate_range("2019-12-02", "2020-04-30"))
    one = posterior_information_coefficient(inner)
    two = posterior_information_coefficient(padded)
    assert two.interval == one.interval
    assert (one.n_missing, two.n_dates, two.n_missing) == (0, 40, padded.sizes["date"] - 40)


def test_intervals_cover_the_mean_of_dependent_dates() -> None:
    rng = np.random.default_rng(11)
    n_series, n, phi = 120, 90, 0.5
    covered = phi_covered = 0
    for _ in range(n_series):
        shock = rng.normal(0, 0.1, n)
        values = np.empty(n)
        values[0] = shock[0]
        for t in range(1, n):
            values[t] = phi * values[t - 1] + math.sqrt(1 - phi**2) * shock[t]
        mean = rng.normal(0, 0.05)
        found = posterior_information_coefficient(_rank_ic(values + mean), level=0.8)
        covered += found.interval[0] < mean < found.interval[1]
        phi_covered += found.phi_interval[0] < phi < found.phi_interval[1]
    error = math.sqrt(0.8 * 0.2 / n_series)
    assert covered / n_series == pytest.approx(0.8, abs=3.5 * error)
    assert phi_covered / n_series == pytest.approx(0.8, abs=3.5 * error)


def test_verdicts_go_bad_on_wrong_input() -> None:
    skilled = _draw(250, 0.03)
    good = posterior_information_coefficient(skilled)
    assert good.verdict.grade == "good"
    assert "positive with probability" in good.verdict.text
    turned = posterior_information_coefficient(-skilled)
    assert turned.verdict.grade == "bad"
    assert "wrong way" in turned.verdict.text
    assert turned.probability_positive == pytest.approx(1 - good.probability_positive, abs=1e-9)
    shuffled = posterior_information_coefficient(skilled - skilled.mean())
    assert shuffled.verdict.grade == "doubtful"
    assert shuffled.probability_positive == pytest.approx(0.5, abs=0.02)
    few = posterior_information_coefficient(skilled[:6], prior_scale=0.01)
    assert few.verdict.grade == "unknown"
    assert "the prior decides" in few.verdict.text


def test_simulated_sums_are_those_of_their_series() -> None:
    parts = _simulate_sums(np.random.default_rng(3), 7, 0.1, 0.6, [6, 40])
    shock = np.random.default_rng(3).normal(scale=0.1, size=(7, 40))
    series = shock.copy()
    for t in range(1, 40):
        series[:, t] = 0.6 * series[:, t - 1] + 0.8 * shock[:, t]
    for sums, n in zip(parts, (6, 40), strict=True):
        oracle = sum_series(series[4, :n])
        for name in ("now", "before", "now_now", "now_before", "before_before", "first"):
            np.testing.assert_allclose(getattr(sums, name)[4], getattr(oracle, name)[0], atol=1e-12)
        assert sums.n_dates == n


def test_power_is_that_of_the_closed_form_and_false_alarms_are_nominal() -> None:
    found = information_coefficient_power(
        0.02, sd=0.1, phi=0.2, n_dates=(60, 250, 500), n_simulations=600, seed=1
    )
    table = found.table
    for n in (250, 500):
        row = table.sel(n_dates=n)
        # That phi and sd are estimated moves the power by about the order of 1 / n.
        assert float(row["power"]) == pytest.approx(
            float(row["normal_approximation"]), abs=4 * float(row["power_standard_error"]) + 1 / n
        )
        assert float(row["false_alarm"]) == pytest.approx(
            0.05, abs=4 * math.sqrt(0.05 * 0.95 / 600)
        )
    power = table["power"].to_numpy()
    assert (np.diff(power) > 0).all()
    np.testing.assert_allclose(table["power_standard_error"], np.sqrt(power * (1 - power) / 600))


def test_dates_needed_are_interpolated_inside_and_closed_form_outside() -> None:
    found = information_coefficient_power(
        0.02, sd=0.1, phi=0.0, n_dates=(60, 120, 250), n_simulations=400, seed=2
    )
    inside, outside = found.dates_needed(0.7), found.dates_needed(0.99)
    assert inside.source == "simulation"
    assert outside.source == "normal approximation"
    # z = 1.645 + 0.524 (and + 2.326), n = (z 0.1 / 0.02)^2; the prior asks for a little more.
    assert inside.n_dates == pytest.approx((2.169 * 5) ** 2, rel=0.15)
    assert outside.n_dates == pytest.approx((3.971 * 5) ** 2, rel=0.02)
    assert found.dates_needed(0.01).source == "normal approximation"
    assert found.dates_needed(0.01).n_dates < 60
    with pytest.raises(SpecError, match=r"power must be in \(0, 1\); got 1"):
        found.dates_needed(1.0)


def test_power_verdict_says_when_a_study_is_too_short() -> None:
    short = information_coefficient_power(0.005, sd=0.1, phi=0.0, n_dates=(120,), n_simulations=100)
    assert short.verdict.grade == "doubtful"
    assert "dates_needed" in short.verdict.text
    long = information_coefficient_power(0.1, sd=0.1, phi=0.0, n_dates=(60,), n_simulations=100)
    assert long.verdict.grade == "good"


def test_seed_decides_the_simulation() -> None:
    def run(seed: int) -> xr.Dataset:
        return information_coefficient_power(
            0.02, sd=0.1, phi=0.0, n_dates=(60, 90), n_simulations=250, seed=seed
        ).table

    xr.testing.assert_identical(run(1), run(1))
    assert not run(1).equals(run(2))


def test_arguments_are_checked() -> None:
    series = _draw(20, 0.0)
    with pytest.raises(ShapeError, match="rank_ic must have the dimensions date"):
        posterior_information_coefficient(series.expand_dims(asset=2))
    with pytest.raises(SpecError, match=r"rank_ic must be in \[-1, 1\]; got 1.5 at 2020-01-03"):
        posterior_information_coefficient(series.where(series.date != series.date[2], 1.5))
    with pytest.raises(SpecError, match=r"rank_ic must hold 5 dates .* got 4 observed"):
        posterior_information_coefficient(series[:4])
    with pytest.raises(SpecError, match="rank_ic must hold 5 dates that are not all equal"):
        posterior_information_coefficient(xr.ones_like(series))
    with pytest.raises(SpecError, match="prior_scale must be > 0; got 0"):
        posterior_information_coefficient(series, prior_scale=0.0)
    with pytest.raises(SpecError, match=r"level must be in \(0, 1\); got 95"):
        posterior_information_coefficient(series, level=95)
    with pytest.raises(SpecError, match=r"phi_range must ascend within \(-1, 1\)"):
        posterior_information_coefficient(series, phi_range=(0.0, 1.0))
    with pytest.raises(SpecError, match="sd must be > 0; got -1"):
        information_coefficient_power(sd=-1.0, phi=0.0)
    with pytest.raises(SpecError, match=r"phi must be from -0.99 to 0.99; got 1"):
        information_coefficient_power(sd=0.1, phi=1.0)
    with pytest.raises(SpecError, match=r"n_dates must ascend from 5 or more; got \[120, 60\]"):
        information_coefficient_power(sd=0.1, phi=0.0, n_dates=(120, 60))
