"""Returns of a cross-section that share latent factors: the law, and the likelihood site."""

import math

import torch
from pyro.distributions import MultivariateNormal as PyroMultivariateNormal
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor
from torch.distributions import (
    Distribution,
    LowRankMultivariateNormal,
    MultivariateNormal,
    constraints,
)

from nfi_pyro.distributions.low_rank import LowRankPlusDiagonal, project
from nfi_pyro.distributions.mixture import MixtureOfNormals, Shape
from nfi_pyro.distributions.quadrature import place_nodes
from nfi_pyro.errors import ShapeError, SpecError

QUADRATURE_NODES = 7


class FactorMixture:
    r"""``r_i | z ~ sum_k pi_ik N(loc_ik + beta_i.z, scale_ik^2)``, ``z ~ N(m, diag(s^2))``.

    Given z, assets are independent; z is shared by the assets of a date.

    Parameters
    ----------
    logits, loc, scale : Tensor, shape (date, asset, component)
        Of the specific part. Scale is a standard deviation, > 0.
    beta : Tensor, shape (date, asset, factor)
        Exposures, dimensionless.
    factor_loc, factor_scale : Tensor, shape (date, factor)
        Of the factors, in the unit of the return. Scale > 0.

    Raises
    ------
    ShapeError
        If exposures and factors disagree.
    """

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        beta: Tensor,
        factor_loc: Tensor,
        factor_scale: Tensor,
    ) -> None:
        if beta.shape[-1] != factor_loc.shape[-1] or factor_loc.shape != factor_scale.shape:
            raise ShapeError(
                "beta, factor_loc and factor_scale must have the same number of factors; got "
                f"{beta.shape[-1]}, {factor_loc.shape[-1]} and {factor_scale.shape[-1]}. "
                "Was the model built with another spec.n_factors?"
            )
        self.logits, self.loc, self.scale = logits, loc, scale
        self.beta, self.factor_loc, self.factor_scale = beta, factor_loc, factor_scale

    def double(self) -> "FactorMixture":
        """Return the same law in float64."""
        arrays = (self.logits, self.loc, self.scale, self.beta, self.factor_loc, self.factor_scale)
        return FactorMixture(*(array.double() for array in arrays))

    def given(self, z: Tensor) -> MixtureOfNormals:
        """Return the returns' law given factors z, shape (date, factor)."""
        shift = project(self.beta, z)
        return MixtureOfNormals(
            self.logits, self.loc + shift.unsqueeze(-1), self.scale, validate_args=False
        )

    def integrated(self, loc: Tensor, variance: Tensor) -> MixtureOfNormals:
        """Return the per-asset law with ``beta_i.z ~ N(loc_i, variance_i)`` integrated out."""
        scale = (self.scale.square() + variance.unsqueeze(-1)).sqrt()
        return MixtureOfNormals(
            self.logits, self.loc + loc.unsqueeze(-1), scale, validate_args=False
        )

    def marginal(self) -> MixtureOfNormals:
        """Return each asset's law with the factors integrated out (Eq. 12 with the prior)."""
        return self.integrated(*self.project_factors())

    def project_factors(self, factors: Distribution | None = None) -> tuple[Tensor, Tensor]:
        """Return mean and variance of ``beta_i.z``, each (date, asset).

        Parameters
        ----------
        factors : Distribution, optional
            Law of z with event shape (factor,): independent or multivariate normal, batch shape
            (date,) or (date, 1). The law's own factors by default.
        """
        if factors is None:
            loc, variance = self.factor_loc, self.factor_scale.square()
            return project(self.beta, loc), project(self.beta.square(), variance)
        batch = self.beta.shape[:-2]
        loc = factors.mean.reshape(*batch, -1)
        if isinstance(factors, MultivariateNormal | LowRankMultivariateNormal):
            covariance = factors.covariance_matrix.reshape(*batch, *loc.shape[-1:] * 2)
            return project(self.beta, loc), ((self.beta @ covariance) * self.beta).sum(-1)
        variance = factors.variance.reshape(*batch, -1)
        return project(self.beta, loc), project(self.beta.square(), variance)

    def expected_log_prob(
        self, value: Tensor, factors: Distribution, n_nodes: int | str = QUADRATURE_NODES
    ) -> Tensor:
        r"""Return ``E_q[log p(r_i | z)]``, shape (date, asset): the term of a true ELBO.

        ``beta_i.z`` is a scalar normal under q, so this is a one-dimensional integral without
        sampling noise: closed form for one component, quadrature for several. Its error grows
        with the ratio of the sd of ``beta_i.z`` under q to the narrowest component scale. The
        worst of 1,500 laws of three components, in nats (means within one narrowest scale of 0,
        scales up to six of it):

        =======  =================  ==================  ======
        ratio    7 (Gauss-Hermite)  63 (Gauss-Hermite)  "auto"
        =======  =================  ==================  ======
        0.5      9e-5               7e-14               2e-5
        1        0.008              7e-8                3e-5
        2        0.07               1e-4                9e-6
        3        0.17               0.002               6e-6
        5        0.54               0.014               3e-6
        10       1.4                0.10                3e-6
        =======  =================  ==================  ======

        Rule: seven nodes below a ratio of a half (a posterior of many assets is that narrow),
        ``"auto"`` for anything wider, such as the prior.

        Parameters
        ----------
        value : Tensor, shape (date, asset)
            Returns, finite.
        factors : Distribution
            q(z), see `project_factors`.
        n_nodes : int or "auto"
            So many Gauss-Hermite nodes; or ``20 ratio + 1`` equally spaced ones for the largest
            ratio of all cells, see `nfi_pyro.distributions.quadrature`. Time and memory grow with
            the number, which ``"auto"`` reads from the values: it cannot run under `vmap`.

        Raises
        ------
        SpecError
            If `n_nodes` is neither, or ``"auto"`` would take more than 2,001.
        """
        loc, variance = self.project_factors(factors)
        if self.loc.shape[-1] == 1:
            own = self.scale.squeeze(-1)
            error = value - self.loc.squeeze(-1) - loc
            quadratic = (error.square() + variance) / own.square()
            return -0.5 * quadratic - own.log() - 0.5 * math.log(2.0 * math.pi)
        deviation = variance.sqrt()
        nodes, weights = place_nodes(n_nodes, self.loc, self.scale, deviation)
        shifts = loc + torch.einsum("n,...->n...", nodes, deviation)  # (node, date, asset)
        conditional = MixtureOfNormals(
            self.logits, self.loc + shifts.unsqueeze(-1), self.scale, validate_args=False
        )
        return torch.einsum("n,n...->...", weights, conditional.log_prob(value))

    def marginal_log_prob(self, value: Tensor, factors: Distribution | None = None) -> Tensor:
        r"""Return ``log E_q[p(r_i | z)]``, shape (date, asset), one asset at a time.

        A composite likelihood: it treats z as drawn anew for every asset, is never below the
        ELBO's term (Jensen), and is not a bound on the evidence.
        """
        return self.integrated(*self.project_factors(factors)).log_prob(value)

    @property
    def specific_variance(self) -> Tensor:
        """Variance that no factor shares, shape (date, asset)."""
        return MixtureOfNormals(self.logits, self.loc, self.scale, validate_args=False).variance

    def covariance(self, factors: Distribution | None = None) -> tuple[Tensor, Tensor]:
        """Return loadings (date, asset, factor) and specific variance (date, asset).

        The covariance of a date is ``loadings @ loadings.T + diag(specific)``; the dense matrix
        is never formed. `factors` as in `project_factors`; given, their full covariance counts.
        """
        if factors is None:
            return self.beta * self.factor_scale.unsqueeze(-2), self.specific_variance
        batch, n_factors = self.beta.shape[:-2], self.beta.shape[-1]
        if isinstance(factors, MultivariateNormal | LowRankMultivariateNormal):
            root = factors.scale_tril.reshape(*batch, n_factors, n_factors)
            return self.beta @ root, self.specific_variance
        scale = factors.variance.sqrt().reshape(*batch, 1, n_factors)
        return self.beta * scale, self.specific_variance

    def covariance_operator(self, factors: Distribution | None = None) -> LowRankPlusDiagonal:
        """Return `covariance` as an operator: products, solves, portfolio variance, draws."""
        return LowRankPlusDiagonal(*self.covariance(factors))

    def joint_log_prob(
        self,
        value: Tensor,
        observed: Tensor | None = None,
        factors: Distribution | None = None,
    ) -> Tensor:
        """Return ``log p(r)`` of each date's cross-section, factors integrated out, shape (date,).

        One component only: then a date is one Gaussian with `covariance_operator`. In nats; 0 on
        a date without an observed return.

        Parameters
        ----------
        value : Tensor, shape (date, asset)
            Returns, finite everywhere (any number where not observed).
        observed : Tensor of bool, shape (date, asset), optional
            Which returns count; all by default.
        factors : Distribution, optional
            See `project_factors`.

        Raises
        ------
        SpecError
            If there are several components: the joint law then has one for each of
            ``component ** asset`` combinations, and only sampling over z reaches it.
        """
        if self.loc.shape[-1] != 1:
            raise SpecError(
                "a joint density in closed form must have one component; got "
                f"{self.loc.shape[-1]}. Use importance sampling over the factors."
            )
        shift, _ = self.project_factors(factors)
        deviation = value - self.loc.squeeze(-1) - shift
        return self.covariance_operator(factors).log_prob(deviation, observed)

    def draw(self, draws: int, *, seed: int) -> Tensor:
        """Return joint draws (draw, date, asset): one z per draw and date, shared by its assets.

        Torch's own generator is not touched.
        """
        with torch.no_grad():
            loc = self.factor_loc
            generator = torch.Generator(device=loc.device).manual_seed(seed)
            noise = torch.randn(
                (draws, *loc.shape), generator=generator, dtype=loc.dtype, device=loc.device
            )
            return self.given(loc + self.factor_scale * noise).sample(generator=generator)


