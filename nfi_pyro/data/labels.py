"""The label: the return that an asset will have earned, and words that say exactly which."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.data.sources.symbols import canonical_symbol, canonical_symbols
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import PanelError, SpecError, name_places

UNITS = ("return", "rank", "excess")
PRICE_FIELDS = ("close", "open", "vwap")
KINDS = ("raw", "market_excess", "demeaned", "rank", "industry_excess")
RANK_SCALE = 3.46  # uniform ranks have a standard deviation of 0.289; this makes it 1
_UNIT_OF_KIND = {
    "raw": "return",
    "market_excess": "excess",
    "demeaned": "excess",
    "rank": "rank",
    "industry_excess": "excess",
}
_UNIT_WORDS = {
    "return": "simple return",
    "rank": "cross-sectional rank of the simple return",
    "excess": "simple return in excess of a benchmark",
}
_KIND_WORDS = {
    "raw": "simple return",
    "market_excess": "simple return less that of {benchmark}",
    "demeaned": "simple return less the equal-weight mean of the date",
    "rank": "cross-sectional rank of the simple return",
    "industry_excess": "simple return less the equal-weight mean of its industry",
}

Benchmark = str | pd.Series | xr.DataArray


def forward_return(
    bars: xr.Dataset,
    start_lag: int = 1,
    horizon: int = 1,
    *,
    price: str = "close",
    kind: str = "raw",
    benchmark: Benchmark | None = None,
) -> xr.DataArray:
    """Return the return from one price of t+start_lag to the same price horizon days later.

    ``price[t + start_lag + horizon] / price[t + start_lag] - 1``: decide after the close of t,
    trade at t+start_lag, leave `horizon` trading days later; then, if asked, less a market or a
    cross-section (see `relative_label`).

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        With the price field, adjusted, positive.
    start_lag : int
        Trading days between the date and the entry, >= 0; 1 is the T+1 rule. At least 1 for open
        and vwap, whose trades of t happen before the close of t.
    horizon : int
        Trading days held, >= 1.
    price : "close", "open" or "vwap"
        Traded at entry and exit. Without ``vwap``, amount / volume stands in: adjusted only if
        the volume is adjusted the other way, as in qlib's data.
    kind : "raw", "market_excess", "demeaned", "rank" or "industry_excess"
    benchmark : str, Series or DataArray, optional
        For "market_excess" alone; see `relative_label`.

    Returns
    -------
    DataArray, shape (date, asset), float32
        Decimal; for "rank" a number of mean about 0 and standard deviation about 1. NaN where
        either price is missing (suspension, end of the data): not observed. Attributes
        start_lag, horizon, unit (return, excess or rank), kind, price, long_name, timing, and
        benchmark and vwap where they apply.

    Raises
    ------
    PanelError
        When the bars lack what the label needs, or there are too few dates for one label.
    SpecError
        When an option is out of range or unknown.
    """
    for name, value, least in (("start_lag", start_lag, 0), ("horizon", horizon, 1)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise SpecError(f"{name} must be an integer >= {least}; got {value!r}. Count in days.")
    if price not in PRICE_FIELDS:
        raise SpecError(f"price must be one of {PRICE_FIELDS}; got {price!r}. Choose one.")
    if price != "close" and start_lag == 0:
        raise SpecError(
            f"start_lag must be >= 1 for the {price}; got 0. The {price} of t is past when the "
            "close of t is known."
        )
    _check_kind(kind, benchmark)
    traded, source = _traded_prices(bars, price)
    reach = start_lag + horizon
    if len(traded) <= reach:
        raise PanelError(
            f"dates must outnumber start_lag + horizon = {reach}; got {len(traded)}. "
            "Give a longer history."
        )
    attrs: dict[str, Any] = {
        "start_lag": int(start_lag),
        "horizon": int(horizon),
        "unit": "return",
        "kind": "raw",
        "price": price,
        "long_name": "forward return",
        **source,
    }
    attrs["timing"] = f"{_span(attrs)}; known at {_known(attrs)}"
    label = xr.DataArray(
        _earned(traded, int(start_lag), int(horizon)).astype(np.float32),
        {DATE: bars[DATE], ASSET: bars[ASSET]},
        (DATE, ASSET),
        name="forward_return",
        attrs=attrs,
    )
    return relative_label(label, bars, kind, benchmark=benchmark)


def relative_label(
    label: xr.DataArray, bars: xr.Dataset, kind: str, *, benchmark: Benchmark | None = None
) -> xr.DataArray:
    """Return a raw label less a market or a cross-section, or as its rank.

    Kept apart from `forward_return` so that labels may be masked first: one bad price would move
    the mean of its date.

    Parameters
    ----------
    label : DataArray, shape (date, asset)
        Of `forward_return` with kind "raw"; NaN counts nowhere.
    bars : Dataset, dims (date, asset)
        The bars of the label: prices of a benchmark asset, ``industry`` by (date, asset), as
        known at the close of t, or by asset.
    kind : str
        "market_excess" subtracts the benchmark's return between the same two dates, NaN where it
        has none. "demeaned" subtracts the equal-weight mean of the labels observed on the date,
        "industry_excess" that of its industry (NaN without an industry). "rank" is
        (average rank / count - 0.5) 3.46. The last three are NaN where fewer than 2 labels are
        observed. "raw" changes nothing.
    benchmark : str, Series or DataArray
        For "market_excess": an asset of the bars, or prices > 0 by date, of the same price field.

    Returns
    -------
    DataArray, shape (date, asset), float32
        With the attributes of `forward_return`.

    Raises
    ------
    PanelError
        When the benchmark or the industries are missing or break a rule.
    SpecError
        When the kind is unknown or is not given what it needs.

    Notes
    -----
    Source of the rank: CSRankNorm of qlib 0.9.7. A label of unit excess or rank has no place in
    the risk of a portfolio, which is money.
    """
    _check_kind(kind, benchmark)
    if kind == "raw":
        return label
    _check_attributes(label.attrs)
    if label.attrs["unit"] != "return":
        raise SpecError(
            f"label must be in return units to become {kind}; got {label.attrs['unit']!r}. Start "
            "from forward_return(bars) of kind 'raw'."
        )
    raw = label.transpose(DATE, ASSET).to_numpy().astype(np.float64)
    attrs = {**label.attrs, "unit": _UNIT_OF_KIND[kind], "kind": kind}
    attrs["long_name"] = f"forward return, {kind.replace('_', ' ')}"
    if benchmark is not None:  # market_excess, as checked
        price = str(label.attrs.get("price", "close"))
        prices, attrs["benchmark"] = _benchmark_prices(bars, benchmark, price)
        market = _earned(prices[:, None], label.attrs["start_lag"], label.attrs["horizon"])
        values = raw - market.astype(np.float32)  # as the label is, so that a twin gives 0
    elif kind == "rank":
        table = pd.DataFrame(raw)
        values = (table.rank(axis=1, pct=True).to_numpy() - 0.5) * RANK_SCALE
        values[table.notna().sum(axis=1).to_numpy() < 2] = np.nan
    else:
        groups = np.zeros(raw.shape, dtype=np.int64)
        values = raw - _group_means(raw, groups if kind == "demeaned" else _industries(bars))
    cells = xr.DataArray(values.astype(np.float32), label.coords, (DATE, ASSET))
    return cells.rename(label.name).assign_attrs(attrs)


def describe_label(attrs: Mapping[Any, Any]) -> str:
    """Return one line on a label for a report, from the attributes of ``forward_return``.

    Raises
    ------
    SpecError
        When start_lag, horizon or unit is missing or unknown.
    """
    _check_attributes(attrs)
    kind = attrs.get("kind")
    words = _KIND_WORDS[kind] if kind in _KIND_WORDS else _UNIT_WORDS[attrs["unit"]]
    words = words.format(benchmark=attrs.get("benchmark", "a benchmark"))
    decimal = "" if attrs["unit"] == "rank" else ", decimal"
    return f"{words} {_span(attrs)}{decimal}, known at {_known(attrs)}"


def timeline(attrs: Mapping[Any, Any]) -> str:
    """Return a small diagram of a label: when it is forecast, entered and left.

    ::

        t             t+1           t+2
        |-------------|=============|
        close         close         close
        forecast      entry         exit, label known

    Parameters
    ----------
    attrs : mapping
        Attributes of ``forward_return``.

    Raises
    ------
    SpecError
        When start_lag, horizon or unit is missing or unknown.
    """
    _check_attributes(attrs)
    start, price = int(attrs["start_lag"]), str(attrs.get("price", "close"))
    end = start + int(attrs["horizon"])
    if start:
        stops = [("t", "close", "forecast"), (f"t+{start}", price, "entry")]
    else:
        stops = [("t", price, "forecast, entry")]
    stops.append((f"t+{end}", price, "exit, label known"))
    width = max(14, *(len(text) + 2 for stop in stops[:-1] for text in stop))
    marks = ["|" + "-" * (width - 1)] if start else []
    line = "".join([*marks, "|" + "=" * (width - 1), "|"])
    rows = ["".join(f"{stop[row]:<{width}}" for stop in stops).rstrip() for row in range(3)]
    return "\n".join([rows[0], line, *rows[1:]])


def _check_attributes(attrs: Mapping[Any, Any]) -> None:
    missing = [name for name in ("start_lag", "horizon", "unit") if name not in attrs]
    if missing or attrs["unit"] not in _UNIT_WORDS:
        raise SpecError(
            f"label attributes must have start_lag, horizon and a unit of {UNITS}; got "
            f"{dict(attrs)!r}. Use the attributes of panel['forward_return']."
        )


def _check_kind(kind: str, benchmark: Benchmark | None) -> None:
    if kind not in KINDS:
        raise SpecError(f"kind of label must be one of {KINDS}; got {kind!r}. Choose one.")
    if (kind == "market_excess") != (benchmark is not None):
        given = "none" if benchmark is None else "one"
        raise SpecError(
            f"benchmark must be given for kind 'market_excess' and for no other; got {given} for "
            f"{kind!r}. Name an asset of the bars or give prices by date."
        )


def _traded_prices(bars: xr.Dataset, price: str) -> tuple[np.ndarray, dict[str, str]]:
    """Return the prices of entry and exit (date, asset), and an attribute on their source."""
    if price == "vwap" and "vwap" not in bars and {"amount", "volume"} <= set(bars.data_vars):
        amount, volume = (_field(bars, name) for name in ("amount", "volume"))
        traded = (amount > 0) & (volume > 0)
        ratio = np.where(traded, amount, np.nan) / np.where(traded, volume, np.nan)
        return ratio, {"vwap": "amount / volume"}
    return _field(bars, price), {"vwap": "as given"} if price == "vwap" else {}


def _field(bars: xr.Dataset, name: str) -> np.ndarray:
    if name not in bars or set(bars[name].dims) != {DATE, ASSET}:
        also = ", or amount and volume" if name == "vwap" else ""
        raise PanelError(
            f"bars must have dims date and asset and a variable {name}{also}; got dims "
            f"{tuple(bars.sizes)} and variables {sorted(map(str, bars.data_vars))}. "
            "Make them with read_prices."
        )
    return bars[name].transpose(DATE, ASSET).to_numpy().astype(np.float64)


def _earned(prices: np.ndarray, start_lag: int, horizon: int) -> np.ndarray:
    """Return simple returns (date, ...) between two rows, NaN where they are not observed."""
    reach = start_lag + horizon
    earned = np.full(prices.shape, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = prices[reach:] / prices[start_lag : len(prices) - horizon] - 1
    earned[: len(prices) - reach] = np.where(np.isfinite(ratio), ratio, np.nan)
    return earned


def _benchmark_prices(bars: xr.Dataset, benchmark: Benchmark, price: str) -> tuple[np.ndarray, str]:
    """Return a benchmark's prices on the dates of the bars, NaN where it has none, and its name."""
    if isinstance(benchmark, str):
        codes = canonical_symbols(bars[ASSET].to_numpy().astype(str))
        found = np.flatnonzero(codes == canonical_symbol(benchmark))
        if not found.size:
            raise PanelError(
                f"benchmark must be an asset of the bars; got {benchmark!r} among "
                f"{name_places(bars[ASSET].to_numpy())}. Give its prices by date instead."
            )
        return _traded_prices(bars, price)[0][:, found[0]], benchmark
    if not isinstance(benchmark, pd.Series | xr.DataArray):
        raise SpecError(
            f"benchmark must be the name of an asset, a Series or a DataArray of prices by date; "
            f"got {type(benchmark).__name__}. Take one column, or name an asset."
        )
    series = benchmark.to_series() if isinstance(benchmark, xr.DataArray) else benchmark
    if series.index.nlevels > 1 or not pd.api.types.is_datetime64_any_dtype(series.index.dtype):
        raise PanelError(
            f"benchmark must hold prices by date; got an index of {series.index.dtype}. Use a "
            "Series over dates."
        )
    try:
        series = series.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise PanelError(f"benchmark must hold numbers; got {error}. Convert them.") from error
    if isinstance(series.index, pd.DatetimeIndex) and series.index.tz is not None:
        raise PanelError(
            f"benchmark must have dates without a time zone; got {series.index.tz}. Say "
            "series.tz_localize(None) where its dates are local ones."
        )
    places: list[object] = list(series.index[series.index.duplicated() | (series <= 0)])
    if places:
        raise PanelError(
            f"benchmark must have one price > 0 a date; got repeated dates or prices <= 0 at "
            f"{name_places(places)}. Give prices, not returns, one a date."
        )
    aligned = series.reindex(pd.DatetimeIndex(bars[DATE].to_numpy())).to_numpy()
    if not np.isfinite(aligned).any():
        raise PanelError(
            "benchmark must have prices on dates of the bars; got none in common. Check its "
            "dates and their time zone."
        )
    return aligned, str(series.name) if series.name is not None else "the benchmark"


