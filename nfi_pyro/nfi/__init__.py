"""NFI, the joint model: learned exposures, latent factors, and one pricing mechanism."""

from nfi_pyro.nfi.model import NFI
from nfi_pyro.nfi.spec import NFISpec

__all__ = ["NFI", "NFISpec"]
