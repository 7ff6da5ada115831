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

import xarray as xr
from scipy.special import ndtri

from nfi_pyro.commands import fit, panel
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.commands.settings import SplitSettings, read_settings
from nfi_pyro.data import read_panel, walk_forward
from nfi_pyro.data.splits import DateSpan, DateSplit
from nfi_pyro.diagnostics import (
    backtest_value_at_risk,
    fit_scale_recalibration,
    portfolio_coverage,
)
from nfi_pyro.diagnostics.results.recalibration import ScaleRecalibration
from nfi_pyro.posterior import ReturnForecast, portfolio_outcomes
from nfi_pyro.posterior.books import EQUAL_WEIGHT

ROOT = Path(__file__).parents[1]
PRICES = ROOT.parent / "shared" / "data" / "ashare_daily.parquet"
SPEC = ROOT / "models" / "nfi" / "ashare.toml"
MAX_ABS_RETURN = 0.3  # mixed adjustment bases make one-day moves that no board rule allows
TRAIN, VALIDATION, TEST = 250, 40, 60
EPOCHS = 5
LEVELS = (0.95, 0.99)


def main() -> None:
    """Fit every fold that is missing, then back-test the books of all test spans."""
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
    data = read_panel(place)
    books: list[xr.Dataset] = []
    calm: list[xr.Dataset] = []
    for number, split in enumerate(splits):
        if split.test is None:
            continue
        laws = RunDirectory(arguments.out / f"fold{number}").load_forecast()
        for span, store in ((split.test, books), (split.validation, calm)):
            rows = span.positions(laws.data["date"].values)
            part = ReturnForecast(laws.data.isel(date=rows))
            store.append(portfolio_outcomes(part, data["forward_return"], levels=LEVELS, seed=0))
    report(books, [scale_of(part) for part in calm])


def scale_of(books: xr.Dataset) -> ScaleRecalibration:
    """Return by how much the equal-weight book's risk was off on dates before the test span."""
    pit = books["pit"].sel(portfolio=EQUAL_WEIGHT)
    return fit_scale_recalibration(pit.copy(data=ndtri(pit.values)))


def report(parts: list[xr.Dataset], scales: list[ScaleRecalibration]) -> None:
    """Print the back-tests of every book, and of the equal-weight one with its risk rescaled."""
    books: xr.Dataset = xr.concat(parts, "date")
    dates = books["date"].values.astype("datetime64[D]")
    print(f"\n{len(dates)} test dates, {dates[0]} to {dates[-1]}, refitted {len(parts)} times")
    coverage = portfolio_coverage(books["pit"])
    print(f"coverage: {coverage.verdict.text}")
    table = coverage.coverage["observed"].to_dataset("level").to_dataframe()
    table = table.assign(spread=coverage.spread["spread"].values)
    print(table.to_string(float_format="{:.3f}".format))
    own = books.sel(portfolio=EQUAL_WEIGHT)
    for level in LEVELS:
        show("equal weight", own["forward_return"], own.sel(level=level), level)
        # A return is known two days after its date: the next date's forecast cannot know it.
        apart = own.isel(date=slice(None, None, 2)).sel(level=level)
        show("the same, every second date", apart["forward_return"], apart, level)
    random = books.isel(portfolio=slice(1, None))
    for level in LEVELS:
        beyond = (-random["forward_return"] > random["value_at_risk"].sel(level=level)).mean("date")
        print(
            f"random books, VaR {level:.0%}: exceeded on {float(beyond.mean()):.1%} of dates, "
            f"{float(beyond.min()):.1%} to {float(beyond.max()):.1%} by book"
        )
    # Rescaled by what the fold before the test span showed: nothing of the test span enters.
    factors = [scale.factor for scale in scales]
    print("risk scaled by", ", ".join(f"{factor:.2f}" for factor in factors), "fold by fold")
    rescaled = [
        factor * (part[["value_at_risk", "expected_shortfall"]] + part["mean"]) - part["mean"]
        for part, factor in zip(parts, factors, strict=True)
    ]
    wider: xr.Dataset = xr.concat(rescaled, "date").sel(portfolio=EQUAL_WEIGHT)
    for level in LEVELS:
        show("equal weight, rescaled", own["forward_return"], wider.sel(level=level), level)


def show(name: str, returns: xr.DataArray, risk: xr.Dataset, level: float) -> None:
    """Print one back-test."""
    result = backtest_value_at_risk(
        returns,
        risk["value_at_risk"],
        level=level,
        expected_shortfall=risk["expected_shortfall"],
    )
    shortfall = result.shortfall
    tail = "" if shortfall is None else f", expected shortfall {shortfall.p_value:.3f}"
    print(
        f"{name}, VaR {level:.0%}: {result.verdict.text}\n"
        f"    p: coverage {result.coverage.small_sample_p_value:.3f}, independence "
        f"{result.independence.small_sample_p_value:.3f}, both "
        f"{result.conditional_coverage.small_sample_p_value:.3f}{tail}; power against twice as "
        f"many {result.power:.2f}"
    )


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
