"""The fidelity report: it passes good rows, and sees wrong ones and copies."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.stats import ks_2samp

from nfi_pyro.errors import PanelError, SpecError
from nfi_pyro.exposures import FidelityReport, fidelity_report, fit_ppca, generate_features

Plant = Callable[..., Any]


def report(data: Any, synthetic: xr.Dataset, seed: int = 1) -> FidelityReport:
    real = xr.Dataset({"features": data.features, "tradable": data.mask})
    return fidelity_report(real, synthetic, seed=seed, max_rows=300)


def rows_from(data: Any, n_factors: int) -> xr.Dataset:
    fit = fit_ppca(data.features, data.mask, n_factors=n_factors)
    return generate_features(fit, dates=17, n_assets=29, seed=3)


def test_rows_of_the_right_model_pass(plant: Plant) -> None:
    data = plant()
    found = report(data, rows_from(data, 2))
    assert (found.ks < found.ks_critical).all()
    assert found.correlation_distance < 2.0 * found.correlation_floor
    assert 0.38 < found.auc < 0.62
    assert found.distance_ratio == pytest.approx(1.0, abs=0.15)
    assert found.copy_share < 0.05
    assert (found.n_real, found.n_synthetic) == (int(data.mask.sum()), 17 * 29)


def test_a_lost_factor_shows_in_correlations_and_classifier(plant: Plant) -> None:
    data = plant()
    good, poor = report(data, rows_from(data, 2)), report(data, rows_from(data, 1))
    assert poor.correlation_distance > 3.0 * good.correlation_distance
    assert poor.auc > 0.7
    assert poor.distance_ratio > 1.05


def test_a_moved_feature_shows_in_its_marginal(plant: Plant) -> None:
    data = plant()
    rows = rows_from(data, 2)
    rows["features"][..., 4] += 1.0
    found = report(data, rows)
    assert found.ks.argmax() == 4
    assert found.ks[4] > 2.0 * found.ks_critical
    real = data.features.to_numpy()[data.mask.to_numpy()][:, 4]
    gap = ks_2samp(real, rows["features"].to_numpy()[..., 4].ravel()).statistic
    assert found.ks[4] == pytest.approx(gap, abs=1e-12)
    assert "at f4" in found.reading[0]


def test_copies_are_seen_though_all_else_is_perfect(plant: Plant) -> None:
    data = plant()
    copied = data.features.copy(deep=True).assign_coords(asset=[f"s{k}" for k in range(31)])
    mask = data.mask.assign_coords(asset=copied["asset"])
    rows = xr.Dataset({"features": copied, "tradable": mask}, attrs={"synthetic": True})
    found = report(data, rows)
    np.testing.assert_array_equal(found.ks, 0.0)
    assert found.correlation_distance == 0.0
    assert found.distance_ratio < 1e-5
    assert found.copy_share == 1.0
    assert "copies 100.0%" in found.reading[3]


def test_the_report_repeats_with_its_seed_and_goes_through_json(plant: Plant) -> None:
    data = plant()
    rows = rows_from(data, 2)
    one, two, other = (report(data, rows, seed) for seed in (1, 1, 2))
    assert one.as_dict() == two.as_dict()
    assert one.auc != other.auc
    back = FidelityReport.from_dict(json.loads(json.dumps(one.as_dict())))
    assert back.as_dict() == one.as_dict()
    assert back.reading == one.reading
    assert all("good:" in line for line in one.reading)


def test_bad_comparisons_are_refused(plant: Plant) -> None:
    data = plant()
    rows = rows_from(data, 2)
    real = xr.Dataset({"features": data.features, "tradable": data.mask})
    with pytest.raises(SpecError, match="real must not be flagged synthetic"):
        fidelity_report(rows, real, seed=0)
    with pytest.raises(SpecError, match="max_rows must be >= 50"):
        fidelity_report(real, rows, seed=0, max_rows=10)
    with pytest.raises(PanelError, match="synthetic must have at least 4 assets"):
        fidelity_report(real, rows.isel(asset=slice(0, 3)), seed=0)
    with pytest.raises(PanelError, match="the 7 of real, in its order; got 3, without f3"):
        fidelity_report(real, rows.isel(feature=slice(0, 3)), seed=0)
