"""What ArviZ is given: groups, dims, files, and the adapters of both of its generations."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from nfi_pyro.data.panel import Panel
from nfi_pyro.errors import CheckpointError, ShapeError, SpecError
from nfi_pyro.posterior import (
    Posterior,
    ReturnForecast,
    forecast,
    read_inference_data,
    sample_posterior,
    to_inference_data,
    write_inference_data,
)
from nfi_pyro.svi import SVIFit
from tests.posterior.chain_maker import make_chain

GROUPS = [
    "constant_data",
    "fit",
    "log_likelihood",
    "observed_data",
    "posterior",
    "posterior_predictive",
    "predictions",
    "predictions_constant_data",
    "prior",
    "prior_predictive",
    "sample_stats",
]


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
    for group in ("prior_predictive", "posterior_predictive", "log_likelihood"):
        assert idata[group]["forward_return"].dims == ("chain", "draw", "date", "asset")
        assert idata[group].sizes["date"] == 20
    assert idata.sample_stats["lp"].dims == ("chain", "draw", "date")
    assert idata.predictions_constant_data["date"].values == forecasts.data["date"].values[-1]
    assert idata.fit["kl"].dims == ("chain", "step", "fit_factor")


def test_attributes_say_where_the_draws_come_from(idata: Any, fit: SVIFit) -> None:
    for name in GROUPS:
        attrs = idata[name].attrs
        assert attrs["inference_library"] == "pyro"
        assert attrs["objective"] == "elbo"
        assert json.loads(attrs["seeds"]) == [3]
        assert attrs["kl_weight"] == 1.0
        assert attrs["chain_meaning"] == "svi_restart"
        assert attrs["return_scale"] == fit.return_scale
        assert json.loads(attrs["label"]) == fit.label
        assert json.loads(attrs["provenance"]) == fit.provenance
    ends = fit.history["last_step"].values.astype(int)
    best = fit.history.attrs["best_epoch"]
    assert idata.fit["best_epoch"].values.tolist() == [best]
    kept = fit.history["elbo"].sel(
        step=slice(ends[best - 2] + 1 if best > 1 else 1, ends[best - 1])
    )
    assert json.loads(idata.attrs["elbo"]) == [pytest.approx(float(kept.mean()))]


def test_without_a_forecast_there_are_no_predictions(fit: SVIFit, posterior: Posterior) -> None:
    found = set(to_inference_data(fit, posterior).groups())
    assert found == {"constant_data", "fit", "observed_data", "posterior", "prior"}


def test_the_levels_of_the_quantiles_are_those_asked_for(
    fit: SVIFit, posterior: Posterior, forecasts: ReturnForecast
) -> None:
    found = to_inference_data(fit, posterior, forecasts, quantiles=(0.1, 0.9)).predictions
    assert found["quantile"].values.tolist() == [0.1, 0.9]
    np.testing.assert_allclose(
        found["forward_return_quantile"][1], forecasts.quantile(0.9), rtol=1e-6
    )


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_files_come_back(idata: Any, tmp_path: Path, suffix: str) -> None:
    place = tmp_path / f"posterior{suffix}"
    for _ in range(2):  # the second time it replaces the first
        write_inference_data(idata, place)
    assert [path.name for path in tmp_path.iterdir()] == [place.name]
    loaded = read_inference_data(place)
    assert sorted(loaded.groups()) == GROUPS
    for name in GROUPS:
        xr.testing.assert_equal(loaded[name], idata[name])
        for variable in idata[name].variables:
            assert loaded[name][variable].attrs == idata[name][variable].attrs
        assert as_text(loaded[name].attrs) == as_text(idata[name].attrs)
    assert as_text(loaded.attrs) == as_text(idata.attrs)
    again = tmp_path / "again.nc"  # what was read can be written as the other kind
    write_inference_data(loaded, again)
    xr.testing.assert_equal(read_inference_data(again).posterior, idata.posterior)
    for group in list(loaded.groups()):
        loaded[group].close()


def as_text(attrs: dict[Any, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in attrs.items()}


def test_arviz_reads_our_netcdf_itself(idata: Any, tmp_path: Path) -> None:
    import arviz as az

    write_inference_data(idata, tmp_path / "posterior.nc")
    loaded = az.from_netcdf(str(tmp_path / "posterior.nc"), engine="h5netcdf")
    assert sorted(loaded.groups()) == GROUPS
    xr.testing.assert_equal(loaded.posterior, idata.posterior)
    for group in list(loaded.groups()):
        loaded[group].close()


def test_places_that_are_no_inference_data_are_refused(idata: Any, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"must end in .nc or .zarr; got 'posterior.h5'"):
        write_inference_data(idata, tmp_path / "posterior.h5")
    (tmp_path / "notes.zarr").mkdir()
    (tmp_path / "notes.zarr" / "mine.txt").write_text("keep")
    with pytest.raises(CheckpointError, match=r"must be free or a zarr directory"):
        write_inference_data(idata, tmp_path / "notes.zarr")
    assert (tmp_path / "notes.zarr" / "mine.txt").read_text() == "keep"
    for suffix, kind in ((".nc", "netCDF"), (".zarr", "zarr")):
        with pytest.raises(CheckpointError, match=rf"absent{suffix} must be readable {kind}"):
            read_inference_data(tmp_path / f"absent{suffix}")
    with pytest.raises(CheckpointError, match=r"must be readable zarr"):
        read_inference_data(tmp_path / "notes.zarr")


def test_restarts_are_chains_of_one_container(tmp_path: Path) -> None:
    chains = [make_chain(n_components=2, seed=seed, shift=0.001 * seed) for seed in range(3)]
    found = to_inference_data(
        [chain.fit for chain in chains],
        [chain.posterior for chain in chains],
        [chain.forecast for chain in chains],
    )
    for group in ("posterior", "prior", "log_likelihood", "posterior_predictive", "sample_stats"):
        assert found[group]["chain"].values.tolist() == [0, 1, 2]
    assert json.loads(found.attrs["seeds"]) == [0, 1, 2]
    for suffix in (".nc", ".zarr"):
        place = tmp_path / f"chains{suffix}"
        write_inference_data(found, place)
        loaded = read_inference_data(place)
        for name in found.groups():
            xr.testing.assert_equal(loaded[name], found[name])
            loaded[name].close()


def test_diagnostics_by_date_are_a_group(fit: SVIFit, posterior: Posterior) -> None:
    dates = posterior.constants["date"].values
    k_hat = xr.Dataset({"k_hat": ("date", np.zeros(3))}, {"date": dates[:3]})
    found = to_inference_data(fit, posterior, diagnostics=k_hat)
    xr.testing.assert_equal(found["diagnostics"], k_hat)
    moved = k_hat.assign_coords(date=dates[:3] + np.timedelta64(9999, "D"))
    for wrong in (moved, k_hat.drop_vars("date")):
        with pytest.raises(ShapeError, match=r"diagnostics must be labelled by dates"):
            to_inference_data(fit, posterior, diagnostics=wrong)


def test_options_out_of_range_are_refused(fit: SVIFit, posterior: Posterior) -> None:
    with pytest.raises(SpecError, match=r"replicate_dates must be >= 0; got -1"):
        to_inference_data(fit, posterior, replicate_dates=-1)
    with pytest.raises(SpecError, match=r"seed must be in"):
        to_inference_data(fit, posterior, seed=-1)


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
    assert json.loads(tree.attrs["seeds"]) == [3]
    for suffix in (".nc", ".zarr"):
        place = tmp_path / f"tree{suffix}"
        write_inference_data(tree, place)
        loaded = read_inference_data(place)
        assert isinstance(loaded, xr.DataTree)
        assert sorted(loaded.children) == GROUPS
        for name in GROUPS:
            xr.testing.assert_equal(loaded[name].to_dataset(), idata[name])
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
