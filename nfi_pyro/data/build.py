"""From bars to a panel: features, label, universe, and a ledger of every cell left out."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.panel_builder import PanelBuilder
from nfi_pyro.data.panel_spec import PanelSpec
from nfi_pyro.data.store.panel_writer import PanelWriter, chunk_rows
from nfi_pyro.data.store.storage import read_panel
from nfi_pyro.dims import ASSET, DATE, FEATURE

_BLOCK_BYTES = 384 * 2**20


def build_panel(
    bars: xr.Dataset,
    spec: PanelSpec | None = None,
    *,
    out: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> Panel:
    """Return the panel of some bars: Alpha158 features, the label, and who is tradable when.

    An asset is tradable on a date when, at that close, its price is known, its volume is above 0
    (where the bars have volumes), the universe's rules take it in and all its features are
    finite. Future returns play no part.

    Parameters
    ----------
    bars : Dataset, dims (date, asset)
        As `read_prices` or `embedded_prices` return them; see `alpha158` for the fields.
    spec : PanelSpec, optional
        All options in one; by default those of `PanelSpec`.
    out : str or Path, optional
        Write the panel there, a block of dates at a time, instead of holding it in memory; see
        `write_panel`. The panel returned is then read from there (see `read_panel`).
    progress : bool
        Show a progress bar on standard error while a panel is written to `out`.
    **options
        Fields of `PanelSpec` to set: ``features="alpha158_20"``, ``horizon=5``, ...

    Returns
    -------
    Panel
        With ``features``, ``tradable``, ``forward_return``, ``close`` (float32) and the masks of
        `tradable_universe`, known at the close of their date. Attributes ``source``, ``ledger``
        (JSON of a `DropLedger`, the reader's findings first), ``features_unavailable`` and
        ``spec`` (JSON). Dates with nothing tradable yet stay: windows look back.

    Raises
    ------
    PanelError
        When dates, assets, computable features or tradable cells are too few, or `out` cannot be
        written: what was there before stays.
    SpecError
        When an option is out of range or unknown.
    """
    builder = PanelBuilder(bars, (spec or PanelSpec()).with_options(options))
    if out is None:
        ((_, values),) = builder.blocks(builder.shape[0])
        rest = builder.finish()
        features = xr.DataArray(values, dims=(DATE, ASSET, FEATURE), attrs=builder.feature_attrs)
        return check_panel(xr.Dataset({"features": features}).merge(rest).assign_attrs(rest.attrs))
    bar = tqdm(total=builder.shape[0], unit="date", desc="features", disable=not progress)
    with bar, PanelWriter(out, builder.shape) as writer:
        for start, values in builder.blocks(_block_rows(builder.shape)):
            writer.write(start, values)
            bar.update(len(values))
        writer.finish(builder.finish(), builder.feature_attrs)
    return read_panel(out)


def _block_rows(shape: tuple[int, int, int]) -> int:
    """Return how many dates are computed at a time: whole chunks, some hundred megabytes."""
    chunk = chunk_rows(shape)
    row = np.float32().nbytes * shape[1] * shape[2]
    return chunk * max(1, _BLOCK_BYTES // (chunk * row))
