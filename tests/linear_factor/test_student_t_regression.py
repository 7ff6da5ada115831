import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import t as student

from nfi_pyro.errors import SpecError
from nfi_pyro.linear_factor import StudentT, cross_sectional_regression

N_DATES, N_ASSETS = 5, 211


def _data(
    seed: int, tails: float = 4.0, n_dates: int = N_DATES, n_assets: int = N_ASSETS
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Return returns, exposures and weights; the noise has scale 0.02 / sqrt(weight)."""
    rng = np.random.default_rng(seed)
    coords: dict[str, object] = {
        "date": pd.bdate_range("2020-01-01", periods=n_dates),
        "asset": [f"A{i}" for i in range(n_assets)],
    }
    exposures = rng.normal(size=(n_dates, n_assets, 2))
    weights = rng.lognormal(0.0, 0.5, size=(n_dates, n_assets))
    weights /= weights.mean(axis=1, keepdims=True)
    noise = 0.02 * rng.standard_t(tails, size=(n_dates, n_assets)) / np.sqrt(weights)
    returns = 0.003 + exposures @ np.array([0.01, -0.02]) + noise
    cells = ("date", "asset")
    return (
        xr.DataArray(returns, coords, cells),
        xr.DataArray(exposures, {**coords, "factor": ["size", "value"]}, (*cells, "factor")),
        xr.DataArray(weights, coords, cells),
    )


def _negative_log_likelihood(
    parameters: np.ndarray, design: np.ndarray, y: np.ndarray, weights: np.ndarray, tails: float
) -> float:
    scale = math.exp(parameters[3]) / np.sqrt(weights)
    return -float(student.logpdf(y, tails, design @ parameters[:3], scale).sum())


def test_fixed_tails_reach_the_maximum_of_the_likelihood() -> None:
    returns, exposures, weights = _data(0)
    noise = StudentT(degrees_of_freedom=5.0)
    found = cross_sectional_regression(returns, exposures, weights=weights, noise=noise)
    assert found.converged.all()
    assert (found.degrees_of_freedom == 5.0).all()
    for date in range(N_DATES):
        design = np.column_stack([np.ones(N_ASSETS), exposures.values[date]])
        ours = np.append(
            found.factor_returns.values[date], math.log(float(found.residual_scale[date]))
        )
        args = (design, returns.values[date], weights.values[date], 5.0)
        # closed-form gradient of the log-likelihood, in units of the standard errors
        scale = math.exp(ours[3])
        residual = args[1] - design @ ours[:3]
        squares = args[2] * residual**2 / scale**2
        pull = 6.0 * args[2] * residual / (scale**2 * (5.0 + squares))
        slope = (design.T @ pull) * found.standard_errors.values[date]
        np.testing.assert_allclose(slope, 0.0, rtol=0, atol=1e-6)
        assert np.mean(6.0 * squares / (5.0 + squares)) == pytest.approx(1.0, abs=1e-7)
        best = minimize(_negative_log_likelihood, ours + 1e-3, args, method="Nelder-Mead")
        assert _negative_log_likelihood(ours, *args) <= best.fun + 1e-9


def test_standard_errors_come_from_the_expected_information() -> None:
    returns, exposures, weights = _data(9)
    noise = StudentT(degrees_of_freedom=5.0)
    found = cross_sectional_regression(returns, exposures, weights=weights, noise=noise)
    # E[(d log p / dx)^2] of a t density of scale 1, by quadrature
    information = quad(lambda x: student.pdf(x, 5) * (6 * x / (5 + x**2)) ** 2, -np.inf, np.inf)[0]
    for date in range(N_DATES):
        design = np.column_stack([np.ones(N_ASSETS), exposures.values[date]])
        gram = design.T @ (design * weights.values[date][:, None])
        variance = float(found.residual_scale[date]) ** 2 / information
        expected = np.sqrt(np.diag(np.linalg.inv(gram)) * variance * N_ASSETS / (N_ASSETS - 3))
        np.testing.assert_allclose(found.standard_errors.values[date], expected, rtol=1e-8)


def test_estimated_tails_maximise_the_likelihood_too() -> None:
    returns, exposures, weights = _data(1, n_dates=3)
    found = cross_sectional_regression(returns, exposures, weights=weights, noise="student_t")
    assert found.converged.all()
    for date in range(3):
        design = np.column_stack([np.ones(N_ASSETS), exposures.values[date]])
        ours = np.append(
            found.factor_returns.values[date], math.log(float(found.residual_scale[date]))
        )
        tails = float(found.degrees_of_freedom[date])
        args = (design, returns.values[date], weights.values[date])
        here = _negative_log_likelihood(ours, *args, tails)
        for factor in (1 - 1e-3, 1 + 1e-3):
            assert here < _negative_log_likelihood(ours, *args, tails * factor)


def test_tails_and_returns_of_a_simulated_truth_come_back() -> None:
    returns, exposures, weights = _data(2, n_dates=23, n_assets=1009)
    found = cross_sectional_regression(returns, exposures, weights=weights, noise="student_t")
    assert found.converged.all()
    z = (found.factor_returns - np.array([0.003, 0.01, -0.02])) / found.standard_errors
    assert abs(float((z**2).mean()) - 1.0) < 4 * math.sqrt(2 / z.size)
    # sd of log df by the information at df 4 with 1009 assets is about .13 a date
    assert float(np.log(found.degrees_of_freedom / 4.0).mean()) == pytest.approx(0.0, abs=0.11)
    assert float(found.residual_scale.mean()) == pytest.approx(0.02, rel=0.02)
    plain = cross_sectional_regression(returns, exposures, weights=weights)
    spread = (found.factor_returns - np.array([0.003, 0.01, -0.02])).std()
    assert spread < (plain.factor_returns - np.array([0.003, 0.01, -0.02])).std()


def test_becomes_least_squares_as_the_degrees_of_freedom_grow() -> None:
    returns, exposures, weights = _data(3)
    plain = cross_sectional_regression(returns, exposures, weights=weights)
    gaps = []
    for tails in (1e2, 1e4, 1e6, math.inf):
        noise = StudentT(degrees_of_freedom=tails)
        found = cross_sectional_regression(returns, exposures, weights=weights, noise=noise)
        gaps.append(float(np.abs(found.factor_returns - plain.factor_returns).max()))
    assert gaps[0] > 50 * gaps[1] > 50 * 50 * gaps[2] > 0.0
    assert gaps[3] < 1e-15
    np.testing.assert_allclose(found.standard_errors, plain.standard_errors, rtol=1e-12)
    np.testing.assert_allclose(found.specific_returns, plain.specific_returns, rtol=0, atol=1e-15)


def test_an_outlier_moves_it_less_than_least_squares() -> None:
    returns, exposures, weights = _data(4)
    wild = returns.copy(deep=True)
    wild[2, 3] += 5.0
    moves = []
    for noise in ("gaussian", "student_t"):
        before = cross_sectional_regression(returns, exposures, weights=weights, noise=noise)
        after = cross_sectional_regression(wild, exposures, weights=weights, noise=noise)
        moves.append(float(np.abs(after.factor_returns - before.factor_returns).max()))
    assert moves[1] < 0.02 * moves[0]


def test_industries_keep_their_constraint() -> None:
    returns, exposures, weights = _data(5)
    groups = np.resize(["bank", "drug", "food"], N_ASSETS)
    industries = xr.DataArray(groups, {"asset": returns["asset"]}, "asset")
    found = cross_sectional_regression(
        returns,
        exposures,
        industries=industries,
        constraint_weights=weights,
        noise=StudentT(degrees_of_freedom=4.0),
    )
    shares = weights.groupby(industries.rename("industry")).sum() / weights.sum("asset")
    total = (shares.values * found.factor_returns.values[:, 1:4]).sum(axis=1)
    np.testing.assert_allclose(total, 0.0, rtol=0, atol=1e-15)


def test_what_did_not_converge_and_tails_at_a_bound_are_flagged_and_counted() -> None:
    returns, exposures, weights = _data(6, tails=1e6)
    hurried = cross_sectional_regression(returns, exposures, noise=StudentT(max_iterations=2))
    assert not hurried.converged.any()
    assert hurried.factor_returns.notnull().all()
    rules = {finding.rule: finding for finding in hurried.ledger.findings}
    assert rules["dates on which Student-t noise did not converge"].count == N_DATES
    # Gaussian noise of this very seed on one date: the likelihood rises all the way to the bound
    found = cross_sectional_regression(returns, exposures, weights=weights, noise="student_t")
    at_bound = int((found.degrees_of_freedom == 200.0).sum())
    assert at_bound > 0
    finding = next(f for f in found.ledger.findings if "at a bound (1 or 200)" in f.rule)
    assert (finding.count, finding.action) == (at_bound, "kept")


def test_residuals_of_zero_for_most_assets_have_no_maximum_and_are_flagged() -> None:
    returns, exposures, _ = _data(7)
    returns[1, 7:] = 0.0  # as if suspended: a zero fit is exact for nearly all
    found = cross_sectional_regression(returns, exposures, noise=StudentT(degrees_of_freedom=3.0))
    assert found.converged.values.tolist() == [True, False, True, True, True]


def test_options_are_checked() -> None:
    returns, exposures, _ = _data(8)
    with pytest.raises(SpecError, match="degrees_of_freedom must be > 0, infinite or None; got 0"):
        StudentT(degrees_of_freedom=0.0)
    with pytest.raises(SpecError, match="max_iterations must be >= 1 and tolerance between"):
        StudentT(max_iterations=0)
    with pytest.raises(SpecError, match="max_iterations must be >= 1 and tolerance between"):
        StudentT(tolerance=math.nan)
    with pytest.raises(SpecError, match="errors of Student-t noise must be 'homoskedastic'"):
        cross_sectional_regression(returns, exposures, noise="student_t", errors="hc0")
