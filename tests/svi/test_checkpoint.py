"""Checkpoints: resuming to the same bits, full disks, damage, foreign fits and hostile files."""

import errno
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.distributions import HeadSpec
from nfi_pyro.errors import CheckpointError
from nfi_pyro.factor_vae import FactorVAE
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi, loop
from nfi_pyro.svi.checkpoint import load_state, save_state, write_atomically
from nfi_pyro.svi.evaluation import evaluate_forecasts
from nfi_pyro.svi.objective import evaluate_objective

MAGIC = b"nfi-checkpoint-1\n"


def equal(one: Any, two: Any) -> bool:
    """Return whether two states of tensors and plain values agree to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return bool(one == two)


def parts_left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if ".part" in path.name]


def interrupt_call(function: Any, call: int) -> Any:
    """Return `function`, raising KeyboardInterrupt instead of its call number `call`."""
    count = 0

    def wrapped(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise KeyboardInterrupt
        return function(*args, **options)

    return wrapped


def same_fit(one: SVIFit, two: SVIFit) -> bool:
    xr.testing.assert_identical(one.history, two.history)
    timeless = [
        {key: value for key, value in fit.provenance.items() if key != "wall_seconds"}
        for fit in (one, two)
    ]
    assert timeless[0] == timeless[1]
    assert one.status == two.status
    return equal(one.model.state_dict(), two.model.state_dict())


# ---- resuming ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "function", "call"),
    [
        pytest.param("evaluate_forecasts", evaluate_forecasts, 3, id="between-epochs"),
        pytest.param("evaluate_objective", evaluate_objective, 16, id="mid-epoch"),
        pytest.param("evaluate_objective", evaluate_objective, 19, id="first-step-of-an-epoch"),
    ],
)
def test_a_resumed_fit_ends_with_the_bits_of_an_uninterrupted_one(
    panel: Panel,
    model: FactorVAE,
    config: SVIConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    function: Any,
    call: int,
) -> None:
    whole = fit_svi(model, panel, config=config, seed=3, checkpoint=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(loop, name, interrupt_call(function, call))
        broken = fit_svi(model, panel, config=config, seed=3, checkpoint=tmp_path / "broken")
    assert broken.status == "interrupted"
    assert whole.history.attrs["best_epoch"] == 4  # so that what is returned is still to come
    assert not equal(broken.model.state_dict(), whole.model.state_dict())
    options: dict[str, Any] = {"config": config, "seed": 3, "checkpoint": tmp_path / "broken"}
    resumed = fit_svi(model, panel, resume=True, **options)
    assert same_fit(resumed, whole)
    # Optimiser moments, generators, best weights and counters too.
    assert equal(load_state(tmp_path / "broken"), load_state(tmp_path / "whole"))
    assert parts_left(tmp_path) == []


def test_a_fit_with_random_heads_resumes_to_the_same_bits(
    panel: Panel, model: FactorVAE, config: SVIConfig, tmp_path: Path
) -> None:
    random = FactorVAE(model.spec.model_copy(update={"heads": HeadSpec(kind="low_rank", rank=2)}))
    whole = fit_svi(random, panel, config=config, seed=3)
    half: dict[str, Any] = {"config": config, "seed": 3, "checkpoint": tmp_path / "half"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate_forecasts", interrupt_call(evaluate_forecasts, 3))
        assert fit_svi(random, panel, **half).status == "interrupted"
    assert same_fit(fit_svi(random, panel, resume=True, **half), whole)


def test_resuming_a_finished_fit_returns_it_again(
    panel: Panel, model: FactorVAE, config: SVIConfig, tmp_path: Path
) -> None:
    place = tmp_path / "new" / "folder" / "state"
    whole = fit_svi(model, panel, config=config, seed=3, checkpoint=place)
    before = place.read_bytes()
    assert same_fit(
        fit_svi(model, panel, config=config, seed=3, checkpoint=place, resume=True), whole
    )
    assert place.read_bytes() == before


def test_only_the_progress_bar_may_differ_between_a_fit_and_its_resumption(
    panel: Panel, model: FactorVAE, config: SVIConfig, tmp_path: Path
) -> None:
    place = tmp_path / "state"
    short = config.model_copy(update={"n_epochs": 1})
    fit_svi(model, panel, config=short, seed=3, checkpoint=place)

    def resume(
        other: Panel = panel, recipe: FactorVAE = model, seed: int = 3, **changes: Any
    ) -> SVIFit:
        settings = short.model_copy(update=changes)
        return fit_svi(recipe, other, config=settings, seed=seed, checkpoint=place, resume=True)

    assert resume(progress=True).status == "finished"
    with pytest.raises(CheckpointError, match=r"fit that resumes; got another config at "):
        resume(learning_rate=2e-2)
    with pytest.raises(CheckpointError, match=r"got another seed at "):
        resume(seed=4)
    wider = FactorVAE(model.spec.model_copy(update={"hidden_size": 5}))
    with pytest.raises(CheckpointError, match=r"got another spec at "):
        resume(recipe=wider)
    changed = panel.copy(deep=True)
    changed["forward_return"].values[60, 0] = 0.123
    with pytest.raises(CheckpointError, match=r"got another panel_hash at "):
        resume(other=check_panel(changed))
    with pytest.raises(CheckpointError, match=r"got another seed, split, panel_hash at "):
        resume(other=check_panel(panel.isel(date=slice(50))), seed=5)


def test_resuming_without_a_checkpoint_says_so(
    panel: Panel, model: FactorVAE, config: SVIConfig, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"resume must know a checkpoint; got none"):
        fit_svi(model, panel, config=config, resume=True)
    with pytest.raises(CheckpointError, match=r"must exist to resume; got No such file"):
        fit_svi(model, panel, config=config, checkpoint=tmp_path / "none", resume=True)


# ---- full disks ----------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_previous_checkpoint_and_no_other_file(
    panel: Panel,
    model: FactorVAE,
    config: SVIConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, calls = tmp_path / "state", 0
    write = Path.write_bytes

    def fill_up(self: Path, data: Any) -> int:
        nonlocal calls
        calls += 1
        if calls < 3:
            return write(self, data)
        write(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fill_up)
        with pytest.raises(CheckpointError, match=r"must be writable; got No space left on device"):
            fit_svi(model, panel, config=config, seed=3, checkpoint=place)
    assert load_state(place)["loop"]["counters"]["epoch"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    resumed = fit_svi(model, panel, config=config, seed=3, checkpoint=place, resume=True)
    assert same_fit(resumed, fit_svi(model, panel, config=config, seed=3))


def test_a_place_that_cannot_be_written_is_a_checkpoint_error(
    panel: Panel, model: FactorVAE, config: SVIConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"must be a folder that can be written"):
        fit_svi(model, panel, config=config, checkpoint=tmp_path / "file" / "state")


def test_a_writer_that_fails_leaves_the_old_file_whole(tmp_path: Path) -> None:
    place = tmp_path / "kept"
    place.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise RuntimeError("writer broke")

    with pytest.raises(RuntimeError, match="writer broke"):
        write_atomically(place, fail)
    assert place.read_text() == "old"
    assert parts_left(tmp_path) == []


# ---- damage --------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    place = tmp_path / "state"
    save_state(place, {"tensor": torch.arange(13.0), "text": "x", "list": [1, 2.5, None]})
    return place


def test_a_state_comes_back_as_it_was(stored: Path) -> None:
    found = load_state(stored)
    assert equal(found, {"tensor": torch.arange(13.0), "text": "x", "list": [1, 2.5, None]})


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(stored: Path, share: float) -> None:
    content = stored.read_bytes()
    stored.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"must match its own digest"):
        load_state(stored)


def test_a_checkpoint_with_more_behind_it_is_refused(stored: Path) -> None:
    stored.write_bytes(stored.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match=r"must match its own digest"):
        load_state(stored)


def test_any_flipped_bit_is_noticed(stored: Path) -> None:
    content = stored.read_bytes()
    rng = np.random.default_rng(3)
    newline = len(MAGIC) + 64  # the one byte that carries nothing
    places = [0, len(MAGIC), len(MAGIC) + 63, newline + 1, len(content) - 1]
    places += rng.integers(newline + 1, len(content), 40).tolist()
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        stored.write_bytes(bytes(flipped))
        with pytest.raises(CheckpointError, match=r"must match its own digest"):
            load_state(stored)


class Hostile:
    """Unpickles by making a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("plain", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, plain: bool) -> None:
    target, place = tmp_path / "made", tmp_path / "state"
    hostile = {"loop": Hostile(target)}
    if plain:
        payload = pickle.dumps(hostile, protocol=2)
        digest = hashlib.sha256(payload).hexdigest().encode()
        place.write_bytes(MAGIC + digest + b"\n" + payload)
    else:
        save_state(place, hostile)
    with pytest.raises(CheckpointError, match=r"must hold tensors and plain values only"):
        load_state(place)
    assert not target.exists()
    pickle.loads(pickle.dumps(hostile))  # the file is as dangerous as it claims
    assert target.exists()


def test_a_device_or_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match=r"pipe must be free or a regular file; got a device"):
        write_atomically(tmp_path / "pipe", lambda place: place.write_text("x"))
    assert (tmp_path / "pipe").is_fifo()
    assert parts_left(tmp_path) == []
