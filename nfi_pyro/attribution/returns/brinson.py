"""Brinson attribution: active return as allocation, selection and interaction of groups."""

from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import numpy as np
import xarray as xr

from nfi_pyro.attribution.results.brinson import (
    ALLOCATION,
    EFFECT,
    GROUP,
    INTERACTION,
    SELECTION,
    TRADING,
    UNALLOCATED,
    BrinsonAttribution,
)
from nfi_pyro.attribution.returns.brinson_draws import name_dates
from nfi_pyro.attribution.returns.brinson_inputs import Books, Groups, Unallocated, read_books
from nfi_pyro.diagnostics.dim_checks import require_same_labels
from nfi_pyro.errors import ShapeError, SpecError, name_places

Method = Literal["bf", "bhb"]
Interaction = Literal["separate", "selection", "allocation"]
_ROUNDING = 1e-12
_DECIMAL = {"units": "decimal return"}
_SHARE = {"units": "fraction of capital"}


class _Side(NamedTuple):
    """One book by group: weight (date, group); contribution and return (..., date, group)."""

    weight: np.ndarray
    contribution: np.ndarray
    group_return: np.ndarray


def brinson(
    portfolio: xr.DataArray,
    benchmark: xr.DataArray,
    returns: xr.DataArray,
    groups: Groups,
    *,
    method: Method = "bf",
    interaction: Interaction = "separate",
    unallocated: Unallocated = "error",
    missing_group: str | None = None,
) -> BrinsonAttribution:
    r"""Return the active return of every date as effects of groups that add up to it.

    With weights w and returns R of a group, p of the portfolio and b of the benchmark:

    - allocation ``(w_p - w_b) R_b`` (bhb), or ``(w_p - w_b) (R_b - total R_b)`` (bf);
    - selection ``w_b (R_p - R_b)``; interaction ``(w_p - w_b) (R_p - R_b)``.

    A group without net weight has no return. In the benchmark: the total's stands in for it, and
    what allocation does not explain is selection. In the portfolio: its contribution, 0 unless
    longs and shorts cancel, is selection, and there is no interaction. Where net weight is small
    beside longs and shorts, selection and interaction are large and opposite: add them with
    ``interaction="selection"``. Effects sum to ``R_p - R_b`` in every case.

    Parameters
    ----------
    portfolio, benchmark : DataArray, shape (date, asset) or (asset,)
        Fractions of capital at the start of the period that `returns` has at `date`, so already
        drifted from the last trade; of any sign. (asset,) is held at the start of every date.
        Assets left out have weight 0.
    returns : DataArray, shape (date, asset)
        Simple returns, decimal, realised after the weights. NaN only where neither book holds the
        asset. With `sample`, or `chain` and `draw`, returns are draws and effects carry them.
    groups : mapping, Series or DataArray of asset, or DataArray over (date, asset)
        Group of each asset; cash is an asset of a group like any other. Assets that no book holds
        on a date need none.
    method : {"bf", "bhb"}
        Brinson and Fachler (1985); Brinson, Hood and Beebower (1986).
    interaction : {"separate", "selection", "allocation"}
        Whether it stands alone or is added to another effect.
    unallocated : {"error", "cash"}
        What to do where weights do not sum to 1 within 1e-6: refuse them, or book the rest in a
        group `unallocated` at a return of 0. A smaller rest, above rounding, is booked too.
    missing_group : str, optional
        Group of held assets that have none; they are named in the result. Default: refuse them.

    Returns
    -------
    BrinsonAttribution

    Raises
    ------
    ShapeError
        If dimensions, dates or labels do not agree.
    WeightsError
        If weights are not finite, name assets without returns, or do not sum to 1.
    SpecError
        If the benchmark is a series without constituents, a held asset has no return or no group,
        returns are ranks or excess returns, or an option is unknown.

    Notes
    -----
    Market specification, section 2.10. Costs and trades within a period: `add_trading`. Many
    dates: `link_effects` and `link_geometric`. Draws: `summarise_effects`.
    """
    _require_option("method", method, get_args(Method))
    _require_option("interaction", interaction, get_args(Interaction))
    _require_option("unallocated", unallocated, get_args(Unallocated))
    books = read_books(
        portfolio,
        benchmark,
        returns,
        groups,
        unallocated=unallocated,
        missing_group=missing_group,
    )
    own = _by_group(books, books.portfolio)
    other = _by_group(books, books.benchmark)
    names = list(books.groups)
    if books.portfolio_rest.any() or books.benchmark_rest.any():
        own = _with_rest(own, books.portfolio_rest)
        other = _with_rest(other, books.benchmark_rest)
        names.append(UNALLOCATED)
    parts = _effects(own, other, method)
    base, held = other.contribution.sum(axis=-1), own.contribution.sum(axis=-1)
    totals = {
        "portfolio_return": held,
        "benchmark_return": base,
        "active_return": held - base,
        "holdings_return": held,
        "semi_notional_return": base + parts[ALLOCATION].sum(axis=-1),
    }
    if interaction != "separate":
        parts[interaction] = parts[interaction] + parts.pop(INTERACTION)
    effects = _effect_array(books.axes, names, parts)
    return BrinsonAttribution(
        effects=effects,
        groups=_group_table(books.axes, names, own, other),
        totals=_total_table(books.axes, totals, effects),
        method=method,
        interaction=interaction,
        unclassified=books.unclassified,
    )


