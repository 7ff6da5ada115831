"""Mining couplings: what the table says, by hand; dates, chains, options, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from nfi_pyro.attribution.couplings.coupling import ZeroHessianWarning, coupling_scores
from nfi_pyro.attribution.couplings.coupling_mining import mine_couplings
from nfi_pyro.attribution.couplings.coupling_products import product_factor
from nfi_pyro.attribution.couplings.friedman import friedman_h_squared
from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.ranking import rank_correlation
from nfi_pyro.diagnostics.scores import hac_standard_error, newey_west_lags
from nfi_pyro.errors import PanelError, SpecError, SplitError
from nfi_pyro.nets import jets
from nfi_pyro.posterior import pricing_laws
from nfi_pyro.svi import SVIFit
from tests.attribution.coupling_laws import fit_plain, plant, rectify, simulate

PAIR = ("z1", "z3")


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Return 307 dates, 41 assets and 5 exposures, with z1 x z3 in the returns."""
    return plant(simulate(5, n_dates=307), PAIR, -0.006)


@pytest.fixture(scope="module")
def linear(panel: Panel) -> SVIFit:
    return fit_plain("linear_factor", panel)


@pytest.fixture(scope="module")
def bent(panel: Panel) -> list[SVIFit]:
    """Return two fits whose alpha is far from converged, and not flat."""
    fits = [fit_plain("neural_factor", panel, seed=seed) for seed in (3, 5)]
    with torch.no_grad():
        for fit in fits:
            fit.model.alpha.readout.weight.mul_(3.0)
    return fits


def late_span(fit: SVIFit) -> tuple[str, str]:
    assert fit.split.test is not None
    return fit.split.test.first, fit.split.test.last


def test_a_linear_law_has_no_scores_and_the_returns_speak(linear: SVIFit, panel: Panel) -> None:
    found = mine_couplings(linear, panel, confirmation=late_span(linear), seed=5)
    table = found.table
    assert found.discovered == (PAIR,)
    assert table["pair"].values[0] == "z1 x z3"
    for name in ("score", "signed_score", "score_upper"):
        assert not table[name].any()
    assert not table["interaction_scale"].round(12).any()
    assert float(table["h_squared"].max()) < 1e-20
    first = table.isel(pair=0)
    assert float(first["p_value"]) == 1.0 / 2000.0
    assert float(first["q_value"]) == pytest.approx(10.0 / 2000.0)
    # the planted product has a standard deviation near 1 before it is standardised
    assert float(first["slope"]) == pytest.approx(-0.006, rel=0.3)
    assert float(first["ic_uplift_lower"]) > 0.05
    assert (np.diff(table["p_value"]) >= 0).all()
    assert (found.n_tested, found.n_untested, found.n_screened) == (10, 0, 0)
    assert found.n_dates == found.slope.sizes["date"] == 44
    assert found.n_skipped == found.n_overlapping == found.n_confirmation_skipped == 0
    np.testing.assert_allclose(found.slope.mean("date"), table["slope"], rtol=1e-12)
    scale = found.slope.std("date", ddof=1) / np.sqrt(44)
    np.testing.assert_allclose(table["slope"] / scale, table["t_statistic"], rtol=1e-10)
    assert {name: table[name].attrs["units"] for name in ("slope", "p_value")} == {
        "slope": "decimal return",
        "p_value": "1",
    }


