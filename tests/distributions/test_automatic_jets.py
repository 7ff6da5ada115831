"""Automatic jets of a pricing law against differences and row-wise transforms."""

import pytest
import torch
from torch import Tensor
from torch.func import jacfwd, jacrev, vmap

from nfi_pyro.distributions import law_jets
from nfi_pyro.distributions.law_jets import automatic_jets

FACTORS, ROWS, COMPONENTS = 3, 7, 2


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


SLOPES, TILTS = normal(COMPONENTS, FACTORS, seed=1), normal(COMPONENTS, FACTORS, seed=2)


def law(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights that do not move, and parameters that need broadcasting."""
    loc = torch.sin(beta @ SLOPES.T)
    return torch.zeros(COMPONENTS, dtype=beta.dtype), loc, torch.tanh(beta @ TILTS.T)


@pytest.mark.parametrize("few", [0, 10**6])
def test_jets_are_the_row_wise_derivatives(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(law_jets, "FEW", few)
    beta = normal(ROWS, FACTORS, seed=3)

    def stacked(point: Tensor) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*law(point)), dim=-2)

    found = automatic_jets(law, beta, 2)
    assert found.value.shape == (ROWS, 3, COMPONENTS)
    torch.testing.assert_close(found.first, vmap(jacfwd(stacked))(beta), rtol=1e-12, atol=1e-14)
    want = vmap(jacrev(jacrev(stacked)))(beta)
    torch.testing.assert_close(found.second, want, rtol=1e-11, atol=1e-13)
    assert found.second is not None
    assert torch.equal(found.second, found.second.mT)


def test_orders_below_two_are_cheaper() -> None:
    beta = normal(ROWS, FACTORS, seed=3)
    value, one = automatic_jets(law, beta, 0), automatic_jets(law, beta, 1)
    assert value.first.shape == (ROWS, 3, COMPONENTS, 0)
    assert value.second is None
    assert one.second is None
    assert one.first.shape == (ROWS, 3, COMPONENTS, FACTORS)
