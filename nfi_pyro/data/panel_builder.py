"""The panel in the making: label and universe at once, features date block by date block."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from nfi_pyro.data.checks.quality import LEDGER_ATTRIBUTE, DropLedger
from nfi_pyro.data.features.technical import FeatureTable
from nfi_pyro.data.labels import forward_return, relative_label
from nfi_pyro.data.market.universe import tradable_universe
from nfi_pyro.data.panel_spec import PanelSpec
from nfi_pyro.dims import ASSET, DATE, FEATURE
from nfi_pyro.errors import MAX_PLACES, PanelError

_MASKS = ("listed", "suspended", "limit_up", "limit_down", "one_price", "st", "universe")


class PanelBuilder:
    """Everything about a panel but its features, which `blocks` computes.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        As `read_prices` returns them.
    spec : PanelSpec

    Raises
    ------
    PanelError, SpecError
        As `build_panel`.
    """

    def __init__(self, bars: xr.Dataset, spec: PanelSpec) -> None:
        if not isinstance(bars, xr.Dataset):
            raise PanelError(
                f"bars must be a Dataset of dims date and asset; got {type(bars).__name__}. Make "
                "them with read_prices."
            )
        bars, self.ledger = _priced_assets(bars)
        self.spec = spec
        self.table = FeatureTable(bars, subset=spec.features, compat=spec.compat)
        self._require_dates(bars)
        self.bars = bars
        self.assets = bars[ASSET].to_numpy()
        self._raw_label()
        self._universe()
        n_features = len(self.table.names)
        self._undefined = np.zeros(self.tradable.shape, dtype=bool)
        self._cold = np.zeros(self.tradable.shape, dtype=bool)
        self._undefined_of = np.zeros(n_features, dtype=np.int64)
        self._filled = np.zeros((n_features, len(self.assets)), dtype=np.int64)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Dates, assets, features."""
        return self.table.shape

    def blocks(self, rows: int, first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, features float32) of `rows` dates at a time, and note what they lack.

        The values do not depend on `rows`. Dates before `first` are left out.
        """
        for start in range(first, self.shape[0], rows):
            stop = min(start + rows, self.shape[0])
            values = self.table.compute(start, stop)
            if self.spec.missing == "median":
                self._fill_medians(values, slice(start, stop))
            self._note_absent(values, slice(start, stop))
            yield start, values

    def finish(self) -> xr.Dataset:
        """Return everything but the features, once `blocks` is exhausted.

        Raises
        ------
        PanelError
            When nothing is tradable.
        """
        names = np.array(self.table.names, dtype=object)
        for place, name in enumerate(names):
            self.ledger = self.ledger.add(
                f"{name} undefined",
                int(self._filled[place].sum()),
                "median of the date",
                worst(self.assets, self._filled[place]),
            )
        self.tradable &= ~self._undefined
        self.ledger = self.ledger.add(
            "cells with an undefined feature (worst features named)",
            int(self._undefined.sum()),
            "excluded",
            worst(names, self._undefined_of),
        )
        self._exclude("cells whose windows are not warm yet", self._cold)
        self._require_assets()
        label = self._label()
        attrs = self.masks["tradable"].attrs
        masks = {name: self.masks[name] for name in _MASKS if name in self.masks}
        close = self.bars["close"].transpose(DATE, ASSET).astype(np.float32)
        return xr.Dataset(
            {
                "tradable": ((DATE, ASSET), self.tradable, attrs),
                "forward_return": label,
                "close": close,
                **masks,
            },
            {DATE: self.bars[DATE], ASSET: self.bars[ASSET], FEATURE: names},
            attrs={
                "source": str(self.bars.attrs.get("source", "unknown")),
                "features_unavailable": json.dumps(self.table.unavailable),
                "policies": str(self.bars.attrs.get("policies", "{}")),
                "spec": self.spec.to_json(),
                LEDGER_ATTRIBUTE: self.ledger.to_json(),
            },
        )

    @property
    def feature_attrs(self) -> dict[str, Any]:
        """Attributes of the features."""
        return dict(self.table.attributes)

    def _raw_label(self) -> None:
        spec = self.spec
        label = forward_return(self.bars, spec.start_lag, spec.horizon, price=spec.price)
        if spec.max_abs_return is not None:
            values = label.to_numpy()
            size = np.abs(values)
            beyond = size > spec.max_abs_return
            found = np.argwhere(beyond)
            order = np.argsort(-size[beyond], kind="stable")[:MAX_PLACES]
            dates = label[DATE].to_numpy()
            places = [
                f"{self.assets[column]} {np.datetime_as_string(dates[row], 'D')} "
                f"({float(values[row, column]):+.2f})"
                for row, column in found[order]
            ]
            self.ledger = self.ledger.add(
                f"labels beyond +-{spec.max_abs_return:g}", len(found), "label not observed", places
            )
            label = label.where(~beyond)
        self._forward_return = label

    def _label(self) -> xr.DataArray:
        spec = self.spec
        label = self._forward_return
        if spec.kind not in ("raw", "market_excess"):  # over the cross-section that is traded
            label = label.where(self.tradable)
        relative = relative_label(label, self.bars, spec.kind, benchmark=spec.benchmark)
        if spec.kind == "market_excess":
            gone = np.isfinite(label.to_numpy()) & ~np.isfinite(relative.to_numpy())
            lost = gone.any(axis=1)
            days = [str(day)[:10] for day in self.bars[DATE].to_numpy()[lost]]
            self.ledger = self.ledger.add(
                "dates without the benchmark's return", len(days), "label not observed", days
            )
        return relative

    def _universe(self) -> None:
        spec = self.spec
        self.masks, causes = tradable_universe(
            self.bars,
            spec.universe,
            limits=spec.limits,
            prices=spec.prices,
            listing_dates=spec.listing_dates,
        )
        found = str(self.masks.attrs.get(LEDGER_ATTRIBUTE, "[]"))
        self.ledger = self.ledger.extend(DropLedger.from_json(found))
        self.tradable = np.ones(self.masks["tradable"].shape, dtype=bool)
        for rule, cells in causes:
            self._exclude(rule, cells)
        priced = np.isfinite(self.bars["close"].transpose(DATE, ASSET).to_numpy())
        self._age = np.arange(len(priced))[:, None] - priced.argmax(axis=0) + 1

    def _exclude(self, rule: str, cells: np.ndarray) -> None:
        """Take `cells` out of the universe and say so, worst assets first."""
        lost = self.tradable & cells
        self.tradable = self.tradable & ~cells
        self.ledger = self.ledger.add(
            rule, int(lost.sum()), "excluded", worst(self.assets, lost.sum(axis=0))
        )

    def _fill_medians(self, values: np.ndarray, rows: slice) -> None:
        """Put the date's median where a tradable cell lacks a feature, in place."""
        tradable = self.tradable[rows]
        for place in range(values.shape[2]):
            feature = values[:, :, place]
            known = tradable & np.isfinite(feature)
            gaps = tradable & ~np.isfinite(feature) & known.any(axis=1)[:, None]
            dates = np.flatnonzero(gaps.any(axis=1))
            if dates.size:
                masked = np.where(known[dates], feature[dates], np.nan)
                medians = np.nanmedian(masked, axis=1, keepdims=True)
                feature[dates] = np.where(gaps[dates], medians, feature[dates])
            self._filled[place] += gaps.sum(axis=0)

    def _note_absent(self, values: np.ndarray, rows: slice) -> None:
        """Note cells that lack a feature, telling unfilled windows from undefined formulas."""
        tradable, age = self.tradable[rows], self._age[rows]
        for place, name in enumerate(self.table.names):
            absent = tradable & ~np.isfinite(values[:, :, place])
            if absent.any():
                warming = age < self.table.lookbacks[name]
                self._cold[rows] |= absent & warming
                self._undefined[rows] |= absent & ~warming
                self._undefined_of[place] += int((absent & ~warming).sum())

    def _require_dates(self, bars: xr.Dataset) -> None:
        """Refuse bars that allow no feature, or end before a window and its label are full."""
        if not self.table.names:
            raise PanelError(
                "bars must allow at least one of the features asked for; got none. Add open, "
                "high, low or volume, or ask for other features."
            )
        rows = 1 if self.spec.compat == "qlib" else max(self.table.lookbacks.values())
        reach = self.spec.start_lag + self.spec.horizon
        if bars.sizes[DATE] < rows + reach:
            raise PanelError(
                f"dates must number at least {rows} (longest window) + {reach} (label); got "
                f"{bars.sizes[DATE]}. Give a longer history or ask for shorter windows."
            )

    def _require_assets(self) -> None:
        """Empty thin cross-sections; refuse a universe in which nothing is left."""
        least = self.spec.min_assets
        counts = self.tradable.sum(axis=1)
        thin = (counts > 0) & (counts < least)
        cells = np.broadcast_to(thin[:, None], self.tradable.shape)
        self._exclude(f"fewer than {least} tradable assets on the date", cells)
        if not self.tradable.any():
            raise PanelError(
                f"panel must have a tradable cell; got none. What was left out:\n{self.ledger}\n"
                "Give a longer history, or ask for features that these bars define."
            )


