r"""Integrals of forms along curves of exposures, and the test that sensitivities are consistent.

The integral of ``df`` around a loop has been called an arbitrage opportunity where it is not 0
(deck A, on geometric arbitrage). It cannot be one. The expected return f is one smooth function of
exposure, so ``oint df = f(end) - f(start) = 0`` on every loop, for every law, whatever its
curvature. A value that is not 0 means that quadrature has not converged, that f jumps or has
several values, that the sensitivities are not those of f, or that f changed during the trip: a
test of a model, `exactness_check`. Nor does curvature of the manifold say anything about prices:
every normal law has sectional curvature -1/2, arbitrage or none.

What may remain around a loop, and what it means:

- `time_decomposition`: prices move while exposures go round; timing, known afterwards.
- `sharpe_form`, `premium_form`, `carry_form`: forms that are not exact; the order of trades
  matters to an accounting in units of risk, or estimated premia are inconsistent.
- `FisherManifold.holonomy`: a tilt carried around the loop comes back turned; how far "the same
  tilt" depends on the path of rebalancing. It takes the same loops.
- `gat_holonomy`, `gat_alpha`: another bundle, over portfolios and time.

None of them is a riskless profit.
"""

import warnings

import torch
from torch import Tensor

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry.inputs import exposures
from nfi_pyro.geometry.loops.curve_quadrature import FIRST_PANELS, Sums, refined, stations
from nfi_pyro.geometry.loops.forms import Form, Function, gradient_form
from nfi_pyro.geometry.paths.transport import Curve, closed, first_point
from nfi_pyro.geometry.results.loops import CurveIntegral, ExactnessCheck

TOLERANCE = 1e-10
ROUNDING = 16 * torch.finfo(torch.float64).eps


def line_integral(form: Form, curve: Curve, *, tolerance: float = TOLERANCE) -> CurveIntegral:
    """Return the integral of a form along a curve, and warn if it did not converge.

    It depends on the path and its direction, not on the speed. Gauss-Legendre panels of 8 nodes,
    by edge or of the whole curve, doubled up to 32,768 nodes.

    Parameters
    ----------
    form : callable
        Exposures (row, factor) to components (row, factor).
    curve : Tensor of shape (point, factor), or callable
        Vertices joined by straight edges, not closed; or exposures (factor,) as a smooth function
        of time in [0, 1] that `torch.func` can differentiate.
    tolerance : float
        In (0, 1); change at the last doubling, relative to the integral of the absolute value.

    Raises
    ------
    ShapeError, SpecError
        If curve, form or tolerance are not of that kind, or values are not finite.
    """
    found = _along(form, started(curve), tolerance)
    return warned(CurveIntegral(*first_of(found)))


def loop_integral(form: Form, loop: Curve, *, tolerance: float = TOLERANCE) -> CurveIntegral:
    """Return the integral of a form around a loop; parameters as in `line_integral`.

    The last vertex is joined to the first; a smooth curve must end where it starts. Not a profit:
    see this module and `nfi_pyro.geometry.loops.forms` for what it means.

    Raises
    ------
    ShapeError, SpecError
        As for `line_integral`, and if a smooth curve is not closed.
    """
    return line_integral(form, closed(started(loop)), tolerance=tolerance)


