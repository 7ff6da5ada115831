"""PCA exposures: against numpy, invariances, causality, and what is refused or reported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.linalg import subspace_angles

from nfi_pyro.data import panel
from nfi_pyro.errors import PanelError, SpecError, SplitError
from nfi_pyro.exposures import PCAFit, fit_pca

Plant = Callable[..., Any]
MODES = ("pooled", "per_date", "expanding")


def complete_rows(features: xr.DataArray, mask: xr.DataArray) -> np.ndarray:
    rows = features.to_numpy().astype(np.float64)[mask.to_numpy()]
    return rows[~np.isnan(rows).any(axis=1)]


def same(first: xr.DataArray, second: xr.DataArray) -> bool:
    return np.array_equal(first.to_numpy(), second.to_numpy(), equal_nan=True)


# ---- closed form ---------------------------------------------------------------------------------


def test_pooled_axes_are_the_eigenvectors_of_the_covariance(plant: Plant) -> None:
    data = plant(missing=0.02)
    fit = fit_pca(data.features, data.mask, n_factors=3)
    rows = complete_rows(data.features, data.mask)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    np.testing.assert_allclose(fit.explained_variance, values[::-1][:3], rtol=1e-10)
    share = values[::-1][:3] / values.sum()
    np.testing.assert_allclose(fit.explained_variance_ratio, share, rtol=1e-10)
    dots = np.abs((fit.loadings.to_numpy() * vectors[:, ::-1][:, :3]).sum(axis=0))
    np.testing.assert_allclose(dots, 1.0, atol=1e-10)
    np.testing.assert_allclose(fit.center, rows.mean(axis=0), rtol=1e-10)
    assert int(fit.n_rows) == len(rows)
    assert fit.n_dropped == int(data.mask.sum()) - len(rows) > 0


def test_scores_are_centred_and_uncorrelated_with_the_stated_variances(plant: Plant) -> None:
    data = plant()
    fit = fit_pca(data.features, data.mask, n_factors=3)
    scores = fit.apply(data.features, data.mask)
    assert scores.dims == ("date", "asset", "factor")
    rows = scores.to_numpy()[data.mask.to_numpy()]
    np.testing.assert_allclose(rows.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(
        np.cov(rows.T), np.diag(fit.explained_variance), atol=1e-10 * rows.var()
    )
    assert np.isnan(scores.to_numpy()[~data.mask.to_numpy()]).all()


def test_a_large_mean_changes_no_axis(plant: Plant) -> None:
    # The deck's B'B would have the mean as its first axis.
    data = plant()
    moved = (data.features.astype(np.float64) + 1e4).transpose(*data.features.dims)
    fit, other = (fit_pca(x, data.mask, n_factors=2) for x in (data.features, moved))
    np.testing.assert_allclose(other.loadings, fit.loadings, atol=1e-6)
    rows = complete_rows(moved, data.mask)
    uncentred = np.linalg.eigh(rows.T @ rows)[1][:, -1]
    assert abs(uncentred @ np.ones(7) / np.sqrt(7)) > 0.999
    assert abs(fit.loadings.to_numpy()[:, 0] @ uncentred) < 0.9


def test_the_planted_subspace_is_found(plant: Plant) -> None:
    data = plant(n_dates=53, n_assets=61)
    fit = fit_pca(data.features, data.mask, n_factors=2)
    angles = np.degrees(subspace_angles(fit.loadings.to_numpy(), data.loadings))
    assert angles.max() < 2.0  # noise/length/sqrt(rows) = 0.5/1.5/53 rad, times a few


@pytest.mark.parametrize("mode", MODES)
def test_the_largest_loading_of_a_factor_is_positive(plant: Plant, mode: Any) -> None:
    fit = fit_pca(plant().features, plant().mask, n_factors=3, mode=mode)
    loadings = fit.loadings.to_numpy()
    leader = np.abs(loadings).argmax(axis=-2, keepdims=True)
    assert (np.take_along_axis(loadings, leader, axis=-2) > 0).all()


def test_a_tie_of_two_loadings_is_settled_by_order() -> None:
    rng = np.random.default_rng(3)
    one = rng.normal(size=(7, 5))
    values = np.stack([one, -one], axis=-1)
    features = xr.DataArray(
        values,
        {
            "date": np.arange("2021-03-01", "2021-03-08", dtype="datetime64[D]").astype("M8[ns]"),
            "asset": list("abcde"),
            "feature": ["x", "y"],
        },
        ("date", "asset", "feature"),
    )
    mask = xr.ones_like(features[..., 0].drop_vars("feature"), dtype=bool)
    fit = fit_pca(features, mask, n_factors=1)
    np.testing.assert_allclose(fit.loadings[:, 0], [0.5**0.5, -(0.5**0.5)], atol=1e-12)
    assert fit.collinear_features == ("x", "y")


# ---- per date and expanding ----------------------------------------------------------------------


def test_a_date_is_fitted_on_its_own_cross_section(plant: Plant) -> None:
    data = plant()
    fit = fit_pca(data.features, data.mask, n_factors=2, mode="per_date")
    alone = fit_pca(data.features, data.mask, n_factors=2, train=slice(5, 6))
    assert same(fit.loadings[5], alone.loadings)
    assert same(fit.center[5], alone.center)
    one_day = data.features[5:6], data.mask[5:6]
    assert same(fit.apply(*one_day), alone.apply(*one_day))


def test_an_expanding_fit_is_the_pooled_fit_of_the_past(plant: Plant) -> None:
    data = plant()
    fit = fit_pca(data.features, data.mask, n_factors=2, mode="expanding")
    for last in (0, 7, 16):
        pooled = fit_pca(data.features, data.mask, n_factors=2, train=slice(0, last + 1))
        assert same(fit.loadings[last], pooled.loadings)
        assert int(fit.n_rows[last]) == int(pooled.n_rows)


@pytest.mark.parametrize("mode", ["per_date", "expanding"])
def test_what_comes_later_changes_nothing_and_what_came_before_does(
    plant: Plant, mode: Any
) -> None:
    data = plant()
    scores = fit_pca(data.features, data.mask, n_factors=2, mode=mode).apply(data.features)
    later, earlier = data.features.copy(deep=True), data.features.copy(deep=True)
    later[9:] = np.random.default_rng(5).normal(size=later[9:].shape)
    earlier[8, :, 0] *= 2.0
    after = fit_pca(later, data.mask, n_factors=2, mode=mode).apply(later)
    before = fit_pca(earlier, data.mask, n_factors=2, mode=mode).apply(earlier)
    assert same(after[:9], scores[:9])
    assert not np.allclose(after[9:], scores[9:])
    assert not np.allclose(before[8], scores[8])


def test_later_dates_are_scored_on_the_last_expanding_fit(plant: Plant) -> None:
    data = plant()
    fit = fit_pca(data.features, data.mask, n_factors=2, mode="expanding", train=slice(3, 11))
    pooled = fit_pca(data.features, data.mask, n_factors=2, train=slice(3, 11))
    assert same(fit.apply(data.features[12:]), pooled.apply(data.features[12:]))
    with pytest.raises(SpecError, match="expanding fit to be scored; got none at 2021-03-01"):
        fit.apply(data.features)
    days = fit_pca(data.features, data.mask, n_factors=2, train=("2021-03-04", "2021-03-15"))
    assert same(days.loadings, pooled.loadings)
    assert days.train == ("2021-03-04", "2021-03-15")


def test_a_date_that_was_not_fitted_has_no_axes_of_its_own(plant: Plant) -> None:
    data = plant()
    fit = fit_pca(data.features, data.mask, n_factors=2, mode="per_date", train=slice(0, 5))
    with pytest.raises(SpecError, match=r"per_date fit to be scored; got none at 2021-03-08.* 7"):
        fit.apply(data.features)


def test_a_date_with_too_few_assets_is_nan_and_named(plant: Plant) -> None:
    data = plant()
    mask = data.mask.copy(deep=True)
    mask[4] = np.arange(31) < 2
    fit = fit_pca(data.features, mask, n_factors=2, mode="per_date")
    assert fit.short_dates == ("2021-03-05",)
    scores = fit.apply(data.features, mask)
    assert np.isnan(scores[4]).all()
    assert not np.isnan(scores.to_numpy()[3][mask.to_numpy()[3]]).any()
    assert int(fit.n_rows[4]) == 2


# ---- invariances ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_permuting_assets_permutes_scores(plant: Plant, mode: Any) -> None:
    data = plant(missing=0.01)
    order = np.random.default_rng(1).permutation(31)
    there = data.features[:, order], data.mask[:, order]
    scores = fit_pca(data.features, data.mask, n_factors=2, mode=mode).apply(data.features)
    others = fit_pca(*there, n_factors=2, mode=mode).apply(there[0])
    np.testing.assert_allclose(others, scores[:, order], atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_where_blocks_are_cut_does_not_matter(
    plant: Plant, mode: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = plant(missing=0.01)
    whole = fit_pca(data.features, data.mask, n_factors=2, mode=mode)
    data.features.to_netcdf(tmp_path / "features.nc", engine="h5netcdf")
    monkeypatch.setattr(panel, "_BLOCK_BYTES", 3 * 31 * 7 * 4)  # three dates
    with xr.open_dataarray(tmp_path / "features.nc", engine="h5netcdf") as stored:
        cut = fit_pca(stored, data.mask, n_factors=2, mode=mode)
        assert same(cut.loadings, whole.loadings)
        assert same(cut.apply(stored, data.mask), whole.apply(data.features, data.mask))
        assert not stored.variable._in_memory  # it was never read as a whole


@pytest.mark.parametrize("mode", MODES)
def test_stored_arrays_give_the_fit_back(plant: Plant, mode: Any, tmp_path: Path) -> None:
    data = plant()
    fit = fit_pca(data.features, data.mask, n_factors=2, mode=mode)
    np.savez(tmp_path / "fit.npz", **fit.as_dict())  # type: ignore[arg-type]
    with np.load(tmp_path / "fit.npz", allow_pickle=False) as stored:
        back = PCAFit.from_dict(dict(stored))
    assert same(back.apply(data.features), fit.apply(data.features))
    assert back.loadings.identical(fit.loadings)
    assert (back.train, back.short_dates, back.mode) == (fit.train, fit.short_dates, mode)


# ---- bad input -----------------------------------------------------------------------------------


def test_constant_and_collinear_columns_are_named(plant: Plant) -> None:
    data = plant()
    features = data.features.astype(np.float64)
    features[..., 3] = 4.2
    features[..., 5] = 2.0 * features[..., 0] - features[..., 1]
    fit = fit_pca(features, data.mask, n_factors=3)
    assert fit.constant_features == ("f3",)
    assert fit.collinear_features == ("f0", "f1", "f5")
    np.testing.assert_allclose(fit.loadings.sel(feature="f3"), 0.0, atol=1e-12)
    with pytest.raises(SpecError, match="at most the rank of the rows, 5; got 6"):
        fit_pca(features, data.mask, n_factors=6)


def test_a_row_with_a_gap_is_left_out_and_not_zeroed(plant: Plant) -> None:
    data = plant()
    gap = data.features.copy(deep=True)
    gap[:, 4, 2] = np.nan
    without = fit_pca(data.features.drop_isel(asset=4), data.mask.drop_isel(asset=4), n_factors=2)
    fit = fit_pca(gap, data.mask, n_factors=2)
    np.testing.assert_allclose(fit.loadings, without.loadings, atol=1e-12)
    assert np.isnan(fit.apply(gap)[:, 4]).all()


def test_bad_features_are_named(plant: Plant) -> None:
    data = plant()
    unseen, infinite = data.features.copy(deep=True), data.features.copy(deep=True)
    unseen[..., 2] = np.nan
    mask = xr.ones_like(data.mask)
    infinite[1, 3, 2] = np.inf
    holes = data.features.where((np.arange(7) + np.arange(31)[:, None]) % 7 != 0)
    with pytest.raises(PanelError, match="must have a value in the training rows; got none at f2"):
        fit_pca(unseen, data.mask, n_factors=2)
    with pytest.raises(PanelError, match="got 1 inf cells at f2 A3 2021-03-02"):
        fit_pca(infinite, mask, n_factors=2)
    with pytest.raises(PanelError, match="more complete rows than factors; got 0"):
        fit_pca(holes, mask, n_factors=2)
    with pytest.raises(PanelError, match="features must have dims"):
        fit_pca(data.features.T, mask, n_factors=2)
    with pytest.raises(PanelError, match="mask must be bool"):
        fit_pca(data.features, mask.astype(float), n_factors=2)
    with pytest.raises(PanelError, match="mask must have the asset labels"):
        fit_pca(data.features, mask[:, ::-1], n_factors=2)
    fit = fit_pca(data.features, mask, n_factors=2)
    with pytest.raises(PanelError, match="the 7 of the fit, in its order; got 7, in another"):
        fit.apply(data.features[..., ::-1])


@pytest.mark.parametrize("n_factors", [0, -1, 8, 2.0, True])
def test_a_number_of_factors_out_of_range_is_refused(plant: Plant, n_factors: Any) -> None:
    with pytest.raises(SpecError, match="n_factors must be an integer from 1 to 7"):
        fit_pca(plant().features, plant().mask, n_factors=n_factors)


def test_bad_modes_and_spans_are_refused(plant: Plant) -> None:
    data = plant()
    with pytest.raises(SpecError, match="mode must be one of"):
        fit_pca(data.features, data.mask, n_factors=2, mode="rolling")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="must hold at least one date, without steps"):
        fit_pca(data.features, data.mask, n_factors=2, train=slice(20, 30))
    with pytest.raises(SplitError, match="must hold at least one date"):
        fit_pca(data.features, data.mask, n_factors=2, train=("2010-01-01", "2010-02-01"))
