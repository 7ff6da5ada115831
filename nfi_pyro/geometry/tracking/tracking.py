"""Tracking: the geometry of a run through time, in one table with a flag by figure."""

from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from torch import Tensor

from nfi_pyro.dims import ASSET, CHAIN, DATE, FACTOR
from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry.crowding.flow_panel import check_counts
from nfi_pyro.geometry.manifold import ONE_YEAR
from nfi_pyro.geometry.results.regime import RegimeAlarm, RegimeShifts
from nfi_pyro.geometry.results.tracking import Tracking
from nfi_pyro.geometry.states.state_checks import FACTOR_OTHER
from nfi_pyro.geometry.states.states import factor_states, state_distances
from nfi_pyro.geometry.tracking.regime import regime_shifts
from nfi_pyro.geometry.tracking.tracked_books import BOOKS
from nfi_pyro.geometry.tracking.tracked_fit import Figures, TrackedFit, track_fit
from nfi_pyro.posterior.dated_weights import DatedWeights
from nfi_pyro.posterior.exposure_pricing import PricingLaw
from nfi_pyro.posterior.intervals import attained_level, interval_over
from nfi_pyro.posterior.portfolio_law import Weights
from nfi_pyro.posterior.return_forecast import ReturnForecast

LEVEL = 0.9
UNITS = {
    "crowding": "per date",
    "crowding_standard_error": "per date",
    "mahalanobis": "standard deviations of exposure",
    "portfolio_uncovered": "share of absolute weight",
    "benchmark_uncovered": "share of absolute weight",
}

_STATE = ("step", "travelled", "displacement")
Laws = Iterable[PricingLaw]


def track(
    forecasts: ReturnForecast | Sequence[ReturnForecast],
    laws: Laws | Sequence[Laws],
    *,
    portfolio: Weights | None = None,
    benchmark: Weights | None = None,
    background: Tensor | Sequence[Tensor] | None = None,
    eps: float = ONE_YEAR,
    instrument_lag: int = 1,
    alarm: RegimeAlarm | None = None,
) -> Tracking:
    """Return the geometry of a run by date: how far its states and a portfolio's exposure are.

    Figures count as identified (`ok`) as follows. State figures: the fit has latent factors; the
    step is from the second date on. Ranks: the exposure is known, which takes a law for all but 5
    percent of the book's absolute weight, and is inside twice the reach of the date's exposures.
    Curvatures: also an effective rank of 2 or more, since a plane that returns cannot see has no
    curvature that they could contradict. Distance: both exposures are known, the geodesic
    converged and stays inside. Crowding: see `crowding_flow`. A book of several assets is placed
    at its mean exposure: figures there are of a single asset with that exposure, not of the
    book's own law.

    Parameters
    ----------
    forecasts : ReturnForecast or sequence of them
        One for each fit, on the same dates. Restarts of a model, or draws of it.
    laws : iterable of PricingLaw, or sequence of iterables
        One for each fit: ``pricing_laws(fit, panel, dates=...)``, on the dates of the forecasts,
        in order. Each is read once. Laws of consecutive dates just before serve the flow of
        exposures, which is not identified on the first ``instrument_lag + 1`` dates otherwise.
    portfolio, benchmark : mapping, Series, or DataArray (asset,) or (date, asset)
        Asset to fraction of capital, of any sign. By default equal weights of the assets that
        have a law on the date.
    background : Tensor, shape (row, factor), or a sequence of them, optional
        Cloud of exposures for each fit, whose inverse covariance is Lambda on all dates, for
        example those of training dates. Default: those of the first date with a law.
    eps : float
        Weight of Lambda, > 0; 1 / eps returns are what effective ranks are about.
    instrument_lag : int
        Dates from instrument to start of a flow of exposures, >= 1, see `crowding_flow`: exposures
        that are estimated over a window of dates need that window.
    alarm : RegimeAlarm, optional
        Of earlier dates, see `calibrate_regime_alarm`.

    Returns
    -------
    Tracking

    Raises
    ------
    ShapeError
        If there are not as many passes of laws, or clouds, as forecasts.
    SpecError
        If a date has no law or a law no forecast, an asset of a law is none of the forecast's, an
        option is out of range, or as in `state_distances` and `FisherManifold`.
    WeightsError
        If a book names an unknown asset, a weight is not finite, or a date has none.
    """
    several = not isinstance(forecasts, ReturnForecast)
    members = [forecasts] if isinstance(forecasts, ReturnForecast) else list(forecasts)
    passes: list[Laws] = list(laws) if several else [laws]  # type: ignore[list-item, arg-type]
    clouds = _clouds(background, several, len(members))
    _check_members(members, passes)
    check_counts(
        "track",
        eps=(eps, np.finfo(float).tiny, np.finfo(float).max),
        instrument_lag=(instrument_lag, 1, np.inf),
    )
    dates = members[0].data[DATE].to_numpy()
    assets = members[0].data[ASSET].to_numpy()
    books = tuple(
        DatedWeights(held, dates, assets, f"the {name}")
        for name, held in zip(BOOKS, (portfolio, benchmark), strict=True)
    )
    states, shifts = _states(members, dates, alarm)
    fits = [
        track_fit(one, dates, assets, books, cloud, eps=eps, instrument_lag=instrument_lag)
        for one, cloud in zip(passes, clouds, strict=True)
    ]
    _check_factors(fits)
    source = "exposures of the first date with a law" if background is None else "the background"
    return _label(fits, states, shifts, dates, several=several, source=source, eps=eps)


