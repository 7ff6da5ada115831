import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import xarray as xr
from scipy.integrate import quad
from scipy.stats import norm, spearmanr

import nfi_pyro.diagnostics as diagnostics
from nfi_pyro.diagnostics.gaussian_baselines import ewma_gaussian, unconditional_gaussian
from nfi_pyro.diagnostics.scores import (
    compare_forecasts,
    gaussian_crps,
    gaussian_log_score,
    hac_standard_error,
    information_coefficient,
    newey_west_lags,
    paired_differences,
)
from nfi_pyro.errors import PanelError, ShapeError, SpecError


def _cells(values: object) -> xr.DataArray:
    array = np.asarray(values, dtype=np.float64)
    dates = pd.bdate_range("2020-01-01", periods=array.shape[0])
    assets = [f"A{i}" for i in range(array.shape[1])]
    return xr.DataArray(array, coords={"date": dates, "asset": assets}, dims=("date", "asset"))


def _random_cells(seed: int, n_dates: int = 31, n_assets: int = 13) -> xr.DataArray:
    return _cells(np.random.default_rng(seed).normal(size=(n_dates, n_assets)))


@pytest.mark.parametrize("n_lags", [0, 1, 5, 12])
def test_hac_error_agrees_with_statsmodels(n_lags: int) -> None:
    rng = np.random.default_rng(1)
    series = np.convolve(rng.normal(size=103), [1.0, 0.7, 0.3], mode="valid")
    fit = sm.OLS(series, np.ones_like(series)).fit(
        cov_type="HAC", cov_kwds={"maxlags": n_lags, "use_correction": False}
    )
    assert hac_standard_error(series, n_lags) == pytest.approx(fit.bse[0], rel=1e-10)


def test_default_lags_follow_the_rule_and_fit_a_short_series() -> None:
    assert [newey_west_lags(n) for n in (100, 101, 500, 2500)] == [4, 4, 5, 8]
    series = np.random.default_rng(2).normal(size=100)
    assert hac_standard_error(series) == hac_standard_error(series, 4)
    assert hac_standard_error(np.array([1.0, 2.0])) == hac_standard_error(np.array([1.0, 2.0]), 1)
    assert math.isnan(hac_standard_error(np.array([1.0])))
    assert [newey_west_lags(100, horizon) for horizon in (1, 5, 6, 20, 200)] == [4, 4, 5, 19, 99]
    assert [newey_west_lags(n, 20) for n in (0, 1, 2, 7)] == [0, 0, 1, 6]
    assert hac_standard_error(np.full(7, 0.1)) == pytest.approx(0.0, abs=1e-15)


def test_hac_error_checks_its_arguments() -> None:
    with pytest.raises(ShapeError, match="series must have one dimension"):
        hac_standard_error(np.ones((2, 2)))
    with pytest.raises(SpecError, match="series must be finite; got nan at position 1"):
        hac_standard_error(np.array([1.0, np.nan, 2.0]))
    with pytest.raises(SpecError, match="n_lags must be >= 0 and below the number of dates, 3"):
        hac_standard_error(np.arange(3.0), 3)


def test_information_coefficient_agrees_with_scipy_and_statsmodels() -> None:
    forecast = _random_cells(3)
    realised = 0.3 * forecast + _random_cells(4)
    realised[5, :9] = np.nan  # four pairs: skipped
    forecast[7] = 1.0  # no variation: skipped
    realised[11, 2] = np.nan
    found = information_coefficient(forecast, realised.transpose("asset", "date"), n_lags=3)
    expected = []
    for date in range(31):
        if date in (5, 7):
            assert np.isnan(found.rank_ic.values[date])
            continue
        both = realised.notnull().values[date]
        one = spearmanr(forecast.values[date, both], realised.values[date, both]).statistic
        assert found.rank_ic.values[date] == pytest.approx(one, abs=1e-12)
        expected.append(one)
    series = np.array(expected)
    assert (found.n_dates, found.n_skipped, found.n_lags) == (29, 2, 3)
    assert found.mean == pytest.approx(series.mean(), abs=1e-12)
    assert found.icir == pytest.approx(series.mean() / series.std(ddof=1), rel=1e-12)
    long = information_coefficient(forecast, realised, horizon=9)
    assert (long.n_lags, long.mean) == (8, found.mean)
    assert long.standard_error == pytest.approx(hac_standard_error(series, 8), rel=1e-12)
    fit = sm.OLS(series, np.ones(29)).fit(
        cov_type="HAC", cov_kwds={"maxlags": 3, "use_correction": False}
    )
    assert found.standard_error == pytest.approx(fit.bse[0], rel=1e-10)
    np.testing.assert_allclose(found.interval, fit.conf_int()[0], rtol=1e-9)
    assert found.n_assets.values[5] == 4
    assert found.n_assets.values[11] == 12


