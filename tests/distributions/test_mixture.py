"""The scalar mixture against torch, quadrature, and Monte Carlo with computed tolerances."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats
from torch.distributions import Categorical, MixtureSameFamily, Normal

from nfi_pyro.distributions import MixtureOfNormals, quantiles
from nfi_pyro.errors import SpecError

DATES, ASSETS, COMPONENTS = 7, 5, 3
LAWS = {
    "one": ([0.3], [0.01], [0.02]),
    "core and tail": ([2.0, 0.0], [0.001, -0.004], [0.01, 0.04]),
    "bimodal": ([0.0, 0.4], [-5.0, 5.0], [0.3, 0.2]),
    "wild scales": ([0.0, 0.0, 1.0], [0.0, 1.0, -2.0], [1e-6, 1.0, 1e3]),
    "newton cycles": ([0.0, 0.6, -1.2], [-0.758, -1.333, -2.097], [0.0115, 0.138, 9.9]),
    "rare far": ([8.0, 0.0], [0.0, -40.0], [1.0, 0.5]),
}
TAME = ["one", "core and tail", "bimodal"]


def law(name: str) -> MixtureOfNormals:
    return MixtureOfNormals(*(torch.tensor(v, dtype=torch.float64) for v in LAWS[name]))


def batch(dtype: torch.dtype = torch.float64, n: int = DATES) -> MixtureOfNormals:
    generator = torch.Generator().manual_seed(11)

    def normal() -> torch.Tensor:
        shape = (n, ASSETS, COMPONENTS)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return MixtureOfNormals(normal(), normal(), (0.7 * normal()).exp())


def pieces(mixture: MixtureOfNormals, *more: float) -> list[float]:
    """Return places that quadrature should not step over."""
    loc, scale = mixture.loc.numpy(), mixture.scale.numpy()
    knots = np.concatenate([loc + k * scale for k in (-12, -4, -1, 0, 1, 4, 12)])
    return sorted({*knots.tolist(), *more})


def integral(function, knots: list[float]) -> float:
    return math.fsum(
        integrate.quad(function, low, high, epsabs=1e-13, epsrel=1e-12, limit=200)[0]
        for low, high in pairwise(knots)
    )


# ---- density ----------------------------------------------------------------------------------


def test_log_prob_and_gradient_equal_torchs_mixture() -> None:
    ours = batch()
    leaves = [t.clone().requires_grad_() for t in (ours.logits, ours.loc, ours.scale)]
    value = torch.linspace(-9, 9, DATES * ASSETS, dtype=torch.float64).view(DATES, ASSETS)
    theirs = MixtureSameFamily(Categorical(logits=leaves[0]), Normal(leaves[1], leaves[2]))
    wanted = theirs.log_prob(value)
    got = MixtureOfNormals(*leaves).log_prob(value)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-13)
    for own, other in zip(
        torch.autograd.grad(got.sum(), leaves),
        torch.autograd.grad(wanted.sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-12)


def test_one_component_is_the_normal_law_whatever_its_logit() -> None:
    mixture, normal = law("one"), Normal(0.01, 0.02)
    value = torch.linspace(-0.1, 0.1, 7, dtype=torch.float64)
    torch.testing.assert_close(
        mixture.log_prob(value), normal.log_prob(value), rtol=1e-6, atol=1e-6
    )
    assert float(mixture.mean) == 0.01
    assert float(mixture.variance) == pytest.approx(0.0004, rel=1e-15)


def test_log_prob_is_finite_with_finite_gradients_in_the_far_tail() -> None:
    logits = torch.tensor([0.0, -200.0], dtype=torch.float64, requires_grad=True)
    loc = torch.tensor([0.0, 0.1], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([1e-6, 2e-6], dtype=torch.float64, requires_grad=True)
    value = torch.tensor(50.0, dtype=torch.float64)  # 5e7 narrow standard deviations away
    log_prob = MixtureOfNormals(logits, loc, scale).log_prob(value)
    # The wide component wins in spite of its weight of exp(-200).
    z = (50.0 - 0.1) / 2e-6
    want = -200.0 - 0.5 * z**2 - math.log(2e-6) - 0.5 * math.log(2 * math.pi)
    assert float(log_prob.detach()) == pytest.approx(want, rel=1e-14)
    for gradient in torch.autograd.grad(log_prob, (logits, loc, scale)):
        assert torch.isfinite(gradient).all()


def test_validation_refuses_nan_and_a_negative_scale() -> None:
    one = torch.ones(2)
    with pytest.raises(ValueError, match="scale"):
        MixtureOfNormals(one, one, -one, validate_args=True)
    with pytest.raises(ValueError, match="value"):
        MixtureOfNormals(one, one, one, validate_args=True).log_prob(torch.tensor(math.nan))


# ---- cdf and quantiles ------------------------------------------------------------------------


@pytest.mark.parametrize("name", TAME)
@pytest.mark.parametrize("place", [-1.5, 0.0, 0.7])
def test_cdf_is_the_integral_of_the_density(name: str, place: float) -> None:
    mixture = law(name)
    x = float(mixture.mean + place * mixture.variance.sqrt())

    def density(r: float) -> float:
        return float(mixture.log_prob(torch.tensor(r, dtype=torch.float64)).exp())

    knots = [k for k in pieces(mixture, x) if k <= x]
    got = float(mixture.cdf(torch.tensor(x, dtype=torch.float64)))
    assert got == pytest.approx(integral(density, knots), abs=1e-11)


def test_cdf_keeps_its_relative_precision_in_the_left_tail() -> None:
    for standard in (-5.0, -10.0, -30.0):
        mixture = MixtureOfNormals(
            *(torch.tensor(v).double() for v in ([0.0, 0.0], [1, 1], [2, 2]))
        )
        got = float(mixture.cdf(torch.tensor(1.0 + 2.0 * standard, dtype=torch.float64)))
        assert got == pytest.approx(stats.norm.cdf(standard), rel=1e-12, abs=0)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("p", [1e-6, 0.01, 0.05, 0.3, 0.5, 0.9, 1 - 1e-6])
def test_icdf_inverts_the_cdf(name: str, p: float) -> None:
    mixture = law(name)
    quantile = mixture.icdf(torch.tensor(p, dtype=torch.float64))
    assert float(mixture.cdf(quantile)) == pytest.approx(p, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("name", ["core and tail", "bimodal", "rare far"])
@pytest.mark.parametrize("p", [1e-6, 0.01, 0.3, 0.9])
def test_icdf_is_the_root_that_scipy_finds(name: str, p: float) -> None:
    mixture = law(name)
    w, m, s = (t.numpy() for t in (mixture.log_weights.exp(), mixture.loc, mixture.scale))
    want = optimize.brentq(
        lambda x: float(np.sum(w * stats.norm.cdf((x - m) / s))) - p, -60, 60, xtol=1e-14
    )
    got = float(mixture.icdf(torch.tensor(p, dtype=torch.float64)))
    assert got == pytest.approx(want, abs=1e-8 * float(s.min()))


def count_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one with every pass of the root finder."""
    passes, newton = [], quantiles._Reflected.newton

    def counting(self: quantiles._Reflected, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        passes.append(1)
        return newton(self, x)

    monkeypatch.setattr(quantiles._Reflected, "newton", counting)
    return passes


def test_icdf_of_many_laws_at_once_is_exact_and_takes_few_passes(monkeypatch) -> None:
    mixture, passes = batch(n=101), count_passes(monkeypatch)
    for p in (1e-6, 0.05, 0.5):
        quantile = mixture.icdf(torch.full((101, ASSETS), p, dtype=torch.float64))
        error = (mixture.cdf(quantile) - p).abs().max()
        assert float(error) < 1e-11 * p
    assert 3 < len(passes) < 3 * 16  # bisection alone takes about 45 each


def test_icdf_of_hard_laws_is_as_exact_as_floating_point_allows() -> None:
    generator = torch.Generator().manual_seed(0)

    def normal() -> torch.Tensor:
        return torch.randn(2003, 3, generator=generator, dtype=torch.float64)

    mixture = MixtureOfNormals(normal(), normal(), (6.0 * normal()).exp())
    for p in (1e-6, 0.05, 0.5, 0.999):
        quantile = mixture.icdf(torch.full((2003,), p, dtype=torch.float64))
        # Two neighbouring floats may lie this far apart in probability.
        grain = 1e-15 * quantile.abs() * mixture.log_prob(quantile).exp()
        assert ((mixture.cdf(quantile) - p).abs() < grain + 1e-11 * p + 1e-15).all()


def test_icdf_of_single_precision_stops(monkeypatch) -> None:
    mixture, passes = batch(torch.float32), count_passes(monkeypatch)
    quantile = mixture.icdf(torch.full((DATES, ASSETS), 0.01))
    assert quantile.dtype == torch.float32
    assert 1 < len(passes) < 20
    assert float((mixture.cdf(quantile) - 0.01).abs().max()) < 1e-7


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.floats(-3, 3), st.floats(-4, 4), st.floats(-4, 3)), min_size=1, max_size=3
    ),
    st.floats(1e-9, 1 - 1e-9),
)
def test_icdf_inverts_any_mixture(components: list[tuple[float, float, float]], p: float) -> None:
    logits, loc, log_scale = torch.tensor(components, dtype=torch.float64).T
    mixture = MixtureOfNormals(logits, loc, log_scale.exp())
    quantile = mixture.icdf(torch.tensor(p, dtype=torch.float64))
    assert float(mixture.cdf(quantile)) == pytest.approx(p, rel=1e-9, abs=1e-13)


