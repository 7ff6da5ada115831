"""Brinson attribution: examples by hand and in print, identities, edges, trading, draws."""

from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.attribution.results.brinson import BrinsonAttribution
from nfi_pyro.attribution.returns.brinson import Interaction, Method, add_trading, brinson
from nfi_pyro.attribution.returns.brinson_draws import summarise_effects
from nfi_pyro.attribution.returns.linking import link_effects, link_geometric
from nfi_pyro.errors import ShapeError, SpecError
from tests.attribution.brinson_maker import MARKETS, bacon, days, frame, random_books

METHODS, INTERACTIONS = get_args(Method), get_args(Interaction)
ONE = days(1)


def parts(found: BrinsonAttribution, group: str, date: int = 0) -> dict[str, float]:
    """Return effects of a group on a date by name."""
    row = found.effects.isel(date=date).sel(group=group)
    return {str(name): float(row.sel(effect=name)) for name in row["effect"].values}


def require_identity(found: BrinsonAttribution, tolerance: float = 1e-12) -> None:
    totals = found.totals
    active = totals["portfolio_return"] - totals["benchmark_return"]
    summed = found.effects.sum(["group", "effect"])
    np.testing.assert_allclose(summed, active, rtol=0, atol=tolerance)
    np.testing.assert_allclose(totals["active_return"], active, rtol=0, atol=1e-15)
    np.testing.assert_allclose(totals["effect_total"].sum("effect"), active, rtol=0, atol=tolerance)
    assert np.isfinite(found.effects.values).all()


# ---- golden and closed forms ---------------------------------------------------------------------


def two_groups() -> tuple[xr.DataArray, xr.DataArray, xr.DataArray, dict[str, str]]:
    """Return two stocks of group equity and a bond, one date.

    Equity: w_p = 0.3 + 0.5 = 0.8, w_b = 0.3 + 0.2 = 0.5; contributions 0.3 * 10% + 0.5 * 2% = 4%
    and 0.3 * 10% + 0.2 * 2% = 3.4%; R_p = 5%, R_b = 6.8%. Bond: w_p = 0.2, w_b = 0.5, R = -1%.
    Total: R_p = 4% - 0.2% = 3.8%, R_b = 3.4% - 0.5% = 2.9%, active 0.9%.
    """
    assets = ["X", "Y", "Z"]
    return (
        frame([[0.3, 0.5, 0.2]], ONE, assets),
        frame([[0.3, 0.2, 0.5]], ONE, assets),
        frame([[0.10, 0.02, -0.01]], ONE, assets),
        {"X": "equity", "Y": "equity", "Z": "bond"},
    )


def test_two_groups_by_hand() -> None:
    # bf: equity 0.3 * (6.8 - 2.9) = 1.17%, bond -0.3 * (-1 - 2.9) = 1.17%
    # bhb: equity 0.3 * 6.8 = 2.04%, bond -0.3 * -1 = 0.3%
    # selection: equity 0.5 * (5 - 6.8) = -0.9%; interaction: 0.3 * (5 - 6.8) = -0.54%; bond none
    bf, bhb = brinson(*two_groups()), brinson(*two_groups(), method="bhb")
    for found, equity, bond in ((bf, 0.0117, 0.0117), (bhb, 0.0204, 0.003)):
        rest = {"selection": -0.009, "interaction": -0.0054}
        assert parts(found, "equity") == pytest.approx({"allocation": equity, **rest}, abs=1e-16)
        none = {"selection": 0.0, "interaction": 0.0}
        assert parts(found, "bond") == pytest.approx({"allocation": bond, **none}, abs=1e-16)
        assert found.effects["group"].values.tolist() == ["bond", "equity"]
        require_identity(found, 1e-16)
    groups = bf.groups.isel(date=0).sel(group="equity")
    expected = {
        "portfolio_weight": 0.8,
        "benchmark_weight": 0.5,
        "portfolio_contribution": 0.04,
        "benchmark_contribution": 0.034,
        "portfolio_return": 0.05,
        "benchmark_return": 0.068,
    }
    assert {str(k): float(v) for k, v in groups.items()} == pytest.approx(expected, abs=1e-15)
    totals = {str(k): float(v) for k, v in bf.totals.drop_dims("effect").isel(date=0).items()}
    assert totals == pytest.approx(
        {
            "portfolio_return": 0.038,
            "benchmark_return": 0.029,
            "active_return": 0.009,
            "holdings_return": 0.038,
            "semi_notional_return": 0.8 * 0.068 - 0.2 * 0.01,
        },
        abs=1e-15,
    )
    assert bf.unclassified == ()
    assert bf.effects.attrs["units"] == "decimal return"


