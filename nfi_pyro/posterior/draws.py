"""Posterior of the factors of past dates and of the last layers, with the encoder's beside it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.data.panel import Panel
from nfi_pyro.data.training.windows import Outcome
from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.distributions.mixture_posterior import factor_posterior
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.blocks import DateRange, open_pass, require_label
from nfi_pyro.posterior.head_draws import HeadDraws
from nfi_pyro.svi.config import check_seed
from nfi_pyro.svi.trained import SVIFit

_LAWS = {"prior", "posterior", "encoder"}


@dataclass(frozen=True)
class Posterior:
    """Factors of past dates given the returns that followed, in decimal return units.

    Attributes
    ----------
    factors : Dataset
        `z` and `z_prior` (draw, date, factor): draws from the posterior, and from the prior, made
        without the returns. Empty for a model whose assets share no factor: nothing is latent.
        Where last layers are random, each draw has its own draw of them, and `book_beta` (draw,
        date, factor) is the equal-weight book's exposure under it.
    moments : Dataset
        Empty without factors. Over (date, factor): `prior_loc`, `prior_scale`, `posterior_loc`,
        `posterior_scale`, and `encoder_loc`, `encoder_scale` where the model has an encoder. Over
        (date, factor, factor_other): `posterior_covariance`.
    constants : Dataset
        `beta` (date, asset, factor) where there are factors, `alpha_loc` and `specific_scale`
        (date, asset): mean and standard deviation of the specific part, and what was observed:
        `forward_return` (NaN where not) and `observed`. With random last layers, `moments` and
        `constants` are those at the guide's location.
    heads : Dataset
        Draws of the last layers' weights, and of their groups' `scales`, over (draw, ...), in
        units of the training standard deviation of returns; coordinate `head_draw` says which
        draws are the same one. Empty where they are point estimates.
    """

    factors: xr.Dataset
    moments: xr.Dataset
    constants: xr.Dataset
    heads: xr.Dataset = field(default_factory=xr.Dataset)

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
        own = "book_beta" in self.factors
        mean_beta = self.factors["book_beta"] if own else self.constants["beta"].mean("asset")
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
    fit: SVIFit,
    panel: Panel,
    *,
    draws: int = 200,
    seed: int = 0,
    dates: DateRange | None = None,
    head_draws: int = 8,
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
    head_draws : int
        Different draws of random last layers among the draws; each costs a pass over the dates.
        Point estimates have none.

    Raises
    ------
    SpecError
        If `draws` or `head_draws` is below 1 or `seed` out of range.
    PanelError
        If the panel's label has another timing or unit than the fit's.
    """
    for name, count in (("draws", draws), ("head_draws", head_draws)):
        if count < 1:
            raise SpecError(f"{name} must be >= 1; got {count}. A few hundred draws are usual.")
    check_seed(seed)
    require_label(fit, panel)
    visit = open_pass(fit, panel, dates)
    unit = fit.return_scale
    heads = HeadDraws.from_fit(fit, draws, min(draws, head_draws), seed)
    parts: dict[str, list[Tensor]] = {}
    own: list[dict[str, list[Tensor]]] = [{} for _ in heads.values]
    for _, context, outcome in visit.contexts(fit):
        law = fit.model.law(context)
        arrays = _block_moments(law, outcome) | _encoder_moments(fit.model, context, outcome)
        _append(parts, arrays)
        if "beta" not in arrays:
            continue  # nothing is latent but the heads, which are drawn already
        for store, value in zip(own, heads.values, strict=True):
            _append(store, _block_factors(fit.model.law(context, value), outcome, context))
    stacked = {name: torch.cat(values) for name, values in parts.items()}
    entered = visit.windows.entered[visit.span].numpy()
    coords = {"date": visit.dates, "asset": visit.windows.assets}
    if "prior_loc" not in stacked:
        none = xr.Dataset()
        return Posterior(none, none, _constants(stacked, entered, unit, coords), heads.label(fit))
    coords["factor"] = list(fit.provenance["factors"])
    laws = [{name: torch.cat(values) for name, values in store.items()} for store in own]
    return Posterior(
        factors=_draw_factors(laws or [stacked], heads.which, seed, unit, coords),
        moments=_moments(stacked, unit, coords),
        constants=_constants(stacked, entered, unit, coords),
        heads=heads.label(fit),
    )


