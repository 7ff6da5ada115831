"""Relevance of a date's expected returns back through every network that made them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nfi_pyro.attribution.networks.explained import ExplainedDate
from nfi_pyro.attribution.networks.relevance_gru import share_extractor, trace_gru
from nfi_pyro.attribution.networks.relevance_rules import (
    RelevanceRule,
    Term,
    share_activation,
    share_affine,
    share_linear,
)
from nfi_pyro.linear_factor import LinearFactor
from nfi_pyro.nets.heads import DistributionHead
from nfi_pyro.nets.jets import SMOOTH
from nfi_pyro.nets.predictor import FactorPredictor
from nfi_pyro.nets.pricing import Perceptron
from nfi_pyro.nfi import NFI

LAYERS = ("alpha", "price", "exposure", "recurrence", "projection")
"""Where biases are: alpha's network, the factors' prior, the exposure layer, the extractor."""


class DateRelevance(NamedTuple):
    """Relevance of one date, in units of the model.

    Attributes
    ----------
    cells : Tensor, shape (lag, row, feature)
        Oldest lag first.
    bias : dict of float
        By layer, those of the model alone.
    value : float
        What was shared out: the book's expected return.
    """

    cells: Tensor
    bias: dict[str, float]
    value: float


def share_date(
    rule: RelevanceRule, day: ExplainedDate, weights: Tensor, *, held: bool
) -> DateRelevance:
    """Return the relevance of a book's expected return on one date.

    Parameters
    ----------
    rule : RelevanceRule
    day : ExplainedDate
    weights : Tensor, shape (row,)
    held : bool
        Whether the factors' prior mean is a constant, see `layer_relevance`.
    """
    with torch.no_grad():
        if day.function is not None:
            return _share_given(rule, day, weights)
        return _share_windows(rule, day, weights, held=held)


def share_perceptron(
    rule: RelevanceRule, network: Perceptron, beta: Tensor, weights: Tensor
) -> tuple[Tensor, float, Tensor]:
    """Return what exposures (row, factor) and biases get of ``weights * output``, and the output.

    A linear term of the network's own is a summand of the output and keeps its part.
    """
    smooth = SMOOTH[network.activation]
    first = network.first
    layers = [(first.weight.T, first.bias)]
    layers += [(layer.weight, layer.bias) for layer in network.deeper]  # type: ignore[misc]
    inputs, outputs = [beta], []
    for weight, bias in layers:
        outputs.append(smooth(inputs[-1] @ weight.T + bias)[0])
        inputs.append(outputs[-1])
    value = network.readout(outputs[-1]).squeeze(-1)
    back, own = share_linear(rule, inputs[-1], network.readout, (weights * value).unsqueeze(-1))
    constant = float(own.sum())
    at_zero = float(smooth(torch.zeros(()))[0])
    for (weight, bias), below, output in zip(
        reversed(layers), reversed(inputs[:-1]), reversed(outputs), strict=True
    ):
        back, kept = share_activation(output, at_zero, back)
        (back,), own = share_affine(rule, (Term(below, weight),), bias, back)
        constant += float(kept.sum() + own.sum())
    if network.slope is not None:
        linear = beta * network.slope
        back, value = back + weights.unsqueeze(-1) * linear, value + linear.sum(-1)
    return back, constant, value


def share_head(
    rule: RelevanceRule, head: DistributionHead, inputs: Tensor, relevance: Tensor
) -> tuple[Tensor, float]:
    """Return what inputs (..., in) and biases get of the relevance (...) of a head's loc."""
    hidden = nn.functional.leaky_relu(head.hidden(inputs), head.negative_slope)
    back, last = share_linear(rule, hidden, head.loc, relevance.unsqueeze(-1))
    back, first = share_linear(rule, inputs, head.hidden, back)
    return back, float(first.sum() + last.sum())


def share_predictor(
    rule: RelevanceRule, day: ExplainedDate, relevance: Tensor
) -> tuple[Tensor, float]:
    """Return what states (row, hidden) and biases get of the relevance (factor,) of prior means.

    Attention weights are gates: they get none, the states that they average get all.
    """
    predictor: FactorPredictor = day.model.predictor
    attention, hidden, gates = predictor.attention, day.state, day.gates
    average = gates.T @ hidden  # (head, hidden)
    pooled = torch.einsum("ke,khe->kh", average, attention.value_weight) + attention.value_bias
    back, constant = share_head(rule, predictor.head, pooled, relevance)
    (back,), own = share_affine(
        rule, (Term(average, attention.value_weight),), attention.value_bias, back
    )
    (states,), _ = share_affine(rule, (Term(hidden.T, gates.T),), None, back.T)
    return states.T, constant + float(own.sum())


def _share_given(rule: RelevanceRule, day: ExplainedDate, weights: Tensor) -> DateRelevance:
    """Return the relevance of given exposures: linear prices, or a network's."""
    beta = day.inputs[-1]
    if isinstance(day.model, LinearFactor):
        market, price = day.model.factor_loc[0], day.model.factor_loc[1:]
        cells, constant = weights.unsqueeze(-1) * beta * price, float(weights.sum() * market)
        value = float(weights @ (beta @ price)) + constant
        return DateRelevance(cells[None], {"price": constant}, value)
    network = getattr(day.model, "network", day.model).alpha
    cells, constant, output = share_perceptron(rule, network, beta, weights)
    return DateRelevance(cells[None], {"alpha": constant}, float(weights @ output))


def _share_windows(
    rule: RelevanceRule, day: ExplainedDate, weights: Tensor, *, held: bool
) -> DateRelevance:
    """Return the relevance of features: through alpha, exposures, prior means and the extractor."""
    model, bias = day.model, dict.fromkeys(LAYERS, 0.0)
    trace = trace_gru(model.extractor, day.inputs)
    hidden = trace.states[-1]
    beta, price = model.beta(hidden), day.factors[0]
    priced = weights.unsqueeze(-1) * beta * price  # (row, factor): a product of two signals
    to_beta, states = (priced if held else 0.5 * priced), torch.zeros_like(hidden)
    if isinstance(model, NFI):
        back, bias["alpha"], alpha = share_perceptron(rule, model.network.alpha, beta, weights)
        to_beta = to_beta + back
    else:
        alpha = model.alpha(hidden)[0]
        states, bias["alpha"] = share_head(rule, model.alpha, hidden, weights * alpha)
    if not held:
        back, bias["price"] = share_predictor(rule, day, 0.5 * priced.sum(0))
        states = states + back
    back, own = share_linear(rule, hidden, model.beta, to_beta)
    bias["exposure"] = float(own.sum())
    cells, rest = share_extractor(rule, model.extractor, day.inputs, trace, states + back)
    return DateRelevance(cells, bias | rest, float(weights @ alpha + priced.sum()))
