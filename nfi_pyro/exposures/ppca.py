"""Probabilistic PCA: maximum likelihood in closed form, and by EM where entries are missing."""

import math
import warnings
from typing import Literal, get_args

import numpy as np
import xarray as xr

from nfi_pyro.dims import FEATURE
from nfi_pyro.errors import PanelError, SpecError, name_places
from nfi_pyro.exposures.linear_gaussian import EMStatistics, LinearGaussian
from nfi_pyro.exposures.ppca_result import PPCAFit, canonical_loadings, label_parameters
from nfi_pyro.exposures.rows import (
    Moments,
    Span,
    check_factor_count,
    check_rows,
    collinear_columns,
    constant_columns,
    date_rows,
    factor_names,
    principal_axes,
    refuse_unseen,
    span_days,
    span_positions,
)

Method = Literal["closed_form", "em"]
METHODS = get_args(Method)


def fit_ppca(
    features: xr.DataArray,
    mask: xr.DataArray,
    *,
    n_factors: int,
    method: Method = "closed_form",
    train: Span = None,
    tolerance: float = 1e-8,
    max_iterations: int = 500,
    seed: int | None = None,
) -> PPCAFit:
    r"""Return the maximum-likelihood probabilistic PCA of the rows of a panel.

    ``closed_form``: ``W = U (L - s2 I)^{1/2}`` over the leading eigenvectors U and eigenvalues L
    of the covariance of the complete rows (denominator n), s2 the mean of the discarded
    eigenvalues (Tipping and Bishop 1999, Eq. 7-8, rotation I). ``em``: the same maximum where
    entries are missing at random: every observed entry counts, none is filled in.

    Parameters
    ----------
    features : DataArray, dims (date, asset, feature)
        Standardised by the caller: one noise variance serves all features. NaN = missing. Read a
        block of dates at a time, once (closed form) or once a step (EM).
    mask : DataArray of bool, dims (date, asset)
        Cells that count, such as ``panel["tradable"]``.
    n_factors : int
        M, from 1 to the number of features less one.
    method : {"closed_form", "em"}
    train : slice of positions, DateSpan or pair of ISO days, optional
        Dates of the fit; all by default, which looks ahead.
    tolerance : float
        EM stops when neither W W' nor s2 changes by more than this share.
    max_iterations : int
        EM steps; a warning says when they did not suffice.
    seed : int, optional
        Starts EM at random loadings. By default it starts at the closed form of the covariance
        with missing entries at their mean.

    Raises
    ------
    PanelError
        If layout or labels are wrong, a cell of the mask is infinite, a feature is constant or
        has no value, or there are too few rows.
    SpecError
        If an argument is out of range, or the discarded variance is zero: collinear features
        leave no noise to fit.

    References
    ----------
    .. [1] Tipping, Bishop (1999). Probabilistic Principal Component Analysis. Journal of the
       Royal Statistical Society B 61(3), 611-622.
    """
    check_rows(features, mask)
    if method not in METHODS:
        raise SpecError(f"method must be one of {METHODS}; got {method!r}. Choose one.")
    if max_iterations < 1 or not tolerance >= 0:
        raise SpecError(
            "max_iterations must be >= 1 and tolerance >= 0; got "
            f"{max_iterations} and {tolerance}. Use 500 and 1e-8."
        )
    n_factors = check_factor_count(n_factors, features.sizes[FEATURE], fewer=True)
    positions = span_positions(features, train)
    moments, n_dropped = gather_moments(
        features, mask, positions, n_factors=n_factors, complete=method != "em"
    )
    names = features[FEATURE].to_numpy()
    refuse_unusable(moments, names, n_factors)
    history = np.empty(0)
    converged = True
    n_entries = moments.n * len(names)
    if method == "em":
        start = _em_start(moments, n_factors, seed)
        rule = (tolerance, max_iterations)
        model, final, history, converged = _run_em(features, mask, positions, start, rule)
        log_likelihood, n_entries = final.log_likelihood, final.n_entries
    else:
        model = closed_form(moments.scatter / moments.n, moments.mean, n_factors)
        log_likelihood = _moment_log_likelihood(model, moments)
        history = np.array([log_likelihood])
    loadings, center = label_parameters(
        canonical_loadings(model.loadings),
        model.center,
        names.tolist(),
        factor_names("ppca", n_factors),
    )
    found = names[collinear_columns(moments)] if method != "em" else ()
    return PPCAFit(
        method=method,
        loadings=loadings,
        center=center,
        noise_variance=model.noise_variance,
        log_likelihood=log_likelihood,
        n_rows=moments.n,
        n_entries=n_entries,
        n_dropped=n_dropped,
        history=history,
        converged=converged,
        collinear_features=tuple(map(str, found)),
        train=span_days(features, positions),
    )


def closed_form(covariance: np.ndarray, center: np.ndarray, n_factors: int) -> LinearGaussian:
    """Return the maximum-likelihood parameters for a covariance (Tipping and Bishop, Eq. 7-8).

    Raises
    ------
    SpecError
        If the discarded eigenvalues are zero.
    """
    values, vectors, rank = principal_axes(covariance)
    if rank <= n_factors:
        raise SpecError(
            f"n_factors must be below the rank of the rows, {rank}; got {n_factors}, which leaves "
            "no noise. Drop collinear features or ask for fewer factors."
        )
    noise = float(values[n_factors:].mean())
    # Equal eigenvalues may differ from their mean by rounding, to either side.
    length = np.sqrt(np.maximum(values[:n_factors] - noise, 0.0))
    return LinearGaussian(vectors[:, :n_factors] * length, center, noise)


