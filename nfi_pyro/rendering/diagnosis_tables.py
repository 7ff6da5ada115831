"""Tables of the diagnosis page: results as rows of finished text, with units in the header."""

import math

import numpy as np

from nfi_pyro.diagnostics.results import (
    Calibration,
    InformationPower,
    LikelihoodRatio,
    PredictiveChecks,
    SpreadSkill,
    ValueAtRiskBacktest,
)
from nfi_pyro.dims import PORTFOLIO
from nfi_pyro.rendering.diagnosis_contents import PortfolioResults, Recalibrated
from nfi_pyro.rendering.formatting import (
    count,
    interval,
    number,
    p_value,
    percent,
    percent_interval,
)
from nfi_pyro.rendering.page import Table
from nfi_pyro.rendering.selection import nominal_levels

_POWERS_OF_RETURN = {
    "market": 1, "cross_sectional_sd": 1, "market_sd": 1, "pairwise_product": 2,
}  # fmt: skip


def coverage_table(found: Calibration, recalibrated: Recalibrated | None) -> Table:
    """Return nominal and observed coverage by level, before and after recalibration."""
    parts = [found] + ([] if recalibrated is None else [recalibrated.calibration])
    rows = []
    for place, nominal in enumerate(nominal_levels(found)):
        cells = [percent(nominal, 0)]
        for part in parts:
            observed, lower, upper = (
                float(part.coverage[name].values[place]) for name in ("observed", "lower", "upper")
            )
            cells += [percent(observed, 1), percent_interval(lower, upper)]
        rows.append(tuple(cells))
    header = ("Nominal", "Observed", "95% interval")
    extra = () if recalibrated is None else ("Recalibrated", "95% interval")
    return Table(
        f"Share of {found.n_observations:,} observed returns inside the central forecast interval; "
        "95% date-block bootstrap interval. Recalibrated: under a map learned on training dates.",
        header + extra,
        tuple(rows),
    )


def portfolio_tables(found: PortfolioResults) -> tuple[Table, ...]:
    """Return coverage of the equal-weight book, and of all books together."""
    parts = [("as forecast", found.coverage)]
    if found.rescaled is not None:
        parts.append(("rescaled", found.rescaled))
    rows, books = [], []
    for name, part in parts:
        for level in part.coverage["level"].values:
            one = part.coverage.sel(level=level)
            observed, lower, upper = (
                one[key].values.astype(float) for key in ("observed", "lower", "upper")
            )
            rows.append(
                (
                    f"{percent(level, 0)}, {name}",
                    percent(observed[0], 1),
                    percent_interval(lower[0], upper[0]),
                )
            )
            if len(observed) > 1:
                others = observed[1:][np.isfinite(observed[1:])]
                hit = ((lower[1:] <= level) & (upper[1:] >= level)).sum()
                low, middle, high = (
                    np.quantile(others, [0.0, 0.5, 1.0]) if others.size else [math.nan] * 3
                )
                books.append(
                    (f"{percent(level, 0)}, {name}", percent(middle, 1),
                     percent_interval(low, high), f"{hit} of {len(others)}")
                )  # fmt: skip
    n_dates = int(found.coverage.n_dates.isel({PORTFOLIO: 0}))
    first = Table(
        f"Equal-weight book: share of {n_dates:,} dates inside the central forecast interval; "
        "exact binomial 95% interval (Clopper and Pearson), dates as independent.",
        ("Nominal", "Observed", "95% interval"),
        tuple(rows),
    )
    second = Table(
        f"{found.coverage.spread.sizes[PORTFOLIO] - 1} random books: median, smallest and largest "
        "share, and for how many the exact interval holds the nominal share.",
        ("Nominal", "Median", "Range", "Interval holds it"),
        tuple(books),
    )
    return (first, second) if books else (first,)


def spread_table(found: SpreadSkill, unit: str) -> Table:
    """Return forecast and realised spread by bin."""
    scale = 100.0 if unit == "%" else 1.0
    bins = found.bins
    rows = tuple(
        (
            str(place + 1),
            number(scale * float(bins["forecast"][place]), 2),
            number(scale * float(bins["realised"][place]), 2),
            interval(scale * float(bins["lower"][place]), scale * float(bins["upper"][place]), 2),
            count(float(bins["n_cells"][place])),
        )
        for place in range(bins.sizes["bin"])
    )
    return Table(
        f"By bin, narrowest forecast first; root mean squares, {unit} per label horizon.",
        ("Bin", "Forecast", "Realised", "95% interval", "Cells"),
        rows,
    )


