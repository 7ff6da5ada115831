"""The Bayesian linear factor model on given exposures, with its posterior in closed form."""

from dataclasses import dataclass

import pyro
import torch
from torch import Tensor, nn

from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.distributions.factor_mixture import FactorMixture, multivariate_normal
from nfi_pyro.distributions.mixture_posterior import factor_posterior
from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.distributions.scale_mixture import student_t_mixture
from nfi_pyro.distributions.sites import date_plate, observe_factor_returns
from nfi_pyro.errors import SpecError
from nfi_pyro.linear_factor.spec import LinearFactorSpec
from nfi_pyro.nets.jets import Jet
from nfi_pyro.nets.law_jets import Jets, VectorJet
from nfi_pyro.nets.noise import ConstantNoise
from nfi_pyro.nets.pricing import SpecificLaw
from nfi_pyro.nets.standardise import standardise_cross_section, with_intercept


@dataclass(frozen=True)
class LinearFactorContext:
    """What is known of a batch before its returns.

    Attributes
    ----------
    tradable : Tensor of bool, shape (date, asset)
    design : Tensor, shape (date, asset, 1 + factor)
        1 and the exposures.
    date_index, n_dates
        As in `PanelBatch`.
    """

    tradable: Tensor
    design: Tensor
    date_index: Tensor
    n_dates: int


class LinearFactor(nn.Module):
    r"""``r_i = z_0 + sum_k beta_ik z_k + eps_i`` with ``z_t ~ N(m, S)`` anew on every date.

    Exposures are given (deck A, lines 110-136); the intercept puts the market into the span of
    the factors. m, the diagonal of S and the noise scale are constant over dates and estimated by
    maximum marginal likelihood; with normal noise the posterior of z is exact, and so the ELBO is
    the evidence itself. Student-t noise is a scale mixture of normals.

    Parameters
    ----------
    spec : LinearFactorSpec
        With `n_exposures` given.
    seed : int
        Unused: nothing starts at random. Taken so that all models are made alike.

    Raises
    ------
    SpecError
        If ``spec.n_exposures`` is None.
    """

    name = "linear_factor"
    uses_exposures = True

    def __init__(self, spec: LinearFactorSpec, *, seed: int = 0) -> None:
        super().__init__()
        if spec.n_exposures is None:
            raise SpecError(
                "spec.n_exposures must be the panel's number of exposures; got None. Set it, for "
                "example to panel.sizes['feature'] where features are the exposures."
            )
        self.spec = spec
        weights, multiples = [1.0], [1.0]
        if spec.noise == "student_t":
            weights, multiples = (v.tolist() for v in student_t_mixture(spec.degrees_of_freedom))
        size = spec.n_exposures + 1
        self.factor_loc = nn.Parameter(torch.zeros(size))
        self.raw_factor_scale = nn.Parameter(torch.full((size,), -2.0))
        self.noise = ConstantNoise(weights, multiples, scale_floor=spec.scale_floor)

    @property
    def factor_scale(self) -> Tensor:
        """Root of the diagonal of S, shape (1 + factor,), > 0."""
        return nn.functional.softplus(self.raw_factor_scale) + self.spec.scale_floor

    def context(self, batch: PanelBatch) -> LinearFactorContext:
        """Return what is known of the dates of `batch`."""
        exposures = batch.given_exposures
        if self.spec.standardise:
            exposures = standardise_cross_section(exposures, batch.tradable)
        return LinearFactorContext(
            tradable=batch.tradable,
            design=with_intercept(exposures),
            date_index=batch.date_index,
            n_dates=batch.n_dates,
        )

    def law(self, context: LinearFactorContext) -> FactorMixture:
        """Return the returns' law given shared z, and z's prior; the first factor is the market."""
        design = context.design
        shape = (len(design), design.shape[-1])
        logits, loc, scale = self.noise(design.new_zeros(design.shape[:-1]))
        return FactorMixture(
            logits,
            loc,
            scale,
            design,
            self.factor_loc.expand(shape),
            self.factor_scale.expand(shape),
        )

    def model(self, context: LinearFactorContext, outcome: Outcome | None = None) -> None:
        """Pyro model: sites ``z`` and ``forward_return`` in plates ``date`` and ``asset``.

        Without an outcome the returns are drawn.
        """
        value = None if outcome is None else outcome.forward_return
        mask = context.tradable if outcome is None else outcome.observed
        law = self.law(context)
        with date_plate(context.date_index, context.n_dates):
            prior = multivariate_normal(law.factor_loc, torch.diag_embed(law.factor_scale))
            z = pyro.sample("z", prior)
            observe_factor_returns(law, z, value, mask)

    def guide(self, context: LinearFactorContext, outcome: Outcome) -> None:
        """Pyro guide: the exact posterior with normal noise, a Gaussian one with Student-t."""
        law = self.law(context)
        found = factor_posterior(law, outcome.forward_return, outcome.observed)
        with date_plate(context.date_index, context.n_dates):
            pyro.sample("z", multivariate_normal(found.loc, found.scale_tril))

    def pricing(self, context: LinearFactorContext, position: int) -> PricingFunction:
        """Return the law as a function of exposure (the intercept not counted)."""
        return PricingFunction(
            self._specific,
            _no_alpha,
            self.factor_loc,
            self.factor_scale,
            "intercept",
            self._specific_jets,
        )

    def _specific(self, beta: Tensor) -> SpecificLaw:
        """Return the law of the specific part at exposures (..., factor)."""
        return self.noise(beta.new_zeros(beta.shape[:-1]))

    def _specific_jets(self, beta: Tensor, order: int) -> Jets:
        """Return the specific law with its derivatives up to `order`: it does not move."""
        none = _no_alpha(beta)
        bent = none.hessian[..., None, :, :] if order > 1 else None
        still = VectorJet(none.value[..., None], none.gradient[..., None, :], bent)
        return self.noise.jets(still)

    def exposures(self, context: LinearFactorContext) -> Tensor:
        """Return the exposures that `pricing` takes, (date, asset, factor)."""
        return context.design[..., 1:]


def _no_alpha(beta: Tensor) -> Jet:
    """Return the alpha of a linear model: nothing, at any exposure."""
    return Jet(
        beta.new_zeros(beta.shape[:-1]),
        torch.zeros_like(beta),
        beta.new_zeros(*beta.shape, beta.shape[-1]),
    )
