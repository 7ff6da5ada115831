r"""Riemannian optimisers of exposures: torch optimisers whose gradient is the metric's own.

With g the gradient and G the metric at a point, all of them step along ``h = G^-1 g`` and measure
it by ``g.h``, so that no step depends on the units of the exposures. A coordinate-wise second
moment would: `torch.optim.Adam` on natural gradients fails where factors are badly scaled.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from nfi_pyro.errors import SpecError
from nfi_pyro.geometry.optimisers.armijo import descend
from nfi_pyro.geometry.optimisers.moving import (
    Metric,
    Space,
    follow,
    metric_factor,
    metric_of,
    refuse,
    transported,
)

Closure = Callable[[], Tensor]
Group = dict[str, Any]
CHOICES = {
    "retraction": ("add", "exp"),
    "transport": ("projected", "parallel"),
    "second_moment": ("scalar", "coordinate"),
}
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "lr": (lambda value: 0.0 < value < math.inf, "finite and > 0"),
    "eps": (lambda value: 0.0 <= value < math.inf, "finite and >= 0"),
    "momentum": (lambda value: 0.0 <= value < 1.0, "in [0, 1)"),
    "alpha": (lambda value: 0.0 <= value < 1.0, "in [0, 1)"),
    "lr_decay": (lambda value: 0.0 <= value < math.inf, "finite and >= 0"),
}


class RiemannianOptimizer(Optimizer):
    """What the optimisers have in common; a subclass turns a natural gradient into a step.

    Parameters are exposures (..., factor) in float64: each row is a point of the manifold, with a
    state of its own. `state[parameter]["slope"]` (...) is the length of the gradient where the
    last step began, in the objective's unit per unit of distance.

    Parameters
    ----------
    params : iterable of Tensor or of dict
        As in torch.
    manifold : FisherManifold or callable
        Or a metric alone, beta (..., factor) to (..., factor, factor); it can add and project.
    options : dict
        lr : float
            Step size. With a scalar second moment it is the length of a first step, in the
            distance that the metric measures.
        retraction : {"add", "exp"}
            Whether a step is added to the exposures or followed along a geodesic.
        transport : {"projected", "parallel"}
            What momentum becomes at the next point. Projected on its tangent space, which in
            coordinates of full dimension leaves the components; or parallel along the step.
        second_moment : {"scalar", "coordinate"}
            ``g.h`` by row, or the square of each component of h: torch.optim on natural
            gradients, which depends on the chart. With the identity for metric the second is
            torch.optim in any dimension, the first in one.
        maximize : bool

    Raises
    ------
    SpecError
        If an option is out of its range, a parameter is not finite exposures in float64, or a
        metric alone is asked for geodesics or parallel transport. By `step`: if a gradient is not
        finite, the metric is singular, or a geodesic fails.
    """

    carried: tuple[str, ...] = ()
    """Names of the state's tangent vectors, which move along."""

    def __init__(
        self, params: Iterable[Any], manifold: Space | Metric, options: dict[str, object]
    ) -> None:
        self.manifold = manifold
        super().__init__(params, options)
        for group in self.param_groups:
            _check(group, manifold)

    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        """Move every parameter that has a gradient; return the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for point in group["params"]:
                    if point.grad is not None:
                        self._move(group, point)
        return loss

    def _move(self, group: Group, point: Tensor) -> None:
        """Take one parameter's step and carry its momentum along."""
        state = self.state[point]
        natural, squared = self._natural(group, point)
        if group.get("second_moment") == "coordinate":
            second = natural.square()
        else:
            second = squared.unsqueeze(-1)
        step = self._step(group, state, natural, second)
        ok = self._arrive(group, point, point.clone(), step)
        refuse(
            ~ok,
            "a step's geodesic must keep its speed; got one that did not",
            'Lower lr, or add steps: retraction="add".',
        )

    def _natural(self, group: Group, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return the natural gradient to go down, and the gradient's squared length, (...)."""
        gradient = -cast(Tensor, point.grad) if group["maximize"] else cast(Tensor, point.grad)
        refuse(
            ~torch.isfinite(gradient).all(-1),
            "gradient must be finite; got a NaN or an infinity",
            "Lower lr, or look at the objective there.",
        )
        factor = metric_factor(metric_of(self.manifold), point)
        natural = torch.cholesky_solve(gradient.unsqueeze(-1), factor).squeeze(-1)
        squared = (gradient * natural).sum(-1)
        self.state[point]["slope"] = squared.sqrt()
        return natural, squared

    def _arrive(self, group: Group, point: Tensor, start: Tensor, step: Tensor) -> Tensor:
        """Move `point` by a step from `start` with its tangent vectors; return which rows could."""
        state = self.state[point]
        names = [name for name in self.carried if state.get(name) is not None]
        parallel = group["transport"] == "parallel" and bool(names)
        curve = follow(
            self.manifold, start, step, exact=group["retraction"] == "exp", whole=parallel
        )
        if parallel:
            space = cast(Space, self.manifold)
            for name in names:
                moved = transported(space, start, step, curve, state[name])
                state[name] = torch.where(curve.ok.unsqueeze(-1), moved, state[name])
        point.copy_(torch.where(curve.ok.unsqueeze(-1), curve.points[-1], start))
        return curve.ok

    def _step(self, group: Group, state: Group, natural: Tensor, second: Tensor) -> Tensor:
        """Return the step of one parameter, given ``g.h`` or the squares of h."""
        raise NotImplementedError


class RiemannianGD(RiemannianOptimizer):
    """Gradient descent, by default with Armijo's search for the length of its steps.

    The search halves a step until the loss falls by a ten-thousandth of what the slope promises;
    the first try is `lr`, later ones the secant's guess from the step before (Barzilai-Borwein). A
    closure that returns a loss by row of a single parameter has steps by row. The search needs the
    closure: it calls it at every try.
    Without the search and with the identity for metric: torch.optim.SGD.
    """

    carried = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        manifold: Space | Metric,
        *,
        lr: float = 1.0,
        momentum: float = 0.0,
        line_search: bool = True,
        retraction: Literal["add", "exp"] = "add",
        transport: Literal["projected", "parallel"] = "projected",
        maximize: bool = False,
    ) -> None:
        options: dict[str, object] = {"lr": lr, "momentum": momentum, "retraction": retraction}
        options |= {"transport": transport, "maximize": maximize}
        super().__init__(params, manifold, options)
        self.line_search = line_search

    def step(self, closure: Closure | None = None) -> Tensor | None:  # type: ignore[override]
        """Move the parameters; return the closure's loss where the step began."""
        if not self.line_search:
            return super().step(closure)
        if closure is None:
            raise SpecError(
                "line_search must have a closure; got none at RiemannianGD.step. Pass a function "
                "that clears gradients, calls backward and returns the loss, or line_search=False."
            )
        return descend(self, closure)

    def direction(self, group: Group, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to go down along, and the loss's slope along it by row, > 0."""
        natural, squared = self._natural(group, point)
        raised = -self._step({**group, "lr": 1.0}, self.state[point], natural, squared)
        gradient = -cast(Tensor, point.grad) if group["maximize"] else cast(Tensor, point.grad)
        slope = (gradient * raised).sum(-1)
        uphill = slope <= 0
        if group["momentum"]:  # momentum that leads uphill starts anew
            raised = torch.where(uphill.unsqueeze(-1), natural, raised)
            self.state[point]["momentum_buffer"] = raised.clone()
        return raised, torch.where(uphill, squared, slope)

    def arrive(self, group: Group, point: Tensor, start: Tensor, step: Tensor) -> Tensor:
        """Move a parameter by a step from `start`, momentum with it; return which rows could."""
        return self._arrive(group, point, start, step)

    def _step(self, group: Group, state: Group, natural: Tensor, second: Tensor) -> Tensor:
        if group["momentum"]:
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = natural.clone()
            else:
                state["momentum_buffer"].mul_(group["momentum"]).add_(natural)
            natural = state["momentum_buffer"]
        return -group["lr"] * natural


class RiemannianAdam(RiemannianOptimizer):
    """Adam with a momentum of natural gradients and, by default, one second moment by row."""

    carried = ("exp_avg",)

    def __init__(
        self,
        params: Iterable[Any],
        manifold: Space | Metric,
        *,
        lr: float = 0.03,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        **options: Any,
    ) -> None:
        super().__init__(params, manifold, _with_defaults(options, lr=lr, betas=betas, eps=eps))

    def _step(self, group: Group, state: Group, natural: Tensor, second: Tensor) -> Tensor:
        first, last = group["betas"]
        if "exp_avg" not in state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(natural)
            state["exp_avg_sq"] = torch.zeros_like(second)
        state["step"] += 1
        state["exp_avg"].lerp_(natural, 1.0 - first)
        state["exp_avg_sq"].mul_(last).add_(second, alpha=1.0 - last)
        size = group["lr"] / (1.0 - first ** state["step"])
        spread = (state["exp_avg_sq"].sqrt() / (1.0 - last ** state["step"]) ** 0.5) + group["eps"]
        return -size * state["exp_avg"] / spread


class RiemannianRMSprop(RiemannianOptimizer):
    """RMSprop on natural gradients, by default with one second moment by row."""

    carried = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        manifold: Space | Metric,
        *,
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        **options: Any,
    ) -> None:
        own = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum}
        super().__init__(params, manifold, _with_defaults(options, **own))

    def _step(self, group: Group, state: Group, natural: Tensor, second: Tensor) -> Tensor:
        if "square_avg" not in state:
            state["square_avg"] = torch.zeros_like(second)
        alpha = group["alpha"]
        state["square_avg"].mul_(alpha).add_(second, alpha=1.0 - alpha)
        scaled = natural / (state["square_avg"].sqrt() + group["eps"])
        if group["momentum"]:
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(natural)
            scaled = state["momentum_buffer"].mul_(group["momentum"]).add_(scaled)
        return -group["lr"] * scaled


