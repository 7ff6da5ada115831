"""Importance weights: constant where the posterior is exact, and the bound on average."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor
from torch.distributions import MultivariateNormal

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.data.training.windows import Outcome
from nfi_pyro.diagnostics import judge_importance
from nfi_pyro.distributions import FactorMixture
from nfi_pyro.distributions.mixture_posterior import factor_posterior
from nfi_pyro.errors import PanelError, SpecError
from nfi_pyro.factor_vae import FactorVAE
from nfi_pyro.nfi import NFI, NFISpec
from nfi_pyro.posterior import importance, importance_weights
from nfi_pyro.posterior.blocks import open_pass
from nfi_pyro.posterior.factor_blocks import draw_normal, draw_returns, open_factor_pass, prior_of
from nfi_pyro.posterior.importance import evidence_bound, weigh_draws
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi

DRAWS, EMPTY = 400, 19  # position of the date without an observed return


def mixture(n_assets: int = 17, seed: int = 0) -> tuple[FactorMixture, Outcome]:
    """Return a law of three components on five dates, and returns drawn from it with gaps."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    shape = (5, n_assets)
    law = FactorMixture(
        normal(*shape, 3),
        0.3 * normal(*shape, 3),
        torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64).expand(*shape, 3),
        normal(*shape, 2),
        0.2 * normal(5, 2),
        (0.3 * normal(5, 2)).exp(),
    )
    z = draw_normal(prior_of(law), 1, generator)
    value = draw_returns(law, z, generator)[0]
    observed = torch.rand(shape, generator=generator) > 0.2
    return law, Outcome(torch.where(observed, value, 0.0), observed)


# ---- closed forms --------------------------------------------------------------------------------


def test_the_exact_posterior_has_constant_weights_which_are_the_evidence(
    fit: SVIFit, panel: Panel
) -> None:
    found = importance_weights(fit, panel, draws=DRAWS)
    weights = found.log_weights.values
    assert weights.dtype == np.float64
    assert np.ptp(weights, axis=0).max() < 1e-8
    np.testing.assert_allclose(weights[0], found.elbo, atol=1e-8)
    evidence = []
    for _, context, outcome in open_pass(fit, panel, None).contexts(fit):
        law = fit.model.law(context)
        for date, kept in enumerate(outcome.observed):
            beta, scale = (
                part.numpy().astype(np.float64)
                for part in (law.beta[date, kept], law.scale[date, kept, 0])
            )
            loc = law.factor_loc[date].numpy().astype(np.float64)
            prior = law.factor_scale[date].numpy().astype(np.float64) ** 2
            covariance = (beta * prior) @ beta.T + np.diag(scale**2)
            gap = outcome.forward_return[date, kept].numpy().astype(np.float64)
            gap = gap - law.loc[date, kept, 0].numpy() - beta @ loc
            constant = len(gap) * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1]
            evidence.append(-0.5 * (gap @ np.linalg.solve(covariance, gap) + constant))
    np.testing.assert_allclose(found.elbo, evidence, rtol=1e-10, atol=1e-8)


@pytest.mark.parametrize("guide", ["posterior", "encoder"])
def test_an_empty_date_weighs_nothing(fit: SVIFit, panel: Panel, guide: Any) -> None:
    found = importance_weights(fit, panel, guide=guide, draws=5)
    assert found.guide == guide
    empty = found.n_observed.values == 0
    assert empty[EMPTY]
    assert (found.log_weights.values[:, empty] == 0.0).all()
    assert (found.elbo.values[empty] == 0.0).all()
    assert (found.log_weights.values[:, ~empty] != 0.0).all()


def test_the_bound_is_the_expected_log_weight_of_a_mixture() -> None:
    law, outcome = mixture()
    generator = torch.Generator().manual_seed(1)
    exact = factor_posterior(law, outcome.forward_return, outcome.observed)
    wide = MultivariateNormal(exact.loc + 0.2, scale_tril=1.5 * exact.scale_tril)
    z = draw_normal(wide, 20_000, generator)
    weights = weigh_draws(law, outcome, wide, z)
    error = weights.std(0) / len(z) ** 0.5
    assert float(((weights.mean(0) - evidence_bound(law, outcome, wide)) / error).abs().max()) < 4.0
    for date in range(len(z[0])):  # one draw by hand
        kept = outcome.observed[date]
        cells = law.given(z[0]).log_prob(outcome.forward_return)[date, kept].sum()
        want = cells + prior_of(law).log_prob(z[0])[date] - wide.log_prob(z[0])[date]
        torch.testing.assert_close(weights[0, date], want, rtol=1e-12, atol=1e-12)


def test_unobserved_cells_set_no_nodes_and_no_number() -> None:
    law, outcome = mixture()
    exact = factor_posterior(law, outcome.forward_return, outcome.observed)
    hidden = ~outcome.observed
    wild = FactorMixture(
        law.logits,
        law.loc,
        torch.where(hidden.unsqueeze(-1), 1e-6, law.scale),  # would ask for a million nodes
        law.beta,
        law.factor_loc,
        law.factor_scale,
    )
    other = Outcome(torch.where(hidden, 1e6, outcome.forward_return), outcome.observed)
    assert torch.equal(evidence_bound(law, outcome, exact), evidence_bound(wild, other, exact))
    z = exact.loc.expand(3, *exact.loc.shape)
    assert torch.equal(weigh_draws(law, outcome, exact, z), weigh_draws(wild, other, exact, z))


