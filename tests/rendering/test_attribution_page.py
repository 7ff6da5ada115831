"""The attribution page: every part on it, sums that add up, what is missing said, escaped."""

import dataclasses
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.attribution.results.styles import StyleReturns
from nfi_pyro.rendering import AttributionContents, render_attribution
from nfi_pyro.rendering.attribution_page import PARTS, build_attribution
from nfi_pyro.rendering.attribution_selection import (
    MOST_COLUMNS,
    choose,
    counted,
    date_blocks,
    evenly,
    interval_over_draws,
)
from nfi_pyro.rendering.page import Section, Table
from tests.rendering.attribution_maker import ATTACK, make_attribution, make_heat, make_hedge
from tests.rendering.test_report import Page

ANCHORS = (
    "overview", "expected-return", "prices", "risk", "risk-slopes", "ratio", "heat-maps",
    "features", "interactions", "realised", "brinson", "hedge", "styles", "settings",
)  # fmt: skip
FIGURES = (
    "fig-waterfall", "fig-prices-map", "fig-prices-contribution", "fig-prices-value", "fig-risk",
    "fig-risk-slopes-map", "fig-risk-slopes-contribution", "fig-risk-slopes-value", "fig-ratio",
    "fig-marginal", "fig-heat-mean", "fig-heat-standard-deviation", "fig-gradients",
    "fig-relevance", "fig-hessian", "fig-realised", "fig-brinson", "fig-hedge", "fig-styles",
)  # fmt: skip
HOMES = {
    "taylor": ["expected-return"], "prices": ["prices", "interactions"], "risk": ["risk"],
    "risk_slopes": ["risk-slopes"], "sharpe": ["ratio"], "heat_mean": ["heat-maps"],
    "heat_risk": ["heat-maps"], "sanity": ["heat-maps"], "features": ["features"],
    "relevance": ["features"], "couplings": ["interactions"], "realised": ["realised"],
    "brinson": ["brinson"], "hedge": ["hedge"], "styles": ["styles"],
}  # fmt: skip


@pytest.fixture(scope="module")
def contents() -> AttributionContents:
    return make_attribution()


@pytest.fixture(scope="module")
def page(contents: AttributionContents) -> str:
    return render_attribution(contents)


@pytest.fixture(scope="module")
def sections(contents: AttributionContents) -> dict[str, Section]:
    return {section.anchor: section for section in build_attribution(contents)}


def changed(contents: AttributionContents, **parts: Any) -> dict[str, Section]:
    """Return the sections of a page with these parts alone."""
    bare = dataclasses.replace(alone(contents), **parts)
    return {section.anchor: section for section in build_attribution(bare)}


def alone(contents: AttributionContents, *names: str) -> AttributionContents:
    nothing: dict[str, Any] = dict.fromkeys([*PARTS, "linked"])
    return dataclasses.replace(
        contents, **nothing | {name: getattr(contents, name) for name in names}
    )


def read(cell: str) -> float:
    return float(cell.replace("−", "-").replace(",", "").rstrip("%"))


def half(cell: str) -> float:
    """Return half a unit of the last decimal that is printed, and a little for rounding."""
    _, _, decimals = cell.rstrip("%").partition(".")
    return 0.5001 * 10.0 ** -len(decimals)


def prints(cell: str, size: float) -> bool:
    return abs(read(cell) - size) <= half(cell)


def column(table: Table, title: str) -> dict[str, str]:
    place = table.header.index(title)
    return {row[0]: row[place] for row in table.rows}


def words(section: Section) -> str:
    captions = [figure.caption for figure in section.figures]
    captions += [table.caption for table in section.tables]
    return " ".join((*section.paragraphs, *captions, *section.notes))


# ---- the page ------------------------------------------------------------------------------------


def test_every_section_and_figure_is_there_once_in_order(page: str) -> None:
    parsed = Page(page)
    assert [s["attrs"]["id"] for s in parsed.all("section")] == list(ANCHORS)
    assert [s["attrs"]["id"] for s in parsed.all("svg")] == list(FIGURES)
    ids = [e["attrs"]["id"] for e in parsed.elements if "id" in e["attrs"]]
    assert len(ids) == len(set(ids))
    used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page)
    assert {a or b for a, b in used} <= set(ids)
    assert "no finite value" not in page


def test_the_page_is_offline_escaped_and_the_same_each_time(
    contents: AttributionContents, page: str
) -> None:
    assert "<script" not in page
    assert "http" not in page
    assert "<image" not in page
    assert page.count("&lt;script&gt;alert(1)") > 20
    assert render_attribution(contents) == page


