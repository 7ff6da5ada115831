"""A small run made by the command line, shared by the tests of commands and notebooks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from nfi_pyro.cli import app
from nfi_pyro.commands import fit

SPEC = """
model = "factor_vae"
[spec]
lags = 3
projection_size = 5
hidden_size = 7
n_factors = 2
n_portfolios = 5
alpha_hidden_size = 5
prior_hidden_size = 5
[svi]
n_epochs = 2
block_size = 16
"""
NFI = """
model = "nfi"
[spec]
lags = 3
projection_size = 5
hidden_size = 7
n_factors = 3
n_portfolios = 5
prior_hidden_size = 5
pricing_size = 5
n_components = 2
variant = "posterior"
[svi]
n_epochs = 2
block_size = 32
"""
ATTACK = "<script>alert(1)</script>"


@pytest.fixture(scope="session")
def spec_text() -> str:
    """The spec file's text."""
    return SPEC


@pytest.fixture(scope="session")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 300 days and 11 assets, one of them with a hostile name."""
    rng = np.random.default_rng(5)
    dates = pd.bdate_range("2018-01-02", periods=300)
    names = [f"S{k:02d}" for k in range(10)] + [ATTACK]
    market = rng.normal(0, 0.01, size=(300, 1))
    close = 20 * np.exp(np.cumsum(market + rng.normal(0, 0.015, size=(300, 11)), axis=0))
    table = pd.DataFrame(close, index=dates, columns=names).rename_axis("date")
    long = table.reset_index().melt(id_vars="date", var_name="instrument", value_name="close")
    place = tmp_path_factory.mktemp("prices") / "prices.csv"
    long.to_csv(place, index=False)
    return place


@pytest.fixture(scope="session")
def folder(prices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the spec file and the panel, made by the command line."""
    place = tmp_path_factory.mktemp("work")
    (place / "spec.toml").write_text(SPEC, encoding="utf-8")
    runner = CliRunner()
    made = runner.invoke(
        app, ["panel", str(prices), "--out", str(place / "panel.zarr"), "--features", "ROC5,STD5"]
    )
    assert made.exit_code == 0, made.output
    assert "tradable" in made.output
    return place


@pytest.fixture(scope="session")
def finished(folder: Path) -> Path:
    """A run, made by the command line."""
    runner = CliRunner()
    fitted = runner.invoke(
        app,
        ["fit", str(folder / "spec.toml"), "--panel", str(folder / "panel.zarr"),
         "--out", str(folder / "run"), "--no-progress"],
    )  # fmt: skip
    assert fitted.exit_code == 0, fitted.output
    assert "validation log score" in fitted.output
    return folder / "run"


@pytest.fixture(scope="session")
def priced(folder: Path) -> Path:
    """A run of a model with a pricing law and latent factors."""
    spec, place = folder / "nfi.toml", folder / "nfi"
    spec.write_text(NFI, encoding="utf-8")
    fit(spec, folder / "panel.zarr", place, threads=1, progress=False)
    return place
