"""Names and units of vendors, and the columns beside prices that are kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.data import DropLedger, read_prices
from nfi_pyro.data.sources.vendors import VENDORS, find_vendor, plain_name
from nfi_pyro.errors import PanelError, SpecError

DATES = pd.bdate_range("2024-01-02", periods=13)
ASSETS = ("SH600519", "SZ000001", "BJ430047", "SH688981", "SZ300750")
PRICES = ("open", "high", "low", "close", "volume")


@pytest.fixture
def table() -> pd.DataFrame:
    """13 dates, 5 assets, a late start and a gap."""
    rng = np.random.default_rng(17)
    rows = pd.MultiIndex.from_product([DATES, ASSETS], names=["date", "instrument"])
    frame = rows.to_frame(index=False)
    close = 20 + rng.normal(size=len(frame)).cumsum() / 10
    frame["open"], frame["high"], frame["low"] = close - 0.01, close + 0.1, close - 0.1
    frame["close"], frame["volume"] = close, rng.integers(1, 9999, len(frame)).astype(float)
    frame.loc[47, "close"] = np.nan
    late = (frame["instrument"] == "SZ300750") & (frame["date"] < DATES[3])
    return frame[~(late | frame.index.isin([17, 42]))].reset_index(drop=True)


def rules(bars: xr.Dataset) -> dict[str, tuple[int, str, tuple[str, ...]]]:
    found = DropLedger.from_json(bars.attrs["ledger"]).findings
    return {f.rule: (f.count, f.action, f.places) for f in found}


def test_names_are_free_in_case_spaces_and_underscores() -> None:
    assert {plain_name(name) for name in ("Adj Close", "adj_close", " ADJCLOSE ")} == {"adjclose"}
    assert find_vendor(None).scale == {}
    assert all(find_vendor(name) is vendor for name, vendor in VENDORS.items())
    with pytest.raises(SpecError, match="vendor must be one of tushare, akshare"):
        find_vendor("wind")


def test_tushare_counts_lots_and_thousands(table: pd.DataFrame) -> None:
    frame = pd.DataFrame(
        {
            "ts_code": [f"{code[2:]}.{code[:2]}" for code in table["instrument"]],
            "trade_date": [int(day.strftime("%Y%m%d")) for day in table["date"]],
            "close": table["close"],
            "pct_chg": 0.0,
            "vol": table["volume"],
            "amount": table["volume"] * 2,
        }
    )
    bars = read_prices(frame, vendor="tushare")
    expected = read_prices(table[["date", "instrument", "close", "volume"]])
    np.testing.assert_array_equal(bars["close"], expected["close"])
    np.testing.assert_array_equal(bars["volume"], expected["volume"] * 100)
    np.testing.assert_array_equal(bars["amount"], expected["volume"] * 2000)
    found = rules(bars)
    assert found["volume in the unit of tushare"][:2] == (len(table), "times 100")
    assert found["amount in the unit of tushare"][:2] == (len(table), "times 1000")
    assert found["columns that play no part"] == (1, "ignored", ("pct_chg",))
    undeclared = read_prices(frame)
    assert "volume" not in undeclared
    np.testing.assert_array_equal(undeclared["amount"], expected["volume"] * 2)


def test_akshare_names_are_chinese_and_codes_bare(table: pd.DataFrame) -> None:
    frame = table.rename(
        columns={
            "date": "日期",
            "instrument": "股票代码",
            "open": "开盘",
            "high": "最高",
            "low": "最低",
            "close": "收盘",
            "volume": "成交量",
        }
    ).assign(股票代码=table["instrument"].str[2:], 换手率=0.1)
    bars = read_prices(frame, vendor="akshare")
    expected = read_prices(table)
    expected["volume"] *= 100
    assert bars.equals(expected)
    assert "SH600519" not in read_prices(frame).asset


@pytest.mark.parametrize(
    ("vendor", "names", "form"),
    [
        ("joinquant", {"instrument": "code", "date": "time", "amount": "money"}, "{0}.X{1}"),
        ("ricequant", {"instrument": "order_book_id", "amount": "total_turnover"}, "{0}.X{1}"),
        ("rqalpha", {"instrument": "order_book_id", "amount": "total_turnover"}, "{0}.X{1}"),
    ],
)
def test_vendors_that_count_shares(
    table: pd.DataFrame, vendor: str, names: dict[str, str], form: str
) -> None:
    own = {"SH": "SHG", "SZ": "SHE", "BJ": "BSE"}
    full = table.assign(amount=table["volume"] * 3)
    frame = full.assign(instrument=[form.format(c[2:], own[c[:2]]) for c in full["instrument"]])
    assert read_prices(frame.rename(columns=names), vendor=vendor).equals(read_prices(full))


def test_yahoo_takes_close_and_names_the_adjusted_one(table: pd.DataFrame) -> None:
    frame = table.rename(columns=str.title).assign(**{"Adj Close": table["close"] / 2})
    frame = frame.rename(columns={"Instrument": "Ticker"})
    bars = read_prices(frame, vendor="yahoo")
    assert bars.equals(read_prices(table))
    assert rules(bars)["adjusted close beside close"] == (1, "not used", ("Adj Close",))
    halved = read_prices(frame, vendor="yahoo", close="Adj Close")
    np.testing.assert_array_equal(halved["close"], read_prices(table)["close"] / 2)


def test_further_columns(table: pd.DataFrame, tmp_path: Path) -> None:
    frame = table.assign(
        industry=table["instrument"].map({"SH600519": "Drinks"}),
        factor=1.5,
        vwap=table["close"],
        is_st=[place % 3 == 0 for place in range(len(table))],
        suspended=0,
        pe=7,
        note="x",
    )
    bars = read_prices(frame, fields=("pe",))
    assert list(bars.data_vars) == [*PRICES, "vwap", "factor", "st", "suspended", "industry", "pe"]
    assert bars["st"].dtype == bool
    assert bars["pe"].dtype == bars["vwap"].dtype == np.float64
    assert rules(bars)["columns that play no part"] == (1, "ignored", ("note",))
    row = bars.sel(date=DATES[5], asset="SH600519")
    assert (row["industry"], row["factor"], row["pe"]) == ("Drinks", 1.5, 7.0)
    assert bars.sel(date=DATES[0], asset="SZ300750")["industry"] == ""
    place = frame.index[(frame["date"] == DATES[5]) & (frame["instrument"] == "SZ000001")][0]
    assert bool(bars.sel(date=DATES[5], asset="SZ000001")["st"]) == (place % 3 == 0)
    frame.to_csv(tmp_path / "p.csv", index=False)
    frame.to_parquet(tmp_path / "p.parquet")
    frame.to_feather(tmp_path / "p.feather")
    for path in sorted(tmp_path.iterdir()):
        assert read_prices(path, fields=["pe"]).equals(bars), path.name
    cube = frame.set_index(["date", "instrument"]).to_xarray()
    assert read_prices(cube, fields=["pe"]).equals(bars)
    with pytest.raises(PanelError, match="must have the columns pb; got columns date"):
        read_prices(frame, fields=("pb",))


def test_flags_are_0_or_1(table: pd.DataFrame) -> None:
    flags: list[Any] = [0, 1, "True", "false", True, np.nan, None, "0"]
    frame = table.assign(st=[flags[place % 8] for place in range(len(table))])
    bars = read_prices(frame)
    for place in range(8):
        cell = bars["st"].sel(date=table["date"][place], asset=table["instrument"][place])
        assert bool(cell) is (place in (1, 2, 4))
    count = sum(place % 8 in (5, 6) for place in table.index[table["close"].notna()])
    assert rules(bars)["bars without st"][:2] == (count, "taken for False")
    with pytest.raises(
        PanelError, match=r"st must be 0, 1, True or False; got 1 others at row 4 \(2"
    ):
        read_prices(table.assign(st=[2.0 if place == 4 else 0.0 for place in range(len(table))]))
    with pytest.raises(PanelError, match=r"got 1 others at row 4 \('yes'\)"):
        read_prices(table.assign(st=["yes" if place == 4 else "0" for place in range(len(table))]))


def test_a_static_industry_holds_on_every_date(table: pd.DataFrame) -> None:
    source = table.set_index(["date", "instrument"]).to_xarray()
    source["industry"] = ("instrument", [f"sector {code[:2]}" for code in source.instrument.values])
    source["index_level"] = ("date", np.arange(13.0))
    bars = read_prices(source)
    assert (bars["industry"].sel(asset="SZ000001") == "sector SZ").all()
    assert rules(bars)["variables of other dims"] == (1, "ignored", ("index_level ('date',)",))


def test_units_are_scaled_once(table: pd.DataFrame) -> None:
    bars = read_prices(table, vendor="tushare")
    again = read_prices(bars)
    np.testing.assert_array_equal(again["volume"], bars["volume"])
    with pytest.raises(PanelError, match=r"scaled once; got vendor='tushare' .*Leave vendor out"):
        read_prices(bars, vendor="tushare")


def test_integer_codes_that_lost_their_zeros_are_refused() -> None:
    dates = pd.bdate_range("2024-02-26", periods=5)
    rows = [(day, code, 10.0 + code % 7) for code in (600519, 1) for day in dates]
    frame = pd.DataFrame(rows, columns=["date", "symbol", "close"])
    with pytest.raises(PanelError, match=r"akshare must have six digits; .* at 1\. Read .* as str"):
        read_prices(frame, vendor="akshare")
    assert list(read_prices(frame).asset.values) == ["1", "600519"]  # nobody said what they are


@pytest.mark.parametrize("name", [5, ["tushare"], "wind"])
def test_a_vendor_is_a_known_name(name: Any) -> None:
    with pytest.raises(SpecError, match="vendor must be one of tushare"):
        find_vendor(name)
