"""The cloud of exposures that a law was fitted on: its centre, its spread and who is outside."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfi_pyro.errors import ShapeError, SpecError

WORST_CONDITION = 1e12


@dataclass(frozen=True)
class Cloud:
    """Exposures by their centre and inverse covariance.

    Attributes
    ----------
    centre : Tensor, shape (factor,)
    precision : Tensor, shape (factor, factor)
    reach : float
        Mahalanobis distance of the outermost exposure of the cloud.
    """

    centre: Tensor
    precision: Tensor
    reach: float

    def mahalanobis(self, beta: Tensor) -> Tensor:
        """Return the distance of exposures (..., factor) from the centre, standard deviations."""
        return mahalanobis(beta, self.centre, self.precision)


def mahalanobis(beta: Tensor, centre: Tensor, precision: Tensor) -> Tensor:
    """Return ``sqrt((beta - centre)' precision (beta - centre))``, (...)."""
    gap = beta - centre
    return ((gap @ precision) * gap).sum(-1).clamp(min=0.0).sqrt()


def cloud_of(exposures: Tensor) -> Cloud:
    """Return the cloud of exposures (row, factor).

    Raises
    ------
    ShapeError
        If the exposures are not a matrix.
    SpecError
        If they are not finite, or fill fewer directions than there are factors.
    """
    if exposures.ndim != 2:
        raise ShapeError(
            f"background must be exposures (row, factor); got shape {tuple(exposures.shape)}. "
            "Flatten the other axes."
        )
    rows = exposures.detach().to(torch.float64)
    if not bool(torch.isfinite(rows).all()):
        where = int((~torch.isfinite(rows).all(-1)).nonzero()[0])
        raise SpecError(
            f"background must be finite; got a NaN or an infinity at row {where}. Drop such rows."
        )
    n_rows, n_factors = rows.shape
    centre = rows.mean(0)
    gap = rows - centre
    covariance = gap.T @ gap / max(n_rows - 1, 1)
    values = torch.linalg.eigvalsh(covariance)
    if not float(values[0]) * WORST_CONDITION > float(values[-1]):
        raise SpecError(
            f"background must fill all {n_factors} directions; got {n_rows} rows with covariance "
            f"eigenvalues from {float(values[0]):.1e} to {float(values[-1]):.1e}. Drop collinear "
            "exposures, take more rows, or give `precision` yourself."
        )
    precision = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    return Cloud(centre, precision, float(mahalanobis(rows, centre, precision).max()))


def require_positive(precision: Tensor, like: Tensor | None) -> Tensor:
    """Return `precision` as a symmetric positive definite matrix, of the shape of `like` if given.

    Raises
    ------
    ShapeError, SpecError
        If it is not square, of another size, not symmetric, or not positive definite.
    """
    matrix = precision.detach().to(torch.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(
            f"precision must be a square matrix; got shape {tuple(matrix.shape)}. Use "
            "(factor, factor)."
        )
    if like is not None and like.shape != matrix.shape:
        raise ShapeError(
            f"precision must have the background's {like.shape[0]} factors; got "
            f"{matrix.shape[0]}. Use the same exposures for both."
        )
    even = torch.allclose(matrix, matrix.mT, rtol=1e-10, atol=0.0)
    if not even or int(torch.linalg.cholesky_ex(matrix).info) != 0:
        raise SpecError(
            "precision must be symmetric positive definite; got a matrix that is not. Use an "
            "inverse covariance, or the identity for standardised exposures."
        )
    return 0.5 * (matrix + matrix.mT)
