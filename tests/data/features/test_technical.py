"""Alpha158 against an independent pandas oracle, golden values, and causality."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.data import alpha158, embedded_prices, read_prices
from nfi_pyro.data.features.technical import ALPHA158, ALPHA158_20, FeatureTable, lookback
from nfi_pyro.errors import PanelError, SpecError

WINDOWS = (5, 10, 20, 30, 60)
EPS = 1e-12
DATES, ASSETS = 139, 7


def gappy_bars(seed: int = 3) -> xr.Dataset:
    """Random bars with suspended rows, zero volume, a constant price, a late and an early asset."""
    rng = np.random.default_rng(seed)
    close = 20 * np.exp(np.cumsum(rng.normal(0, 0.02, (DATES, ASSETS)), axis=0))
    opened = close * np.exp(rng.normal(0, 0.01, close.shape))
    high = np.maximum(opened, close) * (1 + rng.uniform(0, 0.02, close.shape))
    low = np.minimum(opened, close) * (1 - rng.uniform(0, 0.02, close.shape))
    volume = np.round(np.exp(rng.normal(9, 0.5, close.shape)))
    close[:, 1], opened[:, 1], high[:, 1], low[:, 1] = 7.0, 7.0, 7.0, 7.0
    close[40:53, 2] = close[39, 2]
    volume[61:66, 3] = 0.0
    gaps = rng.uniform(size=close.shape) < 0.07
    gaps[0] = False
    gaps[80:91, 4] = True
    gaps[:31, 5] = True
    gaps[101:, 6] = True
    fields = {"open": opened, "high": high, "low": low, "close": close, "volume": volume}
    fields["amount"] = volume * (high + low) / 2
    data = {k: (("date", "asset"), np.where(gaps, np.nan, v)) for k, v in fields.items()}
    dates = pd.bdate_range("2021-01-04", periods=DATES).to_numpy()
    return xr.Dataset(data, {"date": dates, "asset": [f"S{i}" for i in range(ASSETS)]})


def _fit(values: np.ndarray, what: str) -> float:
    """Line through positions of a window, by numpy.polyfit."""
    known = ~np.isnan(values)
    if known.sum() < 2:
        return np.nan
    x, y = np.arange(1.0, len(values) + 1)[known], values[known]
    slope, intercept = np.polyfit(x, y, 1)
    if what == "slope":
        return slope
    if what == "resi":
        return values[-1] - (slope * len(values) + intercept)
    return np.corrcoef(x, y)[0, 1] ** 2 if y.std() > 0 else np.nan


def oracle(bars: xr.Dataset, asset: str, kind: type = np.float64) -> pd.DataFrame:
    """Return the 158 formulas of one asset, written with pandas from its first valid close on.

    qlib computes with float32 (`kind`) what enters the windows of CORR, CORD and WVMA.
    """
    frame = bars.sel(asset=asset).to_pandas().drop(columns="asset", errors="ignore")
    frame = frame.loc[frame["close"].first_valid_index() :]
    c, o, h, low, v = (frame[k] for k in ("close", "open", "high", "low", "volume"))
    w = frame["amount"] / v
    top, bottom = np.maximum(o, c), np.minimum(o, c)
    out = {
        "KMID": (c - o) / o,
        "KLEN": (h - low) / o,
        "KMID2": (c - o) / (h - low + EPS),
        "KUP": (h - top) / o,
        "KUP2": (h - top) / (h - low + EPS),
        "KLOW": (bottom - low) / o,
        "KLOW2": (bottom - low) / (h - low + EPS),
        "KSFT": (2 * c - h - low) / o,
        "KSFT2": (2 * c - h - low) / (h - low + EPS),
        "OPEN0": o / c,
        "HIGH0": h / c,
        "LOW0": low / c,
        "VWAP0": w / c,
    }
    c1 = c.shift(1)
    close, volume = c.astype(kind), v.astype(kind)
    ratio = close / close.shift(1)
    volume_ratio = np.log((volume / volume.shift(1)).replace(np.inf, np.nan) + 1)
    move = (ratio - 1).abs() * volume
    for d in WINDOWS:

        def roll(series: pd.Series, d: int = d):
            return series.rolling(d, min_periods=1)

        def line(what: str, d: int = d) -> pd.Series:
            fits = c.rolling(d, min_periods=1).apply(lambda a: _fit(a, what), raw=True)
            if what == "rsqr":
                fits[c.rolling(d, min_periods=1).std() <= 2e-5] = np.nan
            return fits if what != "resi" else fits.where(c.notna())

        def corr(a: pd.Series, b: pd.Series, d: int = d) -> pd.Series:
            a, b = a.astype(float), b.astype(float)
            r = roll(a, d).corr(b)
            r[(roll(a, d).std() <= 2e-5) | (roll(b, d).std() <= 2e-5)] = np.nan
            return r

        def swing(x: pd.Series, name: str) -> dict[str, pd.Series]:
            change = x - x.shift(1)
            total = roll(change.abs()).sum() + EPS
            up, down = roll(change.clip(lower=0)).sum(), roll((-change).clip(lower=0)).sum()
            return {
                f"{name}P": up / total,
                f"{name}N": down / total,
                f"{name}D": (up - down) / total,
            }

        imax = roll(h).apply(lambda a: a.argmax() + 1, raw=True)
        imin = roll(low).apply(lambda a: a.argmin() + 1, raw=True)
        up, down = roll((c > c1).astype(float)).mean(), roll((c < c1).astype(float)).mean()
        lowest, highest = roll(low).min(), roll(h).max()
        now = {
            "ROC": c.shift(d) / c,
            "MA": roll(c).mean() / c,
            "STD": roll(c).std() / c,
            "BETA": line("slope") / c,
            "RSQR": line("rsqr"),
            "RESI": line("resi") / c,
            "MAX": highest / c,
            "MIN": lowest / c,
            "QTLU": roll(c).quantile(0.8) / c,
            "QTLD": roll(c).quantile(0.2) / c,
            "RANK": roll(c).rank(pct=True),
            "RSV": (c - lowest) / (highest - lowest + EPS),
            "IMAX": imax / d,
            "IMIN": imin / d,
            "IMXD": (imax - imin) / d,
            "CORR": corr(c, pd.Series(np.log(volume + 1))),
            "CORD": corr(ratio, volume_ratio),
            "CNTP": up,
            "CNTN": down,
            "CNTD": up - down,
            **swing(c, "SUM"),
            "VMA": roll(v).mean() / (v + EPS),
            "VSTD": roll(v).std() / (v + EPS),
            "WVMA": roll(move).std() / (roll(move).mean() + EPS),
            **swing(v, "VSUM"),
        }
        out |= {f"{name}{d}": value for name, value in now.items()}
    return pd.DataFrame(out)


@pytest.fixture(scope="module")
def bars() -> xr.Dataset:
    return gappy_bars()


def expected(bars: xr.Dataset, kind: type) -> np.ndarray:
    """Return the oracle's features, shape (date, asset, feature)."""
    days, names = bars.date.to_index(), list(ALPHA158)
    tables = [oracle(bars, asset, kind) for asset in bars.asset.to_numpy()]
    return np.stack([table.reindex(index=days, columns=names) for table in tables], axis=1)


