r"""Slopes of value at risk and expected shortfall from joint draws.

With the loss ``L = -r_p`` and its quantile q at the level, the slopes by weight are (Tasche, 1999)

    d VaR / d w_i = -E[r_i | L = q]        d ES / d w_i = -E[r_i | L >= q]

and likewise by exposure with the factor in place of the asset. Both are means over draws, so that
they add up to the measure of those draws.
"""

import math
from typing import NamedTuple

import numpy as np

from nfi_pyro.attribution.risk.risk_slopes import (
    EXPECTED_SHORTFALL,
    VALUE_AT_RISK,
    RiskSlopes,
    expected_returns,
    normal_tail_slopes,
)
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.portfolio_law import PortfolioLaw, check_level, sampled_tail
from nfi_pyro.svi.config import check_seed

MIN_BEYOND = 20  # draws on the smaller side of the level


class TailWindow(NamedTuple):
    """Order statistics around the quantile that the slopes of value at risk are taken from.

    Attributes
    ----------
    low, high : float
        Levels between which they lie.
    n_near, n_beyond : int
        Draws inside, and draws beyond the quantile.
    """

    low: float
    high: float
    n_near: int
    n_beyond: int


def tail_slopes(
    law: PortfolioLaw, level: float, *, draws: int, seed: int
) -> tuple[dict[str, RiskSlopes], TailWindow | None]:
    """Return value at risk and expected shortfall with their slopes, and the window of the draws.

    In closed form, without a window, for a normal law; else by `sampled_tail_slopes`.

    Raises
    ------
    SpecError
        If the level, `draws` or `seed` is out of range.
    """
    if law.is_gaussian:
        return normal_tail_slopes(law, level), None
    return sampled_tail_slopes(law, level, draws=draws, seed=seed)


def sampled_tail_slopes(
    law: PortfolioLaw, level: float, *, draws: int, seed: int
) -> tuple[dict[str, RiskSlopes], TailWindow]:
    """Return value at risk and expected shortfall with their slopes, from joint draws.

    The measures are those of `PortfolioLaw.tail_risks` at these draws and this seed. Slopes of
    expected shortfall are means over the draws beyond the quantile. Those of value at risk are
    the lines through a window of order statistics around it, by least squares, at the quantile:
    a single draw says nothing of one asset. The window reaches ``m min(1/2, m^(-1/5))`` ranks to
    each side, with m the draws beyond the level (below it, where that is less): the rate at which
    bias and error shrink alike. A line has no bias where ``E[r_i | L]`` is one, as for a normal
    law; otherwise half its curvature times the variance of L in the window.

    The draws are made twice from one state of the generator, first of the portfolio, then of what
    it is made of, a block at a time: no array has a number for each draw and asset.

    Errors are those of a mean beyond an estimated threshold (Manistre and Hancock, 2005), of each
    part with its own value at the threshold; and of a line, with the error of the quantile that
    it is read at.

    Parameters
    ----------
    law : PortfolioLaw
    level : float
        In (0, 1).
    draws : int
        At least 20 on each side of the level.
    seed : int

    Raises
    ------
    SpecError
        If an option is out of range.
    """
    check_level(level)
    check_seed(seed)
    side = draws * min(level, 1.0 - level)
    if side < MIN_BEYOND:
        needed = math.ceil(MIN_BEYOND / min(level, 1.0 - level))
        raise SpecError(
            f"draws must leave at least {MIN_BEYOND} on each side of the level; got {draws} at "
            f"level {level}. Use {needed} or more."
        )
    total = law.draw(draws, np.random.default_rng(seed))
    losses = np.sort(-total)
    (at_risk, at_risk_error), (shortfall, shortfall_error) = sampled_tail(losses, level)
    reach = math.floor(side * min(0.5, side**-0.2))
    middle = (draws - 1) * level
    low, high = max(math.floor(middle) - reach, 0), min(math.ceil(middle) + reach, draws - 1)
    beyond = -total >= at_risk
    near = (-total >= losses[low]) & (-total <= losses[high])
    sums = _Sums(law, -total, beyond, near)
    generator = np.random.default_rng(seed)
    for places, rows, values in law.sampler.explain(law.weights, total, beyond | near, generator):
        sums.add(places, rows, values)
    line, line_error = sums.line_at(at_risk, at_risk_error)
    mean, mean_error = sums.mean_beyond(line, level)
    window = TailWindow(low / (draws - 1), high / (draws - 1), int(near.sum()), int(beyond.sum()))
    return {
        VALUE_AT_RISK: sums.slopes(at_risk, at_risk_error, line, line_error),
        EXPECTED_SHORTFALL: sums.slopes(shortfall, shortfall_error, mean, mean_error),
    }, window


