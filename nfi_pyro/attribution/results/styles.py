"""Results about styles: what a signal or a portfolio has in common with them."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import xarray as xr

from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.dims import FACTOR
from nfi_pyro.linear_factor.results import CrossSectionalRegression


@dataclass(frozen=True)
class StyleReturns:
    """What of a portfolio's returns goes with the returns of styles, over dates.

    Attributes
    ----------
    regression : CrossSectionalRegression
        Of the assets' returns on the styles, by date: the factor returns.
    portfolio_return : DataArray, shape (date,)
        Decimal, of the positions with an observed return; NaN on a date without any.
    unobserved_share : DataArray, shape (date,)
        Share, 0 to 1, of the gross weight that has no observed return.
    by_factor : Dataset over (factor,)
        Market, where the regression has an intercept, then styles. `correlation` of the
        portfolio's return with the factor's, over dates; of the regression on all of them
        together, `beta`, its Newey-West `standard_error` and `t_statistic`. NaN for a factor that
        never has a return, repeats the others, or on too few dates.
    alpha, alpha_error, alpha_t : float
        Intercept of that regression, decimal return by label period, likewise.
    r_squared, adjusted_r_squared : float
        Of that regression.
    n_dates, n_left_out : int
        Dates that count in `by_factor`, and dates without a portfolio or factor return.
    n_lags : int
        Autocovariances in the errors.
    """

    regression: CrossSectionalRegression
    portfolio_return: xr.DataArray
    unobserved_share: xr.DataArray
    by_factor: xr.Dataset
    alpha: float
    alpha_error: float
    alpha_t: float
    r_squared: float
    adjusted_r_squared: float
    n_dates: int
    n_left_out: int
    n_lags: int


@dataclass(frozen=True)
class StyleReport:
    """What a signal or a portfolio has in common with styles.

    Attributes
    ----------
    kind : {"signal", "weights"}
    by_date : Dataset over (date, factor)
        `correlation` with the style over the assets that have both, `n_pairs` of them, NaN with
        too few or without variation; `exposure`, sum of weight times exposure, of the weights or
        of the signal's own long-short portfolio; `unexposed_share`, of the gross weight, 0 to 1,
        held in assets without the exposure, which add nothing.
    regression : Dataset
        Of the signal, standardised by date, on all styles together: `coefficient`,
        `standard_error` and `t_statistic` (date, factor), over the columns of market, industries
        and styles; `r_squared`, `adjusted_r_squared` and `n_assets` (date,); `residual` (date,
        asset), the signal that no style explains. NaN on dates without a regression.
    summary : Dataset over (factor,)
        Over dates, by style: `correlation_mean`, `correlation_sd` (ddof 1), `correlation_ratio`
        of the two (as the ICIR, not annualised), `correlation_error` and `correlation_t` (Newey
        and West), `correlation_dates`; `coefficient_mean`, `coefficient_error`, `coefficient_t`
        and `coefficient_dates` likewise; `exposure_mean` and `exposure_sd` over dates with a
        position. Attribute ``n_lags``.
    r_squared_mean : float
        Of the regression by date, over the dates that have one.
    returns : StyleReturns, optional
        Where returns were given.
    unavailable : mapping of str to str
        Styles that are not in the report, and why.
    ledger : DropLedger
        What was left out, and how often.
    """

    kind: str
    by_date: xr.Dataset
    regression: xr.Dataset
    summary: xr.Dataset
    r_squared_mean: float
    returns: StyleReturns | None
    unavailable: Mapping[str, str]
    ledger: DropLedger

    def table(self) -> pd.DataFrame:
        """Return one row a style, those that are missing last.

        Returns
        -------
        DataFrame
            ``correlation``, ``correlation_ratio`` and ``correlation_t``: mean over dates, mean
            over standard deviation, and Newey-West t of the cross-sectional correlation;
            ``coefficient`` and ``coefficient_t`` of the joint cross-sectional regression;
            ``exposure``, mean over dates; with returns also ``return_correlation``,
            ``return_r_squared`` (its square, the style alone), ``return_beta`` and
            ``return_beta_t`` of the joint regression over dates. ``note``: empty, or why the
            style is missing, its numbers NaN. Attributes: ``r_squared`` of the cross-sectional
            regression (mean over dates) and, with returns, ``return_r_squared`` of the joint
            regression over dates.
        """
        columns: dict[str, xr.DataArray] = {
            "correlation": self.summary["correlation_mean"],
            "correlation_ratio": self.summary["correlation_ratio"],
            "correlation_t": self.summary["correlation_t"],
            "coefficient": self.summary["coefficient_mean"],
            "coefficient_t": self.summary["coefficient_t"],
            "exposure": self.summary["exposure_mean"],
        }
        attrs = {"r_squared": self.r_squared_mean}
        if self.returns is not None:
            over_dates = self.returns.by_factor.sel({FACTOR: self.summary[FACTOR]})
            columns |= {
                "return_correlation": over_dates["correlation"],
                "return_r_squared": over_dates["correlation"] ** 2,
                "return_beta": over_dates["beta"],
                "return_beta_t": over_dates["t_statistic"],
            }
            attrs["return_r_squared"] = self.returns.r_squared
        index = pd.Index([*self.summary[FACTOR].to_numpy(), *self.unavailable], name="style")
        rows = {name: values.to_series() for name, values in columns.items()}
        found = pd.DataFrame(rows).reindex(index)
        found["note"] = [self.unavailable.get(str(style), "") for style in index]
        found.attrs.update(attrs)
        return found
