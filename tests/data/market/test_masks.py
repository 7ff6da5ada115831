"""Masks known at the close: price limits by date and board, and no look at the future."""

from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.data.market.masks import AGE_UNKNOWN, listing_age, trading_masks
from nfi_pyro.data.market.price_limits import BUILT_IN_RULES, read_price_limits
from nfi_pyro.errors import PanelError, SpecError


def make_bars(
    columns: dict[str, Any], start: str = "2024-03-04", **fields: dict[str, Any]
) -> xr.Dataset:
    """Return bars of closes by asset, and other fields by name and asset."""
    assets = list(columns)
    n = len(next(iter(columns.values())))
    variables = {"close": np.array([columns[a] for a in assets], dtype=float).T}
    for name, values in fields.items():
        table = [values.get(a, columns[a]) for a in assets]
        variables[name] = np.array(table, dtype=bool if name in ("st", "suspended") else float).T
    return xr.Dataset(
        {name: (("date", "asset"), values) for name, values in variables.items()},
        {"date": pd.bdate_range(start, periods=n).to_numpy(), "asset": assets},
    )


def hits(masks: xr.Dataset, name: str, asset: str) -> list[int]:
    return np.flatnonzero(masks[name].sel(asset=asset)).tolist()


# ---- exact limits -------------------------------------------------------------------------------


def test_each_board_has_its_own_limit() -> None:
    bars = make_bars(
        {
            "SH600001": [10.05, 11.06, 11.06, 9.95],  # 11.055 up to 11.06; then 9.954 to 9.95
            "SZ300001": [10.05, 11.06, 13.27, 10.62],  # 20 percent: 13.272, 10.616
            "SH688001": [10.00, 12.00, 11.99, 9.59],  # 12.00 is a hit; 9.592 to 9.59
            "BJ830001": [10.00, 13.00, 16.89, 11.82],  # 30 percent; 16.90 missed by a cent; 11.823
            "SZ000001": [10.05, 11.05, 12.15, 13.37],  # 11.05 is a cent below; 12.155 is 12.16
            "SH000300": [10.00, 11.00, 12.10, 10.89],  # an index
            "AAPL": [10.00, 11.00, 12.10, 10.89],
        }
    )
    masks = trading_masks(bars, prices="raw")
    want = {
        "SH600001": ([1], [3]),
        "SZ300001": ([2], [3]),
        "SH688001": ([1], [3]),
        "BJ830001": ([1], [3]),
        "SZ000001": ([3], []),
        "SH000300": ([], []),
        "AAPL": ([], []),
    }
    for asset, (up, down) in want.items():
        assert (hits(masks, "limit_up", asset), hits(masks, "limit_down", asset)) == (up, down)
    assert (
        masks["limit_up"].attrs["method"] == "exact, raw prices without a factor: not on ex-dates"
    )
    assert masks["limit_up"].attrs["without_board"] == 2
    assert not masks["one_price"].any()


def test_a_factor_gives_back_the_raw_price_and_the_ex_right_reference() -> None:
    # One old share becomes two on row 2: raw 12.00, 13.20 | 6.60 reference, limit 7.26.
    raw = np.array([12.0, 13.2, 7.26, 6.53, 7.18])
    factor = np.array([1.0, 1.0, 2.0, 2.0, 2.0]) * 0.37
    bars = make_bars({"SH600001": raw * factor}, factor={"SH600001": factor})
    masks = trading_masks(bars)
    assert hits(masks, "limit_up", "SH600001") == [1, 2, 4]
    assert hits(masks, "limit_down", "SH600001") == [3]
    assert masks["limit_up"].attrs["method"] == "exact"
    # The same from raw prices with the factor; without it the ex-date is wrong, as it says.
    same = make_bars({"SH600001": raw}, factor={"SH600001": factor})
    assert hits(trading_masks(same, prices="raw"), "limit_up", "SH600001") == [1, 2, 4]
    bare = trading_masks(same.drop_vars("factor"), prices="raw")
    assert hits(bare, "limit_up", "SH600001") == [1, 4]
    # Single precision, as qlib stores it, changes nothing.
    single = trading_masks(bars.astype(np.float32))
    xr.testing.assert_equal(single, masks)


def test_the_ex_right_reference_is_itself_in_cents() -> None:
    # 11.05 / 1.1 = 10.04545..., published as 10.05; its limit is 11.055, so 11.06 and not 11.05.
    for raw, hit in ((11.06, [1]), (11.05, [])):
        bars = make_bars({"SH600001": [11.05, raw * 1.1]}, factor={"SH600001": [1.0, 1.1]})
        assert hits(trading_masks(bars), "limit_up", "SH600001") == hit


