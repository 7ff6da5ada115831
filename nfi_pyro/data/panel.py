"""The panel: its schema, and the one function that may call a dataset a panel.

A panel is date-major. Everything in it but the label is known at the close of its date:

==============  ======================  ==========================================================
variable        dims                    meaning
==============  ======================  ==========================================================
features        (date, asset, feature)  float32, finite wherever tradable
tradable        (date, asset)           bool, in the universe; never depends on forward_return
forward_return  (date, asset)           float32, decimal, NaN = not observed; attributes start_lag,
                                        horizon (trading days) and unit (return, rank or excess)
==============  ======================  ==========================================================

Optional: ``exposures`` (date, asset, factor) and the (date, asset) variables of `OPTIONAL`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NewType

import numpy as np
import xarray as xr

from nfi_pyro.data.labels import UNITS
from nfi_pyro.data.store.lazy import complete_cells
from nfi_pyro.dims import ASSET, DATE, FACTOR, FEATURE
from nfi_pyro.errors import PanelError, name_places

Panel = NewType("Panel", xr.Dataset)

REQUIRED: dict[str, tuple[str, ...]] = {
    "features": (DATE, ASSET, FEATURE),
    "tradable": (DATE, ASSET),
    "forward_return": (DATE, ASSET),
}
OPTIONAL: dict[str, tuple[str, ...]] = {
    "exposures": (DATE, ASSET, FACTOR),
    **dict.fromkeys(
        (
            *("close", "volume", "market_cap", "industry"),
            *("listed", "suspended", "limit_up", "limit_down", "one_price", "st", "universe"),
            "complete",
        ),
        (DATE, ASSET),
    ),
}
_MASKS = (
    *("tradable", "listed", "suspended", "limit_up", "limit_down", "one_price", "st", "universe"),
    "complete",
)
_DTYPES = {
    "features": "float32",
    "forward_return": "float32",
    **dict.fromkeys(_MASKS, "bool"),
}
_MOST_PLACES = 1000
_BLOCK_BYTES = 64 * 2**20


def check_panel(dataset: xr.Dataset) -> Panel:
    """Return the same dataset as a `Panel`, once it is known to follow every rule.

    Parameters
    ----------
    dataset : Dataset
        See the module for the schema. It is neither changed nor filled.

    Returns
    -------
    Panel
        The object given.

    Raises
    ------
    PanelError
        When rules are broken: one error, one line per violation.
    """
    if not isinstance(dataset, xr.Dataset):
        raise PanelError(
            f"panel must be an xarray Dataset; got {type(dataset).__name__}. Use build_panel."
        )
    violations = _coordinate_violations(dataset)
    sound = set()
    for name in (*REQUIRED, *OPTIONAL):
        found = _layout_violations(dataset, name)
        violations += found
        if name in dataset and not found:
            sound.add(name)
    if {"features", "tradable"} <= sound:
        violations += _feature_violations(dataset)
    if "forward_return" in sound:
        violations += _label_violations(dataset)
    if violations:
        count = len(violations)
        head = f"panel breaks {count} rules:\n- " if count > 1 else ""
        raise PanelError(head + "\n- ".join(violations))
    return Panel(dataset)


def _coordinate_violations(dataset: xr.Dataset) -> list[str]:
    found = []
    for dim in (DATE, ASSET, FEATURE):
        if dim not in dataset.dims:
            found.append(
                f"panel must have the dim {dim}; got {tuple(map(str, dataset.dims))}. "
                "Rename or build_panel."
            )
        elif dim not in dataset.coords:
            found.append(f"{dim} must have a coordinate; got none. Assign the labels.")
    for dim in (DATE, ASSET):
        if dataset.sizes.get(dim, 2) < 2:
            found.append(
                f"{dim} must have at least 2 entries; got {dataset.sizes[dim]}. "
                f"Give more {dim}s: a cross-section over time is priced."
            )
    if DATE in dataset.coords:
        found += _date_violations(dataset[DATE].to_numpy())
    if ASSET in dataset.coords:
        labels = dataset[ASSET].to_numpy().tolist()
        bad = [
            f"position {place} ({label!r})"
            for place, label in enumerate(labels)
            if not isinstance(label, str) or not label.strip()
        ]
        if bad:
            found.append(
                f"asset must be non-empty text; got {len(bad)} others at {name_places(bad)}. "
                "Convert the codes to str."
            )
        found += _repeats(ASSET, labels)
    if FEATURE in dataset.coords:
        found += _repeats(FEATURE, dataset[FEATURE].to_numpy().tolist())
        if dataset.sizes[FEATURE] == 0:
            found.append("feature must have at least 1 entry; got 0. Add features.")
    return found


def _date_violations(dates: np.ndarray) -> list[str]:
    if not np.issubdtype(dates.dtype, np.datetime64):
        return [f"date must be datetime64; got {dates.dtype}. Convert with pandas.to_datetime."]
    if np.isnat(dates).any():
        places = [f"position {place}" for place in np.flatnonzero(np.isnat(dates))]
        return [f"date must be a date; got NaT at {name_places(places)}. Drop those rows."]
    late = np.flatnonzero(np.diff(dates) <= np.timedelta64(0))
    if late.size:
        places = [f"{_day(dates[place])} then {_day(dates[place + 1])}" for place in late]
        return [
            f"date must be strictly increasing; got {late.size} steps that are not at "
            f"{name_places(places)}. Sort by date and drop duplicates."
        ]
    return []


def _repeats(dim: str, labels: list[object]) -> list[str]:
    seen: set[object] = set()
    twice = []
    for label in labels:
        if label in seen:
            twice.append(label)
        seen.add(label)
    if not twice:
        return []
    return [f"{dim} must be unique; got repeats at {name_places(twice)}. Keep one of each."]


def _layout_violations(dataset: xr.Dataset, name: str) -> list[str]:
    dims = REQUIRED.get(name) or OPTIONAL[name]
    if name not in dataset.data_vars:
        missing = f"panel must have the variable {name}; got {sorted(map(str, dataset.data_vars))}"
        return [f"{missing}. Use build_panel."] if name in REQUIRED else []
    variable = dataset[name]
    found = []
    if variable.dims != dims:
        found.append(f"{name} must have dims {dims}; got {variable.dims}. Transpose or rename.")
    wanted = _DTYPES.get(name)
    if wanted and variable.dtype != np.dtype(wanted):
        found.append(f"{name} must be {wanted}; got {variable.dtype}. Use astype.")
    return found


def feature_blocks(
    dataset: xr.Dataset, span: slice | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the features of a few dates at a time, (rows, values float32 (date, asset, feature)).

    Features in memory come as views, features on disk are read, about 64 MiB at a time. `span`
    restricts the dates, by position.
    """
    features = dataset["features"]
    first, last = (0, len(features)) if span is None else (span.start, span.stop)
    row = max(1, features.nbytes // max(1, len(features)))
    step = int(max(1, _BLOCK_BYTES // row))
    for start in range(first, last, step):
        rows = slice(start, min(start + step, last))
        yield rows, features[rows].to_numpy()


@dataclass(frozen=True)
class PanelBlocks:
    """Features and tradable cells of a span of dates; iterating again starts again.

    Attributes
    ----------
    panel : Dataset
    span : slice
        Positions of the dates.
    """

    panel: xr.Dataset
    span: slice

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (features, tradable) of a few dates at a time, in order."""
        tradable = self.panel["tradable"].to_numpy()
        for rows, values in feature_blocks(self.panel, self.span):
            yield values, tradable[rows]


def _feature_violations(dataset: xr.Dataset) -> list[str]:
    tradable = dataset["tradable"].to_numpy()
    complete = complete_cells(dataset)
    if complete is not None:  # as read_panel gives it, verified
        odd = tradable & ~complete
        count, places = int(odd.sum()), cells(dataset, odd)
    else:
        count, places = _undefined_cells(dataset, tradable)
    if not count:
        return []
    return [
        f"features must be finite wherever tradable; got {count} NaN or inf cells at "
        f"{name_places(places)}. Set tradable to False there, or fill them on purpose."
    ]


def _undefined_cells(dataset: xr.Dataset, tradable: np.ndarray) -> tuple[int, list[str]]:
    """Return how many features are not finite where tradable, and where the first of them are."""
    names = dataset[FEATURE].to_numpy() if FEATURE in dataset.coords else None
    count = 0
    places: list[str] = []
    for rows, values in feature_blocks(dataset):
        odd = tradable[rows, :, None] & ~np.isfinite(values)
        count += int(odd.sum())
        room = _MOST_PLACES - len(places)
        if room > 0 and odd.any():
            for row, column, position in np.argwhere(odd)[:room]:
                name = position if names is None else names[position]
                places.append(f"{name} {_cell(dataset, rows.start + row, column)}")
    return count, places


def _label_violations(dataset: xr.Dataset) -> list[str]:
    label = dataset["forward_return"]
    found = []
    for name, least in (("start_lag", 0), ("horizon", 1)):
        value = label.attrs.get(name)
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if value is None or not whole or value < least:
            found.append(
                f"forward_return.attrs[{name!r}] must be an integer >= {least}; got {value!r}. "
                "Say what the label is, in trading days."
            )
    if label.attrs.get("unit") not in UNITS:
        found.append(
            f"forward_return.attrs['unit'] must be one of {UNITS}; got "
            f"{label.attrs.get('unit')!r}. Say what the label is."
        )
    infinite = np.isinf(label.to_numpy())
    if infinite.any():
        found.append(
            f"forward_return must be finite or NaN (not observed); got {int(infinite.sum())} inf "
            f"cells at {name_places(cells(dataset, infinite))}. Mask the prices behind them."
        )
    return found


def cells(dataset: xr.Dataset, mask: np.ndarray) -> list[str]:
    """Return "asset date" for the true cells of a (date, asset) mask, 1000 at most."""
    return [_cell(dataset, row, column) for row, column in np.argwhere(mask)[:_MOST_PLACES]]


def _cell(dataset: xr.Dataset, row: int, column: int) -> str:
    dates, assets = dataset.coords.get(DATE), dataset.coords.get(ASSET)
    asset = f"asset {column}" if assets is None else assets.to_numpy()[column]
    return f"{asset} {f'date {row}' if dates is None else _day(dates.to_numpy()[row])}"


def _day(date: object) -> str:
    return np.datetime_as_string(date, unit="D") if isinstance(date, np.datetime64) else str(date)
