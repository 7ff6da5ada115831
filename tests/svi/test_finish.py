"""What is done once weights are trained: best weights, canonical form, copula."""

from typing import Any

import numpy as np
import pytest
import torch
from tqdm.auto import tqdm

from nfi_pyro.data.panel import Panel, PanelBlocks
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.data.training.transform_chain import TransformChain
from nfi_pyro.data.training.windows import PanelWindows
from nfi_pyro.linear_factor import LinearFactor, LinearFactorSpec
from nfi_pyro.mixture_pricing import MixturePricing, MixturePricingSpec
from nfi_pyro.nfi import NFI, NFISpec
from nfi_pyro.posterior import forecast
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi
from nfi_pyro.svi.dependence import copula_design, fit_copula
from nfi_pyro.svi.finish import finish
from nfi_pyro.svi.loop import TrainingLoop

DATES, ASSETS, FEATURES, FACTORS = 101, 23, 3, 2


@pytest.fixture(scope="module")
def panel() -> Panel:
    spec = SimulationSpec(
        n_dates=DATES, n_assets=ASSETS, n_features=FEATURES, n_factors=1, factor_scale=1.5
    )
    return simulate_panel(spec, seed=37)[0]


def nfi() -> NFI:
    return NFI(
        NFISpec(
            n_features=FEATURES,
            lags=2,
            projection_size=4,
            hidden_size=4,
            n_factors=FACTORS,
            n_portfolios=5,
            prior_hidden_size=4,
            pricing_size=4,
        ),
        seed=5,
    )


