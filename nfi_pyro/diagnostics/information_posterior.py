"""Posterior of the mean Rank IC, and the dates it takes to tell it from 0."""

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.optimize import brentq
from scipy.signal import lfilter

from nfi_pyro.diagnostics.ar1_mean import (
    FAST,
    MeanPosterior,
    SeriesSums,
    mean_posterior,
    sum_series,
)
from nfi_pyro.diagnostics.dim_checks import (
    require_dims,
    require_options,
    require_probability,
    require_within,
)
from nfi_pyro.diagnostics.results.information import (
    InformationPosterior,
    InformationPower,
    normal_power,
)
from nfi_pyro.diagnostics.results.verdict import Grade, Verdict
from nfi_pyro.dims import DATE
from nfi_pyro.errors import SpecError

PHI_RANGE = (-0.99, 0.99)
_MIN_DATES = 5
_CHUNK = 200
_FEW = 0.9  # share of the prior's standard deviation that is left where the data say little


def posterior_information_coefficient(
    rank_ic: xr.DataArray,
    *,
    prior_scale: float = 0.05,
    level: float = 0.95,
    threshold: float = 0.95,
    phi_range: tuple[float, float] = PHI_RANGE,
) -> InformationPosterior:
    """Return the posterior of the mean Rank IC when neighbouring dates depend on each other.

    The daily Rank IC is a stationary Gaussian AR(1) around its mean, with autocorrelation phi and
    standard deviation unknown. Priors: mean ``N(0, prior_scale^2)``, phi uniform on `phi_range`,
    log standard deviation uniform. Exact up to quadrature, see `nfi_pyro.diagnostics.ar1_mean`.

    Labels of h days depend over h - 1 dates in another pattern. An AR(1) that matches their first
    autocorrelation overstates the dependence: 95 percent intervals then cover about 98.5 percent
    (measured, 400 histories of 5-day labels); on every h-th date alone they are right.

    Parameters
    ----------
    rank_ic : DataArray, shape (date,)
        In [-1, 1], on consecutive trading dates; NaN = none on that date, which counts as a gap:
        the dependence across k dates is ``phi^k``. At least 5 observed.
    prior_scale : float
        > 0. With 0.05 the mean lies within 0.1 of 0 with probability .95.
    level : float
        Probability of the intervals, in (0, 1).
    threshold : float
        Probability of a positive mean from which the verdict is good, in (0.5, 1).
    phi_range : tuple of float
        Ends of the prior of phi, within (-1, 1); the default is all but unit roots.

    Returns
    -------
    InformationPosterior

    Raises
    ------
    ShapeError
        If the dimension is not date.
    SpecError
        If a value is out of range, fewer than 5 are observed, or they do not vary.
    """
    where = "posterior_information_coefficient"
    series = require_dims(rank_ic, (DATE,), "rank_ic", where)
    require_within(series, -1.0, 1.0, "rank_ic", where, "Pass rank correlations by date.")
    require_probability(where, level=level, threshold=threshold)
    _check_prior(prior_scale, phi_range, where)
    values = series.to_numpy()
    observed = values[~np.isnan(values)]
    if len(observed) < _MIN_DATES or np.ptp(observed) == 0:
        raise SpecError(
            f"rank_ic must hold {_MIN_DATES} dates that are not all equal; got {len(observed)} "
            f"observed at {where}. Score more dates."
        )
    found = mean_posterior(sum_series(values), prior_scale, phi_range)
    mean = float((found.weight * found.loc).sum())
    spread = math.sqrt(float((found.weight * (found.scale**2 + (found.loc - mean) ** 2)).sum()))
    by_phi = found.weight.sum(axis=2)[0]
    tails = (0.5 - level / 2.0, 0.5 + level / 2.0)
    cumulative = by_phi.cumsum() - 0.5 * by_phi
    phi_low, phi_high = np.interp(tails, cumulative, found.phi[0])
    positive = float(found.probability_above(0.0)[0])
    effective = float(by_phi @ found.effective[0])
    return InformationPosterior(
        mean=mean,
        standard_deviation=spread,
        interval=(_quantile(found, tails[0]), _quantile(found, tails[1])),
        level=level,
        probability_positive=positive,
        phi_mean=float(by_phi @ found.phi[0]),
        phi_interval=(float(phi_low), float(phi_high)),
        effective_dates=effective,
        n_dates=len(observed),
        n_missing=len(values) - len(observed),
        prior_scale=prior_scale,
        verdict=_judge_mean(positive, threshold, mean, effective, spread / prior_scale),
    )