def test_no_cell_is_nan_and_every_row_is_as_wide_as_its_header(
    page: str, sections: dict[str, Section]
) -> None:
    assert not re.search(r"\bnan\b|\bNaN\b|\binf\b|NaT|None", page)
    for section in sections.values():
        for table in section.tables:
            assert {len(row) for row in table.rows} <= {len(table.header)}, table.caption


@pytest.mark.slow
def test_a_large_page_draws_at_most_twelve_rows_and_stays_small() -> None:
    contents = make_attribution(
        n_factors=17, n_features=23, n_lags=19, n_dates=131, n_assets=211, n_groups=29
    )
    page = render_attribution(contents)
    assert len(page) < 1_000_000
    found = {section.anchor: section for section in build_attribution(contents)}
    assert "The 6 smallest factors are one row together" in words(found["expected-return"])
    assert "The 18 smallest groups are one row together" in words(found["brinson"])
    assert "mean of 2 dates" in words(found["prices"])
    rows = column(found["risk"].tables[0], "Sd (%)")
    assert "specific" in rows
    assert len(rows) <= 20 + 2


# ---- what is left out ----------------------------------------------------------------------------


def test_a_page_without_parts_says_why_for_each(contents: AttributionContents) -> None:
    why = {part: f"because of {part}." for part in PARTS}
    bare = dataclasses.replace(alone(contents), left_out=why | {"other": "because."})
    found = {section.anchor: section for section in build_attribution(bare)}
    assert list(found) == ["overview", "settings"]
    notes = found["overview"].notes
    assert notes == (
        *(f"Left out: {PARTS[part]}. Because of {part}." for part in PARTS),
        "Left out: other. Because.",
    )
    assert [tile.value for tile in found["overview"].tiles] == ["n/a"] * 4
    assert "<svg" not in render_attribution(bare)


def test_a_part_that_is_missing_without_a_reason_is_still_named(
    contents: AttributionContents,
) -> None:
    notes = changed(contents, left_out={"styles": "no caps."})["overview"].notes
    others = "; ".join(PARTS[part] for part in PARTS if part != "styles")
    assert notes == (f"Left out: {others}. No reason was given.", "Left out: Styles. No caps.")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_alone_has_its_section_alone(contents: AttributionContents, part: str) -> None:
    page = render_attribution(alone(contents, part))
    found = [s["attrs"]["id"] for s in Page(page).all("section")]
    assert found == ["overview", *HOMES[part], "settings"]


def test_tiles_take_a_number_from_whatever_part_has_it(contents: AttributionContents) -> None:
    def tiles(*names: str) -> list[str]:
        (about, *_) = build_attribution(alone(contents, *names))
        return [tile.value for tile in about.tiles]

    sharpe, prices = contents.sharpe, contents.prices
    assert sharpe is not None
    assert prices is not None
    mean = f"{1e4 * sharpe.expected_return:.1f} bp".replace("-", "−")
    ratio = f"{sharpe.ratio:.3f}".replace("-", "−")
    assert tiles("sharpe") == [mean, "1.110%", "n/a", ratio]
    last = 1e4 * float(prices["value"][-1])
    assert tiles("prices") == [f"{last:.1f} bp", "n/a", "n/a", "n/a"]
    assert tiles("risk")[1:3] == ["1.110%", f"{100 * _measure(contents, 1):.3f}%"]


def _measure(contents: AttributionContents, place: int) -> float:
    assert contents.risk is not None
    return float(contents.risk.value[place])


# ---- expected return and prices ------------------------------------------------------------------


def test_parts_of_the_expected_return_add_up_on_the_page(
    contents: AttributionContents, sections: dict[str, Section]
) -> None:
    found = contents.taylor
    assert found is not None
    cells = column(sections["expected-return"].tables[0], "All parts")
    *parts, whole = cells.values()
    assert prints(whole, 1e4 * float(found["value"]))
    assert sum(map(read, parts)) == pytest.approx(read(whole), abs=half(whole) * len(cells))
    linear = column(sections["expected-return"].tables[0], "Linear")
    assert prints(linear["Expected return"], 1e4 * float(found["linear"].sum()))
    assert prints(cells["Remainder"], 0.17)
    assert f">{whole}</text>" in sections["expected-return"].figures[0].svg


def test_prices_stand_beside_the_parts_of_their_date_alone(
    contents: AttributionContents, sections: dict[str, Section]
) -> None:
    found = contents.prices
    assert found is not None
    table = sections["expected-return"].tables[0]
    price = column(table, "Price (bp per unit)")
    last = found.isel(date=-1)
    for name in found["factor"].values:
        size = 1e4 * float(last["gradient"].sel(factor=name))
        assert prints(price[name], size)
    assert contents.taylor is not None
    early = contents.taylor.assign_attrs(date="1999-01-04")
    own = column(sections["prices"].tables[0], "Exposure × price (bp)")
    for name in found["factor"].values:
        assert prints(own[name], 1e4 * float(last["contribution"].sel(factor=name)))
    other = changed(contents, taylor=early, prices=found)
    assert other["expected-return"].tables[0].header == (
        "Factor", "Linear", "Pure", "Cross", "All parts",
    )  # fmt: skip


