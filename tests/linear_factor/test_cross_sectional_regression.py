import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import xarray as xr

import nfi_pyro.linear_factor as linear_factor
from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.linear_factor import CrossSectionalRegression, cross_sectional_regression

N_DATES, N_ASSETS, STYLES = 7, 53, ("beta", "size", "value")
INDUSTRIES = np.array(["bank", "drug", "food", "iron", "mine"])


def _cells(values: np.ndarray) -> xr.DataArray:
    n_dates, n_assets = values.shape[:2]
    coords: dict[str, object] = {
        "date": pd.bdate_range("2020-01-01", periods=n_dates),
        "asset": [f"A{i:02d}" for i in range(n_assets)],
    }
    if values.ndim == 3:
        coords["factor"] = list(STYLES[: values.shape[2]])
    return xr.DataArray(values, coords, ("date", "asset", "factor")[: values.ndim])


def _data(seed: int = 0) -> dict[str, xr.DataArray]:
    rng = np.random.default_rng(seed)
    exposures = rng.normal(size=(N_DATES, N_ASSETS, len(STYLES)))
    factors = 0.01 * rng.normal(size=(N_DATES, len(STYLES)))
    noise = 0.02 * rng.normal(size=(N_DATES, N_ASSETS))
    returns = _cells(0.003 + np.einsum("dak,dk->da", exposures, factors) + noise)
    return {
        "returns": returns.assign_attrs(start_lag=1, horizon=1, unit="return"),
        "exposures": _cells(exposures),
        "weights": _cells(rng.lognormal(size=(N_DATES, N_ASSETS))),
        "caps": _cells(rng.lognormal(3.0, 1.5, size=(N_DATES, N_ASSETS))),
        "industries": _cells(INDUSTRIES[rng.integers(0, 5, size=(N_DATES, N_ASSETS))]),
    }


def _full(data: dict[str, xr.DataArray], **options: object) -> CrossSectionalRegression:
    """Return the regression with everything on: weights, industries and cap constraint."""
    return cross_sectional_regression(
        data["returns"],
        data["exposures"],
        weights=data["weights"],
        industries=data["industries"],
        constraint_weights=data["caps"],
        **options,  # type: ignore[arg-type]
    )


def test_public_names_load_lazily() -> None:
    assert all(hasattr(linear_factor, name) for name in dir(linear_factor))
    with pytest.raises(AttributeError, match="no attribute 'lasso'"):
        linear_factor.lasso  # noqa: B018


# ---- closed forms and oracles --------------------------------------------------------------------


@pytest.mark.parametrize("errors", ["homoskedastic", "hc0", "hc1"])
@pytest.mark.parametrize("intercept", [True, False])
def test_agrees_with_statsmodels_wls(errors: str, intercept: bool) -> None:
    data = _data()
    data["returns"][2, 5] = np.nan
    data["exposures"][3, 7, 1] = np.nan
    data["weights"][4, 11] = np.nan
    found = cross_sectional_regression(
        data["returns"],
        data["exposures"],
        weights=data["weights"],
        errors=errors,
        intercept=intercept,
    )
    for date in range(N_DATES):
        design, y = data["exposures"].values[date], data["returns"].values[date]
        weights = data["weights"].values[date]
        used = np.isfinite(y) & np.isfinite(design).all(axis=1) & np.isfinite(weights)
        design = sm.add_constant(design) if intercept else design
        kind = "nonrobust" if errors == "homoskedastic" else errors.upper()
        fit = sm.WLS(y[used], design[used], weights=weights[used]).fit(cov_type=kind)
        for name, expected in {
            "factor_returns": fit.params,
            "standard_errors": fit.bse,
            "t_statistics": fit.tvalues,
            "r_squared": fit.rsquared,
            "adjusted_r_squared": fit.rsquared_adj,
            "residual_scale": math.sqrt(fit.scale / weights[used].mean()),
        }.items():
            np.testing.assert_allclose(
                getattr(found, name).values[date], expected, rtol=1e-8, atol=1e-12, err_msg=name
            )
        specific = found.specific_returns.values[date]
        np.testing.assert_allclose(specific[used], fit.resid, rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            found.fitted.values[date, used], fit.fittedvalues, rtol=0, atol=1e-12
        )
        assert np.isnan(specific[~used]).all()
        assert found.n_assets.values[date] == used.sum()
    assert found.converged.all()
    assert np.isinf(found.degrees_of_freedom).all()


