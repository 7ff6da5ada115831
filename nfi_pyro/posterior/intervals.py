"""Intervals of figures over fits, and whether a factor of one fit is that of another."""

import warnings
from collections.abc import Sequence
from typing import TypeVar

import xarray as xr

from nfi_pyro.dims import CHAIN
from nfi_pyro.errors import SpecError
from nfi_pyro.svi.trained import SVIFit

LEVEL = 0.9
BOUND = "bound"
Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)


def interval_over(found: Labelled, *, dim: str = CHAIN, level: float = LEVEL) -> Labelled:
    """Return the central interval of figures over fits or draws, with a first dimension `bound`.

    Over draws of a fit it is a posterior interval. Over restarts it is how much other seeds change
    a figure, which is no posterior; and figures by learned factor mean nothing there, see
    `factors_comparable`.

    Bounds are order statistics at ``(n + 1) p``: one more draw falls between them with probability
    `level`. That takes 19 draws at 90 percent; of fewer it is their range, which one more falls
    into with probability ``(n - 1) / (n + 1)``. The usual sample quantiles of 8 draws would claim
    90 percent and hold 70.

    Parameters
    ----------
    found : DataArray or Dataset
        With `dim`; NaN is left out.
    dim : str
        ``chain`` or ``draw``.
    level : float
        In (0, 1).

    Returns
    -------
    DataArray or Dataset
        Bounds ``lower`` and ``upper``; attr `interval_level` is the probability attained.

    Raises
    ------
    SpecError
        If there is no such dimension, it has one entry, or the level is out of range.
    """
    if found.sizes.get(dim, 0) < 2:
        raise SpecError(
            f"an interval must be over at least two entries of {dim}; got "
            f"{found.sizes.get(dim, 0)}. Pass restarts, or draws of a fit (`draw_fits`)."
        )
    if not 0.0 < level < 1.0:
        raise SpecError(f"level must lie strictly between 0 and 1; got {level}. Use 0.9.")
    ends = [0.5 - 0.5 * level, 0.5 + 0.5 * level]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # NaN in, NaN out
        bounds = found.quantile(ends, dim=dim, skipna=True, method="weibull")
    labelled = bounds.rename(quantile=BOUND).assign_coords({BOUND: ["lower", "upper"]})
    return labelled.assign_attrs(interval_level=attained_level(found.sizes[dim], level))


def attained_level(count: int, level: float = LEVEL) -> float:
    """Return the probability that one more of `count` exchangeable draws is inside the interval."""
    return min(level, (count - 1) / (count + 1))


def factors_comparable(fits: Sequence[SVIFit]) -> bool:
    """Return whether a factor means the same in all fits.

    It does where exposures are given, and in draws of one fit. Learned factors of restarts are in
    an order, sign and rotation of their own: compare what does not depend on those.
    """
    if all(fit.model.uses_exposures for fit in fits):
        return True
    # A draw's number apart, all of it is the same.
    one, *others = ((fit.seed, fit.provenance | {"head_draw": 0}) for fit in fits)
    return all(other == one for other in others)
