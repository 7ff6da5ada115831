"""A report's sections in order: results in, text, figures and tables out."""

import math

import numpy as np

from nfi_pyro.dims import ASSET, DATE, FACTOR, STEP
from nfi_pyro.rendering import figures, tables, verdicts
from nfi_pyro.rendering.contents import ReportContents
from nfi_pyro.rendering.formatting import day, interval, nats, number, percent
from nfi_pyro.rendering.page import Drawing, Section, Table, Tile
from nfi_pyro.rendering.selection import (
    MOST_ASSETS,
    MOST_FACTORS,
    MOST_KL_LINES,
    MOST_RISKS,
    MOST_SOURCES,
    at_level,
    factor_movement,
    stride,
)


def build_sections(contents: ReportContents) -> tuple[Section, ...]:
    """Return every section of the report in reading order.

    Parameters
    ----------
    contents : ReportContents
        Results of one run.

    Returns
    -------
    tuple of Section
        Eleven sections; each is present whatever is missing from the results, and says so.
    """
    builders = (
        _summary, _portfolio, _provenance, _training, _rank_ic, _calibration, _scores, _factors,
        _exposures, _risks, _limits,
    )  # fmt: skip
    return tuple(builder(contents) for builder in builders)


def factor_share(contents: ReportContents) -> float:
    """Return the factors' share of the portfolio's variance, NaN when the variance is not > 0."""
    part, rest = contents.portfolio.factor_variance, contents.portfolio.specific_variance
    return part / (part + rest) if part + rest > 0 else math.nan


