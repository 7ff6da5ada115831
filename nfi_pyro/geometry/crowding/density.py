r"""Crowding as a level: how concentrated capital is over exposures.

The field is V = grad log q with q the holdings-weighted density of assets, so div V is the
Laplacian of log q: strongly negative on a concentrated spot. (A flow down the density, -grad log q,
would turn the sign.) Its mean over q is minus the Fisher information of q about its location: of
all densities with one covariance the normal has the least.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry.crowding.flow_panel import check_counts, read_exposures, read_weights
from nfi_pyro.geometry.crowding.permutation_null import null_summary
from nfi_pyro.geometry.results.crowding import CrowdingDensity

MIN_NEIGHBOURS = 10.0
"""Fewest neighbours, as 1 / sum of squared shares, of a point whose density is curved by data."""

MIN_PERMUTATIONS = 19
"""Fewest that make a null: below, the tails of 5 percent hold none."""

_SINGULAR = 1e-10


def crowding_density(
    exposures: xr.DataArray,
    weights: xr.DataArray | None = None,
    *,
    bandwidth: float | None = None,
    n_directions: int = 2,
    min_assets: int = 30,
    n_permutations: int = 99,
    seed: int = 0,
) -> CrowdingDensity:
    """Return the Laplacian of the log density of assets at each of them, and its mean, by date.

    In the flat metric of the exposures' inverse covariance on the date, on their first principal
    directions, each of standard deviation 1: for the Laplacian on a Fisher manifold give
    `log_density` to ``FisherManifold.laplacian``. The density is a kernel estimate without the
    asset itself. A second derivative of it is noisy: read it against its null. Time grows with
    the square of assets, times permutations and dates.

    Parameters
    ----------
    exposures : DataArray, shape (date, asset, factor)
        NaN = absent. To look at one plane, select its two factors.
    weights : DataArray, shape (date, asset), optional
        Holdings, >= 0, any scale. Default: equal.
    bandwidth : float, optional
        Standard deviation of the kernel, in those of a direction. Default: the best one for second
        derivatives of a normal density (Chacon, Duong and Wand, 2011).
    n_directions : int
        2 to 4, at most the factors.
    min_assets : int
        Fewest assets of a date, at least 12, by the effective number ``1 / sum weight^2``.
    n_permutations : int
        Of each direction over assets, >= 19.
    seed : int
        >= 0. Global generators are not touched.

    Returns
    -------
    CrowdingDensity

    Raises
    ------
    ShapeError, SpecError
        As in `crowding_flow`; also if exposures of a date fill fewer directions.
    """
    where = "crowding_density"
    table = read_exposures(exposures, where)
    check_counts(
        where,
        bandwidth=(1.0 if bandwidth is None else bandwidth, 0.05, 10.0),
        n_directions=(n_directions, 2, min(4, table.shape[2])),
        min_assets=(min_assets, 12, math.inf),
        n_permutations=(n_permutations, MIN_PERMUTATIONS, math.inf),
        seed=(seed, 0, math.inf),
    )
    held = read_weights(weights, table, where)
    rng = np.random.default_rng(seed)
    values, n_dates = table.to_numpy(), len(table)
    field, sparse = np.full(held.shape, np.nan), np.zeros(held.shape, dtype=bool)
    level, width, effective = (np.full(n_dates, np.nan) for _ in range(3))
    null = np.full((n_dates, n_permutations), np.nan)
    for date in range(n_dates):
        used = held[date] > 0.0
        weight = held[date, used] / max(held[date].sum(), 1e-300)
        effective[date] = 1.0 / np.square(weight).sum() if used.any() else 0.0
        if effective[date] < min_assets * (1.0 - 1e-9):  # equal weights: up to rounding
            continue
        points = _principal(
            values[date, used], weight, n_directions, str(table[DATE].values[date])[:10]
        )
        width[date] = _bandwidth(weight, n_directions) if bandwidth is None else bandwidth
        field[date, used], level[date] = _curvature(points, weight, width[date])
        sparse[date, used] = np.isnan(field[date, used])
        for place in range(n_permutations):
            null[date, place] = _curvature(rng.permuted(points, axis=0), weight, width[date])[1]
    found = {"level": level} | _beside_null(level, null) | {"bandwidth": width}
    found |= {"n_assets": (held > 0.0).sum(axis=1), "n_effective": effective}
    found |= {"n_sparse": sparse.sum(axis=1)}
    coords = {dim: table[dim].to_numpy() for dim in (DATE, ASSET)}
    units = {"units": "per squared standard deviation of exposure"}
    return CrowdingDensity(
        series=xr.Dataset(
            {name: (DATE, value) for name, value in found.items()}, {DATE: coords[DATE]}
        ),
        field=xr.DataArray(field, coords, (DATE, ASSET), "field", attrs=units),
        sparse=xr.DataArray(sparse, coords, (DATE, ASSET), "sparse"),
    )


def log_density(
    exposures: Tensor, weights: Tensor | None = None, bandwidth: float | None = None
) -> Callable[[Tensor], Tensor]:
    """Return the log of a kernel density of exposures, a smooth function of (..., factor) to (...).

    For ``manifold.laplacian(log_density(exposures), beta)``, the crowding level on a manifold; up
    to 4 factors, beyond which such an estimate says nothing.

    Parameters
    ----------
    exposures : Tensor, shape (asset, factor)
        Finite.
    weights : Tensor, shape (asset,), optional
        Holdings, >= 0, any scale. Default: equal.
    bandwidth : float, optional
        As in `crowding_density`; the kernel has the exposures' covariance, times its square.

    Raises
    ------
    ShapeError
        If the shapes do not agree.
    SpecError
        If there are more than 4 factors, exposures or weights are not finite, weights are
        negative or all 0, `bandwidth` is out of range, or the exposures fill fewer directions
        than factors.
    """
    if exposures.ndim != 2 or (weights is not None and weights.shape != exposures.shape[:1]):
        shape = None if weights is None else tuple(weights.shape)
        raise ShapeError(
            f"exposures must be (asset, factor) and weights (asset,); got "
            f"{tuple(exposures.shape)} and {shape} at log_density. Take the assets of one date."
        )
    n_assets, n_factors = exposures.shape
    check_counts("log_density", bandwidth=(1.0 if bandwidth is None else bandwidth, 0.05, 10.0))
    share = exposures.new_ones(n_assets) if weights is None else weights
    if n_factors > 4 or not bool(torch.isfinite(exposures).all()) or not _is_holding(share):
        raise SpecError(
            f"exposures must be finite and of at most 4 factors, and weights finite, >= 0 and not "
            f"all 0; got {n_factors} factors of {n_assets} assets at log_density. Choose factors, "
            "drop absent assets."
        )
    share = (share / share.sum()).double()
    rows = exposures.double()
    centred = rows - share @ rows
    covariance = centred.T @ (share[:, None] * centred)
    _principal(rows.numpy(), share.numpy(), n_factors, "log_density")  # says if it is singular
    width = _bandwidth(share.numpy(), n_factors) if bandwidth is None else bandwidth
    root = torch.linalg.cholesky(covariance) * width
    constant = root.diagonal().log().sum() + 0.5 * n_factors * math.log(2.0 * math.pi)
    inverse = torch.linalg.solve_triangular(root, torch.eye(n_factors).to(root), upper=False)
    points = rows @ inverse.T

    def evaluate(beta: Tensor) -> Tensor:
        gap = (beta.double() @ inverse.T).unsqueeze(-2) - points
        kernel = share.log() - 0.5 * gap.square().sum(-1)
        return kernel.logsumexp(-1) - constant

    return evaluate


def _is_holding(share: Tensor) -> bool:
    """Return whether weights are finite, >= 0 and not all 0."""
    return bool(torch.isfinite(share).all() and (share >= 0.0).all() and (share > 0.0).any())


def _beside_null(level: np.ndarray, null: np.ndarray) -> dict[str, np.ndarray]:
    """Return the null's summary by date and how far the level is from it; NaN with too few of it.

    A permutation that leaves no asset with neighbours has no level.
    """
    known = np.isfinite(null).sum(axis=1)
    names = ("null_mean", "null_lower", "null_upper", "p_value", "excess")
    found = {name: np.full(len(level), np.nan) for name in names}
    for date in np.flatnonzero(known >= MIN_PERMUTATIONS):
        row = null[date, np.isfinite(null[date])]
        found["null_mean"][date] = row.mean()
        found["excess"][date] = (level[date] - row.mean()) / row.std(ddof=1)
        for name, value in null_summary(level[date], row).items():
            found[name][date] = value
    return found | {"n_null": known}


def _principal(
    exposures: np.ndarray, weight: np.ndarray, n_directions: int, where: str
) -> np.ndarray:
    """Return scores (asset, direction) on the first principal directions, each of variance 1."""
    centred = exposures - weight @ exposures
    values, axes = np.linalg.eigh(centred.T @ (weight[:, None] * centred))
    kept = slice(len(values) - n_directions, None)
    if not values[kept][0] > _SINGULAR * values[-1]:
        raise SpecError(
            f"exposures must fill {n_directions} directions; got covariance eigenvalues from "
            f"{values[kept][0]:.1e} to {values[-1]:.1e} at {where}. Drop collinear factors."
        )
    return centred @ axes[:, kept] / np.sqrt(values[kept])


def _bandwidth(weight: np.ndarray, n_directions: int) -> float:
    """Return the normal-reference bandwidth of second derivatives, standard deviations."""
    effective = 1.0 / float(np.square(weight).sum())
    return (4.0 / ((n_directions + 6.0) * effective)) ** (1.0 / (n_directions + 8.0))


def _curvature(points: np.ndarray, weight: np.ndarray, width: float) -> tuple[np.ndarray, float]:
    """Return the Laplacian of the log kernel density of the others at each point, and its mean.

    ``tr Cov_r(y) / h^4 - D / h^2`` with the covariance of the points under their shares r in the
    kernel; NaN where these come from too few points.
    """
    size = np.square(points).sum(axis=1)
    distance = size[:, None] + size - 2.0 * points @ points.T
    np.fill_diagonal(distance, np.inf)
    kernel = weight * np.exp(-0.5 * distance / width**2)
    total = kernel.sum(axis=1)
    neighbours = np.square(total) / np.maximum(np.square(kernel).sum(axis=1), 1e-300)
    dense = neighbours >= MIN_NEIGHBOURS
    total = np.where(dense, total, 1.0)
    mean = kernel @ points / total[:, None]
    variance = kernel @ size / total - np.square(mean).sum(axis=1)
    laplacian = variance / width**4 - points.shape[1] / width**2
    if not dense.any():
        return np.full(len(points), np.nan), math.nan
    level = weight[dense] @ laplacian[dense] / weight[dense].sum()
    return np.where(dense, laplacian, np.nan), float(level)
