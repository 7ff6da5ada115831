"""Several fits as one thing: restarts or draws of one model, checked, and what they say joined."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import xarray as xr

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
        facts = {
            "model": (chains[0].model.name, fit.model.name),
            "label": (chains[0].label, fit.label),
            "spec": (chains[0].model.spec, fit.model.spec),
        }
        _require_none([name for name, (one, two) in facts.items() if one != two], place)
    return chains


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
            f"fits must be restarts or draws of one model; got another {', '.join(other)} at fit "
            f"{place}. Pass them one by one."
        )
