"""Barra styles: oracles by asset, identities of standardising, causality, what is missing."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.data import BARRA_STYLES, DropLedger, audit_causality, barra_styles, read_prices
from nfi_pyro.data.features.style_descriptors import compute_descriptors, window_sum
from nfi_pyro.data.features.style_inputs import StyleInputs, check_inputs
from nfi_pyro.data.features.style_scores import combine, cut_off, free_of, standardise
from nfi_pyro.data.features.styles import DESCRIPTOR_WEIGHTS
from nfi_pyro.errors import PanelError, ShapeError, SpecError

DATES, ASSETS = 547, 13
ROWS = (125, 126, 251, 252, 273, 274, 409, 525, 526, 546)
SIX = list(BARRA_STYLES[:6])


def make_bars(seed: int = 5, n_dates: int = DATES, n_assets: int = ASSETS) -> xr.Dataset:
    """Bars of one market with suspensions, a late, a short-lived and a still asset, and a crash."""
    rng = np.random.default_rng(seed)
    market = rng.normal(0.0003, 0.01, n_dates)
    beta, noise = rng.uniform(0.3, 1.7, n_assets), rng.uniform(0.005, 0.03, n_assets)
    moves = market[:, None] * beta + noise * rng.normal(size=(n_dates, n_assets))
    moves[:, 1] = 0.0
    moves[300:330, 2] -= 0.05  # loses more than 1 in logs
    close = 10.0 * np.exp(np.cumsum(moves, axis=0))
    shares = np.exp(rng.normal(20.0, 1.0, n_assets))
    volume = shares * np.exp(rng.normal(-4.0, 0.5, close.shape))
    volume[:, 3] *= rng.random(n_dates) < 0.9
    gaps = rng.random(close.shape) < 0.03
    gaps[400:423, 4] = True
    gaps[:211, 5] = True
    gaps[480:, 6] = True
    gaps[0] |= np.arange(n_assets) == 7
    fields = {
        "close": close,
        "volume": volume,
        "float_shares": np.broadcast_to(0.7 * shares, close.shape),
        "market_cap": close * shares,
    }
    data = {k: (("date", "asset"), np.where(gaps, np.nan, v)) for k, v in fields.items()}
    dates = pd.bdate_range("2019-01-02", periods=n_dates).to_numpy()
    return xr.Dataset(data, {"date": dates, "asset": [f"S{i:02d}" for i in range(n_assets)]})


def closes(values: np.ndarray) -> xr.Dataset:
    """Return bars of closes alone."""
    n_dates, n_assets = values.shape
    dates = pd.bdate_range("2019-01-02", periods=n_dates).to_numpy()
    coords = {"date": dates, "asset": [f"S{i:02d}" for i in range(n_assets)]}
    return xr.Dataset({"close": (("date", "asset"), values)}, coords)


@pytest.fixture(scope="module")
def bars() -> xr.Dataset:
    return make_bars()


@pytest.fixture(scope="module")
def risk_free(bars: xr.Dataset) -> xr.DataArray:
    rate = 0.0001 + 0.00003 * np.sin(np.arange(DATES))
    return xr.DataArray(rate, {"date": bars["date"]}, ("date",))


@pytest.fixture(scope="module")
def inputs(bars: xr.Dataset, risk_free: xr.DataArray) -> StyleInputs:
    return inputs_of(bars, risk_free=risk_free)


@pytest.fixture(scope="module")
def styles(bars: xr.Dataset, risk_free: xr.DataArray) -> xr.Dataset:
    return barra_styles(bars, risk_free=risk_free)


def inputs_of(bars: xr.Dataset, **given: object) -> StyleInputs:
    names = ("market_cap", "float_shares", "turnover", "risk_free", "universe")
    options = dict.fromkeys(names) | {"min_periods": 0.5} | given
    return check_inputs(bars, **options)  # type: ignore[arg-type]


def frame(array: xr.DataArray) -> pd.DataFrame:
    return pd.DataFrame(array.values, array.indexes["date"], array.indexes["asset"])


def ledger_of(found: xr.Dataset) -> dict[str, int]:
    return {f.rule: f.count for f in DropLedger.from_json(found.attrs["ledger"]).findings}


# ---- descriptors ---------------------------------------------------------------------------------


def weighted(values: pd.Series, half_life: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the known values of a window and their weights, normalised, the last row newest."""
    age = np.arange(len(values))[::-1]
    known = values.notna().to_numpy()
    weights = 0.5 ** (age[known] / half_life)
    return values.to_numpy()[known], weights / weights.sum()


