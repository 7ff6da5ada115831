"""Judgement of ranks of a truth among draws: uniform where the draws are the posterior's."""

import math

import numpy as np
import xarray as xr
from scipy import stats

from nfi_pyro.diagnostics.results.simulation import SimulationCalibration
from nfi_pyro.diagnostics.results.verdict import Verdict
from nfi_pyro.dims import DATE
from nfi_pyro.errors import ShapeError, SpecError

_BINS = 10
_LEAST_CELLS = 50  # five expected in each bin
_OFF = 0.05  # of coverage, which a user would notice
_Z = 1.959964
_SURE = 3.0  # standard errors
_RARE = 0.01  # p-value, Bonferroni over all quantities
_CRITICAL = 1.63  # of the Kolmogorov distance times sqrt(cells), at 1 percent


def judge_ranks(
    ranks: xr.DataArray, n_draws: int, *, level: float = 0.9, guide: str = "posterior"
) -> SimulationCalibration:
    """Return coverage and uniformity of ranks by quantity and kind, with a verdict.

    Under a right posterior ranks of different repeats and dates are independent, those of
    different quantities of one date are not: intervals of one quantity are exact binomial ones,
    those of a kind are clustered by repeat and date.

    Parameters
    ----------
    ranks : DataArray, shape (quantity, repeat, date)
        How many of `n_draws` draws lie below the truth; NaN where there is none. Coordinate `kind`
        (quantity,) groups quantities; without it all are one kind.
    n_draws : int
    level : float
        Of the central interval, in (0, 1). The interval is the largest whole number of central
        ranks within it, whose share of all is `expected`.
    guide : str
        What made the draws.

    Returns
    -------
    SimulationCalibration
        Bad: a kind covers 0.05 more or less than expected, and more than three standard errors;
        or a quantity's ranks are not uniform (p below 0.01, Bonferroni) and its probabilities are
        off by 0.05 more than noise explains. Doubtful: three standard errors, or such ranks,
        alone. Unknown: fewer than 50 cells.

    Raises
    ------
    ShapeError
        If the dimensions are others.
    SpecError
        If a rank is not a whole number from 0 to `n_draws`, or `level` is out of range or leaves
        no rank.
    """
    values, kinds = _check(ranks, n_draws, level)
    tail = math.ceil((1.0 - level) / 2.0 * (n_draws + 1) - 1e-9)  # ranks outside, each side
    expected = 1.0 - 2.0 * tail / (n_draws + 1)
    if expected <= 0.0:
        raise SpecError(
            f"level must leave a central rank of {n_draws + 1}; got {level} at judge_ranks. Raise "
            "it, or draw more."
        )
    inside = np.where(
        np.isnan(values), np.nan, (values >= tail) & (values <= n_draws - tail)
    )  # (quantity, cell)
    quantities = [_one_quantity(own, row, n_draws) for own, row in zip(values, inside, strict=True)]
    table = xr.Dataset(
        {name: ("quantity", [row[name] for row in quantities]) for name in quantities[0]},
        {"quantity": ranks["quantity"].values, "kind": ("quantity", kinds)},
    )
    names = list(dict.fromkeys(kinds.tolist()))
    pooled = [
        _one_kind(inside[kinds == name], table["p_value"].values[kinds == name]) for name in names
    ]
    by_kind = xr.Dataset(
        {name: ("kind", [row[name] for row in pooled]) for name in pooled[0]}, {"kind": names}
    )
    density = [_density(values[kinds == name], n_draws) for name in names]
    centres = (np.arange(_BINS) + 0.5) / _BINS
    return SimulationCalibration(
        ranks=ranks.assign_coords(kind=("quantity", kinds)),
        quantities=table,
        kinds=by_kind,
        histogram=xr.DataArray(density, {"kind": names, "bin": centres}, ("kind", "bin")),
        expected=expected,
        level=level,
        n_draws=n_draws,
        guide=guide,
        verdict=_judge(table, by_kind, expected, guide),
    )


