"""The nonlinear factor model: its likelihood, what is nested in it, and a planted function."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy.stats import norm

from nfi_pyro.data.training.windows import Outcome
from nfi_pyro.distributions.scale_mixture import student_t_mixture
from nfi_pyro.errors import SpecError
from nfi_pyro.linear_factor import LinearFactor, LinearFactorSpec
from nfi_pyro.nets.penalty import Penalty
from nfi_pyro.neural_factor import NeuralFactor, NeuralFactorSpec
from nfi_pyro.svi import evaluate_objective

DATES, ASSETS, FACTORS = 7, 5, 11


def build(**changes: Any) -> NeuralFactor:
    values = {"n_exposures": FACTORS, "hidden_size": 3} | changes
    return NeuralFactor(NeuralFactorSpec.model_validate(values), seed=1).double()


def objective(model: Any, batch: Any, outcome: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        return evaluate_objective(model, model.context(batch), outcome)


@pytest.mark.parametrize("noise", ["gaussian", "student_t"])
def test_the_likelihood_is_that_of_the_function_plus_noise(make_batch, noise: str) -> None:
    batch, outcome = make_batch()
    model = build(noise=noise)
    with torch.no_grad():
        context = model.context(batch)
        mean, sd = model.alpha(context.exposures).numpy(), float(model.noise.scale)
        elbo = float(objective(model, batch, outcome).elbo)
    weight, multiple = (np.ones(1), np.ones(1)) if noise == "gaussian" else student_t_mixture(4.0)
    value = outcome.forward_return.numpy()[..., None]
    cells = np.log(norm.pdf(value, mean[..., None], sd * multiple) @ weight)
    assert elbo == pytest.approx(cells[outcome.observed.numpy()].mean(), rel=1e-6)
    np.testing.assert_allclose(context.specific.loc[..., 0].numpy(), mean, rtol=1e-14)


def test_the_linear_factor_model_with_constant_factors_is_nested(make_batch) -> None:
    """Law against law: z fixed at m, the network silent, its slope m."""
    batch, outcome = make_batch()
    m = torch.linspace(-0.4, 0.6, 1 + FACTORS, dtype=torch.float64)
    neural = build(scale_floor=1e-9)
    linear = LinearFactor(LinearFactorSpec(n_exposures=FACTORS, scale_floor=1e-9)).double()
    with torch.no_grad():
        linear.factor_loc.copy_(m)
        linear.raw_factor_scale.fill_(-60.0)
        neural.alpha.readout.weight.zero_()
        neural.alpha.readout.bias.fill_(m[0])
        assert neural.alpha.slope is not None
        neural.alpha.slope.copy_(m[1:])
        one = neural.law(neural.context(batch)).marginal()
        two = linear.law(linear.context(batch)).marginal()
        value = outcome.forward_return
        torch.testing.assert_close(one.mean, two.mean, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(one.log_prob(value), two.log_prob(value), rtol=1e-10, atol=0)
        own_context, other_context = neural.context(batch), linear.context(batch)
        beta = neural.exposures(own_context)[3]
        assert torch.equal(beta, linear.exposures(other_context)[3])
        own_rows = neural.pricing(own_context, 3).mean_derivatives(beta)
        other_rows = linear.pricing(other_context, 3).mean_derivatives(beta)
    for own, other in zip(own_rows, other_rows, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-13, atol=1e-15)


def test_sites_and_a_law_without_factors(make_batch) -> None:
    batch, outcome = make_batch()
    model = build()
    context = model.context(batch)
    nodes: dict[str, Any] = dict(poutine.trace(model.model).get_trace(context, outcome).nodes)
    names = {name for name, node in nodes.items() if node["type"] == "sample"}
    assert names == {"date", "asset", "forward_return"}
    assert torch.equal(nodes["forward_return"]["mask"], outcome.observed)
    assert model.law(context).beta.shape == (DATES, ASSETS, 0)


def test_a_penalty_is_a_log_prior_scaled_with_its_plate(make_batch) -> None:
    batch, outcome = make_batch()
    part = replace(batch, date_index=batch.date_index + 20, n_dates=101)
    penalty = Penalty(l2=0.5)
    model = build(penalty=penalty)
    with torch.no_grad():
        context = model.context(part)
        nodes: dict[str, Any] = dict(poutine.trace(model.model).get_trace(context, outcome).nodes)
        size = penalty.evaluate(model.alpha, context.exposures, context.tradable)
    site = nodes["penalty"]
    counts = outcome.observed.sum(1, keepdim=True)
    log_prior = site["fn"].log_prob(site["value"])
    torch.testing.assert_close(log_prior, -size * counts, rtol=1e-12, atol=0)
    assert site["scale"] == pytest.approx(101 / DATES)
    plain = build()
    gap = objective(model, batch, outcome).loss - objective(plain, batch, outcome).loss
    assert float(gap.detach()) == pytest.approx(float(size), rel=1e-10)


def test_a_planted_curve_is_found_again_with_its_derivatives(make_batch, seeded) -> None:
    """Simulated truth: r = b_0 ^ 2 / 2 - b_1 + noise of 0.3, 31 dates of 101 assets."""
    batch, _ = make_batch(n_dates=31, n_assets=101, n_features=2, lags=1, missing=False)
    beta = batch.features
    with seeded(7):
        noise = 0.3 * torch.randn(31, 101, dtype=torch.float64)
    truth = 0.5 * beta[..., 0] ** 2 - beta[..., 1]
    outcome = Outcome(truth + noise, batch.tradable)
    model = build(n_exposures=2, hidden_size=7, standardise=False)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        loss = objective(model, batch, outcome).loss
        loss.backward()
        return float(loss.detach())

    optimiser.step(closure)
    with torch.no_grad():
        inside = beta[(beta.abs() < 1.2).all(-1)]
        jet = model.alpha.jet(inside)
    value = 0.5 * inside[:, 0] ** 2 - inside[:, 1]
    gradient = torch.stack([inside[:, 0], -torch.ones(len(inside))], dim=1)
    curve = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)

    def rms(gap: torch.Tensor) -> float:
        return float(gap.square().mean().sqrt())

    # About 50 weights on 3,131 cells: 0.3 * sqrt(50 / 3131) = 0.04 for values, wider for slopes.
    assert rms(jet.value - value) < 0.05
    assert rms(jet.gradient - gradient) < 0.15
    assert rms(jet.hessian - curve) < 0.4
    assert float(model.noise.scale.detach()) == pytest.approx(0.3, rel=0.05)


def test_a_spec_without_exposures_is_refused() -> None:
    with pytest.raises(SpecError, match=r"n_exposures must be the panel's number .*; got None"):
        NeuralFactor(NeuralFactorSpec())
