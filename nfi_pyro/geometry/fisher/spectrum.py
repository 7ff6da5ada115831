"""The metric's spectrum relative to a reference, and inverses on the directions that it keeps."""

from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST = torch.finfo(torch.float64).tiny


class Spectrum(NamedTuple):
    """Solutions of ``G x = value Lambda x``, largest first.

    Attributes
    ----------
    values : Tensor, shape (row, factor)
    vectors : Tensor, shape (row, factor, factor)
        One by column, orthonormal in Lambda.
    """

    values: Tensor
    vectors: Tensor

    def kept(self, floor: float, tolerance: float) -> Tensor:
        """Return which directions are above `floor` and `tolerance` times the first."""
        bound = (tolerance * self.values[..., :1]).clamp(min=max(floor, SMALLEST))
        return self.values > bound

    def inverse(self, kept: Tensor) -> Tensor:
        """Return the inverse of G on the kept directions, (row, factor, factor)."""
        weight = torch.where(kept, 1.0 / torch.where(kept, self.values, 1.0), 0.0)
        return (self.vectors * weight.unsqueeze(-2)) @ self.vectors.mT


def condition(values: Tensor) -> Tensor:
    """Return the first of the values (..., factor) by the last; infinite where that is not > 0."""
    last = values[..., -1]
    return torch.where(last > 0, values[..., 0] / last.clamp(min=SMALLEST), torch.inf)


def spectrum(metric: Tensor, reference: Tensor) -> Spectrum:
    """Return the spectrum of `metric` (row, factor, factor) relative to `reference`.

    The reference, Lambda, is positive definite (factor, factor): values do not depend on the units
    of the exposures if it goes with them, as the inverse covariance of exposures does.
    """
    factor = torch.linalg.cholesky(reference)
    half = torch.linalg.solve_triangular(factor, metric, upper=False)
    inner = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    values, vectors = torch.linalg.eigh(0.5 * (inner + inner.mT))
    vectors = torch.linalg.solve_triangular(factor.mT, vectors, upper=True)
    return Spectrum(values.flip(-1), vectors.flip(-1))
