"""FactorVAE on A-share daily bars: three seeds against ridge and two Gaussian baselines.

Run ``python inference/fit_ashare.py [PRICES.parquet]`` with columns date, instrument, open, high,
low, close, volume; by default the file in ``shared/data`` beside the project. Everything is chosen
on the validation half-year; the test half-year is opened once, by ``--test``, after the choice.
Ridge is fitted on the same 20 features in the same script.
"""

import argparse
import gc
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.linear_model import Ridge

from nfi_pyro.commands import fit, panel
from nfi_pyro.commands.evaluation import evaluate
from nfi_pyro.commands.preparing import describe_panel
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.commands.settings import read_settings
from nfi_pyro.data import RobustZScore, read_panel
from nfi_pyro.data.panel import Panel
from nfi_pyro.data.splits import DateSpan, DateSplit
from nfi_pyro.diagnostics import information_coefficient
from nfi_pyro.diagnostics.results import InformationCoefficient

SPEC = Path(__file__).parents[1] / "models" / "factor_vae" / "ashare.toml"
PRICES = Path(__file__).parents[2] / "shared" / "data" / "ashare_daily.parquet"
MAX_ABS_RETURN = 0.3  # mixed adjustment bases make one-day moves that no board rule allows
RIDGE_PENALTY = 1e3


def main() -> None:
    """Fit, score and print the table."""
    arguments = parse()
    place = arguments.out / "panel.zarr"
    imported = peak_memory()
    built = panel(arguments.prices, place, features="alpha158_20", max_abs_return=MAX_ABS_RETURN)
    print(describe_panel(built), flush=True)
    settings = read_settings(arguments.spec)
    split = settings.split.resolve(built["date"].values, dict(built["forward_return"].attrs))
    span = split.test if arguments.test and split.test is not None else split.validation
    rows = {"ridge": ridge_row(built, split, span)}
    del built
    gc.collect()
    for seed in arguments.seeds:
        run = arguments.out / f"seed{seed}"
        began = time.perf_counter()
        trained = fit(arguments.spec, place, run, seed=seed, resume=run.exists())
        seconds = time.perf_counter() - began
        data = read_panel(place)
        laws = RunDirectory(run).load_forecast()
        result = evaluate(trained, laws, data, span)
        scores = result.scores.table
        unconditional, ewma = -scores["log_score_difference"].values[1:]
        rows[f"factor_vae, seed {seed}"] = {
            **rank_columns(result.information_coefficient),
            "log score": float(scores["log_score"][0]),
            "minus unconditional": unconditional,
            "its HAC s.e.": float(scores["difference_standard_error"][1]),
            "minus EWMA": ewma,
            "its HAC s.e. ": float(scores["difference_standard_error"][2]),
            **{
                f"coverage {float(level):.0%}": float(result.calibration.coverage["observed"][at])
                for at, level in enumerate((0.5, 0.8, 0.95))
            },
            "wall s": seconds if seconds > 5.0 else trained.provenance["wall_seconds"],
            "epochs": trained.history.sizes["epoch"],
        }
    table = pd.DataFrame(rows).T
    seeds = table.filter(like="seed", axis=0)
    table.loc["factor_vae, mean of seeds"] = seeds.mean()
    name = "test" if span == split.test else "validation"
    print(f"\n{name} {span.first} to {span.last}, log scores in nats per cell (training-sd units)")
    with pd.option_context("display.width", 250, "display.max_columns", 30):
        print(table.to_string(float_format=lambda value: f"{value:.4f}", na_rep="-"))
    table.to_csv(arguments.out / f"{name}.csv")
    above = (peak_memory() - imported) / 2**30
    print(f"\npeak memory {above:.2f} GiB above the imported libraries")


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("prices", type=Path, nargs="?", default=PRICES)
    parser.add_argument("--out", type=Path, default=Path("inference/runs/ashare"))
    parser.add_argument("--spec", type=Path, default=SPEC)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--test", action="store_true", help="open the test half-year")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


def ridge_row(built: Panel, split: DateSplit, span: DateSpan) -> dict[str, float]:
    """Return the Rank IC of ridge on the last date's features (missing features excluded)."""
    dates = built["date"].values
    train = split.train.positions(dates)
    features, tradable = built["features"].values, built["tradable"].values
    names = tuple(str(name) for name in built["feature"].values)
    scaled = RobustZScore.fit(features[train], tradable[train], names).transform(features)
    returns = built["forward_return"].values
    known = tradable & np.isfinite(returns)
    model = Ridge(alpha=RIDGE_PENALTY).fit(
        scaled[train][known[train]], returns[train][known[train]]
    )
    where = span.positions(dates)
    forecast = np.full(returns[where].shape, np.nan)
    forecast[tradable[where]] = model.predict(scaled[where][tradable[where]])
    realised = built["forward_return"].isel(date=where).where(built["tradable"])
    predicted = xr.DataArray(forecast, realised.coords, realised.dims)
    return rank_columns(information_coefficient(predicted, realised))


def rank_columns(result: InformationCoefficient) -> dict[str, float]:
    """Return mean Rank IC with its HAC interval, and ICIR."""
    return {
        "Rank IC": result.mean,
        "s.e.": result.standard_error,
        "low": result.interval[0],
        "high": result.interval[1],
        "ICIR": result.icir,
    }


def peak_memory() -> float:
    """Return the process's peak resident memory in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