def gather_moments(
    features: xr.DataArray,
    mask: xr.DataArray,
    positions: slice,
    *,
    n_factors: int,
    complete: bool,
) -> tuple[Moments, int]:
    """Return the moments of the rows and how many cells were left out.

    Without `complete` a missing entry sits at the mean of its feature, so that these moments are
    a starting point, not a maximum of the likelihood.
    """
    n_features = features.sizes[FEATURE]
    seen = np.zeros(n_features, dtype=bool)
    total, count = np.zeros(n_features), np.zeros(n_features)
    n_dropped = 0
    moments = Moments.empty(n_features)
    for rows in date_rows(features, mask, positions, complete=complete):
        seen |= rows.seen
        n_dropped += rows.n_dropped
        if complete:
            moments.add(rows.values)
        else:
            total += np.nansum(rows.values, axis=0)
            count += (~np.isnan(rows.values)).sum(axis=0)
    names = features[FEATURE].to_numpy()
    refuse_unseen(seen, names)
    if not complete:
        _refuse_sparse(count, n_factors, names)
        middle = total / count
        for rows in date_rows(features, mask, positions, complete=False):
            moments.add(np.where(np.isnan(rows.values), middle, rows.values))
    return moments, n_dropped


def _refuse_sparse(count: np.ndarray, n_factors: int, names: np.ndarray) -> None:
    """Raise if a feature has too few values to be regressed on the factors."""
    few = count <= n_factors + 1
    if few.any():
        places = [f"{name} ({int(n)})" for name, n in zip(names[few], count[few], strict=True)]
        raise PanelError(
            f"every feature must have more than n_factors + 1 = {n_factors + 1} values; got fewer "
            f"at {name_places(places)}. Drop those features."
        )


def refuse_unusable(moments: Moments, names: np.ndarray, n_factors: int) -> None:
    """Raise if there are too few rows or a feature is constant."""
    if moments.n <= n_factors + 1:
        raise PanelError(
            f"training rows must outnumber n_factors + 1 = {n_factors + 1}; got {moments.n}. "
            "Widen the mask or the span, use EM for missing entries, or ask for fewer factors."
        )
    still = constant_columns(moments)
    if still.any():
        raise PanelError(
            f"every feature must vary over the training rows; got constants at "
            f"{name_places(names[still])}. Drop those features."
        )


def _moment_log_likelihood(model: LinearGaussian, moments: Moments) -> float:
    """Return the log-likelihood of complete rows with these moments, nats."""
    covariance = model.covariance()
    log_det = np.linalg.slogdet(covariance)[1]
    trace = np.trace(np.linalg.solve(covariance, moments.scatter / moments.n))
    n_features = len(moments.mean)
    return float(-0.5 * moments.n * (n_features * math.log(2.0 * math.pi) + log_det + trace))


def _em_start(moments: Moments, n_factors: int, seed: int | None) -> LinearGaussian:
    """Return where EM begins."""
    covariance = moments.scatter / moments.n
    if seed is None:
        return closed_form(covariance, moments.mean, n_factors)
    spread = float(covariance.diagonal().mean())
    draws = np.random.default_rng(seed).normal(size=(len(moments.mean), n_factors))
    return LinearGaussian(draws * math.sqrt(spread), moments.mean, spread)


def _run_em(
    features: xr.DataArray,
    mask: xr.DataArray,
    positions: slice,
    start: LinearGaussian,
    rule: tuple[float, int],
) -> tuple[LinearGaussian, EMStatistics, np.ndarray, bool]:
    """Return the last parameters, their statistics, the log-likelihoods and whether it stopped."""
    tolerance, max_iterations = rule
    model, converged = start, False
    statistics = _expect(features, mask, positions, model)
    history = [statistics.log_likelihood]
    for _ in range(max_iterations):
        updated = statistics.update(model)
        floor = 1e-10 * float((updated.loadings**2).sum())
        if updated.noise_variance <= floor:
            raise SpecError(
                f"the noise variance must stay above {floor:.3g}; got "
                f"{updated.noise_variance:.3g} after {len(history)} EM steps. Drop collinear "
                "features or ask for fewer factors."
            )
        change = _change(model, updated)
        model = updated
        statistics = _expect(features, mask, positions, model)
        history.append(statistics.log_likelihood)
        if change <= tolerance:
            converged = True
            break
    if not converged:
        warnings.warn(
            f"EM must settle to {tolerance:.1e}; got a change of {change:.1e} after "
            f"{max_iterations} steps. Raise max_iterations.",
            RuntimeWarning,
            stacklevel=3,
        )
    return model, statistics, np.array(history), converged


def _expect(
    features: xr.DataArray, mask: xr.DataArray, positions: slice, model: LinearGaussian
) -> EMStatistics:
    """Return the expected statistics of all rows in one pass over the dates."""
    statistics = EMStatistics(*model.loadings.shape)
    for rows in date_rows(features, mask, positions, complete=False):
        statistics.add(model, rows.values)
    return statistics


def _change(before: LinearGaussian, after: LinearGaussian) -> float:
    """Return the larger relative change of W W' and of s2."""
    old = before.loadings @ before.loadings.T
    new = after.loadings @ after.loadings.T
    loadings = float(np.linalg.norm(new - old)) / float(np.linalg.norm(new))
    noise = abs(after.noise_variance / before.noise_variance - 1.0)
    return max(loadings, noise)
