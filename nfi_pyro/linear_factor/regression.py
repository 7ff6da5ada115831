"""Cross-sectional regression: the returns of factors, date by date."""

import numpy as np
import xarray as xr

from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import SpecError
from nfi_pyro.linear_factor.cells import Cells, check_cells
from nfi_pyro.linear_factor.one_date import DateFit, fit_date, lay_out_columns
from nfi_pyro.linear_factor.results import CrossSectionalRegression
from nfi_pyro.linear_factor.student_t import (
    MAX_DEGREES_OF_FREEDOM,
    MIN_DEGREES_OF_FREEDOM,
    StudentT,
)

ERRORS = ("homoskedastic", "hc0", "hc1")
NOISES = ("gaussian", "student_t")
_PLACES_KEPT = 5
_BY_COLUMN = ("factor_returns", "standard_errors", "t_statistics")
_BY_ASSET = ("specific_returns", "fitted")
_BY_DATE = (
    *("r_squared", "adjusted_r_squared", "residual_scale", "degrees_of_freedom"),
    "condition",
)
_COUNTS = ("n_assets", "n_left_out", "n_columns")


def cross_sectional_regression(
    returns: xr.DataArray,
    exposures: xr.DataArray,
    *,
    weights: xr.DataArray | None = None,
    industries: xr.DataArray | None = None,
    constraint_weights: xr.DataArray | None = None,
    intercept: bool = True,
    noise: str | StudentT = "gaussian",
    errors: str = "homoskedastic",
) -> CrossSectionalRegression:
    """Return the factor returns of every date, by weighted regression over its assets.

    On date t, ``y_i = f_market + f_industry(i) + sum_k x_ik f_k + u_i``, where everything on the
    right but f and u is known at the close of t and y is the label of t, realised later: the
    exposures of t explain the label of t and are never moved. So f of date t is known at the close
    of t + start_lag + horizon; `factor_covariance` and `specific_risk` count with that.

    With an intercept, the industries satisfy ``sum_g s_g f_g = 0`` with s_g their share in
    `constraint_weights`, so that the market column is the return of that weighted market (Barra
    China equity model CNE5, MSCI, 2012: regression weight is the root of capitalisation, constraint
    weight capitalisation itself). Without one they are free.

    A column that is a linear combination of those before it (market, industries, then exposures in
    their order) is dropped for the date and counted: its factor return is NaN. The tolerance is
    `nfi_pyro.linear_factor.least_squares.COLLINEAR_TOLERANCE` of its weighted length; nothing is
    shrunk. An asset is left out of a date, and counted, for lack of a return, an exposure, a
    weight or an industry. A date needs more assets than free columns and has NaN otherwise.

    Parameters
    ----------
    returns : DataArray, shape (date, asset)
        Label of each date, decimal; NaN = not observed. Attributes start_lag, horizon and unit go
        to the results.
    exposures : DataArray, shape (date, asset, factor)
        Known at the close of `date`; any unit; NaN = not known.
    weights : DataArray, shape (date, asset), optional
        Regression weights > 0, inversely proportional to the variance of the residual, known at
        the close; only ratios within a date matter. Default: equal.
    industries : DataArray of str or int, shape (date, asset) or (asset), optional
        One industry an asset; blank, None or NaN = unknown.
    constraint_weights : DataArray, shape (date, asset), optional
        > 0, for example capitalisation at the close. Default: every asset counts once.
    intercept : bool
        Whether there is a market column of ones.
    noise : {"gaussian", "student_t"} or StudentT
        Gaussian is weighted least squares. Student-t is maximum likelihood with the scale of
        asset i proportional to weight_i^(-1/2); by name, its degrees of freedom are estimated.
    errors : {"homoskedastic", "hc0", "hc1"}
        Standard errors for Gaussian noise: classical, or White's without and with n / (n - k).
        Those of Student-t noise come from its expected information.

    Returns
    -------
    CrossSectionalRegression

    Raises
    ------
    ShapeError
        When dimensions or labels do not agree.
    SpecError
        When a value is infinite, a weight is <= 0, names of columns repeat, or an option is
        unknown or has nothing to act on.
    """
    chosen = _noise_of(noise, errors)
    cells = check_cells(
        returns,
        exposures,
        weights=weights,
        industries=industries,
        constraint_weights=constraint_weights,
        intercept=intercept,
    )
    gathered = _Gathered(cells)
    for date in range(len(cells.dates)):
        used = gathered.leave_out(date)
        columns = lay_out_columns(cells, date, used)
        gathered.note_absent(date, columns.absent)
        if used.sum() <= len(columns.free):
            gathered.skip(date)
            continue
        gathered.add(date, used, fit_date(cells, date, used, columns, chosen, errors))
    return gathered.result(chosen)


def _noise_of(noise: str | StudentT, errors: str) -> StudentT | None:
    if errors not in ERRORS:
        raise SpecError(f"errors must be one of {ERRORS}; got {errors!r}. Choose one.")
    if not isinstance(noise, StudentT) and noise not in NOISES:
        raise SpecError(f"noise must be one of {NOISES} or a StudentT; got {noise!r}. Choose one.")
    if noise == "gaussian":
        return None
    if errors != "homoskedastic":
        raise SpecError(
            f"errors of Student-t noise must be 'homoskedastic'; got {errors!r}. They come from "
            "the information of the t distribution."
        )
    return noise if isinstance(noise, StudentT) else StudentT()


