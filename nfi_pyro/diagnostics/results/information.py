"""Results on the mean Rank IC: its posterior, and how many dates would tell it from 0."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from scipy.special import ndtr, ndtri

from nfi_pyro.diagnostics.results.verdict import Verdict
from nfi_pyro.errors import SpecError


@dataclass(frozen=True)
class InformationPosterior:
    """Posterior of the mean Rank IC under a stationary AR(1) law of the daily ones.

    Attributes
    ----------
    mean, standard_deviation : float
        Of the posterior of the mean Rank IC.
    interval : tuple of float
        Equal-tailed, of probability `level`.
    level : float
        In (0, 1).
    probability_positive : float
        Posterior probability that the mean is above 0.
    phi_mean : float
        Posterior mean of the autocorrelation from one trading date to the next.
    phi_interval : tuple of float
        Equal-tailed, of probability `level`.
    effective_dates : float
        Independent dates that would say as much about the mean, posterior mean; above `n_dates`
        if neighbours offset each other.
    n_dates, n_missing : int
        Dates with a Rank IC and dates without.
    prior_scale : float
        Standard deviation of the prior of the mean, which is centred at 0.
    verdict : Verdict
    """

    mean: float
    standard_deviation: float
    interval: tuple[float, float]
    level: float
    probability_positive: float
    phi_mean: float
    phi_interval: tuple[float, float]
    effective_dates: float
    n_dates: int
    n_missing: int
    prior_scale: float
    verdict: Verdict


@dataclass(frozen=True)
class DatesNeeded:
    """How many dates a study needs.

    Attributes
    ----------
    n_dates : int
    power : float
        Probability of seeing the effect that was asked for.
    source : {"simulation", "normal approximation"}
        Where the number comes from: interpolated between two simulated numbers of dates, or the
        closed formula because the simulated ones lie all on one side.
    """

    n_dates: int
    power: float
    source: Literal["simulation", "normal approximation"]


@dataclass(frozen=True)
class InformationPower:
    """How often histories of some length show that the mean Rank IC is positive.

    Attributes
    ----------
    table : Dataset over (n_dates,)
        `power`: share of simulated histories with mean `effect` whose probability of a positive
        mean reaches `threshold`; `false_alarm`: the same with mean 0; `power_standard_error` and
        `false_alarm_standard_error`: binomial; `normal_approximation`: closed form of the power,
        standard deviation and autocorrelation taken as known. Histories of different length share
        their first dates.
    effect, standard_deviation, phi, threshold, prior_scale : float
        What was simulated: mean Rank IC, standard deviation and autocorrelation of the daily
        ones, and what counts as seen.
    n_simulations : int
    verdict : Verdict
        On the longest history.
    """

    table: xr.Dataset
    effect: float
    standard_deviation: float
    phi: float
    threshold: float
    prior_scale: float
    n_simulations: int
    verdict: Verdict

    def dates_needed(self, power: float = 0.8) -> DatesNeeded:
        """Return how many dates see the effect with this probability.

        Where simulated lengths lie on both sides, the normal score of the power is interpolated
        linearly in the root of the number of dates; elsewhere `normal_power` is inverted.

        Raises
        ------
        SpecError
            If `power` is not in (0, 1).
        """
        if not 0 < power < 1:
            raise SpecError(
                f"power must be in (0, 1); got {power} at dates_needed. Pass for example 0.8."
            )
        lengths = self.table["n_dates"].to_numpy()
        shares = self.table["power"].to_numpy()
        above = np.flatnonzero(shares >= power)
        if len(above) and above[0] > 0:
            pair = slice(above[0] - 1, above[0] + 1)
            edge = 0.5 / self.n_simulations
            score = ndtri(np.clip(shares[pair], edge, 1.0 - edge))
            root = np.interp(ndtri(power), score, np.sqrt(lengths[pair]))
            return DatesNeeded(math.ceil(root**2 - 1e-9), power, "simulation")
        return DatesNeeded(self._invert(power), power, "normal approximation")

    def _invert(self, power: float) -> int:
        """Return the smallest number of dates at which the closed form reaches `power`."""
        low, high = 0, 1
        while self._closed(high) < power:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._closed(middle) >= power else (middle, high)
        return high

    def _closed(self, n_dates: int) -> float:
        return normal_power(
            self.effect,
            n_dates,
            standard_deviation=self.standard_deviation,
            phi=self.phi,
            threshold=self.threshold,
            prior_scale=self.prior_scale,
        )


def normal_power(
    effect: float,
    n_dates: int,
    *,
    standard_deviation: float,
    phi: float,
    threshold: float,
    prior_scale: float,
) -> float:
    """Return the power in closed form, standard deviation and autocorrelation taken as known.

    The best estimate of the mean has the variance ``v = standard_deviation^2 / n_eff`` with
    ``n_eff = 1 + (n - 1) (1 - phi) / (1 + phi)``; the posterior probability reaches the threshold
    when it exceeds ``z sqrt(v (1 + v / prior_scale^2))``.
    """
    effective = 1.0 + (n_dates - 1) * (1.0 - phi) / (1.0 + phi)
    variance = standard_deviation**2 / effective
    bar = ndtri(threshold) * math.sqrt(1.0 + variance / prior_scale**2)
    return float(ndtr(effect / math.sqrt(variance) - bar))
