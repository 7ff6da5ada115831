"""`nfi compare`: the same cells and unit for all runs, paired errors, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import xarray as xr
from typer.testing import CliRunner

from nfi_pyro.cli import app
from nfi_pyro.commands import compare, fit, forecast, panel
from nfi_pyro.commands.comparing import Comparison
from nfi_pyro.commands.comparison_text import WIDTH, describe_comparison
from nfi_pyro.commands.evaluation import EWMA, UNCONDITIONAL, evaluate
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.data import read_panel
from nfi_pyro.data.splits import DateSpan
from nfi_pyro.diagnostics import newey_west_lags
from nfi_pyro.errors import RunError, SpecError
from nfi_pyro.posterior import ReturnForecast
from nfi_pyro.svi.trained import update_manifest

NEURAL = """
model = "neural_factor"
[spec]
hidden_size = 5
n_layers = 1
[svi]
n_epochs = 2
block_size = 16
"""
# Trained on other dates, validated and tested on dates of which the default split shares some.
LATER = """
[split]
train = ["2018-03-01", "2018-07-20"]
validation = ["2018-08-15", "2018-11-09"]
test = ["2018-12-03", "2019-02-11"]
"""
# Validated before the others' training ends, without test dates.
EARLY = """
[split]
train = ["2018-03-01", "2018-04-30"]
validation = ["2018-05-15", "2018-06-29"]
"""


@pytest.fixture(scope="module")
def make_run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a maker of runs on the shared panel."""
    place = tmp_path_factory.mktemp("compare")

    def make(name: str, spec: str, seed: int = 0) -> Path:
        (place / f"{name}.toml").write_text(spec, encoding="utf-8")
        fit(place / f"{name}.toml", folder / "panel.zarr", place / name, seed=seed, progress=False)
        return place / name

    return make


@pytest.fixture(scope="module")
def neural(make_run: Callable[..., Path]) -> Path:
    return make_run("neural", NEURAL)


@pytest.fixture(scope="module")
def later(make_run: Callable[..., Path]) -> Path:
    return make_run("later", NEURAL + LATER, seed=3)


@pytest.fixture(scope="module")
def early(make_run: Callable[..., Path]) -> Path:
    return make_run("early", NEURAL + EARLY)


@pytest.fixture(scope="module")
def validated(finished: Path, neural: Path, later: Path) -> Comparison:
    return compare([finished, neural, later], span="validation")


def changed(run: Path, place: Path, **values: Any) -> Path:
    """Return a copy of a run whose fit says something else."""
    copy = shutil.copytree(run, place)
    stored = json.loads((copy / "fit.json").read_text())
    (copy / "fit.json").write_text(json.dumps(stored | values))
    update_manifest(copy, "fit.json")
    return copy


def cells_of(run: Path, data: xr.Dataset, dates: np.ndarray) -> dict[str, xr.DataArray]:
    """Return log score per decimal return, CRPS and mean, in the plainest way."""
    laws = RunDirectory(run).load_forecast()
    own = ReturnForecast(laws.data.sel(date=dates))
    returns = data["forward_return"].sel(date=dates).astype(float).where(own.data["entered"])
    return {"log": own.log_prob(returns), "crps": own.crps(returns), "returns": returns}


def test_scores_are_of_the_common_cells_in_one_unit_with_paired_errors(
    validated: Comparison, finished: Path, neural: Path, later: Path, folder: Path
) -> None:
    data = read_panel(folder / "panel.zarr")
    assert validated.span == DateSpan("2018-10-23", "2018-11-09")  # of both splits
    dates = data["date"].sel(date=slice(validated.span.first, validated.span.last)).values
    runs = {"run": finished, "neural": neural, "later": later}
    cells = {name: cells_of(run, data, dates) for name, run in runs.items()}
    scored = (cells["run"]["log"] + cells["neural"]["log"] + cells["later"]["log"]).notnull()
    assert (validated.n_dates, validated.n_cells) == (14, int(scored.sum()))
    unit = RunDirectory(finished).load_fit().return_scale
    assert unit != RunDirectory(later).load_fit().return_scale
    assert (validated.unit, validated.unit_of) == (unit, "run")
    for name, own in cells.items():
        row = validated.table.loc[name]
        expected = float(own["log"].where(scored).mean()) + np.log(unit)
        assert row["log_score"] == pytest.approx(expected, rel=1e-10)
        assert row["crps"] == pytest.approx(float(own["crps"].where(scored).mean()), rel=1e-10)
    best = validated.table.index[validated.table["rank"] == 1][0]
    assert validated.table.loc[best, "log_score"] == validated.table["log_score"][list(runs)].max()
    for name in set(runs) - {best}:
        gap = (cells[name]["crps"] - cells[best]["crps"]).where(scored)
        row = validated.table.loc[name]
        assert row["crps_minus_best"] == pytest.approx(float(gap.mean()), rel=1e-9)
        counts = scored.sum("asset").values
        centred = ((gap - float(gap.mean())).sum("asset").values) / counts.mean()
        ols = sm.OLS(centred, np.ones(len(dates))).fit(
            cov_type="HAC",
            cov_kwds={"maxlags": newey_west_lags(len(dates)), "use_correction": False},
        )
        assert row["crps_minus_best_standard_error"] == pytest.approx(ols.bse[0], rel=1e-8)
        assert row["log_score_minus_best"] < 0


