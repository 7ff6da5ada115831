"""The rules of the inspection: each fires on its planted flaw, alone, and obeys its policy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.data.checks.bar_quality import inspect_bars
from nfi_pyro.data.checks.quality import DropLedger, Inspection
from nfi_pyro.data.checks.quality_rules import RULES, resolve_policies
from nfi_pyro.data.sources.readers import inspect_prices
from nfi_pyro.errors import PanelError, SpecError

DATES = pd.bdate_range("2024-01-01", periods=41)
ASSETS = np.array(["AAA", "BBB", "SH600000", "SZ300001", "ZZZ"], dtype=object)
NAMES = ("open", "high", "low", "close", "volume")


@pytest.fixture
def bars() -> xr.Dataset:
    """Return clean bars: moves of about 1% a day, the open at the last close."""
    rng = np.random.default_rng(11)
    shape = (len(DATES), len(ASSETS))
    close = 20 * np.exp(np.cumsum(rng.normal(0, 0.01, shape), axis=0))
    opened = np.vstack([close[:1], close[:-1]])
    high, low = np.maximum(opened, close) * 1.01, np.minimum(opened, close) * 0.99
    volume = rng.uniform(900, 1100, shape)
    values = dict(zip(NAMES, (opened, high, low, close, volume), strict=True))
    return xr.Dataset(
        {name: (("date", "asset"), cells) for name, cells in values.items()},
        {"date": DATES.to_numpy().astype("datetime64[ns]"), "asset": ASSETS},
    )


def scale(bars: xr.Dataset, asset: int, rows: slice, ratio: float, volume: float = 1.0) -> None:
    for name in NAMES[:4]:
        bars[name].values[rows, asset] *= ratio
    bars["volume"].values[rows, asset] *= volume


def look(bars: xr.Dataset, **policies: str) -> Inspection:
    return inspect_bars(bars, DropLedger(), policies=policies)


def test_clean_bars_break_no_rule_and_stay_as_they_are(bars: xr.Dataset) -> None:
    result = look(bars)
    assert dict(result.counts) == {}
    assert result.ledger == DropLedger()
    assert len(result.cases) == 0
    xr.testing.assert_identical(result.bars, bars)
    assert float(result.missing.max()) == 0.0


CELL_FLAWS = {
    "infinite": ("open", np.inf),
    "nonpositive_price": ("low", 0.0),
    "negative_volume": ("volume", -1.0),
    "high_below_low": ("low", 1e3),
    "open_outside_bar": ("open", 23.0),
    "zero_volume": ("volume", 0.0),
    "gap": ("close", np.nan),
}


@pytest.mark.parametrize("rule", CELL_FLAWS)
def test_one_bad_cell_fires_its_rule_alone(bars: xr.Dataset, rule: str) -> None:
    name, value = CELL_FLAWS[rule]
    bars[name].values[7, 1] = value
    if name == "open":
        bars["high"].values[7, 1] = min(bars["high"].values[7, 1], 22.9)
    kept = look(bars, **{rule: "keep"})
    assert rule in kept.counts
    assert kept.counts[rule] == 1
    case = kept.cases[kept.cases["rule"] == rule].iloc[0]
    assert (case["asset"], case["date"]) == ("BBB", DATES[7])
    assert set(kept.counts) <= {rule, "high_below_low", "open_outside_bar"}
    masked = look(bars, **{rule: "mask"})
    for field in NAMES:
        assert np.isnan(masked.bars[field].values[7, 1])
        empty = np.isnan(masked.bars[field].values)
        assert empty.sum() == 1
    with pytest.raises(
        PanelError, match=rf"policy is error(.|\n)*{rule}: 1 .*BBB 2024-01-10|\(1\)"
    ):
        look(bars, **{rule: "error"})


# ratio, share of the volume, asset, last row of the new level, expected rule
LEVELS = [
    (0.5, 2.0, 0, None, "unadjusted_split"),
    (1 / 3, 3.0, 1, None, "unadjusted_split"),
    (0.1, 10.0, 4, None, "unadjusted_split"),
    (5.0, 0.2, 4, None, "unadjusted_split"),
    (100.0, 1.0, 0, None, "scale_jump"),
    (0.01, 1.0, 0, None, "scale_jump"),
    (10.0, 1.0, 1, 21, "scale_jump"),
    (0.44, 1.0, 0, None, "adjustment_base"),
    (0.44, 1.0, 2, None, "adjustment_base"),
    (0.83, 1.0, 2, None, "adjustment_base"),
    (2.3, 1.0, 3, None, "adjustment_base"),
    (0.44, 9.0, 0, None, "jump"),
    (0.44, 1.0, 0, 21, "jump"),
]


@pytest.mark.parametrize(("ratio", "volume", "asset", "end", "rule"), LEVELS)
def test_a_level_shift_is_counted_under_one_rule(
    bars: xr.Dataset, ratio: float, volume: float, asset: int, end: int | None, rule: str
) -> None:
    scale(bars, asset, slice(20, end), ratio, volume)
    result = look(bars)
    assert set(result.counts) == {rule}
    cases = result.cases
    assert cases["date"].iloc[0] in (DATES[20], DATES[21])
    assert cases["asset"].unique().tolist() == [ASSETS[asset]]
    if end is None or rule == "scale_jump":  # the way back is no second slip
        assert result.counts[rule] == 1
        expected = bars["close"].values[20, asset] / bars["close"].values[19, asset] - 1
        assert cases["value"].iloc[0] == pytest.approx(expected, rel=1e-12)


def test_moves_within_the_daily_limits_are_no_flaw(bars: xr.Dataset) -> None:
    scale(bars, 2, slice(20, None), 0.91)  # main board: 10%
    scale(bars, 3, slice(20, None), 0.82)  # growth board: 20%
    assert dict(look(bars).counts) == {}


def test_new_listings_move_freely_for_five_days(bars: xr.Dataset) -> None:
    for name in NAMES:
        bars[name].values[:18, 2] = np.nan
    scale(bars, 2, slice(20, None), 1.3)
    assert set(look(bars).counts) == {"late_listing"}


def test_stale_runs_have_their_length_and_keep_their_first_bar(bars: xr.Dataset) -> None:
    for name in NAMES[:4]:
        bars[name].values[10:15, 0] = bars[name].values[10, 0]  # five bars alike
        bars[name].values[10:14, 1] = bars[name].values[10, 1]  # four are too few
    result = look(bars, stale_price="mask")
    cases = result.cases[result.cases["rule"] == "stale_price"]
    assert cases[["asset", "date", "value"]].to_numpy().tolist() == [["AAA", DATES[10], 5.0]]
    empty = np.argwhere(np.isnan(result.bars["close"].values)).tolist()
    assert empty == [[11, 0], [12, 0], [13, 0], [14, 0]]


def test_closes_alone_are_stale_after_ten(bars: xr.Dataset) -> None:
    bars["close"].values[10:20, 0] = 20.0
    bars["close"].values[10:19, 1] = 20.0
    found = look(bars[["close"]])
    assert found.counts == {"stale_price": 1}
    assert found.cases["value"].tolist() == [10.0]


def test_constant_fields_are_one_case_when_the_same_everywhere(bars: xr.Dataset) -> None:
    bars["turnover"] = xr.full_like(bars["close"], 1.0)
    whole = look(bars, constant_field="mask")
    assert whole.cases[["asset", "field", "value"]].to_numpy().tolist() == [["", "turnover", 1.0]]
    assert np.isnan(whole.bars["turnover"].values).all()
    bars["turnover"].values[:, 1:] *= np.arange(1, 42)[:, None]
    one = look(bars, constant_field="mask")
    assert one.cases["asset"].tolist() == ["AAA"]
    assert np.isnan(one.bars["turnover"].values).sum() == 41
    assert not np.isnan(one.bars["close"].values).any()


def test_histories_that_start_late_or_end_early_can_be_masked(bars: xr.Dataset) -> None:
    bars["close"].values[:7, 0] = np.nan
    bars["close"].values[-3:, 1] = np.nan
    kept = look(bars)
    assert kept.counts == {"late_listing": 1, "early_end": 1}
    assert kept.ledger.findings[0].places == ("AAA 2024-01-10",)
    masked = look(bars, late_listing="mask")
    assert list(masked.bars["asset"].values) == ["BBB", "SH600000", "SZ300001", "ZZZ"]
    assert masked.counts["dead_asset"] == 1


def test_known_suspensions_are_neither_gaps_nor_idle_bars(bars: xr.Dataset) -> None:
    bars["close"].values[7, 0] = np.nan
    bars["volume"].values[9, 0] = 0.0
    assert set(look(bars).counts) == {"gap", "zero_volume"}
    known = xr.zeros_like(bars["close"], dtype=bool)
    known.values[[7, 9], 0] = True
    assert dict(look(bars.assign(suspended=known)).counts) == {}


def test_dates_are_compared_with_the_calendar(bars: xr.Dataset) -> None:
    calendar = [*DATES.delete(3), *pd.DatetimeIndex(["2024-01-06", "2030-01-01"])]
    result = inspect_bars(bars, DropLedger(), calendar=calendar)
    found = {row.field: row.date for row in result.cases.itertuples()}
    assert found == {
        "not in the prices": pd.Timestamp("2024-01-06"),
        "not in the calendar": DATES[3],
    }
    masked = inspect_bars(bars, DropLedger(), calendar=calendar, policies={"calendar_gap": "mask"})
    assert np.argwhere(np.isnan(masked.bars["close"].values))[:, 0].tolist() == [3] * 5
    with pytest.raises(PanelError, match="calendar must hold dates; got none"):
        inspect_bars(bars, DropLedger(), calendar=[])
    with pytest.raises(PanelError, match="calendar must hold dates; got list"):
        inspect_bars(bars, DropLedger(), calendar=["no date"])


def test_odd_dates_are_seen_without_a_calendar(bars: xr.Dataset) -> None:
    bars["close"].values[7, :3] = np.nan
    dates = bars["date"].values.copy()
    dates[30:] += np.timedelta64(14, "D")
    dates[-1] += np.timedelta64(np.datetime64("2024-03-16", "D") - dates[-1].astype("M8[D]"))
    found = look(bars.assign_coords(date=dates)).cases
    found = found[found["rule"] == "calendar_gap"]
    assert found["field"].tolist() == ["long step before", "few assets", "weekend"]
    assert found["value"].tolist() == [17.0, 2.0, 5.0]


def test_survivorship_is_hinted_at_when_nothing_ever_ends() -> None:
    dates = pd.bdate_range("2020-01-01", periods=523)
    rng = np.random.default_rng(3)
    close = 20 * np.exp(np.cumsum(rng.normal(0, 0.01, (523, 53)), axis=0))
    names = np.array([f"N{i:02d}" for i in range(53)], dtype=object)
    bars = xr.Dataset({"close": (("date", "asset"), close)}, {"date": dates, "asset": names})
    assert look(bars).counts == {"survivorship": 1}
    bars["close"].values[-7:, 0] = np.nan  # one of 53 in two years: 0.9% a year
    assert look(bars).counts == {"early_end": 1}


def test_all_errors_come_in_one_message(bars: xr.Dataset) -> None:
    bars["low"].values[1:8, 0] = 0.0
    bars["volume"].values[9, 1] = 0.0
    with pytest.raises(PanelError) as caught:
        look(bars, nonpositive_price="error", zero_volume="error")
    text = str(caught.value)
    assert "got 2 broken" in text
    assert "nonpositive_price: 7 bars with a price <= 0: AAA 2024-01-02" in text
    assert "and 2 more" in text
    assert "zero_volume: 1 bars" in text


def test_unknown_rules_and_policies_are_refused() -> None:
    with pytest.raises(SpecError, match=r"known rules; got 'jmp'(.|\n)*jump"):
        resolve_policies({"jmp": "keep"})
    with pytest.raises(
        SpecError, match="policy survivorship must be one of keep, error; got 'mask'"
    ):
        resolve_policies({"survivorship": "mask"})
    assert set(resolve_policies(None)) == set(RULES)


def test_missing_shares_count_histories_only(bars: xr.Dataset) -> None:
    bars["close"].values[:7, 0] = np.nan  # before its history
    bars["volume"].values[:11, 0] = np.nan  # four of these inside
    missing = look(bars).missing
    assert float(missing.sel(field="close", year=2024)) == 0.0
    assert float(missing.sel(field="volume", year=2024)) == pytest.approx(4 / (41 * 5 - 7))


def test_the_dataset_of_findings_holds_all(bars: xr.Dataset, tmp_path: Path) -> None:
    bars["low"].values[7, 0] = 0.0
    result = look(bars)
    stored = result.to_dataset()
    assert dict(stored.sizes) == {"field": 5, "year": 1, "finding": 2, "case": 2}
    assert stored["case_rule"].values.tolist() == ["nonpositive_price", "gap"]
    assert stored["finding_count"].values.tolist() == [1, 1]
    stored.to_zarr(tmp_path / "findings.zarr", consolidated=False)
    text = result.describe()
    assert "5 assets, 41 dates from 2024-01-01 to 2024-02-26" in text
    assert "mask  infinite, nonpositive_price, negative_volume" in text


def of(result: Inspection, rule: str) -> pd.DataFrame:
    return result.cases[result.cases["rule"] == rule].set_index("asset")


@pytest.mark.slow
def test_mixed_bases_of_the_ashare_file_are_found(
    market_file: Callable[[str], Path],
) -> None:
    result = inspect_prices(market_file("ashare_daily.parquet"))
    bases, splits = of(result, "adjustment_base"), of(result, "unadjusted_split")
    assert 400 < len(bases) < 500
    assert 150 < len(splits) < 200
    large = pd.concat([bases, splits])
    large = large[large["value"].abs() > 0.4]
    assert 100 <= len(large) <= 115
    assert {"SZ002594", "SH603659", "SH605117"} <= set(large.index)
    assert result.counts.get("jump", 0) <= 3
    assert result.counts["late_listing"] == 99
    assert result.counts["early_end"] == 5


@pytest.mark.slow
def test_known_flaws_of_the_sp500_file_are_found_and_news_is_not(
    market_file: Callable[[str], Path],
) -> None:
    result = inspect_prices(market_file("sp500_daily.parquet"))
    assert set(of(result, "adjustment_base").index) == {"WY", "JCI"}
    assert set(of(result, "scale_jump").index) == {"BHF"}
    jumps = of(result, "jump")
    assert 75 <= len(jumps) <= 90
    assert {"AIG", "GGP", "STT"} <= set(jumps.index)  # the crisis of 2008: real moves
    assert "survivorship" in result.counts
    assert len(of(result, "unadjusted_split")) == 0
