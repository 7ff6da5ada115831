"""Price files: one CSV, Parquet or Feather file, or many of them by glob or folder."""

import csv
import glob
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
from pyarrow import feather, parquet

from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.data.sources.price_table import MISSING_TEXTS, RowNames, Vocabulary, short_text
from nfi_pyro.data.sources.vendors import INSTRUMENT, TEXTS
from nfi_pyro.dims import DATE
from nfi_pyro.errors import PanelError, name_places

SUFFIXES = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".feather": "feather",
    ".ftr": "feather",
    ".arrow": "feather",
}
_SPELLED = ".csv, .csv.gz, .parquet, .pq, .feather, .ftr or .arrow"
_DAMAGE = (
    pd.errors.EmptyDataError,
    pd.errors.ParserError,
    pa.ArrowException,
    csv.Error,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    NotImplementedError,
    MemoryError,
)
"""What pandas, pyarrow and the decompressors raise on damaged files."""
# Older pandas rounds the last digit carelessly unless told not to; newer ones warn when told.
_EXACT: dict[str, Any] = (
    {"float_precision": "round_trip"}
    if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
    else {}
)


def is_qlib_folder(path: Path) -> bool:
    """Return whether a path is a qlib directory, by its folders."""
    return os.path.isdir(path / "calendars") and os.path.isdir(path / "features")


def list_files(source: str | Path) -> tuple[list[Path], Path, DropLedger]:
    """Return the price files that a path, glob or folder names, their root, and what was left out.

    Parameters
    ----------
    source : str or Path
        A file; a pattern with ``*``, ``?`` or ``[``; or a folder, whose ``key=value`` subfolders
        count as partitions. Files and folders whose names begin with "." or "_" are passed over,
        as are files of other kinds, which are noted.

    Raises
    ------
    PanelError
        When nothing is there, no file can be read, or the files are of several kinds.
    """
    path = Path(source)
    text = str(source)
    ledger = DropLedger()
    if not text or "\0" in text:
        raise PanelError(f"source must be a path; got {text!r}. Check it.")
    if os.path.isfile(path):
        file_kind(path)
        return [path], path.parent, ledger
    if os.path.isdir(path):
        inside = _partition_files(path)
        found = [file for file in inside if file.is_file() and _suffix(file) in SUFFIXES]
        others = [file.name for file in inside if file not in set(found)]
        ledger = ledger.add("files of other kinds", len(others), "ignored", others)
        root = path
    elif glob.has_magic(text):
        found = [Path(name) for name in sorted(glob.glob(text, recursive=True))]
        found = [file for file in found if file.is_file()]
        fixed = list(path.parts)
        magic = next(place for place, part in enumerate(fixed) if glob.has_magic(part))
        root = Path(*fixed[:magic])
    else:
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        raise PanelError(f"price file must exist; got nothing at {shown}. Check the path.")
    if not found:
        raise PanelError(
            f"price files must exist; got none that ends in {_SPELLED} at {path}. Check the path."
        )
    kinds = {kind: file.name for file in reversed(found) for kind in [file_kind(file)]}
    if len(kinds) > 1:
        raise PanelError(
            f"price files of one source must be of one kind; got {' and '.join(sorted(kinds))} at "
            f"{name_places(sorted(kinds.values()))}. Give a pattern that names one kind."
        )
    return found, root, ledger


def file_kind(path: Path) -> str:
    """Return "csv", "parquet" or "feather" by the name of a file.

    Raises
    ------
    PanelError
        When it ends otherwise.
    """
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise PanelError(
            f"price file must end in {_SPELLED}; got {suffix or 'no suffix'} at {path}. Convert "
            "it, or read it yourself and pass the DataFrame."
        )
    return SUFFIXES[suffix]


def read_frames(
    files: Sequence[Path], root: Path, vocabulary: Vocabulary, *, wide: bool
) -> dict[Path, pd.DataFrame]:
    """Return the table of each file as it was found; columns of partitions are added.

    Parameters
    ----------
    files : sequence of Path
        From `list_files`.
    root : Path
        Folders below it named ``key=value`` become columns.
    vocabulary : Vocabulary
        Says which columns of a CSV are texts.
    wide : bool
        Whether a CSV holds a matrix: dates, then one column per asset.

    Raises
    ------
    PanelError
        When a file is damaged, or has other columns than the first one.
    """
    frames = {}
    for file in files:
        frame = _read_file(file, vocabulary, wide)
        for folder in file.relative_to(root).parent.parts:
            key, mark, value = folder.partition("=")
            if mark:
                if key in frame.columns or key in frame.index.names:
                    raise PanelError(
                        f"partition key {key} must not repeat a column; got both at {file}. "
                        "Drop the column from the files."
                    )
                frame[key] = unquote(value)
        frames[file] = frame
    if not wide:
        _same_columns(frames, root)
    return frames


