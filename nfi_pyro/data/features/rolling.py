"""Rolling operators over calendar rows, for many assets at once, in float64.

Every array is (date, asset). A window holds the last `d` calendar rows, fewer at the start; NaN
rows stay in the window and are skipped (minimum one observation), +-inf count as NaN. These are
the rules of pandas ``rolling(d, min_periods=1)`` and of qlib's Slope, Rsquare and Resi.

A window is folded from two shorter ones, which other windows share: 60 rows are 30 + 30, 30 are
20 + 10. Moments are merged by the stable update of Chan, Golub and LeVeque (1983), so nothing
cancels: a constant price has a variance of exactly zero, and a value depends on nothing but the
rows of its own window, to the last bit.
"""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
State = tuple[NDArray, ...]
Combine = Callable[[State, State, State, int], None]

STD_FLOOR = 2e-5
"""Standard deviations up to this count as zero in R-squared and correlation (qlib's tolerance)."""


class Line(NamedTuple):
    """Least-squares line through the positions 1..d of a window."""

    slope: FloatArray
    rsquare: FloatArray
    residual: FloatArray


class Rolling:
    """One series, array (date, asset), and its windows; what operators share is computed once.

    Parameters
    ----------
    values : ndarray, shape (date, asset)
        Any float type; windows are float64. NaN is a row without an observation, +-inf counts as
        NaN.
    trend : bool
        Whether `line` will be asked for: its moments then serve `mean` and `std` too. No value
        depends on it.
    """

    def __init__(self, values: NDArray, *, trend: bool = False) -> None:
        self.known: NDArray[np.bool_] = np.isfinite(values)
        self.filled: FloatArray = np.where(self.known, values, np.float64(0))
        self._trend = trend
        self._ranks: dict[int, NDArray[np.uint16]] = {}

    @cached_property
    def values(self) -> FloatArray:
        """The series with +-inf as NaN."""
        return np.where(self.known, self.filled, np.nan)

    def count(self, d: int) -> NDArray[np.int64]:
        """Return the number of observations in each window."""
        return window_count(self._running_count, d)

    def sum(self, d: int) -> FloatArray:
        """Return the sum over each window; NaN where it has no observation."""
        return np.where(self.count(d) > 0, self._sums.over(d)[0], np.nan)

    def mean(self, d: int) -> FloatArray:
        """Return the mean over each window; NaN where it has no observation."""
        count, mean, _ = self._moments(d)
        return np.where(count > 0, mean, np.nan)

    def std(self, d: int) -> FloatArray:
        """Return the standard deviation (ddof 1) over each window; NaN below two observations."""
        count, _, squares = self._moments(d)
        return _std(count, squares)

    def max(self, d: int) -> FloatArray:
        """Return the largest observation of each window, NaN where there is none."""
        return self._highest.over(d)[0]

    def min(self, d: int) -> FloatArray:
        """Return the smallest observation of each window, NaN where there is none."""
        return self._lowest.over(d)[0]

    def line(self, d: int) -> Line:
        """Return slope, R-squared and last residual of the line through each window.

        Positions are 1..d, right-aligned; NaN rows are skipped and keep their position. All three
        are NaN below two observations, `rsquare` also where the standard deviation is at most
        `STD_FLOOR`, `residual` where the current value is NaN. The other two are defined then.
        """
        count, mean, squares, lag_mean, lag_squares, products = self._lines.over(d)
        enough = count > 1
        safe = np.where(enough, lag_squares, 1.0)
        slope = np.where(enough, products / safe, np.nan)
        varies = _std(count, squares) > STD_FLOOR
        rsquare = np.where(varies, products * slope / np.where(varies, squares, 1.0), np.nan)
        return Line(slope, rsquare, self.values - (mean + slope * lag_mean))

    def rank(self, d: int) -> FloatArray:
        """Return the rank of the current value in its window over the number of observations.

        In (0, 1], equal values share the average rank; NaN where the current value is.
        """
        values = self.values
        done = max((w for w in self._ranks if w <= d), default=0)
        # twice the observations below plus those equal, over the lags so far
        doubled = self._ranks[done].copy() if done else np.zeros(values.shape, np.uint16)
        for lag in range(done, min(d, len(values))):
            now, then = values[lag:], values[: len(values) - lag]
            doubled[lag:] += then < now
            doubled[lag:] += then <= now
        self._ranks[d] = doubled
        rank = (doubled + 1.0) / (2 * np.maximum(self.count(d), 1))
        return np.where(self.known, rank, np.nan)

    def quantiles(self, d: int, levels: tuple[float, ...]) -> tuple[FloatArray, ...]:
        """Return one array per level: linearly interpolated quantiles of each window."""
        padding = np.full((d - 1, self.values.shape[1]), np.nan)
        padded = np.concatenate([padding, self.values])
        ordered = np.array(sliding_window_view(padded, d, axis=0), order="C")
        ordered.sort(axis=-1)  # NaN sorts last
        last = np.maximum(self.count(d) - 1, 0)
        cells = ordered.reshape(-1)
        first = np.arange(0, ordered.size, d).reshape(last.shape)

        def at(level: float) -> FloatArray:
            place = last * level
            lower = place.astype(np.int64)
            low = cells[first + lower]
            high = cells[first + np.minimum(lower + 1, last)]
            return low + (high - low) * (place - lower)

        return tuple(at(level) for level in levels)

    def position_of_max(self, d: int, first_row: NDArray[np.int64]) -> FloatArray:
        """Return where in its window the maximum lies, counted from 1 at the oldest row.

        The first of equal values wins, and a NaN row wins over every number (numpy's argmax, which
        qlib applies). Rows above `first_row`, an asset's first calendar row (asset,), are not part
        of the window, so early windows are short; it is the same array in every call. NaN where
        the window has no observation.
        """
        if self._upper is None:
            self._upper = _positions(self.values, first_row)
        return self._position(self._upper, d, first_row)

    def position_of_min(self, d: int, first_row: NDArray[np.int64]) -> FloatArray:
        """Return where in its window the minimum lies; the rules are those of the maximum."""
        if self._lower is None:
            self._lower = _positions(-self.values, first_row)
        return self._position(self._lower, d, first_row)

    _upper: "Fold | None" = None
    _lower: "Fold | None" = None

    def _position(self, fold: "Fold", d: int, first_row: NDArray[np.int64]) -> FloatArray:
        rows = np.arange(len(self.filled))[:, None]
        oldest = np.maximum(rows - (d - 1), first_row)
        return np.where(self.count(d) > 0, fold.over(d)[1] - oldest + 1.0, np.nan)

    def _moments(self, d: int) -> State:
        """Return count, mean and sum of squared deviations: the same bits from either fold."""
        return self._lines.over(d)[:3] if self._trend else self._spreads.over(d)

    @cached_property
    def _running_count(self) -> NDArray[np.int64]:
        return self.known.cumsum(axis=0)

    @cached_property
    def _sums(self) -> "Fold":
        return Fold((self.filled,), _add)

    @cached_property
    def _highest(self) -> "Fold":
        return Fold((self.values,), _higher)

    @cached_property
    def _lowest(self) -> "Fold":
        return Fold((self.values,), _lower)

    @cached_property
    def _spreads(self) -> "Fold":
        zero = np.zeros(self.filled.shape)
        return Fold((self.known.astype(np.float64), self.filled, zero), _merge)

    @cached_property
    def _lines(self) -> "Fold":
        zero = np.zeros(self.filled.shape)
        state = (self.known.astype(np.float64), self.filled, zero, zero, zero, zero)
        return Fold(state, _merge_line)


