"""A long price table from a DataFrame, CSV or Parquet file, and which column plays which part."""

from pathlib import Path

import pandas as pd

from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import PanelError, name_places

FIELDS = ("open", "high", "low", "close", "volume", "amount")
DATE_ALIASES = ("datetime", "date", "trade_date", "dt", "日期")
ASSET_ALIASES = (
    "instrument",
    "symbol",
    "code",
    "ts_code",
    "asset",
    "ticker",
    "order_book_id",
    "股票代码",
)
MISSING_TEXTS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]


def load_table(
    source: pd.DataFrame | str | Path, aliases: dict[str, str]
) -> tuple[pd.DataFrame, dict[str, str], str]:
    """Return a long price table, which of its columns plays which part, and how to name its rows.

    Parameters
    ----------
    source : DataFrame, str or Path
        See `read_prices`.
    aliases : dict
        Part (date, instrument, open, ...) to column, where the name is not a usual one.

    Returns
    -------
    table : DataFrame
        Values as they were found; date and instrument are columns, as text when read from CSV.
    columns : dict
        Part (``date``, ``asset``, ``open``, ...) to column.
    row_name : str
        Word and number of the first row in messages: ``"row 0"`` or, in a CSV, ``"line 2"``.

    Raises
    ------
    PanelError
        When there is no such file or table, or a column is missing or ambiguous.
    """
    if isinstance(source, pd.DataFrame):
        table = _flat(source)
        return table, _columns(list(table.columns), aliases), "row 0"
    if not isinstance(source, str | Path):
        raise PanelError(
            f"source must be a DataFrame or a path; got {type(source).__name__}. "
            "Turn a Series into a DataFrame with to_frame('close')."
        )
    return _load_file(Path(source), aliases)


def _load_file(path: Path, aliases: dict[str, str]) -> tuple[pd.DataFrame, dict[str, str], str]:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise PanelError(f"price file must exist; got {found} at {path}. Check the path.")
    suffix = "".join(path.suffixes[-2:]).lower() if path.suffix == ".gz" else path.suffix.lower()
    try:
        if suffix in (".parquet", ".pq"):
            table = _flat(pd.read_parquet(path))
            return table, _columns(list(table.columns), aliases), "row 0"
        if suffix in (".csv", ".csv.gz"):
            # Read as a row: pandas renames the second of two columns of one name in a head.
            head = pd.read_csv(path, nrows=1, header=None, dtype=str, keep_default_na=False)
            columns = _columns(head.iloc[0].tolist(), aliases)
            texts = {columns[DATE]: str, columns[ASSET]: str}
            marks = {column: MISSING_TEXTS for column in columns.values() if column not in texts}
            table = pd.read_csv(
                path,
                dtype=texts,
                keep_default_na=False,
                na_values=marks,
                low_memory=False,
            )
            if not isinstance(table.index, pd.RangeIndex):
                raise PanelError(
                    f"price file must have as many fields in a row as in its head; got more at "
                    f"{path}. Quote texts that hold commas."
                )
            return table, columns, "line 2"
    except PanelError:
        raise
    except (pd.errors.EmptyDataError, pd.errors.ParserError, OSError, ValueError) as error:
        raise PanelError(
            f"price file must be readable {suffix[1:]}; got {type(error).__name__} ("
            f"{' '.join(str(error).split())}) at {path}. Check that it is not empty or damaged."
        ) from error
    raise PanelError(
        f"price file must end in .csv, .csv.gz, .parquet or .pq; got {suffix or 'no suffix'} at "
        f"{path}. Convert it, or read it yourself and pass the DataFrame."
    )


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with date and instrument as columns."""
    if table.columns.nlevels > 1:
        raise PanelError(
            f"price table must have one row of column names; got {table.columns.nlevels} levels. "
            "Stack it into long form."
        )
    if table.index.nlevels == 1 and table.index.name is None:
        return table
    names = list(table.index.names)
    if table.index.nlevels == 2 and None in names:
        dated = [
            pd.api.types.is_datetime64_any_dtype(table.index.get_level_values(level).dtype)
            for level in (0, 1)
        ]
        if sum(dated) == 1:
            names = [DATE if is_date else "instrument" for is_date in dated]
    both = [name for name in names if name in table.columns]
    if both:
        raise PanelError(
            f"index levels must not repeat columns; got both at {name_places(both)}. "
            "Drop one of them."
        )
    return table.reset_index(names=names)


def _columns(found: list[str], aliases: dict[str, str]) -> dict[str, str]:
    """Return which column of the table plays which part."""
    wanted = {"instrument" if part == ASSET else part: name for part, name in aliases.items()}
    known = (DATE, "instrument", *FIELDS)
    strange = [part for part in wanted if part not in known]
    absent = [f"{part}={name!r}" for part, name in wanted.items() if name not in found]
    if strange or absent:
        raise PanelError(
            f"aliases must map one of {known} to a column of the table; got "
            f"{name_places([*strange, *absent])}. Columns found: {', '.join(map(str, found))}."
        )
    columns = {}
    missing = []
    for part in known:
        if part in wanted:
            matches = [name for name in found if name == wanted[part]]
        else:
            names = {DATE: DATE_ALIASES, "instrument": ASSET_ALIASES}.get(part, (part,))
            free = [name for name in found if name not in wanted.values()]
            matches = [name for name in free if str(name).strip().lower() in names]
        if len(matches) > 1:
            raise PanelError(
                f"{part} must be one column; got several at {name_places(matches)}. "
                f"Say which: {part}={matches[0]!r}."
            )
        if matches:
            columns[ASSET if part == "instrument" else part] = matches[0]
        elif part in (DATE, "instrument", "close"):
            missing.append(part)
    if missing:
        raise PanelError(
            f"price table must have the columns {', '.join(missing)}; got columns "
            f"{', '.join(map(str, found)) or 'none'}. Rename them, or in Python "
            f"say read_prices(source, {missing[0]}='your column')."
        )
    return columns
