"""Coverage of forecast intervals of portfolios, where the joint law shows itself."""

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.special import ndtri
from scipy.stats import beta

from nfi_pyro.diagnostics.dim_checks import (
    require_dims,
    require_options,
    require_probability,
    require_within,
)
from nfi_pyro.diagnostics.normal_scores import MIN_SCORES, spread_interval
from nfi_pyro.diagnostics.results.portfolio_calibration import PortfolioCoverage
from nfi_pyro.diagnostics.results.verdict import Verdict
from nfi_pyro.dims import DATE, PORTFOLIO
from nfi_pyro.errors import SpecError

_WHERE = "portfolio_coverage"
_CONFIDENCE = 0.95
_SURE = 0.99  # confidence of the intervals that the verdict reads
_CHANCE = 0.2  # share of them that may miss before it is no chance


def portfolio_coverage(
    pit: xr.DataArray, *, levels: Sequence[float] = (0.5, 0.8, 0.95), horizon: int = 1
) -> PortfolioCoverage:
    """Return how often the central intervals of each portfolio's forecast hold its return.

    Single assets can be covered well while portfolios are not, if the law gets the dependence of
    assets wrong; so this looks at portfolios. Dates count as independent, hence the exact
    binomial intervals; labels of several days overlap and are thinned first.

    Parameters
    ----------
    pit : DataArray, shape (portfolio, date) or (date,)
        Forecast distribution function at the realised return, in [0, 1]; NaN = not observed. From
        draws use ``(number below + 0.5) / (draws + 1)``, which is never 0 or 1.
    levels : sequence of float
        Probabilities of the central intervals, in (0, 1).
    horizon : int
        Trading days of the label, >= 1; every horizon-th date is kept.

    Returns
    -------
    PortfolioCoverage
        A single series is the portfolio ``"portfolio"``. The verdict reads 99 percent intervals,
        because there are several; portfolios depend on each other, so it counts them and takes
        no product of p-values.

    Raises
    ------
    ShapeError
        If the dimensions are others.
    SpecError
        If a PIT is outside [0, 1], nothing is observed, or an option is out of range.
    """
    table = pit if PORTFOLIO in pit.dims else pit.expand_dims({PORTFOLIO: ["portfolio"]})
    table = require_dims(table, (PORTFOLIO, DATE), "pit", _WHERE)
    require_within(table, 0.0, 1.0, "pit", _WHERE, "Pass forecast distribution functions.")
    require_options(_WHERE, horizon=(horizon, 1, math.inf))
    if not len(levels):
        raise SpecError(f"levels must name a probability; got none at {_WHERE}. Pass (0.5, 0.95).")
    for level in levels:
        require_probability(_WHERE, levels=level)
    kept = table.isel({DATE: slice(None, None, horizon)})
    if not bool(kept.notnull().any()):
        raise SpecError(
            f"pit must hold an observed date; got none of {kept.sizes[DATE]} at {_WHERE}. "
            "Pass dates with observed returns."
        )
    n_dates = kept.notnull().sum(DATE).rename("n_dates")
    described = [
        (_cover(kept, n_dates, levels, confidence), _spread(kept, confidence))
        for confidence in (_CONFIDENCE, _SURE)
    ]
    coverage, spread = described[0]
    return PortfolioCoverage(
        coverage=coverage,
        spread=spread,
        n_dates=n_dates,
        n_thinned=table.sizes[DATE] - kept.sizes[DATE],
        n_missing=int(kept.isnull().sum()),
        horizon=horizon,
        verdict=_judge(*described[1], n_dates, horizon),
    )


def _cover(
    kept: xr.DataArray, n_dates: xr.DataArray, levels: Sequence[float], confidence: float
) -> xr.Dataset:
    """Return the shares covered with exact binomial bounds."""
    level = xr.DataArray(np.asarray(levels, dtype=np.float64), {"level": list(levels)}, "level")
    inside = (abs(kept - 0.5) <= level / 2.0).sum(DATE)
    hits, n = xr.broadcast(inside.astype(np.float64), n_dates.where(n_dates > 0))
    tail = (1.0 - confidence) / 2.0
    lower = xr.apply_ufunc(beta.ppf, tail, hits, n - hits + 1.0).where(hits > 0, 0.0)
    upper = xr.apply_ufunc(beta.ppf, 1.0 - tail, hits + 1.0, n - hits).where(hits < n, 1.0)
    found = {"observed": hits / n, "lower": lower, "upper": upper}
    return xr.Dataset({name: array.where(n.notnull()) for name, array in found.items()})


def _spread(kept: xr.DataArray, confidence: float) -> xr.Dataset:
    """Return mean and spread of the normal scores of each portfolio, with bounds."""
    rows = []
    for pit in kept.to_numpy():
        scores = ndtri(pit[~np.isnan(pit)])
        with np.errstate(invalid="ignore"):  # one score of each infinity has no mean
            mean = float(scores.mean()) if len(scores) else math.nan
        rows.append((mean, *spread_interval(scores, confidence)))
    columns = zip(("mean", "spread", "lower", "upper"), zip(*rows, strict=True), strict=True)
    return xr.Dataset(
        {name: (PORTFOLIO, list(column)) for name, column in columns},
        {PORTFOLIO: kept.get_index(PORTFOLIO)},
    )


def _judge(
    coverage: xr.Dataset, spread: xr.Dataset, n_dates: xr.DataArray, horizon: int
) -> Verdict:
    """Return what the coverage says."""
    enough = n_dates.to_numpy() >= MIN_SCORES
    dates = f"{int(n_dates.max())} dates"
    if horizon > 1:
        dates += f" (every {horizon}th, since labels overlap)"
    if not enough.any():
        return Verdict("unknown", f"{dates} are too few to judge coverage. Score more dates.")
    n = int(enough.sum())
    judged = coverage[{PORTFOLIO: enough}]
    low, high = spread["lower"].to_numpy()[enough], spread["upper"].to_numpy()[enough]
    factor = float(np.median(spread["spread"].to_numpy()[enough]))
    level = judged["level"]
    missed = ((judged["lower"] > level) | (judged["upper"] < level)).to_numpy()
    over = f"{n} portfolio{'s' if n > 1 else ''} on {dates}"
    for share, word, fix in (
        (float((low > 1).mean()), "narrow", "the law misses common risk"),
        (float((high < 1).mean()), "wide", "the law holds more common risk than there is"),
    ):
        if share > _CHANCE:
            stray = (
                f"{factor:.2g} times as far as forecast"
                if math.isfinite(factor)
                else ("beyond all that the forecast holds possible (a PIT of 0 or 1)")
            )
            return Verdict(
                "bad" if share >= 0.5 else "doubtful",
                f"Too {word}: over {over} real returns stray {stray} at the median, "
                f"significantly so for {share:.0%} of portfolios. Perhaps {fix}: compare single "
                "assets, and recalibrate the scale on training dates.",
            )
    if float(missed.mean()) > _CHANCE:
        return Verdict(
            "doubtful",
            f"Over {over} the scale is right (spread {factor:.2g}), but {missed.mean():.0%} of "
            "the coverage intervals miss their level: the shape or the centre is wrong. Look at "
            "the PIT histogram.",
        )
    return Verdict(
        "good",
        f"Over {over} coverage agrees with its levels; returns stray {factor:.2g} times "
        "as far as forecast.",
    )
