"""What one fit's pricing laws say date by date, with one Lambda: the rows of a tracking table."""

import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import SpecError, name_places
from nfi_pyro.geometry.crowding.crowding import ALL_FACTORS, PLANE, crowding_flow
from nfi_pyro.geometry.fisher.checked_law import OUTSIDE
from nfi_pyro.geometry.fisher.cloud import Cloud, cloud_of
from nfi_pyro.geometry.manifold import FisherManifold
from nfi_pyro.geometry.tracking.tracked_books import BOOKS, BookExposure, book_exposure
from nfi_pyro.posterior.dated_weights import DatedWeights
from nfi_pyro.posterior.exposure_pricing import PricingLaw

MAX_UNCOVERED = 0.05
"""Most absolute weight without a law of a book whose exposure counts as known."""

_MIN_ASSETS = 30
_NULL = 19  # permutations of a flow: the fewest there are, their null is not reported here
_BY_BOOK = ("effective_rank", "principal_curvature")
_BY_PAIR = ("distance", "distance_lower", "distance_upper", "mahalanobis")
Figure = tuple[float, bool]
Figures = dict[str, tuple[np.ndarray, np.ndarray]]
"""Values and flags over (date,) by name."""


class DatedExposures(NamedTuple):
    """Exposures of a date: `places` (row,) of its assets in the forecast, `beta` (row, factor)."""

    date: np.datetime64
    places: np.ndarray
    beta: np.ndarray


class TrackedFit(NamedTuple):
    """Figures of one fit by date.

    Attributes
    ----------
    figures : dict of name to values and flags, each (date,)
    exposure : ndarray, shape (book, date, factor)
    precision : ndarray, shape (factor, factor)
        Lambda.
    factors : tuple of str
    """

    figures: Figures
    exposure: np.ndarray
    precision: np.ndarray
    factors: tuple[str, ...]


def track_fit(
    laws: Iterable[PricingLaw],
    dates: np.ndarray,
    assets: np.ndarray,
    books: Sequence[DatedWeights],
    background: Tensor | None,
    *,
    eps: float,
    instrument_lag: int,
) -> TrackedFit:
    """Return the figures of one pass over the laws of `dates`.

    Parameters
    ----------
    laws, background, eps, instrument_lag
        Of one fit, as in `track`; laws before the first of `dates` are for the flow alone.
    dates, assets : ndarray
        Of its forecast.
    books : sequence of DatedWeights
        Portfolio and benchmark.

    Raises
    ------
    SpecError
        If the laws' dates or assets are not the forecast's, no date has a law with assets, or
        the cloud fills too few directions.
    """
    index = pd.Index([str(name) for name in assets])
    precision = None if background is None else cloud_of(background).precision
    rows: list[dict[str, Figure]] = []
    exposure: list[np.ndarray] = []
    flow: list[DatedExposures] = []
    factors: tuple[str, ...] = ()
    for law in laws:
        places = _places(law, index)
        flow.append(DatedExposures(law.date, places, law.beta.detach().numpy()))
        if law.date < dates[0]:
            continue
        _require_date(law, dates, len(rows))
        if precision is None and len(places):
            precision = cloud_of(law.beta).precision
        found = [book_exposure(book, law, len(rows), places) for book in books]
        row = {"n_assets": (float(len(places)), True)}
        row |= {
            f"{name}_uncovered": (one.uncovered, True)
            for name, one in zip(BOOKS, found, strict=True)
        }
        cloud = _cloud(law.beta)
        if precision is not None and cloud is not None:
            manifold = FisherManifold(law, eps, background=law.beta, precision=precision)
            row |= _figures(manifold, cloud, found, eps)
        rows.append(row)
        exposure.append(np.stack([one.exposure for one in found]))
        factors = law.factors
    if len(rows) < len(dates) or precision is None:
        missing = dates[len(rows) :] if precision is not None else dates
        raise SpecError(
            f"every date must have a law; got none on {_days(missing)} at track. Take laws and "
            "forecasts of the same dates."
        )
    figures = _columns(rows) | _crowding(flow, dates, len(assets), instrument_lag)
    return TrackedFit(figures, np.stack(exposure, axis=1), precision.numpy(), factors)


def _require_date(law: PricingLaw, dates: np.ndarray, place: int) -> None:
    """Refuse a law that is not of the next date."""
    wanted = dates[place : place + 1].astype("datetime64[ns]")
    if len(wanted) and wanted[0] == law.date.astype("datetime64[ns]"):
        return
    if len(wanted) and wanted[0] < law.date.astype("datetime64[ns]"):
        raise SpecError(
            f"every date must have a law; got none on {_days(wanted)} at track, the next is of "
            f"{str(law.date)[:10]}. Take laws and forecasts of the same dates, in order."
        )
    raise SpecError(
        f"every law must have a forecast; got none on {str(law.date)[:10]} at track. Take laws and "
        "forecasts of the same dates, in order."
    )


