"""The drawings of a training run."""

import numpy as np
import pandas as pd
import xarray as xr
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from nfi_pyro.dims import EPOCH, FACTOR, STEP
from nfi_pyro.rendering import selection
from nfi_pyro.rendering.figures.canvas import drawing, finish, say_if_empty, whole_axis
from nfi_pyro.rendering.formatting import shortened
from nfi_pyro.rendering.style import BLUE, CYCLE, DASHES, GREEN, INK, PALE


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
        whole_axis(axis, "Training step")
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
        whole_axis(axes[-1], "Epoch")
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
        whole_axis(axis, "Training step")
        axis.set_ylim(bottom=0.0)
        say_if_empty(axis, values)
        return finish(figure, "fig-kl", "Line chart of the KL divergence of each factor by step")
