"""The lines of an attribution page: a book's expected value by date, and realised parts."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from nfi_pyro.rendering.figures.canvas import date_axis, drawing, finish, say_if_empty
from nfi_pyro.rendering.formatting import shortened
from nfi_pyro.rendering.style import BLUE, CYCLE, DASHES, GREY, INK, SKY


def value_line(
    dates: np.ndarray,
    value: np.ndarray,
    *,
    bounds: tuple[np.ndarray, np.ndarray] | None,
    name: str,
    anchor: str,
) -> Markup:
    """Return a value by date with its interval, if any."""
    with drawing(2.6) as figure:
        axis = figure.add_subplot()
        if bounds is not None:
            axis.fill_between(dates, *bounds, color=SKY, alpha=0.4, lw=0, label="interval")
        axis.plot(dates, value, color=BLUE, marker="." if len(dates) < 40 else None, ms=4,
                  label="value" if bounds is not None else None)  # fmt: skip
        finite = value[np.isfinite(value)]
        if finite.size and finite.min() < 0.0 < finite.max():
            axis.axhline(0.0, color=GREY, lw=0.8)
        axis.set_ylabel(name)
        date_axis(axis, "Date (close)")
        say_if_empty(axis, value)
        return finish(figure, anchor, f"Line chart by date: {name}")


def running_lines(dates: np.ndarray, names: Sequence[str], parts: np.ndarray) -> Markup:
    """Return running sums of parts (part, date) in percent, and of all together."""
    running = 100.0 * np.cumsum(parts, axis=1)
    with drawing(3.4) as figure:
        axis = figure.add_subplot()
        axis.axhline(0.0, color=GREY, lw=0.8)
        for place, (name, line) in enumerate(zip(names, running, strict=True)):
            axis.plot(dates, line, color=CYCLE[place % len(CYCLE)], ls=DASHES[place % len(DASHES)],
                      lw=1.3, label=shortened(name, 18))  # fmt: skip
        axis.plot(dates, running.sum(axis=0), color=INK, lw=2.0, label="all parts")
        axis.set_ylabel("Return since the first date (%)")
        date_axis(axis, "Signal date (close)")
        say_if_empty(axis, running)
        return finish(figure, "fig-realised", "Line chart of the running sums of realised parts")
