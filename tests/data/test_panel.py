"""Panels: the schema and its one error, building with a ledger, storage that tells damage."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import nfi_pyro.data
from nfi_pyro.data import (
    DropLedger,
    build_panel,
    check_panel,
    forward_return,
    panel_hash,
    read_panel,
    write_panel,
)
from nfi_pyro.data.panel import Panel
from nfi_pyro.errors import PanelError, SpecError

DATES, ASSETS = 97, 7
SHORT = ["KLEN", "STD5", "CORD5", "ROC10"]


@pytest.fixture
def bars() -> xr.Dataset:
    rng = np.random.default_rng(11)
    close = 30 * np.exp(np.cumsum(rng.normal(0, 0.02, (DATES, ASSETS)), axis=0))
    data = {
        "open": close * 1.001,
        "high": close * 1.01,
        "low": close * 0.99,
        "close": close,
        "volume": np.exp(rng.normal(9, 0.5, close.shape)),
    }
    dates = pd.bdate_range("2022-03-01", periods=DATES).to_numpy()
    variables = {name: (("date", "asset"), values) for name, values in data.items()}
    coords = {"date": dates, "asset": [f"S{place}" for place in range(ASSETS)]}
    return xr.Dataset(variables, coords, {"source": "made up"})


@pytest.fixture
def panel(bars: xr.Dataset) -> Panel:
    return build_panel(bars, features=SHORT)


def rules_of(panel: xr.Dataset) -> dict[str, tuple[int, tuple[str, ...]]]:
    findings = DropLedger.from_json(panel.attrs["ledger"]).findings
    return {finding.rule: (finding.count, finding.places) for finding in findings}


# ---- schema ---------------------------------------------------------------------------------


def test_a_sound_panel_is_returned_as_it_is(panel: Panel) -> None:
    before = panel.copy(deep=True)
    assert check_panel(panel) is panel
    xr.testing.assert_identical(panel, before)


def test_every_violation_is_in_one_error(panel: Panel) -> None:
    broken = panel.copy(deep=True)
    broken["features"].values[50, 3, 1] = np.nan
    broken["forward_return"].values[20, 2] = np.inf
    broken["forward_return"].attrs = {"start_lag": -1, "horizon": 1.5, "unit": "bp"}
    dates = broken.date.values.copy()
    dates[[4, 5]] = dates[[5, 4]]
    broken = broken.assign_coords(
        date=dates, asset=["S0", "S0", "", *"abcd"], feature=["a", "b", "b", "c"]
    )
    before = broken.copy(deep=True)
    with pytest.raises(PanelError, match="panel breaks 9 rules") as caught:
        check_panel(broken)
    text = str(caught.value)
    for part in (
        "date must be strictly increasing; got 1 steps that are not at 2022-03-08 then 2022-03-07",
        "asset must be non-empty text; got 1 others at position 2 ('')",
        "asset must be unique; got repeats at S0",
        "feature must be unique; got repeats at b",
        "features must be finite wherever tradable; got 1 NaN or inf cells at b a 2022-05-10",
        "forward_return.attrs['start_lag'] must be an integer >= 0; got -1",
        "forward_return.attrs['horizon'] must be an integer >= 1; got 1.5",
        "forward_return.attrs['unit'] must be one of",
        "forward_return must be finite or NaN (not observed); got 1 inf cells",
    ):
        assert part in text
    xr.testing.assert_identical(broken, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.drop_vars("tradable"), "must have the variable tradable"),
        (lambda p: p.assign(tradable=p.tradable.astype(int)), "tradable must be bool; got int64"),
        (lambda p: p.assign(features=p.features.astype(float)), "features must be float32; got"),
        (lambda p: p.transpose("asset", "date", "feature"), "features must have dims"),
        (lambda p: p.rename(asset="stock"), "panel must have the dim asset"),
        (lambda p: p.drop_vars("asset"), "asset must have a coordinate; got none"),
        (lambda p: p.isel(date=[0]), "date must have at least 2 entries; got 1"),
        (lambda p: p.isel(asset=[0]), "asset must have at least 2 entries; got 1"),
        (lambda p: p.isel(feature=[]), "feature must have at least 1 entry"),
        (lambda p: p.assign_coords(date=np.arange(DATES)), "date must be datetime64; got int64"),
        (lambda p: p.assign_coords(asset=np.arange(ASSETS)), "asset must be non-empty text; got 7"),
        (
            lambda p: p.assign(close=p["close"][0].drop_vars("date")),
            r"close must have dims \('date', 'asset'\)",
        ),
        (lambda p: p.to_dataframe(), "panel must be an xarray Dataset; got DataFrame"),
    ],
)
def test_each_violation_is_named(panel: Panel, change, message: str) -> None:
    with pytest.raises(PanelError, match=message):
        check_panel(change(panel))


def test_a_date_that_is_none_or_repeated_is_named(panel: Panel) -> None:
    dates = panel.date.values.copy()
    dates[3] = np.datetime64("NaT")
    with pytest.raises(
        PanelError, match=r"strictly increasing; got 1 .* 2022-03-02 then 2022-03-02"
    ):
        check_panel(panel.isel(date=[0, 1, 1, 2]))
    with pytest.raises(PanelError, match="got NaT at position 3"):
        check_panel(panel.assign_coords(date=dates))


def test_untradable_cells_and_unobserved_labels_are_free(panel: Panel) -> None:
    free = panel.copy(deep=True)
    free["tradable"].values[30] = False
    free["features"].values[30] = np.nan
    free["forward_return"].values[31] = np.nan
    check_panel(free)


# ---- building -------------------------------------------------------------------------------


def test_a_panel_has_features_label_universe_and_close(bars: xr.Dataset, panel: Panel) -> None:
    assert panel.sizes == {"date": DATES, "asset": ASSETS, "feature": 4}
    np.testing.assert_array_equal(panel["forward_return"], forward_return(bars))
    np.testing.assert_allclose(panel["close"], bars["close"], rtol=1e-6)
    assert panel["tradable"].values[10:].all()
    assert not panel["tradable"].values[:10].any()
    assert panel.attrs["source"] == "made up"
    assert rules_of(panel) == {
        "cells whose windows are not warm yet": (70, tuple(f"S{i} (10)" for i in range(5)))
    }


def test_the_universe_never_looks_at_the_label(bars: xr.Dataset, panel: Panel) -> None:
    cut = 60
    late = bars.copy(deep=True)
    for name in late.data_vars:
        late[name].values[cut + 1 :] = np.nan
    got = build_panel(late, features=SHORT)
    np.testing.assert_array_equal(got["tradable"][: cut + 1], panel["tradable"][: cut + 1])
    np.testing.assert_array_equal(got["features"][: cut + 1], panel["features"][: cut + 1])
    assert got["forward_return"].values[cut - 1 :].size
    assert np.isnan(got["forward_return"].values[cut - 1 :]).all()
    capped = build_panel(bars, features=SHORT, max_abs_return=0.001)
    np.testing.assert_array_equal(capped["tradable"], panel["tradable"])


def test_every_lost_cell_has_a_cause(bars: xr.Dataset) -> None:
    for name in bars.data_vars:
        bars[name].values[40:43, 1] = np.nan
    bars["volume"].values[50, 2] = 0.0
    bars["volume"].values[55, 3] = np.nan
    bars["close"].values[:, 6] = np.nan
    built = build_panel(bars, features=SHORT)
    assert list(built.asset.values) == [f"S{i}" for i in range(6)]
    rules = rules_of(built)
    assert rules["assets without any close"] == (1, ("S6",))
    assert rules["cells without a close (not listed, suspended, ended)"] == (3, ("S1 (3)",))
    assert rules["cells whose volume is 0"] == (1, ("S2 (1)",))
    assert rules["cells without a volume"] == (1, ("S3 (1)",))
    assert rules["cells whose windows are not warm yet"][0] == 60
    count, places = rules["cells with an undefined feature (worst features named)"]
    assert places[0].startswith("ROC10 (")
    lost = sum(number for rule, (number, _) in rules.items() if rule.startswith("cells"))
    assert lost == int((~built["tradable"]).sum())
    assert count == lost - 65


def test_medians_fill_undefined_features_when_asked(bars: xr.Dataset) -> None:
    for name in bars.data_vars:
        bars[name].values[40, 1] = np.nan
        bars[name].values[:20, 4] = np.nan
    without = build_panel(bars, features=SHORT)
    bars["volume"].values[50, 6] = 0.0  # an asset that does not trade has no say in the median
    without["tradable"].values[50, 6] = False
    filled = build_panel(bars, features=SHORT, missing="median")
    roc = list(filled.feature.values).index("ROC10")
    known = without["tradable"].values[50]
    assert not known[1]
    np.testing.assert_array_equal(filled["tradable"].values[50], np.arange(ASSETS) != 6)
    assert filled["features"].values[50, 1, roc] == np.median(
        without["features"].values[50, known, roc]
    )
    assert filled["tradable"].values[22, 4]
    assert not filled["tradable"].values[5].any()  # nobody knows ROC10 yet
    assert rules_of(filled)["ROC10 undefined"] == (11, ("S4 (10)", "S1 (1)"))
    np.testing.assert_array_equal(filled["forward_return"], without["forward_return"])


def test_labels_beyond_the_bound_are_not_observed(bars: xr.Dataset) -> None:
    bars["close"].values[70:, 5] *= 2.5
    plain = build_panel(bars, features=SHORT)
    built = build_panel(bars, features=SHORT, max_abs_return=0.5)
    assert np.isnan(built["forward_return"].values[68, 5])
    assert int((built["forward_return"].isnull() & plain["forward_return"].notnull()).sum()) == 1
    count, places = rules_of(built)["labels beyond +-0.5"]
    assert count == 1
    assert places[0].startswith("S5 2022-06-03 (+1.")


def test_a_thin_cross_section_is_emptied(bars: xr.Dataset) -> None:
    bars["close"].values[80, :5] = np.nan
    built = build_panel(bars, features=["KLEN"], min_assets=3)
    assert not built["tradable"].values[80].any()
    assert rules_of(built)["fewer than 3 tradable assets on the date"][0] == 2
    assert build_panel(bars, features=["KLEN"])["tradable"].values[80].sum() == 2


def test_close_alone_makes_a_panel_that_says_what_it_lacks(bars: xr.Dataset) -> None:
    built = build_panel(bars[["close"]])
    assert built.sizes["feature"] == 75
    unavailable = json.loads(built.attrs["features_unavailable"])
    assert len(unavailable) == 83
    assert "needs volume" in unavailable["VMA5"]


def test_qlib_windows_need_no_warming(bars: xr.Dataset) -> None:
    built = build_panel(bars, features=["STD5", "MA60"], compat="qlib")
    assert built["tradable"].values[1:].all()


def test_bars_that_make_no_panel_are_refused(bars: xr.Dataset) -> None:
    with pytest.raises(PanelError, match="at least 2 assets with prices; got 1"):
        build_panel(bars.isel(asset=[0]))
    with pytest.raises(PanelError, match="at least 2 dates with prices; got 1"):
        build_panel(bars.isel(date=[0]))
    with pytest.raises(PanelError, match=r"at least 61 \(longest window\) \+ 2 \(label\); got 62"):
        build_panel(bars.isel(date=slice(0, 62)))
    with pytest.raises(PanelError, match="dims date and asset and a variable close"):
        build_panel(bars.drop_vars("close"))
    with pytest.raises(PanelError, match=r"got dims \('date', 'stock'\) and variables"):
        build_panel(bars.rename(asset="stock"))
    bars["volume"].values[:] = 0.0
    with pytest.raises(PanelError, match=r"must have a tradable cell(.|\n)*volume is 0 +679"):
        build_panel(bars, features=["KLEN"])


def test_options_out_of_range_are_refused(bars: xr.Dataset) -> None:
    with pytest.raises(SpecError, match="max_abs_return must be > 0; got 0"):
        build_panel(bars, max_abs_return=0)
    with pytest.raises(SpecError, match="min_assets must be an integer >= 2; got 1"):
        build_panel(bars, min_assets=1)
    with pytest.raises(SpecError, match=r"missing must be one of .* got 'zero'"):
        build_panel(bars, missing="zero")
    wrong: list[dict[str, Any]] = [{"horizon": "5"}, {"start_lag": -1}, {"min_assets": 2.5}]
    for options in wrong:
        with pytest.raises(SpecError, match=f"{next(iter(options))} must be an integer >= .; got"):
            build_panel(bars, **options)
    with pytest.raises(SpecError, match=r"max_abs_return must be > 0; got '0\.5'"):
        build_panel(bars, max_abs_return="0.5")
    with pytest.raises(SpecError, match="universe must be UniverseRules; got NoneType"):
        build_panel(bars, universe=None)
    with pytest.raises(SpecError, match="features must be names; got 5"):
        build_panel(bars, features=5)
    with pytest.raises(SpecError, match=r"subset must hold names of Alpha158 or .*; got MA7"):
        build_panel(bars, features=["MA7"])


def test_dates_without_the_benchmark_are_written_down(bars: xr.Dataset) -> None:
    market = bars["close"].mean("asset").to_series()
    market.iloc[80:83] = np.nan
    built = build_panel(bars, features=SHORT, kind="market_excess", benchmark=market)
    found = {f.rule: f for f in DropLedger.from_json(built.attrs["ledger"]).findings}
    lost = found["dates without the benchmark's return"]
    assert lost.count == 4  # t+1 or t+2 is one of the three
    assert lost.places[0] == str(bars["date"].values[78])[:10]


def test_bars_that_are_not_bars_are_refused(bars: xr.Dataset) -> None:
    text = bars.assign_coords(date=[str(day)[:10] for day in bars["date"].values])
    for odd in (text, bars.drop_vars("date"), bars.assign(close=bars["close"].astype(str))):
        with pytest.raises(PanelError, match="must have datetime64 dates and numbers as close"):
            build_panel(odd, features=SHORT)


# ---- storage --------------------------------------------------------------------------------


def test_round_trip_gives_the_same_panel(panel: Panel, tmp_path: Path) -> None:
    path = write_panel(panel, tmp_path / "deep" / "panel.zarr")
    back = read_panel(path)
    xr.testing.assert_identical(back, panel)
    assert back["forward_return"].attrs == panel["forward_return"].attrs
    assert panel_hash(back) == panel_hash(panel)
    assert [entry.name for entry in path.parent.iterdir()] == ["panel.zarr"]
    again = write_panel(read_panel(path), str(path))  # a panel may be replaced, by itself too
    xr.testing.assert_identical(read_panel(again), panel)
    assert [entry.name for entry in path.parent.iterdir()] == ["panel.zarr"]


def test_hash_sees_every_part_and_nothing_else(panel: Panel) -> None:
    want = panel_hash(panel)
    assert panel_hash(panel.copy(deep=True)) == want
    assert panel_hash(panel.assign_attrs(note="x").drop_vars("close")) == want
    assert panel_hash(panel.assign_coords(date=panel.date.astype("datetime64[s]"))) == want
    changes = []
    for name, cell in (("features", (90, 1, 2)), ("tradable", (90, 1)), ("forward_return", (9, 1))):
        other = panel.copy(deep=True)
        other[name].values[cell] = 0
        changes.append(panel_hash(other))
    changes.append(panel_hash(panel.assign_coords(asset=[f"T{i}" for i in range(ASSETS)])))
    relabelled = panel.copy(deep=True)
    relabelled["forward_return"].attrs["horizon"] = 2
    changes.append(panel_hash(relabelled))
    assert len({want, *changes}) == 6


def test_hash_is_the_same_in_another_run() -> None:
    code = (
        "import numpy as np, xarray as xr; from nfi_pyro.data import panel_hash\n"
        "d = ('date', 'asset')\n"
        "p = xr.Dataset({'features': ((*d, 'feature'), np.arange(12, dtype='f4').reshape(2, 3, 2)),"
        "'tradable': (d, np.ones((2, 3), bool)), 'forward_return': (d, np.zeros((2, 3), 'f4'),"
        "{'start_lag': 1, 'horizon': 1, 'unit': 'return'})}, {'date': np.array(['2020-01-01',"
        "'2020-01-02'], 'M8[ns]'), 'asset': ['a', 'b', 'c'], 'feature': ['x', 'y']})\n"
        "print(panel_hash(p))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


def test_a_table_is_not_taken_for_bars() -> None:
    with pytest.raises(PanelError, match="bars must be a Dataset of dims date and asset; got Data"):
        build_panel(pd.DataFrame({"close": [1.0]}))  # type: ignore[arg-type]


def test_nothing_is_left_behind_when_writing_fails(
    panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_panel(panel, tmp_path / "panel.zarr")

    def fail(*_args: object, **_options: object) -> None:
        (tmp_path / "touched").touch()
        raise OSError("disk full")

    monkeypatch.setattr(xr.Dataset, "to_zarr", fail)
    with pytest.raises(PanelError, match="must be writable; got disk full at"):
        write_panel(panel, path)
    monkeypatch.undo()
    xr.testing.assert_identical(read_panel(path), panel)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["panel.zarr", "touched"]


def test_damaged_or_foreign_paths_are_refused(panel: Panel, tmp_path: Path) -> None:
    with pytest.raises(PanelError, match="panel must exist; got nothing at"):
        read_panel(tmp_path / "absent.zarr")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    for name in ("notes.txt", "folder"):
        with pytest.raises(PanelError, match="panel must be a readable zarr directory"):
            read_panel(tmp_path / name)
        with pytest.raises(PanelError, match="must be free or hold a panel; got another thing"):
            write_panel(panel, tmp_path / name)
    write_panel(panel, tmp_path / "other.zarr")
    meta = tmp_path / "other.zarr" / "zarr.json"
    content = json.loads(meta.read_text())
    del content["attributes"]["content_sha256"]
    meta.write_text(json.dumps(content))
    with pytest.raises(PanelError, match="must carry the hashes of its content; got not all"):
        read_panel(tmp_path / "other.zarr")


@pytest.mark.parametrize("part", ["features/c", "close/c", "forward_return/zarr.json", "asset/c"])
@pytest.mark.parametrize("damage", ["lost", "cut"])
def test_a_lost_or_cut_part_is_seen(panel: Panel, tmp_path: Path, part: str, damage: str) -> None:
    path = write_panel(panel, tmp_path / "panel.zarr")
    place = path / part
    files = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())
    if damage == "lost":
        files[0].unlink()
    else:
        whole = files[0].read_bytes()
        files[0].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PanelError, match=r"readable zarr directory|part is missing"):
        read_panel(path)


# ---- the package ----------------------------------------------------------------------------


def test_importing_data_does_not_import_torch() -> None:
    code = (
        "import sys, nfi_pyro.data as d; d.build_panel; d.read_prices; d.embedded_prices;"
        "print('torch' in sys.modules, 'skfolio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_unknown_names_are_attribute_errors() -> None:
    assert "build_panel" in dir(nfi_pyro.data)
    with pytest.raises(AttributeError, match=r"nfi_pyro\.data' has no attribute 'nothing'"):
        nfi_pyro.data.nothing  # noqa: B018
