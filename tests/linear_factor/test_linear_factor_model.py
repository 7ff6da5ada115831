"""The Bayesian linear factor model: least squares in the limit, exact evidence, planted values."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from pyro import poutine
from torch import Tensor

from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.distributions import FactorMixture, low_rank_evidence
from nfi_pyro.distributions.mixture_posterior import factor_posterior
from nfi_pyro.errors import SpecError
from nfi_pyro.linear_factor import LinearFactor, LinearFactorSpec, cross_sectional_regression
from nfi_pyro.svi import evaluate_objective

DATES, ASSETS, FACTORS = 7, 13, 3
SIZE = FACTORS + 1


def build(**changes: Any) -> LinearFactor:
    spec = LinearFactorSpec.model_validate({"n_exposures": FACTORS} | changes)
    return LinearFactor(spec).double()


def softplus_inverse(value: Tensor) -> Tensor:
    return value + torch.log(-torch.expm1(-value))


def set_to(model: LinearFactor, loc: Tensor, scale: Tensor, noise: float) -> LinearFactor:
    """Give the model known m, S and noise scale."""
    with torch.no_grad():
        model.factor_loc.copy_(loc)
        model.raw_factor_scale.copy_(softplus_inverse(scale - model.spec.scale_floor))
        own = torch.tensor(noise - model.spec.scale_floor, dtype=torch.float64)
        model.noise.raw_scale.copy_(softplus_inverse(own))
    return model


@pytest.fixture
def data(make_batch) -> tuple[PanelBatch, Outcome]:
    return make_batch(n_assets=ASSETS, n_features=FACTORS, lags=1)


def posterior_of(model: LinearFactor, batch: PanelBatch, outcome: Outcome) -> Any:
    """Return the guide's distribution of z."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        found = poutine.trace(model.guide).get_trace(model.context(batch), outcome)
    return found.nodes["z"]["fn"]


def as_arrays(
    outcome: Outcome, design: Tensor, weight: Tensor | None = None
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray | None]:
    returns = torch.where(outcome.observed, outcome.forward_return, torch.nan).numpy()
    coords = {
        "date": np.arange("2021-01-04", "2021-01-11", dtype="datetime64[D]").astype(
            "datetime64[ns]"
        ),
        "asset": [f"A{k}" for k in range(ASSETS)],
    }
    factor = {"factor": [f"x{k}" for k in range(FACTORS)]}
    attrs = {"start_lag": 1, "horizon": 1, "unit": "return"}
    cells = ("date", "asset")
    return (
        xr.DataArray(returns, coords, cells, attrs=attrs),
        xr.DataArray(design[..., 1:].numpy(), coords | factor, (*cells, "factor")),
        None if weight is None else xr.DataArray(weight.numpy(), coords, cells),
    )


def test_a_flat_prior_gives_least_squares_of_each_date(data) -> None:
    batch, outcome = data
    flat = torch.full((SIZE,), 1e6, dtype=torch.float64)
    model = set_to(build(), torch.zeros(SIZE), flat, noise=0.7)
    with torch.no_grad():
        design = model.context(batch).design
    found = posterior_of(model, batch, outcome)
    returns, exposures, _ = as_arrays(outcome, design)
    regression = cross_sectional_regression(returns, exposures)
    want = torch.from_numpy(regression.factor_returns.values)
    assert torch.isfinite(want).all()
    torch.testing.assert_close(found.loc.squeeze(1), want, rtol=1e-8, atol=1e-8)
    for date in range(DATES):  # and its covariance is s^2 (X'X)^-1
        rows = design[date][outcome.observed[date]]
        covariance = 0.49 * torch.linalg.inv(rows.T @ rows)
        torch.testing.assert_close(
            found.covariance_matrix[date, 0], covariance, rtol=1e-8, atol=1e-9
        )


