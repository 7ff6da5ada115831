"""Result of looking for factors that carry nothing."""

from dataclasses import dataclass

import xarray as xr

from nfi_pyro.diagnostics.results.verdict import Verdict


@dataclass(frozen=True)
class Collapse:
    """Which factors the data speak through.

    Attributes
    ----------
    factors : Dataset over (factor,)
        `kl`: divergence of posterior from prior, marginal Gaussians, mean over dates, nats.
        `activity`: variance over dates of ``(posterior_loc - prior_loc) / prior_scale``; about
        ``1 - posterior variance / prior variance`` in a right model, 0 in a collapsed one.
        `variance_share`: share of the factor in the mean of ``beta' S beta``, S the prior
        variance; adds up to 1. `prior_ratio`: prior standard deviation over the root mean square
        distance of the posterior from the prior mean, its own variance included; 1 is right,
        near 0 the prior has collapsed onto its mean. `active`: bool.
    kl_joint : float
        Divergence with the full posterior covariance, mean over dates, nats; NaN without it.
    n_active : int
        Factors with activity and variance share above the threshold.
    effective_factors : float
        ``(sum lambda)^2 / sum lambda^2`` over the eigenvalues of the mean of
        ``S^1/2 beta' beta S^1/2``: the same under every rotation and scale; a copy of a factor
        adds nothing.
    factor_variance_share : float
        Mean of ``beta' S beta`` over that plus specific variance; NaN if that was not given.
    verdict : Verdict
    """

    factors: xr.Dataset
    kl_joint: float
    n_active: int
    effective_factors: float
    factor_variance_share: float
    verdict: Verdict
