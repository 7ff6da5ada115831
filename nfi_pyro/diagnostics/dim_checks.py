"""Checks of labelled arrays at the boundary of a diagnostic."""

from collections.abc import Hashable, Sequence

import numpy as np
import xarray as xr

from nfi_pyro.errors import ShapeError, SpecError, name_places


def require_dims(array: xr.DataArray, dims: Sequence[str], what: str, where: str) -> xr.DataArray:
    """Return the array as float64 with its dimensions in this order.

    Parameters
    ----------
    array : DataArray
        NaN = missing.
    dims : sequence of str
        All of them, no other.
    what, where : str
        Names of the array and of the caller, for the message.

    Raises
    ------
    ShapeError
        If the dimensions are others.
    SpecError
        If a value is infinite.
    """
    if set(array.dims) != set(dims):
        raise ShapeError(
            f"{what} must have the dimensions {' and '.join(dims)}; got {tuple(array.dims)} at "
            f"{where}. Select, reduce or name its dimensions."
        )
    ordered = array.transpose(*dims).astype(np.float64)
    infinite = np.argwhere(np.isinf(ordered.to_numpy()))
    if len(infinite):
        raise SpecError(
            f"{what} must be finite or NaN; got an infinite value at "
            f"{name_places(places_of(ordered, infinite))}. Set missing values to NaN."
        )
    return ordered


def require_same_labels(array: xr.DataArray, other: xr.DataArray, what: str, where: str) -> None:
    """Refuse an array whose labels differ from those of `other` along a dimension of both.

    Raises
    ------
    ShapeError
        If labels differ or come in another order.
    """
    shared: list[Hashable] = [dim for dim in array.dims if dim in other.dims]
    for dim in shared:
        if not array.get_index(dim).equals(other.get_index(dim)):
            raise ShapeError(
                f"{what} must have the {dim}s of the array that it is compared with; got "
                f"{array.sizes[dim]} against {other.sizes[dim]}, or another order, at {where}. "
                f"Select the same ones first, for example with .sel({dim}=...)."
            )


def require_within(
    array: xr.DataArray, low: float, high: float, what: str, where: str, fix: str
) -> None:
    """Refuse values outside ``[low, high]``; NaN is no value.

    Raises
    ------
    SpecError
        With the first value and at most five places.
    """
    values = array.to_numpy()
    wrong = np.argwhere((values < low) | (values > high))
    if len(wrong):
        raise SpecError(
            f"{what} must be in [{low:g}, {high:g}]; got {values[tuple(wrong[0])]} at "
            f"{name_places(places_of(array, wrong))} of {where}. {fix}"
        )


def require_positive(array: xr.DataArray, what: str, where: str, fix: str) -> None:
    """Refuse values that are not above 0; NaN is no value.

    Raises
    ------
    SpecError
        With the first value and at most five places.
    """
    values = array.to_numpy()
    wrong = np.argwhere(values <= 0)
    if len(wrong):
        raise SpecError(
            f"{what} must be > 0 or NaN; got {values[tuple(wrong[0])]} at "
            f"{name_places(places_of(array, wrong))} of {where}. {fix}"
        )


def require_options(where: str, **options: tuple[float, float, float]) -> None:
    """Refuse an option that is outside its bounds, given as ``name=(value, least, most)``.

    Raises
    ------
    SpecError
        With name, value and bounds.
    """
    for name, (value, least, most) in options.items():
        if not least <= value <= most:
            raise SpecError(
                f"{name} must be from {least:g} to {most:g}; got {value} at {where}. "
                "Pass a value in this range."
            )


def require_probability(where: str, **options: float) -> None:
    """Refuse an option that is not strictly between 0 and 1.

    Raises
    ------
    SpecError
        With name and value.
    """
    for name, value in options.items():
        if not 0 < value < 1:
            raise SpecError(
                f"{name} must be in (0, 1); got {value} at {where}. Pass for example 0.95."
            )


def places_of(array: xr.DataArray, positions: np.ndarray) -> list[str]:
    """Return labels of positions, shape (place, dimension), as words; times to the second."""
    indexes = [array.get_index(dim) for dim in array.dims]
    return [
        " ".join(str(index[place])[:19] for index, place in zip(indexes, row, strict=True))
        for row in positions
    ]
