"""Feature extractor: a GRU over windows of consecutive dates that never materialises windows."""

import torch
from torch import Tensor, nn


class WindowedGRU(nn.Module):
    r"""Hidden state of every asset after its last T dates (FactorVAE, Eq. 4).

    ``h_proj = LeakyReLU(W x + b)``, then a GRU over T dates; the last hidden state is ``e``.
    For consecutive dates the windows overlap in T - 1 of T days, so features are projected once
    per (date, asset), the GRU's input gates are computed once per (date, asset), and step ``t``
    of the recurrence reads the slice ``gates[t : t + block]`` for all windows at once. The
    numbers are those of `torch.nn.GRU` on unfolded windows.

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
    asset_chunk : int
        Assets per pass of the recurrence; a chunk of about 128 stays in cache. The result does
        not depend on it beyond rounding.
    """

    def __init__(
        self,
        n_features: int,
        projection_size: int,
        hidden_size: int,
        *,
        negative_slope: float = 0.01,
        asset_chunk: int = 128,
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(n_features, projection_size)
        self.gru = nn.GRUCell(projection_size, hidden_size)  # holds the weights in torch's layout
        self.negative_slope = negative_slope
        self.asset_chunk = asset_chunk

    def forward(self, features: Tensor, block: int) -> Tensor:
        """Return the hidden state after each window.

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
        chunks = torch.split(features, self.asset_chunk, dim=1)
        return torch.cat([self._run(chunk, block) for chunk in chunks], dim=1)

    def _run(self, features: Tensor, block: int) -> Tensor:
        """Return the hidden states of one chunk of assets."""
        size = self.gru.hidden_size
        projected = nn.functional.leaky_relu(self.projection(features), self.negative_slope)
        # The recurrent biases of the reset and update gates only ever add to the input's.
        bias_new = self.gru.bias_hh[2 * size :]
        bias = self.gru.bias_ih + nn.functional.pad(self.gru.bias_hh[: 2 * size], (0, size))
        gates = nn.functional.linear(projected, self.gru.weight_ih, bias)  # (span, asset, 3H)
        lags = features.shape[0] - block + 1
        return _recur(gates, self.gru.weight_hh, bias_new, block, lags)


def _recur(gates: Tensor, weight: Tensor, bias_new: Tensor, block: int, lags: int) -> Tensor:
    """Return the last hidden state (block, asset, hidden) from all input gates (span, asset, 3H).

    Torch's GRU equations, with the reset and update gates first in `gates` and `weight`.
    """
    size, n_assets = weight.shape[1], gates.shape[1]
    weight_gates, weight_new = weight[: 2 * size].t(), weight[2 * size :].t()
    rows = gates.view(-1, 3 * size)  # (span * asset, 3H)
    hidden: Tensor | None = None
    for lag in range(lags):
        step = rows[lag * n_assets : (lag + block) * n_assets]  # (block * asset, 3H)
        if hidden is None:  # h = 0: no products
            reset, update = torch.sigmoid(step[:, : 2 * size]).chunk(2, dim=1)
            new = torch.tanh(torch.addcmul(step[:, 2 * size :], reset, bias_new))
            hidden = new - update * new
            continue
        both = torch.sigmoid(torch.addmm(step[:, : 2 * size], hidden, weight_gates))
        reset, update = both.chunk(2, dim=1)
        recurrent = torch.addmm(bias_new, hidden, weight_new)
        new = torch.tanh(torch.addcmul(step[:, 2 * size :], reset, recurrent))
        hidden = torch.lerp(new, hidden, update)
    return hidden.view(block, n_assets, size)  # type: ignore[union-attr]
