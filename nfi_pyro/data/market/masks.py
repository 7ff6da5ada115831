"""Trading masks known at the close: listed, suspended, at a price limit, special treatment.

Every mask of date t is a function of bars up to and including t: bars appended later never change
it. What cannot be known at t, such as whether a gap in the prices is a delisting, is not used.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.data.market.price_limits import (
    PriceLimitTable,
    limit_cents,
    read_price_limits,
    round_to_cents,
)
from nfi_pyro.data.sources.symbols import canonical_symbols
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import PanelError, SpecError, name_places

PRICES = ("adjusted", "raw")
TIMING = "known at the close of t"
APPROXIMATE_TOLERANCE = 0.0025  # half a cent on a price of 2: what rounding to cents may take
AGE_UNKNOWN = 1_000_000  # listed before the data begin: old enough for every rule
_SAME_PRICE = 1e-6  # relative; prices are stored in single precision


@dataclass(frozen=True)
class _Limits:
    """Limits in basis points (date, asset), 0 for none, and how many assets have no board."""

    up: np.ndarray
    down: np.ndarray
    without_board: int


@dataclass(frozen=True)
class _Hits:
    """Which closes lie at a limit (date, asset), how that was found, and cells left unchecked."""

    up: np.ndarray
    down: np.ndarray
    one_price: np.ndarray
    method: str
    unchecked: int


def trading_masks(
    bars: xr.Dataset,
    *,
    limits: PriceLimitTable | None = None,
    prices: str = "adjusted",
    listing_dates: pd.Series | None = None,
) -> xr.Dataset:
    """Return who is listed, suspended, at a price limit or under special treatment, and when.

    Limit prices are exact where raw prices are known: the reference is the last close before t
    in today's adjustment, ``close[t-1] / factor[t]``, in whole cents as the exchange publishes it;
    the limit is ``reference (1 + share)`` in whole cents, halves upwards; the close hits it when
    it lies within half a cent. Without a factor, adjusted closes hit approximately: the return
    reaches the share less 0.0025, or goes beyond it, and the close is the day's high (limit-down:
    low) where known; what goes far beyond is a bad price, at which nobody should trade either.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        With ``close``; optional open, high, low, volume, ``factor`` (adjusted price / raw price)
        and the flags ``suspended`` and ``st`` (bool).
    limits : PriceLimitTable, optional
        Default: the built-in A-share rules. Symbols without a board have no limits.
    prices : "adjusted" or "raw"
        What the price fields are. Raw prices without a factor count as unadjusted throughout:
        the reference is wrong on ex-dates.
    listing_dates : Series of dates by asset (any spelling of its code), optional
        Where an asset has none, it was listed at its first close, or long ago when that is on
        the first date of the bars. Other assets' dates are ignored. Days between a listing and
        an earlier start of the bars are counted as weekdays.

    Returns
    -------
    Dataset of bool, dims (date, asset), never missing, known at the close of t
        ``listed``: a close has been seen up to t (a delisted asset stays listed, as it cannot be
        told from a suspended one); ``suspended``: listed, but no close, a volume of 0, or
        flagged; ``limit_up`` and ``limit_down``: the close lies at the limit; ``one_price``:
        open, high, low and close all lie at one limit; ``st`` when given. Attributes long_name,
        timing, method; those of limits also special_treatment, without_board (assets) and
        unchecked (cells whose factor is missing).

    Raises
    ------
    PanelError
        When there is no close, a flag is not bool, or a listing date lies after a close.
    SpecError
        When `prices` is unknown, or `limits` or `listing_dates` is of another type.

    Notes
    -----
    Source: trading rules of SSE, SZSE and BSE. The first day of a new listing has no previous
    close and is never at a limit; nor are the days without a limit that follow. An asset without
    an ``st`` flag counts as not under special treatment.
    """
    if prices not in PRICES:
        raise SpecError(f"prices must be one of {PRICES}; got {prices!r}. Say what the bars hold.")
    close = field(bars, "close")
    if close is None:
        raise PanelError(
            f"bars must have a variable close of dims date and asset; got variables "
            f"{sorted(map(str, bars.data_vars))}. Make them with read_prices."
        )
    known = np.isfinite(close)
    listed = np.logical_or.accumulate(known, axis=0)
    suspended, how = _suspended(bars, listed, known)
    special = flag(bars, "st")
    age, listing = listing_age(bars, listing_dates)
    table = read_price_limits() if limits is None else limits
    if not isinstance(table, PriceLimitTable):
        raise SpecError(
            f"limits must be a PriceLimitTable; got {type(table).__name__}. Make one with "
            "read_price_limits."
        )
    shares = _shares(table, bars, special, age, listing)
    hits = _hits(bars, close, shares, prices)
    about = {
        "special_treatment": "as given by st" if special is not None else "not given: none assumed",
        "without_board": shares.without_board,
        "unchecked": hits.unchecked,
    }
    masks = {
        "listed": (listed, "listed", "a close has been seen", {}),
        "suspended": (suspended, "suspended", how, {}),
        "limit_up": (hits.up, "close at the upper price limit", hits.method, about),
        "limit_down": (hits.down, "close at the lower price limit", hits.method, about),
        "one_price": (hits.one_price, "whole day at one price limit", hits.method, about),
    }
    if special is not None:
        masks["st"] = (special, "special treatment", "as given", {})
    coords = {DATE: bars[DATE], ASSET: bars[ASSET]}
    return xr.Dataset(
        {
            name: xr.DataArray(
                cells,
                coords,
                (DATE, ASSET),
                attrs={"long_name": long_name, "timing": TIMING, "method": method, **more},
            )
            for name, (cells, long_name, method, more) in masks.items()
        }
    )


def field(bars: xr.Dataset, name: str) -> np.ndarray | None:
    """Return a variable of some bars (date, asset) as float64; None where they lack it.

    Raises
    ------
    PanelError
        When its dims are not date and asset, or a value is no number.
    """
    if name not in bars:
        return None
    if set(bars[name].dims) != {DATE, ASSET}:
        raise PanelError(
            f"{name} must have dims date and asset; got {bars[name].dims}. Give one value a cell."
        )
    values = bars[name].transpose(DATE, ASSET).to_numpy()
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise PanelError(f"{name} must hold numbers; got {error}. Convert the values.") from error


def flag(bars: xr.Dataset, name: str) -> np.ndarray | None:
    """Return a flag of some bars (date, asset) as bool; None where they lack it.

    Raises
    ------
    PanelError
        When its dims are not date and asset (a flag without a date is hindsight), or a value is
        neither true nor false.
    """
    values = field(bars, name)
    if values is None:
        return None
    strange = ~np.isin(values, (0.0, 1.0))
    if strange.any():
        row, column = np.argwhere(strange)[0]
        place = f"{bars[ASSET].to_numpy()[column]} {_day(bars[DATE].to_numpy()[row])}"
        raise PanelError(
            f"{name} must be true or false; got {int(strange.sum())} other values, the first at "
            f"{place}. Decide what a missing flag means, then fill it."
        )
    return values == 1.0


def listing_age(
    bars: xr.Dataset, listing_dates: pd.Series | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return trading days since the listing, and the day of the listing.

    Parameters
    ----------
    bars, listing_dates
        See `trading_masks`.

    Returns
    -------
    age : ndarray of int64, shape (date, asset)
        0 on the first day, -1 before it, `AGE_UNKNOWN` (a million) or more for an asset that
        was listed before the bars begin, at a date that is not given. Known at the close of t.
    listing : ndarray of datetime64, shape (asset,)
        NaT where it is not known, or there is no close at all.

    Raises
    ------
    PanelError
        When a listing date does not parse or lies after a close of its asset.
    """
    dates = bars[DATE].to_numpy().astype("datetime64[D]")
    assets = bars[ASSET].to_numpy()
    close = field(bars, "close")
    known = np.isfinite(close) if close is not None else np.zeros((len(dates), len(assets)), bool)
    seen, first = known.any(axis=0), known.argmax(axis=0)
    start = np.where(seen, first, len(dates)).astype(np.int64)
    listing = np.where(seen, dates[np.minimum(first, len(dates) - 1)], np.datetime64("NaT", "D"))
    unknown = seen & (first == 0)
    listing[unknown] = np.datetime64("NaT", "D")
    start[unknown] = -AGE_UNKNOWN
    if listing_dates is not None:
        given = _listing_days(listing_dates, assets)
        late = seen & (given > dates[np.minimum(first, len(dates) - 1)])
        if late.any():
            raise PanelError(
                "a listing date must not lie after a close of its asset; got later ones at "
                f"{name_places(assets[late])}. Correct the dates, or leave them out."
            )
        stated = ~np.isnat(given)
        before = stated & (given < dates[0])
        listing[stated] = given[stated]
        start[stated] = np.searchsorted(dates, given[stated])
        start[before] = -np.busday_count(given[before], dates[0])
    age = np.arange(len(dates), dtype=np.int64)[:, None] - start
    return np.maximum(age, -1), listing


