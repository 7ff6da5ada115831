"""From the rows of a price table to a grid (date, asset): repeated rows, clocks, symbols, units."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.data.checks.quality_rules import RULES
from nfi_pyro.data.sources.price_cells import (
    parse_dates,
    parse_flags,
    parse_numbers,
    parse_symbols,
    parse_texts,
)
from nfi_pyro.data.sources.price_table import PriceTable, Vocabulary, short_text
from nfi_pyro.data.sources.symbols import canonical_symbols
from nfi_pyro.data.sources.vendors import FLAGS, INSTRUMENT, PARTS, TEXTS
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import MAX_PLACES, PanelError, name_places

MAX_CELLS = 1_000_000_000
"""More cells than this (8 GB a field) are taken for a date column that holds something else."""


def price_grid(
    table: PriceTable, vocabulary: Vocabulary, duplicates: str = "error"
) -> tuple[xr.Dataset, DropLedger]:
    """Return the cells of a price table as a Dataset (date, asset), and the notes of the reading.

    Parameters
    ----------
    table : PriceTable
        Rows in any order.
    vocabulary : Vocabulary
        Its vendor says units and whether bare codes get an exchange.
    duplicates : "error", "keep" or "mask"
        What becomes of several rows of one date and asset: an error; one row if they are equal in
        every field, else an error; or an empty cell.

    Returns
    -------
    Dataset, dims (date, asset)
        Both sorted. Numbers float64, NaN where there is no row or no value; flags bool, False
        where nothing is known; texts object, "" where nothing is known.
    DropLedger
        The table's notes and those of this step.

    Raises
    ------
    PanelError
        When cells do not parse, rows repeat, or there are several stamps of one asset on a day;
        names all of these that are found.
    """
    cells = _parse(table, vocabulary)
    vendor = vocabulary.vendor
    fields, ledger = _in_shares(cells.fields, vendor.name, vendor.scale, cells.ledger)
    rows, calendar, ledger = _days(cells, table, ledger)
    positions, labels, ledger = _labels(cells, table, vocabulary, ledger)
    shape = len(calendar), len(labels)
    if shape[0] * shape[1] > MAX_CELLS:
        raise PanelError(
            f"prices must fit a grid of dates by assets; got {shape[0]:,} dates by {shape[1]:,} "
            f"assets from {len(rows):,} rows. Check which column is the date."
        )
    flat = rows * shape[1] + positions
    raw = cells.symbols[cells.codes] if len(cells.symbols) > shape[1] else None
    kept, emptied, ledger = _duplicates(
        _Grid(calendar, labels, flat, raw), fields, duplicates, ledger
    )
    data = {
        name: _fill(flat[kept], values[kept], emptied, shape) for name, values in fields.items()
    }
    return _dataset(data, calendar, labels, ledger)


class _Cells(NamedTuple):
    """A price table whose cells are parsed: a stamp and a symbol code per row, and the fields."""

    stamps: np.ndarray
    codes: np.ndarray
    symbols: np.ndarray
    fields: dict[str, np.ndarray]
    ledger: DropLedger


def _parse(table: PriceTable, vocabulary: Vocabulary) -> _Cells:
    """Return the parsed cells, or raise one error that names every column that does not parse."""
    problems: list[str] = []
    stamps, ledger = np.empty(0, "datetime64[ns]"), table.ledger
    codes, symbols = np.empty(0, np.int64), np.empty(0, object)
    fields: dict[str, np.ndarray] = {}
    with _noted(problems):
        stamps, ledger = parse_dates(table.frame[table.columns[DATE]], table.rows, ledger)
    with _noted(problems):
        codes, symbols = parse_symbols(table.frame[table.columns[INSTRUMENT]], table.rows)
    for part in dict.fromkeys((*PARTS[2:], *vocabulary.fields)):
        if part in table.columns:
            column = table.frame[table.columns[part]]
            with _noted(problems):
                if part in TEXTS:
                    fields[part] = parse_texts(column, part)
                elif part in FLAGS:
                    fields[part] = parse_flags(column, part, table.rows)
                else:
                    fields[part] = parse_numbers(column, part, table.rows)
    if len(problems) == 1:
        raise PanelError(problems[0])
    if problems:
        listed = " ".join(f"({place}) {text}" for place, text in enumerate(problems, 1))
        raise PanelError(f"prices break {len(problems)} rules: {listed}")
    return _Cells(stamps, codes, symbols, fields, ledger)


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """Note a PanelError instead of raising it."""
    try:
        yield
    except PanelError as error:
        problems.append(str(error))


class _Grid:
    """Where rows lie in the grid, and what its cells are called."""

    def __init__(
        self, dates: np.ndarray, assets: np.ndarray, cells: np.ndarray, raw: np.ndarray | None
    ) -> None:
        self.dates, self.assets, self.cells, self._raw = dates, assets, cells, raw

    def name(self, cell: int) -> str:
        """Return "SH600000 2024-02-28", with the raw symbols if they differ."""
        day, place = divmod(int(cell), len(self.assets))
        asset = short_text(self.assets[place], quote=False)
        text = f"{asset} {np.datetime_as_string(self.dates[day], 'D')}"
        if self._raw is None:
            return text
        forms = sorted({short_text(raw, quote=False) for raw in self._raw[self.cells == cell]})
        return f"{text} (written {' and '.join(forms)})" if len(forms) > 1 else text

    def names(self, cells: np.ndarray) -> list[str]:
        """Return the names of the first cells, and empty ones for the rest, for counting."""
        return _counted([self.name(cell) for cell in cells[:MAX_PLACES]], len(cells))


def _in_shares(
    fields: dict[str, np.ndarray], vendor: str, scale: Mapping[str, float], ledger: DropLedger
) -> tuple[dict[str, np.ndarray], DropLedger]:
    """Return the fields in shares and currency units, by what the vendor declares."""
    scaled = dict(fields)
    for part, factor in scale.items():
        if part in fields:
            scaled[part] = fields[part] * factor
            known = int(np.isfinite(fields[part]).sum())
            ledger = ledger.add(unit_rule(part, vendor), known, f"times {factor:g}")
    return scaled, ledger


def unit_rule(part: str, vendor: str) -> str:
    """Return what the ledger calls the scaling of a field from a vendor's unit."""
    return f"{part} in the unit of {vendor}"


