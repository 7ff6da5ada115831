"""Results about the factors' law through time: labelled, dimensionless, no drawing."""

from dataclasses import dataclass

import xarray as xr


@dataclass(frozen=True)
class StateDistances:
    """How far the law of the factors moved from date to date, in Fisher-Rao distance.

    All distances are dimensionless: 1 is about what a fully informed observer can tell apart with
    one standard error in one draw of the factors. Dimensions in brackets are there where several
    fits or draws were given.

    Attributes
    ----------
    step : DataArray, shape ([chain], [draw], date)
        Distance from the previous date given; NaN on the first.
    travelled : DataArray, shape ([chain], [draw], date)
        Sum of the steps up to the date, 0 on the first.
    displacement : DataArray, shape ([chain], [draw], date)
        Distance from the first date, at most `travelled`.
    by_factor : DataArray, shape ([chain], [draw], date, factor)
        Each factor's part of the step: ``step^2 = sum by_factor^2``. Comparable over fits only
        where the factors were matched, see `factor_states`.
    root_jeffreys : DataArray, shape ([chain], [draw], date)
        Root of ``KL(p, q) + KL(q, p)`` from the previous date, for comparison: the same for small
        steps, larger for large ones.
    interval : Dataset or None
        `step`, `travelled` and `displacement` over (bound, date), bounds ``lower`` and ``upper``:
        quantiles over fits and draws. None for a single one, which says nothing of its error. Of
        restarts it is their spread, no posterior.
    level : float
        Share of fits and draws between the bounds.
    """

    step: xr.DataArray
    travelled: xr.DataArray
    displacement: xr.DataArray
    by_factor: xr.DataArray
    root_jeffreys: xr.DataArray
    interval: xr.Dataset | None
    level: float
