"""A long price table: which column plays which part, and index levels as columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.data.sources.vendors import INSTRUMENT, PARTS, USUAL_NAMES, Vendor, plain_name
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import PanelError, name_places

MISSING_TEXTS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
NEEDED = (DATE, INSTRUMENT, "close")
_MAX_NAMED = 1000


class CellNames:
    """Names of the cells of a matrix, made only when a message asks for them."""

    def __init__(self, dates: np.ndarray, assets: np.ndarray) -> None:
        self._dates, self._assets = dates, assets

    def __getitem__(self, place: int) -> str:
        return f"{self._assets[place]} {np.datetime_as_string(self._dates[place], 'D')}"


@dataclass(frozen=True)
class RowNames:
    """How messages name the rows of a table: by number, by file, or by cell of a matrix.

    Attributes
    ----------
    word, first : str, int
        ``"line", 2`` for a CSV file, ``"row", 0`` otherwise.
    starts, files : tuples
        First row of each file, and its name, where several files make the table.
    labels : CellNames, optional
        Names in place of numbers.
    """

    word: str = "row"
    first: int = 0
    starts: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    labels: CellNames | None = None

    def name(self, place: int) -> str:
        """Return the name of a row by its position in the table."""
        if self.labels is not None:
            return self.labels[place]
        if not self.starts:
            return f"{self.word} {place + self.first}"
        which = int(np.searchsorted(self.starts, place, side="right")) - 1
        return f"{self.word} {place - self.starts[which] + self.first} of {self.files[which]}"

    def name_mask(self, mask: np.ndarray, values: pd.Series) -> str:
        """Return the places of a row mask as "row 3 ('text')"."""
        places = np.flatnonzero(mask)[:_MAX_NAMED]
        named = [f"{self.name(int(place))} ({short_text(values.iloc[place])})" for place in places]
        if mask.sum() <= _MAX_NAMED:
            return name_places(named)
        return f"{name_places(named[:5])} and more"


@dataclass(frozen=True)
class PriceTable:
    """A long table whose columns are understood but not yet parsed.

    Attributes
    ----------
    frame : DataFrame
        Values as they were found, one row per date and instrument.
    columns : mapping
        Part (``date``, ``instrument``, ``open``, ...) to column.
    rows : RowNames
        How messages name its rows.
    ledger : DropLedger
        Notes of the reading.
    dates, assets : arrays, optional
        Dates and raw symbols that exist even without a row: the margins of a matrix.
    """

    frame: pd.DataFrame
    columns: Mapping[str, str]
    rows: RowNames = RowNames()
    ledger: DropLedger = field(default=DropLedger())
    dates: np.ndarray | None = None
    assets: np.ndarray | None = None


@dataclass(frozen=True)
class Vocabulary:
    """Which names mean which part: the user's own first, then the usual ones and the vendor's.

    Attributes
    ----------
    wanted : mapping
        Part to column, as given by alias.
    vendor : Vendor
        Its names count besides the usual ones.
    fields : tuple of str
        Further columns to keep.
    """

    wanted: Mapping[str, str]
    vendor: Vendor
    fields: tuple[str, ...] = ()

    def names(self, part: str) -> set[str]:
        """Return the plain names of a part."""
        names = USUAL_NAMES.get(part, (part,)) + tuple(self.vendor.names.get(part, ()))
        return {plain_name(name) for name in names}

    def part_of(self, name: object) -> str | None:
        """Return the part that a column of this name plays, or None."""
        for part, column in self.wanted.items():
            if column == name:
                return part
        plain = plain_name(name)
        return next((p for p in PARTS if p not in self.wanted and plain in self.names(p)), None)

    def find(self, names: Sequence[object]) -> set[str]:
        """Return the parts that columns of these names play."""
        return {part for part in map(self.part_of, names) if part is not None}

    def match(
        self, found: Sequence[str], needed: Sequence[str] = NEEDED
    ) -> tuple[dict[str, str], DropLedger]:
        """Return which column plays which part, and a ledger of those that play none.

        Raises
        ------
        PanelError
            When a part that is needed has no column, or a part has several.
        """
        self._check_wanted(found)
        columns: dict[str, str] = {}
        missing = []
        for part in dict.fromkeys((*PARTS, *self.fields)):
            if part in self.wanted:
                matches = [name for name in found if name == self.wanted[part]]
            else:
                names = self.names(part)
                taken = set(self.wanted.values())
                matches = [
                    name for name in found if name not in taken and plain_name(name) in names
                ]
            if len(matches) > 1:
                raise PanelError(
                    f"{part} must be one column; got several at {name_places(matches)}. "
                    f"Say which: {part}={matches[0]!r}."
                )
            if matches:
                columns[part] = matches[0]
            elif part in needed or part in self.fields:
                missing.append(part)
        if missing:
            raise PanelError(_missing_message(missing, found, columns))
        return columns, _unused(found, columns)

    def _check_wanted(self, found: Sequence[str]) -> None:
        known = (*PARTS, *self.fields)
        strange = [part for part in self.wanted if part not in known]
        absent = [f"{part}={name!r}" for part, name in self.wanted.items() if name not in found]
        if strange or absent:
            raise PanelError(
                f"aliases must map one of {known} to a column of the table; got "
                f"{name_places([*strange, *absent])}. Columns found: {_listed(found)}."
            )


def make_vocabulary(
    aliases: Mapping[str, str], vendor: Vendor, fields: Sequence[str]
) -> Vocabulary:
    """Return the vocabulary of one reading; ``asset=`` is taken for ``instrument=``."""
    wanted = {INSTRUMENT if part == ASSET else part: name for part, name in aliases.items()}
    return Vocabulary(wanted, vendor, tuple(fields))


def long_table(
    frame: pd.DataFrame,
    vocabulary: Vocabulary,
    *,
    rows: RowNames | None = None,
    ledger: DropLedger | None = None,
) -> PriceTable:
    """Return a long table with date and instrument as columns, and which column plays which part.

    Parameters
    ----------
    frame : DataFrame
        Date and instrument are columns or index levels, in any order. Of two rows of column names,
        as qlib's handlers give, the group ``feature`` is taken.
    vocabulary : Vocabulary
        What names mean.
    rows : RowNames
        How messages name rows.
    ledger : DropLedger
        Notes so far.

    Raises
    ------
    PanelError
        When there is no row, or a column is missing or ambiguous.
    """
    ledger = ledger or DropLedger()
    if frame.columns.nlevels > 1:
        frame, ledger = _features_only(frame, ledger)
    frame = _flat(frame, vocabulary)
    columns, notes = vocabulary.match(list(frame.columns))
    if not len(frame):
        raise PanelError(
            f"price table must have rows; got 0 rows and columns {name_places(frame.columns)}. "
            "Check the export."
        )
    return PriceTable(frame, columns, rows or RowNames(), ledger.extend(notes))


def is_dated(index: pd.Index) -> bool:
    """Return whether an index or level holds dates by its type (not by what texts say)."""
    if pd.api.types.is_datetime64_any_dtype(index.dtype) or isinstance(index.dtype, pd.PeriodDtype):
        return True
    return pd.api.types.infer_dtype(index, skipna=True) in ("date", "datetime", "datetime64")


def _flat(table: pd.DataFrame, vocabulary: Vocabulary) -> pd.DataFrame:
    """Return the table with index levels as columns, where the index says anything."""
    index, names = table.index, list(table.index.names)
    parts = vocabulary.find(list(table.columns))
    if index.nlevels == 1 and names == [None]:
        if is_dated(index) and DATE not in parts:
            names = [DATE]
        elif _is_text(index) and DATE in parts and INSTRUMENT not in parts:
            names = [INSTRUMENT]
        else:
            return table
    if index.nlevels == 2 and None in names:
        dated = [is_dated(index.get_level_values(level)) for level in (0, 1)]
        if sum(dated) == 1:
            names = [
                name if name is not None else DATE if is_date else INSTRUMENT
                for name, is_date in zip(names, dated, strict=True)
            ]
    names = [f"level {place}" if name is None else name for place, name in enumerate(names)]
    both = [name for name in names if name in table.columns]
    if both:
        raise PanelError(
            f"index levels must not repeat columns; got both at {name_places(both)}. "
            "Drop one of them."
        )
    return table.reset_index(names=names)


def _is_text(index: pd.Index) -> bool:
    return pd.api.types.infer_dtype(index, skipna=True) == "string"


def _features_only(frame: pd.DataFrame, ledger: DropLedger) -> tuple[pd.DataFrame, DropLedger]:
    """Return the columns of the group "feature" of a two-level head."""
    groups = frame.columns.get_level_values(0)
    if frame.columns.nlevels != 2 or "feature" not in groups:
        raise PanelError(
            f"price table must have one row of column names; got {frame.columns.nlevels} levels. "
            "Stack it into long form, or call the level of the prices 'feature'."
        )
    others = ["/".join(map(str, pair)) for pair in frame.columns.to_list() if pair[0] != "feature"]
    ledger = ledger.add("columns beside the group feature", len(others), "ignored", others)
    kept = frame.loc[:, groups == "feature"]
    return kept.set_axis(kept.columns.get_level_values(1), axis=1), ledger


def _unused(found: Sequence[str], columns: Mapping[str, str]) -> DropLedger:
    used = set(columns.values())
    rest = [name for name in found if name not in used]
    adjusted = [name for name in rest if plain_name(name) == "adjclose"]
    others = [short_text(name, quote=False) or "(no name)" for name in rest if name not in adjusted]
    ledger = DropLedger().add("adjusted close beside close", len(adjusted), "not used", adjusted)
    return ledger.add("columns that play no part", len(others), "ignored", others)


def _missing_message(
    missing: Sequence[str], found: Sequence[str], columns: Mapping[str, str]
) -> str:
    fix = (
        f"Rename them, or in Python say read_prices(source, {missing[0]}='your column')."
        if missing[0].isidentifier()
        else "Rename them."
    )
    if missing == [INSTRUMENT]:
        fix = (
            "Which symbol is it? Add a column instrument, or give a folder of files named by "
            f"symbol. {fix}"
        )
    elif len(found) == 1 and any(mark in str(found[0]) for mark in ";\t|"):
        fix = "Separate the fields by commas."
    elif INSTRUMENT in missing and "close" in missing and DATE in columns:
        fix = f"If the columns are assets, say layout='wide' (--layout wide). {fix}"
    return (
        f"price table must have the columns {', '.join(missing)}; got columns {_listed(found)}. "
        f"{fix}"
    )


def _listed(found: Sequence[object], limit: int = 12) -> str:
    shown = ", ".join(short_text(name, quote=False) for name in found[:limit])
    rest = f" and {len(found) - limit} more" if len(found) > limit else ""
    return f"{shown}{rest}" or "none"


def short_text(value: object, quote: bool = True) -> str:
    """Return a value for a message: one line, no longer than a few words."""
    value = value.item() if isinstance(value, np.number) else value
    text = repr(value) if quote else str(value)
    text = "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
    return text if len(text) <= 60 else text[:57] + "..."
