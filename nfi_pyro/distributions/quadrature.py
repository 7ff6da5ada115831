r"""Nodes for expectations of a mixture's log density under a scalar normal law.

``E[log p(y - x)]``, x normal, has an integrand that is smooth on the scale of the mixture's
narrowest component and no finer, so all depends on the ratio of the sd of x to that scale.
`hermite` nodes are exact for polynomials and best below a ratio of one; their spacing shrinks
with the root of their number, so that resolving a ratio takes its square in nodes. `equal` nodes
(the trapezoidal rule, exponentially convergent for analytic integrands on the whole line;
Trefethen and Weideman 2014) take a number that grows with the ratio itself.
"""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from nfi_pyro.errors import SpecError

REACH = 6.0  # sd: the mass beyond is 2e-9, and the integrand grows as the square
RESOLUTION = 0.6  # of the narrowest scale, between two nodes
MOST_NODES = 2001  # beyond, a cell's mixture is so narrow that memory would go before time
GAP = 3.0  # narrowest scales between components from which the valley between them is sharper


@cache
def hermite(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss-Hermite nodes in sd of the normal law and weights that sum to 1, (node,).

    Raises
    ------
    SpecError
        If `count` is not a whole number from 1 to 181, beyond which weights underflow.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 181:
        raise SpecError(
            f"n_nodes must be a whole number from 1 to 181 or 'auto'; got {count!r}. Use 7 where "
            "the factors' posterior is narrower than the noise, 'auto' elsewhere."
        )
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes, weights / weights.sum()


@cache
def equal(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` equally spaced nodes within `REACH` sd, normal weights that sum to 1."""
    nodes = np.linspace(-REACH, REACH, count)
    weights = np.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()


def resolution_ratio(loc: Tensor, scale: Tensor, deviation: Tensor) -> Tensor:
    """Return sd of x over the width on which the log density bends, shape (...).

    That width is the narrowest component scale, less in proportion where components lie further
    apart than `GAP` of it: between two equal normals the log density bends within scale^2 / gap.

    Parameters
    ----------
    loc, scale : Tensor, shape (..., component)
        Of the mixture; scale > 0.
    deviation : Tensor, shape (...)
        Standard deviation of x, >= 0, in the same unit.
    """
    narrowest = scale.amin(-1)
    spread = (loc.amax(-1) - loc.amin(-1)) / (GAP * narrowest)
    return deviation / narrowest * spread.clamp(min=1.0)


def node_count(ratio: float) -> int:
    """Return how many equal nodes hold the error below 1e-4 nat at `ratio`: ``20 ratio + 1``.

    Odd, and at least 13, a spacing of one sd.
    """
    return 2 * math.ceil(REACH * max(1.0, ratio / RESOLUTION)) + 1


def place_nodes(
    n_nodes: int | str, loc: Tensor, scale: Tensor, deviation: Tensor
) -> tuple[Tensor, Tensor]:
    """Return nodes and weights (node,) in the dtype and on the device of `loc`.

    Parameters
    ----------
    n_nodes : int or "auto"
        That many Gauss-Hermite nodes, or as many equal ones as the largest ratio asks for.
    loc, scale, deviation : Tensor
        See `resolution_ratio`.

    Raises
    ------
    SpecError
        If `n_nodes` is neither, or the largest ratio is not finite or asks for more than
        `MOST_NODES`.
    """
    if n_nodes != "auto":
        nodes, weights = hermite(n_nodes)
    else:
        ratio = float(resolution_ratio(loc, scale, deviation).detach().amax())
        if not math.isfinite(ratio):
            raise SpecError(
                f"the ratio that sets the nodes must be finite; got {ratio} in "
                f"{tuple(deviation.shape)} cells. Check the scales for 0 and the factors for NaN."
            )
        count = node_count(ratio)
        if count > MOST_NODES:
            raise SpecError(
                f"automatic nodes must be at most {MOST_NODES}; got {count} for factors "
                f"{ratio:.3g} times as wide as the narrowest component. Raise the scale's floor, "
                "or give n_nodes."
            )
        nodes, weights = equal(count)
    return (
        torch.as_tensor(nodes, dtype=loc.dtype, device=loc.device),
        torch.as_tensor(weights, dtype=loc.dtype, device=loc.device),
    )
