"""Alpha158: the price-volume features of qlib, computed for all assets at once."""

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from nfi_pyro.data.features.formulas import FORMULAS, Block
from nfi_pyro.data.features.rolling import FloatArray
from nfi_pyro.dims import ASSET, DATE, FEATURE
from nfi_pyro.errors import PanelError, SpecError, name_places

ALPHA158: tuple[str, ...] = tuple(FORMULAS)
"""The 158 names in native order."""

ALPHA158_20: tuple[str, ...] = (
    "KLEN",
    "KLOW",
    "ROC60",
    "STD5",
    "RSQR5",
    "RSQR10",
    "RSQR20",
    "RSQR60",
    "RESI5",
    "RESI10",
    "CORR5",
    "CORR10",
    "CORR20",
    "CORR60",
    "CORD5",
    "CORD10",
    "CORD60",
    "VSTD5",
    "WVMA5",
    "WVMA60",
)
"""The 20 names that qlib's time-series benchmarks select, in native order."""

_FIELDS = ("open", "high", "low", "close", "volume", "amount", "vwap")
_BLOCK_CELLS = 16_384  # dates times assets worked on at a time: float64 arrays that stay in cache
_BLOCK_ROWS = 2_048  # most dates at a time; each block also reads the rows it looks back at
_GIVEN, _TURNOVER = "given", "amount / volume"
_TYPICAL = "typical price (high + low + close) / 3, for want of amount"
_LOTS = (50.0, 200.0)  # turnover over volume is this many closes: volume counts lots of 100 shares


