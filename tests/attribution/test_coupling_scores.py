"""Coupling scores: closed forms, averages over dates, intervals, which fits may be compared."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from nfi_pyro.attribution.couplings.coupling import (
    ZeroHessianWarning,
    coupling_scores,
    law_coupling,
)
from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.diagnostics.block_bootstrap import draw_block_counts
from nfi_pyro.errors import SpecError, SplitError
from nfi_pyro.nets import jets
from nfi_pyro.posterior import draw_fits, pricing_laws
from nfi_pyro.svi import SVIFit
from tests.attribution.coupling_laws import draw, fit_plain, make_law, rectify, simulate
from tests.attribution.small_fits import bend

DATES = 53
BENT: dict[str, Any] = {"n_epochs": 2, "block_size": 7}


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Return 53 dates, 13 assets and 3 exposures; on date 31 a single asset can be traded."""
    made = simulate(7, n_dates=DATES, n_assets=13, n_factors=3, n_features=5).copy(deep=True)
    made["tradable"].values[31, 1:] = False
    return check_panel(made)


@pytest.fixture(scope="module")
def given(panel: Panel) -> list[SVIFit]:
    return [bend(fit_plain("mixture_pricing", panel, seed=seed, **BENT)) for seed in (3, 5, 7)]


@pytest.fixture(scope="module")
def learned(panel: Panel) -> list[SVIFit]:
    return [bend(fit_plain("nfi", panel, seed=seed, **BENT)) for seed in (3, 5)]


def test_a_law_of_known_hessian_has_a_closed_form() -> None:
    """For sin(x0 x1) + 0.7 x1 x2 the Hessian's entries are written out."""
    beta = draw(13, 3)
    law = make_law(lambda x: torch.sin(x[..., 0] * x[..., 1]) + 0.7 * x[..., 1] * x[..., 2], beta)
    x, y, _ = beta.numpy().T
    entry = np.cos(x * y) - x * y * np.sin(x * y)
    sd = beta.numpy().std(axis=0)
    found = law_coupling(law)
    wanted = 0.02 * np.array([np.abs(entry).mean() * sd[0] * sd[1], 0.0, 0.7 * sd[1] * sd[2]])
    np.testing.assert_allclose(found.score, wanted, rtol=1e-12, atol=1e-18)
    signed = 0.02 * np.array([entry.mean() * sd[0] * sd[1], 0.0, 0.7 * sd[1] * sd[2]])
    np.testing.assert_allclose(found.signed_score, signed, rtol=1e-12, atol=1e-18)
    assert abs(signed[0]) < 0.9 * wanted[0]  # the entry changes sign over these assets


def test_scores_do_not_depend_on_the_units_of_exposures() -> None:
    beta, unit = draw(13, 3), torch.tensor([2.0, 5.0, -0.1], dtype=torch.float64)

    def bent(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x[..., 0] * x[..., 1] - 0.3 * x[..., 2])

    one = law_coupling(make_law(bent, beta))
    other = law_coupling(make_law(lambda x: bent(x / unit), beta * unit))
    np.testing.assert_allclose(other.score, one.score, rtol=1e-11)
    np.testing.assert_allclose(other.signed_score, one.signed_score * [1, -1, -1], rtol=1e-11)


def test_scores_are_means_over_dates_largest_first(given: list[SVIFit], panel: Panel) -> None:
    found = coupling_scores(given[0], panel)
    by_hand = []
    for law in pricing_laws(given[0], panel):
        if len(law.beta) < 2:
            continue
        size = law.hessian().abs().mean(0).detach().numpy()
        spread = law.beta.numpy().std(axis=0)
        by_hand.append(size * np.outer(spread, spread))
    wanted = np.mean(by_hand, axis=0)
    for name in found.table["pair"].values:
        first, second = (int(part[1]) for part in name.split(" x "))
        assert float(found.table["score"].sel(pair=name)) == pytest.approx(
            wanted[first, second], rel=1e-12
        )
    assert (np.diff(found.table["score"]) <= 0).all()
    assert float(found.table["score"].min()) > 0
    assert (np.abs(found.table["signed_score"]) <= found.table["score"] * (1 + 1e-12)).all()
    assert found.factors == ("z0", "z1", "z2")
    assert (found.n_dates, found.n_skipped) == (DATES - 1, 1)  # date 31
    assert found.table["score"].attrs["units"] == "decimal return"
    assert found.table.attrs == {"model": "mixture_pricing", "unit": "return"}


def test_dates_can_be_chosen(given: list[SVIFit], panel: Panel) -> None:
    days = [str(day)[:10] for day in panel["date"].values]
    found = coupling_scores(given[0], panel, dates=(days[29], days[37]))
    assert (found.n_dates, found.n_skipped) == (8, 1)
    assert not np.array_equal(found.table["score"], coupling_scores(given[0], panel).table["score"])


