"""`nfi panel`: prices in, panel out, and every drop named."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import xarray as xr

from nfi_pyro.data.build import build_panel
from nfi_pyro.data.panel import Panel
from nfi_pyro.data.quality import DropLedger
from nfi_pyro.data.readers import read_prices
from nfi_pyro.data.storage import write_panel


def panel(
    prices: pd.DataFrame | str | Path | xr.Dataset,
    out: str | Path | None = None,
    *,
    features: Sequence[str] | str | None = None,
    start_lag: int = 1,
    horizon: int = 1,
    max_abs_return: float | None = None,
    missing: str = "exclude",
    first: str | None = None,
) -> Panel:
    """Return the panel of a price file, and write it to `out` if given.

    Parameters
    ----------
    prices : path, DataFrame or Dataset
        A long table (see `read_prices`) or bars that were read already.
    out : path, optional
        A zarr folder; replaced as a whole if it exists.
    features, start_lag, horizon, max_abs_return, missing
        See `build_panel`.
    first : str, optional
        First date of the bars to use; earlier ones are not even history.

    Raises
    ------
    PanelError
        If the prices cannot be read or make no panel; names every place.
    """
    bars = prices if isinstance(prices, xr.Dataset) else read_prices(prices)
    if first is not None:
        bars = bars.sel(date=slice(first, None))
    built = build_panel(
        bars,
        features=features,
        start_lag=start_lag,
        horizon=horizon,
        max_abs_return=max_abs_return,
        missing=missing,
    )
    if out is not None:
        write_panel(built, out)
    return built


def describe_panel(built: Panel) -> str:
    """Return what is in a panel and what was left out, as lines for a terminal."""
    dates = pd.DatetimeIndex(built["date"].values)
    tradable = built["tradable"].values
    label = built["forward_return"].attrs
    lines = [
        f"dates     {len(dates):,}, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}",
        f"assets    {built.sizes['asset']:,}",
        f"features  {built.sizes['feature']:,}",
        f"tradable  {int(tradable.sum()):,} asset-dates, {tradable.mean():.1%} of the grid",
        f"label     {label.get('timing', label['unit'])}",
        "",
        str(DropLedger.from_json(str(built.attrs["ledger"]))),
    ]
    return "\n".join(lines)
