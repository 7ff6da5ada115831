"""Sections of an attribution page on the expected return and on prices of factors through time."""

import numpy as np
import xarray as xr

from nfi_pyro.dims import DATE, FACTOR
from nfi_pyro.rendering.attribution_contents import AttributionContents
from nfi_pyro.rendering.attribution_selection import (
    BASIS_POINTS,
    MOST_LISTED,
    NONE,
    Chosen,
    choose,
    common_digits,
    counted,
    date_blocks,
    uncovered_text,
)
from nfi_pyro.rendering.figures.attribution_bars import Waterfall, waterfall
from nfi_pyro.rendering.figures.attribution_lines import value_line
from nfi_pyro.rendering.figures.attribution_maps import CellMap, dated_map
from nfi_pyro.rendering.formatting import basis_points, day, interval, number
from nfi_pyro.rendering.page import Drawing, Section, Table

PARTS = ("linear", "quadratic", "cross")


def expected_return(contents: AttributionContents) -> Section | None:
    """Return the parts of the book's expected return on the last date."""
    found = contents.taylor
    if found is None:
        return None
    steps = BASIS_POINTS * np.stack([found[name].values for name in PARTS], axis=-1)
    base, value, rest = (
        BASIS_POINTS * float(found[name]) for name in ("base_value", "value", "remainder")
    )
    chosen = choose(found[FACTOR].values, np.abs(steps.sum(axis=1)))
    drawn = Waterfall(chosen.names, chosen.collect(steps), base, rest, value)
    bent = bool(np.any(steps[:, 1:]))
    return Section(
        "Where the expected return comes from",
        "Expected return",
        "expected-return",
        (
            f"At the close of {found.attrs['date']} the book is expected to earn "
            f"{basis_points(float(found['value']))} over one label horizon. "
            f"{_say_base(found)}",
            _say_largest(chosen, steps, bent=bent),
            *_say_remainder(rest, value - base),
        ),
        figures=(
            Drawing(
                waterfall(drawn),
                "Basis points per label horizon; each step starts where the one above ended, and "
                "the number at the right is its sum. The axis need not start at 0."
                + chosen.said("factors"),
            ),
        ),
        tables=(_parts_table(found, contents.prices),),
        notes=(
            "Linear: the factor's distance from the base, times the slope there. Pure: what the "
            "bend in that factor alone adds. Cross: half of every product with another factor. "
            "Remainder: third and higher orders, which no single factor owns.",
            "The parts depend on the base: another one gives other parts of the same value.",
        ),
    )


def _say_remainder(rest: float, gap: float) -> tuple[str, ...]:
    """Return a warning where the expansion does not describe the book."""
    if abs(rest) <= 0.25 * abs(gap):
        return ()
    return (
        f"The remainder, {number(rest, 2, signed=True)} bp, is large beside that difference: the "
        "law bends too much between base and book for two orders, and the parts are to be read "
        "with care.",
    )


def _say_base(found: xr.Dataset) -> str:
    """Return what an asset at the base would give, and what is left to factors."""
    gap = float(found["value"]) - float(found["base_value"])
    return (
        f"At {found.attrs['base']} the same weights would be expected to earn "
        f"{basis_points(float(found['base_value']))}; the factors below make the difference of "
        f"{basis_points(gap, signed=True)}."
    )


def _say_largest(chosen: Chosen, steps: np.ndarray, *, bent: bool) -> str:
    """Return the largest step, and how much of all steps is not linear."""
    if not len(chosen.kept):
        return "The law has no factor."
    first = float(steps[chosen.kept[0]].sum())
    text = f"The largest step is that of {chosen.names[0]}: {number(first, 2, signed=True)} bp."
    if not bent:
        return f"{text} Pricing is linear: there are no pure or cross parts."
    sizes = np.abs(steps).sum(axis=0)
    if sizes[0] <= 1e-6 * sizes.sum():
        text += (
            " The book's own mean exposure is the base, so that there are no linear parts: what is "
            "left comes from how its assets spread around it."
        )
    linear, pure, cross = steps.sum(axis=0)
    return (
        f"{text} Over all factors the linear parts are {number(linear, 2, signed=True)} bp, the "
        f"pure ones {number(pure, 2, signed=True)} bp, the cross ones "
        f"{number(cross, 2, signed=True)} bp."
    )


