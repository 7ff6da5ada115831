"""The diagnosis page: every verdict on it, what is wrong seen as bad, whole, offline, escaped."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtr

from nfi_pyro.diagnostics import calibrate, judge_ranks
from nfi_pyro.rendering import render_diagnosis
from nfi_pyro.rendering.diagnosis_contents import PARTS, DiagnosisContents
from nfi_pyro.rendering.diagnosis_verdicts import (
    grade_calibration,
    grade_heads,
    grade_scores,
    judgements,
)
from nfi_pyro.rendering.rank_bands import rank_band
from tests.rendering.diagnosis_maker import AWKWARD, make_diagnosis
from tests.rendering.test_report import Page

FIGURES = (
    "fig-elbo", "fig-validation", "fig-kl", "fig-heads-kl", "fig-collapse", "fig-k-hat",
    "fig-gap", "fig-ranks", "fig-pit", "fig-coverage", "fig-portfolios", "fig-spread-skill",
    "fig-var", "fig-predictive", "fig-market", "fig-information", "fig-power", "fig-heads",
    "fig-r-hat", "fig-restarts",
)  # fmt: skip


@pytest.fixture(scope="module")
def contents() -> DiagnosisContents:
    return make_diagnosis()


@pytest.fixture(scope="module")
def halved() -> DiagnosisContents:
    return make_diagnosis(scale=0.5)


@pytest.fixture(scope="module")
def halved_page(halved: DiagnosisContents) -> str:
    return render_diagnosis(halved)


@pytest.fixture(scope="module")
def page(contents: DiagnosisContents) -> str:
    return render_diagnosis(contents)


def rows_of(page: str) -> dict[str, tuple[str, str]]:
    """Return grade and text by diagnostic, as a reader of the table sees them."""
    inside = page[page.index('<table class="verdicts">') :]
    inside = inside[: inside.index("</table>")]
    cells = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd][ >].*?</t[hd]>", inside)]
    body = cells[3:]  # after the header
    return {body[k]: (body[k + 1], body[k + 2]) for k in range(0, len(body), 3)}


# ---- verdicts ------------------------------------------------------------------------------------


def test_every_verdict_is_on_the_page_with_its_grade_and_a_link(
    contents: DiagnosisContents, page: str
) -> None:
    parsed, shown = Page(page), rows_of(page)
    found = judgements(contents)
    assert len(shown) == len(found) == 17
    assert [row.anchor for row in found] == sorted((r.anchor for r in found), key=PARTS.index)
    assert {row.anchor for row in found} == set(PARTS)
    sections = [element["attrs"]["id"] for element in parsed.all("section")]
    for row in found:
        assert shown[row.name][0] == row.grade
        assert f'<a href="#{row.anchor}">{row.name}</a>' in page
        assert row.anchor in sections
        assert f'class="grade grade-{row.key}"' in page
    assert contents.portfolios is not None
    assert contents.information is not None
    verdicts: list[Any] = [
        contents.convergence, contents.collapse, *contents.importance, *contents.simulations,
        contents.portfolios.coverage, *contents.portfolios.backtests, contents.spread_skill,
        contents.predictive, contents.information.posterior, contents.information.power,
        contents.restarts,
    ]  # fmt: skip
    texts = {element["text"].strip() for element in parsed.all("td")}
    for one in verdicts:
        assert one.verdict.text in texts


def test_a_right_forecast_is_good_where_its_law_is_judged(page: str) -> None:
    shown = rows_of(page)
    for name in ("Calibration of assets", "Calibration of portfolios", "Spread against skill",
                 "Importance weights: posterior", "Simulated truths: posterior",
                 "Factors in use", "Predictive checks", "Scores against baselines",
                 "Random last layers"):  # fmt: skip
        assert shown[name][0] == "good", (name, shown[name])


def test_a_halved_scale_is_bad_in_the_table_wherever_it_shows(halved_page: str) -> None:
    shown = rows_of(halved_page)
    for name in ("Calibration of assets", "Calibration of portfolios", "Spread against skill",
                 "Value at risk, 95%", "Value at risk, 99%", "Predictive checks",
                 "Scores against baselines"):  # fmt: skip
        assert shown[name][0] == "bad", (name, shown[name])
    assert "too narrow" in shown["Calibration of assets"][1]
    assert shown["Training"][0] == "good"  # it is the forecast that is wrong


def test_a_wrong_encoder_is_bad_beside_a_good_posterior(page: str) -> None:
    shown = rows_of(page)
    assert shown["Importance weights: encoder"][0] == "bad"
    assert shown["Simulated truths: encoder"][0] == "bad"


def test_recalibration_is_shown_beside_the_raw_coverage(
    halved: DiagnosisContents, halved_page: str
) -> None:
    recalibrated = halved.recalibrated
    assert recalibrated is not None
    raw, mended = (
        float(one.coverage["observed"][2]) for one in (halved.calibration, recalibrated.calibration)
    )
    assert raw < 0.75 < 0.9 < mended
    assert f"{100 * raw:.1f}%" in halved_page
    assert f"{100 * mended:.1f}%" in halved_page
    assert "80 training dates, 2020-01-06 to 2020-04-24" in halved_page


@pytest.mark.parametrize(
    ("scale", "grade"), [(1.0, "good"), (0.93, "doubtful"), (0.5, "bad"), (2.0, "bad")]
)
def test_coverage_is_graded_by_how_far_it_is_off(scale: float, grade: str) -> None:
    rng = np.random.default_rng(11)
    dates = np.arange("2020-01-01", "2021-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
    score = rng.normal(size=(len(dates), 17)) / scale
    found = calibrate(xr.DataArray(ndtr(score), {"date": dates}, ("date", "asset")))
    assert grade_calibration(found).grade == grade
    few = calibrate(xr.DataArray(ndtr(score[:19]), {"date": dates[:19]}, ("date", "asset")))
    assert grade_calibration(few).grade == "unknown"


def test_scores_within_noise_are_doubtful_and_without_baseline_unknown(
    contents: DiagnosisContents,
) -> None:
    table = contents.scores.table
    noisy = table.assign(difference_standard_error=table["difference_standard_error"] * 0.0 + 9.0)
    assert grade_scores(dataclasses.replace(contents.scores, table=noisy)).grade == "doubtful"
    alone = dataclasses.replace(contents.scores, table=table.isel(forecast=[0]))
    assert grade_scores(alone).grade == "unknown"


def test_a_prior_that_nobody_holds_is_bad(contents: DiagnosisContents) -> None:
    heads = contents.heads
    assert heads is not None
    wide = heads.prior.assign(daily_scale=heads.prior["daily_scale"] * 20.0)
    assert grade_heads(dataclasses.replace(heads, prior=wide)).grade == "bad"
    sure = heads.prior.assign(mean_share=heads.prior["mean_share"] * 70.0)
    assert grade_heads(dataclasses.replace(heads, prior=sure)).grade == "bad"
    away = heads.posterior.assign(book_scale=heads.posterior["book_scale"] * 5.0)
    verdict = grade_heads(dataclasses.replace(heads, posterior=away))
    assert verdict.grade == "doubtful"
    assert "book scale" in verdict.text


# ---- what a model does not have ------------------------------------------------------------------


def test_what_was_left_out_says_why_and_has_no_section() -> None:
    contents = make_diagnosis(kind="bare")
    page = render_diagnosis(contents)
    parsed, shown = Page(page), rows_of(page)
    assert [s["attrs"]["id"] for s in parsed.all("section")] == [
        "verdicts", "calibration", "spread-skill", "scores", "arviz", "settings",
    ]  # fmt: skip
    assert sum(grade == "left out" for grade, _ in shown.values()) == len(contents.left_out)
    assert shown["Restarts"] == ("left out", "one fit")
    assert 'href="#restarts"' not in page
    assert "too few training dates to learn a recalibration" in page


def test_a_guide_alone_a_single_restart_kind_and_few_epochs_are_drawn(
    contents: DiagnosisContents,
) -> None:
    restarts = contents.restarts
    assert restarts is not None
    lean = dataclasses.replace(
        contents,
        importance=contents.importance[:1],
        simulations=contents.simulations[:1],
        restarts=dataclasses.replace(restarts, r_hat=restarts.r_hat[:0]),
        history=contents.history.drop_vars("heads_kl").isel(factor=[0]),
    )
    drawn = [svg["attrs"]["id"] for svg in Page(render_diagnosis(lean)).all("svg")]
    assert drawn == [name for name in FIGURES if name not in ("fig-heads-kl", "fig-r-hat")]


# ---- the page ------------------------------------------------------------------------------------


def test_the_page_has_every_figure_once_with_captions_labels_and_units(page: str) -> None:
    parsed = Page(page)
    assert [svg["attrs"]["id"] for svg in parsed.all("svg")] == list(FIGURES)
    assert all(svg["attrs"]["aria-label"].strip() for svg in parsed.all("svg"))
    captions = [caption for caption in parsed.all("figcaption") if caption["text"].strip()]
    assert len(captions) == len(FIGURES)
    for name in FIGURES:  # a unit or what has none, on the axes of each drawing
        texts = " ".join(
            text["text"]
            for text in parsed.all("text")
            if any(outer["attrs"].get("id") == name for outer in text["inside"])
        )
        assert re.search(r"\(.+\)|Density|Portfolio|Restart|Rank", texts), name
    assert "no finite value" not in page


def test_the_page_refers_to_nothing_outside_and_escapes_names(page: str) -> None:
    without_namespaces = re.sub(r"http://www\.w3\.org/[\w/.#-]*", "", page)
    assert not re.search(r"https?://", without_namespaces)
    assert not re.search(r"<script|@import|url\((?!#)|src=|<link|<image", page, re.I)
    hrefs = re.findall(r'href="([^"]*)"', page)
    assert hrefs
    assert all(target.startswith("#") for target in hrefs)
    parsed = Page(page)
    ids = [e["attrs"]["id"] for e in parsed.elements if "id" in e["attrs"]]
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in hrefs} <= set(ids)
    assert AWKWARD in {cell["text"] for cell in parsed.all("td")}


def test_the_same_contents_give_the_same_bytes_and_no_nan_is_printed(page: str) -> None:
    first, second = (render_diagnosis(make_diagnosis(kind="bare")) for _ in range(2))
    assert first == second
    cells = {e["text"].strip().lower() for e in Page(page).all("td")}
    assert not {"nan", "inf", "-inf"} & cells


def test_steps_without_an_observed_return_are_counted_and_not_drawn(page: str) -> None:
    assert "8 steps on dates without an observed return are not drawn" in page


def test_arviz_and_settings_are_printed(contents: DiagnosisContents, page: str) -> None:
    cells = {e["text"].strip() for e in Page(page).all("th") + Page(page).all("td")}
    assert set(contents.arviz.index) <= cells
    assert "only over restarts" in cells
    assert set(contents.settings.values()) <= cells
    assert contents.thinning in page


# ---- the band of ranks ---------------------------------------------------------------------------


def test_the_band_of_ranks_holds_one_bin_in_95_of_100_and_widens_with_copies() -> None:
    rng = np.random.default_rng(5)
    n_dates, inside = 150, []
    coords = {"quantity": ["a", "b"], "kind": ("quantity", ["one", "two"])}
    for _ in range(30):
        ranks = rng.integers(0, 100, size=(2, 1, n_dates)).astype(float)
        found = judge_ranks(xr.DataArray(ranks, coords, ("quantity", "repeat", "date")), 99)
        low, high = rank_band(found, "one")
        density = found.histogram.sel(kind="one").values
        inside.append((density >= low) & (density <= high))
    # 300 bins, counts are whole: at least 95 percent, less three binomial errors
    assert 0.95 - 0.038 <= np.mean(inside) <= 0.99
    row = rng.integers(0, 100, size=(1, 1, n_dates)).astype(float)
    copies = {"quantity": list("abcd"), "kind": ("quantity", ["one"] * 4)}
    same = judge_ranks(
        xr.DataArray(np.repeat(row, 4, axis=0), copies, ("quantity", "repeat", "date")), 99
    )
    alone = judge_ranks(
        xr.DataArray(row, {"quantity": ["a"], "kind": ("quantity", ["one"])},
                     ("quantity", "repeat", "date")), 99,
    )  # fmt: skip
    np.testing.assert_allclose(rank_band(same, "one"), rank_band(alone, "one"), atol=0.06)
