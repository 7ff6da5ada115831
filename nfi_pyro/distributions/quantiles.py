r"""Quantiles of a mixture of normals with exact derivatives in every mode of differentiation.

The root is found by safeguarded Newton steps that no gradient sees. By the implicit function
theorem, ``F(x; theta) = p`` gives the slopes of the quantile x, with f the density at x:

    dx/dlogit_k  = -w_k (Phi(a_k) - p) / f    w_k: weight of component k
    dx/dloc_k    = r_k                        r_k: its share in the density at x
    dx/dscale_k  = r_k a_k                    a_k = (x - loc_k) / scale_k
    dx/dp        = 1 / f

They depend on x, so x as a function of theta solves a differential equation with a known start:
the root at the detached parameters. `Path` takes one Runge-Kutta step of that equation from the
detached parameters to the parameters themselves. The step has length zero, so it adds exactly 0
to the value; but a step of order four agrees with the solution's Taylor series up to the fourth
power of the displacement, so its first to fourth derivatives at zero are those of the quantile.
(One Newton step from a detached root would have a wrong second derivative: it lacks the term in
the slope of the density.) Everything after the root is plain tensor arithmetic: reverse, forward
and any nesting of the two, and `vmap`, work. An `autograd.Function` with the same slopes returns
wrong second derivatives, without a word, when forward mode is nested in itself.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nfi_pyro.distributions.normal import LOG_SQRT_2PI, normal_cdf
from nfi_pyro.errors import SpecError

_MAX_ITERATIONS = 200
_STEP_WEIGHTS = (1 / 6, 1 / 3, 1 / 3, 1 / 6)  # Kutta's classical method

Slopes = tuple[Tensor, Tensor, Tensor, Tensor]


def mixture_quantile(logits: Tensor, loc: Tensor, scale: Tensor, level: Tensor) -> Tensor:
    """Return the quantile of a mixture of normals, to 1e-8 of the narrowest scale in float64.

    First to fourth derivatives in all four arguments are exact under `torch.autograd` and
    `torch.func`; derivatives of fifth order are wrong.

    Between components so far apart that the density at the quantile underflows, the quantile is
    not determined: the value is a point of the gap, and the slopes in logits and level, infinite
    there, come back as at most the root of the largest number that the dtype holds.

    Parameters
    ----------
    logits, loc, scale : Tensor, shape (..., component)
        Of one shape. Scale > 0, in the unit of `loc`.
    level : Tensor, shape (...)
        Probability, strictly between 0 and 1.

    Returns
    -------
    Tensor, shape (...)
        In the unit of `loc`; NaN where a parameter is NaN.

    Raises
    ------
    SpecError
        If a level is not strictly between 0 and 1.
    """
    return Path(logits, loc, scale, level).quantile


class Path:
    """A zero-length step of the quantile from the detached parameters to the parameters.

    Attributes
    ----------
    start : tuple of Tensor
        Logits, loc, scale and level, detached.
    root : Tensor, shape (...)
        The quantile, without derivatives.
    quantile : Tensor, shape (...)
        The quantile with its derivatives.
    places : list of tuple of Tensor
        Logits, loc, scale, level and quantile at the four stages of the step.
    """

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor, level: Tensor) -> None:
        ends = (logits, loc, scale, level)
        self.start = start = tuple(t.detach() for t in ends)
        self.displacement = tuple(
            # A weight of zero has the logit minus infinity, which cannot move.
            torch.where(torch.isfinite(begin), end - begin, 0.0)
            for end, begin in zip(ends, start, strict=True)
        )
        self.root: Tensor = _Root.apply(*start)
        self.places: list[tuple[Tensor, ...]] = []
        total = moved = torch.zeros_like(self.root)
        for weight, share in zip(_STEP_WEIGHTS, (0.0, 0.5, 0.5, 1.0), strict=True):
            between = (t + share * d for t, d in zip(start, self.displacement, strict=True))
            self.places.append((*between, self.root + share * moved))
            moved = self._move(_slopes(*self.places[-1]))
            total = total + weight * moved
        self.quantile = self.root + total

    def _move(self, slopes: Slopes) -> Tensor:
        """Return slopes times displacement, summed over parameters and components."""
        *by_component, by_level = slopes
        *steps, level_step = self.displacement
        inner = sum(slope * step for slope, step in zip(by_component, steps, strict=True))
        return torch.as_tensor(inner).sum(-1) + by_level * level_step

    def integrate(self, slopes: list[Slopes]) -> Tensor:
        """Return the change along the path of what has these slopes at its four places."""
        moves = (w * self._move(s) for w, s in zip(_STEP_WEIGHTS, slopes, strict=True))
        return torch.stack(list(moves)).sum(0)


class _Root(torch.autograd.Function):
    """The root of detached parameters; a Function so that `vmap` runs the loop once for all."""

    @staticmethod
    def forward(logits: Tensor, loc: Tensor, scale: Tensor, level: Tensor) -> Tensor:
        """Return the root."""
        return solve_quantile(logits, loc, scale, level)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep nothing: the inputs carry no derivatives."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        """Return the roots of a batch; a mapped axis is one more batch axis."""
        batched = [
            t.unsqueeze(0).expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip(inputs, in_dims, strict=True)
        ]
        return _Root.apply(*batched), 0


def solve_quantile(logits: Tensor, loc: Tensor, scale: Tensor, level: Tensor) -> Tensor:
    """Return the quantile itself; arguments as in `mixture_quantile`, no derivatives.

    One component is closed form; several take Newton steps on the logarithm of the tail
    probability (nearly quadratic in the tails), inside a bracket that starts at the smallest and
    the largest component quantile, and halve it where Newton stalls.
    """
    if bool(((level <= 0) | (level >= 1)).any()):
        raise SpecError(
            "a probability must lie strictly between 0 and 1; got values from "
            f"{float(level.min())} to {float(level.max())}. Use for example 0.05."
        )
    # Above the median the law is reflected: the upper tail keeps its digits only as 1 - level.
    sign = torch.where(level > 0.5, -1.0, 1.0).to(loc.dtype)
    tail = torch.where(level > 0.5, 1.0 - level, level)
    loc = sign.unsqueeze(-1) * loc
    by_component = loc + scale * torch.special.ndtri(tail).unsqueeze(-1)
    if loc.shape[-1] == 1:
        return sign * by_component.squeeze(-1)
    return sign * _search(
        _Reflected(torch.softmax(logits, -1), loc, scale, tail),
        by_component.amin(-1),
        by_component.amax(-1),
    )


class _Reflected(NamedTuple):
    """Laws whose wanted tail probability is at most a half, on the left."""

    weights: Tensor
    loc: Tensor
    scale: Tensor
    tail: Tensor

    def newton(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the error in probability at x, and the Newton step on the log probability."""
        standard = (x.unsqueeze(-1) - self.loc) / self.scale
        below = (self.weights * normal_cdf(standard)).sum(-1)
        parts = self.weights / self.scale * torch.exp(-0.5 * standard.square() - LOG_SQRT_2PI)
        return below - self.tail, -(below / self.tail).log() * below / parts.sum(-1)


