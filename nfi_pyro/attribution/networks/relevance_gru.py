"""Relevance back through the feature extractor: a gated recurrence and a projection."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nfi_pyro.attribution.networks.relevance_rules import (
    RelevanceRule,
    Term,
    share_affine,
    share_linear,
)
from nfi_pyro.nets.windowed_gru import WindowedGRU

_SUM = torch.ones(1, 1, dtype=torch.float64)


class GRUTrace(NamedTuple):
    """What a GRU computed at each lag of one window per row, oldest first.

    Attributes
    ----------
    projected : Tensor, shape (lag, row, projection)
        Its inputs.
    states : Tensor, shape (lag + 1, row, hidden)
        Before the first lag (0) and after each.
    reset, update, new : Tensor, shape (lag, row, hidden)
        Gates, and the candidate state.
    """

    projected: Tensor
    states: Tensor
    reset: Tensor
    update: Tensor
    new: Tensor


def trace_gru(extractor: WindowedGRU, features: Tensor) -> GRUTrace:
    """Return what the extractor computes from features (lag, row, feature), without gradients."""
    cell = extractor.gru
    with torch.no_grad():
        projected = nn.functional.leaky_relu(
            extractor.projection(features), extractor.negative_slope
        )
        given = nn.functional.linear(projected, cell.weight_ih, cell.bias_ih)
        states = [projected.new_zeros(features.shape[1], cell.hidden_size)]
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for step in given:
            product = nn.functional.linear(states[-1], cell.weight_hh, cell.bias_hh)
            own, fed = step.chunk(3, -1), product.chunk(3, -1)
            reset, update = (torch.sigmoid(own[k] + fed[k]) for k in (0, 1))
            new = torch.tanh(own[2] + reset * fed[2])
            states.append(new + update * (states[-1] - new))
            parts.append((reset, update, new))
    return GRUTrace(projected, torch.stack(states), *map(torch.stack, zip(*parts, strict=True)))


def share_extractor(
    rule: RelevanceRule,
    extractor: WindowedGRU,
    features: Tensor,
    trace: GRUTrace,
    relevance: Tensor,
) -> tuple[Tensor, dict[str, float]]:
    r"""Return what features (lag, row, feature) get of the last state's relevance (row, hidden).

    Gates get none, the signal gets all (Arras et al. 2017, 2019, for LSTM). The state ``h' = (1 -
    u) n + u h`` is a sum of two signals, weighted by a gate; the candidate's argument ``W_n p + b_n
    + r (U_n h + c_n)`` is an affine layer in the input p and the state h, with the reset gate r
    a constant; tanh passes relevance on. The sum of two is shared by the epsilon rule whatever the
    rule of affine layers, as in Arras et al. The first state is 0 and gets nothing.

    Parameters
    ----------
    rule : RelevanceRule
    extractor : WindowedGRU
    features : Tensor, shape (lag, row, feature)
    trace : GRUTrace
        Of these features.
    relevance : Tensor, shape (row, hidden)

    Returns
    -------
    Tensor, and dict of float
        Relevance of the features; of the biases of ``projection`` and ``recurrence``.

    References
    ----------
    .. [1] Arras, Montavon, Mueller, Samek (2017). Explaining recurrent neural network predictions
       in sentiment analysis. WASSA.
    .. [2] Arras, Arjona-Medina, Widrich, Montavon, Gillhofer, Mueller, Hochreiter, Samek (2019).
       Explaining and interpreting LSTMs.
    """
    cell, size = extractor.gru, extractor.gru.hidden_size
    weight_in, weight_state = cell.weight_ih[2 * size :], cell.weight_hh[2 * size :]
    bias_in, bias_state = cell.bias_ih[2 * size :], cell.bias_hh[2 * size :]
    sum_rule = RelevanceRule(epsilon=rule.epsilon)
    back, recurrence = [], 0.0
    for lag in reversed(range(len(features))):
        before, reset, update = trace.states[lag], trace.reset[lag], trace.update[lag]
        pair = torch.stack([(1.0 - update) * trace.new[lag], update * before], -1)
        (both,), _ = share_affine(
            sum_rule, (Term(pair, _SUM.expand(1, 2)),), None, relevance.unsqueeze(-1)
        )
        new_relevance, kept = both.unbind(-1)
        terms = (
            Term(trace.projected[lag], weight_in),
            Term(before, weight_state, reset),
        )
        (given, fed), bias = share_affine(rule, terms, bias_in + reset * bias_state, new_relevance)
        relevance = kept + fed
        back.append(given)
        recurrence += float(bias.sum())
    own, bias = share_linear(rule, features, extractor.projection, torch.stack(back[::-1]))
    return own, {"recurrence": recurrence, "projection": float(bias.sum())}
