"""Joint draws of one date's returns: through shared factors, or through a Gaussian copula."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from scipy.special import ndtr

from nfi_pyro.distributions.quantiles import solve_quantile

_REACH = 6.0  # standard normal scores that the quantile table spans
_POINTS = 769  # of the table, evenly spaced
_ROWS = 512  # draws in hand at a time where each needs a number per asset
_BLOCK = 16  # assets in hand at a time: their arrays stay in a core's cache
_DRAWS = 100_000  # draws in hand at a time where each needs a number per shared normal


class DrawnParts(NamedTuple):
    """What some draws of a portfolio say of some assets and factors.

    Attributes
    ----------
    places : ndarray of int, shape (place,)
        Assets by position, then factors, counted on.
    draws : ndarray of int, shape (draw,)
    values : ndarray, shape (place, draw)
        Decimal return of an asset, or a factor.
    """

    places: np.ndarray
    draws: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class FactorDraws:
    """Returns whose assets share normal factors, and are mixtures of normals given those.

    Attributes
    ----------
    beta : ndarray, shape (asset, factor)
    factor_loc, factor_scale : ndarray, shape (factor,)
    weight, specific_loc, specific_scale : ndarray, shape (asset, component)
        Mixture of each asset's own part.
    """

    beta: np.ndarray
    factor_loc: np.ndarray
    factor_scale: np.ndarray
    weight: np.ndarray
    specific_loc: np.ndarray
    specific_scale: np.ndarray

    @classmethod
    def from_day(cls, day: xr.Dataset) -> "FactorDraws":
        """Return the sampler of one date of a forecast whose dependence is ``factor``."""
        kept = day["entered"].values
        names = ("weight", "loc", "scale", "beta")
        weight, loc, scale, beta = (day[name].values[kept].astype(np.float64) for name in names)
        factor_loc = day["factor_loc"].values.astype(np.float64)
        factor_scale = day["factor_scale"].values.astype(np.float64)
        if weight.shape[1] == 1:
            variance = day["specific_variance"].values[kept, None].astype(np.float64)
        else:  # the marginal components hold the factors; what is left is the asset's own part
            shared = np.square(beta) @ np.square(factor_scale)
            variance = np.square(scale) - shared[:, None]
        specific_loc = loc - (beta @ factor_loc)[:, None]
        specific_scale = np.sqrt(np.maximum(variance, 0.0))
        return cls(beta, factor_loc, factor_scale, weight, specific_loc, specific_scale)

    @property
    def specific_mean(self) -> np.ndarray:
        """Mean of each asset's own part, shape (asset,)."""
        return (self.weight * self.specific_loc).sum(1)

    @property
    def specific_variances(self) -> np.ndarray:
        """Variance of each asset's own part, shape (asset,)."""
        gap = self.specific_loc - self.specific_mean[:, None]
        return (self.weight * (np.square(self.specific_scale) + np.square(gap))).sum(1)

    def draw(self, draws: int, generator: np.random.Generator) -> np.ndarray:
        """Return joint draws, shape (draw, asset)."""
        n_assets, n_factors = self.beta.shape
        z = self.factor_loc + self.factor_scale * generator.standard_normal((draws, n_factors))
        cumulative = np.cumsum(self.weight, axis=1)
        uniform = generator.random((draws, n_assets, 1))
        which = np.minimum((uniform > cumulative).sum(-1), self.weight.shape[1] - 1)
        asset = np.arange(n_assets)
        noise = generator.standard_normal((draws, n_assets))
        own = self.specific_loc[asset, which] + self.specific_scale[asset, which] * noise
        return z @ self.beta.T + own

    def draw_portfolio(
        self, weights: np.ndarray, draws: int, generator: np.random.Generator
    ) -> np.ndarray:
        """Return draws of ``sum_i weights_i r_i``, shape (draw,).

        Given every asset's component the sum is normal, so components are drawn by asset and the
        sum once: the law of `draw`, in much less time.
        """
        held = weights != 0.0
        book, weight = weights[held], self.weight[held]
        own_loc = book[:, None] * self.specific_loc[held]
        own_variance = np.square(book[:, None] * self.specific_scale[held])
        exposure = book @ self.beta[held]
        loc = exposure @ self.factor_loc + own_loc[:, 0].sum()
        variance = np.square(exposure * self.factor_scale).sum() + own_variance[:, 0].sum()
        parts = np.stack([np.full(draws, loc), np.full(draws, variance)], axis=-1)
        edges = np.cumsum(weight, axis=1)[:, :-1].astype(np.float32)
        steps = np.stack([np.diff(own_loc), np.diff(own_variance)], axis=-1).astype(np.float32)
        for rows, uniform in _component_blocks(draws, len(book), generator):
            for place in range(edges.shape[1]):  # past an edge: the next component's moments
                parts[rows] += (uniform > edges[:, place]).astype(np.float32) @ steps[:, place]
        noise = generator.standard_normal(draws)
        return parts[:, 0] + np.sqrt(np.maximum(parts[:, 1], 0.0)) * noise

    def explain(
        self,
        weights: np.ndarray,
        total: np.ndarray,
        chosen: np.ndarray,
        generator: np.random.Generator,
    ) -> Iterator[DrawnParts]:
        """Yield what chosen draws of `draw_portfolio` say of every asset and factor.

        Given every asset's component, portfolio, assets and factors are jointly normal: the values
        are their expectations given components and portfolio, whose noise is less than that of
        draws. Weighted by the book, those of the assets add up to the portfolio's draw.

        Parameters
        ----------
        weights : ndarray, shape (asset,)
        total : ndarray, shape (draw,)
            From `draw_portfolio`.
        chosen : ndarray of bool, shape (draw,)
        generator : Generator
            As it was at that call: components are drawn again instead of kept.
        """
        held = np.flatnonzero(weights)
        book, asset = weights[held], np.arange(len(held))
        own_loc, own_variance = self.specific_loc[held], np.square(self.specific_scale[held])
        edges = np.cumsum(self.weight[held], axis=1)[:, :-1].astype(np.float32)
        joint = np.square(self.factor_scale) * (self.beta[held].T @ book)  # Cov(z, portfolio)
        loc = np.concatenate([self.beta @ self.factor_loc + self.specific_mean, self.factor_loc])
        slope = np.concatenate([self.beta @ joint, joint])
        shared = self.beta[held] @ self.factor_loc
        shared_variance = float((self.beta[held].T @ book) @ joint)
        places = np.arange(len(loc))
        for rows, uniform in _component_blocks(len(total), len(book), generator):
            kept = np.flatnonzero(chosen[rows])
            if not len(kept):
                continue
            which = (uniform[kept, :, None] > edges).sum(-1)
            mean = (shared + own_loc[asset, which]).T
            variance = own_variance[asset, which].T
            spread = shared_variance + np.square(book) @ variance
            gap = total[rows][kept] - book @ mean
            score = np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0.0)
            values = loc[:, None] + slope[:, None] * score
            values[held] += mean - loc[held, None] + book[:, None] * variance * score
            yield DrawnParts(places, rows.start + kept, values)


