"""The drawings of how good a variational fit is: training, factors, importance, ranks, restarts."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from markupsafe import Markup
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from nfi_pyro.diagnostics.results import (
    Collapse,
    Convergence,
    ImportanceQuality,
    RestartComparison,
    SimulationCalibration,
)
from nfi_pyro.dims import DATE, FACTOR, STEP
from nfi_pyro.rendering import selection
from nfi_pyro.rendering.figures.canvas import (
    date_axis,
    drawing,
    finish,
    heat_map,
    say_if_empty,
    whole_axis,
)
from nfi_pyro.rendering.formatting import number, shortened
from nfi_pyro.rendering.rank_bands import rank_band
from nfi_pyro.rendering.selection import is_percent
from nfi_pyro.rendering.style import (
    BLUE,
    CYCLE,
    DASHES,
    GREEN,
    INK,
    ORANGE,
    PALE,
    SKY,
    VERMILION,
)

MOST_BARS = 24
MOST_R_HAT = 3.0
SMALLEST_GAP = 0.02
GUIDE_STYLES = ((BLUE, "o"), (VERMILION, "x"), (GREEN, "^"))


def elbo_average_curve(history: xr.Dataset, convergence: Convergence) -> Markup:
    """Return the objective's curve per cell by step, and its exponential average."""
    name = selection.objective_name(history)
    raw = selection.seen_steps(history)
    average = convergence.elbo_average.values.astype(float)
    steps = selection.axis_values(history["elbo"], STEP)
    with drawing(2.7) as figure:
        axis = figure.add_subplot()
        axis.plot(steps, raw, color=PALE, linewidth=0.8, label="each step")
        axis.plot(steps, average, BLUE, label="average, half-life one epoch")
        finite = raw[np.isfinite(raw)]
        if len(finite) > 20:  # the first steps may be far below and would flatten the rest
            low, high = np.quantile(finite, [0.01, 1.0])
            margin = 0.05 * (high - low) or 0.01
            axis.set_ylim(low - margin, high + margin)
        for place in history["last_step"].values[:-1]:
            axis.axvline(place, color=PALE, linewidth=0.5)
        axis.set_ylabel(f"{name} (nats per cell)")
        whole_axis(axis, "Training step (thin lines: ends of epochs)")
        say_if_empty(axis, raw)
        return finish(figure, "fig-elbo", f"Line chart of the {name} per cell by training step")


def heads_kl_curve(history: xr.Dataset) -> Markup:
    """Return the divergence of the random last layers from their prior by step."""
    values = history["heads_kl"].values.astype(float)
    with drawing(2.5) as figure:
        axis = figure.add_subplot()
        axis.plot(selection.axis_values(history["heads_kl"], STEP), values, color=BLUE)
        axis.set_ylabel("KL of the last layers (nats)")
        whole_axis(axis, "Training step")
        say_if_empty(axis, values)
        return finish(figure, "fig-heads-kl", "Line chart of the last layers' KL divergence")


def collapse_bars(collapse: Collapse) -> Markup:
    """Return KL, activity and share of factor variance of at most 24 factors."""
    table = collapse.factors
    order = np.argsort(-table["variance_share"].values, kind="stable")[:MOST_BARS]
    table = table.isel({FACTOR: order})
    names = [shortened(name, 12) for name in table[FACTOR].values]
    active = table["active"].values
    places = np.arange(len(names))
    panels = (
        ("kl", "KL (nats per date)", 1.0),
        ("activity", "Activity\n(0 to about 1)", 1.0),
        ("variance_share", "Share of factor\nvariance (%)", 100.0),
    )
    with drawing(1.1 + 0.2 * max(len(names), 3)) as figure:
        axes = figure.subplots(1, 3, sharey=True)
        for axis, (name, label, factor) in zip(axes, panels, strict=True):
            values = factor * table[name].values
            for kind, chosen, colour in (("active", active, BLUE), ("spare", ~active, ORANGE)):
                if chosen.any():
                    axis.barh(places[chosen], values[chosen], 0.7, color=colour, label=kind)
            axis.set_xlabel(label)
            axis.xaxis.set_major_locator(MaxNLocator(3))
            axis.grid(False, axis="y")
            axis.tick_params(axis="y", length=0)
        axes[0].set_yticks(places, names)
        axes[0].set_ylabel("Factor")
        axes[0].margins(y=0.02)
        axes[0].invert_yaxis()
        return finish(figure, "fig-collapse", "Bar charts of KL, activity and variance share")


