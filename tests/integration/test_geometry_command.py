"""`nfi geometry` of small runs: every part that a model has, and what bad input gets."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from nfi_pyro.cli import app
from nfi_pyro.commands import fit, geometry, report
from nfi_pyro.commands.geometry_page import collect_geometry
from nfi_pyro.commands.geometry_parts import flow_of, principal_axes
from nfi_pyro.commands.geometry_plane import restricted
from nfi_pyro.commands.predicting import open_panel
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.commands.state_movement import ONE_DATE, movement_of
from nfi_pyro.data.splits import DateSpan
from nfi_pyro.errors import CheckpointError, RunError, SpecError
from nfi_pyro.geometry import FisherManifold, factor_states, state_distances
from nfi_pyro.posterior import pricing_law
from nfi_pyro.rendering import GeometryContents, render_geometry
from nfi_pyro.rendering.geometry_contents import StateMovement


@pytest.fixture(scope="module")
def contents(priced: Path) -> GeometryContents:
    return collect_geometry(priced)


# ---- the command ---------------------------------------------------------------------------------


def test_the_command_line_writes_a_whole_page_and_says_what_it_does(
    priced: Path, tmp_path: Path
) -> None:
    place = tmp_path / "deep" / "page.html"
    book, table = tmp_path / "growth.csv", tmp_path / "deep" / "table.csv"
    laws = RunDirectory(priced).load_forecast()
    names = laws.data["asset"].values[[0, 2, 3]]
    pd.DataFrame({"asset": names, "weight": [0.5, 0.3, 0.2]}).to_csv(book, index=False)
    options = ["--out", str(place), "--weights", str(book), "--table", str(table)]
    said = CliRunner().invoke(app, ["geometry", str(priced), *options])
    assert said.exit_code == 0, said.output
    assert f"geometry  {place}\ntable     {table}" in said.stdout
    assert "geometry: tracking of 43 dates" in said.stderr.splitlines()
    written = pd.read_csv(table, index_col="date", parse_dates=True)
    assert len(written) == 43
    for name in ("distance", "effective_rank", "crowding"):
        assert np.isfinite(written[name][written[f"{name}_ok"]]).all()
    assert written["distance_ok"].any()
    assert (written["distance"][written["distance_ok"]] > 0.0).all()
    page = place.read_text(encoding="utf-8")
    for name in ("fig-states", "fig-ellipses", "fig-geodesic", "fig-visibility"):
        assert f'id="{name}"' in page
    assert "<script" not in page
    assert "not trained on, but used to stop training" in page
    assert "The portfolio is growth, the benchmark the equal-weight book." in page
    assert "There are no intervals: the run is one fit with point weights" in page
    assert "Left out: Flow of exposures." in page  # 11 assets are too few
    assert "no finite value" not in page


def test_the_validation_span_is_measured_unless_the_test_span_is_asked_for(
    priced: Path, contents: GeometryContents
) -> None:
    split = RunDirectory(priced).load_fit().split
    assert split.test is not None
    for found, span in (
        (contents, split.validation),
        (collect_geometry(priced, span="test"), split.test),
    ):
        assert found.states is not None
        assert found.tracking is not None
        for table in (found.states.series, found.tracking.figures):
            days = [str(day)[:10] for day in table["date"].values[[0, -1]]]
            assert span.first <= days[0] <= days[1] <= span.last


def test_states_are_those_of_the_stored_forecasts(priced: Path, contents: GeometryContents) -> None:
    assert contents.states is not None
    series = contents.states.series
    laws = RunDirectory(priced).load_forecast()
    states = factor_states(laws).sel(date=series["date"])
    np.testing.assert_array_equal(series["step"], state_distances(states).step)
    assert np.isfinite(contents.states.threshold)
    assert "at most 11% of stretches" in contents.states.about  # 1 of 9: 8 stretches and itself
    assert bool(series["statistic"].notnull().all())


def test_the_plane_is_the_law_along_its_two_directions(
    priced: Path, contents: GeometryContents
) -> None:
    """Lengths of the metric on the plane are those of the whole law, damping aside."""
    run = RunDirectory(priced)
    law = pricing_law(run.load_fit(), open_panel(run, None), contents.plane.date)  # type: ignore[union-attr]
    centre, vectors, variances = principal_axes(law)
    axes = torch.tensor((vectors[:, :2] * np.sqrt(variances[:2])).T.copy())
    plane = FisherManifold(restricted(law, torch.tensor(centre), axes), eps=0.0)
    whole = FisherManifold(law, eps=0.0).metric(torch.tensor(centre))
    found = plane.metric(torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(found, axes @ whole @ axes.mT, rtol=1e-9, atol=1e-14)
    scores = np.stack([contents.plane.assets[name] for name in ("first", "second")])  # type: ignore[union-attr]
    np.testing.assert_allclose(np.cov(scores), np.eye(2), atol=1e-9)
    rebuilt = np.linalg.lstsq(vectors[:, :2], (law.beta.numpy() - centre).T, rcond=None)[0]
    np.testing.assert_allclose(scores, rebuilt / np.sqrt(variances[:2])[:, None], atol=1e-9)


def test_the_straight_line_is_never_shorter_than_the_geodesic(contents: GeometryContents) -> None:
    assert contents.plane is not None
    path = contents.plane.path
    assert path.attrs["line"] >= path.attrs["distance"] * (1.0 - 1e-6)
    assert path.attrs["n_converged"] > 0
    grid = contents.plane.grid
    assert not bool((grid["identified"] & ~grid["inside"]).any())
    assert bool(grid["returns_needed"].notnull().equals(grid["inside"]))


@pytest.mark.slow
def test_a_seed_leaves_the_global_generators_alone_and_gives_the_same_page(
    priced: Path, contents: GeometryContents
) -> None:
    before = torch.random.get_rng_state()
    again = collect_geometry(priced)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert render_geometry(again) == render_geometry(contents)


def test_a_model_without_a_pricing_law_gets_its_states_alone(
    finished: Path, tmp_path: Path
) -> None:
    found = collect_geometry(finished)
    assert found.states is not None
    assert (found.plane, found.flow, found.tracking) == (None, None, None)
    assert found.left_out.keys() == {"plane", "flow", "tracking"}
    page = render_geometry(found)
    assert "factor_vae prices hidden features, not exposures" in page
    assert 'id="tracking"' not in page
    with pytest.raises(SpecError, match="a tracking table must come from a pricing law"):
        geometry(finished, tmp_path / "g.html", table=tmp_path / "t.csv")


@pytest.mark.slow
def test_a_model_without_latent_factors_gets_its_law_alone(folder: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(
        'model = "mixture_pricing"\n[spec]\nhidden_size = 5\nn_components = 2\n'
        "[svi]\nn_epochs = 1\nblock_size = 32\n",
        encoding="utf-8",
    )
    fit(spec, folder / "panel.zarr", tmp_path / "run", threads=1, progress=False)
    found = collect_geometry(tmp_path / "run")
    assert found.states is None
    assert "no latent factors" in found.left_out["states"]
    assert found.plane is not None
    assert found.tracking is not None
    assert not found.tracking.ok["state_step"].any()
    assert "no latent factors" in render_geometry(found)


def test_the_risk_report_has_the_section_on_states(priced: Path, tmp_path: Path) -> None:
    page = report(priced, tmp_path / "risk.html").read_text(encoding="utf-8")
    assert page.count('id="fig-states"') == 1
    assert page.index('id="factors"') < page.index('id="states"') < page.index('id="exposures"')


def test_an_alarm_needs_training_dates(finished: Path) -> None:
    run = RunDirectory(finished)
    laws, split = run.load_forecast(), run.load_fit().split
    days = laws.data["date"].values
    short = DateSpan(str(days[0])[:10], str(days[101])[:10])
    found = movement_of(laws, split.validation, short)
    assert isinstance(found, StateMovement)
    assert np.isnan(found.threshold)
    assert not bool(found.series["alarm"].any())
    assert "needs 103 training dates" in found.about
    enough = DateSpan(short.first, str(days[102])[:10])
    found = movement_of(laws, split.validation, enough)
    assert isinstance(found, StateMovement)
    assert np.isfinite(found.threshold)
    last = DateSpan(split.validation.last, split.validation.last)
    assert movement_of(laws, last, split.train) == ONE_DATE


@pytest.mark.parametrize("kappa", [0.1, -0.1])
def test_a_planted_flow_has_its_sign_on_a_plane_that_is_turned_and_scaled(kappa: float) -> None:
    """Divergence is the trace: minus twice kappa, whatever the axes."""
    rng = np.random.default_rng(3)
    days = pd.bdate_range("2024-01-02", periods=16).values
    start = rng.normal(size=(200, 3))
    values = np.stack([start * np.exp(-kappa * t) for t in range(16)])
    values += 1e-3 * rng.normal(size=values.shape)
    labels = {"date": days, "asset": np.arange(200), "factor": list("abc")}
    exposures = xr.DataArray(values, labels, ("date", "asset", "factor"))
    task: Any = SimpleNamespace(
        instrument_lag=3, dates=days[6:], seed=0, left_out={}, say=lambda part: None,
    )  # fmt: skip
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0][:, :2] * [2.0, 0.5]
    found = flow_of(task, exposures, np.ones(3), axes)
    assert found is not None
    np.testing.assert_array_equal(found.series["date"], days[6:])
    per_date = 2.0 * (np.exp(-kappa) - 1.0)
    np.testing.assert_allclose(found.series["divergence"], per_date, atol=0.01)
    assert bool(found.series["identified"].all())
    few = flow_of(task, exposures.isel(asset=slice(29)), np.ones(3), axes)
    assert few is None
    assert "at most 29 assets" in task.left_out["flow"]


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": -1}, "seed"),
        ({"span": "training"}, "span must be test or validation; got 'training'"),
    ],
)
def test_options_out_of_range_are_refused(
    finished: Path, tmp_path: Path, options: dict[str, int | str], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        geometry(finished, tmp_path / "g.html", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "g.html").exists()


def test_no_run_and_damaged_files_are_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a run directory must hold manifest.json"):
        geometry(tmp_path / "none", tmp_path / "g.html")
    run = shutil.copytree(finished, tmp_path / "run")
    content = (run / "forecast.nc").read_bytes()
    (run / "forecast.nc").write_bytes(content[:-5])
    with pytest.raises(CheckpointError, match=r"forecast\.nc must match its digest"):
        geometry(run, tmp_path / "g.html")
    (run / "forecast.nc").write_bytes(content)
    RunDirectory(run).write_run(tmp_path / "gone.zarr")
    with pytest.raises(RunError, match="Pass --panel with its new place"):
        geometry(run, tmp_path / "g.html")


def test_a_run_without_a_test_span_has_none_to_open(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    trained = RunDirectory(run).load_fit()
    replace(trained, split=replace(trained.split, test=None)).save(run)
    with pytest.raises(SpecError, match="a test span must be in the split of the run"):
        geometry(run, tmp_path / "g.html", span="test")
