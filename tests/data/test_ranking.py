import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from nfi_pyro.data.ranking import average_ranks, rank_correlation
from nfi_pyro.errors import ShapeError, SpecError


def _panel_with_ties(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    values = rng.integers(0, 7, size=shape).astype(float)
    values[rng.random(shape) < 0.2] = np.nan
    return values


def test_average_ranks_agree_with_scipy_on_ties_and_missing_cells() -> None:
    values = _panel_with_ties(np.random.default_rng(1), (13, 31))
    values[3] = np.nan
    expected = rankdata(values, axis=1, nan_policy="omit")
    np.testing.assert_array_equal(average_ranks(values), expected)


def test_average_ranks_leave_out_the_mask_and_rank_infinity() -> None:
    values = np.array([[3.0, np.inf, 1.0, np.nan, 3.0, 0.0]])
    mask = np.array([[True, True, True, True, True, False]])
    expected = [[2.5, 4.0, 1.0, np.nan, 2.5, np.nan]]
    np.testing.assert_array_equal(average_ranks(values, mask), expected)


def test_average_ranks_of_an_empty_panel_are_empty() -> None:
    for shape in ((3, 0), (0, 5)):
        assert average_ranks(np.empty(shape)).shape == shape


def test_rank_correlation_agrees_with_scipy_date_by_date() -> None:
    rng = np.random.default_rng(2)
    first, second = _panel_with_ties(rng, (17, 29)), rng.normal(size=(17, 29))
    second[rng.random(second.shape) < 0.1] = np.nan
    mask = rng.random(first.shape) < 0.9
    found = rank_correlation(first, second, mask)
    for date in range(17):
        both = mask[date] & ~np.isnan(first[date]) & ~np.isnan(second[date])
        expected = spearmanr(first[date, both], second[date, both]).statistic
        assert found[date] == pytest.approx(expected, abs=1e-12)


def test_dates_with_few_pairs_or_no_variation_are_nan() -> None:
    first = np.tile(np.arange(7.0), (4, 1))
    second = first.copy()
    second[1, :3] = np.nan  # four pairs
    second[2] = 0.1  # no variation
    second[3] = -second[3]
    found = rank_correlation(first, second, min_pairs=5)
    np.testing.assert_array_equal(found, [1.0, np.nan, np.nan, -1.0])
    assert rank_correlation(first, second, min_pairs=4)[1] == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_rank_correlation_is_bounded_symmetric_and_blind_to_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = _panel_with_ties(rng, (5, 11)), _panel_with_ties(rng, (5, 11))
    found = rank_correlation(first, second)
    moved = rng.permutation(11)
    np.testing.assert_allclose(found, rank_correlation(second, first), atol=1e-12)
    np.testing.assert_allclose(
        found, rank_correlation(first[:, moved], np.exp(second[:, moved])), atol=1e-12
    )
    assert np.all(np.abs(found[~np.isnan(found)]) <= 1.0)


def test_shapes_and_options_are_checked() -> None:
    values = np.ones((3, 5))
    with pytest.raises(ShapeError, match=r"values must have the shape \(date, asset\); got \(5,\)"):
        average_ranks(np.ones(5))
    with pytest.raises(ShapeError, match="mask must have the shape of values"):
        average_ranks(values, np.ones((3, 2), dtype=bool))
    with pytest.raises(ShapeError, match="second must have the shape of first"):
        rank_correlation(values, np.ones((3, 2)))
    with pytest.raises(SpecError, match="min_pairs must be >= 2; got 1"):
        rank_correlation(values, values, min_pairs=1)
