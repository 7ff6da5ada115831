r"""The factors of one fit in the order, signs and units of another's.

A law does not change when its factors are permuted, flipped and scaled and its exposures undo it:
``beta' z = (beta / c)' (c z)``. Nothing tells two restarts which of these to choose, so their
factors can be laid beside each other only after they are matched. Where they still differ, they
have found other factors: look at what is identified, ``beta' z``, or at the forecasts.
"""

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.posterior.draws import Posterior

WEAK = 0.7
"""Below this correlation two matched factors share less than half of their variance."""

_EXPOSURES = ("beta", "book_beta")
_DRAWS = ("z", "z_prior")
_COVARIANCE = "posterior_covariance"


@dataclass(frozen=True)
class FactorAlignment:
    """How the factors of one posterior become those of another, the reference.

    Attributes
    ----------
    factors : tuple of str
        Names in the reference, in its order; arrays below are in the same.
    permutation : ndarray of int, shape (factor,)
        Which factor of the other posterior each one is.
    sign : ndarray, shape (factor,)
        1 or -1.
    scale : ndarray, shape (factor,)
        > 0. Aligned factors are ``sign * scale * z[permutation]``.
    correlation : ndarray, shape (factor,)
        Of posterior means over common dates, aligned, in [0, 1]; 0 where one of the two is
        constant, and then its scale is 1.
    affine_r_squared : ndarray, shape (factor,)
        Share of the variance over dates of the reference's posterior means that the best affine
        map of all the other's explains, in [0, 1]; NaN where there is none. High where
        `correlation` is low: the same space of factors, rotated.
    n_dates : int
        Common dates.
    """

    factors: tuple[str, ...]
    permutation: np.ndarray
    sign: np.ndarray
    scale: np.ndarray
    correlation: np.ndarray
    affine_r_squared: np.ndarray
    n_dates: int

    @property
    def weak(self) -> tuple[str, ...]:
        """Factors whose match correlates by less than `WEAK`: it means little."""
        pairs = zip(self.factors, self.correlation, strict=True)
        return tuple(name for name, correlation in pairs if correlation < WEAK)

    def apply(self, posterior: Posterior) -> Posterior:
        """Return the posterior with its factors as in the reference; ``beta' z`` is the same.

        `heads` stay as they are: weights of hidden features, which no two restarts share.

        Parameters
        ----------
        posterior : Posterior
            Of the fit that was aligned, on any dates.

        Raises
        ------
        ShapeError
            If it has another number of factors.
        SpecError
            If it has a variable over factors of which it is not known how it turns.
        """
        found = _means(posterior).sizes["factor"]
        if found != len(self.factors):
            raise ShapeError(
                f"a posterior must have the {len(self.factors)} factors that were aligned; got "
                f"{found}. Align it first."
            )
        return replace(
            posterior,
            factors=self._turn(posterior.factors),
            moments=self._turn(posterior.moments),
            constants=self._turn(posterior.constants),
        )

    def _turn(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return a dataset with its factors permuted, flipped and scaled, in its own dtypes."""
        dims = [dim for dim in ("factor", "factor_other") if dim in dataset.dims]
        turned = dataset.isel(dict.fromkeys(dims, self.permutation))
        turned = turned.assign_coords({dim: list(self.factors) for dim in dims})
        for name, variable in turned.data_vars.items():
            own = [dim for dim in dims if dim in variable.dims]
            if own:
                by = self._multiplier(str(name), own)
                turned[name] = variable.copy(
                    data=(variable * by).transpose(*variable.dims).to_numpy().astype(variable.dtype)
                )
        return turned

    def _multiplier(self, name: str, dims: list[str]) -> xr.DataArray:
        """Return what multiplies a variable over `dims`."""
        signed = self.sign * self.scale
        if name in _EXPOSURES:
            return xr.DataArray(1.0 / signed, dims="factor")
        if name in _DRAWS or (name.endswith("_loc") and dims == ["factor"]):
            return xr.DataArray(signed, dims="factor")
        if name.endswith("_scale") and dims == ["factor"]:
            return xr.DataArray(self.scale, dims="factor")
        if name == _COVARIANCE:
            return xr.DataArray(np.outer(signed, signed), dims=("factor", "factor_other"))
        raise SpecError(
            f"a variable over factors must be an exposure, a draw or a moment of z; got {name}, "
            "which may turn in another way. Drop it from the posterior."
        )


def align_factors(reference: Posterior, other: Posterior) -> FactorAlignment:
    """Return the permutation, signs and scales that lay one posterior's factors on another's.

    Pairs are those with the largest sum of absolute correlations of posterior means over common
    dates (Hungarian method); scales are ratios of the standard deviations of these means. Means
    themselves are not matched: the specific mean can take up a shift of the factors, so there is
    nothing to match. A poor match is a result, not an error: read `correlation` and `weak`.

    Raises
    ------
    ShapeError
        If the numbers of factors differ.
    SpecError
        If a posterior has no factors, or the two have too few dates in common: not more than
        factors plus one, which any affine map fits.
    """
    own, its = _means(reference), _means(other)
    n_factors = own.sizes["factor"]
    if its.sizes["factor"] != n_factors:
        raise ShapeError(
            f"posteriors must have the same number of factors; got {n_factors} and "
            f"{its.sizes['factor']}. Compare beta'z or the forecasts instead."
        )
    dates = np.intersect1d(own["date"].to_numpy(), its["date"].to_numpy())
    if len(dates) <= n_factors + 1:
        raise SpecError(
            f"posteriors must have more than {n_factors + 1} dates in common to match {n_factors} "
            f"factors; got {len(dates)}. Sample both over the same, longer span."
        )
    names = tuple(str(name) for name in own["factor"].to_numpy())
    wanted, given = (part.sel(date=dates).to_numpy().astype(np.float64) for part in (own, its))
    correlation, spread = _correlations(wanted, given)
    row, permutation = linear_sum_assignment(-np.abs(correlation))
    matched = correlation[row, permutation]
    ratio = spread[0] / np.where(spread[1] > 0.0, spread[1], 1.0)[permutation]
    varies = (spread[0] > 0.0) & (spread[1] > 0.0)[permutation]
    return FactorAlignment(
        factors=names,
        permutation=permutation,
        sign=np.where(matched < 0.0, -1.0, 1.0),
        scale=np.where(varies, ratio, 1.0),
        correlation=np.abs(matched),
        affine_r_squared=np.where(spread[0] > 0.0, _affine_r_squared(wanted, given), np.nan),
        n_dates=len(dates),
    )


def _means(posterior: Posterior) -> xr.DataArray:
    """Return the posterior means (date, factor), or say that there are no factors."""
    if "posterior_loc" not in posterior.moments:
        raise SpecError(
            "factors must be there to be aligned; got a posterior of a model whose assets share "
            "none. Compare the forecasts instead."
        )
    return posterior.moments["posterior_loc"].transpose("date", "factor")


def _correlations(wanted: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return correlations of columns (factor, factor), 0 for a constant one, and deviations."""
    scores, spread = [], []
    for values in (wanted, given):
        centred = values - values.mean(0)
        deviation = np.sqrt(np.square(centred).mean(0))
        deviation[deviation <= 1e-12 * np.abs(values).max(0)] = 0.0  # rounding of a constant
        spread.append(deviation)
        known = deviation > 0.0
        scores.append(np.where(known, centred, 0.0) / np.where(known, deviation, 1.0))
    return np.clip(scores[0].T @ scores[1] / len(wanted), -1.0, 1.0), spread


def _affine_r_squared(wanted: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return the share of variance of each column that an affine map of `given` explains."""
    centred, regressors = wanted - wanted.mean(0), given - given.mean(0)
    fitted = regressors @ np.linalg.lstsq(regressors, centred, rcond=None)[0]
    total = np.square(centred).sum(0)
    return np.clip(np.square(fitted).sum(0) / np.where(total > 0.0, total, 1.0), 0.0, 1.0)
