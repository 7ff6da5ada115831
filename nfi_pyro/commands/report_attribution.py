"""The attribution that a risk report shows: what drives the reported book on the forecast date."""

from dataclasses import replace

import pandas as pd

from nfi_pyro.commands.attribution_networks import heat_of
from nfi_pyro.commands.attribution_prices import slopes_of, taylor_of
from nfi_pyro.commands.attribution_returns import risk_of
from nfi_pyro.commands.attribution_task import AttributionTask
from nfi_pyro.commands.opened_run import OpenedRun
from nfi_pyro.commands.run_members import NONE, RunMembers
from nfi_pyro.data.labels import describe_label
from nfi_pyro.data.splits import DateSpan
from nfi_pyro.rendering.attribution_contents import AttributionContents

DATES = 24
NO_INTERVAL = "This report has no intervals; `nfi attribute` has, where the run has restarts."


def report_attribution(opened: OpenedRun, book: pd.Series | None, name: str) -> AttributionContents:
    """Return the parts that take seconds, up to the last forecast: it is what the report is of.

    Parameters
    ----------
    opened : OpenedRun
    book : Series or None
        Weights by asset; equal weights by default.
    name : str
        Of the book.
    """
    days = opened.laws.data["date"].values
    first = max(opened.span.positions(days).start, 0)
    span = DateSpan(str(days[first])[:10], str(days[-1])[:10])
    members = RunMembers((), NONE, NO_INTERVAL)
    task = AttributionTask(
        replace(opened, span=span), members, book, None, None, DATES, 0, quiet=True
    )
    attempt = task.attempt
    return AttributionContents(
        label=describe_label(opened.panel["forward_return"].attrs),
        book=name,
        interval_about=members.about,
        left_out=task.left_out,
        prices=attempt("prices", "prices of exposures", lambda: slopes_of(task, "mean")),
        taylor=attempt("taylor", "Taylor terms", lambda: taylor_of(task)),
        risk=attempt("risk", "risk contributions", lambda: risk_of(task)),
        heat_mean=attempt("heat_mean", "heat map", lambda: heat_of(task, "mean")),
        heat_risk=attempt(
            "heat_risk", "heat map of risk", lambda: heat_of(task, "standard_deviation")
        ),
    )
