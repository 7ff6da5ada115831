"""What goes into Brinson attribution, checked and laid out by date and asset."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.attribution.results.brinson import TRADING, UNALLOCATED
from nfi_pyro.attribution.returns.brinson_draws import DRAW_DIMS, draws_first
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import ShapeError, SpecError, WeightsError, name_places
from nfi_pyro.linear_factor.cells import day

Groups = Mapping[str, str] | pd.Series | xr.DataArray
Unallocated = Literal["error", "cash"]
SUM_TOLERANCE = 1e-6
_ROUNDING = 1e-12
_WHERE = "brinson"


@dataclass(frozen=True)
class Books:
    """Checked inputs, float64.

    Attributes
    ----------
    portfolio, benchmark : ndarray, shape (date, asset)
        Fractions of capital, finite; 0 is not held.
    portfolio_rest, benchmark_rest : ndarray, shape (date,)
        What weights lack to a sum of 1; 0 where that is rounding of float64.
    returns : ndarray, shape (..., date, asset)
        Finite; 0 where neither book holds the asset.
    codes : ndarray of int, shape (date, asset)
        Position of the asset's group among `groups`; -1 where neither book holds it.
    groups, unclassified : tuple of str
        Names of groups, sorted; assets that got the group for the missing.
    axes : DataArray, shape (..., date)
        Labels of draws and dates; its values mean nothing.
    """

    portfolio: np.ndarray
    benchmark: np.ndarray
    portfolio_rest: np.ndarray
    benchmark_rest: np.ndarray
    returns: np.ndarray
    codes: np.ndarray
    groups: tuple[str, ...]
    unclassified: tuple[str, ...]
    axes: xr.DataArray


def read_books(
    portfolio: xr.DataArray,
    benchmark: xr.DataArray,
    returns: xr.DataArray,
    groups: Groups,
    *,
    unallocated: Unallocated,
    missing_group: str | None,
) -> Books:
    """Return the inputs as arrays by date and asset; see `brinson` for the rules.

    Raises
    ------
    ShapeError
        If dimensions, dates or labels do not agree.
    WeightsError
        If weights are not finite, name unknown assets or do not sum to 1.
    SpecError
        If the benchmark has no constituents, a held asset has no return or no group, or a group
        takes a name that is used.
    """
    table = _read_returns(returns)
    own = _read_weights(portfolio, table, "portfolio")
    other = _read_weights(benchmark, table, "benchmark")
    rests = [
        _rest(weights, table, what, unallocated)
        for weights, what in ((own, "portfolio"), (other, "benchmark"))
    ]
    held = (own != 0.0) | (other != 0.0)
    codes, names, unclassified = _group_codes(groups, held, table, missing_group)
    return Books(
        portfolio=own,
        benchmark=other,
        portfolio_rest=rests[0],
        benchmark_rest=rests[1],
        returns=_held_returns(table, held),
        codes=codes,
        groups=names,
        unclassified=unclassified,
        axes=table.isel({ASSET: 0}, drop=True),
    )


def _read_returns(returns: xr.DataArray) -> xr.DataArray:
    """Return returns over (draws, date, asset), float64."""
    got = dict(returns.sizes) if isinstance(returns, xr.DataArray) else type(returns).__name__
    if (
        not isinstance(returns, xr.DataArray)
        or not {DATE, ASSET} <= set(returns.dims) <= {DATE, ASSET, *DRAW_DIMS}
        or not returns.size
    ):
        raise ShapeError(
            f"returns must be a DataArray over date and asset, or with draws over {DRAW_DIMS} too; "
            f"got {got} at {_WHERE}. Name the dimensions, or select one of the others."
        )
    ordered = draws_first(returns, "returns", _WHERE)
    _require_unique(returns, "returns")
    if returns.attrs.get("unit") in ("rank", "excess"):
        raise SpecError(
            f"returns must be returns; got labels whose unit is {returns.attrs['unit']!r} at "
            f"{_WHERE}. Weights times ranks or excess returns are no portfolio return: pass what "
            "the assets returned."
        )
    return ordered


def _require_unique(array: xr.DataArray, what: str) -> None:
    assets = array.get_index(ASSET)
    if not assets.is_unique:
        raise ShapeError(
            f"assets must be there once; got {name_places(assets[assets.duplicated()].unique())} "
            f"again in {what} at {_WHERE}. Add them up, or drop one."
        )


def _require_dates(array: xr.DataArray, dates: pd.Index, what: str) -> None:
    if DATE in array.dims and not array.get_index(DATE).equals(dates):
        raise ShapeError(
            f"{what} must have the dates of the returns; got {array.sizes[DATE]} against "
            f"{len(dates)}, or other ones, at {_WHERE}. Select what held at the start of each "
            "return's period."
        )


def _read_weights(weights: xr.DataArray, returns: xr.DataArray, what: str) -> np.ndarray:
    """Return weights (date, asset) of the assets of `returns`, 0 where they name none."""
    if not isinstance(weights, xr.DataArray) or ASSET not in weights.dims:
        got = weights.dims if isinstance(weights, xr.DataArray) else type(weights).__name__
        raise SpecError(
            f"{what} must be weights of its constituents, a DataArray over date and asset; got "
            f"{got} at {_WHERE}. A series of returns cannot be attributed: group weights and "
            "returns come from constituents. Pass their weights, or attribute to factors."
        )
    if not set(weights.dims) <= {DATE, ASSET}:
        raise ShapeError(
            f"{what} must have the dimensions date and asset, or asset alone; got "
            f"{tuple(weights.dims)} at {_WHERE}. Draws are of returns: pass one set of weights."
        )
    _require_unique(weights, what)
    dates, assets = returns.get_index(DATE), returns.get_index(ASSET)
    _require_dates(weights, dates, what)
    labels = weights.get_index(ASSET)
    values = weights.transpose(..., ASSET).to_numpy().astype(np.float64)
    values = np.broadcast_to(values, (len(dates), len(labels)))
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise WeightsError(
            f"{what} weights must be finite; got {values[tuple(np.argwhere(wrong)[0])]} at "
            f"{_cells(wrong, dates, labels)} of {_WHERE}. Set what is not held to 0."
        )
    place = assets.get_indexer(labels)
    unknown = (place < 0) & (values != 0.0).any(axis=0)
    if unknown.any():
        raise WeightsError(
            f"{what} must hold assets that have returns; got {int(unknown.sum())} unknown at "
            f"{name_places(labels[unknown])} of {_WHERE}. Add their returns, or set the weights to "
            "0 and say where the money went."
        )
    found = np.zeros((len(dates), len(assets)))
    found[:, place[place >= 0]] = values[:, place >= 0]
    return found


def _rest(
    weights: np.ndarray, returns: xr.DataArray, what: str, unallocated: Unallocated
) -> np.ndarray:
    """Return what weights lack to a sum of 1 on every date."""
    rest = 1.0 - weights.sum(axis=1)
    wrong = np.abs(rest) > SUM_TOLERANCE
    if unallocated == "error" and wrong.any():
        dates = returns.get_index(DATE)
        pairs = zip(1.0 - rest[wrong], dates[np.flatnonzero(wrong)], strict=True)
        sums = [f"{total:.8g} on {day(date)}" for total, date in pairs]
        raise WeightsError(
            f"{what} weights must sum to 1 within {SUM_TOLERANCE:g} on every date; got "
            f"{name_places(sums)} at {_WHERE}. Add what is missing, for example as an asset of "
            "cash, or pass unallocated='cash' to book the rest at a return of 0."
        )
    return np.where(np.abs(rest) > _ROUNDING, rest, 0.0)


def _held_returns(returns: xr.DataArray, held: np.ndarray) -> np.ndarray:
    """Return returns with 0 in place of those of assets that neither book holds."""
    values = returns.to_numpy()
    wrong = held & ~np.isfinite(values)
    wrong = wrong.any(axis=tuple(range(wrong.ndim - 2)))
    if wrong.any():
        raise SpecError(
            f"a held asset must have a finite return; got none at "
            f"{_cells(wrong, returns.get_index(DATE), returns.get_index(ASSET))} of {_WHERE}. Give "
            "its return (0 while nothing trades), or weights of 0."
        )
    kept: np.ndarray = np.where(held, values, 0.0)
    return kept


def _group_codes(
    groups: Groups, held: np.ndarray, returns: xr.DataArray, missing_group: str | None
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Return codes (date, asset), names of groups, and assets that lacked one."""
    dates, assets = returns.get_index(DATE), returns.get_index(ASSET)
    named = np.broadcast_to(_group_names(groups, dates, assets), held.shape).copy()
    missing = held & (pd.isna(named) | (named == ""))
    lacking = assets[missing.any(axis=0)]
    if missing.any() and missing_group is None:
        first = dates[missing.any(axis=1)][0]
        raise SpecError(
            f"every held asset must have a group; got none for {name_places(lacking)}, first on "
            f"{day(first)}, at {_WHERE}. Add them to groups, or pass "
            "missing_group='unclassified'."
        )
    named[missing] = missing_group
    codes = np.full(held.shape, -1)
    codes[held], names = pd.factorize(named[held].astype(str), sort=True)
    taken = sorted({UNALLOCATED, TRADING} & set(names))
    if taken:
        raise SpecError(
            f"a group must not be called {UNALLOCATED!r} or {TRADING!r}; got {name_places(taken)} "
            f"at {_WHERE}. These rows are the attribution's own: rename the group."
        )
    return codes, tuple(str(name) for name in names), tuple(str(asset) for asset in lacking)


