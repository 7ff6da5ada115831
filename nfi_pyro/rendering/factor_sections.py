"""Sections on what assets share and how exposure is priced: factors, copula, exposures, prices."""

import numpy as np
import xarray as xr

from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.rendering import figures, pricing_figures, tables
from nfi_pyro.rendering.contents import ReportContents
from nfi_pyro.rendering.formatting import basis_points, day, digits_for, number, percent
from nfi_pyro.rendering.page import Drawing, Section
from nfi_pyro.rendering.selection import (
    MOST_ASSETS,
    MOST_FACTORS,
    MOST_PRICES,
    factor_movement,
    interactions,
    price_spread,
    stride,
    total_heterogeneity,
)


def factors(contents: ReportContents) -> Section:
    """Return the shared factors over time: prior and posterior."""
    found = contents.factors
    if found is None:
        text = "The results hold no moments of the factors, so there is nothing to show."
        return Section("Factors", "Factors", "factors", (text,))
    n_factors, n_dates = found.sizes[FACTOR], found.sizes[DATE]
    moved = factor_movement(found)
    caption = (
        "Each factor's return, percent per unit exposure. Orange: the prior, known at the close. "
        "Blue: the posterior, after the returns of the date were seen."
    )
    if n_factors > MOST_FACTORS:
        caption += (
            f" Shown are the {MOST_FACTORS} of {n_factors} factors whose posterior moved most "
            "from the prior."
        )
    if stride(n_dates) > 1:
        caption += f" One date in {stride(n_dates)} is drawn."
    verdict = "No factor has a finite posterior on these dates."
    if moved.notna().any():
        verdict = (
            f"The posterior of {moved.idxmax()} moved most: {number(moved.max(), 2)} prior sd "
            f"(root mean square over {n_dates:,} dates)."
        )
    return Section(
        "Factors",
        "Factors",
        "factors",
        (verdict,),
        figures=(Drawing(figures.factor_states(found), caption),),
        tables=(tables.factor_table(found),),
        notes=(
            "Only the prior makes forecasts. The posterior has seen the returns that it describes.",
        ),
    )


def dependence(contents: ReportContents) -> Section:
    """Return what the copula shares between assets of a model without factors."""
    loading = contents.copula_loading
    if loading is None:
        text = "The results hold no copula, so there is nothing to show."
        return Section("What the copula shares", "Copula", "dependence", (text,))
    rows = loading.transpose(ASSET, ...).values.astype(float)
    n_assets, total = len(rows), rows.sum(axis=0)
    pairs = float(total @ total - np.square(rows).sum())
    average = pairs / (n_assets * (n_assets - 1)) if n_assets > 1 else float("nan")
    shared = float(np.square(rows).sum(axis=1).mean())
    n_columns = rows.shape[1]
    shown = (
        f" The {MOST_PRICES} largest of {n_columns} are drawn." if n_columns > MOST_PRICES else ""
    )
    return Section(
        "What the copula shares",
        "Copula",
        "dependence",
        (
            "The model has no latent factors: each asset has a law of its own, and a Gaussian "
            "copula of the training dates' outcomes says how the assets move together.",
            f"On {day(contents.portfolio.date)} the normal scores of two assets correlate by "
            f"{number(average, 2)} on average, and an asset shares {percent(shared, 1)} of its "
            "score's variance with others.",
        ),
        figures=(
            Drawing(
                pricing_figures.copula_bars(loading),
                "What each shared normal gives to an asset's score, mean over assets. The first is "
                f"common to all; each other is what its exposure adds to those above it.{shown}",
            ),
        ),
        tables=(tables.copula_table(loading),),
    )


def exposures(contents: ReportContents) -> Section:
    """Return the exposures of the forecast date."""
    beta = contents.exposures
    n_assets = beta.sizes[ASSET]
    caption = f"Exposures of {n_assets} assets on {day(contents.portfolio.date)}."
    if n_assets > MOST_ASSETS:
        caption = (
            f"Exposures on {day(contents.portfolio.date)} of the {MOST_ASSETS} of {n_assets} "
            "assets with the largest norm, largest first."
        )
    caption += " Blue is positive, orange negative, grey missing."
    text = "Exposures are dimensionless; a factor's return times the exposure is a return."
    if contents.copula_loading is not None:
        text = (
            "Exposures are dimensionless data of each asset: they price it, and no return is "
            "shared along them."
        )
    elif contents.exposures_are_given:
        text += " They are data; market is 1 for every asset."
    if np.isnan(beta.values.astype(float)).any():
        text += " Some are missing; the table leaves them out."
    return Section(
        "Exposures",
        "Exposures",
        "exposures",
        (text,),
        figures=(Drawing(figures.exposure_map(beta), caption),),
        tables=(
            tables.exposure_table(
                beta, "Factor" if contents.copula_loading is None else "Exposure"
            ),
        ),
    )