def information_coefficient_power(
    effect: float = 0.005,
    *,
    sd: float,
    phi: float,
    n_dates: Sequence[int] = (60, 120, 250, 500, 1000, 2000),
    threshold: float = 0.95,
    n_simulations: int = 1000,
    seed: int = 0,
    prior_scale: float = 0.05,
) -> InformationPower:
    """Return how often a history shows a mean Rank IC above 0, with `effect` and with none.

    Every simulated history is judged as `posterior_information_coefficient` would, on a coarser
    grid (its probabilities agree to about 1e-3). Both means share the noise, and histories of
    different length their first dates.

    Parameters
    ----------
    effect : float
        Mean Rank IC to be told from 0, in (0, 1).
    sd : float
        Standard deviation of the daily Rank IC over dates, > 0.
    phi : float
        Its autocorrelation from one date to the next, within [-0.99, 0.99].
    n_dates : sequence of int
        Lengths of the histories, each at least 5, ascending.
    threshold : float
        Probability of a positive mean that counts as seen, in (0, 1).
    n_simulations : int
        Histories, from 2 on.
    seed : int
        >= 0. Global generators are not touched.
    prior_scale : float
        As in `posterior_information_coefficient`.

    Returns
    -------
    InformationPower
        Its `dates_needed` says how many dates reach a power.

    Raises
    ------
    SpecError
        If an option is out of range.
    """
    where = "information_coefficient_power"
    require_probability(where, effect=effect, threshold=threshold)
    _check_prior(prior_scale, PHI_RANGE, where)
    if not (math.isfinite(sd) and sd > 0):
        raise SpecError(f"sd must be > 0; got {sd} at {where}. Pass the daily one, as 0.1.")
    require_options(
        where,
        phi=(phi, *PHI_RANGE),
        n_simulations=(n_simulations, 2, math.inf),
        seed=(seed, 0, math.inf),
    )
    lengths = list(n_dates)
    if not lengths or lengths != sorted(set(lengths)) or lengths[0] < _MIN_DATES:
        raise SpecError(
            f"n_dates must ascend from {_MIN_DATES} or more; got {lengths} at {where}. "
            "Pass for example (120, 250, 1000)."
        )
    rng = np.random.default_rng(seed)
    seen = np.zeros((2, len(lengths)))
    for start in range(0, n_simulations, _CHUNK):
        count = min(_CHUNK, n_simulations - start)
        for j, sums in enumerate(_simulate_sums(rng, count, sd, phi, lengths)):
            for i, mean in enumerate((effect, 0.0)):
                found = mean_posterior(sums.shifted(mean), prior_scale, PHI_RANGE, FAST)
                seen[i, j] += (found.probability_above(0.0) >= threshold).sum()
    share = seen / n_simulations
    error = np.sqrt(share * (1.0 - share) / n_simulations)
    law = {"standard_deviation": sd, "phi": phi, "threshold": threshold, "prior_scale": prior_scale}
    closed = [normal_power(effect, n, **law) for n in lengths]
    table = xr.Dataset(
        {
            "power": ("n_dates", share[0]),
            "power_standard_error": ("n_dates", error[0]),
            "false_alarm": ("n_dates", share[1]),
            "false_alarm_standard_error": ("n_dates", error[1]),
            "normal_approximation": ("n_dates", closed),
        },
        coords={"n_dates": lengths},
    )
    verdict = _judge_power(effect, lengths[-1], share[0, -1], share[1, -1])
    return InformationPower(
        table=table, effect=effect, n_simulations=n_simulations, verdict=verdict, **law
    )


