"""Sections of a geometry page on states and on one date: arrays in, text and figures out."""

from collections.abc import Mapping

import numpy as np

from nfi_pyro.dims import DATE, FACTOR
from nfi_pyro.rendering.figures import geometry as figures
from nfi_pyro.rendering.formatting import count, day, interval, number, p_value, percent
from nfi_pyro.rendering.geometry_contents import ExposurePlane, GeometryContents, StateMovement
from nfi_pyro.rendering.page import Drawing, Section, Table, Tile

MOST_LOADINGS = 5
MOST_STEPS = 5


def states(contents: GeometryContents) -> Section | None:
    """Return how far the factors' law moved."""
    return None if contents.states is None else movement(contents.states)


def movement(found: StateMovement) -> Section:
    """Return the section on one span's states, for this page and the risk report."""
    series = found.series
    step = series["step"].dropna(DATE)
    order = np.argsort(-step.values, kind="stable")[:MOST_STEPS]
    worst = step.isel({DATE: order})
    n_alarms = int(series["alarm"].sum())
    displacement, travelled = (float(series[name][-1]) for name in ("displacement", "travelled"))
    watched = bool(np.isfinite(found.threshold))
    tiles = (
        Tile("Distance, first to last date", number(displacement, 2), "dimensionless"),
        Tile("Way travelled", number(travelled, 2), "sum of the daily steps"),
        Tile("Median step", number(float(step.median()), 3), "from one date to the next"),
        Tile("Dates in alarm", count(n_alarms) if watched else "n/a",
             f"of {count(int(series['statistic'].notnull().sum()))} watched"),
    )  # fmt: skip
    return Section(
        "The market's factors through time",
        "Factor states",
        "states",
        (
            "The state of a date is the law of the latent factors, known at its close. The "
            "distance between two dates is the Fisher-Rao distance of the two laws: 1 is about "
            "what one fully informed look at the factors tells apart with one standard error.",
            f"The law is {number(displacement, 2)} from where the span began, after a way of "
            f"{number(travelled, 2)}: {_wandering(displacement, travelled)}",
            found.about,
        ),
        tiles,
        (
            Drawing(
                figures.state_series(found),
                "Fisher-Rao distances of the factors' law, dimensionless. Top: from the date "
                "before. Middle: from the first date of the span."
                + (" Bottom: energy distance between the last 10 dates and the 10 before; a "
                   "cross is a date above the threshold." if watched else ""),
            ),
        ),
        (
            Table(
                "The largest steps of the span, dimensionless.",
                ("Date (close)", "Step", "From first date"),
                tuple(
                    (day(date), number(float(step.sel({DATE: date})), 3),
                     number(float(series["displacement"].sel({DATE: date})), 3))
                    for date in worst[DATE].values
                ),
            ),
        ),
    )  # fmt: skip


def _wandering(displacement: float, travelled: float) -> str:
    """Return whether the state went somewhere or back and forth."""
    share = displacement / travelled if travelled > 0.0 else 0.0
    if share < 0.2:
        return "it moves back and forth more than it goes anywhere."
    return "part of its movement has a direction."


def metric(contents: GeometryContents) -> Section | None:
    """Return ellipses over the cloud and what the two directions are."""
    plane = contents.plane
    if plane is None:
        return None
    rows = []
    for k, name in enumerate(("first", "second")):
        loadings = plane.loadings.values[k]
        order = np.argsort(-np.abs(loadings), kind="stable")[:MOST_LOADINGS]
        listed = ", ".join(
            f"{plane.loadings[FACTOR].values[f]} {number(loadings[f], 2, signed=True)}"
            for f in order
        )
        rows.append((name, percent(float(plane.shares[k]), 1), listed))
    return Section(
        "What returns can tell apart",
        "Metric",
        "metric",
        (
            f"The law of returns of {plane.date} is a function of exposure. Its Fisher metric "
            "says how well returns tell two exposures apart. Distances are dimensionless: "
            "one return tells exposures at distance 1 apart with about one standard error, and n "
            "returns see a distance as the root of n times as large.",
            "The maps show the law on the two directions in which exposures of that date vary "
            "most, through their mean, with the other directions held there. Units of both axes "
            "are standard deviations of the date's exposures.",
        ),
        figures=(
            Drawing(
                figures.metric_ellipses(plane),
                "Exposures of assets (grey), and around some points what 252 returns tell from "
                "the point with one standard error or less. A small ellipse: exposures are well "
                "seen. Where returns say nothing the damping, a prior worth one such year, holds "
                "it at one standard deviation.",
            ),
        ),
        tables=(
            Table(
                "The two principal directions: share of the exposures' variance and largest "
                "loadings, of unit length. Signs are free.",
                ("Direction", "Variance", "Largest loadings"),
                tuple(rows),
                3,
            ),
        ),
    )


def path(contents: GeometryContents) -> Section | None:
    """Return the geodesic against the straight line."""
    plane = contents.plane
    if plane is None or not plane.path.sizes["point"]:
        return None
    found = plane.path.attrs
    longer = found["line"] / found["distance"] - 1.0
    return Section(
        "The shortest way between two exposures",
        "Geodesic",
        "geodesic",
        (
            f"From {found['start']} to {found['end']} on {plane.date}: the geodesic is "
            f"{number(found['distance'], 3)} long, the straight line of exposures "
            f"{number(found['line'], 3)}, {percent(longer, 1)} longer. It is the pair that the "
            f"straight line misses by most, of {count(found['n_converged'])} pairs of assets about "
            "1.5 standard deviations from the mean"
            + (
                f" ({count(found['n_pairs'] - found['n_converged'])} more did not converge)."
                if found["n_pairs"] > found["n_converged"]
                else "."
            ),
        ),
        figures=(
            Drawing(
                figures.geodesic_path(plane),
                "The way along which the law of returns changes least (solid) and the straight "
                "line (dashed). The geodesic goes round exposures at which a small change changes "
                "the law a lot.",
            ),
        ),
        tables=(
            Table(
                "Length in the damped metric, dimensionless, and in percent of the geodesic.",
                ("Way", "Length", "Relative"),
                tuple(
                    (name, number(found[key], 3), percent(found[key] / found["distance"], 1))
                    for name, key in (("geodesic", "distance"), ("straight line", "line"))
                ),
            ),
        ),
    )


