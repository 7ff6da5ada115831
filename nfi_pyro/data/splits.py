"""Date splits that never let a label reach into the next span."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from nfi_pyro.errors import SplitError

Span = tuple[str, str]


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
        stop = int(index.searchsorted(pd.Timestamp(self.last), side="right"))
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
        Signal dates dropped because their label is realised inside the next span.
    """

    train: DateSpan
    validation: DateSpan
    test: DateSpan | None
    n_purged: int

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
        return cls(train, validation, span("test"), int(str(values.get("n_purged", 0))))


def split_dates(
    dates: np.ndarray,
    *,
    train: Span | None = None,
    validation: Span | None = None,
    test: Span | None = None,
    start_lag: int = 1,
    horizon: int = 1,
) -> DateSplit:
    """Return a split whose labels are realised before the next span begins.

    The label of date ``t`` is known at the close of ``t + start_lag + horizon``. A date stays in
    its span only if that close is earlier than the first date of the next span, so the last
    ``start_lag + horizon`` dates before a boundary are purged.

    Parameters
    ----------
    dates : ndarray of datetime64, shape (date,)
        Strictly increasing trading dates of the panel.
    train, validation, test : pair of str, optional
        First and last date, inclusive. With none given the first 70 percent of the dates train,
        the next 15 validate and the last 15 test. `test` alone may be left out.
    start_lag, horizon : int
        Timing of the label in trading days.

    Raises
    ------
    SplitError
        If spans overlap, are out of order, lie outside the panel, or are empty after purging.
    """
    index = pd.DatetimeIndex(dates)
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
    reach = start_lag + horizon
    ranges = [(name, DateSpan(*map(_day, span)).positions(dates)) for name, span in spans]
    _check_order(ranges, index)
    kept: dict[str, DateSpan] = {}
    n_purged = 0
    for position, (name, where) in enumerate(ranges):
        stop = where.stop
        if position + 1 < len(ranges):
            stop = min(stop, ranges[position + 1][1].start - reach)
        if stop <= where.start:
            raise SplitError(
                f"{name} must keep at least one date after purging {reach} dates before the next "
                f"span; got {where.stop - where.start} dates. Use a longer span."
            )
        n_purged += where.stop - stop
        kept[name] = DateSpan(f"{index[where.start]:%Y-%m-%d}", f"{index[stop - 1]:%Y-%m-%d}")
    return DateSplit(kept["train"], kept["validation"], kept.get("test"), n_purged)


def _day(value: object) -> str:
    """Return `value` as an ISO day, or say that it is not a date."""
    try:
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
