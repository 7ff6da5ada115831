"""Posterior of the mean of a stationary AR(1) series, by quadrature, many series at once.

    x_t - mu = phi (x_(t-1) - mu) + e_t,  e_t ~ N(0, s^2),
    mu ~ N(0, prior_scale^2),  phi uniform on an interval,  log s uniform

Across k dates the law is ``x_t | x_(t-k) ~ N(mu + phi^k (x_(t-k) - mu), s^2 v_k)`` with
``v_k = (1 - phi^(2 k)) / (1 - phi^2)``, so a missing date only lengthens a step. Given phi the
likelihood is a quadratic in mu, with coefficients that five sums per length of step decide; given
phi and s the mean is conjugate. What is left are two dimensions: a Gauss-Legendre grid in
``atanh(phi)`` and ``log s``, set around the mode.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

_DROP = 22.0  # nats below the mode at which the grid ends: 3e-10 of the density
_WIDTH = 6.0  # standard deviations of log s on either side of the mode
_TAIL = 12.0  # times 1 / n more above it: the power tail of the scale


class Resolution(NamedTuple):
    """Nodes of the search for the mode, and of the grid in phi and in log s."""

    search: int
    phi: int
    scale: int


FINE = Resolution(401, 81, 31)
FAST = Resolution(61, 31, 19)


@dataclass(frozen=True)
class SeriesSums:
    """What the likelihood needs of series observed on the same dates.

    Attributes
    ----------
    first : ndarray, shape (series,)
        First observed value.
    step : ndarray, shape (step,)
        Distinct numbers of dates between neighbouring observations.
    count : ndarray, shape (step,)
        How often each occurs.
    now, before, now_now, now_before, before_before : ndarray, shape (series, step)
        Sums of later and earlier values of the pairs, and of their products.
    """

    first: np.ndarray
    step: np.ndarray
    count: np.ndarray
    now: np.ndarray
    before: np.ndarray
    now_now: np.ndarray
    now_before: np.ndarray
    before_before: np.ndarray

    @property
    def n_dates(self) -> int:
        """Observed dates of each series."""
        return 1 + int(self.count.sum())

    def shifted(self, by: float) -> "SeriesSums":
        """Return the sums of the series with `by` added to every value."""
        square = self.count * by**2
        return SeriesSums(
            first=self.first + by,
            step=self.step,
            count=self.count,
            now=self.now + self.count * by,
            before=self.before + self.count * by,
            now_now=self.now_now + 2.0 * by * self.now + square,
            now_before=self.now_before + by * (self.now + self.before) + square,
            before_before=self.before_before + 2.0 * by * self.before + square,
        )


@dataclass(frozen=True)
class MeanPosterior:
    """The posterior on its grid, arrays over (series, phi node, scale node).

    Attributes
    ----------
    weight : ndarray, shape (series, phi, scale)
        Probability of the node; adds up to 1 over a series.
    loc, scale : ndarray, shape (series, phi, scale)
        Mean and standard deviation of mu given the node.
    phi : ndarray, shape (series, phi)
    effective : ndarray, shape (series, phi)
        Independent observations with the same information about mu.
    """

    weight: np.ndarray
    loc: np.ndarray
    scale: np.ndarray
    phi: np.ndarray
    effective: np.ndarray

    def probability_above(self, value: float | np.ndarray) -> np.ndarray:
        """Return the posterior probability of a mean above `value`, one or (series,)."""
        gap = self.loc - np.reshape(value, (-1, 1, 1))
        return (self.weight * ndtr(gap / self.scale)).sum(axis=(1, 2))


def sum_series(values: np.ndarray) -> SeriesSums:
    """Return the sums of one series, shape (date,), NaN = missing."""
    place = np.flatnonzero(~np.isnan(values))
    seen = values[place]
    step, which = np.unique(np.diff(place), return_inverse=True)
    now, before = seen[1:], seen[:-1]

    def total(products: np.ndarray) -> np.ndarray:
        return np.bincount(which, weights=products, minlength=len(step))[None]

    return SeriesSums(
        first=seen[:1],
        step=step,
        count=np.bincount(which, minlength=len(step)),
        now=total(now),
        before=total(before),
        now_now=total(now * now),
        now_before=total(now * before),
        before_before=total(before * before),
    )


def mean_posterior(
    sums: SeriesSums,
    prior_scale: float,
    phi_range: tuple[float, float],
    resolution: Resolution = FINE,
) -> MeanPosterior:
    """Return the posterior of the mean of every series.

    Parameters
    ----------
    sums : SeriesSums
    prior_scale : float
        Standard deviation of the prior of the mean, > 0, unit of the series.
    phi_range : tuple of float
        Ends of the uniform prior of phi, within (-1, 1).
    resolution : Resolution
        `FAST` gives probabilities to about 1e-3, `FINE` to about 1e-8.
    """
    low, high = np.arctanh(phi_range)
    search = np.linspace(low, high, resolution.search)[None]
    quadratic = _Quadratic.at(sums, np.tanh(search))
    smallest, _ = quadratic.variance_modes(prior_scale)
    height = quadratic.log_density(smallest, prior_scale)
    near = height > height.max(axis=1, keepdims=True) - _DROP
    step = search[0, 1] - search[0, 0]
    left = np.maximum(np.where(near, search, np.inf).min(axis=1) - step, low)[:, None]
    right = np.minimum(np.where(near, search, -np.inf).max(axis=1) + step, high)[:, None]
    zeta, zeta_weight = _spread(left, right, resolution.phi)
    phi = np.tanh(zeta)
    quadratic = _Quadratic.at(sums, phi)
    smallest, largest = quadratic.variance_modes(prior_scale)
    n = sums.n_dates
    sd = 1.0 / np.sqrt(2.0 * n)
    log_scale, scale_weight = _spread(
        0.5 * np.log(smallest)[..., None] - _WIDTH * sd,
        0.5 * np.log(largest)[..., None] + _WIDTH * sd + _TAIL / n,
        resolution.scale,
    )
    variance = np.exp(2.0 * log_scale)
    wide = quadratic.widened()
    log_weight = wide.log_density(variance, prior_scale)
    log_weight += np.log(zeta_weight)[..., None] + np.log(scale_weight)
    weight = np.exp(log_weight - log_weight.max(axis=(1, 2), keepdims=True))
    weight /= weight.sum(axis=(1, 2), keepdims=True)
    precision = wide.square / variance + prior_scale**-2
    return MeanPosterior(
        weight=weight,
        loc=wide.linear / variance / precision,
        scale=precision**-0.5,
        phi=phi,
        effective=quadratic.square / (1.0 - phi**2),
    )


class _Quadratic(NamedTuple):
    """Sum of squared innovations over s^2, ``constant - 2 linear mu + square mu^2``, at phi.

    `log_prior` is the density of atanh(phi) under uniform phi, `log_det` that of the variances.
    """

    square: np.ndarray
    linear: np.ndarray
    constant: np.ndarray
    log_det: np.ndarray
    log_prior: np.ndarray
    n_dates: int

    @classmethod
    def at(cls, sums: SeriesSums, phi: np.ndarray) -> "_Quadratic":
        """Return the coefficients at phi (series or 1, node)."""
        rest = 1.0 - phi**2
        first = sums.first[:, None]
        square = rest * np.ones_like(first)
        linear, constant = rest * first, rest * first**2
        log_det = -np.log(rest)
        for j, (step, count) in enumerate(zip(sums.step, sums.count, strict=True)):
            power = phi ** int(step)
            variance = (1.0 - power**2) / rest
            pull = (1.0 - power) / variance
            now, before = sums.now[:, j, None], sums.before[:, j, None]
            square = square + count * (1.0 - power) * pull
            linear = linear + pull * (now - power * before)
            products = (
                sums.now_now[:, j, None]
                - 2.0 * power * sums.now_before[:, j, None]
                + power**2 * sums.before_before[:, j, None]
            )
            constant = constant + products / variance
            log_det = log_det + count * np.log(variance)
        return cls(square, linear, constant, log_det, np.log(rest), sums.n_dates)

    def widened(self) -> "_Quadratic":
        """Return the coefficients with an axis for the nodes of the scale."""
        return self._replace(**{name: getattr(self, name)[..., None] for name in self._fields[:-1]})

    def variance_modes(self, prior_scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the modes of s^2 reached from below and from above; mostly they are one.

        They differ where the data are far from the prior: a small s with a mean that the prior
        dislikes, or a large s with a mean near 0.
        """
        low = (self.constant - self.linear**2 / self.square) / self.n_dates
        high = self.constant / self.n_dates
        for _ in range(8):
            low, high = self._residual(low, prior_scale), self._residual(high, prior_scale)
        return low, high

    def _residual(self, variance: np.ndarray, prior_scale: float) -> np.ndarray:
        """Return the mean squared innovation at the most likely mu given s^2."""
        mu = self.linear / (self.square + variance / prior_scale**2)
        return (self.constant - 2.0 * self.linear * mu + self.square * mu**2) / self.n_dates

    def log_density(self, variance: np.ndarray, prior_scale: float) -> np.ndarray:
        """Return the log posterior density of atanh(phi) and log s, up to a constant."""
        precision = self.square / variance + prior_scale**-2
        fit = self.constant / variance - (self.linear / variance) ** 2 / precision
        log_det = self.n_dates * np.log(variance) + self.log_det + np.log(precision)
        return self.log_prior - 0.5 * (log_det + fit)


def _spread(left: np.ndarray, right: np.ndarray, n_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss-Legendre nodes and weights on intervals, nodes along the last axis."""
    node, weight = np.polynomial.legendre.leggauss(n_nodes)
    half = 0.5 * (right - left)
    return left + half * (1.0 + node), half * weight
