"""Ranks of truths among draws: exact intervals, an exact posterior, guides made wrong."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy import stats
from torch.distributions import MultivariateNormal

from nfi_pyro.data.panel import Panel, check_panel
from nfi_pyro.data.simulate import SimulationSpec, simulate_panel
from nfi_pyro.data.training.windows import Outcome
from nfi_pyro.diagnostics import judge_ranks, simulation_based_calibration
from nfi_pyro.diagnostics.simulation import simulate_outcome
from nfi_pyro.distributions import FactorMixture
from nfi_pyro.distributions.mixture_posterior import factor_posterior
from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.posterior.blocks import open_pass
from nfi_pyro.posterior.factor_blocks import open_factor_pass
from nfi_pyro.svi import SVIConfig, SVIFit, fit_svi

FACTORS, EMPTY = 3, 18  # the second of the panel's 20 dates of history is the first of a pass


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Return a panel with gaps and a date without an observed return."""
    spec = SimulationSpec(
        n_dates=41, n_assets=13, n_features=5, n_factors=2, missing_share=0.08, unobserved_share=0.1
    )
    panel = simulate_panel(spec, seed=2)[0].copy(deep=True)
    panel["forward_return"].values[EMPTY + 1] = np.nan
    return check_panel(panel)


@pytest.fixture(scope="module")
def fit(panel: Panel) -> SVIFit:
    spec = FactorVAESpec(
        n_features=5,
        lags=2,
        projection_size=4,
        hidden_size=4,
        n_factors=FACTORS,
        n_portfolios=5,
        alpha_hidden_size=4,
        prior_hidden_size=4,
    )
    config = SVIConfig(n_epochs=1, block_size=7, progress=False, device="cpu")
    fit = fit_svi(FactorVAE(spec), panel, config=config, seed=3)
    with torch.no_grad():
        fit.model.beta.weight.mul_(6.0)
    return fit


def scaled(law: FactorMixture, outcome: Outcome, size: float) -> MultivariateNormal:
    exact = factor_posterior(law, outcome.forward_return, outcome.observed)
    return MultivariateNormal(exact.loc, scale_tril=size * exact.scale_tril)


def halved(law: FactorMixture, outcome: Outcome) -> MultivariateNormal:
    """Return the exact posterior at half its width: wrong on purpose."""
    return scaled(law, outcome, 0.5)


def doubled(law: FactorMixture, outcome: Outcome) -> MultivariateNormal:
    return scaled(law, outcome, 2.0)


def ranks_of(
    scale: float, shift: float = 0.0, *, n_draws: int = 99, n_cells: int = 400
) -> xr.DataArray:
    """Return ranks of standard normal truths among normal draws, three quantities of two kinds."""
    rng = np.random.default_rng(5)
    truth = rng.standard_normal((3, 1, n_cells))
    draws = shift + scale * rng.standard_normal((n_draws, *truth.shape))
    return xr.DataArray(
        (draws < truth).sum(0).astype(float),
        {
            "quantity": ["z0", "z1", "book"],
            "kind": ("quantity", ["factor", "factor", "book"]),
            "date": pd.bdate_range("2021-01-01", periods=n_cells),
        },
        ("quantity", "repeat", "date"),
    )


# ---- judging ranks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_draws", "level", "expected"),
    [(99, 0.9, 0.9), (99, 0.8, 0.8), (19, 0.9, 0.9), (19, 0.85, 0.8), (99, 0.905, 0.9)],
)
def test_uniform_ranks_cover_what_is_expected_exactly(
    n_draws: int, level: float, expected: float
) -> None:
    every = np.tile(np.arange(n_draws + 1.0), 5).reshape(1, 5, n_draws + 1)
    dims = ("quantity", "repeat", "date")
    found = judge_ranks(xr.DataArray(every, {"quantity": ["z"]}, dims), n_draws, level=level)
    assert found.expected == pytest.approx(expected, abs=1e-12)
    assert float(found.quantities["coverage"][0]) == pytest.approx(expected, abs=1e-12)
    assert float(found.quantities["mean_rank"][0]) == pytest.approx(0.5, abs=1e-12)
    assert float(found.quantities["p_value"][0]) == pytest.approx(1.0, abs=1e-9)
    assert float(found.quantities["distance"][0]) == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(found.histogram, 1.0, atol=1e-12)
    assert found.kinds["kind"].values.tolist() == ["quantity"]
    assert found.verdict.grade == "good"


