"""Prices from a long table (DataFrame, CSV or Parquet) into bars, with a ledger of every oddity."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.data.bar_quality import inspect_bars
from nfi_pyro.data.price_table import FIELDS, MISSING_TEXTS, load_table
from nfi_pyro.data.quality import LEDGER_ATTRIBUTE, DropLedger
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import MAX_PLACES, PanelError, name_places

_ZONE = re.compile(r"^(.*\d:\d\d(?::\d\d(?:\.\d+)?)?)\s*(?:Z|UTC|[+-]\d\d:?\d\d)$")


def read_prices(source: pd.DataFrame | str | Path, **aliases: str) -> xr.Dataset:
    """Return daily bars from a long table: one row per date and instrument.

    Parameters
    ----------
    source : DataFrame, str or Path
        A table, or the path of a ``.csv`` (``.csv.gz``) or ``.parquet`` (``.pq``) file. It has a
        date, an instrument and a close; open, high, low, volume and amount as far as known. Date
        and instrument go by the names of `price_table.DATE_ALIASES` and `ASSET_ALIASES`, in any
        case, and may be index levels. Dates are timestamps, ISO texts or integers YYYYMMDD. The
        source is not changed.
    **aliases : str
        Columns that go by another name: ``close="adj_close"``, ``instrument="sid"``.

    Returns
    -------
    Dataset, dims (date, asset)
        float64 variables, both dims sorted, NaN where there is no row or no value. A bar with a
        price <= 0, a negative volume or an infinite value is NaN throughout. Attributes ``source``
        and ``ledger`` (JSON of a `DropLedger`): what was masked, dropped, or kept but looks wrong.

    Raises
    ------
    PanelError
        When the file is missing, empty or of another kind; a column is missing or ambiguous; a
        date does not parse; a price is text; a (date, instrument) occurs twice; or fewer than two
        dates or two assets have prices.
    """
    table, columns, row_name = load_table(source, aliases)
    if not len(table):
        raise PanelError(
            f"price table must have rows; got 0 rows and columns {name_places(table.columns)}. "
            "Check the export."
        )
    ledger = DropLedger()
    dates, ledger = _dates(table[columns[DATE]], row_name, ledger)
    assets = _assets(table[columns[ASSET]], row_name)
    names = [name for name in FIELDS if name in columns]
    fields = {name: _numbers(table[columns[name]], name, row_name) for name in names}
    rows, calendar = pd.factorize(dates, sort=True)
    positions, labels = pd.factorize(assets, sort=True)
    _refuse_duplicates(rows, positions, calendar, labels)
    grid = {}
    for name, values in fields.items():
        cells = np.full((len(calendar), len(labels)), np.nan)
        cells[rows, positions] = values
        grid[name] = ((DATE, ASSET), cells)
    bars = xr.Dataset(
        grid,
        {DATE: np.asarray(calendar, dtype="datetime64[ns]"), ASSET: labels.astype(object)},
    )
    bars, ledger = inspect_bars(bars, ledger)
    what = "DataFrame" if isinstance(source, pd.DataFrame) else Path(source).name
    bars.attrs = {"source": what, LEDGER_ATTRIBUTE: ledger.to_json()}
    return bars


def _rows(mask: np.ndarray, values: pd.Series, row_name: str) -> str:
    """Return the places of a row mask as "row 3 ('text')"."""
    word, offset = row_name.split()
    places = np.flatnonzero(mask)[:1000]
    named = [f"{word} {place + int(offset)} ({values.iloc[place]!r})" for place in places]
    return name_places(named) if mask.sum() <= 1000 else f"{name_places(named[:5])} and more"


def _dates(column: pd.Series, row_name: str, ledger: DropLedger) -> tuple[np.ndarray, DropLedger]:
    """Return datetime64 dates without time zone; parse each distinct value once."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        ledger = ledger.add(
            "dates with a time zone", len(column), "zone dropped", [str(column.dtype.tz)]
        )
        column = column.dt.tz_localize(None)
    if pd.api.types.is_datetime64_dtype(column.dtype):
        parsed = column.to_numpy()
    else:
        codes, distinct = pd.factorize(column.to_numpy(dtype=object), use_na_sentinel=False)
        texts = [_date_text(value) for value in distinct]
        bare = [_ZONE.sub(r"\1", text) for text in texts]
        zoned = np.array([a != b for a, b in zip(texts, bare, strict=True)])
        ledger = ledger.add(
            "dates with a time zone",
            int(zoned[codes].sum()),
            "zone dropped",
            [text for text, flag in zip(texts, zoned, strict=True) if flag],
        )
        stamps = pd.to_datetime(pd.Series(bare), format="ISO8601", errors="coerce")
        parsed = stamps.to_numpy()[codes]
    within = (parsed >= np.datetime64("1700-01-01")) & (parsed < np.datetime64("2200-01-01"))
    parsed = np.where(within, parsed, np.datetime64("NaT")).astype("datetime64[ns]")
    bad = np.isnat(parsed)
    if bad.any():
        raise PanelError(
            f"date must be a date (timestamp, ISO text or YYYYMMDD); got {int(bad.sum())} others "
            f"at {_rows(bad, column, row_name)}. Convert them with pandas.to_datetime first."
        )
    clock = parsed != parsed.astype("datetime64[D]")
    stamps = np.datetime_as_string(parsed[clock][:MAX_PLACES], "s")
    return parsed, ledger.add("dates with a time of day", int(clock.sum()), "kept", stamps)