def _search(laws: _Reflected, low: Tensor, high: Tensor) -> Tensor:
    """Return the root between `low` and `high`."""
    x = 0.5 * (low + high)
    eps = torch.finfo(x.dtype).eps
    narrowest = laws.scale.amin(-1)
    before_last = last = high - low
    done = ~torch.isfinite(x)
    for _ in range(_MAX_ITERATIONS):
        error, step = laws.newton(x)
        newton = x + step
        low, high = torch.where(error < 0, x, low), torch.where(error < 0, high, x)
        # A step that has not halved in two may be one of a cycle between the bounds. An
        # underflown density makes the step NaN, which fails every comparison.
        good = (newton >= low) & (newton <= high) & (2.0 * step.abs() <= before_last)
        done = done | (error.abs() <= 2.0 * eps * laws.tail)
        moved = torch.where(done, x, torch.where(good, newton, 0.5 * (low + high)))
        before_last, last = last, (moved - x).abs()
        # What is found stays: further steps would be rounding noise.
        done = done | (last <= eps * torch.maximum(1e3 * narrowest, 2.0 * x.abs()))
        x = moved
        if bool(done.all()):
            break
    return x


def _slopes(logits: Tensor, loc: Tensor, scale: Tensor, level: Tensor, quantile: Tensor) -> Slopes:
    """Return dx/dlogits, dx/dloc, dx/dscale (..., component) and dx/dlevel (...).

    All by logarithms: shares stay exact where the density itself underflows.
    """
    standard = (quantile.unsqueeze(-1) - loc) / scale
    joint = logits - 0.5 * standard.square() - scale.log() - LOG_SQRT_2PI
    log_density = torch.logsumexp(joint, -1)  # not normalised, as the logits are not
    share = torch.softmax(joint, -1)
    wide = level.unsqueeze(-1)
    # Phi(a) - p by whichever tail is small.
    excess = torch.where(
        wide <= 0.5, normal_cdf(standard) - wide, (1.0 - wide) - normal_cdf(-standard)
    )
    largest = 0.5 * math.log(torch.finfo(loc.dtype).max)
    by_logit = -excess * (logits - log_density.unsqueeze(-1)).clamp(max=largest).exp()
    by_level = (torch.logsumexp(logits, -1) - log_density).clamp(max=largest).exp()
    return by_logit, share, share * standard, by_level
