"""Daily bars written as qlib's binary directory, which qlib and `read_qlib` read back."""

import re
import shutil
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nfi_pyro.data.sources.qlib_bin import FLOAT, SUFFIX, UNIVERSE, folder_name, refuse_other_bars
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import PanelError, SpecError, name_places

_LATEST_ROW = 2**24  # the row of the first value is stored as float32
_SAFE = re.compile(r'(?!_QLIB_)[^\s<>:"/\\|?*]+')  # a file name on every system
Spells = list[tuple[int, int, int]]


def write_qlib(
    bars: xr.Dataset, path: str | Path, *, freq: str = "day", market: str = "all"
) -> Path:
    """Write daily bars as a qlib directory and return its path.

    The directory appears complete or not at all: it is written beside its place and moved in.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        Numeric variables with both dims, stored as float32 (rounded), from each asset's first to
        its last row with a value; names in lower case. Symbols are stored in upper case. A bool
        variable ``universe`` gives the membership spells of `market`; assets that it never has
        are named in ``all.txt`` alone.
    path : str or Path
        Replaced when it is a qlib directory already.
    freq : "day"
        Bars of a day; nothing else is written.
    market : str
        Instruments file of the membership spells, beside ``all.txt``, which names every asset.

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    PanelError
        When dates repeat, descend or have a time of day; symbols or fields do not make distinct
        file names; an asset has no value; a value overflows float32; a variable is none of the
        above; or `path` cannot be written or is no qlib directory.
    SpecError
        When `freq` is not ``"day"`` or `market` is no file name in lower case.
    """
    target = Path(path)
    refuse_other_bars(freq)
    if not isinstance(bars, xr.Dataset):
        raise PanelError(
            f"bars must be a Dataset of dims date and asset; got {type(bars).__name__}. Make "
            "them with read_prices."
        )
    if not isinstance(market, str) or not re.fullmatch(r"[a-z0-9_.-]+", market):
        raise SpecError(f"market must be a file name in lower case; got {market!r}. Rename it.")
    dates = _checked_dates(bars)
    symbols = _checked_symbols(bars)
    grid = _checked_fields(bars, symbols)
    listed = _listed(grid, symbols)
    member = _members(bars, market, listed)
    if target.exists() and not _is_qlib(target):
        raise PanelError(
            f"path must be free or hold a qlib directory; got another thing at {target}. "
            "Choose another path."
        )
    token = uuid.uuid4().hex[:8]
    fresh = target.with_name(f".{target.name}.{token}.new")
    old = target.with_name(f".{target.name}.{token}.old")
    try:
        _write_texts(fresh, dates, symbols, {"all": listed} | {market: member})
        _write_features(fresh, symbols, grid, listed)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    except OSError as error:
        raise PanelError(
            f"path of a qlib directory must be writable; got {error.strerror or error} at "
            f"{target}. What was there before is untouched: free some space, or choose another "
            "path."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)  # the new one did not make it: the old one stays
        shutil.rmtree(old, ignore_errors=True)
    return target


def _is_qlib(folder: Path) -> bool:
    return all((folder / part).is_dir() for part in ("calendars", "instruments", "features"))


def _checked_dates(bars: xr.Dataset) -> list[str]:
    """Return the dates as texts, when days tell them apart and nothing is lost."""
    if not {DATE, ASSET} <= set(bars.sizes) or not {DATE, ASSET} <= set(bars.coords):
        raise PanelError(
            f"bars must have dims and coordinates date and asset; got dims {tuple(bars.sizes)}. "
            "Make them with read_prices."
        )
    dates = bars[DATE].to_numpy()
    if dates.dtype.kind != "M":
        raise PanelError(f"dates must be datetime64; got {dates.dtype}. Convert them first.")
    days = dates.astype("datetime64[D]")
    bad = np.isnat(dates) | (days != dates)
    bad[1:] |= ~(days[1:] > days[:-1])
    if bad.any() or not 0 < len(days) < _LATEST_ROW:
        places = [np.datetime_as_string(day, "s") for day in dates[bad]]
        raise PanelError(
            "dates must be ascending days without a time of day, one at least; got others at "
            f"{name_places(places)}. Sort them, keep one of each, and drop the time."
        )
    return [str(day) for day in days]