def _parts_table(found: xr.Dataset, prices: xr.Dataset | None) -> Table:
    """Return exposure, price and parts by factor, down to the value."""
    steps = BASIS_POINTS * np.stack([found[name].values for name in PARTS], axis=-1)
    total = steps.sum(axis=1)
    chosen = choose(found[FACTOR].values, np.abs(total), most=MOST_LISTED)
    every = np.column_stack([steps, total])
    ends = {
        name: BASIS_POINTS * float(found[name]) for name in ("base_value", "value", "remainder")
    }
    digits = common_digits(np.r_[every.ravel(), ends["base_value"], ends["value"]])
    slopes = _price_columns(prices, found, chosen)
    bounded = "part_lower" in found
    empty = (NONE,) * len(slopes)
    rows = [("Base value", *empty, *(NONE,) * 3, number(ends["base_value"], digits))]
    bounds = chosen.cells(_bounds(found, digits)) if bounded else []
    for place, (name, row) in enumerate(zip(chosen.names, chosen.collect(every), strict=True)):
        beside = (column[place] for column in slopes.values())
        sizes = (number(size, digits, signed=True) for size in row)
        rows.append((name, *beside, *sizes, *bounds[place : place + 1]))
    rest = number(ends["remainder"], digits, signed=True)
    rows.append(("Remainder", *empty, *(NONE,) * 3, rest))
    sums = (number(size, digits, signed=True) for size in steps.sum(axis=0))
    rows.append(("Expected return", *empty, *sums, number(ends["value"], digits)))
    if bounded:  # the first and the last two rows
        low, high = (BASIS_POINTS * float(found[f"value_{side}"]) for side in ("lower", "upper"))
        rows[0], rows[-2] = (*rows[0], NONE), (*rows[-2], NONE)
        rows[-1] = (*rows[-1], interval(low, high, digits))
    said = (
        " Price: the slope of the book's expected return at its own exposure, so that price times "
        "exposure is not the linear part."
        if slopes
        else ""
    )
    return Table(
        f"Expected return of {found.attrs['date']} by factor, basis points per label horizon; the "
        f"last column adds up to the last row.{said}{chosen.said('factors')}",
        (
            "Factor",
            *slopes,
            "Linear",
            "Pure",
            "Cross",
            "All parts",
            *(("Interval of all",) * bounded),
        ),
        tuple(rows),
    )


def _bounds(found: xr.Dataset, digits: int) -> list[str]:
    """Return the interval of each factor's parts together, in basis points."""
    ends = zip(found["part_lower"].values, found["part_upper"].values, strict=True)
    return [interval(BASIS_POINTS * low, BASIS_POINTS * high, digits) for low, high in ends]


def _price_columns(
    prices: xr.Dataset | None, found: xr.Dataset, chosen: Chosen
) -> dict[str, list[str]]:
    """Return exposure and price by row, where they are known on the date of the parts."""
    if prices is None:
        return {}
    places = [k for k, date in enumerate(prices[DATE].values) if day(date) == found.attrs["date"]]
    if not places:
        return {}
    one = prices.isel({DATE: places[-1]}).sel({FACTOR: found[FACTOR].values})
    return {key: chosen.cells(texts) for key, texts in _slope_columns(one, "price").items()}


def _slope_columns(one: xr.Dataset, slope: str) -> dict[str, list[str]]:
    """Return exposures, slopes by unit of exposure and, where there are any, their intervals."""
    exposures, slopes = one["exposure"].values, BASIS_POINTS * one["gradient"].values
    digits, fine = common_digits(slopes), max(common_digits(exposures), 2)
    columns = {
        "Exposure": [number(value, fine, signed=True) for value in exposures],
        f"{slope.capitalize()} (bp per unit)": [
            number(value, digits, signed=True) for value in slopes
        ],
    }
    if "gradient_lower" in one:
        ends = (BASIS_POINTS * one[f"gradient_{side}"].values for side in ("lower", "upper"))
        pairs = zip(*ends, strict=True)
        columns["Interval (bp per unit)"] = [interval(low, high, digits) for low, high in pairs]
    return columns


def prices(contents: AttributionContents) -> Section | None:
    """Return what a unit of each factor's exposure adds to the expected return, by date."""
    found = contents.prices
    if found is None:
        return None
    text = (
        "The price of a factor is the slope of the book's expected return in its exposure: what "
        "one unit more would add over one label horizon, in basis points, by the fitted law. It is "
        "no return that was earned.",
        _say_shift(found),
    )
    return _slopes(
        contents, found, ("The price of each factor through time", "Prices", "prices"), text
    )


def risk_slopes(contents: AttributionContents) -> Section | None:
    """Return what a unit of each factor's exposure adds to the standard deviation, by date."""
    found = contents.risk_slopes
    if found is None:
        return None
    text = (
        "The slope of risk is what one unit more of the book's exposure to a factor would add to "
        "its standard deviation over one label horizon, in basis points. A negative slope lowers "
        "the risk.",
        _say_shift(found),
        "Exposure times slope does not add up to the standard deviation: the section on risk by "
        "source does.",
    )
    titles = ("The slope of risk in each factor through time", "Risk slopes", "risk-slopes")
    return _slopes(contents, found, titles, text)


