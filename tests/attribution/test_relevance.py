"""Relevance through whole models: an oracle by gradients, captum, conservation, refusals."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nfi_pyro.attribution.networks.explained import ExplainedDate
from nfi_pyro.attribution.networks.relevance import layer_relevance
from nfi_pyro.attribution.networks.relevance_gru import trace_gru
from nfi_pyro.attribution.networks.relevance_networks import LAYERS, share_date
from nfi_pyro.attribution.networks.relevance_rules import RelevanceRule
from nfi_pyro.data.panel import Panel
from nfi_pyro.errors import SpecError, SplitError, WeightsError
from nfi_pyro.nets.jets import SMOOTH
from nfi_pyro.posterior import forecast, pricing_law
from nfi_pyro.posterior.wide import wide_model
from tests.attribution.explained_maker import (
    DATES,
    DAY,
    DRIVER,
    EVERY,
    FEATURES,
    LAGS,
    WINDOWED,
    day_of,
    equal_weights,
    explain_day,
    fit_bent,
    fit_driven,
    forget,
    uneven_weights,
)

EXACT = RelevanceRule(epsilon=1e-12)


def passed(before: Tensor, after: Tensor) -> Tensor:
    """Return `after` as a constant multiple of `before`: relevance passes an activation."""
    return before * (after / before).detach()


def leaky(x: Tensor) -> Tensor:
    return passed(x, nn.functional.leaky_relu(x, 0.01))


def surrogate_mean(model: Any, inputs: Tensor, weights: Tensor, *, held: bool) -> Tensor:
    """Return the book's mean, whose gradient times input is relevance by the epsilon rule.

    Gates and ratios of activations are constants (Ancona et al. 2018; Arras et al. 2019), so the
    network is linear in its inputs and biases together.
    """
    cell, size = model.extractor.gru, model.extractor.gru.hidden_size
    hidden = inputs.new_zeros(inputs.shape[1], size)
    for step in leaky(model.extractor.projection(inputs)):
        own = nn.functional.linear(step, cell.weight_ih, cell.bias_ih).chunk(3, -1)
        fed = nn.functional.linear(hidden, cell.weight_hh, cell.bias_hh).chunk(3, -1)
        reset, update = (torch.sigmoid(own[k] + fed[k]).detach() for k in (0, 1))
        before = own[2] + reset * fed[2]
        hidden = (1.0 - update) * passed(before, torch.tanh(before)) + update * hidden
    beta = model.beta(hidden)
    if hasattr(model, "network"):
        network, smooth = model.network.alpha, SMOOTH[model.network.activation]
        level = network.first(beta)
        for layer in (*network.deeper, network.readout):
            level = layer(passed(level, smooth(level)[0]))
        alpha = level.squeeze(-1)
    else:
        alpha = model.alpha.loc(leaky(model.alpha.hidden(hidden))).squeeze(-1)
    attention, head = model.predictor.attention, model.predictor.head
    present = torch.ones(1, len(hidden), dtype=torch.bool)
    gates = attention.weights(hidden[None].detach(), present)[0].detach()
    average = torch.einsum("rk,rh->kh", gates, hidden)
    pooled = torch.einsum("ke,khe->kh", average, attention.value_weight) + attention.value_bias
    price = head.loc(leaky(head.hidden(pooled))).squeeze(-1)
    half = 0.5 * (beta * price.detach() + beta.detach() * price)
    return weights @ (alpha + (beta * price.detach() if held else half).sum(-1))


def oracle(day: ExplainedDate, weights: Tensor, *, held: bool) -> tuple[Tensor, dict[str, float]]:
    """Return relevance of inputs and biases as gradient times value on the surrogate."""
    model = day.model
    biases = {name: value for name, value in model.named_parameters() if "bias" in name}
    for bias in biases.values():
        bias.requires_grad_()
    leaf = day.inputs.clone().requires_grad_()
    mean = surrogate_mean(model, leaf, weights, held=held)
    slopes = torch.autograd.grad(mean, [leaf, *biases.values()], allow_unused=True)
    rooms = {
        "network.alpha": "alpha",
        "alpha": "alpha",
        "predictor": "price",
        "beta": "exposure",
        "extractor.gru": "recurrence",
        "extractor.projection": "projection",
    }
    found = dict.fromkeys(LAYERS, 0.0)
    for (name, bias), slope in zip(biases.items(), slopes[1:], strict=True):
        bias.requires_grad_(False)
        room = next((r for key, r in rooms.items() if name.startswith(key)), None)
        if slope is not None and room is not None:
            found[room] += float((slope * bias).detach().sum())
    return (slopes[0] * leaf).detach(), found


@pytest.mark.parametrize("held", [False, True])
def test_the_epsilon_rule_is_gradient_times_input_with_gates_frozen(
    fits: Any, panel: Panel, held: bool
) -> None:
    for name in WINDOWED:
        day = explain_day(fits(name), panel)
        weights = torch.linspace(-0.3, 0.7, day.inputs.shape[1], dtype=torch.float64)
        want, want_bias = oracle(day, weights, held=held)
        found = share_date(EXACT, day, weights, held=held)
        scale = float(want.abs().max())
        torch.testing.assert_close(found.cells, want, rtol=1e-6, atol=1e-8 * scale)
        for layer, value in found.bias.items():
            assert value == pytest.approx(want_bias[layer], rel=1e-5, abs=1e-8), layer
        law = day.law(day.inputs[None])
        mean = float((law.marginal().mean[0] @ weights).detach())
        assert found.value == pytest.approx(mean, rel=1e-10, abs=1e-13)


def test_the_trace_ends_where_the_extractor_does(fits: Any, panel: Panel) -> None:
    day = explain_day(fits("nfi"), panel)
    trace = trace_gru(day.model.extractor, day.inputs)
    torch.testing.assert_close(trace.states[-1], day.state, rtol=1e-12, atol=1e-13)
    assert trace.states.shape[0] == LAGS + 1


def test_captum_propagates_the_same_through_a_perceptron(fits: Any, panel: Panel) -> None:
    captum = pytest.importorskip("captum.attr")
    fit = fits("neural_factor")
    network = wide_model(fit).alpha
    day = explain_day(fit, panel)
    layers: list[nn.Module] = []
    for weight, bias in [
        (network.first.weight.T, network.first.bias),
        *((layer.weight, layer.bias) for layer in network.deeper),
    ]:
        layers += [_linear(weight, bias), nn.Tanh()]
    plain = nn.Sequential(*layers, _linear(network.readout.weight, network.readout.bias))
    expected = captum.LRP(plain).attribute(day.beta.clone().requires_grad_()).detach()
    expected = expected + day.beta * network.slope
    found = layer_relevance(fit, panel, dates=day_of(panel), rule=EXACT, by_asset=True)
    assert found.by_asset is not None
    own = found.by_asset.values[0, day.kept, 0] * len(day.beta) / fit.return_scale
    np.testing.assert_allclose(own, expected.numpy(), rtol=1e-4, atol=1e-7)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def test_a_linear_model_in_closed_form(fits: Any, panel: Panel) -> None:
    fit = fits("linear_factor")
    law = pricing_law(fit, panel, panel["date"].values[DAY])
    price = fit.model.factor_loc.detach().double().numpy() * fit.return_scale
    found = layer_relevance(fit, panel, weights=str(law.assets[1]), dates=day_of(panel))
    np.testing.assert_allclose(
        found.relevance.values[0, 0], law.beta[1].numpy() * price[1:], rtol=1e-12
    )
    assert found.bias["layer"].values.tolist() == ["price"]
    assert float(found.bias[0, 0]) == pytest.approx(price[0], rel=1e-12)
    assert float(found.conservation_error[0]) <= 1e-12


@pytest.mark.parametrize("kind", ["epsilon", "gamma", "z_plus"])
def test_relevance_is_conserved(fits: Any, panel: Panel, kind: Any) -> None:
    rule = RelevanceRule(kind=kind)
    for name in EVERY:
        fit = fits(name)
        mean = forecast(fit, panel).mean.mean("asset")
        for prior in ("moves", "held") if name in WINDOWED else ("moves",):
            found = layer_relevance(fit, panel, rule=rule, prior=prior, by_asset=True)
            assert bool(found.conserved.all()), (name, prior)
            assert float(found.conservation_error.max()) < 1e-3
            total = found.relevance.sum(["lag", "feature"]) + found.bias.sum("layer")
            np.testing.assert_allclose(
                total.values, found.value.values, rtol=1e-2, atol=1e-3 * float(abs(total).max())
            )
            np.testing.assert_allclose(found.value.values, mean.values, rtol=1e-4, atol=1e-7)
            assert found.by_asset is not None
            over_assets = found.by_asset.sum("asset").transpose("date", "lag", "feature")
            np.testing.assert_allclose(
                over_assets.values, found.relevance.values, rtol=1e-9, atol=1e-15
            )
            size = abs(found.relevance).sum(["lag", "feature"])
            constant = abs(found.bias).sum("layer")
            np.testing.assert_allclose(
                found.bias_share.values, (constant / (size + constant)).values, rtol=1e-9
            )


def test_without_biases_features_get_it_all(panel: Panel) -> None:
    fit = fit_bent("nfi", panel)
    with torch.no_grad():
        for name, value in fit.model.named_parameters():
            if "bias" in name and "noise" not in name:
                value.zero_()
    found = layer_relevance(fit, panel)
    assert float(abs(found.bias).max()) == 0.0
    assert float(found.bias_share.max()) == 0.0
    np.testing.assert_allclose(
        found.relevance.sum(["lag", "feature"]).values, found.value.values, rtol=1e-3, atol=1e-7
    )


def test_a_large_stabiliser_is_flagged(fits: Any, panel: Panel) -> None:
    found = layer_relevance(fits("nfi"), panel, rule=RelevanceRule(epsilon=0.9))
    assert not bool(found.conserved.all())
    assert float(found.conservation_error.max()) > 0.01
    assert "stabiliser 0.9" in found.rule
    rows = abs(found.relevance).sum(["lag", "feature"]) + abs(found.bias).sum("layer")
    total = found.relevance.sum(["lag", "feature"]) + found.bias.sum("layer")
    np.testing.assert_allclose(
        found.conservation_error.values, (abs(total - found.value) / rows).values, rtol=1e-9
    )


@pytest.mark.parametrize("activation", ["silu", "softplus"])
def test_other_activations_conserve_too(panel: Panel, activation: str) -> None:
    fit = fit_bent("nfi", panel, activation=activation)
    found = layer_relevance(fit, panel)
    assert bool(found.conserved.all())
    assert float(found.conservation_error.max()) < 1e-3


def test_features_outside_the_book_count_through_the_prior_alone(fits: Any, panel: Panel) -> None:
    for name in WINDOWED:
        asset = str(panel["asset"].values[explain_day(fits(name), panel).kept][0])
        sizes = {}
        for prior in ("moves", "held"):
            found = layer_relevance(
                fits(name), panel, weights=asset, dates=day_of(panel), prior=prior, by_asset=True
            )
            assert found.by_asset is not None
            assert found.prior == prior
            others = found.by_asset[0].drop_sel(asset=asset).fillna(0.0)
            sizes[prior] = float(abs(others).sum())
        assert sizes["held"] == 0.0, name
        assert sizes["moves"] > 1e-6, name


def test_a_planted_feature_gets_it_all(panel: Panel) -> None:
    fit = forget(fit_bent("factor_vae", panel))
    with torch.no_grad():
        fit.model.extractor.projection.weight[:, [0, 2, 3, 4]] = 0.0
    found = layer_relevance(fit, panel, weights=uneven_weights(panel))
    cells = abs(found.relevance).sum("date")
    assert float(cells[0, 1]) > 0.0
    assert float(cells.sum()) - float(cells[0, 1]) <= 1e-12 * float(cells[0, 1])


def test_a_fit_finds_the_feature_that_drives_returns() -> None:
    fit, panel = fit_driven()
    for kind in ("epsilon", "gamma"):
        rule = RelevanceRule(kind=kind)
        found = layer_relevance(fit, panel, weights="A7", rule=rule)
        size = abs(found.relevance).mean("date")[0]
        assert int(size.argmax("feature")) == DRIVER
        assert float(size[DRIVER]) > 3.0 * float(size.drop_isel(feature=DRIVER).max())


def test_a_books_map_is_that_of_its_assets(fits: Any, panel: Panel) -> None:
    fit, day = fits("nfi"), explain_day(fits("nfi"), panel)
    names = panel["asset"].values[day.kept]
    whole = layer_relevance(fit, panel, dates=day_of(panel), rule=EXACT)
    parts = [
        layer_relevance(fit, panel, weights=str(name), dates=day_of(panel), rule=EXACT)
        for name in names
    ]
    mean = sum(part.relevance.values for part in parts) / len(parts)
    np.testing.assert_allclose(whole.relevance.values, mean, rtol=1e-5, atol=1e-11)
    assert equal_weights(day).shape == (len(names),)


def test_fits_are_chains_and_gaps_are_flagged(fits: Any, panel: Panel) -> None:
    pair = [fits("nfi", 3), fits("nfi", 5)]
    name = str(panel["asset"].values[4])
    found = layer_relevance(pair, panel, weights=name)
    assert found.relevance.dims == ("chain", "date", "lag", "feature")
    assert found.relevance.shape == (2, DATES - LAGS + 1, LAGS, FEATURES)
    assert found.bias.dims == ("chain", "date", "layer")
    assert found.conserved.dims == ("chain", "date")
    alone = layer_relevance(pair[1], panel, weights=name)
    np.testing.assert_array_equal(found.relevance[1].values, alone.relevance.values)
    gone = np.isnan(alone.value.values)
    assert gone.sum() >= 2
    assert (alone.uncovered.values[gone] == 1.0).all()
    assert not alone.conserved.values[gone].any()
    assert alone.conserved.values[~gone].all()
    assert np.isnan(alone.relevance.values[gone]).all()
    assert np.isnan(alone.bias.values[gone]).all()
    assert alone.relevance["lag"].values.tolist() == list(range(LAGS))


def test_wrong_options_are_refused(fits: Any, panel: Panel) -> None:
    fit = fits("nfi")
    with pytest.raises(SpecError, match="prior must be one of moves, held; got 'free'"):
        layer_relevance(fit, panel, prior="free")
    with pytest.raises(SpecError, match="fits must hold at least one fit"):
        layer_relevance([], panel)
    with pytest.raises(SpecError, match="got another model, spec at fit 1"):
        layer_relevance([fit, fits("factor_vae")], panel)
    with pytest.raises(WeightsError, match="got unknown nobody"):
        layer_relevance(fit, panel, weights={"nobody": 1.0})
    with pytest.raises(SplitError, match="must hold a date with a full window"):
        layer_relevance(fit, panel, dates=("1999-01-04", "1999-01-05"))
