"""Noise of one scale: a fixed mixture around any mean, its variance and its floor."""

import pytest
import torch

from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.distributions.scale_mixture import student_t_mixture
from nfi_pyro.nets.noise import ConstantNoise

FLOOR = 0.01


def test_normal_noise_is_a_normal_of_the_learned_scale() -> None:
    noise = ConstantNoise([1.0], [1.0], scale_floor=FLOOR).double()
    mean = torch.linspace(-1.0, 1.0, 7, dtype=torch.float64)
    law = MixtureOfNormals(*noise(mean), validate_args=False)
    assert torch.equal(law.mean, mean)
    torch.testing.assert_close(law.variance, (noise.scale**2).expand(7), rtol=1e-14, atol=0)
    want = torch.distributions.Normal(mean, noise.scale).log_prob(mean + 0.3)
    torch.testing.assert_close(law.log_prob(mean + 0.3), want, rtol=1e-13, atol=0)


@pytest.mark.parametrize("nu", [3.0, 4.0, 11.0])
def test_student_t_noise_has_the_variance_of_a_t(nu: float) -> None:
    weights, multiples = student_t_mixture(nu)
    noise = ConstantNoise(weights.tolist(), multiples.tolist(), scale_floor=FLOOR).double()
    mean = torch.zeros(2, 3, dtype=torch.float64)
    parts = noise(mean)
    assert all(part.shape == (2, 3, len(weights)) for part in parts)
    law = MixtureOfNormals(*parts, validate_args=False)
    want = noise.scale**2 * nu / (nu - 2.0)
    # Weights and multiples are stored in single precision.
    torch.testing.assert_close(law.variance, want.expand(2, 3), rtol=1e-6, atol=0)
    assert float(law.mean.abs().max()) == 0.0


def test_the_scale_has_a_floor_and_is_learned() -> None:
    noise = ConstantNoise([1.0], [1.0], scale_floor=FLOOR).double()
    with torch.no_grad():
        noise.raw_scale.fill_(-1e3)
    assert float(noise.scale.detach()) == FLOOR
    assert [name for name, _ in noise.named_parameters()] == ["raw_scale"]
    assert not noise.state_dict().keys() - {"raw_scale"}  # what the spec says is not stored twice