def _sentence(subject: str, text: str) -> str:
    """Return ``subject: text.`` with one full stop, whether or not the text brings its own."""
    return f"{subject}: {text.strip().rstrip('.')}."


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
        Tile(
            "Factor share of variance",
            percent(factor_share(contents), 1),
            "of the portfolio; the rest is specific",
        ),
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
            _sentence("Return that is forecast", contents.label),
            _sentence(
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
        f" The {MOST_SOURCES - 2} factors with the largest contribution are shown, the others as "
        "one bar."
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
            f"Factors carry {percent(factor_share(contents), 1)} of the variance; the rest is "
            "specific to single assets.",
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
    timing = _sentence("Label timing", contents.label)
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
    others = (
        f" The {MOST_KL_LINES} of {n_factors} factors with the largest KL at the end are coloured."
        if n_factors > MOST_KL_LINES
        else ""
    )
    drawings = (
        Drawing(
            figures.elbo_curve(history),
            f"ELBO over {n_steps:,} training steps, returns in training-sd units; higher is "
            "better. The lowest 1% of steps may lie below the frame.",
        ),
        Drawing(
            figures.validation_curves(history),
            "Scores on the validation dates by epoch; higher is better. The fit that this report "
            "uses is the one of the best epoch.",
        ),
        Drawing(
            figures.kl_curves(history),
            "KL divergence of posterior from prior by factor, moving average. A factor near zero "
            f"has learned nothing beyond its prior.{others}",
        ),
    )
    verdict = verdicts.training_verdict(history)
    return Section(
        "Training", "Training", "training", (verdict,) if verdict else (), figures=drawings
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
    span = _sentence("Dates", contents.evaluation_span)
    return Section(
        "Rank IC",
        "Rank IC",
        "rank-ic",
        (verdicts.rank_ic_verdict(skill), about, span),
        figures=drawings,
    )


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
    span = _sentence("Dates", contents.evaluation_span)
    return Section(
        "Calibration",
        "Calibration",
        "calibration",
        (verdicts.coverage_verdict(result), verdicts.pit_verdict(result), span),
        figures=drawings,
        tables=(tables.coverage_table(result),),
    )


def _scores(contents: ReportContents) -> Section:
    scores = contents.scores
    names = [str(name) for name in scores.table["forecast"].values]
    sentences = [
        verdicts.score_verdict(
            names[k],
            -float(scores.table["log_score_difference"].values[k]),
            float(scores.table["difference_standard_error"].values[k]),
        )
        for k in range(1, len(names))
    ]
    return Section(
        "Scores against baselines",
        "Scores",
        "scores",
        tuple(sentences) or ("No baseline was scored, so the log score has nothing to stand by.",),
        tables=(tables.score_table(scores),),
        notes=(
            "The standard error is Newey-West over dates, so it allows for scores that stay high "
            "or low for several days.",
            _sentence("Dates", contents.evaluation_span),
        ),
    )


def _factors(contents: ReportContents) -> Section:
    factors = contents.factors
    n_factors, n_dates = factors.sizes[FACTOR], factors.sizes[DATE]
    moved = factor_movement(factors)
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
        figures=(Drawing(figures.factor_states(factors), caption),),
        tables=(tables.factor_table(factors),),
        notes=(
            "Only the prior makes forecasts. The posterior has seen the returns that it describes.",
        ),
    )


def _exposures(contents: ReportContents) -> Section:
    exposures = contents.exposures
    n_assets = exposures.sizes[ASSET]
    caption = f"Exposures of {n_assets} assets on {day(contents.portfolio.date)}."
    if n_assets > MOST_ASSETS:
        caption = (
            f"Exposures on {day(contents.portfolio.date)} of the {MOST_ASSETS} of {n_assets} "
            "assets with the largest norm, largest first."
        )
    caption += " Blue is positive, orange negative, grey missing."
    text = "Exposures are dimensionless; a factor's return times the exposure is a return."
    if np.isnan(exposures.values.astype(float)).any():
        text += " Some are missing; the table leaves them out."
    return Section(
        "Exposures",
        "Exposures",
        "exposures",
        (text,),
        figures=(Drawing(figures.exposure_map(exposures), caption),),
        tables=(tables.exposure_table(exposures),),
    )


def _risks(contents: ReportContents) -> Section:
    n_shown = min(MOST_RISKS, len(contents.risks))
    caption = (
        f"The {n_shown} largest of {len(contents.risks)} predictive standard deviations. The bar's "
        "length is the standard deviation, its colours the shares of variance."
    )
    return Section(
        "Largest predictive risks",
        "Largest risks",
        "largest-risks",
        (
            f"One-asset forecasts made at the close of {day(contents.portfolio.date)}, for one "
            "label horizon.",
        ),
        figures=(Drawing(figures.risk_bars(contents.risks), caption),),
        tables=(tables.risk_table(contents.risks),),
    )


def _limits(contents: ReportContents) -> Section:
    told = [
        f"{label}: {text}"
        for items in contents.provenance.values()
        for label, text in items.items()
        if "surviv" in f"{label} {text}".lower()
    ]
    told += [str(rule) for rule in contents.ledger["rule"] if "surviv" in str(rule).lower()]
    if told:
        survivors = (
            f"Survivorship, as the data state it: “{'; '.join(told)}”. Where the assets "
            "were chosen because they still exist, past returns and skill look better than they "
            "could have been."
        )
    else:
        survivors = (
            "The provenance does not say whether the list of assets was drawn up with hindsight. "
            "If it was, past returns and skill look better than they could have been."
        )
    covered = verdicts.coverage_at(contents.calibration, 0.95)[0]
    notes = (
        _sentence("Dates of the Rank IC, calibration and score figures", contents.evaluation_span)
        + " Figures on dates that were used in training or in choosing the epoch flatter the "
        "model; only dates after both are a test.",
        "Factors are identified only up to rotation, sign and shift. A single factor has no name "
        "of its own; alpha, and beta times the prior mean, are known only as a sum.",
        "Given the factors, returns are Gaussian or a mixture of a few Gaussians, so the tails may "
        f"be too thin. Look at coverage at 95%: {percent(covered, 1)} "
        f"({verdicts.coverage_phrase(contents.calibration, 0.95)}), and at the two end bins of "
        "the PIT.",
        "One fit is one local optimum of the objective. The spread over restarts is not part of "
        "any interval here, nor is the choice of model.",
        survivors,
        "Value at risk is a quantile of the next label horizon's return, under the model. It is no "
        "bound on the loss, it does not add up over days, and it is not a stop-loss.",
        "Costs, taxes, market impact and limits on borrowing are left out.",
        "Nothing here is investment advice.",
    )
    return Section("What these figures do and do not say", "Limits", "limits", notes=notes)
