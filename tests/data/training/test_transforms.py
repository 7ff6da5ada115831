"""Fitted transforms: the formulas, training dates only, any cut into blocks, and JSON."""

import json
from typing import Any

import numpy as np
import pytest

from nfi_pyro.data import RobustZScore
from nfi_pyro.data.training import column_statistics
from nfi_pyro.data.training.column_statistics import ArrayBlocks, column_medians, column_moments
from nfi_pyro.data.training.transforms import MinMax, ZScore
from nfi_pyro.errors import PanelError, ShapeError, SpecError

DATES, ASSETS, FEATURES = 7, 5, 3
NAMES = ("a", "b", "c")


@pytest.fixture
def values() -> np.ndarray:
    rng = np.random.default_rng(0)
    scales, shifts = np.array([1.0, 1e4, 1e-3]), np.array([0.0, 5e4, 1.0])
    drawn = rng.standard_t(2, size=(DATES, ASSETS, FEATURES)) * scales + shifts
    return drawn.astype(np.float32)


@pytest.fixture
def mask() -> np.ndarray:
    return np.random.default_rng(1).random((DATES, ASSETS)) > 0.3


def test_it_is_the_formula_on_the_cells_that_count(values, mask) -> None:
    values[2, 1, 0] = np.nan
    fitted = RobustZScore.fit(values, mask, NAMES)
    for column in range(FEATURES):
        known = values[:, :, column][mask].astype(np.float64)
        known = known[np.isfinite(known)]
        centre = np.median(known)
        scale = (np.median(np.abs(known - centre)) + 1e-12) * 1.4826
        assert fitted.center[column] == pytest.approx(centre, rel=1e-14)
        assert fitted.scale[column] == pytest.approx(scale, rel=1e-13)
        want = np.clip((values[:, :, column].astype(np.float64) - centre) / scale, -3, 3)
        got = fitted.transform(values)[:, :, column]
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-3)
    assert fitted.transform(values).dtype == np.float32
    assert np.isnan(fitted.transform(values)[2, 1, 0])


def test_standard_normal_cells_come_out_standard() -> None:
    normal = np.random.default_rng(4).normal(3.0, 7.0, size=(1009, ASSETS, 1))
    out = RobustZScore.fit(normal, np.ones((1009, ASSETS), dtype=bool), ("a",)).transform(normal)
    # 5045 draws: the standard error of a MAD-based scale is about 1.17 / sqrt(5045) = 0.016.
    assert abs(float(np.median(out))) < 1e-6
    assert np.abs(out).max() <= 3.0
    inside = float((np.abs(out) < 1.0).mean())
    assert abs(inside - 0.6827) < 4 * 0.0066 + 0.484 * 0.016 * 4


def test_clipping_is_symmetric_and_at_the_clip(values, mask) -> None:
    values[0, 0], values[1, 1] = 1e9, -1e9
    out = RobustZScore.fit(values, mask, NAMES, clip=2.5).transform(values)
    assert (out[0, 0] == 2.5).all()
    assert (out[1, 1] == -2.5).all()
    assert float(np.nanmax(np.abs(out))) == 2.5


def test_only_the_training_cells_that_count_are_seen(values, mask) -> None:
    before = RobustZScore.fit(values[:4], mask[:4], NAMES)
    later = values.copy()
    later[4:] = 1e6
    later[:4][~mask[:4]] = -1e6
    after = RobustZScore.fit(later[:4], mask[:4], NAMES)
    np.testing.assert_array_equal(before.center, after.center)
    np.testing.assert_array_equal(before.scale, after.scale)
    inside = later.copy()
    date, asset = np.argwhere(mask[:4])[0]
    inside[date, asset] = 1e6  # and the comparison has power
    assert (RobustZScore.fit(inside[:4], mask[:4], NAMES).scale != before.scale).any()


def test_a_constant_column_becomes_zero_and_its_strangers_the_clip(values, mask) -> None:
    values[:, :, 1] = 3.5
    fitted = RobustZScore.fit(values, mask, NAMES)
    out = fitted.transform(values)
    assert (out[:, :, 1] == 0).all()
    values[0, 0, 1] = 3.6
    assert fitted.transform(values)[0, 0, 1] == 3.0


def test_a_transform_leaves_its_input_alone(values, mask) -> None:
    before = values.copy()
    RobustZScore.fit(values, mask, NAMES).transform(values)
    np.testing.assert_array_equal(values, before)


