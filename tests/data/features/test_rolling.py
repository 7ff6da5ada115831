"""Rolling operators: golden values of qlib, closed forms in fractions, and pandas on gappy data."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from nfi_pyro.data.features.rolling import Rolling

DATES, ASSETS = 139, 7
WINDOWS = (5, 10, 20, 30, 60)


@pytest.fixture
def closes() -> np.ndarray:
    """Random closes with gaps, a constant stretch, a late start and an early end."""
    rng = np.random.default_rng(3)
    values = 20 * np.exp(np.cumsum(rng.normal(0, 0.02, (DATES, ASSETS)), axis=0))
    values[40:53, 2] = values[39, 2]
    values[rng.uniform(size=values.shape) < 0.07] = np.nan
    values[80:91, 4] = values[:31, 5] = values[101:, 6] = np.nan
    return values


def test_golden_vector_of_qlib_operators() -> None:
    # qlib 0.9.7, _libs/rolling.so, window 5; NaN rows keep their position
    nan = np.nan
    a = Rolling(np.array([1, 2, 4, nan, 7, 11, 16.0])[:, None], trend=True)
    line = a.line(5)
    decimals = 5e-5  # given to four places
    np.testing.assert_allclose(
        line.slope[:, 0], [nan, 1, 1.5, 1.5, 1.5429, 2.1, 2.9143], rtol=0, atol=decimals
    )
    np.testing.assert_allclose(
        line.rsquare[:, 0], [nan, 1, 0.9643, 0.9643, 0.9918, 0.9587, 0.9175], rtol=0, atol=decimals
    )
    np.testing.assert_allclose(
        line.residual[:, 0], [nan, 0, 0.1667, nan, 0.0286, 0.8, 1.4], rtol=0, atol=decimals
    )
    first_row = np.zeros(1, dtype=np.int64)
    np.testing.assert_array_equal(a.position_of_max(5, first_row)[:, 0], [1, 2, 3, 4, 4, 3, 2])
    np.testing.assert_allclose(
        a.quantiles(5, (0.8,))[0][:, 0], [1, 1.8, 3.2, 3.2, 5.2, 8.6, 13], rtol=1e-15
    )


def test_golden_line_is_exact_to_rounding() -> None:
    values = [1, 2, 4, None, 7, 11, 16]
    a = Rolling(np.array(values, dtype=np.float64)[:, None], trend=True)
    want = []
    for end in range(2, len(values) + 1):
        window = enumerate(values[max(end - 5, 0) : end])
        points = [(Fraction(x), Fraction(y)) for x, y in window if y is not None]
        x_mean, y_mean = (sum(side) / len(points) for side in zip(*points, strict=True))
        products = sum((x - x_mean) * (y - y_mean) for x, y in points)
        slope = products / sum((x - x_mean) ** 2 for x, _ in points)
        rsquare = products * slope / sum((y - y_mean) ** 2 for _, y in points)
        x, y = points[-1]
        missing = values[end - 1] is None
        want.append((slope, rsquare, np.nan if missing else y - y_mean - slope * (x - x_mean)))
    got = np.concatenate(a.line(5), axis=1)
    assert np.isnan(got[0, :2]).all()
    np.testing.assert_allclose(got[1:], np.array(want, dtype=np.float64), rtol=1e-14, atol=1e-14)


def test_a_constant_price_has_no_spread_at_all() -> None:
    values = np.full((71, 2), 0.1) * [1.0, 3e7]
    values[:7] = 12.34
    for trend in (False, True):
        assert (Rolling(values, trend=trend).std(60)[66:] == 0).all()


def test_moments_have_the_same_bits_with_and_without_a_trend(closes: np.ndarray) -> None:
    plain, trend = (Rolling(closes, trend=flag) for flag in (False, True))
    for d in (7, *WINDOWS):
        np.testing.assert_array_equal(plain.mean(d), trend.mean(d))
        np.testing.assert_array_equal(plain.std(d), trend.std(d))


@pytest.mark.parametrize("d", [1, 2, 7, 13, 211])
def test_any_window_equals_pandas(closes: np.ndarray, d: int) -> None:
    frame = pd.DataFrame(closes)
    series, windows = Rolling(frame.to_numpy()), frame.rolling(d, min_periods=1)
    want = {"sum": windows.sum(), "mean": windows.mean(), "max": windows.max()}
    want |= {"min": windows.min(), "rank": windows.rank(pct=True)}
    for name, value in want.items():
        got = getattr(series, name)(d)
        np.testing.assert_allclose(got, value, rtol=1e-12, atol=1e-12, err_msg=name)
    if d > 1:
        # pandas subtracts sums: its spread of a constant price is not quite zero
        np.testing.assert_allclose(series.std(d), windows.std(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(series.quantiles(d, (0.37,))[0], windows.quantile(0.37), rtol=1e-12)