def test_icdf_is_increasing_and_moves_with_a_shift_and_a_scale() -> None:
    mixture = batch()
    levels = [0.01, 0.2, 0.5, 0.97]
    ones = torch.ones(DATES, ASSETS, dtype=torch.float64)
    quantiles = torch.stack([mixture.icdf(p * ones) for p in levels])
    assert (quantiles.diff(dim=0) > 0).all()
    moved = MixtureOfNormals(mixture.logits, 3.0 * mixture.loc + 0.7, 3.0 * mixture.scale)
    torch.testing.assert_close(
        moved.icdf(0.2 * ones), 3.0 * quantiles[1] + 0.7, rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, 1.5])
def test_icdf_refuses_what_is_no_probability(p: float) -> None:
    with pytest.raises(SpecError, match="probability must lie strictly between 0 and 1; got"):
        law("bimodal").icdf(torch.tensor([0.5, p], dtype=torch.float64))


# ---- moments, tails, scores -------------------------------------------------------------------


@pytest.mark.parametrize("name", TAME)
def test_moments_equal_quadrature(name: str) -> None:
    mixture = law(name)

    def density(r: float) -> float:
        return float(mixture.log_prob(torch.tensor(r, dtype=torch.float64)).exp())

    knots = pieces(mixture)
    mean = integral(lambda r: r * density(r), knots)
    second, third, fourth = (
        integral(lambda r, k=k: (r - mean) ** k * density(r), knots) for k in (2, 3, 4)
    )
    assert integral(density, knots) == pytest.approx(1.0, abs=1e-11)
    assert float(mixture.mean) == pytest.approx(mean, rel=1e-9, abs=1e-12)
    assert float(mixture.variance) == pytest.approx(second, rel=1e-9)
    assert float(mixture.skewness) == pytest.approx(third / second**1.5, rel=1e-8, abs=1e-9)
    assert float(mixture.kurtosis) == pytest.approx(fourth / second**2 - 3, rel=1e-8, abs=1e-9)


