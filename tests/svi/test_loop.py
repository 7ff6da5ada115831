"""One step of training: the norm that is clipped, what decays, and the learning rate."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tqdm.auto import tqdm

from nfi_pyro.svi import SVIConfig, loop
from nfi_pyro.svi.loop import TrainingLoop
from nfi_pyro.svi.objective import ObjectiveTerms, evaluate_objective

MakeLoop = Callable[[SVIConfig], TrainingLoop]
pytestmark = pytest.mark.draws  # a bare loop traces its guide outside `fit_svi`'s fork


def quiet() -> Any:
    return tqdm(disable=True)


def gradients_of_first_step(make_loop: MakeLoop, config: SVIConfig) -> torch.Tensor:
    """Return what the optimiser is given on the first step, as one vector."""
    one = make_loop(config)
    seen: list[torch.Tensor] = []

    def record(optimizer: Any, *_: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        seen.append(torch.cat([p.grad.flatten() for p in parameters]).clone())

    one.optimizer.register_step_pre_hook(record)
    one.run_epoch(quiet())
    return seen[0]


def test_clipping_is_by_the_global_norm(make_loop: MakeLoop, config: SVIConfig) -> None:
    free = gradients_of_first_step(make_loop, config.model_copy(update={"clip_norm": 1e6}))
    clipped = gradients_of_first_step(make_loop, config.model_copy(update={"clip_norm": 1e-3}))
    assert float(free.norm()) > 0.1
    assert float(clipped.norm()) == pytest.approx(1e-3, rel=1e-4)
    torch.testing.assert_close(clipped / 1e-3, free / free.norm(), rtol=1e-4, atol=1e-7)


def test_the_recorded_gradient_norm_is_the_one_before_clipping(
    make_loop: MakeLoop, config: SVIConfig
) -> None:
    free = gradients_of_first_step(make_loop, config.model_copy(update={"clip_norm": 1e6}))
    clipped = make_loop(config.model_copy(update={"clip_norm": 1e-3}))
    clipped.run_epoch(quiet())
    assert clipped.curves["gradient_norm"][0] == pytest.approx(float(free.norm()), rel=1e-6)


def test_weight_decay_shrinks_matrices_and_leaves_vectors(
    make_loop: MakeLoop, config: SVIConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_slope(model: Any, *args: Any, **options: Any) -> ObjectiveTerms:
        terms = evaluate_objective(model, *args, **options)
        return ObjectiveTerms(terms.loss * 0.0, terms.log_likelihood, terms.kl, terms.elbo)

    monkeypatch.setattr(loop, "evaluate_objective", without_slope)
    decaying = config.model_copy(update={"weight_decay": 0.3, "warmup_share": 0.0})
    one = make_loop(decaying)
    before = {name: p.detach().clone() for name, p in one.model.named_parameters()}
    one.run_epoch(quiet())
    kept = 1.0
    for rate in one.curves["learning_rate"]:
        kept *= 1.0 - 0.3 * rate
    assert kept < 0.995
    for name, parameter in one.model.named_parameters():
        factor = kept if parameter.ndim >= 2 else 1.0
        torch.testing.assert_close(
            parameter.detach(), before[name] * factor, rtol=1e-5, atol=0.0, msg=name
        )


def test_the_learning_rate_warms_up_linearly_and_falls_as_a_cosine(
    make_loop: MakeLoop, config: SVIConfig
) -> None:
    slow = config.model_copy(update={"warmup_share": 0.25, "learning_rate": 0.01})
    one = make_loop(slow)  # 24 steps, 6 of them warm
    applied: list[float] = []
    one.optimizer.register_step_pre_hook(
        lambda optimizer, *_: applied.append(optimizer.param_groups[0]["lr"])
    )
    while not one.finished:
        one.run_epoch(quiet())
    warm = [0.01 * (step + 1) / 7 for step in range(6)]
    cosine = [0.005 * (1.0 + math.cos(math.pi * step / 18)) for step in range(18)]
    assert applied == pytest.approx(warm + cosine, rel=1e-12)
    assert one.curves["learning_rate"] == applied
    assert {group["lr"] for group in one.optimizer.param_groups} == {applied[-1]}


def test_without_warm_up_the_first_step_has_the_peak_rate(
    make_loop: MakeLoop, config: SVIConfig
) -> None:
    one = make_loop(config.model_copy(update={"warmup_share": 0.0}))
    one.run_epoch(quiet())
    assert one.curves["learning_rate"][0] == config.learning_rate


def test_every_training_date_is_visited_and_no_other(
    make_loop: MakeLoop, config: SVIConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_loop(config)
    visits = torch.zeros(61, dtype=torch.int64)
    blocks = type(one)._block_starts
    for _ in range(50):
        for start in blocks(one):
            visits[start : start + one.block] += 1
    assert bool((visits[1:39] > 0).all())
    assert int(visits[:1].sum() + visits[39:].sum()) == 0


def test_a_block_longer_than_training_is_the_whole_of_it(
    make_loop: MakeLoop, config: SVIConfig
) -> None:
    one = make_loop(config.model_copy(update={"block_size": 500}))
    assert (one.block, one.steps_per_epoch) == (38, 1)
    one.run_epoch(quiet())
    assert one.step == 1
