"""Whether a variable's values are in memory or still on disk."""

import xarray as xr


def is_lazy(variable: xr.DataArray) -> bool:
    """Return whether the values of a variable are still on disk."""
    return not variable.variable._in_memory  # xarray tells it nowhere else
