"""Exposures on one scale: mean 0 and deviation 1 over the assets of a date."""

import numpy as np
import pytest
import torch

from nfi_pyro.nets.standardise import standardise_cross_section, with_intercept

DATES, ASSETS, FACTORS = 7, 11, 3


@pytest.fixture
def values() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn((DATES, ASSETS, FACTORS), generator=generator, dtype=torch.float64)
    return 5.0 + torch.tensor([1e-3, 1.0, 1e4]) * raw


@pytest.fixture
def present() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    found = torch.rand((DATES, ASSETS), generator=generator) > 0.3
    found[4] = False
    return found


def test_moments_are_those_of_the_assets_present(values, present) -> None:
    found = standardise_cross_section(values, present).numpy()
    for date in range(DATES):
        rows = present[date].numpy()
        assert (found[date, ~rows] == 0.0).all()
        if rows.any():
            raw = values[date].numpy()[rows]
            want = (raw - raw.mean(0)) / raw.std(0)
            np.testing.assert_allclose(found[date, rows], want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fill", [1e9, float("nan"), float("inf")])
def test_what_is_not_present_does_not_matter(values, present, fill: float) -> None:
    other = torch.where(present.unsqueeze(-1), values, fill)
    one, two = (standardise_cross_section(v, present) for v in (values, other))
    assert torch.equal(one, two)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 0.1, -7e5])
def test_a_column_that_does_not_vary_is_zero(values, level: float, dtype: torch.dtype) -> None:
    present = torch.ones(DATES, ASSETS, dtype=torch.bool)
    still = values.to(dtype).clone()
    still[..., 1] = level
    found = standardise_cross_section(still, present)
    assert float(found[..., 1].abs().max()) == 0.0
    assert float(found[..., 2].abs().min()) > 0.0


def test_one_asset_alone_is_zero(values) -> None:
    found = standardise_cross_section(values[:, :1], torch.ones(DATES, 1, dtype=torch.bool))
    assert float(found.abs().max()) == 0.0


def test_location_and_scale_of_the_input_do_not_matter(values, present) -> None:
    one = standardise_cross_section(values, present)
    two = standardise_cross_section(3.0 * values - 40.0, present)
    torch.testing.assert_close(one, two, rtol=1e-7, atol=1e-8)


def test_the_intercept_comes_first(values) -> None:
    found = with_intercept(values)
    assert found.shape == (DATES, ASSETS, 1 + FACTORS)
    assert (found[..., 0] == 1.0).all()
    assert torch.equal(found[..., 1:], values)
