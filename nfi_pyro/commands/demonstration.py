"""`nfi demo`: the main job from prices to report, on real prices that need no download."""

from pathlib import Path
from typing import Any

from nfi_pyro.commands.fitting import fit
from nfi_pyro.commands.preparing import describe_panel, panel
from nfi_pyro.commands.reporting import report
from nfi_pyro.commands.settings import make_settings
from nfi_pyro.data.sources.embedded import embedded_prices

FIRST_DATE = "1999-01-01"

# The same as models/factor_vae/demo.toml, which the wheel does not carry.
DEMO: dict[str, Any] = {
    "model": "factor_vae",
    "spec": {
        "lags": 20,
        "projection_size": 32,
        "hidden_size": 32,
        "n_factors": 4,
        "n_portfolios": 16,
        "alpha_hidden_size": 32,
        "prior_hidden_size": 32,
    },
    "svi": {"n_epochs": 20, "block_size": 32, "learning_rate": 2e-3, "patience": 6},
    "split": {
        "train": ["1999-06-01", "2015-12-31"],
        "validation": ["2016-01-04", "2018-12-31"],
        "test": ["2019-01-02", "2022-12-23"],
    },
}


def demo(out: str | Path = "nfi-demo.html", run: str | Path = "nfi-demo", *, seed: int = 0) -> Path:
    """Fit FactorVAE to 20 S&P 500 stocks and write the report; return its path.

    The prices are daily adjusted closes, 1990-2022, from the wheel of skfolio: survivors only,
    closes only. The panel goes to ``<run>/panel.zarr`` and the fit to ``<run>/fit``.

    Parameters
    ----------
    out : path
        The HTML report.
    run : path
        Folder for the panel and the run; must not hold an earlier run.
    seed : int

    Raises
    ------
    MissingExtraError
        If skfolio is not installed.
    RunError
        If `run` already holds a run.
    """
    folder = Path(run)
    place = folder / "panel.zarr"
    built = panel(embedded_prices(), place, first=FIRST_DATE)
    print(describe_panel(built), flush=True)
    settings = make_settings(DEMO, where="the demo")
    fit(settings, place, folder / "fit", seed=seed, threads=1)  # too small to share out
    return report(folder / "fit", out)
