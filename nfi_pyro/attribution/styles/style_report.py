"""The style report: how much of a signal or a portfolio is known styles under another name."""

import json
import math
from typing import Literal

import numpy as np
import xarray as xr

from nfi_pyro.attribution.results.styles import StyleReport, StyleReturns
from nfi_pyro.attribution.styles.style_returns import prefixed, regress_over_dates
from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.data.features.style_scores import LEAST_ASSETS, standardise
from nfi_pyro.diagnostics.dim_checks import (
    places_of,
    require_dims,
    require_positive,
    require_same_labels,
)
from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import SpecError, WeightsError, name_places
from nfi_pyro.linear_factor import cross_sectional_regression, fama_macbeth
from nfi_pyro.linear_factor.cells import day

_WHERE = "style_report"
Kind = Literal["signal", "weights"]


def style_report(
    book: xr.DataArray,
    styles: xr.Dataset | xr.DataArray,
    *,
    kind: Kind = "signal",
    returns: xr.DataArray | None = None,
    market_cap: xr.DataArray | None = None,
    industries: xr.DataArray | None = None,
    min_assets: int = 10,
    n_lags: int | None = None,
) -> StyleReport:
    """Return what a signal or a portfolio has in common with styles, by date and over dates.

    By date, over assets: the correlation of `book` with each style; its regression, standardised,
    on all of them, every asset weighing the same; and the exposure ``sum_i w_i x_ik``. A signal's
    portfolio is the signal less its mean, scaled to a gross weight of 1. With returns also, over
    dates: the styles' factor returns (`cross_sectional_regression`, weights the root of
    `market_cap`), their correlation with the portfolio's return, and the regression of that
    return on all of them.

    Parameters
    ----------
    book : DataArray, shape (date, asset)
        Known at the close of `date`. A signal: any unit, NaN = none. Weights: fractions of
        capital of any sign and sum, 0 = not held, finite.
    styles : Dataset or DataArray
        As from `barra_styles`, or exposures (date, asset, factor), known at the close; NaN = not
        known. An asset needs all of them to enter a regression.
    kind : {"signal", "weights"}
    returns : DataArray, shape (date, asset), optional
        Label of each date, decimal, realised later, as from `forward_return`: the exposures and
        weights of t meet the label of t, and nothing is moved. NaN = not observed: the position
        adds nothing, and its share of the gross weight is in the result.
    market_cap : DataArray, shape (date, asset), optional
        > 0 at the close, for the factor returns alone; NaN = unknown, which leaves the asset out.
        Default: equal weights.
    industries : DataArray of str or int, shape (date, asset) or (asset), optional
        Further columns of both cross-sectional regressions, with their returns weighted by
        `market_cap` summing to 0.
    min_assets : int
        Fewest assets of a date that counts, >= 5. A regression also needs more than its columns.
    n_lags : int, optional
        Autocovariances in the errors of means and of the regression over dates, >= 0. Default:
        the usual number, at least the labels' overlap. Correlations with slow styles stay alike
        for longer; give more lags for an error of their mean that does not flatter.

    Returns
    -------
    StyleReport

    Raises
    ------
    ShapeError
        When dimensions or labels do not agree.
    SpecError
        When an option is out of range or has nothing to act on, a value is infinite, returns are
        ranks, styles are named like another column, or `market_cap` is not > 0.
    WeightsError
        When weights are not finite, or none is held.

    Notes
    -----
    Source: specs/market.md, row 57 (correlation and regression of factor and portfolio with the
    ten Barra styles). In the regression over dates neighbours count as consecutive.
    """
    cells, exposures, unavailable = _checked(book, styles, kind, min_assets, n_lags)
    if market_cap is not None and returns is None:
        raise SpecError(
            f"market_cap must come with returns; got none at {_WHERE}. It weighs the regressions "
            "that give factor returns, and nothing else."
        )
    weights = cells if kind == "weights" else _long_short(cells)
    by_date = _by_date(cells, weights, exposures, min_assets)
    regression, found = _regression(cells, exposures, industries, min_assets)
    ledger = _own_ledger(by_date, exposures, weights).extend(found)
    over_dates: StyleReturns | None = None
    if returns is not None:
        over_dates, found = regress_over_dates(
            weights,
            exposures,
            _labels(returns, cells),
            market_cap=None if market_cap is None else _caps(market_cap, cells),
            industries=industries,
            min_assets=min_assets,
            n_lags=n_lags,
        )
        ledger = ledger.extend(found)
    return StyleReport(
        kind=kind,
        by_date=by_date,
        regression=regression,
        summary=_summary(by_date, regression, n_lags),
        r_squared_mean=_mean(regression["r_squared"]),
        returns=over_dates,
        unavailable=unavailable,
        ledger=ledger,
    )


