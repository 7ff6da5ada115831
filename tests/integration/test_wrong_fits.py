"""A fit made wrong on purpose is called wrong, by the diagnostic that should, in its words.

One honest fit on simulated returns; then its scale halved, its encoder frozen at random weights,
its prior collapsed, its outcomes shuffled over the assets of each date, its training cut short.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.data.splits import DateSpan
from nfi_pyro.diagnostics import (
    backtest_value_at_risk,
    check_predictions,
    information_coefficient,
    judge_collapse,
    judge_convergence,
    judge_importance,
    portfolio_coverage,
    posterior_information_coefficient,
    simulation_based_calibration,
    spread_against_skill,
)
from nfi_pyro.diagnostics.results import Verdict
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.posterior import (
    ReturnForecast,
    forecast,
    importance_weights,
    portfolio_outcomes,
    sample_posterior,
)
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi

SIMULATION = SimulationSpec(n_dates=600, n_assets=40, n_features=4, n_factors=2, alpha_scale=0.3)
SETTINGS = SVIConfig(
    learning_rate=1e-2, n_epochs=15, block_size=8, patience=15, progress=False, device="cpu"
)
SPEC = FactorVAESpec(
    n_features=4,
    lags=1,
    projection_size=16,
    hidden_size=16,
    n_factors=2,
    n_portfolios=16,
    alpha_hidden_size=16,
    prior_hidden_size=16,
)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return simulate_panel(SIMULATION, seed=3)[0]


@pytest.fixture(scope="module")
def honest(panel: Panel) -> SVIFit:
    return fit_svi(FactorVAE(SPEC), panel, config=SETTINGS, seed=3)


def span_of(fit: SVIFit) -> tuple[str, str]:
    """Return first and last validation and test day: no diagnostic here is about training."""
    last = fit.split.test
    assert last is not None
    return str(fit.split.validation.first), str(last.last)


def altered(fit: SVIFit, **layers: float) -> SVIFit:
    """Return the fit with parameters, given by name with __ for dots, set to a constant."""
    model = copy.deepcopy(fit.model)
    with torch.no_grad():
        for name, value in layers.items():
            model.get_parameter(name.replace("__", ".")).fill_(value)
    return replace(fit, model=model)


def halved(laws: ReturnForecast) -> ReturnForecast:
    """Return forecasts with half the risk, everywhere."""
    data = laws.data.copy()
    mean = laws.mean
    data["loc"] = mean + (data["loc"] - mean) * 0.5
    data["scale"] = 0.5 * data["scale"]
    data["factor_scale"] = 0.5 * data["factor_scale"]
    data["specific_variance"] = 0.25 * data["specific_variance"]
    return ReturnForecast(data)


def books_of(laws: ReturnForecast, panel: Panel) -> xr.Dataset:
    return portfolio_outcomes(laws, panel["forward_return"], n_random=4, n_holdings=10, seed=0)


def says(verdict: Verdict, grade: str, *words: str) -> None:
    assert verdict.grade == grade, verdict
    for word in words:
        assert word in verdict.text, verdict


def test_half_the_scale_is_seen_in_books_and_value_at_risk_and_single_assets(honest, panel) -> None:
    laws = forecast(honest, panel, dates=span_of(honest))
    for own, grade in ((laws, "good"), (halved(laws), "bad")):
        books = books_of(own, panel)
        own_book = books.sel(portfolio="equal weight")
        risk = backtest_value_at_risk(
            own_book["forward_return"], own_book["value_at_risk"].sel(level=0.95), level=0.95
        )
        returns = panel["forward_return"].sel(date=own.data["date"])
        spread = spread_against_skill(own.standard_deviation, returns - own.mean)
        coverage = portfolio_coverage(books["pit"])
        for verdict in (risk.verdict, coverage.verdict, spread.verdict):
            says(verdict, grade)
    assert "narrow" in coverage.verdict.text
    assert float(coverage.spread["spread"].mean()) == pytest.approx(2.0, abs=0.3)
    assert spread.ratio == pytest.approx(2.0, abs=0.3)


def test_a_frozen_encoder_is_seen_by_weights_and_by_simulation(honest, panel) -> None:
    frozen = replace(honest, model=copy.deepcopy(honest.model))
    frozen.model.encoder = FactorVAE(SPEC, seed=99).encoder
    dates = span_of(honest)
    weights = importance_weights(frozen, panel, guide="encoder", draws=500, dates=dates)
    found = judge_importance(weights.log_weights, weights.elbo, guide="encoder")
    says(found.verdict, "bad", "not the model", "the model's own posterior")
    ranks = simulation_based_calibration(frozen, panel, guide="encoder", dates=dates, n_repeats=2)
    says(ranks.verdict, "bad")
    own = importance_weights(frozen, panel, draws=500, dates=dates)
    says(judge_importance(own.log_weights, own.elbo).verdict, "good")
    exact = simulation_based_calibration(frozen, panel, dates=dates, n_repeats=2)
    says(exact.verdict, "good")


def test_a_collapsed_prior_is_seen(honest, panel) -> None:
    dates = span_of(honest)
    collapsed = altered(
        honest, predictor__head__raw_scale__weight=0.0, predictor__head__raw_scale__bias=-9.0
    )
    for fit, grade in ((honest, "good"), (collapsed, "bad")):
        posterior = sample_posterior(fit, panel, draws=2, dates=dates)
        found = judge_collapse(
            posterior.moments,
            posterior.constants["beta"],
            specific_scale=posterior.constants["specific_scale"],
        )
        says(found.verdict, grade)
    assert "prior collapse" in found.verdict.text
    books = books_of(forecast(collapsed, panel, dates=dates), panel)
    says(portfolio_coverage(books["pit"]).verdict, "bad", "narrow")


def test_half_the_scale_is_seen_by_predictive_checks(honest, panel) -> None:
    dates = span_of(honest)
    small = replace(honest, model=copy.deepcopy(honest.model))
    with torch.no_grad():  # half of softplus(x) for the x that the layers give, nearly
        for layer in (small.model.alpha.raw_scale, small.model.predictor.head.raw_scale):
            layer.bias.sub_(0.9)
    good = check_predictions(honest, panel, dates=dates, n_draws=200, seed=1).verdict
    bad = check_predictions(small, panel, dates=dates, n_draws=200, seed=1).verdict
    assert good.grade != "bad", good
    says(bad, "bad")


def test_shuffled_outcomes_leave_no_skill(honest, panel) -> None:
    laws = forecast(honest, panel, dates=span_of(honest))
    rng = np.random.default_rng(0)
    shuffled = panel.copy(deep=True)
    shuffled["forward_return"].values[:] = rng.permuted(shuffled["forward_return"].values, axis=1)
    found = []
    for data in (panel, check_panel(shuffled)):
        returns = data["forward_return"].sel(date=laws.data["date"])
        ranks = information_coefficient(laws.mean, returns).rank_ic
        found.append(posterior_information_coefficient(ranks))
    says(found[0].verdict, "good")
    assert found[0].probability_positive > 0.999
    assert found[1].verdict.grade in ("doubtful", "bad")
    assert found[1].interval[0] < 0.0 < found[1].interval[1]


def test_training_cut_short_is_seen(panel) -> None:
    short = SETTINGS.model_copy(update={"n_epochs": 6, "learning_rate": 3e-4})
    fit = fit_svi(FactorVAE(SPEC), panel, config=short, seed=3)
    assert judge_convergence(fit.history).verdict.grade in ("doubtful", "bad")


def test_the_span_is_after_training(honest: SVIFit) -> None:
    train = honest.split.train
    assert isinstance(train, DateSpan)
    assert span_of(honest)[0] > str(train.last)
