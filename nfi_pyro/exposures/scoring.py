"""Scores of a whole panel under a fitted exposure model, and the rows that have none."""

import numpy as np
import xarray as xr

from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import PanelError
from nfi_pyro.exposures.pca import PCAFit, fit_pca
from nfi_pyro.exposures.ppca_result import PPCAFit
from nfi_pyro.exposures.vae_result import VAEFit

ExposureFit = PCAFit | PPCAFit | VAEFit


def factors_in_use(fit: ExposureFit) -> list[str]:
    """Return the factors that scores are given for: all, less the collapsed latents of a VAE.

    Raises
    ------
    PanelError
        If every latent of an autoencoder has collapsed onto the prior.
    """
    if not isinstance(fit, VAEFit):
        return [str(name) for name in fit.loadings[FACTOR].to_numpy()]
    active = fit.active_units
    if not active.any():
        raise PanelError(
            f"a VAE must have a latent in use; got none of {fit.spec.n_factors}: its posterior is "
            "the prior for every row. Train longer, or use ppca."
        )
    return [str(name) for name in active[FACTOR].to_numpy()[active.to_numpy()]]


def score_cells(
    fit: ExposureFit, features: xr.DataArray, tradable: xr.DataArray, complete: xr.DataArray
) -> xr.DataArray:
    """Return the exposures of every complete row of a panel.

    Parameters
    ----------
    fit : PCAFit, PPCAFit or VAEFit
        Fitted on training dates. A ``per_date`` fit is done anew on each date's own tradable
        cross-section, which is known at its close; an ``expanding`` one scores a date on its own
        fit, and dates after the training span on the last.
    features : DataArray, dims (date, asset, feature)
        Transformed as in the fit; NaN = missing.
    tradable, complete : DataArray of bool, dims (date, asset)
        Cells of the universe, and cells without a missing entry.

    Returns
    -------
    DataArray, dims (date, asset, factor), float32
        Known at the close of each date once the training span is over. NaN for a row with a
        missing entry, on a date without axes, and before the first fit of an ``expanding`` model.

    Raises
    ------
    PanelError
        If the features are not those of the fit, no latent is in use, or no date has enough rows
        for a ``per_date`` fit.
    """
    kept, first = factors_in_use(fit), 0
    if isinstance(fit, PCAFit) and fit.mode == "per_date":
        n_factors = fit.loadings.sizes[FACTOR]
        fit = fit_pca(features, tradable & complete, n_factors=n_factors, mode="per_date")
    elif isinstance(fit, PCAFit) and fit.mode == "expanding":
        dates = features[DATE].to_numpy()
        first = int(dates.searchsorted(fit.loadings[DATE].to_numpy()[0]))
    values = np.full((*features.shape[:2], len(kept)), np.nan, dtype=np.float32)
    if first < len(values):
        found = fit.apply(features[first:], complete[first:])
        values[first:] = found.sel({FACTOR: kept}).to_numpy()
    coords = {
        DATE: features[DATE].to_numpy(),
        ASSET: features[ASSET].to_numpy(),
        FACTOR: kept,
    }
    return xr.DataArray(values, coords, (DATE, ASSET, FACTOR), "exposures")
