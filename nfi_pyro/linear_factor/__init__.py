"""The linear factor model: returns of factors date by date, their covariance and specific risk."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfi_pyro.linear_factor.factor_risk import factor_covariance
    from nfi_pyro.linear_factor.model import LinearFactor
    from nfi_pyro.linear_factor.premia import fama_macbeth
    from nfi_pyro.linear_factor.regression import cross_sectional_regression
    from nfi_pyro.linear_factor.results import (
        CrossSectionalRegression,
        FactorCovariance,
        FactorPremia,
        SpecificRisk,
    )
    from nfi_pyro.linear_factor.risk_model import LinearRiskModel, linear_risk_model
    from nfi_pyro.linear_factor.spec import LinearFactorSpec
    from nfi_pyro.linear_factor.specific import specific_risk
    from nfi_pyro.linear_factor.student_t import StudentT

_HOMES = {
    "CrossSectionalRegression": "results",
    "FactorCovariance": "results",
    "FactorPremia": "results",
    "LinearFactor": "model",
    "LinearFactorSpec": "spec",
    "LinearRiskModel": "risk_model",
    "SpecificRisk": "results",
    "StudentT": "student_t",
    "cross_sectional_regression": "regression",
    "factor_covariance": "factor_risk",
    "fama_macbeth": "premia",
    "linear_risk_model": "risk_model",
    "specific_risk": "specific",
}

__all__ = [
    "CrossSectionalRegression",
    "FactorCovariance",
    "FactorPremia",
    "LinearFactor",
    "LinearFactorSpec",
    "LinearRiskModel",
    "SpecificRisk",
    "StudentT",
    "cross_sectional_regression",
    "factor_covariance",
    "fama_macbeth",
    "linear_risk_model",
    "specific_risk",
]


def __getattr__(name: str) -> Any:
    """Return a public name from the module that defines it, imported on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
