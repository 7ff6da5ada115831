"""FactorVAE: sites, plates, Eq. 12 by simulation, one pass of the networks, and no leak."""

import inspect
from collections import Counter
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import nn

from nfi_pyro.data.splits import DateSpan, DateSplit
from nfi_pyro.data.training.column_statistics import ArrayBlocks
from nfi_pyro.data.training.transform_chain import TransformChain
from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.errors import SpecError
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.factor_vae.model import FactorVAEContext
from nfi_pyro.posterior import forecast
from nfi_pyro.svi import PricingModel, SVIConfig, SVIFit, evaluate_objective

DATES, ASSETS, FACTORS, FEATURES, LAGS = 7, 5, 3, 11, 2
VARIANTS = ["full", "prior", "port"]


def spec_of(variant: str = "full", **changes: object) -> FactorVAESpec:
    sizes = {
        "n_features": FEATURES,
        "lags": LAGS,
        "projection_size": 13,
        "hidden_size": 2,
        "n_factors": FACTORS,
        "n_portfolios": 17,
        "alpha_hidden_size": 19,
        "prior_hidden_size": 23,
        "variant": variant,
    }
    return FactorVAESpec.model_validate(sizes | changes)


def build(variant: str = "full", **changes: object) -> FactorVAE:
    return FactorVAE(spec_of(variant, **changes), seed=1).double()


@pytest.fixture
def data(make_batch) -> tuple[PanelBatch, Outcome]:
    return make_batch()


def sites(function: Any, *arguments: object) -> dict[str, Any]:
    """Return the sites of one run, by name."""
    return dict(poutine.trace(function).get_trace(*arguments).nodes)


def widened(context: FactorVAEContext) -> FactorVAEContext:
    """Return a context with exposures large enough for factors to matter."""
    values = vars(context) | {"beta": 3.0 * context.beta}
    return FactorVAEContext(**values)


# ---- sites --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["full", "port"])
def test_sites_and_plates_of_model_and_guide(seeded, data, variant: str) -> None:
    batch, outcome = data
    model = build(variant)
    context = model.context(batch)
    with seeded(0):
        guide = poutine.trace(model.guide).get_trace(context, outcome)
        found = sites(poutine.replay(model.model, trace=guide), context, outcome)
    own: dict[str, Any] = dict(guide.nodes)
    z, site = found["z"], found["forward_return"]
    for latent in (z, own["z"]):
        assert latent["fn"].batch_shape == (DATES, 1)
        assert latent["fn"].event_shape == (FACTORS,)
        assert [(f.name, f.dim) for f in latent["cond_indep_stack"]] == [("date", -2)]
    assert torch.equal(z["value"], own["z"]["value"])
    assert site["fn"].batch_shape == (DATES, ASSETS)
    assert {(f.name, f.dim) for f in site["cond_indep_stack"]} == {("date", -2), ("asset", -1)}
    assert site["is_observed"]
    assert torch.equal(site["mask"], outcome.observed)
    names = {name for name, node in found.items() if node["type"] == "sample"}
    assert names == {"date", "asset", "z", "forward_return"}


def test_the_prior_variant_has_no_z_in_its_guide_and_no_encoder(seeded, data) -> None:
    batch, outcome = data
    model = build("prior")
    context = model.context(batch)
    guide = sites(model.guide, context, outcome)
    assert not [n for n, node in guide.items() if node["type"] == "sample"]
    found = sites(model.model, context, outcome)
    assert "z" not in found
    assert found["evidence"]["is_observed"]
    assert not [name for name, _ in model.named_parameters() if name.startswith("encoder")]
    with pytest.raises(SpecError, match='encoder must exist to encode outcomes; got variant "pri'):
        model.encode(context, outcome)
    with seeded(0):  # simulation still draws factors
        assert "z" in sites(model.model, context)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_block_is_a_scaled_subsample_of_the_plate(seeded, data, variant: str) -> None:
    batch, outcome = data
    part = PanelBatch(batch.features, batch.tradable, batch.date_index + 20, 101)
    model = build(variant)
    with seeded(0):
        found = sites(model.model, model.context(part), outcome)
    name = "evidence" if variant == "prior" else "forward_return"
    assert found[name]["scale"] == pytest.approx(101 / DATES)