def test_one_quarter_agrees_with_bacons_tables() -> None:
    # Bacon (2008), tables 5.2 (bhb), 5.3 (bf) and 5.4 (bf, interaction in selection), percent.
    own, other, returns, groups = bacon()
    first = {"date": [0]}
    rest = {"selection": [4.0, -0.2, -0.8], "interaction": [0.0, -0.1, 0.2]}
    tables: list[tuple[Method, Interaction, dict[str, list[float]]]] = [
        ("bhb", "separate", {"allocation": [0.0, -0.4, -0.8], **rest}),
        ("bf", "separate", {"allocation": [0.0, -1.04, -0.16], **rest}),
        ("bf", "selection", {"allocation": [0.0, -1.04, -0.16], "selection": [4.0, -0.3, -0.6]}),
    ]
    for method, interaction, table in tables:
        found = brinson(
            own.isel(first),
            other.isel(first),
            returns.isel(first),
            groups,
            method=method,
            interaction=interaction,
        )
        effects = found.effects.isel(date=0).sel(group=MARKETS)
        assert effects["effect"].values.tolist() == list(table)
        np.testing.assert_allclose(100 * effects.T, list(table.values()), atol=1e-13)


def test_four_quarters_agree_with_bacons_table() -> None:
    # Bacon (2008), table 8.1; also R's PortfolioAttribution, test_linking.R. Percent, 2 decimals.
    found = brinson(*bacon(), interaction="selection")
    allocation = [[0, -1.04, -0.16], [-0.72, -0.86, 1.08], [2.5, 1.75, -0.75], [-0.3, -0.7, 0]]
    selection = [[4, -0.3, -0.6], [1.4, -0.2, 0.5], [1.5, 1.5, 1], [1.5, -1, 3]]
    for name, table in (("allocation", allocation), ("selection", selection)):
        effect = 100 * found.effects.sel(effect=name, group=MARKETS)
        np.testing.assert_allclose(effect, table, rtol=0, atol=0.0051)


def by_the_book(books: Any, date: int, method: str) -> dict[str, list[float]]:
    """Return effects of a date by the printed formulas, for groups that both books hold."""
    own, other, returns, groups = (x.isel(date=date).values if k < 3 else x for k, x in books)
    names = np.array(list(groups.values()))
    base = float(other @ returns)
    effects = {}
    for name in sorted(set(names)):
        inside = names == name
        w_p, w_b = own[inside].sum(), other[inside].sum()
        r_p = own[inside] @ returns[inside] / w_p
        r_b = other[inside] @ returns[inside] / w_b
        against = base if method == "bf" else 0.0
        effects[name] = [
            (w_p - w_b) * (r_b - against),
            w_b * (r_p - r_b),
            (w_p - w_b) * (r_p - r_b),
        ]
    return effects


@pytest.mark.parametrize("method", METHODS)
def test_effects_are_their_formulas(method: Method) -> None:
    books = random_books(3)
    found = brinson(*books, method=method)
    for date in range(24):
        for name, expected in by_the_book(list(enumerate(books)), date, method).items():
            effects = found.effects.isel(date=date).sel(group=name)
            np.testing.assert_allclose(effects, expected, rtol=0, atol=1e-15)


# ---- invariants ----------------------------------------------------------------------------------


