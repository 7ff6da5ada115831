"""Prices of any usual layout into bars, with a ledger of every oddity."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import xarray as xr

from nfi_pyro.data.checks.bar_quality import inspect_bars
from nfi_pyro.data.checks.quality import LEDGER_ATTRIBUTE, DropLedger, Inspection
from nfi_pyro.data.checks.quality_rules import resolve_policies
from nfi_pyro.data.sources.price_files import is_qlib_folder, join_frames, list_files, read_frames
from nfi_pyro.data.sources.price_grid import price_grid, unit_rule
from nfi_pyro.data.sources.price_table import (
    PriceTable,
    Vocabulary,
    is_dated,
    long_table,
    make_vocabulary,
)
from nfi_pyro.data.sources.qlib_bin import read_qlib
from nfi_pyro.data.sources.vendors import INSTRUMENT, PARTS, VENDORS, find_vendor
from nfi_pyro.data.sources.wide_prices import (
    array_matrices,
    fields_level,
    frame_matrices,
    wide_table,
)
from nfi_pyro.dims import DATE
from nfi_pyro.errors import PanelError, SpecError, name_places

LAYOUTS = ("qlib", "long", "wide", "xarray")
Source = (
    str
    | Path
    | pd.DataFrame
    | pd.Series
    | xr.Dataset
    | xr.DataArray
    | Mapping[str, pd.DataFrame]
    | Mapping[str, xr.DataArray]
)


def read_prices(
    source: Source,
    *,
    layout: str | None = None,
    vendor: str | None = None,
    policies: Mapping[str, str] | None = None,
    calendar: Sequence[object] | None = None,
    fields: Sequence[str] = (),
    **aliases: str,
) -> xr.Dataset:
    """Return daily bars of any usual layout; the same data give the same bars, bit for bit.

    Parameters
    ----------
    source : path, DataFrame, Series, dict or xarray object
        A long table, one row per date and instrument: a DataFrame whose date and instrument are
        columns or index levels, a Series (close) with both as its index, a CSV, Parquet or Feather
        file, a glob of such files, or a folder of them: plain, one file per symbol, or partitioned
        by ``key=value``. A matrix, dates by assets: a DataFrame of closes, or a dict of field to
        DataFrame. A Dataset or DataArray of dims date and asset. A qlib directory. Never changed.
    layout : "qlib", "long", "wide" or "xarray", optional
        Declares what the source is; needed where its structure leaves that open.
    vendor : str, optional
        One of `VENDORS`: its column names count, and its units become shares and currency units.
        Without it numbers are taken as they are.
    policies : mapping, optional
        What becomes of oddities, see `inspect_bars`; ``duplicates`` is ``"error"``, ``"keep"``
        (rows equal in every field become one) or ``"mask"`` (the cell becomes empty).
    calendar : sequence of dates, optional
        Trading days to compare with, see `inspect_bars`.
    fields : sequence of str
        Further columns to keep, as numbers.
    **aliases : str
        Columns that go by another name: ``close="adj_close"``, ``instrument="sid"``.

    Returns
    -------
    Dataset, dims (date, asset)
        Both sorted; date datetime64[ns] without time, asset text, mainland Chinese codes as
        ``SH600000``. float64 variables among open, high, low, close, volume, amount, vwap, factor,
        turnover, market_cap, float_shares and `fields`, known at the close of the date, NaN where
        there is no row or no value; bool st and suspended; text industry, "" where unknown.
        Attributes ``source``, ``policies`` (JSON, rule to policy) and ``ledger`` (JSON of a
        `DropLedger`): what was masked, dropped, ignored, or kept but looks wrong.

    Raises
    ------
    PanelError
        When the source is missing, empty, damaged or of another kind; its layout is open; a column
        is missing or ambiguous; cells do not parse; a (date, instrument) occurs twice; bars are
        intraday; or fewer than two dates or two assets have prices.
    SpecError
        When an option is unknown.
    """
    return inspect_prices(
        source,
        layout=layout,
        vendor=vendor,
        policies=policies,
        calendar=calendar,
        fields=fields,
        **aliases,
    ).bars


def inspect_prices(
    source: Source,
    *,
    layout: str | None = None,
    vendor: str | None = None,
    policies: Mapping[str, str] | None = None,
    calendar: Sequence[object] | None = None,
    fields: Sequence[str] = (),
    **aliases: str,
) -> Inspection:
    """Return the bars of `read_prices` with every case that was found in them, not only counts.

    Parameters
    ----------
    source, layout, vendor, policies, calendar, fields, **aliases
        See `read_prices`.

    Raises
    ------
    PanelError, SpecError
        See `read_prices`.
    """
    _check_options(layout, fields)
    duplicates = resolve_policies(policies)["duplicates"]
    vocabulary = make_vocabulary(aliases, find_vendor(vendor), fields)
    table, earlier = _load(source, layout, vocabulary)
    bars, ledger = price_grid(table, vocabulary, duplicates)
    inspection = inspect_bars(bars, ledger, policies=policies, calendar=calendar)
    new = tuple(f for f in inspection.ledger.findings if f not in earlier.findings)
    ledger = earlier.extend(DropLedger(new))
    attributes = {
        "source": _source_name(source),
        "policies": json.dumps(dict(inspection.policies)),
        LEDGER_ATTRIBUTE: ledger.to_json(),
    }
    return replace(inspection, bars=inspection.bars.assign_attrs(attributes), ledger=ledger)


def _check_options(layout: str | None, fields: Sequence[str]) -> None:
    if layout is not None and layout not in LAYOUTS:
        raise SpecError(f"layout must be one of {', '.join(LAYOUTS)}; got {layout!r}. Choose one.")
    if isinstance(fields, str):
        raise SpecError(f"fields must be a sequence of names; got {fields!r}. Say ({fields!r},).")
    if not isinstance(fields, Sequence) or not all(isinstance(name, str) for name in fields):
        raise SpecError(f"fields must be a sequence of names; got {fields!r}. Write texts.")


def _load(
    source: Source, layout: str | None, vocabulary: Vocabulary
) -> tuple[PriceTable, DropLedger]:
    """Return the long table of a source, and the ledger that came with it."""
    none = DropLedger()
    if isinstance(source, xr.Dataset | xr.DataArray):
        _refuse_layout(layout, ("xarray",), type(source).__name__)
        return _array_table(source, vocabulary)
    if isinstance(source, Mapping):
        _refuse_layout(layout, ("wide",), "a dict")
        matrices: dict[str, object] = {str(key): value for key, value in source.items()}
        _refuse_symbols(matrices, vocabulary)
        return wide_table(matrices, vocabulary), none
    if isinstance(source, pd.Series):
        _refuse_layout(layout, ("long",), "a Series")
        return long_table(_closes(source, vocabulary), vocabulary), none
    if isinstance(source, pd.DataFrame):
        _refuse_layout(layout, ("long", "wide"), "a DataFrame")
        if (layout or _frame_layout(source, vocabulary)) == "wide":
            return wide_table(frame_matrices(source, vocabulary), vocabulary), none
        return long_table(source, vocabulary), none
    if not isinstance(source, str | Path):
        raise PanelError(
            f"source must be a path, DataFrame, Series, dict or xarray object; got "
            f"{type(source).__name__}. Turn it into a DataFrame."
        )
    if layout == "qlib" or (layout is None and is_qlib_folder(Path(source))):
        return _array_table(read_qlib(source), vocabulary)
    return _file_table(source, layout, vocabulary), none


def _array_table(
    source: xr.Dataset | xr.DataArray, vocabulary: Vocabulary
) -> tuple[PriceTable, DropLedger]:
    matrices, ledger = array_matrices(source, vocabulary)
    scaled = {unit_rule(part, vendor) for vendor in VENDORS for part in VENDORS[vendor].scale}
    done = [found.rule for found in ledger.findings if found.rule in scaled]
    if done and vocabulary.vendor.scale:
        raise PanelError(
            f"units must be scaled once; got vendor={vocabulary.vendor.name!r} for bars whose "
            f"ledger says: {name_places(done)}. Leave vendor out: they are in shares and currency "
            "units already."
        )
    return wide_table(matrices, vocabulary), ledger


def _file_table(source: str | Path, layout: str | None, vocabulary: Vocabulary) -> PriceTable:
    """Return the long table of a file, glob or folder."""
    _refuse_layout(layout, ("long", "wide"), "a file, glob or folder")
    files, root, notes = list_files(source)
    frames = read_frames(files, root, vocabulary, wide=layout == "wide")
    if layout == "wide":
        if len(files) == 1:
            matrices = frame_matrices(frames[files[0]], vocabulary)
        else:
            matrices = {file.name.split(".")[0]: frame for file, frame in frames.items()}
        table = wide_table(matrices, vocabulary)
        return replace(table, ledger=notes.extend(table.ledger))
    frame, rows, joined = join_frames(frames, root, vocabulary)
    notes = notes.extend(joined)
    if layout is None and _frame_layout(frame, vocabulary) == "wide":
        table = wide_table(frame_matrices(frame, vocabulary), vocabulary)
        return replace(table, ledger=notes.extend(table.ledger))
    return long_table(frame, vocabulary, rows=rows, ledger=notes)


def _frame_layout(frame: pd.DataFrame, vocabulary: Vocabulary) -> str:
    """Return "long" or "wide" by index and column names; refuse what could be either."""
    if frame.columns.nlevels > 1:
        return "wide" if fields_level(frame, vocabulary) is not None else "long"
    index = frame.index
    if index.nlevels > 1 or INSTRUMENT in vocabulary.find([*frame.columns, *index.names]):
        return "long"
    dated = index.name is not None and vocabulary.part_of(index.name) == DATE
    if not (dated or (is_dated(index) and DATE not in vocabulary.find(list(frame.columns)))):
        return "long"
    if frame.columns.name is not None and vocabulary.part_of(frame.columns.name) == INSTRUMENT:
        return "wide"
    known = [name for name in frame.columns if vocabulary.part_of(name) in PARTS[2:]]
    known = [*known, *(name for name in frame.columns if name in vocabulary.fields)]
    if not known:
        return "wide"
    raise PanelError(
        f"prices with a date index must be of one symbol's fields with a column instrument "
        f"(long), or have only assets as columns (wide); got no instrument, and field names at "
        f"{name_places(known)} of {len(frame.columns)} columns. Which symbol is it? Add a column "
        "instrument; or say layout='wide' if the columns are assets."
    )


def _closes(series: pd.Series, vocabulary: Vocabulary) -> pd.DataFrame:
    """Return a Series as a table of closes, or of the field that it is named for."""
    if series.index.nlevels != 2:
        raise PanelError(
            f"source must be a DataFrame or a path, or a Series with date and instrument as its "
            f"index; got Series with {series.index.nlevels} index level. Which symbol is it? Turn "
            "it into a DataFrame with a column instrument."
        )
    part = vocabulary.part_of(series.name) if series.name is not None else None
    return series.to_frame(vocabulary.wanted.get("close", "close") if part is None else series.name)


def _refuse_symbols(source: Mapping[str, object], vocabulary: Vocabulary) -> None:
    """Refuse a dict of symbol to table."""
    if source and not any(vocabulary.part_of(key) in PARTS[2:] for key in source):
        raise PanelError(
            f"a dict of prices must map fields (open, close, ...) to matrices; got keys "
            f"{name_places(source)}. If they are symbols, join the tables with "
            "pandas.concat(source, names=['instrument'])."
        )


def _refuse_layout(layout: str | None, fitting: Sequence[str], what: str) -> None:
    if layout is not None and layout not in fitting:
        raise PanelError(
            f"layout of {what} must be {' or '.join(fitting)}; got {layout!r}. Declare the one "
            "that it has."
        )


def _source_name(source: Source) -> str:
    return Path(source).name if isinstance(source, str | Path) else type(source).__name__
