"""Daily price limits of the A-share boards: a dated table, which rule holds, and limit prices.

The table is data (``ashare_rules.toml``), because exchanges change it; nothing here knows a share.
"""

import re
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nfi_pyro.data.sources.symbols import canonical_symbol
from nfi_pyro.errors import SpecError, name_places

BUILT_IN_RULES = Path(__file__).with_name("ashare_rules.toml")
_BASIS_POINTS = 10_000
_LISTED_CODE = re.compile(r"(SH|SZ|BJ)[0-9]{6}")
_STILL = np.datetime64("9999-12-31", "D")
_SHARES = ("up", "down", "special_treatment")
_KEYS = ("board", "first", *_SHARES, "days_without_limit", "source")


@dataclass(frozen=True)
class PriceLimitRule:
    """The daily limits of one board over one period.

    Attributes
    ----------
    board : str
        Name of the board.
    first, last : datetime64[D]
        First and last day of the rule, both inclusive; `last` lies in the year 9999 while the
        rule is in force.
    up, down, special_treatment : int
        Limits in basis points of the previous close; `special_treatment` (ST) is both ways.
    days_without_limit : int
        Trading days from the listing on without a limit, for stocks listed in the period.
    source : str
        Where the row comes from.
    """

    board: str
    first: np.datetime64
    last: np.datetime64
    up: int
    down: int
    special_treatment: int
    days_without_limit: int
    source: str


@dataclass(frozen=True)
class PriceLimitTable:
    """Which board a symbol belongs to, and the limits of each board by date.

    Attributes
    ----------
    boards : tuple of (str, tuple of str)
        Board and the symbol prefixes (``SH600``) that belong to it.
    rules : tuple of PriceLimitRule
        By board and first date; periods of one board never overlap.
    """

    boards: tuple[tuple[str, tuple[str, ...]], ...]
    rules: tuple[PriceLimitRule, ...]

    def board(self, symbol: str) -> str | None:
        """Return the board of a symbol; None where it has none (no limits are known for it).

        Parameters
        ----------
        symbol : str
            ``SH600519``, ``600519.SH``, ``600519.XSHG`` or ``sh.600519``. Six digits alone name
            no exchange (000001 is a stock in Shenzhen and an index in Shanghai): no board.
        """
        code = canonical_symbol(str(symbol))
        if not _LISTED_CODE.fullmatch(code):
            return None
        matches = [name for name, prefixes in self.boards if code.startswith(prefixes)]
        return matches[0] if matches else None

    def of_board(self, board: str) -> tuple[PriceLimitRule, ...]:
        """Return the rules of one board, oldest first."""
        return tuple(rule for rule in self.rules if rule.board == board)


