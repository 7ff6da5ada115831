"""The manifold of the factors' law: closed forms, invariance, bounds, labels, bad input."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.integrate import quad, solve_ivp
from scipy.linalg import expm

from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.geometry.states.gaussian_bounds import distance_bounds
from nfi_pyro.geometry.states.half_planes import (
    factor_distances,
    jeffreys_divergence,
    state_distance,
    state_exp,
    state_geodesic,
    state_log,
    state_norm,
)
from nfi_pyro.geometry.states.states import (
    factor_states,
    pairwise_state_distances,
    state_distance_bounds,
    state_distances,
    state_path,
)
from nfi_pyro.posterior import FactorAlignment, Posterior, ReturnForecast

DATES, FACTORS = 7, 3
NAMES = ["u0", "u1", "u2"]
DAYS = pd.bdate_range("2021-03-01", periods=DATES).to_numpy()


def _draw(*shape: int, seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return spread * rng.normal(size=shape), np.exp(0.6 * spread * rng.normal(size=shape))


def _states(seed: int = 0, chains: int = 0) -> xr.Dataset:
    shape = (chains, DATES, FACTORS) if chains else (DATES, FACTORS)
    dims = ("chain", "date", "factor") if chains else ("date", "factor")
    loc, scale = _draw(*shape, seed=seed)
    coords = {"date": DAYS, "factor": NAMES}
    return xr.Dataset({"loc": (dims, loc), "scale": (dims, scale)}, coords)


def _posterior(states: xr.Dataset) -> Posterior:
    """Return a posterior with the states as prior, and moved and narrowed as posterior."""
    scale = 0.5 * states["scale"]
    outer = np.einsum("dk,kl,dl->dkl", scale, 0.3 + 0.7 * np.eye(FACTORS), scale)
    moments = xr.Dataset(
        {
            "prior_loc": states["loc"],
            "prior_scale": states["scale"],
            "posterior_loc": states["loc"] + np.sin(np.arange(DATES))[:, None],
            "posterior_scale": scale,
            "posterior_covariance": (("date", "factor", "factor_other"), outer),
        },
        {"factor_other": NAMES},
    )
    return Posterior(xr.Dataset(), moments, xr.Dataset())


# ---- the half-plane ------------------------------------------------------------------------------


def test_distance_is_that_of_one_normal_in_closed_form() -> None:
    one = factor_distances(*map(np.array, (0.3, 0.8, -0.5, 1.6)))
    assert float(one) == pytest.approx(1.189380931, abs=1e-9)
    loc, scale = _draw(2, 101)
    gap = 0.5 * (loc[0] - loc[1]) ** 2 + (scale[0] - scale[1]) ** 2
    oracle = math.sqrt(2) * np.arccosh(1 + gap / (2 * scale[0] * scale[1]))
    found = factor_distances(loc[0], scale[0], loc[1], scale[1])
    np.testing.assert_allclose(found, oracle, rtol=1e-9)
    narrow = factor_distances(*map(np.array, (0.0, 1.0, 0.0, math.e)))
    assert float(narrow) == pytest.approx(math.sqrt(2))
    tiny = factor_distances(*map(np.array, (0.0, 1.0, 1e-12, 1.0)))
    assert float(tiny) == pytest.approx(1e-12, rel=1e-9)


def test_distance_of_near_states_is_the_fisher_norm() -> None:
    loc, scale = _draw(11, FACTORS)
    loc_rate, scale_rate = _draw(11, FACTORS, seed=1)
    rate = state_norm(scale, loc_rate, scale_rate)
    for step in (1e-2, 1e-3):
        found = state_distance(loc, scale, loc + step * loc_rate, scale + step * scale_rate)
        speed = np.abs(np.stack([loc_rate, scale_rate]) / scale).max()
        np.testing.assert_allclose(found / step, rate, rtol=2 * step * speed)
    divergence = jeffreys_divergence(loc, scale, loc + 1e-4 * loc_rate, scale + 1e-4 * scale_rate)
    np.testing.assert_allclose(np.sqrt(divergence) / 1e-4, rate, rtol=1e-2)


def test_distance_is_a_metric() -> None:
    loc, scale = _draw(3, 503, FACTORS, spread=2.0)
    one, two, three = zip(loc, scale, strict=True)
    there, back = state_distance(*one, *two), state_distance(*two, *one)
    np.testing.assert_array_equal(there, back)
    assert (state_distance(*one, *one) == 0.0).all()
    assert (
        there <= (state_distance(*one, *three) + state_distance(*three, *two)) * (1 + 1e-14)
    ).all()


def test_root_of_the_divergence_exceeds_the_distance() -> None:
    loc, scale = _draw(2, 503, FACTORS)
    ends = (loc[0], scale[0], loc[1], scale[1])
    assert (np.sqrt(jeffreys_divergence(*ends)) > state_distance(*ends)).all()
    assert (jeffreys_divergence(loc, scale, loc, scale) == 0.0).all()
    one, two = (1.0, 2.0), (0.4, 0.7)

    def integrand(x: float) -> float:
        log = [
            -0.5 * ((x - m) / s) ** 2 - math.log(s * math.sqrt(2 * math.pi)) for m, s in (one, two)
        ]
        return (math.exp(log[0]) - math.exp(log[1])) * (log[0] - log[1])

    found = jeffreys_divergence(*(np.array([value]) for value in (*one, *two)))
    assert float(found) == pytest.approx(quad(integrand, -20, 20, limit=200)[0], rel=1e-9)


def test_log_and_exp_agree_with_the_integrated_geodesic() -> None:
    loc, scale = _draw(2, 5)
    ends = (loc[0], scale[0], loc[1], scale[1])
    velocity = state_log(*ends)

    def acceleration(time: float, state: np.ndarray) -> np.ndarray:
        _, s, dm, ds = state.reshape(4, -1)  # Christoffel symbols of (m, s)
        return np.concatenate([dm, ds, 2 * dm * ds / s, ds**2 / s - dm**2 / (2 * s)])

    start = np.concatenate([loc[0], scale[0], *velocity])
    path = solve_ivp(acceleration, (0, 1), start, rtol=1e-11, atol=1e-12, dense_output=True)
    np.testing.assert_allclose(path.y[:10, -1], np.concatenate([loc[1], scale[1]]), rtol=1e-8)
    np.testing.assert_allclose(np.stack(state_exp(*ends[:2], *velocity)), [loc[1], scale[1]])
    for share in (0.0, 0.25, 0.7, 1.0):
        point = np.concatenate(state_geodesic(*ends, share))
        np.testing.assert_allclose(point, path.sol(share)[:10], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(state_norm(scale[0], *velocity), state_distance(*ends))


def test_exp_keeps_its_digits_far_away() -> None:
    start = (np.array([0.2, -0.4]), np.array([1.0, 2.0]))
    for end in (
        (np.array([0.2 + 1e-7, -0.4]), np.array([1e9, 1e-9])),
        (np.array([3e4, 0.0]), start[1]),
    ):
        found = state_exp(*start, *state_log(*start, *end))
        np.testing.assert_allclose(state_distance(*found, *end), 0.0, atol=1e-6)
    still = state_exp(*start, np.zeros(2), np.zeros(2))
    np.testing.assert_array_equal(np.stack(still), np.stack(start))


def test_geodesic_has_constant_speed_and_the_length_of_the_distance() -> None:
    loc, scale = _draw(2, 11, FACTORS, spread=1.5)
    ends = (loc[0], scale[0], loc[1], scale[1])
    whole = state_distance(*ends)
    middle = state_geodesic(*ends, 0.5)
    np.testing.assert_allclose(state_distance(*ends[:2], *middle), whole / 2, rtol=1e-12)
    np.testing.assert_allclose(state_distance(*middle, *ends[2:]), whole / 2, rtol=1e-12)
    share = np.linspace(0, 1, 2001)[:, None, None]
    path = np.stack(state_geodesic(*ends, share))
    rates = np.gradient(path, share.ravel(), axis=1)
    speed = state_norm(path[1], *rates)[1:-1]
    np.testing.assert_allclose(speed, np.broadcast_to(whole, speed.shape), rtol=1e-4)
    same = state_geodesic(*ends[:2], *ends[:2], 0.3)
    np.testing.assert_allclose(np.stack(same), np.stack(ends[:2]), rtol=1e-15)


@pytest.mark.parametrize("turn", ["scale", "permutation", "sign", "shift"])
def test_distance_does_not_see_the_choice_of_factors(turn: str) -> None:
    states = _states()
    factor = xr.DataArray([0.01, 3.0, 7.0], dims="factor")
    changed = {
        "scale": states * factor,
        "permutation": states.isel(factor=[2, 0, 1]),
        "sign": states.assign(loc=-states["loc"]),
        "shift": states.assign(loc=states["loc"] + factor),
    }[turn]
    for name in ("step", "travelled", "displacement", "root_jeffreys"):
        one, two = (getattr(state_distances(part), name) for part in (states, changed))
        np.testing.assert_allclose(one, two, rtol=1e-12)


# ---- full covariances ----------------------------------------------------------------------------


def _full(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, FACTORS, FACTORS)) + 2 * np.eye(FACTORS)
    return rng.normal(size=(n, FACTORS)), root @ np.swapaxes(root, 1, 2)


def _exact_geodesic(velocity: np.ndarray, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the end and length of the geodesic from N(0, I), by Eriksen's matrix exponential."""
    n = len(velocity)
    generator = np.zeros((2 * n + 1, 2 * n + 1))
    generator[:n, :n], generator[n + 1 :, n + 1 :] = -rate, rate
    generator[:n, n] = generator[n, :n] = velocity
    generator[n + 1 :, n] = generator[n, n + 1 :] = -velocity
    found = expm(generator)
    covariance = np.linalg.inv(found[:n, :n])
    length = math.sqrt(velocity @ velocity + 0.5 * np.trace(rate @ rate))
    return covariance @ found[:n, n], covariance, length


