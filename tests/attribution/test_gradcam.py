"""Grad-CAM on factor tokens and lags: closed forms, captum, what is planted, what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from nfi_pyro.attribution.networks.explained import ExplainedDate, open_explained
from nfi_pyro.attribution.networks.gradcam import factor_gradcam, factor_heat, lag_gradcam
from nfi_pyro.attribution.networks.gradcam_sanity import forecast_layers, gradcam_sanity
from nfi_pyro.data.panel import Panel
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.errors import ShapeError, SpecError, SplitError, WeightsError
from nfi_pyro.nets.jets import SMOOTH
from nfi_pyro.portfolio.risk import portfolio_risk
from nfi_pyro.posterior import forecast, pricing_law
from nfi_pyro.posterior.dated_weights import DatedWeights
from nfi_pyro.posterior.wide import wide_model
from nfi_pyro.svi import SVIFit
from tests.attribution.explained_maker import (
    DATES,
    DAY,
    DRIVER,
    FEATURES,
    LAGS,
    LONELY,
    PRICED,
    WINDOWED,
    day_of,
    equal_weights,
    explain_day,
    fit_bent,
    fit_driven,
    forget,
    uneven_weights,
)


def test_the_map_of_the_mean_is_gradient_times_exposure(fits: Any, panel: Panel) -> None:
    """The average over factors changes nothing behind a layer that sums its tokens."""
    for name in PRICED:
        fit, book = fits(name), uneven_weights(panel)
        law = pricing_law(fit, panel, panel["date"].values[DAY])
        held = np.array([book.get(str(asset), 0.0) for asset in law.assets])
        expected = held @ (law.beta * law.jacobian()).detach().numpy()
        found = factor_gradcam(fit, panel, weights=book, dates=day_of(panel), relu=False)
        np.testing.assert_allclose(found.heat.values[0], expected, rtol=1e-9, atol=1e-15)
        assert list(found.heat["factor"].values) == list(law.factors)
        mean = float(law.marginal().mean.detach().numpy() @ held)
        assert float(found.value[0]) == pytest.approx(mean, rel=1e-10)
        assert found.heat.attrs["units"] == "decimal return"


def test_a_linear_model_has_its_prices_times_the_books_exposure(fits: Any, panel: Panel) -> None:
    fit = fits("linear_factor")
    law = pricing_law(fit, panel, panel["date"].values[DAY])
    found = factor_gradcam(fit, panel, weights=str(law.assets[2]), dates=day_of(panel), relu=False)
    price = fit.model.factor_loc[1:].detach().double() * fit.return_scale
    np.testing.assert_allclose(found.heat.values[0], (law.beta[2] * price).numpy(), rtol=1e-12)
    assert (found.parts.sel(part=["alpha", "noise"]) == 0.0).all()


def test_the_map_of_risk_is_gradient_times_exposure(fits: Any, panel: Panel) -> None:
    fit = fits("nfi")
    law = pricing_law(fit, panel, panel["date"].values[DAY])
    weights = torch.full((len(law.assets),), 1.0 / len(law.assets), dtype=torch.float64)
    beta = law.beta.clone().requires_grad_()
    own = MixtureOfNormals(*law.function.specific(beta), validate_args=False).variance
    shared = ((weights @ beta) * law.function.factor_scale).square().sum()
    deviation = (shared + (weights.square() * own).sum()).sqrt() * law.return_scale
    slope = torch.autograd.grad(deviation, beta)[0]
    found = factor_gradcam(fit, panel, target="standard_deviation", dates=day_of(panel), relu=False)
    np.testing.assert_allclose(
        found.heat.values[0], (slope * law.beta).sum(0).numpy(), rtol=1e-9, atol=1e-14
    )
    assert float(found.value[0]) == pytest.approx(float(deviation.detach()), rel=1e-10)
    alpha = float(abs(found.parts.sel(part="alpha")).max())
    assert alpha <= 1e-12 * float(abs(found.heat).max())  # it moves no variance
    assert float(abs(found.parts.sel(part="noise")).max()) > 1e-7


def test_loadings_give_the_euler_contributions_of_factors(fits: Any, panel: Panel) -> None:
    fit, day = fits("nfi"), panel["date"].values[DAY]
    law = pricing_law(fit, panel, day)
    weights = dict.fromkeys(law.assets, 1.0 / len(law.assets))
    risk = portfolio_risk(forecast(fit, panel), weights, date=day)
    found = factor_gradcam(fit, panel, target="standard_deviation", dates=day_of(panel))
    np.testing.assert_allclose(
        found.parts.sel(part="linear").values[0],
        risk.factor_contribution.values[:-1],
        rtol=1e-4,  # the forecast is in single precision
        atol=1e-9,
    )


def test_the_risk_explained_is_that_of_the_forecasts_joint_law(fits: Any, panel: Panel) -> None:
    day = panel["date"].values[DAY]
    for name in PRICED:
        fit = fits(name)
        found = factor_gradcam(
            fit, panel, target="standard_deviation", dates=day_of(panel), relu=False
        )
        law = pricing_law(fit, panel, day)
        weights = dict.fromkeys(law.assets, 1.0 / len(law.assets))
        expected = forecast(fit, panel).portfolio(weights, day).standard_deviation
        assert float(found.value[0]) == pytest.approx(expected, rel=2e-5), name


def test_a_copulas_columns_carry_the_risk_of_constant_noise(fits: Any, panel: Panel) -> None:
    """With one scale for all, only loadings move; the columns' part by central differences."""
    fit = fits("neural_factor")
    day = explain_day(fit, panel)
    weights = equal_weights(day)
    assert day.columns is not None
    columns = day.columns.columns(day.beta)
    scale = float(fit.model.noise.scale.detach())

    def deviation(x: Tensor) -> float:
        loadings = day.columns.loadings(x)  # type: ignore[union-attr]
        shared, own = weights @ loadings, 1.0 - loadings.square().sum(-1)
        variance = shared.square().sum() + (weights.square() * own).sum()
        return float(variance.sqrt()) * scale * fit.return_scale

    expected = np.zeros(FEATURES)
    for row in range(len(columns)):
        for factor in range(FEATURES):
            step = torch.zeros_like(columns)
            step[row, factor] = 1e-5
            slope = (deviation(columns + step) - deviation(columns - step)) / 2e-5
            expected[factor] += float(columns[row, factor]) * slope
    found = factor_gradcam(fit, panel, target="standard_deviation", dates=day_of(panel), relu=False)
    np.testing.assert_allclose(found.heat.values[0], expected, rtol=1e-5, atol=1e-10)
    rest = found.parts.sel(part=["alpha", "noise"])
    assert float(abs(rest).max()) <= 1e-15 * float(abs(found.heat).max())