def test_one_fit_has_a_block_bootstrap_over_dates(given: list[SVIFit], panel: Panel) -> None:
    found = coupling_scores(given[0], panel, n_resamples=101, seed=5)
    assert found.interval.startswith("95 percent over dates, bootstrap in blocks of 10")
    rows = np.array([law_coupling(law).score for law in pricing_laws(given[0], panel)])
    rows = rows[~np.isnan(rows).any(axis=1)]
    order = np.argsort(-rows.mean(axis=0))
    times = draw_block_counts(len(rows), 10, 101, np.random.default_rng(5))
    bounds = np.quantile(times @ rows[:, order] / len(rows), [0.025, 0.975], axis=0)
    np.testing.assert_allclose(found.table["score_lower"], bounds[0], rtol=1e-12)
    np.testing.assert_allclose(found.table["score_upper"], bounds[1], rtol=1e-12)
    again = coupling_scores(given[0], panel, n_resamples=101, seed=5)
    assert again.table.identical(found.table)
    other = coupling_scores(given[0], panel, n_resamples=101, seed=7)
    assert not other.table.equals(found.table)


def test_several_fits_have_their_range(given: list[SVIFit], panel: Panel) -> None:
    found = coupling_scores(given, panel)
    assert dict(found.by_chain.sizes) == {"chain": 3, "pair": 3}
    for place, fit in enumerate(given):
        own = coupling_scores(fit, panel).table.set_index(pair="pair")
        for name in ("score", "signed_score"):
            wanted = own[name].sel(pair=found.table["pair"]).to_numpy()
            np.testing.assert_array_equal(found.by_chain[name].sel(chain=place), wanted)
    for name in ("score", "signed_score"):
        chains = found.by_chain[name]
        np.testing.assert_array_equal(found.table[f"{name}_lower"], chains.min("chain"))
        np.testing.assert_array_equal(found.table[f"{name}_upper"], chains.max("chain"))
        np.testing.assert_allclose(found.table[name], chains.mean("chain"), rtol=1e-12)
    assert found.interval.startswith("smallest and largest over 3 fits")
    assert found.interval.endswith("probability 0.50")


def test_a_linear_model_has_none_and_does_not_warn(panel: Panel) -> None:
    fit = fit_plain("linear_factor", panel)
    found = coupling_scores(fit, panel)
    for name in ("score", "signed_score", "score_lower", "score_upper"):
        assert np.array_equal(found.table[name], np.zeros(3))
    assert found.table["pair"].values.tolist() == ["z0 x z1", "z0 x z2", "z1 x z2"]


def test_an_activation_without_a_hessian_warns(
    given: list[SVIFit], panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(jets.SMOOTH, "tanh", rectify)
    with pytest.warns(ZeroHessianWarning, match="Hessian of this mixture_pricing is 0 everywhere"):
        found = coupling_scores(given[0], panel)
    assert not found.table["score"].any()


def test_draws_of_one_fit_keep_their_factors(panel: Panel) -> None:
    """Draws of random last layers are chains of a model that learns its exposures."""
    fit = fit_plain("nfi", panel, heads={"kind": "low_rank"})
    found = coupling_scores(draw_fits(fit, draws=3, seed=5), panel)
    assert found.by_chain.sizes["chain"] == 3
    assert (found.table["score_lower"] < found.table["score_upper"]).all()


def test_restarts_of_learned_exposures_are_refused(learned: list[SVIFit], panel: Panel) -> None:
    assert coupling_scores(learned[0], panel).factors == ("z0", "z1", "z2")
    with pytest.raises(SpecError, match="same factors; got restarts of nfi, whose learn"):
        coupling_scores(learned, panel)


def test_what_has_no_coupling_is_refused(
    given: list[SVIFit], learned: list[SVIFit], panel: Panel
) -> None:
    with pytest.raises(SpecError, match="fits must hold at least one fit; got none"):
        coupling_scores([], panel)
    hidden = fit_plain("factor_vae", panel)
    with pytest.raises(SpecError, match="must come from a model that prices exposures; got factor"):
        coupling_scores(hidden, panel)
    with pytest.raises(SpecError, match="one model; got another model, spec at fit 1"):
        coupling_scores([given[0], learned[0]], panel)
    other = replace(given[1], label=given[1].label | {"horizon": 5})
    with pytest.raises(SpecError, match="got another label at fit 1"):
        coupling_scores([given[0], other], panel)
    with pytest.raises(SpecError, match="n_resamples must be from 2 to inf; got 1"):
        coupling_scores(given[0], panel, n_resamples=1)
    with pytest.raises(SpecError, match="seed must be in"):
        coupling_scores(given[0], panel, seed=-1)
    day = str(panel["date"].values[31])[:10]
    with pytest.raises(SpecError, match="some date must have two assets or more; got 1 dates"):
        coupling_scores(given[0], panel, dates=(day, day))
    with pytest.raises(SplitError, match="a date range must hold a date with a full window"):
        coupling_scores(given[0], panel, dates=("2031-01-01", None))


def test_one_factor_cannot_be_coupled() -> None:
    panel = simulate(3, n_dates=29, n_assets=11, n_factors=1, n_features=3)
    fit = fit_plain("neural_factor", panel)
    with pytest.raises(SpecError, match="must have two factors; got 1 in this neural_factor, z0"):
        coupling_scores(fit, panel)
