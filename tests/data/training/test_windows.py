"""Windows: views of one copy, masks that know every lag, and blocks of consecutive dates."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from nfi_pyro.data import PanelWindows, check_panel, read_panel, write_panel
from nfi_pyro.data.panel import Panel, PanelBlocks
from nfi_pyro.data.training.transform_chain import TransformChain
from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.errors import PanelError, ShapeError

DATES, ASSETS, FEATURES, UNIT = 13, 5, 3, 0.02


def chain_of(panel: Panel, steps: Sequence[str] = ("robust_zscore",)) -> TransformChain:
    names = tuple(str(name) for name in panel["feature"].values)
    span = slice(0, panel.sizes["date"])
    return TransformChain.fit(steps, PanelBlocks(panel, span), names)


def windows_of(panel: Panel, lags: int = 2) -> PanelWindows:
    return PanelWindows(panel, lags=lags, transforms=chain_of(panel), return_scale=UNIT)


@pytest.fixture
def panel(make_panel) -> Panel:
    return make_panel(n_dates=DATES)


def within(part: torch.Tensor, whole: torch.Tensor) -> bool:
    """Return whether `part` lies in the memory of `whole`."""
    first = whole.untyped_storage().data_ptr()
    last = first + whole.untyped_storage().nbytes()
    start = part.data_ptr()
    return first <= start and start + part.numel() * part.element_size() <= last


@pytest.mark.parametrize("lags", [1, 2, 5])
def test_a_batch_is_views_of_the_dates_it_names(panel, lags: int) -> None:
    windows = windows_of(panel, lags)
    batch, outcome = windows.batch(6, 9), windows.outcome(6, 9)
    assert within(batch.features, windows.rows.read(0, DATES))
    assert within(batch.tradable, windows.entered)
    assert within(outcome.forward_return, windows.forward_return)
    assert within(outcome.observed, windows.observed)
    assert batch.features.shape == (3 + lags - 1, ASSETS, FEATURES)
    assert batch.tradable.shape == outcome.observed.shape == (3, ASSETS)
    assert torch.equal(batch.features, windows.rows.read(0, DATES)[6 - lags + 1 : 9])
    assert torch.equal(batch.tradable, windows.entered[6:9])
    assert torch.equal(outcome.forward_return, windows.forward_return[6:9])
    assert (batch.date_index.tolist(), batch.n_dates) == ([0, 1, 2], 3)


def test_a_block_of_a_span_counts_from_the_span(panel) -> None:
    batch = windows_of(panel).batch(6, 9, span=slice(4, 11))
    assert (batch.date_index.tolist(), batch.n_dates) == ([2, 3, 4], 7)


@pytest.mark.parametrize("lags", [1, 2, 5])
def test_an_asset_enters_when_tradable_and_finite_at_every_lag(panel, lags: int) -> None:
    values = panel["features"].values
    values[3, 2, 1] = np.nan  # tradable and not finite: one feature of one asset on one date
    panel["tradable"].values[3, 2] = False
    panel["tradable"].values[8, 1] = False  # finite and not tradable
    values[8, 1] = 0.5
    windows = windows_of(panel, lags)
    for date in range(DATES):
        for asset in range(ASSETS):
            window = values[date - lags + 1 : date + 1, asset] if date >= lags - 1 else None
            want = (
                window is not None
                and bool(panel["tradable"].values[date, asset])
                and bool(np.isfinite(window).all())
            )
            assert bool(windows.entered[date, asset]) == want, (date, asset)
    # Not tradable on one date does not keep an asset out of the next, when its features are known.
    assert bool(windows.entered[9, 1]) == bool(
        panel["tradable"].values[9, 1] and np.isfinite(values[10 - lags : 10, 1]).all()
    )


def test_an_infinite_feature_counts_as_missing_at_every_lag(panel) -> None:
    panel["features"].values[5:8, 2] = 0.5
    panel["tradable"].values[5:8, 2] = True
    panel["features"].values[5, 2, 0] = -np.inf  # allowed where an asset is not tradable
    panel["tradable"].values[5, 2] = False
    windows = PanelWindows(
        check_panel(panel), lags=2, transforms=chain_of(panel), return_scale=UNIT
    )
    assert windows.rows.read(0, DATES)[5, 2, 0] == 0  # and not the clip
    assert windows.entered[5:8, 2].tolist() == [False, False, True]


def test_no_nan_reaches_a_tensor(panel) -> None:
    panel["forward_return"].values[7, 3] = np.nan
    windows = windows_of(panel)
    assert torch.isfinite(windows.rows.read(0, DATES)).all()
    assert torch.isfinite(windows.forward_return).all()
    missing = ~np.isfinite(panel["features"].values).all(2)
    assert missing.any()
    assert (windows.rows.read(0, DATES).numpy()[~np.isfinite(panel["features"].values)] == 0).all()
    assert not windows.observed[7, 3]
    assert windows.forward_return[7, 3] == 0


def test_observed_is_entered_with_a_known_return_and_entered_ignores_returns(panel) -> None:
    panel["forward_return"].values[7, 3] = np.nan
    windows = windows_of(panel)
    known = torch.from_numpy(np.isfinite(panel["forward_return"].values))
    assert torch.equal(windows.observed, windows.entered & known)
    blind = panel.copy(deep=True)
    blind["forward_return"].values[:] = np.nan
    assert torch.equal(windows_of(blind).entered, windows.entered)
    assert not windows_of(blind).observed.any()


def test_returns_are_in_units_of_the_scale_and_zero_elsewhere(panel) -> None:
    windows = windows_of(panel)
    observed = windows.observed.numpy()
    want = panel["forward_return"].values / UNIT
    got = windows.forward_return.numpy()
    np.testing.assert_allclose(got[observed], want[observed], rtol=1e-6)
    assert (got[~observed] == 0).all()


def test_the_panel_is_read_and_never_changed(panel) -> None:
    before = panel.copy(deep=True)
    windows = windows_of(panel)
    windows.rows.read(0, DATES).zero_()
    windows.forward_return.zero_()
    assert panel.identical(before)


def test_outcomes_are_another_type_with_no_field_of_a_batch() -> None:
    assert not set(PanelBatch.__dataclass_fields__) & set(Outcome.__dataclass_fields__)
    assert not issubclass(Outcome, PanelBatch)


@pytest.mark.parametrize(("span", "block"), [((1, 13), 5), ((0, 13), 5), ((4, 5), 7), ((2, 12), 1)])
def test_blocks_cover_a_span_with_consecutive_dates_once(panel, span, block: int) -> None:
    windows = windows_of(panel)
    blocks = list(windows.blocks(slice(*span), block))
    covered = [date for start, stop in blocks for date in range(start, stop)]
    assert covered == list(range(max(span[0], windows.first), span[1]))
    assert all(0 < stop - start <= block for start, stop in blocks)
    for start, stop in blocks:
        assert windows.batch(start, stop).tradable.shape == (stop - start, ASSETS)


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (5, 5), (7, 6), (11, 14)])
def test_a_block_outside_the_panel_is_refused(panel, start: int, stop: int) -> None:
    with pytest.raises(ShapeError, match=rf"must lie in 1:13 and not be empty; got {start}:{stop}"):
        windows_of(panel).batch(start, stop)


def test_a_panel_shorter_than_a_window_is_refused(panel) -> None:
    with pytest.raises(PanelError, match="at least 17 dates for windows of 17 lags; got 13"):
        windows_of(panel, lags=17)


def test_a_panel_as_long_as_a_window_has_one_date(panel) -> None:
    windows = windows_of(panel, lags=DATES)
    assert windows.first == DATES - 1
    assert not windows.entered[: DATES - 1].any()
    assert windows.batch(DATES - 1, DATES).features.shape == (DATES, ASSETS, FEATURES)


@pytest.mark.parametrize("names", [["f0", "f1", "other"], ["f1", "f0", "f2"]])
def test_other_features_than_the_transforms_are_refused(panel, names: list[str]) -> None:
    chain = chain_of(panel)
    renamed = Panel(panel.assign_coords(feature=names))
    with pytest.raises(PanelError, match="features must be those of the fit, in order; missing"):
        PanelWindows(renamed, lags=2, transforms=chain, return_scale=UNIT)


# ---- from disk ---------------------------------------------------------------------------------


@pytest.fixture
def lazy(panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Panel:
    """The panel on disk, two dates to a chunk."""
    monkeypatch.setattr("nfi_pyro.data.store.panel_writer._CHUNK_BYTES", 2 * 4 * ASSETS * FEATURES)
    return read_panel(write_panel(panel, tmp_path / "panel.zarr"), lazy=True)


@pytest.mark.parametrize("steps", [["robust_zscore"], ["process_inf", "cs_zscore", "cs_fill"]])
def test_windows_from_disk_are_the_windows_from_memory(panel, lazy, steps: list[str]) -> None:
    resident, streamed = (
        PanelWindows(p, lags=3, transforms=chain_of(p, steps), return_scale=UNIT)
        for p in (panel, lazy)
    )
    assert resident.rows.resident
    assert not streamed.rows.resident
    assert torch.equal(resident.entered, streamed.entered)
    assert torch.equal(resident.observed, streamed.observed)
    blocks = [(2, 5), (5, 8), (8, 13), (3, 4), (4, 9), (2, 13)]  # onward, back, overlapping
    for (batch, outcome), (start, stop) in zip(streamed.stream(blocks), blocks, strict=True):
        want = resident.batch(start, stop)
        assert torch.equal(batch.features, want.features), (start, stop)
        assert torch.equal(batch.tradable, want.tradable)
        assert torch.equal(outcome.forward_return, resident.outcome(start, stop).forward_return)
    pairs = zip(resident.stream(blocks), streamed.stream(blocks, span=slice(1, 13)), strict=True)
    assert all(torch.equal(one.features, other.features) for (one, _), (other, _) in pairs)


def test_a_stream_left_early_leaves_no_thread_behind(lazy) -> None:
    windows = windows_of(lazy)
    stream = windows.stream([(start, start + 2) for start in range(1, 11)])
    next(stream)
    assert any(thread.name.startswith("panel-reader") for thread in threading.enumerate())
    stream.close()
    assert not any(thread.name.startswith("panel-reader") for thread in threading.enumerate())


def test_an_error_of_the_reader_reaches_the_one_who_reads(lazy) -> None:
    stream = windows_of(lazy).stream([(1, 3), (12, 15)])
    next(stream)
    with pytest.raises(ShapeError, match="must lie in 1:13 and not be empty; got 12:15"):
        next(stream)