def backtest_table(found: tuple[ValueAtRiskBacktest, ...]) -> Table:
    """Return every test of the value at risk by level."""

    def tested(ratio: LikelihoodRatio) -> str:
        return p_value(ratio.small_sample_p_value)

    rows = [
        ("Exceedances", *(f"{test.n_exceedances} of {test.n_dates:,}" for test in found)),
        ("Expected", *(number(test.n_expected, 1) for test in found)),
        ("Share", *(percent(test.exceedance_share, 2) for test in found)),
        ("Coverage, p (exact binomial)", *(tested(test.coverage) for test in found)),
        ("Independence, p (permutation)", *(tested(test.independence) for test in found)),
        ("Both, p (simulation)", *(tested(test.conditional_coverage) for test in found)),
        (
            "Loss over expected shortfall − 1",
            *(number(t.shortfall.mean_residual if t.shortfall else math.nan, 2) for t in found),
        ),
        (
            "Expected shortfall, p (bootstrap)",
            *(p_value(t.shortfall.p_value if t.shortfall else math.nan) for t in found),
        ),
        (
            "Acerbi and Szekely's Z2",
            *(number(t.shortfall.acerbi_szekely if t.shortfall else math.nan, 2) for t in found),
        ),
        ("Power against twice as many", *(number(test.power, 2) for test in found)),
        ("Dates without return or forecast", *(count(test.n_dropped) for test in found)),
    ]
    return Table(
        "Losses beyond the value at risk. n/a: too few exceedances to say. A low power means that "
        "a high p-value says little.",
        ("Figure or test", *(f"VaR {percent(test.level, 0)}" for test in found)),
        tuple(rows),
    )


def predictive_table(found: PredictiveChecks, unit: str) -> Table:
    """Return real summaries, the prior replicates' interval and the p-values of both sources."""
    rows = []
    for name in found.summaries["summary"].values:
        prior = found.summaries.sel(source="prior", summary=name)
        power = _POWERS_OF_RETURN.get(str(name), 0) if unit == "%" else 0
        scale, digits = (100.0**power, 3) if power else (1.0, 3)
        shown = ("", " (%)", " (%²)")[power]
        rows.append(
            (
                f"{str(name).replace('_', ' ')}{shown}",
                number(scale * float(prior["observed"]), digits),
                interval(scale * float(prior["lower"]), scale * float(prior["upper"]), digits),
                p_value(float(prior["p_value"])),
                p_value(float(found.summaries["p_value"].sel(source="posterior", summary=name))),
            )
        )
    return Table(
        f"Means over {found.n_dates:,} dates; interval: 5 to 95% of prior replicates; p: two-sided "
        f"predictive. {found.n_left_out:,} dates have too few observed assets.",
        ("Statistic", "Real", "Prior replicates", "p prior", "p posterior"),
        tuple(rows),
    )


def power_table(found: InformationPower) -> Table:
    """Return power and false alarms by length of history."""
    needed = found.dates_needed(0.8)
    rows = tuple(
        (
            f"{int(one['n_dates']):,}",
            percent(float(one["power"]), 0),
            percent(float(one["false_alarm"]), 0),
            percent(float(one["power_standard_error"]), 1),
            percent(float(one["normal_approximation"]), 0),
        )
        for one in (found.table.isel(n_dates=k) for k in range(found.table.sizes["n_dates"]))
    )
    return Table(
        f"Share of {found.n_simulations:,} simulated histories that show a positive mean when it "
        f"is {found.effect:g} (power) and when it is 0 (false alarm); daily standard deviation "
        f"{number(found.standard_deviation, 3)}, autocorrelation {number(found.phi, 2)}. Power "
        f"80% takes {needed.n_dates:,} dates ({needed.source}).",
        ("Dates", "Power", "False alarm", "Error of power", "Normal formula"),
        rows,
    )
