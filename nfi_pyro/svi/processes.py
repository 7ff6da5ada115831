"""Tasks that each run in a process of their own, none of which outlives the call.

Processes, not threads: Pyro keeps one global stack of handlers. Spawned, not forked: a fork of a
process that has used torch's threads may hang. One for each task, not a pool: when the system
kills one because memory ran out, a pool gives up all the others.
"""

import mmap
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, TypeVar

import torch

from nfi_pyro.errors import CheckpointError, NfiError, SpecError

_PATIENCE = 10.0  # seconds that a process has to end by itself

Task = TypeVar("Task")
Value = TypeVar("Value")


class ProcessEndedError(NfiError, RuntimeError):
    """A process ended before its task did."""


def run_processes(
    function: Callable[[Task], Value],
    tasks: Sequence[Task],
    *,
    jobs: int,
    on_done: Callable[[int, Value | Exception], None] | None = None,
) -> list[Value | Exception]:
    """Return what `function` gave, or raised, for each task, in the order of the tasks.

    A task that fails leaves the others alone. Each process uses one thread of torch. On Ctrl-C,
    or when `on_done` raises, every process is stopped at once and the exception goes on; the
    processes also end when this one is killed.

    Parameters
    ----------
    function : callable
        Of a module's top level, as it goes to the processes by its name.
    tasks : sequence
        Picklable; large arrays go by `write_shared`.
    jobs : int
        Processes at a time, >= 1.
    on_done : callable, optional
        Called with the place of each task and its outcome, in the order in which they end.

    Returns
    -------
    list
        Of values, and of exceptions with the traceback of their process as a note. The task of a
        process that was killed gives a `ProcessEndedError`.
    """
    context = get_context("spawn")
    waiting = deque(enumerate(tasks))
    running: dict[Connection, tuple[int, SpawnProcess]] = {}
    outcomes: dict[int, Value | Exception] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                place, task = waiting.popleft()
                link, far = context.Pipe(duplex=False)
                process = context.Process(target=_run, args=(far, function, task), daemon=True)
                with _deaf_to_interrupts():
                    process.start()
                    running[link] = (place, process)
                far.close()
            ready = wait(list(running))
            for link in [link for link in running if link in ready]:
                place, process = running[link]
                outcomes[place] = outcome = _receive(link, process)
                del running[link]
                if on_done is not None:
                    on_done(place, outcome)
    finally:
        _stop([process for _, process in running.values()])
    return [outcomes[place] for place in range(len(tasks))]


def _stop(processes: list[SpawnProcess]) -> None:
    """End processes, by force those that do not end when told to."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_PATIENCE)
        process.kill()
        process.join()


def _receive(link: Connection, process: SpawnProcess) -> Any:
    """Return the outcome of a task whose process has sent it, or has ended."""
    try:
        outcome = pickle.loads(link.recv_bytes())
    except EOFError:
        process.join()
        outcome = ProcessEndedError(
            "a process must live until its task is done; got one that ended with status "
            f"{process.exitcode}. Where memory ran out (-9), run fewer at a time (jobs); a script "
            'must start processes under `if __name__ == "__main__":`.'
        )
    process.join()
    link.close()
    return outcome


def _run(link: Connection, function: Callable[[Task], Value], task: Task) -> None:
    """Do a task in this process, and send what came of it.

    By plain pickle: torch would hand tensors over through files of this process, which is gone
    when they are opened.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # tidies up, as the default does not
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    outcome: Value | Exception
    try:
        outcome = function(task)
    except Exception as error:  # noqa: BLE001  (handed on as it is, for the caller to judge)
        error.add_note(f"In its process:\n{traceback.format_exc()}")
        outcome = error
    link.send_bytes(pickle.dumps(outcome))


def _end_with_parent() -> None:
    """End this process when the one that started it is gone."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let a process that starts here ignore Ctrl-C from its first instruction on.

    It goes to every process of a terminal; without this, those that are still importing would
    each print a traceback. Only a main thread can arrange it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def count_jobs(jobs: int | None, n_tasks: int, *, threads: int = 1) -> int:
    """Return how many processes run at a time: by default one per task, if the cores suffice.

    Raises
    ------
    SpecError
        If `jobs` is below 1.
    """
    if jobs is not None and jobs < 1:
        raise SpecError(f"jobs must be at least 1; got {jobs}. Leave it out for one per core.")
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(n_tasks, max(1, cores // threads) if jobs is None else jobs)


def name_error(error: Exception, name: str) -> Exception:
    """Return an error of the same kind with `name` before its message; a note if not ours."""
    if not isinstance(error, NfiError):
        error.add_note(name)
        return error
    named = type(error)(f"{name}: {error}")
    named.__cause__ = error
    return named


def write_shared(value: Any, folder: Path) -> None:
    """Write a picklable value into an empty folder so that many processes can map its arrays.

    Raises
    ------
    CheckpointError
        If the folder has no room.
    """
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(content), *(buffer.raw() for buffer in buffers)]
    try:
        for place, part in enumerate(parts):
            (folder / f"{place}").write_bytes(part)
    except OSError as error:
        raise CheckpointError(
            f"a temporary folder must have room for {sum(part.nbytes for part in parts):,} bytes; "
            f"got {error.strerror or error} at {folder}. Free some space, or set TMPDIR."
        ) from error


def read_shared(folder: Path) -> Any:
    """Return the value that `write_shared` wrote; its arrays are mapped, and copied on writing."""
    places = sorted(folder.iterdir(), key=lambda place: int(place.name))
    buffers: list[bytearray | mmap.mmap] = []
    for place in places[1:]:
        if place.stat().st_size == 0:  # cannot be mapped
            buffers.append(bytearray())
            continue
        with place.open("rb") as handle:
            buffers.append(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY))
    return pickle.loads(places[0].read_bytes(), buffers=buffers)