def _say_shift(found: xr.Dataset) -> str:
    """Return how single assets move when the book does: the chain rule's choice."""
    how = {
        "parallel": "every asset's exposure moves by the same amount",
        "proportional": "assets move in proportion to their weights",
        "min_norm": "assets move in proportion to their weights, the smallest move that does it",
        "scaling": "every asset's exposure grows by the same percentage",
    }
    name = str(found.attrs.get("shift", ""))
    return f"When the book's exposure moves, {how.get(name, 'assets move as the settings say')}."


def _slopes(
    contents: AttributionContents,
    found: xr.Dataset,
    titles: tuple[str, str, str],
    text: tuple[str, ...],
) -> Section:
    """Return value, slopes and contributions by date, and the table of the last date."""
    anchor = titles[2]
    priced = anchor == "prices"
    what = "expected return" if priced else "standard deviation"
    slope = "price" if priced else "slope"
    bounded = "value_lower" in found
    bounds = (
        tuple(BASIS_POINTS * found[f"value_{side}"].values for side in ("lower", "upper"))
        if bounded
        else None
    )
    line = value_line(
        found[DATE].values,
        BASIS_POINTS * found["value"].values,
        bounds=None if bounds is None else (bounds[0], bounds[1]),
        name=f"{what.capitalize()}\n(bp per label horizon)",
        anchor=f"fig-{anchor}-value",
    )
    band = f" Band: interval. {contents.interval_about}" if bounded else ""
    maps = _maps(found, anchor, slope)
    covered = uncovered_text(found["uncovered"])
    return Section(
        *titles,
        (*text, *((covered,) if covered else ())),
        figures=(
            *maps,
            Drawing(line, f"The book's {what} by date, basis points per label horizon.{band}"),
        ),
        tables=(_last_table(found, slope),),
    )


def _maps(found: xr.Dataset, anchor: str, slope: str) -> tuple[Drawing, Drawing]:
    """Return the heat maps of slopes, row by row on a scale of its own, and of contributions."""
    ranked = found["contribution"].transpose(FACTOR, DATE).values
    chosen = choose(found[FACTOR].values, np.abs(ranked).mean(axis=1))
    gradient = BASIS_POINTS * found["gradient"].transpose(FACTOR, DATE).values[chosen.kept]
    dates = found[DATE].values
    raw, days, length = date_blocks(gradient, dates)
    largest = np.abs(np.nan_to_num(raw)).max(axis=1)
    scaled = 100.0 * raw / np.where(largest > 0.0, largest, 1.0)[:, None]
    digits = common_digits(largest)
    part, _, _ = date_blocks(BASIS_POINTS * chosen.collect(ranked), dates)
    mean = f" Each column is the mean of {length} dates." if length > 1 else ""
    names = chosen.names[: len(chosen.kept)]
    shown = (
        f" The {len(names)} of {len(ranked)} factors with the largest exposure times {slope} are "
        "drawn."
        if chosen.rest.size
        else ""
    )
    return (
        Drawing(
            dated_map(
                CellMap(
                    names, days, scaled, f"fig-{anchor}-map", f"Heat map of each factor's {slope}",
                    "% of the row's largest", limit=100.0,
                    beside=tuple(number(size, digits) for size in largest),
                )
            ),
            f"{slope.capitalize()} by factor and date. Exposures need not share a scale, so each "
            "row is coloured by its own largest size, written at its right in basis points per "
            f"unit exposure. Blue is positive, orange negative.{shown}{mean}",
        ),
        Drawing(
            dated_map(
                CellMap(
                    chosen.names, days, part, f"fig-{anchor}-contribution",
                    f"Heat map of exposure times {slope}", "Basis points per label horizon",
                )
            ),
            f"The book's exposure times the {slope}, which compares factors of any scale. Colours "
            f"end at the 98% quantile of sizes.{chosen.said('factors')}{mean}",
        ),
    )  # fmt: skip


def _last_table(found: xr.Dataset, slope: str) -> Table:
    """Return exposure, slope and their product on the last date."""
    last = found.isel({DATE: -1})
    part = BASIS_POINTS * last["contribution"].values
    chosen = choose(found[FACTOR].values, np.abs(part), most=MOST_LISTED)
    digits = common_digits(part)
    columns = {key: chosen.cells(texts) for key, texts in _slope_columns(last, slope).items()}
    columns[f"Exposure × {slope} (bp)"] = [
        number(size, digits, signed=True) for size in chosen.collect(part)
    ]
    return Table(
        f"{day(found[DATE].values[-1])}, the last of {counted(found.sizes[DATE], 'date')}: per "
        f"unit exposure and per label horizon.{chosen.said('factors')}",
        ("Factor", *columns),
        tuple(zip(chosen.names, *columns.values(), strict=True)),
    )
