"""Grades of the diagnostics whose results carry none, and the table of all verdicts."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfi_pyro.diagnostics.results import Calibration, ScoreTable
from nfi_pyro.diagnostics.results.verdict import Verdict
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.rendering import verdicts
from nfi_pyro.rendering.diagnosis_contents import PARTS, DiagnosisContents, HeadResults
from nfi_pyro.rendering.formatting import interval, number, percent
from nfi_pyro.rendering.selection import Z_95, nominal_levels

LEFT_OUT = "left out"
NAMES = {
    "training": "Training",
    "collapse": "Factors in use",
    "importance": "Importance weights",
    "simulation": "Simulated truths",
    "calibration": "Calibration of assets",
    "portfolios": "Calibration of portfolios",
    "spread-skill": "Spread against skill",
    "value-at-risk": "Value at risk",
    "predictive": "Predictive checks",
    "information": "Mean Rank IC",
    "scores": "Scores against baselines",
    "heads": "Random last layers",
    "restarts": "Restarts",
}
_FEW_DATES = 20
_OFF, _FAR_OFF = 0.01, 0.05  # of a share covered
_TOO_WIDE, _WIDE = 0.3, 0.1  # prior median of a daily standard deviation, decimal
_TOO_SURE = 0.5  # prior median of the cross-sectional variance that the mean explains


@dataclass(frozen=True)
class Judgement:
    """One row of the table of verdicts.

    Attributes
    ----------
    name : str
        Of the diagnostic.
    anchor : str
        Section that shows it.
    grade : str
        Of a `Verdict`, or ``left out``.
    text : str
    """

    name: str
    anchor: str
    grade: str
    text: str

    @property
    def key(self) -> str:
        """Grade as the name of a style."""
        return self.grade.replace(" ", "-")

    @property
    def has_section(self) -> bool:
        """Whether there is a section to look at."""
        return self.grade != LEFT_OUT


def judgements(contents: DiagnosisContents) -> tuple[Judgement, ...]:
    """Return every verdict of the page in the order of its sections, with what was left out."""
    found: dict[str, list[tuple[str, Verdict]]] = {part: [] for part in PARTS}
    if contents.convergence is not None:
        found["training"].append(("Training", contents.convergence.verdict))
    if contents.collapse is not None:
        found["collapse"].append(("Factors in use", contents.collapse.verdict))
    for one in contents.importance:
        found["importance"].append((f"Importance weights: {one.guide}", one.verdict))
    for run in contents.simulations:
        found["simulation"].append((f"Simulated truths: {run.guide}", run.verdict))
    found["calibration"].append(("Calibration of assets", grade_calibration(contents.calibration)))
    books = contents.portfolios
    if books is not None:
        found["portfolios"].append(("Calibration of portfolios", books.coverage.verdict))
        for test in books.backtests:
            name = f"Value at risk, {percent(test.level, 0)}"
            found["value-at-risk"].append((name, test.verdict))
    found["spread-skill"].append(("Spread against skill", contents.spread_skill.verdict))
    if contents.predictive is not None:
        found["predictive"].append(("Predictive checks", contents.predictive.verdict))
    if contents.information is not None:
        longest = int(contents.information.power.table["n_dates"].max())
        found["information"] += [
            ("Mean Rank IC", contents.information.posterior.verdict),
            (f"Power of {longest:,} dates", contents.information.power.verdict),
        ]
    found["scores"].append(("Scores against baselines", grade_scores(contents.scores)))
    if contents.heads is not None:
        found["heads"].append(("Random last layers", grade_heads(contents.heads)))
    if contents.restarts is not None:
        found["restarts"].append(("Restarts", contents.restarts.verdict))
    rows = []
    for part in PARTS:
        rows += [Judgement(name, part, v.grade, v.text) for name, v in found[part]]
        if part in contents.left_out:
            rows.append(Judgement(NAMES[part], part, LEFT_OUT, contents.left_out[part]))
    return tuple(rows)


def grade_calibration(calibration: Calibration) -> Verdict:
    """Return a grade of the coverage of single assets.

    Bad: a level whose interval leaves out its nominal share, and whose observed share is off by
    more than five points or leaves out more than twice what it should. Doubtful: such a level that
    is off by more than a point. Unknown: fewer than 20 dates, or nothing known.
    """
    nominal = nominal_levels(calibration)
    observed, lower, upper = (
        calibration.coverage[name].values.astype(float) for name in ("observed", "lower", "upper")
    )
    text = verdicts.coverage_verdict(calibration)
    n_dates = int(calibration.pit.notnull().any(ASSET).sum(DATE))
    known = np.isfinite(observed) & np.isfinite(lower) & np.isfinite(upper)
    if n_dates < _FEW_DATES or not known.any():
        return Verdict("unknown", f"{text} On {n_dates} dates that says little: score more dates.")
    missed = known & ((lower > nominal) | (upper < nominal))
    if not missed.any():
        return Verdict("good", text)
    if not (missed & (np.abs(observed - nominal) > _OFF)).any():
        return Verdict("good", f"{text} Those that do not are off by less than a point.")
    double = (1.0 - observed) > 2.0 * (1.0 - nominal)
    far = missed & ((np.abs(observed - nominal) > _FAR_OFF) | double)
    seen = ", ".join(
        f"{percent(q, 0)}: {percent(share, 1)}"
        for q, share in zip(nominal[missed], observed[missed], strict=True)
    )
    return Verdict(
        "bad" if far.any() else "doubtful",
        f"{text} Observed at {seen}. Recalibrate on training dates before using these intervals.",
    )


def grade_scores(scores: ScoreTable) -> Verdict:
    """Return whether the model's log score beats the best baseline, beyond noise or not."""
    best = verdicts.best_baseline(scores)
    if best is None:
        return Verdict("unknown", "No baseline was scored, so the score has nothing to stand by.")
    name, advantage, error = best
    text = verdicts.score_verdict(name, advantage, error)
    if not np.isfinite(advantage) or not np.isfinite(error):
        return Verdict("unknown", text)
    if abs(advantage) <= Z_95 * error:
        return Verdict(
            "doubtful", f"{text} On these dates the model shows no gain over the best baseline."
        )
    if advantage > 0:
        return Verdict("good", text)
    return Verdict("bad", f"{text} Use the baseline, or look at training and at calibration.")


