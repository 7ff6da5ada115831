"""The pricing law of one date as a function of exposure: homogeneous mechanism, local prices."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nfi_pyro.distributions.law_jets import LawJets, automatic_jets
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
    specific_jets : callable, optional
        beta and an order, 1 or 2, to logits, loc and log scale of the specific part with their
        derivatives, laid out as in `LawJets`. By `torch.func` where there is none.
    """

    specific: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    alpha: Callable[[Tensor], Derivatives]
    factor_loc: Tensor
    factor_scale: Tensor
    design: str
    specific_jets: Callable[[Tensor, int], tuple[Tensor, Tensor, Tensor | None]] | None = None

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

    def jets(self, beta: Tensor, order: int) -> LawJets:
        """Return the marginal's logits, loc and log scale with derivatives, closed form.

        Parameters
        ----------
        beta : Tensor, shape (row, factor)
        order : {1, 2}
            Highest derivative wanted.
        """
        if self.specific_jets is None:
            own = automatic_jets(self._log_specific, beta, order)
        else:
            own = LawJets(*self.specific_jets(beta, order))
        x, loc, variance = self._design(beta), self.factor_loc, self.factor_scale.square()
        slope = self.price_of_risk().expand(beta.shape[-1])
        skip = x.shape[-1] - beta.shape[-1]  # an intercept comes first and does not move
        loads = variance[skip:] if skip >= 0 else torch.zeros_like(slope)
        logits, own_loc, log_scale = own.value.unbind(-2)
        square = (2.0 * log_scale).exp()
        total = square + (x.square() @ variance).unsqueeze(-1)
        value = torch.stack([logits, own_loc + (x @ loc).unsqueeze(-1), 0.5 * total.log()], dim=-2)
        own_part = (square / total).unsqueeze(-1)
        shared = (beta * loads).unsqueeze(-2) / total.unsqueeze(-1)
        first_scale = own_part * own.first[..., 2, :, :] + shared
        first = torch.stack(
            [own.first[..., 0, :, :], own.first[..., 1, :, :] + slope, first_scale], dim=-3
        )
        if own.second is None:
            return LawJets(value, first, None)
        bend = own_part.unsqueeze(-1) * (
            own.second[..., 2, :, :, :] + 2.0 * _outer(own.first[..., 2, :, :])
        )
        bend = bend + loads.diag() / total[..., None, None] - 2.0 * _outer(first_scale)
        second = torch.stack(
            [own.second[..., 0, :, :, :], own.second[..., 1, :, :, :], bend], dim=-4
        )
        return LawJets(value, first, second)

    def _log_specific(self, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, loc and log scale of the specific part."""
        logits, loc, scale = self.specific(beta)
        return logits, loc, scale.log()

    def _design(self, beta: Tensor) -> Tensor:
        """Return x, (..., column)."""
        if self.design == "exposures":
            return beta
        if self.design == "intercept":
            return torch.cat([torch.ones_like(beta[..., :1]), beta], dim=-1)
        return beta[..., :0]


def _outer(first: Tensor) -> Tensor:
    """Return the outer product of each gradient with itself, (..., factor, factor)."""
    return first.unsqueeze(-1) * first.unsqueeze(-2)