def test_the_uplift_is_that_of_forecasts_made_by_hand(linear: SVIFit, panel: Panel) -> None:
    """Premia and coefficient come from the validation dates, ranks from the test dates."""
    span, split = late_span(linear), linear.split
    found = mine_couplings(linear, panel, confirmation=span)
    assert found.confirmation is not None
    later = panel.sel(date=slice(*span))
    earlier = panel.sel(date=slice(split.validation.first, split.validation.last))

    def cells(part: Panel) -> tuple[np.ndarray, np.ndarray]:
        beta = part["exposures"].where(part["tradable"])
        gap = (beta - beta.mean("asset")) / beta.std("asset")
        return gap.to_numpy().astype(np.float64), part["forward_return"].to_numpy()

    premia = []
    for beta, label in zip(*cells(earlier), strict=True):
        seen = np.isfinite(label)
        gap = (beta[seen] - beta[seen].mean(axis=0)) / beta[seen].std(axis=0)
        design = np.column_stack([np.ones(seen.sum()), gap])
        premia.append(np.linalg.lstsq(design, label[seen])[0][1:])
    beta, label = cells(later)
    base = beta @ np.mean(premia, axis=0)
    raw = beta[..., 1] * beta[..., 3]
    size = np.full(len(raw), np.nan)
    for row, (one, own) in enumerate(zip(raw, beta, strict=True)):
        kept = np.isfinite(one)
        design = np.column_stack([np.ones(kept.sum()), own[kept][:, [1, 3]]])
        size[row] = (one[kept] - design @ np.linalg.lstsq(design, one[kept])[0]).std()
    slope = float(found.table["slope"].sel(pair="z1 x z3"))
    both = base + slope * size[:, None] * product_factor(later, PAIR).to_numpy()
    linear_ic = rank_correlation(base, label)
    np.testing.assert_allclose(found.confirmation["linear_ic"], linear_ic, atol=1e-12)
    uplift = rank_correlation(both, label) - linear_ic
    own = found.confirmation["ic_uplift"].sel(pair="z1 x z3")
    np.testing.assert_allclose(own, uplift, atol=1e-12)
    mined = found.table.sel(pair="z1 x z3")
    assert float(mined["ic_uplift"]) == pytest.approx(uplift.mean(), abs=1e-12)
    error = hac_standard_error(uplift, newey_west_lags(len(uplift)))
    for side, sign in (("lower", -1.0), ("upper", 1.0)):
        bound = uplift.mean() + sign * 1.959963984540054 * error
        assert float(mined[f"ic_uplift_{side}"]) == pytest.approx(bound, abs=1e-9)
    assert float(mined["n_confirmation_dates"]) == len(uplift)


def test_columns_of_the_law_are_those_of_its_own_functions(
    bent: list[SVIFit], panel: Panel
) -> None:
    found = mine_couplings(bent, panel, seed=7)
    span = bent[0].split.validation
    dates = (span.first, span.last)
    scores = coupling_scores(bent, panel, dates=dates)
    for name in ("score", "signed_score", "score_lower", "score_upper"):
        np.testing.assert_array_equal(
            found.table.set_index(pair="pair")[name],
            scores.table[name].sel(pair=found.table["pair"]),
        )
    assert found.interval == scores.interval
    chosen = found.slope["date"].values[[0, 11, 22, 32, 43]]
    h_squared = []
    for fit in bent:
        laws = [law for law in pricing_laws(fit, panel, dates=dates) if law.date in chosen]
        h_squared.append(friedman_h_squared(laws, [PAIR], seed=7)["h_squared"].values[0])
    wanted = np.mean(h_squared)
    assert float(found.table["h_squared"].sel(pair="z1 x z3")) == pytest.approx(wanted, rel=1e-12)


def test_the_evidence_is_in_the_returns_alone(
    bent: list[SVIFit], linear: SVIFit, panel: Panel
) -> None:
    one, other = mine_couplings(bent[0], panel, seed=5), mine_couplings(linear, panel, seed=5)
    order = one.table["pair"].values
    for name in ("slope", "t_statistic", "own_share"):
        wanted = other.table.set_index(pair="pair")[name].sel(pair=order)
        np.testing.assert_allclose(one.table[name], wanted, rtol=1e-9)


def test_a_seed_says_everything(linear: SVIFit, panel: Panel) -> None:
    one, two = (mine_couplings(linear, panel, seed=5) for _ in range(2))
    assert one.table.identical(two.table)
    other = mine_couplings(linear, panel, seed=7)
    assert not np.array_equal(one.table["p_value"], other.table["p_value"])


def test_without_confirmation_dates_the_test_dates_are_not_read(
    linear: SVIFit, panel: Panel
) -> None:
    spoilt = panel.copy(deep=True)
    after = linear.split.validation.last
    late = panel["date"].values > np.datetime64(after)
    spoilt["forward_return"].values[late] = 7.0
    found = mine_couplings(linear, check_panel(spoilt))
    assert found.table.identical(mine_couplings(linear, panel).table)
    assert found.confirmation is None
    assert "ic_uplift" not in found.table


