"""Crowding: planted contraction found with the right sign, noise removed, losses counted."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy.stats import gaussian_kde
from torch import Tensor

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry.crowding.crowding import ALL_FACTORS, crowding_flow
from nfi_pyro.geometry.crowding.density import crowding_density, log_density
from nfi_pyro.geometry.crowding.flow_regression import induced_permutations
from nfi_pyro.geometry.crowding.incentive import crowding_incentive, volume_gradient

NAMES = ["value", "size", "momentum"]
FEW: dict[str, Any] = {"n_permutations": 19}


def _panel(values: np.ndarray) -> xr.DataArray:
    n_dates, n_assets, n_factors = values.shape
    coords = {
        "date": pd.bdate_range("2021-03-01", periods=n_dates).to_numpy(),
        "asset": [f"A{place}" for place in range(n_assets)],
        "factor": NAMES[:n_factors],
    }
    return xr.DataArray(values, coords, ("date", "asset", "factor"))


def _flowing(
    kappa: float | list[float],
    *,
    seed: int,
    n_dates: int = 3,
    n_assets: int = 300,
    n_factors: int = 2,
    shock: float = 0.3,
    spread: float = 0.5,
    noise: float = 0.0,
) -> xr.DataArray:
    """Return exposures that flow along -kappa (beta - c), with shocks, seen with noise."""
    rng = np.random.default_rng(seed)
    centre = np.array([0.3, -0.2, 0.1])[:n_factors]
    beta = centre + spread * rng.normal(size=(n_assets, n_factors))
    seen = []
    for _ in range(n_dates):
        seen.append(beta + noise * rng.normal(size=beta.shape))
        beta = beta - np.asarray(kappa) * (beta - centre) + shock * rng.normal(size=beta.shape)
    return _panel(np.stack(seen))


def _total(found: xr.Dataset, name: str = "divergence") -> xr.DataArray:
    return found[name].sel(plane=ALL_FACTORS)


# ---- the flow ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [0.2, -0.2])
def test_planted_flow_has_its_sign_and_size_on_a_single_date(kappa: float) -> None:
    divergence, error = [], []
    for seed in range(20):
        found = crowding_flow(_flowing(kappa, seed=seed), **FEW).series.isel(date=0)
        divergence.append(float(_total(found)))
        error.append(float(_total(found, "standard_error")))
    right = np.sign(divergence) == -np.sign(kappa)
    assert right.sum() >= 18  # below 0 is crowded
    # z and the shocks are independent: sd of a trace of 2 is sqrt(2) .3 / (.5 |1 - kappa| sqrt N)
    sampling = math.sqrt(2 / 300) * 0.3 / (0.5 * abs(1 - kappa))
    assert np.mean(divergence) == pytest.approx(-2 * kappa, abs=3.5 * sampling / math.sqrt(20))
    assert np.mean(error) == pytest.approx(sampling, rel=0.1)
    assert np.std(divergence, ddof=1) == pytest.approx(sampling, rel=0.5)


@pytest.mark.parametrize("noise", [0.2, 0.5])
def test_instruments_remove_the_contraction_that_noise_feigns(noise: float) -> None:
    lagged, plain, spread = [], [], []
    for seed in range(20):
        panel = _flowing(0.0, seed=seed, spread=1.0, noise=noise)
        found = crowding_flow(panel, **FEW).series
        lagged.append(float(_total(found)[0]))
        spread.append(float(_total(found, "standard_error")[0]))
        plain.append(float(_total(crowding_flow(panel, instrument_lag=None, **FEW).series)[0]))
    bias = -2 * noise**2 / (1.0 + noise**2)
    error = float(np.mean(spread)) / math.sqrt(20)
    assert np.mean(plain) == pytest.approx(bias, abs=3.5 * error)
    assert np.mean(plain) < -2 * error
    assert np.mean(lagged) == pytest.approx(0.0, abs=3.5 * error)


@pytest.mark.parametrize(("kappa", "noise"), [(0.2, 0.25), (-0.2, 0.25)])
def test_sign_survives_noise_in_the_exposures(kappa: float, noise: float) -> None:
    right = 0
    for seed in range(20):
        panel = _flowing(kappa, seed=seed, n_dates=6, noise=noise)
        right += float(_total(crowding_flow(panel, **FEW).mean)) * kappa < 0
    assert right >= 18


def test_divergence_on_the_normal_manifold_adds_the_flow_along_its_volume() -> None:
    def falling(_: np.datetime64, exposures: np.ndarray) -> np.ndarray:
        return np.broadcast_to([0.0, -1.0], exposures.shape)  # d log sqrt g of (mean, log sd)

    kappa, found, truth = 0.2, [], []
    for seed in range(20):
        panel = _flowing(kappa, seed=seed) + xr.DataArray([0.0, 0.6], dims="factor")
        series = crowding_flow(panel, volume_gradient=falling, **FEW).series
        found.append(float(_total(series)[0]))
        gap = float(panel.isel(date=1, factor=1).mean()) - 0.4
        truth.append(-2 * kappa + kappa * gap)
        flat = crowding_flow(panel, **FEW)
        extra = -float(flat.drift.isel(date=0, factor=1))
        assert found[-1] == pytest.approx(float(_total(flat.series)[0]) + extra)
    sampling = math.sqrt(2 / 300) * 0.3 / 0.4
    assert np.mean(np.subtract(found, truth)) == pytest.approx(0, abs=3.5 * sampling / 20**0.5)


def test_volume_gradient_is_weighted_over_assets() -> None:
    rng = np.random.default_rng(0)
    panel = _panel(rng.normal(size=(2, 41, 2)))
    weights = xr.DataArray(rng.random((2, 41)), panel.isel(factor=0, drop=True).coords)

    def slope(_: np.datetime64, exposures: np.ndarray) -> np.ndarray:
        return np.tanh(exposures @ np.array([[1.0, -0.4], [0.3, 2.0]]))

    options: dict[str, Any] = {"instrument_lag": None, "n_permutations": 19}
    found = crowding_flow(panel, weights, volume_gradient=slope, **options)
    share = weights[0].to_numpy() / float(weights[0].sum())
    beta = panel[0].to_numpy()
    gradient, drift = found.gradient[0].to_numpy(), found.drift[0].to_numpy()
    flow = drift + (beta - share @ beta) @ gradient.T
    oracle = np.trace(gradient) + share @ (flow * slope(panel["date"].values[0], beta)).sum(1)
    assert float(_total(found.series)[0]) == pytest.approx(oracle)


def test_regression_is_weighted_two_stage_least_squares() -> None:
    panel = _flowing([0.3, 0.1, -0.2], seed=2, n_factors=3, n_assets=67, noise=0.1)
    rng = np.random.default_rng(1)
    weights = xr.DataArray(rng.random((3, 67)), panel.isel(factor=0, drop=True).coords)
    found = crowding_flow(panel, weights, **FEW)
    past, start, end = panel.to_numpy()
    root = np.sqrt(weights[1].to_numpy())[:, None]
    z, x = (root * np.column_stack([np.ones(67), part]) for part in (past, start))
    fitted = z @ np.linalg.lstsq(z, x, rcond=None)[0]
    oracle = np.linalg.lstsq(fitted, root * (end - start), rcond=None)[0][1:].T
    np.testing.assert_allclose(found.gradient[0], oracle, rtol=1e-9)
    assert float(_total(found.series)[0]) == pytest.approx(np.trace(oracle))
    pair = crowding_flow(panel.isel(factor=[0, 2]), weights, **FEW)
    row = found.series.sel(plane="value × momentum").isel(date=0)
    for name in ("divergence", "standard_error", "first_stage_f", "log_volume_rate"):
        assert float(row[name]) == pytest.approx(float(_total(pair.series, name)[0]))
    assert [str(row[name].values) for name in ("first", "second")] == ["value", "momentum"]
    cover = [np.cov(part.T, aweights=weights[1], bias=True) for part in (start, end)]
    volume = 0.5 * (np.linalg.slogdet(cover[1])[1] - np.linalg.slogdet(cover[0])[1])
    assert float(_total(found.series, "log_volume_rate")[0]) == pytest.approx(volume)


def test_divergence_does_not_see_the_units_of_exposures() -> None:
    panel = _flowing([0.3, -0.1, 0.2], seed=3, n_factors=3, n_dates=5)
    change = np.array([[2.0, 0.3, 0.0], [0.0, 0.1, 0.5], [1.0, 0.0, 7.0]])
    moved = panel.copy(data=panel.to_numpy() @ change + 5.0)
    one, two = (_total(crowding_flow(part, **FEW).series) for part in (panel, moved))
    np.testing.assert_allclose(one, two, rtol=1e-8)
    names = ["divergence", "standard_error", "p_value", "first_stage_f", "log_volume_rate"]
    scaled = panel * xr.DataArray([1.0, 10.0, 0.01], dims="factor")
    shown = [crowding_flow(part, **FEW).series[names] for part in (panel, scaled)]
    xr.testing.assert_allclose(*shown, rtol=1e-8)  # planes too: each factor in its own unit


def test_horizon_gives_figures_per_date_known_at_the_end() -> None:
    panel = _flowing(0.1, seed=4, n_dates=9, shock=0.0)
    found = crowding_flow(panel, horizon=3, instrument_lag=2, **FEW)
    rate = -2 * (1 - 0.9**3) / 3
    np.testing.assert_allclose(_total(found.series), rate, rtol=1e-9)
    np.testing.assert_allclose(_total(found.series, "log_volume_rate"), 2 * math.log(0.9))
    np.testing.assert_array_equal(found.series["date"], panel["date"][5:])
    np.testing.assert_array_equal(found.series["start"], panel["date"][2:6])
    assert found.n_lags == 3


def test_no_figure_knows_what_came_after_its_date() -> None:
    panel = _flowing(0.1, seed=5, n_dates=7)
    later = panel.copy(deep=True)
    later[5:] = np.random.default_rng(0).normal(size=later[5:].shape)
    one, two = (crowding_flow(part, **FEW).series for part in (panel, later))
    xr.testing.assert_identical(one.isel(date=slice(None, 3)), two.isel(date=slice(None, 3)))
    assert not np.allclose(_total(one)[3:], _total(two)[3:])


def test_null_is_uniform_where_exposures_wander_and_far_where_they_gather() -> None:
    p_values, spread, errors = [], [], []
    for seed in range(60):
        panel = _flowing(0.0, seed=seed, n_assets=53, noise=0.3)
        found = crowding_flow(panel, n_permutations=99, seed=seed).series.isel(date=0)
        p_values.append(float(_total(found, "p_value")))
        spread.append(float(_total(found, "null_upper") - _total(found, "null_lower")))
        errors.append(float(_total(found, "standard_error")))
    assert np.mean(p_values) == pytest.approx(0.5, abs=3.5 / math.sqrt(12 * 60))
    assert sum(p < 0.1 for p in p_values) <= 6 + 3.5 * math.sqrt(60 * 0.09)
    assert np.median(spread) / 3.92 == pytest.approx(np.median(errors), rel=0.15)
    gathered = crowding_flow(_flowing(0.5, seed=0), n_permutations=99).series
    assert float(_total(gathered, "p_value")[0]) == 0.01
    assert float(_total(gathered)[0]) < float(_total(gathered, "null_lower")[0])


def test_mean_has_an_error_over_dates_that_its_spread_over_panels_confirms() -> None:
    means, errors = [], []
    for seed in range(30):
        found = crowding_flow(_flowing(0.1, seed=seed, n_dates=30, n_assets=80, noise=0.1), **FEW)
        means.append(float(_total(found.mean)))
        errors.append(float(_total(found.mean, "standard_error")))
    spread = float(np.std(means, ddof=1))
    assert np.mean(means) == pytest.approx(-0.2, abs=4 * spread / math.sqrt(30))
    assert np.median(errors) == pytest.approx(spread, rel=0.5)
    row = found.mean.sel(plane=ALL_FACTORS)
    assert int(row["n_dates"]) == found.series.sizes["date"] == 28
    assert float(row["upper"] - row["lower"]) == pytest.approx(2 * 1.959964 * errors[-1])


def test_seed_reproduces_and_another_one_changes_the_null_alone() -> None:
    panel = _flowing(0.1, seed=6)
    one, two, other = (crowding_flow(panel, seed=seed, **FEW).series for seed in (0, 0, 1))
    xr.testing.assert_identical(one, two)
    xr.testing.assert_identical(one["divergence"], other["divergence"])
    assert not np.allclose(one["null_lower"], other["null_lower"])


def test_steady_market_drifts_back_and_does_not_narrow() -> None:
    panel = _flowing(0.2, seed=0, n_dates=20, spread=0.5, shock=0.3)  # .64 * .25 + .09 = .25
    found = crowding_flow(panel, **FEW)
    assert float(_total(found.mean, "upper")) < -0.3
    rate = _total(found.series, "log_volume_rate").to_numpy()
    # ends of a path of 19 dates, each half a log variance of 300 assets in 2 factors
    assert rate.mean() == pytest.approx(0.0, abs=3.5 * math.sqrt(2 / 300) / 18)


def test_order_of_assets_does_not_matter_to_the_estimate() -> None:
    panel = _flowing(0.1, seed=7)
    order = np.random.default_rng(0).permutation(panel.sizes["asset"])
    one, two = (crowding_flow(part, **FEW) for part in (panel, panel.isel(asset=order)))
    names = ["divergence", "standard_error", "first_stage_f", "log_volume_rate"]
    xr.testing.assert_allclose(one.series[names], two.series[names], rtol=1e-9)


# ---- assets that come and go ---------------------------------------------------------------------


def test_assets_that_come_and_go_are_counted_and_never_filled() -> None:
    panel = _flowing(0.1, seed=8, n_dates=4, n_assets=60)
    panel[0, :5] = np.nan  # no past for the first flow
    panel[2, 7:10] = np.nan  # left, and back afterwards
    panel[1, 20] = np.nan  # came at the end of the first flow
    weights = xr.ones_like(panel.isel(factor=0, drop=True))
    weights[1, 30:32] = 0.0
    found = crowding_flow(panel, weights, **FEW).series
    counts = {name: found[name].values.tolist() for name in found if str(name).startswith("n_")}
    assert counts == {
        "n_assets": [60 - 5 - 3 - 1 - 2, 60 - 1 - 3],
        "n_without_past": [5, 1],
        "n_left": [3, 0],
        "n_entered": [1, 3],
        "n_unheld": [2, 0],
    }
    used = np.setdiff1d(np.arange(60), [*range(5), 7, 8, 9, 20, 30, 31])
    alone = crowding_flow(panel.isel(asset=used, date=slice(0, 3)), **FEW).series
    assert float(_total(found)[0]) == pytest.approx(float(_total(alone)[0]))


def test_flows_of_one_asset_go_to_the_same_other_one_on_every_date() -> None:
    rng = np.random.default_rng(0)
    shuffles = np.stack([rng.permutation(11) for _ in range(13)])
    np.testing.assert_array_equal(induced_permutations(shuffles, np.arange(11)), shuffles)
    used = np.array([0, 2, 3, 7, 10])
    found = induced_permutations(shuffles, used)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.broadcast_to(np.arange(5), (13, 5)))
    stays = np.isin(shuffles[:, used], used)
    np.testing.assert_array_equal(used[found][stays], shuffles[:, used][stays])


def test_dates_that_say_nothing_are_flagged() -> None:
    panel = _flowing(0.1, seed=9, n_dates=6, n_assets=50)
    panel[3, 25:] = np.nan
    found = crowding_flow(panel, **FEW)
    ok = found.series["identified"].sel(plane=ALL_FACTORS)
    assert ok.values.tolist() == [True, False, False, False]
    assert _total(found.series).isnull().values.tolist() == [False, True, True, True]
    assert int(_total(found.mean, "n_skipped")) == 3
    assert np.isnan(_total(found.mean, "standard_error"))
    still = _flowing(0.1, seed=9, n_factors=3)
    still[..., 2] = 1.0
    found = crowding_flow(still, **FEW)
    assert found.series["identified"].values.tolist() == [[False, True, False, False]]
    assert found.mean["divergence"].isnull().values.tolist() == [True, False, True, True]
    noise = _panel(np.random.default_rng(0).normal(size=(3, 300, 2)))
    weak = crowding_flow(noise, **FEW).series
    assert float(_total(weak, "first_stage_f")[0]) < 10
    assert not bool(_total(weak, "identified")[0])
    assert np.isfinite(float(_total(weak)[0]))
    plain = crowding_flow(noise, instrument_lag=None, **FEW).series
    assert np.isinf(_total(plain, "first_stage_f")).all()
    assert _total(plain, "identified").all()


def test_one_factor_has_no_plane() -> None:
    found = crowding_flow(_flowing(0.3, seed=1, n_factors=1, shock=0.0), **FEW)
    assert found.series["plane"].values.tolist() == [ALL_FACTORS]
    assert float(_total(found.series)[0]) == pytest.approx(-0.3)


# ---- density and incentive -----------------------------------------------------------------------


def _clustered(share: float, seed: int, n_dates: int = 2, n_assets: int = 300) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_dates, n_assets, 2))
    inside = int(share * n_assets)
    values[:, :inside] = [0.8, -0.5] + 0.15 * values[:, :inside]
    return _panel(values)


def test_field_is_the_laplacian_of_the_kernel_density_of_the_others() -> None:
    rng = np.random.default_rng(0)
    panel = _panel(rng.normal(size=(1, 40, 2)) @ np.array([[1.0, 0.7], [0.0, 0.5]]))
    found = crowding_density(panel, bandwidth=0.8, **FEW)
    beta = panel[0].to_numpy()
    root = np.linalg.cholesky(np.cov(beta.T, bias=True))
    points = np.linalg.solve(root, (beta - beta.mean(0)).T).T  # the Laplacian sees no rotation
    for asset in (3, 17):
        others = np.delete(points, asset, axis=0)
        factor = 0.8 / math.sqrt(np.linalg.eigvalsh(np.cov(others.T))[0])
        law = gaussian_kde(others.T, bw_method=factor)
        law.set_bandwidth(factor)
        step = 1e-3

        def log_q(at: np.ndarray, others: np.ndarray = others) -> float:
            return math.log(np.exp(-0.5 * ((at - others) ** 2).sum(1) / 0.64).sum())

        moves = step * np.concatenate([np.eye(2), -np.eye(2)])
        total = sum(log_q(points[asset] + move) for move in moves) - 4 * log_q(points[asset])
        assert float(found.field[0, asset]) == pytest.approx(total / step**2, abs=1e-5)


def test_level_falls_with_the_share_of_assets_on_one_spot() -> None:
    levels, excess = [], []
    for share in (0.0, 0.1, 0.3, 0.6):
        found = crowding_density(_clustered(share, seed=1, n_dates=1), **FEW)
        levels.append(float(found.series["level"][0]))
        excess.append(float(found.series["excess"][0]))
        inside = found.field[0, : int(share * 300)].mean()
        if share >= 0.1:
            assert float(inside) < levels[0]
    assert levels == sorted(levels, reverse=True)
    assert abs(excess[0]) < 3
    assert max(excess[2:]) < -3


def test_mean_field_of_a_normal_cloud_is_minus_its_information() -> None:
    found = crowding_density(
        _clustered(0.0, seed=2, n_dates=2, n_assets=1000), bandwidth=0.7, **FEW
    )
    oracle = -2 / (1 + 0.7**2)  # Laplacian of log N(0, 1 + h^2)
    assert float(found.series["level"].mean()) == pytest.approx(oracle, abs=0.05)


def test_isolated_assets_have_no_figure_and_a_flag() -> None:
    panel = _clustered(0.0, seed=3)
    panel[0, 0] = 30.0
    panel[1, 1] = np.nan
    found = crowding_density(panel, **FEW)
    assert bool(found.sparse[0, 0])
    assert np.isnan(found.field[0, 0])
    assert np.isnan(found.field[1, 1])
    assert not bool(found.sparse[1, 1])
    np.testing.assert_array_equal(
        found.field.notnull().sum("asset"), found.series["n_assets"] - found.series["n_sparse"]
    )
    few = crowding_density(panel, min_assets=300, **FEW)
    assert few.series["level"].isnull().values.tolist() == [False, True]
    assert few.series["n_assets"].values.tolist() == [300, 299]


def test_holdings_move_the_level() -> None:
    panel = _clustered(0.0, seed=4)
    distance = ((panel - 0.5) ** 2).sum("factor")
    near = distance.copy(data=np.exp(-4.0 * distance.to_numpy()))
    equal, held = (crowding_density(panel, part, **FEW).series for part in (None, near + 0.05))
    assert (held["excess"] < equal["excess"] - 1).all()
    assert (held["n_effective"] < equal["n_effective"]).all()
    one = xr.zeros_like(near)
    one[:, 0] = 1.0
    alone = crowding_density(panel, one, **FEW).series
    assert alone["n_effective"].values.tolist() == [1.0, 1.0]
    assert alone["level"].isnull().all()
    narrow = crowding_density(panel, bandwidth=0.05, **FEW).series
    assert narrow["n_null"].values.tolist() == [0, 0]
    assert narrow["excess"].isnull().all()


def _flat_laplacian(function: Callable[[Tensor], Tensor], beta: Tensor) -> Tensor:
    return torch.stack(
        [torch.func.hessian(function)(row).trace() for row in beta.reshape(-1, beta.shape[-1])]
    ).reshape(beta.shape[:-1])


class HalfPlane:
    """The manifold of one normal in (mean, log sd): metric diag(exp(-2 s), 2)."""

    @property
    def pricing(self) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
        return _one_normal

    def laplacian(self, function: Callable[[Tensor], Tensor], beta: Tensor) -> Tensor:
        found = []
        for row in beta.reshape(-1, 2):
            slope, bend = torch.func.grad(function)(row), torch.func.hessian(function)(row)
            found.append(torch.exp(2 * row[1]) * bend[0, 0] + 0.5 * (bend[1, 1] - slope[1]))
        return torch.stack(found).reshape(beta.shape[:-1])

    def christoffel(self, beta: Tensor) -> Tensor:
        gamma = beta.new_zeros(*beta.shape[:-1], 2, 2, 2)
        gamma[..., 0, 0, 1] = gamma[..., 0, 1, 0] = -1.0
        gamma[..., 1, 0, 0] = 0.5 * torch.exp(-2 * beta[..., 1])
        return gamma


def _one_normal(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros_like(beta[..., :1]), beta[..., :1], beta[..., 1:]


def test_incentive_of_one_normal_is_minus_lambda_times_its_variance() -> None:
    beta = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = crowding_incentive(HalfPlane(), beta, 0.7)
    np.testing.assert_allclose(found, -0.7 * torch.exp(2 * beta[:, 1]), rtol=1e-9)
    np.testing.assert_allclose(crowding_incentive(HalfPlane(), beta, 0.0), 0, atol=1e-12)


def test_volume_gradient_comes_from_the_connection() -> None:
    beta = np.random.default_rng(0).normal(size=(5, 2))
    found = volume_gradient(lambda date: HalfPlane())(np.datetime64("2021-03-01"), beta)
    np.testing.assert_allclose(found, np.broadcast_to([0.0, -1.0], (5, 2)))


def test_log_density_is_a_density_that_a_manifold_can_differentiate() -> None:
    panel = _clustered(0.3, seed=5, n_dates=1, n_assets=200)
    rows = torch.from_numpy(panel[0].to_numpy())
    weights = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_q = log_density(rows, weights, bandwidth=0.6)
    grid = torch.linspace(-7, 7, 201, dtype=torch.float64)
    mesh = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), dim=-1)
    mass = log_q(mesh).exp().sum() * (grid[1] - grid[0]) ** 2
    assert float(mass) == pytest.approx(1.0, abs=1e-6)
    at = torch.tensor([[0.8, -0.5], [-0.5, 0.8]], dtype=torch.float64)
    crowded, free = _flat_laplacian(log_q, at)
    assert float(crowded) < float(free)
    assert HalfPlane().laplacian(log_q, at).isfinite().all()


# ---- bad input -----------------------------------------------------------------------------------


def test_bad_exposures_are_refused_by_name() -> None:
    panel = _flowing(0.1, seed=0, n_assets=40)
    for function in (crowding_flow, crowding_density):
        with pytest.raises(ShapeError, match="exposures must have the dimensions date, asset and"):
            function(panel.isel(date=0))
        broken = panel.copy(deep=True)
        broken[1, 3, 0] = np.nan
        with pytest.raises(
            SpecError, match="all exposures of a date or none; got some at 2021-03-02 A3"
        ):
            function(broken)
        broken[1, 3, 0] = np.inf
        with pytest.raises(SpecError, match="finite or NaN; got an infinite one at 2021-03-02 A3"):
            function(broken)
        with pytest.raises(SpecError, match="dates must increase"):
            function(panel.isel(date=[0, 2, 1]))
    flat = panel.copy(deep=True)
    flat[..., 1] = 2 * flat[..., 0]
    with pytest.raises(
        SpecError, match=r"exposures must fill 2 directions; .* at 2021-03-01\. Drop"
    ):
        crowding_density(flat)


def test_bad_weights_are_refused_by_name() -> None:
    panel = _flowing(0.1, seed=0, n_assets=40)
    weights = xr.ones_like(panel.isel(factor=0, drop=True))
    broken = weights.copy(deep=True)
    broken[2, 4] = -1.0
    with pytest.raises(
        SpecError, match=r"weights must be finite and >= 0 .* got -1.0 at 2021-03-03 A4"
    ):
        crowding_flow(panel, broken)
    broken[2, 4] = np.nan
    with pytest.raises(SpecError, match=r"got nan at 2021-03-03 A4"):
        crowding_density(panel, broken)
    with pytest.raises(SpecError, match=r"weight > 0; got none on 2021-03-02"):
        crowding_flow(panel, weights.where(weights["date"] != weights["date"][1], 0.0))
    with pytest.raises(ShapeError, match="weights must have the dates and assets of the exposures"):
        crowding_flow(panel, weights.isel(asset=slice(1, None)))


def test_bad_options_are_refused_by_name() -> None:
    panel = _flowing(0.1, seed=0, n_assets=40)
    value: float
    for option, value in (
        ("instrument_lag", 0),
        ("horizon", 0),
        ("min_assets", 3),
        ("n_permutations", 18),
        ("seed", -1),
    ):
        with pytest.raises(
            SpecError, match=rf"{option} must be from .* got {value} at crowding_flow"
        ):
            crowding_flow(panel, **{option: value})  # type: ignore[arg-type]
    for option, value in (("bandwidth", 0.0), ("n_directions", 3), ("min_assets", 5)):
        with pytest.raises(SpecError, match=rf"{option} must be from .* got {value}"):
            crowding_density(panel, **{option: value})  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"must have 3 dates .* got 2 at crowding_flow. .*its bias"):
        crowding_flow(panel.isel(date=slice(0, 2)))
    with pytest.raises(ShapeError, match="volume gradient must have the shape of the exposures"):
        crowding_flow(panel, volume_gradient=lambda _, beta: beta[:, 0])
    with pytest.raises(SpecError, match="volume gradient must be finite; got others on 2021-03-02"):
        crowding_flow(panel, volume_gradient=lambda _, beta: beta * np.nan)
    with pytest.raises(SpecError, match="risk_aversion must be finite and >= 0; got -1"):
        crowding_incentive(HalfPlane(), torch.zeros(1, 2), -1)
    rows = torch.zeros(5, 5)
    with pytest.raises(SpecError, match="got 5 factors of 5 assets at log_density"):
        log_density(rows)
    with pytest.raises(
        SpecError, match=r"bandwidth must be from 0\.05 to 10; got -1 at log_density"
    ):
        log_density(rows, bandwidth=-1)
    with pytest.raises(ShapeError, match=r"got \(5, 5\) and \(4,\) at log_density"):
        log_density(rows, torch.ones(4))
