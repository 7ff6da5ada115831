r"""The best exposures near a benchmark: a cap on variance and a geodesic ball around it.

Without the ball the problem has no answer: a network's expected return grows without end where no
exposure has been seen. SLSQP sees d^2, never d, which has no derivative at the benchmark.
"""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry.inputs import exposures
from nfi_pyro.geometry.manifold import FisherManifold
from nfi_pyro.geometry.optimisers.ascent import Objective
from nfi_pyro.geometry.optimisers.ball import Ball, slope_at
from nfi_pyro.geometry.optimisers.moving import refuse
from nfi_pyro.geometry.optimisers.slsqp import BINDS, multipliers
from nfi_pyro.geometry.results.optimisers import ConstrainedOptimum
from nfi_pyro.geometry.rows import flatten, restore, warn

Fields = dict[str, Tensor]
ARRIVED = 1e-4  # residual of a search that counts when several are compared


def constrained_optimum(
    objective: Objective,
    manifold: FisherManifold,
    benchmark: Tensor,
    *,
    max_distance: float | Tensor,
    max_variance: float | Tensor | None = None,
    start: Tensor | None = None,
    max_trials: int = 100,
    tolerance: float = 1e-4,
) -> ConstrainedOptimum:
    r"""Return ``argmax f(beta)`` where ``d(beta, benchmark) <= max_distance``, ``Var <= cap``.

    SLSQP on ``d^2`` with its exact gradient, from two starts: the optimum in the ellipsoid
    that the metric at the benchmark makes of the ball, and the benchmark, or the exposures of
    least variance where its own is above the cap. The better end counts. Row by row.

    Parameters
    ----------
    objective : callable
        Exposures (factor,) to a scalar, for autograd; decimal return, as `risk_adjusted_return`.
    manifold : FisherManifold
        Its law gives the variance.
    benchmark : Tensor, shape (..., factor)
    max_distance : float or Tensor, shape (...)
        > 0.
    max_variance : float or Tensor, shape (...), optional
        > 0, squared decimal return of the law's horizon.
    start : Tensor, shape (..., factor), optional
        Where a single search begins instead: for example the optimum of the date before.
    max_trials : int
        Most points that each search tries.
    tolerance : float
        Largest `kkt_residual` of a row that has converged.

    Warns of rows that did not converge.

    Raises
    ------
    ShapeError
        If leading axes do not broadcast.
    SpecError
        If a value is not finite or out of range, the metric is singular, or no exposures in the
        ball have a variance within the cap.
    """
    if max_trials < 1 or not 0.0 < tolerance < math.inf:
        raise SpecError(
            "max_trials must be at least 1 and tolerance finite and > 0; got "
            f"{max_trials} and {tolerance} at constrained_optimum. See their defaults."
        )
    centre = exposures(benchmark, None, "benchmark").detach()
    begin = centre if start is None else exposures(start, centre.shape[-1], "start").detach()
    (rows, starts), shape = flatten(centre, begin)
    radius = _limit(max_distance, "max_distance", shape)
    cap = None if max_variance is None else _limit(max_variance, "max_variance", shape)
    found = [
        _one_row(
            objective,
            Ball(manifold, rows[row], float(radius[row]), max_trials),
            None if cap is None else float(cap[row]),
            None if start is None else starts[row],
            row,
        )
        for row in range(len(rows))
    ]
    columns = {name: torch.stack([one[name] for one in found]) for name in found[0]}
    columns["mahalanobis"] = manifold.mahalanobis(columns["path"]).amax(-1)
    columns["converged"] = columns["converged"] & (columns["kkt_residual"] <= tolerance)
    warn(~columns["converged"], "no constrained optimum was found")
    return ConstrainedOptimum(**{name: restore(part, shape) for name, part in columns.items()})


