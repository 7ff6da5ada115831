"""Tasks in processes: one that fails or dies alone, no one left behind, memory that is shared."""

import inspect
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from nfi_pyro import errors
from nfi_pyro.data.panel import Panel
from nfi_pyro.errors import CheckpointError, NfiError
from nfi_pyro.svi.processes import (
    ProcessEndedError,
    count_jobs,
    name_error,
    read_shared,
    run_processes,
    write_shared,
)

ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, NfiError)
] + [ProcessEndedError]  # fmt: skip


def act(task: tuple[str, Path]) -> object:
    """Do in a process what a task says; each says in a folder that it began."""
    what, folder = task
    (folder / f"{what}-{os.getpid()}").touch()
    if what == "fail":
        raise CheckpointError("a file must be there; got none. Write it.")
    if what == "die":
        os._exit(7)
    if what == "sleep":
        time.sleep(60.0)
    return torch.get_num_threads(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def pids(folder: Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in folder.iterdir()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_task_that_fails_or_is_killed_leaves_the_others_alone(tmp_path: Path) -> None:
    seen: dict[int, object] = {}
    tasks = [("fail", tmp_path), ("die", tmp_path), ("go", tmp_path)]
    failed, died, other = run_processes(act, tasks, jobs=2, on_done=seen.__setitem__)
    assert isinstance(failed, CheckpointError)
    assert str(failed) == "a file must be there; got none. Write it."
    assert 'raise CheckpointError("a file must be there' in failed.__notes__[0]
    assert isinstance(died, ProcessEndedError)
    assert "ended with status 7" in str(died)
    assert other == (1, True)
    assert seen == {0: failed, 1: died, 2: other}
    assert len(set(pids(tmp_path))) == 3  # a process each
    assert not any(map(alive, pids(tmp_path)))


def test_an_interrupt_stops_every_process(tmp_path: Path) -> None:
    def interrupt() -> None:
        for _ in range(600):
            if list(tmp_path.iterdir()):
                break
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    began = time.monotonic()
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_processes(act, [("sleep", tmp_path)] * 2, jobs=1)
    thread.join()
    assert time.monotonic() - began < 55.0
    assert len(pids(tmp_path)) == 1
    assert not any(map(alive, pids(tmp_path)))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_survives_the_way_between_processes(kind: Callable[[str], NfiError]) -> None:
    back = pickle.loads(pickle.dumps(kind("x must be 1; got 2. Set it.")))
    assert type(back) is kind
    assert str(back) == "x must be 1; got 2. Set it."
    assert str(name_error(back, "restart 2")) == "restart 2: x must be 1; got 2. Set it."


def test_an_error_of_another_kind_is_named_by_a_note() -> None:
    error = ZeroDivisionError("division by zero")
    assert name_error(error, "restart 2") is error
    assert (str(error), error.__notes__) == ("division by zero", ["restart 2"])


def test_as_many_processes_as_tasks_or_cores() -> None:
    cores = count_jobs(None, 10_000)
    assert cores >= 1
    assert count_jobs(None, 1) == 1
    assert count_jobs(3, 10_000) == 3
    assert count_jobs(3, 2) == 2
    assert count_jobs(None, 10_000, threads=10_000) == 1


def test_a_shared_panel_is_mapped_and_writing_to_it_stays_in_the_process(
    panel: Panel, tmp_path: Path
) -> None:
    write_shared((panel, np.zeros(0)), tmp_path)
    (one, empty), (two, _) = read_shared(tmp_path), read_shared(tmp_path)
    xr.testing.assert_identical(one, panel)
    assert empty.shape == (0,)
    one["features"].values[:] = 7.0
    xr.testing.assert_identical(two, panel)
    xr.testing.assert_identical(read_shared(tmp_path)[0], panel)
    with pytest.raises(CheckpointError, match=r"folder must have room for [0-9,]+ bytes"):
        write_shared(panel, tmp_path / "absent")