def excess_market(bars: xr.Dataset, risk_free: xr.DataArray) -> pd.Series:
    close, caps = frame(bars["close"]), frame(bars["market_cap"])
    excess = close.pct_change(fill_method=None).sub(
        pd.Series(risk_free.values, close.index), axis=0
    )
    before = caps.shift(1).where(excess.notna())
    return (before * excess).sum(axis=1, min_count=1) / before.sum(axis=1, min_count=1)


def oracle(bars: xr.Dataset, risk_free: xr.DataArray, asset: str, row: int) -> dict[str, float]:
    """Return the descriptors of one asset on one row, window by window."""
    one = bars.sel(asset=asset).to_dataframe()
    rate = pd.Series(risk_free.values, one.index)
    market = excess_market(bars, risk_free)
    returns = one["close"].pct_change(fill_method=None) - rate
    price = one["close"] / (1.0 + rate).cumprod()  # in units of what a bank account became
    moves = price.ffill().map(np.log).diff()
    since = one["close"].notna() & moves.notna()
    out = dict.fromkeys(("BETA", "HSIGMA", "DASTD", "RSTR", "CMRA", "STOM", "STOQ", "STOA"), np.nan)

    def window(series: pd.Series, rows: int, lag: int = 0) -> pd.Series:
        return series.iloc[max(0, row - lag - rows + 1) : max(0, row - lag + 1)]

    pair = window(returns, 252)
    if pair.notna().sum() >= 126:
        y, w = weighted(pair, 63.0)
        x = window(market, 252)[pair.notna()].to_numpy()
        slope, level = np.polyfit(x, y, 1, w=np.sqrt(w))
        out["BETA"], out["HSIGMA"] = slope, float(np.sqrt(w @ (y - level - slope * x) ** 2))
        y, w = weighted(pair, 42.0)
        out["DASTD"] = float(np.sqrt(np.cov(y, aweights=w, ddof=0)))
    if window(since, 252).sum() >= 126:
        newest_first = window(moves, 252).fillna(0.0).to_numpy()[::-1]
        total = [newest_first[: 21 * months].sum() for months in range(1, 13)]
        if 1 + min(total) > 0:
            out["CMRA"] = np.log(1 + max(total)) - np.log(1 + min(total))
        else:
            out["CMRA"] = max(total) - min(total)
    if window(since, 505, lag=21).sum() >= 253:
        y, w = weighted(window(moves, 505, lag=21), 126.0)
        out["RSTR"] = (0.5 ** (np.arange(505) / 126.0)).sum() * (w @ y)
    for name, months in (("STOM", 1), ("STOQ", 3), ("STOA", 12)):
        rate_of = window(one["volume"] / one["float_shares"], 21 * months)
        if rate_of.notna().sum() >= np.ceil(21 * months / 2) and rate_of.sum() > 0:
            out[name] = np.log(21.0 * rate_of.mean())
    return out


@pytest.mark.parametrize("row", ROWS)
def test_descriptors_are_those_of_an_oracle_by_asset(
    row: int, bars: xr.Dataset, risk_free: xr.DataArray, inputs: StyleInputs
) -> None:
    found = compute_descriptors(inputs)
    for place, asset in enumerate(bars["asset"].values):
        for name, value in oracle(bars, risk_free, asset, row).items():
            got = found[name][row, place]
            np.testing.assert_allclose(got, value, rtol=1e-9, atol=1e-9, err_msg=f"{name} {asset}")
    np.testing.assert_array_equal(found["LNCAP"], np.log(bars["market_cap"].values))


