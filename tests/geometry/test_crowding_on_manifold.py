"""Crowding on a Fisher manifold: oracles of one normal, and fields of a mixture law."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.geometry import (
    FisherManifold,
    crowding_flow,
    crowding_incentive,
    log_density,
    volume_gradient,
)


def _one_normal(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the law with mean beta_0 and log standard deviation beta_1."""
    return torch.zeros_like(beta[..., :1]), beta[..., :1], beta[..., 1:]


def _mixture(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a law of two components that depend smoothly on three exposures."""
    mix = torch.tensor([[0.4, -0.2], [0.1, 0.3], [-0.3, 0.2]], dtype=torch.float64)
    inner = torch.tanh(beta @ mix)
    return 0.5 * inner, inner + beta[..., :1] * 0.3, 0.2 * inner - 0.1


@pytest.fixture(scope="module")
def normal() -> FisherManifold:
    return FisherManifold(_one_normal, eps=0.0, allow_incomplete=True)


def _points(n: int, n_factors: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.5 * torch.randn(n, n_factors, generator=generator, dtype=torch.float64)


def test_incentive_is_minus_lambda_times_the_variance(normal: FisherManifold) -> None:
    beta = _points(11, 2)
    for risk_aversion in (0.0, 0.7):
        found = crowding_incentive(normal, beta, risk_aversion)
        oracle = -risk_aversion * torch.exp(2 * beta[:, 1])
        np.testing.assert_allclose(found, oracle, atol=1e-6)


def test_volume_of_one_normal_falls_with_its_log_scale(normal: FisherManifold) -> None:
    found = volume_gradient(lambda date: normal)(np.datetime64("2021-03-01"), _points(5, 2).numpy())
    np.testing.assert_allclose(found, np.broadcast_to([0.0, -1.0], (5, 2)), atol=1e-6)


def test_flow_on_a_manifold_is_the_mean_of_its_divergence() -> None:
    manifold = FisherManifold(_mixture, eps=1e-2)
    beta = _points(41, 3).numpy()
    panel = xr.DataArray(
        np.stack([beta, beta + 0.1 * _points(41, 3, seed=1).numpy()]),
        {
            "date": pd.bdate_range("2021-03-01", periods=2).to_numpy(),
            "asset": np.arange(41),
            "factor": ["a", "b", "c"],
        },
        ("date", "asset", "factor"),
    )
    found = crowding_flow(
        panel,
        instrument_lag=None,
        n_permutations=19,
        volume_gradient=volume_gradient(lambda date: manifold),
    )
    drift, slope = (torch.from_numpy(part[0].to_numpy()) for part in (found.drift, found.gradient))
    centre = torch.from_numpy(beta.mean(0))

    def flow(at: Tensor) -> Tensor:
        return drift + (at - centre) @ slope.T

    oracle = manifold.divergence(flow, torch.from_numpy(beta)).mean()
    series = found.series["divergence"].sel(plane="all factors")
    assert float(series[0]) == pytest.approx(float(oracle), rel=1e-9)
    flat = crowding_flow(panel, instrument_lag=None, n_permutations=19).series
    assert abs(float(series[0] - flat["divergence"].sel(plane="all factors")[0])) > 1e-3


def test_incentive_is_the_rate_at_which_a_flow_along_it_gains_volume() -> None:
    manifold = FisherManifold(_mixture, eps=1e-2)

    def reward(beta: Tensor) -> Tensor:
        logits, loc, log_scale = _mixture(beta)
        weight = logits.softmax(-1)
        mean = (weight * loc).sum(-1)
        second = (weight * (torch.exp(2 * log_scale) + loc**2)).sum(-1)
        return mean - 0.5 * (second - mean**2)

    step = 1e-4
    beta = _points(7, 3, seed=2)
    found = crowding_incentive(manifold, beta, 0.5)
    shift = 1e-3 * torch.eye(3, dtype=torch.float64)
    ends = []
    for sign in (1.0, -1.0):  # the flow's map by central differences of short steps
        near = beta + sign * shift[:, None]
        ends.append(near + step * manifold.natural_gradient(reward, near))
    stretch = ((ends[0] - ends[1]) / 2e-3).permute(1, 2, 0)
    moved = beta + step * manifold.natural_gradient(reward, beta)
    grown = torch.linalg.slogdet(stretch).logabsdet
    grown = grown + manifold.log_volume(moved) - manifold.log_volume(beta)
    np.testing.assert_allclose(found, grown / step, rtol=5e-3, atol=5e-3)


def test_density_is_more_crowded_on_a_cluster(normal: FisherManifold) -> None:
    spot = torch.tensor([0.2, -0.1], dtype=torch.float64)
    assets = _points(300, 2, seed=3)
    clustered = torch.cat([assets[:200], spot + 0.15 * assets[200:]])
    levels = [
        float(normal.laplacian(log_density(part, bandwidth=0.4), spot[None]))
        for part in (assets, clustered)
    ]
    assert levels[1] < levels[0] - 1.0
