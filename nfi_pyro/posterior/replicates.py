"""Returns given the factors on a few dates: replicates, log densities, and densities of draws."""

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.distributions import MultivariateNormal

from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.errors import SpecError, name_places
from nfi_pyro.posterior.draws import Posterior
from nfi_pyro.posterior.factor_blocks import (
    draw_normal,
    draw_returns,
    prior_of,
    project_draws,
)
from nfi_pyro.posterior.joint_draws import FactorDraws
from nfi_pyro.posterior.return_forecast import ReturnForecast

RETURN = "forward_return"
_MANTISSA = 10  # bits kept of a replicate's 23: to 0.05 percent of itself, half the bytes on disk
_CELLS = ("draw", "date", "asset")


def replicate_groups(
    posterior: Posterior, forecast: ReturnForecast, dates: np.ndarray, generator: torch.Generator
) -> dict[str, xr.Dataset]:
    """Return what follows from one fit's factor draws on `dates`, ArviZ group by group.

    ``prior_predictive`` and ``posterior_predictive`` hold `forward_return` (draw, date, asset),
    decimal, one return given each draw of the factors, NaN where an asset did not enter, rounded
    to 0.05 percent of itself. ``log_likelihood`` holds ``log p(y_it | z)`` (draw, date, asset) in
    nats per decimal return, NaN where nothing was observed. ``sample_stats`` holds `lp`,
    ``log p(y_t | z) + log p(z)``, and `log_q`, the log density of the posterior that drew z, both
    (draw, date): their difference is the log importance weight of a draw.

    Networks are at their location, as in `forecast`. Where last layers are random, the draws of
    `posterior` belong to other networks, so factors are drawn anew here: attr `factors` says which.

    Parameters
    ----------
    posterior : Posterior
        With factors; they may have been aligned with another fit's.
    forecast : ReturnForecast
        Of the same fit and panel.
    dates : ndarray of datetime64, shape (date,)
        Dates of both on which a return was observed.
    generator : torch.Generator

    Raises
    ------
    SpecError
        If the forecast's own parts are not the posterior's: it is another fit's.
    """
    assets = posterior.constants["asset"]
    shape = (posterior.z.sizes["draw"], len(dates), assets.size)
    cells = {
        name: np.full(shape, np.nan, np.float32)
        for name in ("prior_predictive", "posterior_predictive", "log_likelihood")
    }
    lp, log_q = np.empty(shape[:2]), np.empty(shape[:2])
    redrawn = bool(posterior.heads.data_vars)
    for row, date in enumerate(dates):
        law, kept = law_given_factors(posterior, forecast, date)
        value = _tensor(posterior.constants[RETURN].sel(date=date).values[kept])
        prior, factors = prior_of(law), _posterior_of(posterior, date)
        if redrawn:
            z, z_prior = (draw_normal(q, shape[0], generator) for q in (factors, prior))
        else:
            z, z_prior = (
                _tensor(draws.sel(date=date).values)[:, None]
                for draws in (posterior.z, posterior.z_prior)
            )
        log_density = _log_density(law, z, value)
        lp[:, row] = (log_density.nansum(-1) + prior.log_prob(z)).squeeze(-1)
        log_q[:, row] = factors.log_prob(z).squeeze(-1)
        found = {
            "prior_predictive": _rounded(draw_returns(law, z_prior, generator)),
            "posterior_predictive": _rounded(draw_returns(law, z, generator)),
            "log_likelihood": log_density.float().numpy(),
        }
        for name, values in found.items():
            cells[name][:, row, kept] = values[:, 0]
    coords = {"draw": np.arange(shape[0]), "date": dates, "asset": assets.values}
    attrs = {"factors": "drawn for these groups" if redrawn else "those of posterior and prior"}
    return _label(cells, {"lp": lp, "log_q": log_q}, coords, attrs)


def _label(
    cells: dict[str, np.ndarray],
    stats: dict[str, np.ndarray],
    coords: dict[str, np.ndarray],
    attrs: dict[str, str],
) -> dict[str, xr.Dataset]:
    """Return the groups with names and units."""
    units = dict.fromkeys(cells, "decimal return")
    units["log_likelihood"] = "nats per decimal return"
    meaning = {"lp": "log p(y|z) + log p(z)", "log_q": "log density of the posterior that drew z"}
    groups = {
        name: xr.Dataset({RETURN: (_CELLS, values, {"units": units[name]})}, coords, attrs)
        for name, values in cells.items()
    }
    by_date = {name: coords[name] for name in _CELLS[:2]}
    found = {
        name: (_CELLS[:2], values, {"units": "nats", "long_name": meaning[name]})
        for name, values in stats.items()
    }
    return groups | {"sample_stats": xr.Dataset(found, by_date, attrs)}


def law_given_factors(
    posterior: Posterior, forecast: ReturnForecast, date: np.datetime64
) -> tuple[FactorMixture, np.ndarray]:
    """Return the law of one date's entered assets, batch (1, asset), and which assets those are.

    In decimal units, float64. The forecast gives the shape of each asset's own part about its
    mean. That mean, exposures and the factors' prior are the posterior's: they move together
    where its factors were aligned.

    Raises
    ------
    SpecError
        If the own parts' standard deviations are not the posterior's.
    """
    day, own = forecast.on(date), posterior.constants.sel(date=date)
    kept = day["entered"].values
    parts = FactorDraws.from_day(day)
    variance = np.square(own["specific_scale"].values[kept].astype(np.float64))
    marginal = np.square(day["scale"].values[kept]).max(1, initial=0.0)
    near = np.abs(parts.specific_variances - variance) <= 1e-3 * variance + 1e-5 * marginal
    if not near.all():
        places = day["asset"].values[kept][~near]
        raise SpecError(
            "forecast and posterior must be of one fit and panel; got other specific parts of "
            f"{name_places(places)} on {str(date)[:10]}. Make both with the same fit."
        )
    mean = own["alpha_loc"].values[kept].astype(np.float64)
    loc = parts.specific_loc + (mean - parts.specific_mean)[:, None]
    moments = posterior.moments.sel(date=date)
    arrays = (np.log(parts.weight), loc, parts.specific_scale, own["beta"].values[kept])
    prior = (moments["prior_loc"].values, moments["prior_scale"].values)
    return FactorMixture(*(_tensor(array)[None] for array in (*arrays, *prior))), kept


def _log_density(law: FactorMixture, z: Tensor, value: Tensor) -> Tensor:
    """Return ``log p(value | z)`` (draw, 1, asset), NaN where the value is."""
    loc = law.loc + project_draws(law.beta, z).unsqueeze(-1)
    return MixtureOfNormals(law.logits, loc, law.scale, validate_args=False).log_prob(value)


def _posterior_of(posterior: Posterior, date: np.datetime64) -> MultivariateNormal:
    """Return the posterior that drew z on one date, batch (1,)."""
    moments = posterior.moments.sel(date=date)
    return MultivariateNormal(
        _tensor(moments["posterior_loc"].values)[None],
        _tensor(moments["posterior_covariance"].values)[None],
        validate_args=False,
    )


def _tensor(values: np.ndarray) -> Tensor:
    """Return values as a float64 tensor of its own."""
    return torch.tensor(values, dtype=torch.float64)


def _rounded(values: Tensor) -> np.ndarray:
    """Return float32 values rounded to `_MANTISSA` bits: the rest would be noise on disk."""
    dropped = 23 - _MANTISSA
    bits = values.float().numpy().view(np.uint32) + np.uint32(1 << (dropped - 1))
    return (bits & np.uint32(2**32 - (1 << dropped))).view(np.float32)
