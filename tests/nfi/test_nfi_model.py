"""NFI: equivalent forms are one law, the canonical one is as said, special cases are nested."""

import copy
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.distributions import FactorMixture
from nfi_pyro.errors import SpecError
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.linear_factor import LinearFactor, LinearFactorSpec
from nfi_pyro.mixture_pricing import MixturePricing, MixturePricingSpec
from nfi_pyro.nets.penalty import Penalty
from nfi_pyro.nets.pricing import SpecificLaw
from nfi_pyro.nfi import NFI, NFISpec
from nfi_pyro.svi import evaluate_objective
from nfi_pyro.svi.protocol import CanonicalModel, ExposurePricing

DATES, ASSETS, FACTORS, FEATURES, LAGS = 7, 13, 3, 11, 2


def build(**changes: Any) -> NFI:
    """Return a model whose exposures and pricing network are large enough to matter."""
    values = {
        "n_features": FEATURES,
        "lags": LAGS,
        "projection_size": 17,
        "hidden_size": 5,
        "n_factors": FACTORS,
        "n_portfolios": 19,
        "prior_hidden_size": 23,
        "pricing_size": 7,
        "variant": "encoder",
    }
    model = NFI(NFISpec.model_validate(values | changes), seed=1).double()
    with torch.no_grad():
        model.beta.weight.mul_(5.0)
        model.beta.bias.copy_(torch.linspace(-0.5, 0.8, len(model.beta.bias)))
        model.network.alpha.first.weight.mul_(3.0)
        model.network.alpha.readout.weight.mul_(60.0)
        if model.network.noise.several:
            model.network.noise.offset.weight.mul_(10.0)
    return model.requires_grad_(False)


@pytest.fixture
def data(make_batch) -> tuple[PanelBatch, Outcome]:
    return make_batch(n_assets=ASSETS)


def canonical(model: NFI, batch: PanelBatch) -> NFI:
    twin = copy.deepcopy(model)
    twin.canonicalise([twin.context(batch)])
    return twin


def objective(model: NFI, batch: PanelBatch, outcome: Outcome, kind: Any = "elbo") -> Any:
    with torch.random.fork_rng(devices=[]):
        return evaluate_objective(model, model.context(batch), outcome, objective=kind)


