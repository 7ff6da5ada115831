"""Result of judging importance weights."""

from dataclasses import dataclass

import xarray as xr

from nfi_pyro.diagnostics.results.verdict import Verdict


@dataclass(frozen=True)
class ImportanceQuality:
    """How close a guide is to the posterior, by date. NaN on dates without an observed return.

    Attributes
    ----------
    k_hat : DataArray, shape (date,)
        Shape of the generalised Pareto law fitted to the largest weights of a date; 0 where all
        weights are equal, that is where the guide is exact.
    evidence : DataArray, shape (date,)
        Log of the mean weight (IWAE), nats: a lower bound of the log evidence on average, tight
        where `k_hat` is low.
    gap : DataArray, shape (date,)
        `evidence` less ELBO, nats; at most the divergence of guide from posterior, on average.
    effective_draws : DataArray, shape (date,)
        ``1 / sum w^2`` of the normalised weights, from 1 to the number of draws.
    threshold : float
        `k_hat` above which weights say little: ``min(1 - 1 / log10(draws), 0.7)``.
    share_high : float
        Share of the dates that count with `k_hat` above `threshold`.
    share_poor : float
        Share of the dates that count with that and fewer than half of the draws effective.
    mean_gap, gap_standard_error : float
        Over dates, Newey-West; nats per date.
    n_dates, n_empty : int
        Dates that count, and dates without an observed return, which do not.
    guide : str
    verdict : Verdict
    """

    k_hat: xr.DataArray
    evidence: xr.DataArray
    gap: xr.DataArray
    effective_draws: xr.DataArray
    threshold: float
    share_high: float
    share_poor: float
    mean_gap: float
    gap_standard_error: float
    n_dates: int
    n_empty: int
    guide: str
    verdict: Verdict