def test_bounds_hold_the_exact_distance_of_full_covariances() -> None:
    rng = np.random.default_rng(3)
    gaps = []
    for size in (0.1, 0.5, 1.0, 1.5):
        for _ in range(7):
            rate = rng.normal(size=(FACTORS, FACTORS))
            rate = 0.5 * size * (rate + rate.T)
            loc, covariance, length = _exact_geodesic(size * rng.normal(size=FACTORS), rate)
            lower, upper, exact = distance_bounds(
                np.zeros(FACTORS), np.eye(FACTORS), loc, covariance
            )
            assert lower <= length * (1 + 1e-9)
            assert length <= upper * (1 + 1e-9)
            assert not exact
            gaps.append((upper - lower) / length)
    assert np.median(gaps) < 0.15


def test_bounds_are_exact_where_they_say_so() -> None:
    rng = np.random.default_rng(4)
    loc, covariance = _full(1, 5)
    same = distance_bounds(loc, covariance, loc, 2.5 * covariance)
    oracle = math.sqrt(FACTORS / 2) * math.log(2.5)
    np.testing.assert_allclose(np.stack(same[:2]), oracle)
    assert same[2].all()
    shift = rng.normal(size=FACTORS)
    square = shift @ np.linalg.solve(covariance[0], shift)
    _, upper, exact = distance_bounds(loc, covariance, loc + shift, covariance)
    np.testing.assert_allclose(upper, math.sqrt(2) * np.arccosh(1 + square / 4))
    assert exact.all()
    move, _, length = _exact_geodesic(np.array([0.7, 0.0, 0.0]), np.diag([0.2, -0.5, 0.3]))
    end = _exact_geodesic(np.array([0.7, 0.0, 0.0]), np.diag([0.2, -0.5, 0.3]))[1]
    _, upper, exact = distance_bounds(np.zeros(FACTORS), np.eye(FACTORS), move, end)
    assert exact
    assert float(upper) == pytest.approx(length, rel=1e-9)