@pytest.mark.parametrize("short", [0.0, 0.3])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_effects_sum_to_the_active_return(
    method: Method, interaction: Interaction, short: float
) -> None:
    for seed in range(5):
        books = random_books(seed, short=short)
        found = brinson(*books, method=method, interaction=interaction)
        require_identity(found)
        own, other, returns, _ = books
        np.testing.assert_allclose(
            found.totals["portfolio_return"], (own * returns).sum("asset"), rtol=0, atol=1e-14
        )
        np.testing.assert_allclose(
            found.totals["benchmark_return"], (other * returns).sum("asset"), rtol=0, atol=1e-14
        )


@pytest.mark.parametrize("method", METHODS)
def test_interaction_goes_where_it_is_sent(method: Method) -> None:
    apart, picked, placed = (
        brinson(*random_books(2), method=method, interaction=name).effects for name in INTERACTIONS
    )
    both = apart.sel(effect="interaction", drop=True)
    for found, name, other in (
        (picked, "selection", "allocation"),
        (placed, "allocation", "selection"),
    ):
        assert found["effect"].values.tolist() == ["allocation", "selection"]
        expected = apart.sel(effect=name, drop=True) + both
        np.testing.assert_allclose(found.sel(effect=name), expected, rtol=0, atol=1e-16)
        xr.testing.assert_equal(found.sel(effect=other), apart.sel(effect=other))


def test_methods_differ_by_group_alone() -> None:
    books = random_books(7)
    bf, bhb = brinson(*books), brinson(*books, method="bhb")
    rest = ["selection", "interaction"]
    xr.testing.assert_equal(bf.effects.sel(effect=rest), bhb.effects.sel(effect=rest))
    np.testing.assert_allclose(
        bf.totals["effect_total"], bhb.totals["effect_total"], rtol=0, atol=1e-15
    )
    np.testing.assert_allclose(
        bf.totals["semi_notional_return"], bhb.totals["semi_notional_return"], rtol=0, atol=1e-15
    )
    gap = (bf.effects - bhb.effects).sel(effect="allocation", drop=True)
    active = bf.groups["portfolio_weight"] - bf.groups["benchmark_weight"]
    expected = -active * bf.totals["benchmark_return"]
    np.testing.assert_allclose(gap, expected.transpose(*gap.dims), rtol=0, atol=1e-15)


def test_a_book_against_itself_has_no_effect() -> None:
    own, _, returns, groups = random_books(1)
    assert float(abs(brinson(own, own, returns, groups).effects).max()) <= 1e-16


def test_order_and_kind_of_input_do_not_matter() -> None:
    own, other, returns, groups = random_books(9)
    expected = brinson(own, other, returns, groups)
    mixed = np.random.default_rng(1).permutation(13)
    series = pd.Series(groups)
    array = xr.DataArray(series.to_numpy(), {"asset": series.index.to_numpy()}, ("asset",))
    dated = array.expand_dims(date=returns["date"])
    for kind in (series, array, dated, array[mixed]):
        found = brinson(own[:, mixed], other.T, returns[:, mixed[::-1]].T, kind)
        xr.testing.assert_allclose(found.effects, expected.effects, rtol=0, atol=1e-15)
        assert found.effects.dims == ("date", "group", "effect")
    more = {**groups, "elsewhere": "g9"}
    xr.testing.assert_identical(brinson(own, other, returns, more).effects, expected.effects)


def test_groups_may_change_from_date_to_date() -> None:
    own, other, returns, groups = random_books(4)
    first = pd.Series(groups)
    second = first.replace({"g0": "g1", "g4": "g0"})
    dated = xr.DataArray(
        [first] * 11 + [second] * 13, {"date": returns["date"], "asset": first.index.to_numpy()}
    )
    found = brinson(own, other, returns, dated)
    require_identity(found)
    for span, static in ((slice(0, 11), first), (slice(11, None), second)):
        part = {"date": span}
        alone = brinson(own.isel(part), other.isel(part), returns.isel(part), static).effects
        there = found.effects.isel(date=span).sel(group=alone["group"])
        np.testing.assert_allclose(there, alone, rtol=0, atol=1e-15)
    gone = found.groups.isel(date=slice(11, None)).sel(group="g4")
    assert float(abs(gone["portfolio_weight"]).max()) == 0.0
    assert np.isnan(gone["portfolio_return"].values).all()
    assert float(abs(found.effects.isel(date=slice(11, None)).sel(group="g4")).max()) == 0.0