def test_a_close_without_a_factor_is_not_judged_but_counted() -> None:
    bars = make_bars(
        {"SH600001": [10.0, 11.0, 12.1, 13.31]}, factor={"SH600001": [1, 1, np.nan, 1]}
    )
    masks = trading_masks(bars)
    assert hits(masks, "limit_up", "SH600001") == [1]  # 13.31 is judged against 11.00
    assert masks["limit_up"].attrs["unchecked"] == 1


def test_the_reference_skips_days_without_a_close() -> None:
    bars = make_bars({"SH600001": [10.0, np.nan, np.nan, 11.0, 11.0]})
    masks = trading_masks(bars, prices="raw")
    assert hits(masks, "limit_up", "SH600001") == [3]
    assert hits(masks, "suspended", "SH600001") == [1, 2]


def test_special_treatment_has_its_own_limit_until_mid_2026() -> None:
    closes = {"SH600001": [10.0, 10.5, 11.55, 10.97], "SZ300001": [10.0, 10.5, 11.55, 13.86]}
    st = {name: [True, True, False, True] for name in closes}
    masks = trading_masks(make_bars(closes, st=st), prices="raw")
    assert hits(masks, "limit_up", "SH600001") == [1, 2]
    assert hits(masks, "limit_down", "SH600001") == [3]
    assert hits(masks, "limit_up", "SZ300001") == [3]
    assert hits(masks, "st", "SH600001") == [0, 1, 3]
    assert masks["limit_up"].attrs["special_treatment"] == "as given by st"
    # The first week of July 2026: Friday 3rd is row 4, Monday 6th row 5.
    late = {"SH600001": [10.0, 10.5, 10.5, 10.5, 11.03, 12.13]}
    masks = trading_masks(make_bars(late, "2026-06-29", st={"SH600001": [True] * 6}), prices="raw")
    assert hits(masks, "limit_up", "SH600001") == [1, 4, 5]
    without = trading_masks(make_bars(late, "2026-06-29"), prices="raw")
    assert hits(without, "limit_up", "SH600001") == [5]
    assert without["limit_up"].attrs["special_treatment"] == "not given: none assumed"


def test_chinext_moved_to_20_percent_in_august_2020() -> None:
    # Friday 21st is row 1, Monday 24th row 2.
    bars = make_bars({"SZ300001": [10.0, 11.0, 12.1, 14.52]}, "2020-08-20")
    assert hits(trading_masks(bars, prices="raw"), "limit_up", "SZ300001") == [1, 3]


# ---- new listings -------------------------------------------------------------------------------


def test_a_new_listing_is_free_for_five_days() -> None:
    nan = np.nan
    bars = make_bars(
        {
            "SH600001": [nan, 10.0, 11.0, 12.1, 13.31, 14.64, 16.1],
            "SH600002": [
                10.0,
                11.0,
                12.1,
                13.31,
                14.64,
                16.1,
                17.71,
            ],  # priced on the first date: listed long ago
        }
    )
    masks = trading_masks(bars, prices="raw")
    # Rows 1 to 5 are days 0 to 4; 16.10 on row 6 is the limit after 14.64.
    assert hits(masks, "limit_up", "SH600001") == [6]
    assert hits(masks, "limit_up", "SH600002") == [1, 2, 3, 4, 5, 6]
    # A listing in March 2023 fell under the old rule: limits from the second day.
    old = bars.assign_coords(date=pd.bdate_range("2023-03-31", periods=7).to_numpy())
    assert hits(trading_masks(old, prices="raw"), "limit_up", "SH600001") == [2, 3, 4, 5, 6]


def test_listing_dates_say_more_than_the_first_close() -> None:
    bars = make_bars({"SH600001": [10.0, 11.0, 12.1, 13.31, 14.64]})
    assert hits(trading_masks(bars, prices="raw"), "limit_up", "SH600001") == [1, 2, 3, 4]
    # Listed two trading days before the data begin: rows 0 to 2 are still free.
    dates = pd.Series(["2024-02-29", "2020-01-01"], index=["600001.SH", "SH601999"])
    masks = trading_masks(bars, prices="raw", listing_dates=dates)
    assert hits(masks, "limit_up", "SH600001") == [3, 4]
    with pytest.raises(PanelError, match=r"must not lie after a close of .* at SH600001"):
        trading_masks(bars, listing_dates=pd.Series(["2024-03-05"], index=["SH600001"]))
    with pytest.raises(PanelError, match="must name an asset once; got several at SH600001"):
        trading_masks(bars, listing_dates=pd.concat([dates, dates]))
    with pytest.raises(PanelError, match="listing_dates must be dates"):
        trading_masks(bars, listing_dates=pd.Series(["soon"], index=["SH600001"]))


