"""Minimum-variance hedges: closed form, optimality, regimes by hand and by draws, refusals."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.attribution.risk.hedge import factor_hedge, hedge_with_assets
from nfi_pyro.errors import ShapeError, SpecError, WeightsError
from nfi_pyro.posterior import ReturnForecast
from tests.attribution.contribution_maker import DATES, make_forecast

BOOK = {"A0": 1.5, "A3": -0.9, "A6": 0.4}
DAYS = ["2021-05-03", "2021-05-04", "2021-05-05"]
FACTORS = ["z0", "z1", "z2"]


@pytest.fixture(scope="module")
def forecast() -> ReturnForecast:
    data = make_forecast(2).data.copy(deep=True)
    data["factor_loc"] *= 4.0  # means that move enough for factors to correlate over dates
    return ReturnForecast(data)


def moments(forecast: ReturnForecast, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors' means and covariance of a mixture of dates, summed by hand."""
    loc = forecast.data["factor_loc"].to_numpy()[rows]
    scale = forecast.data["factor_scale"].to_numpy()[rows]
    second = sum(np.diag(s**2) + np.outer(m, m) for m, s in zip(loc, scale, strict=True))
    mean = loc.mean(axis=0)
    return mean, second / len(rows) - np.outer(mean, mean)


# ---- factors of one date -------------------------------------------------------------------------


def test_under_the_law_of_a_date_the_hedge_is_the_exposure(forecast: ReturnForecast) -> None:
    found = factor_hedge(forecast, BOOK, factors=["z2", "z0"])
    law = forecast.portfolio(BOOK)
    assert found.hedged == ("z0", "z2")
    assert found.exposure["date"].values.tolist() == [DATES[-1].item()]
    np.testing.assert_allclose(found.exposure[0], law.exposure, rtol=1e-14)
    np.testing.assert_allclose(found.hedge[0], law.exposure * [1.0, 0.0, 1.0], rtol=1e-12)
    by_factor = (law.exposure * law.factor_scale) ** 2
    before = np.append(by_factor, law.specific_variance)
    np.testing.assert_allclose(found.variance[0, 0], before, rtol=1e-12)
    np.testing.assert_allclose(found.variance[0, 1], before * [0, 1, 0, 1], atol=1e-18)
    left = by_factor[1] + law.specific_variance
    assert float(found.standard_deviation[0, 0]) == pytest.approx(law.standard_deviation)
    assert float(found.standard_deviation[0, 1]) == pytest.approx(np.sqrt(left), rel=1e-12)
    removed = 1.0 - left / law.standard_deviation**2
    assert float(found.r_squared[0]) == pytest.approx(removed, rel=1e-12)
    assert found.variance["source"].values.tolist() == [*FACTORS, "specific"]
    assert found.n_dates is None
    assert found.single_date is None


def test_all_factors_leave_the_specific_variance(forecast: ReturnForecast) -> None:
    found = factor_hedge(forecast, BOOK, dates=(DAYS[1], DAYS[2]))
    assert found.hedge.shape == (2, 3)
    after = found.variance.sel(state="after")
    assert float(np.abs(after.isel(source=slice(3))).max()) < 1e-18
    for place, day in enumerate(DAYS[1:]):
        own = forecast.portfolio(BOOK, day)
        assert float(after[place].sum()) == pytest.approx(own.specific_variance, rel=1e-12)


def test_books_by_date_one_asset_and_equal_weights(forecast: ReturnForecast) -> None:
    weights = xr.DataArray(
        [[0.0, 1.0], [0.5, 0.5]],
        {"date": DATES[1:], "asset": ["A1", "A4"]},
        ("date", "asset"),
    )
    found = factor_hedge(forecast, weights, dates=(DAYS[1], DAYS[2]))
    alone = factor_hedge(forecast, "A4", dates=(DAYS[1], DAYS[1]))
    np.testing.assert_array_equal(found.hedge[0], alone.hedge[0])
    pair = factor_hedge(forecast, {"A1": 0.5, "A4": 0.5}, dates=(DAYS[2], DAYS[2]))
    np.testing.assert_array_equal(found.hedge[1], pair.hedge[0])
    everything = factor_hedge(forecast, None, dates=(DAYS[0], DAYS[0]))
    names = [f"A{place}" for place in (0, 1, 2, 3, 5, 6)]  # A4 has no forecast on this date
    want = factor_hedge(forecast, dict.fromkeys(names, 1 / 6), dates=(DAYS[0], DAYS[0]))
    np.testing.assert_allclose(everything.hedge, want.hedge, rtol=1e-14)


# ---- regimes -------------------------------------------------------------------------------------


