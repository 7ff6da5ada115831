"""A geodesic ball around a benchmark, in coordinates in which a search is well scaled: one row."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from nfi_pyro.geometry.manifold import FisherManifold
from nfi_pyro.geometry.optimisers.objective import moments
from nfi_pyro.geometry.optimisers.slsqp import Pair, maximum_under
from nfi_pyro.geometry.results.manifold import Logarithm

Function = Callable[[Tensor], Tensor]


@dataclass
class Ball:
    """Exposures ``beta = benchmark + radius L^-T u`` with ``L L' = G(benchmark)``.

    Near the benchmark the ball is ``|u| <= 1`` in any linear chart, and a mean return divided by
    its standard deviation and the radius has a slope of at most about 1 in u: by Cramer and Rao no
    mean moves faster than one standard deviation per unit of distance.

    Attributes
    ----------
    manifold : FisherManifold
    benchmark : Tensor, shape (factor,)
    radius : float
    max_trials : int
        Most points that each search tries.
    evaluations, distances : int
        How often an objective, and the distance, were evaluated.
    """

    manifold: FisherManifold
    benchmark: Tensor
    radius: float
    max_trials: int
    evaluations: int = 0
    distances: int = 0
    _chart: Tensor = field(init=False, repr=False)
    _polygon: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        lower = self.manifold.cholesky(self.benchmark)
        eye = torch.eye(len(self.benchmark), dtype=torch.float64)
        self._chart = self.radius * torch.linalg.solve_triangular(lower.mT, eye, upper=True)
        self._polygon = self.benchmark.expand(9, -1)

    def place(self, u: np.ndarray) -> Tensor:
        """Return the exposures of coordinates (factor,)."""
        return self.benchmark + self._chart @ torch.from_numpy(u.copy())

    def coordinates(self, beta: Tensor) -> np.ndarray:
        """Return the coordinates of exposures (factor,)."""
        gap = (beta - self.benchmark).unsqueeze(-1)
        solved = torch.linalg.solve_triangular(self._chart, gap, upper=True)
        return np.asarray(solved.squeeze(-1).numpy())

    def variance(self, beta: Tensor) -> Tensor:
        """Return the variance of the return at exposures, (...)."""
        return moments(self.manifold.pricing, beta)[1]

    def best(
        self,
        objective: Function,
        scale: float,
        start: np.ndarray,
        *,
        cap: float | None = None,
        exact: bool = True,
    ) -> np.ndarray:
        """Return coordinates of the maximum of an objective in the ball and under a cap.

        Parameters
        ----------
        scale : float
            Of the objective over the ball.
        cap : float, optional
            Most variance.
        exact : bool
            Whether the ball is the geodesic one, or ``|u| <= 1``.
        """

        def scaled(u: np.ndarray) -> Pair:
            self.evaluations += 1
            return self._pulled(objective, scale, u)

        limits = [self._squared_distance if exact else _squared_length]
        if cap is not None:
            limits.append(lambda u: self._pulled(self.variance, cap, u))
        return maximum_under(scaled, limits, start, self.max_trials)

    def geodesic(self, beta: Tensor) -> tuple[Logarithm, Tensor]:
        """Return the geodesic from exposures to the benchmark, and the slope of ``d^2`` there.

        The search begins with the last geodesic found, moved along. The slope is exact:
        ``-2 G(beta) log_beta(benchmark)``.
        """
        time = torch.linspace(1.0, 0.0, 9, dtype=torch.float64).unsqueeze(-1)
        start = self._polygon + time * (beta - self._polygon[0])
        with warnings.catch_warnings():  # trial points may be anywhere; the result has the flags
            warnings.simplefilter("ignore", UserWarning)
            found = self.manifold.log(beta, self.benchmark, start=start, polish=False)
        if bool(found.converged):
            self._polygon = found.path[::2]
        return found, -2.0 * self.manifold.metric(beta) @ found.velocity

    def _squared_distance(self, u: np.ndarray) -> Pair:
        """Return ``d^2 / radius^2`` and its gradient in the coordinates."""
        self.distances += 1
        found, slope = self.geodesic(self.place(u))
        area = self.radius**2
        return float(found.distance.square()) / area, (self._chart.mT @ slope).numpy() / area

    def _pulled(self, function: Function, scale: float, u: np.ndarray) -> Pair:
        """Return a function over its scale, and its gradient in the coordinates."""
        value, gradient = slope_at(function, self.place(u))
        return float(value) / scale, (self._chart.mT @ gradient).numpy() / scale


def _squared_length(u: np.ndarray) -> Pair:
    """Return ``|u|^2`` and its gradient."""
    return float(u @ u), 2.0 * u


def slope_at(function: Function, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Return a function's value () and gradient (factor,) at exposures (factor,)."""
    point = beta.detach().clone().requires_grad_()
    with torch.enable_grad():
        value = function(point)
        (gradient,) = torch.autograd.grad(value, point)
    return value.detach(), gradient
