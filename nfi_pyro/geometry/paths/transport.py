"""Parallel transport along curves of exposures, and what a closed loop does to vectors."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry.fisher.embedding import unpack
from nfi_pyro.geometry.fisher.metric import DampedLaw
from nfi_pyro.geometry.inputs import exposures
from nfi_pyro.geometry.results.manifold import Holonomy

Curve = Tensor | Callable[[Tensor], Tensor]
"""Vertices (point, factor) of straight edges, or a smooth function of time in [0, 1]."""

_GAUSS = math.sqrt(3.0) / 6.0
ORTHOGONAL = 1e-6


def transport_matrix(law: DampedLaw, curve: Curve, steps: int) -> Tensor:
    r"""Return the matrix that transports vectors along a curve, (factor, factor).

    ``V' = -Gamma(c') V``. All connection matrices in one batch, then the Magnus product of fourth
    order over two Gauss points a step: orthogonal in the metric up to that order.

    Parameters
    ----------
    steps : int
        By edge of a polygon, or of the whole of a smooth curve.
    """
    point, velocity, size = _stations(curve, steps)
    metric, pairs = law.christoffel(point)
    gamma = unpack(pairs, point.shape[-1])  # (row, m, i, j)
    lowered = torch.einsum("nmij,ni->nmj", gamma, velocity)
    matrix = -law.solve(metric, lowered).unflatten(0, (-1, 2))
    first, second = matrix[:, 0], matrix[:, 1]
    commutator = first @ second - second @ first
    generator = 0.5 * size * (first + second) - 0.5 * _GAUSS * size**2 * commutator
    whole = torch.eye(point.shape[-1], dtype=point.dtype)
    for step in torch.linalg.matrix_exp(generator):
        whole = step @ whole
    return whole


def first_point(curve: Curve) -> Tensor:
    """Return where a curve starts, (factor,).

    Raises
    ------
    ShapeError
        If vertices are not (point, factor) with two points or more.
    SpecError
        If a vertex is not finite.
    """
    if not isinstance(curve, Tensor):
        return curve(torch.zeros((), dtype=torch.float64))
    if curve.ndim != 2 or len(curve) < 2:
        raise ShapeError(
            f"vertices must be (point, factor) with 2 points or more; got shape "
            f"{tuple(curve.shape)}. One curve at a time."
        )
    return exposures(curve, None, "vertices")[0]


def closed(loop: Curve) -> Curve:
    """Return a loop whose last point is its first.

    Raises
    ------
    SpecError
        If a smooth curve does not end where it starts.
    """
    if isinstance(loop, Tensor):
        return torch.cat([loop, loop[:1]])
    start, end = (loop(torch.tensor(time, dtype=torch.float64)) for time in (0.0, 1.0))
    if not torch.allclose(start, end, rtol=1e-9, atol=1e-9):
        raise SpecError(
            f"a loop must end where it starts; got a gap of {float((end - start).norm()):.1e}. "
            "Close it."
        )
    return loop


def _stations(curve: Curve, steps: int) -> tuple[Tensor, Tensor, float]:
    """Return points and velocities at the two Gauss times of every step, and the step's size."""
    size = 1.0 / steps
    start = torch.arange(steps, dtype=torch.float64).unsqueeze(-1) * size
    time = start + size * torch.tensor([0.5 - _GAUSS, 0.5 + _GAUSS], dtype=torch.float64)
    if isinstance(curve, Tensor):
        curve = curve.to(torch.float64)
        move = (curve[1:] - curve[:-1])[:, None, None]
        point = curve[:-1, None, None] + time.unsqueeze(-1) * move
        velocity = move.expand_as(point)
        return point.flatten(0, 2), velocity.flatten(0, 2), size
    return vmap(curve)(time.flatten()), vmap(jacfwd(curve))(time.flatten()), size


def holonomy(law: DampedLaw, loop: Curve, base: Tensor, steps: int) -> Holonomy:
    """Return the holonomy of a closed loop at its base point (factor,)."""
    matrix = transport_matrix(law, loop, steps)
    metric = law.metric(base.unsqueeze(0))
    law.require_definite(metric)
    root = law.cholesky(metric)[0].mT
    rotation = torch.linalg.solve_triangular(root, root @ matrix, upper=True, left=False)
    eye = torch.eye(len(base), dtype=base.dtype)
    defect = float((rotation.mT @ rotation - eye).abs().max())
    phases = torch.linalg.eigvals(rotation).angle().abs().sort(descending=True).values
    angles = phases[: 2 * (len(base) // 2) : 2]
    if len(base) == 2:
        turn = torch.stack([rotation[1, 0] - rotation[0, 1], rotation[0, 0] + rotation[1, 1]])
        angles = torch.atan2(turn[:1], turn[1:])
    norm = float(phases.square().sum().sqrt())
    return Holonomy(matrix, rotation, angles, norm, defect, defect <= ORTHOGONAL)
