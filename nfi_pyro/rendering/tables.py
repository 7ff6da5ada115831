"""Report tables: results as rows of finished text, with units in the header."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.diagnostics.results import Calibration, ScoreTable
from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.portfolio.results import PortfolioRisk
from nfi_pyro.rendering.formatting import count, digits_for, number, percent, percent_interval
from nfi_pyro.rendering.page import Table
from nfi_pyro.rendering.selection import (
    MOST_INTERACTIONS,
    MOST_PRICES,
    MOST_RISKS,
    axis_values,
    factor_movement,
    interactions,
    nominal_levels,
    price_spread,
)

MOST_HOLDINGS = 10
MEASURES = (("value_at_risk", "Value at risk"), ("expected_shortfall", "Expected shortfall"))


def portfolio_table(portfolio: PortfolioRisk) -> Table:
    """Return mean, standard deviation and tail measures of the portfolio."""
    rows = [
        ("Mean", percent(portfolio.mean, 3, signed=True), "–"),
        ("Standard deviation", percent(portfolio.standard_deviation, 3), "–"),
    ]
    errors = portfolio.standard_error
    for name, label in MEASURES:
        values = getattr(portfolio, name)
        for place, level in enumerate(values["level"].values):
            error = float(errors.sel(measure=name).values[place])
            shown = "closed form" if error == 0.0 else percent(error, 3)
            rows.append((f"{label}, {percent(level, 0)}", percent(values.values[place], 3), shown))
    return Table(
        f"Predictive risk of the portfolio over one label horizon, percent of capital; losses are "
        f"positive. Error: one standard error. Method: {portfolio.method}.",
        ("Measure", "Value", "Monte Carlo error"),
        tuple(rows),
    )


def holdings_table(portfolio: PortfolioRisk) -> Table:
    """Return the holdings that add most to the standard deviation."""
    contribution = portfolio.asset_contribution.to_series()
    weights = portfolio.weights.to_series().reindex(contribution.index).fillna(0.0)
    order = contribution.sort_values(ascending=False, kind="stable").index[:MOST_HOLDINGS]
    total = portfolio.standard_deviation
    fine = max(3, digits_for(100 * contribution[order], 2))  # a book of thousands has small parts
    rows = tuple(
        (
            str(asset),
            percent(weights[asset]),
            percent(contribution[asset], fine),
            percent(contribution[asset] / total, fine - 2) if total > 0 else "n/a",
        )
        for asset in order
    )
    return Table(
        f"The {len(rows)} of {int((weights != 0).sum())} holdings that add most to the standard "
        "deviation; Euler contributions, percent of capital, all of them add up to it.",
        ("Asset", "Weight", "Contribution", "Share of risk"),
        rows,
    )


def provenance_tables(provenance: Mapping[str, Mapping[str, str]]) -> tuple[Table, ...]:
    """Return one table per section of the provenance."""
    return tuple(
        Table(str(name), ("Item", "Value"), tuple((str(k), str(v)) for k, v in items.items()), 2)
        for name, items in provenance.items()
    )


def ledger_table(ledger: pd.DataFrame) -> Table:
    """Return what was found in the prices and what was done about it."""
    rows = tuple(
        (str(row.rule), str(row.action), str(row.places), count(float(str(row.count_))))
        for row in ledger.rename(columns={"count": "count_"}).itertuples(index=False)
    )
    caption = "What the data checks found and what was done; counts are rows of prices."
    return Table(caption, ("Rule", "Action", "Places", "Count"), rows, 3)


def coverage_table(calibration: Calibration) -> Table:
    """Return nominal and observed coverage by level."""
    coverage = calibration.coverage
    names = ("observed", "lower", "upper")
    columns = zip(nominal_levels(calibration), *(coverage[n].values for n in names), strict=True)
    rows = tuple(
        (percent(q, 0), percent(seen, 1), percent_interval(low, high))
        for q, seen, low, high in columns
    )
    return Table(
        f"Share of {calibration.n_observations:,} observed returns inside the central forecast "
        "interval; 95% date-block bootstrap interval.",
        ("Nominal", "Observed", "95% interval"),
        rows,
    )


def score_table(scores: ScoreTable) -> Table:
    """Return log score and CRPS of every forecast, and the model's advantage over each."""
    table = scores.table
    rows = []
    for place, name in enumerate(table["forecast"].values):
        one = table.isel(forecast=place)
        advantage = -float(one["log_score_difference"])
        difference = number(advantage, 4, signed=True) if place else "–"
        error = number(float(one["difference_standard_error"]), 4) if place else "–"
        label = f"{name} (this model)" if place == 0 else str(name)
        crps = number(1e4 * float(one["crps"]), 2)
        rows.append((label, number(float(one["log_score"]), 4), difference, error, crps))
    return Table(
        f"Mean scores over the same {scores.n_observations:,} observed cells on "
        f"{scores.by_date.sizes[DATE]:,} dates. Log score in nats per cell, returns in training-sd "
        "units, higher is better; CRPS in basis points of return, lower is better.",
        ("Forecast", "Log score", "Model minus it", "HAC standard error", "CRPS (bp)"),
        tuple(rows),
    )


