"""Result of comparing forecast spread with realised error."""

from dataclasses import dataclass

import xarray as xr

from nfi_pyro.diagnostics.results.verdict import Verdict


@dataclass(frozen=True)
class SpreadSkill:
    """Whether cells with a wide forecast have the large errors.

    Attributes
    ----------
    bins : Dataset over (bin,)
        Cells by forecast standard deviation: `forecast` and `realised`, root mean square of
        forecast standard deviation and of error, in their unit; `lower`, `upper`: 95 percent
        date-block bootstrap interval of `realised`; `n_cells`.
    ratio : float
        Root mean square error over root mean square standard deviation, all cells: 1 is right,
        above 1 the forecast is too narrow.
    ratio_interval : tuple of float
        95 percent date-block bootstrap interval.
    slope : float
        Of log realised on log forecast over bins, weighted by cells: 1 is right, 0 says that the
        spread tells nothing, between them that its differences are exaggerated. NaN for one bin.
    slope_interval : tuple of float
        95 percent date-block bootstrap interval.
    n_observations : int
        Cells with both.
    verdict : Verdict
    """

    bins: xr.Dataset
    ratio: float
    ratio_interval: tuple[float, float]
    slope: float
    slope_interval: tuple[float, float]
    n_observations: int
    verdict: Verdict
