"""Layer-wise relevance propagation: a book's expected return, split over features and lags."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from nfi_pyro.attribution.networks.explained import (
    ExplainedDate,
    ExplainedPass,
    check_prior,
    open_explained,
)
from nfi_pyro.attribution.networks.relevance_networks import LAYERS, DateRelevance, share_date
from nfi_pyro.attribution.networks.relevance_rules import RelevanceRule
from nfi_pyro.attribution.results.explanations import FeatureRelevance
from nfi_pyro.data.panel import Panel
from nfi_pyro.dims import ASSET, FEATURE, LAG
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.dated_weights import DatedWeights, Held
from nfi_pyro.posterior.fits import check_fits, join_chains
from nfi_pyro.svi.trained import SVIFit

LAYER = "layer"
TOLERANCE = 0.01


def layer_relevance(
    fits: SVIFit | Sequence[SVIFit],
    panel: Panel,
    *,
    weights: Held = None,
    dates: DateRange | None = None,
    rule: RelevanceRule | None = None,
    prior: str = "moves",
    by_asset: bool = False,
) -> FeatureRelevance:
    r"""Return the part of a book's expected return that each feature at each lag gets, by date.

    The book's expected return ``sum_i w_i E[r_i]`` is handed back layer by layer, without a
    baseline and without gradients, and nothing is lost on the way: relevance of features and of
    biases adds up to it, but for what the stabiliser absorbs. Affine layers share by `rule`;
    elementwise activations pass relevance on; gates of the recurrence get none; a sum gives each
    summand its own. ``E[r_i] = alpha_i + sum_k beta_ik m_k`` ends in a product of two signals, the
    exposure and the factor's prior mean, which the networks make from the features of all assets:
    with `prior` ``moves`` each gets half, and the half of m goes back through the prior's network
    and, attention weights being gates, to the states of all assets; with ``held`` m is a constant
    and the exposure gets all. What features contribute by moving gates, attention and scales is
    not in the map: relevance is about what was passed on, not about what would change it.

    The inputs are those of `integrated_gradients`. The rules are linear in relevance, so the map
    of a book is the weighted sum of its assets' maps.

    Parameters
    ----------
    fits : SVIFit or sequence of SVIFit
        Of any pricing model; several are restarts of one model.
    panel, weights, dates
        As in `factor_gradcam`.
    rule : RelevanceRule, optional
        Default: epsilon.
    prior : {"moves", "held"}
        Of nfi and factor_vae; without effect where exposures are given.
    by_asset : bool
        Whether to keep the assets apart too: as many numbers as the panel has for those dates.

    Returns
    -------
    FeatureRelevance
        `conserved` is false on dates whose sum is off by 1 percent or more.

    Raises
    ------
    SpecError
        If the model is unknown, an option is out of range, or the fits are of several models.
    WeightsError, ShapeError
        See `DatedWeights`.
    SplitError, PanelError
        If no date has a full window, or the panel is not the fits' kind.

    References
    ----------
    .. [1] Nakagawa, Uchida, Aoshima (2018). Deep factor model. arXiv 1810.01278: relevance of
       factors in a perceptron's predicted returns, here `neural_factor` and `mixture_pricing`.
    """
    rule = RelevanceRule() if rule is None else rule
    check_prior(prior)
    found = []
    for fit in check_fits(fits):
        opened = open_explained(fit, panel, dates)
        book = DatedWeights(weights, opened.dates, opened.assets)
        own = _empty(opened, by_asset)
        for place, day, share in opened.walk(book, own):
            _write(own, place, share_date(rule, day, share, held=prior == "held"), day)
        conserved = (own["conservation_error"] < TOLERANCE).assign_attrs(units="1")
        found.append(own.assign(conserved=conserved))
    joined = join_chains(found, fits)
    return FeatureRelevance(
        **{"by_asset": None, **joined.data_vars},  # type: ignore[arg-type]
        rule=rule.describe(),
        prior=prior,
    )


def layers_of(fit: SVIFit) -> tuple[str, ...]:
    """Return the layers of a fit whose biases count."""
    if not fit.model.uses_exposures:
        return LAYERS
    return ("price",) if fit.model.name == "linear_factor" else ("alpha",)


def _empty(opened: ExplainedPass, by_asset: bool) -> xr.Dataset:
    """Return the variables of every date, as they are where there is no value."""
    dims: dict[str, tuple[str, ...]] = {"relevance": (LAG, FEATURE), "bias": (LAYER,)}
    dims |= dict.fromkeys(("value", "bias_share", "conservation_error"), ())
    if by_asset:
        dims["by_asset"] = (ASSET, LAG, FEATURE)
    pure = dict.fromkeys(("bias_share", "conservation_error"), "1")
    return opened.empty_table(dims, pure, layer=layers_of(opened.fit))


def _write(found: xr.Dataset, place: int, own: DateRelevance, day: ExplainedDate) -> None:
    """Put one date's relevance into the variables; lags from the signal date back."""
    cells, unit = own.cells.numpy()[::-1], day.return_scale
    relevance = cells.sum(1)
    bias = np.array([own.bias[str(name)] for name in found[LAYER].values])
    gap = abs(relevance.sum() + bias.sum() - own.value)
    size, constant = np.abs(relevance).sum(), np.abs(bias).sum()
    share = constant / (size + constant) if size + constant > 0.0 else 0.0
    found["relevance"].values[place] = relevance * unit
    found["bias"].values[place] = bias * unit
    found["value"].values[place] = own.value * unit
    found["bias_share"].values[place] = share
    found["conservation_error"].values[place] = gap / (size + constant) if gap > 0.0 else 0.0
    if "by_asset" in found:
        found["by_asset"].values[place, day.kept] = cells.transpose(1, 0, 2) * unit
