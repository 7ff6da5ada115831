"""Inspection of bars: every rule looked for, its policy applied, and all of it written down."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.data.checks.bar_checks import (
    Hits,
    find_impossible,
    find_odd_dates,
    find_odd_histories,
    find_suspicious_cells,
    number_fields,
    span_of,
)
from nfi_pyro.data.checks.quality import DropLedger, Inspection
from nfi_pyro.data.checks.quality_rules import DROP, ERROR, KEEP, MASK, RULES, resolve_policies
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import MAX_PLACES, PanelError, name_places

CASE_CAP = 100_000
"""Cases of one rule that are listed; the counts are complete."""
_MOVES = ("scale_jump", "unadjusted_split", "adjustment_base", "jump")
_BY_ASSET = ("gap",)


def inspect_bars(
    bars: xr.Dataset,
    ledger: DropLedger,
    *,
    policies: Mapping[str, str] | None = None,
    calendar: Sequence[object] | pd.DatetimeIndex | None = None,
) -> Inspection:
    """Return the bars after the policies, with every case of every rule that fired.

    First the impossible (infinite values, prices <= 0, negative volumes) is looked for, then the
    rest in what the policies left of it. Unless chosen otherwise, impossible bars are masked,
    assets without any close dropped, and everything else kept and named. Nothing is ever filled.

    ``mask`` empties the whole bar of a date and asset, since a bar that contradicts itself does not
    say which number is wrong; for moves it is the bar after the move, so that no one-day return
    crosses it; for ``stale_price`` the bars after the first of a run; for rules about assets or
    dates all their bars; for ``constant_field`` that field of that asset.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        Dates and assets sorted. float64 variables, NaN where unknown; other types are left alone,
        ``suspended`` (bool) says which gaps and idle bars are known.
    ledger : DropLedger
        Findings so far.
    policies : mapping of rule id to "keep", "mask", "drop" or "error", optional
        What departs from the defaults of `RULES`; ``duplicates`` is the reader's.
    calendar : sequence of dates, optional
        Trading days of the market. Without it only weekends, long steps and dates with few assets
        are named.

    Returns
    -------
    Inspection

    Raises
    ------
    PanelError
        When a rule whose policy is ``error`` fires (all such rules in one message), fewer than two
        dates or two assets have prices, or the calendar does not parse.
    SpecError
        When a rule is unknown or does not allow the policy.
    """
    chosen = resolve_policies(policies)
    days = _days(calendar)
    done = _Record(chosen, ledger)
    missing = _missing(bars)
    bars = done.apply(bars, find_impossible(bars))
    bars = _drop_dead(bars, done)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        hits = [
            *find_suspicious_cells(bars),
            *find_odd_histories(bars),
            find_odd_dates(bars, days),
        ]
    before = int(np.isfinite(bars["close"].to_numpy()).any(axis=0).sum())
    bars = done.apply(bars, hits)
    done.refuse()
    if int(np.isfinite(bars["close"].to_numpy()).any(axis=0).sum()) < before:
        bars = _drop_dead(bars, done)
    return Inspection(bars, done.ledger, done.frame(), done.counts, missing, chosen)


class _Record:
    """Everything found so far: ledger, cases, counts, and what is an error."""

    def __init__(self, policies: Mapping[str, str], ledger: DropLedger) -> None:
        self.policies = policies
        self.ledger = ledger
        self.counts: dict[str, int] = {}
        self.errors: list[str] = []
        self._cases: list[pd.DataFrame] = []

    def apply(self, bars: xr.Dataset, found: list[Hits]) -> xr.Dataset:
        """Return bars with the cells of rules to be masked emptied; write all hits down."""
        whole = np.zeros(bars["close"].shape, bool)
        fields: dict[str, np.ndarray] = {}
        for hits in found:
            if not len(hits):
                continue
            policy = self.policies[hits.rule]
            self.write(bars, hits, "kept" if policy == KEEP else RULES[hits.rule].masked)
            if policy != MASK:
                continue
            if hits.rule == "constant_field":
                for name, column in zip(np.atleast_1d(hits.field), hits.column, strict=True):
                    empty = fields.setdefault(str(name), np.zeros_like(whole))
                    empty[:, slice(None) if column < 0 else column] = True
            elif hits.mask is not None:
                whole |= hits.mask
            else:
                whole[hits.row, hits.column] = True
        gone = {name: whole | fields.get(name, False) for name in number_fields(bars)}
        return bars.assign(
            {
                name: bars[name].where(~xr.DataArray(mask, dims=(DATE, ASSET)))
                for name, mask in gone.items()
                if mask.any()
            }
        )

    def write(self, bars: xr.Dataset, hits: Hits, action: str) -> None:
        """Add one rule's hits to the ledger and the cases, or to the errors."""
        dates, assets = bars[DATE].to_numpy(), bars[ASSET].to_numpy()
        places = _places(hits, dates, assets)
        rule = RULES[hits.rule]
        if self.policies[hits.rule] == ERROR:
            rest = f" and {len(hits) - len(places):,} more" if len(hits) > len(places) else ""
            self.errors.append(f"{rule.id}: {len(hits):,} {rule.title}: {', '.join(places)}{rest}")
        self.counts[hits.rule] = self.counts.get(hits.rule, 0) + len(hits)
        self.ledger = self.ledger.add(rule.title + hits.note, len(hits), action, places)
        n = min(len(hits), CASE_CAP)
        row, column = hits.row[:n], hits.column[:n]
        when = dates[row] if hits.date is None else hits.date[:n]
        known = (row >= 0) | (hits.date is not None)
        self._cases.append(
            pd.DataFrame(
                {
                    "rule": hits.rule,
                    "asset": np.where(column >= 0, assets[column], "").astype(object),
                    "date": np.where(known, when, np.datetime64("NaT")).astype("datetime64[ns]"),
                    "field": hits.field if isinstance(hits.field, str) else hits.field[:n],
                    "value": hits.value[:n].astype(float),
                }
            )
        )

    def refuse(self) -> None:
        """Raise one error for all rules whose policy is ``error``."""
        if self.errors:
            found = "\n".join(self.errors)
            raise PanelError(
                f"prices must keep the rules whose policy is error; got {len(self.errors)} broken "
                f"at\n{found}\nMend the data, or choose another policy for these rules."
            )

    def frame(self) -> pd.DataFrame:
        """Return all cases."""
        names = ["rule", "asset", "date", "field", "value"]
        if self._cases:
            cases = pd.concat(self._cases, ignore_index=True)
        else:
            cases = pd.DataFrame({name: np.array([], object) for name in names}).astype(
                {"date": "datetime64[ns]", "value": float}
            )
        cases.attrs["cap"] = CASE_CAP
        return cases


