"""One self-contained HTML page that judges a fit, out of the results of its diagnostics."""

from collections import Counter

from nfi_pyro.rendering.diagnosis_contents import DiagnosisContents
from nfi_pyro.rendering.diagnosis_fit_sections import (
    collapse,
    heads,
    importance,
    restarts,
    simulation,
    training,
)
from nfi_pyro.rendering.diagnosis_forecast_sections import (
    calibration,
    information,
    portfolios,
    predictive,
    scores,
    spread_skill,
    value_at_risk,
)
from nfi_pyro.rendering.diagnosis_verdicts import Judgement, judgements
from nfi_pyro.rendering.html import make_environment
from nfi_pyro.rendering.page import Section, Table
from nfi_pyro.rendering.tables import provenance_tables
from nfi_pyro.rendering.wording import sentence

_GRADES = ("good", "doubtful", "bad", "unknown", "left out")


def render_diagnosis(contents: DiagnosisContents) -> str:
    """Return the diagnosis as one HTML page that refers to nothing outside itself.

    The same contents give the same bytes: the page holds no time of rendering. All text is
    escaped; only the drawings of `nfi_pyro.rendering.figures` are passed through as markup.

    Parameters
    ----------
    contents : DiagnosisContents
        Results of one run.

    Returns
    -------
    str
        A complete HTML document, to be written as UTF-8.
    """
    rows = judgements(contents)
    return (
        make_environment()
        .get_template("diagnosis.html.jinja")
        .render(
            title=contents.title,
            introduction=_introduction(contents, rows),
            caption=(
                "Every diagnostic in the order in which a fit is read. The thresholds behind a "
                "grade stand in the documentation of its function."
            ),
            judgements=rows,
            sections=build_diagnosis(contents),
        )
    )


def build_diagnosis(contents: DiagnosisContents) -> tuple[Section, ...]:
    """Return the sections under the table of verdicts; what was left out has none."""
    builders = (
        training, collapse, importance, simulation, calibration, portfolios, spread_skill,
        value_at_risk, predictive, information, scores, heads, restarts,
    )  # fmt: skip
    found = [section for section in (builder(contents) for builder in builders) if section]
    return (*found, _arviz(contents), _settings(contents))


def _introduction(contents: DiagnosisContents, rows: tuple[Judgement, ...]) -> tuple[str, ...]:
    """Return which dates were judged and how many grades of each kind there are."""
    counts = Counter(row.grade for row in rows)
    listed = ", ".join(f"{counts[grade]} {grade}" for grade in _GRADES if counts[grade])
    return (
        f"Of {len(rows)} diagnostics: {listed}.",
        sentence("Dates", contents.evaluation_span),
        contents.thinning,
        sentence("Return that is forecast", contents.label),
    )


def _arviz(contents: DiagnosisContents) -> Section:
    """Return which functions of ArviZ mean something for this fit's InferenceData."""
    rows = tuple(
        (str(name), *(str(row[key]).replace("`", "") for key in ("meaning", "why", "instead")))
        for name, row in contents.arviz.iterrows()
    )
    return Section(
        "What ArviZ can say of this fit",
        "ArviZ",
        "arviz",
        (
            "Every draw of one fit is independent of the others, and a chain is a restart. What "
            "diagnoses a Markov chain diagnoses nothing here.",
        ),
        tables=(
            Table(
                "Functions of ArviZ on the run's posterior.nc: whether they mean something for "
                "variational inference, why, and what to use instead or how.",
                ("Function", "Means something", "Why", "Instead, or how"),
                rows,
                4,
            ),
        ),
    )


def _settings(contents: DiagnosisContents) -> Section:
    """Return draws, seeds and provenance."""
    return Section(
        "Settings, seeds and provenance",
        "Settings",
        "settings",
        tables=provenance_tables({"This page": contents.settings, **contents.provenance}),
    )
