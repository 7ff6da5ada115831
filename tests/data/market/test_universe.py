"""Who is tradable: one cause at a time, spells, age, liquidity, and no look at the future."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.data.checks.quality import LEDGER_ATTRIBUTE, DropLedger
from nfi_pyro.data.market.universe import UniverseRules, read_spells, tradable_universe
from nfi_pyro.errors import PanelError, SpecError

DATES = pd.bdate_range("2024-03-04", periods=7)
ASSETS = ["SH600001", "SZ000002", "SZ300003", "AAPL", "MSFT"]
DIMS = ("date", "asset")


@pytest.fixture
def bars() -> xr.Dataset:
    """Seven dates of five assets, all traded, in cents."""
    rng = np.random.default_rng(7)
    close = rng.integers(900, 1100, (7, 5)) / 100
    volume = rng.integers(50, 90, (7, 5)).astype(float)
    return xr.Dataset(
        {"close": (DIMS, close), "volume": (DIMS, volume)}, {"date": DATES, "asset": ASSETS}
    )


def cells(masks: xr.Dataset, asset: str, name: str = "tradable") -> list[int]:
    return np.flatnonzero(masks[name].sel(asset=asset)).tolist()


def cause(exclusions: Any, start: str) -> np.ndarray:
    found = [mask for rule, mask in exclusions if rule.startswith(start)]
    assert len(found) == 1, [rule for rule, _ in exclusions]
    return found[0]


def test_whatever_trades_is_tradable_by_default(bars: xr.Dataset) -> None:
    bars["close"].values[2, 0] = np.nan
    bars["volume"].values[3, 1] = 0
    bars["volume"].values[4, 2] = np.nan
    bars["suspended"] = (DIMS, np.zeros((7, 5), dtype=bool))
    bars["suspended"].values[5, 3] = True
    masks, exclusions = tradable_universe(bars)
    assert [rule for rule, _ in exclusions] == [
        "cells without a close (not listed, suspended, ended)",
        "cells without a volume",
        "cells whose volume is 0",
        "cells flagged as suspended",
    ]
    places = [np.argwhere(mask).tolist() for _, mask in exclusions]
    assert places == [[[2, 0]], [[4, 2]], [[3, 1]], [[5, 3]]]
    out = np.logical_or.reduce([mask for _, mask in exclusions])
    np.testing.assert_array_equal(masks["tradable"], ~out)
    assert masks["universe"].all()
    assert list(masks) == [
        *("listed", "suspended", "limit_up", "limit_down", "one_price"),
        *("universe", "tradable"),
    ]
    assert masks["tradable"].attrs["timing"] == "known at the close of t"
    assert str(DropLedger.from_json(masks.attrs[LEDGER_ATTRIBUTE])) == "no findings"


def test_volumes_count_from_the_first_date_that_has_one(bars: xr.Dataset) -> None:
    bars["volume"].values[:3] = np.nan
    bars["volume"].values[4, 1] = np.nan
    _, exclusions = tradable_universe(bars)
    assert np.argwhere(cause(exclusions, "cells without a volume")).tolist() == [[4, 1]]
    nothing, _ = tradable_universe(bars.drop_vars("volume"))
    assert nothing["tradable"].all()


# ---- membership ---------------------------------------------------------------------------------

SPELLS = pd.DataFrame(
    [
        ("SH600001", "2024-03-05", "2024-03-06"),
        ("SH600001", "2024-03-08", ""),
        ("SZ000002", "2019-01-01", "2024-03-05"),
        ("SZ000002", "2024-03-05", "2024-03-07"),
        ("SZ300003", "2030-01-01", None),
        ("AAPL", "2024-03-02", "2024-03-03"),
        ("SH601999", "2024-01-01", "2024-12-31"),
    ],
    columns=["instrument", "start", "end"],
)


def test_members_are_within_a_spell_both_days_included(bars: xr.Dataset) -> None:
    masks, exclusions = tradable_universe(bars, UniverseRules(spells=SPELLS))
    assert cells(masks, "SH600001", "universe") == [1, 2, 4, 5, 6]
    assert cells(masks, "SZ000002", "universe") == [0, 1, 2, 3]
    for asset in ("SZ300003", "AAPL", "MSFT"):
        assert cells(masks, asset, "universe") == []
    np.testing.assert_array_equal(masks["tradable"], masks["universe"])
    out = cause(exclusions, "cells outside the universe")
    np.testing.assert_array_equal(out, ~masks["universe"])
    findings = DropLedger.from_json(masks.attrs[LEDGER_ATTRIBUTE]).findings
    assert [(f.rule, f.count, f.action, f.places) for f in findings] == [
        (
            "universe spells that overlap an earlier one of their instrument",
            1,
            "merged",
            ("SZ000002",),
        ),
        ("instruments of universe spells without bars", 1, "ignored", ("SH601999",)),
        ("assets without a universe spell", 1, "excluded", ("MSFT",)),
    ]


def test_a_spell_within_a_longer_one_overlaps_though_not_the_one_before(bars: xr.Dataset) -> None:
    rows = [("AAPL", f"2024-03-0{a}", f"2024-03-{b}") for a, b in ((1, 20), (4, "05"), (6, "07"))]
    spells = pd.DataFrame(rows, columns=["instrument", "start", "end"])
    masks, _ = tradable_universe(bars, UniverseRules(spells=spells))
    assert cells(masks, "AAPL", "universe") == list(range(7))
    findings = DropLedger.from_json(masks.attrs[LEDGER_ATTRIBUTE]).findings
    assert findings[0].count == 2


@pytest.mark.parametrize("form", ["frame", "stamps", "numbers", "csv", "qlib"])
def test_spells_come_in_any_form(tmp_path: Path, form: str) -> None:
    spells: Any = SPELLS
    if form == "stamps":
        spells = SPELLS.assign(start=pd.to_datetime(SPELLS["start"]))
        spells["end"] = pd.to_datetime(SPELLS["end"].replace("", None))
    elif form == "numbers":
        spells = SPELLS.assign(start=SPELLS["start"].str.replace("-", "").astype(int))
    elif form == "csv":
        spells = tmp_path / "members.csv"
        SPELLS.assign(weight=1.0)[["weight", "end", "instrument", "start"]].to_csv(
            spells, index=False
        )
    elif form == "qlib":
        spells = tmp_path / "csi300.txt"
        SPELLS.to_csv(spells, index=False, header=False, sep="\t")
    pd.testing.assert_frame_equal(read_spells(spells), read_spells(SPELLS))


def test_spells_may_spell_symbols_their_own_way(bars: xr.Dataset) -> None:
    dotted = SPELLS.replace({"instrument": {"SH600001": "600001.XSHG", "SZ000002": "sz.000002"}})
    masks, _ = tradable_universe(bars, UniverseRules(spells=dotted))
    same, _ = tradable_universe(bars, UniverseRules(spells=SPELLS))
    xr.testing.assert_identical(masks, same)
    twins = bars.assign_coords(asset=["SH600001", "600001.SH", "SZ300003", "AAPL", "MSFT"])
    with pytest.raises(PanelError, match="must be different symbols; got two spellings at SH6000"):
        tradable_universe(twins, UniverseRules(spells=SPELLS))


def test_a_universe_in_the_bars_counts_too(bars: xr.Dataset) -> None:
    bars["universe"] = (DIMS, np.ones((7, 5), dtype=bool))
    bars["universe"].values[:2] = False
    masks, _ = tradable_universe(bars)
    assert cells(masks, "MSFT") == [2, 3, 4, 5, 6]
    both, _ = tradable_universe(bars, UniverseRules(spells=SPELLS))
    assert cells(both, "SH600001", "universe") == [2, 4, 5, 6]


def test_bad_spells_are_refused(bars: xr.Dataset, tmp_path: Path) -> None:
    def change(row: int, column: str, value: str) -> pd.DataFrame:
        table = SPELLS.copy()
        table.loc[row, column] = value
        return table

    with pytest.raises(PanelError, match="must not end before it starts; got 1 that do, at row 0"):
        read_spells(change(0, "end", "2024-03-04"))
    with pytest.raises(
        PanelError, match=r"start of a spell must be a day.* row 2 \(SZ000002, soon"
    ):
        read_spells(change(2, "start", "soon"))
    with pytest.raises(PanelError, match=r"start of a spell must be a day.* at row 3"):
        read_spells(change(3, "start", ""))
    with pytest.raises(PanelError, match=r"end of a spell must be a day.* at row 3"):
        read_spells(change(3, "end", "2024"))
    with pytest.raises(
        PanelError, match=r"for a named instrument; got 1 that break this, at row 1 \(,"
    ):
        read_spells(change(1, "instrument", ""))
    with pytest.raises(
        PanelError, match="must have the columns instrument, start, end; got no end"
    ):
        read_spells(SPELLS.drop(columns="end"))
    with pytest.raises(PanelError, match="spells must be a file; got none at"):
        read_spells(tmp_path / "none.csv")
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(PanelError, match="spells must be readable; got No columns to parse"):
        read_spells(empty)
    narrow = tmp_path / "narrow.txt"
    narrow.write_text("SH600001 2020-01-01 2020-02-01\n")
    with pytest.raises(PanelError, match="spells must be readable"):
        read_spells(narrow)
    strangers = SPELLS.assign(instrument="600999.SH")
    with pytest.raises(
        PanelError, match=r"must name assets of the bars; got SH600999, where the bars have SH600"
    ):
        tradable_universe(bars, UniverseRules(spells=strangers))


# ---- age, liquidity, special treatment, limits --------------------------------------------------


def test_young_assets_wait_and_old_ones_do_not(bars: xr.Dataset) -> None:
    bars["close"].values[:2, 1] = np.nan
    bars["close"].values[4, 1] = np.nan
    masks, exclusions = tradable_universe(bars, UniverseRules(min_age=3))
    # First close on row 2, age 3 on row 5.
    assert cells(masks, "SZ000002") == [5, 6]
    assert cells(masks, "SH600001") == list(range(7))
    rule = exclusions[-1][0]
    assert rule == (
        "cells listed for fewer than 3 trading days (4 assets older than the data count as old "
        "enough)"
    )
    listing = pd.Series(["2024-03-01"], index=["MSFT"])
    masks, exclusions = tradable_universe(bars, UniverseRules(min_age=3), listing_dates=listing)
    assert cells(masks, "MSFT") == [2, 3, 4, 5, 6]
    assert "(3 assets older" in exclusions[-1][0]


def test_the_liquidity_floor_is_a_median_of_full_windows(bars: xr.Dataset) -> None:
    amount = np.full((7, 5), 100.0)
    amount[:, 1] = [100, 1, 100, 1, 100, 1, 1]
    amount[:, 2] = [100, np.nan, np.nan, 100, 100, 100, np.nan]
    amount[:, 3] = 99.999
    bars["amount"] = (DIMS, amount)
    rules = UniverseRules(min_amount=100, liquidity_window=3)
    masks, exclusions = tradable_universe(bars, rules)
    assert cells(masks, "SH600001") == [2, 3, 4, 5, 6]
    assert cells(masks, "SZ000002") == [2, 4]
    assert cells(masks, "SZ300003") == [4, 5, 6]  # NaN counts as nothing traded
    assert cells(masks, "AAPL") == []
    assert exclusions[-1][0] == (
        "cells whose median amount over 3 rows is below 100, or not known yet"
    )
    derived, exclusions = tradable_universe(bars.drop_vars("amount"), rules)
    assert exclusions[-1][0].startswith("cells whose median close x volume (no amount given)")
    traded = pd.DataFrame((bars["close"] * bars["volume"]).values)
    want = traded.rolling(3).median().to_numpy() >= 100
    np.testing.assert_array_equal(derived["tradable"], want)
    with pytest.raises(PanelError, match="min_amount must have a variable amount, or volume"):
        tradable_universe(bars[["close"]], rules)


def test_special_treatment_and_limits_leave_only_when_asked(bars: xr.Dataset) -> None:
    bars["close"].values[:, 0] = [10.0, 10.5, 11.55, 10.4, 10.4, 10.4, 10.4]
    bars["st"] = (DIMS, np.zeros((7, 5), dtype=bool))
    bars["st"].values[1:4, 0] = True
    keep, _ = tradable_universe(bars, prices="raw")
    assert keep["tradable"].all()
    masks, exclusions = tradable_universe(bars, UniverseRules(exclude_st=True), prices="raw")
    assert cells(masks, "SH600001") == [0, 4, 5, 6]
    assert exclusions[-1][0] == "cells under special treatment (ST)"
    rules = UniverseRules(exclude_limits=True)
    masks, exclusions = tradable_universe(bars, rules, prices="raw")
    # ST: 10.50 is the limit of 5 percent; 11.55 earns 10 percent and is beyond it.
    assert cells(masks, "SH600001") == [0, 2, 3, 4, 5, 6]
    assert exclusions[-1][0].startswith("closes at a price limit (exact, raw prices")
    with pytest.raises(
        PanelError, match="exclude_st must have a variable st in the bars; got none"
    ):
        tradable_universe(bars.drop_vars("st"), UniverseRules(exclude_st=True))


def test_bad_rules_are_refused(bars: xr.Dataset) -> None:
    with pytest.raises(SpecError, match="min_age must be an integer >= 0; got -1"):
        UniverseRules(min_age=-1)
    with pytest.raises(SpecError, match="liquidity_window must be an integer >= 1; got 0"):
        UniverseRules(liquidity_window=0)
    with pytest.raises(SpecError, match="min_age must be an integer >= 0; got True"):
        UniverseRules(min_age=True)
    with pytest.raises(SpecError, match="min_amount must be > 0 and finite; got nan"):
        UniverseRules(min_amount=np.nan)
    with pytest.raises(PanelError, match="must have a variable close"):
        tradable_universe(bars.drop_vars("close"))


# ---- nothing depends on the future --------------------------------------------------------------


@pytest.mark.parametrize("with_amount", [True, False])
def test_the_future_never_changes_who_is_tradable(with_amount: bool) -> None:
    rng = np.random.default_rng(13)
    shape = (41, 5)
    close = np.round(10 * np.exp(np.cumsum(rng.normal(0, 0.05, shape), axis=0)), 2)
    close[rng.random(shape) < 0.1] = np.nan
    close[:6, 1] = np.nan
    close[30:, 2] = np.nan
    fields = {
        "close": close,
        "volume": np.where(rng.random(shape) < 0.1, 0.0, rng.uniform(5, 15, shape)),
        "st": rng.random(shape) < 0.1,
        "universe": rng.random(shape) < 0.9,
        "suspended": rng.random(shape) < 0.05,
    }
    fields["volume"][:3] = np.nan
    if with_amount:
        fields["amount"] = np.where(rng.random(shape) < 0.1, np.nan, rng.uniform(50, 150, shape))
    dates = pd.bdate_range("2024-02-05", periods=41)
    bars = xr.Dataset(
        {name: (DIMS, values) for name, values in fields.items()},
        {"date": dates, "asset": ASSETS},
    )
    rules = UniverseRules(
        min_age=7,
        min_amount=90,
        liquidity_window=5,
        exclude_st=True,
        exclude_limits=True,
        spells=pd.DataFrame(
            [(name, "2024-02-07", "2024-03-20") for name in ASSETS],
            columns=["instrument", "start", "end"],
        ),
    )
    masks, exclusions = tradable_universe(bars, rules)
    assert 10 < int(masks["tradable"].sum()) < 150
    for stop in (1, 3, 4, 11, 23, 37, 40):
        past = slice(0, stop)
        cut, causes = tradable_universe(bars.isel(date=past), rules)
        xr.testing.assert_equal(cut, masks.isel(date=past))
        for (_, short), (_, whole) in zip(causes, exclusions, strict=True):
            np.testing.assert_array_equal(short, whole[past])
        other = bars.copy(deep=True)
        for name, values in other.items():
            later = values.values[stop:]
            later[:] = ~later if later.dtype == bool else np.where(later > 9, np.nan, 3 * later)
            assert name in bars
        changed, _ = tradable_universe(other, rules)
        xr.testing.assert_equal(changed.isel(date=past), masks.isel(date=past))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude_st": "false"}, "exclude_st must be True or False; got 'false'"),
        ({"exclude_limits": 0}, "exclude_limits must be True or False; got 0"),
        ({"min_amount": "1e7"}, "min_amount must be > 0 and finite; got '1e7'"),
        ({"spells": []}, "spells must be a DataFrame or a path; got list"),
    ],
)
def test_rules_of_another_type_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        UniverseRules(**options)


def test_rules_are_universe_rules(bars: xr.Dataset) -> None:
    with pytest.raises(SpecError, match="rules of a universe must be UniverseRules; got dict"):
        tradable_universe(bars, {"min_age": 60})  # type: ignore[arg-type]


def test_days_of_spells_may_have_a_zone() -> None:
    zoned = pd.DataFrame(
        {
            "instrument": ["SH600001", "SZ000002"],
            "start": pd.to_datetime(["2024-03-04", "2024-03-06"], utc=True),
            "end": [None, "2024-03-08"],
        }
    )
    spells = read_spells(zoned)
    assert spells["start"].dt.strftime("%Y-%m-%d").tolist() == ["2024-03-04", "2024-03-06"]
    assert spells["end"].dt.strftime("%Y-%m-%d").tolist() == ["2200-01-01", "2024-03-08"]