def test_intervals_are_there_where_the_results_have_them(
    contents: AttributionContents, sections: dict[str, Section]
) -> None:
    prices = contents.prices
    assert prices is not None
    bounded = sections["prices"]
    assert "Interval (bp per unit)" in bounded.tables[0].header
    assert "Band: interval. Intervals are of 5 restarts" in words(bounded)
    assert "interval" in sections["overview"].tiles[0].note
    names = [name for name in prices if str(name).endswith(("_lower", "_upper"))]
    bare = changed(contents, prices=prices.drop_vars(names), taylor=contents.taylor)
    assert "Interval (bp per unit)" not in bare["prices"].tables[0].header
    assert "Interval (bp per unit)" not in bare["expected-return"].tables[0].header
    assert "Band" not in words(bare["prices"])
    assert "interval" not in bare["overview"].tiles[0].note
    learned = prices.drop_vars(["gradient_lower", "gradient_upper"])  # factors do not compare
    partly = changed(contents, prices=learned)
    assert "Band" in words(partly["prices"])
    assert "Interval (bp per unit)" not in partly["prices"].tables[0].header


def test_slopes_are_coloured_by_row_and_contributions_on_one_scale(
    contents: AttributionContents, page: str
) -> None:
    found = contents.prices
    assert found is not None
    (drawn,) = (e for e in Page(page).all("svg") if e["attrs"]["id"] == "fig-prices-map")
    texts = [e["text"].strip() for e in Page(page).all("text") if drawn in _outer(e, drawn)]
    for name in found["factor"].values:
        largest = 1e4 * float(np.abs(found["gradient"].sel(factor=name)).max())
        assert any(text and _near(text, largest) for text in texts), name


def _outer(element: dict, wanted: dict) -> list[dict]:
    same = [one for one in element["inside"] if one["attrs"].get("id") == wanted["attrs"]["id"]]
    return [wanted] if same else []


def _near(text: str, size: float) -> bool:
    try:
        return abs(read(text) - size) <= 0.06
    except ValueError:
        return False


def test_a_linear_law_has_no_pure_or_cross_parts_and_no_hessian(
    contents: AttributionContents,
) -> None:
    taylor, prices = contents.taylor, contents.prices
    assert taylor is not None
    assert prices is not None
    flat = taylor.assign(quadratic=0.0 * taylor["quadratic"], cross=0.0 * taylor["cross"])
    found = changed(
        contents,
        taylor=flat.assign(value=flat["base_value"] + flat["linear"].sum() + flat["remainder"]),
        prices=prices.assign(hessian=0.0 * prices["hessian"]),
        couplings=None,
    )
    assert "there are no pure or cross parts" in words(found["expected-return"])
    assert "Hessian of the book's expected return is 0" in words(found["interactions"])
    assert found["interactions"].figures == ()
    centred = changed(contents, taylor=taylor.assign(linear=0.0 * taylor["linear"]))
    assert "there are no linear parts" in words(centred["expected-return"])
    without = changed(contents, prices=prices.drop_vars("hessian"), couplings=None)
    assert "interactions" not in without


def test_one_date_is_enough(contents: AttributionContents) -> None:
    prices, heat = contents.prices, contents.heat_mean
    assert prices is not None
    assert heat is not None
    page = render_attribution(
        dataclasses.replace(
            alone(contents, "taylor"),
            prices=prices.isel(date=[-1]),
            heat_mean=dataclasses.replace(heat, heat=heat.heat.isel(date=[-1])),
        )
    )
    assert "the last of 1 date:" in page
    assert "no finite value" not in page


# ---- risk ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1], ids=["sources", "assets"])
def test_contributions_add_up_to_the_measures_on_the_page(
    contents: AttributionContents, sections: dict[str, Section], place: int
) -> None:
    table = sections["risk"].tables[place]
    for k, title in enumerate(("Sd (%)", "VaR (%)", "ES (%)")):
        *parts, total, whole = column(table, title).values()
        assert total == whole
        assert prints(whole, 100 * _measure(contents, k))
        assert sum(map(read, parts)) == pytest.approx(read(total), abs=half(total) * len(parts))


