"""The same data in every layout give the same bars, bit for bit; what is open is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.data import DropLedger, build_panel, panel_hash, read_prices
from nfi_pyro.data.sources.qlib_writer import write_qlib
from nfi_pyro.data.sources.readers import inspect_prices
from nfi_pyro.errors import PanelError, SpecError

DATES = pd.bdate_range("2024-01-02", periods=31)
ASSETS = ("SH600519", "SZ000001", "BJ430047", "SH688981", "SZ300750")
PRICES = ("open", "high", "low", "close", "volume")
DOUBLE = "rows of one date and asset given twice"
READING = ("ignored", "symbol from the file name", "rewritten", "time dropped", "not used")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """31 dates, 5 assets, single-precision values, a late start, an early end and gaps."""
    rng = np.random.default_rng(11)
    rows = pd.MultiIndex.from_product([DATES, ASSETS], names=["date", "instrument"])
    frame = rows.to_frame(index=False)
    close = (20 + rng.normal(size=len(frame)).cumsum() / 10).astype(np.float32)
    frame["open"] = (close + rng.normal(scale=0.01, size=len(frame))).astype(np.float32)
    frame["high"], frame["low"] = close + np.float32(0.125), close - np.float32(0.125)
    frame["close"], frame["volume"] = close, rng.integers(1, 9999, len(frame)).astype(np.float32)
    frame[list(PRICES)] = frame[list(PRICES)].astype(np.float64)
    late = (frame["instrument"] == "SZ300750") & (frame["date"] < DATES[3])
    early = (frame["instrument"] == "SH688981") & (frame["date"] > DATES[26])
    gaps = frame.index.isin([17, 42, 88])
    frame.loc[60, "close"] = np.nan
    return frame[~(late | early | gaps)].reset_index(drop=True)


def wide(table: pd.DataFrame, field: str = "close") -> pd.DataFrame:
    return table.pivot_table(index="date", columns="instrument", values=field, dropna=False)


def findings(bars: xr.Dataset) -> list[dict[str, Any]]:
    """Return what was found in the bars, without notes on the reading."""
    return [f for f in json.loads(bars.attrs["ledger"]) if f["action"] not in READING]


def rules(bars: xr.Dataset) -> dict[str, tuple[int, str, tuple[str, ...]]]:
    found = DropLedger.from_json(bars.attrs["ledger"]).findings
    return {f.rule: (f.count, f.action, f.places) for f in found}


def assert_same(bars: xr.Dataset, expected: xr.Dataset) -> None:
    assert list(bars.data_vars) == list(expected.data_vars)
    assert bars.date.dtype == np.dtype("datetime64[ns]")
    assert bars.asset.dtype == object
    for name in (*expected.data_vars, "date", "asset"):
        ours, theirs = bars[name], expected[name]
        assert ours.dims == theirs.dims, name
        assert ours.dtype == theirs.dtype, name
        if ours.dtype == object:
            assert ours.values.tolist() == theirs.values.tolist(), name
        else:
            assert ours.values.tobytes() == theirs.values.tobytes(), name
    assert findings(bars) == findings(expected)


def partitioned(table: pd.DataFrame, folder: Path) -> Path:
    for symbol, rows in table.groupby("instrument"):
        place = folder / f"instrument={symbol}"
        place.mkdir(parents=True)
        rows.drop(columns="instrument").to_parquet(place / "part-0.parquet", index=False)
    return folder


def per_symbol(table: pd.DataFrame, folder: Path, suffix: str = ".csv") -> Path:
    folder.mkdir()
    for symbol, rows in table.groupby("instrument"):
        rows.drop(columns="instrument").to_csv(folder / f"{symbol}{suffix}", index=False)
    return folder


def shards(table: pd.DataFrame, folder: Path) -> str:
    folder.mkdir()
    shuffled = table.sample(frac=1, random_state=2)
    for place in range(3):
        shuffled.iloc[place::3].to_csv(folder / f"shard{place}.csv", index=False)
    return str(folder / "shard*.csv")


def stored(table: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".feather":
        table.to_feather(path)
    else:
        table.to_csv(path, index=False)
    return path


def qlib_groups(table: pd.DataFrame) -> pd.DataFrame:
    frame = table.rename(columns={"date": "datetime"}).set_index(["datetime", "instrument"])
    label = frame[["close"]].rename(columns={"close": "LABEL0"})
    return pd.concat({"feature": frame, "label": label}, axis=1)


def arrays(table: pd.DataFrame) -> xr.Dataset:
    return table.set_index(["date", "instrument"]).to_xarray()


def qlib_folder(table: pd.DataFrame, folder: Path) -> Path:
    write_qlib(read_prices(table), folder)
    return folder


LAYOUTS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "shuffled": lambda t, _: t.sample(frac=1, random_state=7),
    "date, instrument": lambda t, _: t.set_index(["date", "instrument"]),
    "instrument, date": lambda t, _: t.set_index(["instrument", "date"]),
    "unnamed levels": lambda t, _: t.set_index(["date", "instrument"]).rename_axis([None, None]),
    "date index": lambda t, _: t.set_index("date"),
    "unnamed date index": lambda t, _: t.set_index("date").rename_axis(None),
    "instrument index": lambda t, _: t.set_index("instrument"),
    "unnamed instrument index": lambda t, _: t.set_index("instrument").rename_axis(None),
    "qlib groups": lambda t, _: qlib_groups(t),
    "objects": lambda t, _: t.astype(object),
    "categories": lambda t, _: t.astype({"instrument": "category"}),
    "single precision": lambda t, _: t.astype(dict.fromkeys(PRICES, np.float32)),
    "nullable": lambda t, _: t.convert_dtypes(),
    "arrow": lambda t, _: t.convert_dtypes(dtype_backend="pyarrow"),
    "csv": lambda t, p: stored(t, p / "prices.csv"),
    "csv.gz": lambda t, p: stored(t, p / "prices.csv.gz"),
    "parquet": lambda t, p: stored(t, p / "prices.parquet"),
    "parquet with index": lambda t, p: stored(
        t.set_index(["instrument", "date"]), p / "prices.parquet"
    ),
    "feather": lambda t, p: stored(t, p / "prices.feather"),
    "glob": lambda t, p: shards(t, p / "shards"),
    "folder": lambda t, p: Path(shards(t, p / "shards")).parent,
    "partitions": lambda t, p: partitioned(t, p / "parts"),
    "per symbol": lambda t, p: per_symbol(t, p / "symbols"),
    "per symbol gz": lambda t, p: per_symbol(t, p / "symbols", ".csv.gz"),
    "per symbol glob": lambda t, p: str(per_symbol(t, p / "symbols") / "*.csv"),
    "dict of wide": lambda t, _: {name: wide(t, name) for name in PRICES[::-1]},
    "dict of arrays": lambda t, _: {name: arrays(t)[name] for name in PRICES},
    "field and ticker head": lambda t, _: t.pivot(
        index="date", columns="instrument", values=list(PRICES)
    ),
    "ticker and field head": lambda t, _: t.pivot(
        index="date", columns="instrument", values=list(PRICES)
    ).swaplevel(axis=1),
    "xarray": lambda t, _: arrays(t),
    "xarray transposed": lambda t, _: (
        arrays(t).transpose("instrument", "date").rename(date="time", instrument="symbol")
    ),
    "xarray single precision": lambda t, _: arrays(t).astype(np.float32),
    "bars": lambda t, _: read_prices(t),
    "qlib": lambda t, p: qlib_folder(t, p / "qlib"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_bars(table: pd.DataFrame, tmp_path: Path, name: str) -> None:
    expected = read_prices(table)
    bars = read_prices(LAYOUTS[name](table, tmp_path))
    if name == "qlib":
        bars = bars[list(expected.data_vars)].assign_attrs(bars.attrs)
    assert_same(bars, expected)


@pytest.mark.parametrize("name", ["objects", "csv", "per symbol", "dict of wide", "xarray", "qlib"])
def test_every_layout_gives_the_same_panel(table: pd.DataFrame, tmp_path: Path, name: str) -> None:
    bars = read_prices(LAYOUTS[name](table, tmp_path))
    hashes = {
        panel_hash(build_panel(each, features=["ROC5", "STD5"]))
        for each in (bars, read_prices(table))
    }
    assert len(hashes) == 1


@pytest.mark.parametrize(
    "form",
    [
        lambda t, _: wide(t),
        lambda t, _: wide(t).rename_axis(index=None, columns=None),
        lambda t, _: {"Close": wide(t)},
        lambda t, _: t.set_index(["date", "instrument"])["close"],
        lambda t, _: t.set_index(["instrument", "date"])["close"].rename("anything"),
        lambda t, _: arrays(t)["close"],
        lambda t, _: arrays(t)["close"].rename(None).T,
    ],
)
def test_closes_alone(table: pd.DataFrame, tmp_path: Path, form: Callable[..., Any]) -> None:
    expected = read_prices(table[["date", "instrument", "close"]])
    assert_same(read_prices(form(table, tmp_path)), expected)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".feather"])
def test_a_file_with_a_matrix_is_declared(table: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    frame = wide(table)
    frame.columns.name = None
    path = stored(frame.reset_index(), tmp_path / f"close{suffix}")
    expected = read_prices(table[["date", "instrument", "close"]])
    assert_same(read_prices(path, layout="wide"), expected)
    with pytest.raises(
        PanelError, match=r"must have the columns instrument, close;.*layout='wide'"
    ):
        read_prices(path)


def test_one_matrix_file_per_field(table: pd.DataFrame, tmp_path: Path) -> None:
    for name in PRICES:
        wide(table, name).to_csv(tmp_path / f"{name}.csv")
    assert_same(read_prices(tmp_path, layout="wide"), read_prices(table))


def test_matrices_of_different_dates_and_assets_are_united(table: pd.DataFrame) -> None:
    close, volume = wide(table), wide(table, "volume")
    bars = read_prices({"close": close.iloc[:, :3], "vol ume": volume.iloc[4:]})
    assert bars.sizes == {"date": 31, "asset": 3}
    assert rules(bars)["assets without any close"][0] == 2
    assert bars["volume"].isnull().all("asset").values[:4].all()
    np.testing.assert_array_equal(bars["close"], close.iloc[:, :3])


# ---- what is open or broken ----------------------------------------------------------------------


def test_one_symbol_without_a_name_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    one = table[table["instrument"] == "SH600519"].drop(columns="instrument").set_index("date")
    with pytest.raises(PanelError, match=r"got no instrument, and field names at open.*Which sym"):
        read_prices(one)
    one.to_csv(tmp_path / "SH600519.csv")
    with pytest.raises(PanelError, match=r"must have the columns instrument; .*Which symbol"):
        read_prices(tmp_path / "SH600519.csv")
    with pytest.raises(PanelError, match=r"got Series with 1 index level. Which symbol"):
        read_prices(one["close"])


def test_tickers_named_like_fields_need_a_declaration(table: pd.DataFrame) -> None:
    frame = wide(table).rename_axis(index=None, columns=None).rename(columns={"SH600519": "LOW"})
    with pytest.raises(PanelError, match=r"field names at LOW of 5 columns.* layout='wide'"):
        read_prices(frame)
    assert "LOW" in read_prices(frame, layout="wide").asset
    assert "LOW" in read_prices(frame.rename_axis(columns="symbol")).asset


def test_a_dict_of_symbols_is_refused(table: pd.DataFrame) -> None:
    parts = {str(symbol): rows for symbol, rows in table.groupby("instrument")}
    with pytest.raises(PanelError, match=r"must map fields .* got keys BJ430047"):
        read_prices(parts)
    with pytest.raises(PanelError, match=r"must map fields to DataFrames.* got int at 'close'"):
        read_prices({"close": 3})  # type: ignore[arg-type]
    with pytest.raises(PanelError, match=r"must have the columns close; got columns open"):
        read_prices({"open": wide(table)})
    with pytest.raises(PanelError, match=r"matrix of close must have its dates as the index"):
        read_prices({"close": wide(table).reset_index(drop=True)})


def test_repeated_margins_of_a_matrix_are_refused(table: pd.DataFrame) -> None:
    frame = wide(table)
    with pytest.raises(PanelError, match=r"got 1 repeated dates in the matrix of close at 2024-01"):
        read_prices(pd.concat([frame, frame.iloc[[4]]]))
    with pytest.raises(PanelError, match=r"got 1 repeated symbols in the matrix of close at SH6"):
        read_prices(pd.concat([frame, frame[["SH600519"]]], axis=1).rename_axis(columns="symbol"))
    with pytest.raises(
        PanelError, match=r"close must be a number; got 1 texts at SH600519 2024-01"
    ):
        read_prices(frame.astype(object).replace({frame.loc[DATES[2], "SH600519"]: "x"}))


def test_matrices_at_different_times_of_day_are_of_the_same_days(table: pd.DataFrame) -> None:
    close, volume = wide(table), wide(table, "volume")
    close.index += pd.Timedelta(hours=15)
    bars = read_prices({"close": close, "volume": volume})
    assert_same(bars, read_prices({"close": wide(table), "volume": volume}))
    assert rules(bars)["dates with a time of day"] == (31, "time dropped", ("15:00:00",))
    late = close.set_axis(close.index + pd.Timedelta(minutes=1))
    with pytest.raises(PanelError, match="several times of day in the matrix of close"):
        read_prices(pd.concat([close, late]))


def test_a_layout_that_does_not_fit_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match="layout must be one of qlib, long, wide, xarray; got 'tab'"
    ):
        read_prices(table, layout="tab")
    with pytest.raises(PanelError, match="layout of a DataFrame must be long or wide; got 'qlib'"):
        read_prices(table, layout="qlib")
    with pytest.raises(PanelError, match="layout of Dataset must be xarray; got 'long'"):
        read_prices(arrays(table), layout="long")
    with pytest.raises(PanelError, match="layout of a dict must be wide; got 'long'"):
        read_prices({"close": wide(table)}, layout="long")
    with pytest.raises(PanelError, match=r"must have dims date and asset with coordinates"):
        read_prices(arrays(table).rename(date="era"))
    with pytest.raises(PanelError, match=r"variables of dims date and asset; got open \('draw', "):
        read_prices(arrays(table).expand_dims(draw=2))
    with pytest.raises(PanelError, match=r"without coordinates date"):
        read_prices(arrays(table).drop_vars("date"))
    with pytest.raises(SpecError, match=r"vendor must be one of tushare.* got 'wind'"):
        read_prices(table, vendor="wind")
    with pytest.raises(SpecError, match="fields must be a sequence of names; got 'pe'"):
        read_prices(table, fields="pe")
    with pytest.raises(PanelError, match=r"source must be a path, DataFrame.* got list"):
        read_prices([table])  # type: ignore[arg-type]


def test_folders_and_globs_that_do_not_fit(table: pd.DataFrame, tmp_path: Path) -> None:
    folder = per_symbol(table, tmp_path / "symbols")
    with pytest.raises(PanelError, match="price files must exist; got none that ends in "):
        read_prices(str(folder / "*.parquet"))
    (folder / "README.txt").write_text("x")
    (folder / "_SUCCESS").write_text("")
    assert rules(read_prices(folder))["files of other kinds"] == (1, "ignored", ("README.txt",))
    odd = pd.read_csv(folder / "SZ000001.csv").rename(columns={"open": "first"})
    odd.to_csv(folder / "SZ000001.csv", index=False)
    with pytest.raises(
        PanelError,
        match=r"same columns as BJ430047.csv; got 1 others at SZ000001.csv \(\+first, -open\)",
    ):
        read_prices(folder)
    odd.to_parquet(folder / "SZ000001.parquet")
    with pytest.raises(PanelError, match=r"must be of one kind; got csv and parquet at"):
        read_prices(folder)


def test_places_in_several_files_are_named_by_file(table: pd.DataFrame, tmp_path: Path) -> None:
    folder = per_symbol(table.astype({"close": object}), tmp_path / "symbols")
    text = (folder / "SZ000001.csv").read_text().splitlines()
    fields = text[3].split(",")
    text[3] = ",".join([*fields[:4], "?", *fields[5:]])
    (folder / "SZ000001.csv").write_text("\n".join(text))
    with pytest.raises(PanelError, match=r"got 1 texts at line 4 of SZ000001.csv \('\?'\)"):
        read_prices(folder)


def test_partition_keys(table: pd.DataFrame, tmp_path: Path) -> None:
    for (year, symbol), rows in table.groupby([table["date"].dt.year, "instrument"]):
        place = tmp_path / "a" / f"year={year}" / f"symbol={symbol}"
        place.mkdir(parents=True)
        rows.drop(columns="instrument").to_csv(place / "bars.csv", index=False)
    bars = read_prices(tmp_path / "a")
    assert rules(bars)["columns that play no part"] == (1, "ignored", ("year",))
    assert_same(bars, read_prices(table))
    (tmp_path / "b" / "instrument=A").mkdir(parents=True)
    table.to_csv(tmp_path / "b" / "instrument=A" / "bars.csv", index=False)
    with pytest.raises(PanelError, match="partition key instrument must not repeat a column"):
        read_prices(tmp_path / "b")


def test_every_violation_is_named_at_once(table: pd.DataFrame) -> None:
    broken = table.astype({"open": object, "close": object, "date": object})
    broken.loc[3, "open"], broken.loc[5, "close"], broken.loc[7, "date"] = "a", True, "soon"
    with pytest.raises(
        PanelError,
        match=r"prices break 3 rules: \(1\) date must .*row 7 .*\(2\) open .*row 3.*\(3\) close",
    ):
        read_prices(broken)


# ---- duplicates ----------------------------------------------------------------------------------


def test_duplicates_follow_the_policy(table: pd.DataFrame) -> None:
    twice = pd.concat([table, table.iloc[[2, 8, 8]]])
    plain = read_prices(table)
    bars = read_prices(twice, policies={"duplicates": "keep"})
    assert bars.equals(plain)
    assert rules(bars)[DOUBLE][:2] == (3, "collapsed into one")
    bars = read_prices(twice, policies={"duplicates": "mask"})
    assert rules(bars)[DOUBLE][:2] == (2, "cell masked")
    for row in (2, 8):
        cell = bars.sel(date=table["date"][row], asset=table["instrument"][row])
        assert all(np.isnan(cell[name]) for name in PRICES)
    assert int(bars["open"].isnull().sum()) == int(plain["open"].isnull().sum()) + 2
    other = pd.concat([table, table.iloc[[2]].assign(volume=5.0)])
    with pytest.raises(PanelError, match="unique or equal in every field; got 1 unequal pairs at"):
        read_prices(other, policies={"duplicates": "keep"})
    with pytest.raises(SpecError, match="policy duplicates must be one of error, keep, mask"):
        read_prices(table, policies={"duplicates": "first"})


# ---- ledgers -------------------------------------------------------------------------------------


def test_findings_of_an_earlier_reading_stay(table: pd.DataFrame) -> None:
    first = read_prices(table.rename(columns={"volume": "number"}))
    again = read_prices(first)
    assert first.attrs["ledger"] == again.attrs["ledger"]
    assert rules(again)["columns that play no part"] == (1, "ignored", ("number",))


def test_inspection_holds_the_bars_and_their_ledger(table: pd.DataFrame) -> None:
    inspection = inspect_prices(table)
    assert inspection.bars.equals(read_prices(table))
    assert inspection.bars.attrs["ledger"] == inspection.ledger.to_json()


@pytest.mark.slow
def test_market_files_read_alike_in_two_layouts(
    market_file: Callable[[str], Path],
) -> None:
    path = market_file("sp500_daily.parquet")
    frame = pd.read_parquet(path)
    assert_same(read_prices(arrays(frame)), read_prices(path))


def test_files_without_rows_are_named(table: pd.DataFrame, tmp_path: Path) -> None:
    folder = per_symbol(table, tmp_path / "bars")
    head = next(folder.glob("*.csv")).read_text(encoding="utf-8").splitlines()[0]
    (folder / "SH601999.csv").write_text(head + "\n", encoding="utf-8")
    found = rules(read_prices(folder))["files without rows"]
    assert found == (1, "nothing to read", ("SH601999.csv",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": 5}, "fields must be a sequence of names; got 5"),
        ({"fields": [5]}, r"fields must be a sequence of names; got \[5\]"),
        ({"policies": "mask"}, "policies must map rules to policies; got 'mask'"),
        ({"policies": ["jump"]}, "policies must map rules to policies"),
    ],
)
def test_options_of_another_type_are_refused(
    table: pd.DataFrame, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        read_prices(table, **options)


def test_matrices_that_share_nothing_are_refused_before_they_fill_the_memory() -> None:
    days = pd.date_range("1900-01-01", periods=40_000)
    tall = pd.DataFrame(1.0, index=days, columns=["AAPL", "MSFT"])
    names = [f"S{place}" for place in range(30_000)]
    flat = pd.DataFrame(1.0, index=days[:2], columns=names)
    with pytest.raises(PanelError, match=r"got 40,000 dates by 30,002 assets in all\. Check that"):
        read_prices({"close": tall, "volume": flat})


def test_a_series_named_for_another_field_is_not_taken_for_closes(table: pd.DataFrame) -> None:
    indexed = table.set_index(["date", "instrument"])
    assert_same(read_prices(indexed["close"].rename(None)), read_prices(indexed["close"]))
    assert_same(read_prices(indexed["close"].rename("mine")), read_prices(indexed["close"]))
    with pytest.raises(PanelError, match=r"must have the columns close; got columns .*volume"):
        read_prices(indexed["volume"])


def test_a_file_that_was_cut_off_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    place = tmp_path / "bars.csv"
    text = table.to_csv(index=False)
    place.write_text(text.rstrip("\n"), encoding="utf-8")  # a missing line end cuts nothing off
    expected = read_prices(place)
    place.write_text(text, encoding="utf-8")
    assert_same(read_prices(place), expected)
    last = text.rstrip("\n").splitlines()[-1]
    place.write_text(text.rstrip("\n")[: -len(last) + last.index(",", 20) + 3], encoding="utf-8")
    with pytest.raises(PanelError, match=r"end with a whole row; got \d of \d+ fields"):
        read_prices(place)
