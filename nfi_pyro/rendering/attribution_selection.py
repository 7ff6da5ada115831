"""What an attribution page shows of long tables: the largest entries, the others summed, means.

Everything here is a pure function of results; NaN stays NaN and nothing is filled.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.dims import CHAIN, DATE, DRAW
from nfi_pyro.rendering.formatting import count, digits_for, percent
from nfi_pyro.rendering.page import Table

MOST_ROWS = 12
MOST_LISTED = 20
MOST_COLUMNS = 120
DRAW_DIMS = (CHAIN, DRAW, "sample")
LEVEL = 0.9
BASIS_POINTS = 1e4
NONE = "–"


class Chosen(NamedTuple):
    """Entries that are shown one by one, largest first, and those that are summed.

    Attributes
    ----------
    names : tuple of str
        Of the rows: of the entries kept, one for the rest where there is any, and of the last.
    kept, rest, last : ndarray of int
        Positions; `last` is of what is always shown at the end, where there is such an entry.
    """

    names: tuple[str, ...]
    kept: np.ndarray
    rest: np.ndarray
    last: np.ndarray

    def collect(
        self, values: np.ndarray, axis: int = 0, *, other: float | None = None
    ) -> np.ndarray:
        """Return the rows along an axis; that of the rest is its sum, or `other` where given."""
        parts = [np.take(values, self.kept, axis)]
        if self.rest.size:
            total = np.take(values, self.rest, axis).sum(axis=axis, keepdims=True)
            parts.append(total if other is None else np.full_like(total, other, dtype=float))
        return np.concatenate([*parts, np.take(values, self.last, axis)], axis)

    def cells(self, texts: Sequence[str]) -> list[str]:
        """Return the texts of entries as those of rows; the rest has none."""
        rest = [NONE] * bool(self.rest.size)
        kept, last = ([texts[place] for place in places] for places in (self.kept, self.last))
        return [*kept, *rest, *last]

    def said(self, what: str) -> str:
        """Return a sentence on how many are summed, empty where none is."""
        if not self.rest.size:
            return ""
        return f" The {count(len(self.rest))} smallest {what} are one row together."


class Scale(NamedTuple):
    """How decimals are printed: multiplied by `factor`, in `unit`."""

    factor: float
    unit: str


def choose(
    names: Sequence[object] | np.ndarray,
    score: np.ndarray,
    *,
    most: int = MOST_ROWS,
    last: str | None = None,
) -> Chosen:
    """Return the entries with the largest scores, at most `most` rows with the others' sum.

    Parameters
    ----------
    names : sequence
        Of the entries.
    score : ndarray, shape (entry,)
        NaN counts as smallest; ties go to the earlier entry.
    most : int
        At least 3.
    last : str, optional
        An entry that is always shown, at the end, whatever its score.
    """
    every = np.array([str(name) for name in names], dtype=object)
    ends = np.flatnonzero(every == last)
    order = np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")
    order, room = order[~np.isin(order, ends)], most - len(ends)
    n_kept = len(order) if len(order) <= room else room - 1
    kept, rest = order[:n_kept], np.sort(order[n_kept:])
    others = (f"{count(len(rest))} others",) if len(rest) else ()
    return Chosen((*every[kept], *others, *every[ends]), kept, rest, ends)


def mean_over_draws(values: xr.DataArray) -> xr.DataArray:
    """Return the mean over fits and draws, in float64; the values themselves without any."""
    dims = [dim for dim in values.dims if dim in DRAW_DIMS]
    return values.astype(float).mean(dims, keep_attrs=True) if dims else values.astype(float)


def interval_over_draws(values: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray] | None:
    """Return the central 90 percent over fits and draws, or None without several."""
    dims = [dim for dim in values.dims if dim in DRAW_DIMS]
    if not any(values.sizes[dim] > 1 for dim in dims):
        return None
    bounds = values.quantile([0.5 - 0.5 * LEVEL, 0.5 + 0.5 * LEVEL], dims, skipna=False)
    return bounds.isel(quantile=0, drop=True), bounds.isel(quantile=1, drop=True)


def over_fits(values: xr.DataArray, *, comparable: bool) -> xr.DataArray:
    """Return the mean over fits, or the first of them where their factors do not compare."""
    if CHAIN in values.dims and not comparable:
        values = values.isel({CHAIN: 0}, drop=True)
    return mean_over_draws(values)


def date_blocks(values: np.ndarray, dates: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return rows over at most `MOST_COLUMNS` dates, each the mean of as many consecutive ones.

    Parameters
    ----------
    values : ndarray, shape (row, date)
    dates : ndarray, shape (date,)

    Returns
    -------
    values : ndarray, shape (row, block)
        NaN where no date of the block has a value.
    dates : ndarray, shape (block,)
        The first of each.
    length : int
        Dates in a block; 1 where nothing was averaged.
    """
    length = max(-(-values.shape[1] // MOST_COLUMNS), 1)
    if length == 1:
        return values, dates, 1
    table = pd.DataFrame(values.T).groupby(np.arange(values.shape[1]) // length).mean()
    return table.to_numpy().T, dates[::length], length


def evenly(length: int, most: int) -> np.ndarray:
    """Return at most `most` evenly spaced positions, the last among them."""
    return np.arange(length)[::-1][:: max(-(-length // most), 1)][::-1]


def scale_of(values: xr.DataArray) -> Scale:
    """Return basis points for decimal returns, and the label's own unit for anything else."""
    unit = str(values.attrs.get("units", "label unit"))
    return Scale(BASIS_POINTS, "bp") if unit == "decimal return" else Scale(1.0, unit)


def common_digits(values: np.ndarray, significant: int = 3) -> int:
    """Return decimals that give the largest of `values` some significant digits."""
    return digits_for(pd.Series(np.ravel(values)), significant)


def mean_and_most(values: xr.DataArray) -> tuple[float, float]:
    """Return mean and largest value, NaN left out; NaN where there is none."""
    known = values.to_numpy()[np.isfinite(values.to_numpy())]
    if not known.size:
        return float("nan"), float("nan")
    return float(known.mean()), float(known.max())


def uncovered_text(share: xr.DataArray) -> str:
    """Return how much of the book is not explained, empty where all of it is."""
    mean, most = mean_and_most(share)
    if not most > 0.0:
        return ""
    return (
        f"Assets without a law hold {percent(mean)} of the book's absolute weight on average, "
        f"{percent(most)} at most: they are not in these figures."
    )


def missing_dates(values: xr.DataArray) -> int:
    """Return on how many dates nothing has a value."""
    others = [dim for dim in values.dims if dim != DATE]
    return int(values.isnull().all(others).sum())


def counted(number_of: float, what: str) -> str:
    """Return a count with its noun, in the plural unless it is 1."""
    return f"{count(number_of)} {what}{'' if number_of == 1 else 's'}"


def findings_tables(ledger: DropLedger) -> tuple[Table, ...]:
    """Return one table of what was left out on the way, or none where nothing was."""
    rows = tuple(
        (one.rule, one.action, ", ".join(one.places), count(one.count)) for one in ledger.findings
    )
    titles = ("Rule", "Action", "Places", "Count")
    return (Table("What was left out, and how often.", titles, rows, 3),) if rows else ()
