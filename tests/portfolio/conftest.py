"""Forecasts made by hand: one of a single component, one of two."""

import numpy as np
import pytest
import xarray as xr

from nfi_pyro.posterior import ReturnForecast


def _make_forecast(n_components: int) -> ReturnForecast:
    rng = np.random.default_rng(37)
    n_assets, n_factors = 7, 3
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
    entered[0, 4] = False
    cells, parts = ("date", "asset"), ("date", "asset", "component")
    variables = {
        "weight": (parts, weight),
        "loc": (parts, own_loc + shared_loc[..., None]),
        "scale": (parts, np.sqrt(own_scale**2 + shared[..., None])),
        "beta": ((*cells, "factor"), beta),
        "specific_variance": (cells, specific),
    }
    for _, values in variables.values():
        values[~entered] = np.nan
    return ReturnForecast(
        xr.Dataset(
            variables
            | {
                "factor_loc": (("date", "factor"), factor_loc),
                "factor_scale": (("date", "factor"), factor_scale),
                "entered": (cells, entered),
            },
            {
                "date": np.array(["2021-05-03", "2021-05-04"], "datetime64[ns]"),
                "asset": [f"A{place}" for place in range(n_assets)],
                "factor": [f"z{place}" for place in range(n_factors)],
            },
            {"unit": "return", "start_lag": 1, "horizon": 1, "dependence": "factor"},
        )
    )


@pytest.fixture(scope="session")
def gaussian() -> ReturnForecast:
    return _make_forecast(1)


@pytest.fixture(scope="session")
def mixture() -> ReturnForecast:
    return _make_forecast(2)
