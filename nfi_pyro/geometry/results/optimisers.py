"""Results of optimisation over exposures: by row, with what is needed to trust them."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Ascent:
    """Where an optimiser took exposures from their starts.

    Attributes
    ----------
    point : Tensor, shape (..., factor)
        The first point of the path whose slope is within the tolerance, else its last.
    value : Tensor, shape (...)
        Objective there, in its unit.
    slope : Tensor, shape (...)
        Length of the gradient there, objective per unit of distance: 0 at an optimum.
    iterations : Tensor of int, shape (...)
        Steps from the start to `point`.
    converged : Tensor of bool, shape (...)
        Whether the slope came within the tolerance. It says nothing of other optima.
    mahalanobis : Tensor, shape (...)
        Distance of `point` from the cloud of exposures, in standard deviations; NaN without one.
        The law is extrapolated where it is large.
    path : Tensor, shape (step, ..., factor)
        Points where steps began; rows that have converged stay.
    evaluations : int
        Evaluations of the objective, of all rows at once.
    """

    point: Tensor
    value: Tensor
    slope: Tensor
    iterations: Tensor
    converged: Tensor
    mahalanobis: Tensor
    path: Tensor
    evaluations: int


@dataclass(frozen=True)
class BestOfStarts:
    """The best optimum of several starts, and how much the starts agree.

    Attributes
    ----------
    point : Tensor, shape (factor,)
        Of the highest value reached.
    value : float
    converged : bool
        Whether that start converged; more steps otherwise.
    share : float
        Part of the starts that ended in the best optimum. Near 0: more starts may find a better.
    basin : Tensor of int, shape (start,)
        Which optimum each start came within a distance of .05 of, 0 the best; -1 for a start that
        stopped on the way to another.
    ascent : Ascent
        Of all starts, rows (start,).
    """

    point: Tensor
    value: float
    converged: bool
    share: float
    basin: Tensor
    ascent: Ascent


@dataclass(frozen=True)
class ConstrainedOptimum:
    """The best exposures within a geodesic ball around a benchmark, under a cap on variance.

    Attributes
    ----------
    point : Tensor, shape (..., factor)
    value, benchmark_value : Tensor, shape (...)
        Objective there and at the benchmark.
    variance : Tensor, shape (...)
        Of the return at `point`, squared decimal return.
    distance : Tensor, shape (...)
        Geodesic distance of `point` from the benchmark.
    distance_price, variance_price : Tensor, shape (...)
        Multipliers, >= 0: what the optimum would gain by unit of `max_distance` and of
        `max_variance`. Of the expected return, the second is the risk aversion that the cap
        implies. 0 where a constraint does not bind.
    kkt_residual : Tensor, shape (...)
        Largest of: the slope that the multipliers leave, in standard deviations of the benchmark's
        return by unit of distance; the relative violation of a constraint.
    converged : Tensor of bool, shape (...)
        Whether `kkt_residual` is within the tolerance and the geodesic to `point` was found.
        A local optimum: the problem need not be concave.
    mahalanobis : Tensor, shape (...)
        Largest distance from the cloud of exposures along `path`, in standard deviations; NaN
        without one.
    path : Tensor, shape (..., 17, factor)
        The geodesic from the benchmark to `point`.
    evaluations, distance_evaluations : Tensor of int, shape (...)
        Of the objective and of the geodesic distance.
    """

    point: Tensor
    value: Tensor
    benchmark_value: Tensor
    variance: Tensor
    distance: Tensor
    distance_price: Tensor
    variance_price: Tensor
    kkt_residual: Tensor
    converged: Tensor
    mahalanobis: Tensor
    path: Tensor
    evaluations: Tensor
    distance_evaluations: Tensor