def factor_table(factors: xr.Dataset) -> Table:
    """Return how far each factor's posterior moved and how much it narrowed."""
    moved = factor_movement(factors)
    ratio = factors["posterior_scale"] / factors["prior_scale"]
    narrowed = pd.DataFrame(ratio.transpose(..., FACTOR).to_pandas()).mean(axis=0)
    scale = pd.DataFrame(factors["prior_scale"].transpose(..., FACTOR).to_pandas()).mean(axis=0)
    rows = tuple(
        (
            str(name),
            percent(scale.iloc[k], 2),
            number(moved.iloc[k], 2),
            number(narrowed.iloc[k], 2),
        )
        for k, name in enumerate(axis_values(factors, FACTOR))
    )
    return Table(
        f"Factors over {factors.sizes[DATE]:,} dates. Prior sd: date mean, percent per unit "
        "exposure. Movement: root mean square of posterior minus prior mean, in prior sd. Width: "
        "date mean of posterior sd over prior sd; 1 means that the returns taught nothing.",
        ("Factor", "Prior sd (%)", "Movement (prior sd)", "Width (ratio)"),
        rows,
    )


def exposure_table(exposures: xr.DataArray, name: str = "Factor") -> Table:
    """Return mean and spread over assets of each column of the exposures; `name` heads them."""
    table = exposures.transpose(ASSET, FACTOR).to_pandas()
    frame = pd.DataFrame(table)
    rows = tuple(
        (
            str(frame.columns[k]),
            number(frame.iloc[:, k].mean(), 2, signed=True),
            number(frame.iloc[:, k].std(ddof=1) if len(frame) > 1 else np.nan, 2),
            number(frame.iloc[:, k].min(), 2, signed=True),
            number(frame.iloc[:, k].max(), 2, signed=True),
            count(frame.iloc[:, k].notna().sum()),
        )
        for k in range(frame.shape[1])
    )
    return Table(
        "Exposures (beta, no unit) over the assets of the forecast date.",
        (name, "Mean", "Sd", "Smallest", "Largest", "Assets"),
        rows,
    )


def risk_table(risks: pd.DataFrame, own: str = "Specific share") -> Table:
    """Return the assets with the largest predictive standard deviation; `own` heads a column."""
    top = risks.head(MOST_RISKS)
    rows = tuple(
        (
            str(asset),
            number(1e4 * row["mean"], 1, signed=True),
            percent(row["standard_deviation"]),
            percent(row["specific_share"], 0),
            percent(row["value_at_risk_95"]),
            percent(row["value_at_risk_99"]),
            percent(row["expected_shortfall_95"]),
            percent(row["expected_shortfall_99"]),
        )
        for asset, row in top.iterrows()
    )
    return Table(
        f"The {len(rows)} largest of {len(risks)} assets by predictive standard deviation, over "
        "one label horizon. Losses (VaR, expected shortfall) are positive.",
        ("Asset", "Mean (bp)", "Sd", own, "VaR 95", "VaR 99", "ES 95", "ES 99"),
        rows,
    )