def test_weights_without_dates_are_held_at_every_start() -> None:
    own, other, returns, groups = random_books(6)
    fixed = other.isel(date=0, drop=True)
    found = brinson(own, fixed, returns, groups)
    spread = fixed.expand_dims(date=returns["date"])
    xr.testing.assert_identical(found.effects, brinson(own, spread, returns, groups).effects)


def test_assets_of_one_book_alone_and_of_none() -> None:
    own, other, returns, groups = random_books(8)
    own = own.where(own["asset"] != "A3", 0.0)
    own = own / own.sum("asset")
    expected = brinson(own, other, returns, groups)
    fewer = own.drop_sel(asset="A3")
    xr.testing.assert_allclose(
        brinson(fewer, other, returns, groups).effects, expected.effects, rtol=0, atol=1e-16
    )
    # neither book holds N: no return or group is needed, and an asset of weight 0 may be unknown
    spare = xr.full_like(returns.isel(asset=[0]), np.nan).assign_coords(asset=["N"])
    more = xr.concat([returns, spare], "asset")
    other = xr.concat([other, xr.zeros_like(spare).assign_coords(asset=["unheard"])], "asset")
    found = brinson(fewer, other, more, groups)
    xr.testing.assert_allclose(found.effects, expected.effects, rtol=0, atol=1e-16)


# ---- edges ---------------------------------------------------------------------------------------


def test_a_group_outside_the_benchmark_is_selection() -> None:
    # X: 0.4 in the benchmark's one group at 1%; off-benchmark Z: 0.6 at 5%. R_b = 1%, R_p = 3.4%.
    assets = ["X", "Z"]
    books = (
        frame([[0.4, 0.6]], ONE, assets),
        frame([[1.0, 0.0]], ONE, assets),
        frame([[0.01, 0.05]], ONE, assets),
        {"X": "home", "Z": "away"},
    )
    bf, bhb = brinson(*books), brinson(*books, method="bhb")
    away = {"allocation": 0.0, "selection": 0.6 * 0.04, "interaction": 0.0}
    assert parts(bf, "away") == pytest.approx(away, abs=1e-16)
    assert parts(bhb, "away") == pytest.approx({**away, "allocation": 0.6 * 0.01}, abs=1e-16)
    assert np.isnan(bf.groups["benchmark_return"].sel(group="away").item())
    for found in (bf, bhb):
        require_identity(found, 1e-16)


def test_a_group_that_the_portfolio_leaves_out_is_allocation() -> None:
    # 0.3 of the benchmark in B at -2%, the rest in A at 4%: R_b = 2.2%, R_p = 4%.
    assets = ["A", "B"]
    books = (
        frame([[1.0, 0.0]], ONE, assets),
        frame([[0.7, 0.3]], ONE, assets),
        frame([[0.04, -0.02]], ONE, assets),
        {"A": "a", "B": "b"},
    )
    found = brinson(*books)
    expected = {"allocation": -0.3 * (-0.02 - 0.022), "selection": 0.0, "interaction": 0.0}
    assert parts(found, "b") == pytest.approx(expected, abs=1e-16)
    assert np.isnan(found.groups["portfolio_return"].sel(group="b").item())
    require_identity(found, 1e-16)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("hedged", ["portfolio", "benchmark", "both"])
