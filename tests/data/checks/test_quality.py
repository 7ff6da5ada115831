"""The drop ledger: immutable, readable, and the same after JSON."""

import dataclasses

import pytest

from nfi_pyro.data import DropLedger, Finding
from nfi_pyro.errors import PanelError


@pytest.fixture
def ledger() -> DropLedger:
    return (
        DropLedger()
        .add("bars with a price <= 0", 3, "bar masked", ["A 2020-01-02", "B 2020-01-03"])
        .add("资产 without any close", 1234567, "dropped", (f"S{i}" for i in range(7)))
    )


def test_add_returns_a_new_ledger_and_keeps_five_places(ledger: DropLedger) -> None:
    empty = DropLedger()
    longer = empty.add("rule", 1, "kept")
    assert empty.findings == ()
    assert longer.findings == (Finding("rule", 1, "kept", ()),)
    assert ledger.findings[1].places == ("S0", "S1", "S2", "S3", "S4")
    assert empty.add("nothing", 0, "kept") is empty
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        ledger.findings = ()  # type: ignore[misc]


def test_json_round_trip_is_equal(ledger: DropLedger) -> None:
    assert DropLedger.from_json(ledger.to_json()) == ledger
    assert DropLedger.from_json("[]") == DropLedger()
    assert ledger != DropLedger()
    assert DropLedger().extend(ledger) == ledger


@pytest.mark.parametrize("text", ["{", "[1]", '[{"rule": "x"}]', "", "null"])
def test_foreign_json_is_refused(text: str) -> None:
    with pytest.raises(PanelError, match=r"ledger must be JSON written by DropLedger\.to_json"):
        DropLedger.from_json(text)


def test_negative_count_is_refused() -> None:
    with pytest.raises(PanelError, match="count of a finding must be >= 0; got -1"):
        DropLedger().add("rule", -1, "kept")


def test_frame_has_one_row_per_finding(ledger: DropLedger) -> None:
    frame = ledger.to_frame()
    assert list(frame.columns) == ["rule", "count", "action", "places"]
    assert frame["count"].tolist() == [3, 1234567]
    assert frame["places"][0] == "A 2020-01-02, B 2020-01-03"
    assert list(DropLedger().to_frame().columns) == ["rule", "count", "action", "places"]


def test_table_is_aligned(ledger: DropLedger) -> None:
    head, first, second = str(ledger).splitlines()
    assert head.index("action") == first.index("bar masked") == second.index("dropped")
    assert "1,234,567" in second
    assert str(DropLedger()) == "no findings"
