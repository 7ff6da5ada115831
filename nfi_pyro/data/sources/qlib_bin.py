"""qlib's binary directory: its layout, and daily bars read from it, without qlib.

``calendars/day.txt`` holds one date a line, ``instruments/<market>.txt`` symbol, first and last
date of every membership spell, tab-separated, and ``features/<symbol>/<field>.day.bin``, in lower
case, little-endian float32: the calendar row of the first value, then one value per calendar row.
Source: qlib 0.9.7, ``scripts/dump_bin.py`` and ``data/storage/file_storage.py``.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nfi_pyro.data.checks.quality import LEDGER_ATTRIBUTE, DropLedger
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import PanelError, SpecError, name_places

FIELDS = ("open", "high", "low", "close", "volume", "amount", "vwap", "factor", "change")
"""Fields in the order in which they are returned; others follow by name."""

UNIVERSE = "universe"
"""Name of the bool variable (date, asset) of membership."""

SUFFIX = ".day.bin"
FLOAT = np.dtype("<f4")
_PREFIX = "_qlib_"
_RESERVED = {"CON", "PRN", "AUX", "NUL"} | {f"{n}{i}" for n in ("COM", "LPT") for i in range(10)}
_NEVER = np.datetime64("NaT", "D")
Dates = NDArray[np.datetime64]


class _Spell(NamedTuple):
    symbol: str
    first: np.datetime64
    last: np.datetime64


def read_qlib(
    path: str | Path,
    *,
    market: str = "all",
    fields: Sequence[str] | None = None,
    freq: str = "day",
    first: object = None,
    last: object = None,
) -> xr.Dataset:
    """Return the daily bars of a qlib directory as they are stored, not yet inspected.

    Parameters
    ----------
    path : str or Path
        The directory that holds ``calendars``, ``instruments`` and ``features``.
    market : str
        Which file of ``instruments`` names the assets. Folders that it does not name are left out.
    fields : sequence of str, optional
        Which fields to read; all that any asset has by default.
    freq : "day"
        Bars of a day; nothing else is read.
    first, last : date, optional
        First and last date wanted, both included; the whole calendar by default.

    Returns
    -------
    Dataset, dims (date, asset)
        One float64 variable per field, the stored float32 exactly; NaN where there is no value.
        Assets are symbols in upper case, sorted. With a market other than ``"all"`` also
        ``universe``, bool: whether the date lies in a membership spell; bars outside the spells
        are kept, windows need them. Attributes ``source`` and ``ledger`` (JSON of a `DropLedger`).

    Raises
    ------
    PanelError
        When the directory lacks a calendar, the market or a field asked for; the calendar is not
        ascending; a line of a text file is malformed; or a feature file is truncated, starts
        outside of the calendar or runs beyond it. The message names files and lines.
    SpecError
        When `freq`, `first` or `last` is not what it must be.
    """
    folder = Path(path)
    refuse_other_bars(freq)
    calendar = _read_calendar(folder)
    spells = _read_spells(folder, market)
    symbols = sorted({spell.symbol for spell in spells})
    files, ledger = _find_files(folder, symbols)
    names = _choose_fields(files, fields, folder)
    grid, ledger = _read_fields(files, names, len(calendar), ledger)
    member = _membership(spells, symbols, calendar)
    places = _overlaps(spells)
    ledger = ledger.add(f"overlapping spells in {market}.txt", len(places), "merged", places)
    rows = _rows(calendar, first, last)
    data: dict[str, tuple] = {name: ((DATE, ASSET), cells[rows]) for name, cells in grid.items()}
    if market != "all":
        data[UNIVERSE] = ((DATE, ASSET), member[rows])
    elif "close" in grid:
        outside = np.isfinite(grid["close"]) & ~member
        where = [symbols[asset] for asset in np.flatnonzero(outside.any(axis=0))]
        ledger = ledger.add("closes outside the dates of all.txt", outside.sum(), "kept", where)
    coords = {DATE: calendar[rows].astype("datetime64[ns]"), ASSET: np.array(symbols, dtype=object)}
    attrs = {"source": folder.name, LEDGER_ATTRIBUTE: ledger.to_json()}
    return xr.Dataset(data, coords, attrs)


def refuse_other_bars(freq: str) -> None:
    """Raise a SpecError unless `freq` is ``"day"``."""
    if freq != "day":
        raise SpecError(f"freq must be 'day'; got {freq!r}. Panels hold daily bars.")


def _lines(file: Path, fix: str) -> list[tuple[int, str]]:
    """Return number and text of the lines of a file that are not blank."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise PanelError(
            f"{file.parent.name}/{file.name} must be a readable text file; got {reason} at "
            f"{file.parent.parent}. {fix}"
        ) from error
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line.strip("\r\n ")) for number, line in lines if line.strip()]