def test_intervals_are_those_of_the_binomial_and_of_clusters() -> None:
    ranks = ranks_of(1.0)
    ranks[0] = 50.0  # always inside
    found = judge_ranks(ranks, 99)
    own = found.quantities.sel(quantity="z0")
    assert float(own["lower"]) == pytest.approx(0.025 ** (1 / 400), abs=1e-9)
    assert float(own["upper"]) == 1.0
    book = found.quantities.sel(quantity="book")
    share = float(book["coverage"])
    n = int(book["n_cells"])
    assert float(book["lower"]) == pytest.approx(
        stats.beta.ppf(0.025, share * n, n - share * n + 1), abs=1e-9
    )
    one = found.kinds.sel(kind="book")  # one quantity: clusters of one
    assert float(one["standard_error"]) == pytest.approx(math.sqrt(share * (1 - share) / (n - 1)))
    two = found.kinds.sel(kind="factor")
    inside = ((ranks[:2] >= 5) & (ranks[:2] < 95)).values.reshape(2, -1).mean(0)
    assert float(two["coverage"]) == pytest.approx(inside.mean())
    assert float(two["standard_error"]) == pytest.approx(inside.std(ddof=1) / math.sqrt(n))


def test_copies_of_a_quantity_add_no_certainty() -> None:
    one = ranks_of(1.0)[:1]
    many = xr.concat([one.assign_coords(quantity=[f"z{k}"]) for k in range(20)], "quantity")
    alone, together = (judge_ranks(ranks, 99).kinds for ranks in (one, many))
    np.testing.assert_allclose(together["standard_error"], alone["standard_error"], rtol=1e-12)
    assert float(together["p_value"][0]) == pytest.approx(min(1.0, 20 * float(alone["p_value"][0])))


def test_ranks_that_are_not_there_do_not_count() -> None:
    ranks = ranks_of(1.0)
    ranks[1, 0, ::2] = np.nan
    ranks[2] = np.nan
    found = judge_ranks(ranks, 99)
    assert found.quantities["n_cells"].values.tolist() == [400, 200, 0]
    assert np.isnan(found.kinds["coverage"].sel(kind="book"))
    assert found.verdict.grade == "good"


@pytest.mark.parametrize(
    ("scale", "shift", "n_cells", "grade", "words"),
    [
        (1.0, 0.0, 400, "good", "no sign of a wrong posterior"),
        (0.5, 0.0, 400, "bad", "too narrow: weigh draws by importance"),
        (2.0, 0.0, 400, "bad", "too wide"),
        (0.92, 0.0, 4000, "doubtful", "a little too narrow"),
        (1.0, 0.12, 4000, "doubtful", "are not uniform"),
        (1.6, 1.2, 400, "bad", "are not uniform"),
        (0.5, 0.0, 49, "unknown", "Raise n_repeats"),
    ],
)
def test_verdicts(scale: float, shift: float, n_cells: int, grade: str, words: str) -> None:
    found = judge_ranks(ranks_of(scale, shift, n_cells=n_cells), 99)
    assert found.verdict.grade == grade, found.verdict
    assert words in found.verdict.text
    if shift:
        assert bool((found.quantities["mean_rank"] < 0.5).all())


def test_an_encoder_is_told_to_step_aside() -> None:
    text = judge_ranks(ranks_of(0.5), 99, guide="encoder").verdict.text
    assert "use the model's own posterior" in text


def test_wrong_ranks_are_refused() -> None:
    ranks = ranks_of(1.0)
    with pytest.raises(ShapeError, match="dimensions quantity, repeat and date"):
        judge_ranks(ranks[:, 0], 99)
    with pytest.raises(SpecError, match="whole numbers from 0 to 50"):
        judge_ranks(ranks, 50)
    with pytest.raises(SpecError, match=r"level must be in \(0, 1\); got 1\.0"):
        judge_ranks(ranks, 99, level=1.0)
    with pytest.raises(SpecError, match=r"level must leave a central rank of 100; got 0\.001"):
        judge_ranks(ranks, 99, level=0.001)


# ---- simulating ----------------------------------------------------------------------------------


