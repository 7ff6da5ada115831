"""What the geometry of a pricing law costs, against autodiff and a boundary value solver.

Run ``pytest tests/benchmarks/bench_geometry.py -q -s -o python_files='bench_*.py'
-o pythonpath=.``. One thread; CPU seconds of contenders that take turns. The law is that of one
date of an nfi-like network of two layers of 64 with its own jets; the naive contenders
differentiate the same law on the same nodes.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.integrate import solve_bvp
from torch import Tensor
from torch.func import jacfwd, vmap

from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.geometry import FisherManifold
from nfi_pyro.geometry.fisher.nodes import RULES, panel_nodes
from nfi_pyro.nets.pricing import PricingNetwork
from nfi_pyro.posterior import PricingLaw
from tests.benchmarks.timing import interleave, ratio

LEAST_METRIC, MOST_METRIC_SECONDS = 12.0, 0.3
LEAST_DISTANCE, LEAST_RIEMANN, MOST_CURVATURE_SECONDS = 8.0, 15.0, 1.0
NAIVE_ROWS = 250  # of 5,000: the naive metric's cost is linear in rows
BVP_PAIRS = 4
BVP_TOL = 1e-2  # which gives distances to 1e-4


def make_law(n_factors: int, n_components: int, rows: int) -> PricingLaw:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PricingNetwork(
            n_factors,
            hidden_size=64,
            n_layers=2,
            n_components=n_components,
            activation="tanh",
            scale_floor=0.05,
            linear=False,
        ).double()
        with torch.no_grad():  # heads as large as a fit makes them, not those of a start
            for layer in (network.alpha.readout, *network.noise.children()):
                assert isinstance(layer, torch.nn.Linear)
                layer.weight.mul_(4.0)
        beta = torch.randn(rows, n_factors, dtype=torch.float64)
        loc = 0.1 * torch.randn(n_factors, dtype=torch.float64)
    network.requires_grad_(False)
    scale = torch.full((n_factors,), 0.2, dtype=torch.float64)
    function = PricingFunction(network, network.alpha.jet, loc, scale, "exposures", network.jets)
    names = tuple(f"z{place}" for place in range(n_factors))
    assets = np.array([f"A{place:04d}" for place in range(rows)])
    return PricingLaw(function, 0.02, beta, assets, names, np.datetime64("2024-01-02", "ns"))


def naive_metric(law: PricingLaw, beta: Tensor, transform: Callable[..., Callable]) -> Tensor:
    """The scores at every node by autodiff of log p, one row after the other in a batch."""
    _, loc, log_scale = law(beta)
    nodes, weights = panel_nodes(loc, log_scale, RULES["c11n6"])

    def log_prob(point: Tensor, values: Tensor) -> Tensor:
        return law.marginal(point).log_prob(values)

    score = vmap(transform(log_prob))(beta, nodes)
    mass = weights * law.marginal(beta.unsqueeze(1)).log_prob(nodes).exp()
    return torch.einsum("nm,nmi,nmj->nij", mass, score, score)


def test_the_metric() -> None:
    law = make_law(10, 4, 5000)
    manifold, few = FisherManifold(law), law.beta[:NAIVE_ROWS]
    torch.testing.assert_close(
        naive_metric(law, few[:9], jacfwd),
        manifold.metric(few[:9], damped=False),
        rtol=1e-9,
        atol=1e-12,
    )
    seconds = interleave(
        {
            "ours": lambda: manifold.metric(law.beta),
            "naive": lambda: naive_metric(law, few, jacfwd),
        },
        rounds=5,
    )
    whole = statistics.median(seconds["ours"])
    times = ratio(seconds["naive"], seconds["ours"]) * len(law.beta) / NAIVE_ROWS
    print(
        f"\nmetric of 5,000 points, 10 factors, 4 components: {whole:.3f} s "
        f"(target <= {MOST_METRIC_SECONDS}); autodiff of log p on the same nodes / ours = "
        f"{times:.0f} (target >= {LEAST_METRIC:.0f})"
    )
    assert times >= LEAST_METRIC
    assert whole <= MOST_METRIC_SECONDS


def by_solver(manifold: FisherManifold, x: Tensor, y: Tensor, tol: float) -> float:
    """The distance of one pair by scipy's solver of boundary value problems."""
    size = len(x)

    def slope(_: np.ndarray, state: np.ndarray) -> np.ndarray:
        rows = torch.from_numpy(state.T.copy())
        bend = manifold.acceleration(rows[:, :size], rows[:, size:])
        return np.vstack([state[size:], bend.numpy().T])

    def ends(first: np.ndarray, last: np.ndarray) -> np.ndarray:
        return np.concatenate([first[:size] - x.numpy(), last[:size] - y.numpy()])

    time_grid = np.linspace(0.0, 1.0, 9)
    line = x.numpy()[:, None] + time_grid * (y - x).numpy()[:, None]
    guess = np.vstack([line, np.repeat((y - x).numpy()[:, None], 9, axis=1)])
    found = solve_bvp(slope, ends, time_grid, guess, tol=tol, max_nodes=2000)
    assert found.success
    return float(manifold.norm(x, torch.from_numpy(found.sol(0.0)[size:])))


