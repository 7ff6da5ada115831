"""Columns of a price table as arrays of dates, symbols, numbers, flags and texts."""

import re
from decimal import Decimal

import numpy as np
import pandas as pd

from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.data.sources.price_table import MISSING_TEXTS, RowNames
from nfi_pyro.errors import PanelError

_ZONE = re.compile(r"(.*\d:\d\d(?::\d\d(?:\.\d+)?)?)\s*(?:Z|UTC|[+-]\d\d:?\d\d)", re.ASCII)
_DAY = re.compile(r"(\d{4}-\d{1,2}-\d{1,2}|\d{4}/\d{1,2}/\d{1,2}|\d{8})(?:[ T]\d.*)?", re.ASCII)
_FIRST, _END = np.datetime64("1700-01-01"), np.datetime64("2200-01-01")
_NUMBER_TYPES = (int, float, Decimal, np.integer, np.floating)


def parse_dates(
    column: pd.Series, rows: RowNames, ledger: DropLedger
) -> tuple[np.ndarray, DropLedger]:
    """Return datetime64[ns] wall-clock stamps; zones are dropped, not converted, with a note.

    Parameters
    ----------
    column : Series
        Timestamps, periods, dates, ISO texts or integers YYYYMMDD; each distinct one is parsed
        once.
    rows : RowNames
        Names of the places in messages.
    ledger : DropLedger
        Notes so far.

    Raises
    ------
    PanelError
        When a value is no day from 1700 to 2199.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        zone = [str(column.dtype.tz)]
        ledger = ledger.add("dates with a time zone", len(column), "zone dropped", zone)
        column = column.dt.tz_localize(None)
    if pd.api.types.is_datetime64_dtype(column.dtype):
        parsed = column.to_numpy()
    else:
        codes, distinct = _distinct(column, "date")
        texts = [_date_text(value) for value in distinct]
        bare = [_without_zone(text) for text in texts]
        zoned = np.array([a != b for a, b in zip(texts, bare, strict=True)], dtype=bool)
        ledger = ledger.add(
            "dates with a time zone",
            int(zoned[codes].sum()),
            "zone dropped",
            [text for text, flag in zip(texts, zoned, strict=True) if flag],
        )
        stamps = pd.to_datetime(pd.Series(bare, dtype=object), format="ISO8601", errors="coerce")
        parsed = stamps.to_numpy()[codes]
    within = (parsed >= _FIRST) & (parsed < _END)
    parsed = np.where(within, parsed, np.datetime64("NaT")).astype("datetime64[ns]")
    bad = np.isnat(parsed)
    if bad.any():
        raise PanelError(
            f"date must be a date (timestamp, ISO text or YYYYMMDD); got {int(bad.sum())} others "
            f"at {rows.name_mask(bad, column)}. Convert them with pandas.to_datetime first."
        )
    return parsed, ledger


def parse_symbols(column: pd.Series, rows: RowNames) -> tuple[np.ndarray, np.ndarray]:
    """Return a code per row, and the raw symbol of each code as text.

    Raises
    ------
    PanelError
        When a symbol is empty, or is neither a text nor an integer.
    """
    if pd.api.types.is_float_dtype(column.dtype):
        raise PanelError(
            f"instrument must be text or an integer code; got {column.dtype} numbers. "
            "Read the column as str, so that leading zeros live."
        )
    codes, distinct = _distinct(column, "instrument")
    odd = {
        type(value).__name__
        for value in distinct
        if not _is_missing(value)
        and (isinstance(value, bool) or not isinstance(value, str | int | np.integer))
    }
    if odd:
        raise PanelError(
            f"instrument must be text or an integer code; got {', '.join(sorted(odd))} in column "
            f"{column.name!r}. Turn the codes into text."
        )
    texts = np.array(["" if _is_missing(v) else str(v).strip() for v in distinct], dtype=object)
    empty = (texts == "")[codes]
    if empty.any():
        raise PanelError(
            f"instrument must not be empty; got {int(empty.sum())} empty cells at "
            f"{rows.name_mask(empty, column)}. Fill in the codes."
        )
    return codes, texts


def parse_numbers(column: pd.Series, name: str, rows: RowNames) -> np.ndarray:
    """Return a column as float64, NaN where it is empty; texts are read to the nearest float.

    Raises
    ------
    PanelError
        When a cell is no number.
    """
    if pd.api.types.is_numeric_dtype(column.dtype) and column.dtype.kind in "iuf":
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    cells = column.to_numpy(dtype=object)
    values = np.full(len(cells), np.nan)
    bad = np.zeros(len(cells), dtype=bool)
    for place, cell in enumerate(cells):
        number = _number(cell)
        if number is None:
            bad[place] = True
        else:
            values[place] = number
    if bad.any():
        raise PanelError(
            f"{name} must be a number; got {int(bad.sum())} texts at "
            f"{rows.name_mask(bad, column)}. Clean the column."
        )
    return values


def parse_flags(column: pd.Series, name: str, rows: RowNames) -> np.ndarray:
    """Return a column of 0, 1, True or False as float64 0 and 1, NaN where it is empty.

    Raises
    ------
    PanelError
        When a cell is anything else.
    """
    if column.dtype == np.dtype(bool):
        return column.to_numpy(dtype=np.float64)
    if pd.api.types.is_numeric_dtype(column.dtype) and column.dtype.kind in "iuf":
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        bad = ~np.isnan(values) & (values != 0) & (values != 1)
    else:
        codes, distinct = _distinct(column, name)
        known = [_flag(value) for value in distinct]
        bad = np.array([value is None for value in known], dtype=bool)[codes]
        values = np.array([np.nan if v is None else v for v in known], dtype=np.float64)[codes]
    if bad.any():
        raise PanelError(
            f"{name} must be 0, 1, True or False; got {int(bad.sum())} others at "
            f"{rows.name_mask(bad, column)}. Clean the column."
        )
    return values


def parse_texts(column: pd.Series, name: str) -> np.ndarray:
    """Return a column as an object array of texts, "" where it is empty."""
    codes, distinct = _distinct(column, name)
    texts = [
        ""
        if _is_missing(value)
        else str(int(value))
        if isinstance(value, float) and value.is_integer()
        else str(value).strip()
        for value in distinct
    ]
    return np.array(texts, dtype=object)[codes] if len(texts) else np.empty(len(column), object)


def _distinct(column: pd.Series, name: str) -> tuple[np.ndarray, list[object]]:
    """Return a code per row and the distinct values, missing ones included."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    try:
        codes, distinct = pd.factorize(column, use_na_sentinel=False)
    except TypeError as error:
        raise PanelError(
            f"{name} must hold one value per row; got {type(column.iloc[0]).__name__} in column "
            f"{column.name!r}. Unpack it first."
        ) from error
    return codes, list(distinct)


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value != value


