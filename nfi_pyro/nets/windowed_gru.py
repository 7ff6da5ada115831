"""Feature extractor: a GRU over windows of consecutive dates that never materialises windows."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

CACHED_ROWS = 1024  # windows per pass whose gates and states of one lag stay in a core's cache


class WindowedGRU(nn.Module):
    r"""Hidden state of every asset after its last T dates (FactorVAE, Eq. 4).

    ``h_proj = LeakyReLU(W x + b)``, then a GRU over T dates; the last hidden state is ``e``.
    For consecutive dates the windows overlap in T - 1 of T days, so features are projected once
    per (date, asset), the GRU's input gates are computed once per (date, asset), and step ``t``
    of the recurrence reads the slice of gates of the dates ``t : t + block`` for all windows at
    once. The numbers are those of `torch.nn.GRU` on unfolded windows.

    Assets are independent, so they pass a chunk at a time, in a gate-major layout (gate, date x
    asset) in which every gate is one contiguous block and every slice of dates a range of columns.

    Parameters
    ----------
    n_features : int
        C.
    projection_size : int
        Width of the projection.
    hidden_size : int
        H.
    negative_slope : float
        Of LeakyReLU; the paper gives none, 0.01 is torch's default.
    asset_chunk : int, optional
        Most assets per pass of the recurrence. By default as many as make 1024 windows with
        the block's dates, which stay in cache. The result does not depend on it beyond rounding.
    """

    def __init__(
        self,
        n_features: int,
        projection_size: int,
        hidden_size: int,
        *,
        negative_slope: float = 0.01,
        asset_chunk: int | None = None,
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(n_features, projection_size)
        self.gru = nn.GRUCell(projection_size, hidden_size)  # holds the weights in torch's layout
        self.negative_slope = negative_slope
        self.asset_chunk = asset_chunk

    def forward(self, features: Tensor, block: int) -> Tensor:
        """Return the hidden state after each window.

        Differentiable in features and weights, also by `torch.func` (grad, vjp, jacrev; no vmap
        over inputs). With ``create_graph`` the recurrence runs again by plain operations, so
        second derivatives are right and slower.

        Parameters
        ----------
        features : Tensor, shape (block + lags - 1, asset, feature)
            Standardised features of consecutive dates, finite.
        block : int
            Number of windows, one per date, at the end of `features`.

        Returns
        -------
        Tensor, shape (block, asset, hidden)
        """
        n_assets = features.shape[1]
        most = self.asset_chunk or max(1, CACHED_ROWS // block)
        chunks = torch.chunk(features, max(1, -(-n_assets // most)), dim=1)  # of nearly equal size
        return torch.cat([self._run(chunk, block) for chunk in chunks], dim=1)

    def _run(self, features: Tensor, block: int) -> Tensor:
        """Return the hidden states (block, asset, hidden) of one chunk of assets."""
        span, n_assets, _ = features.shape
        cell, size = self.gru, self.gru.hidden_size
        columns = features.flatten(0, 1).t()  # (feature, span * asset)
        projected = torch.addmm(self.projection.bias[:, None], self.projection.weight, columns)
        projected = nn.functional.leaky_relu(projected, self.negative_slope)
        # The recurrent biases of the reset and update gates only ever add to the input's.
        bias_new = cell.bias_hh[2 * size :]
        bias = cell.bias_ih + nn.functional.pad(cell.bias_hh[: 2 * size], (0, size))
        gates = torch.addmm(bias[:, None], cell.weight_ih, projected)  # (3H, span * asset)
        lags = span - block + 1
        hidden = _Recurrence.apply(gates, cell.weight_hh, bias_new, block * n_assets, lags)[0]
        return hidden.view(size, block, n_assets).permute(1, 2, 0)


class _Recurrence(torch.autograd.Function):
    r"""All lags of a GRU: last hidden state (H, row) from gates (3H, column); row = date x asset.

    ``r, u = sigmoid(g_ru + W_ru h)``, ``n = tanh(g_n + r (W_n h + b_n))``,
    ``h' = n + u (h - n)``; lag t reads the columns ``t * step : t * step + row``.
    Written by hand because autograd pads the gradient of each lag's slice to all columns; in
    place in buffers that are reused while in cache. The states of all lags are returned only
    so that they can be saved (`setup_context`, which torch.func asks for).
    """

    @staticmethod
    def forward(
        gates: Tensor, weight: Tensor, bias_new: Tensor, n_rows: int, lags: int
    ) -> tuple[Tensor, ...]:
        """Return the last state; then all states from 0 on, and r and u, W_n h + b_n, n by lag."""
        size = weight.shape[1]
        states = gates.new_empty(lags + 1, size, n_rows)
        both = gates.new_empty(lags, 2 * size, n_rows)
        inner, new = torch.empty_like(states[1:]), torch.empty_like(states[1:])
        states[0] = 0.0
        step = _column_step(gates, n_rows, lags)
        for lag in range(lags):
            given, hidden = gates[:, lag * step : lag * step + n_rows], states[lag]
            if lag:
                torch.addmm(given[: 2 * size], weight[: 2 * size], hidden, out=both[lag])
                torch.addmm(bias_new[:, None], weight[2 * size :], hidden, out=inner[lag])
            else:  # h = 0: no products
                both[lag], inner[lag] = given[: 2 * size], bias_new[:, None]
            reset, update = both[lag].sigmoid_().chunk(2)
            torch.addcmul(given[2 * size :], reset, inner[lag], out=new[lag])
            # tanh(x) = 2 sigmoid(2x) - 1, to one rounding of 1: torch's tanh takes 5 times longer.
            new[lag].mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)
            torch.lerp(new[lag], hidden, update, out=states[lag + 1])
        return states[lags].clone(), states, both, inner, new

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Save what `backward` reads."""
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # or torch makes zero gradients of all the states
        ctx.save_for_backward(*inputs[:3], *output[1:])
        ctx.n_rows, ctx.lags = inputs[3:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        """Return the gradients of gates, weight and bias."""
        if grad is None:
            return (None,) * 5
        gates, weight, bias_new, states, both, inner, new = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative may follow: leave it to torch
            plain = partial(_recur, n_rows=ctx.n_rows, lags=ctx.lags)
            return *torch.func.vjp(plain, gates, weight, bias_new)[1](grad), None, None
        size, step = weight.shape[1], _column_step(gates, ctx.n_rows, ctx.lags)
        gates_grad, weight_grad = torch.zeros_like(gates), torch.zeros_like(weight)
        bias_grad = weight.new_zeros(size)
        local = gates.new_empty(3 * size, ctx.n_rows)  # of r, u, n before their nonlinearity
        local_reset, local_update, local_new = local.chunk(3)
        grad, carried = grad.clone(memory_format=torch.contiguous_format), torch.empty_like(grad)
        for lag in reversed(range(ctx.lags)):
            hidden, (reset, update) = states[lag], both[lag].chunk(2)
            torch.sub(hidden, new[lag], out=local_update).mul_(grad)
            torch.mul(grad, update, out=carried)
            grad.sub_(carried)
            torch.ops.aten.tanh_backward.grad_input(grad, new[lag], grad_input=local_new)
            torch.mul(local_new, inner[lag], out=local_reset)
            gated = local[: 2 * size]
            torch.ops.aten.sigmoid_backward.grad_input(gated, both[lag], grad_input=gated)
            gates_grad[:, lag * step : lag * step + ctx.n_rows].add_(local)
            local_new.mul_(reset)  # now of the recurrent part of n
            bias_grad.add_(local_new.sum(1))
            if lag:
                weight_grad.addmm_(local, hidden.t())
                carried.addmm_(weight.t(), local)
                grad, carried = carried, grad
        return gates_grad, weight_grad, bias_grad, None, None


def _recur(gates: Tensor, weight: Tensor, bias_new: Tensor, n_rows: int, lags: int) -> Tensor:
    """Return the last state as `_Recurrence` does, by operations that torch differentiates."""
    size, step = weight.shape[1], _column_step(gates, n_rows, lags)
    hidden = gates.new_zeros(size, n_rows)
    for lag in range(lags):
        given = gates[:, lag * step : lag * step + n_rows]
        product = weight @ hidden
        reset, update = torch.sigmoid(given[: 2 * size] + product[: 2 * size]).chunk(2)
        inner = product[2 * size :] + bias_new[:, None]
        new = torch.tanh(given[2 * size :] + reset * inner)
        hidden = new + update * (hidden - new)
    return hidden


def _column_step(gates: Tensor, n_rows: int, lags: int) -> int:
    """Return the columns of one date: ``n_rows`` is block dates, all columns block + lags - 1."""
    return (gates.shape[1] - n_rows) // (lags - 1) if lags > 1 else n_rows
