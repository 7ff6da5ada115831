"""Armijo's search along a descent direction: by row where the loss has rows, else one for all."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from nfi_pyro.errors import SpecError
from nfi_pyro.geometry.optimisers.moving import refuse

ENOUGH = 1e-4  # part of the promised fall that a step must bring
SHRINK, GROW, MOST_GROWTH = 0.5, 2.0, 100.0
MOST_TRIES = 40
ROUNDING = 4.0 * torch.finfo(torch.float64).eps  # relative change of the loss that says nothing


class Descent(Protocol):
    """An optimiser that names its direction and leaves the length of the step to the search."""

    param_groups: list[dict[str, Any]]
    state: Any

    def direction(self, group: dict[str, Any], point: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return what to go down along, and the slope by row."""

    def arrive(
        self, group: dict[str, Any], point: Tensor, start: Tensor, step: Tensor, /
    ) -> Tensor:
        """Move a parameter by a step from `start`; return which rows could."""


def descend(optimiser: Descent, closure: Callable[[], Tensor]) -> Tensor:
    """Take one step and return the loss where it began; rows without a lower loss stay.

    Raises
    ------
    SpecError
        If the loss is not finite, or has rows that are not those of a single parameter.
    """
    with torch.enable_grad():
        loss = closure().detach()
    refuse(~torch.isfinite(loss), "loss must be finite", "Look at the objective there.")
    moved = [
        (group, point, point.detach().clone())
        for group in optimiser.param_groups
        for point in group["params"]
        if point.grad is not None
    ]
    if loss.ndim and (len(moved) != 1 or loss.shape != moved[0][1].shape[:-1]):
        shapes = ", ".join(str(tuple(point.shape)) for _, point, _ in moved)
        raise SpecError(
            "loss must be a scalar, or by row of a single parameter; got shape "
            f"{tuple(loss.shape)} with parameters {shapes}. Sum it."
        )
    with torch.no_grad():
        _search(optimiser, closure, loss, moved)
    return loss


def _search(
    optimiser: Descent,
    closure: Callable[[], Tensor],
    loss: Tensor,
    moved: list[tuple[dict[str, Any], Tensor, Tensor]],
) -> None:
    """Shrink steps until the loss has fallen enough, and leave the parameters there."""
    memory = optimiser.state[moved[0][1]]
    directions, slope, still = [], torch.zeros_like(loss), torch.zeros_like(loss)
    sign = -1.0 if moved[0][0]["maximize"] else 1.0

    def by_loss(rows: Tensor) -> Tensor:
        return rows if loss.ndim else rows.sum()

    for group, point, _ in moved:
        old = optimiser.state[point].get("direction", torch.zeros_like(point))
        still = still + sign * group["lr"] * by_loss((old * point.grad).sum(-1))
        direction, steepness = optimiser.direction(group, point)
        directions.append(direction)
        optimiser.state[point]["direction"] = direction
        slope = slope + group["lr"] * by_loss(steepness)
    size = _first_try(memory, still, loss)
    momenta = [optimiser.state[point].get("momentum_buffer") for _, point, _ in moved]
    open_ = torch.ones_like(loss, dtype=torch.bool)

    def put(steps: Tensor) -> Tensor:
        usable = torch.ones_like(open_)
        for (group, point, start), direction, momentum in zip(
            moved, directions, momenta, strict=True
        ):
            if momentum is not None:
                optimiser.state[point]["momentum_buffer"] = momentum.clone()
            length = group["lr"] * (steps.unsqueeze(-1) if loss.ndim else steps)
            could = optimiser.arrive(group, point, start, -length * direction)
            usable = usable & (could if loss.ndim else could.all())
        return usable

    for _ in range(MOST_TRIES):
        usable = put(size)
        with torch.enable_grad():
            trial = closure().detach()
        fell = sign * (loss - trial) >= ENOUGH * size * slope - ROUNDING * loss.abs()
        open_ = open_ & ~(usable & fell)
        if not bool(open_.any()):
            break
        size = torch.where(open_, SHRINK * size, size)
    if bool(open_.any()):
        put(torch.where(open_, 0.0, size))
    memory["size"], memory["promised"] = (
        torch.where(open_, 1.0, size),
        torch.where(open_, 0.0, slope),
    )


def _first_try(memory: dict[str, Tensor], still: Tensor, loss: Tensor) -> Tensor:
    """Return the length to try first, in units of `lr`.

    That of Barzilai and Borwein: where the slope along the last step, which fell from `promised`
    to `still`, would have been 0, at most a hundred times that step. Twice where it did not fall.
    """
    if "size" not in memory:
        return torch.ones_like(loss)
    size, promised = memory["size"], memory["promised"]
    fell = promised - still
    secant = size * (promised / torch.where(fell > 0, fell, 1.0)).clamp(max=MOST_GROWTH)
    return torch.where(promised > 0, torch.where(fell > 0, secant, GROW * size), 1.0)