def assert_one_law(one: FactorMixture, two: FactorMixture, value: Tensor) -> None:
    """Compare what can be observed: marginal laws, joint covariance, and draws given one noise."""
    torch.testing.assert_close(one.logits, two.logits, rtol=1e-12, atol=1e-13)
    for name in ("loc", "scale"):
        own, other = (getattr(law.marginal(), name) for law in (one, two))
        torch.testing.assert_close(own, other, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(
        one.marginal().log_prob(value), two.marginal().log_prob(value), rtol=1e-11, atol=1e-12
    )
    dense = [law.covariance_operator().dense() for law in (one, two)]
    torch.testing.assert_close(*dense, rtol=1e-11, atol=1e-12)


# ---- equivalent forms ---------------------------------------------------------------------------


@pytest.mark.parametrize("n_components", [1, 3])
def test_the_canonical_form_changes_no_law(data, n_components: int) -> None:
    batch, outcome = data
    model = build(n_components=n_components)
    twin = canonical(model, batch)
    assert twin.canonical.order.tolist() != list(range(FACTORS))
    assert float(twin.canonical.shift.abs().max()) > 0.1
    laws = [own.law(own.context(batch)) for own in (model, twin)]
    assert_one_law(laws[0], laws[1], outcome.forward_return)
    if n_components == 1:
        torch.testing.assert_close(
            *(law.joint_log_prob(outcome.forward_return, outcome.observed) for law in laws),
            rtol=1e-11,
            atol=1e-12,
        )


@pytest.mark.parametrize("kind", ["elbo", "marginal", "paper"])
def test_the_canonical_form_changes_no_objective(data, kind: str) -> None:
    """The encoder's posterior moves with the prior, so every term but the order of KL stays."""
    batch, outcome = data
    model = build(penalty=Penalty(l2=0.1, smooth=0.3))
    twin = canonical(model, batch)
    one, two = (objective(own, batch, outcome, kind) for own in (model, twin))
    for name in ("loss", "log_likelihood", "elbo"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=1e-11, atol=0)
    torch.testing.assert_close(one.kl[twin.canonical.order], two.kl, rtol=1e-11, atol=1e-13)
    loc, scale = twin.encode(twin.context(batch), outcome)
    raw_loc, raw_scale = model.encode(model.context(batch), outcome)
    torch.testing.assert_close(loc, twin.canonical.factor_loc(raw_loc), rtol=1e-13, atol=0)
    torch.testing.assert_close(scale, twin.canonical.factor_scale(raw_scale), rtol=1e-13, atol=0)


def test_the_canonical_form_is_what_it_says(data) -> None:
    batch, _ = data
    twin = canonical(build(), batch)
    context = twin.context(batch)
    rows = batch.tradable
    beta = twin.exposures(context)[rows]
    alpha = twin.pricing(context, 0).alpha(beta).value
    design = np.column_stack([np.ones(len(beta)), beta.numpy()])
    slope = np.linalg.lstsq(design, alpha.numpy(), rcond=None)[0][1:]
    np.testing.assert_allclose(slope, 0.0, atol=1e-12)
    assert float(alpha.std()) > 0.05  # what is left is nonlinear
    law = twin.law(context)
    torch.testing.assert_close(
        law.factor_scale.square().mean(0), torch.ones(FACTORS).double(), rtol=1e-12, atol=0
    )
    moment = beta.square().mean(0)
    assert (moment[:-1] >= moment[1:]).all()
    assert (beta.mean(0) > 0).all()


@pytest.mark.parametrize("n_components", [1, 3])
def test_the_posterior_variants_objective_does_not_depend_on_the_form(
    data, n_components: int
) -> None:
    batch, outcome = data
    model = build(variant="posterior", n_components=n_components)
    one, two = (objective(own, batch, outcome) for own in (model, canonical(model, batch)))
    torch.testing.assert_close(one.elbo, two.elbo, rtol=1e-10, atol=0)
    torch.testing.assert_close(one.kl, two.kl, rtol=1e-9, atol=0)
    if n_components == 1:  # the guide is exact, and the bound the evidence
        law = model.law(model.context(batch))
        evidence = law.joint_log_prob(outcome.forward_return, outcome.observed).sum()
        torch.testing.assert_close(one.elbo, evidence / outcome.observed.sum(), rtol=1e-10, atol=0)


def test_canonicalising_twice_is_once(data) -> None:
    batch, _ = data
    once = canonical(build(), batch)
    twice = canonical(once, batch)
    for name, value in once.canonical.state_dict().items():
        torch.testing.assert_close(value, twice.canonical.state_dict()[name], rtol=1e-12, atol=0)


@pytest.mark.parametrize("n_components", [1, 3])
def test_a_shift_between_alpha_and_factors_leaves_the_law(data, n_components: int) -> None:
    """alpha -> alpha - c.beta and z -> z + c: not identified (models, section B)."""
    batch, outcome = data
    model = build(n_components=n_components)
    law = model.law(model.context(batch))
    c = torch.tensor([0.3, -2.0, 1.1], dtype=torch.float64)
    moved = FactorMixture(
        law.logits,
        law.loc - (law.beta @ c).unsqueeze(-1),
        law.scale,
        law.beta,
        law.factor_loc + c,
        law.factor_scale,
    )
    assert_one_law(law, moved, outcome.forward_return)
    z = law.factor_loc + 0.7
    torch.testing.assert_close(
        law.given(z).log_prob(outcome.forward_return),
        moved.given(z + c).log_prob(outcome.forward_return),
        rtol=1e-11,
        atol=1e-12,
    )


def test_a_linear_map_of_exposures_leaves_the_law(data) -> None:
    """beta -> A^-T beta and z -> A z with any A that can be inverted; a full prior covariance."""
    batch, outcome = data
    model = build()
    law = model.law(model.context(batch))
    generator = torch.Generator().manual_seed(4)
    a = torch.randn(FACTORS, FACTORS, generator=generator, dtype=torch.float64)
    moved = FactorMixture(
        law.logits,
        law.loc,
        law.scale,
        law.beta @ torch.linalg.inv(a),
        law.factor_loc @ a.T,
        law.factor_scale,
    )
    prior = torch.distributions.MultivariateNormal(
        law.factor_loc @ a.T, a @ torch.diag_embed(law.factor_scale**2) @ a.T
    )
    one, two = law.marginal(), moved.integrated(*moved.project_factors(prior))
    value = outcome.forward_return
    torch.testing.assert_close(one.log_prob(value), two.log_prob(value), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(
        law.covariance_operator().dense(),
        moved.covariance_operator(prior).dense(),
        rtol=1e-9,
        atol=1e-11,
    )
    scaled = torch.diag(torch.tensor([-2.0, 0.1, 5.0], dtype=torch.float64))[[2, 0, 1]]
    diagonal = FactorMixture(
        law.logits,
        law.loc,
        law.scale,
        law.beta @ torch.linalg.inv(scaled),
        law.factor_loc @ scaled.T,
        law.factor_scale @ scaled.abs().T,
    )
    assert_one_law(law, diagonal, value)  # a scaled permutation keeps the prior diagonal


def test_pricing_at_canonical_exposures_is_the_law(data) -> None:
    batch, _ = data
    twin = canonical(build(), batch)
    context = twin.context(batch)
    marginal, beta = twin.law(context).marginal(), twin.exposures(context)
    for date in range(DATES):
        own = twin.pricing(context, date).marginal(beta[date])
        for name in ("logits", "loc", "scale"):
            want = getattr(marginal, name)[date]
            torch.testing.assert_close(getattr(own, name), want, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(
        twin.canonical.raw_exposures(beta), context.raw_beta, rtol=1e-13, atol=1e-14
    )


def test_what_is_identified_does_not_depend_on_the_form(data) -> None:
    """The factor return g_ij times the exposure's unit, and the heterogeneity of prices."""
    batch, _ = data
    model = build()
    twin = canonical(model, batch)
    g = []
    for own in (model, twin):
        context = own.context(batch)
        beta = own.exposures(context)[0]
        gradient, second = own.pricing(context, 0).mean_derivatives(beta)
        size = beta.std(0)
        g.append((gradient * size, second * size.unsqueeze(-1) * size))
    order, sign = twin.canonical.order, twin.canonical.scale.sign()
    torch.testing.assert_close(g[0][0][:, order] * sign, g[1][0], rtol=1e-11, atol=1e-13)
    second = g[0][1][:, order][:, :, order] * sign * sign.unsqueeze(-1)
    torch.testing.assert_close(second, g[1][1], rtol=1e-11, atol=1e-13)


# ---- special cases ------------------------------------------------------------------------------


def test_affine_alpha_and_one_component_are_the_linear_model(data) -> None:
    batch, outcome = data
    model = build(n_components=1)
    with torch.no_grad():
        model.network.alpha.readout.weight.zero_()
        model.network.alpha.readout.bias.fill_(0.2)
        model.network.noise.raw_scale.weight.zero_()
        model.canonical.shift.copy_(torch.tensor([0.3, -0.1, 0.5]))  # alpha' is affine
        context = model.context(batch)
        law = model.law(context)
        date = 3
        gradient, second = model.pricing(context, date).mean_derivatives(law.beta[date])
        linear = LinearFactor(
            LinearFactorSpec(n_exposures=FACTORS, standardise=False, scale_floor=1e-9)
        ).double()
        floor, own = 1e-9, law.factor_scale[date]
        linear.factor_loc.copy_(torch.cat([torch.tensor([0.2]).double(), context.prior_loc[date]]))
        inverse = own - floor + torch.log(-torch.expm1(-(own - floor)))
        linear.raw_factor_scale.copy_(torch.cat([torch.tensor([-60.0]).double(), inverse]))
        noise = law.scale[0, 0, 0] - floor
        linear.noise.raw_scale.copy_(noise + torch.log(-torch.expm1(-noise)))
        given = PanelBatch(law.beta[date : date + 1], batch.tradable[:1], torch.arange(1), 1)
        other = linear.law(linear.context(given))
        linear_gradient, _ = linear.pricing(linear.context(given), 0).mean_derivatives(
            law.beta[date]
        )
    assert (gradient == gradient[0]).all()
    assert (second == 0.0).all()
    torch.testing.assert_close(gradient, linear_gradient, rtol=1e-9, atol=1e-10)
    value = outcome.forward_return[date]
    torch.testing.assert_close(
        law.marginal().log_prob(outcome.forward_return)[date],
        other.marginal().log_prob(value)[0],
        rtol=1e-8,
        atol=1e-9,
    )
    torch.testing.assert_close(
        law.joint_log_prob(outcome.forward_return)[date],
        other.joint_log_prob(value.unsqueeze(0))[0],
        rtol=1e-8,
        atol=1e-8,
    )


class _AlphaOfHidden(nn.Module):
    """A pricing of hidden features: FactorVAE's alpha layer where NFI's network is."""

    def __init__(self, alpha: nn.Module) -> None:
        super().__init__()
        self.layer = alpha

    def forward(self, hidden: Tensor) -> SpecificLaw:
        loc, scale = self.layer(hidden)
        return SpecificLaw(torch.zeros_like(loc).unsqueeze(-1), loc[..., None], scale[..., None])


def test_pricing_of_hidden_features_instead_of_exposures_is_factor_vae(data) -> None:
    batch, outcome = data
    sizes = {
        "n_features": FEATURES,
        "lags": LAGS,
        "projection_size": 17,
        "hidden_size": FACTORS,
        "n_factors": FACTORS,
        "n_portfolios": 19,
        "prior_hidden_size": 23,
    }
    mixture = {"n_components": 1, "pricing_size": 7, "variant": "encoder"}
    paper_spec = FactorVAESpec.model_validate(sizes | {"alpha_hidden_size": 29})
    own_spec = NFISpec.model_validate(sizes | mixture)
    paper, model = FactorVAE(paper_spec, seed=5).double(), NFI(own_spec, seed=6).double()
    with torch.no_grad():
        for beta in (paper.beta, model.beta):  # exposures are the hidden features themselves
            beta.weight.copy_(torch.eye(FACTORS))
            beta.bias.zero_()
    for name in ("extractor", "predictor", "encoder"):
        getattr(model, name).load_state_dict(getattr(paper, name).state_dict())
    model.network = _AlphaOfHidden(paper.alpha)  # type: ignore[assignment]
    with torch.no_grad():
        one, two = model.law(model.context(batch)), paper.law(paper.context(batch))
        assert_one_law(one, two, outcome.forward_return)
        terms = [objective(own, batch, outcome) for own in (model, paper)]  # type: ignore[arg-type]
    torch.testing.assert_close(terms[0].elbo, terms[1].elbo, rtol=1e-12, atol=0)
    torch.testing.assert_close(terms[0].kl, terms[1].kl, rtol=1e-12, atol=1e-14)


def test_without_factors_it_is_the_static_mixture_pricing(data) -> None:
    batch, outcome = data
    model = build(scale_floor=1e-9)
    deck = MixturePricing(
        MixturePricingSpec(n_exposures=FACTORS, hidden_size=7, linear=False), seed=2
    ).double()
    deck.network.load_state_dict(model.network.state_dict())
    with torch.no_grad():
        model.predictor.head.loc.weight.zero_()
        model.predictor.head.loc.bias.zero_()
        model.predictor.head.raw_scale.weight.zero_()
        model.predictor.head.raw_scale.bias.fill_(-60.0)
        context = model.context(batch)
        given = PanelBatch(context.raw_beta, batch.tradable, batch.date_index, DATES)
        one, two = (model.law(context).marginal(), deck.law(deck.context(given)).marginal())
    value = outcome.forward_return
    torch.testing.assert_close(one.log_prob(value), two.log_prob(value), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(one.mean, two.mean, rtol=1e-12, atol=1e-13)


# ---- the model as a Pyro program ----------------------------------------------------------------


def test_marginal_moments_are_those_of_the_simulated_model(data) -> None:
    """4,001 dates whose windows are all the same: every date is a draw of one law."""
    n = 4001
    twin = canonical(build(), data[0])
    features = data[0].features[:1].expand(n + LAGS - 1, -1, -1)
    there = torch.ones(n, ASSETS, dtype=torch.bool)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        context = twin.context(PanelBatch(features, there, torch.arange(n), n))
        nodes: dict[str, Any] = dict(poutine.trace(twin.model).get_trace(context).nodes)
        law = twin.law(context)
    marginal, returns = law.marginal(), nodes["forward_return"]["value"]
    error = (marginal.variance[0] / n).sqrt()
    assert ((returns.mean(0) - marginal.mean[0]).abs() < 4.0 * error).all()
    gap, sd = returns - marginal.mean, marginal.variance[0].sqrt()
    covariance = law.covariance_operator().dense()[0]
    relative = (gap.T @ gap / n - covariance).abs() / torch.outer(sd, sd)
    # 91 entries; a product of two such returns has a standard deviation below 2 variances.
    assert float(relative.max()) < 4.0 * 2.0 / n**0.5


def test_sites_plates_and_who_sees_the_outcome(data) -> None:
    batch, outcome = data
    model = build(penalty=Penalty(l2=0.1))
    context = model.context(batch)
    with torch.random.fork_rng(devices=[]):
        guide: dict[str, Any] = dict(poutine.trace(model.guide).get_trace(context, outcome).nodes)
        nodes: dict[str, Any] = dict(poutine.trace(model.model).get_trace(context, outcome).nodes)
    names = {name for name, node in nodes.items() if node["type"] == "sample"}
    assert names == {"date", "asset", "z", "forward_return", "penalty"}
    for latent in (nodes["z"], guide["z"]):
        assert latent["fn"].batch_shape == (DATES, 1)
        assert latent["fn"].event_shape == (FACTORS,)
    assert torch.equal(nodes["forward_return"]["mask"], outcome.observed)
    moved = Outcome(outcome.forward_return + 0.1 * outcome.observed, outcome.observed)
    seen = outcome.observed.any(1)
    before, after = model.encode(context, outcome)[0], model.encode(context, moved)[0]
    assert (before != after)[seen].all()


def test_every_network_runs_once_per_step(data) -> None:
    batch, outcome = data
    model = build()
    calls: Counter[str] = Counter()
    names = {"extractor", "beta", "predictor.attention", "predictor.head", "network", "encoder"}
    for name in names:
        module: nn.Module = model.get_submodule(name)
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    context = model.context(batch)
    assert calls == Counter(names - {"encoder"})
    with torch.random.fork_rng(devices=[]):
        evaluate_objective(model, context, outcome)
    assert calls == Counter(names)


def test_the_form_is_saved_with_the_weights(data) -> None:
    batch, _ = data
    twin = canonical(build(), batch)
    fresh = build()
    fresh.load_state_dict(twin.state_dict())
    for name in ("loc", "beta", "factor_loc", "factor_scale"):
        own, other = (getattr(m.law(m.context(batch)), name) for m in (twin, fresh))
        assert torch.equal(own, other), name


def test_it_is_a_model_of_both_protocols() -> None:
    assert isinstance(build(), CanonicalModel)
    assert isinstance(build(), ExposurePricing)
    assert NFI.name == "nfi"
    assert not NFI.uses_exposures


def test_a_spec_without_features_is_refused() -> None:
    with pytest.raises(SpecError, match=r"n_features must be the panel's number .*; got None"):
        NFI(NFISpec())
