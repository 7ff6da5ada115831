"""`nfi attribute`: a run and a book in, one offline HTML page of what drives it out."""

from pathlib import Path

import numpy as np

from nfi_pyro.commands.attribution_networks import features_of, heat_of, relevance_of, sanity_of
from nfi_pyro.commands.attribution_prices import slopes_of, taylor_of
from nfi_pyro.commands.attribution_returns import (
    LEVEL,
    brinson_of,
    couplings_of,
    hedge_of,
    realised_of,
    risk_bounds_of,
    risk_of,
    sharpe_of,
    styles_of,
)
from nfi_pyro.commands.attribution_task import AttributionTask
from nfi_pyro.commands.opened_run import open_run, write_page
from nfi_pyro.commands.run_directory import describe_provenance
from nfi_pyro.commands.run_members import members_of
from nfi_pyro.data.labels import describe_label
from nfi_pyro.errors import SpecError, WeightsError, name_places
from nfi_pyro.portfolio.asset_tables import read_groups
from nfi_pyro.portfolio.weights import read_weights
from nfi_pyro.rendering.attribution_contents import AttributionContents
from nfi_pyro.rendering.attribution_page import render_attribution
from nfi_pyro.svi.config import check_seed

VALIDATION = "validation"
DATES = 60
EQUAL = "the equal-weight book"
MOST_GROSS = 20.0


def attribute(
    run: str | Path,
    out: str | Path,
    *,
    weights: str | Path | None = None,
    benchmark: str | Path | None = None,
    groups: str | Path | None = None,
    panel: str | Path | None = None,
    span: str | None = None,
    n_dates: int = DATES,
    seed: int = 0,
) -> Path:
    """Write one HTML page of what drives a book's return and risk, and return its path.

    Says on standard error which part is being computed.

    Parameters
    ----------
    run : path
        Run directory; its restarts, or draws of random last layers, give intervals.
    out : path
        The HTML file.
    weights : path, optional
        CSV of asset and weight, held on all dates; the equal-weight book by default.
    benchmark : path, optional
        CSV of asset and weight, for Brinson; the equal-weight book by default.
    groups : path, optional
        CSV of asset and group, for Brinson; the panel's industry by default.
    panel : path, optional
        Where the run's panel is now.
    span : {"validation", "test"}, optional
        Dates that are explained; the validation span by default, because whoever chooses models
        by looking at the test span has no test span any more.
    n_dates : int
        Dates that the expensive parts visit, at most, evenly spaced up to the last; >= 1.
    seed : int
        Of draws, sign flips and random weights.

    Raises
    ------
    RunError, CheckpointError, PanelError, SpecError, WeightsError
        Each names the place and the fix.
    """
    contents = collect_attribution(
        run,
        weights=weights,
        benchmark=benchmark,
        groups=groups,
        panel=panel,
        span=span,
        n_dates=n_dates,
        seed=seed,
    )
    return write_page(out, render_attribution(contents))


def collect_attribution(
    run: str | Path,
    *,
    weights: str | Path | None = None,
    benchmark: str | Path | None = None,
    groups: str | Path | None = None,
    panel: str | Path | None = None,
    span: str | None = None,
    n_dates: int = DATES,
    seed: int = 0,
) -> AttributionContents:
    """Return everything that the attribution page shows; arguments as in `attribute`."""
    if n_dates < 1:
        raise SpecError(f"n_dates must be at least 1; got {n_dates}. Leave it out for {DATES}.")
    check_seed(seed)
    book = None if weights is None else read_weights(weights)
    rival = None if benchmark is None else read_weights(benchmark)
    names = None if groups is None else read_groups(groups)
    opened = open_run(run, panel=panel, span=span or VALIDATION)
    known = {str(name) for name in opened.panel["asset"].values}
    for what, table in (("weights", book), ("benchmark", rival)):
        unknown = [] if table is None else [name for name in table.index if name not in known]
        if unknown:
            raise WeightsError(
                f"{what} must name assets of the panel; got unknown {name_places(unknown)}. Use "
                "the panel's symbols, or leave these out."
            )
        if table is not None and table.abs().sum() > MOST_GROSS:
            raise WeightsError(
                f"{what} must be fractions of capital; got a gross weight of "
                f"{table.abs().sum():.4g}. Divide percents by 100."
            )
    if names is not None and not known & set(names.index):
        raise WeightsError(
            f"groups must name assets of the panel; got {name_places(names.index)}. Use the "
            "panel's symbols."
        )
    members = members_of(opened.folder, opened.fit, seed=seed)
    task = AttributionTask(opened, members, book, rival, names, n_dates, seed)
    return _contents(
        task,
        EQUAL if weights is None else Path(weights).stem,
        EQUAL if benchmark is None else Path(benchmark).stem,
    )


