"""The law of a portfolio: closed form for one component, honest Monte Carlo for several."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.optimize import brentq
from scipy.stats import norm

from nfi_pyro.errors import SpecError, WeightsError
from nfi_pyro.posterior import PortfolioLaw, ReturnForecast

WEIGHTS = {"A0": 0.5, "A1": -0.3, "A3": 0.6, "A4": 0.4}


def exact_components(forecast: ReturnForecast) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weight, mean and deviation of every component of the portfolio's exact mixture.

    Each asset is in one of its components: 2^5 combinations, each of them Gaussian.
    """
    day = forecast.on("2021-05-03")
    w = np.array([WEIGHTS.get(str(name), 0.0) for name in day["asset"].values])
    beta, s = day["beta"].values, day["factor_scale"].values
    own = day["scale"].values ** 2 - (beta**2 @ s**2)[:, None]
    shared = float(np.sum((w @ beta * s) ** 2))
    parts = []
    for chosen in itertools.product(range(own.shape[1]), repeat=len(w)):
        row = np.arange(len(w)), np.array(chosen)
        parts.append(
            (
                day["weight"].values[row].prod(),
                w @ day["loc"].values[row],
                np.sqrt(shared + w**2 @ own[row]),
            )
        )
    weight, mean, sd = (np.array(column) for column in zip(*parts, strict=True))
    return weight, mean, sd


def exact_risk(forecast: ReturnForecast, level: float) -> tuple[float, float]:
    """Return VaR and ES of the exact mixture, by root finding and in closed form."""
    weight, mean, sd = exact_components(forecast)

    def excess(x: float) -> float:
        return float(weight @ norm.cdf((x - mean) / sd)) - (1.0 - level)

    quantile = brentq(excess, -1.0, 1.0, xtol=1e-14)
    a = (quantile - mean) / sd
    below = float(weight @ (mean * norm.cdf(a) - sd * norm.pdf(a)))
    return -quantile, -below / (1.0 - level)


@pytest.fixture(scope="module")
def law(mixture: ReturnForecast) -> PortfolioLaw:
    return mixture.portfolio(WEIGHTS, "2021-05-03")


def test_a_gaussian_portfolio_is_closed_form(gaussian: ReturnForecast) -> None:
    law = gaussian.portfolio(WEIGHTS, "2021-05-03")
    w = np.array([0.5, -0.3, 0.0, 0.6, 0.4])
    mean = float(w @ gaussian.mean.values[0])
    sd = float(np.sqrt(w @ gaussian.covariance("2021-05-03").dense() @ w))
    assert law.is_gaussian
    assert law.mean == pytest.approx(mean, rel=1e-12)
    assert law.standard_deviation == pytest.approx(sd, rel=1e-12)
    for level in (0.9, 0.95, 0.99):
        z = norm.ppf(level)
        var, es = sd * z - mean, sd * norm.pdf(z) / (1 - level) - mean
        assert law.value_at_risk(level) == (pytest.approx(var, rel=1e-12), 0.0)
        assert law.expected_shortfall(level) == (pytest.approx(es, rel=1e-12), 0.0)


def test_monte_carlo_agrees_with_the_gaussian_closed_form(gaussian: ReturnForecast) -> None:
    law = gaussian.portfolio(WEIGHTS)
    n = 200_000
    draws = law.draw(n, np.random.default_rng(11))
    sd = law.standard_deviation
    assert draws.mean() == pytest.approx(law.mean, abs=4 * sd / np.sqrt(n))
    assert draws.std() == pytest.approx(sd, rel=4 / np.sqrt(2 * n))
    quantile = -np.quantile(draws, 0.05)
    density = norm.pdf(norm.ppf(0.05)) / sd
    error = np.sqrt(0.05 * 0.95 / n) / density
    assert law.value_at_risk(0.95)[0] == pytest.approx(quantile, abs=4 * error)
    tail = -draws[draws <= -quantile].mean()
    assert law.expected_shortfall(0.95)[0] == pytest.approx(tail, abs=6 * error)


def test_moments_of_a_mixture_are_those_of_the_exact_mixture(
    mixture: ReturnForecast, law: PortfolioLaw
) -> None:
    weight, mean, sd = exact_components(mixture)
    assert len(weight) == 32
    assert weight.sum() == pytest.approx(1.0, abs=1e-12)
    first = float(weight @ mean)
    variance = float(weight @ (sd**2 + (mean - first) ** 2))
    assert not law.is_gaussian
    assert law.mean == pytest.approx(first, rel=1e-10)
    assert law.standard_deviation == pytest.approx(np.sqrt(variance), rel=1e-10)
    assert law.factor_variance + law.specific_variance == pytest.approx(variance, rel=1e-10)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_monte_carlo_risk_is_within_its_error_of_the_exact_mixture_and_the_error_is_honest(
    mixture: ReturnForecast, law: PortfolioLaw, level: float
) -> None:
    n_seeds, draws = 60, 4_000
    exact = exact_risk(mixture, level)
    for measure, wanted in zip((law.value_at_risk, law.expected_shortfall), exact, strict=True):
        found = np.array([measure(level, draws=draws, seed=seed) for seed in range(n_seeds)])
        spread = found[:, 0].std(ddof=1)
        claimed = np.sqrt(np.square(found[:, 1]).mean())
        # A standard deviation over 60 seeds has a relative error of 1 / sqrt(118) = 9 percent; the
        # order statistics at level .99 (40 draws in the tail) vary by as much again.
        assert claimed == pytest.approx(spread, rel=0.45)
        standard = (found[:, 0] - wanted) / claimed
        assert np.abs(standard).max() < 4.0
        assert abs(standard.mean()) < 4.0 / np.sqrt(n_seeds) + 0.25  # a bias of order 1 / draws