def _group_names(groups: Groups, dates: pd.Index, assets: pd.Index) -> np.ndarray:
    """Return names (date or 1, asset) as objects, None where there is none."""
    if isinstance(groups, xr.DataArray):
        array = groups
    elif not isinstance(groups, pd.Series | Mapping):
        raise ShapeError(
            f"groups must say which asset each is of; got a {type(groups).__name__} at {_WHERE}. "
            "Give a mapping, Series or DataArray of asset to group."
        )
    else:
        series = groups if isinstance(groups, pd.Series) else pd.Series(dict(groups), dtype=object)
        array = xr.DataArray(series.to_numpy(), {ASSET: series.index.to_numpy()}, (ASSET,))
    if ASSET not in array.dims or not set(array.dims) <= {DATE, ASSET}:
        raise ShapeError(
            f"groups must be over asset, or date and asset; got {tuple(array.dims)} at {_WHERE}. "
            "Name the dimensions."
        )
    _require_unique(array, "groups")
    _require_dates(array, dates, "groups")
    values = np.atleast_2d(array.transpose(..., ASSET).to_numpy().astype(object))
    place = array.get_index(ASSET).get_indexer(assets)
    named = np.full((len(values), len(assets)), None, dtype=object)
    named[:, place >= 0] = values[:, place[place >= 0]]
    return named


def _cells(wrong: np.ndarray, dates: pd.Index, assets: pd.Index) -> str:
    """Return asset and date of at most five cells (date, asset), then a count."""
    return name_places(f"{assets[i]} on {day(dates[t])}" for t, i in np.argwhere(wrong))