def test_draws_have_the_laws_moments_shape_and_distribution(seeded) -> None:
    mixture, n = batch(), 20_000
    with seeded(0):
        draws = mixture.sample(torch.Size([n]))
    assert draws.shape == (n, DATES, ASSETS)
    # 4.5 standard errors: 35 cells and three statistics, so about 1e-3 for a false alarm.
    error = (draws.mean(0) - mixture.mean).abs() / (mixture.variance / n).sqrt()
    assert float(error.max()) < 4.5
    squares = (draws - mixture.mean).square()
    spread = (squares.mean(0) - mixture.variance).abs() / (squares.var(0) / n).sqrt()
    assert float(spread.max()) < 4.5
    below = (draws <= mixture.mean).double().mean(0)
    p = mixture.cdf(mixture.mean)
    assert float(((below - p).abs() / (p * (1 - p) / n).sqrt()).max()) < 4.5


def test_draws_of_one_law_have_the_batch_shape(seeded) -> None:
    with seeded(1):
        assert law("bimodal").sample().shape == ()
        assert batch().sample().shape == (DATES, ASSETS)
        assert not batch().sample().requires_grad


@pytest.mark.parametrize("name", TAME)
@pytest.mark.parametrize("level", [0.03, 0.5, 0.95, 0.999999])
def test_expected_shortfall_equals_quadrature_of_the_tail(name: str, level: float) -> None:
    mixture = law(name)
    quantile = float(mixture.icdf(torch.tensor(1 - level, dtype=torch.float64)))

    def weighted(r: float) -> float:
        return r * float(mixture.log_prob(torch.tensor(r, dtype=torch.float64)).exp())

    knots = [k for k in pieces(mixture, quantile) if k <= quantile]
    want = -integral(weighted, knots) / (1 - level)
    assert float(mixture.expected_shortfall(level)) == pytest.approx(want, rel=1e-8)


