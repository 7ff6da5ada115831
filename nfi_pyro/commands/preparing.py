"""`nfi panel`: prices in, panel out, and every drop named."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from nfi_pyro.data.build import build_panel
from nfi_pyro.data.checks.quality import (
    LEDGER_ATTRIBUTE,
    DropLedger,
    Inspection,
    describe_policies,
)
from nfi_pyro.data.labels import describe_label, timeline
from nfi_pyro.data.panel import Panel
from nfi_pyro.data.sources.readers import inspect_prices
from nfi_pyro.data.store.append import extend_panel
from nfi_pyro.data.store.storage import read_panel
from nfi_pyro.errors import SpecError


def panel(
    prices: Any,
    /,  # "prices" is also an option of PanelSpec
    out: str | Path | None = None,
    *,
    reading: Mapping[str, Any] | None = None,
    report: str | Path | None = None,
    findings: str | Path | None = None,
    append: bool = False,
    first: str | None = None,
    **options: Any,
) -> Panel:
    """Return the panel of some prices, and write it to `out` if given.

    Parameters
    ----------
    prices : path, DataFrame, Dataset, ...
        Any source of `read_prices`, an `Inspection` of one, or bars that were read already.
    out : path, optional
        A zarr folder; replaced as a whole if it exists. Features go there a block of dates at a
        time and are never in memory as a whole.
    reading : mapping, optional
        Options of `read_prices`: layout, vendor, policies, calendar, fields, aliases.
    report : path, optional
        HTML page of all that was found in the prices and left out of the panel.
    findings : path, optional
        netCDF file of every finding and case; see `Inspection.to_dataset`.
    append : bool
        Add the dates that `out` does not have yet, with the options it was built with.
    first : str, optional
        First date of the bars to use; earlier ones are not even history.
    **options
        Fields of `PanelSpec`.

    Raises
    ------
    PanelError, SpecError
        If the prices cannot be read or make no panel; names every place.
    """
    if append and out is None:
        raise SpecError("append must have a panel to append to; got none. Give out.")
    start = None if first is None else pd.to_datetime(str(first), errors="coerce")
    if start is pd.NaT:
        raise SpecError(f"first must be a date; got {first!r}. Write YYYY-MM-DD.")
    inspection = _inspected(prices, reading or {}, needed=bool(report or findings))
    bars = inspection.bars if isinstance(inspection, Inspection) else inspection
    if start is not None:
        bars = bars.sel(date=slice(start, None))
    if append and out is not None:
        if not extend_panel(bars, out, **options):
            print("nothing to append: the panel holds every date of the prices", file=sys.stderr)
        built = read_panel(out)
    else:
        built = build_panel(bars, out=out, progress=sys.stderr.isatty(), **options)
    if isinstance(inspection, Inspection):
        if findings is not None:
            _write_findings(inspection, Path(findings))
        if report is not None:
            _write_page(inspection, built, Path(report))
    return built


def _write_findings(inspection: Inspection, place: Path) -> None:
    """Write every finding and case as netCDF."""
    from nfi_pyro.svi.checkpoint import make_folder  # these two load torch: slow to import
    from nfi_pyro.svi.trained import write_dataset

    make_folder(place.parent)
    write_dataset(inspection.to_dataset(), place)


def _write_page(inspection: Inspection, built: Panel, place: Path) -> None:
    """Write the quality page: findings of the prices, then what the panel itself left out."""
    from nfi_pyro.rendering.quality_page import write_quality_page  # draws: slow to import
    from nfi_pyro.svi.checkpoint import make_folder, write_atomically

    make_folder(place.parent)
    known = set(inspection.ledger.findings)
    ledger = DropLedger.from_json(str(built.attrs[LEDGER_ATTRIBUTE]))
    own = DropLedger(tuple(found for found in ledger.findings if found not in known))
    title = f"Price quality: {inspection.bars.attrs['source']}"
    write_atomically(
        place, lambda path: write_quality_page(inspection, path, title=title, panel_ledger=own)
    )


def _inspected(
    prices: Any, reading: Mapping[str, Any], *, needed: bool
) -> "Inspection | xr.Dataset":
    """Return prices as they were inspected; bars that were read before come back as they are."""
    if isinstance(prices, Inspection):
        return prices
    if isinstance(prices, xr.Dataset) and LEDGER_ATTRIBUTE in prices.attrs and not reading:
        if needed:
            raise SpecError(
                "a quality page must have the findings of prices; got bars that were read already. "
                "Give the source, or inspect_prices(source)."
            )
        return prices
    return inspect_prices(prices, **reading)


def describe_panel(built: Panel) -> str:
    """Return what is in a panel and what was left out, as lines for a terminal."""
    dates = pd.DatetimeIndex(built["date"].values)
    tradable = built["tradable"].values
    size = built["features"].nbytes / 1e6
    policies = json.loads(str(built.attrs.get("policies", "{}")))
    lines = [
        f"dates     {len(dates):,}, {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}",
        f"assets    {built.sizes['asset']:,}",
        f"features  {built.sizes['feature']:,}, {size:,.0f} MB",
        f"tradable  {int(tradable.sum()):,} asset-dates, {tradable.mean():.1%} of the grid",
        f"label     {describe_label(built['forward_return'].attrs)}",
        "",
        *(f"          {line}" for line in timeline(built["forward_return"].attrs).splitlines()),
        "",
        "policies  (* where it is not the default)",
        *(f"          {line}" for line in describe_policies(policies).splitlines()),
        "",
        str(DropLedger.from_json(str(built.attrs[LEDGER_ATTRIBUTE]))),
        "A cell is counted once, under the first reason that takes it out.",
    ]
    return "\n".join(lines)
