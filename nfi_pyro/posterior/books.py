"""What books of assets were forecast to return, and what they did return, date by date."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import ndtr

from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.ensemble import ForecastEnsemble
from nfi_pyro.posterior.portfolio_law import PortfolioLaw, check_level, sampled_tail
from nfi_pyro.posterior.portfolio_mixture import PortfolioMixture
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.config import check_seed

EQUAL_WEIGHT = "equal weight"
Law = PortfolioLaw | PortfolioMixture


def portfolio_outcomes(
    forecast: ReturnForecast | ForecastEnsemble,
    returns: xr.DataArray,
    *,
    n_random: int = 20,
    n_holdings: int = 50,
    levels: Sequence[float] = (0.95, 0.99),
    draws: int = 10_000,
    seed: int = 0,
) -> xr.Dataset:
    """Return forecast risk and realised return of the equal-weight and of random long-only books.

    Single assets can be calibrated where books are not: only a book shows whether the forecast's
    dependence is right. A random book keeps its preferences through time: it holds the first
    `n_holdings` assets of its own random order that are there on a date, with weights drawn once
    (uniform on the simplex) by place. A book of a date holds assets with a forecast and an
    observed return; what was forecast but not observed is counted, not held at a return of 0.

    Parameters
    ----------
    forecast : ReturnForecast or ForecastEnsemble
        Of returns whose assets have a dependence.
    returns : DataArray over (date, asset)
        Outcomes, decimal; NaN = not observed. Dates are those of both.
    n_random, n_holdings : int
        Random books, and assets in each (fewer where fewer are there).
    levels : sequence of float
        Of value at risk and expected shortfall.
    draws : int
        Joint draws of each book and date, where its law is not normal: the probabilities have a
        standard error of at most ``0.5 / sqrt(draws)``.
    seed : int
        Of books and draws.

    Returns
    -------
    Dataset over (portfolio, date) and (portfolio, date, level)
        `forward_return`, `mean`, `standard_deviation` (decimal return), `pit` (in (0, 1): draws
        give ranks at half places), `value_at_risk` and `expected_shortfall` (positive is a loss);
        `n_assets` and `n_unobserved`. NaN on dates without an asset.

    Raises
    ------
    SpecError
        If the labels are no returns, assets have no dependence, or an option is out of range.
    """
    if n_random < 0 or n_holdings < 1 or draws < 100:
        raise SpecError(
            "n_random must be >= 0, n_holdings >= 1 and draws >= 100; got "
            f"{n_random}, {n_holdings} and {draws}."
        )
    for level in levels:
        check_level(level)
    check_seed(seed)
    first = forecast.members[0] if isinstance(forecast, ForecastEnsemble) else forecast
    entered = first.data["entered"]
    dates = np.intersect1d(entered["date"].values, returns["date"].values)
    outcome = returns.sel(date=dates).reindex(asset=entered["asset"]).transpose("date", "asset")
    values = outcome.values.astype(np.float64)
    there = entered.sel(date=dates).values
    names = [EQUAL_WEIGHT, *(f"random {place + 1}" for place in range(n_random))]
    shape = (len(names), len(dates))
    found = {name: np.full(shape, np.nan) for name in _BY_DATE}
    tails = {name: np.full((*shape, len(levels)), np.nan) for name in _BY_LEVEL}
    counts = {name: np.zeros(shape, dtype=int) for name in ("n_assets", "n_unobserved")}
    orders = _draw_books(len(entered["asset"]), n_random, n_holdings, seed)
    assets = entered["asset"].values
    for column, date in enumerate(dates):
        held = there[column] & np.isfinite(values[column])
        counts["n_unobserved"][:, column] = int((there[column] & ~held).sum())
        if not held.any():
            continue
        whole = forecast.portfolio(dict.fromkeys(assets[held], 1.0 / held.sum()), date=date)
        for row, weights in enumerate(_books(held, orders)):
            kept = weights > 0.0
            counts["n_assets"][row, column] = int(kept.sum())
            law = _with_weights(whole, assets, weights)
            realised = float(weights[kept] @ values[column][kept])
            cells = _judge(law, realised, levels, draws, seed + 1 + column)
            for name, value in cells.items():
                (tails if name in tails else found)[name][row, column] = value
    variables: dict[str, Any] = {
        name: (("portfolio", "date"), value, _attrs(name)) for name, value in found.items()
    }
    variables |= {
        name: (("portfolio", "date"), value, {"units": "1"}) for name, value in counts.items()
    }
    variables |= {
        name: (("portfolio", "date", "level"), value, _attrs(name)) for name, value in tails.items()
    }
    return xr.Dataset(variables, {"portfolio": names, "date": dates, "level": list(levels)})


_BY_DATE = ("forward_return", "mean", "standard_deviation", "pit")
_BY_LEVEL = ("value_at_risk", "expected_shortfall")


def _attrs(name: str) -> dict[str, str]:
    """Return the unit of a variable."""
    return {"units": "1" if name == "pit" else "decimal return"}


def _draw_books(
    n_assets: int, n_random: int, n_holdings: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each random book's order of assets and its weights by place."""
    rng = np.random.default_rng(seed)
    return [
        (rng.permutation(n_assets), rng.dirichlet(np.ones(min(n_holdings, n_assets))))
        for _ in range(n_random)
    ]


def _books(held: np.ndarray, orders: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
    """Yield the weights (asset,) of each book of a date; they sum to 1 where any asset is there."""
    yield held / max(held.sum(), 1)
    for order, shares in orders:
        chosen = order[held[order]][: len(shares)]
        weights = np.zeros(len(held))
        if len(chosen):
            weights[chosen] = shares[: len(chosen)] / shares[: len(chosen)].sum()
        yield weights


def _with_weights(law: Law, assets: np.ndarray, weights: np.ndarray) -> Law:
    """Return the law of other weights (asset,) on the same date."""

    def reweigh(one: PortfolioLaw) -> PortfolioLaw:
        own = np.zeros(len(one.assets))
        _, places, theirs = np.intersect1d(one.assets, assets, return_indices=True)
        own[places] = weights[theirs]
        return replace(one, weights=own)

    if isinstance(law, PortfolioMixture):
        return replace(law, members=tuple(reweigh(member) for member in law.members))
    return reweigh(law)


def _judge(
    law: Law, realised: float, levels: Sequence[float], draws: int, seed: int
) -> dict[str, float | np.ndarray]:
    """Return what one law says of one outcome."""
    if isinstance(law, PortfolioLaw) and law.is_gaussian:
        pit = float(ndtr((realised - law.mean) / law.standard_deviation))
        tails = law.tail_risks(levels)
    else:
        losses = np.sort(-law.draw(draws, np.random.default_rng(seed)))
        above = draws - np.searchsorted(losses, -realised, side="left")
        pit = (above + 0.5) / (draws + 1.0)
        tails = [sampled_tail(losses, level) for level in levels]
    return {
        "forward_return": realised,
        "mean": law.mean,
        "standard_deviation": law.standard_deviation,
        "pit": pit,
        "value_at_risk": np.array([at_risk[0] for at_risk, _ in tails]),
        "expected_shortfall": np.array([shortfall[0] for _, shortfall in tails]),
    }
