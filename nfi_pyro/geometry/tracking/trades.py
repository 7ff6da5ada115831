r"""The smallest trade that reaches given exposures, in closed form but for one number.

For weights ``w = w_0 + d``, a trade measure M and a covariance ``Sigma``, both diagonal plus low
rank,

    min d' M d   subject to   A'd = c,   (w_0 + d)' Sigma (w_0 + d) <= v

with A the exposures and, if capital is kept, a column of ones. Along ``H = (1 - t) M + t Sigma``
the stationary point is ``d = H^-1 (A nu - t Sigma w_0)``: t = 0 is the smallest trade of all, t = 1
the least variance that the exposures allow, and the variance falls from one to the other. So either
t = 0 keeps the cap, or no trade does, or there is one t at which it binds. Weights may have any
sign: there are no bounds on single assets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import brentq
from torch import Tensor

from nfi_pyro.dims import ASSET, FACTOR
from nfi_pyro.errors import ShapeError, SpecError, WeightsError, name_places
from nfi_pyro.geometry.results.rebalancing import Trade
from nfi_pyro.posterior.covariance import LowRankCovariance
from nfi_pyro.posterior.exposure_pricing import PricingLaw
from nfi_pyro.posterior.portfolio_law import Weights, align_weights

Exposure = xr.DataArray | np.ndarray | Tensor
MEASURES = ("norm", "variance")
_REACHED = 1e-8
"""Largest miss of a target exposure, relative to the largest exposure that weights can have."""


@dataclass(frozen=True)
class TradeRule:
    """What makes a trade small, and what it must keep.

    Attributes
    ----------
    measure : {"norm", "variance"} or mapping of asset to cost
        ``norm``: sum of squared changes. ``variance``: variance of the change's return. Costs
        > 0, of every asset of the law: their sum times squared changes.
    max_variance : float, optional
        Cap of the portfolio's variance afterwards, decimal return squared over the label's
        horizon, > 0. None: no cap.
    keep_sum : bool
        Whether the sum of weights stays: buys are paid for by sales.
    """

    measure: str | Mapping[str, float] | pd.Series = "norm"
    max_variance: float | None = None
    keep_sum: bool = True


class Form(NamedTuple):
    """A positive definite matrix ``loadings loadings' + diag(diagonal)``."""

    diagonal: np.ndarray
    loadings: np.ndarray

    def times(self, vector: np.ndarray) -> np.ndarray:
        """Return the matrix times a vector (asset,)."""
        found: np.ndarray = self.diagonal * vector + self.loadings @ (self.loadings.T @ vector)
        return found

    def quadratic(self, vector: np.ndarray) -> float:
        """Return ``vector' matrix vector``."""
        return float(vector @ self.times(vector))

    def blend(self, other: "Form", share: float) -> "Form":
        """Return ``(1 - share)`` of this and `share` of the other."""
        parts = [np.sqrt(1.0 - share) * self.loadings, np.sqrt(share) * other.loadings]
        diagonal = (1.0 - share) * self.diagonal + share * other.diagonal
        return Form(diagonal, np.concatenate(parts, axis=1))

    def solve(self, columns: np.ndarray) -> np.ndarray:
        """Return the inverse times columns (asset, column), by Woodbury's identity."""
        scaled = self.loadings / self.diagonal[:, None]
        flat = columns / self.diagonal[:, None]
        inner = np.eye(self.loadings.shape[1]) + self.loadings.T @ scaled
        found: np.ndarray = flat - scaled @ cho_solve(cho_factor(inner), self.loadings.T @ flat)
        return found

    def scaled(self, unit: float) -> "Form":
        """Return the matrix by a number > 0."""
        return Form(self.diagonal / unit, self.loadings / np.sqrt(unit))


