"""Slopes of risk: by how much a measure rises with each weight and with each factor exposure."""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from nfi_pyro.posterior.portfolio_law import PortfolioLaw, check_level

STANDARD_DEVIATION = "standard_deviation"
VALUE_AT_RISK, EXPECTED_SHORTFALL = "value_at_risk", "expected_shortfall"
TAILS = (VALUE_AT_RISK, EXPECTED_SHORTFALL)


class RiskSlopes(NamedTuple):
    """A risk measure and the slopes of its risk part, the measure without the mean it contains.

    Value at risk and expected shortfall are ``-E[r_p]`` plus a risk part, the standard deviation
    is a risk part alone. Every risk part is homogeneous of degree one: ``sum_i w_i slope_i``.

    Attributes
    ----------
    value, value_error : float
        The whole measure, decimal return, and its standard error.
    asset, asset_error : ndarray, shape (asset,)
        Slope by weight, decimal return, and standard errors; 0 in closed form.
    factor, factor_error : ndarray, shape (factor,)
        Slope by the portfolio's exposure, decimal return.
    own_error : float
        Standard error of what the factors leave of the risk part.
    """

    value: float
    value_error: float
    asset: np.ndarray
    asset_error: np.ndarray
    factor: np.ndarray
    factor_error: np.ndarray
    own_error: float


def exact_slopes(value: float, asset: np.ndarray, factor: np.ndarray) -> RiskSlopes:
    """Return a measure and its slopes in closed form: without errors."""
    return RiskSlopes(value, 0.0, asset, np.zeros_like(asset), factor, np.zeros_like(factor), 0.0)


def expected_returns(law: PortfolioLaw) -> np.ndarray:
    """Return the expected return of each asset, (asset,)."""
    found: np.ndarray = law.specific_mean + law.beta @ law.factor_loc
    return found


def deviation_slopes(law: PortfolioLaw) -> RiskSlopes:
    """Return the standard deviation with ``Cov(r_i, r_p) / sd`` and ``Cov(z_k, r_p) / sd``.

    Under a copula of its first-order covariance, see `ReturnForecast.covariance`.
    """
    return _exact(law, law.standard_deviation, 1.0)


def normal_tail_slopes(law: PortfolioLaw, level: float) -> dict[str, RiskSlopes]:
    """Return both tail measures of a normal law: the slopes of its deviation, times a number."""
    check_level(level)
    score = float(ndtri(level))
    beyond = float(np.exp(-0.5 * score**2) / np.sqrt(2.0 * np.pi) / (1.0 - level))
    (at_risk, _), (shortfall, _) = law.tail_risks((level,))[0]
    return {
        VALUE_AT_RISK: _exact(law, at_risk, score),
        EXPECTED_SHORTFALL: _exact(law, shortfall, beyond),
    }


def _exact(law: PortfolioLaw, value: float, multiple: float) -> RiskSlopes:
    """Return a measure whose risk part is a multiple of the standard deviation."""
    share = multiple / law.standard_deviation
    asset = share * law.covariance.matvec(law.weights)
    factor = share * np.square(law.factor_scale) * law.exposure
    return exact_slopes(value, asset, factor)