def test_information_coefficient_without_a_date_that_counts_is_nan() -> None:
    forecast = _random_cells(5, 3, 4)
    found = information_coefficient(forecast, forecast, min_pairs=5)
    assert (found.n_dates, found.n_skipped, found.n_lags) == (0, 3, 0)
    assert math.isnan(found.mean)
    assert math.isnan(found.standard_error)
    assert math.isnan(found.icir)


def test_arrays_with_other_labels_are_refused() -> None:
    one = _random_cells(6)
    with pytest.raises(ShapeError, match="forward_return must have the dates of the array"):
        information_coefficient(one, one.isel(date=slice(1, None)))
    with pytest.raises(ShapeError, match="mean must have the assets of the array"):
        gaussian_log_score(one.isel(asset=slice(None, None, -1)), abs(one), one)
    with pytest.raises(ShapeError, match="value must have the dimensions date and asset"):
        gaussian_crps(one, abs(one), one.isel(date=0))


def test_gaussian_log_score_is_scipys() -> None:
    mean, scale, value = _random_cells(7), abs(_random_cells(8)) + 0.1, _random_cells(9)
    value[2, 3] = np.nan
    scale[4, 5] = np.nan
    found = gaussian_log_score(mean, scale, value)
    expected = norm.logpdf(value.values, mean.values, scale.values)
    np.testing.assert_allclose(found.values, expected, rtol=1e-12)
    assert int(found.isnull().sum()) == 2


def test_gaussian_crps_agrees_with_quadrature_of_its_definition() -> None:
    mean, scale, value = _cells([[0.3, -1.0, 2.0]]), _cells([[0.5, 2.0, 0.1]]), _cells([[0, 3, 2]])
    found = gaussian_crps(mean, scale, value).values[0]
    for i in range(3):
        law = norm(mean.values[0, i], scale.values[0, i])
        at = value.values[0, i]
        low, high = law.mean() - 12 * law.std() - 5, law.mean() + 12 * law.std() + 5
        below = quad(lambda u, law=law: law.cdf(u) ** 2, low, at, limit=200)[0]
        above = quad(lambda u, law=law: law.sf(u) ** 2, at, high, limit=200)[0]
        assert found[i] == pytest.approx(below + above, abs=1e-8)


def test_a_scale_that_is_not_positive_is_refused() -> None:
    value = _random_cells(10, 2, 3)
    scale = abs(value)
    scale[1, 2] = 0.0
    with pytest.raises(SpecError, match=r"scale must be > 0 or NaN; got 0.0 at .*2020-01-02.*A2"):
        gaussian_log_score(value, scale, value)


def test_comparison_uses_common_cells_and_weights_dates_by_them() -> None:
    fit, other = _random_cells(11), _random_cells(12) - 0.2
    fit[3, 4] = np.nan
    other[5] = np.nan
    other[6, :10] = np.nan
    crps = {"fit": abs(_random_cells(13)), "other": abs(_random_cells(14))}
    crps["other"][8, 1] = np.nan
    found = compare_forecasts({"fit": fit, "other": other}, crps)
    both = (fit + other + crps["other"]).notnull().values
    assert found.n_observations == both.sum() == 31 * 13 - 1 - 13 - 10 - 1
    assert list(found.table["forecast"].values) == ["fit", "other"]
    for name, log_score in (("fit", fit), ("other", other)):
        row = found.table.sel(forecast=name)
        assert float(row["log_score"]) == pytest.approx(log_score.values[both].mean(), rel=1e-12)
        assert float(row["crps"]) == pytest.approx(crps[name].values[both].mean(), rel=1e-12)
    gap = float(found.table["log_score_difference"].sel(forecast="other"))
    assert gap == pytest.approx((other.values - fit.values)[both].mean(), rel=1e-12)
    first = found.table.sel(forecast="fit")
    assert float(first["log_score_difference"]) == float(first["difference_standard_error"]) == 0
    assert np.isnan(found.by_date.sel(forecast="fit").values[5])
    assert found.by_date.dims == ("forecast", "date")


