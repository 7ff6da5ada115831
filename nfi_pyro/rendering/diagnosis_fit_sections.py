"""The sections of a diagnosis that judge the posterior: results in, text, figures, tables out."""

import numpy as np
import xarray as xr

from nfi_pyro.diagnostics.results import ImportanceQuality
from nfi_pyro.dims import FACTOR, STEP
from nfi_pyro.rendering import figures, selection
from nfi_pyro.rendering.diagnosis_contents import DiagnosisContents
from nfi_pyro.rendering.diagnosis_verdicts import grade_heads
from nfi_pyro.rendering.figures import fit_quality
from nfi_pyro.rendering.formatting import (
    count,
    day,
    interval,
    number,
    p_value,
    percent,
    percent_interval,
)
from nfi_pyro.rendering.page import Drawing, Section, Table
from nfi_pyro.rendering.wording import sentence

MOST_WORST = 5


def training(contents: DiagnosisContents) -> Section | None:
    """Return the training curves with their trends."""
    history, found = contents.history, contents.convergence
    if found is None:
        return None
    n_factors = history["kl"].sizes[FACTOR]
    drawings = [
        Drawing(
            fit_quality.elbo_average_curve(history, found),
            f"{history['elbo'].sizes[STEP]:,} steps, returns in training-sd units; higher is "
            f"better. The lowest 1% of steps may lie below the frame.{_empty_steps(history)}",
        ),
        Drawing(
            figures.validation_curves(history),
            "Scores on the validation dates by epoch; higher is better. The line marks the epoch "
            "whose weights are kept.",
        ),
    ]
    if n_factors:
        all_together = n_factors == 1
        drawings.append(
            Drawing(
                figures.kl_curves(history),
                "KL divergence of the factors' posterior from their prior"
                + (", all factors together" if all_together else " by factor")
                + ", moving average. Near 0 the returns teach nothing beyond the prior.",
            )
        )
    if "heads_kl" in history:
        drawings.append(
            Drawing(
                fit_quality.heads_kl_curve(history),
                "KL divergence of the last layers' posterior from their prior, in nats of the "
                "whole training set.",
            )
        )
    rows = tuple(
        (name, number(trend.slope, 4, signed=True), number(trend.standard_error, 4),
         count(trend.n_points))
        for name, trend in (
            (f"{selection.objective_name(history)}, last quarter of the steps", found.elbo_trend),
            ("validation score, last quarter of the epochs", found.validation_trend),
            ("validation score after the best epoch", found.trend_since_best),
        )
    )  # fmt: skip
    table = Table(
        "Slopes by least squares with Newey-West errors, nats per observed cell and epoch; n/a "
        "for fewer than 5 points.",
        ("Curve", "Slope", "Standard error", "Points"),
        rows,
    )
    return Section(
        "Training",
        "Training",
        "training",
        (found.verdict.text, *_other_objective(found.objective)),
        figures=tuple(drawings),
        tables=(table,),
    )


def _empty_steps(history: xr.Dataset) -> str:
    """Return how many steps are not drawn because nothing was observed on their dates."""
    n_empty = int(selection.empty_steps(history).sum())
    if not n_empty:
        return ""
    return f" {n_empty:,} steps on dates without an observed return are not drawn as steps."


def _other_objective(objective: str) -> tuple[str, ...]:
    """Return what the curve is where training maximised no bound."""
    if objective == "elbo":
        return ()
    return (
        f"Training maximised '{objective}', so the curve called ELBO is that objective's "
        "likelihood term less the KL: not a bound on the evidence.",
    )


