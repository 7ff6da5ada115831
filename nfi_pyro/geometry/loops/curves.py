"""Curves of exposures: circles and rectangles in a plane of factors, and polygons.

A curve is a `Curve` of `nfi_pyro.geometry.paths.transport`: vertices (point, factor) joined by
straight edges, or a smooth function of time in [0, 1]. A loop of vertices does not repeat its first
one. So the same loop goes into an integral and into `FisherManifold.holonomy`.
"""

import math

import torch
from torch import Tensor

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry.inputs import exposures
from nfi_pyro.geometry.paths.transport import Curve

Plane = tuple[int, int] | Tensor
"""Two factors by place, or two directions (2, factor), which need be neither unit nor orthogonal
and whose lengths scale the figure."""


def circle(centre: Tensor, radius: float, plane: Plane = (0, 1)) -> Curve:
    """Return a circle of exposures as a smooth loop, from the first direction to the second.

    Parameters
    ----------
    centre : Tensor, shape (factor,)
    radius : float
        > 0, in units of exposure; of the directions' lengths where directions are given.
    plane : pair of int, or Tensor of shape (2, factor)

    Raises
    ------
    ShapeError, SpecError
        If the centre is not a point, the radius not positive, or the plane is none.
    """
    middle = _centre(centre)
    first, second = _directions(plane, len(middle))
    _require_length(radius, "radius")

    def point(time: Tensor) -> Tensor:
        angle = 2.0 * math.pi * torch.as_tensor(time, dtype=middle.dtype).unsqueeze(-1)
        return middle + radius * (angle.cos() * first + angle.sin() * second)

    return point


def rectangle(centre: Tensor, sides: tuple[float, float], plane: Plane = (0, 1)) -> Tensor:
    """Return the vertices of a rectangle of exposures, (4, factor), from the lower left corner.

    The first edge runs along the plane's first direction, so that the loop turns from it to the
    second, as a circle does.

    Parameters
    ----------
    centre : Tensor, shape (factor,)
    sides : pair of float
        Lengths along the two directions, > 0.
    plane : pair of int, or Tensor of shape (2, factor)

    Raises
    ------
    ShapeError, SpecError
        As for `circle`.
    """
    middle = _centre(centre)
    first, second = _directions(plane, len(middle))
    for side in sides:
        _require_length(side, "sides")
    across, up = 0.5 * sides[0] * first, 0.5 * sides[1] * second
    corners = [-across - up, across - up, across + up, up - across]
    return torch.stack([middle + corner for corner in corners])


def polyline(*points: Tensor) -> Tensor:
    """Return points (factor,) as the vertices of a curve, (point, factor).

    Raises
    ------
    ShapeError, SpecError
        If there are fewer than two, they differ in size, or one is not finite.
    """
    vertices = [_centre(point) for point in points]
    sizes = sorted({len(vertex) for vertex in vertices})
    if len(vertices) < 2 or len(sizes) > 1:
        raise ShapeError(
            f"a polyline must have 2 points or more of one size; got {len(vertices)} of sizes "
            f"{sizes}. Use points (factor,)."
        )
    return torch.stack(vertices)


def reversed_curve(curve: Curve) -> Curve:
    """Return the same curve run the other way."""
    if isinstance(curve, Tensor):
        return curve.flip(0)
    return lambda time: curve(1.0 - time)


def _centre(value: Tensor) -> Tensor:
    """Return one finite point (factor,)."""
    point = exposures(value, None, "a point of a curve")
    if point.ndim != 1:
        raise ShapeError(
            f"a point of a curve must be (factor,); got shape {tuple(point.shape)}. One curve at "
            "a time."
        )
    return point


def _directions(plane: Plane, n_factors: int) -> Tensor:
    """Return the plane's two directions, (2, factor)."""
    if not isinstance(plane, Tensor):
        places = tuple(plane)
        inside = all(0 <= place < n_factors for place in places)
        if len(places) != 2 or len(set(places)) != 2 or not inside:
            raise SpecError(
                f"plane must be two different factors of 0 to {n_factors - 1}; got {places}. Use "
                "places of factors, or two directions (2, factor)."
            )
        return torch.eye(n_factors, dtype=torch.float64)[list(places)]
    directions = exposures(plane, n_factors, "plane")
    spans = directions.shape == (2, n_factors)
    if spans:
        length = torch.linalg.svdvals(directions)
        spans = float(length[1]) > 1e-9 * float(length[0])
    if not spans:
        raise SpecError(
            f"plane must be two directions that are not parallel; got shape "
            f"{tuple(directions.shape)}. Use (2, factor)."
        )
    return directions


def _require_length(value: float, name: str) -> None:
    if not 0.0 < value < math.inf:
        raise SpecError(
            f"{name} must be positive and finite; got {value}. To turn the other way, use "
            "reversed_curve."
        )
