"""Restarts compared: equal laws in other coordinates agree, other laws do not, words follow."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import ndtri

from nfi_pyro.diagnostics import RestartComparison, compare_restarts
from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.posterior import FactorAlignment, Posterior, ReturnForecast

DATES, ASSETS, FACTORS, DRAWS = 23, 11, 3, 200
RNG = np.random.default_rng(41)
BETA = RNG.normal(0.3, 1.0, (DATES, ASSETS, FACTORS))
LOC = RNG.normal(0.0, 0.01, (DATES, FACTORS))
ROOT = RNG.normal(0.0, 0.004, (DATES, FACTORS, FACTORS))
ENTERED = RNG.random((DATES, ASSETS)) > 0.15
ENTERED[5] = False  # a date without an asset


def make_posterior(seed: int, *, shift: float = 0.0, n_factors: int = FACTORS) -> Posterior:
    """Return draws of a known posterior whose means are off by `shift` (of 0.01) of their own."""
    rng = np.random.default_rng(seed)
    loc = (LOC + 0.01 * shift * rng.normal(size=LOC.shape))[:, :n_factors]
    root = ROOT[:, :n_factors, :n_factors]
    z = loc + np.einsum("dkl,sdl->sdk", root, rng.normal(size=(DRAWS, DATES, n_factors)))
    covariance = np.einsum("dkm,dlm->dkl", root, root)
    names = [f"z{k}" for k in range(n_factors)]
    coords = {"date": pd.bdate_range("2021-03-01", periods=DATES).to_numpy(), "factor": names}
    beta = np.where(ENTERED[..., None], BETA[..., :n_factors], np.nan)
    by_factor = ("date", "factor")
    return Posterior(
        factors=xr.Dataset({"z": (("draw", *by_factor), z)}, coords),
        moments=xr.Dataset(
            {
                "posterior_loc": (by_factor, loc),
                "posterior_scale": (by_factor, np.sqrt(np.einsum("dkk->dk", covariance))),
                "posterior_covariance": ((*by_factor, "factor_other"), covariance),
            },
            coords | {"factor_other": names},
        ),
        constants=xr.Dataset(
            {
                "beta": (("date", "asset", "factor"), beta),
                "observed": (("date", "asset"), ENTERED),
            },
            coords | {"asset": [f"A{k}" for k in range(ASSETS)]},
        ),
    )


def make_forecast(seed: int, *, noise: float, deviation: float = 0.0) -> ReturnForecast:
    """Return normal forecasts whose means share a part and have one of their own."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(7).normal(size=(2, DATES, ASSETS))
    loc = 0.01 * (shared[0] + noise * rng.normal(size=(DATES, ASSETS)))
    scale = 0.02 * np.exp(0.3 * shared[1] + deviation * rng.normal(size=(DATES, ASSETS)))
    loc, scale = (np.where(ENTERED, value, np.nan)[..., None] for value in (loc, scale))
    dims = ("date", "asset", "component")
    values = {"weight": np.where(ENTERED, 1.0, np.nan)[..., None], "loc": loc, "scale": scale}
    own = make_posterior(0).constants
    return ReturnForecast(
        xr.Dataset(
            {name: (dims, value) for name, value in values.items()}
            | {"entered": (dims[:2], ENTERED)},
            {"date": own["date"], "asset": own["asset"]},
            {"unit": "return", "start_lag": 1, "horizon": 1, "dependence": "none"},
        )
    )


def turn(posterior: Posterior) -> Posterior:
    """Return the same law with its factors permuted, flipped and scaled."""
    return FactorAlignment(
        factors=("z0", "z1", "z2"),
        permutation=np.array([1, 2, 0]),
        sign=np.array([-1.0, 1.0, -1.0]),
        scale=np.array([4.0, 0.25, 9.0]),
        correlation=np.ones(3),
        affine_r_squared=np.ones(3),
        n_dates=DATES,
    ).apply(posterior)


def compare(n: int = 3, *, shift: float = 0.0, noise: float = 0.0) -> RestartComparison:
    return compare_restarts(
        [make_posterior(seed, shift=shift) for seed in range(n)],
        [make_forecast(seed, noise=noise) for seed in range(n)],
    )


