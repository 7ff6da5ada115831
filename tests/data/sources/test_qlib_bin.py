"""qlib directories: bytes made by hand, round trips, and everything that can be wrong with one."""

import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nfi_pyro.data.checks.quality import LEDGER_ATTRIBUTE, DropLedger
from nfi_pyro.data.sources.qlib_bin import read_qlib
from nfi_pyro.data.sources.qlib_writer import write_qlib
from nfi_pyro.errors import PanelError, SpecError

DAYS = ["2024-02-28", "2024-02-29", "2024-03-01", "2024-03-04", "2024-03-05"]
NAN = float("nan")


def _bin(folder: Path, symbol: str, field: str, *numbers: float) -> Path:
    file = folder / "features" / symbol / f"{field}.day.bin"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack(f"<{len(numbers)}f", *numbers))
    return file


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    """Two stocks and an index folder, bytes written one by one; Windows line ends."""
    folder = tmp_path / "cn_data"
    for part in ("calendars", "instruments"):
        (folder / part).mkdir(parents=True)
    (folder / "calendars" / "day.txt").write_bytes("\r\n".join(DAYS).encode() + b"\r\n\r\n")
    (folder / "calendars" / "day_future.txt").write_text("2030-01-01\n")
    (folder / "instruments" / "all.txt").write_text(
        "SZ000001\t2024-02-28\t2024-03-04\nsh600000\t2024-02-29\t2099-12-31\n"
    )
    (folder / "instruments" / "csi2.txt").write_text(
        "SZ000001\t2024-02-28\t2024-02-28\nSZ000001\t2024-03-02\t2024-03-04\n"
        "SH600000\t2000-01-01\t2024-02-29\nSH600000\t2024-02-29\t2024-03-01 00:00:00\n"
    )
    _bin(folder, "sz000001", "close", 0, 10.5, NAN, 10.75, 11.0)
    _bin(folder, "sz000001", "volume", 0, 100, NAN, 300, 400)
    _bin(folder, "sh600000", "close", 1, 7.25, 7.5, 7.75, 8.0)
    _bin(folder, "sh600000", "adjclose", 3, 1.5)
    _bin(folder, "sh000300", "close", 0, 1.0, 2.0, 3.0, 4.0, 5.0)
    (folder / "features" / "sz000001" / "close.1min.bin").write_bytes(b"abc")
    (folder / "README").write_text("not part of the layout")
    return folder


def test_bytes_by_hand_become_bars(by_hand: Path) -> None:
    bars = read_qlib(by_hand)
    assert dict(bars.sizes) == {"date": 5, "asset": 2}
    assert list(bars.asset.values) == ["SH600000", "SZ000001"]
    assert list(bars.data_vars) == ["close", "volume", "adjclose"]
    assert bars.date.dtype == np.dtype("datetime64[ns]")
    assert list(bars.date.dt.strftime("%Y-%m-%d").values) == DAYS
    assert all(bars[name].dtype == np.float64 for name in bars.data_vars)
    close = [[NAN, 10.5], [7.25, NAN], [7.5, 10.75], [7.75, 11.0], [8.0, NAN]]
    np.testing.assert_array_equal(bars["close"], close)
    np.testing.assert_array_equal(bars["adjclose"][:, 0], [NAN, NAN, NAN, 1.5, NAN])
    assert np.isnan(bars["volume"][:, 0]).all()
    assert bars.attrs["source"] == "cn_data"
    (finding,) = DropLedger.from_json(bars.attrs[LEDGER_ATTRIBUTE]).findings
    assert (finding.rule, finding.count) == ("fields absent for an instrument", 2)
    assert finding.places == ("SH600000 volume", "SZ000001 adjclose")


