"""Realised attribution: exact sums, least squares, posteriors, what is missing, planted factors."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
import xarray as xr
from scipy.stats import binom
from skfolio.attribution import realized_factor_attribution

from nfi_pyro.attribution.results.realised import RealisedAttribution
from nfi_pyro.attribution.returns.realised import ByPosterior, ByRegression, realised_attribution
from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.errors import PanelError, ShapeError, SpecError, WeightsError
from nfi_pyro.posterior import pricing_law
from nfi_pyro.svi import SVIFit
from tests.attribution.small_fits import bend, fit_small, panel_of

DATES, ASSETS, FEATURES = 31, 13, 3
FACTORED = ("linear_factor", "nfi", "factor_vae")
EVERY = (*FACTORED, "mixture_pricing", "neural_factor")
BOOK = {"A000": 0.5, "A003": 0.4, "A007": -0.3, "A011": 0.4}
ASSET = "A003"
PLANTED_LOC, PLANTED_NOISE = [5e-4, 2e-3, -1e-3, 0.0], 0.02
PLANTED_SCALE = np.array([0.01, 6e-3, 5e-3, 4e-3], dtype=np.float32)


@cache
def make_panel() -> Panel:
    """Return a panel in which every return is observed."""
    spec = SimulationSpec(
        n_dates=DATES,
        n_assets=ASSETS,
        n_features=FEATURES,
        n_factors=2,
        missing_share=0.0,
        late_listing_share=0.0,
        unobserved_share=0.0,
    )
    return simulate_panel(spec, seed=19)[0]


def changed(name: str, date: int | slice, asset: int | slice, value: Any) -> Panel:
    """Return the panel with other values in some cells."""
    panel = make_panel().copy(deep=True)
    panel[name].values[date, asset] = value
    return check_panel(panel)


@cache
def fit_of(name: str, seed: int = 3) -> SVIFit:
    """Return a fit of two epochs on raw features, alpha and exposures made larger by hand."""
    fit = fit_small(name, make_panel(), seed, n_epochs=2, transforms=(), n_factors=2)
    return bend(fit, exposure=3.0)


def attribute(name: str, panel: Panel | None = None, **options: Any) -> RealisedAttribution:
    weights = options.pop("weights", BOOK)
    return realised_attribution(fit_of(name), panel or make_panel(), weights, **options)


def returns_of(panel: Panel, found: RealisedAttribution) -> np.ndarray:
    label = panel["forward_return"].sel(date=found.dates)
    return label.to_numpy().astype(np.float64)


def book_of(weights: dict[str, float] = BOOK) -> np.ndarray:
    return np.array([weights.get(f"A{place:03d}", 0.0) for place in range(ASSETS)])


# ---- parts add up --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["regression", "posterior"])
@pytest.mark.parametrize("name", EVERY)
def test_parts_add_up_on_every_date_and_linked(name: str, method: str) -> None:
    if method == "posterior" and name not in FACTORED:
        with pytest.raises(SpecError, match=rf"latent factors; got a fit of {name}, whose assets"):
            attribute(name, method=method)
        return
    found = attribute(name, method=method)
    lags = fit_of(name).model.spec.lags
    np.testing.assert_array_equal(found.dates, make_panel()["date"].values[lags - 1 :])
    np.testing.assert_allclose(
        found.total, returns_of(make_panel(), found) @ book_of(), rtol=0, atol=1e-15
    )
    np.testing.assert_allclose(found.parts.sum("part"), found.total, rtol=0, atol=1e-12)
    compound = np.prod(1.0 + found.total.to_numpy()) - 1.0
    assert found.linked is not None
    assert float(found.linked.effects.sum()) == pytest.approx(compound, abs=1e-10)
    assert float(found.linked.portfolio_return) == pytest.approx(compound, abs=1e-12)
    extra = "nonlinear" if method == "regression" else "alpha"
    factors = [str(factor) for factor in found.factors["factor"].values]
    assert found.parts["part"].values.tolist() == [
        *(*factors, extra, "specific", "uncovered", "trading")
    ]
    assert not found.parts.sel(part=["uncovered", "trading"]).any()
    product = found.factors["exposure"] * found.factors["factor_return"]
    np.testing.assert_allclose(found.parts[:, : len(factors)], product, rtol=0, atol=1e-15)
    assert found.books["n_held"].values.tolist() == [4] * len(found.dates)
    assert (found.start_lag, found.horizon, found.n_unrealised) == (1, 1, 0)


def test_a_linear_model_prices_nothing_but_lines() -> None:
    found = attribute("linear_factor")
    assert float(np.abs(found.parts.sel(part="nonlinear")).max()) < 1e-15
    bent = attribute("mixture_pricing")
    assert float(np.abs(bent.parts.sel(part="nonlinear")).max()) > 1e-6


# ---- regression ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear_factor", "mixture_pricing"])
def test_factor_returns_are_weighted_least_squares(name: str) -> None:
    panel = make_panel()
    rng = np.random.default_rng(29)
    own = rng.uniform(0.2, 3.0, (DATES, ASSETS))
    weights = xr.DataArray(own, {n: panel[n] for n in ("date", "asset")}, ("date", "asset"))
    found = attribute(name, method=ByRegression(weights))
    assert found.method == "cross-sectional regression, given weights"
    nonlinear = []
    for place, date in enumerate(found.dates):
        law = pricing_law(fit_of(name), panel, date)
        design = sm.add_constant(law.beta.numpy())
        rows = panel["date"].values.tolist().index(date.item())
        fit = sm.WLS(returns_of(panel, found)[place], design, weights=own[rows]).fit()
        factors = found.factors.isel(date=place)
        # Exposures are single precision here, and double in the law: they differ by 1e-7.
        np.testing.assert_allclose(factors["factor_return"], fit.params, rtol=0, atol=1e-8)
        np.testing.assert_allclose(factors["standard_error"], fit.bse, rtol=1e-5)
        np.testing.assert_allclose(factors["exposure"], book_of() @ design, rtol=0, atol=1e-6)
        priced = law.marginal().mean.numpy()
        bent = priced - sm.WLS(priced, design, weights=own[rows]).fit().fittedvalues
        nonlinear.append(book_of() @ bent)
    np.testing.assert_allclose(found.parts.sel(part="nonlinear"), nonlinear, rtol=0, atol=1e-8)


def test_a_column_that_repeats_another_is_dropped_and_counted() -> None:
    features = make_panel()["features"].values
    panel = changed("features", slice(None), slice(None), np.where(
        np.arange(FEATURES) == 2, features[..., :1], features
    ))  # fmt: skip
    found = attribute("linear_factor", panel)
    names = found.factors["factor"].values.tolist()
    assert np.isnan(found.factors["factor_return"].sel(factor=names[3])).all()
    assert not found.parts.sel(part=names[3]).any()
    np.testing.assert_allclose(found.parts.sum("part"), found.total, rtol=0, atol=1e-12)
    assert "combinations of earlier ones" in str(found.ledger)
    assert float(found.factors["condition"].max()) < 30.0


def test_means_agree_with_skfolio() -> None:
    found = attribute("linear_factor", weights=BOOK)
    panel = make_panel()
    laws = [pricing_law(fit_of("linear_factor"), panel, date) for date in found.dates]
    exposures = np.stack([sm.add_constant(law.beta.numpy()) for law in laws])
    factor_returns = found.factors["factor_return"].to_numpy()
    returns = returns_of(panel, found)
    theirs = realized_factor_attribution(
        asset_names=panel["asset"].to_numpy(),
        factor_names=found.factors["factor"].to_numpy(),
        weights=book_of(),
        factor_returns=factor_returns,
        portfolio_returns=found.total.to_numpy(),
        exposures=exposures,
        exposure_lag=0,
        idio_returns=returns - np.einsum("dak,dk->da", exposures, factor_returns),
        annualization_factor=1.0,
    )
    mean = found.parts.mean("date")
    np.testing.assert_allclose(mean[: FEATURES + 1], theirs.factors.mu_contrib, rtol=0, atol=1e-8)
    assert float(mean.sel(part="specific")) == pytest.approx(theirs.idio.mu_contrib, abs=1e-8)


# ---- posterior -----------------------------------------------------------------------------------


def test_parts_of_the_posterior_are_closed_form() -> None:
    """``z | r`` is normal with precision ``S^-1 + X'X / s^2`` and pulled towards m."""
    fit, panel = fit_of("linear_factor"), make_panel()
    found = attribute("linear_factor", method=ByPosterior(draws=4_000, seed=7))
    unit = fit.return_scale
    with torch.no_grad():
        mean = fit.model.factor_loc.double().numpy() * unit
        scale = fit.model.factor_scale.double().numpy() * unit
        noise = float(fit.model.noise(torch.zeros(1))[2]) * unit
    for place in (0, 13, DATES - 1):
        law = pricing_law(fit, panel, found.dates[place])
        design = sm.add_constant(law.beta.numpy())
        precision = np.diag(scale**-2) + design.T @ design / noise**2
        covariance = np.linalg.inv(precision)
        right = mean / scale**2 + design.T @ returns_of(panel, found)[place] / noise**2
        exposure = book_of() @ design
        parts = found.parts.isel(date=place)
        want = exposure * (covariance @ right)
        np.testing.assert_allclose(parts[: FEATURES + 1], want, rtol=0, atol=2e-8)
        assert float(parts.sel(part="alpha")) == 0.0
        rest = float(found.total[place]) - want.sum()
        assert float(parts.sel(part="specific")) == pytest.approx(rest, abs=2e-8)
        errors = found.factors["standard_error"].isel(date=place)
        np.testing.assert_allclose(errors, np.sqrt(np.diag(covariance)), rtol=1e-5)
        drawn = found.part_draws.isel(date=place).to_numpy()[:, : FEATURES + 1]  # type: ignore[union-attr]
        spread = covariance * np.outer(exposure, exposure)
        error = np.sqrt(np.diag(spread) / len(drawn))
        assert np.abs((drawn.mean(axis=0) - want) / error).max() < 4.0
        sampled, deviation = np.cov(drawn.T), np.sqrt(np.diag(spread))
        gap = np.abs(sampled - spread) / np.outer(deviation, deviation)
        assert gap.max() < 4.0 * np.sqrt(2.0 / len(drawn))


