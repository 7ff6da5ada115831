"""Laws with a known Hessian, small fits, and panels with a product planted in their returns."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfi_pyro.attribution.couplings.coupling_products import product_factor
from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.nets.jets import Jet
from nfi_pyro.posterior import PricingLaw
from nfi_pyro.svi import SVIFit
from tests.attribution.small_fits import fit_small


def draw(*shape: int, seed: int = 11) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def make_law(
    value: Callable[[Tensor], Tensor], beta: Tensor, *, slope: Tensor | None = None, day: int = 3
) -> PricingLaw:
    """Return the law of a scalar function of exposures, in units of 0.02; derivatives by torch."""

    def jet(x: Tensor) -> Jet:
        flat = x.reshape(-1, x.shape[-1])
        with torch.enable_grad():
            gradient = torch.func.vmap(torch.func.grad(value))(flat)
            hessian = torch.func.vmap(torch.func.hessian(value))(flat)
        shape = x.shape
        return Jet(value(x), gradient.reshape(shape), hessian.reshape(*shape, shape[-1]))

    def specific(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loc = value(x).unsqueeze(-1)
        return torch.zeros_like(loc), loc, torch.ones_like(loc)

    loc = torch.zeros(beta.shape[-1]).to(beta) if slope is None else slope
    function = PricingFunction(specific, jet, loc, 0.1 + loc.abs(), "exposures")
    assets = np.array([f"A{k}" for k in range(len(beta))])
    factors = tuple(f"z{k}" for k in range(beta.shape[-1]))
    return PricingLaw(function, 0.02, beta, assets, factors, np.datetime64(f"2021-05-0{day}", "ns"))


def fit_plain(name: str, panel: Panel, seed: int = 3, **changes: Any) -> SVIFit:
    """Return a fit of one date's features or raw exposures, of one epoch in large blocks."""
    options = {"lags": 1, "standardise": False, "block_size": 32, "patience": 20}
    return fit_small(name, panel, seed, **(options | changes))


def rectify(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ReLU with its derivatives: an activation without a Hessian."""
    return x.clamp(min=0.0), (x > 0).to(x), torch.zeros_like(x)


def plant(
    panel: Panel, pair: tuple[str, str], size: float, *, shift: np.ndarray | None = None
) -> Panel:
    """Return a panel whose returns have `size` times the pair's product factor added."""
    planted = panel.copy(deep=True)
    product = product_factor(panel, pair).fillna(0.0).to_numpy()
    moved = planted["forward_return"].to_numpy() + size * product
    planted["forward_return"].values[:] = moved if shift is None else moved + shift
    return check_panel(planted)


def simulate(seed: int, **options: Any) -> Panel:
    """Return a panel with exposures, 41 assets, returns with a standard deviation near 0.02."""
    chosen: dict[str, Any] = {
        "n_dates": 211,
        "n_assets": 41,
        "n_features": 31,
        "n_factors": 5,
        "market_intercept": 0.0,
        "with_exposures": True,
        "alpha_scale": 0.1,
        "factor_scale": 0.4,
        "specific_scale": 0.9,
    }
    return simulate_panel(SimulationSpec(**(chosen | options)), seed=seed)[0]