def test_bounds_do_not_see_an_affine_change_of_factors() -> None:
    loc, covariance = _full(10, 6)
    rng = np.random.default_rng(7)
    change = rng.normal(size=(FACTORS, FACTORS)) + 2 * np.eye(FACTORS)
    ends = (loc[:5], covariance[:5], loc[5:], covariance[5:])
    moved = [part @ change.T + 1.0 if part.ndim == 2 else change @ part @ change.T for part in ends]
    one, two = distance_bounds(*ends), distance_bounds(*moved)
    back = distance_bounds(*ends[2:], *ends[:2])
    for place in (0, 1):
        np.testing.assert_allclose(one[place], two[place], rtol=1e-9)
        np.testing.assert_allclose(one[place], back[place], rtol=1e-9)


# ---- labelled states -----------------------------------------------------------------------------


def test_results_are_labelled_and_agree_with_each_other() -> None:
    states = _states()
    found = state_distances(states)
    table = pairwise_state_distances(states)
    assert table.dims == ("date", "date_other")
    np.testing.assert_array_equal(table, table.T)
    np.testing.assert_array_equal(np.diag(table), 0.0)
    np.testing.assert_allclose(found.step[1:], np.diag(table, 1))
    np.testing.assert_allclose(found.displacement, table[0])
    assert math.isnan(found.step[0])
    assert np.isnan(found.root_jeffreys[0])
    assert float(found.travelled[0]) == 0.0
    np.testing.assert_allclose(found.travelled[1:], np.cumsum(found.step[1:]))
    assert (found.displacement <= found.travelled + 1e-12).all()
    np.testing.assert_allclose((found.by_factor**2).sum("factor", skipna=False), found.step**2)
    assert found.interval is None
    assert {found.step.attrs["units"], table.attrs["units"]} == {"1"}
    xr.testing.assert_equal(found.step["date"], states["date"])
    one = state_distances(states.transpose("factor", "date"))
    xr.testing.assert_identical(one.by_factor, found.by_factor)