def worst(labels: np.ndarray, counts: np.ndarray) -> list[str]:
    """Return the labels with the highest positive counts, five at most, as "label (count)"."""
    order = np.argsort(-counts, kind="stable")[:MAX_PLACES]
    return [f"{labels[place]} ({int(counts[place]):,})" for place in order if counts[place] > 0]


def _priced_assets(bars: xr.Dataset) -> tuple[xr.Dataset, DropLedger]:
    """Return the bars of assets that have a price at all, and the ledger so far."""
    if "close" not in bars or set(bars["close"].dims) != {DATE, ASSET}:
        raise PanelError(
            f"bars must have dims date and asset and a variable close; got dims "
            f"{tuple(bars.sizes)} and variables {sorted(map(str, bars.data_vars))}. "
            "Make them with read_prices."
        )
    if (
        DATE not in bars.coords
        or bars[DATE].dtype.kind != "M"
        or bars["close"].dtype.kind not in "fiu"
    ):
        dates = bars[DATE].dtype if DATE in bars.coords else "no"
        raise PanelError(
            f"bars must have datetime64 dates and numbers as close; got {dates} dates and "
            f"{bars['close'].dtype} closes. Make them with read_prices."
        )
    ledger = DropLedger.from_json(str(bars.attrs.get(LEDGER_ATTRIBUTE, "[]")))
    priced = np.isfinite(bars["close"].transpose(DATE, ASSET).to_numpy()).any(axis=0)
    ledger = ledger.add(
        "assets without any close", int((~priced).sum()), "dropped", bars[ASSET].to_numpy()[~priced]
    )
    if not priced.all():
        bars = bars.isel({ASSET: np.flatnonzero(priced)})
    for dim in (DATE, ASSET):
        if bars.sizes[dim] < 2:
            raise PanelError(
                f"bars must have at least 2 {dim}s with prices; got {bars.sizes[dim]}. "
                "A cross-section over time is priced: give more."
            )
    close = bars["close"].to_numpy()
    low, high = np.nanmin(close), np.nanmax(close)
    if low < np.finfo(np.float32).tiny or high > np.finfo(np.float32).max:
        raise PanelError(
            f"closes must lie within single precision (1.2e-38 to 3.4e38); got {low:g} to "
            f"{high:g}. Use another unit of money."
        )
    return bars, ledger
