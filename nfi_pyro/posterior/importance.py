"""Importance weights of a guide of the factors: how far it is from the posterior it stands for."""

from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.training.windows import Outcome
from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.factor_blocks import (
    Guide,
    draw_normal,
    open_factor_pass,
    prior_of,
    project_draws,
)
from nfi_pyro.svi.config import check_seed
from nfi_pyro.svi.trained import SVIFit

_CELLS = 2**20  # component densities in hand at a time


@dataclass(frozen=True)
class ImportanceWeights:
    """Log weights of draws from a guide, and the bound that the guide reaches.

    Attributes
    ----------
    log_weights : DataArray, shape (draw, date)
        ``log p(y|z) + log p(z) - log q(z)`` in nats, returns in units of the fit's return scale,
        draws from q, float64. Exactly 0 on a date without an observed return: there is nothing to
        infer and no guide is asked.
    elbo : DataArray, shape (date,)
        ``E_q[log p(y|z)] - KL(q || p)`` without sampling noise, in nats; 0 on such a date.
    n_observed : DataArray of int, shape (date,)
        Observed returns.
    guide : str
        ``posterior``, ``encoder``, or the name of the function that was given.
    """

    log_weights: xr.DataArray
    elbo: xr.DataArray
    n_observed: xr.DataArray
    guide: str


def importance_weights(
    fit: SVIFit,
    panel: Panel,
    *,
    guide: Guide = "posterior",
    draws: int = 1000,
    seed: int = 0,
    dates: DateRange | None = None,
    n_nodes: int | str = "auto",
) -> ImportanceWeights:
    """Return importance weights of a guide's draws on every date, given the networks.

    Judge them by `nfi_pyro.diagnostics.judge_importance`. For one component the model's own
    posterior is exact and its weights are all the evidence.

    Parameters
    ----------
    fit : SVIFit
    panel : Panel
        With `forward_return` of the dates.
    guide : {"posterior", "encoder"} or callable
        See `open_factor_pass`; for example a `factor_posterior` with more steps.
    draws : int
        Per date, >= 1. A thousand are usual.
    seed : int
    dates : pair of str, optional
        First and last date, inclusive. By default every date with a full window.
    n_nodes : int or "auto"
        Quadrature nodes of the ELBO, see `FactorMixture.expected_log_prob`.

    Raises
    ------
    SpecError
        If `draws` or `seed` is out of range, the model has no factors, or no encoder where one is
        asked for, or a guide is so wide that ``"auto"`` would take too many nodes.
    PanelError
        If the panel's label has another timing or unit than the fit's.
    """
    if draws < 1:
        raise SpecError(f"draws must be >= 1; got {draws}. A thousand are usual.")
    generator = torch.Generator().manual_seed(check_seed(seed))
    visit, blocks = open_factor_pass(fit, panel, guide, dates)
    weights, bounds, counts = [], [], []
    for block in blocks:
        law, outcome = block.law, block.outcome
        factors = block.guide(law, outcome)
        z = draw_normal(factors, draws, generator)
        seen = outcome.observed.any(1)
        weights.append(torch.where(seen, weigh_draws(law, outcome, factors, z), 0.0))
        bounds.append(torch.where(seen, evidence_bound(law, outcome, factors, n_nodes), 0.0))
        counts.append(outcome.observed.sum(1))
    coords = {"date": visit.dates}
    nats = {"units": "nats"}
    return ImportanceWeights(
        xr.DataArray(torch.cat(weights, 1).numpy(), coords, ("draw", "date"), attrs=nats),
        xr.DataArray(torch.cat(bounds).numpy(), coords, ("date",), attrs=nats),
        xr.DataArray(torch.cat(counts).numpy(), coords, ("date",)),
        guide if isinstance(guide, str) else getattr(guide, "__name__", type(guide).__name__),
    )


def weigh_draws(
    law: FactorMixture, outcome: Outcome, factors: MultivariateNormal, z: Tensor
) -> Tensor:
    """Return ``log p(y|z) + log p(z) - log q(z)`` in nats, shape (draw, date).

    Parameters
    ----------
    law : FactorMixture
        Batch (date, asset).
    outcome : Outcome
    factors : MultivariateNormal
        q, batch (date,).
    z : Tensor, shape (draw, date, factor)
    """
    found = prior_of(law).log_prob(z) - factors.log_prob(z)
    step = max(1, _CELLS // max(1, law.loc.numel()))
    for start in range(0, len(z), step):
        rows = slice(start, start + step)
        shift = project_draws(law.beta, z[rows])
        conditional = MixtureOfNormals(
            law.logits, law.loc + shift.unsqueeze(-1), law.scale, validate_args=False
        )
        cells = conditional.log_prob(outcome.forward_return)
        found[rows] += torch.where(outcome.observed, cells, 0.0).sum(-1)
    return found


def evidence_bound(
    law: FactorMixture,
    outcome: Outcome,
    factors: MultivariateNormal,
    n_nodes: int | str = "auto",
) -> Tensor:
    """Return ``E_q[log p(y|z)] - KL(q || p)`` of each date in nats, shape (date,).

    Deterministic: quadrature over the observed assets of a date, nodes chosen date by date.
    Arguments as in `weigh_draws`.
    """
    expected = []
    for date, kept in enumerate(outcome.observed):
        own = FactorMixture(
            law.logits[date, kept].unsqueeze(0),
            law.loc[date, kept].unsqueeze(0),
            law.scale[date, kept].unsqueeze(0),
            law.beta[date, kept].unsqueeze(0),
            law.factor_loc[date : date + 1],
            law.factor_scale[date : date + 1],
        )
        q = MultivariateNormal(
            factors.loc[date : date + 1],
            scale_tril=factors.scale_tril[date : date + 1],
            validate_args=False,
        )
        if bool(kept.any()):
            value = outcome.forward_return[date, kept].unsqueeze(0)
            expected.append(own.expected_log_prob(value, q, n_nodes).sum(1))
        else:
            expected.append(law.beta.new_zeros(1))
    return torch.cat(expected) - kl_divergence(factors, prior_of(law))
