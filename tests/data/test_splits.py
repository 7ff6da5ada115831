"""Splits: purge arithmetic, no label across a boundary, and what is refused."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfi_pyro.data import DateSplit, split_dates
from nfi_pyro.data.splits import DateSpan
from nfi_pyro.errors import SplitError

DAYS = pd.bdate_range("2020-01-01", periods=101)
DATES = DAYS.to_numpy()


def day(position: int) -> str:
    return f"{DAYS[position]:%Y-%m-%d}"


def positions(split: DateSplit, dates: np.ndarray = DATES) -> list[slice]:
    spans = [split.train, split.validation, split.test]
    return [span.positions(dates) for span in spans if span is not None]


def test_default_is_70_15_15_less_what_is_purged() -> None:
    train, validation, test = positions(split_dates(DATES))
    # 101 dates: boundaries at 70 and 85, two dates purged before each.
    assert (train, validation, test) == (slice(0, 68), slice(70, 83), slice(85, 101))
    assert split_dates(DATES).n_purged == 4


@pytest.mark.parametrize(("start_lag", "horizon"), [(0, 1), (1, 1), (1, 5), (2, 3), (3, 7)])
def test_the_last_dates_before_a_boundary_are_purged(start_lag: int, horizon: int) -> None:
    reach = start_lag + horizon
    split = split_dates(
        DATES,
        train=(day(0), day(40)),
        validation=(day(41), day(70)),
        test=(day(71), day(100)),
        start_lag=start_lag,
        horizon=horizon,
    )
    train, validation, test = positions(split)
    assert train == slice(0, 41 - reach)
    assert validation == slice(41, 71 - reach)
    assert test == slice(71, 101)
    assert split.n_purged == 2 * reach
    # The last label kept is realised at the close before the next span's first date.
    assert train.stop - 1 + reach == validation.start - 1
    assert validation.stop - 1 + reach == test.start - 1


def test_a_gap_between_spans_counts_towards_the_purge() -> None:
    split = split_dates(
        DATES, train=(day(0), day(40)), validation=(day(43), day(60)), start_lag=1, horizon=3
    )
    train, validation = positions(split)
    assert (train, validation) == (slice(0, 39), slice(43, 61))
    assert split.n_purged == 2
    wide = split_dates(DATES, train=(day(0), day(40)), validation=(day(50), day(60)))
    assert (positions(wide)[0], wide.n_purged) == (slice(0, 41), 0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    n=st.integers(60, 211),
    start_lag=st.integers(0, 3),
    horizon=st.integers(1, 5),
)
def test_no_label_reaches_the_next_span(n: int, start_lag: int, horizon: int) -> None:
    dates = pd.bdate_range("2015-06-01", periods=n).to_numpy()
    split = split_dates(dates, start_lag=start_lag, horizon=horizon)
    spans = positions(split, dates)
    for before, after in pairwise(spans):
        assert before.stop - 1 + start_lag + horizon < after.start
        # And not one date more than needed is lost.
        assert before.stop + start_lag + horizon >= after.start
    kept = sum(span.stop - span.start for span in spans)
    assert kept + split.n_purged == n


def test_the_test_span_may_be_left_out() -> None:
    split = split_dates(DATES, train=(day(0), day(40)), validation=(day(41), day(60)))
    assert split.test is None
    assert positions(split)[1] == slice(41, 61)
    assert split.n_purged == 2


def test_spans_of_one_date_are_allowed() -> None:
    split = split_dates(
        DATES, train=(day(5), day(5)), validation=(day(8), day(8)), test=(day(11), day(11))
    )
    assert positions(split) == [slice(5, 6), slice(8, 9), slice(11, 12)]
    assert split.n_purged == 0


def test_a_date_between_trading_days_is_the_nearest_inside() -> None:
    # 2020-01-04 and 05 are a weekend.
    assert DateSpan("2020-01-04", "2020-01-05").first == "2020-01-04"
    assert DateSpan("2020-01-04", "2020-01-06").positions(DATES) == slice(3, 4)
    assert DateSpan("2020-01-02", "2020-01-05").positions(DATES) == slice(1, 3)


# ---- refusals -----------------------------------------------------------------------------------


def test_overlapping_spans_are_refused() -> None:
    with pytest.raises(
        SplitError, match=f"train and validation must not overlap; got train to {day(45)}"
    ):
        split_dates(DATES, train=(day(0), day(45)), validation=(day(45), day(60)))
    with pytest.raises(SplitError, match="validation and test must not overlap"):
        split_dates(
            DATES,
            train=(day(0), day(20)),
            validation=(day(30), day(60)),
            test=(day(59), day(80)),
        )


def test_spans_out_of_order_are_refused() -> None:
    with pytest.raises(SplitError, match="train and validation must not overlap"):
        split_dates(DATES, train=(day(50), day(90)), validation=(day(0), day(40)))


def test_a_span_that_the_purge_empties_is_refused() -> None:
    with pytest.raises(SplitError, match="train must keep at least one date after purging 2 dates"):
        split_dates(DATES, train=(day(0), day(1)), validation=(day(2), day(60)))


def test_a_span_outside_the_panel_is_refused() -> None:
    with pytest.raises(
        SplitError, match="must hold at least one date of the panel; got 2019-01-01"
    ):
        split_dates(DATES, train=("2019-01-01", "2019-06-01"), validation=(day(10), day(20)))
    with pytest.raises(SplitError, match="must hold at least one date"):
        split_dates(DATES, train=(day(20), day(10)), validation=(day(30), day(40)))


def test_a_split_names_both_or_none() -> None:
    with pytest.raises(SplitError, match="must name both train and validation; got train=None"):
        split_dates(DATES, validation=(day(0), day(10)))
    with pytest.raises(SplitError, match="and validation=None"):
        split_dates(DATES, test=(day(0), day(10)))


def test_what_is_no_date_is_refused() -> None:
    with pytest.raises(SplitError, match="must parse as days; got 'soon'"):
        split_dates(DATES, train=("soon", day(3)), validation=(day(10), day(20)))


@pytest.mark.parametrize("n", [2, 5, 6])
def test_too_few_dates_for_the_default_are_refused(n: int) -> None:
    with pytest.raises(SplitError, match=r"at least (7 dates to be split|one date after purging)"):
        split_dates(DATES[:n])


def test_a_split_survives_json() -> None:
    for split in (
        split_dates(DATES),
        split_dates(DATES, train=(day(0), day(40)), validation=(day(41), day(60))),
    ):
        assert DateSplit.from_dict(json.loads(json.dumps(split.as_dict()))) == split
    with pytest.raises(SplitError, match=r"must name train and validation; got \['test'\]"):
        DateSplit.from_dict({"test": {"first": day(0), "last": day(1)}})
