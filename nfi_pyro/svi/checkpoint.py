"""Files that are whole or absent: atomic writes, digests, and loading that runs no code."""

import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from nfi_pyro.errors import CheckpointError

_MAGIC = b"nfi-checkpoint-1\n"
MANIFEST = "manifest.json"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file through a temporary sibling, so that `path` is old or new, never half.

    Parameters
    ----------
    path : Path
        Final place; its folder exists.
    write : callable
        Writes the whole content to the path that it is given.

    Raises
    ------
    CheckpointError
        If the disk is full or the place is not writable, or is a device or a pipe; what was at
        `path` stays as it was.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise CheckpointError(
            f"{path} must be free or a regular file; got a device or a pipe, which would be "
            "replaced. Choose another place."
        )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"{path} must be writable; got {error.strerror or error}. What was there before is "
            "untouched: free some space, or choose another place, and resume."
        ) from error
    finally:
        with suppress(OSError):  # gone already, or a read-only place that was named above
            temporary.unlink()


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents where missing, and return it.

    Raises
    ------
    CheckpointError
        If the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{folder} must be a folder that can be written; got {error.strerror or error}. Choose "
            "another place."
        ) from error
    return folder


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    write_atomically(path, lambda place: place.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Return the JSON value at `path`.

    Raises
    ------
    CheckpointError
        If the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} must be readable JSON; got {error}. The file is missing, truncated or was "
            "altered: restore it, or fit again."
        ) from error


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a training state of tensors and plain values as one file with its digest first."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    digest = hashlib.sha256(payload).hexdigest().encode()
    content = _MAGIC + digest + b"\n" + payload
    write_atomically(path, lambda place: place.write_bytes(content))


def load_state(path: Path) -> dict[str, Any]:
    """Return the training state at `path`; no code in the file is run.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, altered or not a checkpoint.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"a checkpoint must exist to resume; got {error.strerror} at {path}. Fit without "
            "resuming to start one."
        ) from error
    head = len(_MAGIC)
    digest, payload = content[head : head + 64], content[head + 65 :]
    if not content.startswith(_MAGIC) or hashlib.sha256(payload).hexdigest().encode() != digest:
        raise CheckpointError(
            f"a checkpoint must match its own digest; got {len(content)} bytes that do not at "
            f"{path}. It is truncated or was altered: delete it and fit again."
        )
    try:
        return torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"a checkpoint must hold tensors and plain values only; got others at {path}. Nothing "
            "in it was run: delete it and fit again."
        ) from error


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def verify_file(folder: Path, name: str, digests: dict[str, str]) -> Path:
    """Return the path of a file of a run after checking it against the run's manifest.

    Raises
    ------
    CheckpointError
        If the file is missing, not in the manifest, or its digest differs.
    """
    path = folder / name
    if name not in digests:
        raise CheckpointError(
            f"{name} must be listed in {MANIFEST}; got {sorted(digests)[:5]} at {folder}. The "
            "run was not finished: fit again, or resume."
        )
    if not path.is_file():
        raise CheckpointError(
            f"{path} must exist; got no such file. Restore it from a backup, or fit again."
        )
    if file_digest(path) != digests[name]:
        raise CheckpointError(
            f"{path} must match its digest in {MANIFEST}; got another one. The file is truncated "
            "or was altered: restore it, or fit again."
        )
    return path