class RiemannianAdaGrad(RiemannianOptimizer):
    """AdaGrad on natural gradients, by default with one sum of squares by row."""

    def __init__(
        self,
        params: Iterable[Any],
        manifold: Space | Metric,
        *,
        lr: float = 0.1,
        lr_decay: float = 0.0,
        eps: float = 1e-10,
        **options: Any,
    ) -> None:
        own = {"lr": lr, "lr_decay": lr_decay, "eps": eps}
        super().__init__(params, manifold, _with_defaults(options, **own))

    def _step(self, group: Group, state: Group, natural: Tensor, second: Tensor) -> Tensor:
        if "sum" not in state:
            state["step"], state["sum"] = 0, torch.zeros_like(second)
        state["step"] += 1
        state["sum"].add_(second)
        size = group["lr"] / (1.0 + (state["step"] - 1) * group["lr_decay"])
        return -size * natural / (state["sum"].sqrt() + group["eps"])


def _with_defaults(options: dict[str, Any], **own: object) -> dict[str, object]:
    """Return an optimiser's own options with those that all have.

    Raises
    ------
    SpecError
        If one is unknown.
    """
    known = {
        "retraction": "add",
        "transport": "projected",
        "second_moment": "scalar",
        "maximize": False,
    }
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise SpecError(
            f"options must be among {', '.join([*own, *known])}; got {', '.join(unknown)} at an "
            "optimiser. Drop them."
        )
    return {**own, **known, **options}