def test_it_survives_json_to_the_bit(values, mask) -> None:
    fitted = RobustZScore.fit(values, mask, NAMES, clip=2.75)
    back = RobustZScore.from_dict(json.loads(json.dumps(fitted.as_dict())))
    assert (back.features, back.clip) == (NAMES, 2.75)
    np.testing.assert_array_equal(back.center, fitted.center)
    np.testing.assert_array_equal(back.scale, fitted.scale)
    np.testing.assert_array_equal(back.transform(values), fitted.transform(values))


def test_masks_and_columns_that_do_not_fit_are_refused(values, mask) -> None:
    with pytest.raises(
        ShapeError, match=r"training mask must be bool of shape \(7, 5\) with at least one"
    ):
        RobustZScore.fit(values, mask[:, :3], NAMES)
    with pytest.raises(ShapeError, match=r"at least one cell; got bool of shape .* with 0 cells"):
        RobustZScore.fit(values, np.zeros_like(mask), NAMES)
    fitted = RobustZScore.fit(values, mask, NAMES)
    with pytest.raises(ShapeError, match=r"must have 3 columns \(a, b, c, ...\); got 2"):
        fitted.transform(values[:, :, :2])


def column_of(values: np.ndarray, mask: np.ndarray, column: int) -> np.ndarray:
    """Return the finite training cells of a feature in float64."""
    known = values[:, :, column][mask].astype(np.float64)
    return known[np.isfinite(known)]


def test_infinite_cells_stay_unknown_and_out_of_the_statistics(values, mask) -> None:
    mask[0, :2] = True
    expected = values.copy()
    expected[0, 0], expected[0, 1] = np.nan, np.nan
    values[0, 0], values[0, 1] = np.inf, -np.inf
    fitted = RobustZScore.fit(values, mask, NAMES)
    np.testing.assert_array_equal(fitted.center, RobustZScore.fit(expected, mask, NAMES).center)
    np.testing.assert_array_equal(fitted.scale, RobustZScore.fit(expected, mask, NAMES).scale)
    np.testing.assert_array_equal(fitted.transform(values), fitted.transform(expected))
    assert np.isnan(fitted.transform(values)[0, :2]).all()
    for kind in (ZScore, MinMax):
        one = kind.fit_blocks(ArrayBlocks(values, mask), NAMES)
        two = kind.fit_blocks(ArrayBlocks(expected, mask), NAMES)
        assert one.as_dict() == two.as_dict()
        assert not np.isfinite(one.apply(values.copy())[0, :2]).any()


def test_the_z_score_is_mean_and_standard_deviation_of_the_cells_that_count(values, mask) -> None:
    values[3, 2, 1] = np.nan
    fitted = ZScore.fit_blocks(ArrayBlocks(values, mask), NAMES)
    out = fitted.apply(values.copy())
    for column in range(FEATURES):
        known = column_of(values, mask, column)
        assert fitted.center[column] == pytest.approx(np.nanmean(known), rel=1e-14)
        assert fitted.scale[column] == pytest.approx(np.nanstd(known), rel=1e-13)
        want = (values[:, :, column].astype(np.float64) - known.mean()) / known.std()
        np.testing.assert_allclose(out[:, :, column], want, rtol=2e-5, atol=2e-3)
    assert out.dtype == np.float32
    assert fitted.unchanged == ()


def test_min_max_puts_the_training_cells_between_zero_and_one(values, mask) -> None:
    out = MinMax.fit_blocks(ArrayBlocks(values, mask), NAMES).apply(values.copy())
    for column in range(FEATURES):
        known = column_of(values, mask, column)
        want = (values[:, :, column].astype(np.float64) - known.min()) / np.ptp(known)
        np.testing.assert_allclose(out[:, :, column], want, rtol=2e-5, atol=2e-3)
        inside = out[:, :, column][mask]
        assert (inside.min(), inside.max()) == (0.0, 1.0)


@pytest.mark.parametrize("kind", [ZScore, MinMax])
def test_a_constant_column_passes_as_it_is_and_is_named(kind, values, mask) -> None:
    values[:, :, 1] = 0.1
    values[5, 4, 1], mask[5, 4] = 7.0, False
    fitted = kind.fit_blocks(ArrayBlocks(values, mask), NAMES)
    assert fitted.unchanged == ("b",)
    assert "left alone: b" in fitted.describe()
    np.testing.assert_array_equal(fitted.apply(values.copy())[:, :, 1], values[:, :, 1])


