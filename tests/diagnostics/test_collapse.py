import math

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from nfi_pyro.diagnostics.collapse import judge_collapse
from nfi_pyro.errors import ShapeError, SpecError

N_DATES, N_ASSETS, N_FACTORS = 211, 31, 3
SPECIFIC = 0.02


def _fit(
    seed: int = 0, prior: float = 0.01, truth: float = 0.01, drift: float = 0.0
) -> tuple[xr.Dataset, xr.DataArray]:
    """Return the exact Gaussian posterior of a linear factor model, with its exposures."""
    rng = np.random.default_rng(seed)
    beta = rng.standard_normal((N_DATES, N_ASSETS, N_FACTORS))
    beta[..., 0] += 1.0
    scale = prior * np.ones((N_DATES, N_FACTORS))
    mean = drift * rng.standard_normal((N_DATES, N_FACTORS))
    z = mean + truth * rng.standard_normal((N_DATES, N_FACTORS))
    noise = SPECIFIC * rng.standard_normal((N_DATES, N_ASSETS))
    rest = np.einsum("tik,tk->ti", beta, z - mean) + noise
    precision = np.einsum("tik,til->tkl", beta, beta) / SPECIFIC**2
    precision += np.eye(N_FACTORS) / scale[:, :, None] ** 2
    covariance = np.linalg.inv(precision)
    loc = mean + np.einsum("tkl,til,ti->tk", covariance, beta, rest) / SPECIFIC**2
    own = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    factor = [f"z{k}" for k in range(N_FACTORS)]
    dates = pd.bdate_range("2020-01-01", periods=N_DATES)
    moments = xr.Dataset(
        {
            "prior_loc": (("date", "factor"), mean),
            "prior_scale": (("date", "factor"), scale),
            "posterior_loc": (("date", "factor"), loc),
            "posterior_scale": (("date", "factor"), own),
            "posterior_covariance": (("date", "factor", "factor_other"), covariance),
        },
        coords={"date": dates, "factor": factor, "factor_other": factor},
    )
    assets = [f"A{i}" for i in range(N_ASSETS)]
    coords = {"date": dates, "asset": assets, "factor": factor}
    return moments, xr.DataArray(beta, coords, ("date", "asset", "factor"))


def _specific(beta: xr.DataArray) -> xr.DataArray:
    return xr.full_like(beta.isel(factor=0, drop=True), SPECIFIC)


def test_divergences_are_those_of_torch() -> None:
    moments, beta = _fit()
    found = judge_collapse(moments, beta)
    parts = {name: torch.tensor(moments[name].to_numpy()) for name in moments}
    prior = Normal(parts["prior_loc"], parts["prior_scale"])
    posterior = Normal(parts["posterior_loc"], parts["posterior_scale"])
    np.testing.assert_allclose(
        found.factors["kl"], kl_divergence(posterior, prior).mean(0), rtol=1e-9
    )
    joint = kl_divergence(
        MultivariateNormal(parts["posterior_loc"], parts["posterior_covariance"]),
        MultivariateNormal(parts["prior_loc"], torch.diag_embed(parts["prior_scale"] ** 2)),
    )
    assert found.kl_joint == pytest.approx(float(joint.mean()), rel=1e-9)
    assert math.isnan(judge_collapse(moments.drop_vars("posterior_covariance"), beta).kl_joint)


def test_a_right_model_has_active_factors_that_add_up() -> None:
    moments, beta = _fit(drift=0.02)
    found = judge_collapse(moments, beta, specific_scale=_specific(beta))
    assert found.verdict.grade == "good"
    assert found.n_active == N_FACTORS
    factors = found.factors
    resolved = 1 - (moments["posterior_scale"] ** 2 / moments["prior_scale"] ** 2).mean("date")
    # A variance over 211 dates has a relative error of sqrt(2 / 211).
    np.testing.assert_allclose(factors["activity"], resolved, rtol=4 * math.sqrt(2 / N_DATES))
    np.testing.assert_allclose(factors["prior_ratio"], 1, rtol=4 / math.sqrt(2 * N_DATES))
    assert float(factors["variance_share"].sum()) == pytest.approx(1)
    np.testing.assert_allclose(factors["variance_share"], [0.5, 0.25, 0.25], atol=0.02)
    by_cell = (beta**2 * moments["prior_scale"] ** 2).sum("factor")
    assert found.factor_variance_share == pytest.approx(
        float((by_cell / (by_cell + SPECIFIC**2)).mean()), rel=1e-9
    )
    # Mean of beta beta' is about diag(2, 1, 1): (2 + 1 + 1)^2 / (4 + 1 + 1)
    assert found.effective_factors == pytest.approx(16 / 6, rel=0.05)