def test_spells_of_a_market_are_the_universe_ends_included_and_merged(by_hand: Path) -> None:
    bars = read_qlib(by_hand, market="csi2", fields=["close"])
    assert bars["universe"].dtype == bool
    np.testing.assert_array_equal(bars["universe"][:, 0], [True, True, True, False, False])
    np.testing.assert_array_equal(bars["universe"][:, 1], [True, False, False, True, False])
    assert np.isfinite(bars["close"][4, 0])  # bars outside of the spells stay
    (finding,) = DropLedger.from_json(bars.attrs[LEDGER_ATTRIBUTE]).findings
    assert (finding.rule, finding.places) == (
        "overlapping spells in csi2.txt",
        ("SH600000 2024-02-29",),
    )


def test_fields_and_dates_asked_for_are_what_comes_back(by_hand: Path) -> None:
    bars = read_qlib(by_hand, fields=["adjclose", "close"], first="2024-03-01", last="2024-03-04")
    assert list(bars.data_vars) == ["close", "adjclose"]
    np.testing.assert_array_equal(bars["close"], [[7.5, 10.75], [7.75, 11.0]])
    assert read_qlib(by_hand, first=pd.Timestamp("2024-03-02")).sizes["date"] == 2
    assert read_qlib(by_hand, last=np.datetime64("2024-02-28")).sizes["date"] == 1
    with pytest.raises(PanelError, match="got none of factor, vwap"):
        read_qlib(by_hand, fields=["close", "vwap", "factor"])
    with pytest.raises(SpecError, match="first must be a date; got 'March'"):
        read_qlib(by_hand, first="March")
    with pytest.raises(SpecError, match="runs from 2024-02-28 to 2024-03-05"):
        read_qlib(by_hand, first="2024-03-06")
    with pytest.raises(SpecError, match="freq must be 'day'; got '1min'"):
        read_qlib(by_hand, freq="1min")


def test_an_instrument_without_a_folder_and_closes_outside_are_written_down(by_hand: Path) -> None:
    (by_hand / "instruments" / "all.txt").write_text(
        "SH600001\t2024-02-28\t2024-03-05\nSH600000\t2024-03-01\t2024-03-04\n"
    )
    bars = read_qlib(by_hand)
    assert np.isnan(bars["close"].sel(asset="SH600001")).all()
    findings = DropLedger.from_json(bars.attrs[LEDGER_ATTRIBUTE]).findings
    assert [(f.rule, f.count, f.places) for f in findings] == [
        ("instruments without features", 1, ("SH600001",)),
        ("closes outside the dates of all.txt", 2, ("SH600000",)),
    ]


def test_every_broken_feature_file_is_named(by_hand: Path) -> None:
    file = _bin(by_hand, "sz000001", "close", 0, 1.0)
    file.write_bytes(file.read_bytes()[:-1])
    _bin(by_hand, "sz000001", "volume", 5, 1.0)
    _bin(by_hand, "sh600000", "close", -1, 1.0)
    _bin(by_hand, "sh600000", "open", 0.5, 1.0)
    _bin(by_hand, "sh600000", "high", NAN, 1.0)
    _bin(by_hand, "sh600000", "low", 6)
    (by_hand / "features" / "sh600000" / "adjclose.day.bin").write_bytes(b"")
    with pytest.raises(PanelError, match="within the 5 dates of the calendar") as error:
        read_qlib(by_hand)
    text = str(error.value)
    for part in (
        "sh600000/open.day.bin (starts at row 0.5)",
        "sh600000/high.day.bin (starts at row nan)",
        "sh600000/low.day.bin (starts at row 6)",
        "sh600000/close.day.bin (starts at row -1)",
        "and 2 more",
    ):
        assert part in text
    with pytest.raises(PanelError, match=r"sz000001/close\.day\.bin \(truncated: 7 bytes\)"):
        read_qlib(by_hand, fields=["close"])
    with pytest.raises(PanelError, match=r"sz000001/volume\.day\.bin \(ends at row 5\)"):
        read_qlib(by_hand, fields=["volume"])
    with pytest.raises(PanelError, match=r"adjclose\.day\.bin \(truncated: 0 bytes\)"):
        read_qlib(by_hand, fields=["adjclose"])


