"""Taylor attribution: exact sums, nothing left of a quadratic law, bases, books, bad input."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from nfi_pyro.attribution.sensitivities.dated_laws import dated_laws
from nfi_pyro.attribution.sensitivities.targets import TARGETS, Target
from nfi_pyro.attribution.sensitivities.taylor import expand_law, taylor_attribution, taylor_book
from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.errors import ShapeError, SpecError, WeightsError
from nfi_pyro.nets.jets import Jet
from nfi_pyro.posterior import PricingLaw
from tests.attribution.small_fits import MODELS, small_fit, small_panel

SPAN = ("2010-03-01", "2010-03-12")


def total(found: xr.Dataset) -> xr.DataArray:
    parts = (found["linear"] + found["quadratic"] + found["cross"]).sum("factor", skipna=False)
    return found["base_value"] + parts + found["remainder"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", MODELS)
def test_parts_add_up(model: str, target: Any) -> None:
    found = taylor_attribution(
        small_fit(model), small_panel(), target=target, dates=SPAN, pairs=True
    )
    np.testing.assert_allclose(total(found), found["value"], rtol=0, atol=1e-14)
    np.testing.assert_allclose(
        found["interaction"].sum("factor_other", skipna=False), found["cross"], atol=1e-15
    )
    pairs = found["interaction"]
    np.testing.assert_allclose(
        pairs, pairs.transpose("date", "asset", "factor_other", "factor"), rtol=1e-14
    )
    assert found["remainder"].attrs["units"] == Target(target).unit


def quadratic_law() -> tuple[PricingLaw, torch.Tensor, torch.Tensor]:
    """Return a law whose mean is quadratic, its slope and its curvature."""
    slope = torch.tensor([0.02, -0.01, 0.005], dtype=torch.float64)
    root = torch.tensor([[0.1, 0.0, 0.02], [0.0, -0.05, 0.03], [0.02, 0.03, 0.07]])
    bend = 0.5 * (root + root.T).double()

    def alpha(beta: torch.Tensor) -> Jet:
        value = beta @ slope + 0.5 * ((beta @ bend) * beta).sum(-1)
        return Jet(value, slope + beta @ bend, bend.expand(*beta.shape[:-1], 3, 3))

    def specific(beta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean = alpha(beta).value.unsqueeze(-1)
        return torch.zeros_like(mean), mean, torch.ones_like(mean)

    nothing = torch.zeros(0, dtype=torch.float64)
    points = torch.randn(7, 3, generator=torch.Generator().manual_seed(3)).double()
    law = PricingLaw(
        PricingFunction(specific, alpha, nothing, nothing, "none"), 1.0, points,
        np.array(list("abcdefg")), ("x0", "x1", "x2"), np.datetime64("2024-01-02", "ns"),
    )  # fmt: skip
    return law, slope, bend


@pytest.mark.parametrize("base", ["zero", "mean", [0.3, -0.2, 0.1], {"a": 0.5, "c": 0.7}])
def test_nothing_is_left_of_a_quadratic_law(base: Any) -> None:
    law, slope, bend = quadratic_law()
    parts, point = expand_law(law, Target(), base)
    assert float(parts["remainder"].abs().max()) < 1e-15
    gap = law.beta - point
    torch.testing.assert_close(parts["linear"], (slope + bend @ point) * gap)
    torch.testing.assert_close(parts["quadratic"], 0.5 * bend.diagonal() * gap.square())
    pair = bend[0, 2] * gap[:, 0] * gap[:, 2]
    torch.testing.assert_close(2.0 * parts["interaction"][:, 0, 2], pair)
    wanted = {
        "zero": torch.zeros(3),
        "mean": law.beta.mean(0),
        "given": torch.tensor([0.3, -0.2, 0.1]),
    }
    if isinstance(base, dict):
        torch.testing.assert_close(point, 0.5 * law.beta[0] + 0.7 * law.beta[2])
    else:
        name = base if isinstance(base, str) else "given"
        torch.testing.assert_close(point, wanted[name].double())


def test_what_is_left_shrinks_with_the_cube_of_the_distance() -> None:
    law = next(dated_laws(small_fit("nfi"), small_panel(), dates=SPAN))
    centre = law.beta.mean(0)
    left = []
    for scale in (0.5, 0.25, 0.125):
        near = replace(law, beta=centre + scale * (law.beta - centre))
        parts, _ = expand_law(near, Target("standard_deviation"), centre.numpy())
        left.append(float(parts["remainder"].norm()))
    ratios = np.array(left[:-1]) / np.array(left[1:])
    assert ((ratios > 6.0) & (ratios < 10.0)).all(), ratios


def test_a_linear_model_is_all_linear() -> None:
    found = taylor_attribution(small_fit("linear_factor"), small_panel(), dates=SPAN)
    for name in ("quadratic", "cross"):
        assert float(np.abs(found[name]).max()) == 0.0
    assert float(np.abs(found["remainder"]).max()) < 1e-15


def test_a_labelled_base_is_read_by_its_labels() -> None:
    fit = small_fit("nfi")
    base = xr.DataArray([0.3, -0.2, 0.1], {"factor": ["z0", "z1", "z2"]}, "factor")
    wanted = taylor_attribution(fit, small_panel(), base=base.values, dates=SPAN)
    turned = taylor_attribution(fit, small_panel(), base=base[::-1], dates=SPAN)
    xr.testing.assert_identical(turned, wanted)
    other = base.assign_coords(factor=["q", "r", "s"])
    with pytest.raises(ShapeError, match=r"must have the factors z0, z1, z2; got .*q, r, s"):
        taylor_attribution(fit, small_panel(), base=other, dates=SPAN)


# ---- books ---------------------------------------------------------------------------------------


def test_a_books_parts_are_the_weighted_sums_of_its_assets() -> None:
    found = taylor_attribution(small_fit("mixture_pricing"), small_panel(), dates=SPAN, pairs=True)
    held = found["value"].notnull()
    weights = (held / held.sum("asset")).transpose("date", "asset")
    book = taylor_book(found, weights)
    np.testing.assert_allclose(book["value"], found["value"].mean("asset"), atol=1e-15)
    np.testing.assert_allclose(total(book), book["value"], atol=1e-15)
    assert book["linear"].dims == ("date", "factor")
    assert book["interaction"].dims == ("date", "factor", "factor_other")


def test_books_of_what_has_no_law_or_does_not_add_up_are_refused() -> None:
    found = taylor_attribution(small_fit("mixture_pricing"), small_panel(), dates=SPAN)
    weights = xr.DataArray([1.0], {"asset": ["NOBODY"]}, "asset")
    with pytest.raises(WeightsError, match="must have a law on every date; got none for NOBODY"):
        taylor_book(found, weights)
    missing = found["value"].isnull().any("date")
    name = str(found["asset"].values[missing.values][0])
    with pytest.raises(WeightsError, match=f"got none for {name}"):
        taylor_book(found, xr.DataArray([1.0], {"asset": [name]}, "asset"))
    with pytest.raises(ShapeError, match=r"weights must be over asset, or date and asset"):
        taylor_book(found, xr.DataArray([1.0], dims="factor"))
    risk = taylor_attribution(small_fit("nfi"), small_panel(), target="variance", dates=SPAN)
    with pytest.raises(SpecError, match="parts must be of the mean; got 'variance'"):
        taylor_book(risk, weights)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "error", "said"),
    [
        (
            "median",
            SpecError,
            "base must be mean, zero, weights or numbers by factor; got 'median'",
        ),
        (
            [0.0, 1.0],
            ShapeError,
            r"a base must be 3 finite numbers, one by factor; got shape \(2,\)",
        ),
        ([0.0, 1.0, np.nan], ShapeError, "a base must be 3 finite numbers"),
        (pd.Series({"NOBODY": 1.0}), WeightsError, "unknown NOBODY.*the base of 2010-03-01"),
    ],
)
def test_bad_bases_are_refused(base: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        taylor_attribution(small_fit("nfi"), small_panel(), base=base, dates=SPAN)
