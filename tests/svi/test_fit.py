"""Training: reproducible to the bit, blind to what is not training, honest when it ends early."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.data import read_panel, write_panel
from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.store.lazy import is_lazy
from nfi_pyro.data.training.windows import PanelWindows
from nfi_pyro.errors import NonFiniteLossError, PanelError
from nfi_pyro.factor_vae import FactorVAE
from nfi_pyro.svi import SVIConfig, fit_svi, loop
from nfi_pyro.svi.evaluation import ForecastQuality, evaluate_forecasts
from nfi_pyro.svi.objective import ObjectiveTerms, evaluate_objective

Weights = dict[str, Tensor]


def weights_of(model: Any) -> Weights:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_weights(one: Weights, two: Weights) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


class Watch:
    """Stands in for the validation scores, and keeps the weights of each epoch."""

    def __init__(self, scores: list[float], *, interrupt_at: int | None = None) -> None:
        self.scores, self.interrupt_at = scores, interrupt_at
        self.seen: list[Weights] = []

    def __call__(self, model: Any, *_: object) -> ForecastQuality:
        if len(self.seen) == self.interrupt_at:
            raise KeyboardInterrupt
        self.seen.append(weights_of(model))
        return ForecastQuality(self.scores[len(self.seen) - 1], 0.0)


# ---- the same bits -------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bits_and_another_seed_others(
    panel: Panel, model: FactorVAE, config: SVIConfig
) -> None:
    one, two = (fit_svi(model, panel, config=config, seed=3) for _ in range(2))
    other = fit_svi(model, panel, config=config, seed=4)
    assert same_weights(one.model.state_dict(), two.model.state_dict())
    xr.testing.assert_identical(one.history, two.history)
    assert not same_weights(one.model.state_dict(), other.model.state_dict())
    assert not one.history["elbo"].equals(other.history["elbo"])
    assert one.status == "finished"
    assert one.history.sizes == {"step": 24, "epoch": 4, "factor": 3}


def test_a_panel_on_disk_gives_the_bits_of_the_panel_in_memory(
    panel: Panel,
    model: FactorVAE,
    config: SVIConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = panel["features"].nbytes // panel.sizes["date"]
    monkeypatch.setattr("nfi_pyro.data.store.panel_writer._CHUNK_BYTES", 3 * row)
    monkeypatch.setattr("nfi_pyro.data.panel._BLOCK_BYTES", 5 * row)
    lazy = read_panel(write_panel(panel, tmp_path / "panel.zarr"), lazy=True)
    fit, from_disk = (fit_svi(model, p, config=config, seed=3) for p in (panel, lazy))
    assert is_lazy(lazy["features"])
    assert same_weights(fit.model.state_dict(), from_disk.model.state_dict())
    xr.testing.assert_identical(fit.history, from_disk.history)
    assert fit.transforms.as_dict() == from_disk.transforms.as_dict()
    assert fit.provenance["panel_hash"] == from_disk.provenance["panel_hash"]


@pytest.mark.draws
def test_the_callers_model_and_the_global_generators_are_untouched(
    panel: Panel, model: FactorVAE, config: SVIConfig
) -> None:
    before = weights_of(model)
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    states = (random.getstate(), torch.get_rng_state())
    numbers = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    fit = fit_svi(model, panel, config=config, seed=3)
    assert same_weights(before, model.state_dict())
    assert model.training
    assert not fit.model.training
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    np.testing.assert_array_equal(
        np.random.get_state(legacy=False)["state"]["key"],  # noqa: NPY002
        numbers,
    )


@pytest.mark.draws
def test_the_global_seed_and_the_callers_weights_do_not_enter(
    panel: Panel, model: FactorVAE, config: SVIConfig
) -> None:
    torch.manual_seed(1)
    one = fit_svi(model, panel, config=config, seed=3)
    torch.manual_seed(2)
    two = fit_svi(FactorVAE(model.spec, seed=999), panel, config=config, seed=3)
    assert same_weights(one.model.state_dict(), two.model.state_dict())


def test_training_raises_the_elbo(panel: Panel, model: FactorVAE, config: SVIConfig) -> None:
    longer = config.model_copy(update={"n_epochs": 20, "patience": 20})
    elbo = fit_svi(model, panel, config=longer, seed=3).history["elbo"].values
    assert elbo[-12:].mean() > elbo[:12].mean() + 0.05


# ---- scales --------------------------------------------------------------------------------------


def corrupt(panel: Panel, dates: slice) -> Panel:
    changed = panel.copy(deep=True)
    changed["features"].values[dates] = changed["features"].values[dates] * 31.0 - 17.0
    changed["forward_return"].values[dates] *= -13.0
    return check_panel(changed)


def test_scales_come_from_training_dates_alone(
    panel: Panel, model: FactorVAE, config: SVIConfig
) -> None:
    one_epoch = config.model_copy(update={"n_epochs": 1})
    base = fit_svi(model, panel, config=one_epoch, seed=3)
    dates = panel["date"].values
    stop = base.split.train.positions(dates).stop
    later = fit_svi(model, corrupt(panel, slice(stop, None)), config=one_epoch, seed=3)
    assert later.return_scale == base.return_scale
    assert later.transforms.as_dict() == base.transforms.as_dict()
    assert same_weights(base.model.state_dict(), later.model.state_dict())
    # The test has power: the last training date alone moves all three.
    inside = fit_svi(model, corrupt(panel, slice(stop - 1, stop)), config=one_epoch, seed=3)
    assert inside.return_scale != base.return_scale
    for state in ("center", "scale"):
        changed, same = (getattr(fit.transforms.transforms[0], state) for fit in (inside, base))
        assert not np.array_equal(changed, same)


def test_the_return_scale_is_the_standard_deviation_of_training_returns(
    panel: Panel, model: FactorVAE, config: SVIConfig
) -> None:
    fit = fit_svi(model, panel, config=config.model_copy(update={"n_epochs": 1}), seed=3)
    train = fit.split.train.positions(panel["date"].values)
    returns = panel["forward_return"].values[train][panel["tradable"].values[train]]
    assert fit.return_scale == pytest.approx(np.nanstd(returns.astype(np.float64)), rel=1e-12)


def test_a_panel_that_cannot_be_trained_on_is_refused(
    panel: Panel, model: FactorVAE, config: SVIConfig
) -> None:
    with pytest.raises(PanelError, match=r"must have spec.n_features = 5 features; got 4"):
        fit_svi(model, check_panel(panel.isel(feature=slice(4))), config=config)
    flat = panel.copy(deep=True)
    flat["forward_return"].values[:43] = np.nan
    with pytest.raises(PanelError, match=r"training returns must be observed and vary; got 0"):
        fit_svi(model, check_panel(flat), config=config)
    blind = panel.copy(deep=True)
    blind["forward_return"].values[42:51] = np.nan
    with pytest.raises(PanelError, match=r"validation must have a date with full windows"):
        fit_svi(model, check_panel(blind), config=config)


# ---- stopping ------------------------------------------------------------------------------------


def test_the_last_weights_are_kept_where_that_is_asked_for(
    panel: Panel, model: FactorVAE, config: SVIConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch([-1.0, -2.0, -3.0, -4.0])
    monkeypatch.setattr(loop, "evaluate_forecasts", watch)
    last = config.model_copy(update={"n_epochs": 4, "patience": 1, "keep": "last"})
    fit = fit_svi(model, panel, config=last, seed=3)
    assert fit.status == "finished"
    assert fit.history.attrs["best_epoch"] == 4
    assert same_weights(fit.model.state_dict(), watch.seen[3])


def test_early_stopping_keeps_the_weights_of_the_best_epoch(
    panel: Panel, model: FactorVAE, config: SVIConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch([-3.0, -1.0, -2.0, -1.0, -1.5])  # the fourth ties, which is not better
    monkeypatch.setattr(loop, "evaluate_forecasts", watch)
    patient = config.model_copy(update={"n_epochs": 9, "patience": 3})
    fit = fit_svi(model, panel, config=patient, seed=3)
    assert fit.status == "early stopped"
    assert fit.history.attrs["best_epoch"] == 2
    assert fit.history["validation_log_score"].values.tolist() == watch.scores
    assert same_weights(fit.model.state_dict(), watch.seen[1])
    assert not same_weights(fit.model.state_dict(), watch.seen[4])


def test_the_validation_score_is_that_of_the_returned_weights(
    panel: Panel, model: FactorVAE, config: SVIConfig
) -> None:
    fit = fit_svi(model, panel, config=config, seed=3)
    windows = PanelWindows(panel, lags=2, transforms=fit.transforms, return_scale=fit.return_scale)
    span = fit.split.validation.positions(panel["date"].values)
    quality = evaluate_forecasts(fit.model, windows, span, config.block_size)
    scores = fit.history["validation_log_score"].values
    assert quality.log_score == pytest.approx(scores.max(), abs=1e-12)
    assert fit.history.attrs["best_epoch"] == scores.argmax() + 1


def test_an_interrupt_returns_the_best_state_so_far(
    panel: Panel, model: FactorVAE, config: SVIConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch([-1.0, -2.0], interrupt_at=2)
    monkeypatch.setattr(loop, "evaluate_forecasts", watch)
    fit = fit_svi(model, panel, config=config, seed=3)
    assert fit.status == "interrupted"
    assert fit.history.attrs["status"] == "interrupted"
    assert same_weights(fit.model.state_dict(), watch.seen[0])
    assert fit.history.sizes["step"] == 18
    assert fit.history.sizes["epoch"] == 2


def test_an_interrupt_in_the_first_epoch_returns_what_was_learnt(
    panel: Panel, model: FactorVAE, config: SVIConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Weights] = []

    def stop_at_third(trained: Any, *args: Any, **options: Any) -> ObjectiveTerms:
        seen.append(weights_of(trained))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return evaluate_objective(trained, *args, **options)

    monkeypatch.setattr(loop, "evaluate_objective", stop_at_third)
    fit = fit_svi(model, panel, config=config, seed=3)
    assert fit.status == "interrupted"
    assert same_weights(fit.model.state_dict(), seen[2])
    assert not same_weights(fit.model.state_dict(), seen[0])


# ---- steps that are not finite -------------------------------------------------------------------


class Sabotage:
    """The objective, spoiled at some steps; keeps the weights that each step began with."""

    def __init__(self, steps: set[int], how: str) -> None:
        self.steps, self.how = steps, how
        self.seen: list[Weights] = []

    def __call__(self, model: Any, *args: Any, **options: Any) -> ObjectiveTerms:
        terms = evaluate_objective(model, *args, **options)
        step = len(self.seen)
        self.seen.append(weights_of(model))
        if step not in self.steps:
            return terms
        bias = model.beta.bias.sum()
        spoiled = {
            "nan": terms.loss * float("nan"),
            "inf": terms.loss + float("inf"),
            "gradient": terms.loss + (bias - bias.detach()).sqrt(),  # 0, with slope inf
        }[self.how]
        return ObjectiveTerms(spoiled, terms.log_likelihood, terms.kl, terms.elbo)


@pytest.mark.parametrize("how", ["nan", "inf", "gradient"])
@pytest.mark.parametrize("steps", [{0, 8}, {3, 4}])
def test_a_step_that_is_not_finite_is_skipped_and_counted(
    panel: Panel,
    model: FactorVAE,
    config: SVIConfig,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    steps: set[int],
) -> None:
    sabotage = Sabotage(steps, how)
    monkeypatch.setattr(loop, "evaluate_objective", sabotage)
    fit = fit_svi(model, panel, config=config, seed=3)
    assert fit.provenance["n_skipped_steps"] == fit.history.attrs["n_non_finite"] == 2
    named = [
        int(text.split(":")[0].removeprefix("step ")) for text in fit.provenance["skipped_dates"]
    ]
    assert named == sorted(steps)
    for step in range(23):
        unchanged = same_weights(sabotage.seen[step], sabotage.seen[step + 1])
        # An infinite constant leaves a finite gradient behind it: skipped all the same.
        assert unchanged == (step in steps), step
    assert all(torch.isfinite(value).all() for value in fit.model.state_dict().values())


def test_too_many_steps_that_are_not_finite_raise_and_name_the_dates(
    panel: Panel, model: FactorVAE, config: SVIConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = config.model_copy(update={"max_non_finite": 2})
    monkeypatch.setattr(loop, "evaluate_objective", Sabotage({1, 4}, "nan"))
    assert fit_svi(model, panel, config=strict, seed=3).provenance["n_skipped_steps"] == 2
    monkeypatch.setattr(loop, "evaluate_objective", Sabotage({1, 4, 5, 6}, "nan"))
    day = r"\d{4}-\d\d-\d\d"
    places = ", ".join(rf"step {step}: {day} to {day}" for step in (1, 4, 5))
    with pytest.raises(
        NonFiniteLossError, match=rf"got 3 steps that were not, at {places}; the last finite ELBO"
    ):
        fit_svi(model, panel, config=strict, seed=3)


def test_a_validation_score_that_is_no_number_is_an_error_not_an_early_stop(
    panel: Panel, model: FactorVAE, config: SVIConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "evaluate_forecasts", Watch([-1.0, float("nan")]))
    with pytest.raises(NonFiniteLossError, match="must be a number; got nan after epoch 2"):
        fit_svi(model, panel, config=config, seed=3)