def test_unequal_noise_gives_weighted_least_squares(data) -> None:
    batch, outcome = data
    with torch.no_grad():
        design = build().context(batch).design
    generator = torch.Generator().manual_seed(3)
    scale = (0.5 * torch.randn(DATES, ASSETS, generator=generator, dtype=torch.float64)).exp()
    zero = torch.zeros(DATES, ASSETS, 1, dtype=torch.float64)
    flat = torch.full((DATES, SIZE), 1e6, dtype=torch.float64)
    law = FactorMixture(zero, zero, scale.unsqueeze(-1), design, 0.0 * flat, flat)
    found = factor_posterior(law, outcome.forward_return, outcome.observed)
    returns, exposures, weights = as_arrays(outcome, design, scale**-2)
    regression = cross_sectional_regression(returns, exposures, weights=weights)
    want = torch.from_numpy(regression.factor_returns.values)
    torch.testing.assert_close(found.loc, want, rtol=1e-8, atol=1e-8)


def test_the_elbo_is_the_evidence(data) -> None:
    batch, outcome = data
    loc = torch.tensor([0.3, -0.1, 0.2, 0.05], dtype=torch.float64)
    scale = torch.tensor([0.5, 0.2, 0.4, 0.1], dtype=torch.float64)
    model = set_to(build(), loc, scale, noise=0.8)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        context = model.context(batch)
        terms = evaluate_objective(model, context, outcome)
    evidence = low_rank_evidence(
        outcome.forward_return,
        outcome.observed,
        context.design,
        torch.full((DATES, ASSETS), 0.64, dtype=torch.float64),
        loc.expand(DATES, SIZE),
        scale.expand(DATES, SIZE),
    )
    n_cells = int(outcome.observed.sum())
    assert float(terms.elbo) * n_cells == pytest.approx(float(evidence.sum()), rel=1e-11)
    assert float(terms.loss) == pytest.approx(-float(terms.elbo), rel=1e-12)


def test_the_gradient_of_the_loss_is_that_of_the_evidence(data) -> None:
    batch, outcome = data
    model = build()
    with torch.random.fork_rng(devices=[]):
        evaluate_objective(model, model.context(batch), outcome).loss.backward()
    own = [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]
    model.zero_grad()
    law = model.law(model.context(batch))
    cells = outcome.observed.sum()
    (-law.joint_log_prob(outcome.forward_return, outcome.observed).sum() / cells).backward()
    for gradient, parameter in zip(own, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-12)


