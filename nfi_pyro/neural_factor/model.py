"""The nonlinear factor model as a Pyro model over plates of dates and assets."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.distributions.heads import (
    Groups,
    HeadPosterior,
    price_at_draw,
    price_at_location,
)
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.distributions.scale_mixture import student_t_mixture
from nfi_pyro.distributions.sites import (
    date_plate,
    observe_independent_returns,
    penalise,
    sample_heads,
)
from nfi_pyro.errors import SpecError
from nfi_pyro.nets.law_jets import Jets
from nfi_pyro.nets.noise import ConstantNoise
from nfi_pyro.nets.pricing import Perceptron, SpecificLaw
from nfi_pyro.nets.standardise import standardise_cross_section
from nfi_pyro.neural_factor.spec import NeuralFactorSpec


@dataclass(frozen=True)
class NeuralFactorContext:
    """What the network says about a batch; no return has entered.

    Attributes
    ----------
    tradable : Tensor of bool, shape (date, asset)
    exposures : Tensor, shape (date, asset, factor)
        As the network saw them.
    specific : SpecificLaw
        Logits, loc and scale of ``f_theta(beta) + eps``, (date, asset, component), standardised
        return units.
    date_index, n_dates
        As in `PanelBatch`.
    """

    tradable: Tensor
    exposures: Tensor
    specific: SpecificLaw
    date_index: Tensor
    n_dates: int


class NeuralFactor(nn.Module):
    r"""``r = f_theta(beta) + eps`` on given exposures (deck A, lines 138-151).

    Noise is normal or, as a scale mixture of normals, close to Student-t, with one scale for all
    assets and dates. With ``linear`` the linear factor model with constant factor returns is
    nested in it. There is no shared factor; a fit adds a Gaussian copula.

    Parameters
    ----------
    spec : NeuralFactorSpec
        With `n_exposures` given.
    seed : int
        Of the initial weights; the global generator is left as it was.

    Raises
    ------
    SpecError
        If ``spec.n_exposures`` is None.
    """

    name = "neural_factor"
    uses_exposures = True

    def __init__(self, spec: NeuralFactorSpec, *, seed: int = 0) -> None:
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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.alpha = Perceptron(
                spec.n_exposures,
                spec.hidden_size,
                spec.n_layers,
                spec.activation,
                linear=spec.linear,
            )
            self.noise = ConstantNoise(weights, multiples, scale_floor=spec.scale_floor)
            self.heads: HeadPosterior | None = None
            if spec.heads.bayesian:
                slope = ("alpha.slope",) * spec.linear
                alpha = ("alpha.readout.weight", "alpha.readout.bias", *slope)
                groups: Groups = {"alpha": alpha, "noise": ("noise.raw_scale",)}
                self.heads = HeadPosterior(self, groups, spec.heads)

    def forward(self, exposures: Tensor) -> SpecificLaw:
        """Return the law of the return at exposures (..., factor)."""
        return self.noise(self.alpha(exposures))

    def context(self, batch: PanelBatch) -> NeuralFactorContext:
        """Return what the network says about the dates of `batch`."""
        exposures = batch.given_exposures
        if self.spec.standardise:
            exposures = standardise_cross_section(exposures, batch.tradable)
        return NeuralFactorContext(
            tradable=batch.tradable,
            exposures=exposures,
            specific=price_at_location(self, self.heads, exposures),
            date_index=batch.date_index,
            n_dates=batch.n_dates,
        )

    def law(self, context: NeuralFactorContext, heads: Tensor | None = None) -> FactorMixture:
        """Return the returns' law; it has no factor.

        Parameters
        ----------
        context : NeuralFactorContext
        heads : Tensor, shape (coordinate,), optional
            A draw of `heads`; by default the last layers as they are, which for random ones is
            the guide's location.
        """
        none = context.exposures[..., :0]
        specific = context.specific
        if heads is not None:
            specific = price_at_draw(self, self.heads, heads, context.exposures)
        return FactorMixture(*specific, none, none[:, 0], none[:, 0])

    def model(self, context: NeuralFactorContext, outcome: Outcome | None = None) -> None:
        """Pyro model: site ``forward_return`` in plates ``date`` and ``asset``.

        A site ``heads`` before them where last layers are random. Without an outcome the returns
        are drawn.
        """
        value = None if outcome is None else outcome.forward_return
        mask = context.tradable if outcome is None else outcome.observed
        own = self.law(context, sample_heads(self.heads, "prior"))
        with date_plate(context.date_index, context.n_dates):
            law = MixtureOfNormals(own.logits, own.loc, own.scale, validate_args=False)
            observe_independent_returns(law, value, mask)
            if self.spec.penalty.active:
                size = self.spec.penalty.evaluate(self.alpha, context.exposures, context.tradable)
                penalise(size, mask)

    def guide(self, context: NeuralFactorContext, outcome: Outcome) -> None:
        """Pyro guide: nothing is latent but random last layers."""
        sample_heads(self.heads, "guide")

    def pricing(self, context: NeuralFactorContext, position: int) -> PricingFunction:
        """Return the law as a function of exposure; the same on every date."""
        none = context.exposures.new_zeros(0)
        return PricingFunction(self, self.alpha.jet, none, none, "none", self._jets)

    def _jets(self, beta: Tensor, order: int) -> Jets:
        """Return the law with its derivatives up to `order`, 1 or 2."""
        return self.noise.jets(self.alpha.vector_jet(beta, order))

    def exposures(self, context: NeuralFactorContext) -> Tensor:
        """Return the exposures that `pricing` takes, (date, asset, factor)."""
        return context.exposures
