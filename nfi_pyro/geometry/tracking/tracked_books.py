"""Exposures of books under a date's law, with the weight that has none counted."""

from typing import NamedTuple

import numpy as np

from nfi_pyro.posterior.dated_weights import DatedWeights
from nfi_pyro.posterior.exposure_pricing import PricingLaw

BOOKS = ("portfolio", "benchmark")


class BookExposure(NamedTuple):
    """Exposure of a book on a date.

    Attributes
    ----------
    exposure : ndarray, shape (factor,)
        ``B'w`` of the assets with a law, scaled up to the whole absolute weight; NaN without any.
    uncovered : float
        Share of absolute weight without a law, in [0, 1].
    """

    exposure: np.ndarray
    uncovered: float


def book_exposure(
    book: DatedWeights, law: PricingLaw, date: int, places: np.ndarray
) -> BookExposure:
    """Return a book's exposure on a date (a position), `places` (asset,) being the law's assets."""
    beta = law.beta.detach().numpy()
    whole = book.row(date)
    if not len(beta):
        return BookExposure(np.full(beta.shape[-1], np.nan), 1.0)
    if whole is None:
        return BookExposure(beta.mean(axis=0), 0.0)
    covered = float(np.abs(whole[places]).sum() / np.abs(whole).sum())
    exposure = beta.T @ whole[places] / covered if covered > 0.0 else np.full(beta.shape[1], np.nan)
    return BookExposure(exposure, 1.0 - min(covered, 1.0))
