"""Restarts by the command line: run directories, resuming, one that fails, and the ensemble."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from nfi_pyro.cli import app
from nfi_pyro.commands import fit, restarting
from nfi_pyro.commands.predicting import forecast, forecast_restarts
from nfi_pyro.commands.restarting import RestartSettings, begun_restarts, fit_restarts
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.errors import CheckpointError, NfiError, PanelError, RunError, SpecError
from nfi_pyro.posterior import read_inference_data
from nfi_pyro.svi import SVIFit, checkpoint


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two restarts, made by the command line."""
    place = tmp_path_factory.mktemp("restarts") / "run"
    fitted = CliRunner().invoke(
        app,
        ["fit", str(folder / "spec.toml"), "--panel", str(folder / "panel.zarr"),
         "--out", str(place), "--restarts", "2"],
    )  # fmt: skip
    assert fitted.exit_code == 0, fitted.output
    assert "restart 1 of 2 (seed 1): finished after 2 epochs" in fitted.output
    assert fitted.output.count("validation log score") == 2
    return place


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Run what would be processes one after the other in this one; return how many there were."""
    ran = []

    def run_here(
        function: Callable[[Any], str],
        tasks: Sequence[Any],
        *,
        jobs: int,
        on_done: Callable[[int, str | Exception], None],
    ) -> list[str | Exception]:
        outcomes: list[str | Exception] = []
        for place, task in enumerate(tasks):
            try:
                outcomes.append(function(task))
            except NfiError as error:
                outcomes.append(error)
            on_done(place, outcomes[-1])
        ran.append(len(tasks))
        return outcomes

    monkeypatch.setattr(restarting, "run_processes", run_here)
    return ran


def weights(place: Path) -> dict[str, torch.Tensor]:
    return SVIFit.load(place).model.state_dict()


def test_the_first_restart_is_the_run_and_the_others_are_runs_in_it(
    run: Path, finished: Path
) -> None:
    members = RunDirectory(run).restarts
    assert [member.path for member in members] == [run, run / "restarts" / "1"]
    assert [member.load_fit().seed for member in members] == [0, 1]
    assert begun_restarts(run) == 2
    manifest = json.loads((run / "manifest.json").read_text())["sha256"]
    assert set(manifest) == {p.name for p in run.iterdir()} - {"manifest.json", "restarts"}
    alone = weights(finished)  # one thread in the tests, as in each process
    assert all(torch.equal(alone[key], value) for key, value in weights(run).items())
    other = members[1]
    assert set(read_inference_data(other.path / "posterior.nc").groups()) >= {"posterior", "fit"}
    assert other.load_forecast().data.attrs["seed"] == 1
    assert not torch.equal(weights(other.path)["beta.weight"], alone["beta.weight"])


def test_the_forecast_of_restarts_is_an_ensemble(run: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["forecast", str(run), "--out", str(tmp_path / "f.csv")])
    assert said.exit_code == 0, said.output
    assert "forecast (return) of 2 restarts known at the close" in said.output
    table = pd.read_csv(tmp_path / "f.csv", index_col="asset")
    members = [RunDirectory(run).load_forecast(), RunDirectory(run / "restarts/1").load_forecast()]
    means = np.stack([m.mean.isel(date=-1).sel(asset=table.index) for m in members])
    np.testing.assert_allclose(table["mean"], means.mean(0), rtol=1e-9)
    np.testing.assert_allclose(table["between"], means.std(0), rtol=1e-9)
    np.testing.assert_allclose(
        table["within"] ** 2 + table["between"] ** 2, table["standard_deviation"] ** 2, rtol=1e-9
    )
    assert (table["quantile_0.05"] < table["quantile_0.5"]).all()
    assert forecast(run).data["loc"].equals(members[0].data["loc"])


def test_a_fit_alone_has_no_columns_of_restarts(finished: Path, tmp_path: Path) -> None:
    ensemble = forecast_restarts(finished, out=tmp_path / "f.csv")
    assert len(ensemble.members) == 1
    table = pd.read_csv(tmp_path / "f.csv", index_col="asset")
    assert {"within", "between"} & set(table) == set()
    law = ensemble.members[0].mean.isel(date=-1).sel(asset=table.index)
    np.testing.assert_allclose(table["mean"], law, rtol=1e-12)


def test_what_is_missing_is_made_again_and_what_is_done_is_kept(
    run: Path, folder: Path, tmp_path: Path, here: list[int]
) -> None:
    out = shutil.copytree(run, tmp_path / "run")
    wanted = weights(out / "restarts/1")
    shutil.rmtree(out / "restarts/1")
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    with pytest.raises(RunError, match=r"got 1 of 2 that are not: .*restarts/1\. .*--resume"):
        forecast(out)
    said = CliRunner().invoke(  # the number of restarts is the one that began
        app,
        ["fit", str(folder / "spec.toml"), "--panel", str(folder / "panel.zarr"),
         "--out", str(out), "--resume", "--no-progress"],
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")} == kept
    found = weights(out / "restarts/1")
    assert all(torch.equal(wanted[key], value) for key, value in found.items())
    assert len(forecast_restarts(out).members) == 2
    assert here == [1]


def test_a_restart_that_fails_is_named_and_loses_nothing_of_the_others(
    run: Path,
    folder: Path,
    tmp_path: Path,
    here: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = shutil.copytree(run, tmp_path / "run")
    broken = out / "restarts/1"
    shutil.rmtree(broken)
    broken.mkdir()
    checkpoint.save_state(broken / "checkpoint.bin", {"identity": {}, "loop": {}})
    said = r"got 1 of 2 that failed: restart 1 of 2 \(seed 1\) at .*restarts/1\. The first one's "
    said += r"reason is CheckpointError: a checkpoint must .*\(1 finished\).*--resume"
    with pytest.raises(RunError, match=said):
        fit_restarts(
            folder / "spec.toml", folder / "panel.zarr", out,
            restarts=RestartSettings(2), resume=True,
        )  # fmt: skip
    assert here == [1]
    assert capsys.readouterr().err == "restart 1 of 2 (seed 1): failed\n"
    assert RunDirectory(out).load_fit().seed == 0
    assert (broken / "checkpoint.bin").exists()


def test_what_all_restarts_suffer_from_is_said_as_itself_and_leaves_no_folder(
    folder: Path, tmp_path: Path, spec_text: str, here: list[int]
) -> None:
    deep = tmp_path / "deep.toml"
    deep.write_text(spec_text.replace("lags = 3", "lags = 997"), encoding="utf-8")
    with pytest.raises(PanelError, match="must hold at least 997 dates"):
        fit_restarts(
            deep, folder / "panel.zarr", tmp_path / "run",
            restarts=RestartSettings(2), progress=False,
        )  # fmt: skip
    assert here == [2]
    assert not (tmp_path / "run").exists()


def test_an_interrupt_says_how_to_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(restarting, "run_processes", stop)
    command = ["fit", str(folder / "spec.toml"), "--panel", str(folder / "panel.zarr"),
               "--out", str(tmp_path / "run")]  # fmt: skip
    said = CliRunner().invoke(app, [*command, "--restarts", "3"])
    assert said.exit_code == 130
    assert "--resume goes on" in said.output
    assert begun_restarts(tmp_path / "run") == 3
    with pytest.raises(RunError, match=r"got an unfinished fit at .*pass --resume"):
        fit(folder / "spec.toml", folder / "panel.zarr", tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--restarts", "0"], "restarts must be at least 1; got 0"),
        (["--restarts", "2", "--jobs", "0"], "jobs must be at least 1; got 0"),
        (["--restarts", "2", "--threads", "0"], "threads must be at least 1; got 0"),
        (["--jobs", "2"], "--jobs must go with --restarts; got 2 alone"),
    ],
)
def test_numbers_out_of_range_are_refused(
    folder: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    out = tmp_path / "run"
    command = ["fit", str(folder / "spec.toml"), "--panel", str(folder / "panel.zarr")]
    done = CliRunner().invoke(app, [*command, "--out", str(out), *options])
    assert isinstance(done.exception, SpecError)
    assert said in str(done.exception)
    assert not out.exists()


def test_other_restarts_than_those_that_began_are_refused(
    run: Path, finished: Path, folder: Path
) -> None:
    for place, restarts, said in (
        (run, RestartSettings(3), r"got 3 from seed 0, but 2 from seed 0 .*Pass --restarts 2"),
        (run, RestartSettings(2, seed=7), "got 2 from seed 7, but 2 from seed 0"),
        (finished, RestartSettings(2), "got 2 from seed 0, but 1 from seed 0"),
    ):
        with pytest.raises(RunError, match=said):
            fit_restarts(
                folder / "spec.toml", folder / "panel.zarr", place, restarts=restarts, resume=True
            )
    other = folder / "other.toml"
    other.write_text((folder / "spec.toml").read_text().replace("n_epochs = 2", "n_epochs = 3"))
    with pytest.raises(RunError, match="got another config for"):
        fit_restarts(other, folder / "panel.zarr", run, restarts=RestartSettings(2), resume=True)
    with pytest.raises(RunError, match="got a finished run at"):
        fit_restarts(folder / "spec.toml", folder / "panel.zarr", run, restarts=RestartSettings(2))
    assert not (finished / "restarts.json").exists()


def test_a_lost_or_altered_record_of_the_restarts_is_refused(run: Path, tmp_path: Path) -> None:
    out = shutil.copytree(run, tmp_path / "run")
    (out / "restarts.json").write_text('{"restarts": 1, "seed": 0}')
    with pytest.raises(CheckpointError, match=r"restarts.json must match its digest"):
        forecast(out)
    (out / "restarts.json").unlink()
    with pytest.raises(CheckpointError, match=r"restarts.json must exist"):
        forecast(out)
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "restarts.json").write_text('{"restarts": "two"}')
    with pytest.raises(CheckpointError, match=r"must say the number and first seed"):
        begun_restarts(begun)
