"""Result of a simulation-based calibration."""

from dataclasses import dataclass

import xarray as xr

from nfi_pyro.diagnostics.results.verdict import Verdict


@dataclass(frozen=True)
class SimulationCalibration:
    """Whether a guide covers factors that were drawn from the model itself.

    Attributes
    ----------
    ranks : DataArray, shape (quantity, repeat, date)
        Draws of the guide below the truth, from 0 to `n_draws`; NaN where the quantity is not
        there or nothing is observed. Coordinate `kind` (quantity,).
    quantities : Dataset over (quantity,)
        `coverage` of the central interval with `lower` and `upper` (95 percent, exact binomial),
        `mean_rank` (0.5 is unbiased; lower: the guide's draws are too high), `distance` (largest
        difference of the ranks' distribution function from the uniform one, that is the largest
        error of a one-sided probability), `p_value` (chi-square of ranks in ten bins; NaN for
        fewer than 50 cells) and `n_cells` (repeats times dates).
    kinds : Dataset over (kind,)
        `coverage`, `standard_error`, `lower`, `upper` (95 percent, clustered by repeat and date)
        of all quantities of a kind, `p_value` (Bonferroni over its quantities).
    histogram : DataArray, shape (kind, bin)
        Density of the ranks, 1 is uniform.
    expected : float
        Coverage of uniform ranks: the share of ranks within the central interval, next to the
        `level` asked for.
    level : float
    n_draws : int
    guide : str
    verdict : Verdict
    """

    ranks: xr.DataArray
    quantities: xr.Dataset
    kinds: xr.Dataset
    histogram: xr.DataArray
    expected: float
    level: float
    n_draws: int
    guide: str
    verdict: Verdict
