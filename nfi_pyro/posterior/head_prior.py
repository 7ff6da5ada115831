"""Prior predictive check of random last layers: what returns their priors imply."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.data.panel import Panel
from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.blocks import DateRange, open_pass
from nfi_pyro.svi.config import check_seed
from nfi_pyro.svi.protocol import head_posterior
from nfi_pyro.svi.trained import SVIFit

_MEANING = {
    "daily_scale": ("decimal return", "standard deviation of an asset's return"),
    "book_scale": ("decimal return", "standard deviation of the equal-weight book's return"),
    "mean_share": ("1", "share of the cross-sectional variance that the forecast mean explains"),
    "factor_share": ("1", "share of an asset's variance that the factors explain"),
    "excess_kurtosis": ("1", "excess kurtosis of an asset's return"),
}


def head_prior_predictive(
    fit: SVIFit,
    panel: Panel,
    *,
    draws: int = 100,
    seed: int = 0,
    dates: DateRange | None = None,
    source: str = "prior",
) -> xr.Dataset:
    """Return what the laws of returns look like under draws of the last layers.

    With draws from their prior, on the networks of a fit: a prior that puts a daily scale at 30
    percent, or explains half of the cross-section by the forecast mean, is not what anybody
    believes. Draws from the posterior, with ``source="posterior"``, say how far the data moved it.

    Parameters
    ----------
    fit : SVIFit
        Of a model with random heads.
    panel : Panel
        Its outcomes are not read.
    draws : int
        At least 2.
    seed : int
    dates : pair of str, optional
        First and last date, inclusive; a few dozen dates are enough.
    source : {"prior", "posterior"}

    Returns
    -------
    Dataset over (draw,)
        `daily_scale`, `book_scale` (decimal return), `mean_share`, `factor_share` and
        `excess_kurtosis`, each a mean over the assets and dates of the range.

    Raises
    ------
    SpecError
        If the last layers are point estimates or an option is out of range.
    """
    heads = head_posterior(fit.model)
    if heads is None:
        raise SpecError(
            f"a prior of last layers must exist; got point estimates in this {fit.model.name}. "
            'Fit with [spec.heads] kind = "low_rank".'
        )
    if draws < 2 or source not in ("prior", "posterior"):
        raise SpecError(
            f"draws must be >= 2 and source prior or posterior; got {draws} and {source!r}."
        )
    check_seed(seed)
    sample = heads.draw_prior if source == "prior" else heads.draw
    values = sample(draws, seed=seed)
    totals = {name: np.zeros(draws) for name in _MEANING}
    n_dates = 0
    for _, context, _ in open_pass(fit, panel, dates).contexts(fit):
        kept = context.tradable.any(1)
        n_dates += int(kept.sum())
        for place, value in enumerate(values):
            found = _describe(fit.model.law(context, value), context.tradable)
            for name, by_date in found.items():
                totals[name][place] += float(by_date[kept].sum())
    variables: dict[str, Any] = {}
    for name, (units, meaning) in _MEANING.items():
        factor = fit.return_scale if units != "1" else 1.0
        mean = factor * totals[name] / max(n_dates, 1)
        variables[name] = ("draw", mean, {"units": units, "long_name": meaning})
    return xr.Dataset(variables, attrs={"source": source, "n_dates": n_dates})


def _describe(law: FactorMixture, present: Tensor) -> dict[str, Tensor]:
    """Return each statistic by date, standardised units; assets not there do not count."""
    marginal = law.marginal()
    count = present.sum(1).clamp(min=1)

    def average(cells: Tensor) -> Tensor:
        return torch.where(present, cells, 0.0).sum(1) / count

    mean, variance = marginal.mean, marginal.variance
    spread = average((mean - average(mean).unsqueeze(1)).square())
    own = law.specific_variance
    weight = present / count.unsqueeze(1)
    exposure = (weight.unsqueeze(-1) * law.beta).sum(1)
    book = (exposure * law.factor_scale).square().sum(-1) + (weight.square() * own).sum(1)
    return {
        "daily_scale": average(variance.sqrt()),
        "book_scale": book.sqrt(),
        "mean_share": spread / (spread + average(variance)),
        "factor_share": average(1.0 - own / variance),
        "excess_kurtosis": average(marginal.kurtosis),
    }
