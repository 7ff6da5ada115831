"""Content digests of panels: one per variable and date, so that a part can be judged alone."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from nfi_pyro.data.panel import REQUIRED
from nfi_pyro.dims import DATE

DIGEST_BYTES = 32
_KINDS = {"U": "text", "T": "text", "O": "text", "M": "instant", "m": "duration"}
_LABEL_KEYS = ("start_lag", "horizon", "unit")


def panel_hash(panel: xr.Dataset) -> str:
    """Return the SHA-256, in hex, of what a fit sees of a panel.

    Covers features, tradable, forward_return, their coordinates and the meaning of the label
    (start_lag, horizon, unit); the same on every run, in memory or on disk. Extra variables, such
    as exposures, and attributes do not count.
    """
    seen = panel[list(REQUIRED)]  # without the labels of other variables, such as exposures
    return content_hash(seen, {name: variable_digests(seen[name]) for name in REQUIRED})


def exposures_hash(panel: xr.Dataset) -> str:
    """Return the SHA-256, in hex, of a panel's own exposures and their names; "" for none."""
    if "exposures" not in panel:
        return ""
    exposures = panel["exposures"]
    digest = hashlib.sha256(variable_digests(exposures).tobytes())
    digest.update("\0".join(map(str, exposures["factor"].to_numpy().tolist())).encode())
    return digest.hexdigest()


def content_hash(dataset: xr.Dataset, digests: dict[str, np.ndarray]) -> str:
    """Return one hash of the coordinates, the label's meaning, and variables given by digests.

    Parameters
    ----------
    dataset : Dataset
        Its data are not read, its coordinates and the variables' dims, shapes and dtypes are.
    digests : dict
        Variable to what `variable_digests` returns for it.
    """
    total = hashlib.sha256()
    for name in sorted(map(str, dataset.coords)):
        values = dataset[name].to_numpy()
        total.update(f"\0{name}\0{dataset[name].dims}\0{values.shape}\0".encode())
        if values.dtype.kind in "UTO":
            total.update("\0".join(map(str, values.ravel().tolist())).encode())
        elif values.dtype.kind == "M":
            total.update(values.astype("datetime64[ns]").astype("<i8").tobytes())
        else:
            total.update(f"{values.dtype.newbyteorder('<')}".encode() + _canonical(values))
    for name in sorted(digests):
        variable = dataset[name]
        kind = _KINDS.get(variable.dtype.kind) or variable.dtype.newbyteorder("<")
        total.update(f"\0{name}\0{variable.dims}\0{variable.shape}\0{kind}\0".encode())
        total.update(digests[name].tobytes())
    label = dataset["forward_return"].attrs if "forward_return" in dataset else {}
    total.update(repr([str(label.get(key)) for key in _LABEL_KEYS]).encode())
    return total.hexdigest()


def attributes_hash(dataset: xr.Dataset, feature_attrs: dict[str, Any]) -> str:
    """Return one hash of the attributes of a dataset and its variables, as JSON knows them."""
    attrs = {str(name): dataset[name].attrs for name in dataset.variables if name != "features"}
    attrs |= {"": dataset.attrs, "features": feature_attrs}
    text = json.dumps(attrs, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def variable_digests(variable: xr.DataArray) -> np.ndarray:
    """Return the SHA-256 of each date's cells, uint8 (date, 32); one row for a static variable.

    A variable that is stored on disk is read a few dates at a time.
    """
    if variable.dims[:1] != (DATE,):
        return row_digests(variable.to_numpy()[None])
    rows = max(1, int(2**26 // max(1, variable.nbytes // max(1, len(variable)))))
    parts = [
        row_digests(variable[start : start + rows].to_numpy())
        for start in range(0, len(variable), rows)
    ]
    return np.concatenate(parts) if parts else np.empty((0, DIGEST_BYTES), np.uint8)


def row_digests(values: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """Return the SHA-256 of each entry along the first axis, uint8 (row, 32)."""
    out = np.empty((len(values), DIGEST_BYTES), np.uint8)
    for place, row in enumerate(values):
        out[place] = np.frombuffer(hashlib.sha256(_canonical(row)).digest(), np.uint8)
    return out


def _canonical(values: np.ndarray) -> bytes:
    """Return little-endian bytes in which every NaN has the same bits."""
    values = np.asarray(values)
    if values.dtype.kind in "UTO":
        return "\0".join(map(str, values.ravel().tolist())).encode()
    if values.dtype.kind in "mM":  # a file keeps instants, not their unit
        values = values.astype(f"{values.dtype.kind}8[ns]").astype("<i8")
    if values.dtype.kind == "f":
        unknown = np.isnan(values)
        if unknown.any():
            values = np.where(unknown, values.dtype.type(np.nan), values)
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
