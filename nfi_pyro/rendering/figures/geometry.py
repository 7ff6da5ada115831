"""The drawings of a geometry page: states through time, and maps of the principal plane."""

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.rendering.figures.canvas import DIVERGING, date_axis, drawing, finish, say_if_empty
from nfi_pyro.rendering.formatting import number
from nfi_pyro.rendering.geometry_contents import ExposureFlow, ExposurePlane, StateMovement
from nfi_pyro.rendering.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, SKY, VERMILION

FIRST, SECOND = "First direction (standard deviations)", "Second direction (sd)"
MOST_DOTS = 800
_CLEAR = DIVERGING.with_extremes(bad=(0.0, 0.0, 0.0, 0.0))
_UNSEEN = LinearSegmentedColormap.from_list("grey", ["#dfe3e8", "#dfe3e8"]).with_extremes(
    bad=(0.0, 0.0, 0.0, 0.0)
)
_SEQUENTIAL = LinearSegmentedColormap.from_list("blue_pale", [BLUE, SKY, "#eef3f6"], N=31)


def state_series(states: StateMovement) -> Markup:
    """Return step, distance from the start and shift statistic by date."""
    series = states.series
    dates = series[DATE].values
    watched = bool(np.isfinite(states.threshold))
    with drawing(4.6 if watched else 3.3) as figure:
        axes = figure.subplots(2 + watched, 1, sharex=True)
        axes[0].vlines(dates, 0.0, series["step"].values, color=BLUE, lw=1.2)
        axes[0].set_ylabel("Step from\ndate before")
        axes[1].plot(dates, series["displacement"].values, color=BLUE)
        axes[1].set_ylabel("Distance from\nfirst date")
        if watched:
            statistic, alarm = series["statistic"].values, series["alarm"].values
            axes[2].plot(dates, statistic, color=BLUE)
            axes[2].axhline(states.threshold, color=INK, lw=1.0, ls="--", label="threshold")
            if alarm.any():
                axes[2].plot(dates[alarm], statistic[alarm], "x", color=VERMILION, ms=5, ls="",
                             label="date in alarm")  # fmt: skip
            axes[2].set_ylabel("Shift\nstatistic")
            say_if_empty(axes[2], statistic)
        for axis in axes:
            axis.set_ylim(bottom=0.0)
            axis.yaxis.set_major_locator(MaxNLocator(3))
            date_axis(axis, "")
        date_axis(axes[-1])
        figure.align_ylabels(axes)
        label = "Line charts of the factors' law by date: step, distance from the first date"
        return finish(figure, "fig-states", label)


def metric_ellipses(plane: ExposurePlane) -> Markup:
    """Return the assets' scores and, at some points, what a year of returns cannot tell apart."""
    with drawing(3.9) as figure:
        axis = figure.add_subplot()
        _dots(axis, plane, PALE)
        turn = np.linspace(0.0, 2.0 * np.pi, 73)
        circle = np.stack([np.cos(turn), np.sin(turn)])
        for k, matrix in enumerate(plane.ellipses["metric"].values):
            values, vectors = np.linalg.eigh(matrix)
            radius = np.sqrt(plane.eps / values)
            outline = vectors @ (radius[:, None] * circle)
            x, y = (float(plane.ellipses[name].values[k]) for name in ("first", "second"))
            axis.plot(x + outline[0], y + outline[1], color=BLUE, lw=1.1,
                      label="one standard error after 252 returns")  # fmt: skip
            axis.plot(x, y, ".", color=BLUE, ms=3)
        _frame(axis, plane)
        for name, limits in (("first", axis.set_xlim), ("second", axis.set_ylim)):
            centres = plane.ellipses[name].values
            limits(centres.min() - 1.2, centres.max() + 1.2)
        return finish(figure, "fig-ellipses", "Ellipses of the metric over the cloud of exposures")


def geodesic_path(plane: ExposurePlane) -> Markup:
    """Return the geodesic between two assets against the straight line."""
    x, y = plane.path["first"].values, plane.path["second"].values
    with drawing(3.7) as figure:
        axis = figure.add_subplot()
        _dots(axis, plane, PALE)
        axis.plot(x[[0, -1]], y[[0, -1]], color=VERMILION, ls="--", label="straight line")
        axis.plot(x, y, color=BLUE, lw=1.8, label="geodesic")
        axis.plot(x[[0, -1]], y[[0, -1]], "o", color=INK, ms=5, ls="", label="assets")
        _frame(axis, plane)
        return finish(figure, "fig-geodesic", "Geodesic between two assets and the straight line")


def visibility_map(plane: ExposurePlane) -> Markup:
    """Return how many returns it takes until the law's second direction is seen."""
    values = np.where(plane.grid["inside"].values, plane.grid["returns_needed"].values, np.nan)
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.02, 0.98]) if finite.size else (1.0, 10.0)
    norm = LogNorm(max(low, 1e-300), max(high, 1.001 * low))
    with drawing(3.9) as figure:
        axis = figure.add_subplot()
        _mesh(axis, plane, values, _SEQUENTIAL, norm)
        _bar(figure, axis, _SEQUENTIAL, norm, "Returns needed (log scale)", _powers(low, high))
        _frame(axis, plane)
        say_if_empty(axis, values)
        return finish(figure, "fig-visibility", "Map of returns needed to see both directions")


