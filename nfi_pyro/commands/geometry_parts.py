"""Parts of a geometry page from the pricing law: exposures, their main axes and their flow."""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from nfi_pyro.commands.geometry_task import GeometryTask
from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.geometry.crowding.crowding import crowding_flow
from nfi_pyro.posterior.exposure_pricing import PricingLaw
from nfi_pyro.rendering.geometry_contents import ExposureFlow
from nfi_pyro.svi.protocol import ExposurePricing

PERMUTATIONS = 99
FEWEST_ASSETS = 30
_MEAN = ("divergence", "lower", "upper", "p_value", "n_dates", "n_skipped")


@dataclass(frozen=True)
class DatedLaws:
    """Pricing laws of consecutive dates, and the exposures in one table.

    Attributes
    ----------
    exposures : DataArray, shape (date, asset, factor)
        NaN where an asset has no law. Begins before the span, for instruments.
    laws : tuple of PricingLaw
        In order.
    """

    exposures: xr.DataArray
    laws: tuple[PricingLaw, ...]


def laws_of(task: GeometryTask) -> DatedLaws | None:
    """Return laws and exposures, or None where the model prices no exposures."""
    if not isinstance(task.fit.model, ExposurePricing):
        why = (
            f"{task.fit.model.name} prices hidden features, not exposures: there is no law of "
            "returns as a function of exposure to measure."
        )
        task.left_out.update(dict.fromkeys(("plane", "flow", "tracking"), why))
        return None
    days = task.flow_days
    task.say(f"exposures of {len(days)} dates")
    assets = task.laws.data[ASSET].to_numpy()
    columns = {name: column for column, name in enumerate(assets)}
    laws = tuple(task.law_pass(task.fit))
    factors = list(laws[-1].factors)
    table = np.full((len(laws), len(assets), len(factors)), np.nan)
    for row, law in zip(table, laws, strict=True):
        row[[columns[name] for name in law.assets]] = law.beta.numpy()
    labels = {DATE: days, ASSET: assets, FACTOR: factors}
    return DatedLaws(xr.DataArray(table, labels, (DATE, ASSET, FACTOR)), laws)


def flow_of(
    task: GeometryTask, exposures: xr.DataArray, centre: np.ndarray, axes: np.ndarray
) -> ExposureFlow | None:
    """Return the flow of exposures on a plane, given its centre and axes (factor, direction)."""
    lag = task.instrument_lag
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
