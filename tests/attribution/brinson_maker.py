"""Books for the tests of Brinson attribution and linking."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

# Bacon (2008), Practical Portfolio Performance Measurement and Attribution, table 8.1: three
# markets, four quarters; the first quarter is the example of tables 5.2 to 5.4.
MARKETS = ["UK", "Japan", "US"]
BACON: dict[str, list[list[float]]] = {
    "portfolio": [[0.4, 0.3, 0.3], [0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.3, 0.5, 0.2]],
    "benchmark": [[0.4, 0.2, 0.4], [0.4, 0.3, 0.3], [0.5, 0.4, 0.1], [0.4, 0.4, 0.2]],
    "portfolio_return": [[20, -5, 6], [-5, 3, -5], [-20, 8, -15], [10, -7, 25]],
    "benchmark_return": [[10, -4, 8], [-7, 4, -10], [-25, 5, -20], [5, -5, 10]],
}


def days(n_dates: int) -> np.ndarray:
    """Return consecutive business days from 2021-03-01."""
    return pd.bdate_range("2021-03-01", periods=n_dates).to_numpy()


def frame(values: Any, dates: np.ndarray, assets: list[str]) -> xr.DataArray:
    """Return values (date, asset) with labels."""
    array = np.array(values, dtype=float)
    return xr.DataArray(array, {"date": dates, "asset": assets}, ("date", "asset"))


def bacon() -> tuple[xr.DataArray, xr.DataArray, xr.DataArray, dict[str, str]]:
    """Return portfolio, benchmark, returns and groups: each market is an asset of either book."""
    dates = pd.to_datetime(["2016-03-31", "2016-06-30", "2016-09-30", "2016-12-31"]).to_numpy()
    ours, theirs = [f"{name} p" for name in MARKETS], [f"{name} b" for name in MARKETS]
    returns = np.hstack([BACON["portfolio_return"], BACON["benchmark_return"]]) / 100.0
    return (
        frame(BACON["portfolio"], dates, ours),
        frame(BACON["benchmark"], dates, theirs),
        frame(returns, dates, ours + theirs),
        {name: name[:-2] for name in ours + theirs},
    )


def random_books(
    seed: int = 0, n_dates: int = 24, n_assets: int = 13, n_groups: int = 5, short: float = 0.0
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray, dict[str, str]]:
    """Return random portfolio, benchmark, returns and groups; `short` moves weights below 0."""
    rng = np.random.default_rng(seed)
    dates, assets = days(n_dates), [f"A{place}" for place in range(n_assets)]

    def draw_weights() -> xr.DataArray:
        weights = rng.dirichlet(np.ones(n_assets), size=n_dates)
        weights += short * rng.normal(size=weights.shape)
        return frame(weights / weights.sum(axis=1, keepdims=True), dates, assets)

    own, other = draw_weights(), draw_weights()
    returns = frame(rng.normal(0.002, 0.05, (n_dates, n_assets)), dates, assets)
    return own, other, returns, {name: f"g{k % n_groups}" for k, name in enumerate(assets)}
