"""A report's sections in order: results in, text, figures and tables out."""

import math

import numpy as np

from nfi_pyro.dims import FACTOR, STEP
from nfi_pyro.rendering import figures, selection, tables, verdicts, wording
from nfi_pyro.rendering.attribution_expected import expected_return, prices
from nfi_pyro.rendering.attribution_networks import heat_maps
from nfi_pyro.rendering.attribution_risk import risk
from nfi_pyro.rendering.baseline_scores import score_section
from nfi_pyro.rendering.caveats import limits
from nfi_pyro.rendering.contents import ReportContents
from nfi_pyro.rendering.factor_sections import dependence, exposures, factors, price_of_risk
from nfi_pyro.rendering.formatting import day, interval, nats, number, percent
from nfi_pyro.rendering.geometry_sections import movement
from nfi_pyro.rendering.page import Drawing, Section, Table, Tile
from nfi_pyro.rendering.selection import MOST_KL_LINES, MOST_RISKS, MOST_SOURCES, at_level
from nfi_pyro.rendering.wording import sentence


def build_sections(contents: ReportContents) -> tuple[Section, ...]:
    """Return every section of the report in reading order.

    Parameters
    ----------
    contents : ReportContents
        Results of one run.

    Returns
    -------
    tuple of Section
        Eleven sections, one on how far the factors moved where they did, one on the price of risk
        where the model has a law of exposure, and those that attribute the portfolio's expected
        return and risk; what is missing from the results is said in its section. Where a copula
        joins the assets, its section stands in the place of that on factors.
    """
    shared = factors if contents.copula_loading is None else dependence
    priced = () if contents.pricing is None else (price_of_risk,)
    first = (_summary, _portfolio, _provenance, _training, _rank_ic, _calibration, _scores, shared)
    moved = () if contents.movement is None else (movement(contents.movement),)
    return (
        *(builder(contents) for builder in first),
        *moved,
        *(builder(contents) for builder in (exposures, *priced, _risks)),
        *_attributed(contents),
        limits(contents),
    )


def _attributed(contents: ReportContents) -> tuple[Section, ...]:
    """Return what drives the portfolio, as on the attribution page."""
    found = contents.attribution
    if found is None:
        return ()
    built = (builder(found) for builder in (expected_return, prices, risk, heat_maps))
    return tuple(section for section in built if section)


def _summary(contents: ReportContents) -> Section:
    book, skill = contents.portfolio, contents.information_coefficient
    best = verdicts.best_baseline(contents.scores)
    if best is None:
        score = Tile("Log score against baseline", "n/a", "no baseline was scored")
    else:
        within = abs(best[1]) <= verdicts.Z_95 * best[2]
        order = "within noise of" if within else "better than" if best[1] > 0 else "worse than"
        order = "not comparable with" if math.isnan(best[1] + best[2]) else order
        note = f"per cell ± {number(best[2], 4)} (SE): {order} “{best[0]}”, the best baseline"
        score = Tile("Log score against best baseline", nats(best[1], signed=True), note)
    covered = verdicts.coverage_at(contents.calibration, 0.95)[0]
    lower, upper = skill.interval
    bounds = "includes" if lower <= 0 <= upper else "excludes"
    bounds = f": {bounds} zero" if not math.isnan(lower + upper) else ""
    tail = f"of capital; ES {percent(at_level(book.expected_shortfall, 0.99))}"
    tiles = (
        Tile("Forecast date", day(book.date), "known at this close"),
        Tile(
            "VaR 95%",
            percent(at_level(book.value_at_risk, 0.95)),
            f"of capital, one label horizon, {contents.portfolio_name}",
        ),
        Tile(
            "Expected shortfall 95%",
            percent(at_level(book.expected_shortfall, 0.95)),
            "of capital, mean loss beyond the VaR",
        ),
        Tile("VaR 99%", percent(at_level(book.value_at_risk, 0.99)), tail),
        wording.shared_tile(contents),
        Tile("Mean Rank IC", number(skill.mean), f"95% interval {interval(lower, upper)}{bounds}"),
        Tile(
            "Coverage at nominal 95%",
            percent(covered, 1),
            verdicts.coverage_phrase(contents.calibration, 0.95),
        ),
        score,
    )
    return Section(
        "Summary",
        "Summary",
        "summary",
        (
            sentence("Return that is forecast", contents.label),
            sentence(
                "Rank IC, coverage and log score describe these dates", contents.evaluation_span
            ),
        ),
        tiles,
    )


def _portfolio(contents: ReportContents) -> Section:
    book = contents.portfolio
    weights = book.weights.values.astype(float)
    gross, net = np.nansum(np.abs(weights)), np.nansum(weights)
    n_sources = book.factor_contribution.size
    grouped = (
        " Shared sources with a small contribution are one bar together."
        if n_sources > MOST_SOURCES
        else ""
    )
    caption = (
        "Euler contributions to the standard deviation, percent of capital; they add up to "
        f"{percent(book.standard_deviation, 3)}. A negative bar lowers the risk.{grouped}"
    )
    return Section(
        "Portfolio risk",
        "Portfolio",
        "portfolio-risk",
        (
            f"Book: {contents.portfolio_name}, {int((weights != 0).sum())} holdings, gross "
            f"{percent(gross, 1)} and net {percent(net, 1)} of capital. Forecast made at the close "
            f"of {day(book.date)} for one label horizon.",
            wording.shared_sentence(contents),
        ),
        figures=(Drawing(figures.contribution_bars(book), caption),),
        tables=(tables.portfolio_table(book), tables.holdings_table(book)),
    )


