"""Every matrix product of one training step, with the shapes and layouts of the package."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nfi_pyro.nets import predictor, windowed_gru
from tests.benchmarks.contenders import BLOCK, FEATURES, LAGS, SPEC

_H, _K, _M = SPEC.hidden_size, SPEC.n_factors, SPEC.n_portfolios


@dataclass(frozen=True)
class Product:
    """``left @ right``, run `count` times into `out`; matrices, or batches of matrices."""

    left: Tensor
    right: Tensor
    out: Tensor
    count: int

    @property
    def multiplications(self) -> int:
        """Scalar multiplications of all runs."""
        return self.left.numel() * self.right.shape[-1] * self.count

    def run(self) -> None:
        """Multiply."""
        for _ in range(self.count):
            torch.matmul(self.left, self.right, out=self.out)


def run_products(products: list[Product]) -> None:
    """Run all products. Operands are made once and reused, so they are as hot as can be."""
    for product in products:
        product.run()


def extractor_products(n_assets: int) -> list[Product]:
    """Return the products of the windowed GRU, gate-major and by chunk of assets."""
    n_chunks = -(-n_assets // (windowed_gru.CACHED_ROWS // BLOCK))
    chunk = -(-n_assets // n_chunks)
    sizes = [chunk] * (n_assets // chunk) + ([n_assets % chunk] if n_assets % chunk else [])
    products = []
    for size in sorted(set(sizes)):
        columns, rows, count = (BLOCK + LAGS - 1) * size, BLOCK * size, sizes.count(size)
        features = torch.randn(columns, FEATURES)
        projection = _both(torch.randn(SPEC.projection_size, FEATURES), features.t(), count)
        projection.pop(2)  # features need no gradient
        gates = _both(
            torch.randn(3 * _H, SPEC.projection_size), torch.randn_like(projection[0].out), count
        )
        lags = count * (LAGS - 1)  # the first state is 0
        weight, hidden, grad = (
            torch.randn(3 * _H, _H),
            torch.randn(_H, rows),
            torch.randn(3 * _H, rows),
        )
        recurrent = [
            _product(weight[: 2 * _H], hidden, lags),
            _product(weight[2 * _H :], hidden, lags),
            _product(weight.t(), grad, lags),
            _product(grad, hidden.t(), lags),
        ]
        products += projection + gates + recurrent
    return products


def predictor_products(n_assets: int) -> list[Product]:
    """Return the products of the factor predictor: key norms, scores, pooling, values, prior."""
    rows, chunk = BLOCK * n_assets, predictor.CACHED_ROWS
    products = _linear(chunk, _H, _K * _H, count=rows // chunk)
    if rows % chunk:
        products += _linear(rows % chunk, _H, _K * _H)
    products += _both(torch.randn(_K, 1, _H), torch.randn(_K, _H, _H))  # keys projected on queries
    products += _linear(rows, _H, _K)  # scores
    products += _both(
        torch.randn(BLOCK, n_assets, _K).transpose(1, 2), torch.randn(BLOCK, n_assets, _H)
    )
    products += _both(torch.randn(_K, BLOCK, _H), torch.randn(_K, _H, _H))  # values
    hidden = SPEC.prior_hidden_size
    return products + _linear(BLOCK * _K, _H, hidden) + 2 * _linear(BLOCK * _K, hidden, 1)


def head_products(n_assets: int) -> list[Product]:
    """Return the products of alpha, beta, the portfolio layer, the encoder and the objective."""
    rows, hidden = BLOCK * n_assets, SPEC.alpha_hidden_size
    products = _linear(rows, _H, hidden) + 2 * _linear(rows, hidden, 1) + _linear(rows, _H, _K)
    products += _linear(rows, _H, _M)
    returns = _both(torch.randn(BLOCK, 1, n_assets), torch.randn(BLOCK, n_assets, _M))
    returns.pop(1)  # realised returns need no gradient
    mapping = 2 * _linear(BLOCK, _M, _K)
    projections = 2 * _both(torch.randn(BLOCK, n_assets, _K), torch.randn(BLOCK, _K, 1))
    return products + returns + mapping + projections


def _linear(rows: int, in_size: int, out_size: int, count: int = 1) -> list[Product]:
    """Return a linear layer's product and the two of its backward pass."""
    features, weight = torch.randn(rows, in_size), torch.randn(out_size, in_size)
    grad = torch.randn(rows, out_size)
    return [
        _product(features, weight.t(), count),
        _product(grad, weight, count),
        _product(grad.t(), features, count),
    ]


def _both(left: Tensor, right: Tensor, count: int = 1) -> list[Product]:
    """Return ``left @ right``, then the products for the gradients of `left` and `right`."""
    forward = _product(left, right, count)
    grad = torch.randn_like(forward.out)
    return [
        forward,
        _product(grad, right.transpose(-1, -2), count),
        _product(left.transpose(-1, -2), grad, count),
    ]


def _product(left: Tensor, right: Tensor, count: int) -> Product:
    """Return a product with room for its result."""
    return Product(left, right, left @ right, count)
