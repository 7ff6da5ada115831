"""pricing_law: the law of a date as a function of exposure, in decimal returns, from real fits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.func import hessian, jacrev, vmap

from nfi_pyro.data.panel import Panel
from nfi_pyro.errors import PanelError, ShapeError, SpecError, SplitError
from nfi_pyro.linear_factor import LinearFactor, LinearFactorSpec
from nfi_pyro.mixture_pricing import MixturePricing, MixturePricingSpec
from nfi_pyro.neural_factor import NeuralFactor, NeuralFactorSpec
from nfi_pyro.nfi import NFI, NFISpec
from nfi_pyro.posterior import PricingLaw, forecast, pricing_law
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi

FEATURES, FACTORS, DAY = 5, 3, 40
RECIPES: dict[str, Any] = {
    "linear_factor": lambda: LinearFactor(LinearFactorSpec(n_exposures=FEATURES)),
    "mixture_pricing": lambda: MixturePricing(
        MixturePricingSpec(n_exposures=FEATURES, hidden_size=4)
    ),
    "neural_factor": lambda: NeuralFactor(
        NeuralFactorSpec(n_exposures=FEATURES, hidden_size=4, noise="student_t")
    ),
    "nfi": lambda: NFI(
        NFISpec(
            n_features=FEATURES,
            lags=2,
            projection_size=4,
            hidden_size=4,
            n_factors=FACTORS,
            n_portfolios=5,
            prior_hidden_size=4,
            pricing_size=4,
        )
    ),
}


@pytest.fixture(scope="module", params=sorted(RECIPES))
def priced(request: pytest.FixtureRequest, panel: Panel) -> SVIFit:
    config = SVIConfig(n_epochs=2, block_size=7, learning_rate=1e-2, progress=False, device="cpu")
    return fit_svi(RECIPES[request.param](), panel, config=config, seed=3)


@pytest.fixture(scope="module")
def law(priced: SVIFit, panel: Panel) -> PricingLaw:
    return pricing_law(priced, panel, panel["date"].values[DAY])


def test_at_the_dates_exposures_it_is_the_forecast(law, priced, panel) -> None:
    day = forecast(priced, panel).on(panel["date"].values[DAY])
    kept = day["entered"].values
    assert list(law.assets) == list(day["asset"].values[kept])
    assert law.date == panel["date"].values[DAY]
    marginal = law.marginal()
    assert marginal.loc.dtype == torch.float64
    # The forecast is made in single precision.
    scale = float(marginal.scale.max())
    for name, own in (("loc", marginal.loc), ("scale", marginal.scale)):
        np.testing.assert_allclose(
            own.numpy(), day[name].values[kept], rtol=2e-5, atol=2e-5 * scale
        )
    np.testing.assert_allclose(
        marginal.log_weights.exp().numpy(), day["weight"].values[kept], rtol=1e-5, atol=1e-7
    )


def test_jacobian_and_hessian_are_derivatives_of_the_mean(law) -> None:
    def mean(point: torch.Tensor) -> torch.Tensor:
        return law.marginal(point).mean

    gradient, second = vmap(jacrev(mean))(law.beta), vmap(hessian(mean))(law.beta)
    unit = law.return_scale
    torch.testing.assert_close(law.jacobian(), gradient, rtol=1e-9, atol=1e-11 * unit)
    torch.testing.assert_close(law.hessian(), second, rtol=1e-8, atol=1e-11 * unit)
    assert torch.equal(law.hessian(), law.hessian().mT)
    elsewhere = law.beta[:2] + 0.3
    torch.testing.assert_close(
        law.jacobian(elsewhere), vmap(jacrev(mean))(elsewhere), rtol=1e-9, atol=1e-11 * unit
    )


def test_calling_it_gives_logits_loc_and_log_scale(law) -> None:
    beta = law.beta[:3].clone().requires_grad_()
    logits, loc, log_scale = law(beta)
    marginal = law.marginal(beta)
    assert logits.shape == loc.shape == log_scale.shape
    torch.testing.assert_close(loc, marginal.loc, rtol=0, atol=0)
    torch.testing.assert_close(log_scale.exp(), marginal.scale, rtol=1e-14, atol=0)
    slope = torch.autograd.grad(loc.mean(-1).sum(), beta)[0]
    assert torch.isfinite(slope).all()
    by_function = vmap(jacrev(lambda point: law(point)[1]))(law.beta[:3])
    torch.testing.assert_close(by_function.mean(1), slope, rtol=1e-9, atol=1e-15)


def test_everything_at_once_is_each_alone(law) -> None:
    levels = (0.01, 0.37, 0.99)
    found = law.evaluate(levels)
    marginal = law.marginal()
    np.testing.assert_allclose(found["mean"].values, marginal.mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(found["variance"].values, marginal.variance.numpy(), rtol=1e-12)
    quantile = torch.from_numpy(found["return_quantile"].values.copy())
    for level, row in zip(levels, quantile, strict=True):
        found_level = marginal.cdf(row)
        torch.testing.assert_close(
            found_level, torch.full_like(found_level, level), rtol=1e-6, atol=0
        )
    np.testing.assert_array_equal(found["jacobian"].values, law.jacobian().numpy())
    np.testing.assert_array_equal(found["hessian"].values, law.hessian().numpy())
    assert found["jacobian"].dims == ("asset", "factor")
    assert found["hessian"].dims == ("asset", "factor", "factor_other")
    assert list(found["factor"].values) == list(law.factors)
    assert found["mean"].attrs["units"] == "decimal return"


def test_what_assets_share_and_what_is_their_own(law, priced, panel) -> None:
    found = law.evaluate()
    own = found["jacobian"] - found["price_of_risk"]
    alpha = law.function.alpha(law.beta).gradient * law.return_scale
    np.testing.assert_allclose(own.values, alpha.numpy(), rtol=1e-9, atol=1e-15)
    if priced.model.name == "linear_factor":
        assert (own == 0).all()
        want = priced.model.factor_loc[1:].detach().double().numpy() * priced.return_scale
        np.testing.assert_allclose(found["price_of_risk"].values, want, rtol=1e-6)
    if priced.model.name in ("mixture_pricing", "neural_factor"):
        assert (found["price_of_risk"] == 0).all()
    names = [f"z{k}" for k in range(FACTORS)]
    if priced.model.name != "nfi":
        names = [str(name) for name in panel["feature"].values]
    assert law.factors == tuple(names)


def test_no_outcome_enters(priced, panel) -> None:
    blind = panel.copy(deep=True)
    blind["forward_return"].values[:] = np.nan
    day = panel["date"].values[DAY]
    one, two = pricing_law(priced, panel, day), pricing_law(priced, blind, day)
    assert one.evaluate().identical(two.evaluate())


def test_the_last_date_is_the_default(priced, panel) -> None:
    assert pricing_law(priced, panel).date == panel["date"].values[-1]
    assert (
        pricing_law(priced, panel, str(pd.Timestamp(panel["date"].values[-1]).date())).date
        == (panel["date"].values[-1])
    )


def test_the_fit_is_left_as_it_was(priced, panel) -> None:
    before = {name: value.clone() for name, value in priced.model.state_dict().items()}
    pricing_law(priced, panel)
    for name, value in priced.model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name]), name
    assert all(parameter.requires_grad for parameter in priced.model.parameters())


def test_exposures_of_another_width_are_refused(law) -> None:
    with pytest.raises(
        ShapeError, match=r"beta must end in the law's \d factors; got shape \(2, 7"
    ):
        law.jacobian(torch.zeros(2, 7))


def test_a_model_of_hidden_features_has_no_pricing_law(fit, panel) -> None:
    with pytest.raises(SpecError, match="got factor_vae, which prices hidden features"):
        pricing_law(fit, panel)


def test_a_date_that_is_not_there_is_refused(priced, panel) -> None:
    with pytest.raises(SplitError, match="must hold a date with a full window"):
        pricing_law(priced, panel, "1999-01-04")


def test_other_exposures_than_the_fits_are_refused(priced, panel) -> None:
    if priced.model.name == "nfi":
        return  # it takes features, whose names the transforms check
    other = replace(
        priced, provenance=priced.provenance | {"exposures": {"source": "x", "names": ["size"]}}
    )
    with pytest.raises(PanelError, match=r"exposures must be the fit's 1, .* without size"):
        pricing_law(other, panel)