def test_path_between_dates_is_halfway_by_default() -> None:
    states = _states()
    point = state_path(states, DAYS[1], "2021-03-08")
    both = xr.concat(
        [states.isel(date=[1]), point.rename(fraction="date").assign_coords(date=[DAYS[2]])], "date"
    )
    whole = float(pairwise_state_distances(states)[1, 5])
    assert float(state_distances(both).step[1]) == pytest.approx(whole / 2)
    ends = state_path(states, DAYS[1], DAYS[5], (0.0, 1.0))
    np.testing.assert_allclose(ends["scale"], states["scale"].isel(date=[1, 5]))


def test_intervals_come_from_fits_and_draws() -> None:
    states = _states(chains=5)
    found = state_distances(states, level=0.5)
    assert found.interval is not None
    for name in ("step", "travelled", "displacement"):
        oracle = np.quantile(getattr(found, name), [0.25, 0.75], axis=0)
        np.testing.assert_allclose(found.interval[name].transpose("bound", "date"), oracle)
    one = state_distances(states.isel(chain=3, drop=True))
    xr.testing.assert_allclose(one.step, found.step.isel(chain=3, drop=True))
    assert state_distances(states.isel(chain=[3])).interval is None
    draws = state_distances(states.rename(chain="draw"))
    assert draws.interval is not None
    assert draws.step.dims == ("draw", "date")


def test_states_come_from_forecasts_and_posteriors() -> None:
    states = _states()
    data = states.rename(loc="factor_loc", scale="factor_scale").astype(np.float32)
    forecast = ReturnForecast(data.assign_attrs(dependence="factor"))
    posterior = _posterior(states)
    for source in (forecast, posterior):
        found = factor_states(source)
        assert found["loc"].dtype == np.float64
        np.testing.assert_allclose(found["scale"], states["scale"], rtol=1e-6)
        assert found.attrs["law"] == "prior"
    after = factor_states(posterior, "posterior")
    np.testing.assert_allclose(
        np.einsum("dkk->dk", after["covariance"]), after["scale"] ** 2, rtol=1e-12
    )
    bounds = state_distance_bounds(after)
    assert np.isnan(bounds["lower"][0])
    assert (bounds["lower"] <= bounds["upper"]).values[1:].all()
    whole = factor_states([forecast, forecast])
    assert whole.attrs["factors_matched"] == 0
    assert whole["loc"].dims == ("chain", "date", "factor")


def test_restarts_are_matched_before_their_factors_are_compared() -> None:
    posterior = _posterior(_states())
    turn = FactorAlignment(
        factors=tuple(NAMES),
        permutation=np.array([2, 0, 1]),
        sign=np.array([-1.0, 1.0, -1.0]),
        scale=np.array([0.5, 3.0, 7.0]),
        correlation=np.ones(3),
        affine_r_squared=np.ones(3),
        n_dates=0,
    )
    other = turn.apply(posterior)
    stacked = factor_states([posterior, other])
    assert stacked.attrs["factors_matched"] == 1
    assert stacked.attrs["weak_factors"] == []
    found = state_distances(stacked)
    np.testing.assert_allclose(found.by_factor[0], found.by_factor[1], rtol=1e-9)
    alone = state_distances(factor_states(other))
    np.testing.assert_allclose(alone.step, found.step[0])  # the total needs no match
    assert not np.allclose(alone.by_factor, found.by_factor[0], equal_nan=True)


