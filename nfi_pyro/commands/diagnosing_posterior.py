"""The parts of a diagnosis that judge the posterior: factors, guides, last layers, restarts."""

from collections.abc import Sequence
from typing import Any

import xarray as xr

from nfi_pyro.commands.diagnosis_task import DiagnosisTask
from nfi_pyro.commands.opened_run import load_laws
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.diagnostics.collapse import judge_collapse
from nfi_pyro.diagnostics.convergence import judge_convergence
from nfi_pyro.diagnostics.importance import judge_importance
from nfi_pyro.diagnostics.predictive_checks import check_predictions
from nfi_pyro.diagnostics.restarts import compare_restarts
from nfi_pyro.diagnostics.results import (
    Collapse,
    Convergence,
    ImportanceQuality,
    PredictiveChecks,
    RestartComparison,
    SimulationCalibration,
)
from nfi_pyro.diagnostics.simulation import simulation_based_calibration
from nfi_pyro.errors import RunError, name_places
from nfi_pyro.posterior.draws import sample_posterior
from nfi_pyro.posterior.head_prior import head_prior_predictive
from nfi_pyro.posterior.importance import importance_weights
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.rendering.diagnosis_contents import HeadResults
from nfi_pyro.svi.protocol import head_posterior

MOST_REPLICATES = 400
RANKED_DRAWS, REPEATS = 99, 4
HEAD_DRAWS, HEAD_DATES = 50, 12
RESTART_DRAWS = 200
_NO_FACTORS = (
    "The model's assets share no latent factor, so there is no posterior of factors to judge."
)


def convergence_of(task: DiagnosisTask) -> Convergence | None:
    """Return what the training curves say, or None where no epoch was scored."""
    history = task.fit.history
    if not bool(history["validation_log_score"].notnull().any()):
        task.left_out["training"] = "No epoch ended with a validation score: resume the fit."
        return None
    return judge_convergence(history)


def collapse_of(task: DiagnosisTask) -> Collapse | None:
    """Return which factors are active on the dates of the span with an observed return."""
    if not _has_factors(task):
        task.left_out["collapse"] = _NO_FACTORS
        return None
    task.say(f"factors' moments on {task.n_span} dates")
    found = sample_posterior(
        task.fit, task.panel, draws=1, seed=task.seed, dates=task.range, head_draws=1
    )
    seen = found.constants["observed"].any("asset").values
    if seen.sum() < 2:
        task.left_out["collapse"] = "Fewer than two dates have an observed return."
        return None
    constants = found.constants.isel(date=seen)
    return judge_collapse(
        found.moments.isel(date=seen),
        constants["beta"].astype(float),
        specific_scale=constants["specific_scale"].astype(float),
    )


def importance_of(task: DiagnosisTask) -> tuple[ImportanceQuality, ...]:
    """Return how good the importance weights of each guide are; nothing without factors."""
    if not _has_factors(task):
        task.left_out["importance"] = _NO_FACTORS
        return ()
    found = []
    for guide in _guides(task):
        task.say(f"importance weights of the {guide} on {task.n_thinned} dates")
        weights = importance_weights(
            task.fit, task.panel, guide=guide, draws=task.draws, seed=task.seed,
            dates=task.thinned,
        )  # fmt: skip
        found.append(judge_importance(weights.log_weights, weights.elbo, guide=guide))
    return tuple(found)


def simulations_of(task: DiagnosisTask) -> tuple[SimulationCalibration, ...]:
    """Return the simulation-based calibration of each guide; nothing without factors."""
    if not _has_factors(task):
        task.left_out["simulation"] = _NO_FACTORS
        return ()
    found = []
    for guide in _guides(task):
        task.say(f"simulation-based calibration of the {guide} on {task.n_thinned} dates")
        found.append(
            simulation_based_calibration(
                task.fit,
                task.panel,
                guide=guide,
                n_draws=RANKED_DRAWS,
                n_repeats=REPEATS,
                dates=task.thinned,
                seed=task.seed,
            )
        )
    return tuple(found)


def predictive_of(task: DiagnosisTask) -> PredictiveChecks | None:
    """Return real cross-sections beside replicated ones, or None without factors."""
    if not _has_factors(task):
        task.left_out["predictive"] = (
            "The model's assets share no latent factor; replicates of cross-sections are made for "
            "models that have one. The portfolios show what the joint law is worth."
        )
        return None
    task.say(f"predictive checks on {task.n_thinned} dates")
    return check_predictions(
        task.fit, task.panel, n_draws=min(MOST_REPLICATES, task.draws), dates=task.thinned,
        seed=task.seed,
    )  # fmt: skip


def heads_of(task: DiagnosisTask) -> HeadResults | None:
    """Return what the last layers imply before and after the data, or None for point estimates."""
    if head_posterior(task.fit.model) is None:
        task.left_out["heads"] = (
            "The last layers are point estimates: they have no prior and no posterior."
        )
        return None
    task.say("last layers, prior and posterior")
    prior, posterior = (
        head_prior_predictive(
            task.fit, task.panel, draws=HEAD_DRAWS, seed=task.seed, dates=task.every(HEAD_DATES),
            source=source,
        )
        for source in ("prior", "posterior")
    )  # fmt: skip
    return HeadResults(prior, posterior)


def restarts_of(task: DiagnosisTask, folder: RunDirectory) -> RestartComparison | None:
    """Return how far the restarts of a run agree, or None for a fit alone.

    Raises
    ------
    RunError
        If a restart is not finished, or its forecasts are of another panel.
    """
    members = folder.restarts
    if len(members) == 1:
        task.left_out["restarts"] = (
            "The run is one fit: other seeds may end in another optimum. Fit with --restarts 5 to "
            "see how far they agree."
        )
        return None
    _require_finished(members)
    task.say(f"{len(members)} restarts on {task.n_thinned} dates")
    posteriors, forecasts = [], []
    for member in members:
        trained = member.load_fit()
        laws = load_laws(member, task.laws.data.attrs["panel_hash"])
        posteriors.append(
            sample_posterior(
                trained,
                task.panel,
                draws=min(RESTART_DRAWS, task.draws),
                seed=task.seed,
                dates=task.thinned,
            )
        )
        place = task.span.positions(laws.data["date"].values)
        forecasts.append(ReturnForecast(laws.data.isel(date=place)))
    return compare_restarts(posteriors, forecasts, seed=task.seed)


def _require_finished(members: Sequence[RunDirectory]) -> None:
    """Refuse a run with a restart that is not finished."""
    unfinished = [member.path for member in members if not member.is_finished]
    if unfinished:
        raise RunError(
            f"every restart of a run must be finished to be diagnosed; got {len(unfinished)} of "
            f"{len(members)} that are not: {name_places(unfinished)}. Run `nfi fit` again with "
            "--resume."
        )


def _has_factors(task: DiagnosisTask) -> bool:
    """Return whether the model has latent factors."""
    return bool(task.fit.provenance["factors"])


def _guides(task: DiagnosisTask) -> tuple[Any, ...]:
    """Return the guides that the model has."""
    encoder = getattr(task.fit.model, "encoder", None) is not None
    return ("posterior", "encoder") if encoder else ("posterior",)


def training_history(task: DiagnosisTask) -> xr.Dataset:
    """Return the training curves; the last layers' only where they are random."""
    history = task.fit.history
    if head_posterior(task.fit.model) is None:
        return history.drop_vars("heads_kl", errors="ignore")
    return history
