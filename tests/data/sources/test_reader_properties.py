"""Ragged, gappy, shuffled, repeated and badly typed rows: the cells that came in, or one error."""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from nfi_pyro.data import read_prices
from nfi_pyro.errors import PanelError

DAYS = [dt.date(2024, 2, 26) + dt.timedelta(days=step) for step in range(5)]
SYMBOLS = ("AAPL", "SH600000", "1")
FORMS = {"AAPL": ("AAPL", " AAPL "), "SH600000": ("600000.SH", "sh600000"), "1": ("1",)}
PROFILE = settings(derandomize=True, deadline=None, max_examples=80, database=None)
Row = tuple[dt.date | None, str, Any, Any]


@dataclass(frozen=True)
class Cell:
    """A value as it is written, and the number that it means; None if it means none."""

    written: Any
    number: float | None


def means(written: Any, number: float | None) -> Cell:
    return Cell(written, number)


POSITIVE = st.floats(1e-6, 1e9, allow_nan=False)
GOOD_CELLS = st.one_of(
    POSITIVE.map(lambda value: means(value, value)),
    POSITIVE.map(lambda value: means(repr(value), value)),
    POSITIVE.map(lambda value: means(np.float32(value), float(np.float32(value)))),
    st.integers(1, 10**15).map(lambda value: means(value, float(value))),
    st.integers(1, 10**6).map(lambda value: means(Decimal(value) / 100, value / 100)),
    st.sampled_from([None, np.nan, "", "NA", pd.NA]).map(lambda value: means(value, np.nan)),
)
ODD_CELLS = st.sampled_from(
    [means(-1.0, -1.0), means(0, 0.0), means(np.inf, np.inf), means("1e400", np.inf),
     means("inf", np.inf), means(10**400, np.inf)]
)  # fmt: skip
BAD_CELLS = st.sampled_from(
    [means(value, None) for value in
     ("x", "1,5", True, False, "1_0", "-nan", "１２", b"1", (1,), 1j, "0x1F", dt.date(2024, 1, 1))]
)  # fmt: skip
DATE_FORMS = st.sampled_from(
    [
        lambda day: day,
        lambda day: day.isoformat(),
        lambda day: int(day.strftime("%Y%m%d")),
        lambda day: day.strftime("%Y/%m/%d"),
        lambda day: pd.Timestamp(day),
        lambda day: np.datetime64(day),
        lambda day: f"{day.isoformat()} 15:00:00",
        lambda day: f"{day.isoformat()}T15:00:00+08:00",
    ]
)
BAD_DATES = st.sampled_from([None, "", "2024", "soon", 1709000000, 20241399, "26/02/2024", 45000.5])


@st.composite
def tables(draw: st.DrawFn, bad: bool, repeats: bool) -> tuple[list[Row], pd.DataFrame]:
    """Return rows (day, symbol, close, volume) and the table in which they are written."""
    cells = [(day, symbol) for day in DAYS for symbol in SYMBOLS]
    keys = draw(st.lists(st.sampled_from(cells), min_size=4, max_size=14, unique=not repeats))
    usual = st.integers(0, 19).flatmap(lambda n: ODD_CELLS if n == 7 else GOOD_CELLS)
    kinds = st.integers(0, 29).flatmap(lambda n: BAD_CELLS if bad and n == 3 else usual)
    rows, written = [], []
    for day, symbol in keys:
        close, volume = draw(kinds), draw(kinds)
        date = draw(BAD_DATES if bad and draw(st.integers(0, 19)) == 5 else DATE_FORMS)
        stamp = date(day) if callable(date) else date
        rows.append((day if callable(date) else None, symbol, close.number, volume.number))
        name = draw(st.sampled_from(FORMS[symbol]))
        written.append((stamp, name, close.written, volume.written))
    frame = pd.DataFrame(written, columns=["date", "symbol", "close", "volume"], dtype=object)
    return rows, frame


def is_faulty(rows: list[Row]) -> bool:
    """Return whether a row does not parse or occurs twice."""
    pairs = [(day, symbol) for day, symbol, _, _ in rows]
    unread = any(day is None or None in (close, volume) for day, _, close, volume in rows)
    return unread or len(set(pairs)) < len(pairs)


def whole_bar(close: float, volume: float) -> tuple[float, float]:
    """Return a bar, or an empty one if a part of it is impossible."""
    if np.inf in (close, volume) or close <= 0 or volume < 0:
        return np.nan, np.nan
    return close, volume


def check(rows: list[Row], frame: pd.DataFrame) -> None:
    before = frame.copy(deep=True)
    try:
        bars = read_prices(frame)
    except PanelError as error:
        text = str(error)
        assert "Traceback" not in text
        assert len(text) < 4000
        if is_faulty(rows):
            return
        priced = [r for r in rows if not np.isnan(whole_bar(r[2], r[3])[0])]
        thin = len({r[0] for r in rows}) < 2 or len({r[1] for r in priced}) < 2
        assert thin, text
        assert "must cover at least 2" in text
        return
    finally:
        pd.testing.assert_frame_equal(frame, before)
    assert not is_faulty(rows)
    expected = {(day, symbol): whole_bar(close, volume) for day, symbol, close, volume in rows}
    for day in bars.date.values:
        for asset in bars.asset.values:
            cell = bars.sel(date=day, asset=asset)
            wanted = expected.get((day.astype("datetime64[D]").item(), asset), (np.nan, np.nan))
            np.testing.assert_array_equal([float(cell["close"]), float(cell["volume"])], wanted)
    kept = {asset for (_, asset), bar in expected.items() if not np.isnan(bar[0])}
    assert set(bars.asset.values) == kept


@PROFILE
@given(tables(bad=False, repeats=False))
def test_readable_rows_come_back_exactly(case: tuple[list[Row], pd.DataFrame]) -> None:
    check(*case)


@PROFILE
@given(tables(bad=True, repeats=False))
def test_unreadable_cells_are_an_error_never_another_number(
    case: tuple[list[Row], pd.DataFrame],
) -> None:
    check(*case)


@PROFILE
@given(tables(bad=False, repeats=True))
def test_repeated_rows_are_an_error_never_one_of_them(
    case: tuple[list[Row], pd.DataFrame],
) -> None:
    check(*case)


@PROFILE
@given(tables(bad=False, repeats=False), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_columns_does_not_matter(
    case: tuple[list[Row], pd.DataFrame], random: Any
) -> None:
    _, frame = case
    order = list(range(len(frame)))
    random.shuffle(order)
    columns = list(frame.columns)
    random.shuffle(columns)
    outcomes: list[Any] = []
    for table in (frame, frame.iloc[order][columns]):
        try:
            outcomes.append(read_prices(table))
        except PanelError as error:
            outcomes.append(str(error)[:60])
    first, second = outcomes
    assert first.equals(second) if hasattr(first, "equals") else first == second


@PROFILE
@given(st.lists(POSITIVE, min_size=4, max_size=12))
def test_csv_numbers_are_the_nearest_floats(tmp_path_factory: Any, values: list[float]) -> None:
    rows = [f"{DAYS[i // 3]},{SYMBOLS[i % 3]},{value!r}" for i, value in enumerate(values)]
    path = tmp_path_factory.mktemp("csv") / "prices.csv"
    path.write_text("\n".join(["date,symbol,close", *rows]))
    bars = read_prices(path)
    path.unlink()
    for i, value in enumerate(values):
        assert float(bars["close"].sel(date=str(DAYS[i // 3]), asset=SYMBOLS[i % 3])) == value
