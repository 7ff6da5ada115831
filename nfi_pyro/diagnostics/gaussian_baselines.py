"""Gaussian forecasts without a model, which every fitted law should beat."""

import math

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import PanelError, ShapeError, SpecError, name_places


def unconditional_gaussian(
    train_returns: xr.DataArray, dates: ArrayLike, assets: ArrayLike
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return one Gaussian for every cell: pooled mean and standard deviation of the training set.

    Parameters
    ----------
    train_returns : DataArray, any shape
        Decimal, of the training dates only; NaN = not observed. At least two observed, not all
        equal.
    dates, assets : array_like
        Labels of the forecast: a sequence, an index or a coordinate of a panel.

    Returns
    -------
    mean, scale : DataArray, shape (date, asset)
        Decimal; `scale` is a standard deviation (ddof 1), > 0; never NaN.

    Raises
    ------
    PanelError
        If fewer than two training returns are observed or they do not vary.
    """
    observed = train_returns.to_numpy().astype(np.float64)
    observed = observed[~np.isnan(observed)]
    spread = float(observed.std(ddof=1)) if len(observed) > 1 else 0.0
    if not spread > 0:
        raise PanelError(
            f"train_returns must hold two different returns; got {len(observed)} observed with "
            "no variation at unconditional_gaussian. Pass the observed training returns."
        )
    coords = {DATE: np.asarray(dates), ASSET: np.asarray(assets)}
    shape = tuple(len(labels) for labels in coords.values())
    mean = xr.DataArray(np.full(shape, observed.mean()), coords=coords, name="mean")
    return mean, xr.full_like(mean, spread).rename("scale")


def ewma_gaussian(
    close: xr.DataArray | None,
    forward_return: xr.DataArray,
    *,
    half_life: float = 20.0,
    start_lag: int = 1,
    horizon: int = 1,
    min_periods: int = 20,
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return a zero-mean Gaussian with the exponentially weighted volatility of each asset.

    ``scale_t^2 = horizon * sum_a w^a r_(t-a)^2 / sum_a w^a`` over the observed daily returns up
    to the close of t, ``w = 2^(-1 / half_life)``. The law has no mean reversion, so that the same
    variance per day holds from any `start_lag` on.

    Parameters
    ----------
    close : DataArray, shape (date, asset), or None
        Adjusted closing prices, > 0, NaN = none; its dates and assets include those of
        `forward_return`, and earlier dates warm the volatility up. None: there are no prices, and
        `forward_return` itself, shifted to the close at which it is realised
        (``start_lag + horizon`` dates later), is the past; it spans `horizon` days already, so it
        is not scaled again. `forward_return` must then hold consecutive trading dates.
    forward_return : DataArray, shape (date, asset)
        Gives the labels of the forecast, and the past if there are no prices; NaN = not observed.
    half_life : float
        Trading days after which a return weighs half, > 0.
    start_lag, horizon : int
        Of `forward_return`, in trading days; >= 0 and >= 1.
    min_periods : int
        Returns that an asset needs before it has a forecast, >= 1.

    Returns
    -------
    mean, scale : DataArray, shape (date, asset)
        Decimal, known at the close of `date`. Mean 0, standard deviation > 0; both NaN where
        the asset has too few returns or never moved. An asset without a return on a date keeps
        its last volatility.

    Raises
    ------
    SpecError
        If an option is out of range.
    ShapeError
        If the dimensions of an array are not date and asset.
    PanelError
        If `close` lacks dates or assets of the forecast, or a price is not positive.
    """
    _check_ewma_options(half_life, start_lag, horizon, min_periods)
    target = _as_frame(forward_return, "forward_return")
    if close is None:
        known, n_days = target.shift(start_lag + horizon), 1
    else:
        prices = _as_frame(close, "close")
        _check_prices(prices, target)
        known, n_days = prices / prices.shift(1) - 1.0, horizon
    variance = known.pow(2).ewm(halflife=half_life, min_periods=min_periods).mean()
    variance = variance.reindex(index=target.index, columns=target.columns) * n_days
    scale = variance.where(variance > 0).pow(0.5)
    coords = {DATE: forward_return[DATE], ASSET: forward_return[ASSET]}
    spread = xr.DataArray(scale.to_numpy(), coords=coords, dims=(DATE, ASSET), name="scale")
    return xr.zeros_like(spread).where(spread.notnull()).rename("mean"), spread


def _as_frame(array: xr.DataArray, what: str) -> pd.DataFrame:
    """Return the array as a float64 table with one row per date and one column per asset."""
    if set(array.dims) != {DATE, ASSET}:
        raise ShapeError(
            f"{what} must have the dimensions date and asset; got {tuple(array.dims)} at "
            "ewma_gaussian. Reduce or name its dimensions."
        )
    cells = array.transpose(DATE, ASSET)
    return pd.DataFrame(
        cells.to_numpy().astype(np.float64),
        index=cells.indexes[DATE],
        columns=cells.indexes[ASSET],
    )


def _check_ewma_options(half_life: float, start_lag: int, horizon: int, min_periods: int) -> None:
    """Refuse options out of range."""
    if not (math.isfinite(half_life) and half_life > 0):
        raise SpecError(
            f"half_life must be a positive number of days; got {half_life} at ewma_gaussian. "
            "Pass for example 20."
        )
    bounds = (("start_lag", start_lag, 0), ("horizon", horizon, 1), ("min_periods", min_periods, 1))
    for name, value, least in bounds:
        if value < least:
            raise SpecError(
                f"{name} must be >= {least}; got {value} at ewma_gaussian. Pass a larger number."
            )


def _check_prices(prices: pd.DataFrame, target: pd.DataFrame) -> None:
    """Refuse prices that do not cover the forecast or are not positive."""
    for dim, have, need in (
        (DATE, prices.index, target.index),
        (ASSET, prices.columns, target.columns),
    ):
        absent = need.difference(have)
        if len(absent):
            raise PanelError(
                f"close must have every {dim} of forward_return; got none at "
                f"{name_places(absent)}. Pass prices of the same panel."
            )
    wrong = np.argwhere(prices.to_numpy() <= 0)
    if len(wrong):
        places = [(str(prices.index[t]), prices.columns[i]) for t, i in wrong]
        raise PanelError(
            f"close must be > 0 or NaN; got {prices.to_numpy()[tuple(wrong[0])]} at "
            f"{name_places(places)}. Set missing prices to NaN."
        )
