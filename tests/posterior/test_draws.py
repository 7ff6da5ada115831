"""Factors of past dates: exact moments against dense conditioning, and draws that have them."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from nfi_pyro.data.panel import Panel
from nfi_pyro.distributions import FactorMixture
from nfi_pyro.errors import SpecError
from nfi_pyro.factor_vae import FactorVAE
from nfi_pyro.posterior import Posterior, forecast, sample_posterior
from nfi_pyro.posterior.blocks import open_pass
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi

DRAWS = 3_000


@pytest.fixture(scope="module")
def posterior(fit: SVIFit, panel: Panel) -> Posterior:
    return sample_posterior(fit, panel, draws=DRAWS, seed=17)


def condition(posterior: Posterior, position: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of z given a date's returns, through the asset covariance."""
    cells = posterior.constants.isel(date=position)
    moments = posterior.moments.isel(date=position)
    kept = cells["observed"].values
    beta = cells["beta"].values[kept].astype(np.float64)
    specific = cells["specific_scale"].values[kept].astype(np.float64) ** 2
    surprise = cells["forward_return"].values[kept] - cells["alpha_loc"].values[kept]
    loc = moments["prior_loc"].values
    prior = np.diag(moments["prior_scale"].values ** 2)
    total = beta @ prior @ beta.T + np.diag(specific)
    gain = prior @ beta.T @ np.linalg.inv(total)
    return loc + gain @ (surprise - beta @ loc), prior - gain @ beta @ prior


def test_moments_are_those_of_dense_conditioning(posterior: Posterior, fit: SVIFit) -> None:
    moved = 0.0
    for position in range(posterior.moments.sizes["date"]):
        mean, covariance = condition(posterior, position)
        found = posterior.moments.isel(date=position)
        # The stored cells are float32: exposures and returns carry errors of 1e-7.
        tolerance: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6 * fit.return_scale}
        np.testing.assert_allclose(found["posterior_loc"], mean, **tolerance)
        scale = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(found["posterior_scale"], scale, rtol=1e-5)
        np.testing.assert_allclose(
            found["posterior_covariance"], covariance, rtol=1e-4, atol=1e-6 * fit.return_scale**2
        )
        moved = max(moved, float(np.abs(mean - found["prior_loc"].values).max()))
    assert moved > 0.05 * fit.return_scale


def test_draws_have_the_exact_moments(posterior: Posterior) -> None:
    z = posterior.z.values.astype(np.float64)  # (draw, date, factor)
    moments = posterior.moments
    error = (z.mean(0) - moments["posterior_loc"].values) / moments["posterior_scale"].values
    n_cells = error.size
    assert np.abs(error).max() * np.sqrt(DRAWS) < 4.8  # 138 standard normals exceed it once in 4000
    assert np.square(error * np.sqrt(DRAWS)).mean() == pytest.approx(
        1.0, abs=4 * np.sqrt(2 / n_cells)
    )
    sd = moments["posterior_scale"].values
    centred = (z - z.mean(0)) / sd
    found = np.einsum("sdk,sdl->dkl", centred, centred) / DRAWS
    wanted = moments["posterior_covariance"].values / (sd[:, :, None] * sd[:, None, :])
    error = (found - wanted) / np.sqrt((1.0 + wanted**2) / DRAWS)
    assert np.abs(error).max() < 4.8
    off = np.abs(wanted[:, 0, 1]).max()
    assert off > 5 / np.sqrt(DRAWS)  # a diagonal posterior would be seen