def _listing_days(listing_dates: pd.Series, assets: np.ndarray) -> np.ndarray:
    if not isinstance(listing_dates, pd.Series):
        raise SpecError(
            f"listing_dates must be a Series of dates by asset; got "
            f"{type(listing_dates).__name__}. Wrap them: pandas.Series(dates, index=assets)."
        )
    names = pd.Index(canonical_symbols(listing_dates.index.astype(str)))
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        raise PanelError(
            f"listing_dates must name an asset once; got several at {name_places(twice)}. Keep one."
        )
    wanted = canonical_symbols(assets.astype(str))
    named = listing_dates.set_axis(names)[names.isin(wanted)]
    days, bad = parse_days(named)
    if bad.any():
        places = [f"{name} ({value!r})" for name, value in named[bad].items()]
        raise PanelError(
            f"listing_dates must be dates; got others at {name_places(places)}. Use YYYY-MM-DD."
        )
    return days.reindex(wanted).to_numpy().astype("datetime64[D]")


def parse_days(values: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return the days of some dates, texts or integers YYYYMMDD, and which values are none.

    Empty values are NaT and not among the latter; zones and times of day are dropped.
    """
    blank = values.isna() | (values.astype("object").astype(str).str.strip() == "")
    # As text, because an integer 20240102 would be read as nanoseconds since 1970.
    texts = values.astype("object").astype(str).str.strip()
    texts = texts.str.replace(r"^(\d{8})\.0$", r"\1", regex=True)  # an integer beside empty cells
    texts = texts.str.replace(r"(:\d\d(?:\.\d+)?)(?:Z|[+-]\d\d:?\d\d)$", r"\1", regex=True)
    texts = texts.where(~blank & (texts.str.len() >= 8))  # a bare year or a month is no day
    days = pd.to_datetime(texts, format="ISO8601", errors="coerce").dt.normalize()
    return days, days.isna() & ~blank


def _suspended(bars: xr.Dataset, listed: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, str]:
    """Return who does not trade though listed, and by which signs."""
    still, signs = ~known, ["no close"]
    volume = field(bars, "volume")
    if volume is not None:
        still = still | (volume == 0)
        signs.append("volume 0")
    given = flag(bars, "suspended")
    if given is not None:
        still = still | given
        signs.append("flagged")
    return listed & still, "listed and " + " or ".join(signs)


def _shares(
    table: PriceLimitTable,
    bars: xr.Dataset,
    special: np.ndarray | None,
    age: np.ndarray,
    listing: np.ndarray,
) -> _Limits:
    """Return the limits in force by cell: by the date, and by the day of listing where free."""
    days = bars[DATE].to_numpy().astype("datetime64[D]")
    names = np.array([table.board(str(a)) or "" for a in bars[ASSET].to_numpy()], dtype=object)
    shape = (len(days), len(names))
    up, down = np.zeros(shape, dtype=np.int16), np.zeros(shape, dtype=np.int16)
    for rule in table.rules:
        first, stop = np.searchsorted(days, rule.first), np.searchsorted(days, rule.last, "right")
        cells = np.ix_(np.arange(first, stop), np.flatnonzero(names == rule.board))
        treated = False if special is None else special[cells]
        up[cells] = np.where(treated, rule.special_treatment, rule.up)
        down[cells] = np.where(treated, -rule.special_treatment, -rule.down)
    for rule in table.rules:
        within = (listing >= rule.first) & (listing <= rule.last)
        new = np.flatnonzero((names == rule.board) & within)
        free = age[:, new] < rule.days_without_limit
        up[:, new] = np.where(free, 0, up[:, new])
        down[:, new] = np.where(free, 0, down[:, new])
    return _Limits(up, down, int((names == "").sum()))


def _hits(bars: xr.Dataset, close: np.ndarray, shares: _Limits, prices: str) -> _Hits:
    """Return which closes lie at their limit."""
    factor = field(bars, "factor")
    if factor is None and prices == "adjusted":
        return _approximate_hits(bars, close, shares)
    if factor is None:
        factor, method = np.ones_like(close), "exact, raw prices without a factor: not on ex-dates"
    else:
        factor, method = np.where(factor > 0, factor, np.nan), "exact"
    to_raw = 1.0 if prices == "raw" else 1.0 / factor
    adjusted = close * factor if prices == "raw" else close
    reference = round_to_cents(_previous(np.where(np.isfinite(factor), adjusted, np.nan)) / factor)
    fields = [field(bars, name) for name in ("open", "high", "low")]
    at_limit = []
    for points in (shares.up, shares.down):
        limit = np.where((points != 0) & (reference > 0), limit_cents(reference, points), -1000)
        hit = np.abs(close * to_raw * 100 - limit) < 0.5
        whole = hit & all(values is not None for values in fields)
        for values in fields:
            if values is not None:
                whole = whole & (np.abs(values * to_raw * 100 - limit) < 0.5)
        at_limit.append((hit, whole))
    (up, all_up), (down, all_down) = at_limit
    unchecked = int((np.isfinite(close) & ~np.isfinite(factor) & (shares.up != 0)).sum())
    return _Hits(up, down, all_up | all_down, method, unchecked)


def _approximate_hits(bars: xr.Dataset, close: np.ndarray, shares: _Limits) -> _Hits:
    """Return hits judged by returns of adjusted prices, whose cents are not known."""
    before = _previous(np.where(close > 0, close, np.nan))
    earned = close / before - 1.0
    opened, high, low = (field(bars, name) for name in ("open", "high", "low"))
    up = (shares.up > 0) & (earned >= shares.up / 1e4 - APPROXIMATE_TOLERANCE)
    down = (shares.down < 0) & (earned <= shares.down / 1e4 + APPROXIMATE_TOLERANCE)
    if high is not None:
        up = up & ~(close < high * (1 - _SAME_PRICE))
    if low is not None:
        down = down & ~(close > low * (1 + _SAME_PRICE))
    one_price = np.zeros(close.shape, dtype=bool)
    if opened is not None and high is not None and low is not None:
        same = [np.abs(values - close) <= _SAME_PRICE * close for values in (opened, high, low)]
        one_price = (up | down) & np.logical_and.reduce(same)
    return _Hits(up, down, one_price, "approximate, no factor", 0)


def _previous(values: np.ndarray) -> np.ndarray:
    """Return the last known value strictly before each row, NaN where there is none."""
    rows = np.where(np.isfinite(values), np.arange(len(values))[:, None], -1)
    last = np.maximum.accumulate(rows, axis=0)
    before = np.vstack([np.full((1, values.shape[1]), -1), last[:-1]])
    found = np.take_along_axis(values, np.maximum(before, 0), axis=0)
    return np.where(before >= 0, found, np.nan)


def _day(value: np.datetime64) -> str:
    return np.datetime_as_string(value.astype("datetime64[D]"))
