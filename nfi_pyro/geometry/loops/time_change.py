r"""The change of a value along a path, split into exposures that moved and prices that moved.

``f_T(beta_T) - f_0(beta_0) = int d_beta f_t . dbeta + int d_t f_t dt``. This is what may remain
around a loop of exposures while prices change. It is timing, known when the loop is done: no
riskless profit.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import grad, vmap

from nfi_pyro.distributions.law_jets import Pricing
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.errors import ShapeError, SpecError, name_places
from nfi_pyro.geometry.inputs import exposures
from nfi_pyro.geometry.loops.curve_quadrature import refined, stations
from nfi_pyro.geometry.loops.loops import TOLERANCE, started
from nfi_pyro.geometry.paths.transport import Curve
from nfi_pyro.geometry.results.loops import TimeDecomposition

TimedFunction = Callable[[Tensor, Tensor], Tensor]


def time_decomposition(
    function: TimedFunction, path: Curve, *, tolerance: float = TOLERANCE
) -> TimeDecomposition:
    """Return the change of a value along a path by exposure and by time, both continuous.

    Parameters
    ----------
    function : callable
        Time () in [0, 1] and exposures (factor,) to one value (); differentiable by `torch.func`
        in both.
    path : Tensor of shape (point, factor), or callable
        Exposures over time: vertices at equal times, or a smooth function of it. Not closed by
        itself: end where it starts for a loop.
    tolerance : float
        As in `line_integral`. Warns where it is not reached.

    Raises
    ------
    ShapeError, SpecError
        As for `line_integral`.
    """
    curve = started(path)
    slopes = vmap(grad(function, argnums=(0, 1)))
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def integrands(panels: int) -> tuple[Tensor, Tensor]:
        at = stations(curve, panels)
        by_time, by_exposure = slopes(at.time, at.point)
        moved = (by_exposure * at.velocity).sum(-1)
        return torch.stack([moved, by_time, vmap(function)(at.time, at.point)]), at.weight

    with torch.no_grad():
        found = refined(integrands, curve, tolerance)
        first, last = (
            (curve[0], curve[-1]) if isinstance(curve, Tensor) else map(curve, ends.unbind())
        )
        start, end, stayed = (
            float(function(time, beta))
            for time, beta in ((ends[0], first), (ends[1], last), (ends[1], first))
        )
    if not found.converged:
        warnings.warn(
            f"integrals along the path moved by {max(found.errors):.1e} at the last doubling: the "
            "value or the path has a kink or a jump",
            UserWarning,
            stacklevel=2,
        )
    moved, by_time, carry = found.values
    change = end - start
    error = abs(moved + by_time - change)
    return TimeDecomposition(change, moved, by_time, stayed - start, carry, error, found.converged)


def dated_decomposition(laws: Sequence[Pricing], path: Tensor) -> TimeDecomposition:
    """Return the change of expected return along a path of dates, by exposure and by time.

    Between two dates each part is the mean of its two orders: exposures first or prices first.
    So the parts add up to the change whatever the step, and neither order is favoured. Uses the
    law of the path's last date: known at that close, not before.

    Parameters
    ----------
    laws : sequence of callable
        Pricing law of each date, exposures (..., factor) to logits, loc and log scale: for example
        from `pricing_laws`.
    path : Tensor, shape (date, factor)
        Exposures held at each date's close.

    Returns
    -------
    TimeDecomposition
        In the laws' unit of return; `carry` is the sum over dates but the last.

    Raises
    ------
    ShapeError, SpecError
        If there is not one law for each of two dates or more, or a value is not finite.
    """
    beta = exposures(path, None, "path")
    if beta.ndim != 2 or len(beta) < 2 or len(laws) != len(beta):
        raise ShapeError(
            f"path must be (date, factor) with a law for each of 2 dates or more; got shape "
            f"{tuple(beta.shape)} and {len(laws)} laws. Take the same dates for both."
        )
    with torch.no_grad():
        now, before, after = (
            torch.stack([_mean(law, point) for law, point in zip(priced, at, strict=True)])
            for priced, at in ((laws, beta), (laws[:-1], beta[1:]), (laws[1:], beta[:-1]))
        )
        standing = float(_mean(laws[-1], beta[0]) - now[0])
    wrong = ~torch.isfinite(torch.stack([now[1:], before, after])).all(0)
    wrong = torch.cat([~torch.isfinite(now[:1]), wrong])
    if bool(wrong.any()):
        raise SpecError(
            "laws must have finite means on the path; got a NaN or an infinity at date "
            f"{name_places(wrong.nonzero().flatten().tolist())}. Leave such dates out."
        )
    moved = 0.5 * (before - now[:-1] + now[1:] - after).sum()
    by_time = 0.5 * (after - now[:-1] + now[1:] - before).sum()
    change = float(now[-1] - now[0])
    error = abs(float(moved + by_time) - change)
    carry = float(now[:-1].sum())
    return TimeDecomposition(change, float(moved), float(by_time), standing, carry, error, True)


def _mean(law: Pricing, point: Tensor) -> Tensor:
    """Return the expected return at one point (factor,)."""
    logits, loc, log_scale = law(point)
    return MixtureOfNormals(logits, loc, log_scale.exp(), validate_args=False).mean
