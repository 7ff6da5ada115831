"""Exposure synthesis: PCA, probabilistic PCA and a variational autoencoder over features.

Many features per asset become a few factor exposures (date, asset, factor). Standardisation is
the caller's: fit the transforms on the training dates first. Names load on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nfi_pyro.exposures.evidence import PPCAChoice, VAEChoice, choose_ppca, choose_vae
    from nfi_pyro.exposures.fidelity import FidelityReport, fidelity_report
    from nfi_pyro.exposures.generate import augment, generate_features
    from nfi_pyro.exposures.pca import PCAFit, fit_pca
    from nfi_pyro.exposures.ppca import fit_ppca
    from nfi_pyro.exposures.ppca_result import PPCAFit
    from nfi_pyro.exposures.ppca_svi import PPCAModel, fit_ppca_svi
    from nfi_pyro.exposures.vae import VAE, VAESpec
    from nfi_pyro.exposures.vae_fit import VAETraining, fit_vae
    from nfi_pyro.exposures.vae_result import VAEFit

__all__ = [
    "VAE",
    "FidelityReport",
    "PCAFit",
    "PPCAChoice",
    "PPCAFit",
    "PPCAModel",
    "VAEChoice",
    "VAEFit",
    "VAESpec",
    "VAETraining",
    "augment",
    "choose_ppca",
    "choose_vae",
    "fidelity_report",
    "fit_pca",
    "fit_ppca",
    "fit_ppca_svi",
    "fit_vae",
    "generate_features",
]

_HOMES = {
    "augment": "generate",
    "choose_ppca": "evidence",
    "choose_vae": "evidence",
    "fidelity_report": "fidelity",
    "FidelityReport": "fidelity",
    "fit_pca": "pca",
    "fit_ppca": "ppca",
    "fit_ppca_svi": "ppca_svi",
    "fit_vae": "vae_fit",
    "generate_features": "generate",
    "PCAFit": "pca",
    "PPCAFit": "ppca_result",
    "PPCAModel": "ppca_svi",
    "PPCAChoice": "evidence",
    "VAEChoice": "evidence",
    "VAE": "vae",
    "VAEFit": "vae_result",
    "VAESpec": "vae",
    "VAETraining": "vae_fit",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
