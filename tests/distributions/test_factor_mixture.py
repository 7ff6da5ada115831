"""Returns that share factors: quadrature, integration and covariance against dense truths."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from pyro.distributions import LowRankMultivariateNormal as PyroLowRank
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from nfi_pyro.distributions import FactorMixture, FactorReturn, MixtureOfNormals
from nfi_pyro.distributions.factor_mixture import independent_normal
from nfi_pyro.errors import ShapeError, SpecError

DATES, ASSETS, FACTORS = 7, 5, 3
DRAWS = 20_000


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def build(n_components: int, seed: int = 0) -> FactorMixture:
    shape = (DATES, ASSETS, n_components)
    return FactorMixture(
        normal(*shape, seed=seed),
        0.4 * normal(*shape, seed=seed + 1),
        (0.3 * normal(*shape, seed=seed + 2)).exp(),
        normal(DATES, ASSETS, FACTORS, seed=seed + 3),
        normal(DATES, FACTORS, seed=seed + 4),
        (0.4 * normal(DATES, FACTORS, seed=seed + 5)).exp(),
    )


def value() -> Tensor:
    return 1.5 * normal(DATES, ASSETS, seed=31)


def diagonal_q() -> Independent:
    scale = (0.3 * normal(DATES, FACTORS, seed=42)).exp() * 0.15
    return Independent(Normal(normal(DATES, FACTORS, seed=41), scale), 1)


def full_q() -> MultivariateNormal:
    root = 0.12 * normal(DATES, FACTORS, FACTORS, seed=43)
    covariance = root @ root.transpose(-1, -2) + 0.005 * torch.eye(FACTORS, dtype=torch.float64)
    return MultivariateNormal(normal(DATES, FACTORS, seed=44), covariance)


def draw(q: Distribution, seeded) -> Tensor:
    with seeded(12):
        return q.sample(torch.Size([DRAWS]))  # (draw, date, factor)


def log_given(law: FactorMixture, z: Tensor) -> Tensor:
    """Return log p(value | z) for draws of z, (draw, date, asset), by the definition."""
    shift = torch.einsum("dak,sdk->sda", law.beta, z)
    log_weights = torch.log_softmax(law.logits, -1)
    parts = Normal(law.loc + shift.unsqueeze(-1), law.scale).log_prob(value().unsqueeze(-1))
    return torch.logsumexp(log_weights + parts, -1)


@pytest.mark.parametrize("q", [diagonal_q(), full_q()], ids=["diagonal", "full"])
@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_expected_log_prob_equals_monte_carlo(seeded, n_components: int, q: Distribution) -> None:
    law = build(n_components)
    samples = log_given(law, draw(q, seeded))
    error = samples.std(0) / math.sqrt(DRAWS)
    distance = (law.expected_log_prob(value(), q) - samples.mean(0)).abs()
    assert (distance < 4.0 * error).all()


@pytest.mark.parametrize("n_components", [2, 3])
def test_seven_nodes_are_enough_where_the_posterior_is_narrower_than_the_noise(
    n_components: int,
) -> None:
    law, q = build(n_components), diagonal_q()
    shift, variance = law.project_factors(q)
    assert float((variance.sqrt() / law.scale.amin(-1)).max()) < 1.1
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    want = torch.zeros(DATES, ASSETS, dtype=torch.float64)
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        moved = law.loc + (shift + node * variance.sqrt()).unsqueeze(-1)
        conditional = MixtureOfNormals(law.logits, moved, law.scale)
        want += weight * conditional.log_prob(value())
    torch.testing.assert_close(law.expected_log_prob(value(), q), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("q", [diagonal_q(), full_q()], ids=["diagonal", "full"])
def test_expected_log_prob_at_one_component_is_closed_form(q: Distribution) -> None:
    law = build(1)
    got = law.expected_log_prob(value(), q)
    covariance = (
        q.covariance_matrix if isinstance(q, MultivariateNormal) else torch.diag_embed(q.variance)
    )
    for date in range(DATES):
        for asset in range(ASSETS):
            b, s = law.beta[date, asset], law.scale[date, asset, 0]
            error = value()[date, asset] - law.loc[date, asset, 0] - b @ q.mean[date]
            want = Normal(0.0, s).log_prob(error) - 0.5 * b @ covariance[date] @ b / s**2
            torch.testing.assert_close(got[date, asset], want, rtol=1e-12, atol=1e-13)


def test_quadrature_of_equal_components_is_the_closed_form_of_one() -> None:
    one = build(1)
    twins = FactorMixture(
        normal(DATES, ASSETS, 2, seed=5),
        one.loc.expand(-1, -1, 2),
        one.scale.expand(-1, -1, 2),
        one.beta,
        one.factor_loc,
        one.factor_scale,
    )
    for q in (diagonal_q(), full_q()):
        torch.testing.assert_close(
            twins.expected_log_prob(value(), q),
            one.expected_log_prob(value(), q),
            rtol=1e-12,
            atol=1e-12,
        )


def test_gradient_of_the_quadrature_is_finite_and_right() -> None:
    law = build(2)
    loc = 0.3 * normal(DATES, FACTORS, seed=50)
    scale = 0.3 + normal(DATES, FACTORS, seed=51).square()
    beta = law.beta.clone()

    def expected(beta: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        law.beta = beta
        return law.expected_log_prob(value(), Independent(Normal(loc, scale), 1))

    leaves = tuple(t.requires_grad_() for t in (beta, loc, scale))
    assert torch.autograd.gradcheck(expected, leaves, atol=1e-7, fast_mode=True)


def test_low_rank_q_counts_its_covariances() -> None:
    law, factor = build(2), 0.5 * normal(DATES, FACTORS, 1, seed=60)
    diagonal, loc = torch.full((DATES, FACTORS), 0.04).double(), normal(DATES, FACTORS, seed=61)
    dense = MultivariateNormal(loc, factor @ factor.mT + torch.diag_embed(diagonal))
    for q in (LowRankMultivariateNormal(loc, factor, diagonal), PyroLowRank(loc, factor, diagonal)):
        torch.testing.assert_close(
            law.expected_log_prob(value(), q),
            law.expected_log_prob(value(), dense),
            rtol=1e-11,
            atol=1e-12,
        )


@pytest.mark.parametrize("n_components", [1, 3])
def test_marginal_density_equals_monte_carlo(seeded, n_components: int) -> None:
    law = build(n_components)
    prior = Independent(Normal(law.factor_loc, law.factor_scale), 1)
    densities = log_given(law, draw(prior, seeded)).exp()
    error = densities.std(0) / math.sqrt(DRAWS)
    distance = (law.marginal().log_prob(value()).exp() - densities.mean(0)).abs()
    assert (distance < 4.0 * error).all()
    torch.testing.assert_close(
        law.marginal_log_prob(value()), law.marginal().log_prob(value()), rtol=0, atol=0
    )


def test_marginal_under_a_full_covariance_equals_monte_carlo(seeded) -> None:
    law, q = build(2), full_q()
    densities = log_given(law, draw(q, seeded)).exp()
    error = densities.std(0) / math.sqrt(DRAWS)
    distance = (law.marginal_log_prob(value(), q).exp() - densities.mean(0)).abs()
    assert (distance < 4.0 * error).all()


def test_marginal_moments_at_one_component_are_equation_twelve() -> None:
    law = build(1)
    marginal = law.marginal()
    mean = law.loc[..., 0] + torch.einsum("dak,dk->da", law.beta, law.factor_loc)
    variance = law.scale[..., 0] ** 2 + torch.einsum("dak,dk->da", law.beta**2, law.factor_scale**2)
    torch.testing.assert_close(marginal.mean, mean, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(marginal.variance, variance, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("q", [diagonal_q(), full_q()], ids=["diagonal", "full"])
@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_the_marginal_term_is_never_below_the_expected_one(
    n_components: int, q: Distribution
) -> None:
    law = build(n_components)
    gap = law.marginal_log_prob(value(), q) - law.expected_log_prob(value(), q)
    assert float(gap.min()) > -1e-3  # Jensen, up to the quadrature's error
    assert float(gap.max()) > 0.1


def test_covariance_is_the_dense_formula() -> None:
    law = build(3)
    loadings, specific = law.covariance()
    weights = torch.softmax(law.logits, -1)
    centre = (weights * law.loc).sum(-1, keepdim=True)
    for date in range(DATES):
        b, s = law.beta[date], torch.diag(law.factor_scale[date] ** 2)
        own = (weights * (law.scale**2 + (law.loc - centre) ** 2)).sum(-1)[date]
        dense = b @ s @ b.T + torch.diag(own)
        got = loadings[date] @ loadings[date].T + torch.diag(specific[date])
        torch.testing.assert_close(got, dense, rtol=1e-12, atol=1e-13)
    diagonal = (loadings**2).sum(-1) + specific
    torch.testing.assert_close(diagonal, law.marginal().variance, rtol=1e-12, atol=1e-13)


def test_covariance_equals_monte_carlo_of_joint_draws(seeded) -> None:
    law = build(2)
    with seeded(3):
        z = Independent(Normal(law.factor_loc, law.factor_scale), 1).sample(torch.Size([4_000]))
        returns = law.given(z).sample()  # one z per draw and date, shared by the assets
    centred = returns - law.marginal().mean
    products = centred[:, :, :, None] * centred[:, :, None, :]  # (draw, date, asset, asset)
    loadings, specific = law.covariance()
    dense = loadings @ loadings.mT + torch.diag_embed(specific)
    error = products.std(0) / math.sqrt(len(products))
    distance = (products.mean(0) - dense).abs() / error
    assert float(distance.max()) < 4.5


@pytest.mark.parametrize("q", [diagonal_q(), full_q()], ids=["diagonal", "full"])
def test_the_covariance_under_given_factors_is_the_dense_formula(q: Distribution) -> None:
    law, book = build(3), normal(ASSETS, seed=80)
    full = q.covariance_matrix if isinstance(q, MultivariateNormal) else q.variance.diag_embed()
    dense = law.beta @ full @ law.beta.mT + torch.diag_embed(law.specific_variance)
    got = law.covariance_operator(q)
    torch.testing.assert_close(got.dense(), dense, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(
        got.quadratic(book), torch.einsum("a,dab,b->d", book, dense, book), rtol=1e-11, atol=0
    )
    torch.testing.assert_close(
        got.variance, law.integrated(*law.project_factors(q)).variance, rtol=1e-12, atol=1e-13
    )


def test_portfolio_variance_is_that_of_joint_draws() -> None:
    law, book, n = build(2), 0.2 + 0.1 * normal(ASSETS, seed=81), 40_000
    returns = law.draw(n, seed=9) @ book  # (draw, date)
    mean = law.marginal().mean @ book
    squares = (returns - mean).square()
    error = squares.std(0) / math.sqrt(n)
    assert ((squares.mean(0) - law.covariance_operator().quadratic(book)).abs() < 4 * error).all()
    assert ((returns.mean(0) - mean).abs() < 4 * returns.std(0) / math.sqrt(n)).all()
    assert torch.equal(law.draw(3, seed=9), law.draw(3, seed=9))
    assert law.draw(3, seed=9).shape == (3, DATES, ASSETS)


@pytest.mark.parametrize("q", [None, diagonal_q(), full_q()], ids=["prior", "diagonal", "full"])
def test_the_joint_density_of_one_component_is_the_dense_gaussian(q: Distribution | None) -> None:
    law = build(1)
    loc = law.factor_loc if q is None else q.mean
    mean = law.loc[..., 0] + torch.einsum("dak,dk->da", law.beta, loc)
    dense = MultivariateNormal(mean, law.covariance_operator(q).dense())
    torch.testing.assert_close(
        law.joint_log_prob(value(), factors=q), dense.log_prob(value()), rtol=1e-10, atol=1e-10
    )
    alone = torch.zeros(DATES, ASSETS, dtype=torch.bool)
    alone[:, 3] = True
    torch.testing.assert_close(
        law.joint_log_prob(torch.where(alone, value(), 1e6), alone, q),
        law.marginal_log_prob(value(), q)[:, 3],
        rtol=1e-11,
        atol=1e-12,
    )


def test_the_joint_density_of_several_components_is_refused() -> None:
    with pytest.raises(SpecError, match="must have one component; got 3"):
        build(3).joint_log_prob(value())


def moved(law: FactorMixture, **changes: Tensor) -> FactorMixture:
    names = ("logits", "loc", "scale", "beta", "factor_loc", "factor_scale")
    return FactorMixture(*(changes.get(name, getattr(law, name)) for name in names))


def assert_same_law(one: FactorMixture, other: FactorMixture, q_one=None, q_other=None) -> None:
    """Marginals, covariance and, at one component, the joint density."""
    near = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
    near(one.marginal_log_prob(value(), q_one), other.marginal_log_prob(value(), q_other))
    dense = (law.covariance_operator(q).dense() for law, q in ((one, q_one), (other, q_other)))
    near(*dense)
    if one.loc.shape[-1] == 1:
        joint = one.joint_log_prob(value(), factors=q_one)
        near(joint, other.joint_log_prob(value(), factors=q_other))


@pytest.mark.parametrize("n_components", [1, 3])
def test_a_shift_between_alpha_and_the_factors_leaves_the_law(n_components: int) -> None:
    law, c = build(n_components), normal(DATES, FACTORS, seed=90)
    shifted = moved(
        law,
        loc=law.loc - torch.einsum("dak,dk->da", law.beta, c).unsqueeze(-1),
        factor_loc=law.factor_loc + c,
    )
    assert_same_law(law, shifted)
    q, q_shifted = full_q(), MultivariateNormal(full_q().mean + c, full_q().covariance_matrix)
    torch.testing.assert_close(
        law.expected_log_prob(value(), q, 21),
        shifted.expected_log_prob(value(), q_shifted, 21),
        rtol=1e-10,
        atol=1e-10,
    )


@pytest.mark.parametrize("n_components", [1, 3])
def test_a_change_of_factor_coordinates_leaves_the_law(n_components: int) -> None:
    """beta -> A^-T beta, z -> A z: a scaled permutation keeps S diagonal, any A needs all of S."""
    law = build(n_components)
    order, size = torch.tensor([2, 0, 1]), torch.tensor([0.5, -3.0, 1.7], dtype=torch.float64)
    swapped = moved(
        law,
        beta=law.beta[..., order] / size,
        factor_loc=law.factor_loc[..., order] * size,
        factor_scale=law.factor_scale[..., order] * size.abs(),
    )
    assert_same_law(law, swapped)
    a = normal(FACTORS, FACTORS, seed=91) + 2.0 * torch.eye(FACTORS, dtype=torch.float64)
    turned = moved(law, beta=law.beta @ torch.linalg.inv(a))
    prior = torch.diag_embed(law.factor_scale.square())
    q = MultivariateNormal(law.factor_loc @ a.T, a @ prior @ a.T)
    assert_same_law(law, turned, None, q)


@pytest.mark.parametrize("shape", [(DATES, FACTORS), (DATES, 1, FACTORS)])
def test_the_site_is_the_law_given_z(seeded, shape: tuple[int, ...]) -> None:
    law, z = build(2), normal(DATES, FACTORS, seed=70)
    site = FactorReturn(law, z.view(shape))
    assert site.batch_shape == (DATES, ASSETS)
    want = log_given(law, z.unsqueeze(0))[0]
    torch.testing.assert_close(site.log_prob(value()), want, rtol=1e-12, atol=1e-13)
    q = independent_normal(z.view(shape), torch.full(shape, 0.3, dtype=torch.float64))
    flat = Independent(Normal(z, torch.full_like(z, 0.3)), 1)
    assert torch.equal(site.expected_log_prob(value(), q), law.expected_log_prob(value(), flat))
    assert torch.equal(site.marginal_log_prob(value(), q), law.marginal_log_prob(value(), flat))
    with seeded(0):
        assert site.sample(torch.Size([11])).shape == (11, DATES, ASSETS)
    assert site.expand((DATES, ASSETS)) is site


def test_shapes_that_disagree_are_refused() -> None:
    law = build(1)
    with pytest.raises(ShapeError, match="same number of factors; got 3, 2 and 2"):
        FactorMixture(
            law.logits,
            law.loc,
            law.scale,
            law.beta,
            law.factor_loc[:, :2],
            law.factor_scale[:, :2],
        )
    with pytest.raises(ShapeError, match="must have the plates' shape; got"):
        FactorReturn(law, law.factor_loc).expand((11, DATES, ASSETS))