def _clouds(
    background: Tensor | Sequence[Tensor] | None, several: bool, count: int
) -> list[Tensor | None]:
    """Return a cloud or None for each fit."""
    if background is None:
        return [None] * count
    clouds = [background] if isinstance(background, Tensor) else list(background)
    if len(clouds) != count or isinstance(background, Tensor) == several:
        raise ShapeError(
            f"background must be one cloud for each of the {count} fits; got {len(clouds)} at "
            "track. Factors of one fit are not those of another."
        )
    return list(clouds)


def _check_members(members: Sequence[ReturnForecast], passes: Sequence[object]) -> None:
    """Refuse fits without laws, or on other dates or assets."""
    if not members or len(passes) != len(members):
        raise ShapeError(
            f"laws must be one pass for each forecast; got {len(passes)} for {len(members)} at "
            "track. Pass pricing_laws of each fit."
        )
    for place, member in enumerate(members):
        for dim in (DATE, ASSET):
            if not member.data.indexes[dim].equals(members[0].data.indexes[dim]):
                raise ShapeError(
                    f"forecasts must have the same {dim}s; got others in forecast {place} at "
                    "track. Forecast each with one panel on one span."
                )


def _check_factors(fits: Sequence[TrackedFit]) -> None:
    """Refuse fits with other numbers of factors."""
    counts = [len(fit.factors) for fit in fits]
    if len(set(counts)) > 1:
        raise ShapeError(
            f"fits must have one number of factors; got {counts} at track. Track restarts of one "
            "model."
        )


def _states(
    members: Sequence[ReturnForecast], dates: np.ndarray, alarm: RegimeAlarm | None
) -> tuple[list[Figures], RegimeShifts | None]:
    """Return the figures of the factors' law of each fit, and what the alarm raised."""
    shape = len(dates)
    if not all("factor_loc" in member.data for member in members):
        if alarm is not None:
            raise SpecError(
                "an alarm must have factors to watch; got a model without latent factors at "
                "track. Pass alarm=None."
            )
        none = {f"state_{name}": (np.full(shape, np.nan), np.zeros(shape, bool)) for name in _STATE}
        return [none] * len(members), None
    states = factor_states(members)
    found = state_distances(states, level=LEVEL)
    shifts = None if alarm is None else regime_shifts(states, alarm)
    figures: list[Figures] = []
    for place in range(len(members)):
        own: Figures = {}
        for name in _STATE:
            value = getattr(found, name).isel({CHAIN: place}).to_numpy()
            own[f"state_{name}"] = (value, np.isfinite(value))
        if shifts is not None:
            series = shifts.series
            own["shift_p_value"] = (series["p_value"].to_numpy(), series["monitored"].to_numpy())
        figures.append(own)
    return figures, shifts


def _label(
    fits: Sequence[TrackedFit],
    states: Sequence[Figures],
    shifts: RegimeShifts | None,
    dates: np.ndarray,
    *,
    several: bool,
    source: str,
    eps: float,
) -> Tracking:
    """Return the result with its labels."""
    whole = [state | fit.figures for state, fit in zip(states, fits, strict=True)]
    dims: tuple[str, ...] = (CHAIN,) if several else ()

    def stack(rows: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(rows) if several else rows[0]

    def table(part: int) -> xr.Dataset:
        names = {
            name: ((*dims, DATE), stack([one[name][part] for one in whole])) for name in whole[0]
        }
        return xr.Dataset(names, {DATE: dates})

    figures, ok = table(0), table(1)
    for name, variable in figures.items():
        variable.attrs["units"] = UNITS.get(str(name), "1")
    interval, words = None, "none: one fit was given, which says nothing of its own error"
    if several and len(fits) > 1:
        enough = ok.sum(CHAIN) >= 2
        interval = interval_over(figures.where(ok), level=LEVEL).where(enough)
        words = f"spread over {len(fits)} fits"
    factors = list(fits[0].factors)
    labels = {FACTOR: factors, FACTOR_OTHER: factors}
    return Tracking(
        figures=figures,
        ok=ok,
        exposure=xr.DataArray(
            stack([fit.exposure for fit in fits]),
            {"book": list(BOOKS), DATE: dates, FACTOR: factors},
            (*dims, "book", DATE, FACTOR),
            "exposure",
        ),
        interval=interval,
        interval_source=words,
        level=attained_level(len(fits), LEVEL) if several else LEVEL,
        precision=xr.DataArray(
            stack([fit.precision for fit in fits]), labels, (*dims, FACTOR, FACTOR_OTHER)
        ),
        precision_source=source,
        eps=eps,
        shifts=shifts,
    )
