"""`nfi attribute` of small runs: every part that a model has, and what bad input gets."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from nfi_pyro.cli import app
from nfi_pyro.commands import attribute, fit, report
from nfi_pyro.commands.attribution_page import collect_attribution
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.errors import RunError, SpecError, WeightsError
from nfi_pyro.rendering import AttributionContents, render_attribution
from nfi_pyro.svi.trained import update_manifest

PARTS = (
    "prices", "risk_slopes", "taylor", "risk", "sharpe", "heat_mean", "heat_risk", "sanity",
    "features", "relevance", "couplings", "realised", "brinson", "hedge", "styles",
)  # fmt: skip


@pytest.fixture(scope="module")
def book(priced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return weights of three assets that have a forecast on every date."""
    laws = RunDirectory(priced).load_forecast()
    names = laws.data["asset"].values[laws.data["entered"].values[-90:].all(0)][:3]
    place = tmp_path_factory.mktemp("book") / "growth.csv"
    pd.DataFrame({"asset": names, "weight": [0.5, 0.3, 0.2]}).to_csv(place, index=False)
    return place


@pytest.fixture(scope="module")
def groups(priced: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two groups; one asset has none."""
    names = RunDirectory(priced).load_forecast().data["asset"].values
    place = tmp_path_factory.mktemp("groups") / "boards.csv"
    table = pd.DataFrame({"asset": names, "group": np.where(np.arange(len(names)) % 2, "B", "A")})
    table.iloc[:-1].to_csv(place, index=False)
    return place


@pytest.fixture(scope="module")
def contents(priced: Path, book: Path, groups: Path) -> AttributionContents:
    return collect_attribution(priced, weights=book, groups=groups, n_dates=6)


def test_every_part_is_there_or_left_out_with_its_reason(contents: AttributionContents) -> None:
    missing = {part for part in PARTS if getattr(contents, part) is None}
    assert missing == set(contents.left_out)
    assert missing <= {"couplings", "styles"}  # 11 assets and a short panel
    page = render_attribution(contents)
    assert page.count("Left out: ") == len(set(contents.left_out.values()))
    assert re.search(r"\bnan\b", page, re.IGNORECASE) is None


def test_parts_agree_with_each_other(contents: AttributionContents, priced: Path) -> None:
    """The book's expected return and risk are the same in every part that has them."""
    taylor, risk, sharpe = contents.taylor, contents.risk, contents.sharpe
    assert taylor is not None
    assert risk is not None
    assert sharpe is not None
    assert contents.prices is not None
    assert contents.risk_slopes is not None
    assert contents.heat_risk is not None
    mean, deviation = float(taylor["value"]), float(risk.value[0])
    assert float(contents.prices["value"][-1]) == pytest.approx(mean, rel=1e-9)
    assert sharpe.expected_return == pytest.approx(mean, rel=1e-4, abs=1e-9)
    assert sharpe.standard_deviation == pytest.approx(deviation, rel=1e-9)
    assert float(contents.risk_slopes["value"][-1]) == pytest.approx(deviation, rel=1e-4)
    assert float(contents.heat_risk.value[-1]) == pytest.approx(deviation, rel=1e-4)
    span = RunDirectory(priced).load_fit().split.validation
    days = [str(day)[:10] for day in contents.prices["date"].values[[0, -1]]]
    assert span.first <= days[0] <= days[1] <= span.last
    assert contents.prices.sizes["date"] <= 6


def test_an_equal_weight_book_is_expanded_around_zero(priced: Path) -> None:
    found = collect_attribution(priced, n_dates=2)
    assert found.taylor is not None
    assert found.taylor.attrs["base"] == "zero exposure"
    assert float(np.abs(found.taylor["base"]).max()) == 0.0
    assert (
        "must compare two books" in found.left_out["brinson"]
        or "must have groups" in (found.left_out["brinson"])
    )
    assert found.benchmark == ""


def test_the_command_line_writes_a_page_and_says_what_it_does(
    priced: Path, book: Path, tmp_path: Path
) -> None:
    place = tmp_path / "deep" / "page.html"
    options = ["--out", str(place), "--weights", str(book), "--n-dates", "2"]
    before = torch.random.get_rng_state()
    said = CliRunner().invoke(app, ["attribute", str(priced), *options])
    assert said.exit_code == 0, said.output
    assert torch.equal(torch.random.get_rng_state(), before)
    assert f"attribution {place}" in said.stdout
    assert "attribute: relevance of features" in said.stderr.splitlines()
    page = place.read_text(encoding="utf-8")
    assert "Book: growth." in page
    assert "not trained on, but used to stop training" in page
    assert "<script" not in page
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


def test_a_model_of_hidden_features_and_one_without_factors_get_what_they_have(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    hidden = collect_attribution(finished, n_dates=2)
    assert {"heat_mean", "heat_risk", "sanity", "couplings"} <= set(hidden.left_out)
    assert hidden.taylor is not None
    assert float(np.abs(hidden.taylor["quadratic"]).max()) == 0.0
    spec = tmp_path / "spec.toml"
    spec.write_text(
        'model = "mixture_pricing"\n[spec]\nhidden_size = 5\nn_components = 2\n'
        "[svi]\nn_epochs = 1\nblock_size = 32\n",
        encoding="utf-8",
    )
    fit(spec, folder / "panel.zarr", tmp_path / "run", threads=1, progress=False)
    found = collect_attribution(tmp_path / "run", n_dates=2)
    assert "hedge" in found.left_out
    assert found.realised is not None
    assert "regression" in found.realised.method
    render_attribution(found)


@pytest.mark.slow
def test_random_heads_give_intervals(folder: Path, priced: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(
        'model = "mixture_pricing"\n[spec]\nhidden_size = 5\n[spec.heads]\nkind = "low_rank"\n'
        "rank = 2\n[svi]\nn_epochs = 1\nblock_size = 32\n",
        encoding="utf-8",
    )
    fit(spec, folder / "panel.zarr", tmp_path / "run", threads=1, progress=False)
    found = collect_attribution(tmp_path / "run", n_dates=1)
    assert found.prices is not None
    assert bool((found.prices["gradient_lower"] < found.prices["gradient_upper"]).all())
    assert found.taylor is not None
    assert bool((found.taylor["part_lower"] < found.taylor["part_upper"]).all())
    assert float(found.taylor["value_lower"]) < float(found.taylor["value_upper"])
    assert found.risk is not None
    assert found.risk_bounds is not None
    assert found.risk_bounds.dims == ("bound", "measure")
    assert bool((found.risk_bounds[0] < found.risk_bounds[1]).all())
    page = render_attribution(found)
    assert "Intervals: standard deviation" in page
    assert ">Interval of all<" in page
    assert "19 draws of the last layers" in found.interval_about
    assert "19 draws of the last layers" in render_attribution(found)


def test_the_risk_report_has_the_sections(priced: Path, book: Path, tmp_path: Path) -> None:
    page = report(priced, tmp_path / "risk.html", weights=book).read_text(encoding="utf-8")
    order = [page.index(f'id="{name}"') for name in ("largest-risks", "expected-return", "risk",
                                                     "heat-maps", "limits")]  # fmt: skip
    assert order == sorted(order)
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"n_dates": 0}, SpecError, "n_dates must be at least 1; got 0"),
        ({"seed": -1}, SpecError, "seed"),
        ({"span": "training"}, SpecError, "span must be test or validation; got 'training'"),
        ({"weights": "asset,weight\nNOBODY,1\n"}, WeightsError, "weights .* unknown NOBODY"),
        ({"benchmark": "asset,weight\nNOBODY,1\n"}, WeightsError, "benchmark .* NOBODY"),
        ({"groups": "asset,colour\nA,red\n"}, WeightsError, "columns asset and group"),
        ({"weights": "asset,weight\nA,x\n"}, WeightsError, "must be finite numbers"),
        ({"weights": "asset,weight\nSPY,30\n"}, WeightsError, "unknown SPY"),
        ({"groups": "asset,group\nNOBODY,red\n"}, WeightsError, "groups must name assets"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    finished: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    for name in ("weights", "benchmark", "groups"):
        if name in options:
            place = tmp_path / f"{name}.csv"
            place.write_text(options[name], encoding="utf-8")
            options = options | {name: place}
    with pytest.raises(error, match=said):
        attribute(finished, tmp_path / "a.html", **options)
    assert not (tmp_path / "a.html").exists()


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a run directory must hold manifest.json"):
        attribute(tmp_path / "none", tmp_path / "a.html")


def test_an_asset_without_a_forecast_leaves_out_what_needs_one_by_name(
    priced: Path, tmp_path: Path
) -> None:
    run = RunDirectory(priced)
    laws, split = run.load_forecast(), run.load_fit().split
    place = split.validation.positions(laws.data["date"].to_numpy())
    gone = str(laws.data["asset"].values[0])
    laws.data["entered"].values[place.stop - 1, 0] = False
    forecast = shutil.copytree(priced, tmp_path / "run") / "forecast.nc"
    laws.save(forecast)
    update_manifest(tmp_path / "run", "forecast.nc")
    book = tmp_path / "w.csv"
    book.write_text(f"asset,weight\n{gone},1.0\n", encoding="utf-8")
    found = collect_attribution(tmp_path / "run", weights=book, n_dates=3)
    assert f"on the date; got none for {gone}" in found.left_out["risk"]
    assert found.realised is not None
    assert len(found.left_out) < len(PARTS)


def test_weights_in_percent_are_refused(priced: Path, book: Path, tmp_path: Path) -> None:
    table = pd.read_csv(book)
    table.assign(weight=100.0 * table["weight"]).to_csv(tmp_path / "w.csv", index=False)
    with pytest.raises(WeightsError, match="fractions of capital; got a gross weight of 100"):
        attribute(priced, tmp_path / "a.html", weights=tmp_path / "w.csv")