def test_labels_of_several_days_do_not_overlap(panel: Panel) -> None:
    """Every other date counts; a step that was asked for is kept where it is wide enough."""
    longer = panel.copy(deep=True)
    longer["forward_return"].attrs["horizon"] = 2
    fit = fit_plain("linear_factor", check_panel(longer))
    found = mine_couplings(fit, check_panel(longer))
    days = np.searchsorted(panel["date"].values, found.slope["date"].values)
    assert set(np.diff(days)) == {2}
    assert found.n_overlapping == 43 - len(days) == 21
    first = fit.split.validation.first
    for step, apart in ((3, 3), (1, 2)):
        thinned = mine_couplings(fit, check_panel(longer), discovery=(first, None, step))
        days = np.searchsorted(panel["date"].values, thinned.slope["date"].values)
        assert set(np.diff(days)) == {apart}


def test_the_laws_can_choose_what_is_tested(bent: list[SVIFit], panel: Panel) -> None:
    scores = coupling_scores(
        bent[0], panel, dates=(bent[0].split.validation.first, bent[0].split.validation.last)
    )
    found = mine_couplings(bent[0], panel, n_candidates=3)
    assert set(found.table["pair"].values) == set(scores.table["pair"].values[:3])
    assert (found.n_tested, found.n_screened) == (3, 7)


def test_dates_with_few_assets_are_left_out_and_counted(linear: SVIFit, panel: Panel) -> None:
    sparse = panel.copy(deep=True)
    rows = [int(np.searchsorted(panel["date"].values, np.datetime64(d))) for d in
            (linear.split.validation.first, late_span(linear)[0])]  # fmt: skip
    for row in rows:
        sparse["forward_return"].values[row + 1, 10:] = np.nan  # eleven are enough for 5 factors
        sparse["forward_return"].values[row + 2, 11:] = np.nan
    sparse["forward_return"].values[rows[0] + 5] = 0.01
    found = mine_couplings(linear, check_panel(sparse), confirmation=late_span(linear))
    assert (found.n_dates, found.n_skipped, found.n_confirmation_skipped) == (42, 2, 1)


def test_exclusive_groups_are_not_tested(panel: Panel) -> None:
    grouped = panel.copy(deep=True)
    group = np.arange(41) % 3
    for column in (1, 3):
        given = np.broadcast_to(group == column - 1, panel["tradable"].shape)
        grouped["exposures"].values[..., column] = np.where(panel["tradable"], given, np.nan)
    grouped = check_panel(grouped)
    found = mine_couplings(fit_plain("linear_factor", grouped), grouped)
    assert (found.n_tested, found.n_untested) == (9, 1)
    last = found.table.isel(pair=-1)
    assert str(last["pair"].values) == "z1 x z3"
    assert np.isnan(float(last["p_value"]))
    assert np.isnan(float(last["q_value"]))
    assert not bool(last["discovered"])
    assert float(last["own_share"]) == 0.0
    assert float(last["n_dates"]) == 0.0
    start = int(np.searchsorted(panel["date"].values, found.slope["date"].values[0]))
    own = panel["exposures"].to_numpy()
    grouped["exposures"].values[start : start + 19] = own[start : start + 19]
    found = mine_couplings(fit_plain("linear_factor", grouped), grouped)
    last = found.table.isel(pair=-1)  # 19 dates with a product of its own are one too few
    assert (found.n_untested, float(last["n_dates"]), str(last["first"].values)) == (1, 19.0, "z1")
    assert np.isfinite(float(last["slope"]))


def test_learned_exposures_can_be_mined() -> None:
    panel = simulate(5, n_dates=211)
    fit = fit_plain("nfi", panel)
    found = mine_couplings(fit, panel, confirmation=late_span(fit))
    assert set(found.table["first"].values) | set(found.table["second"].values) == {
        "z0", "z1", "z2"
    }  # fmt: skip
    assert np.isfinite(found.table["ic_uplift"]).all()


