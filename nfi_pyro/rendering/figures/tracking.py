"""The drawing of a tracking table: its figures by date, where they are identified."""

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nfi_pyro.dims import DATE
from nfi_pyro.geometry.results.tracking import Tracking
from nfi_pyro.rendering.figures.canvas import date_axis, drawing, finish, say_if_empty
from nfi_pyro.rendering.style import BLUE, GREY, SKY

PANELS = {
    "distance": "Distance from\nbenchmark",
    "effective_rank": "Visible\ndirections",
    "principal_curvature": "Curvature",
    "crowding": "Crowding\n(per date)",
}
_ERRORS = 2.0


def tracking_series(found: Tracking, *, paired: bool) -> Markup:
    """Return the figures of the portfolio by date, with their intervals.

    A figure that is identified on no date has no panel, but the first always has.
    """
    names = [name for name in PANELS if name != "distance" or paired]
    names = [name for name in names if found.ok[name].any()] or names[:1]
    with drawing(0.7 + 1.2 * len(names)) as figure:
        axes = np.atleast_1d(figure.subplots(len(names), 1, sharex=True))
        for axis, name in zip(axes, names, strict=True):
            _panel(axis, found, name)
            date_axis(axis, "")
        date_axis(axes[-1])
        figure.align_ylabels(list(axes))
        return finish(figure, "fig-tracking", "Line charts of the tracking table by date")


def _panel(axis: Axes, found: Tracking, name: str) -> None:
    """Draw one figure."""
    dates = found.figures[DATE].values
    value = found.figures[name].where(found.ok[name]).values
    band = None
    if name == "crowding":
        error = found.figures["crowding_standard_error"].values
        band = value - _ERRORS * error, value + _ERRORS * error
        axis.axhline(0.0, color=GREY, lw=0.8)
    elif found.interval is not None and name in found.interval:
        bounds = found.interval[name]
        band = bounds.sel(bound="lower").values, bounds.sel(bound="upper").values
    if band is not None:
        axis.fill_between(dates, *band, color=SKY, alpha=0.4, lw=0)
    axis.plot(dates, value, color=BLUE, lw=1.3, marker=".", ms=3)
    axis.set_ylabel(PANELS[name])
    axis.yaxis.set_major_locator(MaxNLocator(3, integer=name == "effective_rank"))
    if name in ("distance", "effective_rank"):
        axis.set_ylim(bottom=0.0)
    say_if_empty(axis, value)
