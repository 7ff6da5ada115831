"""The detectors of the inspection: bars in, the cells that break each rule out; nothing changes."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfi_pyro.data.checks.price_jumps import sort_moves
from nfi_pyro.dims import ASSET, DATE

PRICES = ("open", "high", "low", "close", "vwap")
NOT_NEGATIVE = ("volume", "amount", "turnover", "market_cap", "float_shares")
ROUNDING = 1e-5
"""Relative slack of comparisons within a bar: adjusted prices are stored in single precision."""
STALE_BARS, STALE_CLOSES = 5, 10
LONGEST_STEP = 12
"""Days without any bar; the longest holidays of the mainland exchanges are shorter."""
FEWEST_CONSTANT = 10
FEWEST_ASSETS, LEAST_ENDED = 50, 0.002
_YEAR = np.timedelta64(365, "D")


@dataclass(frozen=True)
class Hits:
    """The cases of one rule, worst first.

    Attributes
    ----------
    rule : str
        Id of the rule.
    row, column : array of int, shape (n,)
        Date and asset by place, -1 where the case is about no single one.
    value : array, shape (n,)
        What was found: a price, a return, a length in bars, a number of assets or days; NaN where
        there is no number.
    field : str or array of str, shape (n,)
        The variable concerned, or for dates what is wrong with them; "" for whole bars.
    mask : bool array (date, asset), optional
        What ``mask`` empties, where that is more than the cells themselves.
    note : str
        What the ledger adds to the title of the rule.
    date : array of datetime64, shape (n,), optional
        Dates of the cases, where they are not among those of the bars.
    """

    rule: str
    row: np.ndarray
    column: np.ndarray
    value: np.ndarray
    field: str | np.ndarray = ""
    mask: np.ndarray | None = None
    note: str = ""
    date: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.row)


def find_impossible(bars: xr.Dataset) -> list[Hits]:
    """Return infinite values, prices <= 0 and negative volumes; a bar counts once, in this order.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        float64 variables.
    """
    shape = bars["close"].shape
    masks = {name: np.zeros(shape, bool) for name in ("infinite", "nonpositive_price")}
    masks["negative_volume"] = np.zeros(shape, bool)
    for name, values in number_fields(bars).items():
        masks["infinite"] |= np.isinf(values)
        if name in PRICES:
            masks["nonpositive_price"] |= values <= 0
        elif name in NOT_NEGATIVE:
            masks["negative_volume"] |= values < 0
    seen = np.zeros(shape, bool)
    hits = []
    for rule, mask in masks.items():
        hits.append(_cells(rule, mask & ~seen))
        seen |= mask
    return hits


def find_suspicious_cells(bars: xr.Dataset) -> list[Hits]:
    """Return the cells that contradict themselves, move oddly, stand still or are not there.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        float64 variables, NaN where unknown; ``suspended`` (bool) takes known suspensions out of
        the gaps and of the bars without volume.
    """
    fields = number_fields(bars)
    close, volume = fields["close"], fields.get("volume")
    hits = []
    low, high = fields.get("low"), fields.get("high")
    if low is not None and high is not None:
        hits.append(_cells("high_below_low", high < low, (high - low) / low))
        for name in ("open", "close"):
            if name in fields:
                price = fields[name]
                out = np.maximum(price / high - 1, 1 - price / low)
                outside = (out > ROUNDING) & (high >= low)
                hits.append(_cells(f"{name}_outside_bar", outside, out, name))
    moves = sort_moves(close, fields.get("open"), volume, bars[ASSET].to_numpy())
    for rule in ("scale_jump", "unadjusted_split", "adjustment_base", "jump"):
        chosen = np.flatnonzero(moves.rule == rule)
        chosen = chosen[np.argsort(-np.abs(moves.move[chosen]), kind="stable")]
        column = moves.column[chosen]
        note = f" (in {len(np.unique(column)):,} assets)"
        if rule == "jump" and len(chosen) < len(moves.rule):
            note += ", those of the rules above not counted again"
        hits.append(Hits(rule, moves.row[chosen], column, moves.move[chosen], "close", note=note))
    hits.append(_stale(fields))
    priced = np.isfinite(close)
    idle = np.zeros(close.shape, bool)
    if "suspended" in bars:
        idle = bars["suspended"].to_numpy() == 1
    if volume is not None:
        hits.append(_cells("zero_volume", priced & (volume == 0) & ~idle, field="volume"))
    return hits


def find_odd_histories(bars: xr.Dataset) -> list[Hits]:
    """Return constant fields, gaps, late starts, early ends and the hint of survivorship.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        Every asset has a close.
    """
    priced = np.isfinite(bars["close"].to_numpy())
    n = len(priced)
    first, last = span_of(priced)
    rows = np.arange(n)[:, None]
    missing = ~priced & (rows > first) & (rows < last)
    if "suspended" in bars:
        missing &= bars["suspended"].to_numpy() != 1
    gaps = missing.sum(axis=0)
    # assets with the most gaps first, by date within
    column, row = np.nonzero(missing.T)
    order = np.argsort(-gaps[column], kind="stable")
    note = f" (in {int((gaps > 0).sum()):,} assets)"
    hits = _constant(number_fields(bars), first, last)
    hits.append(
        Hits("gap", row[order], column[order], gaps[column[order]].astype(float), note=note)
    )
    for rule, day, odd in (
        ("late_listing", first, first > 0),
        ("early_end", last, last < n - 1),
    ):
        column = np.flatnonzero(odd)
        mask = np.broadcast_to(odd, priced.shape)
        hits.append(Hits(rule, day[column], column, np.full(len(column), np.nan), mask=mask))
    hits.append(_survivorship(bars[DATE].to_numpy(), last, n))
    return hits


def find_odd_dates(bars: xr.Dataset, calendar: np.ndarray | None) -> Hits:
    """Return trading days that the bars lack, and dates that look like no trading day.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
    calendar : array of datetime64, optional
        Trading days, sorted. Without it: weekends, steps of more than 12 days, and dates on which
        less than half as many assets have a close as on either neighbouring date.
    """
    dates = bars[DATE].to_numpy()
    priced = np.isfinite(bars["close"].to_numpy()).sum(axis=1)
    found: list[tuple[str, np.ndarray, np.ndarray]] = []  # what, dates, values
    if calendar is not None:
        within = calendar[(calendar >= dates[0]) & (calendar <= dates[-1])]
        lacking = np.setdiff1d(within, dates)
        foreign = np.flatnonzero(~np.isin(dates, calendar))
        found.append(("not in the prices", lacking, np.zeros(len(lacking))))
        found.append(("not in the calendar", dates[foreign], priced[foreign].astype(float)))
    else:
        weekend = np.flatnonzero(~np.is_busday(dates.astype("datetime64[D]")))
        steps = np.diff(dates) / np.timedelta64(1, "D")
        long = np.flatnonzero(steps > LONGEST_STEP)
        thin = np.zeros(len(dates), bool)
        thin[1:-1] = (2 * priced[1:-1] < priced[:-2]) & (2 * priced[1:-1] < priced[2:])
        found.append(("long step before", dates[long + 1], steps[long]))
        found.append(("few assets", dates[thin], priced[thin].astype(float)))
        found.append(("weekend", dates[weekend], priced[weekend].astype(float)))
    date = np.concatenate([days for _, days, _ in found]).astype(dates.dtype)
    field = np.concatenate([np.full(len(days), what, dtype=object) for what, days, _ in found])
    value = np.concatenate([values for _, _, values in found])
    # a missing trading day and a long step have nothing to empty
    bad = date[np.isin(field, ["not in the calendar", "few assets", "weekend"])]
    mask = np.broadcast_to(np.isin(dates, bad)[:, None], bars["close"].shape)
    row = np.where(np.isin(date, dates), np.searchsorted(dates, date), -1)
    none = np.full(len(date), -1)
    return Hits("calendar_gap", row, none, value, field, mask, date=date)


def number_fields(bars: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the float variables by name, arrays (date, asset)."""
    return {
        str(name): values.transpose(DATE, ASSET).to_numpy()
        for name, values in bars.data_vars.items()
        if values.dtype.kind == "f"
    }


