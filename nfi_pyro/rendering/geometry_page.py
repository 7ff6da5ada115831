"""One self-contained HTML page of the geometry of a run."""

from nfi_pyro.rendering.geometry_contents import GeometryContents
from nfi_pyro.rendering.geometry_sections import crowding, curvature, metric, path, states
from nfi_pyro.rendering.geometry_tracking import tracking
from nfi_pyro.rendering.html import render_sections
from nfi_pyro.rendering.page import Section
from nfi_pyro.rendering.tables import provenance_tables
from nfi_pyro.rendering.wording import sentence

PARTS = {
    "states": "Factor states",
    "plane": "Metric, geodesic, curvature and crowding on the principal plane",
    "flow": "Flow of exposures",
    "tracking": "Tracking by date",
}


def render_geometry(contents: GeometryContents) -> str:
    """Return the geometry of a run as one HTML page that refers to nothing outside itself.

    The same contents give the same bytes: the page holds no time of rendering. All text is
    escaped; only the drawings of `nfi_pyro.rendering.figures` are passed through as markup.

    Parameters
    ----------
    contents : GeometryContents
        Results of one run.

    Returns
    -------
    str
        A complete HTML document, to be written as UTF-8.
    """
    return render_sections(contents.title, build_geometry(contents))


def build_geometry(contents: GeometryContents) -> tuple[Section, ...]:
    """Return the sections of the page; what was left out is named in the first."""
    builders = (states, tracking, metric, path, curvature, crowding)
    found = [section for section in (builder(contents) for builder in builders) if section]
    return (_about(contents), *found, _settings(contents))


def _about(contents: GeometryContents) -> Section:
    """Return which dates were measured, and what was not."""
    return Section(
        "What was measured",
        "Overview",
        "overview",
        (
            sentence("Dates", contents.evaluation_span),
            sentence("Return", contents.label),
            "All of it describes the fitted law. A distance between exposures or dates says how "
            "well returns tell them apart, not what they earn.",
        ),
        notes=tuple(f"Left out: {PARTS[part]}. {why}" for part, why in contents.left_out.items()),
    )


def _settings(contents: GeometryContents) -> Section:
    """Return seeds, dates and provenance."""
    return Section(
        "Settings, seeds and provenance",
        "Settings",
        "settings",
        tables=provenance_tables({"This page": contents.settings, **contents.provenance}),
    )
