"""Training objectives over any model and guide, with quadrature where a site offers it."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from nfi_pyro.data.training.windows import Outcome
from nfi_pyro.distributions.heads import SITE as HEADS
from nfi_pyro.distributions.sites import PENALTY
from nfi_pyro.errors import SpecError
from nfi_pyro.svi.config import Objective
from nfi_pyro.svi.protocol import VariationalModel


@dataclass(frozen=True)
class ObjectiveTerms:
    """One evaluation of the objective on a block of dates.

    Attributes
    ----------
    loss : Tensor, shape ()
        To be minimised: the negative objective per observed cell (per date for ``paper``).
    log_likelihood : Tensor, shape ()
        Reconstruction term of the block, nats per observed cell.
    kl : Tensor, shape (factor,)
        KL of guide against prior by factor, nats per date; empty without a latent site.
    elbo : Tensor, shape ()
        ``log_likelihood`` minus the whole KL per observed cell, that of the heads too, whatever
        the KL weight and without a penalty.
    heads_kl : Tensor, shape ()
        KL of the last layers, nats for the whole training set; 0 where they are not random.
    """

    loss: Tensor
    log_likelihood: Tensor
    kl: Tensor
    elbo: Tensor
    heads_kl: Tensor = field(default_factory=lambda: torch.zeros(()))


def evaluate_objective(
    model: VariationalModel,
    context: Any,
    outcome: Outcome,
    *,
    objective: Objective = "elbo",
    kl_weight: float = 1.0,
) -> ObjectiveTerms:
    r"""Return the objective of a block of dates and its parts.

    Traces the guide, replays the model against it, and sums by site: an observed site that
    offers `expected_log_prob` (``elbo``) or `marginal_log_prob` (``marginal``, ``paper``) is
    integrated against the guide's ``z``; any other observed site counts its `log_prob`; a latent
    site counts its KL in closed form; that of ``heads``, which all dates share, in proportion to
    the block's dates. A site ``penalty`` is a log prior of the networks: it enters
    the loss per observed cell and no figure else. Masks are honoured by `torch.where`, so an
    unobserved cell has neither value nor gradient. ``elbo`` is ``E_q[log p(y|z)] - KL``; per date
    and cell the scales of the date plate cancel, so block size does not change the learning rate.
    ``paper`` is Eq. 17: ``-(1/N_t) sum_i log p(y_i) + kl_weight KL_t`` averaged over dates.

    Parameters
    ----------
    model : VariationalModel
    context
        From ``model.context``.
    outcome : Outcome
    objective : {"elbo", "marginal", "paper"}
        See `SVIConfig`.
    kl_weight : float

    Raises
    ------
    SpecError
        If a latent site has no closed-form KL.
    """
    guide_trace = poutine.trace(model.guide).get_trace(context, outcome)
    model_trace = poutine.trace(poutine.replay(model.model, trace=guide_trace)).get_trace(
        context, outcome
    )
    n_dates = outcome.observed.shape[0]
    by_date = torch.zeros(n_dates, device=outcome.forward_return.device)
    penalty = by_date
    kl = by_date.new_zeros(n_dates, 0)
    heads_kl = by_date.new_zeros(())
    share = 1.0  # of the training dates in the block
    guide_sites: dict[str, Any] = dict(guide_trace.nodes)
    model_sites: dict[str, Any] = dict(model_trace.nodes)
    factors = guide_sites["z"]["fn"] if "z" in guide_sites else None
    for name, site in model_sites.items():
        if site["type"] != "sample" or _is_subsample(site):
            continue
        if name == PENALTY:
            penalty = penalty - site["fn"].log_prob(site["value"]).sum(-1)
        elif name == HEADS:
            heads_kl = heads_kl + kl_divergence(guide_sites[name]["fn"], site["fn"])
        elif site["is_observed"]:
            by_date = by_date + _log_likelihood(site, factors, objective)
            share = 1.0 / float(site["scale"])
        else:
            own = _kl_by_factor(name, guide_sites[name]["fn"], site["fn"])
            kl = torch.cat([kl, own], dim=1)
    counts = outcome.observed.sum(1).to(by_date.dtype)
    terms = _combine(by_date, kl, counts, objective, kl_weight)
    n_cells = counts.sum().clamp(min=1.0)
    per_cell = share * heads_kl / n_cells  # the block's share of a KL that all dates share
    return replace(
        terms,
        loss=terms.loss + penalty.sum() / n_cells + kl_weight * per_cell,
        elbo=terms.elbo - per_cell.detach(),
        heads_kl=heads_kl.detach(),
    )


def _is_subsample(site: dict[str, Any]) -> bool:
    """Return whether a site is the plate's own subsample."""
    return type(site["fn"]).__name__ == "_Subsample"


def _log_likelihood(
    site: dict[str, Any], factors: Distribution | None, objective: Objective
) -> Tensor:
    """Return the reconstruction term of an observed site, shape (date,)."""
    fn, value = site["fn"], site["value"]
    if factors is not None and objective == "elbo" and hasattr(fn, "expected_log_prob"):
        cells = fn.expected_log_prob(value, factors)
    elif factors is not None and hasattr(fn, "marginal_log_prob"):
        cells = fn.marginal_log_prob(value, factors)
    else:
        cells = fn.log_prob(value)
    if site["mask"] is not None:
        cells = torch.where(site["mask"], cells, 0.0)
    return cells.sum(-1)


def _kl_by_factor(name: str, guide: Distribution, prior: Distribution) -> Tensor:
    """Return the KL by date and factor, shape (date, factor)."""
    if isinstance(guide, Independent) and isinstance(prior, Independent):
        parts = kl_divergence(guide.base_dist, prior.base_dist)
        return parts.reshape(parts.shape[0], -1)
    try:
        whole = kl_divergence(guide, prior)
    except NotImplementedError as error:
        raise SpecError(
            f"site {name!r} must have a closed-form KL; got {type(guide).__name__} against "
            f"{type(prior).__name__}. Write the prior in the guide's family."
        ) from error
    return whole.reshape(whole.shape[0], -1)


def _combine(
    by_date: Tensor, kl: Tensor, counts: Tensor, objective: Objective, kl_weight: float
) -> ObjectiveTerms:
    """Return loss and report from per-date sums; `kl` is (date, factor), perhaps empty."""
    n_cells = counts.sum().clamp(min=1.0)
    kl_by_date = kl.sum(-1)
    log_likelihood = by_date.sum() / n_cells
    if objective == "paper":
        # A date without an observed return has a likelihood of 0 and keeps its KL.
        loss = (kl_weight * kl_by_date - by_date / counts.clamp(min=1.0)).mean()
    else:
        loss = kl_weight * kl_by_date.sum() / n_cells - log_likelihood
    with torch.no_grad():
        elbo = log_likelihood.detach() - kl_by_date.detach().sum() / n_cells
        factor_kl = kl.detach().mean(0)
    return ObjectiveTerms(loss, log_likelihood.detach(), factor_kl, elbo)
