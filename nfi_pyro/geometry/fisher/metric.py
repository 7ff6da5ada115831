"""The Fisher metric of a pricing law, damped by a constant prior precision, and its connection."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from nfi_pyro.distributions.law_jets import LawJets, Pricing, automatic_jets
from nfi_pyro.errors import SpecError, name_places
from nfi_pyro.geometry.fisher.embedding import (
    OnNodes,
    along,
    bend_coefficients,
    bends,
    on_nodes,
    slope_coefficients,
    tangents,
)
from nfi_pyro.geometry.fisher.nodes import PanelRule, panel_nodes
from nfi_pyro.geometry.fisher.spectrum import Spectrum, spectrum

Parts = TypeVar("Parts", Tensor, tuple[Tensor, ...])
MOST_NUMBERS = 4_000_000  # of a tensor over rows, pairs of factors and nodes: 32 MB
MOST_ROWS = 128


@dataclass(frozen=True)
class Local:
    """The embedding's derivatives at some rows, on the rows' own nodes.

    Attributes
    ----------
    on : OnNodes
    tangent : Tensor, shape (row, factor, node)
        ``psi_i``.
    metric : Tensor, shape (row, factor, factor)
        ``<psi_i, psi_j>``, not damped.
    """

    on: OnNodes
    tangent: Tensor
    metric: Tensor


@dataclass(frozen=True)
class DampedLaw:
    """A pricing law with the damped metric ``G + eps Lambda``; rows of exposures in, tensors out.

    The metric is the one that the map ``beta -> (psi(beta), sqrt(eps) Lambda^1/2 beta)`` induces,
    so damping leaves the connection's first kind as it is.

    Attributes
    ----------
    pricing : callable
        beta (..., factor) to logits, loc and log scale. Its own `jets` are used if it has them.
    eps : float
    reference : Tensor, shape (factor, factor)
        Lambda.
    rule : PanelRule
    rank_tol : float
        Smallest eigenvalue of G that counts, relative to the largest, where G is inverted.
    incomplete : bool
        Whether a metric that is not damped may be singular; it is then inverted on its image.
    """

    pricing: Pricing
    eps: float
    reference: Tensor
    rule: PanelRule
    rank_tol: float
    incomplete: bool

    def jets(self, beta: Tensor, order: int) -> LawJets:
        """Return the law's parameters with derivatives at rows (row, factor)."""
        own: Callable[[Tensor, int], LawJets] | None = getattr(self.pricing, "jets", None)
        if own is None or order == 0:
            return automatic_jets(self.pricing, beta, order)
        return own(beta, order)

    def local(self, jets: LawJets) -> Local:
        """Return the embedding's derivatives, those of second order left to `bends`."""
        on = self.on_own_nodes(jets)
        tangent = tangents(on, slope_coefficients(jets))
        return Local(on, tangent, tangent @ tangent.mT)

    def on_own_nodes(self, jets: LawJets) -> OnNodes:
        """Return the law at each row on the nodes of that row's components."""
        _, loc, log_scale = jets.value.unbind(-2)
        nodes, weights = panel_nodes(loc, log_scale, self.rule)
        return on_nodes(jets.value, nodes, weights, 1 if jets.second is None else 2)

    def damped(self, metric: Tensor) -> Tensor:
        """Return ``G + eps Lambda``."""
        return metric + self.eps * self.reference

    def metric(self, beta: Tensor) -> Tensor:
        """Return G, not damped, (row, factor, factor)."""

        def one(rows: Tensor) -> Tensor:
            jets = self.jets(rows, 1)
            slopes = slope_coefficients(jets)
            n_slopes, n_factors = slopes.shape[-2:]
            if n_slopes**2 > n_factors * (n_slopes + n_factors):  # fewer factors than parameters
                return self.local(jets).metric
            on = self.on_own_nodes(jets)
            found = slopes.mT @ (on.basis @ on.basis.mT @ slopes)
            return 0.5 * (found + found.mT)

        return self.by_chunk(one, beta)

    def christoffel(self, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Return G and ``Gamma_{m,ij}`` with pairs i <= j, (row, factor, pair)."""

        def one(rows: Tensor) -> tuple[Tensor, ...]:
            jets = self.jets(rows, 2)
            local = self.local(jets)
            bent = bends(local.on, bend_coefficients(jets), local.tangent)
            return local.metric, local.tangent @ bent.mT

        metric, gamma = self.by_chunk(one, beta, pairs=True)
        return metric, gamma

    def acceleration(self, beta: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """Return the acceleration of the geodesic at rows, and its squared speed there."""

        def one(rows: Tensor, speed: Tensor) -> tuple[Tensor, ...]:
            jets = self.jets(rows, 2)
            local = self.local(jets)
            line = along(jets, speed.unsqueeze(-1))
            moved = speed.unsqueeze(-2) @ local.tangent
            bent = bends(local.on, bend_coefficients(line), moved)
            pull = local.tangent @ bent.mT
            metric = self.damped(local.metric)
            squared = (speed.unsqueeze(-2) @ metric @ speed.unsqueeze(-1)).flatten()
            return -self.solve(local.metric, pull).squeeze(-1), squared

        found, squared = self.by_chunk(one, beta, velocity)
        return found, squared

    def squared_speed(self, beta: Tensor, velocity: Tensor) -> Tensor:
        """Return the squared length of vectors in the damped metric, (row,)."""

        def one(rows: Tensor, speed: Tensor) -> Tensor:
            jets = along(self.jets(rows, 1), speed.unsqueeze(-1))
            return self.local(jets).metric.flatten()

        return self.by_chunk(one, beta, velocity) + self.flat(velocity)

    def flat(self, vector: Tensor) -> Tensor:
        """Return the damping's part of the squared length of vectors (..., factor)."""
        return self.eps * ((vector @ self.reference) * vector).sum(-1)

    def solve(self, metric: Tensor, right: Tensor) -> Tensor:
        """Return ``(G + eps Lambda)^-1 right`` (row, factor, column), given G.

        By a Cholesky factor: `torch.linalg.solve` is silently wrong inside some transforms of
        torch 2.13. A metric that is not damped is inverted on its image. A row that is not finite
        gives NaN.
        """
        if self.eps > 0:
            return torch.cholesky_solve(right, self.cholesky(metric))
        return self.inverse(metric) @ right

    def cholesky(self, metric: Tensor) -> Tensor:
        """Return the lower factor of ``G + eps Lambda``; NaN in a row that is not finite."""
        finite = torch.isfinite(metric).all(-1, keepdim=True).all(-2, keepdim=True)
        matrix = torch.where(finite, self.damped(metric), self.reference)
        return torch.where(finite, torch.linalg.cholesky(matrix), torch.nan)

    def inverse(self, metric: Tensor) -> Tensor:
        """Return ``(G + eps Lambda)^-1``, (row, factor, factor), given G.

        Raises
        ------
        SpecError
            If G is singular, not damped, and no leave was given to invert it on its image.
        """
        if self.eps > 0:
            return torch.cholesky_inverse(self.cholesky(metric))
        finite = torch.isfinite(metric).all(-1).all(-1)
        found = self.spectrum(torch.where(finite[:, None, None], metric, self.reference))
        kept = found.kept(0.0, self.rank_tol)
        if not self.incomplete:
            self.require_definite(metric)
        return torch.where(finite[:, None, None], found.inverse(kept), torch.nan)

    def require_definite(self, metric: Tensor) -> None:
        """Refuse a G (row, factor, factor) that is singular and not damped.

        Raises
        ------
        SpecError
            Names the rows.
        """
        if self.eps > 0:
            return
        kept = self.spectrum(metric).kept(0.0, self.rank_tol)
        if not bool(kept.all()):
            rows = (~kept.all(-1)).nonzero().flatten().tolist()
            raise SpecError(
                f"a metric without damping must have full rank {metric.shape[-1]}; got rank "
                f"{int(kept.sum(-1).min())} at row {name_places(rows)}. Use eps > 0, or "
                "allow_incomplete=True where a singular metric can be inverted on its image."
            )

    def spectrum(self, metric: Tensor) -> Spectrum:
        """Return the spectrum of G relative to Lambda."""
        return spectrum(metric, self.reference)

    def by_chunk(self, evaluate: Callable[..., Parts], *rows: Tensor, pairs: bool = False) -> Parts:
        """Return `evaluate` of a few rows at a time, which stay in cache, joined again."""
        n_factors, size = rows[0].shape[-1], MOST_ROWS
        if pairs:
            width = n_factors * (n_factors + 1) // 2
            n_nodes = 4 * len(self.rule.breaks) * self.rule.order  # of 4 components
            size = max(1, min(size, MOST_NUMBERS // (width * n_nodes)))
        if len(rows[0]) <= size:
            return evaluate(*rows)
        parts = [evaluate(*chunk) for chunk in zip(*(r.split(size) for r in rows), strict=True)]
        if isinstance(parts[0], Tensor):
            return torch.cat([part for part in parts if isinstance(part, Tensor)])
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))
