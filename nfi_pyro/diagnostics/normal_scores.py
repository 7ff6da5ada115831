"""Normal scores of probability integral transforms, and the interval of their spread."""

import math

import numpy as np
from scipy.special import ndtri
from scipy.stats import trim_mean

MIN_SCORES = 10


def spread_interval(scores: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Return standard deviation (ddof 1) of the scores and its interval.

    Bonett's (2006) interval, which widens with the kurtosis of the scores: the chi-square interval
    is far too narrow for tails that are not normal. Scores must be independent.

    Parameters
    ----------
    scores : ndarray, shape (score,)
        No NaN.
    level : float
        Probability of the interval, in (0, 1).

    Returns
    -------
    spread, lower, upper : float
        Bounds are NaN for fewer than 10 scores or no variation, the spread for fewer than two. A
        score that is infinite, from a PIT of exactly 0 or 1, makes all three infinite.
    """
    n = len(scores)
    if n < 2:
        return math.nan, math.nan, math.nan
    if np.isinf(scores).any():
        return math.inf, math.inf, math.inf
    variance = float(scores.var(ddof=1))
    spread = math.sqrt(variance)
    if n < MIN_SCORES or variance == 0:
        return spread, math.nan, math.nan
    centre = trim_mean(scores, 1.0 / (2.0 * math.sqrt(n - 4.0)))
    kurtosis = n * float(((scores - centre) ** 4).sum()) / (variance * (n - 1)) ** 2
    quantile = ndtri(0.5 + level / 2.0)
    error = math.sqrt(max(kurtosis - (n - 3.0) / n, 0.0) / (n - 1))
    factor = n / (n - quantile)
    centre_log = math.log(factor * variance)
    reach = quantile * factor * error
    return spread, math.exp(0.5 * (centre_log - reach)), math.exp(0.5 * (centre_log + reach))
