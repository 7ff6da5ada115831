"""Posterior of the factors of past dates, with the encoder's beside it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from pyro import poutine
from torch import Tensor
from torch.distributions import Independent

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.training.windows import Outcome
from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.distributions.mixture_posterior import factor_posterior
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.blocks import DateRange, open_pass, require_label
from nfi_pyro.svi.config import check_seed
from nfi_pyro.svi.trained import SVIFit


@dataclass(frozen=True)
class Posterior:
    """Factors of past dates given the returns that followed, in decimal return units.

    Attributes
    ----------
    factors : Dataset
        `z` and `z_prior` (draw, date, factor): draws from the posterior, and from the prior, made
        without the returns. Empty for a model whose assets share no factor: nothing is latent.
    moments : Dataset
        Empty without factors. Over (date, factor): `prior_loc`, `prior_scale`, `posterior_loc`,
        `posterior_scale`, and `encoder_loc`, `encoder_scale` where the model has an encoder. Over
        (date, factor, factor_other): `posterior_covariance`.
    constants : Dataset
        `beta` (date, asset, factor) where there are factors, `alpha_loc` and `specific_scale`
        (date, asset): mean and standard deviation of the specific part, and what was observed:
        `forward_return` (NaN where not) and `observed`.
    """

    factors: xr.Dataset
    moments: xr.Dataset
    constants: xr.Dataset

    @property
    def has_factors(self) -> bool:
        """Whether the model has latent factors."""
        return "z" in self.factors

    @property
    def z(self) -> xr.DataArray:
        """Draws from the posterior (draw, date, factor)."""
        return self._factors("z")

    @property
    def z_prior(self) -> xr.DataArray:
        """Draws from the prior (draw, date, factor), made without the returns."""
        return self._factors("z_prior")

    @property
    def book_factor_return(self) -> xr.DataArray:
        """Factor part of the equal-weight book's return (draw, date), decimal.

        ``mean_i beta_i . z`` is the same under every rotation, scale and sign of the factors,
        so it can be compared across fits where z cannot.

        Raises
        ------
        SpecError
            If the model has no shared factors.
        """
        mean_beta = self.constants["beta"].mean("asset")
        return (self.z * mean_beta).sum("factor").rename("book_factor_return")

    def _factors(self, name: str) -> xr.DataArray:
        """Return draws, or say that there are none."""
        if not self.has_factors:
            raise SpecError(
                f"{name} must come from a model with latent factors; got one whose assets share "
                "none. Use nfi, factor_vae or linear_factor."
            )
        return self.factors[name]


def sample_posterior(
    fit: SVIFit, panel: Panel, *, draws: int = 200, seed: int = 0, dates: DateRange | None = None
) -> Posterior:
    """Return draws of each date's factors given the returns that followed it.

    Conditions on outcomes, so it speaks of past dates only; `forecast` never uses it. Given the
    networks, a one-component model has this posterior in closed form, with full covariance over
    factors; for mixture noise it is the best Gaussian, see
    `nfi_pyro.distributions.mixture_posterior`. The encoder's diagonal one is reported beside it.
    On a date without an observed return the posterior is the prior.

    Parameters
    ----------
    fit : SVIFit
    panel : Panel
        With `forward_return` of the dates.
    draws : int
        Independent draws per date.
    seed : int
    dates : pair of str, optional
        First and last date, inclusive. By default every date with a full window.

    Raises
    ------
    SpecError
        If `draws` is below 1 or `seed` out of range.
    PanelError
        If the panel's label has another timing or unit than the fit's.
    """
    if draws < 1:
        raise SpecError(f"draws must be >= 1; got {draws}. A few hundred are usual.")
    require_label(fit, panel)
    visit = open_pass(fit, panel, dates)
    unit = fit.return_scale
    parts: dict[str, list[Tensor]] = {}
    for _, context, outcome in visit.contexts(fit):
        law = fit.model.law(context)
        arrays = _block_moments(law, outcome) | _encoder_moments(fit.model, context, outcome)
        for name, value in arrays.items():
            parts.setdefault(name, []).append(value)
    stacked = {name: torch.cat(values) for name, values in parts.items()}
    entered = visit.windows.entered[visit.span].numpy()
    coords = {"date": visit.dates, "asset": visit.windows.assets}
    check_seed(seed)
    if "prior_loc" not in stacked:
        none = xr.Dataset()
        return Posterior(none, none, _constants(stacked, entered, unit, coords))
    coords["factor"] = list(fit.provenance["factors"])
    tril = stacked.pop("posterior_tril").numpy()
    z, z_prior = _draw_factors(stacked, tril, draws, seed)
    return Posterior(
        factors=xr.Dataset(
            {
                "z": _draws(z * unit, coords, "posterior factor draws"),
                "z_prior": _draws(z_prior * unit, coords, "prior factor draws"),
            }
        ),
        moments=_moments(stacked, tril, unit, coords),
        constants=_constants(stacked, entered, unit, coords),
    )


def _draw_factors(
    stacked: dict[str, Tensor], tril: np.ndarray, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return posterior and prior draws (draw, date, factor), standardised units."""
    generator = np.random.default_rng(seed)
    shape = (draws, *stacked["prior_loc"].shape)
    noise = generator.standard_normal(shape)
    z = stacked["posterior_loc"].numpy() + np.einsum("dkl,sdl->sdk", tril, noise)
    prior_noise = generator.standard_normal(shape)
    return z, stacked["prior_loc"].numpy() + stacked["prior_scale"].numpy() * prior_noise


