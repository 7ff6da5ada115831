"""The distribution network is Eq. 10, written out."""

import torch

from nfi_pyro.nets.heads import DistributionHead

DATES, ASSETS, HIDDEN, SLOPE, FLOOR = 7, 5, 3, 0.1, 0.02


def test_head_is_equation_ten(seeded) -> None:
    with seeded(2):
        head = DistributionHead(HIDDEN, 11, scale_floor=FLOOR, negative_slope=SLOPE).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(DATES, ASSETS, HIDDEN, generator=generator, dtype=torch.float64)
    loc, scale = head(x)
    assert loc.shape == scale.shape == (DATES, ASSETS)
    linear = x @ head.hidden.weight.T + head.hidden.bias
    hidden = torch.where(linear > 0, linear, SLOPE * linear)
    want_loc = hidden @ head.loc.weight[0] + head.loc.bias
    raw = hidden @ head.raw_scale.weight[0] + head.raw_scale.bias
    torch.testing.assert_close(loc, want_loc, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(scale, torch.log1p(torch.exp(raw)) + FLOOR, rtol=1e-12, atol=1e-14)
    assert (linear < 0).any()  # the slope was seen


def test_scale_never_falls_below_its_floor(seeded) -> None:
    with seeded(2):
        head = DistributionHead(HIDDEN, 11, scale_floor=FLOOR, negative_slope=SLOPE).double()
    with torch.no_grad():
        head.raw_scale.bias.fill_(-1e4)
    _, scale = head(torch.ones(DATES, HIDDEN, dtype=torch.float64))
    assert torch.equal(scale, torch.full_like(scale, FLOOR))