def test_sources_are_the_results_own_and_the_mean_is_told_apart(
    contents: AttributionContents, sections: dict[str, Section]
) -> None:
    found = contents.risk
    assert found is not None
    cells = column(sections["risk"].tables[0], "VaR (%)")
    own = found.by_source.sel(measure="value_at_risk")
    for name in own["source"].values:
        size = 100 * float(own.sel(part="risk", source=name))
        assert prints(cells[name], size)
    mean = 100 * float(own.sel(part="expected").sum())
    assert prints(cells["expected return"], mean)


def test_standard_errors_stand_where_there_are_draws(
    contents: AttributionContents, sections: dict[str, Section]
) -> None:
    found = contents.risk
    assert found is not None
    header = sections["risk"].tables[0].header
    assert header == ("Source", "Sd (%)", "VaR (%)", "SE (%)", "ES (%)", "SE (%)")
    assert sections["risk"].tables[1].header[1:] == header[1:]
    rows = {row[0]: row for row in sections["risk"].tables[0].rows}
    assert rows["specific"][3] == "0.0020"
    assert rows["expected return"][3] == "exact"
    assert rows["Sum"][3] == "n/a"
    assert rows["Measure"][3] == "0.0070"
    assert rows["Measure"][5] == "0.0090"
    exact = dataclasses.replace(
        found,
        value_error=0.0 * found.value_error,
        asset_error=0.0 * found.asset_error,
        source_error=0.0 * found.source_error,
    )
    assert changed(contents, risk=exact)["risk"].tables[0].header == (
        "Source", "Sd (%)", "VaR (%)", "ES (%)",
    )  # fmt: skip


def test_a_risk_model_has_one_measure_and_no_date(contents: AttributionContents) -> None:
    found = contents.risk
    assert found is not None
    one = {"measure": ["standard_deviation"]}
    model = dataclasses.replace(
        found,
        date=None,
        value=found.value.sel(one),
        value_error=found.value_error.sel(one),
        contribution=found.contribution.sel(one),
        asset_error=found.asset_error.sel(one),
        source_error=found.source_error.sel(one),
        level=None,
        dependence="risk model",
        methods={"standard_deviation": "closed form"},
    )
    section = changed(contents, risk=model)["risk"]
    assert section.paragraphs[0].startswith("By the risk model")
    assert section.tables[0].header == ("Source", "Sd (%)")
    assert "expected return" not in column(section.tables[0], "Sd (%)")
    overview = changed(contents, risk=model)["overview"]
    assert overview.tiles[2].value == "n/a"


def test_a_copula_says_what_its_sources_are(contents: AttributionContents) -> None:
    assert contents.risk is not None
    found = changed(contents, risk=dataclasses.replace(contents.risk, dependence="copula"))
    assert "joined by a copula" in words(found["risk"])
    assert "joined by a copula" not in words(changed(contents, risk=contents.risk)["risk"])


def test_the_ratio_is_the_sum_of_its_parts(
    contents: AttributionContents, sections: dict[str, Section]
) -> None:
    found = contents.sharpe
    assert found is not None
    cells = column(sections["ratio"].tables[0], "Contribution")
    assert cells["Sum"] == cells["Ratio"]
    assert prints(cells["Ratio"], found.ratio)
    parts = [read(cell) for name, cell in cells.items() if name not in ("Sum", "Ratio")]
    assert sum(parts) == pytest.approx(found.ratio, abs=half(cells["Sum"]) * len(cells))
    assert "risk-free return" in cells
    assert ", less a risk-free 0.1 bp, is" in words(sections["ratio"])
    free = dataclasses.replace(found, risk_free=0.0, risk_free_contribution=0.0)
    assert "risk-free" not in words(changed(contents, sharpe=free)["ratio"])
    marginal = column(sections["ratio"].tables[1], "Marginal")
    size = 0.01 * found.by_asset["marginal"].to_series()
    assert next(iter(marginal)) == size.idxmax()
    assert list(marginal)[-1] == size.idxmin()
    assert prints(marginal[str(size.idxmax())], size.max())


# ---- networks ------------------------------------------------------------------------------------


def test_dates_without_a_law_are_grey_and_counted(page: str, sections: dict[str, Section]) -> None:
    assert words(sections["heat-maps"]).count("Grey: no law, on 1 date.") == 2
    (drawn,) = (e for e in Page(page).all("svg") if e["attrs"]["id"] == "fig-heat-mean")
    shades = [e["attrs"].get("style", "") for e in Page(page).all("path") if _outer(e, drawn)]
    assert any("#bcc3cc" in shade for shade in shades)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (0.1, "the map is about what the network learned"),
        (-0.2, "the map is about what the network learned"),
        (0.6, "only part of it is about what the network learned"),
        (0.9, "it says more about the architecture"),
        (np.nan, "says nothing here"),
    ],
)
def test_the_sanity_test_is_put_in_words(
    contents: AttributionContents, last: float, said: str
) -> None:
    found = contents.sanity
    assert found is not None
    values = found.correlation.copy()
    values[-1] = last
    section = changed(contents, sanity=dataclasses.replace(found, correlation=values))["heat-maps"]
    assert said in words(section)
    shown = section.tables[0].rows[-1][1]
    assert shown == ("n/a" if np.isnan(last) else f"{last:.2f}".replace("-", "−"))


