"""The section of a geometry page on a run through time: figures by date and their worth."""

import numpy as np
import xarray as xr

from nfi_pyro.dims import DATE
from nfi_pyro.geometry.results.tracking import Tracking
from nfi_pyro.rendering.figures.tracking import tracking_series
from nfi_pyro.rendering.formatting import count, day, interval, number, percent
from nfi_pyro.rendering.geometry_contents import GeometryContents
from nfi_pyro.rendering.page import Drawing, Section, Table

MOST_DATES = 12
FIGURES = {
    "state_step": "State step",
    "state_displacement": "State from start",
    "distance": "Distance",
    "effective_rank": "Rank",
    "principal_curvature": "Curvature",
    "crowding": "Crowding",
    "mahalanobis": "Mahalanobis",
    "portfolio_uncovered": "Without a law",
}
_SHARES = ("portfolio_uncovered",)


def tracking(contents: GeometryContents) -> Section | None:
    """Return figures by date, how many are identified, and their intervals."""
    found = contents.tracking
    if found is None:
        return None
    paired = contents.books[0] != contents.books[1]
    names = {name: label for name, label in FIGURES.items() if paired or name != "distance"}
    return Section(
        "The run through time",
        "Tracking",
        "tracking",
        (_books(contents.books), *((_distance(found),) if paired else ()), found.interval_source),
        figures=(
            Drawing(
                tracking_series(found, paired=paired),
                "Figures by date, where they are identified. Band: interval of the figure, "
                "where the run has one; for crowding two standard errors of its regression. "
                "Distances and ranks have no unit.",
            ),
        ),
        tables=(
            Table(
                "Over the dates on which a figure is identified, and how many of "
                f"{count(found.figures.sizes[DATE])} those are; interval: mean of the lower and of "
                "the upper bounds. State: the factors' law. Distance: portfolio to benchmark. The "
                "others are of the portfolio: directions that 252 returns see, curvature of the "
                "principal plane, divergence of all exposures' flow, standard deviations from "
                "the cloud of exposures, share of weight without a law.",
                ("Figure", "Dates", "Median", "Range", "Interval"),
                tuple(_summary(found, name, label) for name, label in names.items()),
            ),
            _by_date(found, paired=paired),
        ),
        notes=(
            "Identified: the portfolio's exposure is known (a law for at least 95% of its absolute "
            "weight) and near those of assets; for curvature also two visible directions, for "
            "crowding instruments that predict exposures. n/a: not identified.",
            "A book is placed at its mean exposure: figures there are of a single asset with that "
            "exposure, not of the book's own return.",
            f"The damping is the same on all dates: {number(1.0 / found.eps, 0)} returns weigh as "
            f"much as a prior, the inverse covariance of {found.precision_source}.",
        ),
    )


def _books(books: tuple[str, str]) -> str:
    """Return what is followed."""
    if books[0] == books[1]:
        return f"The portfolio is {books[0]}. Give weights to see its distance from a benchmark."
    return f"The portfolio is {books[0]}, the benchmark {books[1]}."


def _distance(found: Tracking) -> str:
    """Return what the median distance says."""
    kept = found.figures["distance"].where(found.ok["distance"]).dropna(DATE)
    if not kept.size:
        return "The distance between the two is identified on no date."
    middle = float(kept.median())
    if not middle > 0.0:
        return "The two have one exposure."
    return (
        f"The median distance is {number(middle, 3)}: about {number(1.0 / middle**2, 0)} returns "
        "of one asset tell the two exposures apart by one standard error."
    )


def _summary(found: Tracking, name: str, label: str) -> tuple[str, ...]:
    """Return one figure over the span."""
    kept = found.figures[name].where(found.ok[name]).dropna(DATE)
    known = count(kept.size)
    if not kept.size:
        return label, known, "n/a", "n/a", "n/a"
    values = kept.values
    if name in _SHARES:
        low, high = (percent(float(v), 1) for v in (values.min(), values.max()))
        return label, known, percent(float(np.median(values)), 1), f"{low} to {high}", "n/a"
    bounds = "n/a"
    if found.interval is not None and name in found.interval:
        lower, upper = found.interval[name].mean(DATE).values
        bounds = interval(float(lower), float(upper), 2) if np.isfinite(lower) else "n/a"
    ends = interval(float(values.min()), float(values.max()), 2)
    return label, known, number(float(np.median(values)), 2), ends, bounds


def _by_date(found: Tracking, *, paired: bool) -> Table:
    """Return at most twelve evenly spaced dates, the last among them."""
    total = found.figures.sizes[DATE]
    places = np.arange(total)[::-1][:: -(-total // MOST_DATES)][::-1]
    columns: dict[str, tuple[str, int]] = {"state_step": ("State step", 3)}
    if paired:
        columns["distance"] = ("Distance", 3)
    columns |= {
        "effective_rank": ("Rank", 0),
        "principal_curvature": ("Curvature", 1),
        "crowding": ("Crowding", 3),
        "mahalanobis": ("Mahalanobis", 2),
        "n_assets": ("Assets", 0),
    }
    rows = []
    for place in places:
        one, ok = (part.isel({DATE: place}) for part in (found.figures, found.ok))
        cells = (_cell(one, ok, name, digits) for name, (_, digits) in columns.items())
        rows.append((day(found.figures[DATE].values[place]), *cells))
    return Table(
        f"{count(len(places))} of {count(total)} dates, evenly spaced up to the last.",
        ("Date (close)", *(title for title, _ in columns.values())),
        tuple(rows),
    )


def _cell(one: xr.Dataset, ok: xr.Dataset, name: str, digits: int) -> str:
    """Return a figure, or n/a where it is not identified."""
    return number(float(one[name]), digits) if bool(ok[name]) else "n/a"