def test_constraint_is_that_of_least_squares_with_a_lagrange_multiplier() -> None:
    data = _data(1)
    found = _full(data)
    names = ["market", *INDUSTRIES, *STYLES]
    assert found.factor_returns["factor"].values.tolist() == names
    assert found.factor_returns["kind"].values.tolist() == (
        ["market"] + ["industry"] * 5 + ["style"] * 3
    )
    for date in range(N_DATES):
        groups = data["industries"].values[date][:, None] == INDUSTRIES
        design = np.column_stack([np.ones(N_ASSETS), groups, data["exposures"].values[date]])
        caps, weights = data["caps"].values[date], data["weights"].values[date]
        row = np.concatenate([[0.0], caps @ groups / caps.sum(), np.zeros(3)])
        gram = design.T @ (design * weights[:, None])
        system = np.block([[gram, row[:, None]], [row[None], np.zeros((1, 1))]])
        right = np.append(design.T @ (weights * data["returns"].values[date]), 0.0)
        expected = np.linalg.solve(system, right)[:-1]
        estimate = found.factor_returns.values[date]
        np.testing.assert_allclose(estimate, expected, rtol=1e-8, atol=1e-12)
        assert abs(row @ estimate) < 1e-12 * np.abs(row * estimate).sum()
        residual = data["returns"].values[date] - design @ expected
        inverse = np.linalg.inv(system)[:-1, :-1]
        spread = np.sqrt(np.diag(inverse) * (weights @ residual**2) / (N_ASSETS - 8))
        np.testing.assert_allclose(found.standard_errors.values[date], spread, rtol=1e-8)
    assert (found.n_columns == 8).all()


def test_count_constraint_equal_to_unit_constraint_weights_and_fit_free_of_the_constraint() -> None:
    data = _data(2)
    counted = cross_sectional_regression(
        data["returns"], data["exposures"], industries=data["industries"]
    )
    ones = cross_sectional_regression(
        data["returns"],
        data["exposures"],
        industries=data["industries"],
        constraint_weights=xr.ones_like(data["caps"]),
    )
    free = cross_sectional_regression(
        data["returns"], data["exposures"], industries=data["industries"], intercept=False
    )
    np.testing.assert_allclose(counted.factor_returns, ones.factor_returns, rtol=0, atol=1e-15)
    np.testing.assert_allclose(free.fitted, counted.fitted, rtol=0, atol=1e-13)
    np.testing.assert_allclose(free.r_squared, counted.r_squared, rtol=1e-10)
    together = counted.factor_returns.sel(factor=INDUSTRIES) + counted.factor_returns.sel(
        factor="market", drop=True
    )
    np.testing.assert_allclose(
        free.factor_returns.sel(factor=INDUSTRIES), together, rtol=0, atol=1e-13
    )


def test_without_styles_that_vary_the_market_return_is_the_cap_weighted_return() -> None:
    """With regression weights equal to the constraint's, dummies alone give weighted means."""
    data = _data(3)
    found = cross_sectional_regression(
        data["returns"],
        data["exposures"].isel(factor=[]),
        weights=data["caps"],
        industries=data["industries"],
        constraint_weights=data["caps"],
    )
    expected = (data["returns"] * data["caps"]).sum("asset") / data["caps"].sum("asset")
    np.testing.assert_allclose(
        found.factor_returns.sel(factor="market"), expected, rtol=0, atol=1e-14
    )


def test_one_industry_earns_nothing_beyond_the_market() -> None:
    data = _data(4)
    data["industries"][:] = "bank"
    found = _full(data)
    alone = cross_sectional_regression(data["returns"], data["exposures"], weights=data["weights"])
    assert (found.factor_returns.sel(factor="bank") == 0.0).all()
    assert np.isnan(found.t_statistics.sel(factor="bank")).all()
    np.testing.assert_array_equal(
        found.factor_returns.sel(factor="size"), alone.factor_returns.sel(factor="size")
    )
    np.testing.assert_array_equal(found.fitted, alone.fitted)


# ---- invariants ----------------------------------------------------------------------------------


def test_order_of_assets_does_not_matter() -> None:
    data = _data(5)
    order = np.random.default_rng(5).permutation(N_ASSETS)
    found = _full(data)
    moved = _full({name: array.isel(asset=order) for name, array in data.items()})
    for name in ("factor_returns", "standard_errors", "r_squared"):
        np.testing.assert_allclose(getattr(moved, name), getattr(found, name), rtol=1e-9)
    np.testing.assert_allclose(
        moved.specific_returns, found.specific_returns.isel(asset=order), rtol=0, atol=1e-14
    )


