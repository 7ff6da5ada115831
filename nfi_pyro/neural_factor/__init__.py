"""The deck's nonlinear factor model: a network of given exposures plus noise."""

from nfi_pyro.neural_factor.model import NeuralFactor
from nfi_pyro.neural_factor.spec import NeuralFactorSpec

__all__ = ["NeuralFactor", "NeuralFactorSpec"]
