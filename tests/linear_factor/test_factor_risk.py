import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import xarray as xr
from statsmodels.stats.sandwich_covariance import S_hac_simple

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.linear_factor import factor_covariance, fama_macbeth, specific_risk
from nfi_pyro.linear_factor.long_run import decay, long_run_covariance, running_variance

N_DATES, NAMES = 41, ["market", "size", "value"]


def _table(seed: int = 0, n_dates: int = N_DATES, dim: str = "factor") -> xr.DataArray:
    """Return serially correlated series, known two dates after their own."""
    rng = np.random.default_rng(seed)
    shocks = 0.01 * rng.normal(size=(n_dates + 1, 3)) @ rng.normal(size=(3, 3))
    values = 0.002 + shocks[1:] + 0.5 * shocks[:-1]
    coords = {"date": pd.bdate_range("2020-01-01", periods=n_dates), dim: NAMES}
    attrs = {"start_lag": 1, "horizon": 1, "unit": "return"}
    return xr.DataArray(values, coords, ("date", dim), attrs=attrs)


# ---- the estimator -------------------------------------------------------------------------------


def test_one_lag_by_hand() -> None:
    """x = 1, 2, 4 around 0 with weights 1, 1, 4 and one lag: k_1 = 1/2, root weights 1 and 2."""
    found, mean = long_run_covariance(
        np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 1.0, 4.0]), 1, centred=False
    )
    # own: 1 + 4 + 4 * 16 = 69; lag: 2 * 1/2 * (1 * 1 * 2 + 2 * 2 * 4) = 18; weights 6
    assert found[0, 0] == pytest.approx((69 + 18) / 6, rel=1e-15)
    assert mean[0] == 0.0


@pytest.mark.parametrize("n_lags", [0, 1, 2, 5])
def test_equal_weights_agree_with_statsmodels(n_lags: int) -> None:
    table = _table()
    found = factor_covariance(table, newey_west_lags=n_lags)
    apart = (table - table.mean("date")).to_numpy()
    expected = S_hac_simple(apart, nlags=n_lags) / N_DATES
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-10)
    np.testing.assert_allclose(found.mean, table.mean("date"), rtol=1e-12)
    assert float(found.effective_dates) == pytest.approx(N_DATES)
    if n_lags == 0:
        np.testing.assert_allclose(found.covariance, np.cov(table.values.T, ddof=0), rtol=1e-10)


def test_weights_halve_every_half_life() -> None:
    table = _table(1)
    found = factor_covariance(table, half_life=7.0)
    weights = 0.5 ** ((N_DATES - 1 - np.arange(N_DATES)) / 7.0)
    expected = np.cov(table.values.T, aweights=weights, ddof=0)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-10)
    np.testing.assert_allclose(found.mean, np.average(table, axis=0, weights=weights), rtol=1e-10)
    assert float(found.effective_dates) == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


@pytest.mark.parametrize("half_life", [None, 2.0, 13.0])
@pytest.mark.parametrize("n_lags", [1, 4, 60])
def test_is_positive_semidefinite_by_construction(half_life: float | None, n_lags: int) -> None:
    """Few dates, opposite neighbours and steep weights: the case that breaks later weights."""
    values = _table(2, 7).values * (-1.0) ** np.arange(7)[:, None]
    values[3] = np.nan
    table = _table(2, 7).copy(data=values)
    found = factor_covariance(table, half_life=half_life, newey_west_lags=n_lags, min_dates=2)
    spectrum = np.linalg.eigvalsh(found.covariance)
    assert spectrum[0] >= -1e-12 * spectrum[-1]
    assert float(found.smallest_eigenvalue) == pytest.approx(spectrum[0], abs=1e-18)
    assert float(found.largest_eigenvalue) == pytest.approx(spectrum[-1], rel=1e-10)
    assert int(found.n_clipped) == 0


def test_scaling_a_factor_and_reordering_factors() -> None:
    table = _table(3)
    found = factor_covariance(table, half_life=11.0, newey_west_lags=2).covariance
    scale = np.array([1.0, -3.0, 0.5])
    scaled = factor_covariance(table * scale, half_life=11.0, newey_west_lags=2).covariance
    np.testing.assert_allclose(scaled, found * np.outer(scale, scale), rtol=1e-10)
    turned = factor_covariance(table[:, [2, 0, 1]], half_life=11.0, newey_west_lags=2).covariance
    np.testing.assert_allclose(turned, found.values[np.ix_([2, 0, 1], [2, 0, 1])], rtol=1e-10)