class TradeProblem:
    """The smallest trades of one date: its assets, exposures, measure and covariance."""

    def __init__(self, law: PricingLaw, covariance: LowRankCovariance, rule: TradeRule) -> None:
        self.law, self.rule = law, rule
        self.beta = law.beta.detach().numpy().astype(np.float64)
        self.covariance = _covariance(law, covariance)
        self.measure = _measure(law, self.covariance, rule)
        cap = rule.max_variance
        if cap is not None and not 0.0 < cap < np.inf:
            raise SpecError(
                f"max_variance must be > 0 and finite; got {cap}. It is a squared standard "
                "deviation of return over the label's horizon."
            )

    def current(self, weights: Weights) -> np.ndarray:
        """Return weights (asset,) in the law's order."""
        n_assets = len(self.law.assets)
        return align_weights(weights, self.law.assets, np.ones(n_assets, dtype=bool))

    def exposure(self, weights: np.ndarray) -> np.ndarray:
        """Return the exposures (factor,) of weights (asset,)."""
        found: np.ndarray = self.beta.T @ weights
        return found

    def trade(self, current: np.ndarray, target: np.ndarray, where: str) -> Trade:
        """Return the smallest trade from weights (asset,) to exposures (factor,)."""
        columns, gap = self.beta, target - self.exposure(current)
        if self.rule.keep_sum:
            columns = np.column_stack([columns, np.ones(len(current))])
            gap = np.append(gap, 0.0)
        share, change = self._change(current, columns, gap, where)
        weights = current + change
        self._require_reached(weights, target, current, where)
        assets = {ASSET: self.law.assets}
        units = self._units()
        return Trade(
            weights=xr.DataArray(weights, assets, (ASSET,), "weight"),
            trade=xr.DataArray(change, assets, (ASSET,), "trade"),
            exposure=xr.DataArray(
                self.exposure(weights), {FACTOR: list(self.law.factors)}, (FACTOR,), "exposure"
            ),
            turnover=0.5 * float(np.abs(change).sum()),
            size=float(np.sqrt(self.measure.quadratic(change))),
            variance=self.covariance.quadratic(weights),
            multiplier=share / (1.0 - share) * units[0] / units[1] if share < 1.0 else np.inf,
        )

    def _units(self) -> tuple[float, float]:
        """Return typical sizes of the measure and of the covariance."""
        return tuple(  # type: ignore[return-value]
            float((form.diagonal + np.square(form.loadings).sum(1)).mean())
            for form in (self.measure, self.covariance)
        )

    def _change(
        self, current: np.ndarray, columns: np.ndarray, gap: np.ndarray, where: str
    ) -> tuple[float, np.ndarray]:
        """Return the share t and the trade (asset,) that keeps the cap."""
        units = self._units()
        measure, covariance = self.measure.scaled(units[0]), self.covariance.scaled(units[1])
        pull = covariance.times(current)

        def at(share: float) -> np.ndarray:
            solved = measure.blend(covariance, share).solve(np.column_stack([columns, pull]))
            reach, drift = solved[:, :-1], -share * solved[:, -1]
            return drift + reach @ _least_norm(columns.T @ reach, gap - columns.T @ drift)

        cap = np.inf if self.rule.max_variance is None else self.rule.max_variance

        def excess(share: float) -> float:
            return self.covariance.quadratic(current + at(share)) / cap - 1.0

        if excess(0.0) <= 0.0:
            return 0.0, at(0.0)
        least = excess(1.0)
        if least > 1e-9:
            raise SpecError(
                f"max_variance must leave room for the target exposures; got {cap:.6g} at {where}, "
                f"below the least variance with these exposures, {cap * (1.0 + least):.6g}. Raise "
                "the cap or move the target."
            )
        share = 1.0 if least >= 0.0 else float(brentq(excess, 0.0, 1.0, xtol=1e-15, rtol=1e-14))
        return share, at(share)

    def _require_reached(
        self, weights: np.ndarray, target: np.ndarray, current: np.ndarray, where: str
    ) -> None:
        """Refuse exposures that no weights of these assets have."""
        size = np.abs(self.beta).max(initial=0.0) * max(1.0, np.abs(current).sum())
        miss = np.abs(self.exposure(weights) - target)
        total = abs((weights - current).sum()) if self.rule.keep_sum else 0.0
        wrong = miss > _REACHED * max(size, float(np.abs(target).max()))
        if wrong.any() or total > _REACHED * max(1.0, np.abs(weights).sum()):
            names = [self.law.factors[place] for place in np.flatnonzero(wrong)] or ["the sum"]
            raise SpecError(
                f"target exposures must be reachable with the {len(weights)} assets of the date"
                f"{' at the same sum of weights' if self.rule.keep_sum else ''}; got others for "
                f"{name_places(names)} at {where}. Drop collinear exposures or free the sum."
            )


