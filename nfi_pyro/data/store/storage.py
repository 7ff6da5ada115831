"""A panel on disk: written whole or not at all, read back checked, in memory or date by date."""

import hashlib
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.errors import ZarrUserWarning

from nfi_pyro.data.panel import Panel, check_panel, feature_blocks
from nfi_pyro.data.store.digests import attributes_hash, content_hash, variable_digests
from nfi_pyro.data.store.lazy import COMPLETE, FEATURES_COUNTED
from nfi_pyro.data.store.panel_writer import (
    ATTRIBUTES_HASH,
    CHECKS,
    COMPLETE_HASH,
    CONTENT_HASH,
    SWAP_SECONDS,
    PanelWriter,
    plain_text,
    recover_panel,
)
from nfi_pyro.data.store.stored_rows import StoredRows, lazy_variable
from nfi_pyro.dims import ASSET, DATE, FEATURE
from nfi_pyro.errors import PanelError, name_places

LAZY_BYTES = 2**30
"""Features beyond this size stay on disk unless `read_panel` is told otherwise."""

_BROKEN = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ImportError)


def write_panel(panel: Panel, path: str | Path) -> Path:
    """Write a panel as a zarr directory, chunked along date, and return its path.

    The directory appears complete or not at all: it is written beside its place and moved in.

    Parameters
    ----------
    panel : Panel
        Checked again before it is written; features that are on disk are read block by block.
    path : str or Path
        Replaced when it is a panel already.

    Raises
    ------
    PanelError
        When the panel breaks a rule, or `path` cannot be written or is no zarr directory.
    """
    check_panel(panel)
    features = panel["features"]
    rest = plain_text(panel.drop_vars(["features", COMPLETE], errors="ignore"))
    shape = (panel.sizes[DATE], panel.sizes[ASSET], panel.sizes[FEATURE])
    with PanelWriter(path, shape) as writer:
        for rows, values in feature_blocks(panel):
            writer.write(rows.start, values)
        return writer.finish(rest, dict(features.attrs))


def read_panel(path: str | Path, *, lazy: bool | None = None) -> Panel:
    """Return the panel that `write_panel` or `nfi panel` wrote, checked.

    Parameters
    ----------
    path : str or Path
    lazy : bool, optional
        Whether features stay on disk: they are then read, and verified, a block of dates at a
        time by whoever needs them, and a fit gives the same bits as from memory. By default they
        do when they are larger than `LAZY_BYTES`. A lazy panel has one more variable,
        ``complete`` (date, asset): every feature is finite.

    Raises
    ------
    PanelError
        When there is nothing at `path`, it is no panel, or any part is missing or altered.
    """
    source = Path(path).resolve() if os.path.islink(path) else Path(path)
    recover_panel(source)
    if not os.path.exists(source):
        raise PanelError(f"panel must exist; got nothing at {source}. Build one: `nfi panel`.")
    try:
        try:
            rest, attrs, checks = _open(source)
        except _BROKEN:  # perhaps just being replaced
            time.sleep(SWAP_SECONDS)
            rest, attrs, checks = _open(source)
        array = zarr.open_array(source / "features", mode="r")
    except _BROKEN as error:
        raise PanelError(
            f"panel must be a readable zarr directory; got {type(error).__name__} ({error}) at "
            f"{source}. Point to what `nfi panel --out` wrote, or write it again."
        ) from error
    names = (CONTENT_HASH, COMPLETE_HASH, ATTRIBUTES_HASH)
    written = {name: rest.attrs.pop(name, None) for name in names}
    if None in written.values() or not {"features", COMPLETE} <= set(checks):
        raise PanelError(
            f"panel must carry the hashes of its content; got not all of them at {source}. An "
            "older version wrote it, or it is incomplete: write it anew with `nfi panel`."
        )
    rows = StoredRows(array, checks["features"], rest[DATE].to_numpy(), source)
    dataset = rest.assign(features=lazy_variable(rows, (DATE, ASSET, FEATURE), attrs))
    _verify(dataset, checks, written, source)
    if lazy or (lazy is None and array.nbytes > LAZY_BYTES):
        counted = {FEATURES_COUNTED: array.shape[-1]}
        dataset[COMPLETE] = ((DATE, ASSET), checks[COMPLETE].astype(bool), counted)
    else:
        dataset["features"] = ((DATE, ASSET, FEATURE), rows.read(0, array.shape[0]), attrs)
    return check_panel(dataset)


def _open(source: Path) -> tuple[xr.Dataset, dict[str, Any], dict[str, np.ndarray]]:
    """Return everything but the features in memory, the features' attributes, and the checks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)  # a stray file; the digests judge
        with xr.open_zarr(source, consolidated=False, chunks=None) as stored:
            attrs = dict(stored["features"].attrs)
            rest = stored.drop_vars("features").load()
        group: Any = zarr.open_group(source, mode="r")
        checks = {}
        if CHECKS in group:
            checks = {name: np.asarray(array[:]) for name, array in group[CHECKS].arrays()}
    return plain_text(rest).drop_encoding(), attrs, checks


def _verify(
    dataset: xr.Dataset,
    checks: dict[str, np.ndarray],
    written: dict[str, str | None],
    source: Path,
) -> None:
    """Refuse a panel whose small variables, coordinates or checks are not as they were written."""
    digests = {name: values for name, values in checks.items() if name != COMPLETE}
    other = sorted(set(map(str, dataset.data_vars)) ^ set(digests))
    other += [
        name
        for name in sorted(set(digests) - {"features", *other})
        if not np.array_equal(variable_digests(dataset[name]), digests[name])
    ]
    if not other and content_hash(dataset, digests) != written[CONTENT_HASH]:
        other = ["coordinates"]
    if hashlib.sha256(checks[COMPLETE].tobytes()).hexdigest() != written[COMPLETE_HASH]:
        other.append(COMPLETE)
    if attributes_hash(dataset, dict(dataset["features"].attrs)) != written[ATTRIBUTES_HASH]:
        other.append("attributes")
    if other:
        raise PanelError(
            f"panel must be as it was written; got other content at {source} in "
            f"{name_places(other)}: a part is missing or altered. Write it again with write_panel."
        )
