"""Write a panel block by block into a zarr (version 3) directory that appears whole or not at all.

Layout: the group holds every variable of the panel, chunked along date, so that any zarr or xarray
reader opens it; the subgroup ``checks`` holds the SHA-256 of each date of each variable and
``complete`` (date, asset), which cells have every feature finite.
"""

import glob
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from nfi_pyro.data.store.digests import (
    DIGEST_BYTES,
    attributes_hash,
    content_hash,
    row_digests,
    variable_digests,
)
from nfi_pyro.data.store.lazy import COMPLETE
from nfi_pyro.dims import ASSET, DATE, FEATURE
from nfi_pyro.errors import PanelError, name_places

CHECKS = "checks"
CONTENT_HASH = "content_sha256"
COMPLETE_HASH = "complete_sha256"
ATTRIBUTES_HASH = "attributes_sha256"
_FEATURES = "features"
_CHUNK_BYTES = 4 * 2**20
_STALE_SECONDS = 86_400
SWAP_SECONDS = 0.05  # a writer's two moves are over by then
_COMPRESSOR = BloscCodec(cname="lz4", clevel=1, shuffle="shuffle")


class PanelWriter:
    """A panel in the making: features by blocks of dates, then everything else at once.

    Use as a context manager: leaving it without `finish` leaves what was at `path` untouched.

    Parameters
    ----------
    path : str or Path
        Replaced, in one move at the end, when it is a panel already.
    shape : tuple of int
        Dates, assets, features.
    extend : Path, optional
        A stored panel whose dates come first. Its files are linked, not copied: only its last,
        partly filled chunk is written anew.

    Raises
    ------
    PanelError
        When `path` cannot be written or is no panel.
    """

    def __init__(
        self, path: str | Path, shape: tuple[int, int, int], *, extend: Path | None = None
    ) -> None:
        # a link stays a link: what it points to is replaced
        self.target = Path(path).resolve() if os.path.islink(path) else Path(path)
        recover_panel(self.target)
        if os.path.exists(self.target) and not os.path.isfile(self.target / "zarr.json"):
            raise PanelError(
                f"path of a panel must be free or hold a panel; got another thing at "
                f"{self.target}. Choose another path."
            )
        token = uuid.uuid4().hex[:8]
        self.fresh = self.target.with_name(f".{self.target.name}.{token}.new")
        self._old = self.target.with_name(f".{self.target.name}.{token}.old")
        self.shape = shape
        self.digests = np.zeros((shape[0], DIGEST_BYTES), np.uint8)
        self.complete = np.zeros(shape[:2], dtype=bool)
        try:
            self.fresh.parent.mkdir(parents=True, exist_ok=True)
            group = zarr.open_group(self.fresh, mode="w", zarr_format=3)
            if extend is None:
                self.array = group.create_array(
                    _FEATURES,
                    shape=shape,
                    chunks=(chunk_rows(shape), max(1, shape[1]), max(1, shape[2])),
                    dtype="float32",
                    compressors=_COMPRESSOR,
                    fill_value=float("nan"),
                    dimension_names=(DATE, ASSET, FEATURE),
                )
            else:
                self.array = _linked_features(extend, self.fresh, shape)
                self._carry(extend)
        except (OSError, ValueError) as error:
            self._clean()
            raise self._unwritable(error) from error

    def write(self, start: int, values: np.ndarray) -> None:
        """Write the features of the dates from `start` on, float32 (date, asset, feature)."""
        stop = start + len(values)
        try:
            self.array[start:stop] = values
            os.utime(self.fresh)  # in use: see recover_panel
        except OSError as error:
            raise self._unwritable(error) from error
        self.take(start, values)

    def take(self, start: int, values: np.ndarray) -> None:
        """Note digests and complete cells of dates whose features are stored already."""
        stop = start + len(values)
        self.digests[start:stop] = row_digests(values)
        for place in range(len(values)):  # row by row: no mask of the size of the block
            self.complete[start + place] = np.isfinite(values[place]).all(axis=-1)

    def finish(self, rest: xr.Dataset, feature_attrs: dict[str, Any]) -> Path:
        """Write every other variable, coordinates and attributes, and put the panel in place.

        Parameters
        ----------
        rest : Dataset
            The panel without ``features``, with the coordinate ``feature``.
        feature_attrs : dict
            Attributes of ``features``.

        Raises
        ------
        PanelError
            When the disk refuses; what was at the path before is untouched.
        """
        try:
            attrs = plain_attributes(feature_attrs)
            self.array.update_attributes(attrs)
            self._write_rest(rest, attrs)
            if self.target.exists():
                self.target.rename(self._old)
            self.fresh.rename(self.target)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            self._clean()
        return self.target

    def _carry(self, source: Path) -> None:
        """Take over the checks of dates that stay as they are."""
        checks: Any = zarr.open_group(source / CHECKS, mode="r")
        complete = checks[COMPLETE][:]
        self.digests[: len(complete)] = checks[_FEATURES][:]
        self.complete[: complete.shape[0], : complete.shape[1]] = complete

    def _write_rest(self, rest: xr.Dataset, feature_attrs: dict[str, Any]) -> None:
        stored = plain_text(rest).drop_encoding()
        for variable in stored.variables.values():
            variable.attrs = plain_attributes(variable.attrs)
        digests = {str(name): variable_digests(stored[name]) for name in stored.data_vars}
        digests[_FEATURES] = self.digests
        described = stored.assign(
            {_FEATURES: ((DATE, ASSET, FEATURE), np.broadcast_to(np.float32(0), self.shape))}
        )
        stored.attrs = plain_attributes(stored.attrs)
        stored.attrs[ATTRIBUTES_HASH] = attributes_hash(stored, feature_attrs)
        stored.attrs[CONTENT_HASH] = content_hash(described, digests)
        stored.attrs[COMPLETE_HASH] = hashlib.sha256(self.complete.tobytes()).hexdigest()
        encoding: dict[Any, Any] = {
            name: {"chunks": _whole_rows(stored[name])} for name in stored.data_vars
        }
        stored.to_zarr(self.fresh, mode="a", zarr_format=3, consolidated=False, encoding=encoding)
        checks = zarr.open_group(self.fresh / CHECKS, mode="w", zarr_format=3)
        for name, values in {**digests, COMPLETE: self.complete}.items():
            checks.create_array(name, data=values, chunks=values.shape)

    def _unwritable(self, error: OSError | ValueError) -> PanelError:
        said = getattr(error, "strerror", None) or error
        return PanelError(
            f"path of a panel must be writable; got {said} at {self.target}. "
            "What was there before is untouched: free some space, or choose another path."
        )

    def _clean(self) -> None:
        """Remove what is half done; if the new panel did not make it, the old one stays."""
        shutil.rmtree(self.fresh, ignore_errors=True)
        if os.path.exists(self._old) and not os.path.exists(self.target):
            self._old.rename(self.target)
        shutil.rmtree(self._old, ignore_errors=True)

    def __enter__(self) -> "PanelWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clean()


