"""Draws of random last layers, labelled, and the forecasts that each of them makes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from nfi_pyro.data.panel import Panel
from nfi_pyro.errors import SpecError
from nfi_pyro.posterior.blocks import DateRange
from nfi_pyro.posterior.forecasting import forecast
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.config import check_seed
from nfi_pyro.svi.protocol import head_posterior
from nfi_pyro.svi.trained import SVIFit


@dataclass(frozen=True)
class HeadDraws:
    """Draws of the last layers, each shared by several draws of what follows.

    Attributes
    ----------
    values : tuple of Tensor, each shape (coordinate,)
        Different draws; empty for point estimates.
    which : ndarray of int, shape (draw,)
        The draw of the heads that each draw has; 0 for point estimates.
    """

    values: tuple[Tensor, ...]
    which: np.ndarray

    @classmethod
    def from_fit(cls, fit: SVIFit, draws: int, n_different: int, seed: int) -> "HeadDraws":
        """Return `n_different` draws of a fit's heads, spread over `draws` draws."""
        posterior = head_posterior(fit.model)
        if posterior is None:
            return cls((), np.zeros(draws, dtype=int))
        values = tuple(posterior.draw(n_different, seed=seed))
        return cls(values, np.arange(draws) * n_different // draws)

    def label(self, fit: SVIFit) -> xr.Dataset:
        """Return the weights and the groups' scales over (draw, ...); empty without any."""
        posterior = head_posterior(fit.model)
        if posterior is None:
            return xr.Dataset()
        drawn = [posterior.weights(value) for value in self.values]
        attrs = {"units": "returns in training-sd units"}
        found: dict[str, Any] = {}
        for name in drawn[0]:
            label = name.replace(".", "_")
            values = np.stack([one[name].numpy() for one in drawn])[self.which]
            if values.ndim == 3 and values.shape[1] == 1:  # one output: a vector of weights
                values = values[:, 0]
            dims = ("draw", *(f"{label}_{axis}" for axis in range(values.ndim - 1)))
            found[label] = (dims, values, attrs)
        scales = np.stack([posterior.scales(value).numpy() for value in self.values])
        found["head_scale"] = (("draw", "head_group"), scales[self.which], attrs)
        coords = {"head_group": list(posterior.groups), "head_draw": ("draw", self.which)}
        return xr.Dataset(found, coords)


def forecast_heads(
    fit: SVIFit,
    panel: Panel,
    *,
    draws: int = 8,
    seed: int = 0,
    dates: DateRange | None = None,
) -> tuple[ReturnForecast, ...]:
    """Return the forecast of each of several draws of the last layers.

    Together they are the predictive distribution with the heads' uncertainty in it; how much their
    means differ says what that uncertainty is worth. `forecast` takes the guide's location.

    Parameters
    ----------
    fit : SVIFit
        Of a model with random heads.
    panel, dates
        See `forecast`.
    draws : int
        At least 1.
    seed : int

    Raises
    ------
    SpecError
        If the last layers are point estimates, or an option is out of range.
    """
    values = draw_heads(fit, draws=draws, seed=seed)
    return tuple(forecast(fit, panel, dates=dates, heads=value) for value in values)


def draw_heads(fit: SVIFit, *, draws: int, seed: int) -> Tensor:
    """Return draws of a fit's random last layers, shape (draw, coordinate).

    Raises
    ------
    SpecError
        If the last layers are point estimates, or an option is out of range.
    """
    posterior = head_posterior(fit.model)
    if posterior is None:
        raise SpecError(
            f"last layers must be random to be drawn; got point estimates in this {fit.model.name}."
            ' Fit with [spec.heads] kind = "low_rank", or use several restarts.'
        )
    if draws < 1:
        raise SpecError(f"draws must be >= 1; got {draws}. Use 8.")
    check_seed(seed)
    return posterior.draw(draws, seed=seed)
