"""Words that depend on what assets share: factors, or the normals of a copula."""

import math

from nfi_pyro.rendering.contents import ReportContents
from nfi_pyro.rendering.formatting import percent
from nfi_pyro.rendering.page import Tile


def sentence(subject: str, text: str) -> str:
    """Return ``subject: text.`` with one full stop, whether or not the text brings its own."""
    return f"{subject}: {text.strip().rstrip('.')}."


def shared_share(contents: ReportContents) -> float:
    """Return the shared part of the portfolio's variance, NaN when the variance is not > 0."""
    part, rest = contents.portfolio.factor_variance, contents.portfolio.specific_variance
    return part / (part + rest) if part + rest > 0 else math.nan


def shared_tile(contents: ReportContents) -> Tile:
    """Return how much of the portfolio's variance its assets share."""
    share = percent(shared_share(contents), 1)
    if contents.copula_loading is None:
        return Tile("Factor share of variance", share, "of the portfolio; the rest is specific")
    order = "" if _is_exact(contents) else ", to first order"
    note = f"of the portfolio's variance{order}; the rest is specific"
    return Tile("What the copula shares", share, note)


def shared_sentence(contents: ReportContents) -> str:
    """Return where the portfolio's variance comes from."""
    share = percent(shared_share(contents), 1)
    if contents.copula_loading is None:
        return f"Factors carry {share} of the variance; the rest is specific to single assets."
    measured = (
        "Every law is normal, so the copula makes the returns jointly normal and all of this is "
        "exact. "
        if _is_exact(contents)
        else "The standard deviation and its parts are of first order in the copula's "
        "correlations; value at risk and expected shortfall come from draws of the copula itself. "
    )
    return (
        f"What the copula shares carries {share} of the variance; the rest is specific to single "
        f"assets. {measured}A bar named after an exposure is what it adds to the shared normals "
        "above it in the copula's order."
    )


def shared_label(contents: ReportContents) -> str:
    """Return the name of the shared part of an asset's variance."""
    return "factor share" if contents.copula_loading is None else "copula's share"


def own_share_sentence(contents: ReportContents) -> str:
    """Return how the specific share is meant, where that needs saying."""
    if contents.copula_loading is None:
        return ""
    order = "" if _is_exact(contents) else ", to first order"
    return f"The specific share is what the copula does not share{order}."


def _is_exact(contents: ReportContents) -> bool:
    """Return whether every law is normal: then the copula's first order is all there is."""
    return contents.portfolio.method == "closed form"
