"""Reports of models without factors, with given factors, and with a price of risk."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.rendering import render_report, selection
from nfi_pyro.rendering.formatting import digits_for
from tests.rendering.test_report import Page

SIZES = {"n_assets": 13, "n_factors": 5, "n_dates": 61, "n_epochs": 3, "n_steps": 53}


@pytest.fixture(scope="module")
def make_page(make_contents):
    def make(kind, **changes):
        return render_report(make_contents(**(SIZES | changes), kind=kind))

    return make


@pytest.fixture(scope="module")
def copula_page(make_page):
    return make_page("copula")


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def section_of(page, anchor):
    found = re.search(rf'<section id="{anchor}".*?</section>', page, re.S)
    assert found is not None
    return found[0]


def test_without_factors_nothing_speaks_of_them_and_the_copula_has_its_own_section(copula_page):
    parsed = Page(copula_page)
    anchors = [s["attrs"]["id"] for s in parsed.all("section")]
    assert anchors[7:10] == ["dependence", "exposures", "price-of-risk"]
    assert "factors" not in anchors
    figures = [s["attrs"]["id"] for s in parsed.all("svg")]
    assert {"fig-copula", "fig-prices"} <= set(figures)
    assert not {"fig-kl", "fig-factors"} & set(figures)
    text = text_of(copula_page)
    assert "What the copula shares carries" in text
    assert "Every law is normal" in text
    assert "there is no KL divergence to show" in text
    assert "Log likelihood (nats per cell)" in text
    for word in (
        "encoder",
        "ELBO",
        "Factors carry",
        "Factor share",
        "factor share",
        "m_t",
        "Given",
    ):
        assert word not in text, word


def test_the_copula_section_tells_average_correlation_and_shares(make_contents, copula_page):
    rows = make_contents(**SIZES, kind="copula").copula_loading.values
    dense = rows @ rows.T
    average = (dense.sum() - np.trace(dense)) / (13 * 12)
    text = text_of(section_of(copula_page, "dependence"))
    assert f"correlate by {average:.2f} on average" in text
    assert f"shares {100 * np.trace(dense) / 13:.1f}% of its score" in text
    assert f"{100 * np.square(rows[:, 0]).mean():.2f}%" in text


@pytest.mark.parametrize("kind", ["factors", "copula"])
def test_monte_carlo_risk_shows_its_error(make_contents, kind):
    contents = make_contents(**SIZES, kind=kind)
    error = contents.portfolio.standard_error + 0.00012
    book = dataclasses.replace(
        contents.portfolio, standard_error=error, method="Monte Carlo, 100,000 draws"
    )
    page = render_report(dataclasses.replace(contents, portfolio=book))
    text = text_of(section_of(page, "portfolio-risk"))
    assert "Method: Monte Carlo, 100,000 draws." in text
    assert "closed form" not in text
    assert text.count("0.012%") == 4
    assert ("come from draws of the copula itself" in text) == (kind == "copula")
    assert page.count("to first order") == 2 * (kind == "copula")
    assert "Every law is normal" not in text


def test_the_price_section_has_common_parts_spread_and_interactions(make_contents, make_page):
    page = make_page("factors")
    found = section_of(page, "price-of-risk")
    headers = [th["text"] for th in Page(found).all("th") if th["attrs"]["scope"] == "col"]
    spread = ["Common part", "Mean", "5%", "95%", "Sd of exposure", "Effect", "Heterogeneity"]
    assert headers == ["Pair", "Size (bp)", "Mean (bp)", "Exposure", *spread]
    pricing = make_contents(**SIZES, kind="factors").pricing
    names = [th["text"] for th in Page(found).all("th") if th["attrs"]["scope"] == "row"]
    assert names[10:] == list(selection.price_spread(pricing).index)
    text = text_of(found)
    assert "partial derivative" in text
    assert "m_t and the scale S_t of the date" in text
    total = selection.total_heterogeneity(pricing)
    assert f"{1e4 * total:.2f} bp, beside a standard deviation" in text


def test_a_linear_model_has_one_price_and_no_heterogeneity(make_page):
    page = make_page("linear")
    found = section_of(page, "price-of-risk")
    text = text_of(found)
    assert "every asset has the same price for an exposure, so heterogeneity is 0" in text
    assert "Pair" not in text
    assert "Heterogeneity (bp)" not in text
    cells = [td["text"] for td in Page(found).all("td")]
    assert cells[3::4] == ["0"] * 4
    assert "all factors together" in text_of(section_of(page, "training"))
    assert "Factors are identified only up to rotation" not in text_of(page)
    assert "each factor has a name" in text_of(page)


def test_a_law_of_hidden_features_has_no_price_section(make_page):
    page = make_page("factor_vae")
    assert "Price of risk" not in page
    assert "identified only up to rotation" in text_of(page)


def test_many_named_exposures_are_cut_and_said_to_be(make_page):
    page = make_page("copula", n_factors=43)
    text = text_of(page)
    assert "The 20 largest of 42 exposures" in text
    assert "The 20 largest effects are shown." in text
    assert "The 20 largest of 43 are drawn." in text
    assert len(page) < 500_000
    ticks = {t["text"] for t in Page(section_of(page, "price-of-risk")).all("text")}
    assert len([t for t in ticks if t.startswith("STYLE_")]) == 20


def test_no_asset_on_the_date_is_said(make_contents):
    contents = make_contents(**SIZES, kind="factors")
    empty = dataclasses.replace(contents, pricing=contents.pricing.isel(asset=[]))
    assert "so nothing is priced" in section_of(render_report(empty), "price-of-risk")


def test_small_shared_sources_are_one_bar(make_contents):
    names = [*(f"s{k}" for k in range(23)), "specific"]
    values = np.full(24, 1e-9)
    values[[0, 23]] = 0.01, 1e-5
    source = xr.DataArray(values, {"source": names}, "source")
    shown = selection.shown_contributions(source)
    assert list(shown.index) == ["s0", "22 others", "specific"]
    assert shown.sum() == pytest.approx(values.sum())


@pytest.fixture
def quadratic(make_contents):
    """Prices ``g_i = m + H beta_i`` of 13 assets and 5 exposures."""
    return make_contents(**SIZES, kind="factors").pricing


def test_prices_and_heterogeneity_are_those_of_a_quadratic_mean(quadratic):
    beta, bend = quadratic["beta"].values, quadratic["hessian"].values[0]
    common = quadratic["price_of_risk"].values
    table = selection.price_spread(quadratic).loc[list(quadratic["factor"].values)]
    np.testing.assert_allclose(table["common"], common, rtol=0, atol=0)
    np.testing.assert_allclose(table["mean"], common + beta.mean(0) @ bend, rtol=1e-12)
    moment = np.cov(beta.T, ddof=0)
    sd = np.sqrt(np.diag(moment))
    wanted = np.sqrt(np.diag(bend @ moment @ bend)) * sd
    np.testing.assert_allclose(table["heterogeneity"], wanted, rtol=1e-12)
    total = np.sqrt(np.trace(bend @ moment @ bend @ moment))
    assert selection.total_heterogeneity(quadratic) == pytest.approx(total, rel=1e-12)
    assert selection.price_spread(quadratic)["effect"].is_monotonic_decreasing


def test_total_heterogeneity_does_not_depend_on_the_basis(quadratic):
    rng = np.random.default_rng(3)
    mix = rng.normal(size=(5, 5))
    turned = quadratic.assign(
        beta=(("asset", "factor"), quadratic["beta"].values @ np.linalg.inv(mix)),
        jacobian=(("asset", "factor"), quadratic["jacobian"].values @ mix.T),
    )
    assert selection.total_heterogeneity(turned) == pytest.approx(
        selection.total_heterogeneity(quadratic), rel=1e-9
    )


def test_interactions_are_second_derivatives_per_sd(quadratic):
    bend, sd = quadratic["hessian"].values[0], quadratic["beta"].values.std(0)
    table = selection.interactions(quadratic)
    assert len(table) == 15
    assert table.loc["factor 1 × factor 3", "mean"] == pytest.approx(bend[1, 3] * sd[1] * sd[3])
    assert table.loc["factor 2 × factor 2", "size"] == pytest.approx(abs(bend[2, 2]) * sd[2] ** 2)
    assert table["size"].is_monotonic_decreasing


@pytest.mark.parametrize(
    ("values", "digits"),
    [((0.0123, 0.001), 4), ((12.0, -345.0), 0), ((-3.4,), 2), ((0.0, np.nan), 2), ((1e-12,), 6)],
)
def test_decimals_follow_the_largest_value(values, digits):
    assert digits_for(pd.Series(values)) == digits
