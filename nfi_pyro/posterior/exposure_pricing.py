"""The pricing law of one date: returns as a function of exposure, in decimal return units."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.data.panel import Panel
from nfi_pyro.distributions.law_jets import LawJets
from nfi_pyro.distributions.mixture import MixtureOfNormals
from nfi_pyro.distributions.pricing import PricingFunction
from nfi_pyro.distributions.quantiles import solve_quantile
from nfi_pyro.errors import ShapeError, SpecError
from nfi_pyro.posterior.blocks import DateRange, PanelPass, open_pass
from nfi_pyro.posterior.wide import wide_batch, wide_model
from nfi_pyro.svi.protocol import ExposurePricing
from nfi_pyro.svi.trained import SVIFit

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
OTHER_FACTOR = "factor_other"


@dataclass(frozen=True)
class PricingLaw:
    r"""``beta -> p_t(r | beta)`` with the factors' law of the date frozen, float64.

    One mechanism for every exposure: a mixture whose parameters are smooth functions of beta. Its
    derivatives are partial ones: ``m_t`` and ``S_t`` depend on all assets' features and are held.

    Attributes
    ----------
    function : PricingFunction
        In units of `return_scale`.
    return_scale : float
        Decimal return per unit of `function`.
    beta : Tensor, shape (asset, factor)
        Exposures of the assets that entered the date, dimensionless.
    assets : ndarray, shape (asset,)
    factors : tuple of str
        Names of the exposures.
    date : numpy.datetime64
        Close at which the law is known.
    """

    function: PricingFunction
    return_scale: float
    beta: Tensor
    assets: np.ndarray
    factors: tuple[str, ...]
    date: np.datetime64

    def __call__(self, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, loc and log scale of the return, each (..., component).

        Differentiable in `beta` (..., factor), also by `torch.func`; loc and scale in decimal
        return.
        """
        law = self.marginal(beta)
        return law.logits, law.loc, law.scale.log()

    def marginal(self, beta: Tensor | None = None) -> MixtureOfNormals:
        """Return the law at exposures (..., factor), by default those of the date's assets."""
        law = self.function.marginal(self._checked(beta))
        return MixtureOfNormals(
            law.logits,
            law.loc * self.return_scale,
            law.scale * self.return_scale,
            validate_args=False,
        )

    def jets(self, beta: Tensor, order: int = 2) -> LawJets:
        """Return logits, loc and log scale with their derivatives by exposure, closed form.

        In decimal return, at exposures (row, factor); `order` 1 leaves out second derivatives.
        """
        found = self.function.jets(self._checked(beta), order)
        unit = found.value.new_tensor([1.0, self.return_scale, 1.0])
        shift = torch.zeros_like(unit)
        shift[2] = math.log(self.return_scale)
        second = found.second if found.second is None else found.second * unit[:, None, None, None]
        return LawJets(
            found.value * unit[:, None] + shift[:, None],
            found.first * unit[:, None, None],
            second,
        )

    def jacobian(self, beta: Tensor | None = None) -> Tensor:
        r"""Return the factor returns ``g = grad alpha(beta) + m_t``, (..., factor), exact.

        Decimal expected return per unit of exposure: a price of risk common to all assets plus a
        part of each asset's own (deck A, lines 153-161 and 177-198). Rows are identical where
        pricing is linear.
        """
        return self._derivatives(beta)[0]

    def hessian(self, beta: Tensor | None = None) -> Tensor:
        """Return ``d^2 E[r] / d beta^2``, (..., factor, factor), exact and symmetric."""
        return self._derivatives(beta)[1]

    def price_of_risk(self) -> Tensor:
        """Return the part of the factor returns that all assets share, (factor,).

        Decimal return per unit exposure: the mean of the date's factors, 0 without any.
        """
        common = self.function.price_of_risk() * self.return_scale
        return common.detach().expand(len(self.factors))

    def evaluate(self, levels: Sequence[float] = QUANTILES) -> xr.Dataset:
        """Return everything the law says of the date's assets, in one pass and closed form.

        Parameters
        ----------
        levels : sequence of float
            Probabilities of `return_quantile`, in (0, 1).

        Returns
        -------
        Dataset
            `mean`, `variance` (asset), `return_quantile` (quantile, asset), `jacobian` (asset,
            factor), `hessian` (asset, factor, factor_other), `beta` (asset, factor), and over
            (factor,) `price_of_risk` (the part of the Jacobian that all assets share). Decimal
            return.
        """
        levels = [float(level) for level in levels]
        with torch.no_grad():
            law = self.marginal()
            shape = (len(levels), *law.loc.shape)
            probability = torch.tensor(levels, dtype=law.loc.dtype)[:, None].expand(shape[:2])
            logits, loc, scale = (p.expand(shape) for p in (law.logits, law.loc, law.scale))
            quantile = solve_quantile(logits, loc, scale, probability)
            jacobian, hessian = self._derivatives(None)
        factor = ("asset", "factor")
        decimal = {"units": "decimal return"}
        slope = {"units": "decimal return per unit exposure"}
        return xr.Dataset(
            {
                "mean": ("asset", law.mean.numpy(), decimal),
                "variance": ("asset", law.variance.numpy(), {"units": "decimal return squared"}),
                "return_quantile": (("quantile", "asset"), quantile.numpy(), decimal),
                "jacobian": (factor, jacobian.numpy(), slope),
                "hessian": ((*factor, OTHER_FACTOR), hessian.numpy(), slope),
                "beta": (factor, self.beta.numpy(), {"units": "1"}),
                "price_of_risk": ("factor", self.price_of_risk().numpy(), slope),
            },
            coords={
                "asset": self.assets,
                "factor": list(self.factors),
                OTHER_FACTOR: list(self.factors),
                "quantile": levels,
                "date": self.date,
            },
        )

    def _derivatives(self, beta: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return gradient and Hessian of the mean in decimal return."""
        gradient, hessian = self.function.mean_derivatives(self._checked(beta))
        return gradient * self.return_scale, hessian * self.return_scale

    def _checked(self, beta: Tensor | None) -> Tensor:
        """Return the exposures to use, after a look at their last axis."""
        if beta is None:
            return self.beta
        if beta.shape[-1:] != self.beta.shape[-1:]:
            raise ShapeError(
                f"beta must end in the law's {self.beta.shape[-1]} factors; got shape "
                f"{tuple(beta.shape)}. Use law.beta's layout (..., factor)."
            )
        return beta.to(self.beta.dtype)


def pricing_law(
    fit: SVIFit, panel: Panel, date: str | np.datetime64 | pd.Timestamp | None = None
) -> PricingLaw:
    """Return the pricing law of one date as a function of exposure.

    Parameters
    ----------
    fit : SVIFit
        Of nfi, mixture_pricing, neural_factor or linear_factor.
    panel : Panel
        With the fit's features and exposures; its `forward_return` is not read.
    date : date, optional
        Default: the panel's last.

    Returns
    -------
    PricingLaw
        At the exposures of the assets that enter the date.

    Raises
    ------
    SpecError
        If the model prices on hidden features instead of exposures (factor_vae).
    SplitError, PanelError
        If the date has no full window, or the panel is not the fit's kind.
    """
    require_exposure_pricing(fit)
    day = str(pd.Timestamp(panel["date"].values[-1] if date is None else date).date())
    return next(pricing_laws(fit, panel, dates=(day, day)))


def pricing_laws(
    fit: SVIFit, panel: Panel, *, dates: DateRange | None = None
) -> Iterator[PricingLaw]:
    """Return an iterator over the pricing laws of consecutive dates, in order.

    The panel is opened and the networks are copied to double precision once for all dates, and
    the networks run a block of dates at a time.

    Parameters
    ----------
    fit, panel
        As in `pricing_law`.
    dates : pair of str, optional
        First and last date, inclusive. By default every date with a full window.

    Raises
    ------
    SpecError, SplitError, PanelError
        As in `pricing_law`, at the call.
    """
    require_exposure_pricing(fit)
    return laws_of_pass(fit, open_pass(fit, panel, dates))


def laws_of_pass(fit: SVIFit, visit: PanelPass) -> Iterator[PricingLaw]:
    """Return an iterator over the pricing laws of a pass that was opened for the fit.

    Raises
    ------
    SpecError
        As in `pricing_law`, at the call.
    """
    require_exposure_pricing(fit)
    names = fit.provenance["factors"]
    if fit.model.uses_exposures:
        names = fit.provenance["exposures"]["names"]
    return _laws(wide_model(fit), visit, fit, tuple(names))


def require_exposure_pricing(fit: SVIFit) -> None:
    """Refuse a fit whose law is no function of exposure.

    Raises
    ------
    SpecError
        Names the model.
    """
    if not isinstance(fit.model, ExposurePricing):
        raise SpecError(
            f"a pricing law must come from a model that prices exposures; got {fit.model.name}, "
            "which prices hidden features. Use nfi, mixture_pricing, neural_factor or "
            "linear_factor."
        )


def _laws(
    model: ExposurePricing, visit: PanelPass, fit: SVIFit, names: tuple[str, ...]
) -> Iterator[PricingLaw]:
    """Yield the law of each date of a pass; `model` is the fit's in double precision."""
    windows = visit.windows
    blocks = visit.blocks(fit.config.block_size)
    for batch, _ in windows.stream(blocks, span=visit.span):
        with torch.no_grad():
            context = model.context(wide_batch(batch))
            beta = model.exposures(context)
            functions = [model.pricing(context, place) for place in range(len(beta))]
        for place, (function, kept) in enumerate(zip(functions, batch.tradable, strict=True)):
            yield PricingLaw(
                function=function,
                return_scale=fit.return_scale,
                beta=beta[place, kept],
                assets=windows.assets[kept.numpy()],
                factors=names,
                date=windows.dates[visit.span.start + int(batch.date_index[place])],
            )
