"""The part of a diagnosis that judges the joint law: portfolios and their value at risk."""

from dataclasses import replace

import numpy as np
import xarray as xr
from scipy.special import ndtr, ndtri

from nfi_pyro.commands.diagnosis_task import DiagnosisTask
from nfi_pyro.diagnostics.portfolio_calibration import portfolio_coverage
from nfi_pyro.diagnostics.recalibration import fit_scale_recalibration
from nfi_pyro.diagnostics.results import PortfolioCoverage, ValueAtRiskBacktest
from nfi_pyro.diagnostics.var_backtest import backtest_value_at_risk
from nfi_pyro.posterior.portfolio_law import PortfolioLaw, sampled_tail
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.rendering.diagnosis_contents import PortfolioResults

LEVELS = (0.95, 0.99)
N_BOOKS, MOST_HELD = 20, 30
EQUAL = "equal weight"
_LEAST_SCORES = 10


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
    books = _books(laws, task.seed)
    pit, series = _score_books(task, laws, books, 10 * task.draws, LEVELS)
    train = task.laws_of(task.fit.split.train)
    step = max(task.horizon, -(-train.data.sizes["date"] // (2 * task.n_dates)))
    train = task.laws_of(task.fit.split.train, step)
    task.say(f"{1 + N_BOOKS} portfolios on {train.data.sizes['date']} training dates")
    before, _ = _score_books(task, train, books, task.draws, ())
    if not bool(pit.notnull().any()):
        _leave_out(task, "No return of a portfolio was observed.")
        return None
    factors = _scale_factors(before)
    return PortfolioResults(
        coverage=portfolio_coverage(pit, horizon=task.horizon),
        rescaled=_rescale(pit, factors, task.horizon),
        scale_factors=factors,
        n_training_dates=int(before.notnull().any("portfolio").sum()),
        series=series,
        backtests=_backtests(task, series),
        about=_describe(books, task.seed),
    )


def _describe(books: np.ndarray, seed: int) -> str:
    """Return how the books are made."""
    n_held = np.count_nonzero(books[1])
    return (
        "On each date a book holds those of its assets that have a forecast and an observed "
        f"return. The {EQUAL} book holds all assets alike; each of {N_BOOKS} random books holds "
        f"{n_held} assets drawn once, with exponential weights, seed {seed}."
    )


def _leave_out(task: DiagnosisTask, why: str) -> None:
    """Say why there are no portfolios and no value at risk."""
    task.left_out.update(dict.fromkeys(("portfolios", "value-at-risk"), why))


def _books(laws: ReturnForecast, seed: int) -> np.ndarray:
    """Return weights (portfolio, asset) before absent assets are left out: equal, then random."""
    entered = laws.data["entered"].any("date").to_numpy()
    held = np.flatnonzero(entered)
    rng = np.random.default_rng(seed)
    size = min(MOST_HELD, max(2, len(held) // 3), len(held))
    books = np.zeros((1 + N_BOOKS, len(entered)))
    books[0] = 1.0
    for book in books[1:]:
        book[rng.choice(held, size, replace=False)] = rng.exponential(size=size)
    return books


def _score_books(
    task: DiagnosisTask,
    laws: ReturnForecast,
    books: np.ndarray,
    draws: int,
    levels: tuple[float, ...],
) -> tuple[xr.DataArray, xr.Dataset]:
    """Return PIT (portfolio, date), and returns and risk at `levels` of the first book by date."""
    returns = task.outcomes_of(laws).transpose("date", "asset").to_numpy()
    dates = laws.data["date"].values
    pit = np.full((len(books), len(dates)), np.nan)
    realised = np.full(len(dates), np.nan)
    risk = np.full((2, len(levels), len(dates)), np.nan)
    rng = np.random.default_rng(task.seed)
    for place, outcome in enumerate(returns):
        seen = np.isfinite(outcome)
        if not seen.any():
            continue
        law = PortfolioLaw.from_day(laws.data.isel(date=place), np.where(seen, books[0], 0.0))
        kept = laws.data["entered"].values[place]
        held = np.where(seen, books, 0.0)[:, kept]
        for number in np.flatnonzero(held.any(axis=1)):
            own = replace(law, weights=held[number] / held[number].sum())
            value = float(own.weights @ np.where(seen, outcome, 0.0)[kept])
            drawn = None if own.is_gaussian else np.sort(own.draw(draws, rng))
            pit[number, place] = _pit(own, value, drawn)
            if number == 0:
                realised[place], risk[:, :, place] = value, _tails(own, levels, drawn)
    coords = {"level": list(levels), "date": dates}
    series = xr.Dataset(
        {
            "realised": ("date", realised),
            "value_at_risk": (("level", "date"), risk[0]),
            "expected_shortfall": (("level", "date"), risk[1]),
        },
        coords,
    )
    names = [EQUAL, *(f"random {number}" for number in range(1, len(books)))]
    return xr.DataArray(pit, {"portfolio": names, "date": dates}, ("portfolio", "date")), series


def _pit(law: PortfolioLaw, value: float, drawn: np.ndarray | None) -> float:
    """Return the law's distribution function at a return: exact, or of sorted draws."""
    if drawn is None:
        return float(ndtr((value - law.mean) / law.standard_deviation))
    return float((np.searchsorted(drawn, value) + 0.5) / (len(drawn) + 1.0))


def _tails(law: PortfolioLaw, levels: tuple[float, ...], drawn: np.ndarray | None) -> np.ndarray:
    """Return value at risk and expected shortfall (measure, level): exact, or of sorted draws."""
    if drawn is None:
        found = law.tail_risks(levels)
    else:
        found = [sampled_tail(-drawn[::-1], level) for level in levels]
    return np.array([[part[0] for part in one] for one in found]).T


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
    """Return a back-test per level, of every horizon-th date; none where a VaR is no loss."""
    kept = series.isel(date=slice(None, None, task.horizon))
    if bool((kept["value_at_risk"] <= 0.0).any()):
        task.left_out["value-at-risk"] = (
            "On some date the value at risk is a gain, so its exceedances cannot be tested."
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
