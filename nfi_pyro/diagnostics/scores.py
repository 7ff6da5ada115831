"""Scores of forecasts on realised returns, by date, with serial-dependence robust errors."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xarray as xr
from scipy.special import ndtr

from nfi_pyro.data.ranking import rank_correlation
from nfi_pyro.diagnostics.results import InformationCoefficient, ScoreTable
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import ShapeError, SpecError, name_places

_NORMAL_975 = 1.959963984540054


def newey_west_lags(n_dates: int, horizon: int = 1) -> int:
    """Return the lags of a standard error over dates: the usual number, or the labels' overlap.

    ``floor(4 (n / 100)^(2/9))`` (Newey and West, 1994), or ``horizon - 1`` if that is more, since
    labels of `horizon` trading days overlap over so many dates; at most one less than the dates.
    """
    usual = math.floor(4.0 * (n_dates / 100.0) ** (2.0 / 9.0))
    return min(max(usual, horizon - 1), max(n_dates - 1, 0))


def hac_standard_error(series: np.ndarray, n_lags: int | None = None) -> float:
    """Return the Newey-West standard error of the mean of a series.

    Bartlett kernel, no small-sample correction (Newey and West, 1987).

    Parameters
    ----------
    series : ndarray, shape (date,)
        Without NaN; neighbours count as consecutive.
    n_lags : int, optional
        Autocovariances that enter, from 0 to one less than the length. Default:
        `newey_west_lags`, which is always within that bound.

    Returns
    -------
    float
        In the unit of the series; NaN for fewer than two values.

    Raises
    ------
    ShapeError
        If the series is not one-dimensional.
    SpecError
        If it holds a value that is not finite, or `n_lags` is out of range.
    """
    values = np.asarray(series, dtype=np.float64)
    if values.ndim != 1:
        raise ShapeError(
            f"series must have one dimension; got shape {values.shape} at hac_standard_error. "
            "Average over assets first."
        )
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise SpecError(
            f"series must be finite; got {values[wrong[0]]} at position {name_places(wrong)}. "
            "Drop the dates that do not count."
        )
    n = len(values)
    if n_lags is not None and not 0 <= n_lags < max(n, 1):
        raise SpecError(
            f"n_lags must be >= 0 and below the number of dates, {n}; got {n_lags} at "
            "hac_standard_error. Pass fewer lags."
        )
    if n < 2:
        return math.nan
    lags = newey_west_lags(n) if n_lags is None else n_lags
    centred = values - values.mean()
    total = float(centred @ centred)
    for lag in range(1, lags + 1):
        total += 2.0 * (1.0 - lag / (lags + 1.0)) * float(centred[lag:] @ centred[:-lag])
    # The Bartlett sum is a non-negative quadratic form; below 0 it is rounding.
    return math.sqrt(max(total, 0.0)) / n


def information_coefficient(
    forecast_mean: xr.DataArray,
    forward_return: xr.DataArray,
    *,
    min_pairs: int = 5,
    n_lags: int | None = None,
    horizon: int = 1,
) -> InformationCoefficient:
    """Return the Rank IC by date, its mean with a Newey-West error, and the ICIR.

    Parameters
    ----------
    forecast_mean : DataArray, shape (date, asset)
        Known at the close of `date`; any unit, only ranks matter. NaN = no forecast.
    forward_return : DataArray, shape (date, asset)
        Realised later; NaN = not observed. Same dates and assets.
    min_pairs : int
        Fewest assets of a date that counts, >= 2.
    n_lags : int, optional
        Lags of the standard error; default `newey_west_lags` of the dates that count.
    horizon : int
        Trading days of the return, >= 1; more than one overlap and need more lags.

    Returns
    -------
    InformationCoefficient
        Dates with too few pairs or no variation are left out and counted in `n_skipped`; the
        dates around them count as neighbours. Mean, error and ICIR are NaN when too few dates
        are left (one for the mean, two for the others). The ICIR is not annualised.

    Raises
    ------
    ShapeError
        If dimensions, dates or assets differ.
    SpecError
        If `min_pairs` or `n_lags` is out of range.
    """
    forecast = _as_cells(forecast_mean, "forecast_mean")
    realised = _same_cells(forward_return, forecast, "forward_return")
    values = rank_correlation(forecast.to_numpy(), realised.to_numpy(), min_pairs=min_pairs)
    pairs = (forecast.notnull() & realised.notnull()).sum(ASSET).rename("n_assets")
    kept = values[~np.isnan(values)]
    lags = newey_west_lags(len(kept), horizon) if n_lags is None else n_lags
    mean = float(kept.mean()) if len(kept) else math.nan
    error = hac_standard_error(kept, lags) if len(kept) > 1 else math.nan
    spread = float(kept.std(ddof=1)) if len(kept) > 1 else math.nan
    return InformationCoefficient(
        rank_ic=xr.DataArray(values, coords={DATE: forecast[DATE]}, dims=DATE, name="rank_ic"),
        n_assets=pairs,
        mean=mean,
        standard_error=error,
        interval=(mean - _NORMAL_975 * error, mean + _NORMAL_975 * error),
        icir=mean / spread if spread > 0 else math.nan,
        n_lags=lags,
        n_dates=len(kept),
        n_skipped=len(values) - len(kept),
    )


def gaussian_log_score(
    mean: xr.DataArray, scale: xr.DataArray, value: xr.DataArray
) -> xr.DataArray:
    """Return the log density of N(mean, scale^2) at `value`, in nats; higher is better.

    Parameters
    ----------
    mean, scale, value : DataArray, shape (date, asset)
        In one unit; `scale` is a standard deviation, > 0. Labels must agree.

    Returns
    -------
    DataArray, shape (date, asset)
        NaN where any of the three is NaN. For returns in units of c, divide all three by c.

    Raises
    ------
    ShapeError
        If dimensions, dates or assets differ.
    SpecError
        If a scale is not positive.
    """
    standardised, spread = _standardise(mean, scale, value)
    return -0.5 * standardised**2 - np.log(spread) - 0.5 * math.log(2.0 * math.pi)


def gaussian_crps(mean: xr.DataArray, scale: xr.DataArray, value: xr.DataArray) -> xr.DataArray:
    """Return the continuous ranked probability score of N(mean, scale^2); lower is better.

    Closed form of Gneiting and Raftery (2007), equation 21 with the sign turned. Parameters,
    NaN rule and errors are those of `gaussian_log_score`; the unit is that of `value`.
    """
    standardised, spread = _standardise(mean, scale, value)
    density = np.exp(-0.5 * standardised**2) / math.sqrt(2.0 * math.pi)
    below: xr.DataArray = xr.apply_ufunc(ndtr, standardised)
    spacing = standardised * (2.0 * below - 1.0) + 2.0 * density - 1.0 / math.sqrt(math.pi)
    return spread * spacing


def compare_forecasts(
    log_scores: Mapping[str, xr.DataArray],
    crps: Mapping[str, xr.DataArray],
    *,
    horizon: int = 1,
) -> ScoreTable:
    """Return mean scores of several forecasts on the cells that all of them were scored on.

    Parameters
    ----------
    log_scores : mapping of str to DataArray, shape (date, asset)
        Log predictive density by forecast, nats, returns in training-sd units; NaN = not scored.
        The first forecast is the one that the others are compared with.
    crps : mapping of str to DataArray, shape (date, asset)
        Same forecasts, decimal return; NaN = not scored.
    horizon : int
        Trading days of the return, >= 1: see `newey_west_lags`.

    Returns
    -------
    ScoreTable
        Means are over cells; differences and their errors as in `paired_differences`, from the
        first forecast.

    Raises
    ------
    SpecError
        If there is no forecast, the two mappings do not name the same, a score is infinite, or
        no cell is scored by all.
    ShapeError
        If dimensions, dates or assets differ.
    """
    names = list(log_scores)
    if not names or set(names) != set(crps):
        raise SpecError(
            f"crps must name the forecasts of log_scores, at least one; got {sorted(crps)} "
            f"against {sorted(names)} at compare_forecasts. Score every forecast both ways."
        )
    scores = _stack_scores(log_scores, "log_scores")
    errors = _stack_scores({name: crps[name] for name in names}, "crps")
    _same_cells(errors.isel(forecast=0), scores.isel(forecast=0), "crps")
    scored = (scores.notnull() & errors.notnull()).all("forecast").rename("scored")
    count = int(scored.sum())
    if count == 0:
        raise SpecError(
            f"some cell must be scored by every forecast; got none at {name_places(names)}. "
            "Score all of them on the same dates and assets."
        )
    scores, errors = scores.where(scored), errors.where(scored)
    means = {"log_score": scores.mean((DATE, ASSET)), "crps": errors.mean((DATE, ASSET))}
    found = ScoreTable(
        table=xr.Dataset(means),
        by_date=scores.mean(ASSET).rename("log_score"),
        crps_by_date=errors.mean(ASSET).rename("crps"),
        scored=scored,
        n_observations=count,
    )
    differences = paired_differences(found, names[0], horizon=horizon)
    return replace(found, table=found.table.merge(differences))


def paired_differences(scores: ScoreTable, reference: str, *, horizon: int = 1) -> xr.Dataset:
    """Return how every forecast differs from one of them on the cells that all were scored on.

    The error is Newey-West over dates, each date weighted by its cells: the scores of one date
    share the day's factors and are no independent evidence.

    Parameters
    ----------
    scores : ScoreTable
    reference : str
        Name of the forecast that is subtracted.
    horizon : int
        Trading days of the return, >= 1: see `newey_west_lags`.

    Returns
    -------
    Dataset over (forecast,)
        `log_score_difference` and `difference_standard_error` (nats per cell; above 0 is better
        than the reference), `crps_difference` and `crps_difference_standard_error` (decimal
        return; below 0 is better). 0 for the reference itself; errors are NaN on a single date.

    Raises
    ------
    SpecError
        If no forecast has that name.
    """
    names = [str(name) for name in scores.by_date["forecast"].values]
    if reference not in names:
        raise SpecError(
            f"reference must be a forecast of the table; got {reference!r} at paired_differences. "
            f"Choose among {name_places(names)}."
        )
    columns = {
        ("log_score_difference", "difference_standard_error"): scores.by_date,
        ("crps_difference", "crps_difference_standard_error"): scores.crps_by_date,
    }
    per_date = scores.scored.sum(ASSET).to_numpy()
    counted = per_date > 0
    weight = per_date[counted] / per_date[counted].mean()
    lags = newey_west_lags(len(weight), horizon)
    found = {}
    for (difference, error), by_date in columns.items():
        gap = (by_date - by_date.sel(forecast=reference)).transpose("forecast", DATE)
        rows = gap.to_numpy()[:, counted]
        mean = (rows * weight).mean(axis=1)
        deviation = weight * (rows - mean[:, None])
        found[difference] = ("forecast", mean)
        found[error] = ("forecast", [hac_standard_error(row, lags) for row in deviation])
    return xr.Dataset(found, coords={"forecast": scores.by_date["forecast"]})


def _stack_scores(scores: Mapping[str, xr.DataArray], what: str) -> xr.DataArray:
    """Return the scores as (forecast, date, asset), after checking labels and infinities."""
    arrays: list[xr.DataArray] = []
    for name, score in scores.items():
        cells = _as_cells(score, f"{what}[{name!r}]").reset_coords(drop=True)
        if arrays:
            cells = _same_cells(cells, arrays[0], f"{what}[{name!r}]")
        infinite = np.argwhere(np.isinf(cells.to_numpy()))
        if len(infinite):
            places = [(str(cells[DATE].values[t]), cells[ASSET].values[i]) for t, i in infinite]
            raise SpecError(
                f"{what}[{name!r}] must be finite or NaN; got an infinite score at "
                f"{name_places(places)}. Compute the density in logarithms."
            )
        arrays.append(cells.astype(np.float64))
    coords = {"forecast": list(scores), DATE: arrays[0][DATE], ASSET: arrays[0][ASSET]}
    return xr.DataArray(np.stack([array.to_numpy() for array in arrays]), coords=coords)


def _standardise(
    mean: xr.DataArray, scale: xr.DataArray, value: xr.DataArray
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return ``(value - mean) / scale`` and the scale in float64, after checking all three."""
    outcome = _as_cells(value, "value").astype(np.float64)
    centre = _same_cells(mean, outcome, "mean").astype(np.float64)
    spread = _same_cells(scale, outcome, "scale").astype(np.float64)
    wrong = np.argwhere((spread <= 0).to_numpy())
    if len(wrong):
        places = [(str(spread[DATE].values[t]), spread[ASSET].values[i]) for t, i in wrong]
        raise SpecError(
            f"scale must be > 0 or NaN; got {float(spread.values[tuple(wrong[0])])} at "
            f"{name_places(places)}. Set the scale of a missing forecast to NaN."
        )
    return (outcome - centre) / spread, spread


def _as_cells(array: xr.DataArray, what: str) -> xr.DataArray:
    """Return the array as (date, asset)."""
    if set(array.dims) != {DATE, ASSET}:
        raise ShapeError(
            f"{what} must have the dimensions date and asset; got {tuple(array.dims)} at a score. "
            "Reduce or name its dimensions."
        )
    return array.transpose(DATE, ASSET)


def _same_cells(array: xr.DataArray, other: xr.DataArray, what: str) -> xr.DataArray:
    """Return the array as (date, asset), after checking that its labels are those of `other`."""
    cells = _as_cells(array, what)
    for dim in (DATE, ASSET):
        if not cells.indexes[dim].equals(other.indexes[dim]):
            raise ShapeError(
                f"{what} must have the {dim}s of the array it is scored with; got "
                f"{cells.sizes[dim]} against {other.sizes[dim]}, or another order, at {dim}. "
                f"Select the same ones first, for example with .sel({dim}=...)."
            )
    return cells
