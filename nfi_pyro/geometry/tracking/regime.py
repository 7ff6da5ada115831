r"""An alarm for shifts of the factors' law N(m_t, S_t), with a stated rate of false ones.

The statistic of a date is the energy distance (Szekely and Rizzo, 2013) between the states of the
last w dates, R, and of the w dates before, B, in the Fisher-Rao distance d of states:

    T = 2 mean d(R, B) - mean d(R, R) - mean d(B, B)

It sees a law that moved and a law that became restless, and with w = 1 is twice the step of a day.
Only states known at the date enter.

The threshold is conformal (Vovk, Gammerman and Shafer, 2005). Quiet dates are cut into n stretches
of equal length; ``M_j`` is the largest statistic of each. With ``k = ceil((n + 1)(1 - rate))`` the
k-th smallest is the threshold, and

    P(any alarm in a new quiet stretch) <= 1 - k / (n + 1) <= rate

over calibration and new dates together, whatever the law of the statistic, if stretches are
exchangeable. They are nearly so where the state forgets within a stretch; a state that wanders for
longer than one raises more alarms than stated, and so does a fit whose states on its own training
dates are calmer than on new ones: calibrate on dates that the fit has not seen where there are
enough. The rate is by stretch and not by date, since alarms come in runs.
"""

import math

import numpy as np
import xarray as xr

from nfi_pyro.dims import DATE
from nfi_pyro.errors import SpecError
from nfi_pyro.geometry.results.regime import RegimeAlarm, RegimeShifts
from nfi_pyro.geometry.states.state_checks import check_dates, sample_dims
from nfi_pyro.geometry.states.states import pairwise_state_distances


def shift_statistic(states: xr.Dataset, window: int = 10) -> xr.DataArray:
    """Return how far the states of the last dates are from those before, (date,), dimensionless.

    Parameters
    ----------
    states : Dataset
        `loc` and `scale` ([chain], [draw], date, factor), as from `factor_states`. The statistic
        is the mean over fits and draws.
    window : int
        Dates of each of the two windows, >= 1.

    Returns
    -------
    DataArray, shape (date,)
        NaN on the first ``2 window - 1`` dates.

    Raises
    ------
    ShapeError, SpecError
        As in `pairwise_state_distances`; also if the window is below 1 or there are too few dates.
    """
    if window < 1:
        raise SpecError(f"window must be >= 1; got {window} at shift_statistic. Pass 10.")
    distance = pairwise_state_distances(states)
    check_dates(states, "shift_statistic", 2 * window)
    table = distance.mean(sample_dims(states)).to_numpy()
    found = np.full(len(table), np.nan)
    for end in range(2 * window, len(table) + 1):
        late, early = slice(end - window, end), slice(end - 2 * window, end - window)
        within = table[late, late].mean() + table[early, early].mean()
        found[end - 1] = 2.0 * table[late, early].mean() - within
    attrs = {"units": "1", "long_name": "energy distance of states"}
    return xr.DataArray(found, {DATE: states[DATE]}, (DATE,), "statistic", attrs=attrs)


def calibrate_regime_alarm(
    states: xr.Dataset, *, window: int = 10, stretch: int = 21, rate: float = 0.05
) -> RegimeAlarm:
    """Return an alarm that quiet stretches raise with at most a stated probability.

    Parameters
    ----------
    states : Dataset
        Of quiet dates before those to monitor; see `shift_statistic`. What they hold of shifts
        raises the threshold.
    window : int
        Dates of each of the two windows, >= 1.
    stretch : int
        Dates that a rate is by, >= 1; 21 is a month of trading days.
    rate : float
        Share of quiet stretches with a false alarm, at most; in (0, 1).

    Returns
    -------
    RegimeAlarm

    Raises
    ------
    ShapeError
        As in `shift_statistic`.
    SpecError
        As there, if an option is out of range, or there are fewer than ``1 / rate - 1`` stretches:
        no threshold has the rate then.
    """
    if stretch < 1 or not 0.0 < rate < 1.0:
        raise SpecError(
            f"stretch must be >= 1 and rate in (0, 1); got {stretch} and {rate} at "
            "calibrate_regime_alarm. Pass 21 and 0.05."
        )
    statistic = shift_statistic(states, window).to_numpy()[2 * window - 1 :]
    n_stretches = len(statistic) // stretch
    place = math.ceil((n_stretches + 1) * (1.0 - rate) - 1e-9)
    if place > n_stretches:
        needed = math.ceil(1.0 / rate - 1.0 - 1e-9)
        raise SpecError(
            f"states must have {2 * window - 1 + needed * stretch} dates for a rate of {rate:g} by "
            f"{stretch} dates ({needed} stretches); got {states.sizes[DATE]} at "
            "calibrate_regime_alarm. Give more dates, a shorter stretch or a higher rate."
        )
    recent = statistic[len(statistic) - n_stretches * stretch :]
    maxima = recent.reshape(n_stretches, stretch).max(axis=1)
    dates = states[DATE].to_numpy()
    return RegimeAlarm(
        threshold=float(np.sort(maxima)[place - 1]),
        rate=rate,
        attained_rate=1.0 - place / (n_stretches + 1),
        stretch=stretch,
        window=window,
        maxima=maxima,
        first_date=dates[0],
        last_date=dates[-1],
    )


def regime_shifts(states: xr.Dataset, alarm: RegimeAlarm) -> RegimeShifts:
    """Return when the factors' law shifted, by an alarm calibrated on earlier dates.

    Parameters
    ----------
    states : Dataset
        Of the same fit or fits as the alarm's. Dates up to its last one only warm the windows up:
        give ``2 window - 1`` of them to monitor from the first date after.
    alarm : RegimeAlarm

    Returns
    -------
    RegimeShifts

    Raises
    ------
    ShapeError, SpecError
        As in `shift_statistic`.
    """
    statistic = shift_statistic(states, alarm.window)
    value, dates = statistic.to_numpy(), states[DATE].to_numpy()
    monitored = np.isfinite(value) & (dates > alarm.last_date)
    above = (alarm.maxima[:, None] >= value[monitored]).sum(axis=0)
    p_value = np.full(len(value), np.nan)
    p_value[monitored] = (1.0 + above) / (len(alarm.maxima) + 1.0)
    raised = monitored & (value > alarm.threshold)
    series = xr.Dataset(
        {
            "statistic": statistic,
            "p_value": (DATE, p_value, {"units": "1"}),
            "monitored": (DATE, monitored),
            "alarm": (DATE, raised),
        }
    )
    return RegimeShifts(series, _episodes(value, raised, dates), alarm)


def _episodes(value: np.ndarray, raised: np.ndarray, dates: np.ndarray) -> xr.Dataset:
    """Return runs of dates in alarm."""
    edges = np.diff(np.r_[0, raised.astype(int), 0])
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    peaks = np.array(
        [a + int(value[a:b].argmax()) for a, b in zip(starts, ends, strict=True)], dtype=int
    )
    named = {"start": starts, "end": ends - 1, "peak": peaks}
    return xr.Dataset(
        {name: ("episode", dates[place]) for name, place in named.items()}
        | {"statistic": ("episode", value[peaks], {"units": "1"})},
        {"episode": np.arange(len(starts))},
    )