class FeatureTable:
    """Features of daily bars, chosen and checked once, computed for any rows when asked.

    Parameters
    ----------
    bars, subset, compat
        As for `alpha158`. The bars are kept, not copied.

    Attributes
    ----------
    names : tuple of str
        The features in the order of the last axis: Alpha158 in native order, then own factors.
    lookbacks : dict of str to int
        Calendar rows each feature looks at, the current one included.
    unavailable : dict of str to str
        Alpha158 names that were wanted and cannot be computed, and why.
    vwap : str
        Where VWAP comes from: ``"given"``, ``"amount / volume"``, the typical price, or
        ``"unavailable"``.
    shape : tuple of int
        Dates, assets, features.

    Raises
    ------
    PanelError, SpecError
        As `alpha158`.
    """

    def __init__(
        self,
        bars: xr.Dataset,
        subset: str | Sequence[str] | None = None,
        compat: str | None = None,
    ) -> None:
        if compat not in (None, "qlib"):
            raise SpecError(
                f"compat must be None or 'qlib'; got {compat!r}. Leave it out to be safe."
            )
        self._fields = _fields(bars)
        self._vwap_rows = _vwap_rows(self._fields)
        self.vwap = _describe_vwap(self._vwap_rows, bars[DATE].to_numpy())
        known = set(self._fields) | ({"vwap"} if self.vwap != "unavailable" else set())
        wanted, own = _wanted(subset, bars)
        reasons = _reasons(known)
        impossible = [f"{name} {reasons[name]}" for name in wanted if name in reasons]
        if impossible and not isinstance(subset, str | None):
            raise PanelError(
                f"features asked for must be computable; got {name_places(impossible)}. Add the "
                "fields, or leave those names out."
            )
        self._formulas = [name for name in wanted if name not in reasons]
        self._own = {name: _values(bars, name) for name in own}
        self._warm_only = compat is None
        self.names: tuple[str, ...] = (*self._formulas, *own)
        self.lookbacks = {name: FORMULAS[name].lookback for name in self._formulas}
        self.lookbacks |= dict.fromkeys(own, 1)
        self.unavailable = {name: reasons[name] for name in wanted if name in reasons}
        close = self._fields["close"]
        self.shape = (len(close), close.shape[1], len(self.names))
        finite = np.isfinite(close)
        self._first_row = np.where(finite.any(0), finite.argmax(0), len(close))
        if _TURNOVER in self._vwap_rows and "VWAP0" in self._formulas:
            _refuse_lots(self._fields)

    @property
    def attributes(self) -> dict[str, str]:
        """What was chosen and what could not be, as attributes of the features."""
        return {
            "features_unavailable": json.dumps(self.unavailable),
            "vwap": self.vwap,
            "compat": "none" if self._warm_only else "qlib",
            "timing": "known at the close of date",
        }

    def compute(self, start: int, stop: int) -> np.ndarray:
        """Return the features of the calendar rows from `start` up to, not including, `stop`.

        Parameters
        ----------
        start, stop : int
            Rows of the bars, 0 <= start <= stop <= number of dates. Earlier rows are read as far
            as the features look back.

        Returns
        -------
        ndarray, shape (stop - start, asset, feature), float32
            To the bit the same rows of the whole computation; timing and NaN as in `alpha158`.

        Raises
        ------
        SpecError
            When the rows are not rows of the bars.
        """
        n_dates, n_assets, n_features = self.shape
        if not 0 <= start <= stop <= n_dates:
            raise SpecError(
                f"rows must lie within 0..{n_dates}; got start {start} and stop {stop}. "
                "Count calendar rows of the bars."
            )
        values = np.empty((stop - start, n_assets, n_features), dtype=np.float32)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for place, own in enumerate(self._own.values(), start=len(self._formulas)):
                values[:, :, place] = own[start:stop]
            for row in range(start, stop, _BLOCK_ROWS) if self._formulas else ():
                end = min(row + _BLOCK_ROWS, stop)
                self._fill(row, end, values[row - start : end - start])
        return values

    def _fill(self, start: int, stop: int, values: np.ndarray) -> None:
        """Write the formulas' features of some rows into `values`, a few assets at a time."""
        first = max(0, start - max(self.lookbacks.values()) + 1)
        width = max(1, _BLOCK_CELLS // (stop - first))
        for left in range(0, self.shape[1], width):
            part = slice(left, left + width)
            fields = {
                name: np.ascontiguousarray(field[first:stop, part], dtype=np.float64)
                for name, field in self._fields.items()
            }
            fields = _with_vwap(fields, self._vwap_rows, first)
            block = Block(fields, self._first_row[part] - first, single=not self._warm_only)
            self._compute(block, start - first, values[:, part])

    def _compute(self, block: Block, skip: int, values: np.ndarray) -> None:
        """Write the features of one block, less its first `skip` rows, into `values`."""
        age = block.age[skip:]
        rows = np.empty((len(self._formulas), *age.shape), dtype=np.float32)
        cold: dict[int, tuple[np.ndarray, ...]] = {}
        for feature, name in zip(rows, self._formulas, strict=True):
            asked = self.lookbacks[name] if self._warm_only else 1
            if asked not in cold:
                cold[asked] = np.nonzero(age < asked)
            feature[...] = FORMULAS[name].compute(block)[skip:]
            feature[cold[asked]] = np.nan
        values[:, :, : len(rows)] = np.moveaxis(rows, 0, -1)


def alpha158(
    bars: xr.Dataset, subset: str | Sequence[str] | None = None, compat: str | None = None
) -> xr.DataArray:
    """Return Alpha158 features of daily bars, known at the close of each date.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        ``close`` and, as far as known, ``open``, ``high``, ``low`` (adjusted prices), ``volume``,
        ``amount`` (turnover, in price times volume units) and ``vwap`` (adjusted as the prices
        are). NaN marks a suspended day, which stays a row of every window and is skipped. A field
        that is NaN everywhere is missing.
    subset : None, "alpha158_20" or sequence of str
        None computes every feature whose fields are there; a list of names or the 20-feature
        subset restricts it. A list may also name own factors: other numeric variables of `bars`
        with dims (date, asset), which pass through as they are. Alpha158 comes in native order,
        own factors after it in the order given.
    compat : None or "qlib"
        None leaves a feature NaN until its window is warm: d calendar rows since the asset's first
        valid close, that row included, and one more where the formula uses the row before.
        ``"qlib"`` gives qlib's values of shorter windows there (minimum one observation), and
        rounds the inputs of CORR, CORD and WVMA to float32 before the window, as qlib does.

    Returns
    -------
    DataArray, shape (date, asset, feature), float32
        Dimensionless; NaN where undefined, +-inf only where an input price is 0. Own factors have
        their own unit. Attributes: ``features_unavailable`` (JSON, name to reason), ``vwap`` (its
        source), ``compat``, timing. Little more memory than the output itself is used.

    Raises
    ------
    PanelError
        When the bars lack dims, ``close``, or the fields of a feature asked for by name; or when
        VWAP0 would be 50 to 200 times the close because volume counts lots and amount does not.
    SpecError
        When a name or `compat` is unknown.

    Notes
    -----
    Source: qlib 0.9.7 ``contrib/data/loader.py`` and ``data/ops.py``. RSQR, CORR and CORD are NaN
    where a standard deviation is at most 2e-5 in absolute terms, as in qlib, so they depend on the
    price unit when prices are far below 1. Equal values have a spread of exactly 0; qlib's STD,
    VSTD and WVMA, from pandas, can be rounding noise there, over 1e-12 at times. VWAP is the
    variable ``vwap`` from the first date on which any asset has one; else amount / volume, likewise
    from the first date on which any asset has both; else the typical price
    (high + low + close) / 3. The choice is one for all cells and the attribute says which: a
    missing cell of the source is a missing VWAP0.
    """
    table = FeatureTable(bars, subset, compat)
    coords = {DATE: bars[DATE], ASSET: bars[ASSET], FEATURE: np.array(table.names, dtype=object)}
    values = table.compute(0, table.shape[0])
    return xr.DataArray(
        values, coords, (DATE, ASSET, FEATURE), name="features", attrs=table.attributes
    )


def lookback(name: str) -> int:
    """Return how many calendar rows a feature looks at, the current one included."""
    if name not in FORMULAS:
        raise SpecError(f"feature must be one of Alpha158; got {name!r}. See ALPHA158.")
    return FORMULAS[name].lookback


def _fields(bars: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the fields with finite values, and close, as arrays (date, asset), not copied."""
    if "close" not in bars or set(bars["close"].dims) != {DATE, ASSET}:
        raise PanelError(
            f"bars must have dims date and asset and a variable close; got dims "
            f"{tuple(bars.sizes)} and variables {sorted(map(str, bars.data_vars))}. "
            "Make them with read_prices."
        )
    fields = {name: _values(bars, name) for name in _FIELDS if name in bars}
    return {
        name: values
        for name, values in fields.items()
        if name == "close" or np.isfinite(values).any()
    }


def _values(bars: xr.Dataset, name: str) -> np.ndarray:
    return bars[name].transpose(DATE, ASSET).to_numpy()


def _vwap_rows(fields: dict[str, np.ndarray]) -> dict[str, int]:
    """Return each source of VWAP, worst first, and the first row on which any asset has it.

    A source counts from that row on and never before, so that data which begin to arrive later
    change no earlier date.
    """
    rows = {}
    if {"high", "low"} <= set(fields):
        rows[_TYPICAL] = 0
    for source, names in ((_TURNOVER, ("amount", "volume")), (_GIVEN, ("vwap",))):
        if set(names) <= set(fields):
            known = np.logical_and.reduce([np.isfinite(fields[name]) for name in names])
            if known.any():
                rows[source] = int(known.any(axis=1).argmax())
    return rows


def _describe_vwap(rows: dict[str, int], dates: np.ndarray) -> str:
    """Return where VWAP comes from, and since when where that changes."""
    parts = []
    best_from = len(dates)
    for source in reversed(rows):  # the best first
        if rows[source] < best_from:
            since = f" from {np.datetime_as_string(dates[rows[source]], 'D')}"
            parts.append(source + since * (rows[source] > 0))
            best_from = rows[source]
    return ", before that ".join(parts) or "unavailable"


def _with_vwap(
    fields: dict[str, FloatArray], rows: dict[str, int], first: int
) -> dict[str, FloatArray]:
    """Return the fields of a block, whose first calendar row is `first`, with ``vwap``."""
    if not rows:
        return fields
    vwap = np.full_like(fields["close"], np.nan)
    for source, row in rows.items():
        part = slice(max(0, row - first), None)
        if source == _GIVEN:
            vwap[part] = fields["vwap"][part]
        elif source == _TURNOVER:
            vwap[part] = fields["amount"][part] / fields["volume"][part]
        else:
            vwap[part] = (fields["high"][part] + fields["low"][part] + fields["close"][part]) / 3
    return fields | {"vwap": vwap}


def _refuse_lots(fields: dict[str, np.ndarray]) -> None:
    """Refuse volume in lots of 100 beside an amount in money: VWAP0 would be a hundredfold."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        times = fields["amount"] / fields["volume"] / fields["close"]
    finite = times[np.isfinite(times)]
    typical = float(np.median(finite)) if finite.size else 1.0
    if _LOTS[0] <= typical <= _LOTS[1]:
        raise PanelError(
            f"amount / volume must be a price near the close; got {typical:.4g} closes in the "
            "median: volume counts lots of 100 shares. Name the vendor when you read the prices, "
            "multiply volume by 100, or leave amount out."
        )


def _reasons(known: set[str]) -> dict[str, str]:
    """Return why features cannot be computed from the known fields."""
    reasons = {}
    for name, formula in FORMULAS.items():
        absent = [field for field in formula.needs if field not in known]
        if absent:
            reasons[name] = f"needs {' and '.join(absent)}, which the bars do not have"
    return reasons


def _wanted(
    subset: str | Sequence[str] | None, bars: xr.Dataset
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the Alpha158 names wanted, in native order, and the own factors in the order given."""
    if subset is None:
        return ALPHA158, ()
    if isinstance(subset, str):
        if subset != "alpha158_20":
            raise SpecError(
                f"subset must be None, 'alpha158_20' or a list of names; got {subset!r}. "
                "Write a single feature as a list."
            )
        return ALPHA158_20, ()
    asked = dict.fromkeys(subset)
    own = tuple(name for name in asked if name not in FORMULAS)
    unknown = [name for name in own if not _is_factor(bars, name)]
    if unknown or not asked:
        raise SpecError(
            f"subset must hold names of Alpha158 or of other numeric (date, asset) variables of "
            f"the bars; got {name_places(sorted(unknown) or ['none'])}. See "
            "nfi_pyro.data.features.technical.ALPHA158."
        )
    return tuple(name for name in ALPHA158 if name in asked), own


def _is_factor(bars: xr.Dataset, name: str) -> bool:
    """Return whether `name` is a numeric (date, asset) variable and no field of a bar."""
    if name in _FIELDS or name not in bars.data_vars:
        return False
    return set(bars[name].dims) == {DATE, ASSET} and bars[name].dtype.kind in "fiu"
