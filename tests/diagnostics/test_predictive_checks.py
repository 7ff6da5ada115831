"""Replicated cross-sections: statistics by hand, a model's own returns, returns made otherwise."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy import stats

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.diagnostics import PredictiveChecks, check_predictions, judge_replicates
from nfi_pyro.diagnostics.cross_sections import (
    STATISTICS,
    SUMMARIES,
    describe_cross_sections,
    summarise_dates,
)
from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.posterior import forecast
from nfi_pyro.posterior.blocks import open_pass
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi


@pytest.fixture(scope="module")
def panel() -> Panel:
    spec = SimulationSpec(
        n_dates=67, n_assets=31, n_features=5, n_factors=2, missing_share=0.05, unobserved_share=0.1
    )
    return simulate_panel(spec, seed=2)[0]


@pytest.fixture(scope="module")
def fit(panel: Panel) -> SVIFit:
    """Return a model whose factors carry about half of the variance."""
    spec = FactorVAESpec(
        n_features=5,
        lags=2,
        projection_size=4,
        hidden_size=4,
        n_factors=3,
        n_portfolios=5,
        alpha_hidden_size=4,
        prior_hidden_size=4,
    )
    config = SVIConfig(n_epochs=1, block_size=7, progress=False, device="cpu")
    fit = fit_svi(FactorVAE(spec), panel, config=config, seed=3)
    with torch.no_grad():
        fit.model.beta.weight.mul_(3.0)
    return fit


def replaced(fit: SVIFit, panel: Panel, **changes: float) -> Panel:
    """Return the panel with returns of the fit's own law: of `size`, or of t-distributed noise."""
    made = panel.copy(deep=True)
    rng = np.random.default_rng(11)
    visit = open_pass(fit, panel, None)
    rows = []
    for _, context, _ in visit.contexts(fit):
        law = fit.model.law(context)
        scale = law.factor_scale.numpy()
        z = law.factor_loc.numpy() + scale * rng.standard_normal(scale.shape)
        noise = rng.standard_normal(law.loc.shape[:2])
        if "freedom" in changes:
            freedom = changes["freedom"]
            noise = rng.standard_t(freedom, noise.shape) * np.sqrt((freedom - 2.0) / freedom)
        own = law.loc[..., 0].numpy() + law.scale[..., 0].numpy() * noise
        shared = np.einsum("dak,dk->da", law.beta.numpy(), z)
        rows.append(own + changes.get("market", 1.0) * shared)
    values = np.concatenate(rows) * fit.return_scale * changes.get("size", 1.0)
    hidden = np.isnan(panel["forward_return"].values[visit.span])
    made["forward_return"].values[visit.span] = np.where(hidden, np.nan, values)
    return check_panel(made)


# ---- statistics ----------------------------------------------------------------------------------


def test_statistics_are_those_of_scipy_over_the_observed_cells() -> None:
    rng = np.random.default_rng(0)
    values = rng.gamma(2.0, 1.0, (3, 7, 11)) - 1.5
    observed = rng.random((7, 11)) > 0.3
    observed[4] = False
    observed[5] = np.arange(11) < 4  # too few
    wild = np.where(observed, values, np.nan)
    found = describe_cross_sections(wild, observed)
    assert found.shape == (len(STATISTICS), 3, 7)
    np.testing.assert_array_equal(np.isnan(found).all((0, 1)), np.isin(np.arange(7), (4, 5)))
    for draw, date in itertools.product(range(3), (0, 1, 2, 3, 6)):
        own = values[draw, date, observed[date]]
        pairs = [a * b for a, b in itertools.permutations(own, 2)]
        want = [own.mean(), own.std(ddof=1), stats.skew(own), stats.kurtosis(own), np.mean(pairs)]
        np.testing.assert_allclose(found[:, draw, date], want, rtol=1e-10, atol=1e-12)


def test_a_date_of_equal_returns_has_no_shape_and_no_spread() -> None:
    found = describe_cross_sections(np.full((1, 6), 0.25), np.ones((1, 6), dtype=bool))
    assert found[1, 0] == 0.0
    assert np.isnan(found[2:4, 0]).all()
    assert found[4, 0] == pytest.approx(0.0625)