def _day(text: str) -> np.datetime64:
    """Return the day of a text YYYY-MM-DD, NaT where it is none."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return _NEVER
    try:
        return np.datetime64(text, "D")
    except ValueError:
        return _NEVER


def _name(day: np.datetime64) -> str:
    return str(np.datetime_as_string(day, "D"))


def _read_calendar(folder: Path) -> Dates:
    lines = _lines(
        folder / "calendars" / "day.txt", "Point to the folder that holds calendars and features."
    )
    days = np.array([_day(line) for _, line in lines], dtype="datetime64[D]")
    bad = ~((days >= np.datetime64("1700-01-01")) & (days < np.datetime64("2200-01-01")))
    bad[1:] |= ~(days[1:] > days[:-1])
    if bad.any() or not len(days):
        places = [f"line {lines[row][0]} ({lines[row][1]!r})" for row in np.flatnonzero(bad)]
        raise PanelError(
            "calendars/day.txt must hold ascending dates YYYY-MM-DD, each once; got others at "
            f"{name_places(places or ['no line at all'])}. Dump the calendar again."
        )
    return days


def _read_spells(folder: Path, market: str) -> list[_Spell]:
    if not re.fullmatch(r"[a-z0-9_.-]+", market):
        raise SpecError(f"market must be a file name in lower case; got {market!r}. See {folder}.")
    known = sorted(file.stem for file in (folder / "instruments").glob("*.txt"))
    file = folder / "instruments" / f"{market}.txt"
    lines = _lines(file, f"Markets there: {name_places(known)}.")
    spells, faults = [], []
    for number, line in lines:
        parts = [part.strip() for part in line.split("\t")]
        days = [_day(part.removesuffix(" 00:00:00")) for part in parts[1:3]]
        if (
            len(days) != 2
            or not parts[0]
            or any(np.isnat(day) for day in days)
            or days[0] > days[1]
        ):
            faults.append(f"line {number} ({line!r})")
        else:
            symbol = parts[0].upper().removeprefix(_PREFIX.upper())  # not lstrip: LPT1 has an L
            spells.append(_Spell(symbol, *days))
    if faults or not spells:
        raise PanelError(
            f"instruments/{file.name} must hold symbol, first and last date YYYY-MM-DD, "
            f"tab-separated; got others at {name_places(faults or ['no line at all'])}. "
            "Correct these lines."
        )
    return spells


def _find_files(folder: Path, symbols: list[str]) -> tuple[dict[str, dict[str, Path]], DropLedger]:
    """Return the feature files of every symbol by field, and which symbols have none."""
    folders: dict[str, Path] = {}
    twins = []
    for place in sorted((folder / "features").glob("*/")):
        if place.name.lower() in folders:
            twins.append(place.name)
        folders[place.name.lower()] = place
    if twins:
        raise PanelError(
            "folders of features must have distinct names whatever the case; got a second one at "
            f"{name_places(twins)}. Keep one of each."
        )
    files: dict[str, dict[str, Path]] = {}
    for symbol in symbols:
        own = folders.get(folder_name(symbol))
        found = sorted(own.glob("*.bin")) if own is not None else []
        files[symbol] = {
            file.name.removesuffix(SUFFIX).lower(): file
            for file in found
            if file.name.endswith(SUFFIX)
        }
    empty = [symbol for symbol in symbols if not files[symbol]]
    return files, DropLedger().add("instruments without features", len(empty), "kept", empty)


def folder_name(symbol: str) -> str:
    """Return the folder of a symbol: no file may have a name that Windows reserves."""
    return f"{_PREFIX if symbol.upper() in _RESERVED else ''}{symbol}".lower()


def _choose_fields(
    files: dict[str, dict[str, Path]], wanted: Sequence[str] | None, folder: Path
) -> list[str]:
    found = {name for fields in files.values() for name in fields}
    names = sorted(found) if wanted is None else list(dict.fromkeys(wanted))
    absent = sorted(set(names) - found)
    if absent or not names:
        raise PanelError(
            f"fields must be stored for an instrument at least; got none of "
            f"{name_places(absent or ['any field'])} at {folder}. Fields there: "
            f"{name_places(sorted(found))}."
        )
    taken = sorted({UNIVERSE, DATE, ASSET} & set(names))
    if taken:
        raise PanelError(
            f"fields must not be called {UNIVERSE}, {DATE} or {ASSET}; got {name_places(taken)} "
            f"at {folder}. Name the others in fields, or rename the files."
        )
    known = [name for name in FIELDS if name in names]
    return known + [name for name in names if name not in FIELDS]


def _read_fields(
    files: dict[str, dict[str, Path]], names: list[str], n_dates: int, ledger: DropLedger
) -> tuple[dict[str, NDArray[np.float64]], DropLedger]:
    """Return an array (date, asset) per field, and the ledger with the fields that are absent."""
    grid = {name: np.full((n_dates, len(files)), np.nan) for name in names}
    faults, absent = [], []
    for asset, (symbol, found) in enumerate(files.items()):
        for name in names:
            if name not in found:
                absent += [f"{symbol} {name}"] if found else []
                continue
            start, values, fault = _read_bin(found[name], n_dates)
            if fault:
                faults.append(f"{found[name].parent.name}/{found[name].name} ({fault})")
            else:
                grid[name][start : start + len(values), asset] = values
    if faults:
        raise PanelError(
            "feature files must be float32: a calendar row, then values that end within the "
            f"{n_dates} dates of the calendar; got others at {name_places(faults)}. Dump these "
            "instruments again."
        )
    return grid, ledger.add("fields absent for an instrument", len(absent), "kept as NaN", absent)


def _read_bin(file: Path, n_dates: int) -> tuple[int, NDArray[np.float32], str]:
    """Return first row and values of a feature file, and what is wrong with it, if anything."""
    none = np.empty(0, dtype=FLOAT)
    try:
        content = file.read_bytes()
    except OSError as error:
        return 0, none, str(error.strerror or error)
    if len(content) % FLOAT.itemsize or not content:
        return 0, none, f"truncated: {len(content)} bytes"
    stored = np.frombuffer(content, dtype=FLOAT)
    start, values = float(stored[0]), stored[1:]
    if not (start.is_integer() and 0 <= start <= n_dates):
        return 0, none, f"starts at row {start:g}"
    if start + len(values) > n_dates:
        return 0, none, f"ends at row {int(start) + len(values) - 1}"
    return int(start), values, ""


def _membership(spells: list[_Spell], symbols: list[str], calendar: Dates) -> NDArray[np.bool_]:
    """Return whether each date (row) lies in a spell of each symbol (column), ends included."""
    member = np.zeros((len(calendar), len(symbols)), dtype=bool)
    column = {symbol: place for place, symbol in enumerate(symbols)}
    starts = np.searchsorted(calendar, [spell.first for spell in spells], side="left")
    stops = np.searchsorted(calendar, [spell.last for spell in spells], side="right")
    for spell, start, stop in zip(spells, starts, stops, strict=True):
        member[start:stop, column[spell.symbol]] = True
    return member


def _overlaps(spells: list[_Spell]) -> list[str]:
    """Return the spells that start before an earlier one of the same symbol has ended."""
    places = []
    reach: dict[str, np.datetime64] = {}
    for spell in sorted(spells):
        if spell.symbol in reach and spell.first <= reach[spell.symbol]:
            places.append(f"{spell.symbol} {_name(spell.first)}")
        reach[spell.symbol] = max(reach.get(spell.symbol, spell.last), spell.last)
    return places


def _rows(calendar: Dates, first: object, last: object) -> slice:
    """Return the rows from the first to the last date wanted, both included."""
    ends = []
    for what, day in (("first", first), ("last", last)):
        try:
            ends.append(_NEVER if day is None else np.datetime64(day, "D"))  # type: ignore[call-overload]
        except (TypeError, ValueError) as error:
            raise SpecError(f"{what} must be a date; got {day!r}. Write it YYYY-MM-DD.") from error
    start = 0 if np.isnat(ends[0]) else int(np.searchsorted(calendar, ends[0], side="left"))
    stop = len(calendar)
    if not np.isnat(ends[1]):
        stop = int(np.searchsorted(calendar, ends[1], side="right"))
    if start >= stop:
        raise SpecError(
            f"first and last must enclose a date of the calendar; got {first} and {last}. The "
            f"calendar runs from {_name(calendar[0])} to {_name(calendar[-1])}."
        )
    return slice(start, stop)
