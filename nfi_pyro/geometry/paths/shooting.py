"""Geodesics from their start: Runge-Kutta with a check of the speed, which must not change."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from nfi_pyro.geometry.fisher.metric import DampedLaw
from nfi_pyro.geometry.results.manifold import Exponential, Geodesic
from nfi_pyro.geometry.rows import restore, warn

MOST_STEPS = 256
AIM = 1e-6  # relative drift of the speed after which a row is done
LIMIT = 1e-4  # and above which it is not to be used
STEPS = 32

Distance = Callable[[Tensor], Tensor]


class Flight(NamedTuple):
    """Rows of one integration: everything at time 1, and the path if it was kept.

    Attributes
    ----------
    point, velocity : Tensor, shape (row, factor)
    drift, far : Tensor, shape (row,)
        Relative change of speed; largest distance on the way.
    path : Tensor, shape (row, point, factor)
    """

    point: Tensor
    velocity: Tensor
    drift: Tensor
    far: Tensor
    path: Tensor


def fly(
    law: DampedLaw, start: Tensor, velocity: Tensor, steps: int, keep: int, distance: Distance
) -> Flight:
    """Return geodesics by `steps` of the classical fourth order rule.

    `keep` is the number of equal parts whose ends the path shows; it divides `steps`.
    """
    size = 1.0 / steps
    point, speed = start, velocity
    far, path = distance(start), [start]
    first_speed = torch.zeros_like(far)
    for step in range(steps):
        k1, squared = law.acceleration(point, speed)
        if step == 0:
            first_speed = squared
        half = 0.5 * size
        v2 = speed + half * k1
        k2, _ = law.acceleration(point + half * speed, v2)
        v3 = speed + half * k2
        k3, _ = law.acceleration(point + half * v2, v3)
        v4 = speed + size * k3
        k4, _ = law.acceleration(point + size * v3, v4)
        point = point + size / 6.0 * (speed + 2.0 * v2 + 2.0 * v3 + v4)
        speed = speed + size / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        far = torch.fmax(far, distance(point))
        if (step + 1) % (steps // keep) == 0:
            path.append(point)
    last = law.squared_speed(point, speed)
    still = first_speed <= 0
    drift = (last / torch.where(still, 1.0, first_speed)).sqrt().sub(1.0).abs()
    drift = torch.where(still & (velocity == 0).all(-1), 0.0, drift)
    return Flight(point, speed, drift, far, torch.stack(path, dim=-2))


def shoot(
    law: DampedLaw,
    start: Tensor,
    velocity: Tensor,
    *,
    steps: int,
    keep: int,
    distance: Distance,
    aim: float = AIM,
) -> tuple[Flight, Tensor]:
    """Return geodesics and the steps they took, (row,): twice as many where the speed drifts.

    A row that leaves the numbers ends where it is, with an infinite drift.
    """
    found = fly(law, start, velocity, steps, keep, distance)
    taken = torch.full(start.shape[:-1], steps)
    poor = ~(found.drift <= aim)
    while steps < MOST_STEPS and bool(poor.any()):
        steps *= 2
        again = fly(law, start[poor], velocity[poor], steps, keep, distance)
        better = ~(again.drift >= found.drift[poor])
        rows = poor.nonzero().flatten()[better]
        found = Flight(
            *(
                whole.index_copy(0, rows, part[better])
                for whole, part in zip(found, again, strict=True)
            )
        )
        taken[poor] = steps
        poor = poor & ~(found.drift <= aim)
    finite = torch.isfinite(found.point).all(-1) & torch.isfinite(found.drift)
    return found._replace(drift=torch.where(finite, found.drift, torch.inf)), taken


@torch.no_grad()
def exponential(
    law: DampedLaw,
    start: Tensor,
    velocity: Tensor,
    *,
    steps: int,
    distance: Distance,
    shape: torch.Size,
) -> Exponential:
    """Return the ends of geodesics of rows, with leading axes `shape`; warns of failed ones."""
    found, taken = shoot(law, start, velocity, steps=steps, keep=1, distance=distance)
    ok = found.drift <= LIMIT
    warn(~ok, "a geodesic lost its speed, or left the numbers,")
    parts = (found.point, found.velocity, found.drift, taken, found.far, ok)
    return Exponential(*(restore(part, shape) for part in parts))


@torch.no_grad()
def whole_geodesic(
    law: DampedLaw,
    start: Tensor,
    velocity: Tensor,
    *,
    points: int,
    distance: Distance,
    shape: torch.Size,
) -> Geodesic:
    """Return points of geodesics of rows at equal times, with leading axes `shape`."""
    parts = points - 1
    steps = parts * -(-STEPS // parts)
    found, _ = shoot(law, start, velocity, steps=steps, keep=parts, distance=distance)
    ok = found.drift <= LIMIT
    warn(~ok, "a geodesic lost its speed, or left the numbers,")
    return Geodesic(*(restore(part, shape) for part in (found.path, found.drift, found.far, ok)))