def add_trading(
    attribution: BrinsonAttribution, portfolio_return: xr.DataArray
) -> BrinsonAttribution:
    """Return the attribution of an account that earned something else than its holdings.

    Costs, fees and trades within a period are no group's: their sum, the account's return minus
    that of the weights, becomes an effect and a group of its own, both called `trading`.

    Parameters
    ----------
    attribution : BrinsonAttribution
    portfolio_return : DataArray, shape (date,), or with all draws of the attribution
        Realised return of the account, decimal, finite, over the same periods.

    Returns
    -------
    BrinsonAttribution
        Effects sum to the account's return minus the benchmark's.

    Raises
    ------
    ShapeError
        If dimensions or labels are not those of the holdings' return: one realised return says
        nothing of the trading in draws of returns.
    SpecError
        If a return is not finite or trading is there already.
    """
    where = "add_trading"
    holdings = attribution.totals["holdings_return"]
    if not isinstance(portfolio_return, xr.DataArray) or set(portfolio_return.dims) != set(
        holdings.dims
    ):
        got = getattr(portfolio_return, "dims", type(portfolio_return).__name__)
        raise ShapeError(
            f"portfolio_return must be a DataArray over {holdings.dims}; got {got} at {where}. "
            "Pass one return for each return of the holdings."
        )
    require_same_labels(portfolio_return, holdings, "portfolio_return", where)
    if TRADING in attribution.effects[EFFECT].values:
        raise SpecError(
            f"trading must be added once; got an attribution that has it at {where}. Start from "
            "the result of brinson."
        )
    account = portfolio_return.transpose(*holdings.dims).to_numpy().astype(np.float64)
    wrong = ~np.isfinite(account)
    if wrong.any():
        raise SpecError(
            "portfolio_return must be finite; got NaN or infinite ones on "
            f"{name_dates(wrong, holdings)} at {where}. Drop the dates from weights and returns."
        )
    return _with_trading(attribution, account)


def _with_trading(attribution: BrinsonAttribution, account: np.ndarray) -> BrinsonAttribution:
    """Return the attribution with a group and an effect of trading."""
    old = attribution.totals
    residual = account - old["holdings_return"].to_numpy()
    names = [*attribution.groups[GROUP].values.tolist(), TRADING]
    kinds = [*attribution.effects[EFFECT].values.tolist(), TRADING]
    effects = attribution.effects.reindex({GROUP: names, EFFECT: kinds}, fill_value=0.0)
    effects[{GROUP: -1, EFFECT: -1}] = residual
    groups = attribution.groups.reindex({GROUP: names}, fill_value=0.0)
    groups["portfolio_contribution"][{GROUP: -1}] = residual
    for name in ("portfolio_return", "benchmark_return"):
        groups[name][{GROUP: -1}] = np.nan  # without weight, like that of any such group
    totals = {str(name): old[name].to_numpy() for name in old.drop_dims(EFFECT)}
    totals |= {"portfolio_return": account, "active_return": account - totals["benchmark_return"]}
    return replace(
        attribution,
        effects=effects,
        groups=groups,
        totals=_total_table(old["holdings_return"], totals, effects),
    )


