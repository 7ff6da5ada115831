"""Results of realised attribution: what a book earned, date by date and linked, in parts."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfi_pyro.attribution.results.brinson import TRADING, LinkedEffects
from nfi_pyro.data.checks.quality import DropLedger

PART = "part"
NONLINEAR, ALPHA = "nonlinear", "alpha"
SPECIFIC, UNCOVERED = "specific", "uncovered"
OTHER_PARTS = (NONLINEAR, ALPHA, SPECIFIC, UNCOVERED, TRADING)


@dataclass(frozen=True)
class RealisedAttribution:
    """Realised return of a book on every date, in parts that add up to it.

    Decimal return of the period that the label of `date` spans: it is earned from ``date +
    start_lag`` to ``date + start_lag + horizon``, and known at its end. `chain` is there where
    several fits were given. Never NaN but in `factors`.

    Attributes
    ----------
    parts : DataArray, shape ([chain], date, part)
        Sums over part to `total`. Parts are the factors by name, ``nonlinear`` (regression) or
        ``alpha`` (posterior), ``specific``, ``uncovered`` (held assets without a law or, in a
        regression, a weight) and ``trading``. By posterior, the mean over it.
    total : DataArray, shape (date,)
        Return of the account; that of the holdings where none was given.
    holdings_return : DataArray, shape (date,)
        ``sum_i w_i r_i``.
    factors : Dataset over ([chain], date, factor)
        `exposure` of the book's covered assets; `factor_return` and its `standard_error`, those
        of the regression or mean and standard deviation of the posterior. The two are NaN where
        the regression dropped a column that repeats earlier ones: its part is 0. By regression
        also `condition` ([chain], date) of its columns: where it is large, above 30 or so, they
        all but repeat each other, and only sums of their parts mean something.
    part_draws : DataArray, shape ([chain], draw, date, part), or None
        By posterior: the parts at draws of the factors; each sums to `total`.
    interval : Dataset over (date, part), or None
        `mean`, `lower` and `upper` of the draws of all chains together; attribute `level`.
    linked : LinkedEffects or None
        Parts of all dates together, which sum to the compound return of the account; None where
        linking was turned off.
    linked_interval : Dataset over (part,), or None
        As `interval`, of the linked parts.
    books : Dataset over (date,)
        `n_held`, assets with weight and a return; `n_unobserved` and `unobserved_share` of
        absolute weight, assets with weight whose return was not observed: the others were scaled
        up; `uncovered_share` of absolute weight.
    comparable : bool
        Whether a factor of one fit is that of another, see `factors_comparable`.
    n_unrealised : int
        Last dates that were left out, since no return of theirs is observed.
    method : str
        In words.
    start_lag, horizon : int
        In trading days.
    ledger : DropLedger
        What the regressions left out; empty by posterior.
    """

    parts: xr.DataArray
    total: xr.DataArray
    holdings_return: xr.DataArray
    factors: xr.Dataset
    part_draws: xr.DataArray | None
    interval: xr.Dataset | None
    linked: LinkedEffects | None
    linked_interval: xr.Dataset | None
    books: xr.Dataset
    comparable: bool
    n_unrealised: int
    method: str
    start_lag: int
    horizon: int
    ledger: DropLedger

    @property
    def dates(self) -> np.ndarray:
        """Signal dates, (date,)."""
        return np.asarray(self.parts["date"].to_numpy())
