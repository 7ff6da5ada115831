"""Crowding as an incentive, and a manifold's part of crowding as a flow."""

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.errors import SpecError


class CurvedSpace(Protocol):
    """What crowding needs of a Fisher manifold."""

    @property
    def pricing(self) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Exposures (..., factor) to logits, loc and log scale, each (..., component)."""

    def laplacian(self, function: Callable[[Tensor], Tensor], beta: Tensor, /) -> Tensor:
        """Return the Laplace-Beltrami operator of a function of exposures, (...)."""

    def christoffel(self, beta: Tensor, /) -> Tensor:
        """Return the connection, (..., upper, factor, factor)."""


def crowding_incentive(manifold: CurvedSpace, beta: Tensor, risk_aversion: float) -> Tensor:
    """Return the divergence of the natural gradient of ``E[r] - lambda Var[r]``, (...).

    Below 0 where flows that chase it would pile up. Decimal return.

    Parameters
    ----------
    manifold : CurvedSpace
        For example a `FisherManifold`; its law in decimal return.
    beta : Tensor, shape (..., factor)
    risk_aversion : float
        lambda, >= 0, per decimal return.

    Raises
    ------
    SpecError
        If `risk_aversion` is not finite and >= 0, or as the manifold does.
    """
    if not 0.0 <= risk_aversion < math.inf:
        raise SpecError(
            f"risk_aversion must be finite and >= 0; got {risk_aversion} at crowding_incentive. "
            "Pass 0 for the expected return alone."
        )

    def reward(at: Tensor) -> Tensor:
        logits, loc, log_scale = manifold.pricing(at)
        law = MixtureOfNormals(logits, loc, log_scale.exp(), validate_args=False)
        return law.mean - risk_aversion * law.variance

    return manifold.laplacian(reward, beta)


def volume_gradient(
    manifold_of: Callable[[np.datetime64], CurvedSpace],
) -> Callable[[np.datetime64, np.ndarray], np.ndarray]:
    """Return what `crowding_flow` takes as `volume_gradient`, from the manifold of each date.

    ``d_i log sqrt det G = Gamma^k_ki``: no determinant is differentiated.

    Parameters
    ----------
    manifold_of : callable
        Date to its manifold: of a law known at its close.
    """

    def evaluate(date: np.datetime64, exposures: np.ndarray) -> np.ndarray:
        connection = manifold_of(date).christoffel(torch.from_numpy(exposures))
        return torch.einsum("...kki->...i", connection).detach().numpy()

    return evaluate
