"""Weights of a book or an asset by date, with what has no law on a date counted."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import ShapeError, SpecError, WeightsError, name_places
from nfi_pyro.posterior.portfolio_law import Weights, align_weights

Held = Weights | str | None
"""Weights of a book, one asset's name, or None for equal weights."""


class HeldWeights(NamedTuple):
    """Weights of a book on a date.

    Attributes
    ----------
    weights : ndarray, shape (row,)
        Of the assets with a law, as given.
    uncovered : float
        Share of absolute weight without a law, in [0, 1].
    """

    weights: np.ndarray
    uncovered: float


class DatedWeights:
    """Weights of a book on the dates that are visited.

    Parameters
    ----------
    held : mapping, Series, DataArray (asset,) or (date, asset), str, or None
        Fractions of capital; without dates the same on all. A name is that asset alone, with
        weight 1. None: equal weights of the assets that have a law on the date.
    dates, assets : ndarray
        Dates visited, and the panel's assets.
    what : str
        What the weights are, for messages.

    Raises
    ------
    WeightsError
        If an asset is unknown or named twice, a weight is not finite, or a date has none that is
        not 0.
    ShapeError, SpecError
        If the dimensions are others, or a date is missing.
    """

    def __init__(
        self, held: Held, dates: np.ndarray, assets: np.ndarray, what: str = "weights"
    ) -> None:
        self._rows: np.ndarray | None = None
        if held is None:
            return
        weights: Weights = {held: 1.0} if isinstance(held, str) else held
        everything = np.ones(len(assets), dtype=bool)
        if isinstance(weights, xr.DataArray) and DATE in weights.dims:
            table = _by_date(weights, dates, what)
            rows = [align_weights(row, assets, everything) for row in table]
            self._rows = np.stack(rows)
        else:
            row = align_weights(weights, assets, everything)
            self._rows = np.broadcast_to(row, (len(dates), len(assets)))
        empty = ~(self._rows != 0.0).any(axis=1)
        if empty.any():
            raise WeightsError(
                f"{what} must hold a weight that is not 0; got none on "
                f"{name_places(str(date)[:10] for date in dates[empty])}. Give one."
            )

    def row(self, date: int) -> np.ndarray | None:
        """Return the weights of all assets on a date (a position); None for equal weights."""
        return None if self._rows is None else self._rows[date]

    def on(self, date: int, kept: np.ndarray) -> HeldWeights | None:
        """Return the weights on a date (a position), or None where no asset held has a law.

        Parameters
        ----------
        date : int
        kept : ndarray of bool, shape (asset,)
            Assets with a law.
        """
        if not kept.any():
            return None
        if self._rows is None:
            return HeldWeights(np.full(kept.sum(), 1.0 / kept.sum()), 0.0)
        whole = np.abs(self._rows[date])
        missing = float(whole[~kept].sum() / whole.sum())
        weights = self._rows[date, kept]
        return HeldWeights(weights, missing) if (weights != 0.0).any() else None


def _by_date(weights: xr.DataArray, dates: np.ndarray, what: str) -> list[pd.Series]:
    """Return the weights of each date visited."""
    if set(weights.dims) != {DATE, ASSET}:
        raise ShapeError(
            f"{what} must have dimensions date and asset, or asset alone; got {weights.dims}. "
            "Select one book."
        )
    index = weights.indexes[DATE]
    if index.has_duplicates:
        twice = index[index.duplicated()].unique()
        raise SpecError(
            f"dates of {what} must be unique; got some twice at "
            f"{name_places(str(date)[:10] for date in twice)}. Drop one of each."
        )
    place = index.get_indexer(pd.DatetimeIndex(dates))
    if (place < 0).any():
        missing = name_places(str(date)[:10] for date in dates[place < 0])
        raise SpecError(
            f"{what} must be given for every date that is visited; got none on {missing}. Give "
            "them, or visit fewer dates."
        )
    rows = weights.transpose(DATE, ASSET).to_numpy()[place]
    names = weights[ASSET].to_numpy()
    return [pd.Series(row, index=names) for row in rows]
