"""The top of an objective over exposures from given starts, all at once."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nfi_pyro.errors import SpecError
from nfi_pyro.geometry.inputs import exposures
from nfi_pyro.geometry.optimisers.moving import Metric, Space, refuse
from nfi_pyro.geometry.optimisers.optim import RiemannianGD, RiemannianOptimizer
from nfi_pyro.geometry.results.optimisers import Ascent

Objective = Callable[[Tensor], Tensor]


def maximise(
    objective: Objective,
    start: Tensor,
    manifold: Space | Metric,
    *,
    optimiser: Callable[..., RiemannianOptimizer] = RiemannianGD,
    max_steps: int = 500,
    tolerance: float = 1e-8,
) -> Ascent:
    """Return where an optimiser takes exposures from `start`, each row on its own.

    Without constraints a network's objective may have its top at infinity: read `mahalanobis`, or
    use `constrained_optimum`.

    Parameters
    ----------
    objective : callable
        Exposures (..., factor) to (...), each row from its own exposures, for autograd.
    start : Tensor, shape (..., factor)
    manifold : FisherManifold or callable
        As for the optimisers.
    optimiser : callable
        One of this package's; its options by `functools.partial`.
    max_steps : int
        Where rows that have not converged stop.
    tolerance : float
        Slope at which a row has converged, objective by unit of distance.

    Raises
    ------
    SpecError
        If the start or the objective there is not finite, an argument is out of range, or as the
        optimiser does.
    """
    if max_steps < 1 or not 0.0 <= tolerance < math.inf:
        raise SpecError(
            "max_steps must be at least 1 and tolerance finite and >= 0; got "
            f"{max_steps} and {tolerance} at maximise. See their defaults."
        )
    beta = exposures(start, None, "start").detach().clone().requires_grad_()
    search = optimiser([beta], manifold, maximize=True)
    evaluations = 0

    def closure() -> Tensor:
        nonlocal evaluations
        evaluations += 1
        search.zero_grad()
        value = objective(beta)
        value.sum().backward()
        return value.detach()

    found: dict[str, Tensor] = {}
    path: list[Tensor] = []
    for step in range(max_steps):
        before = beta.detach().clone()
        value = search.step(closure)
        now = {"point": before, "value": value, "slope": search.state[beta]["slope"]}
        found = _record(found, now, step, tolerance)
        path.append(found["point"])
        if bool(found["converged"].all()):
            break
    refuse(~torch.isfinite(found["value"]), "objective must be finite", "Start elsewhere.")
    place: Any = getattr(manifold, "mahalanobis", None)
    nowhere = torch.full_like(found["value"], torch.nan)
    far = nowhere if place is None else place(found["point"])
    return Ascent(**found, mahalanobis=far, path=torch.stack(path), evaluations=evaluations)


def _record(
    found: dict[str, Tensor], now: dict[str, Any], step: int, tolerance: float
) -> dict[str, Tensor]:
    """Return the rows' results with those of this step where a row had not converged."""
    now = now | {
        "iterations": torch.full_like(now["value"], step, dtype=torch.long),
        "converged": now["slope"] <= tolerance,
    }
    if not found:
        return now
    done = found["converged"]
    return {
        name: torch.where(done.unsqueeze(-1) if name == "point" else done, found[name], value)
        for name, value in now.items()
    }
