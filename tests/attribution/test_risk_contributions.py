"""Contributions to risk: parts that add up, exact tails, honest errors, skfolio's numbers."""

import tracemalloc
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import norm
from skfolio.attribution import predicted_factor_attribution

from nfi_pyro.attribution.results.contributions import RiskContributions
from nfi_pyro.attribution.risk.risk_contributions import (
    MEASURES,
    linear_risk_contributions,
    risk_contributions,
)
from nfi_pyro.attribution.risk.risk_slopes import RiskSlopes
from nfi_pyro.attribution.risk.sharpe_contributions import sharpe_contributions
from nfi_pyro.attribution.risk.tail_contributions import sampled_tail_slopes
from nfi_pyro.errors import SpecError, WeightsError
from nfi_pyro.linear_factor import (
    LinearRiskModel,
    cross_sectional_regression,
    factor_covariance,
    linear_risk_model,
    specific_risk,
)
from nfi_pyro.portfolio import equal_weights, portfolio_risk
from nfi_pyro.posterior import ReturnForecast
from nfi_pyro.posterior.portfolio_law import PortfolioLaw
from tests.attribution.contribution_maker import ExactTail, exact_tail, make_forecast

LEVEL = 0.95
BOOKS: list[dict[str, float]] = [
    {"A0": 0.2, "A1": 0.3, "A2": 0.1, "A5": 0.4},
    {"A0": 1.5, "A3": -0.9, "A6": 0.4},  # leverage and a short
]
KINDS: dict[str, dict[str, Any]] = {
    "gaussian": {"n_components": 1},
    "mixture": {"n_components": 2},
    "copula": {"n_components": 2, "dependence": "copula"},
}


def make(kind: str, **changes: Any) -> ReturnForecast:
    return make_forecast(**(KINDS[kind] | changes))


def contributions_of(forecast: ReturnForecast, book: Any, **options: Any) -> RiskContributions:
    return risk_contributions(forecast, book, **({"draws": 2_000, "seed": 3} | options))


# ---- parts add up --------------------------------------------------------------------------------


@pytest.mark.parametrize("book", BOOKS)
@pytest.mark.parametrize("kind", KINDS)
def test_parts_add_up(kind: str, book: dict[str, float]) -> None:
    forecast = make(kind)
    found = contributions_of(forecast, book)
    assert found.contribution.dims == ("measure", "part", "asset", "source")
    assert found.value["measure"].values.tolist() == list(MEASURES)
    whole = found.contribution.sum(("part", "asset", "source"))
    np.testing.assert_allclose(whole, found.value, rtol=0, atol=1e-14)
    for table, dim in ((found.by_source, "source"), (found.by_asset, "asset")):
        np.testing.assert_allclose(table.sum(("part", dim)), found.value, rtol=0, atol=1e-14)
    law = forecast.portfolio(book)
    expected = found.contribution.sel(part="expected").sum(("asset", "source"))
    np.testing.assert_allclose(expected, [0.0, -law.mean, -law.mean], rtol=0, atol=1e-15)
    idle = [name for name in found.contribution["asset"].values if str(name) not in book]
    assert not found.contribution.sel(asset=idle).any()
    shared = ["market", "x1", "x2"] if kind == "copula" else ["z0", "z1", "z2"]
    assert found.contribution["source"].values.tolist() == [*shared, "specific"]


@pytest.mark.parametrize("kind", KINDS)
def test_measures_are_those_of_the_portfolios_risk(kind: str) -> None:
    forecast, book = make(kind), BOOKS[1]
    found = contributions_of(forecast, book)
    risk = portfolio_risk(forecast, book, levels=(LEVEL,), draws=2_000, seed=3)
    assert float(found.value[0]) == risk.standard_deviation
    assert float(found.value[1]) == float(risk.value_at_risk[0])
    assert float(found.value[2]) == pytest.approx(float(risk.expected_shortfall[0]), rel=1e-15)
    np.testing.assert_array_equal(found.value_error[1:], risk.standard_error[:, 0])
    deviation = found.contribution.sel(measure="standard_deviation", part="risk")
    np.testing.assert_allclose(deviation.sum("source"), risk.asset_contribution, rtol=1e-12)
    np.testing.assert_allclose(
        deviation.sum("asset"), risk.factor_contribution, rtol=1e-11, atol=1e-15
    )


