"""Factor encoder: posterior factor moments from portfolios of realised returns."""

import torch
from torch import Tensor, nn

_RIDGE = 1e-3


def masked_softmax(logits: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Return a softmax along `dim` that is exactly 0 where `mask` is false.

    Parameters
    ----------
    logits : Tensor
        Any shape, finite.
    mask : Tensor of bool
        Broadcasts to `logits`.
    dim : int
        Axis that sums to 1, or to 0 where nothing is present.
    """
    filled = torch.where(mask, logits, logits.new_tensor(-1e9))
    return torch.softmax(filled, dim=dim) * mask


class PortfolioEncoder(nn.Module):
    r"""Portfolio layer and mapping layer (FactorVAE, Eq. 6-8).

    The portfolio layer weights the assets of a date by a softmax over *assets* of
    ``W_p e``; absent assets and assets without an observed return get weight exactly 0. (The
    paper's ``b_p`` is the same for every asset of a date, cancels in the softmax, and is left out.)
    The mapping layer turns the M portfolio returns into the posterior factors' moments.

    Parameters
    ----------
    hidden_size, n_portfolios, n_factors : int
        H, M and K.
    scale_floor : float
        Smallest posterior scale, standardised units.
    """

    def __init__(
        self, hidden_size: int, n_portfolios: int, n_factors: int, *, scale_floor: float
    ) -> None:
        super().__init__()
        self.portfolio = nn.Linear(hidden_size, n_portfolios, bias=False)
        self.mapping = MappingLayer(n_portfolios, n_factors, scale_floor=scale_floor)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return portfolio logits (date, asset, portfolio); they know no return."""
        return self.portfolio(hidden)

    def forward(
        self, logits: Tensor, forward_return: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return posterior loc and scale, each (date, factor).

        Parameters
        ----------
        logits : Tensor, shape (date, asset, portfolio)
            From `logits`.
        forward_return : Tensor, shape (date, asset)
            Standardised, 0 where not observed.
        observed : Tensor of bool, shape (date, asset)
            Which returns count.
        """
        weights = masked_softmax(logits, observed.unsqueeze(-1), dim=1)  # (date, asset, M)
        returns = torch.bmm(forward_return.unsqueeze(1), weights).squeeze(1)  # (date, M)
        return self.mapping(returns)


class LeastSquaresEncoder(nn.Module):
    r"""FactorVAE-port: ``y_p = (e'e)^{-1} e'y`` in place of the portfolio layer.

    A small ridge (1e-3 of the mean diagonal) keeps the inverse when a date has fewer assets
    than hidden units or collinear hidden states; the paper states none.

    Parameters
    ----------
    hidden_size, n_factors : int
        H and K.
    scale_floor : float
        Smallest posterior scale, standardised units.
    """

    def __init__(self, hidden_size: int, n_factors: int, *, scale_floor: float) -> None:
        super().__init__()
        self.mapping = MappingLayer(hidden_size, n_factors, scale_floor=scale_floor)

    def forward(
        self, hidden: Tensor, forward_return: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return posterior loc and scale, each (date, factor); `hidden` is (date, asset, H)."""
        present = hidden * observed.unsqueeze(-1)
        gram = present.transpose(1, 2) @ present  # (date, H, H)
        size = gram.shape[-1]
        level = gram.diagonal(dim1=1, dim2=2).mean(-1)[:, None, None]
        eye = torch.eye(size, dtype=gram.dtype, device=gram.device)
        regular = gram + (_RIDGE * level + torch.finfo(gram.dtype).tiny ** 0.5) * eye
        target = (present * forward_return.unsqueeze(-1)).sum(1)  # (date, H)
        returns = torch.linalg.solve(regular, target)
        return self.mapping(returns)


class MappingLayer(nn.Module):
    """Posterior loc and scale from portfolio returns, both affine (FactorVAE, Eq. 8)."""

    def __init__(self, in_size: int, n_factors: int, *, scale_floor: float) -> None:
        super().__init__()
        self.loc = nn.Linear(in_size, n_factors)
        self.raw_scale = nn.Linear(in_size, n_factors)
        self.scale_floor = scale_floor

    def forward(self, returns: Tensor) -> tuple[Tensor, Tensor]:
        """Return loc and scale (date, factor) from portfolio returns (date, portfolio)."""
        scale = nn.functional.softplus(self.raw_scale(returns)) + self.scale_floor
        return self.loc(returns), scale
