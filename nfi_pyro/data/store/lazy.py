"""Whether a variable's values are in memory or still on disk."""

import numpy as np
import xarray as xr

COMPLETE = "complete"
FEATURES_COUNTED = "features"


def is_lazy(variable: xr.DataArray) -> bool:
    """Return whether the values of a variable are still on disk."""
    return not variable.variable._in_memory  # xarray tells it nowhere else


def complete_cells(dataset: xr.Dataset) -> np.ndarray | None:
    """Return where every feature is finite (date, asset), as stored; None where that is not known.

    Stored cells tell of all the stored features: a selection of features has others.
    """
    if COMPLETE not in dataset or not is_lazy(dataset["features"]):
        return None
    if dataset[COMPLETE].attrs.get(FEATURES_COUNTED) != dataset["features"].shape[-1]:
        return None
    return dataset[COMPLETE].to_numpy()
