"""`nfi diagnose` of a small run and of every kind of model, and what bad input gets."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nfi_pyro.cli import app
from nfi_pyro.commands import diagnose, fit
from nfi_pyro.commands.diagnosing import collect_diagnosis
from nfi_pyro.commands.diagnosing_forecast import information_of
from nfi_pyro.commands.diagnosis_task import DiagnosisTask
from nfi_pyro.commands.restarting import RestartSettings, fit_restarts
from nfi_pyro.commands.run_directory import RESTARTS, RunDirectory
from nfi_pyro.errors import CheckpointError, RunError, SpecError
from nfi_pyro.rendering import DiagnosisContents, render_diagnosis

SMALL: dict[str, Any] = {"draws": 100, "n_dates": 7}
SPECS = {
    "linear_factor": 'noise = "student_t"',
    "mixture_pricing": "hidden_size = 5\nn_components = 2",
}
HEADS = """
model = "nfi"
[spec]
lags = 3
projection_size = 5
hidden_size = 7
n_factors = 2
n_portfolios = 5
prior_hidden_size = 5
pricing_size = 5
n_components = 2
[spec.heads]
kind = "low_rank"
[svi]
n_epochs = 1
block_size = 32
"""


@pytest.fixture(scope="module")
def contents(finished: Path) -> DiagnosisContents:
    return collect_diagnosis(finished, **SMALL)


# ---- the command ---------------------------------------------------------------------------------


def test_the_command_line_writes_a_whole_page_and_says_what_it_does(
    finished: Path, tmp_path: Path
) -> None:
    place = tmp_path / "deep" / "page.html"
    said = CliRunner().invoke(
        app,
        ["diagnose", str(finished), "--out", str(place), "--draws", "100", "--n-dates", "5"],
    )
    assert said.exit_code == 0, said.output
    assert f"diagnosis {place}" in said.stdout
    parts = [line for line in said.stderr.splitlines() if line.startswith("diagnose: ")]
    assert "diagnose: importance weights of the encoder on 5 dates" in parts
    assert len(parts) == len(set(parts)) >= 8
    page = place.read_text(encoding="utf-8")
    for heading in ("Verdicts", "Training", "Factors in use", "Importance weights",
                    "Simulated truths", "Calibration of assets", "Spread against skill",
                    "Predictive checks", "Mean Rank IC", "Scores against baselines"):  # fmt: skip
        assert f">{heading}<" in page
    assert "<script" not in page
    assert "not trained on, but used to stop training" in page
    assert "5 evenly spaced dates of the span, one in 9" in page
    assert "no finite value" not in page


def test_the_validation_span_is_judged_unless_the_test_span_is_asked_for(
    finished: Path, contents: DiagnosisContents
) -> None:
    split = RunDirectory(finished).load_fit().split
    assert split.test is not None
    dates = contents.calibration.pit["date"].values
    assert str(dates[0])[:10] >= split.validation.first
    assert str(dates[-1])[:10] <= split.validation.last
    opened = collect_diagnosis(finished, span="test", **SMALL)
    assert opened.evaluation_span.startswith(f"test dates {split.test.first}")
    assert str(opened.calibration.pit["date"].values[0])[:10] >= split.test.first


def test_the_parts_are_of_the_dates_that_the_page_says(contents: DiagnosisContents) -> None:
    n_dates = contents.calibration.pit.sizes["date"]
    assert n_dates == 43
    assert contents.thinning.endswith("of all its dates.")
    posterior, encoder = contents.importance
    assert (posterior.guide, encoder.guide) == ("posterior", "encoder")
    dates = contents.calibration.pit["date"].values[::7]
    visited = [posterior.k_hat, encoder.k_hat, *(one.ranks for one in contents.simulations)]
    for by_date in visited:
        np.testing.assert_array_equal(by_date["date"].values, dates)
    assert contents.predictive is not None
    np.testing.assert_array_equal(contents.predictive.by_date["date"].values, dates)
    assert contents.portfolios is not None
    assert contents.portfolios.coverage.n_dates.to_numpy().tolist() == [n_dates] * 21
    assert {test.n_dates for test in contents.portfolios.backtests} == {n_dates}
    assert contents.left_out.keys() == {"heads", "restarts"}


def test_the_posterior_of_one_component_is_exact_and_the_density_is_one(
    contents: DiagnosisContents,
) -> None:
    posterior = contents.importance[0]
    assert posterior.verdict.grade == "good"
    assert float(abs(posterior.gap).max()) < 1e-8
    information = contents.information
    assert information is not None
    density = information.density
    step = float(np.diff(density["mean"]).mean())
    assert float(density.sum()) * step == pytest.approx(1.0, abs=1e-4)
    mean = float((density * density["mean"]).sum()) * step
    assert mean == pytest.approx(information.posterior.mean, abs=1e-4)


def test_gaussian_portfolios_are_scored_in_closed_form(
    finished: Path, contents: DiagnosisContents
) -> None:
    laws = RunDirectory(finished).load_forecast()
    found = contents.portfolios
    assert found is not None
    assert found.series is not None
    date = found.series["date"].values[11]
    day = laws.on(date)
    assets = day["asset"].values[day["entered"].values]
    law = laws.portfolio(dict.fromkeys(assets, 1.0 / len(assets)), date)
    tails = law.tail_risks((0.95, 0.99))
    risk = found.series.sel(date=date)
    np.testing.assert_allclose(risk["value_at_risk"], [one[0][0] for one in tails], rtol=1e-12)
    np.testing.assert_allclose(risk["expected_shortfall"], [one[1][0] for one in tails])


def test_a_seed_gives_the_same_results_and_another_seed_others(
    finished: Path, contents: DiagnosisContents
) -> None:
    same, other = (collect_diagnosis(finished, seed=seed, **SMALL) for seed in (0, 1))
    for found, equal in ((same, True), (other, False)):
        assert found.importance[1].k_hat.equals(contents.importance[1].k_hat) == equal
        assert found.simulations[0].ranks.equals(contents.simulations[0].ranks) == equal
        assert found.portfolios is not None
        assert contents.portfolios is not None
        spread = found.portfolios.coverage.spread
        assert spread.equals(contents.portfolios.coverage.spread) == equal
    assert other.scores.table.equals(contents.scores.table)  # nothing is drawn for these


# ---- every kind of model -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["mixture_pricing", pytest.param("linear_factor", marks=pytest.mark.slow)]
)
def test_what_a_model_does_not_have_is_left_out_with_its_reason(
    folder: Path, tmp_path: Path, name: str
) -> None:
    spec = tmp_path / "spec.toml"
    svi = "[svi]\nn_epochs = 1\nblock_size = 32\n"
    spec.write_text(f'model = "{name}"\n[spec]\n{SPECS[name]}\n{svi}', encoding="utf-8")
    fit(spec, folder / "panel.zarr", tmp_path / "run", threads=1, progress=False)
    found = collect_diagnosis(tmp_path / "run", **SMALL)
    page = render_diagnosis(found)
    no_factors = {"collapse", "importance", "simulation", "predictive"}
    has_factors = name == "linear_factor"
    assert (no_factors & found.left_out.keys() == set()) == has_factors
    assert found.portfolios is not None
    assert {one.guide for one in found.importance} == ({"posterior"} if has_factors else set())
    assert all(why in page for why in found.left_out.values() if "'" not in why)
    assert "no finite value" not in page


@pytest.mark.slow
def test_random_last_layers_and_restarts_are_compared(folder: Path, tmp_path: Path) -> None:
    spec = tmp_path / "heads.toml"
    spec.write_text(HEADS, encoding="utf-8")
    run = tmp_path / "run"
    settings = RestartSettings(2, jobs=1)
    fit_restarts(spec, folder / "panel.zarr", run, restarts=settings, progress=False)
    found = collect_diagnosis(run, **SMALL)
    assert found.left_out == {}
    assert found.heads is not None
    assert found.restarts is not None
    assert found.restarts.n_restarts == 2
    assert "heads_kl" in found.history
    page = render_diagnosis(found)
    for name in ("fig-heads", "fig-heads-kl", "fig-r-hat", "fig-restarts"):
        assert f'id="{name}"' in page
    shutil.rmtree(run / RESTARTS / "1")
    with pytest.raises(RunError, match="every restart of a run must be finished to be diagnosed"):
        collect_diagnosis(run, **SMALL)


def test_a_rank_ic_that_does_not_vary_is_left_out(contents: DiagnosisContents) -> None:
    skill = contents.information_coefficient
    same = replace(skill, rank_ic=skill.rank_ic * 0.0)
    nothing: Any = None
    task = DiagnosisTask(nothing, nothing, nothing, nothing, draws=100, seed=0, n_dates=7)
    assert information_of(task, same) is None
    assert "43 dates have a Rank IC" in task.left_out["information"]


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_dates": 0}, "n_dates must be at least 1; got 0"),
        ({"draws": 99}, "draws must be at least 100; got 99"),
        ({"seed": -1}, "seed"),
        ({"span": "training"}, "span must be test or validation; got 'training'"),
    ],
)
def test_options_out_of_range_are_refused(
    finished: Path, tmp_path: Path, options: dict[str, int | str], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        diagnose(finished, tmp_path / "d.html", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "d.html").exists()


def test_no_run_and_damaged_files_are_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a run directory must hold manifest.json"):
        diagnose(tmp_path / "none", tmp_path / "d.html")
    run = shutil.copytree(finished, tmp_path / "run")
    for name in ("forecast.nc", "history.nc"):
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[:-5])
        with pytest.raises(CheckpointError, match=f"{name} must match its digest"):
            diagnose(run, tmp_path / "d.html")
        (run / name).write_bytes(content)
    RunDirectory(run).write_run(tmp_path / "gone.zarr")
    with pytest.raises(RunError, match="Pass --panel with its new place"):
        diagnose(run, tmp_path / "d.html")
    assert not (tmp_path / "d.html").exists()


def test_a_run_without_a_test_span_has_none_to_open(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    trained = RunDirectory(run).load_fit()
    replace(trained, split=replace(trained.split, test=None)).save(run)
    with pytest.raises(SpecError, match="a test span must be in the split of the run"):
        diagnose(run, tmp_path / "d.html", span="test")


def test_help_of_the_command_names_the_default_span() -> None:
    said = CliRunner().invoke(app, ["diagnose", "--help"])
    assert said.exit_code == 0
    assert "validation" in said.output