def test_every_draw_adds_up_and_intervals_are_of_draws() -> None:
    found = attribute("nfi", method=ByPosterior(draws=50, level=0.8, seed=1))
    draws = found.part_draws
    assert draws is not None
    assert draws.dims == ("draw", "date", "part")
    total = found.total.broadcast_like(draws.isel(part=0, drop=True))
    np.testing.assert_allclose(draws.sum("part"), total, rtol=0, atol=1e-12)
    assert found.interval is not None
    assert found.interval.attrs == {"level": 0.8, "n_draws": 50}
    low, high = np.quantile(draws, [0.1, 0.9], axis=0)
    np.testing.assert_allclose(found.interval["lower"], low, rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(found.interval["upper"], high, rtol=1e-12, atol=1e-16)
    assert found.linked_interval is not None
    assert found.linked is not None
    inside = found.linked_interval["lower"] <= found.linked_interval["upper"]
    assert bool(inside.all())
    linked = float(found.linked_interval["mean"].sum())
    assert linked == pytest.approx(float(found.linked.active_return), abs=1e-10)
    again = attribute("nfi", method=ByPosterior(draws=50, level=0.8, seed=1))
    xr.testing.assert_equal(again.part_draws, draws)
    other = attribute("nfi", method=ByPosterior(draws=50, level=0.8, seed=2))
    xr.testing.assert_equal(other.parts, found.parts)
    assert not other.part_draws.equals(draws)  # type: ignore[union-attr]
    regression = attribute("nfi")
    assert regression.interval is None
    assert regression.part_draws is None
    assert regression.linked_interval is None


# ---- what is missing -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["regression", "posterior"])
def test_unobserved_returns_of_held_assets(method: str) -> None:
    panel = changed("forward_return", 5, 3, np.nan)
    with pytest.raises(
        SpecError, match=r"must have an observed return; got 1 without, A003 on 201"
    ):
        attribute("linear_factor", panel, method=method)
    found = attribute("linear_factor", panel, method=method, unobserved="renormalise")
    scaled = book_of() * np.where(np.arange(ASSETS) == 3, 0.0, 1.6 / 1.2)
    own = np.nan_to_num(returns_of(panel, found)[5]) @ scaled
    assert float(found.total[5]) == pytest.approx(own, abs=1e-15)
    assert float(found.parts[5].sum()) == pytest.approx(own, abs=1e-12)
    assert found.books["n_unobserved"].values.tolist() == [int(k == 5) for k in range(DATES)]
    assert float(found.books["unobserved_share"][5]) == pytest.approx(0.25)
    whole = attribute("linear_factor", method=method)
    others = [k for k in range(DATES) if k != 5]
    xr.testing.assert_allclose(found.parts[others], whole.parts[others], rtol=1e-6, atol=1e-10)
    unheld = changed("forward_return", 5, 1, np.nan)
    assert attribute("linear_factor", unheld, method=method).books["n_unobserved"].sum() == 0


def test_last_dates_without_returns_are_left_out_and_counted() -> None:
    panel = changed("forward_return", slice(-3, None), slice(None), np.nan)
    found = attribute("linear_factor", panel)
    assert found.n_unrealised == 3
    np.testing.assert_array_equal(found.dates, make_panel()["date"].values[:-3])
    between = changed("forward_return", 9, slice(None), np.nan)
    with pytest.raises(SpecError, match=r"Leave out dates on which nothing held is observed"):
        attribute("linear_factor", between, unobserved="renormalise")
    never = changed("forward_return", slice(None), slice(None), np.nan)
    with pytest.raises(SpecError, match=r"dates must have an observed return; got none from 2010"):
        attribute("linear_factor", never)


@pytest.mark.parametrize("method", ["regression", "posterior"])
def test_what_has_no_law_is_uncovered(method: str) -> None:
    panel = make_panel().copy(deep=True)
    panel["tradable"].values[4, 3] = False
    panel["features"].values[4, 3] = np.nan
    found = attribute("linear_factor", check_panel(panel), method=method)
    earned = 0.4 * float(panel["forward_return"].values[4, 3])
    uncovered = found.parts.sel(part="uncovered").to_numpy()
    np.testing.assert_allclose(uncovered, np.where(np.arange(DATES) == 4, earned, 0.0), atol=1e-16)
    np.testing.assert_allclose(found.parts.sum("part"), found.total, rtol=0, atol=1e-12)
    assert float(found.books["uncovered_share"][4]) == pytest.approx(0.25)


def test_a_held_asset_without_a_regression_weight_is_uncovered() -> None:
    panel = make_panel()
    weights = xr.ones_like(panel["forward_return"], dtype=float)
    weights[6, 3] = np.nan
    found = attribute("linear_factor", method=ByRegression(weights))
    earned = 0.4 * float(panel["forward_return"].values[6, 3])
    assert float(found.parts.sel(part="uncovered")[6]) == pytest.approx(earned, abs=1e-15)
    assert "no weight" in str(found.ledger)
    np.testing.assert_allclose(found.parts.sum("part"), found.total, rtol=0, atol=1e-12)


def test_what_the_account_earned_beyond_its_holdings_is_trading() -> None:
    plain = attribute("linear_factor")
    cost = 1e-3 * np.arange(DATES)
    account = plain.total.to_series() - cost
    found = attribute("linear_factor", portfolio_return=account)
    np.testing.assert_allclose(found.parts.sel(part="trading"), -cost, rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.total, account, rtol=0, atol=1e-15)
    xr.testing.assert_equal(found.holdings_return, plain.total.rename("holdings_return"))
    assert found.linked is not None
    compound = np.prod(1.0 + account.to_numpy()) - 1.0
    assert float(found.linked.effects.sum()) == pytest.approx(compound, abs=1e-10)
    same = attribute("linear_factor", portfolio_return=xr.DataArray(account))
    xr.testing.assert_equal(same.parts, found.parts)


# ---- timing, dates, chains -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["regression", "posterior"])
@pytest.mark.parametrize("name", ["linear_factor", "nfi"])
def test_a_label_belongs_to_its_signal_date_alone(name: str, method: str) -> None:
    found = attribute(name, method=method)
    place = 8
    row = place + fit_of(name).model.spec.lags - 1
    other = attribute(name, changed("forward_return", row, 2, 0.3), method=method)  # not held
    others = [k for k in range(len(found.dates)) if k != place]
    xr.testing.assert_equal(other.parts[others], found.parts[others])
    xr.testing.assert_equal(other.total, found.total)
    assert np.abs(other.parts[place] - found.parts[place]).max() > 1e-5


def test_books_by_date_one_asset_and_equal_weights() -> None:
    panel = make_panel()
    names = panel["asset"].to_numpy()
    rng = np.random.default_rng(3)
    values = rng.dirichlet(np.ones(ASSETS), size=DATES)
    weights = xr.DataArray(values, {"date": panel["date"], "asset": names}, ("date", "asset"))
    found = attribute("linear_factor", weights=weights)
    want = (returns_of(panel, found) * values).sum(axis=1)
    np.testing.assert_allclose(found.total, want, rtol=0, atol=1e-15)
    alone = attribute("linear_factor", weights=ASSET)
    np.testing.assert_array_equal(alone.total, returns_of(panel, alone)[:, 3])
    equal = attribute("linear_factor", weights=None)
    np.testing.assert_allclose(equal.total, returns_of(panel, equal).mean(1), rtol=0, atol=1e-15)
    # Residuals of least squares with a constant average to nothing.
    assert float(np.abs(equal.parts.sel(part=["nonlinear", "specific"])).max()) < 1e-15


def test_dates_can_be_chosen_and_every_second_one() -> None:
    days = [str(day)[:10] for day in make_panel()["date"].values]
    whole = attribute("linear_factor")
    some = attribute("linear_factor", dates=(days[4], days[14], 5))
    np.testing.assert_array_equal(some.dates, make_panel()["date"].values[4:15:5])
    xr.testing.assert_equal(some.parts, whole.parts[4:15:5])
    assert some.linked is not None
    assert some.linked.n_dates == 3


def test_periods_that_overlap_are_not_compounded() -> None:
    panel = make_panel().copy(deep=True)
    panel["forward_return"].attrs["horizon"] = 3
    panel = check_panel(panel)
    fit = fit_small("linear_factor", panel)
    with pytest.raises(SpecError, match=r"must not overlap; got labels of 3 trading days every 1"):
        realised_attribution(fit, panel, BOOK)
    assert realised_attribution(fit, panel, BOOK, linking=None).linked is None
    days = (str(panel["date"].values[0])[:10], None)
    found = realised_attribution(fit, panel, BOOK, dates=(*days, 3))
    assert found.linked is not None
    assert found.linked.n_dates == 11


@pytest.mark.parametrize("method", ["regression", "posterior"])
def test_restarts_are_chains(method: str) -> None:
    fits = [fit_of("nfi", seed) for seed in (3, 5)]
    found = realised_attribution(fits, make_panel(), BOOK, method=method)
    assert found.parts.dims == ("chain", "date", "part")
    alone = realised_attribution(fits[0], make_panel(), BOOK, method=method)
    xr.testing.assert_equal(found.parts.isel(chain=0, drop=True), alone.parts)
    xr.testing.assert_equal(found.factors.isel(chain=0, drop=True), alone.factors)
    assert not found.parts[0].equals(found.parts[1])
    assert found.linked is not None
    assert found.linked.effects.dims == ("chain", "part")
    total = found.total.broadcast_like(found.parts.isel(part=0, drop=True))
    np.testing.assert_allclose(found.parts.sum("part"), total, rtol=0, atol=1e-12)
    if method == "posterior":
        assert found.part_draws is not None
        assert found.part_draws.dims == ("chain", "draw", "date", "part")
        xr.testing.assert_equal(found.part_draws.isel(chain=0, drop=True), alone.part_draws)
        assert found.interval is not None
        assert found.interval.attrs["n_draws"] == 400


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "kalman"}, SpecError, r"method must be one of regression, posterior.*'kalman'"),
        ({"method": ByPosterior(draws=1)}, SpecError, r"draws must be >= 2; got 1"),
        ({"method": ByPosterior(level=1.0)}, SpecError, r"level must be in \(0, 1\); got 1.0"),
        ({"method": ByPosterior(seed=-1)}, SpecError, r"seed must be in"),
        (
            {"method": ByRegression(xr.DataArray([1.0], dims="asset"))},
            ShapeError,
            r"regression weights must have dimensions date and asset; got \('asset',\)",
        ),
        ({"unobserved": "zero"}, SpecError, r"unobserved must be one of error, renormalise"),
        ({"linking": "sum"}, SpecError, r"method must be one of carino.*got 'sum'"),
        ({"weights": {"NOPE": 1.0}}, WeightsError, r"got unknown NOPE"),
        (
            {"portfolio_return": pd.Series([0.1], pd.DatetimeIndex(["2010-01-04"]))},
            SpecError,
            r"portfolio_return must be finite on every date.*got none on 2010-01-05.* and 25 more",
        ),
        (
            {"portfolio_return": pd.Series([0.1, 0.1], pd.DatetimeIndex(["2010-01-04"] * 2))},
            SpecError,
            r"must have each date once; got twice 2010-01-04",
        ),
        (
            {"portfolio_return": xr.DataArray([[0.1]], dims=("date", "asset"))},
            ShapeError,
            r"portfolio_return must have the dimension date alone",
        ),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attribute("linear_factor", **options)


