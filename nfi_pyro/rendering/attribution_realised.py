"""Sections of an attribution page on what was earned: by factor over the span, and by group."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from nfi_pyro.attribution.results.brinson import EFFECT, GROUP
from nfi_pyro.attribution.results.realised import PART, RealisedAttribution
from nfi_pyro.dims import CHAIN, DATE, FACTOR
from nfi_pyro.rendering.attribution_contents import AttributionContents
from nfi_pyro.rendering.attribution_selection import (
    BASIS_POINTS,
    MOST_LISTED,
    NONE,
    Chosen,
    choose,
    common_digits,
    counted,
    findings_tables,
    interval_over_draws,
    mean_and_most,
    mean_over_draws,
    over_fits,
)
from nfi_pyro.rendering.figures.attribution_bars import Words, lane_bars
from nfi_pyro.rendering.figures.attribution_lines import running_lines
from nfi_pyro.rendering.formatting import count, day, interval, number, percent
from nfi_pyro.rendering.page import Drawing, Section, Table

MOST_LINES = 6


def realised(contents: AttributionContents) -> Section | None:
    """Return what the book earned over the span, in parts that add up to it."""
    found = contents.realised
    if found is None:
        return None
    comparable = found.comparable or CHAIN not in found.parts.dims
    linked = found.linked
    by_date = over_fits(found.parts if linked is None else linked.by_date, comparable=comparable)
    parts = by_date.transpose(PART, DATE).values
    whole = parts.sum(axis=1)
    chosen = choose(found.parts[PART].values, np.abs(whole), most=MOST_LINES)
    how = (
        f"Parts of single dates are linked ({linked.method}) so that they add up to the compound "
        "return; a date's linked part depends on all dates."
        if linked is not None
        else "Parts of single dates are added up without compounding."
    )
    return Section(
        "What the book earned",
        "Realised return",
        "realised",
        (
            _say_total(found, float(whole.sum())),
            f"How it was split: {found.method}. {how}",
            *_say_books(found),
        ),
        figures=(
            Drawing(
                running_lines(found.dates, chosen.names, chosen.collect(parts)),
                "Running sums of the parts by signal date, percent of capital; a date's return is "
                "earned after it." + chosen.said("parts"),
            ),
        ),
        tables=(
            _realised_table(found, whole, comparable=comparable),
            *findings_tables(found.ledger),
        ),
        notes=_realised_notes(found, comparable=comparable),
    )


def _say_total(found: RealisedAttribution, total: float) -> str:
    """Return the span's return."""
    dates = found.dates
    kind = "compound" if found.linked is not None else "summed"
    return (
        f"Over {counted(len(dates), 'signal date')} from {day(dates[0])} to {day(dates[-1])} the "
        f"book earned {percent(total, 2, signed=True)}, {kind}. A return starts "
        f"{counted(found.start_lag, 'trading day')} after its signal and lasts "
        f"{count(found.horizon)}."
    )


def _say_books(found: RealisedAttribution) -> tuple[str, ...]:
    """Return what of the book was not observed or has no law, where there is any."""
    texts = []
    mean, most = mean_and_most(found.books["unobserved_share"])
    if most > 0.0:
        texts.append(
            f"Returns of {percent(mean)} of the absolute weight on average, {percent(most)} at "
            "most, were not observed; the other weights were scaled up."
        )
    mean, most = mean_and_most(found.books["uncovered_share"])
    if most > 0.0:
        texts.append(
            f"Assets without a law hold {percent(mean)} of the absolute weight on average, "
            f"{percent(most)} at most; what they earned is the part uncovered."
        )
    if found.n_unrealised:
        texts.append(
            f"Left out at the end: {counted(found.n_unrealised, 'date')} whose return is not known."
        )
    return tuple(texts)


