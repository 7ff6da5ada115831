"""From bars to a panel: features, label, universe, and a ledger of every cell left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfi_pyro.data.labels import forward_return
from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.quality import LEDGER_ATTRIBUTE, DropLedger
from nfi_pyro.data.technical import alpha158, lookback
from nfi_pyro.dims import ASSET, DATE, FEATURE
from nfi_pyro.errors import MAX_PLACES, PanelError, SpecError

MISSING_POLICIES = ("exclude", "median")


@dataclass
class _Universe:
    """What is decided step by step: which cells are tradable, and why the others are not."""

    tradable: np.ndarray
    assets: np.ndarray
    ledger: DropLedger

    def exclude(self, rule: str, cells: np.ndarray) -> None:
        """Take `cells` out of the universe and say so, worst assets first."""
        lost = self.tradable & cells
        self.tradable = self.tradable & ~cells
        self.ledger = self.ledger.add(
            rule, int(lost.sum()), "excluded", worst(self.assets, lost.sum(axis=0))
        )


def build_panel(
    bars: xr.Dataset,
    *,
    features: Sequence[str] | str | None = None,
    start_lag: int = 1,
    horizon: int = 1,
    max_abs_return: float | None = None,
    min_assets: int = 2,
    missing: str = "exclude",
    compat: str | None = None,
) -> Panel:
    """Return the panel of some bars: Alpha158 features, the label, and who is tradable when.

    An asset is tradable on a date when, at that close, its price is known, its volume is above 0
    (where the bars have volumes) and all its features are finite. Future returns play no part.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        See `alpha158`; as `read_prices` or `embedded_prices` return them.
    features, compat : None, str or sequence of str
        See `subset` and `compat` of `alpha158`.
    start_lag, horizon : int
        See `forward_return`, in trading days.
    max_abs_return : float, optional
        Labels beyond it, in absolute terms, count as not observed (NaN): bad price adjustments.
    min_assets : int
        Dates with fewer tradable assets have an empty cross-section instead.
    missing : "exclude" or "median"
        What happens to an otherwise tradable cell with an undefined feature: it leaves the
        universe, or the feature takes the median of that date over the tradable assets that
        have it (known at the close) and the cell leaves only where no asset has it.

    Returns
    -------
    Panel
        With ``features``, ``tradable``, ``forward_return`` and ``close`` (float32). Attributes
        ``source``, ``ledger`` (JSON of a `DropLedger`, the reader's findings first) and
        ``features_unavailable`` (JSON). Dates with nothing tradable yet stay: windows look back.

    Raises
    ------
    PanelError
        When dates, assets, computable features or tradable cells are too few.
    SpecError
        When an option is out of range or unknown.
    """
    _check_options(max_abs_return, min_assets, missing)
    if not isinstance(bars, xr.Dataset):
        raise PanelError(
            f"bars must be a Dataset of dims date and asset; got {type(bars).__name__}. Make them "
            "with read_prices."
        )
    bars, ledger = _priced_assets(bars)
    computed = alpha158(bars, subset=features, compat=compat)
    names = [str(name) for name in computed[FEATURE].to_numpy()]
    _require_dates(bars, names, start_lag + horizon, compat)
    label, ledger = _label(bars, start_lag, horizon, max_abs_return, ledger)
    universe = _priced_universe(bars, ledger)
    if missing == "median":
        _fill_medians(computed.to_numpy(), names, universe)
    _require_features(computed.to_numpy(), names, bars, universe)
    _require_assets(universe, min_assets)
    return check_panel(_assemble(bars, computed, label, universe))


def _assemble(
    bars: xr.Dataset, computed: xr.DataArray, label: xr.DataArray, universe: _Universe
) -> xr.Dataset:
    return xr.Dataset(
        {
            "features": computed,
            "tradable": ((DATE, ASSET), universe.tradable),
            "forward_return": label,
            "close": bars["close"].transpose(DATE, ASSET).astype(np.float32),
        },
        attrs={
            "source": str(bars.attrs.get("source", "unknown")),
            "features_unavailable": computed.attrs["features_unavailable"],
            LEDGER_ATTRIBUTE: universe.ledger.to_json(),
        },
    )


def _require_dates(bars: xr.Dataset, names: list[str], reach: int, compat: str | None) -> None:
    """Refuse bars that allow no feature, or end before a window and its label are full."""
    if not names:
        raise PanelError(
            "bars must allow at least one of the features asked for; got none. Add open, high, "
            "low or volume, or ask for other features."
        )
    rows = 1 if compat == "qlib" else max(lookback(name) for name in names)
    if bars.sizes[DATE] < rows + reach:
        raise PanelError(
            f"dates must number at least {rows} (longest window) + {reach} (label); got "
            f"{bars.sizes[DATE]}. Give a longer history or ask for shorter windows."
        )


def _require_assets(universe: _Universe, min_assets: int) -> None:
    """Empty thin cross-sections; refuse a universe in which nothing is left."""
    counts = universe.tradable.sum(axis=1)
    thin = (counts > 0) & (counts < min_assets)
    cells = np.broadcast_to(thin[:, None], universe.tradable.shape)
    universe.exclude(f"fewer than {min_assets} tradable assets on the date", cells)
    if not universe.tradable.any():
        raise PanelError(
            f"panel must have a tradable cell; got none. What was left out:\n{universe.ledger}\n"
            "Give a longer history, or ask for features that these bars define."
        )


def worst(labels: np.ndarray, counts: np.ndarray) -> list[str]:
    """Return the labels with the highest positive counts, five at most, as "label (count)"."""
    order = np.argsort(-counts, kind="stable")[:MAX_PLACES]
    return [f"{labels[place]} ({int(counts[place]):,})" for place in order if counts[place] > 0]


def _check_options(max_abs_return: float | None, min_assets: int, missing: str) -> None:
    if max_abs_return is not None and not max_abs_return > 0:
        raise SpecError(
            f"max_abs_return must be > 0; got {max_abs_return!r}. It is decimal: 0.3 is 30 percent."
        )
    if min_assets < 2:
        raise SpecError(
            f"min_assets must be >= 2; got {min_assets!r}. One asset is no cross-section."
        )
    if missing not in MISSING_POLICIES:
        raise SpecError(f"missing must be one of {MISSING_POLICIES}; got {missing!r}. Choose one.")


def _priced_assets(bars: xr.Dataset) -> tuple[xr.Dataset, DropLedger]:
    """Return the bars of assets that have a price at all, and the ledger so far."""
    if "close" not in bars or set(bars["close"].dims) != {DATE, ASSET}:
        raise PanelError(
            f"bars must have dims date and asset and a variable close; got dims "
            f"{tuple(bars.sizes)} and variables {sorted(map(str, bars.data_vars))}. "
            "Make them with read_prices."
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


def _label(
    bars: xr.Dataset,
    start_lag: int,
    horizon: int,
    max_abs_return: float | None,
    ledger: DropLedger,
) -> tuple[xr.DataArray, DropLedger]:
    label = forward_return(bars, start_lag=start_lag, horizon=horizon)
    if max_abs_return is None:
        return label, ledger
    size = np.abs(label.to_numpy())
    beyond = size > max_abs_return
    found = np.argwhere(beyond)
    order = np.argsort(-size[beyond], kind="stable")[:MAX_PLACES]
    dates, assets = label[DATE].to_numpy(), label[ASSET].to_numpy()
    places = [
        f"{assets[column]} {np.datetime_as_string(dates[row], 'D')} "
        f"({float(label.to_numpy()[row, column]):+.2f})"
        for row, column in found[order]
    ]
    ledger = ledger.add(
        f"labels beyond +-{max_abs_return:g}", len(found), "label not observed", places
    )
    return label.where(~beyond), ledger


def _priced_universe(bars: xr.Dataset, ledger: DropLedger) -> _Universe:
    """Return the cells with a price and, where volumes are known, a trade."""
    close = bars["close"].transpose(DATE, ASSET).to_numpy()
    universe = _Universe(np.ones(close.shape, dtype=bool), bars[ASSET].to_numpy(), ledger)
    universe.exclude("cells without a close (not listed, suspended, ended)", ~np.isfinite(close))
    if "volume" in bars:
        volume = bars["volume"].transpose(DATE, ASSET).to_numpy()
        if np.isfinite(volume).any():
            universe.exclude("cells without a volume", np.isnan(volume))
            universe.exclude("cells whose volume is 0", ~(volume > 0))
    return universe


def _fill_medians(values: np.ndarray, names: list[str], universe: _Universe) -> None:
    """Put the date's median where a tradable cell lacks a feature, in place."""
    for position, name in enumerate(names):
        feature = values[:, :, position]
        known = universe.tradable & np.isfinite(feature)
        gaps = universe.tradable & ~np.isfinite(feature) & known.any(axis=1)[:, None]
        rows = np.flatnonzero(gaps.any(axis=1))
        if rows.size:
            masked = np.where(known[rows], feature[rows], np.nan)
            medians = np.nanmedian(masked, axis=1, keepdims=True)
            feature[rows] = np.where(gaps[rows], medians, feature[rows])
        universe.ledger = universe.ledger.add(
            f"{name} undefined",
            int(gaps.sum()),
            "median of the date",
            worst(universe.assets, gaps.sum(axis=0)),
        )


def _require_features(
    values: np.ndarray, names: list[str], bars: xr.Dataset, universe: _Universe
) -> None:
    """Take out cells that lack a feature, telling unfilled windows from undefined formulas."""
    priced = np.isfinite(bars["close"].transpose(DATE, ASSET).to_numpy())
    age = np.arange(len(priced))[:, None] - priced.argmax(axis=0) + 1
    cold = np.zeros(priced.shape, dtype=bool)
    undefined = np.zeros(priced.shape, dtype=bool)
    by_feature = np.zeros(len(names), dtype=np.int64)
    for position, name in enumerate(names):
        absent = universe.tradable & ~np.isfinite(values[:, :, position])
        warming = age < lookback(name)
        cold |= absent & warming
        undefined |= absent & ~warming
        by_feature[position] = int((absent & ~warming).sum())
    universe.tradable = universe.tradable & ~undefined
    universe.ledger = universe.ledger.add(
        "cells with an undefined feature (worst features named)",
        int(undefined.sum()),
        "excluded",
        worst(np.array(names, dtype=object), by_feature),
    )
    universe.exclude("cells whose windows are not warm yet", cold)
