"""Ranks and rank correlation of cross-sections, all dates at once."""

import numpy as np

from nfi_pyro.errors import ShapeError, SpecError


def average_ranks(values: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Return the rank of every asset among the assets of its date, ties averaged.

    Parameters
    ----------
    values : ndarray, shape (date, asset)
        NaN = missing.
    mask : ndarray of bool, shape (date, asset), optional
        Cells to rank; default all. A NaN is never ranked.

    Returns
    -------
    ndarray, shape (date, asset)
        float64, from 1 (smallest) to the number of ranked assets of the date; NaN elsewhere.

    Raises
    ------
    ShapeError
        If `values` has not two dimensions, or `mask` has another shape.
    """
    kept = np.where(_joint_mask(values, mask), np.asarray(values, dtype=np.float64), np.nan)
    order = np.argsort(kept, axis=1)  # NaN goes last, after infinity
    ordered = np.take_along_axis(kept, order, axis=1)
    starts = np.ones(kept.shape, dtype=bool)  # where a run of ties starts; NaN ties with nothing
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    run = np.cumsum(starts.ravel()) - 1
    first = np.flatnonzero(starts.ravel())
    length = np.diff(first, append=starts.size)
    rank_of_run = first % kept.shape[1] + (length + 1) / 2
    ranks = np.empty(kept.shape)
    np.put_along_axis(ranks, order, rank_of_run[run].reshape(kept.shape), axis=1)
    ranks[np.isnan(kept)] = np.nan
    return ranks


def rank_correlation(
    first: np.ndarray,
    second: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    min_pairs: int = 5,
) -> np.ndarray:
    """Return the Spearman correlation of two panels over the assets of each date.

    Parameters
    ----------
    first, second : ndarray, shape (date, asset)
        Only assets that have both on a date enter it; ties get their average rank.
    mask : ndarray of bool, shape (date, asset), optional
        Cells that may enter; default all.
    min_pairs : int
        Fewest pairs of a date that counts, >= 2.

    Returns
    -------
    ndarray, shape (date,)
        In [-1, 1]; NaN on dates with too few pairs or with no variation on either side.

    Raises
    ------
    ShapeError
        If the shapes differ or are not two-dimensional.
    SpecError
        If `min_pairs` is below 2.
    """
    if min_pairs < 2:
        raise SpecError(
            f"min_pairs must be >= 2; got {min_pairs} at rank_correlation. Pass 5 or more."
        )
    if np.shape(first) != np.shape(second):
        raise ShapeError(
            f"second must have the shape of first; got {np.shape(second)} against "
            f"{np.shape(first)} at rank_correlation. Align dates and assets first."
        )
    both = _joint_mask(first, mask) & _joint_mask(second, mask)
    pairs = both.sum(axis=1)
    one = _centred_ranks(first, both)
    two = _centred_ranks(second, both)
    norm = np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    counts = (pairs >= min_pairs) & (norm > 0)
    correlation = np.full(len(pairs), np.nan)
    np.divide((one * two).sum(axis=1), norm, out=correlation, where=counts)
    # The quotient of a perfect match may exceed 1 by one rounding.
    return np.clip(correlation, -1.0, 1.0)


def _centred_ranks(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return average ranks less their mean, and 0 outside the mask.

    The ranks of n assets always average (n + 1) / 2, which is exact: no variation gives exact 0.
    """
    middle = (mask.sum(axis=1, keepdims=True) + 1) / 2
    return np.where(mask, average_ranks(values, mask) - middle, 0.0)


def _joint_mask(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return the cells in the mask that are not NaN, after checking the shapes."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ShapeError(
            f"values must have the shape (date, asset); got {array.shape} at average_ranks. "
            "Pass one row per date."
        )
    if mask is None:
        return ~np.isnan(array)
    if np.shape(mask) != array.shape:
        raise ShapeError(
            f"mask must have the shape of values; got {np.shape(mask)} against {array.shape} at "
            "average_ranks. Pass one flag per cell."
        )
    return np.asarray(mask, dtype=bool) & ~np.isnan(array)