def _days(
    cells: _Cells, table: PriceTable, ledger: DropLedger
) -> tuple[np.ndarray, np.ndarray, DropLedger]:
    """Return a calendar row per table row, and the calendar; a time of day is dropped."""
    stamps = cells.stamps
    days = stamps.astype("datetime64[D]")
    clock = stamps != days
    if clock.any():
        _refuse_intraday(cells, days)
        times = np.unique((stamps - days)[clock])
        shown = [str(pd.Timedelta(time)).removeprefix("0 days ") for time in times[:MAX_PLACES]]
        ledger = ledger.add("dates with a time of day", int(clock.sum()), "time dropped", shown)
    if table.dates is not None:
        days = np.concatenate([days, table.dates.astype("datetime64[D]")])
    rows, calendar = pd.factorize(days.astype("datetime64[ns]"), sort=True)
    return rows[: len(stamps)].astype(np.int64), np.asarray(calendar, "datetime64[ns]"), ledger


def _refuse_intraday(cells: _Cells, days: np.ndarray) -> None:
    """Refuse several times of day of one asset on one day."""
    when = pd.DataFrame({"day": days.astype("datetime64[ns]"), "asset": cells.codes})
    distinct = when[~when.assign(at=cells.stamps).duplicated()]
    several = distinct[distinct.duplicated()].drop_duplicates()
    if len(several):
        first = several.head(MAX_PLACES)
        named = [
            f"{cells.symbols[code]} {np.datetime_as_string(day, 'D')}"
            for day, code in zip(first["day"].to_numpy(), first["asset"], strict=True)
        ]
        raise PanelError(
            f"prices must be daily bars, one an asset and day; got several times of day for "
            f"{len(several)} of them at {name_places(_counted(named, len(several)))}. Resample "
            "intraday bars to days first."
        )


def _counted(named: list[str], total: int) -> list[str]:
    """Return names followed by empty ones up to a total, for `name_places` to count."""
    return named + [""] * (total - len(named))


