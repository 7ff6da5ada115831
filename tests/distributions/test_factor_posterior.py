"""Exact factor posteriors and evidence against dense Gaussian algebra."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from nfi_pyro.distributions import FactorMixture, gaussian_factor_posterior, low_rank_evidence

DATES, ASSETS, FACTORS, EMPTY = 7, 5, 3, 4


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def problem(n_assets: int = ASSETS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    observed = torch.rand(DATES, n_assets, generator=generator) > 0.3
    observed[EMPTY] = False
    return {
        "residual": normal(DATES, n_assets, seed=1),
        "observed": observed,
        "beta": normal(DATES, n_assets, FACTORS, seed=2),
        "specific_variance": (0.5 * normal(DATES, n_assets, seed=3)).exp(),
        "factor_loc": normal(DATES, FACTORS, seed=4),
        "factor_scale": (0.5 * normal(DATES, FACTORS, seed=5)).exp(),
    }


@pytest.mark.parametrize("n_assets", [1, ASSETS, 101])
def test_posterior_is_dense_gaussian_conditioning(n_assets: int) -> None:
    given = problem(n_assets)
    posterior = gaussian_factor_posterior(**given)
    assert posterior.batch_shape == (DATES,)
    for date in range(DATES):
        there = given["observed"][date]
        b, v = given["beta"][date, there], given["specific_variance"][date, there]
        m, prior = given["factor_loc"][date], torch.diag(given["factor_scale"][date] ** 2)
        covariance = b @ prior @ b.T + torch.diag(v)
        gain = prior @ b.T @ torch.linalg.inv(covariance)
        want_loc = m + gain @ (given["residual"][date, there] - b @ m)
        want_covariance = prior - gain @ b @ prior
        torch.testing.assert_close(posterior.loc[date], want_loc, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(
            posterior.covariance_matrix[date], want_covariance, rtol=1e-10, atol=1e-10
        )


def test_an_empty_date_gives_the_prior_back() -> None:
    given = problem()
    posterior = gaussian_factor_posterior(**given)
    assert torch.equal(posterior.loc[EMPTY], given["factor_loc"][EMPTY])
    # The scale goes through two reciprocals and roots: exact to the last bits, no cross terms.
    want = torch.diag(given["factor_scale"][EMPTY])
    torch.testing.assert_close(posterior.scale_tril[EMPTY], want, rtol=1e-15, atol=0)
    assert float(low_rank_evidence(**given)[EMPTY]) == 0.0


@pytest.mark.parametrize("fill", [1e9, -3.0, float("nan")])
def test_unobserved_residuals_do_not_matter(fill: float) -> None:
    given = problem()
    other = given | {"residual": torch.where(given["observed"], given["residual"], fill)}
    one, two = gaussian_factor_posterior(**given), gaussian_factor_posterior(**other)
    assert torch.equal(one.loc, two.loc)
    assert torch.equal(one.scale_tril, two.scale_tril)
    assert torch.equal(low_rank_evidence(**given), low_rank_evidence(**other))


@pytest.mark.parametrize("n_assets", [1, ASSETS, 101])
def test_evidence_is_the_dense_density_of_the_observed_returns(n_assets: int) -> None:
    given = problem(n_assets)
    evidence = low_rank_evidence(**given)
    assert evidence.shape == (DATES,)
    for date in range(DATES):
        there = given["observed"][date]
        if not there.any():
            continue
        b, s = given["beta"][date, there], torch.diag(given["factor_scale"][date] ** 2)
        law = MultivariateNormal(
            b @ given["factor_loc"][date],
            b @ s @ b.T + torch.diag(given["specific_variance"][date, there]),
        )
        want = law.log_prob(given["residual"][date, there])
        torch.testing.assert_close(evidence[date], want, rtol=1e-10, atol=1e-10)


def test_gradients_of_the_evidence_are_right_and_blind_to_the_unobserved() -> None:
    given = problem()
    observed = given.pop("observed")
    names = list(given)
    leaves = tuple(given[name].requires_grad_() for name in names)

    def evidence(*values: Tensor) -> Tensor:
        return low_rank_evidence(observed=observed, **dict(zip(names, values, strict=True)))

    assert torch.autograd.gradcheck(evidence, leaves, atol=1e-7, fast_mode=True)
    gradients = dict(zip(names, torch.autograd.grad(evidence(*leaves).sum(), leaves), strict=True))
    for name in ("residual", "beta", "specific_variance"):
        assert (gradients[name][~observed] == 0).all()


def elbo(given: dict[str, Tensor], q: torch.distributions.Distribution) -> Tensor:
    """Return E_q[log p(y|z)] - KL(q||p) by date; `residual` plays y with alpha 0."""
    law = FactorMixture(
        torch.zeros(DATES, ASSETS, 1, dtype=torch.float64),
        torch.zeros(DATES, ASSETS, 1, dtype=torch.float64),
        given["specific_variance"].sqrt().unsqueeze(-1),
        given["beta"],
        given["factor_loc"],
        given["factor_scale"],
    )
    cells = law.expected_log_prob(given["residual"], q)
    prior = MultivariateNormal(given["factor_loc"], torch.diag_embed(given["factor_scale"] ** 2))
    dense = q if isinstance(q, MultivariateNormal) else dense_normal(q)
    return torch.where(given["observed"], cells, 0.0).sum(1) - kl_divergence(dense, prior)


def dense_normal(q: torch.distributions.Distribution) -> MultivariateNormal:
    return MultivariateNormal(q.mean, torch.diag_embed(q.variance))


def test_the_elbo_at_the_exact_posterior_is_the_evidence() -> None:
    given = problem()
    evidence = low_rank_evidence(**given)
    bound = elbo(given, gaussian_factor_posterior(**given))
    torch.testing.assert_close(bound, evidence, rtol=1e-10, atol=1e-10)


def test_the_elbo_of_any_other_q_is_below_the_evidence_by_its_divergence() -> None:
    given = problem()
    evidence, posterior = low_rank_evidence(**given), gaussian_factor_posterior(**given)
    q = Independent(Normal(posterior.loc + 0.2, posterior.variance.sqrt()), 1)
    gap = evidence - elbo(given, q)
    want = kl_divergence(dense_normal(q), posterior)
    torch.testing.assert_close(gap, want, rtol=1e-9, atol=1e-10)
    assert (gap > 0).all()


def test_more_assets_narrow_the_posterior() -> None:
    given = problem(101)
    few = given | {"observed": given["observed"] & (torch.arange(101) < 5)}
    narrow = gaussian_factor_posterior(**given).variance
    wide = gaussian_factor_posterior(**few).variance
    rows = torch.arange(DATES) != EMPTY
    assert (narrow[rows] < wide[rows]).all()
    assert (wide <= given["factor_scale"] ** 2 * (1 + 1e-12)).all()
