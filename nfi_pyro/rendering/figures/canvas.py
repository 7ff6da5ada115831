"""What every drawing starts and ends with: style, axes, legend, and inline SVG out."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nfi_pyro.rendering.formatting import number
from nfi_pyro.rendering.style import (
    BLUE,
    GREY,
    STYLE,
    VERMILION,
    WIDTH,
)
from nfi_pyro.rendering.svg import inline_svg

DIVERGING = LinearSegmentedColormap.from_list(
    "vermilion_blue", [VERMILION, "#f0b48a", "#f7f7f5", "#8fc1e0", BLUE], N=31
).with_extremes(bad="#bcc3cc")


@contextmanager
def drawing(height: float) -> Iterator[Figure]:
    """Yield an empty figure under this module's style, whatever the user's own settings are."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Labels are drawn by the reader's browser; only their width is estimated here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # A year on four ticks: the interval that it then falls back to is the one wanted.
        warnings.filterwarnings("ignore", message="AutoDateLocator was unable to pick")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield Figure(figsize=(WIDTH, height), layout="constrained")


def finish(figure: Figure, anchor: str, label: str) -> Markup:
    """Return the figure as inline SVG with a legend row on top when anything is labelled."""
    handles, names = [], []
    for axis in figure.axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            if name not in names:
                handles.append(handle)
                names.append(name)
    if handles:
        longest = max(map(len, names))
        most = 2 if longest > 16 else 3 if longest > 9 else 4
        rows = -(-len(names) // most)
        columns = -(-len(names) // rows)
        figure.legend(handles, names, loc="outside upper left", ncols=columns)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return inline_svg(buffer.getvalue(), anchor, label)


def say_if_empty(axis: Axes, values: np.ndarray) -> None:
    """Write into the frame that nothing is finite, where nothing is."""
    if not np.isfinite(np.asarray(values, dtype=float)).any():
        axis.text(0.5, 0.5, "no finite value", transform=axis.transAxes, ha="center", color=GREY)


def date_axis(axis: Axes, label: str = "Date of forecast (close)", most: int = 6) -> None:
    """Make the x axis one of dates with at most `most` ticks."""
    locator = AutoDateLocator(minticks=2, maxticks=most)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axis.grid(False, axis="x")
    axis.set_xlabel(label)


def whole_axis(axis: Axes, label: str) -> None:
    """Make the x axis one of whole numbers."""
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 0)))
    axis.set_xlabel(label)


def heat_map(axis: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> float:
    """Draw cells on a scale symmetric about zero; return the value at its two ends."""
    finite = np.abs(values[np.isfinite(values)])
    limit = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    mesh = axis.pcolormesh(
        np.ma.masked_invalid(values),
        cmap=DIVERGING, vmin=-limit, vmax=limit, edgecolors="white", linewidth=0.6,
    )  # fmt: skip
    mesh.set_antialiased(True)
    axis.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axis.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axis.invert_yaxis()
    axis.grid(False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return limit
