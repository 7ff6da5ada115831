"""Integrated gradients: a book's expected return or risk, split over features and lags."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nfi_pyro.attribution.book_moments import check_target, explain_moment
from nfi_pyro.attribution.networks.explained import ExplainedDate, ExplainedPass, open_explained
from nfi_pyro.attribution.results.explanations import FeatureAttribution
from nfi_pyro.data.panel import Panel
from nfi_pyro.dims import ASSET, DATE, FEATURE, LAG
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.dated_weights import DatedWeights, Held
from nfi_pyro.posterior.fits import check_fits, join_chains
from nfi_pyro.svi.trained import SVIFit

_FEWEST_NODES = 8
_ROUNDING = 1e-9  # of the values: what is smaller than that is no attribution, and no gap
_ROWS = 2**15  # (node, row, lag) in memory at a time
_COPULA_COST = 97  # numbers per row that a copula's risk needs


class IntegrationPath(BaseModel):
    """The straight line along which gradients are integrated, and how exactly.

    Attributes
    ----------
    baseline : {"zero", "median"}
        Where it starts. ``zero``: every standardised feature of every asset at 0, its training
        median or mean under the usual transforms. ``median``: every asset at the date's median of
        each lag and feature, so that what is explained is what differs between assets.
    prior : {"moves", "held"}
        What the factors' prior of nfi and factor_vae does on the way, which is made from the
        features of all assets of the date. ``moves``: it follows, so features of assets outside
        the book count; attention weights stay those of the date, because attention has jumps that
        no gradient sees. Both ends are still the model's own forecasts: at the baseline all assets
        are the same, and weights do not matter. ``held``: it stays that of the date, so only what
        goes through each asset's own exposures and alpha is explained; the value at the baseline
        is then that of baseline assets under the date's prior. Without effect where exposures are
        given.
    tolerance : float
        Of the completeness error.
    most_nodes : int
        Gauss-Legendre nodes at most; they start at 8 and double until the tolerance is met.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: Literal["zero", "median"] = "zero"
    prior: Literal["moves", "held"] = "moves"
    tolerance: float = Field(default=0.01, gt=0.0)
    most_nodes: int = Field(default=256, ge=_FEWEST_NODES)


class _Integral(NamedTuple):
    """Integrated gradients of one date, in the label's unit."""

    cells: np.ndarray  # (lag, row, feature), oldest lag first
    value: float
    baseline_value: float
    error: float
    nodes: int


def integrated_gradients(
    fits: SVIFit | Sequence[SVIFit],
    panel: Panel,
    *,
    weights: Held = None,
    target: str = "mean",
    dates: DateRange | None = None,
    path: IntegrationPath | None = None,
    by_asset: bool = False,
) -> FeatureAttribution:
    r"""Return what each feature at each lag adds to a book's value over a baseline, by date.

    ``IG_c = (x_c - x0_c) int_0^1 df/dx_c (x0 + a (x - x0)) da`` for every cell c = (asset, lag,
    feature) of the date, summed over assets; by the fundamental theorem the cells add up to
    ``f(x) - f(x0)`` (Sundararajan et al. 2017). The integral is by Gauss-Legendre quadrature with
    doubling; kinks of LeakyReLU and of attention keep it from being exact, so the gap is reported
    by date and flagged where it is not below the tolerance.

    The inputs x are standardised features at all lags; of a model of given exposures they are
    those exposures as its pricing function takes them (standardised over the assets where the
    spec says so), at lag 0. A copula's columns are standardised with the moments of the date held.

    Parameters
    ----------
    fits : SVIFit or sequence of SVIFit
        Of any pricing model; several are restarts of one model.
    panel, weights, target, dates
        As in `factor_gradcam`.
    path : IntegrationPath, optional
    by_asset : bool
        Whether to keep the assets apart too: as many numbers as the panel has for those dates.

    Returns
    -------
    FeatureAttribution

    Raises
    ------
    SpecError
        If the model is unknown, an option is out of range, the fits are of several models, or the
        joint law gives no risk.
    WeightsError, ShapeError
        See `DatedWeights`.
    SplitError, PanelError
        If no date has a full window, or the panel is not the fits' kind.

    References
    ----------
    .. [1] Sundararajan, Taly, Yan (2017). Axiomatic attribution for deep networks. ICML.
    """
    path = IntegrationPath() if path is None else path
    found = []
    for fit in check_fits(fits):
        check_target(target, fit)
        opened = open_explained(fit, panel, dates)
        book = DatedWeights(weights, opened.dates, opened.assets)
        own = _empty(opened, by_asset)
        for place, day, share in opened.walk(book, own):
            _write(own, place, _integrate(day, share, target, path), day.kept)
        complete = (own["completeness_error"] < path.tolerance).assign_attrs(units="1")
        found.append(own.assign(complete=complete))
    joined = join_chains(found, fits)
    return FeatureAttribution(
        **{"by_asset": None, **joined.data_vars},  # type: ignore[arg-type]
        target=target,
        baseline=path.baseline,
        prior=path.prior,
        tolerance=path.tolerance,
    )