def test_what_cannot_be_attributed_is_refused() -> None:
    with pytest.raises(SpecError, match=r"fits must hold at least one fit; got none"):
        realised_attribution([], make_panel(), BOOK)
    other = make_panel().copy(deep=True)
    other["forward_return"].attrs["start_lag"] = 2
    with pytest.raises(PanelError, match=r"the panel's label must be the fit's"):
        attribute("linear_factor", check_panel(other))
    few = make_panel().copy(deep=True)
    few["forward_return"].values[7, [1, 2, 4, 5, 6, 8, 9, 10, 12]] = np.nan
    with pytest.raises(SpecError, match=r"more assets .* than its 4 columns; got too few on 2010-"):
        attribute("linear_factor", check_panel(few))
    assert attribute("linear_factor", check_panel(few), method="posterior").total.shape == (DATES,)
    named = make_panel().assign_coords(feature=["specific", "f1", "f2"])
    fit = fit_small("linear_factor", check_panel(named))
    with pytest.raises(SpecError, match=r"factors must have names of their own; got specific"):
        realised_attribution(fit, check_panel(named), BOOK)


def test_labels_that_no_book_earns_are_refused() -> None:
    panel = make_panel().copy(deep=True)
    panel["forward_return"].attrs["unit"] = "rank"
    panel = check_panel(panel)
    fit = fit_small("linear_factor", panel)
    with pytest.raises(SpecError, match=r"must be of returns; got a fit of 'rank' labels"):
        realised_attribution(fit, panel, BOOK)