@dataclass(frozen=True)
class CopulaDraws:
    r"""Returns with given marginal laws, joined by a low-rank Gaussian copula.

    ``r_i = Q_i(u_i)`` with ``u_i = loading_i . f + sqrt(1 - |loading_i|^2) e_i`` standard normal
    and Q_i the quantile function of the asset at the probability of u. Its covariance has the
    expansion ``Cov(r_i, r_j) = sum_n c_ni c_nj rho_ij^n / n!`` with Hermite coefficients c; what
    is reported as `beta` and `specific_variances` is its first term, exact for normal marginals.

    Attributes
    ----------
    loading : ndarray, shape (asset, column)
    table : ndarray, shape (asset, point)
        Quantiles at evenly spaced scores.
    mean, variance : ndarray, shape (asset,)
        Of each marginal law, exact.
    """

    loading: np.ndarray
    table: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def from_day(cls, day: xr.Dataset) -> "CopulaDraws":
        """Return the sampler of one date of a forecast whose dependence is ``copula``."""
        kept = day["entered"].values
        names = ("weight", "loc", "scale", "copula_loading")
        weight, loc, scale, loading = (day[name].values[kept].astype(np.float64) for name in names)
        mean = (weight * loc).sum(1)
        spread = np.square(scale) + np.square(loc - mean[:, None])
        return cls(loading, _quantile_table(weight, loc, scale), mean, (weight * spread).sum(1))

    @property
    def beta(self) -> np.ndarray:
        """First-order loadings, decimal return per standard normal, shape (asset, column)."""
        score = np.linspace(-_REACH, _REACH, _POINTS)
        density = np.exp(-0.5 * np.square(score))
        return self.loading * (self.table @ (score * density / density.sum()))[:, None]

    @property
    def factor_loc(self) -> np.ndarray:
        """Zeros, shape (column,)."""
        return np.zeros(self.loading.shape[1])

    @property
    def factor_scale(self) -> np.ndarray:
        """Ones, shape (column,)."""
        return np.ones(self.loading.shape[1])

    @property
    def specific_mean(self) -> np.ndarray:
        """Mean of each asset, shape (asset,): the shared part has none."""
        return self.mean

    @property
    def specific_variances(self) -> np.ndarray:
        """Variance that the first-order loadings leave to each asset, shape (asset,)."""
        return self.variance - np.square(self.beta).sum(1)

    def draw(self, draws: int, generator: np.random.Generator) -> np.ndarray:
        """Return joint draws, shape (draw, asset); quantiles are interpolated in the table."""
        n_assets, n_columns = self.loading.shape
        own = np.sqrt(np.maximum(1.0 - np.square(self.loading).sum(1), 0.0))
        score = generator.standard_normal((draws, n_columns)) @ self.loading.T
        score += own * generator.standard_normal((draws, n_assets))
        place = (score + _REACH) * ((_POINTS - 1) / (2.0 * _REACH))
        left = np.clip(place.astype(np.int64), 0, _POINTS - 2)
        share = place - left  # beyond the table, the line through its last two points
        asset = np.arange(n_assets)
        low = self.table[asset, left]
        return low + share * (self.table[asset, left + 1] - low)

    def draw_portfolio(
        self, weights: np.ndarray, draws: int, generator: np.random.Generator
    ) -> np.ndarray:
        """Return draws of ``sum_i weights_i r_i``, shape (draw,), asset by asset: as `draw`."""
        held = np.flatnonzero(weights)
        total = np.zeros(draws)
        for start in range(0, draws, _DRAWS):
            rows = slice(start, min(start + _DRAWS, draws))
            shape = (self.loading.shape[1], rows.stop - start)
            shared = generator.standard_normal(shape, dtype=np.float32)
            for assets in _asset_blocks(held):
                noise = generator.standard_normal((len(assets), shape[1]), dtype=np.float32)
                common = self._common(assets, shared)
                total[rows] += weights[assets] @ self._returns(assets, common, noise)
        return total

    def explain(
        self,
        weights: np.ndarray,
        total: np.ndarray,
        chosen: np.ndarray,
        generator: np.random.Generator,
    ) -> Iterator[DrawnParts]:
        """Yield what chosen draws of `draw_portfolio` say of every asset and column.

        Values are the draws themselves; of assets without weight, which `draw_portfolio` leaves
        out, draws given the same shared normals.

        Parameters
        ----------
        weights, total, chosen, generator
            As in `FactorDraws.explain`.
        """
        n_assets, n_columns = self.loading.shape
        held, others = np.flatnonzero(weights), np.flatnonzero(weights == 0.0)
        aside = generator.spawn(1)[0]  # the draws of the held assets must come as they came
        for start in range(0, len(total), _DRAWS):
            size = min(_DRAWS, len(total) - start)
            shared = generator.standard_normal((n_columns, size), dtype=np.float32)
            kept = np.flatnonzero(chosen[start : start + size])
            draws, there = start + kept, shared[:, kept]
            yield DrawnParts(n_assets + np.arange(n_columns), draws, there)
            for assets in _asset_blocks(held):
                noise = generator.standard_normal((len(assets), size), dtype=np.float32)
                common = self._common(assets, shared)  # of all draws: rounded as it was
                values = self._returns(assets, common[:, kept], noise[:, kept])
                yield DrawnParts(assets, draws, values)
            for assets in _asset_blocks(others):
                noise = aside.standard_normal((len(assets), len(kept)), dtype=np.float32)
                values = self._returns(assets, self._common(assets, there), noise)
                yield DrawnParts(assets, draws, values)

    def _common(self, assets: np.ndarray, shared: np.ndarray) -> np.ndarray:
        """Return what the shared normals give the scores of some assets, (asset, draw), float32."""
        common: np.ndarray = self.loading[assets].astype(np.float32) @ shared
        return common

    def _returns(self, assets: np.ndarray, common: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Return draws of some assets, (asset, draw), from the parts of their scores, float32."""
        loading = self.loading[assets]
        own = np.sqrt(np.maximum(1.0 - np.square(loading).sum(1), 0.0)).astype(np.float32)
        place = common + own[:, None] * noise
        place = (place + np.float32(_REACH)) * np.float32((_POINTS - 1) / (2.0 * _REACH))
        left = np.clip(place.astype(np.int32), 0, _POINTS - 2)
        share = place - left
        for row, asset in enumerate(assets):
            table = self.table[asset].astype(np.float32)
            share[row] = table[left[row]] + share[row] * np.diff(table)[left[row]]
        return share


def _component_blocks(
    draws: int, n_assets: int, generator: np.random.Generator
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield draws in hand, and the uniforms (draw, asset) that choose each asset's component."""
    for start in range(0, draws, _ROWS):
        rows = slice(start, min(start + _ROWS, draws))
        yield rows, generator.random((rows.stop - start, n_assets), dtype=np.float32)


def _asset_blocks(assets: np.ndarray) -> Iterator[np.ndarray]:
    """Yield assets in hand."""
    for first in range(0, len(assets), _BLOCK):
        yield assets[first : first + _BLOCK]


def _quantile_table(weight: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return quantiles of mixtures (asset, component) at evenly spaced scores, (asset, point)."""
    level = torch.from_numpy(ndtr(np.linspace(-_REACH, _REACH, _POINTS)))
    laws = [torch.from_numpy(value) for value in (np.log(weight), loc, scale)]
    table = np.empty((len(loc), _POINTS))
    for start in range(0, len(loc), _BLOCK):
        shape = (len(laws[0][start : start + _BLOCK]), _POINTS, loc.shape[1])
        logits, centre, width = (v[start : start + _BLOCK, None].expand(shape) for v in laws)
        block = solve_quantile(logits, centre, width, level.expand(shape[:2]))
        table[start : start + _BLOCK] = block.numpy()
    return table
