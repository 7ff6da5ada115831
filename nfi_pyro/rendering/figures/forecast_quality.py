"""The drawings of how right a forecast is: spread, portfolios, VaR, replicates, Rank IC."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from nfi_pyro.diagnostics.results import (
    InformationPosterior,
    InformationPower,
    PortfolioCoverage,
    PredictiveChecks,
    SpreadSkill,
)
from nfi_pyro.dims import DATE, PORTFOLIO
from nfi_pyro.rendering.figures.canvas import date_axis, drawing, finish, say_if_empty, whole_axis
from nfi_pyro.rendering.formatting import percent
from nfi_pyro.rendering.style import BLUE, GREY, INK, ORANGE, PALE, SKY, VERMILION

MOST_DEVIATIONS = 6.0


def spread_skill_bins(found: SpreadSkill, unit: str) -> Markup:
    """Return realised error by bin of forecast standard deviation; `unit` is ``%`` or a name."""
    scale = 100.0 if unit == "%" else 1.0
    bins = found.bins
    forecast = scale * bins["forecast"].values.astype(float)
    realised, lower, upper = (
        scale * bins[name].values.astype(float) for name in ("realised", "lower", "upper")
    )
    with drawing(3.0) as figure:
        axis = figure.add_subplot()
        left, right = _padded(forecast, least=0.02)
        bottom, top = _padded(np.r_[forecast, lower, upper], least=0.02)
        axis.plot([left, right], [left, right], color=INK, lw=1.0, ls="--", label="right")
        axis.vlines(forecast, lower, upper, color=BLUE, lw=1.6, label="95% interval")
        axis.plot(forecast, realised, "o", color=BLUE, ms=5, label="bins of cells")
        axis.set(xlim=(left, right), ylim=(bottom, top))
        axis.set_xlabel(f"Forecast standard deviation ({unit})")
        axis.set_ylabel(f"Realised error, RMS ({unit})")
        say_if_empty(axis, realised)
        return finish(figure, "fig-spread-skill", "Chart of realised error by forecast spread")


def _padded(values: np.ndarray, least: float) -> tuple[float, float]:
    """Return the range of finite values with a margin, at least a share `least` of the largest."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    margin = max(0.08 * (high - low), least * abs(high))
    return low - margin, high + margin


def portfolio_spreads(raw: PortfolioCoverage, rescaled: PortfolioCoverage | None) -> Markup:
    """Return the spread of each portfolio's normal scores, before and after rescaling."""
    places = np.arange(raw.spread.sizes[PORTFOLIO])
    parts = [("as forecast", raw, BLUE, "o", -0.15)]
    if rescaled is not None:
        parts.append(("rescaled on training dates", rescaled, ORANGE, "D", 0.15))
    with drawing(2.9) as figure:
        axis = figure.add_subplot()
        axis.axhline(1.0, color=INK, lw=1.0, ls="--", label="right")
        for name, found, colour, mark, shift in parts:
            spread, lower, upper = (
                found.spread[key].values.astype(float) for key in ("spread", "lower", "upper")
            )
            axis.vlines(places + shift, lower, upper, color=colour, lw=1.3)
            axis.plot(places + shift, spread, mark, color=colour, ms=4, label=name)
        axis.set_xticks(places, ["EW", *(str(place) for place in places[1:])])
        axis.tick_params(axis="x", labelsize=7)
        axis.set_xlabel("Portfolio (EW: equal weight; the others are random books)")
        axis.set_ylabel("Spread of normal scores\n(no unit, 95% interval)")
        axis.grid(False, axis="x")
        say_if_empty(axis, raw.spread["spread"].values)
        return finish(figure, "fig-portfolios", "Chart of each portfolio's normal-score spread")


def value_at_risk_series(book: xr.Dataset) -> Markup:
    """Return a book's returns by date with its value at risk and what went beyond it."""
    realised = 100.0 * book["realised"].values.astype(float)
    dates = book[DATE].values
    styles = ((ORANGE, "-", "o"), (VERMILION, "--", "X"))
    with drawing(3.1) as figure:
        axis = figure.add_subplot()
        axis.bar(dates, realised, 0.8, color=PALE, label="realised return")
        for level, (colour, dash, mark) in zip(book["level"].values, styles, strict=False):
            floor = -100.0 * book["value_at_risk"].sel(level=level).values.astype(float)
            name = percent(level, 0)
            axis.plot(dates, floor, color=colour, ls=dash, lw=1.2, label=f"−VaR {name}")
            beyond = realised < floor
            if beyond.any():
                axis.plot(dates[beyond], realised[beyond], mark, color=colour, ms=5,
                          ls="", label=f"beyond {name}")  # fmt: skip
        axis.axhline(0.0, color=GREY, lw=0.8)
        axis.set_ylabel("Return of the book\n(% per label horizon)")
        date_axis(axis)
        say_if_empty(axis, realised)
        return finish(figure, "fig-var", "Chart of the book's returns and value at risk by date")


