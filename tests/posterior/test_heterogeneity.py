"""Heterogeneity of risk prices: closed form, invariance, dates in one pass, restarts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.catalogue import find_model
from nfi_pyro.data.panel import Panel
from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.errors import SpecError, SplitError
from nfi_pyro.nets.jets import Jet
from nfi_pyro.posterior import (
    PricingLaw,
    exposure_pricing,
    law_heterogeneity,
    pricing_law,
    pricing_laws,
    risk_price_heterogeneity,
)
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi

SMALL = {
    "lags": 2,
    "projection_size": 4,
    "hidden_size": 7,
    "n_factors": 3,
    "n_portfolios": 5,
    "prior_hidden_size": 4,
    "pricing_size": 7,
    "n_features": 5,
    "n_exposures": 5,
}


def fit_small(name: str, panel: Panel, seed: int) -> SVIFit:
    """Return a fit of two epochs, its pricing function bent by hand."""
    entry = find_model(name)
    fields = entry.spec_class().model_fields
    spec = entry.spec_class().model_validate({k: v for k, v in SMALL.items() if k in fields})
    config = SVIConfig(n_epochs=2, block_size=7, learning_rate=1e-2, progress=False, device="cpu")
    fit = fit_svi(entry.model_class()(spec), panel, config=config, seed=seed)
    with torch.no_grad():
        for part, weight in fit.model.named_parameters():
            if "alpha" in part and part.endswith("weight"):
                weight.mul_(3.0)
    return fit


@pytest.fixture(scope="module")
def joint(panel: Panel) -> list[SVIFit]:
    return [fit_small("nfi", panel, seed) for seed in (3, 5)]


@pytest.fixture(scope="module")
def given(panel: Panel) -> list[SVIFit]:
    return [fit_small("mixture_pricing", panel, seed) for seed in (3, 5, 7)]


@pytest.fixture(scope="module")
def linear(panel: Panel) -> SVIFit:
    return fit_small("linear_factor", panel, 3)


def no_noise(beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a standard normal at every exposure."""
    one = torch.ones_like(beta[..., :1])
    return 0.0 * one, 0.0 * one, one


def make_law(alpha: Any, beta: Tensor, factor_loc: Tensor, scale: float = 0.02) -> PricingLaw:
    factors = tuple(f"z{k}" for k in range(beta.shape[-1]))
    function = PricingFunction(no_noise, alpha, factor_loc, 0.1 * factor_loc.abs(), "exposures")
    assets = np.array([f"A{k}" for k in range(len(beta))])
    return PricingLaw(function, scale, beta, assets, factors, np.datetime64("2021-05-03", "ns"))


def bent(beta: Tensor) -> Jet:
    """Return a cubic function of three exposures, with its derivatives."""
    a, b, c = beta.unbind(-1)
    zero = torch.zeros_like(a)
    gradient = torch.stack([a * a + b, a + 0.3 * c, 0.3 * b], -1)
    rows = ([2 * a, 1 + zero, zero], [1 + zero, zero, 0.3 + zero], [zero, 0.3 + zero, zero])
    hessian = torch.stack([torch.stack(row, -1) for row in rows], -2)
    return Jet(a**3 / 3 + a * b + 0.3 * b * c, gradient, hessian)


def draw(*shape: int, seed: int = 11) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_a_quadratic_alpha_has_a_closed_form() -> None:
    beta, loc = draw(13, 3), draw(3, seed=13)
    bend = draw(3, 3, seed=17)
    bend = bend + bend.T

    def alpha(x: Tensor) -> Jet:
        return Jet(0.5 * ((x @ bend) * x).sum(-1), x @ bend, bend.expand(*x.shape, 3))

    found = law_heterogeneity(make_law(alpha, beta, loc))
    spread = np.cov(beta.numpy().T, ddof=0)
    prices = 0.02**2 * bend.numpy() @ spread @ bend.numpy()
    expected = np.sqrt(np.diag(prices) * np.diag(spread))
    np.testing.assert_allclose(found.by_factor, expected, rtol=1e-12)
    assert found.total == pytest.approx(np.sqrt(np.trace(prices @ spread)), rel=1e-12)
    assert found.total != pytest.approx(np.linalg.norm(expected), rel=0.01)  # factors correlate


