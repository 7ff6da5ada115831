"""Sentences whose wording follows the numbers: better, worse, within noise, not computed."""

import math

import numpy as np
import xarray as xr

from nfi_pyro.diagnostics.results import Calibration, InformationCoefficient, ScoreTable
from nfi_pyro.dims import EPOCH
from nfi_pyro.rendering.formatting import interval, nats, number, percent, percent_interval
from nfi_pyro.rendering.selection import (
    Z_95,
    axis_values,
    nominal_levels,
    objective_name,
    smoothed,
)


def rank_ic_verdict(result: InformationCoefficient) -> str:
    """Return what the mean Rank IC and its interval show."""
    lower, upper = result.interval
    if math.isnan(result.mean):
        return "The mean Rank IC cannot be computed: no date has a finite Rank IC."
    if math.isnan(lower) or math.isnan(upper):
        return (
            f"The mean Rank IC is {number(result.mean)}; its interval cannot be computed from "
            f"{result.n_dates} dates, so nothing can be said about skill."
        )
    start = f"The mean Rank IC is {number(result.mean)} (95% interval {interval(lower, upper)}). "
    if lower > 0:
        return start + (
            "The interval excludes zero: on these dates the forecast means ranked assets better "
            "than chance."
        )
    if upper < 0:
        return start + (
            "The interval lies below zero: on these dates the forecast means ranked assets the "
            "wrong way round."
        )
    return start + (
        "The interval includes zero: these dates do not show that the forecast means rank assets "
        "better than chance."
    )


def coverage_verdict(calibration: Calibration) -> str:
    """Return which nominal levels the observed coverage misses, and in which direction."""
    nominal = nominal_levels(calibration)
    names = ("observed", "lower", "upper")
    observed, lower, upper = (calibration.coverage[n].values.astype(float) for n in names)
    known = np.isfinite(observed) & np.isfinite(lower) & np.isfinite(upper)
    if not known.any():
        return "Coverage cannot be computed: no level has a finite share and interval."
    under = known & (upper < nominal)
    over = known & (lower > nominal)
    parts = []
    if under.any():
        listed = ", ".join(percent(q, 0) for q in nominal[under])
        parts.append(
            f"At nominal {listed} the forecast intervals cover too little: they are too narrow."
        )
    if over.any():
        listed = ", ".join(percent(q, 0) for q in nominal[over])
        parts.append(
            f"At nominal {listed} the forecast intervals cover too much: they are too wide."
        )
    if not parts:
        levels = "the one nominal level" if known.sum() == 1 else f"all {known.sum()} levels"
        return f"Observed coverage agrees with {levels} within its 95% interval."
    agreeing = int((known & ~under & ~over).sum())
    return " ".join(parts) + f" {agreeing} of {known.sum()} levels agree within their interval."


def pit_verdict(calibration: Calibration) -> str:
    """Return how many bins of the PIT histogram differ from uniform, and what its ends say."""
    density = calibration.histogram.values.astype(float)
    lower = calibration.histogram_lower.values.astype(float)
    upper = calibration.histogram_upper.values.astype(float)
    known = np.isfinite(density) & np.isfinite(lower) & np.isfinite(upper)
    if not known.any():
        return "The PIT histogram cannot be computed: nothing was observed."
    missed = known & ((lower > 1.0) | (upper < 1.0))
    text = (
        f"{int(missed.sum())} of {int(known.sum())} PIT bins have a 95% band that leaves out the "
        f"uniform density 1 (about {number(0.05 * known.sum(), 0)} would by chance)."
    )
    for place, side in ((0, "lowest"), (-1, "highest")):
        if not missed[place]:
            continue
        if lower[place] > 1.0:
            reading = "more outcomes than forecast fall there, so this tail is too thin"
        else:
            reading = "fewer outcomes than forecast fall there, so this tail is too heavy"
        text += f" The {side} bin has density {number(density[place], 2)}: {reading}."
    if not missed[0] and not missed[-1]:
        text += " Neither end bin is among them."
    return text


