r"""What returns say about couplings, and how often chance says as much.

The question is whether the product of two exposures has a price of its own. The labels of date t
are taken as

    y_i = a_t + b_t' beta_i + sum_j c_j beta_ij^2 + sum_jk c_jk beta_ij beta_ik + noise

with exposures standardised over the assets of the date, an intercept and factor returns that are
free on every date, and one curvature for all dates: the second order of a smooth law of exposures.
So c_jk is the mean of ``H_jk s_j s_k``, what `law_coupling` says of a law. On each date what 1 and
all exposures explain is removed from labels, squares and products; then the c are weighted least
squares over all dates, each date with weight 1 over the variance of its labels. So a product is
compared with what neither the linear part, nor squares, nor other products say: where exposures
correlate, an additive but bent return would pass for a coupling, and one coupling for its
neighbours.

An estimate is a sum over dates, ``c = sum_t d_t`` with ``d_t = G^-1 X_t' y_t``, and its null law
comes from flips of the signs of whole dates. Assets are not permuted: that takes them as
exchangeable given their exposures, which neither common factors nor a noise scale that depends on
exposures allow, and a factor that loads on the product with a mean of 0 would come out
significant. A flip keeps the cross-section of a date as it is, and takes all pairs along.

Validity: without a price, what is left of the labels is no more likely up than down given all that
is known at the close, so ``d_t`` is as likely with the other sign, and dates whose labels do not
overlap can be flipped one by one. That is exact for noise that is symmetric given the exposures of
all dates, whatever its dependence across assets and its scale over dates. It is right for many
dates for any noise of mean 0, also where exposures react to past returns: ``sum d_t^2`` is the same
under every flip, so the sum and its t-statistic order flips alike (a wild bootstrap of a
t-statistic). Prices of other pairs add to the spread of ``d_t`` and make the test slightly
conservative.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from nfi_pyro.attribution.couplings.coupling_products import (
    SPARE_ASSETS,
    is_more_than_rounding,
    standardise,
)
from nfi_pyro.linear_factor.least_squares import independent_columns

_MOST_CELLS = 2_000_000  # of flips times pairs at once
_ROUNDING = 1e-10
_NULL = 1e-10  # eigenvalue of a correlation matrix, over the largest, that counts as 0


class DateTerms(NamedTuple):
    """One date's part of the regression; terms are the squares, then the products.

    Attributes
    ----------
    gram : ndarray, shape (term, term)
        Weighted products of terms, less their linear part.
    score : ndarray, shape (term,)
        The same of terms and label.
    premia : ndarray, shape (factor,)
        Coefficients of the label on 1 and all exposures, per standard deviation of the date; 0
        for an exposure that those before it explain, or that does not vary.
    known : ndarray of bool, shape (pair,)
        Whether the product has a part that exposures do not explain.
    n_free : int
        Assets less columns of the linear part.
    """

    gram: np.ndarray
    score: np.ndarray
    premia: np.ndarray
    known: np.ndarray
    n_free: int


class PooledTerms(NamedTuple):
    """The regression over all dates.

    Attributes
    ----------
    parts : ndarray, shape (date, pair)
        What each date adds to the coefficient of the product, unit of the label per standard
        deviation of each exposure; NaN for a pair that other terms determine.
    share : ndarray, shape (pair,)
        Share of a product's variance that the other terms do not explain, in [0, 1].
    """

    parts: np.ndarray
    share: np.ndarray


def least_assets(n_factors: int) -> int:
    """Return how many assets a date needs: intercept, exposures and 5."""
    return n_factors + 1 + SPARE_ASSETS


def weigh_date(beta: np.ndarray, label: np.ndarray, pairs: np.ndarray) -> DateTerms | None:
    """Return one date's part of the regression, None if the linear part explains its labels.

    Parameters
    ----------
    beta : ndarray, shape (asset, factor)
        Known at the close; at least `least_assets` of them.
    label : ndarray, shape (asset,)
        Realised later. Finite, any unit.
    pairs : ndarray of int, shape (pair, 2)
    """
    standard = standardise(beta)
    design = np.column_stack([np.ones(len(standard)), standard])
    kept = independent_columns(np.asarray(np.linalg.qr(design, mode="r")))
    span, triangle = np.linalg.qr(design[:, kept])
    premia = np.zeros(design.shape[1])
    premia[kept] = solve_triangular(triangle, span.T @ label)
    left = label - span @ (span.T @ label)
    n_free = len(label) - len(kept)
    variance = float(left @ left) / n_free
    if variance <= _ROUNDING**2 * float(label @ label):
        return None
    product = standard[:, pairs[:, 0]] * standard[:, pairs[:, 1]]
    terms = np.column_stack([np.square(standard), product])
    terms -= span @ (span.T @ terms)
    told = is_more_than_rounding(terms)  # nothing else is left of the square of an indicator
    terms = np.where(told, terms, 0.0)
    return DateTerms(
        gram=terms.T @ terms / variance,
        score=terms.T @ left / variance,
        premia=premia[1:],
        known=told[beta.shape[1] :],
        n_free=n_free,
    )


def pool_dates(gram: np.ndarray, score: np.ndarray, n_squares: int) -> PooledTerms:
    """Return the regression over dates, for the pairs.

    Parameters
    ----------
    gram : ndarray, shape (term, term)
        Sum over dates.
    score : ndarray, shape (date, term)
    n_squares : int
        Terms that come before the products.
    """
    length = np.sqrt(np.diagonal(gram))
    unit = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    values, vectors = np.linalg.eigh(gram * np.outer(unit, unit))
    seen = values > _NULL * values[-1]
    # A term with a part in the null space is a combination of others: no data can tell it.
    bound = np.square(vectors[:, ~seen]).sum(axis=1) > _NULL
    inverse = (vectors[:, seen] / values[seen]) @ vectors[:, seen].T
    parts = (score * unit) @ inverse * unit
    parts[:, bound] = np.nan
    share = np.where(bound, 0.0, 1.0 / np.where(bound, 1.0, np.diagonal(inverse)))
    return PooledTerms(parts[:, n_squares:], share[n_squares:])


def flip_p_values(parts: np.ndarray, n_permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Return the two-sided p-value of each pair's sum under flips of the signs of whole dates.

    Parameters
    ----------
    parts : ndarray, shape (date, pair)
        Finite, of dates whose labels do not overlap.
    n_permutations : int
        Random flips beside the one observed, which counts too.
    rng : Generator

    Returns
    -------
    ndarray, shape (pair,)
        From ``1 / (n_permutations + 1)`` to 1.
    """
    # Flips that give the observed sum again, up to rounding, are as far out as it is.
    bar = np.abs(parts.sum(axis=0)) * (1.0 - _ROUNDING)
    further = np.ones(parts.shape[1])
    step = max(1, _MOST_CELLS // max(1, parts.shape[1]))
    for start in range(0, n_permutations, step):
        count = min(step, n_permutations - start)
        signs = 2.0 * rng.integers(0, 2, size=(count, len(parts))) - 1.0
        further += (np.abs(signs @ parts) >= bar).sum(axis=0)
    return np.asarray(further / (n_permutations + 1.0))
