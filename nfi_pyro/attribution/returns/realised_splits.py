"""Realised returns of books in parts of factors and assets: by regression, or by posterior."""

from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from nfi_pyro.attribution.results.realised import ALPHA, NONLINEAR, SPECIFIC
from nfi_pyro.attribution.returns.realised_books import RealisedBooks
from nfi_pyro.data.checks.quality import DropLedger
from nfi_pyro.data.panel import Panel
from nfi_pyro.dims import ASSET, DATE, FACTOR
from nfi_pyro.errors import SpecError, name_places
from nfi_pyro.linear_factor import CrossSectionalRegression, cross_sectional_regression
from nfi_pyro.posterior.blocks import DateRange, open_pass
from nfi_pyro.posterior.draws import sample_posterior
from nfi_pyro.posterior.wide import wide_batch, wide_model
from nfi_pyro.svi.trained import SVIFit


class RealisedSplit(NamedTuple):
    """What one fit says of the books.

    Attributes
    ----------
    names : tuple of str
        Parts: the factors, then two more.
    parts : ndarray, shape (date, part)
    draws : ndarray, shape (draw, date, part), or None
    covered : ndarray of bool, shape (date, asset)
        Assets that the parts are of.
    factors : tuple of str
    exposure, factor_return, standard_error : ndarray, shape (date, factor)
    condition : ndarray, shape (date,), or None
        Of the regression's columns.
    ledger : DropLedger
    """

    names: tuple[str, ...]
    parts: np.ndarray
    draws: np.ndarray | None
    covered: np.ndarray
    factors: tuple[str, ...]
    exposure: np.ndarray
    factor_return: np.ndarray
    standard_error: np.ndarray
    condition: np.ndarray | None
    ledger: DropLedger


def split_by_regression(
    fit: SVIFit,
    panel: Panel,
    books: RealisedBooks,
    *,
    dates: DateRange | None,
    weights: xr.DataArray | None,
) -> RealisedSplit:
    """Return the books' returns split by the factor returns of each date's regression.

    Raises
    ------
    SpecError
        If a date has no regression.
    """
    beta, expected = _law_arrays(fit, panel, dates, len(books.dates))
    label = {DATE: books.dates, ASSET: books.assets}
    names = fit.provenance["exposures" if fit.model.uses_exposures else "factors"]
    factors = [str(name) for name in (names["names"] if fit.model.uses_exposures else names)]
    exposures = xr.DataArray(beta, {**label, FACTOR: factors}, (DATE, ASSET, FACTOR))
    if weights is not None:
        weights = weights.reindex(label)
    returns = xr.DataArray(np.where(books.observed, books.returns, np.nan), label, (DATE, ASSET))
    realised = cross_sectional_regression(returns, exposures, weights=weights)
    covered = np.isfinite(realised.specific_returns.to_numpy())
    _require_regressions(realised, covered)
    priced = cross_sectional_regression(
        returns.copy(data=np.where(covered, expected, np.nan)), exposures, weights=weights
    )
    held = np.where(covered, books.weights, 0.0)
    bent = np.where(covered, priced.specific_returns.to_numpy(), 0.0)
    left = np.where(covered, realised.specific_returns.to_numpy(), 0.0)
    exposure = np.column_stack([held.sum(axis=1), np.einsum("da,dak->dk", held, _filled(beta))])
    factor_return = realised.factor_returns.to_numpy()
    shared = exposure * np.where(realised.dropped, 0.0, factor_return)
    own = [np.einsum("da,da->d", held, part) for part in (bent, left - bent)]
    columns = tuple(str(name) for name in realised.factor_returns[FACTOR].to_numpy())
    return RealisedSplit(
        names=(*columns, NONLINEAR, SPECIFIC),
        parts=np.column_stack([shared, *own]),
        draws=None,
        covered=covered,
        factors=columns,
        exposure=exposure,
        factor_return=factor_return,
        standard_error=realised.standard_errors.to_numpy(),
        condition=realised.condition.to_numpy(),
        ledger=realised.ledger,
    )


