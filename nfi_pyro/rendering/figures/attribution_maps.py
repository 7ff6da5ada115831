"""The heat maps of an attribution page: rows by date, features by lag, factors by factor."""

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter

from nfi_pyro.rendering.attribution_selection import common_digits
from nfi_pyro.rendering.figures.canvas import DIVERGING, drawing, finish, say_if_empty
from nfi_pyro.rendering.formatting import day, number, shortened
from nfi_pyro.rendering.style import BLUE, SKY

QUANTILE = 0.98
_SEQUENTIAL = LinearSegmentedColormap.from_list(
    "pale_blue", ["#f7f7f5", SKY, BLUE], N=16
).with_extremes(bad="#bcc3cc")
_FEW_COLUMNS, _WIDE = 30, 8
_CORNERS = ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))
_CODES = (Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY)


@dataclass(frozen=True)
class CellMap:
    """Cells of a heat map and what they are called.

    Attributes
    ----------
    names : tuple of str
        Of the rows, top to bottom.
    columns : ndarray
        Dates, or names.
    values : ndarray, shape (row, column)
        NaN is grey.
    anchor, label : str
        Id of the drawing, and what a screen reader says.
    unit : str
        Under the colour bar.
    unsigned : bool
        Whether no value can be below 0.
    limit : float or None
        Where colours end; by default the 98 percent quantile of sizes.
    beside : tuple of str
        Text at the right of each row, if any.
    """

    names: tuple[str, ...]
    columns: np.ndarray
    values: np.ndarray
    anchor: str
    label: str
    unit: str
    unsigned: bool = False
    limit: float | None = None
    beside: tuple[str, ...] = ()


def dated_map(cells: CellMap) -> Markup:
    """Return rows by date; the first, middle and last date are named."""
    with drawing(1.15 + 0.21 * max(len(cells.names), 3)) as figure:
        axis = figure.add_subplot()
        _draw(figure, axis, cells)
        dates = cells.columns
        places = sorted({0, len(dates) // 2, len(dates) - 1}) if len(dates) > 2 else [0]
        axis.set_xticks([place + 0.5 for place in places], [day(dates[p]) for p in places])
        if len(dates) > _WIDE:
            ticks = axis.get_xticklabels()
            ticks[0].set_horizontalalignment("left")
            ticks[-1].set_horizontalalignment("right")
        axis.set_xlabel("Date (close)")
        return finish(figure, cells.anchor, cells.label)


def lag_map(cells: CellMap) -> Markup:
    """Return features by lag, lag 0 first."""
    with drawing(1.15 + 0.21 * max(len(cells.names), 3)) as figure:
        axis = figure.add_subplot()
        _draw(figure, axis, cells)
        places = np.arange(0, len(cells.columns), max(-(-len(cells.columns) // 10), 1))
        axis.set_xticks(places + 0.5, [str(cells.columns[place]) for place in places])
        axis.set_xlabel("Lag (trading days before the signal date)")
        return finish(figure, cells.anchor, cells.label)


def pair_map(cells: CellMap) -> Markup:
    """Return one row and one column by factor."""
    with drawing(1.7 + 0.24 * max(len(cells.names), 3)) as figure:
        axis = figure.add_subplot()
        _draw(figure, axis, cells)
        names = [shortened(name, 12) for name in cells.columns]
        axis.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90)
        return finish(figure, cells.anchor, cells.label)


def colour_limit(values: np.ndarray) -> float:
    """Return where colours end: the 98 percent quantile of sizes, or the largest if that is 0."""
    sizes = np.abs(values[np.isfinite(values)])
    if not sizes.size or not sizes.max() > 0.0:
        return 1.0
    limit = float(np.quantile(sizes, QUANTILE))
    return limit if limit > 0.0 else float(sizes.max())


def _draw(figure: Figure, axis: Axes, cells: CellMap) -> None:
    """Draw cells, row names, texts at the right and the colour bar."""
    limit = colour_limit(cells.values) if cells.limit is None else cells.limit
    norm = Normalize(0.0 if cells.unsigned else -limit, limit)
    colours = _SEQUENTIAL if cells.unsigned else DIVERGING
    _paint(axis, cells.values, colours, norm)
    places = np.arange(len(cells.names)) + 0.5
    axis.set_yticks(places, [shortened(name, 15) for name in cells.names])
    for place, text in zip(places, cells.beside, strict=False):
        axis.annotate(text, (1.0, place), (4, 0), xycoords=axis.get_yaxis_transform(),
                      textcoords="offset points", va="center", fontsize=8,
                      annotation_clip=False)  # fmt: skip
    axis.set_xlim(0, cells.values.shape[1])
    axis.set_ylim(cells.values.shape[0], 0)
    axis.grid(False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    ticks = [0.0, limit] if cells.unsigned else [-limit, 0.0, limit]
    digits = common_digits(np.array([limit]), 2)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axis, location="bottom",
                          fraction=0.04, aspect=40, ticks=ticks)  # fmt: skip
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, digits)))
    bar.ax.minorticks_off()
    bar.set_label(cells.unit)
    bar.outline.set_visible(False)
    say_if_empty(axis, cells.values)


def _paint(axis: Axes, values: np.ndarray, colours: Colormap, norm: Normalize) -> None:
    """Draw cells as one path by colour, which keeps a page of many maps small."""
    few = values.shape[1] <= _FEW_COLUMNS
    painted = np.ma.masked_invalid(values)
    flat = colours(norm(painted)).reshape(-1, 4)
    shades = np.array([to_hex(one) for one in flat]).reshape(values.shape)
    for shade in np.unique(shades):
        boxes = [box for row, line in enumerate(shades == shade) for box in _runs(row, line, few)]
        corners = np.concatenate([np.array(_CORNERS) * size + start for start, size in boxes])
        path = Path(corners, _CODES * len(boxes))
        # An edge of the cell's own colour closes the seams that renderers leave between cells.
        edge, width = ("white", 0.6) if few else (shade, 0.3)
        axis.add_patch(PathPatch(path, facecolor=shade, edgecolor=edge, linewidth=width))


def _runs(
    row: int, line: np.ndarray, few: bool
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Return corner and size of the boxes of one row: cells, or runs where they are many."""
    if few:
        return [((float(place), float(row)), (1.0, 1.0)) for place in np.flatnonzero(line)]
    edges = np.flatnonzero(np.diff(np.r_[False, line, False]))
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [((float(start), float(row)), (float(end - start), 1.0)) for start, end in pairs]