def test_risk_of_the_default_number_of_draws_is_within_four_errors(
    mixture: ReturnForecast, law: PortfolioLaw
) -> None:
    for level in (0.95, 0.99):
        var, es = exact_risk(mixture, level)
        found, error = law.value_at_risk(level)
        assert 0 < error < 0.02 * var
        assert found == pytest.approx(var, abs=4 * error)
        found, error = law.expected_shortfall(level)
        assert 0 < error < 0.02 * es
        assert found == pytest.approx(es, abs=4 * error)


def test_monte_carlo_measures_are_the_quantile_and_the_mean_beyond_it(law: PortfolioLaw) -> None:
    losses = np.sort(-law.draw(1_000, np.random.default_rng(3)))
    threshold = losses[949] + 0.05 * (losses[950] - losses[949])  # position .95 * 999 = 949.05
    found = law.value_at_risk(0.95, draws=1_000, seed=3)[0]
    assert found == pytest.approx(threshold, rel=1e-12)
    found = law.expected_shortfall(0.95, draws=1_000, seed=3)[0]
    assert found == pytest.approx(losses[950:].mean(), rel=1e-12)


def test_a_seed_gives_the_same_risk(law: PortfolioLaw) -> None:
    one, two, other = (law.value_at_risk(0.95, draws=500, seed=seed) for seed in (1, 1, 2))
    assert one == two
    assert one != other


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_risk_level_must_be_a_probability(law: PortfolioLaw, level: float) -> None:
    for measure in (law.value_at_risk, law.expected_shortfall):
        with pytest.raises(SpecError, match=rf"strictly between 0 and 1; got {level}"):
            measure(level)


# ---- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "as_type",
    [dict, pd.Series, lambda w: xr.DataArray(list(w.values()), {"asset": list(w)}, "asset")],
)
def test_weights_of_every_kind_are_aligned_by_name(
    mixture: ReturnForecast, law: PortfolioLaw, as_type: Any
) -> None:
    turned = dict(reversed(WEIGHTS.items()))
    found = mixture.portfolio(as_type(turned), "2021-05-03")
    np.testing.assert_array_equal(found.weights, [0.5, -0.3, 0.0, 0.6, 0.4])
    assert found.mean == law.mean


def test_bad_weights_are_refused(mixture: ReturnForecast) -> None:
    with pytest.raises(WeightsError, match=r"must name assets of the forecast; got unknown B1, B2"):
        mixture.portfolio({"A0": 1.0, "B1": 0.0, "B2": 1.0})
    with pytest.raises(WeightsError, match=r"must have one weight; got several at A1"):
        mixture.portfolio(pd.Series([1.0, 2.0], index=["A1", "A1"]))
    with pytest.raises(WeightsError, match=r"must be finite numbers; got others at A0, A2"):
        mixture.portfolio({"A0": float("inf"), "A1": 1.0, "A2": float("nan")})


def test_a_weight_on_an_asset_without_a_forecast_is_refused(mixture: ReturnForecast) -> None:
    data = mixture.data.copy(deep=True)
    data["entered"].values[0, 3] = False
    gone = ReturnForecast(data)
    with pytest.raises(WeightsError, match=r"must have a forecast on the date; got none for A3"):
        gone.portfolio(WEIGHTS, "2021-05-03")
    kept = gone.portfolio({**WEIGHTS, "A3": 0.0}, "2021-05-03")
    assert kept.assets.tolist() == ["A0", "A1", "A2", "A4"]
    assert gone.portfolio(WEIGHTS, "2021-05-04").assets.tolist()[3] == "A3"


def test_specific_variance_is_the_stored_one_when_factors_dominate(
    gaussian: ReturnForecast,
) -> None:
    """Taking the factors out of a float32 marginal would leave rounding in its place."""
    data = gaussian.data.astype("float32", keep_attrs=True)
    data = data.assign(entered=gaussian.data["entered"], beta=data["beta"] * 1e4)
    shared = (data["beta"] ** 2 * data["factor_scale"] ** 2).sum("factor")
    scale = (shared + data["specific_variance"]) ** 0.5
    dominated = ReturnForecast(data.assign(scale=scale.expand_dims(component=1, axis=-1)))
    law = dominated.portfolio({str(name): 0.1 for name in law_assets(dominated)})
    kept = dominated.on()["entered"].values
    expected = 0.01 * dominated.on()["specific_variance"].values[kept].astype(np.float64).sum()
    assert law.specific_variance == pytest.approx(expected, rel=1e-6)


def law_assets(forecast: ReturnForecast) -> np.ndarray:
    day = forecast.on()
    return day["asset"].values[day["entered"].values]


def test_weights_without_names_are_refused(gaussian) -> None:
    with pytest.raises(WeightsError, match="which asset each is of; got a list"):
        gaussian.portfolio([0.5, 0.5])
