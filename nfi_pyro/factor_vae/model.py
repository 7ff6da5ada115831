"""FactorVAE as one Pyro model and guide over plates of dates and assets."""

from dataclasses import dataclass

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from nfi_pyro.data.training.windows import Outcome, PanelBatch
from nfi_pyro.distributions.factor_mixture import FactorMixture, FactorReturn, independent_normal
from nfi_pyro.distributions.factor_posterior import low_rank_evidence
from nfi_pyro.errors import SpecError
from nfi_pyro.factor_vae.spec import FactorVAESpec
from nfi_pyro.nets.encoder import LeastSquaresEncoder, PortfolioEncoder
from nfi_pyro.nets.heads import DistributionHead
from nfi_pyro.nets.predictor import FactorPredictor
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

    def context(self, batch: PanelBatch) -> FactorVAEContext:
        """Return what the networks say about the dates of `batch`; runs every network once."""
        hidden = self.extractor(batch.features, batch.tradable.shape[0])  # (date, asset, H)
        alpha_loc, specific_scale = self.alpha(hidden)
        prior_loc, prior_scale = self.predictor(hidden, batch.tradable)
        encoder_input = hidden
        if isinstance(self.encoder, PortfolioEncoder):
            encoder_input = self.encoder.logits(hidden)
        elif self.encoder is None:
            encoder_input = hidden[..., :0]
        return FactorVAEContext(
            tradable=batch.tradable,
            alpha_loc=alpha_loc,
            specific_scale=specific_scale,
            beta=self.beta(hidden),
            prior_loc=prior_loc,
            prior_scale=prior_scale,
            encoder_input=encoder_input,
            date_index=batch.date_index,
            n_dates=batch.n_dates,
        )

    def law(self, context: FactorVAEContext) -> FactorMixture:
        """Return the returns' law given shared z, with one component, and z's prior."""
        loc = context.alpha_loc.unsqueeze(-1)
        return FactorMixture(
            torch.zeros_like(loc),
            loc,
            context.specific_scale.unsqueeze(-1),
            context.beta,
            context.prior_loc,
            context.prior_scale,
        )

    def model(self, context: FactorVAEContext, outcome: Outcome | None = None) -> None:
        """Pyro model: sites ``z`` and ``forward_return`` in plates ``date`` and ``asset``.

        Without an outcome the returns are drawn. The ``prior`` variant has no site ``z``: its
        returns are one joint Gaussian per date (see `nfi_pyro.distributions.low_rank_evidence`).
        """
        value = None if outcome is None else outcome.forward_return
        mask = context.tradable if outcome is None else outcome.observed
        dates = pyro.plate("date", context.n_dates, subsample=context.date_index, dim=-2)
        if self.encoder is None and outcome is not None:
            with dates:
                pyro.factor("evidence", self._evidence(context, outcome).unsqueeze(-1))
            return
        with dates:
            prior = independent_normal(
                context.prior_loc.unsqueeze(-2), context.prior_scale.unsqueeze(-2)
            )
            z = pyro.sample("z", prior)
            with pyro.plate("asset", context.beta.shape[1], dim=-1), poutine.mask(mask=mask):  # type: ignore[call-overload]
                pyro.sample("forward_return", FactorReturn(self.law(context), z), obs=value)

    def guide(self, context: FactorVAEContext, outcome: Outcome) -> None:
        """Pyro guide: z from the encoder, which alone sees the returns of the date."""
        if self.encoder is None:
            return
        loc, scale = self.encode(context, outcome)
        with pyro.plate("date", context.n_dates, subsample=context.date_index, dim=-2):
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

    def _evidence(self, context: FactorVAEContext, outcome: Outcome) -> Tensor:
        """Return the joint log density of each date's returns, factors integrated out."""
        return low_rank_evidence(
            outcome.forward_return - context.alpha_loc,
            outcome.observed,
            context.beta,
            context.specific_scale.square(),
            context.prior_loc,
            context.prior_scale,
        )
