import dataclasses
import math

import numpy as np
import pytest
import xarray as xr

from nfi_pyro.rendering import selection, verdicts
from nfi_pyro.rendering.formatting import (
    basis_points,
    count,
    day,
    interval,
    nats,
    number,
    percent,
    percent_interval,
    shortened,
)


@pytest.mark.parametrize(
    ("bounds", "wording"),
    [
        ((0.01, 0.03), "excludes zero"),
        ((-0.01, 0.03), "includes zero"),
        ((-0.03, -0.01), "wrong way round"),
        ((math.nan, math.nan), "nothing can be said"),
    ],
)
def test_rank_ic_wording_follows_the_interval(contents, bounds, wording):
    skill = dataclasses.replace(contents.information_coefficient, mean=0.01, interval=bounds)
    assert wording in verdicts.rank_ic_verdict(skill)


@pytest.mark.parametrize(
    ("advantage", "error", "words"),
    [
        (0.04, 0.008, ("better", "outside noise")),
        (0.002, 0.006, ("better", "within noise")),
        (-0.04, 0.008, ("worse", "outside noise")),
        (-0.002, 0.006, ("worse", "within noise")),
        (0.1, math.nan, ("better", "no standard error")),
        (math.nan, 0.1, ("cannot be computed",)),
    ],
)
def test_score_wording_follows_difference_and_error(advantage, error, words):
    text = verdicts.score_verdict("flat", advantage, error)
    assert all(word in text for word in words)


def test_best_baseline_is_the_highest_and_the_sign_is_the_model_minus_it(contents):
    best = verdicts.best_baseline(contents.scores)
    assert best is not None
    name, advantage, error = best
    assert (name, error) == ("market model", 0.006)
    assert advantage == pytest.approx(0.002)
    alone = dataclasses.replace(contents.scores, table=contents.scores.table.isel(forecast=[0]))
    assert verdicts.best_baseline(alone) is None


@pytest.mark.parametrize(
    ("shift", "wording"),
    [(-0.1, "too narrow"), (0.1, "too wide"), (0.0, "agrees with all 5 levels")],
)
def test_coverage_wording_follows_the_interval(contents, shift, wording):
    nominal = contents.calibration.coverage["nominal"]
    spread = {"observed": 0.0, "lower": -0.02, "upper": 0.02}
    coverage = xr.Dataset(
        {name: ("level", nominal.values + shift + by) for name, by in spread.items()},
        coords={"nominal": nominal},
    )
    calibration = dataclasses.replace(contents.calibration, coverage=coverage)
    assert wording in verdicts.coverage_verdict(calibration)
    line = "agrees with nominal" if shift == 0 else wording
    assert line in verdicts.coverage_phrase(calibration, 0.95)
    assert "not computed" in verdicts.coverage_phrase(calibration, 0.123)


@pytest.mark.parametrize(
    ("ends", "wording"), [(1.5, "too thin"), (0.5, "too heavy"), (1.0, "Neither end bin")]
)
def test_pit_wording_follows_the_end_bins(contents, ends, wording):
    density = xr.ones_like(contents.calibration.histogram)
    density[[0, -1]] = ends
    calibration = dataclasses.replace(
        contents.calibration,
        histogram=density,
        histogram_lower=density - 0.1,
        histogram_upper=density + 0.1,
    )
    assert wording in verdicts.pit_verdict(calibration)


def test_last_epoch_best_is_pointed_out(contents):
    history = contents.history.copy()
    history.attrs = {"best_epoch": 25}
    assert "longer training might score better" in verdicts.training_verdict(history)
    assert "longer" not in verdicts.training_verdict(contents.history)


def test_a_curve_that_is_no_bound_is_not_passed_off_as_one(contents):
    history = contents.history.copy()
    assert "not a bound" not in verdicts.training_verdict(history)
    history.attrs = {"objective": "marginal"}
    said = verdicts.training_verdict(history)
    assert 'maximised "marginal"' in said
    assert "not a bound on the evidence" in said


def test_coverage_levels_may_stand_on_the_dimension_itself(contents):
    coverage = contents.calibration.coverage
    levels = coverage["nominal"].values
    renamed = coverage.drop_vars("nominal").assign_coords(level=levels)
    calibration = dataclasses.replace(contents.calibration, coverage=renamed)
    np.testing.assert_array_equal(selection.nominal_levels(calibration), levels)


def test_cumulative_band_ends_at_n_times_the_interval(contents):
    skill = contents.information_coefficient
    last = selection.cumulative_rank_ic(skill).iloc[-1]
    exact = skill.mean + selection.Z_95 * skill.standard_error * np.array([-1.0, 1.0])
    assert last["total"] == pytest.approx(500 * skill.mean)
    assert last[["lower", "upper"]].to_numpy() == pytest.approx(500 * exact)


def test_monthly_means_equal_a_direct_mean(contents):
    daily = contents.information_coefficient.rank_ic
    table = selection.monthly_rank_ic(contents.information_coefficient)
    march = daily.sel(date=slice("2022-03-01", "2022-03-31")).mean()
    assert table.loc[2022, 3] == pytest.approx(float(march))
    assert list(table.columns) == list(range(1, 13))


def test_movement_is_the_root_mean_square_in_prior_sd():
    zeros = np.zeros((7, 3))
    posterior = zeros + np.array([0.5, 1.0, np.nan])
    posterior[0, 0] = np.nan
    factors = xr.Dataset(
        {
            "prior_loc": (("date", "factor"), zeros),
            "prior_scale": (("date", "factor"), zeros + 0.5),
            "posterior_loc": (("date", "factor"), posterior),
        }
    )
    moved = selection.factor_movement(factors)
    np.testing.assert_allclose(moved.to_numpy(), [1.0, 2.0, np.nan])
    assert selection.largest(moved, 2) == [0, 1]
    assert selection.largest(moved, 1) == [1]


def test_grouped_contributions_keep_the_sum_and_the_specific_part(large_contents):
    contribution = large_contents.portfolio.factor_contribution
    shown = selection.shown_contributions(contribution)
    assert len(shown) == selection.MOST_SOURCES
    assert shown.index[-1] == "specific"
    assert shown.index[-2] == "2 others"
    assert shown.sum() == pytest.approx(float(contribution.sum()))


def test_numbers_have_unit_sign_and_a_word_for_missing():
    assert percent(0.01234) == "1.23%"
    assert percent(-0.01234, 1, signed=True) == "−1.2%"
    assert basis_points(0.00123, signed=True) == "+12.3 bp"
    assert nats(-0.5, 2) == "−0.50 nats"
    assert number(-0.0001, 2, signed=True) == "0.00"
    assert number(math.inf) == "∞"
    assert number(1234567.0, 0) == count(1234567) == "1,234,567"
    missing = {percent(math.nan), nats(math.nan), interval(math.nan, 1.0)}
    assert missing | {day(np.datetime64("NaT"))} == {"n/a"}
    assert percent_interval(0.1, 0.2) == "10.0% to 20.0%"
    assert day(np.datetime64("2024-05-31")) == "2024-05-31"
    assert shortened("abcdef", 4) == "abc…"
