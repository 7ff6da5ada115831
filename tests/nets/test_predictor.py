"""Global attention against a naive implementation of Eq. 14, and what it must not notice."""

import pytest
import torch
from torch import Tensor

from nfi_pyro.nets.heads import DistributionHead
from nfi_pyro.nets.predictor import FactorPredictor, GlobalAttention

DATES, ASSETS, FACTORS, HIDDEN = 7, 5, 3, 11


@pytest.fixture
def attention(seeded) -> GlobalAttention:
    with seeded(7):
        return GlobalAttention(HIDDEN, FACTORS, asset_chunk=2).double()


@pytest.fixture
def hidden() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(DATES, ASSETS, HIDDEN, generator=generator, dtype=torch.float64)


@pytest.fixture
def present() -> Tensor:
    mask = torch.rand(DATES, ASSETS, generator=torch.Generator().manual_seed(2)) > 0.3
    mask[3] = False  # an empty date
    mask[4] = torch.tensor([False, True, False, False, False])
    return mask


def naive(attention: GlobalAttention, hidden: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights (date, asset, head) and values by Eq. 14 with every tensor written out."""
    keys = attention.key(hidden).view(*hidden.shape[:2], FACTORS, HIDDEN)
    values = torch.einsum("dae,khe->dakh", hidden, attention.value_weight) + attention.value_bias
    cosine = torch.nn.functional.cosine_similarity(attention.query, keys, dim=-1)
    cosine = cosine.detach()
    weights = torch.zeros_like(cosine)
    for date in range(hidden.shape[0]):
        there = present[date].nonzero().flatten().tolist()
        for head in range(FACTORS):
            scores = {asset: max(0.0, float(cosine[date, asset, head])) for asset in there}
            total = sum(scores.values())
            for asset in there:
                share = scores[asset] / total if total > 0 else 1.0 / len(there)
                weights[date, asset, head] = share
    return weights, (weights.unsqueeze(-1) * values).sum(1)


def test_weights_and_pooled_values_equal_a_naive_implementation(attention, hidden, present) -> None:
    weights, pooled = naive(attention, hidden, present)
    torch.testing.assert_close(attention.weights(hidden, present), weights, rtol=1e-12, atol=1e-14)
    some = present.any(1)
    got = attention(hidden, present)
    torch.testing.assert_close(got[some], pooled[some], rtol=1e-11, atol=1e-13)


def test_weights_sum_to_one_over_the_assets_present(attention, hidden, present) -> None:
    weights = attention.weights(hidden, present)
    total = weights.sum(1)
    expected = present.any(1).double()[:, None].expand_as(total)
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-14)
    assert (weights[~present] == 0).all()
    assert (weights >= 0).all()


def test_scores_that_are_all_negative_give_the_uniform_average(attention, present) -> None:
    with torch.no_grad():
        attention.key.weight.zero_()
        attention.key.bias.copy_(-attention.query.flatten())  # cosine of -1 for every asset
    hidden = torch.ones(DATES, ASSETS, HIDDEN, dtype=torch.float64)
    weights = attention.weights(hidden, present)
    count = present.sum(1).clamp(min=1)[:, None, None]
    uniform = present.unsqueeze(-1).double() / count
    torch.testing.assert_close(weights, uniform.expand_as(weights), rtol=0, atol=1e-15)


def test_an_empty_date_is_finite_with_finite_gradients(attention, hidden, present) -> None:
    hidden.requires_grad_()
    pooled = attention(hidden, torch.zeros_like(present))
    assert torch.isfinite(pooled).all()
    torch.testing.assert_close(pooled, attention.value_bias.expand_as(pooled), rtol=0, atol=1e-15)
    pooled.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in attention.parameters() if p.grad is not None)
    assert torch.isfinite(hidden.grad).all()


def test_permuting_assets_permutes_the_weights(attention, hidden, present) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    weights = attention.weights(hidden, present)
    permuted = attention.weights(hidden[:, order], present[:, order])
    torch.testing.assert_close(permuted, weights[:, order], rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(
        attention(hidden[:, order], present[:, order]),
        attention(hidden, present),
        rtol=1e-12,
        atol=0,
    )


def test_an_absent_asset_has_no_weight_and_no_influence(attention, hidden, present) -> None:
    other = torch.where(present.unsqueeze(-1), hidden, 1e6 * hidden + 7.0)
    weights = attention.weights(other, present)
    assert (weights[~present] == 0.0).all()
    assert torch.equal(attention(other, present), attention(hidden, present))


@pytest.mark.parametrize("asset_chunk", [None, 1, 3, 5, 128])
def test_the_chunk_size_does_not_matter(
    attention, hidden, present, asset_chunk: int | None
) -> None:
    before = attention.weights(hidden, present)
    attention.asset_chunk = asset_chunk
    after = attention.weights(hidden, present)
    torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-15)


def test_scale_of_query_and_keys_cancels(attention, hidden, present) -> None:
    before = attention.weights(hidden, present)
    with torch.no_grad():
        attention.query *= 37.0
        attention.key.weight *= 0.01
        attention.key.bias *= 0.01
    torch.testing.assert_close(attention.weights(hidden, present), before, rtol=1e-11, atol=1e-14)


def test_gradients_equal_those_of_the_written_out_attention(attention, hidden, present) -> None:
    present = present.clone()
    present[3] = True
    keys = attention.key(hidden).view(DATES, ASSETS, FACTORS, HIDDEN)
    values = torch.einsum("dae,khe->dakh", hidden, attention.value_weight) + attention.value_bias
    cosine = torch.nn.functional.cosine_similarity(attention.query, keys, dim=-1)
    scores = torch.relu(cosine) * present.unsqueeze(-1)
    total = scores.sum(1, keepdim=True)
    uniform = present.unsqueeze(-1) / present.sum(1)[:, None, None]
    weights = torch.where(total > 0, scores / total.clamp(min=1e-300), uniform)
    reference = (weights.unsqueeze(-1) * values).sum(1)
    probe = torch.linspace(-1, 1, reference.numel(), dtype=torch.float64).view_as(reference)
    parameters = list(attention.parameters())
    wanted = torch.autograd.grad((reference * probe).sum(), parameters)
    got = torch.autograd.grad((attention(hidden, present) * probe).sum(), parameters)
    for own, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)


def test_the_predictor_is_one_shared_head_over_the_attention(seeded, hidden, present) -> None:
    with seeded(4):
        net = FactorPredictor(HIDDEN, FACTORS, 13, scale_floor=0.01, negative_slope=0.1).double()
    loc, scale = net(hidden, present)
    assert loc.shape == scale.shape == (DATES, FACTORS)
    assert isinstance(net.head, DistributionHead)
    pooled = net.attention(hidden, present)
    for factor in range(FACTORS):
        one_loc, one_scale = net.head(pooled[:, factor])
        torch.testing.assert_close(loc[:, factor], one_loc, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(scale[:, factor], one_scale, rtol=1e-12, atol=1e-14)
