"""Probabilistic PCA: closed form, EM, SVI, posterior and evidence against brute force."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
import xarray as xr
from pyro.infer import TraceMeanField_ELBO
from scipy.linalg import subspace_angles
from scipy.stats import multivariate_normal

from nfi_pyro.data import panel
from nfi_pyro.errors import PanelError, SpecError, SplitError
from nfi_pyro.exposures import PPCAFit, choose_ppca, fit_ppca, fit_ppca_svi
from nfi_pyro.exposures.evidence import smallest_within_error
from nfi_pyro.exposures.linear_gaussian import LinearGaussian, row_posterior
from nfi_pyro.exposures.ppca import gather_moments
from nfi_pyro.exposures.ppca_svi import PPCAModel, RowBatch

Plant = Callable[..., Any]


def rows_of(data: Any) -> np.ndarray:
    return data.features.to_numpy().astype(np.float64)[data.mask.to_numpy()]


def observed_log_likelihood(model: LinearGaussian, rows: np.ndarray) -> np.ndarray:
    """Return the evidence of rows from the full feature x feature covariance."""
    out = []
    for row in rows:
        seen = ~np.isnan(row)
        covariance = model.covariance()[np.ix_(seen, seen)]
        out.append(multivariate_normal(model.center[seen], covariance).logpdf(row[seen]))
    return np.array(out)


# ---- closed form ---------------------------------------------------------------------------------


def test_closed_form_is_tipping_and_bishops(plant: Plant) -> None:
    data = plant()
    fit = fit_ppca(data.features, data.mask, n_factors=2)
    rows = rows_of(data)
    values, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    noise = values[:-2].mean()
    assert fit.noise_variance == pytest.approx(noise, rel=1e-10)
    # W W' is free of rotation and sign.
    spanned = (vectors[:, -2:] * (values[-2:] - noise)) @ vectors[:, -2:].T
    loadings = fit.loadings.to_numpy()
    np.testing.assert_allclose(loadings @ loadings.T, spanned, atol=1e-10)
    gram = loadings.T @ loadings
    np.testing.assert_allclose(gram - np.diag(gram.diagonal()), 0.0, atol=1e-10)
    assert gram[0, 0] > gram[1, 1]
    assert fit.log_likelihood == pytest.approx(
        observed_log_likelihood(fit.model, rows).sum(), rel=1e-10
    )


def test_closed_form_is_a_maximum(plant: Plant) -> None:
    data = plant()
    fit = fit_ppca(data.features, data.mask, n_factors=2)
    rows, best = rows_of(data), fit.model
    rng = np.random.default_rng(2)
    for _ in range(11):
        other = LinearGaussian(
            best.loadings + 0.03 * rng.normal(size=best.loadings.shape),
            best.center + 0.03 * rng.normal(size=7),
            best.noise_variance * float(np.exp(0.03 * rng.normal())),
        )
        assert row_posterior(other, rows).log_likelihood.sum() < fit.log_likelihood


def test_the_planted_parameters_are_found(plant: Plant) -> None:
    data = plant(n_dates=53, n_assets=61)
    fit = fit_ppca(data.features, data.mask, n_factors=2)
    angles = np.degrees(subspace_angles(fit.loadings.to_numpy(), data.loadings))
    assert angles.max() < 2.0
    # sd of s2 over n rows and 5 discarded directions: s2 sqrt(2 / (5 n))
    assert fit.noise_variance == pytest.approx(0.25, abs=4 * 0.25 * (2 / (5 * 2900)) ** 0.5)
    lengths = np.linalg.norm(fit.loadings, axis=0)
    np.testing.assert_allclose(lengths, [2.5, 1.5], rtol=0.08)


# ---- rows with missing entries -------------------------------------------------------------------


def test_posterior_and_evidence_are_gaussian_conditioning(plant: Plant) -> None:
    data = plant(missing=0.3)
    model = LinearGaussian(data.loadings, np.full(7, 0.3), 0.25)
    rows = rows_of(data)[:23]
    rows = rows[~np.isnan(rows).all(axis=1)]
    found = row_posterior(model, rows)
    np.testing.assert_allclose(
        found.log_likelihood, observed_log_likelihood(model, rows), atol=1e-10
    )
    for place, row in enumerate(rows):
        seen = ~np.isnan(row)
        gain = model.loadings[seen].T @ np.linalg.inv(model.covariance()[np.ix_(seen, seen)])
        mean = gain @ (row - model.center)[seen]
        np.testing.assert_allclose(found.mean[place], mean, atol=1e-10)
        left = np.eye(2) - gain @ model.loadings[seen]
        np.testing.assert_allclose(found.covariance[place], left, atol=1e-10)


def test_apply_posterior_and_score_agree_and_keep_to_the_mask(plant: Plant) -> None:
    data = plant(missing=0.2)
    features = data.features.copy(deep=True)
    features[2, 5] = np.nan
    mask = data.mask.copy(deep=True)
    mask[2, 5] = True
    fit = fit_ppca(features, mask, n_factors=2, method="em")
    assert fit.n_dropped == 1
    whole = fit.posterior(features, mask)
    exposures = fit.apply(features, mask)
    np.testing.assert_array_equal(exposures, whole["mean"])
    out = ~mask.to_numpy()
    out[2, 5] = True
    np.testing.assert_array_equal(np.isnan(exposures.to_numpy()).any(2), out)
    np.testing.assert_array_equal(np.isnan(whole["covariance"].to_numpy()).any((2, 3)), out)
    score = fit.score(features, mask)
    assert float(score.sum()) == pytest.approx(fit.log_likelihood, rel=1e-10)
    assert (exposures.dims, score.dims) == (("date", "asset", "factor"), ("date", "asset"))


# ---- EM ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_em_is_the_closed_form_when_nothing_is_missing(plant: Plant, seed: int | None) -> None:
    data = plant()
    exact = fit_ppca(data.features, data.mask, n_factors=2)
    fit = fit_ppca(data.features, data.mask, n_factors=2, method="em", seed=seed, tolerance=1e-10)
    assert fit.converged
    angles = subspace_angles(fit.loadings.to_numpy(), exact.loadings.to_numpy())
    assert angles.max() < 1e-6
    assert fit.noise_variance == pytest.approx(exact.noise_variance, rel=1e-6)
    np.testing.assert_allclose(fit.loadings, exact.loadings, atol=1e-6)
    np.testing.assert_allclose(fit.center, exact.center, atol=1e-6)
    assert fit.log_likelihood == pytest.approx(exact.log_likelihood, rel=1e-10)


@pytest.mark.parametrize("seed", [None, 0])
def test_em_never_lowers_the_log_likelihood(plant: Plant, seed: int | None) -> None:
    data = plant(missing=0.3)
    fit = fit_ppca(data.features, data.mask, n_factors=2, method="em", seed=seed)
    steps = np.diff(fit.history)
    assert len(steps) > 5
    assert (steps > -1e-12 * abs(fit.log_likelihood)).all()
    assert fit.log_likelihood == fit.history[-1]


def test_em_with_gaps_ends_at_a_maximum_of_the_observed_likelihood(plant: Plant) -> None:
    data = plant(missing=0.3)
    fit = fit_ppca(data.features, data.mask, n_factors=2, method="em")
    rows, best = rows_of(data), fit.model
    rows = rows[~np.isnan(rows).all(axis=1)]
    total = observed_log_likelihood(best, rows).sum()
    assert fit.log_likelihood == pytest.approx(total, rel=1e-10)
    rng = np.random.default_rng(4)
    for _ in range(11):
        other = LinearGaussian(
            best.loadings + 0.01 * rng.normal(size=best.loadings.shape),
            best.center + 0.01 * rng.normal(size=7),
            best.noise_variance * float(np.exp(0.01 * rng.normal())),
        )
        assert row_posterior(other, rows).log_likelihood.sum() < total


def test_em_finds_the_subspace_that_complete_rows_alone_would_miss(plant: Plant) -> None:
    data = plant(n_dates=53, n_assets=61, missing=0.3)
    fit = fit_ppca(data.features, data.mask, n_factors=2, method="em")
    angles = np.degrees(subspace_angles(fit.loadings.to_numpy(), data.loadings))
    assert angles.max() < 3.0
    assert fit.noise_variance == pytest.approx(0.25, rel=0.05)
    complete = fit_ppca(data.features, data.mask, n_factors=2)
    assert complete.n_rows < 0.15 * fit.n_rows


def test_where_blocks_are_cut_does_not_matter(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = plant(missing=0.2)
    whole = fit_ppca(data.features, data.mask, n_factors=2, method="em", tolerance=1e-4)
    monkeypatch.setattr(panel, "_BLOCK_BYTES", 5 * 31 * 7 * 4)
    cut = fit_ppca(data.features, data.mask, n_factors=2, method="em", tolerance=1e-4)
    assert cut.loadings.identical(whole.loadings)
    assert cut.log_likelihood == whole.log_likelihood


@pytest.mark.parametrize("method", ["closed_form", "em"])
def test_permuting_assets_permutes_scores(plant: Plant, method: Any) -> None:
    data = plant(missing=0.05)
    order = np.random.default_rng(1).permutation(31)
    fit = fit_ppca(data.features, data.mask, n_factors=2, method=method)
    other = fit_ppca(data.features[:, order], data.mask[:, order], n_factors=2, method=method)
    there = other.apply(data.features[:, order])
    np.testing.assert_allclose(there, fit.apply(data.features)[:, order], atol=1e-6)


def test_training_dates_alone_enter(plant: Plant) -> None:
    data = plant()
    fit = fit_ppca(data.features, data.mask, n_factors=2, train=slice(0, 11))
    later = data.features.copy(deep=True)
    later[11:] = 9.0
    assert fit_ppca(later, data.mask, n_factors=2, train=slice(0, 11)).loadings.identical(
        fit.loadings
    )
    assert fit.train == ("2021-03-01", "2021-03-15")


# ---- Pyro ----------------------------------------------------------------------------------------


def test_svi_comes_within_a_hundredth_of_a_nat_of_the_closed_form(plant: Plant) -> None:
    data = plant()
    exact = fit_ppca(data.features, data.mask, n_factors=2)
    fit = fit_ppca_svi(data.features, data.mask, n_factors=2, seed=0, n_steps=500)
    gap = (exact.log_likelihood - fit.log_likelihood) / exact.n_rows
    assert 0.0 <= gap < 0.01
    # The guide's family holds the exact posterior, so the bound is tight too: noise of one draw.
    assert fit.history[-50:].mean() == pytest.approx(exact.log_likelihood / exact.n_rows, abs=0.02)
    angles = np.degrees(subspace_angles(fit.loadings.to_numpy(), exact.loadings.to_numpy()))
    assert angles.max() < 1.0
    assert fit.noise_variance == pytest.approx(exact.noise_variance, rel=0.02)
    assert len(pyro.get_param_store()) == 0


def test_what_stands_in_for_a_missing_entry_does_not_matter_to_svi(
    plant: Plant, seeded: Callable[[int], Any]
) -> None:
    data = plant(missing=0.3)
    moments, _ = gather_moments(data.features, data.mask, slice(0, 17), n_factors=2, complete=False)
    module = PPCAModel(moments, 2, seed=0)
    rows = torch.as_tensor(rows_of(data))
    seen = ~rows.isnan()
    losses = []
    for filler in (0.0, 7.0):
        batch = RowBatch(torch.where(seen, rows, filler), seen, torch.arange(len(rows)), 1000)
        with seeded(1):
            loss = TraceMeanField_ELBO().differentiable_loss(module.model, module.guide, batch)
        losses.append(float(loss.detach()))
    assert losses[0] == losses[1]
    loss.backward()
    for name, weights in module.named_parameters():
        assert weights.grad is not None, name
        assert torch.isfinite(weights.grad).all(), name
        assert (weights.grad != 0).any(), name


def test_svi_with_gaps_and_batches_is_finite_and_repeats_its_bits(plant: Plant) -> None:
    data = plant(missing=0.2)
    fits = [
        fit_ppca_svi(data.features, data.mask, n_factors=2, seed=seed, n_steps=60, batch_size=101)
        for seed in (1, 1, 2)
    ]
    assert np.isfinite(fits[0].history).all()
    assert fits[0].loadings.identical(fits[1].loadings)
    assert not fits[0].loadings.identical(fits[2].loadings)
    with pytest.raises(SpecError, match="n_steps and batch_size must be >= 1"):
        fit_ppca_svi(data.features, data.mask, n_factors=2, seed=0, n_steps=0)


# ---- how many factors ----------------------------------------------------------------------------


def test_bic_and_later_dates_choose_the_planted_number(plant: Plant) -> None:
    data = plant(n_factors=3, n_dates=29)
    by_bic = choose_ppca(data.features, data.mask, n_factors=[5, 1, 2, 3, 4])
    later = choose_ppca(
        data.features,
        data.mask,
        n_factors=[1, 2, 3, 4, 5],
        train=slice(0, 19),
        validation=slice(19, 29),
    )
    for choice in (by_bic, later):
        assert choice.best.loadings.sizes["factor"] == 3
        assert choice.table["n_factors"].to_numpy().tolist() == [1, 2, 3, 4, 5]
        assert (np.diff(choice.table["log_likelihood"]) > 0).all()
    assert np.isnan(by_bic.table["validation"]).all()
    fit = by_bic.best
    assert fit.n_parameters == 7 * 3 - 3 + 7 + 1
    assert fit.bic == pytest.approx(-2 * fit.log_likelihood + 26 * np.log(fit.n_rows))
    nobody = data.mask.copy(deep=True)
    nobody[19:] = False
    with pytest.raises(SplitError, match="validation must hold at least one row of the mask"):
        choose_ppca(data.features, nobody, n_factors=[1, 2], validation=slice(19, 29))
    with pytest.raises(SpecError, match="must list distinct candidates"):
        choose_ppca(data.features, data.mask, n_factors=[2, 2])


def test_the_smallest_candidate_within_an_error_of_the_best_is_taken() -> None:
    noise = np.array([0.5, -0.5, 0.5, -0.5, np.nan])
    by_date = np.stack([noise - 3, np.where(noise > 0, 0.9, -1.0), np.zeros(5)])
    place, means, errors = smallest_within_error(by_date)
    assert place == 1  # -0.05 against an error of about 0.5
    np.testing.assert_allclose(means, [-3.0, -0.05, 0.0])
    assert errors[2] == 0.0
    assert smallest_within_error(by_date[[0, 2]])[0] == 1


# ---- storage and bad input -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["closed_form", "em"])
def test_stored_arrays_give_the_fit_back(plant: Plant, method: Any, tmp_path: Path) -> None:
    data = plant()
    fit = fit_ppca(data.features, data.mask, n_factors=2, method=method)
    np.savez(tmp_path / "fit.npz", **fit.as_dict())  # type: ignore[arg-type]
    with np.load(tmp_path / "fit.npz", allow_pickle=False) as stored:
        back = PPCAFit.from_dict(dict(stored))
    assert back.apply(data.features).identical(fit.apply(data.features))
    assert (back.bic, back.train, back.converged) == (fit.bic, fit.train, fit.converged)
    np.testing.assert_array_equal(back.history, fit.history)


def test_columns_that_leave_no_noise_are_refused(plant: Plant) -> None:
    data = plant()
    features = data.features.astype(np.float64)
    still = features.copy(deep=True)
    still[..., 3] = 4.2
    for method in ("closed_form", "em"):
        with pytest.raises(PanelError, match="must vary over the training rows; got constants at"):
            fit_ppca(still, data.mask, n_factors=2, method=method)
    twins = xr.concat(
        [features[..., :2], features[..., :2].assign_coords(feature=["g0", "g1"])], "feature"
    )
    with pytest.raises(SpecError, match="below the rank of the rows, 2; got 2"):
        fit_ppca(twins, data.mask, n_factors=2)
    with pytest.raises(SpecError, match="noise variance must stay above"):
        fit_ppca(twins, data.mask, n_factors=2, method="em", seed=0)
    assert fit_ppca(twins, data.mask, n_factors=1).collinear_features == ("f0", "f1", "g0", "g1")


def test_too_little_data_is_refused(plant: Plant) -> None:
    data = plant()
    few, sparse = data.mask.copy(deep=True), data.features.copy(deep=True)
    few[:] = False
    few[0, :3] = True
    sparse[..., 6] = np.nan
    sparse[0, data.mask.to_numpy()[0].argmax(), 6] = 1.0
    with pytest.raises(PanelError, match=r"must outnumber n_factors \+ 1 = 3; got 3"):
        fit_ppca(data.features, few, n_factors=2)
    with pytest.raises(PanelError, match=r"= 3 values; got fewer at f6 \(1\)"):
        fit_ppca(sparse, data.mask, n_factors=2, method="em")
    with pytest.raises(SpecError, match="integer from 1 to 6 for 7 features; got 7"):
        fit_ppca(data.features, data.mask, n_factors=7)
    with pytest.raises(SpecError, match="method must be one of"):
        fit_ppca(data.features, data.mask, n_factors=2, method="gibbs")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="max_iterations must be >= 1"):
        fit_ppca(data.features, data.mask, n_factors=2, method="em", max_iterations=0)


def test_em_that_has_not_settled_says_so(plant: Plant) -> None:
    data = plant(missing=0.2)
    with pytest.warns(RuntimeWarning, match=r"EM must settle to 1.0e-08; got a change"):
        fit = fit_ppca(data.features, data.mask, n_factors=2, method="em", seed=0, max_iterations=2)
    assert not fit.converged
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_ppca(data.features, data.mask, n_factors=2, method="em")