def test_a_reserved_name_loses_its_prefix_and_no_letter_more(by_hand: Path) -> None:
    (by_hand / "instruments" / "all.txt").write_text(
        "_qlib_lpt1\t2024-02-28\t2024-03-05\nILQ\t2024-02-28\t2024-03-05\n"
    )
    _bin(by_hand, "_qlib_lpt1", "close", 0, 1.5)
    _bin(by_hand, "ILQ", "close", 1, 2.5)
    bars = read_qlib(by_hand)
    assert list(bars.asset.values) == ["ILQ", "LPT1"]
    np.testing.assert_array_equal(bars["close"][:2], [[NAN, 1.5], [2.5, NAN]])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("2024-02-28\n2024-02-28\n", "line 2 ('2024-02-28')"),
        ("2024-02-29\n\n2024-02-28\n", "line 3 ('2024-02-28')"),
        ("2024-02-28 09:31:00\n", "line 1 ('2024-02-28 09:31:00')"),
        ("2024-02-30\n", "line 1 ('2024-02-30')"),
        ("9999-12-31\n", "line 1 ('9999-12-31')"),
        ("", "no line at all"),
    ],
)
def test_a_bad_calendar_is_refused(by_hand: Path, text: str, place: str) -> None:
    (by_hand / "calendars" / "day.txt").write_text(text)
    with pytest.raises(PanelError, match="ascending dates YYYY-MM-DD, each once") as error:
        read_qlib(by_hand)
    assert place in str(error.value)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("SH600000 2024-02-28 2024-03-05", "line 2 ('SH600000 2024-02-28 2024-03-05')"),
        ("SH600000\t2024-03-05\t2024-02-28", "line 2 "),
        ("SH600000\t2024-02-28", "line 2 "),
        ("SH600000\t28.02.2024\t2024-03-05", "line 2 "),
        ("\t2024-02-28\t2024-03-05", "line 2 "),
    ],
)
def test_a_bad_instruments_line_is_named(by_hand: Path, line: str, place: str) -> None:
    (by_hand / "instruments" / "all.txt").write_text(f"A\t2024-02-28\t9999-12-31\n{line}\n")
    with pytest.raises(PanelError, match=r"instruments/all\.txt must hold symbol, first") as error:
        read_qlib(by_hand)
    assert place in str(error.value)


def test_missing_parts_are_named(by_hand: Path, tmp_path: Path) -> None:
    with pytest.raises(PanelError, match=r"calendars/day\.txt must be a readable.*no such file"):
        read_qlib(tmp_path)
    with pytest.raises(PanelError, match=r"no such file.*Markets there: all, csi2"):
        read_qlib(by_hand, market="csi300")
    with pytest.raises(SpecError, match=r"market must be a file name .*got '\.\./all'"):
        read_qlib(by_hand, market="../all")
    (by_hand / "features" / "SZ000001").mkdir()
    with pytest.raises(PanelError, match="distinct names whatever the case; got a second one"):
        read_qlib(by_hand)
    (by_hand / "calendars" / "day.txt").write_bytes(b"\xff\xfe2024")
    with pytest.raises(PanelError, match="must be a readable text file; got 'utf-8' codec"):
        read_qlib(by_hand)


def ragged_bars(seed: int = 5) -> xr.Dataset:
    """Return bars of 7 dates and 5 assets, float32 numbers, late, early and gappy ones."""
    rng = np.random.default_rng(seed)
    names = ("open", "high", "low", "close", "volume", "amount", "vwap", "factor", "my_signal")
    gaps = rng.uniform(size=(7, 5)) < 0.2
    gaps[:3, 1], gaps[5:, 2], gaps[3, 3:] = True, True, False
    data = {}
    for name in names:
        values = rng.lognormal(2, 1, (7, 5)).astype(np.float32).astype(np.float64)
        data[name] = (("date", "asset"), np.where(gaps, np.nan, values))
    data["vwap"][1][:, 4] = np.nan
    dates = pd.bdate_range("2023-12-28", periods=7).astype("datetime64[ns]").to_numpy()
    assets = np.array(["BJ430047", "CON", "LPT1", "SH600000", "_X.Y"], dtype=object)
    return xr.Dataset(data, {"date": dates, "asset": assets})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    bars = ragged_bars()
    folder = write_qlib(bars.transpose("asset", "date"), tmp_path / "made" / "here")
    back = read_qlib(folder)
    xr.testing.assert_equal(back, bars)
    assert back["close"].dims == ("date", "asset")
    assert list(back.data_vars) == list(bars.data_vars)
    assert DropLedger.from_json(back.attrs[LEDGER_ATTRIBUTE]) == DropLedger()
    assert sorted(file.name for file in (tmp_path / "made").iterdir()) == ["here"]
    xr.testing.assert_equal(
        read_qlib(folder, first=bars.date.values[2], last=bars.date.values[4]),
        bars.isel(date=slice(2, 5)),
    )


