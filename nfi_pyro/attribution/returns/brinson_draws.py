"""Arrays by date and draw: their order, and effects of many draws as means and intervals."""

import math

import numpy as np
import xarray as xr

from nfi_pyro.diagnostics.dim_checks import require_probability
from nfi_pyro.dims import CHAIN, DATE, DRAW
from nfi_pyro.errors import SpecError, name_places
from nfi_pyro.linear_factor.cells import day

SAMPLE = "sample"
DRAW_DIMS = (CHAIN, DRAW, SAMPLE)


def draws_first(array: xr.DataArray, what: str, where: str) -> xr.DataArray:
    """Return an array in float64, draws first, then `date`, which must increase, then the rest.

    Raises
    ------
    SpecError
        If dates do not increase.
    """
    dates = array.get_index(DATE)
    if not (dates.is_monotonic_increasing and dates.is_unique):
        raise SpecError(
            f"dates must increase; got {what} in another order at {where}. Sort with "
            ".sortby('date')."
        )
    draws = [dim for dim in array.dims if dim in DRAW_DIMS]
    return array.transpose(*draws, DATE, ...).astype(np.float64)


def name_dates(wrong: np.ndarray, array: xr.DataArray) -> str:
    """Return the dates of an array's wrong cells, at most five, then a count."""
    axis = array.dims.index(DATE)
    found = wrong.any(axis=tuple(place for place in range(wrong.ndim) if place != axis))
    return name_places(day(label) for label in array.get_index(DATE)[np.flatnonzero(found)])


def summarise_effects(effects: xr.DataArray, *, level: float = 0.9) -> xr.Dataset:
    """Return mean and central interval of effects over their draws.

    Means add up as effects do; bounds do not, because effects of one draw depend on each other.

    Parameters
    ----------
    effects : DataArray
        Effects, single or linked, or totals; any of the dimensions `sample`, `chain` and `draw`
        are draws.
    level : float
        Share of draws inside the interval, in (0, 1).

    Returns
    -------
    Dataset over the other dimensions
        `mean`, `lower` and `upper`, in the unit of the effects; NaN where a draw is. Attributes
        `level` and `n_draws`.

    Raises
    ------
    SpecError
        If `level` is out of range or there are fewer than two draws.
    """
    require_probability("summarise_effects", level=level)
    dims = [dim for dim in effects.dims if dim in DRAW_DIMS]
    n_draws = math.prod(effects.sizes[dim] for dim in dims)
    if n_draws < 2:
        raise SpecError(
            f"effects must have at least 2 draws; got {n_draws} over {tuple(effects.dims)} at "
            f"summarise_effects. Attribute returns with one of the dimensions {DRAW_DIMS}."
        )
    tail = (1.0 - level) / 2.0
    bounds = effects.quantile([tail, 1.0 - tail], dim=dims, skipna=False)
    parts = {
        "mean": effects.mean(dims, skipna=False),
        "lower": bounds.isel(quantile=0, drop=True),
        "upper": bounds.isel(quantile=1, drop=True),
    }
    return xr.Dataset(
        {name: part.assign_attrs(effects.attrs) for name, part in parts.items()},
        attrs={"level": level, "n_draws": n_draws},
    )
