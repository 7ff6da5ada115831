r"""Geometric Arbitrage Theory, as a plug-in: what of it can be computed from returns or a law.

The theory (Farinelli, arXiv:0910.1671) lives on another bundle than the Fisher manifold: over
portfolios and time, with the scale of values as fibre. Transport along portfolios exchanges
assets, transport along time discounts. Its curvature is an excess drift of the portfolio over an
asset; absence of arbitrage (NFLVR) makes it vanish, and the converse needs more. We know the
theory from its abstract and from quotations of its formulae.

Two plug-ins are offered, neither of which tests NFLVR: realised returns are one draw, and a law
of single returns has no joint covariance to price risk with. Non-zero values are ordinary: they
are risk, or a cross-sectional alpha. None is riskless.
"""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.distributions.law_jets import Pricing
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.distributions.normal import normal_cdf
from nfi_pyro.errors import PanelError, ShapeError, SpecError
from nfi_pyro.geometry.fisher.nodes import panel_nodes, panel_rule
from nfi_pyro.geometry.inputs import exposures
from nfi_pyro.geometry.results.loops import GaugeAlpha

MOST_RUIN = 1e-9  # probability of losing everything that a logarithm can be taken beside


def gat_holonomy(log_return: xr.DataArray, short_rate: xr.DataArray | float = 0.0) -> xr.DataArray:
    """Return realised holonomies of exchange and waiting, (date, asset, asset_other).

    GAT plug-in. Over one step: hold asset_other instead of asset and exchange back,
    ``[dlog D_other + r_other] - [dlog D + r]``. So it is a difference of log total returns,
    antisymmetric and additive over assets; known after the step, and random before. A flat gauge
    would have all of them 0, that is equal returns: no market without risk premia is like that.

    Parameters
    ----------
    log_return : DataArray, shape (date, asset)
        Log change of price over the step; NaN where there is none.
    short_rate : DataArray or float
        Log yield of each asset over the step (dividends, say), aligned with `log_return`.

    Returns
    -------
    DataArray
        Log return by step; NaN where one of the two returns is.

    Raises
    ------
    PanelError
        If dimensions are not date and asset, or labels of the two differ.
    """
    if set(log_return.dims) != {"date", "asset"}:
        raise PanelError(
            f"log_return must have the dimensions date and asset; got {tuple(log_return.dims)}. "
            "Rename them."
        )
    try:
        with xr.set_options(arithmetic_join="exact"):
            total = (log_return + short_rate).transpose("date", "asset", ...)
    except ValueError as error:
        raise PanelError(
            "short_rate must have the labels of log_return; got others. Reindex it first."
        ) from error
    if total.dims != ("date", "asset"):
        raise PanelError(
            f"short_rate must have no dimensions but date and asset; got {tuple(total.dims)}. "
            "Take one rate by asset and date."
        )
    found = total.rename(asset="asset_other") - total
    units = {"units": "log return", "long_name": "GAT plug-in: realised holonomy"}
    return (
        found.transpose("date", "asset", "asset_other").rename("gat_holonomy").assign_attrs(units)
    )


def gat_alpha(
    pricing: Pricing,
    beta: Tensor,
    weights: Tensor,
    *,
    risk_price: Tensor | None = None,
    returns: str = "simple",
) -> GaugeAlpha:
    r"""Return growth that a portfolio has over each asset, at equal risk: a cross-sectional alpha.

    GAT plug-in. ``K_j = l_x - l_j + lambda . (beta_j - beta_x)`` with l expected log growth, x the
    portfolio, lambda a price of exposure. It stands where the theory has its curvature, with
    expected growth for Nelson's mean derivative, which it is not. Weighted by the portfolio it
    adds up to 0.

    Parameters
    ----------
    pricing : callable
        Exposures (..., factor) to logits, loc and log scale of the return.
    beta : Tensor, shape (asset, factor)
    weights : Tensor, shape (asset,)
        Of the portfolio; they add up to 1.
    risk_price : Tensor, shape (factor,), optional
        lambda, log growth by unit of exposure. By default least squares of l on exposures and a
        constant over the assets.
    returns : {"simple", "log"}
        What the law is about. Of simple returns ``log(1 + r)`` is integrated by quadrature above
        -1, where nearly all of the law must lie.

    Raises
    ------
    ShapeError, SpecError
        If shapes do not fit, values are not finite, weights do not add up to 1, exposures fill
        too few directions, or a simple return below -1 is likelier than 1e-9.
    """
    points, share = _portfolio(beta, weights)
    with torch.no_grad():
        growth = _log_growth(pricing, points, returns)
    price = (
        _fitted(points, growth)
        if risk_price is None
        else exposures(risk_price, points.shape[-1], "risk_price")
    )
    if price.ndim != 1:
        raise ShapeError(
            f"risk_price must be (factor,); got shape {tuple(price.shape)}. One price for all."
        )
    alpha = share @ growth - growth + (points - share @ points) @ price
    return GaugeAlpha(alpha, growth, price)


def _portfolio(beta: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return exposures (asset, factor) and weights (asset,) after a look at them."""
    points = exposures(beta, None, "beta")
    share = torch.as_tensor(weights).detach().to(torch.float64)
    if points.ndim != 2 or share.shape != points.shape[:1]:
        raise ShapeError(
            f"beta and weights must be (asset, factor) and (asset,); got shapes "
            f"{tuple(points.shape)} and {tuple(share.shape)}. Take one date."
        )
    if not abs(float(share.sum()) - 1.0) <= 1e-6:
        raise SpecError(
            f"weights must add up to 1; got {float(share.sum()):.6g}. Divide them by their sum."
        )
    return points, share


def _log_growth(pricing: Pricing, points: Tensor, returns: str) -> Tensor:
    """Return expected log growth at rows (asset, factor), (asset,)."""
    if returns not in ("simple", "log"):
        raise SpecError(f"returns must be 'simple' or 'log'; got {returns!r}. See the law's unit.")
    logits, loc, log_scale = pricing(points)
    law = MixtureOfNormals(logits, loc, log_scale.exp(), validate_args=False)
    if returns == "log":
        return law.mean
    ruin = (law.log_weights.exp() * normal_cdf((-1.0 - law.loc) / law.scale)).sum(-1)
    if float(ruin.max()) > MOST_RUIN:
        worst = int(ruin.argmax())
        raise SpecError(
            f"a law of simple returns must lie above -1; got probability {float(ruin[worst]):.1e} "
            f"below at asset {worst}. Use returns='log' for a law of log returns."
        )
    nodes, weight = panel_nodes(law.loc, law.scale.log(), panel_rule("c15n10"))
    density = MixtureOfNormals(
        law.logits.unsqueeze(-2),
        law.loc.unsqueeze(-2),
        law.scale.unsqueeze(-2),
        validate_args=False,
    ).log_prob(nodes)
    inside = nodes > -1.0
    value = torch.where(inside, nodes, 0.0).log1p()
    return (weight * density.exp() * value).sum(-1)


def _fitted(points: Tensor, growth: Tensor) -> Tensor:
    """Return the slopes of growth on exposures, (factor,), by least squares with a constant."""
    n_assets, n_factors = points.shape
    gap = (points - points.mean(0)).numpy()
    slope, _, rank, _ = np.linalg.lstsq(gap, (growth - growth.mean()).numpy(), rcond=None)
    if rank < n_factors:
        raise SpecError(
            f"beta must fill all {n_factors} directions to price them; got {n_assets} assets of "
            f"rank {rank}. Drop collinear exposures, or give risk_price."
        )
    return torch.from_numpy(slope)
