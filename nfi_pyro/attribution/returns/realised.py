r"""What a book earned, in parts: factors, what pricing bends, specific returns, trading.

Asset i earned ``r_i`` from its exposures of the signal date and factor returns ``f`` of the period:

    r_i = f_0 + sum_j beta_ij f_j + n_i + u_i

The split is exact: whatever factors and law leave is the specific remainder u.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.attribution.results.brinson import TRADING, LinkedEffects
from nfi_pyro.attribution.results.realised import (
    OTHER_PARTS,
    PART,
    UNCOVERED,
    RealisedAttribution,
)
from nfi_pyro.attribution.returns.brinson_draws import summarise_effects
from nfi_pyro.attribution.returns.linking import Linker, link_effects
from nfi_pyro.attribution.returns.realised_books import RealisedBooks, Unobserved, open_books
from nfi_pyro.attribution.returns.realised_splits import (
    RealisedSplit,
    split_by_posterior,
    split_by_regression,
)
from nfi_pyro.data.panel import Panel
from nfi_pyro.diagnostics.dim_checks import require_probability
from nfi_pyro.dims import ASSET, DATE, DRAW, FACTOR
from nfi_pyro.errors import ShapeError, SpecError, name_places
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.dated_weights import Held
from nfi_pyro.posterior.fits import check_fits, join_chains
from nfi_pyro.posterior.intervals import factors_comparable
from nfi_pyro.svi.config import check_seed
from nfi_pyro.svi.trained import SVIFit

_DECIMAL = {"units": "decimal return"}
_SLOPE = {"units": "decimal return per unit exposure"}
_WHERE = "realised_attribution"


@dataclass(frozen=True)
class ByRegression:
    """Factor returns by weighted least squares of each date's returns on 1 and the exposures.

    Attributes
    ----------
    weights : DataArray, shape (date, asset), or None
        Regression weights > 0, see `cross_sectional_regression`; NaN leaves an asset out. None:
        equal.
    """

    weights: xr.DataArray | None = None


@dataclass(frozen=True)
class ByPosterior:
    """Factor returns as the model's latent factors given each date's returns.

    Attributes
    ----------
    draws : int
        Of the factors, at least 2, for intervals.
    level : float
        Share of draws inside an interval, in (0, 1).
    seed : int
    """

    draws: int = 200
    level: float = 0.9
    seed: int = 0


Method = str | ByRegression | ByPosterior
_METHODS: dict[str, ByRegression | ByPosterior] = {
    "regression": ByRegression(),
    "posterior": ByPosterior(),
}


def realised_attribution(
    fits: SVIFit | Sequence[SVIFit],
    panel: Panel,
    weights: Held,
    *,
    dates: DateRange | None = None,
    method: Method = "regression",
    portfolio_return: xr.DataArray | pd.Series | None = None,
    unobserved: Unobserved = "error",
    linking: Linker | None = "carino",
) -> RealisedAttribution:
    r"""Return what a book earned on each date and over all of them, in parts that add up.

    The label of a date is what is attributed: earned from ``date + start_lag`` to ``date +
    start_lag + horizon`` by the exposures known at its close. Weights are those at the start of
    that period, and `portfolio_return` is the account's over it.

    By ``regression``, each date's returns are regressed on 1 and the exposures over all assets
    with a law and a return (`cross_sectional_regression`). Factor j gives ``b_j f_j`` with ``b_j =
    sum_i w_i beta_ij``, the market ``f_0 sum_i w_i``. Of the residual, ``nonlinear`` is what the
    fitted law had priced beyond a linear function of exposure: ``sum_i w_i n_i``, with n the
    residual of the expected returns ``E[r_i | beta_i]`` in the same regression. It is 0 for a
    linear model. The rest is ``specific``. A column that repeats earlier ones has part 0, as they
    carry it, and is in the ledger.

    By ``posterior``, factor j gives ``b_j E[z_j | returns of the date]``, with the posterior of
    `sample_posterior`, which shrinks towards the prior; ``alpha`` is ``sum_i w_i alpha(beta_i)``,
    the specific mean of the law. Draws of z give an interval of each part. The law is held, with
    random last layers at the guide's location: for what they add pass several fits, restarts or
    `draw_fits`. So intervals are a little narrow, most for a factor that the returns of a date
    hardly show: on 12 linear panels of 120 dates, fitted, 90 percent intervals held the planted
    factor return on 88 to 89 percent of dates for factors of a scale of 1.3 to 3 standard errors,
    and on 87 percent for one of 2/3 of a standard error.

    The part ``uncovered`` is the return of held assets that have no law on the date, ``trading``
    what the account earned beyond its holdings (costs, trades within the period).

    Parameters
    ----------
    fits : SVIFit or sequence of SVIFit
        Of any model; several are restarts of one, and give `chain`. By posterior, of one with
        latent factors. Learned factors of restarts are not aligned.
    panel : Panel
        With the fits' label; `forward_return` is what is attributed.
    weights : mapping, Series, DataArray (asset,) or (date, asset), str, or None
        The book in fractions of capital, or the name of one asset; None holds every asset with a
        law alike.
    dates : pair of str, optional
        First and last signal date, inclusive, and every how many-th, see `open_pass`. By default
        every date with a full window. The last ones without any observed return are left out, and
        counted.
    method : {"regression", "posterior"}, ByRegression or ByPosterior
    portfolio_return : DataArray or Series over date, optional
        Of the account, under the signal date, decimal.
    unobserved : {"error", "renormalise"}
        What to do where an asset with weight has no observed return: refuse, or scale the other
        weights of the date up to the same sum of absolute weights. Counted either way.
    linking : {"carino", "menchero", "grap", "frongello"} or None
        How parts of single dates become parts of the compound return, see `link_effects`, with a
        benchmark that returns 0. None for dates that are not to be compounded.

    Returns
    -------
    RealisedAttribution

    Raises
    ------
    SpecError
        If the labels are no returns, an option is unknown or out of range, a return is missing, a
        date has no regression, a model has no latent factors, or linked periods overlap.
    WeightsError, ShapeError
        See `DatedWeights`.
    PanelError, SplitError
        If the panel is not the fits' kind, or no date has a full window.

    Notes
    -----
    Deck A, lines 110-136 and 281-307; market specification, rows 5 and 17 and section 2.10.
    """
    chains = check_fits(fits)
    chosen = _read_method(method)
    books = open_books(
        chains[0],
        panel,
        weights,
        dates=dates,
        portfolio_return=portfolio_return,
        unobserved=unobserved,
    )
    _require_apart(books, linking)
    splits = [_split(fit, panel, books, dates, chosen, place) for place, fit in enumerate(chains)]
    parts, draws, factors = _join(splits, books, fits)
    total = _over_dates(books.account, books, "total")
    linked_draws = _link(draws, total, linking)
    return RealisedAttribution(
        parts=parts,
        total=total,
        holdings_return=_over_dates(books.holdings_return, books, "holdings_return"),
        factors=factors,
        part_draws=draws,
        interval=_bound(draws, chosen),
        linked=_link(parts, total, linking),
        linked_interval=_bound(None if linked_draws is None else linked_draws.effects, chosen),
        books=_describe(books, splits[0]),
        comparable=factors_comparable(chains),
        n_unrealised=books.n_unrealised,
        method=_words(chosen),
        start_lag=books.start_lag,
        horizon=books.horizon,
        ledger=splits[0].ledger,
    )


def _read_method(method: Method) -> ByRegression | ByPosterior:
    """Return the method with its options, once they are in range."""
    chosen = _METHODS.get(method) if isinstance(method, str) else method
    if not isinstance(chosen, ByRegression | ByPosterior):
        raise SpecError(
            f"method must be one of {', '.join(_METHODS)}, ByRegression or ByPosterior; got "
            f"{method!r}. Choose one."
        )
    if isinstance(chosen, ByRegression):
        if chosen.weights is not None and set(chosen.weights.dims) != {DATE, ASSET}:
            raise ShapeError(
                "regression weights must have dimensions date and asset; got "
                f"{chosen.weights.dims} at {_WHERE}. Broadcast them over dates."
            )
        return chosen
    require_probability(_WHERE, level=chosen.level)
    check_seed(chosen.seed)
    if chosen.draws < 2:
        raise SpecError(
            f"draws must be >= 2; got {chosen.draws} at {_WHERE}. A few hundred are usual."
        )
    return chosen


def _words(method: ByRegression | ByPosterior) -> str:
    """Return the method in words."""
    if isinstance(method, ByPosterior):
        return f"posterior of the factors, {method.draws} draws"
    kind = "equal" if method.weights is None else "given"
    return f"cross-sectional regression, {kind} weights"


def _require_apart(books: RealisedBooks, linking: Linker | None) -> None:
    """Refuse to compound periods that overlap."""
    if linking is not None and len(books.dates) > 1 and books.step < books.horizon:
        raise SpecError(
            f"linked periods must not overlap; got labels of {books.horizon} trading days every "
            f"{books.step} at {_WHERE}. Pass dates=(first, last, {books.horizon}), or linking=None."
        )


def _split(
    fit: SVIFit,
    panel: Panel,
    books: RealisedBooks,
    dates: DateRange | None,
    method: ByRegression | ByPosterior,
    place: int,
) -> RealisedSplit:
    """Return what one fit says."""
    if isinstance(method, ByRegression):
        split = split_by_regression(fit, panel, books, dates=dates, weights=method.weights)
    else:
        stream = np.random.SeedSequence(method.seed, spawn_key=(place,))
        split = split_by_posterior(
            fit,
            panel,
            books,
            dates=dates,
            draws=method.draws,
            generator=np.random.default_rng(stream),
        )
    taken = [name for name in split.factors if name in OTHER_PARTS]
    if taken:
        raise SpecError(
            f"factors must have names of their own; got {name_places(taken)}, which names another "
            f"part at {_WHERE}. Rename the exposures."
        )
    return split


def _join(
    splits: Sequence[RealisedSplit], books: RealisedBooks, fits: SVIFit | Sequence[SVIFit]
) -> tuple[xr.DataArray, xr.DataArray | None, xr.Dataset]:
    """Return parts, their draws, and the factors, of all chains."""
    joined = join_chains([_label(split, books) for split in splits], fits)
    by_part = [str(name) for name in joined if PART in joined[name].dims]
    return joined["parts"], joined.get("part_draws"), joined.drop_vars([*by_part, PART])


def _label(split: RealisedSplit, books: RealisedBooks) -> xr.Dataset:
    """Return what one fit says."""
    days = {DATE: books.dates}
    names: dict[str, Any] = {**days, PART: [*split.names, UNCOVERED, TRADING]}
    by_factor: dict[str, Any] = {**days, FACTOR: list(split.factors)}
    found = {
        "parts": xr.DataArray(_whole(split.parts, split, books), names, attrs=_DECIMAL),
        "exposure": xr.DataArray(split.exposure, by_factor, attrs={"units": "1"}),
        "factor_return": xr.DataArray(split.factor_return, by_factor, attrs=_SLOPE),
        "standard_error": xr.DataArray(split.standard_error, by_factor, attrs=_SLOPE),
    }
    if split.condition is not None:
        found["condition"] = xr.DataArray(split.condition, days, attrs={"units": "1"})
    if split.draws is not None:
        whole = _whole(split.draws, split, books)
        found["part_draws"] = xr.DataArray(whole, names, (DRAW, DATE, PART), attrs=_DECIMAL)
    return xr.Dataset(found)


def _whole(parts: np.ndarray, split: RealisedSplit, books: RealisedBooks) -> np.ndarray:
    """Return parts (..., date, part) with what no factor explains and what trading earned."""
    outside = np.where(split.covered, 0.0, books.weights)
    uncovered = np.einsum("da,da->d", outside, books.returns)
    others = np.stack([uncovered, books.account - books.holdings_return], axis=-1)
    return np.concatenate([parts, np.broadcast_to(others, (*parts.shape[:-1], 2))], axis=-1)


def _over_dates(values: np.ndarray, books: RealisedBooks, name: str) -> xr.DataArray:
    """Return returns labelled by date."""
    return xr.DataArray(values, {DATE: books.dates}, DATE, name, _DECIMAL)


def _link(
    parts: xr.DataArray | None, total: xr.DataArray, linking: Linker | None
) -> LinkedEffects | None:
    """Return the parts of all dates together, or nothing where there is nothing to link."""
    if parts is None or linking is None:
        return None
    none = xr.zeros_like(total)
    return link_effects(parts, portfolio_return=total, benchmark_return=none, method=linking)


def _bound(draws: xr.DataArray | None, method: ByRegression | ByPosterior) -> xr.Dataset | None:
    """Return mean and central interval of draws, where there are any."""
    if draws is None or isinstance(method, ByRegression):
        return None
    return summarise_effects(draws, level=method.level)


def _describe(books: RealisedBooks, split: RealisedSplit) -> xr.Dataset:
    """Return counts and shares of each date's book."""
    held = books.weights != 0.0
    found = {
        "n_held": held.sum(axis=1),
        "n_unobserved": books.n_unobserved,
        "unobserved_share": books.unobserved_share,
        "uncovered_share": books.share(held & ~split.covered),
    }
    pure = {"units": "1"}
    return xr.Dataset(
        {name: (DATE, values, pure) for name, values in found.items()}, {DATE: books.dates}
    )