def _check_prior(prior_scale: float, phi_range: tuple[float, float], where: str) -> None:
    """Refuse priors out of range."""
    if not (math.isfinite(prior_scale) and prior_scale > 0):
        raise SpecError(
            f"prior_scale must be > 0; got {prior_scale} at {where}. Pass for example 0.05."
        )
    if not -1 < phi_range[0] < phi_range[1] < 1:
        raise SpecError(
            f"phi_range must ascend within (-1, 1); got {phi_range} at {where}. "
            f"Pass for example {PHI_RANGE}."
        )


def _simulate_sums(
    rng: np.random.Generator, n_series: int, sd: float, phi: float, lengths: Sequence[int]
) -> list[SeriesSums]:
    """Return the sums of stationary AR(1) series with mean 0, for each length of their start."""
    shock = rng.normal(scale=sd, size=(n_series, lengths[-1]))
    shock[:, 1:] *= math.sqrt(1.0 - phi**2)
    series = lfilter([1.0], [1.0, -phi], shock, axis=1)
    last = np.asarray(lengths) - 1
    first, end = series[:, :1], series[:, last]
    total = series.cumsum(axis=1)[:, last]
    square = (series**2).cumsum(axis=1)[:, last]
    cross = (series[:, 1:] * series[:, :-1]).cumsum(axis=1)[:, last - 1]
    return [
        SeriesSums(
            first=first[:, 0],
            step=np.array([1]),
            count=np.array([n - 1]),
            now=total[:, j, None] - first,
            before=total[:, j, None] - end[:, j, None],
            now_now=square[:, j, None] - first**2,
            now_before=cross[:, j, None],
            before_before=square[:, j, None] - end[:, j, None] ** 2,
        )
        for j, n in enumerate(lengths)
    ]


def _quantile(found: MeanPosterior, probability: float) -> float:
    """Return a quantile of the mean of the only series."""
    low = float((found.loc - 9.0 * found.scale).min())
    high = float((found.loc + 9.0 * found.scale).max())
    return float(brentq(lambda x: 1.0 - found.probability_above(x)[0] - probability, low, high))


def _judge_mean(
    positive: float, threshold: float, mean: float, effective: float, left: float
) -> Verdict:
    """Return what the posterior of the mean says."""
    figure = (
        f"The mean Rank IC is positive with probability {positive:.3f} (posterior mean "
        f"{mean:+.4f}, as much as {effective:.0f} independent dates say)"
    )
    if left > _FEW:
        return Verdict("unknown", f"{figure}: the prior decides. Score more dates.")
    if positive >= threshold:
        return Verdict("good", f"{figure}: the ranks carry information.")
    if positive <= 1.0 - threshold:
        return Verdict(
            "bad", f"{figure}: the ranks point the wrong way. Look at the label and its sign."
        )
    return Verdict(
        "doubtful",
        f"{figure}: it cannot be told from 0. Score more dates; information_coefficient_power "
        "says how many an effect needs.",
    )


def _judge_power(effect: float, n_dates: int, power: float, false_alarm: float) -> Verdict:
    """Return what the longest history can show."""
    grade: Grade = "good" if power >= 0.8 else "doubtful"  # short data are no fault of a fit
    text = (
        f"With {n_dates} dates a mean Rank IC of {effect:g} is seen in {power:.0%} of histories, "
        f"and one of 0 is taken for positive in {false_alarm:.0%}."
    )
    if grade != "good":
        text += " That it is not seen says little: see dates_needed for the dates it takes."
    return Verdict(grade, text)