def test_measures_can_be_chosen_and_a_deviation_needs_no_draws() -> None:
    forecast = make("mixture")
    found = contributions_of(forecast, BOOKS[0], measures=("standard_deviation",), draws=1)
    assert found.value["measure"].values.tolist() == ["standard_deviation"]
    assert found.level is None
    assert found.methods == {"standard_deviation": "closed form"}
    tail = contributions_of(forecast, BOOKS[0], measures="expected_shortfall")
    assert tail.level == LEVEL
    assert tail.methods == {
        "expected_shortfall": "Monte Carlo, 2,000 draws, 100 beyond the quantile"
    }
    both = contributions_of(forecast, BOOKS[0])
    xr.testing.assert_equal(tail.contribution, both.contribution.sel(measure=tail.value["measure"]))
    assert "a line through the " in both.methods["value_at_risk"]


def test_same_seed_same_numbers() -> None:
    for kind in ("mixture", "copula"):
        one, two, other = (contributions_of(make(kind), BOOKS[0], seed=seed) for seed in (1, 1, 2))
        xr.testing.assert_equal(one.contribution, two.contribution)
        assert not one.contribution.equals(other.contribution)


# ---- closed form ---------------------------------------------------------------------------------


def test_a_normal_portfolio_is_closed_form_and_its_contributions_are_slopes() -> None:
    forecast, book = make("gaussian"), BOOKS[1]
    found = contributions_of(forecast, book)
    assert set(found.methods.values()) == {"closed form"}
    assert not found.value_error.any()
    assert not found.asset_error.any()
    assert not found.source_error.any()
    z = norm.ppf(LEVEL)
    multiples = [1.0, z, norm.pdf(z) / (1.0 - LEVEL)]
    risk = found.contribution.sel(part="risk")
    for row, multiple in zip(risk, multiples, strict=True):
        np.testing.assert_allclose(row, multiple * risk[0], rtol=1e-12, atol=1e-16)
    step = 1e-6
    for asset, weight in book.items():
        up, down = (
            portfolio_risk(forecast, {**book, asset: weight + sign * step}, levels=(LEVEL,))
            for sign in (1, -1)
        )
        for measure in MEASURES:
            slope = float(np.squeeze(getattr(up, measure) - getattr(down, measure))) / (2 * step)
            own = float(found.by_asset.sel(measure=measure, asset=asset).sum())
            assert own == pytest.approx(weight * slope, rel=1e-6, abs=1e-9)


def scale_factor(forecast: ReturnForecast, factor: int, multiple: float) -> PortfolioLaw:
    """Return the law of a book after one factor, mean and scale, is multiplied."""
    data = forecast.data.isel(component=[0]).copy(deep=True)
    before = (data["beta"] ** 2 * data["factor_scale"] ** 2).sum("factor")
    centre = (data["beta"] * data["factor_loc"]).sum("factor")
    for name in ("factor_loc", "factor_scale"):
        data[name][:, factor] *= multiple
    after = (data["beta"] ** 2 * data["factor_scale"] ** 2).sum("factor")
    data["scale"] = (data["scale"] ** 2 + (after - before)) ** 0.5
    data["loc"] = data["loc"] + ((data["beta"] * data["factor_loc"]).sum("factor") - centre)
    return ReturnForecast(data).portfolio(BOOKS[1])


