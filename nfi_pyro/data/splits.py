"""Date splits that never let a label reach into the next span."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from nfi_pyro.errors import SplitError, name_places

Span = tuple[str, str]
MODES = ("expanding", "rolling")
_DAY = re.compile(r"\d{4}-\d{1,2}-\d{1,2}(?:[ T].*)?|\d{8}")
MAX_OVERHANG = pd.Timedelta(days=7)  # a last day may fall into a holiday, not into another year


@dataclass(frozen=True)
class DateSpan:
    """First and last date of a span, both inclusive, as ISO days."""

    first: str
    last: str

    def positions(self, dates: np.ndarray) -> slice:
        """Return the positions of the span in increasing `dates`, as a slice.

        Raises
        ------
        SplitError
            If no date falls into the span.
        """
        index = pd.DatetimeIndex(dates)
        start = int(index.searchsorted(pd.Timestamp(self.first), side="left"))
        after = pd.Timestamp(self.last).normalize() + pd.Timedelta(days=1)
        stop = int(index.searchsorted(after, side="left"))  # a time of day is within its day
        if stop <= start:
            raise SplitError(
                f"a date span must hold at least one date of the panel; got {self.first} to "
                f"{self.last} for a panel of {index[0]:%Y-%m-%d} to {index[-1]:%Y-%m-%d}. "
                "Choose dates inside the panel."
            )
        return slice(start, stop)


@dataclass(frozen=True)
class DateSplit:
    """Training, validation and test dates after purging.

    Attributes
    ----------
    train, validation, test : DateSpan
        Spans of *signal* dates (the close at which the forecast is made); `test` may be absent.
    n_purged : int
        Signal dates dropped because their label is realised inside the next span, or within
        `embargo` dates before it.
    embargo : int
        Dates kept clear between the last label realised in a span and the next span.
    """

    train: DateSpan
    validation: DateSpan
    test: DateSpan | None
    n_purged: int
    embargo: int = 0

    def as_dict(self) -> dict[str, object]:
        """Return plain values for a run's provenance."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "DateSplit":
        """Return the split that `as_dict` wrote."""

        def span(name: str) -> DateSpan | None:
            value = values.get(name)
            return DateSpan(**value) if isinstance(value, Mapping) else None

        train, validation = span("train"), span("validation")
        if train is None or validation is None:
            raise SplitError(
                f"a stored split must name train and validation; got {sorted(values)}. "
                "The run's provenance is incomplete: fit again."
            )
        n_purged, embargo = (int(str(values.get(name, 0))) for name in ("n_purged", "embargo"))
        return cls(train, validation, span("test"), n_purged, embargo)


def split_dates(
    dates: np.ndarray,
    *,
    train: Span | None = None,
    validation: Span | None = None,
    test: Span | None = None,
    start_lag: int = 1,
    horizon: int = 1,
    embargo: int = 0,
) -> DateSplit:
    """Return a split whose labels are realised before the next span begins.

    The label of date ``t`` is known at the close of ``t + start_lag + horizon``. A date stays in
    its span only if that close is earlier than the first date of the next span, so the last
    ``start_lag + horizon`` dates before a boundary are purged. That purge makes the labels of two
    spans disjoint; returns and features may still be correlated over a few dates, against which
    an embargo drops more dates before each boundary.

    Parameters
    ----------
    dates : ndarray of datetime64, shape (date,)
        Strictly increasing trading dates of the panel.
    train, validation, test : pair of str, optional
        First and last date, inclusive. With none given the first 70 percent of the dates train,
        the next 15 validate and the last 15 test. `test` alone may be left out.
    start_lag, horizon : int
        Timing of the label in trading days.
    embargo : int
        Further dates dropped before each boundary, >= 0.

    Raises
    ------
    SplitError
        If spans overlap, are out of order, lie outside the panel or end more than 7 days after
        it, or are empty after purging.
    """
    index = _increasing(dates)
    if train is None and validation is None and test is None:
        train, validation, test = _default_spans(index)
    if train is None or validation is None:
        raise SplitError(
            "a split must name both train and validation; got "
            f"train={train} and validation={validation}. Give both, or neither for 70/15/15."
        )
    spans = [("train", train), ("validation", validation)]
    if test is not None:
        spans.append(("test", test))
    _check_count("start_lag", start_lag, 0)
    _check_count("horizon", horizon, 1)
    ranges = [(name, _span(name, span).positions(index.to_numpy())) for name, span in spans]
    _check_order(ranges, index)
    for name, span in spans:
        if pd.Timestamp(_day(span[1])) > index[-1] + MAX_OVERHANG:
            raise SplitError(
                f"{name} must end inside the panel, or at most {MAX_OVERHANG.days} days after it; "
                f"got an end on {_day(span[1])} for a panel up to {index[-1]:%Y-%m-%d}. End it "
                "there."
            )
    return _purged(ranges, index, start_lag + horizon, embargo)


