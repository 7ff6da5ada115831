"""One-day moves sorted by what they look like: slips of units, splits, new bases, the rest."""

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nfi_pyro.data.market.price_limits import read_price_limits

JUMP = 0.4
"""One-day close moves beyond this are named: rare in markets, common in bad price adjustments."""

# One share becomes q of p: 2 for 1, 3 for 2, 10 for 1, ..., and the consolidations.
_SPLITS = np.array(
    [1 / 2, 1 / 3, 2 / 3, 3 / 4, 1 / 4, 2 / 5, 3 / 5, 1 / 5, 1 / 6, 1 / 7, 1 / 8, 1 / 10, 1 / 20]
)
SPLIT_LOGS = np.log(np.concatenate([_SPLITS, 1 / _SPLITS]))
_SPLIT_SLACK = 0.02  # of the log of the overnight ratio: half a day's usual move
_SCALE_SLACK = 0.15  # of the log: a slip of units comes on top of a day's move
_LEVEL = 5  # rows on each side that say whether a level was there and stays
_SLIP = 20  # rows within which a slip by ten is undone, if it is one
_BUSY = 3.0  # times the median volume of the 20 rows before: news, not bookkeeping
_LIMIT_SLACK = 0.02  # prices are rounded to cents, also after adjustment
_FREE_ROWS = 5  # new listings trade without a limit for up to five days
_SHARE = re.compile(r"(SH|SZ|BJ)[0-9]{6}")


@dataclass(frozen=True)
class Moves:
    """Cells whose one-day move is suspicious; rows and columns count from 0.

    Attributes
    ----------
    rule : array of str, shape (n,)
        ``scale_jump``, ``unadjusted_split``, ``adjustment_base`` or ``jump``.
    row, column : array of int, shape (n,)
        The later date of the move, and the asset.
    move : array, shape (n,)
        Simple return, close to close, a decimal.
    """

    rule: np.ndarray
    row: np.ndarray
    column: np.ndarray
    move: np.ndarray


def sort_moves(
    close: np.ndarray, opened: np.ndarray | None, volume: np.ndarray | None, assets: np.ndarray
) -> Moves:
    """Return every suspicious move with the one rule that it breaks.

    Parameters
    ----------
    close, opened, volume : array (date, asset)
        Consecutive dates; NaN where unknown. Without opens no split or new base can be told.
    assets : array of str
        Mainland Chinese codes (``SH600000``) have daily price limits.
    """
    close = np.where(np.isfinite(close) & (close > 0), close, np.nan)
    log = np.log(close)
    limit = _limits(assets)
    floor = np.minimum(np.where(np.isfinite(limit), limit, 0.22), JUMP)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        candidate = np.abs(np.diff(close, axis=0) / close[:-1]) > floor
    row, column = np.nonzero(candidate)
    row = row + 1
    change = log[row, column] - log[row - 1, column]
    move = np.expm1(change)
    scale, way_back = _slips(log, change, row, column, volume)
    rule = np.where(np.abs(move) > JUMP, "jump", "").astype(object)
    if opened is not None:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            gap = np.log(opened[row, column]) - log[row - 1, column]
        shifted = _persists(log, change, row, column) & (np.abs(gap - change) < np.abs(change) / 2)
        quiet = _quiet(volume, row, column, 1.0)
        # a split multiplies the shares traded by as much as it divides the price
        plain = _quiet(volume, row, column, np.exp(np.minimum(gap, 0.0)))
        near = np.abs(gap[:, None] - SPLIT_LOGS).min(axis=1, initial=np.inf) < _SPLIT_SLACK
        first = np.isfinite(close).argmax(axis=0)
        bound = (np.abs(move) > limit[column]) & (
            (first[column] == 0) | (row - first[column] >= _FREE_ROWS)
        )
        free = ~np.isfinite(limit[column]) & quiet & (np.abs(change) > np.log(2) - _SPLIT_SLACK)
        rule[shifted & (bound | free)] = "adjustment_base"
        # Without limits a rise to 4/3 is news (shares are merged by whole numbers), and a fall to
        # 3/4 is a split only when trading was quiet.
        plain &= ~np.isfinite(limit[column]) & ((gap < 0) | (gap > np.log(2) - _SPLIT_SLACK))
        rule[shifted & near & (bound | plain)] = "unadjusted_split"
    rule[scale] = "scale_jump"
    kept = (rule != "") & ~way_back
    return Moves(rule[kept], row[kept], column[kept], move[kept])


