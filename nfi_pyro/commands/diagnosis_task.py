"""What every part of a diagnosis is made from: one run, one span of dates, draws and a seed."""

import sys
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.splits import DateSpan
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.trained import SVIFit


@dataclass(frozen=True)
class DiagnosisTask:
    """A run, the dates that it is judged on, and how much may be drawn.

    Attributes
    ----------
    fit : SVIFit
    panel : Panel
        With the run's exposures, if any.
    laws : ReturnForecast
        Of every date with a full window.
    span : DateSpan
        Dates that are evaluated.
    draws : int
        Of the factors on a date, >= 100.
    seed : int
    n_dates : int
        Dates of the span that expensive parts visit, at most; >= 1.
    left_out : dict of part to text
        Grows: why a part is not there.
    """

    fit: SVIFit
    panel: Panel
    laws: ReturnForecast
    span: DateSpan
    draws: int
    seed: int
    n_dates: int
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def horizon(self) -> int:
        """Trading days of the label."""
        return int(self.fit.label["horizon"])

    @property
    def n_span(self) -> int:
        """Dates of the span that have a forecast."""
        return self.laws_of(self.span).data.sizes["date"]

    @property
    def range(self) -> DateRange:
        """Every date of the span."""
        return (self.span.first, self.span.last)

    def every(self, most: int) -> DateRange:
        """Return at most `most` evenly spaced dates of the span."""
        return (self.span.first, self.span.last, -(-self.n_span // most))

    @property
    def step(self) -> int:
        """Expensive parts visit every step-th date."""
        return -(-self.n_span // self.n_dates)

    @property
    def thinned(self) -> DateRange:
        """The dates that expensive parts visit."""
        return self.every(self.n_dates)

    @property
    def n_thinned(self) -> int:
        """How many they are."""
        return -(-self.n_span // self.step)

    def laws_of(self, span: DateSpan, step: int = 1) -> ReturnForecast:
        """Return the forecasts of every `step`-th date of a span."""
        place = span.positions(self.laws.data["date"].values)
        return ReturnForecast(self.laws.data.isel(date=slice(place.start, place.stop, step)))

    def outcomes_of(self, laws: ReturnForecast) -> xr.DataArray:
        """Return the returns (date, asset) of cells with a forecast; NaN where not observed."""
        returns = self.panel["forward_return"].sel(date=laws.data["date"]).astype(np.float64)
        return returns.where(laws.data["entered"])

    def say(self, part: str) -> None:
        """Print on standard error which part comes next."""
        print(f"diagnose: {part}", file=sys.stderr, flush=True)