def test_longs_and_shorts_that_cancel_leave_their_contribution(method: Method, hedged: str) -> None:
    # Group h: 0.1 + 0.2 - 0.3, which is 5.6e-17 and not 0 in float64; it earns
    # 0.1 * 5% - 0.2 * 1% - 0.3 * 2% = -0.3%.
    assets = ["H", "I", "J", "M"]
    pair, plain = [0.1, 0.2, -0.3, 1.0], [0.2, 0.1, 0.1, 0.6]
    own = frame([plain if hedged == "benchmark" else pair], ONE, assets)
    other = frame([plain if hedged == "portfolio" else pair], ONE, assets)
    returns = frame([[0.05, -0.01, 0.02, 0.03]], ONE, assets)
    groups = {"H": "h", "I": "h", "J": "h", "M": "m"}
    found = brinson(own, other, returns, groups, method=method)
    require_identity(found, 1e-16)
    assert float(abs(found.effects).max()) < 0.05  # no return over a weight of 5.6e-17
    effects = parts(found, "h")
    assert effects["interaction"] == 0.0
    returned = (own - other).sel(asset=["H", "I", "J"]) * returns
    active = float(returned.sum())
    if hedged == "portfolio":
        # R_b = 1.1% / 0.4 of the group and 2.9% of the total
        against = 0.029 if method == "bf" else 0.0
        assert effects["allocation"] == pytest.approx(-0.4 * (0.0275 - against), abs=1e-15)
        assert effects["selection"] == pytest.approx(-0.003, abs=1e-15)
    elif hedged == "benchmark":
        # its total of 2.7% stands in: bf has no allocation, and selection is against 0.4 * 2.7%
        expected = 0.0 if method == "bf" else 0.4 * 0.027
        assert effects["allocation"] == pytest.approx(expected, abs=1e-15)
        assert effects["selection"] == pytest.approx(active - 0.4 * 0.027, abs=1e-15)
    else:
        assert effects == pytest.approx(dict.fromkeys(effects, 0.0), abs=1e-16)