def test_a_masked_asset_changes_nothing_whatever_else_it_carries() -> None:
    data = _data(6)
    more = {}
    for name, array in data.items():
        extra = array.isel(asset=[3]).assign_coords(asset=["NEW"])
        more[name] = xr.concat([array, extra], "asset")
    more["exposures"][:, -1] = 1e9
    more["caps"][:, -1] = 1e12
    more["industries"][:, -1] = "zinc"
    more["returns"][:, -1] = np.nan
    found, same = _full(data), _full(more)
    assert same.absent.sel(factor="zinc").all()
    for name in ("factor_returns", "standard_errors"):
        array = getattr(same, name)
        assert np.isnan(array.sel(factor="zinc")).all()
        np.testing.assert_array_equal(array.drop_sel(factor="zinc"), getattr(found, name))
    assert (same.n_left_out == 1).all()
    assert np.isnan(same.specific_returns.sel(asset="NEW")).all()


def test_units_of_a_column_the_returns_and_the_weights() -> None:
    data = _data(7)
    found = _full(data)
    scaled = {**data, "exposures": data["exposures"] * np.array([1.0, 4.0, 1.0])}
    other = _full(scaled)
    for name in ("factor_returns", "standard_errors"):
        expected = getattr(found, name).copy()
        expected.loc[{"factor": "size"}] /= 4.0
        np.testing.assert_allclose(getattr(other, name), expected, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(other.t_statistics, found.t_statistics, rtol=1e-9)
    per_date = xr.DataArray(10.0 ** np.arange(-3, 4), {"date": data["weights"]["date"]}, "date")
    heavier = _full({**data, "weights": data["weights"] * per_date, "caps": data["caps"] * 7.0})
    np.testing.assert_allclose(heavier.factor_returns, found.factor_returns, rtol=0, atol=1e-13)
    np.testing.assert_allclose(heavier.residual_scale, found.residual_scale, rtol=1e-12)
    percent = _full({**data, "returns": data["returns"] * 100.0})
    np.testing.assert_allclose(percent.t_statistics, found.t_statistics, rtol=1e-9)


def test_a_date_uses_nothing_of_the_others() -> None:
    data = _data(8)
    found = _full(data)
    cut = _full({name: array.isel(date=slice(0, 4)) for name, array in data.items()})
    wild = {name: array.copy(deep=True) for name, array in data.items()}
    wild["returns"][4:] = 9.0
    wild["exposures"][4:] = np.nan
    wild["weights"][4:] *= 1e6
    for other in (cut, _full(wild)):
        for name in ("factor_returns", "standard_errors", "specific_returns"):
            np.testing.assert_array_equal(
                getattr(other, name).isel(date=slice(0, 4)),
                getattr(found, name).isel(date=slice(0, 4)),
            )
    wild = {**data, "exposures": data["exposures"].copy(deep=True)}
    wild["exposures"][2, 3, 0] += 1.0  # of its own date every cell counts
    assert (_full(wild).factor_returns != found.factor_returns).any("factor").values.tolist() == [
        date == 2 for date in range(N_DATES)
    ]


def test_attributes_and_names_travel() -> None:
    found = _full(_data(9))
    for array in (found.factor_returns, found.specific_returns):
        assert array.attrs == {"start_lag": 1, "horizon": 1, "unit": "return"}
    assert found.factor_returns.name == "factor_returns"


# ---- simulated truth -----------------------------------------------------------------------------


def test_factor_returns_are_within_their_computed_errors() -> None:
    rng = np.random.default_rng(10)
    n_dates, n_assets = 211, 97
    exposures = rng.normal(size=(n_dates, n_assets, 3))
    truth = 0.01 * rng.normal(size=(n_dates, 3))
    weights = rng.lognormal(size=(n_dates, n_assets))
    noise = 0.02 * rng.normal(size=(n_dates, n_assets)) / np.sqrt(weights)
    returns = np.einsum("dak,dk->da", exposures, truth) + noise
    found = cross_sectional_regression(_cells(returns), _cells(exposures), weights=_cells(weights))
    estimate = found.factor_returns.sel(factor=list(STYLES))
    errors = found.standard_errors.sel(factor=list(STYLES))
    z = ((estimate - truth) / errors).values
    # 633 t ratios with 93 degrees of freedom: mean square 93 / 91, its sd about sqrt(2 / 633)
    assert abs(np.mean(z**2) - 93 / 91) < 4 * math.sqrt(2.1 / z.size)
    assert abs(z.mean()) < 4 / math.sqrt(z.size)


# ---- what is left out and dropped ----------------------------------------------------------------


def test_collinear_columns_are_dropped_by_name_and_date_and_the_rest_is_as_without_them() -> None:
    data = _data(11)
    data["exposures"][1, :, 2] = 2.0 * data["exposures"][1, :, 0] - 3.0  # value repeats beta
    data["exposures"][3, :, 0] = 5.0  # a constant repeats the market
    data["exposures"][4, :, 1] = 0.0
    data["exposures"][5, :, 1] = data["exposures"][5, :, 0].astype(np.float32)  # to rounding
    data["exposures"][6, :, 2] = data["industries"][6] == "bank"
    found = _full(data)
    expected = {1: "value", 3: "beta", 4: "size", 5: "size", 6: "value"}
    for date in range(N_DATES):
        names = found.dropped["factor"].values[found.dropped.values[date]].tolist()
        assert names == ([expected[date]] if date in expected else [])
        one = {name: array.isel(date=[date]) for name, array in data.items()}
        one["exposures"] = one["exposures"].drop_sel(factor=names)
        alone = _full(one)
        for name in ("factor_returns", "standard_errors"):
            array = getattr(found, name).isel(date=[date])
            assert np.isnan(array.sel(factor=names)).all()
            np.testing.assert_allclose(
                array.drop_sel(factor=names), getattr(alone, name), rtol=1e-8, atol=1e-13
            )
        np.testing.assert_allclose(
            found.adjusted_r_squared.isel(date=[date]), alone.adjusted_r_squared, rtol=1e-9
        )
    finding = next(f for f in found.ledger.findings if "combinations" in f.rule)
    assert finding.count == 5
    assert finding.places[0] == "value on 2020-01-02"
    assert (found.n_columns.values == [8, 7, 8, 7, 7, 7, 7]).all()


def test_nearly_collinear_columns_stay_and_are_exact() -> None:
    data = _data(12)
    rng = np.random.default_rng(12)
    near = data["exposures"][:, :, 0] + 1e-4 * rng.normal(size=(N_DATES, N_ASSETS))
    data["exposures"][:, :, 2] = near
    found = cross_sectional_regression(data["returns"], data["exposures"])
    assert not found.dropped.any()
    assert (found.condition > 1e4).all()
    for date in range(N_DATES):
        design = sm.add_constant(data["exposures"].values[date])
        expected = np.linalg.lstsq(design, data["returns"].values[date], rcond=None)[0]
        np.testing.assert_allclose(found.factor_returns.values[date], expected, rtol=1e-8)


def test_every_cell_left_out_is_counted_with_its_reason() -> None:
    data = _data(13)
    data["returns"][0, :2] = np.nan
    data["exposures"][0, 1:4, 0] = np.nan
    data["weights"][1, 4] = np.nan
    data["industries"] = data["industries"].astype(object)
    data["industries"][1, 5] = ""
    data["industries"][1, 6] = None
    data["caps"][2, 7] = np.nan
    found = _full(data)
    counts = {f.rule: (f.count, f.places[0]) for f in found.ledger.findings}
    assert counts == {
        "cells with no return": (2, "A00 on 2020-01-01"),
        "cells with no exposure": (2, "A02 on 2020-01-01"),
        "cells with no weight": (1, "A04 on 2020-01-02"),
        "cells with no industry": (2, "A05 on 2020-01-02"),
        "cells with no constraint weight": (1, "A07 on 2020-01-03"),
    }
    assert found.n_left_out.values.tolist() == [4, 3, 1, 0, 0, 0, 0]
    assert (found.n_assets + found.n_left_out == N_ASSETS).all()


@pytest.mark.parametrize("n_left", [0, 2, 7, 8])
def test_a_date_without_spare_assets_is_nan_and_counted(n_left: int) -> None:
    data = _data(14)
    data["industries"][:] = np.resize(INDUSTRIES, N_ASSETS)
    data["returns"][3, n_left:] = np.nan
    found = _full(data)
    assert np.isnan(found.factor_returns[3]).all()
    assert np.isnan(found.specific_returns[3]).all()
    assert np.isnan(found.r_squared[3])
    assert not found.converged[3]
    assert found.n_columns.values[3] == 0
    assert found.factor_returns.drop_isel(date=3).notnull().all()
    finding = next(f for f in found.ledger.findings if f.rule.startswith("dates without more"))
    assert (finding.count, finding.places) == (1, (f"{n_left} assets on 2020-01-06",))


def test_nine_assets_are_enough_for_eight_columns() -> None:
    data = _data(15)
    data["industries"][:] = np.resize(INDUSTRIES, N_ASSETS)
    data["returns"][3, 9:] = np.nan
    assert _full(data).standard_errors[3].notnull().all()


def test_returns_that_do_not_vary_have_no_r_squared_and_columns_of_zeros_no_regression() -> None:
    data = _data(16)
    data["returns"][2] = 0.01
    found = cross_sectional_regression(data["returns"], data["exposures"])
    assert np.isnan(found.r_squared[2])
    np.testing.assert_allclose(found.factor_returns[2], [0.01, 0, 0, 0], rtol=0, atol=1e-15)
    zeros = data["exposures"].where(data["exposures"]["date"] != data["exposures"]["date"][1], 0.0)
    found = cross_sectional_regression(data["returns"], zeros, intercept=False)
    assert found.dropped[1].all()
    assert np.isnan(found.factor_returns[1]).all()


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weights", 0.0, r"weights must be > 0, finite or NaN; got 0.0 at A03 on 2020-01-02"),
        ("weights", -1.0, r"weights must be > 0"),
        ("caps", np.inf, r"constraint_weights must be > 0, finite or NaN; got inf at A03"),
        ("returns", np.inf, r"returns must be finite or NaN; got inf at A03 on 2020-01-02"),
        ("exposures", -np.inf, r"exposures must be finite .* at A03 beta on 2020-01-02, A03 size"),
    ],
)
def test_values_out_of_range_are_named(name: str, value: float, message: str) -> None:
    data = _data(17)
    data[name][1, 3] = value
    with pytest.raises(SpecError, match=message):
        _full(data)


