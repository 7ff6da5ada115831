"""An exposure panel as flows: which assets have one on which date, with every loss counted."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import ShapeError, SpecError, name_places


@dataclass(frozen=True)
class FlowDate:
    """The cross-section of one flow; asset is those with exposures on all dates that it needs.

    Attributes
    ----------
    assets : ndarray of int, shape (asset,)
        Positions in the panel.
    exposure : ndarray, shape (asset, factor)
        At the start.
    instrument : ndarray, shape (asset, factor)
        Earlier exposures, or those at the start where there is no lag.
    flow : ndarray, shape (asset, factor)
        Change of exposure per date.
    weight : ndarray, shape (asset,)
        Holdings at the start, sum 1.
    counts : dict
        `n_assets` here; `n_without_past`: have the flow but no earlier exposures; `n_left`: at
        the start but not at the end; `n_entered`: the reverse; `n_unheld`: of weight 0.
    """

    assets: np.ndarray
    exposure: np.ndarray
    instrument: np.ndarray
    flow: np.ndarray
    weight: np.ndarray
    counts: dict[str, int]


def flows(exposures: np.ndarray, weights: np.ndarray, horizon: int, lag: int) -> Iterator[FlowDate]:
    """Yield the flow that ends on each date, from date ``lag + horizon`` on.

    Parameters
    ----------
    exposures : ndarray, shape (date, asset, factor)
        NaN = absent.
    weights : ndarray, shape (date, asset)
        >= 0.
    horizon, lag : int
        Dates from start to end, and from instrument to start (0: no instrument).
    """
    present = np.isfinite(exposures).all(axis=-1)
    for end in range(lag + horizon, len(exposures)):
        start = end - horizon
        past = start - lag
        moved = present[start] & present[end]
        held = weights[start] > 0.0
        used = moved & present[past] & held
        total = weights[start, used].sum()
        yield FlowDate(
            assets=np.flatnonzero(used),
            exposure=exposures[start, used],
            instrument=exposures[past, used],
            flow=(exposures[end, used] - exposures[start, used]) / horizon,
            weight=weights[start, used] / total,
            counts={
                "n_assets": int(used.sum()),
                "n_without_past": int((moved & ~present[past]).sum()),
                "n_left": int((present[start] & ~present[end]).sum()),
                "n_entered": int((present[end] & ~present[start]).sum()),
                "n_unheld": int((moved & present[past] & ~held).sum()),
            },
        )


def read_exposures(exposures: xr.DataArray, where: str) -> xr.DataArray:
    """Return exposures (date, asset, factor), float64, after a look at them.

    Raises
    ------
    ShapeError
        If the dimensions are others.
    SpecError
        If dates do not increase, a value is infinite, or an asset has some but not all exposures
        on a date.
    """
    if set(exposures.dims) != {DATE, ASSET, FACTOR}:
        raise ShapeError(
            f"exposures must have the dimensions date, asset and factor; got {exposures.dims} at "
            f"{where}. Select one fit or draw."
        )
    ordered = exposures.transpose(DATE, ASSET, FACTOR).astype(np.float64)
    dates = ordered.indexes[DATE]
    if not (dates.is_monotonic_increasing and dates.is_unique):
        raise SpecError(
            f"dates must increase; got them in another order at {where}. Sort with .sortby('date')."
        )
    values = ordered.to_numpy()
    if np.isinf(values).any():
        wrong = np.isinf(values).any(axis=-1)
        raise SpecError(
            f"exposures must be finite or NaN; got an infinite one at {_cells(ordered, wrong)} of "
            f"{where}. Set absent assets to NaN."
        )
    known = np.isfinite(values)
    partial = known.any(axis=-1) & ~known.all(axis=-1)
    if partial.any():
        raise SpecError(
            f"an asset must have all exposures of a date or none; got some at "
            f"{_cells(ordered, partial)} of {where}. Select factors that it has, or mask the cell."
        )
    return ordered


def read_weights(weights: xr.DataArray | None, exposures: xr.DataArray, where: str) -> np.ndarray:
    """Return holdings (date, asset), 0 where an asset is absent; equal ones for None.

    Raises
    ------
    ShapeError
        If dimensions or labels are not those of the exposures.
    SpecError
        If an asset with exposures has a holding that is not finite and >= 0, or a date with
        assets has none above 0.
    """
    present = exposures.notnull().all(FACTOR)
    if weights is None:
        return present.to_numpy().astype(np.float64)
    if set(weights.dims) != {DATE, ASSET} or not all(
        weights.get_index(dim).equals(exposures.get_index(dim)) for dim in (DATE, ASSET)
    ):
        raise ShapeError(
            f"weights must have the dates and assets of the exposures; got dimensions "
            f"{weights.dims} of sizes {tuple(weights.sizes.values())} at {where}. Use "
            ".reindex_like."
        )
    values = weights.transpose(DATE, ASSET).to_numpy().astype(np.float64)
    wrong = present.to_numpy() & ~(np.isfinite(values) & (values >= 0.0))
    if wrong.any():
        raise SpecError(
            f"weights must be finite and >= 0 where there are exposures; got "
            f"{values[tuple(np.argwhere(wrong)[0])]} at {_cells(exposures, wrong)} of {where}. Set "
            "what is not held to 0."
        )
    held = np.where(present.to_numpy(), values, 0.0)
    empty = present.any(ASSET).to_numpy() & ~(held > 0.0).any(axis=1)
    if empty.any():
        days = [str(day)[:10] for day in exposures[DATE].to_numpy()[empty]]
        raise SpecError(
            f"some asset of a date must have a weight > 0; got none on {name_places(days)} at "
            f"{where}. Drop the dates."
        )
    return held


def check_counts(where: str, **options: tuple[float, float, float]) -> None:
    """Refuse a number that is outside its bounds, given as ``name=(value, least, most)``."""
    for name, (value, least, most) in options.items():
        if not least <= value <= most:
            raise SpecError(
                f"{name} must be from {least:g} to {most:g}; got {value} at {where}. Pass one in "
                "this range."
            )


def _cells(exposures: xr.DataArray, wrong: np.ndarray) -> str:
    """Return date and asset of at most five cells."""
    dates, assets = exposures[DATE].to_numpy(), exposures[ASSET].to_numpy()
    return name_places(f"{str(dates[t])[:10]} {assets[i]}" for t, i in np.argwhere(wrong))
