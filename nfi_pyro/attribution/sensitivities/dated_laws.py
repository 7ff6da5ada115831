"""The law of each date of a fit, as a function of exposure, whatever the model."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nfi_pyro.data.panel import Panel
from nfi_pyro.distributions.factor_mixture import FactorMixture
from nfi_pyro.distributions.law_jets import LawJets
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.errors import ShapeError
from nfi_pyro.posterior.blocks import DateRange, PanelPass, open_pass
from nfi_pyro.posterior.exposure_pricing import PricingLaw, laws_of_pass
from nfi_pyro.svi.protocol import ExposurePricing
from nfi_pyro.svi.trained import SVIFit


@dataclass(frozen=True)
class FixedFeatureLaw(PricingLaw):
    """The law of a model that prices hidden features (factor_vae), as a function of exposure.

    The specific part of every asset is held where its features put it; what an exposure earns and
    risks is the factors' law alone: the gradient of the mean is m_t for all assets, its Hessian 0.
    A row of exposures is one of the assets, in their order, so there must be as many.
    """

    def marginal(self, beta: Tensor | None = None) -> MixtureOfNormals:
        """Return the law at exposures (asset, factor), one row for each asset."""
        return super().marginal(self._as_many(beta))

    def jets(self, beta: Tensor, order: int = 2) -> LawJets:
        """Return the law's derivatives at exposures (asset, factor), one row for each asset."""
        return super().jets(self._as_many(beta), order)

    def _as_many(self, beta: Tensor | None) -> Tensor:
        """Refuse exposures that are not the assets'."""
        if beta is None:
            return self.beta
        if len(beta) != len(self.beta):
            raise ShapeError(
                f"exposures must have a row for each of the {len(self.beta)} assets, whose "
                f"features are held; got {len(beta)}. Pass them all."
            )
        return beta


def dated_laws(
    fit: SVIFit, panel: Panel, *, dates: DateRange | None = None
) -> Iterator[PricingLaw]:
    """Return an iterator over the laws of consecutive dates, in order.

    `pricing_laws` where the model prices exposures, `FixedFeatureLaw` where it prices hidden
    features.

    Raises
    ------
    SplitError, PanelError
        If no date has a full window, or the panel is not the fit's kind.
    """
    return dated_laws_of_pass(fit, open_pass(fit, panel, dates))


def dated_laws_of_pass(fit: SVIFit, visit: PanelPass) -> Iterator[PricingLaw]:
    """Return an iterator over the laws of a pass that was opened for the fit."""
    if isinstance(fit.model, ExposurePricing):
        return laws_of_pass(fit, visit)
    return _fixed_feature_laws(fit, visit)


def _fixed_feature_laws(fit: SVIFit, visit: PanelPass) -> Iterator[PricingLaw]:
    """Yield the laws with features held, in double precision from the networks' output on."""
    names = tuple(fit.provenance["factors"])
    blocks = visit.blocks(fit.config.block_size)
    for (start, _), (batch, context, _) in zip(blocks, visit.contexts(fit), strict=True):
        whole = fit.model.law(context).double()
        for place, kept in enumerate(batch.tradable):
            beta = whole.beta[place, kept]
            yield FixedFeatureLaw(
                function=_held(whole, place, kept),
                return_scale=fit.return_scale,
                beta=beta,
                assets=visit.windows.assets[kept.numpy()],
                factors=names,
                date=visit.windows.dates[start + place],
            )


def _held(law: FactorMixture, place: int, kept: Tensor) -> PricingFunction:
    """Return the law of one date with its specific part held."""
    logits, loc, scale = (part[place, kept] for part in (law.logits, law.loc, law.scale))
    mean = (torch.softmax(logits, -1) * loc).sum(-1)

    def jets(beta: Tensor, order: int) -> tuple[Tensor, Tensor, Tensor | None]:
        value = torch.stack([logits, loc, scale.log()], dim=-2)
        n_factors = beta.shape[-1]
        first = value.new_zeros(*value.shape, n_factors)
        second = value.new_zeros(*value.shape, n_factors, n_factors) if order > 1 else None
        return value, first, second

    return PricingFunction(
        lambda beta: (logits, loc, scale),
        lambda beta: _Constant(mean, torch.zeros_like(beta), _no_curvature(beta)),
        law.factor_loc[place],
        law.factor_scale[place],
        "exposures",
        jets,
    )


@dataclass(frozen=True)
class _Constant:
    """Alpha where features hold it: a value by row, without slope."""

    value: Tensor
    gradient: Tensor
    hessian: Tensor


def _no_curvature(beta: Tensor) -> Tensor:
    return beta.new_zeros(*beta.shape, beta.shape[-1])
