"""The drawings of a report: results in, inline SVG out. The only module that imports matplotlib.

Every figure is drawn 4.6 inches wide with 8 to 9 point type, so that it keeps its size in a
two-column page and stays readable when a phone shows it at 350 pixels. Where hue alone would
carry a meaning, line style or position carries it too.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nfi_pyro.diagnostics.results import Calibration, InformationCoefficient
from nfi_pyro.dims import ASSET, DATE, EPOCH, FACTOR, STEP
from nfi_pyro.portfolio.results import PortfolioRisk
from nfi_pyro.rendering import selection
from nfi_pyro.rendering.formatting import number, shortened
from nfi_pyro.rendering.style import (
    BLUE,
    CYCLE,
    DASHES,
    GREEN,
    GREY,
    INK,
    MONTHS,
    ORANGE,
    PALE,
    SKY,
    STYLE,
    VERMILION,
    WIDTH,
)  # fmt: skip
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


def _date_axis(axis: Axes, label: str = "Date of forecast (close)", most: int = 6) -> None:
    locator = AutoDateLocator(minticks=2, maxticks=most)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axis.grid(False, axis="x")
    axis.set_xlabel(label)


def _whole_axis(axis: Axes, label: str) -> None:
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 0)))
    axis.set_xlabel(label)


def _heat_map(axis: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> float:
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


def elbo_curve(history: xr.Dataset) -> Markup:
    """Return the ELBO (log likelihood) per cell by step: raw, and a centred moving average."""
    name = selection.objective_name(history)
    raw = history["elbo"].values.astype(float)
    steps = selection.axis_values(history["elbo"], STEP)
    with drawing(2.7) as figure:
        axis = figure.add_subplot()
        axis.plot(steps, raw, color=PALE, linewidth=0.8, label="each step")
        marker = "o" if len(steps) == 1 else ""
        axis.plot(steps, selection.smoothed(raw), BLUE, marker=marker, label="moving average")
        finite = raw[np.isfinite(raw)]
        if len(finite) > 20:  # the first steps may be far below and would flatten the rest
            low, high = np.quantile(finite, [0.01, 1.0])
            margin = 0.05 * (high - low) or 0.01
            axis.set_ylim(low - margin, high + margin)
        axis.set_ylabel(f"{name} (nats per cell)")
        _whole_axis(axis, "Training step")
        say_if_empty(axis, raw)
        return finish(figure, "fig-elbo", f"Line chart of the {name} per cell by training step")


def validation_curves(history: xr.Dataset) -> Markup:
    """Return validation log score and Rank IC by epoch, the best epoch marked."""
    epochs = selection.axis_values(history["validation_log_score"], EPOCH)
    best = history.attrs.get("best_epoch")
    panels = (
        ("validation_log_score", "Log score\n(nats per cell)", BLUE),
        ("validation_rank_ic", "Rank IC\n(correlation)", GREEN),
    )
    with drawing(3.3) as figure:
        axes = figure.subplots(2, 1, sharex=True)
        for axis, (name, label, colour) in zip(axes, panels, strict=True):
            values = history[name].values.astype(float)
            axis.plot(epochs, values, color=colour, marker="o" if len(epochs) <= 60 else "", ms=3)
            if best and len(epochs):
                axis.axvline(best, color=INK, linewidth=0.9, linestyle="--",
                             label=f"best epoch ({best})")  # fmt: skip
            axis.set_ylabel(label)
            axis.yaxis.set_major_locator(MaxNLocator(4))
            say_if_empty(axis, values)
        _whole_axis(axes[-1], "Epoch")
        figure.align_ylabels()
        label = "Two line charts of validation log score and Rank IC by epoch"
        return finish(figure, "fig-validation", label)


def kl_curves(history: xr.Dataset) -> Markup:
    """Return the KL divergence per factor by step; the six largest at the end have colours."""
    table = history["kl"].transpose(STEP, FACTOR)
    values = table.values.astype(float)
    smooth = [selection.smoothed(values[:, k]) for k in range(values.shape[1])]
    last = pd.Series([line[-1] if len(line) else np.nan for line in smooth], dtype=float)
    named = selection.largest(last, selection.MOST_KL_LINES)
    steps = selection.axis_values(table, STEP)
    factors = selection.kl_names(history)
    marker = "o" if len(steps) == 1 else ""
    with drawing(3.0) as figure:
        axis = figure.add_subplot()
        for k in sorted(set(range(len(smooth))) - set(named)):
            axis.plot(steps, smooth[k], color=PALE, linewidth=0.9, marker=marker)
        for place, k in enumerate(named):
            axis.plot(steps, smooth[k], color=CYCLE[place], linestyle=DASHES[place],
                      marker=marker, label=shortened(factors[k], 14))  # fmt: skip
        axis.set_ylabel("KL to the prior\n(nats per date)")
        _whole_axis(axis, "Training step")
        axis.set_ylim(bottom=0.0)
        say_if_empty(axis, values)
        return finish(figure, "fig-kl", "Line chart of the KL divergence of each factor by step")


def rank_ic_cumulative(result: InformationCoefficient) -> Markup:
    """Return the running sum of Rank IC with its pointwise 95 percent band."""
    table = selection.cumulative_rank_ic(result)
    with drawing(2.9) as figure:
        axis = figure.add_subplot()
        if len(table):
            few = table.iloc[:: selection.stride(len(table))]
            axis.fill_between(few.index, few["lower"], few["upper"], color=BLUE, alpha=0.18, lw=0,
                              label="95% band")  # fmt: skip
            axis.plot(table.index, table["total"], color=BLUE, label="running sum")
            _date_axis(axis)
        axis.axhline(0.0, color=INK, linewidth=0.9, linestyle="--", label="no skill")
        axis.set_ylabel("Sum of daily Rank IC")
        say_if_empty(axis, table["total"].to_numpy())
        return finish(figure, "fig-rank-ic", "Line chart of the cumulative Rank IC with its band")


def rank_ic_months(result: InformationCoefficient) -> Markup:
    """Return mean Rank IC by year and month as labelled cells, in hundredths."""
    table = selection.monthly_rank_ic(result)
    values = table.to_numpy(dtype=float)
    with drawing(0.75 + 0.27 * max(len(table), 2)) as figure:
        axis = figure.add_subplot()
        if len(table):
            limit = _heat_map(axis, values, [str(y) for y in table.index], MONTHS)
            axis.xaxis.tick_top()
            for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True):
                strong = abs(values[row, column]) > 0.7 * limit
                axis.text(column + 0.5, row + 0.5, number(100 * values[row, column], 0),
                          ha="center", va="center_baseline", fontsize=8.5,
                          color="white" if strong else INK)  # fmt: skip
            axis.set_ylabel("Year")
        axis.set_xlabel("Mean Rank IC of the month, in hundredths")
        say_if_empty(axis, values)
        return finish(figure, "fig-rank-ic-months", "Heat map of mean Rank IC by year and month")


def pit_histogram(calibration: Calibration) -> Markup:
    """Return the density of the PIT with its bootstrap band and the uniform line."""
    histogram = calibration.histogram
    centres = selection.axis_values(histogram, "bin").astype(float)
    density = histogram.values.astype(float)
    low, high = calibration.histogram_lower.values, calibration.histogram_upper.values
    with drawing(2.9) as figure:
        axis = figure.add_subplot()
        axis.bar(centres, density, width=0.92 / max(len(centres), 1), color=SKY, label="observed")
        axis.vlines(centres, low, high, color=BLUE, linewidth=1.3, label="95% band")
        axis.axhline(1.0, color=INK, linewidth=1.0, linestyle="--", label="calibrated")
        axis.set(
            xlabel="PIT: forecast probability below the outcome", ylabel="Density", xlim=(0, 1)
        )
        axis.grid(False, axis="x")
        say_if_empty(axis, density)
        return finish(figure, "fig-pit", "Histogram of the probability integral transform")


def coverage_levels(calibration: Calibration) -> Markup:
    """Return observed minus nominal coverage by nominal level, with intervals.

    The difference is drawn, since intervals a point wide cannot be seen on a scale to 100.
    """
    nominal = selection.nominal_levels(calibration)
    observed, lower, upper = (
        100 * (calibration.coverage[name].values.astype(float) - nominal)
        for name in ("observed", "lower", "upper")
    )
    places = np.arange(len(nominal))
    with drawing(2.9) as figure:
        axis = figure.add_subplot()
        axis.axhline(0.0, color=INK, linewidth=1.0, linestyle="--", label="calibrated")
        axis.vlines(places, lower, upper, color=BLUE, linewidth=1.6, label="95% interval")
        axis.plot(places, observed, "o", color=BLUE, markersize=5, label="observed")
        axis.set_xticks(places, [f"{100 * level:.4g}" for level in nominal])
        axis.set_xlabel("Nominal coverage of the central interval (%)")
        axis.set_ylabel("Observed minus nominal\n(percentage points)")
        axis.margins(x=0.08, y=0.12)
        axis.grid(False, axis="x")
        say_if_empty(axis, observed)
        return finish(figure, "fig-coverage", "Chart of observed minus nominal coverage")


def factor_states(factors: xr.Dataset) -> Markup:
    """Return prior band and posterior of at most eight factors over the dates."""
    shown = selection.largest(selection.factor_movement(factors), selection.MOST_FACTORS)
    thin = factors.isel({DATE: slice(None, None, selection.stride(factors.sizes[DATE]))})
    thin = 100 * thin.isel({FACTOR: shown}).transpose(..., DATE, FACTOR)
    names = [shortened(name, 20) for name in selection.axis_values(thin, FACTOR)]
    columns = 1 if len(names) == 1 else 2
    rows = max(1, -(-len(names) // columns))
    with drawing(0.75 + 1.3 * rows) as figure:
        axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        for k, axis in enumerate(axes[: len(names)]):
            one = thin.isel({FACTOR: k})
            dates = one[DATE].values
            for kind, colour, alpha in (("prior", ORANGE, 0.28), ("posterior", BLUE, 0.32)):
                loc, half = one[f"{kind}_loc"].values, 2 * one[f"{kind}_scale"].values
                axis.fill_between(dates, loc - half, loc + half, color=colour, alpha=alpha, lw=0,
                                  label=f"{kind} ± 2 sd")  # fmt: skip
            axis.plot(dates, one["posterior_loc"], color=BLUE, lw=0.9, label="posterior mean")
            axis.set_title(names[k], loc="left", fontsize=9, pad=3)
            axis.yaxis.set_major_locator(MaxNLocator(4))
            _date_axis(axis, "", most=4)
            say_if_empty(axis, np.r_[one["prior_loc"].values, one["posterior_loc"].values])
        for axis in axes[len(names) :]:
            axis.set_axis_off()
            axes[len(names) - columns].tick_params(labelbottom=True)
        figure.supxlabel("Date of forecast (close)", fontsize=9)
        figure.supylabel("Factor return (% per unit exposure)", fontsize=9)
        label = "Line charts of each factor's posterior against its prior over time"
        return finish(figure, "fig-factors", label)


def exposure_map(exposures: xr.DataArray) -> Markup:
    """Return exposures of at most forty assets as coloured cells, asset by factor."""
    table = selection.shown_exposures(exposures)
    values = table.values.astype(float)
    assets = [shortened(name, 16) for name in selection.axis_values(table, ASSET)]
    factors = [shortened(name, 12) for name in selection.axis_values(table, FACTOR)]
    with drawing(1.3 + 0.185 * max(len(assets), 4)) as figure:
        axis = figure.add_subplot()
        if values.size:
            limit = _heat_map(axis, values, assets, factors)
            axis.xaxis.tick_top()
            room = 3.3 / len(factors)  # inches a column; about 0.07 a character
            if max(map(len, factors)) * 0.075 > room:
                axis.tick_params(axis="x", labelrotation=90)
            bar = figure.colorbar(axis.collections[0], ax=axis, location="bottom", fraction=0.03,
                                  aspect=40, ticks=[-limit, 0, limit])  # fmt: skip
            bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: number(v, 2)))
            bar.set_label("Exposure (beta, no unit)")
            bar.outline.set_visible(False)
        axis.set_ylabel("Asset")
        say_if_empty(axis, values)
        return finish(figure, "fig-exposures", "Heat map of exposures by asset and factor")


def risk_bars(risks: pd.DataFrame, shared: str) -> Markup:
    """Return the largest standard deviations, split by share of variance; `shared` names one."""
    top = risks.head(selection.MOST_RISKS)
    total = 100 * top["standard_deviation"].to_numpy(dtype=float)
    specific = total * top["specific_share"].to_numpy(dtype=float)
    places = np.arange(len(top))
    with drawing(1.0 + 0.2 * max(len(top), 4)) as figure:
        axis = figure.add_subplot()
        axis.barh(places, total - specific, 0.72, color=BLUE, label=shared)
        axis.barh(places, specific, 0.72, left=total - specific, color=ORANGE,
                  label="specific share")  # fmt: skip
        axis.set_yticks(places, [shortened(name, 16) for name in top.index])
        axis.set(xlabel="Standard deviation (% per label horizon)", ylabel="Asset")
        axis.margins(y=0.02)
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.tick_params(axis="y", length=0)
        say_if_empty(axis, total)
        return finish(figure, "fig-risks", "Bar chart of the largest predictive risks")


def contribution_bars(portfolio: PortfolioRisk) -> Markup:
    """Return each factor's and the specific contribution to the portfolio's risk."""
    parts = 100 * selection.shown_contributions(portfolio.factor_contribution)
    values = parts.to_numpy(dtype=float)
    places = np.arange(len(parts))
    finite = values[np.isfinite(values)]
    colours = [BLUE] * (len(parts) - 1) + [ORANGE]
    with drawing(0.75 + 0.25 * max(len(parts), 3)) as figure:
        axis = figure.add_subplot()
        axis.barh(places, values, 0.7, color=colours[-len(parts) :])
        for place, value in zip(places, values, strict=True):
            axis.annotate(number(value, 3), (max(np.nan_to_num(value), 0.0), place), (4, 0),
                          textcoords="offset points", va="center", fontsize=8.5)  # fmt: skip
        axis.axvline(0.0, color=GREY, linewidth=0.8)
        if finite.size:
            axis.set_xlim(min(finite.min(), 0.0) * 1.1, max(finite.max(), 1e-9) * 1.18)
        axis.set_yticks(places, [shortened(name, 18) for name in parts.index])
        axis.set(xlabel="Contribution to standard deviation\n(% of capital, per label horizon)")
        axis.set_ylabel("Source of risk")
        axis.margins(y=0.02)
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.tick_params(axis="y", length=0)
        say_if_empty(axis, values)
        return finish(figure, "fig-contributions", "Bar chart of portfolio risk by source")


def universe_lines(coverage: xr.Dataset) -> Markup:
    """Return the number of assets listed, tradable and entered by date."""
    lines = (("listed", GREY, ":"), ("tradable", ORANGE, "--"), ("entered", BLUE, "-"))
    with drawing(2.7) as figure:
        axis = figure.add_subplot()
        for name, colour, dash in lines:
            values = coverage[name].values.astype(float)
            axis.plot(coverage[DATE].values, values, color=colour, ls=dash, label=name)
        axis.set_ylabel("Number of assets")
        axis.set_ylim(bottom=0)
        axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        _date_axis(axis, "Date (close)")
        say_if_empty(axis, values)
        return finish(figure, "fig-universe", "Line chart of the number of assets by date")


def priced_line(counts: xr.DataArray) -> Markup:
    """Return the number of assets with a close by date."""
    with drawing(2.7) as figure:
        axis = figure.add_subplot()
        axis.plot(counts[DATE].values, counts.values, color=BLUE)
        axis.set_ylabel("Assets with a close")
        axis.set_ylim(0, 1.08 * max(1, int(counts.max())))
        axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        _date_axis(axis, "Date (close)")
        return finish(figure, "fig-priced", "Line chart of the number of priced assets by date")