# ---- coverage ------------------------------------------------------------------------------------


def coverage_panel(seed: int) -> tuple[Panel, np.ndarray]:
    """Return a linear panel with planted factor returns (date, factor), market first."""
    n_dates, n_assets, n_factors = 120, 43, 3
    rng = np.random.default_rng(seed)
    exposures = rng.normal(size=(n_dates, n_assets, n_factors)).astype(np.float32)
    z = np.array(PLANTED_LOC) + PLANTED_SCALE * rng.normal(size=(n_dates, 1 + n_factors))
    returns = z[:, :1] + np.einsum("dak,dk->da", exposures, z[:, 1:])
    returns += PLANTED_NOISE * rng.normal(size=returns.shape)
    return panel_of(exposures, returns), z


def fit_linear(panel: Panel, seed: int, *, planted: bool) -> SVIFit:
    """Return a fit whose law has the constants that the panel was drawn from, or estimates."""
    fit = fit_small(
        "linear_factor",
        panel,
        seed,
        standardise=False,
        n_epochs=1 if planted else 150,
        block_size=20,
        learning_rate=2e-2,
        weight_decay=0.0,
        keep="last",
        transforms=(),
    )
    if planted:
        unit, floor = fit.return_scale, fit.model.spec.scale_floor

        def raw(scale: Any) -> torch.Tensor:
            return torch.log(torch.expm1(torch.as_tensor(scale) / unit - floor))

        with torch.no_grad():
            fit.model.factor_loc.copy_(torch.tensor(PLANTED_LOC) / unit)
            fit.model.raw_factor_scale.copy_(raw(PLANTED_SCALE))
            fit.model.noise.raw_scale.copy_(raw(PLANTED_NOISE))
    return fit