def price_table(pricing: xr.Dataset, *, is_linear: bool, has_factors: bool) -> Table:
    """Return the price of each exposure over the assets, basis points; the largest effect first."""
    table = price_spread(pricing)
    shown = table.head(MOST_PRICES)
    price, size = digits_for(1e4 * table["mean"]), digits_for(1e4 * table["effect"])
    small = digits_for(1e4 * table["heterogeneity"])
    rows = []
    for name, row in shown.iterrows():
        slope = "mean" if is_linear or not has_factors else "common"
        cells = [number(1e4 * row[slope], price, signed=True)]
        if not is_linear:
            middle = [row["mean"]] if has_factors else []
            for value in (*middle, row["5%"], row["95%"]):
                cells.append(number(1e4 * value, price, signed=True))
        cells += [number(row["exposure_sd"], 3), number(1e4 * row["effect"], size)]
        cells.append("0" if is_linear else number(1e4 * row["heterogeneity"], small))
        rows.append((str(name), *cells))
    first = "Price" if is_linear else "Common part" if has_factors else "Mean"
    spread = () if is_linear else ("Mean", "5%", "95%") if has_factors else ("5%", "95%")
    header = ("Exposure", first, *spread, "Sd of exposure", "Effect", "Heterogeneity")
    count_shown = (
        f"The {len(shown)} largest of {len(table)} exposures"
        if len(table) > len(shown)
        else f"All {len(table)} exposures"
    )
    over = "" if is_linear else " Mean, 5% and 95% are over assets."
    return Table(
        f"{count_shown}, largest effect first. Prices in basis points of expected return per unit "
        f"exposure and label horizon.{over} Effect (mean absolute price times sd of exposure) and "
        "heterogeneity (sd of price times sd of exposure) in basis points.",
        header,
        tuple(rows),
    )


def interaction_table(pricing: xr.Dataset) -> Table:
    """Return the pairs of exposures that bend the expected return most, basis points."""
    table = interactions(pricing)
    shown = table.head(MOST_INTERACTIONS)
    digits = digits_for(1e4 * table["size"])
    rows = tuple(
        (
            str(pair),
            number(1e4 * row["size"], digits),
            number(1e4 * row["mean"], digits, signed=True),
        )
        for pair, row in shown.iterrows()
    )
    return Table(
        f"The {len(shown)} largest of {len(table)} second derivatives of the expected return, "
        "times the sds of both exposures: basis points by which one more sd of one exposure moves "
        "the effect of one sd of the other. A pair of one with itself is curvature. Size: mean "
        "absolute value over assets.",
        ("Pair", "Size (bp)", "Mean (bp)"),
        rows,
    )


def copula_table(loading: xr.DataArray) -> Table:
    """Return what each shared normal of the copula is to the assets."""
    table = loading.transpose(ASSET, ...).values.astype(float)
    names = [str(name) for name in loading["column"].values]
    shares = np.square(table).mean(axis=0)
    rows = tuple(
        (
            names[k],
            number(table[:, k].mean(), 3, signed=True),
            number(table[:, k].std(ddof=0), 3),
            percent(shares[k], 2),
        )
        for k in range(len(names))
    )
    return Table(
        f"Correlation of an asset's normal score with each shared normal over {len(table):,} "
        "assets, in the copula's order, and the mean share of the score's variance that it gives.",
        ("Shared normal", "Mean", "Sd", "Share of score variance"),
        rows,
    )
