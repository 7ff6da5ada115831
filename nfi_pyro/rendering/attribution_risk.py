"""Sections of an attribution page on risk of one date: contributions that add up, and the ratio."""

import numpy as np
import xarray as xr

from nfi_pyro.attribution.results.contributions import (
    EXPECTED,
    MEASURE,
    PART,
    RISK,
    SOURCE,
    SPECIFIC,
    RiskContributions,
    SharpeContributions,
)
from nfi_pyro.dims import ASSET
from nfi_pyro.rendering.attribution_contents import AttributionContents
from nfi_pyro.rendering.attribution_selection import (
    MOST_LISTED,
    MOST_ROWS,
    NONE,
    Chosen,
    choose,
    common_digits,
)
from nfi_pyro.rendering.figures.attribution_bars import Words, lane_bars
from nfi_pyro.rendering.formatting import (
    MISSING,
    basis_points,
    count,
    day,
    interval,
    number,
    percent,
)
from nfi_pyro.rendering.page import Drawing, Section, Table
from nfi_pyro.rendering.wording import sentence

DEVIATION = "standard_deviation"
LABELS = {
    DEVIATION: "Standard deviation",
    "value_at_risk": "Value at risk",
    "expected_shortfall": "Expected shortfall",
}
SHORT = {DEVIATION: "Sd", "value_at_risk": "VaR", "expected_shortfall": "ES"}
MEAN_ROW = "expected return"
MOST_HOLDINGS = 10
MOST_MARGINALS = 5


def risk(contents: AttributionContents) -> Section | None:
    """Return Euler contributions to the measures of risk, by source and by asset."""
    found = contents.risk
    if found is None:
        return None
    names, values, _ = source_rows(found, MOST_ROWS)
    lanes = {LABELS[str(measure)]: 100.0 * values[k] for k, measure in enumerate(_measures(found))}
    copula = (
        ("Assets are joined by a copula: sources are its shared normals, to first order.",)
        if found.dependence == "copula"
        else ()
    )
    return Section(
        "Where the risk comes from",
        "Risk",
        "risk",
        (
            _say_measures(found),
            *_say_bounds(found, contents.risk_bounds),
            *_say_largest(found),
            *copula,
        ),
        figures=(
            Drawing(
                lane_bars(
                    names,
                    lanes,
                    words=Words(
                        "fig-risk", "Bar chart of contributions to risk by source",
                        "Contribution (% of capital, per label horizon)", "Source of risk",
                    ),
                ),
                "Euler contributions, percent of capital; those of a measure add up to it. A "
                "negative bar lowers the risk. Specific: what is not linear in the shared "
                "sources.",
            ),
        ),
        tables=(_source_table(found), _asset_table(found)),
        notes=(
            "A contribution is what the measure changes by when everything from that source grows "
            "by a percent, times a hundred. It is not what the measure would lose without the "
            "source.",
            *(
                sentence(LABELS[name], how)
                for name, how in found.methods.items()
            ),
        ),
    )  # fmt: skip


def _measures(found: RiskContributions) -> list[str]:
    """Return the names of the measures."""
    return [str(name) for name in found.value[MEASURE].values]


def _label(found: RiskContributions, measure: str) -> str:
    """Return a measure with its level."""
    if measure == DEVIATION or found.level is None:
        return LABELS[measure]
    return f"{LABELS[measure]} {percent(found.level, 0)}"


def _say_measures(found: RiskContributions) -> str:
    """Return the measures of the date."""
    listed = ", ".join(
        f"{_label(found, name).lower()} {percent(float(found.value.sel({MEASURE: name})), 3)}"
        for name in _measures(found)
    )
    when = "By the risk model" if found.date is None else f"At the close of {day(found.date)}"
    return f"{when}, over one label horizon and in percent of capital: {listed}."


def _say_bounds(found: RiskContributions, bounds: xr.DataArray | None) -> tuple[str, ...]:
    """Return the intervals of the measures."""
    if bounds is None:
        return ()
    ends = {name: 100.0 * bounds.sel({MEASURE: name}).values for name in _measures(found)}
    listed = ", ".join(
        f"{_label(found, name).lower()} {interval(float(low), float(high), 3)}%"
        for name, (low, high) in ends.items()
    )
    return (f"Intervals: {listed}.",)


def _say_largest(found: RiskContributions) -> tuple[str, ...]:
    """Return how much of the standard deviation factors carry, and the largest of them."""
    if DEVIATION not in _measures(found):
        return ()
    parts = found.by_source.sum(PART).sel({MEASURE: DEVIATION})
    total = float(found.value.sel({MEASURE: DEVIATION}))
    factors = parts.isel({SOURCE: parts[SOURCE].values != SPECIFIC})
    if not total > 0.0 or not factors.size:
        return ()
    first = factors.isel({SOURCE: int(np.abs(factors.values).argmax())})
    return (
        f"Shared sources carry {percent(float(factors.sum()) / total, 1)} of the standard "
        f"deviation, {first[SOURCE].values} alone {percent(float(first) / total, 1)}; the rest is "
        "specific to single assets.",
    )


