"""Mixture pricing: one component is a normal regression of mean and scale; linear is nested."""

from typing import Any

import numpy as np
import pytest
import torch
from pyro import poutine
from scipy.stats import norm

from nfi_pyro.data.training.windows import PanelBatch
from nfi_pyro.errors import SpecError
from nfi_pyro.mixture_pricing import MixturePricing, MixturePricingSpec
from nfi_pyro.nets.penalty import Penalty
from nfi_pyro.neural_factor import NeuralFactor, NeuralFactorSpec
from nfi_pyro.svi import evaluate_objective

DATES, ASSETS, FACTORS = 7, 5, 11


def build(**changes: Any) -> MixturePricing:
    values = {"n_exposures": FACTORS, "hidden_size": 3} | changes
    return MixturePricing(MixturePricingSpec.model_validate(values), seed=1).double()


def objective(model: Any, batch: Any, outcome: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        return evaluate_objective(model, model.context(batch), outcome)


def test_one_component_is_the_heteroskedastic_normal(make_batch) -> None:
    batch, outcome = make_batch()
    model = build(n_components=1)
    with torch.no_grad():
        model.network.noise.raw_scale.weight.mul_(30.0)
        context = model.context(batch)
        net, beta = model.network, batch.given_exposures
        mean = net.alpha(beta).numpy()
        raw = net.noise.raw_scale(torch.tanh(net.first(beta))).squeeze(-1).numpy()
        sd = np.log1p(np.exp(raw)) + model.spec.scale_floor
        cells = model.law(context).marginal().log_prob(outcome.forward_return).numpy()
        terms = objective(model, batch, outcome)
    want = norm.logpdf(outcome.forward_return.numpy(), mean, sd)
    np.testing.assert_allclose(cells, want, rtol=1e-12)
    assert sd.max() / sd.min() > 1.5
    seen = outcome.observed.numpy()
    assert float(terms.elbo) == pytest.approx(want[seen].mean(), rel=1e-12)
    assert float(terms.loss) == pytest.approx(-want[seen].mean(), rel=1e-12)
    assert terms.kl.numel() == 0


def test_the_linear_model_is_nested(make_batch) -> None:
    """Without a network the law is a linear regression with normal errors: numpy agrees."""
    batch, outcome = make_batch()
    slope = torch.linspace(-0.5, 0.5, FACTORS, dtype=torch.float64)
    model = build(n_components=1)
    assert model.network.alpha.slope is not None
    with torch.no_grad():
        model.network.alpha.readout.weight.zero_()
        model.network.alpha.readout.bias.fill_(0.1)
        model.network.alpha.slope.copy_(slope)
        model.network.noise.raw_scale.weight.zero_()
        sd = float(torch.nn.functional.softplus(model.network.noise.raw_scale.bias)) + 0.05
        context = model.context(batch)
        cells = model.law(context).marginal().log_prob(outcome.forward_return)
        gradient, second = model.pricing(context, 0).mean_derivatives(context.exposures[0])
    mean = 0.1 + batch.given_exposures.numpy() @ slope.numpy()
    np.testing.assert_allclose(
        cells.numpy(), norm.logpdf(outcome.forward_return.numpy(), mean, sd), rtol=1e-11
    )
    torch.testing.assert_close(gradient, slope.expand(ASSETS, FACTORS), rtol=1e-13, atol=1e-15)
    assert float(second.abs().max()) == 0.0
    # The same regression as a neural factor model whose network is silent.
    spec = NeuralFactorSpec(n_exposures=FACTORS, hidden_size=3, standardise=False)
    other = NeuralFactor(spec, seed=2).double()
    with torch.no_grad():
        other.alpha.readout.weight.zero_()
        other.alpha.readout.bias.fill_(0.1)
        assert other.alpha.slope is not None
        other.alpha.slope.copy_(slope)
        own = torch.tensor(sd - spec.scale_floor, dtype=torch.float64)
        other.noise.raw_scale.copy_(own + torch.log(-torch.expm1(-own)))
        law = other.law(other.context(batch)).marginal()
    torch.testing.assert_close(law.log_prob(outcome.forward_return), cells, rtol=1e-12, atol=1e-13)


def test_several_components_are_a_sum_of_normals(make_batch) -> None:
    batch, outcome = make_batch()
    model = build(n_components=3)
    with torch.no_grad():
        logits, loc, scale = (part.numpy() for part in model.context(batch).specific)
        cells = model.law(model.context(batch)).marginal().log_prob(outcome.forward_return)
    weight = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    density = (weight * norm.pdf(outcome.forward_return.numpy()[..., None], loc, scale)).sum(-1)
    np.testing.assert_allclose(cells.numpy(), np.log(density), rtol=1e-11)


def test_sites_and_a_law_without_factors(make_batch) -> None:
    batch, outcome = make_batch()
    model = build()
    context = model.context(batch)
    nodes: dict[str, Any] = dict(poutine.trace(model.model).get_trace(context, outcome).nodes)
    names = {name for name, node in nodes.items() if node["type"] == "sample"}
    assert names == {"date", "asset", "forward_return"}
    assert torch.equal(nodes["forward_return"]["mask"], outcome.observed)
    assert {(f.name, f.dim) for f in nodes["forward_return"]["cond_indep_stack"]} == {
        ("date", -2),
        ("asset", -1),
    }
    assert model.law(context).beta.shape == (DATES, ASSETS, 0)
    assert model.pricing(context, 0).design == "none"


def test_simulated_returns_have_the_laws_moments(make_batch) -> None:
    """4,001 dates of one cross-section of exposures: every date is a draw of one law."""
    n = 4001
    model = build(n_components=3)
    features = make_batch()[0].features[:1].expand(n, -1, -1)
    there = torch.ones(n, ASSETS, dtype=torch.bool)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        context = model.context(PanelBatch(features, there, torch.arange(n), n))
        nodes: dict[str, Any] = dict(poutine.trace(model.model).get_trace(context).nodes)
        law = model.law(context).marginal()
    mean, variance, returns = law.mean[0], law.variance[0], nodes["forward_return"]["value"]
    assert ((returns.mean(0) - mean).abs() < 4.0 * (variance / n).sqrt()).all()
    spread = (returns.var(0) / variance - 1.0).abs()
    # A sample variance has the relative variance (excess kurtosis + 2) / n.
    assert (spread < 4.0 * ((law.kurtosis[0] + 2.0) / n).sqrt()).all()


def test_the_same_law_on_every_date(make_batch) -> None:
    batch, _ = make_batch()
    model = build()
    with torch.no_grad():
        context = model.context(batch)
        one, two = (model.pricing(context, date).marginal(context.exposures[0]) for date in (0, 5))
    assert torch.equal(one.loc, two.loc)
    assert torch.equal(one.scale, two.scale)


def test_the_level_of_exposures_counts_unless_they_are_standardised(make_batch) -> None:
    batch, _ = make_batch(missing=False)
    higher = type(batch)(batch.features + 1.0, batch.tradable, batch.date_index, batch.n_dates)
    for standardise in (False, True):
        model = build(standardise=standardise)
        with torch.no_grad():
            gap = model.context(batch).specific.loc - model.context(higher).specific.loc
        assert (float(gap.abs().max()) < 1e-12) == standardise


def test_a_penalty_enters_the_loss_per_cell_and_no_figure_else(make_batch) -> None:
    batch, outcome = make_batch()
    penalty = Penalty(l1=0.01, l2=0.02, group=0.03, smooth=0.04)
    plain, held = build(), build(penalty=penalty)
    with torch.no_grad():
        one, two = objective(plain, batch, outcome), objective(held, batch, outcome)
        size = penalty.evaluate(plain.network.alpha, batch.given_exposures, batch.tradable)
    assert float(size) > 0.05
    assert float(two.loss - one.loss) == pytest.approx(float(size), rel=1e-10)
    assert torch.equal(one.elbo, two.elbo)
    assert torch.equal(one.log_likelihood, two.log_likelihood)


def test_a_spec_without_exposures_is_refused() -> None:
    with pytest.raises(SpecError, match=r"n_exposures must be the panel's number .*; got None"):
        MixturePricing(MixturePricingSpec())