def join_frames(
    frames: dict[Path, pd.DataFrame], root: Path, vocabulary: Vocabulary
) -> tuple[pd.DataFrame, RowNames, DropLedger]:
    """Return the tables of several files as one; the symbol is the file's name if none has one.

    Raises
    ------
    PanelError
        When no file has rows.
    """
    files = list(frames)
    ledger = DropLedger()
    is_csv = file_kind(files[0]) == "csv"
    word, first = ("line", 2) if is_csv else ("row", 0)
    if len(files) == 1:
        return frames[files[0]], RowNames(word, first), ledger
    head = frames[files[0]]
    found = vocabulary.find([*head.columns, *(n for n in head.index.names if n is not None)])
    tables = []
    for file, frame in frames.items():
        if INSTRUMENT not in found and head.columns.nlevels == 1:
            frame = frame.assign(**{INSTRUMENT: file.name[: -len(_suffix(file))]})
        tables.append(frame)
    if INSTRUMENT not in found:
        ledger = ledger.add(
            "files without an instrument column",
            len(files),
            "symbol from the file name",
            [file.name for file in files],
        )
    starts, total = [], 0
    for frame in tables:
        starts.append(total)
        total += len(frame)
    filled = [frame for frame in tables if len(frame)]
    empty = [file.name for file, frame in frames.items() if not len(frame)]
    ledger = ledger.add("files without rows", len(empty), "nothing to read", empty)
    plain = all(isinstance(frame.index, pd.RangeIndex) for frame in filled)
    joined = pd.concat(filled or tables[:1], ignore_index=plain)
    names = tuple(file.relative_to(root).as_posix() for file in files)
    return joined, RowNames(word, first, tuple(starts), names), ledger


def _partition_files(folder: Path) -> list[Path]:
    """Return the entries of a folder and of its key=value folders, sorted, hidden ones left out."""
    files: list[Path] = []
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise PanelError(
            f"price folder must be readable; got {error.strerror} at {folder}. Check its rights."
        ) from error
    for entry in entries:
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_dir() and "=" in entry.name:
            files.extend(_partition_files(entry))
        else:
            files.append(entry)
    return files


def _suffix(path: Path) -> str:
    parts = path.suffixes
    return "".join(parts[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def _read_file(path: Path, vocabulary: Vocabulary, wide: bool) -> pd.DataFrame:
    kind = file_kind(path)
    try:
        if kind == "csv":
            return _read_csv(path, vocabulary, wide)
        if kind == "parquet":
            with parquet.ParquetFile(path) as file:
                table = file.read()
        else:
            table = feather.read_table(path, memory_map=False)
        table.validate(full=True)  # offsets and texts of a damaged file may point anywhere
        frame = table.to_pandas()
    except PanelError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        raise PanelError(
            f"price file must be readable {kind}; got {type(error).__name__} ({reason[:200]}) at "
            f"{path}. Check that it is not empty or damaged, and that texts are UTF-8."
        ) from error
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise PanelError(
            f"columns must have names of their own; got repeated ones at {name_places(twice)} of "
            f"{path}. Rename them."
        )
    return frame


def _read_csv(path: Path, vocabulary: Vocabulary, wide: bool) -> pd.DataFrame:
    """Return a CSV with dates and symbols as texts and numbers to the nearest float64."""
    # Read as a row: pandas renames the second of two columns of one name in a head.
    first = pd.read_csv(
        path, nrows=1, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig"
    )
    head = [str(name) for name in first.iloc[0]]
    parts = {name: vocabulary.part_of(name) for name in head}
    twice = sorted({name for name in head if head.count(name) > 1})
    used = [name for name in twice if wide or parts[name] or name in vocabulary.fields]
    if used:
        what, same = parts[used[0]] or used[0], [used[0]] * head.count(used[0])
        raise PanelError(
            f"{what} must be one column; got several at {name_places(same)} of {path}. Rename or "
            "drop one."
        )
    texts = [name for name, part in parts.items() if part in (DATE, INSTRUMENT, *TEXTS)]
    if wide:
        texts = [name for name in head if parts[name] == DATE] or head[:1]
    places = {name: place for place, name in enumerate(head)}
    table = pd.read_csv(
        path,
        dtype={_header(name, places[name]): str for name in texts},
        keep_default_na=False,
        na_values={
            _header(name, places[name]): MISSING_TEXTS for name in head if name not in texts
        },
        low_memory=False,
        **_EXACT,
        encoding="utf-8-sig",
    )
    if not isinstance(table.index, pd.RangeIndex) or table.shape[1] != len(head):
        raise PanelError(
            f"price file must have as many fields in a row as in its head; got more at "
            f"{path}. Quote texts that hold commas."
        )
    _refuse_cut_end(path, len(head))
    # Two columns of one name are left only where no one asks for them.
    return table.set_axis(head, axis=1) if not twice else table


def _refuse_cut_end(path: Path, n_columns: int) -> None:
    """Refuse a CSV whose last row has too few fields, as an interrupted copy leaves it."""
    if path.suffix.lower() == ".gz":
        return  # a cut end is damage there
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 2**16))
        end = file.read()
    lines = end.split(b"\n")
    if len(lines) > 1 and lines[-1].strip() and b'"' not in lines[-1]:
        n_fields = lines[-1].count(b",") + 1
        if n_fields < n_columns:
            raise PanelError(
                f"price file must end with a whole row; got {n_fields} of {n_columns} fields and "
                f"no line end in the last one at {path}. It seems cut off: copy it again."
            )


def _header(name: str, place: int) -> str:
    """Return what pandas calls a column of the head."""
    return name or f"Unnamed: {place}"


def _same_columns(frames: dict[Path, pd.DataFrame], root: Path) -> None:
    """Refuse files of one source that have different columns."""
    files = list(frames)
    known = {file: {*map(str, frames[file].columns), *_levels(frames[file])} for file in files}
    first = known[files[0]]
    odd = [file for file in files if known[file] != first]
    if odd:
        more, less = known[odd[0]] - first, first - known[odd[0]]
        signed = [f"+{name}" for name in sorted(more)] + [f"-{name}" for name in sorted(less)]
        change = [short_text(name, quote=False) for name in signed]
        raise PanelError(
            f"files of one source must have the same columns as {files[0].name}; got "
            f"{len(odd)} others at {name_places(f.relative_to(root).as_posix() for f in odd)} "
            f"({name_places(change)}). Read them apart, or rename columns."
        )


def _levels(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.index.names if name is not None]
