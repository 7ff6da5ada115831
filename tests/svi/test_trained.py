"""A fit on disk: what comes back, and what is refused."""

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file

from nfi_pyro.data.panel import Panel
from nfi_pyro.errors import CheckpointError, RunError
from nfi_pyro.factor_vae import FactorVAE
from nfi_pyro.posterior import forecast
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi
from nfi_pyro.svi.trained import read_dataset, update_manifest, write_dataset

FILES = ("spec.json", "config.json", "fit.json", "weights.safetensors", "history.nc")


@pytest.fixture
def fit(panel: Panel, model: FactorVAE, config: SVIConfig) -> SVIFit:
    short = config.model_copy(update={"n_epochs": 1})
    return fit_svi(model, panel, config=short, seed=3)


@pytest.fixture
def run(fit: SVIFit, tmp_path: Path) -> Path:
    return fit.save(tmp_path / "deep" / "run")


def test_a_fit_comes_back_to_the_bit(fit: SVIFit, run: Path, panel: Panel) -> None:
    loaded = SVIFit.load(str(run))
    weights = fit.model.state_dict()
    assert weights.keys() == loaded.model.state_dict().keys()
    assert all(torch.equal(weights[name], loaded.model.state_dict()[name]) for name in weights)
    for name in ("config", "seed", "split", "return_scale", "label", "provenance", "status"):
        assert getattr(loaded, name) == getattr(fit, name), name
    assert loaded.model.spec == fit.model.spec
    assert loaded.transforms.as_dict() == fit.transforms.as_dict()
    xr.testing.assert_identical(loaded.history, fit.history)
    xr.testing.assert_identical(forecast(loaded, panel).data, forecast(fit, panel).data)
    assert not loaded.model.training


def test_a_run_directory_holds_six_files_and_no_other(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == {*FILES, "manifest.json"}


def test_saving_twice_in_one_place_leaves_a_run(fit: SVIFit, run: Path) -> None:
    fit.save(run)
    assert SVIFit.load(run).seed == 3


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(RunError, match=r"must hold manifest.json; got none at "):
        SVIFit.load(tmp_path / "nowhere")
    (run / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"must hold manifest.json; got none at "):
        SVIFit.load(run)


@pytest.mark.parametrize("written", [{"format": 1}, {"sha256": {}}, ["list"]])
def test_another_format_is_refused(run: Path, written: Any) -> None:
    (run / "manifest.json").write_text(json.dumps(written))
    found = written.get("format") if isinstance(written, dict) else None
    with pytest.raises(RunError, match=rf"must have format 3; got {found} at .* another version"):
        SVIFit.load(run)


def test_a_manifest_that_is_not_json_is_refused(run: Path) -> None:
    (run / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest.json must be readable JSON"):
        SVIFit.load(run)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_altered_file_is_refused(run: Path, name: str) -> None:
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=rf"{name} must match its digest"):
        SVIFit.load(run)
    (run / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=rf"{name} must match its digest"):
        SVIFit.load(run)
    (run / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name} must exist; got no such file"):
        SVIFit.load(run)
    (run / name).write_bytes(content)
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["sha256"][name]
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=rf"{name} must be listed in manifest.json"):
        SVIFit.load(run)


def test_weights_of_another_spec_are_refused(run: Path) -> None:
    weights = load_file(run / "weights.safetensors")
    weights["beta.bias"] = weights["beta.bias"][:-1].clone()
    save_file(weights, run / "weights.safetensors")
    update_manifest(run, "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"(?s)weights must fit the spec; got .*beta.bias"):
        SVIFit.load(run)


def test_a_spec_with_an_unknown_key_is_refused(run: Path) -> None:
    spec = json.loads((run / "spec.json").read_text())
    spec["spec"]["n_layers"] = 3
    (run / "spec.json").write_text(json.dumps(spec))
    update_manifest(run, "spec.json")
    with pytest.raises(RunError, match=r"(?s)must be those of this version; got .*n_layers"):
        SVIFit.load(run)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: a full disk that the system itself enforces."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", FILES)
def test_a_disk_that_fills_up_while_saving_is_a_checkpoint_error(
    fit: SVIFit, run: Path, tmp_path: Path, name: str
) -> None:
    room = (run / name).stat().st_size - 1
    other = tmp_path / "other"
    with (
        largest_file(room),
        pytest.raises(CheckpointError, match=r"must be writable; got File too"),
    ):
        fit.save(other)
    assert [path.name for path in other.iterdir() if path.name.endswith(".part")] == []
    with pytest.raises(RunError, match=r"must hold manifest.json"):
        SVIFit.load(other)
    shutil.rmtree(other)
    assert SVIFit.load(fit.save(other)).seed == 3


def test_a_dataset_comes_back_identical(tmp_path: Path) -> None:
    dataset = xr.Dataset(
        {
            "half": (("date", "asset"), np.array([[0.1, np.nan], [0.3, 0.4]], dtype=np.float32)),
            "flag": ("asset", np.array([1, 0], dtype=np.int8)),
            "alone": 2.5,
        },
        {"date": np.array(["2020-01-01", "2020-01-03"], "datetime64[ns]"), "asset": ["A", "BC"]},
        {"unit": "return", "scale": 0.02},
    )
    write_dataset(dataset, tmp_path / "a.nc")
    xr.testing.assert_identical(read_dataset(tmp_path / "a.nc"), dataset)