def test_bytes_written_are_those_of_the_layout(tmp_path: Path) -> None:
    bars = ragged_bars()[["close"]].isel(asset=[2])
    bars["close"][:, 0] = [NAN, 1.5, NAN, 2.5, NAN, NAN, NAN]
    folder = write_qlib(bars, tmp_path / "q")
    stored = (folder / "features" / "_qlib_lpt1" / "close.day.bin").read_bytes()
    assert stored[:8] + stored[12:] == struct.pack("<3f", 1, 1.5, 2.5)
    assert (folder / "instruments" / "all.txt").read_text() == "LPT1\t2023-12-29\t2024-01-02\n"
    days = (folder / "calendars" / "day.txt").read_text().split("\n")
    assert (days[0], days[6], days[7]) == ("2023-12-28", "2024-01-05", "")
    with pytest.raises(PanelError, match="every asset must have a value; got none at LPT1"):
        write_qlib(bars * np.nan, tmp_path / "q")
    assert (folder / "features" / "_qlib_lpt1" / "close.day.bin").read_bytes() == stored


def test_a_universe_is_written_as_spells(tmp_path: Path) -> None:
    member = np.zeros((7, 5), dtype=bool)
    member[0:2, 0] = member[5:7, 0] = member[3, 3] = member[:, 4] = True
    bars = ragged_bars().assign(universe=(("date", "asset"), member))
    folder = write_qlib(bars, tmp_path / "q", market="csi5")
    text = (folder / "instruments" / "csi5.txt").read_text()
    assert text.startswith("BJ430047\t2023-12-28\t2023-12-29\nBJ430047\t2024-01-04\t2024-01-05\n")
    back = read_qlib(folder, market="csi5")
    xr.testing.assert_equal(back, bars.isel(asset=[0, 3, 4]))
    assert read_qlib(folder).sizes["asset"] == 5
    with pytest.raises(PanelError, match="of a market with a name; got bool"):
        write_qlib(bars, tmp_path / "q")
    with pytest.raises(PanelError, match="universe must have a member; got none"):
        write_qlib(bars.assign(universe=bars["universe"] & False), tmp_path / "q", market="csi5")