@pytest.mark.parametrize("factor", range(3))
def test_a_factors_contribution_is_the_slope_by_its_multiple(factor: int) -> None:
    forecast = make("gaussian")
    found = contributions_of(forecast, BOOKS[1]).by_source.sum("part").isel(source=factor)
    up, down = (scale_factor(forecast, factor, 1.0 + sign * 1e-6) for sign in (1, -1))
    slopes = [
        (up.standard_deviation - down.standard_deviation) / 2e-6,
        (up.value_at_risk(LEVEL)[0] - down.value_at_risk(LEVEL)[0]) / 2e-6,
        (up.expected_shortfall(LEVEL)[0] - down.expected_shortfall(LEVEL)[0]) / 2e-6,
    ]
    np.testing.assert_allclose(found, slopes, rtol=1e-6, atol=1e-10)


# ---- exact tails ---------------------------------------------------------------------------------


def standardised(law: PortfolioLaw, found: RiskSlopes, exact: ExactTail) -> np.ndarray:
    """Return errors over standard errors: of the measure, assets, factors and the book's part."""
    mean = law.specific_mean + law.beta @ law.factor_loc
    asset, factor = exact.asset + mean, exact.factor + law.factor_loc
    own = exact.value + law.mean - law.exposure @ factor
    found_own = found.value + law.mean - law.exposure @ found.factor
    return np.concatenate(
        [
            [(found.value - exact.value) / found.value_error],
            (found.asset - asset) / found.asset_error,
            (found.factor - factor) / found.factor_error,
            [(found_own - own) / found.own_error],
        ]
    )


def test_the_exact_tail_adds_up() -> None:
    law = make("mixture").portfolio(BOOKS[1])
    for measure in exact_tail(law, LEVEL):
        assert float(law.weights @ measure.asset) == pytest.approx(measure.value, rel=1e-12)


@pytest.mark.parametrize("level", [0.95, 0.3])
def test_slopes_are_the_exact_ones_and_their_errors_honest(level: float) -> None:
    """Errors over standard errors have mean 0 and standard deviation 1 over seeds.

    Those of one seed move together, so bounds are those of 150 independent numbers: the mean
    within 4 / sqrt(150) = 0.33, the root mean square within 1 +- 4 / sqrt(300) = 0.23.
    """
    law = make("mixture").portfolio(BOOKS[1])
    exact = exact_tail(law, level)
    scores: list[list[np.ndarray]] = [[], []]
    for seed in range(150):
        found, _ = sampled_tail_slopes(law, level, draws=4_000, seed=seed)
        for store, slopes, truth in zip(scores, found.values(), exact, strict=True):
            store.append(standardised(law, slopes, truth))
    for store in scores:
        values = np.stack(store)
        assert np.abs(values.mean(axis=0)).max() < 0.33
        size = np.sqrt(np.square(values).mean(axis=0))
        assert size.min() > 0.77
        assert size.max() < 1.23


def test_more_draws_come_closer() -> None:
    law = make("mixture").portfolio(BOOKS[0])
    exact = exact_tail(law, 0.99)
    found, window = sampled_tail_slopes(law, 0.99, draws=400_000, seed=5)
    for slopes, truth in zip(found.values(), exact, strict=True):
        mean = law.specific_mean + law.beta @ law.factor_loc
        np.testing.assert_allclose(slopes.asset, truth.asset + mean, rtol=0, atol=8e-4)
        assert np.abs(standardised(law, slopes, truth)).max() < 4.0
        assert slopes.asset_error.max() < 4e-4
    assert window.n_beyond == 4_000
    assert window.low == pytest.approx(0.99 - 0.01 * 4_000**-0.2, abs=1e-5)
    assert window.high == pytest.approx(0.99 + 0.01 * 4_000**-0.2, abs=1e-5)


def test_shortfall_slopes_are_those_of_its_own_draws() -> None:
    """At common random numbers the mean beyond the quantile moves by the slope, exactly."""
    forecast, book = make("mixture"), BOOKS[0]
    law = forecast.portfolio(book)
    found, _ = sampled_tail_slopes(law, LEVEL, draws=2_000, seed=7)
    slope = found["expected_shortfall"].asset - (law.specific_mean + law.beta @ law.factor_loc)
    step = 1e-4  # draws are single precision
    for place in np.flatnonzero(law.weights):
        name = str(law.assets[place])
        up, down = (
            forecast.portfolio({**book, name: book[name] + sign * step}).expected_shortfall(
                LEVEL, draws=2_000, seed=7
            )[0]
            for sign in (1, -1)
        )
        assert (up - down) / (2 * step) == pytest.approx(slope[place], abs=5e-5)


