"""The distribution network that the alpha layer and the factor prior share in form."""

from torch import Tensor, nn


class DistributionHead(nn.Module):
    r"""A Gaussian's location and scale from features, by one shared hidden layer.

    ``h = LeakyReLU(W x + b)``, ``loc = w.h + b``, ``scale = softplus(w'.h + b') + floor``
    (FactorVAE, Eq. 10; Eq. 16 uses the same network for the prior). The floor is ours: a scale
    that reaches 0 makes the likelihood unbounded.

    Parameters
    ----------
    in_size, hidden_size : int
        Widths of input and hidden layer.
    scale_floor : float
        Smallest scale, in standardised units.
    negative_slope : float
        Of LeakyReLU.
    """

    def __init__(
        self, in_size: int, hidden_size: int, *, scale_floor: float, negative_slope: float
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_size, hidden_size)
        self.loc = nn.Linear(hidden_size, 1)
        self.raw_scale = nn.Linear(hidden_size, 1)
        self.scale_floor = scale_floor
        self.negative_slope = negative_slope

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return loc and scale, each of shape (...,), from features of shape (..., in_size)."""
        hidden = nn.functional.leaky_relu(self.hidden(features), self.negative_slope)
        scale = nn.functional.softplus(self.raw_scale(hidden)) + self.scale_floor
        return self.loc(hidden).squeeze(-1), scale.squeeze(-1)
