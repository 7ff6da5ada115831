"""Judgement of importance weights: Pareto k-hat and the gap between evidence and ELBO by date."""

import math
import warnings
from dataclasses import replace
from importlib import import_module

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from nfi_pyro.diagnostics.results.importance import ImportanceQuality
from nfi_pyro.diagnostics.results.verdict import Grade, Verdict
from nfi_pyro.diagnostics.scores import hac_standard_error
from nfi_pyro.dims import DATE, DRAW
from nfi_pyro.errors import ShapeError, SpecError, name_places

_LEAST_DRAWS = 100  # of which the largest 20 make the tail
_EQUAL = 1e-6  # nats: weights that differ by less differ by rounding
_SMALL_GAP, _LARGE_GAP = 0.1, 1.0  # nats per date
_FEW, _MANY = 0.1, 0.5  # share of dates with poor weights
_HALF = 0.5  # of the draws: with more of them effective, a heavy tail moves next to nothing


def judge_importance(
    log_weights: xr.DataArray, elbo: xr.DataArray, *, guide: str = "posterior"
) -> ImportanceQuality:
    """Return k-hat, importance-weighted evidence and its gap to the ELBO, by date, and a verdict.

    Each date is judged alone: the product of many dates' weights says nothing of any of them. A
    date on which all log weights are exactly 0 had no observed return; it does not count. k-hat
    knows the shape of the weights' tail and not its size: weights within a percent of each other
    can have a heavy one. So a date's weights are poor where k-hat is high and fewer than half of
    the draws are effective.

    Parameters
    ----------
    log_weights : DataArray, shape (draw, date)
        Nats, finite; at least 100 draws. From `nfi_pyro.posterior.importance_weights`.
    elbo : DataArray, shape (date,)
        Bound of the same guide on the same dates, nats.
    guide : str
        What made the draws. ``encoder`` gets an encoder's advice.

    Returns
    -------
    ImportanceQuality
        Good: a mean gap of at most 0.1 nat per date, and poor weights on at most 10 percent of
        dates. Bad: a gap above 1 nat, or more than half of the dates. Doubtful between.

    Raises
    ------
    ShapeError
        If the dimensions are others, or the dates of the two differ.
    SpecError
        If there are fewer than 100 draws, or a number is not finite.

    References
    ----------
    .. [1] Vehtari, Simpson, Gelman, Yao, Gabry (2024). Pareto Smoothed Importance Sampling. JMLR.
    .. [2] Burda, Grosse, Salakhutdinov (2016). Importance Weighted Autoencoders. ICLR.
    """
    weights = _check(log_weights, elbo)
    bound = elbo.to_numpy().astype(np.float64)
    counted = (weights != 0.0).any(0)
    empty = np.full(weights.shape[1], np.nan)
    k_hat, evidence, effective = empty.copy(), empty.copy(), empty.copy()
    for date in np.flatnonzero(counted):
        own = weights[:, date]
        k_hat[date] = _pareto_k(own)
        evidence[date] = logsumexp(own) - math.log(len(own))
        effective[date] = math.exp(2.0 * logsumexp(own) - logsumexp(2.0 * own))
    gap = evidence - bound
    threshold = min(1.0 - 1.0 / math.log10(len(weights)), 0.7)
    n_dates = int(counted.sum())
    high = k_hat[counted] > threshold
    poor = high & (effective[counted] < _HALF * len(weights))
    share, share_poor, mean = (
        float(part.mean()) if n_dates else math.nan for part in (high, poor, gap[counted])
    )
    error = hac_standard_error(gap[counted])

    def by_date(values: np.ndarray, units: str) -> xr.DataArray:
        return xr.DataArray(values, {DATE: log_weights[DATE]}, (DATE,), attrs={"units": units})

    found = ImportanceQuality(
        k_hat=by_date(k_hat, "1"),
        evidence=by_date(evidence, "nats"),
        gap=by_date(gap, "nats"),
        effective_draws=by_date(effective, "draws"),
        threshold=threshold,
        share_high=share,
        share_poor=share_poor,
        mean_gap=mean,
        gap_standard_error=error,
        n_dates=n_dates,
        n_empty=int((~counted).sum()),
        guide=guide,
        verdict=Verdict("unknown", ""),
    )
    return replace(found, verdict=_judge(found))


