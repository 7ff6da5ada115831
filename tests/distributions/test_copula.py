"""The Gaussian copula: its likelihood against dense algebra, and a planted law found again."""

import json

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from torch import Tensor
from torch.distributions import MultivariateNormal

from nfi_pyro.distributions.copula import CopulaStatistics, GaussianCopula, _em_step
from nfi_pyro.errors import PanelError

DATES, ASSETS, COLUMNS = 7, 5, 3
ROOT = np.array([[0.5, 0.0, 0.0], [0.1, 0.3, 0.0], [-0.05, 0.1, 0.2]])
OMEGA, NOISE = torch.from_numpy(ROOT @ ROOT.T), 0.6


def draw(n_dates: int, n_assets: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return scores of the planted random effects, and the design behind them."""
    rng = np.random.default_rng(seed)
    design = np.concatenate(
        [np.ones((n_dates, n_assets, 1)), rng.normal(size=(n_dates, n_assets, COLUMNS - 1))], -1
    )
    shared = rng.normal(size=(n_dates, COLUMNS)) @ ROOT.T
    score = np.einsum("dax,dx->da", design, shared)
    score += NOISE**0.5 * rng.normal(size=score.shape)
    return torch.from_numpy(score), torch.from_numpy(design)


def probability(score: Tensor) -> Tensor:
    return torch.from_numpy(ndtr(score.numpy()))


def fit(score: Tensor, design: Tensor, observed: Tensor | None = None) -> GaussianCopula:
    found = CopulaStatistics()
    seen = torch.ones_like(score, dtype=torch.bool) if observed is None else observed
    found.add(probability(score), design, seen)
    return found.fit()


def evidence(score: Tensor, design: Tensor, omega: Tensor, noise: float) -> float:
    """Return the log density of all dates by dense covariance matrices."""
    eye = torch.eye(design.shape[1], dtype=torch.float64)
    covariance = design @ omega @ design.mT + noise * eye
    mean = torch.zeros(len(score), design.shape[1], dtype=torch.float64)
    return float(MultivariateNormal(mean, covariance).log_prob(score).sum())


def test_a_planted_law_is_found_again() -> None:
    """Simulated truth: 1,009 dates; a variance is known to sqrt(2 / 1009) = 4.5 percent."""
    found = fit(*draw(1009, 53, seed=3))
    omega = found.root @ found.root.T
    sd = OMEGA.diagonal().sqrt()
    error = (omega - OMEGA).abs() / torch.outer(sd, sd)
    assert float(error.max()) < 4.0 * (2.0 / 1009) ** 0.5
    # 53,477 scores less 3 effects a date.
    assert found.noise_variance == pytest.approx(NOISE, rel=4.0 * (2.0 / (1009 * 50)) ** 0.5)
    assert found.n_dates == 1009
    assert found.n_scores == 1009 * 53


def test_a_new_assets_correlations_are_the_planted_ones() -> None:
    found = fit(*draw(1009, 53, seed=4))
    _, design = draw(1, 11, seed=5)
    loading = found.loadings(design[0])
    raw = design[0] @ torch.from_numpy(ROOT)
    want = raw / (raw.square().sum(-1, keepdim=True) + NOISE).sqrt()
    torch.testing.assert_close(loading @ loading.T, want @ want.T, rtol=0, atol=0.06)
    assert float((want @ want.T).abs().max()) > 0.3


def test_the_log_likelihood_is_the_dense_one_and_never_falls() -> None:
    score, design = draw(DATES, ASSETS, seed=6)
    gram, cross = design.mT @ design, torch.einsum("dax,da->dx", design, score)
    square, count = score.square().sum(-1), torch.full((DATES,), float(ASSETS)).double()
    omega, noise = 0.1 * torch.eye(COLUMNS, dtype=torch.float64), square.sum() / count.sum()
    values = []
    for _ in range(60):
        want = evidence(score, design, omega, float(noise))
        omega, noise, value = _em_step(gram, cross, square, count, omega, noise)
        assert value == pytest.approx(want, rel=1e-10)
        values.append(value)
    assert (np.diff(values) > -1e-9).all()
    assert values[-1] > values[0] + 0.1


def test_the_fit_is_a_stationary_point() -> None:
    """No direction in Omega or the noise gains more than EM's tolerance leaves."""
    score, design = draw(211, 11, seed=7)
    found = fit(score, design)
    omega = found.root @ found.root.T
    best = evidence(score, design, omega, found.noise_variance)
    assert found.log_likelihood == pytest.approx(best, abs=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        move = torch.randn(COLUMNS, COLUMNS, generator=generator, dtype=torch.float64)
        root = found.root + 0.02 * torch.tril(move)
        noise = found.noise_variance * (1.0 + 0.02 * float(move[0, 2]))
        assert evidence(score, design, root @ root.T, noise) < best + 0.01


def test_loadings_squares_sum_to_less_than_one() -> None:
    found = fit(*draw(101, 13, seed=8))
    loading = found.loadings(100.0 * draw(7, 11, seed=9)[1])
    assert loading.shape == (7, 11, COLUMNS)
    assert (loading.square().sum(-1) < 1.0).all()
    assert loading.float().dtype == found.loadings(torch.ones(3, COLUMNS).float()).dtype


def test_unobserved_scores_and_blocks_do_not_matter() -> None:
    score, design = draw(101, 11, seed=10)
    generator = torch.Generator().manual_seed(1)
    observed = torch.rand(score.shape, generator=generator) > 0.3
    observed[5] = False
    observed[6, 1:] = False  # dates without two returns say nothing of dependence
    one = fit(score, design, observed)
    assert one.n_dates == int((observed.sum(1) >= 2).sum()) <= 99
    parts = CopulaStatistics()
    filled = torch.where(observed, score, 3.0)
    bad = torch.where(observed.unsqueeze(-1), design, float("nan"))
    for start in range(0, 101, 17):
        rows = slice(start, start + 17)
        parts.add(probability(filled[rows]), bad[rows], observed[rows])
    two = parts.fit()
    torch.testing.assert_close(one.root, two.root, rtol=1e-10, atol=1e-12)
    assert one.noise_variance == pytest.approx(two.noise_variance, rel=1e-10)


def test_a_certain_probability_is_an_outlier_and_no_infinity() -> None:
    score, design = draw(101, 11, seed=11)
    extreme = probability(score)
    extreme[0, 0], extreme[1, 0] = 0.0, 1.0
    found = CopulaStatistics()
    found.add(extreme, design, torch.ones_like(score, dtype=torch.bool))
    assert np.isfinite(found.fit().log_likelihood)


@pytest.mark.parametrize("added", [False, True])
def test_too_few_returns_are_refused(added: bool) -> None:
    found = CopulaStatistics()
    if added:
        score, design = draw(3, 5, seed=12)
        one = torch.zeros_like(score, dtype=torch.bool)
        one[:, 0] = True
        found.add(probability(score), design, one)
    with pytest.raises(PanelError, match="at least two observed returns; got none"):
        found.fit()


def test_it_survives_a_file() -> None:
    found = fit(*draw(31, 7, seed=13))
    back = GaussianCopula.from_dict(json.loads(json.dumps(found.as_dict())))
    assert torch.equal(back.root, found.root)
    assert back.as_dict() == found.as_dict()
