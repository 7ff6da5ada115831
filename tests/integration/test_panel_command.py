"""`nfi panel` as a user types it: any layout in, a page and a ledger out, new dates appended."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner, Result

from nfi_pyro.cli import app
from nfi_pyro.commands import fit, forecast, panel, report
from nfi_pyro.commands.panel_settings import read_panel_settings
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.data import panel_hash, read_panel, read_prices, write_qlib
from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.errors import PanelError, SpecError
from nfi_pyro.svi.trained import SVIFit

CODES = [f"{600000 + 7 * k}.SH" for k in range(7)]
FEATURES = "KMID,STD5,ROC5,VWAP0"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """A table as tushare gives it: 60 days of 7 stocks, volume in lots, amount in thousands."""
    rng = np.random.default_rng(11)
    dates = pd.bdate_range("2023-01-03", periods=60)
    close = 20 * np.exp(np.cumsum(rng.normal(0, 0.015, (60, 7)), axis=0))
    spread = rng.uniform(0.002, 0.02, close.shape)
    lots = rng.integers(400, 800, close.shape)
    wide = {
        "open": close * (1 + spread / 3),
        "high": close * (1 + spread),
        "low": close * (1 - spread),
        "close": close,
        "vol": lots,
        "amount": np.round(lots * close / 10),
    }
    # numbers that float32, which a qlib directory stores, holds exactly
    wide = {name: values.astype(np.float32).astype(np.float64) for name, values in wide.items()}
    index = pd.MultiIndex.from_product([dates.strftime("%Y%m%d"), CODES])
    long = pd.DataFrame({name: values.ravel() for name, values in wide.items()}, index=index)
    return long.rename_axis(["trade_date", "ts_code"]).reset_index()


@pytest.fixture(scope="module")
def vendor_file(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("prices") / "prices.parquet"
    table.to_parquet(place)
    return place


def nfi(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said(result: Result) -> str:
    return f"{result.output}{result.exception or ''}"


def test_a_vendors_file_becomes_a_panel_with_a_page(vendor_file: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "panel.zarr", tmp_path / "deep" / "quality.html"
    done = nfi(
        "panel", vendor_file, "--out", out, "--vendor", "tushare", "--features", FEATURES,
        "--report", page, "--findings", tmp_path / "findings.nc", "--policy", "jump=mask",
    )  # fmt: skip
    assert done.exit_code == 0, said(done)
    assert "asset-dates" in done.output
    assert "mask  infinite, nonpositive_price, negative_volume, jump*" in done.output
    assert json.loads(xr.open_dataset(tmp_path / "findings.nc").attrs["policies"])["jump"] == "mask"
    assert str(page) in done.output
    text = page.read_text(encoding="utf-8")
    assert "SH600000" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    built = read_panel(out)
    assert built["asset"].values[0] == "SH600000"
    assert built["features"].attrs["vwap"] == "amount / volume"
    typical = built["features"].sel(feature="VWAP0").values
    np.testing.assert_allclose(typical[np.isfinite(typical)], 1, atol=2e-3)  # units of the vendor


def test_every_layout_gives_the_same_panel(table: pd.DataFrame, tmp_path: Path) -> None:
    bars = read_prices(table, vendor="tushare")
    write_qlib(bars, tmp_path / "qlib")
    table.to_csv(tmp_path / "prices.csv", index=False)
    (tmp_path / "parts").mkdir()
    for code, rows in table.groupby("ts_code"):
        rows.to_feather(tmp_path / "parts" / f"{code}.feather")
    hashes = set()
    for source, reading in (
        (table, {"vendor": "tushare"}),
        (tmp_path / "prices.csv", {"vendor": "tushare"}),
        (f"{tmp_path}/parts/*.feather", {"vendor": "tushare"}),
        (tmp_path / "qlib", {}),
        (bars.drop_attrs(deep=True), {}),
    ):
        built = panel(source, reading=reading, features=FEATURES.split(","))
        hashes.add(panel_hash(built))
    assert len(hashes) == 1


def test_new_dates_are_appended_and_forecast(table: pd.DataFrame, tmp_path: Path) -> None:
    days = sorted(table["trade_date"].unique())
    early = tmp_path / "early.csv"
    table[table["trade_date"] <= days[49]].to_csv(early, index=False)
    whole = tmp_path / "whole.csv"
    table.to_csv(whole, index=False)
    out = tmp_path / "panel.zarr"
    options = ["--vendor", "tushare"]
    first = nfi("panel", early, "--out", out, *options, "--features", FEATURES, "--horizon", 2)
    assert first.exit_code == 0, said(first)
    (tmp_path / "spec.toml").write_text(
        'model = "factor_vae"\n[spec]\nlags = 3\nprojection_size = 5\nhidden_size = 7\n'
        "n_factors = 2\nn_portfolios = 5\nalpha_hidden_size = 5\nprior_hidden_size = 5\n"
        '[svi]\nn_epochs = 1\nblock_size = 8\ntransforms = ["cs_rank"]\n',
        encoding="utf-8",
    )
    run = tmp_path / "run"
    fit(tmp_path / "spec.toml", out, run, progress=False)
    added = nfi("panel", whole, "--out", out, "--append", *options)
    assert added.exit_code == 0, said(added)
    assert "dates appended" in added.output
    want = panel(whole, reading={"vendor": "tushare"}, features=FEATURES.split(","), horizon=2)
    xr.testing.assert_equal(read_panel(out), want)
    laws = forecast(run, panel=out)
    assert str(laws.data["date"].values[-1])[:10].replace("-", "") == days[-1]
    assert [step.name for step in SVIFit.load(run).transforms.transforms] == ["cs_rank"]
    refused = nfi("panel", whole, "--out", out, "--append", *options, "--horizon", 3)
    assert "options of a panel to extend must be those it was built with" in said(refused)


def test_a_file_of_options_says_it_all(vendor_file: Path, tmp_path: Path) -> None:
    (tmp_path / "members.csv").write_text(
        "instrument,start,end\nSH600000,2023-01-01,2023-02-28\nSH600007,2023-01-01,\n"
        "SH600014,2023-01-01,\n"
    )
    days = [*pd.bdate_range("2023-01-03", periods=60).strftime("%Y-%m-%d"), "2023-02-04"]
    (tmp_path / "days.txt").write_text("\n".join(sorted(days)))
    place = tmp_path / "panel.toml"
    place.write_text(
        '[reading]\nvendor = "tushare"\ncalendar = "days.txt"\n[reading.policies]\njump = "mask"\n'
        '[panel]\nfeatures = ["KMID", "STD5"]\nkind = "demeaned"\nprice = "open"\n'
        '[universe]\nspells = "members.csv"\nmin_age = 0\n',
        encoding="utf-8",
    )
    out = tmp_path / "panel.zarr"
    done = nfi("panel", vendor_file, "--out", out, "--spec", place, "--horizon", 3)
    assert done.exit_code == 0, said(done)
    built = read_panel(out)
    label = built["forward_return"].attrs
    assert (label["unit"], label["price"], label["horizon"]) == ("excess", "open", 3)
    assert built["tradable"].values[:, 3:].sum() == 0
    assert "not a member" in str(DropLedger.from_json(built.attrs["ledger"]))
    assert "2023-02-04" in built.attrs["ledger"]  # a day of the calendar that the prices lack


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[panel]\nhorizons = 2\n", r"keys of a panel file must be known; got panel\.horizons in"),
        ("[label]\nkind = 1\n", "keys of a panel file must be known; got label in"),
        ("reading = 3\n", r"\[reading\] must be a table; got 3 in"),
        ("[panel\n", "must be valid TOML"),
        ('[universe]\nspells = "none.csv"\n', r"none\.csv"),
        ('[reading]\ncalendar = "none.txt"\n', "a calendar must be a text file"),
        ('[panel]\nlisting_dates = "none.csv"\n', "listing dates must be a CSV"),
        ('[panel]\nkind = "log"\n', "kind must be one of"),
        ('[panel]\nhorizon = "5"\n', "horizon must be an integer >= 1; got '5'"),
        ('[panel]\nprices = "gross"\n', "prices must be one of"),
        ('[reading]\nvendor = "acme"\n', "vendor must be one of"),
        ('[reading.policies]\njump = "fix"\n', "polic"),
        ('[reading.policies]\nspike = "mask"\n', "spike"),
    ],
)
def test_a_bad_file_of_options_is_named(
    vendor_file: Path, tmp_path: Path, text: str, match: str
) -> None:
    place = tmp_path / "panel.toml"
    place.write_text(text, encoding="utf-8")
    done = nfi(
        "panel", vendor_file, "--out", tmp_path / "p.zarr", "--spec", place, "--features", "KMID"
    )
    assert isinstance(done.exception, PanelError | SpecError), said(done)
    with pytest.raises((PanelError, SpecError), match=match):
        raise done.exception
    assert not (tmp_path / "p.zarr").exists()


def test_a_run_on_a_panel_on_disk_is_the_run_in_memory(
    folder: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfi_pyro.data.store.storage.LAZY_BYTES", 0)
    lazy = read_panel(folder / "panel.zarr")
    assert "complete" in lazy
    run = tmp_path / "run"
    fit(folder / "spec.toml", folder / "panel.zarr", run, progress=False)
    here, there = (RunDirectory(place).load_forecast().data for place in (finished, run))
    xr.testing.assert_identical(here, there)
    assert report(run, tmp_path / "page.html").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[reading]\ncolumns = "x"', r"columns of \[reading\] must be a table; got 'x'"),
        ('[reading]\npolicies = "mask"', r"policies of \[reading\] must be a table; got 'mask'"),
        ('[reading.columns]\nlayout = "wide"', "named by what they hold; got layout"),
        ('[reading.columns]\nsource = "close"', "named by what they hold; got source"),
        ('[universe]\nexclude_limits = "false"', "exclude_limits must be True or False"),
        ('[universe]\nmin_amount = "1e7"', "min_amount must be > 0 and finite"),
        ('[panel]\nlisting_dates = "listed.csv"', "1 rows with an empty cell"),
    ],
)
def test_a_panel_file_with_values_of_another_type_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "listed.csv").write_text("instrument,date\nSH600000,\n", encoding="utf-8")
    place = tmp_path / "panel.toml"
    place.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=message):
        read_panel_settings(place)


def test_a_panel_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    place = tmp_path / "panel.toml"
    place.write_text("[panel]\nhorizon = 5\n", encoding="utf-8-sig")
    assert read_panel_settings(place).panel == {"horizon": 5}


def test_a_plain_panel_loads_neither_torch_nor_matplotlib(
    vendor_file: Path, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from nfi_pyro.commands import panel\n"
        "panel(sys.argv[1], sys.argv[2], reading={'vendor': 'tushare'}, features=['KMID'])\n"
        "heavy = {'torch', 'matplotlib', 'arviz', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    command = [sys.executable, "-c", code, str(vendor_file), str(tmp_path / "p.zarr")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
