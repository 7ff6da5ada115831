"""The style report: planted styles, identities, and independent regressions as oracles."""

import time
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import xarray as xr

from nfi_pyro.attribution.results.styles import StyleReport
from nfi_pyro.attribution.styles.style_report import style_report
from nfi_pyro.attribution.styles.style_returns import regress_line
from nfi_pyro.data import BARRA_STYLES, barra_styles, forward_return, read_prices
from nfi_pyro.errors import ShapeError, SpecError, WeightsError

N_DATES, N_ASSETS, STYLES = 97, 53, ("beta", "size", "value")
LABEL = {"start_lag": 1, "horizon": 1, "unit": "return"}


def cells(values: np.ndarray) -> xr.DataArray:
    coords: dict[str, object] = {
        "date": pd.bdate_range("2020-01-01", periods=len(values)),
        "asset": [f"A{i:02d}" for i in range(values.shape[1])],
    }
    if values.ndim == 3:
        coords["factor"] = list(STYLES[: values.shape[2]])
    return xr.DataArray(values, coords, ("date", "asset", "factor")[: values.ndim])


def frame(array: xr.DataArray) -> pd.DataFrame:
    return pd.DataFrame(array.values, array.indexes["date"], array.indexes["asset"])


def make_data(seed: int = 0) -> dict[str, xr.DataArray]:
    """Exposures, a signal that is 0.6 size and 0.8 its own, and returns of known factors."""
    rng = np.random.default_rng(seed)
    exposures = rng.normal(size=(N_DATES, N_ASSETS, 3))
    own = rng.normal(size=(N_DATES, N_ASSETS))
    factors = np.array([0.002, -0.001, 0.0005]) + 0.01 * rng.normal(size=(N_DATES, 3))
    market = 0.008 * rng.normal(size=N_DATES)
    noise = 0.004 * rng.normal(size=(N_DATES, N_ASSETS))
    earned = market[:, None] + np.einsum("dak,dk->da", exposures, factors) + noise
    weights = rng.dirichlet(np.ones(N_ASSETS), size=N_DATES)
    return {
        "signal": cells(0.6 * exposures[:, :, 1] + 0.8 * own),
        "weights": cells(weights),
        "styles": cells(exposures),
        "returns": cells(earned).assign_attrs(LABEL),
        "caps": cells(rng.lognormal(3.0, 1.5, size=(N_DATES, N_ASSETS))),
        "industries": cells(np.array(["bank", "food", "iron"])[rng.integers(0, 3, own.shape)]),
        "factors": xr.DataArray(factors),
        "market": xr.DataArray(market),
    }


