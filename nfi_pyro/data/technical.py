"""Alpha158: the price-volume features of qlib, computed for all assets at once."""

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from nfi_pyro.data.formulas import FORMULAS, Block
from nfi_pyro.data.rolling import FloatArray
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

_FIELDS = ("open", "high", "low", "close", "volume", "amount")
_BLOCK_CELLS = 50_000  # dates times assets worked on at a time: float64 arrays that stay in cache


def alpha158(
    bars: xr.Dataset, subset: str | Sequence[str] | None = None, compat: str | None = None
) -> xr.DataArray:
    """Return Alpha158 features of daily bars, known at the close of each date.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        ``close`` and, as far as known, ``open``, ``high``, ``low`` (adjusted prices), ``volume``
        and ``amount`` (turnover, in price times volume units). NaN marks a suspended day, which
        stays a row of every window and is skipped. A field that is NaN everywhere is missing.
    subset : None, "alpha158_20" or sequence of str
        None computes every feature whose fields are there; a name of features or the 20-feature
        subset restricts it. The order is always the native one.
    compat : None or "qlib"
        None leaves a feature NaN until its window is warm: d calendar rows since the asset's first
        valid close, that row included, and one more where the formula uses the row before.
        ``"qlib"`` gives qlib's values of shorter windows there (minimum one observation).

    Returns
    -------
    DataArray, shape (date, asset, feature), float32
        Dimensionless; NaN where undefined, +-inf only where an input price is 0. Attributes:
        ``features_unavailable`` (JSON, name to reason), ``vwap`` (its source), ``compat``, timing.

    Raises
    ------
    PanelError
        When the bars lack dims, ``close``, or the fields of a feature asked for by name.
    SpecError
        When a name or `compat` is unknown.

    Notes
    -----
    Source: qlib 0.9.7 ``contrib/data/loader.py`` and ``data/ops.py``. RSQR, CORR and CORD are NaN
    where a standard deviation is at most 2e-5 in absolute terms, as in qlib, so they depend on the
    price unit when prices are far below 1. VWAP is amount / volume; without amount it is the
    typical price (high + low + close) / 3, and the attribute says so.
    """
    if compat not in (None, "qlib"):
        raise SpecError(f"compat must be None or 'qlib'; got {compat!r}. Leave it out to be safe.")
    fields, vwap = _fields(bars)
    names, unavailable = _select(subset, fields)
    close = fields["close"]
    n_dates, n_assets = close.shape
    values = np.empty((n_dates, n_assets, len(names)), dtype=np.float32)
    first_row = np.where(np.isfinite(close).any(0), np.isfinite(close).argmax(0), n_dates)
    width = max(1, _BLOCK_CELLS // n_dates)
    for start in range(0, n_assets, width):
        part = slice(start, start + width)
        block = Block({name: field[:, part] for name, field in fields.items()}, first_row[part])
        values[:, part] = _compute(block, names, warm_only=compat is None)
    attrs = {
        "features_unavailable": json.dumps(unavailable),
        "vwap": vwap,
        "compat": compat or "none",
        "timing": "known at the close of date",
    }
    coords = {DATE: bars[DATE], ASSET: bars[ASSET], FEATURE: np.array(names, dtype=object)}
    return xr.DataArray(values, coords, (DATE, ASSET, FEATURE), name="features", attrs=attrs)


def lookback(name: str) -> int:
    """Return how many calendar rows a feature looks at, the current one included."""
    if name not in FORMULAS:
        raise SpecError(f"feature must be one of Alpha158; got {name!r}. See ALPHA158.")
    return FORMULAS[name].lookback


def _fields(bars: xr.Dataset) -> tuple[dict[str, FloatArray], str]:
    """Return the known fields as float64 arrays (date, asset) and where vwap comes from."""
    if "close" not in bars or set(bars["close"].dims) != {DATE, ASSET}:
        raise PanelError(
            f"bars must have dims date and asset and a variable close; got dims "
            f"{tuple(bars.sizes)} and variables {sorted(map(str, bars.data_vars))}. "
            "Make them with read_prices."
        )
    fields = {}
    for name in _FIELDS:
        if name in bars:
            values = bars[name].transpose(DATE, ASSET).to_numpy().astype(np.float64)
            if name == "close" or np.isfinite(values).any():
                fields[name] = values
    amount = fields.pop("amount", None)
    if amount is not None and "volume" in fields:
        with np.errstate(divide="ignore", invalid="ignore"):
            fields["vwap"] = amount / fields["volume"]
        return fields, "amount / volume"
    if {"high", "low"} <= set(fields):
        fields["vwap"] = (fields["high"] + fields["low"] + fields["close"]) / 3
        return fields, "typical price (high + low + close) / 3, for want of amount"
    return fields, "unavailable"


def _select(
    subset: str | Sequence[str] | None, fields: dict[str, FloatArray]
) -> tuple[list[str], dict[str, str]]:
    """Return the features to compute, in native order, and why the others cannot be."""
    reasons = {}
    for name, formula in FORMULAS.items():
        absent = [field for field in formula.needs if field not in fields]
        if absent:
            reasons[name] = f"needs {' and '.join(absent)}, which the bars do not have"
    if isinstance(subset, str):
        if subset != "alpha158_20":
            raise SpecError(
                f"subset must be None, 'alpha158_20' or a list of names; got {subset!r}. "
                "Write a single feature as a list."
            )
        wanted = set(ALPHA158_20)
    elif subset is None:
        wanted = set(ALPHA158)
    else:
        wanted = set(subset)
        unknown = sorted(wanted - set(ALPHA158))
        if unknown or not wanted:
            raise SpecError(
                f"subset must hold names of Alpha158; got "
                f"{name_places(unknown or ['none'])}. See "
                "nfi_pyro.data.technical.ALPHA158."
            )
        impossible = [
            f"{name} {reasons[name]}" for name in ALPHA158 if name in wanted & set(reasons)
        ]
        if impossible:
            raise PanelError(
                f"features asked for must be computable; got {name_places(impossible)}. Add the "
                "fields, or leave those names out."
            )
    names = [name for name in ALPHA158 if name in wanted and name not in reasons]
    return names, {name: reasons[name] for name in ALPHA158 if name in wanted & set(reasons)}


def _compute(block: Block, names: Sequence[str], *, warm_only: bool) -> np.ndarray:
    """Return float32 (date, asset, feature) of one block of assets."""
    n_dates, n_assets = block.close.shape
    values = np.empty((n_dates, n_assets, len(names)), dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for place, name in enumerate(names):
            formula = FORMULAS[name]
            feature = formula.compute(block)
            asked = formula.lookback if warm_only else 1
            values[:, :, place] = np.where(block.age >= asked, feature, np.nan)
    return values
