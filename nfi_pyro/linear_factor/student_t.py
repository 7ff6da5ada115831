"""Regression with Student-t noise on one date, by iteratively reweighted least squares."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import brentq
from scipy.special import digamma, gammaln

from nfi_pyro.errors import SpecError

_LARGEST_LOG = 700.0  # of which the exponential is finite
MIN_DEGREES_OF_FREEDOM, MAX_DEGREES_OF_FREEDOM = 1.0, 200.0


@dataclass(frozen=True)
class StudentT:
    """Student-t noise of a cross-sectional regression and how it is fitted.

    Attributes
    ----------
    degrees_of_freedom : float, optional
        Fixed, > 0, infinite for the Gaussian; None estimates them on every date, between 1
        and 200.
    max_iterations : int
        Most iterations a date, >= 1.
    tolerance : float
        A date has converged when an iteration moves the fitted returns by at most this many
        residual scales (weighted root mean square), and the logarithm of the scale by no more;
        between 0 and 1.
    """

    degrees_of_freedom: float | None = None
    max_iterations: int = 500
    tolerance: float = 1e-8

    def __post_init__(self) -> None:
        known = self.degrees_of_freedom
        if known is not None and not known > 0.0:
            raise SpecError(
                f"degrees_of_freedom must be > 0, infinite or None; got {known} at StudentT. "
                "None estimates them."
            )
        if self.max_iterations < 1 or not 0.0 < self.tolerance < 1.0:
            raise SpecError(
                "max_iterations must be >= 1 and tolerance between 0 and 1; got "
                f"{self.max_iterations} and {self.tolerance} at StudentT. Use the defaults."
            )


@dataclass(frozen=True)
class StudentFit:
    """Estimates of one date: coefficients (kept,), scale of average weight, tails, convergence."""

    values: np.ndarray
    scale: float
    degrees_of_freedom: float
    converged: bool


def fit_student_t(
    design: np.ndarray,
    values: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    noise: StudentT,
) -> StudentFit:
    """Return the maximum-likelihood fit of ``y = X f + e``, ``e_i ~ t(0, scale^2 / weight_i)``.

    The steps are those of EM with the scale update divided by the sum of the latent weights,
    which has the same fixed point and gets there in fewer steps (Kent, Tyler and Vardi, 1994);
    estimated degrees of freedom maximise the likelihood itself at each step (Liu and Rubin, 1995).
    Every third step starts from an extrapolation (SQUAREM, Varadhan and Roland, 2008), which is
    taken back when the likelihood falls.

    Parameters
    ----------
    design : ndarray, shape (asset, column)
        Independent columns only.
    values, weights : ndarray, shape (asset,)
        Weights > 0, mean 1.
    start : ndarray, shape (column,)
        Least-squares coefficients.
    noise : StudentT

    Returns
    -------
    StudentFit
        Not converged when the iterations ran out, when the likelihood has no maximum because too
        many residuals are zero, or when the latent weights leave the columns dependent.
    """
    lengths = np.sqrt(weights @ np.square(design))
    # with columns of length 1 the Gram matrix is as well conditioned as the columns allow
    problem = _Problem(design / lengths, values, weights, noise.degrees_of_freedom)
    # A starting scale from the median: from the variance, heavy tails take many steps to leave.
    residual = values - design @ start
    spread = float(np.median(np.abs(residual) * np.sqrt(weights)) / 0.6745)
    variance = spread**2 or float(weights @ np.square(residual)) / len(values)
    trail = [np.append(start * lengths, math.log(max(variance, problem.floor)))]
    tails, converged, leapt = math.nan, False, False
    safe, reference = trail[0], -math.inf
    for _ in range(noise.max_iterations):
        step = problem.step(trail[-1])
        if leapt and (step is None or step.log_likelihood < reference):  # it went downhill
            trail, leapt = [safe], False
            continue
        if step is None:
            break
        tails, leapt = step.degrees_of_freedom, False
        converged = problem.distance(step.state, trail[-1]) <= noise.tolerance
        trail.append(step.state)
        if converged:
            break
        if len(trail) == 3:
            safe, reference, leapt = trail[-1], step.log_likelihood, True
            trail = [problem.leap(*trail)]
    state = trail[-1]
    return StudentFit(state[:-1] / lengths, math.exp(state[-1] / 2.0), tails, converged)


@dataclass(frozen=True)
class _Step:
    """State after one step, and tails and log-likelihood of the state before it."""

    state: np.ndarray
    degrees_of_freedom: float
    log_likelihood: float


@dataclass(frozen=True)
class _Problem:
    """One date; a state is the coefficients of `design`, then the log of the squared scale."""

    design: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    tails: float | None

    @property
    def floor(self) -> float:
        """Squared scale below which the residuals are rounding."""
        return float(self.weights @ np.square(self.values)) / len(self.values) * 1e-24 or 1e-300

    def step(self, state: np.ndarray) -> _Step | None:
        """Return one step of EM; None where the scale vanishes or the columns are dependent."""
        if not math.log(self.floor) < state[-1] < _LARGEST_LOG:
            return None
        variance = math.exp(state[-1])
        residual = self.values - self.design @ state[:-1]
        squares = self.weights * np.square(residual) / variance
        tails = _likeliest_tails(squares) if self.tails is None else self.tails
        latent = _latent_weights(squares, tails)
        joint = self.weights * latent
        gram = self.design.T @ (self.design * joint[:, None])
        try:
            # solving for the change, from the residual, corrects the rounding of the step before
            change = cho_solve(cho_factor(gram), self.design.T @ (joint * residual))
        except np.linalg.LinAlgError:
            return None
        left = residual - self.design @ change
        new_variance = max(float(joint @ np.square(left) / latent.sum()), self.floor)
        moved = np.append(state[:-1] + change, math.log(new_variance))
        return _Step(moved, tails, _log_likelihood(squares, float(state[-1]), tails))

    def distance(self, state: np.ndarray, other: np.ndarray) -> float:
        """Return how far two states are apart; see `StudentT.tolerance`."""
        scale = math.exp(other[-1] / 2.0) * math.sqrt(len(self.values))
        fitted = self.design @ (state - other)[:-1] * np.sqrt(self.weights)
        return max(float(np.linalg.norm(fitted)) / scale, abs(float(state[-1] - other[-1])) / 2.0)

    def leap(self, first: np.ndarray, second: np.ndarray, third: np.ndarray) -> np.ndarray:
        """Return the point that three states of a slow iteration head for (SQUAREM)."""
        size = np.append(
            np.full(len(first) - 1, math.exp(second[-1] / 2.0) * math.sqrt(len(self.values))), 1.0
        )
        change, bend = second - first, third - 2.0 * second + first
        curvature = float(np.linalg.norm(bend / size))
        if curvature == 0.0:
            return third
        length = max(float(np.linalg.norm(change / size)) / curvature, 1.0)
        ahead: np.ndarray = first + 2.0 * length * change + length**2 * bend
        return ahead


def student_covariance(fit: StudentFit, root: np.ndarray, n_assets: int) -> np.ndarray:
    """Return the asymptotic covariance (column, column) of the coefficients.

    Inverse expected information, ``scale^2 (df + 3) / (df + 1) (X'WX)^-1`` (Lange, Little and
    Taylor, 1989), times n / (n - k) so that it becomes least squares' as df grows. `root` is
    that of the weighted `Solution`.
    """
    k = len(fit.values)
    tails = fit.degrees_of_freedom
    efficiency = 1.0 if math.isinf(tails) else (tails + 3.0) / (tails + 1.0)
    spread = fit.scale**2 * efficiency * n_assets / (n_assets - k)
    covariance: np.ndarray = spread * (root @ root.T)
    return covariance


def _latent_weights(squares: np.ndarray, tails: float) -> np.ndarray:
    if math.isinf(tails):
        return np.ones_like(squares)
    latent: np.ndarray = (tails + 1.0) / (tails + squares)
    return latent


def _log_likelihood(squares: np.ndarray, log_variance: float, tails: float) -> float:
    """Return the log-likelihood up to a constant."""
    n = len(squares)
    if math.isinf(tails):
        return -0.5 * (n * log_variance + float(squares.sum()))
    normaliser = gammaln((tails + 1.0) / 2.0) - gammaln(tails / 2.0) - 0.5 * math.log(tails)
    kernel = float(np.log1p(squares / tails).sum())
    return float(n * (normaliser - 0.5 * log_variance) - 0.5 * (tails + 1.0) * kernel)


def _likeliest_tails(squares: np.ndarray) -> float:
    """Return the degrees of freedom that maximise the likelihood of squared residuals."""

    def slope(log_tails: float) -> float:
        tails = math.exp(log_tails)
        ratio = squares / tails
        kernel = np.mean((tails + 1.0) * ratio / (tails * (1.0 + ratio)) - np.log1p(ratio))
        half = digamma((tails + 1.0) / 2.0) - digamma(tails / 2.0) - 1.0 / tails
        return float(half + kernel)

    low, high = math.log(MIN_DEGREES_OF_FREEDOM), math.log(MAX_DEGREES_OF_FREEDOM)
    if slope(high) >= 0.0:
        return MAX_DEGREES_OF_FREEDOM
    if slope(low) <= 0.0:
        return MIN_DEGREES_OF_FREEDOM
    return math.exp(brentq(slope, low, high, xtol=1e-12))
