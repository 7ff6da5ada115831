"""Scores and risk of a mixture of normals in closed form, as functions of its parameters."""

import torch
from torch import Tensor

from nfi_pyro.distributions.normal import mean_below, mean_distance, normal_cdf, normal_pdf
from nfi_pyro.distributions.quantiles import Path, Slopes


def standard_moments(logits: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return skewness and excess kurtosis of a mixture of normals, each (...), dimensionless.

    ``E d^3 = sum_k w_k (d_k^3 + 3 d_k s_k^2)`` and ``E d^4 = sum_k w_k (d_k^4 + 6 d_k^2 s_k^2 +
    3 s_k^4)`` with ``d_k = loc_k - mean``, in units of the mixture's own standard deviation, so
    that no power of a return over- or underflows. Excess: 0 for a normal law.

    Parameters
    ----------
    logits, loc, scale : Tensor, shape (..., component)
        Scale > 0, in the unit of `loc`.
    """
    dtype = loc.dtype
    # A component of hardly any weight may be 1e12 times wider than the rest: its fourth power,
    # and the weight that makes it nothing, both leave single precision.
    logits, loc, scale = logits.double(), loc.double(), scale.double()
    weights = torch.softmax(logits, -1)
    gap = loc - (weights * loc).sum(-1, keepdim=True)
    deviation = (weights * (scale.square() + gap.square())).sum(-1, keepdim=True).sqrt()
    gap, own = gap / deviation, (scale / deviation).square()
    second = (weights * (gap.square() + own)).sum(-1)
    third = (weights * gap * (gap.square() + 3.0 * own)).sum(-1)
    fourth = (weights * (gap.square() * (gap.square() + 6.0 * own) + 3.0 * own.square())).sum(-1)
    # `second` is 1 but for rounding, which it takes out of the difference for one component.
    return third.to(dtype), (fourth - 3.0 * second.square()).to(dtype)


def mixture_crps(logits: Tensor, loc: Tensor, scale: Tensor, value: Tensor) -> Tensor:
    r"""Return the continuous ranked probability score of `value`, shape (...); lower is better.

    Closed form for normal mixtures (Grimit et al. 2006): ``sum_k w_k A(y - loc_k, scale_k)
    - 1/2 sum_jk w_j w_k A(loc_j - loc_k, sqrt(scale_j^2 + scale_k^2))`` with ``A(m, s) = E|x|``,
    x normal. In the unit of `loc`; arguments as in `standard_moments`.
    """
    weights = torch.softmax(logits, -1)
    first = (weights * mean_distance(value.unsqueeze(-1) - loc, scale)).sum(-1)
    gap = loc.unsqueeze(-1) - loc.unsqueeze(-2)
    variance = scale.square()
    both = (variance.unsqueeze(-1) + variance.unsqueeze(-2)).sqrt()
    pair_weights = weights.unsqueeze(-1) * weights.unsqueeze(-2)
    return first - 0.5 * (pair_weights * mean_distance(gap, both)).sum((-1, -2))


def tail_loss(logits: Tensor, loc: Tensor, scale: Tensor, probability: Tensor) -> Tensor:
    r"""Return ``-E[r | r <= q]``, q the quantile at `probability`, shape (...).

    By Rockafellar and Uryasev (2000) this is the minimum over q of ``E[(q - r)^+] / p - q``, so
    its first derivatives do not move q at all and its second ones move q once. They are taken
    that way, along the quantile's `Path`: a gradient sent through q would multiply the rounding
    of ``F(q) - p`` by ``1 / f(q)``, which is all there is left of it between distant components.
    First to fourth derivatives are exact.

    Parameters
    ----------
    logits, loc, scale : Tensor, shape (..., component)
        Of one shape; scale > 0, in the unit of `loc`.
    probability : Tensor, shape (...)
        Of the left tail, in (0, 1).

    Raises
    ------
    SpecError
        If a probability is not strictly between 0 and 1.
    """
    path = Path(logits, loc, scale, probability)
    start_logits, start_loc, start_scale, start_probability = path.start
    below = mean_below(path.root.unsqueeze(-1), start_loc, start_scale)
    value = (torch.softmax(start_logits, -1) * below).sum(-1) / start_probability - path.root
    return value + path.integrate([_tail_slopes(*place) for place in path.places])


def _tail_slopes(
    logits: Tensor, loc: Tensor, scale: Tensor, probability: Tensor, quantile: Tensor
) -> Slopes:
    """Return slopes in logits, loc, scale (..., component) and probability (...), q held."""
    standard = (quantile.unsqueeze(-1) - loc) / scale
    weights = torch.softmax(logits, -1)
    tail = weights / probability.unsqueeze(-1)
    below = mean_below(quantile.unsqueeze(-1), loc, scale)
    together = (weights * below).sum(-1)
    return (
        tail * (below - together.unsqueeze(-1)),
        -tail * normal_cdf(standard),
        tail * normal_pdf(standard),
        -together / probability.square(),
    )
