"""The drawings of predictive risk."""

import numpy as np
import pandas as pd
from markupsafe import Markup

from nfi_pyro.portfolio.results import PortfolioRisk
from nfi_pyro.rendering import selection
from nfi_pyro.rendering.figures.canvas import drawing, finish, say_if_empty
from nfi_pyro.rendering.formatting import number, shortened
from nfi_pyro.rendering.style import BLUE, GREY, ORANGE


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
