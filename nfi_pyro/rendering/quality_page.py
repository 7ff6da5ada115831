"""One self-contained HTML page about the quality of prices: coverage, findings, worst cases."""

from pathlib import Path

import numpy as np
import xarray as xr
from markupsafe import Markup

from nfi_pyro.data.checks.quality import DropLedger, Inspection
from nfi_pyro.data.checks.quality_rules import RULES
from nfi_pyro.dims import ASSET, DATE
from nfi_pyro.rendering.figures import priced_line
from nfi_pyro.rendering.formatting import MISSING, count, day, number, percent
from nfi_pyro.rendering.html import make_environment
from nfi_pyro.rendering.page import Drawing, Section, Table, Tile

MOST_CASES = 20
_MOVES = ("scale_jump", "unadjusted_split", "adjustment_base", "jump")
_UNITS = {
    "gap": "Cells missing in the asset",
    "stale_price": "Length (bars)",
    "calendar_gap": "Assets, or days of the step",
    "survivorship": "Assets ended a year (%)",
    "high_below_low": "High over low (%)",
    "open_outside_bar": "Beyond the bar (%)",
    "close_outside_bar": "Beyond the bar (%)",
    "constant_field": "Value (unit of the field)",
} | dict.fromkeys(_MOVES, "Move (%)")


def write_quality_page(
    inspection: Inspection, path: str | Path, *, title: str, panel_ledger: DropLedger | None = None
) -> Path:
    """Write what was found in the prices as one HTML page and return its path.

    The page refers to nothing outside itself and holds no time of rendering: the same inspection
    gives the same bytes. All text is escaped.

    Parameters
    ----------
    inspection : Inspection
        Result of reading prices.
    path : path
        The file to write; an existing one is replaced. Its folder must exist.
    title : str
        Heading of the page.
    panel_ledger : DropLedger, optional
        What a panel built from these prices left out.

    Raises
    ------
    OSError
        When the file cannot be written.
    """
    sections = [_coverage(inspection), _findings(inspection), _missing(inspection)]
    if panel_ledger is not None:
        sections.append(_left_out(panel_ledger))
    sections.append(_policies(inspection))
    cases = _case_tables(inspection)
    if cases:
        sections.append(_cases_head())
    page = (
        make_environment()
        .get_template("quality.html.jinja")
        .render(title=title, sections=sections, cases=cases)
    )
    path = Path(path)
    path.write_text(page, encoding="utf-8")
    return path


def _coverage(inspection: Inspection) -> Section:
    bars = inspection.bars
    dates = bars[DATE].to_numpy()
    priced = np.isfinite(bars["close"].transpose(DATE, ASSET).to_numpy())
    numbers = ", ".join(str(name) for name in bars.data_vars)
    counts = xr.DataArray(priced.sum(axis=1), dims=DATE, coords={DATE: dates})
    cells = priced.size
    tiles = (
        Tile("Dates", count(len(dates)), f"{day(dates[0])} to {day(dates[-1])}"),
        Tile("Assets", count(priced.shape[1]), "with at least one close"),
        Tile("Closes", count(priced.sum()), f"{percent(priced.sum() / cells)} of all cells"),
        Tile("Fields", count(len(bars.data_vars)), numbers),
    )
    source = str(bars.attrs.get("source", "not named"))
    return Section(
        "Source and coverage",
        "Coverage",
        "coverage",
        (f"Source: {source}. {_verdict(inspection)}",),
        tiles,
        (Drawing(priced_line(counts), "Assets with a close, by date, after the policies."),),
    )


def _verdict(inspection: Inspection) -> str:
    """Return one or two sentences on how bad it is."""
    fired = [name for name in inspection.counts if RULES[name].id in _MOVES]
    if not inspection.counts:
        return "No rule fired: nothing in these bars looks wrong."
    total = len(inspection.counts)
    text = f"{total} of {len(RULES)} rules fired. "
    if "adjustment_base" in fired or "unadjusted_split" in fired:
        n = sum(inspection.counts.get(m, 0) for m in ("adjustment_base", "unadjusted_split"))
        text += (
            f"{n:,} overnight moves look like faults of price adjustment, not like returns: mask "
            "them, or leave large labels out, before fitting. "
        )
    if "survivorship" in inspection.counts:
        text += "Delisted assets seem to be left out, so backtests will look too good."
    return text.strip()


def _findings(inspection: Inspection) -> Section:
    return Section(
        "What was found and what was done",
        "Findings",
        "findings",
        () if inspection.ledger.findings else ("No findings.",),
        tables=_ledger_tables(
            inspection.ledger, "One row per rule that fired; at most five places each, worst first."
        ),
    )


