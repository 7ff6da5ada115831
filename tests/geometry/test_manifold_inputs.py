"""Bad input to a manifold: a named error or a flag, never a quiet number."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry import FisherManifold
from tests.geometry.closed_laws import draws, network_law, normal_law, pricing_law, tensor

FACTORS = 3


class Head(nn.Module):
    """A network with layers of a given kind in the middle."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(FACTORS, 16), middle, nn.Linear(16, 6)).double()

    def forward(self, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, loc, log_scale = self.body(beta).unflatten(-1, (3, 2)).unbind(-2)
        return logits, loc, log_scale


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"eps": -1e-3}, "eps must be at least 0 and finite; got -0.001"),
        ({"eps": math.inf}, "eps must be at least 0"),
        ({"eps": math.nan}, "eps must be at least 0"),
        ({"rank_tol": 0.0}, "rank_tol must lie in"),
        ({"nodes": "gauss"}, "nodes must be one of c11n4, c11n6"),
        ({"precision": torch.zeros(3, 3)}, "symmetric positive definite"),
        ({"precision": torch.tensor([[1.0, 0.5], [0.0, 1.0]])}, "symmetric positive definite"),
        ({"background": torch.zeros(9, 3)}, "must fill all 3 directions"),
        ({"background": draws(3, 3, seed=1)}, "must fill all 3 directions; got 3 rows"),
        ({"background": torch.full((9, 3), math.nan)}, "background must be finite.*row 0"),
    ],
)
def test_values_out_of_range(values: dict[str, Any], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        FisherManifold(network_law(FACTORS, 2), **values)


def test_shapes() -> None:
    with pytest.raises(ShapeError, match="square matrix"):
        FisherManifold(normal_law, precision=torch.zeros(3))
    with pytest.raises(ShapeError, match="background's 3 factors"):
        FisherManifold(normal_law, precision=torch.eye(2), background=draws(9, 3, seed=1))
    with pytest.raises(ShapeError, match="background must be exposures"):
        FisherManifold(normal_law, background=draws(9, seed=1))
    manifold = FisherManifold(pricing_law(FACTORS, 2))
    with pytest.raises(ShapeError, match=r"end in the manifold's 3 factors; got shape \(7, 4\)"):
        manifold.metric(draws(7, 4, seed=1))
    with pytest.raises(ShapeError, match="manifold's 3 factors"):
        manifold.exp(draws(7, 3, seed=1), draws(7, 2, seed=1))
    with pytest.raises(ShapeError, match="leading axes must broadcast"):
        manifold.distance(draws(7, 3, seed=1), draws(5, 3, seed=1))
    with pytest.raises(SpecError, match="method must be one of geodesic"):
        manifold.distance(draws(3, seed=1), draws(3, seed=2), "euclid")  # type: ignore[call-overload]


def test_exposures_that_are_not_finite_are_named() -> None:
    manifold, beta = FisherManifold(pricing_law(FACTORS, 2)), draws(7, 3, seed=1)
    beta[2, 1], beta[5, 0] = math.nan, math.inf
    for call in (
        lambda: manifold.metric(beta),
        lambda: manifold.principal_curvature(beta),
        lambda: manifold.distance(beta, draws(3, seed=2)),
        lambda: manifold.mahalanobis(beta),
        lambda: manifold.laplacian(lambda point: point.sum(-1), beta),
    ):
        with pytest.raises(SpecError, match=r"must be finite.*at row 2, 5"):
            call()


def test_geodesics_ask_for_damping() -> None:
    manifold, x, y = FisherManifold(normal_law, 0.0), tensor(0.3, 0.8), tensor(0.1, 0.9)
    for name, call in (
        ("exp", lambda: manifold.exp(x, y)),
        ("log", lambda: manifold.log(x, y)),
        ("geodesic", lambda: manifold.geodesic(x, y)),
    ):
        with pytest.raises(SpecError, match=f"eps must be above 0 for {name}; got 0"):
            call()
    assert torch.isfinite(manifold.distance(x, y))  # an infimum, whether or not it is attained


def test_active_dropout_is_refused() -> None:
    head, beta = Head(nn.Sequential(nn.Tanh(), nn.Dropout(0.5))), draws(7, FACTORS, seed=1)
    with pytest.raises(SpecError, match=r"active dropout at body\.1\.1"):
        FisherManifold(head).metric(beta)
    assert torch.isfinite(FisherManifold(head.eval()).metric(beta)).all()

    def hidden(point: Tensor) -> tuple[Tensor, ...]:
        return tuple(nn.functional.dropout(part, 0.5) for part in head(point))

    with pytest.raises(SpecError, match="the same law when called twice"):
        FisherManifold(hidden).metric(beta)  # type: ignore[arg-type]


def test_a_network_with_kinks_has_a_metric_and_no_curvature() -> None:
    beta = draws(7, FACTORS, seed=1)
    head = Head(nn.ReLU()).eval()
    manifold = FisherManifold(head)
    assert torch.isfinite(manifold.metric(beta)).all()
    assert torch.isfinite(manifold.natural_gradient(lambda point: point.sum(-1), beta)).all()
    for call in (
        lambda: manifold.principal_curvature(beta),
        lambda: manifold.exp(beta, beta),
        lambda: manifold.christoffel(beta),
    ):
        with pytest.raises(SpecError, match=r"two continuous derivatives.*got ReLU"):
            call()

    weight, out = draws(9, FACTORS, seed=2), draws(6, 9, seed=3)

    def plain(point: Tensor) -> tuple[Tensor, ...]:
        values = torch.relu(point @ weight.T) @ out.T
        return tuple(values.unflatten(-1, (3, 2)).unbind(-2))

    with pytest.raises(SpecError, match="piecewise linear"):
        FisherManifold(plain).riemann(beta)  # type: ignore[arg-type]
    assert FisherManifold(Head(nn.SiLU())).principal_curvature(beta).ok.all()
    kinked = Head(nn.LeakyReLU())
    inside = FisherManifold(lambda point: kinked(point))
    with pytest.raises(SpecError, match="got LeakyReLU"):
        inside.riemann(beta)


def test_laws_that_are_none() -> None:
    beta = draws(7, FACTORS, seed=1)

    def negative(point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return point[..., :1], point[..., :1], point[..., :1].log()

    with pytest.raises(SpecError, match="finite parameters; got a NaN or an infinity in log_scale"):
        FisherManifold(negative).metric(beta)
    with pytest.raises(SpecError, match="logits, loc and log scale; got 2 values"):
        FisherManifold(lambda point: (point, point)).metric(beta)  # type: ignore[arg-type, return-value]

    def across(point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        centred = point - point.mean(0, keepdim=True)
        return centred, centred, centred

    with pytest.raises(SpecError, match="by its own exposures alone"):
        FisherManifold(across).metric(beta)


def test_exposures_far_outside_the_cloud_are_measured() -> None:
    law = pricing_law(FACTORS, 2)
    manifold = FisherManifold(law)
    far = 30.0 * law.beta[:2]
    assert (manifold.mahalanobis(far) > 10.0).all()
    with pytest.warns(UserWarning, match="as far out as any of the cloud, at row 0, 1"):
        found = manifold.log(far, far + 0.01, polish=False)
    assert (found.mahalanobis > 10.0).all()
    assert torch.isnan(FisherManifold(network_law(FACTORS, 2)).mahalanobis(far)).all()
    own = FisherManifold(law, precision=torch.eye(FACTORS))
    assert own.cloud is None


def test_nothing_is_drawn_and_nothing_carries_a_graph() -> None:
    head, beta = Head(nn.Tanh()), draws(7, FACTORS, seed=1)  # parameters ask for gradients
    manifold = FisherManifold(head)
    assert not manifold.metric(beta).requires_grad
    assert not manifold.exp(beta, 0.1 * beta).point.requires_grad
    assert not manifold.distance(beta[:2], beta[2:4]).requires_grad
    assert manifold.metric(beta.clone().requires_grad_()).requires_grad
    assert manifold.metric(beta[:0]).shape == (0, FACTORS, FACTORS)
