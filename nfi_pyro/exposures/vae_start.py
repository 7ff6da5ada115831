"""Where the autoencoder begins: at probabilistic PCA, which is its linear case."""

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from nfi_pyro.exposures.ppca import closed_form
from nfi_pyro.exposures.rows import Moments, fix_signs, principal_axes
from nfi_pyro.exposures.vae import VAE


def start_at_ppca(module: VAE, moments: Moments) -> None:
    """Set the linear maps of a fresh `VAE` to the PPCA of its training rows, in place.

    A factorised guide holds the exact posterior of a linear decoder only when its columns are
    orthogonal, and gradient steps rotate a random start towards that very slowly; from here they
    need not. The perceptrons' last layers are zero in a fresh module, so it starts as PPCA.
    Latents beyond the rank of the rows less one keep their random columns and start at the prior.

    Parameters
    ----------
    module : VAE
    moments : Moments
        Of the training rows, missing entries at their mean.
    """
    spec, covariance = module.spec, moments.scatter / moments.n
    n_features = len(moments.mean)
    n_axes = min(spec.n_factors, principal_axes(covariance)[2] - 1)
    if n_axes < 1:
        return  # one feature alone: no direction to start along
    found = closed_form(covariance, moments.mean, n_axes)
    loadings, noise = fix_signs(found.loadings), found.noise_variance
    gain = loadings / (noise + (loadings**2).sum(axis=0))  # columns are orthogonal
    scale = np.ones(spec.n_factors)
    scale[:n_axes] = np.sqrt(noise / (noise + (loadings**2).sum(axis=0)))
    line = module.encoder_line
    last = cast(nn.Linear, module.encoder_net[-1])
    with torch.no_grad():
        module.decoder_line.weight[:, :n_axes] = torch.as_tensor(loadings)
        module.decoder_line.bias.copy_(torch.as_tensor(moments.mean))
        line.weight.zero_()
        line.bias.zero_()
        line.weight[:n_axes, :n_features] = torch.as_tensor(gain.T)
        # The centre goes with the flags, so that a missing entry contributes nothing.
        line.weight[:n_axes, n_features:] = torch.as_tensor(-(gain.T * moments.mean))
        last.bias[spec.n_factors :] = _raw(scale, spec.scale_floor)
        if spec.noise_scale is None:
            module.raw_noise.fill_(float(_raw(np.array(math.sqrt(noise)), spec.scale_floor)))


def _raw(scale: np.ndarray, floor: float) -> Tensor:
    """Return what softplus plus the floor turns into `scale`, at least twice the floor."""
    above = np.maximum(scale, 2.0 * floor) - floor
    return torch.as_tensor(above + np.log(-np.expm1(-above)))
