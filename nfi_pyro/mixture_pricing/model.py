"""Mixture pricing as a Pyro model over plates of dates and assets, without latent factors."""

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
from nfi_pyro.distributions.sites import (
    date_plate,
    observe_independent_returns,
    penalise,
    sample_heads,
)
from nfi_pyro.errors import SpecError
from nfi_pyro.mixture_pricing.spec import MixturePricingSpec
from nfi_pyro.nets.pricing import PricingNetwork, SpecificLaw
from nfi_pyro.nets.standardise import standardise_cross_section


@dataclass(frozen=True)
class MixturePricingContext:
    """What the network says about a batch; no return has entered.

    Attributes
    ----------
    tradable : Tensor of bool, shape (date, asset)
    exposures : Tensor, shape (date, asset, factor)
        As the network saw them.
    specific : SpecificLaw
        Logits, loc and scale, (date, asset, component), standardised return units.
    date_index, n_dates
        As in `PanelBatch`.
    """

    tradable: Tensor
    exposures: Tensor
    specific: SpecificLaw
    date_index: Tensor
    n_dates: int


class MixturePricing(nn.Module):
    r"""``p(r | beta) = sum_k pi_k(beta) N(r | alpha(beta) + delta_k(beta), sigma_k(beta)^2)``.

    One network for all assets and dates, given exposures, ``sum_k pi_k delta_k = 0`` (deck A,
    lines 233-257: ``mu_k = alpha + delta_k``). There is no shared factor, so the law says nothing
    about how assets depend on each other; a fit adds a Gaussian copula for that.

    Parameters
    ----------
    spec : MixturePricingSpec
        With `n_exposures` given.
    seed : int
        Of the initial weights; the global generator is left as it was.

    Raises
    ------
    SpecError
        If ``spec.n_exposures`` is None.
    """

    name = "mixture_pricing"
    uses_exposures = True

    def __init__(self, spec: MixturePricingSpec, *, seed: int = 0) -> None:
        super().__init__()
        if spec.n_exposures is None:
            raise SpecError(
                "spec.n_exposures must be the panel's number of exposures; got None. Set it, for "
                "example to panel.sizes['feature'] where features are the exposures."
            )
        self.spec = spec
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = PricingNetwork(
                spec.n_exposures,
                hidden_size=spec.hidden_size,
                n_layers=spec.n_layers,
                n_components=spec.n_components,
                activation=spec.activation,
                scale_floor=spec.scale_floor,
                linear=spec.linear,
            )
            self.heads: HeadPosterior | None = None
            if spec.heads.bayesian:
                self.heads = HeadPosterior(self, _groups(spec), spec.heads)

    def forward(self, exposures: Tensor) -> SpecificLaw:
        """Return the law of the return at exposures (..., factor)."""
        return self.network(exposures)

    def context(self, batch: PanelBatch) -> MixturePricingContext:
        """Return what the network says about the dates of `batch`."""
        exposures = batch.given_exposures
        if self.spec.standardise:
            exposures = standardise_cross_section(exposures, batch.tradable)
        return MixturePricingContext(
            tradable=batch.tradable,
            exposures=exposures,
            specific=price_at_location(self, self.heads, exposures),
            date_index=batch.date_index,
            n_dates=batch.n_dates,
        )

    def law(self, context: MixturePricingContext, heads: Tensor | None = None) -> FactorMixture:
        """Return the returns' law; it has no factor.

        Parameters
        ----------
        context : MixturePricingContext
        heads : Tensor, shape (coordinate,), optional
            A draw of `heads`; by default the last layers as they are, which for random ones is
            the guide's location.
        """
        none = context.exposures[..., :0]
        specific = context.specific
        if heads is not None:
            specific = price_at_draw(self, self.heads, heads, context.exposures)
        return FactorMixture(*specific, none, none[:, 0], none[:, 0])

    def model(self, context: MixturePricingContext, outcome: Outcome | None = None) -> None:
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
                size = self.spec.penalty.evaluate(
                    self.network.alpha, context.exposures, context.tradable
                )
                penalise(size, mask)

    def guide(self, context: MixturePricingContext, outcome: Outcome) -> None:
        """Pyro guide: nothing is latent but random last layers."""
        sample_heads(self.heads, "guide")

    def pricing(self, context: MixturePricingContext, position: int) -> PricingFunction:
        """Return the law as a function of exposure; the same on every date."""
        none = context.exposures.new_zeros(0)
        net = self.network
        return PricingFunction(net, net.alpha.jet, none, none, "none", net.jets)

    def exposures(self, context: MixturePricingContext) -> Tensor:
        """Return the exposures that `pricing` takes, (date, asset, factor)."""
        return context.exposures


def _groups(spec: MixturePricingSpec) -> Groups:
    """Return the last layers of the pricing network, by group."""
    alpha = ("readout.weight", "readout.bias", *(("slope",) * spec.linear))
    layers = ("raw_scale", "logits", "offset") if spec.n_components > 1 else ("raw_scale",)
    noise = (f"{layer}.{part}" for layer in layers for part in ("weight", "bias"))
    return {
        "alpha": tuple(f"network.alpha.{name}" for name in alpha),
        "noise": tuple(f"network.noise.{name}" for name in noise),
    }
