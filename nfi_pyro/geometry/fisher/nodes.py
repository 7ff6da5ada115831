"""Quadrature nodes for laws with structure at every component's own scale."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from nfi_pyro.errors import SpecError

_ELEVEN = (-8.5, -6.0, -4.5, -3.0, -1.5, 0.0, 1.5, 3.0, 4.5, 6.0, 8.5)
_FIFTEEN = (-8.5, -6.5, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.5, 8.5)


@dataclass(frozen=True)
class PanelRule:
    """Gauss-Legendre panels between the merged, sorted breakpoints of all components.

    Gauss-Hermite around each component fails on ordinary mixtures: a responsibility has structure
    at the scale of the *other* component.

    Attributes
    ----------
    breaks : tuple of float
        Breakpoints of one component, in its standard deviations around its mean.
    order : int
        Nodes by panel. Derivatives of the metric need 6; 4 is enough for distances.
    """

    breaks: tuple[float, ...]
    order: int


RULES = {
    "c11n4": PanelRule(_ELEVEN, 4),
    "c11n6": PanelRule(_ELEVEN, 6),
    "c15n6": PanelRule(_FIFTEEN, 6),
    "c15n10": PanelRule(_FIFTEEN, 10),
}
"""Rules by name. Worst error of an entry of the Fisher matrix, relative to the roots of the
diagonal, over mixtures with nested, far or light components: 6e-4, 9e-6, 4e-7 and 9e-11; one to
three digits better on typical ones. A component of weight below 1e-5 that lies under the tail of
another is known less well (5e-3 of its own entries at weight 1e-8): it weighs as little in G."""


def panel_rule(name: str) -> PanelRule:
    """Return the rule of a name.

    Raises
    ------
    SpecError
        If there is none of that name.
    """
    if name not in RULES:
        raise SpecError(
            f"nodes must be one of {', '.join(RULES)}; got {name!r}. The default is 'c11n6'."
        )
    return RULES[name]


def panel_nodes(loc: Tensor, log_scale: Tensor, rule: PanelRule) -> tuple[Tensor, Tensor]:
    """Return nodes and weights, each (..., node), for the components' loc and log scale.

    They are constants: no derivative flows through them, so that every geometric quantity is the
    exact one of a finite-dimensional embedding.

    Parameters
    ----------
    loc, log_scale : Tensor, shape (..., component)
    rule : PanelRule
        Gives ``(len(breaks) * component - 1) * order`` nodes.
    """
    loc, scale = loc.detach(), log_scale.detach().exp()
    breaks = loc.new_tensor(rule.breaks)
    edges = (loc.unsqueeze(-1) + scale.unsqueeze(-1) * breaks).flatten(-2).sort(dim=-1).values
    unit, weight = (part.to(loc) for part in gauss_legendre(rule.order))
    half = 0.5 * (edges[..., 1:] - edges[..., :-1]).unsqueeze(-1)
    middle = 0.5 * (edges[..., 1:] + edges[..., :-1]).unsqueeze(-1)
    return (middle + half * unit).flatten(-2), (half * weight).flatten(-2)


@cache
def gauss_legendre(order: int) -> tuple[Tensor, Tensor]:
    """Return Gauss-Legendre nodes and weights on [-1, 1], float64."""
    unit, weight = np.polynomial.legendre.leggauss(order)
    return torch.from_numpy(unit), torch.from_numpy(weight)
