"""Results of a back-test of value at risk and expected shortfall."""

from dataclasses import dataclass

import xarray as xr

from nfi_pyro.diagnostics.results.verdict import Verdict


@dataclass(frozen=True)
class LikelihoodRatio:
    """A likelihood-ratio test with its usual and its small-sample p-value.

    Attributes
    ----------
    statistic : float
        Twice the log-likelihood ratio, >= 0.
    p_value : float
        From the chi-square law, right for many exceedances only.
    small_sample_p_value : float
        Coverage: exact binomial, two-sided. Independence: share of permutations of the dates with
        a statistic as large. Conditional coverage: share of simulated independent series with the
        nominal probability. The verdict reads this one.
    """

    statistic: float
    p_value: float
    small_sample_p_value: float


@dataclass(frozen=True)
class ShortfallTest:
    """Whether losses beyond the value at risk are as large as the expected shortfall says.

    Attributes
    ----------
    mean_residual : float
        Mean over exceedances of ``loss / expected_shortfall - 1``: 0 is right, above 0 the
        shortfall is understated. NaN without exceedances.
    p_value : float
        One-sided bootstrap p-value of a mean of 0 against above 0 (McNeil and Frey, 2000); NaN
        with fewer than 5 exceedances.
    acerbi_szekely : float
        ``Z2 = 1 - sum(loss / expected_shortfall over exceedances) / (n (1 - level))`` (Acerbi and
        Szekely, 2014): 0 is right, negative is too little risk; it feels number and size of the
        exceedances. No p-value, which would take the whole forecast law.
    """

    mean_residual: float
    p_value: float
    acerbi_szekely: float


@dataclass(frozen=True)
class ValueAtRiskBacktest:
    """How often and when a portfolio lost more than its value at risk.

    Attributes
    ----------
    level : float
        Of the value at risk: a loss exceeds it with the nominal probability ``1 - level``.
    horizon : int
        Trading days of the returns; above 1 they overlap and no test here is right.
    exceeded : DataArray of bool, shape (date,)
        On the dates that count.
    n_dates, n_dropped : int
        Dates that count, and dates with a NaN.
    n_exceedances : int
    n_expected : float
        ``n_dates (1 - level)``.
    exceedance_share : float
        ``n_exceedances / n_dates``.
    coverage : LikelihoodRatio
        Kupiec (1995): is the probability of an exceedance the nominal one?
    independence : LikelihoodRatio
        Christoffersen (1998): is it the same after an exceedance as after none? Only neighbouring
        dates that both count enter.
    conditional_coverage : LikelihoodRatio
        Both at once: the two statistics added, two degrees of freedom.
    shortfall : ShortfallTest or None
        None if no expected shortfall was given.
    alternative : float
        Multiple of the nominal probability for which `power` is stated.
    power : float
        Exact probability that the two-sided binomial test at 5 percent rejects when exceedances
        are `alternative` times as likely as nominal.
    verdict : Verdict
    """

    level: float
    horizon: int
    exceeded: xr.DataArray
    n_dates: int
    n_dropped: int
    n_exceedances: int
    n_expected: float
    exceedance_share: float
    coverage: LikelihoodRatio
    independence: LikelihoodRatio
    conditional_coverage: LikelihoodRatio
    shortfall: ShortfallTest | None
    alternative: float
    power: float
    verdict: Verdict
