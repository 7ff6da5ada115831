"""`nfi diagnose`: a run in, one offline HTML page out that judges the fit."""

from pathlib import Path

from nfi_pyro.commands.diagnosing_forecast import (
    information_of,
    recalibrated,
    spread_skill_of,
)
from nfi_pyro.commands.diagnosing_portfolios import portfolios_of
from nfi_pyro.commands.diagnosing_posterior import (
    HEAD_DATES,
    HEAD_DRAWS,
    MOST_REPLICATES,
    RANKED_DRAWS,
    REPEATS,
    RESTART_DRAWS,
    collapse_of,
    convergence_of,
    heads_of,
    importance_of,
    predictive_of,
    restarts_of,
    simulations_of,
    training_history,
)
from nfi_pyro.commands.diagnosis_task import DiagnosisTask
from nfi_pyro.commands.evaluation import evaluate
from nfi_pyro.commands.opened_run import open_run, write_page
from nfi_pyro.commands.run_directory import describe_provenance
from nfi_pyro.data.labels import describe_label
from nfi_pyro.diagnostics.arviz_functions import arviz_guide
from nfi_pyro.errors import SpecError
from nfi_pyro.rendering.diagnosis_contents import DiagnosisContents
from nfi_pyro.rendering.diagnosis_page import render_diagnosis
from nfi_pyro.svi.config import check_seed

VALIDATION = "validation"
_LEAST_DRAWS = 100


def diagnose(
    run: str | Path,
    out: str | Path,
    *,
    panel: str | Path | None = None,
    span: str | None = None,
    draws: int = 1000,
    seed: int = 0,
    n_dates: int = 60,
) -> Path:
    """Write one HTML page, which needs nothing else, that judges a fit; return its path.

    Says on standard error which part is being computed.

    Parameters
    ----------
    run : path
        Run directory; with restarts, its first fit is judged and the others compared with it.
    out : path
        The HTML file.
    panel : path, optional
        Where the run's panel is now.
    span : {"validation", "test"}, optional
        Dates that are evaluated; the validation span by default, because whoever improves a model
        by looking at the test span has no test span any more.
    draws : int
        Of the factors on a date, >= 100; ten times as many of a portfolio's return.
    seed : int
    n_dates : int
        Importance weights, simulation-based calibration and predictive checks visit at most so
        many evenly spaced dates of the span; >= 1.

    Raises
    ------
    RunError, CheckpointError, PanelError, SpecError
        Each names the place and the fix.
    """
    contents = collect_diagnosis(
        run, panel=panel, span=span, draws=draws, seed=seed, n_dates=n_dates
    )
    return write_page(out, render_diagnosis(contents))


def collect_diagnosis(
    run: str | Path,
    *,
    panel: str | Path | None = None,
    span: str | None = None,
    draws: int = 1000,
    seed: int = 0,
    n_dates: int = 60,
) -> DiagnosisContents:
    """Return everything that the diagnosis page shows; arguments as in `diagnose`."""
    _check_options(draws, n_dates, seed)
    opened = open_run(run, panel=panel, span=span or VALIDATION)
    name = opened.span_name
    task = DiagnosisTask(opened.fit, opened.panel, opened.laws, opened.span, draws, seed, n_dates)
    task.say(f"forecasts of {task.n_span} {name} dates")
    result = evaluate(task.fit, task.laws, task.panel, task.span)
    return DiagnosisContents(
        title=f"Diagnosis: {opened.title}",
        provenance=describe_provenance(task.fit),
        settings=_settings(task, name),
        label=describe_label(task.panel["forward_return"].attrs),
        unit="%" if task.fit.label["unit"] == "return" else str(task.fit.label["unit"]),
        evaluation_span=opened.describe_span(f"{task.n_span} with a forecast"),
        thinning=_thinning(task),
        visited=_visited(task, name),
        left_out=task.left_out,
        history=training_history(task),
        convergence=convergence_of(task),
        collapse=collapse_of(task),
        importance=importance_of(task),
        simulations=simulations_of(task),
        calibration=result.calibration,
        recalibrated=recalibrated(task),
        portfolios=portfolios_of(task),
        spread_skill=spread_skill_of(task),
        predictive=predictive_of(task),
        information_coefficient=result.information_coefficient,
        information=information_of(task, result.information_coefficient),
        scores=result.scores,
        heads=heads_of(task),
        restarts=restarts_of(task, opened.folder),
        arviz=arviz_guide(),
    )


def _check_options(draws: int, n_dates: int, seed: int) -> None:
    """Refuse options out of range."""
    for name, value, least in (("draws", draws, _LEAST_DRAWS), ("n_dates", n_dates, 1)):
        if value < least:
            raise SpecError(
                f"{name} must be at least {least}; got {value} at diagnose. Leave it out for the "
                "default."
            )
    check_seed(seed)


def _thinning(task: DiagnosisTask) -> str:
    """Return on which dates the expensive parts were computed."""
    parts = "Expensive parts (importance weights, simulated truths, predictive checks, restarts)"
    if task.n_thinned == task.n_span:
        return f"{parts} are of all {task.n_span} dates of the span."
    return (
        f"{parts} are of {task.n_thinned} evenly spaced dates of the span, one in {task.step}; "
        "everything else is of all its dates."
    )


def _visited(task: DiagnosisTask, name: str) -> str:
    """Return the dates of the expensive parts in a few words."""
    if task.step == 1:
        return f"all {task.n_span} {name} dates"
    return f"{task.n_thinned} of {task.n_span} {name} dates, evenly spaced"


def _settings(task: DiagnosisTask, name: str) -> dict[str, str]:
    """Return draws, seeds and dates as text."""
    return {
        "span": f"{name}, {task.span.first} to {task.span.last}",
        "dates of the span with a forecast": f"{task.n_span:,}",
        "dates of the expensive parts": f"{task.n_thinned:,} (at most {task.n_dates:,})",
        "draws for importance weights": f"{task.draws:,} a date",
        "draws for simulation-based calibration": f"{RANKED_DRAWS} a date, {REPEATS} repeats",
        "replicates of cross-sections": f"{min(MOST_REPLICATES, task.draws):,} a source",
        "draws of a portfolio's return": f"{10 * task.draws:,} a date, {task.draws:,} in training",
        "draws of random last layers": f"{HEAD_DRAWS} on at most {HEAD_DATES} dates",
        "draws of a restart": f"{min(RESTART_DRAWS, task.draws):,} a date",
        "seed": str(task.seed),
    }
