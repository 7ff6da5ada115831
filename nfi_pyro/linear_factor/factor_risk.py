"""Covariance of factor returns, with serial correlation, as of the end or as of every date."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.dims import DATE, FACTOR
from nfi_pyro.errors import SpecError, name_places
from nfi_pyro.linear_factor.cells import as_dims, day
from nfi_pyro.linear_factor.long_run import check_options, decay, label_reach, long_run_covariance
from nfi_pyro.linear_factor.results import FactorCovariance

OTHER_FACTOR = "other_factor"
MISSING = ("drop", "pairwise")
POLICIES = ("error", "clip", "keep")
_ROUNDING = 1e-12  # of the largest eigenvalue: a negative one within it is a zero


def factor_covariance(
    factor_returns: xr.DataArray,
    *,
    half_life: float | None = None,
    newey_west_lags: int = 0,
    min_dates: int = 20,
    centred: bool = True,
    missing: str = "drop",
    indefinite: str = "error",
    by: str = "all",
) -> FactorCovariance:
    """Return the covariance of factor returns over one label period.

    Weights halve every `half_life` dates back from the last; see
    `nfi_pyro.linear_factor.long_run.long_run_covariance` for the estimator. Nothing is scaled to
    another horizon and no degree of freedom is corrected for.

    Parameters
    ----------
    factor_returns : DataArray, shape (date, factor)
        Consecutive trading dates; NaN = none on that date.
    half_life : float, optional
        In dates, > 0; None weighs all dates alike.
    newey_west_lags : int
        Autocovariances that enter, >= 0. Labels that overlap need at least horizon - 1.
    min_dates : int
        Fewest observations of a factor, >= 2; fewer give NaN and are counted.
    centred : bool
        Whether the weighted mean is subtracted.
    missing : {"drop", "pairwise"}
        A date on which a factor (of those with enough dates) has no return is left out and
        counted, which keeps the matrix positive semidefinite; or every pair of factors uses the
        dates that it has, which does not.
    indefinite : {"error", "clip", "keep"}
        What to do with an eigenvalue below -1e-12 of the largest: refuse, set it to 0 and count
        it, or leave it. The smallest eigenvalue is reported in any case.
    by : {"all", "date"}
        One matrix from all dates, known once the last label is; or one for every date t from the
        dates whose labels are known at the close of t, s + start_lag + horizon <= t, by the
        attributes of `factor_returns`.

    Returns
    -------
    FactorCovariance

    Raises
    ------
    ShapeError
        When the dimensions are not date and factor.
    SpecError
        When a return is infinite, an option is out of range, the timing is unknown (`by` date), or
        an eigenvalue is negative and `indefinite` is ``"error"``.
    """
    check_options(half_life, newey_west_lags, min_dates, by)
    _check_choices(missing, indefinite)
    table = as_dims(factor_returns, (DATE, FACTOR), "factor_returns")
    values = table.to_numpy().astype(np.float64)
    dates = [day(date) for date in table.indexes[DATE]]
    _refuse_infinite(values, dates)
    estimator = _Estimator(
        half_life, newey_west_lags, min_dates, centred, missing == "drop", indefinite
    )
    if by == "all":
        estimates = [estimator.of(values, "all dates")]
    else:
        stops = np.maximum(np.arange(len(values)) - label_reach(table) + 1, 0)
        estimates = [
            estimator.of(values[:stop], f"what is known on {date}")
            for stop, date in zip(stops, dates, strict=True)
        ]
    return _result(estimates, table, by, missing)


def _check_choices(missing: str, indefinite: str) -> None:
    for name, value, choices in (
        ("missing", missing, MISSING),
        ("indefinite", indefinite, POLICIES),
    ):
        if value not in choices:
            raise SpecError(f"{name} must be one of {choices}; got {value!r}. Choose one.")


def _refuse_infinite(values: np.ndarray, dates: list[str]) -> None:
    wrong = np.flatnonzero(np.isinf(values).any(axis=1))
    if len(wrong):
        raise SpecError(
            "factor_returns must be finite or NaN; got an infinite one at "
            f"{name_places(dates[date] for date in wrong)}. Set NaN to leave it out."
        )


@dataclass(frozen=True)
class _Estimate:
    covariance: np.ndarray
    mean: np.ndarray
    smallest: float
    largest: float
    n_clipped: int
    n_dates: np.ndarray
    effective: float
    gaps: np.ndarray


@dataclass(frozen=True)
class _Estimator:
    half_life: float | None
    n_lags: int
    min_dates: int
    centred: bool
    drop: bool
    indefinite: str

    def of(self, values: np.ndarray, what: str) -> _Estimate:
        """Return the estimate from the dates given, the last of which weighs most."""
        n_dates, n_factors = values.shape
        observed = ~np.isnan(values)
        enough = observed.sum(axis=0) >= self.min_dates
        gaps = ~observed[:, enough].all(axis=1) if enough.any() else np.zeros(n_dates, dtype=bool)
        kept = values.copy()
        if self.drop:
            kept[gaps] = np.nan
        kept[:, ~enough] = np.nan
        counts = (~np.isnan(kept)).sum(axis=0)
        enough = counts >= self.min_dates
        covariance = np.full((n_factors, n_factors), np.nan)
        mean = np.full(n_factors, np.nan)
        if not enough.any():
            return _Estimate(covariance, mean, np.nan, np.nan, 0, counts, np.nan, gaps)
        used = ~np.isnan(kept).all(axis=1)
        weights = decay(self.half_life) ** (np.flatnonzero(used)[-1] - np.arange(n_dates))
        weights = np.where(used, weights, 0.0)
        inside = np.ix_(enough, enough)
        block, mean[enough] = long_run_covariance(
            kept[:, enough], weights, self.n_lags, centred=self.centred
        )
        block, smallest, largest, n_clipped = self._settle(block, what)
        covariance[inside] = block
        effective = weights.sum() ** 2 / np.square(weights).sum()
        return _Estimate(covariance, mean, smallest, largest, n_clipped, counts, effective, gaps)

    def _settle(self, block: np.ndarray, what: str) -> tuple[np.ndarray, float, float, int]:
        """Return the block after the policy on negative eigenvalues, and what they were."""
        if np.isnan(block).any():  # two factors without a common date
            return block, np.nan, np.nan, 0
        spectrum, vectors = np.linalg.eigh(block)
        negative = spectrum < -_ROUNDING * max(spectrum[-1], 0.0)
        n_clipped = 0
        if negative.any() and self.indefinite == "error":
            raise SpecError(
                f"factor covariance must be positive semidefinite; got an eigenvalue {spectrum[0]} "
                f"against the largest {spectrum[-1]} at {what}. Use missing='drop', or choose "
                "indefinite='clip' or 'keep'."
            )
        if negative.any() and self.indefinite == "clip":
            n_clipped = int(negative.sum())
            block = (vectors * np.where(negative, 0.0, spectrum)) @ vectors.T
            block = (block + block.T) / 2.0
        return block, float(spectrum[0]), float(spectrum[-1]), n_clipped


def _result(
    estimates: list[_Estimate], table: xr.DataArray, by: str, missing: str
) -> FactorCovariance:
    """Return the estimates as arrays, with a date dimension for by='date' alone."""
    lead = (DATE,) if by == "date" else ()
    names = table[FACTOR].to_numpy()
    coords: dict[str, object] = {DATE: table.indexes[DATE]} if lead else {}
    kind = {"kind": table["kind"]} if "kind" in table.coords else {}
    per_factor = {**coords, FACTOR: names, **kind}

    def stack(values: list[np.ndarray], dims: tuple[str, ...], name: str) -> xr.DataArray:
        data = np.stack(values) if lead else values[0]
        extra = {OTHER_FACTOR: names} if OTHER_FACTOR in dims else {}
        places = {**(per_factor if FACTOR in dims else coords), **extra}
        return xr.DataArray(data, places, (*lead, *dims), name=name, attrs=table.attrs)

    def scalars(name: str, attribute: str) -> xr.DataArray:
        return stack([np.asarray(getattr(e, attribute)) for e in estimates], (), name)

    return FactorCovariance(
        covariance=stack([e.covariance for e in estimates], (FACTOR, OTHER_FACTOR), "covariance"),
        mean=stack([e.mean for e in estimates], (FACTOR,), "mean"),
        smallest_eigenvalue=scalars("smallest_eigenvalue", "smallest"),
        largest_eigenvalue=scalars("largest_eigenvalue", "largest"),
        n_clipped=scalars("n_clipped", "n_clipped"),
        n_dates=stack([e.n_dates for e in estimates], (FACTOR,), "n_dates"),
        effective_dates=scalars("effective_dates", "effective"),
        ledger=_ledger(estimates, table, by, missing),
    )


def _ledger(estimates: list[_Estimate], table: xr.DataArray, by: str, missing: str) -> DropLedger:
    dates = [day(date) for date in table.indexes[DATE]]
    gaps = np.flatnonzero(estimates[-1].gaps)
    short = np.argwhere([np.isnan(np.diagonal(e.covariance)) for e in estimates])
    names = table[FACTOR].to_numpy()
    places = [f"{names[k]} on {dates[t]}" if by == "date" else str(names[k]) for t, k in short]
    clipped = [(e.n_clipped, dates[t]) for t, e in enumerate(estimates) if e.n_clipped]
    ledger = DropLedger().add(
        "dates on which some factor has no return",
        len(gaps),
        "left out" if missing == "drop" else "used by the pairs that have it",
        [dates[date] for date in gaps],
    )
    ledger = ledger.add("factor variances with too few dates", len(short), "NaN", places)
    total = sum(count for count, _ in clipped)
    where = [date for _, date in clipped] if by == "date" else ["all dates"]
    return ledger.add("negative eigenvalues", total, "set to 0", where)
