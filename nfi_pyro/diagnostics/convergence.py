"""Has a training run come to rest? The curves of a fit, read."""

import math
from dataclasses import replace

import numpy as np
import xarray as xr

from nfi_pyro.diagnostics.results.convergence import Convergence, Trend
from nfi_pyro.diagnostics.results.verdict import Verdict
from nfi_pyro.diagnostics.scores import hac_standard_error
from nfi_pyro.dims import EPOCH, STEP
from nfi_pyro.errors import ShapeError, SpecError, name_places

_MIN_POINTS = 5
_TOO_MANY_SKIPPED = 0.01  # share of steps
_NEEDED = {
    "elbo": STEP,
    "learning_rate": STEP,
    "validation_log_score": EPOCH,
    "last_step": EPOCH,
}


def judge_convergence(history: xr.Dataset) -> Convergence:
    """Return whether training has come to rest, where it was best and whether it overfitted.

    Slopes are by least squares with Newey-West errors: neighbouring epochs share their weights
    and neighbouring steps move little. Steps that were not finite are left out and counted.

    Parameters
    ----------
    history : Dataset
        Of a fit: `elbo` and `learning_rate` (step,), `validation_log_score` and `last_step`
        (epoch,), attributes `best_epoch`, `objective`, `n_non_finite`, `status`.

    Returns
    -------
    Convergence
        Trends are NaN, and the verdict unknown, with fewer than 5 epochs.

    Raises
    ------
    SpecError
        If a curve or attribute is missing, or no epoch has ended.
    ShapeError
        If a curve has other dimensions.
    """
    _check(history)
    score = history["validation_log_score"].to_numpy().astype(np.float64)
    elbo = history["elbo"].to_numpy().astype(np.float64)
    # A block of dates without an observed return says nothing: its bound is exactly 0.
    elbo[~np.isfinite(elbo) | (elbo == 0.0)] = np.nan
    last_step = history["last_step"].to_numpy().astype(int)
    n_epochs, n_steps = len(score), len(elbo)
    per_epoch = float(last_step[-1]) / n_epochs
    best = int(np.nanargmax(score))
    rate = history["learning_rate"].to_numpy()
    by_epoch = [_mean(part) for part in np.split(elbo, last_step)[:n_epochs]]
    since = _trend(score[best + 1 :])
    gain = by_epoch[-1] - by_epoch[best]
    found = Convergence(
        elbo_average=_average(history["elbo"].copy(data=elbo), per_epoch),
        objective=str(history.attrs["objective"]),
        elbo_trend=_trend(elbo[-max(n_steps // 4, _MIN_POINTS) :], per_epoch),
        validation_trend=_trend(score[-max(n_epochs // 4, _MIN_POINTS) :]),
        trend_since_best=since,
        elbo_gain_since_best=gain,
        validation_drop=float(score[best] - score[-1]),
        best_epoch=best + 1,
        kept_epoch=int(history.attrs["best_epoch"]),
        n_epochs=n_epochs,
        best_is_last=best == n_epochs - 1,
        overfitted=since.falls and gain > 0,
        n_skipped=int(history.attrs["n_non_finite"]),
        n_steps=n_steps,
        final_learning_rate_share=float(rate[-1] / rate.max()),
        status=str(history.attrs["status"]),
        verdict=Verdict("unknown", ""),
    )
    return replace(found, verdict=_judge(found))


def _check(history: xr.Dataset) -> None:
    """Refuse a history without its curves."""
    absent = [name for name in _NEEDED if name not in history]
    absent += [
        name
        for name in ("best_epoch", "objective", "n_non_finite", "status")
        if name not in history.attrs
    ]
    if absent:
        raise SpecError(
            f"history must hold the curves and attributes of a fit; got none of "
            f"{name_places(absent)} at judge_convergence. Pass SVIFit.history."
        )
    for name, dim in _NEEDED.items():
        if history[name].dims != (dim,):
            raise ShapeError(
                f"{name} must have the dimension {dim}; got {history[name].dims} at "
                "judge_convergence. Pass the history of one fit."
            )
    if not bool(np.isfinite(history["validation_log_score"]).any()):
        raise SpecError(
            f"history must hold an epoch with a validation score; got {history.sizes[EPOCH]} "
            "epochs without at judge_convergence. Train for an epoch first."
        )


def _mean(values: np.ndarray) -> float:
    """Return the mean of the finite values, NaN for none."""
    finite = values[~np.isnan(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _average(elbo: xr.DataArray, per_epoch: float) -> xr.DataArray:
    """Return the exponentially weighted mean with a half-life of one epoch."""
    smooth = elbo.to_series().ewm(halflife=max(per_epoch, 1.0), ignore_na=True).mean()
    return elbo.copy(data=smooth.to_numpy()).rename("elbo_average")


def _trend(values: np.ndarray, per_unit: float = 1.0) -> Trend:
    """Return slope and Newey-West error over finite points, times `per_unit` points."""
    place = np.flatnonzero(np.isfinite(values))
    n = len(place)
    if n < _MIN_POINTS:
        return Trend(math.nan, math.nan, n)
    x = place - place.mean()
    y = values[place] - values[place].mean()
    square = float(x @ x)
    slope = float(x @ y) / square
    # Two parameters were fitted: the residuals are too small by (n - 2) / n.
    error = n * hac_standard_error(x * (y - slope * x)) / square * math.sqrt(n / (n - 2.0))
    return Trend(slope * per_unit, error * per_unit, n)


def _judge(found: Convergence) -> Verdict:
    """Return what the curves say."""
    head = f"Best validation score in epoch {found.best_epoch} of {found.n_epochs} ({found.status})"
    faults = [text for holds, text in _grave(found) if holds]
    if faults:
        return Verdict("bad", f"{head}; " + "; ".join(faults) + ".")
    if found.n_epochs < _MIN_POINTS:
        return Verdict("unknown", f"{head}: too few epochs to judge. Train for more.")
    doubts = [text for holds, text in _slight(found) if holds]
    if doubts:
        return Verdict("doubtful", f"{head}; " + "; ".join(doubts) + ".")
    text = f"{head}; the validation score has stopped rising"
    if found.overfitted:
        text += (
            f" and later epochs overfit by {found.validation_drop:.4f} nats per cell, which the "
            "weights kept do not"
        )
    return Verdict("good", f"{text}.")


def _grave(found: Convergence) -> list[tuple[bool, str]]:
    """Return what makes a run bad, and whether it holds."""
    trend = found.elbo_trend
    return [
        (
            found.n_skipped > _TOO_MANY_SKIPPED * found.n_steps,
            f"{found.n_skipped} of {found.n_steps} steps were not finite and skipped: lower the "
            "learning rate or look at their dates",
        ),
        (
            trend.falls,
            f"the {found.objective} objective falls at the end ({trend.slope:.4f} nats per cell "
            f"and epoch, s.e. {trend.standard_error:.4f}): lower the learning rate",
        ),
        (
            found.overfitted and found.kept_epoch > found.best_epoch,
            f"the weights kept are those of epoch {found.kept_epoch}, after overfitting by "
            f"{found.validation_drop:.4f} nats per cell: keep the best ones",
        ),
    ]


def _slight(found: Convergence) -> list[tuple[bool, str]]:
    """Return what makes a run doubtful, and whether it holds."""
    trend = found.validation_trend
    ended = found.final_learning_rate_share < 0.05
    remedy = (
        "train for more epochs"
        if not ended
        else "train for more epochs, because the learning rate has fallen to "
        f"{found.final_learning_rate_share:.1%} of its peak and flattens the end by itself"
    )
    return [
        (found.status == "interrupted", "training was interrupted: resume it"),
        (
            found.n_skipped > 0,
            f"{found.n_skipped} of {found.n_steps} steps were not finite and skipped",
        ),
        (
            trend.rises and found.status != "early stopped",
            f"the validation score still rises by {trend.slope:.4f} nats per cell and epoch "
            f"(s.e. {trend.standard_error:.4f}): {remedy}",
        ),
    ]