def test_the_total_does_not_depend_on_the_choice_of_factors() -> None:
    beta, loc, turn = draw(17, 3), draw(3, seed=13), draw(3, 3, seed=19)
    law = make_law(bent, beta, loc)

    def turned(x: Tensor) -> Jet:  # x = A^-T beta, so beta = A^T x
        value, gradient, hessian = bent(x @ turn)
        return Jet(value, gradient @ turn.T, turn @ hessian @ turn.T)

    other = make_law(turned, beta @ turn.inverse(), turn @ loc)
    torch.testing.assert_close(other.marginal().mean, law.marginal().mean, rtol=1e-10, atol=1e-12)
    one, two = law_heterogeneity(law), law_heterogeneity(other)
    assert two.total == pytest.approx(one.total, rel=1e-11)
    assert np.abs(two.by_factor / one.by_factor - 1.0).min() > 0.05


def test_a_linear_model_has_one_price(linear: SVIFit, panel: Panel) -> None:
    found = risk_price_heterogeneity(linear, panel)
    known = found.dropna("date")
    assert known.sizes["date"] == panel.sizes["date"] - 1
    assert float(abs(known["heterogeneity"]).max()) <= 1e-12
    assert float(known["total_heterogeneity"].max()) <= 1e-12
    expected = linear.model.factor_loc.detach().double().numpy()[1:] * linear.return_scale
    np.testing.assert_allclose(known["price_of_risk"], np.tile(expected, (46, 1)), rtol=1e-12)
    assert found["factor"].values.tolist() == panel["feature"].values.tolist()


def test_a_date_with_one_asset_has_no_spread(linear: SVIFit, panel: Panel) -> None:
    found = risk_price_heterogeneity(linear, panel)
    lonely = found.isel(date=30)
    assert np.isnan(lonely["heterogeneity"].values).all()
    assert np.isnan(float(lonely["total_heterogeneity"]))
    assert np.isfinite(lonely["price_of_risk"].values).all()


@pytest.mark.parametrize("kind", ["joint", "given"])
def test_one_pass_says_what_each_date_alone_says(
    kind: str, panel: Panel, request: pytest.FixtureRequest
) -> None:
    fit = request.getfixturevalue(kind)[0]
    dates = panel["date"].values[9:26]  # over block bounds
    between = (str(dates[0])[:10], str(dates[-1])[:10])
    found = risk_price_heterogeneity(fit, panel, dates=between)
    np.testing.assert_array_equal(found["date"].values, dates)
    for place, law in enumerate(pricing_laws(fit, panel, dates=between)):
        alone = pricing_law(fit, panel, dates[place])
        assert law.date == alone.date
        np.testing.assert_array_equal(law.assets, alone.assets)
        torch.testing.assert_close(law.beta, alone.beta, rtol=1e-11, atol=1e-13)
        row, spread = found.isel(date=place), law_heterogeneity(alone)
        np.testing.assert_allclose(row["heterogeneity"], spread.by_factor, rtol=1e-9)
        assert float(row["total_heterogeneity"]) == pytest.approx(spread.total, rel=1e-9)
        np.testing.assert_allclose(
            row["price_of_risk"], alone.evaluate()["price_of_risk"], rtol=1e-11
        )
    assert float(found["total_heterogeneity"].min()) > 1e-8
    assert found["total_heterogeneity"].attrs["units"] == "decimal return"
    assert "one fit" in found.attrs["interval"]
    assert "chain" not in found.dims
    assert not {"total_heterogeneity_lower", "heterogeneity_lower"} & set(found)


