"""First and second derivatives of a mixture's parameters by exposure, by hand, for many rows."""

from typing import NamedTuple

import torch
from torch import Tensor

Jets = tuple[Tensor, Tensor, Tensor | None]
"""Logits, loc and log scale with their derivatives: value (..., 3, component), first (..., 3,
component, factor) and second (..., 3, component, factor, factor), None at order 1."""


class VectorJet(NamedTuple):
    """A vector function and its derivatives at a set of points.

    Attributes
    ----------
    value : Tensor, shape (..., component)
    first : Tensor, shape (..., component, factor)
    second : Tensor, shape (..., component, factor, factor), optional
    """

    value: Tensor
    first: Tensor
    second: Tensor | None

    def through(self, value: Tensor, slope: Tensor, bend: Tensor) -> "VectorJet":
        """Return the jet of a function applied to each component, given its two derivatives."""
        first = slope.unsqueeze(-1) * self.first
        if self.second is None:
            return VectorJet(value, first, None)
        second = slope[..., None, None] * self.second + bend[..., None, None] * square(self.first)
        return VectorJet(value, first, second)

    def at(self, components: slice) -> "VectorJet":
        """Return the jet of some of the components."""
        second = None if self.second is None else self.second[..., components, :, :]
        return VectorJet(self.value[..., components], self.first[..., components, :], second)

    def cumulate(self) -> "VectorJet":
        """Return the jet of the running sum over components."""
        second = None if self.second is None else self.second.cumsum(-3)
        return VectorJet(self.value.cumsum(-1), self.first.cumsum(-2), second)

    def __add__(self, other: object) -> "VectorJet":
        """Return the jet of the sum; one component broadcasts."""
        if not isinstance(other, VectorJet):
            return NotImplemented
        second = None
        if self.second is not None and other.second is not None:
            second = self.second + other.second
        return VectorJet(self.value + other.value, self.first + other.first, second)

    def __neg__(self) -> "VectorJet":
        second = None if self.second is None else -self.second
        return VectorJet(-self.value, -self.first, second)


def square(first: Tensor) -> Tensor:
    """Return the outer product of each gradient with itself, (..., factor, factor)."""
    return first.unsqueeze(-1) * first.unsqueeze(-2)


def hidden_jet(
    hidden: tuple[Tensor, Tensor, Tensor], weight: Tensor, head: Tensor, bias: Tensor, order: int
) -> VectorJet:
    r"""Return the jet of a linear head on one hidden layer: ``C phi(W beta + b) + c``.

    The second derivative is ``sum_h C_kh phi''_h W_h W_h'``: one product of matrices.

    Parameters
    ----------
    hidden : tuple of Tensor, each shape (..., hidden)
        The layer's value, slope and bend.
    weight : Tensor, shape (hidden, factor)
    head, bias : Tensor, shape (component, hidden) and (component,)
    order : {1, 2}
    """
    value, slope, bend = hidden
    first = (slope.unsqueeze(-2) * head) @ weight
    second = None
    if order > 1:
        outer = square(weight)
        flat = (bend.unsqueeze(-2) * head) @ outer.flatten(-2)
        second = flat.unflatten(-1, outer.shape[-2:])
    return VectorJet(value @ head.T + bias, first, second)


def weighted_mean(logits: VectorJet, offset: VectorJet) -> VectorJet:
    """Return the jet of ``sum_k softmax(logits)_k offset_k``, with one component."""
    weight = torch.softmax(logits.value, -1)
    column = weight.unsqueeze(-1)
    score = logits.first - (column * logits.first).sum(-2, keepdim=True)  # of the log weights
    value = (weight * offset.value).sum(-1, keepdim=True)
    moved = offset.value.unsqueeze(-1)
    first = (column * (score * moved + offset.first)).sum(-2, keepdim=True)
    if logits.second is None or offset.second is None:
        return VectorJet(value, first, None)
    block = column.unsqueeze(-1)
    bent = logits.second - (block * (logits.second + square(score))).sum(-3, keepdim=True)
    cross = score.unsqueeze(-1) * offset.first.unsqueeze(-2)
    inner = (bent + square(score)) * moved.unsqueeze(-1) + cross + cross.mT + offset.second
    return VectorJet(value, first, (block * inner).sum(-3, keepdim=True))


def join(logits: VectorJet, loc: VectorJet, log_scale: VectorJet) -> Jets:
    """Return the three parameters' jets as one: each part gets an axis of 3."""
    parts = (logits, loc, log_scale)
    second = [part.second for part in parts if part.second is not None]
    return (
        torch.stack([part.value for part in parts], dim=-2),
        torch.stack([part.first for part in parts], dim=-3),
        torch.stack(second, dim=-4) if len(second) == len(parts) else None,
    )
