"""Slopes of a portfolio's measures by weight: finite differences, sums, exact tails."""

from typing import Any

import numpy as np
import pytest

from nfi_pyro.attribution.results.contributions import WeightAttribution
from nfi_pyro.attribution.risk.risk_contributions import risk_contributions
from nfi_pyro.attribution.risk.weight_attribution import TARGETS, weight_attribution
from nfi_pyro.errors import SpecError, WeightsError
from nfi_pyro.posterior import ReturnForecast
from tests.attribution.contribution_maker import exact_tail, make_forecast

BOOK = {"A0": 1.5, "A3": -0.9, "A6": 0.4}
CLOSED = ("mean", "variance", "standard_deviation", "sharpe")
TAILS = ("value_at_risk", "expected_shortfall")


def attribute(
    forecast: ReturnForecast, book: Any, target: str, **options: Any
) -> WeightAttribution:
    return weight_attribution(forecast, book, target=target, **({"draws": 2_000} | options))


def differences(forecast: ReturnForecast, target: str, **options: Any) -> np.ndarray:
    """Return central differences of a target by every weight, held or not."""
    names = [str(name) for name in attribute(forecast, BOOK, target).marginal["asset"].values]
    step, found = 1e-6, []
    for name in names:
        up, down = (
            attribute(
                forecast, {**BOOK, name: BOOK.get(name, 0.0) + sign * step}, target, **options
            ).value
            for sign in (1, -1)
        )
        found.append((up - down) / (2 * step))
    return np.array(found)


@pytest.mark.parametrize("dependence", ["factor", "copula"])
@pytest.mark.parametrize("target", CLOSED)
def test_closed_form_slopes_are_slopes(target: str, dependence: str) -> None:
    forecast = make_forecast(2, dependence=dependence)
    options = {"risk_free": 0.0007} if target == "sharpe" else {}
    found = attribute(forecast, BOOK, target, **options)
    want = differences(forecast, target, **options)
    np.testing.assert_allclose(found.marginal, want, rtol=1e-6, atol=2e-8)
    assert found.method == "closed form"
    assert found.value_error == 0.0
    assert not found.marginal_error.any()


@pytest.mark.parametrize("target", TAILS)
def test_slopes_of_a_normal_tail_are_slopes(target: str) -> None:
    forecast = make_forecast(1)
    found = attribute(forecast, BOOK, target)
    want = differences(forecast, target)
    np.testing.assert_allclose(found.marginal, want, rtol=1e-6, atol=1e-8)
    assert found.method == "closed form"


@pytest.mark.parametrize("place", range(2))
def test_slopes_of_a_mixtures_tail_are_the_exact_ones(place: int) -> None:
    """Differences of the exact measure agree with the exact slopes, and those with the draws."""
    forecast, step = make_forecast(2), 1e-5
    law = forecast.portfolio(BOOK)
    exact = exact_tail(law, 0.95)[place]
    for name in ("A0", "A1"):  # held, and not
        up, down = (
            exact_tail(forecast.portfolio({**BOOK, name: BOOK.get(name, 0.0) + sign * step}), 0.95)[
                place
            ].value
            for sign in (1, -1)
        )
        own = exact.asset[law.assets.tolist().index(name)]
        assert (up - down) / (2 * step) == pytest.approx(own, rel=1e-5)
    found = attribute(forecast, BOOK, TAILS[place], draws=50_000, seed=11)
    assert abs(found.value - exact.value) < 4.0 * found.value_error
    assert np.abs((found.marginal - exact.asset) / found.marginal_error).max() < 4.0
    assert found.method.startswith("Monte Carlo, 50,000 draws")


@pytest.mark.parametrize("dependence", ["factor", "copula"])
@pytest.mark.parametrize("n_components", [1, 2])
@pytest.mark.parametrize("target", TARGETS)
def test_products_add_up_as_the_degree_says(
    target: str, n_components: int, dependence: str
) -> None:
    forecast = make_forecast(n_components, dependence=dependence)
    found = attribute(forecast, BOOK, target)
    degree = {"variance": 2, "sharpe": 0}.get(target, 1)
    assert found.degree == degree
    total = float(found.contribution.sum())
    assert total == pytest.approx(degree * found.value, abs=1e-13)
    assert found.remainder == pytest.approx(0.0, abs=1e-13)
    weights = [BOOK.get(str(name), 0.0) for name in found.marginal["asset"].values]
    np.testing.assert_array_equal(found.contribution, found.marginal * weights)
    units = {"variance": "decimal return squared", "sharpe": "1"}.get(target, "decimal return")
    assert found.units == found.marginal.attrs["units"] == units


def test_a_risk_free_return_is_what_the_ratio_lacks_of_degree_zero() -> None:
    forecast = make_forecast(2)
    found = attribute(forecast, BOOK, "sharpe", risk_free=0.0007)
    deviation = forecast.portfolio(BOOK).standard_deviation
    assert found.remainder == pytest.approx(0.0007 / deviation, rel=1e-12)


def test_products_are_the_contributions_of_assets() -> None:
    forecast = make_forecast(2)
    parts = risk_contributions(forecast, BOOK, draws=2_000, seed=5)
    for target in ("standard_deviation", *TAILS):
        found = attribute(forecast, BOOK, target, seed=5)
        own = parts.by_asset.sel(measure=target).sum("part")
        np.testing.assert_allclose(found.contribution, own, rtol=1e-12, atol=1e-16)
        own = parts.asset_error.sel(measure=target)
        weights = np.abs([BOOK.get(str(name), 0.0) for name in own["asset"].values])
        np.testing.assert_allclose(found.marginal_error * weights, own, rtol=1e-12)


def test_what_cannot_be_attributed_is_refused() -> None:
    forecast = make_forecast(2)
    with pytest.raises(SpecError, match=r"target must be one of mean, variance.*got 'median'"):
        attribute(forecast, BOOK, "median")
    with pytest.raises(SpecError, match=r"risk_free must be finite.*got inf"):
        attribute(forecast, BOOK, "sharpe", risk_free=float("inf"))
    with pytest.raises(SpecError, match=r"strictly between 0 and 1; got 0.0"):
        attribute(forecast, BOOK, "value_at_risk", level=0.0)
    with pytest.raises(WeightsError, match=r"must name assets of the forecast; got unknown NOPE"):
        attribute(forecast, {"NOPE": 1.0}, "mean")
