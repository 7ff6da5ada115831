"""Forecast distributions of every asset and date from the prior factors alone."""

import numpy as np
import xarray as xr

from nfi_pyro.data.panel import Panel
from nfi_pyro.posterior.blocks import DateRange, open_pass
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.trained import SVIFit

_MARGINAL = ("weight", "loc", "scale")


def forecast(fit: SVIFit, panel: Panel, *, dates: DateRange | None = None) -> ReturnForecast:
    """Return the closed-form law of each asset's next return on each date.

    The prior factors make the forecast (FactorVAE, Eq. 18-19): nothing that happens after the
    close of a date can enter it. The forecast of date ``t`` is of the return over the label's
    days, from ``t + start_lag`` to ``t + start_lag + horizon``.

    Parameters
    ----------
    fit : SVIFit
    panel : Panel
        Raw features with the fit's names; its `forward_return` is not read.
    dates : pair of str, optional
        First and last date, inclusive. By default every date with a full window.

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
    for context, _ in visit.contexts(fit):
        law = fit.model.law(context)
        marginal = law.marginal()
        arrays = {
            "weight": marginal.log_weights.exp(),
            "loc": marginal.loc * unit,
            "scale": marginal.scale * unit,
            "beta": law.beta,
            "factor_loc": law.factor_loc * unit,
            "factor_scale": law.factor_scale * unit,
            "specific_variance": law.specific_variance * unit**2,
        }
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
    hidden = ~entered
    for name in (*_MARGINAL, "beta", "specific_variance"):
        arrays[name][hidden] = np.nan
    dims = {
        **dict.fromkeys(_MARGINAL, ("date", "asset", "component")),
        "beta": ("date", "asset", "factor"),
        "factor_loc": ("date", "factor"),
        "factor_scale": ("date", "factor"),
        "specific_variance": ("date", "asset"),
    }
    units = {"weight": "1", "beta": "1", "specific_variance": "decimal return squared"}
    variables = {
        name: (dims[name], value, {"units": units.get(name, "decimal return")})
        for name, value in arrays.items()
    }
    return xr.Dataset(
        variables | {"entered": (("date", "asset"), entered)},
        coords={
            "date": dates,
            "asset": assets,
            "factor": [f"z{k}" for k in range(arrays["beta"].shape[-1])],
        },
        attrs={
            **fit.label,
            "dependence": "factor",
            "model": str(fit.provenance["model"]),
            "seed": fit.seed,
            "fit_panel_hash": str(fit.provenance["panel_hash"]),
            "return_scale": fit.return_scale,
        },
    )
