"""Stochastic variational inference: objective, loop, checkpoint; knows a protocol, no model."""

from nfi_pyro.svi.config import SVIConfig
from nfi_pyro.svi.fit import fit_svi
from nfi_pyro.svi.objective import ObjectiveTerms, evaluate_objective
from nfi_pyro.svi.penalty_path import PenaltyPath, fit_penalty_path
from nfi_pyro.svi.protocol import PricingModel, VariationalModel
from nfi_pyro.svi.restarts import fit_restarts
from nfi_pyro.svi.trained import SVIFit

__all__ = [
    "ObjectiveTerms",
    "PenaltyPath",
    "PricingModel",
    "SVIConfig",
    "SVIFit",
    "VariationalModel",
    "evaluate_objective",
    "fit_penalty_path",
    "fit_restarts",
    "fit_svi",
]
