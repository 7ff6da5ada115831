"""Linking: Bacon's published example, the formulas one by one, limits, draws, bad input."""

from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nfi_pyro.attribution.results.brinson import LinkedEffects
from nfi_pyro.attribution.returns.brinson import brinson
from nfi_pyro.attribution.returns.linking import Linker, link_effects, link_geometric
from nfi_pyro.errors import ShapeError, SpecError
from tests.attribution.brinson_maker import MARKETS, bacon, days, random_books

LINKERS = get_args(Linker)

# Bacon (2008), tables 8.2 to 8.5: Brinson and Fachler, interaction in selection, four quarters.
# Also in the tests of R's PortfolioAttribution (test_linking.R). Percent, markets then total.
ALLOCATION = {
    "carino": [1.65, -0.60, 0.15, 1.20],
    "menchero": [1.56, -0.78, 0.14, 0.92],
    "grap": [1.67, -0.55, 0.11, 1.24],
    "frongello": [1.67, -0.55, 0.11, 1.24],
}
SELECTION = {
    "carino": [8.04, 0.18, 3.85, 12.07],
    "menchero": [8.38, 0.05, 3.91, 12.34],
    "grap": [7.85, 0.16, 4.02, 12.03],
    "frongello": [7.85, 0.16, 4.02, 12.03],
}
# Linked totals of each quarter, allocation and selection.
BY_QUARTER = {
    "carino": ([-1.09, -0.51, 3.73, -0.94], [2.80, 1.72, 4.26, 3.29]),
    "menchero": ([-1.19, -0.49, 3.60, -0.99], [3.07, 1.68, 4.11, 3.48]),
    "grap": ([-1.02, -0.48, 3.73, -0.99], [2.64, 1.64, 4.27, 3.48]),
    "frongello": ([-1.20, -0.49, 3.87, -0.95], [3.10, 1.70, 3.58, 3.65]),
}


def series(values: Any, dates: np.ndarray | None = None) -> xr.DataArray:
    array = np.asarray(values, dtype=float)
    return xr.DataArray(array, {"date": days(len(array)) if dates is None else dates}, ("date",))


