"""What every test shares: untouched global generators, local draws, small batches and panels."""

import os
import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.linear_model  # noqa: F401  (its first import draws from `random`: not in a test)
import torch
import xarray as xr

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.training.windows import Outcome, PanelBatch

MARKET_FILES = Path(
    os.environ.get("NFI_MARKET_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
DRAWS = "draws: changes a global random generator on purpose"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", DRAWS)
    if getattr(config.option, "numprocesses", None):
        # ArviZ 0.23 stamps a file on its first import of a day: workers must not race for it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            import_module("arviz")


def _global_generators() -> dict[str, bytes]:
    """Return the state of every global generator, by name."""
    return {
        "random": pickle.dumps(random.getstate()),
        "numpy.random": pickle.dumps(np.random.get_state()),  # noqa: NPY002  (it is watched)
        "torch": torch.get_rng_state().numpy().tobytes(),
    }


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Small tensors on one thread: the same bits everywhere, and no threads to wait for."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def leaves_global_generators_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test after which a global generator differs, unless it is marked ``draws``."""
    before = _global_generators()
    yield
    if request.node.get_closest_marker("draws") is None:
        after = _global_generators()
        changed = [name for name, state in before.items() if state != after[name]]
        if changed:
            pytest.fail(f"changed the global generator of {', '.join(changed)}", pytrace=False)


@pytest.fixture
def market_file() -> Callable[[str], Path]:
    """Return a finder of real price files, which skips a test where there is no such file."""

    def find(name: str) -> Path:
        place = MARKET_FILES / name
        if not place.is_file():
            pytest.skip(f"{name} is absent; set NFI_MARKET_DATA to its folder")
        return place

    return find


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@pytest.fixture
def seeded() -> Callable[[int], AbstractContextManager[None]]:
    """Return a context in which torch draws from `seed`; the global state comes back after it."""
    return _seeded


def _make_batch(
    n_dates: int = 7,
    n_assets: int = 5,
    n_features: int = 11,
    lags: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    missing: bool = True,
) -> tuple[PanelBatch, Outcome]:
    generator = torch.Generator().manual_seed(seed)
    shape = (n_dates, n_assets)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

    features = normal(n_dates + lags - 1, n_assets, n_features)
    returns = normal(*shape)
    tradable = torch.ones(shape, dtype=torch.bool)
    observed = tradable.clone()
    if missing:
        tradable = torch.rand(shape, generator=generator) > 0.2
        observed = tradable & (torch.rand(shape, generator=generator) > 0.2)
    batch = PanelBatch(features, tradable, torch.arange(n_dates), n_dates)
    return batch, Outcome(torch.where(observed, returns, 0.0), observed)


@pytest.fixture
def make_batch() -> Callable[..., tuple[PanelBatch, Outcome]]:
    """Return a builder of a batch with gaps and its outcome: 7 dates, 5 assets, 2 lags, float64."""
    return _make_batch


def _make_panel(n_dates: int = 7, n_assets: int = 5, n_features: int = 3, seed: int = 0) -> Panel:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_dates, n_assets, n_features)).astype(np.float32)
    returns = rng.normal(scale=0.02, size=(n_dates, n_assets)).astype(np.float32)
    tradable = rng.random((n_dates, n_assets)) > 0.1
    features[~tradable] = np.nan
    return check_panel(
        xr.Dataset(
            {
                "features": (("date", "asset", "feature"), features),
                "tradable": (("date", "asset"), tradable),
                "forward_return": (
                    ("date", "asset"),
                    returns,
                    {"start_lag": 1, "horizon": 1, "unit": "return"},
                ),
            },
            {
                "date": pd.bdate_range("2021-03-01", periods=n_dates).to_numpy(),
                "asset": [f"A{place}" for place in range(n_assets)],
                "feature": [f"f{place}" for place in range(n_features)],
            },
        )
    )


@pytest.fixture
def make_panel() -> Callable[..., Panel]:
    """Return a builder of a small panel with gaps: 7 dates, 5 assets, 3 features."""
    return _make_panel