def test_dollar_neutral_books_are_held_beside_cash() -> None:
    # Long 1 in a, short 1 in b, against cash: R_p = 5% - 2% = 3%, all of it off the benchmark.
    own = frame([[1.0, -1.0]], ONE, ["A", "B"])
    returns = frame([[0.05, 0.02]], ONE, ["A", "B"])
    groups = {"A": "a", "B": "b"}
    found = brinson(own, 0.0 * own, returns, groups, unallocated="cash")
    assert parts(found, "a")["selection"] == pytest.approx(0.05, abs=1e-16)
    assert parts(found, "b")["selection"] == pytest.approx(-0.02, abs=1e-16)
    row = found.groups.isel(date=0).sel(group="unallocated")
    assert float(row["portfolio_weight"]) == 1.0
    assert float(row["benchmark_weight"]) == 1.0
    require_identity(found, 1e-16)
    empty = brinson(0.0 * own, 0.0 * own, returns, groups, unallocated="cash")
    assert empty.effects["group"].values.tolist() == ["unallocated"]
    require_identity(empty, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_allocated_earns_nothing_in_a_row_of_its_own(method: Method) -> None:
    own, other, returns, groups = random_books(2)
    scale = xr.DataArray(np.linspace(0.7, 1.2, 24), {"date": own["date"]}, ("date",))
    found = brinson(scale * own, other, returns, groups, method=method, unallocated="cash")
    require_identity(found)
    assert found.effects["group"].values.tolist() == ["g0", "g1", "g2", "g3", "g4", "unallocated"]
    row = found.groups.sel(group="unallocated")
    np.testing.assert_allclose(row["portfolio_weight"], 1.0 - scale, rtol=0, atol=1e-15)
    for name in ("benchmark_weight", "portfolio_return", "benchmark_return"):
        assert float(abs(row[name]).max()) == 0.0
    effects = found.effects.sel(group="unallocated")
    base = found.totals["benchmark_return"] if method == "bf" else 0.0
    expected = (1.0 - scale) * (0.0 - base)
    np.testing.assert_allclose(effects.sel(effect="allocation"), expected, rtol=0, atol=1e-15)
    assert float(abs(effects.sel(effect=["selection", "interaction"])).max()) == 0.0
    # the same money as an asset that earns 0 in both books is the same row
    cash = xr.DataArray(np.zeros((24, 1)), {"date": own["date"], "asset": ["C"]}, ("date", "asset"))
    held = xr.concat([scale * own, cash + (1.0 - scale)], "asset").transpose("date", "asset")
    tiny = xr.concat([other * (1.0 - 1e-9), cash + 1e-9], "asset")
    more = {**groups, "C": "money"}
    named = brinson(held, tiny, xr.concat([returns, cash], "asset"), more, method=method)
    np.testing.assert_allclose(
        named.effects.sel(group="money").sum("effect"), effects.sum("effect"), rtol=0, atol=1e-9
    )


def test_weights_in_single_precision_keep_the_identity() -> None:
    own, other, returns, groups = random_books(4)
    found = brinson(own.astype("float32"), other, returns.astype("float32"), groups)
    require_identity(found)
    row = found.groups["portfolio_weight"].sel(group="unallocated")
    assert 1e-9 < float(abs(row).max()) < 1e-6
    assert "unallocated" not in brinson(own, other, returns, groups).effects["group"]


def test_assets_without_a_group_get_one_and_are_named() -> None:
    own, other, returns, groups = random_books(5)
    lacking: dict[str, Any] = {**groups, "A4": None, "A7": np.nan, "A1": ""}
    del lacking["A11"]
    found = brinson(own, other, returns, lacking, missing_group="unclassified")
    assert found.unclassified == ("A1", "A4", "A7", "A11")
    filled = groups | dict.fromkeys(found.unclassified, "unclassified")
    xr.testing.assert_identical(found.effects, brinson(own, other, returns, filled).effects)
    joined = brinson(own, other, returns, lacking, missing_group="g2")
    assert joined.effects["group"].values.tolist() == ["g0", "g1", "g2", "g3", "g4"]


# ---- trading -------------------------------------------------------------------------------------


def test_what_the_account_earns_beyond_its_holdings_is_trading() -> None:
    books = random_books(3)
    found = brinson(*books)
    cost = xr.DataArray(np.linspace(-0.001, 0.002, 24), {"date": books[0]["date"]}, ("date",))
    account = found.totals["portfolio_return"] + cost
    traded = add_trading(found, account)
    require_identity(traded)
    assert traded.effects["effect"].values.tolist()[-1] == "trading"
    np.testing.assert_allclose(
        traded.effects.sel(group="trading", effect="trading"), cost, rtol=0, atol=1e-16
    )
    total = float(abs(traded.effects.sel(group="trading")).sum())
    assert total == pytest.approx(float(abs(cost).sum()), abs=1e-15)
    assert float(abs(traded.effects.sel(effect="trading")).sum()) == pytest.approx(total, abs=1e-15)
    same = {"group": found.effects["group"], "effect": found.effects["effect"]}
    xr.testing.assert_equal(traded.effects.sel(same), found.effects)
    xr.testing.assert_equal(traded.totals["holdings_return"], found.totals["holdings_return"])
    row = traded.groups.sel(group="trading")
    assert float(abs(row["portfolio_weight"]).max()) == 0.0
    assert np.isnan(row["portfolio_return"].values).all()
    summed = traded.groups["portfolio_contribution"].sum("group")
    np.testing.assert_allclose(summed, account, rtol=0, atol=1e-15)
    xr.testing.assert_identical(found.effects, brinson(*books).effects)  # left as it was
    assert not {"trading"} & set(found.groups["group"].values)


def test_trading_links_like_any_other_effect() -> None:
    found = brinson(*random_books(3))
    traded = add_trading(found, found.totals["portfolio_return"] - 0.0005)
    own, other = traded.totals["portfolio_return"], traded.totals["benchmark_return"]
    linked = link_effects(traded.effects, portfolio_return=own, benchmark_return=other)
    expected = float((1.0 + own).prod() - (1.0 + other).prod())
    assert float(linked.effects.sum()) == pytest.approx(expected, abs=1e-12)
    assert float(linked.effects.sel(effect="trading").sum()) < -0.01
    geometric = link_geometric(traded.stages, benchmark_return=other)
    assert geometric.effects["effect"].values.tolist() == ["allocation", "selection", "trading"]
    relative = float((1.0 + own).prod() / (1.0 + other).prod())
    assert float((1.0 + geometric.effects).prod()) == pytest.approx(relative, abs=1e-12)
    before = link_geometric(found.stages, benchmark_return=other).effects
    np.testing.assert_allclose(geometric.effects[:2], before, rtol=0, atol=1e-14)


def test_account_returns_are_checked() -> None:
    found = brinson(*random_books(3, n_dates=7))
    account = found.totals["portfolio_return"]
    with pytest.raises(ShapeError, match=r"portfolio_return must be a DataArray over \('date',\)"):
        add_trading(found, account.values)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"got \('sample', 'date'\) at add_trading"):
        add_trading(found, account.expand_dims(sample=3))
    with pytest.raises(ShapeError, match="portfolio_return must have the dates"):
        add_trading(found, account.isel(date=slice(1, None)))
    with pytest.raises(
        SpecError, match=r"portfolio_return must be finite.*on 2021-03-03 at add_tr"
    ):
        add_trading(found, account.where(account["date"] != account["date"][2]))
    with pytest.raises(SpecError, match="trading must be added once"):
        add_trading(add_trading(found, account), account)


