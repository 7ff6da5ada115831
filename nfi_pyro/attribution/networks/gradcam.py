"""Grad-CAM on factor tokens and on lags: heat maps of a book's expected return and risk."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from nfi_pyro.attribution.book_moments import check_target, explain_moment
from nfi_pyro.attribution.networks.explained import ExplainedDate, ExplainedPass, open_explained
from nfi_pyro.attribution.results.explanations import FactorHeatMap, LagHeatMap
from nfi_pyro.data.panel import Panel
from nfi_pyro.dims import FACTOR, LAG
from nfi_pyro.errors import SpecError
from nfi_pyro.nets.pricing import FactorLayer
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.dated_weights import DatedWeights, Held
from nfi_pyro.posterior.fits import check_fits, join_chains
from nfi_pyro.posterior.intervals import factors_comparable
from nfi_pyro.svi.protocol import ExposurePricing
from nfi_pyro.svi.trained import SVIFit

PARTS = ("alpha", "noise", "linear")


def factor_gradcam(
    fits: SVIFit | Sequence[SVIFit],
    panel: Panel,
    *,
    weights: Held = None,
    target: str = "mean",
    dates: DateRange | None = None,
    relu: bool = True,
) -> FactorHeatMap:
    r"""Return which factors drive a book's expected return or risk, by date.

    Grad-CAM needs a layer with a factor axis. Here it is the tokens ``A_ijh = W_jh beta_ij`` of
    asset i, factor j and hidden unit h, whose sums over factors the pricing network's first layers
    take. With ``alpha_ih = mean_j dy/dA_ijh`` the map is ``heat_j = sum_i sum_h alpha_ih A_ijh``,
    set to 0 where negative with `relu`. The weights of the book are in y, so assets add up.

    All tokens of a model count; those that do not move y get nothing. The mean moves with those of
    alpha's trunk and with ``m_j beta_ij``, the tokens of what is linear in exposure (the factors'
    mean m, or alpha's slope). The standard deviation moves with those of the noise's trunk
    (weights, offsets, scales: alpha does not move a variance) and with the loadings ``s_k beta_ik``
    on the shared factors of the joint law, which give ``(w'beta_k)^2 s_k^2 / sd``, the Euler
    contribution of factor k. Under a copula the columns of its loadings, exposures standardised
    over the date's assets, take the place of the shared factors.

    A first layer that sums its tokens has the same gradient at each of them, so the average over
    factors changes nothing, and without `relu` the map is exactly gradient times exposure,
    ``sum_i beta_ij dy/dbeta_ij``, for the shipped networks as for any plain perceptron. It would
    differ for a network that treats tokens apart before it adds them. The date's factors (m, s)
    are held, as in `PricingLaw`. A constant, such as the market of `linear_factor`, is in no cell,
    and the map does not add up to y: see `layer_relevance` or `integrated_gradients` for that.

    Parameters
    ----------
    fits : SVIFit or sequence of SVIFit
        Of nfi, mixture_pricing, neural_factor or linear_factor; several are restarts of one model.
    panel : Panel
        With the fits' features and exposures; its `forward_return` is not read.
    weights : mapping, Series, DataArray (asset,) or (date, asset), str, or None
        The book in fractions of capital, or the name of one asset. Default: equal weights of the
        assets that have a law on the date.
    target : {"mean", "standard_deviation"}
    dates : pair of str, optional
        First and last date, inclusive, see `open_pass`. By default every date with a full window.
    relu : bool
        Whether to keep what raises y alone, as Grad-CAM does.

    Returns
    -------
    FactorHeatMap

    Raises
    ------
    SpecError
        If the model has no factor axis (factor_vae), an option is unknown, the fits are of several
        models, or the joint law gives no risk.
    WeightsError, ShapeError
        See `DatedWeights`.
    SplitError, PanelError
        If no date has a full window, or the panel is not the fits' kind.

    Notes
    -----
    Deck A, lines 309-319, which say that no derivative is needed: the weights alpha are gradients.
    """
    chains = check_fits(fits)
    found = []
    for fit in chains:
        require_factor_axis(fit)
        check_target(target, fit)
        opened = open_explained(fit, panel, dates)
        book = DatedWeights(weights, opened.dates, opened.assets)
        own = factor_heat(opened, book, target)
        heat = own["parts"].sum("part", skipna=False, keep_attrs=True)
        found.append(own.assign(heat=_rectify(heat, relu)))
    joined = join_chains(found, fits)
    return FactorHeatMap(
        heat=joined["heat"],
        parts=joined["parts"],
        value=joined["value"],
        uncovered=joined["uncovered"],
        target=target,
        rectified=relu,
        comparable=factors_comparable(chains),
    )


def lag_gradcam(
    fits: SVIFit | Sequence[SVIFit],
    panel: Panel,
    *,
    weights: Held = None,
    target: str = "mean",
    dates: DateRange | None = None,
    relu: bool = True,
) -> LagHeatMap:
    r"""Return which dates of the window drive a book's expected return or risk, by date.

    The layer with a time axis is the recurrent network's input, the projected features ``A_ith`` of
    asset i, lag t and unit h: ``alpha_ih = mean_t dy/dA_ith`` and ``heat_t = sum_i sum_h alpha_ih
    A_ith``, set to 0 where negative with `relu`. Gradients differ from lag to lag, so here the
    average matters: a lag is hot where its projection points the way that helps on average over
    the window. The factors' prior follows from the features of all assets, its attention weights
    held, see `IntegrationPath`.

    Parameters
    ----------
    fits : SVIFit or sequence of SVIFit
        Of nfi or factor_vae.
    panel, weights, target, dates, relu
        As in `factor_gradcam`.

    Returns
    -------
    LagHeatMap

    Raises
    ------
    SpecError
        If the model takes given exposures, which have no lags; else as in `factor_gradcam`.
    WeightsError, ShapeError, SplitError, PanelError
        As in `factor_gradcam`.
    """
    found = []
    for fit in check_fits(fits):
        if fit.model.uses_exposures:
            raise SpecError(
                f"a heat map of lags must be of a model that reads windows; got {fit.model.name}, "
                "which takes exposures of the signal date alone. Use nfi or factor_vae."
            )
        check_target(target, fit)
        opened = open_explained(fit, panel, dates)
        book = DatedWeights(weights, opened.dates, opened.assets)
        own = opened.empty_table({"heat": (LAG,), "value": ()})
        for place, day, share in opened.walk(book, own):
            own["heat"].values[place], own["value"].values[place] = _lag_heat(day, share, target)
        found.append(own.assign(heat=_rectify(own["heat"], relu)))
    joined = join_chains(found, fits)
    return LagHeatMap(joined["heat"], joined["value"], joined["uncovered"], target, relu)


def factor_heat(
    opened: ExplainedPass, book: DatedWeights, target: str, model: Any | None = None
) -> xr.Dataset:
    """Return the unrectified maps of every date, by the fit's networks or others of their kind.

    `parts` (date, part, factor), `value` (date,) and `uncovered` (date,), as in `FactorHeatMap`.
    """
    found = opened.empty_table({"parts": ("part", FACTOR), "value": ()}, part=PARTS)
    for place, day, share in opened.walk(book, found, model):
        found["parts"].values[place], found["value"].values[place] = _factor_heat(
            day, share, target
        )
    return found


def _factor_heat(day: ExplainedDate, weights: Tensor, target: str) -> tuple[np.ndarray, float]:
    """Return the map of one date by part, (part, factor), and y, in the label's unit."""
    beta = day.beta.clone().requires_grad_()
    with _tokens(day.model) as tokens:
        law = day.priced(beta[None])
    leaves, loadings = [beta], None
    if day.columns is not None:
        columns = day.columns.columns(day.beta).requires_grad_()
        leaves.append(columns)
        loadings = day.columns.loadings(columns)[None]
    y = explain_moment(law, weights, target, loadings).squeeze(0)
    names = list(tokens)
    every = [*leaves, *tokens.values()]
    slopes = _gradients(y, every)
    parts = dict.fromkeys(PARTS, torch.zeros(beta.shape[-1], dtype=beta.dtype))
    for leaf, slope in zip(leaves, slopes, strict=False):
        parts["linear"] = parts["linear"] + (slope * leaf.detach()).sum(0)
    for name, token, slope in zip(names, every[len(leaves) :], slopes[len(leaves) :], strict=True):
        mean_slope = slope.mean(-2, keepdim=True)  # over factors: (1, row, 1, hidden)
        parts[name] = parts[name] + (mean_slope * token.detach()).sum((0, 1, 3))
    rows = torch.stack([parts[name] for name in PARTS])[:, day.factor_order]
    return (rows * day.return_scale).numpy(), float(y.detach()) * day.return_scale


def _lag_heat(day: ExplainedDate, weights: Tensor, target: str) -> tuple[np.ndarray, float]:
    """Return the map of one date over lags, from 0 back, and y, in the label's unit."""
    extractor = day.model.extractor
    with torch.no_grad():
        projected = nn.functional.leaky_relu(
            extractor.projection(day.inputs), extractor.negative_slope
        )
    projected.requires_grad_()  # (lag, row, projection)
    hidden = projected.new_zeros(projected.shape[1], extractor.gru.hidden_size)
    for step in projected:
        hidden = extractor.gru(step, hidden)
    y = explain_moment(day.law_of_hidden(hidden[None]), weights, target).squeeze(0)
    slope = _gradients(y, [projected])[0]
    heat = (slope.mean(0) * projected.detach()).sum((1, 2)).flip(0)
    return (heat * day.return_scale).numpy(), float(y.detach()) * day.return_scale


@contextmanager
def _tokens(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Let every factor layer sum tokens that are leaves of the graph; they are given by part."""
    kept: dict[str, Tensor] = {}

    def split(part: str) -> Any:
        def replace(layer: FactorLayer, inputs: tuple[Tensor], _: Tensor) -> Tensor:
            kept[part] = layer.tokens(inputs[0].detach()).requires_grad_()
            return kept[part].sum(-2) + layer.bias

        return replace

    handles = [
        layer.register_forward_hook(split("alpha" if "alpha" in name.split(".") else "noise"))
        for name, layer in model.named_modules()
        if isinstance(layer, FactorLayer)
    ]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _gradients(y: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of y in each leaf, 0 where y does not depend on it."""
    if not y.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    found = torch.autograd.grad(y, list(leaves), allow_unused=True)
    return [
        torch.zeros_like(leaf) if slope is None else slope
        for leaf, slope in zip(leaves, found, strict=True)
    ]


def _rectify(heat: xr.DataArray, relu: bool) -> xr.DataArray:
    """Return the map without what is below 0, where asked for; NaN stays."""
    return heat.clip(min=0.0, keep_attrs=True) if relu else heat


def require_factor_axis(fit: SVIFit) -> None:
    """Refuse a model without a layer that has a factor axis."""
    if not isinstance(fit.model, ExposurePricing):
        raise SpecError(
            f"a heat map of factors must have a layer with a factor axis; got {fit.model.name}, "
            "which prices hidden features. Use nfi, mixture_pricing, neural_factor or "
            "linear_factor, or lag_gradcam."
        )
