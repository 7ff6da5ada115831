"""Statistics of cross-sections of returns, by date and over dates."""

import numpy as np

STATISTICS = ("market", "cross_sectional_sd", "skewness", "excess_kurtosis", "pairwise_product")
SUMMARIES = (*STATISTICS, "market_sd", "market_clustering")
LEAST_ASSETS = 5  # below, a skewness and a kurtosis are bound by the count alone


def describe_cross_sections(values: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return the `STATISTICS` of each date over its observed assets, shape (statistic, ..., date).

    Mean; standard deviation (ddof 1); skewness and excess kurtosis by population moments; and the
    mean product of two different assets' returns ``((sum y)^2 - sum y^2) / (n (n - 1))``.

    Parameters
    ----------
    values : ndarray, shape (..., date, asset)
        Returns; any number, NaN too, where not observed.
    observed : ndarray of bool, shape (date, asset)
        Cells that count.

    Returns
    -------
    ndarray
        In the unit of the return, squared for the product; NaN for dates with fewer than
        `LEAST_ASSETS` assets, and moments of a date whose returns are all equal.
    """
    count = observed.sum(-1).astype(np.float64)
    count = np.where(count < LEAST_ASSETS, np.nan, count)
    kept = np.where(observed, values, 0.0)
    total, squares = kept.sum(-1), np.square(kept).sum(-1)
    mean = total / count
    gap = np.where(observed, values - mean[..., None], 0.0)
    second = np.square(gap).sum(-1) / count
    known = np.where(second > 0.0, second, np.nan)
    third, fourth = (gap**3).sum(-1) / count, (gap**4).sum(-1) / count
    return np.stack(
        [
            mean,
            np.sqrt(second * count / (count - 1.0)),
            third / known**1.5,
            fourth / known**2 - 3.0,
            (np.square(total) - squares) / (count * (count - 1.0)),
        ]
    )


def summarise_dates(statistics: np.ndarray) -> np.ndarray:
    """Return the `SUMMARIES` over dates of (statistic, ..., date), shape (summary, ...).

    Means over the dates that count; standard deviation of the market; first autocorrelation of
    its absolute value, from pairs of neighbouring dates that both count. NaN for fewer than two
    dates.
    """
    market = statistics[STATISTICS.index("market")]
    counted = ~np.isnan(market).reshape(-1, market.shape[-1]).any(0)
    if counted.sum() < 2:
        return np.full((len(SUMMARIES), *market.shape[:-1]), np.nan)
    means = statistics[..., counted]
    known = ~np.isnan(means)
    total = np.where(known, means, 0.0).sum(-1)
    number = np.where(known.any(-1), known.sum(-1), np.nan)
    size = np.abs(market) - np.abs(market[..., counted]).mean(-1, keepdims=True)
    pairs = counted[1:] & counted[:-1]
    variance = np.square(size[..., counted]).mean(-1)
    product = (size[..., 1:] * size[..., :-1])[..., pairs]
    lagged = product.sum(-1) / pairs.sum() if pairs.any() else np.full(variance.shape, np.nan)
    clustering = np.where(variance > 0.0, lagged / np.where(variance > 0.0, variance, 1.0), np.nan)
    spread = market[..., counted].std(-1, ddof=1)
    return np.concatenate([total / number, spread[None], clustering[None]])
