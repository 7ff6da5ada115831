"""Books of weights by date, and their exposures under a date's law, with what has none counted."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import ShapeError, SpecError, WeightsError, name_places
from nfi_pyro.posterior.exposure_pricing import PricingLaw
from nfi_pyro.posterior.portfolio_law import Weights, align_weights

BOOKS = ("portfolio", "benchmark")


class BookExposure(NamedTuple):
    """Exposure of a book on a date.

    Attributes
    ----------
    exposure : ndarray, shape (factor,)
        ``B'w`` of the assets with a law, scaled up to the whole absolute weight; NaN without any.
    uncovered : float
        Share of absolute weight without a law, in [0, 1].
    """

    exposure: np.ndarray
    uncovered: float


class Book:
    """Weights of a portfolio on the dates that are tracked.

    Parameters
    ----------
    weights : mapping, Series, DataArray (asset,) or (date, asset), or None
        Fractions of capital; without dates the same on all. None: equal weights of the assets
        that have a law on the date.
    dates, assets : ndarray
        Of the forecasts.
    name : str
        For messages.

    Raises
    ------
    WeightsError
        If an asset is unknown or named twice, a weight is not finite, or a date has none that is
        not 0.
    ShapeError, SpecError
        If the dimensions are others, or a date is missing.
    """

    def __init__(
        self, weights: Weights | None, dates: np.ndarray, assets: np.ndarray, name: str
    ) -> None:
        self._rows: np.ndarray | None = None
        if weights is None:
            return
        everything = np.ones(len(assets), dtype=bool)
        if isinstance(weights, xr.DataArray) and DATE in weights.dims:
            table = _by_date(weights, dates, name)
            rows = [align_weights(row, assets, everything) for row in table]
        else:
            rows = [align_weights(weights, assets, everything)] * len(dates)
        self._rows = np.stack(rows)
        empty = ~(self._rows != 0.0).any(axis=1)
        if empty.any():
            raise WeightsError(
                f"the {name} must have a weight that is not 0; got none on "
                f"{name_places(str(date)[:10] for date in dates[empty])} at track. Give one."
            )

    def exposure(self, law: PricingLaw, date: int, places: np.ndarray) -> BookExposure:
        """Return the exposure on a date (a position), `places` (asset,) being the law's assets."""
        beta = law.beta.detach().numpy()
        if not len(beta):
            return BookExposure(np.full(beta.shape[-1], np.nan), 1.0)
        if self._rows is None:
            return BookExposure(beta.mean(axis=0), 0.0)
        whole, held = self._rows[date], self._rows[date, places]
        covered = float(np.abs(held).sum() / np.abs(whole).sum())
        exposure = beta.T @ held / covered if covered > 0.0 else np.full(beta.shape[1], np.nan)
        return BookExposure(exposure, 1.0 - min(covered, 1.0))


def _by_date(weights: xr.DataArray, dates: np.ndarray, name: str) -> list[pd.Series]:
    """Return the weights of each date."""
    if set(weights.dims) != {DATE, ASSET}:
        raise ShapeError(
            f"the {name} must have dimensions date and asset, or asset alone; got {weights.dims} "
            "at track. Select one book."
        )
    index = weights.indexes[DATE]
    if index.has_duplicates:
        raise SpecError(f"dates of the {name} must be unique; got some twice at track. Drop them.")
    place = index.get_indexer(pd.DatetimeIndex(dates))
    if (place < 0).any():
        raise SpecError(
            f"the {name} must have weights on every date; got none on "
            f"{name_places(str(date)[:10] for date in dates[place < 0])} at track. Give them."
        )
    rows = weights.transpose(DATE, ASSET).to_numpy()[place]
    names = weights[ASSET].to_numpy()
    return [pd.Series(row, index=names) for row in rows]
