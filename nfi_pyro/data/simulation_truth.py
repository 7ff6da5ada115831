"""The law that a simulated panel was drawn from, and what it says exactly about every return."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import gammaln, logsumexp, ndtr

from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import PanelError, ShapeError, SpecError, name_places

Date = str | np.datetime64 | pd.Timestamp
ASSET_OTHER = "asset_other"
_LOG_TWO_PI = math.log(2.0 * math.pi)


@dataclass(frozen=True, eq=False)
class SimulationTruth:
    """The true law of a simulated panel, date by date.

    Given the features of a date, ``y = alpha + beta z + noise`` with ``z ~ N(factor_loc,
    diag(factor_scale^2))`` shared by the assets of the date and noise of mean 0 and standard
    deviation `specific_scale`, independent over assets and dates.

    Attributes
    ----------
    law : Dataset
        In return units (decimal): `alpha` (date, asset), `specific_scale` (date, asset, > 0),
        `factor_loc` (date, factor), `factor_scale` (date, factor, > 0), `z` (date, factor, the
        realised factors); `beta` (date, asset, factor) without unit; `regime` (date), 1 in the
        turbulent state. All but `z` are fixed by what is known at the close of `date`. `alpha`,
        `beta` and `specific_scale` are NaN where the asset is not tradable. The coefficients
        behind them: `alpha_weight` (feature), `beta_intercept` (factor), `beta_weight`
        (factor, feature), `specific_weight` (feature). Where alpha is a function of the exposures,
        its gradient `alpha_gradient` (date, asset, factor). Where the noise is a mixture of a core
        and a tail, `noise_weight`, `noise_loc`, `noise_scale` (date, asset, component).
    tail_dof : float or None
        Degrees of freedom of the Student-t noise; None for Gaussian noise.
    """

    law: xr.Dataset
    tail_dof: float | None

    @property
    def mean(self) -> xr.DataArray:
        """Expected return given the features, decimal, `(date, asset)`; NaN if not tradable."""
        shared = (self.law["beta"] * self.law["factor_loc"]).sum(FACTOR, skipna=False)
        return (self.law["alpha"] + shared).transpose(DATE, ASSET).rename("mean")

    @property
    def variance(self) -> xr.DataArray:
        """Variance of the return given the features, `(date, asset)`, > 0; NaN if not tradable."""
        total = self._factor_variance + self.law["specific_scale"] ** 2
        return total.transpose(DATE, ASSET).rename("variance")

    @property
    def jacobian(self) -> xr.DataArray:
        """Factor returns ``g = grad alpha(beta) + factor_loc``, decimal, `(date, asset, factor)`.

        The gradient of `mean` in an asset's exposures with the factors' law held; NaN if not
        tradable.

        Raises
        ------
        SpecError
            If alpha is not a function of the exposures.
        """
        if "alpha_gradient" not in self.law:
            raise SpecError(
                "alpha must be a function of the exposures to have a gradient in them; got one of "
                "the features. Simulate with alpha_form='exposures'."
            )
        total = self.law["alpha_gradient"] + self.law["factor_loc"]
        return total.transpose(DATE, ASSET, FACTOR).rename("jacobian")

    def covariance(self, date: Date) -> xr.DataArray:
        """Return the covariance of the returns of `date`, `(asset, asset_other)`.

        Decimal squared; rows and columns are the tradable assets.

        Raises
        ------
        PanelError
            If the simulation has no such date.
        """
        stamp = pd.Timestamp(date)
        if stamp not in self.law.indexes[DATE]:
            raise PanelError(
                f"date must be one of the simulated panel's; got {stamp.date()} at covariance. "
                "Take it from panel['date']."
            )
        day = self.law.sel({DATE: stamp})
        day = day.isel({ASSET: np.flatnonzero(day["specific_scale"].notnull())})
        root = (day["beta"] * day["factor_scale"]).transpose(ASSET, FACTOR).to_numpy()
        total = root @ root.T + np.diag(day["specific_scale"].to_numpy() ** 2)
        labels = day[ASSET].to_numpy()
        coords = {ASSET: labels, ASSET_OTHER: labels}
        return xr.DataArray(total, coords=coords, dims=(ASSET, ASSET_OTHER), name="covariance")

    @property
    def _factor_variance(self) -> xr.DataArray:
        scaled = self.law["beta"] * self.law["factor_scale"]
        return (scaled**2).sum(FACTOR, skipna=False).transpose(DATE, ASSET)

    def log_density(self, forward_return: xr.DataArray, *, unit_scale: float = 1.0) -> xr.DataArray:
        """Return the log density of each observed return under its true marginal law.

        Gaussian noise and mixtures of normals have a closed form. Student-t noise is a Gaussian
        whose variance is mixed over a chi-square variable W, so the marginal is the
        one-dimensional integral of ``N(y; mean, b'Sb + sigma^2 (dof - 2) / W)``; the trapezoidal
        rule in log W is accurate to rounding whatever the share of the factors (Gauss-Hermite
        over b'z is not once the factors are wider than the noise).

        Parameters
        ----------
        forward_return : DataArray, shape (date, asset)
            Decimal; NaN = not observed. Its dates and assets are among those of the law.
        unit_scale : float
            > 0. The density is that of ``y / unit_scale``.

        Returns
        -------
        DataArray, shape (date, asset)
            Nats; NaN where nothing was observed.

        Raises
        ------
        SpecError
            If `unit_scale` is not a positive finite number.
        ShapeError
            If the dimensions are not date and asset.
        PanelError
            If a date or an asset is unknown, or a return is observed outside the law.
        """
        if not (math.isfinite(unit_scale) and unit_scale > 0):
            raise SpecError(
                f"unit_scale must be a positive finite number; got {unit_scale} at log_density. "
                "Pass the standard deviation that returns were divided by, or 1."
            )
        return self._evaluate(forward_return, cumulative=False) + math.log(unit_scale)

    def log_score(self, forward_return: xr.DataArray, unit_scale: float = 1.0) -> float:
        """Return the mean log density per observed cell, the best score any forecast can expect.

        Parameters and errors are those of `log_density`; nothing observed is a `PanelError`.
        """
        cells = self.log_density(forward_return, unit_scale=unit_scale)
        if not bool(cells.notnull().any()):
            raise PanelError(
                "forward_return must hold an observed cell; got only NaN at log_score. "
                "Pass dates with observed returns."
            )
        return float(cells.mean())

    def pit(self, forward_return: xr.DataArray) -> xr.DataArray:
        """Return the true marginal distribution function at each observed return.

        Uniform on [0, 1] cell by cell; cells of one date depend on each other through z.
        Parameters and errors are those of `log_density`. Shape (date, asset), NaN where nothing
        was observed.
        """
        return self._evaluate(forward_return, cumulative=True)

    def _evaluate(self, forward_return: xr.DataArray, *, cumulative: bool) -> xr.DataArray:
        """Return the log density, or the distribution function, at the observed cells."""
        value = _on_law(forward_return, self.law)
        chosen = {DATE: value[DATE], ASSET: value[ASSET]}
        returns = value.to_numpy().astype(np.float64)
        observed = ~np.isnan(returns)
        mean = self.mean.sel(chosen).to_numpy()
        unknown = np.argwhere(observed & np.isnan(mean))
        if len(unknown):
            places = [(str(value[DATE].values[t])[:10], value[ASSET].values[i]) for t, i in unknown]
            raise PanelError(
                "forward_return must be NaN where the law has no features; got a number at "
                f"{name_places(places)}. Mask it with the panel's `tradable`."
            )
        residual = (returns - mean)[observed]
        factor_variance = self._factor_variance.sel(chosen).to_numpy()[observed]
        specific = self.law["specific_scale"].sel(chosen).to_numpy()[observed]
        out = np.full(returns.shape, np.nan)
        if "noise_weight" in self.law:
            noise = self.law[["noise_weight", "noise_loc", "noise_scale"]].sel(chosen)
            parts = [noise[name].to_numpy()[observed] for name in noise]
            out[observed] = _mixture_marginal(
                residual[:, None], factor_variance[:, None], *parts, cumulative=cumulative
            )
        elif self.tail_dof is None:
            variance = factor_variance + specific**2
            out[observed] = (
                ndtr(residual / np.sqrt(variance))
                if cumulative
                else _normal_log_density(residual, variance)
            )
        else:
            out[observed] = _student_marginal(
                residual, factor_variance, specific**2, dof=self.tail_dof, cumulative=cumulative
            )
        return xr.DataArray(out, coords=chosen, dims=(DATE, ASSET))


def _on_law(forward_return: xr.DataArray, law: xr.Dataset) -> xr.DataArray:
    """Return the returns as (date, asset), after checking that the law knows their labels."""
    if set(forward_return.dims) != {DATE, ASSET}:
        raise ShapeError(
            f"forward_return must have the dimensions date and asset; got {forward_return.dims} "
            "at the truth of a simulation. Pass panel['forward_return']."
        )
    for dim in (DATE, ASSET):
        known = law.indexes[dim]
        strange = [label for label in forward_return.indexes[dim] if label not in known]
        if strange:
            raise PanelError(
                f"forward_return must use the {dim}s of the simulated panel; got unknown labels "
                f"at {name_places(strange)}. Pass returns of the same simulation."
            )
    return forward_return.transpose(DATE, ASSET)


def _normal_log_density(residual: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the log density of N(0, variance) at `residual`; same shapes."""
    return -0.5 * (_LOG_TWO_PI + np.log(variance) + residual**2 / variance)


def _mixture_marginal(
    residual: np.ndarray,
    factor_variance: np.ndarray,
    weight: np.ndarray,
    loc: np.ndarray,
    scale: np.ndarray,
    *,
    cumulative: bool,
) -> np.ndarray:
    """Return log density or distribution function, (cell,), of N(0, factor_variance) plus noise.

    The noise is a mixture of normals (cell, component); the first two arguments are (cell, 1).
    """
    variance, gap = factor_variance + scale**2, residual - loc
    if cumulative:
        return (weight * ndtr(gap / np.sqrt(variance))).sum(axis=1)
    return logsumexp(_normal_log_density(gap, variance), b=weight, axis=1)


def _student_marginal(
    residual: np.ndarray,
    factor_variance: np.ndarray,
    specific_variance: np.ndarray,
    *,
    dof: float,
    cumulative: bool,
) -> np.ndarray:
    """Return log density or distribution function of N(0, factor_variance) plus scaled t noise.

    With v = log W and W chi-square, the integrand decays at least geometrically on the left and
    doubly exponentially on the right, and is analytic: the trapezoidal rule loses nothing to
    rounding once its step is a fraction of the width of v, about sqrt(2 / dof).
    """
    largest = float(np.max(residual**2 / specific_variance, initial=0.0))
    lower = math.log(dof / (1.0 + largest)) - 80.0 / (dof + 1.0)
    upper = math.log(dof + 12.0 * math.sqrt(dof) + 80.0)
    step = min(0.25, 0.7 * math.sqrt(2.0 / dof))
    log_chi = np.arange(lower, upper + step, step)
    log_weight = (
        0.5 * dof * (log_chi - math.log(2.0))
        - 0.5 * np.exp(log_chi)
        - gammaln(0.5 * dof)
        + math.log(step)
    )
    out = np.full(residual.shape, 0.0 if cumulative else -np.inf)
    for node, weight in zip(log_chi, log_weight, strict=True):
        variance = factor_variance + specific_variance * (dof - 2.0) * math.exp(-node)
        if cumulative:
            out += math.exp(weight) * ndtr(residual / np.sqrt(variance))
        else:
            out = np.logaddexp(out, weight + _normal_log_density(residual, variance))
    # The quadrature weights add up to 1 within rounding; a probability may not exceed it.
    return np.clip(out, 0.0, 1.0) if cumulative else out
