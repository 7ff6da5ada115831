"""Alpha158 beside pyqlib on the same directory: agreement, time on one process, and memory.

Run by hand, with a Python that has pyqlib 0.9.7 (which never enters this environment)::

    OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_alpha158 prices.parquet \\
        --qlib-python /path/to/python [--assets 300]

The prices are written with `write_qlib`, a typical price as vwap beside them. Then pyqlib's loader
and `read_qlib` with `alpha158` each compute the 158 columns in a process of their own, and every
cell is compared.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from nfi_pyro.data.features.rolling import STD_FLOOR, lagged
from nfi_pyro.data.features.technical import ALPHA158, alpha158
from nfi_pyro.data.sources.qlib_bin import read_qlib
from nfi_pyro.data.sources.qlib_writer import write_qlib

RTOL, ATOL_STD = 1e-4, 1e-6
LEAST_RATIO, MOST_MEMORY, MOST_AT_FLOOR = 15.0, 2.0, 1e-5

QLIB_SIDE = """
import json, sys, time
import numpy as np
import qlib
from qlib.contrib.data.loader import Alpha158DL
from qlib.data.dataset.loader import QlibDataLoader
folder, out = sys.argv[1:]
qlib.init(provider_uri=folder, region="cn", kernels=1, logging_level=40,
          expression_cache=None, dataset_cache=None)