# ---- draws ---------------------------------------------------------------------------------------


def drawn_returns(returns: xr.DataArray, n_draws: int, dim: str) -> xr.DataArray:
    rng = np.random.default_rng(19)
    noise = rng.normal(0.0, 0.01, (n_draws, *returns.shape))
    return returns + xr.DataArray(noise, dims=(dim, *returns.dims))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_draws_are_attributed_one_by_one(method: Method, interaction: Interaction) -> None:
    own, other, returns, groups = random_books(6, short=0.1)
    own = own * 0.9
    own[2, :5] = 0.0
    sampled = drawn_returns(returns, 17, "sample")
    options: dict[str, Any] = {"method": method, "interaction": interaction, "unallocated": "cash"}
    found = brinson(own, other, sampled, groups, **options)
    assert found.effects.dims == ("sample", "date", "group", "effect")
    assert found.groups["portfolio_weight"].dims == ("date", "group")
    require_identity(found)
    for sample in range(17):
        alone = brinson(own, other, sampled.isel(sample=sample), groups, **options)
        one = {"sample": sample}
        np.testing.assert_allclose(found.effects.isel(one), alone.effects, rtol=0, atol=1e-15)
        for name in alone.totals:
            np.testing.assert_allclose(
                found.totals[name].isel(one), alone.totals[name], rtol=0, atol=1e-15
            )
        np.testing.assert_allclose(
            found.groups["portfolio_return"].isel(one), alone.groups["portfolio_return"], rtol=1e-9
        )


def test_draws_of_arviz_keep_their_labels_and_order_does_not_matter() -> None:
    own, other, returns, groups = random_books(2, n_dates=7)
    sampled = drawn_returns(returns, 6, "draw")
    chained = xr.concat([sampled.isel(draw=slice(3)), sampled.isel(draw=slice(3, 6))], "chain")
    chained = chained.assign_coords(chain=[0, 1], draw=[0, 1, 2])
    plain = brinson(own, other, sampled, groups)
    apart = brinson(own, other, chained.transpose("asset", "draw", "date", "chain"), groups)
    assert apart.effects.dims == ("draw", "chain", "date", "group", "effect")
    stacked = brinson(own, other, chained.stack(sample=("chain", "draw")), groups)
    assert stacked.effects.dims == ("sample", "date", "group", "effect")
    for chain in range(2):
        for draw in range(3):
            one = {"chain": chain, "draw": draw}
            expected = plain.effects.isel(draw=3 * chain + draw)
            np.testing.assert_allclose(apart.effects.sel(one), expected, rtol=0, atol=1e-15)
            np.testing.assert_allclose(stacked.effects.sel(one), expected, rtol=0, atol=1e-15)
    account = stacked.totals["portfolio_return"] - 0.001
    for kind in (stacked, add_trading(stacked, account)):
        require_identity(kind)
        own, other = kind.totals["portfolio_return"], kind.totals["benchmark_return"]
        linked = link_effects(kind.effects, portfolio_return=own, benchmark_return=other)
        assert linked.effects.dims == ("sample", "group", "effect")
        np.testing.assert_allclose(
            linked.effects.sum(["group", "effect"]), linked.active_return, rtol=0, atol=1e-12
        )
        geometric = link_geometric(kind.stages, benchmark_return=other)
        assert geometric.effects.dims == ("sample", "effect")
        relative = (1.0 + linked.portfolio_return) / (1.0 + linked.benchmark_return)
        np.testing.assert_allclose(1.0 + geometric.active_return, relative, rtol=1e-12)
        assert summarise_effects(linked.effects).sizes == kind.effects[0, 0].sizes


