"""Result of prior and posterior predictive checks."""

from dataclasses import dataclass

import xarray as xr

from nfi_pyro.diagnostics.results.verdict import Verdict


@dataclass(frozen=True)
class PredictiveChecks:
    """Real cross-sections beside those that a model makes of the same assets and dates.

    Source `prior` draws factors before the returns were seen. Source `posterior` draws them from
    the factors' posterior, which has seen the very returns it is compared with: its p-values lean
    to the middle, so it shows what no factors can explain, and says nothing of forecasts.

    Attributes
    ----------
    by_date : DataArray, shape (statistic, date)
        Of real returns over the observed assets of a date: `market` (mean), `cross_sectional_sd`
        (ddof 1), both decimal, `skewness`, `excess_kurtosis`, and `pairwise_product`, the mean
        product of two assets' returns, decimal squared. NaN where a date does not count.
    band : DataArray, shape (source, bound, statistic, date)
        Quantiles 0.05 and 0.95 of the replicates.
    outside : DataArray, shape (source, statistic)
        Share of dates on which the real one is outside the band; 0.1 for prior factors where the
        model is right.
    summaries : Dataset over (source, summary)
        `observed`; `mean`, `lower` and `upper` (quantiles 0.05, 0.95) of the replicates, and
        two-sided predictive `p_value`. Summaries are the means over dates of the statistics, and
        `market_sd` and `market_clustering`, the first autocorrelation of the absolute market.
    replicates : DataArray, shape (source, summary, draw)
        The replicates' summaries.
    factor_share : DataArray, shape (date,)
        ``sum_i beta_i' S beta_i`` over the total variance of the law, in [0, 1].
    n_dates, n_left_out : int
        Dates that count, and dates with too few observed assets.
    missed : tuple of str
        Summaries of source `prior` that the model misses.
    verdict : Verdict
    """

    by_date: xr.DataArray
    band: xr.DataArray
    outside: xr.DataArray
    summaries: xr.Dataset
    replicates: xr.DataArray
    factor_share: xr.DataArray
    n_dates: int
    n_left_out: int
    missed: tuple[str, ...]
    verdict: Verdict