loader = QlibDataLoader({"feature": Alpha158DL.get_feature_config()})
cpu, wall = time.process_time(), time.perf_counter()
frame = loader.load(instruments="all")
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
dates, symbols = (frame.index.get_level_values(level) for level in ("datetime", "instrument"))
np.save(out + "/date.npy", dates.values.astype("datetime64[D]"))
np.save(out + "/symbol.npy", symbols.values.astype("U16"))
np.save(out + "/values.npy", frame.to_numpy(dtype=np.float32))
names = [column[-1] for column in frame.columns]
print(json.dumps({"cpu": cpu, "wall": wall, "names": names, "version": qlib.__version__}))
"""


def main() -> int:
    """Print the table and return 0 when every target is met."""
    if sys.argv[1:2] == ["--ours"]:
        return _our_side(Path(sys.argv[2]), Path(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("prices", type=Path)
    parser.add_argument("--qlib-python", required=True)
    parser.add_argument("--assets", type=int, help="only the first so many")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = _dump(options.prices, options.assets, Path(place) / "qlib")
        theirs = _timed([options.qlib_python, "-c", QLIB_SIDE, str(folder), place])
        ours = _timed([sys.executable, "-m", __spec__.name, "--ours", str(folder), place])
        if theirs["names"] != list(ALPHA158):
            raise SystemExit(f"pyqlib's columns are not the native ones: {theirs['names']}")
        table, at_floor, noise = compare(read_qlib(folder), Path(place))
    return _report(theirs, ours, table, at_floor, noise)


def compare(bars: xr.Dataset, place: Path) -> tuple[pd.DataFrame, int, int]:
    """Return a row of figures per column, how many NaN mismatches lie at the floor of the standard
    deviation, and how many deviations are rounding noise of pandas where the exact value is ours.
    """
    theirs = np.load(place / "values.npy", mmap_mode="r")
    ours = np.load(place / "ours.npy", mmap_mode="r")
    days = bars["date"].values.astype("datetime64[D]")
    rows = np.searchsorted(days, np.load(place / "date.npy"))
    columns = np.searchsorted(bars["asset"].values.astype("U16"), np.load(place / "symbol.npy"))
    cells = rows * bars.sizes["asset"] + columns
    table, at_floor, noise = [], 0, 0
    for feature, name in enumerate(ALPHA158):
        want = np.array(theirs[:, feature], dtype=np.float64)
        got = np.array(ours[..., feature], dtype=np.float64).reshape(-1)[cells]
        lone = np.isnan(want) != np.isnan(got)
        finite = np.isfinite(want) & np.isfinite(got)
        infinite = int((~finite & ~lone & ~np.isnan(want) & (want != got)).sum())
        # without the outermost values: one explosion over 1e-12 would forgive everything
        spread = float(np.std(np.clip(want[finite], *np.quantile(want[finite], (0.001, 0.999)))))
        allowed = ATOL_STD * spread + RTOL * np.abs(want[finite])
        error = np.abs(got[finite] - want[finite])
        where = zip(rows[lone], columns[lone], strict=True)
        at_floor += sum(_at_floor(bars, name, row, column) for row, column in where)
        far = np.flatnonzero(finite)[error > allowed]
        noise += sum(_is_noise(bars, name, rows[at], columns[at], got[at], want[at]) for at in far)
        table.append(
            {
                "name": name,
                "cells": len(want),
                "worst": float((error / allowed).max(initial=0.0)),
                "beyond": int((error > allowed).sum()) + infinite,
                "nan mismatches": int(lone.sum()),
                "only ours NaN": int((lone & np.isnan(got)).sum()),
            }
        )
    return pd.DataFrame(table).set_index("name"), at_floor, noise


def _at_floor(bars: xr.Dataset, name: str, row: int, column: int) -> bool:
    """Return whether a standard deviation in the window of a cell lies at the absolute floor."""
    d = int(name.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ") or 1)
    close, volume = (bars[field].values[: row + 1, [column]] for field in ("close", "volume"))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(volume / lagged(volume, 1) + 1)
        series = {
            "RSQR": [close],
            "CORR": [close, np.log(volume + 1)],
            "CORD": [close / lagged(close, 1), ratio],
        }.get(name[:4], [])
    stds = [pd.Series(values[-d:, 0]).replace(np.inf, np.nan).std() for values in series]
    print(f"  {_place(bars, name, row, column)}: std {stds}")
    return any(abs(std - STD_FLOOR) <= 0.05 * STD_FLOOR for std in stds)


def _place(bars: xr.Dataset, name: str, row: int, column: int) -> str:
    day = np.datetime_as_string(bars["date"].values[row], "D")
    return f"{name} {bars['asset'].values[column]} {day}"


def _is_noise(
    bars: xr.Dataset, name: str, row: int, column: int, ours: float, theirs: float
) -> bool:
    """Return whether a spread of equal values is 0 in ours and rounding noise in theirs.

    pandas updates a rolling variance row by row, so large values that have left the window leave
    something behind, which qlib divides by 1e-12.
    """
    print(f"  {_place(bars, name, row, column)}: ours {ours}, pyqlib {theirs}")
    close, volume = (bars[field].values[: row + 1, column] for field in ("close", "volume"))
    series = {
        "STD": close,
        "VSTD": volume,
        "WVMA": np.abs(close / lagged(close, 1) - 1) * volume,
    }
    operator = name.rstrip("0123456789")
    if operator not in series:
        return False
    window = series[operator][-int(name.removeprefix(operator)) :]
    window = window[np.isfinite(window)]
    return len(window) > 1 and ours == 0 and bool((window == window[0]).all())


def _dump(prices: Path, assets: int | None, folder: Path) -> Path:
    """Write the bars of a table (date, instrument, open, ...) as a qlib directory."""
    table = pd.read_parquet(prices)
    names = np.sort(table["instrument"].astype(str).unique())[:assets]
    table = table[table["instrument"].isin(names)]
    index = pd.MultiIndex.from_arrays(
        [pd.to_datetime(table["date"]), table["instrument"].astype(str)], names=["date", "asset"]
    )
    fields = table[["open", "high", "low", "close", "volume"]].set_axis(index)
    bars = fields.to_xarray().sortby(["date", "asset"])
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    return write_qlib(bars.assign(vwap=typical), folder)


def _our_side(folder: Path, place: Path) -> int:
    """Compute and save; print times, and the peak of memory above the bars, as JSON."""
    cpu, wall = time.process_time(), time.perf_counter()
    bars = read_qlib(folder)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    before = pages * resource.getpagesize()
    features = alpha158(bars, compat="qlib")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    np.save(place / "ours.npy", features.values)
    figures = {"cpu": cpu, "wall": wall, "memory": peak / features.nbytes}
    print(json.dumps(figures | {"shape": features.shape}))
    return 0


def _timed(command: list[str]) -> dict:
    """Return the JSON of a command's last line, run on one thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
    run = subprocess.run(
        command, env=os.environ | one, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(run.stdout.strip().splitlines()[-1])


def _report(theirs: dict, ours: dict, table: pd.DataFrame, at_floor: int, noise: int) -> int:
    lone, beyond = int(table["nan mismatches"].sum()), int(table["beyond"].sum())
    cells = int(table["cells"].sum())
    print(table.sort_values("worst", ascending=False).head(15).to_string())
    if lone:
        print(table[table["nan mismatches"] > 0].to_string())
    worst = table["worst"][table["beyond"] == 0].max()
    ratio = theirs["cpu"] / ours["cpu"]
    print(
        f"pyqlib {theirs['version']}: columns {len(table)}, cells {cells:,}, grid {ours['shape']}"
    )
    print(f"worst deviation {worst:.3g} of the tolerance, but for {beyond} cells beyond it")
    print(f"of these, windows of equal values where pandas leaves rounding noise: {noise}")
    print(f"NaN mismatches {lone} ({lone / cells:.1e} of cells), at the std floor {at_floor}")
    print(f"pyqlib cpu {theirs['cpu']:.1f} s, wall {theirs['wall']:.1f} s")
    print(f"ours   cpu {ours['cpu']:.2f} s, wall {ours['wall']:.2f} s, reading included")
    print(
        f"ratio  cpu {ratio:.1f}, wall {theirs['wall'] / ours['wall']:.1f} (target {LEAST_RATIO})"
    )
    print(f"memory {ours['memory']:.2f} of the output at the peak (target {MOST_MEMORY})")
    met = beyond == noise and lone == at_floor and lone <= MOST_AT_FLOOR * cells
    met &= ratio >= LEAST_RATIO and ours["memory"] <= MOST_MEMORY
    print("all targets met" if met else "a target is missed")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
