"""Inspection of bars: the impossible is masked, the suspicious kept, and both are written down."""

import numpy as np
import xarray as xr

from nfi_pyro.data.quality import DropLedger
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import MAX_PLACES, PanelError, name_places

JUMP = 0.4
"""One-day close moves beyond this are named: rare in markets, common in bad price adjustments."""

_PRICES = ("open", "high", "low", "close")


def inspect_bars(bars: xr.Dataset, ledger: DropLedger) -> tuple[xr.Dataset, DropLedger]:
    """Return bars without impossible cells and dead assets, and the ledger with what was found.

    Masked, the whole bar of that date and asset: prices <= 0, volumes or amounts < 0, infinite
    values. Dropped: assets without any close. Kept and named: high below low, one-day moves beyond
    `JUMP`, gaps, late starts and early ends.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        float64 variables among open, high, low, close, volume, amount.
    ledger : DropLedger
        Findings so far.

    Raises
    ------
    PanelError
        When fewer than two dates or two assets have prices.
    """
    bars, ledger = _masked(bars, ledger)
    assets = bars[ASSET].to_numpy()
    dead = ~np.isfinite(bars["close"].to_numpy()).any(axis=0)
    ledger = ledger.add("assets without any close", int(dead.sum()), "dropped", assets[dead])
    if dead.any():
        bars = bars.isel({ASSET: np.flatnonzero(~dead)})
    for dim in (DATE, ASSET):
        if bars.sizes[dim] < 2:
            names = bars[dim].to_numpy()
            places = np.datetime_as_string(names, "D") if dim == DATE else names
            raise PanelError(
                f"prices must cover at least 2 {dim}s; got {bars.sizes[dim]} at "
                f"{name_places(places)}. Give more: a cross-section over "
                f"time is priced. Left out so far: {ledger}"
            )
    return bars, _suspicions(bars, ledger)


def _masked(bars: xr.Dataset, ledger: DropLedger) -> tuple[xr.Dataset, DropLedger]:
    shape = bars["close"].shape
    negative, infinite, sold = (np.zeros(shape, dtype=bool) for _ in range(3))
    for name in map(str, bars.data_vars):
        values = bars[name].to_numpy()
        infinite |= np.isinf(values)
        if name in _PRICES:
            negative |= values <= 0
        else:
            sold |= values < 0
    negative &= ~infinite
    sold &= ~infinite & ~negative
    for rule, mask in (
        ("bars with an infinite value", infinite),
        ("bars with a price <= 0", negative),
        ("bars with a volume or amount < 0", sold),
    ):
        ledger = ledger.add(rule, int(mask.sum()), "bar masked", _first_cells(bars, mask))
    bad = infinite | negative | sold
    if bad.any():
        bars = bars.where(~xr.DataArray(bad, dims=(DATE, ASSET)))
    return bars, ledger


def _suspicions(bars: xr.Dataset, ledger: DropLedger) -> DropLedger:
    """Return the ledger with what looks wrong but is kept."""
    if "high" in bars and "low" in bars:
        crossed = (bars["high"] < bars["low"]).to_numpy()
        ledger = ledger.add(
            "bars whose high is below their low",
            int(crossed.sum()),
            "kept",
            _first_cells(bars, crossed),
        )
    close = bars["close"].to_numpy()
    move = close[1:] / close[:-1] - 1
    jumps = np.argwhere(np.abs(move) > JUMP)
    order = np.argsort(-np.abs(move[tuple(jumps.T)]), kind="stable")[:MAX_PLACES]
    dates, assets = bars[DATE].to_numpy(), bars[ASSET].to_numpy()
    places = [
        f"{assets[column]} {np.datetime_as_string(dates[row + 1], 'D')} ({move[row, column]:+.2f})"
        for row, column in jumps[order]
    ]
    names = len(np.unique(jumps[:, 1]))
    ledger = ledger.add(
        f"one-day close moves beyond +-{JUMP:.0%} (in {names:,} assets)", len(jumps), "kept", places
    )
    priced = np.isfinite(close)
    first, last = priced.argmax(axis=0), len(close) - 1 - priced[::-1].argmax(axis=0)
    rows = np.arange(len(close))[:, None]
    gaps = (~priced & (rows > first) & (rows < last)).sum(axis=0)
    ledger = ledger.add(
        f"cells without a close inside a history (in {int((gaps > 0).sum()):,} assets)",
        int(gaps.sum()),
        "kept",
        [
            f"{assets[place]} ({gaps[place]:,})"
            for place in np.argsort(-gaps, kind="stable")[:5]
            if gaps[place]
        ],
    )
    for rule, day, odd in (
        ("assets that start after the first date", first, first > 0),
        ("assets that end before the last date", last, last < len(close) - 1),
    ):
        shown = np.flatnonzero(odd)[:MAX_PLACES]
        named = [
            f"{assets[place]} {np.datetime_as_string(dates[day[place]], 'D')}" for place in shown
        ]
        ledger = ledger.add(rule, int(odd.sum()), "kept", named)
    return ledger


def _first_cells(bars: xr.Dataset, mask: np.ndarray) -> list[str]:
    dates, assets = bars[DATE].to_numpy(), bars[ASSET].to_numpy()
    return [
        f"{assets[column]} {np.datetime_as_string(dates[row], 'D')}"
        for row, column in np.argwhere(mask)[:MAX_PLACES]
    ]
