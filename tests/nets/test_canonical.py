"""The canonical form: an invertible map, what it fixes, and what it leaves."""

import numpy as np
import pytest
import torch
from torch import Tensor

from nfi_pyro.nets.canonical import CanonicalForm

DATES, ASSETS, FACTORS = 13, 11, 3


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def raw() -> dict[str, Tensor]:
    """Return exposures whose second factor explains most and whose third is negative."""
    generator = torch.Generator().manual_seed(4)
    mean = torch.tensor([0.5, 3.0, -1.5], dtype=torch.float64)
    beta = mean + normal(DATES, ASSETS, FACTORS, seed=0)
    slope = torch.tensor([0.7, -0.2, 0.4], dtype=torch.float64)
    return {
        "beta": beta,
        "alpha": 0.3 + beta @ slope + 0.1 * normal(DATES, ASSETS, seed=1),
        "factor_scale": (0.3 * normal(DATES, FACTORS, seed=2)).exp(),
        "present": torch.rand((DATES, ASSETS), generator=generator) > 0.2,
    }


@pytest.fixture
def form(raw) -> CanonicalForm:
    form = CanonicalForm(FACTORS).double()
    form.set_from(**raw)
    return form


def test_it_is_the_identity_until_it_is_set() -> None:
    form = CanonicalForm(FACTORS).double()
    beta = normal(ASSETS, FACTORS, seed=5)
    for function in (form.exposures, form.raw_exposures, form.factor_loc):
        assert torch.equal(function(beta), beta)
    assert torch.equal(form.factor_scale(beta.exp()), beta.exp())


def test_raw_exposures_invert_exposures(raw, form) -> None:
    assert form.order.tolist() != [0, 1, 2]
    assert (form.scale < 0).any()
    back = form.raw_exposures(form.exposures(raw["beta"]))
    torch.testing.assert_close(back, raw["beta"], rtol=1e-14, atol=1e-15)


def test_the_pooled_regression_of_alpha_has_slope_zero(raw, form) -> None:
    """Least squares by numpy, on the exposures and alpha as they are reported."""
    rows = raw["present"]
    canonical = form.exposures(raw["beta"])[rows].numpy()
    rest = (raw["alpha"] - raw["beta"] @ form.shift)[rows].numpy()
    design = np.column_stack([np.ones(len(rest)), canonical])
    found = np.linalg.lstsq(design, rest, rcond=None)[0]
    np.testing.assert_allclose(found[1:], 0.0, atol=1e-13)
    before = np.linalg.lstsq(design, raw["alpha"][rows].numpy(), rcond=None)[0]
    assert np.abs(before[1:]).min() > 0.1


def test_the_mean_prior_variance_is_one(raw, form) -> None:
    scale = form.factor_scale(raw["factor_scale"])
    assert (scale > 0).all()
    torch.testing.assert_close(
        scale.square().mean(0), torch.ones(FACTORS, dtype=torch.float64), rtol=1e-14, atol=0
    )


def test_factors_are_ordered_by_what_they_explain_and_positive_on_average(raw, form) -> None:
    canonical = form.exposures(raw["beta"])[raw["present"]]
    moment = canonical.square().mean(0)
    assert (moment[:-1] > moment[1:]).all()
    assert (canonical.mean(0) > 0).all()
    assert int(form.order[0]) == 1


def test_what_factors_explain_does_not_change(raw, form) -> None:
    z = normal(DATES, FACTORS, seed=6)
    alpha = raw["alpha"] - raw["beta"] @ form.shift
    before = raw["alpha"] + torch.einsum("dak,dk->da", raw["beta"], z)
    after = alpha + torch.einsum("dak,dk->da", form.exposures(raw["beta"]), form.factor_loc(z))
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-13)
    spread = torch.einsum("dak,dk->da", raw["beta"] ** 2, raw["factor_scale"] ** 2)
    moved = torch.einsum(
        "dak,dk->da",
        form.exposures(raw["beta"]) ** 2,
        form.factor_scale(raw["factor_scale"]) ** 2,
    )
    torch.testing.assert_close(moved, spread, rtol=1e-12, atol=0)


def test_equivalent_networks_have_one_canonical_form(raw, form) -> None:
    """alpha -> alpha - c.beta, z -> z + c and beta -> A^-T beta with a scaled permutation A."""
    shift = torch.tensor([0.3, -2.0, 1.1], dtype=torch.float64)
    size = torch.tensor([-2.0, 0.1, 5.0], dtype=torch.float64)
    place = torch.tensor([2, 0, 1])
    other = CanonicalForm(FACTORS).double()
    other.set_from(
        beta=(raw["beta"] / size)[..., place],
        alpha=raw["alpha"] - raw["beta"] @ shift,
        factor_scale=(raw["factor_scale"] * size.abs())[..., place],
        present=raw["present"],
    )
    z = normal(DATES, FACTORS, seed=7)
    moved = ((z + shift) * size)[..., place]
    for one, two in (
        (form.exposures(raw["beta"]), other.exposures((raw["beta"] / size)[..., place])),
        (form.factor_loc(z), other.factor_loc(moved)),
    ):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-12)


def test_a_direction_without_movement_has_no_slope_to_take_out(raw) -> None:
    still = raw | {"beta": torch.cat([raw["beta"][..., :2], torch.ones(DATES, ASSETS, 1)], -1)}
    form = CanonicalForm(FACTORS).double()
    form.set_from(**still)
    assert float(form.shift[2]) == pytest.approx(0.0, abs=1e-13)
    assert torch.isfinite(form.shift).all()


def test_absent_assets_do_not_matter(raw, form) -> None:
    other = CanonicalForm(FACTORS).double()
    mask = raw["present"]
    other.set_from(
        beta=torch.where(mask.unsqueeze(-1), raw["beta"], 1e9),
        alpha=torch.where(mask, raw["alpha"], float("nan")),
        factor_scale=raw["factor_scale"],
        present=mask,
    )
    for name, value in form.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
