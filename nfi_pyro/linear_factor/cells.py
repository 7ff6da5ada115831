"""What goes into the cross-sectional regression, checked and laid out by date."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import ShapeError, SpecError, name_places

MARKET = "market"
KIND_MARKET, KIND_INDUSTRY, KIND_STYLE = "market", "industry", "style"


@dataclass(frozen=True)
class Cells:
    """Checked inputs of the regression.

    Attributes
    ----------
    returns : ndarray, shape (date, asset), float64
    exposures : ndarray, shape (date, asset, style)
    weights, constraint : ndarray, shape (date, asset), float64, optional
    codes : ndarray of int, shape (date, asset), optional
        Position of the industry among `industries`; -1 for none.
    industries, styles : tuple of str
    intercept : bool
    dates, assets : Index
    attrs : dict
        Attributes of the returns.
    """

    returns: np.ndarray
    exposures: np.ndarray
    weights: np.ndarray | None
    constraint: np.ndarray | None
    codes: np.ndarray | None
    industries: tuple[str, ...]
    styles: tuple[str, ...]
    intercept: bool
    dates: pd.Index
    assets: pd.Index
    attrs: dict[str, object]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns: market, industries, styles."""
        return ((MARKET,) if self.intercept else ()) + self.industries + self.styles

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kind of each column."""
        market = (KIND_MARKET,) if self.intercept else ()
        industry = (KIND_INDUSTRY,) * len(self.industries)
        return market + industry + (KIND_STYLE,) * len(self.styles)

    def reasons(self, date: int) -> list[tuple[str, np.ndarray]]:
        """Return why assets of a date are left out, first reason first, as masks (asset,)."""
        missing = [
            ("no return", np.isnan(self.returns[date])),
            ("no exposure", np.isnan(self.exposures[date]).any(axis=-1)),
        ]
        if self.weights is not None:
            missing.append(("no weight", np.isnan(self.weights[date])))
        if self.codes is not None:
            missing.append(("no industry", self.codes[date] < 0))
        if self.constraint is not None:
            missing.append(("no constraint weight", np.isnan(self.constraint[date])))
        return missing

    def place(self, date: int, what: object) -> str:
        """Return ``"what on 2020-01-31"``."""
        return f"{what} on {day(self.dates[date])}"


def check_cells(
    returns: xr.DataArray,
    exposures: xr.DataArray,
    *,
    weights: xr.DataArray | None,
    industries: xr.DataArray | None,
    constraint_weights: xr.DataArray | None,
    intercept: bool,
) -> Cells:
    """Return the inputs as arrays by date; see `cross_sectional_regression` for the rules.

    Raises
    ------
    ShapeError
        When dimensions or labels do not agree.
    SpecError
        When a value is infinite, a weight is not > 0, names repeat, or options contradict.
    """
    base = as_dims(returns, (DATE, ASSET), "returns")
    values = base.to_numpy().astype(np.float64)
    styles = _matched(exposures, (DATE, ASSET, FACTOR), base, "exposures")
    if constraint_weights is not None and (industries is None or not intercept):
        raise SpecError(
            "constraint_weights must come with industries and an intercept; got no "
            f"{'intercept' if industries is not None else 'industries'} at "
            "cross_sectional_regression. Without both there is no constraint."
        )
    codes, groups = _industry_codes(industries, base)
    names = tuple(str(name) for name in styles[FACTOR].to_numpy())
    cells = Cells(
        returns=values,
        exposures=styles.to_numpy(),
        weights=_positive(weights, base, "weights"),
        constraint=_positive(constraint_weights, base, "constraint_weights"),
        codes=codes,
        industries=groups,
        styles=names,
        intercept=intercept,
        dates=base.indexes[DATE],
        assets=base.indexes[ASSET],
        attrs={str(key): value for key, value in base.attrs.items()},
    )
    repeated = [name for name, count in Counter(cells.names).items() if count > 1]
    if repeated or not cells.names:
        raise SpecError(
            f"columns must have names of their own, at least one; got {name_places(repeated)} "
            f"more than once among market, industries and styles ({len(cells.names)} columns). "
            "Rename the exposures."
        )
    _refuse_infinite(values, base, "returns")
    _refuse_infinite(cells.exposures, styles, "exposures")
    return cells


def as_dims(array: xr.DataArray, dims: tuple[str, ...], what: str) -> xr.DataArray:
    """Return the array with its dimensions in this order.

    Raises
    ------
    ShapeError
        When it has others.
    """
    if set(array.dims) != set(dims):
        raise ShapeError(
            f"{what} must have the dimensions {dims}; got {tuple(array.dims)} at the linear "
            "factor model. Reduce or name its dimensions."
        )
    return array.transpose(*dims)


def same_labels(array: xr.DataArray, other: xr.DataArray, what: str) -> xr.DataArray:
    """Return the array, after checking that its labels are those of `other` in shared dimensions.

    Raises
    ------
    ShapeError
        When they differ.
    """
    for dim in set(array.dims) & set(other.dims):
        if not array.indexes[dim].equals(other.indexes[dim]):
            raise ShapeError(
                f"{what} must have the {dim}s of the array it goes with; got {array.sizes[dim]} "
                f"against {other.sizes[dim]}, or another order, at {dim}. Select the same ones "
                f"first, for example with .sel({dim}=...)."
            )
    return array


def day(date: object) -> str:
    """Return a date as an ISO day, anything else as it prints."""
    return f"{date:%Y-%m-%d}" if isinstance(date, pd.Timestamp) else str(date)


def _matched(
    array: xr.DataArray, dims: tuple[str, ...], base: xr.DataArray, what: str
) -> xr.DataArray:
    return same_labels(as_dims(array, dims, what), base, what)


def _positive(array: xr.DataArray | None, base: xr.DataArray, what: str) -> np.ndarray | None:
    """Return weights (date, asset) as float64, NaN where missing."""
    if array is None:
        return None
    matched = _matched(array, (DATE, ASSET), base, what)
    values: np.ndarray = matched.to_numpy().astype(np.float64)
    wrong = np.argwhere((values <= 0.0) | np.isinf(values))
    if len(wrong):
        raise SpecError(
            f"{what} must be > 0, finite or NaN; got {values[tuple(wrong[0])]} at "
            f"{name_places(_places(wrong, matched))}. Set NaN to leave an asset out."
        )
    return values


def _refuse_infinite(values: np.ndarray, array: xr.DataArray, what: str) -> None:
    wrong = np.argwhere(np.isinf(values))
    if len(wrong):
        raise SpecError(
            f"{what} must be finite or NaN; got {values[tuple(wrong[0])]} at "
            f"{name_places(_places(wrong, array))}. Mend the source or set NaN to leave it out."
        )


def _places(positions: np.ndarray, array: xr.DataArray) -> list[str]:
    """Return ``"A0 size on 2020-01-31"`` for positions (date, asset, ...)."""
    found = []
    for date, *others in positions:
        rest = zip(array.dims[1:], others, strict=True)
        labels = " ".join(str(array.indexes[dim][position]) for dim, position in rest)
        found.append(f"{labels} on {day(array.indexes[DATE][date])}")
    return found


def _industry_codes(
    industries: xr.DataArray | None, base: xr.DataArray
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return codes (date, asset) and sorted names; blank, None and NaN are no industry."""
    if industries is None:
        return None, ()
    dims = (ASSET,) if industries.ndim == 1 else (DATE, ASSET)
    named = _matched(industries, dims, base, "industries").to_numpy()
    unknown = pd.isna(named) | (named.astype(object) == "")
    codes = np.full(named.shape, -1)
    codes[~unknown], names = pd.factorize(named[~unknown].astype(str), sort=True)
    shape = (base.sizes[DATE], base.sizes[ASSET])
    return np.broadcast_to(codes, shape), tuple(str(name) for name in names)