def test_the_panel_is_opened_and_the_networks_are_copied_once(
    joint: list[SVIFit], panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for name in ("open_pass", "wide_model"):
        original = getattr(exposure_pricing, name)

        def counted(*args: Any, name: str = name, original: Any = original) -> Any:
            calls.append(name)
            return original(*args)

        monkeypatch.setattr(exposure_pricing, name, counted)
    found = risk_price_heterogeneity(joint[0], panel)
    assert found.sizes["date"] == panel.sizes["date"] - 1
    assert sorted(calls) == ["open_pass", "wide_model"]
    assert all(p.dtype == torch.float32 and p.requires_grad for p in joint[0].model.parameters())


def test_restarts_on_given_exposures_have_an_interval_by_factor(
    given: list[SVIFit], panel: Panel
) -> None:
    found = risk_price_heterogeneity(given, panel)
    assert dict(found.sizes) == {"chain": 3, "date": 47, "factor": 5}
    for place, fit in enumerate(given):
        alone = risk_price_heterogeneity(fit, panel)
        for name in ("heterogeneity", "total_heterogeneity", "price_of_risk"):
            xr.testing.assert_equal(found[name].isel(chain=place, drop=True), alone[name])
    for name in ("heterogeneity", "total_heterogeneity"):
        values = found[name].values
        np.testing.assert_array_equal(found[f"{name}_lower"].values, values.min(0))
        np.testing.assert_array_equal(found[f"{name}_upper"].values, values.max(0))
    assert "3 chains" in found.attrs["interval"]
    assert "probability 0.50" in found.attrs["interval"]
    assert found.attrs["factor_interval"] == found.attrs["interval"]
    assert float(abs(found["price_of_risk"]).max()) == 0.0  # no shared factor


def test_restarts_with_learned_factors_have_an_interval_of_the_total_alone(
    joint: list[SVIFit], panel: Panel
) -> None:
    found = risk_price_heterogeneity(joint, panel)
    assert {"total_heterogeneity_lower", "total_heterogeneity_upper"} < set(found)
    assert not {"heterogeneity_lower", "heterogeneity_upper"} & set(found)
    assert "not aligned between restarts" in found.attrs["factor_interval"]
    assert "2 chains" in found.attrs["interval"]


def test_a_sequence_of_one_fit_has_a_chain(given: list[SVIFit], panel: Panel) -> None:
    found = risk_price_heterogeneity(given[:1], panel)
    assert found.sizes["chain"] == 1
    assert "probability 0.00" in found.attrs["interval"]


def test_what_has_no_law_of_exposure_or_is_no_restart_is_refused(
    fit: SVIFit, given: list[SVIFit], joint: list[SVIFit], linear: SVIFit, panel: Panel
) -> None:
    with pytest.raises(SpecError, match="must come from a model that prices exposures; got factor"):
        risk_price_heterogeneity(fit, panel)
    with pytest.raises(SpecError, match="draws of one model; got another model, spec at fit 1"):
        risk_price_heterogeneity([given[0], fit], panel)
    with pytest.raises(SpecError, match="fits must hold at least one fit; got none"):
        risk_price_heterogeneity([], panel)
    with pytest.raises(SpecError, match="draws of one model; got another model, spec at"):
        risk_price_heterogeneity([given[0], linear], panel)
    with pytest.raises(SpecError, match="got another model, spec at fit 2"):
        risk_price_heterogeneity([given[0], given[1], joint[0]], panel)
    other = replace(given[1], label=given[1].label | {"horizon": 5})
    with pytest.raises(SpecError, match="got another label at fit 1"):
        risk_price_heterogeneity([given[0], other], panel)
    with pytest.raises(SplitError, match="a date range must hold a date with a full window"):
        pricing_laws(joint[0], panel, dates=(None, str(panel["date"].values[0])[:10]))
