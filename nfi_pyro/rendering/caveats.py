"""What the figures of a report do and do not say."""

from nfi_pyro.rendering import verdicts
from nfi_pyro.rendering.contents import ReportContents
from nfi_pyro.rendering.formatting import percent
from nfi_pyro.rendering.page import Section
from nfi_pyro.rendering.wording import sentence


def limits(contents: ReportContents) -> Section:
    """Return the limits of everything above them."""
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
        sentence("Dates of the Rank IC, calibration and score figures", contents.evaluation_span)
        + " Figures on dates that were used in training or in choosing the epoch flatter the "
        "model; only dates after both are a test.",
        *_model_limits(contents),
        f"Look at coverage at 95%: {percent(covered, 1)} "
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


def _model_limits(contents: ReportContents) -> tuple[str, ...]:
    """Return what the kind of model leaves open."""
    if contents.copula_loading is not None:
        return (
            "Each asset has a law of its own, a mixture of a few Gaussians, so its tails may be "
            "too thin. A Gaussian copula, fitted to the training dates afterwards, joins the laws: "
            "it makes joint crashes rarer than they are where losses cluster.",
        )
    tails = (
        "Given the factors, returns are Gaussian or a mixture of a few Gaussians, so the tails may "
        "be too thin."
    )
    if contents.exposures_are_given:
        return (
            "Exposures are data, so each factor has a name; but a factor's return is what is left "
            "to it beside all the others, and changes with the list of exposures.",
            tails,
        )
    return (
        "Factors are identified only up to rotation, sign and shift. A single factor has no name "
        "of its own; alpha, and beta times the prior mean, are known only as a sum.",
        tails,
    )
