"""Product factors: a regression by hand, invariance, gaps, errors."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from nfi_pyro.attribution.couplings.coupling_products import product_factor
from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.errors import ShapeError, SpecError
from tests.attribution.coupling_laws import simulate

PAIR = ("z0", "z2")


@pytest.fixture(scope="module")
def exposures() -> xr.DataArray:
    """Return correlated exposures over 7 dates, 13 assets and 3 factors, one cell in ten absent."""
    rng = np.random.default_rng(5)
    mix = np.array([[1.0, 0.4, 0.3], [0.0, 1.0, -0.5], [0.0, 0.0, 1.0]])
    values = 0.5 + rng.normal(size=(7, 13, 3)) @ mix
    values[rng.random((7, 13)) < 0.1] = np.nan
    coords = {"date": np.arange(7), "asset": [f"A{i}" for i in range(13)], "factor": list("abc")}
    return xr.DataArray(values, coords, ("date", "asset", "factor")).assign_coords(
        factor=["z0", "z1", "z2"]
    )


def test_it_is_the_standardised_residual_of_a_regression(exposures: xr.DataArray) -> None:
    found = product_factor(exposures, PAIR)
    assert found.dims == ("date", "asset")
    for row, date in enumerate(exposures.to_numpy()):
        present = np.isfinite(date).all(axis=1)
        first, second = date[present][:, [0, 2]].T
        design = np.column_stack([np.ones(len(first)), first, second])
        left = first * second - design @ np.linalg.lstsq(design, first * second)[0]
        own = found.to_numpy()[row]
        np.testing.assert_allclose(own[present], left / left.std(), rtol=1e-10)
        assert np.isnan(own[~present]).all()
        np.testing.assert_allclose(design.T @ own[present], 0.0, atol=1e-12)
    assert found.attrs["n_skipped"] == 0
    assert (found.attrs["first"], found.attrs["second"]) == PAIR
    assert found.name == "z0 x z2"


def test_units_and_levels_of_exposures_do_not_matter(exposures: xr.DataArray) -> None:
    rng = np.random.default_rng(7)
    scale = xr.DataArray(rng.uniform(0.5, 3.0, (7, 3)), dims=("date", "factor"))
    moved = exposures * scale + xr.DataArray(rng.normal(size=(7, 3)), dims=("date", "factor"))
    found = product_factor(exposures, PAIR)
    np.testing.assert_allclose(product_factor(moved, PAIR), found, rtol=1e-9, atol=1e-11)
    turned = moved * np.array([-1.0, 1.0, 1.0])
    np.testing.assert_allclose(product_factor(turned, PAIR), -found, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(product_factor(exposures, PAIR[::-1]), found, rtol=1e-9, atol=1e-11)
    swapped = exposures.transpose("factor", "asset", "date")
    np.testing.assert_array_equal(product_factor(swapped, PAIR), found)


def test_it_knows_nothing_of_other_dates(exposures: xr.DataArray) -> None:
    changed = exposures.copy(deep=True)
    changed[5:] = np.nan
    found = product_factor(changed, PAIR)
    np.testing.assert_array_equal(found[:5], product_factor(exposures, PAIR)[:5])
    assert found.attrs["n_skipped"] == 2


def test_a_panel_gives_its_exposures_where_tradable() -> None:
    panel = simulate(3, n_dates=11, n_assets=17, n_features=3).copy(deep=True)
    panel["tradable"].values[3, 5] = False
    panel = check_panel(panel)
    found = product_factor(panel, PAIR)
    assert np.isnan(found.to_numpy()[3, 5])
    masked = panel["exposures"].where(panel["tradable"])
    np.testing.assert_array_equal(found, product_factor(masked, PAIR))


def test_dates_without_a_product_are_nan_and_counted(exposures: xr.DataArray) -> None:
    odd = exposures.copy(deep=True).fillna(0.1)
    odd[1, 7:] = np.nan  # seven assets are too few, eight are enough
    odd[2, 8:] = np.nan
    odd[3, :, 0] = 0.7  # does not vary
    odd[4, :, 2] = 3.0 * odd[4, :, 0] - 2.0  # the same exposure twice: a square is its product
    group = np.arange(13) % 3
    odd[5, :, 0], odd[5, :, 2] = group == 0, group == 1  # no asset is in both
    odd[6, :, 2] = (group == 1).astype(float)
    found = product_factor(odd, PAIR)
    known = np.isfinite(found.to_numpy()).any(axis=1)
    assert known.tolist() == [True, False, True, False, True, False, True]
    assert found.attrs["n_skipped"] == 3
    twice = odd.to_numpy()[4, :, 0]
    design = np.vander(twice, 2)
    left = twice**2 - design @ np.linalg.lstsq(design, twice**2)[0]
    np.testing.assert_allclose(found[4], left / left.std(), rtol=1e-9)


def test_what_cannot_be_multiplied_is_refused(
    exposures: xr.DataArray, make_panel: Callable[..., Panel]
) -> None:
    for pair in (("z0", "z0"), ("z0", "value"), ("z0",), ("z0", "z1", "z2")):
        with pytest.raises(SpecError, match=r"pair must be two different factors; got \("):
            product_factor(exposures, pair)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="a panel must have exposures to multiply; got none"):
        product_factor(make_panel(), PAIR)
    with pytest.raises(ShapeError, match="must have the dimensions date, asset and factor; got"):
        product_factor(exposures.rename(factor="feature"), PAIR)
    odd = exposures.copy(deep=True)
    odd[3, 5, 0] = np.inf
    with pytest.raises(SpecError, match="exposures must be finite or NaN; got infinite ones on 3"):
        product_factor(odd, PAIR)