def _date_text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return text if len(text) >= 8 else "not a date"  # a bare year or a month is no day


def _assets(column: pd.Series, row_name: str) -> np.ndarray:
    """Return instrument codes as text."""
    if pd.api.types.is_float_dtype(column.dtype):
        raise PanelError(
            f"instrument must be text or an integer code; got {column.dtype} numbers. "
            "Read the column as str, so that leading zeros live."
        )
    codes, distinct = pd.factorize(column.to_numpy(dtype=object), use_na_sentinel=False)
    texts = np.array(["" if pd.isna(value) else str(value).strip() for value in distinct], object)
    empty = (texts == "")[codes]
    if empty.any():
        raise PanelError(
            f"instrument must not be empty; got {int(empty.sum())} empty cells at "
            f"{_rows(empty, column, row_name)}. Fill in the codes."
        )
    return texts[codes]


def _numbers(column: pd.Series, name: str, row_name: str) -> np.ndarray:
    """Return a price or volume column as float64."""
    is_bool = pd.api.types.is_bool_dtype(column.dtype)
    if pd.api.types.is_numeric_dtype(column.dtype) and not is_bool:
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    blank = column.isna() | column.astype("object").isin(MISSING_TEXTS)
    numbers = pd.to_numeric(column.astype("object").where(~blank), errors="coerce")
    text = (numbers.isna() & ~blank).to_numpy() | is_bool
    if text.any():
        raise PanelError(
            f"{name} must be a number; got {int(text.sum())} texts at "
            f"{_rows(text, column, row_name)}. Clean the column."
        )
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan)


def _refuse_duplicates(
    rows: np.ndarray, positions: np.ndarray, calendar: np.ndarray, labels: np.ndarray
) -> None:
    cells = rows.astype(np.int64) * len(labels) + positions
    distinct, counts = np.unique(cells, return_counts=True)
    twice = distinct[counts > 1]
    if twice.size:
        places = [
            f"{label} {np.datetime_as_string(day, 'D')}"
            for label, day in zip(
                labels[twice % len(labels)], calendar[twice // len(labels)], strict=True
            )
        ]
        raise PanelError(
            f"(date, instrument) must be unique; got {twice.size} repeated pairs at "
            f"{name_places(places)}. Keep one row of each."
        )