def test_restarts_of_learned_factors_are_not_averaged(contents: AttributionContents) -> None:
    found, sanity, prices = contents.heat_mean, contents.sanity, contents.prices
    assert found is not None
    assert sanity is not None
    assert prices is not None
    learned = prices.drop_vars(["gradient_lower", "gradient_upper"])
    two = xr.concat([found.heat, 3.0 * found.heat], "chain")
    maps = dataclasses.replace(found, heat=two, comparable=False)
    first = changed(contents, heat_mean=found, heat_risk=None, prices=learned)["heat-maps"]
    both = changed(contents, heat_mean=maps, heat_risk=None, prices=learned)["heat-maps"]
    assert both.figures[0].svg == first.figures[0].svg
    assert "maps are of the first fit" in words(both)
    same = dataclasses.replace(maps, comparable=True)
    mean = changed(contents, heat_mean=same, heat_risk=None, prices=learned)["heat-maps"]
    doubled = dataclasses.replace(found, heat=2.0 * found.heat)
    wanted = changed(
        contents,
        heat_mean=dataclasses.replace(doubled, heat=doubled.heat.assign_attrs(found.heat.attrs)),
        heat_risk=None,
        prices=learned,
    )["heat-maps"]
    assert mean.figures[0].svg == wanted.figures[0].svg
    pair = xr.concat([sanity.correlation, sanity.correlation - 0.5], "chain")
    several = changed(contents, sanity=dataclasses.replace(sanity, correlation=pair))
    table = several["heat-maps"].tables[0]
    assert table.rows[0] == ("network.first", "0.70", "0.45 to 0.95")


def test_rectified_maps_start_at_zero(contents: AttributionContents) -> None:
    found = contents.heat_mean
    assert found is not None
    kept = dataclasses.replace(found, heat=found.heat.clip(min=0.0), rectified=True)
    section = changed(contents, heat_mean=kept, heat_risk=None)["heat-maps"]
    assert "Negative values were set to 0" in words(section)
    assert "#bcc3cc" in section.figures[0].svg
    assert "−" not in re.sub(r"<[^>]+>", "", section.figures[0].svg)


def test_labels_that_are_no_returns_keep_their_unit(contents: AttributionContents) -> None:
    dates = pd.bdate_range("2024-01-02", periods=7).values
    heat = make_heat(np.random.default_rng(0), dates, ["one", "two", "three"], "mean")
    ranked = dataclasses.replace(heat, heat=heat.heat.assign_attrs(units="rank"))
    section = changed(contents, heat_mean=ranked, heat_risk=None)["heat-maps"]
    assert "rank per label horizon" in section.figures[0].svg
    assert "bp" not in section.figures[0].svg


def test_feature_sums_are_means_over_dates_with_their_signs(
    contents: AttributionContents, sections: dict[str, Section]
) -> None:
    paths, passed = contents.features, contents.relevance
    assert paths is not None
    assert passed is not None
    table = sections["features"].tables[0]
    for name, values in (("Gradients", paths.attribution), ("Relevance", passed.relevance)):
        by_date = 1e4 * values.sum("lag")
        signed, size = column(table, f"{name} (bp)"), column(table, f"{name}, size (bp)")
        for feature in values["feature"].values:
            one = by_date.sel(feature=feature)
            assert prints(signed[feature], float(one.mean()))
            assert prints(size[feature], float(abs(one).mean()))
    checks = {row[0]: row[1:] for row in sections["features"].tables[1].rows}
    assert "By size 6.0% of it goes to constants" in words(sections["features"])
    assert checks["Integrated gradients"] == ("0.70%", "1.30%", "8 of 11", "–")
    assert checks["Layer-wise relevance"] == ("0.20%", "0.20%", "11 of 11", "6.0%")


def test_fits_that_do_not_add_up_make_a_date_that_does_not(contents: AttributionContents) -> None:
    found = contents.features
    assert found is not None
    bad = xr.zeros_like(found.complete)
    parts = {
        name: xr.concat([getattr(found, name)] * 2, "chain")
        for name in ("attribution", "value", "baseline_value", "completeness_error", "nodes")
    }
    both = dataclasses.replace(found, complete=xr.concat([found.complete, bad], "chain"), **parts)
    section = changed(contents, features=both)["features"]
    assert section.tables[1].rows[0][3] == "0 of 11"
    one = changed(contents, features=found)["features"]
    assert section.tables[0].rows == one.tables[0].rows


