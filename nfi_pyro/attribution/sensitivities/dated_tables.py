"""Labelled arrays that fill up date by date, over all assets of a panel."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from torch import Tensor

from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.posterior.exposure_pricing import OTHER_FACTOR, PricingLaw

_DIMS = (FACTOR, OTHER_FACTOR)


class DatedTables:
    """Variables over (date, asset, factor, factor_other), or without assets; NaN without a law.

    Parameters
    ----------
    assets : ndarray, shape (asset,)
        Of the panel.
    """

    def __init__(self, assets: np.ndarray) -> None:
        self._assets = assets
        self._index = {name: place for place, name in enumerate(assets)}
        self._rows: dict[str, list[np.ndarray]] = {}
        self._has_assets: dict[str, bool] = {}
        self._days: list[np.datetime64] = []
        self._factors: tuple[str, ...] = ()

    def add(
        self,
        law: PricingLaw,
        by_asset: Mapping[str, Tensor] | None = None,
        by_date: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Add one date: tensors (row, ...) of the law's assets, and tensors (...) of the date."""
        places = [self._index[name] for name in law.assets]
        for name, part in (by_asset or {}).items():
            table = np.full((len(self._assets), *part.shape[1:]), np.nan)
            table[places] = part.numpy()
            self._rows.setdefault(name, []).append(table)
            self._has_assets[name] = True
        for name, part in (by_date or {}).items():
            self._rows.setdefault(name, []).append(np.asarray(part))
            self._has_assets[name] = False
        self._days.append(law.date)
        self._factors = law.factors

    def dataset(self, units: Mapping[str, str], attrs: Mapping[str, object]) -> xr.Dataset:
        """Return everything that was added, with the unit of each variable."""
        variables = {}
        for name, rows in self._rows.items():
            stacked = np.stack(rows)
            front = (DATE, ASSET) if self._has_assets[name] else (DATE,)
            dims = (*front, *_DIMS[: stacked.ndim - len(front)])
            variables[name] = xr.Variable(dims, stacked, {"units": units[name]})
        labels = {
            DATE: np.array(self._days),
            ASSET: self._assets,
            FACTOR: list(self._factors),
            OTHER_FACTOR: list(self._factors),
        }
        used = {dim for variable in variables.values() for dim in variable.dims}
        return xr.Dataset(
            variables, {name: label for name, label in labels.items() if name in used}, dict(attrs)
        )
