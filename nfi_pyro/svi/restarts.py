"""Fits of one model and panel from several seeds: as many local optima of the same objective."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.splits import DateSplit
from nfi_pyro.errors import SpecError
from nfi_pyro.svi.config import SVIConfig, check_seed
from nfi_pyro.svi.fit import fit_svi
from nfi_pyro.svi.processes import (
    count_jobs,
    name_error,
    read_shared,
    run_processes,
    write_shared,
)
from nfi_pyro.svi.trained import SVIFit


def fit_restarts(
    model: Any,
    panel: Panel,
    *,
    n_restarts: int,
    split: DateSplit | None = None,
    config: SVIConfig | None = None,
    seed: int = 0,
    jobs: int | None = None,
) -> tuple[SVIFit, ...]:
    """Return fits from the seeds ``seed, seed + 1, ...``, in this order, made in processes.

    Restart k has the bits of ``fit_svi(..., seed=seed + k)`` with one thread of torch. Restarts
    end in different local optima, so forecasts are best averaged (`ForecastEnsemble`) and the
    spread between them is part of the uncertainty (`compare_restarts`). Nothing is kept of a
    call that fails or is stopped by Ctrl-C; `nfi fit --restarts` keeps what is done.

    Parameters
    ----------
    model, panel, split, config
        As in `fit_svi`. What the panel holds in memory is written once into a temporary folder
        that every process maps, so that there is one copy of it however many fits run; features
        that lie on disk (``read_panel(lazy=True)``) stay there, and each process reads them.
    n_restarts : int
        At least 1.
    seed : int
        Of the first.
    jobs : int, optional
        Processes at a time; by default one per restart, at most one per core. A process starts
        in some seconds.

    Raises
    ------
    SpecError
        If `n_restarts` or `jobs` is below 1, or a seed is out of range.
    PanelError, SplitError, NonFiniteLossError, CheckpointError
        The first error of a restart, with the restart named; the others are stopped.
    """
    config = config or SVIConfig()
    check_restarts(n_restarts, seed)
    jobs = count_jobs(jobs, n_restarts)
    check_panel(panel)

    def report(place: int, outcome: SVIFit | Exception) -> None:
        name = f"restart {place} of {n_restarts} (seed {seed + place})"
        if isinstance(outcome, Exception):
            raise name_error(outcome, name)
        if config.progress:
            print(f"{name}: done", file=sys.stderr, flush=True)

    with TemporaryDirectory(prefix="nfi-restarts-") as folder:
        write_shared(panel, Path(folder))
        quiet = config.model_copy(update={"progress": False})
        tasks = [
            _Task(type(model), model.spec, Path(folder), split, quiet, seed + place)
            for place in range(n_restarts)
        ]
        outcomes = run_processes(_fit, tasks, jobs=jobs, on_done=report)
    return tuple(replace(fit, config=config) for fit in outcomes if isinstance(fit, SVIFit))


def check_restarts(n_restarts: int, seed: int) -> None:
    """Refuse a number of restarts or seeds out of range.

    Raises
    ------
    SpecError
    """
    if n_restarts < 1:
        raise SpecError(f"restarts must be at least 1; got {n_restarts}. Five are usual.")
    check_seed(seed)
    check_seed(seed + n_restarts - 1)


@dataclass(frozen=True)
class _Task:
    """One fit; `panel` is the folder of a shared panel."""

    model_class: Any
    spec: Any
    panel: Path
    split: DateSplit | None
    config: SVIConfig
    seed: int


def _fit(task: _Task) -> SVIFit:
    """Return the fit of a task."""
    return fit_svi(
        task.model_class(task.spec),
        read_shared(task.panel),
        split=task.split,
        config=task.config,
        seed=task.seed,
    )
