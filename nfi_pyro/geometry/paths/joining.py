"""Geodesics from their ends: distance, initial velocity and path, with flags by pair."""

from typing import NamedTuple

import torch
from torch import Tensor

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry.fisher.metric import DampedLaw
from nfi_pyro.geometry.paths.newton import minimise
from nfi_pyro.geometry.paths.shooting import STEPS, Distance, shoot
from nfi_pyro.geometry.results.manifold import Logarithm
from nfi_pyro.geometry.rows import restore, warn

COARSE = 8  # chords of a start
SETTLED = 1e-3  # spread of two extrapolations, relative to the squared distance
MOST_HALVINGS = 3
POLISHED = 1e-5  # residual relative to the distance at which a row is done
ARRIVED = 1e-3  # and up to which it counts as converged
HALVINGS = (0, 0, 1, 2)  # of the chords, by round


class Joined(NamedTuple):
    """Geodesics between rows x and y.

    Attributes
    ----------
    squared : Tensor, shape (row,)
        Squared distance.
    start_slope, end_slope : Tensor, shape (row, factor)
        Derivative of the squared distance by x and y.
    path : Tensor, shape (row, point, factor)
    iterations, converged : Tensor, shape (row,)
    """

    squared: Tensor
    start_slope: Tensor
    end_slope: Tensor
    path: Tensor
    iterations: Tensor
    converged: Tensor

    def at(self, rows: Tensor) -> "Joined":
        """Return some of the rows."""
        return Joined(*(part[rows] for part in self))


def join(
    law: DampedLaw, x: Tensor, y: Tensor, start: Tensor | None = None, *, halvings: int = 0
) -> Joined:
    r"""Return geodesics between rows x and y (row, factor).

    Least energies with 4, 8 and 16 chords, extrapolated twice in ``1 / n^2``. Rows where the two
    extrapolations of first order differ by more than a thousandth are done again with twice as
    many chords, up to 128. The derivative by the ends is that of the energies, whose inner points
    do not matter at a minimum, and is ``-2 G v`` at x and ``2 G v`` at y.

    Parameters
    ----------
    start : Tensor, shape (row, 9, factor), optional
        First polygons; by default straight lines.
    halvings : int
        How often the chords are halved from the outset; `path` still shows 17 points.
    """
    if start is None:
        time = torch.linspace(0.0, 1.0, COARSE + 1, dtype=x.dtype).unsqueeze(-1)
        start = x.unsqueeze(-2) + time * (y - x).unsqueeze(-2)
    found, settled = _extrapolate(law, x, y, start, halvings)
    rows = (~settled).nonzero().flatten()
    if len(rows) and halvings < MOST_HALVINGS:
        start = found.path[rows][:, ::2]
        finer = join(law, x[rows], y[rows], start, halvings=halvings + 1)
        finer = finer._replace(iterations=finer.iterations + found.iterations[rows])
        found = Joined(
            *(old.index_copy(0, rows, new) for old, new in zip(found, finer, strict=True))
        )
    elif len(rows):
        found = found._replace(converged=found.converged & settled)
    return found


