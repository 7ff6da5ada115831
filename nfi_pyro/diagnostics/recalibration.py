"""Recalibration of a forecast law from training dates alone."""

import math

import numpy as np
import xarray as xr
from scipy.special import ndtr, ndtri

from nfi_pyro.diagnostics.normal_scores import spread_interval
from nfi_pyro.diagnostics.results.recalibration import Recalibration, ScaleRecalibration
from nfi_pyro.dims import DATE
from nfi_pyro.errors import SpecError, name_places

_MIN_DATES = 50
_MIN_SCORES = 10


def fit_recalibration(
    train_pit: xr.DataArray, *, n_knots: int = 15, tail_dates: int = 10
) -> Recalibration:
    """Return the monotone map that makes the training PIT uniform, frozen.

    The empirical distribution function of the training PIT (Kuleshov, Fenner and Ermon, 2018),
    smoothed: it is read at `n_knots` levels, equally spaced in normal scores, and joined by
    straight lines between normal scores of PIT and level, where a wrong scale is a straight line.
    The outer knots leave the probability ``tail_dates / n_dates`` to either side: cells of one
    date share its shocks, so that fewer dates than that decide nothing; beyond them the map goes
    on straight, with the mean slope of the outer third of the knots.

    Parameters
    ----------
    train_pit : DataArray, any shape with or without date
        PIT of the training dates only, in [0, 1]; NaN = not observed. At least 50 dates; without
        the dimension date every value counts as one. In-sample PITs of a flexible model are too
        uniform: take them from validation or walk-forward dates before the test.
    n_knots : int
        >= 3. More follow finer shapes and more noise.
    tail_dates : int
        >= 1.

    Returns
    -------
    Recalibration
        With `apply` for PITs and `raw_level` for quantiles. It keeps nothing of later data.

    Raises
    ------
    SpecError
        If a PIT is outside [0, 1], there are too few dates or too few different values, or an
        option is out of range.
    """
    where = "fit_recalibration"
    for name, value, least in (("n_knots", n_knots, 3), ("tail_dates", tail_dates, 1)):
        if value < least:
            raise SpecError(f"{name} must be >= {least}; got {value} at {where}. Pass more.")
    seen = train_pit.notnull()
    pit = train_pit.to_numpy().astype(np.float64)
    pit = pit[~np.isnan(pit)]
    outside = pit[(pit < 0) | (pit > 1)]
    if len(outside):
        raise SpecError(
            f"train_pit must be in [0, 1]; got {name_places(outside)} at {where}. "
            "Pass forecast distribution functions at realised returns."
        )
    others = [dim for dim in train_pit.dims if dim != DATE]
    dated = DATE in train_pit.dims
    n_dates = int(seen.any(others).sum()) if dated else len(pit)
    if n_dates < max(_MIN_DATES, 2 * tail_dates + 1):
        raise SpecError(
            f"train_pit must hold {max(_MIN_DATES, 2 * tail_dates + 1)} dates; got {n_dates} at "
            f"{where}. Pass a longer span before the test."
        )
    edge = ndtri(1.0 - tail_dates / n_dates)
    levels = np.linspace(-edge, edge, n_knots)
    # An infinite score, from a PIT of 0 or 1, may lie beyond the knots but never at one.
    quantiles = np.quantile(pit, ndtr(levels), method="linear")
    score, inverse = np.unique(ndtri(quantiles), return_inverse=True)
    corrected = np.bincount(inverse, weights=levels) / np.bincount(inverse)  # ties: their middle
    if len(score) < 3 or not np.isfinite(score).all():
        raise SpecError(
            f"train_pit must vary, with few values of exactly 0 or 1; got {len(score)} different "
            f"knots at {where}. From draws pass (number below + 0.5) / (draws + 1)."
        )
    outer = max(len(score) // 3, 1)
    return Recalibration(
        score=score,
        corrected=corrected,
        lower_slope=float((corrected[outer] - corrected[0]) / (score[outer] - score[0])),
        upper_slope=float(
            (corrected[-1] - corrected[-1 - outer]) / (score[-1] - score[-1 - outer])
        ),
        n_observations=len(pit),
        n_dates=n_dates,
        train_span=_span(train_pit, seen, others) if dated else None,
    )


def fit_scale_recalibration(train_scores: xr.DataArray) -> ScaleRecalibration:
    """Return the factor that gives the training scores unit standard deviation, frozen.

    One number, for one portfolio: the standard deviation (ddof 1) of its normal scores
    ``Phi^-1(PIT)``, or of its standardised errors.

    Parameters
    ----------
    train_scores : DataArray, any shape
        Of the training dates only, finite; NaN = not observed. At least 10, not all equal. Thin
        overlapping labels first: the interval takes scores as independent.

    Returns
    -------
    ScaleRecalibration
        Its `apply` multiplies a forecast standard deviation.

    Raises
    ------
    SpecError
        If a score is infinite, or too few are observed or vary.
    """
    where = "fit_scale_recalibration"
    scores = train_scores.to_numpy().astype(np.float64)
    scores = scores[~np.isnan(scores)]
    n_infinite = int(np.isinf(scores).sum())
    if n_infinite:
        raise SpecError(
            f"train_scores must be finite or NaN; got {n_infinite} infinite at {where}. "
            "From draws pass the scores of (number below + 0.5) / (draws + 1)."
        )
    spread, lower, upper = spread_interval(scores)
    if len(scores) < _MIN_SCORES or math.isnan(spread) or spread == 0:
        raise SpecError(
            f"train_scores must hold {_MIN_SCORES} values that are not all equal; got "
            f"{len(scores)} at {where}. Pass a longer span before the test."
        )
    return ScaleRecalibration(factor=spread, interval=(lower, upper), n_observations=len(scores))


def _span(pit: xr.DataArray, seen: xr.DataArray, others: list[object]) -> tuple[str, str] | None:
    """Return first and last date with an observation, if dates are labelled."""
    if DATE not in pit.coords:
        return None
    labels = pit.get_index(DATE)[seen.any(others).to_numpy()]
    return str(labels.min())[:10], str(labels.max())[:10]
