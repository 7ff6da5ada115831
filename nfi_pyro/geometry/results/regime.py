"""Results about shifts of the factors' law: an alarm with a stated rate, and what it raised."""

from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class RegimeAlarm:
    """A threshold for the shift statistic, and how often it is passed in quiet times.

    Attributes
    ----------
    threshold : float
        Of the shift statistic, dimensionless; an alarm is above it.
    rate : float
        Asked for: most quiet stretches, as a share, in which any date raises an alarm.
    attained_rate : float
        What `threshold` gives, at most `rate`: ``1 - k / (n + 1)`` for the k-th smallest of n
        maxima. Exact for exchangeable stretches, see `nfi_pyro.geometry.tracking.regime`.
    stretch, window : int
        Dates of a stretch, and of each of the two windows that are compared.
    maxima : ndarray, shape (stretch,)
        Largest statistic of each quiet stretch, in order of time.
    first_date, last_date : numpy.datetime64
        Of the states that it was calibrated on. Nothing up to the last date is monitored.
    """

    threshold: float
    rate: float
    attained_rate: float
    stretch: int
    window: int
    maxima: np.ndarray
    first_date: np.datetime64
    last_date: np.datetime64


@dataclass(frozen=True)
class RegimeShifts:
    """When the factors' law shifted, by date.

    Attributes
    ----------
    series : Dataset over (date,)
        `statistic`, dimensionless, >= 0 up to rounding: the shift between the last `window` dates
        and as many before, NaN while there are not enough; `p_value`: share of quiet stretches,
        itself counted as one, whose largest statistic is at least as large; `monitored`: after the
        calibration's last date, with a statistic; `alarm`. `p_value` is NaN exactly where
        `monitored` is False; there is no alarm there.
    episodes : Dataset over (episode,)
        Runs of dates in alarm: `start`, `end`, `peak` (dates), `statistic` at the peak. Empty
        without an alarm.
    alarm : RegimeAlarm
    """

    series: xr.Dataset
    episodes: xr.Dataset
    alarm: RegimeAlarm
