"""Results of rebalancing: what to trade, which exposures it passes, and whether to trade at all."""

from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class Trade:
    """The smallest trade that reaches given exposures.

    Attributes
    ----------
    weights, trade : DataArray, shape (asset,)
        Afterwards, and the change; fractions of capital, of any sign.
    exposure : DataArray, shape (factor,)
        Of `weights`.
    turnover : float
        Half the sum of absolute changes, fraction of capital.
    size : float
        Length of the trade in the rule's measure: the root of what was minimised.
    variance : float
        Of the portfolio's return afterwards, decimal return squared.
    multiplier : float
        By how much the squared size falls per unit of variance that the cap is raised; 0 where
        the cap does not bind or there is none, infinite where only the least variance keeps it.
    """

    weights: xr.DataArray
    trade: xr.DataArray
    exposure: xr.DataArray
    turnover: float
    size: float
    variance: float
    multiplier: float


@dataclass(frozen=True)
class BandDecision:
    """Whether a portfolio is far enough from its target to trade.

    Attributes
    ----------
    distance : float
        Geodesic distance from current to target exposure, dimensionless.
    line_distance : float
        Length of the straight line of exposures, not shorter.
    band : float
    inside : bool
        Whether the distance is at most the band: no trade.
    edge : ndarray, shape (factor,)
        Exposure on the geodesic at the band's edge, `band` from the target; the current one
        inside the band. Where costs are in proportion to trades it is the better target.
    velocity : ndarray, shape (factor,)
        Of the geodesic at the current exposure, for unit time.
    mahalanobis : float
        Largest distance of the geodesic from the cloud of exposures, in standard deviations; NaN
        for a manifold without a cloud.
    extrapolated : bool
        Whether that is over twice the cloud's reach.
    """

    distance: float
    line_distance: float
    band: float
    inside: bool
    edge: np.ndarray
    velocity: np.ndarray
    mahalanobis: float
    extrapolated: bool


@dataclass(frozen=True)
class Rebalancing:
    """A portfolio led from its exposure to a target along the geodesic, in equal steps.

    Attributes
    ----------
    date : numpy.datetime64
        Close at which the law is known.
    traded : bool
        False inside the no-trade band: there is one step, 0, which is the current portfolio.
    weights, trade : DataArray, shape (step, asset)
        After each step, and its change; step 0 is the current portfolio. Fractions of capital.
    exposure : DataArray, shape (step, factor)
    steps : Dataset over (step,)
        `travelled`: geodesic distance from the current exposure; `turnover`: half the sum of
        absolute changes; `size` in the rule's measure; `variance`, decimal return squared;
        `multiplier` of the variance cap, see `Trade`.
    decision : BandDecision
    """

    date: np.datetime64
    traded: bool
    weights: xr.DataArray
    trade: xr.DataArray
    exposure: xr.DataArray
    steps: xr.Dataset
    decision: BandDecision
