"""FactorVAE as one Pyro model and guide over plates of dates and assets."""

from dataclasses import dataclass

import pyro
import torch
from torch import Tensor, nn

from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.distributions.factor_mixture import FactorMixture, independent_normal
from nfi_pyro.distributions.heads import (
    Groups,
    HeadPosterior,
    price_at_draw,
    price_at_location,
)
from nfi_pyro.distributions.sites import date_plate, observe_factor_returns, sample_heads
from nfi_pyro.errors import SpecError
from nfi_pyro.factor_vae.spec import FactorVAESpec
from nfi_pyro.nets.encoder import LeastSquaresEncoder, PortfolioEncoder
from nfi_pyro.nets.heads import DistributionHead
from nfi_pyro.nets.predictor import FactorPredictor, Trunk
from nfi_pyro.nets.windowed_gru import WindowedGRU


@dataclass(frozen=True)
class FactorVAEContext:
    """Everything that the networks say about a batch; no return has entered.

    Attributes
    ----------
    tradable : Tensor of bool, shape (date, asset)
    alpha_loc, specific_scale : Tensor, shape (date, asset)
        Specific mean and standard deviation (Eq. 10), standardised return units.
    beta : Tensor, shape (date, asset, factor)
        Exposures (Eq. 11).
    prior_loc, prior_scale : Tensor, shape (date, factor)
        Prior factors (Eq. 16).
    encoder_input : Tensor, shape (date, asset, portfolio) or (date, asset, hidden)
        Portfolio logits, or hidden states for the ``port`` variant; empty for ``prior``.
    date_index, n_dates
        As in `PanelBatch`.
    trunk : Trunk
        Inputs of the last layers.
    """

    tradable: Tensor
    alpha_loc: Tensor
    specific_scale: Tensor
    beta: Tensor
    prior_loc: Tensor
    prior_scale: Tensor
    encoder_input: Tensor
    date_index: Tensor
    n_dates: int
    trunk: Trunk


_GROUPS: Groups = {
    "alpha": ("alpha.loc.weight", "alpha.loc.bias"),
    "beta": ("beta.weight", "beta.bias"),
    "price": tuple(
        f"predictor.head.{layer}.{part}"
        for layer in ("loc", "raw_scale")
        for part in ("weight", "bias")
    ),
    "noise": ("alpha.raw_scale.weight", "alpha.raw_scale.bias"),
}


