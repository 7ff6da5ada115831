"""The autoencoder: PPCA as its linear case, evidence, gaps, seeds, storage, bad input."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pydantic import ValidationError
from pyro.infer import TraceMeanField_ELBO
from scipy.linalg import subspace_angles

from nfi_pyro.errors import NonFiniteLossError, PanelError, SpecError, SplitError
from nfi_pyro.exposures import (
    VAE,
    VAEFit,
    VAESpec,
    VAETraining,
    choose_vae,
    fit_ppca,
    fit_vae,
)
from nfi_pyro.exposures.ppca import gather_moments
from nfi_pyro.exposures.vae import VAEContext
from nfi_pyro.exposures.vae_start import start_at_ppca

Plant = Callable[..., Any]
SPANS: dict[str, Any] = {"train": slice(0, 13), "validation": slice(13, 17)}
QUICK = VAETraining(n_epochs=3, dates_per_batch=5)
SMALL = VAESpec(n_factors=2, hidden_sizes=(5,))


@pytest.fixture(scope="module")
def trained() -> Callable[[Any], VAEFit]:
    """Return a fit of three epochs on some data, made once."""
    found: list[VAEFit] = []

    def fit(data: Any) -> VAEFit:
        if not found:
            found.append(fit_vae(data.features, data.mask, spec=SMALL, training=QUICK, **SPANS))
        return found[0]

    return fit


def vae_at_ppca(data: Any, decoder: Any = "linear", noise: float | None = None) -> VAE:
    """Return a fresh float64 VAE at the PPCA of some data."""
    spec = VAESpec(
        n_features=7,
        n_factors=2,
        hidden_sizes=(5,),
        decoder=decoder,
        noise_scale=noise,
        scale_floor=1e-6,
    )
    module = VAE(spec).double()
    moments, _ = gather_moments(data.features, data.mask, slice(0, 17), n_factors=2, complete=False)
    start_at_ppca(module, moments)
    return module


def rows_of(data: Any) -> torch.Tensor:
    return torch.as_tensor(data.features.to_numpy().astype(np.float64)[data.mask.to_numpy()])


# ---- the linear case -----------------------------------------------------------------------------


def test_a_linear_decoder_with_fixed_noise_spans_the_subspace_of_ppca(plant: Plant) -> None:
    data = plant()
    exact = fit_ppca(data.features, data.mask, n_factors=2, train=SPANS["train"])
    spec = VAESpec(
        n_factors=2, hidden_sizes=(8,), decoder="linear", noise_scale=exact.noise_variance**0.5
    )
    # From random weights: the start at PPCA would beg the question.
    training = VAETraining(n_epochs=40, dates_per_batch=2, learning_rate=0.05, start="random")
    fit = fit_vae(data.features, data.mask, spec=spec, training=training, **SPANS)
    learned = fit.weights["decoder_line.weight"].numpy()
    angles = np.degrees(subspace_angles(learned, exact.loadings.to_numpy()))
    assert angles.max() < 5.0
    later = data.features[13:], data.mask[13:]
    gap = exact.score(*later).mean() - fit.score(*later).mean()
    assert abs(float(gap)) < 0.03
    assert fit.active_units.to_numpy().tolist() == [True, True]


@pytest.mark.parametrize("decoder", ["linear", "mlp"])
def test_the_start_is_ppca_and_its_evidence_exact_with_one_draw(
    plant: Plant, seeded: Callable[[int], Any], decoder: Any
) -> None:
    data = plant()
    exact = fit_ppca(data.features, data.mask, n_factors=2)
    module = vae_at_ppca(data, decoder)
    wanted = exact.score(data.features, data.mask).to_numpy()[data.mask.to_numpy()]
    context = module.context(rows_of(data))
    mean = exact.apply(data.features, data.mask).to_numpy()[data.mask.to_numpy()]
    np.testing.assert_allclose(context.loc.detach(), mean, atol=1e-8)
    with seeded(3), torch.no_grad():
        np.testing.assert_allclose(module.log_evidence(context, 1), wanted, atol=1e-7)
        elbo = -TraceMeanField_ELBO().loss(module.model, module.guide, context)
    # One draw a row; with the KL in closed form its value has a standard deviation of about 1.
    assert elbo == pytest.approx(wanted.sum(), abs=4 * len(wanted) ** 0.5)


def test_the_evidence_rises_with_draws_towards_the_truth(
    plant: Plant, seeded: Callable[[int], Any]
) -> None:
    data = plant()
    exact = fit_ppca(data.features, data.mask, n_factors=2)
    module = vae_at_ppca(data)
    context = module.context(rows_of(data))
    wide = VAEContext(context.values, context.observed, context.loc, 2.0 * context.scale)
    with seeded(3), torch.no_grad():
        bounds = [float(module.log_evidence(wide, draws).mean()) for draws in (1, 10, 300)]
    truth = exact.log_likelihood / exact.n_rows
    # At one draw the gap is the KL: 2 factors x ((4 - 1) / 2 - log 2) = 1.61 nats.
    assert bounds[0] == pytest.approx(truth - 1.61, abs=0.4)
    assert bounds[0] < bounds[1] - 0.5
    assert bounds[1] < bounds[2] - 0.01
    assert bounds[2] == pytest.approx(truth, abs=0.03)


# ---- model and guide -----------------------------------------------------------------------------


def test_the_loss_reaches_every_parameter_and_leaves_no_parameter_store(
    plant: Plant, seeded: Callable[[int], Any]
) -> None:
    data = plant(missing=0.2)
    module = VAE(VAESpec(n_features=7, n_factors=3, hidden_sizes=(5, 11)))
    with torch.no_grad():  # the last layers start at 0, which stops gradients before them
        for weights in module.parameters():
            weights.add_(0.01)
    context = module.context(torch.as_tensor(data.features.to_numpy()[0]))
    with seeded(0), pyro.settings.context(module_local_params=True):
        loss = TraceMeanField_ELBO().differentiable_loss(module.model, module.guide, context)
    loss.backward()
    for name, weights in module.named_parameters():
        assert weights.grad is not None, name
        assert torch.isfinite(weights.grad).all(), name
        assert (weights.grad != 0).any(), name
    assert len(pyro.get_param_store()) == 0


def test_an_entry_that_is_missing_counts_nowhere(
    plant: Plant, seeded: Callable[[int], Any]
) -> None:
    data = plant()
    module = VAE(VAESpec(n_features=7, n_factors=2, hidden_sizes=(5,)))
    rows = torch.as_tensor(data.features.to_numpy()[0])
    gone = rows.clone()
    gone[:, 3] = torch.nan
    full, part = module.context(rows), module.context(gone)
    assert not torch.allclose(part.loc, full.loc)
    assert torch.isfinite(part.values).all()
    same_latents = VAEContext(part.values, part.observed, full.loc, full.scale)
    with seeded(1), torch.no_grad():
        all_seven = module.log_evidence(full, 1)
    with seeded(1), torch.no_grad():
        six = module.log_evidence(same_latents, 1)
        odd = VAEContext(part.values + 7.0 * ~part.observed, *_rest(same_latents))
    with seeded(1), torch.no_grad():
        np.testing.assert_array_equal(module.log_evidence(odd, 1), six)
    assert not torch.allclose(six, all_seven)
    losses = []
    for context in (same_latents, odd, full):
        with seeded(1), torch.no_grad():
            losses.append(TraceMeanField_ELBO().loss(module.model, module.guide, context))
    assert losses[0] == losses[1] != losses[2]


def _rest(context: VAEContext) -> tuple[torch.Tensor, ...]:
    return context.observed, context.loc, context.scale


def test_the_decoder_is_curved_at_every_point(seeded: Callable[[int], Any]) -> None:
    module = VAE(VAESpec(n_features=7, n_factors=2, hidden_sizes=(5,), activation="tanh")).double()
    with seeded(2), torch.no_grad():
        for weights in module.parameters():
            weights.normal_()
    hessian = torch.func.hessian(lambda z: module.decode(z)[0])(torch.tensor([0.3, -0.2]).double())
    assert (hessian.abs() > 1e-6).all()


# ---- the fit -------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits(plant: Plant, trained: Any) -> None:
    data = plant()
    fits = [
        trained(data),
        fit_vae(data.features, data.mask, spec=SMALL, training=QUICK, **SPANS),
        fit_vae(data.features, data.mask, spec=SMALL, training=QUICK, seed=1, **SPANS),
    ]
    scores = [fit.score(data.features, data.mask, draws=3, seed=5) for fit in fits]
    assert scores[0].identical(scores[1])
    assert not scores[0].identical(scores[2])
    assert not scores[0].identical(fits[0].score(data.features, data.mask, draws=3, seed=6))


def test_outputs_keep_to_the_mask_and_follow_the_assets(plant: Plant, trained: Any) -> None:
    data = plant()
    fit = trained(data)
    found = fit.posterior(data.features, data.mask)
    exposures = fit.apply(data.features, data.mask)
    np.testing.assert_array_equal(exposures, found["mean"])
    assert exposures.dims == ("date", "asset", "factor")
    assert exposures["factor"].to_numpy().tolist() == ["vae1", "vae2"]
    assert (np.isnan(exposures).any("factor") == ~data.mask).all()
    assert (found["scale"].to_numpy()[data.mask.to_numpy()] > 0).all()
    order = np.random.default_rng(1).permutation(31)
    there = fit.apply(data.features[:, order], data.mask[:, order])
    np.testing.assert_allclose(there, exposures[:, order], atol=1e-6)
    again = fit.reconstruct(data.features, data.mask)
    assert again.dims == data.features.dims
    assert (np.isnan(again).any("feature") == ~data.mask).all()


def test_validation_dates_choose_the_epoch_and_nothing_else(plant: Plant, trained: Any) -> None:
    data = plant()
    later = data.features.copy(deep=True)
    later[13:] *= 1.5
    other = fit_vae(later, data.mask, spec=SMALL, training=QUICK, **SPANS)
    np.testing.assert_array_equal(other.history["elbo"], trained(data).history["elbo"])
    assert other.train == ("2021-03-01", "2021-03-17")


def test_training_stops_early_and_keeps_the_best_weights(plant: Plant) -> None:
    data = plant()
    training = VAETraining(n_epochs=40, dates_per_batch=5, learning_rate=0.3, patience=2)
    fit = fit_vae(data.features, data.mask, spec=SMALL, training=training, **SPANS)
    curve = fit.history["validation_elbo"].to_numpy()
    assert len(curve) < 40
    assert len(curve) == curve.argmax() + 3
    draws = fit.score(data.features[13:], data.mask[13:], draws=1)
    # The ELBO and a one-draw bound have one expectation.
    assert float(draws.mean()) == pytest.approx(curve.max(), abs=0.5)


def test_gaps_are_trained_around(plant: Plant) -> None:
    data = plant(missing=0.2)
    fit = fit_vae(data.features, data.mask, spec=SMALL, training=QUICK, **SPANS)
    assert np.isfinite(fit.history["elbo"]).all()
    filled = fit.reconstruct(data.features, data.mask).to_numpy()[data.mask.to_numpy()]
    assert np.isfinite(filled).all()


def test_evidence_chooses_the_planted_number_of_latents(plant: Plant) -> None:
    data = plant(n_dates=23)
    choice = choose_vae(
        data.features,
        data.mask,
        n_factors=[3, 1, 2],
        spec=VAESpec(hidden_sizes=(8,)),
        training=VAETraining(n_epochs=15, dates_per_batch=4),
        train=slice(0, 13),
        validation=slice(13, 23),
    )
    assert choice.best.spec.n_factors == 2
    assert choice.table["n_factors"].to_numpy().tolist() == [1, 2, 3]
    evidence = choice.table["validation"].to_numpy()
    assert evidence[1] - evidence[0] > 0.5
    assert choice.table["active"].to_numpy()[:2].tolist() == [1, 2]
    exact = fit_ppca(data.features, data.mask, n_factors=2, train=slice(0, 13))
    truth = float(exact.score(data.features[13:], data.mask[13:]).mean())
    assert float(evidence[1]) == pytest.approx(truth, abs=0.05)


def test_more_latents_than_directions_start_without_them(plant: Plant) -> None:
    data = plant(n_features=3)
    spec = VAESpec(n_factors=5, hidden_sizes=(5,))
    fit = fit_vae(data.features, data.mask, spec=spec, training=QUICK, **SPANS)
    assert fit.active_units.to_numpy()[:2].all()
    assert not fit.active_units.to_numpy()[2:].any()


# ---- storage and bad input -----------------------------------------------------------------------


def test_stored_tensors_give_the_fit_back_without_pickle(plant: Plant, trained: Any) -> None:
    data = plant()
    fit = trained(data)
    buffer = io.BytesIO()
    torch.save(fit.as_dict(), buffer)
    buffer.seek(0)
    back = VAEFit.from_dict(torch.load(buffer, weights_only=True))
    assert back.apply(data.features).identical(fit.apply(data.features))
    assert back.history.identical(fit.history)
    assert (back.spec, back.train, back.seed) == (fit.spec, fit.train, fit.seed)
    np.testing.assert_array_equal(back.posterior_variance, fit.posterior_variance)


def test_bad_arguments_are_refused(plant: Plant, trained: Any) -> None:
    data = plant()
    with pytest.raises(SplitError, match="train and validation must not share dates"):
        fit_vae(data.features, data.mask, spec=SMALL, train=slice(0, 9), validation=slice(8, 17))
    empty = data.mask.copy(deep=True)
    empty[13:] = False
    with pytest.raises(SplitError, match="validation must hold at least one row"):
        fit_vae(data.features, empty, spec=SMALL, training=QUICK, **SPANS)
    still = data.features.copy(deep=True)
    still[..., 2] = 1.5
    with pytest.raises(PanelError, match="got constants at f2"):
        fit_vae(still, data.mask, spec=SMALL, training=QUICK, **SPANS)
    infinite = data.features.copy(deep=True)
    infinite[14, :, 2] = np.inf
    with pytest.raises(PanelError, match="inf cells at f2 A"):
        fit_vae(infinite, data.mask, spec=SMALL, training=QUICK, **SPANS)
    with pytest.raises(SpecError, match="draws must be >= 1"):
        trained(data).score(data.features, draws=0)
    with pytest.raises(PanelError, match="the 7 of the fit, in its order; got 6, without f6"):
        trained(data).apply(data.features[..., :6])
    with pytest.raises(SpecError, match=r"spec.n_features must be the number of features"):
        VAE(SMALL)
    with pytest.raises(ValidationError, match="hidden_sizes must be positive"):
        VAESpec(hidden_sizes=())


def test_features_that_were_not_standardised_are_named(plant: Plant) -> None:
    data = plant()
    odd = data.features.copy(deep=True)
    odd[..., 4] *= 1000.0
    with pytest.warns(UserWarning, match="at f4 and 1 such features"):
        fit_vae(odd, data.mask, spec=SMALL, training=QUICK, **SPANS)


def test_a_loss_that_is_no_number_stops_training(plant: Plant) -> None:
    data = plant()
    training = VAETraining(n_epochs=9, dates_per_batch=2, learning_rate=1e20)
    with pytest.raises(NonFiniteLossError, match="the ELBO must be finite; got"):
        fit_vae(data.features, data.mask, spec=SMALL, training=training, **SPANS)
