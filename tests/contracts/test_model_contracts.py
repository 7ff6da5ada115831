"""What every model of the catalogue keeps, whatever it is made of."""

import copy
import io
import random
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch

from nfi_pyro.catalogue import MODELS, find_model
from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.distributions import FactorMixture
from nfi_pyro.distributions.heads import HeadSpec
from nfi_pyro.errors import SpecError
from nfi_pyro.svi import PricingModel, evaluate_objective
from nfi_pyro.svi.protocol import head_posterior

DATES, ASSETS, FEATURES, LAGS = 7, 5, 11, 2
SMALL = {
    "n_features": FEATURES,
    "lags": LAGS,
    "projection_size": 13,
    "hidden_size": 3,
    "n_factors": 2,
    "n_portfolios": 17,
    "n_exposures": FEATURES,
    "alpha_hidden_size": 19,
    "prior_hidden_size": 23,
}


Case = tuple[str, str | None, str]
HEADS = {"low_rank": HeadSpec(kind="low_rank", rank=3), "full": HeadSpec(kind="full")}


def cases() -> list[Case]:
    """Return every model, once for each value of its spec's ``variant``, and with random heads."""
    found: list[Case] = []
    for name, entry in MODELS.items():
        fields = entry.spec_class().model_fields
        variants = get_args(fields["variant"].annotation) if "variant" in fields else (None,)
        found += [(name, variant, "point") for variant in variants]
        if "heads" in fields:
            found += [(name, variants[0], "low_rank"), (name, variants[-1], "full")]
    return found


