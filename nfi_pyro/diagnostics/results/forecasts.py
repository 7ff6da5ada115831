"""Results of forecast diagnostics: Rank IC, calibration, scores."""

from dataclasses import dataclass

import xarray as xr


@dataclass(frozen=True)
class InformationCoefficient:
    """Rank IC by date and its mean with a serial-dependence robust interval.

    Attributes
    ----------
    rank_ic : DataArray, shape (date,)
        Spearman correlation of forecast mean and realised return over the assets of a date;
        NaN on dates with too few pairs or no variation.
    n_assets : DataArray, shape (date,)
        Pairs that entered each date.
    mean, standard_error : float
        Mean Rank IC over dates and its Newey-West standard error with `n_lags` lags.
    interval : tuple of float
        95 percent interval, normal approximation.
    icir : float
        Mean over standard deviation (ddof 1) of the dates, not annualised.
    n_dates, n_skipped : int
        Dates that count and dates left out.
    """

    rank_ic: xr.DataArray
    n_assets: xr.DataArray
    mean: float
    standard_error: float
    interval: tuple[float, float]
    icir: float
    n_lags: int
    n_dates: int
    n_skipped: int


@dataclass(frozen=True)
class Calibration:
    """Whether the forecast distribution covers what happened.

    Attributes
    ----------
    pit : DataArray, shape (date, asset)
        Probability integral transform F(y), in [0, 1]; NaN where nothing was observed.
    histogram : DataArray, shape (bin,)
        Density of the PIT (1 is uniform), `bin` is the centre; `lower` and `upper` (same shape)
        bound 95 percent of date-block bootstrap resamples around the observed histogram.
    histogram_lower, histogram_upper : DataArray, shape (bin,)
        See `histogram`.
    coverage : Dataset over (level,)
        Nominal levels as coordinate `level`; variables `observed`, `lower`, `upper` (95 percent
        date-block bootstrap interval). Shares in [0, 1].
    n_observations : int
        Observed cells.
    """

    pit: xr.DataArray
    histogram: xr.DataArray
    histogram_lower: xr.DataArray
    histogram_upper: xr.DataArray
    coverage: xr.Dataset
    n_observations: int


@dataclass(frozen=True)
class ScoreTable:
    """Mean scores of several forecasts on the same cells, and their difference from the first.

    Attributes
    ----------
    table : Dataset over (forecast,)
        `log_score` (mean log predictive density per observed cell, nats, returns in
        training-sd units; higher is better), `crps` (decimal return; lower is better),
        `log_score_difference` and `crps_difference` (this forecast minus the first),
        `difference_standard_error` and `crps_difference_standard_error` (Newey-West over dates).
    by_date, crps_by_date : DataArray, shape (forecast, date)
        Mean log score and CRPS per cell by date; NaN on dates without a cell.
    scored : DataArray of bool, shape (date, asset)
        Observed cells that every forecast was scored on.
    n_observations : int
        How many they are.
    """

    table: xr.Dataset
    by_date: xr.DataArray
    crps_by_date: xr.DataArray
    scored: xr.DataArray
    n_observations: int
