import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.errors import ShapeError, SpecError, WeightsError
from nfi_pyro.linear_factor import (
    cross_sectional_regression,
    factor_covariance,
    linear_risk_model,
    specific_risk,
)

ASSETS = [f"A{i}" for i in range(7)]
FACTORS = ["market", "bank", "drug", "size"]
KINDS = ["market", "industry", "industry", "style"]


def _pieces(seed: int = 0) -> dict[str, xr.DataArray]:
    rng = np.random.default_rng(seed)
    root = 0.01 * rng.normal(size=(4, 5))
    asset = {"asset": ASSETS}
    return {
        "exposures": xr.DataArray(
            rng.normal(size=(7, 2)), {**asset, "factor": ["value", "size"]}, ("asset", "factor")
        ),
        "factor_covariance": xr.DataArray(
            root @ root.T,
            {"factor": FACTORS, "kind": ("factor", KINDS), "other_factor": FACTORS},
            ("factor", "other_factor"),
        ),
        "specific_variance": xr.DataArray(rng.uniform(1e-4, 4e-4, size=7), asset, "asset"),
        "industries": xr.DataArray(list(np.resize(["bank", "drug"], 7)), asset, "asset"),
    }


def _design(pieces: dict[str, xr.DataArray]) -> np.ndarray:
    groups = pieces["industries"].values[:, None] == np.array(["bank", "drug"])
    return np.column_stack([np.ones(7), groups, pieces["exposures"].sel(factor="size")])


def test_variance_is_the_quadratic_form_of_the_dense_matrix() -> None:
    pieces = _pieces()
    model = linear_risk_model(**pieces)
    design, square = _design(pieces), pieces["factor_covariance"].values
    dense = design @ square @ design.T + np.diag(pieces["specific_variance"])
    np.testing.assert_allclose(model.covariance(), dense, rtol=1e-12)
    weights = np.random.default_rng(1).normal(size=7)
    found = model.portfolio_variance(dict(zip(ASSETS, weights, strict=True)))
    assert found.total == pytest.approx(weights @ dense @ weights, rel=1e-12)
    assert found.specific == pytest.approx(weights**2 @ pieces["specific_variance"].values)
    assert found.total == pytest.approx(found.factor + found.specific, rel=1e-15)
    np.testing.assert_allclose(found.exposure, design.T @ weights, rtol=1e-12)
    assert found.exposure["factor"].values.tolist() == FACTORS
    np.testing.assert_allclose(
        model.times(pd.Series(weights, ASSETS)), dense @ weights, rtol=1e-10, atol=1e-18
    )


def test_variance_is_that_of_draws() -> None:
    pieces = _pieces(2)
    model = linear_risk_model(**pieces)
    rng = np.random.default_rng(2)
    weights = xr.DataArray(rng.dirichlet(np.ones(7)), {"asset": ASSETS}, "asset")
    factors = rng.multivariate_normal(np.zeros(4), pieces["factor_covariance"], size=200_000)
    specific = rng.normal(size=(200_000, 7)) * np.sqrt(pieces["specific_variance"].values)
    returns = (factors @ _design(pieces).T + specific) @ weights.values
    # the sd of a variance of n normal draws is sqrt(2 / n) of it
    assert model.portfolio_variance(weights).total == pytest.approx(
        returns.var(), rel=4 * np.sqrt(2 / 200_000)
    )


def test_order_of_assets_and_weights_not_named_do_not_matter() -> None:
    pieces = _pieces(3)
    weights = {"A5": 0.6, "A1": 0.4}
    found = linear_risk_model(**pieces).portfolio_variance(weights)
    order = [3, 5, 0, 6, 1, 2, 4]
    turned = {
        name: array.isel(asset=order) if "asset" in array.dims else array
        for name, array in pieces.items()
    }
    other = linear_risk_model(**turned).portfolio_variance(weights)
    assert other.total == pytest.approx(found.total, rel=1e-13)


def test_assets_without_all_pieces_are_left_out_and_counted() -> None:
    pieces = _pieces(4)
    pieces["exposures"].loc["A0", "size"] = np.nan
    pieces["exposures"].loc["A1", "value"] = np.nan  # no factor of the covariance
    pieces["specific_variance"].loc["A2"] = np.nan
    pieces["industries"] = pieces["industries"].astype(object)
    pieces["industries"].loc["A3"] = "iron"  # never seen
    pieces["industries"].loc["A4"] = None
    model = linear_risk_model(**pieces)
    assert model.exposures["asset"].values.tolist() == ["A1", "A5", "A6"]
    found = {f.rule: f.places for f in model.ledger.findings}
    assert found == {
        "assets without an exposure or a known industry": ("A0", "A3", "A4"),
        "assets without a specific variance": ("A2",),
    }
    assert model.portfolio_variance({"A1": 0.5, "A0": 0.0}).total > 0.0
    with pytest.raises(WeightsError, match=r"weights must be on assets with exposures.* at A2, A9"):
        model.portfolio_variance({"A1": 0.5, "A2": 0.1, "A9": 0.4})


