"""Result of reading a training run's curves."""

from dataclasses import dataclass

import xarray as xr

from nfi_pyro.diagnostics.results.verdict import Verdict


@dataclass(frozen=True)
class Trend:
    """Least-squares slope of the end of a curve.

    Attributes
    ----------
    slope : float
        Nats per observed cell and epoch; NaN for fewer than 5 points.
    standard_error : float
        Newey-West, same unit.
    n_points : int
        Finite points of the curve that entered.
    """

    slope: float
    standard_error: float
    n_points: int

    @property
    def rises(self) -> bool:
        """Whether the slope is more than two standard errors above 0."""
        return self.slope > 2.0 * self.standard_error

    @property
    def falls(self) -> bool:
        """Whether the slope is more than two standard errors below 0."""
        return self.slope < -2.0 * self.standard_error


@dataclass(frozen=True)
class Convergence:
    """Whether a training run has come to rest, and where it was best.

    Attributes
    ----------
    elbo_average : DataArray, shape (step,)
        Exponentially weighted mean of the ELBO, nats per observed cell; its half-life is an epoch.
    objective : str
        What was maximised; only ``elbo`` is a bound.
    elbo_trend : Trend
        Over the last quarter of the steps.
    validation_trend : Trend
        Of the validation log score over the last quarter of the epochs, at least 5.
    trend_since_best : Trend
        Of the validation log score after the best epoch; a fall while the ELBO rises is
        overfitting.
    elbo_gain_since_best : float
        Mean ELBO of the last epoch less that of the best one, nats per observed cell.
    validation_drop : float
        Best validation log score less the last one, >= 0.
    best_epoch, kept_epoch, n_epochs : int
        With the best validation log score, of the weights that the fit returns, and run; from 1.
    best_is_last, overfitted : bool
        Whether the best epoch is the last, and whether later ones overfitted.
    n_skipped, n_steps : int
        Steps that were not finite, and all.
    final_learning_rate_share : float
        Last learning rate over the largest. Near 0 the schedule alone flattens every curve.
    status : str
        Of the fit: ``finished``, ``early stopped``, ``interrupted``.
    verdict : Verdict
    """

    elbo_average: xr.DataArray
    objective: str
    elbo_trend: Trend
    validation_trend: Trend
    trend_since_best: Trend
    elbo_gain_since_best: float
    validation_drop: float
    best_epoch: int
    kept_epoch: int
    n_epochs: int
    best_is_last: bool
    overfitted: bool
    n_skipped: int
    n_steps: int
    final_learning_rate_share: float
    status: str
    verdict: Verdict
