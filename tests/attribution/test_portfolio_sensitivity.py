"""Sensitivities of portfolios: finite differences, sum rules, the weights in, bad input."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from nfi_pyro.attribution.sensitivities.dated_laws import dated_laws
from nfi_pyro.attribution.sensitivities.portfolio_sensitivity import (
    OF_A_BOOK,
    book_derivatives,
    portfolio_sensitivity,
)
from nfi_pyro.attribution.sensitivities.shifts import exposure_shift
from nfi_pyro.attribution.sensitivities.targets import Target
from nfi_pyro.errors import ShapeError, SpecError, WeightsError
from nfi_pyro.posterior import PricingLaw, forecast
from tests.attribution.small_fits import MODELS, small_fit, small_panel

SPAN = ("2010-03-01", "2010-03-12")
DAY = ("2010-03-03", "2010-03-03")


def law_of(model: str) -> PricingLaw:
    return next(dated_laws(small_fit(model), small_panel(), dates=DAY))


def weights_of(law: PricingLaw) -> torch.Tensor:
    """Return long and short weights that sum to 1."""
    raw = torch.linspace(-0.5, 1.0, len(law.beta), dtype=torch.float64)
    return raw / raw.sum()


@pytest.mark.parametrize("target", OF_A_BOOK)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shift", ["parallel", "min_norm"])
def test_derivatives_are_those_of_the_moved_book(model: str, target: Any, shift: str) -> None:
    """Second differences of the value itself, exposures being moved by hand."""
    fit, law, chosen = small_fit(model), law_of(model), Target(target, risk_free=1e-4)
    weights = weights_of(law)
    matrix = exposure_shift(law, weights, shift)
    if fit.copula is not None and target != "mean":
        return  # correlations are held there: see the next test
    found = book_derivatives(law, weights, matrix, chosen, fit)
    assert found.hessian is not None
    step, count = 2e-3, law.beta.shape[-1]
    eye = step * torch.eye(count, dtype=torch.float64)

    def value(move: torch.Tensor) -> torch.Tensor:
        moved = replace(law, beta=law.beta + matrix * move)
        return book_derivatives(moved, weights, matrix, chosen, fit).value

    slope = torch.stack([(value(e) - value(-e)) / (2.0 * step) for e in eye])
    size = float(found.gradient.abs().max()) + float(found.hessian.abs().max())
    torch.testing.assert_close(found.gradient, slope, rtol=1e-4, atol=1e-5 * size)
    bend = torch.stack([
        torch.stack([(value(a + b) - value(a - b) - value(b - a) + value(-a - b)) / (4 * step**2)
                     for b in eye])
        for a in eye
    ])  # fmt: skip
    torch.testing.assert_close(found.hessian, bend, rtol=1e-3, atol=2e-5 * size)


@pytest.mark.parametrize("model", ["mixture_pricing", "neural_factor"])
def test_under_a_copula_deviations_move_and_correlations_do_not(model: str) -> None:
    fit, law, panel = small_fit(model), law_of(model), small_panel()
    weights, date = weights_of(law), law.date
    laws = forecast(fit, panel, dates=DAY)
    covariance = torch.from_numpy(laws.covariance(date).dense())
    deviation = covariance.diagonal().sqrt()
    correlation = covariance / torch.outer(deviation, deviation)
    matrix = exposure_shift(law, weights, "parallel")

    def risk(move: torch.Tensor) -> torch.Tensor:
        moved = weights * Target("standard_deviation").evaluate(*law(law.beta + matrix * move))
        return (moved @ correlation @ moved).sqrt()

    zero = torch.zeros(law.beta.shape[-1], dtype=torch.float64)
    found = book_derivatives(law, weights, matrix, Target("standard_deviation"), fit)
    torch.testing.assert_close(found.value, risk(zero), rtol=1e-4, atol=0)
    gradient = torch.func.jacrev(risk)(zero)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-3, atol=1e-4 * float(found.value))
    second = torch.func.hessian(risk)(zero)
    size = float(second.abs().max())
    torch.testing.assert_close(found.hessian, second, rtol=1e-2, atol=1e-3 * size)


@pytest.mark.parametrize("model", MODELS)
def test_values_are_those_of_the_forecast(model: str) -> None:
    fit, panel = small_fit(model), small_panel()
    laws = forecast(fit, panel, dates=SPAN)
    names = laws.data["asset"].values[laws.data["entered"].values.all(0)]
    weights = dict(zip(names, np.full(len(names), 1.0 / len(names)), strict=True))
    for target, of_law in (("mean", "mean"), ("standard_deviation", "standard_deviation")):
        found = portfolio_sensitivity(fit, panel, weights, target=target, dates=SPAN)
        wanted = [getattr(laws.portfolio(weights, date), of_law) for date in found["date"].values]
        np.testing.assert_allclose(found["value"], wanted, rtol=2e-4, atol=1e-8)
        assert float(found["uncovered"].max()) == 0.0


def test_a_linear_book_has_the_premia_whatever_the_shift_and_keeps_its_weights() -> None:
    """The deck drops w_i: then the gradient would be the sum over assets, not the premia."""
    fit, panel = small_fit("linear_factor"), small_panel()
    premia = fit.model.factor_loc[1:].detach().numpy() * fit.return_scale
    law = law_of("linear_factor")
    tilted = dict(zip(law.assets, weights_of(law).tolist(), strict=True))
    for shift in ("parallel", "proportional", "min_norm", "scaling"):
        book, dates = (tilted, DAY) if shift == "scaling" else (None, SPAN)
        found = portfolio_sensitivity(fit, panel, book, shift=shift, dates=dates)
        np.testing.assert_allclose(
            found["gradient"], np.tile(premia, (found.sizes["date"], 1)), rtol=1e-6
        )
        assert float(np.abs(found["hessian"]).max()) < 1e-18
        np.testing.assert_allclose(found["contribution"], found["exposure"] * found["gradient"])
        assert found.attrs["shift"] == shift


def test_a_risk_gradient_times_exposure_is_the_factors_euler_part() -> None:
    """factor_vae: b_j (S b)_j / sd, the specific part being held by the features."""
    fit, panel = small_fit("factor_vae"), small_panel()
    found = portfolio_sensitivity(
        fit, panel, target="standard_deviation", shift="min_norm", dates=DAY
    )
    laws = forecast(fit, panel, dates=DAY)
    book = laws.portfolio(
        dict.fromkeys(law_of("factor_vae").assets, 1.0 / len(law_of("factor_vae").assets))
    )
    euler = np.square(book.exposure * book.factor_scale) / book.standard_deviation
    np.testing.assert_allclose(found["contribution"][0], euler, rtol=1e-4, atol=1e-9)


# ---- shifts --------------------------------------------------------------------------------------


def test_every_shift_moves_the_book_by_one_and_the_smallest_is_the_smallest() -> None:
    law = law_of("nfi")
    weights = weights_of(law)
    found = {
        name: exposure_shift(law, weights, name) for name in ("parallel", "min_norm", "scaling")
    }
    for matrix in found.values():
        torch.testing.assert_close(weights @ matrix, torch.ones(3, dtype=torch.float64))
        assert float(found["min_norm"].norm()) <= float(matrix.norm()) + 1e-12
    own = xr.DataArray(
        found["scaling"].numpy()[::-1], {"asset": law.assets[::-1], "factor": list(law.factors)},
        ("asset", "factor"),
    )  # fmt: skip
    torch.testing.assert_close(exposure_shift(law, weights, own), found["scaling"])


def test_bad_shifts_are_refused() -> None:
    law = law_of("nfi")
    weights = weights_of(law)
    with pytest.raises(
        WeightsError, match=r"must sum to 1 for a parallel shift; got 1.5 on 2010-03-03"
    ):
        exposure_shift(law, 1.5 * weights, "parallel")
    with pytest.raises(SpecError, match=r"shift must be one of parallel, .*; got 'sideways'"):
        exposure_shift(law, weights, "sideways")
    hedged = replace(law, beta=law.beta - (weights @ law.beta))
    with pytest.raises(SpecError, match="without any on 2010-03-03 to z0, z1, z2"):
        exposure_shift(hedged, weights, "scaling")
    labels = {"asset": law.assets, "factor": list(law.factors)}
    twice = xr.DataArray(2.0 * np.ones(law.beta.shape), labels, ("asset", "factor"))
    with pytest.raises(SpecError, match=r"by 1; got others on 2010-03-03 at z0 \(by 2\)"):
        exposure_shift(law, weights, twice)
    with pytest.raises(ShapeError, match="every factor of the law; got none of z2"):
        exposure_shift(law, weights, twice.isel(factor=slice(2)))
    with pytest.raises(ShapeError, match="dimensions asset and factor"):
        exposure_shift(law, weights, twice.isel(factor=0))


# ---- bad input -----------------------------------------------------------------------------------


def test_bad_portfolios_and_targets_are_refused() -> None:
    fit, panel = small_fit("nfi"), small_panel()
    with pytest.raises(SpecError, match=r"one of mean, .* got value_at_risk. Use `risk_contrib"):
        portfolio_sensitivity(fit, panel, target="value_at_risk")
    with pytest.raises(WeightsError, match="unknown NOBODY"):
        portfolio_sensitivity(fit, panel, {"NOBODY": 1.0}, dates=SPAN)
    laws = forecast(fit, panel, dates=SPAN)
    at = np.argwhere(~laws.data["entered"].values)[0]
    name, day = laws.data["asset"].values[at[1]], str(laws.data["date"].values[at[0]])[:10]
    with pytest.raises(WeightsError, match=f"hold an asset with a law; got none on {day}"):
        portfolio_sensitivity(fit, panel, {name: 1.0}, dates=(day, day))
    alone = replace(small_fit("mixture_pricing"), copula=None)
    with pytest.raises(SpecError, match="must know how assets depend on each other"):
        portfolio_sensitivity(alone, panel, target="variance")
    portfolio_sensitivity(alone, panel, target="mean", dates=SPAN)


def test_weight_without_a_law_is_counted_and_the_rest_scaled_up() -> None:
    fit, panel = small_fit("nfi"), small_panel()
    laws = forecast(fit, panel, dates=SPAN)
    entered = laws.data["entered"].values
    names = laws.data["asset"].values
    held, missing = names[entered.all(0)][:2], names[~entered.all(0)][0]
    weights = {held[0]: 0.5, held[1]: 0.3, missing: 0.2}
    found = portfolio_sensitivity(fit, panel, weights, dates=SPAN)
    gone = ~entered[:, list(names).index(missing)]
    np.testing.assert_allclose(found["uncovered"], np.where(gone, 0.2, 0.0))
    rest = portfolio_sensitivity(fit, panel, {held[0]: 0.625, held[1]: 0.375}, dates=SPAN)
    for name in ("value", "gradient", "exposure"):
        np.testing.assert_allclose(found[name][gone], rest[name][gone], rtol=1e-12)
        assert not np.allclose(found[name][~gone], rest[name][~gone], rtol=1e-6)
