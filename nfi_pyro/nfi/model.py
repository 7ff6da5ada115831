"""The joint model as one Pyro model and guide over plates of dates and assets."""

from collections.abc import Iterable
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor, nn

from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.distributions.factor_mixture import (
    FactorMixture,
    independent_normal,
    multivariate_normal,
)
from nfi_pyro.distributions.heads import (
    Groups,
    HeadPosterior,
    price_at_draw,
    price_at_location,
)
from nfi_pyro.distributions.mixture_posterior import factor_posterior
from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.distributions.sites import (
    date_plate,
    observe_factor_returns,
    penalise,
    sample_heads,
)
from nfi_pyro.errors import SpecError
from nfi_pyro.nets.canonical import CanonicalForm
from nfi_pyro.nets.encoder import PortfolioEncoder
from nfi_pyro.nets.jets import Jet
from nfi_pyro.nets.law_jets import Jets
from nfi_pyro.nets.predictor import FactorPredictor, Trunk
from nfi_pyro.nets.pricing import PricingNetwork, SpecificLaw
from nfi_pyro.nets.windowed_gru import WindowedGRU
from nfi_pyro.nfi.spec import NFISpec


@dataclass(frozen=True)
class NFIContext:
    """Everything that the networks say about a batch; no return has entered.

    Attributes
    ----------
    tradable : Tensor of bool, shape (date, asset)
    raw_beta : Tensor, shape (date, asset, factor)
        Exposures as the pricing network takes them.
    specific : SpecificLaw
        Logits, loc and scale of the specific part, (date, asset, component), standardised units.
    prior_loc, prior_scale : Tensor, shape (date, factor)
        Prior factors, raw.
    encoder_logits : Tensor, shape (date, asset, portfolio)
        Of the encoder's portfolios; empty without one.
    date_index, n_dates
        As in `PanelBatch`.
    trunk : Trunk
        Inputs of the last layers.
    """

    tradable: Tensor
    raw_beta: Tensor
    specific: SpecificLaw
    prior_loc: Tensor
    prior_scale: Tensor
    encoder_logits: Tensor
    date_index: Tensor
    n_dates: int
    trunk: Trunk


_GROUPS: Groups = {
    "alpha": ("network.alpha.readout.weight", "network.alpha.readout.bias"),
    "beta": ("beta.weight", "beta.bias"),
    "price": tuple(
        f"predictor.head.{layer}.{part}"
        for layer in ("loc", "raw_scale")
        for part in ("weight", "bias")
    ),
}
_NOISE = tuple(
    f"network.noise.{layer}.{part}"
    for layer in ("raw_scale", "logits", "offset")
    for part in ("weight", "bias")
)