def _limit(value: float | Tensor, name: str, shape: torch.Size) -> Tensor:
    """Return a limit for each row, (row,)."""
    limit = torch.as_tensor(value, dtype=torch.float64)
    try:
        rows = limit.expand(shape).reshape(-1)
    except RuntimeError as error:
        raise ShapeError(
            f"{name} must be a number or have the benchmark's leading shape {tuple(shape)}; got "
            f"{tuple(limit.shape)} at constrained_optimum. Give one for each row."
        ) from error
    wrong = ~(torch.isfinite(rows) & (rows > 0.0))
    if bool(wrong.any()):
        refuse(
            wrong,
            f"{name} must be finite and > 0; got {float(rows[wrong][0])}",
            "Leave the cap out where there is none.",
        )
    return rows


def _one_row(
    objective: Objective, ball: Ball, cap: float | None, start: Tensor | None, row: int
) -> Fields:
    """Return the fields of one row's result."""
    base, base_variance = objective(ball.benchmark).detach(), float(ball.variance(ball.benchmark))
    refuse(~torch.isfinite(base), "objective must be finite at the benchmark", "Look at it there.")
    spread = math.sqrt(base_variance)
    scale = spread * ball.radius
    begin = np.zeros(len(ball.benchmark))
    if cap is not None and base_variance > cap:
        begin = _calmest(ball, base_variance, cap, row)
    if start is None:
        near = ball.best(objective, scale, begin, cap=cap, exact=False)
        starts = [near, begin]
    else:
        starts = [ball.coordinates(start)]
    ends = [
        _conditions(objective, ball, cap, ball.place(ball.best(objective, scale, one, cap=cap)))
        for one in starts
    ]
    for end in ends:
        end["kkt_residual"] = torch.maximum(end["kkt_residual"] / spread, end.pop("excess"))
    best = max(ends, key=lambda end: (_arrived(end), float(end["value"])))
    return best | {
        "benchmark_value": base,
        "evaluations": torch.tensor(ball.evaluations),
        "distance_evaluations": torch.tensor(ball.distances),
    }


def _arrived(end: Fields) -> bool:
    """Return whether a search ended at an optimum."""
    return bool(end["converged"]) and float(end["kkt_residual"]) <= ARRIVED


def _conditions(objective: Objective, ball: Ball, cap: float | None, point: Tensor) -> Fields:
    """Return what a search's end is worth: its value, prices and distance from the conditions."""
    geodesic, slope = ball.geodesic(point)
    risk, risk_slope = slope_at(ball.variance, point)
    value, gradient = slope_at(objective, point)
    gaps, rates = (
        [float(geodesic.distance) ** 2 / ball.radius**2 - 1.0],
        [slope / (2.0 * ball.radius)],
    )
    if cap is not None:
        gaps.append(float(risk) / cap - 1.0)
        rates.append(risk_slope)
    columns = torch.stack([gradient, *rates], dim=-1)
    lower = ball.manifold.cholesky(point)
    white = torch.linalg.solve_triangular(lower, columns, upper=False).numpy()
    prices, left = multipliers(white[:, 0], white[:, 1:].T, gaps)
    number = partial(torch.tensor, dtype=torch.float64)
    return {
        "point": point,
        "value": value,
        "variance": risk,
        "distance": geodesic.distance,
        "distance_price": number(prices[0]),
        "variance_price": number(0.0 if cap is None else prices[1]),
        "kkt_residual": number(left),
        "excess": number(max(gaps)),
        "converged": geodesic.converged,
        "path": geodesic.path.flip(-2),
    }


def _calmest(ball: Ball, at_benchmark: float, cap: float, row: int) -> np.ndarray:
    """Return coordinates of the least variance in the ball, to begin with.

    Raises
    ------
    SpecError
        If that is above the cap.
    """
    scale = at_benchmark * ball.radius

    def calm(beta: Tensor) -> Tensor:
        return -ball.variance(beta)

    near = ball.best(calm, scale, np.zeros(len(ball.benchmark)), exact=False)
    found = ball.best(calm, scale, near)
    least = float(ball.variance(ball.place(found)))
    if least > cap * (1.0 + BINDS):
        raise SpecError(
            f"max_variance must be at least {least:.6g}, the least variance found within "
            f"max_distance {ball.radius:g} of the benchmark; got {cap:.6g} at row {row}. Raise "
            "the cap or max_distance."
        )
    return found