@pytest.fixture(params=cases(), ids=lambda case: "-".join(filter(None, case)))
def build(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a builder of the small model of one case, float64."""
    name, variant, heads = request.param
    entry = MODELS[name]
    spec_class = entry.spec_class()
    values: dict[str, Any] = {k: v for k, v in SMALL.items() if k in spec_class.model_fields}
    if variant is not None:
        values["variant"] = variant
    if heads in HEADS:
        values["heads"] = HEADS[heads]
    spec = spec_class.model_validate(values)

    def make(seed: int = 1) -> Any:
        return entry.model_class()(spec, seed=seed).double()

    return make


def learned(model: Any) -> dict[str, torch.Tensor]:
    """Return the parameters that training moves: not layers whose weights are random."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def terms_of(model: Any, batch: PanelBatch, outcome: Outcome) -> Any:
    with torch.random.fork_rng(devices=[]):
        return evaluate_objective(model, model.context(batch), outcome)


def arrays_of(law: FactorMixture) -> dict[str, torch.Tensor]:
    return {
        name: getattr(law, name).detach()
        for name in ("logits", "loc", "scale", "beta", "factor_loc", "factor_scale")
    }


def assert_laws_close(one: FactorMixture, two: FactorMixture) -> None:
    for (name, own), other in zip(arrays_of(one).items(), arrays_of(two).values(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-11, atol=1e-13, msg=name)


def test_it_follows_the_protocol_and_its_name(build) -> None:
    model = build()
    assert isinstance(model, PricingModel)
    assert find_model(model.name).model_class() is type(model)
    assert isinstance(model.spec, find_model(model.name).spec_class())


def test_the_elbo_is_finite_and_deterministic(build, make_batch) -> None:
    model, (batch, outcome) = build(), make_batch()
    one, two = terms_of(model, batch, outcome), terms_of(model, batch, outcome)
    assert torch.isfinite(one.loss)
    assert torch.isfinite(one.elbo)
    assert torch.isfinite(one.kl).all()
    assert (one.kl >= 0).all()
    assert torch.equal(one.loss, two.loss)


def test_gradient_reaches_every_parameter(build, make_batch) -> None:
    model, (batch, outcome) = build(), make_batch()
    terms_of(model, batch, outcome).loss.backward()
    assert head_posterior(model) is None or len(learned(model)) < len(list(model.parameters()))
    for name, parameter in learned(model).items():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


def test_gradient_of_the_loss_is_its_slope(build, make_batch) -> None:
    model, (batch, outcome) = build(), make_batch()
    generator = torch.Generator().manual_seed(0)
    parameters = list(learned(model).values())
    directions = [
        torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters
    ]
    terms_of(model, batch, outcome).loss.backward()
    grads = [p.grad for p in parameters if p.grad is not None]
    slope = sum(float((g * d).sum()) for g, d in zip(grads, directions, strict=True))
    step, values = 1e-6, []
    for sign in (1, -1):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for p, d in zip(learned(moved).values(), directions, strict=True):
                p += sign * step * d
        values.append(float(terms_of(moved, batch, outcome).loss.detach()))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_permuting_assets_permutes_outputs(build, make_batch) -> None:
    model, (batch, outcome) = build(), make_batch()
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = PanelBatch(
        batch.features[:, order], batch.tradable[:, order], batch.date_index, batch.n_dates
    )
    shuffled_outcome = Outcome(outcome.forward_return[:, order], outcome.observed[:, order])
    before, after = model.law(model.context(batch)), model.law(model.context(shuffled))
    expected = FactorMixture(
        before.logits[:, order],
        before.loc[:, order],
        before.scale[:, order],
        before.beta[:, order],
        before.factor_loc,
        before.factor_scale,
    )
    assert_laws_close(after, expected)
    one, two = terms_of(model, batch, outcome), terms_of(model, shuffled, shuffled_outcome)
    torch.testing.assert_close(one.loss, two.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(one.kl, two.kl, rtol=1e-10, atol=1e-14)


def test_unobserved_returns_do_not_matter(build, make_batch) -> None:
    model, (batch, outcome) = build(), make_batch()
    assert not outcome.observed.all()
    filled = torch.where(outcome.observed, outcome.forward_return, 1e5)
    one = terms_of(model, batch, outcome)
    two = terms_of(model, batch, Outcome(filled, outcome.observed))
    assert torch.equal(one.loss, two.loss)


def test_an_asset_that_is_not_there_is_as_good_as_absent(build, make_batch) -> None:
    model, (batch, outcome) = build(), make_batch(missing=False)
    tradable = batch.tradable.clone()
    tradable[:, 4] = False
    observed = outcome.observed & tradable
    with_it = PanelBatch(batch.features, tradable, batch.date_index, batch.n_dates)
    without = PanelBatch(batch.features[:, :4], tradable[:, :4], batch.date_index, batch.n_dates)
    one = terms_of(model, with_it, Outcome(outcome.forward_return, observed))
    two = terms_of(model, without, Outcome(outcome.forward_return[:, :4], observed[:, :4]))
    torch.testing.assert_close(one.loss, two.loss, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n_assets", [1, 2, 131])
def test_any_number_of_assets(build, make_batch, n_assets: int) -> None:
    model, (batch, outcome) = build(), make_batch(n_assets=n_assets)
    terms = terms_of(model, batch, outcome)
    terms.loss.backward()
    assert torch.isfinite(terms.loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.law(model.context(batch)).marginal().batch_shape == (DATES, n_assets)


@pytest.mark.parametrize("n_dates", [1, 2, 23])
def test_any_number_of_dates(build, make_batch, n_dates: int) -> None:
    model, (batch, outcome) = build(), make_batch(n_dates=n_dates)
    assert torch.isfinite(terms_of(model, batch, outcome).loss)
    assert model.law(model.context(batch)).marginal().batch_shape == (n_dates, ASSETS)


def test_a_date_is_priced_alike_alone_and_in_a_block(build, make_batch) -> None:
    model, (batch, _) = build(), make_batch()
    whole = arrays_of(model.law(model.context(batch)))
    alone = PanelBatch(batch.features[3 : 3 + LAGS], batch.tradable[3:4], torch.tensor([3]), DATES)
    for name, value in arrays_of(model.law(model.context(alone))).items():
        torch.testing.assert_close(value[0], whole[name][3], rtol=1e-11, atol=1e-13, msg=name)


def test_same_seed_same_weights_and_no_global_generator_touched(build) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]  # noqa: NPY002
    one, two, other = build(seed=3), build(seed=3), build(seed=4)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]  # noqa: NPY002
    assert random.getstate() == before[2]
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    if one.name == "linear_factor":
        return  # nothing in it starts at random
    assert any(
        not torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
    )


def test_single_and_double_precision_agree(build, make_batch) -> None:
    model, (batch, outcome) = build(), make_batch()
    narrow = copy.deepcopy(model).float()
    small_batch = PanelBatch(
        batch.features.float(), batch.tradable, batch.date_index, batch.n_dates
    )
    small_outcome = Outcome(outcome.forward_return.float(), outcome.observed)
    wide, single = terms_of(model, batch, outcome), terms_of(narrow, small_batch, small_outcome)
    assert wide.loss.dtype == torch.float64
    assert single.loss.dtype == torch.float32
    if head_posterior(model) is None:  # random heads are drawn by another stream in each
        assert float(single.loss.detach()) == pytest.approx(float(wide.loss.detach()), rel=1e-4)
    for name, value in arrays_of(narrow.law(narrow.context(small_batch))).items():
        assert value.dtype == torch.float32, name


def test_a_deep_copy_is_equal_and_apart(build, make_batch) -> None:
    model, (batch, outcome) = build(), make_batch()
    twin = copy.deepcopy(model)
    before = terms_of(model, batch, outcome).loss
    assert torch.equal(before, terms_of(twin, batch, outcome).loss)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter += 0.1
    assert torch.equal(before, terms_of(model, batch, outcome).loss)
    assert not torch.equal(before, terms_of(twin, batch, outcome).loss)


def test_weights_survive_a_file_that_holds_tensors_only(build, make_batch) -> None:
    model, (batch, outcome) = build(seed=1), make_batch()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = build(seed=2)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(terms_of(model, batch, outcome).loss, terms_of(other, batch, outcome).loss)


def test_an_unknown_model_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(SpecError, match=r"must be one of .*factor_vae.*; got 'factor-vae'"):
        find_model("factor-vae")