def k_hat_dates(found: Sequence[ImportanceQuality]) -> Markup:
    """Return k-hat by date and guide with its threshold."""
    with drawing(2.8) as figure:
        axis = figure.add_subplot()
        for one, (colour, mark) in zip(found, GUIDE_STYLES, strict=False):
            axis.plot(one.k_hat[DATE].values, one.k_hat.values, mark, color=colour, ms=4,
                      ls="", label=one.guide)  # fmt: skip
        threshold = found[0].threshold
        axis.axhline(threshold, color=INK, lw=1.0, ls="--",
                     label=f"unreliable above {number(threshold, 2)}")  # fmt: skip
        axis.set_ylabel("Pareto k-hat (no unit)")
        axis.margins(y=0.1)
        date_axis(axis)
        say_if_empty(axis, np.concatenate([one.k_hat.values for one in found]))
        return finish(figure, "fig-k-hat", "Scatter chart of Pareto k-hat by date")


def evidence_gaps(found: Sequence[ImportanceQuality]) -> Markup:
    """Return the gap between importance-weighted evidence and ELBO by date, a row per guide."""
    with drawing(1.2 + 1.25 * len(found)) as figure:
        axes = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
        for axis, one, (colour, mark) in zip(axes, found, GUIDE_STYLES, strict=False):
            axis.axhline(0.0, color=INK, lw=0.9, ls="--")
            axis.axhline(one.mean_gap, color=colour, lw=1.0)
            axis.plot(one.gap[DATE].values, one.gap.values, mark, color=colour, ms=4, ls="")
            title = f"{one.guide}: mean {number(one.mean_gap, 3)} nats per date"
            axis.set_title(title, loc="left", fontsize=9, pad=3)
            axis.yaxis.set_major_locator(MaxNLocator(4))
            axis.margins(y=0.12)
            if not np.nanmax(np.abs(one.gap.values), initial=0.0) > SMALLEST_GAP:
                axis.set_ylim(-SMALLEST_GAP, SMALLEST_GAP)  # rounding must not look like a gap
            date_axis(axis, "")
            say_if_empty(axis, one.gap.values)
        axes[-1].set_xlabel("Date of forecast (close)")
        figure.supylabel("Evidence minus ELBO (nats per date)", fontsize=9)
        return finish(figure, "fig-gap", "Scatter charts of the evidence gap by date")


def rank_histograms(found: Sequence[SimulationCalibration]) -> Markup:
    """Return histograms of ranks by guide and kind of quantity, with binomial bands."""
    kinds = [str(kind) for kind in found[0].histogram["kind"].values]
    with drawing(0.95 + 1.35 * len(found)) as figure:
        axes = figure.subplots(len(found), len(kinds), sharex=True, sharey="row", squeeze=False)
        for row, one in zip(axes, found, strict=True):
            for axis, kind in zip(row, kinds, strict=True):
                density = one.histogram.sel(kind=kind)
                centres = density["bin"].values.astype(float)
                low, high = rank_band(one, kind)
                axis.fill_between([0.0, 1.0], low, high, color=ORANGE, alpha=0.3, lw=0,
                                  label="95% band")  # fmt: skip
                axis.bar(centres, density.values, 0.9 / len(centres), color=SKY, label="ranks")
                axis.axhline(1.0, color=INK, lw=0.9, ls="--", label="uniform")
                axis.set_title(f"{one.guide}: {kind}", loc="left", fontsize=9, pad=3)
                axis.set_xlim(0.0, 1.0)
                axis.set_xticks([0.0, 0.5, 1.0])
                axis.yaxis.set_major_locator(MaxNLocator(4))
                axis.grid(False, axis="x")
                say_if_empty(axis, density.values)
        figure.supxlabel("Rank of the truth among the guide's draws, as a share", fontsize=9)
        figure.supylabel("Density", fontsize=9)
        return finish(figure, "fig-ranks", "Histograms of simulated truths' ranks")