def curvature_map(plane: ExposurePlane) -> Markup:
    """Return the curvature of the plane where it is identified."""
    grid = plane.grid
    values = np.where(grid["identified"].values, grid["curvature"].values, np.nan)
    finite = np.abs(values[np.isfinite(values)])
    limit = float(np.quantile(finite, 0.9)) if finite.size else 1.0
    norm = Normalize(-limit, limit)
    with drawing(3.9) as figure:
        axis = figure.add_subplot()
        unseen = np.where(grid["inside"].values & ~grid["identified"].values, 1.0, np.nan)
        _mesh(axis, plane, unseen, _UNSEEN, Normalize(0.0, 1.0))
        _mesh(axis, plane, values, _CLEAR, norm)
        _bar(figure, axis, DIVERGING, norm, "Curvature (no unit); grey: not identified",
             [-limit, 0.0, limit])  # fmt: skip
        _frame(axis, plane)
        return finish(figure, "fig-curvature", "Map of the curvature of the principal plane")


def crowding_map(plane: ExposurePlane) -> Markup:
    """Return the assets coloured by the Laplacian of their log density."""
    values = plane.assets["crowding"].values
    known = np.isfinite(values)
    limit = float(np.quantile(np.abs(values[known]), 0.98))
    norm = Normalize(-limit, limit)
    with drawing(3.9) as figure:
        axis = figure.add_subplot()
        x, y = plane.assets["first"].values, plane.assets["second"].values
        if (~known).any():
            axis.plot(x[~known], y[~known], "x", color=GREY, ms=4, ls="",
                      label="too few neighbours")  # fmt: skip
        keep = np.flatnonzero(known)[:: _stride(int(known.sum()))]
        axis.scatter(x[keep], y[keep], s=9, c=values[keep], cmap=DIVERGING, norm=norm,
                     edgecolors=GREY, linewidths=0.2)  # fmt: skip
        _bar(figure, axis, DIVERGING, norm, "Laplacian of log density (per squared sd)",
             [-limit, 0.0, limit])  # fmt: skip
        _frame(axis, plane)
        return finish(figure, "fig-crowding", "Assets coloured by the crowding around them")


def flow_series(flow: ExposureFlow) -> Markup:
    """Return the divergence of the flow of exposures by date beside its null."""
    series = flow.series
    dates = series[DATE].values
    value = np.where(series["identified"].values, series["divergence"].values, np.nan)
    with drawing(2.8) as figure:
        axis = figure.add_subplot()
        axis.fill_between(dates, series["null_lower"].values, series["null_upper"].values,
                          color=ORANGE, alpha=0.4, lw=0, label="no flow, 95%")  # fmt: skip
        axis.axhline(0.0, color=INK, lw=0.8)
        axis.plot(dates, value, color=BLUE, lw=1.1, label="divergence")
        mean = flow.mean["divergence"]
        if np.isfinite(mean):
            axis.axhline(mean, color=GREEN, lw=1.1, ls="--", label="mean")
        axis.set_ylabel("Divergence (per date)")
        date_axis(axis, "Date at whose close it is known")
        say_if_empty(axis, value)
        return finish(figure, "fig-flow", "Line chart of the divergence of exposures by date")


def _stride(count: int) -> int:
    return max(-(-count // MOST_DOTS), 1)


def _dots(axis: Axes, plane: ExposurePlane, colour: str) -> None:
    """Draw at most 800 of the assets."""
    thin = plane.assets.isel({ASSET: slice(None, None, _stride(plane.assets.sizes[ASSET]))})
    axis.plot(thin["first"].values, thin["second"].values, ".", color=colour, ms=2.5, ls="")


def _frame(axis: Axes, plane: ExposurePlane) -> None:
    """Give every map of the plane the same frame and labels."""
    first, second = (plane.assets[name].values for name in ("first", "second"))
    for values, limits in ((first, axis.set_xlim), (second, axis.set_ylim)):
        low, high = np.quantile(values, [0.002, 0.998])
        margin = 0.12 * (high - low) or 1.0
        limits(low - margin, high + margin)
    axis.set_xlabel(FIRST)
    axis.set_ylabel(SECOND)


def _mesh(
    axis: Axes, plane: ExposurePlane, values: np.ndarray, colours: Colormap, norm: Normalize
) -> None:
    """Draw cells of the grid; NaN is left empty."""
    mesh = axis.pcolormesh(
        plane.grid["first"].values, plane.grid["second"].values, np.ma.masked_invalid(values),
        cmap=colours, norm=norm, shading="nearest",
    )  # fmt: skip
    mesh.set_rasterized(False)
    axis.grid(False)


def _bar(
    figure: Figure,
    axis: Axes,
    colours: Colormap,
    norm: Normalize,
    label: str,
    ticks: list[float],
) -> None:
    """Add a colour bar with plain numbers under the map."""
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axis, location="bottom",
                          fraction=0.04, aspect=40, ticks=ticks)  # fmt: skip
    digits = 0 if max(map(abs, ticks)) >= 20 else 1 if max(map(abs, ticks)) >= 2 else 3
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, digits)))
    bar.ax.minorticks_off()
    bar.set_label(label)
    bar.outline.set_visible(False)


def _powers(low: float, high: float) -> list[float]:
    """Return round numbers between two ends, at most five."""
    exponents = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    round_numbers = np.array([m * 10.0**e for e in exponents for m in (1, 2, 5)])
    inside = round_numbers[(round_numbers >= low) & (round_numbers <= high)]
    step = max(-(-len(inside) // 5), 1)
    return [float(v) for v in inside[::step]] or [float(low), float(high)]