def chunk_rows(shape: tuple[int, int, int]) -> int:
    """Return how many dates share a chunk of features: about 4 MiB, one date at least."""
    return int(max(1, min(shape[0], _CHUNK_BYTES // max(1, 4 * shape[1] * shape[2]))))


def recover_panel(target: Path) -> None:
    """Put a panel back that a killed write had moved aside, and drop what it left half done.

    Half-written directories are dropped when they are a day old: a younger one may be in use.
    """
    with suppress(OSError):  # no right to write there, or another process was faster
        name = glob.escape(target.name)
        aside = sorted(target.parent.glob(f".{name}.????????.old"))
        if aside and not target.exists():
            time.sleep(SWAP_SECONDS)  # a writer may be between its two moves
            if not target.exists():
                aside.pop().rename(target)
        half = target.parent.glob(f".{name}.????????.new")
        stale = [place for place in half if time.time() - place.stat().st_mtime > _STALE_SECONDS]
        for place in (*aside, *stale):
            shutil.rmtree(place, ignore_errors=True)


def plain_text(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with text as Python objects, which zarr 3 specifies."""

    def texts(variables: Mapping[Any, xr.DataArray]) -> dict[Any, Any]:
        found = {}
        for name, variable in variables.items():
            if variable.dtype.kind in "UTO" and variable.ndim >= 1:
                cells = variable.to_numpy().astype(object)
                odd = [cell for cell in cells.ravel() if not isinstance(cell, str)]
                if odd:
                    raise PanelError(
                        f"{name} must be text in every cell, or numbers; got {len(odd)} others: "
                        f"{name_places(map(repr, odd))}. Write '' where it is not known."
                    )
                found[name] = (variable.dims, cells)
        return found

    return dataset.assign_coords(texts(dataset.coords)).assign(texts(dataset.data_vars))


def plain_attributes(attrs: dict[Any, Any]) -> dict[str, Any]:
    """Return attributes as JSON knows them."""
    return {
        str(key): value.item() if isinstance(value, np.generic) else value
        for key, value in attrs.items()
    }


def _whole_rows(variable: xr.DataArray) -> tuple[int, ...]:
    row = max(1, variable.nbytes // max(1, variable.sizes.get(DATE, 1)))
    rows = int(max(1, 8 * _CHUNK_BYTES // row))
    return tuple(
        max(1, min(rows, size) if dim == DATE else size) for dim, size in variable.sizes.items()
    )


def _linked_features(source: Path, fresh: Path, shape: tuple[int, int, int]) -> "zarr.Array[Any]":
    """Return the stored features in a new directory, enlarged; full chunks are linked."""
    before = zarr.open_array(source / _FEATURES, mode="r")
    full = before.shape[0] // before.chunks[0]
    for found in sorted((source / _FEATURES).rglob("*")):
        place = fresh / _FEATURES / found.relative_to(source / _FEATURES)
        if found.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        parts = found.relative_to(source / _FEATURES).parts
        if parts[0] == "c" and int(parts[1]) < full:
            _link(found, place)
        else:
            shutil.copy2(found, place)
    array = zarr.open_array(fresh / _FEATURES, mode="r+")
    array.resize(shape)
    return array


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system knows no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
