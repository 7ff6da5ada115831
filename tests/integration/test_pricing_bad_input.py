"""What the pricing models say of input that cannot be right, and that nothing becomes NaN."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from nfi_pyro.catalogue import find_model
from nfi_pyro.commands.settings import make_settings
from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.errors import PanelError, SpecError
from nfi_pyro.posterior import forecast, sample_posterior
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi
from nfi_pyro.svi.inputs import MissingExposureWarning, ReturnScaleWarning

GIVEN = ("linear_factor", "mixture_pricing", "neural_factor")
ALL = (*GIVEN, "nfi", "factor_vae")
CONFIG = SVIConfig(n_epochs=1, block_size=16, progress=False, device="cpu")


@pytest.fixture(scope="module")
def panel() -> Panel:
    spec = SimulationSpec(n_dates=97, n_assets=13, n_features=3, n_factors=2)
    return simulate_panel(spec, seed=5)[0]


def with_exposures(panel: Panel, change: Any) -> Panel:
    """Return the panel with two exposures, after `change` has had its way with the values."""
    values = np.random.default_rng(3).normal(size=(*panel["tradable"].shape, 2)).astype(np.float32)
    change(values)
    given = xr.DataArray(values, dims=("date", "asset", "factor"))
    assigned = panel.assign(exposures=given).assign_coords(factor=["size", "value"])
    return check_panel(assigned)


def small(name: str, n_exposures: int, **more: Any) -> Any:
    """Return a small model of a catalogue name."""
    entry = find_model(name)
    sizes = {
        "n_exposures": n_exposures,
        "n_features": 3,
        "lags": 2,
        "projection_size": 4,
        "hidden_size": 4,
        "n_factors": 2,
        "n_portfolios": 5,
        "pricing_size": 4,
        "alpha_hidden_size": 4,
        "prior_hidden_size": 4,
        **more,
    }
    fields = entry.spec_class().model_fields
    spec = entry.spec_class().model_validate({k: v for k, v in sizes.items() if k in fields})
    return entry.model_class()(spec)


def fit(panel: Panel, name: str, n_exposures: int = 2) -> SVIFit:
    return fit_svi(small(name, n_exposures), panel, config=CONFIG, seed=0)


@pytest.mark.parametrize("name", GIVEN)
def test_a_constant_exposure_is_named(panel: Panel, name: str) -> None:
    def flatten(values: np.ndarray) -> None:
        values[..., 1] = 0.7

    with pytest.raises(PanelError, match=r"must vary over the assets.*: value\. Leave them out"):
        fit(with_exposures(panel, flatten), name)


@pytest.mark.parametrize("name", GIVEN)
def test_an_exposure_that_repeats_another_is_named(panel: Panel, name: str) -> None:
    def repeat(values: np.ndarray) -> None:
        values[..., 1] = 0.5 - 3.0 * values[..., 0]

    with pytest.raises(PanelError, match=r"linear combinations.*size, value\. Drop one"):
        fit(with_exposures(panel, repeat), name)


def test_an_exposure_never_known_in_training_is_named(panel: Panel) -> None:
    def hide(values: np.ndarray) -> None:
        values[:70, :, 0] = np.nan

    with pytest.raises(PanelError, match="known somewhere in training; got none at size"):
        fit(with_exposures(panel, hide), "mixture_pricing")


def test_an_infinite_exposure_is_placed(panel: Panel) -> None:
    row, column = np.argwhere(panel["tradable"].values)[40]

    def spoil(values: np.ndarray) -> None:
        values[row, column, 1] = np.inf

    asset = panel["asset"].values[column]
    day = str(panel["date"].values[row])[:10]
    with pytest.raises(PanelError, match=f"finite or NaN.* 1 infinite cells at {asset} {day}"):
        fit(with_exposures(panel, spoil), "linear_factor")


@pytest.mark.parametrize("name", GIVEN)
def test_a_missing_exposure_keeps_the_cell_out_and_is_counted(panel: Panel, name: str) -> None:
    rows = np.argwhere(panel["tradable"].values)[[7, 300]]

    def hide(values: np.ndarray) -> None:
        for row, column in rows:
            values[row, column, 0] = np.nan

    holed = with_exposures(panel, hide)
    with pytest.warns(MissingExposureWarning, match="2 of .* tradable cells lack an exposure"):
        found = fit(holed, name)
    entered = forecast(found, holed).data["entered"].values
    assert not entered[tuple(rows.T)].any()
    assert entered.sum() == panel["tradable"].values.sum() - 2


@pytest.mark.parametrize("name", GIVEN)
def test_more_exposures_than_assets_are_refused(panel: Panel, name: str) -> None:
    few = check_panel(panel.isel(asset=slice(0, 3)))
    with pytest.raises(PanelError, match="more assets than the model has factors; got 3 assets"):
        fit(few, name, n_exposures=3)


def test_more_learned_factors_than_assets_are_refused(panel: Panel) -> None:
    few = check_panel(panel.isel(asset=slice(0, 2)))
    with pytest.raises(PanelError, match=r"got 2 assets and 2 factors\. Use fewer factors"):
        fit(few, "nfi")


@pytest.mark.parametrize("name", ALL)
def test_a_date_with_two_assets_has_no_nan(panel: Panel, name: str) -> None:
    thin = panel.copy(deep=True)
    thin["tradable"].values[50, 2:] = False
    thin["forward_return"].values[50, 2:] = np.nan
    thin = check_panel(thin)
    found = fit(thin, name, n_exposures=3)
    laws = forecast(found, thin)
    day = laws.data.sel(date=thin["date"].values[50])
    kept = day["entered"].values
    assert kept.sum() <= 2
    for variable in ("weight", "loc", "scale"):
        assert np.isfinite(day[variable].values[kept]).all(), variable
    posterior = sample_posterior(found, thin, draws=3, seed=0)
    if posterior.has_factors:
        assert np.isfinite(posterior.z.values).all()


@pytest.mark.parametrize("name", ["linear_factor", "mixture_pricing", "nfi"])
def test_returns_in_percent_bring_a_warning_with_the_scale(panel: Panel, name: str) -> None:
    percent = panel.copy(deep=True)
    percent["forward_return"].values *= 100.0
    said = r"deviation of [\d.]+ over 1 trading days, that is \d+%: are they in percent"
    with pytest.warns(ReturnScaleWarning, match=said):
        fit(check_panel(percent), name, n_exposures=3)


@pytest.mark.filterwarnings("ignore::nfi_pyro.svi.inputs.ReturnScaleWarning")
@pytest.mark.parametrize("name", ALL)
def test_extreme_returns_leave_everything_finite(panel: Panel, name: str) -> None:
    wild = panel.copy(deep=True)
    rows = np.argwhere(np.isfinite(wild["forward_return"].values))[[5, 60, 400]]
    for (row, column), value in zip(rows, (9.0, -0.999, 40.0), strict=True):
        wild["forward_return"].values[row, column] = value
    wild = check_panel(wild)
    found = fit(wild, name, n_exposures=3)
    assert all(torch.isfinite(v).all() for v in found.model.state_dict().values())
    laws = forecast(found, wild)
    assert np.isfinite(laws.log_prob(wild["forward_return"].astype(float)).values).any()


@pytest.mark.parametrize("name", ["nfi", "mixture_pricing"])
def test_no_component_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"spec\.n_components must be greater than or equal to 1"):
        make_settings({"model": name, "spec": {"n_components": 0}}, where="a test")


@pytest.mark.parametrize("name", ["nfi", "mixture_pricing", "neural_factor"])
def test_an_activation_without_a_second_derivative_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"spec\.activation must be 'tanh', 'silu' or 'softplus'"):
        make_settings({"model": name, "spec": {"activation": "relu"}}, where="a test")
