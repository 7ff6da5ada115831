"""How a run's forecasts did on a span of dates: Rank IC, calibration, scores against baselines."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.splits import DateSpan
from nfi_pyro.diagnostics.calibration import calibrate
from nfi_pyro.diagnostics.gaussian_baselines import ewma_gaussian, unconditional_gaussian
from nfi_pyro.diagnostics.results import Calibration, InformationCoefficient, ScoreTable
from nfi_pyro.diagnostics.scores import (
    compare_forecasts,
    gaussian_crps,
    gaussian_log_score,
    information_coefficient,
)
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.trained import SVIFit

UNCONDITIONAL = "unconditional Gaussian"
EWMA = "EWMA-volatility Gaussian"


@dataclass(frozen=True)
class Evaluation:
    """Results of one span of dates.

    Attributes
    ----------
    span : DateSpan
        Signal dates that count.
    information_coefficient : InformationCoefficient
    calibration : Calibration
    scores : ScoreTable
        The fit first, then the unconditional and the EWMA-volatility Gaussian.
    """

    span: DateSpan
    information_coefficient: InformationCoefficient
    calibration: Calibration
    scores: ScoreTable


def evaluate(fit: SVIFit, laws: ReturnForecast, panel: Panel, span: DateSpan) -> Evaluation:
    """Return how the forecasts of `span` compare with what the panel says came after.

    Only cells with a forecast and an observed return count. Log scores are of returns divided
    by the fit's training standard deviation; CRPS is decimal.

    Parameters
    ----------
    fit : SVIFit
    laws : ReturnForecast
        Forecasts that include the span.
    panel : Panel
        Outcomes, and closing prices for the EWMA baseline (realised labels without them).
    span : DateSpan

    Raises
    ------
    SpecError
        If no cell of the span has both a forecast and an outcome.
    """
    chosen = laws.data.isel(date=span.positions(laws.data["date"].values))
    own = ReturnForecast(chosen)
    entered = chosen["entered"]
    returns = panel["forward_return"].sel(date=chosen["date"]).astype(np.float64).where(entered)
    unit = fit.return_scale
    baselines = _baselines(fit, panel, returns)
    log_scores = {str(fit.provenance["model"]): own.log_prob(returns) + float(np.log(unit))}
    crps = {str(fit.provenance["model"]): own.crps(returns)}
    for name, (mean, scale) in baselines.items():
        log_scores[name] = gaussian_log_score(mean / unit, scale / unit, returns / unit)
        crps[name] = gaussian_crps(mean, scale, returns)
    return Evaluation(
        span=span,
        information_coefficient=information_coefficient(own.mean, returns),
        calibration=calibrate(own.cdf(returns)),
        scores=compare_forecasts(log_scores, crps),
    )


def _baselines(
    fit: SVIFit, panel: Panel, returns: xr.DataArray
) -> dict[str, tuple[xr.DataArray, xr.DataArray]]:
    """Return mean and scale (date, asset) of each baseline; both know only the past."""
    train = (
        panel["forward_return"]
        .isel(date=fit.split.train.positions(panel["date"].values))
        .where(panel["tradable"])
    )
    timing = {key: int(fit.label[key]) for key in ("start_lag", "horizon")}
    if "close" in panel:
        volatility = ewma_gaussian(panel["close"].astype(np.float64), returns, **timing)
    else:
        mean, scale = ewma_gaussian(None, panel["forward_return"], **timing)
        volatility = (mean.sel(date=returns["date"]), scale.sel(date=returns["date"]))
    return {
        UNCONDITIONAL: unconditional_gaussian(train, returns["date"], returns["asset"]),
        EWMA: volatility,
    }
