"""Rolling operators over calendar rows, for many assets at once, in float64.

Every array is (date, asset). A window holds the last `d` calendar rows, fewer at the start; NaN
rows stay in the window and are skipped (minimum one observation), +-inf count as NaN. These are
the rules of pandas ``rolling(d, min_periods=1)`` and of qlib's Slope, Rsquare and Resi.

Sums, extremes and moments are folded by doubling: a window of 60 rows is 32 + 16 + 8 + 4 rows,
each built from two halves. Moments are merged by the stable update of Chan, Golub and LeVeque
(1983), so nothing cancels: a constant price has a variance of exactly zero, and a value depends
on nothing but the rows of its own window.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
State = tuple[FloatArray, ...]

STD_FLOOR = 2e-5
"""Standard deviations up to this count as zero in `line` and `correlation` (qlib's tolerance)."""


class Line(NamedTuple):
    """Least-squares line through the positions 1..d of a window."""

    slope: FloatArray
    rsquare: FloatArray
    residual: FloatArray


def finite_or_nan(values: FloatArray) -> FloatArray:
    """Return `values` with +-inf as NaN."""
    return np.where(np.isfinite(values), values, np.nan)


def lagged(values: FloatArray, rows: int) -> FloatArray:
    """Return `values` moved down by `rows` calendar rows, NaN where there is no such row."""
    moved = np.full_like(values, np.nan)
    if rows < len(values):
        moved[rows:] = values[: len(values) - rows]
    return moved


def window_sum(values: FloatArray, d: int) -> FloatArray:
    """Return the sum over each window; NaN where it has no observation."""
    known = np.isfinite(values)
    state = (np.where(known, values, 0.0), known.astype(np.float64))
    total, count = _fold(state, d, _add, (0.0, 0.0))
    return np.where(count > 0, total, np.nan)


def window_mean(values: FloatArray, d: int) -> FloatArray:
    """Return the mean over each window; NaN where it has no observation."""
    count, mean, _ = _moments(values, d)
    return np.where(count > 0, mean, np.nan)


def window_std(values: FloatArray, d: int) -> FloatArray:
    """Return the standard deviation (ddof 1) over each window; NaN below two observations."""
    count, _, squares = _moments(values, d)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)


def window_max(values: FloatArray, d: int) -> FloatArray:
    """Return the largest observation of each window, NaN where there is none."""
    return _fold((finite_or_nan(values),), d, lambda a, b: (np.fmax(a[0], b[0]),), (np.nan,))[0]


def window_min(values: FloatArray, d: int) -> FloatArray:
    """Return the smallest observation of each window, NaN where there is none."""
    return -window_max(-values, d)


def position_of_max(values: FloatArray, d: int, first_row: NDArray[np.int64]) -> FloatArray:
    """Return where in its window the maximum lies, counted from 1 at the oldest row.

    The first of equal values wins, and a NaN row wins over every number (numpy's argmax, which
    qlib applies). Rows above `first_row`, an asset's first calendar row (asset,), are not part of
    the window, so early windows are short. NaN where the window has no observation.
    """
    rows = np.arange(len(values), dtype=np.float64)[:, None]
    known = np.isfinite(values)
    listed = rows >= first_row
    score = np.where(known, values, np.where(listed, np.inf, -np.inf))
    state = (score, np.broadcast_to(rows, values.shape), known.astype(np.float64))
    _, best, count = _fold(state, d, _older_max, (-np.inf, 0.0, 0.0))
    oldest = np.maximum(rows - (d - 1), first_row)
    return np.where(count > 0, best - oldest + 1, np.nan)


def position_of_min(values: FloatArray, d: int, first_row: NDArray[np.int64]) -> FloatArray:
    """Return where in its window the minimum lies; the rules are those of `position_of_max`."""
    return position_of_max(-values, d, first_row)


def window_rank(values: FloatArray, d: int) -> FloatArray:
    """Return the rank of the current value in its window over the number of observations.

    In (0, 1], equal values share the average rank; NaN where the current value is.
    """
    values = finite_or_nan(values)
    below, equal, count = (np.zeros_like(values) for _ in range(3))
    for lag in range(min(d, len(values))):
        now, then = values[lag:], values[: len(values) - lag]
        below[lag:] += then < now
        equal[lag:] += then == now
        count[lag:] += np.isfinite(then)
    rank = (below + (equal + 1) / 2) / np.maximum(count, 1)
    return np.where(np.isfinite(values), rank, np.nan)


