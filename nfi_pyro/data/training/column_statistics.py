"""Exact statistics of every feature over the training cells, read block by block.

A panel may be larger than memory, so nothing here holds more than a block of dates and a budget.
However the dates are cut into blocks, the result is the same to the bit: sums are taken per date
and then added exactly (`math.fsum`); a median is an order statistic, found by counting.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nfi_pyro.errors import PanelError, ShapeError, name_places

MEMORY_BUDGET = 2**28  # bytes of training cells that medians may gather before they count instead
_DIGIT = 16  # bits of a float that one counting pass resolves


class FeatureBlocks(Protocol):
    """Consecutive blocks of training dates; every ``iter()`` starts again at the first date.

    Each block is a pair: features, float32, shape (date, asset, feature), NaN where unknown, and
    the mask of the cells that count, bool, shape (date, asset). Nobody writes into a block.
    """

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Start again at the first training date."""


@dataclass(frozen=True, eq=False)
class ArrayBlocks:
    """Arrays in memory as `FeatureBlocks`.

    Attributes
    ----------
    values : ndarray, shape (date, asset, feature)
        Features of the training dates, in raw units, NaN where unknown.
    mask : ndarray of bool, shape (date, asset)
        Cells that count.
    dates_per_block : int
        At least 1; nothing that is fitted depends on it.
    """

    values: np.ndarray
    mask: np.ndarray
    dates_per_block: int = 64

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield views of consecutive dates."""
        if self.mask.shape != self.values.shape[:2] or self.mask.dtype != bool:
            raise mask_error(self.values.shape[:2], self.mask)
        for start in range(0, len(self.values), self.dates_per_block):
            part = slice(start, start + self.dates_per_block)
            yield self.values[part], self.mask[part]


def column_moments(blocks: FeatureBlocks, features: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (ddof 0), float64, each of shape (feature,).

    Over the finite cells that count. A constant feature has a standard deviation of exactly 0.

    Raises
    ------
    ShapeError
        If a mask does not match its values, the columns are not `features`, or no cell counts.
    PanelError
        If a feature is finite in no cell that counts.
    """
    known, least, most = column_range(blocks, features)

    def date_sums(term: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Return the exact sum over dates of the float64 sums of each date."""
        sums = [
            np.where(np.isfinite(cells), term(cells.astype(np.float64)), 0.0).sum(axis=0)
            for cells in _dates(blocks, features)
        ]
        return np.array([math.fsum(column) for column in np.stack(sums, axis=1)])

    # an infinite cell is left out after its term was computed
    with np.errstate(invalid="ignore", over="ignore"):
        mean = date_sums(lambda cells: cells) / known
        sd = np.sqrt(date_sums(lambda cells: (cells - mean) ** 2) / known)
    return mean, np.where(least == most, 0.0, sd)


def column_range(
    blocks: FeatureBlocks, features: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return count, least and greatest of the finite cells that count, each of shape (feature,).

    Raises
    ------
    ShapeError, PanelError
        As `column_moments`.
    """
    known = np.zeros(len(features), dtype=np.int64)
    least, most = np.full(len(features), np.inf), np.full(len(features), -np.inf)
    total = 0
    for cells in _dates(blocks, features):
        finite = np.isfinite(cells)
        known += finite.sum(axis=0)
        np.minimum(least, np.where(finite, cells, np.inf).min(axis=0, initial=np.inf), out=least)
        np.maximum(most, np.where(finite, cells, -np.inf).max(axis=0, initial=-np.inf), out=most)
        total += len(cells)
    _require_known(known, total, features)
    return known, least, most


def column_medians(blocks: FeatureBlocks, features: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return median and median absolute deviation from it, float64, each of shape (feature,).

    Exact, and equal to `numpy.median` of the finite cells in float64. One reading of the blocks
    when the cells that count fit into `MEMORY_BUDGET`; otherwise one for every 16 bits of a
    value and of a deviation: six for float32.

    Raises
    ------
    ShapeError, PanelError
        As `column_moments`.
    """
    gathered: list[np.ndarray] = []
    held = 0
    for cells in _blocks(blocks, features):
        held += cells.nbytes
        if held > MEMORY_BUDGET:
            gathered.clear()
            center = _counted_medians(blocks, features, None)
            return center, _counted_medians(blocks, features, center)
        gathered.append(cells)
    center, deviation = np.empty(len(features)), np.empty(len(features))
    counts = np.zeros(len(features), dtype=np.int64)
    for column in range(len(features)):
        parts = [_finite(cells[:, column], None) for cells in gathered]
        known = np.concatenate([np.empty(0), *parts]).astype(np.float64)
        counts[column] = known.size
        if known.size:
            center[column] = np.median(known)
            deviation[column] = np.median(np.abs(known - center[column]))
    _require_known(counts, sum(len(cells) for cells in gathered), features)
    return center, deviation


def _counted_medians(
    blocks: FeatureBlocks, features: Sequence[str], center: np.ndarray | None
) -> np.ndarray:
    """Return the medians of the cells, or of their distance from `center`, by radix selection.

    Every pass counts the next 16 bits, of those cells whose higher bits are already known to be
    the lower or the upper median's. The bits of a float sort as the float once the sign is
    folded in.
    """
    ranks, prefixes = np.empty(0, dtype=np.int64), None
    kind, done = np.dtype(np.float64), 0
    while prefixes is None or done < 8 * kind.itemsize:
        counts = np.zeros((len(features), 2, 1 << _DIGIT), dtype=np.int64)
        total = 0
        for cells in _blocks(blocks, features):
            total += len(cells)
            for column in range(len(features)):
                known = _finite(cells[:, column], None if center is None else center[column])
                kind = known.dtype
                prefix = None if prefixes is None else prefixes[column]
                _count_digits(_keys(known), counts[column], prefix, done)
        if prefixes is None:
            known = counts[:, 0].sum(axis=1)
            _require_known(known, total, features)
            ranks = np.stack([(known - 1) // 2, known // 2], axis=1)
            prefixes = np.zeros(ranks.shape, dtype=np.uint64)
        digit = np.empty_like(ranks)
        for place in np.ndindex(ranks.shape):
            reached = np.cumsum(counts[place])
            digit[place] = np.searchsorted(reached, ranks[place], side="right")
            ranks[place] -= reached[digit[place] - 1] if digit[place] else 0
        prefixes = (prefixes << np.uint64(_DIGIT)) | digit.astype(np.uint64)
        done += _DIGIT
    return _values(prefixes, kind).astype(np.float64).mean(axis=1)


def _count_digits(
    keys: np.ndarray, counts: np.ndarray, prefixes: np.ndarray | None, done: int
) -> None:
    """Add to `counts`, (2, digit), the next digit of the keys that begin with each prefix."""
    number = keys.dtype.type  # shifts keep the width of the keys
    width = 8 * keys.itemsize
    digits = (keys >> number(width - done - _DIGIT)) & number((1 << _DIGIT) - 1)
    if prefixes is None:
        counts += np.bincount(digits.astype(np.int64), minlength=1 << _DIGIT)
        return
    heads = keys >> number(width - done)
    for side in (0, 1):
        if side == 0 or prefixes[0] != prefixes[1]:
            chosen = digits[heads == number(prefixes[side])]
            found = np.bincount(chosen.astype(np.int64), minlength=1 << _DIGIT)
        counts[side] += found


def _keys(values: np.ndarray) -> np.ndarray:
    """Return unsigned integers that sort as the floats given."""
    unsigned = np.dtype(f"u{values.itemsize}").type
    bits = values.view(unsigned)
    sign = unsigned(1 << (8 * values.itemsize - 1))
    return np.where(bits & sign, ~bits, bits | sign)


def _values(keys: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Return the floats of type `kind` whose `_keys` these are."""
    unsigned = np.dtype(f"u{kind.itemsize}").type
    bits = keys.astype(unsigned)
    sign = unsigned(1 << (8 * kind.itemsize - 1))
    return np.where(bits & sign, bits ^ sign, ~bits).view(kind)


def _finite(column: np.ndarray, center: float | None) -> np.ndarray:
    """Return the finite cells, or their distance from `center` in float64; no negative zero."""
    known = column[np.isfinite(column)]
    if center is None:
        return known + known.dtype.type(0)
    return np.abs(known.astype(np.float64) - center)


def _blocks(blocks: FeatureBlocks, features: Sequence[str]) -> Iterator[np.ndarray]:
    """Yield the cells that count of each block, a copy of shape (cell, feature)."""
    for values, mask in blocks:
        _require_fit(values, mask, features)
        yield values[mask]


def _dates(blocks: FeatureBlocks, features: Sequence[str]) -> Iterator[np.ndarray]:
    """Yield the cells that count of each date, a copy of shape (cell, feature)."""
    for values, mask in blocks:
        _require_fit(values, mask, features)
        for date in range(len(values)):
            yield values[date][mask[date]]


def _require_fit(values: np.ndarray, mask: np.ndarray, features: Sequence[str]) -> None:
    if mask.shape != values.shape[:2]:
        raise mask_error(values.shape[:2], mask)
    require_columns(values, features)


def require_columns(values: np.ndarray, features: Sequence[str]) -> None:
    """Refuse an array whose last axis is not as long as `features`."""
    if values.shape[-1] != len(features):
        raise ShapeError(
            f"features must have {len(features)} columns ({', '.join(features[:3])}"
            f", ...); got {values.shape[-1]}. Build the panel with the run's features."
        )


def mask_error(shape: tuple[int, ...], mask: np.ndarray) -> ShapeError:
    """Return the error for a training mask of the wrong shape or without a cell."""
    return ShapeError(
        f"the training mask must be bool of shape {shape} with at least one cell; got "
        f"{mask.dtype} of shape {mask.shape} with {int(mask.sum())} cells. Is the training span "
        "in the panel, and is any asset tradable in it?"
    )


def _require_known(known: np.ndarray, total: int, features: Sequence[str]) -> None:
    """Refuse features without one finite training cell, and training without a cell."""
    if not total:
        raise ShapeError(
            "the training mask must have at least one cell; got 0 cells in all its blocks. Is the "
            "training span in the panel, and is any asset tradable in it?"
        )
    unknown = [name for name, count in zip(features, known, strict=True) if not count]
    if unknown:
        raise PanelError(
            f"features must be finite in a training cell that counts; got none in {total} "
            f"tradable cells at {name_places(unknown)}. Leave those features out, or train on "
            "dates that have them."
        )
