"""The table of price limits: boards, dates, overrides, and limit prices exact in cents."""

from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfi_pyro.data.market.price_limits import (
    BUILT_IN_RULES,
    PriceLimitTable,
    limit_cents,
    read_price_limits,
    round_to_cents,
)
from nfi_pyro.errors import SpecError

CENT = Decimal("0.01")
TABLE = read_price_limits()


def in_force(table: PriceLimitTable, board: str, day: str) -> tuple[int, int, int, int] | None:
    """Return up, down, special treatment and free days of a board on a day."""
    stamp = np.datetime64(day)
    rules = [rule for rule in table.of_board(board) if rule.first <= stamp <= rule.last]
    assert len(rules) <= 1
    for rule in rules:
        return rule.up, rule.down, rule.special_treatment, rule.days_without_limit
    return None


@pytest.mark.parametrize(
    ("symbol", "board"),
    [
        ("SH600519", "main"),
        ("600519.SH", "main"),
        ("600519.XSHG", "main"),
        ("sh.605100", "main"),
        ("sz000001", "main"),
        ("003816.SZ", "main"),
        ("SZ300750", "chinext"),
        ("301236.XSHE", "chinext"),
        ("SZ302132", "chinext"),
        ("SH688981", "star"),
        ("SH689009", "star"),
        ("BJ430047", "bse"),
        ("BJ835185", "bse"),
        ("BJ873223", "bse"),
        ("BJ920001", "bse"),
        ("SH000300", None),  # an index
        ("SZ399001", None),
        ("SH900901", None),  # a B-share
        ("000001", None),  # a stock in Shenzhen, an index in Shanghai
        ("AAPL", None),
        ("SH6005190", None),
        ("", None),
    ],
)
def test_a_symbol_belongs_to_one_board_in_any_spelling(symbol: str, board: str | None) -> None:
    assert TABLE.board(symbol) == board


@pytest.mark.parametrize(
    ("board", "day", "want"),
    [
        ("main", "1996-12-13", None),
        ("main", "2023-04-09", (1000, 1000, 500, 0)),
        ("main", "2023-04-10", (1000, 1000, 500, 5)),
        ("main", "2026-07-05", (1000, 1000, 500, 5)),
        ("main", "2026-07-06", (1000, 1000, 1000, 5)),
        ("main", "2040-01-02", (1000, 1000, 1000, 5)),
        ("chinext", "2020-08-23", (1000, 1000, 1000, 0)),
        ("chinext", "2020-08-24", (2000, 2000, 2000, 5)),
        ("star", "2019-07-19", None),
        ("star", "2019-07-22", (2000, 2000, 2000, 5)),
        ("bse", "2021-11-12", None),
        ("bse", "2021-11-15", (3000, 3000, 3000, 1)),
    ],
)
def test_limits_change_on_their_day(
    board: str, day: str, want: tuple[int, int, int, int] | None
) -> None:
    assert in_force(TABLE, board, day) == want


def test_every_row_says_where_it_comes_from() -> None:
    assert all(len(rule.source) > 10 for rule in TABLE.rules)
    assert {rule.board for rule in TABLE.rules} == {name for name, _ in TABLE.boards}


def test_the_table_may_be_overridden(tmp_path: Path) -> None:
    place = tmp_path / "rules.toml"
    text = BUILT_IN_RULES.read_text(encoding="utf-8")
    place.write_text(text.replace("down = 0.30", "down = 0.25"), encoding="utf-8")
    assert in_force(read_price_limits(place), "bse", "2024-01-02") == (3000, 2500, 3000, 1)
    assert read_price_limits(BUILT_IN_RULES) == TABLE


# ---- cents --------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, derandomize=True)
@given(cents=st.integers(1, 300_000), points=st.sampled_from([500, 1000, 2000, 3000, 437]))
def test_limit_prices_round_half_up_as_decimals_do(cents: int, points: int) -> None:
    for sign in (1, -1):
        share = 1 + sign * Decimal(points) / 10_000
        want = (Decimal(cents) / 100 * share).quantize(CENT, ROUND_HALF_UP)
        got = limit_cents(np.array([cents]), np.array([sign * points]))
        assert int(got[0]) == int(want * 100)


def test_halves_that_binary_floats_get_wrong() -> None:
    assert round(1.005, 2) == 1.0
    assert limit_cents(np.array([1005]), np.array([1000])).tolist() == [1106]
    assert limit_cents(np.array([1005, 1035]), np.array([-1000, -1000])).tolist() == [905, 932]


def test_prices_become_whole_cents_halves_upwards() -> None:
    prices = np.array([10.045, 10.0449, 1.005, np.nan, 0.0, 2.675])
    assert round_to_cents(prices).tolist() == [1005, 1004, 101, -1, 0, 268]
    single = np.arange(1, 300_000, 7, dtype=np.int64)
    stored = (single / 100).astype(np.float32)
    np.testing.assert_array_equal(round_to_cents(stored), single)


# ---- refusals -----------------------------------------------------------------------------------

ROW = """
[boards]
main = ["SH600"]
[[rule]]
board = "main"
first = "2020-01-01"
last = "2020-12-31"
up = 0.1
down = 0.1
special_treatment = 0.05
days_without_limit = 0
source = "a test"
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("up = 0.1", "up = 10", "up must be a share above 0 and at most 1 .* got 10 at rule 1"),
        ("up = 0.1", "up = 0.10005", "in whole basis points; got 0.10005"),
        ("up = 0.1", 'up = "10%"', "up must be a share above 0"),
        ("up = 0.1\n", "", "got up missing and none unknown at rule 1"),
        ("up = 0.1", "up = 0.1\nupp = 0.2", "got none missing and upp unknown"),
        ("= 0\n", "= -1\n", "days_without_limit must be an integer >= 0; got -1"),
        ('"2020-12-31"', '"2019-12-31"', "must not end before it begins; got 2020-01-01 to 2019"),
        ('"2020-01-01"', '"spring"', "dates of a rule must be days; got 'spring'"),
        ('board = "main"', 'board = "mian"', r"board must be one of \['main'\]; got 'mian'"),
        ('["SH600"]', '"SH600"', "prefixes of a board must be a list of texts; got 'SH600'"),
        ('["SH600"]', '["SH600"]\nold = ["SH6"]', "SH6 of old and SH600 of main"),
        ("[boards]\n", "[board]\n", r"must have a \[boards\] table; got None"),
        ("[[rule]]", "[rule]", r"must write its rows as \[\[rule\]\]; got dict"),
        ("[boards]", "[boards", "price limit table must be TOML; got"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    place = tmp_path / "rules.toml"
    assert old in ROW
    place.write_text(ROW.replace(old, new), encoding="utf-8")
    with pytest.raises(SpecError, match=message):
        read_price_limits(place)


def test_rules_of_a_board_must_not_overlap(tmp_path: Path) -> None:
    place = tmp_path / "rules.toml"
    row = ROW[ROW.index("[[rule]]") :]
    later = row.replace("2020-01-01", "2020-12-31").replace('last = "2020-12-31"\n', "")
    place.write_text(ROW + later, encoding="utf-8")
    with pytest.raises(SpecError, match="must not overlap; got one to 2020-12-31 and one from"):
        read_price_limits(place)
    place.write_text(ROW + later.replace("2020-12-31", "2021-01-01"), encoding="utf-8")
    assert len(read_price_limits(place).rules) == 2


def test_an_absent_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="price limit table must be a file; got none at"):
        read_price_limits(tmp_path / "none.toml")
