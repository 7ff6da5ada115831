"""The robust z-score: the formula, training dates only, and a trip through JSON."""

import json

import numpy as np
import pytest

from nfi_pyro.data import RobustZScore
from nfi_pyro.errors import ShapeError

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
        ShapeError, match=r"training mask must have shape \(7, 5\) and at least one"
    ):
        RobustZScore.fit(values, mask[:, :3], NAMES)
    with pytest.raises(ShapeError, match=r"at least one cell; got shape .* with 0 cells"):
        RobustZScore.fit(values, np.zeros_like(mask), NAMES)
    fitted = RobustZScore.fit(values, mask, NAMES)
    with pytest.raises(ShapeError, match=r"must have 3 columns \(a, b, c, ...\); got 2"):
        fitted.transform(values[:, :, :2])
