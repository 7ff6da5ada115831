"""Principal components of features as exposures: pooled, date by date, or expanding in time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from nfi_pyro.dims import ASSET, DATE, FACTOR, FEATURE
from nfi_pyro.errors import PanelError, SpecError, name_places
from nfi_pyro.exposures.rows import (
    Moments,
    Span,
    check_factor_count,
    check_rows,
    collinear_columns,
    constant_columns,
    date_rows,
    day_text,
    factor_names,
    fix_signs,
    match_features,
    principal_axes,
    refuse_unseen,
    span_days,
    span_positions,
)

Mode = Literal["pooled", "per_date", "expanding"]
MODES = get_args(Mode)


@dataclass(frozen=True)
class PCAFit:
    """Principal axes of features and how to score a panel on them.

    Attributes
    ----------
    mode : {"pooled", "per_date", "expanding"}
    loadings : DataArray, dims (feature, factor) or (date, feature, factor)
        Orthonormal columns, largest variance first; NaN on a short date.
    center : DataArray, dims (feature,) or (date, feature)
        Means of the rows, units of the features; NaN on a short date.
    explained_variance, explained_variance_ratio : DataArray, dims (factor,) or (date, factor)
        Variance of the scores (``n - 1`` in the denominator), and its share of the total.
    n_rows : DataArray, dims () or (date,)
        Rows behind the axes.
    n_dropped : int
        Cells of the mask left out because an entry is missing: masked, never set to zero.
    short_dates : tuple of str
        Dates without axes: fewer rows than factors need, or too few directions with variance.
    constant_features, collinear_features : tuple of str
        Features that do not vary over all rows (their loadings are 0), and features that are an
        exact linear combination of others (harmless here; a regression on them is not).
    train : tuple of str
        First and last date of the fit.
    """

    mode: str
    loadings: xr.DataArray
    center: xr.DataArray
    explained_variance: xr.DataArray
    explained_variance_ratio: xr.DataArray
    n_rows: xr.DataArray
    n_dropped: int
    short_dates: tuple[str, ...]
    constant_features: tuple[str, ...]
    collinear_features: tuple[str, ...]
    train: tuple[str, str]

    def apply(self, features: xr.DataArray, mask: xr.DataArray | None = None) -> xr.DataArray:
        """Return the scores ``(x - center) @ loadings`` as exposures.

        Parameters
        ----------
        features : DataArray, dims (date, asset, feature)
            The features of the fit, in its order; read a block of dates at a time.
        mask : DataArray of bool, dims (date, asset), optional
            Cells to score; all by default.

        Returns
        -------
        DataArray, dims (date, asset, factor)
            float64, units of the features; NaN outside the mask, where an entry is missing and
            on dates without axes. Known when the features are, for ``per_date`` and
            ``expanding``; for ``pooled`` on dates after ``train``. ``expanding`` scores a date
            after its last fit on that last fit.

        Raises
        ------
        PanelError
            If the features are not those of the fit.
        SpecError
            If a date has no fit: any that was not fitted for ``per_date``, any before the first
            for ``expanding``.
        """
        check_rows(features, mask)
        match_features(features, self.loadings[FEATURE].to_numpy())
        chosen = self._fits_of(features[DATE].to_numpy())
        loadings, center = self.loadings.to_numpy(), self.center.to_numpy()
        shape = (*features.shape[:2], loadings.shape[-1])
        scores = np.full(shape, np.nan)
        for rows in date_rows(features, mask, slice(0, shape[0])):
            axes, middle = loadings, center
            if self.mode != "pooled":
                axes, middle = loadings[chosen[rows.position]], center[chosen[rows.position]]
            scores[rows.position, rows.columns] = (rows.values - middle) @ axes
        coords = {
            DATE: features[DATE].to_numpy(),
            ASSET: features[ASSET].to_numpy(),
            FACTOR: self.loadings[FACTOR].to_numpy(),
        }
        attrs = {"source": f"pca {self.mode}", "train": list(self.train)}
        return xr.DataArray(scores, coords, (DATE, ASSET, FACTOR), "exposures", attrs)

    def _fits_of(self, dates: np.ndarray) -> np.ndarray:
        """Return the position of the fit of every date."""
        if self.mode == "pooled":
            return np.zeros(len(dates), dtype=int)
        fitted = self.loadings[DATE].to_numpy()
        chosen = fitted.searchsorted(dates, side="right") - 1
        bad = chosen < 0
        if self.mode == "per_date":
            bad = bad | (fitted[np.maximum(chosen, 0)] != dates)
        if bad.any():
            places = [day_text(date) for date in dates[bad]]
            raise SpecError(
                f"a date must have a {self.mode} fit to be scored; got none at "
                f"{name_places(places)}. Fit on those dates too."
            )
        return chosen

    def as_dict(self) -> dict[str, np.ndarray]:
        """Return arrays only, fit for ``numpy.savez``; nothing in them needs pickle."""
        arrays = {name: getattr(self, name).to_numpy() for name in _ARRAYS}
        arrays |= {name: np.array(getattr(self, name), dtype=str) for name in _REPORTS}
        arrays |= {name: self.loadings[name].to_numpy().astype(str) for name in (FEATURE, FACTOR)}
        if self.mode != "pooled":
            arrays[DATE] = self.loadings[DATE].to_numpy()
        return arrays | {"mode": np.array(self.mode), "n_dropped": np.array(self.n_dropped)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PCAFit":
        """Return the fit that `as_dict` wrote."""
        mode = str(values["mode"])
        names = {FEATURE: values[FEATURE].tolist(), FACTOR: values[FACTOR].tolist()}
        dates = None if mode == "pooled" else values[DATE]
        arrays = [values[name] for name in _ARRAYS]
        reports: dict[str, Any] = {name: tuple(values[name].tolist()) for name in _REPORTS}
        labelled = _labelled(arrays, names, dates)
        return cls(mode=mode, n_dropped=int(values["n_dropped"]), **labelled, **reports)


_ARRAYS = ("loadings", "center", "explained_variance", "explained_variance_ratio", "n_rows")
_REPORTS = ("short_dates", "constant_features", "collinear_features", "train")


def fit_pca(
    features: xr.DataArray,
    mask: xr.DataArray,
    *,
    n_factors: int,
    mode: Mode = "pooled",
    train: Span = None,
) -> PCAFit:
    r"""Return the principal axes of features over the rows of a panel.

    Rows are (date, asset) cells of the mask without a missing entry, each with the same weight.
    They are centred first: ``C = (X - mean)'(X - mean) / (n - 1)``, and the axes are the leading
    eigenvectors of C. The deck that this package grew from prints ``B'B / (N - 1)`` without
    centring, which makes the first axis the mean; we depart from it. The sign of an axis makes
    its largest loading in modulus positive; from date to date that may still flip where two
    loadings are about equally large.

    Parameters
    ----------
    features : DataArray, dims (date, asset, feature)
        Standardised by the caller: covariance is decomposed, not correlation. NaN = missing.
        Read once, a block of dates at a time, cross-products in float64.
    mask : DataArray of bool, dims (date, asset)
        Cells that count, such as ``panel["tradable"]``.
    n_factors : int
        Axes kept, from 1 to the number of features.
    mode : {"pooled", "per_date", "expanding"}
        One fit on all rows of `train`; one on each date's own cross-section; or one per date on
        all rows up to and including it.
    train : slice of positions, DateSpan or pair of ISO days, optional
        Dates that are fitted; all by default, which for ``pooled`` looks ahead.

    Returns
    -------
    PCAFit

    Raises
    ------
    PanelError
        If layout or labels are wrong, a cell of the mask is infinite, a feature has no value at
        all, or no date has enough rows.
    SpecError
        If `mode` or `n_factors` is out of range, or above the rank of the rows.

    References
    ----------
    .. [1] Jolliffe (2002). Principal Component Analysis, 2nd ed., section 3.
    """
    check_rows(features, mask)
    if mode not in MODES:
        raise SpecError(f"mode must be one of {MODES}; got {mode!r}. Choose one.")
    n_features = features.sizes[FEATURE]
    n_factors = check_factor_count(n_factors, n_features)
    positions = span_positions(features, train)
    names = features[FEATURE].to_numpy()
    whole = Moments.empty(n_features)
    seen = np.zeros(n_features, dtype=bool)
    n_dropped = 0
    found = []
    for rows in date_rows(features, mask, positions):
        whole.add(rows.values)
        seen |= rows.seen
        n_dropped += rows.n_dropped
        if mode == "per_date":
            own = Moments.empty(n_features)
            own.add(rows.values)
            found.append(_decompose(own, n_factors))
        elif mode == "expanding":
            found.append(_decompose(whole, n_factors))
    refuse_unseen(seen, names)
    if mode == "pooled":
        found = [_decompose(whole, n_factors)]
    short = np.array([np.isnan(axes).any() for axes, *_ in found])
    if short.all():
        _refuse_short(whole, n_factors, mode)
    dates = features[DATE].to_numpy()[positions]
    labels = {FEATURE: names.tolist(), FACTOR: factor_names("pc", n_factors)}
    stacked = [np.stack(part) for part in zip(*found, strict=True)]
    if mode == "pooled":
        stacked = [part[0] for part in stacked]
    return PCAFit(
        mode=mode,
        **_labelled(stacked, labels, None if mode == "pooled" else dates),
        n_dropped=n_dropped,
        short_dates=() if mode == "pooled" else tuple(day_text(date) for date in dates[short]),
        constant_features=tuple(map(str, names[constant_columns(whole)])),
        collinear_features=tuple(map(str, names[collinear_columns(whole)])),
        train=span_days(features, positions),
    )


def _decompose(moments: Moments, n_factors: int) -> tuple[np.ndarray, ...]:
    """Return axes, centre, variances, shares and count; NaN where the axes are not defined."""
    n_features = len(moments.mean)
    count = np.array(moments.n)
    if moments.n > n_factors:
        values, vectors, rank = principal_axes(moments.covariance())
        if rank >= n_factors:
            kept = values[:n_factors].copy()
            axes = fix_signs(vectors[:, :n_factors])
            return axes, moments.mean.copy(), kept, kept / values.sum(), count
    empty = np.full(n_factors, np.nan)
    return (
        np.full((n_features, n_factors), np.nan),
        np.full(n_features, np.nan),
        empty,
        empty,
        count,
    )


def _refuse_short(moments: Moments, n_factors: int, mode: str) -> None:
    """Say why no fit was possible."""
    if moments.n <= n_factors or mode == "per_date":
        raise PanelError(
            f"a {mode} fit of {n_factors} factors must have more complete rows than factors; got "
            f"{moments.n} rows in all. Fill missing entries on purpose, widen the mask or ask for "
            "fewer factors."
        )
    rank = principal_axes(moments.covariance())[2]
    raise SpecError(
        f"n_factors must be at most the rank of the rows, {rank}; got {n_factors}. Drop constant "
        "and collinear features or ask for fewer factors."
    )


def _labelled(
    arrays: list[np.ndarray], names: dict[str, list[str]], dates: np.ndarray | None
) -> dict[str, Any]:
    """Return loadings, centre, variances, shares and counts with dims and labels, by name."""
    lead = () if dates is None else (DATE,)
    coords: dict[str, Any] = dict(names) if dates is None else {DATE: dates, **names}
    tails = ((FEATURE, FACTOR), (FEATURE,), (FACTOR,), (FACTOR,), ())
    labelled = {}
    for name, values, tail in zip(_ARRAYS, arrays, tails, strict=True):
        dims = (*lead, *tail)
        labelled[name] = xr.DataArray(values, {dim: coords[dim] for dim in dims}, dims, name)
    return labelled
