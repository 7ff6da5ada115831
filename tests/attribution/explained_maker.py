"""Small fits of every model, bent by hand so that networks matter, and one panel with holes."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.attribution.networks.explained import ExplainedDate, open_explained
from nfi_pyro.catalogue import find_model
from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.neural_factor import NeuralFactor, NeuralFactorSpec
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi

DATES, ASSETS, FEATURES, FACTORS, LAGS = 31, 11, 5, 3, 2
DRIVER = 2  # the feature that drives the returns of `fit_driven`
LONELY = 23  # date on which one asset trades
WINDOWED = ("nfi", "factor_vae")
PRICED = ("nfi", "mixture_pricing", "neural_factor", "linear_factor")
EVERY = (*PRICED, "factor_vae")
SMALL = {
    "lags": LAGS,
    "projection_size": 4,
    "hidden_size": 7,
    "n_factors": FACTORS,
    "n_portfolios": 5,
    "prior_hidden_size": 4,
    "alpha_hidden_size": 4,
    "pricing_size": 7,
    "n_features": FEATURES,
    "n_exposures": FEATURES,
}


def make_holed_panel() -> Panel:
    """Return a panel with holes, and one date on which the first asset alone trades."""
    spec = SimulationSpec(
        n_dates=DATES,
        n_assets=ASSETS,
        n_features=FEATURES,
        n_factors=FACTORS,
        missing_share=0.08,
        unobserved_share=0.1,
    )
    panel = simulate_panel(spec, seed=29)[0].copy(deep=True)
    panel["tradable"].values[LONELY, 1:] = False
    panel["forward_return"].values[LONELY, 1:] = np.nan
    return check_panel(panel)


def fit_small(name: str, panel: Panel, seed: int = 3, **changes: Any) -> SVIFit:
    """Return a fit of one epoch, its exposures and its alpha made larger by hand."""
    entry = find_model(name)
    fields = entry.spec_class().model_fields
    values = {key: value for key, value in SMALL.items() if key in fields}
    spec = entry.spec_class().model_validate(values | changes)
    config = SVIConfig(n_epochs=1, block_size=7, learning_rate=1e-2, progress=False, device="cpu")
    fit = fit_svi(entry.model_class()(spec), panel, config=config, seed=seed)
    with torch.no_grad():
        for part, weight in fit.model.named_parameters():
            if "alpha" in part and part.endswith("weight"):
                weight.mul_(3.0)
            elif part in ("beta.weight", "beta.bias"):
                weight.mul_(4.0)
    return fit


@cache
def fit_driven() -> tuple[SVIFit, Panel]:
    """Return a fitted nonlinear factor model of a market that one feature drives, and its panel."""
    rng = np.random.default_rng(41)
    features = rng.normal(size=(101, 37, FEATURES)).astype(np.float32)
    noise = rng.normal(scale=0.01, size=features.shape[:2])
    returns = (0.01 * np.tanh(features[..., DRIVER]) + noise).astype(np.float32)
    attrs = {"start_lag": 1, "horizon": 1, "unit": "return"}
    panel = check_panel(
        xr.Dataset(
            {
                "features": (("date", "asset", "feature"), features),
                "tradable": (("date", "asset"), np.ones(returns.shape, dtype=bool)),
                "forward_return": (("date", "asset"), returns, attrs),
            },
            {
                "date": pd.bdate_range("2021-03-01", periods=len(returns)).to_numpy(),
                "asset": [f"A{place}" for place in range(returns.shape[1])],
                "feature": [f"f{place}" for place in range(FEATURES)],
            },
        )
    )
    config = SVIConfig(n_epochs=7, block_size=7, learning_rate=1e-2, progress=False, device="cpu")
    model = NeuralFactor(NeuralFactorSpec(n_exposures=FEATURES, hidden_size=7))
    return fit_svi(model, panel, config=config, seed=3), panel


def explain_day(fit: SVIFit, panel: Panel, place: int = -1) -> ExplainedDate:
    """Return one date of a panel as a function of its inputs."""
    day = str(panel["date"].values[place])[:10]
    return next(iter(open_explained(fit, panel, (day, day)).explained()))


def equal_weights(day: ExplainedDate) -> Tensor:
    """Return equal weights of the assets of a date."""
    n_rows = day.inputs.shape[1]
    return torch.full((n_rows,), 1.0 / n_rows, dtype=torch.float64)


def uneven_weights(panel: Panel) -> dict[str, float]:
    """Return weights of five assets, of both signs."""
    names = [str(name) for name in panel["asset"].values[:5]]
    return dict(zip(names, (0.5, -0.2, 0.3, 0.15, 0.25), strict=True))
