"""p_t(r | beta) as a function of exposure: its mean's derivatives, its total mass, every model."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacrev, vmap

from nfi_pyro.distributions.law_jets import automatic_jets
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.linear_factor import LinearFactor, LinearFactorSpec
from nfi_pyro.mixture_pricing import MixturePricing, MixturePricingSpec
from nfi_pyro.nets.pricing import PricingNetwork
from nfi_pyro.neural_factor import NeuralFactor, NeuralFactorSpec
from nfi_pyro.nfi import NFI, NFISpec

FACTORS, ROWS, FEATURES = 3, 7, 11
MODELS: dict[str, Any] = {
    "linear_factor": (LinearFactor, LinearFactorSpec, {"n_exposures": FEATURES}),
    "linear_factor_t": (
        LinearFactor,
        LinearFactorSpec,
        {"n_exposures": FEATURES, "noise": "student_t"},
    ),
    "mixture_pricing": (
        MixturePricing,
        MixturePricingSpec,
        {"n_exposures": FEATURES, "hidden_size": 5},
    ),
    "neural_factor": (NeuralFactor, NeuralFactorSpec, {"n_exposures": FEATURES, "hidden_size": 5}),
    "neural_factor_t": (
        NeuralFactor,
        NeuralFactorSpec,
        {"n_exposures": FEATURES, "hidden_size": 5, "noise": "student_t"},
    ),
    "nfi": (
        NFI,
        NFISpec,
        {
            "n_features": FEATURES,
            "lags": 2,
            "projection_size": 13,
            "hidden_size": 5,
            "n_factors": FACTORS,
            "n_portfolios": 17,
            "prior_hidden_size": 19,
            "pricing_size": 7,
        },
    ),
}


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def network(n_components: int) -> PricingNetwork:
    """Return a network whose weights, offsets and scales all move with exposure."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = PricingNetwork(
            FACTORS,
            hidden_size=5,
            n_layers=2,
            n_components=n_components,
            activation="tanh",
            scale_floor=0.05,
            linear=False,
        ).double()
        with torch.no_grad():
            heads = [net.alpha.readout, *net.noise.children()]
            for layer in heads:
                assert isinstance(layer, torch.nn.Linear)
                layer.weight.normal_(0.0, 0.7)
    return net.requires_grad_(False)


def function(n_components: int, design: str) -> PricingFunction:
    net = network(n_components)
    size = {"exposures": FACTORS, "intercept": 1 + FACTORS, "none": 0}[design]
    loc, scale = normal(size, seed=1), (0.5 * normal(size, seed=2)).exp()
    return PricingFunction(net, net.alpha.jet, loc, scale, design)


def build(name: str, make_batch: Any) -> tuple[Any, Any]:
    """Return a model whose canonical form, if it has one, is set, and the context of a batch."""
    model_class, spec_class, values = MODELS[name]
    model = model_class(spec_class(**values), seed=1).double().requires_grad_(False)
    context = model.context(make_batch(n_features=FEATURES)[0])
    if name == "nfi":
        with torch.no_grad():
            model.beta.weight.mul_(5.0)
        context = model.context(make_batch(n_features=FEATURES)[0])
        model.canonicalise([context])
    if name.startswith("linear_factor"):
        with torch.no_grad():
            model.factor_loc.copy_(0.2 * normal(1 + FEATURES, seed=5))
    return model, context


