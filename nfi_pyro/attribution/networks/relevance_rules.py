"""Rules of relevance propagation: how a layer's relevance goes back to what it was made from."""

from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class RelevanceRule(BaseModel):
    r"""How an affine layer ``z_k = sum_j a_j w_jk + b_k`` shares out the relevance R_k.

    With contributions ``c_jk = a_j w_jk``, the bias being one of them, and ``c'_jk`` those with
    the sign of z_k:

    - ``epsilon``: ``R_j = sum_k c_jk / (z_k + e s_k) R_k``, s_k the sign of z_k (1 for 0), e the
      stabiliser, which absorbs ``e / (|z_k| + e)`` of R_k;
    - ``gamma``: ``R_j = sum_k (c_jk + gamma c'_jk) / (z_k + gamma sum_j c'_jk + e s_k) R_k``;
    - ``z_plus``: ``R_j = sum_k c'_jk / (sum_j c'_jk + e s_k) R_k``, the limit of large gamma.

    The last two are the rules of Montavon et al. (2019) where inputs are not negative and z_k is
    positive, as behind ReLU. Activations here have both signs, so contributions are favoured that
    go the way of the output: those that would make a denominator vanish never are.

    Attributes
    ----------
    kind : {"epsilon", "gamma", "z_plus"}
    epsilon : float
        Stabiliser as a share of the layer's largest absolute output, > 0.
    gamma : float
        Of ``gamma``, > 0.

    References
    ----------
    .. [1] Bach, Binder, Montavon, Klauschen, Mueller, Samek (2015). On pixel-wise explanations
       for non-linear classifier decisions by layer-wise relevance propagation. PLoS ONE.
    .. [2] Montavon, Binder, Lapuschkin, Samek, Mueller (2019). Layer-wise relevance propagation:
       an overview.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["epsilon", "gamma", "z_plus"] = "epsilon"
    epsilon: float = Field(default=1e-6, gt=0.0, lt=1.0)
    gamma: float = Field(default=0.25, gt=0.0)

    def describe(self) -> str:
        """Return the rule in words."""
        own = f"gamma {self.gamma:g}, " if self.kind == "gamma" else ""
        return f"{self.kind}, {own}stabiliser {self.epsilon:g} of the largest output"


class Term(NamedTuple):
    """One summand of an affine layer: ``gate * (inputs @ weight.mT)``.

    Attributes
    ----------
    inputs : Tensor, shape (..., in)
    weight : Tensor, shape (..., out, in)
    gate : Tensor, shape (..., out), or None
        What multiplies the sum and is taken as a constant, >= 0; 1 by default.
    """

    inputs: Tensor
    weight: Tensor
    gate: Tensor | None = None


def share_affine(
    rule: RelevanceRule, terms: tuple[Term, ...], bias: Tensor | None, relevance: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Return what each term's inputs and the bias get of a layer's relevance.

    Parameters
    ----------
    rule : RelevanceRule
    terms : tuple of Term
        Their sum and the bias are the layer's output.
    bias : Tensor, shape (..., out), or None
    relevance : Tensor, shape (..., out)

    Returns
    -------
    list of Tensor, each (..., in), and Tensor (..., out)
        Together they are the relevance, but for what the stabiliser absorbs.
    """
    offset = torch.zeros_like(relevance) if bias is None else bias.expand_as(relevance)
    output = offset + sum(_through(term, term.inputs, term.weight) for term in terms)
    sign = torch.where(output < 0, -1.0, 1.0).to(output)
    stabiliser = rule.epsilon * output.abs().amax() * sign
    if rule.kind == "epsilon":
        whole, favoured = 1.0, 0.0
    else:
        whole, favoured = (1.0, rule.gamma) if rule.kind == "gamma" else (0.0, 1.0)
    total = whole * output
    if favoured:
        own = _signed(offset, sign) + sum(_same_sign(term, sign) for term in terms)
        total = total + favoured * own
    # All of a layer may be 0: then nothing came through it, and there is nothing to share.
    share = relevance / torch.where(total + stabiliser == 0.0, 1.0, total + stabiliser)
    found = []
    for term in terms:
        back = whole * term.inputs * _back(term, share, term.weight)
        if favoured:
            back = back + favoured * _back_same_sign(term, share, sign)
        found.append(back)
    return found, share * (whole * offset + favoured * _signed(offset, sign))


def share_linear(
    rule: RelevanceRule, inputs: Tensor, layer: torch.nn.Linear, relevance: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what the inputs (..., in) and the bias (..., out) of a linear layer get."""
    (found,), bias = share_affine(rule, (Term(inputs, layer.weight),), layer.bias, relevance)
    return found, bias


def share_activation(output: Tensor, at_zero: float, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Return what an activation's input gets, and what the activation keeps as a bias.

    All to the input (identity rule) where the activation is 0 at 0. Softplus is not: its value at
    0 is a constant that no input made, so that part of the relevance is a bias.
    """
    if at_zero == 0.0:
        return relevance, torch.zeros_like(relevance)
    kept = relevance * (at_zero / output)
    return relevance - kept, kept


def _through(term: Term, inputs: Tensor, weight: Tensor) -> Tensor:
    """Return what inputs give through a weight, (..., out)."""
    found = (inputs.unsqueeze(-2) @ weight.mT).squeeze(-2)
    return found if term.gate is None else term.gate * found


def _back(term: Term, share: Tensor, weight: Tensor) -> Tensor:
    """Return what comes back through a weight, (..., in)."""
    gated = share if term.gate is None else term.gate * share
    return (gated.unsqueeze(-2) @ weight).squeeze(-2)


def _signed(values: Tensor, sign: Tensor) -> Tensor:
    """Return values where they have the sign, 0 elsewhere."""
    return torch.where(values * sign > 0, values, 0.0)


def _same_sign(term: Term, sign: Tensor) -> Tensor:
    """Return the sum of the contributions that have the sign of the output, (..., out)."""
    up, down = term.weight.clamp(min=0), term.weight.clamp(max=0)
    above, below = term.inputs.clamp(min=0), term.inputs.clamp(max=0)
    raising = _through(term, above, up) + _through(term, below, down)
    lowering = _through(term, above, down) + _through(term, below, up)
    return torch.where(sign > 0, raising, lowering)


def _back_same_sign(term: Term, share: Tensor, sign: Tensor) -> Tensor:
    """Return what comes back by those contributions alone, (..., in)."""
    up, down = term.weight.clamp(min=0), term.weight.clamp(max=0)
    above, below = term.inputs.clamp(min=0), term.inputs.clamp(max=0)
    to_above = torch.where(sign > 0, share, 0.0)
    to_below = torch.where(sign > 0, 0.0, share)
    return above * (_back(term, to_above, up) + _back(term, to_below, down)) + below * (
        _back(term, to_above, down) + _back(term, to_below, up)
    )
