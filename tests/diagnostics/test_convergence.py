import math

import numpy as np
import pytest
import xarray as xr
from statsmodels.api import OLS, add_constant

from nfi_pyro.diagnostics.convergence import _trend, judge_convergence
from nfi_pyro.errors import ShapeError, SpecError

N_EPOCHS, PER_EPOCH = 24, 11


def _history(
    elbo: np.ndarray | None = None, score: np.ndarray | None = None, **attrs: object
) -> xr.Dataset:
    """Return the history of a run that has come to rest, or with curves given by epoch."""
    rng = np.random.default_rng(0)
    rest = -np.exp(-np.arange(N_EPOCHS) / 2.0)
    by_epoch = rest if elbo is None else elbo
    n = len(by_epoch)
    validation = rest[:n] + 0.001 * rng.standard_normal(n) if score is None else score
    steps = np.repeat(by_epoch, PER_EPOCH) + 0.02 * rng.standard_normal(n * PER_EPOCH)
    rate = 0.5 * (1 + np.cos(np.pi * np.arange(n * PER_EPOCH) / (n * PER_EPOCH)))
    return xr.Dataset(
        {
            "elbo": ("step", steps),
            "learning_rate": ("step", 1e-3 * rate),
            "validation_log_score": ("epoch", validation),
            "last_step": ("epoch", PER_EPOCH * np.arange(1.0, n + 1)),
        },
        attrs={
            "best_epoch": int(np.nanargmax(validation)) + 1,
            "objective": "elbo",
            "n_non_finite": 0,
            "status": "finished",
        }
        | attrs,
    )


def test_trend_is_least_squares_with_a_newey_west_error() -> None:
    rng = np.random.default_rng(1)
    y = 0.03 * np.arange(60.0) + rng.standard_normal(60).cumsum() * 0.1
    found = _trend(y, 11.0)
    oracle = OLS(y, add_constant(np.arange(60.0))).fit(
        cov_type="HAC", cov_kwds={"maxlags": 3, "use_correction": True}
    )
    assert found.slope == pytest.approx(11 * oracle.params[1], rel=1e-9)
    assert found.standard_error == pytest.approx(11 * oracle.bse[1], rel=1e-9)
    assert found.n_points == 60


def test_trend_leaves_gaps_out_at_their_place() -> None:
    y = 0.5 * np.arange(20.0)
    y[[3, 4, 11]] = np.nan
    found = _trend(y)
    assert found.slope == pytest.approx(0.5)
    assert found.standard_error == pytest.approx(0.0, abs=1e-12)
    assert found.n_points == 17
    assert math.isnan(_trend(np.arange(4.0)).slope)


def test_a_run_at_rest_is_good() -> None:
    history = _history()
    found = judge_convergence(history)
    assert found.verdict.grade == "good"
    assert "stopped rising" in found.verdict.text
    assert found.elbo_average.dims == ("step",)
    # A half-life of one epoch: the weight of the last step is 1 - 2^(-1/11).
    weight = 0.5 ** (np.arange(N_EPOCHS * PER_EPOCH)[::-1] / PER_EPOCH)
    assert float(found.elbo_average[-1]) == pytest.approx(
        float((weight * history["elbo"]).sum() / weight.sum()), rel=1e-9
    )
    assert found.final_learning_rate_share < 0.01
    assert (found.n_epochs, found.n_steps) == (N_EPOCHS, N_EPOCHS * PER_EPOCH)


def test_a_run_that_still_rises_is_doubtful() -> None:
    rise = np.linspace(-1, 0, N_EPOCHS)
    found = judge_convergence(_history(rise, rise))
    assert found.best_is_last
    assert found.validation_trend.slope == pytest.approx(1 / (N_EPOCHS - 1))
    assert found.verdict.grade == "doubtful"
    assert "still rises" in found.verdict.text
    assert "flattens the end by itself" in found.verdict.text
    assert found.elbo_trend.slope == pytest.approx(1 / (N_EPOCHS - 1), rel=0.3)


def test_overfitting_is_seen_and_bad_only_where_its_weights_are_kept() -> None:
    epoch = np.arange(N_EPOCHS)
    score = -np.abs(epoch - 8) * 0.01
    rise = np.linspace(-1, 0, N_EPOCHS)
    stopped = judge_convergence(_history(rise, score, status="early stopped"))
    assert stopped.overfitted
    assert stopped.best_epoch == 9
    assert stopped.validation_drop == pytest.approx(0.15)
    assert stopped.elbo_gain_since_best == pytest.approx(
        15 / (N_EPOCHS - 1), abs=4 * 0.02 * math.sqrt(2 / PER_EPOCH)
    )
    assert stopped.verdict.grade == "good"
    assert "overfit by 0.1500 nats" in stopped.verdict.text
    kept = judge_convergence(_history(rise, score, best_epoch=N_EPOCHS))
    assert kept.verdict.grade == "bad"
    assert f"those of epoch {N_EPOCHS}" in kept.verdict.text


def test_a_falling_bound_and_skipped_steps_are_bad() -> None:
    fall = np.concatenate([np.linspace(-1, 0, 12), np.linspace(0, -2, 12)])
    found = judge_convergence(_history(fall))
    assert found.elbo_trend.falls
    assert found.verdict.grade == "bad"
    assert "objective falls at the end" in found.verdict.text
    history = _history(n_non_finite=9)
    history["elbo"][[5, 7, 200]] = np.nan
    history["elbo"][8] = -np.inf
    skipped = judge_convergence(history)
    assert skipped.verdict.grade == "bad"
    assert "9 of 264 steps were not finite" in skipped.verdict.text
    assert bool(np.isfinite(skipped.elbo_average).all())
    one = judge_convergence(_history(n_non_finite=1))
    assert one.verdict.grade == "doubtful"


def test_short_and_interrupted_runs_are_not_called_good() -> None:
    short = judge_convergence(_history(np.linspace(-1, 0, 3)))
    assert short.verdict.grade == "unknown"
    assert "too few epochs" in short.verdict.text
    assert judge_convergence(_history(status="interrupted")).verdict.grade == "doubtful"


def test_arguments_are_checked() -> None:
    history = _history()
    with pytest.raises(SpecError, match="got none of elbo at judge_convergence"):
        judge_convergence(history.drop_vars("elbo"))
    bare = history.copy()
    bare.attrs = {}
    with pytest.raises(SpecError, match="got none of best_epoch, objective"):
        judge_convergence(bare)
    with pytest.raises(ShapeError, match="elbo must have the dimension step"):
        judge_convergence(history.expand_dims(chain=2))
    with pytest.raises(SpecError, match="history must hold an epoch with a validation score"):
        judge_convergence(history.isel(epoch=slice(0, 0)))