def walk_forward(
    dates: np.ndarray,
    *,
    train: int,
    validation: int,
    test: int,
    step: int | None = None,
    mode: str = "expanding",
    embargo: int = 0,
    label: Mapping[Any, Any] | None = None,
) -> tuple[DateSplit, ...]:
    """Return splits that move forward in time, each purged like `split_dates`.

    The first split trains on the first `train` dates, validates on the next `validation` and
    tests on the next `test`; each further one begins its test `step` dates later. With the
    default step the test spans tile the dates after the first training and validation. The last
    test span may be shorter, down to one date, so that no date is left untested.

    Parameters
    ----------
    dates : ndarray of datetime64, shape (date,)
        Strictly increasing trading dates of the panel.
    train, validation, test : int
        Sizes in dates before purging, >= 1. Under "expanding" `train` is that of the first split.
    step : int, optional
        Dates from one test span to the next, >= `test` (default: equal); more leaves dates
        between test spans untested.
    mode : "expanding" or "rolling"
        Training begins at the first date, or moves along at constant size.
    embargo : int
        See `split_dates`.
    label : mapping, optional
        With start_lag and horizon: the attributes of the panel's forward_return. Default 1 and 1.

    Returns
    -------
    tuple of DateSplit
        In time order, at least one.

    Raises
    ------
    SplitError
        If a size, the step or the mode is out of range, the dates are too few for one test date,
        or a span is empty after purging.
    """
    index = _increasing(dates)
    step = test if step is None else step
    for name, size in (("train", train), ("validation", validation), ("test", test)):
        _check_count(name, size, 1)
    _check_count("step", step, 1)
    if step < test:
        raise SplitError(
            f"step must be >= test, or test spans overlap; got {step} and {test}. Use step={test}."
        )
    if mode not in MODES:
        raise SplitError(f"mode must be one of {MODES}; got {mode!r}. Choose one.")
    timing = {"start_lag": 1, "horizon": 1} if label is None else label
    if not isinstance(timing, Mapping) or not {"start_lag", "horizon"} <= set(timing):
        found = sorted(map(str, timing)) if isinstance(timing, Mapping) else repr(timing)
        raise SplitError(
            f"label must have start_lag and horizon; got {found}. Use the "
            "attributes of panel['forward_return']."
        )
    _check_count("start_lag", timing["start_lag"], 0)
    _check_count("horizon", timing["horizon"], 1)
    reach = int(timing["start_lag"]) + int(timing["horizon"])
    n = len(index)
    if train + validation >= n:
        raise SplitError(
            f"dates must outnumber train + validation = {train + validation}; got {n}. Use "
            "smaller sizes or a longer history."
        )
    splits = []
    for start in range(train + validation, n, step):
        middle = start - validation
        ranges = [
            ("train", slice(0 if mode == "expanding" else middle - train, middle)),
            ("validation", slice(middle, start)),
            ("test", slice(start, min(start + test, n))),
        ]
        splits.append(_purged(ranges, index, reach, embargo))
    return tuple(splits)


def describe_splits(splits: DateSplit | Sequence[DateSplit], dates: np.ndarray) -> pd.DataFrame:
    """Return one row per split: first date, last date and number of dates of each span, purged.

    Parameters
    ----------
    splits : DateSplit, or sequence of them
    dates : ndarray of datetime64, shape (date,)
        The trading dates that were split.

    Returns
    -------
    DataFrame
        Index ``split`` from 0; columns ``train_first``, ``train_last`` (ISO days),
        ``train_dates``, the same of validation and test, ``purged`` and ``embargo``. A split
        without a test has empty days and 0 dates there.

    Raises
    ------
    SplitError
        If a span holds none of the dates.
    """
    rows = []
    for split in (splits,) if isinstance(splits, DateSplit) else splits:
        row: dict[str, object] = {}
        for name in ("train", "validation", "test"):
            span: DateSpan | None = getattr(split, name)
            row[f"{name}_first"] = span.first if span else ""
            row[f"{name}_last"] = span.last if span else ""
            where = span.positions(dates) if span else slice(0, 0)
            row[f"{name}_dates"] = where.stop - where.start
        rows.append(row | {"purged": split.n_purged, "embargo": split.embargo})
    return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="split"))