def predictive_summaries(found: PredictiveChecks) -> Markup:
    """Return each real summary in standard deviations of its replicates, by source."""
    names = [str(name).replace("_", " ") for name in found.summaries["summary"].values]
    places = np.arange(len(names))
    styles = {"prior": (ORANGE, "o", -0.17), "posterior": (BLUE, "D", 0.17)}
    with drawing(1.2 + 0.32 * len(names)) as figure:
        axis = figure.add_subplot()
        for source in found.summaries["source"].values:
            colour, mark, shift = styles[str(source)]
            table = found.summaries.sel(source=source)
            made = found.replicates.sel(source=source)
            centre, width = made.mean("draw").values, made.std("draw").values
            width = np.where(width > 0.0, width, np.nan)
            low, high = ((table[bound].values - centre) / width for bound in ("lower", "upper"))
            real = (table["observed"].values - centre) / width
            axis.hlines(places + shift, low, high, color=colour, lw=4.5, alpha=0.5,
                        label=f"{source} replicates, 5 to 95%")  # fmt: skip
            shown = np.clip(real, -MOST_DEVIATIONS, MOST_DEVIATIONS)
            axis.plot(shown, places + shift, mark, color=colour, mec=INK, mew=0.8, ms=5.5,
                      label=f"real, beside {source}")  # fmt: skip
        axis.axvline(0.0, color=GREY, lw=0.8)
        axis.set_xlim(-1.08 * MOST_DEVIATIONS, 1.08 * MOST_DEVIATIONS)
        axis.set_yticks(places, names)
        axis.set_xlabel("Standard deviations of the replicates\n(beyond 6 at the edge)")
        axis.set_ylabel("Statistic of cross-sections")
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.tick_params(axis="y", length=0)
        say_if_empty(axis, found.summaries["observed"].values)
        return finish(figure, "fig-predictive", "Chart of real statistics among replicates")


def market_band(found: PredictiveChecks, unit: str) -> Markup:
    """Return the market's return by date inside the band that the prior factors forecast."""
    scale = 100.0 if unit == "%" else 1.0
    dates = found.by_date[DATE].values
    band = found.band.sel(source="prior", statistic="market").transpose("bound", DATE)
    low, high = scale * band.values
    real = scale * found.by_date.sel(statistic="market").values.astype(float)
    outside = (real < low) | (real > high)
    with drawing(2.8) as figure:
        axis = figure.add_subplot()
        axis.fill_between(dates, low, high, color=ORANGE, alpha=0.3, lw=0,
                          label="forecast, 5 to 95%")  # fmt: skip
        axis.plot(dates[~outside], real[~outside], "o", color=BLUE, ms=3.5, label="real, inside")
        axis.plot(dates[outside], real[outside], "X", color=VERMILION, ms=5, label="real, outside")
        axis.set_ylabel(f"Mean return of assets ({unit})")
        date_axis(axis)
        say_if_empty(axis, real)
        return finish(figure, "fig-market", "Chart of the market's return and its forecast band")


def information_density(density: xr.DataArray, posterior: InformationPosterior) -> Markup:
    """Return the posterior density of the mean Rank IC, its interval shaded."""
    place, height = density["mean"].values.astype(float), density.values.astype(float)
    low, high = posterior.interval
    inside = (place >= low) & (place <= high)
    with drawing(2.7) as figure:
        axis = figure.add_subplot()
        axis.fill_between(place[inside], 0.0, height[inside], color=SKY, alpha=0.5, lw=0,
                          label=f"{percent(posterior.level, 0)} interval")  # fmt: skip
        axis.plot(place, height, color=BLUE, label="posterior")
        axis.axvline(0.0, color=INK, lw=1.0, ls="--", label="no skill")
        axis.set_ylim(bottom=0.0)
        axis.xaxis.set_major_locator(MaxNLocator(6))
        axis.set_xlabel("Mean Rank IC (correlation)")
        axis.set_ylabel("Density")
        say_if_empty(axis, height)
        return finish(figure, "fig-information", "Density of the mean Rank IC")


def power_curves(found: InformationPower, n_dates: int) -> Markup:
    """Return the share of simulated histories that show skill, by their length."""
    lengths = found.table["n_dates"].values
    lines: Sequence[tuple[str, str, str, str]] = (
        ("power", f"true mean {found.effect:g}", BLUE, "-"),
        ("false_alarm", "true mean 0", ORANGE, "--"),
    )
    with drawing(2.7) as figure:
        axis = figure.add_subplot()
        for name, label, colour, dash in lines:
            share = 100.0 * found.table[name].values
            axis.plot(lengths, share, color=colour, ls=dash, marker="o", ms=4, label=label)
        axis.axvline(n_dates, color=INK, lw=0.9, ls=":", label=f"{n_dates:,} dates here")
        axis.set_ylim(0, 100)
        whole_axis(axis, "Length of the history (trading dates)")
        axis.set_ylabel("Histories that show\na positive mean (%)")
        say_if_empty(axis, lengths.astype(float))
        return finish(figure, "fig-power", "Line chart of power by length of history")
