"""`nfi fit --restarts`: one spec and panel from several seeds, each fit in a process of its own."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nfi_pyro.commands.fitting import fit
from nfi_pyro.commands.run_directory import PLAN, RESTARTS, RunDirectory
from nfi_pyro.commands.settings import FitSettings, read_settings
from nfi_pyro.data.store.storage import read_panel
from nfi_pyro.errors import RunError, SpecError, name_places
from nfi_pyro.svi.processes import count_jobs, run_processes
from nfi_pyro.svi.restarts import check_restarts
from nfi_pyro.svi.trained import SVIFit


@dataclass(frozen=True)
class RestartSettings:
    """How many fits, from which seeds, and how many at a time.

    Attributes
    ----------
    n_restarts : int
        At least 1.
    seed : int
        Of the first; restart k has ``seed + k``.
    jobs : int, optional
        Processes at a time; by default one per restart, as far as the cores suffice.
    threads : int
        Of torch in each process. The bits of a fit depend on it.
    """

    n_restarts: int
    seed: int = 0
    jobs: int | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        check_restarts(self.n_restarts, self.seed)
        if self.threads < 1:
            raise SpecError(f"threads must be at least 1; got {self.threads}. Leave it out for 1.")
        count_jobs(self.jobs, self.n_restarts)


def fit_restarts(
    spec: str | Path | FitSettings,
    panel: str | Path,
    out: str | Path,
    *,
    restarts: RestartSettings,
    exposures: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> tuple[SVIFit, ...]:
    """Return the fits of a spec to a panel from several seeds, the first one's run being `out`.

    `out` is a run directory like that of `fit`; the further restarts are run directories
    ``out/restarts/1``, ``out/restarts/2``, ... A restart that fails leaves the others alone, and
    what is done stays whatever happens.

    Parameters
    ----------
    spec, panel, exposures
        As in `fit`.
    out : path
        Run directory of the first restart.
    restarts : RestartSettings
    resume : bool
        Go on with what is missing or unfinished; finished restarts are kept as they are.
    progress : bool
        Say on standard error which restart is done.

    Raises
    ------
    SpecError, PanelError, SplitError, CheckpointError
        As in `fit`.
    RunError
        If `out` is taken, began with another number of restarts or seed, or a restart failed:
        says which ones, why, and how to go on.
    """
    settings = spec if isinstance(spec, FitSettings) else read_settings(spec)
    data = read_panel(panel, lazy=True)  # what is wrong with it is said once, and before a start
    settings.split.resolve(data["date"].values, dict(data["forward_return"].attrs))
    run = RunDirectory(Path(out))
    _claim(run, restarts, resume=resume)
    tasks = [
        _Task(settings, Path(panel), member.path, exposures, restarts.seed + place,
              restarts.threads)
        for place, member in enumerate(run.restarts)
    ]  # fmt: skip
    left = [place for place, member in enumerate(run.restarts) if not _is_done(member)]
    for place in set(range(len(tasks))) - set(left):
        _fit(tasks[place])  # nothing to do but to check that it is this very fit

    def report(task: int, outcome: str | Exception) -> None:
        if progress:
            said = "failed" if isinstance(outcome, Exception) else outcome
            print(f"{_describe(run, left[task])}: {said}", file=sys.stderr, flush=True)

    jobs = count_jobs(restarts.jobs, restarts.n_restarts, threads=restarts.threads)
    outcomes = run_processes(_fit, [tasks[place] for place in left], jobs=jobs, on_done=report)
    if run.is_complete:
        run.record(PLAN)
    found = dict(zip(left, outcomes, strict=True))
    failed = {place: said for place, said in found.items() if isinstance(said, Exception)}
    if failed:
        raise _failure(run, failed)
    return tuple(member.load_fit() for member in run.restarts)


def begun_restarts(out: str | Path) -> int:
    """Return with how many restarts the fit in a folder began; 1 for a fit alone or none."""
    return RunDirectory(Path(out)).read_plan().get("restarts", 1)


@dataclass(frozen=True)
class _Task:
    """One restart: what `fit` is to do."""

    settings: FitSettings
    panel: Path
    out: Path
    exposures: str | Path | None
    seed: int
    threads: int


def _fit(task: _Task) -> str:
    """Do one restart, or what is left of it, and return how it ended."""
    trained = fit(
        task.settings,
        task.panel,
        task.out,
        exposures=task.exposures,
        seed=task.seed,
        resume=True,
        threads=task.threads,
        progress=False,
    )
    return f"{trained.status} after {trained.history.sizes['epoch']} epochs"


def _claim(run: RunDirectory, restarts: RestartSettings, *, resume: bool) -> None:
    """Take the folder, and refuse to go on with what began as something else.

    Raises
    ------
    RunError
    """
    run.claim(resume=resume)
    begun = run.read_plan()
    if not begun and (run.is_complete or run.checkpoint.exists()):
        begun = {"restarts": 1, "seed": restarts.seed}  # a fit alone, whose seed `fit` checks
    wanted = {"restarts": restarts.n_restarts, "seed": restarts.seed}
    if begun and begun != wanted:
        raise RunError(
            f"restarts that resume must be those that began; got {wanted['restarts']} from seed "
            f"{wanted['seed']}, but {begun['restarts']} from seed {begun['seed']} at {run.path}. "
            f"Pass --restarts {begun['restarts']} --seed {begun['seed']}, or another --out."
        )
    run.write_plan(restarts.n_restarts, restarts.seed)


def _is_done(member: RunDirectory) -> bool:
    """Return whether a restart has ended by itself."""
    return member.is_finished and member.load_fit().status != "interrupted"


def _describe(run: RunDirectory, place: int) -> str:
    """Return the name of a restart."""
    plan = run.read_plan()
    return f"restart {place} of {plan['restarts']} (seed {plan['seed'] + place})"


def _failure(run: RunDirectory, failed: dict[int, Exception]) -> Exception:
    """Return the error of restarts that failed; the folder goes if nothing was written.

    One reason that all of them have is that reason itself.
    """
    members, first = run.restarts, next(iter(failed.values()))
    places = name_places(f"{_describe(run, k)} at {members[k].path}" for k in failed)
    kept = sum(member.is_finished for member in members)
    if not any(member.is_complete or member.checkpoint.exists() for member in members):
        _release(run)
    if len(failed) == len(members) and len({str(error) for error in failed.values()}) == 1:
        return first
    error = RunError(
        f"every restart must finish; got {len(failed)} of {len(members)} that failed: {places}. "
        f"The first one's reason is {type(first).__name__}: {first} What is done is kept "
        f"({kept} finished): mend the cause, and run the same command with --resume."
    )
    error.__cause__ = first
    return error


def _release(run: RunDirectory) -> None:
    """Remove a folder in which no restart has begun."""
    for member in run.restarts[1:]:
        member.release()
    with suppress(OSError):
        (run.path / RESTARTS).rmdir()
    (run.path / PLAN).unlink(missing_ok=True)
    run.release()
