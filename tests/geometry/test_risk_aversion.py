"""Risk-adjusted return and its price of risk: fixed, by schedule, by distance moved."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from nfi_pyro.errors import SpecError
from nfi_pyro.geometry import (
    FisherManifold,
    StateDistances,
    risk_adjusted_return,
    scheduled_risk_aversion,
    state_distances,
    state_risk_aversion,
)
from tests.geometry.closed_laws import draws, log_normal_law, network_law, pricing_law, tensor

DATES, FACTORS, WINDOW = 11, 3, 5
DAYS = pd.bdate_range("2021-03-01", periods=DATES)


def states(pace: float = 1.0, chains: int = 0, seed: int = 0) -> xr.Dataset:
    """Factors whose law moves by steps of random size, in proportion to `pace`."""
    rng = np.random.default_rng(seed)
    shape = (chains, DATES, FACTORS) if chains else (DATES, FACTORS)
    loc = np.cumsum(pace * rng.normal(size=shape), axis=-2)
    dims = ("chain", "date", "factor") if chains else ("date", "factor")
    coords = {"date": DAYS, "factor": [f"u{place}" for place in range(FACTORS)]}
    return xr.Dataset({"loc": (dims, loc), "scale": (dims, np.ones(shape))}, coords)


def moved(pace: float = 1.0, chains: int = 0) -> StateDistances:
    return state_distances(states(pace, chains))


# ---- objective -----------------------------------------------------------------------------------


def test_of_a_normal_law_it_is_mean_less_lambda_variance() -> None:
    beta = draws(7, 2, seed=1)
    found = risk_adjusted_return(log_normal_law, 0.3)(beta)
    want = beta[..., 0] - 0.3 * (2.0 * beta[..., 1]).exp()
    torch.testing.assert_close(found, want, rtol=1e-13, atol=1e-14)
    by_row = risk_adjusted_return(log_normal_law, torch.arange(7.0))(beta)
    want = beta[..., 0] - torch.arange(7.0) * (2.0 * beta[..., 1]).exp()
    torch.testing.assert_close(by_row, want, rtol=1e-13, atol=1e-14)


def test_of_a_mixture_it_is_that_of_its_draws() -> None:
    law, beta, n_draws = network_law(FACTORS, 3), draws(FACTORS, seed=1), 200_000
    logits, loc, log_scale = law(beta)
    rng = np.random.default_rng(5)
    which = rng.choice(3, size=n_draws, p=torch.softmax(logits, -1).numpy())
    sample = loc.numpy()[which] + log_scale.exp().numpy()[which] * rng.normal(size=n_draws)
    gap = (sample - sample.mean()) ** 2
    score = sample - 0.7 * gap
    found = float(risk_adjusted_return(law, 0.7)(beta))
    assert abs(found - score.mean()) < 4.0 * score.std() / math.sqrt(n_draws)


def test_its_natural_gradient_is_finite_and_falls_with_lambda() -> None:
    beta, manifold = tensor(0.2, -0.4), FisherManifold(log_normal_law, 0.0)
    for aversion in (0.0, 0.5):
        found = manifold.natural_gradient(risk_adjusted_return(log_normal_law, aversion), beta)
        variance = math.exp(-0.8)
        want = tensor(variance, -aversion * variance)  # G^-1 = diag(sd^2, 1/2)
        torch.testing.assert_close(found, want, rtol=0, atol=1e-6)


def test_a_rule_by_date_gives_the_laws_own_date() -> None:
    law = pricing_law(2, 2)
    rule = scheduled_risk_aversion(
        pd.DatetimeIndex(["2024-01-01", law.date, "2024-01-03"]),
        {"2024-01-01": 1.0, "2024-01-02": 5.0, "2024-01-03": 9.0},
    )
    assert float(risk_adjusted_return(law, rule).risk_aversion) == 5.0
    assert float(risk_adjusted_return(law, rule, date="2024-01-03").risk_aversion) == 9.0
    with pytest.raises(SpecError, match=r"must hold the law's date; got 2020-01-01"):
        risk_adjusted_return(replace(law, date=np.datetime64("2020-01-01")), rule)
    with pytest.raises(SpecError, match=r"must hold the law's date; got None"):
        risk_adjusted_return(log_normal_law, rule)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_lambda_must_be_finite_and_not_negative(value: float) -> None:
    with pytest.raises(SpecError, match=r"risk_aversion must be finite and >= 0; got"):
        risk_adjusted_return(log_normal_law, value)


# ---- schedule ------------------------------------------------------------------------------------


def test_a_schedule_holds_until_the_next_entry() -> None:
    found = scheduled_risk_aversion(DAYS, {DAYS[7]: 4.0, "2021-02-01": 2.0, "2021-03-06": 3.0})
    assert found.to_numpy().tolist() == [2.0] * 5 + [3.0] * 2 + [4.0] * 4
    assert found.dims == ("date",)
    assert found.attrs["units"] == "1 / decimal return"


def test_later_entries_change_nothing_before_them() -> None:
    early = scheduled_risk_aversion(DAYS[:7], {DAYS[0]: 2.0})
    late = scheduled_risk_aversion(DAYS, {DAYS[0]: 2.0, DAYS[7]: 99.0})
    xr.testing.assert_identical(late.isel(date=slice(0, 7)), early)


def test_a_schedule_must_cover_the_dates() -> None:
    with pytest.raises(SpecError, match=r"none in force at 2021-03-01, 2021-03-02\."):
        scheduled_risk_aversion(DAYS, {DAYS[2]: 1.0})
    with pytest.raises(SpecError, match=r"none in force"):
        scheduled_risk_aversion(DAYS, {})
    with pytest.raises(SpecError, match=r"schedule must hold finite values >= 0; got -1"):
        scheduled_risk_aversion(DAYS, {DAYS[0]: 1.0, DAYS[3]: -1.0})


# ---- state ---------------------------------------------------------------------------------------


def test_it_is_the_stated_form() -> None:
    distances = moved()
    found = state_risk_aversion(distances, 2.0, sensitivity=0.5, window=WINDOW)
    step = distances.step.to_numpy()
    assert bool(found.isel(date=slice(0, WINDOW)).isnull().all())
    for place in range(WINDOW, DATES):
        pace = step[place - WINDOW + 1 : place + 1].mean()
        assert float(found[place]) == pytest.approx(2.0 * (1.0 + 0.5 * pace), rel=1e-13)


def test_it_rises_with_the_distance_travelled() -> None:
    paces = [state_risk_aversion(moved(pace), 2.0, window=WINDOW) for pace in (0.1, 0.3, 1.0, 3.0)]
    for slow, fast in itertools.pairwise(paces):
        assert bool((fast > slow).isel(date=slice(WINDOW, None)).all())


def test_a_market_that_stands_still_has_the_base() -> None:
    still = state_risk_aversion(moved(0.0), 2.0, window=WINDOW).isel(date=slice(WINDOW, None))
    np.testing.assert_allclose(still, 2.0, rtol=1e-12)
    deaf = state_risk_aversion(moved(), 2.0, sensitivity=0.0, window=WINDOW)
    np.testing.assert_allclose(deaf.isel(date=slice(WINDOW, None)), 2.0, rtol=1e-12)


def test_it_knows_nothing_of_the_future() -> None:
    path = states()
    other = path.copy(deep=True)
    other["loc"][8:] += 50.0
    found, again = (
        state_risk_aversion(state_distances(one), 2.0, window=WINDOW) for one in (path, other)
    )
    xr.testing.assert_identical(found.isel(date=slice(0, 8)), again.isel(date=slice(0, 8)))
    assert bool((again > found).isel(date=slice(8, None)).all())


def test_chains_are_kept_and_one_must_be_chosen() -> None:
    rule = state_risk_aversion(moved(chains=2), 2.0, window=WINDOW)
    assert rule.dims == ("chain", "date")
    with pytest.raises(SpecError, match=r"must have the dimension date alone; got"):
        risk_adjusted_return(log_normal_law, rule, date=DAYS[-1].to_datetime64())
    chosen = rule.isel(chain=1, drop=True)
    value = risk_adjusted_return(log_normal_law, chosen, date=DAYS[-1].to_datetime64())
    assert float(value.risk_aversion) == float(chosen[-1])


def test_a_date_without_a_full_window_is_refused() -> None:
    rule = state_risk_aversion(moved(), 2.0, window=WINDOW)
    with pytest.raises(SpecError, match=r"risk_aversion must be finite .* NaN before its window"):
        risk_adjusted_return(log_normal_law, rule, date="2021-03-01")


def test_its_arguments_have_ranges() -> None:
    with pytest.raises(SpecError, match=r"base must be finite and > 0; got 0"):
        state_risk_aversion(moved(), 0.0)
    with pytest.raises(SpecError, match=r"sensitivity must be finite and >= 0; got -1"):
        state_risk_aversion(moved(), 1.0, sensitivity=-1.0)
    with pytest.raises(SpecError, match=r"window must be at least 1 and below .*, 11; got 21"):
        state_risk_aversion(moved(), 1.0)