def _left_out(ledger: DropLedger) -> Section:
    return Section(
        "What the panel left out",
        "Panel",
        "panel",
        () if ledger.findings else ("The panel left nothing out.",),
        tables=_ledger_tables(ledger, "One row per reason; each says what it counts."),
    )


def _ledger_tables(ledger: DropLedger, caption: str) -> tuple[Table, ...]:
    if not ledger.findings:
        return ()
    rows = tuple(
        (
            found.rule,
            found.action,
            ", ".join(map(_unbroken, found.places)) or "–",
            count(found.count),
        )
        for found in ledger.findings
    )
    return (Table(caption, ("Rule", "Done", "Places", "Count"), rows, 3),)


def _unbroken(place: str) -> str:
    """Return a place that stays on one line, with a true minus sign; names keep their hyphens."""
    return place.replace("(-", "(−").replace(" ", "\N{NO-BREAK SPACE}")


def _missing(inspection: Inspection) -> Section:
    shares = inspection.missing
    caption = (
        "Percent of the cells between an asset's first and last close that have no value, before "
        "any policy. Darker is more; n/a where no asset has a history."
    )
    return Section(
        "Missing values by field and year",
        "Missing",
        "missing",
        figures=(Drawing(_heat_table(shares), caption),),
    )


def _heat_table(shares: xr.DataArray) -> Markup:
    """Return the shares as an HTML table whose cells are tinted by the square root of the share."""
    fields = [str(name) for name in shares["field"].values]
    head = Markup("").join(Markup('<th scope="col" class="n">{}</th>').format(y) for y in fields)
    rows = []
    for year in shares["year"].values:  # down the page, since there may be many
        cells = []
        for value in shares.sel(year=year).values:
            tint = 0.0 if np.isnan(value) else 0.75 * float(np.sqrt(value))
            text = MISSING if np.isnan(value) else percent(value)
            cells.append(
                Markup('<td class="n" style="background:rgba(230,159,0,{})">{}</td>').format(
                    f"{tint:.2f}", text
                )
            )
        rows.append(
            Markup('<tr><th scope="row">{}</th>{}</tr>').format(str(year), Markup("").join(cells))
        )
    return Markup(
        '<div class="scroll" role="region" tabindex="0" aria-label="Missing values"><table>'
        '<thead><tr><th scope="col">Year</th>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(head, Markup("").join(rows))


def _policies(inspection: Inspection) -> Section:
    rows = tuple(
        (
            rule.title,
            rule.id,
            inspection.policies[name]
            + ("" if inspection.policies[name] == rule.default else "\u00a0*"),
            rule.why,
            count(inspection.counts.get(name, 0)) if name != "duplicates" else "–",
        )
        for name, rule in RULES.items()
    )
    return Section(
        "Policies in force",
        "Policies",
        "policies",
        tables=(
            Table(
                "Every rule, its policy (* where it is not the default) and the cases found; "
                "duplicates are found while reading and stand in the findings.",
                ("Rule", "Id", "Policy", "What it means", "Cases"),
                rows,
                4,
            ),
        ),
    )


def _cases_head() -> Section:
    return Section(
        "Worst cases",
        "Worst cases",
        "cases",
        (f"The first {MOST_CASES} cases of each rule, worst first; open a rule to see them.",),
    )


def _case_tables(inspection: Inspection) -> list[tuple[str, Table]]:
    """Return heading and table of the first cases of each rule."""
    tables = []
    for name, total in inspection.counts.items():
        cases = inspection.cases[inspection.cases["rule"] == name].head(MOST_CASES)
        columns: dict[str, list[str]] = {}
        if (cases["asset"] != "").any():
            columns["Asset"] = [str(asset) or "all" for asset in cases["asset"]]
        if cases["date"].notna().any():
            columns["Date"] = [day(date) for date in cases["date"]]
        if (cases["field"] != "").any():
            columns["Kind" if name == "calendar_gap" else "Field"] = list(cases["field"])
        n_text = len(columns)
        if cases["value"].notna().any():
            unit = _UNITS.get(name, "Value")
            columns[unit] = [_shown(value, unit) for value in cases["value"]]
        if not columns:
            continue
        shown = "all" if total <= MOST_CASES else f"the first {len(cases)}"
        caption = f"{RULES[name].title[0].upper()}{RULES[name].title[1:]}: {shown} of {total:,}."
        rows = tuple(zip(*columns.values(), strict=True))
        heading = f"{RULES[name].title} ({total:,})"
        tables.append((heading, Table(caption, tuple(columns), rows, n_text)))
    return tables


def _shown(value: float, unit: str) -> str:
    if np.isnan(value):
        return "–"
    if unit.endswith("(%)"):
        return percent(value, 2, signed=unit == "Move (%)")
    return number(value, 0 if float(value).is_integer() else 4)
