"""Bad input of Brinson attribution, each with its name, place and fix."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from nfi_pyro.attribution.returns.brinson import brinson
from nfi_pyro.errors import ShapeError, SpecError, WeightsError
from tests.attribution.brinson_maker import random_books

Books = tuple[xr.DataArray, xr.DataArray, xr.DataArray, dict[str, str]]


@pytest.fixture
def books() -> Books:
    return random_books(1, n_dates=7)


def test_a_benchmark_that_is_a_series_of_returns_is_refused(books: Books) -> None:
    own, other, returns, groups = books
    index = (other * returns).sum("asset")
    reason = (
        r"benchmark must be weights of its constituents.*got \('date',\).*"
        r"group weights and returns come from constituents"
    )
    with pytest.raises(SpecError, match=reason):
        brinson(own, index, returns, groups)
    with pytest.raises(SpecError, match=r"benchmark must be weights of its.*got Series at brinson"):
        brinson(own, index.to_series(), returns, groups)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="portfolio must be weights of its constituents"):
        brinson(index, other, returns, groups)


def test_weights_that_do_not_sum_to_one_are_refused_by_default(books: Books) -> None:
    own, other, returns, groups = books
    short = own.copy()
    short[3] *= 0.98
    with pytest.raises(
        WeightsError,
        match=r"portfolio weights must sum to 1 within 1e-06.*got 0.98 on 2021-03-04 at brinson",
    ):
        brinson(short, other, returns, groups)
    with pytest.raises(
        WeightsError, match=r"benchmark weights must sum.*1.1 on 2021-03-01, .* and 2 more at"
    ):
        brinson(own, 1.1 * other, returns, groups)
    brinson(own * (1.0 + 9e-7), other, returns, groups)
    with pytest.raises(WeightsError, match=r"got 1.0000011 on"):
        brinson(own * (1.0 + 1.1e-6), other, returns, groups)


def test_weights_must_be_finite_and_of_assets_with_returns(books: Books) -> None:
    own, other, returns, groups = books
    gap = own.copy()
    gap[2, 3] = np.nan
    with pytest.raises(
        WeightsError, match="portfolio weights must be finite; got nan at A3 on 2021-03-03 of"
    ):
        brinson(gap, other, returns, groups)
    with pytest.raises(WeightsError, match="benchmark weights must be finite; got inf at A0 on"):
        brinson(own, other * np.inf, returns, groups)
    with pytest.raises(
        WeightsError, match="portfolio must hold assets that have returns; got 2 unknown at A4, A9"
    ):
        brinson(own, other, returns.drop_sel(asset=["A4", "A9"]), groups)


def test_a_held_asset_needs_a_return(books: Books) -> None:
    own, other, returns, groups = books
    own[4, 6] = 0.0
    own = own / own.sum("asset")
    gap = returns.copy()
    gap[4, 6] = np.nan  # held by the benchmark alone
    place = "a held asset must have a finite return; got none at A6 on 2021-03-05 of brinson"
    with pytest.raises(SpecError, match=place):
        brinson(own, other, gap, groups)
    other[4, 6] = 0.0
    other = other / other.sum("asset")
    assert np.isfinite(brinson(own, other, gap, groups).effects.values).all()
    draws = xr.concat([returns, gap.fillna(np.inf)], "sample")
    draws[1, 5, 2] = np.nan
    with pytest.raises(SpecError, match="got none at A2 on 2021-03-08 of brinson"):
        brinson(own, other, draws, groups)


def test_a_held_asset_needs_a_group(books: Books) -> None:
    own, other, returns, groups = books
    fewer: dict[str, Any] = {**groups, "A5": None}
    del fewer["A8"]
    with pytest.raises(
        SpecError,
        match=r"every held asset must have a group; got none for A5, A8, first on 2021-03-01, at "
        "brinson. Add them to groups, or pass missing_group",
    ):
        brinson(own, other, returns, fewer)
    dated = xr.DataArray(
        np.array([list(groups.values())] * 7, dtype=object),
        {"date": returns["date"], "asset": list(groups)},
        ("date", "asset"),
    )
    dated[6, 1] = ""
    with pytest.raises(SpecError, match="got none for A1, first on 2021-03-09, at"):
        brinson(own, other, returns, dated)


@pytest.mark.parametrize("name", ["unallocated", "trading"])
def test_rows_of_the_attribution_are_no_groups(books: Books, name: str) -> None:
    own, other, returns, groups = books
    with pytest.raises(SpecError, match=f"a group must not be called .*; got {name} at brinson"):
        brinson(own, other, returns, {**groups, "A2": name})
    with pytest.raises(SpecError, match="a group must not be called"):
        brinson(own, other, returns, {**groups, "A2": ""}, missing_group=name)


def test_dimensions_and_labels_must_agree(books: Books) -> None:
    own, other, returns, groups = books
    late = {"date": slice(1, None)}
    with pytest.raises(
        ShapeError, match="portfolio must have the dates of the returns; got 6 agai"
    ):
        brinson(own.isel(late), other, returns, groups)
    with pytest.raises(
        ShapeError, match="benchmark must have the dates of the returns; got 7 agai"
    ):
        brinson(own.isel(late), other, returns.isel(late), groups)
    array = xr.DataArray([list(groups.values())] * 6, {"asset": list(groups)}, ("date", "asset"))
    with pytest.raises(
        ShapeError, match="groups must have the dates of the returns; got 6 against"
    ):
        brinson(own, other, returns, array)
    with pytest.raises(ShapeError, match="portfolio must have the dimensions date and asset, or"):
        brinson(own.expand_dims(sample=3), other, returns, groups)
    with pytest.raises(ShapeError, match=r"groups must be over asset, or date.*got \('date',\)"):
        brinson(own, other, returns, array.isel(asset=0))
    with pytest.raises(
        ShapeError, match=r"returns must be a DataArray over date and asset.*'model'"
    ):
        brinson(own, other, returns.expand_dims(model=2), groups)
    with pytest.raises(ShapeError, match=r"returns must be a DataArray.*got DataFrame at brinson"):
        brinson(own, other, returns.to_pandas(), groups)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="returns must be a DataArray over date and asset"):
        brinson(own, other, returns.isel(date=[]), groups)
    with pytest.raises(SpecError, match="dates must increase; got returns in another order"):
        brinson(own[::-1], other[::-1], returns[::-1], groups)


def test_assets_are_there_once(books: Books) -> None:
    own, other, returns, groups = books
    twice = {"asset": [*range(13), 4]}
    with pytest.raises(ShapeError, match="assets must be there once; got A4 again in returns"):
        brinson(own, other, returns.isel(twice), groups)
    with pytest.raises(ShapeError, match="got A4 again in benchmark at brinson"):
        brinson(own, other.isel(twice), returns, groups)
    array = xr.DataArray(list(groups.values()), {"asset": list(groups)}, ("asset",))
    with pytest.raises(ShapeError, match="got A4 again in groups"):
        brinson(own, other, returns, array.isel(twice))


@pytest.mark.parametrize("unit", ["rank", "excess"])
def test_labels_that_are_no_returns_are_refused(books: Books, unit: str) -> None:
    own, other, returns, groups = books
    with pytest.raises(
        SpecError, match=f"returns must be returns; got labels whose unit is '{unit}"
    ):
        brinson(own, other, returns.assign_attrs(unit=unit), groups)
    brinson(own, other, returns.assign_attrs(unit="return"), groups)


def test_options_are_known(books: Books) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"method": "BF"}, "method must be one of bf, bhb; got 'BF' at brinson"),
        ({"interaction": "none"}, "interaction must be one of separate, selection, allocation"),
        ({"unallocated": "drop"}, "unallocated must be one of error, cash; got 'drop'"),
    ]
    for option, message in wrong:
        with pytest.raises(SpecError, match=message):
            brinson(*books, **option)
