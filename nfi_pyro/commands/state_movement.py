"""How far the factors' law moved through a span of a run, with an alarm learned in training."""

import numpy as np
import xarray as xr

from nfi_pyro.data.splits import DateSpan
from nfi_pyro.dims import DATE
from nfi_pyro.geometry.results.regime import RegimeAlarm
from nfi_pyro.geometry.states.states import factor_states, state_distances
from nfi_pyro.geometry.tracking.regime import calibrate_regime_alarm, regime_shifts
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.rendering.geometry_contents import StateMovement

WINDOW, STRETCH = 10, 21
RATES = (0.05, 0.1, 0.2)
NO_FACTORS = "The model has no latent factors, so there is no state to follow."
ONE_DATE = "The span has one date with a forecast; a distance needs two."


def movement_of(laws: ReturnForecast, span: DateSpan, train: DateSpan) -> StateMovement | str:
    """Return how far the factors' law moved through `span`, or a sentence why that is not known.

    Parameters
    ----------
    laws : ReturnForecast
        Of every date with a full window.
    span, train : DateSpan
        Dates to follow, and earlier ones to calibrate the alarm on: at the lowest of `RATES` that
        they are enough for.
    """
    if "factor_loc" not in laws.data:
        return NO_FACTORS
    days = laws.data[DATE].to_numpy()
    place = span.positions(days)
    if place.stop - place.start < 2:
        return ONE_DATE
    states = factor_states(laws)
    found = state_distances(states.isel({DATE: place}))
    names = ("step", "travelled", "displacement")
    series = xr.Dataset({name: getattr(found, name) for name in names})
    alarm = _alarm(states.isel({DATE: train.positions(days)}))
    if alarm is None:
        nothing = series["step"] * np.nan
        shown = series.assign(statistic=nothing, alarm=nothing.notnull())
        needed = _dates_for(RATES[-1])
        why = f"There is no alarm: its threshold needs {needed} training dates with a forecast."
        return StateMovement(shown, np.nan, why)
    begin = max(place.start - 2 * WINDOW + 1, 0)
    shifts = regime_shifts(states.isel({DATE: slice(begin, place.stop)}), alarm)
    own = shifts.series.sel({DATE: series[DATE]})
    about = (
        f"Threshold from {len(alarm.maxima)} stretches of {STRETCH} dates in training "
        f"({str(alarm.first_date)[:10]} to {str(alarm.last_date)[:10]}): at most "
        f"{alarm.attained_rate:.0%} of stretches as quiet as those raise a false alarm. The fit "
        "has seen those dates, and its states may be calmer there than on new dates: alarms are "
        "then more frequent than stated."
    )
    shown = series.assign(statistic=own["statistic"], alarm=own["alarm"])
    return StateMovement(shown, alarm.threshold, about)


def _alarm(quiet: xr.Dataset) -> RegimeAlarm | None:
    """Return the alarm of the lowest rate that there are enough dates for."""
    for rate in RATES:
        if quiet.sizes[DATE] >= _dates_for(rate):
            return calibrate_regime_alarm(quiet, window=WINDOW, stretch=STRETCH, rate=rate)
    return None


def _dates_for(rate: float) -> int:
    """Return how many dates an alarm of this rate needs."""
    return 2 * WINDOW - 1 + STRETCH * round(1.0 / rate - 1.0)
