"""Fitted exposure models as bytes: named arrays in numpy's own format, nothing pickled."""

import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np
import torch

from nfi_pyro.errors import CheckpointError, SpecError
from nfi_pyro.exposures.pca import PCAFit
from nfi_pyro.exposures.ppca_result import PPCAFit
from nfi_pyro.exposures.scoring import ExposureFit
from nfi_pyro.exposures.vae_result import VAEFit

METHODS = ("pca", "ppca", "vae")
_WEIGHT = "weights/"  # before the name of an array of an autoencoder
_PLAIN = "plain"  # JSON of what is no array


def check_method(method: object) -> str:
    """Return `method` if it is one of `METHODS`.

    Raises
    ------
    SpecError
        If it is not.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise SpecError(
            f"the method must be one of {', '.join(METHODS)}; got {method!r}. Choose one."
        )
    return method


def pack_fit(fit: ExposureFit) -> bytes:
    """Return a fit as an npz file; equal fits give equal bytes."""
    arrays = dict(fit.as_dict())
    if isinstance(fit, VAEFit):
        weights = {_WEIGHT + name: value.numpy() for name, value in arrays.pop("weights").items()}
        arrays = weights | {_PLAIN: np.array(json.dumps(arrays, sort_keys=True))}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpack_fit(method: str, content: bytes) -> ExposureFit:
    """Return the fit that `pack_fit` wrote; no code in it is run.

    Raises
    ------
    SpecError
        If the method is unknown.
    CheckpointError
        If the bytes are no fit of that method.
    """
    kinds: dict[str, Any] = {"pca": PCAFit, "ppca": PPCAFit, "vae": VAEFit}
    kind = kinds[check_method(method)]
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as opened:
            values = {name: opened[name] for name in opened.files}
        if method == "vae":
            values = _autoencoder(values)
        fit = kind.from_dict(values)
        if isinstance(fit, VAEFit):
            fit.module()  # weights that do not fit the spec are said here, not at the first use
    except (
        *(zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError),
        *(TypeError, IndexError, AttributeError, RuntimeError),
    ) as error:
        said = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"a stored {method} must hold the arrays of one; got {type(error).__name__} ({said}). "
            "It is truncated, was altered, or another version wrote it: run `nfi synthesise` again."
        ) from error
    return fit


def _autoencoder(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what `VAEFit.from_dict` takes."""
    weights = {
        name.removeprefix(_WEIGHT): torch.from_numpy(value)
        for name, value in arrays.items()
        if name.startswith(_WEIGHT)
    }
    return {**json.loads(str(arrays[_PLAIN])), "weights": weights}
