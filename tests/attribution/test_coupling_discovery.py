"""Planted couplings are found at a false discovery rate of 10 percent, shuffled labels say nothing.

Panels have 400 dates, 47 assets and 7 exposures (21 pairs) with correlations up to 0.5, common
factors, noise, and z1 x z3 with 15 percent of the standard deviation of a return. The returns of
58 validation dates are the evidence.
"""

from functools import cache

import numpy as np
import pytest

from nfi_pyro.attribution.couplings.coupling_mining import mine_couplings
from nfi_pyro.attribution.results.coupling import MinedCouplings
from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.svi import SVIFit
from tests.attribution.coupling_laws import fit_plain, plant, simulate

PAIR = ("z1", "z3")
SEEDS = range(20)


@cache
def planted(seed: int) -> tuple[Panel, SVIFit]:
    panel = plant(simulate(seed, n_dates=400, n_assets=47, n_factors=7), PAIR, 0.15 * 0.02)
    return panel, fit_plain("linear_factor", panel)


def mine(seed: int) -> MinedCouplings:
    panel, fit = planted(seed)
    assert fit.split.test is not None
    return mine_couplings(
        fit, panel, confirmation=(fit.split.test.first, fit.split.test.last), seed=seed
    )


def shuffle(panel: Panel, seed: int) -> Panel:
    """Return the panel with the labels of each date permuted over the assets that have one."""
    rng, shuffled = np.random.default_rng(seed), panel.copy(deep=True)
    for row in shuffled["forward_return"].values:
        seen = np.flatnonzero(np.isfinite(row))
        row[seen] = row[rng.permutation(seen)]
    return check_panel(shuffled)


@pytest.mark.slow
def test_the_planted_pair_is_found_and_few_others() -> None:
    """Of 20 panels: found in 19, the others' mean share of the discoveries is .083."""
    results = [mine(seed) for seed in SEEDS]
    assert sum(PAIR in found.discovered for found in results) >= 17
    wrong = [
        sum(pair != PAIR for pair in found.discovered) / max(1, len(found.discovered))
        for found in results
    ]
    # An expectation of at most 0.1; its standard error over 20 panels is at most 0.07.
    assert np.mean(wrong) < 0.2
    rows = [found.table.sel(pair="z1 x z3") for found in results]
    # The product's standard deviation is near 1: the slope is the planted size, less or more.
    slopes = np.array([float(row["slope"]) for row in rows])
    assert slopes.mean() == pytest.approx(0.003, rel=0.15)
    assert sum(float(row["ic_uplift_lower"]) > 0 for row in rows) >= 17


@pytest.mark.slow
def test_shuffled_labels_say_something_in_one_panel_in_ten() -> None:
    """At a level of 0.1 something is found in 2 of 20 on average; in over 4 with probability .04.

    Found in 2.
    """
    found = 0
    for seed in SEEDS:
        panel, fit = planted(seed)
        found += bool(mine_couplings(fit, shuffle(panel, seed), seed=seed).discovered)
    assert found <= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["neural_factor", "mixture_pricing"])
def test_a_network_puts_the_planted_pair_first_and_the_returns_agree(name: str) -> None:
    """Three times the size: the law's score, Friedman's share and the returns say the same."""
    panel = plant(simulate(5, n_dates=600, n_assets=61), PAIR, 0.45 * 0.02)
    options = {"n_epochs": 20, "block_size": 8, "hidden_size": 16, "n_components": 1}
    fit = fit_plain(name, panel, **options)
    assert fit.split.test is not None
    span = (fit.split.test.first, fit.split.test.last)
    found = mine_couplings(fit, panel, confirmation=span, n_candidates=3)
    assert found.discovered[0] == PAIR
    table = found.table
    assert str(table["pair"].values[np.argmax(table["score"].values)]) == "z1 x z3"
    first = table.isel(pair=0)
    assert float(first["score"]) > 2.0 * np.sort(table["score"])[-2]
    assert float(first["signed_score"]) == pytest.approx(0.009, rel=0.5)
    assert float(first["slope"]) == pytest.approx(0.009, rel=0.25)
    assert float(first["h_squared"]) > 0.5
    assert float(table["h_squared"].isel(pair=slice(1, None)).max()) < 0.3
    assert float(first["ic_uplift_lower"]) > 0.2
