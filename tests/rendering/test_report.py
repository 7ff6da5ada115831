import ast
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from nfi_pyro import rendering
from nfi_pyro.rendering import render_report
from nfi_pyro.rendering.formatting import nats, number, percent

ANCHORS = (
    "summary", "portfolio-risk", "provenance", "training", "rank-ic", "calibration", "scores",
    "factors", "exposures", "largest-risks", "limits",
)  # fmt: skip
FIGURES = (
    "fig-contributions", "fig-universe", "fig-elbo", "fig-validation", "fig-kl", "fig-rank-ic",
    "fig-rank-ic-months", "fig-pit", "fig-coverage", "fig-factors", "fig-exposures", "fig-risks",
)  # fmt: skip
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Every element in order, with its attributes and the text inside it; checks the nesting."""

    def __init__(self, text):
        super().__init__()
        self.stack: list[dict] = []
        self.elements: list[dict] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "attrs": dict(attrs), "text": "", "inside": list(self.stack)}
        self.elements.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.stack[-2:]:
            element["text"] += data

    def all(self, tag):
        return [element for element in self.elements if element["tag"] == tag]


@pytest.fixture(scope="module", params=["page", "large_page"])
def any_page(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def parsed(any_page):
    return Page(any_page)


def test_page_has_every_section_and_figure_once_in_order(parsed):
    assert [s["attrs"]["id"] for s in parsed.all("section")] == list(ANCHORS)
    assert [s["attrs"]["id"] for s in parsed.all("svg")] == list(FIGURES)
    targets = [a["attrs"]["href"] for a in parsed.all("a")]
    assert targets == [f"#{anchor}" for anchor in ANCHORS]


def test_page_refers_to_nothing_outside_itself(any_page):
    without_namespaces = re.sub(r"http://www\.w3\.org/[\w/.#-]*", "", any_page)
    assert not re.search(r"https?://", without_namespaces)
    assert not re.search(r"<script|@import|url\((?!#)|src=|<link|<image", any_page, re.I)
    hrefs = re.findall(r'href="([^"]*)"', any_page)
    assert hrefs
    assert all(target.startswith("#") for target in hrefs)


def test_ids_are_unique_and_every_inner_reference_has_its_target(any_page, parsed):
    ids = [e["attrs"]["id"] for e in parsed.elements if "id" in e["attrs"]]
    assert len(ids) == len(set(ids))
    used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', any_page)
    assert {a or b for a, b in used} <= set(ids)


def test_figures_have_caption_and_label_and_tables_have_caption_and_scopes(parsed):
    captions = [c for c in parsed.all("figcaption") if c["text"].strip()]
    assert len(captions) == len(parsed.all("figure")) == len(FIGURES)
    for drawing in parsed.all("svg"):
        assert drawing["attrs"]["role"] == "img"
        assert drawing["attrs"]["aria-label"].strip()
        assert "viewbox" in drawing["attrs"]
        assert "width" not in drawing["attrs"]
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert all(th["attrs"].get("scope") in ("col", "row") for th in parsed.all("th"))
    assert parsed.all("html")[0]["attrs"]["lang"] == "en"


def test_user_text_is_escaped_in_html_and_in_drawings(page, contents):
    parsed = Page(page)
    cells = {th["text"] for th in parsed.all("th")}
    assert {"<script>alert(1)</script>", "A&B $x$", 'quote" onload="x'} <= cells
    labels = {text["text"] for text in parsed.all("text")}
    assert {"<script>alert(1…", "A&B $x$", 'quote" onload="x'} <= labels
    assert not [e for e in parsed.elements if "onload" in e["attrs"]]
    assert parsed.all("title")[0]["text"] == contents.title
    assert "<b>S0002</b> and 16 more" in {td["text"] for td in parsed.all("td")}


def test_awkward_asset_names_neither_warn_nor_break_the_drawing(small):
    contents = small
    names = ["贵州茅台", "a\x00b\nc", "$\\frac{1}{", "]]>", "&#x3c;", "x" * 90]
    names += [f"S{k}" for k in range(contents.exposures.sizes["asset"] - len(names))]
    risks = contents.risks.set_axis(names[: len(contents.risks)], axis=0)
    exposures = contents.exposures.assign_coords(asset=names)
    page = Page(render_report(dataclasses.replace(contents, risks=risks, exposures=exposures)))
    labels = {text["text"] for text in page.all("text")}
    assert {"贵州茅台", "a b c", "$\\frac{1}{", "]]>", "&#x3c;", "x" * 15 + "…"} <= labels


def test_same_contents_give_identical_bytes_and_leave_matplotlib_as_it_was(make_contents, page):
    import matplotlib

    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert render_report(make_contents()) == page
    assert dict(matplotlib.rcParams) == before


def test_tiles_print_the_results(contents, page):
    parsed = Page(page)
    labels = [dt["text"] for dt in parsed.all("dt")]
    values = [dd["text"] for dd in parsed.all("dd") if dd["attrs"]["class"] == "value"]
    remarks = [dd["text"] for dd in parsed.all("dd") if dd["attrs"]["class"] == "note"]
    shown = dict(zip(labels, values, strict=True))
    notes = dict(zip(labels, remarks, strict=True))
    book, skill = contents.portfolio, contents.information_coefficient
    assert shown["Forecast date"] == str(book.date)[:10]
    assert shown["VaR 95%"] == percent(0.01806) == "1.81%"
    assert shown["VaR 99%"] == percent(0.02562)
    assert shown["Expected shortfall 95%"] == percent(0.0227)
    share = book.factor_variance / book.standard_deviation**2
    assert shown["Factor share of variance"] == percent(share, 1)
    assert shown["Mean Rank IC"] == number(skill.mean)
    assert number(skill.interval[0]) in notes["Mean Rank IC"]
    observed = float(contents.calibration.coverage["observed"][3])
    assert shown["Coverage at nominal 95%"] == percent(observed, 1)
    name = "Log score against best baseline"
    assert shown[name] == nats(0.002, signed=True) == "+0.0020 nats"
    assert "market model" in notes[name]
    assert "within noise" in notes[name]


def test_large_tables_say_what_was_left_out(large_page):
    text = " ".join(c["text"] for c in Page(large_page).all("figcaption"))
    assert "the 8 of 16 factors whose posterior moved most" in text
    assert "the 40 of 300 assets with the largest norm" in text
    assert "The 20 largest of 300" in text
    assert "One date in 9 is drawn" in text
    assert len(large_page) < 1_500_000


def test_largest_exposures_are_the_ones_drawn(large_contents, large_page):
    values = np.nan_to_num(large_contents.exposures.values)
    order = np.argsort(-np.linalg.norm(values, axis=1), kind="stable")[:40]
    expected = [str(large_contents.exposures["asset"].values[i]) for i in order]
    drawn = {
        text["text"]
        for text in Page(large_page).all("text")
        if any(e["attrs"].get("id") == "fig-exposures" for e in text["inside"])
    }
    assert {name for name in drawn if re.fullmatch(r"S\d{4}", name)} == {
        name for name in expected if re.fullmatch(r"S\d{4}", name)
    }


def test_nothing_finite_still_gives_a_page_that_says_so(make_contents):
    contents = make_contents(n_dates=60, n_steps=50, nan_share=1.0)
    history = contents.history.map(lambda values: values * np.nan)
    history.attrs = {}
    scores = dataclasses.replace(
        contents.scores, table=contents.scores.table.map(lambda values: values * np.nan)
    )
    page = render_report(
        dataclasses.replace(
            contents,
            history=history,
            scores=scores,
            risks=contents.risks * np.nan,
            calibration=dataclasses.replace(
                contents.calibration,
                coverage=contents.calibration.coverage.map(lambda values: values * np.nan),
            ),
        )
    )
    parsed = Page(page)
    assert [t["text"] for t in parsed.all("text")].count("no finite value") >= 7
    assert "The mean Rank IC cannot be computed" in page
    assert "Coverage cannot be computed" in page
    assert "nan" not in {e["text"].strip().lower() for e in parsed.all("td") + parsed.all("dd")}


@pytest.mark.parametrize(
    "sizes",
    [
        {"n_epochs": 1, "n_steps": 1, "n_factors": 1, "n_dates": 1, "n_assets": 3},
        {"n_epochs": 0, "n_steps": 0, "n_dates": 2, "n_assets": 5, "n_factors": 3},
    ],
    ids=["single", "no-training"],
)
def test_smallest_inputs_do_not_crash(make_contents, sizes):
    contents = make_contents(**sizes)
    bare = dataclasses.replace(contents, ledger=contents.ledger.iloc[:0], provenance={})
    page = render_report(bare)
    assert len(Page(page).all("svg")) == len(FIGURES)
    assert "The data checks found nothing to change." in page
    assert "The provenance does not say whether the list of assets" in page


def test_survivorship_is_told_in_the_words_of_the_source(page):
    assert "Survivorship, as the data state it: " in page
    assert "source: simulated prices, survivors only: survivorship bias" in page


def test_ledger_table_shows_its_counts(page):
    assert {"3", "17"} <= {td["text"] for td in Page(page).all("td")}


def test_rendering_reads_results_only_and_draws_in_one_folder():
    home = Path(rendering.__file__).parent
    analyses = ("diagnostics", "geometry", "portfolio", "attribution")
    results = (*(f"{name}.results" for name in analyses), "data.checks.quality")
    allowed = (*results, "rendering", "dims", "errors")
    for file in sorted(home.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        named = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
        named |= {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in named} & {"torch", "pyro", "arviz"}
        own = [name.removeprefix("nfi_pyro.") for name in named if name.startswith("nfi_pyro.")]
        assert all(name.startswith(allowed) for name in own), file.name
        draws = any(name.split(".")[0] == "matplotlib" for name in named)
        assert not draws or file.parent.name == "figures", file.name
        assert "matplotlib.pyplot" not in named