def draw_panel(model: LinearFactor, n_dates: int, n_assets: int, seed: int) -> Any:
    """Return a batch of given exposures and returns drawn from the model."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n_dates, n_assets, FACTORS)
    features = torch.randn(shape, generator=generator, dtype=torch.float64)
    there = torch.ones(shape[:2], dtype=torch.bool)
    batch = PanelBatch(features, there, torch.arange(n_dates), n_dates)
    with torch.no_grad():
        returns = model.law(model.context(batch)).draw(1, seed=seed)[0]
    return batch, Outcome(returns, there)


@pytest.mark.parametrize("noise", ["gaussian", "student_t"])
def test_planted_values_are_found_again(noise: str) -> None:
    """Simulated truth: 101 dates of 31 assets, maximum likelihood by L-BFGS."""
    n_dates, n_assets = 101, 31
    loc = torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=torch.float64)
    scale = torch.tensor([0.8, 0.4, 0.2, 0.3], dtype=torch.float64)
    truth = set_to(build(noise=noise), loc, scale, noise=0.6)
    batch, outcome = draw_panel(truth, n_dates, n_assets, seed=1)
    model = build(noise=noise)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=15, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        with torch.random.fork_rng(devices=[]):
            loss = evaluate_objective(model, model.context(batch), outcome).loss
        loss.backward()
        return float(loss.detach())

    optimiser.step(closure)
    # A date shows z up to noise of 0.6 / sqrt(31), or as much as a t of 4 is wider.
    spread = (scale**2 + (0.6 * 2.0**0.5) ** 2 / n_assets).sqrt()
    error = (model.factor_loc - loc).detach().abs() / (spread / n_dates**0.5)
    assert float(error.max()) < 4.0
    variance = (model.factor_scale**2 - scale**2).detach().abs() / (
        spread**2 * (2.0 / n_dates) ** 0.5
    )
    assert float(variance.max()) < 4.0
    # 3,131 cells: a scale is known to 1 / sqrt(2 n), a t's less well by at most sqrt(7 / 4).
    assert float(model.noise.scale.detach()) == pytest.approx(0.6, rel=4.0 * 0.0126 * 1.33)


@pytest.mark.parametrize("noise", ["gaussian", "student_t"])
def test_marginal_moments_are_those_of_the_simulated_model(data, noise: str) -> None:
    """4,001 dates of one cross-section of exposures: every date is a draw of one law."""
    n = 4001
    loc = torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=torch.float64)
    scale = torch.tensor([0.8, 0.4, 0.2, 0.3], dtype=torch.float64)
    model = set_to(build(noise=noise, degrees_of_freedom=10.0), loc, scale, noise=0.6)
    features = data[0].features[:1].expand(n, -1, -1)
    there = torch.ones(n, ASSETS, dtype=torch.bool)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        context = model.context(PanelBatch(features, there, torch.arange(n), n))
        nodes: dict[str, Any] = dict(poutine.trace(model.model).get_trace(context).nodes)
        marginal = model.law(context).marginal()
        covariance = model.law(context).covariance_operator().dense()[0]
    returns = nodes["forward_return"]["value"]
    assert float((marginal.mean - marginal.mean[0]).abs().max()) < 1e-14
    error = (marginal.variance[0] / n).sqrt()
    assert ((returns.mean(0) - marginal.mean[0]).abs() < 4.0 * error).all()
    gap = returns - marginal.mean
    sd = marginal.variance[0].sqrt()
    relative = (gap.T @ gap / n - covariance).abs() / torch.outer(sd, sd)
    # 91 entries; a product of two such returns has a standard deviation below 2 variances.
    assert float(relative.max()) < 4.0 * 2.0 / n**0.5


def test_exposures_are_the_panels_own_where_it_has_any(data) -> None:
    batch, _ = data
    own = replace(batch, exposures=2.0 + batch.features.flip(0))
    model = build(standardise=False)
    assert torch.equal(model.context(batch).design[..., 1:], batch.features)
    assert torch.equal(model.context(own).design[..., 1:], 2.0 + batch.features.flip(0))
    scaled = build().context(own)
    assert torch.equal(model.exposures(scaled), scaled.design[..., 1:])
    assert float(scaled.design[..., 1:].sum(1).abs().max()) < 1e-12  # the market is the intercept's


def test_student_t_noise_is_robust_to_an_outlier(make_batch) -> None:
    batch, outcome = make_batch(n_assets=53, n_features=FACTORS, lags=1)
    value = outcome.forward_return.clone()
    row = int(outcome.observed[2].nonzero()[0])
    value[2, row] = 60.0
    wild = Outcome(value, outcome.observed)
    moved = {}
    for noise in ("gaussian", "student_t"):
        model = set_to(build(noise=noise), torch.zeros(SIZE), torch.ones(SIZE), noise=0.7)
        before, after = (posterior_of(model, batch, seen).loc for seen in (outcome, wild))
        moved[noise] = float((after - before)[2].abs().max())
    assert moved["student_t"] < 0.2 * moved["gaussian"]


def test_all_assets_have_one_jacobian_and_no_curvature(data) -> None:
    model = set_to(build(), torch.tensor([0.3, -0.2, 0.1, 0.5]), torch.ones(SIZE), noise=0.7)
    with torch.no_grad():
        context = model.context(data[0])
        gradient, second = model.pricing(context, 0).mean_derivatives(model.exposures(context)[0])
    want = torch.tensor([-0.2, 0.1, 0.5], dtype=torch.float64).expand(ASSETS, FACTORS)
    torch.testing.assert_close(gradient, want, rtol=0, atol=1e-7)
    assert float(second.abs().max()) == 0.0


def test_a_spec_without_exposures_is_refused() -> None:
    with pytest.raises(SpecError, match=r"n_exposures must be the panel's number .*; got None"):
        LinearFactor(LinearFactorSpec())