def test_one_lag_is_drawn_as_bars(contents: AttributionContents) -> None:
    found = contents.features
    assert found is not None
    one = dataclasses.replace(found, attribution=found.attribution.isel(lag=[0]))
    section = changed(contents, features=one, relevance=None)["features"]
    assert "Bar chart of integrated gradients" in section.figures[0].svg
    assert "Gradients, top lag" not in section.tables[0].header
    assert "need not agree" not in words(section)


def test_the_top_lag_is_where_sizes_are_largest(contents: AttributionContents) -> None:
    found = contents.features
    assert found is not None
    cells = 0.0 * found.attribution
    # Signs cancel over dates at lag 2, sizes do not.
    cells[:, 2, 0] = 1e-3 * np.where(np.arange(cells.sizes["date"]) % 2, 1.0, -1.0)
    cells[:, 1, 0] = 1e-4
    flipped = dataclasses.replace(found, attribution=cells.assign_attrs(found.attribution.attrs))
    table = changed(contents, features=flipped, relevance=None)["features"].tables[0]
    assert column(table, "Gradients, top lag")[ATTACK] == "2"


# ---- interactions --------------------------------------------------------------------------------


def test_mined_couplings_say_what_was_tested_and_against_what(
    contents: AttributionContents, sections: dict[str, Section]
) -> None:
    found = contents.couplings
    assert found is not None
    section = sections["interactions"]
    text = words(section)
    assert "of 9 pairs tested (1 could not be tested) on 31 dates that no weights were" in text
    assert "(validation), 1 is" in text
    assert "false discovery rate of 10%" in text
    assert "1,999 flips of the signs of whole dates" in text
    assert "2 dates with too few assets" in text
    table = section.tables[1]
    top, last = table.rows[0], table.rows[-1]
    place = table.header.index("Found")
    assert [row[place] for row in table.rows] == ["yes"] + ["no"] * 9
    assert top[table.header.index("p")] == "0.0005"
    assert [last[table.header.index(t)] for t in ("Slope (bp)", "t", "p", "q")] == ["n/a"] * 4
    assert top[table.header.index("Slope (bp)")] == "+2.00"
    uplift = 100 * found.table["ic_uplift"].values[0]
    assert prints(top[table.header.index("IC uplift (0.01)")], uplift)


def test_couplings_without_confirmation_say_so(contents: AttributionContents) -> None:
    found = contents.couplings
    assert found is not None
    nothing = found.table["discovered"] & False
    bare = dataclasses.replace(
        found, confirmation=None, table=found.table.assign(discovered=nothing)
    )
    section = changed(contents, couplings=bare)["interactions"]
    assert "IC uplift (0.01)" not in section.tables[0].header
    assert "There was no confirmation" in words(section)
    assert "none is found" in words(section)


def test_the_hessian_is_that_of_the_last_date(
    contents: AttributionContents, sections: dict[str, Section]
) -> None:
    found = contents.prices
    assert found is not None
    last = found.isel(date=-1)
    table = sections["interactions"].tables[0]
    bends = 1e4 * np.abs(last["hessian"].values)
    name = str(found["factor"].values[int(bends.max(axis=1).argmax())])
    assert name in table.rows[0][0]
    assert prints(table.rows[0][1].lstrip("+−"), bends.max())
    for row in table.rows:
        first, second = row[0].split(" × ")
        part = 1e4 * float(
            last["hessian"].sel(factor=first, factor_other=second)
            * last["exposure"].sel(factor=first)
            * last["exposure"].sel(factor=second)
        )
        assert prints(row[2], part)


# ---- realised, benchmark, hedge, styles ----------------------------------------------------------


def test_realised_parts_add_up_to_the_compound_return(
    contents: AttributionContents, sections: dict[str, Section]
) -> None:
    found = contents.realised
    assert found is not None
    assert found.linked is not None
    section = sections["realised"]
    cells = column(section.tables[0], "Part (bp)")
    total = 1e4 * float(found.linked.active_return)
    assert cells["Sum"] == cells["Compound return"]
    assert prints(cells["Sum"], total)
    names = [str(name) for name in found.parts["part"].values]
    parts = sum(read(cells[name]) for name in names)
    assert parts == pytest.approx(total, abs=half(cells["Sum"]) * len(names))
    assert f"earned {total / 100:+.2f}%".replace("-", "−") in words(section)
    assert "Missing: 1 factor return," in words(section)
    assert "2 dates whose return is not known" in words(section)
    assert "scaled up" in words(section)
    assert column(section.tables[0], "Mean exposure")["specific"] == "–"
    assert section.tables[1].rows[0][0] == "columns that repeat earlier ones"


