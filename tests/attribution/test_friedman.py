"""Friedman's H squared: closed forms, a literal double loop, pooling, errors."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nfi_pyro.attribution.couplings.friedman import friedman_h_squared
from nfi_pyro.errors import SpecError
from tests.attribution.coupling_laws import draw, make_law

PAIR = [("z0", "z2")]


def crossed() -> Tensor:
    """Return exposures whose columns are independent and centred: every pair of two grids."""
    first = torch.tensor([-2.0, -0.5, 1.0, 1.5], dtype=torch.float64)
    second = torch.tensor([-1.0, 0.25, 0.75], dtype=torch.float64)
    third = torch.tensor([-3.0, 3.0], dtype=torch.float64)
    return torch.cartesian_prod(first, third, second)


def number(found: Any, name: str = "h_squared") -> float:
    return float(found[name].values[0])


def test_an_additive_law_has_none_whatever_its_curvature() -> None:
    law = make_law(lambda x: x[..., 0].exp() + x[..., 2] ** 3 + x[..., 1], draw(13, 3))
    found = friedman_h_squared(law, PAIR)
    assert number(found) < 1e-25
    assert number(found, "interaction_scale") < 1e-15


def test_a_product_of_centred_independent_exposures_is_all_interaction() -> None:
    beta = crossed()
    found = friedman_h_squared(make_law(lambda x: x[..., 0] * x[..., 2], beta), PAIR)
    assert number(found) == pytest.approx(1.0, rel=1e-12)
    size = 0.02 * (beta[:, 0] * beta[:, 2]).std(unbiased=False)
    assert number(found, "interaction_scale") == pytest.approx(float(size), rel=1e-12)


def test_main_effects_and_a_product_share_the_variance() -> None:
    """Of a x + b y + c xy, x and y centred and independent, the product's share is H squared."""
    beta, (a, b, c) = crossed(), (0.7, -1.1, 0.4)
    law = make_law(
        lambda x: a * x[..., 0] + c * x[..., 0] * x[..., 2] + x[..., 1] ** 2,
        beta,
        slope=torch.tensor([0.0, 0.5, b], dtype=torch.float64),  # the factors' own premium counts
    )
    vx, vy = (float(beta[:, k].var(unbiased=False)) for k in (0, 2))
    wanted = c**2 * vx * vy / (a**2 * vx + b**2 * vy + c**2 * vx * vy)
    assert number(friedman_h_squared(law, PAIR)) == pytest.approx(wanted, rel=1e-12)


def test_it_is_the_literal_double_sum() -> None:
    beta = draw(7, 3, seed=5)

    def value(x: Tensor) -> Tensor:
        return torch.sin(x[..., 0] * x[..., 1]) + x[..., 2] * x[..., 0] ** 2

    points = beta.numpy()

    def dependence(held: list[int]) -> np.ndarray:
        found = []
        for own in points:
            moved = points.copy()
            moved[:, held] = own[held]
            found.append(0.02 * value(torch.from_numpy(moved)).mean().item())
        return np.array(found) - np.mean(found)

    both, one, other = dependence([0, 2]), dependence([0]), dependence([2])
    found = friedman_h_squared(make_law(value, beta), PAIR)
    gap = both - one - other
    assert number(found) == pytest.approx((gap**2).sum() / (both**2).sum(), rel=1e-12)
    scale = np.sqrt((gap**2).mean())
    assert number(found, "interaction_scale") == pytest.approx(scale, rel=1e-12)


def test_laws_are_pooled_by_their_sums() -> None:
    def value(x: Tensor) -> Tensor:
        return x[..., 0] * x[..., 2] + x[..., 0]

    sizes = (11, 17)
    laws = [make_law(value, draw(n, 3, seed=n), day=n % 7 + 1) for n in sizes]
    parts = [friedman_h_squared(law, PAIR) for law in laws]
    tops = [
        number(part, "interaction_scale") ** 2 * n for part, n in zip(parts, sizes, strict=True)
    ]
    joint = [top / number(part) for top, part in zip(tops, parts, strict=True)]
    wanted = sum(tops) / sum(joint)
    assert number(friedman_h_squared(laws, PAIR)) == pytest.approx(wanted, rel=1e-12)


def test_points_bound_the_work_and_come_from_the_seed() -> None:
    sizes: list[int] = []
    points: list[Tensor] = []

    def value(x: Tensor) -> Tensor:
        if x.ndim == 3:
            sizes.append(x.shape[0] * x.shape[1])
        else:
            points.append(x)
        return x[..., 0] * x[..., 2] + 0.3 * x[..., 0] * x[..., 1]

    law = make_law(value, draw(101, 3))
    pairs = [("z0", "z2"), ("z1", "z0")]
    found = friedman_h_squared(law, pairs, n_points=97, seed=5)
    assert len(points[0].unique(dim=0)) == 97  # without replacement
    sizes.clear()
    found = friedman_h_squared(law, pairs, n_points=13, seed=5)
    assert max(sizes) == 13**2
    assert found.equals(friedman_h_squared(law, pairs, n_points=13, seed=5))
    assert not found.equals(friedman_h_squared(law, pairs, n_points=13, seed=7))
    assert found["pair"].values.tolist() == ["z0 x z2", "z1 x z0"]
    assert found["first"].values.tolist() == ["z0", "z1"]
    alone = friedman_h_squared(law, pairs[1:], n_points=13, seed=5)
    assert number(alone) == float(found["h_squared"].values[1])
    every = friedman_h_squared(law, pairs, n_points=101, seed=5)
    assert every.equals(friedman_h_squared(law, pairs, n_points=997, seed=7))


def test_factors_that_move_nothing_have_no_share() -> None:
    found = friedman_h_squared(make_law(lambda x: 3.0 + x[..., 1] ** 2, draw(13, 3)), PAIR)
    assert np.isnan(number(found))
    assert number(found, "interaction_scale") == 0.0


def test_what_makes_no_sense_is_refused() -> None:
    law = make_law(lambda x: x[..., 0] * x[..., 1], draw(7, 3))
    with pytest.raises(SpecError, match="laws must hold a law; got none"):
        friedman_h_squared([], PAIR)
    for pairs in ([("z0", "z0")], [("z0", "value")], [("z0",)], [("z0", "z1", "z2")]):
        with pytest.raises(SpecError, match=r"pairs must name two different factors each; got \("):
            friedman_h_squared(law, pairs)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="got none at friedman_h_squared"):
        friedman_h_squared(law, [])
    with pytest.raises(SpecError, match="n_points must be from 2 to inf; got 1"):
        friedman_h_squared(law, PAIR, n_points=1)
    with pytest.raises(SpecError, match="seed must be in"):
        friedman_h_squared(law, PAIR, seed=-1)
    with pytest.raises(SpecError, match="must have two assets or more; got fewer on 2021-05-03"):
        friedman_h_squared(make_law(lambda x: x[..., 0], draw(1, 3)), PAIR)
    other = make_law(lambda x: x[..., 0], draw(7, 2), day=5)
    with pytest.raises(SpecError, match="same factors; got others on 2021-05-05"):
        friedman_h_squared([law, other], PAIR)
