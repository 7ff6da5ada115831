"""Broken CSV, Parquet and Feather files: bars, or one readable PanelError, and nothing else."""

import gzip
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
from pyarrow import feather, parquet

from nfi_pyro.data import read_prices
from nfi_pyro.errors import PanelError

LIMIT = 5.0
"""Seconds that reading one small file may take on a busy machine."""

HEADS = (
    "date,symbol,open,close,volume",
    "trade_date,ts_code,open,close,vol",
    "日期,代码,开盘,收盘,x",
)
NUMBERS = ("1e400", "9" * 40, "-0", "1e-320", "NaN", "nan", "inf", "-inf", "", "NULL", "None",
           "1,5", "１２", "0x1F", "1_000", "--1", "TRUE", "1e5000000", "\x00", "💥", "=1+1",
           "1.2.3")  # fmt: skip
STAMPS = ("2024-13-01", "20240230", "0000-00-00", "99999999999999999999", "-20240101", "1e8", "",
          "2024-01-02T25:00", "2024-01-02 09:30:00", "2024-01-02T15:00:00+08:00", "9999-12-31",
          "1709000000", "1709000000000", "2024/1/2", "2024-1-2", "２０２４-01-02", "NaT",
          "now", "today", "2024-W01-1", "Jan 2 2024", "2024-01-02Z", "20240102150000")  # fmt: skip
Make = Callable[[np.random.Generator, Path], Path]


def sound_table(rng: np.random.Generator) -> pd.DataFrame:
    dates = pd.bdate_range("2024-01-02", periods=int(rng.integers(2, 7)))
    rows = pd.MultiIndex.from_product([dates, ["600000.SH", "AAPL", "NA"]], names=["date", "code"])
    frame = rows.to_frame(index=False)
    return frame.assign(
        open=rng.lognormal(size=len(frame)),
        close=rng.lognormal(size=len(frame)),
        volume=rng.integers(1, 10**6, len(frame)),
    )


def csv_bytes(rng: np.random.Generator) -> bytes:
    return sound_table(rng).to_csv(index=False).encode()


def flip(rng: np.random.Generator, whole: bytes) -> bytes:
    data = bytearray(whole)
    for place in rng.integers(0, len(data), int(rng.integers(1, 12))):
        data[place] = int(rng.integers(0, 256))
    return bytes(data)


def cut(rng: np.random.Generator, whole: bytes) -> bytes:
    first, last = sorted(rng.integers(0, len(whole) + 1, 2))
    return whole[:last] if rng.random() < 0.7 else whole[first:last]


def splice(rng: np.random.Generator, whole: bytes) -> bytes:
    place = int(rng.integers(0, len(whole)))
    return whole[:place] + rng.bytes(int(rng.integers(1, 40))) + whole[place:]


DAMAGES = (flip, cut, splice)


def damaged_csv(rng: np.random.Generator, folder: Path) -> Path:
    path = folder / "p.csv"
    path.write_bytes(DAMAGES[rng.integers(3)](rng, csv_bytes(rng)))
    return path


def damaged_gzip(rng: np.random.Generator, folder: Path) -> Path:
    path = folder / "p.csv.gz"
    whole = csv_bytes(rng)
    packed = gzip.compress(whole) if rng.random() < 0.8 else whole
    path.write_bytes(DAMAGES[rng.integers(3)](rng, packed))
    return path


