"""New dates for a stored panel, without writing the old ones again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.data.checks.quality import LEDGER_ATTRIBUTE, DropLedger
from nfi_pyro.data.panel import Panel, cells, check_panel, feature_blocks
from nfi_pyro.data.panel_builder import PanelBuilder
from nfi_pyro.data.panel_spec import PanelSpec
from nfi_pyro.data.store.lazy import COMPLETE
from nfi_pyro.data.store.panel_writer import PanelWriter, plain_text
from nfi_pyro.data.store.storage import read_panel
from nfi_pyro.dims import ASSET, DATE, FEATURE
from nfi_pyro.errors import PanelError, SpecError, name_places

_TOLERANCE = 1e-5  # relative: another build's rounding, not another price

_UNKNOWN: dict[str, Any] = {
    "b": False,
    "O": "",
    "f": np.nan,
    "M": np.datetime64("NaT"),
    "m": np.timedelta64("NaT"),
}
_SHARED_DATES = 20  # at least; and as many as a label needs to mature
_APPENDED = "dates appended (the last time as named; below: what was found in the prices given)"


def extend_panel(bars: xr.Dataset, path: str | Path, **options: Any) -> int:
    """Add the dates of some bars that a stored panel does not have yet; return how many.

    The panel is built with the options it was built with before. Features are computed for the
    new dates and the 20 before them (or as many as a label needs to mature), which must agree with
    what is stored (see `append_panel`); ages and universe see all the bars.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        With the stored dates as far back as the windows of the new ones look.
    path : str or Path
        A panel that `build_panel` or `nfi panel` wrote.
    **options
        Fields of `PanelSpec` that cannot be stored (a benchmark series, spells, listing dates).
        Others must be those that the panel was built with.

    Raises
    ------
    PanelError, SpecError
        As `append_panel` and `build_panel`; the stored panel is then as it was.
    """
    old = read_panel(path, lazy=True)
    if "spec" not in old.attrs:
        raise PanelError(
            f"a panel to extend must carry the options it was built with; got none at {path}. "
            "Build the new dates yourself and use append_panel."
        )
    written = str(old.attrs["spec"])
    spec = PanelSpec.from_json(written, **options)
    if spec.to_json() != written:
        raise SpecError(
            f"options of a panel to extend must be those it was built with ({written}); got "
            f"{spec.to_json()}. Leave them out, or write a new panel."
        )
    builder = PanelBuilder(bars, spec)
    dates = builder.bars[DATE].to_numpy()
    first_new = int(np.searchsorted(dates, old[DATE].to_numpy()[-1], side="right"))
    first = max(0, first_new - max(_SHARED_DATES, spec.start_lag + spec.horizon))
    ((_, values),) = builder.blocks(len(dates), first)
    rest = builder.finish()
    part = rest.isel({DATE: slice(first, None)})
    part["features"] = ((DATE, ASSET, FEATURE), values, builder.feature_attrs)
    return append_panel(Panel(part.assign_attrs(rest.attrs)), path)


def append_panel(panel: Panel, path: str | Path) -> int:
    """Add the dates of `panel` that a stored panel does not have yet; return how many there are.

    `panel` must overlap the stored one: on the dates that both have, features where both are
    tradable and labels where both are observed must agree, so that a new adjustment of old prices
    cannot slip in. Labels that were not observed yet are taken from `panel`, as they mature. New
    assets get NaN and False on the old dates; assets that `panel` lacks get them on the new ones.

    The stored panel is replaced at the end, in two moves of an instant, and readable until then:
    old feature files are linked, not copied, except the last chunk if it is not full.

    Parameters
    ----------
    panel : Panel
        Built like the stored one, with enough history that the new dates' windows are full and,
        for labels to mature, with the last start_lag + horizon stored dates.
    path : str or Path
        A panel that `write_panel` or `nfi panel` wrote.

    Raises
    ------
    PanelError
        When the panels do not overlap, differ where they do, or differ in features, label or
        variables; or the disk refuses. The stored panel is then as it was.
    """
    target = Path(path)
    check_panel(panel)
    old = read_panel(target, lazy=True)
    first_new = _first_new(panel, old, target)
    if first_new == panel.sizes[DATE]:
        return 0
    known = pd.Index(old[ASSET].to_numpy())
    assets = known.append(pd.Index(sorted(set(panel[ASSET].to_numpy()) - set(known))))
    _require_agreement(panel, old, first_new, target)
    fresh = panel.isel({DATE: slice(first_new, None)})
    n_old = old.sizes[DATE]
    rest = _joined(old, panel, assets.to_numpy(), first_new)
    shape = (n_old + fresh.sizes[DATE], len(assets), old.sizes[FEATURE])
    with PanelWriter(target, shape, extend=target) as writer:
        if len(assets) > len(known):  # another width, other digests: the old rows are read once
            for rows, values in feature_blocks(old):
                writer.take(rows.start, _widened(values, np.arange(len(known)), len(assets)))
        columns = assets.get_indexer(pd.Index(panel[ASSET].to_numpy()))
        for rows, values in feature_blocks(fresh):
            writer.write(n_old + rows.start, _widened(values, columns, len(assets)))
        writer.finish(rest, dict(old["features"].attrs))
    return int(fresh.sizes[DATE])


def _first_new(panel: Panel, old: Panel, target: Path) -> int:
    """Return the position of the first new date; refuse panels that do not continue each other."""
    pairs = (
        ("features", list(panel[FEATURE].to_numpy()), list(old[FEATURE].to_numpy())),
        ("variables", _variables(panel), _variables(old)),
        ("label", _label(panel), _label(old)),
    )
    for what, now, then in pairs:
        if now != then:
            raise PanelError(
                f"a panel to append must have the {what} of the stored one; got "
                f"{name_places(now)} for {name_places(then)} at {target}. Build it with the same "
                "options, or write a new panel."
            )
    for name in map(str, old.coords):
        if not {DATE, ASSET} & set(old[name].dims) and not old[name].equals(panel[name]):
            raise PanelError(
                f"a panel to append must have the {name} of the stored one; got "
                f"{name_places(panel[name].to_numpy().ravel())} at {target}. Build it the same "
                "way, or write a new panel."
            )
    dates, known = panel[DATE].to_numpy(), old[DATE].to_numpy()
    last = known[-1]
    first_new = int(np.searchsorted(dates, last, side="right"))
    shared = dates[:first_new]
    odd = [*np.setdiff1d(shared, known), *np.setdiff1d(known[known >= dates[0]], shared)]
    if first_new == 0 or shared[-1] != last or odd:
        raise PanelError(
            f"a panel to append must share the stored dates it reaches back to, the last one "
            f"({str(last)[:10]}) included; got {str(dates[0])[:10]} to {str(dates[-1])[:10]}"
            f"{f', and {name_places(str(day)[:10] for day in odd)} in one only' if odd else ''} "
            f"at {target}. Give prices with history."
        )
    return first_new


def _variables(panel: Panel) -> list[str]:
    return sorted({*map(str, panel.variables)} - {COMPLETE})


def _label(panel: Panel) -> list[str]:
    attrs = panel["forward_return"].attrs
    return [f"{key} {attrs.get(key)}" for key in ("start_lag", "horizon", "unit", "kind", "price")]


def _require_agreement(panel: Panel, old: Panel, first_new: int, target: Path) -> None:
    """Refuse a panel whose features or labels differ from the stored ones where both are known."""
    shared = panel.isel({DATE: slice(0, first_new)})
    offset = old.sizes[DATE] - first_new
    both, left, right = np.intersect1d(
        panel[ASSET].to_numpy(), old[ASSET].to_numpy(), return_indices=True
    )
    before = old.isel({DATE: slice(offset, None)})
    tradable = (shared["tradable"].to_numpy()[:, left]) & (before["tradable"].to_numpy()[:, right])
    odd = np.zeros(tradable.shape, dtype=bool)
    for rows, values in feature_blocks(shared):
        stored = before["features"][rows].to_numpy()[:, right]
        close = np.isclose(values[:, left], stored, rtol=_TOLERANCE, atol=_TOLERANCE)
        odd[rows] = tradable[rows] & ~close.all(axis=-1)
    now = shared["forward_return"].to_numpy()[:, left]
    then = before["forward_return"].to_numpy()[:, right]
    observed = np.isfinite(now) & np.isfinite(then)
    odd |= observed & ~np.isclose(now, then, rtol=_TOLERANCE, atol=_TOLERANCE)
    vanished = before["tradable"].to_numpy()[-1, right] & ~shared["tradable"].to_numpy()[-1, left]
    if odd.any():
        names = shared.isel({ASSET: left})
        raise PanelError(
            f"features and labels of old dates must be those that are stored; got "
            f"{int(odd.sum())} other cells at {name_places(cells(names, odd))} in {target}. Old "
            "prices were adjusted anew or corrected: write a new panel from the whole history."
        )
    appeared = shared["tradable"].to_numpy()[:, left] & ~before["tradable"].to_numpy()[:, right]
    if appeared.any():
        raise PanelError(
            f"assets not tradable on stored dates must not be so in the panel to append; got "
            f"{int(appeared.sum())} cells that are, at {name_places(both[appeared.any(axis=0)])} "
            f"in {target}. Ages and rules need the same history: give the whole of it."
        )
    if vanished.any():
        raise PanelError(
            f"assets tradable on the last stored date must be so in the panel to append; got "
            f"{int(vanished.sum())} that are not at {name_places(both[vanished])}. Give prices "
            "with more history, so that every window is full."
        )


def _joined(old: Panel, panel: Panel, assets: np.ndarray, first_new: int) -> xr.Dataset:
    """Return everything but the features over all dates and assets, with matured labels."""
    before = plain_text(old.drop_vars(["features", COMPLETE], errors="ignore"))
    after = plain_text(panel.drop_vars("features"))
    offset = old.sizes[DATE] - first_new
    ledger = _appended(old, panel, first_new)
    joined: dict[str, Any] = {}
    for name in map(str, before.variables):
        if name in (DATE, ASSET):
            continue
        variable, kind = before[name], before[name].dtype
        cells_then = _of_assets(variable, assets)
        cells_now = _of_assets(after[name], assets, cells_then).astype(kind)
        if DATE not in variable.dims:
            joined[name] = (variable.dims, cells_now, variable.attrs)
            continue
        values = np.concatenate([cells_then, cells_now[first_new:]])
        shared = cells_now[:first_new]
        if name == "forward_return":  # labels that have matured since
            young = values[offset : old.sizes[DATE]]
            np.copyto(young, shared, where=np.isnan(young))
        elif name == "close":
            ledger = _rebased(values, old.sizes[DATE], shared, assets, ledger)
        joined[name] = (variable.dims, values, variable.attrs)
    dates = np.concatenate([old[DATE].to_numpy(), panel[DATE].to_numpy()[first_new:]])
    attrs = {**old.attrs, LEDGER_ATTRIBUTE: ledger.to_json()}
    coords = [name for name in map(str, before.coords) if name in joined]
    return xr.Dataset(joined, {DATE: dates, ASSET: assets}, attrs).set_coords(coords)


def _of_assets(
    variable: xr.DataArray, assets: np.ndarray, otherwise: np.ndarray | None = None
) -> np.ndarray:
    """Return a variable with each asset in its column; others are unknown.

    Static variables of assets that are not there keep what `otherwise` says.
    """
    cells = variable.to_numpy()
    if ASSET not in variable.dims:
        return cells
    columns = pd.Index(variable[ASSET].to_numpy()).get_indexer(assets)
    axis = variable.get_axis_num(ASSET)
    out = np.take(cells, columns, axis=axis)  # -1 is replaced below
    absent = np.flatnonzero(columns < 0)
    if not absent.size:
        return out
    place = (slice(None),) * axis + (absent,)
    if otherwise is not None and DATE not in variable.dims:
        out = out.astype(otherwise.dtype)
        out[place] = otherwise[place]
    elif out.dtype.kind in _UNKNOWN:
        out[place] = _UNKNOWN[out.dtype.kind]
    else:
        raise PanelError(
            f"{variable.name} must be of a type that can be unknown (float, text or bool), as "
            f"assets come or go; got {out.dtype} at {name_places(assets[absent])}. Store it as "
            "float or text."
        )
    return out


def _rebased(
    close: np.ndarray, n_old: int, shared: np.ndarray, assets: np.ndarray, ledger: DropLedger
) -> DropLedger:
    """Put stored closes on the adjustment base of the new ones, in place, and say for which assets.

    Features and labels are ratios of prices and agree; a dividend since has only scaled the past.
    """
    stored = close[:n_old]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = shared / stored[-len(shared) :]
    known = np.isfinite(ratio)
    columns = np.flatnonzero(known.any(axis=0))
    base = np.nanmedian(np.where(known, ratio, np.nan)[:, columns], axis=0)
    moved = np.abs(base - 1) > _TOLERANCE
    stored[:, columns[moved]] *= base[moved].astype(close.dtype)
    names = [
        f"{assets[at]} (x{by:.4g})" for at, by in zip(columns[moved], base[moved], strict=True)
    ]
    priced = np.isfinite(stored).any(axis=0) & np.isfinite(close[n_old:]).any(axis=0)
    unlinked = assets[priced & ~known.any(axis=0)]
    ledger = ledger.add(
        "assets whose prices have a new adjustment base", len(names), "scaled", names
    )
    return ledger.add(
        "assets without a price on the dates shared: base of stored closes unknown",
        len(unlinked),
        "kept",
        unlinked,
    )


def _appended(old: Panel, panel: Panel, first_new: int) -> DropLedger:
    """Return what the first build found, how much was appended since, and what the last one found.

    The findings of appends in between are left out, or a daily ledger would never end.
    """
    earlier = DropLedger.from_json(str(old.attrs.get(LEDGER_ATTRIBUTE, "[]"))).findings
    marks = [place for place, found in enumerate(earlier) if found.rule == _APPENDED]
    first = earlier[: marks[0]] if marks else earlier
    total = panel.sizes[DATE] - first_new + (earlier[marks[0]].count if marks else 0)
    days = [str(day)[:10] for day in panel[DATE].to_numpy()[[first_new, -1]]]
    gone = np.setdiff1d(old[ASSET].to_numpy(), panel[ASSET].to_numpy())
    ledger = DropLedger(first).add(_APPENDED, total, "appended", days)
    ledger = ledger.add("assets without prices in what was appended", len(gone), "kept", gone)
    given = DropLedger.from_json(str(panel.attrs.get(LEDGER_ATTRIBUTE, "[]"))).findings
    own = (replace(found, rule=f"prices given: {found.rule}") for found in given)
    return ledger.extend(DropLedger(tuple(own)))


def _widened(values: np.ndarray, columns: np.ndarray, n_assets: int) -> np.ndarray:
    """Return features with each asset in its column of the joined panel, NaN elsewhere."""
    wide = np.full((values.shape[0], n_assets, values.shape[2]), np.nan, dtype=np.float32)
    wide[:, columns] = values
    return wide