def loop_of(model: Any, panel: Panel) -> TrainingLoop:
    names = tuple(str(name) for name in panel["feature"].values)
    chain = TransformChain.fit(["robust_zscore"], PanelBlocks(panel, slice(0, 70)), names)
    scale = float(np.nanstd(panel["forward_return"].values[:70].astype(np.float64)))
    windows = PanelWindows(panel, lags=model.spec.lags, transforms=chain, return_scale=scale)
    config = SVIConfig(n_epochs=1, block_size=7, learning_rate=1e-2, progress=False, device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        loop = TrainingLoop(model, windows, slice(1, 70), slice(75, 90), config, 5)
        loop.run_epoch(tqdm(disable=True))
    return loop


def test_the_best_weights_are_the_ones_that_are_finished(panel) -> None:
    loop = loop_of(nfi(), panel)
    best = {name: value.clone() for name, value in loop.best_weights.items()}
    with torch.no_grad():
        for parameter in loop.model.parameters():
            parameter.add_(100.0)
    assert finish(loop) is None  # factors are shared: no copula
    for name, value in loop.model.state_dict().items():
        if not name.startswith("canonical"):
            assert torch.equal(value, best[name]), name
    assert not loop.model.training


def test_the_canonical_form_is_that_of_the_training_dates(panel) -> None:
    loop = loop_of(nfi(), panel)
    before = loop.model.canonical.scale.clone()
    finish(loop)
    model, batch = loop.model, loop.windows.batch(1, 70)
    assert not torch.equal(model.canonical.scale, before)
    with torch.no_grad():
        context = model.context(batch)
        law, beta = model.law(context), model.exposures(context)
        alpha = model.pricing(context, 0).alpha(beta).value
    rows = batch.tradable
    x = beta[rows].double().numpy()
    design = np.column_stack([np.ones(len(x)), x])
    slope = np.linalg.lstsq(design, alpha[rows].double().numpy(), rcond=None)[0][1:]
    # Single precision, in units of the slope that was taken out.
    assert np.abs(slope).max() < 1e-4 * float(model.canonical.shift.abs().max()) + 1e-6
    assert law.factor_scale.square().mean(0).tolist() == pytest.approx([1.0] * FACTORS, rel=1e-5)
    assert (x.mean(0) > 0).all()


def test_a_model_with_factors_gets_no_copula_and_one_without_gets_one(panel) -> None:
    config = SVIConfig(n_epochs=1, block_size=7, progress=False, device="cpu")
    linear = fit_svi(
        LinearFactor(LinearFactorSpec(n_exposures=FEATURES)), panel, config=config, seed=1
    )
    mixture = fit_svi(
        MixturePricing(MixturePricingSpec(n_exposures=FEATURES)), panel, config=config, seed=1
    )
    assert linear.copula is None
    assert mixture.copula is not None
    assert forecast(linear, panel).data.attrs["dependence"] == "factor"
    found = forecast(mixture, panel)
    assert found.data.attrs["dependence"] == "copula"
    day = found.on()
    loading = day["copula_loading"].values[day["entered"].values]
    assert loading.shape[1] == 1 + FEATURES
    assert (np.square(loading).sum(1) < 1.0).all()


def test_the_copula_sees_training_dates_alone(panel) -> None:
    loop = loop_of(MixturePricing(MixturePricingSpec(n_exposures=FEATURES)), panel)
    model = loop.model.eval()
    one = fit_copula(model, loop.windows, loop.train, 7)
    loop.windows.forward_return[70:] = 50.0
    two = fit_copula(model, loop.windows, loop.train, 11)
    torch.testing.assert_close(one.root, two.root, rtol=1e-5, atol=1e-6)
    assert one.n_dates == two.n_dates == 69
    loop.windows.forward_return[60:70] *= -3.0
    three = fit_copula(model, loop.windows, loop.train, 7)
    assert float((three.root - one.root).abs().max()) > 1e-3


def test_the_market_is_in_the_copula(panel) -> None:
    """One strong common factor: an equal-weight book's PITs show it, and so must its forecast."""
    config = SVIConfig(n_epochs=5, block_size=7, learning_rate=1e-2, progress=False, device="cpu")
    fit = fit_svi(
        MixturePricing(MixturePricingSpec(n_exposures=FEATURES, n_components=2)),
        panel,
        config=config,
        seed=1,
    )
    found = forecast(fit, panel)
    realised = panel["forward_return"].sel(date=found.data["date"]).where(found.data["entered"])
    book = realised.mean("asset")[:60]
    shared, alone = [], []
    for date in book["date"].values[::6]:
        names = found.data["asset"].values[found.on(date)["entered"].values]
        law = found.portfolio(dict.fromkeys(map(str, names), 1.0 / len(names)), date)
        shared.append(law.standard_deviation)
        independent = np.square(law.weights) @ found.variance.sel(date=date, asset=names).values
        alone.append(np.sqrt(independent))
    ratio = float(book.std()) / np.mean(shared)
    # 60 dates: a standard deviation is known to 1 / sqrt(120) = 9 percent.
    assert 0.64 < ratio < 1.36
    assert float(book.std()) > 2.0 * np.mean(alone)


def test_the_design_is_an_intercept_and_standardised_exposures(panel) -> None:
    loop = loop_of(MixturePricing(MixturePricingSpec(n_exposures=FEATURES)), panel)
    batch = loop.windows.batch(10, 17)
    design = copula_design(batch)
    assert design.shape == (7, ASSETS, 1 + FEATURES)
    assert (design[..., 0] == 1.0).all()
    rows = design[3][batch.tradable[3]][:, 1:]
    assert float(rows.mean(0).abs().max()) < 1e-5
    assert rows.std(0, correction=0).tolist() == pytest.approx([1.0] * FEATURES, rel=1e-4)


def test_a_fit_with_its_form_and_copula_comes_back(panel, tmp_path) -> None:
    config = SVIConfig(n_epochs=1, block_size=7, progress=False, device="cpu")
    for model in (nfi(), MixturePricing(MixturePricingSpec(n_exposures=FEATURES))):
        fit = fit_svi(model, panel, config=config, seed=2)
        back = SVIFit.load(fit.save(tmp_path / model.name))
        assert forecast(back, panel).data.identical(forecast(fit, panel).data)
