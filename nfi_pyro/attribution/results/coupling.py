"""Results about couplings: how strongly a law couples its factors, and which pairs data confirm."""

from dataclasses import dataclass

import xarray as xr


@dataclass(frozen=True)
class CouplingScores:
    """How strongly laws of returns couple each pair of factors.

    Attributes
    ----------
    table : Dataset over (pair,)
        Largest first. `score`, the mean over dates of ``mean_i|H_ijk| s_j s_k``, >= 0;
        `signed_score`, the same with the sign of H, whose size is at most `score`: both in
        decimal return, means over chains. `score_lower`, `score_upper`, `signed_score_lower` and
        ``_upper``, see `interval`. Coordinates `first` and `second`: the pair's factors.
    by_chain : Dataset over (chain, pair)
        `score` and `signed_score` of each fit, pairs as in `table`.
    factors : tuple of str
        In the order of the law.
    interval : str
        What the bounds are.
    n_dates, n_skipped : int
        Dates that count, and dates left out because fewer than two assets entered.
    """

    table: xr.Dataset
    by_chain: xr.Dataset
    factors: tuple[str, ...]
    interval: str
    n_dates: int
    n_skipped: int


@dataclass(frozen=True)
class MinedCouplings:
    """Pairs of factors whose product prices returns that the fit was not trained on, or does not.

    Attributes
    ----------
    table : Dataset over (pair,)
        Most significant first; coordinates `first` and `second`. Of the laws: `score`,
        `signed_score` and their bounds as in `CouplingScores`; `h_squared` (Friedman's) and
        `interaction_scale` (decimal return), means over chains. Of the returns on discovery dates:
        `slope`, decimal return per standard deviation of each of the two exposures, all other
        products equal: what `signed_score` says of the law; its `t_statistic`; `own_share` of the
        product's variance that exposures, squares and other products do not explain: little is
        told of a product with little of its own; `n_dates` on which it has any; `p_value`,
        two-sided, of sign flips; `q_value`, Benjamini-Hochberg over the pairs tested;
        `discovered` (bool), q at most `level`. Of the returns on confirmation dates, where there
        are any: `ic_uplift`, by how much the mean Rank IC of the linear combination rises when the
        product is added, `ic_uplift_lower`, ``_upper`` (95 percent, Newey-West) and
        `n_confirmation_dates`. NaN: `p_value` and
        `q_value` of pairs that are not tested, `slope` and `t_statistic` too where other terms
        determine the product; `h_squared`, `interaction_scale` and all of confirmation but for the
        first 20 pairs and those discovered.
    slope : DataArray, shape (date, pair)
        What each discovery date says, decimal return; its mean over dates is the table's `slope`.
    confirmation : Dataset or None
        `linear_ic` (date,), Rank IC of the linear combination, and `ic_uplift` (date, pair) of
        the pairs followed up; None without confirmation dates.
    level : float
        Expected share of false discoveries among all, at most; without any true coupling, the
        probability of a discovery.
    n_permutations : int
        Sign flips behind each p-value; none is below ``1 / (n_permutations + 1)``.
    n_tested, n_untested, n_screened : int
        Pairs tested; pairs that other terms determine, or with a product on too few dates; pairs
        left out beforehand for their score.
    n_dates, n_skipped, n_overlapping : int
        Discovery dates that count; with too few assets, or labels that the linear part explains;
        left out since their label overlaps that of a date that counts.
    n_confirmation_skipped : int
        Confirmation dates with too few assets.
    interval : str
        What the bounds of the scores are.
    """

    table: xr.Dataset
    slope: xr.DataArray
    confirmation: xr.Dataset | None
    level: float
    n_permutations: int
    n_tested: int
    n_untested: int
    n_screened: int
    n_dates: int
    n_skipped: int
    n_overlapping: int
    n_confirmation_skipped: int
    interval: str

    @property
    def discovered(self) -> tuple[tuple[str, str], ...]:
        """Names of the pairs discovered, most significant first."""
        found = self.table.isel(pair=self.table["discovered"].to_numpy())
        names = zip(found["first"].values, found["second"].values, strict=True)
        return tuple((str(first), str(second)) for first, second in names)