def _checked(
    book: xr.DataArray,
    styles: xr.Dataset | xr.DataArray,
    kind: str,
    min_assets: int,
    n_lags: int | None,
) -> tuple[xr.DataArray, xr.DataArray, dict[str, str]]:
    """Return book and exposures in float64, and the reasons of missing styles."""
    if kind not in ("signal", "weights"):
        raise SpecError(f"kind must be 'signal' or 'weights'; got {kind!r} at {_WHERE}. Say which.")
    if min_assets < LEAST_ASSETS or (n_lags is not None and n_lags < 0):
        raise SpecError(
            f"min_assets must be >= {LEAST_ASSETS} and n_lags >= 0; got {min_assets} and {n_lags} "
            f"at {_WHERE}. Leave them out for the usual ones."
        )
    unavailable: dict[str, str] = {}
    if isinstance(styles, xr.DataArray):
        exposures = styles
    else:
        if "exposures" not in styles:
            raise SpecError(
                f"styles must hold a variable exposures; got {sorted(map(str, styles.data_vars))} "
                f"at {_WHERE}. Make them with barra_styles, or pass a DataArray."
            )
        unavailable = json.loads(styles.attrs.get("styles_unavailable", "{}"))
        exposures = styles["exposures"]
    cells = require_dims(book, (DATE, ASSET), kind, _WHERE).reset_coords(drop=True)
    table = require_dims(exposures, (DATE, ASSET, FACTOR), "styles", _WHERE)
    table = table.reset_coords(drop=True)
    require_same_labels(table, cells, "styles", _WHERE)
    if kind == "weights":
        wrong = np.argwhere(np.isnan(cells.to_numpy()))
        if len(wrong):
            raise WeightsError(
                f"weights must be finite; got NaN at {name_places(places_of(cells, wrong))} of "
                f"{_WHERE}. Set what is not held to 0."
            )
        if not cells.to_numpy().any():
            raise WeightsError(f"weights must hold something; got 0 throughout at {_WHERE}.")
    return cells, table, unavailable


def _labels(returns: xr.DataArray, cells: xr.DataArray) -> xr.DataArray:
    """Return the returns in float64, after checking that they are the book's, and no ranks."""
    labels = require_dims(returns, (DATE, ASSET), "returns", _WHERE).reset_coords(drop=True)
    require_same_labels(labels, cells, "returns", _WHERE)
    if labels.attrs.get("unit") == "rank":
        raise SpecError(
            f"returns must be returns; got labels of unit 'rank' at {_WHERE}. Weights times ranks "
            "are no portfolio return: pass what the assets returned."
        )
    return labels


def _caps(market_cap: xr.DataArray, cells: xr.DataArray) -> xr.DataArray:
    caps = require_dims(market_cap, (DATE, ASSET), "market_cap", _WHERE).reset_coords(drop=True)
    require_same_labels(caps, cells, "market_cap", _WHERE)
    require_positive(caps, "market_cap", _WHERE, "Set NaN where it is unknown.")
    return caps


def _long_short(signal: xr.DataArray) -> xr.DataArray:
    """Return the signal less its mean at a gross weight of 1, 0 where there is no signal."""
    apart = signal - signal.mean(ASSET)
    gross = abs(apart).sum(ASSET)
    return (apart / gross.where(gross > 0.0)).fillna(0.0)


def _by_date(
    cells: xr.DataArray, weights: xr.DataArray, exposures: xr.DataArray, min_assets: int
) -> xr.Dataset:
    """Return the figures of each date and style on its own."""
    values, held = cells.to_numpy(), weights.to_numpy()
    gross = np.abs(held).sum(axis=1)
    shape = (exposures.sizes[DATE], exposures.sizes[FACTOR])
    found = {name: np.full(shape, np.nan) for name in ("correlation", "exposure")}
    found["unexposed_share"] = np.full(shape, np.nan)
    pairs = np.zeros(shape, dtype=np.int64)
    for place in range(shape[1]):
        style = exposures.to_numpy()[:, :, place]
        known = np.isfinite(style)
        both = known & np.isfinite(values)
        pairs[:, place] = both.sum(axis=1)
        found["correlation"][:, place] = _correlation(values, style, both, min_assets)
        exposed = np.abs(np.where(known, held, 0.0)).sum(axis=1)
        total = (np.where(known, style, 0.0) * held).sum(axis=1)
        found["exposure"][:, place] = np.where(exposed > 0.0, total, np.nan)
        share = 1.0 - exposed / np.where(gross > 0.0, gross, np.nan)
        found["unexposed_share"][:, place] = np.maximum(share, 0.0)  # below 0 it is rounding
    dims = (DATE, FACTOR)
    variables = {name: (dims, array, {"units": "1"}) for name, array in found.items()}
    coords = {DATE: cells[DATE], FACTOR: exposures[FACTOR]}
    return xr.Dataset({**variables, "n_pairs": (dims, pairs)}, coords)


