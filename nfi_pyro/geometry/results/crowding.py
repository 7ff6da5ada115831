"""Results about crowding: labelled series and fields, with what was left out."""

from dataclasses import dataclass

import xarray as xr


@dataclass(frozen=True)
class CrowdingFlow:
    """Whether capital gathers or scatters: divergence of the flow of exposures, by date.

    Below 0 exposures draw together (crowding), above 0 they draw apart; per date of the panel.

    Attributes
    ----------
    series : Dataset
        `date` is the close at which the figure is known: the end of the flow. Over (date, plane):
        `divergence`, per date, and its `standard_error` (assets independent given the flow);
        `null_lower`, `null_upper`, the 2.5 and 97.5 percent points of the divergence of flows
        permuted over assets, and the two-sided `p_value`; `log_volume_rate`, the change per date
        of half the log determinant of the exposures' covariance; `first_stage_f` (Cragg and
        Donald), infinite without instruments; `identified`: could be computed, and the
        instruments are not weak (F of 10 or more). Where it could not be, all are NaN. Over
        (date,): `start` of the flow, and counts: `n_assets` used; `n_without_past`, have the flow
        but no earlier exposures; `n_left`, no exposures at the end; `n_entered`, none at the
        start; `n_unheld`, of weight 0. Coordinates of plane: `first` and `second` factor, empty
        for all factors together.
    mean : Dataset over (plane,)
        Over the dates that are identified: `divergence`, its Newey-West `standard_error` over
        dates, `lower` and `upper` (95 percent), `null_lower`, `null_upper` and `p_value` of the
        mean, `n_dates`, `n_skipped`.
    drift : DataArray, shape (date, factor)
        Weighted mean of the flow, exposure per date.
    gradient : DataArray, shape (date, factor, factor_other)
        Derivative of the flow of `factor` by the exposure to `factor_other`, per date.
    n_lags : int
        Autocovariances in the error of the mean.
    """

    series: xr.Dataset
    mean: xr.Dataset
    drift: xr.DataArray
    gradient: xr.DataArray
    n_lags: int


@dataclass(frozen=True)
class CrowdingDensity:
    """How concentrated capital is: the Laplacian of its log density over exposures.

    A level, not a flow. More negative is more crowded.

    Attributes
    ----------
    series : Dataset over (date,)
        `level`, the weighted mean of the field over assets, and beside it that of principal
        exposures permuted over assets, each on its own: `null_mean`, `null_lower` and
        `null_upper` (2.5 and 97.5 percent), two-sided `p_value`, and `excess`, level minus null
        mean in null standard deviations, below 0 for more crowded than the exposures taken one
        by one. `bandwidth`, in standard deviations of a direction. Counts: `n_assets` held and
        their effective number `n_effective`; `n_sparse`, assets without neighbours, where the
        field is NaN; `n_null`, permutations with a level. Figures are NaN where `n_effective` is
        below the least, those of the null where `n_null` is below 19.
    field : DataArray, shape (date, asset)
        Per squared standard deviation of exposure. NaN where an asset is absent or sparse.
    sparse : DataArray of bool, shape (date, asset)
        Whether an asset with exposures has too few neighbours.
    """

    series: xr.Dataset
    field: xr.DataArray
    sparse: xr.DataArray