def test_difference_error_is_statsmodels_on_a_full_panel() -> None:
    fit, other = _random_cells(15), _random_cells(16)
    crps = {"other": abs(fit), "fit": abs(fit)}
    found = compare_forecasts({"fit": fit, "other": other}, crps)
    series = (other - fit).mean("asset").values
    ols = sm.OLS(series, np.ones(31)).fit(
        cov_type="HAC", cov_kwds={"maxlags": newey_west_lags(31), "use_correction": False}
    )
    error = float(found.table["difference_standard_error"].sel(forecast="other"))
    assert error == pytest.approx(ols.bse[0], rel=1e-10)


def test_differences_from_any_forecast_are_paired_by_cell() -> None:
    names = ("a", "b", "c")
    log_scores = {name: _random_cells(21 + k) + 0.1 * k for k, name in enumerate(names)}
    crps = {name: abs(_random_cells(25 + k)) * (1 + 0.1 * k) for k, name in enumerate(names)}
    log_scores["b"][4] = np.nan
    crps["c"][7, :11] = np.nan
    table = compare_forecasts(log_scores, crps, horizon=7)
    found = paired_differences(table, "b", horizon=7)
    both = log_scores["a"] + log_scores["b"] + log_scores["c"]
    scored = (both + crps["a"] + crps["b"] + crps["c"]).notnull()
    np.testing.assert_array_equal(table.scored, scored)
    weight = scored.sum("asset").values
    kept = weight > 0
    assert kept.sum() == 30
    columns = {
        ("log_score_difference", "difference_standard_error"): log_scores,
        ("crps_difference", "crps_difference_standard_error"): crps,
    }
    for (difference, error), values in columns.items():
        for name in ("a", "c"):
            gap = (values[name] - values["b"]).where(scored)
            mean = float(found[difference].sel(forecast=name))
            assert mean == pytest.approx(np.nanmean(gap.values), rel=1e-10)
            centred = (gap - mean).sum("asset").values[kept] / weight[kept].mean()
            ols = sm.OLS(centred, np.ones(30)).fit(
                cov_type="HAC", cov_kwds={"maxlags": 6, "use_correction": False}
            )
            assert float(found[error].sel(forecast=name)) == pytest.approx(ols.bse[0], rel=1e-9)
        assert float(found[difference].sel(forecast="b")) == 0.0
        assert float(found[error].sel(forecast="b")) == 0.0
    own = paired_differences(table, "a", horizon=7)
    xr.testing.assert_identical(own.drop_attrs(), table.table[list(own)].drop_attrs())
    assert not own.equals(paired_differences(table, "a"))  # fewer lags
    with pytest.raises(SpecError, match="reference must be a forecast of the table; got 'd'"):
        paired_differences(table, "d")


def test_one_date_has_differences_without_an_error() -> None:
    one, two = _random_cells(31, 1, 5), _random_cells(32, 1, 5)
    found = compare_forecasts({"one": one, "two": two}, {"one": one, "two": two}).table
    expected = float((two - one).mean())
    assert float(found["log_score_difference"][1]) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(found["difference_standard_error"].values[1])
    assert np.isnan(found["crps_difference_standard_error"].values[1])


def test_comparison_checks_its_arguments() -> None:
    one, two = _random_cells(17), _random_cells(18)
    with pytest.raises(SpecError, match="crps must name the forecasts of log_scores"):
        compare_forecasts({"fit": one}, {"other": one})
    with pytest.raises(SpecError, match="must be finite or NaN; got an infinite score"):
        compare_forecasts({"fit": one.where(one > 0, -np.inf)}, {"fit": one})
    with pytest.raises(SpecError, match="some cell must be scored by every forecast; got none"):
        compare_forecasts(
            {"fit": one.where(one > 0), "other": two.where(one <= 0)}, {"fit": one, "other": two}
        )
    with pytest.raises(ShapeError, match="must have the dates of the array"):
        compare_forecasts(
            {"fit": one, "other": two.isel(date=slice(3))}, {"fit": one, "other": two}
        )