def test_a_factor_without_a_variance_costs_the_assets_exposed_to_it() -> None:
    pieces = _pieces(5)
    pieces["factor_covariance"].loc["drug"] = np.nan
    pieces["factor_covariance"].loc[:, "drug"] = np.nan
    model = linear_risk_model(**pieces)
    assert model.exposures["asset"].values.tolist() == ["A0", "A2", "A4", "A6"]
    assert model.exposures["factor"].values.tolist() == ["market", "bank", "size"]
    rules = [(f.rule, f.count) for f in model.ledger.findings]
    assert rules == [
        ("factors without a variance", 1),
        ("assets exposed to a factor without a variance", 3),
    ]
    assert model.covariance().notnull().all()


def test_bad_weights_and_pieces_are_refused() -> None:
    pieces = _pieces(6)
    model = linear_risk_model(**pieces)
    ranked = pieces["factor_covariance"].assign_attrs(unit="rank")
    with pytest.raises(WeightsError, match=r"weights must be finite, one an asset.* at A1, A0"):
        model.portfolio_variance(pd.Series([1.0, np.nan, 2.0], ["A0", "A1", "A0"]))
    with pytest.raises(SpecError, match=r"exposures must have every style.* none for bank, drug"):
        linear_risk_model(**{**pieces, "industries": None})  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"exposures must have every style.* none for size"):
        linear_risk_model(**{**pieces, "exposures": pieces["exposures"].drop_sel(factor="size")})
    with pytest.raises(SpecError, match="risk must be that of returns; got labels of unit 'rank'"):
        linear_risk_model(**{**pieces, "factor_covariance": ranked})
    with pytest.raises(SpecError, match=r"specific_variance must be >= 0.* at A0, A1"):
        linear_risk_model(**{**pieces, "specific_variance": -pieces["specific_variance"]})
    with pytest.raises(ShapeError, match="specific_variance must have the assets"):
        linear_risk_model(**{**pieces, "specific_variance": pieces["specific_variance"][:5]})
    gap = pieces["factor_covariance"].copy(deep=True)
    gap[0, 3] = gap[3, 0] = np.nan
    with pytest.raises(SpecError, match="factor_covariance must be known for every pair"):
        linear_risk_model(**{**pieces, "factor_covariance": gap})


def test_from_returns_to_the_risk_of_a_simulated_truth() -> None:
    """The whole chain on a known law: the variance of an even portfolio comes back."""
    rng = np.random.default_rng(7)
    n_dates, n_assets = 797, 151
    root = 0.01 * np.array([[1.0, 0.0], [0.3, 0.5]])
    style = rng.normal(size=n_assets)
    specific = rng.uniform(0.01, 0.03, size=n_assets)
    factors = rng.normal(size=(n_dates, 2)) @ root.T
    returns = factors[:, [0]] + factors[:, [1]] * style
    returns = returns + specific * rng.normal(size=(n_dates, n_assets))
    coords: dict[str, object] = {
        "date": pd.bdate_range("2020-01-01", periods=n_dates),
        "asset": [f"A{i}" for i in range(n_assets)],
    }
    exposures = xr.DataArray(
        np.broadcast_to(style[:, None], (n_dates, n_assets, 1)),
        {**coords, "factor": ["size"]},
        ("date", "asset", "factor"),
    )
    fit = cross_sectional_regression(xr.DataArray(returns, coords, ("date", "asset")), exposures)
    model = linear_risk_model(
        exposures[-1].drop_vars("date"),
        factor_covariance(fit.factor_returns).covariance,
        specific_risk(fit.specific_returns).variance,
    )
    even = np.full(n_assets, 1 / n_assets)
    design = np.column_stack([np.ones(n_assets), style])
    truth = design @ root @ root.T @ design.T + np.diag(specific**2)
    found = model.portfolio_variance(dict(zip(coords["asset"], even, strict=True)))  # type: ignore[call-overload]
    assert found.total == pytest.approx(even @ truth @ even, rel=4 * np.sqrt(2 / n_dates))
    ratio = model.specific_variance / specific**2
    # the residuals of n assets have lost two degrees of freedom
    assert float(ratio.mean()) == pytest.approx(
        (n_assets - 2) / n_assets, abs=4 * np.sqrt(2 / n_dates / n_assets)
    )
