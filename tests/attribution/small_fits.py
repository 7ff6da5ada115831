"""Small fits of every model, and panels to fit them on."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from nfi_pyro.catalogue import find_model
from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi

FEATURES, FACTORS = 5, 3
PRICING = ("linear_factor", "mixture_pricing", "neural_factor", "nfi")
MODELS = ("factor_vae", *PRICING)
SMALL: dict[str, Any] = {
    "lags": 2, "projection_size": 4, "hidden_size": 7, "n_factors": FACTORS, "n_portfolios": 5,
    "prior_hidden_size": 4, "alpha_hidden_size": 4, "pricing_size": 7,
    "n_epochs": 1, "block_size": 7, "learning_rate": 1e-2, "progress": False, "device": "cpu",
}  # fmt: skip


def fit_small(name: str, panel: Panel, seed: int = 3, **changes: Any) -> SVIFit:
    """Return a fit of one epoch, with changes of the model's spec and of the config."""
    entry, n_features = find_model(name), panel.sizes["feature"]
    sizes = {"n_features": n_features, "n_exposures": panel.sizes.get("factor", n_features)}
    known = SMALL | sizes | changes

    def read(kind: Any) -> Any:
        return kind.model_validate({key: known[key] for key in known if key in kind.model_fields})

    model = entry.model_class()(read(entry.spec_class()))
    return fit_svi(model, panel, config=read(SVIConfig), seed=seed)


def bend(fit: SVIFit, exposure: float = 1.0) -> SVIFit:
    """Return the fit with larger weights: a few epochs leave alpha almost flat, and exposures 0."""
    with torch.no_grad():
        for part, weight in fit.model.named_parameters():
            if "alpha" in part and part.endswith("weight"):
                weight.mul_(3.0)
            elif part in ("beta.weight", "beta.bias"):
                weight.mul_(exposure)
    return fit


@cache
def small_panel() -> Panel:
    """Return 61 dates of 11 assets whose features are given exposures too."""
    spec = SimulationSpec(n_dates=61, n_assets=11, n_features=FEATURES, n_factors=FACTORS,
                          missing_share=0.05)  # fmt: skip
    return simulate_panel(spec, seed=23)[0]


@cache
def small_fit(name: str, seed: int = 3, heads: str = "point") -> SVIFit:
    """Return a fit of two epochs on `small_panel`, made once for all tests of a process."""
    options = {"n_epochs": 2, "hidden_size": 4, "pricing_size": 4}
    random = {} if heads == "point" else {"heads": {"kind": heads, "rank": 3}}
    return fit_small(name, small_panel(), seed, **options, **random)


def panel_of(features: np.ndarray, returns: np.ndarray) -> Panel:
    """Return a panel of features (date, asset, feature) and returns (date, asset), all known."""
    cells = ("date", "asset")
    label = {"start_lag": 1, "horizon": 1, "unit": "return"}
    return check_panel(
        xr.Dataset(
            {
                "features": ((*cells, "feature"), features.astype(np.float32)),
                "tradable": (cells, np.ones(returns.shape, dtype=bool)),
                "forward_return": (cells, returns.astype(np.float32), label),
            },
            {
                "date": pd.bdate_range("2021-03-01", periods=len(returns)).to_numpy(),
                "asset": [f"A{place}" for place in range(returns.shape[1])],
                "feature": [f"f{place}" for place in range(features.shape[2])],
            },
        )
    )