def test_writing_again_replaces_and_nothing_else_is_overwritten(tmp_path: Path) -> None:
    bars = ragged_bars()
    write_qlib(bars, tmp_path / "q")
    write_qlib(bars.isel(asset=[3]), tmp_path / "q")
    assert [place.name for place in (tmp_path / "q" / "features").iterdir()] == ["sh600000"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(PanelError, match="free or hold a qlib directory; got another thing"):
        write_qlib(bars, tmp_path / "mine")
    with pytest.raises(PanelError, match="must be writable; got"):
        write_qlib(bars, tmp_path / "mine" / "thesis.txt" / "q")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine", "q"]


def test_a_write_that_fails_leaves_the_old_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = ragged_bars()
    write_qlib(bars, tmp_path / "q")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nfi_pyro.data.sources.qlib_writer._write_features", full)
    with pytest.raises(PanelError, match="got No space left on device at"):
        write_qlib(bars.isel(asset=[3]), tmp_path / "q")
    xr.testing.assert_equal(read_qlib(tmp_path / "q"), bars)
    assert [file.name for file in tmp_path.iterdir()] == ["q"]


def test_what_a_qlib_directory_cannot_hold_is_refused(tmp_path: Path) -> None:
    bars, path = ragged_bars(), tmp_path / "q"
    noon = bars.assign_coords(date=bars.date.values + np.timedelta64(12, "h"))
    with pytest.raises(PanelError, match="without a time of day, one at least; got others at 2023"):
        write_qlib(noon, path)
    with pytest.raises(PanelError, match="dates must be ascending days"):
        write_qlib(bars.isel(date=[0, 2, 1]), path)
    with pytest.raises(PanelError, match="dates must be datetime64; got int64"):
        write_qlib(bars.assign_coords(date=np.arange(7)), path)
    for symbols in (["a", "A"], ["x", ".."], ["x", "a/b"], ["x", ""], ["x", "a b"]):
        with pytest.raises(PanelError, match="symbols must be distinct file names"):
            write_qlib(bars.isel(asset=[0, 3]).assign_coords(asset=symbols), path)
    with pytest.raises(PanelError, match="names in lower case; got others at Close"):
        write_qlib(bars.rename(close="Close"), path)
    with pytest.raises(PanelError, match=r"variables must be numeric, .* got others at name"):
        write_qlib(bars.assign(name=("asset", list("abcde"))), path)
    large = bars.copy(deep=True)
    large["volume"][4, 1] = 1e39
    with pytest.raises(PanelError, match="fit into float32; got larger ones at volume of CON"):
        write_qlib(large, path)
    with pytest.raises(PanelError, match="bars must have dims and coordinates date and asset"):
        write_qlib(bars.rename(date="time"), path)
    with pytest.raises(SpecError, match="freq must be 'day'; got '5min'"):
        write_qlib(bars, path, freq="5min")
    with pytest.raises(SpecError, match="market must be a file name in lower case; got 'CSI'"):
        write_qlib(bars, path, market="CSI")
    assert not path.exists()


_CELLS = st.floats(width=32) | st.just(NAN)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=arrays(np.float32, (7, 3), elements=_CELLS))
def test_any_float32_survives(tmp_path: Path, values: np.ndarray) -> None:
    values[3] = np.where(np.isnan(values[3]), 1.5, values[3])  # an asset must have a value
    bars = xr.Dataset(
        {"close": (("date", "asset"), values.astype(np.float64))},
        {"date": ragged_bars().date, "asset": np.array(["A", "B", "C"], dtype=object)},
    )
    xr.testing.assert_identical(
        read_qlib(write_qlib(bars, tmp_path / "q")).drop_attrs(), bars.drop_attrs()
    )


@pytest.mark.parametrize("seed", range(5))
def test_damaged_bytes_give_bars_or_one_clear_error(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    folder = write_qlib(ragged_bars(), tmp_path / "q")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    texts = [file for file in files if file.suffix == ".txt"]
    for _ in range(40):
        file = rng.choice(np.array(files if rng.random() < 0.4 else texts, dtype=object))
        kept = file.read_bytes()
        damaged = bytearray(kept)
        for place in rng.integers(0, len(kept), rng.integers(1, 4)):
            damaged[place] = rng.choice([*b"\x00\x80\xff\n\t 09-AZ", kept[place]])
        file.write_bytes(bytes(damaged[: rng.integers(0, len(kept) + 1)]))
        try:
            outcome = f"; got {read_qlib(folder).sizes}"
        except PanelError as error:
            outcome = str(error)
        assert "; got " in outcome
        file.write_bytes(kept)
    xr.testing.assert_equal(read_qlib(folder), ragged_bars())


def test_only_bars_and_named_markets_are_written(tmp_path: Path) -> None:
    with pytest.raises(PanelError, match=r"bars must be a Dataset .*; got DataFrame"):
        write_qlib(pd.DataFrame(), tmp_path / "q")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="market must be a file name in lower case; got 5"):
        write_qlib(xr.Dataset(), tmp_path / "q", market=5)  # type: ignore[arg-type]
