"""The section of log scores and CRPS beside the baselines', for every page that shows it."""

from nfi_pyro.diagnostics.results import ScoreTable
from nfi_pyro.rendering import tables, verdicts
from nfi_pyro.rendering.page import Section
from nfi_pyro.rendering.wording import sentence


def score_section(scores: ScoreTable, evaluation_span: str) -> Section:
    """Return what each comparison with a baseline shows, and the table.

    Parameters
    ----------
    scores : ScoreTable
        The model first.
    evaluation_span : str
        Which dates were scored, in words.
    """
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
            sentence("Dates", evaluation_span),
        ),
    )
