"""The law of one portfolio's return under a shared-factor law of its assets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtri

from nfi_pyro.errors import SpecError, WeightsError, name_places
from nfi_pyro.posterior.covariance import LowRankCovariance
from nfi_pyro.posterior.joint_draws import CopulaDraws, FactorDraws

Weights = Mapping[str, float] | pd.Series | xr.DataArray


@dataclass(frozen=True)
class PortfolioLaw:
    """Distribution of ``sum_i w_i r_i`` over the label's horizon, decimal return units.

    Attributes
    ----------
    date : numpy.datetime64
        Close at which it is known.
    weights : ndarray, shape (asset,)
        Of the assets that have a forecast.
    assets : ndarray, shape (asset,)
    beta : ndarray, shape (asset, factor)
        Loadings on what the assets share. Under a copula these are decimal returns per standard
        normal, to first order in the copula's correlations.
    factor_loc, factor_scale : ndarray, shape (factor,)
        0 and 1 under a copula.
    specific_mean, specific_variances : ndarray, shape (asset,)
        Of each asset's own part.
    is_gaussian : bool
        Whether the portfolio's law is normal: every asset has one component.
    sampler : FactorDraws or CopulaDraws
        Joint draws of the assets.
    """

    date: np.datetime64
    weights: np.ndarray
    assets: np.ndarray
    beta: np.ndarray
    factor_loc: np.ndarray
    factor_scale: np.ndarray
    specific_mean: np.ndarray
    specific_variances: np.ndarray
    is_gaussian: bool
    sampler: FactorDraws | CopulaDraws

    @classmethod
    def from_day(cls, day: xr.Dataset, weights: np.ndarray) -> "PortfolioLaw":
        """Return the law of aligned `weights` (asset,) on one date of a forecast."""
        kept = day["entered"].values
        draw: type[FactorDraws] | type[CopulaDraws] = FactorDraws
        if day.attrs["dependence"] == "copula":
            draw = CopulaDraws
        sampler = draw.from_day(day)
        return cls(
            date=np.datetime64(str(day["date"].values), "ns"),
            weights=weights[kept],
            assets=day["asset"].values[kept],
            beta=sampler.beta,
            factor_loc=sampler.factor_loc,
            factor_scale=sampler.factor_scale,
            specific_mean=sampler.specific_mean,
            specific_variances=sampler.specific_variances,
            is_gaussian=day.sizes["component"] == 1,
            sampler=sampler,
        )

    @property
    def mean(self) -> float:
        """Expected return."""
        return float(self.weights @ (self.specific_mean + self.beta @ self.factor_loc))

    @property
    def exposure(self) -> np.ndarray:
        """Portfolio exposure to each factor, shape (factor,)."""
        return self.beta.T @ self.weights

    @property
    def covariance(self) -> LowRankCovariance:
        """Covariance of the assets, as in `ReturnForecast.covariance`."""
        return LowRankCovariance(
            self.assets, self.beta * self.factor_scale, self.specific_variances
        )

    @property
    def factor_variance(self) -> float:
        """Variance that the factors give the portfolio."""
        return float(np.square(self.exposure * self.factor_scale).sum())

    @property
    def specific_variance(self) -> float:
        """Variance that the assets' own parts give the portfolio."""
        return float(np.square(self.weights) @ self.specific_variances)

    @property
    def standard_deviation(self) -> float:
        """Standard deviation of the portfolio's return."""
        return float(np.sqrt(self.factor_variance + self.specific_variance))

    def value_at_risk(
        self, level: float, *, draws: int = 100_000, seed: int = 0
    ) -> tuple[float, float]:
        """Return the loss exceeded with probability ``1 - level``, and its standard error.

        Positive is a loss. Closed form with standard error 0 for one component; otherwise from
        `draws` joint draws, the error from the order statistics of the quantile.
        """
        return self.tail_risks((level,), draws=draws, seed=seed)[0][0]

    def expected_shortfall(
        self, level: float, *, draws: int = 100_000, seed: int = 0
    ) -> tuple[float, float]:
        """Return the mean loss beyond the value at risk, and its standard error."""
        return self.tail_risks((level,), draws=draws, seed=seed)[0][1]

    def tail_risks(
        self, levels: Sequence[float], *, draws: int = 100_000, seed: int = 0
    ) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        """Return `value_at_risk` and `expected_shortfall` of each level, from the same draws."""
        for level in levels:
            check_level(level)
        if self.is_gaussian:
            return [self._gaussian_tail(level) for level in levels]
        losses = np.sort(-self.draw(draws, np.random.default_rng(seed)))
        return [sampled_tail(losses, level) for level in levels]

    def _gaussian_tail(self, level: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return both measures in closed form."""
        score, sd = float(ndtri(1.0 - level)), self.standard_deviation
        density = float(np.exp(-0.5 * ndtri(level) ** 2) / np.sqrt(2.0 * np.pi))
        return (-(self.mean + sd * score), 0.0), (-self.mean + sd * density / (1.0 - level), 0.0)

    def draw(self, draws: int, generator: np.random.Generator) -> np.ndarray:
        """Return draws of the portfolio's return, shape (draw,)."""
        return self.sampler.draw_portfolio(self.weights, draws, generator)

    def draw_assets(self, draws: int, generator: np.random.Generator) -> np.ndarray:
        """Return joint draws of the assets' returns, shape (draw, asset)."""
        return self.sampler.draw(draws, generator)


def sampled_tail(
    losses: np.ndarray, level: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return both measures of sorted draws of the loss, each with its standard error."""
    draws = len(losses)
    spread = np.sqrt(draws * level * (1.0 - level))
    low, high = np.clip(np.round(draws * level + np.array([-spread, spread])), 0, draws - 1)
    threshold = float(np.quantile(losses, level))
    tail = losses[losses >= threshold]
    # Variance of a tail mean with an estimated threshold (Manistre and Hancock, 2005).
    variance = tail.var(ddof=1) + level * (tail.mean() - threshold) ** 2
    error = float(np.sqrt(variance / (draws * (1.0 - level))))
    at_risk = (threshold, float(0.5 * (losses[int(high)] - losses[int(low)])))
    return at_risk, (float(tail.mean()), error)


def check_level(level: float) -> None:
    """Refuse a level outside (0, 1)."""
    if not 0.0 < level < 1.0:
        raise SpecError(
            f"a risk level must lie strictly between 0 and 1; got {level}. Use 0.95 or 0.99."
        )


def align_weights(weights: Weights, assets: np.ndarray, entered: np.ndarray) -> np.ndarray:
    """Return weights in the order of `assets`, shape (asset,).

    Raises
    ------
    WeightsError
        If an asset is unknown or named twice, a weight is not a finite number, or an asset
        with weight has no forecast.
    """
    if isinstance(weights, xr.DataArray):
        weights = weights.to_series()
    if not isinstance(weights, pd.Series | Mapping):
        raise WeightsError(
            f"weights must say which asset each is of; got a {type(weights).__name__}. Give a "
            "mapping or Series of asset to weight."
        )
    series = weights if isinstance(weights, pd.Series) else pd.Series(dict(weights))
    names = pd.Index([str(name) for name in series.index])
    if names.has_duplicates:
        twice = name_places(names[names.duplicated()].unique())
        raise WeightsError(f"each asset must have one weight; got several at {twice}. Add them up.")
    numbers = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).all():
        bad = name_places(names[~np.isfinite(numbers)])
        raise WeightsError(f"weights must be finite numbers; got others at {bad}. Correct them.")
    place = pd.Index([str(name) for name in assets]).get_indexer(names)
    if (place < 0).any():
        unknown = name_places(names[place < 0])
        raise WeightsError(
            f"weights must name assets of the forecast; got unknown {unknown}. Use the panel's "
            "symbols, or leave these out."
        )
    aligned = np.zeros(len(assets))
    aligned[place] = numbers
    hidden = (aligned != 0.0) & ~entered
    if hidden.any():
        raise WeightsError(
            "assets with weight must have a forecast on the date; got none for "
            f"{name_places(assets[hidden])}. They are not tradable or lack history: sell them, or "
            "choose another date."
        )
    return aligned
