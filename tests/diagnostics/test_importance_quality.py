"""k-hat and evidence of weights whose tails are known, and every verdict."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.diagnostics import judge_importance
from nfi_pyro.errors import ShapeError, SpecError

DRAWS, DATES = 4_000, 23


def labelled(weights: np.ndarray, elbo: np.ndarray | float = 0.0) -> tuple[xr.DataArray, ...]:
    dates = pd.bdate_range("2021-03-01", periods=weights.shape[1])
    bound = np.broadcast_to(np.asarray(elbo, dtype=np.float64), dates.shape)
    return (
        xr.DataArray(weights, {"date": dates}, ("draw", "date")),
        xr.DataArray(bound.copy(), {"date": dates}, ("date",)),
    )


def normal_weights(scale: float, n_factors: int = 1, *, seed: int = 0) -> np.ndarray:
    """Return log weights of standard normal draws for a normal target of sd `scale`."""
    x = np.random.default_rng(seed).standard_normal((DRAWS, DATES, n_factors))
    return (0.5 * np.square(x) * (1.0 - scale**-2.0) - np.log(scale)).sum(-1)


@pytest.mark.parametrize("scale", [1.5, 2.0, 4.0])
def test_k_hat_is_the_shape_of_the_weights_tail(scale: float) -> None:
    """``P(w > t)`` falls as ``t^{-1/k}`` with ``k = 1 - 1 / scale^2``."""
    found = judge_importance(*labelled(normal_weights(scale)))
    # One date's error is (1 + k) / sqrt(tail) with 190 draws in the tail; the slow logarithm in
    # the tail adds a bias of the same size.
    want = 1.0 - scale**-2.0
    assert float(found.k_hat.mean()) == pytest.approx(want, abs=2.0 * (1.0 + want) / np.sqrt(190))


def test_evidence_of_a_normalised_target_is_zero_and_a_narrow_one_is_bounded() -> None:
    scale = 0.8  # weights are at most 1 / scale
    weights = normal_weights(scale, 2)
    divergence = 2.0 * (np.log(scale) + 0.5 / scale**2 - 0.5)  # KL(q || p), so the ELBO is minus it
    found = judge_importance(*labelled(weights, -divergence))
    ratio = np.exp(weights)
    error = ratio.std() / np.sqrt(DRAWS * DATES)
    assert float(found.evidence.mean()) == pytest.approx(0.0, abs=4.0 * error)
    assert found.mean_gap == pytest.approx(divergence, abs=4.0 * error)
    np.testing.assert_allclose(found.evidence, np.log(ratio.mean(0)), rtol=1e-10, atol=1e-12)
    share = ratio / ratio.sum(0)
    np.testing.assert_allclose(found.effective_draws, 1.0 / np.square(share).sum(0), rtol=1e-10)
    assert float(found.k_hat.max()) < 0.3
    assert found.gap_standard_error > 0.0


def test_constant_weights_are_exact() -> None:
    weights = np.full((DRAWS, DATES), -731.5) + 1e-10 * np.random.default_rng(0).random(
        (DRAWS, DATES)
    )
    found = judge_importance(*labelled(weights, -731.5))
    assert (found.k_hat == 0.0).all()
    np.testing.assert_allclose(found.effective_draws, DRAWS, rtol=1e-9)
    assert abs(found.mean_gap) < 1e-9
    assert found.verdict.grade == "good"
    assert "0.00 nats per date" in found.verdict.text


def test_empty_dates_do_not_count() -> None:
    weights = normal_weights(1.3)
    weights[:, [2, 5]] = 0.0
    found = judge_importance(*labelled(weights, np.where(weights.any(0), -0.01, 0.0)))
    alone = judge_importance(*labelled(np.delete(weights, [2, 5], 1), -0.01))
    assert (found.n_dates, found.n_empty) == (DATES - 2, 2)
    for name in ("k_hat", "evidence", "gap", "effective_draws"):
        own = getattr(found, name)
        assert np.flatnonzero(np.isnan(own)).tolist() == [2, 5]
        np.testing.assert_array_equal(own.dropna("date"), getattr(alone, name))
    assert found.mean_gap == alone.mean_gap
    assert "2 dates without an observed return do not count" in found.verdict.text
    nothing = judge_importance(*labelled(np.zeros((DRAWS, 3))))
    assert nothing.verdict.grade == "unknown"
    assert np.isnan(nothing.mean_gap)


# ---- verdicts ------------------------------------------------------------------------------------


def test_a_wide_target_is_bad_and_an_encoder_is_told_what_to_use() -> None:
    found = judge_importance(*labelled(normal_weights(3.0, 5), -4.0), guide="encoder")
    assert found.verdict.grade == "bad"
    assert found.share_high > 0.9
    assert found.share_poor > 0.9
    assert "use the model's own posterior, or draws corrected" in found.verdict.text
    assert "The guide is wrong, not the model" in found.verdict.text
    own = judge_importance(*labelled(normal_weights(3.0, 5), -4.0))
    assert "weight its draws by their importance" in own.verdict.text


def test_a_gap_of_half_a_nat_is_doubtful_and_one_of_two_is_bad() -> None:
    weights = normal_weights(0.9)
    grades = [judge_importance(*labelled(weights, -gap)).verdict.grade for gap in (0.05, 0.5, 2.0)]
    assert grades == ["good", "doubtful", "bad"]


def test_a_heavy_tail_that_moves_nothing_is_good() -> None:
    tail = np.random.default_rng(1).pareto(1.1, (DRAWS, DATES))
    found = judge_importance(*labelled(np.log1p(1e-5 * tail), -1e-5))
    assert found.share_high > 0.5
    assert found.share_poor == 0.0
    assert float(found.effective_draws.min()) > 0.9 * DRAWS
    assert found.verdict.grade == "good"


def test_the_threshold_follows_the_draws() -> None:
    weights = normal_weights(1.1)
    assert judge_importance(*labelled(weights)).threshold == 0.7
    few = judge_importance(*labelled(weights[:100]))
    assert few.threshold == pytest.approx(0.5)


# ---- bad input -----------------------------------------------------------------------------------


def test_wrong_weights_are_refused() -> None:
    weights, elbo = labelled(normal_weights(1.1))
    with pytest.raises(ShapeError, match="dimensions draw and date, and elbo date"):
        judge_importance(weights.rename(draw="sample"), elbo)
    with pytest.raises(ShapeError, match="must have the same dates"):
        judge_importance(weights, elbo.isel(date=slice(1, None)))
    with pytest.raises(SpecError, match="at least 100 draws; got 99"):
        judge_importance(weights[:99], elbo)
    broken = weights.copy()
    broken[3, 4] = np.nan
    with pytest.raises(SpecError, match="must be finite; got others at 2021-03-05"):
        judge_importance(broken, elbo)
