"""Curvature by the Gauss equation: closed forms, autodiff of the metric, identities, flags."""

import warnings

import pytest
import torch
from torch import Tensor
from torch.func import jacrev

from nfi_pyro.errors import SpecError
from nfi_pyro.geometry import FisherManifold
from tests.geometry.closed_laws import (
    Law,
    draws,
    location_scale,
    network_law,
    normal_law,
    pricing_law,
    simplex_law,
    single_component,
    tensor,
    two_bells,
    two_locations,
)

FACTORS, ROWS = 3, 5


def quiet_scalar(manifold: FisherManifold, beta: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of unidentified directions
        return manifold.scalar_curvature(beta).value


def test_the_normal_family_has_curvature_minus_a_half() -> None:
    manifold = FisherManifold(normal_law, 0.0)
    x = tensor(0.3, 0.8)
    assert float(manifold.sectional(x, tensor(1.0, 0.0), tensor(0.4, 1.0))) == pytest.approx(
        -0.5, abs=2e-7
    )
    found = manifold.scalar_curvature(x)
    assert float(found.value) == pytest.approx(-1.0, abs=2e-7)
    assert int(found.rank) == 2
    assert bool(found.ok)
    ricci = manifold.ricci(x)
    torch.testing.assert_close(ricci, -0.5 * manifold.metric(x), rtol=1e-6, atol=1e-7)
    assert float(manifold.principal_curvature(x).value) == pytest.approx(-0.5, abs=2e-7)


@pytest.mark.parametrize("n_factors", [2, 4, 10])
@pytest.mark.parametrize("eps", [0.0, 1.0 / 252])
def test_one_component_has_it_whatever_the_factors(n_factors: int, eps: float) -> None:
    manifold = FisherManifold(single_component(n_factors), eps)
    beta = draws(ROWS, n_factors, seed=1)
    torch.testing.assert_close(
        quiet_scalar(manifold, beta), torch.full((ROWS,), -1.0).double(), rtol=0, atol=2e-6
    )
    u, v = draws(ROWS, n_factors, seed=2), draws(ROWS, n_factors, seed=3)
    want = torch.full((ROWS,), -0.5, dtype=torch.float64)
    torch.testing.assert_close(manifold.sectional(beta, u, v), want, rtol=0, atol=2e-6)
    torch.testing.assert_close(manifold.principal_curvature(beta).value, want, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("law", "beta", "scalar", "atol"),
    [
        (simplex_law(3), tensor(0.4, -0.7), 0.5, 1e-6),
        (simplex_law(4), tensor(0.4, -0.7, 0.1), 1.5, 1e-6),
        (simplex_law(3, 6.0), tensor(0.4, -0.7), 0.49999, 2e-5),
        (two_bells, tensor(0.0, 0.0, 0.0, 0.2), -4.761904762, 2e-6),
        (two_locations, tensor(0.3, -0.2), 0.0, 1e-10),
        (location_scale, tensor(0.3, 0.1), -0.6707804533, 1e-7),
    ],
)
def test_scalar_curvature_in_closed_form(
    law: Law, beta: Tensor, scalar: float, atol: float
) -> None:
    found = FisherManifold(law, 0.0).scalar_curvature(beta)
    assert float(found.value) == pytest.approx(scalar, abs=atol)


def test_planes_of_two_bells() -> None:
    manifold, beta = FisherManifold(two_bells), tensor(0.0, 0.0, 0.0, 0.2)
    axes = torch.eye(4, dtype=torch.float64)
    first = manifold.sectional(beta, axes[[0, 2, 0]], axes[[1, 3, 2]])
    torch.testing.assert_close(first, tensor(-1 / 0.6, -1 / 1.4, 0.0), rtol=0, atol=1e-6)


def riemann_by_autodiff(metric: object, beta: Tensor) -> Tensor:
    """R_ijkl from second derivatives of the metric; torch.linalg.inv alone is differentiated."""

    def lowered(point: Tensor) -> Tensor:
        slope = jacrev(metric)(point)  # type: ignore[arg-type]
        return 0.5 * (slope + slope.transpose(1, 2) - slope.permute(2, 0, 1))

    def raised(point: Tensor) -> Tensor:
        return torch.einsum("km,mij->kij", torch.linalg.inv(metric(point)), lowered(point))  # type: ignore[operator]

    gamma, slope = raised(beta), jacrev(raised)(beta)  # slope[k, i, j, l]
    part = slope.permute(0, 2, 3, 1)  # d_k Gamma^i_jl as [i, j, k, l] of [i, l, j, k]
    full = part - part.transpose(2, 3)
    full = full + torch.einsum("ikm,mlj->ijkl", gamma, gamma)
    full = full - torch.einsum("ilm,mkj->ijkl", gamma, gamma)
    return torch.einsum("im,mjkl->ijkl", metric(beta), full)  # type: ignore[operator]


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_riemann_is_autodiff_of_the_metric(eps: float) -> None:
    """On frozen nodes: moving ones would add the derivative of the quadrature's error."""
    law, beta = network_law(2, 2), draws(2, seed=1)
    manifold = FisherManifold(law, eps, nodes="c15n10")
    found = manifold.riemann(beta, damped=True)
    want = riemann_by_autodiff(manifold.metric, beta)
    scale = float(want.abs().max())
    torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-7 * scale)
    assert scale > 1e-4
    gamma = manifold.christoffel(beta, kind=1)
    slope = jacrev(manifold.metric)(beta)
    lowered = 0.5 * (slope + slope.transpose(1, 2) - slope.permute(2, 0, 1))
    torch.testing.assert_close(gamma, lowered, rtol=1e-7, atol=1e-8)


