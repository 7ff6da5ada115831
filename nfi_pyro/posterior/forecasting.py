"""Forecast distributions of every asset and date from the prior factors alone."""

from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from nfi_pyro.data.panel import Panel
from nfi_pyro.posterior.blocks import DateRange, open_pass
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.dependence import copula_design
from nfi_pyro.svi.trained import SVIFit

COPULA = "copula_loading"
_BY_DATE = ("factor_loc", "factor_scale")
_DIMS = {
    **dict.fromkeys(("weight", "loc", "scale"), ("date", "asset", "component")),
    **dict.fromkeys(_BY_DATE, ("date", "factor")),
    "beta": ("date", "asset", "factor"),
    "specific_variance": ("date", "asset"),
    COPULA: ("date", "asset", "column"),
}
_UNITS = {
    **dict.fromkeys(("weight", "beta", COPULA), "1"),
    "specific_variance": "decimal return squared",
}


def forecast(
    fit: SVIFit, panel: Panel, *, dates: DateRange | None = None, heads: Tensor | None = None
) -> ReturnForecast:
    """Return the closed-form law of each asset's next return on each date.

    The prior factors, where there are any, make the forecast (FactorVAE, Eq. 18-19): nothing that
    happens after the close of a date can enter it. The forecast of date ``t`` is of the return
    over the label's days, from ``t + start_lag`` to ``t + start_lag + horizon``.

    Parameters
    ----------
    fit : SVIFit
    panel : Panel
        Raw features with the fit's names; its `forward_return` is not read.
    dates : pair of str, optional
        First and last date, inclusive. By default every date with a full window.
    heads : Tensor, shape (coordinate,), optional
        A draw of random last layers; the guide's location by default. See `forecast_heads`.

    Returns
    -------
    ReturnForecast
        In decimal return units; NaN where an asset is not tradable or lacks one of the lags.

    Raises
    ------
    PanelError
        If the panel's features are not the fit's.
    SplitError
        If no date with a full window is in the range.
    """
    visit = open_pass(fit, panel, dates)
    unit = fit.return_scale
    stacked: dict[str, np.ndarray] = {}
    row = 0
    for batch, context, _ in visit.contexts(fit):
        law = fit.model.law(context) if heads is None else fit.model.law(context, heads)
        marginal = law.marginal()
        arrays = {
            "weight": marginal.log_weights.exp(),
            "loc": marginal.loc * unit,
            "scale": marginal.scale * unit,
        }
        if law.beta.shape[-1]:
            arrays |= {
                "beta": law.beta,
                "factor_loc": law.factor_loc * unit,
                "factor_scale": law.factor_scale * unit,
                "specific_variance": law.specific_variance * unit**2,
            }
        elif fit.copula is not None:
            arrays[COPULA] = fit.copula.loadings(copula_design(batch))
        for name, value in arrays.items():  # written in place: a forecast may be large
            if name not in stacked:
                stacked[name] = np.empty((len(visit.dates), *value.shape[1:]), np.float32)
            stacked[name][row : row + len(value)] = value.cpu().numpy()
        row += len(arrays["loc"])
    entered = visit.windows.entered[visit.span].cpu().numpy()
    return ReturnForecast(_label(stacked, entered, fit, visit.dates, visit.windows.assets))


def _label(
    arrays: dict[str, np.ndarray],
    entered: np.ndarray,
    fit: SVIFit,
    dates: np.ndarray,
    assets: np.ndarray,
) -> xr.Dataset:
    """Return the arrays as a dataset with names, units and NaN where there is no forecast."""
    variables = {}
    for name, value in arrays.items():
        if value.shape[1:2] == entered.shape[1:] and name not in _BY_DATE:
            value[~entered] = np.nan
        attrs = {"units": _UNITS.get(name, "decimal return")}
        variables[name] = (_DIMS[name], value, attrs)
    coords: dict[str, Any] = {"date": dates, "asset": assets}
    dependence = "none"
    if "beta" in arrays:
        coords["factor"] = list(fit.provenance["factors"])
        dependence = "factor"
    elif COPULA in arrays:
        coords["column"] = ["market", *fit.provenance["exposures"]["names"]]
        dependence = "copula"
    return xr.Dataset(
        variables | {"entered": (("date", "asset"), entered)},
        coords=coords,
        attrs={
            **fit.label,
            "dependence": dependence,
            "model": str(fit.provenance["model"]),
            "seed": fit.seed,
            "fit_panel_hash": str(fit.provenance["panel_hash"]),
            "return_scale": fit.return_scale,
        },
    )
