"""The objective against Pyro's own estimators, the exact evidence, and Eq. 17."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pydantic import BaseModel
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor
from torch.distributions import kl_divergence

from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.distributions import (
    FactorMixture,
    FactorReturn,
    gaussian_factor_posterior,
    low_rank_evidence,
)
from nfi_pyro.errors import SpecError
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.svi import evaluate_objective
from nfi_pyro.svi.config import Objective

DATES, ASSETS, FACTORS, FEATURES, LAGS = 7, 5, 3, 11, 2
OBJECTIVES: list[Objective] = ["elbo", "marginal", "paper"]
VARIANTS = ["full", "prior", "port"]


def build(variant: str = "full") -> FactorVAE:
    spec = FactorVAESpec(
        n_features=FEATURES,
        lags=LAGS,
        projection_size=13,
        hidden_size=2,
        n_factors=FACTORS,
        n_portfolios=17,
        alpha_hidden_size=19,
        prior_hidden_size=23,
        variant=variant,  # type: ignore[arg-type]
    )
    return FactorVAE(spec, seed=1).double()


class NoSpec(BaseModel):
    """A hand-made model has no hyper-parameters."""


def only(observed: Tensor) -> Any:
    """Return a handler under which unobserved cells do not count."""
    return pyro.poutine.mask(mask=observed)  # type: ignore[call-overload]


class MixtureModel:
    """A hand-made model of two components whose context holds every number."""

    name = "hand made"
    spec = NoSpec()
    more_latents: tuple[str, ...] = ()

    def context(self, batch: PanelBatch) -> SimpleNamespace:
        raise NotImplementedError

    def law(self, context: SimpleNamespace) -> FactorMixture:
        return FactorMixture(
            context.logits, context.loc, context.scale, context.beta, context.m, context.s
        )

    def dates(self, context: SimpleNamespace) -> pyro.plate:
        return pyro.plate("date", context.n_dates, subsample=context.index, dim=-2)

    def model(self, context: SimpleNamespace, outcome: Outcome | None = None) -> None:
        assert outcome is not None
        with self.dates(context):
            z = pyro.sample("z", self.prior(context))
            for name in self.more_latents:
                pyro.sample(name, self.prior(context))
            with (
                pyro.plate("asset", context.beta.shape[1], dim=-1),
                only(outcome.observed),
            ):
                law = FactorReturn(self.law(context), z)
                pyro.sample("forward_return", law, obs=outcome.forward_return)

    def prior(self, context: SimpleNamespace) -> dist.TorchDistribution:
        return dist.Normal(context.m.unsqueeze(1), context.s.unsqueeze(1)).to_event(1)

    def guide(self, context: SimpleNamespace, outcome: Outcome) -> None:
        with self.dates(context):
            for name in ("z", *self.more_latents):
                pyro.sample(name, self.posterior(context))

    def posterior(self, context: SimpleNamespace) -> dist.TorchDistribution:
        return dist.Normal(context.q_loc.unsqueeze(1), context.q_scale.unsqueeze(1)).to_event(1)


def hand_made(n_dates_of_plate: int = DATES) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(8)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return SimpleNamespace(
        logits=normal(DATES, ASSETS, 2),
        loc=0.3 * normal(DATES, ASSETS, 2),
        scale=(0.2 * normal(DATES, ASSETS, 2)).exp(),
        beta=normal(DATES, ASSETS, FACTORS),
        m=normal(DATES, FACTORS),
        s=(0.3 * normal(DATES, FACTORS)).exp(),
        q_loc=normal(DATES, FACTORS),
        q_scale=0.2 * (0.3 * normal(DATES, FACTORS)).exp(),
        index=torch.arange(DATES),
        n_dates=n_dates_of_plate,
    )


def per_cell(terms, outcome: Outcome) -> float:
    """Return the negative objective summed over the block."""
    return float(terms.loss.detach()) * int(outcome.observed.sum())


# ---- against Pyro -------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [TraceMeanField_ELBO, Trace_ELBO])
@pytest.mark.parametrize("n_dates_of_plate", [DATES, 101])
def test_elbo_is_what_pyro_estimates_by_sampling(
    seeded, make_batch, estimator: type, n_dates_of_plate: int
) -> None:
    _, outcome = make_batch()
    context, model = hand_made(n_dates_of_plate), MixtureModel()
    with seeded(0):
        elbo = estimator()
        losses = np.array(
            [elbo.loss(model.model, model.guide, context, outcome) for _ in range(300)]
        )
        ours = evaluate_objective(model, context, outcome)
    # Pyro scales the block to the whole plate and sums over cells.
    ours_in_sum = per_cell(ours, outcome) * n_dates_of_plate / DATES
    error = losses.std() / math.sqrt(len(losses))
    assert abs(losses.mean() - ours_in_sum) < 4.0 * error
    assert error < 0.05 * abs(ours_in_sum)


@pytest.mark.parametrize("variant", ["full", "port"])
def test_elbo_of_factor_vae_is_what_pyro_estimates(seeded, make_batch, variant: str) -> None:
    batch, outcome = make_batch()
    model = build(variant)
    with torch.no_grad(), seeded(0):
        context = model.context(batch)
        elbo = TraceMeanField_ELBO()
        losses = np.array(
            [elbo.loss(model.model, model.guide, context, outcome) for _ in range(300)]
        )
        ours = evaluate_objective(model, context, outcome)
    error = losses.std() / math.sqrt(len(losses))
    assert abs(losses.mean() - per_cell(ours, outcome)) < 4.0 * error


def test_gradient_of_the_elbo_is_what_pyro_estimates(seeded, make_batch) -> None:
    _, outcome = make_batch()
    context, model = hand_made(), MixtureModel()
    leaves = [context.q_loc, context.q_scale, context.beta, context.m, context.s]
    for leaf in leaves:
        leaf.requires_grad_()
    with seeded(0):
        ours = torch.autograd.grad(evaluate_objective(model, context, outcome).loss, leaves)
        elbo = TraceMeanField_ELBO()
        draws = []
        for _ in range(300):
            loss = elbo.differentiable_loss(model.model, model.guide, context, outcome)
            gradients = torch.autograd.grad(loss / outcome.observed.sum(), leaves)
            draws.append(torch.cat([g.flatten() for g in gradients]))
    sampled = torch.stack(draws)
    error = sampled.std(0) / math.sqrt(len(sampled))
    distance = (sampled.mean(0) - torch.cat([g.flatten() for g in ours])).abs()
    # About 190 numbers: 4.5 standard errors; the rest of the slack is the quadrature's.
    assert (distance < 4.5 * error + 1e-5).all()


def test_the_objective_of_the_prior_variant_is_the_evidence(seeded, make_batch) -> None:
    batch, outcome = make_batch()
    model = build("prior")
    context = model.context(batch)
    terms = evaluate_objective(model, context, outcome)
    want = low_rank_evidence(
        outcome.forward_return - context.alpha_loc,
        outcome.observed,
        context.beta,
        context.specific_scale**2,
        context.prior_loc,
        context.prior_scale,
    ).sum()
    assert per_cell(terms, outcome) == pytest.approx(-float(want.detach()), rel=1e-12)
    assert terms.kl.shape == (0,)
    assert float(terms.elbo) == pytest.approx(-float(terms.loss.detach()), rel=1e-14)


def test_the_bound_is_tight_at_the_exact_posterior_and_below_elsewhere(make_batch) -> None:
    _, outcome = make_batch()
    context = hand_made()
    # One component, written twice; a prior in the family of the full-covariance guide.
    context.loc, context.scale = context.loc[..., :1], context.scale[..., :1]
    context.logits = context.logits[..., :1]

    class Exact(MixtureModel):
        def prior(self, context: SimpleNamespace) -> dist.TorchDistribution:
            root = torch.diag_embed(context.s).unsqueeze(1)
            return dist.MultivariateNormal(context.m.unsqueeze(1), scale_tril=root)

        def posterior(self, context: SimpleNamespace) -> dist.TorchDistribution:
            loc, root = context.q.loc + context.shift, context.q.scale_tril
            return dist.MultivariateNormal(loc.unsqueeze(1), scale_tril=root.unsqueeze(1))

    arguments = (
        outcome.forward_return - context.loc[..., 0],
        outcome.observed,
        context.beta,
        context.scale[..., 0] ** 2,
        context.m,
        context.s,
    )
    context.q, context.shift = gaussian_factor_posterior(*arguments), 0.0
    evidence = float(low_rank_evidence(*arguments).sum())
    with torch.random.fork_rng(devices=[]):
        tight = evaluate_objective(Exact(), context, outcome)
        context.shift = 0.3
        loose = evaluate_objective(Exact(), context, outcome)
    assert -per_cell(tight, outcome) == pytest.approx(evidence, rel=1e-10)
    assert -per_cell(loose, outcome) < evidence - 0.1


# ---- units and weights --------------------------------------------------------------------------


def test_terms_are_in_the_units_they_say(seeded, make_batch) -> None:
    _, outcome = make_batch()
    context, model = hand_made(), MixtureModel()
    with seeded(0):
        terms = evaluate_objective(model, context, outcome, kl_weight=1.0)
    q = dist.Normal(context.q_loc, context.q_scale)
    kl = kl_divergence(q, dist.Normal(context.m, context.s))  # (date, factor)
    torch.testing.assert_close(terms.kl, kl.mean(0), rtol=1e-12, atol=0)
    cells = model.law(context).expected_log_prob(outcome.forward_return, q.to_event(1))
    n_cells = int(outcome.observed.sum())
    likelihood = float(cells[outcome.observed].sum()) / n_cells
    assert float(terms.log_likelihood) == pytest.approx(likelihood, rel=1e-12)
    want = likelihood - float(kl.sum()) / n_cells
    assert float(terms.elbo) == pytest.approx(want, rel=1e-12)
    assert float(terms.loss) == pytest.approx(-want, rel=1e-12)


@pytest.mark.parametrize("objective", ["elbo", "marginal"])
def test_kl_weight_multiplies_the_sum_over_factors_and_not_the_report(
    seeded, make_batch, objective: Objective
) -> None:
    _, outcome = make_batch()
    context, model = hand_made(), MixtureModel()
    with seeded(0):
        weighted = [
            evaluate_objective(model, context, outcome, objective=objective, kl_weight=w)
            for w in (0.0, 1.0, 0.25)
        ]
    n_cells, n_dates = int(outcome.observed.sum()), DATES
    whole = float(weighted[1].kl.sum()) * n_dates / n_cells
    assert whole > 0.1
    assert float(weighted[0].loss) == pytest.approx(-float(weighted[0].log_likelihood), rel=1e-13)
    assert float(weighted[1].loss - weighted[0].loss) == pytest.approx(whole, rel=1e-12)
    assert float(weighted[2].loss - weighted[0].loss) == pytest.approx(0.25 * whole, rel=1e-12)
    assert len({float(terms.elbo) for terms in weighted}) == 1


def test_paper_is_equation_seventeen(seeded, make_batch) -> None:
    _, outcome = make_batch()
    context, model = hand_made(), MixtureModel()
    gamma = 0.37
    with seeded(0):
        terms = evaluate_objective(model, context, outcome, objective="paper", kl_weight=gamma)
    q = dist.Normal(context.q_loc, context.q_scale)
    cells = model.law(context).marginal_log_prob(outcome.forward_return, q.to_event(1))
    kl = kl_divergence(q, dist.Normal(context.m, context.s)).sum(1)
    by_date = []
    for date in range(DATES):
        there = outcome.observed[date]
        by_date.append(float(gamma * kl[date] - cells[date, there].mean()))
    assert outcome.observed.any(1).all()
    assert outcome.observed.sum(1).unique().numel() > 1  # the average is over N_t, not over N
    assert float(terms.loss) == pytest.approx(sum(by_date) / DATES, rel=1e-12)


def test_paper_with_one_over_n_is_the_marginal_objective_per_cell(seeded, make_batch) -> None:
    _, outcome = make_batch(missing=False)
    context, model = hand_made(), MixtureModel()
    with seeded(0):
        paper = evaluate_objective(
            model, context, outcome, objective="paper", kl_weight=1.0 / ASSETS
        )
        marginal = evaluate_objective(model, context, outcome, objective="marginal")
        elbo = evaluate_objective(model, context, outcome)
    assert float(paper.loss) == pytest.approx(float(marginal.loss), rel=1e-13)
    assert float(marginal.log_likelihood) > float(elbo.log_likelihood) + 1e-3  # Jensen


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_subsampled_plate_leaves_the_loss_per_cell_unchanged(
    seeded, make_batch, objective: Objective
) -> None:
    _, outcome = make_batch()
    model = MixtureModel()
    with seeded(0):
        block = evaluate_objective(model, hand_made(DATES), outcome, objective=objective)
        of_many = evaluate_objective(model, hand_made(1009), outcome, objective=objective)
    assert torch.equal(block.loss, of_many.loss)
    assert torch.equal(block.elbo, of_many.elbo)


@pytest.mark.parametrize("variant", VARIANTS)
def test_blocks_of_dates_add_up(make_batch, variant: str) -> None:
    batch, outcome = make_batch()
    model = build(variant)

    def total(start: int, stop: int) -> float:
        part = PanelBatch(
            batch.features[start : stop + LAGS - 1],
            batch.tradable[start:stop],
            torch.arange(start, stop),
            DATES,
        )
        own = Outcome(outcome.forward_return[start:stop], outcome.observed[start:stop])
        with torch.random.fork_rng(devices=[]):
            return per_cell(evaluate_objective(model, model.context(part), own), own)

    assert total(0, 3) + total(3, DATES) == pytest.approx(total(0, DATES), rel=1e-11)


# ---- what is missing ----------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("gap", ["date", "asset", "everything", "untradable date"])
def test_gradients_are_finite_with_whole_dates_and_assets_missing(
    make_batch, variant: str, objective: Objective, gap: str
) -> None:
    batch, outcome = make_batch()
    observed, tradable = outcome.observed.clone(), batch.tradable.clone()
    if gap == "date":
        observed[3] = False
    elif gap == "asset":
        observed[:, 2] = tradable[:, 2] = False
    elif gap == "everything":
        observed[:] = False
    else:
        observed[3] = tradable[3] = False
    batch = PanelBatch(batch.features, tradable, batch.date_index, batch.n_dates)
    outcome = Outcome(torch.where(observed, outcome.forward_return, 0.0), observed)
    model = build(variant)
    with torch.random.fork_rng(devices=[]):
        terms = evaluate_objective(model, model.context(batch), outcome, objective=objective)
    terms.loss.backward()
    assert torch.isfinite(terms.loss)
    assert torch.isfinite(terms.elbo)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fill", [7.0, -1e6])
def test_what_fills_unobserved_cells_does_not_matter(
    make_batch, variant: str, objective: Objective, fill: float
) -> None:
    batch, outcome = make_batch()
    other = Outcome(torch.where(outcome.observed, outcome.forward_return, fill), outcome.observed)
    # A feature counts for an asset if it is tradable at any date whose window holds the feature.
    used = torch.zeros(DATES + LAGS - 1, ASSETS, dtype=torch.bool)
    for lag in range(LAGS):
        used[lag : lag + DATES] |= batch.tradable
    assert not used.all()
    features = torch.where(used.unsqueeze(-1), batch.features, min(fill, 100.0))
    refilled = PanelBatch(features, batch.tradable, batch.date_index, batch.n_dates)
    model = build(variant)
    results = []
    for one, what in ((batch, outcome), (refilled, other)):
        model.zero_grad()
        with torch.random.fork_rng(devices=[]):
            terms = evaluate_objective(model, model.context(one), what, objective=objective)
        terms.loss.backward()
        results.append((terms.loss, [p.grad.clone() for p in model.parameters()]))  # type: ignore[union-attr]
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-13, atol=0)
    for before, after in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(before, after, rtol=1e-11, atol=1e-14)


def test_one_observed_return_does_matter(make_batch) -> None:
    batch, outcome = make_batch()
    model = build()
    date, asset = outcome.observed.nonzero()[0].tolist()
    moved = outcome.forward_return.clone()
    moved[date, asset] += 1e-3
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        context = model.context(batch)
        before = evaluate_objective(model, context, outcome)
        after = evaluate_objective(model, context, Outcome(moved, outcome.observed))
    assert abs(float(before.loss - after.loss)) > 1e-6


# ---- sites --------------------------------------------------------------------------------------


def test_every_latent_site_counts_its_kl(seeded, make_batch) -> None:
    _, outcome = make_batch()
    context = hand_made()

    class TwoLatents(MixtureModel):
        more_latents = ("extra",)

    with seeded(0):
        one = evaluate_objective(MixtureModel(), context, outcome)
        two = evaluate_objective(TwoLatents(), context, outcome)
    torch.testing.assert_close(two.kl, torch.cat([one.kl, one.kl]), rtol=1e-13, atol=0)
    assert float(one.elbo - two.elbo) == pytest.approx(
        float(one.kl.sum()) * DATES / int(outcome.observed.sum()), rel=1e-12
    )


def test_a_latent_without_closed_form_kl_is_refused(seeded, make_batch) -> None:
    _, outcome = make_batch()

    class Odd(MixtureModel):
        def posterior(self, context: SimpleNamespace) -> dist.TorchDistribution:
            return dist.StudentT(5.0, context.q_loc, context.q_scale).to_event(1)

        def prior(self, context: SimpleNamespace) -> dist.TorchDistribution:
            return dist.MultivariateNormal(
                context.m.unsqueeze(1), torch.eye(FACTORS, dtype=torch.float64)
            )

    context = hand_made()
    context.q_loc, context.q_scale = context.q_loc.unsqueeze(1), context.q_scale.unsqueeze(1)
    with seeded(0), pytest.raises(SpecError, match="site 'z' must have a closed-form KL; got"):
        evaluate_objective(Odd(), context, outcome)


def test_a_site_without_integrals_counts_its_log_prob(seeded, make_batch) -> None:
    _, outcome = make_batch()

    class Plain(MixtureModel):
        def model(self, context: SimpleNamespace, outcome: Outcome | None = None) -> None:
            assert outcome is not None
            with (
                self.dates(context),
                pyro.plate("asset", ASSETS, dim=-1),
                only(outcome.observed),
            ):
                pyro.sample("r", dist.Normal(context.loc[..., 0], 1.0), obs=outcome.forward_return)

        def guide(self, context: SimpleNamespace, outcome: Outcome) -> None:
            """Nothing is latent."""

    context = hand_made()
    terms = evaluate_objective(Plain(), context, outcome)
    cells = dist.Normal(context.loc[..., 0], 1.0).log_prob(outcome.forward_return)
    want = float(cells[outcome.observed].mean())
    assert float(terms.loss) == pytest.approx(-want, rel=1e-12)
    assert terms.kl.shape == (0,)
