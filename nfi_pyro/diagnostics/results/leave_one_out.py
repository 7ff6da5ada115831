"""Result of leaving one asset out of its date."""

from dataclasses import dataclass

import xarray as xr

from nfi_pyro.diagnostics.results.verdict import Verdict


@dataclass(frozen=True)
class LeaveOneAssetOut:
    """How well returns are explained by the other returns of their date; no forecast skill.

    Attributes
    ----------
    elpd : float
        ``sum_it log p(y_it | other assets of date t)``, nats, returns decimal; higher is better.
    standard_error : float
        Of `elpd`, with dates as clusters: returns of one date share its factors. NaN for one
        date. Where labels overlap, neighbouring dates do too, and it is too small.
    p_loo : float
        Effective number of parameters over all dates: what a return tells about its own factors.
    k_hat_share : float
        Share of observations with a k-hat above `k_hat_threshold`, in [0, 1].
    k_hat_threshold : float
        ``min(1 - 1 / log10(draws), 0.7)``; 0 for ten draws or fewer.
    n_observations : int
    by_observation : DataArray, shape (obs,)
        Terms of `elpd`, nats; coordinates `date` and `asset`.
    by_date : DataArray, shape (date,)
        Sums of the terms, nats. Two structures are compared by the difference of theirs, with
        `hac_standard_error`.
    k_hat : DataArray, shape (obs,)
        Pareto shape of each observation's weights.
    verdict : Verdict
        On the estimate, not on the model.
    """

    elpd: float
    standard_error: float
    p_loo: float
    k_hat_share: float
    k_hat_threshold: float
    n_observations: int
    by_observation: xr.DataArray
    by_date: xr.DataArray
    k_hat: xr.DataArray
    verdict: Verdict