def _contents(task: AttributionTask, book: str, benchmark: str) -> AttributionContents:
    """Return the parts of a task."""
    days = str(task.last)[:10]
    attempt = task.attempt
    prices = attempt("prices", "prices of exposures", lambda: slopes_of(task, "mean"))
    slopes = attempt(
        "risk_slopes", "risk by exposure", lambda: slopes_of(task, "standard_deviation")
    )
    taylor = attempt("taylor", f"Taylor terms on {days}", lambda: taylor_of(task))
    risk = attempt("risk", f"risk contributions on {days}", lambda: risk_of(task))
    bounds = attempt("risk_bounds", "intervals of risk", lambda: risk_bounds_of(task))
    sharpe = attempt("sharpe", f"ratio on {days}", lambda: sharpe_of(task))
    heat = attempt("heat_mean", "heat map of the expected return", lambda: heat_of(task, "mean"))
    heat_risk = attempt(
        "heat_risk", "heat map of the risk", lambda: heat_of(task, "standard_deviation")
    )
    sanity = attempt("sanity", "heat maps of random weights", lambda: sanity_of(task))
    features = attempt("features", "integrated gradients", lambda: features_of(task))
    relevance = attempt("relevance", "relevance of features", lambda: relevance_of(task))
    couplings = attempt("couplings", "couplings of factors", lambda: couplings_of(task))
    realised = attempt("realised", "realised return", lambda: realised_of(task))
    compared = attempt("brinson", "Brinson by group", lambda: brinson_of(task))
    hedge = attempt("hedge", f"factor hedge on {days}", lambda: hedge_of(task))
    styles = attempt("styles", "styles", lambda: styles_of(task))
    opened = task.opened
    return AttributionContents(
        title=f"Attribution: {opened.title}",
        provenance=describe_provenance(task.fit),
        settings=_settings(task),
        label=describe_label(task.panel["forward_return"].attrs),
        evaluation_span=opened.describe_span(f"{len(task.dates)} with a forecast"),
        book=book,
        benchmark=benchmark if compared is not None else "",
        interval_about=task.members.about,
        left_out=task.left_out,
        prices=prices,
        risk_slopes=slopes,
        taylor=taylor,
        risk=risk,
        risk_bounds=bounds,
        sharpe=sharpe,
        heat_mean=heat,
        heat_risk=heat_risk,
        sanity=sanity,
        features=features,
        relevance=relevance,
        couplings=couplings,
        realised=realised,
        brinson=None if compared is None else compared.effects,
        linked=None if compared is None else compared.linked,
        unobserved=None if compared is None else compared.unobserved,
        hedge=hedge,
        styles=styles,
    )


def _settings(task: AttributionTask) -> dict[str, str]:
    """Return seeds and dates as text."""
    first, last, step = (*task.visit(), 1)[:3]
    visited = len(np.arange(len(task.dates))[::-1][:: int(step or 1)])
    return {
        "span": f"{task.opened.span_name}, {task.opened.span.first} to {task.opened.span.last}",
        "dates of the span with a forecast": f"{len(task.dates):,}",
        "dates of prices and heat maps": f"{visited:,}, {first} to {last}",
        "level of value at risk and shortfall": f"{LEVEL:.0%}",
        "seed": str(task.seed),
    }
