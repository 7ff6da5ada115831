"""A scalar mixture of normals over any batch shape, with exact quantiles, risk and scores."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from nfi_pyro.distributions.functionals import mixture_crps, standard_moments, tail_loss
from nfi_pyro.distributions.normal import LOG_SQRT_2PI, normal_cdf
from nfi_pyro.distributions.quantiles import mixture_quantile

Shape = torch.Size | list[int] | tuple[int, ...]


class MixtureOfNormals(TorchDistribution):
    r"""``p(r) = sum_k softmax(logits)_k N(r | loc_k, scale_k^2)``.

    Torch's `MixtureSameFamily` has neither `icdf` nor the scores; Pyro's mixtures do not take
    scalars, so the law is ours. Every method but `sample` and `draw` has exact derivatives of
    first and second order in all three parameters, by `torch.autograd` and by `torch.func`;
    build the law with ``validate_args=False`` inside `torch.func`, whose tensors cannot be
    checked. Scales from 1e-6 to 1e6 may meet in one law, with logits to 200 and values 1e8 scales
    away: values and both derivatives stay finite in float64, values and first derivatives in
    float32, whose squares end at 1e19 scales.

    Parameters
    ----------
    logits : Tensor, shape (..., component)
        Unnormalised log weights.
    loc : Tensor, shape (..., component)
        Component means, in the unit of the return.
    scale : Tensor, shape (..., component)
        Component standard deviations, > 0.
    """

    arg_constraints = {  # noqa: RUF012  (torch's own protocol)
        "logits": constraints.independent(constraints.real, 1),
        "loc": constraints.independent(constraints.real, 1),
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real
    has_rsample = False

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, *, validate_args: bool | None = None
    ) -> None:
        self.logits, self.loc, self.scale = torch.broadcast_tensors(logits, loc, scale)
        super().__init__(self.loc.shape[:-1], torch.Size(), validate_args=validate_args)

    @property
    def log_weights(self) -> Tensor:
        """Normalised log weights, shape (..., component)."""
        return torch.log_softmax(self.logits, dim=-1)

    @property
    def n_components(self) -> int:
        """Number of components."""
        return self.loc.shape[-1]

    def expand(self, batch_shape: Shape, _instance: object = None) -> "MixtureOfNormals":
        """Return the same law over a larger batch shape."""
        shape = (*batch_shape, self.n_components)
        return MixtureOfNormals(
            self.logits.expand(shape), self.loc.expand(shape), self.scale.expand(shape)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of `value`, batch shape; stable in the far tails."""
        if self._validate_args:
            self._validate_sample(value)
        standard = (value.unsqueeze(-1) - self.loc) / self.scale
        log_density = -0.5 * standard.square() - self.scale.log() - LOG_SQRT_2PI
        if self.n_components == 1:
            return log_density.squeeze(-1)
        return torch.logsumexp(self.log_weights + log_density, dim=-1)

    def cdf(self, value: Tensor) -> Tensor:
        """Return P(r <= value), batch shape."""
        standard = (value.unsqueeze(-1) - self.loc) / self.scale
        total = (self.log_weights.exp() * normal_cdf(standard)).sum(-1)
        return total.clamp(max=1.0)  # weights sum to 1 up to rounding

    def icdf(self, value: Tensor | float) -> Tensor:
        """Return the quantile at probability `value`, batch shape, to 1e-8 of a scale.

        Probabilities lie strictly between 0 and 1 and broadcast against the batch shape, so that
        levels of shape (level, 1, 1) give quantiles (level, date, asset). Derivatives by the
        implicit function theorem, see `nfi_pyro.distributions.quantiles`.

        Raises
        ------
        SpecError
            If a probability is not strictly between 0 and 1.
        """
        return mixture_quantile(*self._at(value))

    def _at(self, level: Tensor | float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the parameters and `level` broadcast to one batch shape."""
        level = torch.as_tensor(level, dtype=self.loc.dtype, device=self.loc.device)
        batch = torch.broadcast_shapes(self.batch_shape, level.shape)
        shape = (*batch, self.n_components)
        parameters = (t.expand(shape) for t in (self.logits, self.loc, self.scale))
        return (*parameters, level.expand(batch))

    @property
    def mean(self) -> Tensor:
        """Expected return, batch shape."""
        return (self.log_weights.exp() * self.loc).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Variance, batch shape."""
        weights = self.log_weights.exp()
        spread = self.loc - self.mean.unsqueeze(-1)
        return (weights * (self.scale.square() + spread.square())).sum(-1)

    @property
    def skewness(self) -> Tensor:
        """Third standardised central moment, batch shape; 0 for a symmetric law."""
        return standard_moments(self.logits, self.loc, self.scale)[0]

    @property
    def kurtosis(self) -> Tensor:
        """Excess kurtosis, batch shape: fourth standardised central moment less 3."""
        return standard_moments(self.logits, self.loc, self.scale)[1]

    def value_at_risk(self, level: Tensor | float) -> Tensor:
        """Return the loss that is exceeded with probability ``1 - level``; positive is a loss.

        In the unit of the return. `level` lies in (0, 1) and broadcasts as in `icdf`.
        """
        return -self.icdf(1.0 - level)

    def expected_shortfall(self, level: Tensor | float) -> Tensor:
        """Return the mean loss beyond `value_at_risk` at `level`; positive is a loss.

        ``-E[r | r <= q]`` with q the ``1 - level`` quantile, closed form given q. In the unit of
        the return; `level` lies in (0, 1) and broadcasts as in `icdf`.
        """
        return tail_loss(*self._at(1.0 - level))

    def crps(self, value: Tensor) -> Tensor:
        """Return the continuous ranked probability score, batch shape; lower is better.

        In the unit of the return, closed form (Grimit et al. 2006).
        """
        return mixture_crps(self.logits, self.loc, self.scale, value)

    def sample(
        self, sample_shape: Shape = (), *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return draws of shape ``sample_shape + batch_shape``, from torch's generator if none."""
        with torch.no_grad():
            shape = torch.Size(sample_shape)
            weights = self.log_weights.exp().reshape(-1, self.n_components)
            which = torch.multinomial(weights, shape.numel(), replacement=True, generator=generator)
            which = which.T.reshape(*shape, *self.batch_shape, 1)
            loc = self.loc.expand(*shape, *self.loc.shape).gather(-1, which)
            scale = self.scale.expand(*shape, *self.scale.shape).gather(-1, which)
            return torch.normal(loc, scale, generator=generator).squeeze(-1)

    def draw(self, draws: int, *, seed: int) -> Tensor:
        """Return draws of shape ``(draw,) + batch_shape``; torch's own generator is not touched."""
        generator = torch.Generator(device=self.loc.device).manual_seed(seed)
        return self.sample((draws,), generator=generator)
