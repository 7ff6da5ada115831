"""Forward returns: timing, missing closes, and the sentence that describes them."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.data import describe_label, forward_return
from nfi_pyro.data.labels import UNITS, relative_label, timeline
from nfi_pyro.errors import PanelError, SpecError

CLOSE = np.array([[10, 8], [11, np.nan], [12.1, 9], [6.05, 10], [9.075, 11], [10, 12], [11, 13.0]])


@pytest.fixture
def bars() -> xr.Dataset:
    dates = pd.bdate_range("2023-05-01", periods=7).to_numpy()
    return xr.Dataset({"close": (("date", "asset"), CLOSE)}, {"date": dates, "asset": ["A", "B"]})


def test_default_is_next_close_to_the_one_after(bars: xr.Dataset) -> None:
    label = forward_return(bars)
    assert label.dtype == np.float32
    np.testing.assert_allclose(label[:5, 0], [0.1, -0.5, 0.5, 10 / 9.075 - 1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(
        label[:5, 1], [np.nan, 10 / 9 - 1, 0.1, 12 / 11 - 1, 13 / 12 - 1], rtol=1e-6
    )
    assert label[5:].isnull().all()
    assert label.attrs["timing"] == (
        "from the close of t+1 to the close of t+2; known at the close of t+2"
    )


@pytest.mark.parametrize(("start_lag", "horizon"), [(0, 1), (1, 1), (2, 3), (0, 5)])
def test_lag_and_horizon_count_trading_days(bars: xr.Dataset, start_lag: int, horizon: int) -> None:
    label = forward_return(bars, start_lag=start_lag, horizon=horizon)
    want = CLOSE[start_lag + horizon] / CLOSE[start_lag] - 1
    np.testing.assert_allclose(label[0], want, rtol=1e-6)
    assert int(label[:, 0].notnull().sum()) == 7 - start_lag - horizon
    assert (label.attrs["start_lag"], label.attrs["horizon"]) == (start_lag, horizon)


def test_only_the_two_closes_matter(bars: xr.Dataset) -> None:
    other = bars.copy(deep=True)
    other["close"].values[[0, 1, 4, 5, 6]] = 77.0
    np.testing.assert_array_equal(forward_return(other)[1], forward_return(bars)[1])


def test_description_is_one_sentence(bars: xr.Dataset) -> None:
    assert describe_label(forward_return(bars).attrs) == (
        "simple return from the close of t+1 to the close of t+2, decimal, "
        "known at the close of t+2"
    )
    assert describe_label({"start_lag": 0, "horizon": 5, "unit": "rank"}) == (
        "cross-sectional rank of the simple return from the close of t to the close of t+5, "
        "known at the close of t+5"
    )
    with pytest.raises(SpecError, match="label attributes must have start_lag, horizon"):
        describe_label({"start_lag": 1, "horizon": 1, "unit": "basis points"})
    with pytest.raises(SpecError, match="label attributes must have"):
        describe_label({"start_lag": 1, "unit": "return"})


def test_bad_requests_are_refused(bars: xr.Dataset) -> None:
    with pytest.raises(SpecError, match="start_lag must be an integer >= 0; got -1"):
        forward_return(bars, start_lag=-1)
    with pytest.raises(SpecError, match="horizon must be an integer >= 1; got 0"):
        forward_return(bars, horizon=0)
    with pytest.raises(SpecError, match=r"horizon must be an integer >= 1; got 1\.5"):
        forward_return(bars, horizon=1.5)  # type: ignore[arg-type]
    with pytest.raises(PanelError, match=r"must outnumber start_lag \+ horizon = 7; got 7"):
        forward_return(bars, horizon=6)
    with pytest.raises(PanelError, match="must have dims date and asset and a variable close"):
        forward_return(bars.rename(close="open"))
    with pytest.raises(PanelError, match=r"got dims \('time', 'asset'\)"):
        forward_return(bars.rename(date="time"))


# ---- price fields -------------------------------------------------------------------------------

SEVEN = pd.bdate_range("2023-05-01", periods=7).to_numpy()
FIVE = ["A", "B", "C", "D", "E"]


@pytest.fixture
def market() -> xr.Dataset:
    """Seven dates of five assets with every field; B has gaps."""
    rng = np.random.default_rng(11)
    close = 10 * np.exp(np.cumsum(rng.normal(0, 0.05, (7, 5)), axis=0))
    close[2:4, 1] = np.nan
    fields = {
        "close": close,
        "open": close * np.exp(rng.normal(0, 0.01, (7, 5))),
        "amount": rng.uniform(1e5, 1e6, (7, 5)),
        "volume": rng.uniform(1e4, 1e5, (7, 5)),
    }
    return xr.Dataset(
        {name: (("date", "asset"), values) for name, values in fields.items()},
        {"date": SEVEN, "asset": FIVE},
    )


def test_an_entry_at_the_open_is_open_to_open(market: xr.Dataset) -> None:
    label = forward_return(market, 1, 3, price="open")
    opened = market["open"].values
    np.testing.assert_allclose(label[:3], opened[4:] / opened[1:4] - 1, rtol=1e-5, atol=1e-7)
    assert label.attrs["timing"] == (
        "from the open of t+1 to the open of t+4; known at the open of t+4"
    )
    assert describe_label(label.attrs) == (
        "simple return from the open of t+1 to the open of t+4, decimal, known at the open of t+4"
    )


def test_a_vwap_is_given_or_money_over_volume(market: xr.Dataset) -> None:
    market["volume"].values[2, 0] = 0
    derived = forward_return(market, price="vwap")
    vwap = market["amount"].values / np.where(market["volume"] > 0, market["volume"], np.nan)
    np.testing.assert_allclose(derived[:5], vwap[2:] / vwap[1:6] - 1, rtol=1e-6)
    assert np.isnan(derived[[0, 1], 0]).all()
    assert derived.attrs["vwap"] == "amount / volume"
    assert derived.attrs["timing"].endswith("known at the close of t+2")
    given = forward_return(market.assign(vwap=2 * market["close"]), price="vwap")
    np.testing.assert_allclose(given, forward_return(market), rtol=1e-6)
    assert given.attrs["vwap"] == "as given"
    with pytest.raises(PanelError, match="a variable vwap, or amount and volume; got dims"):
        forward_return(market.drop_vars("amount"), price="vwap")


@pytest.mark.parametrize("price", ["open", "vwap"])
def test_a_price_of_the_day_itself_is_no_entry(market: xr.Dataset, price: str) -> None:
    with pytest.raises(SpecError, match=f"start_lag must be >= 1 for the {price}; got 0"):
        forward_return(market, 0, price=price)


# ---- kinds --------------------------------------------------------------------------------------


def test_market_excess_is_less_the_benchmark_between_the_same_dates(market: xr.Dataset) -> None:
    index = pd.Series([100.0, 101, 103, 99, np.nan, 104, 105], SEVEN, name="CSI 300")
    label = forward_return(market, 1, 1, kind="market_excess", benchmark=index)
    raw = forward_return(market)
    earned = np.array([103 / 101, 99 / 103, np.nan, np.nan, 105 / 104]) - 1
    np.testing.assert_allclose(label[:5], raw[:5] - earned[:, None], rtol=1e-5, atol=1e-7)
    assert (label.attrs["unit"], label.attrs["benchmark"]) == ("excess", "CSI 300")
    assert describe_label(label.attrs) == (
        "simple return less that of CSI 300 from the close of t+1 to the close of t+2, decimal, "
        "known at the close of t+2"
    )
    array = xr.DataArray(index.to_numpy(), {"date": SEVEN}, ("date",), name="CSI 300")
    shuffled = index.iloc[[3, 1, 0, 2, 6, 5, 4]]
    for other in (array, shuffled):
        xr.testing.assert_identical(
            forward_return(market, kind="market_excess", benchmark=other), label
        )


def test_an_asset_may_be_the_benchmark(market: xr.Dataset) -> None:
    label = forward_return(market, price="open", kind="market_excess", benchmark="C")
    raw = forward_return(market, price="open")
    np.testing.assert_allclose(label, raw - raw.isel(asset=2), atol=1e-7)
    assert (label[:5, 2] == 0).all()
    listed = market.assign_coords(asset=["A", "B", "SH600000", "D", "E"])
    spelt = forward_return(listed, price="open", kind="market_excess", benchmark="600000.SH")
    np.testing.assert_array_equal(spelt, label)


def test_demeaned_labels_sum_to_zero_over_what_is_observed(market: xr.Dataset) -> None:
    label = forward_return(market, kind="demeaned")
    raw = forward_return(market)
    np.testing.assert_array_equal(np.isnan(label), np.isnan(raw))
    np.testing.assert_allclose(label, raw - raw.mean("asset"), atol=1e-7)
    np.testing.assert_allclose(label.sum("asset"), 0, atol=1e-7)
    assert label.attrs["unit"] == "excess"


@pytest.mark.parametrize("dated", [False, True])
def test_industry_excess_is_within_the_industry_of_the_date(
    market: xr.Dataset, dated: bool
) -> None:
    names = np.array(["bank", "coal", "bank", "coal", None], dtype=object)
    if dated:
        table = np.tile(names, (7, 1))
        table[1] = ["coal", "coal", "bank", "", "coal"]
        market["industry"] = (("date", "asset"), table)
    else:
        market["industry"] = (("asset",), names)
    label = forward_return(market, kind="industry_excess")
    raw = forward_return(market).values
    pair = raw[0, [0, 2]]
    np.testing.assert_allclose(label[0, [0, 2]], pair - pair.mean(), atol=1e-7)
    # Coal: B has no label on row 1, so D stands alone; E has no industry.
    assert np.isnan(label[0, [1, 3, 4]] if not dated else label[0, 4]).all()
    if dated:
        pair = raw[1, [0, 4]]  # B is missing on the date
        np.testing.assert_allclose(label[1, [0, 4]], pair - pair.mean(), atol=1e-7)
        assert np.isnan(label[1, [1, 2, 3]]).all()
    assert (label.attrs["unit"], label.attrs["kind"]) == ("excess", "industry_excess")


def test_no_industry_at_all_observes_nothing(market: xr.Dataset) -> None:
    market["industry"] = (("asset",), np.array([None] * 5, dtype=object))
    assert forward_return(market, kind="industry_excess").isnull().all()


def test_ranks_are_those_of_qlibs_csranknorm() -> None:
    rows = [[0.1, 0.3, np.nan, 0.3, -0.2], [0.1, np.nan, np.nan, np.nan, np.nan]]
    close = np.vstack([np.ones(5), 1 + np.array(rows[0]), np.ones(5)])
    bars = xr.Dataset({"close": (("date", "asset"), close)}, {"date": SEVEN[:3], "asset": FIVE})
    label = forward_return(bars, 0, 1, kind="rank")
    # Ranks 2, 3.5 (tie), none, 3.5, 1 of a count of 4.
    want = (np.array([2, 3.5, np.nan, 3.5, 1]) / 4 - 0.5) * 3.46
    np.testing.assert_allclose(label[0], want, rtol=1e-6)
    assert (label.attrs["unit"], label.name, label.dtype) == ("rank", "forward_return", np.float32)
    alone = bars.copy(deep=True)
    alone["close"].values[1] = 1 + np.array(rows[1])
    assert forward_return(alone, 0, 1, kind="rank").isnull().all()
    assert forward_return(alone, 0, 1, kind="demeaned").isnull().all()


@pytest.mark.parametrize("kind", ["market_excess", "demeaned", "rank", "industry_excess"])
def test_assets_may_come_in_any_order(market: xr.Dataset, kind: str) -> None:
    market["industry"] = (("asset",), np.array(["x", "y", "x", "y", "x"], dtype=object))
    benchmark = "D" if kind == "market_excess" else None
    order = [3, 0, 4, 2, 1]
    mixed = forward_return(market.isel(asset=order), kind=kind, benchmark=benchmark)
    straight = forward_return(market, kind=kind, benchmark=benchmark)
    np.testing.assert_allclose(mixed, straight.isel(asset=order), rtol=1e-6, atol=1e-7)


def test_a_masked_label_may_be_made_relative_afterwards(market: xr.Dataset) -> None:
    raw = forward_return(market)
    bad = raw.copy(deep=True)
    bad.values[0, 3] = 40.0
    cleaned = relative_label(bad.where(abs(bad) < 1), market, "demeaned")
    kept = raw.values[0, [0, 2, 4]]
    np.testing.assert_allclose(cleaned[0, [0, 2, 4]], kept - kept.mean(), atol=1e-6)
    assert np.isnan(cleaned[0, 3])
    assert relative_label(raw, market, "raw") is raw
    with pytest.raises(SpecError, match="must be in return units to become rank; got 'excess'"):
        relative_label(cleaned, market, "rank")
    with pytest.raises(SpecError, match="label attributes must have start_lag"):
        relative_label(raw.drop_attrs(), market, "rank")


def test_unknown_kinds_and_missing_benchmarks_are_refused(market: xr.Dataset) -> None:
    with pytest.raises(SpecError, match=r"kind of label must be one of .*; got 'zscore'"):
        forward_return(market, kind="zscore")
    with pytest.raises(SpecError, match=r"price must be one of .*; got 'twap'"):
        forward_return(market, price="twap")
    with pytest.raises(SpecError, match="got none for 'market_excess'"):
        forward_return(market, kind="market_excess")
    with pytest.raises(SpecError, match="got one for 'rank'"):
        forward_return(market, kind="rank", benchmark="A")
    with pytest.raises(PanelError, match="must be an asset of the bars; got 'SPX' among A, B"):
        forward_return(market, kind="market_excess", benchmark="SPX")
    with pytest.raises(PanelError, match="must have a variable industry of dims"):
        forward_return(market, kind="industry_excess")


def test_bad_benchmarks_are_refused(market: xr.Dataset) -> None:
    good = pd.Series(np.arange(1.0, 8.0), SEVEN)

    def ask(benchmark: pd.Series) -> None:
        forward_return(market, kind="market_excess", benchmark=benchmark)

    with pytest.raises(PanelError, match="prices <= 0 at 2023-05-01"):
        ask(good - 1)
    with pytest.raises(PanelError, match="one price > 0 a date; got repeated dates"):
        ask(pd.concat([good, good.iloc[:1]]))
    with pytest.raises(PanelError, match="must hold prices by date; got an index of int64"):
        ask(good.reset_index(drop=True))
    with pytest.raises(PanelError, match="got none in common"):
        ask(good.set_axis(pd.DatetimeIndex(SEVEN) + pd.Timedelta(days=365)))


# ---- words --------------------------------------------------------------------------------------


def test_a_timeline_shows_forecast_entry_and_exit(market: xr.Dataset) -> None:
    assert timeline(forward_return(market).attrs) == (
        "t             t+1           t+2\n"
        "|-------------|=============|\n"
        "close         close         close\n"
        "forecast      entry         exit, label known"
    )
    assert timeline({"start_lag": 0, "horizon": 5, "unit": "rank"}) == (
        "t                t+5\n"
        "|================|\n"
        "close            close\n"
        "forecast, entry  exit, label known"
    )
    assert timeline(forward_return(market, 2, 3, price="vwap").attrs).splitlines()[2] == (
        "close         vwap          vwap"
    )
    with pytest.raises(SpecError, match="label attributes must have start_lag"):
        timeline({"horizon": 1})


@pytest.mark.parametrize("price", ["close", "open", "vwap"])
@pytest.mark.parametrize("kind", ["raw", "market_excess", "demeaned", "rank", "industry_excess"])
def test_every_label_describes_itself(market: xr.Dataset, price: str, kind: str) -> None:
    market["industry"] = (("asset",), np.array(["x", "y", "x", "y", "x"], dtype=object))
    benchmark = "D" if kind == "market_excess" else None
    label = forward_return(market, price=price, kind=kind, benchmark=benchmark)
    attrs = label.attrs
    assert attrs["unit"] in UNITS
    assert (attrs["start_lag"], attrs["horizon"], attrs["price"], attrs["kind"]) == (
        1,
        1,
        price,
        kind,
    )
    words = describe_label(attrs)
    assert f"from the {price} of t+1 to the {price} of t+2" in words
    assert ("decimal" in words) == (kind != "rank")
    assert all(isinstance(value, str | int) for value in attrs.values())


def test_a_benchmark_of_another_type_is_refused(market: xr.Dataset) -> None:
    prices = pd.Series(1.5, index=pd.DatetimeIndex(market["date"].values))
    for given, error, message in (
        (5, SpecError, "a Series or a DataArray of prices by date; got int"),
        (prices.to_frame(), SpecError, "got DataFrame"),
        (prices.astype(str) + "x", PanelError, "benchmark must hold numbers"),
        (prices.tz_localize("UTC"), PanelError, "without a time zone; got UTC"),
    ):
        with pytest.raises(error, match=message):
            forward_return(market, kind="market_excess", benchmark=given)  # type: ignore[arg-type]