@pytest.mark.parametrize("dependence", ["factor", "copula"])
def test_draws_of_a_normal_law_agree_with_its_closed_form(dependence: str) -> None:
    law = make("gaussian", dependence=dependence).portfolio(BOOKS[1])
    found, _ = sampled_tail_slopes(law, LEVEL, draws=40_000, seed=1)
    exact = contributions_of(make("gaussian", dependence=dependence), BOOKS[1])
    for name, slopes in found.items():
        by_asset = exact.by_asset.sel(measure=name, part="risk").to_numpy()
        gap = law.weights * slopes.asset - by_asset
        assert np.abs(gap[law.weights != 0.0] / slopes.value_error).max() < 4.0
        by_factor = exact.by_source.sel(measure=name, part="risk").to_numpy()[:-1]
        gap = (law.exposure * slopes.factor - by_factor) / np.abs(law.exposure)
        assert np.abs(gap / np.maximum(slopes.factor_error, 1e-6)).max() < 4.0


def test_copula_slopes_agree_with_plain_joint_draws() -> None:
    """Of all assets, held or not; plain draws have errors of their own."""
    forecast, book = make("copula"), BOOKS[1]
    law = forecast.portfolio(book)
    found, _ = sampled_tail_slopes(law, LEVEL, draws=60_000, seed=2)
    drawn = forecast.sample(200_000, seed=9).to_numpy()
    losses = -drawn @ law.weights
    tail = -drawn[losses >= np.quantile(losses, LEVEL)]
    slopes = found["expected_shortfall"]
    mean = law.specific_mean
    error = np.hypot(slopes.asset_error, 1.5 * tail.std(axis=0) / np.sqrt(len(tail)))
    assert np.abs((slopes.asset - mean - tail.mean(axis=0)) / error).max() < 4.0
    idle = law.weights == 0.0
    assert np.abs(tail.mean(axis=0) + mean)[idle].max() > 10 * slopes.asset_error[idle].max()


