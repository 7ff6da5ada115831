"""Cross-sections on one scale: cut off, standardised, freed of others, date by date."""

import numpy as np

from nfi_pyro.data.features.rolling import FloatArray

LEAST_ASSETS = 5  # of a cross-section; as for an information coefficient
CUT = 3.0  # standard deviations
_FLAT = 1e-12  # of the largest value: rounding of a cross-section that does not vary


def cut_off(values: FloatArray) -> tuple[FloatArray, np.ndarray]:
    """Return values within 3 standard deviations of their date's mean, and which were moved.

    Parameters
    ----------
    values : ndarray, shape (date, asset)
        NaN = not in the cross-section; mean and standard deviation (ddof 0) weigh all alike.

    Returns
    -------
    ndarray, ndarray of bool, both (date, asset)
        A value beyond is set to the bound. Once: what is cut off may lie beyond 3 of the smaller
        standard deviations that are left.
    """
    mean, spread, _ = _moments(values)
    low, high = mean - CUT * spread, mean + CUT * spread
    moved = (values < low[:, None]) | (values > high[:, None])
    return np.clip(values, low[:, None], high[:, None]), moved


def standardise(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return values of weighted mean 0 and equal-weighted standard deviation 1 by date.

    Parameters
    ----------
    values : ndarray, shape (date, asset)
        NaN = not in the cross-section.
    weights : ndarray, shape (date, asset)
        >= 0, for the mean alone.

    Returns
    -------
    ndarray, shape (date, asset)
        Standard deviation around the plain mean, ddof 0: the date's assets are all there are. NaN
        on dates with fewer than 5 values, without spread, or without any weight.
    """
    known = np.isfinite(values)
    mean, spread, count = _moments(values)
    apart = np.where(known, values - mean[:, None], 0.0)
    mass = np.where(known, weights, 0.0)
    total = mass.sum(axis=1)
    largest = np.where(known, np.abs(values), 0.0).max(axis=1, initial=0.0)
    sound = (count >= LEAST_ASSETS) & (spread > _FLAT * largest) & (total > 0.0)
    spread = np.where(sound, spread, np.nan)
    centre = (mass * apart).sum(axis=1) / np.where(sound, total, 1.0)
    scores: FloatArray = np.where(known, (apart - centre[:, None]) / spread[:, None], np.nan)
    return scores


def combine(
    parts: dict[str, FloatArray], shares: dict[str, float]
) -> tuple[FloatArray, FloatArray]:
    """Return the mean of the parts known in each cell, by their shares, and the shares known.

    Parameters
    ----------
    parts : mapping of str to ndarray, shape (date, asset)
        NaN = unknown.
    shares : mapping of str to float
        Sum 1.

    Returns
    -------
    ndarray, ndarray, both (date, asset)
        The mean is NaN and the sum of shares 0 where no part is known.
    """
    first = next(iter(parts.values()))
    total, coverage = np.zeros(first.shape), np.zeros(first.shape)
    for name, values in parts.items():
        known = np.isfinite(values)
        total += np.where(known, shares[name] * values, 0.0)
        coverage += shares[name] * known
    nothing = np.full(first.shape, np.nan)
    return np.divide(total, coverage, out=nothing, where=coverage > 0.0), coverage


def free_of(values: FloatArray, others: list[FloatArray], weights: FloatArray) -> FloatArray:
    """Return what a weighted regression on the others and a constant leaves, date by date.

    Parameters
    ----------
    values : ndarray, shape (date, asset)
    others : list of ndarray, shape (date, asset)
        One without any value on a date is no regressor of that date, but for the first.
    weights : ndarray, shape (date, asset)
        >= 0; an asset of weight 0 has no say and gets a residual all the same.

    Returns
    -------
    ndarray, shape (date, asset)
        NaN where a value or a regressor is unknown, and on dates with no more assets of weight
        than columns.
    """
    left = np.full(values.shape, np.nan)
    for date, row in enumerate(values):
        columns = [other[date] for other in others]
        columns = columns[:1] + [c for c in columns[1:] if np.isfinite(c).any()]
        known = np.isfinite(row) & np.isfinite(columns).all(axis=0)
        root = np.sqrt(weights[date][known])
        if (root > 0.0).sum() <= len(columns) + 1:
            continue
        design = np.column_stack([np.ones(len(root)), *(column[known] for column in columns)])
        # Columns that repeat each other have many solutions and one residual.
        fit = np.linalg.lstsq(design * root[:, None], row[known] * root)[0]
        left[date, known] = row[known] - design @ fit
    return left


def _moments(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mean, standard deviation (ddof 0) and count of the known values of each date."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    least = np.maximum(count, 1)
    mean = np.where(known, values, 0.0).sum(axis=1) / least
    apart = np.where(known, values - mean[:, None], 0.0)
    return mean, np.sqrt((apart**2).sum(axis=1) / least), count
