"""The training steps that are compared: the package's, one in plain torch, one date at a time."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.nets.encoder import PortfolioEncoder
from nfi_pyro.nfi import NFI, NFISpec
from nfi_pyro.svi.objective import evaluate_objective

LAGS, FEATURES, BLOCK = 20, 158, 8
SPEC = FactorVAESpec(
    n_features=FEATURES,
    lags=LAGS,
    projection_size=64,
    hidden_size=64,
    n_factors=16,
    n_portfolios=64,
)
NFI_SPEC = NFISpec(
    n_features=FEATURES,
    lags=LAGS,
    projection_size=64,
    hidden_size=64,
    n_factors=16,
    n_portfolios=64,
    n_components=3,
)
Step = Callable[[], float]


@dataclass(frozen=True)
class Problem:
    """One block of dates: features (block + lags - 1, asset, feature), the rest (block, asset)."""

    features: Tensor
    tradable: Tensor
    forward_return: Tensor
    observed: Tensor

    @property
    def batch(self) -> PanelBatch:
        """The block as the package takes it."""
        block = self.tradable.shape[0]
        return PanelBatch(self.features, self.tradable, torch.arange(block), block)

    @property
    def outcome(self) -> Outcome:
        """The block's outcome as the package takes it."""
        return Outcome(self.forward_return, self.observed)


def make_problem(n_assets: int, seed: int = 0) -> Problem:
    """Return a block in which about 10 percent of the cells are missing.

    Half of the missing cells have no features (the asset does not enter the date), half have
    features and no return.
    """
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(BLOCK + LAGS - 1, n_assets, FEATURES, generator=generator)
    tradable = torch.rand(BLOCK, n_assets, generator=generator) > 0.05
    features[LAGS - 1 :][~tradable] = 0.0
    observed = tradable & (torch.rand(BLOCK, n_assets, generator=generator) > 0.05)
    forward_return = torch.randn(BLOCK, n_assets, generator=generator) * observed
    return Problem(features, tradable, forward_return, observed)


def package_step(problem: Problem, model: FactorVAE | NFI | None = None) -> Step:
    """Return the package's step: context, objective through Pyro, backward, clip, AdamW."""
    trained = FactorVAE(SPEC) if model is None else model
    batch, outcome = problem.batch, problem.outcome

    return _step(trained, lambda: package_loss(trained, batch, outcome))


def package_loss(model: FactorVAE | NFI, batch: PanelBatch, outcome: Outcome) -> Tensor:
    """Return the package's loss as its training loop computes it after the first step."""
    with pyro.validation_enabled(False):
        return evaluate_objective(model, model.context(batch), outcome).loss


def hand_written_step(problem: Problem) -> Step:
    """Return the same step with the ELBO written out in torch: no trace, no distributions."""
    model = FactorVAE(SPEC)
    return _step(model, lambda: hand_written_loss(model, problem))


def hand_written_loss(model: FactorVAE, problem: Problem) -> Tensor:
    """Return the negative ELBO per observed cell, from the model's own networks."""
    encoder = model.encoder
    if not isinstance(encoder, PortfolioEncoder):
        raise TypeError("the hand-written ELBO is that of the full variant")
    hidden = model.extractor(problem.features, BLOCK)
    alpha_loc, scale = model.alpha(hidden)
    beta = model.beta(hidden)
    prior_loc, prior_scale = model.predictor(hidden, problem.tradable)
    value, observed = problem.forward_return, problem.observed
    loc, spread = encoder(encoder.logits(hidden), value, observed)
    mean = torch.bmm(beta, loc.unsqueeze(-1)).squeeze(-1)
    variance = torch.bmm(beta.square(), spread.square().unsqueeze(-1)).squeeze(-1)
    error = value - alpha_loc - mean
    cells = -0.5 * (error.square() + variance) / scale.square() - scale.log()
    cells = cells - 0.5 * math.log(2.0 * math.pi)
    ratio = (spread / prior_scale).square()
    kl = 0.5 * (ratio + ((loc - prior_loc) / prior_scale).square() - 1.0 - ratio.log())
    return (kl.sum() - torch.where(observed, cells, 0.0).sum()) / observed.sum()


class MaterialisedGRU(nn.Module):
    """The extractor as published code has it: `torch.nn.GRU` over windows (asset, lag, feature)."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(FEATURES, SPEC.projection_size)
        self.gru = nn.GRU(SPEC.projection_size, SPEC.hidden_size, batch_first=True)

    def forward(self, features: Tensor, block: int) -> Tensor:
        """Return hidden states (1, asset, hidden) of the one window of features (lag, asset, C)."""
        windows = features.transpose(0, 1).contiguous()
        projected = nn.functional.leaky_relu(self.projection(windows), SPEC.negative_slope)
        return self.gru(projected)[1]


class Given(nn.Module):
    """A network whose output is given."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_: Any) -> Any:
        """Return the given output."""
        return self.output


def heads_step(problem: Problem) -> Step:
    """Return the package's step without extractor and factor predictor: what they say is given."""
    model = FactorVAE(SPEC)
    hidden = torch.randn(*problem.tradable.shape, SPEC.hidden_size, requires_grad=True)
    prior = torch.zeros(2, BLOCK, SPEC.n_factors)
    model.extractor = Given(hidden)  # type: ignore[assignment]
    model.predictor.attention = Given(prior[0])  # type: ignore[assignment]
    model.predictor.head = Given((prior[0], prior[1].exp()))  # type: ignore[assignment]
    return _step(model, lambda: package_loss(model, problem.batch, problem.outcome))


def one_date_step(problem: Problem) -> Step:
    """Return one pass over the block, one date and one optimiser step at a time."""
    model = FactorVAE(SPEC)
    model.extractor = MaterialisedGRU()  # type: ignore[assignment]
    dates = [
        Problem(
            problem.features[date : date + LAGS],
            problem.tradable[date : date + 1],
            problem.forward_return[date : date + 1],
            problem.observed[date : date + 1],
        )
        for date in range(BLOCK)
    ]
    turn = itertools.cycle(dates)

    def loss() -> Tensor:
        date = next(turn)
        return package_loss(model, date.batch, date.outcome)

    step = _step(model, loss)
    return lambda: sum(step() for _ in dates) / BLOCK


def _step(model: nn.Module, loss: Callable[[], Tensor]) -> Step:
    """Return a function that takes one optimiser step and returns the loss before it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-2)

    def run() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return float(value.detach())

    return run