def _check(log_weights: xr.DataArray, elbo: xr.DataArray) -> np.ndarray:
    """Return the weights (draw, date), or refuse them."""
    if set(log_weights.dims) != {DRAW, DATE} or elbo.dims != (DATE,):
        raise ShapeError(
            "log_weights must have the dimensions draw and date, and elbo date; got "
            f"{log_weights.dims} and {elbo.dims} at judge_importance. Pass one fit's."
        )
    if not np.array_equal(log_weights[DATE].values, elbo[DATE].values):
        raise ShapeError(
            "log_weights and elbo must have the same dates; got "
            f"{log_weights.sizes[DATE]} and {elbo.sizes[DATE]} that differ at judge_importance. "
            "Pass those of one call of importance_weights."
        )
    if log_weights.sizes[DRAW] < _LEAST_DRAWS:
        raise SpecError(
            f"log_weights must hold at least {_LEAST_DRAWS} draws; got {log_weights.sizes[DRAW]} "
            "at judge_importance. Draw a thousand."
        )
    weights = log_weights.transpose(DRAW, DATE).to_numpy().astype(np.float64)
    wrong = ~np.isfinite(weights).all(0) | ~np.isfinite(elbo.to_numpy())
    if wrong.any():
        raise SpecError(
            "log_weights and elbo must be finite; got others at "
            f"{name_places(elbo[DATE].values[wrong])}. Look for scales of 0 in the model."
        )
    return weights


def _pareto_k(log_weights: np.ndarray) -> float:
    """Return k-hat of one date by ArviZ, of either generation; 0 where all weights are equal."""
    if np.ptp(log_weights) < _EQUAL:
        return 0.0
    with warnings.catch_warnings():  # ArviZ 0.23 announces 1.x once a day
        warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing", FutureWarning)
        arviz = import_module("arviz")
    if hasattr(arviz, "psislw"):
        return float(arviz.psislw(log_weights)[1])
    # ArviZ 1.x takes log-likelihoods of what is left out and changes their sign itself.
    return float(import_module("arviz_stats.base").array_stats.psislw(-log_weights)[1])


def _judge(found: ImportanceQuality) -> Verdict:
    """Return the verdict; it speaks of the guide, never of the model."""
    left_out = ""
    if found.n_empty:
        left_out = f" {found.n_empty} dates without an observed return do not count."
    if not found.n_dates:
        return Verdict("unknown", f"No date has an observed return.{left_out}")
    grade: Grade = "doubtful"
    if found.mean_gap > _LARGE_GAP or found.share_poor > _MANY:
        grade = "bad"
    elif found.mean_gap <= _SMALL_GAP and found.share_poor <= _FEW:
        grade = "good"
    error = found.gap_standard_error
    noise = f" (s.e. {error:.2f})" if math.isfinite(error) else ""
    text = (
        f"The ELBO of guide '{found.guide}' is {found.mean_gap:z.2f} nats per date{noise} below "
        f"the importance-weighted evidence; k-hat is above {found.threshold:.2f} on "
        f"{found.share_high:.0%} of {found.n_dates} dates, on {found.share_poor:.0%} with fewer "
        "than half of the draws effective"
    )
    if grade == "good":
        return Verdict(grade, f"{text}. Its draws stand for the posterior.{left_out}")
    advice = "weight its draws by their importance where an exact posterior matters"
    if found.guide == "encoder":
        advice = "use the model's own posterior, or draws corrected by their importance"
    return Verdict(grade, f"{text}. The guide is wrong, not the model: {advice}.{left_out}")