def _require_option(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse an option that is not among the known."""
    if value not in known:
        raise SpecError(
            f"{name} must be one of {name_places(known)}; got {value!r} at brinson. Pass one of "
            "them."
        )


def _by_group(books: Books, weights: np.ndarray) -> _Side:
    """Return a book's weights, contributions and returns by group."""
    shape = (*books.returns.shape[:-1], len(books.groups))
    weight, gross = np.zeros(shape[-2:]), np.zeros(shape[-2:])
    contribution = np.zeros(shape)
    for group in range(len(books.groups)):
        inside = books.codes == group
        columns = inside.any(axis=0)
        own = np.where(inside[:, columns], weights[:, columns], 0.0)
        weight[:, group] = own.sum(axis=1)
        gross[:, group] = np.abs(own).sum(axis=1)
        contribution[..., group] = np.einsum("ta,...ta->...t", own, books.returns[..., columns])
    # Longs and shorts that cancel leave rounding, and a return over it would be noise.
    known = np.abs(weight) > _ROUNDING * gross
    share = np.where(known, weight, 1.0)
    return _Side(weight, contribution, np.where(known, contribution / share, np.nan))


def _with_rest(side: _Side, rest: np.ndarray) -> _Side:
    """Return the book with a group of what is not allocated, whose return is 0 held or not."""
    none = np.zeros((*side.contribution.shape[:-1], 1))
    return _Side(
        np.concatenate([side.weight, rest[:, None]], axis=-1),
        np.concatenate([side.contribution, none], axis=-1),
        np.concatenate([side.group_return, none], axis=-1),
    )


def _effects(own: _Side, other: _Side, method: Method) -> dict[str, np.ndarray]:
    """Return effects (..., date, group) by name, which sum over both to R_p - R_b."""
    total = other.contribution.sum(axis=-1, keepdims=True)
    known = ~np.isnan(other.group_return)
    reference = np.where(known, other.group_return, total)
    allocation = (own.weight - other.weight) * (reference - (total if method == "bf" else 0.0))
    # Contributions, not weights times returns: they are there where weights cancel.
    stray = np.where(known, 0.0, other.contribution - other.weight * reference)
    picked = own.contribution - own.weight * reference - stray
    both = known & ~np.isnan(own.group_return)
    selection = np.where(both, other.weight * (own.group_return - reference), picked)
    return {ALLOCATION: allocation, SELECTION: selection, INTERACTION: picked - selection}


def _effect_array(
    axes: xr.DataArray, names: list[str], parts: dict[str, np.ndarray]
) -> xr.DataArray:
    """Return effects (..., date, group, effect) with their labels."""
    values = np.stack(list(parts.values()), axis=-1)
    found = xr.DataArray(values, axes.coords, (*axes.dims, GROUP, EFFECT), "effects", _DECIMAL)
    return found.assign_coords({GROUP: names, EFFECT: list(parts)})


def _group_table(axes: xr.DataArray, names: list[str], own: _Side, other: _Side) -> xr.Dataset:
    """Return weights, contributions and returns of both books by date and group."""
    variables = {}
    for who, side in (("portfolio", own), ("benchmark", other)):
        dims = (*axes.dims, GROUP)
        variables[f"{who}_weight"] = (dims[-2:], side.weight, _SHARE)
        variables[f"{who}_contribution"] = (dims, side.contribution, _DECIMAL)
        variables[f"{who}_return"] = (dims, side.group_return, _DECIMAL)
    return xr.Dataset(variables, axes.coords).assign_coords({GROUP: names})


def _total_table(
    axes: xr.DataArray, totals: dict[str, np.ndarray], effects: xr.DataArray
) -> xr.Dataset:
    """Return totals by date."""
    variables = {name: (axes.dims, values, _DECIMAL) for name, values in totals.items()}
    variables["effect_total"] = ((*axes.dims, EFFECT), effects.sum(GROUP).to_numpy(), _DECIMAL)
    return xr.Dataset(variables, axes.coords).assign_coords({EFFECT: effects[EFFECT].values})
