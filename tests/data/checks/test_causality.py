"""The leakage audit: it sees what looks ahead, and nothing of ours does."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.data import alpha158, build_panel, forward_return
from nfi_pyro.data.checks.causality import audit_causality
from nfi_pyro.data.features.technical import ALPHA158
from nfi_pyro.data.market.masks import trading_masks
from nfi_pyro.data.market.universe import UniverseRules, tradable_universe
from nfi_pyro.data.training.column_statistics import ArrayBlocks
from nfi_pyro.data.training.transform_chain import TRANSFORMS, TransformChain
from nfi_pyro.errors import PanelError, SpecError

DATES, ASSETS = 101, 7
WARM = 63  # rows until every window of Alpha158 is full
TRAIN = 41  # training dates of the transforms


def bars_of(seed: int = 0, dates: int = DATES) -> xr.Dataset:
    """Random bars with suspended cells, a late and an early asset, and a plain static variable."""
    rng = np.random.default_rng(seed)
    shape = (dates, ASSETS)
    close = 20 * np.exp(np.cumsum(rng.normal(0, 0.02, shape), axis=0))
    opened = close * np.exp(rng.normal(0, 0.01, shape))
    high = np.maximum(opened, close) * (1 + rng.uniform(0, 0.02, shape))
    low = np.minimum(opened, close) * (1 - rng.uniform(0, 0.02, shape))
    volume = np.round(np.exp(rng.normal(9, 0.5, shape)))
    gaps = rng.uniform(size=shape) < 0.03
    gaps[: dates // 3, 5] = True
    gaps[-dates // 4 :, 6] = True
    fields = {"open": opened, "high": high, "low": low, "close": close, "volume": volume}
    fields["amount"] = volume * (high + low) / 2
    data = {name: (("date", "asset"), np.where(gaps, np.nan, v)) for name, v in fields.items()}
    return xr.Dataset(
        {**data, "board": ("asset", np.arange(ASSETS))},
        {
            "date": pd.bdate_range("2021-01-04", periods=dates).to_numpy(),
            "asset": [f"S{place}" for place in range(ASSETS)],
        },
    )


@pytest.fixture(scope="module")
def bars() -> xr.Dataset:
    return bars_of()


# --- the audit sees what looks ahead ---------------------------------------------------------


def backfilled(bars: xr.Dataset) -> xr.DataArray:
    return bars["close"].copy(data=pd.DataFrame(bars["close"].to_numpy()).bfill())


def standardised(bars: xr.Dataset) -> xr.DataArray:
    return (bars["close"] - bars["close"].mean("date")) / bars["close"].std("date")


def smoothed(bars: xr.Dataset) -> xr.DataArray:
    return bars["close"].rolling(date=5, center=True, min_periods=1).mean()


def survivors(bars: xr.Dataset) -> xr.DataArray:
    return bars["close"].isel(date=slice(None)).where(bars["close"].isel(date=-1).notnull())


def survivors_only(bars: xr.Dataset) -> xr.DataArray:
    return bars["close"].isel(asset=bars["close"].isel(date=-1).notnull().to_numpy())


def not_last(bars: xr.Dataset) -> xr.DataArray:
    return bars["close"].notnull() & (bars["date"] < bars["date"][-1])


def days_to_go(bars: xr.Dataset) -> xr.DataArray:
    return bars["close"] * (bars.sizes["date"] - xr.ones_like(bars["close"]).cumsum("date"))


def peak(bars: xr.Dataset) -> xr.DataArray:
    return bars["close"].max("date")  # no date: taken as known at all of them


def fitted_on_everything(bars: xr.Dataset) -> xr.DataArray:
    return transformed(bars, "robust_zscore", train=bars.sizes["date"])


@pytest.mark.parametrize(
    "leak",
    [
        backfilled,
        standardised,
        smoothed,
        survivors,
        survivors_only,
        not_last,
        days_to_go,
        peak,
        fitted_on_everything,
        forward_return,
        lambda bars: forward_return(bars, start_lag=0),
        lambda bars: bars["volume"].shift(date=-1),
    ],
)
def test_looking_ahead_is_seen(leak, bars) -> None:
    report = audit_causality(leak, bars, least_rows=TRAIN)
    assert not report.ok
    assert report.reacts
    assert report.count >= len(report.violations) > 0
    with pytest.raises(PanelError, match=r"must not depend on later rows; got \d+ values that do"):
        report.require()


@pytest.mark.parametrize(
    "causal",
    [
        lambda bars: bars["close"].rolling(date=5).mean(),
        lambda bars: bars["close"].copy(data=pd.DataFrame(bars["close"].to_numpy()).ffill()),
        lambda bars: bars["close"] - bars["close"].median("asset"),
        lambda bars: bars["close"].notnull().cumsum("date") > 5,
        lambda bars: bars[["close", "volume"]].shift(date=2),
        lambda bars: bars["volume"].sum("asset"),
        lambda bars: bars["close"].isel(date=slice(10, None)),
    ],
)
def test_looking_back_is_not(causal, bars) -> None:
    report = audit_causality(causal, bars)
    assert report.ok
    assert report.unmoved == ()
    assert len(report.violations) == 0
    report.require()


def test_a_look_ahead_of_one_day_is_found_where_it_is(bars) -> None:
    cut = bars["date"].to_numpy()[50]
    report = audit_causality(lambda b: b["close"].shift(date=-1), bars, dates=[cut])
    assert report.cuts == (cut,)
    rows = report.violations
    assert set(rows["date"]) == {pd.Timestamp(cut)}
    lost = rows[rows["future"] == "truncated"]
    tomorrow = bars["close"].isel(date=51)
    assert set(lost["asset"]) == set(bars["asset"].to_numpy()[tomorrow.notnull().to_numpy()])
    np.testing.assert_array_equal(lost["full"], tomorrow.sel(asset=lost["asset"].to_numpy()))
    assert lost["seen"].isna().all()
    changed = rows[rows["future"] == "corrupted"]
    assert 0 < len(changed) <= ASSETS
    first = f"close {lost['asset'].iloc[0]} {pd.Timestamp(cut).date()}"
    assert first in str(report)
    assert f"truncated after {pd.Timestamp(cut).date()}" in str(report)
    assert f"and {report.count - 5} more" in str(report)


def test_the_one_feature_that_leaks_is_named(bars) -> None:
    def some(bars: xr.Dataset) -> xr.DataArray:
        close = bars["close"]
        both = [close.rolling(date=3).mean(), close.shift(date=-2)]
        return xr.concat(both, "feature").assign_coords(feature=["mean", "ahead"]).rename("x")

    report = audit_causality(some, bars)
    assert report.variables == ("x[mean]", "x[ahead]")
    assert set(report.violations["label"]) == {"ahead"}
    assert "x[ahead] S0" in str(report)


def test_what_ignores_the_bars_is_no_pass(bars) -> None:
    fixed = xr.ones_like(bars["close"]).rename("fixed")
    report = audit_causality(lambda b: fixed.sel(date=b["date"]), bars)
    assert (report.count, report.reacts, report.ok) == (0, False, False)
    with pytest.raises(PanelError, match="must depend on the bars; got no change in fixed"):
        report.require()
    half = audit_causality(
        lambda b: xr.Dataset({"fixed": fixed.sel(date=b["date"]), "close": b["close"]}), bars
    )
    assert half.ok
    assert half.unmoved == ("fixed",)
    assert "did not react to the bars: fixed" in str(half)


def test_the_tolerance_is_relative_above_one(bars) -> None:
    def nearly(bars: xr.Dataset) -> xr.DataArray:
        return bars["close"] * (1 + 1e-8 * bars.sizes["date"])  # up to 1e-6 of about 20

    assert audit_causality(nearly, bars).count > 0
    assert audit_causality(nearly, bars, tolerance=1e-7).count > 0
    assert audit_causality(nearly, bars, tolerance=1e-6).ok
    small = audit_causality(lambda b: nearly(b) / 2000, bars, tolerance=2e-8)
    assert small.ok  # up to 1e-6 of about 0.01: below 1 the absolute difference counts
    # an infinity against a number is no rounding
    infinite = audit_causality(
        lambda b: b["close"].where(b.sizes["date"] < DATES, np.inf), bars, tolerance=1e-6
    )
    assert infinite.count > 0


def test_the_bars_are_left_alone_and_the_audit_repeats(bars) -> None:
    before = bars.copy(deep=True)

    def writes(bars: xr.Dataset) -> xr.DataArray:
        bars["close"][:] = bars["close"] * 2
        return bars["close"].shift(date=-1)

    one = audit_causality(writes, bars, seed=3)
    xr.testing.assert_identical(bars, before)
    two = audit_causality(writes, bars, seed=3)
    pd.testing.assert_frame_equal(one.violations, two.violations)
    assert str(one) == str(two)


def test_cuts_are_spread_between_the_least_rows_and_the_end(bars) -> None:
    dates = bars["date"].to_numpy()
    report = audit_causality(lambda b: b["close"], bars, dates=3, least_rows=20)
    assert report.cuts == (dates[19], dates[59], dates[99])
    assert str(report).startswith("causal: 1 variables at 3 cuts from 2021-01-29 to 2021-05-21")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seed": -1}, SpecError, "seed and tolerance must be >= 0"),
        ({"tolerance": -0.1}, SpecError, "seed and tolerance must be >= 0"),
        ({"least_rows": 0}, SpecError, "least_rows >= 1; got 0, 0.0 and 0"),
        ({"least_rows": DATES}, PanelError, "more dates than least_rows = 101; got 101"),
        ({"seed": 1.5}, SpecError, "seed and least_rows are integers"),
        ({"tolerance": float("nan")}, SpecError, "seed and tolerance must be >= 0"),
        ({"dates": ["soon"]}, SpecError, r"a number of cuts or dates of the bars; got \['soon'\]"),
        ({"dates": 5.5}, SpecError, "a number of cuts or dates of the bars; got 5.5"),
        ({"dates": 0}, SpecError, "at least 1 cut; got 0"),
        ({"dates": ["2021-01-02"]}, PanelError, r"cut dates must be .*got others at 2021-01-02"),
        ({"dates": ["2021-05-24"]}, PanelError, r"cut dates must be .*got others at 2021-05-24"),
        ({"dates": []}, PanelError, "cut dates must be"),
    ],
)
def test_options_out_of_range_are_refused(options, error, message, bars) -> None:
    with pytest.raises(error, match=message):
        audit_causality(lambda b: b["close"], bars, **options)


def test_what_cannot_be_audited_is_refused(bars) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(SpecError, match="must give the same values for the same bars; got others"):
        audit_causality(lambda b: b["close"] * rng.random(), bars)
    with pytest.raises(SpecError, match=r"DataArray or Dataset of numbers .* got ndarray"):
        audit_causality(lambda b: b["close"].to_numpy(), bars)  # type: ignore[arg-type, return-value]
    with pytest.raises(SpecError, match="got DataArray, wrong at close"):
        audit_causality(lambda b: b["close"].astype(str), bars)
    with pytest.raises(SpecError, match="labels on the dim date; got DataArray, wrong at close"):
        audit_causality(lambda b: b["close"].drop_vars("date"), bars)
    with pytest.raises(PanelError, match="bars must have the dim date with its labels"):
        audit_causality(lambda b: b["close"], bars.drop_vars("date"))
    with pytest.raises(PanelError, match="the dim date with its labels; got DataFrame"):
        audit_causality(lambda b: b["close"], pd.DataFrame())  # type: ignore[arg-type]


# --- nothing of ours does; a new feature, transform or mask is covered by being registered ----


@pytest.mark.parametrize("compat", [None, "qlib"])
def test_every_feature_is_causal(compat, bars) -> None:
    report = audit_causality(lambda b: alpha158(b, compat=compat), bars, least_rows=WARM)
    report.require()
    assert report.variables == tuple(f"features[{name}]" for name in ALPHA158)
    assert report.unmoved == ()


@pytest.mark.parametrize(
    "late",
    [
        ("open",),
        ("high", "low"),
        ("amount",),
        ("volume", "amount"),
        ("vwap",),
    ],
)
def test_a_field_that_arrives_later_changes_no_earlier_feature(late, bars) -> None:
    bars = bars.copy(deep=True)
    if "vwap" in late:
        bars["vwap"] = bars["close"] * 1.001
    for name in late:
        bars[name][:80] = np.nan
    report = audit_causality(alpha158, bars, least_rows=WARM)
    assert report.ok, str(report)


def transformed(bars: xr.Dataset, name: str, train: int = TRAIN) -> xr.DataArray:
    """Return three features after a transform that is fitted on the first dates."""
    raw = alpha158(bars, subset=["KMID", "ROC5", "VMA5"], compat="qlib")
    mask = np.isfinite(raw.to_numpy()).all(axis=2)
    names = [str(feature) for feature in raw["feature"].to_numpy()]
    values = raw.to_numpy()
    values[7::13, 3, 0] = np.inf  # what process_inf is for
    blocks = ArrayBlocks(values[:train], mask[:train], 13)
    return raw.copy(data=TransformChain.fit([name], blocks, names).apply(values, mask))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_is_causal(name, bars) -> None:
    report = audit_causality(lambda b: transformed(b, name), bars, least_rows=TRAIN)
    report.require()
    assert report.unmoved == ()


def exchange_bars(*, factor: bool) -> xr.Dataset:
    """Return bars of A-shares with flags, special treatment and closes at the limits."""
    rng = np.random.default_rng(5)
    symbols = ["SH600000", "SH688001", "SZ000002", "SZ300003", "SZ000004", "SH600005", "BJ830006"]
    bars = bars_of(seed=5).assign_coords(asset=symbols)
    shape = (DATES, ASSETS)
    bars["st"] = ("date", "asset"), np.repeat(np.arange(ASSETS) == 4, DATES).reshape(shape[::-1]).T
    bars["suspended"] = ("date", "asset"), rng.random(shape) < 0.03
    bars["universe"] = ("date", "asset"), rng.random(shape) < 0.9
    raw = np.round(bars["close"].to_numpy(), 2)
    for date, asset in rng.integers((1, 0), shape, size=(90, 2)):  # a day at one price limit
        share = 0.05 if asset == 4 else 0.2 if asset in (1, 3) else 0.3 if asset == 6 else 0.1
        up = 1 + share * rng.choice([-1, 1])
        raw[date, asset] = np.floor(raw[date - 1, asset] * up * 100 + 0.5) / 100
        for name in ("open", "high", "low"):
            bars[name][date, asset] = raw[date, asset]
    bars["close"] = ("date", "asset"), raw
    if factor:
        bars["factor"] = xr.ones_like(bars["close"])
    return bars


@pytest.mark.parametrize("factor", [True, False])
@pytest.mark.parametrize("prices", ["adjusted", "raw"])
def test_every_trading_mask_is_causal(factor, prices) -> None:
    bars = exchange_bars(factor=factor)
    masks = trading_masks(bars, prices=prices)
    for name, mask in masks.items():
        assert 0 < int(mask.sum()) < mask.size, f"{name} needs cells of both kinds to be audited"
    report = audit_causality(lambda b: trading_masks(b, prices=prices), bars, least_rows=TRAIN)
    report.require()
    assert set(report.variables) == set(masks.data_vars)
    assert report.unmoved == ()


@pytest.mark.parametrize(
    "rules",
    [
        UniverseRules(),
        UniverseRules(min_age=11),
        UniverseRules(min_amount=1e5, liquidity_window=7),
        UniverseRules(exclude_st=True, exclude_limits=True),
    ],
)
def test_every_universe_is_causal(rules) -> None:
    bars = exchange_bars(factor=True)
    report = audit_causality(lambda b: tradable_universe(b, rules)[0], bars, least_rows=TRAIN)
    report.require()
    assert "tradable" in report.variables
    assert report.unmoved == ()


@pytest.mark.parametrize(("compat", "missing"), [(None, "exclude"), ("qlib", "median")])
def test_features_and_universe_of_a_panel_are_causal(compat, missing) -> None:
    bars = exchange_bars(factor=False)

    def known(bars: xr.Dataset) -> xr.Dataset:
        panel = build_panel(
            bars, features=["KMID", "ROC5", "CORR10", "VMA20"], compat=compat, missing=missing
        )
        return panel.drop_vars("forward_return")

    report = audit_causality(known, bars, least_rows=TRAIN)
    report.require()
    assert report.unmoved == ()
    leak = audit_causality(
        lambda b: build_panel(b, features=["KMID", "ROC5"])["forward_return"],
        bars,
        least_rows=TRAIN,
    )
    assert leak.count > 0
