"""The quality page: offline, escaped, complete, and the same bytes for the same inspection."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.data.checks.bar_quality import inspect_bars
from nfi_pyro.data.checks.quality import DropLedger, Inspection
from nfi_pyro.data.checks.quality_rules import RULES
from nfi_pyro.rendering.quality_page import write_quality_page

NASTY = "</main><script>A&B"


def make(*, flawed: bool) -> Inspection:
    rng = np.random.default_rng(7)
    close = 20 + rng.normal(0, 0.1, (41, 5))
    if flawed:
        close[20:, 1] *= 100
        close[7, 2] = -1.0
        close[3:29, 3] = np.nan
    names = np.array([NASTY, "B", "C", "D", "E"], dtype=object)
    if flawed:
        close[:5, 0] = np.nan
    bars = xr.Dataset(
        {"close": (("date", "asset"), close)},
        {"date": pd.bdate_range("2023-12-01", periods=41), "asset": names},
        {"source": "a<b>.csv"},
    )
    return inspect_bars(bars, DropLedger(), policies={"jump": "mask"})


def test_the_page_is_offline_escaped_and_complete(tmp_path: Path) -> None:
    result = make(flawed=True)
    panel = DropLedger().add("labels beyond 30%", 13, "excluded", ["B 2024-01-02"])
    path = write_quality_page(result, tmp_path / "q.html", title="Q & A", panel_ledger=panel)
    assert path == tmp_path / "q.html"
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert not re.search(r"(src|href)=\"(?!#)|https?://|@import", page)
    assert "<script" not in page
    assert page.count("</main>") == page.count("</html>") == 1
    assert "Q &amp; A" in page
    assert "a&lt;b&gt;.csv" in page
    assert "labels beyond 30%" in page
    for name in result.counts:
        assert RULES[name].title.replace("<", "&lt;") in page
    assert page.count("<details") == len(result.counts)
    assert "mask\u00a0*" in page  # the one policy that is not the default
    assert ">24 of" not in page
    anchors = re.findall(r'<li><a href="#([^"]+)"', page)
    assert anchors == re.findall(r'<section id="([^"]+)"', page)


def test_the_same_inspection_gives_the_same_bytes(tmp_path: Path) -> None:
    one = write_quality_page(make(flawed=True), tmp_path / "1.html", title="T")
    two = write_quality_page(make(flawed=True), tmp_path / "2.html", title="T")
    assert one.read_bytes() == two.read_bytes()


def test_clean_prices_leave_no_empty_parts(tmp_path: Path) -> None:
    page = write_quality_page(
        make(flawed=False), tmp_path / "q.html", title="T", panel_ledger=DropLedger()
    ).read_text(encoding="utf-8")
    assert "No rule fired" in page
    assert "No findings." in page
    assert "The panel left nothing out." in page
    assert "<details" not in page
    assert "<tbody>\n</tbody>" not in page


def test_only_the_first_twenty_cases_are_shown(tmp_path: Path) -> None:
    page = write_quality_page(make(flawed=True), tmp_path / "q.html", title="T").read_text()
    assert "Cells without a close inside a history: the first 20 of 27." in page


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no/q\.html"):
        write_quality_page(make(flawed=False), tmp_path / "no/q.html", title="T")
