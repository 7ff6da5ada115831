"""Sections of an attribution page on what to sell against risk, and on styles."""

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.attribution.results.contributions import SOURCE, SPECIFIC
from nfi_pyro.attribution.results.hedge import AFTER, BEFORE, REGIME, STATE, FactorHedge
from nfi_pyro.attribution.results.styles import StyleReport
from nfi_pyro.dims import DATE, FACTOR
from nfi_pyro.rendering.attribution_contents import AttributionContents
from nfi_pyro.rendering.attribution_selection import (
    BASIS_POINTS,
    MOST_LISTED,
    choose,
    common_digits,
    counted,
    findings_tables,
)
from nfi_pyro.rendering.figures.attribution_bars import Words, lane_bars
from nfi_pyro.rendering.formatting import basis_points, count, day, number, percent
from nfi_pyro.rendering.page import Drawing, Section, Table

MOST_REGIMES = 5


def hedge(contents: AttributionContents) -> Section | None:
    """Return exposures to sell on the last date, and the risk before and after."""
    found = contents.hedge
    if found is None:
        return None
    regimes = REGIME in found.hedge.dims
    last = found.standard_deviation.isel({DATE: -1})
    drawn = _regime_drawing(last) if regimes else _source_drawing(found)
    n_factors = found.hedge.sizes[FACTOR]
    kept = n_factors - len(found.hedged)
    return Section(
        "What to sell against risk",
        "Hedge",
        "hedge",
        (
            "The hedge sells factor exposures, per unit of capital, so that the variance of the "
            f"book of {day(found.exposure[DATE].values[-1])} over one label horizon is least. What "
            "is specific to assets stays.",
            _say_hedge(found),
        ),
        figures=(drawn,),
        tables=(_hedge_table(found), *((_regime_table(found),) if regimes else ())),
        notes=(
            "It takes the law's factors as given and costs nothing: whatever trades them, at what "
            "price, is not in it. It also gives up what the factors are expected to earn.",
            *((f"Not to be sold: {count(kept)} of {count(n_factors)} factors.",) if kept else ()),
            *_regime_notes(found),
        ),
    )


def _say_hedge(found: FactorHedge) -> str:
    """Return risk before and after, or the range over regimes."""
    share = found.r_squared.isel({DATE: -1})
    if REGIME in share.dims:
        low, high = float(share.min()), float(share.max())
        return f"By regime it takes off {percent(low, 1)} to {percent(high, 1)} of the variance."
    last = found.standard_deviation.isel({DATE: -1})
    before, after = (basis_points(float(last.sel({STATE: state}))) for state in (BEFORE, AFTER))
    return (
        f"The standard deviation falls from {before} to {after}: {percent(float(share), 1)} of the "
        "variance is gone."
    )


def _regime_drawing(last: xr.DataArray) -> Drawing:
    """Return the standard deviation before and after by regime."""
    table = last.transpose(REGIME, STATE)
    lanes = {state: BASIS_POINTS * table.sel({STATE: state}).values for state in (BEFORE, AFTER)}
    words = Words(
        "fig-hedge", "Bar chart of risk before and after the hedge by regime",
        "Standard deviation (bp per label horizon)", "Regime",
    )  # fmt: skip
    return Drawing(
        lane_bars([str(name) for name in table[REGIME].values], lanes, words=words),
        "Standard deviation of the book before and after the hedge, under the factors' law of each "
        "regime.",
    )


def _source_drawing(found: FactorHedge) -> Drawing:
    """Return shares of the variance by source before and after."""
    table = found.variance.isel({DATE: -1}).transpose(STATE, SOURCE)
    total = float(table.sel({STATE: BEFORE}).sum())
    shares = 100.0 * table / (total or 1.0)
    chosen = choose(table[SOURCE].values, np.abs(shares.sel({STATE: BEFORE}).values), last=SPECIFIC)
    lanes = {state: chosen.collect(shares.sel({STATE: state}).values) for state in (BEFORE, AFTER)}
    words = Words(
        "fig-hedge", "Bar chart of variance by source before and after the hedge",
        "Share of the variance before (%)", "Source",
    )  # fmt: skip
    return Drawing(
        lane_bars(chosen.names, lanes, words=words),
        "Variance by source before and after the hedge, percent of all variance before."
        + chosen.said("sources"),
    )


def _hedge_table(found: FactorHedge) -> Table:
    """Return the book's exposure and what to sell of it."""
    exposure = found.exposure.isel({DATE: -1})
    sold = found.hedge.isel({DATE: -1})
    names = exposure[FACTOR].values
    if REGIME in sold.dims:
        laws = sold.transpose(REGIME, FACTOR)
        titles = [f"Sell, {name}" for name in laws[REGIME].values[:MOST_REGIMES]]
        parts = laws.values[:MOST_REGIMES]
        more = laws.sizes[REGIME] - len(parts)
    else:
        titles, parts, more = ["Sell"], sold.values[None], 0
    order = np.argsort(-np.abs(parts).max(axis=0), kind="stable")[:MOST_LISTED]
    digits = max(common_digits(np.r_[exposure.values, parts.ravel()]), 2)
    table = np.column_stack([exposure.values, *parts])
    rows = tuple(
        (str(names[place]), *(number(value, digits, signed=True) for value in table[place]))
        for place in order
    )
    fewer = (
        f" The {len(order)} of {len(names)} with most to sell." if len(order) < len(names) else ""
    )
    rest = f" {count(more)} more regimes are in the table of risk." if more else ""
    return Table(
        "Exposure of the book per unit of capital, and how much of it to sell; a negative number "
        f"is to buy.{fewer}{rest}",
        ("Factor", "Exposure", *titles),
        rows,
    )


