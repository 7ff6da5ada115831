"""A panel's features as a fitted chain of transforms returns them, in memory or read by blocks."""

from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from nfi_pyro.data.panel import feature_blocks
from nfi_pyro.data.store.lazy import is_lazy
from nfi_pyro.data.training.transform_chain import TransformChain
from nfi_pyro.dims import ASSET, DATE, FEATURE


def transformed_features(panel: xr.Dataset, chain: TransformChain) -> xr.DataArray:
    """Return transformed features with their labels, (date, asset, feature), float32.

    Dimensionless after a scaling step; NaN where unknown, infinite values included. Features on
    disk stay there: dates are transformed as they are read.

    Parameters
    ----------
    panel : Panel
        Raw features; read, never changed.
    chain : TransformChain
        Fitted on training dates.

    Raises
    ------
    PanelError
        If the panel's features are not those of the chain.
    """
    chain.require_features(panel[FEATURE].to_numpy().tolist())
    rows = _TransformedRows(panel, chain)
    dims = (DATE, ASSET, FEATURE)
    coords = {dim: panel[dim].to_numpy() for dim in dims}
    values: Any = xr.Variable(dims, indexing.LazilyIndexedArray(rows))
    if not is_lazy(panel["features"]):
        values = xr.Variable(dims, rows.read(slice(None)))
    return xr.DataArray(values, coords, name="features")


def complete_rows(features: xr.DataArray) -> xr.DataArray:
    """Return where every feature is known, bool (date, asset); read a block of dates at a time."""
    blocks = feature_blocks(features.to_dataset(name="features"))
    known = np.concatenate([np.isfinite(values).all(axis=2) for _, values in blocks])
    coords = {dim: features[dim].to_numpy() for dim in (DATE, ASSET)}
    return xr.DataArray(known, coords, (DATE, ASSET), "complete")


class _TransformedRows(BackendArray):
    """Features of a panel, transformed a few dates at a time as they are read."""

    def __init__(self, panel: xr.Dataset, chain: TransformChain) -> None:
        self._features = panel["features"]
        self._tradable = panel["tradable"].to_numpy()
        self._chain = chain
        self.shape = self._features.shape
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Return the cells that xarray asks for; it calls this, users index the variable."""
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._cells
        )

    def read(self, rows: slice) -> np.ndarray:
        """Return whole dates, NaN where unknown."""
        values = self._chain.apply(self._features[rows].to_numpy(), self._tradable[rows])
        np.copyto(values, np.nan, where=np.isinf(values))
        return values

    def _cells(self, key: tuple[Any, ...]) -> np.ndarray:
        if isinstance(key[0], slice):
            return self.read(key[0])[(slice(None), *key[1:])]
        place = int(key[0])
        return self.read(slice(place, place + 1))[(0, *key[1:])]