def test_a_regimes_law_is_the_mixture_of_its_dates(forecast: ReturnForecast) -> None:
    regimes = pd.Series(["calm", "wild", "calm"], pd.DatetimeIndex(DATES))
    found = factor_hedge(forecast, BOOK, factors=["z1"], regimes=regimes)
    assert found.hedge.dims == ("regime", "date", "factor")
    assert found.n_dates.to_series().to_dict() == {"calm": 2, "wild": 1}  # type: ignore[union-attr]
    assert found.single_date.to_series().to_dict() == {"calm": False, "wild": True}  # type: ignore[union-attr]
    assert found.n_unlabelled == 0
    law = forecast.portfolio(BOOK)
    for name, rows in (("calm", [0, 2]), ("wild", [1])):
        _, covariance = moments(forecast, rows)
        own = found.factor_covariance.sel(regime=name)
        np.testing.assert_allclose(own, covariance, rtol=1e-10, atol=1e-18)
        along = covariance @ law.exposure
        hedge = found.hedge.sel(regime=name)[0]
        np.testing.assert_allclose(hedge, [0.0, along[1] / covariance[1, 1], 0.0], rtol=1e-9)
        left = law.exposure - hedge.to_numpy()
        by_factor = left * (covariance @ left)
        after = found.variance.sel(regime=name, state="after")[0]
        np.testing.assert_allclose(after[:3], by_factor, rtol=1e-9, atol=1e-17)
        assert abs(float(after[1])) < 1e-17  # nothing is left along what is sold
        assert float(after[3]) == pytest.approx(law.specific_variance, rel=1e-12)
    calm = found.hedge.sel(regime="calm", factor="z1")[0]
    assert abs(float(calm) / law.exposure[1] - 1.0) > 0.01  # it hedges what it shares with others


def test_no_other_sale_leaves_less_variance(forecast: ReturnForecast) -> None:
    regimes: dict[Any, object] = dict.fromkeys(DAYS, "all")
    found = factor_hedge(forecast, BOOK, factors=["z0", "z2"], regimes=regimes)
    _, covariance = moments(forecast, [0, 1, 2])
    exposure, hedge = found.exposure[0].to_numpy(), found.hedge[0, 0].to_numpy()
    least = float(found.variance.sel(state="after")[0, 0, :3].sum())
    left = exposure - hedge
    assert least == pytest.approx(left @ covariance @ left, rel=1e-10)
    rng = np.random.default_rng(5)
    for _ in range(50):
        other = left + np.array([1.0, 0.0, 1.0]) * rng.normal(size=3) * 0.1
        assert other @ covariance @ other > least


def test_the_hedge_is_the_regression_on_what_is_sold(forecast: ReturnForecast) -> None:
    """Draws of the mixture, regressed: coefficients within 4 of their standard errors."""
    found = factor_hedge(forecast, BOOK, factors=["z0", "z2"], regimes=dict.fromkeys(DAYS, 1))
    rng = np.random.default_rng(71)
    n = 200_000
    rows = rng.integers(0, 3, n)
    loc = forecast.data["factor_loc"].to_numpy()[rows]
    scale = forecast.data["factor_scale"].to_numpy()[rows]
    z = loc + scale * rng.normal(size=(n, 3))
    law = forecast.portfolio(BOOK)
    y = z @ law.exposure + np.sqrt(law.specific_variance) * rng.normal(size=n)
    design = np.column_stack([np.ones(n), z[:, [0, 2]]])
    inverse = np.linalg.inv(design.T @ design)
    slope = inverse @ design.T @ y
    residual = y - design @ slope
    error = np.sqrt(np.diag(inverse) * residual.var())
    hedge = found.hedge[0, 0, [0, 2]].to_numpy()
    assert np.abs((slope[1:] - hedge) / error[1:]).max() < 4.0
    r_squared = 1.0 - residual.var() / y.var()
    assert float(found.r_squared[0, 0]) == pytest.approx(r_squared, abs=4.0 / np.sqrt(n))


def test_dates_without_a_label_or_an_asset_are_in_no_regime(forecast: ReturnForecast) -> None:
    labels = xr.DataArray([1.0, np.nan, 2.0], {"date": DATES}, ("date",))
    found = factor_hedge(forecast, BOOK, regimes=labels)
    assert found.hedge["regime"].values.tolist() == ["1.0", "2.0"]
    assert found.n_unlabelled == 1
    empty = forecast.data.copy(deep=True)
    empty["entered"][0] = False
    empty["factor_loc"][0] = np.nan
    found = factor_hedge(ReturnForecast(empty), BOOK, regimes=dict.fromkeys(DAYS, "all"))
    assert found.n_unlabelled == 1
    assert found.n_dates.values.tolist() == [2]  # type: ignore[union-attr]
    assert np.isfinite(found.hedge).all()