@pytest.mark.parametrize("design", ["exposures", "intercept", "none"])
@pytest.mark.parametrize("n_components", [1, 3])
def test_derivatives_of_the_mean_are_those_of_the_whole_law(n_components: int, design: str) -> None:
    """Weights, offsets and scales depend on beta, and do not matter: their terms cancel."""
    law, beta = function(n_components, design), normal(ROWS, FACTORS, seed=4)

    def mean(point: Tensor) -> Tensor:
        return law.marginal(point).mean

    gradient, second = law.mean_derivatives(beta)
    torch.testing.assert_close(gradient, vmap(jacrev(mean))(beta), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(second, vmap(hessian(mean))(beta), rtol=1e-9, atol=1e-12)
    if n_components > 1:  # no part of the law is constant
        logits, loc, scale = vmap(jacrev(lambda point: law.specific(point)))(beta)
        assert min(float(part.abs().max()) for part in (logits, loc, scale)) > 0.05


@pytest.mark.parametrize("design", ["exposures", "intercept", "none"])
def test_derivatives_are_finite_differences(design: str) -> None:
    law, beta = function(3, design), normal(ROWS, FACTORS, seed=4)
    gradient, second = law.mean_derivatives(beta)
    step = 1e-5
    for factor in range(FACTORS):
        move = torch.zeros(FACTORS, dtype=torch.float64)
        move[factor] = step
        up, down = (law.marginal(beta + sign * move).mean for sign in (1.0, -1.0))
        slope = (up - down) / (2.0 * step)
        torch.testing.assert_close(gradient[:, factor], slope, rtol=1e-8, atol=1e-9)
        up, down = (law.mean_derivatives(beta + sign * move)[0] for sign in (1.0, -1.0))
        bend = (up - down) / (2.0 * step)
        torch.testing.assert_close(second[:, factor], bend, rtol=1e-7, atol=1e-9)


def test_the_mean_is_alpha_plus_what_factors_pay() -> None:
    beta = normal(ROWS, FACTORS, seed=4)
    for design in ("exposures", "intercept", "none"):
        law = function(3, design)
        ones = torch.ones(ROWS, 1, dtype=torch.float64)
        x = {"exposures": beta, "intercept": torch.cat([ones, beta], 1), "none": beta[:, :0]}
        want = law.alpha(beta).value + x[design] @ law.factor_loc
        torch.testing.assert_close(law.marginal(beta).mean, want, rtol=1e-12, atol=1e-13)


def test_the_variance_adds_what_factors_share() -> None:
    law, beta = function(3, "intercept"), normal(ROWS, FACTORS, seed=4)
    own = MixtureOfNormals(*law.specific(beta), validate_args=False).variance
    x = torch.cat([torch.ones(ROWS, 1), beta], dim=1)
    shared = (x**2 * law.factor_scale**2).sum(-1)
    torch.testing.assert_close(law.marginal(beta).variance, own + shared, rtol=1e-12, atol=0)


def test_the_price_of_risk_is_what_all_assets_share() -> None:
    exposures, intercept = function(3, "exposures"), function(3, "intercept")
    assert torch.equal(exposures.price_of_risk(), exposures.factor_loc)
    assert torch.equal(intercept.price_of_risk(), intercept.factor_loc[1:])
    assert float(function(3, "none").price_of_risk()) == 0.0


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_models_law_has_mass_one_and_the_mean_it_says(make_batch, name: str) -> None:
    model, context = build(name, make_batch)
    marginal = model.law(context).marginal()
    sd = float(marginal.scale.max())
    reach = float(marginal.loc.abs().max()) + 12.0 * sd
    step = float(marginal.scale.min()) / 6.0
    grid = torch.arange(-reach, reach, step, dtype=torch.float64)
    mass, mean = torch.zeros_like(marginal.mean), torch.zeros_like(marginal.mean)
    for point in grid:  # the trapezoidal rule converges exponentially on such integrands
        density = marginal.log_prob(point.expand(marginal.batch_shape)).exp() * step
        mass, mean = mass + density, mean + point * density
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=1e-9, atol=0)
    torch.testing.assert_close(mean, marginal.mean, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_models_pricing_is_its_law_at_its_exposures(make_batch, name: str) -> None:
    model, context = build(name, make_batch)
    marginal, beta = model.law(context).marginal(), model.exposures(context)
    for date in range(len(beta)):
        own = model.pricing(context, date).marginal(beta[date])
        for part in ("logits", "loc", "scale"):
            want = getattr(marginal, part)[date]
            torch.testing.assert_close(getattr(own, part), want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_models_derivatives_are_automatic_ones(make_batch, name: str) -> None:
    model, context = build(name, make_batch)
    law, beta = model.pricing(context, 2), model.exposures(context)[2]

    def mean(point: Tensor) -> Tensor:
        return law.marginal(point).mean

    gradient, second = law.mean_derivatives(beta)
    torch.testing.assert_close(gradient, vmap(jacrev(mean))(beta), rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(second, vmap(hessian(mean))(beta), rtol=1e-9, atol=1e-11)
    if name.startswith("linear_factor"):  # homogeneous: one row for all assets
        assert (gradient == gradient[0]).all()
        assert (second == 0).all()
    else:
        assert float((gradient - gradient[0]).abs().max()) > 1e-5


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_models_jets_are_automatic_ones(make_batch, name: str, order: int) -> None:
    """In closed form, and by `torch.func` where a model has none."""
    model, context = build(name, make_batch)
    law, beta = model.pricing(context, 2), model.exposures(context)[2]
    assert law.specific_jets is not None

    def marginal(point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = law.marginal(point)
        return found.logits, found.loc, found.scale.log()

    want = automatic_jets(marginal, beta, order)
    for found in (law.jets(beta, order), replace(law, specific_jets=None).jets(beta, order)):
        torch.testing.assert_close(found.value, want.value, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(found.first, want.first, rtol=1e-9, atol=1e-12)
        if order == 1:
            assert found.second is None
        else:
            torch.testing.assert_close(found.second, want.second, rtol=1e-8, atol=1e-11)
    assert float(want.first[:, 2].abs().max()) > 0 or name.startswith("neural")
