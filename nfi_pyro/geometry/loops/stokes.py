"""Curl through a surface in a loop, and the check that it is the loop's integral."""

import torch
from torch import Tensor

from nfi_pyro.errors import ShapeError
from nfi_pyro.geometry.inputs import exposures
from nfi_pyro.geometry.loops.curve_quadrature import panel_rule_on_unit, refined, stations
from nfi_pyro.geometry.loops.forms import Form, TwoForm, exterior_derivative
from nfi_pyro.geometry.loops.loops import TOLERANCE, first_of, loop_integral, started, warned
from nfi_pyro.geometry.paths.transport import Curve, closed
from nfi_pyro.geometry.results.loops import CurveIntegral, StokesCheck

STEADY = 64  # nodes from the apex to the loop


def surface_integral(
    curl: TwoForm, loop: Curve, *, apex: Tensor | None = None, tolerance: float = TOLERANCE
) -> CurveIntegral:
    """Return the integral of a two-form over the cone from a point to a loop, and warn of failure.

    The cone is ``apex + u (c(t) - apex)``: a disc or a polygon where loop and apex lie in a plane.
    The two-form is looked at on all of it, not on the loop alone. The sign is that of the loop's
    direction.

    Parameters
    ----------
    curl : callable
        Exposures (row, factor) to antisymmetric components (row, factor, factor), as from
        `exterior_derivative`.
    loop : Tensor of shape (point, factor), or callable
        As in `loop_integral`.
    apex : Tensor, shape (factor,), optional
        By default the mean of the vertices, or of points at equal times.
    tolerance : float
        As in `loop_integral`. Towards the apex there are 64 nodes, enough for what is smooth on
        the scale of the loop.

    Raises
    ------
    ShapeError, SpecError
        If an argument is not of that kind, or a value is not finite.
    """
    path = closed(started(loop))
    return _through_cone(curl, path, _apex(path, apex), tolerance, 0.0)


def stokes_check(
    form: Form, loop: Curve, *, apex: Tensor | None = None, tolerance: float = 1e-8
) -> StokesCheck:
    """Return whether a form around a loop is its curl through the cone in it, as it must be.

    A test of the form: it fails where components are not smooth inside the loop, or have a hole
    there, as premia that jump from one regime to another. Parameters as in `surface_integral`;
    `form` is differentiated by `torch.func`.

    Raises
    ------
    ShapeError, SpecError
        As for `surface_integral`.
    """
    edge = loop_integral(form, loop, tolerance=tolerance)
    path, curl = closed(started(loop)), exterior_derivative(form)
    area = _through_cone(curl, path, _apex(path, apex), tolerance, edge.variation)
    gap = edge.value - area.value
    allowance = 2.0 * tolerance * max(edge.variation, area.variation)
    passed = edge.converged and area.converged and abs(gap) <= allowance
    return StokesCheck(edge, area, gap, allowance, passed)


def _through_cone(
    curl: TwoForm, path: Curve, top: Tensor, tolerance: float, scale: float
) -> CurveIntegral:
    """Return the integral over the cone from `top` to a closed path."""

    def integrands(panels: int) -> tuple[Tensor, Tensor]:
        at = stations(path, panels)
        ray = at.point - top
        height, weight = panel_rule_on_unit(max(1, min(panels, STEADY // 8)))
        point = (top + height[:, None, None] * ray).flatten(0, 1)
        area = _two_form(curl, point).unflatten(0, (len(height), -1))
        value = torch.einsum("ti,utij,tj->ut", ray, area, at.velocity) * height.unsqueeze(-1)
        return value.flatten().unsqueeze(0), torch.outer(weight, at.weight).flatten()

    with torch.no_grad():
        return warned(CurveIntegral(*first_of(refined(integrands, path, tolerance, scale))))


def _apex(path: Curve, apex: Tensor | None) -> Tensor:
    """Return the cone's point, (factor,)."""
    on_path = stations(path, 1).point if not isinstance(path, Tensor) else path[:-1]
    if apex is None:
        return on_path.mean(0)
    top = exposures(apex, on_path.shape[-1], "apex")
    if top.ndim != 1:
        raise ShapeError(
            f"apex must be one point (factor,); got shape {tuple(top.shape)}. One cone at a time."
        )
    return top


def _two_form(curl: TwoForm, point: Tensor) -> Tensor:
    """Return a two-form at rows (row, factor), (row, factor, factor)."""
    found = curl(point)
    shape = (*point.shape, point.shape[-1])
    if found.shape != shape:
        raise ShapeError(
            f"a two-form must return (row, factor, factor), {shape}; got shape "
            f"{tuple(found.shape)}. A form becomes one by exterior_derivative."
        )
    return found.to(torch.float64)
