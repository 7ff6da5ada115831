"""The regression of one date: columns with the industry constraint, estimates, what was dropped."""

import math
from dataclasses import dataclass

import numpy as np

from nfi_pyro.linear_factor.cells import Cells
from nfi_pyro.linear_factor.least_squares import (
    gaussian_covariance,
    shares_explained,
    solve_weighted,
)
from nfi_pyro.linear_factor.student_t import StudentT, fit_student_t, student_covariance


@dataclass(frozen=True)
class DateFit:
    """Estimates of one date; see `CrossSectionalRegression` for the meaning of each."""

    factor_returns: np.ndarray
    standard_errors: np.ndarray
    fitted: np.ndarray
    residual: np.ndarray
    dropped: np.ndarray
    shares: tuple[float, float]
    scale: float
    degrees_of_freedom: float
    converged: bool
    condition: float
    n_columns: int


@dataclass(frozen=True)
class Columns:
    """Columns of one date without the one that the industry constraint replaces.

    Attributes
    ----------
    design : ndarray, shape (asset, free)
    expand : ndarray, shape (column, free)
        Maps free coefficients to all of them; rows of absent industries are zero.
    free : ndarray of int, shape (free,)
        Position of each free column among all.
    absent : ndarray of bool, shape (column,)
        Industries without an asset.
    """

    design: np.ndarray
    expand: np.ndarray
    free: np.ndarray
    absent: np.ndarray


def lay_out_columns(cells: Cells, date: int, used: np.ndarray) -> Columns:
    """Return the columns of the assets `used` (bool, shape (asset,)) on a date.

    With an intercept, the returns of the industries satisfy ``sum_g s_g f_g = 0``, where s_g is
    the share of the industry in the constraint weights of the assets used. The industry with the
    largest share is written through the others, ``f_p = -sum_g (s_g / s_p) f_g``, which keeps
    every ratio at most 1.
    """
    first = int(cells.intercept)
    n_industries, n_columns = len(cells.industries), len(cells.names)
    absent = np.zeros(n_columns, dtype=bool)
    expand = np.eye(n_columns)
    design = np.empty((int(used.sum()), n_columns))
    design[:, :first] = 1.0
    design[:, first + n_industries :] = cells.exposures[date][used]
    pivot = -1
    if cells.codes is not None:
        codes = cells.codes[date][used]
        design[:, first : first + n_industries] = codes[:, None] == np.arange(n_industries)
        shares = np.bincount(
            codes,
            weights=None if cells.constraint is None else cells.constraint[date][used],
            minlength=n_industries,
        )
        absent[first : first + n_industries] = shares == 0
        if cells.intercept and len(codes):
            largest = int(shares.argmax())
            pivot = first + largest
            ratios = -shares / shares[largest]
            ratios[largest] = 0.0
            expand[pivot, first : first + n_industries] = ratios
            design[codes == largest, first : first + n_industries] = ratios
    free = np.flatnonzero(~absent & (np.arange(n_columns) != pivot))
    return Columns(design[:, free], expand[:, free], free, absent)


def fit_date(
    cells: Cells, date: int, used: np.ndarray, columns: Columns, noise: StudentT | None, errors: str
) -> DateFit:
    """Return the estimates of one date, which has more assets than free columns.

    Parameters
    ----------
    cells : Cells
    date : int
    used : ndarray of bool, shape (asset,)
    columns : Columns
    noise : StudentT, optional
        None for Gaussian noise.
    errors : str
        See `cross_sectional_regression`; of no effect with Student-t noise.
    """
    values = cells.returns[date][used]
    weights = np.ones(len(values)) if cells.weights is None else cells.weights[date][used]
    weights = weights / weights.mean()
    solution = solve_weighted(columns.design, values, weights)
    kept, n_kept = solution.kept, len(solution.kept)
    estimate, tails, converged = solution.values, math.inf, True
    if noise is None or not n_kept:
        residual = values - columns.design[:, kept] @ estimate
        spare = len(values) - n_kept
        scale = math.sqrt(float(weights @ np.square(residual)) / spare)
        covariance = gaussian_covariance(solution, columns.design, residual, weights, errors)
    else:
        student = fit_student_t(columns.design[:, kept], values, weights, estimate, noise)
        estimate, scale = student.values, student.scale
        tails, converged = student.degrees_of_freedom, student.converged
        residual = values - columns.design[:, kept] @ estimate
        covariance = student_covariance(student, solution.root, len(values))
    expand = columns.expand[:, kept]
    everything = expand @ estimate
    spread = np.sqrt(np.einsum("ij,jk,ik->i", expand, covariance, expand))
    dropped = np.zeros(len(everything), dtype=bool)
    dropped[np.delete(columns.free, kept)] = True
    centred = cells.intercept or cells.codes is not None
    shares = shares_explained(values, residual, weights, n_kept, centred)
    everything[dropped | columns.absent] = np.nan
    spread[dropped | columns.absent] = np.nan
    return DateFit(
        factor_returns=everything,
        standard_errors=spread,
        fitted=values - residual,
        residual=residual,
        dropped=dropped,
        shares=shares,
        scale=scale,
        degrees_of_freedom=tails,
        converged=converged,
        condition=solution.condition,
        n_columns=n_kept,
    )
