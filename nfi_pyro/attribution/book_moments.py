"""Mean and standard deviation of a book under a date's law, as differentiable functions of it."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nfi_pyro.distributions.copula import GaussianCopula
from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.distributions.low_rank import LowRankPlusDiagonal
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.distributions.quantiles import mixture_quantile
from nfi_pyro.errors import SpecError
from nfi_pyro.nets.standardise import with_intercept
from nfi_pyro.svi.trained import SVIFit

Target = Literal["mean", "standard_deviation"]
TARGETS = ("mean", "standard_deviation")

_REACH = 6.0  # standard normal scores that the quantiles span
_POINTS = 97  # of the sum, evenly spaced: spectrally accurate for what is smooth on this scale


@dataclass(frozen=True)
class CopulaColumns:
    """Columns of a copula's design as a function of exposures, the date's cross-section held.

    An asset's columns are 1 and its exposures less the mean of the date's assets, in their
    standard deviations. Both are held: they belong to the date, not to the asset.

    Attributes
    ----------
    copula : GaussianCopula
    centre, spread : Tensor, shape (factor,)
        Spread is infinite where an exposure does not vary: its column is 0.
    """

    copula: GaussianCopula
    centre: Tensor
    spread: Tensor

    @classmethod
    def of(cls, copula: GaussianCopula | None, beta: Tensor) -> "CopulaColumns | None":
        """Return the columns on a date of exposures (row, factor); None without a copula."""
        if copula is None:
            return None
        centre, spread = beta.mean(0), beta.std(0, correction=0)
        still = spread <= 1e-6 * (centre.abs() + 1e-6)
        return cls(copula, centre, torch.where(still, torch.inf, spread))

    def columns(self, beta: Tensor) -> Tensor:
        """Return the exposures' columns, (..., factor)."""
        return (beta - self.centre) / self.spread

    def loadings(self, columns: Tensor) -> Tensor:
        """Return correlations with the shared normals, (..., 1 + factor)."""
        return self.copula.loadings(with_intercept(columns))


def explain_moment(
    law: FactorMixture, weights: Tensor, target: str, loadings: Tensor | None = None
) -> Tensor:
    r"""Return mean or standard deviation of ``sum_i w_i r_i`` per date, in units of the law.

    The variance is that of the joint law: ``b' S b + sum_i w_i^2 v_i`` with ``b = B'w`` where
    assets share factors. Under a copula it is the first term of an expansion, as in
    `ReturnForecast.covariance`: shared loadings ``c_i l_i`` with ``c_i = Cov(r_i, u_i)``, u_i the
    asset's normal score.

    Parameters
    ----------
    law : FactorMixture
        Batch (date, row).
    weights : Tensor, shape (row,)
        Not all 0.
    target : {"mean", "standard_deviation"}
    loadings : Tensor, shape (date, row, column), optional
        Of a copula.
    """
    if target == "mean":
        return (law.marginal().mean * weights).sum(-1)
    if loadings is None:
        return law.covariance_operator().quadratic(weights).sqrt()
    marginal = law.marginal()
    shared = score_covariance(marginal).unsqueeze(-1) * loadings
    own = marginal.variance - shared.square().sum(-1)
    return LowRankPlusDiagonal(shared, own).quadratic(weights).sqrt()


def check_target(target: str, fit: SVIFit) -> None:
    """Refuse an unknown target, or a risk that the fit's joint law does not give.

    Raises
    ------
    SpecError
    """
    if target not in TARGETS:
        raise SpecError(f"target must be one of {', '.join(TARGETS)}; got {target!r}. Use mean.")
    if target == "mean":
        return
    unit = str(fit.label.get("unit", "none"))
    if unit != "return":
        raise SpecError(
            f"the risk of a book must be in return units; got a fit of {unit!r} labels. Fit on "
            "labels whose unit is return, or explain the mean."
        )
    if fit.copula is None and not fit.provenance["factors"]:
        raise SpecError(
            "the risk of a book must know how assets depend on each other; got a fit of "
            f"{fit.model.name} without factors or a copula. Fit it again, or explain the mean."
        )


def unit_of(fit: SVIFit) -> str:
    """Return the unit of a fit's means, in words."""
    unit = str(fit.label.get("unit", "none"))
    return "decimal return" if unit == "return" else unit


def score_covariance(marginal: MixtureOfNormals) -> Tensor:
    """Return ``Cov(r, Phi^{-1}(F(r)))`` of each law, its batch shape: the scale of a normal law."""
    loc = marginal.loc
    score = torch.linspace(-_REACH, _REACH, _POINTS, dtype=loc.dtype, device=loc.device)
    density = torch.exp(-0.5 * score.square()) * (2.0 * _REACH / (_POINTS - 1))
    density = density / math.sqrt(2.0 * math.pi)
    shape = (_POINTS, *loc.shape)
    level = torch.special.ndtr(score)[(...,) + (None,) * (loc.ndim - 1)].expand(shape[:-1])
    logits, loc, scale = (part.expand(shape) for part in (marginal.logits, loc, marginal.scale))
    quantile = mixture_quantile(logits, loc, scale, level)
    return torch.einsum("n,n...->...", score * density, quantile)