def _regime_table(found: FactorHedge) -> Table:
    """Return risk before and after by regime."""
    last = found.standard_deviation.isel({DATE: -1}).transpose(REGIME, STATE)
    share = found.r_squared.isel({DATE: -1})
    digits = max(common_digits(BASIS_POINTS * last.values), 1)
    rows = []
    for place, name in enumerate(last[REGIME].values):
        n_dates = "n/a" if found.n_dates is None else count(float(found.n_dates[place]))
        ends = (BASIS_POINTS * float(last[place].sel({STATE: s})) for s in (BEFORE, AFTER))
        cells = (number(end, digits) for end in ends)
        rows.append((str(name), n_dates, *cells, percent(float(share[place]), 1)))
    return Table(
        "Standard deviation of the book by regime, basis points per label horizon, and the share "
        "of the variance that the hedge takes off.",
        ("Regime", "Dates", "Before (bp)", "After (bp)", "Taken off"),
        tuple(rows),
    )


def _regime_notes(found: FactorHedge) -> tuple[str, ...]:
    """Return what limits regimes."""
    notes = []
    if REGIME in found.hedge.dims:
        notes.append(
            "A regime's law is that of all its dates, later ones too: it describes, and is no rule "
            "that could have been traded."
        )
    if found.single_date is not None and bool(found.single_date.any()):
        names = found.single_date[REGIME].values[found.single_date.values]
        notes.append(
            f"Of one date only, so that factors do not correlate: {', '.join(map(str, names))}."
        )
    if found.n_unlabelled:
        notes.append(f"In no regime, and left out: {counted(found.n_unlabelled, 'date')}.")
    return tuple(notes)


def styles(contents: AttributionContents) -> Section | None:
    """Return what the book has in common with known styles, and what could not be computed."""
    found = contents.styles
    if found is None:
        return None
    what = "signal" if found.kind == "signal" else "book"
    unit = "gross weight" if what == "signal" else "capital"
    whose = "the signal's long-short portfolio" if what == "signal" else "the book"
    known = found.table()
    known = known[known["note"] == ""]
    summary = found.summary
    return Section(
        "Known styles",
        "Styles",
        "styles",
        (
            f"How much of the {what} is known styles. By date all styles together explain "
            f"{percent(found.r_squared_mean, 1)} of its variation over assets, on average.",
            *_say_returns(found),
        ),
        figures=(
            Drawing(
                lane_bars(
                    [str(name) for name in summary[FACTOR].values],
                    {"exposure": summary["exposure_mean"].values},
                    words=Words(
                        "fig-styles", "Bar chart of exposure to styles",
                        f"Exposure (per unit of {unit})", "Style",
                    ),
                    spread=summary["exposure_sd"].values,
                ),
                f"Exposure of {whose} to each style, mean over dates; whiskers: one standard "
                "deviation over dates.",
            ),
        )
        if summary.sizes[FACTOR]
        else (),
        tables=(_style_table(known, found), *_unavailable(found), *findings_tables(found.ledger)),
        notes=(
            "Correlation: over the assets of a date with one style, mean over dates. Coefficient: "
            "per standard deviation of the book, all styles together. Neither has a t here: a book "
            "that is held and styles that are slow are much the same on all dates, which say "
            "little more than one. A style and the book may correlate and still share no cause.",
        ),
    )  # fmt: skip


def _say_returns(found: StyleReport) -> tuple[str, ...]:
    """Return what the regression over dates says, where there are returns."""
    over = found.returns
    if over is None:
        return ()
    market = "market and " if over.by_factor.sizes[FACTOR] > found.summary.sizes[FACTOR] else ""
    return (
        f"Over {counted(over.n_dates, 'date')} the returns of {market}the styles explain "
        f"{percent(over.r_squared, 1)} of the variance of its return; what they leave is "
        f"{basis_points(over.alpha, signed=True)} per label period (t "
        f"{number(over.alpha_t, 2, signed=True)}).",
    )


def _style_table(known: pd.DataFrame, found: StyleReport) -> Table:
    """Return the styles that could be computed."""
    spread = found.summary["exposure_sd"].to_series()
    known = known.assign(exposure_sd=spread.reindex(known.index))
    columns = {
        "Correlation": ("correlation", 3), "Coefficient": ("coefficient", 3),
        "Exposure": ("exposure", 3), "Sd of exposure": ("exposure_sd", 3),
    }  # fmt: skip
    if found.returns is not None:
        columns |= {
            "Return correlation": ("return_correlation", 3),
            "Return beta": ("return_beta", 3),
            "t of beta": ("return_beta_t", 2),
        }
    return Table(
        "By style, means over dates; correlations, coefficients and exposures have no unit. n/a: "
        "too few dates or assets, or a style that repeats others.",
        ("Style", *columns),
        tuple(
            (str(name), *(number(row[key], n, signed=True) for key, n in columns.values()))
            for name, row in known.iterrows()
        ),
    )  # fmt: skip


def _unavailable(found: StyleReport) -> tuple[Table, ...]:
    """Return the styles that are missing, and why."""
    if not found.unavailable:
        return ()
    rows = tuple((str(name), str(why)) for name, why in found.unavailable.items())
    return (Table("Styles that could not be computed.", ("Style", "Why"), rows, 2),)
