"""Which pairs of factors act together: what a law says, put to returns it was not trained on."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import false_discovery_control

from nfi_pyro.attribution.couplings.coupling import (
    PAIR,
    checked_chains,
    coupling_scores,
    positions_of,
)
from nfi_pyro.attribution.couplings.coupling_evidence import (
    DateTerms,
    flip_p_values,
    least_assets,
    pool_dates,
    weigh_date,
)
from nfi_pyro.attribution.couplings.coupling_products import neutral_products, standardise
from nfi_pyro.attribution.couplings.friedman import friedman_h_squared
from nfi_pyro.attribution.results.coupling import MinedCouplings
from nfi_pyro.data.panel import Panel
from nfi_pyro.data.ranking import rank_correlation
from nfi_pyro.diagnostics.dim_checks import require_options, require_probability
from nfi_pyro.diagnostics.scores import hac_standard_error, newey_west_lags
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.errors import SpecError, SplitError
from nfi_pyro.posterior.blocks import DateRange, open_pass, read_range, require_label
from nfi_pyro.posterior.exposure_pricing import laws_of_pass, pricing_laws
from nfi_pyro.svi.config import check_seed
from nfi_pyro.svi.trained import SVIFit

LEAST_DATES = 20
"""Dates that can tell, at least: 2^20 flips are enough for any p-value asked for here."""

FOLLOWED = 20
"""Pairs that are followed up beside those discovered."""

_LAW_DATES = 5  # on which H squared is pooled
_WHERE = "mine_couplings"
_NORMAL_975 = 1.959963984540054


class _Discovery(NamedTuple):
    """What the discovery dates say: `PooledTerms`, mean premia and dates by pair."""

    dates: np.ndarray
    parts: np.ndarray
    share: np.ndarray
    n_told: np.ndarray
    premia: np.ndarray
    n_skipped: int


class _Confirmation(NamedTuple):
    """Rank IC by confirmation date of the linear combination, and what each product adds."""

    dates: np.ndarray
    linear: np.ndarray
    uplift: np.ndarray
    n_skipped: int


def mine_couplings(
    fits: SVIFit | Sequence[SVIFit],
    panel: Panel,
    *,
    discovery: DateRange | None = None,
    confirmation: DateRange | None = None,
    level: float = 0.1,
    n_permutations: int = 1999,
    n_candidates: int | None = None,
    seed: int = 0,
) -> MinedCouplings:
    """Return which products of two exposures price returns, tested on dates of no training.

    The laws say how strongly each pair is coupled (`coupling_scores`); the returns of the discovery
    dates say whether its product has a price: on each date 1 and all exposures are taken out of
    labels, squares and products, and over all dates the labels are regressed on these squares and
    products together. A pair's coefficient is held against flips of the signs of whole dates,
    two-sided, and the pairs found are those whose Benjamini-Hochberg q-value over all pairs tested
    is at most `level` (`coupling_evidence` says why this is valid and what it allows for; market
    spec, row 20, and deck A, line 323). With labels of several days every
    `horizon`-th date counts, so that no two labels overlap.

    On confirmation dates the product (`product_factor`) is added to the linear combination of all
    exposures, standardised by date; the mean premia and the product's coefficient, sign included,
    are those of the discovery. So the rise in Rank IC is out of sample; its bounds are Newey-West.

    Parameters
    ----------
    fits : SVIFit or sequence of SVIFit
        As in `coupling_scores`. Exposures are those of the first.
    panel : Panel
        With the fits' features, exposures and label.
    discovery : pair of str, optional
        First and last date, inclusive, from the first validation date on. Default: the validation
        dates. Their returns chose the epoch whose weights were kept: the test of given exposures
        does not depend on that, learned exposures and the laws' scores do, a little.
    confirmation : pair of str, optional
        First and last date, inclusive, once the labels of the discovery are known. Default: none,
        the test dates are for those who ask for them: ``(fit.split.test.first,
        fit.split.test.last)``.
    level : float
        In (0, 1).
    n_permutations : int
        Flips, at least pairs / level - 1: with fewer no pair could be found alone.
    n_candidates : int, optional
        Test the pairs with the highest scores alone: the laws have not seen the labels, so the
        choice needs no correction, and fewer pairs are easier to tell. Products of the others are
        taken to have no price. Default: all.
    seed : int
        Of flips, bootstrap and points. Global generators are not touched.

    Returns
    -------
    MinedCouplings

    Warns
    -----
    ZeroHessianWarning
        See `coupling_scores`.

    Raises
    ------
    SpecError
        As in `coupling_scores`; if an option is out of range, more candidates are asked for than
        have a score above 0, fewer than 20 dates have assets enough (exposures + 6 with a return),
        or there are fewer than two observations for each square and product.
    SplitError
        If discovery dates come before a fit's validation, or confirmation dates before the labels
        of the discovery are known.
    PanelError
        If the panel is not the fits' kind.
    """
    chains = checked_chains(fits)
    require_probability(_WHERE, level=level)
    rng = np.random.default_rng(check_seed(seed))
    validation = chains[0].split.validation
    span = (validation.first, validation.last) if discovery is None else discovery
    _require_unseen(chains, panel, span, confirmation)
    scores = coupling_scores(chains, panel, dates=span, seed=seed)
    examined = _candidates(scores.table, n_candidates)
    least = math.ceil(round(examined.sizes[PAIR] / level, 9)) - 1
    require_options(_WHERE, n_permutations=(n_permutations, max(least, 1), math.inf))
    found = _discover(chains[0], panel, span, positions_of(examined, scores.factors))
    tested = (found.n_told >= LEAST_DATES) & np.isfinite(found.parts).all(axis=0)
    p_value = np.full(len(tested), np.nan)
    p_value[tested] = flip_p_values(found.parts[:, tested], n_permutations, rng)
    table = examined.assign(_evidence(found, p_value, level))
    order = np.lexsort((-np.abs(table["t_statistic"]), p_value))  # NaN comes last
    table, parts = table.isel({PAIR: order}), found.parts[:, order]
    followed = (np.arange(len(order)) < FOLLOWED) | table["discovered"].to_numpy()
    table = table.assign(_confirm_by_law(chains, panel, span, found.dates, table, followed, seed))
    checked = None
    if confirmation is not None:
        places = positions_of(table, scores.factors)[followed]
        slope = parts[:, followed].sum(axis=0)
        checked = _confirm(chains[0], panel, confirmation, places, found.premia, slope)
        table = table.assign(_uplift(checked, followed, int(chains[0].label["horizon"])))
    return MinedCouplings(
        table=table,
        slope=_by_date(parts * len(parts), found.dates, table, "slope", "decimal return"),
        confirmation=None if checked is None else _series(checked, table.isel({PAIR: followed})),
        level=level,
        n_permutations=n_permutations,
        n_tested=int(tested.sum()),
        n_untested=int((~tested).sum()),
        n_screened=scores.table.sizes[PAIR] - len(tested),
        n_dates=len(found.dates),
        n_skipped=found.n_skipped,
        n_overlapping=scores.n_dates + scores.n_skipped - len(found.dates) - found.n_skipped,
        n_confirmation_skipped=0 if checked is None else checked.n_skipped,
        interval=scores.interval,
    )


def _candidates(table: xr.Dataset, n_candidates: int | None) -> xr.Dataset:
    """Return the rows of the pairs to test."""
    if n_candidates is None:
        return table
    require_options(_WHERE, n_candidates=(n_candidates, 1, table.sizes[PAIR]))
    n_scored = int((table["score"] > 0).sum())
    if n_candidates > n_scored and n_candidates < table.sizes[PAIR]:
        raise SpecError(
            f"n_candidates must be at most the pairs with a score above 0; got {n_candidates} for "
            f"{n_scored} at {_WHERE}. The law cannot choose among the others: leave it out."
        )
    return table.isel({PAIR: slice(n_candidates)})


def _require_unseen(
    chains: Sequence[SVIFit], panel: Panel, discovery: DateRange, confirmation: DateRange | None
) -> None:
    """Refuse returns that a fit was trained on, or that discovery and confirmation share."""
    for fit in chains:
        require_label(fit, panel)
    dates = panel.get_index(DATE)
    start, stop = _positions(dates, discovery)
    earliest = max(pd.Timestamp(fit.split.validation.first) for fit in chains)
    if start < len(dates) and dates[start] < earliest:
        raise SplitError(
            f"discovery must begin at the first validation date, {earliest:%Y-%m-%d}, or later; "
            f"got {dates[start]:%Y-%m-%d}. Earlier labels overlap those that the fit was trained "
            "on: pass later dates."
        )
    if confirmation is None:
        return
    label = chains[0].label
    known = stop - 1 + int(label["start_lag"]) + int(label["horizon"])
    first, _ = _positions(dates, confirmation)
    if first < len(dates) and first <= known:
        raise SplitError(
            "confirmation must begin after the close at which the last label of the discovery is "
            f"known, {known - stop + 1} dates after {dates[stop - 1]:%Y-%m-%d}; got "
            f"{dates[first]:%Y-%m-%d}. Pass later dates."
        )


def _positions(dates: pd.Index, span: DateRange) -> tuple[int, int]:
    """Return where a range starts and stops among dates."""
    first, last, _ = read_range(span)
    start = 0 if first is None else int(dates.searchsorted(pd.Timestamp(first), side="left"))
    after = len(dates)
    if last is not None:
        after = int(dates.searchsorted(pd.Timestamp(last), side="right"))
    return start, after


def _cross_sections(
    fit: SVIFit, panel: Panel, dates: DateRange
) -> Iterator[tuple[np.datetime64, np.ndarray, np.ndarray]]:
    """Yield each date with its exposures (asset, factor) and labels (asset,), NaN = unobserved."""
    label = panel["forward_return"].to_numpy().astype(np.float64)
    rows, columns = panel["date"].to_numpy(), panel.get_index(ASSET)
    for law in pricing_laws(fit, panel, dates=dates):
        own = label[np.searchsorted(rows, law.date), columns.get_indexer(pd.Index(law.assets))]
        yield law.date, law.beta.numpy(), own


def _discover(fit: SVIFit, panel: Panel, span: DateRange, pairs: np.ndarray) -> _Discovery:
    """Return what the dates whose labels do not overlap say of each pair."""
    first, last, step = read_range(span)
    apart = step * -(-int(fit.label["horizon"]) // step)
    dates: list[np.datetime64] = []
    found: list[DateTerms] = []
    gram: np.ndarray | float = 0.0
    n_skipped, n_factors = 0, 0
    for date, beta, label in _cross_sections(fit, panel, (first, last, apart)):
        seen, n_factors = np.isfinite(label), beta.shape[1]
        own = None
        if seen.sum() >= least_assets(n_factors):
            own = weigh_date(beta[seen], label[seen], pairs)
        if own is None:
            n_skipped += 1
            continue
        gram = gram + own.gram
        dates.append(date)
        found.append(own._replace(gram=own.gram[:0]))  # one of all dates is in memory
    _require_dates("discovery", len(dates), n_skipped, n_factors)
    n_free, n_terms = sum(date.n_free for date in found), n_factors + len(pairs)
    if n_free < 2 * n_terms:
        raise SpecError(
            f"discovery must have two observations beyond the linear parts per term; got {n_free} "
            f"for {n_factors} squares and {len(pairs)} products at {_WHERE}. Pass more dates, or "
            "n_candidates."
        )
    pooled = pool_dates(np.asarray(gram), np.stack([date.score for date in found]), n_factors)
    return _Discovery(
        dates=np.array(dates),
        parts=pooled.parts,
        share=pooled.share,
        n_told=np.sum([date.known for date in found], axis=0),
        premia=np.mean([date.premia for date in found], axis=0),
        n_skipped=n_skipped,
    )


def _require_dates(what: str, n_dates: int, n_skipped: int, n_factors: int) -> None:
    """Refuse too few dates."""
    if n_dates < LEAST_DATES:
        raise SpecError(
            f"{what} must have {LEAST_DATES} dates with enough assets, and labels that do not "
            f"overlap; got {n_dates}, and {n_skipped} with fewer than {least_assets(n_factors)} "
            f"observed assets for {n_factors} factors or labels all alike, at {_WHERE}. Pass more "
            "dates, or a model of fewer factors."
        )


def _evidence(found: _Discovery, p_value: np.ndarray, level: float) -> dict[str, Any]:
    """Return the table's columns that the returns of the discovery dates fill."""
    n_dates, tested = len(found.dates), ~np.isnan(p_value)
    q_value = np.full(len(p_value), np.nan)
    if tested.any():
        q_value[tested] = false_discovery_control(p_value[tested])
    error = n_dates**0.5 * found.parts.std(axis=0, ddof=1)
    t_statistic = np.full(len(p_value), np.nan)
    np.divide(found.parts.sum(axis=0), error, out=t_statistic, where=error > 0)
    attrs = {"units": "1"}
    return {
        "slope": (PAIR, found.parts.sum(axis=0), {"units": "decimal return"}),
        "t_statistic": (PAIR, t_statistic, attrs),
        "own_share": (PAIR, found.share, attrs),
        "n_dates": (PAIR, found.n_told, attrs),
        "p_value": (PAIR, p_value, attrs),
        "q_value": (PAIR, q_value, attrs),
        "discovered": (PAIR, np.nan_to_num(q_value, nan=1.0) <= level),
    }


