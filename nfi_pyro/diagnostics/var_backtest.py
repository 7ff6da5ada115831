"""Back-test of value at risk and expected shortfall of one portfolio."""

import math
from dataclasses import replace

import numpy as np
import xarray as xr
from scipy.special import xlogy
from scipy.stats import binom, chi2

from nfi_pyro.diagnostics.dim_checks import (
    places_of,
    require_dims,
    require_options,
    require_probability,
    require_same_labels,
)
from nfi_pyro.diagnostics.results.var_backtest import (
    LikelihoodRatio,
    ShortfallTest,
    ValueAtRiskBacktest,
)
from nfi_pyro.diagnostics.results.verdict import Verdict
from nfi_pyro.dims import DATE
from nfi_pyro.errors import SpecError, name_places

_SIZE = 0.05  # below it a verdict is doubtful
_SURE = 0.01  # below it, bad
_MIN_EXCEEDANCES = 5
_ROUNDING = 1.0 + 1e-7  # as scipy.stats.binomtest: probabilities closer than this tie
_WHERE = "backtest_value_at_risk"


def backtest_value_at_risk(
    returns: xr.DataArray,
    value_at_risk: xr.DataArray,
    *,
    level: float,
    expected_shortfall: xr.DataArray | None = None,
    horizon: int = 1,
    alternative: float = 2.0,
    n_resamples: int = 2000,
    seed: int = 0,
) -> ValueAtRiskBacktest:
    """Return whether losses beyond the value at risk are as frequent, scattered and large as said.

    Coverage by Kupiec's likelihood ratio and the exact binomial test; independence and
    conditional coverage by Christoffersen's, with permutation and Monte Carlo p-values, because
    the chi-square law is poor at few exceedances; expected shortfall by the exceedance residuals
    of McNeil and Frey with a bootstrap, the one test of it that needs no more than the two
    forecasts. A count of 0 or of all enters the likelihoods by its limit, ``0 log 0 = 0``.
    Independence is tested against dependence on the date before alone, and is slow to see a
    volatility that changes over months. A label that is earned ``start_lag + horizon`` days after
    its date is unknown to the forecasts made in between: exceedances of such neighbours may come
    together although every forecast is right. Test independence on dates that far apart.

    Parameters
    ----------
    returns : DataArray, shape (date,)
        Realised, decimal; NaN = not observed.
    value_at_risk : DataArray, shape (date,)
        Known before; a positive number is a loss, decimal; NaN = no forecast. Same dates. It may
        be below 0 on dates of a large forecast mean, not on most.
    level : float
        Of the value at risk, in (0, 1), as 0.95; a loss strictly above it is an exceedance.
    expected_shortfall : DataArray, shape (date,), optional
        At the same level, a positive number is a loss, at least the value at risk. Exceedances of
        dates where it is not above 0 have no residual and are left out of its test.
    horizon : int
        Trading days of the returns, >= 1. Above 1 they overlap from date to date: exceedances
        then come in runs by construction, every p-value is too small, and the verdict says so.
        Pass every horizon-th date and ``horizon=1`` instead.
    alternative : float
        Multiple of the nominal probability at which the power is stated; > 0, product below 1.
    n_resamples : int
        Permutations, simulated series and bootstrap resamples, from 99 on.
    seed : int
        >= 0. Global generators are not touched.

    Returns
    -------
    ValueAtRiskBacktest
        Dates with a NaN in any array are dropped and counted.

    Raises
    ------
    ShapeError
        If dimensions or dates differ.
    SpecError
        If most forecasts are negative, the shortfall is below the value at risk, no date is left,
        or an option is out of range.
    """
    require_probability(_WHERE, level=level)
    _check_options(level, horizon, alternative, n_resamples, seed)
    outcome, risk, tail = _check_forecasts(returns, value_at_risk, expected_shortfall)
    kept = outcome.notnull() & risk.notnull()
    if tail is not None:
        kept &= tail.notnull()
    counted = kept.to_numpy()
    n = int(counted.sum())
    if n == 0:
        raise SpecError(
            f"some date must have a return and a forecast; got none at {_WHERE}. "
            "Pass forecasts of dates whose return is known."
        )
    loss = -outcome.to_numpy()
    exceeded = (loss > risk.to_numpy()) & counted
    rng = np.random.default_rng(seed)
    nominal = 1.0 - level
    coverage, independence, conditional = _ratios(exceeded, counted, nominal, n_resamples, rng)
    shortfall = None
    if tail is not None:
        stated = exceeded & (tail.to_numpy() > 0.0)
        ratio = loss[stated] / tail.to_numpy()[stated]
        shortfall = _test_shortfall(ratio, n * nominal, n_resamples, rng)
    count = int(exceeded.sum())
    found = ValueAtRiskBacktest(
        level=level,
        horizon=horizon,
        exceeded=kept.copy(data=exceeded)[counted].rename("exceeded"),
        n_dates=n,
        n_dropped=len(counted) - n,
        n_exceedances=count,
        n_expected=n * nominal,
        exceedance_share=count / n,
        coverage=coverage,
        independence=independence,
        conditional_coverage=conditional,
        shortfall=shortfall,
        alternative=alternative,
        power=coverage_power(n, nominal, alternative * nominal),
        verdict=Verdict("unknown", ""),
    )
    return replace(found, verdict=_judge(found))