def join_shortest(law: DampedLaw, x: Tensor, y: Tensor, starts: int) -> Joined:
    """Return the shortest geodesics found from a straight line and `starts` - 1 bent ones.

    The bent ones leave along the axes that Lambda sees at right angles to the line, to both sides
    in turn, by half of its length. The straight line's valley is kept where none is shorter.
    """
    found = join(law, x, y)
    root = torch.linalg.cholesky(law.reference)
    move = (y - x) @ root  # to coordinates in which Lambda is the identity
    length = move.square().sum(-1, keepdim=True).sqrt()
    unit = move / length.clamp(min=torch.finfo(x.dtype).tiny)
    time = torch.linspace(0.0, 1.0, COARSE + 1, dtype=x.dtype).unsqueeze(-1)
    for place in range(starts - 1):
        axis = torch.zeros_like(move)
        axis[:, (place // 2) % x.shape[-1]] = 0.5 * (-1.0) ** place
        across = axis - (axis * unit).sum(-1, keepdim=True) * unit
        bend = torch.linalg.solve_triangular(root, length * across, upper=False, left=False)
        line = x.unsqueeze(-2) + time * (y - x).unsqueeze(-2)
        start = line + (torch.pi * time).sin() * bend.unsqueeze(-2)
        start[:, -1] = y
        other = join(law, x, y, start)
        better = other.converged & ((other.squared < found.squared) | ~found.converged)
        rows = better.nonzero().flatten()
        pairs = zip(found, other.at(rows), strict=True)
        found = Joined(*(old.index_copy(0, rows, new) for old, new in pairs))
    return found


def _extrapolate(
    law: DampedLaw, x: Tensor, y: Tensor, start: Tensor, halvings: int
) -> tuple[Joined, Tensor]:
    """Return geodesics from three refinements, and which of them more would not move much."""
    levels = [minimise(law, start)]
    for _ in range(halvings + 1):
        levels.append(minimise(law, refine(levels[-1].path)))
    if halvings == 0:  # from above: by itself, it might fall into another valley
        levels.insert(0, minimise(law, levels[0].path[:, ::2]))
    three = levels[-3:]

    def twice(name: str) -> tuple[Tensor, Tensor]:
        first, second, third = (getattr(level, name) for level in three)
        early, late = (4.0 * second - first) / 3.0, (4.0 * third - second) / 3.0
        return late + (late - early) / 15.0, late - early

    apart = (x != y).any(-1)
    squared, spread = twice("energy")
    found = Joined(
        torch.where(apart, squared.clamp(min=0.0), 0.0),
        torch.where(apart.unsqueeze(-1), twice("start_slope")[0], 0.0),
        torch.where(apart.unsqueeze(-1), twice("end_slope")[0], 0.0),
        three[-1].path[:, :: 2**halvings],
        torch.stack([level.iterations for level in levels]).sum(0),
        torch.stack([level.converged for level in three]).all(0) & torch.isfinite(squared),
    )
    return found, ~apart | (spread.abs() <= SETTLED * found.squared)


def refine(path: Tensor) -> Tensor:
    """Return polygons (row, 2 n + 1, factor) with a point between any two, on a cubic."""
    first, last = 2.0 * path[:, :1] - path[:, 1:2], 2.0 * path[:, -1:] - path[:, -2:-1]
    wide = torch.cat([first, path, last], dim=1)
    outer = wide[:, :-3] + wide[:, 3:]
    between = (9.0 * (wide[:, 1:-2] + wide[:, 2:-1]) - outer) / 16.0
    mixed = torch.stack([path[:, :-1], between], dim=2).flatten(1, 2)
    return torch.cat([mixed, path[:, -1:]], dim=1)


def first_velocity(law: DampedLaw, x: Tensor, slope: Tensor) -> Tensor:
    """Return the velocity at x from the derivative of the squared distance by x."""
    return -0.5 * law.solve(law.metric(x), slope.unsqueeze(-1)).squeeze(-1)


def polish(
    law: DampedLaw, x: Tensor, y: Tensor, joined: Joined, distance: Distance
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return velocity, length of the geodesic, and the residual it leaves at y, each by row.

    Deferred correction: the error of the velocity is a smooth function of the pair, so the one
    that the same polygons make between x and the point reached is its estimate. Rows go on until
    they arrive, the last rounds with finer polygons; a round that brings a row no closer is void.
    """
    velocity = first_velocity(law, x, joined.start_slope)
    length = joined.squared.sqrt()
    reached, residual = _arrive(law, x, y, velocity, distance)
    time = torch.linspace(0.0, 1.0, COARSE + 1, dtype=x.dtype).unsqueeze(-1)
    for halvings in HALVINGS:
        rows = (torch.isfinite(residual) & (residual > POLISHED * length)).nonzero().flatten()
        if not len(rows):
            break
        here, target, met = x[rows], y[rows], reached[rows]
        start = joined.path[rows][:, ::2]
        first = join(law, here, target, start, halvings=halvings) if halvings else joined.at(rows)
        echo = join(law, here, met, start + time * (met - target).unsqueeze(-2), halvings=halvings)
        step = first_velocity(law, here, first.start_slope - echo.start_slope)
        there, left = _arrive(law, here, target, velocity[rows] + step, distance)
        better = left < residual[rows]
        kept = rows[better]
        velocity = velocity.index_add(0, kept, step[better])
        reached = reached.index_copy(0, kept, there[better])
        residual = residual.index_copy(0, kept, left[better])
    return velocity, law.squared_speed(x, velocity).clamp(min=0.0).sqrt(), residual


def _arrive(
    law: DampedLaw, x: Tensor, y: Tensor, velocity: Tensor, distance: Distance
) -> tuple[Tensor, Tensor]:
    """Return where geodesics end, and the length of the gap to y; infinite if they do not."""
    flight, _ = shoot(law, x, velocity, steps=STEPS, keep=1, distance=distance, aim=POLISHED)
    gap = y - flight.point
    rows = torch.isfinite(gap).all(-1).nonzero().flatten()
    length = law.squared_speed(y[rows], gap[rows]).clamp(min=0.0).sqrt()
    residual = torch.full(x.shape[:-1], torch.inf, dtype=x.dtype)
    return flight.point, residual.index_copy(0, rows, length)


def first_polygons(start: Tensor | None, x: Tensor, y: Tensor, shape: torch.Size) -> Tensor | None:
    """Return first polygons as rows, checked against their ends; None for straight lines."""
    if start is None:
        return None
    want = (*shape, COARSE + 1, x.shape[-1])
    if start.shape != want:
        raise ShapeError(
            f"start must be polygons of {COARSE + 1} points, {want}; got shape "
            f"{tuple(start.shape)}. Include both ends."
        )
    rows = start.to(x.dtype).reshape(-1, *want[-2:])
    if not (torch.allclose(rows[:, 0], x) and torch.allclose(rows[:, -1], y)):
        raise SpecError("start must begin at x and end at y; got other ends. Include both ends.")
    return rows


@torch.no_grad()
def logarithm(
    law: DampedLaw,
    x: Tensor,
    y: Tensor,
    start: Tensor | None,
    *,
    starts: int,
    polished: bool,
    distance: Distance,
    shape: torch.Size,
) -> Logarithm:
    """Return geodesics between rows, with leading axes `shape`; warns of failed ones."""
    if start is None:
        joined = join_shortest(law, x, y, starts)
    else:
        joined = join(law, x, y, first_polygons(start, x, y, shape))
    length, converged = joined.squared.sqrt(), joined.converged
    residual = torch.full_like(length, torch.nan)
    if polished:
        velocity, length, residual = polish(law, x, y, joined, distance)
        smallest = torch.finfo(length.dtype).eps
        converged = converged & (residual <= ARRIVED * length.clamp(min=smallest))
    else:
        velocity = first_velocity(law, x, joined.start_slope)
    warn(~converged, "no shortest geodesic was found")
    far = distance(joined.path).amax(-1)
    parts = (velocity, length, joined.path, joined.iterations, residual, far, converged)
    return Logarithm(*(restore(part, shape) for part in parts))
