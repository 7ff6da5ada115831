"""A panel on disk: a zarr (version 3) directory, written whole or not at all, read back checked."""

import hashlib
import shutil
import uuid
import warnings
from pathlib import Path

import numpy as np
import xarray as xr
from zarr.errors import ZarrUserWarning

from nfi_pyro.data.panel import REQUIRED, Panel, check_panel
from nfi_pyro.dims import DATE
from nfi_pyro.errors import PanelError

_DIGEST = "content_sha256"
_CHUNK_BYTES = 32 * 2**20


def panel_hash(panel: xr.Dataset) -> str:
    """Return the SHA-256, in hex, of what a fit sees of a panel.

    Covers the coordinates, features, tradable, forward_return and the meaning of the label
    (start_lag, horizon, unit); the same on every run. Extra variables and attributes do not count.
    """
    return _digest(panel, tuple(REQUIRED))


def write_panel(panel: Panel, path: str | Path) -> Path:
    """Write a panel as a zarr directory, chunked along date, and return its path.

    The directory appears complete or not at all: it is written beside its place and moved in.

    Parameters
    ----------
    panel : Panel
        Checked again before it is written.
    path : str or Path
        Replaced when it is a panel already.

    Raises
    ------
    PanelError
        When the panel breaks a rule, or `path` cannot be written or is no zarr directory.
    """
    target = Path(path)
    check_panel(panel)
    if target.exists() and not (target / "zarr.json").is_file():
        raise PanelError(
            f"path of a panel must be free or hold a panel; got another thing at {target}. "
            "Choose another path."
        )
    token = uuid.uuid4().hex[:8]
    fresh = target.with_name(f".{target.name}.{token}.new")
    old = target.with_name(f".{target.name}.{token}.old")
    stored = _plain_text(xr.Dataset(panel.data_vars, panel.coords, panel.attrs))
    stored = stored.drop_encoding()
    for variable in stored.variables.values():
        variable.attrs = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in variable.attrs.items()
        }
    stored.attrs[_DIGEST] = _digest(stored, tuple(map(str, stored.data_vars)))
    encoding = {name: {"chunks": _chunks(stored[name])} for name in stored.data_vars}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stored.to_zarr(fresh, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    except OSError as error:
        raise PanelError(
            f"path of a panel must be writable; got {error.strerror or error} at {target}. What "
            "was there before is untouched: free some space, or choose another path."
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)  # the new one did not make it: the old one stays
        shutil.rmtree(old, ignore_errors=True)
    return target


def read_panel(path: str | Path) -> Panel:
    """Return the panel that `write_panel` wrote, in memory and checked.

    Raises
    ------
    PanelError
        When there is nothing at `path`, it is no panel, or any part is missing or altered.
    """
    source = Path(path)
    if not source.exists():
        raise PanelError(f"panel must exist; got nothing at {source}. Build one: `nfi panel`.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZarrUserWarning)  # a stray file; the hash judges
            with xr.open_zarr(source, consolidated=False, chunks=None) as stored:
                dataset = stored.load()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise PanelError(
            f"panel must be a readable zarr directory; got {type(error).__name__} ({error}) at "
            f"{source}. Point to what `nfi panel --out` wrote, or write it again."
        ) from error
    dataset = _plain_text(dataset).drop_encoding()
    written = dataset.attrs.pop(_DIGEST, None)
    if written is None:
        raise PanelError(
            f"panel must carry the hash of its content; got none at {source}. "
            "Write it with write_panel."
        )
    # zarr reads a lost chunk as empty cells without a word: only the hash can tell
    if _digest(dataset, tuple(map(str, dataset.data_vars))) != written:
        raise PanelError(
            f"panel must be as it was written; got other content at {source}: a part is missing "
            "or altered. Write it again with write_panel."
        )
    return check_panel(dataset)


def _plain_text(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with text coordinates as Python objects, which zarr 3 specifies."""
    texts = {
        name: (variable.dims, np.array(variable.to_numpy().tolist(), dtype=object))
        for name, variable in dataset.coords.items()
        if variable.dtype.kind in "UTO" and variable.ndim == 1
    }
    return dataset.assign_coords(texts)


def _chunks(variable: xr.DataArray) -> tuple[int, ...]:
    row = max(1, variable.nbytes // max(1, variable.sizes.get(DATE, 1)))
    rows = int(max(1, _CHUNK_BYTES // row))
    return tuple(min(rows, size) if dim == DATE else size for dim, size in variable.sizes.items())


def _digest(dataset: xr.Dataset, names: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in (*sorted(map(str, dataset.coords)), *sorted(names)):
        variable = dataset[name]
        digest.update(f"\0{name}\0{variable.dims}\0{variable.shape}\0".encode())
        values = variable.to_numpy()
        if values.dtype.kind in "UTO":
            digest.update("\0".join(map(str, values.ravel().tolist())).encode())
        elif values.dtype.kind == "M":
            digest.update(values.astype("datetime64[ns]").astype("<i8").tobytes())
        else:
            digest.update(str(values.dtype.newbyteorder("<")).encode())
            for row in np.atleast_1d(values):  # row by row: no copy of a large array
                digest.update(_canonical(row))
    label = dataset["forward_return"].attrs if "forward_return" in dataset else {}
    digest.update(repr([str(label.get(key)) for key in ("start_lag", "horizon", "unit")]).encode())
    return digest.hexdigest()


def _canonical(values: np.ndarray) -> bytes:
    """Return little-endian bytes in which every NaN has the same bits."""
    values = np.asarray(values)
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), values.dtype.type(np.nan), values)
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