def test_realised_intervals_follow_draws_and_linking(contents: AttributionContents) -> None:
    found = contents.realised
    assert found is not None
    assert "Interval (bp)" in changed(contents, realised=found)["realised"].tables[0].header
    bare = dataclasses.replace(found, linked=None, linked_interval=None)
    section = changed(contents, realised=bare)["realised"]
    assert "Interval (bp)" not in section.tables[0].header
    assert "Compound return" not in column(section.tables[0], "Part (bp)")
    assert "without compounding" in words(section)
    total = 1e4 * float(found.total.sum())
    assert prints(column(section.tables[0], "Part (bp)")["Sum"], total)


def test_realised_parts_of_learned_factors_are_of_the_first_fit(
    contents: AttributionContents,
) -> None:
    found = contents.realised
    assert found is not None
    two = dataclasses.replace(
        found,
        comparable=False,
        parts=xr.concat([found.parts, 5.0 * found.parts], "chain"),
        factors=xr.concat([found.factors, 5.0 * found.factors], "chain"),
        linked=None,
    )
    one = dataclasses.replace(found, linked=None, linked_interval=None)
    first = changed(contents, realised=one)["realised"]
    both = changed(contents, realised=two)["realised"]
    assert both.tables[0].rows == first.tables[0].rows
    assert "parts are of the first fit" in words(both)


def test_effects_add_up_to_the_active_return(
    contents: AttributionContents, sections: dict[str, Section]
) -> None:
    linked = contents.linked
    assert linked is not None
    section = sections["brinson"]
    table = section.tables[0]
    active = 1e4 * float(linked.active_return)
    sums = {title: column(table, title)["Sum"] for title in table.header[3:]}
    assert prints(sums["All (bp)"], active)
    for kind in ("allocation", "selection", "interaction"):
        size = 1e4 * float(linked.effects.sel(effect=kind).sum())
        assert prints(sums[f"{kind.capitalize()} (bp)"], size)
    assert "the equal-weight book, +2.00%" in words(section)
    assert "1 held asset, S0007" in words(section)
    single = changed(contents, brinson=contents.brinson)["brinson"]
    assert "added up without compounding" in words(single)
    total = 1e4 * float(contents.brinson.effects.sum())  # type: ignore[union-attr]
    assert prints(column(single.tables[0], "All (bp)")["Sum"], total)


def test_effects_of_draws_have_means_and_intervals(contents: AttributionContents) -> None:
    found, linked = contents.brinson, contents.linked
    assert found is not None
    assert linked is not None
    scale = xr.DataArray(np.linspace(0.5, 1.5, 101), dims="draw")
    draws = dataclasses.replace(
        linked,
        effects=scale * linked.effects,
        portfolio_return=scale * linked.portfolio_return,
        active_return=scale * linked.active_return,
    )
    table = changed(contents, brinson=found, linked=draws)["brinson"].tables[0]
    assert table.header[-1] == "90% interval (bp)"
    own = 1e4 * float(linked.effects.sel(group=ATTACK).sum())
    assert prints(column(table, "All (bp)")[ATTACK], own)
    ends = column(table, "90% interval (bp)")[ATTACK].split(" to ")
    assert all(map(prints, ends, sorted([0.55 * own, 1.45 * own])))


def test_a_hedge_shows_what_to_sell_and_what_stays(
    contents: AttributionContents, sections: dict[str, Section]
) -> None:
    found = contents.hedge
    assert found is not None
    sold = column(sections["hedge"].tables[0], "Sell")
    for name in found.hedge["factor"].values:
        size = float(found.hedge.sel(factor=name)[-1])
        assert prints(sold[name], size)
    before, after = 1e4 * found.standard_deviation.values[-1]
    assert f"falls from {before:.1f} bp to {after:.1f} bp" in words(sections["hedge"])
    assert f"{100 * float(found.r_squared[-1]):.1f}% of the variance is gone" in words(
        sections["hedge"]
    )
    assert "Not to be sold: 1 of 5 factors" in words(sections["hedge"])


def test_a_hedge_by_regime_has_a_row_a_regime(contents: AttributionContents) -> None:
    assert contents.prices is not None
    dates = contents.prices["date"].values[-1:]
    names = [str(name) for name in contents.prices["factor"].values]
    rng = np.random.default_rng(2)
    found = make_hedge(rng, dates, names, regimes=("calm", "<wild>"))
    section = changed(contents, hedge=found)["hedge"]
    assert section.tables[0].header == ("Factor", "Exposure", "Sell, calm", "Sell, <wild>")
    rows = {row[0]: row for row in section.tables[1].rows}
    for name, n_dates in (("calm", "1"), ("<wild>", "50")):
        before, after = 1e4 * found.standard_deviation.sel(regime=name).values[-1]
        assert rows[name][1] == n_dates
        assert all(map(prints, rows[name][2:4], (before, after)))
    assert "Of one date only, so that factors do not correlate: calm." in words(section)
    assert "3 dates" in words(section)
    assert "it describes" in words(section)