def _days(dates: np.ndarray) -> str:
    """Return at most five dates."""
    return name_places(str(date)[:10] for date in dates)


def _places(law: PricingLaw, index: pd.Index) -> np.ndarray:
    """Return the positions of a law's assets in the forecast."""
    places = index.get_indexer(pd.Index([str(name) for name in law.assets]))
    if (places < 0).any():
        raise SpecError(
            f"assets of a law must be the forecast's; got {name_places(law.assets[places < 0])} on "
            f"{str(law.date)[:10]} at track. Use one panel for both."
        )
    return places


def _cloud(beta: Tensor) -> Cloud | None:
    """Return the cloud of a date's exposures, None where they are too few to fill all directions.

    There is no saying then what is inside, and no figure that depends on it.
    """
    if len(beta) <= beta.shape[-1]:
        return None
    try:
        return cloud_of(beta)
    except SpecError:
        return None


def _figures(
    manifold: FisherManifold, cloud: Cloud, found: Sequence[BookExposure], eps: float
) -> dict[str, Figure]:
    """Return the figures of a date at the books' exposures."""
    points = torch.from_numpy(np.stack([one.exposure for one in found]))
    there = np.isfinite(points.numpy()).all(axis=1)
    near = (cloud.mahalanobis(points) <= OUTSIDE * cloud.reach).numpy()
    known = there & near & np.array([one.uncovered <= MAX_UNCOVERED for one in found])
    row: dict[str, Figure] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows are judged by their flags
        for place, prefix in enumerate(("", "benchmark_")):
            if not there[place]:
                continue
            rank = int(manifold.effective_rank(points[place], eps))
            bent = manifold.principal_curvature(points[place])
            row[f"{prefix}effective_rank"] = float(rank), bool(known[place])
            seen = bool(bent.ok) and rank >= 2
            row[f"{prefix}principal_curvature"] = float(bent.value), bool(known[place] and seen)
        if there.all():
            ends = points[1], points[0]
            path = manifold.log(*ends, polish=False)
            bounds = manifold.distance(*ends, "bounds")
            inside = float(path.mahalanobis) <= OUTSIDE * cloud.reach
            both = bool(known.all()) and inside
            row["distance"] = float(path.distance), both and bool(path.converged)
            row["distance_lower"], row["distance_upper"] = (
                (float(one), both) for one in (bounds.lower, bounds.upper)
            )
            row["mahalanobis"] = float(path.mahalanobis), bool(known.all())
    return row


def _columns(rows: Sequence[dict[str, Figure]]) -> Figures:
    """Return figures over (date,), NaN and not ok where a date has none."""
    names = [f"{prefix}{name}" for name in _BY_BOOK for prefix in ("", "benchmark_")]
    names += [*_BY_PAIR, *(f"{book}_uncovered" for book in BOOKS), "n_assets"]
    figures: Figures = {}
    for name in names:
        cells = [row.get(name, (np.nan, False)) for row in rows]
        value = np.array([cell[0] for cell in cells])
        figures[name] = value, np.array([cell[1] for cell in cells]) & np.isfinite(value)
    return figures


def _crowding(
    flow: Sequence[DatedExposures], dates: np.ndarray, n_assets: int, lag: int
) -> Figures:
    """Return the divergence of the flow of all exposures, and its error, over (date,)."""
    n_factors = flow[0].beta.shape[1]
    empty = np.full(len(dates), np.nan), np.zeros(len(dates), dtype=bool)
    if len(flow) < lag + 2:
        return {"crowding": empty, "crowding_standard_error": empty}
    table = np.full((len(flow), n_assets, n_factors), np.nan)
    for row, one in zip(table, flow, strict=True):
        row[one.places] = one.beta
    days = np.array([one.date for one in flow])
    coords = {DATE: days, ASSET: np.arange(n_assets), FACTOR: np.arange(n_factors)}
    found = crowding_flow(
        xr.DataArray(table, coords, (DATE, ASSET, FACTOR)),
        instrument_lag=lag,
        min_assets=max(_MIN_ASSETS, n_factors + 2),
        n_permutations=_NULL,
    )
    series = found.series.sel({PLANE: ALL_FACTORS}).reindex({DATE: dates})
    known = series["identified"].fillna(False).to_numpy().astype(bool)
    return {
        f"crowding{name}": (series[source].to_numpy(), known)
        for name, source in (("", "divergence"), ("_standard_error", "standard_error"))
    }