def coverage_power(n_dates: int, nominal: float, truth: float, *, size: float = _SIZE) -> float:
    """Return the exact power of the two-sided binomial test of a probability.

    Parameters
    ----------
    n_dates : int
        Independent dates, >= 1.
    nominal, truth : float
        Probability of an exceedance that is tested, and the one that holds, in (0, 1).
    size : float
        Level of the test, in (0, 1). The exact size is below it, since counts are whole; it is
        the power at ``truth = nominal``.

    Raises
    ------
    SpecError
        If an argument is out of range.
    """
    require_probability("coverage_power", nominal=nominal, truth=truth, size=size)
    require_options("coverage_power", n_dates=(n_dates, 1, math.inf))
    rejected = _binomial_p_values(n_dates, nominal) <= size
    return float(binom.pmf(np.arange(n_dates + 1), n_dates, truth)[rejected].sum())


def _check_options(
    level: float, horizon: int, alternative: float, n_resamples: int, seed: int
) -> None:
    """Refuse options out of range."""
    require_options(
        _WHERE,
        horizon=(horizon, 1, math.inf),
        n_resamples=(n_resamples, 99, math.inf),
        seed=(seed, 0, math.inf),
    )
    if not 0 < alternative * (1.0 - level) < 1:
        raise SpecError(
            f"alternative must be > 0 and, times 1 - level, below 1; got {alternative} at level "
            f"{level} of {_WHERE}. Pass for example 2."
        )


def _check_forecasts(
    returns: xr.DataArray, value_at_risk: xr.DataArray, expected_shortfall: xr.DataArray | None
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray | None]:
    """Return the three series in float64, after checking labels and signs."""
    outcome = require_dims(returns, (DATE,), "returns", _WHERE)
    risk = require_dims(value_at_risk, (DATE,), "value_at_risk", _WHERE)
    require_same_labels(risk, outcome, "value_at_risk", _WHERE)
    _require_losses(risk)
    if expected_shortfall is None:
        return outcome, risk, None
    tail = require_dims(expected_shortfall, (DATE,), "expected_shortfall", _WHERE)
    require_same_labels(tail, outcome, "expected_shortfall", _WHERE)
    low = np.argwhere(tail.to_numpy() < risk.to_numpy())
    if len(low):
        raise SpecError(
            f"expected_shortfall must be at least the value at risk; got "
            f"{tail.values[tuple(low[0])]} below {risk.values[tuple(low[0])]} at "
            f"{name_places(places_of(tail, low))}. Pass both at one level, losses positive."
        )
    return outcome, risk, tail


def _ratios(
    exceeded: np.ndarray,
    counted: np.ndarray,
    nominal: float,
    n_resamples: int,
    rng: np.random.Generator,
) -> tuple[LikelihoodRatio, LikelihoodRatio, LikelihoodRatio]:
    """Return the tests of coverage, independence and both."""
    n, count = int(counted.sum()), int(exceeded.sum())
    coverage = float(_coverage_ratio(np.array(count), n, nominal))
    independence = float(_independence_ratio(exceeded[None], counted)[0])
    shuffled = np.zeros((n_resamples, len(counted)), dtype=bool)
    shuffled[:, counted] = rng.permuted(np.tile(exceeded[counted], (n_resamples, 1)), axis=1)
    permuted = _independence_ratio(shuffled, counted)
    drawn = (rng.random((n_resamples, len(counted))) < nominal) & counted
    null = _coverage_ratio(drawn.sum(axis=1), n, nominal) + _independence_ratio(drawn, counted)
    both = coverage + independence
    return (
        LikelihoodRatio(
            coverage, float(chi2.sf(coverage, 1)), float(_binomial_p_values(n, nominal)[count])
        ),
        LikelihoodRatio(
            independence, float(chi2.sf(independence, 1)), _resampled_p(permuted, independence)
        ),
        LikelihoodRatio(both, float(chi2.sf(both, 2)), _resampled_p(null, both)),
    )


def _coverage_ratio(count: np.ndarray, n: int, nominal: float) -> np.ndarray:
    """Return Kupiec's statistic of counts of exceedances among n dates."""
    share = count / n
    free = xlogy(count, share) + xlogy(n - count, 1.0 - share)
    fixed = xlogy(count, nominal) + xlogy(n - count, 1.0 - nominal)
    return np.maximum(2.0 * (free - fixed), 0.0)


