"""The bars of an attribution page: a waterfall of parts, and bars by source, group or style."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nfi_pyro.rendering.attribution_selection import common_digits
from nfi_pyro.rendering.figures.canvas import drawing, finish, say_if_empty
from nfi_pyro.rendering.formatting import number, shortened
from nfi_pyro.rendering.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, PURPLE, VERMILION

_LANES = (BLUE, ORANGE, GREEN, PURPLE)
_PARTS = {"linear": BLUE, "pure": ORANGE, "cross": GREEN}


class Waterfall(NamedTuple):
    """What leads from a base value to a value, in basis points.

    Attributes
    ----------
    names : tuple of str
        Of the steps, in order.
    steps : ndarray, shape (step, part)
        Parts linear, pure and cross of each step.
    base, remainder, value : float
        ``value = base + steps.sum() + remainder``.
    """

    names: tuple[str, ...]
    steps: np.ndarray
    base: float
    remainder: float
    value: float


class Words(NamedTuple):
    """What a drawing is called: its id, what a screen reader says, and its axes."""

    anchor: str
    label: str
    x: str
    y: str


def waterfall(found: Waterfall) -> Markup:
    """Return the steps from the base value to the value, each step's parts one under the other.

    A model that is linear has one bar a step.
    """
    bent = bool(np.any(found.steps[:, 1:]))
    parts = list(_PARTS) if bent else ["linear"]
    names = ("Base value", *found.names, "Remainder", "Expected return")
    with drawing(0.95 + 0.34 * len(names)) as figure:
        axis = figure.add_subplot()
        at = found.base
        for place, row in enumerate(found.steps, start=1):
            axis.vlines(at, place - 1, place, color=PALE, lw=1.0, zorder=1)
            for lane, part in enumerate(parts):
                offset, height = _lane(lane, len(parts))
                axis.barh(place + offset, row[lane], height, left=at, color=_PARTS[part],
                          label=part, zorder=2)  # fmt: skip
                at += row[lane]
        last = len(names) - 1
        axis.vlines(at, last - 2, last - 1, color=PALE, lw=1.0, zorder=1)
        axis.barh(last - 1, found.remainder, 0.5, left=at, color=PURPLE, zorder=2)
        axis.vlines(found.value, last - 1, last, color=PALE, lw=1.0, zorder=1)
        axis.plot([found.base, found.value], [0, last], "D", color=INK, ms=5.5, ls="")
        _around(axis, found)
        sizes = [found.base, *found.steps.sum(axis=1), found.remainder, found.value]
        digits = common_digits(np.array(sizes))
        for place, size in enumerate(sizes):
            text = number(size, digits, signed=0 < place < last)
            axis.annotate(text, (1.0, place), (4, 0), xycoords=axis.get_yaxis_transform(),
                          textcoords="offset points", va="center", fontsize=8.5,
                          annotation_clip=False)  # fmt: skip
        _rows(axis, names)
        axis.set_xlabel("Expected return (bp per label horizon)")
        return finish(figure, "fig-waterfall", "Waterfall from the base value to the value")


def lane_bars(
    names: Sequence[str],
    lanes: Mapping[str, np.ndarray],
    *,
    words: Words,
    spread: np.ndarray | None = None,
) -> Markup:
    """Return bars by row, one under the other for several series.

    Parameters
    ----------
    names : sequence of str
        Rows, top to bottom.
    lanes : mapping of name to ndarray, shape (row,)
        At most four. A single one has no legend.
    words : Words
    spread : ndarray, shape (row,), optional
        Half lengths of whiskers of a single series.
    """
    several = len(lanes) > 1
    with drawing(0.85 + (0.12 + 0.1 * len(lanes)) * max(len(names), 3)) as figure:
        axis = figure.add_subplot()
        places = np.arange(len(names))
        for lane, (name, values) in enumerate(lanes.items()):
            offset, height = _lane(lane, len(lanes))
            axis.barh(places + offset, values, height, color=_LANES[lane],
                      label=name if several else None)  # fmt: skip
            if spread is not None:
                axis.hlines(places + offset, values - spread, values + spread, color=INK, lw=1.1)
        axis.axvline(0.0, color=GREY, lw=0.8)
        _rows(axis, names)
        axis.xaxis.set_major_locator(MaxNLocator(6))
        axis.set(xlabel=words.x, ylabel=words.y)
        say_if_empty(axis, np.concatenate(list(lanes.values())))
        return finish(figure, words.anchor, words.label)


def _lane(lane: int, count: int) -> tuple[float, float]:
    """Return offset and height of one of several bars of a row, which is 1 high."""
    height = 0.7 if count == 1 else 0.8 / count
    return (lane - 0.5 * (count - 1)) * height, height * (1.0 if count == 1 else 0.92)


def _rows(axis: Axes, names: Sequence[str]) -> None:
    """Name the rows, the first on top."""
    axis.set_yticks(np.arange(len(names)), [shortened(name, 18) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(False, axis="y")
    axis.tick_params(axis="y", length=0)


def _around(axis: Axes, found: Waterfall) -> None:
    """Frame the way, not the whole from zero: parts may be small beside the value."""
    way = found.base + np.r_[0.0, np.cumsum(found.steps.ravel())]
    ends = np.r_[way, found.value]
    finite = ends[np.isfinite(ends)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    axis.set_xlim(low - margin, high + margin)
    if low - margin < 0.0 < high + margin:
        axis.axvline(0.0, color=VERMILION, lw=0.9, ls="--")
    say_if_empty(axis, ends)
