"""Groups against the law that they came from: densities, replicates, restarts, sizes, refusals."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.posterior import FactorAlignment, ReturnForecast
from nfi_pyro.posterior.arviz_bridge import QUANTILES
from nfi_pyro.posterior.chains import as_chains, check_chains
from nfi_pyro.posterior.group_files import write_group_files
from nfi_pyro.posterior.groups import build_groups, kept_elbo
from nfi_pyro.posterior.replicates import replicate_groups
from tests.posterior.chain_maker import Chain, make_chain

DATES, LAST = 11, 5
PARTS = ("logits", "loc", "scale", "beta", "factor_loc", "factor_scale")


def groups_of(*chains: Chain, **options: Any) -> dict[str, xr.Dataset]:
    wanted: dict[str, Any] = {
        "quantiles": (0.1, 0.5, 0.9),
        "replicate_dates": LAST,
        "seed": 3,
    } | options
    fits, posteriors, forecasts, _ = zip(*chains, strict=True)
    return build_groups(fits, posteriors, forecasts, **wanted)


@pytest.fixture(scope="module")
def gaussian() -> Chain:
    return make_chain(n_components=1)


@pytest.fixture(scope="module")
def mixture() -> Chain:
    return make_chain(n_components=3, draws=400)


def outcome(chain: Chain) -> tuple[torch.Tensor, torch.Tensor]:
    constants = chain.posterior.constants
    observed = torch.from_numpy(constants["observed"].values)
    value = torch.from_numpy(constants["forward_return"].fillna(0.0).values.astype(np.float64))
    return value, observed


# ---- densities -----------------------------------------------------------------------------------


def test_every_importance_weight_of_an_exact_posterior_is_the_evidence(gaussian: Chain) -> None:
    stats = groups_of(gaussian)["sample_stats"]
    wanted = gaussian.law.joint_log_prob(*outcome(gaussian))[-LAST:].numpy()
    found = (stats["lp"] - stats["log_q"]).transpose("chain", "draw", "date").values
    # draws and constants are stored in float32
    np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), atol=2e-4)


def test_the_log_likelihood_is_the_density_given_the_draw(mixture: Chain) -> None:
    found = groups_of(mixture)["log_likelihood"]["forward_return"]
    value, observed = outcome(mixture)
    for draw in (0, 17):
        z = torch.from_numpy(mixture.posterior.z.values[draw]).double()
        wanted = torch.where(observed, mixture.law.given(z).log_prob(value), torch.nan)
        np.testing.assert_allclose(found[0, draw], wanted[-LAST:], atol=1e-4)


def test_lp_is_the_sum_of_observed_cells_and_the_prior(mixture: Chain) -> None:
    groups = groups_of(mixture)
    law = mixture.law
    z = torch.from_numpy(mixture.posterior.z.values[:, -LAST:]).double()
    prior = torch.distributions.Normal(law.factor_loc[-LAST:], law.factor_scale[-LAST:])
    cells = groups["log_likelihood"]["forward_return"].sum("asset").values[0]
    wanted = cells + prior.log_prob(z).sum(-1).numpy()
    np.testing.assert_allclose(groups["sample_stats"]["lp"][0], wanted, atol=1e-4)


def test_aligned_factors_have_the_same_densities(mixture: Chain) -> None:
    """Swap, flip, stretch and shift the factors: returns given them are as before."""
    aligned = FactorAlignment(
        factors=("z0", "z1"),
        permutation=np.array([1, 0]),
        sign=np.array([-1.0, 1.0]),
        scale=np.array([2.0, 0.5]),
        correlation=np.ones(2),
        affine_r_squared=np.ones(2),
        n_dates=DATES,
    ).apply(mixture.posterior)
    offset = xr.DataArray([0.003, -0.001], dims="factor")
    moments, constants = aligned.moments, aligned.constants
    alpha = constants["alpha_loc"] - (constants["beta"] * offset).sum("factor")
    moved = replace(
        aligned,
        factors=aligned.factors + offset,
        moments=moments.assign(
            {name: moments[name] + offset for name in ("prior_loc", "posterior_loc")}
        ),
        constants=constants.assign(alpha_loc=alpha),
    )
    dates = constants["date"].values[-LAST:]
    before, after = (
        replicate_groups(each, mixture.forecast, dates, torch.Generator().manual_seed(1))
        for each in (mixture.posterior, moved)
    )
    for name, error in (("log_likelihood", 2e-4), ("posterior_predictive", 1e-4)):
        gap = after[name]["forward_return"] - before[name]["forward_return"]
        assert float(abs(gap).max()) < error  # float32, and replicates of three digits
    weights = [
        part["sample_stats"]["lp"] - part["sample_stats"]["log_q"] for part in (before, after)
    ]
    np.testing.assert_allclose(weights[1], weights[0], atol=5e-4)


# ---- replicates ----------------------------------------------------------------------------------


def test_replicates_have_the_law_given_their_draw(mixture: Chain) -> None:
    """The probability integral transform of a replicate given its own z is uniform."""
    groups = groups_of(mixture)
    for name, draws in (
        ("posterior_predictive", mixture.posterior.z),
        ("prior_predictive", mixture.posterior.z_prior),
    ):
        made = groups[name]["forward_return"].values[0]
        z = torch.from_numpy(draws.values[:, -LAST:]).double()
        last = slice(-LAST, None)
        parts = (getattr(mixture.law, part)[last] for part in PARTS)
        law = FactorMixture(*parts)
        values = torch.from_numpy(made).double()
        level = np.stack(
            [law.given(own).cdf(value).numpy() for own, value in zip(z, values, strict=True)]
        )
        kept = level[np.isfinite(level)]
        assert kept.size == 400 * (LAST * 7 - 1)
        error = 1.0 / np.sqrt(12.0 * kept.size)
        assert abs(kept.mean() - 0.5) < 4.0 * error
        assert abs(kept.var() - 1.0 / 12.0) < 4.0 / np.sqrt(180.0 * kept.size)


def test_prior_replicates_have_the_law_of_the_forecast(mixture: Chain) -> None:
    made = groups_of(mixture)["prior_predictive"]["forward_return"][0]
    for draw in range(0, 400, 100):
        level = mixture.forecast.cdf(made[draw]).sel(date=made["date"])
        assert bool((level.notnull() == made[draw].notnull()).all())
    kept = mixture.forecast.data.sel(date=made["date"])
    error = mixture.forecast.standard_deviation.sel(date=kept["date"]) / np.sqrt(400)
    gap = (made.mean("draw") - mixture.forecast.mean.sel(date=kept["date"])) / error
    assert float(abs(gap).max()) < 4.5  # of 34 means


def test_replicates_are_nan_where_an_asset_did_not_enter_and_nowhere_else(gaussian: Chain) -> None:
    groups = groups_of(gaussian)
    entered = gaussian.forecast.data["entered"].isel(date=slice(-LAST, None))
    observed = gaussian.posterior.constants["observed"].isel(date=slice(-LAST, None))
    for name, mask in (
        ("prior_predictive", entered),
        ("posterior_predictive", entered),
        ("log_likelihood", observed),
    ):
        found = groups[name]["forward_return"]
        assert found.dims == ("chain", "draw", "date", "asset")
        assert bool((found.notnull() == mask).all())
    assert not bool((entered == observed).all())


def test_replicate_dates_are_the_last_with_a_return_and_a_forecast(gaussian: Chain) -> None:
    dates = gaussian.posterior.constants["date"].values
    empty = gaussian.posterior.constants.copy(deep=True)
    for place in (-1, -3):  # nothing has happened yet, or nobody has noted it
        empty["observed"][place] = False
        empty["forward_return"][place] = np.nan
    chain = gaussian._replace(posterior=replace(gaussian.posterior, constants=empty))
    found = groups_of(chain)["log_likelihood"]["date"].values
    np.testing.assert_array_equal(found, dates[[-7, -6, -5, -4, -2]])
    early = gaussian._replace(
        forecast=ReturnForecast(gaussian.forecast.data.isel(date=slice(0, 4)))
    )
    groups = groups_of(early, replicate_dates=3)
    np.testing.assert_array_equal(groups["posterior_predictive"]["date"].values, dates[1:4])
    assert "log_likelihood" not in groups_of(gaussian, replicate_dates=0)


def test_replicates_keep_three_digits(gaussian: Chain) -> None:
    made = groups_of(gaussian)["posterior_predictive"]["forward_return"].values
    assert not (made.view(np.uint32) & np.uint32(2**13 - 1))[np.isfinite(made)].any()
    assert np.unique(made[np.isfinite(made)]).size > 0.9 * np.isfinite(made).sum()


def test_the_seed_decides_the_replicates(gaussian: Chain) -> None:
    name = "posterior_predictive"
    first, again, other = (groups_of(gaussian, seed=seed)[name] for seed in (3, 3, 4))
    assert first.identical(again)
    assert not first.equals(other)


# ---- several restarts ----------------------------------------------------------------------------


def test_restarts_are_chains_and_their_predictions_a_mixture() -> None:
    chains = [make_chain(n_components=2, seed=seed, shift=0.01 * seed) for seed in range(3)]
    groups = groups_of(*chains)
    for name in ("posterior", "prior"):
        assert groups[name]["z"].dims == ("chain", "draw", "date", "factor")
        assert groups[name]["chain"].values.tolist() == [0, 1, 2]
    for place, chain in enumerate(chains):
        np.testing.assert_array_equal(groups["posterior"]["z"][place], chain.posterior.z)
        alone = groups_of(chain)["log_likelihood"]["forward_return"][0]
        np.testing.assert_array_equal(groups["log_likelihood"]["forward_return"][place], alone)
    found = groups["predictions"]
    between = np.sqrt(((0.01 * np.arange(3) - 0.01) ** 2).mean())
    kept = chains[0].forecast.data["entered"].values
    np.testing.assert_allclose(found["forward_return_between_sd"].values[kept], between, rtol=1e-4)
    np.testing.assert_allclose(
        found["forward_return_sd"] ** 2,
        found["forward_return_within_sd"] ** 2 + found["forward_return_between_sd"] ** 2,
        rtol=1e-5,
    )
    for level in (0.1, 0.5, 0.9):
        value = found["forward_return_quantile"].sel(quantile=level)
        shares = [chain.forecast.cdf(value).values[kept] for chain in chains]
        np.testing.assert_allclose(np.mean(shares, axis=0), level, atol=1e-5)
    assert np.isnan(found["forward_return_mean"].values[~kept]).all()
    np.testing.assert_array_equal(
        groups["constant_data"]["alpha_loc"], chains[0].posterior.constants["alpha_loc"]
    )
    attrs = groups["posterior"].attrs
    assert json.loads(attrs["seeds"]) == [0, 1, 2]
    assert attrs["chain_meaning"] == "svi_restart"


def test_curves_of_unequal_length_end_in_nan(gaussian: Chain) -> None:
    other = make_chain(seed=1)
    short = other.fit.history.isel(step=slice(0, 4), epoch=slice(0, 2))
    other.fit.history = short.assign_attrs(best_epoch=0)
    curves = groups_of(gaussian, other)["fit"]
    assert curves["elbo"].dims == ("chain", "step")
    assert curves["kl"].dims == ("chain", "step", "fit_factor")
    assert curves["elbo"].isnull().values.sum(1).tolist() == [0, 2]
    assert curves["best_epoch"].values.tolist() == [2, 0]
    assert kept_elbo(gaussian.fit) == pytest.approx(-1.25)
    np.testing.assert_allclose(curves["kept_elbo"], [-1.25, np.nan])
    found = groups_of(gaussian, other)["fit"].attrs["elbo"]
    assert json.loads(found) == pytest.approx([-1.25, None])


# ---- what else is in it --------------------------------------------------------------------------


def test_every_variable_has_a_unit(gaussian: Chain) -> None:
    groups = groups_of(gaussian, make_chain(seed=1))
    bare = [
        f"{group}.{name}"
        for group, dataset in groups.items()
        for name, variable in dataset.data_vars.items()
        if "units" not in variable.attrs
    ]
    assert bare == []


def test_the_last_dates_law_is_a_forecast_of_its_own(mixture: Chain) -> None:
    last = groups_of(mixture)["predictions_constant_data"]
    law = ReturnForecast(last.assign(entered=last["entered"].astype(bool)))
    weights = {"A0": 0.5, "A1": 0.5}
    found = law.portfolio(weights).standard_deviation
    assert found == pytest.approx(mixture.forecast.portfolio(weights).standard_deviation)


def test_without_factors_there_are_no_draws(gaussian: Chain) -> None:
    bare = replace(
        gaussian.posterior,
        factors=xr.Dataset(),
        moments=xr.Dataset(),
        constants=gaussian.posterior.constants.drop_vars("beta"),
    )
    found = groups_of(gaussian._replace(posterior=bare))
    assert set(found) == {
        "observed_data",
        "constant_data",
        "predictions",
        "predictions_constant_data",
        "fit",
    }


def test_draws_of_last_layers_join_the_posterior(gaussian: Chain) -> None:
    rng = np.random.default_rng(2)
    weights, book = rng.normal(size=(40, 5)), rng.normal(size=(40, DATES, 2))
    heads = xr.Dataset({"alpha_weight": (("draw", "alpha_weight_0"), weights, {"units": "1"})})
    factors = gaussian.posterior.factors * 3.0  # under other exposures they are other factors
    factors["book_beta"] = (factors["z"].dims, book, {"units": "1"})
    found = groups_of(
        gaussian._replace(posterior=replace(gaussian.posterior, heads=heads, factors=factors))
    )
    assert found["posterior"]["alpha_weight"].dims == ("chain", "draw", "alpha_weight_0")
    np.testing.assert_array_equal(found["posterior"]["alpha_weight"].values[0], weights)
    wanted = (factors["z"] * book).sum("factor")
    np.testing.assert_allclose(found["posterior"]["book_factor_return"][0], wanted, rtol=1e-5)
    stats = found["sample_stats"]
    assert stats.attrs["factors"] == "drawn for these groups"
    evidence = gaussian.law.joint_log_prob(*outcome(gaussian))[-LAST:].numpy()
    np.testing.assert_allclose((stats["lp"] - stats["log_q"])[0, 7], evidence, atol=2e-4)
    assert np.unique(stats["lp"]).size == 40 * LAST


# ---- size ----------------------------------------------------------------------------------------


def test_three_thousand_assets_and_five_hundred_dates_stay_under_300_mb(tmp_path: Path) -> None:
    """Bytes per cell on disk, of constants and of replicates, times the cells of the large one."""
    n_dates, n_assets, few = 23, 211, 3
    chain = make_chain(n_dates=n_dates, n_assets=n_assets, n_factors=16, n_components=3, draws=200)
    groups = groups_of(chain, quantiles=QUANTILES, replicate_dates=few)
    parts: dict[str, xr.Dataset] = {}
    for name in ("constant_data", "observed_data", "predictions"):
        across = [key for key, value in groups[name].items() if "asset" not in value.dims]
        parts |= {name: groups[name].drop_vars(across), f"{name}_dates": groups[name][across]}
    cells = {name: group for name, group in parts.items() if not name.endswith("_dates")}
    raw = sum(value.nbytes for group in cells.values() for value in group.values())
    assert raw == n_dates * n_assets * (4 * 16 + 13 + 4 * (len(QUANTILES) + 2))
    made = ("prior_predictive", "posterior_predictive", "log_likelihood")
    dates = {name: parts[name] for name in parts if name not in cells}
    dates |= {name: groups[name] for name in ("posterior", "prior")}

    def size(chosen: dict[str, xr.Dataset]) -> int:
        write_group_files(chosen, {}, tmp_path / "sized.nc")
        return (tmp_path / "sized.nc").stat().st_size

    by_cell = size(cells) / (n_dates * n_assets)
    by_made = size({name: groups[name] for name in made}) / (few * n_assets)
    megabytes = (by_cell * 500 * 3000 + by_made * 20 * 3000 + size(dates) / n_dates * 500) / 1e6
    assert 200 < megabytes < 300


# ---- refusals ------------------------------------------------------------------------------------


def test_one_object_or_none_is_a_chain_or_no_chain(gaussian: Chain) -> None:
    assert as_chains(gaussian.fit) == (gaussian.fit,)
    assert as_chains([gaussian.fit, gaussian.fit]) == (gaussian.fit, gaussian.fit)
    assert as_chains(None) == ()


def test_what_cannot_be_chains_is_refused(gaussian: Chain) -> None:
    fit, posterior, forecast, _ = gaussian
    other = make_chain(seed=1)
    with pytest.raises(SpecError, match=r"one of each per chain; got 1, 2 and 0"):
        check_chains([fit], [posterior, posterior], [])
    with pytest.raises(SpecError, match=r"got 0, 0 and 0"):
        check_chains([], [], [])
    with pytest.raises(SpecError, match=r"independent restarts; got seeds \[0, 0\]"):
        check_chains([fit, fit], [posterior, posterior], [])
    for change in ({"split": "2021"}, {"config": None}, {"provenance": {"panel_hash": "1"}}):
        odd: Any = SimpleNamespace(**vars(other.fit) | change)
        name = "panel" if "provenance" in change else next(iter(change))
        with pytest.raises(SpecError, match=rf"one design; got another {name} in chain 1"):
            check_chains([fit, odd], [posterior, posterior], [])
    short = make_chain(seed=1, n_dates=DATES - 1)
    with pytest.raises(ShapeError, match=r"the posteriors of every chain .* in chain 1"):
        check_chains([fit, other.fit], [posterior, short.posterior], [])
    few = make_chain(seed=1, draws=3)
    with pytest.raises(ShapeError, match=r"the posteriors' draws of every chain"):
        check_chains([fit, other.fit], [posterior, few.posterior], [])
    entered = other.forecast.data.copy(deep=True)
    entered["entered"][0, 0] = False
    with pytest.raises(ShapeError, match=r"the forecasts of every chain"):
        check_chains(
            [fit, other.fit], [posterior, other.posterior], [forecast, ReturnForecast(entered)]
        )
    with pytest.raises(ShapeError, match=r"the same assets; got 5 and 7"):
        check_chains([fit], [posterior], [make_chain(n_assets=5).forecast])


def test_a_forecast_of_another_fit_is_refused(gaussian: Chain) -> None:
    wide = gaussian.forecast.data.copy(deep=True)
    wide["specific_variance"] *= 1.1
    with pytest.raises(SpecError, match=r"of one fit and panel; got other .* A0, A1, .* 2 more on"):
        groups_of(gaussian._replace(forecast=ReturnForecast(wide)))