def span_of(priced: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last row of each column of a bool array (date, asset) that is true."""
    return priced.argmax(axis=0), len(priced) - 1 - priced[::-1].argmax(axis=0)


def _cells(rule: str, mask: np.ndarray, value: np.ndarray | None = None, field: str = "") -> Hits:
    """Return cells worst first: by size of the value, or by date where there is none."""
    row, column = np.nonzero(mask)
    found = np.full(len(row), np.nan) if value is None else value[row, column]
    if value is not None:
        order = np.argsort(-np.abs(found), kind="stable")
        row, column, found = row[order], column[order], found[order]
    return Hits(rule, row, column, found, field)


def _stale(fields: dict[str, np.ndarray]) -> Hits:
    """Return runs of unchanged bars, longest first, dated at their first bar."""
    close, volume = fields["close"], fields.get("volume")
    same = close[1:] == close[:-1]
    alike = same.copy()
    for name in ("open", "high", "low"):
        if name in fields:
            alike &= fields[name][1:] == fields[name][:-1]
    if volume is not None:
        alike &= (volume[1:] > 0) & (volume[:-1] > 0)
    whole = all(name in fields for name in ("open", "high", "low"))
    long = _runs(same, STALE_CLOSES - 1)
    if whole:
        long |= _runs(alike, STALE_BARS - 1)
    mask = np.zeros(close.shape, bool)
    mask[1:] = long
    start = mask.copy()
    start[1:] &= ~mask[:-1]
    column, row = np.nonzero(start.T)
    _, end = np.nonzero((mask & ~np.vstack([mask[1:], np.zeros_like(mask[:1])])).T)
    length = end - row + 2.0  # the first bar of the run is not marked
    order = np.argsort(-length, kind="stable")
    note = f" (in {len(np.unique(column)):,} assets)"
    return Hits("stale_price", row[order] - 1, column[order], length[order], "", mask, note)


def _runs(same: np.ndarray, least: int) -> np.ndarray:
    """Return which cells belong to runs of at least `least` true cells down a column."""
    # erosion, then dilation along the dates: whatever is shorter disappears
    n = len(same)
    if n < least:
        return np.zeros_like(same)
    total = np.vstack([np.zeros_like(same[:1], dtype=np.int32), same.cumsum(0, dtype=np.int32)])
    full = total[least:] - total[:-least] == least
    result = np.zeros_like(same)
    for offset in range(least):
        result[offset : offset + len(full)] |= full
    return result


def _constant(fields: dict[str, np.ndarray], first: np.ndarray, last: np.ndarray) -> list[Hits]:
    """Return fields that are one number over an asset's history, or over everything."""
    columns, names, values = [], [], []
    for name, cells in fields.items():
        known = np.isfinite(cells)
        low = np.where(known, cells, np.inf).min(axis=0)
        high = np.where(known, cells, -np.inf).max(axis=0)
        still = (low == high) & (known.sum(axis=0) >= FEWEST_CONSTANT)
        if still.any() and still.sum() == known.any(axis=0).sum() and np.ptp(low[still]) == 0:
            column = np.array([-1])  # one case: the whole field
        else:
            column = np.flatnonzero(still)
        columns.append(column)
        names.append(np.full(len(column), name, dtype=object))
        values.append(low[np.flatnonzero(still)][: len(column)])
    column = np.concatenate(columns)
    order = np.argsort(column >= 0, kind="stable")
    field = np.concatenate(names)[order]
    value = np.concatenate(values)[order]
    row = np.full(len(column), -1)
    return [Hits("constant_field", row, column[order], value, field)]


def _survivorship(dates: np.ndarray, last: np.ndarray, n: int) -> Hits:
    years = (dates[-1] - dates[0]) / _YEAR
    ended = int((last < n - 1).sum())
    rate = ended / len(last) / years if years > 0 else np.inf
    fires = years > 1 and len(last) >= FEWEST_ASSETS and rate < LEAST_ENDED
    none = np.full(int(fires), -1)
    note = f" ({ended:,} of {len(last):,} in {years:.1f} years)"
    return Hits("survivorship", none, none, np.full(int(fires), rate), note=note)