def test_age_counts_trading_days_from_the_listing() -> None:
    nan = np.nan
    bars = make_bars(
        {
            "SH600001": [1.0, 1, 1, 1],
            "SH600002": [nan, 1, nan, 1],
            "SH600003": [nan] * 4,
            "SH600004": [1.0, 1, 1, 1],
        }
    )
    age, listing = listing_age(bars, pd.Series({"SH600004": pd.Timestamp("2024-02-26")}))
    assert (age[:, 0] >= AGE_UNKNOWN).all()
    assert age[:, 1].tolist() == [-1, 0, 1, 2]
    assert age[:, 2].tolist() == [-1] * 4
    assert age[:, 3].tolist() == [5, 6, 7, 8]
    assert np.isnat(listing[[0, 2]]).all()
    assert listing[[1, 3]].tolist() == [
        pd.Timestamp("2024-03-05").date(),
        pd.Timestamp("2024-02-26").date(),
    ]


# ---- approximate limits, one-price days, suspension ---------------------------------------------


def test_adjusted_prices_hit_by_return_and_the_days_extreme() -> None:
    scale = 0.731
    closes = {"SH600001": np.array([10.05, 11.06, 12.16, 12.16, 10.94, 9.86]) * scale}
    high = {"SH600001": np.array([10.05, 11.06, 12.17, 12.3, 12.16, 10.0]) * scale}
    low = {"SH600001": np.array([10.05, 10.1, 11.2, 12.0, 10.94, 9.84]) * scale}
    masks = trading_masks(make_bars(closes, high=high, low=low))
    # Row 2 earns 9.95 percent but closes below its high; row 5 closes above its low.
    assert hits(masks, "limit_up", "SH600001") == [1]
    assert hits(masks, "limit_down", "SH600001") == [4]
    assert masks["limit_up"].attrs["method"] == "approximate, no factor"
    alone = trading_masks(make_bars(closes))
    assert hits(alone, "limit_up", "SH600001") == [1, 2]
    assert hits(alone, "limit_down", "SH600001") == [4, 5]
    shy = trading_masks(make_bars({"SH600001": [1.0, 1.0974, 1.2045]}))
    assert hits(shy, "limit_up", "SH600001") == [2]


@pytest.mark.parametrize("prices", ["raw", "adjusted"])
def test_a_day_at_one_limit_price_is_flagged(prices: str) -> None:
    closes = {"SH600001": [10.0, 11.0, 12.1, 10.89, 10.89]}
    opened = {"SH600001": [10.0, 11.0, 12.0, 10.89, 10.89]}
    bars = make_bars(closes, open=opened, high=closes, low=opened)
    masks = trading_masks(bars, prices=prices)
    # Row 2 opened below its limit; row 4 is flat but at no limit.
    assert hits(masks, "one_price", "SH600001") == [1, 3]
    for name in ("open", "high", "low"):
        assert not trading_masks(bars.drop_vars(name), prices=prices)["one_price"].any()


def test_suspended_is_listed_and_not_traded() -> None:
    nan = np.nan
    bars = make_bars(
        {"A": [nan, 1, 1, nan, 1, 1], "B": [1, 1, 1, nan, nan, nan]},
        volume={"A": [nan, 5, 0, nan, 5, 5], "B": [5, 5, nan, nan, nan, nan]},
        suspended={"A": [True, False, False, False, False, True], "B": [False] * 6},
    )
    masks = trading_masks(bars)
    assert hits(masks, "listed", "A") == [1, 2, 3, 4, 5]
    assert hits(masks, "listed", "B") == [0, 1, 2, 3, 4, 5]  # ended, or suspended: not known
    assert hits(masks, "suspended", "A") == [2, 3, 5]
    assert hits(masks, "suspended", "B") == [3, 4, 5]
    assert masks["suspended"].attrs["method"] == "listed and no close or volume 0 or flagged"
    assert {mask.attrs["timing"] for mask in masks.values()} == {"known at the close of t"}
    assert all(mask.dtype == bool and mask.dims == ("date", "asset") for mask in masks.values())


