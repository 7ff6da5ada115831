"""Draws of random last layers: labelled, seeded, in forecasts, and in the prior's check."""

import numpy as np
import pytest
import torch
import xarray as xr

from nfi_pyro.catalogue import find_model
from nfi_pyro.data.panel import Panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.distributions.heads import HeadSpec
from nfi_pyro.errors import SpecError
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.posterior import (
    draw_fits,
    forecast,
    forecast_heads,
    head_prior_predictive,
    sample_posterior,
)
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi

DRAWS, DIFFERENT = 40, 5


def fit_of(panel: Panel, kind: str) -> SVIFit:
    spec = FactorVAESpec(
        n_features=5,
        lags=2,
        projection_size=4,
        hidden_size=4,
        n_factors=3,
        n_portfolios=5,
        alpha_hidden_size=4,
        prior_hidden_size=4,
        heads=HeadSpec.model_validate({"kind": kind, "rank": 3}),
    )
    config = SVIConfig(n_epochs=3, block_size=7, learning_rate=1e-2, progress=False, device="cpu")
    return fit_svi(FactorVAE(spec), panel, config=config, seed=3)


@pytest.fixture(scope="module")
def small() -> Panel:
    spec = SimulationSpec(n_dates=61, n_assets=11, n_features=5, n_factors=3, missing_share=0.05)
    return simulate_panel(spec, seed=23)[0]


@pytest.fixture(scope="module")
def random(small: Panel) -> SVIFit:
    return fit_of(small, "low_rank")


def test_the_divergence_of_the_heads_is_in_the_history(random: SVIFit) -> None:
    curve = random.history["heads_kl"]
    assert curve.dims == ("step",)
    assert curve.attrs["units"] == "nats"
    assert (curve > 0).all()
    assert curve[-1] != curve[0]


def test_in_evaluation_the_layers_are_at_the_guides_location(random: SVIFit) -> None:
    heads = random.model.heads
    for name, value in heads.weights(heads.loc.detach()).items():
        torch.testing.assert_close(random.model.state_dict()[name], value)


def test_a_saved_fit_has_the_same_heads(random: SVIFit, small: Panel, tmp_path) -> None:
    again = SVIFit.load(random.save(tmp_path / "run"))
    for one, two in zip(
        forecast_heads(random, small, draws=2, seed=1),
        forecast_heads(again, small, draws=2, seed=1),
        strict=True,
    ):
        np.testing.assert_array_equal(one.mean, two.mean)


