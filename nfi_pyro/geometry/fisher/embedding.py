r"""The square-root embedding of a mixture on quadrature nodes, and its derivatives by exposure.

``psi_m(beta) = 2 sqrt(w_m p(r_m | beta))``. With responsibilities gamma_k, ``z_k = (r - loc_k) /
scale_k`` and ``u_k = log(weight_k N_k)``, whose derivatives are polynomials in z_k,

    psi_i = sqrt(w p) l_i,  l_i = sum_k gamma_k u_{k,i},
    psi_ij = sqrt(w p) [sum_k gamma_k (u_{k,i} u_{k,j} + u_{k,ij}) - l_i l_j / 2].

So both are a basis ``sqrt(w p) gamma_k z_k^q`` on the nodes times coefficients that need the first
and second derivatives of the law's parameters, never more. Layout: (row, coefficient, node).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from nfi_pyro.distributions.law_jets import LawJets
from nfi_pyro.distributions.normal import LOG_SQRT_2PI

_POWERS = (0, 3, 5)  # how many powers of z the derivatives of psi of each order need
_TINY = 1e-300


class OnNodes(NamedTuple):
    """A law on its nodes.

    Attributes
    ----------
    root : Tensor, shape (row, node)
        ``sqrt(w p)``, half of psi.
    basis : Tensor, shape (row, power * component, node)
        ``sqrt(w p) gamma_k z_k^q``, powers q = 0, 1, ... first.
    """

    root: Tensor
    basis: Tensor


def on_nodes(value: Tensor, nodes: Tensor, weights: Tensor, order: int) -> OnNodes:
    """Return the law of parameters (row, 3, component) on nodes (row, node).

    The basis is what derivatives of psi of `order` 0, 1 or 2 need.
    """
    logits, loc, log_scale = value.unsqueeze(-1).unbind(-3)
    precision = (-log_scale).exp()
    z = torch.addcmul(-loc * precision, nodes.unsqueeze(-2), precision)
    constant = torch.log_softmax(logits, -2) - log_scale - LOG_SQRT_2PI
    log_joint = torch.addcmul(constant, z, z, value=-0.5)
    top = log_joint.amax(-2, keepdim=True)
    joint = (log_joint - top).exp()  # no underflow where every component is far away
    total = joint.sum(-2, keepdim=True)
    root = (weights.unsqueeze(-2) * total).sqrt() * (0.5 * top).exp()
    if order == 0:
        return OnNodes(root.squeeze(-2), joint[..., :0, :])
    powers = [joint * (root / total)]
    while len(powers) < _POWERS[order]:
        powers.append(powers[-1] * z)
    return OnNodes(root.squeeze(-2), torch.cat(powers, dim=-2))


def slope_coefficients(jets: LawJets) -> Tensor:
    """Return the coefficients of ``u_{k,i}`` in z, (row, 3 * component, factor)."""
    log_weight = _centred(jets)[1]
    loc, log_scale = jets.first[..., 1, :, :], jets.first[..., 2, :, :]
    shift = loc / jets.value[..., 2, :].exp().unsqueeze(-1)
    return torch.cat([log_weight - log_scale, shift, log_scale], dim=-2)


def bend_coefficients(jets: LawJets) -> Tensor:
    """Return those of ``u_{k,i} u_{k,j} + u_{k,ij}``, (row, 5 * component, pair i <= j)."""
    if jets.second is None:
        raise ValueError("bends need second derivatives")  # a programming error, not the user's
    n_factors = jets.first.shape[-1]
    i, j = torch.triu_indices(n_factors, n_factors)
    weight, score = _centred(jets)
    scale = jets.value[..., 2, :].exp().unsqueeze(-1)
    column = weight.unsqueeze(-1)
    logits, loc, log_scale = (jets.second[..., place, :, :, :][..., i, j] for place in range(3))
    bent = logits - (column * (logits + score[..., i] * score[..., j])).sum(-2, keepdim=True)
    m, s = jets.first[..., 1, :, :] / scale, jets.first[..., 2, :, :]
    a = score - s
    ms = m[..., i] * s[..., j] + s[..., i] * m[..., j]
    mm, ss = m[..., i] * m[..., j], s[..., i] * s[..., j]
    parts = [
        bent - log_scale - mm + a[..., i] * a[..., j],
        loc / scale - 2.0 * ms + a[..., i] * m[..., j] + m[..., i] * a[..., j],
        log_scale - 2.0 * ss + a[..., i] * s[..., j] + s[..., i] * a[..., j] + mm,
        ms,
        ss,
    ]
    return torch.cat(parts, dim=-2)


def tangents(on: OnNodes, slopes: Tensor) -> Tensor:
    """Return ``psi_i`` on the nodes, (row, factor, node)."""
    return slopes.mT @ on.basis[..., : slopes.shape[-2], :]


def bends(on: OnNodes, coefficients: Tensor, tangent: Tensor) -> Tensor:
    """Return ``psi_ij`` on the nodes, (row, pair i <= j, node), given ``psi_i``."""
    i, j = torch.triu_indices(tangent.shape[-2], tangent.shape[-2])
    half = 0.5 * tangent / on.root.unsqueeze(-2).clamp(min=_TINY)
    return coefficients.mT @ on.basis - half[..., i, :] * tangent[..., j, :]


def contract(on: OnNodes, coefficients: Tensor, tangent: Tensor, direction: Tensor) -> Tensor:
    """Return ``<direction, psi_ij>``, (row, factor, factor), without a tensor over nodes and ij."""
    linear = (on.basis @ direction.unsqueeze(-1)).mT @ coefficients
    weight = direction / on.root.clamp(min=_TINY)
    outer = (tangent * weight.unsqueeze(-2)) @ tangent.mT
    return unpack(linear.squeeze(-2), tangent.shape[-2]) - 0.5 * outer


def unpack(pairs: Tensor, n_factors: int) -> Tensor:
    """Return symmetric matrices (..., factor, factor) from their entries i <= j, (..., pair)."""
    return pairs[..., pair_index(n_factors)]


def pair_index(n_factors: int) -> Tensor:
    """Return the place of (i, j) among the pairs i <= j, (factor, factor), symmetric."""
    i, j = torch.triu_indices(n_factors, n_factors)
    index = torch.zeros(n_factors, n_factors, dtype=torch.long)
    index[i, j] = index[j, i] = torch.arange(len(i))
    return index


def along(jets: LawJets, directions: Tensor) -> LawJets:
    """Return the jets in the coordinates of some directions, (row, factor, direction)."""
    wide = directions.unsqueeze(-3).unsqueeze(-3)
    first = jets.first @ directions.unsqueeze(-3)
    second = None if jets.second is None else wide.mT @ jets.second @ wide
    return LawJets(jets.value, first, second)


def _centred(jets: LawJets) -> tuple[Tensor, Tensor]:
    """Return the weights, and the gradients of the log weights."""
    weight = torch.softmax(jets.value[..., 0, :], -1)
    logits = jets.first[..., 0, :, :]
    return weight, logits - (weight.unsqueeze(-1) * logits).sum(-2, keepdim=True)
