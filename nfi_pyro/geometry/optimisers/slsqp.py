"""SLSQP with exact gradients, stopped where the conditions of Karush, Kuhn and Tucker hold."""

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from scipy.optimize import minimize, nnls

Pair = tuple[float, np.ndarray]
Function = Callable[[np.ndarray], Pair]
BINDS = 1e-6  # room below which a constraint counts as binding
STATIONARY, FEASIBLE = 1e-6, 1e-7  # of a gradient and a limit of order 1
PATIENCE = 20  # trials
PRECISION = 1e-10


class _Done(Exception):
    """The search is over at a trial point; SLSQP has no other way to be stopped at one."""


class _Trials:
    """Trial points of one search: the best so far by how far it is from the conditions.

    Attributes
    ----------
    best : ndarray, shape (factor,)
    """

    def __init__(
        self, objective: Function, limits: Sequence[Function], start: np.ndarray, most: int
    ) -> None:
        self._objective, self._limits, self._most = objective, limits, most
        self._count, self._last_gain, self._score = 0, 0, np.inf
        self._seen: dict[bytes, tuple[Pair, list[Pair]]] = {}
        self.best = start

    def look(self, point: np.ndarray) -> tuple[Pair, list[Pair]]:
        """Return the objective and the limits at a point, each with its gradient."""
        key = point.tobytes()
        if key not in self._seen:
            own, found = self._objective(point), [limit(point) for limit in self._limits]
            self._seen = {key: (own, found)}
            self._judge(point.copy(), own[1], found)
        return self._seen[key]

    def _judge(self, point: np.ndarray, gradient: np.ndarray, found: list[Pair]) -> None:
        """Remember the point if it is the best; end the search where that is enough."""
        self._count += 1
        gaps, rates = [level - 1.0 for level, _ in found], [rate for _, rate in found]
        if np.isfinite([*gradient, *gaps, *np.concatenate(rates)]).all():
            _, left = multipliers(gradient, rates, gaps)
            score = max(left / STATIONARY, *(gap / FEASIBLE for gap in gaps))
            if score < self._score:
                self.best, self._score, self._last_gain = point, score, self._count
        waited = self._count - self._last_gain
        if self._score <= 1.0 or self._count >= self._most or waited >= PATIENCE:
            raise _Done


def maximum_under(
    objective: Function, limits: Sequence[Function], start: np.ndarray, most_trials: int
) -> np.ndarray:
    """Return a maximum of a function where every limit is at most 1.

    SLSQP alone may circle for hundreds of evaluations around a vertex that it has long hit to ten
    digits: its search refuses the full step, which trades value for the last digits of room. So
    the conditions are tested at every trial point. The search ends at one that meets them, or
    where `PATIENCE` trials brought none nearer; test the conditions at what it returns.

    Parameters
    ----------
    objective : callable
        Point (factor,) to value and gradient, each of order 1.
    limits : sequence of callable
        The same of functions whose value must not exceed 1.
    start : ndarray, shape (factor,)
    most_trials : int
    """
    trials = _Trials(objective, limits, start, most_trials)

    def falling(point: np.ndarray) -> Pair:
        (value, gradient), _ = trials.look(point)
        return -value, -gradient

    def room(point: np.ndarray) -> np.ndarray:
        return np.array([1.0 - level for level, _ in trials.look(point)[1]])

    def room_slope(point: np.ndarray) -> np.ndarray:
        return -np.array([rate for _, rate in trials.look(point)[1]])

    with suppress(_Done):
        minimize(
            falling,
            start,
            jac=True,
            method="SLSQP",
            constraints={"type": "ineq", "fun": room, "jac": room_slope},
            options={"maxiter": most_trials, "ftol": PRECISION},
        )
    return trials.best


def multipliers(
    gradient: np.ndarray, rates: Sequence[np.ndarray], gaps: Sequence[float]
) -> tuple[np.ndarray, float]:
    """Return prices of limits, and the length of the objective's gradient that they leave.

    Least squares with prices >= 0, and 0 for a limit that does not bind.

    Parameters
    ----------
    gradient : ndarray, shape (factor,)
    rates : sequence of ndarray
        Gradients of the limits.
    gaps : sequence of float
        By how much each limit is exceeded.
    """
    binds = np.array([gap >= -BINDS for gap in gaps])
    prices, left = nnls(np.stack(rates, axis=-1) * binds, gradient)
    return prices * binds, float(left)