def test_every_formula_equals_pandas_with_qlib_windows(bars: xr.Dataset) -> None:
    got = alpha158(bars, compat="qlib")
    want = expected(bars, np.float32)
    assert got.dtype == np.float32
    assert got.sizes == {"date": DATES, "asset": ASSETS, "feature": 158}
    for place, name in enumerate(ALPHA158):
        np.testing.assert_allclose(
            got.values[..., place], want[..., place], rtol=1e-5, atol=2e-6, err_msg=name
        )


def test_default_equals_pandas_where_the_window_is_warm_and_is_nan_before(
    bars: xr.Dataset,
) -> None:
    got = alpha158(bars)
    full = expected(bars, np.float64)
    first = bars["close"].notnull().values.argmax(axis=0)
    age = np.arange(DATES)[:, None] - first + 1
    for place, name in enumerate(ALPHA158):
        want = np.where(age >= lookback(name), full[..., place], np.nan)
        np.testing.assert_allclose(got.values[..., place], want, rtol=1e-5, atol=2e-6, err_msg=name)


def test_look_back_is_the_window_and_one_row_more_for_changes() -> None:
    assert (lookback("KMID"), lookback("MA60"), lookback("ROC60"), lookback("CORD60")) == (
        1,
        60,
        61,
        61,
    )
    with pytest.raises(SpecError, match="must be one of Alpha158; got 'MA7'"):
        lookback("MA7")


