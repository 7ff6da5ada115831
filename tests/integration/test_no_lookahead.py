"""No look-ahead, with power: what comes after t never moves a forecast; what comes before does."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.data.splits import DateSplit, split_dates
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.factor_vae.spec import Variant
from nfi_pyro.posterior import forecast
from nfi_pyro.svi import SVIConfig, fit_svi

NOW = 47  # the last position that a forecast of today may know
LAGS = 2


@pytest.fixture(scope="module")
def panel() -> Panel:
    spec = SimulationSpec(n_dates=61, n_assets=7, n_features=5, n_factors=3, missing_share=0.05)
    return simulate_panel(spec, seed=41)[0]


@pytest.fixture(scope="module")
def split(panel: Panel) -> DateSplit:
    """Return spans whose last label is realised at the close of `NOW`, and no test span."""
    days = [str(day)[:10] for day in panel["date"].values]
    split = split_dates(
        panel["date"].values,
        train=(days[0], days[34]),
        validation=(days[35], days[NOW - 2]),
    )
    assert split.train.last == days[32]  # a label needs the closes of the next two dates
    return split


def forecasts_up_to_now(panel: Panel, split: DateSplit, *, variant: Variant = "full") -> xr.Dataset:
    spec = FactorVAESpec(
        n_features=5,
        lags=LAGS,
        projection_size=4,
        hidden_size=4,
        n_factors=3,
        n_portfolios=5,
        alpha_hidden_size=4,
        prior_hidden_size=4,
        variant=variant,
    )
    config = SVIConfig(n_epochs=3, block_size=7, learning_rate=1e-2, progress=False, device="cpu")
    fit = fit_svi(FactorVAE(spec), panel, config=config, split=split, seed=3)
    days = [str(day)[:10] for day in panel["date"].values]
    found = forecast(fit, panel, dates=(None, days[NOW])).data
    return found.assign_attrs(fit_panel_hash="")  # the hash rightly knows the whole panel


def changed(panel: Panel, change: Callable[[xr.Dataset], None]) -> Panel:
    other = panel.copy(deep=True)
    change(other)
    return check_panel(other)


def corrupt_the_future(data: xr.Dataset) -> None:
    """Change everything that is known only after the close of `NOW`."""
    rng = np.random.default_rng(5)
    # The return of date t is realised at the close of t + 2.
    returns = data["forward_return"].values
    returns[NOW - 1 :] = rng.normal(0.3, 5.0, returns[NOW - 1 :].shape)
    tradable = data["tradable"].values
    tradable[NOW + 1 :] = rng.random(tradable[NOW + 1 :].shape) < 0.5
    features = data["features"].values
    features[NOW + 1 :] = rng.normal(9.0, 50.0, features[NOW + 1 :].shape)


@pytest.mark.parametrize("variant", ["full", "prior", "port"])
def test_corrupting_everything_after_now_leaves_every_forecast_up_to_now(
    panel: Panel, split: DateSplit, variant: Variant
) -> None:
    base = forecasts_up_to_now(panel, split, variant=variant)
    other = forecasts_up_to_now(changed(panel, corrupt_the_future), split, variant=variant)
    assert base.sizes["date"] == NOW  # the first date lacks a lag
    xr.testing.assert_identical(base, other)


def first_entered(panel: Panel, date: int) -> int:
    kept = panel["tradable"].values[date - 1 : date + 1].all(0)
    kept &= np.isfinite(panel["forward_return"].values[date])
    return int(np.flatnonzero(kept)[0])


@pytest.mark.parametrize("date", [1, 13, 32])
def test_one_return_of_training_moves_the_forecasts(
    panel: Panel, split: DateSplit, date: int
) -> None:
    asset = first_entered(panel, date)

    def nudge(data: xr.Dataset) -> None:
        data["forward_return"].values[date, asset] += np.float32(0.05)

    base = forecasts_up_to_now(panel, split)
    other = forecasts_up_to_now(changed(panel, nudge), split)
    assert not base["loc"].equals(other["loc"])


def test_one_feature_of_today_moves_todays_forecast_and_no_earlier_one(
    panel: Panel, split: DateSplit
) -> None:
    asset = first_entered(panel, NOW)

    def nudge(data: xr.Dataset) -> None:
        data["features"].values[NOW, asset, 2] -= np.float32(0.5)

    base = forecasts_up_to_now(panel, split)
    other = forecasts_up_to_now(changed(panel, nudge), split)
    earlier = slice(None, -1)
    xr.testing.assert_identical(base.isel(date=earlier), other.isel(date=earlier))
    assert not base["loc"].isel(date=-1).equals(other["loc"].isel(date=-1))


def test_a_label_that_reaches_over_the_edge_of_training_is_purged(
    panel: Panel, split: DateSplit
) -> None:
    """Dates 33 and 34 are in the span asked for; their labels are realised in validation."""

    def nudge(data: xr.Dataset) -> None:
        data["forward_return"].values[33:35] *= -7.0

    base = forecasts_up_to_now(panel, split)
    xr.testing.assert_identical(base, forecasts_up_to_now(changed(panel, nudge), split))


def test_a_forecast_does_not_read_the_returns_of_its_panel(panel: Panel, split: DateSplit) -> None:
    config = SVIConfig(n_epochs=1, block_size=7, progress=False, device="cpu")
    spec = FactorVAESpec(n_features=5, lags=LAGS, hidden_size=4, n_factors=3, n_portfolios=5)
    fit = fit_svi(FactorVAE(spec), panel, config=config, split=split, seed=3)
    base = forecast(fit, panel).data

    def forget(data: xr.Dataset) -> None:
        data["forward_return"].values[:] = np.nan

    def invent(data: xr.Dataset) -> None:
        data["forward_return"].values[:] = 1e6

    for change in (forget, invent):
        xr.testing.assert_identical(forecast(fit, changed(panel, change)).data, base)


def test_an_assets_missing_future_does_not_remove_it_today(panel: Panel, split: DateSplit) -> None:
    """Dropping assets whose next return is missing would be look-ahead."""
    asset = first_entered(panel, NOW)

    def delist(data: xr.Dataset) -> None:
        data["forward_return"].values[NOW - 1 :, asset] = np.nan
        data["tradable"].values[NOW + 1 :, asset] = False

    other = forecasts_up_to_now(changed(panel, delist), split)
    assert bool(np.isfinite(other["loc"].isel(date=-1, asset=asset)).all())
    xr.testing.assert_identical(other, forecasts_up_to_now(panel, split))
