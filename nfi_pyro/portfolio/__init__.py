"""Risk of portfolios under a forecast."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nfi_pyro.portfolio.results import PortfolioRisk
    from nfi_pyro.portfolio.risk import equal_weights, portfolio_risk
    from nfi_pyro.portfolio.weights import read_weights

_HOMES = {
    "PortfolioRisk": "nfi_pyro.portfolio.results",
    "equal_weights": "nfi_pyro.portfolio.risk",
    "portfolio_risk": "nfi_pyro.portfolio.risk",
    "read_weights": "nfi_pyro.portfolio.weights",
}

__all__ = ["PortfolioRisk", "equal_weights", "portfolio_risk", "read_weights"]


def __getattr__(name: str) -> object:
    """Import a public name on first use: results alone need no torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
