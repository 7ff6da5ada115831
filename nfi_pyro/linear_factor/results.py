"""Results of the linear factor model: frozen arrays and counts, no fitting."""

from dataclasses import dataclass

import xarray as xr

from nfi_pyro.data.checks.quality import DropLedger


@dataclass(frozen=True)
class CrossSectionalRegression:
    """Factor returns of every date, and how well they were measured.

    The arrays carry the attributes of the returns (start_lag, horizon, unit). Whatever stands at
    date t uses the label of t, so it is known at the close of t + start_lag + horizon and not
    before. The coordinate ``kind`` of `factor` says market, industry or style.

    Attributes
    ----------
    factor_returns : DataArray, shape (date, factor)
        Unit of the returns per unit of exposure; NaN where the column was dropped, absent, or the
        date has no regression.
    standard_errors, t_statistics : DataArray, shape (date, factor)
        Standard error of the factor return, > 0, and their ratio; NaN likewise, and where the
        error is 0.
    specific_returns, fitted : DataArray, shape (date, asset)
        Residual and fitted return; NaN for assets left out.
    r_squared, adjusted_r_squared : DataArray, shape (date,)
        Weighted shares of the variation around the weighted mean (around 0 when the columns do
        not span a constant); NaN when the returns do not vary.
    residual_scale : DataArray, shape (date,)
        Scale of the residual of an asset of average weight, > 0: a standard deviation for
        Gaussian noise, the scale parameter of the t distribution for Student-t.
    degrees_of_freedom : DataArray, shape (date,)
        Of the t distribution; infinite for Gaussian noise.
    converged : DataArray of bool, shape (date,)
        Whether the iteration met its tolerance; true for Gaussian noise, false without regression.
    condition : DataArray, shape (date,)
        Largest over smallest singular value of the weighted kept columns, each scaled to length 1.
    n_assets, n_left_out, n_columns : DataArray of int, shape (date,)
        Assets in the regression, the others, and independent columns kept.
    dropped : DataArray of bool, shape (date, factor)
        Columns that are a linear combination of those before them.
    absent : DataArray of bool, shape (date, factor)
        Industries without an asset in the regression.
    ledger : DropLedger
        Cells, columns and dates left out, with the reason and places.
    """

    factor_returns: xr.DataArray
    standard_errors: xr.DataArray
    t_statistics: xr.DataArray
    specific_returns: xr.DataArray
    fitted: xr.DataArray
    r_squared: xr.DataArray
    adjusted_r_squared: xr.DataArray
    residual_scale: xr.DataArray
    degrees_of_freedom: xr.DataArray
    converged: xr.DataArray
    condition: xr.DataArray
    n_assets: xr.DataArray
    n_left_out: xr.DataArray
    n_columns: xr.DataArray
    dropped: xr.DataArray
    absent: xr.DataArray
    ledger: DropLedger


@dataclass(frozen=True)
class FactorCovariance:
    """Covariance of factor returns over one label period, and what was done to get it.

    Attributes
    ----------
    covariance : DataArray, shape (factor, other_factor) or (date, factor, other_factor)
        Squared unit of the factor returns. NaN for factors, or dates, with too few observations.
    mean : DataArray, shape (factor,) or (date, factor)
        Weighted mean that was subtracted; 0 where nothing was subtracted.
    smallest_eigenvalue, largest_eigenvalue : DataArray, shape () or (date,)
        Of the known part, before any change; NaN where nothing is known.
    n_clipped : DataArray of int, shape () or (date,)
        Negative eigenvalues set to 0; 0 unless that was asked for.
    n_dates : DataArray of int, shape (factor,) or (date, factor)
        Observations of each factor that entered.
    effective_dates : DataArray, shape () or (date,)
        One over the sum of squared weights of the dates used.
    ledger : DropLedger
        Dates and factors left out, eigenvalues clipped.
    """

    covariance: xr.DataArray
    mean: xr.DataArray
    smallest_eigenvalue: xr.DataArray
    largest_eigenvalue: xr.DataArray
    n_clipped: xr.DataArray
    n_dates: xr.DataArray
    effective_dates: xr.DataArray
    ledger: DropLedger


@dataclass(frozen=True)
class SpecificRisk:
    """Specific variance of every asset over one label period.

    Attributes
    ----------
    variance : DataArray, shape (asset,) or (date, asset)
        Squared unit of the specific returns, >= 0; NaN for assets with too few observations.
    n_observations : DataArray of int, same shape
        Specific returns that entered.
    ledger : DropLedger
        Assets left without a variance.
    """

    variance: xr.DataArray
    n_observations: xr.DataArray
    ledger: DropLedger


@dataclass(frozen=True)
class FactorPremia:
    """Mean factor returns over dates (Fama and MacBeth, 1973).

    Attributes
    ----------
    mean, standard_error, t_statistic : DataArray, shape (factor,)
        Mean over the dates with a factor return, its Newey-West error and their ratio, per label
        period; error and ratio NaN with fewer than two dates.
    n_dates : DataArray of int, shape (factor,)
        Dates with a factor return.
    n_lags : int
        Lags of the error.
    """

    mean: xr.DataArray
    standard_error: xr.DataArray
    t_statistic: xr.DataArray
    n_dates: xr.DataArray
    n_lags: int
