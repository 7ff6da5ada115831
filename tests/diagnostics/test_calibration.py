import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.diagnostics.calibration import calibrate
from nfi_pyro.errors import ShapeError, SpecError


def _pit(values: object) -> xr.DataArray:
    array = np.asarray(values, dtype=np.float64)
    coords = {
        "date": pd.bdate_range("2020-01-01", periods=array.shape[0]),
        "asset": [f"A{i}" for i in range(array.shape[1])],
    }
    return xr.DataArray(array, coords=coords, dims=("date", "asset"))


def _uniform(n_dates: int, n_assets: int, seed: int = 0) -> xr.DataArray:
    return _pit(np.random.default_rng(seed).uniform(size=(n_dates, n_assets)))


def test_counts_are_those_of_a_hand_made_example() -> None:
    pit = _pit([[0.0, 0.25, 0.5], [1.0, 0.75, np.nan], [0.24, 0.1, 0.9]])
    found = calibrate(pit, levels=(0.5, 0.9), n_bins=4, n_resamples=7, block=1)
    assert found.n_observations == 8
    # The bins are [0, .25), [.25, .5), [.5, .75), [.75, 1]: 3, 1, 1 and 3 cells of 8.
    np.testing.assert_allclose(found.histogram, 4 * np.array([3, 1, 1, 3]) / 8)
    np.testing.assert_allclose(found.histogram["bin"], [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(found.coverage["observed"], [3 / 8, 6 / 8])
    np.testing.assert_allclose(found.coverage["level"], [0.5, 0.9])
    xr.testing.assert_identical(found.pit, pit)


def test_histogram_is_a_density_and_bounds_hold_it() -> None:
    found = calibrate(_uniform(101, 7), seed=3)
    assert float(found.histogram.mean()) == pytest.approx(1.0, abs=1e-12)
    assert bool((found.histogram_lower <= found.histogram).all())
    assert bool((found.histogram <= found.histogram_upper).all())
    assert bool((found.coverage["lower"] < found.coverage["observed"]).all())
    assert bool((found.coverage["observed"] < found.coverage["upper"]).all())


def test_uniform_cells_cover_within_their_sampling_error() -> None:
    found = calibrate(_uniform(499, 17, seed=1), n_resamples=2)
    for level in (0.5, 0.8, 0.95):
        error = math.sqrt(level * (1 - level) / (499 * 17))
        assert float(found.coverage["observed"].sel(level=level)) == pytest.approx(
            level, abs=4 * error
        )


def test_bootstrap_width_is_that_of_independent_dates_and_sees_common_ones() -> None:
    independent = calibrate(_uniform(400, 11, seed=2), n_resamples=1000, block=1)
    width = (independent.coverage["upper"] - independent.coverage["lower"]).sel(level=0.5)
    # Normal theory; the width of 1000 resamples has a relative error of about 4 percent.
    assert float(width) == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 4400), rel=0.2)
    common = _pit(np.repeat(_uniform(400, 1, seed=2).values, 11, axis=1))
    shared = calibrate(common, n_resamples=1000, block=1)
    ratio = float((shared.coverage["upper"] - shared.coverage["lower"]).sel(level=0.5) / width)
    assert ratio == pytest.approx(math.sqrt(11), rel=0.25)
    runs = _pit(np.repeat(_uniform(80, 11, seed=2).values, 5, axis=0))
    long = calibrate(runs, n_resamples=1000, block=20).coverage
    short = calibrate(runs, n_resamples=1000, block=1).coverage
    gain = (long["upper"] - long["lower"]) / (short["upper"] - short["lower"])
    assert float(gain.sel(level=0.5)) > 1.5


@pytest.mark.parametrize("tail_dof", [None, 4.0])
def test_true_law_of_a_simulated_panel_is_calibrated(tail_dof: float | None) -> None:
    spec = SimulationSpec(n_dates=997, n_assets=23, tail_dof=tail_dof, regime_switch=True)
    panel, truth = simulate_panel(spec, seed=5)
    pit = truth.pit(panel["forward_return"])
    found = calibrate(pit)
    for level in (0.5, 0.8, 0.95):
        inside = (abs(pit - 0.5) <= level / 2).where(pit.notnull())
        error = float(inside.mean("asset").std()) / math.sqrt(997)  # dates are independent
        observed = float(found.coverage["observed"].sel(level=level))
        assert observed == pytest.approx(level, abs=4 * error)
    inflated = truth.law.assign(specific_scale=0.5 * truth.law["specific_scale"])
    wrong = type(truth)(law=inflated, tail_dof=tail_dof).pit(panel["forward_return"])
    assert float(calibrate(wrong).coverage["upper"].sel(level=0.95)) < 0.93


def test_seed_decides_the_bounds_and_global_generators_are_untouched() -> None:
    pit = _uniform(47, 5)
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    one, two, three = calibrate(pit, seed=1), calibrate(pit, seed=1), calibrate(pit, seed=2)
    after = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    np.testing.assert_array_equal(after, before)
    xr.testing.assert_identical(one.coverage, two.coverage)
    xr.testing.assert_identical(one.histogram_upper, two.histogram_upper)
    assert not one.coverage["lower"].equals(three.coverage["lower"])


def test_dates_without_observations_and_order_of_dimensions_do_not_matter() -> None:
    pit = _uniform(43, 5)
    holes = pit.reindex(date=pd.bdate_range("2020-01-01", periods=50))
    one, two = calibrate(pit), calibrate(holes.transpose("asset", "date"))
    xr.testing.assert_identical(one.coverage, two.coverage)
    assert two.pit.dims == ("date", "asset")
    assert two.pit.sizes["date"] == 50


def test_short_panels_get_short_blocks() -> None:
    pit = _uniform(13, 5)
    xr.testing.assert_identical(calibrate(pit).coverage, calibrate(pit, block=3).coverage)
    pit = _uniform(101, 3)
    xr.testing.assert_identical(calibrate(pit).coverage, calibrate(pit, block=10).coverage)
    assert calibrate(_uniform(1, 3)).n_observations == 3


def test_a_block_as_long_as_the_panel_resamples_the_panel_itself() -> None:
    found = calibrate(_uniform(17, 5), block=17)
    xr.testing.assert_identical(found.histogram_lower, found.histogram)
    xr.testing.assert_identical(found.histogram_upper, found.histogram)


def test_arguments_are_checked() -> None:
    pit = _uniform(7, 5)
    with pytest.raises(ShapeError, match="pit must have the dimensions date and asset"):
        calibrate(pit.isel(asset=0))
    with pytest.raises(SpecError, match=r"pit must be in \[0, 1\]; got 1.5"):
        calibrate(pit.where(pit < 0.9, 1.5))
    with pytest.raises(SpecError, match="pit must hold an observed cell"):
        calibrate(xr.full_like(pit, np.nan))
    with pytest.raises(SpecError, match=r"levels must be probabilities in \(0, 1\)"):
        calibrate(pit, levels=(0.5, 1.0))
    with pytest.raises(SpecError, match="n_bins must be >= 2; got 1"):
        calibrate(pit, n_bins=1)
    with pytest.raises(SpecError, match=r"block must be from 1 to the 7 dates .* got 8"):
        calibrate(pit, block=8)
    with pytest.raises(SpecError, match="seed must be >= 0; got -1"):
        calibrate(pit, seed=-1)