def source_rows(
    found: RiskContributions, most: int
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return rows of sources that add up to each measure.

    Returns
    -------
    names : tuple of str
        The largest factors, those left together, the specific part and, where a measure contains
        it, the expected return.
    values : ndarray, shape (measure, row)
        Decimal return.
    errors : ndarray, shape (measure, row)
        Standard errors, 0 in closed form; NaN of sources taken together.
    """
    by_source = found.by_source.transpose(MEASURE, PART, SOURCE)
    own = by_source.sel({PART: RISK}).values.astype(float)
    errors = found.source_error.transpose(MEASURE, SOURCE).values.astype(float)
    mean = by_source.sel({PART: EXPECTED}).values.astype(float).sum(axis=1, keepdims=True)
    size = np.abs(own).max(axis=0, initial=0.0)
    chosen = choose(by_source[SOURCE].values, size, most=most - 1, last=SPECIFIC)
    values, bounds = chosen.collect(own, 1), chosen.collect(errors, 1, other=np.nan)
    if not np.any(mean):
        return chosen.names, values, bounds
    return (
        (*chosen.names, MEAN_ROW),
        np.concatenate([values, mean], axis=1),
        np.concatenate([bounds, 0.0 * mean], axis=1),
    )


def _source_table(found: RiskContributions) -> Table:
    """Return contributions by source with standard errors, their sum and the measure."""
    names, values, errors = source_rows(found, MOST_LISTED)
    what = (
        " Expected return: the mean that value at risk and shortfall contain, with its sign there."
        if MEAN_ROW in names
        else ""
    )
    return Table(
        "Contributions by source, percent of capital per label horizon, and their standard errors "
        f"(SE); n/a for sums.{what} The last two rows show that they add up.",
        ("Source", *_columns(found)),
        _rows(found, names, values, errors, single=len(names)),
    )


def _asset_table(found: RiskContributions) -> Table:
    """Return the assets that contribute most, and all the others together."""
    by_asset = found.by_asset.sum(PART).transpose(MEASURE, ASSET)
    values = by_asset.values.astype(float)
    errors = found.asset_error.transpose(MEASURE, ASSET).values.astype(float)
    kept = np.any(values != 0.0, axis=0)
    by_asset, values, errors = by_asset[:, kept], values[:, kept], errors[:, kept]
    held = int(kept.sum())
    place = _measures(found).index(DEVIATION) if DEVIATION in _measures(found) else 0
    chosen = choose(by_asset[ASSET].values, np.abs(values[place]), most=MOST_HOLDINGS + 1)
    bounds = chosen.collect(errors, 1, other=np.nan)
    largest = (
        f": the {len(chosen.kept)} largest to the {LABELS[_measures(found)[place]].lower()} of "
        f"{count(held)} that contribute; the others together."
    )
    return Table(
        f"Contributions by asset, percent of capital{largest if len(chosen.rest) else '.'}",
        ("Asset", *_columns(found)),
        _rows(found, chosen.names, chosen.collect(values, 1), bounds, single=len(chosen.kept)),
    )


def _columns(found: RiskContributions) -> tuple[str, ...]:
    """Return a column for each measure, and one for its error where it has any."""
    titles: list[str] = []
    for name in _measures(found):
        titles.append(f"{SHORT[name]} (%)")
        if _sampled(found, name):
            titles.append("SE (%)")
    return tuple(titles)


def _sampled(found: RiskContributions, measure: str) -> bool:
    """Return whether a measure or its parts have standard errors."""
    own = {MEASURE: measure}
    parts = (found.value_error, found.source_error, found.asset_error)
    return any(bool((part.sel(own) > 0.0).any()) for part in parts)


def _rows(
    found: RiskContributions,
    names: tuple[str, ...],
    values: np.ndarray,
    errors: np.ndarray,
    *,
    single: int,
) -> tuple[tuple[str, ...], ...]:
    """Return rows of contributions, then their sum, then the measure.

    Decimals follow the first `single` rows: in a book of thousands an asset's part is small.
    """
    columns = []
    for name, own, error in zip(_measures(found), values, errors, strict=True):
        digits = max(common_digits(100.0 * own[:single]), 3)
        whole = float(found.value.sel({MEASURE: name}))
        cells = [*own, own.sum(), whole]
        columns.append([number(100.0 * size, digits) for size in cells])
        if _sampled(found, name):
            of_value = float(found.value_error.sel({MEASURE: name}))
            spreads = [*error, np.nan, of_value]
            columns.append([_error(size, digits) for size in spreads])
    return tuple(zip((*names, "Sum", "Measure"), *columns, strict=True))


def _error(size: float, digits: int) -> str:
    """Return a standard error in percent; that of something exact is said in a word."""
    if np.isnan(size):
        return MISSING
    return "exact" if size == 0.0 else number(100.0 * size, min(digits + 1, 6))


def ratio(contents: AttributionContents) -> Section | None:
    """Return the parts and slopes of the ratio of return to risk."""
    found = contents.sharpe
    if found is None:
        return None
    part = found.by_source["contribution"].values.astype(float)
    chosen = choose(found.by_source[SOURCE].values, np.abs(part), last=SPECIFIC)
    free = ["risk-free return"] if found.risk_free_contribution else []
    values = np.r_[chosen.collect(part), [found.risk_free_contribution][: len(free)]]
    return Section(
        "The ratio of return to risk",
        "Ratio",
        "ratio",
        (
            f"At the close of {day(found.date)} the expected return"
            f"{f', less a risk-free {basis_points(found.risk_free)},' if free else ''} is "
            f"{number(found.ratio, 3)} times the standard deviation: "
            f"{basis_points(found.expected_return)} to "
            f"{basis_points(found.standard_deviation)}, per label horizon and not annualised.",
        ),
        figures=(
            Drawing(
                lane_bars(
                    [*chosen.names, *free],
                    {"contribution": values},
                    words=Words(
                        "fig-ratio", "Bar chart of contributions to the ratio by source",
                        "Contribution to the ratio (no unit)", "Source",
                    ),
                ),
                "What each source's expected return gives to the ratio; all of them add up to "
                f"{number(found.ratio, 3)}.{chosen.said('sources')}",
            ),
            _marginal_drawing(found, chosen),
        ),
        tables=(_ratio_table(found), _marginal_table(found)),
        notes=(
            "Marginal: by how much the ratio changes per unit of exposure, and per 1% of capital "
            "in an asset. It is what the source adds to the expected return, less the ratio times "
            "what it adds to risk. A source may give much to the ratio and still have a negative "
            "marginal: there is too much of it already.",
            "Specific: what the law expects beyond factors times exposures (the realised return "
            "calls it alpha), and the risk of single assets.",
        ),
    )  # fmt: skip


def _marginal_drawing(found: SharpeContributions, chosen: Chosen) -> Drawing:
    """Return the two terms of the slope of the ratio in each source that has a row of its own."""
    places = [*chosen.kept, *chosen.last]
    names = [str(name) for name in found.by_source[SOURCE].values[places]]
    lanes = {
        label: found.by_source[key].values[places].astype(float)
        for label, key in (("by return", "marginal_mean"), ("by risk", "marginal_risk"))
    }
    words = Words(
        "fig-marginal", "Bar chart of the two terms of the marginals by source",
        "Change of the ratio per unit exposure (no unit)", "Source",
    )  # fmt: skip
    return Drawing(
        lane_bars(names, lanes, words=words),
        "What one unit more of exposure would do to the ratio: by the return that it adds, and by "
        "the risk. Their sum is the marginal. Sources compare where exposures share a scale.",
    )


def _ratio_table(found: SharpeContributions) -> Table:
    """Return exposure, contribution and slope by source, and the sum."""
    table = found.by_source
    part = table["contribution"].values.astype(float)
    chosen = choose(table[SOURCE].values, np.abs(part), most=MOST_LISTED, last=SPECIFIC)
    digits = max(common_digits(part), 3)
    slopes = ("marginal", "marginal_mean", "marginal_risk")
    fine = max(common_digits(np.array([table[name].values for name in slopes])), 2)
    columns = []
    for name, own in (("exposure", 2), *((name, fine) for name in slopes)):
        texts = [number(value, own, signed=True) for value in table[name].values]
        columns.append(chosen.cells(texts))
    sizes = [number(size, digits, signed=True) for size in chosen.collect(part)]
    rows = list(zip(chosen.names, columns[0], sizes, *columns[1:], strict=True))
    empty = (NONE,) * 3
    free = number(found.risk_free_contribution, digits, signed=True)
    if found.risk_free_contribution:
        rows.append(("risk-free return", NONE, free, *empty))
    total = float(part.sum()) + found.risk_free_contribution
    rows.append(("Sum", NONE, number(total, digits, signed=True), *empty))
    rows.append(("Ratio", NONE, number(found.ratio, digits, signed=True), *empty))
    return Table(
        "Parts of the ratio by source, no unit, and marginals per unit exposure, in their two "
        f"terms.{chosen.said('sources')}",
        ("Source", "Exposure", "Contribution", "Marginal", "by return", "by risk"),
        tuple(rows),
    )


def _marginal_table(found: SharpeContributions) -> Table:
    """Return the assets whose weight raises, and lowers, the ratio most."""
    marginal: xr.DataArray = found.by_asset["marginal"]
    values = 0.01 * marginal.values.astype(float)
    order = np.argsort(-values, kind="stable")
    most = min(MOST_MARGINALS, len(order) // 2) or len(order)
    places = [*order[:most], *order[max(len(order) - most, most) :]]
    digits = max(common_digits(values), 3)
    rows = tuple(
        (str(marginal[ASSET].values[place]),
         *(number(0.01 * float(found.by_asset[name].values[place]), digits, signed=True)
           for name in ("marginal", "marginal_mean", "marginal_risk")))
        for place in places
    )  # fmt: skip
    return Table(
        f"Change of the ratio per 1% of capital more in an asset: the {most} highest and the "
        f"{len(places) - most} lowest of {count(len(order))}, no unit.",
        ("Asset", "Marginal", "by return", "by risk"),
        rows,
    )
