"""Pure mathematics on tensors: mixtures, shared-factor laws and exact factor posteriors."""

from nfi_pyro.distributions.factor_mixture import FactorMixture, FactorReturn
from nfi_pyro.distributions.factor_posterior import gaussian_factor_posterior, low_rank_evidence
from nfi_pyro.distributions.heads import HeadPosterior, HeadSpec
from nfi_pyro.distributions.low_rank import LowRankPlusDiagonal
from nfi_pyro.distributions.mixture import MixtureOfNormals

__all__ = [
    "FactorMixture",
    "FactorReturn",
    "HeadPosterior",
    "HeadSpec",
    "LowRankPlusDiagonal",
    "MixtureOfNormals",
    "gaussian_factor_posterior",
    "low_rank_evidence",
]
