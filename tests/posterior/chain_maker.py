"""Restarts made by hand: returns simulated from a known law, and that law's own posterior."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.distributions.mixture_posterior import factor_posterior
from nfi_pyro.posterior import Posterior, ReturnForecast

DECIMAL = {"units": "decimal return"}
CELLS = ("date", "asset")


class Chain(NamedTuple):
    """What `to_inference_data` takes, and the law (decimal units) that it came from."""

    fit: Any
    posterior: Posterior
    forecast: ReturnForecast
    law: FactorMixture


def make_chain(
    *,
    n_dates: int = 11,
    n_assets: int = 7,
    n_factors: int = 2,
    n_components: int = 1,
    draws: int = 40,
    seed: int = 0,
    shift: float = 0.0,
    unobserved: float = 0.15,
) -> Chain:
    """Return one chain; `seed` is the restart's, the data are the same for every seed.

    One asset does not enter the last date, and `shift` moves the restart's alpha.
    """
    truth = np.random.default_rng(41)
    size = (n_dates, n_assets)
    beta = truth.normal(0.6, 0.8, (*size, n_factors)).astype(np.float32).astype(np.float64)
    weight = truth.dirichlet(np.full(n_components, 4.0), size)
    loc = truth.normal(0.0, 0.004, (*size, n_components))
    scale = truth.uniform(0.008, 0.02, (*size, n_components))
    factor_loc = truth.normal(0.0, 0.003, (n_dates, n_factors))
    factor_scale = truth.uniform(0.006, 0.012, (n_dates, n_factors))
    z = factor_loc + factor_scale * truth.normal(size=factor_loc.shape)
    which = (truth.random((*size, 1)) > weight.cumsum(-1)[..., :-1]).sum(-1)[..., None]
    own = np.take_along_axis(loc, which, -1) + np.take_along_axis(scale, which, -1) * (
        truth.normal(size=(*size, 1))
    )
    value = (own[..., 0] + np.einsum("dak,dk->da", beta, z)).astype(np.float32)
    entered = np.ones(size, bool)
    entered[-1, -1] = False
    observed = entered & (truth.random(size) >= unobserved)
    parts = (np.log(weight), loc + shift, scale, beta, factor_loc, factor_scale)
    law = FactorMixture(*(torch.from_numpy(part) for part in parts))
    coords = {
        "date": np.datetime64("2022-03-01", "ns") + np.arange(n_dates) * np.timedelta64(1, "D"),
        "asset": [f"A{place}" for place in range(n_assets)],
        "factor": [f"z{place}" for place in range(n_factors)],
    }
    posterior = _posterior(law, value, observed, entered, coords, draws, seed)
    return Chain(_fit(seed, n_factors), posterior, _forecast(law, entered, coords), law)


def _posterior(
    law: FactorMixture,
    value: np.ndarray,
    observed: np.ndarray,
    entered: np.ndarray,
    coords: dict[str, Any],
    draws: int,
    seed: int,
) -> Posterior:
    """Return draws and moments, as `sample_posterior` would."""
    found = factor_posterior(law, torch.from_numpy(value).double(), torch.from_numpy(observed))
    rng = np.random.default_rng(seed)
    shape = (draws, *found.loc.shape)
    root = found.scale_tril.numpy()
    z = found.loc.numpy() + np.einsum("dkl,sdl->sdk", root, rng.standard_normal(shape))
    z_prior = law.factor_loc.numpy() + law.factor_scale.numpy() * rng.standard_normal(shape)
    dims = ("draw", "date", "factor")
    labels = {name: coords[name] for name in ("date", "factor")}
    own = _own_part(law)

    def entered_only(values: np.ndarray, kept: np.ndarray = entered) -> np.ndarray:
        return np.where(kept.reshape(kept.shape + (1,) * (values.ndim - 2)), values, np.nan)

    moments = {
        "prior_loc": law.factor_loc,
        "prior_scale": law.factor_scale,
        "posterior_loc": found.loc,
        "posterior_scale": found.stddev,
    }
    return Posterior(
        factors=xr.Dataset(
            {
                name: (dims, values.astype(np.float32), DECIMAL)
                for name, values in {"z": z, "z_prior": z_prior}.items()
            },
            labels,
        ),
        moments=xr.Dataset(
            {name: (dims[1:], values.numpy(), DECIMAL) for name, values in moments.items()}
            | {
                "posterior_covariance": (
                    (*dims[1:], "factor_other"),
                    found.covariance_matrix.numpy(),
                    {"units": "decimal return squared"},
                )
            },
            labels | {"factor_other": coords["factor"]},
        ),
        constants=xr.Dataset(
            {
                "alpha_loc": (CELLS, entered_only(own[0]).astype(np.float32), DECIMAL),
                "specific_scale": (CELLS, entered_only(own[1] ** 0.5).astype(np.float32), DECIMAL),
                "forward_return": (CELLS, entered_only(value, observed), DECIMAL),
                "observed": (CELLS, observed),
                "beta": (
                    (*CELLS, "factor"),
                    entered_only(law.beta.numpy()).astype(np.float32),
                    {"units": "1"},
                ),
            },
            coords,
        ),
    )


def _forecast(law: FactorMixture, entered: np.ndarray, coords: dict[str, Any]) -> ReturnForecast:
    """Return the marginal law, as `forecast` would."""
    marginal = law.marginal()
    parts = {"weight": marginal.log_weights.exp(), "loc": marginal.loc, "scale": marginal.scale}
    factors = {"factor_loc": law.factor_loc, "factor_scale": law.factor_scale}
    variables: dict[str, Any] = {
        name: ((*CELLS, "component"), value.numpy().astype(np.float32), DECIMAL)
        for name, value in parts.items()
    }
    variables["beta"] = ((*CELLS, "factor"), law.beta.numpy().astype(np.float32), {"units": "1"})
    variables["specific_variance"] = (
        CELLS,
        _own_part(law)[1].astype(np.float32),
        {"units": "decimal return squared"},
    )
    for _, value, _ in variables.values():
        value[~entered] = np.nan
    variables |= {
        name: (("date", "factor"), value.numpy().astype(np.float32), DECIMAL)
        for name, value in factors.items()
    }
    variables["entered"] = (CELLS, entered)
    attrs = {"unit": "return", "start_lag": 1, "horizon": 1, "dependence": "factor"}
    return ReturnForecast(xr.Dataset(variables, coords, attrs))


def _own_part(law: FactorMixture) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of the own parts."""
    weight, loc = law.logits.softmax(-1), law.loc
    mean = (weight * loc).sum(-1, keepdim=True)
    variance = (weight * (law.scale.square() + (loc - mean).square())).sum(-1)
    return mean[..., 0].numpy(), variance.numpy()


def _fit(seed: int, n_factors: int) -> Any:
    """Return what the InferenceData reads of a fit: 3 epochs of 2 steps, the second kept."""
    nats = {"units": "nats per observed cell, returns in training-sd units"}
    history = xr.Dataset(
        {
            "elbo": ("step", -1.5 + 0.1 * np.arange(6.0), nats),
            "kl": (("step", "factor"), np.ones((6, n_factors), np.float32), {"units": "nats"}),
            "last_step": ("epoch", [2.0, 4.0, 6.0], {"units": "1"}),
        },
        {
            "step": np.arange(1, 7),
            "epoch": [1, 2, 3],
            "factor": [f"z{place}" for place in range(n_factors)],
        },
        {"best_epoch": 2, "n_non_finite": 0},
    )
    return SimpleNamespace(
        model=SimpleNamespace(name="nfi", spec={"n_factors": n_factors}),
        config=SimpleNamespace(objective="elbo", kl_weight=1.0),
        split="2022",
        seed=seed,
        return_scale=0.02,
        label={"start_lag": 1, "horizon": 1, "unit": "return"},
        history=history,
        provenance={"versions": {"nfi_pyro": "0.1.0"}, "panel_hash": "0", "model": "nfi"},
        status="finished",
    )