def head_intervals(prior: xr.Dataset, posterior: xr.Dataset) -> Markup:
    """Return what the last layers imply, under their prior and under their posterior."""
    names = list(prior.data_vars)
    with drawing(0.6 + 0.85 * len(names)) as figure:
        axes = figure.subplots(len(names), 1, squeeze=False)[:, 0]
        for axis, name in zip(axes, names, strict=True):
            in_percent = is_percent(prior[name])
            for place, (source, found, colour) in enumerate(
                (("prior", prior, ORANGE), ("posterior", posterior, BLUE))
            ):
                values = found[name].values * (100.0 if in_percent else 1.0)
                low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
                axis.hlines(place, low, high, color=colour, lw=4.0, label=f"{source}, 5 to 95%")
                axis.plot([middle], [place], "|", color=INK, ms=9, mew=1.6, label="median")
            unit = "%" if in_percent else "no unit"
            axis.set_title(f"{str(name).replace('_', ' ')} ({unit})", loc="left", fontsize=9, pad=3)
            axis.set_yticks([])
            axis.set_ylim(-0.7, 1.7)
            axis.invert_yaxis()
            axis.margins(x=0.08)
            axis.xaxis.set_major_locator(MaxNLocator(5))
        return finish(figure, "fig-heads", "Intervals of what the last layers imply")


def r_hat_curves(found: RestartComparison) -> Markup:
    """Return the share of quantities with an R-hat below each value, by kind."""
    values = found.r_hat.values.astype(float)
    kinds = found.r_hat["kind"].values
    top = 1.3
    with drawing(2.8) as figure:
        axis = figure.add_subplot()
        for place, kind in enumerate(dict.fromkeys(kinds.tolist())):
            own = np.sort(values[(kinds == kind) & np.isfinite(values)])
            if len(own):
                share = 100.0 * np.arange(1, len(own) + 1) / len(own)
                axis.step(np.clip(own, 1.0, MOST_R_HAT), share, where="post",
                          color=CYCLE[place], ls=DASHES[place], label=str(kind))  # fmt: skip
                top = max(top, min(MOST_R_HAT, own[-1]))
        axis.axvline(1.1, color=INK, lw=0.9, ls=":", label="1.1")
        axis.set_xscale("log")
        axis.set_xlim(0.99, 1.03 * top)
        ticks = [tick for tick in (1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.0) if tick <= 1.03 * top]
        axis.xaxis.set_major_locator(FixedLocator(ticks))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 1)))
        axis.set_xlabel(
            f"R-hat over restarts (no unit, {number(MOST_R_HAT, 0)} and above at the end)"
        )
        axis.set_ylabel("Share of quantities below (%)")
        axis.set_ylim(0, 102)
        say_if_empty(axis, values)
        return finish(figure, "fig-r-hat", "Curves of the share of quantities by R-hat")


def restart_correlations(found: RestartComparison) -> Markup:
    """Return correlations of predictive means between restarts, as labelled cells."""
    values = np.asarray(found.mean_correlation, dtype=float)
    names = [str(place) for place in range(len(values))]
    with drawing(1.2 + 0.34 * len(values)) as figure:
        axis = figure.add_subplot()
        heat_map(axis, values, names, names)
        for row, column in np.ndindex(*values.shape):
            strong = abs(values[row, column]) > 0.7
            axis.text(
                column + 0.5, row + 0.5, number(float(values[row, column]), 2), fontsize=8.5,
                ha="center", va="center_baseline", color="white" if strong else INK,
            )  # fmt: skip
        axis.set(xlabel="Restart", ylabel="Restart")
        say_if_empty(axis, values)
        return finish(figure, "fig-restarts", "Table of correlations between restarts")