def test_an_activation_without_a_hessian_warns(
    bent: list[SVIFit], panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(jets.SMOOTH, "tanh", rectify)
    with pytest.warns(ZeroHessianWarning, match="scores of 0 say nothing"):
        found = mine_couplings(bent[0], panel)
    assert PAIR in found.discovered


def refuse(error: type[Exception], match: str, fits: Any, panel: Panel, **options: Any) -> None:
    with pytest.raises(error, match=match):
        mine_couplings(fits, panel, **options)


def test_returns_of_training_and_shared_returns_are_refused(linear: SVIFit, panel: Panel) -> None:
    split, span = linear.split, late_span(linear)
    days = [str(day)[:10] for day in panel["date"].values]
    start = days.index(split.validation.first)
    refuse(SplitError, "discovery must begin at the first validation date", linear, panel,
           discovery=(days[start - 1], split.validation.last))  # fmt: skip
    refuse(SplitError, "discovery must begin at", linear, panel, discovery=(None, days[-1]))
    late = days.index(split.validation.last) + 2
    refuse(SplitError, "confirmation must begin after the close .* 2 dates after", linear, panel,
           confirmation=(days[late], span[1]))  # fmt: skip
    refuse(SplitError, "confirmation must begin after", linear, panel, confirmation=(None, None))
    assert mine_couplings(linear, panel, confirmation=(days[late + 1], span[1])).discovered
    refuse(SplitError, "a date range must hold", linear, panel, confirmation=("2031-01-01", None))
    refuse(SplitError, "a date range must hold", linear, panel, discovery=("2031-01-01", None))
    refuse(SplitError, "a date range must hold", linear, panel,
           discovery=(days[start], None), confirmation=("2031-01-01", None))  # fmt: skip
    other = panel.copy(deep=True)
    other["forward_return"].attrs["horizon"] = 5
    refuse(PanelError, "label must be the fit's", linear, check_panel(other))


def test_too_few_dates_assets_or_factors_are_refused(linear: SVIFit, panel: Panel) -> None:
    days = [str(day)[:10] for day in panel["date"].values]
    refuse(SpecError, "discovery must have 20 dates with enough assets.*; got 19, and 0",
           linear, panel, discovery=(days[-19], days[-1]))  # fmt: skip
    refuse(SpecError, "confirmation must have 20 dates with enough assets.*; got 19, and 0",
           linear, panel, confirmation=(days[-19], days[-1]))  # fmt: skip
    few = panel.copy(deep=True)
    few["forward_return"].values[:, 10:] = np.nan
    refuse(SpecError, "got 0, and 44 with fewer than 11 observed assets for 5 factors",
           linear, check_panel(few))  # fmt: skip
    wide = simulate(3, n_dates=173, n_assets=37, n_factors=29)
    fit = fit_plain("linear_factor", wide)
    refuse(SpecError, "got 162 for 29 squares and 406 products", fit, wide, n_permutations=4059)
    narrow = simulate(3, n_dates=173, n_assets=11, n_factors=1)
    refuse(SpecError, "a coupling must have two factors; got 1",
           fit_plain("linear_factor", narrow), narrow)  # fmt: skip


def test_options_and_fits_are_checked(bent: list[SVIFit], linear: SVIFit, panel: Panel) -> None:
    hidden = fit_plain("factor_vae", panel)
    refuse(SpecError, "must come from a model that prices exposures", hidden, panel)
    refuse(SpecError, "fits must hold at least one fit", [], panel)
    refuse(SpecError, "one model; got another model, spec at fit 1", [bent[0], linear], panel)
    assert bent[1].split.test is not None
    early = replace(bent[1], split=replace(bent[1].split, validation=bent[1].split.test))
    refuse(SplitError, "discovery must begin", [bent[0], early], panel)
    refuse(SpecError, r"level must be in \(0, 1\); got 1.0", linear, panel, level=1.0)
    refuse(SpecError, "n_permutations must be from 99 to inf; got 98", linear, panel,
           n_permutations=98)  # fmt: skip
    assert mine_couplings(linear, panel, n_permutations=99).discovered == (PAIR,)
    refuse(SpecError, "n_candidates must be from 1 to 10; got 11", bent, panel, n_candidates=11)
    refuse(SpecError, "n_candidates must be at most the pairs with a score above 0; got 3 for 0",
           linear, panel, n_candidates=3)  # fmt: skip
    refuse(SpecError, "seed must be in", linear, panel, seed=-1)
