"""Which functions of ArviZ mean something for draws of variational inference, and which do not."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

Meaning = Literal["yes", "only over restarts", "no"]


@dataclass(frozen=True)
class ArvizFunction:
    """What a function of ArviZ says about independent draws of a variational posterior.

    Attributes
    ----------
    function : str
        Name in ``arviz``.
    meaning : {"yes", "only over restarts", "no"}
        ``only over restarts``: with several chains, on quantities that every restart identifies
        (`book_factor_return`, or z after its factors were aligned).
    why, instead : str
        `instead` is what to use, or how.
    """

    function: str
    meaning: Meaning
    why: str
    instead: str


_INDEPENDENT = "draws of one fit are independent by construction"
_VIEW = "hand it `observed_view(idata)`"

ARVIZ_FUNCTIONS = (
    ArvizFunction(
        "summary",
        "yes",
        "mean, sd and interval are the posterior's; its ess, mcse and r_hat columns are not news",
        "`kind='stats'`; few dates at a time",
    ),
    ArvizFunction(
        "rhat",
        "only over restarts",
        "one chain gives NaN; several say whether restarts found the same posterior",
        "identified quantities only, factors aligned first",
    ),
    ArvizFunction(
        "ess",
        "no",
        f"{_INDEPENDENT}: about the number of draws, whatever the fit is worth",
        "`importance_weights` and `judge_importance`: draws that count against the true posterior",
    ),
    ArvizFunction(
        "mcse",
        "yes",
        "sampling error of a summary for so many draws; nothing about the approximation",
        "more draws where it matters: they are cheap",
    ),
    ArvizFunction(
        "plot_trace",
        "only over restarts",
        "the densities compare restarts; the traces are white noise",
        "the `fit` group: training curves of every restart",
    ),
    ArvizFunction(
        "plot_forest",
        "yes",
        "intervals of the posterior, restarts side by side",
        "few dates at a time",
    ),
    ArvizFunction(
        "plot_ppc",
        "yes",
        "replicates against observed returns; the posterior's have seen the returns they are "
        "compared with, the prior's are forecasts",
        f"{_VIEW}: on the whole it sets all dates beside the replicates' and takes NaN silently",
    ),
    ArvizFunction(
        "plot_loo_pit",
        "yes",
        "calibration of an asset given its peers of the date; no forecast calibration",
        f"{_VIEW}: with NaN it is biased; `calibrate` for forecasts",
    ),
    ArvizFunction(
        "loo",
        "yes",
        "leaves one asset out of a date whose other assets inform z: structure of the "
        "cross-section, never forecast skill; its se takes assets for independent",
        "`leave_one_asset_out`: errors by date; `compare_forecasts` for skill",
    ),
    ArvizFunction(
        "waic",
        "no",
        "approximates what loo estimates, and does not say when it fails; gone in ArviZ 1.x",
        "`leave_one_asset_out`",
    ),
    ArvizFunction(
        "compare",
        "yes",
        "ranks structures by loo on the same cells; its errors take assets for independent",
        f"{_VIEW}; `hac_standard_error` of the difference of two `by_date`",
    ),
    ArvizFunction(
        "plot_rank",
        "only over restarts",
        f"{_INDEPENDENT}: ranks differ from uniform only where restarts differ",
        "identified quantities, factors aligned first",
    ),
    ArvizFunction(
        "plot_energy",
        "no",
        "energy belongs to Hamiltonian Monte Carlo; nothing here has any",
        "the ELBO's curves in the `fit` group",
    ),
    ArvizFunction(
        "bfmi",
        "no",
        "energy belongs to Hamiltonian Monte Carlo; nothing here has any",
        "`judge_importance`",
    ),
    ArvizFunction(
        "plot_autocorr",
        "no",
        f"{_INDEPENDENT}: zero at every lag",
        "autocorrelation of scores over dates: `hac_standard_error`",
    ),
    ArvizFunction(
        "hdi",
        "yes",
        "an interval of the posterior",
        "`ReturnForecast.quantile` for returns: exact, without draws",
    ),
    ArvizFunction(
        "plot_posterior",
        "yes",
        "density and interval of the posterior",
        "few dates at a time",
    ),
    ArvizFunction(
        "psislw",
        "yes",
        "k-hat of importance weights: how far the guide is from the posterior",
        "date by date on `sample_stats` lp - log_q, never summed over dates; `judge_importance`",
    ),
    ArvizFunction(
        "r2_score",
        "no",
        "share of variance that replicates explain after seeing the returns; daily returns have "
        "almost none to forecast",
        "`information_coefficient`, `compare_forecasts`",
    ),
    ArvizFunction(
        "plot_bpv",
        "yes",
        "Bayesian p-values of replicates; the posterior's lean to the middle",
        f"{_VIEW}; `check_predictions` for cross-sections and prior replicates",
    ),
    ArvizFunction(
        "plot_khat",
        "yes",
        "which returns move the factors of their date most",
        f"`az.loo` of the view, pointwise ({_VIEW}); or `leave_one_asset_out().k_hat`",
    ),
)
"""One row per function, see `arviz_guide`."""


def arviz_guide() -> pd.DataFrame:
    """Return which functions of ArviZ mean something for this package's draws.

    Every draw of one fit is independent of the others, and a chain is an independent restart of
    the optimisation. So what diagnoses a Markov chain diagnoses nothing here, what compares
    chains compares local optima, and what describes a posterior describes the approximation.

    Returns
    -------
    DataFrame
        Index `function`; columns `meaning` (``yes``, ``only over restarts``, ``no``), `why`, and
        `instead`: what to use, or how.
    """
    rows = [(row.function, row.meaning, row.why, row.instead) for row in ARVIZ_FUNCTIONS]
    table = pd.DataFrame(rows, columns=["function", "meaning", "why", "instead"])
    return table.set_index("function")