@pytest.mark.parametrize("name", ["core and tail", "bimodal"])
def test_a_million_draws_agree_with_every_functional(name: str) -> None:
    """Tolerances are four standard errors, of an average by its terms' spread."""
    mixture, n, level = law(name), 1_000_000, 0.95
    draws = mixture.draw(n, seed=5)

    def agree(terms: torch.Tensor, want: torch.Tensor) -> None:
        error = float(terms.std()) / math.sqrt(n)
        assert float(terms.mean()) == pytest.approx(float(want), abs=4.0 * error)

    mean, deviation = mixture.mean, mixture.variance.sqrt()
    standard = (draws - mean) / deviation
    agree(draws, mean)
    agree((draws - mean).square(), mixture.variance)
    agree(standard**3, mixture.skewness)
    agree(standard**4 - 3.0, mixture.kurtosis)
    agree((draws <= mean).double(), mixture.cdf(mean))
    quantile = -mixture.value_at_risk(level)
    agree((draws <= quantile).double(), torch.tensor(1.0 - level))
    # Rockafellar and Uryasev's average is stationary in the quantile, so its error is its own.
    agree(
        (quantile - draws).clamp(min=0.0) / (1.0 - level) - quantile,
        mixture.expected_shortfall(level),
    )
    y = mean + 0.7 * deviation
    pairs = (draws[: n // 2] - draws[n // 2 :]).abs()  # CRPS = E|y - r| - E|r - r'| / 2
    halves = (draws - y).abs().view(2, -1).mean(0)
    error = math.sqrt(float(halves.var() + 0.25 * pairs.var()) / (n // 2))
    got = float(halves.mean() - 0.5 * pairs.mean())
    assert got == pytest.approx(float(mixture.crps(y)), abs=6.0 * error)  # the halves share draws


def test_draws_of_a_seed_repeat_and_take_a_generator() -> None:
    mixture = batch()
    assert mixture.draw(3, seed=2).shape == (3, DATES, ASSETS)
    assert torch.equal(mixture.draw(3, seed=2), mixture.draw(3, seed=2))
    assert not torch.equal(mixture.draw(3, seed=2), mixture.draw(3, seed=3))
    generator = torch.Generator().manual_seed(2)
    assert torch.equal(mixture.sample((3,), generator=generator), mixture.draw(3, seed=2))


def test_one_component_has_the_normal_laws_shape_and_scores() -> None:
    mixture, y = law("one"), 0.035  # mean 1 percent, standard deviation 2 percent
    assert (float(mixture.skewness), float(mixture.kurtosis)) == (0.0, 0.0)
    for p in (1e-6, 0.3, 1 - 1e-6):
        want = 0.01 + 0.02 * stats.norm.ppf(p)
        assert float(mixture.icdf(p)) == pytest.approx(want, rel=1e-12)
    a = (y - 0.01) / 0.02  # Gneiting and Raftery 2007, Eq. 21
    want = 0.02 * (a * (2 * stats.norm.cdf(a) - 1) + 2 * stats.norm.pdf(a) - 1 / math.sqrt(math.pi))
    got = float(mixture.crps(torch.tensor(y, dtype=torch.float64)))
    assert got == pytest.approx(want, rel=1e-12)


def test_levels_broadcast_against_the_batch() -> None:
    mixture = batch()
    levels = torch.tensor([0.01, 0.5, 0.9], dtype=torch.float64)
    for name in ("icdf", "value_at_risk", "expected_shortfall"):
        together = getattr(mixture, name)(levels[:, None, None])
        assert together.shape == (3, DATES, ASSETS)
        for level, own in zip(levels, together, strict=True):
            torch.testing.assert_close(
                getattr(mixture, name)(float(level)), own, rtol=0, atol=1e-14
            )
    with pytest.raises(SpecError, match="probability must lie strictly between 0 and 1; got"):
        mixture.expected_shortfall(1.0)


def test_a_loss_is_positive_and_shortfall_is_beyond_value_at_risk() -> None:
    mixture = law("one")  # mean 1 percent, standard deviation 2 percent
    var, es = float(mixture.value_at_risk(0.95)), float(mixture.expected_shortfall(0.95))
    assert var == pytest.approx(-(0.01 - 0.02 * 1.6448536269514722), rel=1e-12)
    assert es == pytest.approx(-(0.01 - 0.02 * 2.0627128075074257), rel=1e-9)
    several = batch()
    assert (several.expected_shortfall(0.9) > several.value_at_risk(0.9)).all()
    assert several.value_at_risk(0.9).shape == (DATES, ASSETS)


@pytest.mark.parametrize("name", TAME)
@pytest.mark.parametrize("place", [-2.0, 0.1, 3.0])
def test_crps_equals_quadrature_of_its_definition(name: str, place: float) -> None:
    mixture = law(name)
    y = float(mixture.mean + place * mixture.variance.sqrt())

    def squared_gap(x: float) -> float:
        step = 1.0 if x >= y else 0.0
        return (float(mixture.cdf(torch.tensor(x, dtype=torch.float64))) - step) ** 2

    got = float(mixture.crps(torch.tensor(y, dtype=torch.float64)))
    assert got == pytest.approx(integral(squared_gap, pieces(mixture, y)), rel=1e-8)


def test_crps_of_a_batch_is_that_of_each_cell() -> None:
    mixture = batch()
    value = torch.linspace(-2, 2, DATES * ASSETS, dtype=torch.float64).view(DATES, ASSETS)
    whole = mixture.crps(value)
    for date, asset in ((0, 0), (3, 4), (6, 2)):
        cell = MixtureOfNormals(
            mixture.logits[date, asset], mixture.loc[date, asset], mixture.scale[date, asset]
        )
        assert float(cell.crps(value[date, asset])) == pytest.approx(
            float(whole[date, asset]), rel=1e-13
        )


def test_components_broadcast_and_expand() -> None:
    mixture = MixtureOfNormals(torch.zeros(2), torch.zeros(ASSETS, 2), torch.ones(DATES, ASSETS, 1))
    assert mixture.batch_shape == (DATES, ASSETS)
    assert mixture.n_components == 2
    wider = law("bimodal").expand((DATES, ASSETS))
    value = torch.linspace(-6, 6, ASSETS, dtype=torch.float64)
    torch.testing.assert_close(
        wider.log_prob(value)[3], law("bimodal").log_prob(value), rtol=0, atol=0
    )


def test_the_distribution_function_never_exceeds_one() -> None:
    """Weights sum to 1 up to rounding: far out the sum of seven of them may be above it."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 7, generator=generator, dtype=torch.float64)
    law = MixtureOfNormals(logits, torch.zeros_like(logits), torch.ones_like(logits))
    assert (law.log_weights.exp().sum(-1) > 1.0).any()
    assert law.cdf(torch.full((20_000,), 60.0, dtype=torch.float64)).max() == 1.0
