"""A mixture of forecasts: exact moments, and every other number against draws of the members."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from nfi_pyro.errors import ShapeError, SpecError, WeightsError
from nfi_pyro.posterior import ForecastEnsemble, PortfolioMixture, ReturnForecast

BOOK = {"A0": 0.5, "A1": 0.3, "A3": -0.4, "A4": 0.2}
DAY = "2021-05-03"


def moved(forecast: ReturnForecast, shift: float, stretch: float) -> ReturnForecast:
    """Return the forecast of ``shift_i + stretch * r_i``, with another shift for each asset."""
    data = forecast.data
    shifts = shift * np.linspace(-1.0, 2.0, data.sizes["asset"])
    found = {name: data[name] * stretch for name in ("scale", "factor_loc", "factor_scale")}
    found["loc"] = data["loc"] * stretch + shifts[:, None]
    found["specific_variance"] = data["specific_variance"] * stretch**2
    return ReturnForecast(data.assign(found))


@pytest.fixture(scope="module")
def ensemble(gaussian: ReturnForecast, mixture: ReturnForecast) -> ForecastEnsemble:
    """Members of one, two and two components that disagree on mean and scale."""
    return ForecastEnsemble((gaussian, mixture, moved(mixture, 0.02, 1.7)))


@pytest.fixture(scope="module")
def normals(gaussian: ReturnForecast) -> ForecastEnsemble:
    return ForecastEnsemble((gaussian, moved(gaussian, 0.03, 0.6)))


def close(one: xr.DataArray, two: xr.DataArray, rtol: float) -> None:
    np.testing.assert_allclose(one.transpose(*two.dims).to_numpy(), two.to_numpy(), rtol=rtol)


# ---- cells ---------------------------------------------------------------------------------------


def test_variances_add_up_and_are_those_of_the_mixture(ensemble: ForecastEnsemble) -> None:
    xr.testing.assert_identical(
        ensemble.variance, ensemble.within_variance + ensemble.between_variance
    )
    means = np.stack([member.mean for member in ensemble.members])
    close(ensemble.between_variance, xr.zeros_like(ensemble.mean) + means.var(0), rtol=1e-12)
    assert (ensemble.between_variance > 1e-7).all()
    law = ensemble.marginal()
    assert law.data.sizes["component"] == 5
    close(law.mean, ensemble.mean, rtol=1e-12)
    close(law.variance, ensemble.variance, rtol=1e-12)
    close(ensemble.standard_deviation**2, ensemble.variance, rtol=1e-12)


def test_probabilities_are_means_of_the_members(ensemble: ForecastEnsemble) -> None:
    value = ensemble.members[0].mean + 0.01
    cdf = np.mean([member.cdf(value) for member in ensemble.members], axis=0)
    density = np.mean([np.exp(m.log_prob(value)) for m in ensemble.members], axis=0)
    close(ensemble.cdf(value), value.copy(data=cdf), rtol=1e-12)
    close(ensemble.log_prob(value), value.copy(data=np.log(density)), rtol=1e-10)
    levels = [0.01, 0.5, 0.9]
    found = ensemble.quantile(levels)
    for level in levels:
        close(ensemble.cdf(found.sel(quantile=level)), xr.full_like(value, level), rtol=1e-7)
    close(ensemble.value_at_risk(0.99), -found.sel(quantile=0.01), rtol=1e-12)


def test_scores_and_tails_are_those_of_draws(ensemble: ForecastEnsemble) -> None:
    n = 300_000
    draws = np.sort(ensemble.sample(n, 3, DAY).to_numpy(), axis=0)
    value = ensemble.mean + 0.02
    truth = value.sel(date=DAY).to_numpy()
    loss = np.abs(draws - truth)
    weight = (2 * np.arange(1, n + 1) - n - 1) / n**2  # E|X - X'| of sorted draws
    crps = loss.mean(0) - (weight[:, None] * draws).sum(0)
    error = 6 * loss.std(0) / np.sqrt(n)
    assert (np.abs(ensemble.crps(value).sel(date=DAY) - crps) < error).all()
    tail = draws[: n // 20]
    error = 6 * draws.std(0) / np.sqrt(n // 20)
    assert (np.abs(ensemble.expected_shortfall(0.95).sel(date=DAY) + tail.mean(0)) < error).all()


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_one_member_is_that_member(name: str, request: pytest.FixtureRequest) -> None:
    member = request.getfixturevalue(name)
    alone = ForecastEnsemble((member,))
    value = member.mean + 0.01
    for one, two in (
        (alone.mean, member.mean),
        (alone.variance, member.variance),
        (alone.cdf(value), member.cdf(value)),
        (alone.log_prob(value), member.log_prob(value)),
        (alone.crps(value), member.crps(value)),
        (alone.quantile([0.05, 0.5]), member.quantile([0.05, 0.5])),
    ):
        close(one, two, rtol=1e-12)
    assert (alone.between_variance == 0.0).all()
    np.testing.assert_allclose(alone.covariance().dense(), member.covariance().dense(), rtol=1e-12)
    law, own = alone.portfolio(BOOK), member.portfolio(BOOK)
    assert law.mean == own.mean
    assert law.standard_deviation == pytest.approx(own.standard_deviation, rel=1e-12)
    found, wanted = law.tail_risks((0.95,), draws=5_000), own.tail_risks((0.95,), draws=5_000)
    np.testing.assert_allclose(found, wanted, rtol=1e-7)


def test_equal_members_disagree_about_nothing(mixture: ReturnForecast) -> None:
    twice = ForecastEnsemble((mixture, mixture))
    assert (twice.between_variance == 0.0).all()
    close(twice.mean, mixture.mean, rtol=1e-12)
    close(twice.quantile(0.05), mixture.quantile(0.05), rtol=1e-9)
    close(twice.crps(mixture.mean), mixture.crps(mixture.mean), rtol=1e-9)
    np.testing.assert_allclose(twice.covariance().dense(), mixture.covariance().dense())
    law = twice.portfolio(BOOK)
    assert law.between_variance == 0.0
    assert law.variance == pytest.approx(mixture.portfolio(BOOK).standard_deviation ** 2)


def test_the_order_of_members_does_not_matter(ensemble: ForecastEnsemble) -> None:
    other = ForecastEnsemble(ensemble.members[::-1])
    close(other.variance, ensemble.variance, rtol=1e-12)
    close(other.quantile(0.1), ensemble.quantile(0.1), rtol=1e-9)
    np.testing.assert_allclose(
        other.covariance().dense(), ensemble.covariance().dense(), atol=1e-15
    )


# ---- joint laws ----------------------------------------------------------------------------------


def test_the_covariance_is_within_plus_between(ensemble: ForecastEnsemble) -> None:
    found = ensemble.covariance(DAY)
    within = np.mean([member.covariance(DAY).dense() for member in ensemble.members], axis=0)
    means = np.stack([member.mean.sel(date=DAY) for member in ensemble.members])
    np.testing.assert_allclose(
        found.dense(), within + np.cov(means, rowvar=False, ddof=0), rtol=1e-10
    )
    np.testing.assert_allclose(np.diag(found.dense()), ensemble.variance.sel(date=DAY), rtol=1e-10)
    assert found.loadings.shape == (5, 3 * 3 + 3)
    book = np.array([BOOK.get(str(asset), 0.0) for asset in found.assets])
    law = ensemble.portfolio(BOOK, DAY)
    assert found.quadratic(book) == pytest.approx(law.variance, rel=1e-10)
    assert law.variance == law.within_variance + law.between_variance
    draws = ensemble.sample(200_000, 5, DAY).to_numpy()
    error = 8 * np.sqrt(2 * np.outer(draws.var(0), draws.var(0)) / len(draws))
    assert (np.abs(np.cov(draws, rowvar=False) - found.dense()) < error).all()


def test_a_portfolio_has_the_law_of_its_assets(ensemble: ForecastEnsemble) -> None:
    law = ensemble.portfolio(BOOK, DAY)
    assert isinstance(law, PortfolioMixture)
    assert not law.is_gaussian
    n = 200_000
    assets = ensemble.sample(n, 5, DAY)
    book = xr.DataArray([BOOK.get(str(a), 0.0) for a in assets["asset"].values], dims="asset")
    brute = (assets * book).sum("asset").to_numpy()
    own = law.draw(n, np.random.default_rng(7))
    for draws in (brute, own):
        assert abs(draws.mean() - law.mean) < 5 * draws.std() / np.sqrt(n)
        assert abs(draws.var() / law.variance - 1.0) < 5 * np.sqrt(6.0 / n)
    (at_risk, error), (shortfall, tail_error) = law.tail_risks((0.95,), draws=n, seed=1)[0]
    assert abs(at_risk + np.quantile(brute, 0.05)) < 6 * error
    assert abs(shortfall + np.sort(brute)[: n // 20].mean()) < 6 * tail_error
    assert law.quantile(0.05, draws=n, seed=1) == pytest.approx((-at_risk, error))


def test_a_portfolio_of_normal_laws_is_exact(normals: ForecastEnsemble) -> None:
    law = normals.portfolio(BOOK)
    assert law.is_gaussian
    assert law.between_variance > 0.1 * law.within_variance
    n = 400_000
    draws = np.sort(law.draw(n, np.random.default_rng(11)))
    for level in (0.95, 0.99):
        (at_risk, error), (shortfall, _) = law.tail_risks((level,))[0]
        assert error == 0.0
        below = (draws <= -at_risk).mean()
        assert abs(below - (1 - level)) < 5 * np.sqrt(level * (1 - level) / n)
        tail = -draws[: round(n * (1 - level))]
        assert abs(shortfall - tail.mean()) < 8 * tail.std() / np.sqrt(len(tail))
        assert law.value_at_risk(level) == (at_risk, 0.0)
        assert law.expected_shortfall(level) == (shortfall, 0.0)


def test_draws_repeat_by_seed_and_are_shared_out_evenly(ensemble: ForecastEnsemble) -> None:
    one, two, other = (ensemble.sample(8, seed) for seed in (1, 1, 2))
    xr.testing.assert_identical(one, two)
    assert not one.equals(other)
    assert one.sizes == {"draw": 8, "asset": 5}
    law = ensemble.portfolio(BOOK)
    generator = np.random.default_rng(0)
    parts = [m.draw(k, generator) for m, k in zip(law.members, (3, 3, 2), strict=True)]
    np.testing.assert_array_equal(law.draw(8, np.random.default_rng(0)), np.concatenate(parts))


def test_cells_that_a_member_lacks_have_no_forecast(
    remake: Callable[..., ReturnForecast], mixture: ReturnForecast
) -> None:
    hidden = remake(2).data.copy(deep=True)
    hidden["entered"].values[:, 1] = False
    for name in ("weight", "loc", "scale", "beta", "specific_variance"):
        hidden[name].values[:, 1] = np.nan
    ensemble = ForecastEnsemble((mixture, ReturnForecast(hidden)))
    for found in (ensemble.mean, ensemble.variance, ensemble.quantile(0.5), ensemble.sample(4, 0)):
        assert np.isnan(found.sel(asset="A1")).all()
        assert np.isfinite(found.drop_sel(asset="A1")).all()
    covariance = ensemble.covariance()
    assert list(covariance.assets) == ["A0", "A2", "A3", "A4"]
    keep = np.array([0, 2, 3, 4])
    np.testing.assert_allclose(
        covariance.dense(), mixture.covariance().dense()[np.ix_(keep, keep)], rtol=1e-12
    )
    with pytest.raises(WeightsError, match="got none for A1"):
        ensemble.portfolio(BOOK)


# ---- bad input -----------------------------------------------------------------------------------


def test_members_of_other_cells_or_labels_are_refused(
    remake: Callable[..., ReturnForecast], mixture: ReturnForecast
) -> None:
    with pytest.raises(SpecError, match="an ensemble must have a member; got none"):
        ForecastEnsemble(())
    with pytest.raises(SpecError, match=r"got another unit \(rank, not return\) in member 1"):
        ForecastEnsemble((mixture, remake(2, unit="rank")))
    with pytest.raises(ShapeError, match=r"same assets .* got 4 of 5 in member 1.* differ in A4"):
        ForecastEnsemble((mixture, remake(2, n_assets=4)))
    late = replace(mixture, data=mixture.data.isel(date=[1]))
    with pytest.raises(ShapeError, match=r"same dates .* got 1 of 2 .* differ in 2021-05-03"):
        ForecastEnsemble((mixture, late))
    turned = replace(mixture, data=mixture.data.isel(asset=slice(None, None, -1)))
    with pytest.raises(ShapeError, match="got 5 of 5 in member 2, which differ in order"):
        ForecastEnsemble((mixture, mixture, turned))


def test_levels_and_missing_dependence_are_refused(
    remake: Callable[..., ReturnForecast], ensemble: ForecastEnsemble
) -> None:
    with pytest.raises(SpecError, match=r"strictly between 0 and 1; got 1\.5"):
        ensemble.quantile(1.5)
    with pytest.raises(SpecError, match="a risk level must lie strictly between 0 and 1; got 0"):
        ensemble.portfolio(BOOK).tail_risks((0.0,))
    alone = ForecastEnsemble((ensemble.members[0], remake(2, dependence="none")))
    assert np.isfinite(alone.mean).all()
    for ask in (alone.covariance, lambda: alone.portfolio(BOOK), lambda: alone.sample(3, 0)):
        with pytest.raises(SpecError, match="must know how assets depend on each other"):
            ask()
    with pytest.raises(SpecError, match="must know how assets depend on each other"):
        ensemble.marginal().covariance()