def test_trading_of_draws_needs_an_account_of_each() -> None:
    own, other, returns, groups = random_books(2, n_dates=7)
    found = brinson(own, other, drawn_returns(returns, 3, "sample"), groups)
    account = found.totals["portfolio_return"]
    with pytest.raises(ShapeError, match=r"over \('sample', 'date'\); got \('date',\)"):
        add_trading(found, account.isel(sample=0))
    traded = add_trading(found, account.T - 0.001)
    require_identity(traded)
    np.testing.assert_allclose(
        traded.effects.sel(group="trading", effect="trading"), -0.001, rtol=0, atol=1e-16
    )


def test_intervals_are_quantiles_and_have_their_share_of_draws() -> None:
    own, other, returns, groups = random_books(2, n_dates=7)
    found = brinson(own, other, drawn_returns(returns, 199, "sample"), groups)
    summary = summarise_effects(found.effects)
    assert dict(summary.sizes) == {"date": 7, "group": 5, "effect": 3}
    assert summary.attrs == {"level": 0.9, "n_draws": 199}
    assert summary["lower"].attrs["units"] == "decimal return"
    values = found.effects.values
    np.testing.assert_allclose(summary["mean"], values.mean(0), rtol=0, atol=1e-16)
    lower, upper = np.quantile(values, [0.05, 0.95], axis=0)
    np.testing.assert_allclose(summary["lower"], lower, rtol=0, atol=1e-16)
    np.testing.assert_allclose(summary["upper"], upper, rtol=0, atol=1e-16)
    inside = ((values >= lower) & (values <= upper)).mean(0)
    assert np.abs(inside - 0.9).max() <= 0.011
    half = summarise_effects(found.totals["active_return"], level=0.5)
    np.testing.assert_allclose(
        half["upper"], np.quantile(found.totals["active_return"], 0.75, axis=0), atol=1e-16
    )
    chained = xr.DataArray(
        values[:198].reshape(2, 99, *values.shape[1:]),
        dims=("chain", "draw", *summary["mean"].dims),
    )
    np.testing.assert_allclose(
        summarise_effects(chained)["lower"], np.quantile(values[:198], 0.05, axis=0), atol=1e-16
    )


def test_the_interval_of_an_effect_known_in_law_is_right() -> None:
    # One group of one date: the active return is 0.2 (r_X - r_Y), normal with sd 0.2 sqrt(2) 3%.
    rng = np.random.default_rng(23)
    values = rng.normal(0.01, 0.03, (40009, 1, 2))
    returns = xr.DataArray(values, {"date": ONE, "asset": ["X", "Y"]}, ("sample", "date", "asset"))
    own, other = (frame([[w, 1.0 - w]], ONE, ["X", "Y"]) for w in (0.7, 0.5))
    found = brinson(own, other, returns, {"X": "a", "Y": "a"})
    summary = summarise_effects(found.effects.sel(effect="selection", group="a", date=ONE[0]))
    spread = 0.2 * np.sqrt(2.0) * 0.03
    error = spread / np.sqrt(40009.0)  # of the mean; of a 5 percent point 2.11 times as much
    assert float(summary["mean"]) == pytest.approx(0.0, abs=4 * error)
    assert float(summary["lower"]) == pytest.approx(-1.6449 * spread, abs=8.5 * error)
    assert float(summary["upper"]) == pytest.approx(1.6449 * spread, abs=8.5 * error)


def test_summaries_are_checked() -> None:
    found = brinson(*random_books(2, n_dates=7))
    with pytest.raises(SpecError, match="effects must have at least 2 draws; got 1 over"):
        summarise_effects(found.effects)
    with pytest.raises(SpecError, match="got 1 over"):
        summarise_effects(found.effects.expand_dims(sample=1))
    with pytest.raises(SpecError, match=r"level must be in \(0, 1\); got 1.0 at summarise_effects"):
        summarise_effects(found.effects.expand_dims(sample=2), level=1.0)