class Pair:
    """Two series, and their correlation over windows."""

    def __init__(self, left: Rolling, right: Rolling) -> None:
        self.left, self.right = left, right
        known = left.known & right.known
        zero = np.zeros(known.shape)
        state = (
            known.astype(np.float64),
            np.where(known, left.filled, 0.0),
            zero,
            np.where(known, right.filled, 0.0),
            zero,
            zero,
        )
        self._fold = Fold(state, _merge_pair)
        self._complete = [bool((known == series.known).all()) for series in (left, right)]

    def correlation(self, d: int) -> FloatArray:
        """Return Pearson's correlation over the rows of each window where both are known.

        NaN below two such rows, and where the standard deviation of either, over all its own
        observations in the window, is at most `STD_FLOOR`.
        """
        count, _, left_squares, _, right_squares, products = self._fold.over(d)
        defined = count > 1
        sides = ((self.left, left_squares), (self.right, right_squares))
        for (series, squares), complete in zip(sides, self._complete, strict=True):
            spread = _std(count, squares) if complete else series.std(d)  # the same where complete
            defined &= ~(spread <= STD_FLOOR)
        scale = np.sqrt(left_squares * right_squares)
        defined &= scale > 0
        return np.where(defined, products / np.where(defined, scale, 1.0), np.nan)


class Fold:
    """Something folded over windows of several lengths, each from two shorter ones, older first.

    Parameters
    ----------
    state : tuple of ndarray, each (date, asset)
        The windows of one row.
    combine : callable
        Takes the states of the older and of the newer part, where to write the whole, and the
        number of rows of the newer part. With an empty older part the whole is the newer part.
    """

    def __init__(self, state: State, combine: Combine) -> None:
        self._windows = {1: state}
        self._combine = combine

    def over(self, d: int) -> State:
        """Return the state of each window of `d` rows (fewer at the start)."""
        if d not in self._windows:
            rows = _newer_rows(d)
            older, newer = self.over(d - rows), self.over(rows)
            whole = tuple(np.empty_like(values) for values in newer)
            for target, values in zip(whole, newer, strict=True):
                target[:rows] = values[:rows]
            last = max(len(newer[0]) - rows, 0)
            self._combine(
                tuple(values[:last] for values in older),
                tuple(values[rows:] for values in newer),
                tuple(values[rows:] for values in whole),
                rows,
            )
            self._windows[d] = whole
        return self._windows[d]


