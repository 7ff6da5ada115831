"""Steps of an optimiser on a manifold: where a step leads, and what momentum becomes on the way."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from nfi_pyro.errors import ShapeError, SpecError, name_places
from nfi_pyro.geometry.results.manifold import Exponential

TIMES = (0.25, 0.5, 0.75, 1.0)  # two Runge-Kutta steps of parallel transport
FLAT = 1e-12  # squared sine of a coordinate's angle to those before it


@runtime_checkable
class Space(Protocol):
    """What every way of moving needs; a `FisherManifold` has it."""

    def metric(self, beta: Tensor, /) -> Tensor:
        """Return the metric at exposures, (..., factor, factor)."""

    def exp(self, beta: Tensor, velocity: Tensor, /) -> Exponential:
        """Return where geodesics are after unit time."""

    def christoffel(self, beta: Tensor, /) -> Tensor:
        """Return the connection, (..., upper, factor, factor)."""


Metric = Callable[[Tensor], Tensor]


class Curve(NamedTuple):
    """The way of a step at `TIMES`, or at its end alone.

    Attributes
    ----------
    points, velocities : Tensor, shape (time, ..., factor)
    ok : Tensor of bool, shape (...)
        Whether the end can be used.
    """

    points: Tensor
    velocities: Tensor
    ok: Tensor


def metric_of(space: Space | Metric) -> Metric:
    """Return the metric as a function of exposures."""
    return cast(Metric, getattr(space, "metric", cast(object, space)))


def metric_factor(metric: Metric, beta: Tensor) -> Tensor:
    """Return the lower Cholesky factor of the metric at exposures, (..., factor, factor).

    Raises
    ------
    ShapeError
        If the metric is of another shape.
    SpecError
        If it is not finite, or not positive definite to rounding in any scaling of the exposures.
    """
    found = metric(beta.detach())
    if found.shape != (*beta.shape, beta.shape[-1]):
        raise ShapeError(
            f"metric must have shape {(*beta.shape, beta.shape[-1])} at exposures "
            f"{tuple(beta.shape)}; got {tuple(found.shape)}. Return (..., factor, factor)."
        )
    finite = torch.isfinite(found).all(-1).all(-1)
    refuse(~finite, "metric must be finite", "Start inside the cloud of exposures.")
    factor, info = torch.linalg.cholesky_ex(found.detach())
    pivot = factor.diagonal(dim1=-2, dim2=-1).square()
    size = found.diagonal(dim1=-2, dim2=-1)
    singular = (info != 0) | ~(pivot > FLAT * size).all(-1)
    refuse(
        singular,
        "metric must be positive definite; got a singular one",
        "Damp it: eps > 0 in the manifold.",
    )
    return factor


def refuse(wrong: Tensor, rule: str, fix: str) -> None:
    """Raise `SpecError` with the rule and the rows (...) where it is broken, if there are any."""
    if bool(wrong.any()):
        rows = wrong.flatten().nonzero().flatten().tolist()
        raise SpecError(f"{rule} at row {name_places(rows)}. {fix}")


def follow(
    space: Space | Metric, point: Tensor, step: Tensor, *, exact: bool, whole: bool
) -> Curve:
    """Return the way of steps (..., factor) from points: straight, or if `exact` a geodesic.

    Parameters
    ----------
    whole : bool
        Whether all of `TIMES` are wanted.
    """
    times = point.new_tensor(TIMES if whole else TIMES[-1:]).reshape(-1, *[1] * point.ndim)
    if not (exact and isinstance(space, Space)):
        velocities = step.expand(len(times), *step.shape)
        ok = torch.ones(point.shape[:-1], dtype=torch.bool)
        return Curve(point + times * step, velocities, ok)
    found = space.exp(point.expand(len(times), *point.shape), times * step)
    return Curve(found.point, found.velocity / times, found.ok.all(0))


def transported(space: Space, point: Tensor, step: Tensor, curve: Curve, vector: Tensor) -> Tensor:
    """Return vectors (..., factor) at the end of a curve that shows `TIMES`, parallel to before.

    Runge-Kutta of fourth order on ``dm/dt = -Gamma(velocity, m)``.
    """
    points = torch.cat([point.unsqueeze(0), curve.points])
    velocities = torch.cat([step.unsqueeze(0), curve.velocities])
    turn = -torch.einsum("t...kij,t...i->t...kj", space.christoffel(points), velocities)

    def at(place: int, moved: Tensor) -> Tensor:
        return (turn[place] @ moved.unsqueeze(-1)).squeeze(-1)

    size = 2.0 / len(TIMES)
    for first in range(0, len(TIMES), 2):
        k1 = at(first, vector)
        k2 = at(first + 1, vector + 0.5 * size * k1)
        k3 = at(first + 1, vector + 0.5 * size * k2)
        k4 = at(first + 2, vector + size * k3)
        vector = vector + size / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
    return vector
