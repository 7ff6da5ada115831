"""Factor predictor: prior factor moments by multi-head global attention over the assets."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nfi_pyro.nets.heads import DistributionHead

CACHED_ROWS = 256  # rows (date, asset) per pass whose keys stay in a core's cache


class Trunk(NamedTuple):
    """What the last layers of a model take."""

    hidden: Tensor  # state of each asset, (date, asset, hidden)
    pooled: Tensor  # representations of the market, (date, head, hidden), see `GlobalAttention`


class GlobalAttention(nn.Module):
    r"""One global representation of the market per head (FactorVAE, Eq. 14-15).

    ``a_i = max(0, cos(q, k_i)) / sum_i max(0, cos(q, k_i))`` over the assets present, with
    ``k = W_key e + b_key``, ``v = W_value e + b_value``, and ``h = sum_i a_i v_i``. There is no
    softmax after the ReLU. Where no score is positive the weights are uniform over the assets
    present (the paper leaves 0/0 open); an empty date has weight 0 everywhere.

    Values enter only through ``sum_i a_i e_i``, so no (date, asset, head, hidden) value tensor
    exists; keys are needed for their norms alone and are made a chunk at a time.

    Parameters
    ----------
    hidden_size, n_heads : int
        H and K (one head per factor).
    asset_chunk : int, optional
        Assets per pass of the key norms, for all dates. By default 256 rows (date, asset),
        whose keys stay in cache. The result does not depend on it beyond rounding.
    """

    def __init__(self, hidden_size: int, n_heads: int, *, asset_chunk: int | None = None) -> None:
        super().__init__()
        bound = hidden_size**-0.5
        self.query = nn.Parameter(torch.randn(n_heads, hidden_size))
        self.key = nn.Linear(hidden_size, n_heads * hidden_size)
        self.value_weight = nn.Parameter(
            torch.empty(n_heads, hidden_size, hidden_size).uniform_(-bound, bound)
        )
        self.value_bias = nn.Parameter(torch.empty(n_heads, hidden_size).uniform_(-bound, bound))
        self.asset_chunk = asset_chunk

    def weights(self, hidden: Tensor, present: Tensor) -> Tensor:
        """Return attention weights (date, asset, head); they sum to 1 over the assets present.

        Parameters
        ----------
        hidden : Tensor, shape (date, asset, hidden)
        present : Tensor of bool, shape (date, asset)
        """
        scores = self._cosine(hidden)
        scores = torch.relu(scores) * present.unsqueeze(-1)
        total = scores.sum(1, keepdim=True)  # (date, 1, head)
        count = present.sum(1).clamp(min=1)[:, None, None]
        uniform = present.unsqueeze(-1).to(scores.dtype) / count
        return torch.where(total > 0, scores / torch.where(total > 0, total, 1.0), uniform)

    def _cosine(self, hidden: Tensor) -> Tensor:
        """Return cos(q, k_i), shape (date, asset, head)."""
        n_heads, size = self.query.shape
        unit = self.query / torch.linalg.vector_norm(self.query, dim=-1, keepdim=True)
        # q.(W e + b) = e.(W'q) + q.b: a product with H x head instead of H x (head * H).
        weight = self.key.weight.view(n_heads, size, -1)
        projected = torch.einsum("khe,kh->ek", weight, unit)  # (H, head)
        offset = (self.key.bias.view(n_heads, size) * unit).sum(-1)
        return (hidden @ projected + offset) / self._key_norm(hidden).clamp_min(1e-12)

    def _key_norm(self, hidden: Tensor) -> Tensor:
        """Return |k_i|, shape (date, asset, head), a chunk of rows of all dates at a time."""
        n_rows = self.asset_chunk * hidden.shape[0] if self.asset_chunk else CACHED_ROWS
        norms = [
            torch.linalg.vector_norm(self.key(rows).unflatten(-1, self.query.shape), dim=-1)
            for rows in torch.split(hidden.flatten(0, 1), n_rows)
        ]
        return torch.cat(norms).unflatten(0, hidden.shape[:2])

    def forward(self, hidden: Tensor, present: Tensor) -> Tensor:
        """Return the market's representations, shape (date, head, hidden)."""
        weights = self.weights(hidden, present)
        pooled = torch.bmm(weights.transpose(1, 2), hidden)  # (date, head, H)
        return torch.einsum("dke,khe->dkh", pooled, self.value_weight) + self.value_bias


class FactorPredictor(nn.Module):
    """Prior factor loc and scale from hidden states alone (FactorVAE, Eq. 13-16).

    One attention head per factor; one distribution network, shared by the heads, with the
    LeakyReLU hidden layer of Eq. 10.

    Parameters
    ----------
    hidden_size, n_factors, prior_hidden_size : int
        H, K and the width of the distribution network.
    scale_floor, negative_slope : float
        See `DistributionHead`.
    """

    def __init__(
        self,
        hidden_size: int,
        n_factors: int,
        prior_hidden_size: int,
        *,
        scale_floor: float,
        negative_slope: float,
    ) -> None:
        super().__init__()
        self.attention = GlobalAttention(hidden_size, n_factors)
        self.head = DistributionHead(
            hidden_size,
            prior_hidden_size,
            scale_floor=scale_floor,
            negative_slope=negative_slope,
        )

    def forward(self, hidden: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return prior loc and scale, each (date, factor).

        Parameters
        ----------
        hidden : Tensor, shape (date, asset, hidden)
        present : Tensor of bool, shape (date, asset)
            Tradable assets; known at the close.
        """
        return self.head(self.attention(hidden, present))
