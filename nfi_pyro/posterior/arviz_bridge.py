"""The one bridge to ArviZ: a dict of labelled datasets, and an adapter per ArviZ generation."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

with warnings.catch_warnings():  # ArviZ 0.23 announces 1.x once a day; the adapters know both
    warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing", FutureWarning)
    import arviz as az

from nfi_pyro.errors import CheckpointError
from nfi_pyro.posterior.draws import Posterior
from nfi_pyro.posterior.return_forecast import ReturnForecast
from nfi_pyro.svi.trained import SVIFit, write_groups

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def to_inference_data(
    fit: SVIFit,
    posterior: Posterior,
    forecast: ReturnForecast | None = None,
    *,
    quantiles: tuple[float, ...] = QUANTILES,
) -> Any:
    """Return a fit's posterior as ArviZ InferenceData (0.x) or DataTree (1.x).

    Groups: ``posterior`` and ``prior`` (z, and the equal-weight book's factor return, over
    chain, draw, date, factor; not there for a model without latent factors), ``predictions``
    (mean, standard deviation and exact quantiles by date and asset: moments instead of draws of a
    whole panel), ``observed_data``, ``constant_data`` (exposures, specific parts, moments of
    prior, posterior and encoder) and ``fit`` (training curves). The draws are independent, so
    effective sample size and traces say nothing about convergence; one chain is one fit.

    Parameters
    ----------
    fit : SVIFit
    posterior : Posterior
    forecast : ReturnForecast, optional
        Without it there is no ``predictions`` group.
    quantiles : tuple of float
        Levels of ``predictions.forward_return_quantile``.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
    """
    groups = _groups(fit, posterior, forecast, quantiles)
    if hasattr(az, "InferenceData"):
        return _to_inference_data(groups)
    return _to_datatree(groups)


def write_inference_data(container: Any, path: str | Path) -> None:
    """Write an InferenceData or DataTree as netCDF, atomically.

    Raises
    ------
    CheckpointError
        If the place cannot be written; its own ``to_netcdf`` ends the process on a full disk.
    """
    if hasattr(az, "InferenceData"):
        groups = {"/": xr.Dataset(attrs=container.attrs)}
        groups |= {name: container[name] for name in container.groups()}
    else:
        groups = {"/": container.to_dataset()}
        groups |= {name: node.to_dataset() for name, node in container.children.items()}
    write_groups(groups, Path(path))


def read_inference_data(path: str | Path) -> Any:
    """Return the InferenceData or DataTree that was written as netCDF at `path`.

    Raises
    ------
    CheckpointError
        If the file is missing or is no netCDF.
    """
    try:
        if hasattr(az, "InferenceData"):
            return az.from_netcdf(str(path), engine="h5netcdf")
        return xr.open_datatree(path, engine="h5netcdf")
    except OSError as error:
        raise CheckpointError(
            f"{path} must be readable netCDF; got {error}. The file is missing, truncated or was "
            "altered: restore it, or fit again."
        ) from error


def _to_inference_data(groups: dict[str, xr.Dataset]) -> Any:
    """Return ArviZ 0.x's container; ``fit`` is a group of our own."""
    standard = {name: group for name, group in groups.items() if name != "fit"}
    attrs = standard["observed_data"].attrs
    container = az.InferenceData(attrs=attrs, **standard)  # type: ignore[arg-type]
    container.add_groups({"fit": groups["fit"]}, warn_on_custom_groups=False)
    return container


def _to_datatree(groups: dict[str, xr.Dataset]) -> xr.DataTree:
    """Return ArviZ 1.x's container."""
    tree = xr.DataTree.from_dict({f"/{name}": group for name, group in groups.items()})
    tree.attrs = dict(groups["observed_data"].attrs)
    return tree


def _groups(
    fit: SVIFit,
    posterior: Posterior,
    forecast: ReturnForecast | None,
    quantiles: tuple[float, ...],
) -> dict[str, xr.Dataset]:
    """Return every group as a dataset that knows nothing of ArviZ."""
    attrs = _attrs(fit)
    constants = posterior.constants
    groups = {}
    if posterior.has_factors:
        mean_beta = constants["beta"].mean("asset")
        groups["posterior"] = _draws(posterior.z, mean_beta, attrs)
        groups["prior"] = _draws(posterior.z_prior.rename("z"), mean_beta, attrs)
    groups |= {
        "observed_data": constants[["forward_return"]],
        "constant_data": xr.merge(
            [constants.drop_vars("forward_return"), posterior.moments], join="exact"
        ).assign(observed=constants["observed"].astype("int8")),
        "fit": fit.history.rename({"factor": "fit_factor"}),
    }
    if forecast is not None:
        groups["predictions"] = _predictions(forecast, quantiles)
    return {name: group.assign_attrs(attrs) for name, group in groups.items()}


def _draws(z: xr.DataArray, mean_beta: xr.DataArray, attrs: dict[str, Any]) -> xr.Dataset:
    """Return z and the book's factor return with chain and draw first."""
    book = (z * mean_beta).sum("factor").rename("book_factor_return")
    book.attrs = {"units": "decimal return"}
    dataset = xr.Dataset({"z": z, "book_factor_return": book.astype(np.float32)})
    dataset = dataset.assign_coords(draw=np.arange(z.sizes["draw"]))
    return dataset.expand_dims(chain=[0]).assign_attrs(attrs)


def _predictions(forecast: ReturnForecast, quantiles: tuple[float, ...]) -> xr.Dataset:
    """Return moments and exact quantiles of every forecast cell."""
    decimal = {"units": "decimal return"}
    return xr.Dataset(
        {
            "forward_return_mean": forecast.mean.astype(np.float32).assign_attrs(decimal),
            "forward_return_sd": forecast.standard_deviation.astype(np.float32).assign_attrs(
                decimal
            ),
            "forward_return_quantile": forecast.quantile(quantiles)
            .astype(np.float32)
            .assign_attrs(decimal),
        }
    )


def _attrs(fit: SVIFit) -> dict[str, Any]:
    """Return provenance as netCDF attributes."""
    return {
        "chain_meaning": "one SVI fit per chain",
        "created_by": f"nfi_pyro {fit.provenance['versions']['nfi_pyro']}",
        "inference_library": "pyro",
        "objective": fit.config.objective,
        "kl_weight": fit.config.kl_weight,
        "seed": fit.seed,
        "return_scale": fit.return_scale,
        "label": json.dumps(fit.label),
        "provenance": json.dumps(fit.provenance),
    }