def test_a_steady_price_has_closed_forms() -> None:
    growth, n = 0.002, 541
    close = np.exp(np.outer(np.arange(n), [growth, -growth, 0.0, -2.1 * growth]))
    found = compute_descriptors(inputs_of(closes(close)))
    total = (1 - 0.5 ** (505 / 126)) / (1 - 0.5 ** (1 / 126))
    up, down = np.log(1 + 252 * growth) - np.log(1 + 21 * growth), np.log(0.958 / 0.496)
    np.testing.assert_allclose(
        found["RSTR"][-1, :3], [growth * total, -growth * total, 0.0], atol=1e-12
    )
    steep = 231 * 2.1 * growth  # Zmin is -1.0584: no logarithm
    np.testing.assert_allclose(found["CMRA"][-1], [up, down, 0.0, steep], atol=1e-12)
    np.testing.assert_array_equal(found["cmra_fallback"][-1], [False, False, False, True])
    np.testing.assert_allclose(found["DASTD"][-1], 0.0, atol=1e-9)  # root of rounding
    assert found["DASTD"][-1, 2] == 0.0
    assert np.isnan(found["BETA"]).all()  # a market that stands still has no slope
    assert total == pytest.approx(170.95, abs=1e-3)  # (1 - 0.06215) / 0.0054861


