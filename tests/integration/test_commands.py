"""The commands end to end on small simulated prices, and what bad input gets."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from nfi_pyro.cli import app, main
from nfi_pyro.commands import fit, forecast, panel, report
from nfi_pyro.commands.demonstration import DEMO
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.commands.settings import make_settings, read_settings
from nfi_pyro.errors import (
    CheckpointError,
    NfiError,
    PanelError,
    RunError,
    SpecError,
    SplitError,
    WeightsError,
)
from nfi_pyro.posterior import ReturnForecast, read_inference_data
from nfi_pyro.svi import SVIFit

ROOT = Path(__file__).parents[2]
ATTACK = "<script>alert(1)</script>"


def test_a_run_describes_itself(finished: Path) -> None:
    trained = SVIFit.load(finished)
    provenance = trained.provenance
    assert set(provenance["versions"]) >= {"nfi_pyro", "torch", "pyro", "python"}
    assert provenance["seed"] == 0
    assert len(provenance["panel_hash"]) == 64
    assert provenance["wall_seconds"] > 0
    assert provenance["split"]["n_purged"] == 4
    kind = {"kind": "raw", "price": "close", "unit": "return"}
    assert trained.label == {"start_lag": 1, "horizon": 1, **kind}
    manifest = json.loads((finished / "manifest.json").read_text())
    assert set(manifest["sha256"]) == {path.name for path in finished.iterdir()} - {"manifest.json"}
    groups = set(read_inference_data(finished / "posterior.nc").groups())
    assert groups >= {"posterior", "prior", "predictions", "observed_data", "constant_data", "fit"}


def test_the_page_is_whole_offline_and_escapes_names(finished: Path, tmp_path: Path) -> None:
    weights = tmp_path / "book.csv"
    pd.DataFrame({"asset": ["S01", ATTACK], "weight": [0.6, 0.4]}).to_csv(weights, index=False)
    page = report(finished, tmp_path / "r.html", weights=weights).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "book.csv" in page
    for heading in ("Portfolio risk", "Training", "Rank IC", "Calibration", "Factors", "Exposures"):
        assert f">{heading}<" in page


def test_the_command_line_forecasts_and_reports(finished: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    said = runner.invoke(app, ["forecast", str(finished), "--out", str(tmp_path / "f.csv")])
    assert said.exit_code == 0, said.output
    table = pd.read_csv(tmp_path / "f.csv", index_col="asset")
    assert len(table) == 11
    assert (table["quantile_0.05"] < table["quantile_0.95"]).all()
    said = runner.invoke(app, ["report", str(finished), "--out", str(tmp_path / "r.html")])
    assert said.exit_code == 0, said.output
    assert (tmp_path / "r.html").stat().st_size > 50_000


def test_newer_dates_are_forecast_by_the_same_fit(
    finished: Path, prices: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    table = pd.read_csv(prices)
    dates = sorted(table["date"].unique())
    panel(table[table["date"] <= dates[-20]], tmp_path / "short.zarr", features=["ROC5", "STD5"])
    whole = forecast(finished)
    short = forecast(run, panel=tmp_path / "short.zarr")
    shared = whole.data.sel(date=short.data["date"])
    np.testing.assert_allclose(shared["loc"], short.data["loc"], rtol=1e-5, atol=1e-9)
    assert ReturnForecast.load(run / "forecast.nc").data.equals(short.data)
    with pytest.raises(RunError, match="forecasts must be of the panel that is reported on"):
        report(run, tmp_path / "r.html", panel=finished.parent / "panel.zarr")


def test_an_interrupted_fit_resumes_to_the_same_bits(
    finished: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nfi_pyro.svi import loop

    original = loop.TrainingLoop.run_epoch

    def stop_in_the_second(self: loop.TrainingLoop, bar: object) -> None:
        if self.epoch == 1:
            raise KeyboardInterrupt
        original(self, bar)  # type: ignore[arg-type]

    out = tmp_path / "run"
    monkeypatch.setattr(loop.TrainingLoop, "run_epoch", stop_in_the_second)
    cut = fit(folder / "spec.toml", folder / "panel.zarr", out, progress=False)
    assert cut.status == "interrupted"
    assert RunDirectory(out).checkpoint.exists()
    monkeypatch.undo()
    resumed = fit(folder / "spec.toml", folder / "panel.zarr", out, progress=False, resume=True)
    assert resumed.status == "finished"
    whole = SVIFit.load(finished)
    for name, value in whole.model.state_dict().items():
        assert value.equal(resumed.model.state_dict()[name]), name
    assert resumed.history.equals(whole.history)
    assert not RunDirectory(out).checkpoint.exists()


def test_a_finished_run_is_not_overwritten_and_resuming_it_is_free(
    finished: Path, folder: Path
) -> None:
    with pytest.raises(RunError, match="got a finished run at"):
        fit(folder / "spec.toml", folder / "panel.zarr", finished, progress=False)
    again = fit(folder / "spec.toml", folder / "panel.zarr", finished, progress=False, resume=True)
    assert again.provenance == SVIFit.load(finished).provenance


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lags = 3", "lagz = 3", "spec.lagz must be a known key; got an unknown one"),
        ("lags = 3", "lags = 0", "spec.lags must be greater than or equal to 1; got 0"),
        ("n_epochs = 2", 'n_epochs = "many"', "svi.n_epochs must be a valid integer"),
        ("block_size = 16", "block_size = -4", "svi.block_size must be greater than or equal to 1"),
        ('"factor_vae"', '"factor_vea"', "a model's name must be one of factor_vae"),
        ("[svi]", "[training]", "a spec's sections must be among"),
        ("[spec]", "[spec", "must be valid TOML"),
    ],
)
def test_a_bad_spec_names_the_key_and_the_file(
    tmp_path: Path, spec_text: str, old: str, new: str, said: str
) -> None:
    place = tmp_path / "bad.toml"
    place.write_text(spec_text.replace(old, new), encoding="utf-8")
    with pytest.raises(SpecError, match=said) as caught:
        read_settings(place)
    if "name must be" not in said:
        assert "bad.toml" in str(caught.value)


def test_a_missing_spec_and_overlapping_splits_are_refused(
    tmp_path: Path, spec_text: str, folder: Path
) -> None:
    with pytest.raises(SpecError, match="a spec must be a TOML file or one of factor_vae"):
        read_settings(tmp_path / "none.toml")
    place = tmp_path / "overlap.toml"
    spans = 'train = ["2018-01-02", "2018-10-01"]\nvalidation = ["2018-09-01", "2018-12-01"]'
    place.write_text(f"{spec_text}\n[split]\n{spans}\n", encoding="utf-8")
    with pytest.raises(SplitError, match="train and validation must not overlap"):
        fit(place, folder / "panel.zarr", tmp_path / "run", progress=False)


def test_other_versions_truncation_and_tampering_are_refused(
    finished: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    weights = run / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-7])
    with pytest.raises(CheckpointError, match=r"weights.safetensors must match its digest"):
        forecast(run)
    weights.write_bytes(content)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(RunError, match="must have format 3; got 99"):
        forecast(run)
    with pytest.raises(RunError, match=r"a run directory must hold manifest.json"):
        forecast(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("asset,weight\nS01,0.5\nNOPE,0.5\n", "got unknown NOPE"),
        ("asset,weight\nS01,half\n", r"line 2 \(S01: 'half'\)"),
        ("name,share\nS01,1\n", "weights must have columns asset and weight"),
    ],
)
def test_bad_weights_are_refused(finished: Path, tmp_path: Path, text: str, said: str) -> None:
    place = tmp_path / "w.csv"
    place.write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=said):
        report(finished, tmp_path / "r.html", weights=place)


def test_fewer_dates_than_lags_and_a_moved_panel_are_refused(
    finished: Path, spec_text: str, folder: Path, tmp_path: Path
) -> None:
    deep = tmp_path / "deep.toml"
    deep.write_text(spec_text.replace("lags = 3", "lags = 997"), encoding="utf-8")
    with pytest.raises(PanelError, match="must hold at least 997 dates"):
        fit(deep, folder / "panel.zarr", tmp_path / "run", progress=False)
    run = shutil.copytree(finished, tmp_path / "moved")
    where = json.loads((run / "run.json").read_text())
    assert Path(where["panel"]).is_absolute()
    RunDirectory(run).write_run(tmp_path / "gone.zarr")
    with pytest.raises(RunError, match="Pass --panel with its new place"):
        report(run, tmp_path / "r.html")


def test_an_error_is_one_line_and_status_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["nfi", "forecast", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="1"):
        main()
    said = capsys.readouterr().err
    assert said.startswith("error: a run directory must hold manifest.json")
    assert issubclass(RunError, NfiError)


def test_the_demo_settings_are_those_of_the_spec_file() -> None:
    stored = read_settings(ROOT / "models" / "factor_vae" / "demo.toml")
    assert stored == make_settings(DEMO, where="the demo")


@pytest.mark.parametrize("name", ["spec.toml", "demo.toml", "ashare.toml"])
def test_every_spec_file_of_the_model_is_valid(name: str) -> None:
    assert read_settings(ROOT / "models" / "factor_vae" / name).model == "factor_vae"


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys, nfi_pyro.cli\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(nfi_pyro.cli.app, ['--help']).exit_code == 0\n"
        "heavy = {'torch', 'arviz', 'pandas', 'pyro', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_threads_hold_for_one_fit_and_are_recorded(folder: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    panel_path = folder / "panel.zarr"
    spec = folder / "spec.toml"
    trained = fit(spec, panel_path, tmp_path / "run", threads=before + 1, progress=False)
    assert trained.provenance["threads"] == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(SpecError, match="threads must be at least 1; got 0"):
        fit(spec, panel_path, tmp_path / "none", threads=0, progress=False)
    assert not (tmp_path / "none").exists()