class FactorVAE(nn.Module):
    r"""Probabilistic dynamic factor model ``y = alpha(x) + beta(x) z + noise``.

    ``z_t ~ N(prior_loc(x), prior_scale(x)^2)`` over factors, and given z
    ``y_i ~ N(alpha_loc_i + beta_i.z, specific_scale_i^2)`` (FactorVAE, Eq. 1-2 and 9-16). The
    Gaussian noise of alpha (Eq. 10) is the specific part, so Eq. 12's moments are the marginal
    ones. Model and guide are pure functions of a `FactorVAEContext`; every network runs once
    per step, in `context`. The guide's encoder (Eq. 6-8) is the only place a return enters.

    Parameters
    ----------
    spec : FactorVAESpec
        With `n_features` given.
    seed : int
        Of the initial weights; the global generator is left as it was.

    Raises
    ------
    SpecError
        If ``spec.n_features`` is None.

    References
    ----------
    .. [1] Duan, Wang, Zhang, Li (2022). FactorVAE: A Probabilistic Dynamic Factor Model Based
       on Variational Autoencoder for Predicting Cross-Sectional Stock Returns. AAAI-22.
    """

    name = "factor_vae"
    uses_exposures = False

    def __init__(self, spec: FactorVAESpec, *, seed: int = 0) -> None:
        super().__init__()
        if spec.n_features is None:
            raise SpecError(
                "spec.n_features must be the panel's number of features; got None. Set it: "
                "FactorVAESpec(n_features=panel.sizes['feature'])."
            )
        self.spec = spec
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._build(spec, spec.n_features)

    def _build(self, spec: FactorVAESpec, n_features: int) -> None:
        """Create the networks."""
        floor, slope = spec.scale_floor, spec.negative_slope
        self.extractor = WindowedGRU(
            n_features, spec.projection_size, spec.hidden_size, negative_slope=slope
        )
        self.alpha = DistributionHead(
            spec.hidden_size, spec.alpha_hidden_size, scale_floor=floor, negative_slope=slope
        )
        self.beta = nn.Linear(spec.hidden_size, spec.n_factors)
        self.predictor = FactorPredictor(
            spec.hidden_size,
            spec.n_factors,
            spec.prior_hidden_size,
            scale_floor=floor,
            negative_slope=slope,
        )
        self.encoder: PortfolioEncoder | LeastSquaresEncoder | None = None
        if spec.variant == "full":
            self.encoder = PortfolioEncoder(
                spec.hidden_size, spec.n_portfolios, spec.n_factors, scale_floor=floor
            )
        elif spec.variant == "port":
            self.encoder = LeastSquaresEncoder(spec.hidden_size, spec.n_factors, scale_floor=floor)
        self.heads: HeadPosterior | None = None
        if spec.heads.bayesian:
            self.heads = HeadPosterior(self, _GROUPS, spec.heads)

    def forward(self, trunk: Trunk) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return alpha loc and scale, beta, prior loc and scale: everything past the trunk."""
        return (
            *self.alpha(trunk.hidden),
            self.beta(trunk.hidden),
            *self.predictor.head(trunk.pooled),
        )

    def context(self, batch: PanelBatch) -> FactorVAEContext:
        """Return what the networks say about the dates of `batch`; runs every network once."""
        hidden = self.extractor(batch.features, batch.tradable.shape[0])  # (date, asset, H)
        trunk = Trunk(hidden, self.predictor.attention(hidden, batch.tradable))
        alpha_loc, specific_scale, beta, prior_loc, prior_scale = price_at_location(
            self, self.heads, trunk
        )
        encoder_input = hidden
        if isinstance(self.encoder, PortfolioEncoder):
            encoder_input = self.encoder.logits(hidden)
        elif self.encoder is None:
            encoder_input = hidden[..., :0]
        return FactorVAEContext(
            tradable=batch.tradable,
            alpha_loc=alpha_loc,
            specific_scale=specific_scale,
            beta=beta,
            prior_loc=prior_loc,
            prior_scale=prior_scale,
            encoder_input=encoder_input,
            date_index=batch.date_index,
            n_dates=batch.n_dates,
            trunk=trunk,
        )

    def law(self, context: FactorVAEContext, heads: Tensor | None = None) -> FactorMixture:
        """Return the returns' law given shared z, with one component, and z's prior.

        Parameters
        ----------
        context : FactorVAEContext
        heads : Tensor, shape (coordinate,), optional
            A draw of `heads`; by default the last layers as they are, which for random ones is
            the guide's location.
        """
        if heads is None:
            alpha_loc, specific_scale = context.alpha_loc, context.specific_scale
            beta, prior_loc, prior_scale = context.beta, context.prior_loc, context.prior_scale
        else:
            alpha_loc, specific_scale, beta, prior_loc, prior_scale = price_at_draw(
                self, self.heads, heads, context.trunk
            )
        loc = alpha_loc.unsqueeze(-1)
        return FactorMixture(
            torch.zeros_like(loc), loc, specific_scale.unsqueeze(-1), beta, prior_loc, prior_scale
        )

    def model(self, context: FactorVAEContext, outcome: Outcome | None = None) -> None:
        """Pyro model: sites ``z`` and ``forward_return`` in plates ``date`` and ``asset``.

        A site ``heads`` before them where last layers are random. Without an outcome the returns
        are drawn. The ``prior`` variant has no site ``z``: its returns are one joint Gaussian per
        date (see `FactorMixture.joint_log_prob`).
        """
        value = None if outcome is None else outcome.forward_return
        mask = context.tradable if outcome is None else outcome.observed
        law = self.law(context, sample_heads(self.heads, "prior"))
        with date_plate(context.date_index, context.n_dates):
            if self.encoder is None and value is not None:
                pyro.factor("evidence", law.joint_log_prob(value, mask).unsqueeze(-1))
                return
            z = pyro.sample(
                "z",
                independent_normal(law.factor_loc.unsqueeze(-2), law.factor_scale.unsqueeze(-2)),
            )
            observe_factor_returns(law, z, value, mask)

    def guide(self, context: FactorVAEContext, outcome: Outcome) -> None:
        """Pyro guide: z from the encoder, which alone sees the returns of the date."""
        sample_heads(self.heads, "guide")
        if self.encoder is None:
            return
        loc, scale = self.encode(context, outcome)
        with date_plate(context.date_index, context.n_dates):
            pyro.sample("z", independent_normal(loc.unsqueeze(-2), scale.unsqueeze(-2)))

    def encode(self, context: FactorVAEContext, outcome: Outcome) -> tuple[Tensor, Tensor]:
        """Return the encoder's posterior loc and scale, each (date, factor) (Eq. 6-8).

        Raises
        ------
        SpecError
            For the ``prior`` variant, which has no encoder.
        """
        if self.encoder is None:
            raise SpecError(
                'an encoder must exist to encode outcomes; got variant "prior". Use the exact '
                "factor posterior instead."
            )
        return self.encoder(context.encoder_input, outcome.forward_return, outcome.observed)
