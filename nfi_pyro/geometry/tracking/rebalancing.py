"""Rebalancing along the geodesic between exposures, with a no-trade band in its distance.

The geodesic is the path on which the law of returns changes least: nearby points of it are as hard
to tell apart as can be, all the way. It is a path of exposures; which weights have them is left to
the smallest trade of each step. It knows no cost, and its points carry no premium of their own.
"""

import warnings
from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr

from nfi_pyro.dims import ASSET, FACTOR, STEP
from nfi_pyro.errors import SpecError
from nfi_pyro.geometry.fisher.checked_law import OUTSIDE
from nfi_pyro.geometry.manifold import FisherManifold
from nfi_pyro.geometry.results.manifold import Geodesic
from nfi_pyro.geometry.results.rebalancing import BandDecision, Rebalancing, Trade
from nfi_pyro.geometry.tracking.trades import Exposure, TradeProblem, TradeRule, read_exposure
from nfi_pyro.posterior.covariance import LowRankCovariance
from nfi_pyro.posterior.exposure_pricing import PricingLaw
from nfi_pyro.posterior.portfolio_law import Weights

_FIGURES = {
    "travelled": "1",
    "turnover": "fraction of capital",
    "size": "of the rule's measure",
    "variance": "decimal return squared",
    "multiplier": "squared size per decimal return squared",
}


def no_trade_band(
    manifold: FisherManifold, current: Exposure, target: Exposure, band: float
) -> BandDecision:
    """Return whether the geodesic distance between two exposures is within a band.

    n returns tell exposures at a small distance d apart by about ``d sqrt(n)`` standard errors: a
    band of 0.2 is two of them after a hundred days.

    Parameters
    ----------
    manifold : FisherManifold
        Of the date's `PricingLaw`.
    current, target : array, shape (factor,)
    band : float
        Geodesic distance, >= 0.

    Returns
    -------
    BandDecision

    Raises
    ------
    ShapeError, SpecError
        If exposures or the band are not as they must be, or no geodesic is found.
    """
    if not 0.0 <= band < np.inf:
        raise SpecError(f"band must be >= 0 and finite; got {band} at no_trade_band. Pass 0.1.")
    factors = _law(manifold).factors
    start, end = (torch.from_numpy(read_exposure(one, factors)) for one in (current, target))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows are judged by their flags
        found = manifold.log(start, end, polish=False)
        if float(found.distance) > band:  # a velocity that arrives costs far more
            found = manifold.log(start, end)
    distance = float(found.distance)
    if not bool(found.converged):
        raise SpecError(
            "a geodesic must be found from current to target; got none that converged at "
            f"no_trade_band (distance about {distance:.3g}). Take a nearer target, or go by way "
            "of an exposure between."
        )
    inside = distance <= band
    edge = start
    if not inside:
        edge = _geodesic(manifold, start, found.velocity * (1.0 - band / distance), 2).path[-1]
    reach = np.inf if manifold.cloud is None else manifold.cloud.reach
    return BandDecision(
        distance=distance,
        line_distance=float(manifold.distance(start, end, "line")),
        band=float(band),
        inside=inside,
        edge=edge.numpy(),
        velocity=found.velocity.numpy(),
        mahalanobis=float(found.mahalanobis),
        extrapolated=float(found.mahalanobis) > OUTSIDE * reach,
    )


def rebalance(
    manifold: FisherManifold,
    covariance: LowRankCovariance,
    *,
    current: Weights,
    target: Exposure,
    rule: TradeRule | None = None,
    steps: int = 4,
    band: float = 0.0,
) -> Rebalancing:
    """Return the trades that lead a portfolio along the geodesic to target exposures.

    Each step goes an equal part of the distance, by the smallest trade from the weights before.
    Without a cap the last weights are those of the smallest trade in one step, whatever the path;
    with one, every step after 0 keeps it. The law, the covariance and the exposures of the assets
    are those of the date throughout: on a later date, plan again.

    Parameters
    ----------
    manifold : FisherManifold
        Of the date's `PricingLaw`.
    covariance, current, target, rule
        As in `smallest_trade`.
    steps : int
        >= 1.
    band : float
        Within this geodesic distance of the target nothing is traded; beyond it the way goes to
        the target. To stop at the edge, give ``no_trade_band(...).edge`` as the target.

    Returns
    -------
    Rebalancing

    Raises
    ------
    WeightsError, ShapeError, SpecError
        As in `smallest_trade` and `no_trade_band`; a cap that cannot be kept names its step.
    """
    if steps < 1:
        raise SpecError(f"steps must be >= 1; got {steps} at rebalance. Pass 4.")
    law = _law(manifold)
    problem = TradeProblem(law, covariance, rule or TradeRule())
    weights = problem.current(current)
    start, end = problem.exposure(weights), read_exposure(target, law.factors)
    decision = no_trade_band(manifold, start, end, band)
    trades = []
    if not decision.inside:
        begun, velocity = torch.from_numpy(start), torch.from_numpy(decision.velocity)
        path = _geodesic(manifold, begun, velocity, steps + 1).path.numpy().copy()
        path[-1] = end  # up to the error of the integration
        for place in range(1, steps + 1):
            trades.append(problem.trade(weights, path[place], f"step {place} of rebalance"))
            weights = trades[-1].weights.to_numpy()
    return _label(problem, problem.current(current), trades, decision)


def _law(manifold: FisherManifold) -> PricingLaw:
    """Return the manifold's law, which must name its assets."""
    if not isinstance(manifold.pricing, PricingLaw):
        raise SpecError(
            "manifold must be of a PricingLaw, which has assets; got "
            f"{type(manifold.pricing).__name__}. Make it of pricing_law(fit, panel, date)."
        )
    return manifold.pricing


def _geodesic(
    manifold: FisherManifold, start: torch.Tensor, velocity: torch.Tensor, points: int
) -> Geodesic:
    """Return points of a geodesic, or say that it was lost."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = manifold.geodesic(start, velocity, points=points)
    if not bool(found.ok):
        raise SpecError(
            f"a geodesic must keep its speed; got a drift of {float(found.drift):.1e} on the way "
            "to the target. Take a nearer target."
        )
    return found


def _label(
    problem: TradeProblem, current: np.ndarray, trades: list[Trade], decision: BandDecision
) -> Rebalancing:
    """Return the steps with their labels, the current portfolio first."""
    law, count = problem.law, len(trades)
    still = {"variance": problem.covariance.quadratic(current)}
    travelled = decision.distance * np.arange(count + 1) / max(count, 1)
    figures = {
        name: [still.get(name, 0.0), *(getattr(one, name) for one in trades)]
        for name in _FIGURES
        if name != "travelled"
    }
    step = np.arange(count + 1)
    assets, factors = {ASSET: law.assets}, {FACTOR: list(law.factors)}

    def stack(name: str, first: np.ndarray, labels: Mapping[str, object]) -> xr.DataArray:
        rows = np.stack([first, *(getattr(one, name).to_numpy() for one in trades)])
        return xr.DataArray(rows, {STEP: step, **labels}, (STEP, *labels), name)

    return Rebalancing(
        date=law.date,
        traded=count > 0,
        weights=stack("weights", current, assets),
        trade=stack("trade", np.zeros_like(current), assets),
        exposure=stack("exposure", problem.exposure(current), factors),
        steps=xr.Dataset(
            {
                name: (STEP, value, {"units": _FIGURES[name]})
                for name, value in ({"travelled": travelled} | figures).items()
            },
            {STEP: step},
        ),
        decision=decision,
    )
