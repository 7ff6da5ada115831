"""The low-rank operator against dense matrices, and draws against their computed error."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from nfi_pyro.distributions import LowRankPlusDiagonal
from nfi_pyro.errors import ShapeError

DATES, ASSETS, FACTORS = 7, 5, 3


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def operator(assets: int = ASSETS) -> LowRankPlusDiagonal:
    loadings = normal(DATES, assets, FACTORS, seed=1)
    return LowRankPlusDiagonal(loadings, normal(DATES, assets, seed=2).exp())


@pytest.mark.parametrize("assets", [1, 2, ASSETS, 101])
def test_every_operation_is_that_of_the_dense_matrix(assets: int) -> None:
    c, v = operator(assets), normal(DATES, assets, seed=3)
    dense = c.dense()
    want = {
        "matvec": (dense @ v.unsqueeze(-1)).squeeze(-1),
        "quadratic": torch.einsum("da,dab,db->d", v, dense, v),
        "solve": torch.linalg.solve(dense, v),
        "inverse_quadratic": (v * torch.linalg.solve(dense, v)).sum(-1),
        "log_prob": MultivariateNormal(torch.zeros_like(v), dense).log_prob(v),
    }
    for name, truth in want.items():
        torch.testing.assert_close(getattr(c, name)(v), truth, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(c.log_determinant(), torch.logdet(dense), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(c.variance, dense.diagonal(dim1=-2, dim2=-1), rtol=1e-13, atol=0)
    torch.testing.assert_close(c.matvec(c.solve(v)), v, rtol=1e-10, atol=1e-10)


def test_several_vectors_broadcast_over_one_matrix() -> None:
    one = LowRankPlusDiagonal(normal(ASSETS, FACTORS, seed=1), normal(ASSETS, seed=2).exp())
    many = normal(11, ASSETS, seed=4)
    torch.testing.assert_close(one.matvec(many), many @ one.dense(), rtol=1e-12, atol=1e-12)
    inverse = torch.linalg.inv(one.dense())
    torch.testing.assert_close(one.solve(many), many @ inverse, rtol=1e-10, atol=1e-10)
    assert one.quadratic(many).shape == (11,)


def test_what_is_not_observed_is_integrated_out() -> None:
    c, v = operator(), normal(DATES, ASSETS, seed=5)
    observed = torch.rand(DATES, ASSETS, generator=torch.Generator().manual_seed(6)) > 0.4
    observed[4] = False
    dense = c.dense()
    got = c.log_prob(torch.where(observed, v, 1e9), observed)
    for date in range(DATES):
        kept = observed[date]
        if not kept.any():
            assert float(got[date]) == 0.0
            continue
        truth = MultivariateNormal(
            torch.zeros(int(kept.sum())).double(), dense[date][kept][:, kept]
        )
        torch.testing.assert_close(got[date], truth.log_prob(v[date, kept]), rtol=1e-10, atol=0)


def test_derivatives_of_the_operator_are_exact() -> None:
    loadings = normal(2, ASSETS, FACTORS, seed=8).requires_grad_()
    diagonal = normal(2, ASSETS, seed=9).exp().requires_grad_()
    v = normal(2, ASSETS, seed=10)

    def density(loadings: Tensor, diagonal: Tensor) -> Tensor:
        c = LowRankPlusDiagonal(loadings, diagonal)
        return torch.stack([c.log_prob(v), c.quadratic(v), c.solve(v).sum(-1)])

    assert torch.autograd.gradcheck(density, (loadings, diagonal), atol=1e-7)
    outer = normal(3, 2, seed=13).requires_grad_()
    assert torch.autograd.gradgradcheck(
        density, (loadings, diagonal), (outer,), atol=1e-7, fast_mode=True
    )


def test_draws_have_the_covariance_and_their_seed_alone_decides() -> None:
    c, n = operator(), 20_000
    draws = c.draw(n, seed=11)
    assert draws.shape == (n, DATES, ASSETS)
    products = draws[..., :, None] * draws[..., None, :]
    error = products.std(0) / math.sqrt(n)
    assert float(((products.mean(0) - c.dense()).abs() / error).max()) < 4.5
    book = normal(ASSETS, seed=12)
    squares = (draws @ book).square()
    distance = (squares.mean(0) - c.quadratic(book)).abs()
    assert (distance < 4.0 * squares.std(0) / math.sqrt(n)).all()
    assert torch.equal(draws[:3], c.draw(n, seed=11)[:3])
    assert not torch.equal(draws[:3], c.draw(n, seed=12)[:3])


def test_five_thousand_assets_need_no_square_matrix() -> None:
    assets = 5_003
    c = LowRankPlusDiagonal(normal(assets, 16, seed=1), (0.1 * normal(assets, seed=2)).exp() * 0.01)
    v = normal(assets, seed=3)
    torch.testing.assert_close(c.matvec(c.solve(v)), v, rtol=1e-8, atol=1e-8)
    assert math.isfinite(float(c.log_determinant()))


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"of the same assets; got \(5, 3\) and \(4,\)"):
        LowRankPlusDiagonal(torch.ones(5, 3), torch.ones(4))
