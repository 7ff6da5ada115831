"""First and second derivatives of every functional: finite differences, closed forms, modes."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, vmap

from nfi_pyro.distributions import MixtureOfNormals

Functional = Callable[[MixtureOfNormals], Tensor]
PLACE = torch.tensor([0.3, -1.7], dtype=torch.float64)
FUNCTIONALS: dict[str, Functional] = {
    "log_prob": lambda law: law.log_prob(PLACE),
    "cdf": lambda law: law.cdf(PLACE),
    "crps": lambda law: law.crps(PLACE),
    "icdf low": lambda law: law.icdf(0.03),
    "icdf high": lambda law: law.icdf(0.8),
    "value_at_risk": lambda law: law.value_at_risk(0.95),
    "expected_shortfall": lambda law: law.expected_shortfall(0.9),
    "shortfall of most": lambda law: law.expected_shortfall(0.2),
    "mean": lambda law: law.mean,
    "variance": lambda law: law.variance,
    "skewness": lambda law: law.skewness,
    "kurtosis": lambda law: law.kurtosis,
}
DISTINCT = ["log_prob", "cdf", "crps", "icdf high", "expected_shortfall", "variance", "kurtosis"]
QUANTILES = ["icdf low", "icdf high", "value_at_risk", "expected_shortfall"]


def parameters(*batch: int, components: int = 3, seed: int = 0) -> Tensor:
    """Return logits, loc and log scale, stacked (..., 3, component)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch, 3, components)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def apply(name: str, theta: Tensor) -> Tensor:
    logits, loc, log_scale = theta.unbind(-2)
    law = MixtureOfNormals(logits, loc, (0.6 * log_scale).exp(), validate_args=False)
    return FUNCTIONALS[name](law)


def scalar(name: str) -> Callable[[Tensor], Tensor]:
    return lambda theta: apply(name, theta.unsqueeze(0)).sum()


