"""InferenceData as ArviZ's predictive functions need it: observed cells alone, along one axis."""

import math
import warnings
from importlib import import_module
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from nfi_pyro.diagnostics.results.leave_one_out import LeaveOneAssetOut
from nfi_pyro.diagnostics.results.verdict import Verdict
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.arviz_bridge import container_groups, to_container
from nfi_pyro.posterior.blocks import DateRange, read_range
from nfi_pyro.posterior.replicates import RETURN

OBS = "obs"
_BY_CELL = ("prior_predictive", "posterior_predictive", "log_likelihood", "observed_data")
_BY_DATE = ("posterior", "sample_stats")
_LEAST_DRAWS = 100
_FEW, _MANY = 0.01, 0.05  # share of observations whose k-hat is too high


def observed_view(idata: Any, dates: DateRange | None = None) -> Any:
    """Return the observed cells of the replicates' dates along one axis ``obs``.

    ArviZ 0.23 takes NaN for numbers: `loo` and `waic` return NaN, `loo_pit` counts a missing
    return as below every replicate, `plot_ppc` sets other cells beside each other. Here
    unobserved cells are dropped from every group, so `az.loo`, `az.loo_pit`, `az.plot_ppc`,
    `az.plot_loo_pit` and `az.compare` are about the same cells. Draws are independent: pass
    ``reff=1.0`` to `az.loo`.

    Parameters
    ----------
    idata : InferenceData or DataTree
        From `to_inference_data`, with a forecast.
    dates : pair of str, optional
        First and last date, inclusive, of those that have replicates. By default all of them.

    Returns
    -------
    InferenceData or DataTree
        ``prior_predictive``, ``posterior_predictive`` and ``log_likelihood`` with `forward_return`
        (chain, draw, obs), ``observed_data`` with `forward_return` (obs), where `date` and `asset`
        are coordinates of ``obs``; ``posterior`` and ``sample_stats`` of the same dates.

    Raises
    ------
    SpecError
        If there are no replicates, or no observed cell in the range.
    """
    groups = container_groups(idata)
    if "log_likelihood" not in groups:
        raise SpecError(
            "a view of observed cells must be of InferenceData with replicates; got the groups "
            f"{', '.join(groups)}. Give to_inference_data a forecast of a model with factors."
        )
    first, last, step = read_range(dates)
    kept = groups["log_likelihood"]["date"].sel(date=slice(first, last, step))
    value = groups["observed_data"][RETURN].sel(date=kept)
    seen = value.stack({OBS: ("date", "asset")}).notnull().values
    if not seen.any():
        raise SpecError(
            f"a view must hold an observed return; got none from {first} to {last}. Replicates "
            f"run from {_days(groups['log_likelihood'])}."
        )
    found = {}
    for name in _BY_CELL:
        cells = groups[name][[RETURN]].sel(date=kept).stack({OBS: ("date", "asset")})
        found[name] = cells.isel({OBS: seen}).reset_index(OBS)
    for name in _BY_DATE:
        found[name] = groups[name].sel(date=kept)
    return to_container(found, dict(groups["log_likelihood"].attrs))


