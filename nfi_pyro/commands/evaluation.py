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
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.trained import SVIFit

UNCONDITIONAL = "unconditional Gaussian"
EWMA = "EWMA-volatility Gaussian"
KNOWN_IN_TRAINING = {
    "test": "not used in training or early stopping",
    "validation": "not trained on, but used to stop training: slightly optimistic",
}


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


@dataclass(frozen=True)
class CellScores:
    """What a forecast said of each outcome, all (date, asset); NaN without forecast or outcome.

    Attributes
    ----------
    forward_return : DataArray
        Outcomes of the cells that the forecast entered, in the label's unit.
    mean : DataArray
        Forecast mean, in the label's unit; also where there is no outcome.
    pit : DataArray
        Forecast distribution function at the outcome.
    log_score : DataArray
        Nats, of returns in units of the `unit` that was asked for.
    crps : DataArray
        In the label's unit.
    """

    forward_return: xr.DataArray
    mean: xr.DataArray
    pit: xr.DataArray
    log_score: xr.DataArray
    crps: xr.DataArray


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
    unit, horizon = fit.return_scale, int(fit.label["horizon"])
    own = score_cells(laws, panel, span, unit=unit)
    log_scores = {str(fit.provenance["model"]): own.log_score}
    crps = {str(fit.provenance["model"]): own.crps}
    baselines = score_baselines(panel, own.forward_return, fit.split.train, unit=unit)
    for name, (log_score, error) in baselines.items():
        log_scores[name], crps[name] = log_score, error
    return Evaluation(
        span=span,
        information_coefficient=information_coefficient(
            own.mean, own.forward_return, horizon=horizon
        ),
        calibration=calibrate(own.pit),
        scores=compare_forecasts(log_scores, crps, horizon=horizon),
    )


def score_cells(laws: ReturnForecast, panel: Panel, span: DateSpan, *, unit: float) -> CellScores:
    """Return the scores of every cell of `span` with a forecast.

    Parameters
    ----------
    laws : ReturnForecast
    panel : Panel
        Outcomes.
    span : DateSpan
        Holds at least one date of the forecasts.
    unit : float
        Return that counts as 1 in the log score, > 0; the label's unit.

    Raises
    ------
    SplitError
        If no forecast is of the span.
    """
    own = ReturnForecast(laws.data.isel(date=span.positions(laws.data["date"].values)))
    returns = panel["forward_return"].sel(date=own.data["date"]).astype(np.float64)
    returns = returns.where(own.data["entered"])
    return CellScores(
        forward_return=returns,
        mean=own.mean,
        pit=own.cdf(returns),
        log_score=own.log_prob(returns) + float(np.log(unit)),
        crps=own.crps(returns),
    )


def score_baselines(
    panel: Panel, returns: xr.DataArray, train: DateSpan, *, unit: float
) -> dict[str, tuple[xr.DataArray, xr.DataArray]]:
    """Return log score and CRPS (date, asset) of each Gaussian baseline; both know only the past.

    Parameters
    ----------
    panel : Panel
        Training outcomes, and closing prices where it has them (realised labels otherwise).
    returns : DataArray, shape (date, asset)
        Outcomes to score, in the label's unit; NaN = not scored.
    train : DateSpan
        Dates whose returns make the unconditional Gaussian.
    unit : float
        As in `score_cells`.
    """
    label = panel["forward_return"].attrs
    trained = (
        panel["forward_return"]
        .isel(date=train.positions(panel["date"].values))
        .where(panel["tradable"])
    )
    timing = {key: int(label[key]) for key in ("start_lag", "horizon")}
    if "close" in panel:
        volatility = ewma_gaussian(panel["close"].astype(np.float64), returns, **timing)
    else:
        mean, scale = ewma_gaussian(None, panel["forward_return"], **timing)
        volatility = (mean.sel(date=returns["date"]), scale.sel(date=returns["date"]))
    laws = {
        UNCONDITIONAL: unconditional_gaussian(trained, returns["date"], returns["asset"]),
        EWMA: volatility,
    }
    return {
        name: (
            gaussian_log_score(mean / unit, scale / unit, returns / unit),
            gaussian_crps(mean, scale, returns),
        )
        for name, (mean, scale) in laws.items()
    }


def evaluation_span(fit: SVIFit, span: str | None, where: str = "the run") -> tuple[str, DateSpan]:
    """Return the name and dates of the span to evaluate: test where there is one, by default.

    Parameters
    ----------
    fit : SVIFit
    span : {"test", "validation"}, optional
    where : str
        What an error calls the run.

    Raises
    ------
    SpecError
        If the name is another, or the run's split has no such span.
    """
    spans = {"test": fit.split.test, "validation": fit.split.validation}
    name = span or ("test" if fit.split.test is not None else "validation")
    if name not in spans:
        raise SpecError(f"span must be test or validation; got {name!r}. Use one of them.")
    dates = spans[name]
    if dates is None:
        raise SpecError(
            f"a test span must be in the split of {where} to be evaluated; got none. Use "
            "--span validation, or fit with a test span."
        )
    return name, dates
