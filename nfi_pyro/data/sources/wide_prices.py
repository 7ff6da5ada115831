"""Matrices of dates by assets (DataFrames, dicts of them, xarray) as one long price table."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.data.checks.quality import LEDGER_ATTRIBUTE, DropLedger
from nfi_pyro.data.sources.price_cells import parse_dates, parse_symbols
from nfi_pyro.data.sources.price_grid import MAX_CELLS
from nfi_pyro.data.sources.price_table import CellNames, PriceTable, RowNames, Vocabulary, is_dated
from nfi_pyro.data.sources.vendors import INSTRUMENT, PARTS, TEXTS, plain_name
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import PanelError, name_places


def wide_table(frames: Mapping[str, object], vocabulary: Vocabulary) -> PriceTable:
    """Return a long table of the cells that are not empty in every matrix.

    Parameters
    ----------
    frames : mapping of str to DataFrame or DataArray
        Field (open, close, ... or a usual name of it) to a matrix (date, asset). Dates and assets
        may differ between fields: their union counts.
    vocabulary : Vocabulary
        What names mean.

    Raises
    ------
    PanelError
        When there is no close, a matrix has no dates, or a date or symbol occurs twice in it.
    """
    columns, ledger = vocabulary.match(list(frames), needed=("close",))
    parsed = {}
    for part, key in columns.items():
        if part in (DATE, INSTRUMENT):
            raise PanelError(
                f"matrices must be fields of prices; got {key!r} among {name_places(frames)}. "
                "Give one DataFrame instead of a dict for a long table."
            )
        matrix, ledger = _matrix(frames[key], key, vocabulary, ledger)
        parsed[part] = matrix
    dates = np.unique(np.concatenate([days for days, _, _ in parsed.values()]))
    assets = pd.unique(np.concatenate([names for _, names, _ in parsed.values()]))
    if not len(dates) or not len(assets):
        raise PanelError(
            f"price matrix must have rows and columns; got {len(dates)} dates and {len(assets)} "
            "assets. Check the export."
        )
    if len(dates) * len(assets) > MAX_CELLS:
        raise PanelError(
            f"price matrices must fit a grid of dates by assets; got {len(dates):,} dates by "
            f"{len(assets):,} assets in all. Check that the fields share dates and assets."
        )
    long: dict[str, object] = {
        DATE: np.repeat(dates, len(assets)),
        INSTRUMENT: np.tile(assets, len(dates)),
    }
    for part, (days, names, cells) in parsed.items():
        whole = np.full((len(dates), len(assets)), _empty(cells), dtype=cells.dtype)
        rows, positions = np.searchsorted(dates, days), pd.Index(assets).get_indexer(names)
        whole[np.ix_(rows, positions)] = cells
        long[part] = whole.ravel()
    frame = pd.DataFrame(long)
    filled = ~frame[list(parsed)].isna().all(axis=1)
    frame = frame[filled.to_numpy()].reset_index(drop=True)
    names_of_cells = CellNames(frame[DATE].to_numpy(), frame[INSTRUMENT].to_numpy(object))
    return PriceTable(
        frame,
        {part: part for part in (DATE, INSTRUMENT, *parsed)},
        RowNames(labels=names_of_cells),
        ledger,
        dates,
        assets,
    )


def frame_matrices(frame: pd.DataFrame, vocabulary: Vocabulary) -> dict[str, pd.DataFrame]:
    """Return field to matrix: a flat frame is close; of a two-level head, one level is fields.

    Raises
    ------
    PanelError
        When a head has several levels and none of them holds field names.
    """
    if frame.columns.nlevels == 1:
        return {vocabulary.wanted.get("close", "close"): frame}
    level = fields_level(frame, vocabulary)
    if level is None:
        raise PanelError(
            f"matrix must have one row of asset names, or a second one of fields; got "
            f"{frame.columns.nlevels} levels. Give a dict of field to DataFrame."
        )
    fields = pd.unique(frame.columns.get_level_values(level))
    return {str(name): pd.DataFrame(frame.xs(name, axis=1, level=level)) for name in fields}


def fields_level(frame: pd.DataFrame, vocabulary: Vocabulary) -> int | None:
    """Return which of two column levels holds nothing but field names; None when not just one."""
    if frame.columns.nlevels != 2:
        return None
    levels = [
        level
        for level in (0, 1)
        if all(
            plain_name(name) == "adjclose" or vocabulary.part_of(name) in PARTS[2:]
            for name in pd.unique(frame.columns.get_level_values(level))
        )
    ]
    return levels[0] if len(levels) == 1 else None


def array_matrices(
    source: xr.Dataset | xr.DataArray, vocabulary: Vocabulary
) -> tuple[dict[str, xr.DataArray], DropLedger]:
    """Return field to (date, asset) array of an xarray object, and its own ledger with notes.

    Parameters
    ----------
    source : Dataset or DataArray
        Dims in any order and under any usual name; a DataArray is close unless its name is another
        field. An industry without dates holds for every date.
    vocabulary : Vocabulary
        What names mean.

    Raises
    ------
    PanelError
        When a dim has no part or no coordinates.
    """
    ledger = DropLedger()
    if isinstance(source, xr.DataArray):
        part = vocabulary.part_of(source.name) if source.name is not None else None
        name = vocabulary.wanted.get("close", "close") if part is None else str(source.name)
        source = source.to_dataset(name=name)
    else:
        ledger = DropLedger.from_json(str(source.attrs.get(LEDGER_ATTRIBUTE, "[]")))
    dims = {}
    for dim in source.dims:
        part = vocabulary.part_of(dim)
        if part in (DATE, INSTRUMENT):
            dims[dim] = DATE if part == DATE else ASSET
    lacking = [dim for dim in dims if dim not in source.coords]
    if sorted(dims.values()) != sorted((ASSET, DATE)) or lacking:
        raise PanelError(
            f"xarray prices must have dims date and asset with coordinates; got dims "
            f"{name_places(source.dims)}, without coordinates {name_places(lacking)}. "
            "Rename or assign them."
        )
    renamed = source.rename({old: new for old, new in dims.items() if old != new})
    matrices, others = {}, []
    for key, array in renamed.data_vars.items():
        is_static = array.dims == (ASSET,) and vocabulary.part_of(key) in TEXTS
        if is_static:
            array = array.expand_dims({DATE: renamed[DATE]})
        if set(array.dims) == {DATE, ASSET}:
            matrices[str(key)] = array.transpose(DATE, ASSET)
        else:
            others.append(f"{key} {tuple(map(str, array.dims))}")
    if not matrices:
        raise PanelError(
            f"xarray prices must have variables of dims date and asset; got {name_places(others)}. "
            "Select along the other dims."
        )
    return matrices, ledger.add("variables of other dims", len(others), "ignored", others)


def _matrix(
    source: object, key: str, vocabulary: Vocabulary, ledger: DropLedger
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], DropLedger]:
    """Return dates, raw symbols and cells of one matrix; float64 where all cells are numbers."""
    if isinstance(source, xr.DataArray):
        arrays, _ = array_matrices(source.to_dataset(name=key), vocabulary)
        source = arrays[key].to_pandas()
    if not isinstance(source, pd.DataFrame):
        raise PanelError(
            f"a dict of prices must map fields to DataFrames or DataArrays; got "
            f"{type(source).__name__} at {key!r}. Give a DataFrame of dates by assets."
        )
    frame = _date_indexed(source, key, vocabulary)
    stamps, notes = parse_dates(frame.index.to_series(), RowNames(), DropLedger())
    days = stamps.astype("datetime64[D]").astype("datetime64[ns]")
    codes, texts = parse_symbols(pd.Series(frame.columns.to_numpy(object)), RowNames("column"))
    names = texts[codes]
    _refuse_repeats([np.datetime_as_string(stamp, "m") for stamp in stamps], DATE, key)
    _refuse_repeats(list(names), "symbol", key)
    if len(np.unique(days)) < len(days):
        raise PanelError(
            f"prices must be daily bars, one an asset and day; got several times of day in the "
            f"matrix of {key}. Resample intraday bars to days first."
        )
    clock = stamps != days
    times = sorted({str(pd.Timedelta(t)).removeprefix("0 days ") for t in (stamps - days)[clock]})
    notes = notes.add("dates with a time of day", int(clock.sum()), "time dropped", times)
    known = ledger.findings
    ledger = ledger.extend(DropLedger(tuple(f for f in notes.findings if f not in known)))
    return (days, names, _cells(frame)), ledger


def _refuse_repeats(labels: list[str], what: str, key: str) -> None:
    """Refuse a margin of a matrix in which a label occurs twice."""
    index = pd.Index(labels, dtype=object)
    twice = index[index.duplicated()].unique()
    if len(twice):
        raise PanelError(
            f"(date, instrument) must be unique; got {len(twice)} repeated {what}s in the matrix "
            f"of {key} at {name_places(twice)}. Keep one of each."
        )


def _cells(frame: pd.DataFrame) -> np.ndarray:
    numeric = all(
        pd.api.types.is_numeric_dtype(dtype) and dtype.kind in "iuf" for dtype in frame.dtypes
    )
    if numeric:
        return frame.to_numpy(dtype=np.float64, na_value=np.nan)
    return frame.astype(object).to_numpy(dtype=object)


def _empty(cells: np.ndarray) -> object:
    return None if cells.dtype == object else np.nan


def _date_indexed(frame: pd.DataFrame, key: str, vocabulary: Vocabulary) -> pd.DataFrame:
    """Return the frame with its dates as the index."""
    index = frame.index
    if index.nlevels == 1:
        named = index.name is not None and vocabulary.part_of(index.name) == DATE
        if named or is_dated(index):
            return frame
        found = [name for name in frame.columns if vocabulary.part_of(name) == DATE]
        found = found or [name for name in frame.columns[:1] if str(name) == ""]
        if len(found) == 1:
            return frame.set_index(found[0])
        if not found and not isinstance(index, pd.RangeIndex):
            return frame
    raise PanelError(
        f"matrix of {key} must have its dates as the index or in one column; got index "
        f"{name_places(index.names)} and columns {name_places(frame.columns)}. Say date='column'."
    )
