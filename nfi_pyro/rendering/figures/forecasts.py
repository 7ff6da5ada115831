"""The drawings of how forecasts did."""

import numpy as np
from markupsafe import Markup

from nfi_pyro.diagnostics.results import Calibration, InformationCoefficient
from nfi_pyro.rendering import selection
from nfi_pyro.rendering.figures.canvas import date_axis, drawing, finish, heat_map, say_if_empty
from nfi_pyro.rendering.formatting import number
from nfi_pyro.rendering.style import BLUE, INK, MONTHS, SKY


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
            date_axis(axis)
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
            limit = heat_map(axis, values, [str(y) for y in table.index], MONTHS)
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
