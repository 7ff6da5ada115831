"""The sections of a diagnosis that judge forecasts: results in, text, figures and tables out."""

from nfi_pyro.dims import PORTFOLIO
from nfi_pyro.rendering import figures, verdicts
from nfi_pyro.rendering.baseline_scores import score_section
from nfi_pyro.rendering.diagnosis_contents import DiagnosisContents
from nfi_pyro.rendering.diagnosis_tables import (
    backtest_table,
    coverage_table,
    portfolio_tables,
    power_table,
    predictive_table,
    spread_table,
)
from nfi_pyro.rendering.figures import forecast_quality
from nfi_pyro.rendering.formatting import interval, number, percent
from nfi_pyro.rendering.page import Drawing, Section, Tile
from nfi_pyro.rendering.wording import sentence


def calibration(contents: DiagnosisContents) -> Section:
    """Return PIT and coverage of single assets, and what recalibration makes of them."""
    found = contents.calibration
    drawings = (
        Drawing(
            figures.pit_histogram(found),
            f"Density of the PIT over {found.n_observations:,} observed returns. A hump in the "
            "middle means forecasts that are too wide, raised ends too narrow. Band: 95% "
            "date-block bootstrap.",
        ),
        Drawing(
            figures.coverage_levels(found),
            "Share of outcomes inside the central forecast interval, less the nominal share. Below "
            "the dashed line the intervals are too narrow, above it too wide.",
        ),
    )
    texts = [verdicts.coverage_verdict(found), verdicts.pit_verdict(found)]
    if contents.recalibrated is None:
        texts.append("There are too few training dates to learn a recalibration from.")
    else:
        learned = contents.recalibrated.recalibration
        first, last = learned.train_span or ("", "")
        texts.append(
            f"The recalibration was learned on {learned.n_dates:,} training dates, {first} to "
            f"{last}, and on no later one. A flexible model is calibrated better on the dates that "
            "it was trained on than after them, so this may mend too little."
        )
    return Section(
        "Calibration of assets",
        "Calibration",
        "calibration",
        (*texts, sentence("Dates", contents.evaluation_span)),
        figures=drawings,
        tables=(coverage_table(found, contents.recalibrated),),
    )


def portfolios(contents: DiagnosisContents) -> Section | None:
    """Return coverage of the equal-weight and of random books."""
    found = contents.portfolios
    if found is None:
        return None
    texts = [found.coverage.verdict.text]
    if found.rescaled is not None and found.scale_factors is not None:
        spreads = [
            float(part.spread["spread"].isel({PORTFOLIO: 0}))
            for part in (found.coverage, found.rescaled)
        ]
        texts.append(
            f"On {found.n_training_dates:,} training dates the equal-weight book's normal scores "
            f"have a spread of {number(float(found.scale_factors[0]), 2)}. Dividing by it takes "
            f"the spread on the dates judged here from {number(spreads[0], 2)} to "
            f"{number(spreads[1], 2)}; 1 is right."
        )
    texts.append(found.about)
    return Section(
        "Calibration of portfolios",
        "Portfolios",
        "portfolios",
        (*texts, sentence("Dates", contents.evaluation_span)),
        figures=(
            Drawing(
                forecast_quality.portfolio_spreads(found.coverage, found.rescaled),
                "Standard deviation of each portfolio's normal scores. Above 1 real returns stray "
                "further than forecast, below it less far. Random books share assets and the "
                "market, so they do not err independently.",
            ),
        ),
        tables=portfolio_tables(found),
    )


def spread_skill(contents: DiagnosisContents) -> Section:
    """Return whether wide forecasts have large errors."""
    found = contents.spread_skill
    unit = contents.unit
    return Section(
        "Spread against skill",
        "Spread",
        "spread-skill",
        (
            found.verdict.text,
            f"Ratio of error to spread {number(found.ratio, 3)} "
            f"(95% interval {interval(*found.ratio_interval)}), slope of log error on log spread "
            f"{number(found.slope, 2)} ({interval(*found.slope_interval, 2)}); both are 1 in a "
            "right forecast.",
        ),
        figures=(
            Drawing(
                forecast_quality.spread_skill_bins(found, unit),
                f"{found.n_observations:,} cells in {found.bins.sizes['bin']} bins of equal size "
                "by forecast standard deviation. Above the dashed line the forecast is too "
                "narrow. Interval: 95% date-block bootstrap.",
            ),
        ),
        tables=(spread_table(found, unit),),
    )