def test_flags_are_true_or_false_and_dated() -> None:
    bars = make_bars({"A": [1.0, 1, 1], "B": [1.0, 1, 1]})
    numbers = bars.assign(st=bars["close"] * [0.0, 1.0])
    assert hits(trading_masks(numbers), "st", "B") == [0, 1, 2]
    with pytest.raises(PanelError, match="st must be true or false; got 3 other values, the first"):
        trading_masks(bars.assign(st=bars["close"] * [np.nan, 1.0]))
    with pytest.raises(PanelError, match=r"st must have dims date and asset; got \('asset',\)"):
        trading_masks(bars.assign(st=("asset", [True, False])))
    with pytest.raises(PanelError, match="suspended must hold numbers; got"):
        trading_masks(bars.assign(suspended=(("date", "asset"), np.full((3, 2), "no"))))


def test_bad_requests_are_refused() -> None:
    bars = make_bars({"A": [1.0, 1, 1]})
    with pytest.raises(SpecError, match=r"prices must be one of .*; got 'forward adjusted'"):
        trading_masks(bars, prices="forward adjusted")
    with pytest.raises(
        PanelError, match=r"must have a variable close .*; got variables \['open'\]"
    ):
        trading_masks(bars.rename(close="open"))


def test_other_rules_may_be_given(tmp_path: Path) -> None:
    place = tmp_path / "rules.toml"
    text = BUILT_IN_RULES.read_text(encoding="utf-8").replace("up = 0.10", "up = 0.15")
    place.write_text(text, encoding="utf-8")
    bars = make_bars({"SH600001": [10.0, 11.0, 12.65]})
    masks = trading_masks(bars, prices="raw", limits=read_price_limits(place))
    assert hits(masks, "limit_up", "SH600001") == [2]


# ---- nothing depends on the future --------------------------------------------------------------


def make_market(seed: int, n_dates: int = 31) -> xr.Dataset:
    """Bars in cents with hits, gaps, late listings, splits, flags and zero volumes."""
    rng = np.random.default_rng(seed)
    assets = ["SH600001", "SZ000002", "SZ300003", "SH688004", "BJ830005", "SH600006", "XYZ"]
    shape = (n_dates, len(assets))
    moves = rng.choice([0.1, -0.1, 0.05, 0.2, -0.2, 0.3, 0.01, -0.02, 0.0], shape)
    raw = np.empty(shape)
    raw[0] = rng.integers(800, 3000, shape[1]) / 100
    for row in range(1, n_dates):
        raw[row] = np.maximum(np.floor(raw[row - 1] * (1 + moves[row]) * 100 + 0.5), 100) / 100
    factor = 0.5 * np.cumprod(np.where(rng.random(shape) < 0.03, 2.0, 1.0), axis=0)
    gone = rng.random(shape) < 0.1
    gone[:5, 5] = True
    gone[20:, 1] = True
    close = np.where(gone, np.nan, raw * factor)
    fields = {
        "open": np.where(rng.random(shape) < 0.5, close, close * 0.98),
        "high": np.where(rng.random(shape) < 0.7, close, close * 1.01),
        "low": np.where(rng.random(shape) < 0.7, close, close * 0.99),
        "close": close,
        "volume": np.where(gone | (rng.random(shape) < 0.05), 0.0, 100.0),
        "factor": factor,
        "st": rng.random(shape) < 0.2,
        "suspended": rng.random(shape) < 0.05,
    }
    dates = pd.bdate_range("2023-03-20", periods=n_dates).to_numpy()
    return xr.Dataset(
        {name: (("date", "asset"), values) for name, values in fields.items()},
        {"date": dates, "asset": assets},
    )


