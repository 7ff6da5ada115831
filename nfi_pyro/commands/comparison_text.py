"""A comparison of runs as text for a terminal: at most 120 columns, units in the header."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd

from nfi_pyro.commands.comparing import BASELINES, LEVELS, Comparison

WIDTH = 120
_SHOWN = {"unconditional": "unconditional", "ewma": "EWMA volatility"}
_LEAST_NAME = 16
_GAP = "  "
_Row = dict[Any, Any]


def describe_comparison(found: Comparison) -> str:
    """Return the ranking and the differences from the baselines, best first.

    Parameters
    ----------
    found : Comparison

    Returns
    -------
    str
        Lines of at most 120 columns. A name that is too long is cut in its middle.
    """
    decimal = found.label_unit == "return"
    size, digits = (1e4, 2) if decimal else (1.0, 4)
    unit = "bp" if decimal else found.label_unit
    scale = f"{100 * found.unit:.4f}%" if decimal else f"{found.unit:.4g} {found.label_unit}"
    names = [_SHOWN[BASELINES[name]] if name in BASELINES else name for name in found.table.index]
    rows = list(zip(names, found.table.to_dict("records"), strict=True))
    ranking = [
        (
            "–" if pd.isna(row["rank"]) else str(row["rank"]),
            name,
            f"{row['log_score']:.4f}",
            _difference(row, "log_score_minus_best", 4),
            f"{size * row['crps']:.{digits}f}",
            _difference(row, "crps_minus_best", digits, size),
            _rank_ic(row),
            _coverage(row),
            "–" if math.isnan(row["fit_seconds"]) else f"{row['fit_seconds']:,.0f}",
        )
        for name, row in rows
    ]
    against = [
        (
            name,
            *(_difference(row, f"log_score_minus_{key}", 4) for key in _SHOWN),
            *(_difference(row, f"crps_minus_{key}", digits, size) for key in _SHOWN),
        )
        for name, row in rows
        if not pd.isna(row["rank"])
    ]
    nats, paired = "nats (s.e.)", f"{unit} (s.e.)"
    shares = f"% of {'/'.join(f'{100 * level:.0f}' for level in LEVELS)}"
    best = ("", "", "log score", "minus best", "CRPS", "minus best", "Rank IC", "covered", "fit")
    units = ("", "run", "nats", nats, unit, paired, "[95% HAC]", shares, "s")
    measures = [f"{kind}, {name}" for kind in ("log score", "CRPS") for name in _SHOWN.values()]
    grids = (
        _grid([best, units], ranking, name=1),
        _grid(
            [("run minus baseline", *measures), ("", nats, nats, paired, paired)], against, name=0
        ),
    )
    return "\n".join([*_head(found, scale, unit), "", *grids[0], "", *grids[1]])


def _head(found: Comparison, scale: str, unit: str) -> list[str]:
    """Return what was compared, in which units, and what to know of it."""
    paragraphs = [
        f"{found.span_name} {found.span.first} to {found.span.last}: {found.n_dates:,} dates, "
        f"{found.n_cells:,} cells that every run and both baselines scored; all figures are of "
        "these.",
        *found.notes,
        f"Log score: nats per cell, of returns in units of {scale}, the training standard "
        f"deviation of {found.unit_of} (scores of runs with another are converted by adding the "
        f"log of the ratio); higher is better. CRPS: {unit} of the label; lower is better. "
        "Differences are paired by cell, the run minus the other, with their Newey-West standard "
        "error over dates.",
    ]
    return [line for text in paragraphs for line in textwrap.wrap(text, WIDTH)]


def _difference(row: _Row, column: str, digits: int, size: float = 1.0) -> str:
    """Return a difference with its standard error; nothing for a forecast against itself."""
    value, error = row[column], row[f"{column}_standard_error"]
    if value == 0.0 and not error > 0.0:
        return "–"
    shown = "n/a" if math.isnan(error) else f"{size * error:.{digits}f}"
    return f"{size * value:+.{digits}f} ({shown})"


def _rank_ic(row: _Row) -> str:
    """Return the mean Rank IC with its interval."""
    if pd.isna(row["rank_ic"]):
        return "–"
    return f"{row['rank_ic']:+.3f} [{row['rank_ic_lower']:+.3f}, {row['rank_ic_upper']:+.3f}]"


def _coverage(row: _Row) -> str:
    """Return the observed coverage in percent, level by level."""
    shares = [row[f"coverage_{100 * level:.0f}"] for level in LEVELS]
    return "–" if math.isnan(shares[0]) else " ".join(f"{100 * share:.1f}" for share in shares)


def _grid(
    header: Sequence[tuple[str, ...]], rows: Sequence[tuple[str, ...]], *, name: int
) -> list[str]:
    """Return aligned lines; the column `name` is on the left and is cut for lack of room."""
    lines = [*header, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(header[0]))]
    room = WIDTH - sum(widths) + widths[name] - len(_GAP) * (len(widths) - 1)
    widths[name] = min(widths[name], max(room, _LEAST_NAME))
    text = [
        _GAP.join(
            _cut(cell, widths[place]).ljust(widths[place])
            if place == name
            else cell.rjust(widths[place])
            for place, cell in enumerate(line)
        ).rstrip()
        for line in lines
    ]
    rule = _GAP.join("-" * width for width in widths)
    return [*text[: len(header)], rule, *text[len(header) :]]


def _cut(text: str, most: int) -> str:
    """Return the text with its middle left out where it is too long: names differ at both ends."""
    if len(text) <= most:
        return text
    tail = 2 * (most - 1) // 3
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"
