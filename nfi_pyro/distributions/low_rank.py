"""Covariances of many assets as low rank plus diagonal: all that a date needs, never N x N."""

import math

import torch
from torch import Tensor

from nfi_pyro.errors import ShapeError


def project(beta: Tensor, factors: Tensor) -> Tensor:
    """Return ``sum_k beta_ik factors_k``, shape (date, asset)."""
    return torch.matmul(beta, factors.unsqueeze(-1)).squeeze(-1)


class LowRankPlusDiagonal:
    r"""``C = L L' + diag(d)`` per batch cell, as an operator.

    A product costs O(asset x factor), a solve or the log determinant O(asset x factor^2), by the
    Woodbury identity and the determinant lemma with ``M = I + L' diag(d)^{-1} L`` (factor x
    factor). Differentiable in loadings and diagonal.

    Parameters
    ----------
    loadings : Tensor, shape (..., asset, factor)
        Exposure times factor standard deviation, in the unit of the return.
    diagonal : Tensor, shape (..., asset)
        Specific variance, > 0, in that unit squared.

    Raises
    ------
    ShapeError
        If loadings and diagonal disagree on the assets.
    """

    def __init__(self, loadings: Tensor, diagonal: Tensor) -> None:
        if loadings.shape[:-1] != diagonal.shape:
            raise ShapeError(
                "loadings must be (..., asset, factor) and diagonal (..., asset) of the same "
                f"assets; got {tuple(loadings.shape)} and {tuple(diagonal.shape)}. Broadcast one."
            )
        self.loadings, self.diagonal = loadings, diagonal

    @property
    def variance(self) -> Tensor:
        """Variance of each asset, the diagonal of C, shape (..., asset)."""
        return self.loadings.square().sum(-1) + self.diagonal

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``C v``, shape (..., asset); leading axes broadcast, here and below."""
        return project(self.loadings, self._to_factors(vector)) + self.diagonal * vector

    def quadratic(self, vector: Tensor) -> Tensor:
        """Return ``v' C v``, shape (...): the variance of a portfolio of these weights."""
        own = (self.diagonal * vector.square()).sum(-1)
        return self._to_factors(vector).square().sum(-1) + own

    def solve(self, vector: Tensor) -> Tensor:
        """Return ``C^{-1} v``, shape (..., asset)."""
        scaled = vector / self.diagonal
        inner = torch.cholesky_solve(self._to_factors(scaled).unsqueeze(-1), self._root())
        return scaled - project(self.loadings, inner.squeeze(-1)) / self.diagonal

    def inverse_quadratic(self, vector: Tensor) -> Tensor:
        """Return ``v' C^{-1} v``, shape (...), as a difference of squares."""
        scaled = vector / self.diagonal
        half = torch.linalg.solve_triangular(
            self._root(), self._to_factors(scaled).unsqueeze(-1), upper=False
        )
        return (vector * scaled).sum(-1) - half.square().sum((-1, -2))

    def log_determinant(self) -> Tensor:
        """Return ``log |C|``, shape (...)."""
        inner = self._root().diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return 2.0 * inner + self.diagonal.log().sum(-1)

    def log_prob(self, deviation: Tensor, observed: Tensor | None = None) -> Tensor:
        """Return ``log N(deviation | 0, C)`` in nats, shape (...).

        Parameters
        ----------
        deviation : Tensor, shape (..., asset)
            Return less its mean, finite everywhere (any number where not observed).
        observed : Tensor of bool, shape (..., asset), optional
            Which assets count: the law of the others is integrated out. All by default. Exactly
            0 where none is observed.
        """
        constant = math.log(2.0 * math.pi)
        if observed is None:
            count = self.diagonal.shape[-1]
            squares, log_determinant = self.inverse_quadratic(deviation), self.log_determinant()
            return -0.5 * (squares + log_determinant + count * constant)
        # An asset left out has no loading, unit variance and no surprise: it adds nothing.
        kept = LowRankPlusDiagonal(
            torch.where(observed.unsqueeze(-1), self.loadings, 0.0),
            torch.where(observed, self.diagonal, 1.0),
        )
        squares = kept.inverse_quadratic(torch.where(observed, deviation, 0.0))
        present = observed.sum(-1).to(deviation.dtype)
        return -0.5 * (squares + kept.log_determinant() + present * constant)

    def draw(self, draws: int, *, seed: int) -> Tensor:
        """Return draws of N(0, C), shape (draw, ..., asset), without derivatives.

        Torch's own generator is not touched.
        """
        with torch.no_grad():
            loadings, diagonal = self.loadings, self.diagonal
            generator = torch.Generator(device=loadings.device).manual_seed(seed)

            def normal(*shape: int) -> Tensor:
                size = (draws, *diagonal.shape[:-1], *shape)
                return torch.randn(
                    size, generator=generator, dtype=loadings.dtype, device=loadings.device
                )

            shared = project(loadings, normal(loadings.shape[-1]))
            return shared + diagonal.sqrt() * normal(loadings.shape[-2])

    def dense(self) -> Tensor:
        """Return the whole matrix, shape (..., asset, asset); for small universes and tests."""
        return self.loadings @ self.loadings.mT + torch.diag_embed(self.diagonal)

    def _to_factors(self, vector: Tensor) -> Tensor:
        """Return ``L' v``, shape (..., factor)."""
        return project(self.loadings.mT, vector)

    def _root(self) -> Tensor:
        """Return the Cholesky factor of M, shape (..., factor, factor)."""
        scaled = self.loadings / self.diagonal.unsqueeze(-1)
        eye = torch.eye(
            self.loadings.shape[-1], dtype=self.loadings.dtype, device=self.loadings.device
        )
        return torch.linalg.cholesky(eye + self.loadings.mT @ scaled)
