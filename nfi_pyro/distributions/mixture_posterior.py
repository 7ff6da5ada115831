"""Factor posteriors of a date when the specific part is a mixture of normals, encoder-free."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.distributions.factor_posterior import gaussian_factor_posterior
from nfi_pyro.distributions.low_rank import project
from nfi_pyro.distributions.quadrature import place_nodes

CAVI_STEPS = 3
NEWTON_STEPS = 2
NODES = 15
_STEP_SIZES = (1.0, 0.5, 0.25, 0.1)
_CELLS = 2**17  # component densities in hand at a time: few calls, and arrays that stay cached
_SLACK = 1e-6  # of the bound: what rounding may take from it in single precision


def factor_posterior(
    law: FactorMixture,
    value: Tensor,
    observed: Tensor,
    *,
    cavi_steps: int = CAVI_STEPS,
    newton_steps: int = NEWTON_STEPS,
    n_nodes: int = NODES,
) -> MultivariateNormal:
    r"""Return the factors' posterior given the returns of each date, full covariance.

    With one component it is exact and Gaussian. With several it is the Gaussian q that makes
    ``E_q[log p(y|z)] - KL(q || p)`` stationary: coordinate ascent between z and the component
    labels first (each step a weighted least squares), then Newton steps on the expected
    log-likelihood by Gauss-Hermite quadrature, with precision
    ``S^{-1} + B' diag(-E_q[d^2 log p]) B``, shortened on a date whose bound would fall. Coordinate
    ascent alone is too narrow, because it cuts the dependence between z and the labels.

    A date without an observed return gives the prior back. Differentiable in the law.

    Parameters
    ----------
    law : FactorMixture
        Batch (date, asset).
    value : Tensor, shape (date, asset)
        Returns, finite everywhere (any number where not observed).
    observed : Tensor of bool, shape (date, asset)
        Which returns count.
    cavi_steps, newton_steps : int
        Of each kind, when there are several components.
    n_nodes : int
        Gauss-Hermite nodes of a Newton step.

    Returns
    -------
    MultivariateNormal
        Batch (date,), event (factor,), parametrised by its scale_tril.
    """
    prior_loc, prior_scale = law.factor_loc, law.factor_scale
    if law.loc.shape[-1] == 1:
        residual, variance = value - law.loc.squeeze(-1), law.scale.squeeze(-1).square()
        return gaussian_factor_posterior(
            residual, observed, law.beta, variance, prior_loc, prior_scale
        )
    own = torch.where(observed.unsqueeze(-1), value.unsqueeze(-1) - law.loc, 0.0)
    loc, covariance = prior_loc, torch.diag_embed(prior_scale.square())
    for _ in range(cavi_steps):
        loc, covariance = _cavi_step(law, own, observed, loc, covariance)
    if newton_steps:
        loc, covariance = _newton(law, own, observed, loc, covariance, newton_steps, n_nodes)
    return MultivariateNormal(
        loc, scale_tril=torch.linalg.cholesky(covariance), validate_args=False
    )


def _spread(beta: Tensor, covariance: Tensor) -> Tensor:
    """Return the variance of ``beta_i.z`` under q, shape (date, asset)."""
    return ((beta @ covariance) * beta).sum(-1)


def _cavi_step(
    law: FactorMixture, own: Tensor, observed: Tensor, loc: Tensor, covariance: Tensor
) -> tuple[Tensor, Tensor]:
    """Return q(z) after the labels' responsibilities were set to theirs."""
    shift, spread = project(law.beta, loc), _spread(law.beta, covariance)
    precision = law.scale.square().reciprocal()
    squares = (own - shift.unsqueeze(-1)).square() + spread.unsqueeze(-1)
    share = torch.softmax(law.logits - law.scale.log() - 0.5 * squares * precision, dim=-1)
    weight = torch.where(observed, (share * precision).sum(-1), 0.0)
    target = torch.where(observed, (share * precision * own).sum(-1), 0.0)
    root = torch.linalg.cholesky(_precision(law, weight))
    prior = law.factor_loc / law.factor_scale.square()
    right = prior + project(law.beta.mT, target)
    return (
        torch.cholesky_solve(right.unsqueeze(-1), root).squeeze(-1),
        torch.cholesky_inverse(root),
    )


class _Expectations(NamedTuple):
    """What a Gaussian q expects of the log-likelihood, and its bound."""

    slope: Tensor  # E_q[d log p(y_i | z) / d(beta_i.z)], (date, asset)
    bend: Tensor  # -E_q[d^2 log p(y_i | z) / d(beta_i.z)^2], (date, asset)
    bound: Tensor  # E_q[log p(y | z)] - KL(q || p) up to a constant, (date,), no gradient