def test_one_run_and_the_baselines_are_scored_as_in_the_report(
    finished: Path, neural: Path, folder: Path
) -> None:
    found = compare([finished, neural], span="validation", panel=folder / "panel.zarr")
    trained, laws = RunDirectory(finished).load_fit(), RunDirectory(finished).load_forecast()
    alone = evaluate(trained, laws, read_panel(folder / "panel.zarr"), trained.split.validation)
    assert found.span == trained.split.validation
    scores = alone.scores.table
    assert found.n_cells == alone.scores.n_observations
    for name, other in (("run", "factor_vae"), (UNCONDITIONAL, UNCONDITIONAL), (EWMA, EWMA)):
        row, one = found.table.loc[name], scores.sel(forecast=other)
        assert row["log_score"] == pytest.approx(float(one["log_score"]), rel=1e-10)
        assert row["crps"] == pytest.approx(float(one["crps"]), rel=1e-10)
    row = found.table.loc["run"]
    for column, name in (("unconditional", UNCONDITIONAL), ("ewma", EWMA)):
        one = scores.sel(forecast=name)
        for measure, error in (("log_score", ""), ("crps", "crps_")):
            expected = -float(one[f"{measure}_difference"])
            assert row[f"{measure}_minus_{column}"] == pytest.approx(expected, rel=1e-9)
            assert row[f"{measure}_minus_{column}_standard_error"] == pytest.approx(
                float(one[f"{error}difference_standard_error"]), rel=1e-9
            )
    ranks = alone.information_coefficient
    assert row["rank_ic"] == pytest.approx(ranks.mean, rel=1e-10)
    assert (row["rank_ic_lower"], row["rank_ic_upper"]) == pytest.approx(ranks.interval, rel=1e-10)
    shares = alone.calibration.coverage["observed"].values
    found_shares = [row[f"coverage_{level}"] for level in (50, 80, 95)]
    assert found_shares == pytest.approx(shares.tolist(), rel=1e-12)
    assert row["fit_seconds"] == trained.provenance["wall_seconds"]
    assert (row["model"], row["seed"]) == ("factor_vae", 0)


def test_another_first_run_moves_all_log_scores_by_the_log_of_the_ratio(
    validated: Comparison, finished: Path, neural: Path, later: Path
) -> None:
    turned = compare([later, neural, finished], span="validation")
    names = ["later", "neural", "run"]
    shift = np.log(turned.unit / validated.unit)
    assert abs(shift) > 1e-3
    np.testing.assert_allclose(
        turned.table.loc[names, "log_score"],
        validated.table.loc[names, "log_score"] + shift,
        rtol=1e-10,
    )
    columns = ["log_score_minus_best", "crps_minus_best_standard_error", "crps_minus_ewma", "crps"]
    np.testing.assert_allclose(
        turned.table.loc[names, columns], validated.table.loc[names, columns], rtol=1e-8, atol=1e-15
    )


def test_the_text_fits_a_terminal_and_says_what_to_know(
    validated: Comparison, finished: Path, neural: Path, tmp_path: Path
) -> None:
    text = describe_comparison(validated)
    assert max(map(len, text.splitlines())) <= WIDTH
    flat = " ".join(text.split())
    for phrase in (
        "validation 2018-10-23 to 2018-11-09: 14 dates",
        "used to stop training: slightly optimistic",
        "Fitted with another split than run: later",
        "converted by adding the log of the ratio",
        "log score",
        "[95% HAC]",
        "% of 50/80/95",
    ):
        assert phrase in flat
    ranked = [line.split()[1] for line in text.splitlines() if line[:1] in set("123")]
    assert ranked == [name for name in validated.table.index if name in ("run", "neural", "later")]
    long = shutil.copytree(
        finished, tmp_path / ("a_very_long_name_of_a_run_" + 40 * "x" + "_seed7")
    )
    text = describe_comparison(compare([long, neural], span="validation"))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" in text
    assert "_seed7" in text