def _correlation(one: np.ndarray, two: np.ndarray, both: np.ndarray, least: int) -> np.ndarray:
    """Return Pearson's correlation over the cells `both` of each date."""
    equal = both.astype(np.float64)
    left = np.nan_to_num(standardise(np.where(both, one, np.nan), equal))
    right = np.nan_to_num(standardise(np.where(both, two, np.nan), equal))
    count = both.sum(axis=1)
    varies = left.any(axis=1) & right.any(axis=1) & (count >= least)
    product = (left * right).sum(axis=1) / np.maximum(count, 1)
    return np.where(varies, np.clip(product, -1.0, 1.0), np.nan)  # beyond 1 it is rounding


def _regression(
    cells: xr.DataArray,
    exposures: xr.DataArray,
    industries: xr.DataArray | None,
    min_assets: int,
) -> tuple[xr.Dataset, DropLedger]:
    """Return the regression of the standardised book on the styles, and what it left out."""
    complete = np.isfinite(cells.to_numpy()) & np.isfinite(exposures.to_numpy()).all(axis=-1)
    count = complete.sum(axis=1)
    inside = np.where(complete & (count >= min_assets)[:, None], cells.to_numpy(), np.nan)
    scores = cells.copy(data=standardise(inside, complete.astype(np.float64)))
    scores.attrs = {}
    fit = cross_sectional_regression(scores, exposures, industries=industries)
    thin, flat = count < min_assets, np.isnan(scores.to_numpy()).all(axis=1)
    partly = np.isfinite(cells.to_numpy()) & ~complete
    rule = "cells of the book that lack some style"
    ledger = DropLedger().add(rule, int(partly.sum()), "left out of its regression")
    few = (fit.n_columns.to_numpy() == 0) & ~thin & ~flat
    for rule, out in (
        (f"dates with fewer than {min_assets} assets that have all styles", thin),
        ("dates on which the book does not vary", flat & ~thin),
        ("dates without more assets than columns of the regression", few),
    ):
        places = map(day, cells.indexes[DATE][out])
        ledger = ledger.add(rule, int(out.sum()), "no regression of the book", places)
    ledger = ledger.extend(prefixed(fit.ledger, "book"))
    found = xr.Dataset(
        {
            "coefficient": fit.factor_returns,
            "standard_error": fit.standard_errors,
            "t_statistic": fit.t_statistics,
            "r_squared": fit.r_squared,
            "adjusted_r_squared": fit.adjusted_r_squared,
            "n_assets": fit.n_assets,
            "residual": fit.specific_returns,
        }
    )
    return found, ledger


def _own_ledger(by_date: xr.Dataset, exposures: xr.DataArray, weights: xr.DataArray) -> DropLedger:
    names = [str(name) for name in exposures[FACTOR].to_numpy()]

    def by_name(counts: np.ndarray) -> list[str]:
        pairs = zip(names, counts, strict=True)
        return [f"{name} {count:,}" for name, count in pairs if count]

    missing = by_date["correlation"].isnull().sum(DATE).to_numpy()
    rule = "dates of a style with too few pairs or without variation"
    ledger = DropLedger().add(rule, int(missing.sum()), "no correlation", by_name(missing))
    bare = (exposures.isnull() & (weights != 0.0)).sum((DATE, ASSET)).to_numpy()
    rule = "positions without an exposure to a style"
    return ledger.add(rule, int(bare.sum()), "add nothing to its exposure", by_name(bare))


def _summary(by_date: xr.Dataset, regression: xr.Dataset, n_lags: int | None) -> xr.Dataset:
    """Return means over dates with their errors, by style."""
    names = by_date[FACTOR]
    coefficient = regression["coefficient"].sel({FACTOR: names}).reset_coords(drop=True)
    found: dict[str, xr.DataArray] = {}
    lags = 0
    for name, values in (("correlation", by_date["correlation"]), ("coefficient", coefficient)):
        over_dates = fama_macbeth(values, n_lags=n_lags)
        lags = max(lags, over_dates.n_lags)
        found[f"{name}_mean"] = over_dates.mean
        found[f"{name}_error"] = over_dates.standard_error
        found[f"{name}_t"] = over_dates.t_statistic
        found[f"{name}_dates"] = over_dates.n_dates
    spread = _spread(by_date["correlation"])
    found["correlation_sd"] = spread
    found["correlation_ratio"] = found["correlation_mean"] / spread.where(spread > 0.0)
    found["exposure_mean"] = by_date["exposure"].mean(DATE)
    found["exposure_sd"] = _spread(by_date["exposure"])
    return xr.Dataset(found, attrs={"n_lags": lags})


def _spread(values: xr.DataArray) -> xr.DataArray:
    """Return the standard deviation over dates (ddof 1), NaN below two."""
    count = values.notnull().sum(DATE)
    apart = ((values - values.mean(DATE)) ** 2).sum(DATE)
    return (apart / (count - 1).where(count > 1)) ** 0.5


def _mean(values: xr.DataArray) -> float:
    known = values.to_numpy()[np.isfinite(values.to_numpy())]
    return float(known.mean()) if len(known) else math.nan