def _realised_table(found: RealisedAttribution, whole: np.ndarray, *, comparable: bool) -> Table:
    """Return exposure and part over the span, with intervals, and the sum."""
    names = [str(name) for name in found.parts[PART].values]
    chosen = choose(names, np.abs(whole), most=MOST_LISTED)
    digits = common_digits(BASIS_POINTS * whole)
    columns: dict[str, list[str]] = _factor_columns(found, chosen, comparable=comparable)
    total = chosen.collect(whole)
    columns["Part (bp)"] = [number(BASIS_POINTS * size, digits, signed=True) for size in total]
    bounds = found.linked_interval if comparable else None
    level = ""
    if bounds is not None:
        ends = [BASIS_POINTS * bounds[side].values for side in ("lower", "upper")]
        cells = [
            interval(low, high, digits) if high - low > 1e-9 * max(abs(low), abs(high)) else NONE
            for low, high in zip(*ends, strict=True)
        ]
        level = f" Interval: {percent(bounds.attrs.get('level', np.nan), 0)} of the draws of the "
        level += "factors; bounds do not add up, and what is not drawn has none."
        columns["Interval (bp)"] = chosen.cells(cells)
    rows = list(zip(chosen.names, *columns.values(), strict=True))
    end = [NONE] * len(columns)
    place = list(columns).index("Part (bp)")
    end[place] = number(BASIS_POINTS * float(total.sum()), digits, signed=True)
    rows.append(("Sum", *end))
    if found.linked is not None:
        active = float(mean_over_draws(found.linked.active_return))
        end[place] = number(BASIS_POINTS * active, digits, signed=True)
        rows.append(("Compound return", *end))
    return Table(
        "Parts over the whole span, basis points of capital, and mean exposure over dates. A part "
        "is earned date by date, with the exposure of the date: no mean factor return times the "
        f"mean exposure gives it.{level}{chosen.said('parts')}",
        ("Part", *columns),
        tuple(rows),
    )


def _factor_columns(
    found: RealisedAttribution, chosen: Chosen, *, comparable: bool
) -> dict[str, list[str]]:
    """Return the mean exposure of the parts that are factors."""
    names = [str(name) for name in found.factors[FACTOR].values]
    columns: dict[str, list[str]] = {}
    values = over_fits(found.factors["exposure"], comparable=comparable).mean(DATE).values
    digits = max(common_digits(values), 2)
    known = dict(zip(names, values, strict=True))
    columns["Mean exposure"] = [
        number(known[row], digits, signed=True) if row in known else NONE for row in chosen.names
    ]
    return columns


def _realised_notes(found: RealisedAttribution, *, comparable: bool) -> tuple[str, ...]:
    """Return definitions and limits."""
    notes = [
        "Specific: what factors and law leave. Nonlinear, or alpha: what the law had priced beyond "
        "factors times exposures. Uncovered: assets without a law. Trading: what the account "
        "earned beyond its holdings."
    ]
    n_missing = int(found.factors["factor_return"].isnull().sum())
    if n_missing:
        notes.append(
            f"Missing: {counted(n_missing, 'factor return')}, since a column repeated earlier ones "
            "on that date. The part is 0 there."
        )
    if not comparable:
        notes.append(
            "The parts are of the first fit: learned factors of other fits are not the same."
        )
    return tuple(notes)


def brinson(contents: AttributionContents) -> Section | None:
    """Return the active return by group: allocation, selection and the other effects."""
    found, linked = contents.brinson, contents.linked
    if found is None:
        return None
    effects = found.effects.sum(DATE, keep_attrs=True) if linked is None else linked.effects
    cells = mean_over_draws(effects).transpose(GROUP, EFFECT)
    names, kinds = cells[GROUP].values, [str(kind) for kind in cells[EFFECT].values]
    score = np.abs(cells.values).sum(axis=1)
    chosen = choose(names, score)
    lanes = dict(zip(kinds, BASIS_POINTS * chosen.collect(cells.values).T, strict=True))
    method = {"bf": "Brinson and Fachler", "bhb": "Brinson, Hood and Beebower"}
    n_dates = found.effects.sizes[DATE]
    linking = (
        f"Effects of {counted(n_dates, 'date')} are linked ({linked.method}) so that they add up "
        "to the difference of compound returns."
        if linked is not None
        else f"Effects of {counted(n_dates, 'date')} are added up without compounding."
    )
    return Section(
        "Against the benchmark, by group",
        "Brinson",
        "brinson",
        (
            _say_active(contents),
            f"{linking} Method: {method.get(found.method, found.method)}.",
            *_say_unobserved(contents.unobserved),
        ),
        figures=(
            Drawing(
                lane_bars(
                    chosen.names,
                    lanes,
                    words=Words(
                        "fig-brinson", "Bar chart of effects by group",
                        "Effect over the span (bp of capital)", "Group",
                    ),
                ),
                "Effects by group over the span, basis points of capital; all bars add up to the "
                f"active return.{chosen.said('groups')}",
            ),
        ),
        tables=(_brinson_table(contents, effects, cells, kinds),),
        notes=(
            "Allocation: more or less in a group than the benchmark. Selection: other returns "
            "inside the group."
            + (" Interaction: both together." if "interaction" in kinds else "")
            + (
                " Trading: what the account earned beyond its holdings."
                if "trading" in kinds
                else ""
            ),
            *_unclassified(found.unclassified),
        ),
    )  # fmt: skip


