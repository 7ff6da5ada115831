"""Result of the calibration of portfolios."""

from dataclasses import dataclass

import xarray as xr

from nfi_pyro.diagnostics.results.verdict import Verdict


@dataclass(frozen=True)
class PortfolioCoverage:
    """How often forecast intervals of portfolios hold what happened.

    Attributes
    ----------
    coverage : Dataset over (portfolio, level)
        `observed`: share of dates within the central interval of probability `level`; `lower`,
        `upper`: exact binomial 95 percent interval (Clopper and Pearson, 1934). NaN for a
        portfolio without dates.
    spread : Dataset over (portfolio,)
        Of the normal scores ``Phi^-1(PIT)``: `mean` (0 is right) and `spread`, their standard
        deviation (1 is right; 1.7: returns stray 1.7 times as far as forecast), with a 95 percent
        interval `lower`, `upper`. Infinite if a PIT is exactly 0 or 1.
    n_dates : DataArray of int, shape (portfolio,)
        Dates that count.
    n_thinned, n_missing : int
        Dates left out because their labels overlap with those kept, and missing values among the
        dates kept, over portfolios.
    horizon : int
        Trading days of the label: every horizon-th date is kept, from the first.
    verdict : Verdict
    """

    coverage: xr.Dataset
    spread: xr.Dataset
    n_dates: xr.DataArray
    n_thinned: int
    n_missing: int
    horizon: int
    verdict: Verdict
