"""Results of tracking: the geometry of a run by date, each figure with its flag."""

from dataclasses import dataclass

import xarray as xr

from nfi_pyro.geometry.results.regime import RegimeShifts


@dataclass(frozen=True)
class Tracking:
    """Where the market's factors and a portfolio's exposure are, by date.

    Dimensions in brackets are there where several fits were given. What a date says is known at
    its close.

    Attributes
    ----------
    figures : Dataset over ([chain], date)
        Dimensionless unless said. Of the factors' law: `state_step`, Fisher-Rao distance from the
        date before; `state_travelled`, their sum; `state_displacement`, distance from the first
        date; `shift_p_value` of a regime alarm. Of the pricing law, at the portfolio's exposure
        and, with `benchmark_` before it, at its benchmark's: `effective_rank`, directions that
        1 / eps returns can see; `principal_curvature` of the plane in which the law moves most.
        `distance`, geodesic, of the portfolio's exposure from its benchmark's, and bounds of it,
        `distance_lower` and `distance_upper`; `mahalanobis`, the farthest that geodesic is from
        the cloud of exposures, standard deviations. `crowding`, divergence of the flow of all
        exposures, per date, below 0 where they draw together, and `crowding_standard_error`.
        `portfolio_uncovered`, `benchmark_uncovered`: share of absolute weight in assets without a
        law, whose exposure is taken to be the rest's. `n_assets` with a law.
    ok : Dataset of bool over ([chain], date)
        For every figure, whether it is identified. A figure is finite wherever it is; where it is
        not it may be NaN, or a number that means nothing. See `track` for the rules.
    exposure : DataArray, shape ([chain], book, date, factor)
        ``B'w`` of ``portfolio`` and ``benchmark``, NaN where no asset held has a law. Of several
        fits, each in its own factors.
    interval : Dataset over (bound, date), or None
        Of figures over fits, bounds ``lower`` and ``upper``, where at least two are ok.
    interval_source : str
        What `interval` is made from, or why there is none. The spread of restarts is no
        posterior; that of a fit's draws is.
    level : float
        Probability that one more fit is between the bounds, see `interval_over`.
    precision : DataArray, shape ([chain], factor, factor_other)
        Lambda, the same on all dates.
    precision_source : str
        What Lambda is the inverse covariance of.
    eps : float
        Weight of Lambda.
    shifts : RegimeShifts or None
        Of the alarm that was given.
    """

    figures: xr.Dataset
    ok: xr.Dataset
    exposure: xr.DataArray
    interval: xr.Dataset | None
    interval_source: str
    level: float
    precision: xr.DataArray
    precision_source: str
    eps: float
    shifts: RegimeShifts | None

    def to_dataset(self) -> xr.Dataset:
        """Return one table of every figure, its ``<figure>_ok`` and its bounds if there are any.

        Bounds are ``<figure>_interval_lower`` and ``<figure>_interval_upper``.
        Over ([chain], date); `to_dataframe()` of it is what a file holds.
        """
        found = self.figures.assign({f"{name}_ok": flag for name, flag in self.ok.items()})
        if self.interval is not None:
            for side in ("lower", "upper"):
                bound = self.interval.sel(bound=side, drop=True)
                found = found.assign(
                    {f"{name}_interval_{side}": one for name, one in bound.items()}
                )
        return found.assign_attrs(
            eps=self.eps,
            precision=f"inverse covariance of {self.precision_source}",
            interval=self.interval_source,
        )
