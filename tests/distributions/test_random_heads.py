"""Random last layers: prior, guide, KL, and the block's share of it, against closed forms."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributions import Independent, Laplace, MultivariateNormal, kl_divergence

from nfi_pyro.data.training.windows import PanelBatch
from nfi_pyro.distributions.heads import SITE, HeadPosterior, HeadSpec
from nfi_pyro.errors import SpecError
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.svi import evaluate_objective

KINDS = ("low_rank", "full")


class Owner(nn.Module):
    """Two last layers, the second with a bias that does not start at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(7, 3)
        self.second = nn.Linear(5, 1)
        with torch.no_grad():
            self.second.bias.fill_(-2.0)


GROUPS = {
    "alpha": ("first.weight", "first.bias"),
    "noise": ("second.weight", "second.bias"),
}
N_WEIGHTS = 24 + 6


def make(kind: str, **options: float) -> tuple[Owner, HeadPosterior]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        owner = Owner().double()
        spec = HeadSpec.model_validate({"kind": kind, "rank": 3, **options})
        return owner, HeadPosterior(owner, GROUPS, spec).double()  # type: ignore[arg-type]


def spread_out(heads: HeadPosterior) -> HeadPosterior:
    """Return heads whose guide has a covariance worth testing."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in heads.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * noise)
    return heads


@pytest.mark.parametrize("kind", KINDS)
def test_the_divergence_is_that_of_dense_normals(kind: str) -> None:
    heads = spread_out(make(kind)[1])
    guide = heads.guide()
    dense = MultivariateNormal(guide.mean, guide.covariance_matrix)
    eye = torch.eye(heads.size, dtype=torch.float64)
    standard = MultivariateNormal(torch.zeros(heads.size, dtype=torch.float64), eye)
    found = kl_divergence(guide, heads.prior())
    torch.testing.assert_close(found, kl_divergence(dense, standard), rtol=1e-10, atol=0)
    assert found > 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_prior_of_another_family_has_no_closed_form(kind: str) -> None:
    heads = make(kind)[1]
    zero = torch.zeros(heads.size, dtype=torch.float64)
    with pytest.raises(NotImplementedError):
        kl_divergence(heads.guide(), Independent(Laplace(zero, zero + 1.0), 1))


def test_the_full_guide_has_its_own_covariance_and_the_low_rank_one_the_stated_rank() -> None:
    full, low = spread_out(make("full")[1]).guide(), spread_out(make("low_rank")[1]).guide()
    off = full.covariance_matrix - torch.diag(full.covariance_matrix.diagonal())
    assert torch.linalg.matrix_rank(off) > 10
    shared = low.covariance_matrix - torch.diag(low.cov_diag)
    assert torch.linalg.matrix_rank(shared, atol=1e-8) == 3


def test_weights_have_the_stated_hierarchical_prior() -> None:
    owner, heads = make("full", alpha_scale=0.2, noise_scale=0.5)
    n = 4_000
    draws = heads.draw_prior(n, seed=3)
    scales = heads.scales(draws)  # (draw, group)
    # log tau ~ N(log median, 1): the median of n draws has an s.e. of 1.25 / sqrt(n)
    error = 4.0 * 1.2533 / math.sqrt(n)
    assert scales.log().median(0).values == pytest.approx([math.log(0.2), math.log(0.5)], abs=error)
    weights = torch.stack([heads.weights(draw)["first.weight"] for draw in draws])
    unit = weights / scales[:, :1, None]
    assert float(unit.mean()) == pytest.approx(0.0, abs=4.0 / math.sqrt(unit.numel()))
    assert float(unit.std()) == pytest.approx(1.0, abs=4.0 / math.sqrt(2.0 * unit.numel()))
    bias = torch.stack([heads.weights(draw)["second.bias"] for draw in draws]).squeeze(-1)
    centred = (bias - owner.second.bias) / scales[:, 1]
    assert float(centred.mean()) == pytest.approx(0.0, abs=4.0 / math.sqrt(n))


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_at_the_layers_and_settles_back_into_them(kind: str) -> None:
    owner, heads = make(kind)
    before = {name: value.clone() for name, value in owner.state_dict().items()}
    for name, value in heads.weights(heads.loc).items():
        torch.testing.assert_close(value, before[name], rtol=1e-12, atol=1e-15)
    assert not any(p.requires_grad for p in owner.parameters())
    with torch.no_grad():
        heads.loc[:N_WEIGHTS] += 1.0
    heads.settle(owner)
    alpha = 0.1 * torch.ones(3, 7, dtype=torch.float64)
    torch.testing.assert_close(owner.first.weight - before["first.weight"], alpha)
    moved = owner.second.bias - before["second.bias"]
    torch.testing.assert_close(moved, 0.3 * torch.ones(1, dtype=torch.float64))


def test_draws_are_seeded_and_have_the_guides_moments() -> None:
    heads = spread_out(make("low_rank")[1])
    one, two, other = (heads.draw(20_000, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    guide = heads.guide()
    error = 4.0 * guide.stddev / math.sqrt(len(one))
    assert ((one.mean(0) - guide.mean).abs() < error).all()
    torch.testing.assert_close(one.std(0), guide.stddev, rtol=0.03, atol=0)


def test_options_out_of_range_are_refused() -> None:
    for wrong in ({"kind": "mean_field"}, {"rank": 0}, {"alpha_scale": 0.0}, {"start_scale": 2.0}):
        with pytest.raises(ValidationError):
            HeadSpec.model_validate(wrong)
    assert not HeadSpec().bayesian


# ---- in a model ----------------------------------------------------------------------------------


def model_of(kind: str, **options: object) -> FactorVAE:
    spec = FactorVAESpec(
        n_features=11,
        lags=2,
        projection_size=5,
        hidden_size=3,
        n_factors=2,
        n_portfolios=7,
        alpha_hidden_size=5,
        prior_hidden_size=5,
        heads=HeadSpec.model_validate({"kind": kind, "rank": 3, **options}),
    )
    return FactorVAE(spec, seed=4).double()


def test_at_the_start_the_law_is_that_of_point_heads(make_batch) -> None:
    batch, _ = make_batch()
    random, point = model_of("full"), model_of("point")
    assert random.heads is not None
    for heads in (None, random.heads.loc.detach()):
        one, two = random.law(random.context(batch), heads), point.law(point.context(batch))
        for name in ("loc", "scale", "beta", "factor_loc", "factor_scale"):
            torch.testing.assert_close(getattr(one, name), getattr(two, name), msg=name)


def test_another_draw_is_another_law(make_batch) -> None:
    batch, _ = make_batch()
    model = model_of("full", start_scale=0.5)
    assert model.heads is not None
    context = model.context(batch)
    one, two = (model.law(context, draw) for draw in model.heads.draw(2, seed=0))
    for name in ("loc", "scale", "beta", "factor_loc", "factor_scale"):
        assert (getattr(one, name) != getattr(two, name)).any(), name


@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_a_block_bears_its_share_of_the_heads_divergence(make_batch, kl_weight: float) -> None:
    batch, outcome = make_batch()
    n_dates, n_total = 7, 41
    part = PanelBatch(batch.features, batch.tradable, batch.date_index, n_total)
    model = model_of("low_rank")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        terms = evaluate_objective(model, model.context(part), outcome, kl_weight=kl_weight)
    assert model.heads is not None
    divergence = kl_divergence(model.heads.guide(), model.heads.prior())
    torch.testing.assert_close(terms.heads_kl, divergence.detach())
    assert divergence > 1.0
    cells = float(outcome.observed.sum())
    whole: Tensor = n_dates * terms.kl.sum() + n_dates / n_total * divergence
    torch.testing.assert_close(terms.loss, kl_weight * whole / cells - terms.log_likelihood)
    torch.testing.assert_close(terms.elbo, terms.log_likelihood - whole.detach() / cells)


def test_point_heads_have_no_site_and_no_divergence(make_batch) -> None:
    batch, outcome = make_batch()
    model = model_of("point")
    assert model.heads is None
    assert not any(SITE in name for name in model.state_dict())
    with torch.random.fork_rng(devices=[]):
        terms = evaluate_objective(model, model.context(batch), outcome)
    assert terms.heads_kl == 0.0


def test_a_draw_for_point_heads_is_refused_not_ignored(make_batch) -> None:
    batch, _ = make_batch()
    model = model_of("point")
    with pytest.raises(SpecError, match=r"draw of last layers must be of random ones; got point"):
        model.law(model.context(batch), torch.zeros(7, dtype=torch.float64))


def test_the_law_at_the_location_does_not_train_the_layers(make_batch) -> None:
    batch, outcome = make_batch()
    model = model_of("low_rank")
    context = model.context(batch)
    assert not context.beta.requires_grad
    with torch.random.fork_rng(devices=[]):
        evaluate_objective(model, context, outcome).loss.backward()
    assert model.beta.weight.grad is None
    assert model.extractor.projection.weight.grad is not None