# ---- assets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dependence", ["factor", "copula"])
@pytest.mark.parametrize("instruments", [["A2"], ["A1", "A3", "A5", "A2", "A4"]])
def test_the_trade_solves_the_dense_problem(dependence: str, instruments: list[str]) -> None:
    forecast = make_forecast(2, dependence=dependence)
    found = hedge_with_assets(forecast, BOOK, instruments)
    law = forecast.portfolio(BOOK)
    dense = law.covariance.dense()
    places = [law.assets.tolist().index(name) for name in instruments]
    want = -np.linalg.solve(dense[np.ix_(places, places)], (dense @ law.weights)[places])
    np.testing.assert_allclose(found.trade, want, rtol=1e-10)
    assert found.trade["asset"].values.tolist() == instruments
    after = law.weights.copy()
    after[places] += want
    total = found.variance.sum("source")
    assert float(total[0]) == pytest.approx(law.standard_deviation**2, rel=1e-12)
    assert float(total[1]) == pytest.approx(after @ dense @ after, rel=1e-10)
    assert float(found.standard_deviation[1]) == pytest.approx(np.sqrt(after @ dense @ after))
    assert found.r_squared == pytest.approx(1.0 - float(total[1] / total[0]), rel=1e-12)
    assert found.gross_turnover == pytest.approx(np.abs(want).sum(), rel=1e-10)
    assert found.net_turnover == pytest.approx(want.sum(), rel=1e-10)
    assert found.dependence == dependence
    # nothing that is left goes with an instrument
    np.testing.assert_allclose((dense @ after)[places], 0.0, atol=1e-12 * dense.max())


def test_whoever_may_sell_the_book_sells_it(forecast: ReturnForecast) -> None:
    found = hedge_with_assets(forecast, BOOK, ["A6", "A0", "A3"])
    np.testing.assert_allclose(found.trade, [-0.4, -1.5, 0.9], rtol=1e-10)
    assert found.r_squared == pytest.approx(1.0, abs=1e-12)
    assert found.gross_turnover == pytest.approx(2.8, rel=1e-10)


def test_many_instruments_at_once() -> None:
    forecast = make_forecast(1, n_assets=307, n_factors=5)
    names = [f"A{place}" for place in range(1, 300)]
    found = hedge_with_assets(forecast, {"A0": 1.0}, names)
    law = forecast.portfolio({"A0": 1.0})
    dense = law.covariance.dense()[1:300, 1:300]
    want = -np.linalg.solve(dense, law.covariance.matvec(law.weights)[1:300])
    np.testing.assert_allclose(found.trade, want, rtol=1e-8, atol=1e-14)


# ---- errors --------------------------------------------------------------------------------------


def test_what_has_no_factors_to_sell_is_refused() -> None:
    copula = make_forecast(2, dependence="copula")
    with pytest.raises(SpecError, match=r"got a copula, whose columns \(market, x1, x2\) are scor"):
        factor_hedge(copula, BOOK)
    with pytest.raises(SpecError, match=r"of factors that assets share; got a forecast whose depe"):
        factor_hedge(make_forecast(2, dependence="none"), BOOK)
    with pytest.raises(SpecError, match=r"must know how assets depend on each other"):
        hedge_with_assets(make_forecast(2, dependence="none"), BOOK, ["A0"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"factors": ["z0", "z9"]}, SpecError, r"factors must be among z0, z1, z2.*got z9"),
        ({"factors": []}, SpecError, r"at least one; got none"),
        ({"dates": ("2021-06-01", None)}, SpecError, r"dates must hold at least one of the fore"),
        ({"dates": "2021-06-01"}, SpecError, r"must be a first and a last date; got '2021-06-01'"),
        (
            {"regimes": {"2020-01-01": "calm"}},
            SpecError,
            r"label for a date of the forecast; got n",
        ),
        (
            {"regimes": pd.Series(["a", "b"], pd.DatetimeIndex([DAYS[0], DAYS[0]]))},
            SpecError,
            r"each date must have one regime; got several on 2021-05-03",
        ),
        (
            {"regimes": xr.DataArray(np.zeros((3, 2)), dims=("date", "asset"))},
            ShapeError,
            r"regimes must have the dimension date alone; got \('date', 'asset'\)",
        ),
    ],
)
def test_bad_options_of_a_factor_hedge(
    forecast: ReturnForecast, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        factor_hedge(forecast, BOOK, **options)


def test_a_book_must_have_a_forecast_and_a_weight(forecast: ReturnForecast) -> None:
    with pytest.raises(WeightsError, match=r"must have a forecast on the date; got none for A4"):
        factor_hedge(forecast, {"A4": 1.0}, dates=(DAYS[0], None))
    with pytest.raises(
        WeightsError, match=r"weights must hold a weight that is not 0; got none on 2021"
    ):
        factor_hedge(forecast, {"A0": 0.0})
    with pytest.raises(WeightsError, match=r"must have a weight that is not zero"):
        hedge_with_assets(forecast, {"A0": 0.0}, ["A1"])


@pytest.mark.parametrize(
    ("instruments", "message"),
    [
        ([], r"at least one, each once; got none on 2021-05-03"),
        (["A1", "A1"], r"got twice A1"),
        (["A1", "A4", "NOPE"], r"got no forecast of A4, NOPE on 2021-05-03"),
    ],
)
def test_bad_instruments(forecast: ReturnForecast, instruments: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        hedge_with_assets(forecast, BOOK, instruments, date=DAYS[0])


def test_an_instrument_that_others_replicate_is_refused() -> None:
    bare = make_forecast(1).data.copy(deep=True)
    bare["specific_variance"][:, 2] = 0.0
    with pytest.raises(SpecError, match=r"specific variance > 0; got none, or rounding, of A2"):
        hedge_with_assets(ReturnForecast(bare), BOOK, ["A1", "A2"])
