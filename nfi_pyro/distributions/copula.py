"""A low-rank Gaussian copula: how returns depend on each other when their laws do not say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nfi_pyro.errors import PanelError

EDGE = 1e-6  # a PIT closer to 0 or 1 counts as this far: one outlier must not be all
_STEPS = 500
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class GaussianCopula:
    r"""``Phi^{-1}(F_i(r_i)) = (x_i'f + e_i) / sqrt(x_i' Omega x_i + noise_variance)``.

    ``f ~ N(0, Omega)`` is shared by the assets of a date, ``e_i ~ N(0, noise_variance)`` is not;
    x is 1 and the asset's standardised exposures. The marginal laws F stay as they are. Loadings
    are a function of exposures, so an asset that was not there in training has them too.

    Attributes
    ----------
    root : Tensor, shape (column, column)
        ``Omega = root root'``, float64; columns are the intercept and the exposures.
    noise_variance : float
        > 0.
    log_likelihood : float
        Nats of the training scores under the fitted random effects.
    n_dates, n_scores : int
        Behind the fit.
    """

    root: Tensor
    noise_variance: float
    log_likelihood: float
    n_dates: int
    n_scores: int

    def loadings(self, design: Tensor) -> Tensor:
        """Return correlations with the shared standard normals, (..., column).

        Two assets' normal scores correlate by the product of their rows; a row's squares sum to
        less than 1.

        Parameters
        ----------
        design : Tensor, shape (..., column)
            1 and the standardised exposures.
        """
        raw = design @ self.root.to(design)
        total = raw.square().sum(-1, keepdim=True) + self.noise_variance
        return raw / total.sqrt()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; floats survive JSON exactly."""
        return {
            "root": self.root.tolist(),
            "noise_variance": self.noise_variance,
            "log_likelihood": self.log_likelihood,
            "n_dates": self.n_dates,
            "n_scores": self.n_scores,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GaussianCopula":
        """Return the copula that `as_dict` wrote."""
        rest = {name: values[name] for name in values if name != "root"}
        return cls(root=torch.tensor(values["root"], dtype=torch.float64), **rest)


class CopulaStatistics:
    """Sums by date that the fit of a copula needs; dates are added block by block."""

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, probability: Tensor, design: Tensor, observed: Tensor) -> None:
        """Take in a block of dates.

        Parameters
        ----------
        probability : Tensor, shape (date, asset)
            PIT of the realised returns, in [0, 1].
        design : Tensor, shape (date, asset, column)
        observed : Tensor of bool, shape (date, asset)
        """
        x = torch.where(observed.unsqueeze(-1), design.double(), 0.0)
        score = torch.special.ndtri(probability.double().clamp(EDGE, 1.0 - EDGE))
        score = torch.where(observed, score, 0.0)
        self._parts.append(
            (
                x.mT @ x,
                (x.mT @ score.unsqueeze(-1)).squeeze(-1),
                score.square().sum(-1),
                observed.sum(-1).double(),
            )
        )

    def fit(self) -> GaussianCopula:
        """Return the maximum-likelihood copula, by expectation-maximisation over the dates.

        Raises
        ------
        PanelError
            If no date has two observed returns.
        """
        gram, cross, square, count = (
            torch.cat(part) if part else torch.empty(0)
            for part in (zip(*self._parts, strict=True) if self._parts else [()] * 4)
        )
        kept = count >= 2
        if not bool(kept.any()):
            raise PanelError(
                "a copula must be fitted on dates with at least two observed returns; got none. "
                "Use a longer training span."
            )
        gram, cross, square, count = gram[kept], cross[kept], square[kept], count[kept]
        omega = 0.1 * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        noise = square.sum() / count.sum()
        last = -torch.inf
        for _ in range(_STEPS):
            omega, noise, evidence = _em_step(gram, cross, square, count, omega, noise)
            if evidence - last <= _TOLERANCE * count.sum():
                break
            last = evidence
        jitter = 1e-12 * omega.diagonal().mean() * torch.eye(len(omega)).to(omega)
        # Rows in memory, as a file gives them back: then forecasts have the same bits.
        root = torch.linalg.cholesky(omega + jitter)
        return GaussianCopula(
            root=root.cpu().contiguous(),
            noise_variance=float(noise),
            log_likelihood=float(evidence),
            n_dates=len(count),
            n_scores=int(count.sum()),
        )


def _em_step(
    gram: Tensor, cross: Tensor, square: Tensor, count: Tensor, omega: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Return Omega and noise variance after one step, and the evidence before it."""
    prior = torch.linalg.cholesky(omega)
    root = torch.linalg.cholesky(torch.cholesky_inverse(prior) + gram / noise)
    variance = torch.cholesky_inverse(root)
    loc = (variance @ cross.unsqueeze(-1)).squeeze(-1) / noise
    second = variance + loc.unsqueeze(-1) * loc.unsqueeze(-2)
    determinant = 2.0 * (
        root.diagonal(dim1=-2, dim2=-1).log().sum(-1) + prior.diagonal().log().sum()
    )
    fit = (square - (cross * loc).sum(-1)) / noise
    constant = torch.log(2.0 * torch.pi * noise)
    evidence = float((-0.5 * (count * constant + determinant + fit)).sum())
    residual = square - 2.0 * (cross * loc).sum(-1) + (gram * second).sum((-1, -2))
    return second.mean(0), residual.sum() / count.sum(), evidence