class FactorReturn(TorchDistribution):
    """Likelihood site of a factor model: returns given z, which can also integrate over q(z).

    `nfi_pyro.svi` asks an observed site for `expected_log_prob` or `marginal_log_prob`; a site
    without them is scored by `log_prob`.

    Parameters
    ----------
    law : FactorMixture
        Batch (date, asset).
    z : Tensor, shape (date, 1, factor) or (date, factor)
        Factors as drawn by the guide.
    n_nodes : int or "auto"
        Of `expected_log_prob`, see `FactorMixture.expected_log_prob`.
    """

    arg_constraints = {}  # noqa: RUF012  (torch's own protocol)
    support = constraints.real
    has_rsample = False

    def __init__(
        self, law: FactorMixture, z: Tensor, *, n_nodes: int | str = QUADRATURE_NODES
    ) -> None:
        self.law, self.z, self.n_nodes = law, z, n_nodes
        super().__init__(law.beta.shape[:-1], torch.Size(), validate_args=False)

    def expand(self, batch_shape: Shape, _instance: object = None) -> TorchDistribution:
        """Return itself at its own shape: Pyro's plates expand every site, also to no effect."""
        if tuple(batch_shape) == tuple(self.batch_shape):
            return self
        raise ShapeError(
            f"a factor return site must have the plates' shape; got {tuple(self.batch_shape)} in "
            f"plates of {tuple(batch_shape)}. Build the context from one batch."
        )

    def _given(self) -> MixtureOfNormals:
        """Return the conditional law at z."""
        batch = self.law.beta.shape[:-2]
        return self.law.given(self.z.reshape(*batch, self.law.beta.shape[-1]))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(r_i | z), shape (date, asset)."""
        return self._given().log_prob(value)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Return draws of shape ``sample_shape + (date, asset)``."""
        return self._given().sample(sample_shape)

    def expected_log_prob(self, value: Tensor, factors: Distribution) -> Tensor:
        """See `FactorMixture.expected_log_prob`."""
        return self.law.expected_log_prob(value, factors, self.n_nodes)

    def marginal_log_prob(self, value: Tensor, factors: Distribution) -> Tensor:
        """See `FactorMixture.marginal_log_prob`."""
        return self.law.marginal_log_prob(value, factors)


def independent_normal(loc: Tensor, scale: Tensor) -> TorchDistribution:
    """Return independent normals over the last axis, as one Pyro distribution."""
    return Normal(loc, scale, validate_args=False).to_event(1)


def multivariate_normal(loc: Tensor, scale_tril: Tensor) -> TorchDistribution:
    """Return normals over factors with a plate axis, batch (date, 1), as one Pyro distribution.

    Parameters
    ----------
    loc : Tensor, shape (date, factor)
    scale_tril : Tensor, shape (date, factor, factor)
    """
    return PyroMultivariateNormal(
        loc.unsqueeze(-2), scale_tril=scale_tril.unsqueeze(-3), validate_args=False
    )
