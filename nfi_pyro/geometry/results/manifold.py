"""Results of the geometry: tensors with a flag by row, no NaN without one."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Exponential:
    """Where geodesics of given velocities arrive after unit time.

    Attributes
    ----------
    point, velocity : Tensor, shape (..., factor)
        At time 1.
    drift : Tensor, shape (...)
        Relative change of the speed, which is constant along an exact geodesic.
    steps : Tensor of int, shape (...)
        Steps that were taken; doubled where the speed drifted.
    mahalanobis : Tensor, shape (...)
        Largest distance from the cloud of exposures on the way, in standard deviations; NaN
        for a manifold without a cloud.
    ok : Tensor of bool, shape (...)
        Whether the geodesic is finite and its speed was kept. `point` is not to be used where
        this is False.
    """

    point: Tensor
    velocity: Tensor
    drift: Tensor
    steps: Tensor
    mahalanobis: Tensor
    ok: Tensor


@dataclass(frozen=True)
class Geodesic:
    """Points of geodesics at equal times from 0 to 1.

    Attributes
    ----------
    path : Tensor, shape (..., point, factor)
    drift, mahalanobis, ok
        As in `Exponential`.
    """

    path: Tensor
    drift: Tensor
    mahalanobis: Tensor
    ok: Tensor


@dataclass(frozen=True)
class Logarithm:
    """Shortest geodesics found between pairs of points.

    Attributes
    ----------
    velocity : Tensor, shape (..., factor)
        At the first point, for unit time: ``exp(x, velocity) = y``.
    distance : Tensor, shape (...)
        Length. A local minimum from the given start: at most that of the start's own valley.
    path : Tensor, shape (..., point, factor)
        Points of the finest chord polygon, ends included.
    iterations : Tensor of int, shape (...)
        Newton steps, over all refinements.
    residual : Tensor, shape (...)
        Length in the metric of the gap between ``exp(x, velocity)`` and y; NaN without polish.
    mahalanobis : Tensor, shape (...)
        As in `Exponential`, along `path`.
    converged : Tensor of bool, shape (...)
        Whether every refinement's energy came to a minimum and, with polish, the geodesic arrives.
    """

    velocity: Tensor
    distance: Tensor
    path: Tensor
    iterations: Tensor
    residual: Tensor
    mahalanobis: Tensor
    converged: Tensor


@dataclass(frozen=True)
class Bounds:
    """Bounds of geodesic distances, at a hundredth of their cost.

    Attributes
    ----------
    lower, upper : Tensor, shape (...)
        From the sphere and the flat space around the manifold, and along the straight line.
    """

    lower: Tensor
    upper: Tensor


@dataclass(frozen=True)
class Curvature:
    """A curvature by row, with what is needed to trust it.

    Attributes
    ----------
    value : Tensor, shape (...)
        NaN exactly where `ok` is False.
    rank : Tensor of int, shape (...)
        Directions that entered: those of the metric above its floor.
    condition : Tensor, shape (...)
        Largest over smallest eigenvalue of the directions that entered.
    mahalanobis : Tensor, shape (...)
        Distance from the cloud of exposures, in standard deviations; NaN without a cloud.
    ok : Tensor of bool, shape (...)
        Whether at least two directions entered and the value is finite.
    """

    value: Tensor
    rank: Tensor
    condition: Tensor
    mahalanobis: Tensor
    ok: Tensor


@dataclass(frozen=True)
class Holonomy:
    """What parallel transport around a closed loop does to vectors.

    Attributes
    ----------
    matrix : Tensor, shape (factor, factor)
        The transported vectors, in the exposures' coordinates at the base point.
    rotation : Tensor, shape (factor, factor)
        The same in an orthonormal frame there.
    angles : Tensor, shape (factor // 2,)
        Angles of rotation, radian, largest first; with two factors signed, positive from the
        first exposure to the second.
    norm : float
        Frobenius norm of the rotation's logarithm.
    defect : float
        Largest entry by which `rotation` misses being orthogonal.
    ok : bool
        Whether the defect is below 1e-6: more steps otherwise.
    """

    matrix: Tensor
    rotation: Tensor
    angles: Tensor
    norm: float
    defect: float
    ok: bool