def _append(store: dict[str, list[Tensor]], arrays: dict[str, Tensor]) -> None:
    """Add the arrays of one block of dates."""
    for name, value in arrays.items():
        store.setdefault(name, []).append(value)


def _draw_factors(
    laws: list[dict[str, Tensor]],
    which: np.ndarray,
    seed: int,
    unit: float,
    coords: dict[str, Any],
) -> xr.Dataset:
    """Return draws of z and of its prior, in return units.

    Parameters
    ----------
    laws : list of dict
        Moments by draw of the heads, standardised units.
    which : ndarray of int, shape (draw,)
        The law of each draw.
    """
    generator = np.random.default_rng(seed)
    shape = (len(which), *laws[0]["prior_loc"].shape)
    noise = generator.standard_normal(shape)
    prior_noise = generator.standard_normal(shape)
    z, z_prior = np.empty(shape), np.empty(shape)
    for place, law in enumerate(laws):
        rows = which == place
        root = law["posterior_tril"].numpy()
        z[rows] = law["posterior_loc"].numpy() + np.einsum("dkl,sdl->sdk", root, noise[rows])
        scale = law["prior_scale"].numpy()
        z_prior[rows] = law["prior_loc"].numpy() + scale * prior_noise[rows]
    found = {
        "z": _draws(z * unit, coords, "posterior factor draws"),
        "z_prior": _draws(z_prior * unit, coords, "prior factor draws"),
    }
    if "book_beta" in laws[0]:
        book = np.stack([law["book_beta"].numpy() for law in laws])[which]
        found["book_beta"] = _draws(book, coords, "exposure of the equal-weight book", units="1")
    return xr.Dataset(found)


def _block_moments(law: FactorMixture, outcome: Outcome) -> dict[str, Tensor]:
    """Return prior and posterior of one block of dates, float64, standardised units."""
    wide = law.double()
    own = MixtureOfNormals(wide.logits, wide.loc, wide.scale, validate_args=False)
    found = {
        "alpha_loc": own.mean.float(),
        "specific_scale": own.variance.sqrt().float(),
        "forward_return": outcome.forward_return,
        "observed": outcome.observed,
    }
    if not law.beta.shape[-1]:
        return found
    return found | _factor_moments(wide, outcome) | {"beta": law.beta}


def _factor_moments(wide: FactorMixture, outcome: Outcome) -> dict[str, Tensor]:
    """Return the factors' prior and posterior of one block of dates."""
    posterior = factor_posterior(wide, outcome.forward_return.double(), outcome.observed)
    return {
        "prior_loc": wide.factor_loc,
        "prior_scale": wide.factor_scale,
        "posterior_loc": posterior.mean,
        "posterior_scale": posterior.stddev,
        "posterior_tril": posterior.scale_tril,
    }


def _block_factors(law: FactorMixture, outcome: Outcome, context: Any) -> dict[str, Tensor]:
    """Return the factors' moments and the equal-weight book's exposure under one draw of heads."""
    present = context.tradable.unsqueeze(-1)
    total = torch.where(present, law.beta, 0.0).sum(1)
    book = total / present.sum(1).clamp(min=1)
    return _factor_moments(law.double(), outcome) | {"book_beta": book}


def _encoder_moments(model: Any, context: Any, outcome: Outcome) -> dict[str, Tensor]:
    """Return the encoder's own loc and scale of z (date, factor), or nothing without one."""
    if getattr(model, "encoder", None) is None:
        return {}
    loc, scale = model.encode(context, outcome)
    return {"encoder_loc": loc.double(), "encoder_scale": scale.double()}


def _draws(
    values: np.ndarray, coords: dict[str, Any], meaning: str, units: str = "decimal return"
) -> xr.DataArray:
    """Return labelled draws (draw, date, factor)."""
    return xr.DataArray(
        values.astype(np.float32),
        dims=("draw", "date", "factor"),
        coords={name: coords[name] for name in ("date", "factor")},
        attrs={"units": units, "long_name": meaning},
        name="z",
    )


def _moments(stacked: dict[str, Tensor], unit: float, coords: dict[str, Any]) -> xr.Dataset:
    """Return the moments dataset in return units."""
    attrs = {"units": "decimal return"}
    tril = stacked["posterior_tril"].numpy()
    names = [n for n in stacked if n.endswith(("_loc", "_scale")) and n.split("_")[0] in _LAWS]
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