def grade_heads(heads: HeadResults) -> Verdict:
    """Return whether the last layers' prior is one that anybody holds, and whether data moved it.

    Bad: a prior median daily standard deviation above 30 percent, or a forecast mean that explains
    more than half of the cross-section. Doubtful: above 10 percent, or a posterior median outside
    the prior's central 90 percent.
    """
    scale, share = (_median(heads.prior, name) for name in ("daily_scale", "mean_share"))
    ends = [
        (name, *np.quantile(heads.prior[name].values, [0.05, 0.95]))
        for name in heads.prior.data_vars
    ]
    beyond = [
        str(name).replace("_", " ")
        for name, low, high in ends
        if not low <= _median(heads.posterior, str(name)) <= high
    ]
    bounds = np.quantile(heads.posterior["daily_scale"].values, [0.05, 0.95])
    text = (
        f"The prior's median daily standard deviation is {percent(scale, 1)}, the posterior's "
        f"{percent(_median(heads.posterior, 'daily_scale'), 2)} (90% interval "
        f"{interval(100 * bounds[0], 100 * bounds[1], 2)}%); the prior lets the forecast mean "
        f"explain {number(100 * share, 1)}% of the cross-section"
    )
    if scale > _TOO_WIDE or share > _TOO_SURE:
        return Verdict("bad", f"{text}. Nobody believes that before seeing data: narrow the prior.")
    if scale > _WIDE or beyond:
        which = f" The posterior leaves the prior in {', '.join(beyond)}." if beyond else ""
        return Verdict("doubtful", f"{text}.{which} Widen or narrow the prior, and fit again.")
    return Verdict("good", f"{text}.")


def _median(table: xr.Dataset, name: str) -> float:
    """Return the median over draws."""
    return float(np.median(table[name].values))