def _block_moments(law: FactorMixture, outcome: Outcome) -> dict[str, Tensor]:
    """Return prior and posterior of one block of dates, float64, standardised units."""
    arrays = (law.logits, law.loc, law.scale, law.beta, law.factor_loc, law.factor_scale)
    wide = FactorMixture(*(array.double() for array in arrays))
    own = MixtureOfNormals(wide.logits, wide.loc, wide.scale, validate_args=False)
    found = {
        "alpha_loc": own.mean.float(),
        "specific_scale": own.variance.sqrt().float(),
        "forward_return": outcome.forward_return,
        "observed": outcome.observed,
    }
    if not law.beta.shape[-1]:
        return found
    posterior = factor_posterior(wide, outcome.forward_return.double(), outcome.observed)
    return found | {
        "prior_loc": wide.factor_loc,
        "prior_scale": wide.factor_scale,
        "posterior_loc": posterior.mean,
        "posterior_scale": posterior.stddev,
        "posterior_tril": posterior.scale_tril,
        "beta": law.beta,
    }


def _encoder_moments(model: Any, context: Any, outcome: Outcome) -> dict[str, Tensor]:
    """Return the guide's own loc and scale of z (date, factor), or nothing without a guide."""
    with torch.random.fork_rng(devices=[]):  # tracing draws z, which nobody asked for
        trace = poutine.trace(model.guide).get_trace(context, outcome)
    if "z" not in trace.nodes:
        return {}
    factors = trace.nodes["z"]["fn"]
    if not isinstance(factors, Independent):  # no encoder: the posterior itself
        return {}
    return {
        "encoder_loc": factors.mean.squeeze(-2).double(),
        "encoder_scale": factors.stddev.squeeze(-2).double(),
    }


def _draws(values: np.ndarray, coords: dict[str, Any], meaning: str) -> xr.DataArray:
    """Return labelled draws (draw, date, factor)."""
    return xr.DataArray(
        values.astype(np.float32),
        dims=("draw", "date", "factor"),
        coords={name: coords[name] for name in ("date", "factor")},
        attrs={"units": "decimal return", "long_name": meaning},
        name="z",
    )


def _moments(
    stacked: dict[str, Tensor], tril: np.ndarray, unit: float, coords: dict[str, Any]
) -> xr.Dataset:
    """Return the moments dataset in return units."""
    attrs = {"units": "decimal return"}
    names = [n for n in stacked if n.split("_")[0] in {"prior", "posterior", "encoder"}]
    variables: dict[str, Any] = {
        name: (("date", "factor"), stacked[name].numpy() * unit, attrs) for name in names
    }
    variables["posterior_covariance"] = (
        ("date", "factor", "factor_other"),
        np.einsum("dkm,dlm->dkl", tril, tril) * unit**2,
        {"units": "decimal return squared"},
    )
    return xr.Dataset(
        variables,
        coords={
            "date": coords["date"],
            "factor": coords["factor"],
            "factor_other": coords["factor"],
        },
    )


def _constants(
    stacked: dict[str, Tensor], entered: np.ndarray, unit: float, coords: dict[str, Any]
) -> xr.Dataset:
    """Return what the networks and the market said, in return units."""
    decimal = {"units": "decimal return"}
    observed = stacked["observed"].numpy()
    cell = ("date", "asset")

    def hidden(name: str, scale: float, mask: np.ndarray) -> np.ndarray:
        return np.where(mask, stacked[name].numpy() * scale, np.nan).astype(np.float32)

    variables: dict[str, Any] = {
        "alpha_loc": (cell, hidden("alpha_loc", unit, entered), decimal),
        "specific_scale": (cell, hidden("specific_scale", unit, entered), decimal),
        "forward_return": (cell, hidden("forward_return", unit, observed), decimal),
        "observed": (cell, observed),
    }
    if "beta" in stacked:
        beta = np.where(entered[..., None], stacked["beta"].numpy(), np.nan)
        variables["beta"] = ((*cell, "factor"), beta, {"units": "1"})
    return xr.Dataset(variables, coords=coords)
