"""Fits as attribution takes them: restarts or draws of one model, in double precision, joined."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from nfi_pyro.data.training.windows import PanelBatch
from nfi_pyro.dims import CHAIN
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.chains import as_chains
from nfi_pyro.svi.trained import SVIFit

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)


def check_fits(fits: SVIFit | Sequence[SVIFit]) -> tuple[SVIFit, ...]:
    """Return the fits, restarts or draws of one model.

    Raises
    ------
    SpecError
        If there is none, or they are of several models or labels.
    """
    chains: tuple[SVIFit, ...] = as_chains(fits)
    if not chains:
        raise SpecError("fits must hold at least one fit; got none. Pass one, or restarts.")
    for place, fit in enumerate(chains[1:], start=1):
        _require_none(differences(chains[0], fit), place)
    return chains


def differences(first: SVIFit, fit: SVIFit) -> list[str]:
    """Return in which of model, label and spec two fits differ, by name."""
    facts = {
        "model": (first.model.name, fit.model.name),
        "label": (first.label, fit.label),
        "spec": (first.model.spec, fit.model.spec),
    }
    return [name for name, (one, two) in facts.items() if one != two]


def join_chains(found: Sequence[Labelled], fits: SVIFit | Sequence[SVIFit]) -> Labelled:
    """Return one array or dataset, with a first dimension `chain` where several fits were given.

    Raises
    ------
    SpecError
        If the fits differ in their dates, features or factors.
    """
    if isinstance(fits, SVIFit):
        return found[0]
    first = found[0].coords
    for place, own in enumerate(found[1:], start=1):
        other = [
            name for name in first if name not in own.coords or not own[name].equals(first[name])
        ]
        _require_none([str(name) for name in other], place)
    joined = xr.concat(found, dim=CHAIN, combine_attrs="override")
    return joined.assign_coords({CHAIN: np.arange(len(found))})


def _require_none(other: list[str], place: int) -> None:
    """Refuse a fit that differs from the first."""
    if other:
        raise SpecError(
            f"fits must be restarts of one model; got another {', '.join(other)} at fit {place}. "
            "Explain them one by one."
        )


def wide_model(fit: SVIFit) -> Any:
    """Return a fit's networks in double precision, without gradients.

    Random last layers are at the guide's location, where a fit leaves them.
    """
    wide = deepcopy(fit.model).double().eval()
    for parameter in wide.parameters():
        parameter.requires_grad_(False)
    return wide


def wide_batch(batch: PanelBatch) -> PanelBatch:
    """Return a batch with features and exposures in double precision."""
    exposures = None if batch.exposures is None else batch.exposures.double()
    return replace(batch, features=batch.features.double(), exposures=exposures)