def test_effective_factors_see_a_copy_and_not_a_scale() -> None:
    moments, beta = _fit()
    found = judge_collapse(moments, beta)
    scaled = moments.copy()
    for name in ("prior_loc", "prior_scale", "posterior_loc", "posterior_scale"):
        scaled[name] = moments[name] * xr.DataArray([2.0, 0.1, 7.0], moments["factor"].coords)
    other = judge_collapse(
        scaled.drop_vars("posterior_covariance"),
        beta / xr.DataArray([2.0, 0.1, 7.0], moments["factor"].coords),
    )
    xr.testing.assert_allclose(found.factors, other.factors)
    assert other.effective_factors == pytest.approx(found.effective_factors)
    copied = beta.copy()
    copied[..., 2] = copied[..., 1]
    # One eigenvalue of 2 for the copies beside the 2 of the first, with no product between them.
    assert judge_collapse(moments, copied).effective_factors == pytest.approx(2.0, rel=0.05)


def test_posterior_collapse_is_bad_even_where_the_prior_mean_moves() -> None:
    moments, beta = _fit(drift=0.05)
    collapsed = moments.drop_vars("posterior_covariance").assign(
        posterior_loc=moments["prior_loc"], posterior_scale=moments["prior_scale"]
    )
    found = judge_collapse(collapsed, beta)
    assert found.n_active == 0
    np.testing.assert_allclose(found.factors["kl"], 0, atol=1e-12)
    assert found.verdict.grade == "bad"
    assert "posterior collapse" in found.verdict.text


def test_prior_collapse_is_bad() -> None:
    moments, beta = _fit(prior=1e-5)  # the truth is 0.01: the posterior cannot leave its prior
    pinned = judge_collapse(moments, beta, specific_scale=_specific(beta))
    assert pinned.factor_variance_share < 1e-3
    assert pinned.verdict.grade == "bad"
    assert "prior collapse" in pinned.verdict.text
    assert judge_collapse(moments, beta).verdict.grade == "bad"  # nothing moves, at least
    # A posterior of an encoder that is not held by its prior: the prior scale a fifth of right.
    right, beta = _fit()
    free = right.drop_vars("posterior_covariance").assign(prior_scale=0.2 * right["prior_scale"])
    found = judge_collapse(free, beta, specific_scale=_specific(beta))
    np.testing.assert_allclose(found.factors["prior_ratio"], 0.2, rtol=4 / math.sqrt(2 * N_DATES))
    assert found.verdict.grade == "bad"
    assert "prior scale of z0, z1, z2 is far below" in found.verdict.text


def test_spare_factors_are_counted() -> None:
    moments, beta = _fit()
    spare = beta.copy()
    spare[..., 1:] *= 1e-3  # two factors that move no return
    found = judge_collapse(moments, spare)
    assert found.factors["active"].values.tolist() == [True, False, False]
    assert found.effective_factors == pytest.approx(1.0, abs=1e-3)
    assert found.verdict.grade == "doubtful"
    assert "1 of 3 factors are active" in found.verdict.text


def test_absent_assets_and_order_do_not_matter() -> None:
    moments, beta = _fit()
    one = judge_collapse(moments, beta)
    more = xr.concat(
        [beta, xr.full_like(beta, np.nan).assign_coords(asset=beta.asset + "x")], "asset"
    )
    two = judge_collapse(moments.transpose(), more.transpose("factor", "asset", "date"))
    xr.testing.assert_allclose(one.factors, two.factors)
    assert one.effective_factors == pytest.approx(two.effective_factors)


def test_arguments_are_checked() -> None:
    moments, beta = _fit()
    with pytest.raises(SpecError, match="got none of prior_scale at judge_collapse"):
        judge_collapse(moments.drop_vars("prior_scale"), beta)
    with pytest.raises(SpecError, match="posterior_scale must be > 0"):
        judge_collapse(moments.assign(posterior_scale=0 * moments["posterior_scale"]), beta)
    with pytest.raises(SpecError, match="prior_loc must hold two dates or more without NaN"):
        judge_collapse(moments.isel(date=[0]), beta.isel(date=[0]))
    with pytest.raises(ShapeError, match="beta must have the dates"):
        judge_collapse(moments, beta[1:])
    with pytest.raises(ShapeError, match="beta must have the dimensions date and asset and factor"):
        judge_collapse(moments, beta.isel(asset=0))
    with pytest.raises(SpecError, match="beta must hold an asset"):
        judge_collapse(moments, beta * np.nan)
    with pytest.raises(SpecError, match=r"threshold must be in \(0, 1\); got 0"):
        judge_collapse(moments, beta, threshold=0.0)
    broken = moments.assign(posterior_covariance=-moments["posterior_covariance"])
    with pytest.raises(SpecError, match="posterior_covariance must be positive definite"):
        judge_collapse(broken, beta)
