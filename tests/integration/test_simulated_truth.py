"""On panels drawn from a known law: the fitted law is close to it, in scores, coverage and scale.

Scores are nats per observed return, returns in units of their training standard deviation, on
held-out dates. The settings are those for which the claims hold with room to spare: over seeds
3, 5, 7 and 11 the score was .005 to .011 below the truth's and coverage within .7 points of it.
Figures in comments move in the third digit with the rounding of the networks.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.posterior import forecast
from nfi_pyro.svi import SVIConfig, fit_svi
from nfi_pyro.svi.config import Objective

LARGE = SimulationSpec(n_dates=1000, n_assets=50, n_features=4, n_factors=2)
SMALL = LARGE.model_copy(update={"n_dates": 600, "n_assets": 40})
SETTINGS = SVIConfig(
    learning_rate=1e-2, n_epochs=30, block_size=8, patience=8, progress=False, device="cpu"
)
QUICK = SETTINGS.model_copy(update={"n_epochs": 15, "patience": 15})


@dataclass(frozen=True)
class Comparison:
    """Fitted law against the true one on held-out dates."""

    score_gap: float
    coverage: float
    true_coverage: float
    specific_ratio: float


def share_within(pit: Any, level: float) -> float:
    values = pit.values[np.isfinite(pit.values)]
    return float((np.abs(values - 0.5) < 0.5 * level).mean())


@cache
def compare(
    simulation: SimulationSpec, settings: SVIConfig, lags: int, n_factors: int, seed: int
) -> Comparison:
    panel, truth = simulate_panel(simulation, seed=seed)
    spec = FactorVAESpec(
        n_features=4,
        lags=lags,
        projection_size=16,
        hidden_size=16,
        n_factors=n_factors,
        n_portfolios=16,
        alpha_hidden_size=16,
        prior_hidden_size=16,
    )
    fit = fit_svi(FactorVAE(spec), panel, config=settings, seed=seed)
    assert fit.split.test is not None
    law = forecast(fit, panel, dates=(fit.split.test.first, fit.split.test.last))
    entered = law.data["entered"]
    returns = panel["forward_return"].sel(date=law.data["date"]).where(entered)
    true = truth.log_density(returns, unit_scale=fit.return_scale)
    fitted = law.log_prob(returns) + np.log(fit.return_scale)
    specific = truth.law["specific_scale"].sel(date=law.data["date"]).where(entered)
    return Comparison(
        score_gap=float((true - fitted).mean()),
        coverage=share_within(law.cdf(returns), 0.95),
        true_coverage=share_within(truth.pit(returns), 0.95),
        specific_ratio=float((np.sqrt(law.data["specific_variance"]) / specific).mean()),
    )


def with_objective(settings: SVIConfig, objective: Objective) -> SVIConfig:
    return settings.model_copy(update={"objective": objective})


def test_a_small_fit_comes_close_to_the_truth_and_finds_the_specific_scale() -> None:
    found = compare(SMALL, QUICK, 1, 2, 3)
    assert 0.0 < found.score_gap < 0.02  # measured .008 and .009
    assert abs(found.coverage - 0.95) < 0.02  # measured .953 and .957
    assert found.specific_ratio == pytest.approx(1.0, abs=0.05)  # measured 1.013 and 1.010


@pytest.mark.slow
def test_the_marginal_objective_misses_the_specific_scale_where_the_elbo_does_not() -> None:
    """The factors' risk takes the place of specific risk."""
    found = compare(SMALL, with_objective(QUICK, "marginal"), 1, 2, 3)
    assert found.specific_ratio < 0.8  # measured .51
    assert found.score_gap < 0.02  # one asset at a time it forecasts as well: measured .009


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 5, 7])
def test_the_fitted_law_scores_within_two_hundredths_of_the_truth(seed: int) -> None:
    found = compare(LARGE, SETTINGS, 2, 3, seed)
    assert -0.005 < found.score_gap < 0.02  # measured .006, .009, .006
    assert abs(found.coverage - 0.95) < 0.02  # measured .952, .940, .949
    assert abs(found.coverage - found.true_coverage) < 0.015
    assert found.specific_ratio == pytest.approx(1.0, abs=0.05)  # measured 1.007, 1.010, .994


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 5, 7])
def test_the_marginal_objective_understates_specific_risk(seed: int) -> None:
    found = compare(LARGE, with_objective(SETTINGS, "marginal"), 2, 3, seed)
    assert found.specific_ratio < 0.8  # measured .38, .39, .45


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 5, 7])
def test_a_gaussian_law_is_far_from_fat_tails_and_regimes_and_still_finds_the_scale(
    seed: int,
) -> None:
    """What the model cannot say: Student-t noise of 4 degrees of freedom and a hidden regime.

    No claim about the score: it was .033, .089 and .102 below the truth's, and coverage of the 95
    percent interval was 94.1, 97.9 and 92.8 percent, by the regime that the held-out dates fell in.
    """
    wild = LARGE.model_copy(update={"tail_dof": 4.0, "regime_switch": True})
    found = compare(wild, SETTINGS, 2, 3, seed)
    assert found.score_gap > 0.02
    assert found.specific_ratio == pytest.approx(1.0, abs=0.05)  # measured 1.010, 1.026, .987
