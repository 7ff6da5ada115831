"""Five pricing models on A-share daily bars, three seeds each, on the same cells.

Run ``python inference/compare_pricing.py [PRICES.parquet]`` with columns date, instrument, open,
high, low, close, volume; by default the file in ``shared/data`` beside the project. Each model is
fitted as its ``models/<name>/ashare.toml`` says; everything is chosen on the validation half-year,
and the test half-year is opened once, by ``--test``, after the choice. Fits that are there already
are kept, so the work can be interrupted and split: ``--models nfi --seeds 0``.
"""

import argparse
from pathlib import Path

import pandas as pd

from nfi_pyro.commands import compare, fit, panel
from nfi_pyro.commands.comparing import Comparison
from nfi_pyro.commands.preparing import describe_panel
from nfi_pyro.commands.run_directory import RunDirectory

ROOT = Path(__file__).parents[1]
PRICES = ROOT.parent / "shared" / "data" / "ashare_daily.parquet"
MODELS = ("linear_factor", "neural_factor", "mixture_pricing", "factor_vae", "nfi")
MAX_ABS_RETURN = 0.3  # mixed adjustment bases make one-day moves that no board rule allows
COLUMNS = (
    *("rank_ic", "log_score", "log_score_minus_unconditional", "log_score_minus_ewma", "crps"),
    *("coverage_50", "coverage_80", "coverage_95", "fit_seconds"),
)


def main() -> None:
    """Fit what is missing, then print the table and the paired differences."""
    arguments = parse()
    place = arguments.out / "panel.zarr"
    if not place.exists():
        built = panel(
            arguments.prices, place, features="alpha158_20", max_abs_return=MAX_ABS_RETURN
        )
        print(describe_panel(built), flush=True)
    for seed in arguments.seeds:
        for name in arguments.models:
            run = run_of(arguments.out, name, seed)
            if RunDirectory(run).is_complete and not RunDirectory(run).checkpoint.exists():
                continue
            spec = ROOT / "models" / name / "ashare.toml"
            print(f"{name}, seed {seed}", flush=True)
            fit(spec, place, run, seed=seed, resume=run.exists(), threads=1)
    if arguments.fit_only:
        return
    span = "test" if arguments.test else "validation"
    found = {
        seed: compare([run_of(arguments.out, name, seed) for name in arguments.models], span=span)
        for seed in arguments.seeds
    }
    first = next(iter(found.values()))
    print(
        f"\n{span} {first.span.first} to {first.span.last}, {first.n_cells:,} cells; log score in "
        f"nats per cell, returns in units of {first.unit:.4%}; CRPS in decimal return"
    )
    table = pd.concat([rows(result, seed) for seed, result in found.items()])
    show(table)
    show(table.groupby("model")[list(COLUMNS)].mean().rename_axis("mean of seeds"))
    table.to_csv(arguments.out / f"pricing_{span}.csv")
    if {"nfi", "factor_vae"} <= set(arguments.models):
        show(paired(arguments.out, arguments.seeds, span))


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prices", type=Path, nargs="?", default=PRICES)
    parser.add_argument("--out", type=Path, default=Path("inference/runs/ashare"))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fit-only", action="store_true", help="fit and print no table")
    parser.add_argument("--test", action="store_true", help="open the test half-year")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


def run_of(out: Path, model: str, seed: int) -> Path:
    """Return the run directory of a fit."""
    return out / f"{model}-seed{seed}"


def rows(found: Comparison, seed: int) -> pd.DataFrame:
    """Return one comparison's runs with model and seed, in the order of the table."""
    own = found.table[found.table["model"].notna()]
    labels = pd.Index(own["model"] + f", seed {seed}", name="run")
    return own[["model", *COLUMNS]].assign(seed=seed).set_index(labels)


def paired(out: Path, seeds: list[int], span: str) -> pd.DataFrame:
    """Return nfi's log score less those of factor_vae and the two Gaussians, by seed, HAC."""
    found = {}
    for seed in seeds:
        pair = compare([run_of(out, "nfi", seed), run_of(out, "factor_vae", seed)], span=span)
        by_model = pair.table[pair.table["model"].notna()].set_index("model")
        ahead = by_model["rank"]["nfi"] == 1
        other = by_model.loc["factor_vae" if ahead else "nfi"]
        gap = -other["log_score_minus_best"] if ahead else other["log_score_minus_best"]
        own = by_model.loc["nfi"]
        found[f"seed {seed}"] = {
            "nfi - factor_vae": gap,
            "s.e.": other["log_score_minus_best_standard_error"],
            "nfi - unconditional": own["log_score_minus_unconditional"],
            "s.e. ": own["log_score_minus_unconditional_standard_error"],
            "nfi - EWMA": own["log_score_minus_ewma"],
            "s.e.  ": own["log_score_minus_ewma_standard_error"],
        }
    return pd.DataFrame.from_dict(found, orient="index")


def show(table: pd.DataFrame) -> None:
    """Print a table whole."""
    with pd.option_context("display.width", 250, "display.max_columns", 30):
        print(f"\n{table.to_string(float_format=lambda value: f'{value:.4f}', na_rep='-')}")


if __name__ == "__main__":
    main()
