"""Small fits of every model, bent by hand so that networks matter, and one panel with holes."""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfi_pyro.attribution.networks.explained import ExplainedDate, open_explained
from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.svi import SVIFit
from tests.attribution.small_fits import FACTORS, FEATURES, SMALL, bend, fit_small, panel_of

DATES, ASSETS, LAGS = 31, 11, SMALL["lags"]
DRIVER = 2  # the feature that drives the returns of `fit_driven`
LONELY = 23  # date on which one asset trades
WINDOWED = ("nfi", "factor_vae")
PRICED = ("nfi", "mixture_pricing", "neural_factor", "linear_factor")
EVERY = (*PRICED, "factor_vae")
DAY = 27


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


def fit_bent(name: str, panel: Panel, seed: int = 3, **changes: Any) -> SVIFit:
    """Return a fit of one epoch, its exposures and its alpha made larger by hand."""
    return bend(fit_small(name, panel, seed, **changes), exposure=4.0)


@cache
def fit_driven() -> tuple[SVIFit, Panel]:
    """Return a fitted nonlinear factor model of a market that one feature drives, and its panel."""
    rng = np.random.default_rng(41)
    features = rng.normal(size=(101, 37, FEATURES)).astype(np.float32)
    noise = rng.normal(scale=0.01, size=features.shape[:2])
    panel = panel_of(features, 0.01 * np.tanh(features[..., DRIVER]) + noise)
    return fit_small("neural_factor", panel, n_epochs=7), panel


def forget(fit: SVIFit) -> SVIFit:
    """Return the fit with its recurrence shut: the state forgets the dates before."""
    cell = fit.model.extractor.gru
    with torch.no_grad():
        cell.bias_ih[cell.hidden_size : 2 * cell.hidden_size] = -60.0  # update gate
        cell.weight_hh.zero_()
    return fit


def day_of(panel: Panel, place: int = DAY) -> tuple[str, str]:
    """Return one date of the panel as a range."""
    day = str(panel["date"].values[place])[:10]
    return day, day


def explain_day(fit: SVIFit, panel: Panel, place: int = DAY) -> ExplainedDate:
    """Return one date of a panel as a function of its inputs."""
    return next(iter(open_explained(fit, panel, day_of(panel, place)).explained()))


def equal_weights(day: ExplainedDate) -> Tensor:
    """Return equal weights of the assets of a date."""
    n_rows = day.inputs.shape[1]
    return torch.full((n_rows,), 1.0 / n_rows, dtype=torch.float64)


def uneven_weights(panel: Panel) -> dict[str, float]:
    """Return weights of five assets, of both signs."""
    names = [str(name) for name in panel["asset"].values[:5]]
    return dict(zip(names, (0.5, -0.2, 0.3, 0.15, 0.25), strict=True))
