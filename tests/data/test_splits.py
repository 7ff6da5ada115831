"""Splits: purge arithmetic, no label across a boundary, and what is refused."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfi_pyro.data import DateSplit, split_dates
from nfi_pyro.data.splits import DateSpan, describe_splits, walk_forward
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


def test_a_split_of_an_older_run_has_no_embargo() -> None:
    stored = split_dates(DATES, embargo=3).as_dict()
    assert DateSplit.from_dict(stored).embargo == 3
    del stored["embargo"]
    assert DateSplit.from_dict(stored).embargo == 0


# ---- embargo and ends beyond the panel ----------------------------------------------------------


@pytest.mark.parametrize("embargo", [0, 1, 5])
def test_an_embargo_keeps_more_dates_clear(embargo: int) -> None:
    split = split_dates(
        DATES,
        train=(day(0), day(40)),
        validation=(day(41), day(70)),
        test=(day(71), day(100)),
        horizon=3,
        embargo=embargo,
    )
    train, validation, test = positions(split)
    assert (train, validation) == (slice(0, 37 - embargo), slice(41, 67 - embargo))
    assert test == slice(71, 101)
    assert (split.n_purged, split.embargo) == (2 * (4 + embargo), embargo)


def test_an_embargo_out_of_range_or_too_long_is_refused() -> None:
    with pytest.raises(SplitError, match="embargo must be an integer >= 0; got -1"):
        split_dates(DATES, embargo=-1)
    with pytest.raises(
        SplitError,
        match="validation must keep at least one date after purging 2 dates and an "
        f"embargo of 13 before the next span; got 15 dates from {day(70)}",
    ):
        split_dates(DATES, embargo=13)


def test_a_last_day_may_fall_into_a_holiday_but_not_into_next_month() -> None:
    last = DAYS[100] + pd.Timedelta(days=7)
    spans: dict[str, Any] = {"train": (day(0), day(40)), "validation": (day(43), day(70))}
    split = split_dates(DATES, **spans, test=(day(71), f"{last:%Y-%m-%d}"))
    assert positions(split)[2] == slice(71, 101)
    late = last + pd.Timedelta(days=1)
    with pytest.raises(
        SplitError,
        match=f"test must end inside the panel, .* got an end on {late:%Y-%m-%d} for a "
        f"panel up to {day(100)}",
    ):
        split_dates(DATES, **spans, test=(day(71), f"{late:%Y-%m-%d}"))
    with pytest.raises(SplitError, match="validation must end inside the panel"):
        split_dates(DATES, train=(day(0), day(40)), validation=(day(43), "2035-01-01"))


def test_dates_out_of_order_are_refused() -> None:
    mixed = DATES.copy()
    mixed[[3, 4]] = mixed[[4, 3]]
    with pytest.raises(SplitError, match=f"must strictly increase; got {day(4)} before {day(3)}"):
        split_dates(mixed)
    with pytest.raises(SplitError, match="dates must strictly increase"):
        walk_forward(np.repeat(DATES, 2), train=50, validation=7, test=7)


def test_a_time_of_day_is_within_its_day() -> None:
    dates = DATES + np.timedelta64(15, "h")
    assert DateSpan(day(2), day(4)).positions(dates) == slice(2, 5)
    split = split_dates(dates)
    assert positions(split, dates) == positions(split_dates(DATES))


# ---- walk-forward -------------------------------------------------------------------------------


def test_expanding_windows_train_on_all_that_went_before() -> None:
    splits = walk_forward(DATES, train=53, validation=13, test=17)
    # Tests begin at 66, 83 and 100; the last has the one date left.
    assert [positions(split) for split in splits] == [
        [slice(0, 51), slice(53, 64), slice(66, 83)],
        [slice(0, 68), slice(70, 81), slice(83, 100)],
        [slice(0, 85), slice(87, 98), slice(100, 101)],
    ]
    assert [split.n_purged for split in splits] == [4, 4, 4]


def test_rolling_windows_keep_their_size() -> None:
    label = {"start_lag": 0, "horizon": 3, "unit": "return"}
    splits = walk_forward(
        DATES, train=53, validation=13, test=17, mode="rolling", embargo=2, label=label
    )
    assert [positions(split) for split in splits] == [
        [slice(0, 48), slice(53, 61), slice(66, 83)],
        [slice(17, 65), slice(70, 78), slice(83, 100)],
        [slice(34, 82), slice(87, 95), slice(100, 101)],
    ]


def test_a_longer_step_leaves_dates_untested() -> None:
    splits = walk_forward(DATES, train=41, validation=7, test=5, step=23)
    assert [positions(split)[2] for split in splits] == [
        slice(48, 53),
        slice(71, 76),
        slice(94, 99),
    ]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    n=st.integers(40, 211),
    sizes=st.tuples(st.integers(12, 60), st.integers(12, 40), st.integers(1, 50)),
    start_lag=st.integers(0, 3),
    horizon=st.integers(1, 5),
    embargo=st.integers(0, 3),
    mode=st.sampled_from(["expanding", "rolling"]),
)
def test_walking_forward_never_sees_a_later_label(
    n: int, sizes: tuple[int, int, int], start_lag: int, horizon: int, embargo: int, mode: str
) -> None:
    dates = pd.bdate_range("2015-06-01", periods=n).to_numpy()
    train, validation, test = sizes
    if train + validation >= n:
        with pytest.raises(SplitError, match=r"must outnumber train \+ validation"):
            walk_forward(dates, train=train, validation=validation, test=test)
        return
    splits = walk_forward(
        dates,
        train=train,
        validation=validation,
        test=test,
        mode=mode,
        embargo=embargo,
        label={"start_lag": start_lag, "horizon": horizon},
    )
    reach = start_lag + horizon
    tested: list[int] = []
    for split in splits:
        spans = positions(split, dates)
        for before, after in pairwise(spans):
            realised = dates[before.stop - 1 + reach]
            assert realised < dates[after.start]
            assert after.start - before.stop == reach + embargo
        tested.extend(range(spans[2].start, spans[2].stop))
        # The same function purges: fixed spans of the same dates give the same split.
        whole: dict[str, tuple[int, int]] = {
            "train": (0 if mode == "expanding" else spans[1].start - train, spans[1].start - 1),
            "validation": (spans[1].start, spans[2].start - 1),
            "test": (spans[2].start, spans[2].stop - 1),
        }
        days = pd.DatetimeIndex(dates).strftime("%Y-%m-%d")
        named: dict[str, Any] = {name: (days[a], days[b]) for name, (a, b) in whole.items()}
        fixed = split_dates(
            dates,
            **named,
            start_lag=start_lag,
            horizon=horizon,
            embargo=embargo,
        )
        assert fixed == split
    assert tested == list(range(train + validation, n))


def test_bad_walks_are_refused() -> None:
    sizes: dict[str, Any] = {"train": 50, "validation": 10, "test": 10}
    with pytest.raises(SplitError, match="step must be >= test, or test spans overlap; got 9"):
        walk_forward(DATES, **sizes, step=9)
    with pytest.raises(SplitError, match=r"mode must be one of .*; got 'sliding'"):
        walk_forward(DATES, **sizes, mode="sliding")
    with pytest.raises(SplitError, match="train must be an integer >= 1; got 0"):
        walk_forward(DATES, train=0, validation=10, test=10)
    with pytest.raises(SplitError, match=r"test must be an integer >= 1; got 2\.5"):
        walk_forward(DATES, train=50, validation=10, test=2.5)  # type: ignore[arg-type]
    with pytest.raises(SplitError, match="step must be an integer >= 1; got True"):
        walk_forward(DATES, **sizes, step=True)
    with pytest.raises(SplitError, match="embargo must be an integer >= 0; got -2"):
        walk_forward(DATES, **sizes, embargo=-2)
    with pytest.raises(SplitError, match=r"label must have start_lag and horizon; got \['unit'\]"):
        walk_forward(DATES, **sizes, label={"unit": "return"})
    with pytest.raises(SplitError, match=f"train must keep at least one date .* from {day(0)}"):
        walk_forward(DATES, train=2, validation=10, test=10)


def test_splits_are_described_in_a_table() -> None:
    splits = walk_forward(DATES, train=53, validation=13, test=17)
    table = describe_splits(splits, DATES)
    assert list(table.columns) == [
        *("train_first", "train_last", "train_dates"),
        *("validation_first", "validation_last", "validation_dates"),
        *("test_first", "test_last", "test_dates", "purged", "embargo"),
    ]
    assert table["train_dates"].tolist() == [51, 68, 85]
    assert table["test_dates"].tolist() == [17, 17, 1]
    assert table.loc[1, "test_first"] == day(83)
    assert table.loc[2, "test_last"] == day(100)
    assert table["purged"].tolist() == [4, 4, 4]
    alone = split_dates(DATES, train=(day(0), day(40)), validation=(day(41), day(60)))
    row = describe_splits([alone], DATES).iloc[0]
    assert (row["test_first"], row["test_dates"]) == ("", 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # a bare year would end a span on its first of January
        ({"train": ("2020", "2020")}, "must parse as days; got '2020'"),
        ({"train": (day(0), "2020-03")}, "must parse as days; got '2020-03'"),
        ({"train": (day(0), "03-04-2020")}, "must parse as days; got '03-04-2020'"),
        ({"train": (day(0), "today")}, "must parse as days; got 'today'"),
        ({"train": (day(0),)}, "train must be a first and a last day; got"),
        ({"train": day(0)}, "train must be a first and a last day; got"),
        ({"start_lag": -5}, "start_lag must be an integer >= 0; got -5"),
        ({"horizon": 0}, "horizon must be an integer >= 1; got 0"),
        ({"horizon": 1.5}, "horizon must be an integer >= 1; got 1.5"),
    ],
)
def test_half_said_days_and_timings_are_refused(options: dict[str, Any], message: str) -> None:
    spans = {"train": (day(0), day(40)), "validation": (day(50), day(70))}
    with pytest.raises(SplitError, match=message):
        split_dates(DATES, **(spans | options))


@pytest.mark.parametrize(
    "label", [5, {"start_lag": "a", "horizon": 1}, {"start_lag": -3, "horizon": 1}]
)
def test_walk_forward_refuses_a_label_without_timing(label: Any) -> None:
    with pytest.raises(SplitError, match="start_lag"):
        walk_forward(DATES, train=50, validation=20, test=20, label=label)


@pytest.mark.parametrize(
    "dates",
    [
        None,
        ["soon"],
        np.arange(101),
        DATES[:, None],
        DAYS.tz_localize("UTC"),
        np.where(np.arange(101) == 7, np.datetime64("NaT"), DATES),
    ],
)
def test_dates_are_one_row_of_datetimes(dates: Any) -> None:
    with pytest.raises(SplitError, match="dates must be"):
        split_dates(dates)
    with pytest.raises(SplitError, match="dates must be"):
        walk_forward(dates, train=50, validation=20, test=20)


def test_one_split_is_described_like_several() -> None:
    split = split_dates(DATES)
    pd.testing.assert_frame_equal(describe_splits(split, DATES), describe_splits([split], DATES))
