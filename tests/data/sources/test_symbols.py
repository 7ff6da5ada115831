"""One form for mainland Chinese codes; every other symbol stays as it is."""

import numpy as np
import pandas as pd
import pytest

from nfi_pyro.data import DropLedger, read_prices
from nfi_pyro.data.sources.symbols import canonical_symbol, canonical_symbols
from nfi_pyro.errors import PanelError

SHANGHAI = ("600000.SH", "600000.SS", "600000.XSHG", "sh.600000", "sh600000", "SH600000")
DATES = pd.bdate_range("2024-02-26", periods=7)


@pytest.mark.parametrize("text", [*SHANGHAI, "600000.sh", "600000.xshg", " SH.600000 ", "Sh600000"])
def test_shanghai_codes_become_one(text: str) -> None:
    assert canonical_symbol(text) == "SH600000"


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("000001.SZ", "SZ000001"),
        ("000001.XSHE", "SZ000001"),
        ("sz.300750", "SZ300750"),
        ("430047.BJ", "BJ430047"),
        ("920002.XBSE", "BJ920002"),
        ("bj830799", "BJ830799"),
        ("000001.XSHG", "SH000001"),
    ],
)
def test_other_exchanges(text: str, symbol: str) -> None:
    assert canonical_symbol(text) == symbol


@pytest.mark.parametrize(
    "text",
    ["AAPL", "BRK.B", "00700.HK", "600000", "SH60000", "6000000.SH", "SHEL", "SH", "BJ.RI", "sh",
     "600000.SHX", "600000.HK", "SH６０００００", "BTC-USD", "1"],
)  # fmt: skip
def test_everything_else_stays(text: str) -> None:
    assert canonical_symbol(text) == text
    assert canonical_symbol(f"  {text} ") == text


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("600519", "SH600519"),
        ("688981", "SH688981"),
        ("000001", "SZ000001"),
        ("200012", "SZ200012"),
        ("300750", "SZ300750"),
        ("430047", "BJ430047"),
        ("830799", "BJ830799"),
        ("920002", "BJ920002"),
        ("900901", "900901"),
        ("510300", "510300"),
        ("1", "1"),
    ],
)
def test_bare_codes_get_an_exchange_only_on_demand(text: str, symbol: str) -> None:
    assert canonical_symbol(text) == text
    assert canonical_symbol(text, exchange_by_prefix=True) == symbol


def test_the_form_is_its_own_form() -> None:
    once = canonical_symbols([*SHANGHAI, "AAPL"])
    assert once.tolist() == ["SH600000"] * 6 + ["AAPL"]
    assert canonical_symbols(once).tolist() == once.tolist()


def prices(symbols: tuple[str, ...]) -> pd.DataFrame:
    rows = pd.MultiIndex.from_product([DATES, symbols], names=["date", "symbol"])
    frame = rows.to_frame(index=False)
    return frame.assign(close=np.linspace(10, 11, len(frame)))


def test_rewriting_is_counted() -> None:
    bars = read_prices(prices(("600000.XSHG", "SZ000001", "AAPL")))
    assert bars.asset.values.tolist() == ["AAPL", "SH600000", "SZ000001"]
    findings = DropLedger.from_json(bars.attrs["ledger"]).findings
    (found,) = [f for f in findings if f.rule.startswith("symbols written")]
    assert (found.count, found.places) == (1, ("600000.XSHG -> SH600000",))


def test_two_forms_of_one_symbol_on_a_date_are_duplicates_named_as_written() -> None:
    with pytest.raises(
        PanelError,
        match=r"got 7 repeated pairs at SH600000 2024-02-26 \(written 600000.SH and sh600000\)",
    ):
        read_prices(prices(("600000.SH", "sh600000", "AAPL")))
    table = prices(("600000.SH", "sh600000", "AAPL"))
    first = (table["date"] < DATES[3]) & (table["symbol"] == "600000.SH")
    second = (table["date"] >= DATES[3]) & (table["symbol"] == "sh600000")
    bars = read_prices(table[first | second | (table["symbol"] == "AAPL")])
    assert not bars["close"].isnull().any()


def test_bare_codes_of_akshare() -> None:
    table = prices(("600000", "000001"))
    assert read_prices(table).asset.values.tolist() == ["000001", "600000"]
    bars = read_prices(table, vendor="akshare")
    assert bars.asset.values.tolist() == ["SH600000", "SZ000001"]