def _labels(
    cells: _Cells, table: PriceTable, vocabulary: Vocabulary, ledger: DropLedger
) -> tuple[np.ndarray, np.ndarray, DropLedger]:
    """Return an asset position per row, and the assets in their one form, sorted."""
    raw = cells.symbols
    known = raw if table.assets is None else np.concatenate([raw, table.assets])
    by_prefix = vocabulary.vendor.exchange_by_prefix
    if by_prefix:
        _refuse_lost_zeros(table.frame[table.columns[INSTRUMENT]], vocabulary.vendor.name)
    names = canonical_symbols(known, exchange_by_prefix=by_prefix)
    changed = dict.fromkeys(
        f"{old} -> {new}" for old, new in zip(known, names, strict=True) if old != new
    )
    ledger = ledger.add("symbols written in the form SH600000", len(changed), "rewritten", changed)
    labels, places = np.unique(names, return_inverse=True)
    return places[: len(raw)][cells.codes].astype(np.int64), labels, ledger


def _refuse_lost_zeros(column: pd.Series, vendor: str) -> None:
    """Refuse codes that were read as integers and are shorter than the vendor's six digits."""
    codes = [code for code in pd.unique(column) if isinstance(code, int | np.integer)]
    short = [str(code) for code in codes if 0 <= code < 100_000]
    if short:
        raise PanelError(
            f"codes of {vendor} must have six digits; got integers that lost their leading zeros "
            f"at {name_places(short)}. Read the column as str, so that 000001 lives."
        )


def _duplicates(
    grid: _Grid, fields: Mapping[str, np.ndarray], policy: str, ledger: DropLedger
) -> tuple[np.ndarray | slice, np.ndarray, DropLedger]:
    """Return which rows to keep and which cells to empty."""
    none = np.empty(0, dtype=np.int64)
    order = np.sort(grid.cells)
    twice = np.unique(order[1:][order[1:] == order[:-1]])
    if not twice.size:
        return slice(None), none, ledger
    if policy == "mask":
        ledger = ledger.add(
            RULES["duplicates"].title, twice.size, "cell masked", map(grid.name, twice[:5])
        )
        return slice(None), twice, ledger
    repeated = np.flatnonzero(np.isin(grid.cells, twice))
    if policy == "keep":
        rows = pd.DataFrame({name: values[repeated] for name, values in fields.items()})
        rows.insert(0, "cell", grid.cells[repeated])
        distinct = rows.drop_duplicates()
        unequal = np.unique(distinct["cell"][distinct["cell"].duplicated()].to_numpy())
        if not unequal.size:
            keep = np.ones(len(grid.cells), dtype=bool)
            keep[repeated[rows.duplicated().to_numpy()]] = False
            ledger = ledger.add(
                RULES["duplicates"].title,
                len(rows) - len(distinct),
                "collapsed into one",
                map(grid.name, twice[:5]),
            )
            return keep, none, ledger
        raise PanelError(
            f"(date, instrument) must be unique or equal in every field; got {unequal.size} "
            f"unequal pairs at {name_places(grid.names(unequal))}. Keep one row of each."
        )
    raise PanelError(
        f"(date, instrument) must be unique; got {twice.size} repeated pairs at "
        f"{name_places(grid.names(twice))}. Keep one row of each, or say "
        "policies={'duplicates': 'keep'} (--policy duplicates=keep) if they are equal."
    )


def _fill(
    cells: np.ndarray, values: np.ndarray, emptied: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Return the values in a grid, NaN or "" where there is none."""
    empty: object = "" if values.dtype == object else np.nan
    grid = np.full(shape[0] * shape[1], empty, dtype=values.dtype)
    grid[cells] = values
    grid[emptied] = empty
    return grid.reshape(shape)


def _dataset(
    data: dict[str, np.ndarray], calendar: np.ndarray, labels: np.ndarray, ledger: DropLedger
) -> tuple[xr.Dataset, DropLedger]:
    """Return the Dataset, with flags as bool; unknown flags of priced cells are counted."""
    priced = np.isfinite(data["close"])
    for name in FLAGS:
        if name in data:
            unknown = np.argwhere(np.isnan(data[name]) & priced)
            places = [
                f"{labels[column]} {np.datetime_as_string(calendar[row], 'D')}"
                for row, column in unknown[:MAX_PLACES]
            ]
            ledger = ledger.add(f"bars without {name}", len(unknown), "taken for False", places)
            data[name] = data[name] == 1
    variables = {name: ((DATE, ASSET), values) for name, values in data.items()}
    return xr.Dataset(variables, {DATE: calendar, ASSET: labels.astype(object)}), ledger