def test_a_multiple_of_the_market_has_its_beta_and_no_residual() -> None:
    rng = np.random.default_rng(3)
    steps = rng.normal(0.0, 0.01, 263)
    close = np.cumprod(1.0 + np.outer(steps, [2.0, 1.0, 0.0]), axis=0)  # the mean is the second
    found = compute_descriptors(inputs_of(closes(close)))
    np.testing.assert_allclose(found["BETA"][-1], [2.0, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(found["HSIGMA"][-1], 0.0, atol=1e-9)


@pytest.mark.parametrize("half_life", [None, 7.0])
@pytest.mark.parametrize("rows", [1, 2, 5, 21, 64, 101])
def test_window_sums_are_convolutions_and_forget(rows: int, half_life: float | None) -> None:
    values = np.random.default_rng(7).normal(size=(83, 3))
    fade = 1.0 if half_life is None else 0.5 ** (1 / half_life)
    kernel = fade ** np.arange(rows)
    expected = np.stack([np.convolve(column, kernel)[:83] for column in values.T], axis=1)
    np.testing.assert_allclose(window_sum(values, rows, half_life), expected, atol=1e-13)
    spike = np.zeros(83)
    spike[2] = 1e9
    assert np.all(window_sum(spike, rows, half_life)[2 + rows :] == 0.0)


def test_the_move_of_a_suspension_is_in_momentum_and_not_in_beta() -> None:
    bars = make_bars(11)
    jumped = bars.copy(deep=True)
    jumped["close"][423:, 4] *= 0.5  # resumes at half the price
    one, two = (compute_descriptors(inputs_of(b.drop_vars("market_cap"))) for b in (bars, jumped))
    weights = 0.5 ** ((546 - 21 - 423) / 126)
    listed = 0.5 ** (np.arange(505) / 126)
    scale = listed.sum() / listed[: 546 - 21].sum()
    gap = two["RSTR"][546, 4] - one["RSTR"][546, 4]
    assert gap == pytest.approx(np.log(0.5) * weights * scale, rel=1e-9)
    np.testing.assert_array_equal(one["BETA"][546], two["BETA"][546])
    np.testing.assert_array_equal(one["DASTD"][546], two["DASTD"][546])
    assert two["CMRA"][546, 4] - one["CMRA"][546, 4] > 0.3


@pytest.mark.parametrize(("share", "beta", "momentum"), [(0.5, 126, 274), (0.3, 76, 173)])
def test_history_that_a_style_waits_for(share: float, beta: int, momentum: int) -> None:
    full = make_bars(13)
    full["close"] = (("date", "asset"), frame(full["close"]).ffill().bfill().to_numpy())
    found = barra_styles(full, min_periods=share)
    first = found["exposures"].notnull().any("asset").values.argmax(axis=0)
    where = dict(zip(found["factor"].values.tolist(), first.tolist(), strict=True))
    assert where["beta"] == where["residual_volatility"] == beta  # row 0 has no return
    assert where["momentum"] == momentum  # 21 rows of lag, row 0, and the share of 505
    assert where["size"] == 0
    assert found.attrs["min_periods"] == share


# ---- cross-sections ------------------------------------------------------------------------------


def test_exposures_are_standardised_by_date(styles: xr.Dataset, bars: xr.Dataset) -> None:
    exposures, caps = styles["exposures"], bars["market_cap"]
    assert exposures["factor"].values.tolist() == SIX
    there = exposures.notnull()
    assert int(there.sum()) > 0.5 * exposures.size
    mean = (exposures * caps).sum("asset") / caps.where(there).sum("asset")
    dates = there.any("asset")
    np.testing.assert_allclose(mean.where(dates, 0.0), 0.0, atol=1e-12)
    np.testing.assert_allclose(exposures.std("asset").where(dates, 1.0), 1.0, atol=1e-12)
    assert bool((there <= bars["close"].notnull()).all())  # no exposure without a close
    assert styles["cap_weighted"].all()
    assert exposures.attrs == {"units": "1", "timing": "known at the close of date"}


def test_residual_volatility_is_orthogonal_to_beta_and_size(
    styles: xr.Dataset, bars: xr.Dataset
) -> None:
    exposures, root = styles["exposures"], np.sqrt(bars["market_cap"])
    there = exposures.notnull().all("factor")
    for row in (300, 409, 546):
        use = exposures[row].notnull().sel(factor=["beta", "size", "residual_volatility"])
        kept = use.all("factor").values
        weights = root[row].values[kept]
        part = exposures[row].values[kept]
        apart = part - np.average(part, axis=0, weights=weights)
        left = apart[:, SIX.index("residual_volatility")]
        for other in ("beta", "size"):
            assert abs((weights * left) @ apart[:, SIX.index(other)]) < 1e-9 * weights.sum()
    assert int(there.sum()) > 1000
    raw = barra_styles(bars.drop_vars("market_cap"))["exposures"]
    for row in (300, 546):  # equal weights, and no size to be orthogonal to
        part = raw[row].sel(factor=["beta", "residual_volatility"]).dropna("asset").values
        assert abs(np.corrcoef(part.T)[0, 1]) < 1e-12


def test_a_date_is_that_of_an_oracle_in_pandas(
    styles: xr.Dataset, bars: xr.Dataset, inputs: StyleInputs
) -> None:
    raw, row = compute_descriptors(inputs), 453
    caps = frame(bars["market_cap"]).iloc[row]
    alive = frame(bars["close"]).iloc[row].notna()

    def score(values: pd.Series) -> pd.Series:
        known = values.dropna()
        weight = caps[known.index]
        spread = known.std(ddof=0)
        return ((known - (weight * known).sum() / weight.sum()) / spread).reindex(values.index)

    def clipped(values: pd.Series) -> pd.Series:
        mean, spread = values.mean(), values.std(ddof=0)
        return score(values.clip(mean - 3 * spread, mean + 3 * spread))

    def residual(values: pd.Series, others: list[pd.Series]) -> pd.Series:
        table = pd.concat([values, *others], axis=1).dropna()
        root = np.sqrt(np.sqrt(caps[table.index].to_numpy()))
        design = np.column_stack([np.ones(len(table)), table.to_numpy()[:, 1:]])
        fit, *_ = np.linalg.lstsq(design * root[:, None], table.to_numpy()[:, 0] * root, rcond=None)
        return pd.Series(table.to_numpy()[:, 0] - design @ fit, table.index).reindex(values.index)

    part = {
        name: pd.Series(raw[name][row], bars["asset"].values).where(alive)
        for name in ("BETA", "RSTR", "LNCAP", "DASTD", "CMRA", "HSIGMA", "STOM", "STOQ", "STOA")
    }
    z = {name: clipped(values) for name, values in part.items()}

    def mixed(weights: dict[str, float]) -> pd.Series:
        table = pd.DataFrame({name: z[name] for name in weights})
        share = pd.Series(weights)
        return score((table * share).sum(axis=1, min_count=1) / (table.notna() * share).sum(axis=1))

    expected = {
        "beta": score(z["BETA"]),
        "momentum": score(z["RSTR"]),
        "size": score(z["LNCAP"]),
        "liquidity": mixed({"STOM": 0.35, "STOQ": 0.35, "STOA": 0.30}),
    }
    expected["nonlinear_size"] = score(clipped(residual(expected["size"] ** 3, [expected["size"]])))
    volatile = mixed({"DASTD": 0.74, "CMRA": 0.16, "HSIGMA": 0.10})
    expected["residual_volatility"] = score(
        residual(volatile, [expected["beta"], expected["size"]])
    )
    got = pd.DataFrame(styles["exposures"].values[row], bars["asset"].values, columns=SIX)
    pd.testing.assert_frame_equal(
        got,
        pd.DataFrame(expected)[SIX],
        check_names=False,
        rtol=1e-9,
        atol=1e-9,
    )


def test_cut_off_sets_to_three_standard_deviations() -> None:
    values = np.r_[np.zeros(29), 1.0, np.nan][None, :]
    cut, moved = cut_off(values)
    spread = np.sqrt(29) / 30
    assert moved.sum() == 1
    assert cut[0, 29] == pytest.approx(1 / 30 + 3 * spread, rel=1e-14)
    np.testing.assert_array_equal(cut[0, :29], 0.0)
    assert np.isnan(cut[0, 30])


def test_standardise_leaves_out_what_has_no_cross_section() -> None:
    values = np.array([[1.0, 2, 3, 4, 6], [1, 2, 3, 4, np.nan], [0.1] * 5, [1, 2, 3, 4, 6]])
    weights = np.ones((4, 5))
    weights[0] = [1, 0, 0, 0, 3]
    weights[3] = 0.0
    scores = standardise(values, weights)
    np.testing.assert_allclose(scores[0], (values[0] - 4.75) / np.std([1, 2, 3, 4, 6]), rtol=1e-14)
    assert np.isnan(scores[1:]).all()  # four assets, no spread, no weight


def test_missing_descriptors_leave_their_weight_to_the_others() -> None:
    parts = {"a": np.array([[1.0, np.nan, np.nan]]), "b": np.array([[3.0, 3.0, np.nan]])}
    mean, coverage = combine(parts, {"a": 0.75, "b": 0.25})
    np.testing.assert_array_equal(mean, [[1.5, 3.0, np.nan]])
    np.testing.assert_array_equal(coverage, [[1.0, 0.25, 0.0]])


def test_coverage_says_which_share_of_a_style_was_known(bars: xr.Dataset) -> None:
    turnover = bars["volume"] / bars["float_shares"]
    turnover[: 546 - 25, 8] = np.nan  # a month of turnover, and no quarter
    found = barra_styles(bars, turnover=turnover)
    last = found.isel(date=546).sel(factor="liquidity")
    assert last["coverage"].values[8] == pytest.approx(0.35)
    assert np.isfinite(last["exposures"].values[8])
    assert last["coverage"].values[9] == pytest.approx(1.0)
    np.testing.assert_array_equal(found["coverage"].isnull(), found["exposures"].isnull())


def test_free_of_is_what_a_weighted_regression_leaves() -> None:
    rng = np.random.default_rng(19)
    other, weights = rng.normal(size=(3, 11)), rng.uniform(0.5, 2.0, size=(3, 11))
    second = np.full((3, 11), np.nan)
    second[0] = other[0]  # says the same
    values = 2.0 + 3.0 * other + rng.normal(size=(3, 11))
    values[2, 2:] = np.nan  # two assets for two columns
    left = free_of(values, [other, second], weights)
    for row in (0, 1):
        root = np.sqrt(weights[row])
        fit = np.polyfit(other[row], values[row], 1, w=root)
        np.testing.assert_allclose(left[row], values[row] - np.polyval(fit, other[row]), atol=1e-12)
    assert np.isnan(left[2]).all()


def test_a_planted_beta_is_recovered() -> None:
    rng = np.random.default_rng(23)
    beta = rng.normal(1.0, 0.4, 53)
    market = rng.normal(0.0, 0.012, 401)
    close = np.cumprod(1 + market[:, None] * beta + rng.normal(0, 0.008, (401, 53)), axis=0)
    found = barra_styles(closes(close))
    # Error of a slope: noise over market times the root of effective dates, about 1 / 13: 0.05.
    corr = np.corrcoef(found["exposures"].sel(factor="beta")[-1], beta)[0, 1]
    assert corr > 0.98
    cross = np.corrcoef(found["exposures"].sel(factor="residual_volatility")[-1], beta)[0, 1]
    assert abs(cross) < 0.15


# ---- invariants ----------------------------------------------------------------------------------


def test_nothing_depends_on_later_rows(bars: xr.Dataset) -> None:
    late = bars.copy(deep=True)
    late["market_cap"][:331] = np.nan  # arrives later
    cuts = [str(late["date"].values[row])[:10] for row in (280, 340, 530)]
    for given in (bars, late):
        report = audit_causality(lambda b: barra_styles(b), given, dates=cuts, seed=3)
        assert report.ok, str(report)
        assert {f"exposures[{name}]" for name in SIX} <= set(report.variables) - set(report.unmoved)


def test_truncated_bars_give_the_same_bits(styles: xr.Dataset, bars: xr.Dataset) -> None:
    short = barra_styles(bars.isel(date=slice(0, 499)), universe=None)
    whole = barra_styles(bars)
    xr.testing.assert_equal(short["exposures"], whole["exposures"].isel(date=slice(0, 499)))
    assert not styles["exposures"].equals(whole["exposures"])  # the risk-free return counts


def test_order_of_assets_and_units_do_not_matter(bars: xr.Dataset) -> None:
    order = np.random.default_rng(29).permutation(ASSETS)
    base = barra_styles(bars)["exposures"]
    moved = barra_styles(bars.isel(asset=order))["exposures"]
    np.testing.assert_allclose(moved.values, base.values[:, order], atol=1e-9)
    other = bars.copy(deep=True)
    for name, factor in (("close", 7.0), ("volume", 0.01), ("market_cap", 1e-8)):
        other[name] = other[name] * factor
    np.testing.assert_allclose(barra_styles(other)["exposures"], base, atol=1e-9)


def test_strangers_to_the_universe_count_nowhere(bars: xr.Dataset) -> None:
    member = bars["close"].notnull()
    member[:, 9] = False
    member[400, 4] = True  # suspended, and wanted all the same
    base = barra_styles(bars, universe=member)
    other = bars.copy(deep=True)
    other["close"][:, 9] *= np.exp(0.3 * np.sin(np.arange(DATES)))
    other["market_cap"][:, 9] *= 50.0
    xr.testing.assert_equal(barra_styles(other, universe=member)["exposures"], base["exposures"])
    assert base["exposures"][:, 9].isnull().all()
    assert np.isfinite(base["exposures"][400, 4].sel(factor="beta"))
    assert barra_styles(bars)["exposures"][400, 4].isnull().all()
    assert not barra_styles(other)["exposures"].equals(barra_styles(bars)["exposures"])


# ---- what is missing, and what is said -----------------------------------------------------------


def test_all_ten_styles_are_computed_or_have_a_reason(bars: xr.Dataset, styles: xr.Dataset) -> None:
    assert len(BARRA_STYLES) == 10
    assert all(sum(w.values()) == pytest.approx(1.0) for w in DESCRIPTOR_WEIGHTS.values())
    bare = barra_styles(bars[["close"]])
    missing = json.loads(bare.attrs["styles_unavailable"])
    assert sorted([*bare["factor"].values, *missing]) == sorted(BARRA_STYLES)
    assert bare["factor"].values.tolist() == ["beta", "momentum", "residual_volatility"]
    assert missing["size"] == missing["nonlinear_size"]
    for style, words in {
        "size": "needs market_cap",
        "liquidity": "needs turnover, or volume and float_shares",
        "book_to_price": "needs book equity",
        "earnings_yield": "analysts' forecasts",
        "growth": "five years of sales",
        "leverage": "needs debt",
    }.items():
        assert words in missing[style]
    rest = json.loads(styles.attrs["styles_unavailable"])
    assert list(rest) == ["book_to_price", "earnings_yield", "growth", "leverage"]
    assert not bare["cap_weighted"].any()
    assert bare.attrs["market_weights"] == "equal, for want of market_cap"
    assert styles.attrs["market_weights"] == "market_cap of the close before"
    assert bare.attrs["risk_free"] == "0, for want of one"
    assert styles.attrs["risk_free"] == "as given"


def test_a_short_history_is_a_reason(bars: xr.Dataset) -> None:
    found = barra_styles(bars.isel(date=slice(0, 151)))
    assert found["factor"].values.tolist() == [name for name in SIX if name != "momentum"]
    missing = json.loads(found.attrs["styles_unavailable"])
    assert missing["momentum"] == (
        "needs 5 assets that differ, each with 253 known of 505 rows from lag 21 on, on one date: "
        "the 151 dates hold none"
    )
    found = barra_styles(bars.isel(date=slice(0, 7)))
    assert found["factor"].values.tolist() == ["size", "nonlinear_size"]
    missing = json.loads(found.attrs["styles_unavailable"])
    assert "each with 11 known of 21 rows, on one date" in missing["liquidity"]
    with pytest.raises(PanelError, match="some style; got none in 101 dates and 13 assets: beta n"):
        barra_styles(bars[["close"]].isel(date=slice(0, 101)))


def test_the_fallback_of_cmra_is_flagged_and_counted(styles: xr.Dataset, bars: xr.Dataset) -> None:
    flagged = styles["cmra_fallback"]
    assert flagged[:, 2].any()
    assert not flagged.isel(asset=[0, 1, 3]).any()
    rule = "members with 1 + Zmin <= 0, where CMRA has no logarithm"
    assert ledger_of(styles)[rule] == int(flagged.sum())
    assert int((flagged & bars["close"].isnull()).sum()) == 0


def test_what_was_done_to_cells_is_counted(bars: xr.Dataset) -> None:
    wild = bars.copy(deep=True)
    wild["market_cap"][10:14] = np.nan
    wild["market_cap"][300:302] = np.nan
    wild["market_cap"][400, 8] = np.nan
    wild["volume"][200:280, 10] = 0.0
    found = barra_styles(wild)
    counts = ledger_of(found)
    assert counts["dates without any market_cap"] == 6
    assert counts["dates of residual volatility without size"] == 2
    assert np.flatnonzero(~found["cap_weighted"].values).tolist() == [10, 11, 12, 13, 300, 301]
    unknown = int(bars["close"].notnull()[400, 8])
    assert counts["members without market_cap on a date with some"] == unknown == 1
    assert np.isnan(found["exposures"].sel(factor="size").values[400, 8])
    assert np.isfinite(found["exposures"].sel(factor="beta").values[400, 8])
    member = bars["close"].notnull()
    assert not np.isinf(compute_descriptors(inputs_of(wild))["STOM"]).any()
    assert counts["members that traded nothing"] == int(member[220:280, 10].sum()) == 59
    missing = (member & found["exposures"].isnull()).sum()
    assert counts["members without an exposure"] == int(missing)
    beyond = 0
    raw = compute_descriptors(inputs_of(bars[["close"]]))
    for name in ("BETA", "RSTR", "DASTD", "CMRA", "HSIGMA"):
        table = pd.DataFrame(np.where(member, raw[name], np.nan)).T
        spread = table.std(ddof=0)
        beyond += int(((table - table.mean()).abs() > 3 * spread).to_numpy().sum())
    rule = "descriptors beyond 3 standard deviations of their date"
    assert ledger_of(barra_styles(bars[["close"]]))[rule] == beyond > 50
    few = bars.isel(date=slice(200, 400)).copy(deep=True)
    few["market_cap"][0, 3:] = np.nan  # 3 assets on one date, in LNCAP
    assert (
        ledger_of(barra_styles(few))[
            "cross-sections of a descriptor below 5 assets or without spread"
        ]
        >= 1
    )


def test_given_arrays_go_before_those_of_the_bars(bars: xr.Dataset) -> None:
    base = barra_styles(bars)
    assert base.attrs["turnover"] == "volume / float_shares"
    bare = bars[["close", "volume"]]
    beside = barra_styles(
        bare, market_cap=bars["market_cap"], float_shares=bars["float_shares"].transpose()
    )
    xr.testing.assert_equal(beside["exposures"], base["exposures"])
    held = bars.assign(turnover=bars["volume"] / bars["float_shares"] * 100.0)
    found = barra_styles(held)
    assert found.attrs["turnover"] == "turnover as given"
    np.testing.assert_allclose(found["exposures"], base["exposures"], atol=1e-9)
    odd = bars["float_shares"] * (1.0 + np.arange(ASSETS))
    other = barra_styles(held, float_shares=odd)
    assert other.attrs["turnover"] == "volume / float_shares"
    assert not np.allclose(other["exposures"], base["exposures"], equal_nan=True)


def test_styles_are_stored_and_read_again(styles: xr.Dataset, tmp_path: Path) -> None:
    styles.to_netcdf(tmp_path / "styles.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "styles.nc", engine="h5netcdf") as again:
        xr.testing.assert_identical(again.load(), styles)


# ---- errors --------------------------------------------------------------------------------------


def test_options_and_layouts_that_cannot_be(bars: xr.Dataset, risk_free: xr.DataArray) -> None:
    for share in (0.0, 1.1, True):
        with pytest.raises(SpecError, match=r"min_periods must be in \(0, 1\]; got"):
            barra_styles(bars, min_periods=share)
    with pytest.raises(PanelError, match="bars must have dims date and asset and a variable close"):
        barra_styles(bars.drop_vars("close"))
    with pytest.raises(PanelError, match="bars must hold a close; got none"):
        barra_styles(bars.assign(close=bars["close"] * np.nan))
    with pytest.raises(ShapeError, match="market_cap must have the dimensions date and asset"):
        barra_styles(bars, market_cap=bars["market_cap"][0])
    with pytest.raises(ShapeError, match="turnover must have the dates of the bars; got 546"):
        barra_styles(bars, turnover=bars["volume"][1:])
    with pytest.raises(ShapeError, match="float_shares must have the assets of the bars"):
        barra_styles(bars, float_shares=bars["float_shares"][:, ::-1])
    with pytest.raises(ShapeError, match="risk_free must have the dimension date; got"):
        barra_styles(bars, risk_free=bars["close"])
    with pytest.raises(ShapeError, match="risk_free must have the dates of the bars"):
        barra_styles(bars, risk_free=risk_free[5:])
    with pytest.raises(ShapeError, match="universe must be of truth values by date and asset"):
        barra_styles(bars, universe=bars["close"])


@pytest.mark.parametrize("value", [0.0, -3.0, np.inf])
@pytest.mark.parametrize("name", ["close", "market_cap", "float_shares"])
def test_what_must_be_positive(name: str, value: float, bars: xr.Dataset) -> None:
    wrong = bars.copy(deep=True)
    wrong[name][7, 3] = value
    with pytest.raises(PanelError, match=rf"{name} must be > 0, finite or NaN; got .* at S03 2019"):
        barra_styles(wrong)


def test_other_values_out_of_range(bars: xr.Dataset, risk_free: xr.DataArray) -> None:
    wrong = bars.copy(deep=True)
    wrong["volume"][3:, 2] = -1.0
    with pytest.raises(PanelError, match=r"volume must be >= 0.* and \d+ more\. Set NaN"):
        barra_styles(wrong)
    for value in (np.nan, -1.0, np.inf):
        rate = risk_free.copy(deep=True)
        rate[11] = value
        with pytest.raises(PanelError, match=r"risk_free must be finite and > -1.* at 2019-01-17"):
            barra_styles(bars, risk_free=rate)


# ---- real data -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_market(market_file: Callable[[str], Path]) -> None:
    bars = read_prices(market_file("ashare_daily.parquet"))
    start = time.perf_counter()
    found = barra_styles(bars)
    seconds = time.perf_counter() - start
    exposures = found["exposures"]
    dates = exposures.notnull().any("asset")
    member = bars["close"].notnull()
    share = {
        name: float((exposures.sel(factor=name).notnull() & dates.sel(factor=name)).sum())
        / float((member & dates.sel(factor=name)).sum())
        for name in exposures["factor"].values
    }
    print(f"\n{dict(bars.sizes)}: {seconds:.2f} s; share of traded cells {share}")
    assert list(share) == ["beta", "momentum", "residual_volatility"]
    assert min(share.values()) > 0.95
    np.testing.assert_allclose(exposures.std("asset").where(dates, 1.0), 1.0, atol=1e-10)
    np.testing.assert_allclose(exposures.mean("asset").where(dates, 0.0), 0.0, atol=1e-10)
    assert int(dates.sel(factor="momentum").values.argmax()) == 274
    corr = xr.corr(exposures.sel(factor="beta"), exposures.sel(factor="residual_volatility"))
    assert abs(float(corr)) < 1e-10
    part = bars.isel(asset=slice(0, 397))
    report = audit_causality(lambda b: barra_styles(b), part, dates=3, least_rows=211)
    assert report.ok, str(report)
