"""Results of Brinson attribution and of linking effects over dates."""

from dataclasses import dataclass

import xarray as xr

GROUP, EFFECT = "group", "effect"
ALLOCATION, SELECTION, INTERACTION = "allocation", "selection", "interaction"
TRADING = "trading"
UNALLOCATED = "unallocated"


@dataclass(frozen=True)
class BrinsonAttribution:
    """Active return of every date, in effects of groups that add up to it.

    All in decimal return of the period that starts on `date`. Where asset returns came as draws,
    what depends on them has their dimensions first; weights have not.

    Attributes
    ----------
    effects : DataArray, shape (date, group, effect)
        Sums over group and effect to `active_return`. Effects are `allocation`, `selection`,
        `interaction` where it stands alone, and `trading` after `add_trading`. Never NaN.
    groups : Dataset over (date, group)
        `portfolio_weight` and `benchmark_weight`, fractions of capital; `portfolio_contribution`
        and `benchmark_contribution`, sums of weight times return; `portfolio_return` and
        `benchmark_return` of the group, NaN where the book has no net weight in it. Group
        `unallocated` holds what weights lack to a sum of 1, at a return of 0; group `trading`
        what the account earned beyond its holdings.
    totals : Dataset over (date,)
        `portfolio_return` and `benchmark_return`; `active_return`, their difference;
        `holdings_return`, what the weights earned, equal to `portfolio_return` without trading;
        `semi_notional_return` of the benchmark's group returns at the portfolio's weights;
        `effect_total` (date, effect).
    method : str
        `bf` (Brinson and Fachler) or `bhb` (Brinson, Hood and Beebower).
    interaction : str
        `separate`, or the effect that it was added to.
    unclassified : tuple of str
        Held assets that came without a group on some date and were put in `missing_group`.
    """

    effects: xr.DataArray
    groups: xr.Dataset
    totals: xr.Dataset
    method: str
    interaction: str
    unclassified: tuple[str, ...]

    @property
    def stages(self) -> xr.DataArray:
        """Returns (date, effect) of the portfolios between benchmark and account.

        What allocation alone reaches, then selection (with interaction), then trading: the input
        of `link_geometric`.
        """
        names = {ALLOCATION: "semi_notional_return", SELECTION: "holdings_return"}
        if TRADING in self.effects[EFFECT].values:
            names[TRADING] = "portfolio_return"
        steps = [self.totals[name].expand_dims({EFFECT: [key]}, -1) for key, name in names.items()]
        return xr.concat(steps, EFFECT, combine_attrs="override").rename("stages")


@dataclass(frozen=True)
class LinkedEffects:
    """Effects of many dates, which add up to the difference of compound returns.

    Decimal return over all dates. Dimensions of draws, where there are any, come first.

    Attributes
    ----------
    effects : DataArray
        Over the dimensions of the effects but `date`; sums to `active_return`.
    by_date : DataArray
        Linked effect of each date, in the effects' dimensions; sums over dates to `effects`. By
        `frongello` it is what a date adds to the span so far; by the other methods it depends on
        all dates, so that it changes as the span grows.
    portfolio_return, benchmark_return, active_return : DataArray
        Compound returns and their difference; without dimensions, or over draws.
    method : str
    n_dates : int
    """

    effects: xr.DataArray
    by_date: xr.DataArray
    portfolio_return: xr.DataArray
    benchmark_return: xr.DataArray
    active_return: xr.DataArray
    method: str
    n_dates: int


@dataclass(frozen=True)
class GeometricEffects:
    """Effects that multiply: ``prod(1 + effect)`` is portfolio over benchmark wealth.

    Attributes
    ----------
    effects : DataArray, shape (effect,)
        Compounded over dates; ``prod(1 + effects) = 1 + active_return``.
    by_date : DataArray, shape (date, effect)
        ``prod`` over effects of ``1 + by_date`` is ``(1 + r_p) / (1 + r_b)`` of the date.
    portfolio_return, benchmark_return : DataArray
        Compound returns; without dimensions, or over draws.
    active_return : DataArray
        Geometric: ``(1 + P) / (1 + B) - 1``.
    n_dates : int
    """

    effects: xr.DataArray
    by_date: xr.DataArray
    portfolio_return: xr.DataArray
    benchmark_return: xr.DataArray
    active_return: xr.DataArray
    n_dates: int