class NFI(nn.Module):
    r"""``r_i | z ~ sum_k pi_k(b_i) N(alpha(b_i) + delta_k(b_i) + b_i.z, sigma_k(b_i)^2)``.

    ``e_i`` is the hidden state of asset i, ``b_i`` its learned exposures (FactorVAE, Eq. 4, 11),
    ``z_t ~ N(m_t, diag(s_t^2))`` the factors of the date, predicted from all assets (Eq. 13-16),
    and alpha, pi, delta, sigma one pricing network shared by all assets (deck A, lines 177-257),
    with ``sum_k pi_k delta_k = 0``. Everything that prices an asset is a function of its exposure,
    so each date has one law ``p_t(r | b)``, a mixture in closed form. The guide is the encoder of
    FactorVAE (Eq. 6-8), the only place a return enters.

    After training, `canonicalise` fixes which of the equivalent laws is reported.

    Parameters
    ----------
    spec : NFISpec
        With `n_features` given.
    seed : int
        Of the initial weights; the global generator is left as it was.

    Raises
    ------
    SpecError
        If ``spec.n_features`` is None.
    """

    name = "nfi"
    uses_exposures = False

    def __init__(self, spec: NFISpec, *, seed: int = 0) -> None:
        super().__init__()
        if spec.n_features is None:
            raise SpecError(
                "spec.n_features must be the panel's number of features; got None. Set it: "
                "NFISpec(n_features=panel.sizes['feature'])."
            )
        self.spec = spec
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(spec, spec.n_features)

    def _build(self, spec: NFISpec, n_features: int) -> None:
        """Create the networks."""
        floor, slope = spec.scale_floor, spec.negative_slope
        self.extractor = WindowedGRU(
            n_features, spec.projection_size, spec.hidden_size, negative_slope=slope
        )
        self.beta = nn.Linear(spec.hidden_size, spec.n_factors)
        self.predictor = FactorPredictor(
            spec.hidden_size,
            spec.n_factors,
            spec.prior_hidden_size,
            scale_floor=floor,
            negative_slope=slope,
        )
        self.encoder: PortfolioEncoder | None = None
        if spec.variant == "encoder":
            self.encoder = PortfolioEncoder(
                spec.hidden_size, spec.n_portfolios, spec.n_factors, scale_floor=floor
            )
        self.network = PricingNetwork(
            spec.n_factors,
            hidden_size=spec.pricing_size,
            n_layers=spec.pricing_layers,
            n_components=spec.n_components,
            activation=spec.activation,
            scale_floor=spec.noise_floor,
            linear=False,  # a shared factor carries the linear part
        )
        self.canonical = CanonicalForm(spec.n_factors)
        self.heads: HeadPosterior | None = None
        if spec.heads.bayesian:
            noise = _NOISE if spec.n_components > 1 else _NOISE[:2]
            self.heads = HeadPosterior(self, {**_GROUPS, "noise": noise}, spec.heads)

    def forward(self, trunk: Trunk) -> tuple[Tensor, SpecificLaw, Tensor, Tensor]:
        """Return exposures, specific law, and prior loc and scale: everything past the trunk."""
        raw_beta = self.beta(trunk.hidden)
        return raw_beta, self.network(raw_beta), *self.predictor.head(trunk.pooled)

    def context(self, batch: PanelBatch) -> NFIContext:
        """Return what the networks say about the dates of `batch`; runs every network once."""
        hidden = self.extractor(batch.features, batch.tradable.shape[0])  # (date, asset, H)
        trunk = Trunk(hidden, self.predictor.attention(hidden, batch.tradable))
        raw_beta, specific, prior_loc, prior_scale = price_at_location(self, self.heads, trunk)
        return NFIContext(
            tradable=batch.tradable,
            raw_beta=raw_beta,
            specific=specific,
            prior_loc=prior_loc,
            prior_scale=prior_scale,
            encoder_logits=hidden[..., :0] if self.encoder is None else self.encoder.logits(hidden),
            date_index=batch.date_index,
            n_dates=batch.n_dates,
            trunk=trunk,
        )

    def law(self, context: NFIContext, heads: Tensor | None = None) -> FactorMixture:
        """Return the returns' law given shared z, and z's prior, in canonical form.

        Parameters
        ----------
        context : NFIContext
        heads : Tensor, shape (coordinate,), optional
            A draw of `heads`; by default the last layers as they are, which for random ones is
            the guide's location.
        """
        form = self.canonical
        if heads is None:
            raw_beta, specific = context.raw_beta, context.specific
            prior_loc, prior_scale = context.prior_loc, context.prior_scale
        else:
            raw_beta, specific, prior_loc, prior_scale = price_at_draw(
                self, self.heads, heads, context.trunk
            )
        taken = (raw_beta @ form.shift).unsqueeze(-1)
        return FactorMixture(
            specific.logits,
            specific.loc - taken,
            specific.scale,
            form.exposures(raw_beta),
            form.factor_loc(prior_loc),
            form.factor_scale(prior_scale),
        )

    def model(self, context: NFIContext, outcome: Outcome | None = None) -> None:
        """Pyro model: sites ``z`` and ``forward_return`` in plates ``date`` and ``asset``.

        A site ``heads`` before them where last layers are random. Without an outcome the returns
        are drawn.
        """
        value = None if outcome is None else outcome.forward_return
        mask = context.tradable if outcome is None else outcome.observed
        law = self.law(context, sample_heads(self.heads, "prior"))
        with date_plate(context.date_index, context.n_dates):
            prior = independent_normal(law.factor_loc.unsqueeze(-2), law.factor_scale.unsqueeze(-2))
            if self.encoder is None:  # the guide's family, so that the KL is closed form
                prior = multivariate_normal(law.factor_loc, torch.diag_embed(law.factor_scale))
            z = pyro.sample("z", prior)
            observe_factor_returns(law, z, value, mask)
            if self.spec.penalty.active:
                size = self.spec.penalty.evaluate(
                    self.network.alpha, context.raw_beta, context.tradable
                )
                penalise(size, mask)

    def guide(self, context: NFIContext, outcome: Outcome) -> None:
        """Pyro guide: z given the returns of the date, from the encoder or the model itself."""
        heads = sample_heads(self.heads, "guide")
        if self.encoder is None:
            found = factor_posterior(
                self.law(context, heads),
                outcome.forward_return,
                outcome.observed,
                newton_steps=0,  # what they correct, a little width, is not worth their time
            )
            factors = multivariate_normal(found.loc, found.scale_tril)
        else:
            loc, scale = self.encode(context, outcome)
            factors = independent_normal(loc.unsqueeze(-2), scale.unsqueeze(-2))
        with date_plate(context.date_index, context.n_dates):
            pyro.sample("z", factors)

    def encode(self, context: NFIContext, outcome: Outcome) -> tuple[Tensor, Tensor]:
        """Return the encoder's posterior loc and scale, each (date, factor), in canonical form.

        Raises
        ------
        SpecError
            For the ``posterior`` variant, which has no encoder.
        """
        if self.encoder is None:
            raise SpecError(
                'an encoder must exist to encode outcomes; got variant "posterior". Use '
                "`factor_posterior` of the law instead."
            )
        loc, scale = self.encoder(context.encoder_logits, outcome.forward_return, outcome.observed)
        return self.canonical.factor_loc(loc), self.canonical.factor_scale(scale)

    @torch.no_grad()
    def canonicalise(self, contexts: Iterable[NFIContext]) -> None:
        """Fix the canonical form from the contexts of the training dates; no law changes."""
        found = [
            (c.raw_beta, self.network.alpha(c.raw_beta), c.prior_scale, c.tradable)
            for c in contexts
        ]
        self.canonical.set_from(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def pricing(self, context: NFIContext, position: int) -> PricingFunction:
        """Return the law of one date of a context as a function of canonical exposure."""
        law = self.law(context)
        return PricingFunction(
            self._specific,
            self._alpha,
            law.factor_loc[position],
            law.factor_scale[position],
            "exposures",
            self._specific_jets,
        )

    def exposures(self, context: NFIContext) -> Tensor:
        """Return the canonical exposures that `pricing` takes, (date, asset, factor)."""
        return self.canonical.exposures(context.raw_beta)

    def _specific(self, beta: Tensor) -> SpecificLaw:
        """Return the law of the specific part at canonical exposures (..., factor)."""
        raw = self.canonical.raw_exposures(beta)
        logits, loc, scale = self.network(raw)
        return SpecificLaw(logits, loc - (raw @ self.canonical.shift).unsqueeze(-1), scale)

    def _specific_jets(self, beta: Tensor, order: int) -> Jets:
        """Return the specific law with its derivatives in canonical exposures."""
        form = self.canonical
        raw = form.raw_exposures(beta)
        value, first, second = self.network.jets(raw, order)
        only_loc = value.new_tensor([0.0, 1.0, 0.0])  # the shift is taken out of the loc
        value = value - only_loc[:, None] * (raw @ form.shift)[..., None, None]
        first = (first - only_loc[:, None, None] * form.shift)[..., form.order] / form.scale
        if second is not None:
            second = second[..., form.order, :][..., form.order]
            second = second / (form.scale.unsqueeze(-1) * form.scale)
        return value, first, second

    def _alpha(self, beta: Tensor) -> Jet:
        """Return alpha and its derivatives in canonical exposures."""
        form = self.canonical
        raw = form.raw_exposures(beta)
        value, gradient, hessian = self.network.alpha.jet(raw)
        # d raw_o(j) / d beta_j = 1 / scale_j, with o the order of the factors.
        gradient = (gradient - form.shift)[..., form.order] / form.scale
        hessian = hessian[..., form.order, :][..., form.order]
        hessian = hessian / (form.scale.unsqueeze(-1) * form.scale)
        return Jet(value - raw @ form.shift, gradient, hessian)
