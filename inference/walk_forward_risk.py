"""Value at risk over a rolling walk-forward of A-share daily bars, back-tested.

Run ``python inference/walk_forward_risk.py [PRICES.parquet]`` with columns date, instrument, open,
high, low, close, volume; by default the file in ``shared/data`` beside the project. A model is
refitted every 60 trading dates on the 250 before a validation span of 40, which stops training;
the test spans tile every later date. Fits that are there already are kept. The back-test of the
equal-weight book and of random books follows, with its power.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from nfi_pyro.commands import fit, panel
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.commands.settings import SplitSettings, read_settings
from nfi_pyro.data import read_panel, walk_forward
from nfi_pyro.data.splits import DateSpan, DateSplit

ROOT = Path(__file__).parents[1]
PRICES = ROOT.parent / "shared" / "data" / "ashare_daily.parquet"
SPEC = ROOT / "models" / "nfi" / "ashare.toml"
MAX_ABS_RETURN = 0.3  # mixed adjustment bases make one-day moves that no board rule allows
TRAIN, VALIDATION, TEST = 250, 40, 60
EPOCHS = 6


def main() -> None:
    """Fit every fold that is missing."""
    arguments = parse()
    place = arguments.out / "panel.zarr"
    if not place.exists():
        panel(arguments.prices, place, features="alpha158_20", max_abs_return=MAX_ABS_RETURN)
    splits = folds(place)
    for number, split in enumerate(splits):
        run = arguments.out / f"fold{number}"
        if RunDirectory(run).is_complete and not RunDirectory(run).checkpoint.exists():
            continue
        print(f"fold {number} of {len(splits)}: {split}", flush=True)
        settings = read_settings(SPEC)
        settings = replace(
            settings,
            svi=settings.svi.model_copy(update={"n_epochs": EPOCHS}),
            split=SplitSettings(
                train=days(split.train), validation=days(split.validation), test=days(split.test)
            ),
        )
        fit(settings, place, run, seed=0, resume=run.exists(), threads=1)


def folds(place: Path) -> tuple[DateSplit, ...]:
    """Return the splits of the panel's dates that have a full window of features."""
    data = read_panel(place)
    dates = data["date"].values[data["tradable"].values.any(1)]
    lags = int(read_settings(SPEC).spec.model_dump()["lags"])
    return walk_forward(
        dates[lags - 1 :],
        train=TRAIN,
        validation=VALIDATION,
        test=TEST,
        mode="rolling",
        label=dict(data["forward_return"].attrs),
    )


def days(span: DateSpan | None) -> tuple[str, str] | None:
    """Return the first and last day of a span as text."""
    return None if span is None else (str(span.first)[:10], str(span.last)[:10])


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("prices", type=Path, nargs="?", default=PRICES)
    parser.add_argument("--out", type=Path, default=Path("inference/runs/walk_forward"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


if __name__ == "__main__":
    main()