@pytest.mark.parametrize("name", FUNCTIONALS)
def test_gradients_and_their_gradients_are_those_of_finite_differences(name: str) -> None:
    theta = parameters(2).requires_grad_()

    def function(theta: Tensor) -> Tensor:
        return apply(name, theta)

    assert torch.autograd.gradcheck(function, (theta,), atol=1e-7, rtol=1e-6)
    # Projections keep the second order cheap; its entries are checked mode by mode below.
    outer = torch.tensor([1.0, -0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(
        function, (theta,), (outer,), atol=1e-7, rtol=1e-6, fast_mode=True
    )


@pytest.mark.parametrize("name", DISTINCT)
def test_every_mode_gives_one_hessian(name: str) -> None:
    theta, function = parameters(seed=3), scalar(name)
    want = hessian(function)(theta)
    step, slope = 1e-5, grad(function)
    for row in range(3):
        for column in range(3):
            moved = torch.zeros_like(theta)
            moved[row, column] = step
            difference = (slope(theta + moved) - slope(theta - moved)) / (2.0 * step)
            torch.testing.assert_close(want[..., row, column], difference, rtol=1e-6, atol=1e-8)
    modes = {
        "autograd": torch.autograd.functional.hessian(function, theta),
        "reverse over reverse": jacrev(jacrev(function))(theta),
        "forward over forward": jacfwd(jacfwd(function))(theta),
    }
    for mode, got in modes.items():
        assert torch.allclose(got, want, rtol=1e-11, atol=1e-12), mode


@pytest.mark.parametrize("name", DISTINCT)
def test_vmap_is_a_loop(name: str) -> None:
    thetas, function = parameters(5, seed=5), scalar(name)
    for transformed in (function, hessian(function)):
        want = torch.stack([transformed(theta) for theta in thetas])
        torch.testing.assert_close(vmap(transformed)(thetas), want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", QUANTILES)
def test_third_derivatives_of_quantiles_are_exact_too(name: str) -> None:
    theta, step = parameters(components=2, seed=2), 1e-5
    third = jacrev(hessian(scalar(name)))(theta)
    moved = torch.zeros_like(theta)
    moved[1, 1] = step
    second = hessian(scalar(name))
    difference = (second(theta + moved) - second(theta - moved)) / (2.0 * step)
    torch.testing.assert_close(third[..., 1, 1], difference, rtol=1e-6, atol=1e-8)


def test_the_slope_in_the_level_is_one_over_the_density() -> None:
    theta = parameters(seed=7)
    law = MixtureOfNormals(theta[0], theta[1], theta[2].exp())
    for p in (1e-6, 0.2, 0.7, 1.0 - 1e-6):
        level = torch.tensor(p, dtype=torch.float64, requires_grad=True)
        quantile = law.icdf(level)
        (first,) = torch.autograd.grad(quantile, level, create_graph=True)
        (second,) = torch.autograd.grad(first, level)
        at = quantile.detach().requires_grad_()
        (score,) = torch.autograd.grad(law.log_prob(at), at)
        density = law.log_prob(at).exp()
        torch.testing.assert_close(first, 1.0 / density, rtol=1e-9, atol=0)
        torch.testing.assert_close(second, -score / density.square(), rtol=1e-9, atol=0)
    one = torch.tensor([0.2, 0.7], dtype=torch.float64)
    slope = vmap(grad(law.icdf))(one)
    torch.testing.assert_close(slope, 1.0 / law.log_prob(law.icdf(one)).exp())


@pytest.mark.parametrize("level", [1e-6, 0.05, 0.5, 0.95, 1.0 - 1e-6])
@pytest.mark.parametrize("twins", [False, True])
def test_derivatives_of_the_normal_law_are_the_closed_forms(level: float, twins: bool) -> None:
    """One component, or two that are the same: x = loc + z scale, VaR and ES alike."""
    theta = torch.tensor([0.4, 0.01, 0.02], dtype=torch.float64)
    z = float(torch.special.ndtri(torch.tensor(level, dtype=torch.float64)))
    tail = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi) / level  # of 1 - level, by symmetry

    def law(theta: Tensor) -> MixtureOfNormals:
        logits, loc, scale = theta
        if twins:
            logits, loc, scale = (t.expand(2) for t in (logits, loc, scale))
            return MixtureOfNormals(logits, loc, scale, validate_args=False)
        return MixtureOfNormals(logits[None], loc[None], scale[None], validate_args=False)

    cases = {
        "icdf": (lambda t: law(t).icdf(level), [0.0, 1.0, z]),
        "value_at_risk": (lambda t: law(t).value_at_risk(1.0 - level), [0.0, -1.0, -z]),
        "shortfall": (lambda t: law(t).expected_shortfall(1.0 - level), [0.0, -1.0, tail]),
    }
    for function, first in cases.values():
        want = torch.tensor(first, dtype=torch.float64)
        torch.testing.assert_close(function(theta), want @ theta, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(grad(function)(theta), want, rtol=1e-8, atol=1e-9)
        assert float(hessian(function)(theta).abs().max()) < 1e-6  # linear in both


def test_scores_of_the_normal_law_have_its_second_derivatives() -> None:
    theta, y = torch.tensor([0.0, 0.3, 0.7], dtype=torch.float64), 1.1

    def crps(theta: Tensor) -> Tensor:
        logits, loc, scale = (t[None] for t in theta)
        law = MixtureOfNormals(logits, loc, scale, validate_args=False)
        return law.crps(torch.tensor(y, dtype=torch.float64))

    a = (y - 0.3) / 0.7
    density = math.exp(-0.5 * a * a) / math.sqrt(2.0 * math.pi)
    want = [[2 * density / 0.7, 2 * density * a / 0.7], [0, 2 * density * a * a / 0.7]]
    got = hessian(crps)(theta)[1:, 1:]
    torch.testing.assert_close(
        got.triu(), torch.tensor(want, dtype=torch.float64), rtol=1e-12, atol=1e-13
    )


def test_the_gradient_of_shortfall_survives_a_gap_that_no_density_reaches() -> None:
    """The median of two far normals is anywhere between them; the mean loss below it is not."""
    theta = torch.tensor([[0.0, 0.0], [-5.0, 5.0], [0.1, 0.1]], dtype=torch.float64)

    def shortfall(theta: Tensor) -> Tensor:
        return MixtureOfNormals(*theta, validate_args=False).expected_shortfall(0.5)

    torch.testing.assert_close(shortfall(theta).item(), 5.0, rtol=0, atol=1e-12)
    slope = grad(shortfall)(theta)
    want = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(slope[1:], want[1:], rtol=0, atol=1e-12)
    assert torch.isfinite(slope).all()
