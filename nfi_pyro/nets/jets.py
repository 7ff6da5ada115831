"""Value, gradient and Hessian of a perceptron's scalar output, by hand, for many rows at once."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Smooth = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


class Jet(NamedTuple):
    """A function and its first two derivatives at a set of points.

    Attributes
    ----------
    value : Tensor, shape (...)
    gradient : Tensor, shape (..., factor)
    hessian : Tensor, shape (..., factor, factor)
        Symmetric.
    """

    value: Tensor
    gradient: Tensor
    hessian: Tensor


def _tanh(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.tanh(x)
    slope = 1.0 - y.square()
    return y, slope, -2.0 * y * slope


def _silu(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gate = torch.sigmoid(x)
    first = gate * (1.0 - gate)
    second = first * (1.0 - 2.0 * gate)
    return x * gate, gate + x * first, 2.0 * first + x * second


def _softplus(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gate = torch.sigmoid(x)
    return nn.functional.softplus(x), gate, gate * (1.0 - gate)


SMOOTH: dict[str, Smooth] = {"tanh": _tanh, "silu": _silu, "softplus": _softplus}
"""Smooth activations by name: value, first and second derivative.

A ReLU is not among them: its network has no Hessian almost everywhere, and a metric that jumps.
"""


def perceptron_jet(
    point: Tensor, layers: Sequence[tuple[Tensor, Tensor]], readout: Tensor, activation: str
) -> Jet:
    r"""Return value, gradient and Hessian of ``readout . h_L``, without the readout's bias.

    With ``a_l = W_l h_{l-1} + b_l``, ``h_l = phi(a_l)`` and ``h_0`` the point, one pass forward
    gives ``C_l = da_l/dx`` and one pass backward ``u_l``, the slope of the output in h_l. Then the
    gradient is ``C_1' (phi'(a_1) u_1)`` and the Hessian ``sum_l C_l' diag(u_l phi''(a_l)) C_l``:
    no tensor of hidden x factor x factor is ever formed.

    Parameters
    ----------
    point : Tensor, shape (..., factor)
    layers : sequence of (weight, bias)
        Of each hidden layer, in torch's layout (out, in) and (out,); at least one.
    readout : Tensor, shape (hidden,)
        Weights of the output on the last hidden layer.
    activation : str
        One of `SMOOTH`.
    """
    smooth = SMOOTH[activation]
    hidden = point
    slopes: list[Tensor] = []
    bends: list[Tensor] = []
    chains: list[Tensor] = []
    for weight, bias in layers:
        pre = hidden @ weight.T + bias
        if not chains:
            chain = weight.expand(*pre.shape[:-1], *weight.shape)
        else:
            chain = weight @ (slopes[-1].unsqueeze(-1) * chains[-1])
        hidden, slope, bend = smooth(pre)
        slopes.append(slope)
        bends.append(bend)
        chains.append(chain)  # (..., hidden, factor)
    value = hidden @ readout
    upstream = readout.expand_as(hidden)
    hessian = torch.zeros(*value.shape, *(point.shape[-1:] * 2), dtype=point.dtype)
    hessian = hessian.to(point.device)
    for place in reversed(range(len(layers))):
        weighted = (upstream * bends[place]).unsqueeze(-1) * chains[place]
        hessian = hessian + chains[place].transpose(-1, -2) @ weighted
        upstream = (upstream * slopes[place]) @ layers[place][0]
    return Jet(value, upstream, 0.5 * (hessian + hessian.transpose(-1, -2)))


def perceptron_slope(
    point: Tensor, layers: Sequence[tuple[Tensor, Tensor]], readout: Tensor, activation: str
) -> tuple[Tensor, Tensor]:
    """Return value (...) and gradient (..., factor) alone; arguments as in `perceptron_jet`."""
    smooth = SMOOTH[activation]
    hidden, slopes = point, []
    for weight, bias in layers:
        hidden, slope, _ = smooth(hidden @ weight.T + bias)
        slopes.append(slope)
    upstream = readout.expand_as(hidden)
    for (weight, _), slope in zip(reversed(layers), reversed(slopes), strict=True):
        upstream = (upstream * slope) @ weight
    return hidden @ readout, upstream
