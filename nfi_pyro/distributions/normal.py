"""The standard normal law on tensors, precise in the tails and twice differentiable."""

import math

import torch
from torch import Tensor

LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_SQRT_HALF = math.sqrt(0.5)


def normal_pdf(x: Tensor) -> Tensor:
    """Return the standard normal density."""
    return torch.exp(-0.5 * x.square() - LOG_SQRT_2PI)


def normal_cdf(x: Tensor) -> Tensor:
    """Return the standard normal cdf, to full relative precision in the left tail.

    `torch.special.ndtr` takes ``(1 + erf) / 2`` there, which is 0 from -8.3 standard deviations
    in float64 and 3 percent off at -4.8 in float32.
    """
    return 0.5 * torch.erfc(-_SQRT_HALF * x)


def mean_distance(loc: Tensor, scale: Tensor) -> Tensor:
    """Return E|x| for x normal with `loc` and `scale`, in their unit."""
    standard = loc / scale
    return loc * torch.erf(_SQRT_HALF * standard) + 2.0 * scale * normal_pdf(standard)


def mean_below(quantile: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Return ``E[max(quantile - x, 0)]`` for x normal with `loc` and `scale`, in their unit."""
    standard = (quantile - loc) / scale
    return scale * (standard * normal_cdf(standard) + normal_pdf(standard))
