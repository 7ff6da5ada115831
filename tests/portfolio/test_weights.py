"""Weights from a file: every way to write them wrong has a message of its own."""

from pathlib import Path

import pytest

from nfi_pyro.errors import WeightsError
from nfi_pyro.portfolio import read_weights


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "book.csv"


def test_weights_are_read_by_name(place: Path) -> None:
    place.write_text("asset,weight\nAAPL,0.5\n MSFT ,-0.25\n000001,1e-3\nNA,0\n")
    book = read_weights(place)
    assert book.to_dict() == {"AAPL": 0.5, "MSFT": -0.25, "000001": 0.001, "NA": 0.0}
    assert book.index.name == "asset"
    assert book.dtype == float


@pytest.mark.parametrize("name", ["instrument", "Symbol", "code", "TICKER", "ts_code", " asset "])
def test_the_asset_column_has_many_names(place: Path, name: str) -> None:
    place.write_text(f"note,{name},Weight \nbuy,A,0.5\n")
    assert read_weights(str(place)).to_dict() == {"A": 0.5}


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_name(place: Path) -> None:
    place.write_bytes(b"\xef\xbb\xbfasset,weight\r\nA,0.5\r\n")
    assert read_weights(place).to_dict() == {"A": 0.5}


def test_a_file_that_is_not_there_or_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"must be a readable CSV file; got .*No such file"):
        read_weights(tmp_path / "none.csv")
    with pytest.raises(WeightsError, match=r"must be a readable CSV file; got .*directory"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"must be a readable CSV file; got No columns"),
        (b"asset,weight\n", r"must name at least one asset; got none at .*book.csv"),
        (b"asset,amount\nA,1\n", r"columns asset and weight; got \['asset', 'amount'\]"),
        (b"name,weight\nA,1\n", r"columns asset and weight; got \['name', 'weight'\]"),
        (b"asset,weight\nA,1,2,3\nB,1\nC,1,2,3,4\n", r"must be a readable CSV file; got"),
        (b"asset,weight\nA,1,2\nB,1\n", r"as many fields in a line as in the header; got more at"),
        (b"asset,weight\nA,\xff\xfe\n", r"must be a readable CSV file; got"),
        (
            b"asset,weight\nA,0.5\nB,half\nC,0.1\nD,5%\n",
            r"must be finite numbers; got others at line 3 \(B: 'half'\), line 5 \(D: '5%'\)",
        ),
        (b"asset,weight\nA,0.5\nB,\n", r"got others at line 3 \(B: ''\)"),
        (b"asset,weight\nA,inf\n", r"got others at line 2 \(A: 'inf'\)"),
        (b"asset,weight\nA,1\nB,-Infinity\n", r"got others at line 3 \(B: '-Infinity'\)"),
        (b"asset,weight\nA,nan\n", r"got others at line 2 \(A: 'nan'\)"),
        (b"asset,weight\nA,0.5\n\n\nB,half\n", r"got others at line 5 \(B: 'half'\)"),
        (
            b"asset,weight\nA,1\nB,1\n A,1\nB,2\nC,1\n",
            r"each asset must have one weight; got several for A, B at .*book.csv",
        ),
        (b"asset,weight\n,0.5\n", r"each weight must have an asset; got none at line 2"),
    ],
)
def test_a_bad_file_is_refused(place: Path, content: bytes, message: str) -> None:
    place.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_weights(place)


def test_blank_lines_are_nothing(place: Path) -> None:
    place.write_text("asset,weight\nA,0.5\n\nB,0.25\n\n")
    assert read_weights(place).to_dict() == {"A": 0.5, "B": 0.25}