@pytest.mark.slow
@pytest.mark.parametrize("constants", ["planted", "fitted"])
def test_posterior_intervals_cover_planted_factor_returns(constants: str) -> None:
    """90 percent intervals of a part hold the planted part on 90 percent of dates.

    Every date is an inference of its own: new factors, new noise, and 43 returns to tell one from
    the other. Dates of three panels are therefore 360 independent trials of each part, as good as
    360 fits of one date, for the price of three: hits are binomial(360, 0.9), and the bounds are
    those that one part in 10 000 leaves by chance. Bounds from 400 draws lie a little inside those
    of the law, which takes 0.004 off the rate; constants estimated from 120 dates, which the
    intervals take for known, take off another 0.01 (0.885 over 1440 dates); so the lower bound is
    that of a rate of 0.885.
    """
    hits: dict[str, list[bool]] = {}
    for seed in (101, 103, 107):
        panel, z = coverage_panel(seed)
        fit = fit_linear(panel, seed, planted=constants == "planted")
        book = pd.Series(np.random.default_rng(seed).normal(size=43), panel["asset"].to_numpy())
        found = realised_attribution(
            fit, panel, book, method=ByPosterior(draws=400, seed=seed), linking=None
        )
        exposure = found.factors["exposure"].to_numpy()
        planted = dict(zip(found.factors["factor"].values.tolist(), (exposure * z).T, strict=True))
        planted["specific"] = found.total.to_numpy() - (exposure * z).sum(axis=1)
        assert found.interval is not None
        for name, truth in planted.items():
            own = found.interval.sel(part=name)
            inside = (own["lower"].to_numpy() <= truth) & (truth <= own["upper"].to_numpy())
            hits.setdefault(name, []).extend(inside.tolist())
    assert len(hits) == 5
    low, high = binom.ppf(5e-5, 360, 0.885), binom.ppf(1.0 - 5e-5, 360, 0.9)
    for name, inside in hits.items():
        assert len(inside) == 360
        assert low <= sum(inside) <= high, (name, sum(inside))
