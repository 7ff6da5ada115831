"""Layer-wise relevance propagation: a book's expected return, split over features and lags."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from nfi_pyro.attribution.networks.book_moments import unit_of
from nfi_pyro.attribution.networks.explained import (
    ExplainedPass,
    check_fits,
    check_prior,
    join_chains,
    open_explained,
)
from nfi_pyro.attribution.networks.relevance_networks import LAYERS, DateRelevance, share_date
from nfi_pyro.attribution.networks.relevance_rules import RelevanceRule
from nfi_pyro.attribution.results.explanations import FeatureRelevance
from nfi_pyro.data.panel import Panel
from nfi_pyro.dims import ASSET, DATE, FEATURE, LAG
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.dated_weights import DatedWeights, Held
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
    panel : Panel
        With the fits' features and exposures; its `forward_return` is not read.
    weights : mapping, Series, DataArray (asset,) or (date, asset), str, or None
        The book in fractions of capital, or the name of one asset. Default: equal weights of the
        assets that have a law on the date.
    dates : pair of str, optional
        First and last date, inclusive, see `open_pass`. By default every date with a full window.
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
    found: list[dict[str, xr.DataArray]] = []
    for fit in check_fits(fits):
        opened = open_explained(fit, panel, dates)
        book = DatedWeights(weights, opened.dates, opened.assets)
        arrays, layers = _empty(opened, by_asset), layers_of(fit)
        arrays["bias"] = np.full((len(opened.dates), len(layers)), np.nan)
        for place, day in enumerate(opened.explained()):
            held = book.on(place, day.kept)
            if held is None:
                continue
            arrays["uncovered"][place] = held.uncovered
            share = torch.from_numpy(held.weights)
            own = share_date(rule, day, share, held=prior == "held")
            _write(arrays, place, own, day.kept, layers)
        found.append(_label(arrays, opened, layers))
    joined = {name: join_chains([one[name] for one in found], fits) for name in found[0]}
    return FeatureRelevance(
        **{"by_asset": None, **joined},  # type: ignore[arg-type]
        rule=rule.describe(),
        prior=prior,
    )


def layers_of(fit: SVIFit) -> tuple[str, ...]:
    """Return the layers of a fit whose biases count."""
    if not fit.model.uses_exposures:
        return LAYERS
    return ("price",) if fit.model.name == "linear_factor" else ("alpha",)


def _empty(opened: ExplainedPass, by_asset: bool) -> dict[str, np.ndarray]:
    """Return arrays for every date, as they are where there is no value."""
    n_dates, cells = len(opened.dates), (len(opened.lags), len(opened.features))
    arrays = {
        "relevance": np.full((n_dates, *cells), np.nan),
        **{name: np.full(n_dates, np.nan) for name in ("bias_share", "value")},
        "conservation_error": np.full(n_dates, np.nan),
        "uncovered": np.ones(n_dates),
    }
    if by_asset:
        arrays["by_asset"] = np.full((n_dates, len(opened.assets), *cells), np.nan)
    return arrays


def _write(
    arrays: dict[str, np.ndarray],
    place: int,
    own: DateRelevance,
    kept: np.ndarray,
    layers: tuple[str, ...],
) -> None:
    """Put one date's relevance into the arrays; lags from the signal date back."""
    cells = own.cells.numpy()[::-1]
    relevance, bias = cells.sum(1), np.array([own.bias[name] for name in layers])
    gap = abs(relevance.sum() + bias.sum() - own.value)
    size, constant = np.abs(relevance).sum(), np.abs(bias).sum()
    arrays["relevance"][place] = relevance
    arrays["bias"][place] = bias
    arrays["value"][place] = own.value
    arrays["bias_share"][place] = constant / (size + constant) if size + constant > 0.0 else 0.0
    arrays["conservation_error"][place] = gap / (size + constant) if gap > 0.0 else 0.0
    if "by_asset" in arrays:
        arrays["by_asset"][place, kept] = cells.transpose(1, 0, 2)


def _label(
    arrays: dict[str, np.ndarray], opened: ExplainedPass, layers: tuple[str, ...]
) -> dict[str, xr.DataArray]:
    """Return the arrays of one fit with names, units and decimal values, and the flag."""
    decimal = ("relevance", "by_asset", "bias", "value")
    names = {
        DATE: opened.dates,
        ASSET: opened.assets,
        LAG: opened.lags,
        FEATURE: list(opened.features),
        LAYER: list(layers),
    }
    dims = {
        "relevance": (DATE, LAG, FEATURE),
        "by_asset": (DATE, ASSET, LAG, FEATURE),
        "bias": (DATE, LAYER),
    }
    found = {}
    for name, values in arrays.items():
        own = dims.get(name, (DATE,))
        unit = unit_of(opened.fit) if name in decimal else "1"
        scaled = values * opened.fit.return_scale if name in decimal else values
        coords = {dim: names[dim] for dim in own}
        found[name] = xr.DataArray(scaled, coords, own, name, {"units": unit})
    found["uncovered"].attrs["units"] = "share of absolute weight"
    conserved = found["conservation_error"] < TOLERANCE
    found["conserved"] = conserved.rename("conserved").assign_attrs(units="1")
    return found