def score_verdict(name: str, advantage: float, error: float) -> str:
    """Return whether the model beats one baseline on the log score.

    Parameters
    ----------
    name : str
        The baseline.
    advantage, error : float
        Model minus baseline, nats per cell, and its standard error.
    """
    if math.isnan(advantage):
        return f"The difference from “{name}” cannot be computed."
    size = f"{nats(abs(advantage))} per cell"
    if advantage == 0.0:
        return f"The model and “{name}” have the same log score."
    order = "better" if advantage > 0 else "worse"
    if math.isnan(error):
        return f"The model is {order} than “{name}” by {size}; no standard error is known."
    within = abs(advantage) <= Z_95 * error
    tail = (
        "within noise: less than 1.96 standard errors"
        if within
        else "outside noise: more than 1.96 standard errors"
    )
    return (
        f"The model is {order} than “{name}” by {size} (standard error {number(error, 4)}; {tail})."
    )


def best_baseline(scores: ScoreTable) -> tuple[str, float, float] | None:
    """Return name, advantage of the model in nats per cell and its error; None without baselines.

    The best baseline is the one with the highest finite log score; the model is the first
    forecast of the table.
    """
    names = [str(name) for name in scores.table["forecast"].values]
    score = scores.table["log_score"].values.astype(float)
    if len(names) < 2 or not np.isfinite(score[1:]).any():
        return None
    place = 1 + int(np.nanargmax(score[1:]))
    advantage = -float(scores.table["log_score_difference"].values[place])
    error = float(scores.table["difference_standard_error"].values[place])
    return names[place], advantage, error


def training_verdict(history: xr.Dataset) -> str:
    """Return whether training had levelled off, the best epoch, and what the curve is."""
    elbo = smoothed(history["elbo"].values.astype(float))
    bound = objective_name(history)
    called = bound if bound == "ELBO" else bound.lower()
    parts = []
    if len(elbo) >= 20 and np.isfinite(elbo[[-1, -1 - len(elbo) // 10]]).all():
        change = elbo[-1] - elbo[-1 - len(elbo) // 10]
        parts.append(
            f"Over the last tenth of the {len(elbo):,} steps the smoothed {called} changed by "
            f"{nats(change, signed=True)} per cell."
        )
    epochs = axis_values(history["validation_log_score"], EPOCH)
    best = history.attrs.get("best_epoch")
    if best and len(epochs):
        parts.append(f"The best of {len(epochs)} epochs is epoch {best}.")
        if best == epochs[-1] and len(epochs) > 1:
            parts.append("It is the last one, so longer training might score better.")
    if np.isnan(history["elbo"].values.astype(float)).any():
        n_missing = int(np.isnan(history["elbo"].values.astype(float)).sum())
        parts.append(
            f"{n_missing:,} steps have no finite {called} and are left out of the average."
        )
    objective = history.attrs.get("objective", "elbo")
    if objective != "elbo" and bound == "ELBO":
        parts.append(
            f'Training maximised "{objective}", so the curve called ELBO is that objective\'s '
            "likelihood term less the KL: not a bound on the evidence."
        )
    return " ".join(parts)


def coverage_at(calibration: Calibration, level: float) -> tuple[float, float, float]:
    """Return observed coverage at a nominal level and its interval; NaN if not computed."""
    place = np.flatnonzero(np.isclose(nominal_levels(calibration), level))
    if place.size == 0:
        return math.nan, math.nan, math.nan
    values = [calibration.coverage[n].values for n in ("observed", "lower", "upper")]
    return float(values[0][place[0]]), float(values[1][place[0]]), float(values[2][place[0]])


def coverage_phrase(calibration: Calibration, level: float) -> str:
    """Return one line on coverage at a level: too narrow, too wide, or in agreement."""
    observed, lower, upper = coverage_at(calibration, level)
    if math.isnan(observed) or math.isnan(lower) or math.isnan(upper):
        return "not computed at this level"
    span = f"interval {percent_interval(lower, upper)}: "
    if upper < level:
        return span + "intervals too narrow"
    if lower > level:
        return span + "intervals too wide"
    return span + "agrees with nominal"
