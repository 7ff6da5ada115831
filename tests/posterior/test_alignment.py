"""Alignment of factors: what was turned on purpose is turned back, and what beta'z sees stays."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from nfi_pyro.data.panel import Panel
from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.posterior import FactorAlignment, Posterior, align_factors, sample_posterior
from nfi_pyro.svi import SVIFit

N_FACTORS = 3
TURN = FactorAlignment(
    factors=("u0", "u1", "u2"),
    permutation=np.array([2, 0, 1]),
    sign=np.array([-1.0, 1.0, -1.0]),
    scale=np.array([0.5, 3.0, 7.0]),
    correlation=np.ones(3),
    affine_r_squared=np.ones(3),
    n_dates=0,
)


@pytest.fixture(scope="module")
def posterior(fit: SVIFit, panel: Panel) -> Posterior:
    return sample_posterior(fit, panel, draws=13, seed=1)


@pytest.fixture(scope="module")
def turned(posterior: Posterior) -> Posterior:
    return TURN.apply(posterior)


def test_what_was_turned_on_purpose_is_recovered_exactly(
    posterior: Posterior, turned: Posterior
) -> None:
    assert not np.allclose(turned.moments["posterior_loc"], posterior.moments["posterior_loc"])
    found = align_factors(posterior, turned)
    assert found.factors == tuple(posterior.z["factor"].values)
    back = np.argsort(TURN.permutation)
    np.testing.assert_array_equal(found.permutation, back)
    np.testing.assert_array_equal(found.sign, TURN.sign[back])
    np.testing.assert_allclose(found.scale, 1.0 / TURN.scale[back], rtol=1e-12)
    np.testing.assert_allclose(found.correlation, 1.0, rtol=1e-12)
    np.testing.assert_allclose(found.affine_r_squared, 1.0, rtol=1e-12)
    assert found.n_dates == posterior.z.sizes["date"]
    assert found.weak == ()
    again = found.apply(turned)
    for name in ("factors", "moments", "constants"):
        one, two = getattr(again, name), getattr(posterior, name)
        assert {k: v.dtype for k, v in one.variables.items() if v.dtype.kind == "f"} == {
            k: v.dtype for k, v in two.variables.items() if v.dtype.kind == "f"
        }
        xr.testing.assert_allclose(one, two, rtol=1e-6 if name != "moments" else 1e-12)


def test_what_is_identified_does_not_change(posterior: Posterior, turned: Posterior) -> None:
    for name in ("z", "z_prior"):  # float32: rounding of each term of the sum
        before = posterior.constants["beta"] @ posterior.factors[name]
        after = turned.constants["beta"] @ turned.factors[name]
        terms = abs(posterior.constants["beta"]) @ abs(posterior.factors[name])
        known = np.isfinite(terms.to_numpy())
        assert (abs(after - before) <= 4e-7 * terms).to_numpy()[known].all()
    xr.testing.assert_allclose(turned.book_factor_return, posterior.book_factor_return, rtol=1e-5)
    wide = replace(posterior, constants=posterior.constants[["beta"]].astype(np.float64))
    turned = TURN.apply(wide)
    means = [p.constants["beta"] @ p.moments["posterior_loc"] for p in (wide, turned)]
    np.testing.assert_allclose(means[1], means[0], rtol=0, atol=1e-12)
    spreads = [
        np.einsum("dak,dkl,dal->da", p.constants["beta"], p.moments["posterior_covariance"],
                  p.constants["beta"])
        for p in (wide, turned)
    ]  # fmt: skip
    np.testing.assert_allclose(spreads[1], spreads[0], rtol=1e-10)
    diagonal = np.einsum("dkk->dk", turned.moments["posterior_covariance"])
    np.testing.assert_allclose(turned.moments["posterior_scale"] ** 2, diagonal, rtol=1e-8)


def test_the_books_exposure_by_draw_turns_with_the_factors(posterior: Posterior) -> None:
    own = posterior.constants["beta"].mean("asset").expand_dims(draw=posterior.z.sizes["draw"])
    drawn = replace(posterior, factors=posterior.factors.assign(book_beta=own))
    heads = xr.Dataset({"beta_weight": (("draw", "beta_weight_0"), np.ones((13, 4)))})
    turned = TURN.apply(replace(drawn, heads=heads))
    xr.testing.assert_allclose(turned.book_factor_return, drawn.book_factor_return, rtol=1e-5)
    xr.testing.assert_identical(turned.heads, heads)


def test_only_common_dates_are_matched(posterior: Posterior, turned: Posterior) -> None:
    early = replace(turned, moments=turned.moments.isel(date=slice(0, 20)))
    late = replace(posterior, moments=posterior.moments.isel(date=slice(9, None)))
    found = align_factors(late, early)
    assert found.n_dates == 11
    np.testing.assert_allclose(found.correlation, 1.0, rtol=1e-10)


def test_a_match_that_means_little_is_reported(posterior: Posterior) -> None:
    rng = np.random.default_rng(3)
    other = posterior.moments.copy(deep=True)
    other["posterior_loc"].values[:, 1] = rng.normal(0.0, 0.01, other.sizes["date"])
    found = align_factors(posterior, replace(posterior, moments=other))
    assert list(found.permutation) == [0, 1, 2]
    assert found.weak == ("z1",)
    assert found.correlation[1] < 0.5
    np.testing.assert_allclose(np.delete(found.correlation, 1), 1.0)
    assert found.affine_r_squared[1] < 0.7


def test_a_rotation_is_told_by_the_affine_map_alone(posterior: Posterior) -> None:
    rotation = np.eye(3) - 2.0 / 3.0  # a reflection that leaves no factor near another
    white = np.random.default_rng(5).normal(size=(posterior.moments.sizes["date"], 3))
    white = np.linalg.qr(white - white.mean(0))[0]
    one, two = posterior.moments.copy(deep=True), posterior.moments.copy(deep=True)
    one["posterior_loc"].values[:] = white
    two["posterior_loc"].values[:] = white @ rotation + [1.0, -2.0, 3.0]
    found = align_factors(replace(posterior, moments=one), replace(posterior, moments=two))
    np.testing.assert_allclose(found.correlation, 2.0 / 3.0, rtol=1e-12)
    assert found.weak == ("z0", "z1", "z2")
    np.testing.assert_allclose(found.affine_r_squared, 1.0, rtol=1e-12)


def test_a_factor_that_does_not_vary_matches_nothing_and_breaks_nothing(
    posterior: Posterior,
) -> None:
    flat = posterior.moments.copy(deep=True)
    flat["posterior_loc"].values[:, 2] = 0.003
    still = replace(posterior, moments=flat)
    for one, two in ((posterior, still), (still, posterior), (still, still)):
        found = align_factors(one, two)
        assert found.correlation[2] == 0.0
        assert found.scale[2] == 1.0
        assert found.weak == ("z2",)
        assert np.isfinite(found.apply(two).z).all()
    assert np.isnan(align_factors(still, posterior).affine_r_squared[2])


def test_what_cannot_be_aligned_is_refused(posterior: Posterior) -> None:
    fewer = replace(
        posterior,
        moments=posterior.moments.isel(factor=[0, 1], factor_other=[0, 1]),
        factors=posterior.factors.isel(factor=[0, 1]),
    )
    with pytest.raises(ShapeError, match="same number of factors; got 3 and 2"):
        align_factors(posterior, fewer)
    with pytest.raises(ShapeError, match="must have the 3 factors that were aligned; got 2"):
        TURN.apply(fewer)
    elsewhere = replace(posterior, moments=posterior.moments.isel(date=slice(0, 4)))
    with pytest.raises(SpecError, match="more than 4 dates in common to match 3 factors; got 4"):
        align_factors(posterior, elsewhere)
    empty = Posterior(xr.Dataset(), xr.Dataset(), posterior.constants.drop_vars("beta"))
    with pytest.raises(SpecError, match="got a posterior of a model whose assets share none"):
        align_factors(posterior, empty)
    unknown = posterior.moments.assign(posterior_skewness=posterior.moments["posterior_loc"])
    with pytest.raises(SpecError, match="got posterior_skewness, which may turn in another way"):
        TURN.apply(replace(posterior, moments=unknown))
