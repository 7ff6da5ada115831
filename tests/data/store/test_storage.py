"""Panels on disk: read date by date, appended to, and readable whatever interrupts a write."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.data import build_panel, check_panel, panel_hash, read_panel, write_panel
from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.data.market.universe import UniverseRules
from nfi_pyro.data.panel import Panel, feature_blocks
from nfi_pyro.data.panel_spec import PanelSpec
from nfi_pyro.data.store import panel_writer as writing
from nfi_pyro.data.store.append import append_panel, extend_panel
from nfi_pyro.data.store.lazy import complete_cells, is_lazy
from nfi_pyro.errors import PanelError, SpecError

DATES, ASSETS = 31, 7
FEATURES = ["KMID", "STD5", "ROC5"]


def make_bars(n_dates: int = DATES, n_assets: int = ASSETS) -> xr.Dataset:
    rng = np.random.default_rng(5)
    close = np.exp(np.cumsum(rng.normal(0, 0.02, (n_dates, n_assets)), axis=0)) * 20
    spread = rng.uniform(0.001, 0.02, close.shape)
    fields = {
        "open": close * (1 + spread * 0.3),
        "high": close * (1 + spread),
        "low": close * (1 - spread),
        "close": close,
        "volume": rng.uniform(1e4, 1e5, close.shape),
    }
    return xr.Dataset(
        {name: (("date", "asset"), values) for name, values in fields.items()},
        {
            "date": pd.bdate_range("2022-01-03", periods=n_dates).to_numpy(),
            "asset": np.array([f"A{place}" for place in range(n_assets)], dtype=object),
        },
    )


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four dates to a chunk: seven full chunks and one with three dates."""
    monkeypatch.setattr(writing, "_CHUNK_BYTES", 4 * 4 * ASSETS * len(FEATURES))


@pytest.fixture
def panel() -> Panel:
    return build_panel(make_bars(), features=FEATURES)