def _checked_symbols(bars: xr.Dataset) -> list[str]:
    symbols = [str(symbol).upper() for symbol in bars[ASSET].to_numpy()]
    times = Counter(symbols)
    bad = [
        repr(symbol)
        for symbol in symbols
        if times[symbol] > 1 or not _SAFE.fullmatch(symbol) or not symbol.strip(".")
    ]
    if bad or not symbols:
        raise PanelError(
            "symbols must be distinct file names whatever the case, without spaces; got others "
            f"at {name_places(bad)}. Rename these assets."
        )
    return symbols


def _checked_fields(bars: xr.Dataset, symbols: list[str]) -> dict[str, NDArray[np.float32]]:
    """Return the variables but the universe as float32 (date, asset)."""
    names = [str(name) for name in bars.data_vars if name != UNIVERSE]
    bad = [
        name
        for name in names
        if set(bars[name].dims) != {DATE, ASSET}
        or bars[name].dtype.kind not in "fiu"
        or not re.fullmatch(r"[a-z0-9_]+", name)
        or name in (DATE, ASSET)
    ]
    if bad or not names:
        raise PanelError(
            "variables must be numeric, with dims date and asset and names in lower case; got "
            f"others at {name_places(bad)}. Drop or rename them."
        )
    grid, places = {}, []
    for name in names:
        values = bars[name].transpose(DATE, ASSET).to_numpy()
        with np.errstate(over="ignore"):
            grid[name] = values.astype(FLOAT)
        lost = np.isfinite(values) & ~np.isfinite(grid[name])
        places += [f"{name} of {symbols[asset]}" for asset in np.flatnonzero(lost.any(axis=0))]
    if places:
        raise PanelError(
            f"values must fit into float32; got larger ones at {name_places(places)}. "
            "Choose a larger unit."
        )
    return grid


def _listed(grid: dict[str, NDArray[np.float32]], symbols: list[str]) -> Spells:
    """Return asset, first and last row with a value of any field."""
    known = np.any([~np.isnan(values) for values in grid.values()], axis=0)
    empty = [symbols[asset] for asset in np.flatnonzero(~known.any(axis=0))]
    if empty:
        raise PanelError(
            f"every asset must have a value; got none at {name_places(empty)}. Drop these assets."
        )
    first, last = known.argmax(axis=0), len(known) - 1 - known[::-1].argmax(axis=0)
    return [(asset, int(a), int(b)) for asset, (a, b) in enumerate(zip(first, last, strict=True))]


def _members(bars: xr.Dataset, market: str, listed: Spells) -> Spells:
    """Return asset, first and last row of every membership spell of the market."""
    if UNIVERSE not in bars:
        return listed
    variable = bars[UNIVERSE]
    if market == "all" or set(variable.dims) != {DATE, ASSET} or variable.dtype != bool:
        raise PanelError(
            f"universe must be bool, with dims date and asset, of a market with a name; got "
            f"{variable.dtype} {variable.dims} for market {market!r}. Name the market, or drop "
            "the variable."
        )
    member = variable.transpose(DATE, ASSET).to_numpy()
    edge = np.zeros((1, member.shape[1]), dtype=np.int8)
    change = np.diff(np.concatenate([edge, member.astype(np.int8), edge]), axis=0)
    starts, stops = np.argwhere(change.T == 1), np.argwhere(change.T == -1)
    if not len(starts):
        raise PanelError(
            f"universe must have a member; got none for market {market!r}. Drop the variable."
        )
    return [
        (int(asset), int(start), int(stop) - 1)
        for (asset, start), (_, stop) in zip(starts, stops, strict=True)
    ]


def _write_texts(
    folder: Path, dates: list[str], symbols: list[str], markets: dict[str, Spells]
) -> None:
    for part in ("calendars", "instruments", "features"):
        (folder / part).mkdir(parents=True)
    text = "".join(f"{day}\n" for day in dates)
    (folder / "calendars" / "day.txt").write_text(text, encoding="utf-8", newline="\n")
    for market, spells in markets.items():
        lines = sorted(f"{symbols[asset]}\t{dates[a]}\t{dates[b]}\n" for asset, a, b in spells)
        file = folder / "instruments" / f"{market}.txt"
        file.write_text("".join(lines), encoding="utf-8", newline="\n")


def _write_features(
    folder: Path, symbols: list[str], grid: dict[str, NDArray[np.float32]], listed: Spells
) -> None:
    for asset, first, last in listed:
        place = folder / "features" / folder_name(symbols[asset])
        place.mkdir()
        for name, values in grid.items():
            stored = np.empty(last - first + 2, dtype=FLOAT)
            stored[0] = first
            stored[1:] = values[first : last + 1, asset]
            (place / f"{name}{SUFFIX}").write_bytes(stored.tobytes())