def test_newey_west_sees_the_serial_correlation_of_a_simulated_truth() -> None:
    """x_t = e_t + .5 e_{t-1}: variance 1.25, long-run variance 2.25."""
    rng = np.random.default_rng(4)
    shocks = rng.normal(size=20_001)
    series = (shocks[1:] + 0.5 * shocks[:-1])[:, None]
    short, _ = long_run_covariance(series, np.ones(20_000), 0)
    long, _ = long_run_covariance(series, np.ones(20_000), 20)
    assert short[0, 0] == pytest.approx(1.25, rel=0.05)
    assert long[0, 0] == pytest.approx(1.25 + 2 * 20 / 21 * 0.5, rel=0.1)


# ---- missing factor returns ----------------------------------------------------------------------


def test_a_date_with_a_gap_is_left_out_and_keeps_its_place() -> None:
    table = _table(5)
    table[7, 1] = np.nan
    found = factor_covariance(table, half_life=9.0, newey_west_lags=1)
    weights = 0.5 ** ((N_DATES - 1 - np.arange(N_DATES)) / 9.0)
    weights[7] = 0.0
    values = np.nan_to_num(table.values)
    apart = (values - weights @ values / weights.sum()) * np.sqrt(weights)[:, None]
    cross = apart[1:].T @ apart[:-1]
    expected = (apart.T @ apart + 0.5 * (cross + cross.T)) / weights.sum()
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-10)
    assert found.n_dates.values.tolist() == [N_DATES - 1] * 3
    finding = found.ledger.findings[0]
    assert (finding.count, finding.action, finding.places) == (1, "left out", ("2020-01-10",))


def test_a_factor_with_too_few_dates_is_nan_and_costs_the_others_nothing() -> None:
    table = _table(6)
    table[: N_DATES - 5, 2] = np.nan
    found = factor_covariance(table, min_dates=6)
    assert np.isnan(found.covariance.values[2]).all()
    assert np.isnan(found.covariance.values[:, 2]).all()
    alone = factor_covariance(table[:, :2], min_dates=6)
    np.testing.assert_array_equal(found.covariance.values[:2, :2], alone.covariance)
    finding = found.ledger.findings[0]
    assert (finding.rule, finding.count) == ("factor variances with too few dates", 1)
    assert finding.places == ("value",)
    nothing = factor_covariance(table, min_dates=N_DATES + 1)
    assert np.isnan(nothing.covariance).all()
    assert np.isnan(nothing.smallest_eigenvalue)


def test_pairs_can_be_indefinite_and_then_the_policy_is_asked_for() -> None:
    ones = np.array([1.0, -1.0] * 4)
    table = xr.DataArray(
        np.full((24, 3), np.nan),
        {"date": pd.bdate_range("2020-01-01", periods=24), "factor": NAMES},
        ("date", "factor"),
    )
    table[:8, 0], table[:8, 1] = ones, ones  # together
    table[8:16, 1], table[8:16, 2] = ones, ones  # together
    table[16:, 0], table[16:, 2] = ones, -ones  # opposite: no such covariance exists
    options: dict[str, object] = {"missing": "pairwise", "min_dates": 2, "centred": False}
    kept = factor_covariance(table, indefinite="keep", **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(kept.covariance, [[1, 1, -1], [1, 1, 1], [-1, 1, 1]], rtol=1e-12)
    assert float(kept.smallest_eigenvalue) == pytest.approx(-1.0)
    with pytest.raises(SpecError, match=r"must be positive semidefinite; got an eigenvalue -1"):
        factor_covariance(table, **options)  # type: ignore[arg-type]
    clipped = factor_covariance(table, indefinite="clip", **options)  # type: ignore[arg-type]
    spectrum = np.linalg.eigvalsh(clipped.covariance)
    np.testing.assert_allclose(spectrum, [0.0, 2.0, 2.0], rtol=0, atol=1e-12)
    assert float(clipped.smallest_eigenvalue) == pytest.approx(-1.0)
    assert int(clipped.n_clipped) == 1
    assert clipped.ledger.findings[-1].rule == "negative eigenvalues"
    everywhere = factor_covariance(_table(7), missing="pairwise", newey_west_lags=2)
    dropped = factor_covariance(_table(7), newey_west_lags=2)
    np.testing.assert_allclose(everywhere.covariance, dropped.covariance, rtol=1e-12)


# ---- timing --------------------------------------------------------------------------------------


def test_by_date_uses_the_dates_whose_labels_are_known() -> None:
    table = _table(8).assign_attrs(start_lag=1, horizon=2)  # known three dates later
    options: dict[str, object] = {"half_life": 9.0, "newey_west_lags": 2, "min_dates": 5}
    found = factor_covariance(table, by="date", **options)  # type: ignore[arg-type]
    assert found.covariance.dims == ("date", "factor", "other_factor")
    for date in range(N_DATES):
        if date < 3 + 4:  # five known dates need the eighth
            assert np.isnan(found.covariance[date]).all()
            continue
        alone = factor_covariance(table[: date - 2], **options)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.covariance[date], alone.covariance)
        np.testing.assert_array_equal(found.n_dates[date], date - 2)
    finding = found.ledger.findings[-1]
    assert (finding.rule, finding.count) == ("factor variances with too few dates", 7 * 3)