def test_prior_draws_have_the_priors_moments_and_know_no_return(
    posterior: Posterior, fit: SVIFit, panel: Panel
) -> None:
    z = posterior.z_prior.values.astype(np.float64)
    loc, scale = (posterior.moments[name].values for name in ("prior_loc", "prior_scale"))
    assert np.abs((z.mean(0) - loc) / scale).max() * np.sqrt(DRAWS) < 4.8
    assert np.abs(z.std(0) / scale - 1.0).max() * np.sqrt(2 * DRAWS) < 4.8
    law = forecast(fit, panel)
    np.testing.assert_allclose(law.data["factor_loc"], loc, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(law.data["factor_scale"], scale, rtol=1e-5)
    blind = panel.copy(deep=True)
    blind["forward_return"].values[:] = np.nan
    other = sample_posterior(fit, Panel(blind), draws=DRAWS, seed=17)
    xr.testing.assert_identical(other.z_prior, posterior.z_prior)


def test_prior_and_posterior_draws_are_independent(posterior: Posterior) -> None:
    one, two = (
        (z.values - z.values.mean(0)) / z.values.std(0)
        for z in (posterior.z.astype(np.float64), posterior.z_prior.astype(np.float64))
    )
    correlation = (one * two).mean(0)
    assert np.abs(correlation).max() * np.sqrt(DRAWS) < 4.8


def test_without_an_outcome_the_posterior_is_the_prior(posterior: Posterior) -> None:
    observed = posterior.constants["observed"].any("asset").values
    assert np.flatnonzero(~observed).tolist() == [19, *np.flatnonzero(~observed)[1:]]
    empty = posterior.moments.isel(date=~observed)
    np.testing.assert_allclose(empty["posterior_loc"], empty["prior_loc"], rtol=1e-12)
    np.testing.assert_allclose(empty["posterior_scale"], empty["prior_scale"], rtol=1e-12)
    seen = posterior.moments.isel(date=observed)
    assert bool((seen["posterior_scale"] < seen["prior_scale"]).all())


def test_more_returns_never_widen_the_posterior(
    posterior: Posterior, fit: SVIFit, panel: Panel
) -> None:
    fewer = panel.copy(deep=True)
    fewer["forward_return"].values[:, ::2] = np.nan
    other = sample_posterior(fit, Panel(fewer), draws=1)
    wide, narrow = other.moments["posterior_scale"], posterior.moments["posterior_scale"]
    assert bool((wide >= narrow - 1e-15).all())
    assert float((wide - narrow).max()) > 0.0


def test_a_seed_gives_the_same_draws_and_leaves_global_generators(
    fit: SVIFit, panel: Panel
) -> None:
    before = torch.get_rng_state()
    one, two, other = (sample_posterior(fit, panel, draws=5, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    xr.testing.assert_identical(one.z, two.z)
    xr.testing.assert_identical(one.moments, two.moments)
    assert not one.z.equals(other.z)
    assert not one.z_prior.equals(other.z_prior)


def test_the_encoder_stands_beside_the_exact_posterior(
    posterior: Posterior, fit: SVIFit, panel: Panel
) -> None:
    visit = open_pass(fit, panel, None)
    with torch.no_grad():
        context = fit.model.context(visit.windows.batch(1, 47))
        loc, scale = fit.model.encode(context, visit.windows.outcome(1, 47))
    unit = fit.return_scale
    tolerance: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-6 * unit}
    np.testing.assert_allclose(posterior.moments["encoder_loc"], loc.numpy() * unit, **tolerance)
    np.testing.assert_allclose(
        posterior.moments["encoder_scale"], scale.numpy() * unit, **tolerance
    )
    assert not np.allclose(posterior.moments["encoder_scale"], posterior.moments["posterior_scale"])


def test_a_model_without_an_encoder_has_no_encoder_moments(panel: Panel, fit: SVIFit) -> None:
    spec = fit.model.spec.model_copy(update={"variant": "prior"})
    config = SVIConfig(n_epochs=1, block_size=7, progress=False, device="cpu")
    other = fit_svi(FactorVAE(spec), panel, config=config)
    names = set(sample_posterior(other, panel, draws=1).moments)
    assert names == {
        "prior_loc", "prior_scale", "posterior_loc", "posterior_scale", "posterior_covariance"
    }  # fmt: skip


def test_constants_are_in_return_units_and_hide_what_did_not_enter(
    posterior: Posterior, fit: SVIFit, panel: Panel
) -> None:
    law = forecast(fit, panel)
    constants = posterior.constants
    entered = law.data["entered"].values
    for name in ("alpha_loc", "specific_scale", "beta"):
        found = np.isfinite(constants[name].values)
        found = found if found.ndim == 2 else found.all(-1)
        np.testing.assert_array_equal(found, entered)
    np.testing.assert_allclose(
        constants["specific_scale"].values[entered] ** 2,
        law.data["specific_variance"].values[entered],
        rtol=1e-5,
    )
    wanted = panel["forward_return"].values[1:]
    observed = entered & np.isfinite(wanted)
    np.testing.assert_array_equal(constants["observed"].values, observed)
    np.testing.assert_allclose(
        constants["forward_return"].values, np.where(observed, wanted, np.nan), rtol=1e-6
    )


def test_the_books_factor_return_does_not_depend_on_how_factors_are_turned(
    posterior: Posterior,
) -> None:
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turned = Posterior(
        posterior.factors.assign(z=posterior.z.copy(data=posterior.z.values @ rotation)),
        posterior.moments,
        posterior.constants.assign(
            beta=posterior.constants["beta"].copy(
                data=posterior.constants["beta"].values @ rotation
            )
        ),
    )
    book = posterior.book_factor_return
    assert book.dims == ("draw", "date")
    np.testing.assert_allclose(turned.book_factor_return, book, atol=1e-6)


def test_two_equal_components_are_as_good_as_one(
    fit: SVIFit, panel: Panel, posterior: Posterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    law = FactorVAE.law

    def two_components(self: FactorVAE, context: object) -> FactorMixture:
        one = law(self, context)  # type: ignore[arg-type]
        logits, loc, scale = (
            part.expand(*part.shape[:-1], 2) for part in (one.logits, one.loc, one.scale)
        )
        return FactorMixture(logits, loc, scale, one.beta, one.factor_loc, one.factor_scale)

    monkeypatch.setattr(FactorVAE, "law", two_components)
    twice = sample_posterior(fit, panel, draws=2, seed=0)
    for name in ("posterior_loc", "posterior_scale", "posterior_covariance"):
        np.testing.assert_allclose(
            twice.moments[name], posterior.moments[name], rtol=1e-9, atol=1e-15
        )


def test_draws_and_seeds_out_of_range_are_refused(fit: SVIFit, panel: Panel) -> None:
    with pytest.raises(SpecError, match="draws must be >= 1; got 0"):
        sample_posterior(fit, panel, draws=0)
    with pytest.raises(SpecError, match=r"seed must be in \[0, 2\*\*64\); got -1"):
        sample_posterior(fit, panel, draws=2, seed=-1)
