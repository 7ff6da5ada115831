"""Noise of one scale for all assets and dates."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nfi_pyro.nets.law_jets import Jets, VectorJet, join
from nfi_pyro.nets.pricing import SpecificLaw


class ConstantNoise(nn.Module):
    """Zero-mean noise as a fixed scale mixture of normals with one learned scale.

    Parameters
    ----------
    weights, multiples : sequence of float, shape (component,)
        Of the mixture: weights that sum to 1, and scales in units of the learned one. A single
        1 and 1 is normal noise; `nfi_pyro.distributions.scale_mixture` has those of Student-t.
    scale_floor : float
        Smallest scale, in units of the training return scale.
    """

    log_weights: Tensor
    multiples: Tensor

    def __init__(
        self, weights: Sequence[float], multiples: Sequence[float], *, scale_floor: float
    ) -> None:
        super().__init__()
        self.raw_scale = nn.Parameter(torch.tensor(0.5))
        self.scale_floor = scale_floor
        log_weights = torch.tensor(list(weights), dtype=torch.float64).log()
        self.register_buffer("log_weights", log_weights.float(), persistent=False)
        self.register_buffer(
            "multiples", torch.tensor(list(multiples), dtype=torch.float32), persistent=False
        )

    @property
    def scale(self) -> Tensor:
        """The learned scale, shape (), > 0."""
        return nn.functional.softplus(self.raw_scale) + self.scale_floor

    def forward(self, mean: Tensor) -> SpecificLaw:
        """Return the mixture around `mean` (...), each part (..., component)."""
        shape = (*mean.shape, len(self.multiples))
        return SpecificLaw(
            self.log_weights.expand(shape),
            mean.unsqueeze(-1).expand(shape),
            (self.scale * self.multiples).expand(shape),
        )

    def jets(self, mean: VectorJet) -> Jets:
        """Return logits, loc and log scale with their derivatives, given those of the mean."""
        logits, _, scale = self(mean.value.squeeze(-1))
        flat = torch.zeros_like(mean.first).expand(*logits.shape, -1)
        bent = None
        if mean.second is not None:
            bent = flat.unsqueeze(-1).expand(*flat.shape, flat.shape[-1])
        still = VectorJet(torch.zeros_like(logits), flat, bent)
        loc = mean + still
        return join(VectorJet(logits, flat, bent), loc, VectorJet(scale.log(), flat, bent))