def test_simulated_returns_have_the_laws_moments(fit: SVIFit, panel: Panel) -> None:
    block = next(open_factor_pass(fit, panel, "posterior", None)[1])
    law, observed = block.law, block.outcome.observed
    generator = torch.Generator().manual_seed(0)
    found = [simulate_outcome(law, observed, generator) for _ in range(2_000)]
    z = torch.stack([one for one, _ in found])
    value = torch.stack([outcome.forward_return for _, outcome in found])
    assert (value[:, ~observed] == 0.0).all()
    standard = (z - law.factor_loc) / law.factor_scale
    assert float(standard.mean(0).abs().max()) * math.sqrt(2_000) < 4.5
    own = (value - law.loc[..., 0] - torch.einsum("dak,sdk->sda", law.beta, z)) / law.scale[..., 0]
    own = own[:, observed]
    assert float(own.mean(0).abs().max()) * math.sqrt(2_000) < 4.5
    assert float(own.square().mean()) == pytest.approx(1.0, abs=4.5 * math.sqrt(2 / own.numel()))


def test_the_exact_posterior_covers_what_it_says(fit: SVIFit, panel: Panel) -> None:
    found = simulation_based_calibration(fit, panel, n_repeats=12, seed=4)
    assert found.verdict.grade == "good", found.verdict
    assert found.kinds["kind"].values.tolist() == ["factor", "asset", "book"]
    off = (found.kinds["coverage"] - 0.9) / found.kinds["standard_error"]
    assert float(np.abs(off).max()) < 4.0
    # Ranks of another seed differ, those of the same seed do not.
    again, other = (
        simulation_based_calibration(fit, panel, n_repeats=1, seed=seed) for seed in (4, 5)
    )
    assert again.ranks.equals(simulation_based_calibration(fit, panel, n_repeats=1, seed=4).ranks)
    assert not other.ranks.equals(again.ranks)


def test_ranks_are_there_where_there_is_something_to_rank(fit: SVIFit, panel: Panel) -> None:
    found = simulation_based_calibration(fit, panel, n_repeats=2)
    visit = open_pass(fit, panel, None)
    assert found.ranks.dims == ("quantity", "repeat", "date")
    assert found.ranks["date"].values.tolist() == visit.dates.tolist()
    missing = found.ranks.isel(repeat=0).isnull()
    assert bool(missing.isel(date=EMPTY).all())
    entered = visit.windows.entered[visit.span].numpy()
    observed = visit.windows.observed[visit.span].numpy().any(1)
    for name in found.ranks["quantity"].values:
        want = observed.copy()
        if name.startswith("asset "):
            place = visit.windows.assets.tolist().index(name.removeprefix("asset "))
            want &= entered[:, place]
        np.testing.assert_array_equal(~missing.sel(quantity=name), want)
    assert int((found.ranks["kind"] == "asset").sum()) == 10


def test_a_guide_of_half_the_width_is_bad(fit: SVIFit, panel: Panel) -> None:
    found = simulation_based_calibration(fit, panel, guide=halved, n_repeats=8)
    assert found.guide == "halved"
    assert found.verdict.grade == "bad"
    assert "too narrow" in found.verdict.text
    want = 2.0 * stats.norm.cdf(0.5 * stats.norm.ppf(0.95)) - 1.0  # 0.589, of exact quantiles
    factor = found.kinds.sel(kind="factor")
    # The interval between the 5th and 95th of 99 draws is that of the quantiles but for noise of
    # its ends, sd 0.2 of the guide's sd, which moves the coverage by less than 0.01.
    assert float(factor["coverage"]) == pytest.approx(
        want, abs=0.01 + 4.0 * float(factor["standard_error"])
    )


def test_a_guide_of_twice_the_width_and_an_encoder_are_bad(fit: SVIFit, panel: Panel) -> None:
    wide = simulation_based_calibration(fit, panel, guide=doubled)
    assert wide.verdict.grade == "bad"
    assert "too wide" in wide.verdict.text
    encoder = simulation_based_calibration(fit, panel, guide="encoder")
    assert encoder.guide == "encoder"
    assert encoder.verdict.grade == "bad", encoder.verdict
    assert "use the model's own posterior" in encoder.verdict.text


def test_options_out_of_range_are_refused(fit: SVIFit, panel: Panel) -> None:
    with pytest.raises(SpecError, match="n_repeats must be >= 1; got 0"):
        simulation_based_calibration(fit, panel, n_repeats=0)
    with pytest.raises(SpecError, match="n_draws must be >= 9; got 5"):
        simulation_based_calibration(fit, panel, n_draws=5)
    none = replace(fit, provenance=fit.provenance | {"factors": []})
    with pytest.raises(SpecError, match="must belong to a model with latent factors"):
        simulation_based_calibration(none, panel)
