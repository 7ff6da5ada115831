import math
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import ndtr, ndtri
from scipy.stats import kstest

from nfi_pyro.diagnostics.recalibration import fit_recalibration, fit_scale_recalibration
from nfi_pyro.errors import SpecError


def _series(values: object) -> xr.DataArray:
    array = np.asarray(values, dtype=np.float64)
    dates = pd.bdate_range("2015-01-01", periods=array.shape[0])
    coords: dict[str, object] = {"date": dates}
    if array.ndim == 2:
        coords["asset"] = [f"A{i}" for i in range(array.shape[1])]
    return xr.DataArray(array, coords, tuple(coords))


def _draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_wrong_scale_is_mended_on_dates_it_never_saw(factor: float) -> None:
    draws = _draw(4000)
    raw = _series(ndtr(draws / factor))  # the forecast's sd is `factor` times what it should be
    train, test = raw[:2000], raw[2000:]
    found = fit_recalibration(train)
    scores = ndtri(found.apply(test).to_numpy())
    # The slope of the map and the spread of the test dates both have an error of 1 / sqrt(2 n).
    assert scores.std() == pytest.approx(1.0, abs=4 * math.sqrt(2 / (2 * 2000)))
    assert kstest(ndtr(scores), "uniform").pvalue > 0.001
    if factor != 1.0:
        assert kstest(test, "uniform").pvalue < 1e-9
    else:  # a right forecast is left alone, within the noise of a quantile's level
        change = abs(found.apply(test) - test)
        assert float(change.max()) < 4 * math.sqrt(0.25 / 2000)
    scale = fit_scale_recalibration(_series(draws[:2000] / factor))
    assert scale.factor == pytest.approx(1 / factor, rel=4 / math.sqrt(4000))
    assert scale.interval[0] < 1 / factor < scale.interval[1]
    sd = _series(np.full(3, 0.01))
    xr.testing.assert_allclose(scale.apply(sd), sd * scale.factor)


def test_a_wrong_shape_is_mended_too() -> None:
    rng = np.random.default_rng(3)
    draws = rng.standard_t(3, 6000) / math.sqrt(3)  # tails that a normal forecast misses
    raw = _series(ndtr(draws))
    found = fit_recalibration(raw[:3000])
    test = raw[3000:]
    assert kstest(test, "uniform").pvalue < 1e-6
    assert kstest(found.apply(test), "uniform").pvalue > 0.001
    below = float((found.apply(test) < 0.01).mean())
    assert below == pytest.approx(0.01, abs=4 * math.sqrt(2 * 0.01 / 3000))


def test_the_map_depends_on_training_dates_alone_and_is_frozen() -> None:
    raw = _series(ndtr(2 * _draw(500, 3)))
    found = fit_recalibration(raw[:300])
    corrupt = raw.copy()
    corrupt[300:] = 0.5
    again = fit_recalibration(corrupt[:300])
    np.testing.assert_array_equal(found.score, again.score)
    moved = raw.copy()
    moved[299] = 0.5
    assert not np.array_equal(fit_recalibration(moved[:300]).score, found.score)
    before = found.score.copy()
    found.apply(raw[300:])
    np.testing.assert_array_equal(found.score, before)
    assert found.train_span == ("2015-01-01", "2016-02-24")
    assert (found.n_dates, found.n_observations) == (300, 900)
    with pytest.raises(FrozenInstanceError):
        found.lower_slope = 1.0  # type: ignore[misc]


def test_the_map_is_monotone_keeps_gaps_and_ends() -> None:
    found = fit_recalibration(_series(ndtr(1.5 * _draw(200, 2) + 0.3)))
    grid = xr.DataArray(np.linspace(0, 1, 1001), dims="level")
    mapped = found.apply(grid)
    assert bool((mapped.diff("level") > 0).all())
    assert float(mapped[0]) == 0.0
    assert float(mapped[-1]) == 1.0
    assert math.isnan(float(found.apply(xr.DataArray(math.nan))))


def test_raw_level_inverts_the_map() -> None:
    found = fit_recalibration(_series(ndtr(2 * _draw(700))))
    for level in (0.001, 0.05, 0.5, 0.9, 0.999):
        raw = found.raw_level(level)
        assert float(found.apply(xr.DataArray(raw))) == pytest.approx(level, rel=1e-9)
    # Scores are twice as wide as they should be: the 5 percent quantile lies at 2 z.
    assert ndtri(found.raw_level(0.05)) == pytest.approx(2 * ndtri(0.05), rel=0.15)


def test_ties_and_a_few_ends_are_borne() -> None:
    counts = np.random.default_rng(0).integers(0, 11, 400)  # PITs of ten draws
    found = fit_recalibration(_series((counts + 0.5) / 11))
    assert (np.diff(found.score) > 0).all()
    assert (np.diff(found.corrected) > 0).all()
    values = ndtr(_draw(400))
    values[:3] = (0.0, 1.0, 1.0)
    ended = fit_recalibration(_series(values))
    assert np.isfinite(ended.score).all()


def test_missing_values_are_left_out() -> None:
    raw = _series(ndtr(_draw(200, 2)))
    holes = raw.reindex(date=pd.bdate_range("2014-12-01", "2015-12-31"))
    np.testing.assert_array_equal(fit_recalibration(raw).score, fit_recalibration(holes).score)
    scores = _series(_draw(60))
    padded = scores.reindex(date=pd.bdate_range("2014-12-01", "2015-12-31"))
    assert fit_scale_recalibration(scores) == fit_scale_recalibration(padded)


def test_arguments_are_checked() -> None:
    raw = _series(ndtr(_draw(100)))
    with pytest.raises(SpecError, match=r"train_pit must be in \[0, 1\]; got 1.5"):
        fit_recalibration(raw.where(raw < 0.9, 1.5))
    with pytest.raises(SpecError, match="train_pit must hold 50 dates; got 40"):
        fit_recalibration(raw[:40])
    with pytest.raises(SpecError, match="train_pit must hold 101 dates; got 100"):
        fit_recalibration(raw, tail_dates=50)
    with pytest.raises(SpecError, match="train_pit must vary, with few values of exactly 0 or 1"):
        fit_recalibration(raw.where(raw > 0.5, 0.0))
    with pytest.raises(SpecError, match="n_knots must be >= 3; got 2"):
        fit_recalibration(raw, n_knots=2)
    with pytest.raises(SpecError, match=r"pit must be in .* got -0.1 at Recalibration.apply"):
        fit_recalibration(raw).apply(raw * 0 - 0.1)
    with pytest.raises(SpecError, match=r"level must be in \(0, 1\); got 1"):
        fit_recalibration(raw).raw_level(1.0)
    with pytest.raises(SpecError, match=r"train_scores must hold 10 values .* got 9"):
        fit_scale_recalibration(raw[:9])
    with pytest.raises(SpecError, match="train_scores must hold 10 values that are not all equal"):
        fit_scale_recalibration(raw * 0)
    with pytest.raises(SpecError, match="train_scores must be finite or NaN; got 1 infinite"):
        fit_scale_recalibration(raw.where(raw != raw[0], math.inf))
