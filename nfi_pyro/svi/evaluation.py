"""How good the prior's forecasts are on a span of dates, without any return entering them."""

from dataclasses import dataclass

import numpy as np
import torch

from nfi_pyro.data.ranking import rank_correlation
from nfi_pyro.data.training.windows import PanelWindows
from nfi_pyro.svi.protocol import PricingModel


@dataclass(frozen=True)
class ForecastQuality:
    """Scores of a span of dates.

    Attributes
    ----------
    log_score : float
        Mean log predictive density per observed cell, nats, returns in training-sd units.
    rank_ic : float
        Mean over dates of the rank correlation of forecast mean and return; NaN without any.
    """

    log_score: float
    rank_ic: float


def evaluate_forecasts(
    model: PricingModel, windows: PanelWindows, span: slice, block_size: int
) -> ForecastQuality:
    """Return the scores of the closed-form marginal forecasts over the dates of `span`.

    Deterministic: nothing is sampled. Assets that are not observed do not count.
    """
    total, n_cells = 0.0, 0
    means, returns, masks = [], [], []
    with torch.no_grad():
        for batch, outcome in windows.stream(windows.blocks(span, block_size)):
            marginal = model.law(model.context(batch)).marginal()
            log_prob = marginal.log_prob(outcome.forward_return)
            total += float(torch.where(outcome.observed, log_prob, 0.0).sum(dtype=torch.float64))
            n_cells += int(outcome.observed.sum())
            means.append(marginal.mean.cpu().numpy())
            returns.append(outcome.forward_return.cpu().numpy())
            masks.append(outcome.observed.cpu().numpy())
    ranks = rank_correlation(np.concatenate(means), np.concatenate(returns), np.concatenate(masks))
    known = ranks[np.isfinite(ranks)]
    rank_ic = float(known.mean()) if known.size else float("nan")
    return ForecastQuality(total / n_cells if n_cells else float("nan"), rank_ic)
