"""Tracking: each figure against the function that it comes from, flags, intervals and bad input."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.errors import ShapeError, SpecError, WeightsError
from nfi_pyro.geometry import (
    FisherManifold,
    Tracking,
    calibrate_regime_alarm,
    crowding_flow,
    factor_states,
    state_distances,
    track,
)
from nfi_pyro.nfi import NFI, NFISpec
from nfi_pyro.posterior import PricingLaw, ReturnForecast, forecast, pricing_laws
from nfi_pyro.svi import SVIConfig, fit_svi
from tests.geometry.closed_laws import draws, pricing_law

DATES, ASSETS, FACTORS = 5, 37, 2
DAYS = pd.bdate_range("2024-01-02", periods=DATES).to_numpy().astype("datetime64[ns]")
NAMES = np.array([f"A{place}" for place in range(ASSETS)])
PORTFOLIO = {"A3": 0.5, "A5": 0.3, "A11": 0.2}


def _laws(seed: int = 0, n_components: int = 3) -> list[PricingLaw]:
    """Laws of a random network whose assets drift from date to date."""
    first = pricing_law(FACTORS, n_components, rows=ASSETS, seed=3 + seed)
    start, shocks = draws(ASSETS, FACTORS, seed=11 + seed), draws(DATES, ASSETS, FACTORS, seed=seed)
    beta, out = start, []
    for day, shock in zip(DAYS, shocks, strict=True):
        beta = 0.9 * beta + 0.3 * shock
        out.append(replace(first, beta=beta, date=day))
    return out


def _forecast(seed: int = 0) -> ReturnForecast:
    rng = np.random.default_rng(seed)
    shape = (DATES, FACTORS)
    data = xr.Dataset(
        {
            "factor_loc": (("date", "factor"), 0.01 * rng.normal(size=shape)),
            "factor_scale": (("date", "factor"), 0.02 * np.exp(0.2 * rng.normal(size=shape))),
            "entered": (("date", "asset"), np.ones((DATES, ASSETS), dtype=bool)),
        },
        {"date": DAYS, "asset": NAMES, "factor": ["z0", "z1"]},
        {"dependence": "factor"},
    )
    return ReturnForecast(data)


def _without(law: PricingLaw, *names: str) -> PricingLaw:
    kept = ~np.isin(law.assets, names)
    return replace(law, beta=law.beta[torch.from_numpy(kept)], assets=law.assets[kept])


@pytest.fixture(scope="module")
def laws() -> list[PricingLaw]:
    return _laws()


@pytest.fixture(scope="module")
def found(laws: list[PricingLaw]) -> Tracking:
    return track(_forecast(), iter(laws), portfolio=PORTFOLIO)


# ---- figures -------------------------------------------------------------------------------------


def test_figures_of_exposures_are_the_manifolds_with_one_precision(found, laws) -> None:
    precision = torch.linalg.inv(torch.cov(laws[0].beta.T))
    np.testing.assert_allclose(found.precision, precision, rtol=1e-10)
    for place in (0, 3):
        law = laws[place]
        manifold = FisherManifold(law, precision=precision)
        held = law.beta[[3, 5, 11]]
        point = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64) @ held
        market = law.beta.mean(0)
        day = found.figures.isel(date=place)
        np.testing.assert_allclose(found.exposure[:, place], torch.stack([point, market]))
        assert float(day["distance"]) == pytest.approx(float(manifold.distance(market, point)))
        assert float(day["distance_lower"]) <= float(day["distance"]) * (1.0 + 1e-9)
        assert float(day["distance"]) <= float(day["distance_upper"]) * (1.0 + 1e-6)
        for prefix, beta in (("", point), ("benchmark_", market)):
            rank = int(manifold.effective_rank(beta))
            assert float(day[f"{prefix}effective_rank"]) == rank
            curvature = float(manifold.principal_curvature(beta).value)
            assert float(day[f"{prefix}principal_curvature"]) == pytest.approx(curvature)
            known = found.ok[f"{prefix}principal_curvature"][place]
            assert bool(known) == (rank >= 2)
    assert found.ok["distance"].all()
    assert set(found.ok) == set(found.figures)


def test_figures_of_states_and_crowding_are_those_of_their_functions(found, laws) -> None:
    states = state_distances(factor_states(_forecast()))
    for name in ("step", "travelled", "displacement"):
        np.testing.assert_allclose(found.figures[f"state_{name}"], getattr(states, name))
    assert found.ok["state_step"].to_numpy().tolist() == [False, True, True, True, True]
    beta = xr.DataArray(
        np.stack([law.beta.numpy() for law in laws]),
        {"date": DAYS, "asset": NAMES, "factor": ["z0", "z1"]},
        ("date", "asset", "factor"),
    )
    flow = crowding_flow(beta).series.sel(plane="all factors")
    np.testing.assert_allclose(found.figures["crowding"][2:], flow["divergence"])
    np.testing.assert_allclose(found.figures["crowding_standard_error"][2:], flow["standard_error"])
    assert found.ok["crowding"].to_numpy().tolist() == [False, False, True, True, True]


def test_earlier_laws_serve_the_flow_alone(found, laws) -> None:
    late = ReturnForecast(_forecast().data.isel(date=slice(2, None)))
    tracked = track(late, laws, portfolio=PORTFOLIO)
    assert tracked.figures.sizes["date"] == 3
    assert tracked.ok["crowding"].to_numpy().all()
    np.testing.assert_allclose(tracked.figures["crowding"], found.figures["crowding"][2:])
    assert not track(late, laws[2:], portfolio=PORTFOLIO).ok["crowding"][:2].any()
    np.testing.assert_array_equal(tracked.figures["n_assets"], ASSETS)


def test_a_table_holds_every_figure_its_flag_and_its_bounds(found) -> None:
    table = found.to_dataset()
    assert set(table) == {*found.figures, *(f"{name}_ok" for name in found.figures)}
    assert table.attrs["interval"].startswith("none")
    assert len(table.to_dataframe()) == DATES


def test_every_figure_is_finite_or_flagged_and_one_fit_has_no_interval(found) -> None:
    for name, value in found.figures.items():
        assert np.isfinite(value.to_numpy()[found.ok[name].to_numpy()]).all(), name
        assert value.attrs["units"]
    assert found.interval is None
    assert found.interval_source.startswith("none: one fit")
    assert found.shifts is None


def test_a_law_that_returns_cannot_see_has_no_curvature() -> None:
    def flat(beta: torch.Tensor) -> torch.Tensor:  # the second exposure moves nothing
        return beta * torch.tensor([1.0, 0.0], dtype=torch.float64)

    base = _laws()

    class Flat(PricingLaw):
        def __call__(self, beta: torch.Tensor):
            return super().__call__(flat(beta))

        jets = None  # type: ignore[assignment]

    fields = ("function", "return_scale", "beta", "assets", "factors", "date")
    laws = [Flat(**{name: getattr(law, name) for name in fields}) for law in base]
    found = track(_forecast(), laws, portfolio=PORTFOLIO)
    np.testing.assert_array_equal(found.figures["effective_rank"], 1.0)
    assert found.ok["effective_rank"].all()
    assert not found.ok["principal_curvature"].any()


def test_restarts_give_intervals_and_none_is_made_from_what_is_not_ok(found) -> None:
    seeds = (0, 1, 2)
    several = track(
        [_forecast(seed) for seed in seeds], [iter(_laws(seed)) for seed in seeds],
        portfolio=PORTFOLIO,
    )  # fmt: skip
    assert several.figures["distance"].dims == ("chain", "date")
    for name in found.figures:
        np.testing.assert_allclose(several.figures[name][0], found.figures[name])
    assert several.interval is not None
    distances = several.figures["distance"]
    oracle = np.stack([distances.min("chain"), distances.max("chain")])  # 3 fits: their range
    assert several.level == 0.5
    np.testing.assert_allclose(several.interval["distance"], oracle)
    assert list(several.interval["bound"].to_numpy()) == ["lower", "upper"]
    assert several.interval["crowding"].isnull().to_numpy()[:, :2].all()
    assert "3 fits" in several.interval_source
    table = several.to_dataset()
    np.testing.assert_allclose(table["distance_interval_upper"], oracle[1])
    np.testing.assert_allclose(table["distance_upper"], several.figures["distance_upper"])


# ---- what has no law -----------------------------------------------------------------------------


def test_weight_without_a_law_is_counted_and_flagged(laws) -> None:
    gone = [_without(laws[0], "A11"), _without(laws[1], "A3", "A5", "A11"), *laws[2:]]
    weights = {"A3": 0.97, "A5": 0.0, "A11": 0.03}
    found = track(_forecast(), gone, portfolio=weights)
    np.testing.assert_allclose(found.figures["portfolio_uncovered"], [0.03, 1, 0, 0, 0], atol=1e-15)
    np.testing.assert_allclose(found.exposure[0, 0], laws[0].beta[3])  # the rest's exposure
    assert found.ok["distance"].to_numpy().tolist() == [True, False, True, True, True]
    assert np.isnan(found.figures["distance"][1])
    assert found.ok["benchmark_effective_rank"].all()
    halved = track(_forecast(), gone, portfolio={"A3": 0.5, "A11": 0.5})
    assert not halved.ok["distance"][0]
    assert np.isfinite(halved.figures["distance"][0])


def test_a_date_without_assets_is_flagged(laws) -> None:
    found = track(
        _forecast(), [*laws[:2], _without(laws[2], *NAMES), *laws[3:]], portfolio=PORTFOLIO
    )
    for name in ("distance", "effective_rank", "principal_curvature", "crowding"):
        assert np.isnan(found.figures[name][2]), name
        assert not found.ok[name][2], name
    assert float(found.figures["n_assets"][2]) == 0.0
    assert found.ok["state_step"][2]


def test_an_exposure_far_outside_the_cloud_is_flagged(laws) -> None:
    levered = {"A3": 60.0, "A5": -59.0}
    found = track(_forecast(), laws, portfolio=levered)
    assert not found.ok["effective_rank"].any()
    assert not found.ok["distance"].any()
    assert found.ok["benchmark_effective_rank"].all()


def test_books_may_change_by_date_and_a_book_is_at_no_distance_from_itself(laws) -> None:
    table = xr.DataArray(
        np.eye(ASSETS)[:DATES][:, :3], {"date": DAYS, "asset": NAMES[:3]}, ("date", "asset")
    )
    table[3:, 0] = 1.0
    table[3:, 1:] = 0.0
    found = track(_forecast(), laws, portfolio=table, benchmark={"A0": 1.0})
    np.testing.assert_allclose(found.exposure[0, 2], laws[2].beta[2])
    np.testing.assert_allclose(found.figures["distance"][[0, 3, 4]], 0.0, atol=1e-9)
    assert (found.figures["distance"][[1, 2]] > 0.01).all()
    assert found.ok["distance"].all()


# ---- from a fit, with an alarm -------------------------------------------------------------------


def test_a_small_fit_is_tracked_with_its_alarm() -> None:
    spec = SimulationSpec(n_dates=43, n_assets=11, n_features=5, n_factors=3)
    panel = simulate_panel(spec, seed=23)[0]
    model = NFI(
        NFISpec(
            n_features=5, lags=2, projection_size=4, hidden_size=4, n_factors=3,
            n_portfolios=5, prior_hidden_size=4, pricing_size=4,
        )
    )  # fmt: skip
    config = SVIConfig(n_epochs=1, block_size=7, learning_rate=1e-2, progress=False, device="cpu")
    fit = fit_svi(model, panel, config=config, seed=3)
    whole = forecast(fit, panel)
    days = [str(day)[:10] for day in whole.data["date"].to_numpy()[-8:]]
    later = ReturnForecast(whole.data.isel(date=slice(-8, None)))
    states = factor_states(ReturnForecast(whole.data.isel(date=slice(0, -8))))
    alarm = calibrate_regime_alarm(states, window=2, stretch=3, rate=0.25)
    entered = later.data["entered"].all("date").to_numpy()
    names = later.data["asset"].to_numpy()[entered][:3]
    found = track(
        later,
        pricing_laws(fit, panel, dates=(days[0], days[-1])),
        portfolio=dict.fromkeys(names, 1.0 / 3.0),
        alarm=alarm,
    )
    assert found.ok["shift_p_value"].to_numpy().tolist() == [False] * 3 + [True] * 5
    assert found.shifts is not None
    np.testing.assert_array_equal(found.figures["shift_p_value"], found.shifts.series["p_value"])
    assert found.ok["effective_rank"].all()
    for name, value in found.figures.items():
        assert np.isfinite(value.to_numpy()[found.ok[name].to_numpy()]).all(), name


# ---- bad input -----------------------------------------------------------------------------------


def test_dates_without_a_law_or_a_forecast_are_named(laws) -> None:
    with pytest.raises(
        SpecError, match="got none on 2024-01-03 at track, the next is of 2024-01-04"
    ):
        track(_forecast(), [laws[0], *laws[2:]], portfolio=PORTFOLIO)
    with pytest.raises(SpecError, match="every date must have a law; got none on 2024-01-08"):
        track(_forecast(), laws[:-1], portfolio=PORTFOLIO)
    short = ReturnForecast(_forecast().data.isel(date=slice(0, 3)))

    def spoiled() -> Iterator[PricingLaw]:
        yield from laws

    with pytest.raises(SpecError, match="every law must have a forecast; got none on 2024-01-05"):
        track(short, spoiled(), portfolio=PORTFOLIO)
    empty = [_without(law, *NAMES) for law in laws]
    with pytest.raises(SpecError, match="every date must have a law; got none on 2024-01-02"):
        track(_forecast(), empty, portfolio=PORTFOLIO)
    other = replace(laws[0], assets=np.array([*NAMES[:-1], "B9"]))
    with pytest.raises(SpecError, match="assets of a law must be the forecast's; got B9"):
        track(_forecast(), [other, *laws[1:]], portfolio=PORTFOLIO)


def test_bad_books_are_refused_by_name(laws) -> None:
    def tracked(weights: object) -> Tracking:
        return track(_forecast(), laws, portfolio=weights)  # type: ignore[arg-type]

    with pytest.raises(WeightsError, match="got unknown B7"):
        tracked({"B7": 1.0})
    with pytest.raises(WeightsError, match="weights must be finite numbers; got others at A3"):
        tracked({"A3": np.inf})
    with pytest.raises(WeightsError, match="the portfolio must hold a weight that is not 0"):
        tracked({"A3": 0.0})
    table = xr.DataArray(np.ones((DATES, 2)), {"date": DAYS, "asset": NAMES[:2]}, ("date", "asset"))
    with pytest.raises(
        SpecError,
        match="the portfolio must be given for every date that is visited; got none on 2024-01-04",
    ):
        tracked(table.drop_sel(date=DAYS[2]))
    with pytest.raises(WeightsError, match="weights must be finite numbers; got others at A1"):
        tracked(table.where((table["date"] != DAYS[1]) | (table["asset"] != "A1")))
    with pytest.raises(ShapeError, match="the portfolio must have dimensions date and asset"):
        tracked(table.rename(asset="stock"))


def test_bad_options_and_fits_are_refused_by_name(laws) -> None:
    one = _forecast()
    with pytest.raises(SpecError, match="eps must be from"):
        track(one, laws, portfolio=PORTFOLIO, eps=0.0)
    with pytest.raises(SpecError, match="instrument_lag must be from 1"):
        track(one, laws, portfolio=PORTFOLIO, instrument_lag=0)
    with pytest.raises(ShapeError, match="laws must be one pass for each forecast; got 1 for 2"):
        track([one, one], [laws], portfolio=PORTFOLIO)
    with pytest.raises(ShapeError, match="background must be one cloud for each of the 2 fits"):
        track([one, one], [laws, laws], portfolio=PORTFOLIO, background=laws[0].beta)
    later = ReturnForecast(one.data.isel(date=slice(1, None)))
    with pytest.raises(ShapeError, match="forecasts must have the same dates"):
        track([one, later], [laws, laws], portfolio=PORTFOLIO)
    flat = laws[0].beta * torch.tensor([1.0, 0.0], dtype=torch.float64)
    with pytest.raises(SpecError, match="background must fill all 2 directions"):
        track(one, laws, portfolio=PORTFOLIO, background=flat)
    bare = ReturnForecast(one.data.drop_vars(["factor_loc", "factor_scale"]))
    found = track(bare, laws, portfolio=PORTFOLIO)  # a model without factors has no state
    assert not found.ok["state_travelled"].any()
    assert found.ok["distance"].all()
    alarm = calibrate_regime_alarm(factor_states(one), window=1, stretch=1, rate=0.4)
    with pytest.raises(SpecError, match="an alarm must have factors to watch"):
        track(bare, laws, portfolio=PORTFOLIO, alarm=alarm)
