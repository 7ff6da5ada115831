"""Rows of a stored array, read when they are asked for and checked the first time they are."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from nfi_pyro.data.store.digests import row_digests
from nfi_pyro.errors import PanelError, name_places


class StoredRows(BackendArray):
    """A zarr array whose first axis is read in blocks and verified against stored digests.

    Parameters
    ----------
    array : zarr.Array, shape (date, ...)
    digests : ndarray of uint8, shape (date, 32)
        What `row_digests` gave when the rows were written.
    labels : ndarray, shape (date,)
        Names of the rows in errors.
    source : Path
        Where the array lies, for errors.

    Notes
    -----
    zarr reads a lost chunk as empty cells without a word: only the digests can tell.
    """

    def __init__(
        self, array: "zarr.Array[Any]", digests: np.ndarray, labels: np.ndarray, source: Path
    ) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = np.dtype(array.dtype)
        self._digests = digests
        self._labels = labels
        self._source = source
        self._verified = np.zeros(len(labels), dtype=bool)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Return the cells that xarray asks for; it calls this, users index the variable."""
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start:stop``, verified.

        Raises
        ------
        PanelError
            If rows are not as they were written, or cannot be read.
        """
        try:
            values = np.asarray(self.array[start:stop])
        except (OSError, ValueError, RuntimeError) as error:
            raise PanelError(
                f"panel must be a readable zarr directory; got {type(error).__name__} ({error}) at "
                f"{self._source}. Write it again with `nfi panel`."
            ) from error
        fresh = np.flatnonzero(~self._verified[start:stop])
        if fresh.size:
            found = row_digests([values[place] for place in fresh])  # views: no copy
            same = (found == self._digests[start + fresh]).all(axis=1)
            if not same.all():
                raise PanelError(
                    f"panel must be as it was written; got other content at {self._source} on "
                    f"{name_places(str(day)[:10] for day in self._labels[start + fresh[~same]])}: "
                    "a part is missing or altered. Write it again with `nfi panel`."
                )
            self._verified[start + fresh] = True
        return values

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        rows = np.arange(self.shape[0])[key[0]]
        wanted = np.atleast_1d(rows)
        if wanted.size == 0:
            values = np.empty((0, *self.shape[1:]), self.dtype)
        elif (np.diff(wanted) == 1).all():
            values = self.read(int(wanted[0]), int(wanted[-1]) + 1)
        else:
            values = np.concatenate([self.read(int(row), int(row) + 1) for row in wanted])
        if rows.ndim == 0:
            values = values[0]
        shift = rows.ndim  # 0 when the first axis is gone
        for axis in range(len(key) - 1, 0, -1):  # from the last, so that a lost axis moves none
            values = values[(slice(None),) * (axis - 1 + shift) + (key[axis],)]
        return values


def lazy_variable(rows: StoredRows, dims: tuple[str, ...], attrs: dict[str, Any]) -> xr.Variable:
    """Return an xarray variable over stored rows that reads what is indexed and keeps nothing."""
    return xr.Variable(dims, indexing.LazilyIndexedArray(rows), attrs)