def _limits(assets: np.ndarray) -> np.ndarray:
    """Return the widest daily limit of each asset's board with slack, NaN for no A-share."""
    table = read_price_limits()
    widest: dict[str, float] = {}
    limits = np.full(len(assets), np.nan)
    for place, name in enumerate(map(str, assets)):
        board = table.board(name) if _SHARE.fullmatch(name) else None
        if board is None:
            continue
        if board not in widest:
            rules = table.of_board(board)
            widest[board] = max(max(rule.up, rule.down) for rule in rules) / 1e4 + _LIMIT_SLACK
        limits[place] = widest[board]
    return limits


def _near(log: np.ndarray, row: np.ndarray, column: np.ndarray, first: int) -> np.ndarray:
    """Return the values of up to five rows from ``row + first`` on, NaN beyond the ends."""
    rows = row[:, None] + first + np.arange(_LEVEL)
    inside = (rows >= 0) & (rows < len(log))
    values = log[np.clip(rows, 0, len(log) - 1), column[:, None]]
    return np.where(inside, values, np.nan)


def _median(values: np.ndarray) -> np.ndarray:
    """Return the median of each row without NaN; NaN for a row without a number."""
    result = np.full(len(values), np.nan)
    some = np.isfinite(values).any(axis=1)
    result[some] = np.nanmedian(values[some], axis=1)
    return result


def _persists(
    log: np.ndarray, change: np.ndarray, row: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """Return whether the levels of the rows before and after differ by most of the change."""
    before = _median(_near(log, row, column, -_LEVEL))
    after = _median(_near(log, row, column, 0))
    # nearer to the new level than to the old one, and the old one was a level
    return (after - before) * np.sign(change) > 0.6 * np.abs(change)


def _quiet(
    volume: np.ndarray | None, row: np.ndarray, column: np.ndarray, share: np.ndarray | float
) -> np.ndarray:
    """Return whether `share` of the volume is no more than usual; unknown counts as no."""
    if volume is None:
        return np.zeros(len(row), dtype=bool)
    rows = row[:, None] - 20 + np.arange(20)
    past = np.where(rows >= 0, volume[np.maximum(rows, 0), column[:, None]], np.nan)
    usual = _median(past)
    now = volume[row, column] * share
    return (now > 0) & (usual > 0) & (now < _BUSY * usual)


def _slips(
    log: np.ndarray,
    change: np.ndarray,
    row: np.ndarray,
    column: np.ndarray,
    volume: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return which moves are by a power of ten, and which of them only undo an earlier one."""
    tens = change / np.log(10)
    power = np.rint(tens)
    slip = (power != 0) & (np.abs(tens - power) * np.log(10) < _SCALE_SLACK)
    undone, way_back = np.zeros(len(row), dtype=bool), np.zeros(len(row), dtype=bool)
    order = np.lexsort((row, column))
    slips = order[slip[order]]
    for one, later in pairwise(slips):
        back = column[one] == column[later] and power[one] == -power[later]
        if back and row[later] - row[one] <= _SLIP and not way_back[one]:
            undone[one] = way_back[later] = True
    if volume is not None:
        # Ten for one moves the volume the other way; a slip of the price's unit does not.
        usual = _median(_near(volume, row, column, -_LEVEL))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            turned = np.log10(_median(_near(volume, row, column, 0)) / usual) * -np.sign(change)
        slip &= ~((np.abs(power) == 1) & ~undone & ~way_back & (turned > 0.5))
    return slip, way_back
