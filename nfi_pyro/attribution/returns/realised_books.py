"""The books of past dates and what they earned: weights, returns, and what was not observed."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.data.panel import Panel
from nfi_pyro.dims import DATE
from nfi_pyro.errors import ShapeError, SpecError, name_places
from nfi_pyro.posterior.blocks import DateRange, open_pass, require_label
from nfi_pyro.posterior.dated_weights import DatedWeights, Held
from nfi_pyro.svi.trained import SVIFit

Unobserved = Literal["error", "renormalise"]
UNOBSERVED = ("error", "renormalise")


@dataclass(frozen=True)
class RealisedBooks:
    """Books of consecutive signal dates with the returns that followed, float64.

    Attributes
    ----------
    dates, assets : ndarray
    weights : ndarray, shape (date, asset)
        As attributed; 0 where a return was not observed.
    returns : ndarray, shape (date, asset)
        Decimal, 0 where not observed.
    observed, entered : ndarray of bool, shape (date, asset)
        Whether the return is known, and whether the fit has a law of it.
    n_unobserved, unobserved_share : ndarray, shape (date,)
        Assets with weight but no return, and their share of absolute weight.
    account : ndarray, shape (date,)
        Return of the account.
    n_unrealised : int
    start_lag, horizon : int
    step : int
        Trading days from one date to the next.
    """

    dates: np.ndarray
    assets: np.ndarray
    weights: np.ndarray
    returns: np.ndarray
    observed: np.ndarray
    entered: np.ndarray
    n_unobserved: np.ndarray
    unobserved_share: np.ndarray
    account: np.ndarray
    n_unrealised: int
    start_lag: int
    horizon: int
    step: int

    @property
    def holdings_return(self) -> np.ndarray:
        """Return of the holdings, (date,)."""
        return np.einsum("da,da->d", self.weights, self.returns)

    def share(self, chosen: np.ndarray) -> np.ndarray:
        """Return the share of absolute weight in chosen cells (date, asset), by date."""
        size = np.abs(self.weights)
        found: np.ndarray = np.where(chosen, size, 0.0).sum(axis=1) / size.sum(axis=1)
        return found


def open_books(
    fit: SVIFit,
    panel: Panel,
    held: Held,
    *,
    dates: DateRange | None,
    portfolio_return: xr.DataArray | pd.Series | None,
    unobserved: Unobserved,
) -> RealisedBooks:
    """Return the books of the dates whose labels are known.

    Raises
    ------
    SpecError
        If the labels are no returns, an option is unknown, no date has an observed return, the
        account lacks one, or an asset with weight has none and that is an error.
    WeightsError, ShapeError, PanelError, SplitError
        See `realised_attribution`.
    """
    _require_returns(fit)
    require_label(fit, panel)
    if unobserved not in UNOBSERVED:
        raise SpecError(
            f"unobserved must be one of {', '.join(UNOBSERVED)}; got {unobserved!r}. Choose one."
        )
    visit = open_pass(fit, panel, dates)
    label = panel["forward_return"].isel({DATE: visit.span})
    returns = label.transpose(DATE, "asset").to_numpy().astype(np.float64)
    observed = np.isfinite(returns)
    known = np.flatnonzero(observed.any(axis=1))
    if not len(known):
        raise SpecError(
            "dates must have an observed return; got none from "
            f"{str(visit.dates[0])[:10]} to {str(visit.dates[-1])[:10]}. Their labels are not "
            "known yet: choose earlier dates."
        )
    n_dates = int(known[-1]) + 1
    kept = visit.dates[:n_dates]
    entered = visit.windows.entered[visit.span].numpy()[:n_dates]
    whole = _whole_weights(held, kept, visit.windows.assets, entered)
    observed = observed[:n_dates]
    weights, missing = _observed_weights(whole, observed, kept, visit.windows.assets, unobserved)
    returns = np.where(observed, returns[:n_dates], 0.0)
    holdings = np.einsum("da,da->d", weights, returns)
    return RealisedBooks(
        dates=kept,
        assets=visit.windows.assets,
        weights=weights,
        returns=returns,
        observed=observed,
        entered=entered,
        n_unobserved=missing.sum(axis=1),
        unobserved_share=np.where(missing, np.abs(whole), 0.0).sum(1) / np.abs(whole).sum(1),
        account=holdings if portfolio_return is None else _read_account(portfolio_return, kept),
        n_unrealised=len(visit.dates) - n_dates,
        start_lag=int(fit.label["start_lag"]),
        horizon=int(fit.label["horizon"]),
        step=visit.span.step or 1,
    )


def _require_returns(fit: SVIFit) -> None:
    """Refuse labels that are no returns of a position."""
    unit = str(fit.label.get("unit", "none"))
    if unit != "return":
        raise SpecError(
            f"realised attribution must be of returns; got a fit of {unit!r} labels, which no book "
            "earns. Fit on labels whose unit is return."
        )


def _whole_weights(
    held: Held, dates: np.ndarray, assets: np.ndarray, entered: np.ndarray
) -> np.ndarray:
    """Return the weights of each date, (date, asset); by default equal ones of assets with a law.

    Raises
    ------
    SpecError
        If no asset has a law on a date, for equal weights.
    """
    book = DatedWeights(held, dates, assets)
    weights = np.zeros(entered.shape)
    for place in range(len(dates)):
        kept = entered[place] if held is None else np.ones(len(assets), dtype=bool)
        own = book.on(place, kept)
        if own is None:
            raise SpecError(
                "an equal-weight book must have an asset with a law; got none on "
                f"{str(dates[place])[:10]}. Leave the date out, or give weights."
            )
        weights[place, kept] = own.weights
    return weights


def _observed_weights(
    whole: np.ndarray,
    observed: np.ndarray,
    dates: np.ndarray,
    assets: np.ndarray,
    unobserved: Unobserved,
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights of observed returns, and which weights have none, both (date, asset).

    Raises
    ------
    SpecError
        If a weight has none and that is an error, or none of a date has.
    """
    missing = (whole != 0.0) & ~observed
    empty = missing.any(axis=1) & ~(observed & (whole != 0.0)).any(axis=1)
    if empty.any() or (missing.any() and unobserved == "error"):
        rows, columns = np.nonzero(missing)
        places = (
            f"{assets[a]} on {str(dates[d])[:10]}" for d, a in zip(rows, columns, strict=True)
        )
        fix = (
            "Leave out dates on which nothing held is observed."
            if unobserved == "renormalise"
            else "Find the returns, or pass unobserved='renormalise' to scale up the others."
        )
        raise SpecError(
            f"assets with weight must have an observed return; got {missing.sum()} without, "
            f"{name_places(places)}. {fix}"
        )
    left = np.where(missing, 0.0, whole)
    scale = np.abs(whole).sum(axis=1) / np.abs(left).sum(axis=1)
    return left * scale[:, None], missing


def _read_account(portfolio_return: xr.DataArray | pd.Series, dates: np.ndarray) -> np.ndarray:
    """Return what the account earned, (date,)."""
    if isinstance(portfolio_return, xr.DataArray):
        if portfolio_return.dims != (DATE,):
            raise ShapeError(
                "portfolio_return must have the dimension date alone; got "
                f"{portfolio_return.dims}. Pass one account."
            )
        portfolio_return = portfolio_return.to_series()
    index = pd.DatetimeIndex(portfolio_return.index)
    if index.has_duplicates:
        twice = name_places(f"{day:%Y-%m-%d}" for day in index[index.duplicated()].unique())
        raise SpecError(f"portfolio_return must have each date once; got twice {twice}. Drop one.")
    values = pd.Series(portfolio_return.to_numpy(dtype=np.float64), index)
    found = values.reindex(pd.DatetimeIndex(dates)).to_numpy()
    wrong = ~np.isfinite(found)
    if wrong.any():
        raise SpecError(
            "portfolio_return must be finite on every date that is attributed; got none on "
            f"{name_places(str(date)[:10] for date in dates[wrong])}. Give it under the signal "
            "date of the period, or attribute fewer dates."
        )
    return found