def leave_one_asset_out(idata: Any, dates: DateRange | None = None) -> LeaveOneAssetOut:
    r"""Return how well each return is explained by the other returns of its date.

    ``sum_it log p(y_it | y_jt, j != i)``, by Pareto smoothed importance sampling from draws of
    the date's factors. It answers one question: how much of a cross-section its own factors
    explain, given the networks. Use it to compare structures of the cross-section (number of
    factors or components, heavier tails) fitted to the same returns. It is never forecast skill:
    the peers of the same date are known only after the fact, and they tell where the factors
    were. It is much higher than any forecast's score, by 0.26 to 0.33 nats an observation where
    that was measured. Nor does it hold the networks out: on training dates they have seen every
    return. Forecasts are scored by `compare_forecasts`.

    Parameters
    ----------
    idata : InferenceData or DataTree
        From `to_inference_data` with a forecast, or an `observed_view` of it.
    dates : pair of str, optional
        First and last date, inclusive. By default all that have replicates.

    Returns
    -------
    LeaveOneAssetOut
        Good where k-hat is too high on at most 1 percent of observations, bad beyond 5 percent,
        unknown with fewer than 100 draws.

    Raises
    ------
    SpecError
        If there are no replicates, or no observed cell in the range.

    References
    ----------
    .. [1] Vehtari, Gelman, Gabry (2017). Practical Bayesian model evaluation using leave-one-out
       cross-validation and WAIC. Statistics and Computing.
    .. [2] Vehtari, Simpson, Gelman, Yao, Gabry (2024). Pareto Smoothed Importance Sampling. JMLR.
    """
    groups = container_groups(idata)
    if OBS in groups.get("log_likelihood", xr.Dataset()).dims and dates is None:
        view = idata
    else:
        view = observed_view(idata, dates)
    log_likelihood = container_groups(view)["log_likelihood"][RETURN].astype(np.float64)
    view = to_container(
        container_groups(view) | {"log_likelihood": log_likelihood.to_dataset(name=RETURN)}, {}
    )
    # a high k-hat, or none, is in the result by observation
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.filterwarnings("ignore", "Estimated shape parameter", UserWarning)
        found = import_module("arviz").loo(view, pointwise=True, var_name=RETURN, reff=1.0)
    # ArviZ 1.x has dropped the prefix
    pointwise = found.loo_i if hasattr(found, "loo_i") else found.elpd_i
    names = ("date", "asset")
    labels = {name: log_likelihood[name].variable for name in names}
    n_draws = log_likelihood.sizes["chain"] * log_likelihood.sizes["draw"]
    k_hat = xr.DataArray(np.asarray(found.pareto_k), labels, (OBS,), attrs={"units": "1"})
    elpd = xr.DataArray(np.asarray(pointwise), labels, (OBS,), attrs={"units": "nats"})
    by_date = elpd.groupby("date").sum().assign_attrs(units="nats")
    threshold = min(1.0 - 1.0 / math.log10(n_draws), 0.7) if n_draws > 10 else 0.0
    share = float((~(k_hat <= threshold)).mean())
    verdict = _judge(share, threshold, n_draws, elpd.size)
    total = float(elpd.sum())
    return LeaveOneAssetOut(
        elpd=total,
        standard_error=_clustered_error(by_date.values),
        p_loo=_log_score(log_likelihood) - total,
        k_hat_share=share,
        k_hat_threshold=threshold,
        n_observations=elpd.size,
        by_observation=elpd,
        by_date=by_date,
        k_hat=k_hat,
        verdict=verdict,
    )


def _clustered_error(sums: np.ndarray) -> float:
    """Return the standard error of a total over dates that are independent of each other."""
    if len(sums) < 2:
        return math.nan
    return float(math.sqrt(len(sums) * sums.var(ddof=1)))


def _log_score(log_likelihood: xr.DataArray) -> float:
    """Return ``sum log mean_s p(y | z_s)``: every return's score with itself among the peers."""
    draws = log_likelihood.stack(sample=("chain", "draw")).transpose(OBS, "sample").values
    return float((logsumexp(draws, axis=1) - math.log(draws.shape[1])).sum())


def _judge(share: float, threshold: float, n_draws: int, n_observations: int) -> Verdict:
    """Return whether importance sampling can be trusted here."""
    figure = (
        f"k-hat is above {threshold:.2f} on {share:.1%} of {n_observations:,} observations "
        f"({n_draws:,} draws)"
    )
    if n_draws < _LEAST_DRAWS:
        return Verdict("unknown", f"{figure}: too few draws to judge. Draw at least a hundred.")
    if share <= _FEW:
        return Verdict("good", f"{figure}: leaving an asset out by reweighting can be trusted.")
    advice = "Draw more, or look at those assets: a single return moves the factors of its date."
    if share <= _MANY:
        return Verdict("doubtful", f"{figure}: the total may be a little too high. {advice}")
    return Verdict("bad", f"{figure}: the total cannot be trusted. {advice}")


def _days(group: xr.Dataset) -> str:
    """Return first and last date of a group in words."""
    days = group["date"].values.astype("datetime64[D]")
    return f"{days[0]} to {days[-1]}"
