"""Standardised features by date: one resident copy, or read from disk block by block."""

from typing import Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.data.panel import Panel, feature_blocks
from nfi_pyro.data.store.lazy import complete_cells, is_lazy
from nfi_pyro.data.training.transform_chain import TransformChain


class FeatureRows(Protocol):
    """Standardised features of consecutive dates, 0 where not known."""

    resident: bool
    present: np.ndarray
    """bool (date, asset): every feature is known on the date."""

    def read(self, start: int, stop: int) -> Tensor:
        """Return the dates ``start:stop``, float32 (date, asset, feature), on the device."""


class ResidentRows:
    """All dates in memory: `read` returns views of one standardised copy."""

    resident = True

    def __init__(self, panel: Panel, chain: TransformChain, device: torch.device | str) -> None:
        raw = panel["features"].to_numpy()
        values, known = _standardised(raw, panel["tradable"].to_numpy(), chain)
        self.present: np.ndarray = np.asarray(known.all(axis=2))
        self.values = torch.from_numpy(values).to(device)

    def read(self, start: int, stop: int) -> Tensor:
        """Return a view of the dates ``start:stop``."""
        return self.values[start:stop]


class StreamedRows:
    """Dates on disk: `read` standardises what it reads, and reuses what the last call read."""

    resident = False

    def __init__(self, panel: Panel, chain: TransformChain, device: torch.device | str) -> None:
        self._features: xr.DataArray = panel["features"]
        self._tradable = panel["tradable"].to_numpy()
        self._chain = chain
        self._device = torch.device(device)
        self._last = (0, 0, torch.empty(0))
        self.present: np.ndarray
        complete = complete_cells(panel) if chain.keeps_missing else None
        if complete is not None:
            self.present = complete
        else:
            known = [
                _standardised(values, self._tradable[rows], chain)[1].all(axis=2)
                for rows, values in feature_blocks(panel)
            ]
            self.present = np.concatenate(known)

    def read(self, start: int, stop: int) -> Tensor:
        """Return the dates ``start:stop``, reading only those that the last call did not."""
        first, last, values = self._last
        if first <= start < last <= stop:
            parts = [values[start - first :]]
            if last < stop:
                parts.append(self._fetch(last, stop))
            out = torch.cat(parts)
        else:
            out = self._fetch(start, stop)
        self._last = (start, stop, out)
        return out

    def _fetch(self, start: int, stop: int) -> Tensor:
        raw = self._features[start:stop].to_numpy()
        values, _ = _standardised(raw, self._tradable[start:stop], self._chain)
        tensor = torch.from_numpy(values)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)


def feature_rows(panel: Panel, chain: TransformChain, device: torch.device | str) -> FeatureRows:
    """Return the features of a panel as a model reads them; on disk if the panel's are."""
    kind = StreamedRows if is_lazy(panel["features"]) else ResidentRows
    return kind(panel, chain, device)


def _standardised(
    raw: np.ndarray, tradable: np.ndarray, chain: TransformChain
) -> tuple[np.ndarray, np.ndarray]:
    """Return transformed features with 0 where they are not known, and where they are known."""
    values = chain.apply(raw, tradable)
    known = np.isfinite(values)
    np.copyto(values, 0.0, where=~known)
    return values, known
