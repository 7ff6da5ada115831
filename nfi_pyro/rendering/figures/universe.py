"""The drawings of how many assets there are."""

import xarray as xr
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from nfi_pyro.dims import DATE
from nfi_pyro.rendering.figures.canvas import date_axis, drawing, finish, say_if_empty
from nfi_pyro.rendering.style import BLUE, GREY, ORANGE


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
        date_axis(axis, "Date (close)")
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
        date_axis(axis, "Date (close)")
        return finish(figure, "fig-priced", "Line chart of the number of priced assets by date")
