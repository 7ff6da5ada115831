"""A portfolio's returns on the factor returns of styles, over dates."""

import math
from typing import NamedTuple

import numpy as np
import xarray as xr

from nfi_pyro.attribution.results.styles import StyleReturns
from nfi_pyro.data.checks.quality import DropLedger, Finding
from nfi_pyro.diagnostics import hac_standard_error, newey_west_lags
from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.linear_factor import cross_sectional_regression
from nfi_pyro.linear_factor.cells import KIND_INDUSTRY, day
from nfi_pyro.linear_factor.least_squares import shares_explained, solve_weighted

_MASKED = ("cells with no return", "dates without more assets")
"""Rules of a cross-sectional regression that would count cells that the report has masked."""


class LineFit(NamedTuple):
    """Least squares over dates.

    Attributes
    ----------
    values, errors : ndarray, shape (column,)
        Coefficients and their Newey-West errors; NaN for columns that repeat earlier ones.
    r_squared, adjusted_r_squared : float
    """

    values: np.ndarray
    errors: np.ndarray
    r_squared: float
    adjusted_r_squared: float


def regress_over_dates(
    weights: xr.DataArray,
    exposures: xr.DataArray,
    returns: xr.DataArray,
    *,
    market_cap: xr.DataArray | None,
    industries: xr.DataArray | None,
    min_assets: int,
    n_lags: int | None,
) -> tuple[StyleReturns, DropLedger]:
    """Return the part of a portfolio's returns that goes with factor returns, and what is left out.

    Parameters
    ----------
    weights, returns : DataArray, shape (date, asset)
        Fractions of capital, finite, and labels, NaN = not observed.
    exposures : DataArray, shape (date, asset, factor)
    market_cap, industries, min_assets, n_lags
        See `style_report`.

    Returns
    -------
    StyleReturns, DropLedger
        Industries are columns of the cross-sections and none of the regression over dates.
    """
    usable = returns.notnull() & exposures.notnull().all(FACTOR)
    roots: xr.DataArray | None = None
    if market_cap is not None:
        usable = usable & market_cap.notnull()
        roots = market_cap**0.5
    enough = usable.sum(ASSET) >= min_assets
    fit = cross_sectional_regression(
        returns.where(enough),
        exposures,
        weights=roots,
        industries=industries,
        constraint_weights=None if industries is None else market_cap,
    )
    kept = fit.factor_returns["kind"] != KIND_INDUSTRY
    factor_returns = fit.factor_returns.isel({FACTOR: kept.to_numpy()})
    earned, unobserved = _portfolio_return(weights, returns)
    columns = factor_returns.to_numpy()
    present = np.isfinite(columns).any(axis=0)
    dates = np.isfinite(earned) & np.isfinite(columns[:, present]).all(axis=1) & present.any()
    y, x = earned[dates], columns[dates][:, present]
    horizon = int(returns.attrs.get("horizon", 1))
    lags = newey_west_lags(len(y), horizon) if n_lags is None else n_lags
    line = regress_line(y, np.column_stack([np.ones(len(y)), x]), lags)
    found = {name: np.full(len(present), np.nan) for name in ("correlation", "beta", "error")}
    found["correlation"][present] = [_correlation(y, column) for column in x.T]
    found["beta"][present], found["error"][present] = line.values[1:], line.errors[1:]
    by_factor = {
        "correlation": (FACTOR, found["correlation"], {"units": "1"}),
        "beta": (FACTOR, found["beta"], {"units": "1"}),
        "standard_error": (FACTOR, found["error"], {"units": "1"}),
        "t_statistic": (FACTOR, found["beta"] / _positive(found["error"]), {"units": "1"}),
    }
    over_dates, attrs = {DATE: returns[DATE]}, {"units": "decimal return", **returns.attrs}
    result = StyleReturns(
        regression=fit,
        portfolio_return=xr.DataArray(earned, over_dates, DATE, "portfolio_return", attrs),
        unobserved_share=xr.DataArray(unobserved, over_dates, DATE, "unobserved_share"),
        by_factor=xr.Dataset(by_factor, {FACTOR: factor_returns[FACTOR]}),
        alpha=float(line.values[0]),
        alpha_error=float(line.errors[0]),
        alpha_t=float(line.values[0] / _positive(line.errors)[0]),
        r_squared=line.r_squared,
        adjusted_r_squared=line.adjusted_r_squared,
        n_dates=len(y),
        n_left_out=int((~dates).sum()),
        n_lags=lags,
    )
    return result, _left_out(result, returns, enough, min_assets)


