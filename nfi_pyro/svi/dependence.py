"""How assets depend on each other when the model's own law does not say: a copula of PITs."""

import torch
from torch import Tensor

from nfi_pyro.data.training.windows import PanelBatch, PanelWindows
from nfi_pyro.distributions.copula import CopulaStatistics, GaussianCopula
from nfi_pyro.nets.standardise import standardise_cross_section, with_intercept
from nfi_pyro.svi.protocol import PricingModel


def copula_design(batch: PanelBatch) -> Tensor:
    """Return 1 and the standardised given exposures, (date, asset, 1 + factor)."""
    return with_intercept(standardise_cross_section(batch.given_exposures, batch.tradable))


def fit_copula(
    model: PricingModel, windows: PanelWindows, train: slice, block_size: int
) -> GaussianCopula:
    """Return the Gaussian copula of the training dates' PITs under the trained marginal laws.

    Parameters
    ----------
    model : PricingModel
        Trained, without shared factors.
    windows : PanelWindows
    train : slice
        Positions of the training dates.
    block_size : int
    """
    found = CopulaStatistics()
    with torch.no_grad():
        for batch, outcome in windows.stream(windows.blocks(train, block_size)):
            marginal = model.law(model.context(batch)).marginal()
            probability = marginal.cdf(outcome.forward_return)
            found.add(probability, copula_design(batch), outcome.observed)
    return found.fit()
