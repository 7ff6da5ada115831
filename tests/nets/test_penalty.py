"""Penalties on alpha in closed form, and what each of them drives to zero."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.func import hessian, vmap

from nfi_pyro.nets.penalty import MOST_POINTS, Penalty
from nfi_pyro.nets.pricing import Perceptron

DATES, ASSETS, FACTORS, HIDDEN = 7, 5, 3, 4


@pytest.fixture
def alpha(seeded) -> Perceptron:
    with seeded(2):
        net = Perceptron(FACTORS, HIDDEN, 2, "tanh", linear=True).double()
    assert net.slope is not None
    with torch.no_grad():
        net.slope.copy_(torch.tensor([0.5, -1.0, 0.25]))
    return net


def points(n_dates: int = DATES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (n_dates, ASSETS, FACTORS)
    beta = torch.randn(shape, generator=generator, dtype=torch.float64)
    return beta, torch.rand(shape[:2], generator=generator) > 0.3


def value(alpha: Perceptron, **weights: float) -> float:
    return float(Penalty(**weights).evaluate(alpha, *points()).detach())


def test_sizes_are_sums_over_weights_and_no_bias(alpha) -> None:
    parts = [p for name, p in alpha.named_parameters() if not name.endswith("bias")]
    assert len(parts) == 4
    modulus = sum(float(p.detach().abs().sum()) for p in parts)
    square = sum(float(p.detach().square().sum()) for p in parts)
    assert value(alpha, l1=0.3) == pytest.approx(0.3 * modulus, rel=1e-12)
    assert value(alpha, l2=0.7) == pytest.approx(0.7 * square, rel=1e-12)
    with torch.no_grad():
        for layer in (alpha.first, *alpha.deeper, alpha.readout):
            layer.bias.add_(100.0)
    assert value(alpha, l1=0.3) == pytest.approx(0.3 * modulus, rel=1e-12)


def test_the_group_penalty_is_the_sum_of_norms_by_factor(alpha) -> None:
    rows = torch.cat([alpha.first.weight, alpha.slope.unsqueeze(-1)], dim=1).detach()
    want = 2.0 * float(rows.norm(dim=1).sum())
    assert value(alpha, group=2.0) == pytest.approx(want, rel=1e-9)


def test_the_smooth_penalty_is_the_mean_squared_norm_of_the_hessian(alpha) -> None:
    beta, present = points()
    second = vmap(hessian(alpha))(beta[present])
    want = float(second.square().sum((-1, -2)).mean().detach())
    assert want > 1e-4
    assert value(alpha, smooth=5.0) == pytest.approx(5.0 * want, rel=1e-10)


def test_penalties_add_up(alpha) -> None:
    weights = {"l1": 0.1, "l2": 0.2, "group": 0.3, "smooth": 0.4}
    whole = value(alpha, **weights)
    assert whole == pytest.approx(sum(value(alpha, **{k: v}) for k, v in weights.items()))
    assert Penalty(**weights).active
    assert not Penalty().active
    assert value(alpha) == 0.0


def test_a_linear_alpha_has_no_curvature(alpha) -> None:
    with torch.no_grad():
        alpha.readout.weight.zero_()
    assert value(alpha, smooth=1.0) == 0.0


def test_exposures_that_do_not_count_do_not_matter(alpha) -> None:
    beta, present = points()
    other = torch.where(present.unsqueeze(-1), beta, 1e3)
    penalty = Penalty(smooth=1.0)
    assert torch.equal(
        penalty.evaluate(alpha, beta, present), penalty.evaluate(alpha, other, present)
    )
    none = torch.zeros_like(present)
    assert float(penalty.evaluate(alpha, beta, none)) == 0.0


@pytest.mark.parametrize("n_dates", [52, 101, 211])
def test_the_points_of_many_exposures_span_the_whole_block(alpha, n_dates: int) -> None:
    beta, _ = points(n_dates)
    rows, present = beta.reshape(-1, FACTORS), torch.ones(n_dates, ASSETS, dtype=torch.bool)
    assert len(rows) > MOST_POINTS
    seen: list[Tensor] = []

    class Watched(Perceptron):
        def jet(self, beta: Tensor):
            seen.append(beta)
            return super().jet(beta)

    alpha.__class__ = Watched
    Penalty(smooth=1.0).evaluate(alpha, beta, present)
    (chosen,) = seen
    step = len(rows) / len(chosen)
    assert MOST_POINTS / 2 < len(chosen) <= MOST_POINTS
    last = int((rows == chosen[-1]).all(1).nonzero())
    assert last >= len(rows) - 2 * step  # the end of the block counts as well as its beginning


@pytest.mark.parametrize("name", ["l1", "l2", "group", "smooth"])
def test_a_negative_weight_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Penalty(**{name: -0.1})


def test_the_group_penalty_drives_a_useless_factor_out(seeded) -> None:
    """Simulated truth: factor 0 explains nothing; what is left of it is a tenth of factor 1's."""
    generator = torch.Generator().manual_seed(5)
    beta = torch.randn((31, 13, 2), generator=generator, dtype=torch.float64)
    target = beta[..., 1] + 0.3 * torch.randn((31, 13), generator=generator, dtype=torch.float64)
    present = torch.ones(31, 13, dtype=torch.bool)
    norms = {}
    for weight in (0.0, 0.05):
        with seeded(6):
            net = Perceptron(2, 3, 1, "tanh", linear=True).double()
        optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
        for _ in range(300):
            optimiser.zero_grad()
            error = 0.5 * (net(beta) - target).square().mean()
            (error + Penalty(group=weight).evaluate(net, beta, present)).backward()
            optimiser.step()
        norms[weight] = net.factor_norms().detach()
    assert float(norms[0.05][0] / norms[0.05][1]) < 0.1
    assert float(norms[0.0][0] / norms[0.0][1]) > 0.1