def _purged(
    ranges: list[tuple[str, slice]], index: pd.DatetimeIndex, reach: int, embargo: int
) -> DateSplit:
    """Return the split of some ordered ranges less what is purged before each boundary."""
    _check_count("embargo", embargo, 0)
    lost = f"{reach} dates" + (f" and an embargo of {embargo}" if embargo else "")
    kept: dict[str, DateSpan] = {}
    n_purged = 0
    for position, (name, where) in enumerate(ranges):
        stop = where.stop
        if position + 1 < len(ranges):
            stop = min(stop, ranges[position + 1][1].start - reach - embargo)
        if stop <= where.start:
            raise SplitError(
                f"{name} must keep at least one date after purging {lost} before the next "
                f"span; got {where.stop - where.start} dates from {index[where.start]:%Y-%m-%d}. "
                "Use a longer span."
            )
        n_purged += int(where.stop - stop)
        kept[name] = DateSpan(f"{index[where.start]:%Y-%m-%d}", f"{index[stop - 1]:%Y-%m-%d}")
    return DateSplit(kept["train"], kept["validation"], kept.get("test"), n_purged, embargo)


def _check_count(name: str, value: object, least: int) -> None:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or int(value) < least:  # type: ignore[call-overload]
        raise SplitError(f"{name} must be an integer >= {least}; got {value!r}. Count in dates.")


def _increasing(dates: np.ndarray) -> pd.DatetimeIndex:
    """Return dates as an index, or name the first that is out of order."""
    try:
        index = pd.DatetimeIndex(np.ravel(dates))
    except (TypeError, ValueError) as error:
        raise SplitError(
            f"dates must be datetimes; got {error}. Use panel['date'].values."
        ) from error
    kind, shape = np.asarray(dates).dtype, np.shape(dates)
    missing = int(np.count_nonzero(index.isna()))
    if len(shape) != 1 or kind.kind in "biuf" or missing or index.tz is not None:
        zone = f" with the time zone {index.tz}" if index.tz is not None else ""
        raise SplitError(
            f"dates must be one row of datetimes without a zone, none missing; got {kind} of shape "
            f"{shape}{zone}, {missing} missing. Use panel['date'].values."
        )
    falls = np.flatnonzero(index[1:] <= index[:-1])
    if falls.size:
        days = index.strftime("%Y-%m-%d")
        places = [f"{days[int(k)]} before {days[int(k) + 1]}" for k in falls]
        raise SplitError(
            f"dates must strictly increase; got {name_places(places)}. Sort them, one row a date."
        )
    return index


def _span(name: str, span: object) -> DateSpan:
    """Return a pair of days as a span."""
    if isinstance(span, str) or not isinstance(span, Sequence) or len(span) != 2:
        raise SplitError(
            f"{name} must be a first and a last day; got {span!r}. Write (YYYY-MM-DD, YYYY-MM-DD)."
        )
    return DateSpan(*map(_day, span))


def _day(value: object) -> str:
    """Return `value` as an ISO day, or say that it is not a date."""
    try:
        # A bare year would end a span on its first of January, and 01-02-2010 is two days.
        if not _DAY.fullmatch(str(value)):
            raise ValueError(value)
        return f"{pd.Timestamp(str(value)):%Y-%m-%d}"
    except ValueError as error:
        raise SplitError(
            f"a split's dates must parse as days; got {value!r}. Write YYYY-MM-DD."
        ) from error


def _default_spans(index: pd.DatetimeIndex) -> tuple[Span, Span, Span]:
    """Return 70/15/15 percent of the dates, in order."""
    n = len(index)
    first, second = int(n * 0.70), int(n * 0.85)
    if first < 1 or second <= first or n <= second:
        raise SplitError(
            f"a panel must hold at least 7 dates to be split 70/15/15; got {n}. Name the spans."
        )
    days = [f"{day:%Y-%m-%d}" for day in index]
    return (
        (days[0], days[first - 1]),
        (days[first], days[second - 1]),
        (days[second], days[n - 1]),
    )


def _check_order(ranges: list[tuple[str, slice]], index: pd.DatetimeIndex) -> None:
    """Refuse spans that overlap or run backwards."""
    for (earlier, before), (later, after) in pairwise(ranges):
        if after.start < before.stop:
            raise SplitError(
                f"{earlier} and {later} must not overlap; got {earlier} to "
                f"{index[before.stop - 1]:%Y-%m-%d} and {later} from "
                f"{index[after.start]:%Y-%m-%d}. End {earlier} earlier."
            )
