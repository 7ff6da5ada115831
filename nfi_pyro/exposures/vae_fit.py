"""Training of the variational autoencoder, and what comes out of it."""

import math
import warnings
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyro
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor

from nfi_pyro.dims import EPOCH, FEATURE
from nfi_pyro.errors import NonFiniteLossError, SplitError
from nfi_pyro.exposures.ppca import gather_moments, refuse_unusable
from nfi_pyro.exposures.rows import (
    Span,
    check_rows,
    date_rows,
    span_days,
    span_positions,
)
from nfi_pyro.exposures.vae import VAE, VAESpec
from nfi_pyro.exposures.vae_result import VAEFit
from nfi_pyro.exposures.vae_start import start_at_ppca

_ODD_SCALE = 10.0  # a feature whose spread is this far from 1 was hardly standardised


class VAETraining(BaseModel):
    """How `fit_vae` trains.

    Attributes
    ----------
    n_epochs : int
        Most passes over the training dates.
    dates_per_batch : int
        Whole consecutive dates in a step.
    learning_rate : float
        Adam's at first; it falls to zero over `n_epochs` along a cosine.
    patience : int
        Epochs without a better validation ELBO before training stops; the best weights are kept.
    clip_norm : float
        Largest global gradient norm.
    start : {"ppca", "random"}
        Where the linear maps begin: at probabilistic PCA, from which a factorised guide learns
        much faster, or at random weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_epochs: int = Field(default=200, ge=1)
    dates_per_batch: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=3e-3, gt=0.0)
    patience: int = Field(default=20, ge=1)
    clip_norm: float = Field(default=10.0, gt=0.0)
    start: Literal["ppca", "random"] = "ppca"


def fit_vae(
    features: xr.DataArray,
    mask: xr.DataArray,
    *,
    spec: VAESpec,
    train: Span,
    validation: Span,
    training: VAETraining | None = None,
    seed: int = 0,
) -> VAEFit:
    r"""Return a variational autoencoder trained on the rows of a panel.

    Maximises ``E_q[log p(x|z)] - KL(q(z|x) || p(z))`` by row (Kingma and Welling 2014, Eq. 3):
    one reparametrised draw, KL in closed form, through Pyro's `TraceMeanField_ELBO`. Training
    stops early on the ELBO of the validation dates, taken with the same draws each time.

    Parameters
    ----------
    features : DataArray, dims (date, asset, feature)
        Standardised by the caller; a warning names features whose training spread is more than
        ten times off 1. NaN = missing: masked in the likelihood, flagged to the encoder. Read a
        batch of dates at a time.
    mask : DataArray of bool, dims (date, asset)
        Cells that count, such as ``panel["tradable"]``; those without any entry are left out.
    spec : VAESpec
    train, validation : slice of positions, DateSpan or pair of ISO days
        Must not share a date.
    training : VAETraining, optional
    seed : int
        Of weights, batches and draws; global generators are left as they were. The same seed
        gives the same bits on a CPU with one thread count.

    Returns
    -------
    VAEFit

    Raises
    ------
    PanelError
        If layout or labels are wrong, a cell of the mask is infinite, or a feature is constant
        or has no value in training.
    SplitError
        If the spans share dates, or a span has no row.
    NonFiniteLossError
        If the loss stops being a number.

    References
    ----------
    .. [1] Kingma, Welling (2014). Auto-Encoding Variational Bayes. ICLR.
    """
    check_rows(features, mask)
    settings = training or VAETraining()
    spans = span_positions(features, train), span_positions(features, validation)
    _check_spans(spans, features)
    spec = spec.model_copy(update={"n_features": features.sizes[FEATURE]})
    moments, n_dropped = gather_moments(
        features, mask, spans[0], n_factors=spec.n_factors, complete=False
    )
    names = features[FEATURE].to_numpy()
    refuse_unusable(moments, names, spec.n_factors)
    _warn_odd_scales(np.sqrt(moments.covariance().diagonal()), names)
    module = VAE(spec, seed=seed)
    if settings.start == "ppca":
        start_at_ppca(module, moments)
    with torch.random.fork_rng(devices=[]), pyro.settings.context(module_local_params=True):
        torch.manual_seed(seed)
        # Pyro's warning of a NaN: the training loop raises an error that says more.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered NaN")
            curves = _train(module, features, mask, spans, settings)
    return VAEFit(
        spec=spec,
        weights={name: value.detach().clone() for name, value in module.state_dict().items()},
        features=tuple(map(str, names)),
        history=xr.Dataset({name: (EPOCH, np.array(values)) for name, values in curves.items()}),
        posterior_variance=_posterior_variance(module, features, mask, spans[0]),
        n_rows=moments.n,
        n_dropped=n_dropped,
        train=span_days(features, spans[0]),
        seed=seed,
    )


def _check_spans(spans: tuple[slice, slice], features: xr.DataArray) -> None:
    """Refuse training and validation that share dates."""
    train, validation = spans
    if train.start < validation.stop and validation.start < train.stop:
        raise SplitError(
            "train and validation must not share dates; got "
            f"{' to '.join(span_days(features, train))} and "
            f"{' to '.join(span_days(features, validation))}. End one before the other begins."
        )


def _warn_odd_scales(spread: np.ndarray, names: np.ndarray) -> None:
    """Warn of features that were hardly standardised."""
    odd = (spread > _ODD_SCALE) | (spread < 1.0 / _ODD_SCALE)
    if odd.any():
        worst = int(np.abs(np.log(spread)).argmax())
        warnings.warn(
            f"features must be standardised for a VAE; got a spread of {spread[worst]:.3g} at "
            f"{names[worst]} and {int(odd.sum())} such features in all. Fit a transform on the "
            "training dates first.",
            UserWarning,
            stacklevel=3,
        )


def _batches(
    features: xr.DataArray, mask: xr.DataArray, span: slice, size: int
) -> Iterator[Tensor]:
    """Yield the rows of `size` whole dates at a time, float32 (row, feature), NaN = missing."""
    for start in range(span.start, span.stop, size):
        yield _read_rows(features, mask, slice(start, min(start + size, span.stop)))


def _read_rows(features: xr.DataArray, mask: xr.DataArray, span: slice) -> Tensor:
    """Return the rows of some dates that have an entry, float32 (row, feature)."""
    found = [rows.values for rows in date_rows(features, mask, span, complete=False)]
    return torch.as_tensor(np.concatenate(found).astype(np.float32))


def _train(
    module: VAE,
    features: xr.DataArray,
    mask: xr.DataArray,
    spans: tuple[slice, slice],
    settings: VAETraining,
) -> dict[str, list[float]]:
    """Train in place and leave the best weights; return ELBO and KL by epoch, nats per row."""
    train, validation = spans
    optimizer = torch.optim.Adam(module.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.n_epochs)
    curves: dict[str, list[float]] = {"elbo": [], "kl": [], "validation_elbo": []}
    best, best_epoch = -math.inf, 0
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    for epoch in range(settings.n_epochs):
        elbo, kl = _run_epoch(module, optimizer, (features, mask), train, settings)
        schedule.step()
        score = _validation_elbo(module, features, mask, validation, settings.dates_per_batch)
        for name, value in zip(curves, (elbo, kl, score), strict=True):
            curves[name].append(value)
        if not math.isfinite(score):
            raise NonFiniteLossError(
                f"the ELBO must be finite; got {score} in validation at epoch {epoch + 1}. "
                "Standardise the features or lower learning_rate."
            )
        if score > best:
            best, best_epoch = score, epoch
            weights = {name: value.clone() for name, value in module.state_dict().items()}
        if epoch - best_epoch >= settings.patience:
            break
    module.load_state_dict(weights)
    return curves


def _run_epoch(
    module: VAE,
    optimizer: torch.optim.Optimizer,
    panel: tuple[xr.DataArray, xr.DataArray],
    train: slice,
    settings: VAETraining,
) -> tuple[float, float]:
    """Take one step on each batch of dates, in random order; return ELBO and KL per row."""
    starts = torch.arange(train.start, train.stop, settings.dates_per_batch)
    loss_of = TraceMeanField_ELBO()
    total, total_kl, n_rows = 0.0, 0.0, 0
    for start in starts[torch.randperm(len(starts))].tolist():
        rows = _read_rows(*panel, slice(start, min(start + settings.dates_per_batch, train.stop)))
        if not len(rows):
            continue
        context = module.context(rows)
        # Values that are no numbers are named below, in our words; shapes do not change.
        with pyro.validation_enabled(False):
            loss = loss_of.differentiable_loss(module.model, module.guide, context)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the ELBO must be finite; got {-float(loss.detach())} on the dates from "
                f"position {start}. Standardise the features or lower learning_rate."
            )
        optimizer.zero_grad()
        (loss / len(rows)).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), settings.clip_norm)
        optimizer.step()
        total -= float(loss.detach())
        total_kl += float(_kl(context.loc.detach(), context.scale.detach()).sum())
        n_rows += len(rows)
    return total / n_rows, total_kl / n_rows


def _kl(loc: Tensor, scale: Tensor) -> Tensor:
    """Return KL(N(loc, scale^2) || N(0, 1)), the shape of `loc`."""
    return 0.5 * (loc.square() + scale.square() - 1.0) - scale.log()


def _validation_elbo(
    module: VAE, features: xr.DataArray, mask: xr.DataArray, span: slice, size: int
) -> float:
    """Return the ELBO per validation row, with the same draws at every call."""
    total, n_rows = 0.0, 0
    loss_of = TraceMeanField_ELBO()
    with torch.no_grad(), torch.random.fork_rng(devices=[]), pyro.validation_enabled(False):
        torch.manual_seed(0)
        for rows in _batches(features, mask, span, size):
            if len(rows):
                context = module.context(rows)
                total -= float(loss_of.loss(module.model, module.guide, context))
                n_rows += len(rows)
    if not n_rows:
        raise SplitError(
            "validation must hold at least one row of the mask; got none at "
            f"{' to '.join(span_days(features, span))}. Choose other dates."
        )
    return total / n_rows


def _posterior_variance(
    module: VAE, features: xr.DataArray, mask: xr.DataArray, span: slice
) -> np.ndarray:
    """Return the variance of the posterior mean over the training rows, by factor, float64."""
    n, mean, square = 0, np.zeros(module.spec.n_factors), np.zeros(module.spec.n_factors)
    with torch.no_grad():
        for found in date_rows(features, mask, span, complete=False):
            if not len(found.values):
                continue
            loc = module.context(torch.as_tensor(found.values.astype(np.float32))).loc
            values = loc.numpy().astype(np.float64)
            shift = values.mean(axis=0) - mean
            total = n + len(values)
            square += ((values - values.mean(axis=0)) ** 2).sum(axis=0)
            square += shift**2 * (n * len(values) / total)
            mean, n = mean + shift * (len(values) / total), total
    return square / max(1, n - 1)