def test_equal_laws_in_other_coordinates_agree() -> None:
    posteriors = [make_posterior(1), turn(make_posterior(2)), make_posterior(3)]
    found = compare_restarts(posteriors, [make_forecast(0, noise=0.0)] * 3)
    # 3 x 200 independent draws: R-hat exceeds 1 by about (chi2_5 / 5) * 5 / 600, at most 0.05
    assert (found.r_hat < 1.05).all()
    assert float(found.summary["share_low"].sel(kind="all")) == 1.0
    assert found.raw_factors is not None
    assert found.mean_correlation is not None
    np.testing.assert_allclose(found.raw_factors["correlation"], 1.0, rtol=1e-10)
    np.testing.assert_allclose(found.raw_factors["affine_r_squared"], 1.0, rtol=1e-10)
    np.testing.assert_allclose(found.mean_correlation, 1.0, rtol=1e-12)
    assert found.between_share < 1e-25  # three equal means: rounding
    assert found.verdict.grade == "good"
    assert "The restarts agree" in found.verdict.text
    assert "below 1.1 for 100% of" in found.verdict.text


def test_r_hat_is_the_one_of_its_definition() -> None:
    posteriors = [make_posterior(seed, shift=0.3) for seed in (1, 2)]
    found = compare_restarts(posteriors).r_hat
    books = found.isel(quantity=found["kind"].to_numpy() == "book")
    draws = np.stack([p.book_factor_return.transpose("draw", "date") for p in posteriors])
    held = ENTERED.any(1)
    np.testing.assert_array_equal(books["date"], posteriors[0].z["date"][held])

    def plain(values: np.ndarray) -> float:
        """Return split R-hat (chain, draw) of normal scores of ranks, Vehtari et al. (2021)."""
        ranks = pd.Series(values.ravel()).rank().to_numpy().reshape(values.shape)
        score = ndtri((ranks - 0.375) / (values.size + 0.25))
        halves = np.concatenate(np.split(score, 2, axis=1))
        n = halves.shape[1]
        within, between = halves.var(1, ddof=1).mean(), n * halves.mean(1).var(ddof=1)
        return float(np.sqrt(((n - 1) / n * within + between / n) / within))

    for place, date in enumerate(np.flatnonzero(held)):
        values = draws[:, :, date]
        folded = np.abs(values - np.median(values))
        wanted = max(plain(values), plain(folded))
        assert float(books[place]) == pytest.approx(wanted, rel=1e-6)


def test_cells_and_portfolios_have_the_moments_of_the_posterior() -> None:
    posteriors = [make_posterior(1), make_posterior(1, shift=1.0)]
    found = compare_restarts(posteriors).r_hat
    cells = found.isel(quantity=found["kind"].to_numpy() == "cell")
    for cell in cells[:40]:
        gaps, spreads = [], []
        for posterior in posteriors:
            date = {"date": cell["date"].to_numpy()}
            beta = posterior.constants["beta"].sel(asset=str(cell["asset"].to_numpy()), **date)
            assert beta.notnull().all()
            gaps.append(float(beta @ posterior.moments["posterior_loc"].sel(date)))
            root = beta.to_numpy() @ np.linalg.cholesky(
                posterior.moments["posterior_covariance"].sel(date).to_numpy()
            )
            spreads.append(float(np.sqrt(root @ root)))
        distance = abs(gaps[1] - gaps[0]) / spreads[0]
        # of two normals `distance` sd apart: sqrt(1 + distance^2 / 4), before rank-normalising
        if distance < 0.5:
            assert float(cell) < 1.1
        if distance > 2.0:
            assert float(cell) > 1.2


def test_other_optima_are_named_so() -> None:
    found = compare(shift=2.0, noise=2.0)
    assert found.verdict.grade == "bad"
    text = found.verdict.text
    assert "different local optima: use the ensemble" in text
    assert "Draws are independent" in text
    assert "MCMC" not in text
    assert float(found.summary["median"].sel(kind="all")) > 1.2
    assert found.raw_factors is not None
    assert found.raw_factors["correlation"].mean() < 0.8


def test_between_the_two_it_is_doubtful() -> None:
    found = compare(shift=0.0, noise=0.6)
    assert found.verdict.grade == "doubtful"
    # two means with shared variance 1 and own variance 0.36 correlate by 1 / 1.36
    assert found.mean_correlation is not None
    pairs = found.mean_correlation.to_numpy()[np.triu_indices(3, 1)]
    error = 4 / np.sqrt(ENTERED.sum())
    np.testing.assert_allclose(pairs, 1 / 1.36, atol=error)
    assert f"correlate by {pairs.mean():.2f}" in found.verdict.text