def _date_text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return text if _DAY.fullmatch(text) else "not a date"  # a bare year or a month is no day


def _without_zone(text: str) -> str:
    match = _ZONE.fullmatch(text)
    return match[1] if match else text


def _number(cell: object) -> float | None:
    """Return the number in a cell, NaN for an empty one, None for anything else."""
    if isinstance(cell, str):
        text = cell.strip()
        if text in MISSING_TEXTS:
            return float("nan")
        # float() alone would take 1_000 and digits of other scripts for numbers
        if not text.isascii() or "_" in text or "nan" in text.lower():
            return None
        cell = text
    elif _is_missing(cell):
        return float("nan")
    elif isinstance(cell, bool) or not isinstance(cell, _NUMBER_TYPES):
        return None
    try:
        return float(cell)
    except ValueError:
        return None
    except OverflowError:
        return float("inf")


def _flag(value: object) -> float | None:
    if isinstance(value, str):
        text = value.strip()
        if text in MISSING_TEXTS:
            return float("nan")
        return {"0": 0.0, "1": 1.0, "true": 1.0, "false": 0.0}.get(text.lower())
    if _is_missing(value):
        return float("nan")
    if isinstance(value, bool | np.bool_ | int | float | np.integer | np.floating):
        return float(value) if value in (0, 1) else None
    return None