def _drop_dead(bars: xr.Dataset, done: _Record) -> xr.Dataset:
    """Return bars without assets that have no close; refuse what is no panel any more."""
    dead = np.flatnonzero(~np.isfinite(bars["close"].to_numpy()).any(axis=0))
    if len(dead):
        none = np.full(len(dead), -1)
        hits = Hits("dead_asset", none, dead, np.full(len(dead), np.nan))
        done.write(bars, hits, "dropped")
        if done.policies["dead_asset"] != DROP:
            done.refuse()
        bars = bars.isel({ASSET: np.setdiff1d(np.arange(bars.sizes[ASSET]), dead)})
    for dim in (DATE, ASSET):
        if bars.sizes[dim] < 2:
            names = bars[dim].to_numpy()
            places = np.datetime_as_string(names, "D") if dim == DATE else names
            raise PanelError(
                f"prices must cover at least 2 {dim}s; got {bars.sizes[dim]} at "
                f"{name_places(places)}. Give more: a cross-section over "
                f"time is priced. Left out so far: {done.ledger}"
            )
    return bars


def _places(hits: Hits, dates: np.ndarray, assets: np.ndarray) -> list[str]:
    """Return at most five places, worst first."""
    if hits.rule in _BY_ASSET:  # the cells of one asset are one place, with their number
        column, start = np.unique(hits.column, return_index=True)
        worst = column[np.argsort(start, kind="stable")][:MAX_PLACES]
        return [f"{assets[c]} ({(hits.column == c).sum():,})" for c in worst]
    places = []
    for i in range(min(len(hits), MAX_PLACES)):
        day = dates[hits.row[i]] if hits.date is None else hits.date[i]
        parts = []
        if hits.column[i] >= 0:
            parts.append(str(assets[hits.column[i]]))
        if hits.row[i] >= 0 or hits.date is not None:
            parts.append(str(np.datetime_as_string(day, "D")))
        if hits.rule in _MOVES:
            parts.append(f"({hits.value[i]:+.2f})")
        elif hits.rule == "stale_price":
            parts.append(f"({hits.value[i]:,.0f} bars)")
        elif hits.rule == "survivorship":
            parts.append(f"{hits.value[i]:.2%} a year")
        elif not isinstance(hits.field, str):
            parts.append(f"({hits.field[i]})")
        places.append(" ".join(parts))
    return places


def _missing(bars: xr.Dataset) -> xr.DataArray:
    """Return the share of cells without a value inside the histories, by field and year."""
    fields = number_fields(bars)
    priced = np.isfinite(fields["close"])
    first, last = span_of(priced)
    rows = np.arange(len(priced))[:, None]
    inside = (rows >= first) & (rows <= last) & priced.any(axis=0)
    years, place = np.unique(pd.DatetimeIndex(bars[DATE].to_numpy()).year, return_inverse=True)
    cells = np.bincount(place, inside.sum(axis=1), len(years))
    shares = np.full((len(fields), len(years)), np.nan)
    for i, values in enumerate(fields.values()):
        lacking = np.bincount(place, (inside & np.isnan(values)).sum(axis=1), len(years))
        np.divide(lacking, cells, out=shares[i], where=cells > 0)
    return xr.DataArray(
        shares,
        dims=("field", "year"),
        coords={"field": np.array(list(fields), dtype=object), "year": years},
        name="missing",
    )


def _days(calendar: Sequence[object] | pd.DatetimeIndex | None) -> np.ndarray | None:
    if calendar is None:
        return None
    try:
        days = pd.DatetimeIndex(list(calendar)).normalize().unique().sort_values()
    except (TypeError, ValueError) as error:
        raise PanelError(
            f"calendar must hold dates; got {type(calendar).__name__} ({error}). Give a sequence "
            "of dates or a DatetimeIndex."
        ) from error
    if not len(days):
        raise PanelError("calendar must hold dates; got none. Give trading days, or no calendar.")
    return days.to_numpy().astype("datetime64[ns]")