def _check(group: Group, manifold: Space | Metric) -> None:
    """Refuse options out of range, parameters that are no exposures, and too little manifold."""
    for name, (fine, rule) in RANGES.items():
        if name in group and not fine(float(group[name])):
            raise SpecError(
                f"{name} must be {rule}; got {group[name]} at an optimiser. See its default."
            )
    if "betas" in group and not all(0.0 <= value < 1.0 for value in group["betas"]):
        raise SpecError(
            f"betas must lie in [0, 1); got {group['betas']} at an optimiser. The default is "
            "(0.9, 0.999)."
        )
    for name, allowed in CHOICES.items():
        if name in group and group[name] not in allowed:
            raise SpecError(
                f"{name} must be one of {', '.join(allowed)}; got {group[name]!r} at an "
                "optimiser. Choose one."
            )
    if not isinstance(manifold, Space) and (
        group["retraction"] == "exp" or group["transport"] == "parallel"
    ):
        raise SpecError(
            "geodesics and parallel transport must have a FisherManifold; got a metric alone at an "
            'optimiser. Pass the manifold, or retraction="add" and transport="projected".'
        )
    for place, point in enumerate(group["params"]):
        if point.dtype != torch.float64 or point.ndim == 0:
            raise SpecError(
                "parameters must be exposures (..., factor) in float64; got "
                f"{point.dtype} of shape {tuple(point.shape)} at parameter {place}. Convert it."
            )
        refuse(
            ~torch.isfinite(point.detach()).all(-1),
            f"start must be finite; got a NaN or an infinity in parameter {place}",
            "Drop such rows.",
        )