class _Tally:
    """A count and its first places, for one rule of the ledger."""

    def __init__(self) -> None:
        self.count = 0
        self.places: list[str] = []

    def add(self, count: int, places: list[str]) -> None:
        self.count += count
        self.places += places[: _PLACES_KEPT - len(self.places)]


class _Gathered:
    """Arrays that fill up date by date."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        n_dates, n_assets = cells.returns.shape
        n_columns = len(cells.names)
        self.columns = {name: np.full((n_dates, n_columns), np.nan) for name in _BY_COLUMN}
        self.assets = {name: np.full((n_dates, n_assets), np.nan) for name in _BY_ASSET}
        self.dates = {name: np.full(n_dates, np.nan) for name in _BY_DATE}
        self.counts = {name: np.zeros(n_dates, dtype=np.int64) for name in _COUNTS}
        self.converged = np.zeros(n_dates, dtype=bool)
        self.dropped = np.zeros((n_dates, n_columns), dtype=bool)
        self.absent = np.zeros((n_dates, n_columns), dtype=bool)
        self.tallies: dict[tuple[str, str], _Tally] = {}

    def note(self, rule: str, action: str, date: int, what: list[object], count: int) -> None:
        if count:
            tally = self.tallies.setdefault((rule, action), _Tally())
            tally.add(count, [self.cells.place(date, name) for name in what[:_PLACES_KEPT]])

    def leave_out(self, date: int) -> np.ndarray:
        """Return the assets of the date that enter (bool), after counting the others."""
        used = np.ones(self.cells.returns.shape[1], dtype=bool)
        for reason, missing in self.cells.reasons(date):
            out = np.flatnonzero(used & missing)
            used[out] = False
            names = list(self.cells.assets[out[:_PLACES_KEPT]])
            self.note(f"cells with {reason}", "left out of the regression", date, names, len(out))
        self.counts["n_assets"][date] = used.sum()
        self.counts["n_left_out"][date] = (~used).sum()
        return used

    def note_absent(self, date: int, absent: np.ndarray) -> None:
        self.absent[date] = absent
        names: list[object] = [self.cells.names[column] for column in np.flatnonzero(absent)]
        self.note("industries without an asset on a date", "NaN", date, names, len(names))

    def skip(self, date: int) -> None:
        rule = "dates without more assets than columns, or without any column"
        self.note(rule, "NaN", date, [f"{self.counts['n_assets'][date]} assets"], 1)

    def add(self, date: int, used: np.ndarray, fit: DateFit) -> None:
        self.dropped[date] = fit.dropped
        names: list[object] = [self.cells.names[column] for column in np.flatnonzero(fit.dropped)]
        rule = "columns that are combinations of earlier ones"
        self.note(rule, "dropped for the date, NaN", date, names, len(names))
        if not fit.n_columns:
            self.skip(date)
            return
        self.columns["factor_returns"][date] = fit.factor_returns
        self.columns["standard_errors"][date] = fit.standard_errors
        errors = np.where(fit.standard_errors > 0.0, fit.standard_errors, np.nan)
        self.columns["t_statistics"][date] = fit.factor_returns / errors
        self.assets["specific_returns"][date, used] = fit.residual
        self.assets["fitted"][date, used] = fit.fitted
        scalars = (*fit.shares, fit.scale, fit.degrees_of_freedom, fit.condition)
        for name, value in zip(_BY_DATE, scalars, strict=True):
            self.dates[name][date] = value
        self.counts["n_columns"][date] = fit.n_columns
        self.converged[date] = fit.converged
        if not fit.converged:
            rule = "dates on which Student-t noise did not converge"
            self.note(rule, "kept, flagged", date, [f"scale {fit.scale:.3g}"], 1)

    def result(self, noise: StudentT | None) -> CrossSectionalRegression:
        cells = self.cells
        by_date = {DATE: cells.dates}
        by_asset = {**by_date, ASSET: cells.assets}
        kind = (FACTOR, np.array(cells.kinds, dtype=str))
        by_column = {**by_date, FACTOR: np.array(cells.names, dtype=str), "kind": kind}

        def cells_of(values: np.ndarray, dims: tuple[str, ...], name: str) -> xr.DataArray:
            coords = {1: by_date, 2: by_asset if ASSET in dims else by_column}[len(dims)]
            return xr.DataArray(values, coords, dims, name=name, attrs=cells.attrs)

        ledger = DropLedger()
        for (rule, action), tally in self.tallies.items():
            ledger = ledger.add(rule, tally.count, action, tally.places)
        if noise is not None and noise.degrees_of_freedom is None:
            tails = self.dates["degrees_of_freedom"]
            bounds = (MIN_DEGREES_OF_FREEDOM, MAX_DEGREES_OF_FREEDOM)
            at = np.flatnonzero(np.isin(tails, bounds)).tolist()
            rule = "dates with degrees of freedom at a bound ({:g} or {:g})".format(*bounds)
            places = [cells.place(date, f"{tails[date]:g}") for date in at]
            ledger = ledger.add(rule, len(at), "kept", places)
        arrays = {
            **{k: cells_of(v, (DATE, FACTOR), k) for k, v in self.columns.items()},
            **{k: cells_of(v, (DATE, ASSET), k) for k, v in self.assets.items()},
            **{k: cells_of(v, (DATE,), k) for k, v in {**self.dates, **self.counts}.items()},
        }
        return CrossSectionalRegression(
            **arrays,
            converged=cells_of(self.converged, (DATE,), "converged"),
            dropped=cells_of(self.dropped, (DATE, FACTOR), "dropped"),
            absent=cells_of(self.absent, (DATE, FACTOR), "absent"),
            ledger=ledger,
        )
