"""ArviZ on observed cells: exact leave-one-out, unbiased PITs with gaps, and the guide."""

import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from nfi_pyro.diagnostics import (
    ARVIZ_FUNCTIONS,
    LeaveOneAssetOut,
    arviz_guide,
    leave_one_asset_out,
    observed_view,
)
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior import to_inference_data
from nfi_pyro.posterior.arviz_bridge import container_groups, to_container
from tests.posterior.chain_maker import Chain, make_chain

NAME = "forward_return"
ASKED = """
summary rhat ess mcse plot_trace plot_forest plot_ppc plot_loo_pit loo waic compare plot_rank
plot_energy bfmi plot_autocorr hdi plot_posterior psislw r2_score plot_bpv plot_khat
"""


@pytest.fixture(autouse=True, scope="module")
def no_screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        patch.setenv("MPLBACKEND", "Agg")
        yield


def inference_data(*chains: Chain, **options: Any) -> Any:
    fits, posteriors, forecasts, _ = zip(*chains, strict=True)
    return to_inference_data(fits, posteriors, forecasts, **options)


@pytest.fixture(scope="module")
def chain() -> Chain:
    return make_chain(n_dates=13, n_assets=11, draws=2000, unobserved=0.3)


@pytest.fixture(scope="module")
def idata(no_screen: None, chain: Chain) -> Any:
    return inference_data(chain, quantiles=(0.5,))


@pytest.fixture(scope="module")
def restarts(no_screen: None) -> Any:
    chains = [make_chain(n_components=2, draws=100, seed=seed) for seed in range(3)]
    return inference_data(*chains, quantiles=(0.5,))


# ---- the view ------------------------------------------------------------------------------------


def test_the_view_holds_observed_cells_and_no_other(idata: Any, chain: Chain) -> None:
    flat = observed_view(idata)
    constants = chain.posterior.constants
    observed = constants["observed"].values
    value = flat.observed_data[NAME]
    assert value.dims == ("obs",)
    np.testing.assert_array_equal(value, constants[NAME].values[observed])
    cells = np.argwhere(observed)
    np.testing.assert_array_equal(value["date"], constants["date"].values[cells[:, 0]])
    np.testing.assert_array_equal(value["asset"], constants["asset"].values[cells[:, 1]])
    for group in ("prior_predictive", "posterior_predictive", "log_likelihood"):
        found = flat[group][NAME]
        assert found.dims == ("chain", "draw", "obs")
        np.testing.assert_array_equal(found[0, 5], idata[group][NAME].values[0, 5][observed])
        assert bool(found.notnull().all())
    assert flat.posterior["z"].dims == ("chain", "draw", "date", "factor")
    assert flat.attrs["chain_meaning"] == "svi_restart"


def test_a_range_of_dates_can_be_chosen(idata: Any) -> None:
    flat = observed_view(idata, ("2022-03-03", "2022-03-05"))
    days = np.unique(flat.observed_data["date"].values.astype("datetime64[D]"))
    assert [str(day) for day in days] == ["2022-03-03", "2022-03-04", "2022-03-05"]
    assert flat.posterior.sizes["date"] == flat.sample_stats.sizes["date"] == 3
    with pytest.raises(SpecError, match=r"an observed return; got none from 2023-01-01 to None"):
        observed_view(idata, ("2023-01-01", None))


def test_without_replicates_there_is_no_view(chain: Chain) -> None:
    bare = inference_data(chain, replicate_dates=0)
    with pytest.raises(SpecError, match=r"with replicates; got the groups posterior, "):
        observed_view(bare)


