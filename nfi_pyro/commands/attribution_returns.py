"""Parts of an attribution page about risk and returns: Euler, realised, Brinson, hedge, styles."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.attribution.couplings.coupling_mining import mine_couplings
from nfi_pyro.attribution.results.brinson import BrinsonAttribution, LinkedEffects
from nfi_pyro.attribution.results.contributions import RiskContributions, SharpeContributions
from nfi_pyro.attribution.results.coupling import MinedCouplings
from nfi_pyro.attribution.results.hedge import FactorHedge
from nfi_pyro.attribution.results.realised import RealisedAttribution
from nfi_pyro.attribution.results.styles import StyleReport
from nfi_pyro.attribution.returns.brinson import brinson
from nfi_pyro.attribution.returns.linking import link_effects
from nfi_pyro.attribution.returns.realised import realised_attribution
from nfi_pyro.attribution.risk.hedge import factor_hedge
from nfi_pyro.attribution.risk.risk_contributions import risk_contributions
from nfi_pyro.attribution.risk.sharpe_contributions import sharpe_contributions
from nfi_pyro.attribution.styles.style_report import style_report
from nfi_pyro.commands.attribution_task import AttributionTask
from nfi_pyro.data.features.styles import barra_styles
from nfi_pyro.dims import ASSET, CHAIN, DATE
from nfi_pyro.errors import SpecError
from nfi_pyro.portfolio.risk import equal_weights
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.forecasting import forecast
from nfi_pyro.posterior.intervals import interval_over
from nfi_pyro.svi.protocol import ExposurePricing

LEVEL = 0.95
UNCLASSIFIED = "unclassified"


def book_of(task: AttributionTask) -> pd.Series:
    """Return the book on the last date."""
    return equal_weights(task.laws) if task.book is None else task.book


def risk_of(task: AttributionTask) -> RiskContributions:
    """Return the Euler contributions to the book's risk on the last date."""
    return risk_contributions(task.laws, book_of(task), level=LEVEL, seed=task.seed)


def risk_bounds_of(task: AttributionTask) -> xr.DataArray | None:
    """Return the interval of the book's risk on the last date over the run's members, if any."""
    if not task.members.fits:
        return None
    day, book = str(task.last)[:10], book_of(task)
    found = [
        risk_contributions(
            forecast(fit, task.panel, dates=(day, day)), book, level=LEVEL, seed=task.seed
        ).value
        for fit in task.members.fits
    ]
    return interval_over(xr.concat(found, CHAIN))


def sharpe_of(task: AttributionTask) -> SharpeContributions:
    """Return the parts of the book's ratio of expected return to risk on the last date."""
    return sharpe_contributions(task.laws, book_of(task))


def hedge_of(task: AttributionTask) -> FactorHedge:
    """Return the exposures whose sale leaves the book the least variance, on the last date."""
    return factor_hedge(task.laws, task.book, dates=(str(task.last)[:10],) * 2)


def realised_of(task: AttributionTask) -> RealisedAttribution:
    """Return what the book earned over the span: by posterior where there is one."""
    method = "posterior" if task.fit.provenance["factors"] else "regression"
    return realised_attribution(
        task.fit,
        task.panel,
        task.book,
        dates=_apart(task),
        method=method,
        unobserved="renormalise",
    )


def couplings_of(task: AttributionTask) -> MinedCouplings:
    """Return which pairs of exposures price returns together on the validation dates."""
    if not isinstance(task.fit.model, ExposurePricing):
        raise SpecError(
            f"couplings must come from a law of exposures; {task.fit.model.name} prices hidden "
            "features."
        )
    split, confirmation = task.fit.split, None
    if task.opened.span_name == "test":  # what validation dates found is confirmed on later ones
        confirmation = _days(task)
    return mine_couplings(
        task.fit,
        task.panel,
        discovery=(split.validation.first, split.validation.last),
        confirmation=confirmation,
        seed=task.seed,
    )


