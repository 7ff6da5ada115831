"""Closed-form derivatives of a perceptron against automatic differentiation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacrev, vmap

from nfi_pyro.nets.jets import SMOOTH, perceptron_jet
from nfi_pyro.nets.pricing import Perceptron

ROWS, FACTORS, HIDDEN = 7, 3, 5


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", sorted(SMOOTH))
def test_an_activation_comes_with_its_first_and_second_derivative(name: str) -> None:
    smooth = SMOOTH[name]
    x = torch.linspace(-9.0, 9.0, 37, dtype=torch.float64)

    def value(point: Tensor) -> Tensor:
        return smooth(point)[0]

    _, first, second = smooth(x)
    torch.testing.assert_close(first, vmap(grad(value))(x), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(second, vmap(grad(grad(value)))(x), rtol=1e-12, atol=1e-14)
    named: dict[str, Callable[[Tensor], Tensor]] = {
        "tanh": torch.tanh,
        "silu": torch.nn.functional.silu,
        "softplus": torch.nn.functional.softplus,
    }
    torch.testing.assert_close(value(x), named[name](x), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("activation", sorted(SMOOTH))
def test_a_jet_is_value_gradient_and_hessian(
    seeded, activation: str, n_layers: int, linear: bool
) -> None:
    with seeded(1):
        net = Perceptron(FACTORS, HIDDEN, n_layers, activation, linear=linear).double()
    if net.slope is not None:
        with torch.no_grad():
            net.slope.copy_(normal(FACTORS, seed=2))
    beta = 1.5 * normal(ROWS, FACTORS, seed=3)
    jet = net.jet(beta)
    assert jet.hessian.shape == (ROWS, FACTORS, FACTORS)
    torch.testing.assert_close(jet.value, net(beta), rtol=1e-12, atol=1e-13)
    gradient, second = vmap(jacrev(net))(beta), vmap(hessian(net))(beta)
    torch.testing.assert_close(jet.gradient, gradient, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(jet.hessian, second, rtol=1e-10, atol=1e-12)
    assert torch.equal(jet.hessian, jet.hessian.mT)
    assert float(second.detach().abs().max()) > 1e-3  # the comparison has something to compare


def test_layers_of_different_widths() -> None:
    sizes = (3, 7, 2, 5)
    layers = [
        (0.7 * normal(sizes[k + 1], sizes[k], seed=k), normal(sizes[k + 1], seed=10 + k))
        for k in range(3)
    ]
    readout, beta = normal(5, seed=20), normal(ROWS, 3, seed=21)

    def network(point: Tensor) -> Tensor:
        for weight, bias in layers:
            point = torch.tanh(weight @ point + bias)
        return readout @ point

    jet = perceptron_jet(beta, layers, readout, "tanh")
    torch.testing.assert_close(jet.value, vmap(network)(beta), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(jet.gradient, vmap(jacrev(network))(beta), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(jet.hessian, vmap(hessian(network))(beta), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (2,), (2, 1, 3), (0,)])
def test_any_batch_shape(seeded, shape: tuple[int, ...]) -> None:
    with seeded(1):
        net = Perceptron(FACTORS, HIDDEN, 2, "tanh", linear=True).double()
    beta = normal(*shape, FACTORS, seed=4)
    jet = net.jet(beta)
    assert jet.value.shape == shape
    assert jet.gradient.shape == (*shape, FACTORS)
    assert jet.hessian.shape == (*shape, FACTORS, FACTORS)
    flat = net.jet(beta.reshape(-1, FACTORS))
    torch.testing.assert_close(jet.hessian.reshape(flat.hessian.shape), flat.hessian)


def test_a_jet_has_gradients_in_the_weights(seeded) -> None:
    with seeded(1):
        net = Perceptron(FACTORS, HIDDEN, 2, "silu", linear=True).double()
    beta = normal(ROWS, FACTORS, seed=5)
    own = torch.autograd.grad(net.jet(beta).hessian.square().sum(), list(net.deeper.parameters()))
    other = torch.autograd.grad(
        vmap(hessian(net))(beta).square().sum(), list(net.deeper.parameters())
    )
    for one, two in zip(own, other, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
    assert float(own[0].abs().max()) > 0
