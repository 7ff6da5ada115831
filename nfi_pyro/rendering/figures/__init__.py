"""The drawings of a page: results in, inline SVG out. The only folder that imports matplotlib.

Every figure is drawn 4.6 inches wide with 8 to 9 point type, so that it keeps its size in a
two-column page and stays readable when a phone shows it at 350 pixels. Where hue alone would
carry a meaning, line style or position carries it too.
"""

from nfi_pyro.rendering.figures.canvas import drawing, finish, say_if_empty
from nfi_pyro.rendering.figures.factors import exposure_map, factor_states
from nfi_pyro.rendering.figures.forecasts import (
    coverage_levels,
    pit_histogram,
    rank_ic_cumulative,
    rank_ic_months,
)
from nfi_pyro.rendering.figures.risk import contribution_bars, risk_bars
from nfi_pyro.rendering.figures.training import elbo_curve, kl_curves, validation_curves
from nfi_pyro.rendering.figures.universe import priced_line, universe_lines

__all__ = [
    "contribution_bars",
    "coverage_levels",
    "drawing",
    "elbo_curve",
    "exposure_map",
    "factor_states",
    "finish",
    "kl_curves",
    "pit_histogram",
    "priced_line",
    "rank_ic_cumulative",
    "rank_ic_months",
    "risk_bars",
    "say_if_empty",
    "universe_lines",
    "validation_curves",
]
