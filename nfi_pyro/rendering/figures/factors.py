"""The drawings of factors and exposures."""

import numpy as np
import xarray as xr
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.rendering import selection
from nfi_pyro.rendering.figures.canvas import date_axis, drawing, finish, heat_map, say_if_empty
from nfi_pyro.rendering.formatting import number, shortened
from nfi_pyro.rendering.style import BLUE, ORANGE


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
            date_axis(axis, "", most=4)
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
            limit = heat_map(axis, values, assets, factors)
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
