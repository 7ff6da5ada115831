"""The pricing law of one date on the two principal directions of its exposures."""

import itertools
import warnings

import numpy as np
import torch
import xarray as xr

from nfi_pyro.commands.geometry_parts import FEWEST_ASSETS, tensor
from nfi_pyro.commands.geometry_task import GeometryTask
from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.distributions.law_jets import Pricing
from nfi_pyro.errors import SpecError
from nfi_pyro.geometry.crowding.density import crowding_density
from nfi_pyro.geometry.manifold import FisherManifold
from nfi_pyro.posterior.exposure_pricing import PricingLaw
from nfi_pyro.rendering.geometry_contents import ExposurePlane

RADIUS = 1.5
"""Standard deviations from the mean of the assets that geodesics are tried between."""

N_ENDS = 8
PERMUTATIONS = 39
CELLS = 33
WIDEST = 3.0
"""Half the width of a map, in standard deviations."""

_NEAR = 0.5
_SINGULAR = 1e-10
_LEVEL = ("level", "null_lower", "null_upper", "excess", "p_value")


def plane_of(
    task: GeometryTask,
    law: PricingLaw,
    centre: np.ndarray,
    vectors: np.ndarray,
    variances: np.ndarray,
) -> ExposurePlane | None:
    """Return ellipses, a geodesic and maps on a date's plane, or None where there is none."""
    if len(variances) < 2 or not variances[1] > _SINGULAR * variances[0]:
        task.left_out["plane"] = (
            f"A plane needs exposures that fill two directions; the {len(variances)} factors of "
            "the model fill one."
        )
        return None
    task.say(f"metric, geodesics and maps on the principal plane of {str(law.date)[:10]}")
    axes = vectors[:, :2] * np.sqrt(variances[:2])
    scores = (law.beta.numpy() - centre) @ vectors[:, :2] / np.sqrt(variances[:2])
    manifold = FisherManifold(
        restricted(law, tensor(centre), tensor(axes.T)), background=tensor(scores)
    )
    crowding, level = _crowding(task, law, scores)
    try:
        path, grid = _path(manifold, scores, law.assets), _maps(manifold, scores)
    except SpecError as error:  # a network without second derivatives
        task.left_out["plane"] = f"The law could not be differentiated twice: {error}"
        return None
    names = ["first", "second"]
    labels = {"direction": names, FACTOR: list(law.factors)}
    shown = {"first": scores[:, 0], "second": scores[:, 1], "crowding": crowding}
    return ExposurePlane(
        date=str(law.date)[:10],
        assets=xr.Dataset(
            {name: (ASSET, column) for name, column in shown.items()}, {ASSET: law.assets}
        ),
        shares=xr.DataArray(variances[:2] / variances.sum(), {"direction": names}, ("direction",)),
        loadings=xr.DataArray(vectors[:, :2].T, labels, ("direction", FACTOR)),
        ellipses=_ellipses(manifold, scores),
        eps=manifold.eps,
        path=path,
        grid=grid,
        crowding=level,
    )