def test_summaries_are_means_and_the_markets_own() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((len(STATISTICS), 2, 9))
    values[..., 3] = np.nan
    found = summarise_dates(values)
    assert found.shape == (len(SUMMARIES), 2)
    np.testing.assert_allclose(found[:5], np.nanmean(values, -1), rtol=1e-12)
    market = values[0, 1]
    assert found[5, 1] == pytest.approx(np.nanstd(market, ddof=1))
    size = np.abs(market) - np.nanmean(np.abs(market))
    lagged = np.nanmean(size[1:] * size[:-1])  # six pairs: date 3 takes two away
    assert found[6, 1] == pytest.approx(lagged / np.nanmean(size**2))
    assert np.isnan(summarise_dates(values[..., :1])).all()


# ---- the model's own returns, and others ---------------------------------------------------------


def test_the_models_own_returns_are_usual(fit: SVIFit, panel: Panel) -> None:
    found = check_predictions(fit, replaced(fit, panel), n_draws=200)
    assert found.verdict.grade == "good", found.verdict
    assert found.missed == ()
    assert found.n_dates == 66
    # Dates are independent: the share outside 90 percent bands has an error of 0.037.
    outside = found.outside.sel(source="prior")
    assert float(np.abs(outside - 0.1).max()) < 4.0 * np.sqrt(0.09 / 66)


@pytest.mark.parametrize(
    ("changes", "grade", "missed", "words"),
    [
        (
            {"size": 2.0},
            "bad",
            "cross_sectional_sd",
            "the standard deviation over assets is higher",
        ),
        (
            {"size": 0.5},
            "bad",
            "market_sd",
            "the standard deviation over dates of the mean is lower",
        ),
        (
            {"freedom": 2.5},
            "doubtful",
            "excess_kurtosis",
            "the excess kurtosis over assets is higher",
        ),
        ({"market": 0.1}, "bad", "pairwise_product", "the mean product of two assets is lower"),
    ],
)
def test_returns_of_another_law_are_named_with_their_direction(
    fit: SVIFit, panel: Panel, changes: dict[str, float], grade: str, missed: str, words: str
) -> None:
    found = check_predictions(fit, replaced(fit, panel, **changes), n_draws=200)
    assert found.verdict.grade == grade, found.verdict
    assert words in found.verdict.text
    assert missed in found.missed


def test_posterior_replicates_have_seen_the_returns(fit: SVIFit, panel: Panel) -> None:
    """They follow a market that the prior calls unusual: they are no test of it."""
    found = check_predictions(fit, replaced(fit, panel, market=2.5), n_draws=200)
    market = found.summaries.sel(summary="market_sd")
    assert float(market["p_value"].sel(source="prior")) < 0.02
    off = abs(market["observed"] - market["mean"])
    assert float(off.sel(source="posterior")) < 0.25 * float(off.sel(source="prior"))
    outside = found.outside.sel(statistic="market")
    assert float(outside.sel(source="prior")) > 3.0 * float(outside.sel(source="posterior"))
    width = (found.band.sel(bound=0.95) - found.band.sel(bound=0.05)).sel(statistic="market")
    assert bool((width.sel(source="posterior") < width.sel(source="prior")).all())


def test_units_and_shares_are_those_of_the_forecast(fit: SVIFit, panel: Panel) -> None:
    found = check_predictions(fit, panel, n_draws=100)
    law = forecast(fit, panel).data
    real = panel["forward_return"].sel(date=law["date"]).where(law["entered"])
    np.testing.assert_allclose(found.by_date.sel(statistic="market"), real.mean("asset"), rtol=1e-5)
    shared = ((law["beta"] * law["factor_scale"]) ** 2).sum("factor").where(real.notnull())
    own = law["specific_variance"].where(real.notnull())
    share = shared.sum("asset") / (shared.sum("asset") + own.sum("asset"))
    np.testing.assert_allclose(found.factor_share, share, rtol=1e-5)
    assert 0.05 < float(found.factor_share.mean()) < 0.95


