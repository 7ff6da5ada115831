"""Parts of a geometry page from the pricing law: flow of exposures, and the metric by date."""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from nfi_pyro.commands.geometry_task import GeometryTask
from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import SpecError
from nfi_pyro.geometry.crowding.crowding import crowding_flow
from nfi_pyro.geometry.manifold import FisherManifold
from nfi_pyro.posterior.exposure_pricing import PricingLaw, pricing_laws
from nfi_pyro.rendering.geometry_contents import ExposureFlow
from nfi_pyro.svi.protocol import ExposurePricing

PERMUTATIONS = 99
FEWEST_ASSETS = 30
_MEAN = ("divergence", "lower", "upper", "p_value", "n_dates", "n_skipped")


@dataclass(frozen=True)
class DatedLaws:
    """Exposures of consecutive dates, and the pricing laws of the dates that are visited.

    Attributes
    ----------
    exposures : DataArray, shape (date, asset, factor)
        NaN where an asset has no law. Begins before the span, for instruments.
    visited : tuple of PricingLaw
        In order; at least one.
    """

    exposures: xr.DataArray
    visited: tuple[PricingLaw, ...]


def laws_of(task: GeometryTask) -> DatedLaws | None:
    """Return exposures and laws, or None where the model prices no exposures."""
    if not isinstance(task.fit.model, ExposurePricing):
        why = (
            f"{task.fit.model.name} prices hidden features, not exposures: there is no law of "
            "returns as a function of exposure to measure."
        )
        task.left_out.update(dict.fromkeys(("plane", "flow", "dates"), why))
        return None
    first = max(task.place.start - instrument_lag(task) - 1, 0)
    days = task.days[first : task.place.stop]
    task.say(f"exposures of {len(days)} dates")
    assets = task.laws.data[ASSET].to_numpy()
    columns = {name: column for column, name in enumerate(assets)}
    kept, rows, visited = set(task.visited), [], []
    names: tuple[str, ...] = ()
    for law in pricing_laws(task.fit, task.panel, dates=(str(days[0])[:10], str(days[-1])[:10])):
        names = law.factors
        row = np.full((len(assets), len(names)), np.nan)
        row[[columns[name] for name in law.assets]] = law.beta.numpy()
        rows.append(row)
        if law.date in kept:
            visited.append(law)
    labels = {DATE: days, ASSET: assets, FACTOR: list(names)}
    return DatedLaws(xr.DataArray(np.stack(rows), labels, (DATE, ASSET, FACTOR)), tuple(visited))


def instrument_lag(task: GeometryTask) -> int:
    """Return the dates from instrument to flow: the window that exposures are estimated over."""
    return int(task.fit.model.spec.lags)


def flow_of(
    task: GeometryTask, exposures: xr.DataArray, centre: np.ndarray, axes: np.ndarray
) -> ExposureFlow | None:
    """Return the flow of exposures on a plane, given its centre and axes (factor, direction)."""
    lag = instrument_lag(task)
    counts = exposures.notnull().all(FACTOR).sum(ASSET)
    if len(exposures) < lag + 2 or int(counts.max()) < FEWEST_ASSETS:
        task.left_out["flow"] = (
            f"A flow needs {lag + 2} consecutive dates and {FEWEST_ASSETS} assets that have a law "
            f"on all of them; there are {len(exposures)} dates and at most {int(counts.max())} "
            "assets."
        )
        return None
    task.say(f"flow of exposures on {len(exposures) - lag - 1} dates")
    scores = xr.DataArray(
        (exposures.to_numpy() - centre) @ axes,
        {DATE: exposures[DATE], ASSET: exposures[ASSET], FACTOR: ["first", "second"]},
        (DATE, ASSET, FACTOR),
    )
    found = crowding_flow(
        scores,
        instrument_lag=lag,
        min_assets=FEWEST_ASSETS,
        n_permutations=PERMUTATIONS,
        seed=task.seed,
    )
    series = found.series.isel(plane=0)
    names = ["divergence", "null_lower", "null_upper", "identified"]
    inside = np.isin(series[DATE].to_numpy(), task.dates)
    mean = found.mean.isel(plane=0)
    return ExposureFlow(
        series[names].isel({DATE: inside}), {name: float(mean[name]) for name in _MEAN}, lag
    )


def dates_of(task: GeometryTask, laws: DatedLaws) -> xr.Dataset | None:
    """Return the law at the equal-weight book's exposure on the visited dates, all factors."""
    task.say(f"metric at the book's exposure on {len(laws.visited)} dates")
    rows = []
    try:
        for law in laws.visited:
            manifold = FisherManifold(law, background=laws.visited[0].beta)
            book = law.beta.mean(0)
            curvature = manifold.principal_curvature(book)
            rank = manifold.effective_rank(book)
            values = manifold.spectrum(book)[0]
            rows.append(
                {
                    "effective_rank": int(rank),
                    "condition": float(manifold.condition(book)),
                    "second_eigenvalue": float(values[1]) if len(values) > 1 else np.nan,
                    "mahalanobis": float(manifold.mahalanobis(book)),
                    "curvature": float(curvature.value),
                    "curvature_ok": bool(curvature.ok & (rank >= 2)),
                    "n_assets": len(law.beta),
                }
            )
    except SpecError as error:  # collinear exposures, or a network without second derivatives
        task.left_out["dates"] = f"The metric could not be had: {error}"
        return None
    table = {name: (DATE, np.array([row[name] for row in rows])) for name in rows[0]}
    return xr.Dataset(table, {DATE: [law.date for law in laws.visited]})


def principal_axes(law: PricingLaw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centre, unit vectors (factor, direction) and variances of a date's exposures.

    Largest variance first; a vector's largest entry is positive.
    """
    beta = law.beta.numpy()
    variances, vectors = np.linalg.eigh(np.atleast_2d(np.cov(beta.T)))
    vectors = vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(vectors.shape[1])])
    return beta.mean(axis=0), vectors * signs, variances[::-1]


def tensor(values: np.ndarray) -> torch.Tensor:
    """Return a float64 copy."""
    return torch.tensor(np.ascontiguousarray(values), dtype=torch.float64)
