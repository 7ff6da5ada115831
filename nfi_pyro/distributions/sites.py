"""Pyro sites that models share: returns in plates of dates and assets, heads, and a penalty."""

from typing import Literal

import pyro
from pyro import poutine
from torch import Tensor

from nfi_pyro.distributions.factor_mixture import FactorMixture, FactorReturn
from nfi_pyro.distributions.heads import SITE, HeadPosterior
from nfi_pyro.distributions.mixture import MixtureOfNormals

PENALTY = "penalty"


def date_plate(date_index: Tensor, n_dates: int) -> pyro.plate:
    """Return the plate of dates, of which a block is a subsample; dim -2."""
    return pyro.plate("date", n_dates, subsample=date_index, dim=-2)


def sample_heads(heads: HeadPosterior | None, law: Literal["prior", "guide"]) -> Tensor | None:
    """Sample ``heads``, the last layers' coordinates, outside every plate; None without any."""
    if heads is None:
        return None
    return pyro.sample(SITE, heads.prior() if law == "prior" else heads.guide())


def observe_factor_returns(
    law: FactorMixture, z: Tensor, value: Tensor | None, mask: Tensor
) -> None:
    """Sample or observe ``forward_return`` given shared factors, inside the date plate.

    Parameters
    ----------
    law : FactorMixture
        Batch (date, asset).
    z : Tensor, shape (date, 1, factor)
    value : Tensor, shape (date, asset), or None
        Returns, finite everywhere; None draws them.
    mask : Tensor of bool, shape (date, asset)
        Cells that count.
    """
    with pyro.plate("asset", law.beta.shape[1], dim=-1), poutine.mask(mask=mask):  # type: ignore[call-overload]
        pyro.sample("forward_return", FactorReturn(law, z), obs=value)


def observe_independent_returns(law: MixtureOfNormals, value: Tensor | None, mask: Tensor) -> None:
    """Sample or observe ``forward_return`` of assets that share nothing, inside the date plate.

    Arguments as in `observe_factor_returns`; the law has the batch shape (date, asset).
    """
    with pyro.plate("asset", law.batch_shape[1], dim=-1), poutine.mask(mask=mask):  # type: ignore[call-overload]
        pyro.sample("forward_return", law, obs=value)


def penalise(penalty: Tensor, observed: Tensor) -> None:
    """Add a log prior of ``-penalty`` for each observed cell, inside the date plate.

    Parameters
    ----------
    penalty : Tensor, shape ()
        Nats per observed cell.
    observed : Tensor of bool, shape (date, asset)
    """
    cells = observed.sum(1, keepdim=True).to(penalty.dtype)
    pyro.factor(PENALTY, -penalty * cells)
