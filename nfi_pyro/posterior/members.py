"""Fits that say together how sure a figure is: restarts, or one fit at draws of its last layers."""

from copy import deepcopy
from dataclasses import replace

import torch

from nfi_pyro.posterior.head_draws import draw_heads
from nfi_pyro.svi.trained import SVIFit


def draw_fits(fit: SVIFit, *, draws: int = 19, seed: int = 0) -> tuple[SVIFit, ...]:
    """Return the fit with its last layers at draws from their posterior, a fit for each draw.

    Everything that takes several fits, as restarts are given, takes these: their spread is a
    posterior one. Factors keep names, order and units, so figures by factor are comparable, which
    those of restarts of learned factors are not. The guide of `heads` in each is still that of
    `fit`: forecasts, laws and what is made of them are at the draw, `forecast_heads` draws anew.

    Parameters
    ----------
    fit : SVIFit
        Of a model with random last layers.
    draws : int
        At least 1; 19 are the fewest whose interval holds 90 percent, see `interval_over`.
    seed : int

    Raises
    ------
    SpecError
        If the last layers are point estimates, or an option is out of range.
    """
    values = draw_heads(fit, draws=draws, seed=seed)
    return tuple(_at_draw(fit, value, place) for place, value in enumerate(values))


def _at_draw(fit: SVIFit, value: torch.Tensor, place: int) -> SVIFit:
    """Return the fit with one draw in its layers."""
    model = deepcopy(fit.model)
    layers = dict(model.named_parameters())
    with torch.no_grad():
        for name, weights in model.heads.weights(value).items():
            layers[name].copy_(weights)
    return replace(fit, model=model, provenance=fit.provenance | {"head_draw": place})