# ---- the guides of a model -----------------------------------------------------------------------


def test_the_evidence_of_an_encoder_is_that_of_the_posterior(fit: SVIFit, panel: Panel) -> None:
    exact = importance_weights(fit, panel, draws=2)
    found = importance_weights(fit, panel, guide="encoder", draws=2_000, seed=5)
    log_weights = found.log_weights.values
    ratio = np.exp(log_weights - exact.elbo.values)  # mean 1 where its variance is finite
    error = ratio.std(0) / np.sqrt(len(ratio))
    known = (1.0 / np.square(ratio / ratio.sum(0)).sum(0)) > 200
    assert known.sum() > 5
    assert (np.abs(ratio.mean(0) - 1.0) < 5.0 * error + 1e-12)[known].all()
    assert bool((found.elbo <= exact.elbo + 1e-9).all())  # a bound, for any guide
    assert float((exact.elbo - found.elbo).mean()) > 0.1


def test_sixteen_factors_under_mixture_noise() -> None:
    """Coordinate ascent and Newton steps leave hundredths of a nat, an encoder whole ones."""
    spec = SimulationSpec(
        n_dates=29, n_assets=151, n_features=5, n_factors=4, unobserved_share=0.05
    )
    panel = simulate_panel(spec, seed=3)[0]
    model = NFI(
        NFISpec(
            n_features=5,
            lags=2,
            projection_size=8,
            hidden_size=8,
            n_factors=16,
            n_portfolios=11,
            prior_hidden_size=8,
            pricing_size=8,
            n_components=3,
            variant="encoder",
        )
    )
    config = SVIConfig(n_epochs=1, block_size=7, progress=False, device="cpu")
    fit = fit_svi(model, panel, config=config, seed=3)
    with torch.no_grad():
        fit.model.beta.weight.mul_(5.0)
    quality = {
        guide: judge_importance(found.log_weights, found.elbo, guide=guide)
        for guide in ("posterior", "encoder")
        for found in [
            importance_weights(fit, panel, guide=guide, seed=7, dates=("2010-01-25", None))
        ]
    }
    assert abs(quality["posterior"].mean_gap) < 0.1
    assert quality["posterior"].verdict.grade == "good"
    assert quality["encoder"].mean_gap > 1.0
    assert quality["encoder"].verdict.grade == "bad"


def test_any_function_may_be_a_guide(fit: SVIFit, panel: Panel) -> None:
    def prior(law: FactorMixture, outcome: Outcome) -> MultivariateNormal:
        assert outcome.forward_return.dtype == law.beta.dtype == torch.float64
        return prior_of(law)

    found = importance_weights(fit, panel, guide=prior, draws=7)
    assert found.guide == "prior"
    exact = importance_weights(fit, panel, draws=1)
    assert bool((found.elbo <= exact.elbo + 1e-9).all())


# ---- draws and refusals --------------------------------------------------------------------------


def test_a_seed_gives_the_same_draws_in_chunks_of_any_size(
    fit: SVIFit, panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = importance_weights(fit, panel, guide="encoder", draws=11, seed=2)
    monkeypatch.setattr(importance, "_CELLS", 1)
    two = importance_weights(fit, panel, guide="encoder", draws=11, seed=2)
    xr.testing.assert_allclose(one.log_weights, two.log_weights, rtol=1e-12)
    three = importance_weights(fit, panel, guide="encoder", draws=11, seed=3)
    assert not one.log_weights.equals(three.log_weights)
    xr.testing.assert_identical(one.elbo, three.elbo)
    span = ("2010-01-10", "2010-01-20")
    few = importance_weights(fit, panel, dates=span, draws=1)
    assert few.log_weights.sizes["date"] == len(open_pass(fit, panel, span).dates)


def test_options_out_of_range_are_refused(fit: SVIFit, panel: Panel) -> None:
    with pytest.raises(SpecError, match="draws must be >= 1; got 0"):
        importance_weights(fit, panel, draws=0)
    with pytest.raises(SpecError, match=r"seed must be in \[0, 2\*\*64\); got -1"):
        importance_weights(fit, panel, seed=-1)
    with pytest.raises(SpecError, match="guide must be 'posterior', 'encoder' or a function"):
        importance_weights(fit, panel, guide="prior")  # type: ignore[arg-type]


def test_models_without_what_is_asked_for_are_refused(fit: SVIFit, panel: Panel) -> None:
    spec = fit.model.spec.model_copy(update={"variant": "prior"})
    bare = replace(fit, model=FactorVAE(spec).eval())
    with pytest.raises(SpecError, match="guide 'encoder' must belong to a model with an encoder"):
        importance_weights(bare, panel, guide="encoder")
    none = replace(fit, provenance=fit.provenance | {"factors": []})
    with pytest.raises(SpecError, match="must belong to a model with latent factors"):
        importance_weights(none, panel)
    other = panel.copy(deep=True)
    other["forward_return"].attrs["start_lag"] = 3
    with pytest.raises(PanelError, match="the panel's label must be the fit's"):
        open_factor_pass(fit, Panel(other), "posterior", None)
