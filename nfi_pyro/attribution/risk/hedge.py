"""Minimum-variance hedges: which factor exposures to sell, or what to trade in given assets."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.linalg import cho_factor, cho_solve

from nfi_pyro.attribution.results.contributions import SOURCE, SPECIFIC
from nfi_pyro.attribution.results.hedge import (
    AFTER,
    BEFORE,
    REGIME,
    STATE,
    AssetHedge,
    FactorHedge,
)
from nfi_pyro.attribution.risk.risk_contributions import portfolio_with_variance, source_names
from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import ShapeError, SpecError, name_places
from nfi_pyro.portfolio import equal_weights
from nfi_pyro.posterior.blocks import DateRange, read_range
from nfi_pyro.posterior.covariance import LowRankCovariance
from nfi_pyro.posterior.dated_weights import DatedWeights, Held
from nfi_pyro.posterior.exposure_pricing import OTHER_FACTOR
from nfi_pyro.posterior.portfolio_law import PortfolioLaw, Weights
from nfi_pyro.posterior.return_forecast import Date, ReturnForecast

Coords = dict[str, np.ndarray | list[str]]
Regimes = Mapping[Date, object] | pd.Series | xr.DataArray
_STATES = (BEFORE, AFTER)
_ROUNDING = 1e-12  # of an asset's variance: its own part below that is a zero
_SQUARED, _DECIMAL = {"units": "decimal return squared"}, {"units": "decimal return"}
_PURE = {"units": "1"}


class _FactorLaws(NamedTuple):
    """Covariances of the factors, (law, factor, factor), and what they are of.

    Attributes
    ----------
    covariance : ndarray, shape (law, factor, factor)
    names : tuple of str
        Of regimes; empty where each date has its own law.
    n_dates : ndarray of int, shape (law,)
    n_unlabelled : int
    """

    covariance: np.ndarray
    names: tuple[str, ...]
    n_dates: np.ndarray
    n_unlabelled: int


def factor_hedge(
    forecast: ReturnForecast,
    weights: Held,
    *,
    dates: DateRange | None = None,
    factors: Sequence[str] | None = None,
    regimes: Regimes | None = None,
) -> FactorHedge:
    r"""Return which factor exposures a book should sell to have the least variance.

    With exposures ``b = B'w`` and the factors' covariance F, the hedge of the factors in H
    minimises ``Var(r_p - h'z_H)``: ``h = F_HH^{-1} (F b)_H``. Under the law of one date factors
    are independent, and h is the exposure itself. A regime's law is the mixture of those of its
    dates, with covariance

        F = mean_t S_t  +  mean_t (m_t - m)(m_t - m)',

    within plus between: means that move together make factors correlate, and then a subset also
    hedges what it shares with the others. The hedged and the book's specific part are independent.

    Parameters
    ----------
    forecast : ReturnForecast
        With dependence ``factor``.
    weights : mapping, Series, DataArray (asset,) or (date, asset), str, or None
        The book in fractions of capital, or the name of one asset; None holds every asset with a
        forecast alike.
    dates : pair of str, optional
        First and last date, inclusive, on which the book is hedged. Default: the forecast's last.
    factors : sequence of str, optional
        H, those that can be sold. Default: all.
    regimes : mapping, Series or DataArray of date to label, optional
        Any labels; None or NaN is none. Every date of the forecast with a label enters its
        regime's law, later ones too: that describes, and is no rule one could have traded; leave
        later dates out for one. One label for all dates pools them.

    Returns
    -------
    FactorHedge
        Never NaN.

    Raises
    ------
    SpecError
        If the forecast has no factors, a factor or date is unknown, or no date has a label.
    WeightsError, ShapeError
        See `ReturnForecast.portfolio` and `DatedWeights`.

    Notes
    -----
    Market specification, row 17.
    """
    names = _factor_names(forecast)
    chosen = _choose(names, factors)
    laws = list(_laws(forecast, weights, dates))
    shared = _factor_laws(forecast, laws, regimes)
    exposure = np.stack([law.exposure for law in laws])
    covariance = shared.covariance if regimes is None else shared.covariance[:, None]
    hedge = _least_variance(covariance, exposure, chosen)
    states = np.stack([np.broadcast_to(exposure, hedge.shape), exposure - hedge], axis=-2)
    by_factor = states * np.einsum("...kl,...sl->...sk", covariance, states)
    own = np.array([law.specific_variance for law in laws])
    own = np.broadcast_to(own[:, None, None], (*by_factor.shape[:-1], 1))
    variance = np.concatenate([by_factor, own], axis=-1)
    total = variance.sum(axis=-1)
    days: Coords = {DATE: np.array([law.date for law in laws])}
    of_law: Coords = days if regimes is None else {REGIME: list(shared.names)}
    by_name: Coords = {FACTOR: names}
    cells = of_law | days
    counts = None if regimes is None else _array(shared.n_dates, of_law, _PURE)
    return FactorHedge(
        exposure=_array(exposure, days | by_name, _PURE),
        hedge=_array(hedge, cells | by_name, _PURE),
        variance=_array(
            variance, cells | {STATE: list(_STATES), SOURCE: [*names, SPECIFIC]}, _SQUARED
        ),
        standard_deviation=_array(np.sqrt(total), cells | {STATE: list(_STATES)}, _DECIMAL),
        r_squared=_array(1.0 - total[..., 1] / total[..., 0], cells, _PURE),
        factor_covariance=_array(
            shared.covariance, of_law | by_name | {OTHER_FACTOR: names}, _SQUARED
        ),
        n_dates=counts,
        single_date=None if counts is None else counts == 1,
        n_unlabelled=shared.n_unlabelled,
        hedged=tuple(names[place] for place in chosen),
    )


def hedge_with_assets(
    forecast: ReturnForecast,
    weights: Weights | None,
    instruments: Sequence[str],
    *,
    date: Date | None = None,
) -> AssetHedge:
    r"""Return the trade in given assets that leaves a portfolio the least variance.

    The trade x minimises ``(w + x)' C (w + x)`` under the joint covariance C of all assets, so
    ``C_II x = -(C w)_I``. C is low rank plus diagonal, and so is C_II: it is solved with a matrix
    of the size of the factors (Woodbury). Nothing limits the trade but the choice of instruments;
    an instrument may be held already.

    Parameters
    ----------
    forecast : ReturnForecast
        With dependence ``factor`` or ``copula``.
    weights : mapping, Series or DataArray
        Asset to fraction of capital.
    instruments : sequence of str
        Assets with a forecast on the date.
    date : date, optional
        Default: the forecast's last.

    Returns
    -------
    AssetHedge
        Never NaN.

    Raises
    ------
    WeightsError
        See `ReturnForecast.portfolio`; also if the portfolio has no variance.
    SpecError
        Likewise; also if there is no instrument, one is named twice or has no forecast, or its own
        part has no variance.
    """
    law = portfolio_with_variance(forecast, weights, date)
    covariance = law.covariance
    places = _find_instruments(law, instruments)
    change = np.zeros(len(law.weights))
    change[places] = -_solve(covariance, places, covariance.matvec(law.weights)[places])
    books = np.stack([law.weights, law.weights + change])
    by_factor = np.square(books @ covariance.loadings)
    own = np.square(books) @ covariance.specific_variance
    total = by_factor.sum(axis=1) + own
    states: Coords = {STATE: list(_STATES)}
    trade = change[places]
    return AssetHedge(
        date=law.date,
        trade=_array(trade, {ASSET: law.assets[places]}, _PURE),
        variance=_array(
            np.column_stack([by_factor, own]), states | {SOURCE: source_names(forecast)}, _SQUARED
        ),
        standard_deviation=_array(np.sqrt(total), states, _DECIMAL),
        r_squared=float(1.0 - total[1] / total[0]),
        gross_turnover=float(np.abs(trade).sum()),
        net_turnover=float(trade.sum()),
        dependence=str(forecast.data.attrs["dependence"]),
    )


def _array(values: np.ndarray, coords: Coords, attrs: dict[str, str]) -> xr.DataArray:
    """Return values over the coordinates, in their order."""
    return xr.DataArray(values, coords, tuple(coords), attrs=attrs)


def _factor_names(forecast: ReturnForecast) -> list[str]:
    """Return the names of the factors, where there are any to sell."""
    if forecast.data.attrs["dependence"] == "copula":
        columns = name_places(forecast.data["column"].to_numpy())
        raise SpecError(
            "a factor hedge must be of factors that returns are linear in; got a copula, whose "
            f"columns ({columns}) are scores of returns and earn none themselves. Use "
            "hedge_with_assets, or risk_contributions for what each column contributes."
        )
    if forecast.data.attrs["dependence"] == "none":
        raise SpecError(
            "a factor hedge must be of factors that assets share; got a forecast whose dependence "
            "is none. Use a model with factors."
        )
    return [str(name) for name in forecast.data[FACTOR].to_numpy()]


def _choose(names: list[str], factors: Sequence[str] | None) -> np.ndarray:
    """Return the places of the factors that can be sold."""
    if factors is None:
        return np.arange(len(names))
    wanted = [factors] if isinstance(factors, str) else list(dict.fromkeys(factors))
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise SpecError(
            f"factors must be among {name_places(names)}, at least one; got "
            f"{name_places(unknown) if unknown else 'none'}. Choose of these."
        )
    return np.array(sorted(names.index(name) for name in wanted))


def _laws(
    forecast: ReturnForecast, weights: Held, dates: DateRange | None
) -> Iterator[PortfolioLaw]:
    """Yield the law of the book on each date."""
    every = forecast.data[DATE].to_numpy()
    days = every[-1:]
    if dates is not None:
        first, last, step = read_range(dates)
        index = pd.DatetimeIndex(every)
        days = every[index.slice_indexer(first, last)][::step]
    if not len(days):
        raise SpecError(
            f"dates must hold at least one of the forecast's; got {dates}. Leave them out for the "
            "last one."
        )
    assets = forecast.data[ASSET].to_numpy()
    book = None if weights is None else DatedWeights(weights, days, assets)
    everything = np.ones(len(assets), dtype=bool)
    for place, day in enumerate(days):
        held = None if book is None else book.on(place, everything)
        own = equal_weights(forecast, day) if held is None else pd.Series(held.weights, assets)
        yield portfolio_with_variance(forecast, own, day)


def _factor_laws(
    forecast: ReturnForecast, laws: Sequence[PortfolioLaw], regimes: Regimes | None
) -> _FactorLaws:
    """Return the covariance of the factors on each date of a book, or in each regime."""
    if regimes is None:
        own = np.stack([np.diag(np.square(law.factor_scale)) for law in laws])
        return _FactorLaws(own, (), np.ones(len(laws), dtype=int), 0)
    labels = _read_regimes(forecast, regimes)
    loc = forecast.data["factor_loc"].transpose(DATE, FACTOR).to_numpy().astype(np.float64)
    scale = forecast.data["factor_scale"].transpose(DATE, FACTOR).to_numpy().astype(np.float64)
    names = tuple(labels.dropna().unique())
    found = []
    for name in names:
        rows = (labels == name).to_numpy(dtype=bool)
        apart = loc[rows] - loc[rows].mean(axis=0)
        within = np.diag(np.square(scale[rows]).mean(axis=0))
        found.append(within + apart.T @ apart / rows.sum())
    counts = np.array([(labels == name).sum() for name in names])
    return _FactorLaws(np.stack(found), names, counts, int(labels.isna().sum()))


def _read_regimes(forecast: ReturnForecast, regimes: Regimes) -> pd.Series:
    """Return the label of each date of the forecast as text, missing where there is none.

    A date on which no asset has a forecast has no law of the factors, and so no label.
    """
    if isinstance(regimes, xr.DataArray):
        if regimes.dims != (DATE,):
            raise ShapeError(
                f"regimes must have the dimension date alone; got {regimes.dims} at factor_hedge. "
                "Pass one label per date."
            )
        regimes = regimes.to_series()
    series = regimes if isinstance(regimes, pd.Series) else pd.Series(dict(regimes), dtype=object)
    index = pd.DatetimeIndex(series.index).normalize()
    if index.has_duplicates:
        twice = name_places(f"{date:%Y-%m-%d}" for date in index[index.duplicated()].unique())
        raise SpecError(f"each date must have one regime; got several on {twice}. Keep one.")
    own = pd.DatetimeIndex(forecast.data[DATE].to_numpy()).normalize()
    labels = pd.Series(series.to_numpy(dtype=object), index).reindex(own)
    there = forecast.data["entered"].any(ASSET).to_numpy() & labels.notna().to_numpy()
    if not there.any():
        raise SpecError(
            "regimes must have a label for a date of the forecast; got none between "
            f"{own[0]:%Y-%m-%d} and {own[-1]:%Y-%m-%d}. Label the dates at whose close it is known."
        )
    return labels.where(there, None).map(str, na_action="ignore")


def _least_variance(covariance: np.ndarray, exposure: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return exposures to sell, (..., factor), under covariances (..., factor, factor)."""
    along = np.einsum("...kl,...l->...k", covariance, exposure)
    inside = covariance[..., chosen[:, None], chosen]
    hedge = np.zeros_like(along)
    hedge[..., chosen] = np.linalg.solve(inside, along[..., chosen, None])[..., 0]
    return hedge


def _find_instruments(law: PortfolioLaw, instruments: Sequence[str]) -> np.ndarray:
    """Return the places of the instruments among the law's assets."""
    names = [instruments] if isinstance(instruments, str) else [str(name) for name in instruments]
    twice = [name for name, count in Counter(names).items() if count > 1]
    places = pd.Index([str(name) for name in law.assets]).get_indexer(pd.Index(names))
    missing = [name for name, place in zip(names, places, strict=True) if place < 0]
    if not names or twice or missing:
        got = f"no forecast of {name_places(missing)}" if missing else f"twice {name_places(twice)}"
        raise SpecError(
            "instruments must be assets with a forecast on the date, at least one, each once; got "
            f"{got if names else 'none'} on {str(law.date)[:10]}. Choose others."
        )
    own = law.specific_variances[places]
    shared = np.square(law.covariance.loadings[places]).sum(axis=1)
    bare = own <= _ROUNDING * (shared + own)
    if bare.any():
        raise SpecError(
            "instruments must have a specific variance > 0; got none, or rounding, of "
            f"{name_places(law.assets[places][bare])}. Leave out what others replicate."
        )
    return np.asarray(places)


def _solve(covariance: LowRankCovariance, places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return ``C_II^{-1} values`` by the Woodbury identity."""
    loadings, own = covariance.loadings[places], covariance.specific_variance[places]
    scaled, found = loadings / own[:, None], values / own
    inner = cho_factor(np.eye(loadings.shape[1]) + loadings.T @ scaled)
    solved: np.ndarray = found - scaled @ cho_solve(inner, loadings.T @ found)
    return solved