def test_the_share_between_restarts_is_that_of_the_variance() -> None:
    found = compare_restarts(
        [make_posterior(seed) for seed in range(3)],
        [make_forecast(seed, noise=1.0, deviation=0.5) for seed in range(3)],
    )
    laws = [make_forecast(seed, noise=1.0, deviation=0.5) for seed in range(3)]
    means = np.stack([law.mean for law in laws])[:, ENTERED]
    within = np.stack([law.variance for law in laws])[:, ENTERED].mean(0)
    share = means.var(0).mean() / (within + means.var(0)).mean()
    assert found.between_share == pytest.approx(share, rel=1e-10)
    assert found.deviation_correlation is not None
    shared = found.deviation_correlation.to_numpy()
    np.testing.assert_allclose(np.diag(shared), 1.0)
    assert (shared[np.triu_indices(3, 1)] < 0.6).all()


def test_quantities_are_bounded_and_repeat_by_seed() -> None:
    posteriors = [make_posterior(seed) for seed in range(2)]
    few, again, other = (compare_restarts(posteriors, n_quantities=7, seed=s) for s in (1, 1, 2))
    assert list(few.summary["n"].to_numpy()) == [7, 7, 7, 21]
    xr.testing.assert_identical(few.r_hat, again.r_hat)
    assert not few.r_hat.equals(other.r_hat)
    assert few.mean_correlation is None
    assert np.isnan(few.between_share)
    assert str(few.r_hat["date"].values.min()) >= "2021-03-01"
    assert not (few.r_hat["date"] == posteriors[0].z["date"][5]).any()


def test_other_numbers_of_factors_are_compared_by_what_they_share() -> None:
    found = compare_restarts([make_posterior(0), make_posterior(1, n_factors=2)])
    assert found.raw_factors is None
    assert found.verdict.grade in {"bad", "doubtful"}


def test_a_model_without_factors_is_judged_by_its_forecasts() -> None:
    bare = Posterior(xr.Dataset(), xr.Dataset(), make_posterior(0).constants.drop_vars("beta"))
    found = compare_restarts([bare, bare], [make_forecast(seed, noise=0.1) for seed in range(2)])
    assert found.r_hat.size == 0
    assert found.verdict.grade == "good"
    assert found.verdict.text.startswith("Predictive means of two restarts correlate by")
    still = make_forecast(0, noise=0.0)
    still = replace(still, data=still.data.assign(loc=still.data["loc"] * 0.0))
    assert compare_restarts([bare, bare], [still, still]).verdict.grade == "unknown"


def test_what_cannot_be_compared_is_refused() -> None:
    one, two = make_posterior(0), make_posterior(1)
    bare = Posterior(xr.Dataset(), xr.Dataset(), one.constants.drop_vars("beta"))
    with pytest.raises(SpecError, match="restarts must be two or more to be compared; got 1"):
        compare_restarts([one])
    with pytest.raises(SpecError, match="forecasts must be one per restart; got 1 for 2"):
        compare_restarts([one, two], [make_forecast(0, noise=0.0)])
    with pytest.raises(SpecError, match="latent factors or forecasts to be compared; got neither"):
        compare_restarts([bare, bare])
    with pytest.raises(SpecError, match="got some without factors"):
        compare_restarts([one, bare])
    with pytest.raises(SpecError, match="n_quantities must be from 1 to 10000; got 0"):
        compare_restarts([one, two], n_quantities=0)
    short = replace(two, factors=two.factors.isel(draw=slice(0, 9)))
    with pytest.raises(SpecError, match="at least 10 draws; got 9"):
        compare_restarts([one, short])
    later = replace(two, constants=two.constants.isel(date=slice(1, None)))
    with pytest.raises(ShapeError, match="posteriors must have the dates of the array"):
        compare_restarts([one, later])
    empty = replace(two, constants=two.constants.assign(beta=two.constants["beta"] * np.nan))
    with pytest.raises(SpecError, match="restarts must have a cell in common; got none"):
        compare_restarts([one, empty])
