"""Restarts of one model as chains: one of each thing per chain, over the same cells."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.posterior.draws import Posterior
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.trained import SVIFit

T = TypeVar("T")


def as_chains(value: T | Sequence[T] | None) -> tuple[T, ...]:
    """Return one object, a sequence of them, or nothing as a tuple."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Sequence) else (value,)


def check_chains(
    fits: Sequence[SVIFit], posteriors: Sequence[Posterior], forecasts: Sequence[ReturnForecast]
) -> None:
    """Refuse what cannot be chains of one InferenceData.

    Raises
    ------
    SpecError
        If there is no fit, the numbers differ, two fits have one seed, or they differ in spec,
        config, split or panel.
    ShapeError
        If posteriors or forecasts differ in their cells, or a forecast has other assets than the
        posteriors.
    """
    counts = [len(fits), len(posteriors), len(forecasts) or len(fits)]
    if not fits or len(set(counts)) > 1:
        raise SpecError(
            "fits, posteriors and forecasts must be one of each per chain; got "
            f"{len(fits)}, {len(posteriors)} and {len(forecasts)}. Give one of each, or sequences "
            "of equal length."
        )
    seeds = [fit.seed for fit in fits]
    if len(set(seeds)) < len(seeds):
        raise SpecError(
            f"chains must be independent restarts; got seeds {seeds}. Equal seeds give equal fits: "
            "leave the copies out."
        )
    for place, fit in enumerate(fits[1:], start=1):
        other = [key for key, value in _design(fits[0]).items() if _design(fit)[key] != value]
        if other:
            raise SpecError(
                f"chains must be restarts of one design; got another {', '.join(other)} in chain "
                f"{place}. Compare different models with az.compare instead."
            )
    _check_cells("posteriors", [posterior.constants for posterior in posteriors], "observed")
    _check_cells("posteriors' draws", [posterior.factors for posterior in posteriors], None)
    _check_cells("forecasts", [forecast.data for forecast in forecasts], "entered")
    assets = posteriors[0].constants["asset"].values
    if forecasts and not np.array_equal(forecasts[0].data["asset"].values, assets):
        raise ShapeError(
            f"forecast and posterior must have the same assets; got "
            f"{forecasts[0].data.sizes['asset']} and {assets.size}. Make both from one panel."
        )


def _design(fit: SVIFit) -> dict[str, Any]:
    """Return what restarts share."""
    return {
        "model": fit.model.name,
        "spec": fit.model.spec,
        "config": fit.config,
        "split": fit.split,
        "panel": fit.provenance["panel_hash"],
    }


def _check_cells(what: str, datasets: Sequence[xr.Dataset], mask: str | None) -> None:
    """Refuse datasets whose sizes, labels or mask are not the first one's."""
    for place, dataset in enumerate(datasets[1:], start=1):
        first = datasets[0]
        same = first.sizes == dataset.sizes and all(
            name in dataset.coords and first[name].equals(dataset[name]) for name in first.coords
        )
        if not same or (mask is not None and not first[mask].equals(dataset[mask])):
            raise ShapeError(
                f"the {what} of every chain must have the same draws, dates, assets and factors; "
                f"got others in chain {place}. Make them from one panel, and align factors first."
            )