def encoded_csv(rng: np.random.Generator, folder: Path) -> Path:
    path = folder / "p.csv"
    text = csv_bytes(rng).decode().replace("AAPL", "贵州茅台")
    encoding = rng.choice(["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "gbk", "big5", "cp037"])
    path.write_bytes(text.encode(str(encoding), errors="replace"))
    return path


def separated_csv(rng: np.random.Generator, folder: Path) -> Path:
    path = folder / "p.csv"
    text = csv_bytes(rng).decode()
    lines = text.splitlines()
    for place in range(len(lines)):
        if rng.random() < 0.5:
            lines[place] = lines[place].replace(",", str(rng.choice([";", "\t", "|", ",,", " , "])))
    ending = str(rng.choice(["\n", "\r\n", "\r", "\n\n", "\x0b", "\u2028"]))
    path.write_bytes(ending.join(lines).encode())
    return path


def quoted_csv(rng: np.random.Generator, folder: Path) -> Path:
    path = folder / "p.csv"
    text = list(csv_bytes(rng).decode())
    for place in rng.integers(0, len(text), int(rng.integers(1, 6))):
        text[place] += str(rng.choice(['"', '""', "'", "\\", "\n", '"\n"', "#", "\x00", "\x1a"]))
    path.write_bytes("".join(text).encode())
    return path


def odd_cells_csv(rng: np.random.Generator, folder: Path) -> Path:
    path = folder / "p.csv"
    head = str(rng.choice(HEADS))
    lines = [head]
    for day in range(2, 8):
        for code in ("600000.SH", "AAPL"):
            cells = [f"2024-01-0{day}", code, "1.5", "2.5", "100"]
            if rng.random() < 0.2:
                cells[0] = str(rng.choice(STAMPS))
            if rng.random() < 0.1:
                cells[1] = str(
                    rng.choice(["", " ", "NA", "1e5", "A" * 3000, "\u202e", "600000.SH"])
                )
            for place in (2, 3, 4):
                if rng.random() < 0.1:
                    cells[place] = str(rng.choice(NUMBERS))
            lines.append(",".join(cells))
    path.write_bytes("\n".join(lines).encode())
    return path


def odd_head_csv(rng: np.random.Generator, folder: Path) -> Path:
    path = folder / "p.csv"
    lines = csv_bytes(rng).decode().splitlines()
    names = [
        *lines[0].split(","),
        "date",
        "close",
        "",
        " ",
        "Close",
        "日期",
        "\ufeffdate",
        "x" * 5000,
    ]
    picked = rng.choice(names, int(rng.integers(0, 8)))
    lines[0] = ",".join(str(name) for name in picked)
    if rng.random() < 0.3:
        lines = lines[: int(rng.integers(0, 3))]
    path.write_bytes("\n".join(lines).encode())
    return path


def noise(rng: np.random.Generator, folder: Path) -> Path:
    suffix = rng.choice([".csv", ".csv.gz", ".parquet", ".pq", ".feather", ".ftr", ".xls", ""])
    path = folder / f"p{suffix}"
    if rng.random() < 0.1:
        path.mkdir()
        return path
    size = int(rng.choice([0, 1, 4, 12, 300]))
    magic = {".parquet": b"PAR1", ".feather": b"ARROW1\0\0", ".gz": b"\x1f\x8b\x08"}
    frame = magic.get(Path(path).suffix, b"") if rng.random() < 0.5 else b""
    path.write_bytes(frame + rng.bytes(size) + frame)
    return path


def damaged_arrow(rng: np.random.Generator, folder: Path) -> Path:
    table = pa.Table.from_pandas(sound_table(rng))
    path = folder / str(rng.choice(["p.parquet", "p.feather"]))
    store(table, path)
    path.write_bytes(DAMAGES[rng.integers(3)](rng, path.read_bytes()))
    return path


def store(table: pa.Table, path: Path) -> None:
    if path.suffix == ".feather":
        feather.write_feather(table, path)
    else:
        parquet.write_table(table, path)


def typed_arrow(rng: np.random.Generator, folder: Path) -> Path:
    """Return a sound file in which columns have types that Arrow has and prices seldom."""
    table = pa.Table.from_pandas(sound_table(rng), preserve_index=False)
    size = len(table)
    dates, codes = table["date"].to_pylist(), table["code"].to_pylist()
    closes = table["close"].to_pylist()
    days = [date.date() for date in dates]
    choices = {
        "date": [
            pa.array(days, pa.date32()),
            pa.array(days, pa.date64()),
            pa.array(dates, pa.timestamp("ns", "Asia/Shanghai")),
            pa.array(dates, pa.timestamp("s")),
            pa.array([f"{day:%Y%m%d}" for day in days], pa.large_string()),
            pa.array([int(f"{day:%Y%m%d}") for day in days], pa.int32()),
            pa.array([2**63 - 1 - place for place in range(size)], pa.int64()),
            pa.array([str(day) for day in days]).dictionary_encode(),
            pa.array([[1]] * size),
            pa.array([None] * size, pa.null()),
            pa.array([1] * size, pa.duration("s")),
        ],
        "code": [
            pa.array(codes, pa.large_string()),
            pa.array(codes).dictionary_encode(),
            pa.array([code.encode() for code in codes], pa.binary()),
            pa.array([code == "AAPL" for code in codes]),
            pa.array([hash_of(code) for code in codes], pa.uint64()),
            pa.array([float(hash_of(code)) for code in codes]),
            pa.array([{"a": code} for code in codes]),
            pa.array([[code] for code in codes]),
            pa.array([None] * size, pa.string()),
        ],
        "close": [
            pa.array(closes, pa.float32()),
            pa.array([np.float16(value) for value in closes], pa.float16()),
            pa.array([round(value, 4) for value in closes]).cast(pa.decimal128(20, 6), safe=False),
            pa.array([str(value) for value in closes], pa.large_string()),
            pa.array([str(value) for value in closes]).dictionary_encode(),
            pa.array([value > 1 for value in closes]),
            pa.array([[value] for value in closes]),
            pa.array([{"v": value} for value in closes]),
            pa.array(dates, pa.timestamp("us")),
            pa.array([1] * size, pa.time32("s")),
            pa.array([2**64 - 1] * size, pa.uint64()),
            pa.array([None] * size, pa.null()),
            pa.array([None if value > 1 else 1 for value in closes], pa.int8()),
        ],
    }
    for name in rng.choice(list(choices), int(rng.integers(1, 3)), replace=False):
        column = choices[str(name)][rng.integers(len(choices[str(name)]))]
        table = table.set_column(table.schema.get_field_index(str(name)), str(name), column)
    path = folder / "p.parquet"
    if rng.random() < 0.1:
        table = table.append_column("Close", table["close"])
    if rng.random() < 0.1:
        table = table.append_column("close", table["close"])
    store(table, path)
    return path


def hash_of(code: str) -> int:
    return sum(code.encode()) + 2**63


def many_files(rng: np.random.Generator, folder: Path) -> Path:
    place = folder / "many"
    place.mkdir()
    makers = (damaged_csv, odd_head_csv, odd_cells_csv, damaged_arrow)
    for number in range(int(rng.integers(1, 4))):
        path = makers[rng.integers(len(makers))](rng, folder)
        key = str(rng.choice(["", "code=A", "code=%E4%B8%80", "date=2024-01-02", "=", "a=b=c"]))
        (place / key).mkdir(exist_ok=True)
        path.rename(place / key / f"{number}{''.join(path.suffixes)}")
    return place


MAKERS: tuple[Make, ...] = (
    damaged_csv, damaged_gzip, encoded_csv, separated_csv, quoted_csv, odd_cells_csv, odd_head_csv,
    noise, damaged_arrow, typed_arrow, many_files,
)  # fmt: skip


def outcome(path: Path) -> xr.Dataset | str:
    """Return the bars of a file or the message of its error; anything else fails."""
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            result: xr.Dataset | str = read_prices(path)
        except PanelError as error:
            result = str(error)
    assert time.monotonic() - started < LIMIT
    return result


def check(seed: int, folder: Path) -> bool:
    """Read one broken file; return whether it gave bars."""
    rng = np.random.default_rng(seed)
    path = MAKERS[seed % len(MAKERS)](rng, folder)
    try:
        result = outcome(path)
    except Exception as error:
        error.add_note(f"seed {seed}: {MAKERS[seed % len(MAKERS)].__name__}")
        raise
    finally:
        shutil.rmtree(folder)
        folder.mkdir()
    if isinstance(result, str):
        assert "Traceback" not in result, seed
        assert "; got " in result, (seed, result)
        assert "must" in result, (seed, result)
        assert len(result) < 3000, (seed, len(result))
        assert result.count("\n") < 12, (seed, result)
        return False
    assert result["close"].dims == ("date", "asset"), seed
    assert min(result.sizes.values()) >= 2, seed
    assert not np.isinf(result["close"]).any(), seed
    assert (result["close"].fillna(1) > 0).all(), seed
    return True


@pytest.mark.parametrize("block", range(11))
def test_a_broken_file_is_bars_or_one_error(block: int, tmp_path: Path) -> None:
    folder = tmp_path / "fuzz"
    folder.mkdir()
    read = sum(check(seed, folder) for seed in range(block, 330, 11))
    assert read < 30, "the files are meant to be broken"


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_ten_thousand_broken_files(block: int, tmp_path: Path) -> None:
    folder = tmp_path / "fuzz"
    folder.mkdir()
    read = sum(check(1000 + seed, folder) for seed in range(block, 10_000, 10))
    assert 0 < read < 1000
