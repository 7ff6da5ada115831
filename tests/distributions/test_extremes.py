"""Finite but extreme laws: no NaN in any value, nor in derivatives where the dtype holds them."""

import itertools

import pytest
import torch
from torch import Tensor

from nfi_pyro.distributions import MixtureOfNormals

LOGITS = list(itertools.product((-200.0, 200.0), (0.0, 200.0)))
SCALES = list(itertools.product((1e-6, 1.0, 1e6), repeat=2))
LOCS = [(0.0, 0.0), (0.0, 1e-3), (-5.0, 1e6)]
LEVELS = (1e-6, 0.05, 0.5, 0.95, 1.0 - 1e-6)
MOMENTS = ("mean", "variance", "skewness", "kurtosis")


def laws(dtype: torch.dtype) -> Tensor:
    """Return logits, loc and scale of every combination, (law, 3, component)."""
    rows = [[a, b, c] for a in LOGITS for b in LOCS for c in SCALES]
    return torch.tensor(rows, dtype=dtype)


def outputs(theta: Tensor) -> dict[str, Tensor]:
    """Return every functional of every law, (law,) each."""
    logits, loc, scale = theta.unbind(-2)
    law = MixtureOfNormals(logits, loc, scale, validate_args=False)
    out = {name: getattr(law, name) for name in MOMENTS}
    widest, narrowest = scale.detach().amax(-1), scale.detach().amin(-1)
    places = {"far": 1e8 * widest, "left": -1e8 * widest, "near": 1e8 * narrowest}
    for place, value in places.items():
        for name in ("log_prob", "cdf", "crps"):
            out[f"{name} {place}"] = getattr(law, name)(value)
    for level in LEVELS:
        for name in ("icdf", "value_at_risk", "expected_shortfall"):
            out[f"{name} {level}"] = getattr(law, name)(level)
    return out


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_gradients_are_finite(dtype: torch.dtype) -> None:
    theta = laws(dtype).requires_grad_()
    for name, value in outputs(theta).items():
        assert value.dtype == dtype
        assert torch.isfinite(value).all(), name
        (gradient,) = torch.autograd.grad(value.sum(), theta)
        assert torch.isfinite(gradient).all(), name


def test_second_derivatives_are_finite_in_double_precision() -> None:
    theta = laws(torch.float64).requires_grad_()
    for name, value in outputs(theta).items():
        (first,) = torch.autograd.grad(value.sum(), theta, create_graph=True)
        if not first.requires_grad:
            continue
        for entry in first.flatten(1).unbind(1):
            (second,) = torch.autograd.grad(entry.sum(), theta, retain_graph=True)
            assert torch.isfinite(second).all(), name


def test_a_component_of_no_weight_counts_for_nothing() -> None:
    """Stored weights that underflow come back as logits of minus infinity."""
    weights = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64)
    loc = torch.tensor([0.01, -0.02, 5.0], dtype=torch.float64)
    scale = torch.tensor([0.02, 0.05, 3.0], dtype=torch.float64)
    full = MixtureOfNormals(weights.log(), loc, scale, validate_args=False)
    pair = MixtureOfNormals(weights[:2].log(), loc[:2], scale[:2])
    value = torch.tensor(0.03, dtype=torch.float64)
    for name in ("log_prob", "cdf", "crps"):
        torch.testing.assert_close(getattr(full, name)(value), getattr(pair, name)(value))
    for name in ("icdf", "value_at_risk", "expected_shortfall"):
        torch.testing.assert_close(getattr(full, name)(0.05), getattr(pair, name)(0.05))
    for name in MOMENTS:
        torch.testing.assert_close(getattr(full, name), getattr(pair, name))


@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-3, 30.0, 1e6])
def test_quantiles_are_monotone_and_inside_the_component_quantiles(gap: float) -> None:
    law = MixtureOfNormals(
        *(torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.0], [0.0, gap], [1.0, 1.1]))
    )
    inner = torch.linspace(1e-3, 1.0 - 1e-3, 301, dtype=torch.float64)
    ends = torch.tensor([1e-12, 1e-9, 1e-6], dtype=torch.float64)
    level = torch.cat([ends, inner, (1.0 - ends).flip(0)])
    quantile = law.icdf(level)
    assert quantile.shape == level.shape
    assert (quantile.diff() > 0).all()
    own = law.loc + law.scale * torch.special.ndtri(level).unsqueeze(-1)
    assert (quantile >= own.amin(-1) - 1e-9).all()
    assert (quantile <= own.amax(-1) + 1e-9).all()
    # The upper tail keeps the digits of 1 - level: the reflected law has the mirrored quantile.
    mirror = MixtureOfNormals(law.logits, -law.loc, law.scale).icdf(1.0 - level)
    # (Below 1e-6 the test's own 1 - level has lost them.)
    torch.testing.assert_close(-mirror[2:], quantile[2:], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        law.value_at_risk(0.999999), -law.icdf(1.0 - 0.999999), rtol=0, atol=0
    )


def test_a_nan_parameter_gives_nan_and_stops() -> None:
    law = MixtureOfNormals(
        torch.zeros(2, 2),
        torch.tensor([[0.0, torch.nan], [0.0, 1.0]]),
        torch.ones(2, 2),
        validate_args=False,
    )
    quantile = law.icdf(0.1)
    assert torch.isnan(quantile[0])
    assert torch.isfinite(quantile[1])
