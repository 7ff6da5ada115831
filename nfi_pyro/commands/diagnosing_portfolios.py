"""The part of a diagnosis that judges the joint law: portfolios and their value at risk."""

import numpy as np
import xarray as xr
from scipy.special import ndtr, ndtri

from nfi_pyro.commands.diagnosis_task import DiagnosisTask
from nfi_pyro.diagnostics.portfolio_calibration import portfolio_coverage
from nfi_pyro.diagnostics.recalibration import fit_scale_recalibration
from nfi_pyro.diagnostics.results import PortfolioCoverage, ValueAtRiskBacktest
from nfi_pyro.diagnostics.var_backtest import backtest_value_at_risk
from nfi_pyro.posterior.books import EQUAL_WEIGHT, portfolio_outcomes
from nfi_pyro.rendering.diagnosis_contents import PortfolioResults

LEVELS = (0.95, 0.99)
N_BOOKS, N_HELD = 20, 30
_LEAST_SCORES = 10
_LEAST_DRAWS = 100


def portfolios_of(task: DiagnosisTask) -> PortfolioResults | None:
    """Return how the joint law did for portfolios, or None where it has none."""
    attrs = task.laws.data.attrs
    if attrs["dependence"] == "none" or attrs["unit"] != "return":
        why = (
            "The forecast knows no dependence between assets"
            if attrs["dependence"] == "none"
            else f"The label's unit is {attrs['unit']}, not a return"
        )
        _leave_out(task, f"{why}, so there is no law of a portfolio to judge.")
        return None
    laws = task.laws_of(task.span)
    task.say(f"{1 + N_BOOKS} portfolios on {task.n_span} dates")
    options = {"n_random": N_BOOKS, "n_holdings": N_HELD, "seed": task.seed}
    books = portfolio_outcomes(
        laws, task.outcomes_of(laws), levels=LEVELS, draws=10 * task.draws, **options
    )
    pit = books["pit"]
    train = task.laws_of(task.fit.split.train)
    step = max(task.horizon, -(-train.data.sizes["date"] // (2 * task.n_dates)))
    train = task.laws_of(task.fit.split.train, step)
    task.say(f"{1 + N_BOOKS} portfolios on {train.data.sizes['date']} training dates")
    draws = max(task.draws, _LEAST_DRAWS)
    before = portfolio_outcomes(train, task.outcomes_of(train), levels=(), draws=draws, **options)[
        "pit"
    ]
    if not bool(pit.notnull().any()):
        _leave_out(task, "No return of a portfolio was observed.")
        return None
    factors = _scale_factors(before)
    series = _series(books)
    return PortfolioResults(
        coverage=portfolio_coverage(pit, horizon=task.horizon),
        rescaled=_rescale(pit, factors, task.horizon),
        scale_factors=factors,
        n_training_dates=int(before.notnull().any("portfolio").sum()),
        series=series,
        backtests=_backtests(task, series),
        about=(
            "On each date a book holds those of its assets that have a forecast and an observed "
            f"return. The {EQUAL_WEIGHT} book holds all assets alike; each of {N_BOOKS} random "
            f"books holds at most {N_HELD}, in an order of its own, with weights drawn once, "
            f"seed {task.seed}."
        ),
    )


def _leave_out(task: DiagnosisTask, why: str) -> None:
    """Say why there are no portfolios and no value at risk."""
    task.left_out.update(dict.fromkeys(("portfolios", "value-at-risk"), why))


def _series(books: xr.Dataset) -> xr.Dataset:
    """Return realised return and risk of the equal-weight book by date."""
    own = books.sel(portfolio=EQUAL_WEIGHT, drop=True).rename(forward_return="realised")
    return own[["realised", "value_at_risk", "expected_shortfall"]].transpose("level", "date")


def _scale_factors(train_pit: xr.DataArray) -> xr.DataArray | None:
    """Return the factor of each portfolio's scale from training dates; None with too few."""
    scores = xr.apply_ufunc(ndtri, train_pit)
    counts = np.isfinite(scores).sum("date").values
    if (counts < _LEAST_SCORES).any() or np.isinf(scores).any():
        return None
    factors = [fit_scale_recalibration(row).factor for row in scores]
    return xr.DataArray(factors, {"portfolio": train_pit["portfolio"]}, ("portfolio",))


def _rescale(
    pit: xr.DataArray, factors: xr.DataArray | None, horizon: int
) -> PortfolioCoverage | None:
    """Return coverage after every portfolio's normal scores were divided by its factor."""
    if factors is None:
        return None
    return portfolio_coverage(xr.apply_ufunc(ndtr, xr.apply_ufunc(ndtri, pit) / factors),
                              horizon=horizon)  # fmt: skip


def _backtests(task: DiagnosisTask, series: xr.Dataset) -> tuple[ValueAtRiskBacktest, ...]:
    """Return a back-test per level, of every horizon-th date; none where most VaR is no loss."""
    kept = series.isel(date=slice(None, None, task.horizon))
    if bool(((kept["value_at_risk"] < 0.0).mean("date") > 0.5).any()):
        task.left_out["value-at-risk"] = (
            "On most dates the value at risk is a gain, so its exceedances cannot be tested."
        )
        return ()
    return tuple(
        backtest_value_at_risk(
            kept["realised"],
            kept["value_at_risk"].sel(level=level, drop=True),
            level=level,
            expected_shortfall=kept["expected_shortfall"].sel(level=level, drop=True),
            seed=task.seed,
        )
        for level in LEVELS
    )