def restricted(pricing: Pricing, centre: torch.Tensor, axes: torch.Tensor) -> Pricing:
    """Return the law of scores (..., 2) on a plane through `centre` with rows `axes`."""

    def law(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return pricing(centre + scores @ axes)

    return law


def _ellipses(manifold: FisherManifold, scores: np.ndarray) -> xr.Dataset:
    """Return the metric at points of a lattice that have assets near them, and at the mean."""
    lattice = np.array(list(itertools.product(np.arange(-2.0, 3.0), (-2.0, 0.0, 2.0))))
    gap = np.linalg.norm(lattice[:, None] - scores, axis=-1).min(axis=1)
    points = lattice[(gap < _NEAR) | (lattice == 0.0).all(axis=1)]
    metric = manifold.metric(tensor(points)).numpy()
    return xr.Dataset(
        {
            "first": ("point", points[:, 0]),
            "second": ("point", points[:, 1]),
            "metric": (("point", "row", "column"), metric),
        }
    )


def _path(manifold: FisherManifold, scores: np.ndarray, assets: np.ndarray) -> xr.Dataset:
    """Return the geodesic that the straight line misses by most, of pairs around the mean."""
    angles = 2.0 * np.pi * np.arange(N_ENDS) / N_ENDS
    wanted = RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    nearest = np.linalg.norm(wanted[:, None] - scores, axis=-1).argmin(axis=1)
    ends = list(dict.fromkeys(nearest.tolist()))
    pairs = np.array(list(itertools.combinations(ends, 2)), dtype=int).reshape(-1, 2)
    empty = xr.Dataset({name: ("point", np.zeros(0)) for name in ("first", "second")})
    counts = {"n_pairs": len(pairs), "n_converged": 0}
    if not len(pairs):
        return empty.assign_attrs(counts)
    left, right = tensor(scores[pairs[:, 0]]), tensor(scores[pairs[:, 1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows are flagged, and counted on the page
        found = manifold.log(left, right, polish=False)
    good = (found.converged & (found.distance > 0.0)).numpy()
    counts["n_converged"] = int(good.sum())
    if not good.any():
        return empty.assign_attrs(counts)
    line = manifold.distance(left, right, "line").numpy()
    length = found.distance.numpy()
    best = int(np.where(good, line / np.where(good, length, 1.0), -np.inf).argmax())
    path = found.path[best].numpy()
    return xr.Dataset(
        {"first": ("point", path[:, 0]), "second": ("point", path[:, 1])},
        attrs=counts
        | {"start": str(assets[pairs[best, 0]]), "end": str(assets[pairs[best, 1]]),
           "distance": float(length[best]), "line": float(line[best])},
    )  # fmt: skip


def _maps(manifold: FisherManifold, scores: np.ndarray) -> xr.Dataset:
    """Return curvature and visibility on a grid, inside the reach of the assets."""
    reach = float(np.linalg.norm(scores, axis=1).max())
    axis = np.linspace(-1.0, 1.0, CELLS) * min(reach, WIDEST)
    points = np.stack(np.meshgrid(axis, axis), axis=-1)  # (second, first, direction)
    gap = np.linalg.norm(points[:, :, None] - scores, axis=-1).min(axis=-1)
    inside = gap < _NEAR
    rows = tensor(points[inside])
    spectrum = manifold.spectrum(rows)[0]
    curved = manifold.principal_curvature(rows)
    seen = (curved.ok & (manifold.effective_rank(rows) >= 2)).numpy()
    dims = ("second", "first")

    def spread(values: np.ndarray) -> np.ndarray:
        full = np.full(inside.shape, np.nan)
        full[inside] = values
        return full

    smallest = np.finfo(float).tiny
    needed = 1.0 / spectrum[:, 1].clamp(min=smallest).numpy()
    return xr.Dataset(
        {
            "returns_needed": (dims, spread(needed)),
            "curvature": (dims, spread(curved.value.numpy())),
            "identified": (dims, spread(seen) == 1.0),
            "inside": (dims, inside),
        },
        {"second": axis, "first": axis},
    )


def _crowding(
    task: GeometryTask, law: PricingLaw, scores: np.ndarray
) -> tuple[np.ndarray, dict[str, float]]:
    """Return the Laplacian of the log density at each asset, and the date's level."""
    if len(scores) < FEWEST_ASSETS:
        return np.full(len(scores), np.nan), {}
    labels = {DATE: [law.date], ASSET: law.assets, FACTOR: ["first", "second"]}
    found = crowding_density(
        xr.DataArray(scores[None], labels, (DATE, ASSET, FACTOR)),
        min_assets=FEWEST_ASSETS,
        n_permutations=PERMUTATIONS,
        seed=task.seed,
    )
    series = found.series.isel({DATE: 0})
    return found.field.to_numpy()[0], {name: float(series[name]) for name in _LEVEL}
