"""What every part of a geometry page is made from: one run, one span of dates and a seed."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.splits import DateSpan
from nfi_pyro.posterior.exposure_pricing import PricingLaw, pricing_laws
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.trained import SVIFit


@dataclass(frozen=True)
class GeometryTask:
    """A run and the dates that it is measured on.

    Attributes
    ----------
    fit : SVIFit
    panel : Panel
        With the run's exposures, if any.
    laws : ReturnForecast
        Of every date with a full window.
    span : DateSpan
    seed : int
    left_out : dict of part to text
        Grows: why a part is not there.
    """

    fit: SVIFit
    panel: Panel
    laws: ReturnForecast
    span: DateSpan
    seed: int
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def days(self) -> np.ndarray:
        """Every date with a forecast, datetime64."""
        return self.laws.data["date"].to_numpy()

    @property
    def place(self) -> slice:
        """Positions of the span among `days`."""
        return self.span.positions(self.days)

    @property
    def dates(self) -> np.ndarray:
        """Dates of the span with a forecast, datetime64."""
        return self.days[self.place]

    @property
    def instrument_lag(self) -> int:
        """Dates from instrument to flow: the window that exposures are estimated over."""
        return int(self.fit.model.spec.lags)

    @property
    def flow_days(self) -> np.ndarray:
        """Dates of the span and, as far as there are any, those that its flow needs before."""
        first = max(self.place.start - self.instrument_lag - 1, 0)
        return self.days[first : self.place.stop]

    def law_pass(self, fit: SVIFit) -> Iterator[PricingLaw]:
        """Return a fit's pricing laws of `flow_days`, in order."""
        days = self.flow_days
        return pricing_laws(fit, self.panel, dates=(str(days[0])[:10], str(days[-1])[:10]))

    def say(self, part: str) -> None:
        """Print on standard error which part comes next."""
        print(f"geometry: {part}", file=sys.stderr, flush=True)