def test_styles_that_could_not_be_computed_say_why(
    contents: AttributionContents, sections: dict[str, Section]
) -> None:
    found = contents.styles
    assert found is not None
    table, missing, ledger = sections["styles"].tables
    assert [row[0] for row in table.rows] == [str(n) for n in found.summary["factor"].values]
    assert column(table, "Exposure")["non_linear_size"] == "n/a"
    size = float(found.summary["exposure_mean"].sel(factor="beta"))
    assert prints(column(table, "Exposure")["beta"], size)
    assert {row[0]: row[1] for row in missing.rows} == dict(found.unavailable)
    assert ledger.rows[0][-1] == "17"
    nothing = dataclasses.replace(found, unavailable={}, summary=found.summary.isel(factor=[]))
    bare = changed(contents, styles=nothing)["styles"]
    assert bare.figures == ()
    assert bare.tables[0].rows == ()


def test_styles_with_returns_say_what_their_returns_explain(
    contents: AttributionContents,
) -> None:
    found = contents.styles
    assert found is not None
    names = ["market", *(str(name) for name in found.summary["factor"].values)]
    table = {name: ("factor", np.linspace(0.1, 0.7, 7)) for name in ("correlation", "beta")}
    over = StyleReturns(
        regression=Any,  # type: ignore[arg-type]
        portfolio_return=xr.DataArray(0.0),
        unobserved_share=xr.DataArray(0.0),
        by_factor=xr.Dataset(
            table | {"t_statistic": ("factor", np.linspace(-3.0, 3.0, 7))}, {"factor": names}
        ),
        alpha=3e-5,
        alpha_error=1e-5,
        alpha_t=3.0,
        r_squared=0.613,
        adjusted_r_squared=0.6,
        n_dates=101,
        n_left_out=0,
        n_lags=5,
    )
    section = changed(contents, styles=dataclasses.replace(found, returns=over))["styles"]
    assert (
        "Over 101 dates the returns of market and the styles explain 61.3% of the variance of its "
        "return; what they leave is +0.3 bp per label period (t +3.00)." in words(section)
    )
    assert column(section.tables[0], "Return beta")["size"] == "+0.200"
    assert column(section.tables[0], "t of beta")["non_linear_size"] == "+3.00"


# ---- what is shown -------------------------------------------------------------------------------


def test_rows_keep_the_sum_of_all_entries() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(23, 2))
    names = [f"n{k}" for k in range(23)]
    chosen = choose(names, np.abs(values[:, 0]), most=7, last="n3")
    rows = chosen.collect(values)
    assert rows.shape == (7, 2)
    assert chosen.names[-2:] == ("17 others", "n3")
    np.testing.assert_allclose(rows.sum(axis=0), values.sum(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(rows[-1], values[3])
    assert np.isnan(chosen.collect(values, other=np.nan)[-2]).all()
    assert chosen.cells(names)[-2:] == ["–", "n3"]
    assert np.abs(rows[:5, 0]).min() >= np.abs(values[chosen.rest, 0]).max()
    assert choose(names[:3], values[:3, 0], most=7).rest.size == 0


def test_dates_are_averaged_in_blocks_only_where_they_are_many() -> None:
    values = np.arange(2.0 * MOST_COLUMNS)[None]
    dates = pd.bdate_range("2020-01-01", periods=2 * MOST_COLUMNS).values
    mean, first, length = date_blocks(values, dates)
    assert (length, mean.shape) == (2, (1, MOST_COLUMNS))
    np.testing.assert_allclose(mean[0, :2], [0.5, 2.5])
    assert first[1] == dates[2]
    holed = values.copy()
    holed[0, :3] = np.nan
    np.testing.assert_array_equal(date_blocks(holed, dates)[0][0, :2], [np.nan, 3.0])
    assert date_blocks(values[:, :7], dates[:7])[2] == 1


def test_small_words_and_positions() -> None:
    assert counted(1, "date") == "1 date"
    assert counted(1001, "date") == "1,001 dates"
    assert evenly(7, 3).tolist() == [0, 3, 6]
    assert evenly(2, 3).tolist() == [0, 1]
    assert interval_over_draws(xr.DataArray([1.0], dims="factor")) is None