def _industries(bars: xr.Dataset) -> np.ndarray:
    """Return industry codes (date, asset), -1 for none."""
    if "industry" not in bars or set(bars["industry"].dims) not in ({ASSET}, {DATE, ASSET}):
        raise PanelError(
            "industry_excess must have a variable industry of dims (date, asset) or (asset) in "
            f"the bars; got variables {sorted(map(str, bars.data_vars))}. Add it."
        )
    shape = (bars.sizes[DATE], bars.sizes[ASSET])
    industry = bars["industry"]
    named = (industry.transpose(DATE, ASSET) if industry.ndim == 2 else industry).to_numpy()
    codes, names = pd.factorize(named.ravel())
    blank = np.flatnonzero(np.array([name == "" for name in names], dtype=bool))
    codes[np.isin(codes, blank)] = -1
    return np.broadcast_to(codes.reshape(named.shape), shape)


def _group_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the mean of each cell's group on its date (date, asset), NaN for fewer than 2."""
    n_groups = max(int(groups.max()) + 1, 1)
    counted = np.isfinite(values) & (groups >= 0)
    cells = np.arange(len(values))[:, None] * n_groups + groups
    size = len(values) * n_groups
    counts = np.bincount(cells[counted], minlength=size)
    totals = np.bincount(cells[counted], weights=values[counted], minlength=size)
    means = np.where(counts > 1, totals / np.maximum(counts, 1), np.nan)
    return np.where(counted, means[np.where(counted, cells, 0)], np.nan)


def _span(attrs: Mapping[Any, Any]) -> str:
    start, price = int(attrs["start_lag"]), attrs.get("price", "close")
    entry = f"t+{start}" if start else "t"
    return f"from the {price} of {entry} to the {price} of t+{start + int(attrs['horizon'])}"


def _known(attrs: Mapping[Any, Any]) -> str:
    """Return when the label is realised; an average price is known once the day is over."""
    moment = "open" if attrs.get("price") == "open" else "close"
    return f"the {moment} of t+{int(attrs['start_lag']) + int(attrs['horizon'])}"