@pytest.mark.parametrize("kind", [RobustZScore, ZScore, MinMax])
@pytest.mark.parametrize("budget", [2**28, 0])
def test_the_cut_into_blocks_does_not_change_a_bit(kind, budget, monkeypatch) -> None:
    rng = np.random.default_rng(11)
    values = (rng.standard_t(2, size=(53, 29, 3)) * [1, 1e4, 1e-3]).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    mask = rng.random((53, 29)) > 0.3
    mask[17] = False  # a date on which nothing counts
    whole = kind.fit_blocks(ArrayBlocks(values, mask, 53), NAMES).as_dict()
    monkeypatch.setattr(column_statistics, "MEMORY_BUDGET", budget)
    for size in (1, 2, 7, 52, 1000):
        assert kind.fit_blocks(ArrayBlocks(values, mask, size), NAMES).as_dict() == whole


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dates", [1, 6, 7])
def test_medians_by_counting_are_those_by_sorting(dtype, dates, monkeypatch) -> None:
    rng = np.random.default_rng(dates)
    values = rng.normal(size=(dates, 13, 5)).astype(dtype)
    values[:, :, 1] = np.round(values[:, :, 1])  # ties, and zeros of both signs
    values[:, :, 2] *= 1e-40 if dtype == np.float32 else 1e-310  # below the least normal float
    values[:, :, 3] = -0.0
    values[0, :2, 4] = np.nan, np.inf
    mask = np.ones((dates, 13), dtype=bool)
    names = ("a", "b", "c", "d", "e")
    monkeypatch.setattr(column_statistics, "MEMORY_BUDGET", 0)
    center, deviation = column_medians(ArrayBlocks(values, mask, 2), names)
    for column in range(5):
        known = column_of(values, mask, column)
        assert center[column] == np.median(known)
        assert deviation[column] == np.median(np.abs(known - np.median(known)))


def test_moments_do_not_cancel() -> None:
    spread = np.random.default_rng(2).normal(size=(101, 7, 1))
    values = (1e8 + 16 * np.round(spread)).astype(np.float32)
    mean, sd = column_moments(ArrayBlocks(values, np.ones((101, 7), dtype=bool), 3), ("a",))
    exact = values.astype(np.float64)
    assert mean[0] == pytest.approx(exact.mean(), rel=1e-15)
    assert sd[0] == pytest.approx(exact.std(), rel=1e-10)


def test_equal_cells_have_no_spread_though_their_mean_is_rounded() -> None:
    values = np.full((1, 3, 1), 0.1)  # (0.1 + 0.1 + 0.1) / 3 is not 0.1
    mean, sd = column_moments(ArrayBlocks(values, np.ones((1, 3), dtype=bool)), ("a",))
    assert mean[0] != 0.1
    assert sd[0] == 0.0


@pytest.mark.parametrize("kind", [RobustZScore, ZScore, MinMax])
@pytest.mark.parametrize("budget", [2**28, 0])
def test_training_cells_without_a_value_are_refused(
    kind: Any, budget, values, mask, monkeypatch
) -> None:
    monkeypatch.setattr(column_statistics, "MEMORY_BUDGET", budget)
    with pytest.raises(ShapeError, match="must have at least one cell; got 0 cells in all"):
        kind.fit_blocks(ArrayBlocks(values, np.zeros_like(mask)), NAMES)
    with pytest.raises(ShapeError, match=r"mask must be bool of shape \(7, 5\)"):
        kind.fit_blocks(ArrayBlocks(values, mask[:, :3]), NAMES)
    with pytest.raises(ShapeError, match=r"must have 2 columns \(a, b, ...\); got 3"):
        kind.fit_blocks(ArrayBlocks(values, mask), NAMES[:2])
    values[:, :, 0], values[:, :, 2] = np.nan, np.inf
    values[~mask] = 1.0  # what does not count does not help
    places = f"got none in {mask.sum()} tradable cells at a, c"
    with pytest.raises(PanelError, match=places):
        kind.fit_blocks(ArrayBlocks(values, mask), NAMES)


@pytest.mark.parametrize("clip", [0, -1.0, float("nan"), True, "3"])
def test_a_clip_that_is_no_positive_number_is_refused(clip, values, mask) -> None:
    with pytest.raises(SpecError, match=r"clip must be a number > 0; got .* at robust_zscore"):
        RobustZScore.fit(values, mask, NAMES, clip=clip)
