"""A mixture's parameters as functions of exposure, with first and second derivatives."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jacfwd, jacrev, vmap

Pricing = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""beta (..., factor) to logits, loc and log scale of the return, each (..., component)."""

FEW = 4000  # rows times squared factors up to which calls, not numbers, are what costs


class LawJets(NamedTuple):
    """Logits, loc and log scale of a mixture and their derivatives by exposure.

    Attributes
    ----------
    value : Tensor, shape (..., 3, component)
        Logits, loc and log scale, in this order.
    first : Tensor, shape (..., 3, component, factor)
    second : Tensor, shape (..., 3, component, factor, factor), optional
        None where only the first derivative was asked for.
    """

    value: Tensor
    first: Tensor
    second: Tensor | None


def automatic_jets(pricing: Pricing, beta: Tensor, order: int) -> LawJets:
    """Return the jets of any pricing law by `torch.func`.

    Reverse mode of the sum over rows, which are independent; forward over reverse for second
    derivatives of large batches.

    Parameters
    ----------
    pricing : callable
        Differentiable by `torch.func`; a row of its output depends on that row's exposures alone.
    beta : Tensor, shape (row, factor)
    order : {0, 1, 2}
        Highest derivative wanted. At 0 `first` is empty along `factor`.
    """

    def stacked(point: Tensor) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*pricing(point)), dim=-2)

    def slope(points: Tensor) -> Tensor:
        return jacrev(lambda rows: stacked(rows).sum(0))(points)

    value = stacked(beta)
    if order == 0:
        return LawJets(value, value.new_zeros(*value.shape, 0), None)
    first = slope(beta).movedim(-2, 0)
    if order == 1:
        return LawJets(value, first, None)
    n_rows, n_factors = beta.shape
    if n_rows * n_factors**2 <= FEW:
        second = jacrev(lambda rows: slope(rows).sum(-2))(beta).movedim(-2, 0)
    else:
        second = vmap(jacfwd(jacrev(stacked)))(beta)
    return LawJets(value, first, 0.5 * (second + second.mT))
