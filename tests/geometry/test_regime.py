"""Regime alarm: the rate it states on quiet states, and shifts that were planted."""

import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.errors import SpecError
from nfi_pyro.geometry import (
    calibrate_regime_alarm,
    pairwise_state_distances,
    regime_shifts,
    shift_statistic,
    state_distances,
)

WINDOW, STRETCH, RATE = 2, 5, 0.1
N_STRETCHES = 9  # the fewest for a rate of 0.1
N_QUIET = 2 * WINDOW - 1 + N_STRETCHES * STRETCH


def _states(n_dates: int, seed: int, memory: float = 0.0) -> xr.Dataset:
    """States of three factors whose loc and log scale are stationary with AR(1) noise."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n_dates, 2, 3))
    path = noise.copy()
    for date in range(1, n_dates):
        path[date] = memory * path[date - 1] + math.sqrt(1.0 - memory**2) * noise[date]
    dates = pd.bdate_range("2020-01-01", periods=n_dates)
    return xr.Dataset(
        {
            "loc": (("date", "factor"), 0.3 * path[:, 0]),
            "scale": (("date", "factor"), np.exp(0.2 * path[:, 1])),
        },
        {"date": dates, "factor": ["z0", "z1", "z2"]},
    )


def _quiet(states: xr.Dataset) -> xr.Dataset:
    return states.isel(date=slice(0, N_QUIET))


# ---- the statistic -------------------------------------------------------------------------------


def test_statistic_is_the_energy_distance_of_two_windows() -> None:
    states = _states(11, seed=1)
    table = pairwise_state_distances(states).to_numpy()
    found = shift_statistic(states, WINDOW)
    assert np.isnan(found[: 2 * WINDOW - 1]).all()
    for date in (3, 8, 10):
        late = range(date - 1, date + 1)
        early = range(date - 3, date - 1)
        cross = np.mean([table[i, j] for i in late for j in early])
        own = sum(np.mean([table[i, j] for i in part for j in part]) for part in (late, early))
        assert float(found[date]) == pytest.approx(2.0 * cross - own, rel=1e-12)
    step = state_distances(states).step
    np.testing.assert_allclose(shift_statistic(states, 1)[1:], 2.0 * step[1:])


def test_statistic_knows_nothing_of_later_dates_or_of_the_factors_names() -> None:
    states = _states(17, seed=2)
    changed = states.copy(deep=True)
    changed["loc"][11:] = 9.0
    one, two = shift_statistic(states, WINDOW), shift_statistic(changed, WINDOW)
    xr.testing.assert_identical(one[:11], two[:11])
    assert (two[11:13] > one[11:13]).all()
    turned = (states * xr.DataArray([2.0, 0.1, 5.0], dims="factor")).isel(factor=[2, 0, 1])
    np.testing.assert_allclose(shift_statistic(turned, WINDOW), one, atol=1e-12)


def test_statistic_is_the_mean_over_fits() -> None:
    fits = [_states(13, seed=seed) for seed in (3, 4)]
    both = xr.concat(fits, pd.RangeIndex(2, name="chain"))
    oracle = np.mean([shift_statistic(one, WINDOW) for one in fits], axis=0)
    np.testing.assert_allclose(shift_statistic(both, WINDOW), oracle)


# ---- the rate ------------------------------------------------------------------------------------


def test_threshold_is_the_order_statistic_of_stretches() -> None:
    states = _states(N_QUIET + 3, seed=5)  # the first 3 are too few for a stretch of their own
    alarm = calibrate_regime_alarm(states, window=WINDOW, stretch=STRETCH, rate=0.3)
    statistic = shift_statistic(states, WINDOW).to_numpy()
    oracle = [statistic[-STRETCH * k :][:STRETCH].max() for k in range(N_STRETCHES, 0, -1)]
    np.testing.assert_array_equal(alarm.maxima, oracle)
    assert alarm.threshold == np.sort(oracle)[6]  # ceil(10 * 0.7) = 7th of 9
    assert alarm.attained_rate == pytest.approx(0.3)
    assert alarm.last_date == states["date"].to_numpy()[-1]
    tight = calibrate_regime_alarm(states, window=WINDOW, stretch=STRETCH, rate=0.19)
    assert tight.attained_rate == pytest.approx(0.1)
    assert tight.threshold == max(oracle)


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_quiet_stretches_raise_alarms_at_the_stated_rate(memory: float) -> None:
    repeats, raised = 160, 0
    for seed in range(repeats):
        states = _states(N_QUIET + STRETCH, seed, memory)
        alarm = calibrate_regime_alarm(_quiet(states), window=WINDOW, stretch=STRETCH, rate=RATE)
        found = regime_shifts(states, alarm)
        assert int(found.series["monitored"].sum()) == STRETCH
        raised += bool(found.series["alarm"].any())
    error = math.sqrt(RATE * (1.0 - RATE) / repeats)
    assert abs(raised / repeats - RATE) < 3.0 * error  # attained exactly: 1 - 9/10


@pytest.mark.parametrize("kind", ["moved", "restless"])
def test_a_planted_shift_is_found(kind: str) -> None:
    repeats, found_in, place = 20, 0, N_QUIET + 4
    for seed in range(repeats):
        states = _states(N_QUIET + 2 * STRETCH, seed, memory=0.5)
        if kind == "moved":
            states["loc"][place:] += 2.0
        else:
            states["scale"][place:] *= 2.5
        alarm = calibrate_regime_alarm(_quiet(states), window=WINDOW, stretch=STRETCH, rate=RATE)
        found = regime_shifts(states, alarm)
        days = states["date"].to_numpy()[[place, place + 2 * WINDOW]]
        first = found.series["date"].to_numpy()[found.series["alarm"].to_numpy()]
        found_in += bool(((first >= days[0]) & (first <= days[1])).any())
    assert found_in >= 18


def test_episodes_and_p_values_agree_with_the_alarm() -> None:
    states = _states(N_QUIET + 3 * STRETCH, seed=6)
    states["loc"][N_QUIET + 6 :] += 3.0
    alarm = calibrate_regime_alarm(_quiet(states), window=WINDOW, stretch=STRETCH, rate=RATE)
    found = regime_shifts(states, alarm)
    series, episodes = found.series, found.episodes
    raised = series["alarm"].to_numpy()
    assert raised.any()
    np.testing.assert_array_equal(series["p_value"].notnull(), series["monitored"])
    low = series["p_value"].to_numpy() <= alarm.attained_rate + 1e-12
    np.testing.assert_array_equal(low, raised)
    covered = np.zeros(len(raised), dtype=bool)
    dates = series["date"].to_numpy()
    for one in range(episodes.sizes["episode"]):
        part = episodes.isel(episode=one)
        inside = (dates >= part["start"].to_numpy()) & (dates <= part["end"].to_numpy())
        covered |= inside
        assert float(part["statistic"]) == series["statistic"].to_numpy()[inside].max()
        assert float(series["statistic"].sel(date=part["peak"])) == float(part["statistic"])
    np.testing.assert_array_equal(covered, raised)
    calm = regime_shifts(_quiet(states), alarm)  # the calibration's own dates are not judged
    assert not calm.series["monitored"].any()
    assert calm.episodes.sizes["episode"] == 0


# ---- bad input -----------------------------------------------------------------------------------


def test_bad_input_is_refused_by_name() -> None:
    states = _states(N_QUIET, seed=7)
    with pytest.raises(SpecError, match=r"48 dates for a rate of 0.1 by 5 dates \(9 stretches\)"):
        calibrate_regime_alarm(
            states.isel(date=slice(1, None)), window=WINDOW, stretch=STRETCH, rate=RATE
        )
    with pytest.raises(SpecError, match=r"rate in \(0, 1\); got 5 and 1"):
        calibrate_regime_alarm(states, window=WINDOW, stretch=STRETCH, rate=1)
    with pytest.raises(SpecError, match="stretch must be >= 1"):
        calibrate_regime_alarm(states, stretch=0)
    with pytest.raises(SpecError, match="window must be >= 1; got 0"):
        shift_statistic(states, 0)
    with pytest.raises(SpecError, match="dates must increase and be at least 4; got 3"):
        shift_statistic(states.isel(date=slice(0, 3)), WINDOW)
    broken = states.copy(deep=True)
    broken["loc"][4] = np.nan
    with pytest.raises(SpecError, match="loc must be finite; got others on 2020-01-07"):
        calibrate_regime_alarm(broken, window=WINDOW, stretch=STRETCH, rate=RATE)
