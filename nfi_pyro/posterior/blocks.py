"""One pass of a trained model over the dates of a panel, block by block, without gradients."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.training.windows import Outcome, PanelBatch, PanelWindows
from nfi_pyro.errors import PanelError, SpecError, SplitError, name_places
from nfi_pyro.svi.inputs import given_names
from nfi_pyro.svi.trained import SVIFit

DateRange = tuple[str | None, str | None] | tuple[str | None, str | None, int]
"""First and last date, inclusive; a third entry k visits every k-th of these dates alone."""


@dataclass(frozen=True)
class PanelPass:
    """Windows of a panel in the units of a fit, and the dates to visit.

    Attributes
    ----------
    windows : PanelWindows
    span : slice
        Positions of the dates visited; each has a full window. Its step is 1 or the k of every
        k-th date.
    """

    windows: PanelWindows
    span: slice

    @property
    def dates(self) -> Any:
        """Dates visited, datetime64, shape (date,)."""
        return self.windows.dates[self.span]

    def on(self, date: np.datetime64) -> "PanelPass":
        """Return the pass of one date, which must be among those visited."""
        place = self.span.start + int(np.flatnonzero(self.dates == date)[0]) * (self.span.step or 1)
        return PanelPass(self.windows, slice(place, place + 1))

    def blocks(self, size: int) -> Iterator[tuple[int, int]]:
        """Yield blocks of at most `size` neighbouring dates that cover the dates visited."""
        if self.span.step in (None, 1):
            yield from self.windows.blocks(self.span, size)
        else:
            for start in range(self.span.start, self.span.stop, self.span.step):
                yield start, start + 1

    def contexts(self, fit: SVIFit) -> Iterator[tuple[PanelBatch, Any, Outcome]]:
        """Yield the batch, the model's context and the outcome of each block."""
        with torch.no_grad():
            for batch, outcome in self.windows.stream(self.blocks(fit.config.block_size)):
                yield batch, fit.model.context(batch), outcome


def require_label(fit: SVIFit, panel: Panel) -> None:
    """Refuse outcomes of another kind than those the fit was trained on.

    Raises
    ------
    PanelError
        If start_lag, horizon, unit, kind, price or benchmark of the panel's `forward_return` are
        not the fit's.
    """
    found = panel["forward_return"].attrs
    other = [f"{key} {found.get(key)}" for key in fit.label if found.get(key) != fit.label[key]]
    if other:
        wanted = ", ".join(f"{key} {value}" for key, value in fit.label.items())
        raise PanelError(
            f"the panel's label must be the fit's ({wanted}); got {', '.join(other)}. Build the "
            "panel with the run's label."
        )


def open_pass(fit: SVIFit, panel: Panel, dates: DateRange | None) -> PanelPass:
    """Return the windows of `panel` in the fit's units over the dates asked for.

    Parameters
    ----------
    fit : SVIFit
    panel : Panel
        Raw features, the same names in the same order as in training.
    dates : pair of str or None
        First and last date, inclusive; None on a side means no limit. None alone means every
        date that has a full window. A third entry k, a whole number, means every k-th of them.

    Raises
    ------
    SpecError
        If k is below 1.
    SplitError
        If no date with a full window is in the range.
    """
    panel = check_panel(panel)
    _require_exposures(fit, panel)
    windows = PanelWindows(
        panel,
        lags=int(fit.model.spec.lags),
        transforms=fit.transforms,
        return_scale=fit.return_scale,
        use_exposures=fit.model.uses_exposures,
    )
    index = pd.DatetimeIndex(windows.dates)
    first, last, step = read_range(dates)
    start = 0 if first is None else int(index.searchsorted(pd.Timestamp(first), side="left"))
    stop = len(index) if last is None else int(index.searchsorted(pd.Timestamp(last), side="right"))
    start = max(start, windows.first)
    if stop <= start:
        raise SplitError(
            f"a date range must hold a date with a full window of {windows.lags} lags; got "
            f"{first} to {last} in a panel of {index[0]:%Y-%m-%d} to {index[-1]:%Y-%m-%d}. "
            "Widen the range, or give more history."
        )
    return PanelPass(windows, slice(start, stop, step))


def read_range(dates: DateRange | None) -> tuple[str | None, str | None, int]:
    """Return first date, last date and step of a range.

    Raises
    ------
    SpecError
        If it is no pair of dates, or the step is below 1.
    """
    if isinstance(dates, str) or not 2 <= len(dates or (None, None)) <= 3:
        raise SpecError(
            f"a date range must be a first and a last date; got {dates!r}. One date is "
            "(date, date), and None leaves a side open."
        )
    for day in (dates or ())[:2]:
        if day is not None and pd.isna(pd.to_datetime(day, errors="coerce")):
            raise SpecError(
                f"a date range must be of dates; got {day!r}. Write them as 2024-01-31."
            )
    first, last, step = (*(dates or (None, None)), 1)[:3]
    if step < 1:
        raise SpecError(
            f"a date range must visit every k-th date with k >= 1; got {step}. Leave it out for "
            "every date."
        )
    return first, last, step


def _require_exposures(fit: SVIFit, panel: Panel) -> None:
    """Refuse a panel whose given exposures are not those the fit was trained on.

    Raises
    ------
    PanelError
        Names what differs.
    """
    if not fit.model.uses_exposures:
        return
    wanted = list(fit.provenance["exposures"]["names"])
    found = given_names(fit.model, panel)
    if found != wanted:
        lacking = [name for name in wanted if name not in found] or ["their order"]
        raise PanelError(
            f"the panel's exposures must be the fit's {len(wanted)}, in its order; got "
            f"{len(found)} without {name_places(lacking)}. Attach the exposures that the run was "
            "fitted on."
        )