class Compared(NamedTuple):
    """A book against its benchmark, and the mean share of weight of each without a return."""

    effects: BrinsonAttribution
    linked: LinkedEffects
    unobserved: tuple[float, float]


def brinson_of(task: AttributionTask) -> Compared:
    """Return the book against its benchmark by group, on each date and linked.

    Raises
    ------
    SpecError
        If there are no groups, or nothing to compare.
    """
    groups: pd.Series | xr.DataArray | None = task.groups
    if groups is None:
        if "industry" not in task.panel:
            raise SpecError(
                "Brinson attribution must have groups; got neither --groups nor an industry in the "
                "panel. Pass a CSV of asset and group."
            )
        groups = task.panel["industry"]
    if task.book is None and task.benchmark is None:
        raise SpecError(
            "Brinson attribution must compare two books; got the equal-weight book alone. Pass "
            "--weights or --benchmark."
        )
    returns = task.panel["forward_return"].sel({DATE: task.dates[:: _horizon(task)]})
    returns = returns.isel({DATE: np.isfinite(returns.values).any(axis=1)})
    (own, own_missing), (other, other_missing) = (
        _daily(task, book, returns) for book in (task.book, task.benchmark)
    )
    found = brinson(
        own,
        other,
        returns,
        groups,
        interaction="selection",
        unallocated="cash",
        missing_group=UNCLASSIFIED,
    )
    linked = link_effects(
        found.effects,
        portfolio_return=found.totals["portfolio_return"],
        benchmark_return=found.totals["benchmark_return"],
    )
    return Compared(found, linked, (own_missing, other_missing))


def styles_of(task: AttributionTask) -> StyleReport:
    """Return what the book has in common with the styles that closes allow, over the span."""
    if "close" not in task.panel:
        raise SpecError("styles must come from closes; got a panel without them.")
    if task.book is None:
        raise SpecError(
            "styles must be of a book that differs from the market; the equal-weight book is the "
            "market that they are measured against. Pass --weights."
        )
    styles = barra_styles(task.panel[["close"]]).sel({DATE: task.dates})
    returns = task.panel["forward_return"].sel({DATE: task.dates})
    weights, _ = _daily(task, task.book, None)
    return style_report(weights, styles, kind="weights", returns=returns)


def _horizon(task: AttributionTask) -> int:
    """Return the label's horizon in dates."""
    return int(task.fit.label["horizon"])


def _apart(task: AttributionTask) -> DateRange:
    """Return the span's dates whose labels do not overlap."""
    return *_days(task), _horizon(task)


def _days(task: AttributionTask) -> tuple[str, str]:
    """Return the span's first and last date with a forecast."""
    return str(task.dates[0])[:10], str(task.last)[:10]


def _daily(
    task: AttributionTask, book: pd.Series | None, returns: xr.DataArray | None
) -> tuple[xr.DataArray, float]:
    """Return a book's weights (date, asset), those without a return given to the others.

    The others are scaled up to the same sum of absolute weights, by date. Also the mean share of
    weight that had no return.
    """
    missing = 0.0
    dates = task.dates if returns is None else returns[DATE].values
    assets = task.panel[ASSET].values
    labels = {DATE: dates, ASSET: assets}
    if book is None:
        entered = task.laws.data["entered"].sel({DATE: dates}).reindex({ASSET: assets})
        table = entered.fillna(False).astype(float).to_numpy()
        table = table / np.maximum(table.sum(axis=1, keepdims=True), 1.0)
    else:
        row = book.reindex([str(name) for name in assets], fill_value=0.0).to_numpy()
        table = np.tile(row, (len(dates), 1))
    if returns is not None:
        known = np.where(np.isfinite(returns.transpose(DATE, ASSET).to_numpy()), table, 0.0)
        share = np.abs(known).sum(axis=1) / np.maximum(np.abs(table).sum(axis=1), 1e-300)
        table = known / np.maximum(share, 1e-300)[:, None]
        missing = float(1.0 - share.mean())
    return xr.DataArray(table, labels, (DATE, ASSET)), missing
