"""Newton's method on the chord energy: block tridiagonal, many pairs of ends at once."""

from typing import NamedTuple

import torch
from torch import Tensor

from nfi_pyro.geometry.fisher.metric import DampedLaw
from nfi_pyro.geometry.paths.chords import ChordSystem, chord_system

MOST_STEPS = 40
DONE = 1e-10  # decrement relative to the energy: half of that in the distance
NOISE = 1e-6  # relative: what moving the nodes may add to the energy
SHORTEST = 1e-4
RIDGE = 1e-12
NOTHING = 1e-24  # an energy of rounding errors


class Minimum(NamedTuple):
    """Polygons of least energy between given ends.

    Attributes
    ----------
    path : Tensor, shape (row, point, factor)
    energy : Tensor, shape (row,)
    start_slope, end_slope : Tensor, shape (row, factor)
        Derivative of the least energy by the ends.
    iterations : Tensor of int, shape (row,)
    converged : Tensor of bool, shape (row,)
    """

    path: Tensor
    energy: Tensor
    start_slope: Tensor
    end_slope: Tensor
    iterations: Tensor
    converged: Tensor


def minimise(law: DampedLaw, path: Tensor) -> Minimum:
    """Return the polygons of least energy from a start (row, point, factor), whose ends stay.

    Full Newton steps where the energy falls, a quarter of the step otherwise; the part without
    second derivatives stands in for a Hessian that is not positive definite.
    """
    system = chord_system(law, path)
    iterations = torch.zeros(len(path), dtype=torch.long)
    step, decrement = newton_step(system)
    length = torch.ones_like(system.energy)
    converged = decrement <= DONE * system.energy + NOTHING
    active = ~converged & torch.isfinite(system.energy)
    for _ in range(MOST_STEPS):
        rows = active.nonzero().flatten()
        if not len(rows):
            break
        trial = path[rows].clone()
        trial[:, 1:-1] += length[rows, None, None] * step[rows]
        found = chord_system(law, trial)
        iterations[rows] += 1
        better = found.energy <= (1.0 + NOISE) * system.energy[rows]
        kept, refused = rows[better], rows[~better]
        path = path.index_copy(0, kept, trial[better])
        system = system.put(kept, found.at(better))
        fresh, drop = newton_step(found.at(better))
        step, decrement = step.index_copy(0, kept, fresh), decrement.index_copy(0, kept, drop)
        length[kept] = 1.0
        length[refused] *= 0.25
        converged = decrement <= DONE * system.energy + NOTHING
        active = active & ~converged & (length >= SHORTEST)
    slopes = system.gradient
    return Minimum(path, system.energy, slopes[:, 0], slopes[:, -1], iterations, converged)


def newton_step(system: ChordSystem) -> tuple[Tensor, Tensor]:
    """Return the step of the inner points, and by how much it lowers the energy to first order."""
    right = -system.gradient[:, 1:-1]
    step, definite = solve_tridiagonal(system.diagonal, system.coupling, right)
    if not bool(definite.all()):
        rows = (~definite).nonzero().flatten()
        safe, _ = solve_tridiagonal(
            system.gauss_newton[rows], system.coupling[rows], right[rows], ridge=RIDGE
        )
        step = step.index_copy(0, rows, safe)
    return step, (step * right).sum((-1, -2)).abs()


def solve_tridiagonal(
    diagonal: Tensor, coupling: Tensor, right: Tensor, *, ridge: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the solution of symmetric block tridiagonal systems, and which are definite.

    Parameters
    ----------
    diagonal : Tensor, shape (row, block, factor, factor)
    coupling : Tensor, shape (row, block - 1, factor, factor)
        Of a block's row and the next block's column.
    right : Tensor, shape (row, block, factor)
    ridge : float
        Added to the diagonal, relative to its mean.
    """
    if ridge:
        mean = diagonal.diagonal(dim1=-2, dim2=-1).mean((-1, -2))
        eye = torch.eye(diagonal.shape[-1], dtype=diagonal.dtype)
        diagonal = diagonal + ridge * mean[:, None, None, None] * eye
    n_blocks, size = diagonal.shape[1], diagonal.shape[-1]
    definite = torch.ones(len(diagonal), dtype=torch.bool)
    links = torch.cat([coupling, torch.zeros_like(diagonal[:, :1])], dim=1)  # the last has none
    solved: list[tuple[Tensor, Tensor]] = []
    block, column = diagonal[:, 0], right[:, 0].unsqueeze(-1)
    for place in range(n_blocks):
        if place:
            before, link = solved[-1], links[:, place - 1]
            block = diagonal[:, place] - link.mT @ before[0]
            column = right[:, place].unsqueeze(-1) - link.mT @ before[1]
        factor, info = torch.linalg.cholesky_ex(block)
        definite &= (info == 0) & torch.isfinite(block).all(-1).all(-1)
        both = torch.cholesky_solve(torch.cat([links[:, place], column], dim=-1), factor)
        solved.append((both[..., :size], both[..., size:]))
    answer = [solved[-1][1]]
    for link, column in reversed(solved[:-1]):
        answer.append(column - link @ answer[-1])
    return torch.stack(answer[::-1], dim=1).squeeze(-1), definite