def exactness_check(
    function: Function,
    loop: Curve,
    *,
    gradient: Form | None = None,
    tolerance: float = TOLERANCE,
) -> ExactnessCheck:
    """Return whether the differential of a function adds up to 0 around a loop, as it must.

    A test of a model: of derivatives that are coded apart from the function, of a function that
    jumps (a hard switch of regimes) or has several values, of two networks taken for one. Jumps
    that cancel around the loop are found by its pieces, edges or quarters: up to the end of each,
    the sum must be what the function changed by. A jump that the loop does not cross is not found.

    Parameters
    ----------
    function : callable
        One value for exposures (factor,): the expected return, say.
    loop : Tensor of shape (point, factor), or callable
        As in `loop_integral`.
    gradient : callable, optional
        Sensitivities to be tested, (row, factor) to (row, factor). By default automatic ones.
    tolerance : float
        In (0, 1); largest sum, and change at the last doubling, relative to the integral of the
        absolute value.

    Raises
    ------
    ShapeError, SpecError
        As for `loop_integral`.
    """
    form = gradient_form(function) if gradient is None else gradient
    path = closed(started(loop))
    n_pieces = len(path) - 1 if isinstance(path, Tensor) else FIRST_PANELS
    piece = torch.arange(n_pieces).unsqueeze(-1)

    def integrands(panels: int) -> tuple[Tensor, Tensor]:
        at = stations(path, panels)
        density = (components(form, at.point) * at.velocity).sum(-1)
        inside = piece == (at.time * n_pieces).long()
        return torch.cat([density.unsqueeze(0), density * inside]), at.weight

    with torch.no_grad():
        found = refined(integrands, path, tolerance)
        value = _values(function, path, n_pieces)
    integral = CurveIntegral(*first_of(found))
    running = torch.tensor(found.values[1:], dtype=torch.float64).cumsum(0)
    worst = float((running - (value[1:] - value[0])).abs().max())
    allowance = tolerance * found.variation + ROUNDING * float(value.abs().max())
    passed = found.converged and max(abs(integral.value), worst) <= allowance
    return ExactnessCheck(integral, worst, allowance, passed)


def _along(form: Form, curve: Curve, tolerance: float) -> Sums:
    """Return the quadrature of a form along a curve."""

    def integrands(panels: int) -> tuple[Tensor, Tensor]:
        at = stations(curve, panels)
        parts = components(form, at.point)
        return (parts * at.velocity).sum(-1).unsqueeze(0), at.weight

    with torch.no_grad():
        return refined(integrands, curve, tolerance)


def components(form: Form, point: Tensor) -> Tensor:
    """Return a form at rows (row, factor), of the same shape.

    Raises
    ------
    ShapeError
        If the form returns another shape.
    """
    parts = form(point)
    if parts.shape != point.shape:
        raise ShapeError(
            f"a form must return one component by factor, {tuple(point.shape)}; got shape "
            f"{tuple(parts.shape)}. A function of exposures becomes a form by gradient_form."
        )
    return parts.to(torch.float64)


def started(curve: Curve) -> Curve:
    """Return a curve whose first point, and every vertex, is in order."""
    start = exposures(first_point(curve), None, "a curve")
    if start.ndim != 1:
        raise ShapeError(
            f"a curve must return exposures (factor,) at a time; got shape {tuple(start.shape)}. "
            "One curve at a time."
        )
    return curve.detach().to(torch.float64) if isinstance(curve, Tensor) else curve


def first_of(found: Sums) -> tuple[float, float, float, int, bool]:
    """Return the first integral in the order of `CurveIntegral`."""
    return found.values[0], found.errors[0], found.variation, found.n_points, found.converged


def warned(found: CurveIntegral) -> CurveIntegral:
    """Return an integral after a warning if it did not converge."""
    if not found.converged:
        warnings.warn(
            f"an integral along a curve moved by {found.error:.1e} at the last doubling: the form "
            "or the curve has a kink or a jump",
            UserWarning,
            stacklevel=3,
        )
    return found


def _values(function: Function, path: Curve, n_pieces: int) -> Tensor:
    """Return a function at the ends of a path's pieces, (piece + 1,).

    Raises
    ------
    ShapeError, SpecError
        If a point has not one value, or one that is not finite.
    """
    times = torch.linspace(0.0, 1.0, n_pieces + 1, dtype=torch.float64)
    ends = path if isinstance(path, Tensor) else [path(time) for time in times]
    value = torch.stack([torch.as_tensor(function(end)) for end in ends]).to(torch.float64)
    if value.ndim != 1:
        raise ShapeError(
            f"a function of exposures must have one value at a point; got shape "
            f"{tuple(value.shape[1:])}. Sum or squeeze it."
        )
    if not bool(torch.isfinite(value).all()):
        raise SpecError(
            "a function must be finite along the loop; got a NaN or an infinity. Keep the loop "
            "where the law is defined."
        )
    return value