def test_names_and_order_are_native() -> None:
    operators = (
        "ROC MA STD BETA RSQR RESI MAX MIN QTLU QTLD RANK RSV IMAX IMIN IMXD CORR CORD CNTP CNTN "
        "CNTD SUMP SUMN SUMD VMA VSTD WVMA VSUMP VSUMN VSUMD"
    )
    bar = "KMID KLEN KMID2 KUP KUP2 KLOW KLOW2 KSFT KSFT2 OPEN0 HIGH0 LOW0 VWAP0"
    names = bar.split() + [f"{name}{d}" for name in operators.split() for d in WINDOWS]
    assert list(ALPHA158) == names
    assert len(set(ALPHA158)) == 158
    assert [name for name in ALPHA158 if name in ALPHA158_20] == list(ALPHA158_20)
    assert len(ALPHA158_20) == 20


def test_the_future_changes_nothing_and_the_past_does(bars: xr.Dataset) -> None:
    now = 97
    want = alpha158(bars)
    changed = bars.copy(deep=True)
    for name in changed.data_vars:
        changed[name].values[now + 1 :] *= 3.7
    got = alpha158(changed)
    np.testing.assert_array_equal(got.values[: now + 1], want.values[: now + 1])
    assert not np.array_equal(got.values[now + 1 :], want.values[now + 1 :], equal_nan=True)
    shorter = alpha158(bars.isel(date=slice(0, now + 1)))
    np.testing.assert_allclose(shorter.values, want.values[: now + 1], rtol=1e-6, atol=1e-7)
    for name in changed.data_vars:
        changed[name].values[:] = bars[name].values
    changed["close"].values[now - 3, 0] *= 1.1
    moved = alpha158(changed).values[now, 0] != want.values[now, 0]
    assert moved.sum() > 50