def collapse(contents: DiagnosisContents) -> Section | None:
    """Return which factors the data speak through."""
    found = contents.collapse
    if found is None:
        return None
    table = found.factors
    rows = tuple(
        (
            str(table[FACTOR].values[k]),
            "active" if bool(table["active"].values[k]) else "spare",
            number(table["kl"].values[k], 2),
            number(table["activity"].values[k], 3),
            percent(table["variance_share"].values[k], 1),
            number(table["prior_ratio"].values[k], 2),
        )
        for k in np.argsort(-table["variance_share"].values, kind="stable")
    )
    joint = f" With the full covariance the divergence is {number(found.kl_joint, 2)} nats."
    return Section(
        "Factors in use",
        "Factors",
        "collapse",
        (
            found.verdict.text,
            f"Factors make up {percent(found.factor_variance_share, 1)} of the variance of single "
            f"assets; they are worth {number(found.effective_factors, 1)} factors of equal size, "
            f"under any rotation.{'' if np.isnan(found.kl_joint) else joint}",
        ),
        figures=(
            Drawing(
                fit_quality.collapse_bars(found),
                "The factors with the largest share of factor variance, largest first. KL: "
                "posterior from prior, mean over dates. Activity: variance over dates of the "
                "posterior mean's distance from the prior mean, in prior variances.",
            ),
        ),
        tables=(
            Table(
                "Factors by share of factor variance. Prior ratio: prior standard deviation over "
                "the distance that the posterior shows; 1 is right, near 0 the prior collapsed.",
                ("Factor", "State", "KL (nats)", "Activity", "Variance", "Prior ratio"),
                rows,
                2,
            ),
        ),
    )


def importance(contents: DiagnosisContents) -> Section | None:
    """Return how near each guide is to the posterior, by date."""
    found = contents.importance
    if not found:
        return None
    rows = tuple(
        (
            one.guide,
            count(one.n_dates),
            percent(one.share_high, 0),
            percent(one.share_poor, 0),
            number(one.mean_gap, 3),
            number(one.gap_standard_error, 3),
            number(float(one.effective_draws.median()), 0),
        )
        for one in found
    )
    drawings = (
        Drawing(
            fit_quality.k_hat_dates(found),
            "Shape of the tail of a date's importance weights. Above the dashed line the guide "
            "misses part of the posterior, if few draws are effective as well.",
        ),
        Drawing(
            fit_quality.evidence_gaps(found),
            "What a date's ELBO gives away against the importance-weighted evidence; 0 is exact. "
            "Solid line: mean.",
        ),
    )
    tables = (
        Table(
            "By guide. High: k-hat above the threshold; poor: that, and fewer than half of the "
            "draws effective. Gap: evidence minus ELBO, nats per date, with a Newey-West standard "
            "error; effective draws: median over dates.",
            ("Guide", "Dates", "High", "Poor", "Mean gap", "Standard error", "Effective draws"),
            rows,
        ),
        _worst_dates(found[0]),
    )
    texts = (*(one.verdict.text for one in found), sentence("Dates", contents.visited))
    return Section("Importance weights", "Importance", "importance", texts, (), drawings, tables)


def _worst_dates(found: ImportanceQuality) -> Table:
    """Return the dates with the largest k-hat."""
    k_hat = found.k_hat.dropna("date")
    order = np.argsort(-k_hat.values, kind="stable")[:MOST_WORST]
    dates = k_hat["date"].values[order]
    rows = tuple(
        (
            str(place),
            day(date),
            number(float(found.k_hat.sel(date=date)), 2),
            number(float(found.gap.sel(date=date)), 3),
            number(float(found.effective_draws.sel(date=date)), 0),
        )
        for place, date in enumerate(dates, start=1)
    )
    return Table(
        f"The {len(rows)} dates with the largest k-hat of guide '{found.guide}'.",
        ("Place", "Date", "k-hat", "Gap (nats)", "Effective draws"),
        rows,
    )


