r"""The energy of a polygon of chords in the embedding, with exact gradient and Hessian.

``E = n sum_i |psi(c_{i+1}) - psi(c_i)|^2 + eps |c_{i+1} - c_i|^2_Lambda``, both ends of a segment
on common nodes. Its minimum over the inner points tends to the squared distance of the ends from
below, with an error in 1/n^2, 1/n^4, ...; first and second derivatives of the law are enough.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfi_pyro.geometry.fisher.embedding import (
    OnNodes,
    bend_coefficients,
    contract,
    on_nodes,
    slope_coefficients,
    tangents,
)
from nfi_pyro.geometry.fisher.metric import DampedLaw
from nfi_pyro.geometry.fisher.nodes import PanelRule, gauss_legendre, panel_nodes

MOST_SEGMENTS = 128  # evaluated at a time


@dataclass(frozen=True)
class ChordSystem:
    """The energy of polygons with n + 1 points and its derivatives by them.

    Attributes
    ----------
    energy : Tensor, shape (row,)
    gradient : Tensor, shape (row, point, factor)
        By all points, ends included.
    diagonal, gauss_newton : Tensor, shape (row, inner point, factor, factor)
        Blocks of the Hessian, and of its part without second derivatives, which is never
        indefinite.
    coupling : Tensor, shape (row, inner point - 1, factor, factor)
        Blocks between a point and the next.
    """

    energy: Tensor
    gradient: Tensor
    diagonal: Tensor
    gauss_newton: Tensor
    coupling: Tensor

    def at(self, rows: Tensor) -> "ChordSystem":
        """Return the systems of some of the rows."""
        return ChordSystem(*(part[rows] for part in self._parts()))

    def put(self, rows: Tensor, other: "ChordSystem") -> "ChordSystem":
        """Return the systems with those of some rows replaced."""
        pairs = zip(self._parts(), other._parts(), strict=True)
        return ChordSystem(*(old.index_copy(0, rows, new) for old, new in pairs))

    def _parts(self) -> tuple[Tensor, ...]:
        return (self.energy, self.gradient, self.diagonal, self.gauss_newton, self.coupling)


def common_nodes(left: Tensor, right: Tensor, rule: PanelRule) -> tuple[Tensor, Tensor]:
    """Return nodes and weights for two laws' parameters at once, each (row, 3, component)."""
    both = torch.cat([left, right], dim=-1)
    return panel_nodes(both[..., 1, :], both[..., 2, :], rule)


def chord_system(law: DampedLaw, path: Tensor) -> ChordSystem:
    """Return the system of polygons (row, point, factor)."""
    size = max(1, MOST_SEGMENTS // (path.shape[-2] - 1))
    parts = [_system(law, rows) for rows in path.split(size)]
    columns = zip(*(part._parts() for part in parts), strict=True)
    return ChordSystem(*(torch.cat(column) for column in columns))


def _system(law: DampedLaw, path: Tensor) -> ChordSystem:
    """Return the system of a few polygons."""
    n_rows, n_points = path.shape[:2]
    n = n_points - 1
    jets = law.jets(path.flatten(0, 1), 2)
    value = jets.value.unflatten(0, (n_rows, n_points))
    slope = slope_coefficients(jets).unflatten(0, (n_rows, n_points))
    bend = bend_coefficients(jets).unflatten(0, (n_rows, n_points))
    left, right = slice(0, n), slice(1, n_points)
    nodes, weights = common_nodes(
        value[:, left].flatten(0, 1), value[:, right].flatten(0, 1), law.rule
    )
    sides: list[tuple[OnNodes, Tensor, Tensor]] = []
    for side in (left, right):
        on = on_nodes(value[:, side].flatten(0, 1), nodes, weights, 2)
        tangent = tangents(on, slope[:, side].flatten(0, 1))
        sides.append((on, tangent, bend[:, side].flatten(0, 1)))
    (on_left, from_left, bend_left), (on_right, to_right, bend_right) = sides
    chord = 2.0 * (on_right.root - on_left.root)
    move = path[:, right] - path[:, left]
    flat = law.eps * law.reference

    def by_row(tensor: Tensor) -> Tensor:
        return tensor.unflatten(0, (n_rows, n))

    energy = by_row(chord.square().sum(-1)).sum(-1) + ((move @ flat) * move).sum((-1, -2))
    pull_left = by_row((from_left @ chord.unsqueeze(-1)).squeeze(-1)) + move @ flat
    pull_right = by_row((to_right @ chord.unsqueeze(-1)).squeeze(-1)) + move @ flat
    gradient = torch.nn.functional.pad(pull_right, (0, 0, 1, 0))
    gradient = gradient - torch.nn.functional.pad(pull_left, (0, 0, 0, 1))
    gram_left = by_row(from_left @ from_left.mT) + flat
    gram_right = by_row(to_right @ to_right.mT) + flat
    bent_left = by_row(contract(on_left, bend_left, from_left, chord))
    bent_right = by_row(contract(on_right, bend_right, to_right, chord))
    gauss_newton = gram_right[:, :-1] + gram_left[:, 1:]
    diagonal = gauss_newton + bent_right[:, :-1] - bent_left[:, 1:]
    coupling = -(by_row(from_left @ to_right.mT) + flat)[:, 1:-1]
    scale = 2.0 * n
    return ChordSystem(
        n * energy, scale * gradient, scale * diagonal, scale * gauss_newton, scale * coupling
    )


def chord_bound(law: DampedLaw, x: Tensor, y: Tensor) -> Tensor:
    r"""Return a lower bound of the distance of rows x and y, (row,).

    The manifold lies in the product of a sphere of radius 2 and a flat space, so no path in it is
    shorter than the product's own geodesic, ``sqrt((4 asin(|dpsi| / 4))^2 + eps |dbeta|^2)``.
    """
    left, right = law.jets(x, 0).value, law.jets(y, 0).value
    nodes, weights = common_nodes(left, right, law.rule)
    roots = [on_nodes(value, nodes, weights, 0).root for value in (left, right)]
    chord = 2.0 * (roots[1] - roots[0]).square().sum(-1).sqrt()
    arc = 4.0 * torch.asin((0.25 * chord).clamp(max=1.0))
    return (arc.square() + law.flat(y - x)).sqrt()


def line_length(law: DampedLaw, x: Tensor, y: Tensor, points: int) -> Tensor:
    """Return the length of straight lines of exposures, (row,), by Gauss-Legendre in time."""
    unit, weight = gauss_legendre(points)
    time = 0.5 * (unit + 1.0)
    move = (y - x).unsqueeze(-2)
    path = x.unsqueeze(-2) + time.unsqueeze(-1) * move
    speed = law.squared_speed(path.flatten(0, 1), move.expand_as(path).flatten(0, 1))
    return speed.clamp(min=0.0).sqrt().unflatten(0, path.shape[:2]) @ (0.5 * weight)
