"""The section of an attribution page on interactions: the book's Hessian, and mined couplings."""

import numpy as np
import xarray as xr

from nfi_pyro.attribution.results.coupling import MinedCouplings
from nfi_pyro.dims import DATE, FACTOR
from nfi_pyro.rendering.attribution_contents import AttributionContents
from nfi_pyro.rendering.attribution_selection import (
    BASIS_POINTS,
    MOST_LISTED,
    MOST_ROWS,
    common_digits,
    counted,
)
from nfi_pyro.rendering.figures.attribution_maps import CellMap, pair_map
from nfi_pyro.rendering.formatting import count, day, interval, number, percent
from nfi_pyro.rendering.page import Drawing, Section, Table
from nfi_pyro.rendering.wording import sentence

MOST_PAIRS = 10
_OTHER = "factor_other"


def interactions(contents: AttributionContents) -> Section | None:
    """Return which factors act together: by the law on the last date, and by returns."""
    mined, found = contents.couplings, contents.prices
    has_bends = found is not None and "hessian" in found
    if mined is None and not has_bends:
        return None
    paragraphs: list[str] = []
    drawings: list[Drawing] = []
    tables: list[Table] = []
    notes: list[str] = []
    if found is not None and has_bends:
        last = found.isel({DATE: -1})
        bends = BASIS_POINTS * last["hessian"].transpose(FACTOR, _OTHER).values
        bent = bool(np.any(bends))
        paragraphs.append(_say_bends(last, bends, day(found[DATE].values[-1])))
        if bent:
            drawings.append(_bend_drawing(last, bends))
            tables.append(_bend_table(last, bends))
    if mined is not None:
        paragraphs += _say_mined(mined)
        tables.append(_mined_table(mined))
        notes += _mined_notes(mined)
    return Section(
        "Which factors act together",
        "Interactions",
        "interactions",
        tuple(paragraphs),
        figures=tuple(drawings),
        tables=tuple(tables),
        notes=tuple(notes),
    )


def _say_bends(last: xr.Dataset, bends: np.ndarray, date: str) -> str:
    """Return what the Hessian is, and its largest entry off the diagonal."""
    if not np.any(bends):
        return (
            f"On {date} the law prices each factor at one slope whatever the others are: the "
            "Hessian of the book's expected return is 0."
        )
    text = (
        f"The Hessian of the book's expected return on {date} says how the price of one factor "
        "changes with the exposure to another; on the diagonal, with its own. It describes the "
        "fitted law, not returns."
    )
    # Second derivatives compare at the book's exposures, whatever the scale of a factor.
    here = np.outer(last["exposure"].values, last["exposure"].values) * bends
    apart = np.abs(np.triu(here, 1))
    if not np.nanmax(apart, initial=0.0) > 0.0:
        return text
    row, column = np.unravel_index(int(np.nanargmax(apart)), apart.shape)
    names = last[FACTOR].values
    return (
        f"{text} At the book's exposures the strongest pair is {names[row]} × {names[column]}: "
        f"{number(here[row, column], 3, signed=True)} bp."
    )


def _bend_drawing(last: xr.Dataset, bends: np.ndarray) -> Drawing:
    """Return the map of the factors with the largest entries."""
    names = last[FACTOR].values
    size = np.abs(bends).max(axis=1)
    places = np.sort(np.argsort(-np.nan_to_num(size), kind="stable")[:MOST_ROWS])
    shown = tuple(str(names[place]) for place in places)
    fewer = (
        f" The {len(shown)} of {len(names)} factors with the largest entries are drawn."
        if len(shown) < len(names)
        else ""
    )
    return Drawing(
        pair_map(
            CellMap(
                shown, np.array(shown), bends[np.ix_(places, places)], "fig-hessian",
                "Heat map of second derivatives of the expected return, factor by factor",
                "bp per label horizon, per unit of both exposures",
            )
        ),
        "Second derivatives of the book's expected return. Blue: more of one raises the price of "
        "the other. They compare between pairs where exposures share a scale. Colours end at the "
        f"98% quantile of sizes.{fewer}",
    )  # fmt: skip


def _bend_table(last: xr.Dataset, bends: np.ndarray) -> Table:
    """Return the largest pairs, with what the book's own exposures make of them."""
    names, exposure = last[FACTOR].values, last["exposure"].values
    rows, columns = np.triu_indices(len(names))
    entries = bends[rows, columns]
    order = np.argsort(-np.abs(np.nan_to_num(entries)), kind="stable")[:MOST_PAIRS]
    part = (entries * exposure[rows] * exposure[columns])[order]
    digits, fine = common_digits(entries), common_digits(part)
    return Table(
        f"The {len(order)} largest second derivatives, in basis points per unit of both exposures, "
        "and times the book's exposures to both. A factor with itself is curvature.",
        ("Pair", "Derivative (bp)", "At the book's exposures (bp)"),
        tuple(
            (f"{names[rows[place]]} × {names[columns[place]]}",
             number(entries[place], digits, signed=True), number(size, fine, signed=True))
            for place, size in zip(order, part, strict=True)
        ),
    )  # fmt: skip


