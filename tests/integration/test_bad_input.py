"""What the commands say to the wrong thing: one line with a fix, and nothing is half done."""

import json
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from nfi_pyro.cli import app, main
from nfi_pyro.commands import fit, forecast, panel, report
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.commands.settings import read_settings
from nfi_pyro.errors import CheckpointError, PanelError, RunError, SpecError, SplitError
from nfi_pyro.posterior import read_inference_data
from nfi_pyro.svi import SVIFit, loop
from nfi_pyro.svi.checkpoint import file_digest

FEATURES = ["ROC5", "STD5"]
Edit = Callable[[Any], Any]


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "run")


def fit_here(folder: Path, out: Path, **options: Any) -> SVIFit:
    return fit(folder / "spec.toml", folder / "panel.zarr", out, progress=False, **options)


def rewrite(run: Path, name: str, edit: Edit) -> None:
    """Change a JSON file of a run and sign it, as another version might have written it."""
    place = run / name
    place.write_text(json.dumps(edit(json.loads(place.read_text()))))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["sha256"][name] = file_digest(place)
    (run / "manifest.json").write_text(json.dumps(manifest))


# ---- places that cannot be written ---------------------------------------------------------------


@pytest.mark.parametrize("command", ["panel", "fit", "forecast", "report"])
def test_a_place_below_a_file_is_one_line(
    command: str,
    finished: Path,
    prices: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("mine")
    out = str(tmp_path / "file" / "out")
    home = finished.parent
    arguments = {
        "panel": [str(prices), "--features", ",".join(FEATURES)],
        "fit": [str(home / "spec.toml"), "--panel", str(home / "panel.zarr")],
        "forecast": [str(shutil.copytree(finished, tmp_path / "run"))],
        "report": [str(finished)],
    }
    monkeypatch.setattr(sys, "argv", ["nfi", command, *arguments[command], "--out", out])
    with pytest.raises(SystemExit, match="1"):
        main()
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    assert str(tmp_path / "file") in said
    assert (tmp_path / "file").read_text() == "mine"


def test_a_forecast_table_makes_its_folder(run: Path, tmp_path: Path) -> None:
    forecast(run, out=tmp_path / "new" / "f.csv")
    assert len(pd.read_csv(tmp_path / "new" / "f.csv")) == 11


def test_a_disk_that_fills_up_under_the_posterior_ends_in_an_error(
    run: Path, finished: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Wall times and paths are in the file: another run's is not of the same size to the byte.
    limit = int(0.97 * (finished / "posterior.nc").stat().st_size)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(CheckpointError, match=r"posterior.nc must be writable; got File too"):
            fit_here(folder, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(CheckpointError, match=r"must be listed in manifest.json"):
        report(out, tmp_path / "r.html")
    assert fit_here(folder, out, resume=True).status == "finished"
    assert read_inference_data(out / "posterior.nc").posterior.equals(
        read_inference_data(finished / "posterior.nc").posterior
    )


def test_a_run_is_not_mixed_into_other_files(folder: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in (folder / "panel.zarr").iterdir())
    for resume in (False, True):
        with pytest.raises(RunError, match="must have a folder of its own; got other files at"):
            fit_here(folder, folder / "panel.zarr", resume=resume)
    assert sorted(path.name for path in (folder / "panel.zarr").iterdir()) == before


def test_a_fit_that_cannot_begin_leaves_no_folder(
    folder: Path, spec_text: str, tmp_path: Path
) -> None:
    place = tmp_path / "spec.toml"
    spans = 'train = ["2018-01-02", "2018-10-01"]\nvalidation = ["2028-09-01", "2028-12-01"]'
    place.write_text(f"{spec_text}\n[split]\n{spans}\n", encoding="utf-8")
    with pytest.raises(SplitError, match="must hold at least one date of the panel"):
        fit(place, folder / "panel.zarr", tmp_path / "run", progress=False)
    with pytest.raises(SpecError, match=r"seed must be in \[0, 2\*\*64\); got -1"):
        fit_here(folder, tmp_path / "run", seed=-1)
    place.write_text(f'{spec_text}\ndevice = "meta"\n', encoding="utf-8")
    with pytest.raises(SpecError, match=r"device must be auto or one of this machine's \(cpu"):
        fit(place, folder / "panel.zarr", tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


# ---- resuming ------------------------------------------------------------------------------------


def test_a_finished_run_is_not_resumed_as_another_fit(
    run: Path, folder: Path, spec_text: str, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="belong to the fit that resumes; got another seed for"):
        fit_here(folder, run, resume=True, seed=5)
    place = tmp_path / "spec.toml"
    place.write_text(spec_text.replace("n_epochs = 2", "n_epochs = 3"), encoding="utf-8")
    with pytest.raises(RunError, match="got another config for"):
        fit(place, folder / "panel.zarr", run, resume=True, progress=False)


def test_a_fit_interrupted_in_its_first_epoch_resumes(
    finished: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: loop.TrainingLoop, bar: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.TrainingLoop, "run_epoch", stop)
    out = tmp_path / "run"
    said = CliRunner().invoke(
        app,
        ["fit", str(folder / "spec.toml"), "--panel", str(folder / "panel.zarr"),
         "--out", str(out), "--no-progress"],
    )  # fmt: skip
    assert "interrupted after 0 epochs" in said.output
    assert "--resume goes on" in said.output
    assert not RunDirectory(out).checkpoint.exists()
    monkeypatch.undo()
    resumed = fit_here(folder, out, resume=True)
    assert resumed.status == "finished"
    for name, value in SVIFit.load(finished).model.state_dict().items():
        assert value.equal(resumed.model.state_dict()[name]), name


def test_progress_in_a_file_is_one_line_an_epoch(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(folder / "spec.toml", folder / "panel.zarr", tmp_path / "run")
    said = capsys.readouterr().err
    assert "\r" not in said
    first, second = said.splitlines()
    assert first.startswith("epoch 1 of 2: elbo ")
    assert second.startswith("epoch 2 of 2: elbo ")


def test_an_interrupted_run_is_called_unfinished(run: Path, folder: Path) -> None:
    RunDirectory(run).checkpoint.write_bytes(b"state")
    with pytest.raises(RunError, match="got an unfinished fit at"):
        fit_here(folder, run)


# ---- runs of another make ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        pytest.param("fit.json", lambda value: {}, id="no-keys"),
        pytest.param("fit.json", lambda value: [], id="no-mapping"),
        pytest.param("fit.json", lambda value: value | {"transforms": {}}, id="no-transforms"),
        pytest.param("spec.json", lambda value: [], id="spec"),
        pytest.param("spec.json", lambda value: value | {"model": "other"}, id="model"),
        pytest.param("config.json", lambda value: value | {"new": 1}, id="config"),
    ],
)
def test_a_run_of_another_version_is_one_line(run: Path, name: str, edit: Edit) -> None:
    rewrite(run, name, edit)
    with pytest.raises(RunError, match="must be those of this version; got") as caught:
        forecast(run)
    assert "\n" not in str(caught.value)
    assert str(run) in str(caught.value)


def test_weights_of_another_width_are_one_line(run: Path) -> None:
    def widen(value: Any) -> Any:
        return value | {"spec": value["spec"] | {"hidden_size": 13}}

    rewrite(run, "spec.json", widen)
    with pytest.raises(CheckpointError, match="the weights must fit the spec; got") as caught:
        forecast(run)
    assert "\n" not in str(caught.value)


def test_a_damaged_manifest_or_panel_place_is_named(run: Path) -> None:
    rewrite(run, "run.json", lambda value: {})
    with pytest.raises(RunError, match=r"run.json must say where the panel lies"):
        forecast(run)
    (run / "manifest.json").write_text('{"format": 3}')
    with pytest.raises(CheckpointError, match=r"manifest.json must list the digest of each file"):
        forecast(run)


# ---- panels and prices ---------------------------------------------------------------------------


def test_a_panel_with_another_label_is_refused(
    run: Path, prices: Path, folder: Path, tmp_path: Path
) -> None:
    panel(prices, tmp_path / "weekly.zarr", features=FEATURES, horizon=5)
    with pytest.raises(PanelError, match=r"label must be the fit's .*; got horizon 5"):
        forecast(run, panel=tmp_path / "weekly.zarr")
    assert RunDirectory(run).panel_path() == (folder / "panel.zarr").resolve()


@pytest.mark.parametrize("factor", [1e-45, 1e40])
def test_closes_beyond_single_precision_are_refused(prices: Path, factor: float) -> None:
    table = pd.read_csv(prices)
    table["close"] *= factor
    with pytest.raises(PanelError, match="closes must lie within single precision"):
        panel(table, features=FEATURES)


def test_a_split_takes_toml_dates_and_asks_for_two(tmp_path: Path, spec_text: str) -> None:
    place = tmp_path / "spec.toml"
    spans = "train = [2018-01-02, 2018-06-29]\nvalidation = [2018-07-02, 2018-10-01]"
    place.write_text(f"{spec_text}\n[split]\n{spans}\n", encoding="utf-8")
    assert read_settings(place).split.train == ("2018-01-02", "2018-06-29")
    place.write_text(f'{spec_text}\n[split]\ntrain = ["2018-01-02"]\n', encoding="utf-8")
    with pytest.raises(SpecError, match=r"split.train(.1)? must be a first and a last day"):
        read_settings(place)