def test_a_simulation_masks_by_tradable(seeded, data) -> None:
    batch, _ = data
    model = build()
    with seeded(0):
        found = sites(model.model, model.context(batch))
    assert torch.equal(found["forward_return"]["mask"], batch.tradable)
    assert found["forward_return"]["value"].shape == (DATES, ASSETS)


# ---- Eq. 12 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_marginal_moments_are_those_of_the_simulated_model(seeded, data, variant: str) -> None:
    model, n = build(variant), 1_000
    with torch.no_grad(), seeded(3):
        context = widened(model.context(data[0]))
        draws = Predictive(model.model, num_samples=n, return_sites=["forward_return", "z"])(
            context
        )
    returns, z = draws["forward_return"], draws["z"].squeeze(-2)
    law = model.law(context)
    marginal = law.marginal()
    # 35 cells (21 factors): 4 standard errors.
    error = (marginal.variance / n).sqrt()
    assert ((returns.mean(0) - marginal.mean).abs() < 4.0 * error).all()
    # A Gaussian's sample variance has standard deviation variance * sqrt(2 / n).
    spread = (returns.var(0) / marginal.variance - 1.0).abs()
    assert float(spread.max()) < 4.0 * (2.0 / n) ** 0.5
    assert ((z.mean(0) - context.prior_loc).abs() < 4.0 * context.prior_scale / n**0.5).all()
    # The factors are shared: covariances between assets are the loadings'.
    centred = returns - marginal.mean
    products = centred[:, :, 0] * centred[:, :, 1]
    loadings, _ = law.covariance()
    want = (loadings[:, 0] * loadings[:, 1]).sum(-1)
    assert ((products.mean(0) - want).abs() < 4.0 * products.std(0) / n**0.5).all()