def _provenance(contents: ReportContents) -> Section:
    ledger = contents.ledger
    found = "The data checks found nothing to change." if len(ledger) == 0 else ""
    dropped: tuple[Table, ...] = (tables.ledger_table(ledger),) if len(ledger) else ()
    caption = (
        "Assets by date. Listed: has a price. Tradable: in the universe, decided at the close. "
        "Entered: tradable with finite features at every lag, so that the model sees it."
    )
    timing = sentence("Label timing", contents.label)
    return Section(
        "What was fitted on what",
        "Provenance",
        "provenance",
        tuple(text for text in (timing, found) if text),
        figures=(Drawing(figures.universe_lines(contents.coverage), caption),),
        tables=tables.provenance_tables(contents.provenance) + dropped,
    )


def _training(contents: ReportContents) -> Section:
    history = contents.history
    n_steps, n_factors = history["kl"].sizes[STEP], history["kl"].sizes[FACTOR]
    drawings = (
        Drawing(
            figures.elbo_curve(history),
            f"{selection.objective_name(history)} over {n_steps:,} training steps, returns in "
            "training-sd units; higher is "
            "better. The lowest 1% of steps may lie below the frame.",
        ),
        Drawing(
            figures.validation_curves(history),
            "Scores on the validation dates by epoch; higher is better. The fit that this report "
            "uses is the one of the best epoch.",
        ),
        *((Drawing(figures.kl_curves(history), _kl_caption(n_factors)),) if n_factors else ()),
    )
    verdict = verdicts.training_verdict(history)
    missing = (
        ""
        if n_factors
        else "The model has no latent variable: there is no KL divergence to show, and the curve "
        "is the log likelihood of the training returns."
    )
    paragraphs = tuple(text for text in (verdict, missing) if text)
    return Section("Training", "Training", "training", paragraphs, figures=drawings)


def _kl_caption(n_factors: int) -> str:
    """Return what the curves of the KL divergence are."""
    if n_factors == 1:
        return (
            "KL divergence of posterior from prior, all factors together, moving average. Near "
            "zero the returns of a date teach nothing beyond the prior."
        )
    others = (
        f" The {MOST_KL_LINES} of {n_factors} factors with the largest KL at the end are coloured."
        if n_factors > MOST_KL_LINES
        else ""
    )
    return (
        "KL divergence of posterior from prior by factor, moving average. A factor near zero has "
        f"learned nothing beyond its prior.{others}"
    )


def _rank_ic(contents: ReportContents) -> Section:
    skill = contents.information_coefficient
    drawings = (
        Drawing(
            figures.rank_ic_cumulative(skill),
            "Running sum of daily Rank IC. Band: 95%, pointwise, from the standard error of the "
            "mean. At the last date it excludes zero exactly when the interval of the mean does.",
        ),
        Drawing(
            figures.rank_ic_months(skill),
            "Mean Rank IC by calendar month, in hundredths (5 is a Rank IC of 0.05). Blue is "
            "positive, orange negative, grey has no date.",
        ),
    )
    about = (
        f"Rank IC is the Spearman correlation, over the assets of one date, of forecast mean and "
        f"realised return. {skill.n_dates:,} dates count and {skill.n_skipped:,} are left out; "
        f"standard error {number(skill.standard_error, 4)} (Newey-West, {skill.n_lags} lags); mean "
        f"over standard deviation of the dates (ICIR) {number(skill.icir, 2)}, not annualised."
    )
    span = sentence("Dates", contents.evaluation_span)
    return Section(
        "Rank IC",
        "Rank IC",
        "rank-ic",
        (verdicts.rank_ic_verdict(skill), about, span),
        figures=drawings,
    )


def _scores(contents: ReportContents) -> Section:
    return score_section(contents.scores, contents.evaluation_span)


def _calibration(contents: ReportContents) -> Section:
    result = contents.calibration
    drawings = (
        Drawing(
            figures.pit_histogram(result),
            f"Density of the PIT over {result.n_observations:,} observed returns. A hump in the "
            "middle means forecasts that are too wide, raised ends too narrow. Band: 95% "
            "date-block bootstrap.",
        ),
        Drawing(
            figures.coverage_levels(result),
            "Share of outcomes inside the central forecast interval, less the nominal share. Below "
            "the dashed line the intervals are too narrow, above it too wide.",
        ),
    )
    span = sentence("Dates", contents.evaluation_span)
    return Section(
        "Calibration",
        "Calibration",
        "calibration",
        (verdicts.coverage_verdict(result), verdicts.pit_verdict(result), span),
        figures=drawings,
        tables=(tables.coverage_table(result),),
    )


def _risks(contents: ReportContents) -> Section:
    n_shown = min(MOST_RISKS, len(contents.risks))
    deviation = contents.risks["standard_deviation"]
    same = len(deviation) > 1 and deviation.max() - deviation.min() <= 1e-5 * deviation.max()
    about = (
        f"One-asset forecasts made at the close of {day(contents.portfolio.date)}, for one label "
        "horizon.",
        "The model gives every asset the same standard deviation, so the order says nothing."
        if same
        else "",
        wording.own_share_sentence(contents),
    )
    caption = (
        f"The {n_shown} largest of {len(contents.risks)} predictive standard deviations. The bar's "
        "length is the standard deviation, its colours the shares of variance."
    )
    return Section(
        "Largest predictive risks",
        "Largest risks",
        "largest-risks",
        (" ".join(text for text in about if text),),
        figures=(
            Drawing(figures.risk_bars(contents.risks, wording.shared_label(contents)), caption),
        ),
        tables=(tables.risk_table(contents.risks),),
    )
