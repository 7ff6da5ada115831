"""A panel and a model small enough to train in a fraction of a second."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from nfi_pyro.data.panel import Panel, PanelBlocks
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.data.training.transform_chain import TransformChain
from nfi_pyro.data.training.windows import PanelWindows
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.svi import SVIConfig
from nfi_pyro.svi.loop import TrainingLoop

DATES, ASSETS, FEATURES, FACTORS, LAGS = 61, 7, 5, 3, 2


@pytest.fixture(scope="session")
def panel() -> Panel:
    spec = SimulationSpec(n_dates=DATES, n_assets=ASSETS, n_features=FEATURES, n_factors=FACTORS)
    return simulate_panel(spec, seed=23)[0]


@pytest.fixture
def model() -> FactorVAE:
    spec = FactorVAESpec(
        n_features=FEATURES,
        lags=LAGS,
        projection_size=4,
        hidden_size=4,
        n_factors=FACTORS,
        n_portfolios=5,
        alpha_hidden_size=4,
        prior_hidden_size=4,
    )
    return FactorVAE(spec, seed=101)


@pytest.fixture
def config() -> SVIConfig:
    """Four epochs of six steps."""
    return SVIConfig(n_epochs=4, block_size=7, learning_rate=5e-3, progress=False, device="cpu")


@pytest.fixture
def make_loop(panel: Panel, model: FactorVAE) -> Callable[[SVIConfig], TrainingLoop]:
    """Return a maker of bare loops over 38 training and 13 validation dates."""
    names = tuple(str(name) for name in panel["feature"].values)
    chain = TransformChain.fit(["robust_zscore"], PanelBlocks(panel, slice(0, 40)), names)
    scale = float(np.nanstd(panel["forward_return"].values[:40].astype(np.float64)))
    windows = PanelWindows(panel, lags=LAGS, transforms=chain, return_scale=scale)

    def make(config: SVIConfig) -> TrainingLoop:
        fresh = FactorVAE(model.spec, seed=5)
        torch.manual_seed(5)  # what `fit_svi` does inside its own fork of the generator
        return TrainingLoop(fresh, windows, slice(1, 39), slice(42, 55), config, 5)

    return make
