"""The geometry of a run through a span, date by date, with intervals where the run has them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pandas as pd

from nfi_pyro.commands.geometry_task import GeometryTask
from nfi_pyro.commands.run_members import RunMembers
from nfi_pyro.errors import SpecError
from nfi_pyro.geometry.results.tracking import Tracking
from nfi_pyro.geometry.tracking.tracking import track
from nfi_pyro.posterior.exposure_pricing import PricingLaw
from nfi_pyro.posterior.forecasting import forecast
from nfi_pyro.posterior.return_forecast import ReturnForecast


def track_run(
    task: GeometryTask,
    laws: Sequence[PricingLaw],
    members: RunMembers,
    *,
    portfolio: pd.Series | None,
    benchmark: pd.Series | None,
) -> Tracking | None:
    """Return the tracking table of the task's span, or None where the law allows none.

    Parameters
    ----------
    task : GeometryTask
    laws : sequence of PricingLaw
        Of the run's own fit, on the task's `flow_days`.
    members : RunMembers
        Whose figures give the intervals.
    portfolio, benchmark : Series, optional
        Weights by asset; equal weights by default.

    Raises
    ------
    WeightsError
        See `track`.
    """
    follow = partial(
        track, portfolio=portfolio, benchmark=benchmark, instrument_lag=task.instrument_lag
    )
    span = (str(task.dates[0])[:10], str(task.dates[-1])[:10])
    own = ReturnForecast(task.laws.data.sel(date=slice(*span)))
    task.say(f"tracking of {len(task.dates)} dates")
    try:
        found = follow(own, laws)
    except SpecError as error:  # collinear exposures, or a network without second derivatives
        task.left_out["tracking"] = f"The metric could not be had: {error}"
        return None
    if not members.fits:
        return replace(found, interval_source=members.about)
    task.say(f"tracking of {len(members.fits)} {members.source}")
    several = follow(
        [forecast(fit, task.panel, dates=span) for fit in members.fits],
        [task.law_pass(fit) for fit in members.fits],
    )
    return replace(found, interval=several.interval, interval_source=members.about)