def _confirm_by_law(
    chains: Sequence[SVIFit],
    panel: Panel,
    span: DateRange,
    dates: np.ndarray,
    table: xr.Dataset,
    followed: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """Return H squared of the pairs followed up, pooled over a few dates, mean over chains."""
    every = np.linspace(0, len(dates) - 1, _LAW_DATES).round().astype(int)
    some = table.isel({PAIR: followed})
    names = list(zip(some["first"].values.tolist(), some["second"].values.tolist(), strict=True))
    own = []
    for fit in chains:
        visit = open_pass(fit, panel, span)
        laws = [next(laws_of_pass(fit, visit.on(date))) for date in dates[np.unique(every)]]
        own.append(friedman_h_squared(laws, names, seed=seed))
    columns: dict[str, Any] = {}
    for name in ("h_squared", "interaction_scale"):
        values = np.full(len(followed), np.nan)
        values[followed] = np.mean([one[name].to_numpy() for one in own], axis=0)
        columns[name] = (PAIR, values, own[0][name].attrs)
    return columns


def _confirm(
    fit: SVIFit,
    panel: Panel,
    span: DateRange,
    pairs: np.ndarray,
    premia: np.ndarray,
    slope: np.ndarray,
) -> _Confirmation:
    """Return Rank IC by date without and with each product, coefficients from the discovery."""
    dates, linear, uplift, n_skipped = [], [], [], 0
    for date, beta, label in _cross_sections(fit, panel, span):
        if np.isfinite(label).sum() < least_assets(beta.shape[1]):
            n_skipped += 1
            continue
        standard = standardise(beta)
        base = standard @ premia
        both = base[:, None] + slope * neutral_products(standard, pairs)
        rows = np.vstack([base, both.T])
        ic = rank_correlation(rows, np.broadcast_to(label, rows.shape))
        dates.append(date)
        linear.append(ic[0])
        uplift.append(ic[1:] - ic[0])
    _require_dates("confirmation", len(dates), n_skipped, len(premia))
    return _Confirmation(np.array(dates), np.array(linear), np.stack(uplift), n_skipped)


def _uplift(checked: _Confirmation, followed: np.ndarray, horizon: int) -> dict[str, Any]:
    """Return the table's columns on the confirmation dates."""
    values = np.full((4, len(followed)), np.nan)
    for place, series in zip(np.flatnonzero(followed), checked.uplift.T, strict=True):
        kept = series[~np.isnan(series)]
        values[3, place] = len(kept)
        if len(kept) > 1:
            mean = float(kept.mean())
            error = hac_standard_error(kept, newey_west_lags(len(kept), horizon))
            values[:3, place] = mean, mean - _NORMAL_975 * error, mean + _NORMAL_975 * error
    names = ("ic_uplift", "ic_uplift_lower", "ic_uplift_upper", "n_confirmation_dates")
    return {name: (PAIR, row, {"units": "1"}) for name, row in zip(names, values, strict=True)}


def _by_date(
    values: np.ndarray, dates: np.ndarray, table: xr.Dataset, name: str, units: str
) -> xr.DataArray:
    """Return values (date, pair) with their labels."""
    coords = {DATE: dates, **{key: table[key] for key in (PAIR, "first", "second")}}
    return xr.DataArray(values, coords, (DATE, PAIR), name=name, attrs={"units": units})


def _series(checked: _Confirmation, table: xr.Dataset) -> xr.Dataset:
    """Return the confirmation dates with their labels."""
    uplift = _by_date(checked.uplift, checked.dates, table, "ic_uplift", "1")
    linear = (DATE, checked.linear, {"units": "1"})
    return xr.Dataset({"linear_ic": linear, "ic_uplift": uplift})
