"""Exact Gaussian factor posteriors and evidence, through K x K matrices only."""

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from nfi_pyro.distributions.low_rank import LowRankPlusDiagonal, project


def gaussian_factor_posterior(
    residual: Tensor,
    observed: Tensor,
    beta: Tensor,
    specific_variance: Tensor,
    factor_loc: Tensor,
    factor_scale: Tensor,
) -> MultivariateNormal:
    r"""Posterior of the factors of each date, exact when the specific part is Gaussian.

    ``p(z | x, y) = N(m + P^{-1} B'W (y - alpha - B m), P^{-1})`` with
    ``P = S^{-1} + B'WB`` and ``W = diag(1 / specific_variance)`` over observed assets
    (Bayes' rule for linear Gaussian models). A date without an observed return gives the prior
    back exactly.

    Parameters
    ----------
    residual : Tensor, shape (date, asset)
        ``y - alpha``, finite everywhere (any number where not observed).
    observed : Tensor of bool, shape (date, asset)
        Which returns count.
    beta : Tensor, shape (date, asset, factor)
        Exposures.
    specific_variance : Tensor, shape (date, asset)
        > 0.
    factor_loc, factor_scale : Tensor, shape (date, factor)
        Prior; scale > 0.

    Returns
    -------
    MultivariateNormal
        Batch (date,), event (factor,), parametrised by its scale_tril.
    """
    weight = observed.to(beta.dtype) / specific_variance  # (date, asset)
    weighted = beta * weight.unsqueeze(-1)
    prior_precision = factor_scale.square().reciprocal()
    precision = beta.transpose(-1, -2) @ weighted + torch.diag_embed(prior_precision)
    surprise = torch.where(observed, residual - project(beta, factor_loc), 0.0)
    shift = (weighted * surprise.unsqueeze(-1)).sum(-2)  # (date, factor)
    factor = torch.linalg.cholesky(precision)
    loc = factor_loc + torch.cholesky_solve(shift.unsqueeze(-1), factor).squeeze(-1)
    scale_tril = torch.linalg.cholesky(torch.cholesky_inverse(factor))
    return MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)


def low_rank_evidence(
    residual: Tensor,
    observed: Tensor,
    beta: Tensor,
    specific_variance: Tensor,
    factor_loc: Tensor,
    factor_scale: Tensor,
) -> Tensor:
    r"""Joint log density of the observed returns of each date, factors integrated out.

    ``log N(y | alpha + B m, B S B' + diag(v))`` by the Woodbury identity and the determinant
    lemma, so that no asset x asset matrix appears. Arguments as in `gaussian_factor_posterior`.

    Returns
    -------
    Tensor, shape (date,)
        Nats; 0 on a date without an observed return.
    """
    covariance = LowRankPlusDiagonal(beta * factor_scale.unsqueeze(-2), specific_variance)
    return covariance.log_prob(residual - project(beta, factor_loc), observed)