class TokenNetwork(nn.Module):
    """A perceptron from tokens (row, hidden, factor) on, as captum wants a layer."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.layer = network, nn.Identity()

    def forward(self, beta: Tensor) -> Tensor:
        tokens = self.layer(self.network.first.tokens(beta).mT)
        smooth = SMOOTH[self.network.activation]
        hidden = smooth(tokens.sum(-1) + self.network.first.bias)[0]
        for layer in self.network.deeper:
            hidden = smooth(layer(hidden))[0]
        return self.network.readout(hidden)


@pytest.mark.parametrize("relu", [False, True])
def test_captum_draws_the_same_map(fits: Any, panel: Panel, relu: bool) -> None:
    captum = pytest.importorskip("captum.attr")
    fit = fits("neural_factor")
    day = explain_day(fit, panel)
    network = TokenNetwork(wide_model(fit).alpha)
    oracle = captum.LayerGradCam(network, network.layer)
    beta = day.beta.clone().requires_grad_()
    maps = oracle.attribute(beta, target=0, relu_attributions=relu).squeeze(1).detach()
    assets = panel["asset"].values[day.kept]
    for row in (0, 3):
        found = factor_gradcam(fit, panel, weights=str(assets[row]), dates=day_of(panel), relu=relu)
        heat = found.parts.sel(part="alpha").values[0]
        heat = np.maximum(heat, 0.0) if relu else heat
        np.testing.assert_allclose(heat, maps[row].numpy() * fit.return_scale, rtol=1e-10)


class ProjectionNetwork(nn.Module):
    """A fit from projected features (row, projection, lag) on, as captum wants a layer."""

    def __init__(self, day: ExplainedDate) -> None:
        super().__init__()
        self.day, self.layer = day, nn.Identity()

    def forward(self, projected: Tensor) -> Tensor:
        cell = self.day.model.extractor.gru
        hidden = projected.new_zeros(len(projected), cell.hidden_size)
        for step in self.layer(projected).permute(2, 0, 1):
            hidden = cell(step, hidden)
        law = self.day.law_of_hidden(hidden[None])
        return (law.marginal().mean[0] * equal_weights(self.day)).unsqueeze(-1)


def test_captum_draws_the_same_map_of_lags(fits: Any, panel: Panel) -> None:
    captum = pytest.importorskip("captum.attr")
    for name in WINDOWED:
        fit = fits(name)
        day = explain_day(fit, panel)
        extractor = day.model.extractor
        projected = nn.functional.leaky_relu(extractor.projection(day.inputs), 0.01)
        network = ProjectionNetwork(day)
        oracle = captum.LayerGradCam(network, network.layer)
        maps = oracle.attribute(projected.permute(1, 2, 0).requires_grad_(), target=0)
        expected = maps.sum((0, 1)).flip(0).detach().numpy() * fit.return_scale
        found = lag_gradcam(fit, panel, dates=day_of(panel), relu=False)
        np.testing.assert_allclose(found.heat.values[0], expected, rtol=1e-9)
        mean = float(forecast(fit, panel).mean.isel(date=DAY - 1).mean())
        assert float(found.value[0]) == pytest.approx(mean, rel=1e-5, abs=1e-8)
        assert list(found.heat["lag"].values) == list(range(LAGS))


def test_a_recurrence_that_forgets_is_hot_at_the_signal_date(fits: Any, panel: Panel) -> None:
    fit = forget(fit_bent("nfi", panel))
    size = fit.model.extractor.gru.hidden_size
    heat = lag_gradcam(fit, panel, dates=day_of(panel), relu=False).heat.values[0]
    # The average over lags halves the slope, and keeps the colour of what was forgotten.
    assert np.abs(heat).min() > 0.0
    day = explain_day(fit, panel)
    projected = nn.functional.leaky_relu(day.model.extractor.projection(day.inputs), 0.01)
    leaf = projected.detach().requires_grad_()
    hidden = torch.zeros(leaf.shape[1], size, dtype=torch.float64)
    for step in leaf:
        hidden = day.model.extractor.gru(step, hidden)
    mean = (day.law_of_hidden(hidden[None]).marginal().mean[0] * equal_weights(day)).sum()
    slope = torch.autograd.grad(mean, leaf)[0]
    assert float(slope[0].abs().max()) <= 1e-15 * float(slope[1].abs().max())
    expected = 0.5 * (slope[1] * leaf.detach()).sum((1, 2)).flip(0) * fit.return_scale
    np.testing.assert_allclose(heat, expected.numpy(), rtol=1e-9)


def plant(fit: SVIFit, factor: int) -> SVIFit:
    """Return the fit with a network that one factor alone enters."""
    network = fit.model.network.alpha if hasattr(fit.model, "network") else fit.model.alpha
    with torch.no_grad():
        for place in range(network.first.weight.shape[0]):
            if place != factor:
                network.first.weight[place] = 0.0
        if network.slope is not None:
            network.slope.zero_()
    return fit


def test_a_planted_factor_is_at_the_top_of_the_map(panel: Panel) -> None:
    for name in ("neural_factor", "mixture_pricing"):
        fit = plant(fit_bent(name, panel), 2)
        found = factor_gradcam(fit, panel, weights=uneven_weights(panel), relu=False)
        heat = abs(found.heat).drop_isel(date=LONELY).dropna("date")
        assert heat.sizes["date"] == DATES - 1
        assert (heat.argmax("factor") == 2).all()
        assert float(heat.drop_isel(factor=2).max()) <= 1e-15
        rectified = factor_gradcam(fit, panel, weights=uneven_weights(panel))
        assert (rectified.heat.dropna("date") >= 0.0).all()
        assert int(rectified.heat.sum("date").argmax("factor")) == 2


def test_a_fit_finds_the_factor_that_drives_returns() -> None:
    fit, panel = fit_driven()
    for book in (uneven_weights(panel), None):
        found = factor_gradcam(fit, panel, weights=book, relu=False)
        size = abs(found.heat).mean("date")
        assert int(size.argmax("factor")) == DRIVER
        others = size.drop_isel(factor=DRIVER)
        assert float(size[DRIVER]) > (3.0 if book else 1.0) * float(others.max())


def test_relu_keeps_what_raises_the_value(fits: Any, panel: Panel) -> None:
    signed = factor_gradcam(fits("nfi"), panel, relu=False)
    rectified = factor_gradcam(fits("nfi"), panel)
    assert float(signed.heat.min()) < 0.0
    np.testing.assert_array_equal(rectified.heat.values, np.maximum(signed.heat.values, 0.0))
    np.testing.assert_array_equal(rectified.parts.values, signed.parts.values)
    np.testing.assert_allclose(signed.parts.sum("part").values, signed.heat.values, rtol=1e-12)
    assert rectified.rectified
    assert not signed.rectified
    one, two = (lag_gradcam(fits("nfi"), panel, relu=relu).heat.values for relu in (True, False))
    np.testing.assert_array_equal(one, np.maximum(two, 0.0))


def test_random_weights_change_the_map(panel: Panel) -> None:
    fit = plant(fit_bent("neural_factor", panel), 2)
    book = uneven_weights(panel)
    found = gradcam_sanity(fit, panel, weights=book, draws=3, seed=11).correlation
    assert found.dims == ("draw", "layer")
    assert list(found["layer"].values) == [
        "noise",
        "alpha.readout",
        "alpha.deeper.0",
        "alpha.first",
        "alpha",
    ]
    np.testing.assert_allclose(found[:, 0], 1.0)  # the mean has no noise
    assert abs(float(found[:, -1].mean())) < 0.6
    assert len(set(found[:, -1].values.tolist())) == 3
    again = gradcam_sanity(fit, panel, weights=book, draws=3, seed=11).correlation
    assert found.identical(again)
    other = gradcam_sanity(fit, panel, weights=book, draws=1, seed=12).correlation
    assert float(found[0, -1]) != float(other[0, -1])
    with pytest.raises(SpecError, match="draws must be at least 1; got 0"):
        gradcam_sanity(fit, panel, draws=0)


def test_a_constant_map_has_no_correlation(panel: Panel) -> None:
    fit = fit_bent("neural_factor", panel)
    with torch.no_grad():
        fit.model.alpha.readout.weight.zero_()
        fit.model.alpha.slope.zero_()
    assert np.isnan(gradcam_sanity(fit, panel).correlation.values).all()


def test_layers_that_no_forecast_runs_are_left_alone(panel: Panel) -> None:
    fit = fit_bent("nfi", panel, variant="encoder")
    names = [name for name, _ in forecast_layers(fit.model)]
    assert not [name for name in names if name.startswith("encoder")]
    assert names[-1] == "extractor.projection"
    assert names[0].startswith("network.noise")


def test_fits_are_chains(fits: Any, panel: Panel) -> None:
    pair = [fits("nfi", 3), fits("nfi", 5)]
    found = factor_gradcam(pair, panel)
    assert found.heat.dims == ("chain", "date", "factor")
    assert found.value.dims == found.uncovered.dims == ("chain", "date")
    alone = factor_gradcam(pair[1], panel)
    np.testing.assert_array_equal(found.heat.sel(chain=1).values, alone.heat.values)
    assert not found.comparable
    assert factor_gradcam(fits("mixture_pricing"), panel).comparable
    assert lag_gradcam(pair, panel).heat.dims == ("chain", "date", "lag")
    assert gradcam_sanity(pair, panel, dates=day_of(panel)).correlation.dims == (
        "chain",
        "draw",
        "layer",
    )


def test_random_last_layers_are_explained_at_their_location(panel: Panel) -> None:
    fit = fit_bent("nfi", panel, heads={"kind": "low_rank", "rank": 2})
    found = factor_gradcam(fit, panel, dates=day_of(panel), relu=False)
    law = pricing_law(fit, panel, panel["date"].values[DAY])
    expected = (law.beta * law.jacobian()).mean(0).detach().numpy()
    np.testing.assert_allclose(found.heat.values[0], expected, rtol=1e-9, atol=1e-15)


def test_what_has_no_law_is_counted(fits: Any, panel: Panel) -> None:
    fit = fits("neural_factor")
    names = [str(name) for name in panel["asset"].values]
    found = factor_gradcam(fit, panel, weights=names[4])
    tradable = panel["tradable"].values[:, 4]
    np.testing.assert_array_equal(found.uncovered.values, np.where(tradable, 0.0, 1.0))
    np.testing.assert_array_equal(np.isnan(found.heat.values[:, 0]), ~tradable)
    np.testing.assert_array_equal(np.isnan(found.value.values), ~tradable)
    pair = factor_gradcam(fit, panel, weights={names[0]: 0.3, names[4]: -0.1})
    assert float(pair.uncovered[LONELY]) == pytest.approx(0.25)
    assert np.isfinite(pair.heat.values[LONELY]).all()


def test_weights_by_date(fits: Any, panel: Panel) -> None:
    fit = fits("linear_factor")
    shape = (panel.sizes["date"], panel.sizes["asset"])
    values = np.random.default_rng(7).dirichlet(np.ones(shape[1]), size=shape[0])
    table = xr.DataArray(values, {"date": panel["date"], "asset": panel["asset"]})
    whole = factor_gradcam(fit, panel, weights=table, relu=False)
    day = factor_gradcam(
        fit, panel, weights=table[DAY].drop_vars("date"), dates=day_of(panel), relu=False
    )
    np.testing.assert_allclose(whole.heat.values[DAY], day.heat.values[0], rtol=1e-12)
    with pytest.raises(SpecError, match="must be given for every date that is visited"):
        factor_gradcam(fit, panel, weights=table[3:])
    with pytest.raises(SpecError, match="dates of weights must be unique"):
        factor_gradcam(fit, panel, weights=table[[0, *range(shape[0])]])
    with pytest.raises(ShapeError, match="must have dimensions date and asset"):
        factor_gradcam(fit, panel, weights=table.expand_dims("book"))
    with pytest.raises(
        WeightsError, match="must hold a weight that is not 0; got none on 2010-01-06"
    ):
        factor_gradcam(fit, panel, weights=table.where(table["date"] != table["date"][2], 0.0))


def test_a_fit_is_left_as_it_was(fits: Any, panel: Panel) -> None:
    fit = fits("nfi")
    before = {name: value.clone() for name, value in fit.model.state_dict().items()}
    factor_gradcam(fit, panel, dates=day_of(panel))
    gradcam_sanity(fit, panel, dates=day_of(panel))
    for name, value in fit.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    opened, model = open_explained(fit, panel, day_of(panel)), wide_model(fit)
    factor_heat(opened, DatedWeights(None, opened.dates, opened.assets), "mean", model)
    for module in (*fit.model.modules(), *model.modules()):
        assert not module._forward_hooks
    assert all(parameter.requires_grad for parameter in fit.model.parameters())


def test_what_has_no_map_is_refused(fits: Any, panel: Panel) -> None:
    vae = fits("factor_vae")
    with pytest.raises(SpecError, match="must have a layer with a factor axis; got factor_vae"):
        factor_gradcam(vae, panel)
    with pytest.raises(SpecError, match="must have a layer with a factor axis; got factor_vae"):
        gradcam_sanity(vae, panel)
    with pytest.raises(SpecError, match="must be of a model that reads windows; got neural_factor"):
        lag_gradcam(fits("neural_factor"), panel)
    with pytest.raises(SpecError, match="fits must hold at least one fit; got none"):
        factor_gradcam([], panel)
    with pytest.raises(SpecError, match="draws of one model; got another model, spec at fit 1"):
        factor_gradcam([fits("nfi"), fits("neural_factor")], panel)


def test_wrong_options_are_refused(fits: Any, panel: Panel) -> None:
    fit = fits("mixture_pricing")
    with pytest.raises(SpecError, match="target must be one of mean, standard_deviation; got 'va"):
        factor_gradcam(fit, panel, target="variance")
    ranks = replace(fit, label=fit.label | {"unit": "rank"})
    with pytest.raises(SpecError, match="risk of a book must be in return units; got a fit of 'r"):
        factor_gradcam(ranks, panel, target="standard_deviation")
    assert factor_gradcam(ranks, panel).heat.attrs["units"] == "rank"
    with pytest.raises(SpecError, match="must know how assets depend on each other; got a fit of"):
        factor_gradcam(replace(fit, copula=None), panel, target="standard_deviation")
    with pytest.raises(WeightsError, match="weights must name assets of the forecast; got unknown"):
        factor_gradcam(fit, panel, weights="nobody")
    with pytest.raises(WeightsError, match="must hold a weight that is not 0"):
        factor_gradcam(fit, panel, weights={"A000": 0.0})
    with pytest.raises(SplitError, match="must hold a date with a full window"):
        factor_gradcam(fit, panel, dates=("1999-01-04", "1999-01-05"))
    with pytest.raises(SpecError, match="seed"):
        gradcam_sanity(fit, panel, seed=-1)
