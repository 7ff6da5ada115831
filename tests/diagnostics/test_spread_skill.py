import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.diagnostics.spread_skill import spread_against_skill
from nfi_pyro.errors import ShapeError, SpecError


def _cells(values: object) -> xr.DataArray:
    array = np.asarray(values, dtype=np.float64)
    coords = {
        "date": pd.bdate_range("2020-01-01", periods=array.shape[0]),
        "asset": [f"A{i}" for i in range(array.shape[1])],
    }
    return xr.DataArray(array, coords, ("date", "asset"))


def _simulate(n_dates: int = 300, n_assets: int = 23, seed: int = 0) -> tuple[xr.DataArray, ...]:
    """Return a standard deviation that varies over dates and assets, and errors drawn from it."""
    rng = np.random.default_rng(seed)
    log_scale = 0.4 * rng.standard_normal(n_assets) + 0.2 * rng.standard_normal((n_dates, 1))
    scale = 0.02 * np.exp(log_scale + 0.1 * rng.standard_normal((n_dates, n_assets)))
    return _cells(scale), _cells(scale * rng.standard_normal((n_dates, n_assets)))


def test_figures_are_those_of_a_hand_made_example() -> None:
    scale = _cells([[1.0, 1.0, 4.0], [1.0, 4.0, 4.0]])
    error = _cells([[2.0, -2.0, 2.0], [np.nan, 2.0, -2.0]])
    found = spread_against_skill(scale, error, 2, block=1, n_resamples=2)
    np.testing.assert_allclose(found.bins["forecast"], [1.0, 4.0])
    np.testing.assert_allclose(found.bins["realised"], [2.0, 2.0])
    np.testing.assert_array_equal(found.bins["n_cells"], [2, 3])
    assert found.ratio == pytest.approx(math.sqrt(20 / 50))
    assert found.slope == pytest.approx(0.0, abs=1e-12)
    assert found.n_observations == 5
    assert found.verdict.grade == "unknown"


def test_slope_is_weighted_least_squares_in_logarithms() -> None:
    scale, error = _simulate(60, 7)
    found = spread_against_skill(scale, error, 5, n_resamples=2)
    bins = found.bins
    oracle = np.polyfit(
        np.log(bins["forecast"]), np.log(bins["realised"]), 1, w=np.sqrt(bins["n_cells"])
    )
    assert found.slope == pytest.approx(oracle[0], rel=1e-9)


def test_true_law_is_good_and_bounds_have_the_width_of_the_sampling_error() -> None:
    scale, error = _simulate()
    found = spread_against_skill(scale, error, n_resamples=500)
    assert found.verdict.grade == "good"
    assert found.ratio_interval[0] < 1 < found.ratio_interval[1]
    assert found.slope_interval[0] < 1 < found.slope_interval[1]
    bins = found.bins
    error_of_log = 1 / math.sqrt(2 * 690)  # normal errors, 690 cells in a bin
    np.testing.assert_allclose(
        np.log(bins["realised"] / bins["forecast"]), 0, atol=4 * error_of_log
    )
    width = np.log(bins["upper"] / bins["lower"]).mean() / (2 * 1.96)
    assert float(width) == pytest.approx(error_of_log, rel=0.25)


def test_verdicts_go_bad_on_forecasts_made_wrong() -> None:
    scale, error = _simulate()
    halved = spread_against_skill(0.5 * scale, error)
    assert halved.verdict.grade == "bad"
    assert "too narrow" in halved.verdict.text
    assert halved.ratio == pytest.approx(2 * spread_against_skill(scale, error).ratio)
    assert halved.slope == pytest.approx(spread_against_skill(scale, error).slope)
    doubled = spread_against_skill(2 * scale, error)
    assert (doubled.verdict.grade, "too wide" in doubled.verdict.text) == ("bad", True)
    rng = np.random.default_rng(0)
    shuffled = scale.copy(data=rng.permuted(rng.permuted(scale, axis=0), axis=1))
    blind = spread_against_skill(shuffled, error)
    assert blind.verdict.grade == "bad"
    assert "tell nothing of the errors" in blind.verdict.text
    constant = spread_against_skill(xr.full_like(scale, float(np.sqrt((error**2).mean()))), error)
    assert constant.verdict.grade == "bad"
    assert "the same everywhere" in constant.verdict.text
    assert math.isnan(constant.slope)
    assert constant.bins.sizes["bin"] == 1
    stretched = spread_against_skill(scale**1.6 / (0.02**0.6), error)
    assert "exaggerates" in stretched.verdict.text
    assert stretched.slope == pytest.approx(1 / 1.6, abs=0.05)
    flat = spread_against_skill(scale**0.6 / (0.02**-0.4), error)
    assert "understates" in flat.verdict.text


def test_missing_cells_and_order_do_not_matter() -> None:
    scale, error = _simulate(47, 5)
    error[3, 2] = np.nan
    scale[5, 1] = np.nan
    one = spread_against_skill(scale, error)
    dates = pd.bdate_range("2020-01-01", periods=50)
    two = spread_against_skill(
        scale.reindex(date=dates).transpose("asset", "date"), error.reindex(date=dates)
    )
    xr.testing.assert_identical(one.bins, two.bins)
    assert one.n_observations == 47 * 5 - 2
    assert one.slope_interval == two.slope_interval


def test_seed_decides_the_bounds() -> None:
    scale, error = _simulate(47, 5)

    def bounds(seed: int) -> tuple[float, float]:
        return spread_against_skill(scale, error, seed=seed).slope_interval

    assert bounds(1) == bounds(1)
    assert bounds(1) != bounds(2)


def test_arguments_are_checked() -> None:
    scale, error = _simulate(11, 5)
    with pytest.raises(ShapeError, match="error must have the dates"):
        spread_against_skill(scale, error[1:])
    with pytest.raises(ShapeError, match="standard_deviation must have the dimensions"):
        spread_against_skill(scale[0], error[0])
    with pytest.raises(SpecError, match=r"standard_deviation must be > 0 or NaN; got 0.0"):
        spread_against_skill(scale.where(scale.asset != "A1", 0.0), error)
    with pytest.raises(SpecError, match="some cell must have a forecast and an error"):
        spread_against_skill(scale, error * np.nan)
    with pytest.raises(SpecError, match="error must vary in every bin; got only 0 in bin 0"):
        spread_against_skill(scale, error * 0)
    with pytest.raises(SpecError, match="n_bins must be from 1"):
        spread_against_skill(scale, error, 0)
    with pytest.raises(SpecError, match="block must be from 1 to 11; got 12"):
        spread_against_skill(scale, error, block=12)
