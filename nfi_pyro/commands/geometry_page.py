"""`nfi geometry`: a run in, one offline HTML page of its information geometry out."""

from pathlib import Path

from nfi_pyro.commands.geometry_parts import PERMUTATIONS, flow_of, laws_of, principal_axes
from nfi_pyro.commands.geometry_plane import plane_of
from nfi_pyro.commands.geometry_task import GeometryTask
from nfi_pyro.commands.opened_run import open_run, write_page
from nfi_pyro.commands.run_directory import describe_provenance
from nfi_pyro.commands.run_members import members_of
from nfi_pyro.commands.state_movement import movement_of
from nfi_pyro.commands.tracked_run import track_run
from nfi_pyro.data.labels import describe_label
from nfi_pyro.errors import SpecError
from nfi_pyro.geometry.results.tracking import Tracking
from nfi_pyro.portfolio.weights import read_weights
from nfi_pyro.rendering.geometry_contents import GeometryContents
from nfi_pyro.rendering.geometry_page import render_geometry
from nfi_pyro.svi.checkpoint import make_folder, write_atomically
from nfi_pyro.svi.config import check_seed

VALIDATION = "validation"


def geometry(
    run: str | Path,
    out: str | Path,
    *,
    weights: str | Path | None = None,
    benchmark: str | Path | None = None,
    panel: str | Path | None = None,
    span: str | None = None,
    table: str | Path | None = None,
    seed: int = 0,
) -> Path:
    """Write one HTML page, which needs nothing else, of a run's geometry; return its path.

    Says on standard error which part is being computed.

    Parameters
    ----------
    run : path
        Run directory; with restarts, its first fit is measured and all of them give intervals.
    out : path
        The HTML file.
    weights, benchmark : path, optional
        CSV of asset and weight, held on all dates; the equal-weight book by default.
    panel : path, optional
        Where the run's panel is now.
    span : {"validation", "test"}, optional
        Dates that are measured; the validation span by default, because whoever chooses models by
        looking at the test span has no test span any more.
    table : path, optional
        CSV file for the whole tracking table: every figure by date, its flag and its bounds.
    seed : int
        Of the permutations behind the nulls of crowding, and of draws of random last layers.

    Raises
    ------
    RunError, CheckpointError, PanelError, SpecError, WeightsError
        Each names the place and the fix.
    """
    contents = collect_geometry(
        run, weights=weights, benchmark=benchmark, panel=panel, span=span, seed=seed
    )
    if table is not None:
        write_tracking(contents.tracking, Path(table))
    return write_page(out, render_geometry(contents))


def collect_geometry(
    run: str | Path,
    *,
    weights: str | Path | None = None,
    benchmark: str | Path | None = None,
    panel: str | Path | None = None,
    span: str | None = None,
    seed: int = 0,
) -> GeometryContents:
    """Return everything that the geometry page shows; arguments as in `geometry`."""
    check_seed(seed)
    book = None if weights is None else read_weights(weights)
    rival = None if benchmark is None else read_weights(benchmark)
    opened = open_run(run, panel=panel, span=span or VALIDATION)
    members = members_of(opened.folder, opened.fit, seed=seed)
    task = GeometryTask(opened.fit, opened.panel, opened.laws, opened.span, seed)
    task.say(f"factor states of {len(task.dates)} dates")
    moved = movement_of(task.laws, task.span, task.fit.split.train)
    if isinstance(moved, str):
        task.left_out["states"] = moved
    laws = laws_of(task)
    plane = flow = tracking = None
    if laws is not None:
        tracking = track_run(task, laws.laws, members, portfolio=book, benchmark=rival)
        centre, vectors, variances = principal_axes(laws.laws[-1])
        plane = plane_of(task, laws.laws[-1], centre, vectors, variances)
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
        left_out=task.left_out,
        states=None if isinstance(moved, str) else moved,
        plane=plane,
        flow=flow,
        tracking=tracking,
        books=(_name_book(weights), _name_book(benchmark)),
    )


def write_tracking(tracking: Tracking | None, place: Path) -> None:
    """Write a tracking table as CSV, a row for each date.

    Raises
    ------
    SpecError
        If the run's model has no pricing law, and so no table.
    """
    if tracking is None:
        raise SpecError(
            f"a tracking table must come from a pricing law; got a run without one at {place}. "
            "Leave --table out: the page says why there is none."
        )
    make_folder(place.parent)
    frame = tracking.to_dataset().to_dataframe()
    write_atomically(place, lambda path: frame.to_csv(path))


def _name_book(path: str | Path | None) -> str:
    """Return what a book is called on the page."""
    return "the equal-weight book" if path is None else Path(path).stem


def _settings(task: GeometryTask, name: str, *, priced: bool) -> dict[str, str]:
    """Return seeds and dates as text."""
    found = {
        "span": f"{name}, {task.span.first} to {task.span.last}",
        "dates of the span with a forecast": f"{len(task.dates):,}",
        "seed": str(task.seed),
    }
    if priced:
        found |= {
            "damping": "prior of weight 1 / 252 returns, the inverse covariance of exposures",
            "instrument of the flow": f"exposures {task.instrument_lag} dates earlier",
            "permutations behind the flow's null": str(PERMUTATIONS),
        }
    return found
