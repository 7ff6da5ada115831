"""The linear factor model beside skfolio's CharacteristicsFactorModel, where the two overlap."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from skfolio.containers import AssetPanel
from skfolio.descriptor import Passthrough
from skfolio.factor_exposure import FixedWeightedFactor, GlobalFactor, OneHotCategoricalFactors
from skfolio.moments import EWCovariance, EWMu, EWVariance
from skfolio.prior import CharacteristicsFactorModel, EmpiricalPrior

from nfi_pyro.linear_factor import (
    cross_sectional_regression,
    factor_covariance,
    linear_risk_model,
    specific_risk,
)

N_DATES, N_ASSETS, HALF_LIFE = 61, 67, 20.0
STYLES = ["size", "value"]


def _fit(constant_caps: bool) -> tuple[CharacteristicsFactorModel, np.ndarray, np.ndarray]:
    """Return skfolio's fit on simulated characteristics, and capitalisations and returns."""
    rng = np.random.default_rng(3)
    caps = rng.lognormal(3.0, 1.0, size=(1 if constant_caps else N_DATES, N_ASSETS))
    caps = np.broadcast_to(caps, (N_DATES, N_ASSETS)).copy()
    returns = 0.02 * rng.normal(size=(N_DATES, N_ASSETS))
    panel = AssetPanel(
        fields={
            "returns": returns,
            "market_cap": caps,
            **{name: rng.normal(size=(N_DATES, N_ASSETS)) for name in STYLES},
        },
        observations=pd.bdate_range("2020-01-01", periods=N_DATES).to_numpy(),
        asset_names=np.array([f"A{i:02d}" for i in range(N_ASSETS)]),
    )
    codes = np.tile(rng.integers(0, 5, size=N_ASSETS), (N_DATES, 1))
    panel.add_categorical_field(name="industry", values=codes, levels=list("abcde"))
    styles = [
        (name, FixedWeightedFactor(descriptors=[(name, Passthrough(name))], family="style"))
        for name in STYLES
    ]
    industries = OneHotCategoricalFactors("industry", family="industry")
    model = CharacteristicsFactorModel(
        factors=[("market", GlobalFactor()), ("industry", industries), *styles],
        constrained_families=[("industry", None)],
        factor_prior_estimator=EmpiricalPrior(
            mu_estimator=EWMu(half_life=HALF_LIFE),
            covariance_estimator=EWCovariance(
                half_life=HALF_LIFE, nearest=False, min_observations=1
            ),
        ),
        idio_variance_estimator=EWVariance(half_life=HALF_LIFE, min_observations=1),
    )
    model.fit(None, None, characteristics=panel)
    return model, caps, returns


def _inputs(
    model: CharacteristicsFactorModel, caps: np.ndarray, returns: np.ndarray
) -> dict[str, xr.DataArray]:
    """Return our inputs: what skfolio knows at an observation explains the return of the next.

    Its first observation is the second date, since the first has no exposures before it.
    """
    theirs = model.factor_model_
    names = theirs.factor_names.tolist()
    coords = {"date": theirs.observations[:-1], "asset": theirs.asset_names}
    exposures = theirs.exposures[:-1]
    kinds = [names.index(name) for name in "abcde"]
    groups = np.array(list("abcde"))[exposures[:, :, kinds].argmax(axis=2)]
    cells = (*coords,)
    return {
        "returns": xr.DataArray(
            returns[2:], coords, cells, attrs={"start_lag": 0, "horizon": 1, "unit": "return"}
        ),
        "exposures": xr.DataArray(
            exposures[:, :, [names.index(name) for name in STYLES]],
            {**coords, "factor": STYLES},
            (*cells, "factor"),
        ),
        "industries": xr.DataArray(groups, coords, cells),
        "caps": xr.DataArray(caps[1:-1], coords, cells),
    }


@pytest.mark.parametrize("constant_caps", [True, False])
def test_factor_and_specific_returns_agree(constant_caps: bool) -> None:
    model, caps, returns = _fit(constant_caps)
    theirs, inputs = model.factor_model_, _inputs(model, caps, returns)
    ours = cross_sectional_regression(
        inputs["returns"],
        inputs["exposures"],
        weights=inputs["caps"] ** 0.5,
        industries=inputs["industries"],
        constraint_weights=inputs["caps"],
    )
    names = theirs.factor_names.tolist()
    assert ours.factor_returns["factor"].values.tolist() == names
    np.testing.assert_allclose(ours.factor_returns, theirs.factor_returns[1:], rtol=0, atol=1e-8)
    np.testing.assert_allclose(ours.specific_returns, theirs.idio_returns[1:], rtol=0, atol=1e-8)
    scores = theirs.cs_regression_scores["r2"].to_numpy()[-len(ours.r_squared) :]
    np.testing.assert_allclose(ours.r_squared, scores, rtol=1e-8)
    ratios = theirs.cs_regression_t_stats[["market", *STYLES]].to_numpy()
    np.testing.assert_allclose(
        ours.t_statistics.sel(factor=["market", *STYLES]),
        ratios[-len(ours.r_squared) :],
        rtol=1e-8,
        atol=1e-8,
    )


def test_covariance_specific_risk_and_the_whole_matrix_agree() -> None:
    """With constraint shares that do not move; theirs map covariances by the last shares."""
    model, caps, returns = _fit(constant_caps=True)
    theirs, inputs = model.factor_model_, _inputs(model, caps, returns)
    names = theirs.factor_names.tolist()
    kinds = theirs.factor_families.tolist()
    every = {"date": theirs.observations}
    factor_returns = xr.DataArray(
        theirs.factor_returns,
        {**every, "factor": names, "kind": ("factor", kinds)},
        ("date", "factor"),
    )
    specific = xr.DataArray(
        theirs.idio_returns, {**every, "asset": theirs.asset_names}, ("date", "asset")
    )
    options: dict[str, object] = {"half_life": HALF_LIFE, "centred": False}
    matrix = factor_covariance(factor_returns, **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(matrix.covariance, theirs.factor_covariance, rtol=1e-8, atol=1e-12)
    risk = specific_risk(specific, **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(risk.variance, theirs.idio_covariance, rtol=1e-8)
    running = specific_risk(
        specific.assign_attrs(start_lag=0, horizon=1),
        by="date",
        min_observations=2,
        **options,  # type: ignore[arg-type]
    )
    np.testing.assert_allclose(running.variance[2:], theirs.idio_variances[1:-1], rtol=1e-8)
    latest = theirs.exposures[-1]
    whole = linear_risk_model(
        xr.DataArray(
            latest[:, [names.index(name) for name in STYLES]],
            {"asset": theirs.asset_names, "factor": STYLES},
            ("asset", "factor"),
        ),
        matrix.covariance,
        risk.variance,
        industries=inputs["industries"].isel(date=-1, drop=True),
    )
    np.testing.assert_allclose(whole.exposures, theirs.loading_matrix, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        whole.covariance(), model.return_distribution_.covariance, rtol=0, atol=1e-8 * 4e-4
    )
