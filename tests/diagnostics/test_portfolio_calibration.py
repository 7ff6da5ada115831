import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import ndtr
from scipy.stats import binomtest

from nfi_pyro.diagnostics.portfolio_calibration import portfolio_coverage
from nfi_pyro.errors import ShapeError, SpecError


def _pit(scores: object) -> xr.DataArray:
    """Return the PIT of normal scores, (date,) or (portfolio, date)."""
    values = ndtr(np.asarray(scores, dtype=np.float64))
    dates = pd.bdate_range("2020-01-01", periods=values.shape[-1])
    if values.ndim == 1:
        return xr.DataArray(values, {"date": dates}, "date")
    names = [f"P{i}" for i in range(len(values))]
    return xr.DataArray(values, {"portfolio": names, "date": dates}, ("portfolio", "date"))


def _scores(n_portfolios: int, n_dates: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(n_dates)
    own = rng.standard_normal((n_portfolios, n_dates))
    return math.sqrt(0.6) * common + math.sqrt(0.4) * own


def test_bounds_are_exact_binomial_ones() -> None:
    pit = _pit(_scores(3, 97))
    pit[1, :40] = np.nan
    found = portfolio_coverage(pit, levels=(0.5, 0.95))
    np.testing.assert_array_equal(found.n_dates, [97, 57, 97])
    assert found.n_missing == 40
    for name in ("P0", "P1", "P2"):
        row = pit.sel(portfolio=name).dropna("date")
        for level in (0.5, 0.95):
            hits = int((abs(row - 0.5) <= level / 2).sum())
            oracle = binomtest(hits, row.size).proportion_ci(method="exact")
            cell = found.coverage.sel(portfolio=name, level=level)
            assert float(cell["observed"]) == pytest.approx(hits / row.size)
            assert float(cell["lower"]) == pytest.approx(oracle.low, rel=1e-9)
            assert float(cell["upper"]) == pytest.approx(oracle.high, rel=1e-9)


@pytest.mark.parametrize("pit", [0.5, 0.001])
def test_all_and_none_covered_have_one_sided_limits(pit: float) -> None:
    series = xr.full_like(_pit(np.zeros(20)), pit)
    series[0] = 0.4 if pit == 0.5 else 0.002  # not all equal
    found = portfolio_coverage(series, levels=(0.9,)).coverage.squeeze()
    tail = 0.025 ** (1 / 20)
    if pit == 0.5:
        assert (float(found["lower"]), float(found["upper"])) == (pytest.approx(tail), 1.0)
    else:
        assert (float(found["lower"]), float(found["upper"])) == (0.0, pytest.approx(1 - tail))


def test_labels_of_several_days_are_thinned_and_counted() -> None:
    pit = _pit(_scores(2, 103))
    found = portfolio_coverage(pit, horizon=5)
    kept = portfolio_coverage(pit[:, ::5])
    xr.testing.assert_identical(found.coverage, kept.coverage)
    xr.testing.assert_identical(found.spread, kept.spread)
    assert found.n_thinned == 103 - 21
    np.testing.assert_array_equal(found.n_dates, [21, 21])
    assert "21 dates (every 5th, since labels overlap)" in found.verdict.text


def test_right_law_is_good_and_wrong_scales_are_named() -> None:
    scores = _scores(7, 251, seed=1)
    right = portfolio_coverage(_pit(scores))
    assert right.verdict.grade == "good"
    assert float(right.spread["spread"].mean()) == pytest.approx(1, abs=4 / math.sqrt(2 * 251))
    halved = portfolio_coverage(_pit(2 * scores))
    assert halved.verdict.grade == "bad"
    assert "Too narrow" in halved.verdict.text
    factor = float(halved.spread["spread"].median())
    assert f"stray {factor:.2g} times as far" in halved.verdict.text
    assert factor == pytest.approx(2 * float(right.spread["spread"].median()), rel=1e-9)
    doubled = portfolio_coverage(_pit(0.5 * scores))
    assert doubled.verdict.grade == "bad"
    assert "Too wide" in doubled.verdict.text
    shifted = portfolio_coverage(_pit(scores + 0.9))
    assert shifted.verdict.grade == "doubtful"
    assert "shape or the centre" in shifted.verdict.text
    assert float(shifted.spread["mean"].mean()) == pytest.approx(0.9, abs=0.25)


def test_a_right_law_is_seldom_doubted() -> None:
    grades = [
        portfolio_coverage(_pit(_scores(2, 121, seed=i))).verdict.grade for i in range(100, 140)
    ]
    # Four 99 percent tests that depend on each other: at most 4 in 100 fail one.
    assert grades.count("good") >= 40 * 0.96 - 4 * math.sqrt(40 * 0.04 * 0.96)


def test_one_series_is_a_portfolio_and_few_dates_are_unknown() -> None:
    found = portfolio_coverage(_pit(_scores(1, 61)[0]))
    assert found.coverage["portfolio"].values.tolist() == ["portfolio"]
    short = portfolio_coverage(_pit(_scores(1, 9)[0]))
    assert short.verdict.grade == "unknown"
    assert "9 dates are too few" in short.verdict.text
    xr.testing.assert_identical(
        portfolio_coverage(_pit(_scores(2, 61)).transpose("date", "portfolio")).coverage,
        portfolio_coverage(_pit(_scores(2, 61))).coverage,
    )


def test_a_return_outside_the_forecast_is_infinitely_far() -> None:
    pit = _pit(_scores(1, 61)[0])
    pit[3], pit[7] = 1.0, 0.0
    found = portfolio_coverage(pit)
    assert math.isinf(float(found.spread["spread"].squeeze()))
    assert found.verdict.grade == "bad"
    assert "beyond all that the forecast holds possible" in found.verdict.text


def test_a_portfolio_without_dates_is_nan_and_not_judged() -> None:
    pit = _pit(_scores(2, 61, seed=1))
    pit[1] = np.nan
    found = portfolio_coverage(pit)
    assert bool(found.coverage.sel(portfolio="P1").isnull().all())
    assert "over 1 portfolio on" in found.verdict.text.lower()


def test_arguments_are_checked() -> None:
    pit = _pit(_scores(2, 31))
    with pytest.raises(ShapeError, match="pit must have the dimensions portfolio and date"):
        portfolio_coverage(pit.rename(date="time"))
    with pytest.raises(SpecError, match=r"pit must be in \[0, 1\]; got 1.2 at P0 2020-01-01"):
        portfolio_coverage(pit.where(pit.date != pit.date[0], 1.2))
    with pytest.raises(SpecError, match="pit must hold an observed date"):
        portfolio_coverage(pit * np.nan)
    with pytest.raises(SpecError, match=r"levels must be in \(0, 1\); got 95"):
        portfolio_coverage(pit, levels=(95,))
    with pytest.raises(SpecError, match="levels must name a probability"):
        portfolio_coverage(pit, levels=())
    with pytest.raises(SpecError, match="horizon must be from 1"):
        portfolio_coverage(pit, horizon=0)
