"""The band within which a histogram of ranks stays by chance."""

import numpy as np
from scipy.stats import binom

from nfi_pyro.diagnostics.results import SimulationCalibration

_TAILS = (0.025, 0.975)


def rank_band(found: SimulationCalibration, kind: str) -> tuple[float, float]:
    """Return the lower and upper density that one bin keeps to with probability 0.95.

    Binomial, for as many independent ranks as the ranks of the kind are worth. Ranks of several
    quantities of one date and repeat depend on each other: their number is divided by the mean
    over bins of (variance of a bin's count, clustered by date and repeat) over (binomial
    variance), where that is above 1. NaN without ranks.

    Parameters
    ----------
    found : SimulationCalibration
    kind : str
        Of quantities.
    """
    own = found.ranks.values[found.ranks["kind"].values == kind]  # (quantity, repeat, date)
    cells = own.reshape(len(own), -1)
    known = ~np.isnan(cells)
    n_ranks, n_bins = int(known.sum()), found.histogram.sizes["bin"]
    if n_ranks == 0:
        return np.nan, np.nan
    where = np.where(known, cells, 0).astype(int) * n_bins // (found.n_draws + 1)
    effects = []
    for place in range(n_bins):
        share = float(((where == place) & known).sum() / n_ranks)
        gap = np.where(known, (where == place) - share, 0.0).sum(0)
        if 0.0 < share < 1.0:
            effects.append(float((gap**2).sum() / (n_ranks * share * (1.0 - share))))
    worth = max(1, round(n_ranks / max(1.0, float(np.mean(effects)) if effects else 1.0)))
    low, high = binom.ppf(_TAILS, worth, 1.0 / n_bins) * n_bins / worth
    return float(low), float(high)