def _check(ranks: xr.DataArray, n_draws: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ranks (quantity, cell) and the kind of each quantity, or refuse them."""
    if set(ranks.dims) != {"quantity", "repeat", DATE}:
        raise ShapeError(
            f"ranks must have the dimensions quantity, repeat and date; got {ranks.dims} at "
            "judge_ranks. Name them."
        )
    if not 0.0 < level < 1.0:
        raise SpecError(f"level must be in (0, 1); got {level} at judge_ranks. Pass 0.9.")
    values = ranks.transpose("quantity", "repeat", DATE).to_numpy().astype(np.float64)
    values = values.reshape(len(values), -1)
    known = values[~np.isnan(values)]
    wrong = known[(known < 0) | (known > n_draws) | (known != np.round(known))]
    if len(wrong):
        raise SpecError(
            f"ranks must be whole numbers from 0 to {n_draws}; got {wrong[0]:g} and "
            f"{len(wrong) - 1} more at judge_ranks. Count draws below the truth."
        )
    kinds = ranks["kind"].values if "kind" in ranks.coords else np.full(len(values), "quantity")
    return values, kinds


def _bin(ranks: np.ndarray, n_draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Return counts by bin, and the share of all ranks that each bin holds."""
    every = np.arange(n_draws + 1) * _BINS // (n_draws + 1)
    share = np.bincount(every, minlength=_BINS) / (n_draws + 1)
    found = every[ranks.astype(np.int64)]
    return np.bincount(found, minlength=_BINS), share


def _density(ranks: np.ndarray, n_draws: int) -> np.ndarray:
    """Return the density of the ranks by bin, 1 is uniform; NaN without any."""
    counts, share = _bin(ranks[~np.isnan(ranks)], n_draws)
    return counts / counts.sum() / share if counts.sum() else np.full(_BINS, np.nan)


def _one_quantity(ranks: np.ndarray, inside: np.ndarray, n_draws: int) -> dict[str, float]:
    """Return the figures of one quantity over its cells."""
    known = ~np.isnan(ranks)
    n_cells, covered = int(known.sum()), int(np.nansum(inside))
    p_value = lower = upper = mean = coverage = distance = math.nan
    if n_cells:
        interval = stats.binomtest(covered, n_cells).proportion_ci(0.95)
        lower, upper, coverage = interval.low, interval.high, covered / n_cells
        mean = float((ranks[known].mean() + 0.5) / (n_draws + 1))
        every = np.bincount(ranks[known].astype(np.int64), minlength=n_draws + 1).cumsum()
        uniform = np.arange(1, n_draws + 2) / (n_draws + 1)
        distance = float(np.abs(every / n_cells - uniform).max())
    if n_cells >= _LEAST_CELLS:
        counts, share = _bin(ranks[known], n_draws)
        kept = share > 0
        statistic = np.square(counts - n_cells * share)[kept] / (n_cells * share[kept])
        p_value = float(stats.chi2.sf(statistic.sum(), kept.sum() - 1))
    return {
        "coverage": coverage,
        "lower": lower,
        "upper": upper,
        "mean_rank": mean,
        "distance": distance,
        "p_value": p_value,
        "n_cells": n_cells,
    }


def _one_kind(inside: np.ndarray, p_values: np.ndarray) -> dict[str, float]:
    """Return pooled coverage (quantity, cell) with errors clustered by cell."""
    count = (~np.isnan(inside)).sum(0)
    kept = count > 0
    covered, count = np.nansum(inside, 0)[kept], count[kept]
    coverage = error = math.nan
    if kept.any():
        coverage = float(covered.sum() / count.sum())
    if kept.sum() > 1:
        n_cells = len(count)
        residual = covered - coverage * count  # of a ratio, linearised
        error = float(np.sqrt(np.square(residual).sum() * n_cells / (n_cells - 1)) / count.sum())
    known = p_values[~np.isnan(p_values)]
    lower, upper = np.clip([coverage - _Z * error, coverage + _Z * error], 0.0, 1.0)
    return {
        "coverage": coverage,
        "standard_error": error,
        "lower": float(lower),
        "upper": float(upper),
        "p_value": float(min(1.0, len(known) * known.min())) if len(known) else math.nan,
    }


def _judge(table: xr.Dataset, kinds: xr.Dataset, expected: float, guide: str) -> Verdict:
    """Return the verdict, which names the kind that is furthest off."""
    if int(table["n_cells"].max()) < _LEAST_CELLS:
        return Verdict(
            "unknown",
            f"Fewer than {_LEAST_CELLS} repeats times dates were simulated: no judgement of guide "
            f"'{guide}'. Raise n_repeats.",
        )
    p_values = table["p_value"].values
    known = p_values[~np.isnan(p_values)]
    p_value = min(1.0, len(known) * float(known.min()))
    off = kinds["coverage"].values - expected
    # A kind covered always or never has no error of its own: the binomial one steps in.
    error = kinds["standard_error"].values
    binomial = math.sqrt(expected * (1.0 - expected) / int(table["n_cells"].max()))
    sure = np.abs(off) > _SURE * np.where(error > 0.0, error, binomial)
    place = int(np.nanargmax(np.abs(off) * (sure if sure.any() else 1.0)))
    name, coverage = str(kinds["kind"].values[place]), float(kinds["coverage"].values[place])
    text = (
        f"Intervals of guide '{guide}' that should cover {expected:.0%} of simulated truths cover "
        f"{coverage:.1%} where they are furthest off ({name}); p of uniform ranks {p_value:.2g}"
    )
    width = "narrow" if off[place] < 0 else "wide"
    fix = "use the model's own posterior" if guide == "encoder" else "weigh draws by importance"
    excess = table["distance"].values - _CRITICAL / np.sqrt(np.maximum(table["n_cells"].values, 1))
    worst = int(np.nanargmax(excess))
    ranks = (
        f"ranks of {table['quantity'].values[worst]} are not uniform: their mean is "
        f"{float(table['mean_rank'][worst]):.2f} (0.50 is unbiased), probabilities are off by up "
        f"to {float(table['distance'][worst]):.2f}"
    )
    if sure[place] and abs(off[place]) > _OFF:
        return Verdict("bad", f"{text}. They are too {width}: {fix}.")
    if p_value < _RARE and excess[worst] > _OFF:
        return Verdict("bad", f"{text}. The {ranks}: {fix}.")
    if sure[place]:
        return Verdict(
            "doubtful",
            f"{text}. They are a little too {width}: good enough to read, not for exact tails.",
        )
    if p_value < _RARE:
        return Verdict("doubtful", f"{text}. Widths are right, but {ranks}.")
    return Verdict("good", f"{text}: no sign of a wrong posterior.")
