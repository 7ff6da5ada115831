"""FactorVAE (Duan, Wang, Zhang, Li; AAAI-22): latent factors with prior-posterior learning."""

from nfi_pyro.factor_vae.model import FactorVAE
from nfi_pyro.factor_vae.spec import FactorVAESpec

__all__ = ["FactorVAE", "FactorVAESpec"]