def test_the_newer_arviz_gets_a_tree(idata: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import arviz as az

    flat = observed_view(idata)
    tree = xr.DataTree.from_dict({f"/{k}": v for k, v in container_groups(idata).items()})
    monkeypatch.delattr(az, "InferenceData")
    found = observed_view(tree)
    assert isinstance(found, xr.DataTree)
    for name, node in found.children.items():
        xr.testing.assert_equal(node.to_dataset(), flat[name])


# ---- leave one asset out -------------------------------------------------------------------------


def exact_terms(chain: Chain) -> np.ndarray:
    """Return log p(y_i | other assets of the date), in closed form for one component."""
    law, constants = chain.law, chain.posterior.constants
    mean = (law.loc[..., 0] + (law.beta @ law.factor_loc.unsqueeze(-1))[..., 0]).numpy()
    root = (law.beta * law.factor_scale.unsqueeze(-2)).numpy()
    own = law.scale[..., 0].square().numpy()
    terms = []
    for date, seen in enumerate(constants["observed"].values):
        covariance = root[date, seen] @ root[date, seen].T + np.diag(own[date, seen])
        precision = np.linalg.inv(covariance)
        gap = precision @ (constants[NAME].values[date, seen] - mean[date, seen])
        variance = 1.0 / np.diag(precision)
        terms.append(-0.5 * (np.log(2.0 * np.pi * variance) + (gap * variance) ** 2 / variance))
    return np.concatenate(terms)


def test_leave_one_out_is_the_exact_one(idata: Any, chain: Chain) -> None:
    found = leave_one_asset_out(idata)
    wanted = exact_terms(chain)
    # error of -log mean(1 / likelihood) over draws; terms of one date share theirs
    inverse = np.exp(-observed_view(idata).log_likelihood[NAME].values[0].astype(np.float64))
    error = inverse.std(0) / inverse.mean(0) / np.sqrt(len(inverse))
    assert np.max(np.abs(found.by_observation.values - wanted) / error) < 5.0  # of about 100
    assert found.elpd == pytest.approx(wanted.sum(), abs=4.0 * error.sum())
    assert found.n_observations == wanted.size
    assert found.p_loo > 0.0


def test_its_error_takes_dates_for_clusters(idata: Any, chain: Chain) -> None:
    found = leave_one_asset_out(idata)
    assert isinstance(found, LeaveOneAssetOut)
    seen = chain.posterior.constants["observed"].values
    sums = np.array(
        [part.sum() for part in np.split(found.by_observation.values, seen.sum(1).cumsum()[:-1])]
    )
    np.testing.assert_allclose(found.by_date, sums)
    np.testing.assert_array_equal(found.by_date["date"], chain.posterior.constants["date"])
    assert found.elpd == pytest.approx(sums.sum())
    assert found.standard_error == pytest.approx(np.sqrt(13.0 * sums.var(ddof=1)))
    alone = leave_one_asset_out(idata, ("2022-03-05", "2022-03-05"))
    assert np.isnan(alone.standard_error)
    assert alone.elpd == pytest.approx(float(found.by_date.sel(date="2022-03-05").sum()))


def test_a_view_gives_the_same_result(idata: Any) -> None:
    whole, view = leave_one_asset_out(idata), leave_one_asset_out(observed_view(idata))
    assert view.by_observation.identical(whole.by_observation)


def test_newer_results_are_read_too(idata: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import arviz as az

    wanted = leave_one_asset_out(idata)
    old = az.loo

    class Newer:
        def __init__(self, found: Any) -> None:
            self.elpd_i, self.pareto_k = found.loo_i, found.pareto_k

    monkeypatch.setattr(az, "loo", lambda *args, **options: Newer(old(*args, **options)))
    assert leave_one_asset_out(idata).elpd == wanted.elpd


def test_verdicts_follow_the_weights(idata: Any, chain: Chain) -> None:
    found = leave_one_asset_out(idata)
    assert found.k_hat_threshold == pytest.approx(1.0 - 1.0 / np.log10(2000))
    assert found.verdict.grade == "good"
    figure = f"k-hat is above 0.70 on {found.k_hat_share:.1%} of 110 observations"
    assert found.verdict.text.startswith(figure)
    few = inference_data(make_chain(draws=30))
    assert leave_one_asset_out(few).verdict.grade == "unknown"
    groups = container_groups(idata)
    wild = groups["log_likelihood"].copy(deep=True)  # the draws scarcely cover the observations
    wild[NAME] = 15.0 * wild[NAME]
    broken = to_container(groups | {"log_likelihood": wild}, idata.attrs)
    verdict = leave_one_asset_out(broken).verdict
    assert verdict.grade == "bad"
    assert "the total cannot be trusted" in verdict.text
    some = groups["log_likelihood"].copy(deep=True)
    share = 3.0 / int(chain.posterior.constants["observed"].sum())
    assert 0.01 < share < 0.05
    cells = np.argwhere(chain.posterior.constants["observed"].values)[[5, 30, 60]]
    for date, asset in cells:
        some[NAME][..., date, asset] *= 15.0
    doubtful = to_container(groups | {"log_likelihood": some}, idata.attrs)
    assert leave_one_asset_out(doubtful).verdict.grade == "doubtful"


# ---- ArviZ itself, with missing returns ----------------------------------------------------------


def test_plain_loo_pit_is_biased_by_gaps_and_the_view_is_not(idata: Any, chain: Chain) -> None:
    import arviz as az

    missing = float((~chain.posterior.constants["observed"]).mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about NaN: ArviZ goes on regardless
        plain = az.loo_pit(idata, y=NAME)
        assert np.isnan(az.loo(idata, reff=1.0).elpd_loo)
    ours = az.loo_pit(observed_view(idata), y=NAME)
    assert ours.shape == (int(chain.posterior.constants["observed"].sum()),)
    # z and own parts make PITs within a date dependent, so their mean has an error by date
    sums = [part.sum() for part in np.split(np.asarray(ours), np.cumsum(chain_counts(chain))[:-1])]
    error = np.sqrt(13.0 * np.var(sums, ddof=1)) / ours.size
    assert abs(float(np.mean(ours)) - 0.5) < 3.0 * error
    assert float(np.mean(np.asarray(plain))) < 0.5 - 0.4 * missing


def chain_counts(chain: Chain) -> np.ndarray:
    return chain.posterior.constants["observed"].values.sum(1)


@pytest.mark.draws
@pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping")
@pytest.mark.filterwarnings("ignore:Estimated shape parameter")
@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of pandas 3.1, in az.compare
def test_arviz_runs_on_restarts_with_missing_returns(restarts: Any) -> None:
    import arviz as az
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    flat = observed_view(restarts)
    assert bool(restarts.observed_data[NAME].isnull().any())
    few = {"date": restarts.posterior["date"].values[:2]}
    table = az.summary(restarts.posterior.sel(few))
    assert len(table) == 2 * 2 + 2
    assert (table["r_hat"] < 1.05).all()  # draws of one posterior: 300 are enough
    assert az.plot_trace(restarts, var_names=["book_factor_return"], coords=few).shape == (1, 2)
    assert len(az.plot_forest(restarts.posterior.sel(few), var_names=["z"])) == 1
    for group in ("prior", "posterior"):
        assert az.plot_ppc(flat, group=group, num_pp_samples=10) is not None
    assert az.plot_loo_pit(flat, y=NAME) is not None
    other = observed_view(
        inference_data(
            *(make_chain(n_components=2, draws=100, seed=seed, shift=0.02) for seed in range(3))
        )
    )
    ranked = az.compare({"right": flat, "shifted": other}, ic="loo")
    assert ranked.index.tolist() == ["right", "shifted"]
    assert az.plot_khat(az.loo(flat, pointwise=True, reff=1.0)) is not None
    assert az.plot_bpv(flat) is not None
    plt.close("all")


# ---- the guide -----------------------------------------------------------------------------------


def test_the_guide_covers_every_function_once() -> None:
    import arviz as az

    table = arviz_guide()
    assert table.columns.tolist() == ["meaning", "why", "instead"]
    assert sorted(table.index) == sorted(ASKED.split())
    assert len(ARVIZ_FUNCTIONS) == len(ASKED.split())
    assert set(table["meaning"]) == {"yes", "only over restarts", "no"}
    assert table.map(bool).all(axis=None)
    assert [name for name in table.index if not hasattr(az, name)] == []


def test_the_guide_names_what_the_package_has() -> None:
    import nfi_pyro.diagnostics
    import nfi_pyro.posterior

    words = set(re.findall(r"`(\w+)[(`.]", " ".join(arviz_guide()["instead"])))
    known = {*dir(nfi_pyro.diagnostics), *dir(nfi_pyro.posterior)}
    assert words - known == {"az", "by_date", "fit", "sample_stats"}  # ArviZ, a result, groups
    assert {"leave_one_asset_out", "judge_importance", "calibrate"} <= words


def test_psislw_of_our_weights_says_how_good_the_guide_is(idata: Any) -> None:
    """An exact posterior has equal weights, so that smoothing them leaves them equal."""
    import arviz as az

    stats = idata.sample_stats.isel(chain=0)
    weights = (stats["lp"] - stats["log_q"]).isel(date=3).values
    smoothed, _ = az.psislw(weights)
    np.testing.assert_allclose(smoothed, -np.log(len(weights)), atol=2e-3)
    assert torch.tensor(weights).std() < 1e-3
