"""Result of comparing restarts of one fit."""

from dataclasses import dataclass

import xarray as xr

from nfi_pyro.diagnostics.results.verdict import Verdict


@dataclass(frozen=True)
class RestartComparison:
    """Whether fits from several seeds say the same.

    Attributes
    ----------
    n_restarts : int
    r_hat : DataArray, shape (quantity,)
        Rank-normalised split R-hat with one restart per chain. Coordinates: `kind` (``book``,
        ``cell`` or ``portfolio``), `date`, and `asset` (of cells, else empty). Nothing for models
        without latent factors.
    summary : Dataset over (kind,)
        Of R-hat, by kind and for ``all``: `median`, `share_low` (below 1.1), `n`.
    mean_correlation, deviation_correlation : DataArray, shape (restart, restart_other), or None
        Correlation over the assets of a date of predictive means and of predictive standard
        deviations, averaged over dates; NaN where no date has three assets that vary. None
        without forecasts.
    between_share : float
        Mean variance between the restarts' predictive means over mean variance of their mixture,
        in [0, 1]; NaN without forecasts.
    raw_factors : Dataset or None
        For information only, as z itself is not identified: over (restart, factor), for restarts
        1, 2, ... after alignment to restart 0, `correlation` of matched posterior means and
        `affine_r_squared`, the share of the first's that the best affine map explains. None where
        factors cannot be matched: other numbers of them, or too few dates.
    verdict : Verdict
    """

    n_restarts: int
    r_hat: xr.DataArray
    summary: xr.Dataset
    mean_correlation: xr.DataArray | None
    deviation_correlation: xr.DataArray | None
    between_share: float
    raw_factors: xr.Dataset | None
    verdict: Verdict
