"""Quadrature along curves: Gauss-Legendre panels, doubled until nothing moves."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from nfi_pyro.errors import SpecError
from nfi_pyro.geometry.fisher.nodes import gauss_legendre
from nfi_pyro.geometry.paths.transport import Curve

ORDER = 8  # nodes by panel
FIRST_PANELS = 4  # of a smooth curve; an edge starts with one
MOST_POINTS = 1 << 15
NOTHING = 1e-14  # a change that counts as none, in any unit: rounding of what should be 0


class Stations(NamedTuple):
    """Where a curve is looked at.

    Attributes
    ----------
    time : Tensor, shape (row,)
        In [0, 1]; each edge of a polygon takes the same time.
    point, velocity : Tensor, shape (row, factor)
    weight : Tensor, shape (row,)
        They add up to 1.
    """

    time: Tensor
    point: Tensor
    velocity: Tensor
    weight: Tensor


class Sums(NamedTuple):
    """A quadrature and its refinement.

    Attributes
    ----------
    values : tuple of float
        Of several integrals, the finest.
    errors : tuple of float
        What the last doubling of the panels changed.
    variation : float
        Integral of the first integrand's absolute value.
    n_points : int
    converged : bool
    """

    values: tuple[float, ...]
    errors: tuple[float, ...]
    variation: float
    n_points: int
    converged: bool


def stations(curve: Curve, panels: int) -> Stations:
    """Return a curve at the nodes of `panels` panels by edge, or of a smooth curve as a whole."""
    n_edges = len(curve) - 1 if isinstance(curve, Tensor) else 1
    time, weight = panel_rule_on_unit(n_edges * panels)
    if isinstance(curve, Tensor):
        vertices = curve.to(torch.float64)
        moves = n_edges * (vertices[1:] - vertices[:-1])
        edge = torch.arange(n_edges).repeat_interleave(panels * ORDER)
        since = (time - edge.to(time.dtype) / n_edges).unsqueeze(-1)
        return Stations(time, vertices[edge] + since * moves[edge], moves[edge], weight)
    return Stations(time, vmap(curve)(time), vmap(jacfwd(curve))(time), weight)


def panel_rule_on_unit(panels: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of equal panels of [0, 1], each (panel * node,)."""
    place, mass = gauss_legendre(ORDER)  # of [-1, 1]
    unit, weight = 0.5 * (place + 1.0), 0.5 * mass
    left = torch.arange(panels, dtype=torch.float64).unsqueeze(-1)
    return ((left + unit) / panels).flatten(), (weight / panels).repeat(panels)


def refined(
    integrands: Callable[[int], tuple[Tensor, Tensor]],
    curve: Curve,
    tolerance: float,
    scale: float = 0.0,
) -> Sums:
    """Return integrals with panels doubled until the change is within the tolerance.

    Parameters
    ----------
    integrands : callable
        Panels to integrands (integral, row) and weights (row,).
    curve : tensor or callable
        Decides how many panels come first.
    tolerance : float
        Largest change of an integral, relative to the integral of its absolute value.
    scale : float
        Or relative to this, where it is larger: what a sum of rounding errors is small against.

    Raises
    ------
    SpecError
        If the tolerance is not in (0, 1), or an integrand is not finite.
    """
    if not 0.0 < tolerance < 1.0:
        raise SpecError(f"tolerance must lie in (0, 1); got {tolerance}. The default is 1e-10.")
    panels = 1 if isinstance(curve, Tensor) else FIRST_PANELS
    coarse, size, n_points = _sums(integrands, panels)
    while True:
        panels *= 2
        fine, size, n_points = _sums(integrands, panels)
        errors = (fine - coarse).abs()
        converged = bool((errors <= tolerance * size.clamp(min=scale) + NOTHING).all())
        if converged or 2 * n_points > MOST_POINTS:
            values, changed = tuple(fine.tolist()), tuple(errors.tolist())
            return Sums(values, changed, float(size[0]), n_points, converged)
        coarse = fine


def _sums(
    integrands: Callable[[int], tuple[Tensor, Tensor]], panels: int
) -> tuple[Tensor, Tensor, int]:
    """Return integrals, integrals of absolute values, and the number of nodes."""
    value, weight = integrands(panels)
    if not bool(torch.isfinite(value).all()):
        raise SpecError(
            "an integrand must be finite along the curve; got a NaN or an infinity. Keep the curve "
            "where the law is defined."
        )
    return value @ weight, value.abs() @ weight, len(weight)
