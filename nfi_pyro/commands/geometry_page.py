"""`nfi geometry`: a run in, one offline HTML page of its information geometry out."""

from pathlib import Path

from nfi_pyro.commands.geometry_parts import (
    PERMUTATIONS,
    dates_of,
    flow_of,
    instrument_lag,
    laws_of,
    principal_axes,
)
from nfi_pyro.commands.geometry_plane import plane_of
from nfi_pyro.commands.geometry_task import GeometryTask
from nfi_pyro.commands.opened_run import open_run, write_page
from nfi_pyro.commands.run_directory import describe_provenance
from nfi_pyro.commands.state_movement import movement_of
from nfi_pyro.data.labels import describe_label
from nfi_pyro.errors import SpecError
from nfi_pyro.rendering.geometry_contents import GeometryContents
from nfi_pyro.rendering.geometry_page import render_geometry
from nfi_pyro.svi.config import check_seed

VALIDATION = "validation"


def geometry(
    run: str | Path,
    out: str | Path,
    *,
    panel: str | Path | None = None,
    span: str | None = None,
    seed: int = 0,
    n_dates: int = 12,
) -> Path:
    """Write one HTML page, which needs nothing else, of a run's geometry; return its path.

    Says on standard error which part is being computed.

    Parameters
    ----------
    run : path
        Run directory; with restarts, its first fit is measured.
    out : path
        The HTML file.
    panel : path, optional
        Where the run's panel is now.
    span : {"validation", "test"}, optional
        Dates that are measured; the validation span by default, because whoever chooses models by
        looking at the test span has no test span any more.
    seed : int
        Of the permutations behind the nulls of crowding.
    n_dates : int
        Dates of the span on which the metric is computed, at most, evenly spaced up to the last;
        >= 1. Factor states and the flow of exposures are of all dates of the span.

    Raises
    ------
    RunError, CheckpointError, PanelError, SpecError
        Each names the place and the fix.
    """
    contents = collect_geometry(run, panel=panel, span=span, seed=seed, n_dates=n_dates)
    return write_page(out, render_geometry(contents))


def collect_geometry(
    run: str | Path,
    *,
    panel: str | Path | None = None,
    span: str | None = None,
    seed: int = 0,
    n_dates: int = 12,
) -> GeometryContents:
    """Return everything that the geometry page shows; arguments as in `geometry`."""
    if n_dates < 1:
        raise SpecError(
            f"n_dates must be at least 1; got {n_dates} at geometry. Leave it out for the default."
        )
    check_seed(seed)
    opened = open_run(run, panel=panel, span=span or VALIDATION)
    task = GeometryTask(opened.fit, opened.panel, opened.laws, opened.span, seed, n_dates)
    task.say(f"factor states of {len(task.dates)} dates")
    moved = movement_of(task.laws, task.span, task.fit.split.train)
    if isinstance(moved, str):
        task.left_out["states"] = moved
    laws = laws_of(task)
    plane = flow = dates = None
    if laws is not None:
        dates = dates_of(task, laws)
        centre, vectors, variances = principal_axes(laws.visited[-1])
        plane = plane_of(task, laws.visited[-1], centre, vectors, variances)
        if plane is None:
            task.left_out["flow"] = "There is no plane to follow a flow on: see above."
        else:
            flow = flow_of(task, laws.exposures, centre, vectors[:, :2])
    return GeometryContents(
        title=f"Geometry: {opened.title}",
        provenance=describe_provenance(task.fit),
        settings=_settings(task, opened.span_name, priced=laws is not None),
        label=describe_label(task.panel["forward_return"].attrs),
        evaluation_span=opened.describe_span(f"{len(task.dates)} with a forecast"),
        thinning=_thinning(task, priced=laws is not None),
        left_out=task.left_out,
        states=None if isinstance(moved, str) else moved,
        plane=plane,
        flow=flow,
        dates=dates,
    )


def _thinning(task: GeometryTask, *, priced: bool) -> str:
    """Return on which dates the metric was computed."""
    if not priced:
        return f"Factor states are of all {len(task.dates)} dates of the span."
    count = len(task.visited)
    if count == len(task.dates):
        return f"The metric is of all {count} dates of the span."
    return (
        f"The metric is of {count} of the {len(task.dates)} dates of the span, evenly spaced up "
        "to the last; factor states and the flow of exposures are of all its dates."
    )


def _settings(task: GeometryTask, name: str, *, priced: bool) -> dict[str, str]:
    """Return seeds and dates as text."""
    found = {
        "span": f"{name}, {task.span.first} to {task.span.last}",
        "dates of the span with a forecast": f"{len(task.dates):,}",
        "seed": str(task.seed),
    }
    if priced:
        found |= {
            "dates of the metric": f"{len(task.visited):,} (at most {task.n_dates:,})",
            "damping": "prior of weight 1 / 252 returns, the inverse covariance of exposures",
            "instrument of the flow": f"exposures {instrument_lag(task)} dates earlier",
            "permutations behind the flow's null": str(PERMUTATIONS),
        }
    return found