def _newton(
    law: FactorMixture,
    own: Tensor,
    observed: Tensor,
    loc: Tensor,
    covariance: Tensor,
    steps: int,
    n_nodes: int,
) -> tuple[Tensor, Tensor]:
    """Return q(z) after Newton steps on its bound; no date's bound falls.

    Where assets are few or far out, the curvature of a bimodal likelihood can take a full step
    out of all bounds. A date on which it does takes a shorter one, or stays where it is.
    """
    found = _expect(law, own, observed, loc, covariance, n_nodes)
    prior = law.factor_scale.square().reciprocal()
    for _ in range(steps):
        # Bends below 0 are those of assets whose mixture is bimodal there; the sum over assets
        # hardly ever is. A date on which it is falls back on the assets that do bend down.
        wanted = _precision(law, found.bend)
        failed = torch.linalg.cholesky_ex(wanted.detach()).info != 0
        safe = _precision(law, found.bend.clamp(min=0.0))
        wanted = torch.where(failed[:, None, None], safe, wanted)
        step = (law.factor_loc - loc) * prior + project(law.beta.mT, found.slope)
        now = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        better = torch.zeros_like(failed)
        start, bound = loc, found.bound
        for size in _STEP_SIZES:  # in natural parameters: any mix of two precisions is one
            root = torch.linalg.cholesky((1.0 - size) * now + size * wanted)
            move = torch.cholesky_solve(step.unsqueeze(-1), root).squeeze(-1)
            moved = start + size * move, torch.cholesky_inverse(root)
            there = _expect(law, own, observed, *moved, n_nodes)
            taken = ~better & (there.bound >= bound - _SLACK * bound.abs())
            better = better | taken
            loc = torch.where(taken[:, None], moved[0], loc)
            covariance = torch.where(taken[:, None, None], moved[1], covariance)
            found = _Expectations(
                torch.where(taken[:, None], there.slope, found.slope),
                torch.where(taken[:, None], there.bend, found.bend),
                torch.where(taken, there.bound, found.bound),
            )
            if bool(better.all()):
                break
    return loc, covariance


def _expect(
    law: FactorMixture,
    own: Tensor,
    observed: Tensor,
    loc: Tensor,
    covariance: Tensor,
    n_nodes: int,
) -> _Expectations:
    """Return what q expects, by quadrature over the scalar ``beta_i.z`` of each asset."""
    shift = project(law.beta, loc)
    deviation = _spread(law.beta, covariance).sqrt()
    nodes, weights = place_nodes(n_nodes, law.loc, law.scale, deviation)
    # Components go first: sums over them then run along rows, and all is in units of scale.
    parts = (
        torch.log_softmax(law.logits, dim=-1) - law.scale.log(),
        law.scale.reciprocal(),
        (own - shift.unsqueeze(-1)) / law.scale,
        deviation.unsqueeze(-1) / law.scale,
    )
    base, inverse, middle, reach = (part.movedim(-1, 0).contiguous() for part in parts)
    slope, bend = torch.zeros_like(shift), torch.zeros_like(shift)
    value = torch.zeros_like(shift)
    step = max(1, _CELLS // max(1, base.numel()))
    for start in range(0, len(nodes), step):
        node, weight = nodes[start : start + step], weights[start : start + step]
        gap = middle - node.view(-1, 1, 1, 1) * reach
        exponent = base - 0.5 * gap.square()  # (node, component, date, asset)
        total = torch.logsumexp(exponent, dim=1, keepdim=True)
        share = (exponent - total).exp()
        score = gap * inverse
        first = (share * score).sum(1)
        second = (share * (inverse.square() - score.square())).sum(1) + first.square()
        slope = slope + torch.tensordot(weight, first, 1)
        bend = bend + torch.tensordot(weight, second, 1)
        value = value + torch.tensordot(weight, total.detach().squeeze(1), 1)
    slope, bend = torch.where(observed, slope, 0.0), torch.where(observed, bend, 0.0)
    with torch.no_grad():
        root = torch.linalg.cholesky(covariance)
        scaled = root / law.factor_scale.unsqueeze(-1)
        surprise = (loc - law.factor_loc) / law.factor_scale
        spread = scaled.square().sum((-1, -2)) + surprise.square().sum(-1)
        entropy = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        bound = torch.where(observed, value, 0.0).sum(-1) + entropy - 0.5 * spread
    return _Expectations(slope, bend, bound)


def _precision(law: FactorMixture, weight: Tensor) -> Tensor:
    """Return ``S^{-1} + B' diag(weight) B``, shape (date, factor, factor)."""
    prior = torch.diag_embed(law.factor_scale.square().reciprocal())
    return prior + law.beta.mT @ (law.beta * weight.unsqueeze(-1))