def test_identities_of_the_riemann_tensor() -> None:
    manifold, beta = FisherManifold(network_law(4, 3)), draws(ROWS, 4, seed=1)
    for damped in (False, True):
        full = manifold.riemann(beta, damped=damped)
        tiny = 1e-14
        assert float(full.abs().max()) > 1e-4
        assert float((full + full.transpose(1, 2)).abs().max()) <= tiny
        assert float((full + full.transpose(3, 4)).abs().max()) <= tiny
        assert float((full - full.permute(0, 3, 4, 1, 2)).abs().max()) <= tiny
        cyclic = full + full.permute(0, 1, 3, 4, 2) + full.permute(0, 1, 4, 2, 3)
        assert float(cyclic.abs().max()) <= tiny
        ricci = manifold.ricci(beta, damped=damped)
        torch.testing.assert_close(
            ricci, ricci.mT, rtol=1e-9, atol=1e-12 * float(ricci.abs().max())
        )


def test_sectional_curvature_is_the_tensors() -> None:
    manifold, beta = FisherManifold(network_law(FACTORS, 3)), draws(ROWS, FACTORS, seed=1)
    u, v = draws(ROWS, FACTORS, seed=2), draws(ROWS, FACTORS, seed=3)
    for damped in (False, True):
        full = manifold.riemann(beta, damped=damped)
        metric = manifold.metric(beta, damped=damped)
        uu, uv, vv = (
            torch.einsum("ni,nij,nj->n", a, metric, b) for a, b in ((u, u), (u, v), (v, v))
        )
        want = torch.einsum("nijkl,ni,nj,nk,nl->n", full, u, v, u, v) / (uu * vv - uv**2)
        found = manifold.sectional(beta, u, v, damped=damped)
        torch.testing.assert_close(found, want, rtol=1e-7, atol=1e-9)
        turned = manifold.sectional(beta, u + 0.7 * v, -2.0 * v, damped=damped)
        torch.testing.assert_close(turned, want, rtol=1e-7, atol=1e-9)


def test_scalar_curvature_sums_the_planes_of_an_orthonormal_frame() -> None:
    manifold, beta = FisherManifold(network_law(FACTORS, 3), 0.0), draws(FACTORS, seed=1)
    frame = torch.linalg.inv(manifold.cholesky(beta))
    pairs = [(0, 1), (0, 2), (1, 2)]
    planes = [manifold.sectional(beta, frame[i], frame[j]) for i, j in pairs]
    want = 2.0 * torch.stack(planes).sum()
    torch.testing.assert_close(manifold.scalar_curvature(beta).value, want, rtol=1e-7, atol=1e-8)


def test_a_floor_is_the_curvature_of_the_flat_slice() -> None:
    law, beta = network_law(4, 3), draws(4, seed=1)
    manifold = FisherManifold(law)
    values, vectors = manifold.spectrum(beta)
    floor = float(0.5 * (values[1] + values[2]))
    frame = vectors[:, :2]
    inside = FisherManifold(lambda point: law(beta + point @ frame.mT), 0.0)
    want = inside.scalar_curvature(torch.zeros(2, dtype=torch.float64)).value
    with pytest.warns(UserWarning, match="directions that move no law"):
        found = manifold.scalar_curvature(beta, floor=floor)
    torch.testing.assert_close(found.value, want, rtol=1e-8, atol=1e-10)
    assert int(found.rank) == 2
    principal = manifold.principal_curvature(beta, floor=floor)
    torch.testing.assert_close(principal.value, 0.5 * want, rtol=1e-8, atol=1e-10)
    assert float(principal.condition) == pytest.approx(float(values[0] / values[1]), rel=1e-9)


def test_damping_ruins_the_scalar_and_is_not_the_default() -> None:
    manifold, beta = FisherManifold(single_component(10), 1e-4), draws(ROWS, 10, seed=1)
    with pytest.warns(UserWarning, match="directions that move no law"):
        found = manifold.scalar_curvature(beta)
    assert found.rank.tolist() == [2] * ROWS
    with pytest.warns(UserWarning, match="directions that move no law"):
        ruined = manifold.scalar_curvature(beta, damped=True)
    assert (ruined.value.abs() > 10.0).all()


def test_a_point_without_a_plane_is_flagged() -> None:
    """Location alone: one direction, and no NaN without a flag."""

    def law(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loc = beta.sum(-1, keepdim=True)
        return torch.zeros_like(loc), loc, torch.zeros_like(loc)

    manifold, beta = FisherManifold(law), draws(ROWS, 2, seed=1)
    found = manifold.principal_curvature(beta)
    assert torch.isnan(found.value).all()
    assert not found.ok.any()
    assert found.rank.tolist() == [1] * ROWS
    with pytest.raises(SpecError, match=r"span a plane in the metric.*row 0, 1, 2, 3, 4"):
        manifold.sectional(beta, tensor(1.0, 0.0), tensor(0.0, 1.0))
    with pytest.raises(SpecError, match="span a plane"):
        FisherManifold(normal_law).sectional(tensor(0.0, 1.0), tensor(1.0, 0.0), tensor(2.0, 0.0))


def test_a_real_law_is_finite_and_flagged() -> None:
    law = pricing_law(5, 3)
    manifold = FisherManifold(law)
    found = manifold.principal_curvature(law.beta)
    assert torch.equal(torch.isfinite(found.value), found.ok)
    assert found.ok.all()
    assert torch.isfinite(manifold.riemann(law.beta)).all()
    assert torch.isfinite(found.mahalanobis).all()
    with pytest.warns(UserWarning, match="2 times as far out as any of the cloud, at row 0"):
        far = manifold.principal_curvature(50.0 * law.beta[:1])
    assert float(far.mahalanobis) > 20.0