def test_distances() -> None:
    law = make_law(3, 3, 80)
    manifold = FisherManifold(law, nodes="c11n4")  # enough for 1e-4, and for both contenders
    x, y = law.beta[:32], law.beta[32:64]
    want = torch.tensor([by_solver(manifold, x[k], y[k], 1e-7) for k in range(BVP_PAIRS)])
    rough = torch.tensor([by_solver(manifold, x[k], y[k], BVP_TOL) for k in range(BVP_PAIRS)])
    ours = manifold.distance(x, y)[:BVP_PAIRS]
    solver_error = float((rough / want - 1.0).abs().max())
    our_error = float((ours / want - 1.0).abs().max())
    seconds = interleave(
        {
            "ours": lambda: manifold.distance(x, y),
            "alone": lambda: manifold.distance(x[0], y[0]),
            "solver": lambda: [by_solver(manifold, x[k], y[k], BVP_TOL) for k in range(BVP_PAIRS)],
        },
        rounds=3,
    )
    times = ratio(seconds["solver"], seconds["ours"]) * len(x) / BVP_PAIRS
    alone = ratio(seconds["solver"], seconds["alone"]) / BVP_PAIRS
    print(
        f"\ndistance, 3 factors, 3 components: {1e3 * statistics.median(seconds['ours']) / 32:.0f} "
        f"ms a pair of 32; solve_bvp / ours = {times:.0f} (target >= {LEAST_DISTANCE:.0f}), "
        f"{alone:.1f} for one pair alone; relative errors {solver_error:.0e} and {our_error:.0e}"
    )
    assert our_error < 1e-4
    assert times >= LEAST_DISTANCE


def riemann_by_autodiff(metric: Callable[[Tensor], Tensor], beta: Tensor) -> Tensor:
    """R^i_jkl from two derivatives of the metric; a solve by `inv`, which torch gets right."""

    def raised(point: Tensor) -> Tensor:
        slope = jacfwd(metric)(point)
        lowered = 0.5 * (slope + slope.transpose(1, 2) - slope.permute(2, 0, 1))
        return torch.einsum("km,mij->kij", torch.linalg.inv(metric(point)), lowered)

    gamma, slope = raised(beta), jacfwd(raised)(beta)
    part = slope.permute(0, 2, 3, 1)
    full = part - part.transpose(2, 3) + torch.einsum("ikm,mlj->ijkl", gamma, gamma)
    return torch.einsum(
        "im,mjkl->ijkl", metric(beta), full - torch.einsum("ilm,mkj->ijkl", gamma, gamma)
    )


def test_riemann() -> None:
    law = make_law(8, 4, 80)
    manifold, beta = FisherManifold(law), law.beta[:64]
    inner = manifold._checked.law(beta, smooth=True)  # its checks are no part of the contest

    def metric(point: Tensor) -> Tensor:
        return inner.damped(inner.metric(point.unsqueeze(0)))[0]

    def autodiff() -> Tensor:
        return vmap(partial(riemann_by_autodiff, metric))(beta)

    found, want = manifold.riemann(beta, damped=True), autodiff()
    gap = float((found - want).abs().max() / want.abs().max())
    seconds = interleave(
        {"ours": lambda: manifold.ricci(beta, damped=True), "autodiff": autodiff}, rounds=3
    )
    times = ratio(seconds["autodiff"], seconds["ours"])
    print(
        f"\nRiemann and Ricci, 8 factors, 4 components: "
        f"{1e3 * statistics.median(seconds['ours']) / len(beta):.2f} ms a point of 64; autodiff of "
        f"the metric / ours = {times:.0f} (target >= {LEAST_RIEMANN:.0f}); they agree to {gap:.0e}"
    )
    assert gap < 1e-6
    assert times >= LEAST_RIEMANN


def test_curvature_of_500_points() -> None:
    law = make_law(10, 4, 500)
    manifold = FisherManifold(law)
    manifold.principal_curvature(law.beta)
    seconds: dict[str, list[float]] = {"scalar": [], "principal": []}
    for _ in range(5):
        for name, run in (
            ("scalar", lambda: manifold.ricci(law.beta)),
            ("principal", lambda: manifold.principal_curvature(law.beta)),
        ):
            began = time.process_time()
            run()
            seconds[name].append(time.process_time() - began)
    scalar, principal = (statistics.median(seconds[name]) for name in ("scalar", "principal"))
    print(
        f"\ncurvature of 500 points, 10 factors, 4 components: Riemann and Ricci {scalar:.2f} s "
        f"(target < {MOST_CURVATURE_SECONDS}), principal planes {principal:.2f} s"
    )
    assert scalar < MOST_CURVATURE_SECONDS