def window_quantiles(values: FloatArray, d: int, levels: tuple[float, ...]) -> State:
    """Return one array per level: linearly interpolated quantiles of each window."""
    padding = np.full((d - 1, values.shape[1]), np.nan)
    padded = np.concatenate([padding, finite_or_nan(values)])
    ordered = np.sort(sliding_window_view(padded, d, axis=0), axis=-1)  # NaN sorts last
    last = np.isfinite(ordered).sum(axis=-1) - 1

    def at(level: float) -> FloatArray:
        place = np.maximum(last, 0) * level
        lower = np.floor(place).astype(np.int64)
        upper = np.minimum(lower + 1, np.maximum(last, 0))
        low = np.take_along_axis(ordered, lower[..., None], axis=-1)[..., 0]
        high = np.take_along_axis(ordered, upper[..., None], axis=-1)[..., 0]
        return low + (high - low) * (place - lower)

    return tuple(at(level) for level in levels)


def window_line(values: FloatArray, d: int) -> Line:
    """Return slope, R-squared and last residual of the line through each window.

    Positions are 1..d, right-aligned; NaN rows are skipped and keep their position. All three are
    NaN below two observations, `rsquare` also where the standard deviation is at most `STD_FLOOR`,
    `residual` where the current value is NaN. The other two are defined on such a day.
    """
    values = finite_or_nan(values)
    rows = np.broadcast_to(np.arange(len(values), dtype=np.float64)[:, None], values.shape)
    count, row_mean, mean, row_squares, squares, products = _comoments(rows, values, d)
    enough = count > 1
    safe = np.where(enough, row_squares, 1.0)
    slope = np.where(enough, products / safe, np.nan)
    std = np.sqrt(squares / np.maximum(count - 1, 1))
    varies = enough & (std > STD_FLOOR)
    rsquare = np.where(varies, products**2 / (safe * np.where(varies, squares, 1.0)), np.nan)
    return Line(slope, rsquare, values - (mean + slope * (rows - row_mean)))


def window_correlation(left: FloatArray, right: FloatArray, d: int) -> FloatArray:
    """Return Pearson's correlation over the rows of each window where both are known.

    NaN below two such rows, and where the standard deviation of either, over all its own
    observations in the window, is at most `STD_FLOOR`.
    """
    count, _, _, left_squares, right_squares, products = _comoments(left, right, d)
    flat = (window_std(left, d) <= STD_FLOOR) | (window_std(right, d) <= STD_FLOOR)
    scale = np.sqrt(left_squares * right_squares)
    defined = (count > 1) & ~flat & (scale > 0)
    return np.where(defined, products / np.where(defined, scale, 1.0), np.nan)


def _fold(
    state: State, d: int, combine: Callable[[State, State], State], empty: tuple[float, ...]
) -> State:
    """Return `combine` folded over the last `d` rows, older rows on the left, by doubling."""
    total: State | None = None
    covered, size, block = 0, 1, state
    while size <= d:
        if d & size:
            total = block if total is None else combine(_moved(block, covered, empty), total)
            covered += size
        if 2 * size <= d:
            block = combine(_moved(block, size, empty), block)
        size *= 2
    return block if total is None else total


def _moved(state: State, rows: int, empty: tuple[float, ...]) -> State:
    moved = []
    for values, fill in zip(state, empty, strict=True):
        target = np.full(values.shape, fill)
        if rows < len(values):
            target[rows:] = values[: len(values) - rows]
        moved.append(target)
    return tuple(moved)


def _add(older: State, newer: State) -> State:
    return tuple(a + b for a, b in zip(older, newer, strict=True))


def _older_max(older: State, newer: State) -> State:
    later = newer[0] > older[0]
    return (
        np.where(later, newer[0], older[0]),
        np.where(later, newer[1], older[1]),
        older[2] + newer[2],
    )


def _moments(values: FloatArray, d: int) -> State:
    """Return count, mean and sum of squared deviations of each window."""
    known = np.isfinite(values)
    state = (known.astype(np.float64), np.where(known, values, 0.0), np.zeros(values.shape))
    return _fold(state, d, _merge, (0.0, 0.0, 0.0))


def _merge(older: State, newer: State) -> State:
    count = older[0] + newer[0]
    share = newer[0] / np.maximum(count, 1.0)
    gap = newer[1] - older[1]
    return count, older[1] + gap * share, older[2] + newer[2] + gap * gap * (older[0] * share)


def _comoments(left: FloatArray, right: FloatArray, d: int) -> State:
    """Return count, both means, both sums of squares and the sum of products of each window."""
    known = np.isfinite(left) & np.isfinite(right)
    zero = np.zeros(left.shape)
    state = (
        known.astype(np.float64),
        np.where(known, left, 0.0),
        np.where(known, right, 0.0),
        zero,
        zero,
        zero,
    )
    return _fold(state, d, _merge_pair, (0.0,) * 6)


def _merge_pair(older: State, newer: State) -> State:
    count = older[0] + newer[0]
    share = newer[0] / np.maximum(count, 1.0)
    weight = older[0] * share
    left, right = newer[1] - older[1], newer[2] - older[2]
    return (
        count,
        older[1] + left * share,
        older[2] + right * share,
        older[3] + newer[3] + left * left * weight,
        older[4] + newer[4] + right * right * weight,
        older[5] + newer[5] + left * right * weight,
    )