def simulation(contents: DiagnosisContents) -> Section | None:
    """Return simulation-based calibration of each guide."""
    found = contents.simulations
    if not found:
        return None
    rows = tuple(
        (
            one.guide,
            str(kind),
            percent(float(row["coverage"]), 1),
            percent_interval(float(row["lower"]), float(row["upper"])),
            p_value(float(row["p_value"])),
        )
        for one in found
        for kind in one.kinds["kind"].values
        for row in (one.kinds.sel(kind=kind),)
    )
    cells = int(found[0].quantities["n_cells"].max())
    drawing = Drawing(
        fit_quality.rank_histograms(found),
        "Ranks of factors drawn from the model among the guide's draws, given returns made from "
        "them. A right posterior is flat; a hump is too wide, raised ends are too narrow. Band: "
        "95% binomial for one bin, for as many independent ranks as those of a kind are worth.",
    )
    table = Table(
        f"Central intervals of probability {percent(found[0].expected, 0)} over {cells:,} dates "
        "times repeats; 95% interval clustered by date and repeat. p: uniform ranks, chi-square, "
        "the smallest of the quantities times their number.",
        ("Guide", "Quantity", "Covered", "95% interval", "p"),
        rows,
        2,
    )
    return Section(
        "Simulated truths",
        "Simulation",
        "simulation",
        (
            *(one.verdict.text for one in found),
            "No real return enters: this judges the inference given the networks, not the model.",
            sentence("Dates", contents.visited),
        ),
        figures=(drawing,),
        tables=(table,),
    )


def heads(contents: DiagnosisContents) -> Section | None:
    """Return what random last layers imply before and after the data."""
    found = contents.heads
    if found is None:
        return None
    rows = []
    for name in found.prior.data_vars:
        in_percent = selection.is_percent(found.prior[name])
        scale = 100.0 if in_percent else 1.0
        cells = []
        for table in (found.prior, found.posterior):
            low, middle, high = scale * np.quantile(table[name].values, [0.05, 0.5, 0.95])
            cells += [number(middle, 3), interval(low, high, 3)]
        unit = " (%)" if in_percent else ""
        rows.append((f"{str(name).replace('_', ' ')}{unit}", *cells))
    return Section(
        "Random last layers",
        "Last layers",
        "heads",
        (grade_heads(found).text,),
        figures=(
            Drawing(
                fit_quality.head_intervals(found.prior, found.posterior),
                "What the laws of returns look like under draws of the last layers, on the "
                "networks of this fit: from their prior and from their posterior.",
            ),
        ),
        tables=(
            Table(
                f"Medians and central 90% intervals over {found.prior.sizes['draw']} draws, each a "
                f"mean over the assets of {found.prior.attrs.get('n_dates', 0)} dates. Daily and "
                "book scale: standard deviation of an asset's and of the equal-weight book's "
                "return. Mean share: of the cross-sectional variance, explained by the forecast "
                "mean. Factor share: of an asset's variance, explained by the factors.",
                ("What it implies", "Prior", "90%", "Posterior", "90%"),
                tuple(rows),
            ),
        ),
    )


def restarts(contents: DiagnosisContents) -> Section | None:
    """Return how far restarts from other seeds agree."""
    found = contents.restarts
    if found is None:
        return None
    drawings = []
    if found.r_hat.size:
        drawings.append(
            Drawing(
                fit_quality.r_hat_curves(found),
                "R-hat of what every restart identifies: the factor return of the equal-weight "
                "book, of single assets (cell) and of random long-short portfolios. A high curve "
                "on the left is agreement.",
            )
        )
    if found.mean_correlation is not None:
        drawings.append(
            Drawing(
                fit_quality.restart_correlations(found),
                "Correlation over assets of predictive means, averaged over dates. Restart 0 is "
                "the one that this page judges.",
            )
        )
    rows = tuple(
        (str(kind), number(float(row["median"]), 2), percent(float(row["share_low"]), 0),
         count(float(row["n"])))
        for kind in found.summary["kind"].values
        for row in (found.summary.sel(kind=kind),)
    )  # fmt: skip
    tables = (
        (Table("R-hat by kind of quantity.", ("Kind", "Median", "Below 1.1", "Number"), rows),)
        if found.r_hat.size
        else ()
    )
    return Section(
        "Restarts",
        "Restarts",
        "restarts",
        (
            found.verdict.text,
            f"Of the variance of the {found.n_restarts} restarts' mixture, "
            f"{percent(found.between_share, 1)} is between their means and the rest within them.",
            sentence("Dates of R-hat", contents.visited),
        ),
        figures=tuple(drawings),
        tables=tables,
    )
