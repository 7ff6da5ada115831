"""Several starts of one optimiser: natural gradients climb the nearest hill, not the highest."""

from collections.abc import Callable

import torch
from torch import Tensor

from nfi_pyro.errors import SpecError
from nfi_pyro.geometry.inputs import exposures
from nfi_pyro.geometry.manifold import FisherManifold
from nfi_pyro.geometry.optimisers.ascent import Objective, maximise
from nfi_pyro.geometry.optimisers.optim import RiemannianGD, RiemannianOptimizer
from nfi_pyro.geometry.results.optimisers import Ascent, BestOfStarts

SAME = 0.05  # distance below which two ends are one optimum


def best_of_starts(
    objective: Objective,
    manifold: FisherManifold,
    starts: Tensor | int = 16,
    *,
    seed: int = 0,
    optimiser: Callable[..., RiemannianOptimizer] = RiemannianGD,
    max_steps: int = 500,
    tolerance: float = 1e-8,
) -> BestOfStarts:
    """Return the best optimum that an optimiser finds from several starts.

    Parameters
    ----------
    objective, optimiser, max_steps, tolerance
        As in `maximise`.
    manifold : FisherManifold
    starts : Tensor, shape (start, factor), or int
        Starts, or how many to draw from the normal law with the cloud's centre and covariance.
    seed : int
        Of that draw.

    Raises
    ------
    SpecError
        If there is no start, or one is to be drawn without a cloud; otherwise as `maximise`.
    """
    begin = _draw(manifold, starts, seed) if isinstance(starts, int) else starts
    begin = exposures(begin, None, "starts")
    if begin.ndim != 2 or not len(begin):
        raise SpecError(
            f"starts must be exposures (start, factor), at least one; got shape "
            f"{tuple(begin.shape)} at best_of_starts. Flatten them."
        )
    ascent = maximise(
        objective,
        begin,
        manifold,
        optimiser=optimiser,
        max_steps=max_steps,
        tolerance=tolerance,
    )
    basin = _basins(manifold, ascent)
    best = int(ascent.value.argmax())
    return BestOfStarts(
        ascent.point[best],
        float(ascent.value[best]),
        bool(ascent.converged[best]),
        float((basin == 0).double().mean()),
        basin,
        ascent,
    )


def _draw(manifold: FisherManifold, count: int, seed: int) -> Tensor:
    """Return starts from the normal law of the cloud, (start, factor)."""
    cloud = manifold.cloud
    if cloud is None or count < 1:
        what = f"{count} starts" if cloud is not None else "a manifold without a cloud"
        raise SpecError(
            f"starts must be at least 1, drawn from a cloud; got {what} at best_of_starts. Pass "
            "`background` to the manifold, or the starts."
        )
    generator = torch.Generator().manual_seed(seed)
    unit = torch.randn(count, len(cloud.centre), generator=generator, dtype=torch.float64)
    root = torch.linalg.cholesky(cloud.precision)
    return cloud.centre + torch.linalg.solve_triangular(root.mT, unit.mT, upper=True).mT


def _basins(manifold: FisherManifold, ascent: Ascent) -> Tensor:
    """Return the optimum each start found, best first; -1 where it stopped on the way."""
    basin = torch.full(ascent.value.shape, -1)
    leaders: list[int] = []
    for row in ascent.value.argsort(descending=True).tolist():
        if leaders:
            gap = manifold.distance(ascent.point[row], ascent.point[leaders], method="line")
            near = int(gap.argmin())
            if float(gap[near]) <= SAME:
                basin[row] = near
                continue
        if bool(ascent.converged[row]) or not leaders:
            basin[row] = len(leaders)
            leaders.append(row)
    return basin
