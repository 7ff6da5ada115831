"""The drawings of the price of risk and of the copula: results in, inline SVG out."""

import numpy as np
import pandas as pd
import xarray as xr
from markupsafe import Markup

from nfi_pyro.dims import ASSET
from nfi_pyro.rendering.figures import drawing, finish, say_if_empty
from nfi_pyro.rendering.formatting import shortened
from nfi_pyro.rendering.selection import MOST_PRICES, largest, price_spread
from nfi_pyro.rendering.style import BLUE, GREY, ORANGE, SKY, VERMILION


def price_bars(pricing: xr.Dataset, *, is_linear: bool, has_factors: bool) -> Markup:
    """Return prices over assets, and beside them their heterogeneity, in basis points.

    Both per standard deviation of the exposure, so that exposures of any scale compare.
    """
    table = price_spread(pricing).head(MOST_PRICES)
    scale = 1e4 * table["exposure_sd"]
    prices = {name: (scale * table[name]).to_numpy() for name in table}
    places = np.arange(len(table))
    with drawing(1.1 + 0.2 * max(len(table), 3)) as figure:
        if is_linear:
            left = figure.add_subplot()
            left.barh(places, prices["mean"], 0.7, color=BLUE)
        else:
            left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.2, 1.0))
            left.hlines(places, prices["5%"], prices["95%"], color=SKY, lw=2.2, label="5 to 95%")
            left.hlines(places, prices["25%"], prices["75%"], color=BLUE, lw=5.0, label="25 to 75%")
            left.plot(prices["mean"], places, "o", color="white", mec=BLUE, ms=5, label="mean")
            if has_factors:
                left.plot(prices["common"], places, "|", color=VERMILION, ms=11, mew=1.8,
                          label="common part")  # fmt: skip
            right.barh(places, 1e4 * table["heterogeneity"], 0.7, color=ORANGE)
            right.set_xlabel("Heterogeneity (bp)")
            right.tick_params(axis="y", length=0, labelleft=False)
            right.grid(False, axis="y")
        left.axvline(0.0, color=GREY, linewidth=0.8)
        left.set_yticks(places, [shortened(name, 14) for name in table.index])
        left.set_xlabel("Price (bp per sd of exposure)")
        left.set_ylabel("Exposure")
        left.margins(y=0.02)
        left.invert_yaxis()
        left.grid(False, axis="y")
        left.tick_params(axis="y", length=0)
        say_if_empty(left, prices["mean"])
        return finish(figure, "fig-prices", "Chart of the price of each exposure over assets")


def copula_bars(loading: xr.DataArray) -> Markup:
    """Return the mean share of normal-score variance of the largest shared normals."""
    shares = np.square(loading.transpose(ASSET, ...).values.astype(float)).mean(axis=0)
    table = pd.Series(100 * shares, index=[str(name) for name in loading["column"].values])
    table = table.iloc[largest(table, MOST_PRICES)]
    places = np.arange(len(table))
    with drawing(0.75 + 0.2 * max(len(table), 3)) as figure:
        axis = figure.add_subplot()
        axis.barh(places, table.to_numpy(), 0.7, color=BLUE)
        axis.set_yticks(places, [shortened(name, 16) for name in table.index])
        axis.set_xlabel("Mean share of normal-score variance (%)")
        axis.set_ylabel("Shared normal")
        axis.margins(y=0.02)
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.tick_params(axis="y", length=0)
        say_if_empty(axis, table.to_numpy())
        return finish(figure, "fig-copula", "Bar chart of what the copula shares by its normals")