class _Sums:
    """Sums over draws of what each asset, each factor and the book's own part lose, over its mean.

    Parameters
    ----------
    law : PortfolioLaw
    losses : ndarray, shape (draw,)
    beyond, near : ndarray of bool, shape (draw,)
        Draws beyond the quantile, and in its window.
    """

    def __init__(
        self, law: PortfolioLaw, losses: np.ndarray, beyond: np.ndarray, near: np.ndarray
    ) -> None:
        self.exposure, self.n_assets = law.exposure, len(law.assets)
        self.centre = np.concatenate([expected_returns(law), law.factor_loc])
        self.excess = losses + law.mean
        self.n_beyond, self.n_near, self.n_draws = beyond.sum(), near.sum(), len(losses)
        self.middle = losses[near].mean()
        apart = np.where(near, losses - self.middle, 0.0)
        self.spread = float(apart @ apart)
        self.columns = np.stack([beyond, near, apart], axis=1).astype(np.float64)
        shape = (len(self.centre) + 1, 3)  # the last row is the book's own part
        self.first, self.second = np.zeros(shape), np.zeros(shape)

    def add(self, places: np.ndarray, draws: np.ndarray, values: np.ndarray) -> None:
        """Add what some draws say of some places."""
        lost = self.centre[places, None] - values
        shared = lost[places >= self.n_assets]
        if len(shared):
            own = self.excess[draws] - self.exposure @ shared
            places, lost = np.append(places, len(self.centre)), np.vstack([lost, own])
        columns = self.columns[draws]
        self.first[places] += lost @ columns
        self.second[places] += np.square(lost) @ columns

    def line_at(self, quantile: float, error: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the lines through the window at the quantile, (place,), and standard errors."""
        mean, slope = self.first[:, 1] / self.n_near, self.first[:, 2] / self.spread
        left = self.second[:, 1] - self.n_near * np.square(mean) - np.square(slope) * self.spread
        noise = np.maximum(left, 0.0) / (self.n_near - 2)  # below 0: rounding
        step = quantile - self.middle
        variance = noise * (1.0 / self.n_near + step**2 / self.spread) + np.square(slope * error)
        return mean + slope * step, np.sqrt(variance)

    def mean_beyond(self, line: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return means beyond the quantile, (place,), and their standard errors."""
        mean = self.first[:, 0] / self.n_beyond
        left = self.second[:, 0] - self.n_beyond * np.square(mean)
        variance = np.maximum(left, 0.0) / (self.n_beyond - 1) + level * np.square(mean - line)
        return mean, np.sqrt(variance / (self.n_draws * (1.0 - level)))

    def slopes(
        self, value: float, value_error: float, slope: np.ndarray, error: np.ndarray
    ) -> RiskSlopes:
        """Return the parts of stacked slopes."""
        assets, factors = slice(self.n_assets), slice(self.n_assets, -1)
        return RiskSlopes(
            value,
            value_error,
            slope[assets],
            error[assets],
            slope[factors],
            error[factors],
            float(error[-1]),
        )
