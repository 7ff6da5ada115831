r"""Risk aversion through time: by schedule, or rising with the distance the factors' law travels.

Risk aversion is the lambda of ``E[r] - lambda Var[r]``, per decimal return.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.dims import DATE
from nfi_pyro.errors import SpecError, name_places
from nfi_pyro.geometry.results.states import StateDistances

_UNITS = {"units": "1 / decimal return", "long_name": "risk aversion"}
Date = str | np.datetime64 | pd.Timestamp


def scheduled_risk_aversion(
    dates: pd.DatetimeIndex | np.ndarray, schedule: Mapping[Date, float]
) -> xr.DataArray:
    """Return the risk aversion in force on dates, (date,): that of the last entry up to the date.

    Parameters
    ----------
    dates : DatetimeIndex or ndarray of datetime64, shape (date,)
    schedule : mapping of date to float
        From which date each risk aversion, >= 0, holds.

    Raises
    ------
    SpecError
        If the schedule is empty, starts after the first date, or an entry is not finite and >= 0.
    """
    index = pd.DatetimeIndex(dates)
    knots = pd.Series(dict(schedule), dtype=float)
    knots.index = pd.DatetimeIndex(knots.index)
    knots = knots.sort_index()
    wrong = knots[~(np.isfinite(knots) & (knots >= 0.0))]
    if len(wrong):
        raise SpecError(
            f"schedule must hold finite values >= 0; got {wrong.iloc[0]} at "
            f"{name_places(day.date() for day in wrong.index)}. Use 0 for the expected return "
            "alone."
        )
    place = knots.index.searchsorted(index, side="right") - 1
    early = index[place < 0]
    if len(early):
        raise SpecError(
            f"schedule must start by the first date; got {len(knots)} entries, none in force at "
            f"{name_places(day.date() for day in early)}. Add an earlier entry."
        )
    return xr.DataArray(
        knots.to_numpy()[place], {DATE: index}, (DATE,), "risk_aversion", attrs=_UNITS
    )


def state_risk_aversion(
    distances: StateDistances, base: float, *, sensitivity: float = 1.0, window: int = 21
) -> xr.DataArray:
    r"""Return a risk aversion that rises with the distance the factors' law travelled lately.

    ``lambda_t = base (1 + sensitivity T_t / window)``, T_t the sum of the last `window` steps. So
    `base` holds in a market whose factors stand still, and a law that moves by 1 from date to
    date, about one standard error of a draw of the factors, doubles it where `sensitivity` is 1.
    Known at the close of the date where the distances are: those of the prior law.

    Parameters
    ----------
    distances : StateDistances
        From `state_distances`.
    base : float
        > 0, per decimal return.
    sensitivity : float
        >= 0, per unit of distance by date.
    window : int
        Number of steps, >= 1.

    Returns
    -------
    DataArray, shape ([chain], [draw], date)
        NaN on the first `window` dates, which have fewer steps behind them.

    Raises
    ------
    SpecError
        If a value is out of its range, or no date has `window` steps behind it.
    """
    for value, name, least in ((base, "base", "> 0"), (sensitivity, "sensitivity", ">= 0")):
        if not (0.0 <= value < math.inf) or (name == "base" and value == 0.0):
            raise SpecError(
                f"{name} must be finite and {least}; got {value} at state_risk_aversion. See its "
                "unit."
            )
    n_dates = distances.step.sizes[DATE]
    if not 1 <= window < n_dates:
        raise SpecError(
            f"window must be at least 1 and below the number of dates, {n_dates}; got {window} at "
            "state_risk_aversion. Give more dates."
        )
    lately = distances.step.rolling({DATE: window}, min_periods=window).sum()
    found = base * (1.0 + sensitivity * lately / window)
    return found.rename("risk_aversion").assign_attrs(_UNITS)