def split_by_posterior(
    fit: SVIFit,
    panel: Panel,
    books: RealisedBooks,
    *,
    dates: DateRange | None,
    draws: int,
    generator: np.random.Generator,
) -> RealisedSplit:
    """Return the books' returns split by each date's factors given its returns.

    Raises
    ------
    SpecError
        If the model has no latent factors.
    """
    posterior = sample_posterior(fit, panel, draws=1, seed=0, dates=dates)
    if not posterior.has_factors:
        raise SpecError(
            "attribution by posterior must be of a model with latent factors; got a fit of "
            f"{fit.model.name}, whose assets share none. Use method='regression'."
        )
    rows = slice(len(books.dates))
    moments = posterior.moments.isel({DATE: rows})
    constants = posterior.constants.isel({DATE: rows})
    held = np.where(books.entered, books.weights, 0.0)
    beta = _filled(constants["beta"].to_numpy().astype(np.float64))
    alpha = _filled(constants["alpha_loc"].to_numpy().astype(np.float64))
    exposure = np.einsum("da,dak->dk", held, beta)
    priced = np.einsum("da,da->d", held, alpha)
    earned = np.einsum("da,da->d", held, books.returns)
    mean = moments["posterior_loc"].to_numpy().astype(np.float64)
    root = np.linalg.cholesky(moments["posterior_covariance"].to_numpy().astype(np.float64))
    noise = generator.standard_normal((draws, *mean.shape))
    sampled = mean + np.einsum("dkl,sdl->sdk", root, noise)

    def split(z: np.ndarray) -> np.ndarray:
        shared = exposure * z
        own = np.broadcast_to(priced, shared.shape[:-1])
        rest = earned - shared.sum(axis=-1) - own
        return np.concatenate([shared, own[..., None], rest[..., None]], axis=-1)

    factors = tuple(str(name) for name in moments[FACTOR].to_numpy())
    return RealisedSplit(
        names=(*factors, ALPHA, SPECIFIC),
        parts=split(mean),
        draws=split(sampled),
        covered=books.entered,
        factors=factors,
        exposure=exposure,
        factor_return=mean,
        standard_error=moments["posterior_scale"].to_numpy().astype(np.float64),
        condition=None,
        ledger=DropLedger(),
    )


def _law_arrays(
    fit: SVIFit, panel: Panel, dates: DateRange | None, n_dates: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return exposures (date, asset, factor) and expected returns (date, asset), float64.

    Exposures without the column of ones; NaN where an asset did not enter.
    """
    visit, model = open_pass(fit, panel, dates), wide_model(fit)
    betas: list[Tensor] = []
    means: list[Tensor] = []
    with torch.no_grad():
        for batch, _ in visit.windows.stream(visit.blocks(fit.config.block_size)):
            context = model.context(wide_batch(batch))
            law = model.law(context)
            betas.append(model.exposures(context) if model.uses_exposures else law.beta)
            means.append(law.marginal().mean * fit.return_scale)
    entered = visit.windows.entered[visit.span].numpy()[:n_dates]
    beta = np.where(entered[..., None], torch.cat(betas).numpy()[:n_dates], np.nan)
    return beta, np.where(entered, torch.cat(means).numpy()[:n_dates], np.nan)


def _filled(values: np.ndarray) -> np.ndarray:
    """Return values with 0 where an asset has no law; its weight there is 0 as well."""
    return np.where(np.isfinite(values), values, 0.0)


def _require_regressions(regression: CrossSectionalRegression, covered: np.ndarray) -> None:
    """Refuse dates without a regression.

    Raises
    ------
    SpecError
        Names the dates.
    """
    lacking = ~covered.any(axis=1)
    if lacking.any():
        days = regression.factor_returns[DATE].to_numpy()[lacking]
        n_columns = regression.factor_returns.sizes[FACTOR]
        raise SpecError(
            f"each date must have more assets with return, exposures and weight than its "
            f"{n_columns} columns; got too few on {name_places(str(day)[:10] for day in days)}. "
            "Leave these dates out, or use method='posterior'."
        )
