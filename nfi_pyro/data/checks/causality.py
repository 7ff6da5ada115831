"""The leakage audit: what is known at a close must not change when the future does.

A feature, a mask or a transform is causal when its value on a date is a function of the bars up to
that date. So it is computed three times: on all bars, on bars that end at a cut date, and on bars
whose rows after the cut are nonsense. Up to the cut the three must agree. An audit of something
that ignores the bars would pass as well, so the rows up to the cut are made nonsense too, and the
values must then change.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import PanelError, SpecError, name_places

Computed = xr.DataArray | xr.Dataset

_PRICES = frozenset({"open", "high", "low", "close", "vwap", "pre_close", "adj_close"})
_DEFAULT_CUTS = 5
_MOST_ROWS = 1000  # rows of the table; the count is of all
_COLUMNS = ("variable", "label", "date", "asset", "full", "seen", "future", "cut")


@dataclass(frozen=True, eq=False)
class CausalityReport:
    """What an audit found.

    Attributes
    ----------
    variables : tuple of str
        What was computed: names of variables, and of the labels of further dims as
        ``features[MA5]``.
    cuts : tuple of numpy.datetime64
        Dates up to which values were compared.
    count : int
        Cells, over all cuts and futures, whose value depends on later rows.
    violations : DataFrame
        The first 1000 of them. Columns ``variable``, ``label`` (of further dims, or empty),
        ``date`` (NaT for a variable without dates), ``asset``, ``full`` (value on all bars),
        ``seen`` (value with another future), ``future`` (``"truncated"`` or ``"corrupted"``) and
        ``cut``. A truth value is 0 or 1 and an absent cell NaN or 0.
    unmoved : tuple of str
        Those of `variables` that did not change when every row up to the last cut was made
        nonsense: the audit cannot see what they depend on.
    """

    variables: tuple[str, ...]
    cuts: tuple[np.datetime64, ...]
    count: int
    violations: pd.DataFrame
    unmoved: tuple[str, ...]

    @property
    def reacts(self) -> bool:
        """Whether the audit has power: something computed depends on the bars."""
        return len(self.unmoved) < len(self.variables)

    @property
    def ok(self) -> bool:
        """Whether no value depends on later rows, and the audit has power."""
        return self.reacts and not self.count

    def require(self) -> None:
        """Return nothing when all is well.

        Raises
        ------
        PanelError
            When a value depends on later rows, or nothing depends on the bars.
        """
        if not self.ok:
            raise PanelError(str(self))

    def __str__(self) -> str:
        if self.count:
            places = [_place(row) for row in self.violations.to_dict("records")]
            places += [""] * (self.count - len(places))
            return (
                f"what is known at a close must not depend on later rows; got {self.count} values "
                f"that do at {name_places(places)}. Compute them from the rows up to their date."
            )
        if not self.reacts:
            return (
                f"what is audited must depend on the bars; got no change in "
                f"{name_places(self.variables)} when all rows were replaced. Audit a function "
                "that reads the bars given to it."
            )
        still = f"; did not react to the bars: {name_places(self.unmoved)}" if self.unmoved else ""
        return (
            f"causal: {len(self.variables)} variables at {len(self.cuts)} cuts from "
            f"{_day(self.cuts[0])} to {_day(self.cuts[-1])}{still}"
        )


def audit_causality(
    compute: Callable[[xr.Dataset], Computed],
    bars: xr.Dataset,
    *,
    dates: int | Sequence[object] | None = None,
    least_rows: int = 2,
    seed: int = 0,
    tolerance: float = 0.0,
) -> CausalityReport:
    """Return whether what `compute` makes of the bars looks at rows after its date.

    Parameters
    ----------
    compute : callable
        From bars to a DataArray or Dataset with the dim ``date``, of numbers or truth values. It
        runs twice per cut and three times more, each time on a copy; what it raises comes through.
    bars : Dataset, dims (date, ...)
        Any variables; those without dates stay as they are, as do the calendar and the assets.
    dates : int, or sequence of dates, optional
        How many cuts, spread evenly, or the cut dates; default 5. The last date is no cut: nothing
        comes after it.
    least_rows : int
        Fewest rows up to a cut, >= 1: what `compute` needs to run, or a training span.
    seed : int
        >= 0; of the nonsense. Global generators are not touched.
    tolerance : float
        Largest difference that counts as equal, times the larger of 1 and the full value. 0: to
        the bit.

    Returns
    -------
    CausalityReport
        A cell that only one of the runs has counts as NaN, or as false, in the other.

    Raises
    ------
    PanelError
        When the bars have no dates, too few, or lack a cut date.
    SpecError
        When an option is out of range, `compute` returns anything else, or two runs on the same
        bars differ.

    Notes
    -----
    The corrupted rows: prices times a common random factor per cell, which keeps a bar's order;
    other variables shuffled over all cells; a tenth of the cells, and all cells of a fifth of the
    assets, NaN. The truth of an audit is that of the dates that it cuts at.
    """
    whole = isinstance(seed, int | np.integer) and isinstance(least_rows, int | np.integer)
    if not whole or seed < 0 or not tolerance >= 0 or least_rows < 1:
        raise SpecError(
            f"seed and tolerance must be >= 0 and least_rows >= 1; got {seed}, {tolerance} and "
            f"{least_rows} at audit_causality. seed and least_rows are integers: leave them out."
        )
    cuts = _cut_rows(bars, dates, least_rows)
    return _audit(compute, bars, cuts, seed=seed, tolerance=tolerance)


def _audit(
    compute: Callable[[xr.Dataset], Computed],
    bars: xr.Dataset,
    cuts: list[int],
    *,
    seed: int,
    tolerance: float,
) -> CausalityReport:
    """Run `compute` on all the pasts and futures, and report."""
    calendar = bars[DATE].to_numpy()
    full = _computed(compute, bars)
    again = _rows(_compare(full, _computed(compute, bars), tolerance), "", None)
    if again:
        raise SpecError(
            f"compute must give the same values for the same bars; got others at "
            f"{name_places(_place(row) for row in again)}. Seed what it draws."
        )
    rng = np.random.default_rng(seed)
    count = 0
    rows: list[dict[str, Any]] = []
    for row in cuts:
        known = _up_to(full, calendar[row])
        for future, other in (
            ("truncated", bars.isel({DATE: slice(0, row + 1)})),
            ("corrupted", _corrupted(bars, slice(row + 1, None), rng)),
        ):
            seen = _up_to(_computed(compute, other), calendar[row])
            found = _compare(known, seen, tolerance)
            count += sum(int(difference.wrong.sum()) for difference in found)
            rows += _rows(found, future, calendar[row])[: _MOST_ROWS - len(rows)]
    past = _corrupted(bars, slice(0, cuts[-1] + 1), rng)
    last = calendar[cuts[-1]]
    moved = _compare(_up_to(full, last), _up_to(_computed(compute, past), last), 0.0)
    names = {name: reacted for difference in moved for name, reacted in _reactions(difference)}
    return CausalityReport(
        variables=tuple(names),
        cuts=tuple(calendar[row] for row in cuts),
        count=count,
        violations=pd.DataFrame(rows, columns=list(_COLUMNS)),
        unmoved=tuple(name for name, reacted in names.items() if not reacted),
    )


@dataclass(frozen=True, eq=False)
class _Difference:
    """One variable of two runs on common labels, and where the two differ."""

    name: str
    full: xr.DataArray
    seen: xr.DataArray
    wrong: xr.DataArray

    @property
    def further(self) -> list[str]:
        """Dims other than date and asset."""
        return [str(dim) for dim in self.full.dims if dim not in (DATE, ASSET)]


def _cut_rows(bars: xr.Dataset, dates: int | Sequence[object] | None, least_rows: int) -> list[int]:
    """Return the rows of the cut dates, increasing."""
    found = f"dims {tuple(bars.sizes)}" if isinstance(bars, xr.Dataset) else type(bars).__name__
    if not isinstance(bars, xr.Dataset) or DATE not in bars.dims or DATE not in bars.coords:
        raise PanelError(
            f"bars must have the dim date with its labels; got {found}. Make them with read_prices."
        )
    rows = bars.sizes[DATE]
    if rows <= least_rows:
        raise PanelError(
            f"bars must have more dates than least_rows = {least_rows}; got {rows}. Give a longer "
            "history."
        )
    if dates is None or isinstance(dates, int):
        wanted = _DEFAULT_CUTS if dates is None else dates
        if wanted < 1:
            raise SpecError(f"dates must be at least 1 cut; got {wanted}. Leave it out for 5.")
        spread = np.linspace(least_rows - 1, rows - 2, wanted).round().astype(int)
        return sorted({int(row) for row in spread})
    try:
        asked = pd.DatetimeIndex(list(dates))
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"dates must be a number of cuts or dates of the bars; got {dates!r}. Write them "
            "YYYY-MM-DD."
        ) from error
    places = pd.DatetimeIndex(bars[DATE].to_numpy()).get_indexer(asked)
    wrong = asked[(places < least_rows - 1) | (places > rows - 2)]
    if len(wrong) or not len(asked):
        raise PanelError(
            f"cut dates must be dates of the bars with at least {least_rows} rows up to them and "
            f"one after; got others at {name_places(_day(day) for day in wrong)}. Choose others."
        )
    return sorted({int(row) for row in places})


def _computed(
    compute: Callable[[xr.Dataset], Computed], bars: xr.Dataset
) -> dict[str, xr.DataArray]:
    """Return what `compute` makes of a copy of the bars, variable by variable."""
    result = compute(bars.copy(deep=True))
    if isinstance(result, xr.DataArray):
        named = {str(result.name or "values"): result}
    elif isinstance(result, xr.Dataset):
        named = {str(name): values for name, values in result.data_vars.items()}
    else:
        named = {}
    wrong = [
        name
        for name, values in named.items()
        if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool)
        or (DATE in values.dims and DATE not in values.coords)
    ]
    if wrong or not named:
        raise SpecError(
            f"compute must return a DataArray or Dataset of numbers or truth values, with labels "
            f"on the dim date; got {type(result).__name__}, wrong at {name_places(wrong)}. Select "
            "the variables to audit."
        )
    return named


def _up_to(computed: dict[str, xr.DataArray], cut: np.datetime64) -> dict[str, xr.DataArray]:
    """Return the variables up to the cut date; one without dates is known at all of them."""
    return {
        name: values.isel({DATE: values[DATE].to_numpy() <= cut}) if DATE in values.dims else values
        for name, values in computed.items()
    }


def _compare(
    full: dict[str, xr.DataArray], seen: dict[str, xr.DataArray], tolerance: float
) -> list[_Difference]:
    """Return every variable of either run, on the labels of both."""
    found = []
    for name in [*full, *(name for name in seen if name not in full)]:
        present = full[name] if name in full else seen[name]
        nothing = False if present.dtype == bool else np.nan
        absent = xr.full_like(present, nothing, bool if present.dtype == bool else np.float64)
        one, two = full.get(name, absent), seen.get(name, absent)
        truth = one.dtype == bool and two.dtype == bool
        one, two = xr.align(_floats(one), _floats(two), join="outer", copy=False)
        two = two.transpose(*one.dims)
        if truth:  # an absent cell is false
            one, two = one.fillna(0.0), two.fillna(0.0)
        a, b = one.to_numpy(), two.to_numpy()
        with np.errstate(invalid="ignore"):  # inf - inf
            near = np.abs(a - b) <= tolerance * np.maximum(1.0, np.abs(a))
        same = (a == b) | (np.isnan(a) & np.isnan(b)) | (near if tolerance else False)
        found.append(_Difference(name, one, two, one.copy(data=~same)))
    return found


def _floats(values: xr.DataArray) -> xr.DataArray:
    return values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)


def _rows(found: list[_Difference], future: str, cut: np.datetime64 | None) -> list[dict[str, Any]]:
    """Return one row of the table per differing value, 1000 at most."""
    rows: list[dict[str, Any]] = []
    for difference in found:
        full, wrong = difference.full, difference.wrong.to_numpy()
        for place in np.argwhere(wrong)[: _MOST_ROWS - len(rows)]:
            at = dict(zip(full.dims, place, strict=True))
            labels = {dim: full[dim].to_numpy()[at[dim]] for dim in full.dims}
            rows.append(
                {
                    "variable": difference.name,
                    "label": ",".join(str(labels[dim]) for dim in difference.further),
                    "date": pd.Timestamp(labels[DATE]) if DATE in labels else pd.NaT,
                    "asset": str(labels.get(ASSET, "")),
                    "full": float(full.to_numpy()[tuple(place)]),
                    "seen": float(difference.seen.to_numpy()[tuple(place)]),
                    "future": future,
                    "cut": pd.NaT if cut is None else pd.Timestamp(cut),
                }
            )
    return rows


def _reactions(difference: _Difference) -> list[tuple[str, bool]]:
    """Return every name of a variable with its further labels, and whether it changed."""
    if not difference.further:
        return [(difference.name, bool(difference.wrong.any()))]
    others = [dim for dim in difference.wrong.dims if str(dim) not in difference.further]
    changed = difference.wrong.any(others)
    names = []
    for place in np.ndindex(changed.shape):
        label = ",".join(
            str(changed[dim].to_numpy()[at]) for dim, at in zip(changed.dims, place, strict=True)
        )
        names.append((f"{difference.name}[{label}]", bool(changed.to_numpy()[place])))
    return names


def _corrupted(bars: xr.Dataset, rows: slice, rng: np.random.Generator) -> xr.Dataset:
    """Return a copy of the bars with nonsense in some rows; see the notes of `audit_causality`."""
    out = bars.copy()
    length = len(range(*rows.indices(bars.sizes[DATE])))
    shape = (length, bars.sizes.get(ASSET, 1))
    factor = xr.DataArray(np.exp(rng.normal(0.0, 0.3, shape)), dims=(DATE, ASSET))
    gone = rng.random(shape) < 0.1
    if shape[1] > 1:  # some assets never come back
        gone[:, rng.permutation(shape[1])[: -(-shape[1] // 5)]] = True
    missing = xr.DataArray(gone, dims=(DATE, ASSET))
    for name, variable in bars.data_vars.items():
        if DATE not in variable.dims:
            continue
        part = variable.isel({DATE: rows}).drop_vars(list(variable.coords))
        floating = np.issubdtype(variable.dtype, np.floating)
        if str(name) in _PRICES and floating and ASSET in variable.dims:
            part = part * factor
        else:
            shuffled = rng.permutation(part.to_numpy().reshape(-1)).reshape(part.shape)
            part = part.copy(data=shuffled)
        if floating and ASSET in variable.dims:
            part = part.where(~missing)
        values = variable.to_numpy().copy()
        index = tuple(rows if dim == DATE else slice(None) for dim in variable.dims)
        values[index] = part.transpose(*variable.dims).to_numpy()
        out[name] = (variable.dims, values, variable.attrs)
    return out


def _place(row: dict[Any, Any]) -> str:
    label = f"[{row['label']}]" if row["label"] else ""
    cut = "" if pd.isna(row["cut"]) else f", {row['future']} after {_day(row['cut'])}"
    where = f" {row['asset']} {_day(row['date'])}".replace("  ", " ")
    return f"{row['variable']}{label}{where} ({row['full']:.6g} against {row['seen']:.6g}{cut})"


def _day(date: Any) -> str:
    return "every date" if pd.isna(date) else str(pd.Timestamp(date).date())
