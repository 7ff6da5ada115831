"""Divergence, Laplacian and natural gradient of fields of exposure; rows of exposures in."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jacfwd, vmap

from nfi_pyro.geometry.fisher.embedding import unpack
from nfi_pyro.geometry.fisher.metric import DampedLaw

Field = Callable[[Tensor], Tensor]


def divergence(law: DampedLaw, field: Field, beta: Tensor) -> Tensor:
    """Return ``d_i V^i + V^i Gamma^k_ki`` of a vector field at rows, (row,).

    No log-determinant: the trace of the connection is exact, and torch 2.13 differentiates
    determinants wrongly inside some transforms.
    """
    spread = vmap(jacfwd(field))(beta).diagonal(dim1=-2, dim2=-1).sum(-1)
    return spread + (volume_slope(law, beta) * field(beta)).sum(-1)


def volume_slope(law: DampedLaw, beta: Tensor) -> Tensor:
    """Return ``Gamma^k_ki``, the gradient of the log volume density, (row, factor)."""
    metric, pairs = law.christoffel(beta)
    inverse = law.inverse(metric)
    return torch.einsum("nkm,nmki->ni", inverse, unpack(pairs, beta.shape[-1]))


def laplacian(law: DampedLaw, function: Field, beta: Tensor) -> Tensor:
    """Return ``G^{ij} (d_ij f - Gamma^k_ij d_k f)`` of a function at rows, (row,).

    The divergence of its natural gradient, without a derivative of the metric's inverse.
    """
    slope, bend = vmap(grad(function))(beta), vmap(jacfwd(grad(function)))(beta)
    metric, pairs = law.christoffel(beta)
    inverse = law.inverse(metric)
    raised = (inverse @ slope.unsqueeze(-1)).squeeze(-1)
    gamma = torch.einsum("nm,nmij->nij", raised, unpack(pairs, beta.shape[-1]))
    return torch.einsum("nij,nij->n", inverse, bend - gamma)


def natural_gradient(law: DampedLaw, function: Field, beta: Tensor) -> Tensor:
    """Return the gradient with its index raised, (row, factor)."""
    slope = vmap(grad(function))(beta)
    return law.solve(law.metric(beta), slope.unsqueeze(-1)).squeeze(-1)


def christoffel(law: DampedLaw, beta: Tensor, *, raised: bool) -> Tensor:
    """Return Christoffel symbols of the second or first kind, (row, factor, factor, factor)."""
    metric, pairs = law.christoffel(beta)
    found = law.solve(metric, pairs) if raised else pairs
    return unpack(found, beta.shape[-1])
