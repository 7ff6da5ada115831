"""The training loop: blocks of dates in, weights and history out; resumable to the bit."""

import math
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nfi_pyro.data.training.windows import Outcome, PanelBatch, PanelWindows
from nfi_pyro.distributions.heads import HeadPosterior
from nfi_pyro.errors import NonFiniteLossError, name_places
from nfi_pyro.svi.config import SVIConfig
from nfi_pyro.svi.evaluation import ForecastQuality, evaluate_forecasts
from nfi_pyro.svi.objective import ObjectiveTerms, evaluate_objective
from nfi_pyro.svi.protocol import head_posterior

Curves = dict[str, list[Any]]
_STEP_CURVES = ("elbo", "log_likelihood", "kl", "heads_kl", "gradient_norm", "learning_rate")
_EPOCH_CURVES = ("validation_log_score", "validation_rank_ic", "last_step")


@dataclass
class TrainingLoop:
    """A model in training and every number that its next step depends on.

    Parameters
    ----------
    model : nn.Module
        A `PricingModel` on the device of the windows; trained in place.
    windows : PanelWindows
    train, validation : slice
        Positions of the dates with full windows.
    config : SVIConfig
    seed : int
        Of the order of blocks.
    """

    model: Any
    windows: PanelWindows
    train: slice
    validation: slice
    config: SVIConfig
    seed: int
    epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    best_score: float = -math.inf
    n_non_finite: int = 0
    status: str = "running"
    bad_dates: list[str] = field(default_factory=list)
    curves: Curves = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Build optimiser and generator."""
        self.block = min(self.config.block_size, self.train.stop - self.train.start)
        self.steps_per_epoch = math.ceil((self.train.stop - self.train.start) / self.block)
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.model, self.config.weight_decay), lr=self.config.learning_rate
        )
        self.generator = torch.Generator().manual_seed(self.seed)
        self.best_weights = _copy(self.model.state_dict())
        self.curves = {name: [] for name in (*_STEP_CURVES, *_EPOCH_CURVES)}

    @property
    def finished(self) -> bool:
        """Whether no epoch is left or patience has run out."""
        waited = self.epoch - 1 - self.best_epoch
        return self.epoch >= self.config.n_epochs or waited >= self.config.patience

    def run_epoch(self, bar: "tqdm[Any]") -> None:
        """Train on every block once, then score the validation dates and keep the best."""
        self.model.train()
        blocks = [(start, start + self.block) for start in self._block_starts()]
        with closing(self.windows.stream(blocks, span=self.train)) as steps:
            for block, (batch, outcome) in zip(blocks, steps, strict=True):
                terms, norm = self._train_block(batch, outcome, block)
                self._record_step(terms, norm)
                bar.update()
                if self.step % 10 == 0 or self.step == 1:
                    bar.set_postfix_str(self._describe(terms, norm), refresh=False)
        heads = head_posterior(self.model)
        if heads is not None:
            heads.settle(self.model)
        self.model.eval()
        quality = evaluate_forecasts(
            self.model, self.windows, self.validation, self.config.block_size
        )
        self._record_epoch(quality)

    def _block_starts(self) -> list[int]:
        """Return one random start per block of the epoch, in random order."""
        last = self.train.stop - self.block
        shift = torch.randint(self.block, (self.steps_per_epoch,), generator=self.generator)
        order = torch.randperm(self.steps_per_epoch, generator=self.generator)
        starts = self.train.start + torch.arange(self.steps_per_epoch) * self.block
        # Half a block back on average, so that every date is as likely as its neighbours.
        moved = (starts + shift - self.block // 2).clamp(self.train.start, last)
        return moved[order].tolist()

    def _train_block(
        self, batch: PanelBatch, outcome: Outcome, block: tuple[int, int]
    ) -> tuple[ObjectiveTerms, float]:
        """Take one optimiser step on a block of dates, or skip it when it is not finite."""
        self._set_learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        # Shapes are checked by Pyro on the first step; later ones would repeat the same checks.
        with pyro.validation_enabled(self.step == 0):
            terms = evaluate_objective(
                self.model,
                self.model.context(batch),
                outcome,
                objective=self.config.objective,
                kl_weight=self.config.kl_weight,
            )
            terms.loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        finite = bool(torch.isfinite(norm)) and bool(torch.isfinite(terms.loss))
        if finite:
            self.optimizer.step()
        else:
            self._count_non_finite(*block)
        self.step += 1
        return terms, float(norm)

    def _set_learning_rate(self) -> None:
        """Set the rate of this step; a torch scheduler would warn when the first is skipped."""
        total = self.config.n_epochs * self.steps_per_epoch
        warm = int(self.config.warmup_share * total)
        rate = self.config.learning_rate * _warm_cosine(self.step, warm, total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _count_non_finite(self, start: int, stop: int) -> None:
        """Count a skipped step; raise once there are too many."""
        days = [str(day)[:10] for day in self.windows.dates[start:stop]]
        self.n_non_finite += 1
        self.bad_dates.append(f"step {self.step}: {days[0]} to {days[-1]}")
        if self.n_non_finite > self.config.max_non_finite:
            finite = [value for value in self.curves["elbo"] if math.isfinite(value)]
            last = f"{finite[-1]:.6g}" if finite else "none"
            raise NonFiniteLossError(
                f"the loss and its gradient must be finite; got {self.n_non_finite} steps that "
                f"were not, at {name_places(self.bad_dates, 6)}; the last finite ELBO per cell "
                f"was {last}. Lower learning_rate or clip_norm, raise scale_floor, or look at "
                "those dates in the panel."
            )

    def _record_step(self, terms: ObjectiveTerms, norm: float) -> None:
        """Append one step to the curves."""
        self.curves["elbo"].append(float(terms.elbo))
        self.curves["log_likelihood"].append(float(terms.log_likelihood))
        self.curves["kl"].append(terms.kl.cpu().tolist())
        self.curves["heads_kl"].append(float(terms.heads_kl))
        self.curves["gradient_norm"].append(norm)
        self.curves["learning_rate"].append(self.optimizer.param_groups[0]["lr"])

    def _record_epoch(self, quality: ForecastQuality) -> None:
        """Append one epoch, and keep the weights when its log score is the best so far."""
        self.curves["validation_log_score"].append(quality.log_score)
        self.curves["validation_rank_ic"].append(quality.rank_ic)
        self.curves["last_step"].append(self.step)
        if math.isnan(quality.log_score):
            raise NonFiniteLossError(
                f"the validation log score must be a number; got nan after epoch {self.epoch + 1}. "
                "Lower learning_rate, raise scale_floor, or look at the validation dates."
            )
        if quality.log_score > self.best_score or self.config.keep == "last":
            self.best_score, self.best_epoch = quality.log_score, self.epoch
            self.best_weights = _copy(self.model.state_dict())
        self.epoch += 1

    def _describe(self, terms: ObjectiveTerms, norm: float) -> str:
        """Return what the progress bar says."""
        parts = [f"elbo {float(terms.elbo):.4f}"]
        if terms.kl.numel():
            by_factor = " ".join(f"{value:.2f}" for value in terms.kl[:4].tolist())
            more = "" if terms.kl.numel() <= 4 else f" .. max {float(terms.kl.max()):.2f}"
            parts.append(f"kl {by_factor}{more}")
        parts.append(f"grad {norm:.2f}")
        if self.curves["last_step"]:
            parts.append(f"val {self.curves['validation_log_score'][-1]:.4f}")
            parts.append(f"ic {self.curves['validation_rank_ic'][-1]:+.3f}")
        return ", ".join(parts)

    def describe_epoch(self) -> str:
        """Return the last epoch's number and scores on one line."""
        curves = self.curves
        return (
            f"epoch {self.epoch} of {self.config.n_epochs}: elbo {curves['elbo'][-1]:.4f}, "
            f"val {curves['validation_log_score'][-1]:.4f}, "
            f"ic {curves['validation_rank_ic'][-1]:+.3f}, best epoch {self.best_epoch + 1}"
        )

    def state(self) -> dict[str, Any]:
        """Return everything that the next step depends on, as tensors and plain values."""
        return {
            "model": _copy(self.model.state_dict()),
            "best_weights": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            "counters": {
                name: getattr(self, name)
                for name in ("epoch", "step", "best_epoch", "best_score", "n_non_finite", "status")
            },
            "bad_dates": list(self.bad_dates),
            "curves": self.curves,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.best_weights = state["best_weights"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_generator"])
        for name, value in state["counters"].items():
            setattr(self, name, value)
        self.bad_dates = list(state["bad_dates"])
        self.curves = state["curves"]


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW groups: decay on matrices, none on biases, vectors and a posterior's own."""
    guides = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, HeadPosterior)
        for parameter in module.parameters()
    }
    learned = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in learned if p.ndim >= 2 and id(p) not in guides]
    kept = {id(p) for p in decayed}
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": [p for p in learned if id(p) not in kept], "weight_decay": 0.0},
    ]


def _warm_cosine(step: int, warm: int, total: int) -> float:
    """Return the share of the peak learning rate at `step`."""
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return detached copies on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in weights.items()}
