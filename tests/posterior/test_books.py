"""Books through time: the law's own outcomes are uniform, and nothing unobserved is held."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import kstest, norm

from nfi_pyro.errors import SpecError
from nfi_pyro.posterior import ForecastEnsemble, ReturnForecast, portfolio_outcomes

N_DATES = 150


def repeat(forecast: ReturnForecast, n_dates: int = N_DATES) -> ReturnForecast:
    """Return the forecast's first law on many dates."""
    dates = np.array("2021-01-04", "datetime64[ns]") + np.arange(n_dates) * np.timedelta64(1, "D")
    data = forecast.data.isel(date=np.zeros(n_dates, dtype=int)).assign_coords(date=dates)
    return ReturnForecast(data)


def outcomes_of(forecast: ReturnForecast, seed: int = 0) -> xr.DataArray:
    """Return one joint draw of each date of a forecast."""
    drawn = forecast.sample(forecast.data.sizes["date"], seed=seed)
    return drawn.rename(draw="date").assign_coords(date=forecast.data["date"])


@pytest.mark.parametrize("n_components", [1, 2])
def test_books_of_the_laws_own_outcomes_have_uniform_pits(remake, n_components: int) -> None:
    law = repeat(remake(n_components))
    books = portfolio_outcomes(law, outcomes_of(law), n_random=2, n_holdings=3, draws=2_000)
    assert list(books["portfolio"].values) == ["equal weight", "random 1", "random 2"]
    for book in books["pit"].values:
        assert kstest(book, "uniform").pvalue > 0.01
    scores = norm.ppf(books["pit"].values[0])
    assert scores.std() == pytest.approx(1.0, abs=4.0 / np.sqrt(2 * N_DATES))
    beyond = (-books["forward_return"] > books["value_at_risk"].sel(level=0.95)).mean("date")
    assert (abs(beyond - 0.05) < 4.0 * np.sqrt(0.05 * 0.95 / N_DATES)).all()


def test_half_the_risk_is_seen(remake) -> None:
    law = repeat(remake(2))
    books = portfolio_outcomes(law, 2.0 * outcomes_of(law), n_random=0, draws=2_000)
    assert norm.ppf(books["pit"].values[0]).std() > 1.6


def test_figures_are_those_of_the_portfolio_law(remake) -> None:
    law = remake(1)
    returns = outcomes_of(law)
    books = portfolio_outcomes(law, returns, n_random=0)
    date = law.data["date"].values[1]
    weights = dict.fromkeys(law.data["asset"].values, 0.2)
    own = law.portfolio(weights, date)
    cell = books.sel(portfolio="equal weight", date=date)
    realised = float(returns.sel(date=date).mean())
    assert float(cell["forward_return"]) == pytest.approx(realised)
    assert float(cell["standard_deviation"]) == pytest.approx(own.standard_deviation)
    assert float(cell["value_at_risk"].sel(level=0.99)) == own.value_at_risk(0.99)[0]
    assert float(cell["expected_shortfall"].sel(level=0.99)) == own.expected_shortfall(0.99)[0]
    score = (realised - own.mean) / own.standard_deviation
    assert float(cell["pit"]) == pytest.approx(norm.cdf(score))


def test_draws_agree_with_the_closed_form(remake) -> None:
    law = remake(1)
    returns = outcomes_of(law)
    exact = portfolio_outcomes(law, returns, n_random=1, n_holdings=2)
    pair = ForecastEnsemble((law, law))
    drawn = portfolio_outcomes(pair, returns, n_random=1, n_holdings=2, draws=40_000)
    assert float(abs(exact["pit"] - drawn["pit"]).max()) < 4.0 * 0.5 / 200.0
    np.testing.assert_allclose(
        exact["value_at_risk"].sel(level=0.95), drawn["value_at_risk"].sel(level=0.95), rtol=0.05
    )


def test_unobserved_assets_are_not_held_and_are_counted(remake) -> None:
    law = remake(2)
    returns = outcomes_of(law)
    returns[0, 1:] = np.nan
    returns[1, :] = np.nan
    books = portfolio_outcomes(law, returns, n_random=1, n_holdings=2, draws=500)
    assert books["n_assets"].values.tolist() == [[1, 0], [1, 0]]
    assert books["n_unobserved"].values[0].tolist() == [4, 5]
    assert float(books["forward_return"][0, 0]) == pytest.approx(float(returns[0, 0]))
    assert np.isnan(books["pit"].values[:, 1]).all()


def test_books_are_seeded_and_keep_their_order(remake) -> None:
    law = repeat(remake(2), 3)
    returns = outcomes_of(law)
    one, two, other = (
        portfolio_outcomes(law, returns, n_random=3, n_holdings=2, draws=300, seed=seed)
        for seed in (1, 1, 2)
    )
    xr.testing.assert_identical(one, two)
    assert not one["forward_return"].equals(other["forward_return"])
    # The same law on each date and the same assets there: the same book.
    spread = one["standard_deviation"].std("date")
    assert float(spread.max()) < 1e-12


def test_bad_options_are_refused(remake) -> None:
    law = remake(1)
    returns = outcomes_of(law)
    with pytest.raises(SpecError, match=r"n_holdings >= 1 and draws >= 100; got 1, 0 and 10000"):
        portfolio_outcomes(law, returns, n_random=1, n_holdings=0)
    with pytest.raises(SpecError, match=r"risk level must lie strictly between 0 and 1; got 1"):
        portfolio_outcomes(law, returns, levels=(1.0,))
    with pytest.raises(SpecError, match=r"portfolio risk must know how assets depend"):
        portfolio_outcomes(remake(1, dependence="none"), returns)
