"""Rows of features: which cells of a panel count, read date by date, and their moments."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.data.panel import feature_blocks
from nfi_pyro.data.splits import DateSpan
from nfi_pyro.dims import ASSET, DATE, FEATURE
from nfi_pyro.errors import PanelError, SpecError, name_places

Span = slice | DateSpan | tuple[str, str] | None

_NULL = 1e-10  # an eigenvalue below this share of the largest counts as zero
_STILL = 1e-14  # a variance below this share of the squared mean is rounding


@dataclass(frozen=True)
class DateRows:
    """The rows of one date that count.

    Attributes
    ----------
    position : int
        Of the date, among all dates of the features.
    columns : ndarray of int, shape (row,)
        Positions of the assets.
    values : ndarray, shape (row, feature)
        float64; NaN = missing, only where missing entries were asked for.
    n_dropped : int
        Cells of the mask left out: an entry is missing (or every entry, where missing ones may
        stay).
    seen : ndarray of bool, shape (feature,)
        Whether the feature has any value in the mask on this date.
    """

    position: int
    columns: np.ndarray
    values: np.ndarray
    n_dropped: int
    seen: np.ndarray


@dataclass
class Moments:
    """Running count, mean and centred cross-products of rows, in float64.

    Batches are merged with the update of Chan, Golub and LeVeque (1983), which does not lose
    digits when means are large. Dates enter one by one, so the result has the same bits however
    the panel is cut into blocks.
    """

    n: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def empty(cls, n_features: int) -> "Moments":
        """Return the moments of no row."""
        return cls(0, np.zeros(n_features), np.zeros((n_features, n_features)))

    def add(self, values: np.ndarray) -> None:
        """Take in rows of shape (row, feature) without missing entries."""
        count = len(values)
        if not count:
            return
        mean = values.mean(axis=0)
        centred = values - mean
        shift = mean - self.mean
        total = self.n + count
        self.scatter += centred.T @ centred
        self.scatter += np.outer(shift, shift) * (self.n * count / total)
        self.mean = self.mean + shift * (count / total)
        self.n = total

    def covariance(self) -> np.ndarray:
        """Return the covariance with ``n - 1`` in the denominator, shape (feature, feature)."""
        return self.scatter / (self.n - 1)


def check_rows(features: xr.DataArray, mask: xr.DataArray | None = None) -> None:
    """Raise unless features and mask have the layout of a panel and the same labels.

    Parameters
    ----------
    features : DataArray, dims (date, asset, feature)
    mask : DataArray of bool, dims (date, asset), optional

    Raises
    ------
    PanelError
        If dims, labels or dtypes differ from that.
    """
    if features.dims != (DATE, ASSET, FEATURE):
        raise PanelError(
            f"features must have dims {(DATE, ASSET, FEATURE)}; got {features.dims}. Transpose."
        )
    for dim in features.dims:
        if dim not in features.coords:
            raise PanelError(f"{dim} must have a coordinate; got none. Assign the labels.")
        if features.sizes[dim] == 0:
            raise PanelError(f"{dim} must have at least 1 entry; got 0. Give more {dim}s.")
    names = pd.Index(features[FEATURE].to_numpy())
    if names.has_duplicates:
        raise PanelError(
            "feature must be unique; got repeats at "
            f"{name_places(names[names.duplicated()])}. Keep one of each."
        )
    if mask is None:
        return
    if mask.dims != (DATE, ASSET) or mask.dtype != np.dtype(bool):
        raise PanelError(
            f"mask must be bool with dims {(DATE, ASSET)}; got {mask.dtype} with {mask.dims}. "
            "Use panel['tradable']."
        )
    for dim in mask.dims:
        if dim not in mask.coords or not features.indexes[dim].equals(mask.indexes[dim]):
            raise PanelError(
                f"mask must have the {dim} labels of features; got others. Align them first."
            )


def span_positions(features: xr.DataArray, span: Span) -> slice:
    """Return the positions of a span of dates as a slice with start and stop.

    Parameters
    ----------
    features : DataArray, dims (date, asset, feature)
    span : slice of positions, DateSpan, pair of ISO days (both inclusive), or None for all dates

    Raises
    ------
    SplitError
        If a span of days holds no date.
    SpecError
        If a slice of positions is empty or has a step.
    """
    if isinstance(span, slice):
        first, last, step = span.indices(features.sizes[DATE])
        if step != 1 or last <= first:
            raise SpecError(
                f"a span of positions must hold at least one date, without steps; got {span} for "
                f"{features.sizes[DATE]} dates. Give slice(first, after_last)."
            )
        return slice(first, last)
    if span is None:
        return slice(0, features.sizes[DATE])
    days = span if isinstance(span, DateSpan) else DateSpan(*span)
    return days.positions(features[DATE].to_numpy())


def span_days(features: xr.DataArray, positions: slice) -> tuple[str, str]:
    """Return first and last day of some positions as ISO days."""
    dates = features[DATE].to_numpy()
    return day_text(dates[positions.start]), day_text(dates[positions.stop - 1])


def day_text(date: object) -> str:
    """Return a date as an ISO day."""
    return f"{pd.Timestamp(str(date)):%Y-%m-%d}"


def date_rows(
    features: xr.DataArray,
    mask: xr.DataArray | None,
    positions: slice,
    *,
    complete: bool = True,
) -> Iterator[DateRows]:
    """Yield the rows of one date after another; a panel on disk is read a block at a time.

    Parameters
    ----------
    features : DataArray, dims (date, asset, feature)
        NaN = missing.
    mask : DataArray of bool, dims (date, asset), optional
        Cells that may count; all by default.
    positions : slice
        Of the dates, from `span_positions`.
    complete : bool
        Only rows without a missing entry; otherwise any row with one entry or more.

    Raises
    ------
    PanelError
        If a cell of the mask is infinite.
    """
    inside = None if mask is None else mask.to_numpy()
    for rows, block in feature_blocks(features.to_dataset(name="features"), positions):
        for offset, sheet in enumerate(block):
            position = rows.start + offset
            chosen = slice(None) if inside is None else np.flatnonzero(inside[position])
            columns = np.arange(len(sheet))[chosen]
            values = sheet[chosen].astype(np.float64)
            _refuse_infinite(values, columns, features, position)
            present = ~np.isnan(values)
            kept = present.all(axis=1) if complete else present.any(axis=1)
            n_dropped = 0 if inside is None else int((~kept).sum())
            yield DateRows(position, columns[kept], values[kept], n_dropped, present.any(axis=0))


def _refuse_infinite(
    values: np.ndarray, columns: np.ndarray, features: xr.DataArray, position: int
) -> None:
    if not np.isinf(values).any():
        return
    names, assets = features[FEATURE].to_numpy(), features[ASSET].to_numpy()
    day = day_text(features[DATE].to_numpy()[position])
    places = [
        f"{names[feature]} {assets[columns[row]]} {day}"
        for row, feature in np.argwhere(np.isinf(values))
    ]
    raise PanelError(
        f"features must be finite or NaN where the mask is true; got {len(places)} inf cells at "
        f"{name_places(places)}. Set the mask to False there."
    )


def refuse_unseen(seen: np.ndarray, names: np.ndarray) -> None:
    """Raise if some features have no value at all in the rows that were read."""
    if not seen.all():
        raise PanelError(
            f"every feature must have a value in the training rows; got none at "
            f"{name_places(names[~seen])}. Drop those features."
        )


def constant_columns(moments: Moments) -> np.ndarray:
    """Return which features do not vary over the rows, bool, shape (feature,)."""
    variance = moments.scatter.diagonal() / max(1, moments.n)
    return variance <= _STILL * moments.mean**2


def collinear_columns(moments: Moments) -> np.ndarray:
    """Return which features are part of an exact linear relation, bool, shape (feature,).

    Constant features have no part in it. A relation is an eigenvalue of the correlation matrix
    below 1e-10 of the largest; its members have a weight above 1 percent of its largest.
    """
    found = np.zeros(len(moments.mean), dtype=bool)
    moving = np.flatnonzero(~constant_columns(moments))
    if moving.size < 2:
        return found
    scatter = moments.scatter[np.ix_(moving, moving)]
    scale = np.sqrt(scatter.diagonal())
    values, vectors = np.linalg.eigh(scatter / np.outer(scale, scale))
    null = np.abs(vectors[:, values <= _NULL * values[-1]])
    if null.size:
        found[moving] = (null > 0.01 * null.max(axis=0)).any(axis=1)
    return found


def principal_axes(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return eigenvalues (largest first), eigenvectors as columns, and the numerical rank."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    rank = int((values > _NULL * values[0]).sum()) if values[0] > 0 else 0
    return values, vectors, rank


def fix_signs(loadings: np.ndarray) -> np.ndarray:
    """Return loadings (feature, factor) with the largest of each factor in modulus positive.

    Among loadings that tie to within 1e-8 the first feature decides, so that rounding does not.
    """
    size = np.abs(loadings)
    leader = (size >= (1.0 - 1e-8) * size.max(axis=0)).argmax(axis=0)
    sign = np.where(loadings[leader, np.arange(loadings.shape[1])] < 0, -1.0, 1.0)
    return loadings * sign


def match_features(features: xr.DataArray, names: np.ndarray, owner: str = "the fit") -> None:
    """Raise unless the features are those of `owner`, in its order."""
    given = features[FEATURE].to_numpy()
    if len(given) != len(names) or (given != names).any():
        lacking = [name for name in names if name not in set(given.tolist())]
        trouble = f"without {name_places(lacking)}" if lacking else "in another order or more"
        raise PanelError(
            f"features must be the {len(names)} of {owner}, in its order; got {len(given)}, "
            f"{trouble}. Select them by name first."
        )


def factor_names(prefix: str, n_factors: int) -> list[str]:
    """Return the labels of the factors, for example ``pc1``."""
    return [f"{prefix}{place + 1}" for place in range(n_factors)]


def check_factor_count(n_factors: object, n_features: int, *, fewer: bool = False) -> int:
    """Return `n_factors`, an integer from 1 to the number of features (less one with `fewer`)."""
    most = n_features - 1 if fewer else n_features
    whole = isinstance(n_factors, int | np.integer) and not isinstance(n_factors, bool)
    if not whole or not 1 <= int(n_factors) <= most:  # type: ignore[call-overload]
        raise SpecError(
            f"n_factors must be an integer from 1 to {most} for {n_features} features; got "
            f"{n_factors!r}. Ask for fewer factors."
        )
    return int(n_factors)  # type: ignore[call-overload]
