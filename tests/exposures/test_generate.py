"""Synthetic rows: their law, flags and lineage, and where they may not go."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from nfi_pyro.data.splits import DateSplit, split_dates
from nfi_pyro.errors import PanelError, SpecError
from nfi_pyro.exposures import (
    VAESpec,
    VAETraining,
    augment,
    fit_ppca,
    fit_vae,
    generate_features,
)

Plant = Callable[..., Any]
KINDS = ("ppca", "vae")


def fitted(data: Any, kind: str, train: slice = slice(0, 10)) -> Any:
    if kind == "ppca":
        return fit_ppca(data.features, data.mask, n_factors=2, train=train)
    return fit_vae(
        data.features,
        data.mask,
        spec=VAESpec(n_factors=2, hidden_sizes=(5,)),
        train=train,
        validation=slice(train.stop, train.stop + 2),
        training=VAETraining(n_epochs=2),
    )


def real_and_split(data: Any) -> tuple[xr.Dataset, DateSplit]:
    """Return the training dates of some data as a dataset, and a split with 10 of them."""
    days = np.datetime_as_string(data.features["date"].to_numpy(), unit="D")
    split = split_dates(
        data.features["date"].to_numpy(),
        train=(days[0], days[11]),
        validation=(days[12], days[14]),
        test=(days[15], days[16]),
    )
    real = xr.Dataset({"features": data.features, "tradable": data.mask})
    return real.isel(date=slice(0, 10)), split


# ---- the law -------------------------------------------------------------------------------------


def test_rows_of_ppca_have_its_mean_and_covariance(plant: Plant) -> None:
    fit = fitted(plant(), "ppca")
    rows = generate_features(fit, dates=101, n_assets=199, seed=1)
    values = rows["features"].to_numpy().reshape(-1, 7).astype(np.float64)
    spread = fit.model.covariance()
    error = np.sqrt(np.diag(spread) / len(values))
    assert (np.abs(values.mean(axis=0) - fit.model.center) < 4.5 * error).all()
    scale = np.sqrt(np.outer(np.diag(spread), np.diag(spread)))
    assert (np.abs(np.cov(values.T) - spread) < 6.0 * scale / len(values) ** 0.5).all()


def test_rows_of_a_vae_that_starts_at_ppca_are_close_to_ppcas(plant: Plant) -> None:
    data = plant()
    rows = generate_features(fitted(data, "vae"), dates=101, n_assets=199, seed=1)
    values = rows["features"].to_numpy().reshape(-1, 7)
    spread = fitted(data, "ppca").model.covariance()
    np.testing.assert_allclose(np.cov(values.T), spread, atol=0.15 * np.diag(spread).max())


@pytest.mark.parametrize("kind", KINDS)
def test_conditioning_moves_rows_to_the_regime_of_the_dates(plant: Plant, kind: str) -> None:
    data = plant()
    fit = fitted(data, kind)
    shift = 2.0 * fitted(data, "ppca").model.loadings[:, 0]
    regime = (data.features[:3] + shift.astype(np.float32)).transpose(*data.features.dims)
    rows = generate_features(
        fit, dates=53, n_assets=61, seed=1, condition=regime, condition_mask=data.mask[:3]
    )
    plain = generate_features(fit, dates=53, n_assets=61, seed=1)
    wanted = regime.to_numpy()[data.mask.to_numpy()[:3]].mean(axis=0)
    mean = rows["features"].mean(("date", "asset")).to_numpy()
    np.testing.assert_allclose(mean, wanted, atol=0.35)
    assert np.abs(plain["features"].mean(("date", "asset")).to_numpy() - wanted).max() > 1.5
    assert rows.attrs["latents"] == "aggregated posterior"
    assert rows.attrs["conditioned_until"] == "2021-03-03"


@pytest.mark.parametrize("kind", KINDS)
def test_the_aggregated_posterior_of_the_training_rows_is_near_the_prior(
    plant: Plant, kind: str
) -> None:
    data = plant()
    fit = fitted(data, kind)
    rows = generate_features(fit, dates=101, n_assets=101, seed=2, condition=data.features[:10])[
        "features"
    ].to_numpy()
    plain = generate_features(fit, dates=101, n_assets=101, seed=2)["features"].to_numpy()
    gap = np.cov(rows.reshape(-1, 7).T) - np.cov(plain.reshape(-1, 7).T)
    assert np.abs(gap).max() < 0.25 * np.cov(plain.reshape(-1, 7).T).max()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_flagged_and_repeat_with_their_seed(plant: Plant, kind: str) -> None:
    fit = fitted(plant(), kind)
    one, two, other = (generate_features(fit, dates=5, n_assets=3, seed=seed) for seed in (1, 1, 2))
    assert one.identical(two)
    assert not one["features"].equals(other["features"])
    assert one.attrs["synthetic"] is True
    assert one.attrs["fitted_until"] == "2021-03-12"
    assert one.attrs["source"].startswith(kind)
    assert one["features"].dtype == np.float32
    assert one["tradable"].all()
    assert one["asset"].to_numpy().tolist() == ["synthetic 1", "synthetic 2", "synthetic 3"]
    assert str(one["date"].to_numpy()[-1])[:10] == "2021-03-12"
    assert one.sizes == {"date": 5, "asset": 3, "feature": 7}


def test_bad_requests_are_refused(plant: Plant) -> None:
    data = plant()
    fit = fitted(data, "ppca")
    with pytest.raises(SpecError, match="n_assets must be >= 1; got 0"):
        generate_features(fit, dates=5, n_assets=0, seed=0)
    with pytest.raises(SpecError, match="dates must be >= 1; got 0"):
        generate_features(fit, dates=0, n_assets=5, seed=0)
    with pytest.raises(SpecError, match="one or more and strictly increase"):
        generate_features(fit, dates=data.features["date"].to_numpy()[::-1], n_assets=5, seed=0)
    nobody = xr.zeros_like(data.mask)
    with pytest.raises(PanelError, match="condition must hold at least one row"):
        generate_features(
            fit, dates=5, n_assets=5, seed=0, condition=data.features, condition_mask=nobody
        )


# ---- augmenting ----------------------------------------------------------------------------------


def test_synthetic_rows_join_training_dates_at_the_ratio(plant: Plant) -> None:
    data = plant()
    real, split = real_and_split(data)
    fit = fitted(data, "ppca")
    rows = generate_features(fit, dates=real["date"].to_numpy(), n_assets=23, seed=1)
    both = augment(real, rows, ratio=0.5, split=split)
    assert both.sizes == {"date": 10, "asset": 31 + 23, "feature": 7}
    assert both.attrs["synthetic"] is True
    assert both.attrs["synthetic_ratio"] == 0.5
    assert both.attrs["synthetic_fitted_until"] == "2021-03-12"
    old = ~both["synthetic"].to_numpy()
    assert both.isel(asset=old)["features"].equals(real["features"])
    assert both.isel(asset=old)["tradable"].equals(real["tradable"])
    joined = both.isel(asset=~old)["tradable"].sum("asset").to_numpy()
    np.testing.assert_array_equal(joined, np.rint(0.5 * real["tradable"].sum("asset")))
    # What it is for: a fit on the training dates.
    more = fit_ppca(both["features"], both["tradable"], n_factors=2)
    assert more.n_rows == int(real["tradable"].sum()) + int(joined.sum())


def test_nothing_but_training_dates_is_augmented(plant: Plant) -> None:
    data = plant()
    real, split = real_and_split(data)
    whole = xr.Dataset({"features": data.features, "tradable": data.mask})
    fit = fitted(data, "ppca")
    rows = generate_features(fit, dates=real["date"].to_numpy(), n_assets=31, seed=1)
    with pytest.raises(SpecError, match=r"train must lie within.*7 others at 2021-03-15 \(purged"):
        augment(whole, rows, ratio=0.5, split=split)
    validation = whole.isel(date=slice(12, 15))
    with pytest.raises(SpecError, match=r"3 others at 2021-03-17 \(validation\)"):
        augment(validation, rows, ratio=0.5, split=split)
    test = generate_features(fit, dates=data.features["date"].to_numpy()[15:], n_assets=9, seed=1)
    with pytest.raises(SpecError, match=r"synthetic must lie within.*2021-03-22 \(test\)"):
        augment(real, test, ratio=0.5, split=split)
    late = fitted(data, "ppca", slice(0, 13))
    knowing = generate_features(late, dates=real["date"].to_numpy(), n_assets=31, seed=1)
    with pytest.raises(SpecError, match=r"nothing after 2021-03-12.*fitted_until 2021-03-17"):
        augment(real, knowing, ratio=0.5, split=split)
    told = generate_features(
        fit, dates=real["date"].to_numpy(), n_assets=31, seed=1, condition=data.features[12:13]
    )
    with pytest.raises(SpecError, match="conditioned_until 2021-03-17"):
        augment(real, told, ratio=0.5, split=split)


def test_flags_that_do_not_fit_are_refused(plant: Plant) -> None:
    data = plant()
    real, split = real_and_split(data)
    rows = generate_features(
        fitted(data, "ppca"), dates=real["date"].to_numpy(), n_assets=31, seed=1
    )
    with pytest.raises(SpecError, match="train must be real"):
        augment(real.assign_attrs(synthetic=True), rows, ratio=0.5, split=split)
    with pytest.raises(SpecError, match="train must be training dates; got span='test'"):
        augment(real.assign_attrs(span="test"), rows, ratio=0.5, split=split)
    with pytest.raises(SpecError, match="must be flagged synthetic=True"):
        augment(real, rows.assign_attrs(synthetic=False), ratio=0.5, split=split)
    with pytest.raises(SpecError, match="ratio must be > 0; got 0"):
        augment(real, rows, ratio=0.0, split=split)
    with pytest.raises(SpecError, match="must cover the 10 training dates with at least"):
        augment(real, rows, ratio=3.0, split=split)
    with pytest.raises(SpecError, match="must cover the 10 training dates"):
        augment(real, rows.isel(date=slice(0, 9)), ratio=0.5, split=split)
    with pytest.raises(SpecError, match="names of their own; got A0"):
        augment(real, rows.assign_coords(asset=real["asset"].to_numpy()), ratio=0.5, split=split)
    with pytest.raises(SpecError, match="synthetic must be on dates of train; got 1"):
        augment(real.isel(date=slice(1, 10)), rows, ratio=0.5, split=split)
    with pytest.raises(PanelError, match="the 7 of train, in its order; got 5, without f5, f6"):
        augment(real, rows.isel(feature=slice(0, 5)), ratio=0.5, split=split)
    with pytest.raises(PanelError, match=r"train must have features and tradable; got none of \["):
        augment(real.drop_vars("tradable"), rows, ratio=0.5, split=split)