def read_price_limits(path: str | Path | None = None) -> PriceLimitTable:
    """Return the table of price limits of a TOML file, by default the built-in A-share rules.

    Parameters
    ----------
    path : str or Path, optional
        A file of the same form as the built-in ``ashare_rules.toml``: ``[boards]`` maps a board
        to symbol prefixes; each ``[[rule]]`` has board, first, optional last (inclusive), the
        decimal shares up, down and special_treatment, days_without_limit and source.

    Raises
    ------
    SpecError
        When the file is absent or does not parse, or when a row lacks a key, names an unknown
        board, has a value out of range or overlaps another row of its board.
    """
    place = BUILT_IN_RULES if path is None else Path(path)
    if not place.is_file():
        raise SpecError(f"price limit table must be a file; got none at {place}. Check the path.")
    try:
        content = tomllib.loads(place.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SpecError(
            f"price limit table must be TOML; got {error} at {place}. Correct the line."
        ) from error
    boards = _boards(content.get("boards"), place)
    rows = content.get("rule", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SpecError(
            f"price limit table must write its rows as [[rule]]; got {type(rows).__name__} at "
            f"{place}. Use double brackets."
        )
    known = [name for name, _ in boards]
    rules = [_rule(row, number, known, place) for number, row in enumerate(rows, 1)]
    rules.sort(key=lambda rule: (rule.board, rule.first))
    for before, after in pairwise(rules):
        if before.board == after.board and after.first <= before.last:
            raise SpecError(
                f"rules of board {after.board} must not overlap; got one to "
                f"{before.last} and one from {after.first} at {place}. "
                "End the earlier one before."
            )
    return PriceLimitTable(boards, tuple(rules))


def _boards(found: object, place: Path) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(found, dict) or not found:
        raise SpecError(
            f"price limit table must have a [boards] table; got {found!r} at {place}. "
            'Write, say, main = ["SH600", "SZ000"].'
        )
    boards = []
    seen: dict[str, str] = {}
    for name, prefixes in found.items():
        if not isinstance(prefixes, list) or not all(isinstance(text, str) for text in prefixes):
            raise SpecError(
                f"prefixes of a board must be a list of texts; got {prefixes!r} at {name} of "
                f'{place}. Write ["SH600", "SZ000"].'
            )
        for text in prefixes:
            clash = [other for other in seen if other.startswith(text) or text.startswith(other)]
            if clash:
                raise SpecError(
                    f"a prefix must belong to one board; got {text} of {name} and {clash[0]} of "
                    f"{seen[clash[0]]} at {place}. Take one out."
                )
            seen[text] = name
        boards.append((str(name), tuple(prefixes)))
    return tuple(boards)


def _rule(row: dict[str, Any], number: int, boards: list[str], place: Path) -> PriceLimitRule:
    where = f"rule {number} of {place}"
    missing = [key for key in _KEYS if key not in row]
    strange = [key for key in row if key not in (*_KEYS, "last")]
    if missing or strange:
        raise SpecError(
            f"a price limit rule must have the keys {', '.join(_KEYS)} and may have last; got "
            f"{name_places(missing) if missing else 'none'} missing and "
            f"{name_places(strange) if strange else 'none'} unknown at {where}. Correct the row."
        )
    if row["board"] not in boards:
        raise SpecError(
            f"board must be one of {boards}; got {row['board']!r} at {where}. Add it to [boards]."
        )
    days = row["days_without_limit"]
    if isinstance(days, bool) or not isinstance(days, int) or days < 0:
        raise SpecError(
            f"days_without_limit must be an integer >= 0; got {days!r} at {where}. Count in "
            "trading days."
        )
    first = _date(row["first"], where)
    last = _date(row["last"], where) if "last" in row else _STILL
    if last < first:
        raise SpecError(
            f"a rule must not end before it begins; got {first} to {last} at {where}. Swap "
            "the dates."
        )
    up, down, special = (_basis_points(row[key], key, where) for key in _SHARES)
    return PriceLimitRule(row["board"], first, last, up, down, special, days, str(row["source"]))


def _date(value: object, where: str) -> np.datetime64:
    try:
        return np.datetime64(str(value), "D")
    except ValueError as error:
        raise SpecError(
            f"dates of a rule must be days; got {value!r} at {where}. Write YYYY-MM-DD."
        ) from error


def _basis_points(value: object, key: str, where: str) -> int:
    """Return a decimal share as whole basis points, in which limit prices are exact."""
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else np.nan
    points = round(number * _BASIS_POINTS) if np.isfinite(number) else 0
    if not 0 < points <= _BASIS_POINTS or abs(points - number * _BASIS_POINTS) > 1e-6:
        raise SpecError(
            f"{key} must be a share above 0 and at most 1 in whole basis points; got {value!r} "
            f"at {where}. It is decimal: 0.1 is 10 percent."
        )
    return points


def round_to_cents(price: np.ndarray) -> np.ndarray:
    """Return prices in whole cents, halves upwards; -1 where there is no price.

    Prices come from divisions in binary, often in single precision, so that 10.045 may be stored
    a little low: what lies within one part in a million below a half counts as the half.

    Parameters
    ----------
    price : ndarray, any shape, float
        In currency units, >= 0; NaN for none.

    Returns
    -------
    ndarray of int64, same shape
    """
    cents = np.where(np.isfinite(price), np.asarray(price, dtype=np.float64) * 100, -1.0)
    return np.where(cents < 0, -1, np.floor(cents * (1 + 1e-6) + 0.5)).astype(np.int64)


def limit_cents(reference: np.ndarray, basis_points: np.ndarray) -> np.ndarray:
    """Return limit prices in whole cents: reference (1 + share), rounded half up, exactly.

    In integers: 10.05 (1 + 10 %) is 11.055 and becomes 11.06, which binary floats get wrong.

    Parameters
    ----------
    reference : ndarray of int64
        Reference price in cents, > 0.
    basis_points : ndarray of int64
        Signed share; -1000 is a limit-down of 10 percent.

    Returns
    -------
    ndarray of int64
    """
    scaled = reference.astype(np.int64) * (_BASIS_POINTS + basis_points.astype(np.int64))
    return (2 * scaled + _BASIS_POINTS) // (2 * _BASIS_POINTS)
