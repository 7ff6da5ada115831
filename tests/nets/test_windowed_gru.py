"""The windowed GRU is nn.GRU on unfolded windows, without the windows."""

import pytest
import torch
from torch import Tensor, nn

from nfi_pyro.nets.windowed_gru import WindowedGRU

DATES, ASSETS, FEATURES, PROJECTION, HIDDEN, SLOPE = 7, 5, 11, 13, 3, 0.1


def build(seeded, asset_chunk: int | None = None) -> WindowedGRU:
    with seeded(3):
        net = WindowedGRU(
            FEATURES, PROJECTION, HIDDEN, negative_slope=SLOPE, asset_chunk=asset_chunk
        )
    return net.double()


def features_of(lags: int) -> Tensor:
    generator = torch.Generator().manual_seed(lags)
    shape = (DATES + lags - 1, ASSETS, FEATURES)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def unfolded(net: WindowedGRU, features: Tensor, lags: int) -> Tensor:
    """Return the last hidden state of torch's GRU on every window, one copy of the data each."""
    with torch.random.fork_rng(devices=[]):
        gru = nn.GRU(PROJECTION, HIDDEN, batch_first=True).double()
    parameters = {
        "weight_ih_l0": net.gru.weight_ih,
        "weight_hh_l0": net.gru.weight_hh,
        "bias_ih_l0": net.gru.bias_ih,
        "bias_hh_l0": net.gru.bias_hh,
    }
    projected = nn.functional.leaky_relu(net.projection(features), SLOPE)
    windows = projected.unfold(0, lags, 1).permute(0, 1, 3, 2)  # (block, asset, lag, projection)
    flat = windows.reshape(-1, lags, PROJECTION)
    _, last = torch.func.functional_call(gru, parameters, (flat,))
    return last[0].view(-1, ASSETS, HIDDEN)


@pytest.mark.parametrize("asset_chunk", [None, 1, 2, 5, 128])
@pytest.mark.parametrize("lags", [1, 2, 5])
def test_values_and_gradients_are_those_of_torch_on_unfolded_windows(
    seeded, lags: int, asset_chunk: int | None
) -> None:
    net = build(seeded, asset_chunk)
    features = features_of(lags).requires_grad_()
    weights = torch.randn(
        DATES, ASSETS, HIDDEN, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    inputs = [features, *net.parameters()]

    ours = net(features, DATES)
    theirs = unfolded(net, features, lags)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)

    # With one lag the recurrent weights multiply zero: torch gives zeros, ours may give None.
    own = torch.autograd.grad((ours * weights).sum(), inputs, allow_unused=True)
    reference = torch.autograd.grad((theirs * weights).sum(), inputs)
    for ours_grad, theirs_grad in zip(own, reference, strict=True):
        got = torch.zeros_like(theirs_grad) if ours_grad is None else ours_grad
        torch.testing.assert_close(got, theirs_grad, rtol=1e-10, atol=1e-12)


def test_a_window_sees_its_own_lags_only(seeded) -> None:
    net = build(seeded)
    features = features_of(2)
    before = net(features, DATES)
    features[4] += 1.0
    moved = (net(features, DATES) != before).flatten(1).any(1)
    # Position 4 of the features is the last lag of window 3 and the first of window 4.
    assert moved.tolist() == [False, False, False, True, True, False, False]


def test_an_asset_sees_itself_only(seeded) -> None:
    net = build(seeded)
    features = features_of(2)
    before = net(features, DATES)
    features[:, 2] += 1.0
    moved = (net(features, DATES) != before).any(2).any(0)
    assert moved.tolist() == [False, False, True, False, False]


def test_state_dict_keeps_the_layout_of_torch(seeded) -> None:
    shapes = {name: tuple(value.shape) for name, value in build(seeded).state_dict().items()}
    assert shapes == {
        "projection.weight": (PROJECTION, FEATURES),
        "projection.bias": (PROJECTION,),
        "gru.weight_ih": (3 * HIDDEN, PROJECTION),
        "gru.weight_hh": (3 * HIDDEN, HIDDEN),
        "gru.bias_ih": (3 * HIDDEN,),
        "gru.bias_hh": (3 * HIDDEN,),
    }


def test_gradients_pass_gradcheck(seeded) -> None:
    net = build(seeded, asset_chunk=2)
    features = features_of(2)[:4, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x, 3), (features,), atol=1e-8, fast_mode=True)


@pytest.mark.parametrize("lags", [1, 2])
def test_second_derivatives_pass_gradcheck(seeded, lags: int) -> None:
    net = build(seeded)
    features = features_of(lags)[: 2 + lags, :2].clone().requires_grad_()
    with seeded(0):  # the check draws its own directions
        assert torch.autograd.gradgradcheck(lambda x: net(x, 3), (features,), fast_mode=True)


def test_a_hidden_state_that_nothing_uses_costs_no_gradient(seeded) -> None:
    net = build(seeded)
    features = features_of(2).requires_grad_()
    hidden = net(features, DATES)
    (gradient,) = torch.autograd.grad(hidden[2].sum(), features)
    assert (gradient.flatten(1) != 0).any(1).tolist() == [False, False, True, True] + [False] * 4


@pytest.mark.parametrize("lags", [1, 2, 5])
def test_the_gradient_that_keeps_its_graph_is_the_same_gradient(seeded, lags: int) -> None:
    net = build(seeded)
    features = features_of(lags).requires_grad_()
    inputs = [features, *net.parameters()]
    loss = net(features, DATES).sin().sum()
    once = torch.autograd.grad(loss, inputs, retain_graph=True)
    again = torch.autograd.grad(loss, inputs, create_graph=True)
    for own, other in zip(once, again, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-12)