def _say_unobserved(shares: tuple[float, float] | None) -> tuple[str, ...]:
    """Return how much weight had no return and went to the others."""
    if shares is None or max(shares) <= 0.0:
        return ()
    return (
        f"Of the book's weight {percent(shares[0], 2)}, of the benchmark's {percent(shares[1], 2)} "
        "had no observed return, on average over dates, and went to the other assets in "
        "proportion. Returns are missing for a reason (suspensions, moves beyond the label's "
        "bound), so both books' returns differ from what an account would have earned.",
    )


def _say_active(contents: AttributionContents) -> str:
    """Return both returns and their difference."""
    found, linked = contents.brinson, contents.linked
    names = ("portfolio_return", "benchmark_return", "active_return")
    parts: Sequence[xr.DataArray]
    if linked is not None:
        parts = [linked.portfolio_return, linked.benchmark_return, linked.active_return]
    else:
        parts = [] if found is None else [found.totals[name].sum(DATE) for name in names]
    own, other, active = (percent(float(mean_over_draws(p)), 2, signed=True) for p in parts)
    kind = "compound" if linked is not None else "summed over dates"
    against = f", {contents.benchmark}," if contents.benchmark else ""
    return (
        f"The book, {contents.book}, earned {own} and the benchmark{against} {other}: an active "
        f"return of {active}, {kind}."
    )


def _brinson_table(
    contents: AttributionContents, effects: xr.DataArray, cells: xr.DataArray, kinds: list[str]
) -> Table:
    """Return mean weights and effects by group, and their sums."""
    found = contents.brinson
    weights = [] if found is None else [
        100.0 * found.groups[f"{side}_weight"].mean(DATE).sel({GROUP: cells[GROUP].values}).values
        for side in ("portfolio", "benchmark")
    ]  # fmt: skip
    chosen = choose(cells[GROUP].values, np.abs(cells.values).sum(axis=1), most=MOST_LISTED)
    table = BASIS_POINTS * chosen.collect(cells.values)
    table = np.column_stack([table, table.sum(axis=1)])
    digits = common_digits(table)
    bounds = interval_over_draws(effects.sum(EFFECT))
    ends: list[np.ndarray] = []
    if bounds is not None:
        ends = [BASIS_POINTS * one.transpose(GROUP).values for one in bounds]
    spread = [interval(low, high, digits) for low, high in zip(*ends, strict=True)] if ends else []
    spread = chosen.cells(spread) if ends else []
    held = [chosen.collect(side) for side in weights]
    rows = []
    for place, name in enumerate(chosen.names):
        row = [number(side[place], 2) for side in held]
        row += [number(size, digits, signed=True) for size in table[place]]
        rows.append((name, *row, *spread[place : place + 1]))
    sums = [number(size, digits, signed=True) for size in table.sum(axis=0)]
    rows.append(("Sum", *(number(side.sum(), 2) for side in held), *sums, *([NONE] * bool(ends))))
    draws = ("90% interval (bp)",) if ends else ()
    return Table(
        "By group: mean weight over dates, percent of capital, and effects over the span, basis "
        f"points of capital. The last row adds up to the active return.{chosen.said('groups')}",
        ("Group", "Book (%)", "Benchmark (%)", *(f"{kind.capitalize()} (bp)" for kind in kinds),
         "All (bp)", *draws),
        tuple(rows),
    )  # fmt: skip


def _unclassified(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return which held assets came without a group."""
    if not names:
        return ()
    listed = ", ".join(names[:5]) + (f" and {count(len(names) - 5)} more" if names[5:] else "")
    return (f"Without a group: {counted(len(names), 'held asset')}, {listed}.",)
