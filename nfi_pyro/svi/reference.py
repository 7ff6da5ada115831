"""Last layers on networks that stand still: the guide alone, and NUTS to hold it against."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from nfi_pyro.data.training.windows import Outcome
from nfi_pyro.distributions.heads import SITE, HeadPosterior
from nfi_pyro.errors import SpecError
from nfi_pyro.svi.config import check_seed
from nfi_pyro.svi.protocol import head_posterior


def fit_heads(
    model: Any,
    context: Any,
    outcome: Outcome,
    *,
    steps: int = 3_000,
    learning_rate: float = 0.02,
    particles: int = 4,
    seed: int = 0,
) -> list[float]:
    """Train a model's guide over its last layers in place, every other weight as it is.

    Maximises ``E_q[log p(y | heads)] - KL`` over the dates of one context, factors integrated out
    exactly, with a learning rate that falls to zero as a cosine.

    Parameters
    ----------
    model : BayesianHeads
        With one component of noise.
    context
        From ``model.context``, of all the dates.
    outcome : Outcome
    steps, particles : int
        Steps, and draws of the heads in each.
    learning_rate : float
    seed : int
        Torch's own generator is not touched.

    Returns
    -------
    list of float
        The estimated bound by step, nats.

    Raises
    ------
    SpecError
        If the last layers are point estimates or the noise has several components.
    """
    heads = _require_heads(model)
    evidence = log_evidence(model, context, outcome)
    optimizer = torch.optim.Adam(heads.parameters(), lr=learning_rate)
    bounds = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(check_seed(seed))
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / steps))
            optimizer.zero_grad(set_to_none=True)
            guide = heads.guide()
            draws = [evidence(guide.rsample()) for _ in range(particles)]
            kl = torch.distributions.kl_divergence(guide, heads.prior())
            bound = torch.stack(draws).mean() - kl
            (-bound).backward()
            optimizer.step()
            bounds.append(float(bound.detach()))
    heads.settle(model)
    return bounds


def sample_heads_nuts(
    model: Any,
    context: Any,
    outcome: Outcome,
    *,
    draws: int = 500,
    warmup: int = 300,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """Return draws of the last layers' coordinates from their exact posterior, (draw, coordinate).

    No-U-Turn sampling with the factors integrated out, one chain: a reference for small problems
    (some thousand cells) that says what the guide's spread is worth. It starts at the guide's
    location and moves in coordinates in which the guide is standard normal, which changes the
    length of a step and no answer. Networks before the last layers stand still.

    Parameters
    ----------
    model, context, outcome
        See `fit_heads`.
    draws, warmup : int
    seed : int
        Global generators are left as they were.
    progress : bool
        Show Pyro's progress bar.

    Raises
    ------
    SpecError
        See `fit_heads`.
    """
    heads = _require_heads(model)
    evidence = log_evidence(model, context, outcome)
    with torch.no_grad():
        centre, root = heads.loc.clone(), heads.guide().scale_tril.clone()
        prior = heads.prior()

    def potential(parameters: dict[str, Tensor]) -> Tensor:
        coordinates = centre + root @ parameters[SITE]
        return -(evidence(coordinates) + prior.log_prob(coordinates))

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "num_chains", UserWarning)
        torch.manual_seed(check_seed(seed))
        chain = MCMC(
            NUTS(potential_fn=potential, target_accept_prob=0.85),
            num_samples=draws,
            warmup_steps=warmup,
            initial_params={SITE: torch.zeros_like(centre)},
            disable_progbar=not progress,
        )
        chain.run()
    return centre + chain.get_samples()[SITE] @ root.mT


def log_evidence(model: Any, context: Any, outcome: Outcome) -> Callable[[Tensor], Tensor]:
    """Return the log density of all returns as a function of the heads, factors integrated out.

    Raises
    ------
    SpecError
        If the noise has several components: then it has no closed form.
    """

    def evaluate(heads: Tensor) -> Tensor:
        law = model.law(context, heads)
        return law.joint_log_prob(outcome.forward_return, outcome.observed).sum()

    with torch.no_grad():
        evaluate(_require_heads(model).loc)
    return evaluate


def _require_heads(model: Any) -> HeadPosterior:
    """Return a model's head posterior, or say that it has none."""
    heads = head_posterior(model)
    if heads is None:
        raise SpecError(
            f"last layers must be random; got point estimates in this {model.name}. Set "
            'spec.heads.kind to "full" or "low_rank".'
        )
    return heads