def _left_out(
    result: StyleReturns, returns: xr.DataArray, enough: xr.DataArray, min_assets: int
) -> DropLedger:
    thin = returns.indexes[DATE][~enough.to_numpy()]
    ledger = DropLedger().add(
        f"returns: dates with fewer than {min_assets} assets of known return, styles and weight",
        len(thin),
        "no factor returns",
        map(day, thin),
    )
    unobserved = int((returns.isnull() & enough).sum())
    rule, action = "returns: cells with no return", "left out of the regression"
    ledger = ledger.add(rule, unobserved, action)
    ledger = ledger.extend(prefixed(result.regression.ledger, "returns"))
    rule = "dates without a portfolio return or some factor's return"
    ledger = ledger.add(rule, result.n_left_out, "left out of the regression over dates")
    bare = result.by_factor[FACTOR].to_numpy()[result.by_factor["beta"].isnull().to_numpy()]
    rule = "factors without returns, alike to others, or on no more dates than columns"
    return ledger.add(rule, len(bare), "no beta over dates", bare)


def prefixed(ledger: DropLedger, prefix: str) -> DropLedger:
    """Return the findings of a cross-sectional regression under the name of what it regressed.

    Without those that the report counts itself, because it masked cells of what was given.
    """
    kept = [found for found in ledger.findings if not found.rule.startswith(_MASKED)]
    return DropLedger(
        tuple(Finding(f"{prefix}: {f.rule}", f.count, f.action, f.places) for f in kept)
    )


def regress_line(values: np.ndarray, design: np.ndarray, n_lags: int) -> LineFit:
    """Return least squares with Newey-West errors (Bartlett kernel, no small-sample correction).

    The error of a coefficient is that of a mean: of ``(X'X / n)^-1 x_t e_t``, which averages to 0.

    Parameters
    ----------
    values : ndarray, shape (date,)
    design : ndarray, shape (date, column)
        The first column is the constant. NaN comes back where dates do not outnumber columns.
    n_lags : int
    """
    n, n_columns = design.shape
    estimate, errors = np.full(n_columns, np.nan), np.full(n_columns, np.nan)
    if n <= n_columns:
        return LineFit(estimate, errors, math.nan, math.nan)
    equal = np.ones(n)
    solution = solve_weighted(design, values, equal)
    kept = solution.kept
    left = values - design[:, kept] @ solution.values
    influence = n * (design[:, kept] * left[:, None]) @ (solution.root @ solution.root.T)
    estimate[kept] = solution.values
    errors[kept] = [hac_standard_error(column, n_lags) for column in influence.T]
    shares = shares_explained(values, left, equal, len(kept), centred=True)
    return LineFit(estimate, errors, *shares)


def _portfolio_return(
    weights: xr.DataArray, returns: xr.DataArray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the return of the observed positions, and the others' share of the gross weight."""
    held, values = weights.to_numpy(), returns.to_numpy()
    observed = np.isfinite(values)
    size = np.abs(held)
    gross, seen = size.sum(axis=1), np.where(observed, size, 0.0).sum(axis=1)
    earned = (np.where(observed, values, 0.0) * held).sum(axis=1)
    share = 1.0 - seen / _positive(gross)
    return np.where(seen > 0.0, earned, np.nan), np.maximum(share, 0.0)  # below 0: rounding


def _correlation(one: np.ndarray, two: np.ndarray) -> float:
    """Return Pearson's correlation, NaN below three dates or without variation."""
    if len(one) < 3:
        return math.nan
    left, right = one - one.mean(), two - two.mean()
    flat = [np.ptp(side) <= 1e-12 * np.abs(side).max() for side in (one, two)]
    if any(flat):
        return math.nan
    return float(left @ right / math.sqrt((left @ left) * (right @ right)))


def _positive(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0.0, values, np.nan)
