"""What every part of an attribution page is made from: a run, a book, dates, and a seed."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pandas as pd

from nfi_pyro.commands.opened_run import OpenedRun
from nfi_pyro.commands.run_members import RunMembers
from nfi_pyro.data.panel import Panel
from nfi_pyro.errors import SpecError, WeightsError
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.trained import SVIFit

Part = TypeVar("Part")


@dataclass(frozen=True)
class AttributionTask:
    """A run, whose numbers are attributed, and to what.

    Attributes
    ----------
    opened : OpenedRun
    members : RunMembers
        Whose figures give the intervals.
    book, benchmark : Series or None
        Weights by asset; None is equal weights, and no benchmark.
    groups : Series or None
        Group by asset.
    n_dates : int
        Dates of the span that the expensive parts visit, at most; >= 1.
    seed : int
    quiet : bool
        Whether not to say which part comes next.
    left_out : dict of part to text
        Grows: why a part is not there.
    """

    opened: OpenedRun
    members: RunMembers
    book: pd.Series | None
    benchmark: pd.Series | None
    groups: pd.Series | None
    n_dates: int
    seed: int
    quiet: bool = False
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def fit(self) -> SVIFit:
        """The run's own fit."""
        return self.opened.fit

    @property
    def panel(self) -> Panel:
        """The run's panel, with its exposures if any."""
        return self.opened.panel

    @property
    def laws(self) -> ReturnForecast:
        """Forecasts of the span."""
        data = self.opened.laws.data
        return ReturnForecast(data.isel(date=self.opened.span.positions(data["date"].to_numpy())))

    @property
    def dates(self) -> np.ndarray:
        """Dates of the span with a forecast, datetime64."""
        return self.laws.data["date"].to_numpy()

    @property
    def last(self) -> np.datetime64:
        """The last of them, at whose close the book is looked at."""
        return self.dates[-1]

    def visit(self, most: int | None = None) -> DateRange:
        """Return at most `most` (`n_dates` by default) dates, evenly spaced up to the last."""
        most = self.n_dates if most is None else min(most, self.n_dates)
        step = -(-len(self.dates) // most)
        places = np.arange(len(self.dates))[::-1][::step][::-1]
        return str(self.dates[places[0]])[:10], str(self.last)[:10], step

    def attempt(self, part: str, what: str, make: Callable[[], Part]) -> Part | None:
        """Return what `make` makes, or None and the reason in `left_out`.

        Says on standard error which part comes next, unless `quiet`. Assets without a forecast on
        a date are a reason to leave that part out; names that nobody knows are refused before.
        """
        if not self.quiet:
            print(f"attribute: {what}", file=sys.stderr, flush=True)
        try:
            return make()
        except (SpecError, WeightsError) as error:
            self.left_out[part] = str(error)
            return None