def test_options_and_labels_are_checked() -> None:
    data = _data(18)
    returns, exposures = data["returns"], data["exposures"]
    renamed = exposures.assign_coords(factor=["market", "size", "value"])
    backwards = data["weights"].isel(asset=slice(None, None, -1))
    with pytest.raises(SpecError, match=r"errors must be one of .*; got 'hc3'"):
        cross_sectional_regression(returns, exposures, errors="hc3")
    with pytest.raises(SpecError, match=r"noise must be one of .*; got 'cauchy'"):
        cross_sectional_regression(returns, exposures, noise="cauchy")
    with pytest.raises(SpecError, match=r"constraint_weights must come .* got no industries"):
        cross_sectional_regression(returns, exposures, constraint_weights=data["caps"])
    with pytest.raises(SpecError, match=r"constraint_weights must come .* got no intercept"):
        _full(data, intercept=False)
    with pytest.raises(SpecError, match=r"columns must have names of their own.*got market"):
        cross_sectional_regression(returns, renamed)
    with pytest.raises(SpecError, match=r"at least one; got nowhere .*0 columns"):
        cross_sectional_regression(returns, exposures.isel(factor=[]), intercept=False)
    with pytest.raises(ShapeError, match="exposures must have the dimensions"):
        cross_sectional_regression(returns, exposures.isel(factor=0))
    with pytest.raises(ShapeError, match="exposures must have the dates of the array"):
        cross_sectional_regression(returns, exposures.isel(date=slice(1, None)))
    with pytest.raises(ShapeError, match="weights must have the assets of the array"):
        cross_sectional_regression(returns, exposures, weights=backwards)


def test_industries_by_asset_alone_and_as_numbers() -> None:
    data = _data(19)
    fixed = data["industries"].isel(date=0, drop=True)
    codes = xr.DataArray(np.searchsorted(INDUSTRIES, fixed), fixed.coords, "asset")
    results = [
        cross_sectional_regression(data["returns"], data["exposures"], industries=given)
        for given in (fixed, fixed.broadcast_like(data["returns"]), codes)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(other.factor_returns, results[0].factor_returns)
    assert results[2].factor_returns["factor"].values[1:6].tolist() == list("01234")
