"""The canonical form of exposures and factors: which of the equivalent laws is reported."""

import torch
from torch import Tensor, nn


class CanonicalForm(nn.Module):
    r"""An invertible map of exposures and factors that leaves every law as it is.

    ``beta' = D beta`` and ``z' = D^{-1} (z + c)``, with D a scaled, signed permutation, and
    ``alpha'(beta') = alpha(beta) - c.beta``: then ``alpha' + beta'.z' = alpha + beta.z``. The
    identity until `set_from` fixes it.

    Parameters
    ----------
    n_factors : int
    """

    order: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, n_factors: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(n_factors))
        self.register_buffer("scale", torch.ones(n_factors))
        self.register_buffer("shift", torch.zeros(n_factors))

    def exposures(self, raw: Tensor) -> Tensor:
        """Return beta' from the network's beta, (..., factor)."""
        return raw[..., self.order] * self.scale

    def raw_exposures(self, beta: Tensor) -> Tensor:
        """Return the network's beta from beta', (..., factor)."""
        return (beta / self.scale)[..., self.order.argsort()]

    def factor_loc(self, raw: Tensor) -> Tensor:
        """Return the loc of z' from that of z, (..., factor)."""
        return (raw + self.shift)[..., self.order] / self.scale

    def factor_scale(self, raw: Tensor) -> Tensor:
        """Return the scale of z' from that of z, (..., factor)."""
        return raw[..., self.order] / self.scale.abs()

    @torch.no_grad()
    def set_from(self, beta: Tensor, alpha: Tensor, factor_scale: Tensor, present: Tensor) -> None:
        """Fix the form from what the networks say on the training dates.

        The pooled regression of alpha on 1 and beta gets slope 0; each factor has a mean prior
        variance of 1 over dates (in training-sd units of return); factors are ordered by the
        cross-sectional second moment of what they explain, and signed so that the average
        exposure is positive.

        Parameters
        ----------
        beta : Tensor, shape (date, asset, factor)
            Raw.
        alpha : Tensor, shape (date, asset)
        factor_scale : Tensor, shape (date, factor)
            Prior scale, raw.
        present : Tensor of bool, shape (date, asset)
        """
        rows, values = beta[present].double(), alpha[present].double()
        gap = rows - rows.mean(0)
        # Least norm: a direction in which exposures do not move has no slope to take out.
        slope = torch.linalg.lstsq(gap.cpu(), values.cpu().unsqueeze(-1), driver="gelsd").solution
        size = factor_scale.double().square().mean(0).sqrt()
        moment = (rows * size).square().mean(0)
        sign = torch.where(rows.mean(0) < 0, -1.0, 1.0).to(size)
        order = torch.argsort(moment, descending=True, stable=True)
        self.order.copy_(order)
        self.scale.copy_((size * sign)[order])
        self.shift.copy_(slope.squeeze(-1))