def test_a_seed_gives_the_same_replicates_in_chunks_of_any_size(
    fit: SVIFit, panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, other = (check_predictions(fit, panel, n_draws=100, seed=s) for s in (1, 1, 2))
    xr.testing.assert_identical(one.replicates, two.replicates)
    assert not one.replicates.equals(other.replicates)
    monkeypatch.setattr("nfi_pyro.diagnostics.predictive_checks._CELLS", 1)
    chunked = check_predictions(fit, panel, n_draws=100, seed=1, dates=(None, "2010-01-15"))
    assert chunked.replicates.shape == one.replicates.shape
    assert bool(np.isfinite(chunked.replicates).all())


# ---- judging -------------------------------------------------------------------------------------


def judged(real: np.ndarray, made: np.ndarray) -> PredictiveChecks:
    """Judge market returns (date,) among (draw, date); other statistics are the same in both."""
    dates = pd.bdate_range("2021-01-01", periods=len(real))
    observed = np.tile(real, (len(STATISTICS), 1))
    replicated = np.tile(made, (1, len(STATISTICS), 1, 1))
    return judge_replicates(
        xr.DataArray(
            observed, {"statistic": list(STATISTICS), "date": dates}, ("statistic", "date")
        ),
        xr.DataArray(
            replicated,
            {"source": ["prior"], "statistic": list(STATISTICS), "date": dates},
            ("source", "statistic", "draw", "date"),
        ),
        xr.DataArray(np.full(len(real), 0.5), {"date": dates}, ("date",)),
    )


def test_p_values_count_draws_on_both_sides() -> None:
    rng = np.random.default_rng(3)
    made = rng.standard_normal((199, 30))
    middle = judged(made[np.argsort(made.mean(1))[99]], made)
    row = middle.summaries.sel(source="prior", summary="market")
    assert float(row["p_value"]) == 1.0
    low = judged(made[np.argsort(made.mean(1))[4]], made)
    row = low.summaries.sel(source="prior", summary="market")
    assert float(row["p_value"]) == pytest.approx(2 * 6 / 200)
    far = judged(np.full(30, 9.0) + made[0], made)
    assert float(far.summaries["p_value"].sel(source="prior", summary="market")) == 2 / 200
    assert "the mean over assets is higher than the model's" in far.verdict.text


def test_dates_that_do_not_count_are_left_out_of_both() -> None:
    rng = np.random.default_rng(4)
    real, made = rng.standard_normal(30), rng.standard_normal((100, 30))
    gone = real.copy()
    gone[[0, 7]] = np.nan
    found = judged(gone, made)
    assert (found.n_dates, found.n_left_out) == (28, 2)
    assert np.isnan(found.band.isel(date=[0, 7])).all()
    want = np.delete(made, [0, 7], 1).mean(1)
    np.testing.assert_allclose(
        found.replicates.sel(source="prior", summary="market"), want, rtol=1e-12
    )


@pytest.mark.parametrize("n_dates", [0, 1, 19])
def test_few_dates_allow_no_judgement(n_dates: int) -> None:
    rng = np.random.default_rng(5)
    real = np.where(np.arange(25) < n_dates, rng.standard_normal(25), np.nan)
    found = judged(real, rng.standard_normal((100, 25)))
    assert found.verdict.grade == "unknown"
    assert f"Only {n_dates} dates" in found.verdict.text


def test_wrong_input_is_refused(fit: SVIFit, panel: Panel) -> None:
    with pytest.raises(SpecError, match="n_draws must be >= 100; got 99"):
        check_predictions(fit, panel, n_draws=99)
    rng = np.random.default_rng(6)
    with pytest.raises(SpecError, match="at least 100 draws; got 99"):
        judged(rng.standard_normal(30), rng.standard_normal((99, 30)))
    found = judged(rng.standard_normal(30), rng.standard_normal((100, 30)))
    made = found.band.rename(bound="draw").transpose("source", "statistic", "draw", "date")
    with pytest.raises(ShapeError, match="must have the dimensions"):
        judge_replicates(found.by_date.T, made, found.factor_share)
    with pytest.raises(ShapeError, match=r"of the same dates; got market, .* on 29 dates"):
        judge_replicates(found.by_date, made.isel(date=slice(1, None)), found.factor_share)
    with pytest.raises(SpecError, match="a source of replicates must be 'prior'; got"):
        judge_replicates(found.by_date, made.assign_coords(source=["x"]), found.factor_share)
