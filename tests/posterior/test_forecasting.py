"""Forecasts: the law's own moments, exact quantiles, NaN where an asset did not enter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import norm

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.errors import PanelError, ShapeError, SpecError, SplitError
from nfi_pyro.posterior import ReturnForecast, forecast
from nfi_pyro.posterior.blocks import open_pass
from nfi_pyro.svi import SVIFit


@pytest.fixture(scope="module")
def forecasts(fit: SVIFit, panel: Panel) -> ReturnForecast:
    return forecast(fit, panel)


def test_moments_are_those_of_the_law(fit: SVIFit, panel: Panel, forecasts: ReturnForecast) -> None:
    visit = open_pass(fit, panel, None)
    with torch.no_grad():
        batch = visit.windows.batch(1, 47)  # one block, where the forecast took seven
        law = fit.model.law(fit.model.context(batch))
    alpha, scale = law.loc[..., 0].double(), law.scale[..., 0].double()
    beta, loc = law.beta.double(), law.factor_loc.double()
    mean = alpha + torch.einsum("dak,dk->da", beta, loc)
    shared = torch.einsum("dak,dk->da", beta**2, law.factor_scale.double() ** 2)
    entered = visit.windows.entered[1:].numpy()
    unit = fit.return_scale
    for found, wanted in (
        (forecasts.mean, mean * unit),
        (forecasts.variance, (shared + scale**2) * unit**2),
        (forecasts.standard_deviation, (shared + scale**2).sqrt() * unit),
        (forecasts.data["specific_variance"], scale**2 * unit**2),
    ):
        np.testing.assert_allclose(
            found.values[entered], wanted.numpy()[entered], rtol=1e-5, atol=1e-6 * unit
        )
        np.testing.assert_array_equal(np.isfinite(found.values), entered)
    assert 0 < (~entered).sum() < entered.size


def test_an_asset_enters_when_it_is_tradable_and_complete_at_every_lag(
    panel: Panel, forecasts: ReturnForecast
) -> None:
    present = np.isfinite(panel["features"].values).all(-1)
    wanted = panel["tradable"].values[1:] & present[1:] & present[:-1]
    np.testing.assert_array_equal(forecasts.data["entered"].values, wanted)
    for name in ("weight", "loc", "scale", "beta", "specific_variance"):
        hidden = np.isnan(forecasts.data[name].values)
        expanded = wanted.reshape(wanted.shape + (1,) * (hidden.ndim - 2))
        np.testing.assert_array_equal(hidden, np.broadcast_to(~expanded, hidden.shape))
    assert bool(np.isfinite(forecasts.data["factor_scale"]).all())


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_the_cdf_of_a_quantile_is_its_level(request: Any, kind: str) -> None:
    law: ReturnForecast = request.getfixturevalue(kind)
    levels = (0.001, 0.05, 0.5, 0.77, 0.999)
    quantiles = law.quantile(levels)
    assert quantiles.dims == ("quantile", "date", "asset")
    for level in levels:
        found = law.cdf(quantiles.sel(quantile=level, drop=True))
        np.testing.assert_allclose(found.values, level, rtol=0, atol=1e-11)
    xr.testing.assert_equal(law.quantile(0.05), quantiles.sel(quantile=0.05, drop=True))


def test_cdf_log_density_and_crps_of_a_gaussian_are_closed_form(gaussian: ReturnForecast) -> None:
    value = xr.full_like(gaussian.mean, 0.013)
    law = norm(gaussian.mean.values, gaussian.standard_deviation.values)
    z = (0.013 - gaussian.mean.values) / gaussian.standard_deviation.values
    crps = z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi)
    crps *= gaussian.standard_deviation.values
    np.testing.assert_allclose(gaussian.cdf(value).values, law.cdf(0.013), atol=1e-14)
    np.testing.assert_allclose(gaussian.log_prob(value).values, law.logpdf(0.013), atol=1e-12)
    np.testing.assert_allclose(gaussian.crps(value).values, crps, atol=1e-14)


def test_values_are_aligned_by_label_and_what_either_lacks_is_nan(
    mixture: ReturnForecast,
) -> None:
    value = xr.full_like(mixture.mean, 0.01)
    value[0, 2] = np.nan
    whole = mixture.cdf(value)
    shuffled = mixture.cdf(value.transpose("asset", "date").isel(asset=[4, 2, 0], date=[1, 0]))
    xr.testing.assert_equal(shuffled.isel(asset=[0, 2, 4]), whole.isel(asset=[0, 2, 4]))
    assert bool(shuffled.isel(asset=[1, 3]).isnull().all())
    assert np.argwhere(np.isnan(whole.values)).tolist() == [[0, 2]]
    with pytest.raises(ShapeError, match=r"values must have dims date and asset; got"):
        mixture.cdf(value.expand_dims(draw=2))
    with pytest.raises(ShapeError, match=r"values must have dims date and asset; got"):
        mixture.log_prob(value.isel(date=0))


def test_a_level_outside_zero_and_one_is_refused(mixture: ReturnForecast) -> None:
    with pytest.raises(SpecError, match=r"strictly between 0 and 1; got 1.0"):
        mixture.quantile([0.5, 1.0])
    with pytest.raises(SpecError, match=r"strictly between 0 and 1; got 0.0"):
        mixture.quantile(0)


def test_forecasts_do_not_depend_on_the_block_or_on_the_dates_asked_for(
    fit: SVIFit, panel: Panel, forecasts: ReturnForecast
) -> None:
    days = [str(day)[:10] for day in panel["date"].values]
    part = forecast(fit, panel, dates=(days[11], days[17]))
    assert part.data.sizes["date"] == 7
    for name in ("loc", "scale", "factor_loc"):
        np.testing.assert_allclose(
            part.data[name], forecasts.data[name].isel(date=slice(10, 17)), rtol=1e-5, atol=1e-8
        )
    with pytest.raises(SplitError, match=r"must hold a date with a full window of 2 lags"):
        forecast(fit, panel, dates=(None, days[0]))


def test_a_panel_with_other_features_is_refused(fit: SVIFit, panel: Panel) -> None:
    renamed = panel.assign_coords(feature=["x0", "x1", "x2", "x3", "extra"])
    with pytest.raises(PanelError, match=r"missing \['x4'\], unknown \['extra'\]"):
        forecast(fit, check_panel(renamed))


def test_a_forecast_comes_back_from_its_file(
    fit: SVIFit, forecasts: ReturnForecast, tmp_path: Path
) -> None:
    place = forecasts.save(tmp_path / "deep" / "forecast.nc")
    loaded = ReturnForecast.load(str(place))
    xr.testing.assert_identical(loaded.data, forecasts.data)
    assert loaded.data["entered"].dtype == bool
    assert loaded.data.attrs["unit"] == "return"
    assert loaded.data.attrs["return_scale"] == fit.return_scale
    xr.testing.assert_identical(loaded.mean, forecasts.mean)


# ---- covariance and joint draws ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_every_form_of_the_covariance_agrees(request: Any, kind: str) -> None:
    law: ReturnForecast = request.getfixturevalue(kind)
    covariance = law.covariance("2021-05-03")
    dense = covariance.dense()
    vector = np.array([0.3, -0.2, 0.7, 0.0, 0.2])
    np.testing.assert_allclose(covariance.matvec(vector), dense @ vector, rtol=1e-12)
    assert covariance.quadratic(vector) == pytest.approx(vector @ dense @ vector, rel=1e-12)
    assert covariance.log_determinant() == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-12)
    np.testing.assert_allclose(np.diag(dense), law.variance.values[0], rtol=1e-12)
    day = law.on("2021-05-03")
    shared = (day["beta"] * day["factor_scale"]).values
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(dense[off], (shared @ shared.T)[off], rtol=1e-12)


def test_the_covariance_has_only_assets_with_a_forecast(forecasts: ReturnForecast) -> None:
    day = forecasts.data.isel(date=29)  # one asset trades
    covariance = forecasts.covariance(str(day["date"].values))
    assert covariance.assets.tolist() == day["asset"].values[day["entered"].values].tolist()
    assert covariance.loadings.shape == (len(covariance.assets), 3)
    assert len(covariance.assets) < 2


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_joint_draws_have_the_laws_moments_and_share_factors(request: Any, kind: str) -> None:
    law: ReturnForecast = request.getfixturevalue(kind)
    n = 40_000
    draws = law.sample(n, seed=5, date="2021-05-04").values
    dense = law.covariance("2021-05-04").dense()
    sd = np.sqrt(np.diag(dense))
    mean_error = (draws.mean(0) - law.mean.values[1]) / (sd / np.sqrt(n))
    assert np.abs(mean_error).max() < 4.5  # 5 assets
    centred = (draws - draws.mean(0)) / sd
    correlation = dense / np.outer(sd, sd)
    products = np.einsum("sa,sb->sab", centred, centred)
    error = (products.mean(0) - correlation) / (products.std(0) / np.sqrt(n))
    assert np.abs(error).max() < 4.5  # 15 entries, each in its own standard errors
    # What the test must be able to see: correlations stand far outside that tolerance.
    off = np.abs(correlation[np.triu_indices(5, 1)])
    assert off.max() > 20 * (products.std(0) / np.sqrt(n)).max()


def test_draws_depend_on_the_seed_alone(forecasts: ReturnForecast) -> None:
    one, two = (forecasts.sample(13, seed=7) for _ in range(2))
    xr.testing.assert_identical(one, two)
    assert not one.equals(forecasts.sample(13, seed=8))
    entered = forecasts.data["entered"].values[-1]
    np.testing.assert_array_equal(np.isfinite(one.values), np.broadcast_to(entered, (13, 11)))


def test_a_forecast_without_dependence_refuses_joint_quantities(remake: Any) -> None:
    alone = remake(2, dependence="none")
    assert alone.mean.shape == (2, 5)
    for what, ask in (
        ("a covariance", lambda: alone.covariance()),
        ("joint draws", lambda: alone.sample(3, 1)),
        ("portfolio risk", lambda: alone.portfolio({"A0": 1.0})),
    ):
        with pytest.raises(SpecError, match=rf"{what} must know how assets depend on each other"):
            ask()


@pytest.mark.parametrize("unit", ["rank", "excess"])
def test_risk_of_labels_that_are_no_returns_is_refused(remake: Any, unit: str) -> None:
    with pytest.raises(SpecError, match=rf"must be in return units; got a forecast of '{unit}'"):
        remake(1, unit=unit).portfolio({"A0": 1.0})


def test_an_unknown_date_is_refused(mixture: ReturnForecast) -> None:
    with pytest.raises(SpecError, match=r"got 2021-05-05, forecasts run from 2021-05-03 to 2021"):
        mixture.on("2021-05-05")
    assert mixture.on()["date"].values == np.datetime64("2021-05-04")
    assert mixture.on("2021-05-03 15:00")["date"].values == np.datetime64("2021-05-03")
