"""Distances of pairs: along the shortest geodesic found, between bounds, or along a line."""

import torch
from torch import Tensor

from nfi_pyro.errors import SpecError
from nfi_pyro.geometry.fisher.metric import DampedLaw
from nfi_pyro.geometry.paths.chords import chord_bound, line_length
from nfi_pyro.geometry.paths.joining import join_shortest
from nfi_pyro.geometry.results.manifold import Bounds
from nfi_pyro.geometry.rows import restore, warn

LINE_POINTS = 32
METHODS = ("geodesic", "bounds", "line")


def distance(
    law: DampedLaw,
    x: Tensor,
    y: Tensor,
    method: str,
    *,
    squared: bool,
    starts: int,
    shape: torch.Size,
) -> Tensor | Bounds:
    """Return distances of rows x and y with leading axes `shape`; see `FisherManifold.distance`.

    Raises
    ------
    SpecError
        If there is no such method.
    """
    if method not in METHODS:
        raise SpecError(
            f"method must be one of {', '.join(METHODS)}; got {method!r}. The default is geodesic."
        )
    if method == "geodesic":
        return restore(_geodesic(law, x, y, squared, starts), shape)
    power = 2 if squared else 1
    with torch.no_grad():
        upper = restore(line_length(law, x, y, LINE_POINTS) ** power, shape)
        if method == "line":
            return upper
        return Bounds(restore(chord_bound(law, x, y) ** power, shape), upper)


def _geodesic(law: DampedLaw, x: Tensor, y: Tensor, squared: bool, starts: int) -> Tensor:
    """Return geodesic distances of rows, with the graph of their exact first derivative."""
    with torch.no_grad():
        joined = join_shortest(law, x, y, starts)
    warn(~joined.converged, "no shortest geodesic was found")
    found = joined.squared if squared else joined.squared.sqrt()
    weight = torch.ones_like(found)
    if not squared:  # no derivative where the two meet: 0 is in its subgradient
        weight = torch.where(found > 0, 0.5 / found, 0.0)
    for end, slope in ((x, joined.start_slope), (y, joined.end_slope)):
        if end.requires_grad:
            found = found + weight * (slope * (end - end.detach())).sum(-1)
    return found
