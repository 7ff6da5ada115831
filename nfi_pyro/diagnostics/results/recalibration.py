"""Recalibrations learned on training dates, frozen."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.special import ndtr, ndtri

from nfi_pyro.errors import SpecError


@dataclass(frozen=True)
class Recalibration:
    """A monotone map of probabilities that makes the training PIT uniform.

    Piecewise linear between normal scores, ``score -> corrected``, straight beyond the last knots.

    Attributes
    ----------
    score, corrected : ndarray, shape (knot,)
        Ascending normal scores of the raw PIT, and what they stand for.
    lower_slope, upper_slope : float
        Of the map below the first and above the last knot, > 0.
    n_observations, n_dates : int
        Training cells and dates that it was learned from.
    train_span : tuple of str or None
        First and last training date; None without a date coordinate.
    """

    score: np.ndarray
    corrected: np.ndarray
    lower_slope: float
    upper_slope: float
    n_observations: int
    n_dates: int
    train_span: tuple[str, str] | None

    def apply(self, pit: xr.DataArray) -> xr.DataArray:
        """Return the PIT under the recalibrated law, same shape, NaN where it is NaN.

        Raises
        ------
        SpecError
            If a value is outside [0, 1].
        """
        raw = pit.to_numpy().astype(np.float64)
        outside = raw[(raw < 0) | (raw > 1)]
        if len(outside):
            raise SpecError(
                f"pit must be in [0, 1]; got {outside[0]} at Recalibration.apply. "
                "Pass forecast distribution functions."
            )
        slopes = (self.lower_slope, self.upper_slope)
        return pit.copy(data=ndtr(_follow(ndtri(raw), self.score, self.corrected, slopes)))

    def raw_level(self, level: float) -> float:
        """Return the level to ask of the raw law for a quantile of the recalibrated one.

        The recalibrated quantile at `level` is the raw quantile at the level returned.

        Raises
        ------
        SpecError
            If `level` is not in (0, 1).
        """
        if not 0 < level < 1:
            raise SpecError(
                f"level must be in (0, 1); got {level} at raw_level. Pass for example 0.05."
            )
        slopes = (1.0 / self.lower_slope, 1.0 / self.upper_slope)
        score = np.array([ndtri(level)])
        return float(ndtr(_follow(score, self.corrected, self.score, slopes))[0])


@dataclass(frozen=True)
class ScaleRecalibration:
    """The factor by which a forecast standard deviation is to be multiplied.

    Attributes
    ----------
    factor : float
        > 0; 1 leaves the forecast as it is, 2 says that it was half of what it should be.
    interval : tuple of float
        95 percent interval, training scores taken as independent; NaN for fewer than 10.
    n_observations : int
        Training scores.
    """

    factor: float
    interval: tuple[float, float]
    n_observations: int

    def apply(self, standard_deviation: xr.DataArray) -> xr.DataArray:
        """Return the forecast standard deviation times the factor; NaN stays NaN."""
        return standard_deviation * self.factor


def _follow(
    values: np.ndarray, x: np.ndarray, y: np.ndarray, slopes: tuple[float, float]
) -> np.ndarray:
    """Return the piecewise linear map, straight beyond both ends."""
    inside = np.interp(values, x, y)
    below = y[0] + slopes[0] * (values - x[0])
    above = y[-1] + slopes[1] * (values - x[-1])
    return np.where(values < x[0], below, np.where(values > x[-1], above, inside))
