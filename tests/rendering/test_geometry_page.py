"""The geometry page: every part on it, what is not identified masked, whole, offline, escaped."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.geometry.results.tracking import Tracking
from nfi_pyro.rendering import GeometryContents, render_geometry
from nfi_pyro.rendering.geometry_contents import ExposureFlow, ExposurePlane, StateMovement
from nfi_pyro.rendering.geometry_page import build_geometry
from tests.rendering.test_report import Page

ATTACK = "<script>alert(1)</script>"
ANCHORS = (
    "overview", "states", "tracking", "metric", "geodesic", "curvature", "crowding", "settings",
)  # fmt: skip
FIGURES = (
    "fig-states", "fig-tracking", "fig-ellipses", "fig-geodesic", "fig-visibility", "fig-curvature",
    "fig-crowding", "fig-flow",
)  # fmt: skip
DATES = pd.bdate_range("2024-01-02", periods=40).values


def make_plane() -> ExposurePlane:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(60, 2))
    names = [ATTACK, *(f"S{k:02d}" for k in range(59))]
    crowding = rng.normal(-2.0, 1.0, 60)
    crowding[:3] = np.nan
    axis = np.linspace(-2.0, 2.0, 9)
    inside = np.hypot(*np.meshgrid(axis, axis)) < 1.9
    seen = inside & (axis > 0.0)
    turn = np.linspace(0.0, np.pi, 17)
    dims = ("second", "first")
    return ExposurePlane(
        date="2024-02-26",
        assets=xr.Dataset(
            {"first": ("asset", scores[:, 0]), "second": ("asset", scores[:, 1]),
             "crowding": ("asset", crowding)},
            {"asset": names},
        ),
        shares=xr.DataArray([0.6, 0.3], dims="direction"),
        loadings=xr.DataArray(
            np.eye(2, 3), {"factor": ["A&B", "z1", "z2"]}, ("direction", "factor")
        ),
        ellipses=xr.Dataset(
            {"first": ("point", [0.0, 1.0]), "second": ("point", [0.0, 0.0]),
             "metric": (("point", "row", "column"), np.stack([np.diag([0.1, 0.005])] * 2))}
        ),
        eps=1.0 / 252,
        path=xr.Dataset(
            {"first": ("point", -np.cos(turn)), "second": ("point", np.sin(turn))},
            attrs={"start": ATTACK, "end": "S01", "distance": 0.4, "line": 0.5, "n_pairs": 28,
                   "n_converged": 27},
        ),
        grid=xr.Dataset(
            {"returns_needed": (dims, np.where(inside, 300.0 + axis, np.nan)),
             "curvature": (dims, np.where(inside, -3.0, np.nan)),
             "identified": (dims, seen), "inside": (dims, inside)},
            {"second": axis, "first": axis},
        ),
        crowding={"level": -2.0, "null_lower": -1.8, "null_upper": -1.6, "excess": -6.0,
                  "p_value": 0.025},
    )  # fmt: skip


def make_flow() -> ExposureFlow:
    value = np.full(40, -0.05)
    series = xr.Dataset(
        {"divergence": ("date", value), "null_lower": ("date", value * 0.0 - 0.01),
         "null_upper": ("date", value * 0.0 + 0.01), "identified": ("date", value < 0.0)},
        {"date": DATES},
    )  # fmt: skip
    mean = {"divergence": -0.05, "lower": -0.06, "upper": -0.04, "p_value": 0.01, "n_dates": 40.0,
            "n_skipped": 0.0}  # fmt: skip
    return ExposureFlow(series, mean, lag=20)


def make_states(*, alarm: bool) -> StateMovement:
    step = np.r_[np.nan, np.full(39, 0.1)]
    travelled = np.r_[0.0, np.cumsum(step[1:])]
    statistic = np.linspace(0.0, 1.0, 40)
    return StateMovement(
        xr.Dataset(
            {"step": ("date", step), "travelled": ("date", travelled),
             "displacement": ("date", 0.1 * travelled),
             "statistic": ("date", statistic if alarm else np.full(40, np.nan)),
             "alarm": ("date", (statistic > 0.75) & alarm)},
            {"date": DATES},
        ),
        0.75 if alarm else np.nan,
        "How it was calibrated." if alarm else "There is no alarm: too few dates.",
    )  # fmt: skip


def make_tracking() -> Tracking:
    """Figures of 40 dates; curvature is identified on the last alone."""
    count = len(DATES)
    names = ("state_step", "state_displacement", "distance", "effective_rank",
             "principal_curvature", "crowding", "crowding_standard_error", "mahalanobis",
             "portfolio_uncovered", "n_assets")  # fmt: skip
    values = {name: ("date", np.full(count, 0.25 + 0.5 * k)) for k, name in enumerate(names)}
    values["portfolio_uncovered"] = ("date", np.zeros(count))
    figures = xr.Dataset(values, {"date": DATES})
    ok = figures.notnull()
    ok["principal_curvature"] &= xr.DataArray(np.arange(count) == count - 1, dims="date")
    bounds = xr.concat(
        [0.9 * figures, 1.1 * figures], xr.DataArray(["lower", "upper"], dims="bound")
    )
    factors = ["z0", "z1"]
    square = xr.DataArray(np.eye(2), {"factor": factors, "factor_other": factors})
    return Tracking(
        figures=figures,
        ok=ok,
        exposure=xr.DataArray(np.zeros((2, count, 2)), dims=("book", "date", "factor")),
        interval=bounds.assign_coords(bound=["lower", "upper"]),
        interval_source="Intervals span 90% of 3 restarts.",
        level=0.9,
        precision=square,
        precision_source="exposures of the first date with a law",
        eps=1.0 / 252,
        shifts=None,
    )


@pytest.fixture(scope="module")
def contents() -> GeometryContents:
    return GeometryContents(
        title=f"Geometry: nfi on {ATTACK}",
        provenance={"Model": {"model": "nfi"}},
        settings={"seed": "0"},
        label="simple return",
        evaluation_span="validation dates",
        left_out={},
        states=make_states(alarm=True),
        plane=make_plane(),
        flow=make_flow(),
        tracking=make_tracking(),
        books=(ATTACK, "the equal-weight book"),
    )


@pytest.fixture(scope="module")
def page(contents: GeometryContents) -> str:
    return render_geometry(contents)


def test_every_section_and_figure_is_there_once_in_order(page: str) -> None:
    parsed = Page(page)
    assert [s["attrs"]["id"] for s in parsed.all("section")] == list(ANCHORS)
    assert [s["attrs"]["id"] for s in parsed.all("svg")] == list(FIGURES)
    assert "no finite value" not in page


def test_the_page_is_offline_escaped_and_the_same_each_time(
    contents: GeometryContents, page: str
) -> None:
    assert "<script" not in page
    assert "http" not in page
    assert "&lt;script&gt;" in page
    assert render_geometry(contents) == page


def test_numbers_and_words_follow_the_results(page: str) -> None:
    assert "25.0% longer" in page
    assert "(1 more did not converge)" in page
    assert "Assets are more crowded" in page
    assert "drift towards each other" in page
    assert "the median curvature is −3.0" in page


def test_what_is_not_identified_is_not_printed(contents: GeometryContents) -> None:
    (found,) = (part for part in build_geometry(contents) if part.anchor == "tracking")
    summary = {row[0]: row[1:] for row in found.tables[0].rows}
    assert summary["Curvature"][0] == "1"
    assert summary["Distance"] == ("40", "1.25", "1.25 to 1.25", "1.12 to 1.38")
    by_date = found.tables[1]
    place = by_date.header.index("Curvature")
    assert [row[place] for row in by_date.rows] == ["n/a"] * 9 + ["2.2"]


def test_one_book_has_no_distance_to_show(contents: GeometryContents) -> None:
    page = render_geometry(dataclasses.replace(contents, books=("one", "one")))
    assert "Give weights to see its distance" in page
    assert "Distance from\nbenchmark" not in page
    assert ">Distance<" not in page


def test_no_map_is_drawn_where_curvature_is_identified_nowhere(contents: GeometryContents) -> None:
    plane = contents.plane
    assert plane is not None
    grid = plane.grid.assign(identified=plane.grid["identified"] & False)
    page = render_geometry(
        dataclasses.replace(contents, plane=dataclasses.replace(plane, grid=grid))
    )
    assert 'id="fig-curvature"' not in page
    assert 'id="fig-visibility"' in page
    assert "identified nowhere" in page


def test_flow_without_an_identified_date_says_so(contents: GeometryContents) -> None:
    flow = contents.flow
    assert flow is not None
    none = flow.series.assign(identified=flow.series["identified"] & False)
    mean = dict.fromkeys(flow.mean, np.nan) | {"n_dates": 0.0, "n_skipped": 40.0}
    page = render_geometry(
        dataclasses.replace(contents, flow=dataclasses.replace(flow, series=none, mean=mean))
    )
    assert "identified on no date" in page
    assert "no finite value" in page


def test_what_is_left_out_stands_with_its_reason(contents: GeometryContents) -> None:
    why = "factor_vae prices hidden features."
    bare = dataclasses.replace(
        contents,
        states=make_states(alarm=False),
        plane=None,
        flow=None,
        tracking=None,
        left_out=dict.fromkeys(("plane", "flow", "tracking"), why),
    )
    assert [section.anchor for section in build_geometry(bare)] == [
        "overview",
        "states",
        "settings",
    ]
    page = render_geometry(bare)
    assert page.count(why) == 3
    assert "There is no alarm" in page
    assert "threshold</text>" not in page