@pytest.mark.parametrize("compat", [None, "qlib"])
@pytest.mark.parametrize("cells", [2 * DATES, 16_384])
def test_any_rows_have_the_bits_of_the_whole(
    bars: xr.Dataset, compat: str | None, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = FeatureTable(bars, compat=compat)
    assert table.names == ALPHA158
    assert table.shape == (DATES, ASSETS, 158)
    assert table.attributes == alpha158(bars, compat=compat).attrs
    want = table.compute(0, DATES)
    np.testing.assert_array_equal(alpha158(bars, compat=compat), want)
    monkeypatch.setattr("nfi_pyro.data.features.technical._BLOCK_CELLS", cells)
    for start, stop in [(0, 1), (0, 61), (1, 2), (37, 101), (60, 62), (83, 83), (138, DATES)]:
        part = table.compute(start, stop)
        assert part.dtype == np.float32
        assert part.tobytes() == want[start:stop].tobytes(), (start, stop)
    monkeypatch.setattr("nfi_pyro.data.features.technical._BLOCK_ROWS", 17)
    assert table.compute(0, DATES).tobytes() == want.tobytes()


def test_rows_of_a_few_features_look_back_no_further_than_they_need(bars: xr.Dataset) -> None:
    names = ["ROC5", "KLEN"]
    table = FeatureTable(bars, subset=names)
    assert table.lookbacks == {"KLEN": 1, "ROC5": 6}
    far = bars.copy(deep=True)
    for name in far.data_vars:
        far[name].values[1 : 70 - 5] = np.nan  # the first valid close stays where it is
    np.testing.assert_array_equal(
        FeatureTable(far, subset=names).compute(70, 97), table.compute(70, 97)
    )


def test_own_factors_pass_through_behind_the_features(bars: xr.Dataset) -> None:
    rng = np.random.default_rng(11)
    own = bars.assign(
        pe=(("asset", "date"), rng.normal(20, 3, (ASSETS, DATES))),
        rating=(("date", "asset"), rng.integers(1, 9, (DATES, ASSETS))),
        sector=("asset", [f"G{i}" for i in range(ASSETS)]),
    )
    own["pe"][2, 5] = np.nan
    got = alpha158(own, subset=["rating", "STD5", "pe", "KLEN", "pe"])
    assert list(got.feature.values) == ["KLEN", "STD5", "rating", "pe"]
    np.testing.assert_array_equal(got.sel(feature="pe"), own["pe"].T.astype(np.float32))
    np.testing.assert_array_equal(got.sel(feature="rating"), own["rating"])
    np.testing.assert_array_equal(got[..., :2], alpha158(bars, subset=["STD5", "KLEN"]))
    table = FeatureTable(own, subset=["pe"])
    assert table.lookbacks == {"pe": 1}
    np.testing.assert_array_equal(table.compute(3, 5)[..., 0], own["pe"].T[3:5].astype(np.float32))
    with pytest.raises(SpecError, match="of the bars; got close, sector"):
        alpha158(own, subset=["pe", "sector", "close"])


def test_assets_do_not_see_each_other(bars: xr.Dataset) -> None:
    alone = alpha158(bars.isel(asset=[3, 0]))
    np.testing.assert_allclose(alone.values, alpha158(bars).values[:, [3, 0]], rtol=1e-6, atol=1e-7)


def test_many_blocks_give_what_one_block_gives(
    bars: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = alpha158(bars)
    monkeypatch.setattr("nfi_pyro.data.features.technical._BLOCK_CELLS", 2 * DATES)
    np.testing.assert_allclose(alpha158(bars).values, want.values, rtol=1e-6, atol=1e-7)


def test_subset_keeps_native_order_and_dims_may_come_turned(bars: xr.Dataset) -> None:
    got = alpha158(bars.transpose("asset", "date"), subset=["WVMA5", "KLEN", "RSQR60"])
    assert got.dims == ("date", "asset", "feature")
    assert list(got.feature.values) == ["KLEN", "RSQR60", "WVMA5"]
    np.testing.assert_array_equal(got, alpha158(bars).sel(feature=["KLEN", "RSQR60", "WVMA5"]))
    assert list(alpha158(bars, "alpha158_20").feature.values) == list(ALPHA158_20)


def test_close_alone_gives_what_it_can_and_names_the_rest(bars: xr.Dataset) -> None:
    close = bars[["close"]]
    got = alpha158(close)
    reasons = json.loads(got.attrs["features_unavailable"])
    assert got.sizes["feature"] + len(reasons) == 158
    assert got.sizes["feature"] == 75
    assert reasons["RSV5"] == "needs high and low, which the bars do not have"
    np.testing.assert_array_equal(got, alpha158(bars).sel(feature=got.feature))
    assert list(alpha158(close, "alpha158_20").feature.values) == (
        ["ROC60", "STD5", "RSQR5", "RSQR10", "RSQR20", "RSQR60", "RESI5", "RESI10"]
    )
    with pytest.raises(PanelError, match="must be computable; got KLEN needs open and high"):
        alpha158(close, subset=["KLEN", "MA5"])


def test_vwap_without_amount_is_the_typical_price_and_says_so(bars: xr.Dataset) -> None:
    got = alpha158(bars.drop_vars("amount"), subset=["VWAP0"])
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3 / bars["close"]
    np.testing.assert_allclose(got.values[..., 0], typical, rtol=1e-6)
    assert got.attrs["vwap"].startswith("typical price")
    assert alpha158(bars, subset=["VWAP0"]).attrs["vwap"] == "amount / volume"


def test_a_given_vwap_is_used_before_any_other(bars: xr.Dataset) -> None:
    own = bars.assign(vwap=bars["close"] * 1.25)
    own["vwap"][7, 2] = np.nan
    got = alpha158(own, subset=["VWAP0"])
    assert got.attrs["vwap"] == "given"
    np.testing.assert_array_equal(got[..., 0], (own["vwap"] / own["close"]).astype(np.float32))
    nothing = bars.assign(vwap=bars["close"] * np.nan)
    assert alpha158(nothing, subset=["VWAP0"]).attrs["vwap"] == "amount / volume"


def test_volume_in_lots_beside_an_amount_in_money_is_refused(bars: xr.Dataset) -> None:
    lots = bars.assign(amount=bars["amount"] * 100)
    with pytest.raises(PanelError, match=r"volume counts lots of 100 shares\. Name the vendor"):
        alpha158(lots)
    assert "VWAP0" in FeatureTable(bars.assign(amount=bars["amount"] * 30)).names
    assert FeatureTable(lots, subset=["KLEN"]).names == ("KLEN",)


def test_bad_requests_are_refused(bars: xr.Dataset) -> None:
    with pytest.raises(SpecError, match="compat must be None or 'qlib'; got 'pandas'"):
        alpha158(bars, compat="pandas")
    with pytest.raises(SpecError, match=r"or of other numeric .* of the bars; got MA7"):
        alpha158(bars, subset=["MA7"])
    with pytest.raises(SpecError, match="of the bars; got none"):
        alpha158(bars, subset=[])
    with pytest.raises(SpecError, match="subset must be None, 'alpha158_20' or a list"):
        alpha158(bars, subset="KLEN")
    for start, stop in [(-1, 3), (5, 4), (0, DATES + 1)]:
        with pytest.raises(SpecError, match=f"rows must lie within 0..139; got start {start} and"):
            FeatureTable(bars).compute(start, stop)
    with pytest.raises(PanelError, match="bars must have dims date and asset"):
        alpha158(bars[["open"]])
    with pytest.raises(PanelError, match=r"got dims \('time', 'asset'\) and variables"):
        alpha158(bars.rename(date="time"))


def test_embedded_prices_allow_the_close_features() -> None:
    pytest.importorskip("skfolio")
    prices = embedded_prices()
    assert dict(prices.sizes) == {"date": 8313, "asset": 20}
    assert "survivorship" in prices.attrs["survivorship"]
    assert list(prices.data_vars) == ["close"]
    got = alpha158(prices.isel(date=slice(0, 211)), subset=["MA5", "CNTD60"])
    assert np.isfinite(got.values[61:]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("file", "assets"), [("ashare_daily", 2126), ("sp500_daily", 493)])
def test_market_files_give_the_oracle_values(
    file: str, assets: int, market_file: Callable[[str], Path]
) -> None:
    path = market_file(f"{file}.parquet")
    prices = read_prices(path)
    assert prices.sizes["asset"] == assets
    got = alpha158(prices, compat="qlib").sel(asset=prices.asset[11])
    bars = prices.isel(asset=[11])
    bars["amount"] = bars["volume"] * (bars["high"] + bars["low"] + bars["close"]) / 3
    want = oracle(bars, str(bars.asset.values[0]), np.float32).reindex(bars.date.to_index())
    np.testing.assert_allclose(got.values, want[list(ALPHA158)], rtol=2e-5, atol=1e-5)