def _say_mined(found: MinedCouplings) -> list[str]:
    """Return how many pairs were tested on what, and what was found."""
    apart = []
    if found.n_untested:
        apart.append(f"{count(found.n_untested)} could not be tested")
    if found.n_screened:
        apart.append(f"{count(found.n_screened)} were left out beforehand for their score")
    rest = f" ({'; '.join(apart)})" if apart else ""
    pairs = found.discovered
    told = "none" if not pairs else f"{count(len(pairs))}"
    return [
        f"Mined couplings: of {counted(found.n_tested, 'pair')} tested{rest} on "
        f"{counted(found.n_dates, 'date')} that no weights were fitted to (validation), {told} "
        f"{'is' if len(pairs) < 2 else 'are'} found at a false discovery rate of "
        f"{percent(found.level, 0)}.",
        "The null is that a product of two exposures has no price, so that what a date says of it "
        "is as likely to be of either sign: p-values are of "
        f"{count(found.n_permutations)} flips of the signs of whole dates, two-sided. A pair that "
        "is not found may still have a price.",
    ]


def _mined_table(found: MinedCouplings) -> Table:
    """Return the most significant pairs: what the law says, the test, and the confirmation."""
    table = found.table.isel(pair=slice(MOST_LISTED))
    confirmed = found.confirmation is not None
    bp = {
        name: BASIS_POINTS * table[name].values
        for name in ("score", "score_lower", "score_upper", "signed_score", "slope")
    }
    digits = max(common_digits(bp["score"]), 1)
    fine = max(common_digits(bp["slope"]), 1)
    share = max(common_digits(table["h_squared"].values, 2), 3)
    rows = []
    for place in range(table.sizes["pair"]):
        one = table.isel(pair=place)
        row = [
            f"{one['first'].item()} × {one['second'].item()}",
            number(bp["score"][place], digits),
            interval(bp["score_lower"][place], bp["score_upper"][place], digits),
            number(bp["signed_score"][place], digits, signed=True),
            number(float(one["h_squared"]), share),
            number(bp["slope"][place], fine, signed=True),
            number(float(one["t_statistic"]), 2, signed=True),
            number(float(one["p_value"]), 4),
            number(float(one["q_value"]), 3),
            "yes" if bool(one["discovered"]) else "no",
        ]
        if confirmed:
            low, high = (100.0 * float(one[f"ic_uplift_{side}"]) for side in ("lower", "upper"))
            row.append(number(100.0 * float(one["ic_uplift"]), 2, signed=True))
            row.append(interval(low, high, 2))
        rows.append(tuple(row))
    after = ("IC uplift (0.01)", "95% interval") if confirmed else ()
    also = (
        " IC uplift: rise of the mean Rank IC on later dates, in hundredths." if confirmed else ""
    )
    return Table(
        f"The {len(rows)} most significant of {count(found.table.sizes['pair'])} pairs. Score and "
        "its sign: how strongly the law couples the two. Slope: price of the product in returns. "
        f"Both in basis points per standard deviation of both exposures.{also}",
        ("Pair", "Score (bp)", "Interval (bp)", "Signed (bp)", "H²", "Slope (bp)", "t", "p", "q",
         "Found", *after),
        tuple(rows),
    )  # fmt: skip


def _mined_notes(found: MinedCouplings) -> list[str]:
    """Return definitions and counts."""
    skipped = [
        f"{counted(number_of, what)} {why}"
        for number_of, what, why in (
            (found.n_skipped, "date", "with too few assets or nothing left to explain"),
            (found.n_overlapping, "date", "whose labels overlap others"),
            (found.n_confirmation_skipped, "confirmation date", "with too few assets"),
        )
        if number_of
    ]
    notes = [
        sentence("Interval of the score", found.interval),
        "H²: a pair's interaction beside its joint effect in the law, 0 for none; n/a "
        "for pairs that were not followed up. Where the law's sign and the slope's differ, returns "
        "do not bear the law out.",
    ]
    if found.confirmation is None:
        notes.append("There was no confirmation: no later dates were set aside for it.")
    if skipped:
        notes.append(f"Left out: {'; '.join(skipped)}.")
    return notes
