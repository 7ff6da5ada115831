"""The number of factors by evidence: BIC, or the evidence of validation dates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from nfi_pyro.dims import ASSET
from nfi_pyro.errors import SpecError, SplitError
from nfi_pyro.exposures.ppca import Method, fit_ppca
from nfi_pyro.exposures.ppca_result import PPCAFit
from nfi_pyro.exposures.rows import Span, span_positions
from nfi_pyro.exposures.vae import VAESpec
from nfi_pyro.exposures.vae_fit import VAETraining, fit_vae
from nfi_pyro.exposures.vae_result import VAEFit


@dataclass(frozen=True)
class PPCAChoice:
    """Fits with different numbers of factors and which one the evidence prefers.

    Attributes
    ----------
    fits : tuple of PPCAFit
    table : Dataset, dims (n_factors,)
        ``log_likelihood`` (nats, training), ``bic``, and ``validation`` (nats per row, mean over
        validation dates; NaN without them) with ``validation_error``, the standard error of its
        difference to the best over dates.
    best : PPCAFit
    """

    fits: tuple[PPCAFit, ...]
    table: xr.Dataset
    best: PPCAFit


def choose_ppca(
    features: xr.DataArray,
    mask: xr.DataArray,
    *,
    n_factors: Sequence[int],
    method: Method = "closed_form",
    train: Span = None,
    validation: Span = None,
) -> PPCAChoice:
    """Return fits for several numbers of factors, and the one to take.

    With `validation` dates it is the smallest number whose log-likelihood there is within one
    standard error (paired by date) of the best; without, the smallest BIC. Arguments and errors
    as in `fit_ppca`.

    Raises
    ------
    SpecError
        If `n_factors` is empty or repeats itself.
    """
    counts = sorted_counts(n_factors)
    fits = tuple(
        fit_ppca(features, mask, n_factors=count, method=method, train=train) for count in counts
    )
    bic = np.array([fit.bic for fit in fits])
    means, errors = np.full(len(fits), np.nan), np.full(len(fits), np.nan)
    place = int(bic.argmin())
    if validation is not None:
        span = span_positions(features, validation)
        by_date = [fit.score(features[span], mask[span]).mean(ASSET).to_numpy() for fit in fits]
        place, means, errors = smallest_within_error(np.stack(by_date))
    table = xr.Dataset(
        {
            "log_likelihood": ("n_factors", [fit.log_likelihood for fit in fits]),
            "bic": ("n_factors", bic),
            "validation": ("n_factors", means),
            "validation_error": ("n_factors", errors),
        },
        {"n_factors": counts},
    )
    return PPCAChoice(fits, table, fits[place])


@dataclass(frozen=True)
class VAEChoice:
    """Autoencoders with different numbers of latents and which one the evidence prefers.

    Attributes
    ----------
    fits : tuple of VAEFit
    table : Dataset, dims (n_factors,)
        ``validation``: importance-weighted evidence, nats per row, mean over validation dates;
        ``validation_error``: standard error of its difference to the best over dates; and
        ``active``: latents in use.
    best : VAEFit
    """

    fits: tuple[VAEFit, ...]
    table: xr.Dataset
    best: VAEFit


def choose_vae(
    features: xr.DataArray,
    mask: xr.DataArray,
    *,
    n_factors: Sequence[int],
    spec: VAESpec,
    train: Span,
    validation: Span,
    training: VAETraining | None = None,
    seed: int = 0,
) -> VAEChoice:
    """Return autoencoders for several numbers of latents, and the one to take.

    It is the smallest number whose evidence on the validation dates (64 importance draws) is
    within one standard error, paired by date, of the best: more latents than the data has only
    collapse. `n_factors` replaces that of `spec`; other arguments and errors as in `fit_vae`.

    Raises
    ------
    SpecError
        If `n_factors` is empty or repeats itself.
    """
    counts = sorted_counts(n_factors)
    fits = tuple(
        fit_vae(
            features,
            mask,
            spec=spec.model_copy(update={"n_factors": count}),
            train=train,
            validation=validation,
            training=training,
            seed=seed,
        )
        for count in counts
    )
    span = span_positions(features, validation)
    by_date = [
        fit.score(features[span], mask[span], seed=seed).mean(ASSET).to_numpy() for fit in fits
    ]
    place, means, errors = smallest_within_error(np.stack(by_date).astype(np.float64))
    table = xr.Dataset(
        {
            "validation": ("n_factors", means),
            "validation_error": ("n_factors", errors),
            "active": ("n_factors", [int(fit.active_units.sum()) for fit in fits]),
        },
        {"n_factors": counts},
    )
    return VAEChoice(fits, table, fits[place])


def sorted_counts(n_factors: Sequence[int]) -> list[int]:
    """Return the candidates in increasing order, or say that there are none or twice the same."""
    counts = sorted(n_factors)
    if not counts or len(set(counts)) < len(counts):
        raise SpecError(
            f"n_factors must list distinct candidates; got {list(n_factors)}. Give some, such as "
            "[1, 2, 4, 8]."
        )
    return counts


def smallest_within_error(by_date: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the first candidate within one standard error of the best, all means, all errors.

    Parameters
    ----------
    by_date : ndarray, shape (candidate, date)
        Evidence, larger is better; the error is that of the difference to the best by date.
        Dates without a row are NaN and left out.

    Raises
    ------
    SplitError
        If no date has a row.
    """
    scores = by_date[:, ~np.isnan(by_date).any(axis=0)]
    if not scores.size:
        raise SplitError(
            "validation must hold at least one row of the mask; got none. Choose other dates."
        )
    means = scores.mean(axis=1)
    gaps = scores[means.argmax()] - scores
    size = scores.shape[1]
    errors = gaps.std(axis=1, ddof=1) / math.sqrt(size) if size > 1 else np.zeros(len(means))
    return int((gaps.mean(axis=1) <= errors).argmax()), means, errors
