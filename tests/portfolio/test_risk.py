"""Risk of a portfolio and where it comes from: parts that add up, slopes that are slopes."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from nfi_pyro.errors import SpecError, WeightsError
from nfi_pyro.portfolio import PortfolioRisk, equal_weights, portfolio_risk
from nfi_pyro.posterior import ReturnForecast

BOOKS = [
    {"A0": 0.2, "A1": 0.3, "A2": 0.1, "A5": 0.4},
    {"A0": 1.5, "A3": -0.9, "A6": 0.4},  # leverage and a short
    {"A2": 1e-4},
]


def risk_of(forecast: ReturnForecast, book: Any, **options: Any) -> PortfolioRisk:
    return portfolio_risk(forecast, book, date="2021-05-03", draws=500, **options)


@pytest.mark.parametrize("book", BOOKS)
@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_parts_add_up(request: Any, kind: str, book: dict[str, float]) -> None:
    risk = risk_of(request.getfixturevalue(kind), book)
    sd = risk.standard_deviation
    assert risk.factor_variance + risk.specific_variance == pytest.approx(sd**2, rel=1e-12)
    assert float(risk.asset_contribution.sum()) == pytest.approx(sd, rel=1e-12)
    assert float(risk.factor_contribution.sum()) == pytest.approx(sd, rel=1e-12)
    assert risk.factor_contribution["source"].values.tolist() == ["z0", "z1", "z2", "specific"]
    by_factor = float(risk.factor_contribution[:-1].sum())
    assert by_factor == pytest.approx(risk.factor_variance / sd, rel=1e-12)
    assert bool((risk.factor_contribution > 0).all())
    absent = [name for name in risk.weights["asset"].values if str(name) not in book]
    assert bool((risk.asset_contribution.sel(asset=absent) == 0).all())
    assert "A4" not in risk.weights["asset"].values  # no forecast on this date


@pytest.mark.parametrize("book", BOOKS[:2])
@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_contributions_are_weight_times_slope(
    request: Any, kind: str, book: dict[str, float]
) -> None:
    forecast = request.getfixturevalue(kind)
    risk = risk_of(forecast, book)
    step = 1e-5
    for asset, weight in book.items():
        up, down = (
            risk_of(forecast, {**book, asset: weight + sign * step}).standard_deviation
            for sign in (1, -1)
        )
        slope = (up - down) / (2 * step)
        found = float(risk.asset_contribution.sel(asset=asset))
        assert found == pytest.approx(weight * slope, rel=1e-6, abs=1e-10)


def test_a_portfolios_moments_come_from_the_covariance(gaussian: ReturnForecast) -> None:
    risk = risk_of(gaussian, BOOKS[0])
    covariance = gaussian.covariance("2021-05-03")
    weights = np.array([BOOKS[0].get(str(name), 0.0) for name in covariance.assets])
    assert risk.standard_deviation == pytest.approx(
        np.sqrt(covariance.quadratic(weights)), rel=1e-12
    )
    mean = gaussian.mean.sel(date="2021-05-03", asset=covariance.assets).values
    assert risk.mean == pytest.approx(float(weights @ mean), rel=1e-12)
    assert risk.date == np.datetime64("2021-05-03")
    assert risk.weights.values.tolist() == weights.tolist()


def test_gaussian_measures_are_closed_form(gaussian: ReturnForecast) -> None:
    risk = risk_of(gaussian, BOOKS[0], levels=(0.9, 0.99))
    for level in (0.9, 0.99):
        z = norm.ppf(level)
        var = risk.standard_deviation * z - risk.mean
        es = risk.standard_deviation * norm.pdf(z) / (1 - level) - risk.mean
        assert float(risk.value_at_risk.sel(level=level)) == pytest.approx(var, rel=1e-12)
        assert float(risk.expected_shortfall.sel(level=level)) == pytest.approx(es, rel=1e-12)
    assert bool((risk.standard_error == 0).all())
    assert risk.method == "closed form"


def test_monte_carlo_says_what_it_is_and_how_sure(mixture: ReturnForecast) -> None:
    one, two, other = (risk_of(mixture, BOOKS[0], seed=seed) for seed in (1, 1, 2))
    assert one.method == "Monte Carlo, 500 draws"
    assert one.standard_error.dims == ("measure", "level")
    assert bool((one.standard_error > 0).all())
    assert one.value_at_risk.equals(two.value_at_risk)
    assert not one.value_at_risk.equals(other.value_at_risk)
    assert one.standard_deviation == other.standard_deviation
    assert bool((one.expected_shortfall > one.value_at_risk).all())


def test_risk_is_of_the_last_date_unless_another_is_named(gaussian: ReturnForecast) -> None:
    assert portfolio_risk(gaussian, {"A4": 1.0}).date == np.datetime64("2021-05-04")
    with pytest.raises(WeightsError, match=r"must have a forecast on the date; got none for A4"):
        risk_of(gaussian, {"A4": 1.0})
    with pytest.raises(SpecError, match=r"must be one of the forecast's; got 2021-05-09"):
        portfolio_risk(gaussian, {"A0": 1.0}, date="2021-05-09")


@pytest.mark.parametrize("book", [{}, {"A0": 0.0}])
def test_a_book_without_weight_is_refused(gaussian: ReturnForecast, book: dict[str, float]) -> None:
    with pytest.raises(WeightsError, match=r"must have a weight that is not zero; got none"):
        risk_of(gaussian, book)


def test_an_unknown_asset_is_refused(gaussian: ReturnForecast) -> None:
    with pytest.raises(WeightsError, match=r"must name assets of the forecast; got unknown NOPE"):
        risk_of(gaussian, {"A0": 1.0, "NOPE": 0.1})


def test_a_level_outside_zero_and_one_is_refused(mixture: ReturnForecast) -> None:
    with pytest.raises(SpecError, match=r"strictly between 0 and 1; got 1.5"):
        risk_of(mixture, BOOKS[0], levels=(0.95, 1.5))


def test_the_equal_weight_book_holds_every_asset_with_a_forecast(
    gaussian: ReturnForecast,
) -> None:
    book = equal_weights(gaussian, "2021-05-03")
    assert book.index.tolist() == ["A0", "A1", "A2", "A3", "A5", "A6"]
    assert book.tolist() == [1 / 6] * 6
    assert len(equal_weights(gaussian)) == 7
    assert risk_of(gaussian, book).standard_deviation > 0
    empty = gaussian.data.copy(deep=True)
    empty["entered"].values[0] = False
    with pytest.raises(WeightsError, match=r"at least one asset; got no forecast on 2021-05-03"):
        equal_weights(ReturnForecast(empty), "2021-05-03")


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        ("excess", "leaves out the benchmark's own risk"),
        ("rank", "a rank has no unit of money"),
        ("parsec", "its unit is not known"),
    ],
)
def test_only_forecasts_of_returns_have_a_risk(
    gaussian: ReturnForecast, unit: str, reason: str
) -> None:
    relative = ReturnForecast(gaussian.data.assign_attrs(unit=unit))
    with pytest.raises(
        SpecError, match=f"labels of unit '{unit}': .*{reason}.* Build the panel with a label"
    ):
        risk_of(relative, BOOKS[0])
    with pytest.raises(SpecError, match="portfolio risk must be in return units"):
        relative.portfolio(BOOKS[0], "2021-05-03")