def test_draws_share_a_few_draws_of_the_heads_and_say_which(random, small) -> None:
    posterior = sample_posterior(random, small, draws=DRAWS, seed=1, head_draws=DIFFERENT)
    which = posterior.heads["head_draw"].values
    assert np.array_equal(np.bincount(which), np.full(DIFFERENT, DRAWS // DIFFERENT))
    beta = posterior.heads["beta_weight"]
    assert beta.shape == (DRAWS, 3, 4)
    assert posterior.heads["alpha_loc_weight"].shape == (DRAWS, 4)
    assert list(posterior.heads["head_group"].values) == ["alpha", "beta", "price", "noise"]
    for place in range(DIFFERENT):
        rows = beta.values[which == place]
        assert (rows == rows[0]).all()
    assert not np.array_equal(beta.values[0], beta.values[-1])
    drawn = random.model.heads.draw(DIFFERENT, seed=1)
    expected = random.model.heads.weights(drawn[0])["beta.weight"].detach().numpy()
    np.testing.assert_allclose(beta.values[0], expected, rtol=1e-6)


def test_factors_are_those_of_their_own_heads(random, small) -> None:
    """One draw of the heads, many of z: the exact posterior under that draw, not the location."""
    posterior = sample_posterior(random, small, draws=4_000, seed=2, head_draws=1)
    draw = random.model.heads.draw(1, seed=2)[0]
    law = forecast(random, small, heads=draw)
    np.testing.assert_allclose(
        posterior.z_prior.mean("draw"),
        law.data["factor_loc"],
        atol=4.5 * float(law.data["factor_scale"].max()) / 4_000**0.5,
    )
    book = law.data["beta"].mean("asset")
    np.testing.assert_allclose(posterior.factors["book_beta"][0], book, rtol=1e-4, atol=1e-6)
    by_hand = (posterior.z * posterior.factors["book_beta"]).sum("factor")
    np.testing.assert_allclose(posterior.book_factor_return, by_hand, rtol=1e-6)


def test_point_heads_have_no_draws(small: Panel) -> None:
    fit = fit_of(small, "point")
    posterior = sample_posterior(fit, small, draws=4, seed=0)
    assert not posterior.heads
    assert "book_beta" not in posterior.factors
    with pytest.raises(SpecError, match=r"must be random to be drawn.*point estimates.*low_rank"):
        forecast_heads(fit, small)
    with pytest.raises(SpecError, match=r"prior of last layers must exist"):
        head_prior_predictive(fit, small)


def test_forecasts_of_draws_scatter_around_the_one_at_the_location(random, small) -> None:
    members = forecast_heads(random, small, draws=30, seed=4)
    assert len(members) == 30
    means = np.stack([member.mean.values for member in members])
    centre = forecast(random, small).mean.values
    kept = np.isfinite(centre)
    spread = means[:, kept].std(axis=0)
    assert spread.min() > 0
    # Thirty draws around their mean: an average distance of .8 / sqrt(30) of their spread.
    assert (np.abs(means[:, kept].mean(axis=0) - centre[kept]) / spread).mean() < 0.5


def test_options_out_of_range_are_refused(random, small) -> None:
    with pytest.raises(SpecError, match=r"head_draws must be >= 1; got 0"):
        sample_posterior(random, small, head_draws=0)
    with pytest.raises(SpecError, match=r"draws must be >= 1; got 0"):
        forecast_heads(random, small, draws=0)
    with pytest.raises(SpecError, match=r"source prior or posterior; got 5 and 'data'"):
        head_prior_predictive(random, small, draws=5, source="data")


def test_the_prior_is_wider_than_the_posterior_and_in_return_units(random, small) -> None:
    prior = head_prior_predictive(random, small, draws=60, seed=0)
    after = head_prior_predictive(random, small, draws=60, seed=0, source="posterior")
    assert set(prior.data_vars) == {
        "daily_scale", "book_scale", "mean_share", "factor_share", "excess_kurtosis",
    }  # fmt: skip
    assert prior["daily_scale"].attrs["units"] == "decimal return"
    for name in ("daily_scale", "book_scale", "factor_share"):
        assert float(prior[name].std()) > 3.0 * float(after[name].std()), name
    # The laws are Gaussian: this model has one component.
    np.testing.assert_allclose(prior["excess_kurtosis"], 0.0, atol=1e-5)
    observed = float(small["forward_return"].std())
    assert 0.3 < float(after["daily_scale"].mean()) / observed < 2.0


def test_the_prior_check_is_that_of_the_law(random, small) -> None:
    """One date by hand: shares and scales from the forecast of the same draw."""
    day = str(small["date"].values[-1])[:10]
    found = head_prior_predictive(random, small, draws=2, seed=9, dates=(day, day))
    draw = random.model.heads.draw_prior(2, seed=9)[0]
    law = forecast(random, small, dates=(day, day), heads=draw)
    day_law = law.data.isel(date=0)
    deviation = law.standard_deviation.values[0]
    variance, mean = np.nanmean(deviation**2), law.mean.values[0]
    spread = np.nanvar(mean)
    assert float(found["daily_scale"][0]) == pytest.approx(np.nanmean(deviation), rel=1e-5)
    assert float(found["mean_share"][0]) == pytest.approx(spread / (spread + variance), rel=1e-4)
    shared = 1.0 - day_law["specific_variance"].values / deviation**2
    assert float(found["factor_share"][0]) == pytest.approx(np.nanmean(shared), rel=1e-4)
    kept = day_law["entered"].values
    book = law.covariance().quadratic(np.full(kept.sum(), 1.0 / kept.sum())) ** 0.5
    assert float(found["book_scale"][0]) == pytest.approx(book, rel=1e-4)


@pytest.mark.parametrize("name", ["mixture_pricing", "neural_factor"])
def test_models_without_factors_have_draws_of_heads_too(name: str, small: Panel) -> None:
    entry = find_model(name)
    values = {"n_exposures": 5, "hidden_size": 4, "heads": HeadSpec(kind="full")}
    model = entry.model_class()(entry.spec_class().model_validate(values))
    config = SVIConfig(n_epochs=2, block_size=7, learning_rate=1e-2, progress=False, device="cpu")
    fit = fit_svi(model, small, config=config, seed=3)
    posterior = sample_posterior(fit, small, draws=6, head_draws=3, seed=1)
    assert not posterior.has_factors
    assert list(posterior.heads["head_group"].values) == ["alpha", "noise"]
    readout = next(str(n) for n in posterior.heads if str(n).endswith("readout_weight"))
    assert posterior.heads[readout].shape == (6, 4)
    one, two = forecast_heads(fit, small, draws=2, seed=1)
    assert float(abs(one.mean - two.mean).max()) > 0.0
    shares = head_prior_predictive(fit, small, draws=3)
    np.testing.assert_array_equal(shares["factor_share"], 0.0)


def test_a_fit_at_a_draw_forecasts_what_that_draw_forecasts(random: SVIFit, small: Panel) -> None:
    before = forecast(random, small).mean
    wanted = forecast_heads(random, small, draws=3, seed=5)
    members = draw_fits(random, draws=3, seed=5)
    for member, law in zip(members, wanted, strict=True):
        xr.testing.assert_allclose(forecast(member, small).mean, law.mean, rtol=1e-5)
    xr.testing.assert_identical(forecast(random, small).mean, before)  # and is not touched
    assert not forecast(members[0], small).mean.equals(forecast(members[1], small).mean)


def test_point_heads_have_no_fits_at_draws(small: Panel) -> None:
    with pytest.raises(SpecError, match="last layers must be random to be drawn"):
        draw_fits(fit_of(small, "point"))
