"""Forecasts whose law is known by construction, and the exact tails of small books under it."""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.optimize import brentq
from scipy.stats import norm

from nfi_pyro.posterior import ReturnForecast
from nfi_pyro.posterior.joint_draws import FactorDraws
from nfi_pyro.posterior.portfolio_law import PortfolioLaw

DATES = np.array(["2021-05-03", "2021-05-04", "2021-05-05"], "datetime64[ns]")
CELLS = ("date", "asset")
PARTS = (*CELLS, "component")


def make_forecast(
    n_components: int = 2,
    *,
    dependence: str = "factor",
    n_assets: int = 7,
    n_factors: int = 3,
    unit: str = "return",
    seed: int = 37,
) -> ReturnForecast:
    """Return a forecast of three dates; asset A4 has none on the first."""
    rng = np.random.default_rng(seed)
    shape = (len(DATES), n_assets, n_components)
    weight = rng.dirichlet(np.full(n_components, 3.0), size=shape[:2])
    own_loc = rng.normal(0.0, 0.01, shape)
    own_scale = rng.uniform(0.005, 0.04, shape)
    variables: dict[str, Any] = {
        "weight": (PARTS, weight),
        "loc": (PARTS, own_loc),
        "scale": (PARTS, own_scale),
    }
    names = {"column": ["market", *(f"x{k}" for k in range(1, n_factors))]}
    by_date = {}
    if dependence == "copula":
        loading = 0.2 * rng.normal(size=(*shape[:2], n_factors))
        loading[..., 0] = 0.5
        variables["copula_loading"] = ((*CELLS, "column"), loading)
    elif dependence == "factor":
        names = {"factor": [f"z{k}" for k in range(n_factors)]}
        beta = rng.normal(0.5, 1.0, (*shape[:2], n_factors))
        factor_loc = rng.normal(0.0, 0.005, (len(DATES), n_factors))
        factor_scale = rng.uniform(0.005, 0.02, (len(DATES), n_factors))
        shared_loc = np.einsum("dak,dk->da", beta, factor_loc)
        shared = np.einsum("dak,dk->da", beta**2, factor_scale**2)
        own_mean = (weight * own_loc).sum(-1, keepdims=True)
        variables |= {
            "loc": (PARTS, own_loc + shared_loc[..., None]),
            "scale": (PARTS, np.sqrt(own_scale**2 + shared[..., None])),
            "beta": ((*CELLS, "factor"), beta),
            "specific_variance": (
                CELLS,
                (weight * (own_scale**2 + (own_loc - own_mean) ** 2)).sum(-1),
            ),
        }
        by_date = {
            "factor_loc": (("date", "factor"), factor_loc),
            "factor_scale": (("date", "factor"), factor_scale),
        }
    entered = np.ones(shape[:2], dtype=bool)
    entered[0, 4] = False
    for _, values in variables.values():
        values[~entered] = np.nan
    coords = {"date": DATES, "asset": [f"A{place}" for place in range(n_assets)]} | names
    attrs = {"unit": unit, "start_lag": 1, "horizon": 1, "dependence": dependence}
    return ReturnForecast(
        xr.Dataset(variables | by_date | {"entered": (CELLS, entered)}, coords, attrs)
    )


class ExactTail(NamedTuple):
    """A tail measure with ``-E[r_i | event]`` and ``-E[z_k | event]``."""

    value: float
    asset: np.ndarray
    factor: np.ndarray


def exact_tail(law: PortfolioLaw, level: float) -> tuple[ExactTail, ExactTail]:
    """Return value at risk and expected shortfall of a small book, by its every component.

    Given a component of each held asset, everything is jointly normal: the portfolio is a mixture
    of as many normals as there are choices.
    """
    sampler = law.sampler
    assert isinstance(sampler, FactorDraws)
    held = np.flatnonzero(law.weights)
    n_components = sampler.weight.shape[1]
    means, covariances, shares, spreads = [], [], [], []
    joint = sampler.factor_scale**2 * law.exposure
    for choice in product(range(n_components), repeat=len(held)):
        own_loc, own_variance = sampler.specific_mean.copy(), sampler.specific_variances.copy()
        own_loc[held] = sampler.specific_loc[held, choice]
        own_variance[held] = sampler.specific_scale[held, choice] ** 2
        means.append(
            np.concatenate([own_loc + sampler.beta @ sampler.factor_loc, sampler.factor_loc])
        )
        of_asset = sampler.beta @ joint + own_variance * law.weights
        covariances.append(np.concatenate([of_asset, joint]))
        shares.append(np.prod(sampler.weight[held, choice]))
        spreads.append(np.sqrt(law.exposure @ joint + own_variance @ law.weights**2))
    mean, covariance = np.array(means), np.array(covariances)
    share, spread = np.array(shares), np.array(spreads)
    centre = mean[:, : len(law.assets)] @ law.weights
    quantile = brentq(
        lambda x: share @ norm.cdf((x - centre) / spread) - (1.0 - level), -2.0, 2.0, xtol=1e-15
    )
    score = (quantile - centre) / spread
    density = share * norm.pdf(score) / spread
    density /= density.sum()
    at = density @ (mean + covariance / spread[:, None] ** 2 * (quantile - centre)[:, None])
    mass = share * norm.cdf(score)
    below = mass @ mean - (share * norm.pdf(score) / spread) @ covariance
    beyond = below / mass.sum()
    shortfall = mass @ centre - (share * norm.pdf(score)) @ spread
    n = len(law.assets)
    return (
        ExactTail(-quantile, -at[:n], -at[n:]),
        ExactTail(-float(shortfall / mass.sum()), -beyond[:n], -beyond[n:]),
    )