def random_effects(
    seed: int, n_dates: int = 24, n_factors: int = 5, scale: float = 0.02
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Return effects (date, factor), portfolio and benchmark returns."""
    rng = np.random.default_rng(seed)
    benchmark = series(rng.normal(0.003, 2 * scale, n_dates))
    effects = xr.DataArray(
        rng.normal(0.0, scale, (n_dates, n_factors)),
        {"date": benchmark["date"], "factor": [f"f{k}" for k in range(n_factors)]},
        ("date", "factor"),
    )
    return effects, benchmark + effects.sum("factor"), benchmark


def link(
    effects: xr.DataArray, own: xr.DataArray, other: xr.DataArray, method: Linker
) -> LinkedEffects:
    return link_effects(effects, portfolio_return=own, benchmark_return=other, method=method)


def compound(returns: xr.DataArray) -> float:
    return float(np.prod(1.0 + returns.to_numpy()) - 1.0)


def by_the_book(e: np.ndarray, p: np.ndarray, b: np.ndarray, method: str) -> np.ndarray:
    """Return linked effects (date, factor) by the formulas as they are printed."""
    n, d = len(p), p - b
    total_p, total_b = np.prod(1 + p) - 1, np.prod(1 + b) - 1
    if method == "carino":
        k_t = (np.log(1 + p) - np.log(1 + b)) / d
        k = (np.log(1 + total_p) - np.log(1 + total_b)) / (total_p - total_b)
        return e * (k_t / k)[:, None]
    if method == "menchero":
        m = (total_p - total_b) / n / ((1 + total_p) ** (1 / n) - (1 + total_b) ** (1 / n))
        a_t = (total_p - total_b - m * d.sum()) / (d**2).sum() * d
        return e * (m + a_t)[:, None]
    linked = []
    for t in range(n):
        if method == "grap":
            linked.append(e[t] * np.prod(1 + p[:t]) * np.prod(1 + b[t + 1 :]))
        else:
            linked.append(e[t] * np.prod(1 + p[:t]) + b[t] * sum(linked, np.zeros(e.shape[1])))
    return np.array(linked)


# ---- golden and closed forms ---------------------------------------------------------------------


@pytest.mark.parametrize("method", LINKERS)
def test_linkers_agree_with_bacons_tables(method: Linker) -> None:
    found = brinson(*bacon(), interaction="selection")
    totals = found.totals
    linked = link(found.effects, totals["portfolio_return"], totals["benchmark_return"], method)
    for name, table in (("allocation", ALLOCATION), ("selection", SELECTION)):
        effect = linked.effects.sel(effect=name)
        values = [*effect.sel(group=MARKETS).values, float(effect.sum())]
        np.testing.assert_allclose(100 * np.array(values), table[method], atol=0.0101)
        quarters = 100 * linked.by_date.sel(effect=name).sum("group")
        printed = BY_QUARTER[method][name == "selection"]
        np.testing.assert_allclose(quarters, printed, atol=0.0101)
    assert float(linked.active_return) == pytest.approx(0.1327, abs=5e-5)


def test_geometric_effects_agree_with_bacons_table() -> None:
    # Table 8.6: allocation and selection of each quarter, of the year, and the total 14.64.
    found = brinson(*bacon(), interaction="selection")
    linked = link_geometric(found.stages, benchmark_return=found.totals["benchmark_return"])
    printed = [[-1.13, 2.95], [-0.52, 1.79], [4.00, 4.40], [-0.98, 3.47]]
    np.testing.assert_allclose(100 * linked.by_date, printed, atol=0.0051)
    np.testing.assert_allclose(100 * linked.effects, [1.29, 13.19], atol=0.0051)
    assert linked.effects["effect"].values.tolist() == ["allocation", "selection"]
    assert float(linked.active_return) == pytest.approx(0.1464, abs=5e-5)


def test_two_dates_by_hand() -> None:
    # r_p = (44%, 0), r_b = (0, 21%): 1 + P = 1.44 = 1.2^2, 1 + B = 1.21 = 1.1^2, P - B = 0.23.
    # d = (0.44, -0.21), sum d = 0.23, sum d^2 = 0.1936 + 0.0441 = 0.2377.
    # Menchero: M = (0.23 / 2) / (1.2 - 1.1) = 1.15; a_t = (0.23 - 1.15 * 0.23) / 0.2377 d_t
    # GRAP: 1.21 on the first date, 1.44 on the second: 0.44 * 1.21 - 0.21 * 1.44 = 0.23.
    # Frongello: F_1 = 0.44, F_2 = -0.21 * 1.44 + 0.21 * 0.44 = -0.21.
    # Carino: k_1 = ln 1.44 / 0.44, k_2 = ln 1.21 / 0.21, k = (ln 1.44 - ln 1.21) / 0.23.
    own, other = series([0.44, 0.0]), series([0.0, 0.21])
    d = np.array([0.44, -0.21])
    k = np.log(1.44 / 1.21) / 0.23
    expected = {
        "carino": np.array([np.log(1.44), -np.log(1.21)]) / k,
        "menchero": (1.15 - 0.15 * 0.23 / 0.2377 * d) * d,
        "grap": np.array([0.5324, -0.3024]),
        "frongello": np.array([0.44, -0.21]),
    }
    for method in LINKERS:
        linked = link(own - other, own, other, method)
        np.testing.assert_allclose(linked.by_date, expected[method], rtol=0, atol=1e-15)
        assert float(linked.effects) == pytest.approx(0.23, abs=1e-15)
        assert linked.n_dates == 2


@pytest.mark.parametrize("method", LINKERS)
def test_linkers_are_their_formulas(method: Linker) -> None:
    effects, own, other = random_effects(3)
    linked = link(effects, own, other, method)
    expected = by_the_book(effects.values, own.values, other.values, method)
    np.testing.assert_allclose(linked.by_date, expected, rtol=0, atol=1e-13)
    assert linked.by_date.dims == ("date", "factor")
    assert linked.method == method


# ---- invariants ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LINKERS)
def test_linked_effects_sum_to_the_difference_of_compound_returns(method: Linker) -> None:
    for seed in range(11):
        effects, own, other = random_effects(seed)
        linked = link(effects, own, other, method)
        expected = compound(own) - compound(other)
        assert float(linked.effects.sum()) == pytest.approx(expected, abs=1e-12)
        assert float(linked.active_return) == pytest.approx(expected, abs=1e-12)
        assert float(linked.portfolio_return) == pytest.approx(compound(own), abs=1e-12)
        assert float(linked.benchmark_return) == pytest.approx(compound(other), abs=1e-12)
        np.testing.assert_allclose(linked.by_date.sum("date"), linked.effects, rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", LINKERS)
def test_ten_years_of_days_add_up(method: Linker) -> None:
    effects, own, other = random_effects(7, n_dates=2503, n_factors=3, scale=0.005)
    linked = link(effects, own, other, method)
    expected = compound(own) - compound(other)
    assert abs(expected) > 0.1
    assert float(linked.effects.sum()) == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("method", LINKERS)
def test_brinson_effects_with_weights_of_any_sign_link(method: Linker) -> None:
    found = brinson(*random_books(5, short=0.2))
    totals = found.totals
    own, other = totals["portfolio_return"], totals["benchmark_return"]
    linked = link(found.effects, own, other, method)
    assert linked.effects.dims == ("group", "effect")
    assert float(linked.effects.sum()) == pytest.approx(compound(own) - compound(other), abs=1e-10)


def test_frongello_is_what_each_date_adds_and_has_the_totals_of_grap() -> None:
    effects, own, other = random_effects(5)
    whole = link(effects, own, other, "frongello")
    grap = link(effects, own, other, "grap")
    np.testing.assert_allclose(whole.effects, grap.effects, rtol=0, atol=1e-14)
    assert float(abs(whole.by_date - grap.by_date).max()) > 1e-4
    first = {"date": slice(None, 11)}
    part = link(effects.isel(first), own.isel(first), other.isel(first), "frongello")
    xr.testing.assert_equal(part.by_date, whole.by_date.isel(first))


@pytest.mark.parametrize("method", LINKERS)
def test_one_date_is_left_as_it_is(method: Linker) -> None:
    effects, own, other = (array.isel(date=[3]) for array in random_effects(1))
    linked = link(effects, own, other, method)
    np.testing.assert_allclose(linked.effects, effects.isel(date=0), rtol=1e-12)


@pytest.mark.parametrize("method", LINKERS)
def test_a_factor_without_effect_gets_none_and_scale_carries(method: Linker) -> None:
    effects, own, other = random_effects(2)
    twice = xr.concat([effects, 0.0 * effects.isel(factor=[0])], "factor")
    linked = link(twice, own, other, method)
    assert float(abs(linked.effects.isel(factor=-1))) == 0.0
    np.testing.assert_allclose(
        linked.effects.isel(factor=slice(5)), link(effects, own, other, method).effects, atol=1e-15
    )


# ---- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LINKERS)
@pytest.mark.parametrize("gap", [0.0, 1e-17, 1e-13, 1e-9, 1e-6])
def test_equal_returns_are_a_limit(method: Linker, gap: float) -> None:
    # Two effects that cancel but for the gap, on every date: nothing may blow up.
    other = series([0.02, -0.01, 0.03, 0.005, -0.04])
    own = other + gap
    effects = xr.concat([0.01 + gap + 0.0 * other, -0.01 + 0.0 * other], "factor").T
    linked = link(effects, own, other, method)
    assert float(linked.effects.sum()) == pytest.approx(
        compound(own) - compound(other), rel=1e-6, abs=1e-15
    )
    wealth = 1.0 + compound(other)
    after = wealth / (1.0 + other)
    factor = {"carino": after, "grap": after}.get(method)
    if method == "menchero":
        # a_t depends on the way to 0: on this one, d equal on all dates, M + a_t is (P - B) / sum d
        factor = after.mean() + 0.0 * other if gap > 0.0 else wealth**0.8 + 0.0 * other
    if factor is not None:
        rtol = 0.02 if gap == 1e-17 else 1e-5 + 100 * gap  # below rounding, d is not equal
        np.testing.assert_allclose(linked.by_date, effects * factor, rtol=rtol, atol=gap)


@pytest.mark.parametrize("method", LINKERS)
def test_compound_returns_may_be_equal_where_those_of_dates_are_not(method: Linker) -> None:
    own, other = series([0.1, 0.0, 0.05]), series([0.0, 0.1, 0.05])
    effects = (own - other).expand_dims(factor=["only"], axis=1)
    linked = link(effects, own, other, method)
    assert float(linked.effects.sum()) == pytest.approx(0.0, abs=1e-15)
    assert float(linked.active_return) == pytest.approx(0.0, abs=1e-15)
    assert np.isfinite(linked.by_date.values).all()
    assert float(abs(linked.by_date).max()) > 0.05


# ---- geometric -----------------------------------------------------------------------------------


def test_geometric_effects_multiply_to_relative_wealth() -> None:
    found = brinson(*random_books(11, short=0.1), method="bhb")
    totals = found.totals
    own, other = totals["portfolio_return"], totals["benchmark_return"]
    linked = link_geometric(found.stages, benchmark_return=other)
    relative = (1.0 + compound(own)) / (1.0 + compound(other))
    assert float((1.0 + linked.effects).prod()) == pytest.approx(relative, abs=1e-12)
    assert float(1.0 + linked.active_return) == pytest.approx(relative, abs=1e-12)
    assert float(linked.portfolio_return) == pytest.approx(compound(own), abs=1e-12)
    assert float(linked.benchmark_return) == pytest.approx(compound(other), abs=1e-12)
    np.testing.assert_allclose(
        (1.0 + linked.by_date).prod("effect"), (1.0 + own) / (1.0 + other), rtol=0, atol=1e-13
    )
    np.testing.assert_allclose(
        (1.0 + linked.by_date).prod("date") - 1.0, linked.effects, rtol=0, atol=1e-12
    )
    semi = totals["semi_notional_return"]
    allocation = (1.0 + semi) / (1.0 + other) - 1.0
    np.testing.assert_allclose(
        linked.by_date.sel(effect="allocation"), allocation, rtol=0, atol=1e-14
    )


# ---- draws ---------------------------------------------------------------------------------------


def with_draws() -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Return effects (date, chain, factor, draw) and returns with and without draws."""
    parts = [[random_effects(10 * chain + draw) for draw in range(3)] for chain in range(2)]
    effects, own, other = (
        xr.concat([xr.concat([d[k] for d in chain], "draw") for chain in parts], "chain")
        for k in range(3)
    )
    return effects.transpose("date", "chain", "factor", "draw"), own, other


@pytest.mark.parametrize("method", LINKERS)
def test_draws_are_linked_one_by_one(method: Linker) -> None:
    effects, own, other = with_draws()
    linked = link(effects, own, other, method)
    assert linked.effects.dims == ("chain", "draw", "factor")
    assert linked.active_return.dims == ("chain", "draw")
    for chain in range(2):
        for draw in range(3):
            one = {"chain": chain, "draw": draw}
            alone = link(effects.isel(one), own.isel(one), other.isel(one), method)
            np.testing.assert_allclose(linked.by_date.isel(one), alone.by_date, rtol=1e-14)
            np.testing.assert_allclose(linked.effects.isel(one), alone.effects, rtol=1e-12)
            np.testing.assert_allclose(
                linked.active_return.isel(one), alone.active_return, rtol=1e-14
            )


def test_effects_may_be_uncertain_where_returns_are_not() -> None:
    effects, own, other = random_effects(4)
    shift = xr.DataArray([0.0, 0.01, -0.02], dims="sample") * xr.DataArray(
        [1.0, -1.0, 0.0, 0.0, 0.0], dims="factor"
    )
    linked = link(effects + shift, own, other, "carino")
    assert linked.effects.dims == ("sample", "factor")
    np.testing.assert_allclose(
        linked.effects.sum("factor"), compound(own) - compound(other), rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(
        linked.effects.isel(sample=0), link(effects, own, other, "carino").effects, rtol=1e-13
    )


def test_geometric_effects_of_draws_are_chained_one_by_one() -> None:
    rng = np.random.default_rng(17)
    index = pd.MultiIndex.from_product([[0, 1], [0, 1, 2]], names=["chain", "draw"])
    stages = xr.DataArray(
        rng.normal(0.01, 0.03, (2, 6, 7)),
        {"effect": ["allocation", "selection"], "date": days(7)},
        ("effect", "sample", "date"),
    ).assign_coords(xr.Coordinates.from_pandas_multiindex(index, "sample"))
    other = stages.isel(effect=0, drop=True) - 0.01
    linked = link_geometric(stages, benchmark_return=other)
    assert linked.effects.dims == ("sample", "effect")
    assert linked.effects.sel(chain=1, draw=2).sizes == {"effect": 2}
    for sample in range(6):
        alone = link_geometric(
            stages.isel(sample=sample), benchmark_return=other.isel(sample=sample)
        )
        np.testing.assert_allclose(linked.effects[sample], alone.effects, rtol=1e-13)


# ---- bad input -----------------------------------------------------------------------------------


def test_what_does_not_add_up_is_refused() -> None:
    effects, own, other = random_effects(1, n_dates=7)
    wrong = effects.copy()
    wrong[3, 0] += 1e-6
    with pytest.raises(
        SpecError, match=r"sum to portfolio minus benchmark.*1e-06 on 2021-03-04 at link_effects"
    ):
        link(wrong, own, other, "grap")
    link(effects + 1e-12, own, other, "grap")  # rounding is none
    with pytest.raises(SpecError, match="got a gap of up to"):
        link(effects, other, own, "grap")  # the two exchanged


@pytest.mark.parametrize("value", [-1.0, -1.5])
def test_a_total_loss_is_refused(value: float) -> None:
    effects, own, other = random_effects(1, n_dates=7)
    lost = own.copy()
    lost[4] = value
    effects[4, 0] += value - own[4]
    with pytest.raises(SpecError, match=rf"portfolio_return must be above -1; got {value:g} on"):
        link(effects, lost, other, "carino")
    with pytest.raises(SpecError, match=r"benchmark_return must be above -1.*2021-03-05"):
        link(-effects, other, lost, "frongello")
    stages = xr.concat([other, lost], pd.Index(["allocation", "selection"], name="effect"))
    with pytest.raises(
        SpecError, match=r"stages must be above -1.*on 2021-03-05 at link_geometric"
    ):
        link_geometric(stages, benchmark_return=other)
    with pytest.raises(SpecError, match="benchmark_return must be above -1"):
        link_geometric(stages.clip(-0.5), benchmark_return=lost)


def test_values_that_are_not_finite_are_refused() -> None:
    effects, own, other = random_effects(1, n_dates=7)
    gap = effects["date"] != effects["date"][2]
    for name, parts in (
        ("effects", (effects.where(gap), own, other)),
        ("portfolio_return", (effects, own.where(gap), other)),
        ("benchmark_return", (effects, own, other.where(gap))),
    ):
        with pytest.raises(SpecError, match=f"{name} must be finite.*2021-03-03 at link_effects"):
            link(*parts, method="carino")
    with pytest.raises(SpecError, match=r"effects must be finite.*2021-03-01, .* and 2 more"):
        link(effects * np.inf, own, other, "carino")


def test_shapes_labels_and_options_are_checked() -> None:
    effects, own, other = random_effects(1, n_dates=7)
    with pytest.raises(SpecError, match=r"method must be one of carino, menchero.*got 'geometric'"):
        link(effects, own, other, "geometric")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="effects must be a DataArray with a dimension date"):
        link(effects.sum("date"), own, other, "grap")
    with pytest.raises(ShapeError, match=r"effects must be a DataArray.*got ndarray"):
        link(effects.values, own, other, "grap")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="effects must be a DataArray"):
        link(effects.isel(date=[]), own.isel(date=[]), other.isel(date=[]), "grap")
    with pytest.raises(SpecError, match="dates must increase; got effects in another order"):
        link(effects[::-1], own[::-1], other[::-1], "grap")
    with pytest.raises(ShapeError, match="portfolio_return must have the dates"):
        link(effects, own.isel(date=slice(1, None)), other, "grap")
    with pytest.raises(ShapeError, match="benchmark_return must be a DataArray over date; got nd"):
        link(effects, own, other.values, "grap")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="portfolio_return must be over date and draws of the eff"):
        link(effects, own.expand_dims(sample=3), other, "grap")
    with pytest.raises(ShapeError, match="stages must have the dimensions date and effect; got"):
        link_geometric(effects, benchmark_return=other)
    with pytest.raises(ShapeError, match="benchmark_return must have the dates"):
        link_geometric(
            effects.rename(factor="effect"), benchmark_return=other.isel(date=slice(1, None))
        )