def lagged(values: NDArray, rows: int) -> NDArray:
    """Return `values` moved down by `rows` calendar rows, NaN where there is no such row."""
    moved = np.full_like(values, np.nan)
    if rows < len(values):
        moved[rows:] = values[: len(values) - rows]
    return moved


def window_count(running: NDArray[np.int64], d: int) -> NDArray[np.int64]:
    """Return counts over each window of `d` rows from the running count since the first row."""
    counts = running.copy()
    counts[d:] -= running[: max(len(running) - d, 0)]
    return counts


def _newer_rows(d: int) -> int:
    """Return how many rows of a window are its newer part."""
    if d == 30:
        return 10  # 20 and 10 are windows of their own: nothing is folded for 30 alone
    return d // 2 if d % 2 == 0 else 1


def _std(count: FloatArray, squares: FloatArray) -> FloatArray:
    return np.sqrt(np.where(count > 1, squares / np.maximum(count - 1, 1), np.nan))


def _positions(values: FloatArray, first_row: NDArray[np.int64]) -> Fold:
    """Return a fold of the largest value and its row; NaN counts as the largest of all."""
    rows = np.arange(len(values))[:, None]
    missing = np.where(rows >= first_row, np.inf, -np.inf)
    score = np.where(np.isnan(values), missing, values)
    return Fold((score, np.broadcast_to(rows.astype(np.int32), values.shape)), _older_max)


def _add(older: State, newer: State, whole: State, rows: int) -> None:
    np.add(older[0], newer[0], out=whole[0])


def _higher(older: State, newer: State, whole: State, rows: int) -> None:
    np.fmax(older[0], newer[0], out=whole[0])


def _lower(older: State, newer: State, whole: State, rows: int) -> None:
    np.fmin(older[0], newer[0], out=whole[0])


def _older_max(older: State, newer: State, whole: State, rows: int) -> None:
    np.maximum(older[0], newer[0], out=whole[0])
    np.copyto(whole[1], older[1])
    np.copyto(whole[1], newer[1], where=newer[0] > older[0])


def _merge(older: State, newer: State, whole: State, rows: int) -> None:
    """Merge count, mean and sum of squared deviations."""
    share = _shares(older, newer, whole)
    gap = _merge_mean(older, newer, whole, 1, share)
    share *= older[0]
    _merge_products(older, newer, whole, 2, gap * gap, share)


def _merge_line(older: State, newer: State, whole: State, rows: int) -> None:
    """Merge the moments, then mean lag, its sum of squares and its products with the values.

    Lags count rows back from the newest of the window, so they grow by `rows` for the older part.
    """
    share = _shares(older, newer, whole)
    gap = _merge_mean(older, newer, whole, 1, share)
    lag_gap = newer[3] - older[3]
    lag_gap -= rows
    step = lag_gap * share
    step += older[3]
    np.add(step, rows, out=whole[3])
    share *= older[0]
    _merge_products(older, newer, whole, 2, gap * gap, share)
    _merge_products(older, newer, whole, 4, lag_gap * lag_gap, share)
    gap *= lag_gap
    _merge_products(older, newer, whole, 5, np.negative(gap, out=gap), share)


def _merge_pair(older: State, newer: State, whole: State, rows: int) -> None:
    """Merge count, then mean and sum of squares of each side, then the sum of products."""
    share = _shares(older, newer, whole)
    left = _merge_mean(older, newer, whole, 1, share)
    right = _merge_mean(older, newer, whole, 3, share)
    share *= older[0]
    _merge_products(older, newer, whole, 2, left * left, share)
    _merge_products(older, newer, whole, 4, right * right, share)
    left *= right
    _merge_products(older, newer, whole, 5, left, share)


def _shares(older: State, newer: State, whole: State) -> FloatArray:
    """Write the count and return the newer part's share of it, 0 of nothing."""
    np.add(older[0], newer[0], out=whole[0])
    share = np.maximum(whole[0], 1.0)
    return np.divide(newer[0], share, out=share)


def _merge_mean(
    older: State, newer: State, whole: State, place: int, share: FloatArray
) -> FloatArray:
    """Write the mean at `place` and return how far the newer part's lies above the older's."""
    gap: FloatArray = newer[place] - older[place]
    np.multiply(gap, share, out=whole[place])
    whole[place][...] += older[place]
    return gap


def _merge_products(
    older: State, newer: State, whole: State, place: int, gaps: FloatArray, weight: FloatArray
) -> None:
    """Write the sum of products at `place`; `gaps`, the product of two gaps, is used up."""
    gaps *= weight
    np.add(older[place], newer[place], out=whole[place])
    whole[place][...] += gaps
