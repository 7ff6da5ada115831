"""A fit's law of each date with a guide of its factors, block by block, in float64."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.training.windows import Outcome
from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.distributions.mixture_posterior import factor_posterior
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.blocks import DateRange, PanelPass, open_pass, require_label
from nfi_pyro.svi.trained import SVIFit

GuideFunction = Callable[[FactorMixture, Outcome], MultivariateNormal]
Guide = Literal["posterior", "encoder"] | GuideFunction


@dataclass(frozen=True)
class FactorBlock:
    """A few dates of a fit, in units of its return scale.

    Attributes
    ----------
    law : FactorMixture
        Float64, batch (date, asset), networks at their point estimate.
    entered : Tensor of bool, shape (date, asset)
        Assets that the law speaks of.
    outcome : Outcome
        What happened, float64.
    guide : callable
        Takes law and an outcome, returns a normal law of the factors with batch (date,).
    """

    law: FactorMixture
    entered: Tensor
    outcome: Outcome
    guide: GuideFunction


def open_factor_pass(
    fit: SVIFit, panel: Panel, guide: Guide, dates: DateRange | None
) -> tuple[PanelPass, Iterator[FactorBlock]]:
    """Return the dates of a pass and its blocks.

    Parameters
    ----------
    fit : SVIFit
    panel : Panel
        With `forward_return` of the dates.
    guide : {"posterior", "encoder"} or callable
        The model's own posterior given the networks, its encoder, or any function of a law and an
        outcome (float64, standardised units) that returns a `MultivariateNormal` with batch
        (date,) and event (factor,).
    dates : pair of str or None
        See `open_pass`.

    Raises
    ------
    SpecError
        If the model has no latent factors, or no encoder where one is asked for, or the guide is
        of another name.
    PanelError
        If the panel's label has another timing or unit than the fit's.
    """
    if not fit.provenance["factors"]:
        raise SpecError(
            "a factor posterior must belong to a model with latent factors; got "
            f"{fit.model.name}, whose assets share none. Use nfi, factor_vae or linear_factor."
        )
    if not callable(guide) and guide not in ("posterior", "encoder"):
        raise SpecError(
            f"guide must be 'posterior', 'encoder' or a function of law and outcome; got {guide!r}."
            " Choose one of those."
        )
    if guide == "encoder" and getattr(fit.model, "encoder", None) is None:
        raise SpecError(
            f"guide 'encoder' must belong to a model with an encoder; got {fit.model.name}, whose "
            "guide is its own posterior. Use guide 'posterior'."
        )
    require_label(fit, panel)
    visit = open_pass(fit, panel, dates)
    return visit, _blocks(fit, visit, guide)


def _blocks(fit: SVIFit, visit: PanelPass, guide: Guide) -> Iterator[FactorBlock]:
    """Yield the blocks of a pass."""
    for batch, context, outcome in visit.contexts(fit):
        law = fit.model.law(context)
        wide = law.double()
        own: GuideFunction
        if callable(guide):
            own = guide
        elif guide == "encoder":
            own = partial(_encode, fit.model, context)
        else:
            own = _own_posterior
        happened = Outcome(outcome.forward_return.double(), outcome.observed)
        yield FactorBlock(wide, batch.tradable, happened, own)


def _own_posterior(law: FactorMixture, outcome: Outcome) -> MultivariateNormal:
    """Return the posterior as `sample_posterior` reports it."""
    return factor_posterior(law, outcome.forward_return, outcome.observed)


def _encode(model: Any, context: Any, law: FactorMixture, outcome: Outcome) -> MultivariateNormal:
    """Return the encoder's law; it runs in the precision of its weights."""
    dtype = next(model.parameters()).dtype
    narrow = Outcome(outcome.forward_return.to(dtype), outcome.observed)
    loc, scale = model.encode(context, narrow)
    root = torch.diag_embed(scale.to(law.beta.dtype))
    return MultivariateNormal(loc.to(law.beta.dtype), scale_tril=root, validate_args=False)


def project_draws(beta: Tensor, z: Tensor) -> Tensor:
    """Return ``beta_i.z`` (draw, date, asset) of draws z (draw, date, factor).

    One product a date; broadcasting would copy the exposures for every draw.
    """
    return (z.transpose(0, 1) @ beta.mT).transpose(0, 1)


def draw_normal(factors: MultivariateNormal, draws: int, generator: torch.Generator) -> Tensor:
    """Return draws of the factors (draw, date, factor)."""
    loc = factors.loc
    noise = torch.randn((draws, *loc.shape), generator=generator, dtype=loc.dtype)
    return loc + (factors.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)


def draw_returns(law: FactorMixture, z: Tensor, generator: torch.Generator) -> Tensor:
    """Return returns (draw, date, asset) given factors z (draw, date, factor)."""
    own = MixtureOfNormals(law.logits, law.loc, law.scale, validate_args=False)
    return project_draws(law.beta, z) + own.sample((len(z),), generator=generator)


def prior_of(law: FactorMixture) -> MultivariateNormal:
    """Return the prior of the factors, batch (date,)."""
    root = torch.diag_embed(law.factor_scale)
    return MultivariateNormal(law.factor_loc, scale_tril=root, validate_args=False)