@pytest.mark.parametrize("form", ["exact", "raw", "approximate"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_future_never_changes_a_mask(seed: int, form: str) -> None:
    bars = make_market(seed)
    prices = "raw" if form == "raw" else "adjusted"
    if form != "exact":
        bars = bars.drop_vars("factor")
    masks = trading_masks(bars, prices=prices)
    assert masks["limit_up"].any()
    assert masks["limit_down"].any()
    rng = np.random.default_rng(seed)
    for stop in (1, 2, 7, 13, 23, 30):
        cut = trading_masks(bars.isel(date=slice(0, stop)), prices=prices)
        xr.testing.assert_equal(cut, masks.isel(date=slice(0, stop)))
        other = bars.copy(deep=True)
        for name, values in other.items():
            later = values.values[stop:]
            if name in ("st", "suspended"):
                later[:] = ~later
            else:
                later[:] = later * rng.uniform(0.2, 3.0, later.shape)
                later[rng.random(later.shape) < 0.3] = np.nan
        changed = trading_masks(other, prices=prices)
        xr.testing.assert_equal(changed.isel(date=slice(0, stop)), masks.isel(date=slice(0, stop)))
        assert not changed.equals(masks)


def test_assets_do_not_touch_each_other() -> None:
    bars = make_market(5)
    order = [6, 2, 0, 5, 3, 1, 4]
    masks = trading_masks(bars)
    xr.testing.assert_equal(trading_masks(bars.isel(asset=order)), masks.isel(asset=order))
    one = trading_masks(bars.isel(asset=[3]))
    xr.testing.assert_equal(one, masks.isel(asset=[3]))


@pytest.mark.parametrize("seed", [1, 2])
def test_exact_hits_agree_with_decimals_done_by_hand(seed: int) -> None:
    bars = make_market(seed).drop_vars(["st", "suspended"])
    masks = trading_masks(bars)
    close, factor = bars["close"].values, bars["factor"].values
    cent = Decimal("0.01")
    shares = {"SH600001": "0.1", "SZ000002": "0.1", "SZ300003": "0.2", "SH688004": "0.2"}
    n_hits = 0
    for asset, share in shares.items():
        column = bars["asset"].values.tolist().index(asset)
        last = None
        for row in range(len(close)):
            found = (bool(masks["limit_up"][row, column]), bool(masks["limit_down"][row, column]))
            want = (False, False)
            known = np.isfinite(close[row, column])
            if known and last is not None:
                reference = Decimal(f"{last / factor[row, column]:.6f}")
                reference = reference.quantize(cent, ROUND_HALF_UP)
                raw = Decimal(f"{close[row, column] / factor[row, column]:.6f}")
                up = (reference * (1 + Decimal(share))).quantize(cent, ROUND_HALF_UP)
                down = (reference * (1 - Decimal(share))).quantize(cent, ROUND_HALF_UP)
                want = (abs(raw - up) < Decimal("0.005"), abs(raw - down) < Decimal("0.005"))
            first = np.isfinite(close[:, column]).argmax()
            if not (first > 0 and row - first < 5 and asset in ("SZ300003", "SH688004")):
                assert found == want, (asset, row)
                n_hits += sum(want)
            last = close[row, column] if known else last
    assert n_hits > 10


@pytest.mark.slow
def test_the_a_share_file_has_limit_hits_where_the_market_had_them(
    market_file: Callable[[str], Path],
) -> None:
    path = market_file("ashare_daily.parquet")
    table = pd.read_parquet(path, columns=["date", "instrument", "high", "low", "close"])
    bars = table.rename(columns={"instrument": "asset"}).set_index(["date", "asset"]).to_xarray()
    masks = trading_masks(bars)
    share = float(masks["limit_up"].sum() / masks["listed"].sum())
    assert 0.01 < share < 0.02
    # The rally after the stimulus of September 2024, and the rout of small caps before it.
    assert masks["limit_up"].sum("asset").to_series().idxmax() == pd.Timestamp("2024-09-30")
    assert masks["limit_down"].sum("asset").to_series().idxmax() == pd.Timestamp("2024-02-05")
    assert masks["limit_up"].attrs["without_board"] == 0


@pytest.mark.parametrize(
    "day",
    [20240227, 20240227.0, "20240227", "2024-02-27 09:30", pd.Timestamp("2024-02-27", tz="UTC")],
)
def test_listing_dates_may_be_written_in_any_way(day: Any) -> None:
    bars = make_bars({"SH600001": [10.0, 11.0, 12.1], "SH600003": [10.0, 11.0, 12.1]})
    dates = pd.Series([day, None], index=["600001.SH", "SH600003"], dtype=object)
    age, listing = listing_age(bars, dates)
    assert listing[0] == np.datetime64("2024-02-27")
    assert np.isnat(listing[1])
    assert age[0].tolist() == [4, AGE_UNKNOWN]  # weekdays before the first bar


def test_options_of_another_type_are_refused() -> None:
    bars = make_bars({"SH600001": [10.0, 11.0, 12.1]})
    with pytest.raises(PanelError, match=r"listing_dates must be dates; .* at SH600001 \(5.5\)"):
        trading_masks(bars, listing_dates=pd.Series([5.5], index=["SH600001"]))
    with pytest.raises(SpecError, match=r"listing_dates must be a Series .*; got dict"):
        trading_masks(bars, listing_dates={"SH600001": "2024-02-27"})  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="limits must be a PriceLimitTable; got str"):
        trading_masks(bars, limits="rules.toml")  # type: ignore[arg-type]
