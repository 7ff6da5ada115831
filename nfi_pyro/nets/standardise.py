"""Given exposures on one scale: standardised over the assets of each date."""

import torch
from torch import Tensor


def standardise_cross_section(values: Tensor, present: Tensor) -> Tensor:
    """Return values with mean 0 and standard deviation 1 over the assets of each date.

    A column that does not vary on a date, and every cell that is not present, is 0.

    Parameters
    ----------
    values : Tensor, shape (date, asset, factor)
        Known at the close of the date; any number where not present.
    present : Tensor of bool, shape (date, asset)
        Assets that count. Equal weights: capitalisation is not always known.
    """
    mask = present.unsqueeze(-1)
    kept = torch.where(mask, values, 0.0)
    count = mask.sum(1, keepdim=True).clamp(min=1).to(values.dtype)
    mean = kept.sum(1, keepdim=True) / count
    gap = torch.where(mask, values - mean, 0.0)
    deviation = (gap.square().sum(1, keepdim=True) / count).sqrt()
    still = deviation <= 1e-6 * (mean.abs() + 1e-6)
    return torch.where(still, 0.0, gap / torch.where(still, 1.0, deviation))


def with_intercept(exposures: Tensor) -> Tensor:
    """Return exposures with a first column of ones: the market, in the span of the factors."""
    return torch.cat([torch.ones_like(exposures[..., :1]), exposures], dim=-1)
