r"""Forecasts of several fits as one: their laws, each as likely, with the spread between them.

With members m = 1, ..., M, means mu_m and variances v_m, the law of total variance gives

    mean      mu = 1/M sum_m mu_m
    variance  1/M sum_m v_m  +  1/M sum_m (mu_m - mu)^2     within plus between
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import xarray as xr

from nfi_pyro.errors import ShapeError, SpecError, name_places
from nfi_pyro.posterior.covariance import LowRankCovariance
from nfi_pyro.posterior.portfolio_law import Weights
from nfi_pyro.posterior.portfolio_mixture import PortfolioMixture, share_draws
from nfi_pyro.posterior.return_forecast import Date, ReturnForecast

_LABEL = ("unit", "start_lag", "horizon", "kind", "price", "benchmark")
_OWN = ("seed", "return_scale", "model", "fit_panel_hash", "panel_hash")
_PARTS = ("weight", "loc", "scale")


@dataclass(frozen=True)
class ForecastEnsemble:
    """Equal-weight mixture of forecasts of one label on the same dates and assets.

    Restarts of a fit are local optima of one objective: none is the right one, and what they
    disagree about is not known. Numbers are in the label's unit (decimal for returns) and NaN in
    cells that a member does not forecast; they are exact, not sampled.

    Attributes
    ----------
    members : tuple of ReturnForecast
        At least one. Joint laws (`covariance`, `sample`, `portfolio`) need the dependence of each.

    Raises
    ------
    SpecError
        If there is no member, or the labels differ.
    ShapeError
        If the dates or assets differ.
    """

    members: tuple[ReturnForecast, ...]

    def __post_init__(self) -> None:
        """Refuse members that are not of the same cells and label."""
        if not self.members:
            raise SpecError("an ensemble must have a member; got none. Pass a forecast per fit.")
        first = self.members[0].data
        for place, member in enumerate(self.members[1:], start=1):
            _check_same(first, member.data, place)

    @property
    def entered(self) -> xr.DataArray:
        """Whether every member forecasts the cell, bool (date, asset)."""
        return reduce(operator.and_, [member.data["entered"] for member in self.members])

    @property
    def mean(self) -> xr.DataArray:
        """Expected return (date, asset)."""
        return self._average([member.mean for member in self.members])

    @property
    def within_variance(self) -> xr.DataArray:
        """Mean of the members' variances (date, asset)."""
        return self._average([member.variance for member in self.members])

    @property
    def between_variance(self) -> xr.DataArray:
        """Variance of the members' means (date, asset); 0 for one member."""
        means = [member.mean for member in self.members]
        centre = self._average(means)
        return self._average([(mean - centre) ** 2 for mean in means])

    @property
    def variance(self) -> xr.DataArray:
        """Variance of the return (date, asset): within plus between."""
        return self.within_variance + self.between_variance

    @property
    def standard_deviation(self) -> xr.DataArray:
        """Standard deviation of the return (date, asset)."""
        return self.variance**0.5

    def marginal(self) -> ReturnForecast:
        """Return the mixture of each cell as a forecast without dependence between assets.

        Its components are those of all members, with their weights over M. Serves whatever takes
        a forecast and asks for no joint law.
        """
        parts = xr.concat(
            [member.data[list(_PARTS)].drop_vars("component", errors="ignore")
             for member in self.members],
            dim="component", join="exact", combine_attrs="drop_conflicts",
        )  # fmt: skip
        entered = self.entered
        parts["weight"] = (parts["weight"] / len(self.members)).assign_attrs(units="1")
        parts = parts.transpose("date", "asset", "component").where(entered)
        attrs = {k: v for k, v in self.members[0].data.attrs.items() if k not in _OWN}
        attrs |= {"dependence": "none", "n_members": len(self.members)}
        return ReturnForecast(parts.assign(entered=entered).assign_attrs(attrs))

    def cdf(self, value: xr.DataArray) -> xr.DataArray:
        """Return P(return <= value) (date, asset); of realised returns this is the PIT."""
        return self.marginal().cdf(value)

    def log_prob(self, value: xr.DataArray) -> xr.DataArray:
        """Return the log predictive density of `value` (date, asset), per decimal return."""
        return self.marginal().log_prob(value)

    def crps(self, value: xr.DataArray) -> xr.DataArray:
        """Return the continuous ranked probability score of `value` (date, asset), decimal."""
        return self.marginal().crps(value)

    def quantile(self, levels: Sequence[float] | float) -> xr.DataArray:
        """Return exact quantiles (quantile, date, asset), or (date, asset) for one level."""
        return self.marginal().quantile(levels)

    def value_at_risk(self, level: float) -> xr.DataArray:
        """Return each asset's value at risk (date, asset), decimal; positive is a loss."""
        return self.marginal().value_at_risk(level)

    def expected_shortfall(self, level: float) -> xr.DataArray:
        """Return each asset's mean loss beyond its value at risk (date, asset), closed form."""
        return self.marginal().expected_shortfall(level)

    def covariance(self, date: Date | None = None) -> LowRankCovariance:
        """Return the covariance of the assets that every member forecasts on `date`.

        The mean of the members' covariances, and the covariance of their means: both are low
        rank plus diagonal. Under a copula the first is approximate, see
        `ReturnForecast.covariance`.

        Raises
        ------
        SpecError
            If a member has no dependence between assets, or no such date (default: the last).
        """
        n_members = len(self.members)
        parts = [member.covariance(date) for member in self.members]
        days = [ReturnForecast(member.on(date).expand_dims("date")) for member in self.members]
        kept = ForecastEnsemble(tuple(days)).entered.to_numpy()[0]
        assets = days[0].data["asset"].to_numpy()[kept]
        means = np.stack([day.mean.to_numpy()[0, kept] for day in days], axis=1)
        loadings, specific = [means - means.mean(1, keepdims=True)], np.zeros(len(assets))
        for part, day in zip(parts, days, strict=True):
            rows = kept[day.data["entered"].to_numpy()[0]]  # of the member's own assets
            loadings.append(part.loadings[rows])
            specific += part.specific_variance[rows] / n_members
        return LowRankCovariance(
            assets, np.concatenate(loadings, axis=1) / np.sqrt(n_members), specific
        )

    def sample(self, draws: int, seed: int, date: Date | None = None) -> xr.DataArray:
        """Return joint draws (draw, asset) of one date, by member in turn.

        Each member gives the same number, to one, as in `PortfolioMixture.draw`; NaN where a
        member has no forecast.
        """
        sizes = share_draws(draws, len(self.members))
        seeds = np.random.SeedSequence(seed).generate_state(len(self.members))
        parts = [
            member.sample(size, int(own), date)
            for member, size, own in zip(self.members, sizes, seeds, strict=True)
        ]
        kept = reduce(operator.and_, [member.on(date)["entered"] for member in self.members])
        return xr.concat(parts, dim="draw").where(kept.drop_vars("date"))

    def portfolio(self, weights: Weights, date: Date | None = None) -> PortfolioMixture:
        """Return the law of a portfolio's return on `date` (default: the last).

        Raises
        ------
        WeightsError, SpecError
            See `ReturnForecast.portfolio`; an asset with weight needs a forecast of each member.
        """
        return PortfolioMixture(tuple(member.portfolio(weights, date) for member in self.members))

    def _average(self, values: Sequence[xr.DataArray]) -> xr.DataArray:
        """Return the mean over members (date, asset), NaN where a member has none."""
        return reduce(operator.add, values) / len(values)


def _check_same(first: xr.Dataset, other: xr.Dataset, place: int) -> None:
    """Refuse a member whose label, dates or assets are not those of the first."""
    differing = [key for key in _LABEL if first.attrs.get(key) != other.attrs.get(key)]
    if differing:
        raise SpecError(
            "members of an ensemble must have one label; got another "
            + ", ".join(f"{k} ({other.attrs.get(k)}, not {first.attrs.get(k)})" for k in differing)
            + f" in member {place}. Fit them on panels with the same label."
        )
    for dim in ("date", "asset"):
        own, its = (data[dim].to_numpy() for data in (first, other))
        if np.array_equal(own, its):
            continue
        extra = [*np.setdiff1d(own, its), *np.setdiff1d(its, own)]
        found = name_places(str(value)[:10] if dim == "date" else str(value) for value in extra)
        raise ShapeError(
            f"members of an ensemble must have the same {dim}s in one order; got "
            f"{len(its)} of {len(own)} in member {place}, which differ in "
            f"{found if extra else 'order'}. Forecast each with the same panel and dates."
        )
