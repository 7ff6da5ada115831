"""Feature rows with a planted subspace."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import xarray as xr


@dataclass(frozen=True)
class Planted:
    """Rows ``W z + center + noise`` and the W behind them."""

    features: xr.DataArray
    mask: xr.DataArray
    loadings: np.ndarray


def _plant(
    n_dates: int = 17,
    n_assets: int = 31,
    n_features: int = 7,
    n_factors: int = 2,
    noise: float = 0.5,
    missing: float = 0.0,
    seed: int = 0,
) -> Planted:
    rng = np.random.default_rng(seed)
    # Lengths apart, so that every axis is identified and not the subspace alone.
    basis = np.linalg.qr(rng.normal(size=(n_features, n_factors)))[0]
    loadings = basis * np.linspace(2.5, 1.5, n_factors)
    z = rng.normal(size=(n_dates, n_assets, n_factors))
    values = z @ loadings.T + 0.3 + noise * rng.normal(size=(n_dates, n_assets, n_features))
    values[rng.random(values.shape) < missing] = np.nan
    coords = {
        "date": pd.bdate_range("2021-03-01", periods=n_dates).to_numpy(),
        "asset": [f"A{place}" for place in range(n_assets)],
        "feature": [f"f{place}" for place in range(n_features)],
    }
    features = xr.DataArray(
        values.astype(np.float32), coords, ("date", "asset", "feature"), name="features"
    )
    cells = {dim: coords[dim] for dim in ("date", "asset")}
    mask = xr.DataArray(rng.random((n_dates, n_assets)) < 0.9, cells, ("date", "asset"))
    return Planted(features, mask, loadings)


@pytest.fixture
def plant() -> Callable[..., Planted]:
    """Return a builder of planted rows: 17 dates, 31 assets, 7 features, 2 factors."""
    return _plant