def _integrate(
    day: ExplainedDate, weights: Tensor, target: str, path: IntegrationPath
) -> _Integral:
    """Return the integrated gradients of one date."""
    start = _baseline(day.inputs, path.baseline)
    step = day.inputs - start

    def moment(points: Tensor) -> Tensor:
        law = day.law(points, held=path.prior == "held")
        loadings = None
        if day.columns is not None:
            loadings = day.columns.loadings(day.columns.columns(points[:, -1]))
        return explain_moment(law, weights, target, loadings)

    cost = _COPULA_COST if day.columns is not None and target != "mean" else len(step)
    most = max(1, _ROWS // (cost * max(1, step.shape[1])))
    with torch.no_grad():
        ends = torch.cat([moment(point[None]) for point in (start, day.inputs)])
    nodes = _FEWEST_NODES
    while True:
        cells = step * _mean_gradient(moment, start, step, nodes, most)
        gap = float((cells.sum() - (ends[1] - ends[0])).abs())
        size = max(float(cells.sum(1).abs().sum()), _ROUNDING * float(ends.abs().sum()))
        error = gap / size if gap > 0.0 else 0.0
        if error < path.tolerance or 2 * nodes > path.most_nodes:
            break
        nodes *= 2
    unit = day.return_scale
    before, after = (float(end) * unit for end in ends)
    return _Integral((cells * unit).numpy(), after, before, error, nodes)


def _mean_gradient(
    moment: Callable[[Tensor], Tensor], start: Tensor, step: Tensor, n_nodes: int, most: int
) -> Tensor:
    """Return the mean gradient along the path, (lag, row, feature), `most` nodes at a time."""
    places, shares = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(n_nodes))
    total = torch.zeros_like(step)
    for place, share in zip(places.split(most), shares.split(most), strict=True):
        node = 0.5 * (place + 1.0)
        points = (start + node[:, None, None, None] * step).requires_grad_()
        value = 0.5 * (moment(points) @ share)
        if value.requires_grad:
            total += torch.autograd.grad(value, points, materialize_grads=True)[0].sum(0)
    return total


def _baseline(inputs: Tensor, kind: str) -> Tensor:
    """Return where the path starts, (lag, row, feature)."""
    if kind == "zero":
        return torch.zeros_like(inputs)
    return inputs.quantile(0.5, dim=1, keepdim=True).expand_as(inputs)


def _empty(opened: ExplainedPass, by_asset: bool) -> xr.Dataset:
    """Return the variables of every date, as they are where there is no value."""
    dims: dict[str, tuple[str, ...]] = {"attribution": (LAG, FEATURE)}
    dims |= dict.fromkeys(("value", "baseline_value", "completeness_error"), ())
    if by_asset:
        dims["by_asset"] = (ASSET, LAG, FEATURE)
    found = opened.empty_table(dims, {"completeness_error": "1"})
    return found.assign(nodes=(DATE, np.zeros(len(opened.dates), dtype=int), {"units": "1"}))


def _write(found: xr.Dataset, place: int, own: _Integral, kept: np.ndarray) -> None:
    """Put one date's integrals into the variables; lags from the signal date back."""
    cells = own.cells[::-1]
    found["attribution"].values[place] = cells.sum(1)
    if "by_asset" in found:
        found["by_asset"].values[place, kept] = cells.transpose(1, 0, 2)
    found["value"].values[place] = own.value
    found["baseline_value"].values[place] = own.baseline_value
    found["completeness_error"].values[place] = own.error
    found["nodes"].values[place] = own.nodes