@pytest.mark.parametrize("kind", ["mixture", "copula"])
def test_no_array_has_a_number_for_each_draw_and_asset(kind: str) -> None:
    n_assets, draws = 401, 30_000
    forecast = make(kind, n_assets=n_assets)
    book = {f"A{place}": 1.0 / n_assets for place in range(n_assets)}
    law = forecast.portfolio(book)
    tracemalloc.start()
    found, _ = sampled_tail_slopes(law, LEVEL, draws=draws, seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.5 * draws * n_assets * 4
    for slopes in found.values():
        assert float(law.weights @ slopes.asset) == pytest.approx(
            slopes.value + law.mean, abs=1e-13
        )


# ---- skfolio -------------------------------------------------------------------------------------


def compare_with_skfolio(
    found: RiskContributions, theirs: Any, measure: str = "standard_deviation"
) -> None:
    risk = found.contribution.sel(measure=measure, part="risk")
    shared, own = risk[:, :-1], risk[:, -1]
    exact: Any = {"rtol": 0, "atol": 1e-12}
    assert float(found.value[0]) == pytest.approx(theirs.total.vol, abs=1e-12)
    np.testing.assert_allclose(shared.sum("asset"), theirs.factors.vol_contrib, **exact)
    assert float(shared.sum()) == pytest.approx(theirs.systematic.vol_contrib, abs=1e-12)
    assert float(own.sum()) == pytest.approx(theirs.idio.vol_contrib, abs=1e-12)
    np.testing.assert_allclose(risk.sum("source"), theirs.assets.vol_contrib, **exact)
    np.testing.assert_allclose(own, theirs.assets.idio_vol_contrib, **exact)
    np.testing.assert_allclose(shared, theirs.asset_by_factor_contrib.vol_contrib, **exact)


def test_a_linear_forecast_agrees_with_skfolio() -> None:
    forecast, book = make("gaussian"), BOOKS[1]
    law = forecast.portfolio(book)
    found = contributions_of(forecast, book)
    theirs = predicted_factor_attribution(
        law.weights,
        law.beta,
        np.diag(law.factor_scale**2),
        law.specific_variances,
        law.assets,
        ["z0", "z1", "z2"],
        factor_mu=law.factor_loc,
        idio_mu=law.specific_mean,
        annualization_factor=1.0,
    )
    compare_with_skfolio(found, theirs)
    expected = -found.contribution.sel(measure="value_at_risk", part="expected")
    exact: Any = {"rtol": 0, "atol": 1e-14}
    np.testing.assert_allclose(expected[:, :-1].sum("asset"), theirs.factors.mu_contrib, **exact)
    np.testing.assert_allclose(expected.sum("source"), theirs.assets.mu_contrib, **exact)
    np.testing.assert_allclose(expected[:, :-1], theirs.asset_by_factor_contrib.mu_contrib, **exact)


def make_risk_model() -> LinearRiskModel:
    """Return a risk model of a market, three industries and two styles; factors correlate."""
    rng = np.random.default_rng(43)
    n_dates, n_assets = 83, 29
    label = {
        "date": pd.bdate_range("2021-01-04", periods=n_dates),
        "asset": [f"B{place:02d}" for place in range(n_assets)],
    }
    exposures = xr.DataArray(
        rng.normal(size=(n_dates, n_assets, 2)),
        {**label, "factor": ["size", "value"]},
        ("date", "asset", "factor"),
    )
    industries = xr.DataArray(
        np.array(list("abc"))[rng.integers(0, 3, n_assets)], {"asset": label["asset"]}, ("asset",)
    )
    returns = xr.DataArray(
        0.01 * rng.normal(size=(n_dates, 1)) + 0.02 * rng.normal(size=(n_dates, n_assets)),
        label,
        ("date", "asset"),
        attrs={"start_lag": 1, "horizon": 1, "unit": "return"},
    )
    fit = cross_sectional_regression(returns, exposures, industries=industries)
    return linear_risk_model(
        exposures.isel(date=-1, drop=True),
        factor_covariance(fit.factor_returns).covariance,
        specific_risk(fit.specific_returns).variance,
        industries=industries,
    )


def test_a_risk_model_with_correlated_factors_agrees_with_skfolio() -> None:
    model = make_risk_model()
    assets = [str(name) for name in model.exposures["asset"].values]
    weights = pd.Series(np.random.default_rng(47).dirichlet(np.ones(len(assets))), assets)
    weights.iloc[3] = -0.2
    found = linear_risk_contributions(model, weights)
    theirs = predicted_factor_attribution(
        weights.to_numpy(),
        model.exposures.to_numpy(),
        model.factor_covariance.to_numpy(),
        model.specific_variance.to_numpy(),
        assets,
        model.exposures["factor"].to_numpy(),
        annualization_factor=1.0,
    )
    compare_with_skfolio(found, theirs)
    assert found.contribution["source"].values.tolist() == [
        *("market", "a", "b", "c", "size", "value", "specific"),
    ]
    assert found.dependence == "risk model"
    assert found.date is None
    correlation = model.factor_covariance.to_numpy()
    assert np.abs(correlation - np.diag(np.diag(correlation))).max() > 1e-6
    with pytest.raises(WeightsError, match=r"must have a weight that is not zero; got none"):
        linear_risk_contributions(model, {assets[0]: 0.0})


# ---- Sharpe ratio --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("risk_free", [0.0, 0.0007])
def test_parts_of_the_sharpe_ratio_add_up(kind: str, risk_free: float) -> None:
    forecast, book = make(kind), BOOKS[1]
    law = forecast.portfolio(book)
    found = sharpe_contributions(forecast, book, risk_free=risk_free)
    ratio = (law.mean - risk_free) / law.standard_deviation
    assert found.ratio == pytest.approx(ratio, rel=1e-14)
    for table in (found.by_asset, found.by_source):
        total = float(table["contribution"].sum()) + found.risk_free_contribution
        assert total == pytest.approx(ratio, rel=1e-12)
        terms = table["marginal_mean"] + table["marginal_risk"]
        np.testing.assert_allclose(terms, table["marginal"], rtol=1e-14)
    euler = float((found.by_asset["marginal"] * law.weights).sum())
    assert euler == pytest.approx(-found.risk_free_contribution, abs=1e-12)
    euler = float((found.by_source["marginal"] * found.by_source["exposure"]).sum())
    assert euler == pytest.approx(-found.risk_free_contribution, abs=1e-12)


def test_slopes_of_the_sharpe_ratio_are_slopes() -> None:
    forecast, book = make("mixture"), BOOKS[1]
    found = sharpe_contributions(forecast, book, risk_free=0.0007)
    step = 1e-6
    for asset in found.by_asset["asset"].values:
        weight = book.get(str(asset), 0.0)
        up, down = (
            sharpe_contributions(
                forecast, {**book, str(asset): weight + sign * step}, risk_free=0.0007
            ).ratio
            for sign in (1, -1)
        )
        own = float(found.by_asset["marginal"].sel(asset=asset))
        assert own == pytest.approx((up - down) / (2 * step), rel=1e-6, abs=1e-8)
    gaussian = make("gaussian")
    found = sharpe_contributions(gaussian, BOOKS[1])
    for factor in range(3):
        above, below = (scale_factor(gaussian, factor, 1.0 + sign * 1e-6) for sign in (1, -1))
        slope = above.mean / above.standard_deviation - below.mean / below.standard_deviation
        source = found.by_source.isel(source=factor)
        product = float(source["marginal"] * source["exposure"])
        assert product == pytest.approx(slope / 2e-6, rel=1e-6, abs=1e-9)


# ---- errors --------------------------------------------------------------------------------------


def test_what_has_no_contributions_is_refused() -> None:
    forecast = make("mixture")
    for options, message in (
        ({"measures": ("variance",)}, "measures must be among standard_deviation.*got variance"),
        ({"measures": ()}, "at least one; got none"),
        ({"level": 1.0}, "strictly between 0 and 1; got 1.0"),
        ({"draws": 399}, "at least 20 on each side of the level; got 399 at level 0.95. Use 400"),
        ({"level": 0.02, "draws": 999}, "got 999 at level 0.02. Use 1000 or more"),
        ({"seed": -1}, "seed must be in"),
        ({"date": "2021-05-09"}, "must be one of the forecast's; got 2021-05-09"),
    ):
        with pytest.raises(SpecError, match=message):
            contributions_of(forecast, BOOKS[0], **options)
    with pytest.raises(WeightsError, match=r"must have a weight that is not zero; got none"):
        contributions_of(forecast, {"A0": 0.0})
    with pytest.raises(WeightsError, match=r"must have a forecast on the date; got none for A4"):
        contributions_of(forecast, {"A4": 1.0}, date="2021-05-03")
    with pytest.raises(SpecError, match=r"must be in return units; got a forecast of 'rank'"):
        contributions_of(make("mixture", unit="rank"), BOOKS[0])
    with pytest.raises(SpecError, match=r"must know how assets depend on each other"):
        contributions_of(make("mixture", dependence="none"), BOOKS[0])
    with pytest.raises(SpecError, match=r"risk_free must be finite.*got nan"):
        sharpe_contributions(forecast, BOOKS[0], risk_free=float("nan"))


def test_no_weights_are_equal_weights_and_a_list_is_none() -> None:
    forecast = make("mixture")
    assert risk_contributions(forecast, None).value.equals(
        risk_contributions(forecast, equal_weights(forecast)).value
    )
    with pytest.raises(WeightsError, match="which asset each is of; got a list"):
        risk_contributions(forecast, [0.5, 0.5])  # type: ignore[arg-type]
