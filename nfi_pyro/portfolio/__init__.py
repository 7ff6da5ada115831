"""Risk of portfolios under a forecast."""

from nfi_pyro.portfolio.results import PortfolioRisk
from nfi_pyro.portfolio.risk import equal_weights, portfolio_risk
from nfi_pyro.portfolio.weights import read_weights

__all__ = ["PortfolioRisk", "equal_weights", "portfolio_risk", "read_weights"]