def smallest_trade(
    law: PricingLaw,
    covariance: LowRankCovariance,
    *,
    current: Weights,
    target: Exposure,
    rule: TradeRule | None = None,
) -> Trade:
    """Return the smallest trade from a portfolio to target exposures, under a variance cap.

    Parameters
    ----------
    law : PricingLaw
        Of the date; its assets can be traded, its `beta` are the exposures.
    covariance : LowRankCovariance
        Of the same date, with every asset of the law: ``forecast.covariance(date)``.
    current : mapping, Series or DataArray of asset to fraction of capital
        An asset left out has weight 0.
    target : array, shape (factor,)
        Exposures ``B'w`` to reach, in the law's units and order; a DataArray is put in order.
    rule : TradeRule, optional
        Default: least norm, the sum of weights kept, no cap.

    Returns
    -------
    Trade

    Raises
    ------
    WeightsError
        If an asset is not the law's, or a weight or cost is not as it must be.
    ShapeError, SpecError
        If the target has other factors or is not finite, the covariance lacks an asset, no trade
        reaches the target, or none does under the cap: the message names which.
    """
    problem = TradeProblem(law, covariance, rule or TradeRule())
    goal = read_exposure(target, law.factors)
    return problem.trade(problem.current(current), goal, "smallest_trade")


def read_exposure(target: Exposure, factors: tuple[str, ...]) -> np.ndarray:
    """Return exposures (factor,) in the order of `factors`, float64, after a look at them.

    Raises
    ------
    ShapeError
        If the factors are others.
    SpecError
        If one is not finite.
    """
    if isinstance(target, xr.DataArray) and FACTOR in target.coords:
        names = [str(name) for name in target[FACTOR].to_numpy().ravel()]
        if sorted(names) != sorted(factors):
            raise ShapeError(
                f"target must have the law's factors; got {name_places(names)}, not "
                f"{name_places(factors)}. Use its names."
            )
        target = target.assign_coords({FACTOR: names}).sel({FACTOR: list(factors)})
    values = target.detach().numpy() if isinstance(target, Tensor) else np.asarray(target)
    if values.shape != (len(factors),):
        raise ShapeError(
            f"target must be exposures of shape ({len(factors)},); got {values.shape}. Use the "
            "law's factors."
        )
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise SpecError(
            f"target must be finite; got others for "
            f"{name_places(factors[place] for place in np.flatnonzero(wrong))}. Correct it."
        )
    return values.astype(np.float64)


def _least_norm(matrix: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Return the least-norm solution of a semi-definite system, in units of its diagonal."""
    unit = np.sqrt(np.diag(matrix).clip(min=0.0))
    unit[unit == 0.0] = 1.0
    values, axes = np.linalg.eigh(matrix / np.outer(unit, unit))
    kept = values > 1e-12 * values[-1]
    found: np.ndarray = axes[:, kept] @ ((axes[:, kept].T @ (gap / unit)) / values[kept]) / unit
    return found


def _covariance(law: PricingLaw, covariance: LowRankCovariance) -> Form:
    """Return the covariance of the law's assets, in their order."""
    names = pd.Index([str(name) for name in covariance.assets])
    place = names.get_indexer(pd.Index([str(name) for name in law.assets]))
    if (place < 0).any():
        raise SpecError(
            f"covariance must have every asset of the law; got none for "
            f"{name_places(law.assets[place < 0])}. Take it from the forecast of the same date."
        )
    form = Form(
        covariance.specific_variance[place].astype(np.float64),
        covariance.loadings[place].astype(np.float64),
    )
    wrong = ~(np.isfinite(form.loadings).all(1) & (form.diagonal > 0.0) & (form.diagonal < np.inf))
    if wrong.any():
        raise SpecError(
            "covariance must be finite, with specific variances > 0; got others for "
            f"{name_places(law.assets[wrong])}. Take it from a forecast."
        )
    return form


def _measure(law: PricingLaw, covariance: Form, rule: TradeRule) -> Form:
    """Return the matrix that measures trades."""
    none = np.zeros((len(law.assets), 0))
    if isinstance(rule.measure, str):
        if rule.measure not in MEASURES:
            raise SpecError(
                f"measure must be one of {name_places(MEASURES)} or costs by asset; got "
                f"{rule.measure!r}. The default is norm."
            )
        return covariance if rule.measure == "variance" else Form(np.ones(len(none)), none)
    costs = pd.Series(dict(rule.measure), dtype=np.float64)
    costs.index = costs.index.map(str)
    found = costs.reindex([str(name) for name in law.assets]).to_numpy()
    wrong = ~((found > 0.0) & (found < np.inf))
    if wrong.any():
        raise WeightsError(
            "costs must be > 0 and finite for every asset of the law; got others or none for "
            f"{name_places(law.assets[wrong])}. Give each one."
        )
    return Form(found, none)
