"""What ArviZ is given: groups, dims, files, and the adapters of both of its generations."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from nfi_pyro.data.panel import Panel
from nfi_pyro.posterior import (
    Posterior,
    ReturnForecast,
    forecast,
    read_inference_data,
    sample_posterior,
    to_inference_data,
)
from nfi_pyro.svi import SVIFit

GROUPS = ["constant_data", "fit", "observed_data", "posterior", "predictions", "prior"]


@pytest.fixture(autouse=True, scope="module")
def cache_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """ArviZ writes a stamp file in the user's cache; matplotlib draws without a screen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        patch.setenv("MPLBACKEND", "Agg")
        yield


@pytest.fixture(scope="module")
def posterior(fit: SVIFit, panel: Panel) -> Posterior:
    return sample_posterior(fit, panel, draws=13, seed=5)


@pytest.fixture(scope="module")
def forecasts(fit: SVIFit, panel: Panel) -> ReturnForecast:
    return forecast(fit, panel)


@pytest.fixture(scope="module")
def idata(
    cache_of_our_own: None, fit: SVIFit, posterior: Posterior, forecasts: ReturnForecast
) -> Any:
    return to_inference_data(fit, posterior, forecasts)


def test_groups_dims_and_coordinates(
    idata: Any, posterior: Posterior, forecasts: ReturnForecast
) -> None:
    assert sorted(idata.groups()) == GROUPS
    for group in ("posterior", "prior"):
        dataset = idata[group]
        assert dataset["z"].dims == ("chain", "draw", "date", "factor")
        assert dataset["z"].shape == (1, 13, 46, 3)
        assert dataset["book_factor_return"].dims == ("chain", "draw", "date")
        assert dataset["factor"].values.tolist() == ["z0", "z1", "z2"]
    np.testing.assert_array_equal(idata.posterior["z"].values[0], posterior.z.values)
    np.testing.assert_array_equal(idata.prior["z"].values[0], posterior.z_prior.values)
    np.testing.assert_allclose(
        idata.posterior["book_factor_return"].values[0], posterior.book_factor_return, rtol=1e-6
    )
    assert idata.predictions["forward_return_quantile"].dims == ("quantile", "date", "asset")
    np.testing.assert_allclose(
        idata.predictions["forward_return_sd"], forecasts.standard_deviation, rtol=1e-6
    )
    assert set(idata.observed_data) == {"forward_return"}
    assert {"beta", "alpha_loc", "specific_scale", "observed", "encoder_loc", "posterior_loc"} <= (
        set(idata.constant_data)
    )
    assert idata.fit["kl"].dims == ("step", "fit_factor")


def test_attributes_say_where_the_draws_come_from(idata: Any, fit: SVIFit) -> None:
    for name in GROUPS:
        attrs = idata[name].attrs
        assert attrs["inference_library"] == "pyro"
        assert attrs["objective"] == "elbo"
        assert attrs["seed"] == 3
        assert attrs["chain_meaning"] == "one SVI fit per chain"
        assert attrs["return_scale"] == fit.return_scale
        assert json.loads(attrs["label"]) == fit.label
        assert json.loads(attrs["provenance"]) == fit.provenance


def test_without_a_forecast_there_are_no_predictions(fit: SVIFit, posterior: Posterior) -> None:
    assert "predictions" not in to_inference_data(fit, posterior).groups()


def test_the_levels_of_the_quantiles_are_those_asked_for(
    fit: SVIFit, posterior: Posterior, forecasts: ReturnForecast
) -> None:
    found = to_inference_data(fit, posterior, forecasts, quantiles=(0.1, 0.9)).predictions
    assert found["quantile"].values.tolist() == [0.1, 0.9]
    np.testing.assert_allclose(
        found["forward_return_quantile"][1], forecasts.quantile(0.9), rtol=1e-6
    )


def test_a_netcdf_file_comes_back(idata: Any, tmp_path: Path) -> None:
    import arviz as az

    place = str(tmp_path / "posterior.nc")
    idata.to_netcdf(place, engine="h5netcdf")
    for loaded in (az.from_netcdf(place, engine="h5netcdf"), read_inference_data(place)):
        assert sorted(loaded.groups()) == GROUPS
        for name in GROUPS:
            xr.testing.assert_equal(loaded[name], idata[name])
            assert {k: str(v) for k, v in loaded[name].attrs.items()} == {
                k: str(v) for k, v in idata[name].attrs.items()
            }
        for group in list(loaded.groups()):
            loaded[group].close()


@pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping")
def test_arviz_summarises_and_plots_it(idata: Any) -> None:
    import arviz as az
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    few = {"date": idata.posterior["date"].values[:2]}
    table = az.summary(idata.posterior.sel(few), var_names=["z"], kind="stats")
    assert len(table) == 2 * 3
    wanted = float(idata.posterior["z"].values[0, :, 0, 0].mean())
    assert table["mean"].iloc[0] == pytest.approx(wanted, abs=1e-3)
    traces = az.plot_trace(idata, var_names=["book_factor_return"], coords=few)
    assert traces.shape == (1, 2)
    forest = az.plot_forest(idata.posterior.sel(few), var_names=["z"])
    assert len(forest) == 1
    plt.close("all")


def test_the_newer_arviz_gets_the_same_groups_as_a_tree(
    fit: SVIFit,
    posterior: Posterior,
    forecasts: ReturnForecast,
    idata: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import arviz as az

    monkeypatch.delattr(az, "InferenceData")
    tree = to_inference_data(fit, posterior, forecasts)
    assert isinstance(tree, xr.DataTree)
    assert sorted(tree.children) == GROUPS
    for name in GROUPS:
        xr.testing.assert_identical(tree[name].to_dataset(), idata[name])
    assert tree.attrs["seed"] == 3
    place = tmp_path / "tree.nc"
    tree.to_netcdf(place, engine="h5netcdf")
    loaded = read_inference_data(place)
    assert sorted(loaded.children) == GROUPS
    xr.testing.assert_equal(loaded["posterior"].to_dataset(), idata.posterior)
    loaded.close()


def test_a_date_on_which_nothing_trades_has_its_prior_and_no_forecast(
    fit: SVIFit, panel: Panel
) -> None:
    empty = panel.copy(deep=True)
    empty["tradable"].values[33] = False
    empty["forward_return"].values[33] = np.nan
    found = to_inference_data(
        fit, sample_posterior(fit, Panel(empty), draws=3), forecast(fit, Panel(empty))
    )
    day = found.constant_data.isel(date=32)
    np.testing.assert_allclose(day["posterior_loc"], day["prior_loc"], rtol=1e-12)
    assert bool(found.predictions["forward_return_mean"].isel(date=32).isnull().all())
