"""A fit with gaps in its universe, and a forecast of two components made by hand."""

import numpy as np
import pytest
import torch
import xarray as xr

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.posterior import ReturnForecast
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi

DATES, ASSETS, FEATURES, FACTORS, LAGS = 47, 11, 5, 3, 2


@pytest.fixture(scope="session")
def panel() -> Panel:
    """Return a panel with holes; no return is observed on date 20, one asset trades on date 30."""
    spec = SimulationSpec(
        n_dates=DATES,
        n_assets=ASSETS,
        n_features=FEATURES,
        n_factors=FACTORS,
        missing_share=0.08,
        unobserved_share=0.1,
    )
    panel = simulate_panel(spec, seed=29)[0].copy(deep=True)
    panel["forward_return"].values[20] = np.nan
    panel["tradable"].values[30, 1:] = False
    panel["forward_return"].values[30, 1:] = np.nan
    return check_panel(panel)


@pytest.fixture(scope="session")
def fit(panel: Panel) -> SVIFit:
    spec = FactorVAESpec(
        n_features=FEATURES,
        lags=LAGS,
        projection_size=4,
        hidden_size=4,
        n_factors=FACTORS,
        n_portfolios=5,
        alpha_hidden_size=4,
        prior_hidden_size=4,
    )
    config = SVIConfig(n_epochs=3, block_size=7, learning_rate=1e-2, progress=False, device="cpu")
    fit = fit_svi(FactorVAE(spec), panel, config=config, seed=3)
    with torch.no_grad():  # three epochs leave exposures small; factors must matter here
        fit.model.beta.weight.mul_(6.0)
        fit.model.beta.bias.mul_(3.0)
    return fit


def make_forecast(
    n_components: int,
    *,
    unit: str = "return",
    dependence: str = "factor",
    n_assets: int = 5,
    n_factors: int = 3,
) -> ReturnForecast:
    """Return a forecast of two dates whose law is known by construction."""
    rng = np.random.default_rng(31)
    shape = (2, n_assets, n_components)
    weight = rng.dirichlet(np.full(n_components, 3.0), size=shape[:2])
    own_loc = rng.normal(0.0, 0.01, shape)
    own_scale = rng.uniform(0.005, 0.04, shape)
    beta = rng.normal(0.5, 1.0, (2, n_assets, n_factors))
    factor_loc = rng.normal(0.0, 0.005, (2, n_factors))
    factor_scale = rng.uniform(0.005, 0.02, (2, n_factors))
    shared_loc = np.einsum("dak,dk->da", beta, factor_loc)
    shared = np.einsum("dak,dk->da", beta**2, factor_scale**2)
    own_mean = (weight * own_loc).sum(-1, keepdims=True)
    specific = (weight * (own_scale**2 + (own_loc - own_mean) ** 2)).sum(-1)
    entered = np.ones((2, n_assets), dtype=bool)
    cells, parts = ("date", "asset"), ("date", "asset", "component")
    return ReturnForecast(
        xr.Dataset(
            {
                "weight": (parts, weight),
                "loc": (parts, own_loc + shared_loc[..., None]),
                "scale": (parts, np.sqrt(own_scale**2 + shared[..., None])),
                "beta": ((*cells, "factor"), beta),
                "factor_loc": (("date", "factor"), factor_loc),
                "factor_scale": (("date", "factor"), factor_scale),
                "specific_variance": (cells, specific),
                "entered": (cells, entered),
            },
            {
                "date": np.array(["2021-05-03", "2021-05-04"], "datetime64[ns]"),
                "asset": [f"A{place}" for place in range(n_assets)],
                "factor": [f"z{place}" for place in range(n_factors)],
            },
            {"unit": unit, "start_lag": 1, "horizon": 1, "dependence": dependence},
        )
    )


@pytest.fixture(scope="session")
def gaussian() -> ReturnForecast:
    return make_forecast(1)


@pytest.fixture(scope="session")
def mixture() -> ReturnForecast:
    return make_forecast(2)


@pytest.fixture
def remake() -> object:
    """Return the maker of forecasts by hand."""
    return make_forecast