def _independence_ratio(exceeded: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return Christoffersen's statistic of series (series, date) against one probability."""
    pair = counted[1:] & counted[:-1]
    before, now = exceeded[:, :-1] & pair, exceeded[:, 1:] & pair
    n_after, n_pairs = before.sum(axis=1), int(pair.sum())
    hits_after = (before & now).sum(axis=1)
    hits = now.sum(axis=1)
    apart = _log_likelihood(hits_after, n_after)
    apart += _log_likelihood(hits - hits_after, n_pairs - n_after)
    return np.maximum(2.0 * (apart - _log_likelihood(hits, np.full_like(hits, n_pairs))), 0.0)


def _log_likelihood(hits: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the largest Bernoulli log-likelihood, 0 for no trial."""
    share = hits / np.maximum(n, 1)
    return xlogy(hits, share) + xlogy(n - hits, 1.0 - share)


def _resampled_p(null: np.ndarray, statistic: float) -> float:
    """Return the share of resampled statistics that are as large, the observed one among them."""
    return float((1 + (null >= statistic - 1e-9).sum()) / (1 + len(null)))


def _binomial_p_values(n: int, probability: float) -> np.ndarray:
    """Return the exact two-sided p-value of every count from 0 to n.

    Counts that are at most as likely as the observed one are as extreme.
    """
    mass = binom.pmf(np.arange(n + 1), n, probability)
    ordered = np.sort(mass)
    place = np.searchsorted(ordered, mass * _ROUNDING, side="right")
    return np.minimum(ordered.cumsum()[place - 1], 1.0)


def _require_losses(value_at_risk: xr.DataArray) -> None:
    """Refuse a value at risk of the other sign."""
    values = value_at_risk.to_numpy()
    wrong = np.argwhere(values < 0.0)
    if len(wrong) > 0.5 * np.isfinite(values).sum():
        raise SpecError(
            f"value_at_risk must be positive for a loss; got {values[tuple(wrong[0])]} at "
            f"{name_places(places_of(value_at_risk, wrong))} of {_WHERE}, most of it negative. "
            "Turn the sign."
        )


def _test_shortfall(
    ratio: np.ndarray, n_expected: float, n_resamples: int, rng: np.random.Generator
) -> ShortfallTest:
    """Return the test of losses over expected shortfall, one per exceedance."""
    residual = ratio - 1.0
    n = len(residual)
    p_value = math.nan
    if n >= _MIN_EXCEEDANCES:
        drawn = (residual - residual.mean())[rng.integers(n, size=(n_resamples, n))]
        p_value = _resampled_p(_studentised(drawn), float(_studentised(residual[None])[0]))
    return ShortfallTest(
        mean_residual=float(residual.mean()) if n else math.nan,
        p_value=p_value,
        acerbi_szekely=1.0 - float(ratio.sum()) / n_expected,
    )


def _studentised(rows: np.ndarray) -> np.ndarray:
    """Return mean over standard error of rows; infinite, with the mean's sign, without spread."""
    mean, spread = rows.mean(axis=1), rows.std(axis=1, ddof=1)
    limit = np.where(mean == 0, 0.0, np.copysign(np.inf, mean))
    return np.divide(mean * math.sqrt(rows.shape[1]), spread, out=limit, where=spread > 0)


def _judge(found: ValueAtRiskBacktest) -> Verdict:
    """Return what the back-test says."""
    head = (
        f"{found.n_exceedances} of {found.n_dates} losses exceed the value at risk where "
        f"{found.n_expected:.1f} are expected"
    )
    faults = _faults(found)
    worst = min((p for p, _ in faults), default=1.0)
    power = (
        f"the test sees exceedances {found.alternative:g} times as likely with probability "
        f"{found.power:.2f}"
    )
    if found.horizon > 1:
        return Verdict(
            "doubtful" if worst < _SIZE else "unknown",
            f"{head}, but returns of {found.horizon} days overlap, so that exceedances are not "
            f"independent and no p-value holds. Pass every {found.horizon}th date.",
        )
    if worst < _SIZE:
        said = "; ".join(f"{text} (p = {p:.3g})" for p, text in faults if p < _SIZE)
        return Verdict("bad" if worst < _SURE else "doubtful", f"{head}: {said}.")
    if found.power < 0.5:
        return Verdict("unknown", f"{head}. Nothing is rejected, but {power}: judge more dates.")
    blind = "" if found.n_exceedances > 1 else " With so few exceedances, runs cannot be judged."
    return Verdict(
        "good", f"{head}; frequency and timing agree with the forecast, and {power}.{blind}"
    )


def _faults(found: ValueAtRiskBacktest) -> list[tuple[float, str]]:
    """Return p-values with what is wrong if they are small."""
    often = found.n_exceedances > found.n_expected
    faults = [
        (
            found.coverage.small_sample_p_value,
            "too many, so the risk is understated: widen the law, or recalibrate it on training "
            "dates"
            if often
            else "too few, so the risk is overstated: narrow the law, or recalibrate it on "
            "training dates",
        ),
        (
            found.independence.small_sample_p_value,
            "they follow each other, so the law misses changes of volatility",
        ),
        (
            found.conditional_coverage.small_sample_p_value,
            "number and timing together do not agree with the forecast",
        ),
    ]
    if found.shortfall is not None and not math.isnan(found.shortfall.p_value):
        size = found.shortfall.mean_residual
        faults.append(
            (
                found.shortfall.p_value,
                f"they are {size:+.0%} from the expected shortfall on average",
            )
        )
    return faults