def test_the_command_opens_the_test_span_by_default_and_says_so(
    finished: Path, neural: Path, early: Path, tmp_path: Path
) -> None:
    runner = CliRunner()
    table = tmp_path / "deep" / "table.csv"
    said = runner.invoke(app, ["compare", str(finished), str(neural), "--out", str(table)])
    assert said.exit_code == 0, said.output
    assert said.output.startswith("test 2018-12-")
    assert "Open the test span once" in " ".join(said.output.split())
    stored = pd.read_csv(table, index_col="forecast")
    assert set(stored.index) == {"run", "neural", UNCONDITIONAL, EWMA}
    assert stored["log_score"].is_monotonic_decreasing
    assert sorted(stored["rank"].dropna()) == [1, 2]
    said = runner.invoke(app, ["compare", str(neural), str(early), "--span", "test"])
    assert said.exit_code == 1
    assert isinstance(said.exception, SpecError)
    assert "split of early" in str(said.exception)


def test_runs_of_the_same_name_are_told_apart(finished: Path, neural: Path, tmp_path: Path) -> None:
    other = shutil.copytree(neural, tmp_path / "b" / "run")
    found = compare([finished, other], span="validation")
    assert {f"{finished.parent.name}/run", "b/run"} < set(found.table.index)


def test_runs_that_cannot_be_compared_are_refused_by_name(
    finished: Path, neural: Path, later: Path, early: Path, prices: Path, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match="must have at least two runs"):
        compare([finished])
    with pytest.raises(SpecError, match=r"runs to compare must differ; got .*run twice"):
        compare([finished, neural, finished.parent / "." / "run"])
    with pytest.raises(SpecError, match="span must be test or validation; got 'train'"):
        compare([finished, neural], span="train")
    with pytest.raises(SpecError, match=r"must share validation dates; got early until 2018-06-2"):
        compare([neural, early])
    label = json.loads((neural / "fit.json").read_text())["label"] | {"kind": "excess"}
    excess = changed(neural, tmp_path / "excess", label=label)
    with pytest.raises(RunError, match=r"must have one label; got \{'kind': 'excess'\} at excess"):
        compare([finished, excess])
    split = json.loads((neural / "fit.json").read_text())["split"]
    leaky = changed(
        neural,
        tmp_path / "leaky",
        split=split | {"train": split["train"] | {"last": split["validation"]["first"]}},
    )
    with pytest.raises(SpecError, match=r"outside every run's training dates; got .* of leaky"):
        compare([finished, leaky], span="validation")
    moved = shutil.copytree(neural, tmp_path / "moved")
    table = pd.read_csv(prices)
    dates = sorted(table["date"].unique())
    panel(table[table["date"] <= dates[-20]], tmp_path / "short.zarr", features=["ROC5", "STD5"])
    forecast(moved, panel=tmp_path / "short.zarr")
    with pytest.raises(RunError, match="forecasts of one panel; got another panel at moved"):
        compare([finished, moved], span="validation")


def test_forecasts_that_do_not_reach_the_span_are_refused_by_name(
    finished: Path, neural: Path, tmp_path: Path
) -> None:
    cut = shutil.copytree(neural, tmp_path / "cut")
    laws = ReturnForecast.load(cut / "forecast.nc")
    ReturnForecast(laws.data.isel(date=slice(0, 50))).save(cut / "forecast.nc")
    update_manifest(cut, "forecast.nc")
    with pytest.raises(RunError, match=r"forecasts of cut must include dates of 2018-10-23 to"):
        compare([finished, cut], span="validation")
    span = RunDirectory(neural).load_fit().split.validation
    dates = laws.data["date"].sel(date=slice(span.first, span.last)).values
    halves = {"first": slice(None, str(dates[9])), "second": slice(str(dates[10]), None)}
    for name, half in halves.items():
        shutil.copytree(neural, tmp_path / name)
        ReturnForecast(laws.data.sel(date=half)).save(tmp_path / name / "forecast.nc")
        update_manifest(tmp_path / name, "forecast.nc")
    with pytest.raises(RunError, match=r"forecast the same dates; got none in .* first, second"):
        compare([tmp_path / "first", tmp_path / "second"], span="validation")
    one = compare([neural, tmp_path / "first"], span="validation")
    assert one.n_dates == 10
