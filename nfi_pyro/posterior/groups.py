"""InferenceData as a dict of labelled datasets that knows nothing of ArviZ."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from nfi_pyro.posterior.draws import Posterior
from nfi_pyro.posterior.ensemble import ForecastEnsemble
from nfi_pyro.posterior.replicates import RETURN, replicate_groups
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.trained import SVIFit

Groups = dict[str, xr.Dataset]
_DECIMAL = {"units": "decimal return"}
_COUNTS = ("best_epoch", "n_non_finite")


def build_groups(
    fits: Sequence[SVIFit],
    posteriors: Sequence[Posterior],
    forecasts: Sequence[ReturnForecast],
    *,
    quantiles: tuple[float, ...],
    replicate_dates: int,
    seed: int,
    diagnostics: xr.Dataset | None = None,
) -> Groups:
    """Return every group of the InferenceData of checked restarts; see `to_inference_data`.

    Parameters
    ----------
    fits, posteriors, forecasts
        One of each by chain, see `check_chains`; no forecasts at all: no predictions and no
        replicates.
    quantiles : tuple of float
    replicate_dates : int
    seed : int
    diagnostics : Dataset, optional
    """
    first = posteriors[0]
    groups = _factor_groups(posteriors)
    dates = _replicate_dates(first, forecasts, replicate_dates)
    if dates.size:
        generator = torch.Generator().manual_seed(seed)
        chains = [
            replicate_groups(posterior, forecast, dates, generator)
            for posterior, forecast in zip(posteriors, forecasts, strict=True)
        ]
        groups |= {name: _stack([chain[name] for chain in chains]) for name in chains[0]}
    constants = [first.constants.drop_vars(RETURN), first.moments]
    groups |= {
        "observed_data": first.constants[[RETURN]],
        "constant_data": xr.merge(constants, join="exact").assign(
            observed=first.constants["observed"].astype("int8").assign_attrs(units="1")
        ),
        "fit": _curves(fits),
    }
    if forecasts:
        last = forecasts[0].data.isel(date=[-1])
        groups["predictions"] = _predictions(forecasts, quantiles)
        groups["predictions_constant_data"] = last.assign(
            entered=last["entered"].astype("int8").assign_attrs(units="1")
        )
    if diagnostics is not None:
        groups["diagnostics"] = diagnostics
    attrs = _attrs(fits)
    return {name: group.assign_attrs(attrs) for name, group in groups.items()}


def _stack(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return the parts along a new first dimension, chain; where lengths differ, NaN."""
    index = pd.Index(range(len(parts)), name="chain")
    if len(parts) == 1:
        return parts[0].expand_dims(chain=index)
    return xr.concat(parts, index, join="outer", combine_attrs="override", data_vars="all")


def _factor_groups(posteriors: Sequence[Posterior]) -> Groups:
    """Return draws of factors and last layers, and prior draws of factors."""
    groups = {}
    draws = [xr.merge([_factors(p, "z"), _heads(p)], join="exact") for p in posteriors]
    if draws[0].data_vars:
        groups["posterior"] = _stack(draws)
    if posteriors[0].has_factors:
        groups["prior"] = _stack([_factors(posterior, "z_prior") for posterior in posteriors])
    return groups


def _factors(posterior: Posterior, name: str) -> xr.Dataset:
    """Return draws of z and the equal-weight book's factor return; empty without factors."""
    if not posterior.has_factors:
        return xr.Dataset()
    factors = posterior.factors
    found = xr.Dataset({"z": factors[name]})
    beta = posterior.constants["beta"].mean("asset")
    if "book_beta" in factors:  # random last layers: every draw has exposures of its own
        beta = found["book_beta"] = factors["book_beta"]
    book = (found["z"] * beta).sum("factor").astype(np.float32)
    found["book_factor_return"] = book.assign_attrs(_DECIMAL)
    return found.assign_coords(draw=np.arange(found.sizes["draw"]))


def _heads(posterior: Posterior) -> xr.Dataset:
    """Return draws of the last layers; empty where they are weights like any other."""
    heads = posterior.heads
    return heads.assign_coords(draw=np.arange(heads.sizes["draw"])) if heads.data_vars else heads


def _replicate_dates(
    posterior: Posterior, forecasts: Sequence[ReturnForecast], wanted: int
) -> np.ndarray:
    """Return the last dates with an observed return that the forecasts have too."""
    none = np.empty(0, "datetime64[ns]")
    if not forecasts or not posterior.has_factors or not wanted:
        return none
    observed = posterior.constants["observed"].any("asset")
    seen = posterior.constants["date"].values[observed.values]
    return seen[np.isin(seen, forecasts[0].data["date"].values)][-wanted:]


def _curves(fits: Sequence[SVIFit]) -> xr.Dataset:
    """Return the training curves of each restart, and what became of it."""
    curves = _stack([fit.history.rename({"factor": "fit_factor"}) for fit in fits])
    counts = {name: [fit.history.attrs[name] for fit in fits] for name in _COUNTS}
    return curves.drop_attrs(deep=False).assign(
        {name: ("chain", values, {"units": "1"}) for name, values in counts.items()}
        | {
            "kept_elbo": ("chain", [kept_elbo(fit) for fit in fits], fits[0].history["elbo"].attrs),
            "status": ("chain", [fit.status for fit in fits], {"units": "1"}),
        }
    )


def kept_elbo(fit: SVIFit) -> float:
    """Return the mean training objective of the epoch whose weights were kept; NaN without one.

    In nats per observed cell, returns in units of the training standard deviation; noisy, since
    weights moved during the epoch. A bound on the evidence where the objective is ``elbo``.
    """
    best = int(fit.history.attrs["best_epoch"])
    if best < 1:
        return float("nan")
    ends = [0, *fit.history["last_step"].values.astype(int)]
    return float(fit.history["elbo"].values[ends[best - 1] : ends[best]].mean())


def _predictions(forecasts: Sequence[ReturnForecast], quantiles: tuple[float, ...]) -> xr.Dataset:
    """Return moments and exact quantiles of every forecast cell, restarts weighted equally."""
    ensemble = ForecastEnsemble(tuple(forecasts))
    found = {"forward_return_mean": ensemble.mean}
    within = variance = ensemble.within_variance
    if len(forecasts) > 1:
        between = ensemble.between_variance
        variance = within + between
        found["forward_return_within_sd"] = within**0.5
        found["forward_return_between_sd"] = between**0.5
    found["forward_return_sd"] = variance**0.5
    found["forward_return_quantile"] = ensemble.quantile(quantiles)
    return xr.Dataset(
        {name: value.astype(np.float32).assign_attrs(_DECIMAL) for name, value in found.items()}
    )


def _attrs(fits: Sequence[SVIFit]) -> dict[str, Any]:
    """Return provenance as attributes that netCDF and zarr know; what may be nested is JSON."""
    fit = fits[0]
    elbo = [kept_elbo(each) for each in fits]
    return {
        "chain_meaning": "svi_restart",
        "created_by": f"nfi_pyro {fit.provenance['versions']['nfi_pyro']}",
        "inference_library": "pyro",
        "objective": fit.config.objective,
        "kl_weight": fit.config.kl_weight,
        "elbo": json.dumps([None if np.isnan(value) else value for value in elbo]),
        "seeds": json.dumps([each.seed for each in fits]),
        "return_scale": fit.return_scale,
        "label": json.dumps(fit.label),
        "provenance": json.dumps(fit.provenance),
    }