def curvature(contents: GeometryContents) -> Section | None:
    """Return curvature where it is identified, and where two directions are seen at all."""
    plane = contents.plane
    if plane is None:
        return None
    grid = plane.grid
    inside = grid["inside"].values
    seen = grid["identified"].values
    share = seen.sum() / max(int(inside.sum()), 1)
    drawings = [
        Drawing(
            figures.visibility_map(plane),
            "Returns until the less visible direction is one standard error per standard "
            "deviation of exposure. Above 252 a year of returns sees one direction alone. Cells "
            "with no asset within half a standard deviation are empty.",
        )
    ]
    words = (
        f"Returns of one year see both directions at {percent(share, 0)} of the cells that have "
        "assets near them."
    )
    if seen.any():
        values = grid["curvature"].values[seen]
        words += (
            f" There the median curvature is {number(float(np.median(values)), 1)}; "
            "normal laws with free mean and scale have -0.5.".replace("-", "−")
        )
        drawings.append(
            Drawing(
                figures.curvature_map(plane),
                "Curvature of the plane. Below 0 straight ways spread apart, above 0 they meet "
                "again. Grey: a year of returns sees one direction alone, and any curvature there "
                "is noise. Colours end at the 90% quantile.",
            )
        )
    else:
        words += " The curvature is therefore identified nowhere, and is not drawn."
    return Section(
        "Where curvature means something",
        "Curvature",
        "curvature",
        (words, "Curvature is a property of the fitted law, not of prices."),
        figures=tuple(drawings),
    )


def crowding(contents: GeometryContents) -> Section | None:
    """Return where assets are close together, and whether they draw together."""
    plane, flow = contents.plane, contents.flow
    paragraphs, drawings, tables = [], [], []
    if plane is not None and plane.crowding:
        level = plane.crowding
        paragraphs.append(_level_text(plane))
        drawings.append(
            Drawing(
                figures.crowding_map(plane),
                f"Assets on {plane.date}, equal weights, by the Laplacian of their log density: "
                "more negative is more crowded. In a normal cloud it is the same everywhere; a "
                "cluster or a sharp edge stands out below. A cross has too few neighbours to say. "
                "Colours end at the 98% quantile.",
            )
        )
        tables.append(
            Table(
                "Mean Laplacian over assets, per squared standard deviation, and of the two "
                "directions permuted over assets (95%).",
                ("Date", "Level", "Permuted", "Excess (null sd)", "p-value"),
                ((plane.date, number(level["level"], 2),
                  interval(level["null_lower"], level["null_upper"], 2),
                  number(level["excess"], 1, signed=True), p_value(level["p_value"])),),
            )
        )  # fmt: skip
    if flow is not None:
        mean = flow.mean
        paragraphs.append(_flow_text(mean))
        drawings.append(
            Drawing(
                figures.flow_series(flow),
                "Divergence of the flow of exposures on the plane, per date: below 0 they draw "
                f"together. Exposures {flow.lag} dates earlier are instruments, so that noise in "
                "exposures does not look like contraction. Band: flows permuted over assets. Gaps: "
                "not identified.",
            )
        )
        tables.append(
            Table(
                "Mean divergence over the identified dates, per date; interval by Newey-West.",
                ("Identified dates", "Left out", "Mean", "95% interval", "p-value"),
                ((count(mean["n_dates"]), count(mean["n_skipped"]), number(mean["divergence"], 4),
                  interval(mean["lower"], mean["upper"], 4), p_value(mean["p_value"])),),
            )
        )  # fmt: skip
    if not drawings:
        return None
    return Section(
        "Crowding",
        "Crowding",
        "crowding",
        tuple(paragraphs),
        figures=tuple(drawings),
        tables=tuple(tables),
    )


def _level_text(plane: ExposurePlane) -> str:
    """Return what the density's level says beside its null."""
    excess = plane.crowding["excess"]
    if not np.isfinite(excess):
        return "The level of crowding has no null to be read against on this date."
    if plane.crowding["null_lower"] <= plane.crowding["level"] <= plane.crowding["null_upper"]:
        return "Assets are as crowded as the two directions taken one by one would make them."
    side = "more" if excess < 0.0 else "less"
    return (
        f"Assets are {side} crowded than the two directions taken one by one would make them, by "
        f"{number(abs(excess), 1)} null standard deviations."
    )


def _flow_text(mean: Mapping[str, float]) -> str:
    """Return what the mean divergence says."""
    if not mean["n_dates"]:
        return "The flow of exposures is identified on no date: its instruments are weak."
    text = "There is no sign that exposures draw together or apart on average."
    if mean["upper"] < 0.0:
        text = "On average exposures drift towards each other."
    elif mean["lower"] > 0.0:
        text = "On average exposures drift apart."
    return (
        f"{text} Drifting back to the middle is no proof of crowding: in a steady market assets "
        "are thrown out again by what happens to them alone."
    )