def feature_files(path: Path) -> dict[str, tuple[int, int]]:
    return {
        str(file.relative_to(path)): (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in sorted((path / "features" / "c").rglob("*"))
        if file.is_file()
    }


# ---- lazily ------------------------------------------------------------------------------------


def test_a_lazy_panel_is_the_panel_and_keeps_nothing(
    panel: Panel, tmp_path: Path, small_chunks: None
) -> None:
    path = write_panel(panel, tmp_path / "panel.zarr")
    assert len(feature_files(path)) == 8
    lazy = read_panel(path, lazy=True)
    assert is_lazy(lazy["features"])
    assert panel_hash(lazy) == panel_hash(panel)
    assert is_lazy(lazy["features"]), "hashing loaded it"
    complete = np.isfinite(panel["features"].values).all(axis=2)
    np.testing.assert_array_equal(lazy["complete"].values, complete)
    assert 0 < complete.sum() < complete.size
    check_panel(lazy)
    assert not is_lazy(read_panel(path)["features"])
    assert is_lazy(lazy["features"])
    xr.testing.assert_identical(lazy.load().drop_vars("complete"), read_panel(path))


@pytest.mark.parametrize(
    "index",
    [
        {"date": slice(3, 11)},
        {"date": 4},
        {"date": [9, 2, 2], "asset": [3, 1]},
        {"date": slice(None, None, 3), "feature": -1},
        {"date": slice(20, 5, -2), "asset": 2, "feature": slice(1, None)},
        {"date": slice(7, 7)},
    ],
)
def test_any_part_of_a_lazy_panel_is_that_part(
    panel: Panel, tmp_path: Path, index: dict[str, object]
) -> None:
    lazy = read_panel(write_panel(panel, tmp_path / "panel.zarr"), lazy=True)
    got, want = lazy["features"].isel(index), panel["features"].isel(index)
    assert is_lazy(got)
    np.testing.assert_array_equal(got.values, want.values)
    assert got.dims == want.dims


def test_a_plain_zarr_reader_opens_a_panel(panel: Panel, tmp_path: Path) -> None:
    path = write_panel(panel, tmp_path / "panel.zarr")
    with xr.open_zarr(path, consolidated=False, chunks=None) as plain:
        assert set(plain.data_vars) == set(panel.data_vars)
        np.testing.assert_array_equal(plain["features"].values, panel["features"].values)
        np.testing.assert_array_equal(plain["date"].values, panel["date"].values)


def test_a_lost_chunk_is_seen_when_its_dates_are_read_and_not_before(
    panel: Panel, tmp_path: Path, small_chunks: None
) -> None:
    path = write_panel(panel, tmp_path / "panel.zarr")
    (path / "features" / "c" / "3" / "0" / "0").unlink()
    lazy = read_panel(path, lazy=True)
    assert np.isfinite(lazy["features"][10:12].values).all()
    days = ", ".join(str(day)[:10] for day in panel["date"].values[12:16])
    with pytest.raises(PanelError, match=rf"got other content at .*panel.zarr on {days}: a part"):
        lazy["features"][12:16].to_numpy()
    with pytest.raises(PanelError, match="a part is missing or altered"):
        read_panel(path)


def test_complete_cells_are_guarded_too(panel: Panel, tmp_path: Path) -> None:
    path = write_panel(panel, tmp_path / "panel.zarr")
    for file in (path / "checks" / "complete" / "c").rglob("*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(PanelError, match=r"other content at .* in complete: a part is missing"):
        read_panel(path, lazy=True)


def test_altered_attributes_are_seen(panel: Panel, tmp_path: Path) -> None:
    path = write_panel(panel, tmp_path / "panel.zarr")
    meta = path / "forward_return" / "zarr.json"
    meta.write_text(meta.read_text().replace('"price": "close"', '"price": "open"'))
    with pytest.raises(PanelError, match=r"got other content at .* in attributes: a part"):
        read_panel(path)


def test_stored_cells_are_not_taken_for_a_selection_of_features(
    panel: Panel, tmp_path: Path
) -> None:
    path = write_panel(panel, tmp_path / "panel.zarr")
    lazy = read_panel(path, lazy=True)
    assert complete_cells(lazy) is not None
    some = lazy.sel(feature=["KMID"])
    assert is_lazy(some["features"])
    assert complete_cells(some) is None
    check_panel(some)


def test_large_panels_are_lazy_by_themselves(
    panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_panel(panel, tmp_path / "panel.zarr")
    monkeypatch.setattr("nfi_pyro.data.store.storage.LAZY_BYTES", panel["features"].nbytes - 1)
    assert is_lazy(read_panel(path)["features"])
    assert not is_lazy(read_panel(path, lazy=False)["features"])
    monkeypatch.setattr("nfi_pyro.data.store.storage.LAZY_BYTES", panel["features"].nbytes)
    assert not is_lazy(read_panel(path)["features"])


def test_feature_blocks_cover_a_span_in_order(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nfi_pyro.data.panel._BLOCK_BYTES", 5 * 4 * ASSETS * len(FEATURES))
    blocks = list(feature_blocks(panel, slice(2, 14)))
    assert [(rows.start, rows.stop) for rows, _ in blocks] == [(2, 7), (7, 12), (12, 14)]
    joined = np.concatenate([values for _, values in blocks])
    np.testing.assert_array_equal(joined, panel["features"].values[2:14])


# ---- appended ----------------------------------------------------------------------------------


def test_appending_gives_the_panel_of_the_whole_and_leaves_old_files_alone(
    tmp_path: Path, small_chunks: None
) -> None:
    bars = make_bars()
    path = write_panel(build_panel(bars.isel(date=slice(0, 18)), features=FEATURES), tmp_path / "p")
    before = feature_files(path)
    assert append_panel(build_panel(bars, features=FEATURES), path) == DATES - 18
    whole = build_panel(bars, features=FEATURES)
    got = read_panel(path)
    xr.testing.assert_equal(got, whole)
    assert got["forward_return"].attrs == whole["forward_return"].attrs
    assert panel_hash(got) == panel_hash(whole) == panel_hash(read_panel(path, lazy=True))
    after = feature_files(path)
    full = {name for name in before if int(name.split("/")[2]) < 18 // 4}
    assert len(full) == 4
    assert {name: after[name] for name in full} == {name: before[name] for name in full}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["p"]
    assert "dates appended" in str(DropLedger.from_json(got.attrs["ledger"]))
    assert append_panel(whole, path) == 0


def test_recent_history_is_enough_and_labels_mature(tmp_path: Path, small_chunks: None) -> None:
    bars = make_bars()
    path = write_panel(build_panel(bars.isel(date=slice(0, 20)), features=FEATURES), tmp_path / "p")
    assert np.isnan(read_panel(path)["forward_return"].values[18:20]).all()
    recent = build_panel(bars.isel(date=slice(9, None)), features=FEATURES)
    assert append_panel(recent, path) == DATES - 20
    whole = build_panel(bars, features=FEATURES)
    xr.testing.assert_equal(read_panel(path), whole)


def test_new_assets_are_unknown_on_old_dates_and_lost_ones_on_new(
    tmp_path: Path, small_chunks: None
) -> None:
    bars = make_bars()
    old = bars.isel(asset=[0, 1, 2, 4], date=slice(0, 18))
    path = write_panel(build_panel(old, features=FEATURES), tmp_path / "p")
    late = bars.isel(asset=[0, 1, 2, 3, 5])
    late["close"][:20, 3] = np.nan
    append_panel(build_panel(late, features=FEATURES), path)
    got = read_panel(path)
    assert got["asset"].values.tolist() == ["A0", "A1", "A2", "A4", "A3", "A5"]
    assert not got["tradable"].sel(asset=["A3", "A5"]).values[:18].any()
    assert np.isnan(got["features"].sel(asset=["A3", "A5"]).values[:18]).all()
    assert not got["tradable"].sel(asset="A4").values[18:].any()
    np.testing.assert_array_equal(
        got["features"].sel(asset=["A0", "A5"]).values[18:],
        build_panel(late, features=FEATURES)["features"].sel(asset=["A0", "A5"]).values[18:],
    )
    assert panel_hash(read_panel(path, lazy=True)) == panel_hash(got)
    ledger = str(DropLedger.from_json(got.attrs["ledger"]))
    assert "assets without prices in what was appended" in ledger
    assert "A4" in ledger


def test_a_dividend_since_scales_the_stored_closes_and_nothing_else(tmp_path: Path) -> None:
    bars = make_bars()
    path = write_panel(build_panel(bars.isel(date=slice(0, 18)), features=FEATURES), tmp_path / "p")
    factor = xr.where(bars.asset == "A3", 0.97, 1.0)
    rebased = bars.assign({name: bars[name] * factor for name in ("open", "high", "low", "close")})
    append_panel(build_panel(rebased.isel(date=slice(0, 25)), features=FEATURES), path)
    append_panel(build_panel(rebased, features=FEATURES), path)
    got, want = read_panel(path), build_panel(rebased, features=FEATURES)
    np.testing.assert_allclose(got["close"].values, want["close"].values, rtol=2e-6)
    np.testing.assert_array_equal(got["tradable"].values, want["tradable"].values)
    ledger = DropLedger.from_json(got.attrs["ledger"]).findings
    assert sum(found.rule.startswith("dates appended") for found in ledger) == 1
    assert next(f.count for f in ledger if f.rule.startswith("dates appended")) == DATES - 18


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda b: b.isel(date=slice(20, None)), "must share the stored dates .* got 2022-01-31"),
        (lambda b: b.drop_isel(date=[10]), "and 2022-01-17 in one only"),
        (
            lambda b: b.assign(close=b["close"] * xr.where(b.asset == "A2", 1.01, 1)),
            "got 1[0-9] other",
        ),
        (lambda b: b.isel(date=slice(14, None)), "assets tradable on the last stored date"),
    ],
)
def test_what_does_not_continue_the_stored_panel_is_refused_and_changes_nothing(
    tmp_path: Path, change: Callable[[xr.Dataset], xr.Dataset], match: str
) -> None:
    bars = make_bars()
    first = build_panel(bars.isel(date=slice(0, 18)), features=FEATURES)
    path = write_panel(first, tmp_path / "p")
    with pytest.raises(PanelError, match=match):
        append_panel(build_panel(change(bars), features=FEATURES), path)
    xr.testing.assert_identical(read_panel(path), first)


def test_other_features_or_another_label_are_refused(tmp_path: Path) -> None:
    bars = make_bars()
    path = write_panel(build_panel(bars.isel(date=slice(0, 18)), features=FEATURES), tmp_path / "p")
    with pytest.raises(PanelError, match=r"must have the features of the .* got KMID, STD5"):
        append_panel(build_panel(bars, features=FEATURES[:2]), path)
    with pytest.raises(PanelError, match=r"must have the label of the stored one; got start_lag 1"):
        append_panel(build_panel(bars, features=FEATURES, horizon=2), path)


def with_extras(panel: Panel) -> Panel:
    """A panel with text, a static variable, and exposures over factors with names."""
    rng = np.random.default_rng(3)
    n_dates, n_assets = panel.sizes["date"], panel.sizes["asset"]
    codes = np.array([f"I{place % 3}" for place in range(n_assets)], dtype=object)
    return check_panel(
        panel.assign(
            industry=(("date", "asset"), np.broadcast_to(codes, (n_dates, n_assets)).copy()),
            listed_on=("asset", np.arange(n_assets, dtype=np.float64)),
            exposures=(("date", "asset", "factor"), rng.normal(size=(n_dates, n_assets, 2))),
        ).assign_coords(factor=["value", "size"])
    )


def test_text_static_variables_and_coordinates_survive_an_append(tmp_path: Path) -> None:
    bars = make_bars()
    whole = with_extras(build_panel(bars, features=FEATURES))
    first = check_panel(whole.isel(date=slice(0, 18), asset=[0, 1, 2, 3, 5]))
    path = write_panel(first, tmp_path / "p")
    append_panel(check_panel(whole.isel(asset=[0, 1, 2, 3, 4, 6])), path)
    got = read_panel(path)
    assert got["asset"].values.tolist() == ["A0", "A1", "A2", "A3", "A5", "A4", "A6"]
    assert got["factor"].values.tolist() == ["value", "size"]
    assert got["industry"].sel(asset="A4").values[[0, -1]].tolist() == ["", "I1"]
    assert got["industry"].sel(asset="A5").values[[0, -1]].tolist() == ["I2", ""]
    assert got["listed_on"].values.tolist() == [0, 1, 2, 3, 5, 4, 6]
    want = whole["exposures"].sel(asset="A3").values
    np.testing.assert_array_equal(got["exposures"].sel(asset="A3").values, want)


def test_text_that_is_not_text_is_refused_before_anything_is_replaced(tmp_path: Path) -> None:
    panel = with_extras(build_panel(make_bars(), features=FEATURES))
    path = write_panel(panel, tmp_path / "p")
    odd = panel.copy(deep=True)
    odd["industry"].values[3, 2] = np.nan
    with pytest.raises(PanelError, match=r"industry must be text in every cell, .* 1 others: nan"):
        write_panel(odd, path)
    xr.testing.assert_identical(read_panel(path), panel)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["p"]


@pytest.mark.parametrize("step", [5, 31])
def test_labels_of_a_long_horizon_mature_however_dates_arrive(tmp_path: Path, step: int) -> None:
    bars = make_bars(97)
    options: dict[str, Any] = {"features": FEATURES, "horizon": np.int64(27)}
    path = tmp_path / "p"
    build_panel(bars.isel(date=slice(0, 66)), out=path, **options)
    for stop in range(66 + step, 98, step):
        extend_panel(bars.isel(date=slice(0, stop)), path)
    extend_panel(bars, path)
    xr.testing.assert_equal(read_panel(path), build_panel(bars, **options))


def test_an_asset_without_a_shared_price_is_named(tmp_path: Path) -> None:
    bars = make_bars(61)
    bars["close"][28:50, 4] = np.nan
    path = tmp_path / "p"
    build_panel(bars.isel(date=slice(0, 50)), out=path, features=FEATURES)
    extend_panel(bars, path)
    found = DropLedger.from_json(read_panel(path).attrs["ledger"]).findings
    assert [f.places for f in found if "base of stored closes unknown" in f.rule] == [("A4",)]


# ---- interrupted -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["update_attributes", "to_zarr", "variable_digests"])
def test_an_interrupted_append_leaves_the_old_panel_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    bars = make_bars()
    first = build_panel(bars.isel(date=slice(0, 18)), features=FEATURES)
    path = write_panel(first, tmp_path / "p")
    whole = build_panel(bars, features=FEATURES)

    def stop(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if place == "to_zarr":
            patch.setattr(xr.Dataset, place, stop)
        elif place == "variable_digests":
            patch.setattr(writing, place, stop)
        else:
            patch.setattr("zarr.Array.update_attributes", stop)
        with pytest.raises(KeyboardInterrupt):
            append_panel(whole, path)
    xr.testing.assert_identical(read_panel(path), first)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["p"]


def test_a_link_to_a_panel_stays_a_link(panel: Panel, tmp_path: Path) -> None:
    path = write_panel(panel, tmp_path / "real.zarr")
    (tmp_path / "link.zarr").symlink_to(path)
    short = check_panel(panel.isel(date=slice(0, 20)))
    write_panel(short, tmp_path / "link.zarr")
    assert (tmp_path / "link.zarr").is_symlink()
    assert read_panel(path).sizes["date"] == 20
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link.zarr", "real.zarr"]


def test_any_flipped_byte_is_a_panel_error(panel: Panel, tmp_path: Path) -> None:
    path = write_panel(panel, tmp_path / "p.zarr")
    for file in sorted((path / "date").rglob("*")) + sorted((path / "features").rglob("*")):
        if file.is_file():
            whole = file.read_bytes()
            for place in range(0, len(whole), max(1, len(whole) // 7)):
                file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
                with contextlib.suppress(PanelError):
                    xr.testing.assert_equal(read_panel(path), panel)  # a comment may change
            file.write_bytes(whole)


@pytest.mark.parametrize("name", ["x" * 300, "nul\0byte"])
def test_a_path_that_cannot_be_is_a_panel_error(panel: Panel, tmp_path: Path, name: str) -> None:
    with pytest.raises(PanelError, match="path of a panel must be"):
        write_panel(panel, tmp_path / name)
    with pytest.raises(PanelError, match="panel must exist"):
        read_panel(tmp_path / name)


def test_a_write_killed_between_its_two_moves_is_put_back(panel: Panel, tmp_path: Path) -> None:
    path = write_panel(panel, tmp_path / "p[1].zarr")
    path.rename(tmp_path / ".p[1].zarr.0123abcd.old")  # what a kill leaves
    xr.testing.assert_identical(read_panel(path), panel)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["p[1].zarr"]


def test_what_killed_writes_left_is_dropped_once_it_is_old(panel: Panel, tmp_path: Path) -> None:
    path = write_panel(panel, tmp_path / "p.zarr")
    young, old = tmp_path / ".p.zarr.00000001.new", tmp_path / ".p.zarr.00000002.new"
    for place in (young, old, tmp_path / ".p.zarr.00000003.old"):
        (place / "features").mkdir(parents=True)
    os.utime(old, (0, 0))
    write_panel(panel, path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [young.name, "p.zarr"]


# ---- built and extended from bars --------------------------------------------------------------


def test_a_panel_built_on_disk_is_the_panel_built_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None
) -> None:
    bars = make_bars(97)
    bars["close"][40:44, 2] = np.nan
    bars["high"][60, 3] = np.nan
    wanted = [*FEATURES, "CORD10", "IMAX20", "RANK5"]
    for missing in ("exclude", "median"):
        monkeypatch.setattr("nfi_pyro.data.build._BLOCK_BYTES", 11 * 4 * ASSETS * len(wanted))
        here = build_panel(bars, features=wanted, missing=missing, max_abs_return=0.05)
        there = build_panel(
            bars, features=wanted, missing=missing, max_abs_return=0.05, out=tmp_path / missing
        )
        xr.testing.assert_identical(there, here)
        assert there.attrs["ledger"] == here.attrs["ledger"]


def test_extending_from_bars_gives_the_panel_of_the_whole(tmp_path: Path) -> None:
    bars = make_bars(61)
    bars["close"][:30, 4] = np.nan  # listed late: young on the new dates
    rules = UniverseRules(min_age=25)
    options: dict[str, Any] = {
        "features": FEATURES,
        "universe": rules,
        "kind": "demeaned",
        "max_abs_return": 0.9,
    }
    path = tmp_path / "p"
    build_panel(bars.isel(date=slice(0, 50)), out=path, **options)
    assert extend_panel(bars, path) == 11
    whole = build_panel(bars, **options)
    xr.testing.assert_equal(read_panel(path), whole)
    young = whole["tradable"].values[50:, 4]
    assert not young[:5].any()
    assert young[5:].all()
    assert extend_panel(bars, path) == 0


def test_bars_too_short_to_know_the_ages_are_refused(tmp_path: Path) -> None:
    bars = make_bars(61)
    bars["close"][:40, 4] = np.nan
    path = tmp_path / "p"
    rules = UniverseRules(min_age=15)
    build_panel(bars.isel(date=slice(0, 50)), out=path, features=FEATURES, universe=rules)
    with pytest.raises(PanelError, match=r"not tradable on stored dates must not .* at A4 in"):
        extend_panel(bars.isel(date=slice(41, None)), path)  # A4 seems to have been there always
    assert extend_panel(bars, path) == 11


def test_objects_a_panel_was_built_with_must_be_given_again(tmp_path: Path) -> None:
    bars = make_bars(61)
    spells = pd.DataFrame(
        {"instrument": ["A1", "A2"], "start": ["2022-01-01"] * 2, "end": ["", ""]}
    )
    rules = UniverseRules(spells=spells)
    path = tmp_path / "p"
    build_panel(bars.isel(date=slice(0, 50)), out=path, features=FEATURES, universe=rules)
    with pytest.raises(SpecError, match=r"must be given again; got none for universe\.spells"):
        extend_panel(bars, path)
    assert extend_panel(bars, path, universe=rules) == 11
    assert read_panel(path)["tradable"].values[-1].tolist() == [False, True, True] + [False] * 4


def test_options_come_back_from_json_and_unknown_ones_are_refused() -> None:
    spec = PanelSpec(
        features=("KMID", "STD5"), horizon=5, universe=UniverseRules(min_age=3, min_amount=1e6)
    )
    assert PanelSpec.from_json(spec.to_json()).to_json() == spec.to_json()
    assert PanelSpec().to_json() == "{}"
    with pytest.raises(SpecError, match=r"options of a panel must be among .*; got feature"):
        build_panel(make_bars(), feature="alpha158_20")
    with pytest.raises(SpecError, match="stored options of a panel must be JSON"):
        PanelSpec.from_json("[1]")
