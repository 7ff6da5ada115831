"""Products of two exposures, less what the two explain one by one, as factors of their own."""

import numpy as np
import xarray as xr

from nfi_pyro.data.panel import Panel
from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import ShapeError, SpecError, name_places
from nfi_pyro.linear_factor.least_squares import COLLINEAR_TOLERANCE

SPARE_ASSETS = 5
"""Assets of a date beyond the columns of its regression, at least."""

_LEAST_ASSETS = 3 + SPARE_ASSETS
_WHERE = "product_factor"


def product_factor(exposures: Panel | xr.DataArray, pair: tuple[str, str]) -> xr.DataArray:
    """Return the product of two exposures as a factor that neither of them explains.

    On each date ``beta_j beta_k`` is regressed over the assets on 1, beta_j and beta_k, with equal
    weights, and the residual is divided by its standard deviation (market spec, row 20). It is
    known at the close of the date, as the exposures are, and does not change when an exposure is
    shifted or scaled by the date, but for the sign under a negative scale.

    Parameters
    ----------
    exposures : Panel or DataArray, shape (date, asset, factor)
        Any unit; NaN = absent. A panel gives its `exposures` where tradable.
    pair : tuple of str
        Two different factors.

    Returns
    -------
    DataArray, shape (date, asset)
        Mean 0 and standard deviation 1 (ddof 0) over the assets of each date. NaN where an
        exposure is absent, and on dates with fewer than 8 assets or a product without a part of
        its own, for example of two groups that exclude each other; attribute `n_skipped` counts
        those dates.

    Raises
    ------
    SpecError
        If a panel has no exposures, an exposure is infinite, or the pair does not name two of the
        factors.
    ShapeError
        If the dimensions are others.
    """
    table = _read(exposures)
    names = [str(name) for name in table[FACTOR].values]
    unknown = [name for name in pair if name not in names]
    if len(pair) != 2 or unknown or pair[0] == pair[1]:
        raise SpecError(
            f"pair must be two different factors; got {pair} at {_WHERE}. Choose among "
            f"{name_places(names)}."
        )
    values = table.sel({FACTOR: list(pair)}).to_numpy().astype(np.float64)
    infinite = np.isinf(values).any(axis=(1, 2))
    if infinite.any():
        days = [str(day)[:10] for day in table[DATE].values[infinite]]
        raise SpecError(
            f"exposures must be finite or NaN; got infinite ones on {name_places(days)} at "
            f"{_WHERE}. Set them to NaN, or clip them on purpose."
        )
    found = np.full(values.shape[:2], np.nan)
    for row, date in enumerate(values):
        present = np.isfinite(date).all(axis=1)
        if present.sum() >= _LEAST_ASSETS:
            own = neutral_products(standardise(date[present]), np.array([[0, 1]]))[:, 0]
            found[row, present] = own / own.std() if own.any() else np.nan
    skipped = int(np.isnan(found).all(axis=1).sum())
    attrs = {"units": "1", "first": pair[0], "second": pair[1], "n_skipped": skipped}
    coords = {DATE: table[DATE].values, ASSET: table[ASSET].values}
    return xr.DataArray(found, coords, (DATE, ASSET), name=f"{pair[0]} x {pair[1]}", attrs=attrs)


def _read(exposures: Panel | xr.DataArray) -> xr.DataArray:
    """Return exposures as (date, asset, factor), NaN where absent."""
    if isinstance(exposures, xr.Dataset):
        if "exposures" not in exposures:
            raise SpecError(
                f"a panel must have exposures to multiply; got none at {_WHERE}. Pass a DataArray "
                "(date, asset, factor): features renamed, or learned exposures, "
                "forecast(fit, panel).data['beta']."
            )
        return exposures["exposures"].where(exposures["tradable"])
    if set(exposures.dims) != {DATE, ASSET, FACTOR}:
        raise ShapeError(
            f"exposures must have the dimensions date, asset and factor; got "
            f"{tuple(exposures.dims)} at {_WHERE}. Rename or select."
        )
    return exposures.transpose(DATE, ASSET, FACTOR)


def standardise(beta: np.ndarray) -> np.ndarray:
    """Return exposures (asset, factor) of a date with mean 0 and standard deviation 1 (ddof 0).

    A column that does not vary is 0.
    """
    gap = beta - beta.mean(axis=0)
    deviation = np.sqrt(np.square(gap).mean(axis=0))
    varies = deviation > COLLINEAR_TOLERANCE * np.sqrt(np.square(beta).mean(axis=0))
    return np.divide(gap, deviation, out=np.zeros_like(gap), where=varies)


def neutral_products(standard: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the product of each pair less what 1 and the two exposures explain, (asset, pair).

    Parameters
    ----------
    standard : ndarray, shape (asset, factor)
        As `standardise` gives it.
    pairs : ndarray of int, shape (pair, 2)
        Positions of the factors.

    Returns
    -------
    ndarray, shape (asset, pair)
        Mean 0; all of it 0 where nothing of the product is left.
    """
    first, second = standard[:, pairs[:, 0]], standard[:, pairs[:, 1]]
    product = first * second
    other = _direction(second - first * product.mean(axis=0))
    left = product - product.mean(axis=0)
    for axis in (_direction(first), other):
        left = left - axis * (axis * left).sum(axis=0)
    return np.where(is_more_than_rounding(left), left, 0.0)


def is_more_than_rounding(columns: np.ndarray) -> np.ndarray:
    """Return whether something is left of columns (asset, ...) that had a mean square near 1."""
    return np.asarray(np.square(columns).mean(axis=0) > COLLINEAR_TOLERANCE**2)


def _direction(column: np.ndarray) -> np.ndarray:
    """Return columns of length 1, or 0 where nothing is left of one."""
    length = np.sqrt(np.square(column).sum(axis=0))
    kept = is_more_than_rounding(column)
    return np.divide(column, length, out=np.zeros_like(column), where=kept)
