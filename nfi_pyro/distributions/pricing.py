"""The pricing law of one date as a function of exposure: homogeneous mechanism, local prices."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nfi_pyro.distributions.mixture import MixtureOfNormals


class Derivatives(Protocol):
    """A function of exposures with its first two derivatives."""

    @property
    def value(self) -> Tensor:
        """Value, (...)."""

    @property
    def gradient(self) -> Tensor:
        """Gradient, (..., factor)."""

    @property
    def hessian(self) -> Tensor:
        """Hessian, (..., factor, factor)."""


@dataclass(frozen=True)
class PricingFunction:
    r"""``p_t(r | beta)`` with the factors' law of the date frozen, and its exact derivatives.

    ``p_t(r | beta) = sum_k pi_k N(alpha + delta_k + x.m, sigma_k^2 + x'S x)`` with pi, delta and
    sigma functions of beta and ``sum_k pi_k delta_k = 0``, S diagonal, x the exposures that load
    on shared factors. So ``E[r | beta] = alpha(beta) + x.m``, whatever pi, delta and sigma do.

    Attributes
    ----------
    specific : callable
        beta (..., factor) to logits, loc (alpha + delta) and scale, each (..., component).
    alpha : callable
        beta (..., factor) to value, gradient and Hessian of alpha.
    factor_loc, factor_scale : Tensor, shape (column,)
        m and the root of S of the date.
    design : {"exposures", "intercept", "none"}
        What x is: beta itself; 1 and beta; nothing, without shared factors.
    """

    specific: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    alpha: Callable[[Tensor], Derivatives]
    factor_loc: Tensor
    factor_scale: Tensor
    design: str

    def marginal(self, beta: Tensor) -> MixtureOfNormals:
        """Return the law of the return at exposures (..., factor)."""
        logits, loc, scale = self.specific(beta)
        x = self._design(beta)
        shift = (x @ self.factor_loc).unsqueeze(-1)
        variance = (x.square() @ self.factor_scale.square()).unsqueeze(-1)
        return MixtureOfNormals(
            logits, loc + shift, (scale.square() + variance).sqrt(), validate_args=False
        )

    def price_of_risk(self) -> Tensor:
        """Return the part of the gradient that all assets share, (factor,): m on the exposures."""
        if self.design == "exposures":
            return self.factor_loc
        return self.factor_loc[1:] if self.design == "intercept" else self.factor_loc.new_zeros(())

    def mean_derivatives(self, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Return gradient (..., factor) and Hessian (..., factor, factor) of ``E[r | beta]``."""
        found = self.alpha(beta)
        return found.gradient + self.price_of_risk(), found.hessian

    def _design(self, beta: Tensor) -> Tensor:
        """Return x, (..., column)."""
        if self.design == "exposures":
            return beta
        if self.design == "intercept":
            return torch.cat([torch.ones_like(beta[..., :1]), beta], dim=-1)
        return beta[..., :0]
