"""The one thing that passes from models to portfolios and risk: a law of returns, as arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.posterior.covariance import LowRankCovariance
from nfi_pyro.posterior.portfolio_law import PortfolioLaw, Weights, align_weights
from nfi_pyro.svi.checkpoint import make_folder
from nfi_pyro.svi.trained import read_dataset, write_dataset

_CELLS = 2**14  # in hand at a time: their arrays stay in a core's cache
Date = str | np.datetime64 | pd.Timestamp


@dataclass(frozen=True)
class ReturnForecast:
    """Distribution of every asset's next return on every date, in decimal return units.

    Attributes
    ----------
    data : Dataset
        `weight`, `loc`, `scale` over (date, asset, component): each asset's marginal mixture of
        normals. `entered` (date, asset) bool. Where assets share factors, `beta` (date, asset,
        factor), `factor_loc` and `factor_scale` (date, factor), `specific_variance` (date,
        asset); where a copula joins them, `copula_loading` (date, asset, column), correlations
        with its shared normals. NaN where an asset did not enter. Attrs: `start_lag`, `horizon`,
        `unit`, `dependence` (``factor``, ``copula`` or ``none``) and where the forecast came
        from. `date` is the close at which it is known.
    """

    data: xr.Dataset

    @property
    def mean(self) -> xr.DataArray:
        """Expected return (date, asset)."""
        return self._by_cell(lambda law: law.mean)

    @property
    def variance(self) -> xr.DataArray:
        """Variance of the return (date, asset)."""
        return self._by_cell(lambda law: law.variance)

    @property
    def standard_deviation(self) -> xr.DataArray:
        """Standard deviation of the return (date, asset)."""
        return self._by_cell(lambda law: law.variance.sqrt())

    def cdf(self, value: xr.DataArray) -> xr.DataArray:
        """Return P(return <= value) (date, asset); of realised returns this is the PIT.

        Parameters
        ----------
        value : DataArray over (date, asset)
            Aligned by label; cells that either side lacks are NaN.
        """
        return self._by_cell(lambda law, own: law.cdf(own), value)

    def log_prob(self, value: xr.DataArray) -> xr.DataArray:
        """Return the log predictive density of `value` (date, asset), per decimal return."""
        return self._by_cell(lambda law, own: law.log_prob(own), value)

    def crps(self, value: xr.DataArray) -> xr.DataArray:
        """Return the continuous ranked probability score of `value` (date, asset), decimal."""
        return self._by_cell(lambda law, own: law.crps(own), value)

    def value_at_risk(self, level: float) -> xr.DataArray:
        """Return each asset's value at risk (date, asset), decimal; positive is a loss."""
        return -self._quantile(1.0 - level)

    def expected_shortfall(self, level: float) -> xr.DataArray:
        """Return each asset's mean loss beyond its value at risk (date, asset), closed form."""
        return self._by_cell(lambda law: law.expected_shortfall(level))

    def quantile(self, levels: Sequence[float] | float) -> xr.DataArray:
        """Return exact quantiles (quantile, date, asset), or (date, asset) for one level.

        Raises
        ------
        SpecError
            If a level is not strictly between 0 and 1.
        """
        if np.ndim(levels) == 0:
            return self._quantile(float(levels))  # type: ignore[arg-type]
        values = [self._quantile(float(level)) for level in levels]  # type: ignore[union-attr]
        coordinate = pd.Index(list(levels), name="quantile")  # type: ignore[arg-type]
        return xr.concat(values, dim=coordinate)

    def _quantile(self, level: float) -> xr.DataArray:
        """Return one quantile (date, asset)."""
        if not 0.0 < level < 1.0:
            raise SpecError(
                f"a quantile level must lie strictly between 0 and 1; got {level}. Use 0.05."
            )
        return self._by_cell(lambda law: law.icdf(torch.full_like(law.mean, level)))

    def covariance(self, date: Date | None = None) -> LowRankCovariance:
        """Return the covariance of the assets that have a forecast on `date` (default: last).

        Under a copula it is the first term of an expansion in the correlations of the normal
        scores (see `CopulaDraws`). Variances are exact, and so is all of it for normal marginals.
        Otherwise covariances are too small: where scores correlate by 0.2 or 0.5, by 0.2% or 1.4%
        with symmetric tails (excess kurtosis 5), 1.1% or 3.2% with a skewness of -1.3, 3.6% or
        9.8% with one of -2.6. Draws have the whole dependence.

        Raises
        ------
        SpecError
            If the forecast has no dependence between assets, or no such date.
        """
        self._require_dependence("a covariance")
        law = PortfolioLaw.from_day(self.on(date), np.zeros(self.data.sizes["asset"]))
        return LowRankCovariance(law.assets, law.beta * law.factor_scale, law.specific_variances)

    def sample(self, draws: int, seed: int, date: Date | None = None) -> xr.DataArray:
        """Return joint draws (draw, asset) of one date; NaN where an asset did not enter.

        Factors are drawn once per draw and shared by the assets.
        """
        self._require_dependence("joint draws")
        day = self.on(date)
        kept = day["entered"].values
        law = PortfolioLaw.from_day(day, np.zeros(len(kept)))
        values = np.full((draws, len(kept)), np.nan)
        values[:, kept] = law.draw_assets(draws, np.random.default_rng(seed))
        return xr.DataArray(
            values, dims=("draw", "asset"), coords={"asset": day["asset"]}, name="forward_return"
        )

    def portfolio(self, weights: Weights, date: Date | None = None) -> PortfolioLaw:
        """Return the law of a portfolio's return on `date` (default: the last).

        Parameters
        ----------
        weights : mapping, Series or DataArray of asset to fraction of capital
            Any sign and sum; an asset left out has weight 0.
        date : date, optional

        Raises
        ------
        WeightsError
            If an asset is unknown or has no forecast on the date, or a weight is not finite.
        SpecError
            If the forecast's dependence is ``none``, or its unit is not a return: then there is
            no portfolio risk to give.
        """
        self._require_dependence("portfolio risk")
        if self.data.attrs["unit"] != "return":
            raise SpecError(
                "portfolio risk must be in return units; got a forecast of "
                f"{self.data.attrs['unit']!r} labels. Fit on labels whose unit is return."
            )
        day = self.on(date)
        aligned = align_weights(weights, day["asset"].values, day["entered"].values)
        return PortfolioLaw.from_day(day, aligned)

    def on(self, date: Date | None = None) -> xr.Dataset:
        """Return the arrays of one date (default: the last).

        Raises
        ------
        SpecError
            If the forecast has no such date.
        """
        if date is None:
            return self.data.isel(date=-1)
        stamp = np.datetime64(pd.Timestamp(date).normalize(), "ns")
        found = np.flatnonzero(self.data["date"].values.astype("datetime64[ns]") == stamp)
        if not found.size:
            first, last = (str(self.data["date"].values[k])[:10] for k in (0, -1))
            raise SpecError(
                f"a date must be one of the forecast's; got {str(stamp)[:10]}, forecasts run from "
                f"{first} to {last} on trading days. Choose one of those."
            )
        return self.data.isel(date=int(found[0]))

    def save(self, path: str | Path) -> Path:
        """Write the forecast as netCDF and return the path."""
        place = Path(path)
        make_folder(place.parent)
        stored = self.data.assign(entered=self.data["entered"].astype("int8"))
        write_dataset(stored, place)
        return place

    @classmethod
    def load(cls, path: str | Path) -> "ReturnForecast":
        """Return the forecast that `save` wrote."""
        stored = read_dataset(Path(path))
        return cls(stored.assign(entered=stored["entered"].astype(bool)))

    def _require_dependence(self, what: str) -> None:
        """Refuse joint quantities of a forecast whose assets have no dependence."""
        if self.data.attrs["dependence"] == "none":
            raise SpecError(
                f"{what} must know how assets depend on each other; got a forecast whose "
                "dependence is none. Use a model with factors or a copula."
            )

    def _by_cell(
        self, function: Callable[..., Tensor], value: xr.DataArray | None = None
    ) -> xr.DataArray:
        """Return `function` of each cell's law (date, asset), NaN where there is none."""
        kept = self.data["entered"].values
        arguments = []
        if value is not None:
            if set(value.dims) != {"date", "asset"}:
                raise ShapeError(
                    f"values must have dims date and asset; got {value.dims}. Select one cell set."
                )
            aligned = value.reindex(date=self.data["date"], asset=self.data["asset"])
            own = aligned.transpose("date", "asset").values.astype(np.float64)
            kept = kept & np.isfinite(own)
            arguments.append(torch.from_numpy(own[kept]))
        parts = [
            torch.from_numpy(self.data[name].values[kept].astype(np.float64))
            for name in ("weight", "loc", "scale")
        ]
        found = np.empty(len(parts[0]))
        for start in range(0, len(found), _CELLS):
            rows = slice(start, start + _CELLS)
            weight, loc, scale = (part[rows] for part in parts)
            law = MixtureOfNormals(weight.log(), loc, scale, validate_args=False)
            found[rows] = function(law, *(argument[rows] for argument in arguments)).numpy()
        out = np.full(kept.shape, np.nan)
        out[kept] = found
        return xr.DataArray(
            out, dims=("date", "asset"), coords={n: self.data[n] for n in ("date", "asset")}
        )
