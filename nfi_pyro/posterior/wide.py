"""A fit's networks and batches in double precision, for what is differentiated or inverted."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

from nfi_pyro.data.training.windows import PanelBatch
from nfi_pyro.svi.trained import SVIFit


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
