"""Groups of datasets as one netCDF file or one zarr directory, whole or absent."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from nfi_pyro.data.store.panel_writer import plain_attributes, plain_text
from nfi_pyro.errors import CheckpointError, SpecError
from nfi_pyro.svi.trained import write_groups

NETCDF, ZARR = ".nc", ".zarr"
_DATES = 5  # of draws in a chunk: a few dates of all draws are read at a time


def suffix_of(path: Path) -> str:
    """Return ``.nc`` or ``.zarr``.

    Raises
    ------
    SpecError
        If `path` ends in anything else.
    """
    if path.suffix not in (NETCDF, ZARR):
        raise SpecError(
            f"a place of InferenceData must end in {NETCDF} or {ZARR}; got {path.name!r}. Choose "
            "one of the two."
        )
    return path.suffix


def write_group_files(
    groups: Mapping[str, xr.Dataset], attrs: Mapping[Any, Any], path: Path
) -> None:
    """Write groups as netCDF or zarr, by the suffix of `path`, and replace what was there whole.

    Raises
    ------
    SpecError
        If the suffix is neither.
    CheckpointError
        If the place cannot be written or is no zarr directory; what was there is untouched.
    """
    if suffix_of(path) == NETCDF:
        write_groups({"/": xr.Dataset(attrs=dict(attrs)), **groups}, path)
        return
    if os.path.lexists(path) and not (path / "zarr.json").is_file():
        raise CheckpointError(
            f"{path} must be free or a zarr directory; got another thing. Choose another place."
        )
    fresh, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("new", "old"))
    try:
        _write_zarr(groups, attrs, fresh)
        if path.exists():
            path.rename(old)
        fresh.rename(path)
    except OSError as error:
        raise CheckpointError(
            f"{path} must be writable; got {error.strerror or error}. What was there before is "
            "untouched: free some space, or choose another place."
        ) from error
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for place in (fresh, old):
            shutil.rmtree(place, ignore_errors=True)


def read_group_files(path: Path) -> xr.DataTree:
    """Return the groups at `path` as a tree whose arrays are read when they are used.

    Raises
    ------
    SpecError
        If the suffix is neither ``.nc`` nor ``.zarr``.
    CheckpointError
        If nothing is there, or it is truncated or of another kind.
    """
    kind = "netCDF" if suffix_of(path) == NETCDF else "zarr"
    try:
        if kind == "netCDF":
            return xr.open_datatree(path, engine="h5netcdf")
        return xr.open_datatree(path, engine="zarr", consolidated=False)
    except OSError as error:
        raise CheckpointError(
            f"{path} must be readable {kind}; got {error}. The file is missing, truncated or was "
            "altered: restore it, or fit again."
        ) from error


def _write_zarr(groups: Mapping[str, xr.Dataset], attrs: Mapping[Any, Any], place: Path) -> None:
    """Write a zarr directory, version 3; draws in chunks of one chain and a few dates."""
    tree = xr.DataTree.from_dict({f"/{name}": _plain(group) for name, group in groups.items()})
    tree.attrs = plain_attributes(dict(attrs))
    encoding = {
        f"/{name}": {str(key): {"chunks": _chunks(array)} for key, array in group.items()}
        for name, group in groups.items()
    }
    tree.to_zarr(place, mode="w", zarr_format=3, consolidated=False, encoding=encoding)


def _plain(group: xr.Dataset) -> xr.Dataset:
    """Return a dataset whose text and attributes zarr 3 specifies."""
    plain = plain_text(group).drop_encoding()
    for name, variable in group.variables.items():
        plain[name].attrs = plain_attributes(variable.attrs)
    return plain.assign_attrs(plain_attributes(group.attrs))


def _chunks(array: xr.DataArray) -> tuple[int, ...]:
    """Return the shape of a chunk."""
    most = {"chain": 1, "date": _DATES} if {"draw", "asset"} <= set(array.dims) else {}
    return tuple(max(1, min(size, most.get(str(d), size))) for d, size in array.sizes.items())