def test_marginal_moments_are_equation_twelve(data) -> None:
    model = build()
    context = model.context(data[0])
    marginal = model.law(context).marginal()
    mean = context.alpha_loc + torch.einsum("dak,dk->da", context.beta, context.prior_loc)
    variance = context.specific_scale**2 + torch.einsum(
        "dak,dk->da", context.beta**2, context.prior_scale**2
    )
    torch.testing.assert_close(marginal.mean, mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(marginal.variance.sqrt(), variance.sqrt(), rtol=1e-12, atol=0)


def test_the_context_is_the_networks_and_the_guide_the_encoder(data) -> None:
    batch, outcome = data
    model = build()
    context = model.context(batch)
    hidden = model.extractor(batch.features, DATES)
    torch.testing.assert_close(context.beta, model.beta(hidden), rtol=1e-12, atol=0)
    alpha_loc, specific_scale = model.alpha(hidden)
    torch.testing.assert_close(context.alpha_loc, alpha_loc, rtol=1e-12, atol=0)
    torch.testing.assert_close(context.specific_scale, specific_scale, rtol=1e-12, atol=0)
    prior_loc, prior_scale = model.predictor(hidden, batch.tradable)
    torch.testing.assert_close(context.prior_loc, prior_loc, rtol=1e-12, atol=0)
    torch.testing.assert_close(context.prior_scale, prior_scale, rtol=1e-12, atol=0)
    loc, scale = model.encode(context, outcome)
    with torch.random.fork_rng(devices=[]):
        q = sites(model.guide, context, outcome)["z"]["fn"]
    torch.testing.assert_close(q.mean.squeeze(1), loc, rtol=0, atol=0)
    torch.testing.assert_close(q.stddev.squeeze(1), scale, rtol=0, atol=0)


# ---- one pass, no leak --------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_network_runs_once_per_step(seeded, data, variant: str) -> None:
    batch, outcome = data
    model = build(variant)
    calls: Counter[str] = Counter()
    networks = {"extractor", "alpha", "beta", "predictor.attention", "predictor.head"}
    networks |= {"full": {"encoder"}, "port": {"encoder"}, "prior": set()}[variant]
    for name in networks:
        module: nn.Module = model.get_submodule(name)
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    with seeded(0):
        context = model.context(batch)
        assert calls == Counter(networks - {"encoder"})
        evaluate_objective(model, context, outcome).loss.backward()
    assert calls == Counter(networks)


def test_the_context_takes_a_batch_and_nothing_else() -> None:
    assert list(inspect.signature(FactorVAE.context).parameters) == ["self", "batch"]
    assert list(inspect.signature(FactorVAE.law).parameters) == ["self", "context", "heads"]
    fields = set(PanelBatch.__dataclass_fields__) | set(FactorVAEContext.__dataclass_fields__)
    assert not fields & set(Outcome.__dataclass_fields__)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_forecast_without_outcomes_is_the_same_forecast(make_panel, variant: str) -> None:
    panel = make_panel()
    model = FactorVAE(spec_of(variant, n_features=3), seed=2).eval()
    features, tradable = panel["features"].values, panel["tradable"].values
    span = DateSpan("2021-03-01", "2021-03-03")
    fit = SVIFit(
        model=model,
        config=SVIConfig(),
        seed=0,
        split=DateSplit(span, DateSpan("2021-03-04", "2021-03-09"), None, 0),
        transforms=TransformChain.fit(
            ["robust_zscore"], ArrayBlocks(features, tradable), ("f0", "f1", "f2")
        ),
        return_scale=0.02,
        label={"start_lag": 1, "horizon": 1, "unit": "return"},
        history=panel[[]],
        provenance={"model": "factor_vae", "panel_hash": "0", "factors": ["z0", "z1", "z2"]},
        status="finished",
    )
    blind = panel.copy(deep=True)
    blind["forward_return"].values[:] = float("nan")
    known, unknown = forecast(fit, panel), forecast(fit, blind)
    assert known.data.identical(unknown.data)
    assert int(known.mean.notnull().sum()) > 5
    # The comparison has power: one feature moves the forecasts of its own window and date.
    moved = panel.copy(deep=True)
    asset = int(np.flatnonzero(panel["tradable"].values[4])[0])
    moved["features"].values[4, asset] += 1.0
    changed = (forecast(fit, moved).mean != known.mean) & known.mean.notnull()
    first = LAGS - 1  # position of the first forecast
    assert not changed[: 4 - first].any()
    assert bool(changed[4 - first, asset])


@pytest.mark.parametrize("variant", ["full", "port"])
def test_the_guide_sees_the_outcome(seeded, data, variant: str) -> None:
    batch, outcome = data
    model = build(variant)
    context = model.context(batch)
    loc, scale = model.encode(context, outcome)
    moved = Outcome(outcome.forward_return + 0.1 * outcome.observed, outcome.observed)
    other_loc, other_scale = model.encode(context, moved)
    seen = outcome.observed.any(1)
    assert (loc != other_loc)[seen].all()
    assert (scale != other_scale)[seen].all()


# ---- construction -------------------------------------------------------------------------------


def test_parts_follow_the_spec() -> None:
    model = build("full", scale_floor=0.25, negative_slope=0.2)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes["extractor.projection.weight"] == (13, FEATURES)
    assert shapes["extractor.gru.weight_hh"] == (6, 2)
    assert shapes["alpha.hidden.weight"] == (19, 2)
    assert shapes["beta.weight"] == (FACTORS, 2)
    assert shapes["predictor.attention.query"] == (FACTORS, 2)
    assert shapes["predictor.head.hidden.weight"] == (23, 2)
    assert shapes["encoder.portfolio.weight"] == (17, 2)
    assert shapes["encoder.mapping.loc.weight"] == (FACTORS, 17)
    for part in (model.alpha, model.predictor.head, model.encoder.mapping):  # type: ignore[union-attr]
        assert part.scale_floor == 0.25
    for part in (model.alpha, model.predictor.head, model.extractor):
        assert part.negative_slope == 0.2
    assert {name for name, _ in build("port").encoder.named_children()} == {"mapping"}  # type: ignore[union-attr]


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_a_pricing_model(variant: str) -> None:
    assert isinstance(build(variant), PricingModel)
    assert FactorVAE.name == "factor_vae"


def test_the_parameter_store_stays_empty(seeded, data) -> None:
    batch, outcome = data
    pyro.clear_param_store()
    model = build()
    with seeded(0):
        evaluate_objective(model, model.context(batch), outcome)
    assert len(pyro.get_param_store()) == 0
