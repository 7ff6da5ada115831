"""One self-contained HTML page of where a book's expected return, risk and earnings come from."""

import numpy as np

from nfi_pyro.dims import DATE
from nfi_pyro.rendering.attribution_contents import AttributionContents
from nfi_pyro.rendering.attribution_couplings import interactions
from nfi_pyro.rendering.attribution_expected import expected_return, prices, risk_slopes
from nfi_pyro.rendering.attribution_hedge import hedge, styles
from nfi_pyro.rendering.attribution_networks import features, heat_maps
from nfi_pyro.rendering.attribution_realised import brinson, realised
from nfi_pyro.rendering.attribution_risk import DEVIATION, ratio, risk
from nfi_pyro.rendering.attribution_selection import BASIS_POINTS
from nfi_pyro.rendering.formatting import (
    MISSING,
    basis_points,
    day,
    interval,
    number,
    percent,
)
from nfi_pyro.rendering.html import render_sections
from nfi_pyro.rendering.page import Section, Tile
from nfi_pyro.rendering.tables import provenance_tables
from nfi_pyro.rendering.wording import sentence

PARTS = {
    "taylor": "Expected return by factor",
    "prices": "Prices of factors through time",
    "risk": "Risk by source and asset",
    "risk_slopes": "Slopes of risk through time",
    "sharpe": "Ratio of return to risk",
    "heat_mean": "Heat map of the expected return",
    "heat_risk": "Heat map of the standard deviation",
    "sanity": "Test of the heat map with random weights",
    "features": "Integrated gradients",
    "relevance": "Layer-wise relevance",
    "couplings": "Mined couplings",
    "realised": "Realised return",
    "brinson": "Brinson attribution",
    "hedge": "Hedge",
    "styles": "Styles",
}


def render_attribution(contents: AttributionContents) -> str:
    """Return the attribution of a run and a book as one HTML page that refers to nothing outside.

    The same contents give the same bytes: the page holds no time of rendering. All text is
    escaped; only the drawings of `nfi_pyro.rendering.figures` are passed through as markup.

    Parameters
    ----------
    contents : AttributionContents
        Results of one run and one book.

    Returns
    -------
    str
        A complete HTML document, to be written as UTF-8.
    """
    return render_sections(contents.title, build_attribution(contents))


def build_attribution(contents: AttributionContents) -> tuple[Section, ...]:
    """Return the sections of the page; what was left out is named in the first."""
    builders = (
        expected_return, prices, risk, risk_slopes, ratio, heat_maps, features, interactions,
        realised, brinson, hedge, styles,
    )  # fmt: skip
    found = [section for section in (builder(contents) for builder in builders) if section]
    return (_about(contents), *found, _settings(contents))


def _about(contents: AttributionContents) -> Section:
    """Return what was explained, its key numbers, and what was left out."""
    against = sentence("Benchmark", contents.benchmark) if contents.benchmark else "No benchmark."
    return Section(
        "What was explained",
        "Overview",
        "overview",
        (
            f"{sentence('Book', contents.book)} {against}",
            sentence("Dates", contents.evaluation_span),
            sentence("Return", contents.label),
            contents.interval_about,
            "Most of it explains the fitted law, not the market: a part of an expected return is "
            "not earned until the section on realised returns says so.",
        ),
        tuple(tile(contents) for tile in (_mean_tile, _deviation_tile, _loss_tile, _ratio_tile)),
        notes=_left_out(contents),
    )  # fmt: skip


def _left_out(contents: AttributionContents) -> tuple[str, ...]:
    """Return the parts that are not there, and why; those with one reason together."""
    given = contents.left_out
    reasons: dict[str, list[str]] = {}
    for part in [*PARTS, *(part for part in given if part not in PARTS)]:
        if part in given or getattr(contents, part) is None:
            why = given.get(part, "No reason was given.")
            reasons.setdefault(why, []).append(PARTS.get(part, part))
    return tuple(
        f"Left out: {'; '.join(names)}. {why[:1].upper()}{why[1:]}"
        for why, names in reasons.items()
    )


def _mean_tile(contents: AttributionContents) -> Tile:
    """Return the expected return of the last date, with its interval where there is one."""
    title, found = "Expected return", contents.prices
    note = "per label horizon"
    if found is not None and "value_lower" in found:
        last = found.isel({DATE: -1})
        low, high = (BASIS_POINTS * float(last[f"value_{side}"]) for side in ("lower", "upper"))
        note += f", interval {interval(low, high, 1)} bp"
    if contents.taylor is not None:
        value, date = float(contents.taylor["value"]), str(contents.taylor.attrs["date"])
    elif contents.sharpe is not None:
        value, date = contents.sharpe.expected_return, day(contents.sharpe.date)
    elif found is not None:
        value, date = float(found["value"][-1]), day(found[DATE].values[-1])
    else:
        return Tile(title, MISSING, "left out")
    return Tile(title, basis_points(value), f"{note}; {date}")


def _deviation_tile(contents: AttributionContents) -> Tile:
    """Return the standard deviation of the last date."""
    title, note = "Standard deviation", "of capital, per label horizon"
    found, slopes = contents.risk, contents.risk_slopes
    if found is not None and DEVIATION in found.value["measure"].values:
        return Tile(title, percent(float(found.value.sel(measure=DEVIATION)), 3), note)
    if contents.sharpe is not None:
        return Tile(title, percent(contents.sharpe.standard_deviation, 3), note)
    if slopes is not None:
        return Tile(title, percent(float(slopes["value"][-1]), 3), note)
    return Tile(title, MISSING, "left out")


def _loss_tile(contents: AttributionContents) -> Tile:
    """Return value at risk and, beside it, expected shortfall."""
    found = contents.risk
    measures = [] if found is None else list(found.value["measure"].values)
    if found is None or "value_at_risk" not in measures:
        return Tile("Value at risk", MISSING, "left out")
    level = percent(np.nan if found.level is None else found.level, 0)
    shortfall = ""
    if "expected_shortfall" in measures:
        mean_loss = float(found.value.sel(measure="expected_shortfall"))
        shortfall = f"; expected shortfall {percent(mean_loss, 2)}"
    return Tile(
        f"Value at risk {level}",
        percent(float(found.value.sel(measure="value_at_risk")), 3),
        f"of capital, a loss, per label horizon{shortfall}",
    )


def _ratio_tile(contents: AttributionContents) -> Tile:
    """Return the ratio of expected excess return to standard deviation."""
    found = contents.sharpe
    if found is None:
        return Tile("Return to risk", MISSING, "left out")
    return Tile("Return to risk", number(found.ratio, 3), "per label horizon, not annualised")


def _settings(contents: AttributionContents) -> Section:
    """Return seeds, dates and provenance."""
    return Section(
        "Settings, seeds and provenance",
        "Settings",
        "settings",
        tables=provenance_tables({"This page": contents.settings, **contents.provenance}),
    )