def test_diagonal_posterior_agrees_with_both_bounds() -> None:
    states = _states()
    diagonal = np.einsum("dk,kl->dkl", states["scale"] ** 2, np.eye(FACTORS))
    states["covariance"] = (("date", "factor", "factor_other"), diagonal)
    bounds = state_distance_bounds(states)
    step = state_distances(states).step
    assert (bounds["lower"] <= step * (1 + 1e-12)).values[1:].all()
    np.testing.assert_array_less(bounds["upper"][1:], step[1:] * (1 + 1e-12))


# ---- bad input -----------------------------------------------------------------------------------


def test_bad_states_are_refused_by_name() -> None:
    states = _states()
    broken = states.copy(deep=True)
    broken["scale"].values[3, 1] = 0.0
    with pytest.raises(SpecError, match=r"scale must be finite and > 0; got others on 2021-03-04"):
        state_distances(broken)
    broken["loc"].values[2, 0] = np.nan
    with pytest.raises(SpecError, match=r"loc must be finite; got others on 2021-03-03"):
        pairwise_state_distances(broken)
    with pytest.raises(ShapeError, match="states must have loc and scale over date and factor"):
        state_distances(states.rename(factor="asset"))
    with pytest.raises(ShapeError, match="got none for scale"):
        state_distances(states[["loc"]])
    with pytest.raises(SpecError, match="dates must increase and be at least 2; got 1"):
        state_distances(states.isel(date=[0]))
    with pytest.raises(SpecError, match="dates must increase"):
        state_distances(states.isel(date=[1, 0]))
    with pytest.raises(SpecError, match=r"level must be in \(0, 1\); got 1"):
        state_distances(states, level=1)
    with pytest.raises(SpecError, match=r"got 2021-02-28 at state_path"):
        state_path(states, "2021-02-28", DAYS[0])
    with pytest.raises(SpecError, match=r"fractions must be .* got \(1.5,\)"):
        state_path(states, DAYS[0], DAYS[1], (1.5,))


def test_bad_covariances_are_refused_by_name() -> None:
    after = factor_states(_posterior(_states()), "posterior")
    with pytest.raises(ShapeError, match="states must have covariance over date, factor"):
        state_distance_bounds(after.drop_vars("covariance"))
    for place, value in (((2, 0, 1), 9.0), ((2, 0, 0), -1.0), ((2, 1, 1), np.nan)):
        broken = after.copy(deep=True)
        broken["covariance"].values[place] = value
        with pytest.raises(SpecError, match=r"positive definite; got others on 2021-03-03"):
            state_distance_bounds(broken)


def test_bad_sources_are_refused_by_name() -> None:
    posterior = _posterior(_states())
    forecast = ReturnForecast(xr.Dataset({"mean": ("date", np.zeros(DATES))}, {"date": DAYS}))
    with pytest.raises(SpecError, match="must have the factors' prior law; got mean"):
        factor_states(forecast)
    with pytest.raises(
        SpecError, match="law must be one of prior, posterior, encoder; got 'guide'"
    ):
        factor_states(posterior, "guide")
    with pytest.raises(SpecError, match="a forecast must be asked for the law that it knows"):
        factor_states(forecast, "posterior")
    with pytest.raises(SpecError, match="must have the factors' encoder law"):
        factor_states(posterior, "encoder")
    mixed: list[list[ReturnForecast | Posterior]] = [[], [posterior, forecast]]
    for sources in mixed:
        with pytest.raises(SpecError, match="source must be forecasts alone or posteriors alone"):
            factor_states(sources)
    later = replace(posterior, moments=posterior.moments.isel(date=slice(1, None)))
    with pytest.raises(ShapeError, match="sources must have the same dates; got 6 against 7"):
        factor_states([posterior, later])
