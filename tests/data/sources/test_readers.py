"""Price tables in every accepted form, and one clear error for each that is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nfi_pyro.data import DropLedger, inspect_prices, read_prices
from nfi_pyro.errors import PanelError

DATES = pd.bdate_range("2024-02-26", periods=7)
ASSETS = ("600519", "000001", "NA")


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = [(date, asset) for asset in ASSETS for date in DATES]
    frame = pd.DataFrame(rows, columns=["date", "instrument"])
    close = 10 + rng.normal(0, 0.1, len(frame)).round(3)
    frame["open"], frame["high"], frame["low"] = close - 0.1, close + 0.2, close - 0.3
    frame["close"], frame["volume"] = close, np.arange(1.0, len(frame) + 1)
    return frame


def ledger_of(bars) -> dict[str, tuple[int, str, tuple[str, ...]]]:
    findings = DropLedger.from_json(bars.attrs["ledger"]).findings
    return {f.rule: (f.count, f.action, f.places) for f in findings}


def test_bars_are_sorted_and_hold_every_cell(table: pd.DataFrame) -> None:
    shuffled = table.sample(frac=1, random_state=3)
    before = shuffled.copy(deep=True)
    bars = read_prices(shuffled)
    pd.testing.assert_frame_equal(shuffled, before)
    assert list(bars.asset.values) == ["000001", "600519", "NA"]
    np.testing.assert_array_equal(bars.date.values, DATES.to_numpy())
    assert bars["close"].dtype == np.float64
    for row in table.itertuples():
        cell = bars.sel(date=row.date, asset=row.instrument)
        assert float(cell["close"]) == row.close
        assert float(cell["volume"]) == row.volume
    assert ledger_of(bars) == {}
    assert bars.attrs["source"] == "DataFrame"


def test_missing_rows_are_nan_and_named(table: pd.DataFrame) -> None:
    bars = read_prices(table.drop(index=[2, 7, 20]))
    assert int(bars["close"].isnull().sum()) == 3
    found = ledger_of(bars)
    assert found["cells without a close inside a history (in 1 assets)"][0] == 1
    assert found["assets that start after the first date"] == (1, "kept", ("000001 2024-02-27",))
    assert found["assets that end before the last date"] == (1, "kept", ("NA 2024-03-04",))


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
@pytest.mark.parametrize("as_text", [True, False])
def test_files_give_the_same_bars(
    table: pd.DataFrame, tmp_path: Path, suffix: str, as_text: bool
) -> None:
    path = tmp_path / f"prices{suffix}"
    if suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)
    bars = read_prices(str(path) if as_text else path)
    xr_bars = read_prices(table)
    for name in xr_bars.data_vars:
        np.testing.assert_allclose(bars[name], xr_bars[name], rtol=1e-14)
    assert list(bars.asset.values) == list(xr_bars.asset.values)
    assert bars.attrs["source"] == path.name


@pytest.mark.parametrize("date", ["datetime", "Date", "TRADE_DATE", "dt", "日期"])
@pytest.mark.parametrize("asset", ["Symbol", "code", "ts_code", "order_book_id", "股票代码"])
def test_usual_names_are_known(table: pd.DataFrame, date: str, asset: str) -> None:
    renamed = table.rename(columns={"date": date, "instrument": asset, "close": "Close"})
    assert read_prices(renamed).sizes == {"date": 7, "asset": 3}


def test_other_names_are_given_by_alias(table: pd.DataFrame) -> None:
    renamed = table.rename(columns={"instrument": "sid"}).assign(adj_close=table["close"] / 2)
    bars = read_prices(renamed, instrument="sid", close="adj_close")
    np.testing.assert_allclose(bars["close"], read_prices(table)["close"] / 2)
    with pytest.raises(PanelError, match=r"aliases must map .* got close='nope'\. Columns found"):
        read_prices(table, close="nope")
    with pytest.raises(PanelError, match=r"aliases must map .* got colour"):
        read_prices(table, colour="close")


@pytest.mark.parametrize("names", [["date", "instrument"], ["instrument", "date"], [None, None]])
def test_index_levels_serve_as_columns(table: pd.DataFrame, names: list[str | None]) -> None:
    first = "instrument" if names[0] == "instrument" else "date"
    second = "date" if first == "instrument" else "instrument"
    indexed = table.set_index([first, second])
    indexed.index.names = names
    bars = read_prices(indexed)
    np.testing.assert_array_equal(bars["close"], read_prices(table)["close"])


@pytest.mark.parametrize(
    "form",
    [
        lambda d: d.strftime("%Y-%m-%d"),
        lambda d: d.strftime("%Y%m%d"),
        lambda d: d.strftime("%Y/%m/%d"),
        lambda d: int(d.strftime("%Y%m%d")),
        lambda d: d.date(),
        lambda d: float(d.strftime("%Y%m%d")),
    ],
)
def test_dates_come_in_many_forms(table: pd.DataFrame, form) -> None:
    table["date"] = [form(day) for day in table["date"]]
    np.testing.assert_array_equal(read_prices(table).date.values, DATES.to_numpy())


def test_time_zones_are_dropped_with_a_note(table: pd.DataFrame) -> None:
    zoned = table.assign(date=table["date"].dt.tz_localize("Asia/Shanghai"))
    bars = read_prices(zoned)
    np.testing.assert_array_equal(bars.date.values, DATES.to_numpy())
    assert ledger_of(bars)["dates with a time zone"][:2] == (21, "zone dropped")
    texts = table.assign(date=[f"{day:%Y-%m-%d}T00:00:00+08:00" for day in table["date"]])
    bars = read_prices(texts)
    np.testing.assert_array_equal(bars.date.values, DATES.to_numpy())
    assert ledger_of(bars)["dates with a time zone"][0] == 21


def test_a_time_of_day_is_dropped_with_a_note(table: pd.DataFrame) -> None:
    plain = read_prices(table)
    assert "dates with a time of day" not in ledger_of(plain)
    bars = read_prices(table.assign(date=table["date"] + pd.Timedelta(hours=16)))
    np.testing.assert_array_equal(bars.date.values, DATES.to_numpy())
    assert bars.equals(plain)
    assert ledger_of(bars)["dates with a time of day"] == (21, "time dropped", ("16:00:00",))
    half_day = table["date"] + pd.to_timedelta(np.where(table["date"] == DATES[2], 13, 16), "h")
    bars = read_prices(table.assign(date=half_day))
    assert bars.equals(plain)
    assert ledger_of(bars)["dates with a time of day"][2] == ("13:00:00", "16:00:00")


def test_intraday_bars_are_refused(table: pd.DataFrame) -> None:
    later = table.assign(date=table["date"] + pd.Timedelta(minutes=30))
    with pytest.raises(PanelError, match=r"must be daily bars.* got several times of day for 21 "):
        read_prices(pd.concat([table, later]))
    with pytest.raises(PanelError, match=r"must be daily bars.* for 1 of them at 600519 2024"):
        read_prices(pd.concat([table, later.iloc[[3]]]), policies={"duplicates": "mask"})
    with pytest.raises(PanelError, match="must be unique; got 21 repeated pairs"):
        read_prices(pd.concat([later, later]))


def test_impossible_bars_are_masked_whole_and_named(table: pd.DataFrame) -> None:
    table.loc[1, "low"] = 0.0
    table.loc[9, "close"] = -3.0
    table.loc[15, "open"] = np.inf
    table.loc[16, "volume"] = -1.0
    bars = read_prices(table)
    for row in (1, 9, 15, 16):
        cell = bars.sel(date=table["date"][row], asset=table["instrument"][row])
        assert all(np.isnan(cell[name]) for name in bars.data_vars)
    assert int(bars["close"].isnull().sum()) == 4
    found = ledger_of(bars)
    assert found["bars with a price <= 0"] == (
        2,
        "bar masked",
        ("600519 2024-02-27", "000001 2024-02-28"),
    )
    assert found["bars with an infinite value"] == (1, "bar masked", ("NA 2024-02-27",))
    assert found["bars with a volume or amount < 0"] == (1, "bar masked", ("NA 2024-02-28",))


def test_suspicious_bars_are_kept_and_named(table: pd.DataFrame) -> None:
    table.loc[3, "high"] = 1.0
    table.loc[10:13, "close"] *= 3
    bars = read_prices(table)
    assert not bars["close"].isnull().any()
    found = ledger_of(bars)
    assert found["bars whose high is below their low"] == (1, "kept", ("600519 2024-02-29",))
    count, action, places = found["one-day close moves beyond +-40% (in 1 assets)"]
    assert (count, action) == (1, "kept")
    assert places[0].startswith("000001 2024-02-29 (+")


def test_an_asset_without_closes_is_dropped(table: pd.DataFrame) -> None:
    table.loc[table["instrument"] == "NA", "close"] = np.nan
    bars = read_prices(table)
    assert list(bars.asset.values) == ["000001", "600519"]
    assert ledger_of(bars)["assets without any close"] == (1, "dropped", ("NA",))


def test_columns_that_are_absent_stay_absent(table: pd.DataFrame) -> None:
    bars = read_prices(table[["date", "instrument", "close"]])
    assert list(bars.data_vars) == ["close"]
    for name in ("date", "instrument", "close"):
        with pytest.raises(PanelError, match=rf"must have the columns {name}; got columns .*open"):
            read_prices(table.drop(columns=name))


def test_an_ambiguous_column_is_refused(table: pd.DataFrame) -> None:
    with pytest.raises(PanelError, match=r"instrument must be one column; got several at .*code"):
        read_prices(table.assign(code=1))
    assert read_prices(table.assign(code=1), instrument="instrument").sizes["asset"] == 3
    with pytest.raises(PanelError, match="must have one row of column names; got 2 levels"):
        read_prices(pd.concat({"price": table}, axis=1))
    with pytest.raises(PanelError, match="index levels must not repeat columns; got both at date"):
        read_prices(table.set_index("date", drop=False))


def test_duplicates_are_refused_by_place(table: pd.DataFrame) -> None:
    with pytest.raises(
        PanelError, match=r"must be unique; got 2 repeated pairs at .*600519 2024-02-28"
    ):
        read_prices(pd.concat([table, table.iloc[[2, 8]]]))


@pytest.mark.parametrize(
    "bad",
    [
        "yesterday",
        "2024",
        "01/02/2024",
        20241399,
        None,
        np.nan,
        "1500-01-01",
        1.5,
        1705121500,
        "170512150000",
    ],
)
def test_unparsable_dates_are_refused_by_row(table: pd.DataFrame, bad: object) -> None:
    dates: list[object] = list(table["date"].dt.strftime("%Y-%m-%d"))
    dates[4] = bad
    table["date"] = pd.Series(dates, dtype=object)
    with pytest.raises(PanelError, match=r"date must be a date .* got 1 others at row 4 \("):
        read_prices(table)


def test_text_in_a_price_column_is_refused_by_line(table: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(PanelError, match="volume must be a number; got 21 texts at row 0"):
        read_prices(table.assign(volume=True))
    table["close"] = table["close"].astype(str)
    table.loc[2, "close"] = ""
    assert int(read_prices(table)["close"].isnull().sum()) == 1
    table.loc[5, "close"] = "12,5"
    with pytest.raises(
        PanelError, match=r"close must be a number; got 1 texts at row 5 \('12,5'\)"
    ):
        read_prices(table)
    table.to_csv(tmp_path / "prices.csv", index=False)
    with pytest.raises(PanelError, match=r"got 1 texts at line 7 \('12,5'\)"):
        read_prices(tmp_path / "prices.csv")


@pytest.mark.parametrize("text", ["1_000", "１２", "-nan", "1,5", "0x1F", True, 1j, (1.0,)])
def test_what_python_alone_takes_for_a_number_is_refused(table: pd.DataFrame, text: Any) -> None:
    table["close"] = table["close"].astype(object)
    table.at[5, "close"] = text
    with pytest.raises(PanelError, match="close must be a number; got 1 texts at row 5"):
        read_prices(table)


def test_empty_or_numeric_instruments(table: pd.DataFrame) -> None:
    table["instrument"] = table["instrument"].map({"600519": 600519, "000001": 1, "NA": 2})
    assert list(read_prices(table).asset.values) == ["1", "2", "600519"]
    with pytest.raises(PanelError, match="instrument must be text or an integer code; got float64"):
        read_prices(table.assign(instrument=table["instrument"].astype(float)))
    table["instrument"] = table["instrument"].astype(str).astype(object)
    table.loc[[3, 6], "instrument"] = [None, " "]
    with pytest.raises(
        PanelError, match="instrument must not be empty; got 2 empty cells at row 3"
    ):
        read_prices(table)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, table: pd.DataFrame) -> None:
    with pytest.raises(PanelError, match="price file must exist; got nothing at"):
        read_prices(tmp_path / "absent.csv")
    (tmp_path / "prices.xlsx").write_text("x")
    with pytest.raises(PanelError, match=r"must end in \.csv.* got \.xlsx at"):
        read_prices(tmp_path / "prices.xlsx")
    with pytest.raises(PanelError, match="source must be a path; got ''"):
        read_prices("")
    with pytest.raises(PanelError, match=r"got nothing at x+\.\.\.\. Check"):
        read_prices("x" * 5000)
    (tmp_path / "semicolon.csv").write_text("date;code;close\n2020-01-01;A;1\n")
    with pytest.raises(PanelError, match="Separate the fields by commas"):
        read_prices(tmp_path / "semicolon.csv")
    (tmp_path / "prices").write_text("x")
    with pytest.raises(PanelError, match="got no suffix at"):
        read_prices(tmp_path / "prices")
    for name in ("empty.csv", "empty.parquet"):
        (tmp_path / name).write_text("")
        with pytest.raises(PanelError, match="price file must be readable"):
            read_prices(tmp_path / name)
    (tmp_path / "head.csv").write_text("date,instrument,close\n")
    with pytest.raises(PanelError, match="price table must have rows; got 0 rows"):
        read_prices(tmp_path / "head.csv")
    (tmp_path / "long.csv").write_text("date,code,close\n2020-01-01,A,1\n2020-01-01,B,1,234.5\n")
    with pytest.raises(
        PanelError, match="price file must be readable csv; got ParserError"
    ) as caught:
        read_prices(tmp_path / "long.csv")
    assert "\n" not in str(caught.value)
    (tmp_path / "wide.csv").write_text("date,code,close\n2020-01-01,A,1,234.5\n")
    with pytest.raises(PanelError, match="as many fields in a row as in its head; got more"):
        read_prices(tmp_path / "wide.csv")
    (tmp_path / "twice.csv").write_text("date,code,close,close\n2020-01-01,A,1,2\n")
    with pytest.raises(PanelError, match="close must be one column; got several at close, close"):
        read_prices(tmp_path / "twice.csv")
    (tmp_path / "parts.parquet").mkdir()
    with pytest.raises(PanelError, match="price files must exist; got none that ends in"):
        read_prices(tmp_path / "parts.parquet")
    with pytest.raises(
        PanelError, match=r"must be a DataFrame or a path.*; got Series.*Which symbol"
    ):
        read_prices(table["close"])
    table.to_parquet(tmp_path / "cut.parquet")
    whole = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PanelError, match="price file must be readable parquet"):
        read_prices(tmp_path / "cut.parquet")


def test_one_date_or_one_asset_is_refused(table: pd.DataFrame) -> None:
    with pytest.raises(PanelError, match="must cover at least 2 dates; got 1 at 2024-02-26"):
        read_prices(table[table["date"] == DATES[0]])
    with pytest.raises(PanelError, match="must cover at least 2 assets; got 1 at NA"):
        read_prices(table[table["instrument"] == "NA"])
    table.loc[:13, "close"] = -1.0
    with pytest.raises(PanelError, match=r"got 1 at NA(.|\n)*bars with a price <= 0 +14"):
        read_prices(table)


@pytest.mark.slow
def test_known_flaws_of_the_market_files_are_found(
    market_file: Callable[[str], Path],
) -> None:
    path = market_file("ashare_daily.parquet")
    inspection = inspect_prices(path)
    moves = ("scale_jump", "unadjusted_split", "adjustment_base", "jump")
    assert sum(inspection.counts.get(rule, 0) for rule in moves) > 50
    assert ledger_of(inspection.bars)["assets that start after the first date"][0] > 10