def value_at_risk(contents: DiagnosisContents) -> Section | None:
    """Return the back-test of the equal-weight book's value at risk."""
    found = contents.portfolios
    if found is None or not found.backtests or found.series is None:
        return None
    powers = "; ".join(
        f"at {percent(test.level, 0)} a law with {number(test.alternative, 0)} times as many "
        f"exceedances would be found out with probability {number(test.power, 2)}"
        for test in found.backtests
    )
    return Section(
        "Value at risk of the equal-weight book",
        "VaR",
        "value-at-risk",
        (
            *(f"{percent(test.level, 0)}: {test.verdict.text}" for test in found.backtests),
            f"Power on {found.backtests[0].n_dates:,} dates: {powers}.",
        ),
        figures=(
            Drawing(
                forecast_quality.value_at_risk_series(found.series),
                "Realised returns of the book and the loss that the forecast lets happen with 5 "
                "and 1 percent probability, both by date of forecast.",
            ),
        ),
        tables=(backtest_table(found.backtests),),
    )


def predictive(contents: DiagnosisContents) -> Section | None:
    """Return real cross-sections beside those that the model makes."""
    found = contents.predictive
    if found is None:
        return None
    drawings = (
        Drawing(
            forecast_quality.predictive_summaries(found),
            "Means over dates of the statistics of a cross-section, in standard deviations of the "
            "replicates' from their mean. Prior: factors drawn before the returns are seen, which "
            "decides. Posterior: after, so it leans to the middle.",
        ),
        Drawing(
            forecast_quality.market_band(found, contents.unit),
            "Mean return of the observed assets of a date, inside the band of the same mean of "
            "replicates from the prior; one date in ten is outside where the model is right.",
        ),
    )
    return Section(
        "Predictive checks",
        "Predictive",
        "predictive",
        (found.verdict.text, sentence("Dates", contents.visited)),
        figures=drawings,
        tables=(predictive_table(found, contents.unit),),
        notes=(
            "Market clustering is the autocorrelation of the absolute market return from one of "
            "these dates to the next, for real returns and replicates alike.",
            "Networks stay at their point estimate, so the bands hold no doubt about those.",
        ),
    )


def information(contents: DiagnosisContents) -> Section | None:
    """Return the posterior of the mean Rank IC and the power of these dates."""
    found = contents.information
    if found is None:
        return None
    posterior, power = found.posterior, found.power
    tiles = (
        Tile(
            "Mean Rank IC",
            number(posterior.mean, 4),
            f"posterior mean; {percent(posterior.level, 0)} interval "
            f"{interval(*posterior.interval, 4)}",
        ),
        Tile(
            "Probability positive",
            percent(posterior.probability_positive, 1),
            f"prior of the mean: normal, 0 ± {number(posterior.prior_scale, 2)}",
        ),
        Tile(
            "Autocorrelation",
            number(posterior.phi_mean, 2),
            f"of daily Rank IC; interval {interval(*posterior.phi_interval, 2)}",
        ),
        Tile(
            "Effective dates",
            number(posterior.effective_dates, 0),
            f"of {posterior.n_dates:,} with a Rank IC",
        ),
    )
    return Section(
        "Mean Rank IC",
        "Rank IC",
        "information",
        (
            posterior.verdict.text,
            power.verdict.text,
            verdicts.rank_ic_verdict(contents.information_coefficient),
        ),
        tiles,
        (
            Drawing(
                forecast_quality.information_density(found.density, posterior),
                "Posterior density of the mean Rank IC under an AR(1) law of the daily ones.",
            ),
            Drawing(
                forecast_quality.power_curves(power, posterior.n_dates),
                f"Simulated histories with the spread and autocorrelation seen here whose "
                f"probability of a positive mean reaches {percent(power.threshold, 0)}.",
            ),
        ),
        (power_table(power),),
    )


def scores(contents: DiagnosisContents) -> Section:
    """Return log score and CRPS beside the baselines'."""
    return score_section(contents.scores, contents.evaluation_span)