def price_of_risk(contents: ReportContents) -> Section:
    """Return the slope of the expected return in each exposure, and how it differs over assets."""
    title = ("Price of risk", "Price of risk", "price-of-risk")
    pricing = contents.pricing
    if pricing is None or not pricing.sizes[ASSET]:
        return Section(*title, ("No asset entered the forecast date, so nothing is priced.",))
    has_factors = contents.copula_loading is None
    table = price_spread(pricing)
    is_linear = not bool((np.abs(pricing["hessian"].values) > 0.0).any())
    drawing = pricing_figures.price_bars(pricing, is_linear=is_linear, has_factors=has_factors)
    shown = "" if len(table) <= MOST_PRICES else f" The {MOST_PRICES} largest effects are shown."
    caption = (
        f"Prices on {day(contents.portfolio.date)} times the standard deviation of the exposure, "
        f"which makes exposures of any scale comparable; largest mean effect first.{shown}"
    )
    found = tables.price_table(pricing, is_linear=is_linear, has_factors=has_factors)
    more = () if is_linear else (tables.interaction_table(pricing),)
    return Section(
        *title,
        (_what_a_price_is(contents), _price_verdict(pricing, is_linear=is_linear)),
        figures=(Drawing(drawing, caption),),
        tables=(*more, found),
        notes=_price_notes(has_factors=has_factors, is_linear=is_linear),
    )


def _what_a_price_is(contents: ReportContents) -> str:
    """Return what the numbers are, and what is held while they are taken."""
    start = (
        "The price of an exposure is the slope of an asset's expected return in it, "
        "g = dE[r]/dbeta: what one more unit of the exposure adds to the return that the model "
        "expects over one label horizon. "
    )
    if contents.copula_loading is not None:
        return start + (
            "It is a partial derivative: the asset's other exposures are held, and there is no "
            "factor whose mean could move with them."
        )
    return start + (
        "It is a partial derivative: the mean m_t and the scale S_t of the date's factors are held "
        "fixed, although they depend on what all assets look like."
        if not contents.exposures_are_given
        else "It is a partial derivative: the other exposures, and the mean m_t and the scale S_t "
        "of the factors, are held fixed."
    )


def _price_verdict(pricing: xr.Dataset, *, is_linear: bool) -> str:
    """Return the largest price, and how much prices differ between assets."""
    table = price_spread(pricing)
    first, row = str(table.index[0]), table.iloc[0]
    digits = digits_for(1e4 * table["effect"])
    text = (
        f"The largest is that of {first}: one standard deviation more of it moves an asset's "
        f"expected return by {basis_points(row['effect'], digits)}. "
    )
    if is_linear:
        return text + (
            "Pricing is linear: every asset has the same price for an exposure, so heterogeneity "
            "is 0."
        )
    widest = str(table["heterogeneity"].idxmax())
    size = table["heterogeneity"].max()
    every = total_heterogeneity(pricing)
    spread = float(pricing["mean"].values.std())
    small = digits_for(1e4 * table["heterogeneity"])
    pair = interactions(pricing)
    return text + (
        f"Prices differ most for {widest}: an asset with one standard deviation more of it, and a "
        f"price one standard deviation above the average, is expected to earn "
        f"{basis_points(size, small)} more than at the average price. Over all exposures together "
        f"that is {basis_points(every, digits)}, beside a standard deviation of "
        f"{basis_points(spread, digits)} of expected returns between assets. The strongest "
        f"interaction is {pair.index[0]}."
    )


def _price_notes(*, has_factors: bool, is_linear: bool) -> tuple[str, ...]:
    """Return how the parts of a price are defined."""
    if is_linear:
        return ()
    common = (
        ("Common part: m_t, the factors' mean, the same for every asset. The rest of a price is "
         "the slope of alpha at the asset's own exposures.",)
        if has_factors
        else ("The whole price is the slope of alpha at the asset's own exposures.",)
    )  # fmt: skip
    return (
        *common,
        "Heterogeneity is std(g) times sd(beta), both over the assets of the date: a return, since "
        "the ratio of std(g) to the mean price explodes where that is near zero. It is 0 for a "
        "linear model.",
    )