def test_unconditional_gaussian_is_the_pooled_training_law() -> None:
    train, new = _random_cells(19), _random_cells(20, 5, 3)
    train[3] = np.nan
    mean, scale = unconditional_gaussian(train, new["date"], new["asset"])
    pooled = train.values[~np.isnan(train.values)]
    assert mean.shape == scale.shape == (5, 3)
    assert float(mean[4, 2]) == pytest.approx(pooled.mean(), rel=1e-12)
    assert float(scale[0, 1]) == pytest.approx(pooled.std(ddof=1), rel=1e-12)
    assert bool(gaussian_log_score(mean, scale, new).notnull().all())
    with pytest.raises(PanelError, match="two different returns; got 0 observed"):
        unconditional_gaussian(train[3:4], new["date"], new["asset"])


@pytest.fixture
def close() -> xr.DataArray:
    steps = np.random.default_rng(21).normal(scale=0.02, size=(97, 5))
    prices = _cells(100 * np.exp(np.cumsum(steps, axis=0)))
    prices[10, 1] = np.nan
    prices[:60, 2] = np.nan  # listed late
    prices[:, 3] = 7.0  # never moves
    return prices


def test_ewma_scale_is_the_weighted_sum_of_its_definition(close: xr.DataArray) -> None:
    target = close.isel(date=slice(30, None)) * 0.0
    mean, scale = ewma_gaussian(close, target, half_life=9.0, horizon=4, min_periods=20)
    daily = close.values[1:] / close.values[:-1] - 1.0
    for date, asset in [(30, 0), (96, 0), (40, 1), (96, 2)]:
        past = daily[:date, asset][::-1]
        weight = np.where(np.isnan(past), 0.0, 0.5 ** (np.arange(date) / 9.0))
        expected = math.sqrt(4 * np.nansum(weight * past**2) / weight.sum())
        assert float(scale[date - 30, asset]) == pytest.approx(expected, rel=1e-10)
    assert int(scale[:, 2].notnull().values.argmax()) == 60 + 20 - 30  # twenty returns known
    assert bool(scale[:, 3].isnull().all())
    np.testing.assert_array_equal(mean.isnull(), scale.isnull())
    assert bool((mean.fillna(0.0) == 0.0).all())


def test_ewma_knows_the_close_of_its_date_and_nothing_later(close: xr.DataArray) -> None:
    _, before = ewma_gaussian(close, close)
    later, now = close.copy(), close.copy()
    later[51:] *= 3.0
    now[50, 0] *= 3.0
    _, unmoved = ewma_gaussian(later, close)
    _, moved = ewma_gaussian(now, close)
    np.testing.assert_array_equal(unmoved[:51], before[:51])
    assert float(moved[50, 0]) > 2 * float(before[50, 0])


def test_ewma_without_prices_uses_returns_once_they_are_realised(close: xr.DataArray) -> None:
    returns = close.shift(date=-2) / close.shift(date=-1) - 1.0
    # The first label ends at the third close: the two know the same returns from there on.
    _, direct = ewma_gaussian(close[1:], returns[1:], min_periods=20)
    _, lagged = ewma_gaussian(None, returns, start_lag=1, horizon=1, min_periods=20)
    np.testing.assert_allclose(lagged[1:], direct, rtol=1e-9)
    assert int(lagged.notnull().sum()) > 200
    corrupt = returns.copy()
    corrupt[49:] = 9.0
    _, after = ewma_gaussian(None, corrupt, min_periods=20)
    np.testing.assert_array_equal(after[:51], lagged[:51])
    assert float(after[51, 0]) > float(lagged[51, 0])


def test_ewma_checks_its_arguments(close: xr.DataArray) -> None:
    with pytest.raises(SpecError, match="half_life must be a positive number of days; got 0"):
        ewma_gaussian(close, close, half_life=0.0)
    with pytest.raises(SpecError, match="horizon must be >= 1; got 0"):
        ewma_gaussian(close, close, horizon=0)
    with pytest.raises(ShapeError, match="close must have the dimensions date and asset"):
        ewma_gaussian(close.isel(asset=0), close)
    with pytest.raises(PanelError, match="close must have every asset of forward_return"):
        ewma_gaussian(close.isel(asset=slice(2)), close)
    with pytest.raises(PanelError, match=r"close must be > 0 or NaN; got 0\.0"):
        ewma_gaussian(close * 0.0, close)


def test_public_names_are_found_lazily() -> None:
    assert diagnostics.hac_standard_error is hac_standard_error
    for name in diagnostics.__all__:
        found = getattr(diagnostics, name)
        assert name.isupper() or found.__name__ == name  # a table has no name of its own
    assert dir(diagnostics) == sorted(diagnostics.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = diagnostics.nothing