@pytest.mark.parametrize("cut", [11, 29])
def test_what_is_known_at_a_close_does_not_depend_on_later_returns(cut: int) -> None:
    table = _table(9)
    specific = _table(9, dim="asset")
    wild = [array.copy(deep=True) for array in (table, specific)]
    for array in wild:
        array[cut - 1 :] = 9.0  # the label of cut - 1 is known at the close of cut + 1
    options: dict[str, object] = {"half_life": 5.0, "newey_west_lags": 1, "by": "date"}
    found = factor_covariance(table, min_dates=4, **options)  # type: ignore[arg-type]
    same = factor_covariance(wild[0], min_dates=4, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.covariance[: cut + 1], same.covariance[: cut + 1])
    assert (found.covariance[cut + 1] != same.covariance[cut + 1]).all()
    risk = specific_risk(specific, min_observations=4, **options)  # type: ignore[arg-type]
    other = specific_risk(wild[1], min_observations=4, **options)  # type: ignore[arg-type]
    short = specific_risk(specific[:cut], min_observations=4, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(risk.variance[: cut + 1], other.variance[: cut + 1])
    np.testing.assert_array_equal(risk.variance[:cut], short.variance)
    assert (risk.variance[cut + 1] != other.variance[cut + 1]).all()


# ---- specific risk -------------------------------------------------------------------------------


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("half_life", [None, 6.0])
@pytest.mark.parametrize("n_lags", [0, 1, 3, 50])
def test_recursion_gives_the_sums_over_the_past(
    centred: bool, half_life: float | None, n_lags: int
) -> None:
    values = _table(10).values.copy()
    values[np.random.default_rng(10).random(values.shape) < 0.3] = np.nan
    values[:9, 1] = np.nan
    found = running_variance(values, decay(half_life), n_lags, centred=centred)
    for date in range(N_DATES):
        weights = decay(half_life) ** np.arange(date, -1, -1.0)
        for asset in range(3):
            past = values[: date + 1, [asset]]
            expected, _ = long_run_covariance(past, weights, n_lags, centred=centred)
            np.testing.assert_allclose(found[date, asset], expected[0, 0], rtol=1e-9, atol=1e-14)


def test_specific_risk_counts_what_it_has() -> None:
    table = _table(11, dim="asset")
    table[: N_DATES - 6, 2] = np.nan
    found = specific_risk(table, half_life=8.0, newey_west_lags=1, min_observations=7)
    assert found.variance.dims == ("asset",)
    assert np.isnan(found.variance.sel(asset="value"))
    assert found.n_observations.values.tolist() == [N_DATES, N_DATES, 6]
    finding = found.ledger.findings[0]
    assert (finding.count, finding.places) == (1, ("value",))
    matrix = factor_covariance(
        _table(11)[:, :2], half_life=8.0, newey_west_lags=1
    ).covariance.values
    np.testing.assert_allclose(found.variance[:2], np.diag(matrix), rtol=1e-9)


# ---- Fama-MacBeth --------------------------------------------------------------------------------


def test_fama_macbeth_agrees_with_statsmodels() -> None:
    table = _table(12)
    found = fama_macbeth(table, n_lags=3)
    for position, name in enumerate(NAMES):
        fit = sm.OLS(table.values[:, position], np.ones(N_DATES)).fit(
            cov_type="HAC", cov_kwds={"maxlags": 3, "use_correction": False}
        )
        assert float(found.mean.sel(factor=name)) == pytest.approx(fit.params[0], rel=1e-10)
        assert float(found.standard_error.sel(factor=name)) == pytest.approx(fit.bse[0], rel=1e-8)
        assert float(found.t_statistic.sel(factor=name)) == pytest.approx(fit.tvalues[0], rel=1e-8)


def test_fama_macbeth_with_gaps_and_default_lags() -> None:
    table = _table(13)
    table[:, 1] = np.nan
    table[4, 2] = np.nan
    found = fama_macbeth(table)
    assert found.n_lags == 3  # floor(4 * .41^(2/9)) = floor(3.28)
    assert fama_macbeth(table.assign_attrs(horizon=6)).n_lags == 5
    assert found.n_dates.values.tolist() == [N_DATES, 0, N_DATES - 1]
    assert np.isnan(found.mean.values[1])
    assert np.isnan(found.standard_error.values[1])
    assert float(found.mean[2]) == pytest.approx(float(table[:, 2].mean()), rel=1e-12)
    alone = fama_macbeth(table[:1])
    assert alone.mean[0] == table[0, 0]
    assert np.isnan(alone.standard_error).all()


def test_premia_of_a_simulated_truth_are_within_their_errors() -> None:
    rng = np.random.default_rng(14)
    shocks = 0.01 * rng.normal(size=(2004, 97))
    values = 0.001 + shocks[1:] + 0.4 * shocks[:-1]
    table = xr.DataArray(values, {"factor": [f"f{k}" for k in range(97)]}, ("date", "factor"))
    z = ((fama_macbeth(table).mean - 0.001) / fama_macbeth(table).standard_error).values
    # 97 independent ratios; eight lags leave out about 5 percent of the long-run variance
    assert abs(np.mean(z**2) - 1.05) < 4 * np.sqrt(2 / 97)


# ---- bad input -----------------------------------------------------------------------------------


def test_options_and_values_are_checked() -> None:
    table, specific = _table(15), _table(15, dim="asset")
    with pytest.raises(SpecError, match="half_life must be > 0 and finite, in dates; got 0"):
        factor_covariance(table, half_life=0.0)
    with pytest.raises(SpecError, match=r"newey_west_lags must be >= 0 .* got -1 and 20"):
        specific_risk(specific, newey_west_lags=-1)
    with pytest.raises(SpecError, match="fewest dates >= 2; got 0 and 1"):
        factor_covariance(table, min_dates=1)
    with pytest.raises(SpecError, match=r"by must be one of .*; got 'month'"):
        specific_risk(specific, by="month")
    with pytest.raises(SpecError, match=r"missing must be one of .*; got 'zero'"):
        factor_covariance(table, missing="zero")
    with pytest.raises(SpecError, match=r"indefinite must be one of .*; got 'ridge'"):
        factor_covariance(table, indefinite="ridge")
    with pytest.raises(SpecError, match="attributes start_lag >= 0 and horizon >= 1 must say"):
        factor_covariance(table.drop_attrs(), by="date")
    with pytest.raises(SpecError, match="attributes start_lag >= 0 and horizon >= 1 must say"):
        specific_risk(specific.assign_attrs(horizon=0), by="date")
    with pytest.raises(ShapeError, match="factor_returns must have the dimensions"):
        factor_covariance(specific)
    with pytest.raises(SpecError, match="n_lags must be >= 0; got -2"):
        fama_macbeth(table, n_lags=-2)
    table[3, 1] = np.inf
    specific[3, 1] = -np.inf
    with pytest.raises(SpecError, match=r"factor_returns must be finite or NaN.* at 2020-01-06"):
        factor_covariance(table)
    with pytest.raises(SpecError, match="factor_returns must be finite or NaN"):
        fama_macbeth(table)
    with pytest.raises(SpecError, match=r"must be finite or NaN.* at size on 2020-01-06"):
        specific_risk(specific)