def with_gaps(data: dict[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    rng = np.random.default_rng(99)
    out = {name: values.copy(deep=True) for name, values in data.items()}
    for name, share in (("signal", 0.1), ("styles", 0.02), ("returns", 0.05), ("caps", 0.03)):
        out[name].values[rng.random(out[name].shape) < share] = np.nan
    return out


@pytest.fixture(scope="module")
def data() -> dict[str, xr.DataArray]:
    return make_data()


@pytest.fixture(scope="module")
def gappy(data: dict[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    return with_gaps(data)


@pytest.fixture(scope="module")
def report(gappy: dict[str, xr.DataArray]) -> StyleReport:
    return style_report(
        gappy["signal"], gappy["styles"], returns=gappy["returns"], market_cap=gappy["caps"]
    )


def counts_of(report: StyleReport) -> dict[str, int]:
    return {found.rule: found.count for found in report.ledger.findings}


# ---- by date -------------------------------------------------------------------------------------


def test_correlations_are_those_of_pandas(
    report: StyleReport, gappy: dict[str, xr.DataArray]
) -> None:
    signal = frame(gappy["signal"])
    for style in STYLES:
        exposure = frame(gappy["styles"].sel(factor=style))
        expected = signal.corrwith(exposure, axis=1)
        found = report.by_date["correlation"].sel(factor=style)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
        pairs = (signal.notna() & exposure.notna()).sum(axis=1)
        np.testing.assert_array_equal(report.by_date["n_pairs"].sel(factor=style), pairs)
        row = report.summary.sel(factor=style)
        assert float(row["correlation_mean"]) == pytest.approx(expected.mean(), rel=1e-12)
        assert float(row["correlation_sd"]) == pytest.approx(expected.std(), rel=1e-12)
        ratio = expected.mean() / expected.std()
        assert float(row["correlation_ratio"]) == pytest.approx(ratio, rel=1e-11)
        fit = sm.OLS(expected.to_numpy(), np.ones(N_DATES)).fit(
            cov_type="HAC", cov_kwds={"maxlags": 3, "use_correction": False}
        )
        assert report.summary.attrs["n_lags"] == 3  # floor(4 (97 / 100)^(2/9))
        assert float(row["correlation_error"]) == pytest.approx(fit.bse[0], rel=1e-9)
        assert float(row["correlation_t"]) == pytest.approx(fit.tvalues[0], rel=1e-9)
        assert int(row["correlation_dates"]) == N_DATES


def test_the_regression_of_the_signal_is_that_of_statsmodels(
    report: StyleReport, gappy: dict[str, xr.DataArray]
) -> None:
    rows = []
    for date in range(N_DATES):
        y, x = gappy["signal"].values[date], gappy["styles"].values[date]
        used = np.isfinite(y) & np.isfinite(x).all(axis=1)
        scores = (y[used] - y[used].mean()) / y[used].std()
        fit = sm.OLS(scores, sm.add_constant(x[used])).fit()
        found = report.regression.isel(date=date)
        for name, expected in {
            "coefficient": fit.params,
            "standard_error": fit.bse,
            "t_statistic": fit.tvalues,
            "r_squared": fit.rsquared,
            "adjusted_r_squared": fit.rsquared_adj,
            "n_assets": used.sum(),
        }.items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(found["residual"].values[used], fit.resid, atol=1e-12)
        assert np.isnan(found["residual"].values[~used]).all()
        rows.append([*fit.params[1:], fit.rsquared])
    means = np.array(rows).mean(axis=0)
    np.testing.assert_allclose(report.summary["coefficient_mean"], means[:3], rtol=1e-11)
    assert report.r_squared_mean == pytest.approx(means[3], rel=1e-12)


def test_a_planted_style_is_found(data: dict[str, xr.DataArray]) -> None:
    table = style_report(data["signal"], data["styles"]).table()
    found = {str(style): row for style, row in table.to_dict("index").items()}
    # Correlation of one date has an sd of 0.8^2 / sqrt(53), the mean of 97 about 0.009.
    assert found["size"]["correlation"] == pytest.approx(0.6, abs=0.03)
    assert found["size"]["coefficient"] == pytest.approx(0.6, abs=0.04)
    assert found["size"]["coefficient_t"] > 30.0
    assert found["size"]["correlation_ratio"] > 4.0
    assert table.attrs["r_squared"] == pytest.approx(0.36 + 0.64 * 3 / 52, abs=0.03)
    for other in ("beta", "value"):
        assert abs(found[other]["correlation_t"]) < 4.0
        assert abs(found[other]["coefficient"]) < 0.05
    assert found["size"]["exposure"] > 0.5
    assert "return_beta" not in table


def test_the_residual_has_nothing_of_the_styles(gappy: dict[str, xr.DataArray]) -> None:
    first = style_report(gappy["signal"], gappy["styles"])
    again = style_report(
        first.regression["residual"].drop_vars("kind", errors="ignore"), gappy["styles"]
    )
    assert float(abs(again.regression["coefficient"]).max()) < 1e-12
    assert again.r_squared_mean < 1e-12


def test_scale_and_level_of_a_signal_do_not_matter(gappy: dict[str, xr.DataArray]) -> None:
    base = style_report(gappy["signal"], gappy["styles"])
    other = style_report(5.0 + 1e-3 * gappy["signal"], gappy["styles"])
    for name in ("correlation", "exposure", "unexposed_share"):
        np.testing.assert_allclose(other.by_date[name], base.by_date[name], atol=1e-9)
    np.testing.assert_allclose(
        other.regression["coefficient"], base.regression["coefficient"], atol=1e-9
    )


def test_exposure_is_the_weighted_sum(
    data: dict[str, xr.DataArray], gappy: dict[str, xr.DataArray]
) -> None:
    weights = data["weights"] - 1.5 / N_ASSETS  # long and short, net -0.5
    weights[5] = 0.0
    found = style_report(weights, gappy["styles"], kind="weights")
    styles, held = gappy["styles"].values, weights.values
    expected = np.einsum("da,dak->dk", held, np.nan_to_num(styles))
    expected[5] = np.nan
    np.testing.assert_allclose(found.by_date["exposure"], expected, atol=1e-13)
    gross = np.abs(held).sum(axis=1)[:, None]
    bare = (np.abs(held)[:, :, None] * np.isnan(styles)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found.by_date["unexposed_share"], bare / gross, atol=1e-13)
    kept = np.delete(expected, 5, axis=0)
    np.testing.assert_allclose(found.summary["exposure_mean"], kept.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.summary["exposure_sd"], kept.std(axis=0, ddof=1), rtol=1e-12)
    positions = (np.isnan(styles) & (held != 0.0)[:, :, None]).sum()
    assert counts_of(found)["positions without an exposure to a style"] == positions > 100
    assert found.kind == "weights"
    assert np.isnan(found.by_date["correlation"][5]).all()  # weights of 0 do not vary
    assert counts_of(found)["dates on which the book does not vary"] == 1


def test_the_portfolio_of_a_signal_is_long_and_short_at_a_gross_of_one(
    gappy: dict[str, xr.DataArray],
) -> None:
    found = style_report(gappy["signal"], gappy["styles"])
    signal = frame(gappy["signal"])
    apart = signal.sub(signal.mean(axis=1), axis=0)
    weights = apart.div(apart.abs().sum(axis=1), axis=0).fillna(0.0)
    expected = np.einsum("da,dak->dk", weights, np.nan_to_num(gappy["styles"].values))
    np.testing.assert_allclose(found.by_date["exposure"], expected, atol=1e-13)


# ---- over dates ----------------------------------------------------------------------------------


def wls(gappy: dict[str, xr.DataArray]) -> tuple[np.ndarray, np.ndarray]:
    """Return factor returns (date, market and style) and R2 by statsmodels, weights root cap."""
    rows, shares = [], []
    for date in range(N_DATES):
        y, x = gappy["returns"].values[date], gappy["styles"].values[date]
        caps = gappy["caps"].values[date]
        used = np.isfinite(y) & np.isfinite(x).all(axis=1) & np.isfinite(caps)
        fit = sm.WLS(y[used], sm.add_constant(x[used]), weights=np.sqrt(caps[used])).fit()
        rows.append(fit.params)
        shares.append(fit.rsquared)
    return np.array(rows), np.array(shares)


def test_factor_returns_are_those_of_weighted_least_squares(
    report: StyleReport, gappy: dict[str, xr.DataArray]
) -> None:
    assert report.returns is not None
    expected, shares = wls(gappy)
    fit = report.returns.regression
    assert fit.factor_returns["factor"].values.tolist() == ["market", *STYLES]
    np.testing.assert_allclose(fit.factor_returns, expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(fit.r_squared, shares, rtol=0, atol=1e-8)
    assert fit.factor_returns.attrs["start_lag"] == 1


@pytest.mark.parametrize("n_lags", [None, 0, 7])
def test_the_regression_over_dates_is_that_of_statsmodels(
    n_lags: int | None, gappy: dict[str, xr.DataArray], data: dict[str, xr.DataArray]
) -> None:
    returns = gappy["returns"].copy(deep=True)
    returns[31] = np.nan  # a date without any label
    found = style_report(
        data["weights"],
        gappy["styles"],
        kind="weights",
        returns=returns,
        market_cap=gappy["caps"],
        n_lags=n_lags,
    ).returns
    assert found is not None
    factors, _ = wls(gappy)
    observed = returns.values
    earned = np.nansum(data["weights"].values * observed, axis=1)
    kept = np.arange(N_DATES) != 31
    lags = 3 if n_lags is None else n_lags
    fit = sm.OLS(earned[kept], sm.add_constant(factors[kept])).fit(
        cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False}
    )
    np.testing.assert_allclose(found.portfolio_return[kept], earned[kept], atol=1e-14)
    assert np.isnan(found.portfolio_return[31])
    np.testing.assert_allclose(found.by_factor["beta"], fit.params[1:], rtol=1e-8)
    np.testing.assert_allclose(found.by_factor["standard_error"], fit.bse[1:], rtol=1e-8)
    np.testing.assert_allclose(found.by_factor["t_statistic"], fit.tvalues[1:], rtol=1e-8)
    assert found.alpha == pytest.approx(fit.params[0], rel=1e-7)
    assert found.alpha_error == pytest.approx(fit.bse[0], rel=1e-8)
    assert found.alpha_t == pytest.approx(fit.tvalues[0], rel=1e-7)
    assert found.r_squared == pytest.approx(fit.rsquared, rel=1e-10)
    assert found.adjusted_r_squared == pytest.approx(fit.rsquared_adj, rel=1e-10)
    corr = [np.corrcoef(earned[kept], column[kept])[0, 1] for column in factors.T]
    np.testing.assert_allclose(found.by_factor["correlation"], corr, rtol=1e-10)
    assert (found.n_dates, found.n_left_out, found.n_lags) == (N_DATES - 1, 1, lags)
    missing = (np.isnan(observed) * data["weights"].values).sum(axis=1)
    np.testing.assert_allclose(found.unobserved_share, missing, atol=1e-12)


def test_a_portfolio_of_fixed_exposures_has_them_as_betas() -> None:
    rng = np.random.default_rng(31)
    exposures = np.broadcast_to(rng.normal(size=(N_ASSETS, 3)), (N_DATES, N_ASSETS, 3))
    factors = 0.01 * rng.normal(size=(N_DATES, 4))
    design = np.concatenate([np.ones((N_DATES, N_ASSETS, 1)), exposures], axis=2)
    noise = 0.001 * rng.normal(size=(N_DATES, N_ASSETS))
    returns = cells(np.einsum("dak,dk->da", design, factors) + noise).assign_attrs(LABEL)
    held = np.broadcast_to(rng.dirichlet(np.ones(N_ASSETS)), (N_DATES, N_ASSETS))
    found = style_report(cells(held), cells(exposures), kind="weights", returns=returns)
    assert found.returns is not None
    expected = [1.0, *found.by_date["exposure"].values[0]]
    # Noise of a book of 53, about 0.001 / sqrt(26), over 0.01 sqrt(97): 0.002.
    np.testing.assert_allclose(found.returns.by_factor["beta"], expected, atol=0.01)
    assert found.returns.r_squared > 0.99
    table = found.table()
    np.testing.assert_allclose(table["return_beta"], expected[1:], atol=0.01)
    np.testing.assert_allclose(table["return_r_squared"], table["return_correlation"] ** 2)
    assert table.attrs["return_r_squared"] == found.returns.r_squared


def test_a_return_is_its_factors_and_what_is_left(data: dict[str, xr.DataArray]) -> None:
    found = style_report(
        data["weights"],
        data["styles"],
        kind="weights",
        returns=data["returns"],
        market_cap=data["caps"],
    )
    assert found.returns is not None
    fit = found.returns.regression
    style = (found.by_date["exposure"] * fit.factor_returns.sel(factor=list(STYLES))).sum("factor")
    market = fit.factor_returns.sel(factor="market") * data["weights"].sum("asset")
    left = (fit.specific_returns * data["weights"]).sum("asset")
    np.testing.assert_allclose(found.returns.portfolio_return, style + market + left, atol=1e-14)


def test_industries_are_columns_of_cross_sections_alone(data: dict[str, xr.DataArray]) -> None:
    found = style_report(
        data["signal"],
        data["styles"],
        returns=data["returns"],
        market_cap=data["caps"],
        industries=data["industries"],
    )
    assert found.returns is not None
    names = ["market", "bank", "food", "iron", *STYLES]
    assert found.regression["factor"].values.tolist() == names
    fit = found.returns.regression
    assert fit.factor_returns["factor"].values.tolist() == names
    assert found.returns.by_factor["factor"].values.tolist() == ["market", *STYLES]
    groups = data["industries"].values[:, :, None] == np.array(["bank", "food", "iron"])
    caps = np.einsum("da,dag->dg", data["caps"].values, groups)
    own = fit.factor_returns.sel(factor=["bank", "food", "iron"]).values
    np.testing.assert_allclose((caps * own).sum(axis=1) / caps.sum(axis=1), 0.0, atol=1e-12)
    assert found.table().index.tolist() == list(STYLES)


def test_errors_of_overlapping_labels_have_more_lags(data: dict[str, xr.DataArray]) -> None:
    returns = data["returns"].assign_attrs(horizon=11)
    found = style_report(data["signal"], data["styles"], returns=returns).returns
    assert found is not None
    assert found.n_lags == 10


def test_columns_that_repeat_are_left_out_of_a_line() -> None:
    rng = np.random.default_rng(37)
    x = rng.normal(size=(41, 2))
    design = np.column_stack([np.ones(41), x[:, 0], x[:, 0], x[:, 1]])
    y = 0.3 + x @ [1.0, -2.0] + rng.normal(size=41)
    fit = regress_line(y, design, 2)
    expected = sm.OLS(y, design[:, [0, 1, 3]]).fit(
        cov_type="HAC", cov_kwds={"maxlags": 2, "use_correction": False}
    )
    np.testing.assert_allclose(fit.values[[0, 1, 3]], expected.params, rtol=1e-10)
    np.testing.assert_allclose(fit.errors[[0, 1, 3]], expected.bse, rtol=1e-10)
    assert np.isnan(fit.values[2])
    assert np.isnan(fit.errors[2])
    few = regress_line(y[:4], design[:4], 0)
    assert np.isnan([*few.values, *few.errors, few.r_squared, few.adjusted_r_squared]).all()


# ---- what is left out ----------------------------------------------------------------------------


def test_what_is_left_out_is_counted(data: dict[str, xr.DataArray]) -> None:
    signal, styles = data["signal"].copy(deep=True), data["styles"].copy(deep=True)
    returns = data["returns"].copy(deep=True)
    styles[:13, :, 2] = np.nan  # begins late
    styles[40, :, 0] = np.nan
    styles[50, 3, 1] = np.nan
    signal[60, 9:] = np.nan  # 9 assets
    signal[61] = 7.0
    returns[70, 4:] = np.nan  # 4 assets
    found = style_report(signal, styles, returns=returns)
    counts = counts_of(found)
    assert counts["dates with fewer than 10 assets that have all styles"] == 15
    assert counts["dates on which the book does not vary"] == 1
    assert counts["cells of the book that lack some style"] == 14 * N_ASSETS + 1
    assert counts["dates of a style with too few pairs or without variation"] == 13 + 1 + 6
    places = {f.rule: f.places for f in found.ledger.findings}
    rule = "dates of a style with too few pairs or without variation"
    assert places[rule] == ("beta 3", "size 2", "value 15")
    assert counts["dates without a portfolio return or some factor's return"] == 16
    rule = "returns: dates with fewer than 10 assets of known return, styles and weight"
    assert counts[rule] == 15
    assert counts["returns: cells with no exposure"] == 1
    assert "returns: cells with no return" not in counts
    assert not any(rule.startswith("book: cells with no exp") for rule in counts)
    missing = np.flatnonzero(found.regression["r_squared"].isnull())
    assert missing.tolist() == [*range(13), 40, 60, 61]
    assert found.returns is not None
    assert (found.returns.n_dates, found.returns.n_left_out) == (N_DATES - 16, 16)
    assert int(found.summary["correlation_dates"].sel(factor="value")) == N_DATES - 15


def test_a_style_without_any_return_has_no_beta(data: dict[str, xr.DataArray]) -> None:
    styles = data["styles"].copy(deep=True)
    styles[:, :, 2] = 2.0 * styles[:, :, 0]  # repeats the first
    found = style_report(data["signal"], styles, returns=data["returns"])
    assert found.returns is not None
    beta = found.returns.by_factor["beta"]
    assert np.isnan(float(beta.sel(factor="value")))
    assert np.isfinite(beta.sel(factor=["market", "beta", "size"])).all()
    counts = counts_of(found)
    rule = "factors without returns, alike to others, or on no more dates than columns"
    assert counts[rule] == 1
    assert counts["returns: columns that are combinations of earlier ones"] == N_DATES
    assert counts["book: columns that are combinations of earlier ones"] == N_DATES


def test_more_columns_than_assets_is_no_regression(data: dict[str, xr.DataArray]) -> None:
    small = {name: data[name].isel(asset=slice(0, 7)) for name in ("signal", "styles")}
    groups = xr.DataArray(list("abcdefg"), {"asset": small["signal"]["asset"]}, ("asset",))
    found = style_report(small["signal"], small["styles"], industries=groups, min_assets=5)
    rule = "dates without more assets than columns of the regression"
    assert counts_of(found)[rule] == N_DATES
    assert np.isnan(found.r_squared_mean)
    assert np.isfinite(found.by_date["correlation"]).all()


def test_the_table_names_all_ten_styles() -> None:
    rng = np.random.default_rng(41)
    close = np.cumprod(1 + 0.01 * rng.normal(size=(311, 17)), axis=0)
    coords = {"date": pd.bdate_range("2020-01-01", periods=311), "asset": [*"ABCDEFGHIJKLMNOPQ"]}
    bars = xr.Dataset({"close": (("date", "asset"), close)}, coords)
    styles = barra_styles(bars)
    found = style_report(
        bars["close"] / bars["close"].shift(date=21) - 1,
        styles,
        returns=forward_return(bars),
    )
    table = found.table()
    assert sorted(table.index) == sorted(BARRA_STYLES)
    assert (table["note"] == "").tolist() == [True] * 3 + [False] * 7
    assert "needs market_cap" in table["note"].to_dict()["size"]
    assert table.iloc[:3].drop(columns="note").notna().all().all()
    assert table.iloc[3:].drop(columns="note").isna().all().all()
    assert table.columns.tolist() == [
        *("correlation", "correlation_ratio", "correlation_t", "coefficient", "coefficient_t"),
        *("exposure", "return_correlation", "return_r_squared", "return_beta", "return_beta_t"),
        "note",
    ]
    with pytest.raises(FrozenInstanceError, match="cannot assign"):
        found.kind = "weights"  # type: ignore[misc]


@pytest.mark.slow
def test_a_real_market(market_file: Callable[[str], Path]) -> None:
    bars = read_prices(market_file("ashare_daily.parquet"))
    styles = barra_styles(bars)
    dates = styles["exposures"].notnull().any(("asset", "factor"))
    signal = -(bars["close"] / bars["close"].shift(date=21) - 1.0)
    labels = forward_return(bars)
    labels = labels.where(abs(labels) < 0.3)
    start = time.perf_counter()
    found = style_report(signal, styles, returns=labels)
    seconds = time.perf_counter() - start
    print(f"\n{dict(bars.sizes)}: {seconds:.1f} s\n{found.table().round(3).to_string()}")
    print(found.ledger)
    assert found.returns is not None
    assert int(dates.sum()) == 653 - 126
    assert found.returns.n_dates == 653 - 274 - 2  # momentum begins late, the last labels are open
    row = 500
    y, x = labels.values[row].astype(float), styles["exposures"].values[row]
    used = np.isfinite(y) & np.isfinite(x).all(axis=1)
    fit = sm.OLS(y[used], sm.add_constant(x[used])).fit()
    got = found.returns.regression.factor_returns[row]
    np.testing.assert_allclose(got, fit.params, rtol=0, atol=1e-8)
    assert 0.0 < found.r_squared_mean < 1.0
    assert 0.0 < found.returns.r_squared < 1.0


# ---- errors --------------------------------------------------------------------------------------


def test_options_that_cannot_be(data: dict[str, xr.DataArray]) -> None:
    signal, styles = data["signal"], data["styles"]
    with pytest.raises(SpecError, match="kind must be 'signal' or 'weights'; got 'alpha'"):
        style_report(signal, styles, kind="alpha")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="min_assets must be >= 5 and n_lags >= 0; got 4 and None"):
        style_report(signal, styles, min_assets=4)
    with pytest.raises(SpecError, match="min_assets must be >= 5 and n_lags >= 0; got 10 and -1"):
        style_report(signal, styles, n_lags=-1)
    with pytest.raises(SpecError, match="n_lags must be >= 0 and below the number of dates, 97"):
        style_report(signal, styles, returns=data["returns"], n_lags=97)
    with pytest.raises(SpecError, match="market_cap must come with returns; got none"):
        style_report(signal, styles, market_cap=data["caps"])
    with pytest.raises(SpecError, match="styles must hold a variable exposures; got"):
        style_report(signal, styles.to_dataset(name="other"))


def test_arrays_that_do_not_fit(data: dict[str, xr.DataArray]) -> None:
    signal, styles, returns = data["signal"], data["styles"], data["returns"]
    with pytest.raises(ShapeError, match="signal must have the dimensions date and asset"):
        style_report(signal[0], styles)
    with pytest.raises(ShapeError, match="styles must have the dimensions date and asset and fac"):
        style_report(signal, styles[:, :, 0])
    with pytest.raises(ShapeError, match="styles must have the assets of the array"):
        style_report(signal, styles[:, 1:])
    with pytest.raises(ShapeError, match="returns must have the dates of the array"):
        style_report(signal, styles, returns=returns[1:])
    with pytest.raises(ShapeError, match="market_cap must have the assets of the array"):
        style_report(signal, styles, returns=returns, market_cap=data["caps"][:, ::-1])
    with pytest.raises(SpecError, match="returns must be returns; got labels of unit 'rank'"):
        style_report(signal, styles, returns=returns.assign_attrs(unit="rank"))
    wrong = data["caps"].copy(deep=True)
    wrong[3, 5] = 0.0
    with pytest.raises(SpecError, match=r"market_cap must be > 0 or NaN; got 0\.0 at 2020-01-06"):
        style_report(signal, styles, returns=returns, market_cap=wrong)
    endless = signal.copy(deep=True)
    endless[3, 5] = np.inf
    with pytest.raises(SpecError, match="signal must be finite or NaN; got an infinite value"):
        style_report(endless, styles)
    named = styles.assign_coords(factor=["market", "size", "value"])
    with pytest.raises(SpecError, match="columns must have names of their own"):
        style_report(signal, named)


def test_weights_that_are_none(data: dict[str, xr.DataArray]) -> None:
    weights = data["weights"].copy(deep=True)
    weights[3, 5] = np.nan
    with pytest.raises(WeightsError, match="weights must be finite; got NaN at 2020-01-06"):
        style_report(weights, data["styles"], kind="weights")
    with pytest.raises(WeightsError, match="weights must hold something; got 0 throughout"):
        style_report(0.0 * data["weights"], data["styles"], kind="weights")
